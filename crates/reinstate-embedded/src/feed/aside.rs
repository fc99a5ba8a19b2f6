//! Changes of a large restore, noted in transactions of their own before the one that makes them.
//!
//! They are blocks under a number that no feed leads to until the restore's last transaction notes
//! it. A record says so from the first block on, so that a process that dies leaves nothing behind.

use redb::{Durability, ReadableTable};
use reinstate_core::{StoreError, TableIndex};

use super::block::{Block, RowChange};
use super::record::Recorder;
use crate::EmbeddedStore;
use crate::error::During;
use crate::key::{FACTS, FEED_ASIDE, FEED_GARBAGE, block_key};

/// Bytes that are written in one transaction: as many as a merge in place may have.
const TURN_BYTES: usize = 512 * 1024;
/// The last number that was given out, as a fact of the store.
const LAST_NUMBER: &str = "feed aside";

/// Changes that were noted aside.
#[derive(Debug)]
pub(crate) struct NotedAside {
    pub(crate) number: u64,
    pub(crate) change_count: u64,
    pub(crate) byte_count: u64,
}

/// Changes on their way aside. Dropped before [`finish`](Self::finish), it removes them again.
pub(crate) struct AsideRecorder<'s> {
    store: &'s EmbeddedStore,
    number: Option<u64>,
    block: Block,
    pending: Vec<Vec<u8>>,
    pending_bytes: usize,
    next_block: u32,
    change_count: u64,
    byte_count: u64,
}

impl<'s> AsideRecorder<'s> {
    pub(crate) fn new(store: &'s EmbeddedStore) -> Self {
        Self {
            store,
            number: None,
            block: Block::default(),
            pending: Vec::new(),
            pending_bytes: 0,
            next_block: 0,
            change_count: 0,
            byte_count: 0,
        }
    }

    pub(crate) fn push(
        &mut self,
        table: TableIndex,
        owner: &[u8],
        change: RowChange<'_>,
    ) -> Result<(), StoreError> {
        self.block.push(table, owner, change)?;
        self.change_count += 1;
        if self.block.is_full() {
            self.take_block();
        }
        if self.pending_bytes >= TURN_BYTES {
            self.write()?;
        }
        Ok(())
    }

    /// Writes the rest. None of it is to be seen until a commit leads to it.
    pub(crate) fn finish(mut self) -> Result<NotedAside, StoreError> {
        self.take_block();
        self.write()?;
        Ok(NotedAside {
            number: self.number.take().expect("BUG: written without a number"),
            change_count: self.change_count,
            byte_count: self.byte_count,
        })
    }

    fn take_block(&mut self) {
        if !self.block.is_empty() {
            let bytes = self.block.take();
            self.pending_bytes += bytes.len();
            self.pending.push(bytes);
        }
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let operation = "note the changes of a restore for the store's feeds";
        let store = self.store;
        let _turn = store.gate.enter();
        let mut transaction = store.database.begin_write().during(operation)?;
        let number = match self.number {
            Some(number) => number,
            None => draw_number(&transaction)?,
        };
        {
            let mut blocks = transaction.open_table(FEED_ASIDE).during(operation)?;
            for (bytes, block) in self.pending.iter().zip(self.next_block..) {
                blocks
                    .insert(block_key(number, block).as_slice(), bytes.as_slice())
                    .map(drop)
                    .during(operation)?;
            }
        }
        let must_be_durable = store.backlog.add(self.pending_bytes);
        if !must_be_durable {
            // The restore's last transaction takes it along to the disk.
            transaction
                .set_durability(Durability::None)
                .during(operation)?;
        }
        transaction.commit().during(operation)?;
        if must_be_durable {
            store.backlog.committed();
        }
        self.number = Some(number);
        self.byte_count += self.pending_bytes as u64;
        self.next_block += u32::try_from(self.pending.len()).expect("BUG: a turn of 2^32 blocks");
        self.pending.clear();
        self.pending_bytes = 0;
        Ok(())
    }
}

impl Drop for AsideRecorder<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            // If this goes wrong too, the record stays, and opening the store removes them.
            let _ = self.store.remove_noted_aside(number);
        }
    }
}

fn draw_number(transaction: &redb::WriteTransaction) -> Result<u64, StoreError> {
    let operation = "note the changes of a restore for the store's feeds";
    let mut facts = transaction.open_table(FACTS).during(operation)?;
    let last = facts.get(LAST_NUMBER).during(operation)?;
    let last = last.map(|value| value.value().try_into().map(u64::from_le_bytes));
    let number = 1 + last.unwrap_or(Ok(0)).map_err(|_| super::block::damaged())?;
    facts
        .insert(LAST_NUMBER, number.to_le_bytes().as_slice())
        .map(drop)
        .during(operation)?;
    let mut garbage = transaction.open_table(FEED_GARBAGE).during(operation)?;
    garbage.insert(number, ()).map(drop).during(operation)?;
    Ok(number)
}

impl NotedAside {
    /// Lets a commit lead to the changes, in its own transaction.
    pub(crate) fn publish(
        &self,
        transaction: &redb::WriteTransaction,
        recorder: Recorder,
        commit: u64,
    ) -> Result<(), StoreError> {
        let operation = "note a restore for the store's feeds";
        recorder.end_aside(transaction, commit, self)?;
        let mut garbage = transaction.open_table(FEED_GARBAGE).during(operation)?;
        garbage.remove(self.number).map(drop).during(operation)
    }
}
