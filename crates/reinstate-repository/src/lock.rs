//! Being the only one.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use reinstate_core::{ErrorKind, RepositoryError};

use crate::draft::FILE_MODE;
use crate::failure::failure;

/// The longest note on who holds a lock.
const NOTE_BYTES_MAX: u64 = 64;

/// Holds a lock until it is dropped or its process ends, however it ends.
#[derive(Debug)]
pub struct RepositoryLock {
    _file: File,
}

impl RepositoryLock {
    pub(crate) fn take(path: &Path, name: &str) -> Result<Self, RepositoryError> {
        let operation = format!("lock {name}");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)
            .map_err(|error| failure(&operation, path, error))?;
        match file.try_lock() {
            Ok(()) => {
                // For whoever comes next and wonders; the lock holds without it.
                let note = format!("process {}\n", std::process::id());
                let _ = file
                    .set_len(0)
                    .and_then(|()| file.write_all(note.as_bytes()));
                Ok(Self { _file: file })
            }
            Err(TryLockError::WouldBlock) => Err(held(&operation, path, &file)),
            Err(TryLockError::Error(error)) => Err(failure(&operation, path, error)),
        }
    }
}

fn held(operation: &str, path: &Path, file: &File) -> RepositoryError {
    let mut note = String::new();
    let _ = file.take(NOTE_BYTES_MAX).read_to_string(&mut note);
    let holder = match note.trim() {
        "" => "somebody else",
        holder => holder,
    };
    let message = format!("{operation}: {}: {holder} holds it", path.display());
    RepositoryError::new(ErrorKind::Locked, message)
}
