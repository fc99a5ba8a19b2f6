//! Text of SQL statements: the only place where names and values are quoted.

use postgres_protocol::escape::{escape_identifier, escape_literal};

/// A name as SQL.
pub(crate) fn quote(identifier: &str) -> String {
    escape_identifier(identifier)
}

/// A text as SQL. Only for places that take no bound parameter: COPY and session settings.
pub(crate) fn literal(text: &str) -> String {
    escape_literal(text)
}

/// A name in a schema as SQL.
pub(crate) fn qualified(namespace: &str, relation: &str) -> String {
    format!("{}.{}", quote(namespace), quote(relation))
}

/// Names as SQL, each a column of `alias`, separated by commas.
pub(crate) fn columns_of<'a>(alias: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let names = names
        .into_iter()
        .map(|name| format!("{alias}.{}", quote(name)));
    names.collect::<Vec<_>>().join(", ")
}

/// Settings that decide how a value is written as text, and that a session of ours must not
/// inherit from the server, the database or the role.
///
/// `row_security = off` does not lift row-level security: a query that it would filter is an
/// error instead of an incomplete answer.
pub(crate) const PINNED_SETTINGS: &str = "\
SET client_encoding = 'UTF8';
SET search_path = pg_catalog, pg_temp;
SET standard_conforming_strings = on;
SET escape_string_warning = off;
SET DateStyle = 'ISO, YMD';
SET IntervalStyle = 'postgres';
SET TimeZone = 'UTC';
SET extra_float_digits = 3;
SET bytea_output = 'hex';
SET lc_monetary = 'C';
SET xmloption = 'content';
SET xmlbinary = 'base64';
SET array_nulls = on;
SET transform_null_equals = off;
SET quote_all_identifiers = off;
SET row_security = off;
SET synchronous_commit = on;
SET jit = off;
SET statement_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET idle_session_timeout = 0;
SET temp_buffers = '64MB';
";

/// Settings for statements about one tenant: its rows are few among many, and found by indexes.
///
/// With the server's usual notion of a disk, a hash join that reads a whole table of everybody's
/// looks cheaper than a few thousand look-ups, for as long as the table is small; and starting
/// other processes for such a query takes longer than the query.
pub(crate) const TENANT_SETTINGS: &str = "\
SET max_parallel_workers_per_gather = 0;
SELECT set_config('random_page_cost',
    least(current_setting('random_page_cost')::float8, 1.1)::text, false);
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_cannot_leave_their_quotes() {
        assert_eq!(
            quote("a\"; DROP TABLE b; --"),
            "\"a\"\"; DROP TABLE b; --\""
        );
        assert_eq!(qualified("s", "Order"), "\"s\".\"Order\"");
        assert_eq!(columns_of("t", ["id", "a b"]), "t.\"id\", t.\"a b\"");
        assert_eq!(literal("o'clock"), "'o''clock'");
        assert_eq!(literal("a\\'b").trim(), "E'a\\\\''b'");
    }
}
