//! Rows that an incident left behind.
//!
//! Where nothing guards a reference, deleting a row leaves those behind that belong to it: comments
//! on an issue that is gone. They are nobody's then. As soon as the issue is back, they are its
//! tenant's again, so that a plan has to treat them as rows that the tenant has: leave them where
//! they are what they were, put them back or delete them where not.

use std::collections::{BTreeMap, HashMap};

use reinstate_core::{ErrorKind, LiveView, RowBatch, RowRef, TableIndex};

use crate::{Context, Error};

/// The part of the memory that such rows may take, all tables of one tenant together.
const MEMORY_PART: usize = 8;

/// Rows left behind, of tables that are still to be planned.
#[derive(Debug, Default)]
pub(super) struct LeftBehind {
    tables: BTreeMap<TableIndex, Vec<RowBatch>>,
    bytes: usize,
}

impl LeftBehind {
    /// Finds what belongs to these rows of a table that are to be created, and what belongs to
    /// that.
    pub(super) fn find(
        &mut self,
        context: Context<'_>,
        view: &dyn LiveView,
        table: TableIndex,
        created: &RowBatch,
    ) -> Result<(), Error> {
        let ask = |table, rows: &RowBatch| {
            view.left_behind(table, rows)
                .map_err(Error::store("look for rows that were left behind"))
        };
        let mut waiting = ask(table, created)?;
        while let Some((table, rows)) = waiting.pop() {
            context.check()?;
            self.bytes += rows.as_bytes().len();
            if self.bytes > context.resources.memory_bytes_max() / MEMORY_PART {
                let message = format!(
                    "more rows were left behind in {} than fit in memory: delete those that \
                     belong to nothing, or give more --memory",
                    view.schema().table(table).name
                );
                return Err(Error::new(ErrorKind::Refused, message));
            }
            waiting.extend(ask(table, &rows)?);
            self.tables.entry(table).or_default().push(rows);
        }
        Ok(())
    }

    /// The rows of one table, whose parents have all been planned.
    pub(super) fn take(&mut self, table: TableIndex) -> Returning {
        let batches = self.tables.remove(&table).unwrap_or_default();
        self.bytes -= batches
            .iter()
            .map(|rows| rows.as_bytes().len())
            .sum::<usize>();
        let mut copies: HashMap<Vec<u8>, u64> = HashMap::new();
        for row in batches.iter().flat_map(RowBatch::iter) {
            *copies.entry(row.body().to_vec()).or_insert(0) += 1;
        }
        Returning { batches, copies }
    }
}

/// Rows of one table that come back to the tenant by themselves.
#[derive(Debug, Default)]
pub(super) struct Returning {
    pub(super) batches: Vec<RowBatch>,
    copies: HashMap<Vec<u8>, u64>,
}

impl Returning {
    /// Whether a live row is one of them. Each counts once.
    pub(super) fn pass(&mut self, live: RowRef<'_>) -> bool {
        match self.copies.get_mut(live.body()) {
            Some(copies) if *copies > 0 => {
                *copies -= 1;
                true
            }
            _ => false,
        }
    }
}
