//! What a column takes of values that were written when it was another.

use reinstate_core::{ColumnIndex, ErrorKind, Filling, Fit, StoreError, TableIndex};
use tokio_postgres::types::Type;

use crate::catalog::{Catalog, CatalogColumn, TenantType, get};
use crate::session::Session;

/// Which values of the type `was` are values of the column, written the same. Only types whose
/// texts the server writes alike are known; of others nobody can be sure.
pub(crate) fn fit(
    catalog: &Catalog,
    was: &str,
    table: TableIndex,
    column: ColumnIndex,
) -> Option<Fit> {
    let (schema, relation) = catalog.table(table);
    let is = schema.columns[column.get()].type_name.as_str();
    if let Some(TenantType::Enumeration(name, labels)) = &relation.columns[column.get()].tenant_type
    {
        // Labels can be renamed, and types made anew with fewer of them.
        let is_of_labels = was == is || was == name || Text::parse(was).is_some();
        return is_of_labels.then(|| Fit::OneOf(labels.clone()));
    }
    if was == is {
        return Some(Fit::Every);
    }
    if let (Some(was), Some(is)) = (integer_bits(was), integer_bits(is)) {
        let (min, max) = (-1 << (is - 1), ((1_i128 << (is - 1)) - 1).try_into().ok()?);
        return Some(if was <= is {
            Fit::Every
        } else {
            Fit::Integer { min, max }
        });
    }
    if integer_bits(was).is_some() && is == "numeric" {
        return Some(Fit::Every);
    }
    if let (Some(was), Some(is)) = (Text::parse(was), Text::parse(is)) {
        return Some(match (was, is) {
            (_, Text::Any) => Fit::Every,
            (Text::UpTo(was), Text::UpTo(is)) if was <= is => Fit::Every,
            (_, Text::UpTo(is)) => Fit::Characters(is),
        });
    }
    if let (true, Some(is)) = (
        integer_bits(was).is_some() || was == "uuid",
        Text::parse(is),
    ) {
        return Some(match is {
            Text::Any => Fit::Every,
            Text::UpTo(is) => Fit::Characters(is),
        });
    }
    if let (Some((was_digits, was_scale)), Some(is)) = (numeric(was), numeric(is)) {
        let (is_digits, is_scale) = is;
        let widens = is_digits.is_none()
            || was_scale == is_scale && was_digits.is_some_and(|was| Some(was) <= is_digits);
        return widens.then_some(Fit::Every);
    }
    let (was_kind, was_digits) = time(was)?;
    let (is_kind, is_digits) = time(is)?;
    (was_kind == is_kind && was_digits <= is_digits).then_some(Fit::Every)
}

const fn integer_bits(name: &str) -> Option<u32> {
    match name.as_bytes() {
        b"smallint" => Some(16),
        b"integer" => Some(32),
        b"bigint" => Some(64),
        _ => None,
    }
}

/// Types that hold any text up to a length.
enum Text {
    Any,
    UpTo(u64),
}

impl Text {
    fn parse(name: &str) -> Option<Self> {
        if name == "text" || name == "character varying" {
            return Some(Self::Any);
        }
        let length = name.strip_prefix("character varying(")?.strip_suffix(')')?;
        length.parse().ok().map(Self::UpTo)
    }
}

/// Digits and scale of a decimal type; no digits: as many as a value has.
fn numeric(name: &str) -> Option<(Option<u32>, Option<i32>)> {
    if name == "numeric" {
        return Some((None, None));
    }
    let inner = name.strip_prefix("numeric(")?.strip_suffix(')')?;
    let (digits, scale) = inner.split_once(',')?;
    Some((Some(digits.parse().ok()?), Some(scale.parse().ok()?)))
}

/// The kind of a type of times, and the digits of its seconds.
fn time(name: &str) -> Option<(String, u32)> {
    let (kind, rest) = name.split_once(' ').unwrap_or((name, ""));
    let (kind, digits) = match kind.split_once('(') {
        None => (kind, 6),
        Some((kind, digits)) => (kind, digits.strip_suffix(')')?.parse().ok()?),
    };
    let is_time = kind == "timestamp" || kind == "time";
    (is_time && rest.ends_with("time zone")).then(|| (format!("{kind} {rest}"), digits))
}

