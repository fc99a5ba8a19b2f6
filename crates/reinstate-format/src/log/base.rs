//! Which run of a log a snapshot stands for that was made from it.

use reinstate_core::{Digest, RepositoryId, SnapshotId};
use wincode::{SchemaRead, SchemaWrite};

use crate::FormatError;
use crate::frame::FrameKind;

pub(crate) const LOG_BASE: FrameKind = FrameKind {
    magic: *b"RNSTBASE",
    version: 1,
    structure: "base of a log",
};

/// A snapshot that was made from another one and its log, and goes on with the same log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBase {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The snapshot that the log goes on from.
    pub log: SnapshotId,
    /// The digest of the run that it ends with.
    pub run: Digest,
    /// That run's place in the log.
    pub number: u64,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireLogBase {
    repository: [u8; 16],
    snapshot: [u8; 16],
    log: [u8; 16],
    run: [u8; 32],
    number: u64,
}

/// Writes the record.
#[must_use]
pub fn encode_log_base(repository: RepositoryId, base: &LogBase) -> Vec<u8> {
    let wire = WireLogBase {
        repository: *repository.as_bytes(),
        snapshot: *base.snapshot.as_bytes(),
        log: *base.log.as_bytes(),
        run: *base.run.as_bytes(),
        number: base.number,
    };
    LOG_BASE.encode(&wire).0
}

/// Reads the record of this snapshot in this repository.
///
/// # Errors
/// Any of the frame's; `Foreign` if it is of another snapshot or repository.
pub fn decode_log_base(
    bytes: &[u8],
    repository: RepositoryId,
    snapshot: SnapshotId,
) -> Result<LogBase, FormatError> {
    let (wire, _) = LOG_BASE.decode::<WireLogBase>(bytes)?;
    let found = (
        RepositoryId::from_bytes(wire.repository),
        SnapshotId::from_bytes(wire.snapshot),
    );
    if found != (repository, snapshot) {
        return Err(FormatError::Foreign {
            structure: LOG_BASE.structure,
            expected: format!("snapshot {snapshot} of repository {repository}"),
            found: format!("snapshot {} of repository {}", found.1, found.0),
        });
    }
    Ok(LogBase {
        snapshot,
        log: SnapshotId::from_bytes(wire.log),
        run: Digest::from_bytes(wire.run),
        number: wire.number,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::check_frame_against_bincode;

    #[test]
    fn a_base_reads_back_and_only_as_its_own() {
        let repository = RepositoryId::from_bytes([1; 16]);
        let base = LogBase {
            snapshot: SnapshotId::from_bytes([2; 16]),
            log: SnapshotId::from_bytes([3; 16]),
            run: Digest::from_bytes([4; 32]),
            number: 5,
        };
        let bytes = encode_log_base(repository, &base);
        assert_eq!(
            decode_log_base(&bytes, repository, base.snapshot).unwrap(),
            base
        );
        assert!(decode_log_base(&bytes, repository, base.log).is_err());
        let elsewhere = RepositoryId::from_bytes([9; 16]);
        assert!(decode_log_base(&bytes, elsewhere, base.snapshot).is_err());
        crate::damage::check(&bytes, |damaged| {
            decode_log_base(damaged, repository, base.snapshot).is_err()
        });
        check_frame_against_bincode::<WireLogBase>(&LOG_BASE, &bytes);
    }
}
