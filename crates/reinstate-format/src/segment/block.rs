//! The block: rows of one run, compressed.
//!
//! A block is one zstd frame, which says its content size, of rows in core's encoding, or of their
//! [columns](super::columns). Its digest is over its identity and its *stored* bytes, so that
//! nothing unauthenticated ever reaches the decompressor:
//!
//! ```text
//! BLAKE3( "RNSTBLCK" | segment identity 36 | number u32 | table u32 | role u8
//!       | stored bytes u32 | plain bytes u32 | rows u32 | coding u32
//!       | owner length u32 | owner | BLAKE3( stored bytes ) )
//! ```
//!
//! The stored bytes have a hash of their own inside because they then start at the start of a
//! chunk: that is a quarter faster than to hash them behind the identity.
//!
//! *Cost*: opening takes one pass of BLAKE3 over the stored bytes, one of zstd, and one over the
//! lengths of the rows. The CRC-32 is only computed when the digest is wrong, to tell damage from
//! a block in the wrong place.

use std::fmt;

use reinstate_core::{Digest, RowBatch, RowError, TableIndex};
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::get_frame_content_size;

use super::columns::{Assembler, Transposer};
use super::dictionary::{DICTIONARY_PLAIN_BYTES_LIMIT, Dictionary};
use super::{RunKey, SegmentIdentity};
use crate::FormatError;
use crate::error::{BlockError, BlockFault};

/// How many bytes of rows go into a block, as a guide: a block holds at least one row.
pub const BLOCK_PLAIN_BYTES_TARGET: usize = 256 * 1024;
/// The most bytes of rows in a block: the longest row, with room for its lengths and the rows
/// before it.
pub const BLOCK_PLAIN_BYTES_MAX: usize = (1 << 30) + (1 << 20);
/// How many bytes of rows go into a block of columns, as a guide: columns gain by being long, and zstd has other
/// tables for more than 256 KiB.
pub const COLUMNS_PLAIN_BYTES_TARGET: usize = 512 * 1024;
/// The most bytes of rows in a block of columns: whoever opens one holds them twice.
pub const COLUMNS_PLAIN_BYTES_MAX: usize = 2 * 1024 * 1024;
/// In the number of the dictionary: the block holds columns. Persisted.
pub(crate) const COLUMNS_FLAG: u32 = 1 << 31;
/// First bytes of what a block's digest is over.
pub(crate) const BLOCK_TAG: [u8; 8] = *b"RNSTBLCK";

/// The most bytes that zstd can make of three stored ones: its blocks have a header of three.
const ZSTD_BLOCK_PLAIN_BYTES_MAX: u64 = 128 * 1024;
const ZSTD_BLOCK_STORED_BYTES_MIN: u64 = 3;
/// Dictionaries that an opener keeps ready.
const OPENER_DICTIONARIES_MAX: usize = 16;

/// In which order a block has the bytes of its rows. They are the same rows, and read the same, either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockLayout {
    /// Row after row: fastest to read.
    #[default]
    Rows,
    /// Column after column: smaller, and slower to read.
    Columns,
}

impl BlockLayout {
    /// How many bytes of rows go into a block, as a guide.
    #[must_use]
    pub const fn plain_bytes_target(self) -> usize {
        match self {
            Self::Rows => BLOCK_PLAIN_BYTES_TARGET,
            Self::Columns => COLUMNS_PLAIN_BYTES_TARGET,
        }
    }

    /// A layout and the number of a dictionary, from the number that is written for both.
    pub(crate) const fn from_coding(coding: u32) -> (Self, u32) {
        let layout = if coding & COLUMNS_FLAG == 0 {
            Self::Rows
        } else {
            Self::Columns
        };
        (layout, coding & !COLUMNS_FLAG)
    }
}

/// Where a block is and what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockDescriptor {
    /// Its number in the segment: unique, in no particular order.
    pub number: u32,
    /// Where its stored bytes start in the segment.
    pub offset: u64,
    /// How many stored bytes it has.
    pub stored_bytes: u32,
    /// How many bytes of rows it holds.
    pub plain_bytes: u32,
    /// How many rows it holds; at least one.
    pub row_count: u32,
    /// CRC-32 of the stored bytes.
    pub crc: u32,
    /// BLAKE3 over its identity and the stored bytes.
    pub digest: Digest,
    /// In which order it has the bytes of its rows.
    pub layout: BlockLayout,
    /// The dictionary that it was compressed with; zero for none.
    pub dictionary: u32,
}

impl BlockDescriptor {
    /// What is written for its dictionary and its layout.
    pub(crate) const fn coding(&self) -> u32 {
        match self.layout {
            BlockLayout::Rows => self.dictionary,
            BlockLayout::Columns => self.dictionary | COLUMNS_FLAG,
        }
    }
}

