//! Tables that came while their database is followed.
//!
//! What is written to a table before it is published is not in the stream. So a new table is locked
//! against writers, published and read in one transaction. Its rows are handed over in the place of that
//! transaction, and what the stream says of the table before that place is passed over. While the lock is
//! held nobody writes or alters: whoever wrote before is committed before, and in the rows that are read;
//! whoever writes after is committed after, and in the stream.
//!
//! Several such transactions may wait for their places, each with tables of its own. The columns of a table
//! are known as of the moment at which it was read, so that it can be altered, renamed or dropped before its
//! rows are handed over: they become rows of the table as it is then, by the same rules as those of any
//! other table. Where that cannot be said, everything that waits is read anew: no row of it is in the log
//! yet.
//!
//! *Crash consistency*: rows that wait are this process's alone. Whoever comes next finds by the tables that
//! were noted which of them are awaited, and reads those anew before the transaction in whose place they
//! were to come. The transaction also says which relations it took in: where one of them is gone by then,
//! nothing that it had is in the log, and what the stream tells of it is passed over. The stream tells of a table from
//! the first transaction on that took it in, whoever reads it anew later: so its relations are noted before that
//! one is handed over, since whoever comes behind it does not find it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use reinstate_core::{
    Change, ChangeSink, ColumnIndex, ColumnOrigin, ErrorKind, FeedRow, OwnedRowBatch,
    OwnedRowStream, RowBatch, RowBuilder, RowRef, StoreError, StoreSchema, TableIndex, TableSchema,
};
use tokio_postgres::types::{ToSql, Type};

use super::facts::{Facts, read_facts};
use super::layout::{Layout, RelationLayout, TableLayout};
use super::looking::Seen;
use super::message::{MESSAGE_PREFIX, take_in_words};
use super::publication::{PUBLICATION, followed, missing_of_tables};
use super::relations::stale;
use super::told::is_told_apart;
use super::transition::reshaped;
use super::underway::{MEMORY_BYTES_MAX, Underway};
use crate::catalog::{Catalog, get};
use crate::rows::OwnedRows;
use crate::session::Session;
use crate::snapshot::settle;
use crate::tenancy::TenancyMap;

/// New tables that were published and read.
#[derive(Debug)]
pub(super) struct Fresh {
    /// The transaction that did it.
    pub transaction: u32,
    /// What was written to them before was committed before this place of the server's log.
    pub since: u64,
    /// By their ids.
    pub tables: BTreeMap<u32, Taken>,
    /// The rows of all of them, those that others go by before those.
    rows: Underway,
}

/// One of them, as it was when it was read.
#[derive(Debug)]
pub(super) struct Taken {
    pub layout: TableLayout,
    schema: TableSchema,
}

/// Who reads, and what it needs.
pub(super) struct Reader<'r> {
    pub session: &'r Session,
    pub map: &'r TenancyMap,
    /// What the transaction begins with besides.
    pub further: &'r str,
    /// Where rows wait that are many.
    pub directory: &'r Path,
    /// Is told of bytes that were taken.
    pub taken: &'r mut dyn FnMut(usize) -> Result<(), StoreError>,
}

/// Refuses tables that cannot be followed.
///
/// # Errors
/// `Refused` with what to do.
pub(super) fn check_new(session: &Session, catalog: &Catalog) -> Result<(), StoreError> {
    let missing = missing_of_tables(session, catalog)?;
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!(
        "new tables cannot be followed yet. The log goes on when this is done:\n{}",
        missing.join("\n")
    );
    Err(StoreError::new(ErrorKind::Refused, message))
}

/// Publishes and reads these tables, which were seen just now. None if one of them is not what it was then.
///
/// Nothing else is locked or waited for meanwhile: a migration may hold other tables, and want these.
///
/// # Errors
/// `Refused` with what to do, if the role may not publish them; `Contended` if they stay locked; `Full` if there
/// is no room for their rows; `Other` also if one of them went meanwhile.
pub(super) fn take_in(
    mut reader: Reader<'_>,
    seen: &Seen,
    new: &BTreeSet<u32>,
) -> Result<Option<Fresh>, StoreError> {
    let session = reader.session;
    let begin = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {}",
        reader.further
    );
    session.begin("follow new tables", &begin)?;
    let taken = match take_in_locked(&mut reader, seen, new) {
        Ok(Some(taken)) => session
            .run("follow new tables", "COMMIT")
            .map(|()| Some(taken)),
        other => other,
    };
    session.roll_back();
    taken
}

