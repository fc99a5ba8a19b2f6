//! Rows that are put back, and what has to happen beside it.
//!
//! A unique value can be on its way from one row to another: positions of a list that were shifted,
//! two names that were swapped. The server checks most unique indexes row by row, in an order that
//! nobody can choose. Rows that hold what another one gets are therefore deleted and made anew with
//! their values, in the same statement that updates the others: at its end every key that others refer
//! to is there again, which is when foreign keys are looked at. In a table that refers to itself the
//! rows to be created are made by that statement too, since they may take a value that is given up,
//! and rows that are put back may refer to them.

use reinstate_core::{ChangeSource, ErrorKind, RowRole, SideEffect, StoreError, TableIndex};
use tokio_postgres::types::Type;

use super::{Apply, check_changed};
use crate::catalog::{Catalog, get};
use crate::merge::moving::{self, Moving};
use crate::merge::staging::Stage;
use crate::obstacles::{may_lock, refused};
use crate::session::Session;

/// What the right to keep triggers still is asked for with.
const SILENCE: &str = "keep triggers still (GRANT SET ON PARAMETER session_replication_role)";

/// A place among the deletes that wait, and what waited there.
type Doomed = (usize, (TableIndex, Stage, u64));

/// What keeps rows of these tables from being put back while triggers keep still, as the map wants
/// it.
pub(crate) fn quiet_obstacles(
    session: &Session,
    catalog: &Catalog,
    changes: &dyn ChangeSource,
) -> Result<Vec<SideEffect>, StoreError> {
    let mut found = Vec::new();
    for &table in changes.tables() {
        let (schema, relation) = catalog.table(table);
        if changes.counts(table).put_back == 0 || !relation.is_put_back_quietly() {
            continue;
        }
        let object = || format!("table {}", schema.name);
        if let Some(reason) = quiet_obstacle(session, catalog, table)? {
            found.push(refused(object(), reason));
        }
        let sql = "SELECT has_parameter_privilege('session_replication_role', 'SET')";
        if !get::<bool>(&session.row("check what the role may set", sql, &[])?, 0)? {
            let detail = "the role may not keep triggers still: GRANT SET ON PARAMETER \
                          session_replication_role to it";
            found.push(refused(object(), detail));
        }
        for key in catalog.foreign_keys.iter().filter(|key| key.child == table) {
            let parent = key.reference.parent;
            if !may_lock(session, catalog.tables[parent.get()].oid)? {
                let detail = format!(
                    "the role may not lock the rows of {} that rows put back quietly refer to: run what \
                     `reinstate guard role` prints, or GRANT UPDATE on it, of one column at least",
                    catalog.schema.table(parent).name
                );
                found.push(refused(object(), detail));
            }
        }
    }
    Ok(found)
}

/// Why rows of a table cannot be put back while triggers keep still.
fn quiet_obstacle(
    session: &Session,
    catalog: &Catalog,
    table: TableIndex,
) -> Result<Option<String>, StoreError> {
    let schema = catalog.schema.table(table);
    let refers_to_more = catalog.foreign_keys.iter().find(|key| {
        let mut columns = key.reference.parent_columns.iter();
        key.reference.parent == table && columns.any(|column| !schema.key.contains(column))
    });
    if let Some(key) = refers_to_more {
        return Ok(Some(format!(
            "foreign key {} refers to columns outside of the key, which cannot be checked while \
             triggers keep still",
            key.name
        )));
    }
    // What can be deferred is checked by triggers, and others are made for this very mode.
    let sql = "SELECT conname::text FROM pg_constraint
          WHERE conrelid = $1 AND condeferrable AND contype IN ('p', 'u', 'x')
          UNION ALL
         SELECT tgname::text FROM pg_trigger WHERE tgrelid = $1 AND tgenabled = 'R'";
    let oid = catalog.tables[table.get()].oid;
    let operation = "look at what keeps still with triggers";
    let found = session.rows(operation, sql, &[(&oid, Type::OID)])?;
    let name: Option<String> = found.first().map(|row| get(row, 0)).transpose()?;
    Ok(name.map(|name| {
        format!(
            "{name} can be deferred, or fires only for replicas, so that it would not be checked, \
             or would fire, while triggers keep still. Take the table's triggers out of \
             silenced_triggers"
        )
    }))
}

