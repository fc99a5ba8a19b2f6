//! Rows, in the one encoding that capture, repository, plan and merge share.
//!
//! ```text
//! row     := varint(body length) varint(key length) body
//! body    := key columns
//! columns := { varint(0) | varint(length + 1) bytes }     one per column; 0 is NULL
//! ```
//!
//! A row stays a slice of the buffer it was read into until a store writes it. The order of rows
//! is by key and then by columns, so that a table without a key is ordered by its whole rows.

mod owned;

use std::cmp::Ordering;

use crate::{read_varint, write_varint};

pub use owned::OwnedRowBatch;

/// The longest body of a row, in bytes: what a block can hold and a store could still write.
pub const ROW_BYTES_MAX: usize = 1 << 30;

/// How much room a buffer of rows keeps when they are forgotten: a single long row is not to be paid for
/// until the end.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// Empties a buffer, and gives it back if it is larger than most will ever need.
fn empty(buffer: &mut Vec<u8>) {
    if buffer.capacity() > KEPT_BYTES_MAX {
        *buffer = Vec::new();
    }
    buffer.clear();
}

/// Bytes that are not a sequence of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// A length points past the end, or is not in its shortest form.
    #[error("row at byte {offset}: a length is malformed or points past the end")]
    Malformed {
        /// Where the row starts.
        offset: usize,
    },
    /// A row has another number of columns than its table.
    #[error("row has {found} columns, its table {expected}")]
    ColumnCount {
        /// Columns of the table.
        expected: usize,
        /// Columns of the row, up to the first that cannot be read.
        found: usize,
    },
    /// A column of the key is NULL.
    #[error("column {column} is part of the key and may not be NULL")]
    NullInKey {
        /// The column's place in its table.
        column: u32,
    },
    /// A row is longer than [`ROW_BYTES_MAX`].
    #[error("row of {0} bytes: at most {ROW_BYTES_MAX}")]
    TooLong(u64),
}

/// One row, borrowed from the buffer that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowRef<'a> {
    body: &'a [u8],
    key_length: usize,
}

impl<'a> RowRef<'a> {
    /// The encoded key; empty for a table without one.
    #[inline]
    #[must_use]
    pub fn key(self) -> &'a [u8] {
        &self.body[..self.key_length]
    }

    /// The encoded columns.
    #[inline]
    #[must_use]
    pub fn columns(self) -> &'a [u8] {
        &self.body[self.key_length..]
    }

    /// Key and columns together.
    #[inline]
    #[must_use]
    pub fn body(self) -> &'a [u8] {
        self.body
    }

    /// The row without the last bytes of its columns, and those: for who keeps something of his own behind a
    /// row. `None` if the columns are shorter.
    #[inline]
    #[must_use]
    pub fn split_trailer<const BYTES: usize>(self) -> Option<(Self, &'a [u8; BYTES])> {
        let (body, trailer) = self.body.split_last_chunk::<BYTES>()?;
        let row = Self { body, ..self };
        (row.key_length <= body.len()).then_some((row, trailer))
    }

    /// The values of the columns, in order. Stops at the first that cannot be read: call
    /// [`check`](Self::check) on rows from outside.
    #[inline]
    #[must_use]
    pub fn values(self) -> Values<'a> {
        Values {
            rest: self.columns(),
        }
    }

    /// Whether the columns are exactly `column_count` well-formed values.
    ///
    /// # Errors
    /// `ColumnCount` if they are not.
    pub fn check(self, column_count: usize) -> Result<(), RowError> {
        let mut values = self.values();
        let found = values.by_ref().count();
        if found == column_count && values.rest.is_empty() {
            Ok(())
        } else {
            Err(RowError::ColumnCount {
                expected: column_count,
                found,
            })
        }
    }

    /// The row at the front of `bytes`, and how many bytes it takes.
    #[inline]
    fn read(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let (body_length, first) = read_varint(bytes)?;
        let (key_length, second) = read_varint(&bytes[first..])?;
        let body_length = usize::try_from(body_length).ok()?;
        let key_length = usize::try_from(key_length).ok()?;
        let start = first + second;
        let end = start.checked_add(body_length)?;
        let body = bytes.get(start..end)?;
        (key_length <= body_length).then_some((Self { body, key_length }, end))
    }

    #[inline]
    fn write(self, bytes: &mut Vec<u8>) {
        write_varint(bytes, self.body.len() as u64);
        write_varint(bytes, self.key_length as u64);
        bytes.extend_from_slice(self.body);
    }
}

