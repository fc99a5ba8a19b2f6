//! Writing a segment: rows become blocks, workers seal them, the object gets them in order.

use rayon::iter::IndexedParallelIterator;
use rayon::iter::{IntoParallelIterator, IntoParallelRefMutIterator, ParallelIterator};
use reinstate_core::{ContentDigest, ErrorKind, ObjectId, ObjectWriter, RowBatch, RowRef};
use reinstate_format::{
    BLOCK_PLAIN_BYTES_TARGET, BlockSealer, Dictionary, FormatError, IndexBuilder, RunKey,
    SealedBlock, SegmentEnd, SegmentIdentity, segment_header,
};

use crate::{Context, Error};

/// Blocks that wait to be sealed, for each worker: enough that none is idle.
const PENDING_BLOCKS_PER_THREAD: usize = 4;

/// Rows of one run that are not yet a block.
pub(crate) struct OpenRun {
    key: RunKey,
    rows: RowBatch,
    content: ContentDigest,
}

impl OpenRun {
    pub(crate) fn new(key: RunKey) -> Self {
        Self {
            key,
            rows: RowBatch::new(),
            content: ContentDigest::EMPTY,
        }
    }

    pub(crate) fn key(&self) -> &RunKey {
        &self.key
    }
}

struct PendingBlock {
    number: u32,
    key: RunKey,
    rows: RowBatch,
}

/// A segment that is being written. Several runs may be open at once; their blocks interleave.
///
/// Holds [`PENDING_BLOCKS_PER_THREAD`] blocks a worker, plain and sealed, and the index.
pub(crate) struct SegmentWriter<'a> {
    context: Context<'a>,
    identity: SegmentIdentity,
    object: Box<dyn ObjectWriter + 'a>,
    index: IndexBuilder,
    sealers: Vec<BlockSealer>,
    pending: Vec<PendingBlock>,
    pending_bytes: usize,
    spare: Vec<RowBatch>,
    block_count: u32,
    stored_bytes: u64,
}

impl<'a> SegmentWriter<'a> {
    pub(crate) fn start(
        context: Context<'a>,
        identity: SegmentIdentity,
        mut object: Box<dyn ObjectWriter + 'a>,
        level: i32,
    ) -> Result<Self, Error> {
        let header = segment_header(&identity);
        object
            .write(&header)
            .map_err(Error::repository("write the header of a segment"))?;
        let slots = context.resources.threads() * PENDING_BLOCKS_PER_THREAD;
        let sealers: Result<Vec<_>, _> = (0..slots).map(|_| BlockSealer::new(level)).collect();
        Ok(Self {
            index: IndexBuilder::new(identity, header.len() as u64),
            sealers: sealers.map_err(Error::format("prepare compression"))?,
            stored_bytes: header.len() as u64,
            context,
            identity,
            object,
            pending: Vec::new(),
            pending_bytes: 0,
            spare: Vec::new(),
            block_count: 0,
        })
    }

    /// Places dictionaries, each of which is used from now on for the small blocks of its table.
    pub(crate) fn use_dictionaries(&mut self, dictionaries: &[Dictionary]) -> Result<(), Error> {
        for dictionary in dictionaries {
            self.index.place_dictionary(dictionary);
            self.object
                .write(dictionary.bytes())
                .map_err(Error::repository("write a dictionary of a segment"))?;
            self.stored_bytes += dictionary.bytes().len() as u64;
            for sealer in &mut self.sealers {
                sealer
                    .use_dictionary(dictionary)
                    .map_err(Error::format("prepare compression"))?;
            }
        }
        Ok(())
    }

    /// Appends a row to an open run.
    pub(crate) fn append(&mut self, run: &mut OpenRun, row: RowRef<'_>) -> Result<(), Error> {
        run.content.add(row);
        run.rows.push_row(row);
        if run.rows.as_bytes().len() >= BLOCK_PLAIN_BYTES_TARGET {
            self.cut(run)?;
        }
        Ok(())
    }

