//! The saved plan: one file with the rows that will change, and what the plan says of them.
//!
//! ```text
//! segment | frame | tail: magic 8, frame offset u64, frame length u64
//! ```
//!
//! The segment's identity is (repository, job, 0); its root is in the frame. The digest of the
//! frame stands for the whole plan: it is what a reviewer approves.

mod file;
mod last_change;
mod note;
mod wire;

use reinstate_core::{
    ChangeCounts, ContentDigest, Digest, Fingerprint, JobId, Policy, Position, PositionNotation,
    RepositoryId, SnapshotId, StoreIdentity, StoreSchema, TableIndex, TenantId, TenantKind,
    Timestamp,
};

pub use file::{PLAN_TAIL_BYTES, encode_plan_end, read_plan};
pub use last_change::{LAST_CHANGE_BYTES, LastChange, push_last_change};
pub use note::{NoteKind, PlanNote};

#[cfg(test)]
pub(crate) use file::{PLAN, TAIL_MAGIC};

/// The most conflicts that are listed for one tenant; all are counted.
pub const CONFLICTS_MAX: usize = 1000;

/// What a plan says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanDescription {
    /// The run that will apply it.
    pub job: JobId,
    /// The repository whose snapshot it restores.
    pub repository: RepositoryId,
    /// The store that it is for.
    pub store: StoreIdentity,
    /// What kind of id its tenants have.
    pub tenant_kind: TenantKind,
    /// The snapshot that it restores from.
    pub snapshot: SnapshotId,
    /// The position that it goes back to.
    pub point: Position,
    /// The time of that position.
    pub point_time: Timestamp,
    /// How the store writes positions.
    pub notation: PositionNotation,
    /// When it was made, by the store's clock if it has one.
    pub planned_at: Timestamp,
    /// The position of the live store that it was made from.
    pub live_position: Position,
    /// The live store's tables.
    pub schema: StoreSchema,
    /// The digest of that schema.
    pub schema_digest: Digest,
    /// Which changes it may contain.
    pub policy: Policy,
    /// The job whose merge it takes back, if it is an undo.
    pub undoes: Option<JobId>,
    /// Where its rows are.
    pub segment: PlanSegment,
    /// What a reviewer should know about the store's tables.
    pub notes: Vec<PlanNote>,
    /// What it does to each tenant.
    pub tenants: Vec<TenantPlanDescription>,
}

/// The segment of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanSegment {
    /// Its length; it starts with the file.
    pub stored_bytes: u64,
    /// The digest of its trailer.
    pub root: Digest,
}

impl Default for PlanSegment {
    /// No bytes and a digest of zeros: to be filled in when the segment is written.
    fn default() -> Self {
        Self {
            stored_bytes: 0,
            root: Digest::from_bytes([0; 32]),
        }
    }
}

/// What a plan does to one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantPlanDescription {
    /// The tenant.
    pub tenant: TenantId,
    /// The state of the live tenant that the plan was made from.
    pub fingerprint: Fingerprint,
    /// The digest of the image that it restores.
    pub image_digest: Digest,
    /// What it does to each table.
    pub tables: Vec<TablePlan>,
    /// The first [`CONFLICTS_MAX`] conflicts; the tables have the counts of all.
    pub conflicts: Vec<Conflict>,
    /// What a reviewer should know about this tenant's rows.
    pub notes: Vec<PlanNote>,
}

/// What a plan does to one table of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TablePlan {
    /// The table.
    pub table: TableIndex,
    /// How many rows change.
    pub counts: ChangeCounts,
    /// How many rows are the same.
    pub same: u64,
    /// How many rows differ and are left alone because a switch is off.
    pub kept: u64,
    /// How many rows conflict.
    pub conflicts: u64,
    /// What the live table contains before the merge.
    pub before: ContentDigest,
    /// What it must contain after.
    pub expected: ContentDigest,
    /// Rows, as they are after the merge, that nobody owned before it and that become the tenant's
    /// because what they belong to is back.
    pub gained: ContentDigest,
    /// Rows that nobody owns after the merge because what they belong to is gone again.
    pub lost: ContentDigest,
}

/// A row whose place is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The table.
    pub table: TableIndex,
    /// The row's encoded key.
    pub key: Vec<u8>,
    /// What takes its place, without any value.
    pub constraint: String,
}
