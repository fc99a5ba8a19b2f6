//! The index page: entries of runs in a leaf, or of pages below in an inner one.
//!
//! ```text
//! leaf   := count u64 { owner | table u32 | role u8 | part u32 | more u8
//!                     | content sum u128 | content rows u64 | count u64 { block 64 } }
//! inner  := count u64 { owner | table u32 | role u8 | part u32
//!                     | offset u64 | length u32 | digest 32 }
//! owner  := length u64 | bytes
//! digest := BLAKE3( "RNSTPAGE" | segment identity 36 | offset u64 | length u32 | level u8 | page )
//! ```
//!
//! Leaves have level 0; the trailer says the root's level, and a child has one less than its
//! parent. Entries ascend by owner, table, role and part. A run with more than
//! [`PART_BLOCKS_MAX`] blocks has several entries, its parts.

use std::fmt;

use reinstate_core::{Digest, Owner, RowRole, TENANT_ID_BYTES_MAX, TableIndex};
use wincode::{SchemaRead, SchemaWrite};

use super::{BlockDescriptor, BlockLayout, RunKey, SegmentIdentity};
use crate::FormatError;
use crate::codec;

/// A page is cut before it would grow over this, unless it holds a single entry (a leaf) or two
/// (an inner page). Small, so that finding one small tenant reads few bytes of its neighbours.
pub const PAGE_BYTES_TARGET: usize = 1024;
/// The most blocks in one entry of a leaf; a longer run is split into parts.
pub const PART_BLOCKS_MAX: usize = 1024;
/// The longest page: one entry with the most blocks and the longest owner.
pub const PAGE_BYTES_MAX: usize = PART_BLOCKS_MAX * WIRE_BLOCK_BYTES + TENANT_ID_BYTES_MAX + 256;
/// The most levels of pages: more entries than 2^32 blocks can have.
pub(crate) const LEVELS_MAX: u8 = 40;
/// First bytes of what a page's digest is over.
pub(crate) const PAGE_TAG: [u8; 8] = *b"RNSTPAGE";
/// Bytes of a block in an entry.
pub(crate) const WIRE_BLOCK_BYTES: usize = 64;

/// The place of an entry in the order of the index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PageKey {
    pub(crate) owner: Vec<u8>,
    pub(crate) table: u32,
    pub(crate) role: u8,
    pub(crate) part: u32,
}

impl PageKey {
    /// Before every part of any run of this owner.
    pub(crate) fn first_of_owner(owner: &Owner) -> Self {
        Self {
            owner: owner.as_bytes().to_vec(),
            table: 0,
            role: 0,
            part: 0,
        }
    }

    /// After every part of any run of this owner.
    pub(crate) fn last_of_owner(owner: &Owner) -> Self {
        let owner = owner.as_bytes().to_vec();
        Self {
            owner,
            table: u32::MAX,
            role: u8::MAX,
            part: u32::MAX,
        }
    }

    /// One part of a run.
    pub(crate) fn of_run(run: &RunKey, part: u32) -> Self {
        let owner = run.owner.as_bytes().to_vec();
        Self {
            owner,
            table: run.table.0,
            role: run.role as u8,
            part,
        }
    }
}

/// An entry of a leaf: a run, or one part of it.
#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct WireRun {
    pub(crate) owner: Vec<u8>,
    pub(crate) table: u32,
    pub(crate) role: u8,
    pub(crate) part: u32,
    /// Whether another part follows.
    pub(crate) more: bool,
    /// Of the whole run, the same in each part.
    pub(crate) content_sum: u128,
    pub(crate) content_rows: u64,
    pub(crate) blocks: Vec<WireBlock>,
}

/// A block in an entry.
#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct WireBlock {
    number: u32,
    offset: u64,
    stored_bytes: u32,
    plain_bytes: u32,
    row_count: u32,
    crc: u32,
    /// With the layout.
    dictionary: u32,
    digest: [u8; 32],
}

impl From<&BlockDescriptor> for WireBlock {
    fn from(block: &BlockDescriptor) -> Self {
        Self {
            number: block.number,
            offset: block.offset,
            stored_bytes: block.stored_bytes,
            plain_bytes: block.plain_bytes,
            row_count: block.row_count,
            crc: block.crc,
            dictionary: block.coding(),
            digest: *block.digest.as_bytes(),
        }
    }
}

impl From<&WireBlock> for BlockDescriptor {
    fn from(block: &WireBlock) -> Self {
        let (layout, dictionary) = BlockLayout::from_coding(block.dictionary);
        Self {
            number: block.number,
            offset: block.offset,
            stored_bytes: block.stored_bytes,
            plain_bytes: block.plain_bytes,
            row_count: block.row_count,
            crc: block.crc,
            layout,
            dictionary,
            digest: Digest::from_bytes(block.digest),
        }
    }
}

impl WireRun {
    pub(crate) fn key(&self) -> PageKey {
        let Self {
            owner,
            table,
            role,
            part,
            ..
        } = self;
        PageKey {
            owner: owner.clone(),
            table: *table,
            role: *role,
            part: *part,
        }
    }

