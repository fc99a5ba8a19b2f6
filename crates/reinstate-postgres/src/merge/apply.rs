//! The changes of a plan, statement by statement.
//!
//! Order: deletes, children before parents; then, parents before children, rows that are put
//! back and rows that are created; last the deletes that had to wait. In a table that refers to
//! itself, or that is part of a cycle, rows are created first, since one that is put back may refer
//! to them. What no order satisfies, such as two rows that swap a unique value, is the server's to
//! refuse.

use std::collections::BTreeMap;

use reinstate_core::{ChangeSource, ErrorKind, RowRole, StoreError, TableIndex, TenantId};

use tokio_postgres::types::Type;

use super::counts::{Written, read_written};
use super::cycles::Cycles;
use super::keepers::Keepers;
use super::sequences::RestoredValues;
use super::staging::{Stage, StageColumns, Staging};
use super::statements::Target;
use crate::catalog::{Catalog, get};
use crate::left_behind::can_be_left_behind;
use crate::session::Session;

/// Makes the changes and returns what the server counted.
///
/// # Errors
/// `Refused` if a statement touched another number of rows than were sent; `Conflict` if a rule
/// of the tables is violated; `Contended` if somebody else came in the way.
pub(super) fn apply(
    session: &Session,
    catalog: &Catalog,
    tenant: &TenantId,
    changes: &dyn ChangeSource,
    restored: &mut RestoredValues,
) -> Result<Written, StoreError> {
    let cycles = Cycles::find(catalog, changes);
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
        cycles: &cycles,
        loosened: BTreeMap::new(),
        to_tighten: Vec::new(),
        unchecked: Vec::new(),
        updates: BTreeMap::new(),
    };
    session.run("defer what can be deferred", "SET CONSTRAINTS ALL DEFERRED")?;
    for table in cycles.loose_tables() {
        apply.loosen(table)?;
    }
    for step in cycles.steps().iter().rev() {
        match step.as_slice() {
            [table] => apply.delete(*table)?,
            tables => apply.delete_together(tables)?,
        }
    }
    for step in cycles.steps() {
        match step.as_slice() {
            [table] if cycles.loose(*table).is_some() => apply.create(*table)?,
            [table] if apply.target(*table).refers_to_itself() => {
                apply.create(*table)?;
                apply.put_back(*table)?;
            }
            [table] => {
                apply.put_back(*table)?;
                apply.create(*table)?;
            }
            tables => apply.create_together(tables)?,
        }
    }
    apply.tighten()?;
    for step in cycles.steps() {
        for &table in step {
            // It may refer to what was created after it.
            if step.len() > 1 || cycles.loose(table).is_some() {
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
    cycles: &'a Cycles,
    /// Rows to be deleted whose loose columns are NULL by now.
    loosened: BTreeMap<TableIndex, Stage>,
    /// Rows created with NULL in their loose columns.
    to_tighten: Vec<(TableIndex, Stage)>,
    /// Rows that were updated while the server checked no foreign keys.
    unchecked: Vec<(TableIndex, Stage)>,
    /// Updates beyond the plan.
    updates: BTreeMap<TableIndex, u64>,
}

impl<'a> Apply<'a> {
    fn target(&self, table: TableIndex) -> Target<'a> {
        Target {
            catalog: self.staging.catalog,
            table,
            tenant: self.tenant,
        }
    }

    /// Lets go of what rows to be deleted refer to, so that no order of deletes matters.
    fn loosen(&mut self, table: TableIndex) -> Result<(), StoreError> {
        let expected = self.staging.changes.counts(table).deleted;
        let Some(loose) = self.cycles.loose(table).filter(|_| expected > 0) else {
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
            let Some(loose) = self.cycles.loose(table) else {
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

    fn put_back(&mut self, table: TableIndex) -> Result<(), StoreError> {
        let expected = self.staging.changes.counts(table).put_back;
        if expected == 0 {
            return Ok(());
        }
        let target = self.target(table);
        let operation = format!("put back rows of {}", target.schema().name);
        if !target.schema().has_key() {
            let message = format!("{operation}: a table without a key has none to put back");
            return Err(StoreError::new(ErrorKind::Corrupt, message));
        }
        let stage = self.stage_whole(table, RowRole::PutBackAfter, expected)?;
        let session = self.staging.session;
        let put_back = self.update(table, &operation, &target.update(&stage)?)?;
        if let Some(sql) = target.count_unlike(&stage)
            && get::<i64>(&session.row(&operation, &sql, &[])?, 0)? > 0
        {
            let message = format!(
                "{operation}: a column GENERATED ALWAYS AS IDENTITY has another value, and the \
                 server lets nobody change it"
            );
            return Err(StoreError::new(ErrorKind::Refused, message));
        }
        if self.is_quiet(table) {
            // Its keys are still to be checked against the stage.
            check_changed(&operation, stage.row_count, put_back)?;
            self.unchecked.push((table, stage));
            return Ok(());
        }
        self.settle(&operation, &stage, put_back)
    }

    fn is_quiet(&self, table: TableIndex) -> bool {
        self.target(table).relation().is_put_back_quietly()
    }

    /// Updates rows of a table. If one of its triggers has to keep still, all do, and so do the
    /// server's checks of foreign keys.
    fn update(&self, table: TableIndex, operation: &str, sql: &str) -> Result<u64, StoreError> {
        let session = self.staging.session;
        if !self.is_quiet(table) {
            return session.execute(operation, sql, &[]);
        }
        let catalog = self.staging.catalog;
        let schema = catalog.schema.table(table);
        let refers_to_more = catalog.foreign_keys.iter().find(|key| {
            let mut columns = key.reference.parent_columns.iter();
            key.reference.parent == table && columns.any(|column| !schema.key.contains(column))
        });
        if let Some(key) = refers_to_more {
            let message = format!(
                "{operation}: foreign key {} refers to columns outside of the key, which cannot be \
                 checked while triggers keep still",
                key.name
            );
            return Err(StoreError::new(ErrorKind::Refused, message));
        }
        // What can be deferred is checked by triggers, and others are made for this very mode.
        let sql_of_obstacles = "SELECT conname::text FROM pg_constraint
              WHERE conrelid = $1 AND condeferrable AND contype IN ('p', 'u', 'x')
              UNION ALL
             SELECT tgname::text FROM pg_trigger WHERE tgrelid = $1 AND tgenabled = 'R'";
        let oid = catalog.tables[table.get()].oid;
        let found = session.rows(operation, sql_of_obstacles, &[(&oid, Type::OID)])?;
        if let Some(row) = found.first() {
            let name: String = get(row, 0)?;
            let message = format!(
                "{operation}: {name} can be deferred, or fires only for replicas, so that it would \
                 not be checked, or would fire, while triggers keep still. Take the table's \
                 triggers out of silenced_triggers"
            );
            return Err(StoreError::new(ErrorKind::Refused, message));
        }
        let silence = "SET LOCAL session_replication_role = replica";
        let operation_of = "keep triggers still (GRANT SET ON PARAMETER session_replication_role)";
        session.run(operation_of, silence)?;
        let updated = session.execute(operation, sql, &[])?;
        session.run(operation_of, "SET LOCAL session_replication_role = origin")?;
        Ok(updated)
    }

    /// Checks the foreign keys that the server did not.
    fn check_keys(&mut self) -> Result<(), StoreError> {
        for (table, stage) in std::mem::take(&mut self.unchecked) {
            let catalog = self.staging.catalog;
            for key in catalog.foreign_keys.iter().filter(|key| key.child == table) {
                let operation = format!("check foreign key {}", key.name);
                let sql = self.target(table).count_orphans(&stage, key);
                let row = self.staging.session.row(&operation, &sql, &[])?;
                let orphans: i64 = get(&row, 1)?;
                if orphans > 0 {
                    let message = format!(
                        "{operation}: {orphans} rows of {} refer to rows that are not there",
                        catalog.schema.table(table).name
                    );
                    return Err(StoreError::new(ErrorKind::Conflict, message));
                }
            }
            self.staging.discard(&stage)?;
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
        let loose = self.cycles.loose(table);
        if loose.is_none()
            && let Some(copy) = target.copy()?
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

    /// Deletes rows of several tables that refer to each other.
    fn delete_together(&mut self, tables: &[TableIndex]) -> Result<(), StoreError> {
        let deleted = |table: &TableIndex| self.staging.changes.counts(*table).deleted;
        let tables: Vec<TableIndex> = tables.iter().copied().filter(|t| deleted(t) > 0).collect();
        if let [table] = tables.as_slice() {
            return self.delete(*table);
        }
        let mut parts = Vec::new();
        for table in tables {
            let expected = self.staging.changes.counts(table).deleted;
            let stage = match self.loosened.remove(&table) {
                Some(stage) => stage,
                None => self.stage_deleted(table, expected)?,
            };
            let target = self.target(table);
            let sql = if target.schema().has_key() {
                target.delete(&stage, &[])?
            } else {
                target.delete_copies(&stage)?
            };
            parts.push((table, stage, sql));
        }
        let mut tables = parts.iter().map(|(table, _, _)| *table);
        if tables.all(|table| self.keepers.conditions(table).is_empty()) {
            return self.run_together("delete", parts);
        }
        for (table, _, _) in &parts {
            self.keepers.keep(*table);
        }
        self.waiting_together.push(parts);
        Ok(())
    }

    /// Creates rows of several tables that refer to each other.
    fn create_together(&mut self, tables: &[TableIndex]) -> Result<(), StoreError> {
        let created = |table: &TableIndex| self.staging.changes.counts(*table).created;
        let tables: Vec<TableIndex> = tables.iter().copied().filter(|t| created(t) > 0).collect();
        if let [table] = tables.as_slice() {
            return self.create(*table);
        }
        let mut parts = Vec::new();
        for table in tables {
            let expected = self.staging.changes.counts(table).created;
            let stage = self.stage_whole(table, RowRole::Created, expected)?;
            let sql = self
                .target(table)
                .insert(&stage, self.cycles.loose(table))?;
            parts.push((table, stage, sql));
        }
        self.run_together("create", parts)
    }

    /// Runs one statement for several tables: the server checks their keys at its end.
    fn run_together(&mut self, verb: &str, parts: Parts) -> Result<(), StoreError> {
        if parts.is_empty() {
            return Ok(());
        }
        let mut names = Vec::new();
        for (table, _, _) in &parts {
            let target = self.target(*table);
            names.push(target.schema().name.as_str());
            if !target.is_owned_by_row_alone()? {
                let message = format!(
                    "{verb} rows of {}: foreign keys that can neither wait nor be NULL lead back \
                     to it, and whose its rows are is another table's to say. Make one of those \
                     keys DEFERRABLE",
                    target.schema().name
                );
                return Err(StoreError::new(ErrorKind::Refused, message));
            }
        }
        let operation = format!("{verb} rows of {} together", names.join(", "));
        let part = |(place, (_, _, sql)): (usize, &(TableIndex, Stage, String))| {
            format!("part_{place} AS ({sql} RETURNING 1)")
        };
        let statements: Vec<String> = parts.iter().enumerate().map(part).collect();
        let counts = (0..parts.len()).map(|place| format!("(SELECT count(*) FROM part_{place})"));
        let sql = format!(
            "WITH {} SELECT {}",
            statements.join(", "),
            counts.collect::<Vec<_>>().join(", ")
        );
        let row = self.staging.session.row(&operation, &sql, &[])?;
        for (place, (table, stage, _)) in parts.into_iter().enumerate() {
            let changed = get::<i64>(&row, place)?.cast_unsigned();
            check_changed(&operation, stage.row_count, changed)?;
            if verb == "create" && self.cycles.loose(table).is_some() {
                self.to_tighten.push((table, stage));
            } else {
                self.staging.discard(&stage)?;
            }
        }
        Ok(())
    }

    fn stage_whole(
        &mut self,
        table: TableIndex,
        role: RowRole,
        expected: u64,
    ) -> Result<Stage, StoreError> {
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
