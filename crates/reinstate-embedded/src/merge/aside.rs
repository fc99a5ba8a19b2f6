//! Many changes: the next generation of the tables, built aside.

use std::cmp;

use redb::ReadableDatabase;
use reinstate_core::{
    ChangeCounts, ChangeSource, Committed, ErrorKind, JournalEntry, RowBatch, RowRef, RowRole,
    RowStream, StoreError, TableIndex, TableName,
};

use super::chunk::Chunk;
use super::flush::Flush;
use super::plan_rows::PlanRows;
use super::{EmbeddedWriter, State};
use crate::error::During;
use crate::feed::{NotedAside, Recorder};
use crate::generation::current;
use crate::key::{GARBAGE, GENERATIONS, Place, garbage_key, generation_key};
use crate::scan::Scan;
use crate::view::PlaceRows;

/// Tables whose next generation was built.
#[derive(Default)]
pub(super) struct Aside {
    tables: Vec<TableAside>,
    /// Brings them to the disk.
    flush: Option<Flush>,
}

struct TableAside {
    table: TableIndex,
    old: u64,
    old_place: Place,
    new: u64,
    new_place: Place,
    /// Whether the old generation has rows that are to be removed.
    had_rows: bool,
}

/// A switch that was committed.
struct Switched {
    committed: Committed,
    /// Whether it leads to changes that were noted aside.
    is_noted: bool,
}

impl Aside {
    /// The tables, each with the places of its old rows and its new ones.
    pub(super) fn places(&self) -> impl Iterator<Item = (TableIndex, &Place, &Place)> {
        let tables = self.tables.iter();
        tables.map(|aside| (aside.table, &aside.old_place, &aside.new_place))
    }

    /// Where the table's next generation is, if one was built.
    pub(super) fn place(&self, table: TableIndex) -> Option<Place> {
        let found = self.tables.iter().find(|aside| aside.table == table);
        found.map(|aside| aside.new_place.clone())
    }
}

