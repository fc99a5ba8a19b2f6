//! Live store on redb: rows of many tenants in one file, written to by an application's threads
//! and restored from under them, tenant by tenant.
//!
//! Rows lie under their tenant's id, so that a tenant is a range and a restore cannot reach
//! another one's. A large restore is built aside, in short transactions that let other writers
//! through, and becomes visible in a single one.
//!
//! ```
//! # use reinstate_core::{
//! #     ColumnIndex, ColumnSchema, KeyForm, Owner, StoreId, StoreIdentity, StoreSchema, TableName,
//! #     TableSchema, Tenancy, TenantId, TenantKind,
//! # };
//! # use reinstate_embedded::{EmbeddedOptions, EmbeddedStore};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("app.redb");
//! # let identity = StoreIdentity { id: StoreId::from_bytes([1; 16]), name: "app".to_owned() };
//! # let column = |name: &str, key_form| ColumnSchema {
//! #     name: name.to_owned(), type_name: "text".to_owned(), nullable: false, key_form,
//! # };
//! # let schema = StoreSchema::try_new(vec![TableSchema {
//! #     name: TableName::new("orders"),
//! #     columns: vec![column("id", KeyForm::Integer), column("state", KeyForm::Bytes)],
//! #     key: vec![ColumnIndex(0)],
//! #     tenancy: Tenancy::Native,
//! #     references: Vec::new(),
//! # }])?;
//! # let kind = TenantKind::parse("account")?;
//! let store = EmbeddedStore::create(&path, &EmbeddedOptions::default(), identity, kind, schema)?;
//! let acme = Owner::Tenant(TenantId::try_new("acme")?);
//! let orders = store.table("orders")?;
//! store.write(|transaction| {
//!     let mut table = transaction.table(orders)?;
//!     table.put_values(&acme, &[Some(b"2"), Some(b"paid")])?;
//!     table.put_values(&acme, &[Some(b"1"), Some(b"open")])
//! })?;
//! let mut states = Vec::new();
//! store.read()?.rows(&acme, orders, |batch| {
//!     states.extend(batch.iter().filter_map(|row| row.values().nth(1).flatten().map(<[u8]>::to_vec)));
//!     Ok(())
//! })?;
//! assert_eq!(states, [b"open", b"paid"]);
//! # Ok(())
//! # }
//! ```

mod application;
mod backend;
mod backlog;
mod capture;
mod commit;
mod error;
mod feed;
mod gate;
mod generation;
mod key;
mod lease;
mod load;
mod merge;
mod reading;
mod scan;
mod schema_record;
mod store;
#[cfg(test)]
mod testing;
mod view;

pub use application::{TableWriter, WriteTransaction};
pub use lease::Fence;
pub use reading::ReadTransaction;
pub use store::{EmbeddedOptions, EmbeddedStore};
