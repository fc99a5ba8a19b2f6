//! The feed: what was committed to the store, for those who follow it.
//!
//! While at least one feed exists, every transaction notes its changes, in itself: one entry more
//! for a small one. Without a feed nothing is noted, and a transaction looks once whether there is
//! one. Commits are numbered without a gap, so that one that is missing is found.
//!
//! *Crash consistency*: what is noted is committed with what it is about. On a followed store every
//! commit is durable before anybody else sees it, so that nobody is handed a commit that a crash
//! takes away. A feed is begun, acknowledged and ended durably; what is acknowledged is removed
//! afterwards, a little in each transaction, and when the store is opened again.

mod aside;
mod block;
mod reader;
mod record;
mod trim;

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::{MutexGuard, PoisonError};

use redb::{Key, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use redb::{ReadOnlyTable, Value};
use reinstate_core::{
    CaptureView, ChangeFeed, ErrorKind, FeedHealth, FeedSource, Position, SnapshotId, StoreError,
};

pub(crate) use aside::{AsideRecorder, NotedAside};
pub(crate) use block::{Parts, RowChange};
pub(crate) use record::Recorder;

use crate::EmbeddedStore;
use crate::capture::EmbeddedCapture;
use crate::commit::read_commit;
use crate::error::During;
use crate::gate::Turn;
use crate::key::{Bytes, FACTS, FEED, FEED_ASIDE, FEED_GARBAGE, FEEDS, block_key, block_number};
use crate::store::set_followed;
use block::Entry;
use reader::EmbeddedFeed;
use record::total_bytes;

/// What the store keeps of a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Feed {
    /// Every commit up to here was acknowledged.
    acknowledged: u64,
    /// Bytes that were noted up to there.
    total_bytes: u64,
}

impl Feed {
    fn write(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.acknowledged.to_le_bytes());
        bytes[8..].copy_from_slice(&self.total_bytes.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        let parts = bytes.split_first_chunk().and_then(|(first, rest)| {
            let second: [u8; 8] = rest.try_into().ok()?;
            Some((u64::from_le_bytes(*first), u64::from_le_bytes(second)))
        });
        let (acknowledged, total_bytes) = parts.ok_or_else(block::damaged)?;
        Ok(Self {
            acknowledged,
            total_bytes,
        })
    }
}

/// That nobody else of this process reads or ends a feed.
pub(crate) struct Reading<'s> {
    store: &'s EmbeddedStore,
    snapshot: SnapshotId,
}

impl<'s> Reading<'s> {
    fn take(store: &'s EmbeddedStore, snapshot: SnapshotId) -> Result<Self, StoreError> {
        if readings(store).insert(snapshot) {
            return Ok(Self { store, snapshot });
        }
        let message = format!(
            "somebody else reads the feed of snapshot {}: wait for it to end",
            snapshot.short()
        );
        Err(StoreError::new(ErrorKind::Locked, message))
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        readings(self.store).remove(&self.snapshot);
    }
}

fn readings(store: &EmbeddedStore) -> MutexGuard<'_, HashSet<SnapshotId>> {
    store
        .readings
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

