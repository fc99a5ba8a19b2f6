//! Few changes: one transaction, row by row.

use std::ops::Bound;

use redb::{CursorError, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use reinstate_core::{
    ChangeCounts, ChangeSource, ErrorKind, RowRef, RowRole, StoreError, StoreSchema, TableIndex,
    TableName,
};

use super::plan_rows::PlanRows;
use super::{EmbeddedWriter, State};
use crate::EmbeddedStore;
use crate::error::{During, store_error};
use crate::feed::{Parts, Recorder, RowChange};
use crate::key::{Bytes, DataTable, Place};
use crate::scan::read_count;

impl EmbeddedWriter<'_> {
    /// Whether the tenant's rows can be read back while everybody waits.
    ///
    /// *Cost*: reads them, as far as the limit.
    pub(super) fn is_small_tenant(&self) -> Result<bool, StoreError> {
        let operation = "see how much a tenant has";
        let transaction = self.store.database.begin_read().during(operation)?;
        let mut bytes = 0;
        for (table, schema) in self.store.schema.iter() {
            if !schema.tenancy.is_tenant_owned() {
                continue;
            }
            let owner = self.tenant.as_bytes();
            let place = EmbeddedStore::place_in_read(&transaction, table, owner)?;
            let name = DataTable::new(table);
            let data = transaction
                .open_table(name.definition())
                .during(operation)?;
            let end = place.end();
            let end = end.as_ref().map(Vec::as_slice);
            let bounds = (Bound::Included(place.prefix()), end);
            for entry in data.range::<&[u8]>(bounds).during(operation)? {
                let (key, value) = entry.during(operation)?;
                bytes += (key.value().len() + value.value().len()) as u64;
                if bytes > self.store.in_place_tenant_bytes_max {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    pub(super) fn apply_in_place(
        &mut self,
        changes: &dyn ChangeSource,
    ) -> Result<Vec<(TableName, ChangeCounts)>, StoreError> {
        let operation = "write the rows of a tenant";
        let turn = self.store.gate.enter();
        let transaction = self.store.database.begin_write().during(operation)?;
        self.check_version(&transaction)?;
        let mut recorder = Recorder::begin(&transaction, self.store.clock)?;
        let before = self.key_counts(&transaction)?;
        let mut tallies = vec![Tally::default(); before.len()];
        for &table in changes.tables() {
            let place = EmbeddedStore::place_in_write(&transaction, table, self.tenant.as_bytes())?;
            let name = DataTable::new(table);
            let data = transaction
                .open_table(name.definition())
                .during(operation)?;
            let is_multiset = !self.store.schema.table(table).has_key();
            let mut writer = TableChange {
                data,
                place,
                key: Vec::new(),
                tally: Tally::default(),
                notes: Notes {
                    recorder: recorder.as_mut(),
                    transaction: &transaction,
                    schema: &self.store.schema,
                    table,
                    owner: self.tenant.as_bytes(),
                },
            };
            if is_multiset {
                writer.count(changes, table)?;
            } else {
                writer.put(changes, table)?;
            }
            tallies[table.get()] = writer.tally;
        }
        let after = self.key_counts(&transaction)?;
        let counted = self.reconcile(&before, &after, &tallies);
        self.state = State::InPlace {
            transaction: Box::new(transaction),
            recorder,
            _turn: turn,
        };
        Ok(counted)
    }

    /// How many keys each table holds, whoever they belong to.
    fn key_counts(&self, transaction: &redb::WriteTransaction) -> Result<Vec<u64>, StoreError> {
        let tables = self.store.schema.iter();
        tables
            .map(|(index, _)| {
                let name = DataTable::new(index);
                let data = transaction
                    .open_table(name.definition())
                    .during("count rows")?;
                data.len().during("count rows")
            })
            .collect()
    }

    /// What changed, by the answers of the store to each row and by its count of keys in every
    /// table.
    fn reconcile(
        &self,
        before: &[u64],
        after: &[u64],
        tallies: &[Tally],
    ) -> Vec<(TableName, ChangeCounts)> {
        let mut counted = Vec::new();
        for (index, table) in self.store.schema.iter() {
            let place = index.get();
            let counts = tallies[place].reconciled(before[place], after[place]);
            if counts.total() > 0 {
                counted.push((table.name.clone(), counts));
            }
        }
        counted
    }
}

/// What the store answered.
#[derive(Clone, Copy, Default)]
struct Tally {
    counts: ChangeCounts,
    keys_added: u64,
    keys_removed: u64,
}

impl Tally {
    /// What was counted in a table that held so many keys before and holds so many after. Where the answers say
    /// another number the surplus is counted too, so that no plan can match it.
    fn reconciled(&self, before: u64, after: u64) -> ChangeCounts {
        let mut counts = self.counts;
        let expected = before + self.keys_added - self.keys_removed;
        counts.created += after.saturating_sub(expected);
        counts.deleted += expected.saturating_sub(after);
        counts
    }
}

struct TableChange<'t> {
    data: redb::Table<'t, Bytes, Bytes>,
    place: Place,
    key: Vec<u8>,
    tally: Tally,
    notes: Notes<'t>,
}

/// Where the changes of a table are noted for those who follow the store, if anybody does.
struct Notes<'t> {
    recorder: Option<&'t mut Recorder>,
    transaction: &'t redb::WriteTransaction,
    schema: &'t StoreSchema,
    table: TableIndex,
    owner: &'t [u8],
}

impl Notes<'_> {
    /// Notes a change, in memory.
    fn note(&mut self, change: RowChange<'_>) -> Result<(), StoreError> {
        match &mut self.recorder {
            Some(recorder) => recorder.push(self.schema, self.table, self.owner, change),
            None => Ok(()),
        }
    }

    /// Writes what was noted if it has become much.
    fn write(&mut self) -> Result<(), StoreError> {
        match &mut self.recorder {
            Some(recorder) => recorder.write_if_full(self.transaction),
            None => Ok(()),
        }
    }
}

impl TableChange<'_> {
    fn put(&mut self, changes: &dyn ChangeSource, table: TableIndex) -> Result<(), StoreError> {
        let mut deleted = PlanRows::open(changes, table, RowRole::Deleted)?;
        while let Some(row) = deleted.row() {
            self.place.write_key(row.key(), &mut self.key);
            let removed = self
                .data
                .remove(self.key.as_slice())
                .during("delete a row")?;
            self.tally.counts.deleted += u64::from(removed.is_some());
            self.tally.keys_removed += u64::from(removed.is_some());
            if let Some(columns) = &removed {
                self.notes.note(RowChange::Delete(Parts {
                    key: row.key(),
                    columns: columns.value(),
                }))?;
            }
            drop(removed);
            self.notes.write()?;
            deleted.advance()?;
        }
        let mut put_back = PlanRows::open(changes, table, RowRole::PutBackAfter)?;
        while let Some(row) = put_back.row() {
            self.place.write_key(row.key(), &mut self.key);
            let replaced = self
                .data
                .insert(self.key.as_slice(), row.columns())
                .during("write a row")?;
            let is_new = u64::from(replaced.is_none());
            self.tally.counts.created += is_new;
            self.tally.keys_added += is_new;
            self.tally.counts.put_back += 1 - is_new;
            let after = Parts::from(row);
            self.notes.note(match &replaced {
                Some(columns) => RowChange::Update {
                    before: Parts {
                        columns: columns.value(),
                        ..after
                    },
                    after,
                },
                None => RowChange::Insert(after),
            })?;
            drop(replaced);
            self.notes.write()?;
            put_back.advance()?;
        }
        self.create(&mut PlanRows::open(changes, table, RowRole::Created)?)
    }

    /// Inserts sorted rows through a cursor: it is looked up once for each run of rows that meets
    /// no other row in between, not once for each row.
    fn create(&mut self, rows: &mut PlanRows<'_>) -> Result<(), StoreError> {
        let operation = "write a row";
        while rows.row().is_some() {
            let mut inserted = 0;
            if let Some(row) = rows.row() {
                self.place.write_key(row.key(), &mut self.key);
            }
            let start = Bound::Excluded(self.key.as_slice());
            let mut cursor = self.data.upper_bound_mut(start).during(operation)?;
            let mut key = Vec::new();
            while let Some(row) = rows.row() {
                self.place.write_key(row.key(), &mut key);
                match cursor.insert_before(key.as_slice(), row.columns()) {
                    Ok(()) => inserted += 1,
                    // A row lies in between: look the next place up.
                    Err(CursorError::UnorderedKey) if inserted > 0 => break,
                    Err(CursorError::UnorderedKey) => {
                        let message = format!("{operation}: a row to create is there already");
                        return Err(StoreError::new(ErrorKind::Conflict, message));
                    }
                    Err(error) => return Err(store_error(operation, error)),
                }
                self.notes.note(RowChange::Insert(row.into()))?;
                rows.advance()?;
            }
            cursor.close().during(operation)?;
            self.notes.write()?;
            self.tally.counts.created += inserted;
            self.tally.keys_added += inserted;
        }
        Ok(())
    }

    /// Changes the counts of rows of a table without a key.
    fn count(&mut self, changes: &dyn ChangeSource, table: TableIndex) -> Result<(), StoreError> {
        for (role, is_more) in [(RowRole::Deleted, false), (RowRole::Created, true)] {
            let mut rows = PlanRows::open(changes, table, role)?;
            while let Some(row) = rows.row() {
                self.change_count(row, is_more)?;
                rows.advance()?;
            }
        }
        Ok(())
    }

    fn change_count(&mut self, row: RowRef<'_>, is_more: bool) -> Result<(), StoreError> {
        self.place.write_key(row.columns(), &mut self.key);
        let key = self.key.as_slice();
        let found = self.data.get(key).during("read a row")?;
        let copies = found
            .as_ref()
            .map_or(Ok(0), |count| read_count(count.value()))?;
        drop(found);
        if is_more {
            let count = (copies + 1).to_le_bytes();
            self.data
                .insert(key, count.as_slice())
                .map(drop)
                .during("write a row")?;
            self.tally.counts.created += 1;
            self.tally.keys_added += u64::from(copies == 0);
        } else if copies == 0 {
            let message = "delete a row: the tenant does not have it";
            return Err(StoreError::new(ErrorKind::Stale, message));
        } else {
            if copies == 1 {
                self.data.remove(key).map(drop).during("delete a row")?;
            } else {
                let count = (copies - 1).to_le_bytes();
                self.data
                    .insert(key, count.as_slice())
                    .map(drop)
                    .during("delete a row")?;
            }
            self.tally.counts.deleted += 1;
            self.tally.keys_removed += u64::from(copies == 1);
        }
        self.notes.note(if is_more {
            RowChange::Insert(row.into())
        } else {
            RowChange::Delete(row.into())
        })?;
        self.notes.write()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_store_did_beyond_its_answers_is_counted() {
        let answered = ChangeCounts {
            created: 5,
            put_back: 1,
            deleted: 2,
        };
        let tally = Tally {
            counts: answered,
            keys_added: 5,
            keys_removed: 2,
        };
        assert_eq!(tally.reconciled(10, 13), answered);
        let more = tally.reconciled(10, 17);
        assert_eq!((more.created, more.deleted), (9, 2));
        let fewer = tally.reconciled(10, 9);
        assert_eq!((fewer.created, fewer.deleted), (5, 6));
    }
}
