//! Snapshots and tenants as records.

use reinstate_core::SnapshotDescription;
use serde::Serialize;

/// A snapshot, for machines.
#[derive(Debug, Serialize)]
pub struct SnapshotRecord {
    #[serde(rename = "type")]
    record: &'static str,
    /// Its id.
    pub id: String,
    /// The store's name.
    pub store: String,
    /// The store's id.
    pub store_id: String,
    /// The kind of id its tenants have.
    pub tenant_kind: String,
    /// The position.
    pub position: String,
    /// The time.
    pub taken_at: String,
    /// How many tenants are in it.
    pub tenants: u64,
    /// Rows, over all tables.
    pub rows: u64,
    /// Bytes of the encoded rows.
    pub plain_bytes: u64,
    /// Bytes of the segments.
    pub stored_bytes: u64,
    /// How many segments it has.
    pub segments: usize,
}

/// A tenant of a snapshot, for machines.
#[derive(Debug, Serialize)]
pub struct TenantRecord {
    /// Always `tenant`.
    #[serde(rename = "type")]
    pub record: &'static str,
    /// The tenant.
    pub tenant: String,
    /// Its rows.
    pub rows: u64,
    /// Bytes of its encoded rows, in a snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plain_bytes: Option<u64>,
    /// Bytes of its stored blocks, in a snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
}

/// The record of a snapshot.
#[must_use]
pub fn snapshot_record(snapshot: &SnapshotDescription) -> SnapshotRecord {
    let totals = snapshot.totals.iter();
    SnapshotRecord {
        record: "snapshot",
        id: snapshot.id.to_string(),
        store: snapshot.store.name.clone(),
        store_id: snapshot.store.id.to_string(),
        tenant_kind: snapshot.tenant_kind.to_string(),
        position: snapshot.position.display(snapshot.notation),
        taken_at: snapshot.taken_at.to_string(),
        tenants: snapshot.tenant_count,
        rows: totals.clone().map(|total| total.row_count).sum(),
        plain_bytes: totals.map(|total| total.plain_bytes).sum(),
        stored_bytes: snapshot
            .segments
            .iter()
            .map(|segment| segment.stored_bytes)
            .sum(),
        segments: snapshot.segments.len(),
    }
}
