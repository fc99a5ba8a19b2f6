//! What became of the rows of one owner and table: sorted, in memory or in an unnamed file.
//!
//! ```text
//! keyed   := key | fate u8 | columns            the columns only if the row is there
//! keyless := columns | count i64                how many more, or fewer, of that row there are
//! ```

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use reinstate_core::{ErrorKind, RowBatch, RowRef};

use crate::Error;
use crate::plan::RowCursor;

/// The row was there at the beginning.
const WAS: u8 = 1;
/// The row is there in the end.
const IS: u8 = 2;
const COUNT_BYTES: usize = 8;
/// Whoever looks for one row reads a chunk up to there.
const CHUNK_BYTES_TARGET: usize = 32 << 10;
/// By how much the last row of a chunk goes over its end, mostly.
const ROOM_BYTES: usize = 4 << 10;

/// What became of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate<'a> {
    /// A row with a key.
    Keyed {
        /// Whether there was one of this key.
        was: bool,
        /// The columns of the one that is there now, if there is one.
        is: Option<&'a [u8]>,
    },
    /// A row without a key: how many more, or fewer, of it there are.
    Keyless(i64),
}

/// The fates of rows, in order.
pub(crate) struct Delta {
    chunks: Vec<Chunk>,
    file: Option<File>,
    row_count: u64,
}

struct Chunk {
    /// The key of its first row.
    first: Vec<u8>,
    place: ChunkPlace,
}

enum ChunkPlace {
    Memory(Arc<RowBatch>),
    File { offset: u64, length: usize },
}

/// Gathers fates, given in order.
pub(super) struct DeltaWriter<'d> {
    delta: Delta,
    rows: RowBatch,
    written: u64,
    memory_left: usize,
    directory: &'d Path,
}

impl<'d> DeltaWriter<'d> {
    pub(super) fn new(memory_bytes_max: usize, directory: &'d Path) -> Self {
        Self {
            delta: Delta {
                chunks: Vec::new(),
                file: None,
                row_count: 0,
            },
            rows: RowBatch::new(),
            written: 0,
            memory_left: memory_bytes_max,
            directory,
        }
    }

    pub(super) fn keyed(&mut self, key: &[u8], was: bool, is: Option<&[u8]>) -> Result<(), Error> {
        let fate = if was { WAS } else { 0 } | if is.is_some() { IS } else { 0 };
        self.push(key, [&[fate], is.unwrap_or_default()])
    }

    pub(super) fn keyless(&mut self, columns: &[u8], count: i64) -> Result<(), Error> {
        self.push(&[], [columns, &count.to_le_bytes()])
    }

    fn push(&mut self, key: &[u8], columns: [&[u8]; 2]) -> Result<(), Error> {
        self.rows.push_joined(key, columns);
        self.delta.row_count += 1;
        if self.rows.as_bytes().len() >= CHUNK_BYTES_TARGET {
            self.cut()?;
            // There will be more of them, most likely.
            self.rows = RowBatch::with_capacity(CHUNK_BYTES_TARGET + ROOM_BYTES);
        }
        Ok(())
    }

    fn cut(&mut self) -> Result<(), Error> {
        let rows = std::mem::take(&mut self.rows);
        let length = rows.as_bytes().len();
        let first = rows.row_at(0).expect("BUG: a chunk of no rows").0;
        let first = first.key().to_vec();
        if let Some(left) = self.memory_left.checked_sub(length) {
            self.memory_left = left;
            let place = ChunkPlace::Memory(rows.into());
            self.delta.chunks.push(Chunk { first, place });
            return Ok(());
        }
        if self.delta.file.is_none() {
            let file = tempfile::tempfile_in(self.directory).map_err(Error::spill)?;
            self.delta.file = Some(file);
        }
        let file = self.delta.file.as_mut().expect("BUG: created just now");
        file.write_all(rows.as_bytes()).map_err(Error::spill)?;
        let offset = self.written;
        self.written += length as u64;
        let place = ChunkPlace::File { offset, length };
        self.delta.chunks.push(Chunk { first, place });
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Delta, Error> {
        if !self.rows.is_empty() {
            self.cut()?;
        }
        Ok(self.delta)
    }
}

impl Delta {
    /// How many rows have a fate.
    pub(crate) const fn row_count(&self) -> u64 {
        self.row_count
    }

