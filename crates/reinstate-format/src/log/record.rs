//! The record of a run. Publishing it is the commit; its name follows from the record before it, so
//! that nothing can follow twice.

use std::sync::Arc;

use reinstate_core::{
    Digest, ObjectId, ObjectReader, Owner, Position, RepositoryId, SnapshotId, TableIndex,
    Timestamp,
};
use wincode::{SchemaRead, SchemaWrite};

use super::commits::{LOG_COMMITS_MAX, LoggedCommit, decode_commits};
use crate::FormatError;
use crate::frame::{FRAME_DIGEST_BYTES, FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_MAX, FrameKind};
use crate::segment::{Extent, SegmentIdentity, SegmentReader};
use crate::wire::WirePosition;

pub(crate) const LOG_RUN: FrameKind = FrameKind {
    magic: *b"RNSTLOGR",
    version: 1,
    structure: "log run",
};
/// First bytes of what a run's name is the hash of.
pub(crate) const LINK_TAG: [u8; 8] = *b"RNSTLINK";

/// Whole transactions that follow each other, of all owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRunDescription {
    /// The snapshot that the log goes on from.
    pub log: SnapshotId,
    /// Its place in the log, from zero.
    pub number: u64,
    /// The digest of the record before it: that of the snapshot, or of the run before.
    pub previous: Digest,
    /// Every commit up to here is in the snapshot or the runs before.
    pub after: Position,
    /// Every commit after that one and up to here is in this run.
    pub through: Position,
    /// How many commits it holds.
    pub commit_count: u64,
    /// The greatest time among them. None if it holds none.
    pub latest_time: Option<Timestamp>,
    /// When it was sealed, by the clock of whoever did.
    pub sealed_at: Timestamp,
    /// The digest of the schema in which its changes are written.
    pub schema_digest: Digest,
    /// The tables that lost all their rows at once, in order.
    pub truncations: Vec<Truncation>,
    /// Rows that went to another owner and took along what belongs to its owner by way of them, in
    /// order.
    pub moves: Vec<FamilyMove>,
    /// Where its bytes are.
    pub extent: LogRunExtent,
}

/// Where the bytes of a run are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRunExtent {
    /// The object that holds them.
    pub object: ObjectId,
    /// The length of the segment, with which the object starts.
    pub segment_bytes: u64,
    /// The digest of the segment's trailer.
    pub root: Digest,
    /// The first owner with changes in it; [`Owner::Shared`] if there are none.
    pub first_owner: Owner,
    /// The last owner with changes in it; [`Owner::Shared`] if there are none.
    pub last_owner: Owner,
    /// How many changes it holds.
    pub change_count: u64,
    /// The length of the commits, which follow the segment.
    pub commits_bytes: u64,
    /// The digest of the commits.
    pub commits_digest: Digest,
}

/// All rows of a table, of every owner, went away at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Truncation {
    /// The number of the commit.
    pub commit: u64,
    /// Which of the changes of that transaction it is.
    pub ordinal: u32,
    /// The table.
    pub table: TableIndex,
}

/// A row went to another owner, and with it the rows that belong to their owner by way of it, of
/// which the log says nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FamilyMove {
    /// The number of the commit.
    pub commit: u64,
    /// Which of the changes of that transaction inserted the row for its new owner.
    pub ordinal: u32,
    /// The table of the row.
    pub table: TableIndex,
    /// Whose it was.
    pub from: Owner,
    /// Whose it is.
    pub to: Owner,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireLogRun {
    repository: [u8; 16],
    log: [u8; 16],
    number: u64,
    previous: [u8; 32],
    after: WirePosition,
    through: WirePosition,
    commit_count: u64,
    latest_time_micros: Option<i64>,
    sealed_at_micros: i64,
    schema_digest: [u8; 32],
    truncations: Vec<WireTruncation>,
    moves: Vec<WireMove>,
    object: [u8; 16],
    segment_bytes: u64,
    root: [u8; 32],
    first_owner: Vec<u8>,
    last_owner: Vec<u8>,
    change_count: u64,
    commits_bytes: u64,
    commits_digest: [u8; 32],
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireTruncation {
    commit: u64,
    ordinal: u32,
    table: u32,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireMove {
    commit: u64,
    ordinal: u32,
    table: u32,
    from: Vec<u8>,
    to: Vec<u8>,
}

/// The name of the record that follows the one with this digest: a name can be taken only once, and
/// so each record has one successor at most.
#[must_use]
pub fn link_name(repository: RepositoryId, previous: &Digest) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&LINK_TAG);
    hasher.update(repository.as_bytes());
    hasher.update(previous.as_bytes());
    let mut name = [0; 16];
    name.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    name
}

