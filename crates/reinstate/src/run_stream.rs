//! Reading runs of blocks as one stream of rows, decoded ahead.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use reinstate_core::{RowBatch, RowStream, StoreError};
use reinstate_format::{BlockOpener, RunEntry, SegmentReader};

use crate::image::read_block;
use crate::{Error, Resources};

/// Blocks decoded ahead, for each thread.
const AHEAD_BLOCKS_PER_THREAD: usize = 4;

/// Blocks up to this long are decoded by the caller itself: handing one over costs as much.
const DECODED_AT_ONCE_BYTES_MAX: usize = 8 << 10;

/// The longest buffer that is kept for another block: that of a block of one long row is not.
const SPARE_BYTES_MAX: usize = 4 << 20;

/// A run in one segment.
#[derive(Clone)]
pub(crate) struct RunPart {
    pub(crate) reader: Arc<SegmentReader>,
    pub(crate) run: Arc<RunEntry>,
}

/// Rows of one table in order, read from one or more segments.
///
/// The pool decodes a few blocks ahead while the caller handles rows, so that reading and writing
/// overlap; small ones the caller decodes itself. *Bounds*: twice the threads in blocks, or an eighth of the memory budget if that is
/// less; one block at the least.
pub struct RunStream {
    spawn: Spawner,
    parts: Vec<RunPart>,
    next_part: usize,
    next_block: usize,
    sequence_sent: u64,
    sequence_taken: u64,
    bytes_ahead: usize,
    bytes_ahead_max: usize,
    blocks_ahead_max: u64,
    finished: BTreeMap<u64, Result<RowBatch, Error>>,
    sizes: BTreeMap<u64, usize>,
    sender: Sender<(u64, Result<RowBatch, Error>)>,
    receiver: Receiver<(u64, Result<RowBatch, Error>)>,
    spare: Arc<Mutex<Vec<RowBatch>>>,
    openers: Arc<Openers>,
}

/// The pool, behind what a stream may outlive its context by: nothing but spawning.
type Spawner = Arc<rayon::ThreadPool>;

impl std::fmt::Debug for RunStream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("RunStream")
            .field("block", &self.next_block)
            .finish_non_exhaustive()
    }
}

impl RunStream {
    pub(crate) fn new(resources: &Resources, parts: Vec<RunPart>) -> Self {
        Self::beside_others(resources, parts, 1)
    }

    /// One of so many that are read at the same time, and share the memory for what is decoded ahead.
    pub(crate) fn beside_others(
        resources: &Resources,
        parts: Vec<RunPart>,
        stream_count: usize,
    ) -> Self {
        let (sender, receiver) = channel();
        let mut stream = Self {
            spawn: Arc::clone(resources.pool_handle()),
            parts,
            next_part: 0,
            next_block: 0,
            sequence_sent: 0,
            sequence_taken: 0,
            bytes_ahead: 0,
            bytes_ahead_max: resources.memory_bytes_max() / 8 / stream_count.max(1),
            blocks_ahead_max: (resources.threads() * AHEAD_BLOCKS_PER_THREAD) as u64,
            finished: BTreeMap::new(),
            sizes: BTreeMap::new(),
            sender,
            receiver,
            spare: Arc::default(),
            openers: Arc::clone(resources.openers()),
        };
        // Begin at once: the first block is ready sooner when the caller asks for it. A long one is not held
        // before he does, since he may open several streams and read one of them after the other.
        if stream.first_block_bytes() <= SPARE_BYTES_MAX {
            stream.send_ahead();
        }
        stream
    }

    fn first_block_bytes(&self) -> usize {
        let mut blocks = self.parts.iter().flat_map(|part| &part.run.blocks);
        blocks.next().map_or(0, |block| block.plain_bytes as usize)
    }

    /// The next rows in place of what is in `batch`; `false` at the end.
    pub(crate) fn next(&mut self, batch: &mut RowBatch) -> Result<bool, Error> {
        self.send_ahead();
        if self.sequence_taken == self.sequence_sent {
            batch.clear();
            return Ok(false);
        }
        let rows = self.take()?;
        let used = std::mem::replace(batch, rows);
        if (1..=SPARE_BYTES_MAX).contains(&used.capacity()) {
            lock(&self.spare).push(used);
        }
        self.send_ahead();
        Ok(true)
    }

    fn take(&mut self) -> Result<RowBatch, Error> {
        let wanted = self.sequence_taken;
        while !self.finished.contains_key(&wanted) {
            // This stream holds a sender itself, so the channel never closes; a worker that
            // panics aborts the whole process' pool task and is reported by rayon.
            let (sequence, rows) = self.receiver.recv().expect("BUG: the channel closed");
            self.finished.insert(sequence, rows);
        }
        self.sequence_taken += 1;
        self.bytes_ahead -= self.sizes.remove(&wanted).unwrap_or(0);
        self.finished
            .remove(&wanted)
            .expect("BUG: waited for just now")
    }

    fn send_ahead(&mut self) {
        while let Some(part) = self.parts.get(self.next_part) {
            let Some(block) = part.run.blocks.get(self.next_block) else {
                self.next_part += 1;
                self.next_block = 0;
                continue;
            };
            let ahead = self.sequence_sent - self.sequence_taken;
            let size = block.plain_bytes as usize;
            let room = self.bytes_ahead + size <= self.bytes_ahead_max;
            if ahead > 0 && (ahead >= self.blocks_ahead_max || !room) {
                return;
            }
            self.send(part.clone(), self.next_block, size);
            self.next_block += 1;
        }
    }

