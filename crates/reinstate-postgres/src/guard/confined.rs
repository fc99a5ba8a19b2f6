//! Whether policies of row-level security confine a role to the tenant that a merge says it is about.
//!
//! That a policy names the tenant does not say so: it may let other rows pass besides. So policies are
//! compared with the condition that `guard role` writes, both as the server itself spells them: the
//! condition becomes a policy of an empty temporary table of the same columns, which is dropped again.

use std::collections::BTreeSet;

use reinstate_core::{StoreError, TableIndex};

use crate::catalog::{Catalog, POLICY};
use crate::owner::ownership;
use crate::session::Session;
use crate::sql::quote;

/// The longest answer: a number for each table.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Those of the tables in which policies let the session's role write the tenant's rows and no others. In a
/// transaction that may make temporary tables.
///
/// # Errors
/// As the server reports it.
pub(crate) fn confined(
    session: &Session,
    catalog: &Catalog,
    tables: impl Iterator<Item = TableIndex>,
) -> Result<BTreeSet<TableIndex>, StoreError> {
    let named = tables.filter(|table| catalog.tables[table.get()].names_tenant_in_policies);
    let questions: Vec<String> = named.filter_map(|table| question(catalog, table)).collect();
    if questions.is_empty() {
        return Ok(BTreeSet::new());
    }
    let operation = "compare the policies of row-level security";
    let answer = session.answer(operation, &questions.concat(), ANSWER_BYTES_MAX)?;
    let numbers = answer.lines().filter_map(|line| line.parse().ok());
    Ok(numbers.map(TableIndex).collect())
}

/// Statements that answer with the number of the table if its policies confine the role.
fn question(catalog: &Catalog, table: TableIndex) -> Option<String> {
    let relation = &catalog.tables[table.get()];
    // The policy calls its row by the table's name.
    let name = quote(&relation.relation);
    let own = ownership(catalog, table, &name)?.is_named_by_setting();
    let temporary = format!("pg_temp.{name}");
    Some(format!(
        "CREATE TEMPORARY TABLE {name} (LIKE {});
         CREATE POLICY reinstate_form ON {temporary} USING ({own});
         SELECT {} FROM pg_class c,
                (SELECT pg_get_expr(polqual, polrelid) AS own FROM pg_policy
                  WHERE polrelid = (SELECT oid FROM pg_class
                                     WHERE relnamespace = pg_my_temp_schema()
                                       AND relname = {})) AS form
          WHERE c.oid = {} AND NOT EXISTS (
                SELECT FROM unnest('{{a,w,d}}'::\"char\"[]) AS written
                 WHERE NOT EXISTS (SELECT FROM {POLICY} AND NOT p.polpermissive
                                      AND p.polcmd IN (written, '*') AND {IS_OWN})
                   AND EXISTS (SELECT FROM {POLICY} AND p.polpermissive
                                  AND p.polcmd IN (written, '*') AND NOT {IS_OWN}));
         DROP TABLE {temporary};\n",
        relation.sql_name(),
        table.0,
        crate::sql::literal(&relation.relation),
        relation.oid,
    ))
}

/// That a policy lets a statement of the kind `written` see and leave rows of the tenant and no others.
const IS_OWN: &str = "coalesce(
    (written = 'a' OR pg_get_expr(p.polqual, p.polrelid) = form.own)
    AND (written = 'd' OR form.own = pg_get_expr(coalesce(p.polwithcheck, p.polqual), p.polrelid)),
    false)";
