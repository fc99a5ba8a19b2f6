//! What became of the rows of one owner and table: sorted, in memory or in an unnamed file.
//!
//! ```text
//! keyed   := key | columns | fate u8            the columns only if the row is there
//! keyless := columns | count i64                how many more, or fewer, of that row there are
//! ```
//!
//! Without what is behind it each is the row itself: it is copied and hashed as it lies there.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use reinstate_core::{ContentDigest, ErrorKind, RowBatch, RowRef};

use crate::Error;
use crate::plan::RowCursor;

/// The row was there at the beginning.
const WAS: u8 = 1;
/// The row is there in the end.
const IS: u8 = 2;
const COUNT_BYTES: usize = 8;
const READ_BACK: &str = "read back what was spilled";
/// Whoever looks for one row reads a chunk up to there.
const CHUNK_BYTES_TARGET: usize = 32 << 10;
/// By how much the last row of a chunk goes over its end, mostly.
const ROOM_BYTES: usize = 4 << 10;

/// What became of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate<'a> {
    /// A row with a key.
    Keyed {
        /// The key.
        key: &'a [u8],
        /// Whether there was one of this key. Of one that came and went there must have been none.
        was: bool,
        /// The one that is there now, if there is one.
        is: Option<RowRef<'a>>,
    },
    /// A row without a key.
    Keyless {
        /// The row.
        row: RowRef<'a>,
        /// How many more, or fewer, of it there are.
        count: i64,
    },
}

/// The fates of rows, in order.
pub(crate) struct Delta {
    chunks: Vec<Chunk>,
    file: Option<File>,
    row_count: u64,
    /// What the rows contain that are there now, as often as there are more of them.
    arrived: ContentDigest,
}

struct Chunk {
    /// The key of its first row.
    first: Vec<u8>,
    place: ChunkPlace,
}

enum ChunkPlace {
    Memory(Arc<RowBatch>),
    File {
        offset: u64,
        length: usize,
        /// What its rows contain, with what is behind them.
        content: ContentDigest,
    },
}

/// Gathers fates, given in order. The last one may be replaced as long as none follows.
pub(super) struct DeltaWriter<'d> {
    delta: Delta,
    rows: RowBatch,
    /// Where the last one starts in these rows.
    last: usize,
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
                arrived: ContentDigest::EMPTY,
            },
            rows: RowBatch::new(),
            last: 0,
            written: 0,
            memory_left: memory_bytes_max,
            directory,
        }
    }

    /// Appends what became of a row with a key: whether it was there, and the columns of the one that is. Returns
    /// that one.
    pub(super) fn keyed(
        &mut self,
        key: &[u8],
        was: bool,
        is: Option<&[u8]>,
    ) -> Result<Option<RowRef<'_>>, Error> {
        let fate = if was { WAS } else { 0 } | if is.is_some() { IS } else { 0 };
        self.push(key, [is.unwrap_or_default(), &[fate]])?;
        let (row, [_]) = trailed(self.last_row());
        Ok(is.is_some().then_some(row))
    }

    /// Appends how many more, or fewer, there are of a row without a key. Returns it.
    pub(super) fn keyless(&mut self, columns: &[u8], count: i64) -> Result<RowRef<'_>, Error> {
        self.push(&[], [columns, &count.to_le_bytes()])?;
        Ok(trailed::<COUNT_BYTES>(self.last_row()).0)
    }

    /// Whether the last one is of this row: of one with a key by that, of another by its columns.
    ///
    /// # Panics
    /// If there is none.
    #[inline]
    pub(super) fn is_last(&self, key: &[u8], columns: &[u8]) -> bool {
        let last = self.last_row();
        if key.is_empty() {
            last.key().is_empty() && trailed::<COUNT_BYTES>(last).0.columns() == columns
        } else {
            last.key() == key
        }
    }

    /// Takes the last one back.
    ///
    /// # Panics
    /// If there is none.
    pub(super) fn pop(&mut self) {
        self.rows.truncate(self.last, self.rows.len() - 1);
        self.delta.row_count -= 1;
    }

    /// Counts rows as there now.
    pub(super) fn arrived(&mut self, content: ContentDigest) {
        self.delta.arrived.merge(content);
    }

    fn push(&mut self, key: &[u8], columns: [&[u8]; 2]) -> Result<(), Error> {
        if self.rows.as_bytes().len() >= CHUNK_BYTES_TARGET {
            self.cut()?;
            // There will be more of them, most likely.
            self.rows = RowBatch::with_capacity(CHUNK_BYTES_TARGET + ROOM_BYTES);
        }
        self.last = self.rows.as_bytes().len();
        self.rows.push_joined(key, columns);
        self.delta.row_count += 1;
        Ok(())
    }

    fn last_row(&self) -> RowRef<'_> {
        self.rows.row_at(self.last).expect("BUG: no row yet").0
    }

    fn cut(&mut self) -> Result<(), Error> {
        let mut rows = std::mem::take(&mut self.rows);
        let length = rows.as_bytes().len();
        // A long row may have been here that was taken back.
        if rows.capacity() > 2 * length {
            rows.shrink_to_fit();
        }
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
        let place = ChunkPlace::File {
            offset: self.written,
            length,
            content: content_of(&rows),
        };
        self.written += length as u64;
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

    /// What the rows contain that are there now, as often as there are more of them.
    pub(super) const fn arrived(&self) -> ContentDigest {
        self.arrived
    }

    /// Whether the rows have keys.
    pub(super) fn is_keyed(&self) -> bool {
        let first = self.chunks.first();
        first.is_some_and(|chunk| !chunk.first.is_empty())
    }
}