/// The digest at the end of a record that was read: a snapshot's manifest or a log run.
///
/// # Errors
/// `Length` if it is too short for one.
pub fn record_digest(bytes: &[u8]) -> Result<Digest, FormatError> {
    let digest = bytes.last_chunk::<FRAME_DIGEST_BYTES>();
    digest
        .map(|digest| Digest::from_bytes(*digest))
        .ok_or(FormatError::Length {
            structure: "record",
            expected: FRAME_DIGEST_BYTES as u64,
            found: bytes.len() as u64,
        })
}

/// What goes into the digests of a run's segment: its record's name.
#[must_use]
pub fn log_run_identity(repository: RepositoryId, previous: &Digest) -> SegmentIdentity {
    SegmentIdentity {
        repository,
        container: link_name(repository, previous),
        number: 0,
    }
}

/// Writes the record of a run; returns it with its digest, from which the next one's name follows.
#[must_use]
pub fn encode_log_run(repository: RepositoryId, run: &LogRunDescription) -> (Vec<u8>, Digest) {
    let truncations = run.truncations.iter().map(|truncation| WireTruncation {
        commit: truncation.commit,
        ordinal: truncation.ordinal,
        table: truncation.table.0,
    });
    let moves = run.moves.iter().map(|moved| WireMove {
        commit: moved.commit,
        ordinal: moved.ordinal,
        table: moved.table.0,
        from: moved.from.as_bytes().to_vec(),
        to: moved.to.as_bytes().to_vec(),
    });
    let extent = &run.extent;
    LOG_RUN.encode(&WireLogRun {
        repository: *repository.as_bytes(),
        log: *run.log.as_bytes(),
        number: run.number,
        previous: *run.previous.as_bytes(),
        after: run.after.into(),
        through: run.through.into(),
        commit_count: run.commit_count,
        latest_time_micros: run.latest_time.map(Timestamp::as_micros),
        sealed_at_micros: run.sealed_at.as_micros(),
        schema_digest: *run.schema_digest.as_bytes(),
        truncations: truncations.collect(),
        moves: moves.collect(),
        object: *extent.object.as_bytes(),
        segment_bytes: extent.segment_bytes,
        root: *extent.root.as_bytes(),
        first_owner: extent.first_owner.as_bytes().to_vec(),
        last_owner: extent.last_owner.as_bytes().to_vec(),
        change_count: extent.change_count,
        commits_bytes: extent.commits_bytes,
        commits_digest: *extent.commits_digest.as_bytes(),
    })
}

/// Reads the record that follows the one with the digest `previous`; returns it with its own.
///
/// # Errors
/// Any of the frame's; `Foreign` if it follows another record or is of another repository;
/// `Malformed` if its positions or truncations are out of order.
pub fn decode_log_run(
    bytes: &[u8],
    repository: RepositoryId,
    previous: &Digest,
) -> Result<(LogRunDescription, Digest), FormatError> {
    let structure = LOG_RUN.structure;
    let (wire, digest) = LOG_RUN.decode::<WireLogRun>(bytes)?;
    if wire.repository != *repository.as_bytes() || wire.previous != *previous.as_bytes() {
        let found = RepositoryId::from_bytes(wire.repository);
        return Err(FormatError::Foreign {
            structure,
            expected: format!("what follows {previous} in repository {repository}"),
            found: format!(
                "what follows {} in repository {found}",
                Digest::from_bytes(wire.previous)
            ),
        });
    }
    let run = LogRunDescription::try_from(wire)?;
    let ascends = run.truncations.is_sorted() && run.moves.is_sorted();
    let has_time = run.latest_time.is_some() == (run.commit_count > 0);
    if run.after > run.through || !ascends || !has_time {
        let fact = "its positions, commits, truncations or moves contradict each other";
        return Err(FormatError::malformed(structure, fact));
    }
    Ok((run, digest))
}

/// Which record a run says that it follows. Nothing proves that until that record was read.
///
/// # Errors
/// Any of the frame's.
pub fn log_run_previous(bytes: &[u8]) -> Result<Digest, FormatError> {
    let (wire, _) = LOG_RUN.decode::<WireLogRun>(bytes)?;
    Ok(Digest::from_bytes(wire.previous))
}

