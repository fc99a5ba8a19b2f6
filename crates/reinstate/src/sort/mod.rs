//! Sorting rows by (owner, table, key) within a budget of memory.
//!
//! Rows are gathered in an [`Arena`](arena::Arena). When it is full it is sorted and written to
//! an unnamed file as a [`Run`](run::Run); in the end the runs, and what is still in memory, are
//! merged. The result does not depend on the budget or on the number of sorters.
//!
//! *Cost*: every row is copied once, and once more to and from disk when the rows do not fit.

mod arena;
mod merge;
mod run;

use std::path::PathBuf;

use rayon::ThreadPool;
use reinstate_core::{RowRef, TableIndex};

use crate::Error;
use arena::Arena;
use run::Run;

pub(crate) use merge::SortedRows;

/// Runs merged at once. More are first merged into one, so that buffers stay within the budget.
const FAN_IN_MAX: usize = 256;

/// Where and with how much memory a sorter works.
#[derive(Clone, Debug)]
pub(crate) struct SortBudget {
    /// Bytes of rows held before they are spilled.
    pub memory_bytes_max: usize,
    /// Where to spill.
    pub directory: PathBuf,
}

/// Gathers rows to be sorted.
pub(crate) struct Sorter<'p> {
    pool: &'p ThreadPool,
    budget: SortBudget,
    arena: Arena,
    runs: Vec<Run>,
}

impl<'p> Sorter<'p> {
    pub(crate) fn new(pool: &'p ThreadPool, budget: SortBudget) -> Self {
        Self {
            pool,
            arena: Arena::new(budget.memory_bytes_max),
            budget,
            runs: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn push(
        &mut self,
        owner: &[u8],
        table: TableIndex,
        row: RowRef<'_>,
    ) -> Result<(), Error> {
        if !self.arena.has_room_for(row) {
            self.spill()?;
        }
        self.arena.push(owner, table, row);
        Ok(())
    }

    fn spill(&mut self) -> Result<(), Error> {
        if self.arena.is_empty() {
            return Ok(());
        }
        self.arena.sort(self.pool);
        self.runs
            .push(Run::write(&self.budget.directory, self.arena.cursor())?);
        self.arena.clear();
        if self.runs.len() == FAN_IN_MAX {
            let runs = std::mem::take(&mut self.runs);
            let merged = SortedRows::merge(runs, Vec::new(), self.budget.memory_bytes_max / 2)?;
            self.runs.push(Run::write(&self.budget.directory, merged)?);
        }
        Ok(())
    }

    /// Ends the gathering.
    pub(crate) fn finish(mut self) -> Result<Sorted, Error> {
        if !self.runs.is_empty() {
            self.spill()?;
            self.arena = Arena::new(0);
        }
        self.arena.sort(self.pool);
        Ok(Sorted {
            arena: self.arena,
            runs: self.runs,
        })
    }
}

/// Rows of one sorter, sorted.
pub(crate) struct Sorted {
    arena: Arena,
    runs: Vec<Run>,
}

impl Sorted {
    /// Merges what several sorters gathered. `memory_bytes_max` bounds the read buffers.
    pub(crate) fn merge(parts: Vec<Self>, memory_bytes_max: usize) -> Result<SortedRows, Error> {
        let mut runs = Vec::new();
        let mut arenas = Vec::new();
        for part in parts {
            runs.extend(part.runs);
            if !part.arena.is_empty() {
                arenas.push(part.arena);
            }
        }
        SortedRows::merge(runs, arenas, memory_bytes_max)
    }
}

/// One row in sorting order.
#[derive(Clone, Copy)]
pub(crate) struct Item<'a> {
    pub owner: &'a [u8],
    pub table: TableIndex,
    pub row: RowRef<'a>,
}

impl Item<'_> {
    fn compare(&self, other: &Self) -> std::cmp::Ordering {
        self.owner
            .cmp(other.owner)
            .then_with(|| self.table.cmp(&other.table))
            .then_with(|| reinstate_core::compare_rows(self.row, other.row))
    }
}

/// Something that walks over sorted rows. After `advance` returned `true` there is a current one.
pub(crate) trait Cursor {
    fn advance(&mut self) -> Result<bool, Error>;
    fn current(&self) -> Item<'_>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use reinstate_core::RowBatch;

    type Plain = (Vec<u8>, u32, Vec<u8>, Vec<u8>);

    fn sort(rows: &[Plain], sorters: usize, memory: usize) -> Vec<Plain> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(2)
            .build()
            .unwrap();
        let budget = SortBudget {
            memory_bytes_max: memory,
            directory: std::env::temp_dir(),
        };
        let mut parts: Vec<_> = (0..sorters)
            .map(|_| Sorter::new(&pool, budget.clone()))
            .collect();
        for (index, (owner, table, key, value)) in rows.iter().enumerate() {
            let mut batch = RowBatch::new();
            batch.push(key, [Some(value.as_slice())]);
            let row = batch.iter().next().unwrap();
            parts[index % sorters]
                .push(owner, TableIndex(*table), row)
                .unwrap();
        }
        let parts = parts
            .into_iter()
            .map(|part| part.finish().unwrap())
            .collect();
        let mut sorted = Sorted::merge(parts, 1 << 20).unwrap();
        let mut result = Vec::new();
        while sorted.advance().unwrap() {
            let Item { owner, table, row } = sorted.current();
            let value = row.values().next().unwrap().unwrap();
            result.push((owner.to_vec(), table.0, row.key().to_vec(), value.to_vec()));
        }
        result
    }

    proptest! {
        #[test]
        fn rows_come_out_sorted_whatever_the_budget(
            rows in proptest::collection::vec(
                (proptest::collection::vec(0_u8..3, 0..3), 0_u32..3,
                 proptest::collection::vec(any::<u8>(), 0..20), any::<Vec<u8>>()), 0..120),
            sorters in 1_usize..4,
        ) {
            let mut expected = rows.clone();
            expected.sort();
            // The encoded columns sort by length first; expect that order among equal keys.
            let order = |row: &Plain| {
                let mut batch = RowBatch::new();
                batch.push(&row.2, [Some(row.3.as_slice())]);
                let columns = batch.iter().next().unwrap().columns().to_vec();
                (row.0.clone(), row.1, row.2.clone(), columns)
            };
            expected.sort_by_key(order);
            // A few rows a run makes more runs than are merged at once.
            for memory in [1, 400, 1 << 20] {
                prop_assert_eq!(&sort(&rows, sorters, memory), &expected);
            }
        }
    }

    #[test]
    fn more_runs_than_are_merged_at_once_are_merged_in_steps() {
        let mut rows: Vec<Plain> = (0_u32..)
            .take(3 * FAN_IN_MAX + 7)
            .map(|n| (vec![1], 0, n.to_be_bytes().to_vec(), vec![]))
            .collect();
        rows.reverse();
        let sorted = sort(&rows, 1, 1);
        assert_eq!(sorted.len(), rows.len());
        assert!(sorted.is_sorted());
    }
}
