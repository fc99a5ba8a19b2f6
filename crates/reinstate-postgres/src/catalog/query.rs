//! The questions to the system catalogue.

use std::collections::BTreeMap;

use reinstate_core::{SequenceValue, StoreError};
use tokio_postgres::Row;

use super::{Catalog, OWN_NAMESPACE, display_name};
use crate::session::Session;
use crate::sql::{literal, qualified};

/// Ordinary and partitioned tables; partitions are reached through their parent.
pub(crate) const IS_TABLE: &str = "c.relkind IN ('r', 'p') AND NOT c.relispartition \
     AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

/// A policy that applies to the role, of a table `c`.
pub(crate) const POLICY: &str = "pg_policy p WHERE p.polrelid = c.oid
     AND EXISTS (SELECT FROM unnest(p.polroles) r WHERE r = 0 OR pg_has_role(r, 'USAGE'))";

/// That a policy depends on the tenant that a merge says it is about, in whatever way.
const NAMES_TENANT: &str = "(coalesce(pg_get_expr(p.polwithcheck, p.polrelid),
       pg_get_expr(p.polqual, p.polrelid)) LIKE '%reinstate.tenant%')";

/// The tables that a reader may lock, by object id, as SQL and as users write them: all that it
/// may read.
pub(crate) fn lockable_tables(session: &Session) -> Result<Vec<(u32, String, String)>, StoreError> {
    let sql = format!(
        "SELECT c.oid, n.nspname::text, c.relname::text
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE {IS_TABLE} AND n.nspname <> {} AND has_schema_privilege(n.oid, 'USAGE')
            AND has_table_privilege(c.oid, 'SELECT')
          ORDER BY c.oid",
        literal(OWN_NAMESPACE)
    );
    let rows = session.rows("list the tables", &sql, &[])?;
    let name_it = |row: &Row| {
        let (namespace, relation): (String, String) = (get(row, 1)?, get(row, 2)?);
        let sql = qualified(&namespace, &relation);
        Ok((get(row, 0)?, sql, display_name(&namespace, &relation)))
    };
    rows.iter().map(name_it).collect()
}

/// The relations that `c` consists of, itself included. The server's own function locks partitions until the end
/// of the transaction, and not what they are part of: whoever alters that at the same time would be in a deadlock
/// with us.
pub(crate) const PARTITIONS: &str = "WITH RECURSIVE tree (oid) AS (
                        SELECT c.oid
                        UNION ALL
                        SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
                          JOIN pg_class k ON k.oid = i.inhrelid AND k.relispartition)
                    SELECT t.oid FROM tree t";