fn take_in_locked(
    reader: &mut Reader<'_>,
    seen: &Seen,
    new: &BTreeSet<u32>,
) -> Result<Option<Fresh>, StoreError> {
    let (session, map) = (reader.session, reader.map);
    let tables = followed(&seen.catalog).filter(|(_, table)| new.contains(&table.oid));
    let names: Vec<String> = tables.map(|(_, table)| table.sql_name()).collect();
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
    let lock = format!("LOCK TABLE {names} IN SHARE MODE");
    session.run("lock new tables", &lock).map_err(refused)?;
    // Now nobody alters them.
    let facts = read_facts(session, map)?;
    let of_new = |facts: &Facts| -> Vec<(String, (u32, String))> {
        let tables = facts.tables.clone().into_iter();
        tables.filter(|(_, (oid, _))| new.contains(oid)).collect()
    };
    if of_new(&facts) != of_new(&seen.facts) {
        return Ok(None);
    }
    settle(session, map, &seen.catalog)?;
    publish(session, &seen.catalog, new).map_err(refused)?;
    let mut layout = seen.layout.clone();
    layout.tables.retain(|oid, _| new.contains(oid));
    layout.note_storage(&facts);
    layout.read_published(session)?;
    let words = take_in_words(
        layout
            .tables
            .values()
            .flat_map(|t| t.relations.keys().copied()),
    );
    let mut taken = BTreeMap::new();
    let mut rows = Underway::of("the rows of tables that are new");
    for index in parents_first(&seen.catalog.schema) {
        let (schema, table) = seen.catalog.table(index);
        let Some(layout) = layout.tables.remove(&table.oid) else {
            continue;
        };
        let mut stream = OwnedRows::open_without_owners(session, &seen.catalog, index)?;
        keep(table.oid, &mut stream, &mut rows, reader)?;
        let schema = schema.clone();
        taken.insert(table.oid, Taken { layout, schema });
    }
    let sql = "SELECT pg_logical_emit_message(true, $1, $2)::text,
                      (pg_current_xact_id()::text::numeric % 4294967296)::int8,
                      (pg_current_wal_insert_lsn() - '0/0')::int8";
    let values: [(&(dyn ToSql + Sync), Type); 2] =
        [(&MESSAGE_PREFIX, Type::TEXT), (&words, Type::TEXT)];
    let row = session.row("follow new tables", sql, &values)?;
    let transaction: i64 = get(&row, 1)?;
    Ok(Some(Fresh {
        transaction: u32::try_from(transaction).expect("BUG: a remainder of 2^32"),
        since: get::<i64>(&row, 2)?.cast_unsigned(),
        tables: taken,
        rows,
    }))
}

/// All tables, each behind those by whose rows it is known whose its own are: a row that comes before the one that it
/// goes by waits in memory until the transaction ends, and all behind it.
fn parents_first(schema: &StoreSchema) -> Vec<TableIndex> {
    let mut hops = vec![0; schema.tables().len()];
    // Ways have no circles: in each round those are done that have one more.
    for round in 1..=hops.len() {
        let mut is_last = true;
        for (index, table) in schema.iter() {
            let mut parents = table.tenancy.references().map(|way| way.parent);
            if parents.any(|parent| hops[parent.get()] + 1 == round) {
                hops[index.get()] = round;
                is_last = false;
            }
        }
        if is_last {
            break;
        }
    }
    let mut tables: Vec<TableIndex> = schema.iter().map(|(index, _)| index).collect();
    tables.sort_by_key(|table| hops[table.get()]);
    tables
}

/// Reads all rows of a table, of which few wait in memory.
fn keep(
    table: u32,
    stream: &mut dyn OwnedRowStream,
    rows: &mut Underway,
    reader: &mut Reader<'_>,
) -> Result<(), StoreError> {
    let mut batch = OwnedRowBatch::new();
    let mut bytes = Vec::new();
    while stream.next_batch(&mut batch)? {
        for (_, row) in batch.iter() {
            write_row(&mut bytes, table, row);
            rows.push(0, b'r', &bytes);
            if rows.memory_bytes() > MEMORY_BYTES_MAX {
                (reader.taken)(rows.memory_bytes())?;
                rows.spill(reader.directory)?;
            }
        }
    }
    Ok(())
}

fn write_row(bytes: &mut Vec<u8>, table: u32, row: RowRef<'_>) {
    let key_bytes = u32::try_from(row.key().len()).expect("BUG: a key longer than a row");
    bytes.clear();
    bytes.extend_from_slice(&table.to_le_bytes());
    bytes.extend_from_slice(&key_bytes.to_le_bytes());
    bytes.extend_from_slice(row.key());
    bytes.extend_from_slice(row.columns());
}