impl Apply<'_> {
    pub(super) fn put_back(&mut self, table: TableIndex) -> Result<(), StoreError> {
        let expected = self.staging.changes.counts(table).put_back;
        if expected == 0 {
            return Ok(());
        }
        self.put_back_with(table, None)
    }

    /// Creates rows and puts others back, of a table whose rows may refer to both.
    pub(super) fn create_and_put_back(&mut self, table: TableIndex) -> Result<(), StoreError> {
        let counts = self.staging.changes.counts(table);
        if counts.created == 0 || counts.put_back == 0 || self.is_quiet(table) {
            self.create(table)?;
            return self.put_back(table);
        }
        let made = self.stage_whole(table, RowRole::Created, counts.created)?;
        self.put_back_with(table, Some(&made))
    }

    fn put_back_with(&mut self, table: TableIndex, made: Option<&Stage>) -> Result<(), StoreError> {
        let expected = self.staging.changes.counts(table).put_back;
        let target = self.target(table);
        let operation = format!("put back rows of {}", target.schema().name);
        if !target.schema().has_key() {
            let message = format!("{operation}: a table without a key has none to put back");
            return Err(StoreError::new(ErrorKind::Corrupt, message));
        }
        let stage = self.stage_whole(table, RowRole::PutBackAfter, expected)?;
        let givers = self.find_givers(table, &stage)?;
        self.count_followers(table, &stage, givers.as_ref())?;
        let doomed = self.take_doomed(table)?;
        if givers.is_none() && made.is_none() && doomed.is_none() {
            let put_back = self.update(table, &operation, &target.update(&stage)?)?;
            check_changed(&operation, stage.row_count, put_back)?;
        } else {
            let parts = Moving {
                stage: &stage,
                givers: givers.as_ref(),
                doomed: doomed.as_ref().map(|(_, (_, stage, _))| stage),
                made,
            };
            let deleted = self.at_once(table, &operation, &parts)?;
            if let Some((place, (_, doomed, expected))) = doomed
                && deleted < expected
            {
                // Children stay before parents.
                let rest = (table, doomed, expected - deleted);
                self.waiting.insert(place, rest);
            }
        }
        let session = self.staging.session;
        if let Some(sql) = target.count_unlike(&stage)
            && get::<i64>(&session.row(&operation, &sql, &[])?, 0)? > 0
        {
            let message = format!(
                "{operation}: a column GENERATED ALWAYS AS IDENTITY has another value, and the \
                 server lets nobody change it"
            );
            return Err(StoreError::new(ErrorKind::Refused, message));
        }
        if let Some(made) = made {
            self.staging.discard(made)?;
        }
        if self.is_quiet(table) {
            // Its keys are still to be checked against the stage.
            self.unchecked.push((table, stage));
            return Ok(());
        }
        self.staging.discard(&stage)
    }

    /// Rows that are to be deleted and wait for nothing but others of the same table to let go of
    /// them, with their place among those that wait.
    fn take_doomed(&mut self, table: TableIndex) -> Result<Option<Doomed>, StoreError> {
        let target = self.target(table);
        let waits = |(other, _, _): &(TableIndex, Stage, u64)| *other == table;
        let place = self.waiting.iter().position(waits);
        let Some(place) = place.filter(|_| target.refers_to_itself() && !self.is_quiet(table))
        else {
            return Ok(None);
        };
        let keepers = self.keepers.conditions_of_others(table);
        if !keepers.is_empty() {
            let operation = format!("look for rows of {} that wait", target.schema().name);
            let sql = format!(
                "SELECT EXISTS (SELECT FROM {} AS t JOIN {} AS s ON {} WHERE {})",
                target.relation().sql_rows(),
                self.waiting[place].1.name,
                target.same_key("t", "s"),
                keepers.join(" OR ")
            );
            // One that has to stay may refer to one that need not.
            if get(&self.staging.session.row(&operation, &sql, &[])?, 0)? {
                return Ok(None);
            }
        }
        Ok(Some((place, self.waiting.remove(place))))
    }

    /// One statement for rows that are put back, those of them that give a value up, rows that are
    /// created, and rows that waited to be deleted: returns how many of those are.
    fn at_once(
        &mut self,
        table: TableIndex,
        operation: &str,
        parts: &Moving<'_>,
    ) -> Result<u64, StoreError> {
        let target = self.target(table);
        let sql = parts.statement(target)?;
        self.fall_silent(table, operation)?;
        let row = self.staging.session.row(operation, &sql, &[])?;
        self.wake(table)?;
        let given = parts.givers.map_or(0, |givers| givers.row_count);
        let made = parts.made.map_or(0, |made| made.row_count);
        let expected = [given, parts.stage.row_count - given, given, made];
        for (place, expected) in expected.into_iter().enumerate() {
            check_changed(
                operation,
                expected,
                get::<i64>(&row, place)?.cast_unsigned(),
            )?;
        }
        if given > 0 {
            *self.moved.entry(table).or_default() += given;
        }
        Ok(get::<i64>(&row, 4)?.cast_unsigned())
    }

    /// The keys of rows to be put back that hold a unique value which another of them gets.
    fn find_givers(
        &mut self,
        table: TableIndex,
        stage: &Stage,
    ) -> Result<Option<Stage>, StoreError> {
        let target = self.target(table);
        let Some(sql) = moving::givers(target, stage) else {
            return Ok(None);
        };
        let operation = format!("look for values that move in {}", target.schema().name);
        let session = self.staging.session;
        let count = format!("SELECT count(*) FROM ({sql}) g");
        let row_count = get::<i64>(&session.row(&operation, &count, &[])?, 0)?.cast_unsigned();
        if row_count == 0 {
            return Ok(None);
        }
        if let Some(reason) = moving::obstacle(target.catalog, table) {
            let message = format!(
                "{operation}: {row_count} rows hold what others get, or a value that only the server \
                 may update: {reason}"
            );
            return Err(StoreError::new(ErrorKind::Conflict, message));
        }
        self.staging.stage_count += 1;
        let name = format!("pg_temp.reinstate_stage_{}", self.staging.stage_count);
        let create = format!("CREATE TEMPORARY TABLE {name} ON COMMIT DROP AS {sql}");
        session.run(&operation, &create)?;
        Ok(Some(Stage { name, row_count }))
    }

    pub(super) fn is_quiet(&self, table: TableIndex) -> bool {
        self.target(table).relation().is_put_back_quietly()
    }

    /// Updates rows of a table. If one of its triggers has to keep still, all do, and so do the
    /// server's checks of foreign keys.
    pub(super) fn update(
        &self,
        table: TableIndex,
        operation: &str,
        sql: &str,
    ) -> Result<u64, StoreError> {
        let session = self.staging.session;
        if !self.is_quiet(table) {
            return session.execute(operation, sql, &[]);
        }
        self.fall_silent(table, operation)?;
        let updated = session.execute(operation, sql, &[])?;
        self.wake(table)?;
        Ok(updated)
    }

    /// Keeps triggers still, if one of the table's has to.
    fn fall_silent(&self, table: TableIndex, operation: &str) -> Result<(), StoreError> {
        if !self.is_quiet(table) {
            return Ok(());
        }
        let session = self.staging.session;
        if let Some(reason) = quiet_obstacle(session, self.staging.catalog, table)? {
            let message = format!("{operation}: {reason}");
            return Err(StoreError::new(ErrorKind::Refused, message));
        }
        let silence = "SET LOCAL session_replication_role = replica";
        session.run(SILENCE, silence)
    }

    /// Lets triggers fire again.
    fn wake(&self, table: TableIndex) -> Result<(), StoreError> {
        if !self.is_quiet(table) {
            return Ok(());
        }
        let session = self.staging.session;
        session.run(SILENCE, "SET LOCAL session_replication_role = origin")
    }

    /// Checks the foreign keys that the server did not.
    pub(super) fn check_keys(&mut self) -> Result<(), StoreError> {
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
}
