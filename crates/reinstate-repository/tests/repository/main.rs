//! A local repository keeps what it was given, and refuses what it was not.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod behaviour;
mod damage;
mod operations;
mod sharing;

use std::fs;
use std::path::{Path, PathBuf};

use reinstate_core::{
    ErrorKind, ObjectId, ObjectReader, Repository, RepositoryError, RepositoryId, Timestamp,
};
use reinstate_repository::LocalRepository;
use tempfile::TempDir;

const ID: RepositoryId = RepositoryId::from_bytes(*b"a test's own one");
const CREATED_AT: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

struct Fixture {
    directory: TempDir,
    repository: LocalRepository,
}

fn fixture() -> Fixture {
    let directory = TempDir::new().unwrap();
    let repository = LocalRepository::init(directory.path().join("r"), ID, CREATED_AT).unwrap();
    Fixture {
        directory,
        repository,
    }
}

fn put(repository: &LocalRepository, bytes: &[u8]) -> ObjectId {
    let mut writer = repository.create_object().unwrap();
    writer.write(bytes).unwrap();
    writer.seal().unwrap()
}

fn get(reader: &dyn ObjectReader) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(reader.byte_count()).unwrap()];
    reader.read_exact_at(0, &mut bytes).unwrap();
    bytes
}

fn object_path(repository: &LocalRepository, object: ObjectId) -> PathBuf {
    let name = object.to_string();
    repository
        .path()
        .join("objects")
        .join(&name[..2])
        .join(name)
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

#[track_caller]
fn check_error<T>(result: Result<T, RepositoryError>, kind: ErrorKind, fact: &str) {
    let Err(error) = result else {
        panic!("no error, where {kind:?} was expected")
    };
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(fact), "{error}");
}
