//! Sorted rows in an unnamed file.
//!
//! ```text
//! run   := { chunk }
//! chunk := owner length u16, table u32, rows length u64, owner, rows
//! ```
//!
//! A chunk holds rows of one owner and one table. The file has no name: it is gone when it is
//! closed, however the process ends, and nobody but this process reads it.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use reinstate_core::{RowBatch, TableIndex};

use super::{Cursor, Item};
use crate::Error;

const CHUNK_BYTES_TARGET: usize = 64 * 1024;
const CHUNK_HEADER_BYTES: usize = 2 + 4 + 8;

/// Sorted rows in a file.
pub(super) struct Run {
    file: File,
}

impl Run {
    /// Writes all that the cursor gives.
    pub(super) fn write(directory: &Path, mut rows: impl Cursor) -> Result<Self, Error> {
        let file = tempfile::tempfile_in(directory).map_err(Error::spill)?;
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        let mut chunk = Chunk::new();
        while rows.advance()? {
            let item = rows.current();
            if !chunk.takes(&item) {
                chunk.write(&mut writer).map_err(Error::spill)?;
                chunk.start(&item);
            }
            chunk.rows.push_row(item.row);
        }
        chunk.write(&mut writer).map_err(Error::spill)?;
        let mut file = writer
            .into_inner()
            .map_err(|error| Error::spill(error.into_error()))?;
        file.seek(SeekFrom::Start(0)).map_err(Error::spill)?;
        Ok(Self { file })
    }

    /// Reads the run back through a buffer of this size.
    pub(super) fn into_cursor(self, buffer_bytes: usize) -> RunCursor {
        RunCursor {
            reader: BufReader::with_capacity(buffer_bytes, self.file),
            chunk: Chunk::new(),
            current: 0,
            next: 0,
        }
    }
}

struct Chunk {
    owner: Vec<u8>,
    table: TableIndex,
    rows: RowBatch,
}

impl Chunk {
    fn new() -> Self {
        Self {
            owner: Vec::new(),
            table: TableIndex(0),
            rows: RowBatch::new(),
        }
    }

    fn takes(&self, item: &Item<'_>) -> bool {
        self.owner == item.owner
            && self.table == item.table
            && self.rows.as_bytes().len() < CHUNK_BYTES_TARGET
    }

    fn start(&mut self, item: &Item<'_>) {
        self.owner.clear();
        self.owner.extend_from_slice(item.owner);
        self.table = item.table;
        self.rows.clear();
    }

    fn write(&self, writer: &mut impl Write) -> std::io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let owner_length = u16::try_from(self.owner.len()).map_err(std::io::Error::other)?;
        writer.write_all(&owner_length.to_le_bytes())?;
        writer.write_all(&self.table.0.to_le_bytes())?;
        writer.write_all(&(self.rows.as_bytes().len() as u64).to_le_bytes())?;
        writer.write_all(&self.owner)?;
        writer.write_all(self.rows.as_bytes())
    }

    /// Reads the next chunk in place of this one; `false` at the end.
    fn read(&mut self, reader: &mut BufReader<File>) -> std::io::Result<bool> {
        let mut header = [0; CHUNK_HEADER_BYTES];
        if reader.read(&mut header[..1])? == 0 {
            return Ok(false);
        }
        reader.read_exact(&mut header[1..])?;
        let (owner_length, rest) = header.split_at(2);
        let (table, rows_length) = rest.split_at(4);
        let owner_length = u16::from_le_bytes(owner_length.try_into().expect("BUG: two bytes"));
        let rows_length = u64::from_le_bytes(rows_length.try_into().expect("BUG: eight bytes"));
        self.table = TableIndex(u32::from_le_bytes(
            table.try_into().expect("BUG: four bytes"),
        ));
        self.owner.resize(usize::from(owner_length), 0);
        reader.read_exact(&mut self.owner)?;
        let mut bytes = std::mem::take(&mut self.rows).into_bytes();
        bytes.clear();
        reader.take(rows_length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != rows_length {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.rows = RowBatch::try_from_bytes(bytes).map_err(std::io::Error::other)?;
        Ok(true)
    }
}

/// Walks over a run.
pub(super) struct RunCursor {
    reader: BufReader<File>,
    chunk: Chunk,
    current: usize,
    next: usize,
}

impl Cursor for RunCursor {
    fn advance(&mut self) -> Result<bool, Error> {
        if self.next == self.chunk.rows.as_bytes().len() {
            if !self.chunk.read(&mut self.reader).map_err(Error::spill)? {
                return Ok(false);
            }
            self.next = 0;
        }
        self.current = self.next;
        self.next = self
            .chunk
            .rows
            .row_at(self.current)
            .expect("BUG: a chunk of no rows")
            .1;
        Ok(true)
    }

    fn current(&self) -> Item<'_> {
        let (row, _) = self
            .chunk
            .rows
            .row_at(self.current)
            .expect("BUG: read before advance");
        Item {
            owner: &self.chunk.owner,
            table: self.chunk.table,
            row,
        }
    }
}
