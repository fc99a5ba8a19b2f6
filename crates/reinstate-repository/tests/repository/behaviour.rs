//! What a repository and a file promise to whoever uses them alone.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use reinstate_core::{ErrorKind, ObjectWriter, Repository, RepositoryId};
use reinstate_repository::{LocalRepository, create_file, open_file};

use crate::{CREATED_AT, ID, check_error, files, fixture, get, object_path, put};

#[test]
fn nobody_but_the_owner_may_read_anything() {
    let fixture = fixture();
    let object = put(&fixture.repository, b"rows");
    fixture
        .repository
        .publish("snapshot", [1; 16], b"manifest")
        .unwrap();
    let _lock = fixture.repository.lock("capture", "this test").unwrap();
    let root = fixture.repository.path();
    let files = files(root);
    assert_eq!(files.len(), 4, "{files:?}");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    for file in &files {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    let shard = object_path(&fixture.repository, object);
    for directory in [
        root,
        &root.join("records/snapshot"),
        shard.parent().unwrap(),
    ] {
        assert_eq!(mode(directory), 0o700, "{}", directory.display());
    }
}

#[test]
fn a_kind_of_which_nothing_was_published_has_no_records() {
    let fixture = fixture();
    assert_eq!(fixture.repository.list("snapshot").unwrap(), [[0u8; 16]; 0]);
    check_error(
        fixture.repository.read("snapshot", [1; 16]),
        ErrorKind::NotFound,
        "snapshot",
    );
    check_error(
        fixture.repository.read("../x", [1; 16]),
        ErrorKind::Usage,
        "../x",
    );
    check_error(
        fixture.repository.publish("", [1; 16], b""),
        ErrorKind::Usage,
        "kind of records",
    );
}

#[test]
fn a_repository_is_found_where_it_was_made_and_nowhere_else() {
    let fixture = fixture();
    let root = fixture.repository.path().to_path_buf();
    let opened = LocalRepository::open(&root).unwrap();
    assert_eq!((opened.id(), opened.created_at()), (ID, CREATED_AT));
    let other = RepositoryId::from_bytes([9; 16]);
    let again = LocalRepository::init(&root, other, CREATED_AT).map(drop);
    check_error(again, ErrorKind::Usage, "already");
    let above = LocalRepository::init(fixture.directory.path(), other, CREATED_AT).map(drop);
    check_error(above, ErrorKind::Usage, "not empty");
    let open = |path: &Path| LocalRepository::open(path).map(drop);
    check_error(
        open(fixture.directory.path()),
        ErrorKind::NotFound,
        "there is no repository",
    );
    let nowhere = fixture.directory.path().join("nowhere");
    check_error(
        open(&nowhere),
        ErrorKind::NotFound,
        "there is no repository",
    );
    check_error(
        open(&root.join("repository")),
        ErrorKind::NotFound,
        "there is no repository",
    );
    assert_eq!(LocalRepository::open(&root).unwrap().id(), ID);
}

#[test]
fn a_file_appears_when_it_is_sealed_and_replaces_nothing() {
    let fixture = fixture();
    let directory = fixture.directory.path().join("plans");
    fs::create_dir(&directory).unwrap();
    let path = directory.join("acme.plan");
    let mut first = Box::new(create_file(&path).unwrap());
    let mut second = Box::new(create_file(&path).unwrap());
    first.write(b"the first").unwrap();
    second.write(b"the second").unwrap();
    check_error(open_file(&path).map(drop), ErrorKind::NotFound, "acme.plan");
    first.seal().unwrap();
    check_error(second.seal(), ErrorKind::Usage, "not overwritten");
    check_error(
        create_file(&path).map(drop),
        ErrorKind::Usage,
        "not overwritten",
    );
    let reader = open_file(&path).unwrap();
    assert_eq!(get(&*reader), b"the first");
    assert_eq!(files(&directory), [path.as_path()]);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let object = fixture.repository.adopt(&*reader).unwrap();
    assert_eq!(
        get(&*fixture.repository.open_object(object).unwrap()),
        b"the first"
    );
    check_error(
        open_file(&directory).map(drop),
        ErrorKind::Usage,
        "not a file",
    );
    check_error(
        create_file(Path::new("..")).map(drop),
        ErrorKind::Usage,
        "names no file",
    );
    let nowhere = directory.join("missing/acme.plan");
    check_error(
        create_file(&nowhere).map(drop),
        ErrorKind::Other,
        "missing/acme.plan",
    );
}

#[test]
fn adopting_what_is_shorter_than_it_says_publishes_nothing() {
    let fixture = fixture();
    let path = fixture.directory.path().join("short.plan");
    fs::write(&path, vec![3; 3 << 20]).unwrap();
    let reader = open_file(&path).unwrap();
    let object = fixture.repository.adopt(&*reader).unwrap();
    assert_eq!(
        fixture.repository.open_object(object).unwrap().byte_count(),
        3 << 20
    );
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(2 << 20)
        .unwrap();
    check_error(
        fixture.repository.adopt(&*reader),
        ErrorKind::Corrupt,
        "short.plan",
    );
    assert_eq!(fixture.repository.list_objects().unwrap(), [object]);
    assert!(files(&fixture.repository.path().join("temporary")).is_empty());
}

#[test]
fn a_repository_whose_parent_is_missing_is_not_made() {
    let fixture = fixture();
    let root = fixture.directory.path().join("missing/r");
    let result = LocalRepository::init(&root, ID, CREATED_AT).map(drop);
    check_error(result, ErrorKind::Other, "missing/r");
}
