//! What is checked before anything is written.

use std::collections::BTreeSet;

use reinstate_core::{ChangeSource, ErrorKind, StoreError, TableIndex};
use tokio_postgres::types::Type;

use super::cycles::{Cycles, Doing};
use crate::catalog::{Catalog, OWN_NAMESPACE, get};
use crate::effects::side_effects;
use crate::guard::{GuardState, Guards, confined};
use crate::others::check_others;
use crate::session::Session;
use crate::settings::ConnectionSettings;
use crate::tenancy::TenancyMap;

/// Refuses a server that would not count what the merge does, and a role that could not finish.
pub(super) fn check_session(
    session: &Session,
    settings: &ConnectionSettings,
) -> Result<(), StoreError> {
    let operation = "check what the role may do";
    if !settings.statement_timeout.is_zero() {
        let timeout = settings.statement_timeout.as_millis();
        session.run(operation, &format!("SET statement_timeout = {timeout}"))?;
    }
    let sql = "SELECT current_setting('track_counts')::bool,
                      has_database_privilege(current_database(), 'TEMP'),
                      pg_is_in_recovery(),
                      EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                               WHERE n.nspname = $1 AND c.relname = 'journal')";
    let row = session.row(operation, sql, &[(&OWN_NAMESPACE, Type::TEXT)])?;
    let refused = |message: &str| Err(StoreError::new(ErrorKind::Refused, message));
    if !get::<bool>(&row, 0)? {
        return refused(
            "track_counts is off, so that the server would not count what a merge changes: ALTER \
             SYSTEM SET track_counts = on, or set it for the role",
        );
    }
    if !get::<bool>(&row, 1)? {
        return refused("the role may not create temporary tables: GRANT TEMP ON DATABASE to it");
    }
    if get::<bool>(&row, 2)? {
        return refused("the server is a standby: nothing can be written to it");
    }
    if !get::<bool>(&row, 3)? {
        return refused("the store has no journal yet: prepare it first");
    }
    Ok(())
}

/// Refuses changes that would reach rows by ways that the plan does not show, or that the role
/// may not make. Looks only at tables that change.
pub(super) fn check_changes(
    session: &Session,
    map: &TenancyMap,
    catalog: &Catalog,
    changes: &dyn ChangeSource,
) -> Result<(), StoreError> {
    let mut obstacles = Vec::new();
    let cycles =
        [Doing::Creating, Doing::Deleting].map(|doing| Cycles::find(catalog, changes, doing));
    for &index in changes.tables() {
        if catalog
            .schema
            .get(index)
            .is_none_or(|table| !table.tenancy.is_tenant_owned())
        {
            let message = "write rows: the plan names a table that no tenant owns";
            return Err(StoreError::new(ErrorKind::Refused, message));
        }
        let mut counts = changes.counts(index);
        if cycles.iter().any(|cycles| cycles.loose(index).is_some()) {
            // Its rows are updated on the way.
            counts.put_back = counts.put_back.max(1);
        }
        let effects = side_effects(map, catalog, index, counts);
        let refused = effects.iter().filter(|effect| !effect.is_allowed);
        obstacles.extend(refused.map(|effect| format!("{} {}", effect.object, effect.detail)));
    }
    find_missing_privileges(session, catalog, changes, &mut obstacles)?;
    let mut changed = changes.tables().iter();
    if changed.any(|&table| catalog.tables[table.get()].is_partitioned) {
        let is_changed = |oid| {
            let table = catalog.by_oid(oid);
            table.is_some_and(|table| changes.tables().contains(&table))
        };
        check_others(session, is_changed)?;
    }
    if obstacles.is_empty() {
        return Ok(());
    }
    let message = format!("write rows: {}", obstacles.join("; "));
    Err(StoreError::new(ErrorKind::Refused, message))
}

/// The tables that change whose guard is armed. Where that `is_needed`, refuses to write where nothing but
/// this program would keep the merge from rows of others.
pub(super) fn check_guarded(
    session: &Session,
    catalog: &Catalog,
    changes: &dyn ChangeSource,
    is_needed: bool,
) -> Result<BTreeSet<TableIndex>, StoreError> {
    let guards = Guards::read(session)?;
    let is_armed = |table: &TableIndex| guards.state(catalog, *table) == GuardState::Armed;
    let changed = changes.tables().iter().copied();
    let guarded: BTreeSet<TableIndex> = changed.clone().filter(is_armed).collect();
    if !is_needed {
        return Ok(guarded);
    }
    let unguarded: Vec<TableIndex> = changed.filter(|table| !guarded.contains(table)).collect();
    let confined = confined(session, catalog, unguarded.iter().copied())?;
    let open = unguarded.iter().filter(|table| !confined.contains(table));
    let (open, loose): (Vec<_>, Vec<_>) = open
        .map(|table| {
            let (schema, relation) = catalog.table(*table);
            (schema.name.as_str(), relation.names_tenant_in_policies)
        })
        .partition(|(_, names_tenant)| !names_tenant);
    let names = |tables: Vec<(&str, bool)>| {
        let names = tables.into_iter().map(|(name, _)| name);
        names.collect::<Vec<_>>().join(", ")
    };
    if !loose.is_empty() {
        let message = format!(
            "write rows: the policies of {} are not those of the tenancy map, and may let this role write \
             to another tenant's row: drop them and run what `reinstate guard role` prints, or run \
             `reinstate guard install` as the owner of the tables",
            names(loose)
        );
        return Err(StoreError::new(ErrorKind::Refused, message));
    }
    if open.is_empty() {
        return Ok(guarded);
    }
    let message = format!(
        "write rows: nothing in the database would stop this role at another tenant's row of {}: \
         run `reinstate guard install` as the owner of the tables, or restore as a role that \
         `reinstate guard role` describes, or set unguarded = true under [store]",
        names(open)
    );
    Err(StoreError::new(ErrorKind::Refused, message))
}

fn find_missing_privileges(
    session: &Session,
    catalog: &Catalog,
    changes: &dyn ChangeSource,
    obstacles: &mut Vec<String>,
) -> Result<(), StoreError> {
    let oids: Vec<u32> = changes
        .tables()
        .iter()
        .map(|index| catalog.tables[index.get()].oid)
        .collect();
    let sql = "SELECT has_any_column_privilege(u.oid, 'INSERT'),
                      has_any_column_privilege(u.oid, 'UPDATE'),
                      has_table_privilege(u.oid, 'DELETE')
                 FROM unnest($1::oid[]) WITH ORDINALITY u(oid, place) ORDER BY u.place";
    let operation = "check what the role may write";
    let rows = session.rows(operation, sql, &[(&oids, Type::OID_ARRAY)])?;
    for (&index, row) in changes.tables().iter().zip(&rows) {
        let counts = changes.counts(index);
        for (place, needed, privilege) in [
            (0, counts.created > 0, "INSERT"),
            (1, counts.put_back > 0, "UPDATE"),
            (2, counts.deleted > 0, "DELETE"),
        ] {
            if needed && !get::<bool>(row, place)? {
                let name = &catalog.schema.table(index).name;
                obstacles.push(format!("the role lacks {privilege} on {name}: GRANT it"));
            }
        }
    }
    Ok(())
}
