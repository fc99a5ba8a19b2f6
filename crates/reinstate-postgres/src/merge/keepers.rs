//! Which rows cannot be deleted yet.
//!
//! Deletes go first, so that their keys and unique values are free for the rows that come back.
//! But a row to delete may still be referred to by a row that is only put back later: an issue
//! that moved to a new project, when the project goes and the issue moves back. Such rows are
//! deleted last. Without that the server would refuse the delete or, worse, act on the issue.

use std::collections::HashSet;

use reinstate_core::{ChangeSource, TableIndex};

use crate::catalog::{Catalog, ForeignKey};
use crate::sql::quote;

/// The foreign keys that may hold rows back.
#[derive(Debug)]
pub(super) struct Keepers<'c> {
    catalog: &'c Catalog,
    /// Tables with rows that are still there when the deletes of their parents begin: those that
    /// are put back, and those whose own deletes wait.
    staying: HashSet<TableIndex>,
}

impl<'c> Keepers<'c> {
    pub(super) fn new(catalog: &'c Catalog, changes: &dyn ChangeSource) -> Self {
        let tables = changes.tables().iter().copied();
        Self {
            catalog,
            staying: tables
                .filter(|table| changes.counts(*table).put_back > 0)
                .collect(),
        }
    }

    /// What holds for a row `t` of the table that some row still refers to, as SQL. A row of the
    /// same table counts too, even if it is to be deleted itself: both then wait.
    pub(super) fn conditions(&self, table: TableIndex) -> Vec<String> {
        let keys = self.catalog.foreign_keys.iter();
        let keys = keys.filter(|key| key.reference.parent == table);
        keys.filter(|key| self.staying.contains(&key.child))
            .map(|key| self.condition(key))
            .collect()
    }

    fn condition(&self, key: &ForeignKey) -> String {
        let child = &self.catalog.tables[key.child.get()];
        let parent = &self.catalog.tables[key.reference.parent.get()];
        let pairs = key
            .reference
            .columns
            .iter()
            .zip(&key.reference.parent_columns);
        let equal = pairs
            .zip(&key.operators)
            .map(|((column, parent_column), operator)| {
                let column = quote(&child.columns[column.get()].name);
                let parent_column = quote(&parent.columns[parent_column.get()].name);
                format!("t.{parent_column} {operator} k.{column}")
            });
        format!(
            "EXISTS (SELECT FROM {} AS k WHERE {})",
            child.sql_rows(),
            equal.collect::<Vec<_>>().join(" AND ")
        )
    }

    /// Notes that rows of the table stay until the end although they are to be deleted.
    pub(super) fn keep(&mut self, table: TableIndex) {
        self.staying.insert(table);
    }
}