/// What a row from before this column holds in it: its default, if that is the same at all times,
/// as the server itself fills a column that it adds; NULL, if it has none and may be NULL.
pub(crate) fn filling(
    session: &Session,
    catalog: &Catalog,
    table: TableIndex,
    column: ColumnIndex,
) -> Result<Filling, StoreError> {
    let (schema, relation) = catalog.table(table);
    let name = &relation.columns[column.get()].name;
    let operation = format!("look for the default of {}.{name}", schema.name);
    // Whether an expression is the same at all times is decided by the functions that it names,
    // one by one; what is not a function and depends on anything has node types of its own.
    let sql = "SELECT pg_get_expr(d.adbin, d.adrelid), a.attidentity <> '',
                d.adbin::text !~ '[{](COERCEVIAIO|SQLVALUEFUNCTION|NEXTVALUEEXPR|SUBLINK|XMLEXPR)'
            AND NOT EXISTS (
                SELECT FROM regexp_matches(d.adbin::text, ':(?:funcid|opfuncid) (\\d+)', 'g') m(ids)
                  LEFT JOIN pg_proc p ON p.oid = m.ids[1]::oid
                 WHERE p.provolatile IS DISTINCT FROM 'i'),
                format_type(a.atttypid, a.atttypmod),
                t.typtype = 'd' AND (t.typdefault IS NOT NULL OR t.typnotnull)
           FROM pg_attribute a
           JOIN pg_type t ON t.oid = a.atttypid
           LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
          WHERE a.attrelid = $1 AND a.attname = $2";
    let row = session.row(
        &operation,
        sql,
        &[(&relation.oid, Type::OID), (name, Type::TEXT)],
    )?;
    let nullable = schema.columns[column.get()].nullable;
    let Some(expression): Option<String> = get(&row, 0)? else {
        return Ok(match (get(&row, 1)?, nullable) {
            _ if get(&row, 4)? => Filling::Unknown("its domain has a default, or takes no NULL"),
            (true, _) => Filling::Unknown("it numbers its rows by itself"),
            (false, true) => Filling::Value(None),
            (false, false) => Filling::Unknown("it may not be NULL and has no default"),
        });
    };
    if !get::<Option<bool>>(&row, 2)?.unwrap_or(false) {
        return Ok(Filling::Unknown("its default is not the same at all times"));
    }
    let type_sql: String = get(&row, 3)?;
    let sql = format!(
        "SELECT CASE WHEN v IS DISTINCT FROM NULL THEN pg_catalog.format('%s', v) END
           FROM (SELECT ({expression})::{type_sql} AS v) d"
    );
    let row = session.row(&operation, &sql, &[])?;
    let value: Option<String> = get(&row, 0)?;
    if value.is_none() && !nullable {
        return Ok(Filling::Unknown("it may not be NULL and its default is"));
    }
    Ok(Filling::Value(value.map(String::into_bytes)))
}

/// The value that a text of an operator's is in this column, as the server writes it; or why it is none.
pub(crate) fn value_of(
    session: &Session,
    catalog: &Catalog,
    table: TableIndex,
    column: ColumnIndex,
    text: &str,
) -> Result<Result<Vec<u8>, String>, StoreError> {
    let (schema, relation) = catalog.table(table);
    let CatalogColumn { name, type_sql, .. } = &relation.columns[column.get()];
    let operation = format!("make a value for {}.{name}", schema.name);
    // A cast cuts texts that are too long off, which no INSERT does but for spaces.
    let sql = format!(
        "SELECT pg_catalog.format('%s', v.v::{type_sql}),
                t.typcategory = 'S' AND rtrim(v.v) <> rtrim((v.v::{type_sql})::text)
           FROM (SELECT $1::text AS v) v
           JOIN pg_catalog.pg_type t ON t.oid = pg_typeof(v.v::{type_sql})"
    );
    // The view goes on after a text that is no value.
    session.run(&operation, "SAVEPOINT reinstate_value")?;
    let value = session.row(&operation, &sql, &[(&text, Type::TEXT)]);
    let (end, value) = match value {
        Ok(row) if get(&row, 1)? => ("RELEASE", Err("it is longer than that".to_owned())),
        Ok(row) => ("RELEASE", Ok(get::<String>(&row, 0)?.into_bytes())),
        Err(error) if matches!(error.kind(), ErrorKind::Other | ErrorKind::Conflict) => {
            ("ROLLBACK TO", Err(error.to_string()))
        }
        Err(error) => return Err(error),
    };
    session.run(&operation, &format!("{end} SAVEPOINT reinstate_value"))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_types_are_taken_apart() {
        assert_eq!(numeric("numeric(10,2)"), Some((Some(10), Some(2))));
        assert_eq!(numeric("numeric"), Some((None, None)));
        assert_eq!(numeric("numeric_thing"), None);
        let zoned = "timestamp with time zone".to_owned();
        assert_eq!(
            time("timestamp(3) with time zone"),
            Some((zoned.clone(), 3))
        );
        assert_eq!(time("timestamp with time zone"), Some((zoned, 6)));
        assert_eq!(time("timestamptz"), None);
        assert_eq!(time("interval"), None);
        assert!(matches!(
            Text::parse("character varying(7)"),
            Some(Text::UpTo(7))
        ));
        assert!(Text::parse("character(7)").is_none());
    }
}
