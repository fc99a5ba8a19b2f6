//! What a large restore changes, for those who follow the store.
//!
//! It is found by comparing the rows in use with those that were built aside: both stay as they are
//! until the switch, or the switch does not happen. So it does not matter whether somebody began to
//! follow the store before the restore or in the middle of it.

use std::cmp::Ordering;

use redb::ReadableDatabase;
use reinstate_core::{StoreError, TableIndex, compare_rows};

use super::EmbeddedWriter;
use super::aside::Aside;
use super::plan_rows::PlanRows;
use crate::error::During;
use crate::feed::{AsideRecorder, NotedAside, RowChange};
use crate::key::{FACTS, Place};
use crate::scan::Scan;
use crate::store::is_followed;
use crate::view::PlaceRows;

impl EmbeddedWriter<'_> {
    /// Notes what the switch is going to change, if anybody follows the store.
    ///
    /// *Cost*: reads the changed tables of the tenant twice, as they are and as they will be.
    pub(super) fn note_changes(&self, aside: &Aside) -> Result<Option<NotedAside>, StoreError> {
        let operation = "compare the restored rows";
        let transaction = self.store.database.begin_read().during(operation)?;
        if !is_followed(&transaction.open_table(FACTS).during(operation)?)? {
            return Ok(None);
        }
        let mut recorder = AsideRecorder::new(self.store);
        for (table, old, new) in aside.places() {
            self.note_table(&transaction, table, [old, new], &mut recorder)?;
        }
        recorder.finish().map(Some)
    }

    fn note_table(
        &self,
        transaction: &redb::ReadTransaction,
        table: TableIndex,
        places: [&Place; 2],
        recorder: &mut AsideRecorder<'_>,
    ) -> Result<(), StoreError> {
        let has_key = self.store.schema.table(table).has_key();
        let open = |place: &Place| {
            let scan = Scan::new(place.clone(), !has_key);
            let rows = PlaceRows::open(transaction, table, scan)?;
            let mut rows = PlanRows::over(Box::new(rows));
            rows.advance()?;
            Ok::<_, StoreError>(rows)
        };
        let (mut old, mut new) = (open(places[0])?, open(places[1])?);
        let owner = self.tenant.as_bytes();
        loop {
            let (order, change) = match (old.row(), new.row()) {
                (None, None) => return Ok(()),
                (Some(old), None) => (Ordering::Less, Some(RowChange::Delete(old.into()))),
                (None, Some(new)) => (Ordering::Greater, Some(RowChange::Insert(new.into()))),
                (Some(old), Some(new)) if has_key && old.key() == new.key() => {
                    let is_changed = old.columns() != new.columns();
                    let change = is_changed.then(|| RowChange::Update {
                        before: old.into(),
                        after: new.into(),
                    });
                    (Ordering::Equal, change)
                }
                (Some(old), Some(new)) => match compare_rows(old, new) {
                    Ordering::Less => (Ordering::Less, Some(RowChange::Delete(old.into()))),
                    Ordering::Equal => (Ordering::Equal, None),
                    Ordering::Greater => (Ordering::Greater, Some(RowChange::Insert(new.into()))),
                },
            };
            if let Some(change) = change {
                recorder.push(table, owner, change)?;
            }
            if order.is_le() {
                old.advance()?;
            }
            if order.is_ge() {
                new.advance()?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use redb::{ReadableDatabase, ReadableTableMetadata};
    use reinstate_core::{
        Change, ChangeSink, Commit, Committed, Digest, FeedSource, JobId, JournalEntry, LiveStore,
        Position, SnapshotId, TenantId, TenantWriter,
    };

    use super::*;
    use crate::EmbeddedStore;
    use crate::key::{FEED, FEED_ASIDE, FEED_GARBAGE};
    use crate::testing::{Create, store};

    const ROWS: u64 = 5_000;
    const SNAPSHOT: SnapshotId = SnapshotId::from_bytes([7; 16]);

    fn built(store: &EmbeddedStore) -> Box<dyn TenantWriter + '_> {
        let tenant = TenantId::try_new("a").unwrap();
        let fingerprint = store.read_view().unwrap().fingerprint(&tenant).unwrap();
        let mut writer = store
            .begin_merge(&tenant, &fingerprint, store.schema())
            .unwrap();
        // More than are written in place.
        writer.apply(&Create(ROWS)).unwrap();
        writer
    }

    fn commit(writer: Box<dyn TenantWriter + '_>) -> Result<Committed, StoreError> {
        writer.commit(&JournalEntry {
            job: JobId::from_bytes([1; 16]),
            tenant: TenantId::try_new("a").unwrap(),
            plan: Digest::from_bytes([1; 32]),
            payload: Vec::new(),
        })
    }

    /// Waits until so many turns more than `before` were asked for.
    fn until_drawn(store: &EmbeddedStore, before: u64, more: u64) {
        while store.gate.drawn() < before + more {
            thread::yield_now();
        }
    }

    #[derive(Default)]
    struct Counts(Vec<u64>, u64);

    impl ChangeSink for Counts {
        fn change(&mut self, change: Change<'_>) -> Result<(), StoreError> {
            assert!(matches!(change, Change::Insert { .. }));
            self.1 += 1;
            Ok(())
        }

        fn commit(&mut self, _commit: Commit) -> Result<(), StoreError> {
            self.0.push(std::mem::take(&mut self.1));
            Ok(())
        }
    }

    #[test]
    fn a_feed_that_begins_right_before_the_switch_has_the_restore() {
        let store = store();
        let writer = built(&store);
        let turn = store.gate.enter();
        let before = store.gate.drawn();
        let position = thread::scope(|scope| {
            let committed = scope.spawn(|| commit(writer));
            // It has looked whether anybody follows the store, and waits for its turn to switch.
            until_drawn(&store, before, 1);
            let view = store.begin_feed_in_turn(SNAPSHOT, &turn).unwrap();
            let position = reinstate_core::CaptureView::position(&view);
            drop(turn);
            committed.join().unwrap().unwrap();
            position
        });
        let mut counts = Counts::default();
        let mut feed = store.resume_feed(SNAPSHOT, position).unwrap();
        feed.read(1, &mut counts).unwrap();
        assert_eq!(counts.0, [ROWS]);
    }

    /// Nobody waits for all of them.
    #[test]
    fn the_changes_of_a_large_restore_are_noted_in_several_turns() {
        let store = store();
        drop(store.begin_feed(SNAPSHOT).unwrap());
        let writer = built(&store);
        let before = store.gate.drawn();
        commit(writer).unwrap();
        // 1.5 MB in turns of 512 KiB, and the switch.
        let turns = store.gate.drawn() - before;
        assert!((4..=6).contains(&turns), "{turns} turns");
    }

    #[test]
    fn a_feed_that_ends_right_before_the_switch_leaves_nothing() {
        let store = store();
        let writer = built(&store);
        drop(store.begin_feed(SNAPSHOT).unwrap());
        let turn = store.gate.enter();
        let before = store.gate.drawn();
        thread::scope(|scope| {
            let committed = scope.spawn(|| commit(writer));
            // It waits for its turn to note its changes; then comes the end of the feed.
            until_drawn(&store, before, 1);
            let ended = scope.spawn(|| store.end_feed(SNAPSHOT));
            until_drawn(&store, before, 2);
            drop(turn);
            ended.join().unwrap().unwrap();
            let position = committed.join().unwrap().unwrap().position;
            assert_eq!(
                position,
                Position {
                    commit: 1,
                    ordinal: 0
                }
            );
        });
        let transaction = store.database.begin_read().unwrap();
        let open = |table| transaction.open_table(table).unwrap();
        assert_eq!(open(FEED).len().unwrap(), 0);
        assert_eq!(open(FEED_ASIDE).len().unwrap(), 0);
        let garbage = transaction.open_table(FEED_GARBAGE).unwrap();
        assert_eq!(garbage.len().unwrap(), 0);
        // The number was drawn: its changes were noted, and removed again.
        let facts = transaction.open_table(FACTS).unwrap();
        assert!(facts.get("feed aside").unwrap().is_some());
    }
}
