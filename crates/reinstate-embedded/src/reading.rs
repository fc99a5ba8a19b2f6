//! How an application reads its own store.

use reinstate_core::{Owner, RowBatch, StoreError, TableIndex};

use crate::EmbeddedStore;
use crate::error::During;
use crate::key::DataTable;
use crate::scan::Scan;

impl EmbeddedStore {
    /// Opens the store for reading as it is now. Writers go on meanwhile.
    ///
    /// # Errors
    /// As the file's storage reports it.
    pub fn read(&self) -> Result<ReadTransaction<'_>, StoreError> {
        let transaction = self.begin_read("begin to read")?;
        Ok(ReadTransaction {
            transaction,
            store: self,
        })
    }
}

/// The store as it was at one moment.
pub struct ReadTransaction<'s> {
    pub(crate) transaction: redb::ReadTransaction,
    pub(crate) store: &'s EmbeddedStore,
}

impl std::fmt::Debug for ReadTransaction<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ReadTransaction")
            .finish_non_exhaustive()
    }
}

impl ReadTransaction<'_> {
    /// The encoded columns of the row with this key.
    ///
    /// # Errors
    /// As the file's storage reports it.
    pub fn get(
        &self,
        owner: &Owner,
        table: TableIndex,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let operation = "read a row";
        let place = EmbeddedStore::place_in_read(&self.transaction, table, owner.as_bytes())?;
        let name = DataTable::new(table);
        let data = self
            .transaction
            .open_table(name.definition())
            .during(operation)?;
        let mut data_key = Vec::new();
        place.write_key(key, &mut data_key);
        let found = data.get(data_key.as_slice()).during(operation)?;
        Ok(found.map(|value| value.value().to_vec()))
    }

    /// The rows of one owner in a table, in order, handed to `each` batch by batch.
    ///
    /// # Errors
    /// What `each` returns, or as the file's storage reports it.
    pub fn rows(
        &self,
        owner: &Owner,
        table: TableIndex,
        mut each: impl FnMut(&RowBatch) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let place = EmbeddedStore::place_in_read(&self.transaction, table, owner.as_bytes())?;
        let name = DataTable::new(table);
        let data = self
            .transaction
            .open_table(name.definition())
            .during("open a table")?;
        let mut scan = Scan::new(place, !self.store.schema.table(table).has_key());
        let mut batch = RowBatch::new();
        while scan.next(&data, &mut batch)? {
            each(&batch)?;
        }
        Ok(())
    }
}
