//! The segment's last bytes: where the index starts, and totals.
//!
//! Of fixed length, so that it is found from the end. Its BLAKE3 is the segment's root, which the
//! manifest or plan keeps.

use reinstate_core::{Digest, Encryption};
use wincode::{SchemaRead, SchemaWrite};

use super::page::{LEVELS_MAX, PAGE_BYTES_MAX, PageLocation};
use super::{SEGMENT_VERSION, SegmentIdentity};
use crate::FormatError;
use crate::codec;
use crate::error::hash;

/// Bytes of a segment's trailer.
pub const SEGMENT_TRAILER_BYTES: usize = 224;
/// First bytes of a trailer.
pub(crate) const TRAILER_MAGIC: [u8; 8] = *b"RNSTTRLR";

const STRUCTURE: &str = "segment trailer";
const CRC_AT: usize = SEGMENT_TRAILER_BYTES - 4;

#[derive(Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireTrailer {
    magic: [u8; 8],
    version: u16,
    encryption: u8,
    reserved: [u8; 16],
    root_level: u8,
    repository: [u8; 16],
    container: [u8; 16],
    number: u32,
    segment_bytes: u64,
    root_offset: u64,
    root_length: u32,
    root_digest: [u8; 32],
    dictionaries_offset: u64,
    dictionaries_length: u32,
    dictionaries_digest: [u8; 32],
    run_count: u64,
    owner_count: u64,
    row_count: u64,
    block_count: u64,
    plain_bytes: u64,
    stored_bytes: u64,
    index_bytes: u64,
    page_count: u32,
}

/// What a trailer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) root: PageLocation,
    pub(crate) dictionaries: Option<DirectoryLocation>,
    pub(crate) totals: SegmentTotals,
}

/// Where the directory of dictionaries is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DirectoryLocation {
    pub(crate) offset: u64,
    pub(crate) length: u32,
    pub(crate) digest: Digest,
}

/// How much a segment holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentTotals {
    /// The whole segment.
    pub(crate) segment_bytes: u64,
    pub(crate) run_count: u64,
    pub(crate) owner_count: u64,
    pub(crate) row_count: u64,
    pub(crate) block_count: u64,
    /// Of all blocks.
    pub(crate) plain_bytes: u64,
    /// Of all blocks.
    pub(crate) stored_bytes: u64,
    /// Of all pages.
    pub(crate) index_bytes: u64,
    pub(crate) page_count: u32,
}

/// Writes a trailer; returns it with the segment's root digest.
pub(crate) fn encode_trailer(identity: &SegmentIdentity, trailer: &Trailer) -> (Vec<u8>, Digest) {
    let Trailer {
        root,
        dictionaries,
        totals,
    } = trailer;
    let none = DirectoryLocation {
        offset: 0,
        length: 0,
        digest: Digest::from_bytes([0; 32]),
    };
    let dictionaries = dictionaries.unwrap_or(none);
    let mut bytes = codec::encode(&WireTrailer {
        magic: TRAILER_MAGIC,
        version: SEGMENT_VERSION,
        encryption: Encryption::None as u8,
        reserved: [0; 16],
        root_level: root.level,
        repository: *identity.repository.as_bytes(),
        container: identity.container,
        number: identity.number,
        segment_bytes: totals.segment_bytes,
        root_offset: root.offset,
        root_length: root.length,
        root_digest: *root.digest.as_bytes(),
        dictionaries_offset: dictionaries.offset,
        dictionaries_length: dictionaries.length,
        dictionaries_digest: *dictionaries.digest.as_bytes(),
        run_count: totals.run_count,
        owner_count: totals.owner_count,
        row_count: totals.row_count,
        block_count: totals.block_count,
        plain_bytes: totals.plain_bytes,
        stored_bytes: totals.stored_bytes,
        index_bytes: totals.index_bytes,
        page_count: totals.page_count,
    });
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    let root = hash(&bytes);
    (bytes, root)
}