pub(super) fn tables(session: &Session) -> Result<Vec<Row>, StoreError> {
    let sql = format!(
        "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind = 'p',
                row_security_active(c.oid),
                has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'),
                CASE WHEN c.relkind = 'p' THEN ARRAY(
                    SELECT p.oid FROM ({PARTITIONS}) p WHERE p.oid <> c.oid ORDER BY 1) ELSE '{{}}' END,
                EXISTS (SELECT FROM {POLICY} AND p.polpermissive AND p.polcmd IN ('r', '*')
                           AND pg_get_expr(p.polqual, p.polrelid) = 'true')
                AND NOT EXISTS (SELECT FROM {POLICY} AND NOT p.polpermissive
                           AND p.polcmd IN ('r', '*')
                           AND pg_get_expr(p.polqual, p.polrelid) IS DISTINCT FROM 'true'),
                (SELECT bool_and(EXISTS (
                            SELECT FROM {POLICY} AND NOT p.polpermissive
                               AND p.polcmd IN (written, '*') AND {NAMES_TENANT})
                         OR NOT EXISTS (
                            SELECT FROM {POLICY} AND p.polpermissive
                               AND p.polcmd IN (written, '*') AND NOT {NAMES_TENANT}))
                   FROM unnest('{{a,w,d}}'::\"char\"[]) AS written),
                greatest(c.relpages, 0)
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE {IS_TABLE} AND n.nspname <> {}",
        literal(OWN_NAMESPACE)
    );
    session.rows("read the catalogue of tables", &sql, &[])
}

pub(super) fn columns(session: &Session) -> Result<Vec<Row>, StoreError> {
    let sql = format!(
        "SELECT a.attrelid, a.attnum, a.attname::text, format_type(a.atttypid, a.atttypmod),
                NOT a.attnotnull, a.attidentity = 'a', coalesce(l.collisdeterministic, true),
                a.atttypid,
                CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END,
                CASE WHEN b.typtype = 'e' THEN format_type(b.oid, NULL) END,
                ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = b.oid)
           FROM pg_attribute a
           JOIN pg_class c ON c.oid = a.attrelid
           JOIN pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_type t ON t.oid = a.atttypid
           JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
           LEFT JOIN pg_collation l ON l.oid = a.attcollation
          WHERE {IS_TABLE} AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
          ORDER BY a.attrelid, a.attnum"
    );
    session.rows("read the catalogue of columns", &sql, &[])
}

/// Generated columns, with the expression that each is computed by.
pub(super) fn generated_columns(session: &Session) -> Result<Vec<Row>, StoreError> {
    let sql = "SELECT a.attrelid, a.attname::text, pg_get_expr(d.adbin, d.adrelid)
                 FROM pg_attribute a
                 JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                WHERE a.attgenerated <> '' AND NOT a.attisdropped
                ORDER BY a.attrelid, a.attnum";
    session.rows("read the catalogue of generated columns", sql, &[])
}

/// Columns in which NULL could break a rule that another value keeps: those of CHECK constraints and of
/// unique indexes that tell NULL from what is not known, and of domains that take no NULL.
///
/// All that SQL computes otherwise is unknown if a part of it is, and what is unknown breaks no rule.
pub(super) fn watched_columns(session: &Session) -> Result<Vec<Row>, StoreError> {
    let tells_null = |expression: &str| {
        format!(
            "({expression}::text ~ '[{{](NULLTEST|BOOLEANTEST|COALESCE|CASE|DISTINCTEXPR|MINMAX|ROW|\
                                         ARRAY|XML|SUBLINK)'
              OR EXISTS (SELECT FROM regexp_matches({expression}::text,
                                                    ':(?:funcid|opfuncid) (\\d+)', 'g') m(ids)
                           JOIN pg_proc p ON p.oid = m.ids[1]::oid WHERE NOT p.proisstrict))"
        )
    };
    let sql = format!(
        "SELECT a.attrelid, a.attname::text FROM pg_attribute a
           JOIN (SELECT k.conrelid AS relation, unnest(k.conkey) AS number
                   FROM pg_constraint k WHERE k.contype = 'c' AND k.conrelid <> 0 AND {}
                 UNION
                 SELECT i.indrelid, unnest(i.indkey::int2[]) FROM pg_index i
                  WHERE i.indisunique AND i.indnullsnotdistinct
                 UNION
                 SELECT i.indrelid, d.refobjsubid FROM pg_index i
                   JOIN pg_depend d ON d.classid = 'pg_class'::regclass
                    AND d.objid = i.indexrelid AND d.refclassid = 'pg_class'::regclass
                    AND d.refobjid = i.indrelid
                  WHERE (i.indisunique OR i.indisexclusion)
                    AND ({} OR {})
                 UNION
                 SELECT c.attrelid, c.attnum FROM pg_attribute c
                   JOIN pg_type t ON t.oid = c.atttypid AND t.typtype = 'd'
                  WHERE t.typnotnull OR EXISTS (
                        SELECT FROM pg_constraint k WHERE k.contypid = t.oid AND {})) w
             ON w.relation = a.attrelid AND w.number = a.attnum
          WHERE a.attnum > 0 AND NOT a.attisdropped
          ORDER BY a.attrelid, a.attnum",
        tells_null("k.conbin"),
        tells_null("i.indpred"),
        tells_null("i.indexprs"),
        tells_null("k.conbin"),
    );
    session.rows("read the catalogue of constraints", &sql, &[])
}

