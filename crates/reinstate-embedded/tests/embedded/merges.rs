//! Merges of both kinds, and who may come in between.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use reinstate_core::{ErrorKind, LiveStore, StoreSchema};
use reinstate_embedded::EmbeddedStore;

use crate::support::{
    ISSUES, Plan, State, Way, create, entry, fingerprint, many, merge, owner, put, read, row,
    schema, tenant, without_nothing,
};

const BOTH: [Way; 2] = [Way::InPlace, Way::Aside];

fn store_with(path: &Path, way: Way, states: &[(&[u8], &State)]) -> EmbeddedStore {
    let store = create(path, way);
    for (id, state) in states {
        merge(&store, &tenant(id), &State::new(), state, 1).unwrap();
    }
    store
}

fn write_one(store: &EmbeddedStore, id: &[u8], number: u64) {
    let row = row(ISSUES, number, Some("new"));
    store
        .write(|transaction| transaction.table(ISSUES)?.put(&owner(id), row.row()))
        .unwrap();
}

/// Every row that lies in the file, whether anybody sees it or not.
pub(crate) fn rows_in_file(path: &Path) -> u64 {
    rows_of(&redb::Database::open(path).unwrap())
}

/// The same for an open database. Nothing may be left to be removed.
pub(crate) fn rows_of(database: &redb::Database) -> u64 {
    let transaction = database.begin_read().unwrap();
    let garbage: TableDefinition<'_, &[u8], ()> = TableDefinition::new("reinstate/garbage");
    let garbage = transaction.open_table(garbage).unwrap();
    assert_eq!(
        garbage.iter().unwrap().count(),
        0,
        "records of rows to remove"
    );
    (0..3)
        .map(|number| {
            let name = format!("data/{number}");
            let data: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(&name);
            transaction.open_table(data).unwrap().len().unwrap()
        })
        .sum()
}

/// What the rows of a file take, keys included.
fn bytes_in_file(path: &Path) -> u64 {
    let database = redb::Database::open(path).unwrap();
    let transaction = database.begin_read().unwrap();
    let bytes_of = |number: u8| {
        let name = format!("data/{number}");
        let data: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(&name);
        let data = transaction.open_table(data).unwrap();
        let rows = data.iter().unwrap().map(Result::unwrap);
        rows.map(|(key, value)| (key.value().len() + value.value().len()) as u64)
            .sum::<u64>()
    };
    (0..3).map(bytes_of).sum()
}

pub(crate) fn keys(states: &[&State]) -> u64 {
    let tables = states.iter().flat_map(|state| state.values());
    tables.map(|rows| rows.len() as u64).sum()
}

#[test]
fn a_merge_leaves_nothing_in_the_file_but_the_rows() {
    let (first, second, other) = (many(9_000, 1), many(9_500, 2), many(500, 3));
    for way in BOTH {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let store = store_with(&path, way, &[(b"a", &first), (b"aa", &other)]);
        merge(&store, &tenant(b"a"), &first, &second, 2).unwrap();
        assert!(read(&store, &owner(b"a")) == second);
        assert!(read(&store, &owner(b"aa")) == other);
        drop(store);
        assert_eq!(rows_in_file(&path), keys(&[&second, &other]), "{way:?}");
    }
}

