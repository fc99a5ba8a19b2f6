//! The receipt: what one merge of one tenant did. Kept in the repository beside the plan, whose
//! rows as they were before make up the undo image.

use reinstate_core::{
    ChangeCounts, Digest, JobId, ObjectId, Position, PositionNotation, SequenceRaise, SnapshotId,
    StoreIdentity, TableIndex, TableName, TenantId, TenantKind, Timestamp,
};
use wincode::{SchemaRead, SchemaWrite};

use crate::FormatError;
use crate::frame::FrameKind;
use crate::wire::{self, WireCounts, WirePosition, WireRaise, WireStore};

pub(crate) const RECEIPT: FrameKind = FrameKind {
    magic: *b"RNSTRCPT",
    version: 1,
    structure: "receipt",
};

/// What one merge of one tenant did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptDescription {
    /// The run.
    pub job: JobId,
    /// The digest of the plan that was applied.
    pub plan: Digest,
    /// The object in the repository that holds that plan.
    pub plan_object: ObjectId,
    /// The store that was written to.
    pub store: StoreIdentity,
    /// What kind of id its tenants have.
    pub tenant_kind: TenantKind,
    /// Whose rows.
    pub tenant: TenantId,
    /// The snapshot they came from.
    pub snapshot: SnapshotId,
    /// Where in the store's order the commit is.
    pub position: Position,
    /// How the store writes positions.
    pub notation: PositionNotation,
    /// What marks the commit's rows.
    pub commit_mark: Vec<u8>,
    /// When it was merged.
    pub merged_at: Timestamp,
    /// How many rows changed, by table.
    pub counts: Vec<(TableIndex, TableName, ChangeCounts)>,
    /// Counters that were raised.
    pub sequences_raised: Vec<SequenceRaise>,
    /// The job whose merge it took back, if it was an undo.
    pub undoes: Option<JobId>,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireReceipt {
    job: [u8; 16],
    plan: [u8; 32],
    plan_object: [u8; 16],
    store: WireStore,
    tenant_kind: String,
    tenant: Vec<u8>,
    snapshot: [u8; 16],
    position: WirePosition,
    notation: u8,
    commit_mark: Vec<u8>,
    merged_at_micros: i64,
    counts: Vec<WireTableCounts>,
    sequences_raised: Vec<WireRaise>,
    undoes: Option<[u8; 16]>,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireTableCounts {
    table: u32,
    name: String,
    counts: WireCounts,
}

/// Writes a receipt.
#[must_use]
pub fn encode_receipt(receipt: &ReceiptDescription) -> Vec<u8> {
    let counts = receipt
        .counts
        .iter()
        .map(|(table, name, counts)| WireTableCounts {
            table: table.0,
            name: name.as_str().to_owned(),
            counts: (*counts).into(),
        });
    let wire = WireReceipt {
        job: *receipt.job.as_bytes(),
        plan: *receipt.plan.as_bytes(),
        plan_object: *receipt.plan_object.as_bytes(),
        store: WireStore::from(&receipt.store),
        tenant_kind: receipt.tenant_kind.as_str().to_owned(),
        tenant: receipt.tenant.as_bytes().to_vec(),
        snapshot: *receipt.snapshot.as_bytes(),
        position: receipt.position.into(),
        notation: wire::notation_number(receipt.notation),
        commit_mark: receipt.commit_mark.clone(),
        merged_at_micros: receipt.merged_at.as_micros(),
        counts: counts.collect(),
        sequences_raised: receipt
            .sequences_raised
            .iter()
            .map(WireRaise::from)
            .collect(),
        undoes: receipt.undoes.map(|job| *job.as_bytes()),
    };
    RECEIPT.encode(&wire).0
}

/// Reads a receipt.
///
/// # Errors
/// Any of the frame's; `Malformed` if a value cannot be.
pub fn decode_receipt(bytes: &[u8]) -> Result<ReceiptDescription, FormatError> {
    let (wire, _) = RECEIPT.decode::<WireReceipt>(bytes)?;
    let structure = RECEIPT.structure;
    let counts = wire.counts.into_iter().map(|counts| {
        (
            TableIndex(counts.table),
            TableName::new(counts.name),
            counts.counts.into(),
        )
    });
    Ok(ReceiptDescription {
        job: JobId::from_bytes(wire.job),
        plan: Digest::from_bytes(wire.plan),
        plan_object: ObjectId::from_bytes(wire.plan_object),
        store: wire.store.into(),
        tenant_kind: wire::tenant_kind(structure, &wire.tenant_kind)?,
        tenant: wire::tenant_id(structure, wire.tenant)?,
        snapshot: SnapshotId::from_bytes(wire.snapshot),
        position: wire.position.into(),
        notation: wire::notation(structure, wire.notation)?,
        commit_mark: wire.commit_mark,
        merged_at: Timestamp::from_micros(wire.merged_at_micros),
        counts: counts.collect(),
        sequences_raised: wire
            .sequences_raised
            .into_iter()
            .map(SequenceRaise::from)
            .collect(),
        undoes: wire::job(wire.undoes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::check_frame_against_bincode;

    #[test]
    fn the_layout_is_that_of_bincode() {
        let golden = include_bytes!("../tests/golden/v1/receipt");
        check_frame_against_bincode::<WireReceipt>(&RECEIPT, golden);
    }
}
