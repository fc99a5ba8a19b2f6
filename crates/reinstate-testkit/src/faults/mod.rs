//! Repositories and stores that fail on purpose, at the operation that is asked for.
//!
//! Both count their operations, so that a test runs once without a fault, learns how many there
//! are, and then tries every one of them: enumerate the cut points, do not sample.

mod fence;
mod repository;
mod store;

pub use fence::FenceCounts;
pub use repository::{Damage, FaultyRepository, RepositoryFault};
pub use store::{FaultyStore, StoreFault};
