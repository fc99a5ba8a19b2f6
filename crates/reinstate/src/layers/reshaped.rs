//! Rows of a table as it was, as rows of the table as it became.

use std::sync::Arc;

use reinstate_core::{RowBatch, RowBuilder, RowStream, StoreError};

use super::ImageRows;
use crate::log::Reshape;

/// Rows in the same order, in another shape.
pub struct ReshapedRows {
    rows: ImageRows,
    reshape: Arc<Reshape>,
    batch: RowBatch,
    builder: RowBuilder,
}

impl std::fmt::Debug for ReshapedRows {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ReshapedRows")
    }
}

impl ReshapedRows {
    pub(super) fn new(rows: ImageRows, reshape: Arc<Reshape>) -> Self {
        Self {
            rows,
            reshape,
            batch: RowBatch::new(),
            builder: RowBuilder::new(),
        }
    }
}

impl RowStream for ReshapedRows {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        batch.clear();
        if !self.rows.next_batch(&mut self.batch)? {
            return Ok(false);
        }
        for row in self.batch.iter() {
            self.reshape.apply(row, &mut self.builder);
            batch.push_row(self.builder.row());
        }
        Ok(true)
    }
}
