//! A catalogue that one transaction leaves to the next.
//!
//! Reading the catalogue takes the server as long for ten rows of a tenant as for a million, and a restore needs
//! it three times: for the plan, for the merge, and for what is looked at after it. Whether it is what it was is a
//! smaller question: as with the rows of a tenant, the versions of the rows that it is read from tell. See
//! [`crate::fingerprint`].
//!
//! **Invariant:** what is handed out is what [`read_catalog`] would have read in the same transaction, but for the
//! numbers of pages, which VACUUM and ANALYZE change without making new versions and which only weigh tables
//! against each other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reinstate_core::StoreError;

use super::{Catalog, get, read_catalog};
use crate::session::Session;
use crate::tenancy::TenancyMap;

/// The relations that the questions to the catalogue read, themselves or by the functions of the server that they
/// call, for expressions and privileges. Temporary schemas are made by whoever first needs one.
const READ: [&str; 22] = [
    "pg_amop",
    "pg_attrdef",
    "pg_attribute",
    "pg_auth_members",
    "pg_class",
    "pg_collation",
    "pg_constraint",
    "pg_database WHERE datname = current_database()",
    "pg_depend",
    "pg_enum",
    "pg_index",
    "pg_inherits",
    "pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'",
    "pg_opclass",
    "pg_operator",
    "pg_partitioned_table",
    "pg_policy",
    "pg_proc",
    "pg_rewrite",
    "pg_sequence",
    "pg_trigger",
    "pg_type",
];

/// The last catalogue that a store read; every session of it has the same role and the same settings.
#[derive(Debug, Default)]
pub(crate) struct KeptCatalog {
    kept: Mutex<Option<Kept>>,
}

#[derive(Debug)]
struct Kept {
    state: State,
    catalog: Arc<Catalog>,
}

/// How many rows the catalogue was read from, the sum of their versions, and what the role is.
type State = (i64, String, String);

impl KeptCatalog {
    /// The catalogue as the session's transaction sees it. Its snapshot has to be taken for good.
    ///
    /// # Errors
    /// As [`read_catalog`].
    pub(crate) fn read(
        &self,
        session: &Session,
        map: &TenancyMap,
    ) -> Result<Arc<Catalog>, StoreError> {
        let state = state(session)?;
        if let Some(kept) = self.kept().as_ref()
            && kept.state == state
        {
            return Ok(Arc::clone(&kept.catalog));
        }
        let catalog = Arc::new(read_catalog(session, map)?);
        *self.kept() = Some(Kept {
            state,
            catalog: Arc::clone(&catalog),
        });
        Ok(catalog)
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn state(session: &Session) -> Result<State, StoreError> {
    let rows = READ.map(|relation| format!("SELECT tableoid, ctid, xmin FROM {relation}"));
    let sql = format!(
        "SELECT count(*), sum(hash_record_extended(ROW(v.tableoid, v.ctid, v.xmin), 0))::text,
                (SELECT ROW(r.oid, r.rolsuper, r.rolinherit, r.rolbypassrls)::text
                   FROM pg_roles r WHERE r.rolname = current_user)
           FROM ({}) v",
        rows.join(" UNION ALL ")
    );
    let row = session.row("look whether the catalogue changed", &sql, &[])?;
    Ok((get(&row, 0)?, get(&row, 1)?, get(&row, 2)?))
}
