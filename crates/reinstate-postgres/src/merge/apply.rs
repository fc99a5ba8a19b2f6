//! The changes of a plan, statement by statement.
//!
//! Order: deletes, children before parents; then, parents before children, rows that are put
//! back and rows that are created; last the deletes that had to wait. In a table that refers to
//! itself, or that is part of a cycle, rows are created first, since one that is put back may refer
//! to them. What no order satisfies, such as two rows that swap a unique value, is the server's to
//! refuse.

mod followers;
mod put_back;
mod together;
mod twins;

pub(crate) use put_back::quiet_obstacles;
pub(crate) use together::together_obstacles;

use std::collections::{BTreeMap, BTreeSet};

use reinstate_core::{ChangeSource, ErrorKind, RowRole, StoreError, TableIndex, TenantId};

use super::counts::{Written, read_written};
use super::cycles::{Cycles, Doing};
use super::keepers::Keepers;
use super::sequences::RestoredValues;
use super::staging::{Stage, StageColumns, Staging};
use super::statements::Target;
use crate::catalog::{Catalog, get};
use crate::left_behind::can_be_left_behind;
use crate::owner::ownership;
use crate::session::Session;

/// Makes the changes and returns what the server counted. The tables in `guarded` have a guard that is
/// armed.
///
/// # Errors
/// `Refused` if a statement touched another number of rows than were sent; `Conflict` if a rule
/// of the tables is violated; `Contended` if somebody else came in the way.
pub(super) fn apply(
    session: &Session,
    catalog: &Catalog,
    tenant: &TenantId,
    changes: &dyn ChangeSource,
    guarded: &BTreeSet<TableIndex>,
    restored: &mut RestoredValues,
) -> Result<Written, StoreError> {
    let creating = Cycles::find(catalog, changes, Doing::Creating);
    let deleting = Cycles::find(catalog, changes, Doing::Deleting);
    let mut apply = Apply {
        staging: Staging {
            session,
            catalog,
            changes,
            stage_count: 0,
        },
        tenant,
        keepers: Keepers::new(catalog, changes),
        restored,
        waiting: Vec::new(),
        waiting_together: Vec::new(),
        creating: &creating,
        deleting: &deleting,
        loosened: BTreeMap::new(),
        to_tighten: Vec::new(),
        unchecked: Vec::new(),
        updates: BTreeMap::new(),
        moved: BTreeMap::new(),
        early: BTreeMap::new(),
        twins: BTreeMap::new(),
        dependents: Vec::new(),
        guarded,
        copied: Vec::new(),
    };
    session.run("defer what can be deferred", "SET CONSTRAINTS ALL DEFERRED")?;
    apply.stage_dependents()?;
    for table in deleting.loose_tables() {
        apply.loosen(table)?;
    }
    for step in deleting.steps().iter().rev() {
        match step.as_slice() {
            [table] => apply.delete(*table)?,
            tables => apply.delete_together(tables)?,
        }
    }
    for step in creating.steps() {
        apply.delete_returned(step)?;
        if let [table] = step.as_slice() {
            apply.update_twins(*table)?;
        }
        match step.as_slice() {
            [table] if creating.loose(*table).is_some() => apply.create(*table)?,
            [table] if apply.target(*table).refers_to_itself() => {
                apply.create_and_put_back(*table)?;
            }
            [table] => {
                apply.put_back(*table)?;
                apply.create(*table)?;
            }
            tables => apply.create_together(tables)?,
        }
    }
    apply.tighten()?;
    for step in creating.steps() {
        for &table in step {
            // It may refer to what was created after it.
            if step.len() > 1 || creating.loose(table).is_some() {
                apply.put_back(table)?;
            }
        }
    }
    apply.delete_waiting()?;
    apply.check_keys()?;
    session.run(
        "check the constraints of the tables",
        "SET CONSTRAINTS ALL IMMEDIATE",
    )?;
    let mut written = read_written(session, catalog)?;
    for (table, updates) in apply.updates {
        written.without_updates(&catalog.schema.table(table).name, updates)?;
    }
    for (table, rows) in apply.twins {
        written.as_made_anew(&catalog.schema.table(table).name, rows)?;
    }
    for (table, rows) in apply.moved {
        written.as_put_back(&catalog.schema.table(table).name, rows)?;
    }
    for table in apply.dependents {
        let nobodys = count_nobodys(session, catalog, table)?;
        written.left_to_nobody(catalog.tables[table.get()].oid, nobodys);
    }
    written.copied = apply.copied;
    Ok(written)
}

