//! The record that says that the tables are others from here on: a link of the log between two runs.

use reinstate_core::{
    ColumnIndex, ColumnOrigin, Digest, Position, RepositoryId, SchemaChange, SnapshotId,
    StoreSchema, TableIndex, TableOrigin, Timestamp,
};
use wincode::{SchemaRead, SchemaWrite};

use crate::FormatError;
use crate::frame::FrameKind;
use crate::schema::{WireSchema, schema_digest};
use crate::wire::WirePosition;

pub(crate) const LOG_VERSION: FrameKind = FrameKind {
    magic: *b"RNSTLOGV",
    version: 1,
    structure: "tables of a log",
};

/// Which tables the runs that follow are written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogVersionDescription {
    /// The snapshot that the log goes on from.
    pub log: SnapshotId,
    /// The place in the log of the run that follows.
    pub number: u64,
    /// The digest of the record before it.
    pub previous: Digest,
    /// Every commit up to here is in the tables as they were, and every one after in these.
    pub after: Position,
    /// When it was noted, by the clock of whoever did.
    pub noted_at: Timestamp,
    /// The tables, and what they were.
    pub change: SchemaChange,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireLogVersion {
    repository: [u8; 16],
    log: [u8; 16],
    number: u64,
    previous: [u8; 32],
    after: WirePosition,
    noted_at_micros: i64,
    schema_digest: [u8; 32],
    schema: WireSchema,
    origins: Vec<Option<WireOrigin>>,
    facts: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireOrigin {
    table: u32,
    columns: Vec<WireColumnOrigin>,
}

/// The variant's number is a u32 in front. Persisted: never renumber.
#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
enum WireColumnOrigin {
    #[wincode(tag = 0)]
    From { column: u32 },
    #[wincode(tag = 1)]
    Filled { value: Option<Vec<u8>> },
}

/// Whether a record of a log is one of these, and not one of a run.
#[must_use]
pub fn is_log_version(bytes: &[u8]) -> bool {
    bytes.starts_with(&LOG_VERSION.magic)
}

/// Writes the record; returns it with its digest, from which the next one's name follows.
#[must_use]
pub fn encode_log_version(
    repository: RepositoryId,
    version: &LogVersionDescription,
) -> (Vec<u8>, Digest) {
    let change = &version.change;
    let origins = change.origins().iter().map(|origin| {
        origin.as_ref().map(|origin| WireOrigin {
            table: origin.table.0,
            columns: origin.columns.iter().map(WireColumnOrigin::from).collect(),
        })
    });
    LOG_VERSION.encode(&WireLogVersion {
        repository: *repository.as_bytes(),
        log: *version.log.as_bytes(),
        number: version.number,
        previous: *version.previous.as_bytes(),
        after: version.after.into(),
        noted_at_micros: version.noted_at.as_micros(),
        schema_digest: *schema_digest(change.schema()).as_bytes(),
        schema: WireSchema::from(change.schema()),
        origins: origins.collect(),
        facts: change.facts().to_vec(),
    })
}

/// Reads the record that follows the one with the digest `previous`, where the tables were those of
/// `before`; returns it with its own.
///
/// # Errors
/// Any of the frame's; `Foreign` if it follows another record or is of another repository;
/// `Malformed` if these tables cannot follow those.
pub fn decode_log_version(
    bytes: &[u8],
    repository: RepositoryId,
    previous: &Digest,
    before: &StoreSchema,
) -> Result<(LogVersionDescription, Digest), FormatError> {
    let structure = LOG_VERSION.structure;
    let (wire, digest) = LOG_VERSION.decode::<WireLogVersion>(bytes)?;
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
    let schema = wire
        .schema
        .into_schema(structure, Digest::from_bytes(wire.schema_digest))?;
    let origins = wire.origins.into_iter().map(|origin| {
        origin.map(|origin| TableOrigin {
            table: TableIndex(origin.table),
            columns: origin.columns.into_iter().map(ColumnOrigin::from).collect(),
        })
    });
    let change = SchemaChange::try_new(before, schema, origins.collect(), wire.facts)
        .map_err(|error| FormatError::malformed(structure, error.to_string()))?;
    let version = LogVersionDescription {
        log: SnapshotId::from_bytes(wire.log),
        number: wire.number,
        previous: *previous,
        after: wire.after.into(),
        noted_at: Timestamp::from_micros(wire.noted_at_micros),
        change,
    };
    Ok((version, digest))
}

/// The log that such a record says that it belongs to, and its place there. Nothing proves that until
/// the record before it was read.
///
/// # Errors
/// Any of the frame's.
pub fn log_version_place(bytes: &[u8]) -> Result<(SnapshotId, u64), FormatError> {
    let (wire, _) = LOG_VERSION.decode::<WireLogVersion>(bytes)?;
    Ok((SnapshotId::from_bytes(wire.log), wire.number))
}

impl From<&ColumnOrigin> for WireColumnOrigin {
    fn from(origin: &ColumnOrigin) -> Self {
        match origin {
            ColumnOrigin::From(column) => Self::From { column: column.0 },
            ColumnOrigin::Filled(value) => Self::Filled {
                value: value.clone(),
            },
        }
    }
}

impl From<WireColumnOrigin> for ColumnOrigin {
    fn from(origin: WireColumnOrigin) -> Self {
        match origin {
            WireColumnOrigin::From { column } => Self::From(ColumnIndex(column)),
            WireColumnOrigin::Filled { value } => Self::Filled(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::check_frame_against_bincode;

    #[test]
    fn the_layout_is_that_of_bincode() {
        let golden = include_bytes!("../../tests/golden/v1/log_version");
        check_frame_against_bincode::<WireLogVersion>(&LOG_VERSION, golden);
    }
}
