//! Many records of a log in one, so that finding a log does not read them one by one.
//!
//! A pack holds the records as they are, byte by byte: what proves each of them, and that it follows the
//! one before, is in it as it is in the record by itself. So it can say nothing that they do not.

use reinstate_core::RepositoryId;
use wincode::{SchemaRead, SchemaWrite};

use crate::FormatError;
use crate::frame::FrameKind;

pub(crate) const LOG_PACK: FrameKind = FrameKind {
    magic: *b"RNSTLOGP",
    version: 1,
    structure: "pack of a log",
};

/// The most records that a pack holds.
pub const LOG_PACK_RECORDS_MAX: usize = 4096;

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireLogPack {
    repository: [u8; 16],
    name: [u8; 16],
    records: Vec<Vec<u8>>,
}

/// Writes a pack of records that follow each other, the first of which has this name.
#[must_use]
pub fn encode_log_pack(repository: RepositoryId, name: [u8; 16], records: &[Vec<u8>]) -> Vec<u8> {
    let wire = WireLogPack {
        repository: *repository.as_bytes(),
        name,
        records: records.to_vec(),
    };
    LOG_PACK.encode(&wire).0
}

/// Reads the pack of this name: the records, in order. They are yet to be read, and to be compared with
/// what they follow.
///
/// # Errors
/// Any of the frame's; `Foreign` if it is of another name or repository; `Malformed` if it holds none, or
/// too many.
pub fn decode_log_pack(
    bytes: &[u8],
    repository: RepositoryId,
    name: [u8; 16],
) -> Result<Vec<Vec<u8>>, FormatError> {
    let structure = LOG_PACK.structure;
    let (wire, _) = LOG_PACK.decode::<WireLogPack>(bytes)?;
    if (wire.repository, wire.name) != (*repository.as_bytes(), name) {
        return Err(FormatError::Foreign {
            structure,
            expected: format!("the pack of this name in repository {repository}"),
            found: format!(
                "another one of repository {}",
                RepositoryId::from_bytes(wire.repository)
            ),
        });
    }
    if !(1..=LOG_PACK_RECORDS_MAX).contains(&wire.records.len()) {
        return Err(FormatError::malformed(structure, "no record, or too many"));
    }
    Ok(wire.records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::check_frame_against_bincode;

    #[test]
    fn the_layout_is_that_of_bincode() {
        let golden = include_bytes!("../../tests/golden/v1/log_pack");
        check_frame_against_bincode::<WireLogPack>(&LOG_PACK, golden);
    }

    #[test]
    fn a_pack_of_nothing_or_of_too_much_is_refused() {
        let repository = RepositoryId::from_bytes([1; 16]);
        for count in [0, LOG_PACK_RECORDS_MAX + 1] {
            let bytes = encode_log_pack(repository, [2; 16], &vec![Vec::new(); count]);
            assert!(decode_log_pack(&bytes, repository, [2; 16]).is_err());
        }
    }
}
