//! Being the only one.

use std::path::Path;

use reinstate_core::{ErrorKind, RepositoryError};

use crate::failure::failure;
use crate::file_system::{FileSystem, OpenMode, StoredFile};

/// The longest note on who holds a lock.
const NOTE_BYTES_MAX: usize = 64;

/// Holds a lock until it is dropped or its process ends, however it ends.
#[derive(Debug)]
pub struct RepositoryLock {
    _file: Box<dyn StoredFile>,
}

impl RepositoryLock {
    pub(crate) fn take(
        files: &dyn FileSystem,
        path: &Path,
        name: &str,
    ) -> Result<Self, RepositoryError> {
        let operation = format!("lock {name}");
        let file = files
            .open(path, OpenMode::OpenOrCreate)
            .map_err(|error| failure(&operation, path, error))?;
        match file.try_lock() {
            Ok(true) => {
                // For whoever comes next and wonders; the lock holds without it.
                let note = format!("process {}\n", std::process::id());
                let _ = file.clear().and_then(|()| file.append(note.as_bytes()));
                Ok(Self { _file: file })
            }
            Ok(false) => Err(held(&operation, path, &*file)),
            Err(error) => Err(failure(&operation, path, error)),
        }
    }
}

fn held(operation: &str, path: &Path, file: &dyn StoredFile) -> RepositoryError {
    let mut note = [0; NOTE_BYTES_MAX];
    let length = file.read_at(0, &mut note).unwrap_or(0);
    let holder = match str::from_utf8(&note[..length]).unwrap_or("").trim() {
        "" => "somebody else",
        holder => holder,
    };
    let message = format!("{operation}: {}: {holder} holds it", path.display());
    RepositoryError::new(ErrorKind::Locked, message)
}
