//! The same measurements on PostgreSQL: a server of one's own, and the plainest client.

mod dataset;
mod raw;
mod site;
mod writers;

pub use dataset::ForeignKeys;
pub use raw::{RawClient, copy_tables_out};
pub use site::{PostgresSite, TenantText, with_further_settings};
pub use writers::PostgresWriters;
