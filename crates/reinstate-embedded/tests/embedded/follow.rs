//! Base and feed together are the store, at every commit: after random histories, beside writers
//! that go on, over crashes and failures of the storage.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;
use reinstate_core::{FeedSource, LiveStore, SnapshotId, StoreError};
use reinstate_embedded::EmbeddedStore;

use crate::histories::{Step, step, take};
use crate::replica::{Replica, SNAPSHOT, owners_with_rows};
use crate::storage::Disk;
use crate::support::{
    ISSUES, State, Way, World, capture, create, identity, kind, many, merge, owner, row, schema,
    tenant,
};

fn last_commit(store: &EmbeddedStore) -> u64 {
    store.read_view().unwrap().position().commit
}

/// Somebody who follows a store.
struct Follows {
    snapshot: SnapshotId,
    replica: Replica,
}

impl Follows {
    fn begin(store: &EmbeddedStore, number: u8, expected: &World) -> Self {
        let snapshot = SnapshotId::from_bytes([number; 16]);
        let replica = Replica::begin(store, snapshot);
        assert_eq!(replica.world, owners_with_rows(expected.clone()));
        Self { snapshot, replica }
    }

    /// Reads some bytes at a time, and acknowledges every other time.
    fn follow(&mut self, store: &EmbeddedStore, bytes: u64, worlds: &BTreeMap<u64, World>) {
        let after = reinstate_core::Position {
            commit: self.replica.through,
            ordinal: 0,
        };
        let mut feed = store.resume_feed(self.snapshot, after).unwrap();
        let more = self.replica.step(feed.as_mut(), bytes).unwrap();
        if bytes.is_multiple_of(2) {
            let through = crate::replica::at(self.replica.through);
            feed.acknowledge(through).unwrap();
        }
        if !more {
            assert_eq!(self.replica.through, last_commit(store));
        }
        for commit in self.replica.commits.drain(..) {
            assert_eq!(commit.world, worlds[&commit.position]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn base_and_feed_are_the_store_at_every_commit(
        steps in prop::collection::vec((step(), 0_u64..600), 1..30),
        begins in prop::collection::vec(any::<prop::sample::Index>(), 1..3),
        ways in prop::collection::vec(prop_oneof![Just(Way::InPlace), Just(Way::Aside)], 1..4),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let mut ways = ways.into_iter().cycle();
        let mut store = create(&path, ways.next().unwrap());
        let mut world = World::new();
        let mut worlds = BTreeMap::new();
        let mut follows: Vec<Follows> = Vec::new();
        for (number, (step, bytes)) in (0_u8..).zip(&steps) {
            if begins.iter().any(|begin| begin.index(steps.len()) == usize::from(number)) {
                follows.push(Follows::begin(&store, number, &world));
            }
            match step {
                Step::Reopen => {
                    drop(store);
                    store = EmbeddedStore::open(&path, &ways.next().unwrap().options()).unwrap();
                }
                step => take(&store, &mut world, step, number),
            }
            worlds.insert(last_commit(&store), owners_with_rows(world.clone()));
            if bytes.is_multiple_of(3) {
                follows.iter_mut().for_each(|one| one.follow(&store, *bytes, &worlds));
            }
        }
        for mut one in follows {
            one.follow(&store, u64::MAX, &worlds);
            prop_assert_eq!(&one.replica.world, &capture(&store));
            store.end_feed(one.snapshot).unwrap();
        }
        prop_assert_eq!(store.feeds().unwrap(), vec![]);
    }
}

/// Two threads that pass numbers on within a tenant, and one that restores others, while feeds begin.
#[test]
fn a_feed_that_begins_beside_writers_has_every_commit_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = create(&directory.path().join("store"), Way::Aside);
    let states = [State::new(), many(300, 1), many(330, 2)];
    merge(&store, &tenant(b"restored"), &states[0], &states[1], 0).unwrap();
    let stop = AtomicBool::new(false);
    let mut replicas = Vec::new();
    thread::scope(|scope| {
        for id in [b"a", b"b"] {
            let (store, stop) = (&store, &stop);
            scope.spawn(move || {
                for number in 0_u64.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let text = number.to_string();
                    let row = row(ISSUES, number % 5, Some(&text));
                    let put = store.write(|transaction| {
                        let mut table = transaction.table(ISSUES)?;
                        table.put(&owner(id), row.row())
                    });
                    put.unwrap();
                }
            });
        }
        scope.spawn(|| {
            for round in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let (before, after) = (&states[1 + round % 2], &states[2 - round % 2]);
                merge(&store, &tenant(b"restored"), before, after, 1).unwrap();
            }
        });
        let begun = scope.spawn(|| {
            let mut begun = Vec::new();
            for number in 0..12 {
                let snapshot = SnapshotId::from_bytes([number; 16]);
                let mut replica = Replica::begin(&store, snapshot);
                replica.follow(&store, snapshot, 1000).unwrap();
                if number % 3 == 0 {
                    store.end_feed(snapshot).unwrap();
                } else {
                    begun.push((snapshot, replica));
                }
            }
            begun
        });
        let begun = begun.join();
        stop.store(true, Ordering::SeqCst);
        replicas.extend(begun.unwrap());
    });
    let expected = capture(&store);
    for (snapshot, mut replica) in replicas {
        replica.follow(&store, snapshot, 50_000).unwrap();
        assert!(replica.world == expected);
        for commit in replica.commits {
            let restored = &commit.world[b"restored".as_slice()];
            assert!(states[1..].contains(restored), "half a restore");
        }
    }
}

