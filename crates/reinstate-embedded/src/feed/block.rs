//! How changes lie in the file: several in a block, so that a small transaction is one entry more.
//!
//! ```text
//! entry  := u8 0, changes                      more entries of the commit follow
//!         | u8 1, end, changes                 the last one
//!         | u8 2, end, u64 number              the last one; the changes are the blocks of that number
//! end    := i64 time in microseconds, u64 changes of the commit, u64 bytes noted up to here
//! changes := { head, rows }                    each of them a row in a batch of rows
//! head   := a row without columns, whose key is u8 kind, u32 table, owner
//! kind   := 1 insert: one row | 2 update: the row before, the row after | 3 delete: the row before
//! ```
//!
//! Integers are little-endian. Numbers of kinds are persisted: never renumber them.

use reinstate_core::{
    Change, ErrorKind, FeedRow, ROW_BYTES_MAX, RowBatch, RowRef, StoreError, TableIndex, Timestamp,
};

/// Bytes after which a block is written.
const BLOCK_BYTES: usize = 16 * 1024;

const ENTRY_GOES_ON: u8 = 0;
const ENTRY_ENDS: u8 = 1;
const ENTRY_IS_ASIDE: u8 = 2;

const INSERT: u8 = 1;
const UPDATE: u8 = 2;
const DELETE: u8 = 3;

/// A row as its key and its columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) columns: &'a [u8],
}

impl<'a> From<RowRef<'a>> for Parts<'a> {
    fn from(row: RowRef<'a>) -> Self {
        Self {
            key: row.key(),
            columns: row.columns(),
        }
    }
}

/// What became of a row of one owner.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RowChange<'a> {
    Insert(Parts<'a>),
    Update { before: Parts<'a>, after: Parts<'a> },
    Delete(Parts<'a>),
}

/// Changes that are gathered into a block.
#[derive(Debug, Default)]
pub(crate) struct Block {
    rows: RowBatch,
}

impl Block {
    /// Adds a change.
    ///
    /// # Errors
    /// `Usage` if a row is longer than can be handed over.
    pub(crate) fn push(
        &mut self,
        table: TableIndex,
        owner: &[u8],
        change: RowChange<'_>,
    ) -> Result<(), StoreError> {
        let (kind, rows) = match change {
            RowChange::Insert(row) => (INSERT, [Some(row), None]),
            RowChange::Update { before, after } => (UPDATE, [Some(before), Some(after)]),
            RowChange::Delete(row) => (DELETE, [Some(row), None]),
        };
        let mut head = Vec::with_capacity(5 + owner.len());
        head.push(kind);
        head.extend_from_slice(&table.0.to_le_bytes());
        head.extend_from_slice(owner);
        let rows = rows.into_iter().flatten();
        for row in rows.clone() {
            let bytes = row.key.len() + row.columns.len();
            if bytes > ROW_BYTES_MAX {
                let message = format!(
                    "note a change for the store's feeds: a row of {bytes} bytes; at most \
                     {ROW_BYTES_MAX} can be followed"
                );
                return Err(StoreError::new(ErrorKind::Usage, message));
            }
        }
        self.rows.push_parts(&head, &[]);
        rows.for_each(|row| self.rows.push_parts(row.key, row.columns));
        Ok(())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.rows.as_bytes().len() >= BLOCK_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Hands out the bytes and starts anew.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.rows).into_bytes()
    }
}

/// How a commit ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) time: Timestamp,
    /// Changes of the commit.
    pub(crate) change_count: u64,
    /// Bytes that were noted since the store was first followed, those of this commit included.
    pub(crate) total_bytes: u64,
}

/// An entry of the feed, apart from its changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    GoesOn,
    Ends(End),
    /// The changes are in the blocks of this number.
    IsAside(End, u64),
}

impl Entry {
    /// Bytes before the changes.
    pub(crate) fn header_bytes(self) -> usize {
        match self {
            Self::GoesOn => 1,
            Self::Ends(_) => 25,
            Self::IsAside(..) => 33,
        }
    }

    pub(crate) fn write(self, changes: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.header_bytes() + changes.len());
        let mut put_end = |kind, end: End| {
            bytes.push(kind);
            bytes.extend_from_slice(&end.time.as_micros().to_le_bytes());
            bytes.extend_from_slice(&end.change_count.to_le_bytes());
            bytes.extend_from_slice(&end.total_bytes.to_le_bytes());
        };
        match self {
            Self::GoesOn => bytes.push(ENTRY_GOES_ON),
            Self::Ends(end) => put_end(ENTRY_ENDS, end),
            Self::IsAside(end, number) => {
                put_end(ENTRY_IS_ASIDE, end);
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        bytes.extend_from_slice(changes);
        bytes
    }

    /// The entry, and the changes behind it.
    pub(crate) fn read(bytes: &[u8]) -> Result<(Self, &[u8]), StoreError> {
        Self::parse(bytes).ok_or_else(damaged)
    }

    fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (&kind, rest) = bytes.split_first()?;
        if kind == ENTRY_GOES_ON {
            return Some((Self::GoesOn, rest));
        }
        let (time, rest) = rest.split_first_chunk()?;
        let (change_count, rest) = rest.split_first_chunk()?;
        let (total_bytes, rest) = rest.split_first_chunk()?;
        let end = End {
            time: Timestamp::from_micros(i64::from_le_bytes(*time)),
            change_count: u64::from_le_bytes(*change_count),
            total_bytes: u64::from_le_bytes(*total_bytes),
        };
        match kind {
            ENTRY_ENDS => Some((Self::Ends(end), rest)),
            ENTRY_IS_ASIDE => {
                let (number, rest) = rest.split_first_chunk()?;
                let number = u64::from_le_bytes(*number);
                rest.is_empty()
                    .then_some((Self::IsAside(end, number), rest))
            }
            _ => None,
        }
    }
}