/// What rows contain.
fn content_of(rows: &RowBatch) -> ContentDigest {
    let mut content = ContentDigest::EMPTY;
    rows.iter().for_each(|row| content.add(row));
    content
}

/// A row and what is behind it.
#[inline]
fn trailed<const BYTES: usize>(row: RowRef<'_>) -> (RowRef<'_>, &[u8; BYTES]) {
    row.split_trailer().expect("BUG: a row without a fate")
}

/// Walks over fates.
pub(super) struct DeltaCursor {
    delta: Arc<Delta>,
    next_chunk: usize,
    batch: Arc<RowBatch>,
    /// Where the current row starts, and the next one.
    current: usize,
    next: usize,
}

impl DeltaCursor {
    pub(super) fn new(delta: Arc<Delta>) -> Self {
        Self {
            delta,
            next_chunk: 0,
            batch: Arc::default(),
            current: 0,
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
            ChunkPlace::File {
                offset,
                length,
                content,
            } => {
                let file = self
                    .delta
                    .file
                    .as_ref()
                    .expect("BUG: a chunk without a file");
                let mut bytes = vec![0; *length];
                file.read_exact_at(&mut bytes, *offset)
                    .map_err(Error::spill)?;
                let rows = RowBatch::try_from_bytes(bytes)
                    .map_err(|error| Error::new(ErrorKind::Other, READ_BACK).caused_by(error))?;
                // A row that has become of another is not hashed again when it is handed out.
                if content_of(&rows) != *content {
                    let message = format!("{READ_BACK}: it is not what was written");
                    return Err(Error::new(ErrorKind::Other, message));
                }
                rows.into()
            }
        };
        self.next = 0;
        Ok(true)
    }

    /// The key of the current row; empty for one without.
    #[inline]
    pub(super) fn key(&self) -> &[u8] {
        self.row().key()
    }

    /// What became of the current row.
    #[inline]
    pub(super) fn fate(&self) -> Fate<'_> {
        let row = self.row();
        if row.key().is_empty() {
            let (row, count) = trailed(row);
            let count = i64::from_le_bytes(*count);
            return Fate::Keyless { row, count };
        }
        let (row, [fate]) = trailed(row);
        Fate::Keyed {
            key: row.key(),
            was: fate & WAS != 0,
            is: (fate & IS != 0).then_some(row),
        }
    }
}

