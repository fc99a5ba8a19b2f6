//! Which rows would meet a row of somebody else.
//!
//! For every unique index of the table, the rows' values are sent once and joined with the live
//! rows, whose owner must be somebody else. Indexes on expressions and partial indexes are
//! evaluated by the server, on both sides alike. Nothing of the rows found comes back.

use reinstate_core::{ColumnIndex, ErrorKind, HeldKey, RowBatch, StoreError, TableIndex, TenantId};
use tokio_postgres::types::{ToSql, Type};

use crate::catalog::{Catalog, UniqueIndex, get};
use crate::owner::ownership;
use crate::session::Session;
use crate::sql::quote;

/// A name that no column of an application has.
const ORDINAL: &str = "\"reinstate ordinal\"";

/// The keys among `rows` that somebody else holds.
pub(crate) fn held_by_others(
    session: &Session,
    catalog: &Catalog,
    tenant: &TenantId,
    table: TableIndex,
    rows: &RowBatch,
) -> Result<Vec<HeldKey>, StoreError> {
    let (schema, relation) = catalog.table(table);
    let operation = format!("look for rows of others in table {}", schema.name);
    let mut held = Vec::new();
    for index in &relation.unique_indexes {
        let every = || (0..).map(ColumnIndex).take(schema.columns.len()).collect();
        let columns: Vec<ColumnIndex> = index.columns.clone().unwrap_or_else(every);
        let Some(sql) = question(catalog, table, index, &columns, tenant)? else {
            continue;
        };
        let values = gather(rows, &columns)
            .ok_or_else(|| StoreError::new(ErrorKind::Corrupt, format!("{operation}: not text")))?;
        let parameters: Vec<(&(dyn ToSql + Sync), Type)> = values
            .iter()
            .map(|column| (column as &(dyn ToSql + Sync), Type::TEXT_ARRAY))
            .collect();
        let found: Vec<usize> = session
            .rows(&operation, &sql, &parameters)?
            .iter()
            .map(|row| Ok(usize::try_from(get::<i64>(row, 0)?).unwrap_or(0)))
            .collect::<Result<_, StoreError>>()?;
        // Ordinals start at one.
        let keys = rows
            .iter()
            .zip(1..)
            .filter(|(_, ordinal)| found.contains(ordinal));
        held.extend(keys.map(|(row, _)| HeldKey {
            key: row.key().to_vec(),
            constraint: index.name.clone(),
        }));
    }
    Ok(held)
}

/// The values of some columns, one list per column. None if a value is not text.
fn gather<'r>(rows: &'r RowBatch, columns: &[ColumnIndex]) -> Option<Vec<Vec<Option<&'r str>>>> {
    let mut lists = vec![Vec::with_capacity(rows.len()); columns.len()];
    for row in rows.iter() {
        let values: Vec<Option<&[u8]>> = row.values().collect();
        for (list, column) in lists.iter_mut().zip(columns) {
            list.push(match values.get(column.get())? {
                Some(bytes) => Some(std::str::from_utf8(bytes).ok()?),
                None => None,
            });
        }
    }
    Some(lists)
}

/// The ordinals of the rows that meet a row of somebody else in this index, as a query whose
/// parameters are the columns as lists of texts.
fn question(
    catalog: &Catalog,
    table: TableIndex,
    index: &UniqueIndex,
    columns: &[ColumnIndex],
    tenant: &TenantId,
) -> Result<Option<String>, StoreError> {
    let relation = &catalog.tables[table.get()];
    let Some(owned) = ownership(catalog, table, "t") else {
        return Ok(None);
    };
    let others = owned.of_others(tenant)?;
    let join = |parts: Vec<String>| parts.join(", ");
    let lists = (1..=columns.len())
        .map(|place| format!("${place}::text[]"))
        .collect();
    let names = (1..=columns.len())
        .map(|place| format!("v{place}"))
        .collect();
    let casts = columns.iter().zip(1..).map(|(column, place): (_, usize)| {
        let column = &relation.columns[column.get()];
        format!("u.v{place}::{} AS {}", column.type_sql, quote(&column.name))
    });
    let expressions = index.expressions.iter().zip(1..);
    let expressions = expressions
        .map(|(expression, place): (_, usize)| format!("({expression}) AS \"reinstate {place}\""))
        .collect();
    let expressions = join(expressions);
    let predicate = match &index.predicate {
        Some(predicate) => format!(" WHERE {predicate}"),
        None => String::new(),
    };
    let equal = index
        .operators
        .iter()
        .zip(1..)
        .map(|(operator, place): (_, usize)| {
            let name = format!("\"reinstate {place}\"");
            if index.nulls_are_equal {
                format!("(w.{name} {operator} t.{name} OR (w.{name} IS NULL AND t.{name} IS NULL))")
            } else {
                format!("w.{name} {operator} t.{name}")
            }
        });
    Ok(Some(format!(
        "SELECT DISTINCT w.{ORDINAL} FROM (
             SELECT s.*, {expressions} FROM (
                 SELECT u.{ORDINAL}, {} FROM unnest({}) WITH ORDINALITY AS u({}, {ORDINAL})) s{predicate}) w
           JOIN (SELECT t.*, {expressions} FROM {} AS t{predicate}) t ON {}{}
          WHERE {}",
        join(casts.collect()),
        join(lists),
        join(names),
        relation.sql_rows(),
        equal.collect::<Vec<_>>().join(" AND "),
        others.sources,
        others.condition
    )))
}