impl FeedSource for EmbeddedStore {
    fn begin_feed(&self, snapshot: SnapshotId) -> Result<Box<dyn CaptureView + '_>, StoreError> {
        let turn = self.gate.enter();
        Ok(Box::new(self.begin_feed_in_turn(snapshot, &turn)?))
    }

    fn resume_feed(
        &self,
        snapshot: SnapshotId,
        after: Position,
    ) -> Result<Box<dyn ChangeFeed + '_>, StoreError> {
        let reading = Reading::take(self, snapshot)?;
        let operation = "follow the store";
        let transaction = self.database.begin_read().during(operation)?;
        let feed = find(&transaction, snapshot)?.ok_or_else(|| {
            let message = format!(
                "{operation}: it keeps nothing for snapshot {}; begin a feed with a new snapshot",
                snapshot.short()
            );
            StoreError::new(ErrorKind::NotFound, message)
        })?;
        let last = read_commit(&transaction.open_table(FACTS).during(operation)?)?;
        if last < after.commit {
            return Err(reader::beyond(after, last));
        }
        if after.commit < feed.acknowledged {
            let message = format!(
                "{operation}: commits {} to {} were acknowledged, and forgotten; begin a feed \
                 with a new snapshot",
                after.commit + 1,
                feed.acknowledged
            );
            return Err(StoreError::new(ErrorKind::NotRecoverable, message));
        }
        Ok(Box::new(EmbeddedFeed::new(
            self,
            snapshot,
            after.commit,
            reading,
        )))
    }

    fn end_feed(&self, snapshot: SnapshotId) -> Result<(), StoreError> {
        let operation = "end a feed";
        let _reading = Reading::take(self, snapshot)?;
        let transaction = self.database.begin_read().during(operation)?;
        if find(&transaction, snapshot)?.is_none() {
            return Ok(());
        }
        drop(transaction);
        {
            let _turn = self.gate.enter();
            let transaction = self.database.begin_write().during(operation)?;
            {
                let mut feeds = transaction.open_table(FEEDS).during(operation)?;
                feeds
                    .remove(snapshot.as_bytes().as_slice())
                    .map(drop)
                    .during(operation)?;
                let is_last = redb::ReadableTableMetadata::is_empty(&feeds).during(operation)?;
                let mut facts = transaction.open_table(FACTS).during(operation)?;
                set_followed(&mut facts, !is_last)?;
            }
            self.commit(transaction, operation)?;
            self.backlog.committed();
        }
        self.trim_feed()
    }

    fn feeds(&self) -> Result<Vec<FeedHealth>, StoreError> {
        let operation = "look at the store's feeds";
        let transaction = self.database.begin_read().during(operation)?;
        let Some(feeds) = open_if_there(&transaction, FEEDS, operation)? else {
            return Ok(Vec::new());
        };
        let total_bytes = total_bytes(&transaction.open_table(FACTS).during(operation)?)?;
        let mut all = Vec::new();
        for entry in feeds.iter().during(operation)? {
            let (key, value) = entry.during(operation)?;
            let id = key.value().try_into().map_err(|_| block::damaged())?;
            let feed = Feed::read(value.value())?;
            all.push(FeedHealth {
                snapshot: SnapshotId::from_bytes(id),
                acknowledged: Position {
                    commit: feed.acknowledged,
                    ordinal: 0,
                },
                kept_bytes: total_bytes.saturating_sub(feed.total_bytes),
                lost: lost(&transaction, feed.acknowledged)?,
            });
        }
        Ok(all)
    }
}

impl EmbeddedStore {
    /// Begins a feed. Nobody else commits between that and the view, because the caller has the turn.
    pub(crate) fn begin_feed_in_turn(
        &self,
        snapshot: SnapshotId,
        _turn: &Turn<'_>,
    ) -> Result<EmbeddedCapture<'_>, StoreError> {
        let operation = "begin to follow the store";
        let transaction = self.database.begin_write().during(operation)?;
        {
            let mut facts = transaction.open_table(FACTS).during(operation)?;
            let feed = Feed {
                acknowledged: read_commit(&facts)?,
                total_bytes: total_bytes(&facts)?,
            };
            set_followed(&mut facts, true)?;
            let mut feeds = transaction.open_table(FEEDS).during(operation)?;
            let before = feeds
                .insert(snapshot.as_bytes().as_slice(), feed.write().as_slice())
                .during(operation)?;
            if before.is_some() {
                let message = format!(
                    "{operation}: it has a feed of snapshot {} already; follow or end that one",
                    snapshot.short()
                );
                return Err(StoreError::new(ErrorKind::Conflict, message));
            }
            transaction.open_table(FEED).during(operation)?;
            transaction.open_table(FEED_ASIDE).during(operation)?;
            transaction.open_table(FEED_GARBAGE).during(operation)?;
        }
        let now = (self.clock)();
        self.commit(transaction, operation)?;
        self.backlog.committed();
        EmbeddedCapture::open(self, Some(now))
    }

    /// Notes how far a feed was acknowledged, durably, and removes what nobody needs any more.
    fn acknowledge(&self, snapshot: SnapshotId, position: Position) -> Result<(), StoreError> {
        let operation = "acknowledge what was read";
        {
            let _turn = self.gate.enter();
            let transaction = self.database.begin_write().during(operation)?;
            {
                let last = read_commit(&transaction.open_table(FACTS).during(operation)?)?;
                if last < position.commit {
                    return Err(reader::beyond(position, last));
                }
                let mut feeds = transaction.open_table(FEEDS).during(operation)?;
                let id = snapshot.as_bytes().as_slice();
                let feed = feeds.get(id).during(operation)?;
                let feed = Feed::read(feed.ok_or_else(block::damaged)?.value())?;
                if position.commit <= feed.acknowledged {
                    return Ok(());
                }
                let entries = transaction.open_table(FEED).during(operation)?;
                let noted = bytes_through(&entries, position.commit)?;
                let feed = Feed {
                    acknowledged: position.commit,
                    total_bytes: feed.total_bytes.max(noted),
                };
                feeds
                    .insert(id, feed.write().as_slice())
                    .map(drop)
                    .during(operation)?;
            }
            self.commit(transaction, operation)?;
            self.backlog.committed();
        }
        self.trim_feed()
    }
}

