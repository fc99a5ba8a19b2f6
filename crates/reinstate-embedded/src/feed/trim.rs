//! Removing what no feed needs any more, a little in each transaction.

use std::ops::Bound;

use redb::{Durability, ReadableDatabase, ReadableTable};
use reinstate_core::StoreError;

use super::block::Entry;
use super::open_if_there;
use crate::EmbeddedStore;
use crate::error::During;
use crate::key::{Bytes, FEED, FEED_ASIDE, FEED_GARBAGE, FEEDS, block_key};

/// Entries removed in one transaction: other writers wait for no more than that.
const REMOVED_ENTRIES_MAX: usize = 1024;
/// Bytes of entries after which a transaction ends.
const REMOVED_BYTES_MAX: usize = 2 * 1024 * 1024;

impl EmbeddedStore {
    /// Removes everything that all feeds have acknowledged; all that there is if there are none.
    pub(crate) fn trim_feed(&self) -> Result<(), StoreError> {
        while !self.trim_some()? {}
        Ok(())
    }

    /// Removes what an earlier process left behind: blocks that no commit leads to, and entries
    /// that it had no time to remove.
    pub(crate) fn tidy_feed(&self) -> Result<(), StoreError> {
        let operation = "look for what an earlier process noted for feeds";
        let transaction = self.database.begin_read().during(operation)?;
        let mut numbers = Vec::new();
        if let Some(garbage) = open_if_there(&transaction, FEED_GARBAGE, operation)? {
            for entry in garbage.iter().during(operation)? {
                numbers.push(entry.during(operation)?.0.value());
            }
        }
        let is_empty = match open_if_there(&transaction, FEED, operation)? {
            Some(feed) => redb::ReadableTableMetadata::is_empty(&feed).during(operation)?,
            None => true,
        };
        drop(transaction);
        for number in numbers {
            self.remove_noted_aside(number)?;
        }
        if is_empty { Ok(()) } else { self.trim_feed() }
    }

    fn trim_some(&self) -> Result<bool, StoreError> {
        let operation = "forget what was acknowledged";
        let turn = self.gate.enter();
        let mut transaction = self.database.begin_write().during(operation)?;
        // Nothing is lost if this is: what was removed is acknowledged, and removed again.
        transaction
            .set_durability(Durability::None)
            .during(operation)?;
        let mut asides = Vec::new();
        let removed = {
            let feeds = transaction.open_table(FEEDS).during(operation)?;
            let end = match super::acknowledged_by_all(&feeds)? {
                Some(floor) => Bound::Excluded(block_key(floor + 1, 0)),
                None => Bound::Unbounded,
            };
            let mut feed = transaction.open_table(FEED).during(operation)?;
            remove_first(&mut feed, &end, operation, |entry| {
                if let (Entry::IsAside(_, number), _) = Entry::read(entry)? {
                    asides.push(number);
                }
                Ok(())
            })?
        };
        if removed == Removed::Nothing {
            return Ok(true);
        }
        if !asides.is_empty() {
            let mut garbage = transaction.open_table(FEED_GARBAGE).during(operation)?;
            for &number in &asides {
                garbage.insert(number, ()).map(drop).during(operation)?;
            }
        }
        transaction.commit().during(operation)?;
        drop(turn);
        for number in asides {
            self.remove_noted_aside(number)?;
        }
        Ok(removed == Removed::All)
    }

    /// Removes the blocks of one number, and then its record.
    pub(crate) fn remove_noted_aside(&self, number: u64) -> Result<(), StoreError> {
        while !self.remove_some_aside(number)? {}
        Ok(())
    }

