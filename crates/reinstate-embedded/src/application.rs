//! How an application writes to its own store.

use std::cell::RefCell;
use std::collections::BTreeSet;

use redb::{Durability, ReadableTable};
use reinstate_core::{
    ErrorKind, Owner, RowBatch, RowBuilder, RowRef, StoreError, TableIndex, TableSchema, Tenancy,
};

use crate::EmbeddedStore;
use crate::commit::stamp;
use crate::error::During;
use crate::feed::{Parts, Recorder, RowChange};
use crate::gate::Turn;
use crate::key::{Bytes, DataTable, Place};
use crate::scan::{Scan, read_count};

/// A transaction of the application. It may touch several tenants.
pub struct WriteTransaction<'s> {
    // Dropped in this order: the transaction ends before the next writer's turn begins.
    transaction: redb::WriteTransaction,
    store: &'s EmbeddedStore,
    touched: RefCell<BTreeSet<Vec<u8>>>,
    /// None if nobody follows the store.
    recorder: RefCell<Option<Recorder>>,
    _turn: Turn<'s>,
}

impl std::fmt::Debug for WriteTransaction<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("WriteTransaction")
            .finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    /// Runs `write` in a transaction and commits it, durably, when it returns `Ok`. Writers take
    /// turns in the order in which they called; a call from inside `write` would wait for itself.
    ///
    /// # Errors
    /// What `write` returns, or what the file's storage reports. Nothing was written then, unless
    /// it is `OutcomeUnknown`: the storage failed while the commit was on its way to the disk.
    pub fn write<T>(
        &self,
        write: impl FnOnce(&WriteTransaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.write_with(Durability::Immediate, write)
    }

    pub(crate) fn write_with<T>(
        &self,
        durability: Durability,
        write: impl FnOnce(&WriteTransaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let turn = self.gate.enter();
        let mut transaction = self.database.begin_write().during("begin a transaction")?;
        let recorder = Recorder::begin(&transaction, self.clock)?;
        let durability = match recorder {
            // Nobody may be handed a commit that a crash takes away.
            Some(_) => Durability::Immediate,
            None => durability,
        };
        transaction
            .set_durability(durability)
            .during("begin a transaction")?;
        let transaction = WriteTransaction {
            transaction,
            store: self,
            touched: RefCell::default(),
            recorder: RefCell::new(recorder),
            _turn: turn,
        };
        let result = write(&transaction)?;
        let touched = transaction.touched.take();
        if !touched.is_empty() {
            let recorder = transaction.recorder.take();
            let owners = touched.iter().map(Vec::as_slice);
            stamp(&transaction.transaction, owners, recorder)?;
        }
        self.commit(transaction.transaction, "commit a transaction")?;
        if matches!(durability, Durability::Immediate) {
            self.backlog.application_committed();
        }
        Ok(result)
    }
}

impl WriteTransaction<'_> {
    /// Opens a table for writing. One at a time can be open.
    ///
    /// # Errors
    /// `Usage` if the store has no such table, or it is open already.
    pub fn table(&self, table: TableIndex) -> Result<TableWriter<'_>, StoreError> {
        let schema = self.store.schema.get(table).ok_or_else(|| {
            StoreError::new(
                ErrorKind::Usage,
                format!("the store has no table {}", table.0),
            )
        })?;
        let name = DataTable::new(table);
        let data = self
            .transaction
            .open_table(name.definition())
            .during("open a table")?;
        let place = None;
        let key = Vec::new();
        Ok(TableWriter {
            transaction: self,
            table,
            schema,
            data,
            place,
            key,
        })
    }

    fn is_followed(&self) -> bool {
        self.recorder.borrow().is_some()
    }

    /// Notes a change for those who follow the store, in memory.
    fn note(
        &self,
        table: TableIndex,
        owner: &Owner,
        change: RowChange<'_>,
    ) -> Result<(), StoreError> {
        match &mut *self.recorder.borrow_mut() {
            Some(recorder) => recorder.push(&self.store.schema, table, owner.as_bytes(), change),
            None => Ok(()),
        }
    }

    /// Notes that what was noted may not be what was done: the transaction cannot be committed, if
    /// the store is followed.
    fn spoil(&self) {
        if let Some(recorder) = &mut *self.recorder.borrow_mut() {
            recorder.spoil();
        }
    }

    /// Writes what was noted if it has become much.
    fn write_noted(&self) -> Result<(), StoreError> {
        match &mut *self.recorder.borrow_mut() {
            Some(recorder) => recorder.write_if_full(&self.transaction),
            None => Ok(()),
        }
    }
}