/// What a follower has durably of its own: its replica, and after which operation of the storage.
#[derive(Default)]
struct Ledger {
    published: RefCell<Vec<(usize, Replica)>>,
    /// Commits that a writer was told of.
    written: RefCell<Vec<(usize, u64)>>,
    /// That the feed is to be ended, and that it is.
    ended: RefCell<[Option<usize>; 2]>,
}

/// Everything that can be done to a followed store, one after the other.
fn work(store: &EmbeddedStore, disk: &Disk, way: Way, ledger: &Ledger) -> Result<(), StoreError> {
    let wrote = || {
        let mut written = ledger.written.borrow_mut();
        written.push((disk.logged(), last_commit(store)));
    };
    let put = |number| {
        let row = row(ISSUES, number, Some("written"));
        store.write(|transaction| {
            let mut table = transaction.table(ISSUES)?;
            table.put(&owner(b"a"), row.row())?;
            table.put(&owner(b"b"), row.row())
        })?;
        wrote();
        Ok::<_, StoreError>(())
    };
    let publish = |replica: &Replica| {
        let mut published = ledger.published.borrow_mut();
        published.push((disk.logged(), replica.clone()));
    };
    let (first, second) = (many(30, 1), many(260, 2));
    merge(store, &tenant(b"c"), &State::new(), &first, 1)?;
    wrote();
    let mut replica = Replica::of(store.begin_feed(SNAPSHOT)?.as_ref());
    publish(&replica);
    put(1)?;
    merge(store, &tenant(b"c"), &first, &second, 2)?;
    wrote();
    put(2)?;
    let mut feed = store.resume_feed(SNAPSHOT, crate::replica::at(replica.through))?;
    while replica.step(feed.as_mut(), 1)? {
        publish(&replica);
        feed.acknowledge(crate::replica::at(replica.through))?;
        if way == Way::Aside {
            put(3)?;
        }
        if replica.commits.len() > 4 {
            break;
        }
    }
    feed.mark()?;
    wrote();
    replica.step(feed.as_mut(), u64::MAX)?;
    publish(&replica);
    feed.acknowledge(crate::replica::at(replica.through))?;
    put(4)?;
    drop(feed);
    ledger.ended.borrow_mut()[0] = Some(disk.logged());
    store.end_feed(SNAPSHOT)?;
    ledger.ended.borrow_mut()[1] = Some(disk.logged());
    put(5)
}

impl Ledger {
    /// Goes on with what is found after everything up to this operation was done.
    fn check(&self, store: &EmbeddedStore, done: usize) {
        let written = self.written.borrow();
        let written = written.iter().rev().find(|(when, _)| *when <= done);
        let last = last_commit(store);
        assert!(written.is_none_or(|(_, commit)| *commit <= last), "lost");
        let published = self.published.borrow();
        let published = published.iter().rev().find(|(when, _)| *when <= done);
        let ended = self
            .ended
            .borrow()
            .map(|ended| ended.is_some_and(|when| when <= done));
        let is_there = store.feeds().unwrap().len() == 1;
        match published {
            Some((_, replica)) if !ended[0] || (is_there && !ended[1]) => {
                assert_eq!(store.feeds().unwrap()[0].lost, None);
                let mut replica = replica.clone();
                replica.follow(store, SNAPSHOT, 3000).unwrap();
                assert!(replica.world == capture(store));
            }
            Some(_) => assert!(!is_there),
            None => {
                // The base was never taken to the end: it begins anew.
                store.end_feed(SNAPSHOT).unwrap();
                let mut replica = Replica::begin(store, SNAPSHOT);
                replica.follow(store, SNAPSHOT, 3000).unwrap();
                assert!(replica.world == capture(store));
            }
        }
        store.end_feed(SNAPSHOT).unwrap();
    }
}

fn new_disk() -> Disk {
    let disk = Disk::default();
    drop(EmbeddedStore::create_on(disk.clone(), identity(), kind(), schema()).unwrap());
    disk
}

#[test]
fn whichever_operation_is_the_last_the_feed_goes_on_without_a_gap() {
    for way in [Way::InPlace, Way::Aside] {
        let ledger = Ledger::default();
        let disk = new_disk();
        let states = disk.states_during(|disk| {
            let store = EmbeddedStore::open_on(disk.clone(), &way.options()).unwrap();
            work(&store, &disk, way, &ledger).unwrap();
        });
        let mut count = 0;
        for (done, found) in (1..).zip(states) {
            let store = EmbeddedStore::open_on(found.clone(), &way.options()).unwrap();
            ledger.check(&store, done);
            drop(store);
            crate::feeds::assert_nothing_is_kept(found);
            count += 1;
        }
        assert!(count > 100, "{count} operations");
    }
}

#[test]
fn whichever_operation_fails_the_feed_goes_on_without_a_gap() {
    for way in [Way::InPlace, Way::Aside] {
        let disk = new_disk();
        for room in 0.. {
            let disk = disk.copy();
            let store = EmbeddedStore::open_on(disk.clone(), &way.options()).unwrap();
            disk.fail_at(Some(room));
            let ledger = Ledger::default();
            let result = work(&store, &disk, way, &ledger);
            drop(store);
            disk.fail_at(None);
            let store = EmbeddedStore::open_on(disk.clone(), &way.options()).unwrap();
            // Nothing is written down, so that everything was done by then.
            ledger.check(&store, 0);
            drop(store);
            crate::feeds::assert_nothing_is_kept(disk);
            if result.is_ok() {
                assert!(room > 100, "room for {room}");
                break;
            }
        }
    }
}