/// Unique indexes and exclusion constraints.
pub(super) fn unique_indexes(session: &Session) -> Result<Vec<Row>, StoreError> {
    let sql = format!(
        "SELECT i.indrelid, x.relname::text, i.indisprimary, i.indnullsnotdistinct,
                pg_get_expr(i.indpred, i.indrelid),
                ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, true)
                        FROM generate_series(1, i.indnkeyatts) k ORDER BY k),
                ARRAY(SELECT i.indkey[k - 1]
                        FROM generate_series(1, i.indnkeyatts) k ORDER BY k),
                COALESCE(
                    (SELECT ARRAY(SELECT format('OPERATOR(%s.%s)',
                                                o.oprnamespace::regnamespace::text, o.oprname)
                                    FROM unnest(e.conexclop) WITH ORDINALITY u(operator, place)
                                    JOIN pg_operator o ON o.oid = u.operator ORDER BY u.place)
                       FROM pg_constraint e WHERE e.conindid = i.indexrelid AND e.contype = 'x'),
                    ARRAY(SELECT (SELECT format('OPERATOR(%s.%s)',
                                                o.oprnamespace::regnamespace::text, o.oprname)
                                    FROM pg_opclass f
                                    JOIN pg_amop m ON m.amopfamily = f.opcfamily
                                     AND m.amoplefttype = f.opcintype
                                     AND m.amoprighttype = f.opcintype AND m.amopstrategy = 3
                                    JOIN pg_operator o ON o.oid = m.amopopr
                                   WHERE f.oid = i.indclass[k - 1])
                            FROM generate_series(1, i.indnkeyatts) k ORDER BY k)),
                i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
                AND NOT i.indisexclusion,
                i.indimmediate, i.indisexclusion,
                i.indisvalid AND i.indisunique AND NOT i.indnullsnotdistinct
                -- WITHOUT OVERLAPS is both: several rows may meet one.
                AND NOT i.indisexclusion
                AND NOT EXISTS (SELECT FROM generate_series(1, i.indnkeyatts) k
                                  LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid
                                   AND a.attnum = i.indkey[k - 1]
                                 WHERE a.attcollation IS DISTINCT FROM i.indcollation[k - 1])
           FROM pg_index i
           JOIN pg_class x ON x.oid = i.indexrelid
           JOIN pg_class c ON c.oid = i.indrelid
           JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE {IS_TABLE} AND (i.indisunique OR i.indisexclusion) AND i.indislive
          ORDER BY i.indrelid, NOT i.indisprimary, x.relname"
    );
    session.rows("read the catalogue of unique indexes", &sql, &[])
}

pub(super) fn foreign_keys(session: &Session) -> Result<Vec<Row>, StoreError> {
    let names = |side: &str, table: &str| {
        format!(
            "ARRAY(SELECT a.attname::text FROM unnest(k.{side}) WITH ORDINALITY u(number, place)
               JOIN pg_attribute a ON a.attrelid = k.{table} AND a.attnum = u.number
              ORDER BY u.place)"
        )
    };
    let sql = format!(
        "SELECT k.conname::text, k.conrelid, k.confrelid, k.convalidated,
                k.confdeltype::text, k.confupdtype::text, {}, {},
                ARRAY(SELECT format('OPERATOR(%s.%s)', o.oprnamespace::regnamespace::text, o.oprname)
                        FROM unnest(k.conpfeqop) WITH ORDINALITY u(operator, place)
                        JOIN pg_operator o ON o.oid = u.operator ORDER BY u.place),
                k.condeferrable AND k.confdeltype <> 'r' AND k.confupdtype <> 'r',
                k.confmatchtype = 'f'
           FROM pg_constraint k WHERE k.contype = 'f' AND k.conparentid = 0
          ORDER BY k.conrelid, k.conname",
        names("conkey", "conrelid"),
        names("confkey", "confrelid")
    );
    session.rows("read the catalogue of foreign keys", &sql, &[])
}