/// A block that is ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedBlock {
    /// Its number in the segment.
    pub number: u32,
    /// The bytes to write.
    pub stored: Vec<u8>,
    /// How many bytes of rows it holds.
    pub plain_bytes: u32,
    /// How many rows it holds.
    pub row_count: u32,
    /// CRC-32 of the stored bytes.
    pub crc: u32,
    /// BLAKE3 over its identity and the stored bytes.
    pub digest: Digest,
    /// In which order it has the bytes of its rows.
    pub layout: BlockLayout,
    /// The dictionary that it was compressed with; zero for none.
    pub dictionary: u32,
}

impl SealedBlock {
    /// What the index keeps of the block once it is placed.
    ///
    /// # Panics
    /// Never for a block that [`BlockSealer::seal`] made: its length fits 32 bits.
    #[must_use]
    pub fn descriptor(&self, offset: u64) -> BlockDescriptor {
        BlockDescriptor {
            number: self.number,
            offset,
            stored_bytes: u32::try_from(self.stored.len()).expect("BUG: a block over 4 GiB"),
            plain_bytes: self.plain_bytes,
            row_count: self.row_count,
            crc: self.crc,
            digest: self.digest,
            layout: self.layout,
            dictionary: self.dictionary,
        }
    }
}

/// Compresses and seals blocks; holds a compressor that it reuses. One for each thread.
pub struct BlockSealer {
    level: i32,
    layout: BlockLayout,
    transposer: Transposer,
    plain: Compressor<'static>,
    with_dictionary: Vec<(TableIndex, u32, Compressor<'static>)>,
}

impl fmt::Debug for BlockSealer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "BlockSealer(level {})", self.level)
    }
}

impl BlockSealer {
    /// A sealer that compresses at this level of zstd.
    ///
    /// # Errors
    /// `Compress` if memory runs out.
    pub fn new(level: i32) -> Result<Self, FormatError> {
        let plain = Compressor::new(level).map_err(FormatError::Compress)?;
        Ok(Self {
            level,
            layout: BlockLayout::Rows,
            transposer: Transposer::default(),
            plain,
            with_dictionary: Vec::new(),
        })
    }

    /// Lays blocks out like this from now on, where that is possible and no dictionary is used.
    pub fn use_layout(&mut self, layout: BlockLayout) {
        self.layout = layout;
    }

    /// Uses a dictionary from now on for the blocks of its table that are smaller than
    /// [`DICTIONARY_PLAIN_BYTES_LIMIT`]. It must be placed in the same segment.
    ///
    /// # Errors
    /// `Compress` if memory runs out.
    pub fn use_dictionary(&mut self, dictionary: &Dictionary) -> Result<(), FormatError> {
        let compressor = Compressor::with_dictionary(self.level, dictionary.bytes())
            .map_err(FormatError::Compress)?;
        self.with_dictionary
            .push((dictionary.table(), dictionary.id(), compressor));
        Ok(())
    }

    /// Compresses rows of one run and binds them to their place.
    ///
    /// That the block opens again, as these rows, is checked only in debug builds: a release build
    /// relies on whoever reads the finished segment back.
    ///
    /// # Errors
    /// `Malformed` for no rows or more than [`BLOCK_PLAIN_BYTES_MAX`]; `Compress` if memory runs
    /// out.
    ///
    /// # Panics
    /// For 2^32 rows.
    pub fn seal(
        &mut self,
        identity: &SegmentIdentity,
        number: u32,
        run: &RunKey,
        rows: &RowBatch,
    ) -> Result<SealedBlock, FormatError> {
        let plain = rows.as_bytes();
        if rows.is_empty() || plain.len() > BLOCK_PLAIN_BYTES_MAX {
            let fact = format!("{} rows in {} bytes cannot be one", rows.len(), plain.len());
            return Err(FormatError::malformed("block", fact));
        }
        let (layout, dictionary, stored) = self.compress(run.table, rows)?;
        let mut sealed = SealedBlock {
            number,
            plain_bytes: u32::try_from(plain.len()).expect("BUG: the limit is over 32 bits"),
            row_count: u32::try_from(rows.len()).expect("BUG: a block of 2^32 rows"),
            crc: crc32fast::hash(&stored),
            digest: Digest::from_bytes([0; 32]),
            layout,
            dictionary,
            stored,
        };
        sealed.digest = block_digest(identity, run, &sealed.descriptor(0), &sealed.stored);
        if cfg!(debug_assertions) && dictionary == 0 {
            let (mut opener, mut batch) = (BlockOpener::new(), RowBatch::new());
            let (block, stored) = (sealed.descriptor(0), &sealed.stored);
            opener
                .open(identity, run, &block, stored, None, &mut batch)
                .expect("BUG: a sealed block does not open");
            assert_eq!(batch, *rows, "BUG: a sealed block holds other rows");
        }
        Ok(sealed)
    }