/// Hands out the changes of a block; returns how many there were. `rows` is a buffer.
///
/// # Errors
/// `Corrupt` if they are not what was written; whatever `each` returns.
pub(crate) fn read_changes(
    bytes: &[u8],
    rows: &mut RowBatch,
    mut each: impl FnMut(Change<'_>) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let filled: Result<(), reinstate_core::RowError> = rows.refill(|buffer| {
        buffer.extend_from_slice(bytes);
        Ok(())
    });
    filled.map_err(|error| damaged().because(error))?;
    let mut rows = rows.iter();
    let mut count = 0;
    while let Some(head) = rows.next() {
        let (&kind, rest) = head.key().split_first().ok_or_else(damaged)?;
        let (table, owner) = rest.split_first_chunk().ok_or_else(damaged)?;
        let table = TableIndex(u32::from_le_bytes(*table));
        let mut next = || {
            let row = rows.next().ok_or_else(damaged)?;
            Ok::<_, StoreError>(FeedRow {
                owner: Some(owner),
                row,
            })
        };
        let change = match kind {
            INSERT => Change::Insert {
                table,
                row: next()?,
            },
            UPDATE => Change::Update {
                table,
                before: next()?,
                after: next()?,
            },
            DELETE => Change::Delete {
                table,
                before: next()?,
            },
            _ => return Err(damaged()),
        };
        each(change)?;
        count += 1;
    }
    Ok(count)
}

pub(crate) fn damaged() -> StoreError {
    StoreError::new(
        ErrorKind::Corrupt,
        "read the store's feed: what was noted of a commit is damaged",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts<'a>(key: &'a [u8], columns: &'a [u8]) -> Parts<'a> {
        Parts { key, columns }
    }

    #[test]
    fn changes_are_handed_out_as_they_were_noted() {
        let mut block = Block::default();
        let (table, row) = (TableIndex(7), parts(b"k", b"columns"));
        let changes = [
            RowChange::Insert(row),
            RowChange::Update {
                before: parts(b"", b"before"),
                after: row,
            },
            RowChange::Delete(parts(b"", b"")),
        ];
        for change in changes {
            block.push(table, b"owner", change).unwrap();
        }
        let bytes = block.take();
        let mut found = Vec::new();
        let count = read_changes(&bytes, &mut RowBatch::new(), |change| {
            found.push(format!("{change:?}"));
            Ok(())
        });
        assert_eq!(count.unwrap(), 3);
        let mut rows = RowBatch::new();
        rows.push_parts(b"k", b"columns");
        rows.push_parts(b"", b"before");
        rows.push_parts(b"", b"");
        let rows: Vec<FeedRow<'_>> = rows
            .iter()
            .map(|row| FeedRow {
                owner: Some(b"owner"),
                row,
            })
            .collect();
        let expected = [
            Change::Insert {
                table,
                row: rows[0],
            },
            Change::Update {
                table,
                before: rows[1],
                after: rows[0],
            },
            Change::Delete {
                table,
                before: rows[2],
            },
        ];
        assert_eq!(
            found,
            expected
                .iter()
                .map(|change| format!("{change:?}"))
                .collect::<Vec<_>>()
        );
        for length in 1..bytes.len() {
            let cut = read_changes(&bytes[..length], &mut RowBatch::new(), |_| Ok(()));
            assert!(
                cut.is_err() || cut.is_ok_and(|count| count < 3),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn an_entry_is_read_as_it_was_written_and_cut_short_not_at_all() {
        let end = End {
            time: Timestamp::from_micros(-3),
            change_count: 4,
            total_bytes: 5,
        };
        for entry in [Entry::GoesOn, Entry::Ends(end), Entry::IsAside(end, 6)] {
            let bytes = entry.write(b"");
            assert_eq!(bytes.len(), entry.header_bytes());
            assert_eq!(Entry::read(&bytes).unwrap(), (entry, &b""[..]));
            for length in 0..bytes.len() {
                let error = Entry::read(&bytes[..length]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt);
            }
        }
        assert!(Entry::read(&[9; 40]).is_err());
    }
}
