//! A small plan, held in memory: nobody waits while its rows are read and decoded.

use reinstate_core::{
    ChangeCounts, ChangeSource, RowBatch, RowRole, RowStream, StoreError, TableIndex,
};

/// The most bytes of rows that are written in place, however few the rows are.
const IN_PLACE_BYTES_MAX: usize = 512 * 1024;

/// Every row that a plan deletes, puts back or creates.
pub(super) struct Gathered<'c> {
    changes: &'c dyn ChangeSource,
    rows: Vec<(TableIndex, RowRole, Vec<RowBatch>)>,
}

impl<'c> Gathered<'c> {
    /// Reads the plan; `None` if its rows are too large to be written in place.
    pub(super) fn read(changes: &'c dyn ChangeSource) -> Result<Option<Self>, StoreError> {
        let mut rows = Vec::new();
        let mut bytes = 0;
        for &table in changes.tables() {
            let counts = changes.counts(table);
            for (role, count) in [
                (RowRole::Deleted, counts.deleted),
                (RowRole::PutBackAfter, counts.put_back),
                (RowRole::Created, counts.created),
            ] {
                if count == 0 {
                    continue;
                }
                let mut stream = changes.rows(table, role)?;
                let mut batches = Vec::new();
                let mut batch = RowBatch::new();
                while stream.next_batch(&mut batch)? {
                    bytes += batch.as_bytes().len();
                    if bytes > IN_PLACE_BYTES_MAX {
                        return Ok(None);
                    }
                    batches.push(std::mem::take(&mut batch));
                }
                rows.push((table, role, batches));
            }
        }
        Ok(Some(Self { changes, rows }))
    }
}

impl ChangeSource for Gathered<'_> {
    fn tables(&self) -> &[TableIndex] {
        self.changes.tables()
    }

    fn counts(&self, table: TableIndex) -> ChangeCounts {
        self.changes.counts(table)
    }

    fn rows(
        &self,
        table: TableIndex,
        role: RowRole,
    ) -> Result<Box<dyn RowStream + '_>, StoreError> {
        let found = self
            .rows
            .iter()
            .find(|(its_table, its_role, _)| (*its_table, *its_role) == (table, role));
        let batches = found.map_or(&[][..], |(_, _, batches)| batches);
        Ok(Box::new(GatheredRows(batches.iter())))
    }
}

struct GatheredRows<'g>(std::slice::Iter<'g, RowBatch>);

impl RowStream for GatheredRows<'_> {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        match self.0.next() {
            Some(next) => batch.clone_from(next),
            None => batch.clear(),
        }
        Ok(!batch.is_empty())
    }
}
