//! What can be wrong with bytes.

use std::error::Error;
use std::fmt;
use std::io;

use reinstate_core::{Digest, ErrorKind, Owner, RepositoryError, RowError, TableIndex};

use crate::segment::SegmentIdentity;

/// Bytes that are not what was written, or values that cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Written by a newer version of this crate. Upgrade to read it.
    #[error(
        "{structure}: written in version {found} of the format, this program reads up to \
         {supported}: upgrade it"
    )]
    NewerVersion {
        /// What was read.
        structure: &'static str,
        /// Its version.
        found: u16,
        /// The newest version that can be read.
        supported: u16,
    },
    /// The first bytes are those of something else.
    #[error("{structure}: the bytes are something else")]
    WrongMagic {
        /// What was expected.
        structure: &'static str,
    },
    /// Cut short, or followed by more.
    #[error("{structure}: {found} bytes where {expected} are expected")]
    Length {
        /// What was read.
        structure: &'static str,
        /// How many bytes it takes, or the least.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// The bytes do not have the digest that they should have.
    #[error("{structure}: digest mismatch, the bytes are not those that were written")]
    Digest {
        /// What was read.
        structure: &'static str,
    },
    /// The payload is not laid out as the structure is.
    #[error("{structure}: the payload does not have its layout")]
    Layout {
        /// What was read.
        structure: &'static str,
        /// Where it fails.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Well laid out, but the values contradict each other or a limit.
    #[error("{structure}: {fact}")]
    Malformed {
        /// What was read or to be written.
        structure: &'static str,
        /// What is wrong.
        fact: String,
    },
    /// A structure of something else: another repository, snapshot, segment or job.
    #[error("{structure}: belongs to {found}, not to {expected}")]
    Foreign {
        /// What was read.
        structure: &'static str,
        /// What it should belong to.
        expected: String,
        /// What it belongs to.
        found: String,
    },
    /// A block is not what was written.
    #[error(transparent)]
    Block(Box<BlockError>),
    /// An index page, dictionary or other inner part of a segment is not what was written.
    #[error("{part} at byte {offset} of segment {segment}: {fact}")]
    Part {
        /// Which part.
        part: &'static str,
        /// Where it starts.
        offset: u64,
        /// Of which segment.
        segment: SegmentIdentity,
        /// What is wrong.
        fact: String,
    },
    /// The object could not be read.
    #[error("read {length} bytes at byte {offset} of segment {segment}")]
    Read {
        /// From where.
        offset: u64,
        /// How much.
        length: u64,
        /// Of which segment.
        segment: SegmentIdentity,
        /// Why not.
        source: RepositoryError,
    },
    /// The plan's object could not be read.
    #[error("read {length} bytes at byte {offset} of a plan")]
    ReadPlan {
        /// From where.
        offset: u64,
        /// How much.
        length: u64,
        /// Why not.
        source: RepositoryError,
    },
    /// The object of a log run could not be read.
    #[error("read {length} bytes at byte {offset} of a log run")]
    ReadLog {
        /// From where.
        offset: u64,
        /// How much.
        length: u64,
        /// Why not.
        source: RepositoryError,
    },
    /// The compressor could not be set up or failed: memory ran out.
    #[error("compress a block")]
    Compress(#[source] io::Error),
}

/// A block that is not what was written. Other blocks, and other tenants, stay readable.
#[derive(Debug)]
pub struct BlockError {
    /// The block's number.
    pub number: u32,
    /// Where it starts.
    pub offset: u64,
    /// Of which segment.
    pub segment: SegmentIdentity,
    /// Whose rows it holds.
    pub owner: Owner,
    /// Of which table.
    pub table: TableIndex,
    /// What is wrong.
    pub fault: BlockFault,
}

impl fmt::Display for BlockError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            number,
            offset,
            segment,
            owner,
            table,
            fault,
        } = self;
        write!(
            formatter,
            "block {number} at byte {offset} of segment {segment}, {owner}, "
        )?;
        write!(formatter, "table {}: {fault}", table.0)
    }
}

impl Error for BlockError {
    /// The fault is in the message already, so this is what caused the fault.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.fault.source()
    }
}

/// What can be wrong with a block.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockFault {
    /// The stored bytes are damaged.
    #[error("its bytes are damaged (CRC-32 {found:08x}, expected {expected:08x})")]
    Damaged {
        /// The CRC-32 that the index gives.
        expected: u32,
        /// The one that the bytes have.
        found: u32,
    },
    /// The stored bytes have the right CRC-32, but the digest is not that of this block in this
    /// place.
    #[error("its bytes are not those of this block in this place")]
    Misplaced,
    /// A length is beyond a limit or the object's end.
    #[error("its length or place is impossible: {0}")]
    Bounds(&'static str),
    /// Authentic bytes that do not decompress to what they should.
    #[error("it does not decompress")]
    Decompress(#[source] io::Error),
    /// Authentic bytes that hold another number of bytes.
    #[error("it holds {found} plain bytes instead of {expected}")]
    PlainBytes {
        /// As the index has it.
        expected: u32,
        /// As it is.
        found: u64,
    },
    /// Authentic bytes that are not rows.
    #[error("it holds no rows")]
    Rows(#[source] RowError),
    /// Authentic bytes that hold another number of rows.
    #[error("it holds {found} rows instead of {expected}")]
    RowCount {
        /// As the index has it.
        expected: u32,
        /// As it is.
        found: u64,
    },
    /// Authentic bytes that are not columns of that many rows of that many bytes.
    #[error("its columns make no rows: {0}")]
    Columns(&'static str),
    /// It needs a dictionary that the segment does not have.
    #[error("it needs dictionary {0}, which the segment does not have")]
    Dictionary(u32),
}

impl FormatError {
    /// What the caller can do about it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NewerVersion { .. } => ErrorKind::Refused,
            Self::Read { source, .. }
            | Self::ReadPlan { source, .. }
            | Self::ReadLog { source, .. } => source.kind(),
            Self::Compress(_) => ErrorKind::Other,
            _ => ErrorKind::Corrupt,
        }
    }

    pub(crate) fn malformed(structure: &'static str, fact: impl Into<String>) -> Self {
        let fact = fact.into();
        Self::Malformed { structure, fact }
    }
}

/// BLAKE3 of bytes.
pub(crate) fn hash(bytes: &[u8]) -> Digest {
    Digest::from_bytes(*blake3::hash(bytes).as_bytes())
}
