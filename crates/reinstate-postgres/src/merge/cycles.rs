//! Foreign keys that no order of tables satisfies.
//!
//! Keys that can be deferred are, and need nothing else. Of the others, one whose columns may be
//! NULL is *loose*: its rows are created with NULL there and get their values when the rows they
//! refer to exist; before rows are deleted, it is set to NULL. One whose columns may not is
//! *rigid*: the tables between its two ends are written by a single statement, at whose end the
//! server checks it. Nothing of the tables' definitions is touched.

use std::collections::{BTreeMap, BTreeSet};

use reinstate_core::{ChangeSource, ColumnIndex, TableIndex, Tenancy};

use crate::catalog::{Catalog, ForeignKey};

/// What has to be done about them, for the tables of one plan.
#[derive(Debug, Default)]
pub(super) struct Cycles {
    /// Columns that are NULL for a while, by table.
    loose: BTreeMap<TableIndex, BTreeSet<ColumnIndex>>,
    /// The tables in their order, those that one statement writes together.
    steps: Vec<Vec<TableIndex>>,
}

impl Cycles {
    pub(super) fn find(catalog: &Catalog, changes: &dyn ChangeSource) -> Self {
        let order = changes.tables();
        let place = |table: TableIndex| order.iter().position(|&other| other == table);
        let mut loose: BTreeMap<TableIndex, BTreeSet<ColumnIndex>> = BTreeMap::new();
        // For each place, the last place of the step that it is in.
        let mut ends: Vec<usize> = (0..order.len()).collect();
        for key in &catalog.foreign_keys {
            let places = (place(key.child), place(key.reference.parent));
            let (Some(child), Some(parent)) = places else {
                continue;
            };
            if key.is_deferrable || parent <= child {
                continue;
            }
            let columns = loose_columns(catalog, key);
            if columns.is_empty() {
                for end in &mut ends[child..parent] {
                    *end = parent.max(*end);
                }
            } else {
                loose.entry(key.child).or_default().extend(columns);
            }
        }
        let mut steps = Vec::new();
        let mut start = 0;
        while start < order.len() {
            let mut end = start;
            let mut next = start;
            while next <= end {
                end = end.max(ends[next]);
                next += 1;
            }
            steps.push(order[start..=end].to_vec());
            start = end + 1;
        }
        Self { loose, steps }
    }

    /// The tables in the order in which rows are created, those of a step together.
    pub(super) fn steps(&self) -> &[Vec<TableIndex>] {
        &self.steps
    }

    /// The columns of a table that are NULL for a while.
    pub(super) fn loose(&self, table: TableIndex) -> Option<&BTreeSet<ColumnIndex>> {
        self.loose.get(&table)
    }

    /// The tables that have such columns.
    pub(super) fn loose_tables(&self) -> impl Iterator<Item = TableIndex> {
        self.loose.keys().copied()
    }
}

/// The columns of a key that can be NULL for a while: not those that say whose the row is.
fn loose_columns(catalog: &Catalog, key: &ForeignKey) -> Vec<ColumnIndex> {
    let schema = catalog.schema.table(key.child);
    if !schema.has_key() {
        // Its rows cannot be found again.
        return Vec::new();
    }
    let says_whose = |column: ColumnIndex| match &schema.tenancy {
        Tenancy::Direct { column: tenant } => *tenant == column,
        Tenancy::OneOf { routes } => routes.iter().any(|route| {
            let condition = route.condition.as_ref();
            route.reference.columns.contains(&column)
                || condition.is_some_and(|condition| condition.column == column)
        }),
        Tenancy::Via { reference } => reference.columns.contains(&column),
        Tenancy::Native | Tenancy::Shared | Tenancy::Excluded => false,
    };
    let columns = key.reference.columns.iter().copied();
    columns
        .filter(|column| schema.columns[column.get()].nullable && !says_whose(*column))
        .collect()
}
