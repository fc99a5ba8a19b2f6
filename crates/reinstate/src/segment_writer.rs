//! Writing a segment: rows become blocks, workers seal them, the object gets them in order.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reinstate_core::{ContentDigest, ErrorKind, ObjectId, ObjectWriter, RowBatch, RowRef};
use reinstate_format::{
    BlockLayout, BlockSealer, Dictionary, FormatError, IndexBuilder, RunKey, SealedBlock,
    SegmentEnd, SegmentIdentity, segment_header,
};

use crate::{Context, Error};

/// Blocks that wait to be sealed, for each worker: enough that none is idle.
const PENDING_BLOCKS_PER_THREAD: usize = 4;
/// The longest block that waits for another one before a worker gets it.
const HELD_BYTES_MAX: usize = 16 << 10;

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

/// What workers seal blocks with.
struct Sealing {
    identity: SegmentIdentity,
    level: i32,
    layout: BlockLayout,
    dictionaries: Vec<Dictionary>,
    /// Sealers that nobody uses; there are at most as many as workers, and the caller's.
    idle: Mutex<Vec<BlockSealer>>,
}

impl Sealing {
    fn seal(&self, block: &PendingBlock) -> Result<SealedBlock, FormatError> {
        let idle = self.idle().pop();
        let mut sealer = match idle {
            Some(sealer) => sealer,
            None => self.sealer()?,
        };
        let sealed = sealer.seal(&self.identity, block.number, &block.key, &block.rows);
        self.idle().push(sealer);
        sealed
    }

