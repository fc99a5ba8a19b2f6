//! The change log: what was committed after a snapshot, in immutable runs that follow each other.
//!
//! ```text
//! snapshot <- run 0 <- run 1 <- run 2      each record holds the digest of the one before it
//!
//! object of a run := segment of changes | commits
//! ```
//!
//! Where the tables changed, a record between two runs says which they are from there on, and what
//! became of the rows.
//!
//! A run holds whole transactions. Its changes lie in a segment as rows do in a snapshot: those of
//! one owner and one table together, by key. The commits with their times stand behind it.

mod base;
mod change;
mod commits;
mod origin;
mod pack;
mod record;
mod version;

pub use base::{LogBase, decode_log_base, encode_log_base};
pub use change::{CHANGE_PLACE_BYTES, ChangeKind, LoggedChange, push_change};
pub use commits::{LOG_COMMITS_MAX, LoggedCommit, decode_commits, encode_commits};
pub use origin::{decode_log_origin, encode_log_origin};
pub use pack::{LOG_PACK_RECORDS_MAX, decode_log_pack, encode_log_pack};
pub use record::{
    FamilyMove, LogRunDescription, LogRunExtent, Truncation, decode_log_run, encode_log_run,
    link_name, log_run_identity, log_run_previous, open_log_run, record_digest,
};
pub use version::{
    LogVersionDescription, decode_log_version, encode_log_version, is_log_version,
    log_version_place,
};

#[cfg(test)]
pub(crate) use base::LOG_BASE;
#[cfg(test)]
pub(crate) use commits::COMMITS;
#[cfg(test)]
pub(crate) use origin::LOG_ORIGIN;
#[cfg(test)]
pub(crate) use pack::LOG_PACK;
#[cfg(test)]
pub(crate) use record::{LINK_TAG, LOG_RUN};
#[cfg(test)]
pub(crate) use version::LOG_VERSION;