/// Checks a trailer against the digest that the manifest or plan keeps, and reads it.
///
/// # Errors
/// `WrongMagic`, `NewerVersion`, `Digest`, `Foreign` if it is of another segment, `Malformed` if a
/// place is outside the segment.
pub(crate) fn decode_trailer(
    bytes: &[u8; SEGMENT_TRAILER_BYTES],
    identity: &SegmentIdentity,
    root: &Digest,
) -> Result<Trailer, FormatError> {
    let structure = STRUCTURE;
    let wire: WireTrailer = codec::decode(structure, &bytes[..CRC_AT])?;
    if wire.magic != TRAILER_MAGIC {
        return Err(FormatError::WrongMagic { structure });
    }
    if wire.version > SEGMENT_VERSION {
        let (found, supported) = (wire.version, SEGMENT_VERSION);
        return Err(FormatError::NewerVersion {
            structure,
            found,
            supported,
        });
    }
    let crc_is_right = crc32fast::hash(&bytes[..CRC_AT]).to_le_bytes() == bytes[CRC_AT..];
    if hash(bytes) != *root {
        // Intact bytes with another digest are another segment's, or another writing of this one.
        return Err(if crc_is_right {
            let (expected, found) = (identity.to_string(), "another segment".to_owned());
            FormatError::Foreign {
                structure,
                expected,
                found,
            }
        } else {
            FormatError::Digest { structure }
        });
    }
    let found = SegmentIdentity {
        repository: reinstate_core::RepositoryId::from_bytes(wire.repository),
        container: wire.container,
        number: wire.number,
    };
    if found != *identity {
        let (expected, found) = (identity.to_string(), found.to_string());
        return Err(FormatError::Foreign {
            structure,
            expected,
            found,
        });
    }
    if !crc_is_right || wire.version == 0 || wire.encryption != Encryption::None as u8 {
        let fact = "version, encryption or CRC-32 cannot be";
        return Err(FormatError::malformed(structure, fact));
    }
    check_places(&wire)?;
    Ok(to_trailer(&wire))
}

fn check_places(wire: &WireTrailer) -> Result<(), FormatError> {
    let end = wire.segment_bytes.checked_sub(SEGMENT_TRAILER_BYTES as u64);
    let inside = |offset: u64, length: u32| {
        let stop = offset.checked_add(u64::from(length));
        stop.is_some_and(|stop| end.is_some_and(|end| stop <= end))
    };
    let fits = inside(wire.root_offset, wire.root_length)
        && inside(wire.dictionaries_offset, wire.dictionaries_length)
        && wire.root_length as usize <= PAGE_BYTES_MAX
        && wire.root_level <= LEVELS_MAX;
    if fits {
        Ok(())
    } else {
        Err(FormatError::malformed(
            STRUCTURE,
            "the index lies outside the segment",
        ))
    }
}

fn to_trailer(wire: &WireTrailer) -> Trailer {
    Trailer {
        root: PageLocation {
            offset: wire.root_offset,
            length: wire.root_length,
            level: wire.root_level,
            digest: Digest::from_bytes(wire.root_digest),
        },
        dictionaries: (wire.dictionaries_length > 0).then(|| DirectoryLocation {
            offset: wire.dictionaries_offset,
            length: wire.dictionaries_length,
            digest: Digest::from_bytes(wire.dictionaries_digest),
        }),
        totals: SegmentTotals {
            segment_bytes: wire.segment_bytes,
            run_count: wire.run_count,
            owner_count: wire.owner_count,
            row_count: wire.row_count,
            block_count: wire.block_count,
            plain_bytes: wire.plain_bytes,
            stored_bytes: wire.stored_bytes,
            index_bytes: wire.index_bytes,
            page_count: wire.page_count,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::check_against_bincode;

    #[test]
    fn the_layout_is_that_of_bincode() {
        let golden = include_bytes!("../../tests/golden/v1/segment");
        let trailer = &golden[golden.len() - SEGMENT_TRAILER_BYTES..];
        check_against_bincode::<WireTrailer>(&codec::decode("", &trailer[..CRC_AT]).unwrap());
    }
}
