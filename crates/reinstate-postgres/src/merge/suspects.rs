//! What may have changed rows that the plan does not have.
//!
//! Triggers say what they do in their functions only. One whose function, or whose rule's text, has the
//! table's name in it is named; where none has, all that fire by themselves are, since a function may call
//! another one. Foreign keys that act are in the catalogue.

use reinstate_core::{ChangeSource, StoreError, TableName};
use tokio_postgres::types::{ToSql, Type};

use crate::catalog::{Catalog, OWN_NAMESPACE, get};
use crate::session::Session;

/// How many are named.
const NAMED_MAX: usize = 5;

/// Triggers, rules and foreign keys of the tables that the plan changes which may have changed rows of
/// `table`.
pub(super) fn find(
    session: &Session,
    catalog: &Catalog,
    table: &TableName,
    changes: &dyn ChangeSource,
) -> Result<Vec<String>, StoreError> {
    let changed = changes.tables().iter();
    let changed: Vec<u32> = changed
        .map(|table| catalog.tables[table.get()].oid)
        .collect();
    let name = table.as_str();
    let relation = name.rsplit_once('.').map_or(name, |(_, relation)| relation);
    let sql = "SELECT format('trigger %s.%s', t.tgrelid::regclass, t.tgname),
                      position(lower($2) IN lower(p.prosrc)) > 0
                 FROM pg_trigger t
                 JOIN pg_proc p ON p.oid = t.tgfoid
                 JOIN pg_namespace n ON n.oid = p.pronamespace
                WHERE t.tgrelid = ANY ($1) AND NOT t.tgisinternal AND t.tgenabled <> 'D'
                  AND n.nspname <> $3
                UNION ALL
               SELECT format('rule %s.%s', r.ev_class::regclass, r.rulename),
                      position(lower($2) IN lower(pg_get_ruledef(r.oid))) > 0
                 FROM pg_rewrite r WHERE r.ev_class = ANY ($1) AND r.rulename <> '_RETURN'
                UNION ALL
               SELECT format('foreign key %s of %s', k.conname, k.conrelid::regclass), true
                 FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
                WHERE k.confrelid = ANY ($1) AND k.contype = 'f' AND c.relname = $2
                  AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd'))
                ORDER BY 1";
    let values: [(&(dyn ToSql + Sync), Type); 3] = [
        (&changed, Type::OID_ARRAY),
        (&relation, Type::TEXT),
        (&OWN_NAMESPACE, Type::TEXT),
    ];
    let mut found = Vec::new();
    for row in session.rows("look for what changed other rows", sql, &values)? {
        found.push((get::<String>(&row, 0)?, get::<bool>(&row, 1)?));
    }
    let has_named = found.iter().any(|(_, is_named)| *is_named);
    let names = found
        .into_iter()
        .filter(|(_, is_named)| *is_named || !has_named)
        .map(|(name, _)| name);
    let names = names.map(|name| name.replace(" public.", " "));
    Ok(names.take(NAMED_MAX).collect())
}
