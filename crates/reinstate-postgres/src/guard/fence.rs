//! The fence: the tenant's own writes wait while it is restored.
//!
//! A trigger on every table of tenants looks whose rows each statement changed, and takes the fences of
//! these tenants in shared mode until the transaction ends. A merge has the fence of its tenant for
//! itself: it begins when no transaction that wrote to the tenant is open, and none commits until it
//! is over. Other tenants' fences are other locks.
//!
//! A writer has rows locked by the time it waits, and the merge may wait for these rows: so it waits for
//! less than it takes the server to look for a deadlock, and is refused then, as one to be tried again.
//! A merge in a database of many users is done by then; if it is not, its users read on.
//!
//! The function runs with the rights of the tables' owner: an application need not be allowed to read
//! the tables that say whose a row is.

use reinstate_core::{StoreError, TableIndex};

use super::{GuardState, GuardedTable, Triggers, create_triggers, function_name};
use crate::catalog::{Catalog, get};
use crate::lease::FENCE_NUMBER;
use crate::owner::{Ownership, TENANT_SETTING, ownership};
use crate::session::Session;
use crate::snapshot::{Access, begin};
use crate::sql::literal;
use crate::store::PostgresStore;

/// The triggers of one table, as those of the guard.
pub(super) const TRIGGERS: [(&str, &str, &str); 3] = [
    ("reinstate_fence_insert", "INSERT", "NEW TABLE AS new_rows"),
    (
        "reinstate_fence_update",
        "UPDATE",
        "OLD TABLE AS old_rows NEW TABLE AS new_rows",
    ),
    ("reinstate_fence_delete", "DELETE", "OLD TABLE AS old_rows"),
];

/// How long a writer waits for a restore of its tenant. Less than `deadlock_timeout` is by default.
const WAIT: &str = "500ms";

/// A statement that changes rows of more tenants passes the fence by: its locks would fill the
/// server's table of locks.
const TENANTS_MAX: usize = 64;

impl PostgresStore {
    /// Puts the fence on every table of tenants, or renews it, one table after the other, as
    /// [`install_guard`](Self::install_guard) does. From then on writes of a tenant's users wait while it
    /// is restored, for half a second at most, and are refused as *lock not available* after that.
    ///
    /// # Errors
    /// As [`install_guard`](Self::install_guard).
    pub fn install_fence(&self) -> Result<Vec<GuardedTable>, StoreError> {
        let session = Session::connect(self.settings())?;
        let catalog = begin(&session, &self.map, Access::ReadOnly)?.catalog;
        let fences = Fences::read(&session)?;
        session.roll_back();
        for (index, schema, _) in catalog.iter() {
            let Some(owned) = ownership(&catalog, index, "t") else {
                continue;
            };
            if fences.state(&catalog, index) != GuardState::Armed {
                let operation = format!("fence table {}", schema.name);
                session.run(&operation, &definition(&catalog, index, &owned))?;
            }
        }
        self.guard_status()
    }
}

/// Whether any table of the database has the fence, awake.
///
/// # Errors
/// As the server reports it.
pub(crate) fn is_fence_installed(session: &Session) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT FROM pg_trigger t
                     JOIN pg_proc p ON p.oid = t.tgfoid
                     JOIN pg_namespace f ON f.oid = p.pronamespace
                    WHERE f.nspname = 'reinstate' AND NOT t.tgisinternal AND t.tgenabled <> 'D'
                      AND starts_with(t.tgname::text, 'reinstate_fence_'))";
    get(&session.row("look for the fence", sql, &[])?, 0)
}

/// The fences that the database has.
pub(super) struct Fences(Triggers);

impl Fences {
    pub(super) fn read(session: &Session) -> Result<Self, StoreError> {
        Triggers::read(session, "reinstate_fence_").map(Self)
    }

    pub(super) fn state(&self, catalog: &Catalog, table: TableIndex) -> GuardState {
        let oid = catalog.tables[table.get()].oid;
        ownership(catalog, table, "t")
            .map_or(GuardState::Absent, |owned| self.0.state(oid, &body(&owned)))
    }
}

/// The statements that fence a table, as one transaction.
fn definition(catalog: &Catalog, table: TableIndex, owned: &Ownership) -> String {
    let name = catalog.table(table).1.sql_name();
    let function = function_name("fence", &name);
    format!(
        "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
             SET search_path = pg_catalog, pg_temp SET lock_timeout = '{WAIT}' AS {};\n{}",
        literal(&body(owned)),
        create_triggers(&TRIGGERS, &name, &function)
    )
}

/// What the function of a table does.
fn body(owned: &Ownership) -> String {
    let (joins, owner) = owned.captured();
    let pass = |rows: &str| {
        format!(
            "        owners := ARRAY(SELECT DISTINCT ({owner}) COLLATE \"C\" FROM {rows} AS t{joins}
                         WHERE ({owner}) COLLATE \"C\" <> '' ORDER BY 1 LIMIT {TENANTS_MAX} + 1);
        IF cardinality(owners) > {TENANTS_MAX} THEN
            RETURN NULL;
        END IF;
        FOREACH tenant IN ARRAY owners LOOP
            fence := {};
            IF NOT pg_try_advisory_xact_lock_shared(fence) THEN
                BEGIN
                    PERFORM pg_advisory_xact_lock_shared(fence);
                EXCEPTION WHEN lock_not_available THEN
                    RAISE lock_not_available USING
                        MESSAGE = format('%s is being restored', tenant),
                        HINT = 'Try again in a moment.';
                END;
            END IF;
        END LOOP;\n",
            FENCE_NUMBER.replace("{tenant}", "tenant")
        )
    };
    format!(
        "\nDECLARE
    owners text[];
    tenant text;
    fence bigint;
BEGIN
    IF coalesce({TENANT_SETTING}, '') <> '' THEN
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
{}    END IF;
    IF TG_OP <> 'DELETE' THEN
{}    END IF;
    RETURN NULL;
END
",
        pass("old_rows"),
        pass("new_rows")
    )
}
