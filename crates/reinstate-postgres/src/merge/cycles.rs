//! Foreign keys that no order of tables satisfies.
//!
//! Keys that can be deferred are, and need nothing else, unless they act on rows that refer to one
//! that goes: the server does not wait with that. Of the others, one whose columns may be NULL is
//! *loose*: its rows are created with NULL there and get their values when the rows they refer to
//! exist; before rows are deleted, it is set to NULL. One whose columns may not, or in which NULL would
//! break another rule, is *rigid*: the tables between its two ends are written by a single statement,
//! at whose end the server checks it. Nothing of the tables' definitions is touched.

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

/// What is done to rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Creating,
    Deleting,
}

impl Cycles {
    pub(super) fn find(catalog: &Catalog, changes: &dyn ChangeSource, doing: Doing) -> Self {
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
            let waits = key.is_deferrable && !(doing == Doing::Deleting && key.acts_on_delete);
            if waits || parent <= child {
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

/// The columns of a key that can be NULL for a while: not those that say whose the row is, and none
/// in which that would break another rule.
fn loose_columns(catalog: &Catalog, key: &ForeignKey) -> Vec<ColumnIndex> {
    let (schema, relation) = catalog.table(key.child);
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
    let can_be_null = |column: &ColumnIndex| {
        let is_watched = relation.columns[column.get()].is_watched;
        schema.columns[column.get()].nullable && !is_watched && !says_whose(*column)
    };
    let columns = key.reference.columns.iter().copied();
    let columns: Vec<ColumnIndex> = columns.filter(can_be_null).collect();
    // Of such a key, all columns have to be NULL at once.
    let mut full = catalog.foreign_keys.iter().filter(|other| {
        let mut of_other = other.reference.columns.iter();
        other.child == key.child
            && other.is_match_full
            && of_other.any(|column| columns.contains(column))
    });
    let is_whole = |other: &ForeignKey| {
        let mut of_other = other.reference.columns.iter();
        of_other.all(|column| columns.contains(column))
    };
    match full.all(is_whole) {
        true => columns,
        false => Vec::new(),
    }
}