/// One row after the other in one transaction would keep every other writer waiting.
#[test]
fn few_rows_that_are_large_are_not_written_in_place() {
    let mut after = State::new();
    for number in 0..3 {
        let text = "large ".repeat(300_000);
        put(&mut after, ISSUES, row(ISSUES, number, Some(&text)).row());
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = store_with(&path, Way::InPlace, &[(b"a", &after), (b"b", &many(20, 1))]);
    assert!(read(&store, &owner(b"a")) == after);
    drop(store);
    assert_eq!(built_aside(&path), 1, "only the tenant with large rows");
}

/// In how many tables a tenant's rows were ever built aside.
fn built_aside(path: &Path) -> u64 {
    let database = redb::Database::open(path).unwrap();
    let generations: TableDefinition<'_, &[u8], u64> =
        TableDefinition::new("reinstate/generations");
    let transaction = database.begin_read().unwrap();
    let generations = transaction.open_table(generations).unwrap();
    generations.len().unwrap()
}

/// The plan is wrong about what there is: what is counted is what the store did.
#[test]
fn a_row_that_is_put_back_where_none_is_left_is_counted_as_created() {
    let mut claimed = State::new();
    put(&mut claimed, ISSUES, row(ISSUES, 1, Some("there")).row());
    let mut after = State::new();
    put(&mut after, ISSUES, row(ISSUES, 1, Some("put back")).row());
    let directory = tempfile::tempdir().unwrap();
    let store = store_with(&directory.path().join("store"), Way::InPlace, &[]);
    let target = tenant(b"a");
    let mut writer = store
        .begin_merge(&target, &fingerprint(&store, &target), store.schema())
        .unwrap();
    let counted = writer.apply(&Plan::new(&claimed, &after)).unwrap();
    let [(_, counts)] = counted.as_slice() else {
        panic!("{counted:?}")
    };
    assert_eq!((counts.created, counts.put_back, counts.deleted), (1, 0, 0));
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let (first, second) = (many(6_000, 1), many(6_000, 2));
    for way in BOTH {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let store = store_with(&path, way, &[(b"a", &first)]);
        let before = fingerprint(&store, &tenant(b"a"));
        let mut writer = store
            .begin_merge(&tenant(b"a"), &before, store.schema())
            .unwrap();
        writer.apply(&Plan::new(&first, &second)).unwrap();
        drop(writer);
        assert_eq!(fingerprint(&store, &tenant(b"a")), before);
        assert!(read(&store, &owner(b"a")) == first);
        drop(store);
        assert_eq!(rows_in_file(&path), keys(&[&first]), "{way:?}");
    }
}

#[test]
fn nobody_but_the_tenant_has_the_mark_of_a_merge() {
    let (first, second) = (many(50, 1), many(60, 2));
    for way in BOTH {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let store = store_with(&path, way, &[(b"a", &first), (b"b", &first)]);
        let committed = merge(&store, &tenant(b"a"), &first, &second, 2).unwrap();
        let mark = committed.commit_mark;
        assert_eq!(store.foreign_rows_written(&tenant(b"a"), &mark).unwrap(), 0);
        assert_eq!(store.foreign_rows_written(&tenant(b"b"), &mark).unwrap(), 1);
        write_one(&store, b"b", 900);
        assert_eq!(store.foreign_rows_written(&tenant(b"a"), &mark).unwrap(), 0);
        write_one(&store, b"a", 900);
        assert_eq!(store.foreign_rows_written(&tenant(b"b"), &mark).unwrap(), 0);
        let journal = store.journal_entry(entry(&tenant(b"a"), 2).job, &tenant(b"a"));
        assert_eq!(journal.unwrap(), Some(entry(&tenant(b"a"), 2)));
    }
}

#[test]
fn a_tenant_that_was_written_to_is_not_merged_into() {
    let (first, second) = (many(700, 1), many(700, 2));
    for way in BOTH {
        for after_apply in [false, true] {
            if after_apply && way == Way::InPlace {
                // Nobody can write then: the merge is in the middle of its turn.
                continue;
            }
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("store");
            let store = store_with(&path, way, &[(b"a", &first)]);
            let target = tenant(b"a");
            let mut writer = store
                .begin_merge(&target, &fingerprint(&store, &target), store.schema())
                .unwrap();
            let plan = Plan::new(&first, &second);
            let applied = if after_apply {
                writer.apply(&plan).unwrap();
                write_one(&store, b"a", 900);
                Ok(Vec::new())
            } else {
                write_one(&store, b"a", 900);
                writer.apply(&plan)
            };
            let refused = match applied {
                Ok(_) => writer.commit(&entry(&target, 2)).unwrap_err(),
                Err(error) => {
                    drop(writer);
                    error
                }
            };
            assert_eq!(refused.kind(), ErrorKind::Stale, "{way:?} {after_apply}");
            let mut expected = first.clone();
            put(&mut expected, ISSUES, row(ISSUES, 900, Some("new")).row());
            assert!(read(&store, &owner(b"a")) == expected);
            drop(store);
            assert_eq!(rows_in_file(&path), keys(&[&expected]));
        }
    }
}

#[test]
fn another_tenants_writes_do_not_stop_a_merge() {
    let (first, second) = (many(700, 1), many(700, 2));
    let directory = tempfile::tempdir().unwrap();
    let store = store_with(
        &directory.path().join("store"),
        Way::Aside,
        &[(b"a", &first)],
    );
    let target = tenant(b"a");
    let mut writer = store
        .begin_merge(&target, &fingerprint(&store, &target), store.schema())
        .unwrap();
    write_one(&store, b"aa", 1);
    writer.apply(&Plan::new(&first, &second)).unwrap();
    write_one(&store, b"aa", 2);
    writer.commit(&entry(&target, 2)).unwrap();
    assert!(read(&store, &owner(b"a")) == second);
    assert_eq!(keys(&[&read(&store, &owner(b"aa"))]), 2);
}

#[test]
fn a_large_merge_lets_writers_through_and_keeps_their_rows() {
    let after = many(60_000, 1);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = store_with(&path, Way::Aside, &[]);
    let merged = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let writers: Vec<_> = [b"b", b"c"]
            .into_iter()
            .map(|id| {
                let (store, merged) = (&store, &merged);
                scope.spawn(move || {
                    let mut written = 0;
                    while !merged.load(Ordering::SeqCst) {
                        write_one(store, id, written);
                        written += 1;
                    }
                    written
                })
            })
            .collect();
        let result = merge(&store, &tenant(b"a"), &State::new(), &after, 1);
        merged.store(true, Ordering::SeqCst);
        result.unwrap();
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect::<Vec<u64>>()
    });
    // About seven megabytes in turns of at least 128 KiB, and everybody waits in one queue.
    assert!(written.iter().all(|&count| count > 10), "{written:?}");
    for (id, &count) in [b"b", b"c"].into_iter().zip(&written) {
        assert_eq!(keys(&[&read(&store, &owner(id))]), count);
    }
    assert!(read(&store, &owner(b"a")) == after, "the rows of the plan");
    drop(store);
    assert_eq!(
        rows_in_file(&path),
        keys(&[&after]) + written.iter().sum::<u64>()
    );
}

