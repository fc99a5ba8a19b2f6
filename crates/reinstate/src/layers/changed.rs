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
    /// What the base contains, without the rows so far of which something became. Of rows that were reshaped the
    /// sum is that of the rows before: only what is taken from it counts.
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

    /// How what stays of the base differs from it, once all rows were read.
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

    /// What the base contains, and what has to stay of it: the rows of which nothing became.
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
            match self.pass_unchanged(batch) {
                Some(Ordering::Equal) => self.meet(batch)?,
                Some(_) => self.fate_alone(batch)?,
                None => {
                    self.refill()?;
                    if self.base_ended && (self.is_stretch || !self.has_fate) {
                        break;
                    }
                    if self.base_ended {
                        self.fate_alone(batch)?;
                    }
                }
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
        self.copies = match self.has_fate.then(|| self.delta.fate()) {
            Some(Fate::Keyless { count, .. }) => count,
            _ => 0,
        };
        Ok(())
    }

    /// Copies the rows of the base's current batch before the next fate, as they lie there. Returns how the row
    /// behind them is ordered to it; `None` if there is no more in that batch.
    fn pass_unchanged(&mut self, batch: &mut RowBatch) -> Option<Ordering> {
        let start = self.next;
        // One loop for each, since most of the time goes into them.
        let (end, count, order) = match self.has_fate.then(|| self.delta.fate()) {
            None => pass(&self.batch, start, |_| Ordering::Less),
            Some(Fate::Keyed { key, .. }) => {
                pass(&self.batch, start, |row| compare_keys(row.key(), key))
            }
            Some(Fate::Keyless { row: fate, .. }) => {
                pass(&self.batch, start, |row| row.columns().cmp(fate.columns()))
            }
        };
        self.next = end;
        batch.push_encoded(&self.batch, start..end, count);
        order
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

    /// Handles the fate of the base's next row.
    fn meet(&mut self, batch: &mut RowBatch) -> Result<(), Error> {
        let row = self.batch.row_at(self.next);
        let (row, next) = row.expect("BUG: met no row");
        self.next = next;
        match self.delta.fate() {
            Fate::Keyed { was: false, .. } => Err(contradiction()),
            Fate::Keyed { is, .. } => {
                self.content.remove(row);
                if let Some(is) = is {
                    batch.push_row(is);
                }
                self.next_fate()
            }
            Fate::Keyless { .. } if self.copies < 0 => {
                self.copies += 1;
                self.content.remove(row);
                Ok(())
            }
            Fate::Keyless { .. } => {
                batch.push_row(row);
                Ok(())
            }
        }
    }

    /// Handles a fate for which there is no row, or no more, in the base. Of one with many copies as many as a batch
    /// takes: the others come with the next.
    fn fate_alone(&mut self, batch: &mut RowBatch) -> Result<(), Error> {
        match self.delta.fate() {
            Fate::Keyed { was: true, .. } => return Err(contradiction()),
            Fate::Keyed { is: Some(is), .. } => batch.push_row(is),
            Fate::Keyed { .. } => (),
            Fate::Keyless { .. } if self.copies < 0 => return Err(contradiction()),
            Fate::Keyless { row, .. } => {
                while self.copies > 0 {
                    if batch.as_bytes().len() >= RowBatch::TARGET_BYTES {
                        return Ok(());
                    }
                    batch.push_row(row);
                    self.copies -= 1;
                }
            }
        }
        self.next_fate()
    }
}

/// From where one starts, the rows that are less: where they end, how many they are, and how the one behind them
/// is ordered.
#[inline]
fn pass(
    rows: &RowBatch,
    start: usize,
    order: impl Fn(RowRef<'_>) -> Ordering,
) -> (usize, usize, Option<Ordering>) {
    let (mut end, mut count) = (start, 0);
    while let Some((row, next)) = rows.row_at(end) {
        let order = order(row);
        if order != Ordering::Less {
            return (end, count, Some(order));
        }
        end = next;
        count += 1;
    }
    (end, count, None)
}

/// Most keys differ in their first bytes, or in those behind them: a number is compared faster than bytes are.
#[inline]
fn compare_keys(left: &[u8], right: &[u8]) -> Ordering {
    if let (Some(left), Some(right)) = (left.first_chunk::<8>(), right.first_chunk::<8>()) {
        let order = u64::from_be_bytes(*left).cmp(&u64::from_be_bytes(*right));
        if order != Ordering::Equal {
            return order;
        }
    }
    left.cmp(right)
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
