//! The rows of a table at a position: the snapshot's, with what became of them since.

use std::cmp::Ordering;
use std::sync::Arc;

use reinstate_core::{ContentDigest, ErrorKind, RowBatch, RowRef, RowStream, StoreError};

use super::ImageRows;
use super::delta::{Delta, DeltaCursor, Fate};
use crate::Error;
use crate::plan::RowCursor;

/// Rows in order, at a position of a log.
pub struct ChangedRows {
    base: ImageRows,
    batch: RowBatch,
    next: usize,
    base_ended: bool,
    delta: DeltaCursor,
    has_fate: bool,
    /// What the base contains, with what became of the rows so far. Of rows that were reshaped the sum
    /// is that of the rows before: only what is taken from it and added to it counts.
    content: ContentDigest,
    /// What that has to be in the end: what the changes say, row by row, of what was there.
    expected: ContentDigest,
    started: bool,
    /// Copies of the current row without a key still to be handed out or passed over.
    copies: i64,
}

impl std::fmt::Debug for ChangedRows {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ChangedRows")
    }
}

impl ChangedRows {
    /// What the base contains, and what it has to contain with what became of its rows.
    pub(crate) fn new(
        base: ImageRows,
        (content, expected): (ContentDigest, ContentDigest),
        delta: Arc<Delta>,
    ) -> Self {
        Self {
            base,
            batch: RowBatch::new(),
            next: 0,
            base_ended: false,
            delta: DeltaCursor::new(delta),
            has_fate: false,
            content,
            expected,
            started: false,
            copies: 0,
        }
    }

    /// The next rows in place of what is in `batch`; `false` at the end.
    pub(crate) fn next(&mut self, batch: &mut RowBatch) -> Result<bool, Error> {
        batch.clear();
        if !self.started {
            self.started = true;
            self.next_fate()?;
        }
        while batch.as_bytes().len() < RowBatch::TARGET_BYTES {
            self.pass_unchanged(batch);
            if !self.step(batch)? {
                break;
            }
        }
        if batch.is_empty() && self.content != self.expected {
            return Err(contradiction());
        }
        Ok(!batch.is_empty())
    }

    fn next_fate(&mut self) -> Result<(), Error> {
        self.has_fate = self.delta.advance()?;
        self.copies = match self.has_fate.then(|| self.delta.fate().0) {
            Some(Fate::Keyless(count)) => count,
            _ => 0,
        };
        Ok(())
    }

    /// Copies the rows of the base's current batch before the next fate, as they lie there.
    fn pass_unchanged(&mut self, batch: &mut RowBatch) {
        let start = self.next;
        let mut count = 0;
        while let Some((row, next)) = self.batch.row_at(self.next) {
            if self.has_fate && self.order(row) != Ordering::Less {
                break;
            }
            self.next = next;
            count += 1;
        }
        batch.push_encoded(&self.batch, start..self.next, count);
    }

    /// Handles the row or the fate that comes first; `false` at the end.
    fn step(&mut self, batch: &mut RowBatch) -> Result<bool, Error> {
        while !self.base_ended && self.next == self.batch.as_bytes().len() {
            self.base_ended = !self
                .base
                .next_batch(&mut self.batch)
                .map_err(Error::store("read the rows of a snapshot and its log"))?;
            self.next = 0;
        }
        let base = self.batch.row_at(self.next);
        let base = if self.base_ended { None } else { base };
        let order = match (base, self.has_fate) {
            (None, false) => return Ok(false),
            (Some(_), false) => Ordering::Less,
            (None, true) => Ordering::Greater,
            (Some((row, _)), true) => self.order(row),
        };
        match (order, base) {
            (Ordering::Less, Some((row, next))) => {
                batch.push_row(row);
                self.next = next;
            }
            (Ordering::Equal, Some((row, next))) => {
                let (fate, _) = self.delta.fate();
                match fate {
                    Fate::Keyed { was: false, .. } => return Err(contradiction()),
                    Fate::Keyed { is, .. } => {
                        self.content.remove(row);
                        if let Some(columns) = is {
                            batch.push_parts(row.key(), columns);
                            add_last(&mut self.content, row.key(), columns);
                        }
                        self.next = next;
                        self.next_fate()?;
                    }
                    Fate::Keyless(_) => {
                        if self.copies < 0 {
                            self.copies += 1;
                            self.content.remove(row);
                        } else {
                            batch.push_row(row);
                        }
                        self.next = next;
                    }
                }
            }
            _ => self.fate_alone(batch)?,
        }
        Ok(true)
    }

    /// Handles a fate for which there is no row, or no more, in the base.
    fn fate_alone(&mut self, batch: &mut RowBatch) -> Result<(), Error> {
        match self.delta.fate() {
            (Fate::Keyed { was: true, .. }, _) => return Err(contradiction()),
            (Fate::Keyed { is, .. }, _) => {
                let key = self.delta.place().key();
                if let Some(columns) = is {
                    batch.push_parts(key, columns);
                    add_last(&mut self.content, key, columns);
                }
            }
            (Fate::Keyless(_), columns) => {
                if self.copies < 0 {
                    return Err(contradiction());
                }
                for _ in 0..self.copies {
                    batch.push_parts(&[], columns);
                    add_last(&mut self.content, &[], columns);
                }
            }
        }
        self.next_fate()
    }

    fn order(&self, row: RowRef<'_>) -> Ordering {
        let (fate, columns) = self.delta.fate();
        match fate {
            Fate::Keyed { .. } => row.key().cmp(self.delta.place().key()),
            Fate::Keyless(_) => row.columns().cmp(columns),
        }
    }
}

fn add_last(content: &mut ContentDigest, key: &[u8], columns: &[u8]) {
    let mut row = RowBatch::new();
    row.push_parts(key, columns);
    for row in row.iter() {
        content.add(row);
    }
}

fn contradiction() -> Error {
    let message = "the log and its snapshot contradict each other about a row: changes are missing \
                   between them";
    Error::new(ErrorKind::Corrupt, message)
}

impl RowStream for ChangedRows {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        self.next(batch).map_err(Error::into_store_error)
    }
}
