//! Filling a store from another source in one go.

use redb::Durability;
use reinstate_core::{CaptureView, OwnedRowBatch, Owner, StoreError, Tenancy};

use crate::EmbeddedStore;
use crate::error::During;

/// Bytes of rows in one transaction of a load.
const TRANSACTION_BYTES: usize = 16 * 1024 * 1024;

impl EmbeddedStore {
    /// Puts every row of another store with the same tables into this one. Durable when it
    /// returns; interrupted, it leaves some of the rows.
    ///
    /// # Errors
    /// `Usage` if a row does not fit its table; otherwise as either store reports it.
    pub fn load(&self, source: &dyn CaptureView) -> Result<u64, StoreError> {
        let mut row_count = 0;
        for (index, table) in source.schema().iter() {
            if table.tenancy == Tenancy::Excluded {
                continue;
            }
            let mut rows = source.table_rows(index)?;
            let mut batch = OwnedRowBatch::new();
            let mut more = true;
            while more {
                more = self.write_with(Durability::None, |transaction| {
                    let mut writer = transaction.table(index)?;
                    let mut bytes = 0;
                    while bytes < TRANSACTION_BYTES {
                        if !rows.next_batch(&mut batch)? {
                            return Ok(false);
                        }
                        bytes += batch.byte_count();
                        row_count += batch.len() as u64;
                        for (owner, row) in batch.iter() {
                            let owner = Owner::from_bytes(owner).map_err(|error| {
                                let kind = reinstate_core::ErrorKind::Usage;
                                StoreError::new(kind, "load a row").because(error)
                            })?;
                            writer.put(&owner, row)?;
                        }
                    }
                    Ok(true)
                })?;
            }
        }
        let _turn = self.gate.enter();
        let transaction = self.database.begin_write().during("end a load")?;
        self.commit(transaction, "end a load")?;
        Ok(row_count)
    }
}