/// The table, the key and the columns of a row that was written, behind what it is.
fn read_row(message: &[u8]) -> Option<(u32, &[u8], &[u8])> {
    let (_kind, rest) = message.split_first()?;
    let (table, rest) = rest.split_first_chunk()?;
    let (key_bytes, rest) = rest.split_first_chunk()?;
    let (key, columns) = rest.split_at_checked(u32::from_le_bytes(*key_bytes) as usize)?;
    Some((u32::from_le_bytes(*table), key, columns))
}

/// Puts tables into the publication that are not in it.
fn publish(session: &Session, catalog: &Catalog, tables: &BTreeSet<u32>) -> Result<(), StoreError> {
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
    let missing = catalog
        .iter()
        .filter(|(_, _, table)| tables.contains(&table.oid) && !published.contains(&table.oid));
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
    /// Whether it can be said of all rows that were read, and of all that is told since, what became of them.
    /// Those of a table that is gone are gone.
    pub(super) fn fits(&self, schema: &StoreSchema, layout: &Layout) -> bool {
        self.tables.iter().all(|(oid, taken)| {
            let now = layout.tables.get(oid);
            now.is_none_or(|now| taken.is_told_apart(now) && taken.reshaped(schema, now).is_ok())
        })
    }

    /// Hands over their rows, as rows of these tables. `taken` is told how many bytes were taken.
    ///
    /// # Errors
    /// `Stale` if that cannot be; as the sink reports it; `Other` if they cannot be read back.
    pub(super) fn hand_over(
        &self,
        (schema, layout): (&StoreSchema, &Layout),
        sink: &mut dyn ChangeSink,
        taken: &mut dyn FnMut(usize) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut targets = BTreeMap::new();
        for (oid, table) in &self.tables {
            if let Some(now) = layout.tables.get(oid) {
                let target = table.target(schema, now);
                targets.insert(*oid, target.map_err(|reason| stale(&reason))?);
            }
        }
        let mut builder = RowBuilder::new();
        let mut batch = RowBatch::new();
        let mut rows = self.rows.messages()?;
        while let Some(message) = rows.next()? {
            taken(message.len())?;
            let (oid, key, values) = read_row(message).ok_or_else(unreadable)?;
            let Some((table, columns)) = targets.get(&oid) else {
                continue;
            };
            batch.clear();
            batch.push_parts(key, values);
            let mut row = batch.iter().next().ok_or_else(unreadable)?;
            if let Some(columns) = columns {
                reshape(&mut builder, row, columns)?;
                row = builder.row();
            }
            let row = FeedRow { owner: None, row };
            sink.change(Change::Insert { table: *table, row })?;
        }
        Ok(())
    }
}

impl Taken {
    /// Whether what is told since can be read in one way only.
    fn is_told_apart(&self, now: &TableLayout) -> bool {
        let of_partition = RelationLayout::default();
        let mut relations = now.relations.iter();
        relations.all(|(oid, now)| {
            let then = self.layout.relations.get(oid);
            is_told_apart(then.unwrap_or(&of_partition), now)
        })
    }

    /// Where the columns of the table as it is come from.
    fn reshaped(
        &self,
        schema: &StoreSchema,
        now: &TableLayout,
    ) -> Result<Vec<ColumnOrigin>, String> {
        let found = schema.find(&now.name);
        let (_, described) =
            found.ok_or_else(|| format!("table {} is not in the catalogue", now.name))?;
        reshaped((&self.layout, &self.schema), (now, described))
    }

    /// Which table it is by now, and where its columns come from, if they are others.
    fn target(
        &self,
        schema: &StoreSchema,
        now: &TableLayout,
    ) -> Result<(TableIndex, Option<Vec<ColumnOrigin>>), String> {
        let columns = self.reshaped(schema, now)?;
        let (table, _) = schema
            .find(&now.name)
            .expect("BUG: its columns were found just now");
        let was = (0..).map(|place| ColumnOrigin::From(ColumnIndex(place)));
        let is_same = columns.len() == self.schema.columns.len()
            && columns.iter().zip(was).all(|(is, was)| *is == was);
        Ok((table, (!is_same).then_some(columns)))
    }
}

/// Builds the row that a row became.
fn reshape(
    builder: &mut RowBuilder,
    row: RowRef<'_>,
    columns: &[ColumnOrigin],
) -> Result<(), StoreError> {
    let values: Vec<Option<&[u8]>> = row.values().collect();
    builder.start(row.key());
    for column in columns {
        builder.push(match column {
            ColumnOrigin::From(column) => *values.get(column.get()).ok_or_else(unreadable)?,
            ColumnOrigin::Filled(value) => value.as_deref(),
        });
    }
    Ok(())
}

fn unreadable() -> StoreError {
    let message = "read back the rows of tables that are new: it is not what was written";
    StoreError::new(ErrorKind::Other, message)
}
