//! Noting what a transaction changes, in the transaction itself.

use redb::{ReadableTable, WriteTransaction};
use reinstate_core::{ErrorKind, StoreError, StoreSchema, TableIndex, Tenancy, Timestamp};

use super::aside::NotedAside;
use super::block::{Block, End, Entry, RowChange};
use crate::commit::read_commit;
use crate::error::During;
use crate::key::{Bytes, FACTS, FEED, block_key};
use crate::store::is_followed;

/// How many bytes were noted, as a fact of the store.
const TOTAL_BYTES: &str = "feed bytes";

/// What one transaction changes, for the feeds of the store.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// The number that the transaction will have.
    commit: u64,
    clock: fn() -> Timestamp,
    block: Block,
    next_block: u32,
    bytes: u64,
    change_count: u64,
    /// What was noted is not what was done. The transaction must not be committed, whatever the
    /// application made of the error.
    is_spoilt: bool,
}

impl Recorder {
    /// Begins to note, if anybody follows the store. The caller has the turn until the commit.
    ///
    /// *Cost*: one look-up if nobody does.
    pub(crate) fn begin(
        transaction: &WriteTransaction,
        clock: fn() -> Timestamp,
    ) -> Result<Option<Self>, StoreError> {
        let facts = transaction.open_table(FACTS).during("look for feeds")?;
        if !is_followed(&facts)? {
            return Ok(None);
        }
        Ok(Some(Self {
            commit: read_commit(&facts)? + 1,
            clock,
            block: Block::default(),
            next_block: 0,
            bytes: 0,
            change_count: 0,
            is_spoilt: false,
        }))
    }

    /// Notes a change, in memory. Rows of excluded tables are nobody's to follow.
    pub(crate) fn push(
        &mut self,
        schema: &StoreSchema,
        table: TableIndex,
        owner: &[u8],
        change: RowChange<'_>,
    ) -> Result<(), StoreError> {
        if schema.table(table).tenancy == Tenancy::Excluded {
            return Ok(());
        }
        self.change_count += 1;
        let pushed = self.block.push(table, owner, change);
        self.is_spoilt |= pushed.is_err();
        pushed
    }

    /// Notes that what was noted may not be what was done.
    pub(crate) fn spoil(&mut self) {
        self.is_spoilt = true;
    }

    /// Writes what was noted if it is a block or more.
    pub(crate) fn write_if_full(
        &mut self,
        transaction: &WriteTransaction,
    ) -> Result<(), StoreError> {
        if !self.block.is_full() {
            return Ok(());
        }
        let changes = self.block.take();
        let bytes = Entry::GoesOn.write(&changes);
        self.bytes += bytes.len() as u64;
        self.write(transaction, &bytes)
    }

    /// Writes the rest, and that the commit with this number ends here.
    pub(crate) fn end(
        mut self,
        transaction: &WriteTransaction,
        commit: u64,
    ) -> Result<(), StoreError> {
        let changes = self.block.take();
        let end = self.end_with(transaction, 0, changes.len())?;
        self.check(commit)?;
        self.write(transaction, &Entry::Ends(end).write(&changes))
    }

    /// Writes that the commit with this number made the changes that were noted aside.
    pub(crate) fn end_aside(
        mut self,
        transaction: &WriteTransaction,
        commit: u64,
        aside: &NotedAside,
    ) -> Result<(), StoreError> {
        assert!(self.change_count == 0, "BUG: changes beside those aside");
        self.change_count = aside.change_count;
        let end = self.end_with(transaction, aside.byte_count, 0)?;
        self.check(commit)?;
        self.write(transaction, &Entry::IsAside(end, aside.number).write(&[]))
    }

    fn check(&self, commit: u64) -> Result<(), StoreError> {
        assert_eq!(
            commit, self.commit,
            "BUG: a commit by somebody without the turn"
        );
        if self.is_spoilt {
            let message = "commit a transaction: a change in it failed halfway, so that the store's \
                           feeds would not have what was done; begin it anew";
            return Err(StoreError::new(ErrorKind::Refused, message));
        }
        Ok(())
    }

    fn end_with(
        &self,
        transaction: &WriteTransaction,
        aside_bytes: u64,
        rest: usize,
    ) -> Result<End, StoreError> {
        let operation = "count what is noted for feeds";
        let mut facts = transaction.open_table(FACTS).during(operation)?;
        let bytes = self.bytes + aside_bytes + rest as u64;
        let total_bytes = total_bytes(&facts)? + bytes;
        facts
            .insert(TOTAL_BYTES, total_bytes.to_le_bytes().as_slice())
            .map(drop)
            .during(operation)?;
        Ok(End {
            time: (self.clock)(),
            change_count: self.change_count,
            total_bytes,
        })
    }

    fn write(&mut self, transaction: &WriteTransaction, entry: &[u8]) -> Result<(), StoreError> {
        let written = self.try_write(transaction, entry);
        self.is_spoilt |= written.is_err();
        written
    }

    fn try_write(
        &mut self,
        transaction: &WriteTransaction,
        entry: &[u8],
    ) -> Result<(), StoreError> {
        let operation = "note a change for the store's feeds";
        let mut feed = transaction.open_table(FEED).during(operation)?;
        let key = block_key(self.commit, self.next_block);
        self.next_block = self.next_block.checked_add(1).ok_or_else(|| {
            let message = format!("{operation}: the transaction is too large");
            StoreError::new(ErrorKind::Refused, message)
        })?;
        feed.insert(key.as_slice(), entry)
            .map(drop)
            .during(operation)
    }
}

/// How many bytes were noted since the store was first followed.
pub(crate) fn total_bytes(
    facts: &impl ReadableTable<&'static str, Bytes>,
) -> Result<u64, StoreError> {
    let value = facts
        .get(TOTAL_BYTES)
        .during("count what is noted for feeds")?;
    let Some(value) = value else { return Ok(0) };
    value
        .value()
        .try_into()
        .map(u64::from_le_bytes)
        .map_err(|_| {
            let message = "the store's count of what is noted for feeds is damaged";
            StoreError::new(ErrorKind::Corrupt, message)
        })
}

#[cfg(test)]
mod tests {
    use reinstate_core::{FeedSource, ROW_BYTES_MAX, SnapshotId};

    use super::*;
    use crate::feed::Parts;
    use crate::testing::store;

    #[test]
    fn a_transaction_with_a_row_that_nobody_can_be_handed_is_not_committed() {
        let store = store();
        drop(store.begin_feed(SnapshotId::from_bytes([7; 16])).unwrap());
        let transaction = store.database.begin_write().unwrap();
        let recorder = Recorder::begin(&transaction, store.clock).unwrap();
        let mut recorder = recorder.expect("somebody follows the store");
        let row = Parts {
            key: b"key",
            columns: &vec![0; ROW_BYTES_MAX],
        };
        let change = RowChange::Delete(row);
        let error = recorder.push(&store.schema, TableIndex(0), b"a", change);
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        let commit = read_commit(&transaction.open_table(FACTS).unwrap()).unwrap() + 1;
        let error = recorder.end(&transaction, commit).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
    }
}
