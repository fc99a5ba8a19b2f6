//! Rows that are sent with a question: a list of texts for each column, as its parameters.

use tokio_postgres::types::{ToSql, Type};

use crate::catalog::CatalogColumn;
use crate::sql::quote;

/// The place of a sent row, from one: a name that no column of an application has.
pub(crate) const ORDINAL: &str = "\"reinstate ordinal\"";

/// The lists as parameters.
pub(crate) fn parameters<L: ToSql + Sync>(lists: &[L]) -> Vec<(&(dyn ToSql + Sync), Type)> {
    let lists = lists.iter();
    lists
        .map(|list| (list as &(dyn ToSql + Sync), Type::TEXT_ARRAY))
        .collect()
}

/// The rows as a subquery, with these columns and [`ORDINAL`].
pub(crate) fn sent_rows<'c>(columns: impl IntoIterator<Item = &'c CatalogColumn>) -> String {
    let (mut casts, mut lists, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for (column, place) in columns.into_iter().zip(1..) {
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
