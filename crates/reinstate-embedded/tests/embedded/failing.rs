//! Storage without room, or that fails while it syncs.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use reinstate_core::ErrorKind;
use reinstate_embedded::EmbeddedStore;

use crate::merges::{keys, rows_in_file, rows_of};
use crate::storage::Disk;
use crate::support::{
    ISSUES, State, Way, create, identity, kind, many, merge, owner, put, read, row, schema, tenant,
};

/// Runs `work` with room for one operation, then for two, until it succeeds. After each try the
/// store is opened again with room enough. Returns the kinds of errors.
fn with_ever_more_room(
    disk: &Disk,
    way: Way,
    [before, after]: [&State; 2],
    work: impl Fn(&EmbeddedStore) -> Result<(), reinstate_core::StoreError>,
) -> BTreeSet<String> {
    let mut kinds = BTreeSet::new();
    for room in 0.. {
        let disk = disk.copy();
        let store = EmbeddedStore::open_on(disk.clone(), &way.options()).unwrap();
        disk.fail_at(Some(room));
        let result = work(&store);
        drop(store);
        disk.fail_at(None);
        let store = EmbeddedStore::open_on(disk.clone(), &way.options()).unwrap();
        let found = read(&store, &owner(b"a"));
        drop(store);
        let database = redb::Database::builder().create_with_backend(disk).unwrap();
        assert_eq!(rows_of(&database), keys(&[&found]), "room for {room}");
        let Err(error) = result else {
            assert!(&found == after, "room for {room}");
            return kinds;
        };
        kinds.insert(format!("{:?}", error.kind()));
        match error.kind() {
            ErrorKind::OutcomeUnknown => assert!([before, after].contains(&&found)),
            _ => assert!(&found == before, "room for {room}: {error}"),
        }
    }
    unreachable!("it never succeeds")
}

fn disk_with(state: &State) -> Disk {
    let disk = Disk::default();
    let store = EmbeddedStore::create_on(disk.clone(), identity(), kind(), schema()).unwrap();
    merge(&store, &tenant(b"a"), &State::new(), state, 1).unwrap();
    drop(store);
    disk
}

#[test]
fn a_merge_without_room_leaves_the_tenant_as_it_was_and_says_so() {
    let (first, second) = (many(60, 1), many(900, 2));
    for way in [Way::InPlace, Way::Aside] {
        let kinds = with_ever_more_room(&disk_with(&first), way, [&first, &second], |store| {
            merge(store, &tenant(b"a"), &first, &second, 2).map(drop)
        });
        assert!(kinds.contains("Full"), "{way:?}: {kinds:?}");
        assert!(kinds.contains("OutcomeUnknown"), "{way:?}: {kinds:?}");
        assert!(kinds.len() == 2, "{way:?}: {kinds:?}");
    }
}

#[test]
fn an_application_without_room_has_written_nothing() {
    let first = many(60, 1);
    let added = row(ISSUES, 999, Some("added"));
    let mut second = first.clone();
    put(&mut second, ISSUES, added.row());
    let states = [&first, &second];
    let kinds = with_ever_more_room(&disk_with(&first), Way::InPlace, states, |store| {
        store.write(|transaction| transaction.table(ISSUES)?.put(&owner(b"a"), added.row()))
    });
    assert!(kinds.contains("OutcomeUnknown"), "{kinds:?}");
}

const CHILD: &str = "REINSTATE_TEST_FULL_DISK";

/// The same with a real file, whose size the operating system limits for one process.
#[test]
fn a_file_that_may_not_grow_is_a_full_disk() {
    let (first, second) = (many(100, 1), many(20_000, 2));
    if let Some(path) = std::env::var_os(CHILD) {
        let store = EmbeddedStore::open(Path::new(&path), &Way::Aside.options()).unwrap();
        let error = merge(&store, &tenant(b"a"), &first, &second, 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        println!("the disk is full");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = create(&path, Way::Aside);
    merge(&store, &tenant(b"a"), &State::new(), &first, 1).unwrap();
    drop(store);
    // 1 MiB: the shell counts in half kilobytes. Without the trap the signal would kill the child.
    let limited = "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", limited])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--nocapture",
            "failing::a_file_that_may_not_grow_is_a_full_disk",
        ])
        .env(CHILD, &path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("the disk is full"), "{output:?}");
    let store = EmbeddedStore::open(&path, &Way::Aside.options()).unwrap();
    assert!(read(&store, &owner(b"a")) == first);
    drop(store);
    assert_eq!(rows_in_file(&path), keys(&[&first]));
}
