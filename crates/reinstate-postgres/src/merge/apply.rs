//! The changes of a plan, statement by statement.
//!
//! Order: deletes, children before parents; then, parents before children, rows that are put
//! back and rows that are created; last the deletes that had to wait. In a table that refers to
//! itself rows are created first, since one that is put back may refer to them. What no order
//! satisfies, such as two rows that swap a unique value, is the server's to refuse.

use reinstate_core::{ChangeSource, ErrorKind, RowRole, StoreError, TableIndex, TenantId};

use super::counts::{Written, read_written};
use super::keepers::Keepers;
use super::sequences::RestoredValues;
use super::staging::{Stage, StageColumns, Staging};
use super::statements::Target;
use crate::catalog::{Catalog, get};
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
    };
    session.run("defer what can be deferred", "SET CONSTRAINTS ALL DEFERRED")?;
    for &table in changes.tables().iter().rev() {
        apply.delete(table)?;
    }
    for &table in changes.tables() {
        if apply.target(table).refers_to_itself() {
            apply.create(table)?;
            apply.put_back(table)?;
        } else {
            apply.put_back(table)?;
            apply.create(table)?;
        }
    }
    apply.delete_waiting()?;
    session.run(
        "check the constraints of the tables",
        "SET CONSTRAINTS ALL IMMEDIATE",
    )?;
    read_written(session, catalog)
}

struct Apply<'a> {
    staging: Staging<'a>,
    tenant: &'a TenantId,
    keepers: Keepers<'a>,
    restored: &'a mut RestoredValues,
    /// Deletes with the number of rows that are still to be deleted.
    waiting: Vec<(TableIndex, Stage, u64)>,
}

impl<'a> Apply<'a> {
    fn target(&self, table: TableIndex) -> Target<'a> {
        Target {
            catalog: self.staging.catalog,
            table,
            tenant: self.tenant,
        }
    }

    fn delete(&mut self, table: TableIndex) -> Result<(), StoreError> {
        let expected = self.staging.changes.counts(table).deleted;
        if expected == 0 {
            return Ok(());
        }
        let target = self.target(table);
        let columns = if target.schema().has_key() {
            StageColumns::Key
        } else {
            StageColumns::All
        };
        let mut unseen = self.restored.of_none();
        let stage = self
            .staging
            .stage(table, RowRole::Deleted, columns, expected, &mut unseen)?;
        drop(unseen);
        let operation = format!("delete rows of {}", target.schema().name);
        let session = self.staging.session;
        if !target.schema().has_key() {
            let deleted = session.execute(&operation, &target.delete_copies(&stage)?, &[])?;
            return self.settle(&operation, &stage, deleted);
        }
        let keepers = self.keepers.conditions(table);
        let deleted = session.execute(&operation, &target.delete(&stage, &keepers)?, &[])?;
        if keepers.is_empty() || deleted == expected {
            return self.settle(&operation, &stage, deleted);
        }
        self.keepers.keep(table);
        self.waiting
            .push((table, stage, expected - deleted.min(expected)));
        Ok(())
    }

    fn delete_waiting(&mut self) -> Result<(), StoreError> {
        // Noted children before parents.
        for (table, stage, expected) in std::mem::take(&mut self.waiting) {
            let target = self.target(table);
            let operation = format!("delete rows of {}", target.schema().name);
            let sql = target.delete(&stage, &[])?;
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
        let put_back = session.execute(&operation, &target.update(&stage)?, &[])?;
        if let Some(sql) = target.count_unlike(&stage)
            && get::<i64>(&session.row(&operation, &sql, &[])?, 0)? > 0
        {
            let message = format!(
                "{operation}: a column GENERATED ALWAYS AS IDENTITY has another value, and the \
                 server lets nobody change it"
            );
            return Err(StoreError::new(ErrorKind::Refused, message));
        }
        self.settle(&operation, &stage, put_back)
    }

    fn create(&mut self, table: TableIndex) -> Result<(), StoreError> {
        let expected = self.staging.changes.counts(table).created;
        if expected == 0 {
            return Ok(());
        }
        let target = self.target(table);
        let operation = format!("create rows of {}", target.schema().name);
        if let Some(copy) = target.copy()? {
            let mut seen = self.restored.of(target.relation());
            let created = self
                .staging
                .send_created(table, &copy, expected, &mut seen)?;
            return check_changed(&operation, expected, created);
        }
        let stage = self.stage_whole(table, RowRole::Created, expected)?;
        let created = self
            .staging
            .session
            .execute(&operation, &target.insert(&stage)?, &[])?;
        self.settle(&operation, &stage, created)
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