    /// Compresses rows; says in which layout and with which dictionary.
    fn compress(
        &mut self,
        table: TableIndex,
        rows: &RowBatch,
    ) -> Result<(BlockLayout, u32, Vec<u8>), FormatError> {
        let plain = rows.as_bytes();
        if plain.len() < DICTIONARY_PLAIN_BYTES_LIMIT {
            let mut dictionaries = self.with_dictionary.iter_mut();
            if let Some((_, id, compressor)) = dictionaries.find(|(of, _, _)| *of == table) {
                let stored = compressor.compress(plain).map_err(FormatError::Compress)?;
                return Ok((BlockLayout::Rows, *id, stored));
            }
        }
        let is_wanted = self.layout == BlockLayout::Columns;
        let columns = (is_wanted && plain.len() <= COLUMNS_PLAIN_BYTES_MAX)
            .then(|| self.transposer.transpose(rows))
            .flatten();
        let (layout, content) = match columns {
            Some(columns) => (BlockLayout::Columns, columns),
            None => (BlockLayout::Rows, plain),
        };
        let stored = self
            .plain
            .compress(content)
            .map_err(FormatError::Compress)?;
        Ok((layout, 0, stored))
    }
}

/// Checks and decompresses blocks; holds a decompressor and buffers that it reuses. One for each
/// thread.
#[derive(Default)]
pub struct BlockOpener {
    plain: Decompressor<'static>,
    with_dictionary: Vec<(Digest, Decompressor<'static>)>,
    assembler: Assembler,
    /// Columns of a block.
    content: Vec<u8>,
    pub(crate) stored: Vec<u8>,
}

impl fmt::Debug for BlockOpener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "BlockOpener({} dictionaries)",
            self.with_dictionary.len()
        )
    }
}

impl BlockOpener {
    /// An opener with empty buffers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks `stored` against what the index says of the block, then replaces what is in
    /// `batch` by its rows. The batch is empty after an error.
    ///
    /// # Errors
    /// `Block` with what is wrong. Nothing is allocated or decompressed before the digest is
    /// found right.
    pub fn open(
        &mut self,
        identity: &SegmentIdentity,
        run: &RunKey,
        block: &BlockDescriptor,
        stored: &[u8],
        dictionary: Option<&Dictionary>,
        batch: &mut RowBatch,
    ) -> Result<(), FormatError> {
        self.open_checked(identity, run, block, stored, dictionary, batch)
            .map_err(|fault| block_error(identity, run, block, fault))
    }

    fn open_checked(
        &mut self,
        identity: &SegmentIdentity,
        run: &RunKey,
        block: &BlockDescriptor,
        stored: &[u8],
        dictionary: Option<&Dictionary>,
        batch: &mut RowBatch,
    ) -> Result<(), BlockFault> {
        batch.clear();
        check_bounds(block)?;
        if stored.len() != block.stored_bytes as usize {
            return Err(BlockFault::Bounds("stored bytes are missing"));
        }
        if block_digest(identity, run, block, stored) != block.digest {
            return Err(match crc32fast::hash(stored) {
                found if found == block.crc => BlockFault::Misplaced,
                found => BlockFault::Damaged {
                    expected: block.crc,
                    found,
                },
            });
        }
        let found = get_frame_content_size(stored).ok().flatten();
        let content_bytes = found.and_then(|found| u32::try_from(found).ok());
        let content_bytes = content_bytes.filter(|&found| match block.layout {
            BlockLayout::Rows => found == block.plain_bytes,
            BlockLayout::Columns => found <= block.plain_bytes,
        });
        let Some(content_bytes) = content_bytes else {
            let (expected, found) = (block.plain_bytes, found.unwrap_or(0));
            return Err(BlockFault::PlainBytes { expected, found });
        };
        match block.layout {
            BlockLayout::Rows => {
                let decompressor = self.decompressor(block, dictionary)?;
                batch.refill(|rows| decompress(decompressor, stored, content_bytes, rows))?;
            }
            BlockLayout::Columns => {
                let mut content = std::mem::take(&mut self.content);
                content.clear();
                let decompressor = self.decompressor(block, dictionary)?;
                decompress(decompressor, stored, content_bytes, &mut content)?;
                let (count, bytes) = (block.row_count as usize, block.plain_bytes as usize);
                batch.refill(|rows| {
                    let assembled = self.assembler.assemble(&content, count, bytes, rows);
                    assembled.map_err(BlockFault::Columns)
                })?;
                self.content = content;
            }
        }
        let (expected, found) = (block.row_count, batch.len() as u64);
        if found != u64::from(expected) {
            batch.clear();
            return Err(BlockFault::RowCount { expected, found });
        }
        Ok(())
    }

