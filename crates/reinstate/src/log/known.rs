//! The owners that are known where a log ends: made anew from its snapshot and its runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use reinstate_core::{
    KeyPart, Owner, Position, Repository, RowBatch, RowBuilder, RowRef, StoreSchema, TableIndex,
};
use reinstate_format::{ChangeKind, LoggedChange, SegmentReader};

use super::chain::{Log, LogRun};
use super::owners::Owners;
use super::versions::Reshape;
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
    let mut owners = Owners::try_new(context, log.last_schema())?;
    let tables: BTreeSet<TableIndex> = owners.tables().collect();
    if tables.is_empty() {
        return Ok(owners);
    }
    let mut carried = Carried::from(log, 0, &tables);
    for segment in &snapshot.segments {
        let reader = open_segment(repository, snapshot, segment)?;
        carried.for_each_row(context, &reader, |_, table, row| {
            owners.insert(table, row).map(|_| ())
        })?;
        owners.end_transaction()?;
    }
    for (place, run) in log.runs().iter().enumerate() {
        let version = log.version_of_run(place);
        if version != carried.version {
            carried = Carried::from(log, version, &tables);
        }
        add_run(context, repository, run, &carried, &mut owners)?;
        owners.end_transaction()?;
    }
    Ok(owners)
}

/// The tables of one version of a log whose rows have to be known, and what they are in the last one.
struct Carried<'l> {
    version: usize,
    schema: &'l StoreSchema,
    tables: BTreeMap<TableIndex, (TableIndex, Option<Reshape>)>,
}

impl<'l> Carried<'l> {
    fn from(log: &'l Log, version: usize, wanted: &BTreeSet<TableIndex>) -> Self {
        let schema = log.schema_of(version);
        let last = log.versions().len();
        let tables = schema.iter().filter_map(|(table, _)| {
            let carried = log.carry(table, (version, last))?;
            wanted.contains(&carried.0).then_some((table, carried))
        });
        Self {
            version,
            tables: tables.collect(),
            schema,
        }
    }

    /// The rows of these tables, as they are in the last version.
    fn for_each_row(
        &self,
        context: Context<'_>,
        reader: &Arc<SegmentReader>,
        mut each: impl FnMut(&Owner, TableIndex, RowRef<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut builder = RowBuilder::new();
        for_each_row(context, reader, &self.tables, |owner, table, row| {
            let (target, reshape) = &self.tables[&table];
            let row = reshaped(reshape.as_ref(), row, &mut builder);
            each(owner, *target, row)
        })
    }
}

fn reshaped<'r>(
    reshape: Option<&Reshape>,
    row: RowRef<'r>,
    builder: &'r mut RowBuilder,
) -> RowRef<'r> {
    match reshape {
        None => row,
        Some(reshape) => {
            reshape.apply(row, builder);
            builder.row()
        }
    }
}

/// What a run changed. Of a row that went from owner to owner only the last one has it at the end:
/// first everything that was removed, then for each owner what it has in the end. A row that went along
/// with the one that it goes by is not in what its first owner lost: where rows did, what was said of a row
/// last counts, whoever had it then.
fn add_run(
    context: Context<'_>,
    repository: &dyn Repository,
    run: &LogRun,
    carried: &Carried<'_>,
    owners: &mut Owners,
) -> Result<(), Error> {
    let tables = &carried.tables;
    let end = Position {
        commit: u64::MAX,
        ordinal: 0,
    };
    for (&table, (target, _)) in tables {
        if run.truncated(table, end).is_some() {
            owners.truncate(*target)?;
        }
    }
    let reader = run.open(repository)?;
    let is_left = |table, change: &LoggedChange<'_>| {
        run.truncated(table, end)
            .is_none_or(|place| (change.commit, change.ordinal) > place)
    };
    let went_along = !run.description.moves.is_empty();
    let (mut removed, mut builder) = (RowBuilder::new(), RowBuilder::new());
    for_each_row(context, &reader, tables, |_, table, row| {
        let change = read(row)?;
        if went_along && is_left(table, &change) {
            owners.note_said(table, &change)?;
        }
        if change.kind == ChangeKind::Removed && is_left(table, &change) {
            if change.key.is_empty() {
                removed.start(&[]);
                removed.push_columns(change.columns);
            } else {
                row_of_key(carried.schema, table, change.key, &mut removed);
            }
            let (target, reshape) = &tables[&table];
            let row = reshaped(reshape.as_ref(), removed.row(), &mut builder);
            owners.remove(*target, row)?;
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
            last.settle(carried, owners)?;
        }
        let counts = !went_along || owners.was_said_last(table, &change)?;
        last = Some(Last::new(owner, table, &change, counts));
        Ok(())
    })?;
    last.map_or(Ok(()), |last| last.settle(carried, owners))?;
    if went_along {
        owners.forget_said()?;
    }
    Ok(())
}

/// The last change of one row that was met.
struct Last {
    owner: Owner,
    table: TableIndex,
    row: RowBuilder,
    /// Whether the row is there at the end, as it is here.
    is_there: bool,
}

impl Last {
    fn new(owner: &Owner, table: TableIndex, change: &LoggedChange<'_>, counts: bool) -> Self {
        let mut row = RowBuilder::new();
        row.start(change.key);
        row.push_columns(change.columns);
        Self {
            owner: owner.clone(),
            table,
            row,
            is_there: counts && change.kind != ChangeKind::Removed,
        }
    }

    fn is_of(&self, owner: &Owner, table: TableIndex, key: &[u8]) -> bool {
        !key.is_empty()
            && self.owner == *owner
            && self.table == table
            && self.row.row().key() == key
    }

    fn settle(self, carried: &Carried<'_>, owners: &mut Owners) -> Result<(), Error> {
        if self.is_there {
            let (target, reshape) = &carried.tables[&self.table];
            let mut builder = RowBuilder::new();
            let row = reshaped(reshape.as_ref(), self.row.row(), &mut builder);
            owners.insert(*target, row)?;
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

fn for_each_row<T>(
    context: Context<'_>,
    reader: &Arc<SegmentReader>,
    tables: &BTreeMap<TableIndex, T>,
    mut each: impl FnMut(&Owner, TableIndex, RowRef<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut batch = RowBatch::new();
    for run in reader.runs() {
        let run = run.map_err(Error::format("read an index"))?;
        if !tables.contains_key(&run.key.table) {
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