/// Opens the changes of a run. They are checked as they are read.
///
/// # Errors
/// `Length` if the pieces do not make up the object; those of [`SegmentReader::open`].
pub fn open_log_run(
    object: &Arc<dyn ObjectReader>,
    repository: RepositoryId,
    run: &LogRunDescription,
) -> Result<SegmentReader, FormatError> {
    let extent = &run.extent;
    let expected = extent.segment_bytes.checked_add(extent.commits_bytes);
    let found = object.byte_count();
    if expected != Some(found) {
        return Err(FormatError::Length {
            structure: LOG_RUN.structure,
            expected: expected.unwrap_or(u64::MAX),
            found,
        });
    }
    let identity = log_run_identity(repository, &run.previous);
    let first = Extent::First(extent.segment_bytes);
    SegmentReader::open_extent(Arc::clone(object), first, &identity, &extent.root)
}

impl LogRunDescription {
    /// Reads the commits of the run.
    ///
    /// # Errors
    /// Those of [`decode_commits`]; `Malformed` if they are not what the record says; `ReadPlan` if
    /// the object cannot be read.
    pub fn read_commits(
        &self,
        object: &dyn ObjectReader,
        repository: RepositoryId,
    ) -> Result<Vec<LoggedCommit>, FormatError> {
        let structure = LOG_RUN.structure;
        let limit = (FRAME_HEADER_BYTES + FRAME_PAYLOAD_BYTES_MAX + FRAME_DIGEST_BYTES) as u64;
        let length = self.extent.commits_bytes;
        let least = (FRAME_HEADER_BYTES + FRAME_DIGEST_BYTES) as u64;
        if !(least..=limit).contains(&length)
            || self.extent.segment_bytes.checked_add(length) != Some(object.byte_count())
        {
            return Err(FormatError::Length {
                structure,
                expected: self.extent.segment_bytes.saturating_add(length),
                found: object.byte_count(),
            });
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        let offset = self.extent.segment_bytes;
        object
            .read_exact_at(offset, &mut bytes)
            .map_err(|source| FormatError::ReadLog {
                offset,
                length,
                source,
            })?;
        let name = link_name(repository, &self.previous);
        let commits = decode_commits(&bytes, name, &self.extent.commits_digest)?;
        let inside = commits.iter().all(|logged| {
            self.after < logged.commit.position && logged.commit.position <= self.through
        });
        let latest = commits.iter().map(|logged| logged.commit.time).max();
        if !inside || commits.len() as u64 != self.commit_count || latest != self.latest_time {
            let fact = "the commits are not those that the record says";
            return Err(FormatError::malformed(structure, fact));
        }
        Ok(commits)
    }
}

impl TryFrom<WireLogRun> for LogRunDescription {
    type Error = FormatError;

    fn try_from(wire: WireLogRun) -> Result<Self, FormatError> {
        let structure = LOG_RUN.structure;
        let owner = |bytes: &[u8]| {
            Owner::from_bytes(bytes)
                .map_err(|error| FormatError::malformed(structure, error.to_string()))
        };
        let moves = wire.moves.iter().map(|moved| {
            Ok(FamilyMove {
                commit: moved.commit,
                ordinal: moved.ordinal,
                table: TableIndex(moved.table),
                from: owner(&moved.from)?,
                to: owner(&moved.to)?,
            })
        });
        let moves = moves.collect::<Result<Vec<_>, FormatError>>()?;
        if wire.commit_count > LOG_COMMITS_MAX as u64 {
            return Err(FormatError::malformed(structure, "too many commits"));
        }
        Ok(Self {
            log: SnapshotId::from_bytes(wire.log),
            number: wire.number,
            previous: Digest::from_bytes(wire.previous),
            after: wire.after.into(),
            through: wire.through.into(),
            commit_count: wire.commit_count,
            latest_time: wire.latest_time_micros.map(Timestamp::from_micros),
            sealed_at: Timestamp::from_micros(wire.sealed_at_micros),
            schema_digest: Digest::from_bytes(wire.schema_digest),
            truncations: wire.truncations.into_iter().map(Truncation::from).collect(),
            moves,
            extent: LogRunExtent {
                object: ObjectId::from_bytes(wire.object),
                segment_bytes: wire.segment_bytes,
                root: Digest::from_bytes(wire.root),
                first_owner: owner(&wire.first_owner)?,
                last_owner: owner(&wire.last_owner)?,
                change_count: wire.change_count,
                commits_bytes: wire.commits_bytes,
                commits_digest: Digest::from_bytes(wire.commits_digest),
            },
        })
    }
}

impl From<WireTruncation> for Truncation {
    fn from(wire: WireTruncation) -> Self {
        Self {
            commit: wire.commit,
            ordinal: wire.ordinal,
            table: TableIndex(wire.table),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::check_frame_against_bincode;

    #[test]
    fn the_layout_is_that_of_bincode() {
        let golden = include_bytes!("../../tests/golden/v1/log_run");
        check_frame_against_bincode::<WireLogRun>(&LOG_RUN, golden);
    }
}