/// Triggers with their event bits: 4 insert, 8 delete, 16 update. Those that a partition has
/// from its parent are the parent's.
pub(super) fn triggers(session: &Session) -> Result<Vec<Row>, StoreError> {
    let sql = "SELECT t.tgrelid, t.tgname::text, t.tgtype::int4 FROM pg_trigger t
          WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgenabled IN ('O', 'A')
            AND NOT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                             WHERE p.oid = t.tgfoid AND n.nspname = 'reinstate')
         UNION ALL
         SELECT r.ev_class, r.rulename::text,
                CASE r.ev_type WHEN '2' THEN 16 WHEN '3' THEN 4 ELSE 8 END
           FROM pg_rewrite r
          WHERE r.rulename <> '_RETURN' AND r.ev_enabled IN ('O', 'A')
            AND r.ev_type IN ('2', '3', '4')
          ORDER BY 1, 2";
    session.rows("read the catalogue of triggers", sql, &[])
}

/// Sequences that a column owns, is an identity by, or takes its default from.
pub(super) fn sequences(session: &Session) -> Result<Vec<Row>, StoreError> {
    let sql = "WITH used AS (
           SELECT d.refobjid AS relation, d.refobjsubid::int4 AS number, d.objid AS sequence
             FROM pg_depend d
            WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
              AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
           UNION
           SELECT f.adrelid, f.adnum::int4, d.refobjid
             FROM pg_attrdef f
             JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
            WHERE d.refclassid = 'pg_class'::regclass
              -- Of any other expression nobody knows which of its numbers a value came from.
              AND pg_get_expr(f.adbin, f.adrelid)
                  ~ '^[(]?nextval[(]''[^'']*''::regclass[)][)]?(::[a-z ]+)?$')
         SELECT u.relation, u.number, n.nspname::text, c.relname::text, s.seqincrement, s.seqmax,
                s.seqcycle,
                CASE WHEN has_schema_privilege(n.oid, 'USAGE')
                      AND has_sequence_privilege(c.oid, 'USAGE, SELECT')
                     THEN coalesce(pg_sequence_last_value(c.oid), s.seqstart - s.seqincrement) END
           FROM used u
           JOIN pg_class c ON c.oid = u.sequence AND c.relkind = 'S'
           JOIN pg_sequence s ON s.seqrelid = c.oid
           JOIN pg_namespace n ON n.oid = c.relnamespace
          ORDER BY 3, 4, 1, 2";
    session.rows("read the catalogue of sequences", sql, &[])
}

/// What every sequence of a tenant-owned or shared table has handed out. Sequences do not obey
/// transactions: the values are of the moment of the question. Those that the role may not read
/// are left out.
pub(crate) fn read_sequences(
    session: &Session,
    catalog: &Catalog,
) -> Result<Vec<SequenceValue>, StoreError> {
    let mut values = BTreeMap::new();
    for row in sequences(session)? {
        let last_value: Option<i64> = get(&row, 7)?;
        let table = catalog.by_oid(get(&row, 0)?);
        if let (Some(_), Some(last_value)) = (table, last_value) {
            let (namespace, relation): (String, String) = (get(&row, 2)?, get(&row, 3)?);
            values.insert(display_name(&namespace, &relation), last_value);
        }
    }
    let values = values.into_iter();
    Ok(values
        .map(|(name, last_value)| SequenceValue { name, last_value })
        .collect())
}

/// A value of a row of the catalogue.
pub(crate) fn get<'r, T: tokio_postgres::types::FromSql<'r>>(
    row: &'r Row,
    column: usize,
) -> Result<T, StoreError> {
    row.try_get(column)
        .map_err(|error| crate::error::store_error("read the catalogue", &error))
}
