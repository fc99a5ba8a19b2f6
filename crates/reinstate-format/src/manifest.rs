//! The manifest: the root object of a snapshot. Publishing it is the commit.

use reinstate_core::{
    Digest, Encryption, ObjectId, Owner, RepositoryId, SegmentDescription, SequenceValue,
    SnapshotDescription, SnapshotId, TableTotals, Timestamp,
};
use wincode::{SchemaRead, SchemaWrite};

use crate::FormatError;
use crate::frame::FrameKind;
use crate::schema::WireSchema;
use crate::wire::{self, WirePosition, WireStore};

pub(crate) const MANIFEST: FrameKind = FrameKind {
    magic: *b"RNSTSNAP",
    version: 1,
    structure: "snapshot manifest",
};
/// First bytes of what the digest over a snapshot's segments is over.
pub(crate) const TREE_TAG: [u8; 8] = *b"RNSTTREE";

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireManifest {
    repository: [u8; 16],
    snapshot: [u8; 16],
    store: WireStore,
    tenant_kind: String,
    position: WirePosition,
    notation: u8,
    taken_at_micros: i64,
    schema_digest: [u8; 32],
    schema: WireSchema,
    sequences: Vec<WireSequence>,
    segments: Vec<WireSegment>,
    segments_digest: [u8; 32],
    totals: Vec<WireTotals>,
    tenant_count: u64,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireSequence {
    name: String,
    last_value: i64,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireSegment {
    object: [u8; 16],
    number: u32,
    stored_bytes: u64,
    first_owner: Vec<u8>,
    last_owner: Vec<u8>,
    row_count: u64,
    root: [u8; 32],
    encryption: u8,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireTotals {
    row_count: u64,
    plain_bytes: u64,
    stored_bytes: u64,
}

/// Writes a snapshot's manifest.
///
/// # Panics
/// If it takes more than [`FRAME_PAYLOAD_BYTES_MAX`](crate::FRAME_PAYLOAD_BYTES_MAX): millions of
/// segments.
#[must_use]
pub fn encode_snapshot(repository: RepositoryId, snapshot: &SnapshotDescription) -> Vec<u8> {
    let wire = WireManifest {
        repository: *repository.as_bytes(),
        snapshot: *snapshot.id.as_bytes(),
        store: WireStore::from(&snapshot.store),
        tenant_kind: snapshot.tenant_kind.as_str().to_owned(),
        position: snapshot.position.into(),
        notation: wire::notation_number(snapshot.notation),
        taken_at_micros: snapshot.taken_at.as_micros(),
        schema_digest: *snapshot.schema_digest.as_bytes(),
        schema: WireSchema::from(&snapshot.schema),
        sequences: snapshot.sequences.iter().map(WireSequence::from).collect(),
        segments: snapshot.segments.iter().map(WireSegment::from).collect(),
        segments_digest: *segments_digest(repository, snapshot.id, &snapshot.segments).as_bytes(),
        totals: snapshot.totals.iter().map(WireTotals::from).collect(),
        tenant_count: snapshot.tenant_count,
    };
    MANIFEST.encode(&wire).0
}

/// Reads the manifest of this snapshot in this repository.
///
/// # Errors
/// Any of the frame's; `Foreign` if it is of another repository or snapshot; `Malformed` if the
/// tables are not consistent, or the segments not in the order of their numbers and owners.
pub fn decode_snapshot(
    bytes: &[u8],
    repository: RepositoryId,
    snapshot: SnapshotId,
) -> Result<SnapshotDescription, FormatError> {
    let (wire, _) = MANIFEST.decode::<WireManifest>(bytes)?;
    let structure = MANIFEST.structure;
    let malformed = |fact: &str| FormatError::malformed(structure, fact);
    check_identity(&wire, repository, snapshot)?;
    let schema_digest = Digest::from_bytes(wire.schema_digest);
    let schema = wire.schema.into_schema(structure, schema_digest)?;
    let segments: Result<Vec<_>, _> = wire
        .segments
        .into_iter()
        .map(SegmentDescription::try_from)
        .collect();
    let segments = segments?;
    check_order(&segments)?;
    if segments_digest(repository, snapshot, &segments).as_bytes() != &wire.segments_digest {
        return Err(malformed("the segments do not have the digest beside them"));
    }
    if wire.totals.len() != schema.tables().len() {
        return Err(malformed("the totals are not those of the tables"));
    }
    if !can_be_added(&wire.totals, &segments) {
        return Err(malformed("it counts more than there can be"));
    }
    Ok(SnapshotDescription {
        id: snapshot,
        store: wire.store.into(),
        tenant_kind: wire::tenant_kind(structure, &wire.tenant_kind)?,
        position: wire.position.into(),
        notation: wire::notation(structure, wire.notation)?,
        taken_at: Timestamp::from_micros(wire.taken_at_micros),
        schema,
        schema_digest,
        sequences: wire
            .sequences
            .into_iter()
            .map(SequenceValue::from)
            .collect(),
        segments,
        totals: wire.totals.into_iter().map(TableTotals::from).collect(),
        tenant_count: wire.tenant_count,
    })
}

/// Whether sums over the tables and over the segments fit: whoever reads a manifest adds them up.
fn can_be_added(totals: &[WireTotals], segments: &[SegmentDescription]) -> bool {
    fn fits(mut counts: impl Iterator<Item = u64>) -> bool {
        counts.try_fold(0_u64, u64::checked_add).is_some()
    }
    fits(totals.iter().map(|table| table.row_count))
        && fits(totals.iter().map(|table| table.plain_bytes))
        && fits(totals.iter().map(|table| table.stored_bytes))
        && fits(segments.iter().map(|segment| segment.row_count))
        && fits(segments.iter().map(|segment| segment.stored_bytes))
}

/// The digest over all segments of a snapshot, in order: the top of the tree whose leaves are
/// blocks. Two snapshots with the same one hold the same bytes.
#[must_use]
pub fn segments_digest(
    repository: RepositoryId,
    snapshot: SnapshotId,
    segments: &[SegmentDescription],
) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&TREE_TAG);
    hasher.update(repository.as_bytes());
    hasher.update(snapshot.as_bytes());
    for segment in segments {
        hasher.update(&segment.number.to_le_bytes());
        hasher.update(segment.object.as_bytes());
        hasher.update(&segment.stored_bytes.to_le_bytes());
        hasher.update(segment.root.as_bytes());
    }
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

fn check_identity(
    wire: &WireManifest,
    repository: RepositoryId,
    snapshot: SnapshotId,
) -> Result<(), FormatError> {
    let found = (
        RepositoryId::from_bytes(wire.repository),
        SnapshotId::from_bytes(wire.snapshot),
    );
    if found == (repository, snapshot) {
        return Ok(());
    }
    Err(FormatError::Foreign {
        structure: MANIFEST.structure,
        expected: format!("snapshot {snapshot} of repository {repository}"),
        found: format!("snapshot {} of repository {}", found.1, found.0),
    })
}

fn check_order(segments: &[SegmentDescription]) -> Result<(), FormatError> {
    let numbered = (0..)
        .zip(segments)
        .all(|(number, segment)| segment.number == number);
    let ascends = segments
        .iter()
        .all(|segment| segment.first_owner <= segment.last_owner)
        && segments.is_sorted_by(|left, right| left.last_owner <= right.first_owner);
    if numbered && ascends {
        Ok(())
    } else {
        Err(FormatError::malformed(
            MANIFEST.structure,
            "the segments are not in order",
        ))
    }
}

impl From<&SequenceValue> for WireSequence {
    fn from(sequence: &SequenceValue) -> Self {
        Self {
            name: sequence.name.clone(),
            last_value: sequence.last_value,
        }
    }
}

impl From<WireSequence> for SequenceValue {
    fn from(WireSequence { name, last_value }: WireSequence) -> Self {
        Self { name, last_value }
    }
}

impl From<&TableTotals> for WireTotals {
    fn from(totals: &TableTotals) -> Self {
        let TableTotals {
            row_count,
            plain_bytes,
            stored_bytes,
        } = *totals;
        Self {
            row_count,
            plain_bytes,
            stored_bytes,
        }
    }
}

impl From<WireTotals> for TableTotals {
    fn from(totals: WireTotals) -> Self {
        let WireTotals {
            row_count,
            plain_bytes,
            stored_bytes,
        } = totals;
        Self {
            row_count,
            plain_bytes,
            stored_bytes,
        }
    }
}

impl From<&SegmentDescription> for WireSegment {
    fn from(segment: &SegmentDescription) -> Self {
        Self {
            object: *segment.object.as_bytes(),
            number: segment.number,
            stored_bytes: segment.stored_bytes,
            first_owner: segment.first_owner.as_bytes().to_vec(),
            last_owner: segment.last_owner.as_bytes().to_vec(),
            row_count: segment.row_count,
            root: *segment.root.as_bytes(),
            encryption: segment.encryption as u8,
        }
    }
}

impl TryFrom<WireSegment> for SegmentDescription {
    type Error = FormatError;

    fn try_from(wire: WireSegment) -> Result<Self, FormatError> {
        let structure = MANIFEST.structure;
        let owner = |bytes: &[u8]| {
            Owner::from_bytes(bytes)
                .map_err(|error| FormatError::malformed(structure, error.to_string()))
        };
        if wire.encryption != Encryption::None as u8 {
            let fact = format!("segment {} is encrypted in an unknown way", wire.number);
            return Err(FormatError::malformed(structure, fact));
        }
        Ok(Self {
            object: ObjectId::from_bytes(wire.object),
            number: wire.number,
            stored_bytes: wire.stored_bytes,
            first_owner: owner(&wire.first_owner)?,
            last_owner: owner(&wire.last_owner)?,
            row_count: wire.row_count,
            root: Digest::from_bytes(wire.root),
            encryption: Encryption::None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::check_frame_against_bincode;

    #[test]
    fn the_layout_is_that_of_bincode() {
        let golden = include_bytes!("../tests/golden/v1/snapshot");
        check_frame_against_bincode::<WireManifest>(&MANIFEST, golden);
    }
}
