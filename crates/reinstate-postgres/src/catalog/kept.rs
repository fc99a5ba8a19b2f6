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

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use reinstate_core::StoreError;

use super::{Catalog, get, read_catalog};
use crate::session::Session;
use crate::tenancy::TenancyMap;

/// Tables of the server's own that say nothing of what tables are, whose they are and who may do what: statistics,
/// large objects, comments, and what it replicates or reaches elsewhere.
const WITHOUT_MEANING: &str = "'pg_description', 'pg_largeobject', 'pg_largeobject_metadata', \
    'pg_replication_origin', 'pg_seclabel', 'pg_shdescription', 'pg_shseclabel', 'pg_statistic', \
    'pg_statistic_ext', 'pg_statistic_ext_data', 'pg_subscription', 'pg_subscription_rel', 'pg_user_mapping'";

/// The last catalogue that a store read; every session of it has the same role and the same settings.
#[derive(Debug, Default)]
pub(crate) struct KeptCatalog {
    /// What asks for the state, once it is known what there is to be asked; none if that is not all.
    question: OnceLock<Option<String>>,
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
        let Some(state) = self.state(session)? else {
            return Ok(Arc::new(read_catalog(session, map)?));
        };
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

    fn state(&self, session: &Session) -> Result<Option<State>, StoreError> {
        if self.question.get().is_none() {
            let _ = self.question.set(question(session)?);
        }
        let Some(sql) = self.question.get().and_then(Option::as_ref) else {
            return Ok(None);
        };
        let row = session.row("look whether the catalogue changed", sql, &[])?;
        Ok(Some((get(&row, 0)?, get(&row, 1)?, get(&row, 2)?)))
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What asks for the state of the catalogue; none if the role may not read all that belongs to it.
///
/// That is every table that the server has of its own, of whatever version it is: what the questions to the
/// catalogue read themselves, and what the functions of the server look at that they call. Roles, which only a
/// superuser may read, are there by what they are to the session, and their members. Temporary schemas are left
/// out: they are made by whoever first needs one, a merge among them.
fn question(session: &Session) -> Result<Option<String>, StoreError> {
    let sql = format!(
        "SELECT bool_and(has_table_privilege(c.oid, 'SELECT')),
                string_agg(format('SELECT tableoid, ctid, xmin FROM pg_catalog.%I', c.relname)
                           || CASE c.relname WHEN 'pg_namespace'
                              THEN ' WHERE nspname !~ ''^pg_(toast_)?temp_''' ELSE '' END, ' UNION ALL ')
           FROM pg_class c
          WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind = 'r'
            AND c.relname NOT IN ('pg_authid', {WITHOUT_MEANING})"
    );
    let row = session.row("list the tables of the server's own", &sql, &[])?;
    let (is_readable, rows): (bool, String) = (get(&row, 0)?, get(&row, 1)?);
    Ok(is_readable.then(|| {
        format!(
            "SELECT count(*), sum(hash_record_extended(ROW(v.tableoid, v.ctid, v.xmin), 0))::text,
                    (SELECT ROW(r.oid, r.rolsuper, r.rolinherit, r.rolbypassrls)::text
                       FROM pg_roles r WHERE r.rolname = current_user)
               FROM ({rows}) v"
        )
    }))
}
