//! Small values that several structures contain, as they are written.

use reinstate_core::{
    ChangeCounts, ContentDigest, JobId, Position, PositionNotation, SequenceRaise, StoreId,
    StoreIdentity, TenantId, TenantKind,
};
use wincode::{SchemaRead, SchemaWrite};

use crate::FormatError;

/// Persisted: never renumber.
const NOTATION_COMMIT: u8 = 0;
/// Persisted: never renumber.
const NOTATION_LSN: u8 = 1;

/// A position and how its store writes it.
#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct WirePosition {
    commit: u64,
    ordinal: u32,
}

impl From<Position> for WirePosition {
    fn from(Position { commit, ordinal }: Position) -> Self {
        Self { commit, ordinal }
    }
}

impl From<WirePosition> for Position {
    fn from(WirePosition { commit, ordinal }: WirePosition) -> Self {
        Self { commit, ordinal }
    }
}

pub(crate) const fn notation_number(notation: PositionNotation) -> u8 {
    match notation {
        PositionNotation::Commit => NOTATION_COMMIT,
        PositionNotation::Lsn => NOTATION_LSN,
    }
}

pub(crate) fn notation(
    structure: &'static str,
    number: u8,
) -> Result<PositionNotation, FormatError> {
    match number {
        NOTATION_COMMIT => Ok(PositionNotation::Commit),
        NOTATION_LSN => Ok(PositionNotation::Lsn),
        _ => Err(FormatError::malformed(
            structure,
            format!("unknown notation {number}"),
        )),
    }
}

/// A store.
#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct WireStore {
    id: [u8; 16],
    name: String,
}

impl From<&StoreIdentity> for WireStore {
    fn from(store: &StoreIdentity) -> Self {
        Self {
            id: *store.id.as_bytes(),
            name: store.name.clone(),
        }
    }
}

impl From<WireStore> for StoreIdentity {
    fn from(store: WireStore) -> Self {
        Self {
            id: StoreId::from_bytes(store.id),
            name: store.name,
        }
    }
}

/// Counts of changes.
#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct WireCounts {
    created: u64,
    put_back: u64,
    deleted: u64,
}

impl From<ChangeCounts> for WireCounts {
    fn from(
        ChangeCounts {
            created,
            put_back,
            deleted,
        }: ChangeCounts,
    ) -> Self {
        Self {
            created,
            put_back,
            deleted,
        }
    }
}

impl From<WireCounts> for ChangeCounts {
    fn from(
        WireCounts {
            created,
            put_back,
            deleted,
        }: WireCounts,
    ) -> Self {
        Self {
            created,
            put_back,
            deleted,
        }
    }
}

/// A digest of a set of rows.
#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct WireContent {
    sum: u128,
    row_count: u64,
}

impl From<ContentDigest> for WireContent {
    fn from(content: ContentDigest) -> Self {
        Self {
            sum: content.sum(),
            row_count: content.row_count(),
        }
    }
}

impl From<WireContent> for ContentDigest {
    fn from(content: WireContent) -> Self {
        Self::from_parts(content.sum, content.row_count)
    }
}

/// A counter that was raised.
#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct WireRaise {
    name: String,
    from: i64,
    to: i64,
}

impl From<&SequenceRaise> for WireRaise {
    fn from(raise: &SequenceRaise) -> Self {
        Self {
            name: raise.name.clone(),
            from: raise.from,
            to: raise.to,
        }
    }
}

impl From<WireRaise> for SequenceRaise {
    fn from(WireRaise { name, from, to }: WireRaise) -> Self {
        Self { name, from, to }
    }
}

pub(crate) fn tenant_kind(structure: &'static str, kind: &str) -> Result<TenantKind, FormatError> {
    TenantKind::parse(kind).map_err(|error| FormatError::malformed(structure, error.to_string()))
}

pub(crate) fn tenant_id(structure: &'static str, id: Vec<u8>) -> Result<TenantId, FormatError> {
    TenantId::try_new(id).map_err(|error| FormatError::malformed(structure, error.to_string()))
}

pub(crate) fn job(id: Option<[u8; 16]>) -> Option<JobId> {
    id.map(JobId::from_bytes)
}
