//! Several writers, some of them gone.

use std::fs;
use std::sync::Barrier;
use std::thread;

use reinstate_core::{ErrorKind, Repository, RepositoryId};
use reinstate_repository::LocalRepository;
use tempfile::TempDir;

use crate::{CREATED_AT, check_error, files, fixture, get, object_path, put};

#[test]
fn of_eight_writers_of_one_record_exactly_one_wins() {
    let fixture = fixture();
    for round in 0..8u8 {
        let name = [round; 16];
        let barrier = Barrier::new(8);
        let outcomes: Vec<_> = thread::scope(|scope| {
            let write = |writer: u8| {
                let (repository, barrier) = (&fixture.repository, &barrier);
                move || {
                    barrier.wait();
                    repository.publish("snapshot", name, &[writer; 1000])
                }
            };
            let threads: Vec<_> = (0..8).map(|writer| scope.spawn(write(writer))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let stored = fixture.repository.read("snapshot", name).unwrap();
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        for (writer, outcome) in (0..8u8).zip(outcomes) {
            match outcome {
                Ok(()) => assert_eq!(stored, [writer; 1000]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
            }
        }
    }
    assert!(files(&fixture.repository.path().join("temporary")).is_empty());
}

#[test]
fn an_unfinished_object_is_visible_to_nobody_and_goes_with_its_writer() {
    let fixture = fixture();
    let mut writer = fixture.repository.create_object().unwrap();
    writer.write(&[7; 1_000_000]).unwrap();
    assert_eq!(fixture.repository.list_objects().unwrap(), []);
    // A sweep leaves alone what is being written.
    let swept = fixture.repository.sweep_temporary().unwrap();
    assert_eq!((swept.file_count, swept.kept_count), (0, 1));
    writer.write(b"more").unwrap();
    drop(writer);
    assert!(files(&fixture.repository.path().join("temporary")).is_empty());
}

#[test]
fn a_sweep_takes_what_crashed_writers_left_and_nothing_else() {
    let fixture = fixture();
    let temporary = fixture.repository.path().join("temporary");
    let object = put(&fixture.repository, b"published");
    fs::write(temporary.join("0".repeat(32)), [0; 100]).unwrap();
    // As after a crash between the link and the removal of the temporary name.
    let published = object_path(&fixture.repository, object);
    fs::hard_link(&published, temporary.join(object.to_string())).unwrap();
    let swept = fixture.repository.sweep_temporary().unwrap();
    assert_eq!(
        (swept.file_count, swept.byte_count, swept.kept_count),
        (2, 100, 0)
    );
    assert_eq!(
        get(&*fixture.repository.open_object(object).unwrap()),
        b"published"
    );

    fs::write(temporary.join("1".repeat(32)), b"left over").unwrap();
    fs::write(temporary.join("notes.txt"), b"somebody's").unwrap();
    check_error(
        fixture.repository.sweep_temporary(),
        ErrorKind::Corrupt,
        "notes.txt",
    );
    assert_eq!(files(&temporary).len(), 2);
}

#[test]
fn of_several_who_make_a_repository_at_once_one_does() {
    for _ in 0..5 {
        let directory = TempDir::new().unwrap();
        let root = directory.path().join("r");
        let made: Vec<_> = thread::scope(|scope| {
            let make = |number: u8| {
                let root = &root;
                move || {
                    LocalRepository::init(root, RepositoryId::from_bytes([number; 16]), CREATED_AT)
                }
            };
            let threads: Vec<_> = (0..4).map(|number| scope.spawn(make(number))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let found = LocalRepository::open(&root).unwrap().id();
        let winners: Vec<_> = made
            .into_iter()
            .filter_map(Result::ok)
            .map(|r| r.id())
            .collect();
        assert_eq!(winners, [found]);
    }
}

#[test]
fn a_lock_is_held_by_one_at_a_time() {
    let fixture = fixture();
    let held = fixture
        .repository
        .lock("capture", "process 17 (a test) on here\n\x1b[1m!");
    let held = held.unwrap();
    let again = LocalRepository::open(fixture.repository.path()).unwrap();
    let taken = |name: &str| again.lock(name, "the second").map(drop);
    // As one line, and nothing that a terminal would obey.
    let note = "process 17 (a test) on here[1m!";
    check_error(
        taken("capture"),
        ErrorKind::Locked,
        &format!("{note} holds it"),
    );
    assert_eq!(again.lock_note("capture").unwrap(), note);
    taken("something-else").unwrap();
    // Reading and writing objects and records need no lock.
    let object = put(&again, b"rows");
    assert_eq!(get(&*again.open_object(object).unwrap()), b"rows");
    drop(held);
    // Who let go of it is not taken for whoever comes next.
    assert_eq!(again.lock_note("capture").unwrap(), "");
    taken("capture").unwrap();
    let long = again.lock("capture", &"x".repeat(1000)).unwrap();
    assert_eq!(again.lock_note("capture").unwrap().len(), 256);
    drop(long);
    check_error(taken("../x"), ErrorKind::Usage, "name of a lock");
}
