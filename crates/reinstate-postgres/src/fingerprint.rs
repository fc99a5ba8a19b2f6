//! What identifies the state of one live tenant.
//!
//! Every version of a row has a place (table, page, line) and the number of the transaction that
//! wrote it. An insert, an update or a delete changes the set of them; locking a row or vacuuming
//! its table does not. Rewriting a table (VACUUM FULL, CLUSTER) moves rows and changes the
//! fingerprint although nothing changed: a plan made before is then refused, which is the safe
//! side.

use reinstate_core::{Fingerprint, StoreError, TenantId};

use crate::catalog::{Catalog, get};
use crate::own_sets::OwnSets;
use crate::session::Session;

/// Reads the tenant's fingerprint, by one query that the server aggregates.
///
/// # Errors
/// `NotFound` if the id cannot be a tenant's.
pub(crate) fn read_fingerprint(
    session: &Session,
    catalog: &Catalog,
    tenant: &TenantId,
) -> Result<Fingerprint, StoreError> {
    let operation = format!("read the state of {tenant}");
    let mut parts = Vec::new();
    let mut sets = OwnSets::new(catalog, tenant);
    for (index, _, table) in catalog.iter() {
        let Some(own) = sets.selection(index)? else {
            continue;
        };
        parts.push(format!(
            "SELECT {}::int8, count(*), coalesce(sum(hash_record_extended(
                    ROW(t.tableoid, t.ctid, t.xmin), 0)), 0)::text
               FROM {} AS t{} WHERE {}",
            table.oid,
            table.sql_rows(),
            own.sources,
            own.condition
        ));
    }
    let mut hasher = blake3::Hasher::new_derive_key("reinstate 2026 postgres fingerprint v1");
    if !parts.is_empty() {
        let sql = format!("{}{} ORDER BY 1", sets.with(), parts.join(" UNION ALL "));
        for row in session.rows(&operation, &sql, &[])? {
            let (table, count, sum): (i64, i64, String) =
                (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
            hasher
                .update(&table.to_le_bytes())
                .update(&count.to_le_bytes());
            hasher.update(sum.as_bytes()).update(b";");
        }
    }
    Ok(Fingerprint::new(hasher.finalize().as_bytes().as_slice()))
}
