//! The reference store: what a live store means, in as few lines as possible.
//!
//! Everything is a sorted map behind a lock. A commit replaces the whole state, so a view is a
//! pointer to the state it was opened on.
//!
//! # Consistency
//! Commits are serial. A view sees one state; a writer works on a copy of the state at which it
//! was opened, and its changes are made again on the newest state when it commits.

mod state;
mod store;
mod view;
mod writer;

pub(crate) use state::{Effect, State};
pub use store::{KeySpace, MemoryOptions, MemoryStore};
