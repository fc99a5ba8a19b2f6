//! The store on redb against a model of it: histories, both ways of merging, kills at every
//! operation, and storage that fails.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod capture;
mod crash;
mod failing;
mod files;
mod histories;
mod merges;
mod storage;
mod support;
