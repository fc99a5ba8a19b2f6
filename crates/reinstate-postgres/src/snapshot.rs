//! A transaction that sees the whole database at one moment.
//!
//! *Consistency*: tables are locked against DDL and TRUNCATE *before* the transaction takes its
//! snapshot. Without that, a TRUNCATE in between would make a table look empty to us although
//! the snapshot still holds its rows. ACCESS SHARE stands in no writer's way.

use std::collections::HashSet;
use std::sync::Arc;

use reinstate_core::{ErrorKind, Position, StoreError, Tenancy, Timestamp};

use crate::catalog::{Catalog, KeptCatalog, get, lockable_tables, read_catalog};
use crate::session::Session;
use crate::sql::{literal, quote};
use crate::tenancy::{TableRule, TenancyMap};

/// How often a capture starts anew because tables came in between.
const ATTEMPTS_MAX: u32 = 5;

/// How many milliseconds a session that sees the same as another one waits for a lock.
const LOCK_WAIT_BESIDE: u32 = 100;

/// What the transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
}

/// What was found when the transaction began.
#[derive(Debug)]
pub(crate) struct Moment {
    pub catalog: Arc<Catalog>,
    pub position: Position,
    pub taken_at: Timestamp,
}

/// Begins a transaction and reads the catalogue in it.
///
/// # Errors
/// As [`read_catalog`]; `Refused` if rows would be hidden from the role, or if the session does
/// not check foreign keys; `Contended` if a table stays locked or tables keep changing.
pub(crate) fn begin(
    session: &Session,
    map: &TenancyMap,
    access: Access,
) -> Result<Moment, StoreError> {
    begin_and(session, map, access, None, || Ok(())).map(|(moment, ())| moment)
}

/// The same, with a catalogue that is kept, and with what `start` starts as soon as the transaction has its
/// snapshot.
///
/// # Errors
/// As [`begin`], and as `start` reports it.
pub(crate) fn begin_and<T>(
    session: &Session,
    map: &TenancyMap,
    access: Access,
    kept: Option<&KeptCatalog>,
    start: impl Fn() -> Result<T, StoreError>,
) -> Result<(Moment, T), StoreError> {
    for _ in 0..ATTEMPTS_MAX {
        if let Some(begun) = try_begin_and(session, map, (access, ""), kept, &start)? {
            return Ok(begun);
        }
    }
    Err(restless())
}

/// The same, tried once, with further statements at its beginning; none, and no transaction, if tables came or
/// went meanwhile.
///
/// # Errors
/// As [`begin`].
pub(crate) fn try_begin(
    session: &Session,
    map: &TenancyMap,
    access: Access,
    further: &str,
) -> Result<Option<Moment>, StoreError> {
    let begun = try_begin_and(session, map, (access, further), None, &|| Ok(()))?;
    Ok(begun.map(|(moment, ())| moment))
}

fn try_begin_and<T>(
    session: &Session,
    map: &TenancyMap,
    (access, further): (Access, &str),
    kept: Option<&KeptCatalog>,
    start: &impl Fn() -> Result<T, StoreError>,
) -> Result<Option<(Moment, T)>, StoreError> {
    let mode = match access {
        Access::ReadOnly => "READ ONLY",
        Access::ReadWrite => "READ WRITE",
    };
    let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ {mode}, NOT DEFERRABLE; {further}");
    let Some(locked) = begin_with_locks(session, map, &begin)? else {
        return Ok(None);
    };
    let (position, taken_at) = read_position(session)?;
    let started = start()?;
    let Some(catalog) = examine(session, map, &locked, kept)? else {
        session.roll_back();
        return Ok(None);
    };
    let moment = Moment {
        catalog,
        position,
        taken_at,
    };
    Ok(Some((moment, started)))
}

/// Tables come and go all the time.
pub(crate) fn restless() -> StoreError {
    StoreError::new(
        ErrorKind::Contended,
        "lock the tables against DDL: tables come and go faster than they can be locked",
    )
}

/// Begins a transaction and locks every table that the map does not exclude. Returns their ids; none,
/// and no transaction, if one is gone by now.
pub(crate) fn begin_with_locks(
    session: &Session,
    map: &TenancyMap,
    begin: &str,
) -> Result<Option<HashSet<u32>>, StoreError> {
    let mut tables = Vec::new();
    for (oid, sql, name) in lockable_tables(session)? {
        if map.rule(&name)? != Some(TableRule::Excluded) {
            tables.push((oid, sql));
        }
    }
    session.begin("begin a transaction", begin)?;
    if !tables.is_empty() {
        let names: Vec<&str> = tables.iter().map(|(_, sql)| sql.as_str()).collect();
        let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "));
        match session.run("lock the tables against DDL", &lock) {
            // A table that is gone by now.
            Err(error) if error.kind() == ErrorKind::Other => {
                session.roll_back();
                return Ok(None);
            }
            locked => locked?,
        }
    }
    Ok(Some(tables.iter().map(|(oid, _)| *oid).collect()))
}

