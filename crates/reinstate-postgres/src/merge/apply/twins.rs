//! Rows that come back under a key that is equal to the server and written otherwise: 1.0 where 1.00 is
//! live, or `Ab` where `aB` is, without regard to case.
//!
//! To a plan they are a row to delete and another one to create. Where others refer to such a row by a key
//! that cannot wait, or acts when the row goes, it cannot be deleted first. It is updated instead, its key
//! included: to the server the key stays what it is, and what refers to it does not notice.

use reinstate_core::{RowRole, StoreError, TableIndex};

use super::{Apply, check_changed};
use crate::left_behind::can_be_left_behind;
use crate::merge::staging::Stage;

impl Apply<'_> {
    /// Takes such rows out of those to delete, and returns how many are left.
    pub(super) fn spare_twins(
        &mut self,
        table: TableIndex,
        doomed: &Stage,
    ) -> Result<u64, StoreError> {
        let created = self.staging.changes.counts(table).created;
        if created == 0 || !self.has_twins(table) {
            return Ok(doomed.row_count);
        }
        let target = self.target(table);
        let operation = format!("look for rows of {} under equal keys", target.schema().name);
        let made = self.stage_whole(table, RowRole::Created, created)?;
        let sql = format!(
            "DELETE FROM {} AS t USING {} AS s WHERE {}",
            doomed.name,
            made.name,
            target.same_key("t", "s")
        );
        let spared = self.staging.session.execute(&operation, &sql, &[])?;
        self.early.insert((table, RowRole::Created as u8), made);
        if spared > 0 {
            self.twins.insert(table, spared);
        }
        Ok(doomed.row_count.saturating_sub(spared))
    }

    /// Gives the rows that were spared what their twins hold, and takes those out of the rows to create.
    pub(super) fn update_twins(&mut self, table: TableIndex) -> Result<(), StoreError> {
        let Some(&spared) = self.twins.get(&table) else {
            return Ok(());
        };
        let early = (table, RowRole::Created as u8);
        let Some(mut made) = self.early.remove(&early) else {
            return Ok(());
        };
        let target = self.target(table);
        let operation = format!(
            "put rows of {} under their keys again",
            target.schema().name
        );
        let sql = target.update_whole(&made)?;
        let updated = self.staging.session.execute(&operation, &sql, &[])?;
        check_changed(&operation, spared, updated)?;
        made.row_count -= spared;
        self.early.insert(early, made);
        Ok(())
    }

    /// Whether rows of the table can have equal keys that are written otherwise, and something would be
    /// in the way of deleting one.
    fn has_twins(&self, table: TableIndex) -> bool {
        let catalog = self.staging.catalog;
        let (schema, relation) = catalog.table(table);
        let keys = || {
            let keys = catalog.foreign_keys.iter();
            keys.filter(|key| key.reference.parent == table)
        };
        // What follows a key takes it over as it is written, in rows that the plan does not have.
        let in_the_way = keys().any(|key| !key.is_deferrable || key.acts_on_delete)
            && !keys().any(|key| key.acts_on_update);
        let is_alone = |steps: &[Vec<TableIndex>]| steps.contains(&vec![table]);
        in_the_way
            && schema.has_key()
            && !relation.has_exact_key(schema)
            && !can_be_left_behind(catalog, table)
            && is_alone(self.creating.steps())
            && is_alone(self.deleting.steps())
            && self.creating.loose(table).is_none()
            && self.deleting.loose(table).is_none()
            && relation
                .triggers
                .iter()
                .all(|trigger| !trigger.on_update || trigger.is_allowed)
    }
}
