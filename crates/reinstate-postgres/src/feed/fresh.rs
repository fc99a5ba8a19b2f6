//! Tables that came while their database is followed.
//!
//! What is written to a table before it is published is not in the stream. So a new table is locked
//! against writers, published and read in one transaction. Its rows are handed over in the place of that
//! transaction, and what the stream says of the table before that place is passed over.

use std::collections::BTreeSet;

use reinstate_core::{
    Change, ChangeSink, ErrorKind, FeedRow, OwnedRowBatch, OwnedRowStream, RowBatch, StoreError,
    StoreSchema, TableSchema,
};

use tokio_postgres::types::Type;

use super::layout::Layout;
use super::publication::{PUBLICATION, followed, missing_of_tables};
use crate::catalog::{Catalog, get, read_catalog};
use crate::rows::OwnedRows;
use crate::session::Session;
use crate::tenancy::TenancyMap;

/// How often locking new tables begins anew because others came.
const ATTEMPTS_MAX: u32 = 5;
/// The most bytes of rows that new tables may have.
const ROWS_BYTES_MAX: usize = 64 << 20;

/// New tables that were published and read.
#[derive(Debug)]
pub(super) struct Fresh {
    /// The transaction that did it.
    pub transaction: u32,
    /// What was written to them before was committed before this place of the server's log.
    pub since: u64,
    /// Their ids.
    pub tables: BTreeSet<u32>,
    rows: Vec<(TableSchema, RowBatch)>,
}

/// Publishes and reads the tables that the feed does not know. None if there are none.
///
/// # Errors
/// `Refused` with what to do, if they cannot be followed or the role may not publish them; `Contended`
/// if they stay locked.
pub(super) fn take_in(
    session: &Session,
    map: &TenancyMap,
    known: &Layout,
) -> Result<Option<Fresh>, StoreError> {
    for _ in 0..ATTEMPTS_MAX {
        let begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
        session.begin("follow new tables", begin)?;
        let taken = match take_in_locked(session, map, known) {
            Ok(Some(taken)) => session.run("follow new tables", "COMMIT").map(|()| taken),
            // Another one came while these were being locked.
            Ok(None) => {
                session.roll_back();
                continue;
            }
            Err(error) => Err(error),
        };
        session.roll_back();
        return taken;
    }
    let message = "follow the log: tables come and go faster than they can be locked";
    Err(StoreError::new(ErrorKind::Contended, message))
}

/// The same, in a transaction; none if tables came or went meanwhile.
fn take_in_locked(
    session: &Session,
    map: &TenancyMap,
    known: &Layout,
) -> Result<Option<Option<Fresh>>, StoreError> {
    let new = |catalog: &Catalog| -> Vec<(u32, String)> {
        let tables = followed(catalog).filter(|(_, table)| !known.tables.contains_key(&table.oid));
        tables
            .map(|(_, table)| (table.oid, table.sql_name()))
            .collect()
    };
    let tables = new(&read_catalog(session, map)?);
    if tables.is_empty() {
        return Ok(Some(None));
    }
    let names: Vec<&str> = tables.iter().map(|(_, name)| name.as_str()).collect();
    let names = names.join(", ");
    let refused = |error: StoreError| {
        if error.kind() != ErrorKind::Refused {
            return error;
        }
        let message = format!(
            "follow the log: tables that are new ({names}) have to be published, and the role may not. \
             Their owner runs: ALTER PUBLICATION {PUBLICATION} ADD TABLE {names}; and lets the role \
             lock them (GRANT UPDATE). The log goes on then"
        );
        StoreError::new(ErrorKind::Refused, message).because(error)
    };
    session
        .run(
            "lock new tables",
            &format!("LOCK TABLE {names} IN SHARE MODE"),
        )
        .map_err(refused)?;
    // As they are now that nobody alters them.
    let catalog = read_catalog(session, map)?;
    if new(&catalog) != tables {
        return Ok(None);
    }
    let missing = missing_of_tables(session, &catalog)?;
    if !missing.is_empty() {
        let message = format!(
            "new tables cannot be followed yet. The log goes on when this is done:\n{}",
            missing.join("\n")
        );
        return Err(StoreError::new(ErrorKind::Refused, message));
    }
    publish(session, &catalog, &tables).map_err(refused)?;
    let mut rows = Vec::new();
    let mut bytes = 0;
    for (index, schema, table) in catalog.iter() {
        if !tables.iter().any(|(oid, _)| *oid == table.oid) {
            continue;
        }
        let mut stream = OwnedRows::open(session, &catalog, index)?;
        let mut kept = RowBatch::new();
        let mut batch = OwnedRowBatch::new();
        while stream.next_batch(&mut batch)? {
            batch.iter().for_each(|(_, row)| kept.push_row(row));
            if bytes + kept.as_bytes().len() > ROWS_BYTES_MAX {
                return Err(super::relations::stale(&format!(
                    "table {} is new and has more than {} MiB of rows already",
                    schema.name,
                    ROWS_BYTES_MAX >> 20
                )));
            }
        }
        bytes += kept.as_bytes().len();
        rows.push((schema.clone(), kept));
    }
    let sql = "SELECT pg_logical_emit_message(true, 'reinstate', '')::text,
                      (pg_current_xact_id()::text::numeric % 4294967296)::int8,
                      (pg_current_wal_insert_lsn() - '0/0')::int8";
    let row = session.row("follow new tables", sql, &[])?;
    let transaction: i64 = get(&row, 1)?;
    Ok(Some(Some(Fresh {
        transaction: u32::try_from(transaction).expect("BUG: a remainder of 2^32"),
        since: get::<i64>(&row, 2)?.cast_unsigned(),
        tables: tables.iter().map(|(oid, _)| *oid).collect(),
        rows,
    })))
}

/// Puts tables into the publication that are not in it.
fn publish(
    session: &Session,
    catalog: &Catalog,
    tables: &[(u32, String)],
) -> Result<(), StoreError> {
    let sql = "SELECT l.prrelid FROM pg_publication_rel l
                 JOIN pg_publication p ON p.oid = l.prpubid WHERE p.pubname = $1";
    let mut published = BTreeSet::new();
    for row in &session.rows(
        "look at the publication",
        sql,
        &[(&PUBLICATION, Type::TEXT)],
    )? {
        published.insert(get::<u32>(row, 0)?);
    }
    let missing = catalog.iter().filter(|(_, _, table)| {
        let is_new = tables.iter().any(|(oid, _)| *oid == table.oid);
        is_new && !published.contains(&table.oid)
    });
    let missing: Vec<String> = missing.map(|(_, _, table)| table.sql_rows()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "ALTER PUBLICATION {PUBLICATION} ADD TABLE {}",
        missing.join(", ")
    );
    session.run("publish new tables", &sql)
}

impl Fresh {
    /// Whether the tables are as they were when they were read.
    pub(super) fn fits(&self, schema: &StoreSchema) -> bool {
        self.rows.iter().all(|(table, _)| {
            let found = schema.find(table.name.as_str());
            found.is_some_and(|(_, found)| found.columns == table.columns && found.key == table.key)
        })
    }

    /// Hands over their rows.
    pub(super) fn hand_over(
        &self,
        schema: &StoreSchema,
        sink: &mut dyn ChangeSink,
    ) -> Result<(), StoreError> {
        for (table, rows) in &self.rows {
            let Some((table, _)) = schema.find(table.name.as_str()) else {
                continue;
            };
            for row in rows.iter() {
                let row = FeedRow { owner: None, row };
                sink.change(Change::Insert { table, row })?;
            }
        }
        Ok(())
    }
}
