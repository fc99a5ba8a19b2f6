//! The block: rows of one run, compressed.
//!
//! A block is one zstd frame, which says its content size, of rows in core's encoding. Its digest
//! is over its identity and its *stored* bytes, so that nothing unauthenticated ever reaches the
//! decompressor:
//!
//! ```text
//! BLAKE3( "RNSTBLCK" | segment identity 36 | number u32 | table u32 | role u8
//!       | stored bytes u32 | plain bytes u32 | rows u32 | dictionary u32
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

use super::dictionary::{DICTIONARY_PLAIN_BYTES_LIMIT, Dictionary};
use super::{RunKey, SegmentIdentity};
use crate::FormatError;
use crate::error::{BlockError, BlockFault};

/// How many bytes of rows go into a block, as a guide: a block holds at least one row.
pub const BLOCK_PLAIN_BYTES_TARGET: usize = 256 * 1024;
/// The most bytes of rows in a block: the longest row, with room for its lengths and the rows
/// before it.
pub const BLOCK_PLAIN_BYTES_MAX: usize = (1 << 30) + (1 << 20);
/// First bytes of what a block's digest is over.
pub(crate) const BLOCK_TAG: [u8; 8] = *b"RNSTBLCK";

/// The most bytes that zstd can make of three stored ones: its blocks have a header of three.
const ZSTD_BLOCK_PLAIN_BYTES_MAX: u64 = 128 * 1024;
const ZSTD_BLOCK_STORED_BYTES_MIN: u64 = 3;
/// Dictionaries that an opener keeps ready.
const OPENER_DICTIONARIES_MAX: usize = 16;

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
    /// The dictionary that it was compressed with; zero for none.
    pub dictionary: u32,
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
            dictionary: self.dictionary,
        }
    }
}

/// Compresses and seals blocks; holds a compressor that it reuses. One for each thread.
pub struct BlockSealer {
    level: i32,
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
            plain,
            with_dictionary: Vec::new(),
        })
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
    /// `plain` is `row_count` rows in core's encoding; that they are is checked on opening, and
    /// here only in debug builds, together with the round trip through zstd: a release build
    /// relies on whoever reads the finished segment back.
    ///
    /// # Errors
    /// `Malformed` for no rows or more than [`BLOCK_PLAIN_BYTES_MAX`]; `Compress` if memory runs
    /// out.
    pub fn seal(
        &mut self,
        identity: &SegmentIdentity,
        number: u32,
        run: &RunKey,
        plain: &[u8],
        row_count: u32,
    ) -> Result<SealedBlock, FormatError> {
        if row_count == 0 || plain.len() > BLOCK_PLAIN_BYTES_MAX {
            let fact = format!("{row_count} rows in {} bytes cannot be one", plain.len());
            return Err(FormatError::malformed("block", fact));
        }
        let (dictionary, compressor) = self.compressor(run.table, plain.len());
        let stored = compressor.compress(plain).map_err(FormatError::Compress)?;
        let mut sealed = SealedBlock {
            number,
            plain_bytes: u32::try_from(plain.len()).expect("BUG: the limit is over 32 bits"),
            row_count,
            crc: crc32fast::hash(&stored),
            digest: Digest::from_bytes([0; 32]),
            dictionary,
            stored,
        };
        sealed.digest = block_digest(identity, run, &sealed.descriptor(0), &sealed.stored);
        if cfg!(debug_assertions) && dictionary == 0 {
            let mut batch = RowBatch::new();
            BlockOpener::new()
                .open(
                    identity,
                    run,
                    &sealed.descriptor(0),
                    &sealed.stored,
                    None,
                    &mut batch,
                )
                .expect("BUG: a sealed block does not open");
            assert_eq!(
                batch.as_bytes(),
                plain,
                "BUG: a sealed block holds other rows"
            );
        }
        Ok(sealed)
    }

    fn compressor(&mut self, table: TableIndex, bytes: usize) -> (u32, &mut Compressor<'static>) {
        if bytes < DICTIONARY_PLAIN_BYTES_LIMIT {
            let mut dictionaries = self.with_dictionary.iter_mut();
            if let Some((_, id, compressor)) = dictionaries.find(|(of, _, _)| *of == table) {
                return (*id, compressor);
            }
        }
        (0, &mut self.plain)
    }
}

/// Checks and decompresses blocks; holds a decompressor and buffers that it reuses. One for each
/// thread.
#[derive(Default)]
pub struct BlockOpener {
    plain: Decompressor<'static>,
    with_dictionary: Vec<(Digest, Decompressor<'static>)>,
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
        match get_frame_content_size(stored) {
            Ok(Some(found)) if found == u64::from(block.plain_bytes) => {}
            found => {
                let (expected, found) = (block.plain_bytes, found.ok().flatten().unwrap_or(0));
                return Err(BlockFault::PlainBytes { expected, found });
            }
        }
        let decompressor = self.decompressor(block, dictionary)?;
        batch.refill(|plain| {
            plain.reserve_exact(block.plain_bytes as usize);
            decompressor
                .decompress_to_buffer(stored, plain)
                .map_err(BlockFault::Decompress)?;
            let (expected, found) = (block.plain_bytes, plain.len() as u64);
            if found != u64::from(expected) {
                return Err(BlockFault::PlainBytes { expected, found });
            }
            Ok(())
        })?;
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
    if plain > (stored / ZSTD_BLOCK_STORED_BYTES_MIN) * ZSTD_BLOCK_PLAIN_BYTES_MAX {
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
    hasher.update(&block.dictionary.to_le_bytes());
    hasher.update(&owner_length.to_le_bytes());
    hasher.update(owner);
    hasher.update(blake3::hash(stored).as_bytes());
    Digest::from_bytes(*hasher.finalize().as_bytes())
}
