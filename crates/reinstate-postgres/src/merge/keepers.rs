//! Which rows cannot be deleted yet.
//!
//! Deletes go first, so that their keys and unique values are free for the rows that come back.
//! But a row to delete may still be referred to by a row that is only put back later: an issue
//! that moved to a new project, when the project goes and the issue moves back. Such rows are
//! deleted last. Without that the server would refuse the delete or, worse, act on the issue.

use std::collections::BTreeSet;

use reinstate_core::{ChangeSource, Reference, TableIndex, Tenancy};

use crate::catalog::Catalog;
use crate::owner::{joined, opening};

/// The foreign keys that may hold rows back.
#[derive(Debug)]
pub(super) struct Keepers<'c> {
    catalog: &'c Catalog,
    /// Tables with rows that are still there when the deletes of their parents begin: those that
    /// are put back, and those whose own deletes wait.
    staying: BTreeSet<TableIndex>,
    /// Tables with rows that are written under parents which are deleted, with the stages that
    /// hold them, as SQL.
    staged: Vec<(TableIndex, String)>,
}

impl<'c> Keepers<'c> {
    pub(super) fn new(catalog: &'c Catalog, changes: &dyn ChangeSource) -> Self {
        let tables = changes.tables().iter().copied();
        Self {
            catalog,
            staying: tables
                .filter(|table| changes.counts(*table).put_back > 0)
                .collect(),
            staged: Vec::new(),
        }
    }

    /// Notes rows that are still to be written, and that have to be the tenant's then.
    pub(super) fn wait_for(&mut self, table: TableIndex, stage: &str) {
        self.staged.push((table, stage.to_owned()));
    }

    /// What holds for a row `t` of the table that some row still refers to, as SQL. A row of the
    /// same table counts too, even if it is to be deleted itself: both then wait.
    pub(super) fn conditions(&self, table: TableIndex) -> Vec<String> {
        self.conditions_but(table, None)
    }

    /// The same, but for rows of the same table.
    pub(super) fn conditions_of_others(&self, table: TableIndex) -> Vec<String> {
        self.conditions_but(table, Some(table))
    }

    fn conditions_but(&self, table: TableIndex, except: Option<TableIndex>) -> Vec<String> {
        let mut conditions = Vec::new();
        for &child in self.staying.iter().filter(|child| Some(**child) != except) {
            let keys = self.catalog.foreign_keys.iter();
            let keys = keys.filter(|key| key.child == child && key.reference.parent == table);
            // A key that is checked at the end, and acts on nothing, lets its parent go first.
            let keys = keys.filter(|key| !key.is_deferrable || key.acts_on_delete);
            let keys = keys.map(|key| (&key.reference, key.operators.as_slice()));
            // A row that is put back must be the tenant's until then, by whatever says so.
            let (schema, relation) = self.catalog.table(child);
            let ways = schema.tenancy.references().zip(&relation.way_operators);
            let ways = ways.filter(|(way, _)| way.parent == table);
            let ways = ways.map(|(way, operators)| (way, operators.as_slice()));
            for (reference, operators) in keys.chain(ways) {
                let condition = self.condition(child, reference, operators);
                if !conditions.contains(&condition) {
                    conditions.push(condition);
                }
            }
        }
        let staged = self.staged.iter();
        for (child, stage) in staged.filter(|(child, _)| Some(*child) != except) {
            let from = format!("{stage} AS k");
            self.climb((*child, "k"), &[from], &[], table, &mut conditions);
        }
        conditions
    }

    /// That the way of a staged row leads over the row `t` of `target`.
    fn climb(
        &self,
        (child, here): (TableIndex, &str),
        sources: &[String],
        joins: &[String],
        target: TableIndex,
        found: &mut Vec<String>,
    ) {
        let (schema, relation) = self.catalog.table(child);
        for (place, way) in schema.tenancy.references().enumerate() {
            let parent = &self.catalog.tables[way.parent.get()];
            let operators = relation.way_operators[place].as_slice();
            let mut extended = joins.to_vec();
            if let Tenancy::OneOf { routes } = &schema.tenancy {
                extended.extend(opening(relation, here, routes, place));
            }
            if way.parent == target {
                let mut all = extended.clone();
                all.extend(joined(relation, here, parent, "t", way, operators));
                let condition = format!(
                    "EXISTS (SELECT FROM {} WHERE {})",
                    sources.join(", "),
                    all.join(" AND ")
                );
                if !found.contains(&condition) {
                    found.push(condition);
                }
            }
            let there = format!("{here}_{place}");
            extended.extend(joined(relation, here, parent, &there, way, operators));
            let source = format!("{} AS {there}", parent.sql_rows());
            let sources = [sources, &[source]].concat();
            self.climb((way.parent, &there), &sources, &extended, target, found);
        }
    }

    fn condition(&self, child: TableIndex, reference: &Reference, operators: &[String]) -> String {
        let child = &self.catalog.tables[child.get()];
        let parent = &self.catalog.tables[reference.parent.get()];
        let equal = joined(child, "k", parent, "t", reference, operators);
        let rows = child.sql_rows();
        format!(
            "EXISTS (SELECT FROM {rows} AS k WHERE {})",
            equal.join(" AND ")
        )
    }

    /// Notes that rows of the table stay until the end although they are to be deleted.
    pub(super) fn keep(&mut self, table: TableIndex) {
        self.staying.insert(table);
    }
}
