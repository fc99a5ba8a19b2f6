//! Entries by key, more than fit into memory: in an unnamed file in the spill directory.

use std::io;

use redb::backends::FileBackend;
use redb::{Database, ReadableTable, StorageBackend, TableDefinition, WriteTransaction};
use reinstate_core::ErrorKind;

use crate::{Context, Error};

/// A file that is gone with the process: nothing waits until it is on the disk.
#[derive(Debug)]
struct Scratch(FileBackend);

impl StorageBackend for Scratch {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.write(offset, data)
    }
}

/// Some of the entries.
pub(super) type Entries = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Entries by key.
pub(super) struct Index {
    /// What it is for, in errors.
    purpose: &'static str,
    database: Database,
    transaction: Option<WriteTransaction>,
}

impl Index {
    /// None yet. Holds an eighth of the memory that there is.
    pub(super) fn create(context: Context<'_>, purpose: &'static str) -> Result<Self, Error> {
        let file =
            tempfile::tempfile_in(context.resources.spill_directory()).map_err(Error::spill)?;
        let database = redb::Builder::new()
            .set_cache_size(context.resources.memory_bytes_max() / 8)
            .create_with_backend(Scratch(
                FileBackend::new(file).map_err(|error| failed(purpose, error))?,
            ))
            .map_err(|error| failed(purpose, error))?;
        Ok(Self {
            purpose,
            database,
            transaction: None,
        })
    }

    fn transaction(&mut self) -> Result<&WriteTransaction, Error> {
        if self.transaction.is_none() {
            let begun = self.database.begin_write();
            self.transaction = Some(begun.map_err(|error| failed(self.purpose, error))?);
        }
        Ok(self.transaction.as_ref().expect("BUG: begun just now"))
    }

    pub(super) fn get(&mut self, table: Entries, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let purpose = self.purpose;
        let table = self
            .transaction()?
            .open_table(table)
            .map_err(|error| failed(purpose, error))?;
        let entry = table.get(key).map_err(|error| failed(purpose, error))?;
        Ok(entry.map(|entry| entry.value().to_vec()))
    }

    pub(super) fn set(&mut self, table: Entries, key: &[u8], entry: &[u8]) -> Result<(), Error> {
        let purpose = self.purpose;
        let mut table = self
            .transaction()?
            .open_table(table)
            .map_err(|error| failed(purpose, error))?;
        table
            .insert(key, entry)
            .map_err(|error| failed(purpose, error))?;
        Ok(())
    }

    /// Removes an entry and returns it.
    pub(super) fn remove(&mut self, table: Entries, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let purpose = self.purpose;
        let mut table = self
            .transaction()?
            .open_table(table)
            .map_err(|error| failed(purpose, error))?;
        let entry = table.remove(key).map_err(|error| failed(purpose, error))?;
        Ok(entry.map(|entry| entry.value().to_vec()))
    }

    /// Removes the entries whose keys are in another table, and those there too.
    pub(super) fn remove_all_in(&mut self, table: Entries, keys: Entries) -> Result<(), Error> {
        let purpose = self.purpose;
        let transaction = self.transaction()?;
        let mut table = transaction
            .open_table(table)
            .map_err(|error| failed(purpose, error))?;
        let mut keys = transaction
            .open_table(keys)
            .map_err(|error| failed(purpose, error))?;
        while let Some((key, _)) = keys.pop_first().map_err(|error| failed(purpose, error))? {
            table
                .remove(key.value())
                .map_err(|error| failed(purpose, error))?;
        }
        Ok(())
    }

    /// Removes all entries whose keys begin like this.
    pub(super) fn clear(&mut self, table: Entries, prefix: &[u8; 4]) -> Result<(), Error> {
        let purpose = self.purpose;
        let mut table = self
            .transaction()?
            .open_table(table)
            .map_err(|error| failed(purpose, error))?;
        let of_others = |key: &[u8], _: &[u8]| !key.starts_with(prefix);
        let start: &[u8] = prefix;
        table
            .retain_in(start.., of_others)
            .map_err(|error| failed(purpose, error))
    }

    /// Removes all entries.
    pub(super) fn empty(&mut self, table: Entries) -> Result<(), Error> {
        let purpose = self.purpose;
        let mut table = self
            .transaction()?
            .open_table(table)
            .map_err(|error| failed(purpose, error))?;
        table
            .retain(|_, _| false)
            .map_err(|error| failed(purpose, error))
    }

    /// Writes out what changed, so that it need not be held.
    pub(super) fn rest(&mut self) -> Result<(), Error> {
        let purpose = self.purpose;
        let transaction = self.transaction.take();
        transaction.map_or(Ok(()), |transaction| {
            transaction.commit().map_err(|error| failed(purpose, error))
        })
    }
}

fn failed(purpose: &str, error: impl Into<redb::Error>) -> Error {
    let error = error.into();
    let kind = match &error {
        redb::Error::Io(error) if error.kind() == io::ErrorKind::StorageFull => ErrorKind::Full,
        _ => ErrorKind::Other,
    };
    Error::new(kind, format!("{purpose} in the spill directory")).caused_by(error)
}