    fn decompressor(
        &mut self,
        block: &BlockDescriptor,
        dictionary: Option<&Dictionary>,
    ) -> Result<&mut Decompressor<'static>, BlockFault> {
        if block.dictionary == 0 {
            return Ok(&mut self.plain);
        }
        let dictionary = dictionary
            .filter(|dictionary| dictionary.id() == block.dictionary)
            .ok_or(BlockFault::Dictionary(block.dictionary))?;
        let digest = dictionary.digest();
        let found = self
            .with_dictionary
            .iter()
            .position(|(of, _)| *of == digest);
        let place = match found {
            Some(place) => place,
            None => {
                if self.with_dictionary.len() == OPENER_DICTIONARIES_MAX {
                    self.with_dictionary.remove(0);
                }
                let decompressor = Decompressor::with_dictionary(dictionary.bytes())
                    .map_err(BlockFault::Decompress)?;
                self.with_dictionary.push((digest, decompressor));
                self.with_dictionary.len() - 1
            }
        };
        Ok(&mut self.with_dictionary[place].1)
    }
}

/// Decompresses into an empty buffer.
fn decompress(
    decompressor: &mut Decompressor<'static>,
    stored: &[u8],
    content_bytes: u32,
    content: &mut Vec<u8>,
) -> Result<(), BlockFault> {
    content.reserve_exact(content_bytes as usize);
    decompressor
        .decompress_to_buffer(stored, content)
        .map_err(BlockFault::Decompress)?;
    // Behind the frame that says its content size there may be another one.
    let (expected, found) = (content_bytes, content.len() as u64);
    if found == u64::from(expected) {
        return Ok(());
    }
    Err(BlockFault::PlainBytes { expected, found })
}

impl From<RowError> for BlockFault {
    fn from(source: RowError) -> Self {
        Self::Rows(source)
    }
}

/// Refuses lengths that no block of ours has, before anything is allocated for them.
pub(crate) fn check_bounds(block: &BlockDescriptor) -> Result<(), BlockFault> {
    let (stored, plain) = (u64::from(block.stored_bytes), u64::from(block.plain_bytes));
    if plain > BLOCK_PLAIN_BYTES_MAX as u64 {
        return Err(BlockFault::Bounds("more plain bytes than a block may have"));
    }
    let is_columns = block.layout == BlockLayout::Columns;
    if is_columns && plain > COLUMNS_PLAIN_BYTES_MAX as u64 {
        return Err(BlockFault::Bounds(
            "more plain bytes than a block of columns may have",
        ));
    }
    // Columns can stand for more than what they take.
    if !is_columns && plain > (stored / ZSTD_BLOCK_STORED_BYTES_MIN) * ZSTD_BLOCK_PLAIN_BYTES_MAX {
        return Err(BlockFault::Bounds(
            "more plain bytes than its stored bytes can hold",
        ));
    }
    if stored > plain + plain / 128 + 1024 {
        return Err(BlockFault::Bounds(
            "more stored bytes than its plain bytes can take",
        ));
    }
    Ok(())
}

pub(crate) fn block_error(
    segment: &SegmentIdentity,
    run: &RunKey,
    block: &BlockDescriptor,
    fault: BlockFault,
) -> FormatError {
    FormatError::Block(Box::new(BlockError {
        number: block.number,
        offset: block.offset,
        segment: *segment,
        owner: run.owner.clone(),
        table: run.table,
        fault,
    }))
}

fn block_digest(
    identity: &SegmentIdentity,
    run: &RunKey,
    block: &BlockDescriptor,
    stored: &[u8],
) -> Digest {
    let owner = run.owner.as_bytes();
    let owner_length = u32::try_from(owner.len()).expect("BUG: an owner over 4 GiB");
    let mut hasher = blake3::Hasher::new();
    hasher.update(&BLOCK_TAG);
    hasher.update(&identity.to_bytes());
    hasher.update(&block.number.to_le_bytes());
    hasher.update(&run.table.0.to_le_bytes());
    hasher.update(&[run.role as u8]);
    hasher.update(&block.stored_bytes.to_le_bytes());
    hasher.update(&block.plain_bytes.to_le_bytes());
    hasher.update(&block.row_count.to_le_bytes());
    hasher.update(&block.coding().to_le_bytes());
    hasher.update(&owner_length.to_le_bytes());
    hasher.update(owner);
    hasher.update(blake3::hash(stored).as_bytes());
    Digest::from_bytes(*hasher.finalize().as_bytes())
}
