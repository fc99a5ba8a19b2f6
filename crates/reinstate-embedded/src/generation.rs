//! Generations: which of an owner's rows in a table are in use.
//!
//! A large restore writes the tenant's next generation aside and then switches to it. Rows of a
//! generation that is not in use are seen by nobody; a record says which they are, from the first
//! one on until the last is removed, so that an interrupted restore leaves nothing behind.

use std::ops::Bound;

use redb::{Durability, ReadableDatabase, ReadableTable};
use reinstate_core::{StoreError, TableIndex};

use crate::EmbeddedStore;
use crate::error::During;
use crate::key::{
    Bytes, DataTable, GARBAGE, GENERATIONS, Place, garbage_key, generation_key, split_garbage,
};

/// Rows removed in one transaction: other writers wait for no more than that.
const REMOVED_ROWS_MAX: usize = 2048;

/// The generation that an owner's rows of a table are in.
pub(crate) fn current(
    generations: &impl ReadableTable<Bytes, u64>,
    table: TableIndex,
    owner: &[u8],
) -> Result<u64, StoreError> {
    let key = generation_key(table, owner);
    let found = generations
        .get(key.as_slice())
        .during("find the rows of a tenant")?;
    Ok(found.map_or(0, |generation| generation.value()))
}

impl EmbeddedStore {
    /// Where an owner's rows of a table are, as of a transaction.
    pub(crate) fn place_in_write(
        transaction: &redb::WriteTransaction,
        table: TableIndex,
        owner: &[u8],
    ) -> Result<Place, StoreError> {
        let generations = transaction
            .open_table(GENERATIONS)
            .during("find the rows of a tenant")?;
        Ok(Place::new(owner, current(&generations, table, owner)?))
    }

    /// Where an owner's rows of a table are, as of a transaction.
    pub(crate) fn place_in_read(
        transaction: &redb::ReadTransaction,
        table: TableIndex,
        owner: &[u8],
    ) -> Result<Place, StoreError> {
        let generations = transaction
            .open_table(GENERATIONS)
            .during("find the rows of a tenant")?;
        Ok(Place::new(owner, current(&generations, table, owner)?))
    }

    /// Removes every row that no reader sees.
    pub(crate) fn remove_all_garbage(&self) -> Result<(), StoreError> {
        let operation = "look for rows of an interrupted restore";
        let transaction = self.database.begin_read().during(operation)?;
        let garbage = transaction.open_table(GARBAGE).during(operation)?;
        let mut found = Vec::new();
        for entry in garbage.iter().during(operation)? {
            let (key, _) = entry.during(operation)?;
            if let Some((table, generation, owner)) = split_garbage(key.value()) {
                found.push((table, generation, owner.to_vec()));
            }
        }
        drop((garbage, transaction));
        for (table, generation, owner) in found {
            self.remove_garbage(table, generation, &owner)?;
        }
        Ok(())
    }

    /// Removes the rows of one generation, a few in each transaction, and then its record.
    pub(crate) fn remove_garbage(
        &self,
        table: TableIndex,
        generation: u64,
        owner: &[u8],
    ) -> Result<(), StoreError> {
        self.remove_garbage_while(&|| true, table, generation, owner)
    }

    /// The same, as long as they are still to be removed, which is asked anew in each transaction.
    pub(crate) fn remove_garbage_while(
        &self,
        is_garbage: &dyn Fn() -> bool,
        table: TableIndex,
        generation: u64,
        owner: &[u8],
    ) -> Result<(), StoreError> {
        while !self.remove_some(is_garbage, table, generation, owner)? {}
        Ok(())
    }

    fn remove_some(
        &self,
        is_garbage: &dyn Fn() -> bool,
        table: TableIndex,
        generation: u64,
        owner: &[u8],
    ) -> Result<bool, StoreError> {
        let operation = "remove rows that are not in use";
        let _turn = self.gate.enter();
        if !is_garbage() {
            return Ok(true);
        }
        let mut transaction = self.database.begin_write().during(operation)?;
        // Nothing is lost if this is: the record stays, and the rows are removed again.
        transaction
            .set_durability(Durability::None)
            .during(operation)?;
        let emptied = {
            let name = DataTable::new(table);
            let mut data = transaction
                .open_table(name.definition())
                .during(operation)?;
            let removed = remove_rows(&mut data, &Place::new(owner, generation), operation)?;
            removed < REMOVED_ROWS_MAX
        };
        if emptied {
            let mut garbage = transaction.open_table(GARBAGE).during(operation)?;
            let key = garbage_key(table, generation, owner);
            garbage.remove(key.as_slice()).during(operation)?;
        }
        transaction.commit().during(operation)?;
        Ok(emptied)
    }
}

/// Removes the first rows of a place, a whole range at once: a cursor that removes row by row
/// takes several times as long.
fn remove_rows(
    data: &mut redb::Table<'_, Bytes, Bytes>,
    place: &Place,
    operation: &str,
) -> Result<usize, StoreError> {
    let lower = Bound::Included(place.prefix());
    let end = place.end();
    let end = end.as_ref().map(Vec::as_slice);
    let mut count = 0;
    let mut first_kept = None;
    for entry in data.range::<&[u8]>((lower, end)).during(operation)? {
        let (key, _) = entry.during(operation)?;
        if count == REMOVED_ROWS_MAX {
            first_kept = Some(key.value().to_vec());
            break;
        }
        count += 1;
    }
    let upper = first_kept.as_deref().map_or(end, Bound::Excluded);
    data.retain_in::<&[u8], _>((lower, upper), |_, _| false)
        .during(operation)?;
    Ok(count)
}