/// A table that is open for writing.
pub struct TableWriter<'t> {
    transaction: &'t WriteTransaction<'t>,
    table: TableIndex,
    schema: &'t TableSchema,
    data: redb::Table<'t, Bytes, Bytes>,
    place: Option<(Vec<u8>, Place)>,
    key: Vec<u8>,
}

impl std::fmt::Debug for TableWriter<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("TableWriter")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

impl TableWriter<'_> {
    /// Inserts a row, or replaces the one with its key. A table without a key gets it once more.
    ///
    /// # Errors
    /// `Usage` if the row does not fit the table, or the table cannot have rows of this owner; `Locked`
    /// if the tenant is behind a [fence](EmbeddedStore::fence).
    pub fn put(&mut self, owner: &Owner, row: RowRef<'_>) -> Result<(), StoreError> {
        row.check(self.schema.columns.len()).map_err(|error| {
            let message = format!("write to {}", self.schema.name);
            StoreError::new(ErrorKind::Usage, message).because(error)
        })?;
        self.find(owner, row)?;
        let copies = if self.schema.has_key() {
            None
        } else {
            Some(self.copies()? + 1)
        };
        let count = copies.map(u64::to_le_bytes);
        let value = count
            .as_ref()
            .map_or(row.columns(), |count| count.as_slice());
        let replaced = self
            .data
            .insert(self.key.as_slice(), value)
            .during("write a row")?;
        let before = replaced.as_ref().filter(|_| count.is_none());
        let after = Parts::from(row);
        let change = match &before {
            Some(columns) => RowChange::Update {
                before: Parts {
                    columns: columns.value(),
                    ..after
                },
                after,
            },
            None => RowChange::Insert(after),
        };
        self.transaction.note(self.table, owner, change)?;
        drop(replaced);
        self.transaction.write_noted()
    }

    /// Like [`put`](Self::put), with one value for each column; `None` is NULL.
    ///
    /// # Errors
    /// `Usage` if the values do not fit the table.
    pub fn put_values(
        &mut self,
        owner: &Owner,
        values: &[Option<&[u8]>],
    ) -> Result<(), StoreError> {
        let mut builder = RowBuilder::new();
        self.schema
            .encode_row(values, &mut builder)
            .map_err(|error| {
                let message = format!("write to {}", self.schema.name);
                StoreError::new(ErrorKind::Usage, message).because(error)
            })?;
        self.put(owner, builder.row())
    }

    /// Deletes the row with this row's key; of a table without a key, one row equal to it.
    /// Returns whether there was one.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn delete(&mut self, owner: &Owner, row: RowRef<'_>) -> Result<bool, StoreError> {
        self.find(owner, row)?;
        if !self.schema.has_key() {
            let copies = self.copies()?;
            if copies > 1 {
                let count = (copies - 1).to_le_bytes();
                let key = self.key.as_slice();
                self.data
                    .insert(key, count.as_slice())
                    .map(drop)
                    .during("delete a row")?;
                let before = RowChange::Delete(row.into());
                self.transaction.note(self.table, owner, before)?;
                self.transaction.write_noted()?;
                return Ok(true);
            }
        }
        let removed = self
            .data
            .remove(self.key.as_slice())
            .during("delete a row")?;
        let Some(before) = removed else {
            return Ok(false);
        };
        let columns = if self.schema.has_key() {
            before.value()
        } else {
            row.columns()
        };
        let key = row.key();
        let change = RowChange::Delete(Parts { key, columns });
        self.transaction.note(self.table, owner, change)?;
        drop(before);
        self.transaction.write_noted()?;
        Ok(true)
    }

    /// Deletes every row of one owner. Returns how many keys there were.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn delete_all(&mut self, owner: &Owner) -> Result<u64, StoreError> {
        self.settle(owner)?;
        let deleted = self.delete_place(owner);
        if deleted.is_err() {
            // Rows may have been noted as deleted that are still there.
            self.transaction.spoil();
        }
        deleted
    }

    fn delete_place(&mut self, owner: &Owner) -> Result<u64, StoreError> {
        let Some((_, place)) = &self.place else {
            return Ok(0);
        };
        if self.transaction.is_followed() {
            self.note_deleted(owner, place)?;
        }
        let before = redb::ReadableTableMetadata::len(&self.data).during("count rows")?;
        let (lower, upper) = (std::ops::Bound::Included(place.prefix()), place.end());
        let upper = upper.as_ref().map(Vec::as_slice);
        self.data
            .retain_in::<&[u8], _>((lower, upper), |_, _| false)
            .during("delete rows")?;
        let after = redb::ReadableTableMetadata::len(&self.data).during("count rows")?;
        Ok(before - after)
    }

    /// Notes the rows of a place, which are about to be deleted.
    fn note_deleted(&self, owner: &Owner, place: &Place) -> Result<(), StoreError> {
        let mut scan = Scan::new(place.clone(), !self.schema.has_key());
        let mut batch = RowBatch::new();
        while scan.next(&self.data, &mut batch)? {
            for row in batch.iter() {
                let change = RowChange::Delete(row.into());
                self.transaction.note(self.table, owner, change)?;
                self.transaction.write_noted()?;
            }
        }
        Ok(())
    }

    fn copies(&self) -> Result<u64, StoreError> {
        let found = self.data.get(self.key.as_slice()).during("read a row")?;
        found.map_or(Ok(0), |count| read_count(count.value()))
    }

    fn find(&mut self, owner: &Owner, row: RowRef<'_>) -> Result<(), StoreError> {
        if row.key().is_empty() == self.schema.has_key() {
            let message = format!(
                "write to {}: the row's key is not the table's",
                self.schema.name
            );
            return Err(StoreError::new(ErrorKind::Usage, message));
        }
        self.settle(owner)?;
        if let Some((_, place)) = &self.place {
            let row_key = if self.schema.has_key() {
                row.key()
            } else {
                row.columns()
            };
            place.write_key(row_key, &mut self.key);
        }
        Ok(())
    }

    /// Looks up where this owner's rows are, unless the last call was for the same one.
    fn settle(&mut self, owner: &Owner) -> Result<(), StoreError> {
        let bytes = owner.as_bytes();
        if self
            .place
            .as_ref()
            .is_some_and(|(settled, _)| settled == bytes)
        {
            return Ok(());
        }
        let fits = match self.schema.tenancy {
            Tenancy::Shared => *owner == Owner::Shared,
            _ => true,
        };
        if !fits {
            let message = format!("write to {}: its rows are shared", self.schema.name);
            return Err(StoreError::new(ErrorKind::Usage, message));
        }
        if self.transaction.store.leases.is_fenced(bytes) {
            let message = format!("write to {}: {owner} is being restored", self.schema.name);
            return Err(StoreError::new(ErrorKind::Locked, message));
        }
        let inner = &self.transaction.transaction;
        let place = EmbeddedStore::place_in_write(inner, self.table, bytes)?;
        self.place = Some((bytes.to_vec(), place));
        self.transaction.touched.borrow_mut().insert(bytes.to_vec());
        Ok(())
    }
}
