//! What keeps a merge from being made, as far as it can be told before one begins.

use reinstate_core::{
    ChangeCounts, ChangeSource, ErrorKind, RowRole, RowStream, SideEffect, StoreError, TableIndex,
    TenantId,
};
use tokio_postgres::types::{ToSql, Type};

use crate::catalog::{Catalog, OwnedSequence, get};
use crate::merge::{find_own_sequence, quiet_obstacles, together_obstacles};
use crate::session::Session;
use crate::tenancy::TenancyMap;

/// What is planned, without the rows.
pub(crate) struct Planned<'a> {
    tables: Vec<TableIndex>,
    changes: &'a [(TableIndex, ChangeCounts)],
}

impl<'a> Planned<'a> {
    pub(crate) fn new(changes: &'a [(TableIndex, ChangeCounts)]) -> Self {
        Self {
            tables: changes.iter().map(|(table, _)| *table).collect(),
            changes,
        }
    }
}

impl ChangeSource for Planned<'_> {
    fn tables(&self) -> &[TableIndex] {
        &self.tables
    }

    fn counts(&self, table: TableIndex) -> ChangeCounts {
        let found = self.changes.iter().find(|(other, _)| *other == table);
        found.map_or(ChangeCounts::NONE, |(_, counts)| *counts)
    }

    fn rows(&self, _: TableIndex, _: RowRole) -> Result<Box<dyn RowStream + '_>, StoreError> {
        let message = "BUG: the rows of a plan that is being made";
        Err(StoreError::new(ErrorKind::Other, message))
    }
}

