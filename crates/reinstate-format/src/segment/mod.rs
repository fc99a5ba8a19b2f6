//! The segment: the container of rows that snapshots and plans share.
//!
//! ```text
//! header | blocks and dictionaries, in writing order | index pages, children first | trailer
//! ```
//!
//! A block holds rows of one run: one owner, one table, one role. The index is a tree of pages
//! that leads from a run to its blocks. Each page and block has a digest in its parent, the root
//! page has one in the trailer, and the trailer's own digest is the segment's root, which the
//! manifest or plan keeps: trailer, a path of pages, and blocks are a complete chain.

mod block;
mod columns;
mod dictionaries;
mod dictionary;
mod header;
mod index;
mod page;
mod pages;
mod reader;
mod runs;
mod trailer;
mod verify;

use std::fmt;

use reinstate_core::{Owner, RepositoryId, RowRole, SnapshotId, TableIndex};

pub use block::{
    BLOCK_PLAIN_BYTES_MAX, BLOCK_PLAIN_BYTES_TARGET, BlockDescriptor, BlockLayout, BlockOpener,
    BlockSealer, COLUMNS_PLAIN_BYTES_MAX, COLUMNS_PLAIN_BYTES_TARGET, SealedBlock,
};
pub use dictionary::{
    DICTIONARY_BYTES_MAX, DICTIONARY_PLAIN_BYTES_LIMIT, Dictionary, train_dictionary,
};
pub use header::{SEGMENT_HEADER_BYTES, segment_header};
pub use index::{IndexBuilder, SegmentEnd};
pub use page::{PAGE_BYTES_MAX, PAGE_BYTES_TARGET, PART_BLOCKS_MAX};
pub use reader::{RunEntry, SegmentReader};
pub use runs::Runs;
pub use trailer::SEGMENT_TRAILER_BYTES;
pub use verify::{verify_layout, verify_run, verify_segment};

pub(crate) use reader::Extent;

/// What the pages in `docs/format/` state and nothing else outside this module needs.
#[cfg(test)]
pub(crate) mod constants {
    pub(crate) use super::block::{BLOCK_TAG, COLUMNS_FLAG};
    pub(crate) use super::columns::COLUMN_COUNT_MAX;
    pub(crate) use super::dictionary::{DICTIONARIES_MAX, DICTIONARY_TAG};
    pub(crate) use super::header::HEADER_MAGIC;
    pub(crate) use super::page::{LEVELS_MAX, PAGE_TAG, WIRE_BLOCK_BYTES};
    pub(crate) use super::trailer::TRAILER_MAGIC;
}

/// The version of the segment that this crate writes, and the newest it reads.
pub const SEGMENT_VERSION: u16 = 1;

/// Which segment bytes belong to. Part of every digest in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentIdentity {
    /// The repository it is made for.
    pub repository: RepositoryId,
    /// The snapshot or the job it is part of.
    pub container: [u8; 16],
    /// Its number there.
    pub number: u32,
}

impl fmt::Display for SegmentIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let container = SnapshotId::from_bytes(self.container);
        write!(formatter, "{container}/{}", self.number)
    }
}

impl SegmentIdentity {
    /// Bytes of [`Self::to_bytes`].
    pub(crate) const BYTES: usize = 36;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(self.repository.as_bytes());
        bytes[16..32].copy_from_slice(&self.container);
        bytes[32..].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }
}

/// Which rows belong together: those of one owner, one table and one role. Ordered by the
/// owner's bytes, the table's index and the role's number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunKey {
    /// Whose rows.
    pub owner: Owner,
    /// Of which table.
    pub table: TableIndex,
    /// What they are.
    pub role: RowRole,
}

impl fmt::Display for RunKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}, table {}, {:?}",
            self.owner, self.table.0, self.role
        )
    }
}
