//! Rows of others that refer to what a plan deletes, or takes a value from.
//!
//! Their references are guarded by the store: it would refuse the merge, or change those rows with it.
//! They are nobody's to write in a restore, so that a plan names what refers to them and cannot be
//! applied.

use std::collections::BTreeMap;

use reinstate_core::{LiveView, RowBatch, RowRef, TableIndex, TenantId};
use reinstate_format::{NoteKind, PlanNote};

use crate::Error;

/// What is found out about one table's rows.
#[derive(Debug, Default)]
pub(super) struct Dependents {
    /// Rows to delete of which it is not known yet what refers to them.
    to_delete: RowBatch,
    /// How many rows each reference holds, by what it is and what it would do.
    found: BTreeMap<(String, String), u64>,
}

impl Dependents {
    /// Notes a row that is deleted.
    pub(super) fn delete(
        &mut self,
        view: &dyn LiveView,
        (tenant, table): (&TenantId, TableIndex),
        row: RowRef<'_>,
    ) -> Result<(), Error> {
        self.to_delete.push_row(row);
        if self.to_delete.as_bytes().len() >= RowBatch::TARGET_BYTES {
            self.ask_deleted(view, (tenant, table))?;
        }
        Ok(())
    }

    /// Asks what refers to the rows that are deleted, as far as it was not asked.
    pub(super) fn ask_deleted(
        &mut self,
        view: &dyn LiveView,
        (tenant, table): (&TenantId, TableIndex),
    ) -> Result<(), Error> {
        let mut rows = std::mem::take(&mut self.to_delete);
        self.ask(view, (tenant, table), &rows, None)?;
        rows.clear();
        self.to_delete = rows;
        Ok(())
    }

    /// Asks what refers to rows that become others, or go.
    pub(super) fn ask(
        &mut self,
        view: &dyn LiveView,
        (tenant, table): (&TenantId, TableIndex),
        before: &RowBatch,
        after: Option<&RowBatch>,
    ) -> Result<(), Error> {
        if before.is_empty() {
            return Ok(());
        }
        let found = view
            .held_in_place(tenant, table, before, after)
            .map_err(Error::store("look for rows that refer to what goes"))?;
        for held in found {
            *self.found.entry((held.object, held.detail)).or_insert(0) += held.row_count;
        }
        Ok(())
    }

    pub(super) fn into_notes(self) -> impl Iterator<Item = PlanNote> {
        self.found
            .into_iter()
            .map(|((object, detail), count)| PlanNote {
                kind: NoteKind::EffectRefused,
                object,
                detail,
                count,
            })
    }
}
