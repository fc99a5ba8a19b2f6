//! Live store on redb: rows of many tenants in one file, written to by an application's threads
//! and restored from under them, tenant by tenant.
//!
//! Rows lie under their tenant's id, so that a tenant is a range and a restore cannot reach
//! another one's. A large restore is built aside, in short transactions that let other writers
//! through, and becomes visible in a single one.

mod application;
mod backend;
mod capture;
mod error;
mod gate;
mod generation;
mod key;
mod load;
mod merge;
mod scan;
mod schema_record;
mod store;
mod view;

pub use application::{ReadTransaction, TableWriter, WriteTransaction};
pub use store::{EmbeddedOptions, EmbeddedStore};