    fn remove_some_aside(&self, number: u64) -> Result<bool, StoreError> {
        let operation = "remove what was noted of a restore";
        let _turn = self.gate.enter();
        let mut transaction = self.database.begin_write().during(operation)?;
        transaction
            .set_durability(Durability::None)
            .during(operation)?;
        let removed = {
            let mut blocks = transaction.open_table(FEED_ASIDE).during(operation)?;
            let end = Bound::Excluded(block_key(number + 1, 0));
            // Lower numbers may be those of restores that are under way.
            remove_range(&mut blocks, block_key(number, 0), &end, operation, |_| {
                Ok(())
            })?
        };
        if removed != Removed::Some {
            let mut garbage = transaction.open_table(FEED_GARBAGE).during(operation)?;
            garbage.remove(number).map(drop).during(operation)?;
        }
        transaction.commit().during(operation)?;
        Ok(removed != Removed::Some)
    }
}

/// How much of a range was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removed {
    /// There was nothing.
    Nothing,
    Some,
    All,
}

fn remove_first(
    table: &mut redb::Table<'_, Bytes, Bytes>,
    end: &Bound<[u8; 12]>,
    operation: &str,
    each: impl FnMut(&[u8]) -> Result<(), StoreError>,
) -> Result<Removed, StoreError> {
    remove_range(table, block_key(0, 0), end, operation, each)
}

/// Removes as much of a range, from its front, as one transaction may; hands the values out before.
fn remove_range(
    table: &mut redb::Table<'_, Bytes, Bytes>,
    start: [u8; 12],
    end: &Bound<[u8; 12]>,
    operation: &str,
    mut each: impl FnMut(&[u8]) -> Result<(), StoreError>,
) -> Result<Removed, StoreError> {
    let start = Bound::Included(start.as_slice());
    let end = end.as_ref().map(<[u8; 12]>::as_slice);
    let (mut count, mut bytes) = (0, 0);
    let mut first_kept = None;
    for entry in table.range::<&[u8]>((start, end)).during(operation)? {
        let (key, value) = entry.during(operation)?;
        if count == REMOVED_ENTRIES_MAX || bytes >= REMOVED_BYTES_MAX {
            first_kept = Some(key.value().to_vec());
            break;
        }
        each(value.value())?;
        count += 1;
        bytes += value.value().len();
    }
    if count == 0 {
        return Ok(Removed::Nothing);
    }
    let upper = first_kept.as_deref().map_or(end, Bound::Excluded);
    table
        .retain_in::<&[u8], _>((start, upper), |_, _| false)
        .during(operation)?;
    Ok(match first_kept {
        Some(_) => Removed::Some,
        None => Removed::All,
    })
}

#[cfg(test)]
mod tests {
    use reinstate_core::{FeedSource, Owner, Position, RowBatch, SnapshotId, TableIndex, TenantId};

    use super::*;
    use crate::testing::store;

    /// Others get in between.
    #[test]
    fn what_was_acknowledged_is_removed_in_several_turns() {
        let store = store();
        let snapshot = SnapshotId::from_bytes([7; 16]);
        drop(store.begin_feed(snapshot).unwrap());
        let owner = Owner::Tenant(TenantId::try_new("a").unwrap());
        let mut row = RowBatch::new();
        row.push(b"key", [Some([7; 300].as_slice())]);
        let row = row.iter().next().unwrap();
        let count = 2 * REMOVED_ENTRIES_MAX as u64 + 1;
        for _ in 0..count {
            let put = |transaction: &crate::WriteTransaction<'_>| {
                transaction.table(TableIndex(0))?.put(&owner, row)
            };
            store.write(put).unwrap();
        }
        let after = |commit| Position { commit, ordinal: 0 };
        let mut feed = store.resume_feed(snapshot, after(0)).unwrap();
        let turns = |feed: &mut dyn reinstate_core::ChangeFeed, commit| {
            let before = store.gate.drawn();
            feed.acknowledge(after(commit)).unwrap();
            store.gate.drawn() - before
        };
        // One that notes it, and those that remove.
        assert_eq!(turns(feed.as_mut(), count - 1), 1 + 2);
        assert_eq!(turns(feed.as_mut(), count), 1 + 1);
        assert_eq!(turns(feed.as_mut(), count), 1);
    }
}
