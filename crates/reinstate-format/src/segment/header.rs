//! The segment's first bytes: what it is, and whose.
//!
//! Reading one tenant does not need them; `verify_segment` does. They are there so that a file
//! found by itself can be recognised.

use reinstate_core::Encryption;
use wincode::{SchemaRead, SchemaWrite};

use super::{SEGMENT_VERSION, SegmentIdentity};
use crate::FormatError;
use crate::codec;

/// Bytes of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = 64;
/// First bytes of a segment.
pub(crate) const HEADER_MAGIC: [u8; 8] = *b"RNSTSEGM";

const STRUCTURE: &str = "segment header";
const CRC_AT: usize = SEGMENT_HEADER_BYTES - 4;

#[derive(Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireHeader {
    magic: [u8; 8],
    version: u16,
    encryption: u8,
    reserved: [u8; 13],
    repository: [u8; 16],
    container: [u8; 16],
    number: u32,
}

/// The first bytes of a segment, [`SEGMENT_HEADER_BYTES`] of them.
#[must_use]
pub fn segment_header(identity: &SegmentIdentity) -> Vec<u8> {
    let mut bytes = codec::encode(&WireHeader {
        magic: HEADER_MAGIC,
        version: SEGMENT_VERSION,
        encryption: Encryption::None as u8,
        reserved: [0; 13],
        repository: *identity.repository.as_bytes(),
        container: identity.container,
        number: identity.number,
    });
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// Checks a segment's first bytes.
///
/// # Errors
/// `WrongMagic`, `NewerVersion`, `Digest` if the CRC-32 is wrong, `Foreign`.
pub(crate) fn check_header(
    bytes: &[u8; SEGMENT_HEADER_BYTES],
    identity: &SegmentIdentity,
) -> Result<(), FormatError> {
    let structure = STRUCTURE;
    let header: WireHeader = codec::decode(structure, &bytes[..CRC_AT])?;
    if header.magic != HEADER_MAGIC {
        return Err(FormatError::WrongMagic { structure });
    }
    if header.version > SEGMENT_VERSION {
        let (found, supported) = (header.version, SEGMENT_VERSION);
        return Err(FormatError::NewerVersion {
            structure,
            found,
            supported,
        });
    }
    if crc32fast::hash(&bytes[..CRC_AT]).to_le_bytes() != bytes[CRC_AT..] {
        return Err(FormatError::Digest { structure });
    }
    if bytes[..] != segment_header(identity)[..] {
        let (expected, found) = (identity.to_string(), "another segment".to_owned());
        return Err(FormatError::Foreign {
            structure,
            expected,
            found,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::check_against_bincode;
    use reinstate_core::RepositoryId;

    const IDENTITY: SegmentIdentity = SegmentIdentity {
        repository: RepositoryId::from_bytes([1; 16]),
        container: [2; 16],
        number: 3,
    };

    #[test]
    fn the_header_has_its_length_and_reads_back() {
        let bytes = segment_header(&IDENTITY);
        assert_eq!(bytes.len(), SEGMENT_HEADER_BYTES);
        check_header(bytes[..].try_into().unwrap(), &IDENTITY).unwrap();
        let other = SegmentIdentity {
            number: 4,
            ..IDENTITY
        };
        assert!(check_header(bytes[..].try_into().unwrap(), &other).is_err());
        check_against_bincode::<WireHeader>(&codec::decode("", &bytes[..CRC_AT]).unwrap());
    }

    #[test]
    fn every_flipped_bit_is_an_error() {
        crate::damage::check(&segment_header(&IDENTITY), |damaged| {
            damaged
                .try_into()
                .map_or(true, |bytes| check_header(bytes, &IDENTITY).is_err())
        });
    }
}
