//! A process that dies in the middle of a merge.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use reinstate_core::{ErrorKind, LiveStore};
use reinstate_embedded::EmbeddedStore;

use crate::merges::{keys, rows_in_file, rows_of};
use crate::storage::Disk;
use crate::support::{
    EVENTS, Plan, State, Way, create, entry, fingerprint, identity, kind, many, merge, owner, read,
    row, schema, tenant,
};

#[test]
fn whichever_operation_is_the_last_the_tenant_is_as_before_or_as_after() {
    let (first, second, other) = (many(90, 1), many(120, 2), many(20, 3));
    for way in [Way::InPlace, Way::Aside] {
        let disk = Disk::default();
        let store = EmbeddedStore::create_on(disk.clone(), identity(), kind(), schema()).unwrap();
        merge(&store, &tenant(b"a"), &State::new(), &first, 1).unwrap();
        merge(&store, &tenant(b"b"), &State::new(), &other, 1).unwrap();
        drop(store);
        let mut merged = Vec::new();
        let states = disk.states_during(|disk| {
            let store = EmbeddedStore::open_on(disk, &way.options()).unwrap();
            merge(&store, &tenant(b"a"), &first, &second, 2).unwrap();
        });
        for found in states {
            let store = EmbeddedStore::open_on(found.clone(), &way.options()).unwrap();
            let state = read(&store, &owner(b"a"));
            let is_merged = state == second;
            assert!(is_merged || state == first, "neither before nor after");
            assert!(read(&store, &owner(b"b")) == other);
            let journal = store.journal_entry(entry(&tenant(b"a"), 2).job, &tenant(b"a"));
            assert_eq!(journal.unwrap().is_some(), is_merged);
            merged.push(is_merged);
            // What the dead process left aside is gone, and a merge can start again.
            merge(&store, &tenant(b"a"), &state, &second, 3).unwrap();
            drop(store);
            let database = redb::Database::builder()
                .create_with_backend(found)
                .unwrap();
            assert_eq!(rows_of(&database), keys(&[&second, &other]));
        }
        assert!(
            merged.is_sorted() && !merged[0] && merged[merged.len() - 1],
            "{merged:?}"
        );
    }
}

/// Another writer's commit takes along to the disk what is built aside: it is there after a crash.
#[test]
fn rows_aside_that_reached_the_disk_are_removed_when_the_store_is_opened() {
    let (first, second, other) = (many(90, 1), many(120, 2), many(20, 3));
    let disk = Disk::default();
    let store = EmbeddedStore::create_on(disk.clone(), identity(), kind(), schema()).unwrap();
    merge(&store, &tenant(b"a"), &State::new(), &first, 1).unwrap();
    drop(store);
    let options = Way::Aside.options();
    let store = EmbeddedStore::open_on(disk.clone(), &options).unwrap();
    let target = tenant(b"a");
    let mut writer = store
        .begin_merge(&target, &fingerprint(&store, &target), store.schema())
        .unwrap();
    writer.apply(&Plan::new(&first, &second)).unwrap();
    let event = row(EVENTS, 1, None);
    store
        .write(|transaction| transaction.table(EVENTS)?.put(&owner(b"b"), event.row()))
        .unwrap();
    let found = disk.copy();
    drop(writer);
    let opened = EmbeddedStore::open_on(found.clone(), &options).unwrap();
    assert!(read(&opened, &owner(b"a")) == first);
    // Whoever is built aside next does not meet what was left.
    merge(&opened, &target, &first, &other, 3).unwrap();
    drop(opened);
    let database = redb::Database::builder().create_with_backend(found);
    assert_eq!(rows_of(&database.unwrap()), keys(&[&other]) + 1);
}

const CHILD: &str = "REINSTATE_TEST_KILLED_PROCESS";

#[test]
fn a_killed_process_leaves_every_tenant_whole() {
    let states = [many(5_000, 1), many(5_500, 2)];
    if let Some(path) = std::env::var_os(CHILD) {
        merge_until_killed(Path::new(&path), &states);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = create(&path, Way::Aside);
    let other = many(100, 3);
    merge(&store, &tenant(b"a"), &State::new(), &states[0], 0).unwrap();
    merge(&store, &tenant(b"b"), &State::new(), &other, 0).unwrap();
    drop(store);
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "crash::a_killed_process_leaves_every_tenant_whole",
            ])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let started = lines
            .map_while(Result::ok)
            .any(|line| line.contains("merging"));
        assert!(started, "the other process merges");
        thread::sleep(Duration::from_millis(17 * round));
        if round % 3 == 0 {
            // A process that merely sleeps keeps the store, and can go on: nobody comes in between.
            let stop = ["-STOP".to_owned(), child.id().to_string()];
            assert!(Command::new("kill").args(stop).status().unwrap().success());
            let refused = EmbeddedStore::open(&path, &Way::Aside.options()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Locked, "{refused}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let store = EmbeddedStore::open(&path, &Way::Aside.options()).unwrap();
        let found = read(&store, &owner(b"a"));
        assert!(states.contains(&found), "neither of the two states");
        assert!(read(&store, &owner(b"b")) == other);
        drop(store);
        assert_eq!(rows_in_file(&path), keys(&[&found, &other]));
    }
}

/// Merges one state and then the other into the tenant, and again.
fn merge_until_killed(path: &Path, states: &[State; 2]) -> ! {
    let store = EmbeddedStore::open(path, &Way::Aside.options()).unwrap();
    let mut current = usize::from(read(&store, &owner(b"a")) == states[1]);
    println!("merging");
    for job in 0.. {
        let (before, after) = (&states[current], &states[1 - current]);
        merge(&store, &tenant(b"a"), before, after, job).unwrap();
        current = 1 - current;
    }
    unreachable!("the parent kills this process long before")
}
