//! The commits of a run: which transactions it holds, in the order of their commits.

use reinstate_core::{Commit, Digest, Position, Timestamp};
use wincode::{SchemaRead, SchemaWrite};

use crate::FormatError;
use crate::frame::FrameKind;
use crate::wire::WirePosition;

pub(crate) const COMMITS: FrameKind = FrameKind {
    magic: *b"RNSTCMTS",
    version: 1,
    structure: "commits of a log run",
};

/// The most transactions that one run holds.
pub const LOG_COMMITS_MAX: usize = 1 << 20;

/// One transaction of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedCommit {
    /// Where it is in the store's order, and when it was committed.
    pub commit: Commit,
    /// How many changes it made in tables that are captured, of all owners.
    pub change_count: u64,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireCommits {
    run: [u8; 16],
    commits: Vec<WireCommit>,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireCommit {
    position: WirePosition,
    time_micros: i64,
    change_count: u64,
}

/// Writes the commits of the run of this name; returns them with their digest.
///
/// # Panics
/// If there are more than [`LOG_COMMITS_MAX`].
#[must_use]
pub fn encode_commits(run: [u8; 16], commits: &[LoggedCommit]) -> (Vec<u8>, Digest) {
    assert!(commits.len() <= LOG_COMMITS_MAX, "BUG: too many commits");
    let commits = commits.iter().map(|logged| WireCommit {
        position: logged.commit.position.into(),
        time_micros: logged.commit.time.as_micros(),
        change_count: logged.change_count,
    });
    COMMITS.encode(&WireCommits {
        run,
        commits: commits.collect(),
    })
}

/// Reads the commits of the run of this name, of which its record keeps the digest.
///
/// # Errors
/// Any of the frame's; `Digest` if they are others than the record's; `Foreign` if they are those
/// of another run; `Malformed` if they are too many or not in order.
pub fn decode_commits(
    bytes: &[u8],
    run: [u8; 16],
    expected: &Digest,
) -> Result<Vec<LoggedCommit>, FormatError> {
    let structure = COMMITS.structure;
    let (wire, digest) = COMMITS.decode::<WireCommits>(bytes)?;
    if digest != *expected {
        return Err(FormatError::Digest { structure });
    }
    if wire.run != run {
        return Err(FormatError::Foreign {
            structure,
            expected: reinstate_core::ObjectId::from_bytes(run).to_string(),
            found: reinstate_core::ObjectId::from_bytes(wire.run).to_string(),
        });
    }
    let commits: Vec<_> = wire
        .commits
        .into_iter()
        .map(|wire| LoggedCommit {
            commit: Commit {
                position: Position::from(wire.position),
                time: Timestamp::from_micros(wire.time_micros),
            },
            change_count: wire.change_count,
        })
        .collect();
    let ascends = commits.is_sorted_by(|left, right| left.commit.position < right.commit.position);
    if commits.len() > LOG_COMMITS_MAX || !ascends {
        return Err(FormatError::malformed(
            structure,
            "too many, or not in order",
        ));
    }
    Ok(commits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::check_frame_against_bincode;

    fn commit(number: u64) -> LoggedCommit {
        let position = Position {
            commit: number,
            ordinal: 0,
        };
        LoggedCommit {
            commit: Commit {
                position,
                time: Timestamp::from_micros(-5),
            },
            change_count: number * 7,
        }
    }

    #[test]
    fn commits_read_back_and_only_where_they_belong() {
        let commits = [commit(3), commit(9)];
        let (bytes, digest) = encode_commits([7; 16], &commits);
        assert_eq!(decode_commits(&bytes, [7; 16], &digest).unwrap(), commits);
        assert!(decode_commits(&bytes, [8; 16], &digest).is_err());
        assert!(decode_commits(&bytes, [7; 16], &Digest::from_bytes([0; 32])).is_err());
        let (bytes, digest) = encode_commits([7; 16], &[commit(9), commit(9)]);
        assert!(decode_commits(&bytes, [7; 16], &digest).is_err());
        check_frame_against_bincode::<WireCommits>(&COMMITS, &bytes);
    }
}
