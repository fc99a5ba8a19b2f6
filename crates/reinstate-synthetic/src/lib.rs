//! Seeded multi-tenant stores with known answers.
//!
//! A [`SyntheticStore`] is an issue tracker of up to 100,000 tenants and 100 million rows that
//! exists only as a formula: any row of any tenant can be computed alone, so a store of any size
//! streams in little memory, and what a restore should give back is known without keeping it.
//!
//! ```
//! use reinstate_core::{ContentDigest, RowBatch};
//! use reinstate_synthetic::{Flavour, SyntheticSpec, SyntheticStore, Table};
//!
//! let spec = SyntheticSpec { seed: 7, tenant_count: 20, row_count: 2_000, skew: 1.0, large_tenant: None };
//! let store = SyntheticStore::try_new(spec, Flavour::Native)?;
//! let mut digest = ContentDigest::EMPTY;
//! let mut batch = RowBatch::new();
//! let mut rows = store.rows_of(3, Table::Issues.index());
//! while rows.next_batch(&mut batch)? {
//!     batch.iter().for_each(|row| digest.add(row));
//! }
//! assert_eq!(digest.row_count(), store.row_count_of(3, Table::Issues.index()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** nothing here prints, reads the time or keeps a global.

mod copy;
mod ddl;
mod draft;
mod row;
mod sizes;
mod spec;
mod store;
mod stream;
mod table;
mod text;

pub use copy::copy_text_line;
pub use spec::{LargeTenant, ROW_COUNT_MAX, SpecError, SyntheticSpec, TENANT_COUNT_MAX};
pub use store::SyntheticStore;
pub use table::{Flavour, Table};
