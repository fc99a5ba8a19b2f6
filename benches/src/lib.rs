//! Measurements, each beside its limit in the same run.
//!
//! The machine that runs them may be shared and noisy: what counts are ratios between a piece of
//! reinstate and the plainest code that moves the same rows, taken in turns.

mod campaign;
mod embedded;
mod limit;
mod measure;
mod postgres;
mod site;
mod writers;

pub use campaign::{CampaignTimes, Campaigns};
pub use embedded::{RestoreTimes, merge_once, plan_again, restore, restore_once};
pub use limit::{DecodeFrom, RawStore, StoredBlocks};
pub use measure::{Paired, Spread, Summary, pairs, peak_memory_bytes, time};
pub use postgres::{
    ForeignKeys, PostgresSite, PostgresWriters, RawClient, TenantText, copy_tables_out,
    with_further_settings,
};
pub use site::{Site, SiteOptions};
pub use writers::{Waits, Writers};
