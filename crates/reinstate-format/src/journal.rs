//! The payload of a live store's journal entry: enough to find the plan of a merge again.

use reinstate_core::{ChangeCounts, ObjectId, SnapshotId};
use wincode::{SchemaRead, SchemaWrite};

use crate::FormatError;
use crate::frame::FrameKind;
use crate::wire::WireCounts;

pub(crate) const JOURNAL: FrameKind = FrameKind {
    magic: *b"RNSTJRNL",
    version: 1,
    structure: "journal entry",
};

/// What the engine wants to find again in a store's journal, besides job, tenant and plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalPayload {
    /// The snapshot that was restored from.
    pub snapshot: SnapshotId,
    /// The object in the repository that holds the plan.
    pub plan_object: ObjectId,
    /// How many rows changed, over all tables.
    pub counts: ChangeCounts,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireJournal {
    snapshot: [u8; 16],
    plan_object: [u8; 16],
    counts: WireCounts,
}

/// Writes a journal entry's payload.
#[must_use]
pub fn encode_journal_payload(payload: &JournalPayload) -> Vec<u8> {
    let wire = WireJournal {
        snapshot: *payload.snapshot.as_bytes(),
        plan_object: *payload.plan_object.as_bytes(),
        counts: payload.counts.into(),
    };
    JOURNAL.encode(&wire).0
}

/// Reads a journal entry's payload.
///
/// # Errors
/// Any of the frame's.
pub fn decode_journal_payload(bytes: &[u8]) -> Result<JournalPayload, FormatError> {
    let (wire, _) = JOURNAL.decode::<WireJournal>(bytes)?;
    Ok(JournalPayload {
        snapshot: SnapshotId::from_bytes(wire.snapshot),
        plan_object: ObjectId::from_bytes(wire.plan_object),
        counts: wire.counts.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::check_frame_against_bincode;

    #[test]
    fn the_layout_is_that_of_bincode() {
        let golden = include_bytes!("../tests/golden/v1/journal");
        check_frame_against_bincode::<WireJournal>(&JOURNAL, golden);
    }
}
