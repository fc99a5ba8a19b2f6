//! A plan's changes, held in memory.

use std::collections::BTreeMap;

use reinstate_core::{
    ChangeCounts, ChangeSource, RowBatch, RowRole, RowStream, StoreError, StoreSchema, TableIndex,
    compare_rows,
};

use crate::ApplicationRow;

/// Changes to the rows of one tenant, as a plan would hand them to a store.
#[derive(Clone, Debug)]
pub struct Changes {
    schema: StoreSchema,
    order: Vec<TableIndex>,
    tables: Vec<TableIndex>,
    rows: BTreeMap<(TableIndex, u8), Vec<RowBatch>>,
}

impl Changes {
    /// No changes yet.
    #[must_use]
    pub fn new(schema: &StoreSchema) -> Self {
        let order = schema.write_order();
        Self {
            schema: schema.clone(),
            order,
            tables: Vec::new(),
            rows: BTreeMap::new(),
        }
    }

    /// Adds a row to create.
    ///
    /// # Errors
    /// As [`ApplicationRow::encode`].
    pub fn create(&mut self, row: &ApplicationRow) -> Result<&mut Self, StoreError> {
        self.push(RowRole::Created, row)
    }

    /// Adds a row to delete, as it is.
    ///
    /// # Errors
    /// As [`ApplicationRow::encode`].
    pub fn delete(&mut self, row: &ApplicationRow) -> Result<&mut Self, StoreError> {
        self.push(RowRole::Deleted, row)
    }

    /// Adds a row to put back: as it is, and as it shall be, under the same key.
    ///
    /// # Errors
    /// As [`ApplicationRow::encode`].
    pub fn put_back(
        &mut self,
        before: &ApplicationRow,
        after: &ApplicationRow,
    ) -> Result<&mut Self, StoreError> {
        self.push(RowRole::PutBackBefore, before)?;
        self.push(RowRole::PutBackAfter, after)
    }

    fn push(&mut self, role: RowRole, row: &ApplicationRow) -> Result<&mut Self, StoreError> {
        let (index, table) = row.find(&self.schema)?;
        let mut batch = RowBatch::new();
        row.encode(table, &mut batch)?;
        let rows = self.rows.entry((index, role as u8)).or_default();
        let place = rows.partition_point(|other| is_before(other, &batch));
        rows.insert(place, batch);
        let changed = |table: &&TableIndex| self.rows.keys().any(|(index, _)| index == *table);
        self.tables = self.order.iter().filter(changed).copied().collect();
        Ok(self)
    }

    fn count(&self, table: TableIndex, role: RowRole) -> u64 {
        self.rows
            .get(&(table, role as u8))
            .map_or(0, |rows| rows.len() as u64)
    }
}

/// Whether the only row of one batch comes before that of another.
fn is_before(left: &RowBatch, right: &RowBatch) -> bool {
    match (left.row_at(0), right.row_at(0)) {
        (Some((left, _)), Some((right, _))) => compare_rows(left, right).is_lt(),
        _ => false,
    }
}

impl ChangeSource for Changes {
    fn tables(&self) -> &[TableIndex] {
        &self.tables
    }

    fn counts(&self, table: TableIndex) -> ChangeCounts {
        ChangeCounts {
            created: self.count(table, RowRole::Created),
            put_back: self.count(table, RowRole::PutBackAfter),
            deleted: self.count(table, RowRole::Deleted),
        }
    }

    fn rows(
        &self,
        table: TableIndex,
        role: RowRole,
    ) -> Result<Box<dyn RowStream + '_>, StoreError> {
        let rows = self.rows.get(&(table, role as u8));
        Ok(Box::new(ChangeRows {
            rows: rows.map_or(&[], Vec::as_slice),
        }))
    }
}

/// How many rows a batch of changes holds: few, so that a store meets more than one batch.
const BATCH_ROWS: usize = 100;

#[derive(Debug)]
struct ChangeRows<'a> {
    rows: &'a [RowBatch],
}

impl RowStream for ChangeRows<'_> {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        batch.clear();
        let (now, later) = self.rows.split_at(self.rows.len().min(BATCH_ROWS));
        self.rows = later;
        now.iter()
            .flat_map(RowBatch::iter)
            .for_each(|row| batch.push_row(row));
        Ok(!batch.is_empty())
    }
}