/// Reads the catalogue in a transaction that began, and settles how the transaction behaves. None
/// if it has a table that is not locked.
///
/// # Errors
/// As [`begin`].
pub(crate) fn examine(
    session: &Session,
    map: &TenancyMap,
    locked: &HashSet<u32>,
    kept: Option<&KeptCatalog>,
) -> Result<Option<Arc<Catalog>>, StoreError> {
    let catalog = match kept {
        Some(kept) => kept.read(session, map)?,
        None => Arc::new(read_catalog(session, map)?),
    };
    let has_new = catalog.iter().any(|(_, schema, table)| {
        schema.tenancy != Tenancy::Excluded && table.is_readable && !locked.contains(&table.oid)
    });
    if has_new {
        return Ok(None);
    }
    check_visibility(&catalog)?;
    settle(session, map, &catalog)?;
    Ok(Some(catalog))
}

/// Takes the transaction's snapshot and says where it is.
///
/// The snapshot is taken when the statement starts and the log's end read while it runs: every
/// commit that the snapshot sees lies before that end. One that lies just before it may not be
/// seen yet.
pub(crate) fn read_position(session: &Session) -> Result<(Position, Timestamp), StoreError> {
    let sql = "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                            ELSE pg_current_wal_insert_lsn() END - '0/0')::int8,
                      (extract(epoch FROM clock_timestamp()) * 1000000)::int8,
                      current_setting('session_replication_role')";
    let operation = "read the position";
    let row = session.row(operation, sql, &[])?;
    let role: String = get(&row, 2)?;
    if role != "origin" {
        let message = format!(
            "{operation}: session_replication_role is {role}, so that foreign keys and triggers \
             would not fire: set it to origin for this role"
        );
        return Err(StoreError::new(ErrorKind::Refused, message));
    }
    let position = Position {
        commit: get::<i64>(&row, 0)?.cast_unsigned(),
        ordinal: 0,
    };
    Ok((position, Timestamp::from_micros(get(&row, 1)?)))
}

/// Begins a transaction of another session at the moment that this one is at, as SQL. The transaction of this one
/// must not end before.
///
/// Who waits to alter a table that this session reads waits for it, and the other one would wait behind him: each
/// for the next, which the server cannot see. So the other one hardly waits for locks, whatever is set, and what it
/// cannot be asked is asked here.
///
/// # Errors
/// As the server reports it.
pub(crate) fn same_moment(session: &Session, settings: &str) -> Result<String, StoreError> {
    let export = "SELECT pg_export_snapshot()";
    let row = session.row("export the snapshot", export, &[])?;
    Ok(format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY, NOT DEFERRABLE;
         SET TRANSACTION SNAPSHOT {}; SET LOCAL lock_timeout = {LOCK_WAIT_BESIDE};{settings}",
        literal(get(&row, 0)?)
    ))
}

/// Makes a transaction behave as the catalogue and the operator say: see [`settings`].
pub(crate) fn settle(
    session: &Session,
    map: &TenancyMap,
    catalog: &Catalog,
) -> Result<(), StoreError> {
    match settings(map, catalog).as_str() {
        "" => Ok(()),
        sql => session.run("settle the transaction", sql),
    }
}

/// What makes a transaction behave as the catalogue and the operator say, as SQL.
///
/// Under row-level security its policies apply: they were seen to show every row, and cannot change
/// while the tables are locked; without the setting, a query that one would filter is an error. The
/// search path is the operator's only now that the catalogue was read: what it says of types depends
/// on the path.
pub(crate) fn settings(map: &TenancyMap, catalog: &Catalog) -> String {
    let mut sql = String::new();
    if catalog.tables.iter().any(|table| table.is_policed) {
        sql.push_str("SET LOCAL row_security = on;");
    }
    if !map.search_path.is_empty() {
        let schemas: Vec<String> = map.search_path.iter().map(|name| quote(name)).collect();
        let schemas = schemas.join(", ");
        sql.push_str(&format!(
            "SET LOCAL search_path = pg_catalog, {schemas}, pg_temp;"
        ));
    }
    sql
}

/// Refuses tables of which the role would see only some rows, or none.
fn check_visibility(catalog: &Catalog) -> Result<(), StoreError> {
    let included = || {
        let tables = catalog.iter();
        tables.filter(|(_, schema, _)| schema.tenancy != Tenancy::Excluded)
    };
    let names = |tables: Vec<String>| tables.join(", ");
    let unreadable: Vec<String> = included()
        .filter(|(_, _, table)| !table.is_readable)
        .map(|(_, schema, _)| schema.name.to_string())
        .collect();
    if !unreadable.is_empty() {
        let message = format!(
            "the role may not read every table: GRANT SELECT on {} to it (and USAGE on their \
             schemas), or list them as excluded",
            names(unreadable)
        );
        return Err(StoreError::new(ErrorKind::Refused, message));
    }
    let hidden: Vec<String> = included()
        .filter(|(_, _, table)| table.hides_rows())
        .map(|(_, schema, _)| schema.name.to_string())
        .collect();
    if !hidden.is_empty() {
        let message = format!(
            "row-level security would hide rows of {} from the role: give it a policy FOR SELECT \
             USING (true), as `reinstate guard role` writes it, or ALTER ROLE ... BYPASSRLS",
            names(hidden)
        );
        return Err(StoreError::new(ErrorKind::Refused, message));
    }
    Ok(())
}
