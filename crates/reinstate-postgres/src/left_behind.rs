//! Rows that lost the row they belong to, and will belong to it again.

use reinstate_core::{ErrorKind, Reference, RowBatch, StoreError, TableIndex, Tenancy};

use crate::catalog::Catalog;
use crate::owner::{joined, opening};
use crate::sent::{column_texts, parameters, push_answers, sent_rows};
use crate::session::Session;

/// Whether rows of the table can be left behind: whether some way to the tenant is not guarded by
/// a foreign key all along.
pub(crate) fn can_be_left_behind(catalog: &Catalog, table: TableIndex) -> bool {
    let tenancy = &catalog.schema.table(table).tenancy;
    let mut ways = tenancy.references();
    ways.any(|way| {
        let is_guarded = catalog
            .foreign_keys
            .iter()
            .any(|key| key.child == table && key.reference == *way && key.is_validated);
        !is_guarded || can_be_left_behind(catalog, way.parent)
    })
}

/// The rows of other tables whose way leads over these rows of `parent`. They are to be created, or
/// were left behind themselves, so that whatever leads to them reaches nobody now.
pub(crate) fn left_behind(
    session: &Session,
    catalog: &Catalog,
    parent: TableIndex,
    rows: &RowBatch,
) -> Result<Vec<(TableIndex, RowBatch)>, StoreError> {
    let mut found = Vec::new();
    for (child, schema, _) in catalog.iter() {
        if !can_be_left_behind(catalog, child) {
            continue;
        }
        let mut belonging = RowBatch::new();
        for (place, way) in schema.tenancy.references().enumerate() {
            if way.parent == parent {
                read(session, catalog, (child, place, way), rows, &mut belonging)?;
            }
        }
        if !belonging.is_empty() {
            found.push((child, belonging));
        }
    }
    Ok(found)
}

/// Reads the rows of one table that go one way to `parents`.
fn read(
    session: &Session,
    catalog: &Catalog,
    (child, place, way): (TableIndex, usize, &Reference),
    parents: &RowBatch,
    found: &mut RowBatch,
) -> Result<(), StoreError> {
    let schema = catalog.schema.table(child);
    let operation = format!("look for rows of {} that were left behind", schema.name);
    let not_text = || StoreError::new(ErrorKind::Corrupt, format!("{operation}: not text"));
    let mut lists: Vec<Vec<&str>> = vec![Vec::with_capacity(parents.len()); way.columns.len()];
    for row in parents.iter() {
        let values: Vec<Option<&[u8]>> = row.values().collect();
        let columns = way.parent_columns.iter();
        let value: Option<Vec<&[u8]>> = columns
            .map(|column| values.get(column.get()).copied().flatten())
            .collect();
        // A parent with NULL there is nobody's parent.
        for (list, value) in lists.iter_mut().zip(value.unwrap_or_default()) {
            list.push(std::str::from_utf8(value).map_err(|_| not_text())?);
        }
    }
    let sql = question(catalog, child, place, way);
    let answers = session.rows(&operation, &sql, &parameters(&lists))?;
    push_answers(&operation, schema, &answers, found)
}

/// The columns of the rows as texts, as a query whose parameters are the parent's columns as lists
/// of texts.
fn question(catalog: &Catalog, child: TableIndex, place: usize, way: &Reference) -> String {
    let (schema, relation) = catalog.table(child);
    let parent = &catalog.tables[way.parent.get()];
    let of_parent = way.parent_columns.iter();
    let sent = sent_rows(of_parent.map(|column| &parent.columns[column.get()]));
    let operators = &relation.way_operators[place];
    let mut conditions = joined(relation, "t", parent, "p", way, operators);
    if let Tenancy::OneOf { routes } = &schema.tenancy {
        conditions.extend(opening(relation, "t", routes, place));
    }
    format!(
        "SELECT {} FROM {sent} p JOIN {} AS t ON {}",
        column_texts(relation, "t"),
        relation.sql_rows(),
        conditions.join(" AND "),
    )
}
