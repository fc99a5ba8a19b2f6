//! Rows of everybody that are gone, created for a tenant's rows that refer to them.
//!
//! Only in tables that `create_missing` names, and only rows whose key nobody has: nothing that is there
//! is written over. What somebody made meanwhile has to be the same.

use reinstate_core::{
    ChangeCounts, ChangeSource, ErrorKind, RowRole, SharedCreation, StoreError, TableIndex,
    Tenancy, TenantId,
};
use tokio_postgres::types::Type;

use super::sequences::RestoredValues;
use super::staging::{StageColumns, Staging};
use super::statements::Target;
use crate::catalog::{Catalog, get};
use crate::effects::side_effects;
use crate::guard::{GuardState, Guards};
use crate::session::Session;
use crate::tenancy::TenancyMap;

/// Stages of tenants' rows are numbered from one.
const STAGE_NUMBER_FIRST: u32 = 1_000_000;

/// Whether rows of everybody may be created in a table. Where guards are needed, one has to be there
/// that lets this role create such rows and do nothing else.
pub(crate) fn shared_creation(
    session: &Session,
    catalog: &Catalog,
    table: TableIndex,
    is_unguarded: bool,
) -> Result<SharedCreation, StoreError> {
    let (schema, relation) = catalog.table(table);
    if !relation.creates_missing || schema.tenancy != Tenancy::Shared {
        return Ok(SharedCreation::NotAllowed);
    }
    let sql = "SELECT has_any_column_privilege($1::oid, 'INSERT'),
                      has_any_column_privilege($1::oid, 'UPDATE')
                      OR has_table_privilege($1::oid, 'DELETE')";
    let operation = "check what the role may write";
    let row = session.row(operation, sql, &[(&relation.oid, Type::OID)])?;
    let name = &schema.name;
    if !get::<bool>(&row, 0)? {
        let reason = format!("the role lacks INSERT on {name}: GRANT it, or create the rows");
        return Ok(SharedCreation::Refused(reason));
    }
    let can_do_more: bool = get(&row, 1)?;
    let guard = Guards::read(session)?.state(catalog, table);
    // One that was made before create_missing named the table would stop the merge.
    let is_safe = match guard {
        GuardState::Armed => true,
        GuardState::Outdated => false,
        GuardState::Absent => is_unguarded || !can_do_more,
    };
    if is_safe {
        return Ok(SharedCreation::Allowed);
    }
    let reason = format!(
        "{name} has no guard that lets them be created and nothing else: run `reinstate guard \
         install` as the owner of the tables, or restore as a role that may not UPDATE or DELETE there"
    );
    Ok(SharedCreation::Refused(reason))
}

/// What a merge creates rows of everybody with.
pub(super) struct SharedRows<'a> {
    pub session: &'a Session,
    pub map: &'a TenancyMap,
    pub catalog: &'a Catalog,
    pub tenant: &'a TenantId,
    pub is_unguarded: bool,
}

impl SharedRows<'_> {
    /// Creates what is gone of them. Returns how many rows in which table.
    ///
    /// # Errors
    /// `Refused` unless the plan may; `Conflict` if a row is there with other contents.
    pub(super) fn create(
        &self,
        changes: &dyn ChangeSource,
        restored: &mut RestoredValues,
    ) -> Result<Vec<(TableIndex, u64)>, StoreError> {
        let mut created = Vec::new();
        for &table in changes.shared_tables() {
            self.check(table, changes.shared_count(table))?;
        }
        let mut staging = Staging {
            session: self.session,
            catalog: self.catalog,
            changes,
            stage_count: STAGE_NUMBER_FIRST,
        };
        let defer = "SET CONSTRAINTS ALL DEFERRED";
        self.session.run("defer what can be deferred", defer)?;
        for &table in changes.shared_tables() {
            let expected = changes.shared_count(table);
            let relation = &self.catalog.tables[table.get()];
            let mut seen = restored.of(relation);
            let role = RowRole::SharedCreated;
            let stage = staging.stage(table, role, StageColumns::All, expected, &mut seen)?;
            drop(seen);
            let target = Target {
                catalog: self.catalog,
                table,
                tenant: self.tenant,
            };
            let operation = format!("create rows of everybody in {}", target.schema().name);
            let inserted = self
                .session
                .execute(&operation, &target.insert_missing(&stage), &[])?;
            let alike = self
                .session
                .row(&operation, &target.count_alike(&stage), &[])?;
            let alike = get::<i64>(&alike, 0)?.cast_unsigned();
            if alike != expected {
                let message = format!(
                    "{operation}: {} of {expected} rows are there with other contents than in the \
                     plan: somebody made them meanwhile, or a trigger changed them. Make a new plan",
                    expected.saturating_sub(alike)
                );
                return Err(StoreError::new(ErrorKind::Conflict, message));
            }
            created.push((table, inserted));
        }
        Ok(created)
    }

    fn check(&self, table: TableIndex, count: u64) -> Result<(), StoreError> {
        let operation = "create rows of everybody";
        let refused = |message: String| Err(StoreError::new(ErrorKind::Refused, message));
        let Some(schema) = self.catalog.schema.get(table) else {
            return refused(format!(
                "{operation}: the plan names a table that there is not"
            ));
        };
        let name = &schema.name;
        match shared_creation(self.session, self.catalog, table, self.is_unguarded)? {
            SharedCreation::Allowed => {}
            SharedCreation::Refused(reason) => return refused(format!("{operation}: {reason}")),
            SharedCreation::NotAllowed => {
                return refused(format!(
                    "{operation}: {name} is not one of the tables of create_missing"
                ));
            }
        }
        let counts = ChangeCounts {
            created: count,
            ..ChangeCounts::NONE
        };
        let effects = side_effects(self.map, self.catalog, table, counts);
        match effects.iter().find(|effect| !effect.is_allowed) {
            None => Ok(()),
            Some(effect) => refused(format!("{operation}: {} {}", effect.object, effect.detail)),
        }
    }
}