/// Everything that stands in the way of these changes, and that no single table tells.
pub(crate) fn other_effects(
    session: &Session,
    map: &TenancyMap,
    catalog: &Catalog,
    tenants: &[&TenantId],
    changes: &[(TableIndex, ChangeCounts)],
) -> Result<Vec<SideEffect>, StoreError> {
    let planned = Planned::new(changes);
    let mut found = event_triggers(session, map)?;
    found.extend(computed_keys(catalog, &planned));
    found.extend(together_obstacles(catalog, &planned));
    found.extend(quiet_obstacles(session, catalog, &planned)?);
    for tenant in tenants {
        for (pattern, column) in &map.sequences {
            let (table, _) = catalog.counting_column(column, "sequences")?;
            let counts = planned.counts(table);
            if counts.created + counts.put_back == 0 {
                continue;
            }
            let sequence = find_own_sequence(session, pattern, column, tenant);
            match sequence {
                Ok(sequence) => found.extend(closed_sequence(session, &sequence)?),
                Err(error) if error.kind() == ErrorKind::Refused => {
                    found.push(refused(format!("sequence of {tenant}"), error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
    }
    for &(table, counts) in changes {
        if counts.created + counts.put_back > 0 {
            for sequence in &catalog.tables[table.get()].sequences {
                found.extend(closed_sequence(session, sequence)?);
            }
        }
    }
    Ok(found)
}

pub(crate) fn refused(object: String, detail: impl Into<String>) -> SideEffect {
    SideEffect {
        object,
        detail: detail.into(),
        is_allowed: false,
    }
}

/// A sequence that the role may not raise.
pub(crate) fn closed_sequence(
    session: &Session,
    sequence: &OwnedSequence,
) -> Result<Option<SideEffect>, StoreError> {
    let sql =
        "SELECT has_schema_privilege(n.oid, 'USAGE') AND has_sequence_privilege(c.oid, 'SELECT')
                  AND has_sequence_privilege(c.oid, 'USAGE, UPDATE')
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = $1 AND c.relname = $2";
    let values: [(&(dyn ToSql + Sync), Type); 2] = [
        (&sequence.namespace, Type::TEXT),
        (&sequence.relation, Type::TEXT),
    ];
    let rows = session.rows("check what the role may do with sequences", sql, &values)?;
    let may_raise = rows.first().map_or(Ok(true), |row| get(row, 0))?;
    let name = sequence.sql_name();
    Ok((!may_raise).then(|| {
        let detail = format!(
            "the role may not raise it beyond the values that come back: GRANT SELECT, USAGE, \
             UPDATE ON SEQUENCE {name} to it, and USAGE on its schema"
        );
        refused(format!("sequence {}", sequence.display_name), detail)
    }))
}

/// Event triggers that fire when a merge makes its temporary tables. What one does is not known: one
/// that has a word in it which writes is refused, unless it is allowed.
fn event_triggers(session: &Session, map: &TenancyMap) -> Result<Vec<SideEffect>, StoreError> {
    let sql = "SELECT e.evtname::text,
                      l.lanname IN ('plpgsql', 'sql') AND p.prosrc !~*
                      '\\m(insert|update|delete|merge|truncate|copy|execute|perform|call)\\M'
                 FROM pg_event_trigger e
                 JOIN pg_proc p ON p.oid = e.evtfoid
                 JOIN pg_language l ON l.oid = p.prolang
                WHERE e.evtevent IN ('ddl_command_start', 'ddl_command_end')
                  AND e.evtenabled IN ('O', 'A')
                  AND (e.evttags IS NULL OR 'CREATE TABLE AS' = ANY (e.evttags))
                ORDER BY 1";
    let mut found = Vec::new();
    for row in session.rows("look for event triggers", sql, &[])? {
        let (name, is_harmless): (String, bool) = (get(&row, 0)?, get(&row, 1)?);
        let is_allowed = map.allows_event_trigger(&name);
        let detail = match (is_allowed, is_harmless) {
            (true, _) => "fires, as allowed_triggers lets it".to_owned(),
            (false, true) => {
                "fires when temporary tables are made, and seems to write nothing".to_owned()
            }
            (false, false) => format!(
                "would fire when temporary tables are made, and may write: ALTER EVENT TRIGGER \
                 {name} DISABLE for the time of the restore, or, if it writes into no table, add \
                 {name:?} to allowed_triggers"
            ),
        };
        found.push(SideEffect {
            object: format!("event trigger {name}"),
            detail,
            is_allowed: is_allowed || is_harmless,
        });
    }
    Ok(found)
}

/// Foreign keys with a generated column, of which no order of rows is known, where one is needed that
/// is not the order of the tables.
fn computed_keys(catalog: &Catalog, planned: &Planned<'_>) -> Vec<SideEffect> {
    let place = |table| planned.tables.iter().position(|other| *other == table);
    let keys = catalog.computed_keys.iter().filter(|key| !key.waits);
    let in_the_way = keys.filter(|key| {
        let (Some(child), Some(parent)) = (place(key.child), place(key.parent)) else {
            return false;
        };
        let (of_child, of_parent) = (planned.counts(key.child), planned.counts(key.parent));
        let written = of_child.created + of_child.put_back;
        let creates = of_parent.created + of_parent.put_back > 0 && written > 0;
        let deletes = of_parent.deleted > 0 && of_child.deleted + of_child.put_back > 0;
        // Parents are created first and deleted last; rows that are put back come in between.
        (creates && parent >= child) || (deletes && (parent >= child || of_child.put_back > 0))
    });
    in_the_way
        .map(|key| {
            let (child, parent) = (key.child, key.parent);
            refused(
                format!("foreign key {}", key.name),
                format!(
                    "of {} to {} has a generated column, so that the order in which their rows have \
                     to be written is not known: make it DEFERRABLE, or restore while it is dropped",
                    catalog.schema.table(child).name,
                    catalog.schema.table(parent).name
                ),
            )
        })
        .collect()
}

/// Whether the role may lock rows of a table as a foreign key's check does.
pub(crate) fn may_lock(session: &Session, oid: u32) -> Result<bool, StoreError> {
    let sql = "SELECT has_any_column_privilege($1, 'UPDATE')";
    let row = session.row("check what the role may lock", sql, &[(&oid, Type::OID)])?;
    get(&row, 0)
}
