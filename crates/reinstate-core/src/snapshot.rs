//! Snapshots and the segments that hold their rows.

use crate::{
    Digest, ObjectId, Owner, Position, PositionNotation, SnapshotId, StoreId, StoreSchema,
    TenantKind, Timestamp,
};

/// Which live store something belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoreIdentity {
    /// Fixed for the life of the store.
    pub id: StoreId,
    /// What its operators call it.
    pub name: String,
}

/// An immutable, consistent image of a whole store at one position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotDescription {
    /// The snapshot's own id.
    pub id: SnapshotId,
    /// The store it was taken from.
    pub store: StoreIdentity,
    /// What kind of id its tenants have.
    pub tenant_kind: TenantKind,
    /// Every commit up to here is in it, and none after.
    pub position: Position,
    /// How the store writes positions.
    pub notation: PositionNotation,
    /// When it was taken, by the store's clock if it has one.
    pub taken_at: Timestamp,
    /// The store's tables as they were.
    pub schema: StoreSchema,
    /// The digest of that schema.
    pub schema_digest: Digest,
    /// Counters of the store, as they were.
    pub sequences: Vec<SequenceValue>,
    /// Where its rows are, in the order of their owners.
    pub segments: Vec<SegmentDescription>,
    /// What each table holds, in the order of the schema.
    pub totals: Vec<TableTotals>,
    /// How many tenants have at least one row.
    pub tenant_count: u64,
}

/// One immutable object that holds rows of a range of owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentDescription {
    /// The object's name in the repository.
    pub object: ObjectId,
    /// Its place among the snapshot's segments, from zero.
    pub number: u32,
    /// Its length.
    pub stored_bytes: u64,
    /// The first owner in it.
    pub first_owner: Owner,
    /// The last owner in it. The next segment may go on with the same one.
    pub last_owner: Owner,
    /// How many rows it holds.
    pub row_count: u64,
    /// The digest of its trailer, which every block's digest leads up to.
    pub root: Digest,
    /// How its blocks are encrypted.
    pub encryption: Encryption,
}

/// How blocks are encrypted. Persisted: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encryption {
    /// Not at all.
    None = 0,
}

/// What a snapshot holds of one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableTotals {
    /// Rows.
    pub row_count: u64,
    /// Bytes of the encoded rows.
    pub plain_bytes: u64,
    /// Bytes of the stored blocks.
    pub stored_bytes: u64,
}

/// A counter that hands out values for a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceValue {
    /// The counter's name as its store writes it.
    pub name: String,
    /// The last value it had handed out, or the one before its first.
    pub last_value: i64,
}
