//! Certification suite for live stores: properties, oracle, faults and mutants.
//!
//! [`MemoryStore`] is the reference of what a live store must do, [`MemoryRepository`] of a
//! repository. [`certify_live_store`] makes the tests that an adapter has to pass, and
//! [`certify_engine`] those that the engine has to pass on it.
//! [`figures`] keeps what tests counted. [`cluster`] runs a PostgreSQL server for a test.

mod application;
pub mod certification;
mod changes;
pub mod cluster;
pub mod engine;
pub mod faults;
pub mod figures;
mod memory;
pub mod mutants;
mod repository;
mod synthetic;

pub use application::{ApplicationChange, ApplicationRow, encode_row, row_values};
pub use changes::Changes;
pub use memory::{KeySpace, MemoryOptions, MemoryStore};
pub use repository::MemoryRepository;
pub use synthetic::SyntheticLive;
