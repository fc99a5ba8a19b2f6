//! Reading a memory store: captures, live views, streams.

use std::sync::Arc;

use reinstate_core::{
    CaptureView, Fingerprint, HeldKey, LiveView, OwnedRowBatch, OwnedRowStream, Position, RowBatch,
    RowOrder, RowRole, RowStream, SequenceValue, StoreError, StoreSchema, TableIndex, TenantId,
    Timestamp,
};

use crate::memory::MemoryOptions;
use crate::memory::state::State;
use crate::memory::store::{fingerprint, is_own};

/// The whole store at one commit.
#[derive(Debug)]
pub(crate) struct MemoryCapture {
    pub(crate) state: Arc<State>,
    pub(crate) options: MemoryOptions,
}

/// The store at one commit, tenant by tenant.
#[derive(Debug)]
pub(crate) struct MemoryView {
    pub(crate) state: Arc<State>,
    pub(crate) options: MemoryOptions,
}

/// Rows that are handed out a few at a time.
#[derive(Debug)]
pub(crate) struct BatchedRows {
    rows: RowBatch,
    offset: usize,
    batch_rows_max: usize,
}

impl BatchedRows {
    pub(crate) fn new(rows: RowBatch, options: &MemoryOptions) -> Self {
        Self {
            rows,
            offset: 0,
            batch_rows_max: options.batch_rows_max.max(1),
        }
    }
}

impl RowStream for BatchedRows {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        batch.clear();
        while batch.len() < self.batch_rows_max
            && batch.as_bytes().len() < RowBatch::TARGET_BYTES
            && let Some((row, next)) = self.rows.row_at(self.offset)
        {
            batch.push_row(row);
            self.offset = next;
        }
        Ok(!batch.is_empty())
    }
}

/// Rows of every owner, by their place in the table.
#[derive(Debug)]
struct HeapRows {
    rows: Vec<(Vec<u8>, RowBatch)>,
    next: usize,
    batch_rows_max: usize,
}

impl OwnedRowStream for HeapRows {
    fn next_batch(&mut self, batch: &mut OwnedRowBatch) -> Result<bool, StoreError> {
        batch.clear();
        while batch.len() < self.batch_rows_max
            && batch.byte_count() < RowBatch::TARGET_BYTES
            && let Some((owner, row)) = self.rows.get(self.next)
        {
            row.iter().for_each(|row| batch.push_row(owner, row));
            self.next += 1;
        }
        Ok(!batch.is_empty())
    }
}

impl CaptureView for MemoryCapture {
    fn schema(&self) -> &StoreSchema {
        &self.state.schema
    }

    fn position(&self) -> Position {
        self.state.position()
    }

    fn taken_at(&self) -> Option<Timestamp> {
        Some(self.state.taken_at())
    }

    fn sequences(&self) -> &[SequenceValue] {
        &self.state.sequences
    }

    fn lanes(&self) -> usize {
        2
    }

    fn table_rows(&self, table: TableIndex) -> Result<Box<dyn OwnedRowStream + '_>, StoreError> {
        let mut rows = Vec::new();
        for (place, stored) in &self.state.tables[table.get()] {
            let owner = self.state.owner(table, stored);
            let mut row = RowBatch::new();
            row.push_parts(self.state.key(table, place), &stored.columns);
            for _ in 0..stored.count {
                rows.push((owner.as_bytes().to_vec(), row.clone()));
            }
        }
        Ok(Box::new(HeapRows {
            rows,
            next: 0,
            batch_rows_max: self.options.batch_rows_max.max(1),
        }))
    }
}

impl LiveView for MemoryView {
    fn schema(&self) -> &StoreSchema {
        &self.state.schema
    }

    fn position(&self) -> Position {
        self.state.position()
    }

    fn taken_at(&self) -> Option<Timestamp> {
        Some(self.state.taken_at())
    }

    fn fingerprint(&self, tenant: &TenantId) -> Result<Fingerprint, StoreError> {
        Ok(fingerprint(&self.state, tenant))
    }

    fn row_order(&self) -> RowOrder {
        self.options.row_order
    }

    fn tenant_rows(
        &self,
        tenant: &TenantId,
        table: TableIndex,
    ) -> Result<Box<dyn RowStream + '_>, StoreError> {
        let rows = self.state.rows_of(tenant, table);
        let rows = match self.options.row_order {
            RowOrder::Sorted => rows,
            RowOrder::Any => backwards(&rows),
        };
        Ok(Box::new(BatchedRows::new(rows, &self.options)))
    }

    fn held_by_others(
        &self,
        tenant: &TenantId,
        table: TableIndex,
        _role: RowRole,
        rows: &RowBatch,
    ) -> Result<Vec<HeldKey>, StoreError> {
        let schema = self.state.schema.table(table);
        if !schema.has_key() {
            return Ok(Vec::new());
        }
        let held = |row: &reinstate_core::RowRef<'_>| {
            let place = self.state.place(table, tenant.as_bytes(), *row);
            let stored = self.state.tables[table.get()].get(&place);
            stored.is_some_and(|stored| !is_own(&self.state.owner(table, stored), tenant))
        };
        Ok(rows
            .iter()
            .filter(held)
            .map(|row| HeldKey {
                key: row.key().to_vec(),
                constraint: format!("{}_pkey", schema.name),
            })
            .collect())
    }
}

fn backwards(rows: &RowBatch) -> RowBatch {
    let sorted: Vec<_> = rows.iter().collect();
    let mut batch = RowBatch::new();
    sorted.into_iter().rev().for_each(|row| batch.push_row(row));
    batch
}