    /// Ends a run; returns what it contains.
    pub(crate) fn close(&mut self, mut run: OpenRun) -> Result<ContentDigest, Error> {
        if !run.rows.is_empty() {
            self.cut(&mut run)?;
        }
        self.index.content(&run.key, run.content);
        Ok(run.content)
    }

    /// How many bytes the object has so far, blocks that wait not counted.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    fn cut(&mut self, run: &mut OpenRun) -> Result<(), Error> {
        let rows = std::mem::replace(&mut run.rows, self.spare.pop().unwrap_or_default());
        self.pending_bytes += rows.as_bytes().len();
        self.pending.push(PendingBlock {
            number: self.block_count,
            key: run.key.clone(),
            rows,
        });
        self.block_count = self.block_count.checked_add(1).ok_or_else(|| {
            Error::new(ErrorKind::Refused, "write a segment: more than 2^32 blocks")
        })?;
        let bytes_max = (self.context.resources.memory_bytes_max() / 8)
            .min(self.sealers.len() * 2 * BLOCK_PLAIN_BYTES_TARGET);
        if self.pending.len() == self.sealers.len() || self.pending_bytes >= bytes_max {
            self.seal_pending()?;
        }
        Ok(())
    }

    fn seal_pending(&mut self) -> Result<(), Error> {
        self.context.check()?;
        let (identity, pending) = (&self.identity, &self.pending);
        let sealed: Vec<Result<SealedBlock, FormatError>> =
            self.context.resources.pool().install(|| {
                self.sealers
                    .par_iter_mut()
                    .zip(pending.into_par_iter())
                    .map(|(sealer, block)| seal(sealer, identity, block))
                    .collect()
            });
        for (block, sealed) in self.pending.iter().zip(sealed) {
            let sealed = sealed.map_err(Error::format("compress a block"))?;
            self.index.place(&block.key, &sealed);
            self.object
                .write(&sealed.stored)
                .map_err(Error::repository("write a block of a segment"))?;
            self.stored_bytes += sealed.stored.len() as u64;
        }
        for mut block in self.pending.drain(..) {
            block.rows.clear();
            if block.rows.capacity() <= 2 * BLOCK_PLAIN_BYTES_TARGET {
                self.spare.push(block.rows);
            }
        }
        self.pending_bytes = 0;
        Ok(())
    }

    /// Writes index and trailer. The object is still to be sealed, by
    /// [`seal`](FinishedSegment::seal), possibly after more bytes.
    pub(crate) fn finish(mut self) -> Result<FinishedSegment<'a>, Error> {
        self.seal_pending()?;
        let end = self
            .index
            .finish()
            .map_err(Error::format("write the index of a segment"))?;
        self.object
            .write(&end.bytes)
            .map_err(Error::repository("write the index of a segment"))?;
        Ok(FinishedSegment {
            object: self.object,
            end,
        })
    }
}

/// A segment whose bytes are all written.
pub(crate) struct FinishedSegment<'a> {
    pub(crate) object: Box<dyn ObjectWriter + 'a>,
    pub(crate) end: SegmentEnd,
}

impl FinishedSegment<'_> {
    /// Makes the object durable and visible.
    pub(crate) fn seal(self) -> Result<(ObjectId, SegmentEnd), Error> {
        let object = self
            .object
            .seal()
            .map_err(Error::repository("publish a segment"))?;
        Ok((object, self.end))
    }
}

fn seal(
    sealer: &mut BlockSealer,
    identity: &SegmentIdentity,
    block: &PendingBlock,
) -> Result<SealedBlock, FormatError> {
    let row_count = u32::try_from(block.rows.len()).expect("BUG: a block of 2^32 rows");
    sealer.seal(
        identity,
        block.number,
        &block.key,
        block.rows.as_bytes(),
        row_count,
    )
}