impl EmbeddedWriter<'_> {
    pub(super) fn build(
        &mut self,
        changes: &dyn ChangeSource,
    ) -> Result<Vec<(TableName, ChangeCounts)>, StoreError> {
        // Noted first, so that whatever is built is discarded when building goes wrong.
        self.state = State::Aside(Aside::default());
        let transaction = self.store.database.begin_read().during("read a tenant")?;
        let mut counted = Vec::new();
        let tables = changes.tables();
        let mut created = open_created(changes, tables.first())?;
        for (index, &table) in tables.iter().enumerate() {
            // The next table's rows are decoded while this one's are written.
            let upcoming = open_created(changes, tables.get(index + 1))?;
            let created = std::mem::replace(&mut created, upcoming);
            let aside = self.next_generation(&transaction, table)?;
            let (old_place, new_place) = (aside.old_place.clone(), aside.new_place.clone());
            let new = aside.new;
            let schema = self.store.schema.table(table);
            let old = Scan::new(old_place, !schema.has_key());
            let mut old = PlanRows::over(Box::new(PlaceRows::open(&transaction, table, old)?));
            old.advance()?;
            if let State::Aside(all) = &mut self.state {
                all.tables.push(TableAside {
                    had_rows: old.row().is_some(),
                    ..aside
                });
            }
            let mut chunk = Chunk::new(self, table, new, new_place, !schema.has_key());
            let counts = if schema.has_key() && old.row().is_none() {
                create_all(created, changes.counts(table), &mut chunk)?
            } else if schema.has_key() {
                merge_keyed(old, created, changes, table, &mut chunk)?
            } else {
                merge_multiset(old, created, changes, table, &mut chunk)?
            };
            let surplus = chunk.finish()?;
            let counts = ChangeCounts {
                created: counts.created + surplus,
                ..counts
            };
            counted.push((schema.name.clone(), counts));
        }
        if let State::Aside(all) = &mut self.state {
            all.flush = Some(Flush::begin(self.store));
        }
        Ok(counted)
    }

    fn next_generation(
        &self,
        transaction: &redb::ReadTransaction,
        table: TableIndex,
    ) -> Result<TableAside, StoreError> {
        let operation = "choose a generation";
        let owner = self.tenant.as_bytes();
        let generations = transaction.open_table(GENERATIONS).during(operation)?;
        let garbage = transaction.open_table(GARBAGE).during(operation)?;
        let old = current(&generations, table, owner)?;
        let mut new = old + 1;
        while garbage
            .get(garbage_key(table, new, owner).as_slice())
            .during(operation)?
            .is_some()
        {
            new += 1;
        }
        let (old_place, new_place) = (Place::new(owner, old), Place::new(owner, new));
        Ok(TableAside {
            table,
            old,
            old_place,
            new,
            new_place,
            had_rows: true,
        })
    }

    /// Switches to what was built, in one durable transaction, and removes what it replaced.
    pub(super) fn switch(
        &self,
        mut aside: Aside,
        entry: &JournalEntry,
    ) -> Result<Committed, StoreError> {
        let flushed = aside.flush.take().map_or(Ok(()), Flush::wait);
        match flushed.and_then(|()| self.commit_noted(&aside, entry)) {
            Ok(committed) => {
                for table in aside.tables.iter().filter(|table| table.had_rows) {
                    // The merge is committed. Rows that stay behind are recorded, unseen, and
                    // removed when the store is opened again.
                    let _ =
                        self.store
                            .remove_garbage(table.table, table.old, self.tenant.as_bytes());
                }
                Ok(committed)
            }
            Err(error) => {
                self.discard(&aside);
                Err(error)
            }
        }
    }

    /// Switches, after the changes were noted for those who follow the store, if anybody does.
    fn commit_noted(&self, aside: &Aside, entry: &JournalEntry) -> Result<Committed, StoreError> {
        loop {
            let noted = self.note_changes(aside)?;
            let committed = self.commit_switch(aside, entry, noted.as_ref());
            if let Some(noted) = noted
                && !matches!(committed, Ok(Some(Switched { is_noted: true, .. })))
            {
                // Nobody follows the store any more, or the restore failed. What stays behind is
                // recorded, unseen, and removed when the store is opened again.
                let _ = self.store.remove_noted_aside(noted.number);
            }
            if let Some(switched) = committed? {
                return Ok(switched.committed);
            }
        }
    }

    /// Returns nothing if the switch has to wait until its changes are noted: somebody began to
    /// follow the store after it was looked whether anybody does.
    fn commit_switch(
        &self,
        aside: &Aside,
        entry: &JournalEntry,
        noted: Option<&NotedAside>,
    ) -> Result<Option<Switched>, StoreError> {
        let operation = "switch to the restored rows";
        let owner = self.tenant.as_bytes();
        let _turn = self.store.gate.enter();
        let transaction = self.store.database.begin_write().during(operation)?;
        self.check_version(&transaction)?;
        let recorder = Recorder::begin(&transaction, self.store.clock)?;
        let note = match (recorder, noted) {
            (Some(_), None) => return Ok(None),
            (Some(recorder), Some(noted)) => Some((recorder, noted)),
            (None, _) => None,
        };
        let is_noted = note.is_some();
        {
            let mut generations = transaction.open_table(GENERATIONS).during(operation)?;
            let mut garbage = transaction.open_table(GARBAGE).during(operation)?;
            for table in &aside.tables {
                let key = generation_key(table.table, owner);
                generations
                    .insert(key.as_slice(), table.new)
                    .map(drop)
                    .during(operation)?;
                let key = garbage_key(table.table, table.new, owner);
                garbage.remove(key.as_slice()).map(drop).during(operation)?;
                if !table.had_rows {
                    continue;
                }
                let key = garbage_key(table.table, table.old, owner);
                garbage
                    .insert(key.as_slice(), ())
                    .map(drop)
                    .during(operation)?;
            }
        }
        let committed = self.finish(transaction, entry, |transaction, commit| match note {
            Some((recorder, noted)) => noted.publish(transaction, recorder, commit),
            None => Ok(()),
        })?;
        Ok(Some(Switched {
            committed,
            is_noted,
        }))
    }

    /// Removes what was built. If that goes wrong too, the record of it stays, and opening the
    /// store removes it. So it does with what a merge built that was taken over: whoever did that may
    /// have built the same generation by now.
    pub(super) fn discard(&self, aside: &Aside) {
        let is_ours = || self.lease.is_held();
        for table in &aside.tables {
            let owner = self.tenant.as_bytes();
            let _ = self
                .store
                .remove_garbage_while(&is_ours, table.table, table.new, owner);
        }
    }
}

/// The rows to create in a table, whose reading begins at once.
fn open_created<'c>(
    changes: &'c dyn ChangeSource,
    table: Option<&TableIndex>,
) -> Result<Option<Box<dyn RowStream + 'c>>, StoreError> {
    match table {
        Some(&table) if changes.counts(table).created > 0 => {
            changes.rows(table, RowRole::Created).map(Some)
        }
        _ => Ok(None),
    }
}

