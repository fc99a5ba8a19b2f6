//! Live store and capture on PostgreSQL 15 and newer.
//!
//! [`PostgresStore`] is a [`LiveStore`](reinstate_core::LiveStore): it captures the whole
//! database at one position, reads one tenant, and writes one tenant in one transaction. Rows
//! travel as COPY text under pinned settings; see `docs/postgres.md` for what the role needs and
//! what the limits are, and decision record 0004 for why.
//!
//! Every function waits for the server and must not be called from within an async runtime.

mod capture;
mod catalog;
mod check;
mod connections;
mod copy_text;
mod copying;
mod drift;
mod effects;
mod error;
mod feed;
mod fingerprint;
mod guard;
mod held;
mod journal;
mod lease;
mod left_behind;
mod merge;
mod obstacles;
mod others;
mod own_keys;
mod own_sets;
mod owner;
mod question;
mod referring;
mod rows;
mod sent;
mod session;
mod settings;
mod snapshot;
mod sql;
mod state;
mod store;
mod stray;
mod suggest;
mod taken;
mod tenancy;
mod tls;
mod view;

pub use check::{TenancyCheck, TenancyFault, TenancyFinding};
pub use guard::{GuardState, GuardedTable};
pub use lease::LeaseHolder;
pub use settings::{ConnectionSettings, SecretUrl};
pub use store::PostgresStore;
pub use suggest::{Proposal, RowCount, SuggestOptions, TenancyProposal};
pub use tenancy::{RouteRule, TableRule, TenancyMap, Unowned};
