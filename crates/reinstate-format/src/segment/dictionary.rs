//! Dictionaries: what small blocks of one table have in common, kept once in a segment.
//!
//! A dictionary holds words of many tenants. It is used only where the caller asks for it, and
//! never where tenants have keys of their own. The segment's directory lists the dictionaries;
//! the trailer says where the directory is. A dictionary is read only when a block needs it.
//!
//! ```text
//! directory := count u64 { id u32 | table u32 | offset u64 | length u32 | digest 32 }
//! digest    := BLAKE3( "RNSTDICT" | segment identity 36 | id u32 | table u32 | dictionary )
//! ```

use reinstate_core::{Digest, TableIndex};
use wincode::{SchemaRead, SchemaWrite};

use super::SegmentIdentity;
use super::block::COLUMNS_FLAG;

/// Blocks with at least this many plain bytes are compressed without a dictionary: they gain
/// little.
pub const DICTIONARY_PLAIN_BYTES_LIMIT: usize = 64 * 1024;
/// The longest dictionary.
pub const DICTIONARY_BYTES_MAX: usize = 1 << 20;
/// The most dictionaries in a segment: more tables than a store has.
pub(crate) const DICTIONARIES_MAX: usize = 4096;
/// First bytes of what a dictionary's digest is over.
pub(crate) const DICTIONARY_TAG: [u8; 8] = *b"RNSTDICT";

/// Words for the blocks of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dictionary {
    id: u32,
    table: TableIndex,
    bytes: Vec<u8>,
    content: Digest,
}

impl Dictionary {
    /// A dictionary with this id, which is not zero and unique in its segment, for this table.
    /// `None` if the id is zero or 2^31 and more, which an index could not tell from a layout, or the bytes are
    /// none or more than [`DICTIONARY_BYTES_MAX`].
    #[must_use]
    pub fn new(id: u32, table: TableIndex, bytes: Vec<u8>) -> Option<Self> {
        let valid =
            (1..COLUMNS_FLAG).contains(&id) && (1..=DICTIONARY_BYTES_MAX).contains(&bytes.len());
        let content = crate::error::hash(&bytes);
        valid.then_some(Self {
            id,
            table,
            bytes,
            content,
        })
    }

    /// Its id; never zero.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// The table whose blocks it is for.
    #[must_use]
    pub const fn table(&self) -> TableIndex {
        self.table
    }

    /// Its bytes, as they are placed in the segment.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// BLAKE3 of its bytes alone.
    pub(crate) const fn digest(&self) -> Digest {
        self.content
    }
}

/// Trains a dictionary of at most `bytes_max` bytes from encoded rows of one table.
///
/// `None` if the samples are too few or too small to learn from. Deterministic. Copies the
/// samples once; takes time in proportion to them.
#[must_use]
pub fn train_dictionary(samples: &[&[u8]], bytes_max: usize) -> Option<Vec<u8>> {
    let bytes_max = bytes_max.min(DICTIONARY_BYTES_MAX);
    zstd::dict::from_samples(samples, bytes_max)
        .ok()
        .filter(|bytes| !bytes.is_empty())
}

/// A dictionary in the directory.
#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct WireDictionary {
    pub(crate) id: u32,
    pub(crate) table: u32,
    pub(crate) offset: u64,
    pub(crate) length: u32,
    pub(crate) digest: [u8; 32],
}

pub(crate) fn dictionary_digest(
    identity: &SegmentIdentity,
    id: u32,
    table: TableIndex,
    bytes: &[u8],
) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&DICTIONARY_TAG);
    hasher.update(&identity.to_bytes());
    hasher.update(&id.to_le_bytes());
    hasher.update(&table.0.to_le_bytes());
    hasher.update(bytes);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::check_against_bincode;

    #[test]
    fn the_layout_is_that_of_bincode() {
        let entry = WireDictionary {
            id: 1,
            table: 2,
            offset: 3,
            length: 4,
            digest: [5; 32],
        };
        check_against_bincode(&vec![entry.clone(), entry]);
    }
}