    fn sealer(&self) -> Result<BlockSealer, FormatError> {
        let mut sealer = BlockSealer::new(self.level)?;
        sealer.use_layout(self.layout);
        for dictionary in &self.dictionaries {
            sealer.use_dictionary(dictionary)?;
        }
        Ok(sealer)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<BlockSealer>> {
        // Only whole sealers are pushed and popped, so a panic elsewhere leaves nothing half-done.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A block that a worker is done with.
type Sealed = (PendingBlock, Result<SealedBlock, FormatError>);

/// A segment that is being written. Several runs may be open at once; their blocks interleave.
///
/// Workers seal blocks while the caller gathers the next rows. Holds
/// [`PENDING_BLOCKS_PER_THREAD`] blocks a worker, plain and sealed, or an eighth of the memory
/// budget if that is less, one block at the least; and the index. Where blocks are laid out by columns, a
/// worker holds the block that it seals twice more.
pub(crate) struct SegmentWriter<'a> {
    context: Context<'a>,
    object: Box<dyn ObjectWriter + 'a>,
    index: IndexBuilder,
    sealing: Arc<Sealing>,
    sender: Sender<Sealed>,
    receiver: Receiver<Sealed>,
    /// Sealed blocks whose turn to be written has not come.
    sealed: BTreeMap<u32, Sealed>,
    /// The last block, if it is small: the caller seals it itself where no other comes to be sealed beside it.
    held: Option<PendingBlock>,
    pending_bytes: usize,
    spare: Vec<RowBatch>,
    /// How many blocks were cut, and how many of them are written.
    block_count: u32,
    placed_count: u32,
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
        let (sender, receiver) = channel();
        let sealing = Sealing {
            identity,
            level,
            layout: BlockLayout::Rows,
            dictionaries: Vec::new(),
            idle: Mutex::default(),
        };
        Ok(Self {
            index: IndexBuilder::new(identity, header.len() as u64),
            stored_bytes: header.len() as u64,
            context,
            object,
            sealing: Arc::new(sealing),
            sender,
            receiver,
            sealed: BTreeMap::new(),
            held: None,
            pending_bytes: 0,
            spare: Vec::new(),
            block_count: 0,
            placed_count: 0,
        })
    }

    /// Places dictionaries, each of which is used for the small blocks of its table.
    ///
    /// # Panics
    /// If a block was cut already.
    pub(crate) fn use_dictionaries(&mut self, dictionaries: &[Dictionary]) -> Result<(), Error> {
        for dictionary in dictionaries {
            self.index.place_dictionary(dictionary);
            self.object
                .write(dictionary.bytes())
                .map_err(Error::repository("write a dictionary of a segment"))?;
            self.stored_bytes += dictionary.bytes().len() as u64;
        }
        self.sealing_mut()
            .dictionaries
            .extend_from_slice(dictionaries);
        Ok(())
    }

    /// Lays blocks out like this.
    ///
    /// # Panics
    /// If a block was cut already.
    pub(crate) fn use_layout(&mut self, layout: BlockLayout) {
        self.sealing_mut().layout = layout;
    }

    fn sealing_mut(&mut self) -> &mut Sealing {
        Arc::get_mut(&mut self.sealing).expect("BUG: a block was cut already")
    }

    /// Appends a row to an open run.
    pub(crate) fn append(&mut self, run: &mut OpenRun, row: RowRef<'_>) -> Result<(), Error> {
        run.content.add(row);
        run.rows.push_row(row);
        if run.rows.as_bytes().len() >= self.block_bytes_target() {
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

    fn block_bytes_target(&self) -> usize {
        self.sealing.layout.plain_bytes_target()
    }

    fn cut(&mut self, run: &mut OpenRun) -> Result<(), Error> {
        self.context.check()?;
        let rows = std::mem::replace(&mut run.rows, self.spare.pop().unwrap_or_default());
        self.pending_bytes += rows.as_bytes().len();
        let block = PendingBlock {
            number: self.block_count,
            key: run.key.clone(),
            rows,
        };
        self.block_count = self.block_count.checked_add(1).ok_or_else(|| {
            Error::new(ErrorKind::Refused, "write a segment: more than 2^32 blocks")
        })?;
        if let Some(before) = self.held.take() {
            self.hand_over(before);
        }
        if block.rows.as_bytes().len() <= HELD_BYTES_MAX {
            self.held = Some(block);
        } else {
            self.hand_over(block);
        }
        let slots = self.context.resources.threads() * PENDING_BLOCKS_PER_THREAD;
        let bytes_max = (self.context.resources.memory_bytes_max() / 8)
            .min(slots * 2 * self.block_bytes_target());
        while (self.block_count - self.placed_count) as usize >= slots
            || self.pending_bytes >= bytes_max
        {
            self.place_next()?;
        }
        Ok(())
    }

    /// Has a worker seal a block.
    fn hand_over(&self, block: PendingBlock) {
        let (sealing, sender) = (Arc::clone(&self.sealing), self.sender.clone());
        self.context.resources.pool_handle().spawn(move || {
            let sealed = sealing.seal(&block);
            // Nobody listens any more when the writer was dropped: that is fine.
            let _ = sender.send((block, sealed));
        });
    }

    /// Waits for the next block in order, and writes it.
    fn place_next(&mut self) -> Result<(), Error> {
        let next = self.placed_count;
        if let Some(block) = self.held.take_if(|held| held.number == next) {
            let sealed = self.sealing.seal(&block);
            self.sealed.insert(next, (block, sealed));
        }
        while !self.sealed.contains_key(&next) {
            // This writer holds a sender itself, so the channel never closes.
            let sealed = self.receiver.recv().expect("BUG: the channel closed");
            self.sealed.insert(sealed.0.number, sealed);
        }
        let (mut block, sealed) = self.sealed.remove(&next).expect("BUG: waited for just now");
        let sealed = sealed.map_err(Error::format("compress a block"))?;
        self.index.place(&block.key, &sealed);
        self.object
            .write(&sealed.stored)
            .map_err(Error::repository("write a block of a segment"))?;
        self.stored_bytes += sealed.stored.len() as u64;
        self.placed_count += 1;
        self.pending_bytes -= block.rows.as_bytes().len();
        block.rows.clear();
        if block.rows.capacity() <= 2 * self.block_bytes_target() {
            self.spare.push(block.rows);
        }
        Ok(())
    }

    /// Writes index and trailer. The object is still to be sealed, by
    /// [`seal`](FinishedSegment::seal), possibly after more bytes.
    pub(crate) fn finish(mut self) -> Result<FinishedSegment<'a>, Error> {
        while self.placed_count < self.block_count {
            self.place_next()?;
        }
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
