//! Feeds one at a time: what comes through them, what is kept for them, and what is refused.

use std::sync::atomic::{AtomicI64, Ordering};

use redb::{ReadableDatabase, ReadableTableMetadata, TableDefinition, TableHandle};
use reinstate_core::{
    ErrorKind, FeedSource, LiveStore, Position, SnapshotId, StoreError, Timestamp,
};
use reinstate_embedded::EmbeddedStore;

use crate::replica::{Replica, SNAPSHOT, at};
use crate::storage::Disk;
use crate::support::{
    EVENTS, ISSUES, Plan, State, Way, capture, create, entry, fingerprint, identity, kind, many,
    merge, owner, row, schema, tenant,
};

const OTHER: SnapshotId = SnapshotId::from_bytes([8; 16]);

fn write_one(store: &EmbeddedStore, id: &[u8], number: u64) {
    let row = row(ISSUES, number, Some("new"));
    store
        .write(|transaction| transaction.table(ISSUES)?.put(&owner(id), row.row()))
        .unwrap();
}

/// How many entries each table of the feed has; none for one that is not in the file.
fn kept(database: &redb::Database) -> [Option<u64>; 4] {
    let transaction = database.begin_read().unwrap();
    let names: Vec<String> = transaction
        .list_tables()
        .unwrap()
        .map(|table| table.name().to_owned())
        .collect();
    let count = |name: &str| {
        names.iter().any(|found| found == name).then(|| {
            let table: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(name);
            transaction.open_table(table).unwrap().len().unwrap()
        })
    };
    let garbage = "reinstate/feed-garbage";
    let garbage = names.iter().any(|found| found == garbage).then(|| {
        let table: TableDefinition<'_, u64, ()> = TableDefinition::new(garbage);
        transaction.open_table(table).unwrap().len().unwrap()
    });
    [
        count("reinstate/feeds"),
        count("reinstate/feed"),
        count("reinstate/feed-aside"),
        garbage,
    ]
}

fn kept_in(disk: Disk) -> [Option<u64>; 4] {
    let database = redb::Database::builder().create_with_backend(disk);
    kept(&database.unwrap())
}

pub(crate) fn assert_nothing_is_kept(disk: Disk) {
    let kept = kept_in(disk);
    assert!(kept.iter().all(|count| count.unwrap_or(0) == 0), "{kept:?}");
}

fn layout(disk: Disk) -> Vec<u8> {
    let database = redb::Database::builder().create_with_backend(disk).unwrap();
    let facts: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("reinstate/facts");
    let transaction = database.begin_read().unwrap();
    let facts = transaction.open_table(facts).unwrap();
    facts.get("layout").unwrap().unwrap().value().to_vec()
}

#[test]
fn a_store_that_nobody_follows_notes_nothing() {
    let disk = Disk::default();
    let store = EmbeddedStore::create_on(disk.clone(), identity(), kind(), schema()).unwrap();
    let (first, second) = (many(20, 1), many(5_000, 2));
    write_one(&store, b"b", 1);
    merge(&store, &tenant(b"a"), &State::new(), &first, 1).unwrap();
    merge(&store, &tenant(b"a"), &first, &second, 2).unwrap();
    assert_eq!(store.feeds().unwrap(), vec![]);
    store.end_feed(SNAPSHOT).unwrap();
    drop(store);
    assert_eq!(kept_in(disk.copy()), [None; 4]);
    let store = EmbeddedStore::open_on(disk.clone(), &Way::Aside.options()).unwrap();
    drop(store.begin_feed(SNAPSHOT).unwrap());
    // Whoever does not know of feeds would write without noting it.
    assert_eq!(layout(disk.copy()), [4]);
    write_one(&store, b"b", 2);
    merge(&store, &tenant(b"a"), &second, &first, 3).unwrap();
    store.end_feed(SNAPSHOT).unwrap();
    write_one(&store, b"b", 3);
    merge(&store, &tenant(b"a"), &first, &second, 4).unwrap();
    drop(store);
    assert_eq!(layout(disk.copy()), [3]);
    assert_eq!(kept_in(disk), [Some(0); 4]);
}

