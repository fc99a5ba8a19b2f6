//! Rows with their owners, in one buffer.

use super::{RowRef, empty};
use crate::{read_varint, write_varint};

/// Rows of one table, each with its owner: what a capture reads.
///
/// An owner is its bytes as in [`Owner::as_bytes`](crate::Owner::as_bytes): none for shared rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedRowBatch {
    pub(super) bytes: Vec<u8>,
    row_count: usize,
}

impl OwnedRowBatch {
    /// An empty batch.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            row_count: 0,
        }
    }

    /// Forgets the rows and keeps the buffer, up to 32 MiB of it.
    pub fn clear(&mut self) {
        empty(&mut self.bytes);
        self.row_count = 0;
    }

    /// Appends a row of this owner, given as encoded key and encoded columns.
    pub fn push_parts(&mut self, owner: &[u8], key: &[u8], columns: &[u8]) {
        write_varint(&mut self.bytes, owner.len() as u64);
        self.bytes.extend_from_slice(owner);
        write_varint(&mut self.bytes, (key.len() + columns.len()) as u64);
        write_varint(&mut self.bytes, key.len() as u64);
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(columns);
        self.row_count += 1;
    }

    /// Appends a row of this owner.
    pub fn push_row(&mut self, owner: &[u8], row: RowRef<'_>) {
        write_varint(&mut self.bytes, owner.len() as u64);
        self.bytes.extend_from_slice(owner);
        row.write(&mut self.bytes);
        self.row_count += 1;
    }

    /// Owners and rows, in the order they were pushed.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], RowRef<'_>)> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (length, taken) = read_varint(rest)?;
            let end = taken + usize::try_from(length).ok()?;
            let owner = rest.get(taken..end)?;
            let (row, length) = RowRef::read(&rest[end..])?;
            rest = &rest[end + length..];
            Some((owner, row))
        })
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

    /// How many bytes the rows and owners take.
    #[must_use]
    pub fn byte_count(&self) -> usize {
        self.bytes.len()
    }
}
