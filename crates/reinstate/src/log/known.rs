//! The owners that are known where a log ends: made anew from its snapshot and its runs.

use std::collections::BTreeSet;
use std::sync::Arc;

use reinstate_core::{
    KeyPart, Owner, Position, Repository, RowBatch, RowBuilder, RowRef, StoreSchema, TableIndex,
};
use reinstate_format::{ChangeKind, LoggedChange, SegmentReader};

use super::chain::{Log, LogRun};
use super::owners::Owners;
use crate::catalogue::open_segment;
use crate::run_stream::{RunPart, RunStream};
use crate::{Context, Error};

/// The owners of the rows that others go by, at the end of a log.
///
/// *Cost*: reads the blocks of those tables, of all owners, in the snapshot and in every run.
pub(super) fn owners(
    context: Context<'_>,
    repository: &dyn Repository,
    log: &Log,
) -> Result<Owners, Error> {
    let snapshot = log.snapshot();
    let mut owners = Owners::try_new(context, &snapshot.schema)?;
    let tables: BTreeSet<TableIndex> = owners.tables().collect();
    if tables.is_empty() {
        return Ok(owners);
    }
    for segment in &snapshot.segments {
        let reader = open_segment(repository, snapshot, segment)?;
        for_each_row(context, &reader, &tables, |_, table, row| {
            owners.insert(table, row).map(|_| ())
        })?;
        settle(&mut owners)?;
    }
    for run in log.runs() {
        add_run(
            context,
            repository,
            run,
            &snapshot.schema,
            &tables,
            &mut owners,
        )?;
        settle(&mut owners)?;
    }
    Ok(owners)
}

fn settle(owners: &mut Owners) -> Result<(), Error> {
    owners.end_transaction()?;
    owners.rest()
}

/// What a run changed. Of a row that went from owner to owner only the last one has it at the end:
/// first everything that was removed, then for each owner what it has in the end.
fn add_run(
    context: Context<'_>,
    repository: &dyn Repository,
    run: &LogRun,
    schema: &StoreSchema,
    tables: &BTreeSet<TableIndex>,
    owners: &mut Owners,
) -> Result<(), Error> {
    let end = Position {
        commit: u64::MAX,
        ordinal: 0,
    };
    for &table in tables {
        if run.truncated(table, end).is_some() {
            owners.truncate(table)?;
        }
    }
    let reader = run.open(repository)?;
    let is_left = |table, change: &LoggedChange<'_>| {
        run.truncated(table, end)
            .is_none_or(|place| (change.commit, change.ordinal) > place)
    };
    let mut removed = RowBuilder::new();
    for_each_row(context, &reader, tables, |_, table, row| {
        let change = read(row)?;
        if change.kind == ChangeKind::Removed && is_left(table, &change) {
            if change.key.is_empty() {
                removed.start(&[]);
                removed.push_columns(change.columns);
            } else {
                row_of_key(schema, table, change.key, &mut removed);
            }
            owners.remove(table, removed.row())?;
        }
        Ok(())
    })?;
    owners.end_transaction()?;
    let mut last: Option<Last> = None;
    for_each_row(context, &reader, tables, |owner, table, row| {
        let change = read(row)?;
        if !is_left(table, &change) {
            return Ok(());
        }
        let is_next = last
            .as_ref()
            .is_none_or(|last| !last.is_of(owner, table, change.key));
        if is_next && let Some(last) = last.take() {
            last.settle(owners)?;
        }
        last = Some(Last::new(owner, table, &change));
        Ok(())
    })?;
    last.map_or(Ok(()), |last| last.settle(owners))
}

/// The last change of one row that was met.
struct Last {
    owner: Owner,
    table: TableIndex,
    row: RowBuilder,
    kind: ChangeKind,
}

impl Last {
    fn new(owner: &Owner, table: TableIndex, change: &LoggedChange<'_>) -> Self {
        let mut row = RowBuilder::new();
        row.start(change.key);
        row.push_columns(change.columns);
        Self {
            owner: owner.clone(),
            table,
            row,
            kind: change.kind,
        }
    }

    fn is_of(&self, owner: &Owner, table: TableIndex, key: &[u8]) -> bool {
        !key.is_empty()
            && self.owner == *owner
            && self.table == table
            && self.row.row().key() == key
    }

    fn settle(self, owners: &mut Owners) -> Result<(), Error> {
        if self.kind != ChangeKind::Removed {
            owners.insert(self.table, self.row.row())?;
        }
        Ok(())
    }
}

fn read(row: RowRef<'_>) -> Result<LoggedChange<'_>, Error> {
    LoggedChange::read(row).map_err(Error::format("read a log run"))
}

/// A row of which no more is known than its key.
fn row_of_key(schema: &StoreSchema, table: TableIndex, key: &[u8], row: &mut RowBuilder) {
    let table = schema.table(table);
    let parts = KeyPart::parse_all(key).unwrap_or_default();
    row.start(key);
    for place in 0..table.columns.len() {
        let part = table.key.iter().position(|column| column.get() == place);
        let text = part.and_then(|part| parts.get(part)).map(KeyPart::text);
        row.push(text.as_deref());
    }
}

fn for_each_row(
    context: Context<'_>,
    reader: &Arc<SegmentReader>,
    tables: &BTreeSet<TableIndex>,
    mut each: impl FnMut(&Owner, TableIndex, RowRef<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut batch = RowBatch::new();
    for run in reader.runs() {
        let run = run.map_err(Error::format("read an index"))?;
        if !tables.contains(&run.key.table) {
            continue;
        }
        let (owner, table) = (run.key.owner.clone(), run.key.table);
        let part = RunPart {
            reader: Arc::clone(reader),
            run: Arc::new(run),
        };
        let mut rows = RunStream::new(context.resources, vec![part]);
        while rows.next(&mut batch)? {
            context.check()?;
            for row in batch.iter() {
                each(&owner, table, row)?;
            }
        }
    }
    Ok(())
}
