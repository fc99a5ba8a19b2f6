//! Handing out what was committed after a position.

use std::ops::Bound;

use redb::ReadableDatabase;
use reinstate_core::{
    ChangeFeed, ChangeSink, Commit, ErrorKind, FeedProgress, Position, RowBatch, SnapshotId,
    StoreError, StoreSchema,
};

use super::block::{End, Entry, damaged, read_changes};
use super::record::Recorder;
use super::{Reading, gap};
use crate::EmbeddedStore;
use crate::commit::{read_commit, stamp};
use crate::error::During;
use crate::key::{FACTS, FEED, FEED_ASIDE, block_key, block_number};

/// An open feed.
pub(crate) struct EmbeddedFeed<'s> {
    store: &'s EmbeddedStore,
    snapshot: SnapshotId,
    /// The last commit that was handed over.
    through: u64,
    rows: RowBatch,
    _reading: Reading<'s>,
}

impl<'s> EmbeddedFeed<'s> {
    pub(crate) fn new(
        store: &'s EmbeddedStore,
        snapshot: SnapshotId,
        through: u64,
        reading: Reading<'s>,
    ) -> Self {
        Self {
            store,
            snapshot,
            through,
            rows: RowBatch::new(),
            _reading: reading,
        }
    }

    /// Hands over the changes of one entry; returns how many there were.
    fn hand_over(&mut self, changes: &[u8], sink: &mut dyn ChangeSink) -> Result<u64, StoreError> {
        read_changes(changes, &mut self.rows, |change| sink.change(change))
    }

    /// Hands over the changes that a restore noted aside; returns how many there were and their
    /// bytes.
    fn hand_over_aside(
        &mut self,
        blocks: &redb::ReadOnlyTable<&'static [u8], &'static [u8]>,
        number: u64,
        sink: &mut dyn ChangeSink,
    ) -> Result<(u64, u64), StoreError> {
        let operation = "read the store's feed";
        let (start, end) = (block_key(number, 0), block_key(number + 1, 0));
        let range = blocks.range::<&[u8]>(start.as_slice()..end.as_slice());
        let (mut count, mut bytes) = (0, 0);
        for entry in range.during(operation)? {
            let (_, value) = entry.during(operation)?;
            count += self.hand_over(value.value(), sink)?;
            bytes += value.value().len() as u64;
        }
        Ok((count, bytes))
    }

    /// Ends the commit behind the last one.
    fn end_commit(
        &mut self,
        end: End,
        change_count: u64,
        sink: &mut dyn ChangeSink,
    ) -> Result<(), StoreError> {
        if change_count != end.change_count {
            return Err(damaged());
        }
        self.through += 1;
        sink.commit(Commit {
            position: Position {
                commit: self.through,
                ordinal: 0,
            },
            time: end.time,
        })
    }
}

impl ChangeFeed for EmbeddedFeed<'_> {
    fn schema(&self) -> &StoreSchema {
        &self.store.schema
    }

    fn read(
        &mut self,
        bytes_target: u64,
        sink: &mut dyn ChangeSink,
    ) -> Result<FeedProgress, StoreError> {
        let operation = "read the store's feed";
        // Everything that this sees is on the disk: a followed store has no commit that is not.
        let transaction = self.store.database.begin_read().during(operation)?;
        let feed = transaction.open_table(FEED).during(operation)?;
        let aside = transaction.open_table(FEED_ASIDE).during(operation)?;
        let last = read_commit(&transaction.open_table(FACTS).during(operation)?)?;
        let start = block_key(self.through + 1, 0);
        let bounds = (Bound::Included(start.as_slice()), Bound::Unbounded);
        let (mut bytes, mut change_count) = (0, 0);
        let (mut is_between, mut has_more) = (true, false);
        for entry in feed.range::<&[u8]>(bounds).during(operation)? {
            if is_between && bytes >= bytes_target.max(1) {
                has_more = true;
                break;
            }
            let (key, value) = entry.during(operation)?;
            let commit = block_number(key.value()).ok_or_else(damaged)?;
            if commit != self.through + 1 {
                return Err(gap(self.through, commit));
            }
            bytes += value.value().len() as u64;
            let (entry, changes) = Entry::read(value.value())?;
            change_count += self.hand_over(changes, sink)?;
            is_between = entry != Entry::GoesOn;
            let end = match entry {
                Entry::GoesOn => continue,
                Entry::Ends(end) => end,
                Entry::IsAside(end, number) => {
                    let (count, aside_bytes) = self.hand_over_aside(&aside, number, sink)?;
                    change_count += count;
                    bytes += aside_bytes;
                    end
                }
            };
            self.end_commit(end, change_count, sink)?;
            change_count = 0;
        }
        if !is_between {
            return Err(damaged());
        }
        if !has_more && self.through != last {
            return Err(gap(self.through, last + 1));
        }
        Ok(FeedProgress {
            through: Position {
                commit: self.through,
                ordinal: 0,
            },
            has_more,
        })
    }

    fn acknowledge(&mut self, position: Position) -> Result<(), StoreError> {
        self.store.acknowledge(self.snapshot, position)
    }

    fn mark(&mut self) -> Result<(), StoreError> {
        let operation = "leave a mark in the store";
        let store = self.store;
        let _turn = store.gate.enter();
        let transaction = store.database.begin_write().during(operation)?;
        let recorder = Recorder::begin(&transaction, store.clock)?;
        stamp(&transaction, std::iter::empty(), recorder)?;
        store.commit(transaction, operation)?;
        store.backlog.committed();
        Ok(())
    }
}

/// That a position is behind the store.
pub(crate) fn beyond(position: Position, last: u64) -> StoreError {
    let message = format!(
        "the store is at commit {last}, before commit {}: its file was replaced by an older one; \
         begin a new feed with a new snapshot",
        position.commit
    );
    StoreError::new(ErrorKind::NotRecoverable, message)
}
