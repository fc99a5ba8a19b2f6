//! The repository's own file: which repository this is.

use reinstate_core::{RepositoryId, Timestamp};
use wincode::{SchemaRead, SchemaWrite};

use crate::FormatError;
use crate::frame::FrameKind;

pub(crate) const REPOSITORY: FrameKind = FrameKind {
    magic: *b"RNSTREPO",
    version: 1,
    structure: "repository header",
};

/// Which repository this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepositoryHeader {
    /// Its id, part of the identity of every block in it.
    pub id: RepositoryId,
    /// When it was made.
    pub created_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireRepository {
    id: [u8; 16],
    created_at_micros: i64,
}

/// Writes a repository's header.
#[must_use]
pub fn encode_repository_header(header: &RepositoryHeader) -> Vec<u8> {
    let wire = WireRepository {
        id: *header.id.as_bytes(),
        created_at_micros: header.created_at.as_micros(),
    };
    REPOSITORY.encode(&wire).0
}

/// Reads a repository's header.
///
/// # Errors
/// Any of the frame's.
pub fn decode_repository_header(bytes: &[u8]) -> Result<RepositoryHeader, FormatError> {
    let (wire, _) = REPOSITORY.decode::<WireRepository>(bytes)?;
    Ok(RepositoryHeader {
        id: RepositoryId::from_bytes(wire.id),
        created_at: Timestamp::from_micros(wire.created_at_micros),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::check_frame_against_bincode;

    #[test]
    fn the_layout_is_that_of_bincode() {
        let golden = include_bytes!("../tests/golden/v1/repository");
        check_frame_against_bincode::<WireRepository>(&REPOSITORY, golden);
    }
}
