//! Rows that went to another owner because the row that they go by did.
//!
//! The store lists only the row that moved. Which others went with it follows from what its owner had at
//! that place of the log: their removal there and their insertion here are made up for, so that both
//! owners are complete.

use std::collections::{BTreeMap, BTreeSet};

use reinstate_core::{
    ContentDigest, ErrorKind, Owner, Position, RowBatch, RowBuilder, RowRef, RowStream, TableIndex,
};
use reinstate_format::{ChangeKind, FamilyMove, LoggedChange, push_change};

use super::{Layers, OwnerAt, Place, PlaceInLog};
use crate::log::{Log, LogRun, Names, Way, going_by_others, names, names_of, way};
use crate::opened::Opened;
use crate::run_stream::{RunPart, RunStream};
use crate::{Context, Error};

/// The changes of `owner` that follow from those of other rows, up to a position, by the stage and the
/// table there.
pub(super) fn followed(
    context: Context<'_>,
    opened: &Opened<'_>,
    log: &Log,
    position: Position,
    owner: &Owner,
) -> Result<BTreeMap<(usize, TableIndex), RowBatch>, Error> {
    let at = PlaceInLog::end_of(log, position);
    let layers = Layers::open(context, opened, log, at, owner)?;
    let stages = layers.stages.into_iter().enumerate();
    Ok(stages
        .flat_map(|(stage, layer)| {
            let followed = layer.followed.into_iter();
            followed.map(move |(table, rows)| ((stage, table), rows))
        })
        .collect())
}

/// Whether nothing else happened between two moves, so that it makes no difference which was first.
pub(super) fn go_together(left: &FamilyMove, right: &FamilyMove) -> bool {
    // A row that moves is two changes: it is removed there and inserted here.
    left.commit == right.commit
        && left.ordinal.checked_add(2) == Some(right.ordinal)
        && (left.table, &left.from, &left.to) == (right.table, &right.from, &right.to)
}

/// The changes of `owner` that follow from moves that go together, of one run of one version of the
/// tables.
pub(super) fn follow(
    context: Context<'_>,
    opened: &Opened<'_>,
    log: &Log,
    (version, run, moves): (usize, &LogRun, &[&FamilyMove]),
    owner: &Owner,
) -> Result<BTreeMap<TableIndex, RowBatch>, Error> {
    let schema = log.schema_of(version);
    let moved = moves[0];
    // Just before the first row was inserted here: what its family was by then, and not what became
    // of it.
    let place: Place = match moved.ordinal.checked_sub(1) {
        Some(ordinal) => (moved.commit, ordinal),
        None => (moved.commit.saturating_sub(1), u32::MAX),
    };
    let kind = if moved.to == *owner {
        ChangeKind::Inserted
    } else {
        ChangeKind::Removed
    };
    let mut family = Family {
        names: names(schema),
        members: BTreeSet::new(),
    };
    let heads = heads(context, opened, run, moves)?;
    for row in heads.iter() {
        let change = read(row)?;
        let mut row = RowBuilder::new();
        row.start(change.key);
        row.push_columns(change.columns);
        family.add(moved.table, row.row());
    }
    let at = PlaceInLog { place, version };
    let source = OwnerAt::open(context, opened, log, &moved.from, at)?;
    let mut change = RowBuilder::new();
    let mut followed: BTreeMap<TableIndex, RowBatch> = BTreeMap::new();
    for table in going_by_others(schema) {
        let mut rows = source.rows(context, table)?;
        let mut batch = RowBatch::new();
        while rows
            .next_batch(&mut batch)
            .map_err(Error::store("find the rows that went along"))?
        {
            context.check()?;
            for row in batch.iter() {
                let Way::By(name) = way(schema.table(table), row) else {
                    continue;
                };
                if !family.members.contains(&name) {
                    continue;
                }
                family.add(table, row);
                let is_bare = kind == ChangeKind::Removed && !row.key().is_empty();
                let logged = LoggedChange {
                    key: row.key(),
                    columns: if is_bare { &[] } else { row.columns() },
                    commit: moved.commit,
                    ordinal: moved.ordinal,
                    kind,
                    was: match kind {
                        ChangeKind::Inserted => 0,
                        _ => content_of(row),
                    },
                };
                push_change(logged, &mut change);
                followed.entry(table).or_default().push_row(change.row());
            }
        }
    }
    Ok(followed)
}

/// Rows that go by one row, over one hop or several.
struct Family {
    names: Names,
    /// Their names, as those write them that go by them.
    members: BTreeSet<Vec<u8>>,
}

impl Family {
    fn add(&mut self, table: TableIndex, row: RowRef<'_>) {
        let columns = self.names.get(&table);
        let names = names_of(table, row, columns.into_iter().flatten());
        self.members.extend(names);
    }
}

/// The changes that inserted the rows that moved.
fn heads(
    context: Context<'_>,
    opened: &Opened<'_>,
    run: &LogRun,
    moves: &[&FamilyMove],
) -> Result<RowBatch, Error> {
    let moved = moves[0];
    let ordinals: BTreeSet<u32> = moves.iter().map(|moved| moved.ordinal).collect();
    let reader = opened.run(run)?;
    let found = reader
        .runs_of(&moved.to)
        .map_err(Error::format("find rows that moved"))?;
    let parts: Vec<RunPart> = found
        .into_iter()
        .filter(|run| run.key.table == moved.table)
        .map(|run| RunPart {
            reader: reader.clone(),
            run: run.into(),
        })
        .collect();
    let mut rows = RunStream::new(context.resources, parts);
    let mut batch = RowBatch::new();
    let mut heads = RowBatch::new();
    while rows.next(&mut batch)? {
        for row in batch.iter() {
            let change = read(row)?;
            if change.commit == moved.commit && ordinals.contains(&change.ordinal) {
                heads.push_row(row);
            }
        }
    }
    if heads.len() == moves.len() {
        return Ok(heads);
    }
    let message = format!(
        "log run {}: {} rows moved at commit {}, and the log has {} of them",
        run.description.number,
        moves.len(),
        moved.commit,
        heads.len()
    );
    Err(Error::new(ErrorKind::Corrupt, message))
}

fn content_of(row: RowRef<'_>) -> u128 {
    let mut content = ContentDigest::EMPTY;
    content.add(row);
    content.sum()
}

fn read(row: RowRef<'_>) -> Result<LoggedChange<'_>, Error> {
    LoggedChange::read(row).map_err(Error::format("read a change"))
}
