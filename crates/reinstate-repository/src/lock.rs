//! Being the only one.

use std::path::Path;

use reinstate_core::{ErrorKind, RepositoryError};

use crate::failure::failure;
use crate::file_system::{FileSystem, OpenMode, StoredFile};

/// The longest note on who holds a lock.
const NOTE_BYTES_MAX: usize = 256;

/// Holds a lock until it is dropped or its process ends, however it ends.
#[derive(Debug)]
pub struct RepositoryLock {
    file: Box<dyn StoredFile>,
}

impl RepositoryLock {
    pub(crate) fn take(
        files: &dyn FileSystem,
        path: &Path,
        name: &str,
        note: &str,
    ) -> Result<Self, RepositoryError> {
        let operation = format!("lock {name}");
        let file = open(files, path, &operation)?;
        match file.try_lock() {
            Ok(true) => {
                // For whoever comes next and wonders; the lock holds without it.
                let note = &note.as_bytes()[..note.len().min(NOTE_BYTES_MAX)];
                let _ = file.clear().and_then(|()| file.append(note));
                Ok(Self { file })
            }
            Ok(false) => {
                let holder = match read_note(&*file) {
                    note if note.is_empty() => "somebody else".to_owned(),
                    note => note,
                };
                let message = format!("{operation}: {}: {holder} holds it", path.display());
                Err(RepositoryError::new(ErrorKind::Locked, message))
            }
            Err(error) => Err(failure(&operation, path, error)),
        }
    }

    pub(crate) fn note(
        files: &dyn FileSystem,
        path: &Path,
        name: &str,
    ) -> Result<String, RepositoryError> {
        let file = open(files, path, &format!("see who holds lock {name}"))?;
        Ok(read_note(&*file))
    }
}

impl Drop for RepositoryLock {
    fn drop(&mut self) {
        // Nobody is to take it for the note of the next one, who has the lock and did not write yet.
        let _ = self.file.clear();
    }
}

fn open(
    files: &dyn FileSystem,
    path: &Path,
    operation: &str,
) -> Result<Box<dyn StoredFile>, RepositoryError> {
    files
        .open(path, OpenMode::OpenOrCreate)
        .map_err(|error| failure(operation, path, error))
}

/// The note in the file of a lock, as one line without anything that a terminal would obey.
fn read_note(file: &dyn StoredFile) -> String {
    let mut note = [0; NOTE_BYTES_MAX];
    let length = file.read_at(0, &mut note).unwrap_or(0);
    let text = String::from_utf8_lossy(&note[..length]);
    let visible = text.chars().filter(|character| !character.is_control());
    visible.collect::<String>().trim().to_owned()
}