    /// Whether the rows have keys.
    pub(super) fn is_keyed(&self) -> bool {
        let first = self.chunks.first();
        first.is_some_and(|chunk| !chunk.first.is_empty())
    }
}

/// Walks over fates.
pub(super) struct DeltaCursor {
    delta: Arc<Delta>,
    next_chunk: usize,
    batch: Arc<RowBatch>,
    /// Where the current row starts, and its body in the bytes of the batch.
    current: usize,
    body: usize,
    key_length: usize,
    next: usize,
}

impl DeltaCursor {
    pub(super) fn new(delta: Arc<Delta>) -> Self {
        Self {
            delta,
            next_chunk: 0,
            batch: Arc::default(),
            current: 0,
            body: 0,
            key_length: 0,
            next: 0,
        }
    }

    /// Goes to the first row whose key is not less than this one; `false` if there is none.
    ///
    /// *Cost*: one chunk is read, or two.
    pub(super) fn advance_to(&mut self, key: &[u8]) -> Result<bool, Error> {
        let chunks = &self.delta.chunks;
        let behind = chunks.partition_point(|chunk| chunk.first.as_slice() < key);
        // The one before may go on up to there.
        self.next_chunk = behind.saturating_sub(1);
        if !self.refill()? {
            return Ok(false);
        }
        while self.advance()? {
            if self.key() >= key {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn refill(&mut self) -> Result<bool, Error> {
        let Some(chunk) = self.delta.chunks.get(self.next_chunk) else {
            return Ok(false);
        };
        self.next_chunk += 1;
        self.batch = match &chunk.place {
            ChunkPlace::Memory(rows) => Arc::clone(rows),
            ChunkPlace::File { offset, length } => {
                let file = self
                    .delta
                    .file
                    .as_ref()
                    .expect("BUG: a chunk without a file");
                let mut bytes = vec![0; *length];
                file.read_exact_at(&mut bytes, *offset)
                    .map_err(Error::spill)?;
                let rows = RowBatch::try_from_bytes(bytes).map_err(|error| {
                    Error::new(ErrorKind::Other, "read back what was spilled").caused_by(error)
                })?;
                rows.into()
            }
        };
        self.next = 0;
        Ok(true)
    }

    /// The key of the current row; empty for one without.
    pub(super) fn key(&self) -> &[u8] {
        let bytes = &self.batch.as_bytes()[self.body..];
        &bytes[..self.key_length]
    }

    /// What became of the current row, and the columns by which it is told apart if it has no key.
    pub(super) fn fate(&self) -> (Fate<'_>, &[u8]) {
        let columns = &self.batch.as_bytes()[self.body + self.key_length..self.next];
        if self.key_length == 0 {
            let (columns, count) = columns
                .split_last_chunk::<COUNT_BYTES>()
                .expect("BUG: a fate without a count");
            return (Fate::Keyless(i64::from_le_bytes(*count)), columns);
        }
        let (fate, columns) = columns.split_first().expect("BUG: no fate");
        let fate = Fate::Keyed {
            was: fate & WAS != 0,
            is: (fate & IS != 0).then_some(columns),
        };
        (fate, &[])
    }
}

impl RowCursor for DeltaCursor {
    fn advance(&mut self) -> Result<bool, Error> {
        if self.next == self.batch.as_bytes().len() && !self.refill()? {
            return Ok(false);
        }
        let (row, next) = self
            .batch
            .row_at(self.next)
            .expect("BUG: a chunk of no rows");
        (self.body, self.key_length) = (next - row.body().len(), row.key().len());
        self.current = self.next;
        self.next = next;
        Ok(true)
    }

    fn row(&self) -> RowRef<'_> {
        self.batch
            .row_at(self.current)
            .expect("BUG: read before advance")
            .0
    }
}
