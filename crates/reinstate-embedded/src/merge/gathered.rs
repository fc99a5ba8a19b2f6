//! A small plan, held in memory: nobody waits while its rows are read and decoded.

use std::collections::VecDeque;

use reinstate_core::{
    ChangeCounts, ChangeSource, RowBatch, RowRole, RowStream, StoreError, TableIndex,
};

/// The most bytes of rows that are written in place, however few the rows are.
const IN_PLACE_BYTES_MAX: usize = 512 * 1024;

/// How many of a plan's streams are open at the same time.
const STREAMS_AHEAD: usize = 4;

/// Every row that a plan deletes, puts back or creates.
pub(super) struct Gathered<'c> {
    changes: &'c dyn ChangeSource,
    rows: Vec<(TableIndex, RowRole, Vec<RowBatch>)>,
}

impl<'c> Gathered<'c> {
    /// Reads the plan; `None` if its rows are too large to be written in place.
    pub(super) fn read(changes: &'c dyn ChangeSource) -> Result<Option<Self>, StoreError> {
        let mut wanted = changes
            .tables()
            .iter()
            .flat_map(|&table| {
                let counts = changes.counts(table);
                [
                    (table, RowRole::Deleted, counts.deleted),
                    (table, RowRole::PutBackAfter, counts.put_back),
                    (table, RowRole::Created, counts.created),
                ]
            })
            .filter(|(_, _, count)| *count > 0);
        // Rows are decoded from the moment at which their stream is opened, by all threads.
        let mut opened = VecDeque::new();
        let mut rows = Vec::new();
        let mut bytes = 0;
        loop {
            while opened.len() < STREAMS_AHEAD
                && let Some((table, role, _)) = wanted.next()
            {
                opened.push_back((table, role, changes.rows(table, role)?));
            }
            let Some((table, role, mut stream)) = opened.pop_front() else {
                break;
            };
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const TABLES: [TableIndex; 6] = [
        TableIndex(0),
        TableIndex(1),
        TableIndex(2),
        TableIndex(3),
        TableIndex(4),
        TableIndex(5),
    ];

    /// A row to create in each of many tables, which has the table's number. Knows how many streams are open.
    #[derive(Default)]
    struct OneEach {
        open: AtomicUsize,
        open_max: AtomicUsize,
    }

    impl ChangeSource for OneEach {
        fn tables(&self) -> &[TableIndex] {
            &TABLES
        }

        fn counts(&self, _table: TableIndex) -> ChangeCounts {
            ChangeCounts {
                created: 1,
                ..ChangeCounts::NONE
            }
        }

        fn rows(
            &self,
            table: TableIndex,
            role: RowRole,
        ) -> Result<Box<dyn RowStream + '_>, StoreError> {
            assert_eq!(role, RowRole::Created);
            let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
            self.open_max.fetch_max(open, Ordering::SeqCst);
            Ok(Box::new(One {
                source: self,
                left: Some(table),
            }))
        }
    }

    struct One<'s> {
        source: &'s OneEach,
        left: Option<TableIndex>,
    }

    impl RowStream for One<'_> {
        fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
            batch.clear();
            if let Some(table) = self.left.take() {
                batch.push(&table.0.to_be_bytes(), [None]);
            }
            Ok(!batch.is_empty())
        }
    }

    impl Drop for One<'_> {
        fn drop(&mut self) {
            self.source.open.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_few_streams_are_open_at_the_same_time_and_each_row_is_in_its_table() {
        let source = OneEach::default();
        let gathered = Gathered::read(&source).unwrap().unwrap();
        for table in TABLES {
            let mut rows = gathered.rows(table, RowRole::Created).unwrap();
            let mut batch = RowBatch::new();
            assert!(rows.next_batch(&mut batch).unwrap());
            let keys: Vec<_> = batch.iter().map(|row| row.key().to_vec()).collect();
            assert_eq!(keys, [table.0.to_be_bytes().to_vec()]);
            assert!(!rows.next_batch(&mut batch).unwrap());
        }
        assert_eq!(source.open_max.load(Ordering::SeqCst), STREAMS_AHEAD);
    }
}
