//! The change log against a naive replay: at every commit, and just before and after it, a tenant is
//! what a store that remembers everything says it was.

#![cfg(test)]

#[path = "log/blocks.rs"]
mod blocks;
#[path = "log/damage.rs"]
mod damage;
#[path = "log/exhaustive.rs"]
mod exhaustive;
#[path = "log/feed.rs"]
mod feed;
#[path = "log/ground.rs"]
mod ground;
#[path = "log/histories.rs"]
mod histories;
#[path = "log/model.rs"]
mod model;
#[path = "log/omitted.rs"]
mod omitted;
#[path = "log/owners.rs"]
mod owners;
#[path = "log/since.rs"]
mod since;
#[path = "log/spilled.rs"]
mod spilled;
#[path = "log/times.rs"]
mod times;
#[path = "log/versions.rs"]
mod versions;