/// Statements for several tables, with the rows that each takes over.
type Parts = Vec<(TableIndex, Stage, String)>;

struct Apply<'a> {
    staging: Staging<'a>,
    tenant: &'a TenantId,
    keepers: Keepers<'a>,
    restored: &'a mut RestoredValues,
    /// Deletes with the number of rows that are still to be deleted.
    waiting: Vec<(TableIndex, Stage, u64)>,
    waiting_together: Vec<Parts>,
    creating: &'a Cycles,
    deleting: &'a Cycles,
    /// Rows to be deleted whose loose columns are NULL by now.
    loosened: BTreeMap<TableIndex, Stage>,
    /// Rows created with NULL in their loose columns.
    to_tighten: Vec<(TableIndex, Stage)>,
    /// Rows that were updated while the server checked no foreign keys.
    unchecked: Vec<(TableIndex, Stage)>,
    /// Updates beyond the plan.
    updates: BTreeMap<TableIndex, u64>,
    /// Rows put back that were deleted and made anew.
    moved: BTreeMap<TableIndex, u64>,
    /// Rows that were sent before their turn.
    early: BTreeMap<(TableIndex, u8), Stage>,
    /// Rows that are updated instead of being deleted and created, under a key that is equal.
    twins: BTreeMap<TableIndex, u64>,
    /// Tables whose rows may be written under parents that are deleted, and are nobody's then.
    dependents: Vec<TableIndex>,
    /// Tables whose guard is armed.
    guarded: &'a BTreeSet<TableIndex>,
    /// Those into which rows were copied without naming the tenant.
    copied: Vec<TableIndex>,
}

/// How many rows of a table this transaction wrote that find no parent, or only one that is nobody's.
fn count_nobodys(
    session: &Session,
    catalog: &Catalog,
    table: TableIndex,
) -> Result<u64, StoreError> {
    let (schema, relation) = catalog.table(table);
    let Some(owned) = ownership(catalog, table, "t") else {
        return Ok(0);
    };
    let (joins, owner) = owned.captured();
    let operation = format!("count rows of {} that are nobody's", schema.name);
    let sql = format!(
        "SELECT count(*) FROM {} AS t{joins}
          WHERE t.xmin = pg_current_xact_id()::xid AND coalesce({owner}, '') = ''",
        relation.sql_rows()
    );
    Ok(get::<i64>(&session.row(&operation, &sql, &[])?, 0)?.cast_unsigned())
}