/// Created rows alone, where the tenant has none: batch by batch as they come.
fn create_all(
    created: Option<Box<dyn RowStream + '_>>,
    planned: ChangeCounts,
    chunk: &mut Chunk<'_, '_>,
) -> Result<ChangeCounts, StoreError> {
    if planned.deleted > 0 || planned.put_back > 0 {
        return Err(moved("a row to change is gone"));
    }
    let mut counts = ChangeCounts::NONE;
    let Some(mut created) = created else {
        return Ok(counts);
    };
    let mut batch = RowBatch::new();
    while created.next_batch(&mut batch)? {
        counts.created += batch.len() as u64;
        chunk.push_batch(std::mem::take(&mut batch))?;
    }
    Ok(counts)
}

/// Old rows, without the deleted, with the put back in their place, and the created in between.
fn merge_keyed(
    mut old: PlanRows<'_>,
    created: Option<Box<dyn RowStream + '_>>,
    changes: &dyn ChangeSource,
    table: TableIndex,
    chunk: &mut Chunk<'_, '_>,
) -> Result<ChangeCounts, StoreError> {
    let mut counts = ChangeCounts::NONE;
    let mut deleted = PlanRows::open(changes, table, RowRole::Deleted)?;
    let mut put_back = PlanRows::open(changes, table, RowRole::PutBackAfter)?;
    let mut created = PlanRows::over_some(created)?;
    loop {
        let created_first = match (old.row(), created.row()) {
            (None, None) => break,
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (Some(old), Some(created)) => match created.key().cmp(old.key()) {
                cmp::Ordering::Less => true,
                cmp::Ordering::Greater => false,
                cmp::Ordering::Equal => return Err(moved("a row to create is there already")),
            },
        };
        if created_first {
            if let Some(row) = created.row() {
                chunk.push(row, 1)?;
            }
            counts.created += 1;
            created.advance()?;
            continue;
        }
        let Some(row) = old.row() else { break };
        if deleted
            .row()
            .is_some_and(|deleted| deleted.key() == row.key())
        {
            counts.deleted += 1;
            deleted.advance()?;
        } else if let Some(after) = put_back.row().filter(|after| after.key() == row.key()) {
            chunk.push(after, 1)?;
            counts.put_back += 1;
            put_back.advance()?;
        } else {
            chunk.push(row, 1)?;
        }
        old.advance()?;
    }
    if deleted.row().is_some() || put_back.row().is_some() {
        return Err(moved("a row to change is gone"));
    }
    Ok(counts)
}

/// Old rows with their counts, more by the created and less by the deleted.
fn merge_multiset(
    mut old: PlanRows<'_>,
    created: Option<Box<dyn RowStream + '_>>,
    changes: &dyn ChangeSource,
    table: TableIndex,
    chunk: &mut Chunk<'_, '_>,
) -> Result<ChangeCounts, StoreError> {
    let mut counts = ChangeCounts::NONE;
    let mut deleted = PlanRows::open(changes, table, RowRole::Deleted)?;
    let mut created = PlanRows::over_some(created)?;
    let mut row = RowBatch::new();
    loop {
        let lowest = [&old, &created].into_iter().filter_map(PlanRows::row);
        let Some(lowest) = lowest.min_by(|left, right| left.columns().cmp(right.columns())) else {
            break;
        };
        row.clear();
        row.push_row(lowest);
        let Some((lowest, _)) = row.row_at(0) else {
            break;
        };
        let held = take_equal(&mut old, lowest)?;
        let added = take_equal(&mut created, lowest)?;
        let taken = take_equal(&mut deleted, lowest)?;
        counts.created += added;
        counts.deleted += taken;
        let left = (held + added)
            .checked_sub(taken)
            .ok_or_else(|| moved("a row to delete is gone"))?;
        if left > 0 {
            chunk.push(lowest, left)?;
        }
    }
    if deleted.row().is_some() {
        return Err(moved("a row to delete is gone"));
    }
    Ok(counts)
}

/// Goes past every row that equals this one; returns how many there were.
fn take_equal(rows: &mut PlanRows<'_>, wanted: RowRef<'_>) -> Result<u64, StoreError> {
    let mut count = 0;
    while rows
        .row()
        .is_some_and(|row| row.columns() == wanted.columns())
    {
        count += 1;
        rows.advance()?;
    }
    Ok(count)
}

fn moved(fact: &str) -> StoreError {
    StoreError::new(
        ErrorKind::Stale,
        format!("write the rows of a tenant aside: {fact}"),
    )
}