#[test]
fn what_every_feed_acknowledged_is_removed_and_nothing_else() {
    let disk = Disk::default();
    let store = EmbeddedStore::create_on(disk.clone(), identity(), kind(), schema()).unwrap();
    let mut slow = Replica::begin(&store, SNAPSHOT);
    let mut fast = Replica::begin(&store, OTHER);
    for number in 0..3000 {
        write_one(&store, b"a", number);
    }
    merge(&store, &tenant(b"b"), &State::new(), &many(6000, 1), 1).unwrap();
    let blocks = kept_in(disk.copy())[2].unwrap();
    assert!(blocks > 10, "{blocks} blocks aside");
    let acknowledge = |snapshot, replica: &Replica| {
        let after = at(replica.through);
        let mut feed = store.resume_feed(snapshot, after).unwrap();
        feed.acknowledge(after).unwrap();
        // Once more, and earlier ones: nothing happens.
        feed.acknowledge(after).unwrap();
        feed.acknowledge(at(0)).unwrap();
    };
    fast.follow(&store, OTHER, 10_000).unwrap();
    acknowledge(OTHER, &fast);
    let health = store.feeds().unwrap();
    assert_eq!(health[0].acknowledged, at(0));
    assert_eq!(health[1].acknowledged, at(3001));
    assert!(health[0].kept_bytes > 600_000, "{health:?}");
    assert_eq!(health[1].kept_bytes, 0);
    let counts = kept_in(disk.copy());
    assert_eq!(counts, [Some(2), Some(3001), Some(blocks), Some(0)]);
    // Half of it: more than one transaction removes.
    let mut feed = store.resume_feed(SNAPSHOT, at(0)).unwrap();
    while slow.through < 2000 {
        slow.step(feed.as_mut(), 1000).unwrap();
    }
    feed.acknowledge(at(2000)).unwrap();
    drop(feed);
    let half = store.feeds().unwrap()[0].kept_bytes;
    assert!(half < health[0].kept_bytes && half > 500_000, "{half}");
    write_one(&store, b"a", 0);
    let counts = kept_in(disk.copy());
    assert_eq!(counts, [Some(2), Some(1002), Some(blocks), Some(0)]);
    slow.follow(&store, SNAPSHOT, 10_000).unwrap();
    acknowledge(SNAPSHOT, &slow);
    fast.follow(&store, OTHER, 10_000).unwrap();
    assert!(slow.world == fast.world && slow.world == capture(&store));
    acknowledge(OTHER, &fast);
    write_one(&store, b"a", 0);
    assert_eq!(kept_in(disk), [Some(2), Some(1), Some(0), Some(0)]);
}

#[test]
fn a_feed_that_cannot_go_on_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let store = create(&directory.path().join("store"), Way::InPlace);
    let kind = |snapshot, after: Position| {
        let resumed = store.resume_feed(snapshot, after);
        resumed.err().map(|error| error.kind())
    };
    assert_eq!(kind(SNAPSHOT, at(0)), Some(ErrorKind::NotFound));
    for number in 0..4 {
        write_one(&store, b"a", number);
    }
    drop(store.begin_feed(SNAPSHOT).unwrap());
    let again = store.begin_feed(SNAPSHOT).err().unwrap();
    assert_eq!(again.kind(), ErrorKind::Conflict);
    assert_eq!(kind(OTHER, at(4)), Some(ErrorKind::NotFound));
    assert_eq!(kind(SNAPSHOT, at(3)), Some(ErrorKind::NotRecoverable));
    assert_eq!(kind(SNAPSHOT, at(5)), Some(ErrorKind::NotRecoverable));
    for number in 0..4 {
        write_one(&store, b"a", number);
    }
    let mut feed = store.resume_feed(SNAPSHOT, at(5)).unwrap();
    assert_eq!(kind(SNAPSHOT, at(5)), Some(ErrorKind::Locked));
    let error = store.end_feed(SNAPSHOT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    let error = feed.acknowledge(at(9)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRecoverable);
    feed.acknowledge(at(6)).unwrap();
    drop(feed);
    assert_eq!(kind(SNAPSHOT, at(5)), Some(ErrorKind::NotRecoverable));
    assert_eq!(kind(SNAPSHOT, at(6)), None);
}

