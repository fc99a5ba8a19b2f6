//! Walking streams of rows one row at a time.

use reinstate_core::{RowBatch, RowRef, RowStream, StoreError};

/// A stream of rows with one current row.
pub struct Rows<'s> {
    stream: Box<dyn RowStream + 's>,
    batch: RowBatch,
    current: usize,
    next: usize,
}

impl std::fmt::Debug for Rows<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Rows").finish_non_exhaustive()
    }
}

impl<'s> Rows<'s> {
    /// Stands before the first row.
    #[must_use]
    pub fn new(stream: Box<dyn RowStream + 's>) -> Self {
        Self {
            stream,
            batch: RowBatch::new(),
            current: 0,
            next: 0,
        }
    }

    /// Goes to the next row; `false` at the end.
    ///
    /// # Errors
    /// As the stream reports it.
    pub fn advance(&mut self) -> Result<bool, StoreError> {
        while self.batch.row_at(self.next).is_none() {
            if !self.stream.next_batch(&mut self.batch)? {
                self.batch.clear();
                self.current = 0;
                self.next = 0;
                return Ok(false);
            }
            self.next = 0;
        }
        self.current = self.next;
        if let Some((_, next)) = self.batch.row_at(self.current) {
            self.next = next;
        }
        Ok(true)
    }

    /// The row it stands on; none before the first and after the last.
    #[must_use]
    pub fn current(&self) -> Option<RowRef<'_>> {
        self.batch.row_at(self.current).map(|(row, _)| row)
    }
}

/// Hands every row to `each`, until it says `false`.
///
/// # Errors
/// As the stream reports it.
pub fn for_each_row(
    mut stream: Box<dyn RowStream + '_>,
    mut each: impl FnMut(RowRef<'_>) -> bool,
) -> Result<(), StoreError> {
    let mut batch = RowBatch::new();
    while stream.next_batch(&mut batch)? {
        for row in batch.iter() {
            if !each(row) {
                return Ok(());
            }
        }
    }
    Ok(())
}
