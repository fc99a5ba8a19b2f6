//! The change log: what was committed after a snapshot, so that a tenant can go back to any commit.
//!
//! ```text
//! feed -> owners -> runs -> repository          follow
//! repository -> log -> position -> image        extract_at
//! ```

mod chain;
mod compact;
mod follow;
mod history;
mod index;
mod kept;
mod known;
mod origin;
mod owners;
mod pack;
mod position;
mod seal;
mod versions;
mod waiting;
mod ways;

pub(crate) use origin::note_origin;
pub(crate) use owners::{Names, names};
pub(crate) use versions::Reshape;
pub(crate) use ways::{Way, going_by_others, names_of, way};

pub use chain::{Log, LogRun, Unreachable, log_of, logs};
pub use compact::compact;
pub use follow::{FollowOptions, FollowStep, Follower, begin_log};
pub use history::{TenantHistory, TenantTransaction, history_of};
pub use origin::{check_timeline, timeline_of};
pub use pack::damaged_packs;
pub use position::{Moment, Surroundings};
pub use versions::LogVersion;
