//! Walking over the rows of a plan one at a time.

use reinstate_core::{ChangeSource, RowBatch, RowRef, RowRole, RowStream, StoreError, TableIndex};

/// A stream of rows with a current one.
pub(super) struct PlanRows<'c> {
    stream: Option<Box<dyn RowStream + 'c>>,
    batch: RowBatch,
    current: Option<usize>,
    next: usize,
}

impl<'c> PlanRows<'c> {
    /// Opens the rows of a table in one role, and goes to the first.
    pub(super) fn open(
        changes: &'c dyn ChangeSource,
        table: TableIndex,
        role: RowRole,
    ) -> Result<Self, StoreError> {
        let counts = changes.counts(table);
        let count = match role {
            RowRole::Created => counts.created,
            RowRole::PutBackBefore | RowRole::PutBackAfter => counts.put_back,
            RowRole::Deleted => counts.deleted,
            RowRole::Image | RowRole::SharedCreated | RowRole::LastChange => 0,
        };
        if count == 0 {
            // Not worth looking for.
            return Self::over_some(None);
        }
        let mut rows = Self::over(changes.rows(table, role)?);
        rows.advance()?;
        Ok(rows)
    }

    /// Wraps a stream if there is one, and goes to its first row.
    pub(super) fn over_some(stream: Option<Box<dyn RowStream + 'c>>) -> Result<Self, StoreError> {
        let mut rows = Self {
            stream,
            batch: RowBatch::new(),
            current: None,
            next: 0,
        };
        rows.advance()?;
        Ok(rows)
    }

    /// Wraps any stream; it stands before its first row.
    pub(super) fn over(stream: Box<dyn RowStream + 'c>) -> Self {
        Self {
            stream: Some(stream),
            batch: RowBatch::new(),
            current: None,
            next: 0,
        }
    }

    /// The current row; none at the end.
    pub(super) fn row(&self) -> Option<RowRef<'_>> {
        self.batch.row_at(self.current?).map(|(row, _)| row)
    }

    /// Goes to the next row.
    pub(super) fn advance(&mut self) -> Result<(), StoreError> {
        while self.next >= self.batch.as_bytes().len() {
            self.current = None;
            self.next = 0;
            let Some(stream) = &mut self.stream else {
                return Ok(());
            };
            if !stream.next_batch(&mut self.batch)? {
                self.stream = None;
                self.batch.clear();
                return Ok(());
            }
        }
        self.current = Some(self.next);
        if let Some((_, next)) = self.batch.row_at(self.next) {
            self.next = next;
        }
        Ok(())
    }
}