/// What is kept of a snapshot's feed.
fn find(transaction: &ReadTransaction, snapshot: SnapshotId) -> Result<Option<Feed>, StoreError> {
    let operation = "look for a feed";
    let Some(feeds) = open_if_there(transaction, FEEDS, operation)? else {
        return Ok(None);
    };
    let found = feeds
        .get(snapshot.as_bytes().as_slice())
        .during(operation)?;
    found.map(|feed| Feed::read(feed.value())).transpose()
}

/// The last commit that every feed has acknowledged; none if there are no feeds.
fn acknowledged_by_all(
    feeds: &impl ReadableTable<Bytes, Bytes>,
) -> Result<Option<u64>, StoreError> {
    let operation = "look for a feed";
    let mut lowest: Option<u64> = None;
    for entry in feeds.iter().during(operation)? {
        let feed = Feed::read(entry.during(operation)?.1.value())?;
        lowest = Some(lowest.map_or(feed.acknowledged, |low| low.min(feed.acknowledged)));
    }
    Ok(lowest)
}

/// How many bytes were noted up to a commit, if an entry still says so.
fn bytes_through(
    entries: &impl ReadableTable<Bytes, Bytes>,
    commit: u64,
) -> Result<u64, StoreError> {
    let operation = "acknowledge what was read";
    let end = block_key(commit, u32::MAX);
    let bounds = (Bound::Unbounded, Bound::Included(end.as_slice()));
    let mut entries = entries.range::<&[u8]>(bounds).during(operation)?;
    let Some(last) = entries.next_back() else {
        return Ok(0);
    };
    let (_, value) = last.during(operation)?;
    Ok(match Entry::read(value.value())?.0 {
        Entry::Ends(end) | Entry::IsAside(end, _) => end.total_bytes,
        Entry::GoesOn => 0,
    })
}

/// Why a feed cannot go on after this commit, if so.
fn lost(transaction: &ReadTransaction, after: u64) -> Result<Option<String>, StoreError> {
    let operation = "look at the store's feeds";
    let last = read_commit(&transaction.open_table(FACTS).during(operation)?)?;
    let feed = transaction.open_table(FEED).during(operation)?;
    let start = block_key(after + 1, 0);
    let bounds = (Bound::Included(start.as_slice()), Bound::Unbounded);
    let mut entries = feed.range::<&[u8]>(bounds).during(operation)?;
    let next = match entries.next() {
        Some(entry) => {
            block_number(entry.during(operation)?.0.value()).ok_or_else(block::damaged)?
        }
        None => last + 1,
    };
    Ok((next != after + 1).then(|| gap(after, next).to_string()))
}

/// That commits between these two were not noted.
fn gap(last: u64, next: u64) -> StoreError {
    let message = format!(
        "the store's feed goes from commit {last} to commit {next}: what was committed in between \
         was not noted; begin a feed with a new snapshot"
    );
    StoreError::new(ErrorKind::NotRecoverable, message)
}

/// A table that is in the file only if the store was followed once.
fn open_if_there<K: Key + 'static, V: Value + 'static>(
    transaction: &ReadTransaction,
    table: TableDefinition<'_, K, V>,
    operation: &str,
) -> Result<Option<ReadOnlyTable<K, V>>, StoreError> {
    match transaction.open_table(table) {
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        opened => opened.map(Some).during(operation),
    }
}
