//! Rows of several tables that one statement writes.

use reinstate_core::{
    ChangeCounts, ChangeSource, ErrorKind, RowRole, SideEffect, StoreError, TableIndex,
};

use super::{Apply, Parts, check_changed};
use crate::catalog::{Catalog, get};
use crate::merge::cycles::{Cycles, Doing};
use crate::merge::staging::Stage;
use crate::obstacles::refused;

/// Why rows of several tables cannot be written by one statement.
const RIGID: &str = "foreign keys that can neither wait nor be NULL lead back to it, and whose its \
                     rows are is another table's to say. Make one of those keys DEFERRABLE";

/// Tables that would have to be written by one statement with others, and cannot be.
pub(crate) fn together_obstacles(catalog: &Catalog, changes: &dyn ChangeSource) -> Vec<SideEffect> {
    let mut found = Vec::new();
    type Counted = fn(ChangeCounts) -> u64;
    let ways: [(Doing, Counted); 2] = [
        (Doing::Creating, |counts| counts.created),
        (Doing::Deleting, |counts| counts.deleted),
    ];
    for (doing, count) in ways {
        let cycles = Cycles::find(catalog, changes, doing);
        for step in cycles.steps() {
            let tables = step.iter().copied();
            let tables = tables.filter(|table| count(changes.counts(*table)) > 0);
            let tables: Vec<TableIndex> = tables.collect();
            if tables.len() < 2 {
                continue;
            }
            for table in tables {
                let object = format!("table {}", catalog.schema.table(table).name);
                let effect = refused(object, RIGID);
                if !is_owned_by_row_alone(catalog, table) && !found.contains(&effect) {
                    found.push(effect);
                }
            }
        }
    }
    found
}

/// Whether a row's own columns say whose it is.
fn is_owned_by_row_alone(catalog: &Catalog, table: TableIndex) -> bool {
    let mut ways = catalog.schema.table(table).tenancy.references();
    ways.next().is_none()
}

impl Apply<'_> {
    /// Deletes rows of several tables that refer to each other.
    pub(super) fn delete_together(&mut self, tables: &[TableIndex]) -> Result<(), StoreError> {
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
    pub(super) fn create_together(&mut self, tables: &[TableIndex]) -> Result<(), StoreError> {
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
                .insert(&stage, self.creating.loose(table))?;
            parts.push((table, stage, sql));
        }
        self.run_together("create", parts)
    }

    /// Runs one statement for several tables: the server checks their keys at its end.
    pub(super) fn run_together(&mut self, verb: &str, parts: Parts) -> Result<(), StoreError> {
        if parts.is_empty() {
            return Ok(());
        }
        let mut names = Vec::new();
        for (table, _, _) in &parts {
            let target = self.target(*table);
            names.push(target.schema().name.as_str());
            if !is_owned_by_row_alone(target.catalog, *table) {
                let message = format!("{verb} rows of {}: {RIGID}", target.schema().name);
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
            if verb == "create" && self.creating.loose(table).is_some() {
                self.to_tighten.push((table, stage));
            } else {
                self.staging.discard(&stage)?;
            }
        }
        Ok(())
    }
}
