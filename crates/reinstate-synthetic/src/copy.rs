//! Rows as PostgreSQL's COPY text.

use std::io::{self, Write};

use reinstate_core::{OwnedRowBatch, RowRef, StoreError, TableIndex};

use crate::SyntheticStore;

/// Appends a row as one line of COPY text, line break included. NULL is `\N`.
pub fn copy_text_line(row: RowRef<'_>, line: &mut Vec<u8>) {
    for (place, value) in row.values().enumerate() {
        if place > 0 {
            line.push(b'\t');
        }
        let Some(value) = value else {
            line.extend_from_slice(b"\\N");
            continue;
        };
        for &byte in value {
            match byte {
                b'\\' => line.extend_from_slice(b"\\\\"),
                b'\t' => line.extend_from_slice(b"\\t"),
                b'\n' => line.extend_from_slice(b"\\n"),
                b'\r' => line.extend_from_slice(b"\\r"),
                _ => line.push(byte),
            }
        }
    }
    line.push(b'\n');
}

impl SyntheticStore {
    /// Writes every row of a table as COPY text, in the order of the heap. Returns how many.
    ///
    /// # Errors
    /// As the writer reports it.
    ///
    /// # Panics
    /// If there is no table of that index.
    pub fn copy_text(&self, table: TableIndex, mut to: impl Write) -> io::Result<u64> {
        let mut rows = self.heap_rows(table);
        let mut batch = OwnedRowBatch::new();
        let mut lines = Vec::new();
        let mut row_count = 0;
        while rows.next_batch(&mut batch).map_err(into_io)? {
            lines.clear();
            for (_, row) in batch.iter() {
                copy_text_line(row, &mut lines);
                row_count += 1;
            }
            to.write_all(&lines)?;
        }
        Ok(row_count)
    }
}

fn into_io(error: StoreError) -> io::Error {
    io::Error::other(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use reinstate_core::RowBatch;

    #[test]
    fn what_copy_would_read_otherwise_is_escaped() {
        let mut batch = RowBatch::new();
        batch.push(
            b"k",
            [
                Some(b"a\tb\\c\nd\re".as_slice()),
                None,
                Some(b""),
                Some(b"\\N"),
            ],
        );
        let mut line = Vec::new();
        copy_text_line(batch.iter().next().unwrap(), &mut line);
        assert_eq!(line, b"a\\tb\\\\c\\nd\\re\t\\N\t\t\\\\N\n");
    }
}
