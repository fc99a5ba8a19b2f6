//! The rows of tables of which the store tells old rows by their keys alone.
//!
//! A change is made whole with the row that was there: its owner, what it contained, and the values that
//! are not said again come from it. The rows lie in an unnamed file and are made anew from snapshot and
//! log whenever a log is followed, as the owners are.
//!
//! *Cost*: as much disk as the rows of those tables, uncompressed; none for other tables. Making it reads
//! the snapshot and the log once.

use std::collections::BTreeSet;

use reinstate_core::{
    Change, ChangeByKey, ColumnIndex, ErrorKind, FeedRow, Repository, RowBuilder, RowRef,
    TableIndex,
};

use super::chain::Log;
use super::index::{Entries, Index};
use super::ways::prefix;
use crate::layers::AllRows;
use crate::sort::Cursor;
use crate::{Context, Error};

const ROWS: Entries = Entries::new("rows");

/// Rows by table and key.
#[derive(Default)]
pub(super) struct KeptRows {
    /// The tables whose rows are kept, if it was said which.
    tables: BTreeSet<TableIndex>,
    index: Option<Index>,
}

/// A change by key as a whole one.
pub(super) enum Whole {
    Update(TableIndex, RowBuilder, RowBuilder),
    Delete(TableIndex, RowBuilder),
}

impl Whole {
    pub(super) fn change(&self) -> Change<'_> {
        match self {
            Self::Update(table, before, after) => Change::Update {
                table: *table,
                before: whole(before),
                after: whole(after),
            },
            Self::Delete(table, before) => Change::Delete {
                table: *table,
                before: whole(before),
            },
        }
    }
}

fn whole(row: &RowBuilder) -> FeedRow<'_> {
    FeedRow {
        owner: None,
        row: row.row(),
    }
}

impl KeptRows {
    /// Forgets everything: the tables are others from here on.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Keeps the rows of these tables, as they are at the end of a log. Does nothing if it does so
    /// already.
    ///
    /// # Errors
    /// `Corrupt` if the snapshot or the log is damaged; `Full`.
    pub(super) fn keep(
        &mut self,
        context: Context<'_>,
        repository: &dyn Repository,
        log: &Log,
        tables: &[TableIndex],
    ) -> Result<(), Error> {
        let tables: BTreeSet<TableIndex> = tables.iter().copied().collect();
        if self.tables == tables {
            return Ok(());
        }
        self.forget();
        if tables.is_empty() {
            return Ok(());
        }
        let mut index = Index::create(context, "keep the rows of tables")?;
        let position = log.through();
        let versions = (log.version_at(position), log.versions().len());
        let mut builder = RowBuilder::new();
        let mut rows = AllRows::open(context, repository, log, position)?;
        while rows.advance()? {
            let item = rows.current();
            let carried = log.carry(item.table, versions);
            let Some((table, reshape)) = carried.filter(|(table, _)| tables.contains(table)) else {
                continue;
            };
            let row = match &reshape {
                None => item.row,
                Some(reshape) => {
                    reshape.apply(item.row, &mut builder);
                    builder.row()
                }
            };
            index.set(ROWS, &name(table, row.key()), row.columns())?;
        }
        (self.tables, self.index) = (tables, Some(index));
        Ok(())
    }

    /// Takes note of a change that is told whole.
    pub(super) fn note(&mut self, change: Change<'_>) -> Result<(), Error> {
        let (table, gone, is) = match change {
            Change::Insert { table, row } => (table, None, Some(row)),
            Change::Update {
                table,
                before,
                after,
            } => (table, Some(before), Some(after)),
            Change::Delete { table, before } => (table, Some(before), None),
            Change::Truncate { table } => (table, None, None),
        };
        let Some(index) = self.index_of(table) else {
            return Ok(());
        };
        if gone.is_none() && is.is_none() {
            return index.clear(ROWS, &prefix(table));
        }
        if let Some(gone) = gone {
            index.remove(ROWS, &name(table, gone.row.key()))?;
        }
        match is {
            Some(is) => index.set(ROWS, &name(table, is.row.key()), is.row.columns()),
            None => Ok(()),
        }
    }

    /// Takes note of a change by key, and makes it whole.
    ///
    /// # Errors
    /// `NotRecoverable` if the row that was there is not known.
    pub(super) fn whole(&mut self, log: &Log, change: ChangeByKey<'_>) -> Result<Whole, Error> {
        let (table, key) = match change {
            ChangeByKey::Update { table, key, .. } | ChangeByKey::Delete { table, key } => {
                (table, key)
            }
        };
        let place = name(table, key);
        let Some(index) = self.index_of(table) else {
            return Err(unknown_row(log, table));
        };
        let columns = index.get(ROWS, &place)?;
        let before = row_of(key, &columns.ok_or_else(|| unknown_row(log, table))?);
        match change {
            ChangeByKey::Delete { .. } => {
                index.remove(ROWS, &place)?;
                Ok(Whole::Delete(table, before))
            }
            ChangeByKey::Update {
                after, unchanged, ..
            } => {
                let after = filled(before.row(), after.row, unchanged);
                let row = after.row();
                if row.key() != key {
                    index.remove(ROWS, &place)?;
                }
                index.set(ROWS, &name(table, row.key()), row.columns())?;
                Ok(Whole::Update(table, before, after))
            }
        }
    }

    fn index_of(&mut self, table: TableIndex) -> Option<&mut Index> {
        let is_kept = self.tables.contains(&table);
        self.index.as_mut().filter(|_| is_kept)
    }
}

/// The key of a row's entry.
fn name(table: TableIndex, key: &[u8]) -> Vec<u8> {
    let mut name = prefix(table).to_vec();
    name.extend_from_slice(key);
    name
}

fn row_of(key: &[u8], columns: &[u8]) -> RowBuilder {
    let mut row = RowBuilder::new();
    row.start(key);
    row.push_columns(columns);
    row
}

fn unknown_row(log: &Log, table: TableIndex) -> Error {
    let message = format!(
        "the store changed a row of table {} that neither the snapshot nor its log has: something is missing \
         behind {}. Everything up to there stays recoverable; a new snapshot starts a new log",
        log.last_schema().table(table).name,
        log.through().display(log.snapshot().notation)
    );
    Error::new(ErrorKind::NotRecoverable, message)
}

/// A row with the values that it had already in their places.
fn filled(before: RowRef<'_>, after: RowRef<'_>, unchanged: &[ColumnIndex]) -> RowBuilder {
    let mut row = RowBuilder::new();
    row.start(after.key());
    if unchanged.is_empty() {
        row.push_columns(after.columns());
        return row;
    }
    let values = before.values().zip(after.values()).zip(0..);
    for ((was, is), column) in values {
        let stayed = unchanged.contains(&ColumnIndex(column));
        row.push(if stayed { was } else { is });
    }
    row
}
