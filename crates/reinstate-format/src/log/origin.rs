//! Which of a store's histories a snapshot, and the log behind it, were taken from.

use reinstate_core::{RepositoryId, SnapshotId};
use wincode::{SchemaRead, SchemaWrite};

use crate::FormatError;
use crate::frame::FrameKind;

pub(crate) const LOG_ORIGIN: FrameKind = FrameKind {
    magic: *b"RNSTORIG",
    version: 1,
    structure: "origin of a log",
};

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireLogOrigin {
    repository: [u8; 16],
    snapshot: [u8; 16],
    timeline: u32,
}

/// Writes the record: the snapshot was taken on this timeline.
#[must_use]
pub fn encode_log_origin(repository: RepositoryId, snapshot: SnapshotId, timeline: u32) -> Vec<u8> {
    let wire = WireLogOrigin {
        repository: *repository.as_bytes(),
        snapshot: *snapshot.as_bytes(),
        timeline,
    };
    LOG_ORIGIN.encode(&wire).0
}

/// Reads the record of this snapshot in this repository: its timeline.
///
/// # Errors
/// Any of the frame's; `Foreign` if it is of another snapshot or repository.
pub fn decode_log_origin(
    bytes: &[u8],
    repository: RepositoryId,
    snapshot: SnapshotId,
) -> Result<u32, FormatError> {
    let (wire, _) = LOG_ORIGIN.decode::<WireLogOrigin>(bytes)?;
    let found = (
        RepositoryId::from_bytes(wire.repository),
        SnapshotId::from_bytes(wire.snapshot),
    );
    if found != (repository, snapshot) {
        return Err(FormatError::Foreign {
            structure: LOG_ORIGIN.structure,
            expected: format!("snapshot {snapshot} of repository {repository}"),
            found: format!("snapshot {} of repository {}", found.1, found.0),
        });
    }
    Ok(wire.timeline)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::check_frame_against_bincode;

    #[test]
    fn an_origin_reads_back_and_only_as_its_own() {
        let repository = RepositoryId::from_bytes([1; 16]);
        let snapshot = SnapshotId::from_bytes([2; 16]);
        let bytes = encode_log_origin(repository, snapshot, 7);
        assert_eq!(decode_log_origin(&bytes, repository, snapshot).unwrap(), 7);
        let other = SnapshotId::from_bytes([3; 16]);
        assert!(decode_log_origin(&bytes, repository, other).is_err());
        let elsewhere = RepositoryId::from_bytes([9; 16]);
        assert!(decode_log_origin(&bytes, elsewhere, snapshot).is_err());
        crate::damage::check(&bytes, |damaged| {
            decode_log_origin(damaged, repository, snapshot).is_err()
        });
        check_frame_against_bincode::<WireLogOrigin>(&LOG_ORIGIN, &bytes);
    }
}