#[test]
fn commits_that_were_not_noted_are_missed() {
    let disk = Disk::default();
    let store = EmbeddedStore::create_on(disk.clone(), identity(), kind(), schema()).unwrap();
    let base = Replica::begin(&store, SNAPSHOT);
    (0..5).for_each(|number| write_one(&store, b"a", number));
    drop(store);
    for removed in 1..=5_u64 {
        let disk = disk.copy();
        let database = redb::Database::builder()
            .create_with_backend(disk.clone())
            .unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let feed: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("reinstate/feed");
            let mut feed = transaction.open_table(feed).unwrap();
            let mut key = removed.to_be_bytes().to_vec();
            key.extend_from_slice(&[0; 4]);
            assert!(feed.remove(key.as_slice()).unwrap().is_some());
        }
        transaction.commit().unwrap();
        drop(database);
        let store = EmbeddedStore::open_on(disk, &Way::InPlace.options()).unwrap();
        let lost = store.feeds().unwrap()[0].lost.clone();
        assert_eq!(lost.is_some(), removed == 1, "{lost:?}");
        let mut replica = base.clone();
        let error = replica.follow(&store, SNAPSHOT, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotRecoverable);
        assert_eq!(replica.through, removed - 1);
    }
}

#[test]
fn a_restore_that_was_built_before_the_feed_began_is_in_it() {
    let (first, second) = (many(900, 1), many(950, 2));
    for way in [Way::InPlace, Way::Aside] {
        let disk = Disk::default();
        let store = EmbeddedStore::create_on(disk.clone(), identity(), kind(), schema()).unwrap();
        merge(&store, &tenant(b"a"), &State::new(), &first, 1).unwrap();
        drop(store);
        let store = EmbeddedStore::open_on(disk.clone(), &way.options()).unwrap();
        let target = tenant(b"a");
        let before = fingerprint(&store, &target);
        let begin = || store.begin_merge(&target, &before, store.schema()).unwrap();
        let mut writer = begin();
        let plan = Plan::new(&first, &second);
        if way == Way::Aside {
            // Otherwise the merge has the turn until it ends.
            writer.apply(&plan).unwrap();
        }
        let mut replica = Replica::begin(&store, SNAPSHOT);
        if way == Way::InPlace {
            writer.apply(&plan).unwrap();
        }
        let committed = writer.commit(&entry(&target, 2)).unwrap();
        replica.follow(&store, SNAPSHOT, 1).unwrap();
        assert_eq!(at(replica.through), committed.position);
        assert_eq!(replica.commits.len(), 1);
        assert!(replica.world == capture(&store));
        assert!(replica.world[b"a".as_slice()] == second);
        // And one that is given up is not, and leaves nothing.
        let before = fingerprint(&store, &target);
        let writer = store.begin_merge(&target, &before, store.schema());
        let mut writer = writer.unwrap();
        writer.apply(&Plan::new(&second, &first)).unwrap();
        drop(writer);
        // One that nobody follows any more when it ends.
        let writer = store.begin_merge(&target, &before, store.schema());
        let mut writer = writer.unwrap();
        if way == Way::Aside {
            writer.apply(&Plan::new(&second, &first)).unwrap();
        }
        replica.follow(&store, SNAPSHOT, 1).unwrap();
        assert_eq!(replica.commits.len(), 1);
        store.end_feed(SNAPSHOT).unwrap();
        if way == Way::InPlace {
            writer.apply(&Plan::new(&second, &first)).unwrap();
        }
        writer.commit(&entry(&target, 3)).unwrap();
        drop(store);
        assert_nothing_is_kept(disk);
    }
}