/// Orders rows by key, then by columns.
#[must_use]
pub fn compare_rows(left: RowRef<'_>, right: RowRef<'_>) -> Ordering {
    left.key()
        .cmp(right.key())
        .then_with(|| left.columns().cmp(right.columns()))
}

/// The values of a row: `None` is NULL.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Values<'a> {
    type Item = Option<&'a [u8]>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (marker, taken) = read_varint(self.rest)?;
        if marker == 0 {
            self.rest = &self.rest[taken..];
            return Some(None);
        }
        let end = taken.checked_add(usize::try_from(marker - 1).ok()?)?;
        let value = self.rest.get(taken..end)?;
        self.rest = &self.rest[end..];
        Some(Some(value))
    }
}

/// Builds one row: the key whole, then one value after the other. Reuses its buffer.
#[derive(Clone, Debug, Default)]
pub struct RowBuilder {
    body: Vec<u8>,
    key_length: usize,
}

impl RowBuilder {
    /// A builder with an empty buffer.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            body: Vec::new(),
            key_length: 0,
        }
    }

    /// Starts a new row with this encoded key.
    pub fn start(&mut self, key: &[u8]) {
        empty(&mut self.body);
        self.body.extend_from_slice(key);
        self.key_length = key.len();
    }

    /// Appends the next column's value.
    pub fn push(&mut self, value: Option<&[u8]>) {
        match value {
            None => self.body.push(0),
            Some(value) => {
                write_varint(&mut self.body, value.len() as u64 + 1);
                self.body.extend_from_slice(value);
            }
        }
    }

    /// Appends columns that are encoded already.
    pub fn push_columns(&mut self, columns: &[u8]) {
        self.body.extend_from_slice(columns);
    }

    /// The row built so far.
    #[must_use]
    pub fn row(&self) -> RowRef<'_> {
        RowRef {
            body: &self.body,
            key_length: self.key_length,
        }
    }
}

/// Rows of one table and one owner, one after the other in one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowBatch {
    bytes: Vec<u8>,
    row_count: usize,
}

impl RowBatch {
    /// How many bytes a stream puts into a batch before it hands it over, as a guide: a batch
    /// holds at least one row, however long.
    pub const TARGET_BYTES: usize = 256 * 1024;

