//! The rows of a table at a position: the snapshot's, with what became of them since.

use std::cmp::Ordering;
use std::sync::Arc;

use reinstate_core::{ContentDigest, ErrorKind, RowBatch, RowRef, RowStream, StoreError};

use super::ImageRows;
use super::delta::{Delta, DeltaCursor, Fate};
use crate::Error;
use crate::plan::RowCursor;

/// Rows in order, at a position of a log.
pub struct ChangedRows<B = ImageRows> {
    base: B,
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
    /// Whether only the fates from the first row of the base to its last one are of interest.
    is_stretch: bool,
    started: bool,
    /// Copies of the current row without a key still to be handed out or passed over.
    copies: i64,
}

impl<B> std::fmt::Debug for ChangedRows<B> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ChangedRows")
    }
}

impl<B: RowStream> ChangedRows<B> {
    /// Some rows of a table with keys that follow each other, with what became of them and of what is between
    /// them.
    pub(super) fn stretch(base: B, delta: Arc<Delta>) -> Self {
        Self {
            is_stretch: true,
            ..Self::new(base, (ContentDigest::EMPTY, ContentDigest::EMPTY), delta)
        }
    }

    /// How what the rows contain differs from what the base contains, once all were read.
    pub(super) fn difference(&self) -> ContentDigest {
        self.content
    }

    /// The key of the first row behind these of which something became, once all were read.
    pub(super) fn next_key(&self) -> Option<&[u8]> {
        self.has_fate.then(|| self.delta.key())
    }

    /// What the rows come from.
    pub(super) fn into_base(self) -> B {
        self.base
    }

    /// What the base contains, and what it has to contain with what became of its rows.
    pub(crate) fn new(
        base: B,
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
            is_stretch: false,
            started: false,
            copies: 0,
        }
    }

    /// The next rows in place of what is in `batch`; `false` at the end.
    pub(crate) fn next(&mut self, batch: &mut RowBatch) -> Result<bool, Error> {
        batch.clear();
        if !self.started {
            self.started = true;
            self.start()?;
        }
        while batch.as_bytes().len() < RowBatch::TARGET_BYTES {
            self.pass_unchanged(batch);
            if !self.step(batch)? {
                break;
            }
        }
        if batch.is_empty() && !self.is_stretch && self.content != self.expected {
            return Err(contradiction());
        }
        Ok(!batch.is_empty())
    }

    fn start(&mut self) -> Result<(), Error> {
        if !self.is_stretch {
            return self.next_fate();
        }
        self.refill()?;
        let Some((first, _)) = self.batch.row_at(0) else {
            return Ok(());
        };
        self.has_fate = self.delta.advance_to(first.key())?;
        Ok(())
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
        let fate = self.has_fate.then(|| Place::of(&self.delta));
        while let Some((row, next)) = self.batch.row_at(self.next) {
            if fate.is_some_and(|fate| fate.order(row) != Ordering::Less) {
                break;
            }
            self.next = next;
            count += 1;
        }
        batch.push_encoded(&self.batch, start..self.next, count);
    }

    /// Goes to the base's next batch, once this one was passed.
    fn refill(&mut self) -> Result<(), Error> {
        while !self.base_ended && self.next == self.batch.as_bytes().len() {
            self.base_ended = !self
                .base
                .next_batch(&mut self.batch)
                .map_err(Error::store("read the rows of a snapshot and its log"))?;
            self.next = 0;
        }
        Ok(())
    }

    /// Handles the row or the fate that comes first; `false` at the end.
    fn step(&mut self, batch: &mut RowBatch) -> Result<bool, Error> {
        self.refill()?;
        if self.is_stretch && self.base_ended {
            return Ok(false);
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
                            push_counted(batch, &mut self.content, row.key(), columns);
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
                let key = self.delta.key();
                if let Some(columns) = is {
                    push_counted(batch, &mut self.content, key, columns);
                }
            }
            (Fate::Keyless(_), columns) => {
                if self.copies < 0 {
                    return Err(contradiction());
                }
                for _ in 0..self.copies {
                    push_counted(batch, &mut self.content, &[], columns);
                }
            }
        }
        self.next_fate()
    }

    fn order(&self, row: RowRef<'_>) -> Ordering {
        Place::of(&self.delta).order(row)
    }
}

/// By what the current fate is ordered.
#[derive(Clone, Copy)]
enum Place<'d> {
    Key(&'d [u8]),
    Columns(&'d [u8]),
}

impl<'d> Place<'d> {
    fn of(delta: &'d DeltaCursor) -> Self {
        match delta.fate() {
            (Fate::Keyed { .. }, _) => Self::Key(delta.key()),
            (Fate::Keyless(_), columns) => Self::Columns(columns),
        }
    }

    /// How a row is ordered to it.
    fn order(self, row: RowRef<'_>) -> Ordering {
        match self {
            Self::Key(key) => compare_keys(row.key(), key),
            Self::Columns(columns) => row.columns().cmp(columns),
        }
    }
}

/// Most keys differ in their first bytes, or in those behind them: a number is compared faster than bytes are.
fn compare_keys(left: &[u8], right: &[u8]) -> Ordering {
    if let (Some(left), Some(right)) = (left.first_chunk::<8>(), right.first_chunk::<8>()) {
        let order = u64::from_be_bytes(*left).cmp(&u64::from_be_bytes(*right));
        if order != Ordering::Equal {
            return order;
        }
    }
    left.cmp(right)
}

/// Adds a row to a batch and to what is contained.
pub(super) fn push_counted(
    batch: &mut RowBatch,
    content: &mut ContentDigest,
    key: &[u8],
    columns: &[u8],
) {
    let start = batch.as_bytes().len();
    batch.push_parts(key, columns);
    let (row, _) = batch.row_at(start).expect("BUG: pushed just now");
    content.add(row);
}

pub(super) fn contradiction() -> Error {
    let message = "the log and its snapshot contradict each other about a row: changes are missing \
                   between them";
    Error::new(ErrorKind::Corrupt, message)
}

impl<B: RowStream> RowStream for ChangedRows<B> {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        self.next(batch).map_err(Error::into_store_error)
    }
}
