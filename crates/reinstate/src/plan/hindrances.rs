//! What the store would not let a plan do to rows.
//!
//! Rows of others refer to what is deleted, or to a value that is taken away, by a reference that the
//! store guards: it would refuse the merge, or change those rows with it, which are nobody's to write in
//! a restore. And rows of a snapshot may break a rule that is younger than they are. Either way a plan
//! names it and cannot be applied.

use std::collections::BTreeMap;
use std::sync::Arc;

use reinstate_core::{Hindrance, LiveView, RowBatch, RowRef, TableIndex, TenantId};
use reinstate_format::{NoteKind, PlanNote};

use super::turns::Wait;
use crate::Error;

/// What is found out about one table's rows.
#[derive(Debug, Default)]
pub(super) struct Hindrances {
    /// Rows to delete of which it is not known yet what refers to them.
    to_delete: RowBatch,
    /// How many rows each concerns, by what it is, what it would do and whose rows they are.
    found: BTreeMap<(String, String, Option<TenantId>), u64>,
    /// The tenants that the same plan restores.
    pub(super) beside: Arc<[TenantId]>,
}

impl Hindrances {
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
            .held_in_place(tenant, table, before, after, &self.beside)
            .map_err(Error::store("look for rows that refer to what goes"))?;
        self.keep(found);
        Ok(())
    }

    /// Asks whether the table takes these rows.
    pub(super) fn ask_taken(
        &mut self,
        view: &dyn LiveView,
        table: TableIndex,
        rows: &RowBatch,
        was_changed: bool,
    ) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let found = view
            .not_taken(table, rows, was_changed)
            .map_err(Error::store("look whether rows are taken"))?;
        self.keep(found);
        Ok(())
    }

    fn keep(&mut self, found: Vec<Hindrance>) {
        for hindrance in found {
            let place = (hindrance.object, hindrance.detail, hindrance.of);
            *self.found.entry(place).or_insert(0) += hindrance.row_count;
        }
    }

    /// Takes out what tenants have to be restored before this one for.
    pub(super) fn take_waits(&mut self, tenant: &TenantId) -> Vec<Wait> {
        let all = std::mem::take(&mut self.found);
        let mut waits = Vec::new();
        for ((object, detail, of), row_count) in all {
            let Some(first) = of else {
                self.found.insert((object, detail, None), row_count);
                continue;
            };
            let what = Hindrance {
                object,
                detail,
                row_count,
                of: None,
            };
            waits.push(Wait::new(tenant, first, what));
        }
        waits
    }

    pub(super) fn into_notes(self) -> impl Iterator<Item = PlanNote> {
        self.found
            .into_iter()
            .map(|((object, detail, _), count)| PlanNote {
                kind: NoteKind::EffectRefused,
                object,
                detail,
                count,
            })
    }
}
