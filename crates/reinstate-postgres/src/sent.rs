//! Rows that are sent with a question: a list of texts for each column, as its parameters; and rows
//! that are its answer.

use reinstate_core::{ColumnIndex, ErrorKind, RowBatch, RowBuilder, StoreError, TableSchema};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::catalog::{CatalogColumn, CatalogTable, get};
use crate::session::Parameters;
use crate::sql::quote;

/// The place of a sent row, from one: a name that no column of an application has.
pub(crate) const ORDINAL: &str = "\"reinstate ordinal\"";

/// Up to how many bytes of rows are sent with several questions at once, which are all in memory then.
pub(crate) const TOGETHER_BYTES_MAX: usize = 1 << 20;

/// The lists as parameters.
pub(crate) fn parameters<L: ToSql + Sync>(lists: &[L]) -> Parameters<'_> {
    let lists = lists.iter();
    lists
        .map(|list| (list as &(dyn ToSql + Sync), Type::TEXT_ARRAY))
        .collect()
}

/// The rows as a subquery, with these columns and [`ORDINAL`].
pub(crate) fn sent_rows<'c>(columns: impl IntoIterator<Item = &'c CatalogColumn>) -> String {
    sent_rows_from(1, columns)
}

/// The same for rows whose first column is the parameter of that number.
pub(crate) fn sent_rows_from<'c>(
    first: usize,
    columns: impl IntoIterator<Item = &'c CatalogColumn>,
) -> String {
    let (mut casts, mut lists, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for (column, place) in columns.into_iter().zip(first..) {
        let (type_sql, name) = (&column.type_sql, quote(&column.name));
        casts.push(format!("u.v{place}::{type_sql} AS {name}"));
        lists.push(format!("${place}::text[]"));
        names.push(format!("v{place}"));
    }
    format!(
        "(SELECT u.{ORDINAL}, {} FROM unnest({}) WITH ORDINALITY AS u({}, {ORDINAL}))",
        casts.join(", "),
        lists.join(", "),
        names.join(", ")
    )
}

/// The columns of a table's rows, as a list of the texts that rows carry.
pub(crate) fn column_texts(relation: &CatalogTable, alias: &str) -> String {
    let columns = relation.columns.iter().map(|column| {
        let name = quote(&column.name);
        // As the server writes it in COPY: a cast to text is another thing for some types.
        format!(
            "CASE WHEN {alias}.{name} IS DISTINCT FROM NULL
                  THEN pg_catalog.format('%s', {alias}.{name}) END"
        )
    });
    columns.collect::<Vec<_>>().join(", ")
}

/// Adds the rows of a table whose [`column_texts`] are the answer.
pub(crate) fn push_answers(
    operation: &str,
    schema: &TableSchema,
    answers: &[Row],
    rows: &mut RowBatch,
) -> Result<(), StoreError> {
    let mut builder = RowBuilder::new();
    for answer in answers {
        let values: Vec<Option<&str>> = (0..schema.columns.len())
            .map(|column| get(answer, column))
            .collect::<Result<_, _>>()?;
        let values: Vec<Option<&[u8]>> = values
            .iter()
            .map(|value| value.map(str::as_bytes))
            .collect();
        schema
            .encode_row(&values, &mut builder)
            .map_err(|error| StoreError::new(ErrorKind::Corrupt, operation).because(error))?;
        rows.push_row(builder.row());
    }
    Ok(())
}

/// The values of some columns, one list per column. None if a value is not text.
pub(crate) fn gather<'r>(
    rows: &'r RowBatch,
    columns: &[ColumnIndex],
) -> Option<Vec<Vec<Option<&'r str>>>> {
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