/// A merge in place reads the whole tenant back while it has the turn.
#[test]
fn nobody_waits_for_a_large_tenant_of_which_little_changes() {
    let before = many(700, 1);
    let mut after = before.clone();
    put(&mut after, ISSUES, row(ISSUES, 1, Some("put back")).row());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    for (missing, waits) in [(1, false), (0, true)] {
        let store = store_with(&path, Way::InPlace, &[(b"a", &before)]);
        drop(store);
        let mut options = Way::InPlace.options();
        options.in_place_tenant_bytes_max = bytes_in_file(&path) - missing;
        let store = EmbeddedStore::open(&path, &options).unwrap();
        let target = tenant(b"a");
        let mut writer = store
            .begin_merge(&target, &fingerprint(&store, &target), store.schema())
            .unwrap();
        writer.apply(&Plan::new(&before, &after)).unwrap();
        let (say, written) = std::sync::mpsc::channel();
        let got_through = thread::scope(|scope| {
            scope.spawn(|| {
                write_one(&store, b"aa", 1);
                let _ = say.send(());
            });
            // In place, it gets its turn when the merge is over, however long that takes.
            let patience = Duration::from_secs(if waits { 0 } else { 60 });
            let got_through = written.recv_timeout(patience).is_ok();
            writer.commit(&entry(&target, 2)).unwrap();
            got_through
        });
        assert_eq!(got_through, !waits);
        assert!(read(&store, &owner(b"a")) == after);
        drop(store);
        assert_eq!(built_aside(&path), u64::from(!waits));
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_tenant_has_one_merge_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_with(&directory.path().join("store"), Way::Aside, &[]);
    let begin = |id: &[u8]| {
        let target = tenant(id);
        store.begin_merge(&target, &fingerprint(&store, &target), store.schema())
    };
    let writer = begin(b"a").unwrap();
    assert_eq!(begin(b"a").err().unwrap().kind(), ErrorKind::Locked);
    begin(b"b").unwrap();
    drop(writer);
    begin(b"a").unwrap();
}

#[test]
fn a_plan_for_other_tables_or_an_older_state_is_stale() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_with(&directory.path().join("store"), Way::Aside, &[]);
    let target = tenant(b"a");
    let before = fingerprint(&store, &target);
    let other_tables = StoreSchema::try_new(schema().tables()[..2].to_vec()).unwrap();
    let refused = store.begin_merge(&target, &before, &other_tables);
    assert_eq!(refused.err().unwrap().kind(), ErrorKind::Stale);
    write_one(&store, b"a", 1);
    let refused = store.begin_merge(&target, &before, store.schema());
    assert_eq!(refused.err().unwrap().kind(), ErrorKind::Stale);
}

#[test]
fn rows_that_are_not_as_the_plan_says_stop_the_merge() {
    let (first, second) = (many(300, 1), many(300, 2));
    // A plan made for a tenant that is as `second`, met by one that is as `first`.
    let plan = Plan::new(&second, &State::new());
    for way in BOTH {
        let directory = tempfile::tempdir().unwrap();
        let store = store_with(&directory.path().join("store"), way, &[(b"a", &first)]);
        let target = tenant(b"a");
        let mut writer = store
            .begin_merge(&target, &fingerprint(&store, &target), store.schema())
            .unwrap();
        match writer.apply(&plan) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Stale),
            // Otherwise the counts say that fewer rows were there to delete.
            Ok(counted) => {
                let deleted: u64 = counted.iter().map(|(_, counts)| counts.deleted).sum();
                assert!(deleted < keys(&[&second]), "{way:?}");
            }
        }
        drop(writer);
        assert!(read(&store, &owner(b"a")) == without_nothing(first.clone()));
    }
}