impl RowCursor for DeltaCursor {
    fn advance(&mut self) -> Result<bool, Error> {
        if self.next == self.batch.as_bytes().len() && !self.refill()? {
            return Ok(false);
        }
        let (_, next) = self
            .batch
            .row_at(self.next)
            .expect("BUG: a chunk of no rows");
        (self.current, self.next) = (self.next, next);
        Ok(true)
    }

    #[inline]
    fn row(&self) -> RowRef<'_> {
        self.batch
            .row_at(self.current)
            .expect("BUG: read before advance")
            .0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred rows with keys, of which every third is gone.
    fn written(memory_bytes_max: usize) -> Delta {
        let directory = std::env::temp_dir();
        let mut delta = DeltaWriter::new(memory_bytes_max, &directory);
        for number in 0..100_u8 {
            let columns = vec![number; 1_000];
            let is = (!number.is_multiple_of(3)).then_some(columns.as_slice());
            delta
                .keyed(&[1, number], number.is_multiple_of(2), is)
                .unwrap();
            assert!(delta.is_last(&[1, number], &[]));
            assert!(!delta.is_last(&[2, number], &columns));
        }
        delta.finish().unwrap()
    }

    fn read(delta: Delta) -> Result<Vec<(u8, bool, Option<usize>)>, Error> {
        let mut cursor = DeltaCursor::new(delta.into());
        let mut fates = Vec::new();
        while cursor.advance()? {
            let Fate::Keyed { key, was, is } = cursor.fate() else {
                panic!("a row without a key");
            };
            fates.push((key[1], was, is.map(|row| row.columns().len())));
        }
        Ok(fates)
    }

    #[test]
    fn fates_read_back_from_memory_and_from_a_file() {
        let in_memory = read(written(1 << 20)).unwrap();
        assert_eq!(in_memory.len(), 100);
        assert_eq!(in_memory[3], (3, false, None));
        assert_eq!(in_memory[4], (4, true, Some(1_000)));
        let spilled = written(0);
        assert!(spilled.file.is_some());
        assert_eq!(spilled.row_count(), 100);
        assert_eq!(read(spilled).unwrap(), in_memory);
    }

    #[test]
    fn a_file_that_is_not_what_was_written_is_refused() {
        let spilled = written(0);
        let file = spilled.file.as_ref().unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 5_000).unwrap();
        file.write_all_at(&[byte[0] ^ 1], 5_000).unwrap();
        let error = read(spilled).unwrap_err();
        assert!(
            error.to_string().contains("not what was written"),
            "{error}"
        );
    }

    #[test]
    fn what_was_taken_back_is_not_there() {
        let directory = std::env::temp_dir();
        let mut delta = DeltaWriter::new(0, &directory);
        delta.keyless(b"first", 2).unwrap();
        delta.keyless(b"second", 1).unwrap();
        delta.pop();
        delta.keyless(b"third", -1).unwrap();
        let mut cursor = DeltaCursor::new(delta.finish().unwrap().into());
        for (columns, expected) in [(&b"first"[..], 2), (b"third", -1)] {
            assert!(cursor.advance().unwrap());
            let Fate::Keyless { row, count } = cursor.fate() else {
                panic!("a row with a key");
            };
            assert_eq!((row.columns(), count), (columns, expected));
        }
        assert!(!cursor.advance().unwrap());
    }

    #[test]
    fn what_was_taken_back_takes_no_memory() {
        let long = vec![7; 1 << 20];
        let directory = std::env::temp_dir();
        let mut delta = DeltaWriter::new(1 << 20, &directory);
        for number in 0..20_u8 {
            delta.keyed(&[1, number, 0], true, Some(&long)).unwrap();
            delta.pop();
            for row in 0..35_u8 {
                let columns = [1; 1_000];
                delta
                    .keyed(&[1, number, row], true, Some(&columns))
                    .unwrap();
            }
        }
        let delta = delta.finish().unwrap();
        let held = delta.chunks.iter().map(|chunk| match &chunk.place {
            ChunkPlace::Memory(rows) => rows.capacity(),
            ChunkPlace::File { .. } => 0,
        });
        let held: usize = held.sum();
        assert!((500_000..=2 << 20).contains(&held), "{held} bytes are held");
    }
}