    /// An empty batch.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            row_count: 0,
        }
    }

    /// An empty batch with room for so many bytes of encoded rows.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            row_count: 0,
        }
    }

    /// Takes over bytes from outside, after walking them once.
    ///
    /// # Errors
    /// `Malformed` if they are not a whole number of rows; `TooLong` if one is over the limit.
    pub fn try_from_bytes(bytes: Vec<u8>) -> Result<Self, RowError> {
        let row_count = count_rows(&bytes)?;
        Ok(Self { bytes, row_count })
    }

    /// Replaces the rows by bytes that `fill` writes into the empty buffer, after walking them
    /// once. The batch is empty after an error.
    ///
    /// # Errors
    /// Whatever `fill` returns; `Malformed` or `TooLong` as
    /// [`try_from_bytes`](Self::try_from_bytes).
    pub fn refill<E: From<RowError>>(
        &mut self,
        fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.clear();
        match fill(&mut self.bytes).and_then(|()| Ok(count_rows(&self.bytes)?)) {
            Ok(row_count) => {
                self.row_count = row_count;
                Ok(())
            }
            Err(error) => {
                self.clear();
                Err(error)
            }
        }
    }

    /// Forgets the rows and keeps the buffer, up to 32 MiB of it.
    pub fn clear(&mut self) {
        empty(&mut self.bytes);
        self.row_count = 0;
    }

    /// Forgets the rows and keeps all of the buffer, for whoever has a budget of his own.
    pub fn clear_within(&mut self) {
        self.bytes.clear();
        self.row_count = 0;
    }

    /// Appends a row given as key and values.
    pub fn push<'v>(&mut self, key: &[u8], values: impl IntoIterator<Item = Option<&'v [u8]>>) {
        let mut builder = RowBuilder::new();
        builder.start(key);
        for value in values {
            builder.push(value);
        }
        self.push_row(builder.row());
    }

    /// Appends a row.
    #[inline]
    pub fn push_row(&mut self, row: RowRef<'_>) {
        row.write(&mut self.bytes);
        self.row_count += 1;
    }

    /// Appends a row given as encoded key and encoded columns.
    #[inline]
    pub fn push_parts(&mut self, key: &[u8], columns: &[u8]) {
        self.push_joined(key, [columns, &[]]);
    }

    /// Appends a row whose encoded columns come in two pieces.
    #[inline]
    pub fn push_joined(&mut self, key: &[u8], columns: [&[u8]; 2]) {
        let [first, second] = columns;
        let body = key.len() + first.len() + second.len();
        write_varint(&mut self.bytes, body as u64);
        write_varint(&mut self.bytes, key.len() as u64);
        for piece in [key, first, second] {
            self.bytes.extend_from_slice(piece);
        }
        self.row_count += 1;
    }

    /// Appends `row_count` rows of another batch, which are these of its bytes: both ends are where
    /// [`row_at`](Self::row_at) says that a row starts.
    pub fn push_encoded(&mut self, rows: &Self, bytes: std::ops::Range<usize>, row_count: usize) {
        self.bytes.extend_from_slice(&rows.bytes[bytes]);
        self.row_count += row_count;
    }

    /// Forgets all but the first bytes, which are so many rows: the end is where [`row_at`](Self::row_at) says
    /// that a row starts.
    pub fn truncate(&mut self, bytes: usize, row_count: usize) {
        self.bytes.truncate(bytes);
        self.row_count = row_count;
    }

    /// The rows, in the order they were pushed.
    pub fn iter(&self) -> impl Iterator<Item = RowRef<'_>> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (row, taken) = RowRef::read(rest)?;
            rest = &rest[taken..];
            Some(row)
        })
    }

    /// The row that starts at this byte, and where the next one starts; `None` at the end. For
    /// cursors that cannot hold a borrow.
    #[inline]
    #[must_use]
    pub fn row_at(&self, offset: usize) -> Option<(RowRef<'_>, usize)> {
        let (row, taken) = RowRef::read(self.bytes.get(offset..)?)?;
        Some((row, offset + taken))
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.row_count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.row_count == 0
    }

    /// The encoded rows.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes the buffer has room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Gives back what the buffer has room for beyond the rows.
    pub fn shrink_to_fit(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// Gives up the buffer.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// How many rows these bytes are.
fn count_rows(bytes: &[u8]) -> Result<usize, RowError> {
    let mut offset = 0;
    let mut row_count = 0;
    while offset < bytes.len() {
        let (row, taken) = RowRef::read(&bytes[offset..]).ok_or(RowError::Malformed { offset })?;
        if row.body.len() > ROW_BYTES_MAX {
            return Err(RowError::TooLong(row.body.len() as u64));
        }
        offset += taken;
        row_count += 1;
    }
    Ok(row_count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Plain = (Vec<u8>, Vec<Option<Vec<u8>>>);

    fn batch(rows: &[Plain]) -> RowBatch {
        let mut batch = RowBatch::new();
        for (key, values) in rows {
            batch.push(key, values.iter().map(Option::as_deref));
        }
        batch
    }

    /// A value of 100 MB that came once is not kept room for until the end of a run.
    #[test]
    fn a_long_row_leaves_no_long_buffer_behind() {
        let long = vec![7; KEPT_BYTES_MAX + 1];
        let mut batch = RowBatch::new();
        batch.push(b"key", [Some(long.as_slice())]);
        batch.clear();
        assert!(batch.is_empty() && batch.capacity() <= KEPT_BYTES_MAX);
        let mut owned = OwnedRowBatch::new();
        owned.push_parts(b"a", b"key", &long);
        let (owner, row) = owned.iter().next().unwrap();
        assert_eq!((owner, row.key()), (&b"a"[..], &b"key"[..]));
        assert_eq!(row.columns(), long);
        owned.clear();
        assert!(owned.is_empty() && owned.bytes.capacity() <= KEPT_BYTES_MAX);
        batch.push(b"key", [None]);
        assert_eq!(plain(&batch), [(b"key".to_vec(), vec![None])]);
    }

    fn plain(batch: &RowBatch) -> Vec<Plain> {
        batch
            .iter()
            .map(|row| {
                (
                    row.key().to_vec(),
                    row.values().map(|v| v.map(<[u8]>::to_vec)).collect(),
                )
            })
            .collect()
    }

    proptest! {
        #[test]
        fn rows_read_back(rows: Vec<Plain>) {
            let written = batch(&rows);
            prop_assert_eq!(written.len(), rows.len());
            prop_assert_eq!(plain(&written), rows.clone());
            let again = RowBatch::try_from_bytes(written.clone().into_bytes());
            prop_assert_eq!(again, Ok(written.clone()));
            for (row, (_, values)) in written.iter().zip(&rows) {
                prop_assert_eq!(row.check(values.len()), Ok(()));
                prop_assert!(row.check(values.len() + 1).is_err());
            }
        }

        #[test]
        fn refilling_is_reading_and_leaves_nothing_after_an_error(rows: Vec<Plain>, bytes: Vec<u8>) {
            let written = batch(&rows);
            let mut reused = written.clone();
            let filled = reused.refill(|buffer| {
                buffer.extend_from_slice(&bytes);
                Ok::<(), RowError>(())
            });
            match RowBatch::try_from_bytes(bytes) {
                Ok(expected) => {
                    prop_assert_eq!(filled, Ok(()));
                    prop_assert_eq!(&reused, &expected);
                }
                Err(error) => {
                    prop_assert_eq!(filled, Err(error));
                    prop_assert_eq!(&reused, &RowBatch::new());
                }
            }
        }

        #[test]
        fn owned_rows_read_back(rows: Vec<(Vec<u8>, Plain)>) {
            let mut owned = OwnedRowBatch::new();
            for (owner, row) in &rows {
                owned.push_row(owner, batch(std::slice::from_ref(row)).iter().next().unwrap());
            }
            let read: Vec<_> = owned
                .iter()
                .map(|(owner, row)| {
                    let mut one = RowBatch::new();
                    one.push_row(row);
                    (owner.to_vec(), plain(&one).remove(0))
                })
                .collect();
            prop_assert_eq!(read, rows);
        }

        #[test]
        fn reading_any_bytes_never_panics(bytes: Vec<u8>) {
            if let Ok(batch) = RowBatch::try_from_bytes(bytes) {
                for row in batch.iter() {
                    let _ = row.check(3);
                }
            }
        }
    }

    #[test]
    fn null_and_empty_differ() {
        let rows = batch(&[(vec![], vec![None]), (vec![], vec![Some(vec![])])]);
        let mut rows = rows.iter();
        assert_ne!(rows.next(), rows.next());
    }
}
