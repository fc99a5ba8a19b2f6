//! The store on redb against a model of it: histories, both ways of merging, kills at every
//! operation, and storage that fails.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod capture;
mod crash;
mod failing;
mod feeds;
mod files;
mod follow;
mod histories;
mod lease;
mod loads;
mod merges;
mod replica;
mod storage;
mod support;