    /// The run that this is of.
    pub(crate) fn run(&self) -> Result<RunKey, String> {
        let owner = Owner::from_bytes(&self.owner).map_err(|error| error.to_string())?;
        let role = RowRole::from_number(self.role)
            .ok_or_else(|| format!("a run has the unknown role {}", self.role))?;
        Ok(RunKey {
            owner,
            table: TableIndex(self.table),
            role,
        })
    }
}

/// An entry of an inner page: a page below, with the first key in it.
#[derive(Clone, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct WirePage {
    owner: Vec<u8>,
    table: u32,
    role: u8,
    part: u32,
    offset: u64,
    length: u32,
    digest: [u8; 32],
}

impl fmt::Debug for WirePage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "WirePage({} bytes at {})",
            self.length, self.offset
        )
    }
}

impl WirePage {
    pub(crate) fn new(first: &PageKey, page: &PageLocation) -> Self {
        Self {
            owner: first.owner.clone(),
            table: first.table,
            role: first.role,
            part: first.part,
            offset: page.offset,
            length: page.length,
            digest: *page.digest.as_bytes(),
        }
    }

    pub(crate) fn key(&self) -> PageKey {
        let Self {
            owner,
            table,
            role,
            part,
            ..
        } = self;
        PageKey {
            owner: owner.clone(),
            table: *table,
            role: *role,
            part: *part,
        }
    }

    pub(crate) fn location(&self, level: u8) -> PageLocation {
        let digest = Digest::from_bytes(self.digest);
        PageLocation {
            offset: self.offset,
            length: self.length,
            level,
            digest,
        }
    }
}

/// Where a page is and what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageLocation {
    pub(crate) offset: u64,
    pub(crate) length: u32,
    pub(crate) level: u8,
    pub(crate) digest: Digest,
}

/// A page that was read.
#[derive(Clone, Debug)]
pub(crate) enum Page {
    Leaf(Vec<WireRun>),
    Inner(Vec<WirePage>),
}

/// Checks a page's bytes against its location and reads them.
///
/// # Errors
/// `Part` if the digest is another, the layout is not a page's, or the entries do not ascend.
pub(crate) fn decode_page(
    identity: &SegmentIdentity,
    location: &PageLocation,
    bytes: &[u8],
) -> Result<Page, FormatError> {
    let fault = |fact: String| FormatError::Part {
        part: "index page",
        offset: location.offset,
        segment: *identity,
        fact,
    };
    let digest = page_digest(identity, location.offset, location.level, bytes);
    if digest != location.digest {
        return Err(fault(
            "digest mismatch, the bytes are not those that were written".into(),
        ));
    }
    let layout = |error: FormatError| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        fault(source.unwrap_or_else(|| error.to_string()))
    };
    let (page, ascends) = if location.level == 0 {
        let runs: Vec<WireRun> = codec::decode("index page", bytes).map_err(layout)?;
        let ascends = runs.is_sorted_by(|left, right| left.key() < right.key());
        (Page::Leaf(runs), ascends)
    } else {
        let pages: Vec<WirePage> = codec::decode("index page", bytes).map_err(layout)?;
        let ascends = pages.is_sorted_by(|left, right| left.key() < right.key());
        let has_entries = !pages.is_empty();
        (Page::Inner(pages), ascends && has_entries)
    };
    if ascends {
        Ok(page)
    } else {
        Err(fault("its entries are missing or do not ascend".into()))
    }
}

pub(crate) fn page_digest(
    identity: &SegmentIdentity,
    offset: u64,
    level: u8,
    bytes: &[u8],
) -> Digest {
    let length = u32::try_from(bytes.len()).expect("BUG: a page over 4 GiB");
    let mut hasher = blake3::Hasher::new();
    hasher.update(&PAGE_TAG);
    hasher.update(&identity.to_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.update(&[level]);
    hasher.update(bytes);
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::check_against_bincode;

    #[test]
    fn the_layouts_are_those_of_bincode() {
        let block = WireBlock {
            number: 1,
            offset: 2,
            stored_bytes: 3,
            plain_bytes: 4,
            row_count: 5,
            crc: 6,
            dictionary: 7,
            digest: [8; 32],
        };
        assert_eq!(codec::encode(&block).len(), WIRE_BLOCK_BYTES);
        let run = WireRun {
            owner: b"acme".to_vec(),
            table: 1,
            role: 2,
            part: 3,
            more: true,
            content_sum: u128::MAX - 4,
            content_rows: 5,
            blocks: vec![block.clone(), block],
        };
        let digest = Digest::from_bytes([9; 32]);
        let location = PageLocation {
            offset: 1,
            length: 2,
            level: 3,
            digest,
        };
        let page = WirePage::new(&run.key(), &location);
        assert_eq!(page.location(3), location);
        assert_eq!(page.key(), run.key());
        check_against_bincode(&vec![page]);
        check_against_bincode(&vec![run]);
    }
}
