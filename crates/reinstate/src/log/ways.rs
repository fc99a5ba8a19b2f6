//! By which row a row goes on its way to its tenant.

use reinstate_core::{
    ColumnIndex, Reference, RowBuilder, RowRef, StoreSchema, TableIndex, TableSchema, Tenancy,
};

/// What says whose a row is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The row itself; no bytes: shared.
    Own(Vec<u8>),
    /// The row of another table that has this name.
    By(Vec<u8>),
    /// Only the store, which keeps the owner beside the row.
    Native,
}

/// What says whose a row of this table is.
pub(crate) fn way(schema: &TableSchema, row: RowRef<'_>) -> Way {
    let reference = match &schema.tenancy {
        Tenancy::Direct { column } => {
            let value = row.values().nth(column.get()).flatten();
            return Way::Own(value.unwrap_or_default().to_vec());
        }
        Tenancy::Via { reference } => Some(reference),
        Tenancy::OneOf { routes } => {
            let open = routes.iter().find(|route| {
                let condition = route.condition.as_ref();
                let holds = condition.is_none_or(|condition| {
                    row.values().nth(condition.column.get()).flatten()
                        == Some(condition.value.as_bytes())
                });
                holds && !has_null(row, &route.reference)
            });
            open.map(|route| &route.reference)
        }
        Tenancy::Shared | Tenancy::Excluded => None,
        Tenancy::Native => return Way::Native,
    };
    match reference {
        Some(reference) if !has_null(row, reference) => Way::By(name(
            reference.parent,
            &reference.parent_columns,
            row,
            &reference.columns,
        )),
        _ => Way::Own(Vec::new()),
    }
}

/// The names of a row by these sets of columns.
pub(crate) fn names_of<'c>(
    table: TableIndex,
    row: RowRef<'_>,
    columns: impl IntoIterator<Item = &'c Vec<ColumnIndex>>,
) -> Vec<Vec<u8>> {
    let columns = columns.into_iter();
    columns
        .map(|columns| name(table, columns, row, columns))
        .collect()
}

/// First bytes of all names of rows of a table.
pub(crate) const fn prefix(table: TableIndex) -> [u8; 4] {
    table.0.to_be_bytes()
}

/// The tables that go by others, each behind those that it goes by.
pub(crate) fn going_by_others(schema: &StoreSchema) -> Vec<TableIndex> {
    let mut tables: Vec<(usize, TableIndex)> = schema
        .iter()
        .filter(|(_, table)| table.tenancy.references().next().is_some())
        .map(|(index, _)| (hops(schema, index), index))
        .collect();
    tables.sort_unstable();
    tables.into_iter().map(|(_, table)| table).collect()
}

/// The most hops from a table to its tenant. Ways have no circles.
fn hops(schema: &StoreSchema, table: TableIndex) -> usize {
    let references = schema.table(table).tenancy.references();
    let parents = references.map(|reference| hops(schema, reference.parent) + 1);
    parents.max().unwrap_or(0)
}

/// The name of a row of `parent` by its `columns`, whose values stand in the columns `from` of this
/// row.
fn name(
    parent: TableIndex,
    columns: &[ColumnIndex],
    row: RowRef<'_>,
    from: &[ColumnIndex],
) -> Vec<u8> {
    let values: Vec<_> = row.values().collect();
    let mut name = RowBuilder::new();
    name.start(&prefix(parent));
    for (column, from) in columns.iter().zip(from) {
        name.push(Some(&column.0.to_be_bytes()));
        name.push(values.get(from.get()).copied().flatten());
    }
    name.row().body().to_vec()
}

fn has_null(row: RowRef<'_>, reference: &Reference) -> bool {
    let values: Vec<_> = row.values().collect();
    let value = |column: &ColumnIndex| values.get(column.get()).copied().flatten();
    reference
        .columns
        .iter()
        .any(|column| value(column).is_none())
}