    fn send(&mut self, part: RunPart, block: usize, size: usize) {
        let sequence = self.sequence_sent;
        self.sequence_sent += 1;
        self.bytes_ahead += size;
        self.sizes.insert(sequence, size);
        let (spare, openers) = (Arc::clone(&self.spare), Arc::clone(&self.openers));
        let decode = move || {
            let mut batch = lock(&spare).pop().unwrap_or_default();
            let mut opener = openers.take();
            let result = read_block(&part, &part.run.blocks[block], &mut opener, &mut batch);
            openers.put_back(opener);
            result.map(|()| batch)
        };
        if size <= DECODED_AT_ONCE_BYTES_MAX {
            self.finished.insert(sequence, decode());
            return;
        }
        let sender = self.sender.clone();
        self.spawn.spawn(move || {
            // Nobody listens any more when the stream was dropped: that is fine.
            let _ = sender.send((sequence, decode()));
        });
    }
}

impl RowStream for RunStream {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        self.next(batch).map_err(Error::into_store_error)
    }
}

/// Decompressors that go round between streams: setting one up costs as much as a small block.
#[derive(Default)]
pub(crate) struct Openers(Mutex<Vec<BlockOpener>>);

impl std::fmt::Debug for Openers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Openers")
    }
}

impl Openers {
    fn take(&self) -> BlockOpener {
        lock(&self.0).pop().unwrap_or_default()
    }

    /// At most one for each thread of the pool is ever in use, so no more come back.
    fn put_back(&self, opener: BlockOpener) {
        lock(&self.0).push(opener);
    }
}

fn lock<T>(spare: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Only whole buffers are pushed and popped, so a panic elsewhere leaves nothing half-done.
    spare.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::sync::atomic::{AtomicU64, Ordering};

    use reinstate_core::{
        ContentDigest, ObjectReader, Owner, RepositoryError, RepositoryId, RowRole, TableIndex,
    };
    use reinstate_format::{BlockSealer, IndexBuilder, RunKey, SegmentIdentity, segment_header};

    use super::*;
    use crate::ResourceOptions;

    /// A segment in memory that counts what is read of it.
    struct Counted {
        bytes: Vec<u8>,
        read: Arc<AtomicU64>,
    }

    impl ObjectReader for Counted {
        fn byte_count(&self) -> u64 {
            self.bytes.len() as u64
        }

        fn read_exact_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), RepositoryError> {
            let start = usize::try_from(offset).unwrap();
            bytes.copy_from_slice(&self.bytes[start..start + bytes.len()]);
            self.read.fetch_add(bytes.len() as u64, Ordering::SeqCst);
            Ok(())
        }
    }

    /// A run of one row of this length, and how much was read of its segment.
    fn run_of_a_row(length: usize) -> (RunPart, Arc<AtomicU64>) {
        let identity = SegmentIdentity {
            repository: RepositoryId::from_bytes([1; 16]),
            container: [2; 16],
            number: 0,
        };
        let key = RunKey {
            owner: Owner::from_bytes(b"a").unwrap(),
            table: TableIndex(0),
            role: RowRole::Image,
        };
        let mut rows = RowBatch::new();
        rows.push(b"k", [Some(vec![7; length].as_slice())]);
        let mut bytes = segment_header(&identity);
        let mut index = IndexBuilder::new(identity, bytes.len() as u64);
        let sealed = BlockSealer::new(1)
            .unwrap()
            .seal(&identity, 0, &key, &rows)
            .unwrap();
        index.place(&key, &sealed);
        let mut content = ContentDigest::EMPTY;
        rows.iter().for_each(|row| content.add(row));
        index.content(&key, content);
        bytes.extend_from_slice(&sealed.stored);
        let end = index.finish().unwrap();
        bytes.extend_from_slice(&end.bytes);
        let read = Arc::new(AtomicU64::new(0));
        let object = Arc::new(Counted {
            bytes,
            read: Arc::clone(&read),
        });
        let reader = Arc::new(SegmentReader::open(object, &identity, &end.root).unwrap());
        let run = Arc::new(reader.find(&key).unwrap().unwrap());
        (RunPart { reader, run }, read)
    }

    #[test]
    fn a_long_row_is_not_read_before_it_is_asked_for() {
        let resources = Resources::try_new(ResourceOptions {
            threads: NonZeroUsize::MIN,
            ..ResourceOptions::default()
        })
        .unwrap();
        // One that is decoded by the caller himself, so that it is read when the stream is there.
        for (length, is_read_at_once) in [(100, true), (SPARE_BYTES_MAX + 1, false)] {
            let (part, read) = run_of_a_row(length);
            let before = read.load(Ordering::SeqCst);
            let mut stream = RunStream::new(&resources, vec![part]);
            resources.pool().install(|| ());
            assert_eq!(read.load(Ordering::SeqCst) > before, is_read_at_once);
            let mut batch = RowBatch::new();
            assert!(stream.next(&mut batch).unwrap());
            assert_eq!(batch.iter().next().unwrap().columns().len() / length, 1);
            assert!(!stream.next(&mut batch).unwrap());
        }
    }
}
