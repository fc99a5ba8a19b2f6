//! What is damaged or not ours is refused by name.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::symlink;
use std::path::Path;

use reinstate_core::{ErrorKind, Repository};
use reinstate_repository::{LocalRepository, RECORD_BYTES_MAX};

use crate::{CREATED_AT, ID, check_error, fixture, object_path, put};

#[test]
fn a_truncated_object_is_corrupt_and_says_where() {
    let fixture = fixture();
    let object = put(&fixture.repository, &[1; 100]);
    let reader = fixture.repository.open_object(object).unwrap();
    let path = object_path(&fixture.repository, object);
    OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(50)
        .unwrap();
    reader.read_exact_at(0, &mut [0; 50]).unwrap();
    let result = reader.read_exact_at(10, &mut [0; 41]);
    check_error(result, ErrorKind::Corrupt, "read 41 bytes at byte 10");
    let result = reader.read_exact_at(10, &mut [0; 41]);
    check_error(result, ErrorKind::Corrupt, &object.to_string());
}

#[test]
fn what_is_not_a_plain_file_is_not_read() {
    let fixture = fixture();
    let object = put(&fixture.repository, b"rows");
    let path = object_path(&fixture.repository, object);
    let aside = fixture.directory.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    let missing = fixture.repository.open_object(object).map(drop);
    check_error(missing, ErrorKind::NotFound, &object.to_string());
    symlink(&aside, &path).unwrap();
    let link = fixture.repository.open_object(object).map(drop);
    check_error(link, ErrorKind::Corrupt, "it is not a file");
    check_error(
        fixture.repository.list_objects(),
        ErrorKind::Corrupt,
        "it is not a file",
    );
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let directory = fixture.repository.open_object(object).map(drop);
    check_error(directory, ErrorKind::Corrupt, "it is not a file");
    check_error(
        fixture.repository.list_objects(),
        ErrorKind::Corrupt,
        "it is not a file",
    );
}

#[test]
fn a_directory_that_is_not_as_it_was_left_is_an_error_and_not_an_empty_list() {
    let check = |damage: &dyn Fn(&Path), fact: &str| {
        let fixture = fixture();
        put(&fixture.repository, b"rows");
        fixture
            .repository
            .publish("snapshot", [1; 16], b"manifest")
            .unwrap();
        damage(fixture.repository.path());
        let objects = fixture.repository.list_objects().map(drop);
        let records = fixture.repository.list("snapshot").map(drop);
        let damaged = if objects.is_err() { objects } else { records };
        check_error(damaged, ErrorKind::Corrupt, fact);
    };
    check(
        &|root| fs::remove_dir_all(root.join("objects")).unwrap(),
        "directory is missing",
    );
    check(
        &|root| fs::remove_dir_all(root.join("objects/17")).unwrap(),
        "objects/17",
    );
    check(
        &|root| fs::write(root.join("objects/17/notes"), b"").unwrap(),
        "objects/17/notes",
    );
    check(
        &|root| fs::write(root.join("objects/notes"), b"").unwrap(),
        "objects/notes",
    );
    let elsewhere = format!("objects/17/{}", "0".repeat(32));
    check(
        &|root| fs::write(root.join(&elsewhere), b"").unwrap(),
        &elsewhere,
    );
    check(
        &|root| fs::remove_dir_all(root.join("records")).unwrap(),
        "directory is missing",
    );
    check(
        &|root| fs::write(root.join("records/snapshot/x"), b"").unwrap(),
        "records/snapshot/x",
    );
}

#[test]
fn a_damaged_header_is_corrupt_and_a_lost_one_is_not_replaced() {
    let fixture = fixture();
    let root = fixture.repository.path().to_path_buf();
    let header = root.join("repository");
    let bytes = fs::read(&header).unwrap();
    let open = || LocalRepository::open(&root).map(drop);
    for damaged in [
        vec![],
        bytes[..20].to_vec(),
        vec![0; 1 << 20],
        [&bytes[..], b"x"].concat(),
    ] {
        fs::write(&header, damaged).unwrap();
        check_error(open(), ErrorKind::Corrupt, "repository");
    }
    fs::remove_file(&header).unwrap();
    check_error(open(), ErrorKind::NotFound, "there is no repository");
    put(&fixture.repository, b"rows");
    check_error(open(), ErrorKind::Corrupt, "the header is missing");
    let init = LocalRepository::init(&root, ID, CREATED_AT).map(drop);
    check_error(init, ErrorKind::Usage, "lost its header");
}

#[test]
fn a_record_longer_than_any_can_be_is_neither_written_nor_read() {
    let fixture = fixture();
    fixture
        .repository
        .publish("snapshot", [1; 16], b"manifest")
        .unwrap();
    let path = format!("records/snapshot/{}", "01".repeat(16));
    let file = OpenOptions::new()
        .write(true)
        .open(fixture.repository.path().join(path))
        .unwrap();
    // Nothing but zeros, which take no room: nobody gets as far as to look at them.
    file.set_len(RECORD_BYTES_MAX as u64 + 1).unwrap();
    let read = fixture.repository.read("snapshot", [1; 16]);
    check_error(read, ErrorKind::Corrupt, "are the most");
    let long = vec![0; RECORD_BYTES_MAX + 1];
    let written = fixture.repository.publish("snapshot", [2; 16], &long);
    check_error(written, ErrorKind::Usage, "are the most");
}
