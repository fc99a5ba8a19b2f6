//! What is asked of columns when a tenant is copied under another id.

use reinstate_core::{ColumnIndex, StoreError, TableIndex, UniqueKey, ValueKind};
use tokio_postgres::types::Type;

use crate::catalog::{Catalog, CatalogTable, TenantType, UniqueIndex, get};
use crate::session::Session;
use crate::sql::{literal, quote};

/// How the values of a column are written. Domains are what they are made of.
pub(crate) fn value_kind(catalog: &Catalog, table: TableIndex, column: ColumnIndex) -> ValueKind {
    let column = &catalog.tables[table.get()].columns[column.get()];
    let integer = |bits: u32| ValueKind::Integer {
        min: -1 << (bits - 1),
        max: i64::MAX >> (64 - bits),
    };
    match (&column.tenant_type, column.type_sql.as_str()) {
        (Some(TenantType::SmallInt), _) => integer(16),
        (Some(TenantType::Integer), _) => integer(32),
        (Some(TenantType::BigInt), _) => integer(64),
        (Some(TenantType::Uuid), _) => ValueKind::Uuid,
        // Of a domain over it the catalogue does not say how long it may be: the server does,
        // when the rows are written.
        (Some(TenantType::Text), name) => ValueKind::Text {
            characters_max: length(name),
        },
        // Blanks at the end are written as well, so that every value is of the same length.
        (Some(TenantType::Blank), name) => match length(name) {
            None => ValueKind::Other,
            characters_max => ValueKind::Text { characters_max },
        },
        (_, "bytea") => ValueKind::Bytes,
        (_, "json" | "jsonb") => ValueKind::Json,
        _ => ValueKind::Other,
    }
}

/// The length that stands in a name like `character varying(40)` or `character(32)`.
fn length(type_name: &str) -> Option<u64> {
    let (name, length) = type_name.split_once('(')?;
    let is_text = matches!(name, "character varying" | "character");
    length.strip_suffix(')')?.parse().ok().filter(|_| is_text)
}

/// The unique indexes and exclusion constraints of a table, with the columns that they are made of.
pub(crate) fn unique_keys(
    session: &Session,
    catalog: &Catalog,
    table: TableIndex,
) -> Result<Vec<UniqueKey>, StoreError> {
    let (schema, relation) = catalog.table(table);
    let mut keys = Vec::with_capacity(relation.unique_indexes.len());
    for index in &relation.unique_indexes {
        let columns = match &index.columns {
            Some(columns) => columns.clone(),
            None => mentioned(session, relation, index)?
                .iter()
                .filter_map(|name| schema.column(name))
                .collect(),
        };
        keys.push(UniqueKey {
            name: index.name.clone(),
            columns,
        });
    }
    Ok(keys)
}

/// The columns of an index that has a condition or expressions. What an expression is made of is
/// known together with what the condition mentions.
fn mentioned(
    session: &Session,
    table: &CatalogTable,
    index: &UniqueIndex,
) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT a.attname::text
                 FROM pg_index i
                 JOIN pg_class x ON x.oid = i.indexrelid
                 JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum > 0
                WHERE i.indrelid = $1 AND x.relname = $2
                  AND (a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
                       OR i.indexprs IS NOT NULL AND EXISTS (
                          SELECT FROM pg_depend d
                           WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                             AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid
                             AND d.refobjsubid = a.attnum))
                ORDER BY a.attnum";
    let operation = format!("look at index {}", index.name);
    let values = [(&table.oid as _, Type::OID), (&index.name as _, Type::TEXT)];
    let rows = session.rows(&operation, sql, &values)?;
    rows.iter().map(|row| get(row, 0)).collect()
}

/// A number that nothing is beyond: no row, and no sequence that the column takes numbers from. A
/// sequence that the role may not read is not asked; a merge that has to raise it is refused.
pub(crate) fn greatest(
    session: &Session,
    catalog: &Catalog,
    table: TableIndex,
    column: ColumnIndex,
) -> Result<Option<i64>, StoreError> {
    let (schema, relation) = catalog.table(table);
    let name = &relation.columns[column.get()].name;
    let operation = format!("look for the greatest {}.{name}", schema.name);
    let sql = format!(
        "SELECT max(t.{})::int8 FROM {} AS t",
        quote(name),
        relation.sql_rows()
    );
    let mut greatest: Option<i64> = get(&session.row(&operation, &sql, &[])?, 0)?;
    let own = relation.sequences.iter();
    for sequence in own.filter(|sequence| sequence.column == column) {
        let name = literal(&sequence.sql_name());
        let sql = format!(
            "SELECT CASE WHEN has_sequence_privilege({name}::regclass, 'USAGE, SELECT')
                         THEN pg_sequence_last_value({name}::regclass) END"
        );
        greatest = greatest.max(get(&session.row(&operation, &sql, &[])?, 0)?);
    }
    Ok(greatest)
}

/// Whether a sequence that a merge raises gives the column its numbers.
pub(crate) fn is_counted_up(catalog: &Catalog, table: TableIndex, column: ColumnIndex) -> bool {
    let mut sequences = catalog.tables[table.get()].sequences.iter();
    sequences.any(|sequence| sequence.column == column && sequence.increment > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_read_from_the_name_of_a_type() {
        assert_eq!(length("character varying(40)"), Some(40));
        assert_eq!(length("character(32)"), Some(32));
        assert_eq!(length("numeric(10)"), None);
        assert_eq!(length("character varying"), None);
        assert_eq!(length("text"), None);
    }
}