#[test]
fn an_empty_transaction_and_a_mark_come_through_and_excluded_rows_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let store = create(&directory.path().join("store"), Way::InPlace);
    let mut replica = Replica::begin(&store, SNAPSHOT);
    let sessions = store.table("sessions").unwrap();
    let session = row(ISSUES, 1, Some("secret"));
    store
        .write(|transaction| {
            let mut table = transaction.table(sessions)?;
            table.put(&owner(b"a"), session.row())?;
            table.put(&owner(b"a"), session.row())?;
            table.delete_all(&owner(b"a")).map(drop)
        })
        .unwrap();
    let mut feed = store.resume_feed(SNAPSHOT, at(0)).unwrap();
    feed.mark().unwrap();
    assert!(!replica.step(feed.as_mut(), 10_000).unwrap());
    let changes = replica.commits.iter().map(|commit| commit.changes);
    assert_eq!(changes.collect::<Vec<_>>(), [0, 0]);
    drop(feed);
    // A merge that has nothing to change.
    let target = tenant(b"b");
    let nothing = fingerprint(&store, &target);
    let writer = store.begin_merge(&target, &nothing, store.schema());
    writer.unwrap().commit(&entry(&target, 1)).unwrap();
    replica.follow(&store, SNAPSHOT, 10_000).unwrap();
    assert_eq!(replica.through, 3);
    // A transaction that the application gives up is not there at all.
    let given_up = store.write(|transaction| {
        let row = row(ISSUES, 1, Some(&"large ".repeat(20_000)));
        transaction.table(ISSUES)?.put(&owner(b"a"), row.row())?;
        Err::<(), _>(StoreError::new(ErrorKind::Usage, "no"))
    });
    given_up.unwrap_err();
    replica.follow(&store, SNAPSHOT, 10_000).unwrap();
    assert_eq!(replica.through, 3);
}

/// The rows before the damaged one were noted as deleted, and are still there.
#[test]
fn a_change_that_failed_halfway_is_not_committed_whatever_the_application_thinks_of_it() {
    let disk = Disk::default();
    let store = EmbeddedStore::create_on(disk.clone(), identity(), kind(), schema()).unwrap();
    let base = Replica::begin(&store, SNAPSHOT);
    merge(&store, &tenant(b"a"), &State::new(), &many(50, 1), 1).unwrap();
    drop(store);
    let database = redb::Database::builder().create_with_backend(disk.clone());
    let database = database.unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let data: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("data/1");
        let mut data = transaction.open_table(data).unwrap();
        let key = b"\0\x01a\0\0\0\0\0\0\0\0\xff";
        data.insert(key.as_slice(), b"damaged".as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let store = EmbeddedStore::open_on(disk, &Way::InPlace.options()).unwrap();
    let delete_all = || {
        store.write(|transaction| {
            let deleted = transaction.table(EVENTS)?.delete_all(&owner(b"a"));
            assert_eq!(deleted.unwrap_err().kind(), ErrorKind::Corrupt);
            Ok(())
        })
    };
    assert_eq!(delete_all().unwrap_err().kind(), ErrorKind::Refused);
    let mut replica = base.clone();
    replica.follow(&store, SNAPSHOT, 1).unwrap();
    assert!(replica.world[b"a".as_slice()] == many(50, 1));
}

static NOW: AtomicI64 = AtomicI64::new(0);

#[test]
fn commits_have_the_times_of_the_stores_clock() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut options = Way::InPlace.options();
    options.clock = || Timestamp::from_micros(NOW.fetch_add(1, Ordering::SeqCst));
    let store = EmbeddedStore::create(&path, &options, identity(), kind(), schema()).unwrap();
    write_one(&store, b"a", 1);
    let view = store.begin_feed(SNAPSHOT).unwrap();
    assert_eq!(view.taken_at(), Some(Timestamp::from_micros(0)));
    let mut replica = Replica::of(view.as_ref());
    for number in 0..3 {
        write_one(&store, b"a", number);
    }
    replica.follow(&store, SNAPSHOT, 1).unwrap();
    let times = replica.commits.iter().map(|commit| commit.time.as_micros());
    assert_eq!(times.collect::<Vec<_>>(), [1, 2, 3]);
    assert!((Way::InPlace.options().clock)() > Timestamp::from_micros(0));
}