impl<'a> Apply<'a> {
    fn target(&self, table: TableIndex) -> Target<'a> {
        Target {
            catalog: self.staging.catalog,
            table,
            tenant: self.tenant,
        }
    }

    /// Sends the rows that may be written under a parent which is deleted, as an undo does with rows
    /// that were nobody's: that one has to wait for them.
    fn stage_dependents(&mut self) -> Result<(), StoreError> {
        let (catalog, changes) = (self.staging.catalog, self.staging.changes);
        for &table in changes.tables() {
            let counts = changes.counts(table);
            if counts.created + counts.put_back == 0
                || !can_be_left_behind(catalog, table)
                || !has_deleted_ancestor(catalog, changes, table)
            {
                continue;
            }
            for (role, expected) in [
                (RowRole::Created, counts.created),
                (RowRole::PutBackAfter, counts.put_back),
            ] {
                if expected > 0 {
                    let stage = self.stage_whole(table, role, expected)?;
                    self.keepers.wait_for(table, &stage.name);
                    self.early.insert((table, role as u8), stage);
                }
            }
            self.dependents.push(table);
        }
        Ok(())
    }

    /// Deletes rows that became the tenant's because what they belong to is back, before others of
    /// their table are written, which may need their values.
    fn delete_returned(&mut self, step: &[TableIndex]) -> Result<(), StoreError> {
        let waits = |(table, _, _): &(TableIndex, Stage, u64)| step.contains(table);
        let changes = self.staging.changes;
        let is_written = |table: &TableIndex| {
            let counts = changes.counts(*table);
            counts.created + counts.put_back > 0
        };
        if !step.iter().any(is_written) || !self.waiting.iter().any(waits) {
            return Ok(());
        }
        // Noted children before parents.
        for (table, stage, expected) in std::mem::take(&mut self.waiting) {
            let target = self.target(table);
            if !can_be_left_behind(self.staging.catalog, table) {
                self.waiting.push((table, stage, expected));
                continue;
            }
            let operation = format!("delete rows of {}", target.schema().name);
            let sql = if target.schema().has_key() {
                target.delete(&stage, &self.keepers.conditions(table))?
            } else {
                target.delete_own_copies(&stage)?
            };
            let deleted = self.staging.session.execute(&operation, &sql, &[])?;
            let expected = expected.saturating_sub(deleted);
            if expected > 0 {
                self.waiting.push((table, stage, expected));
            }
        }
        Ok(())
    }

    /// Lets go of what rows to be deleted refer to, so that no order of deletes matters.
    fn loosen(&mut self, table: TableIndex) -> Result<(), StoreError> {
        let expected = self.staging.changes.counts(table).deleted;
        let Some(loose) = self.deleting.loose(table).filter(|_| expected > 0) else {
            return Ok(());
        };
        let stage = self.stage_deleted(table, expected)?;
        let target = self.target(table);
        let operation = format!("loosen rows of {}", target.schema().name);
        let sql = target.loosen(&stage, loose)?;
        let updated = self.update(table, &operation, &sql)?;
        *self.updates.entry(table).or_default() += updated;
        self.loosened.insert(table, stage);
        Ok(())
    }

    /// Gives rows that were created with NULL in their loose columns what belongs there.
    fn tighten(&mut self) -> Result<(), StoreError> {
        for (table, stage) in std::mem::take(&mut self.to_tighten) {
            let Some(loose) = self.creating.loose(table) else {
                continue;
            };
            let target = self.target(table);
            let operation = format!("tighten rows of {}", target.schema().name);
            let sql = target.tighten(&stage, loose)?;
            let updated = self.update(table, &operation, &sql)?;
            *self.updates.entry(table).or_default() += updated;
            if self.is_quiet(table) {
                self.unchecked.push((table, stage));
            } else {
                self.staging.discard(&stage)?;
            }
        }
        Ok(())
    }

    fn stage_deleted(&mut self, table: TableIndex, expected: u64) -> Result<Stage, StoreError> {
        let columns = if self.target(table).schema().has_key() {
            StageColumns::Key
        } else {
            StageColumns::All
        };
        let mut unseen = self.restored.of_none();
        self.staging
            .stage(table, RowRole::Deleted, columns, expected, &mut unseen)
    }

    fn delete(&mut self, table: TableIndex) -> Result<(), StoreError> {
        let expected = self.staging.changes.counts(table).deleted;
        if expected == 0 {
            return Ok(());
        }
        let stage = match self.loosened.remove(&table) {
            Some(stage) => stage,
            None => self.stage_deleted(table, expected)?,
        };
        let expected = self.spare_twins(table, &stage)?;
        let stage = Stage {
            row_count: expected,
            ..stage
        };
        let target = self.target(table);
        let operation = format!("delete rows of {}", target.schema().name);
        let session = self.staging.session;
        // A row that was left behind is the tenant's only when what it belongs to is back.
        let can_wait = can_be_left_behind(self.staging.catalog, table);
        if !target.schema().has_key() {
            if !can_wait {
                let deleted = session.execute(&operation, &target.delete_copies(&stage)?, &[])?;
                return self.settle(&operation, &stage, deleted);
            }
            let sql = target.delete_own_copies(&stage)?;
            let deleted = session.execute(&operation, &sql, &[])?;
            if deleted < expected {
                self.waiting.push((table, stage, expected - deleted));
                return Ok(());
            }
            return self.settle(&operation, &stage, deleted);
        }
        let keepers = self.keepers.conditions(table);
        let deleted = session.execute(&operation, &target.delete(&stage, &keepers)?, &[])?;
        if keepers.is_empty() && !can_wait || deleted == expected {
            return self.settle(&operation, &stage, deleted);
        }
        self.keepers.keep(table);
        self.waiting
            .push((table, stage, expected - deleted.min(expected)));
        Ok(())
    }

    fn delete_waiting(&mut self) -> Result<(), StoreError> {
        for parts in std::mem::take(&mut self.waiting_together) {
            self.run_together("delete", parts)?;
        }
        // Noted children before parents.
        for (table, stage, expected) in std::mem::take(&mut self.waiting) {
            let target = self.target(table);
            let operation = format!("delete rows of {}", target.schema().name);
            let sql = if target.schema().has_key() {
                target.delete(&stage, &[])?
            } else {
                target.delete_copies(&stage)?
            };
            let deleted = self.staging.session.execute(&operation, &sql, &[])?;
            let remaining = Stage {
                name: stage.name,
                row_count: expected,
            };
            self.settle(&operation, &remaining, deleted)?;
        }
        Ok(())
    }

    fn create(&mut self, table: TableIndex) -> Result<(), StoreError> {
        let expected = self.staging.changes.counts(table).created;
        if expected == 0 {
            return Ok(());
        }
        let target = self.target(table);
        let operation = format!("create rows of {}", target.schema().name);
        let loose = self.creating.loose(table);
        let is_sent = self.early.contains_key(&(table, RowRole::Created as u8));
        if loose.is_none()
            && !is_sent
            && let Some(copy) = self.copy(table)?
        {
            let mut seen = self.restored.of(target.relation());
            let created = self
                .staging
                .send_created(table, &copy, expected, &mut seen)?;
            return check_changed(&operation, expected, created);
        }
        let stage = self.stage_whole(table, RowRole::Created, expected)?;
        let created =
            self.staging
                .session
                .execute(&operation, &target.insert(&stage, loose)?, &[])?;
        if loose.is_some() {
            check_changed(&operation, stage.row_count, created)?;
            self.to_tighten.push((table, stage));
            return Ok(());
        }
        self.settle(&operation, &stage, created)
    }

    /// How rows to create go straight into a table, if they can. Where only a parent says whose they are,
    /// the guard asks that of all of them at the end of the statement, as INSERT would.
    fn copy(&mut self, table: TableIndex) -> Result<Option<String>, StoreError> {
        let target = self.target(table);
        let copy = target.copy()?;
        if copy.is_some() || !self.guarded.contains(&table) {
            return Ok(copy);
        }
        let copy = target.copy_all();
        if copy.is_some() {
            self.copied.push(table);
        }
        Ok(copy)
    }

    fn stage_whole(
        &mut self,
        table: TableIndex,
        role: RowRole,
        expected: u64,
    ) -> Result<Stage, StoreError> {
        if let Some(stage) = self.early.remove(&(table, role as u8)) {
            return Ok(stage);
        }
        let relation = &self.staging.catalog.tables[table.get()];
        let mut seen = self.restored.of(relation);
        self.staging
            .stage(table, role, StageColumns::All, expected, &mut seen)
    }

    /// Lets go of a stage whose rows were all taken over.
    fn settle(&self, operation: &str, stage: &Stage, changed: u64) -> Result<(), StoreError> {
        check_changed(operation, stage.row_count, changed)?;
        self.staging.discard(stage)
    }
}

/// Whether the way of a table's rows leads over one of which rows are deleted.
fn has_deleted_ancestor(catalog: &Catalog, changes: &dyn ChangeSource, table: TableIndex) -> bool {
    let mut ways = catalog.schema.table(table).tenancy.references();
    ways.any(|way| {
        changes.counts(way.parent).deleted > 0 || has_deleted_ancestor(catalog, changes, way.parent)
    })
}

fn check_changed(operation: &str, sent: u64, changed: u64) -> Result<(), StoreError> {
    if changed == sent {
        return Ok(());
    }
    let message = format!(
        "{operation}: the server changed {changed} of {sent} rows: the others are not the tenant's, \
         or a trigger or rule kept them. Nothing was committed"
    );
    Err(StoreError::new(ErrorKind::Refused, message))
}
