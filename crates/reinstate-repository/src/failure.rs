//! Errors of the operating system as errors of a repository.

use std::fmt::Display;
use std::io;
use std::path::Path;

use reinstate_core::{ErrorKind, RepositoryError};

/// An error that names the operation, the place and what kind of thing happened; the system's own
/// words are its source.
pub(crate) fn failure(operation: impl Display, path: &Path, error: io::Error) -> RepositoryError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ErrorKind::Full
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Refused,
        _ => ErrorKind::Other,
    };
    let message = format!("{operation}: {}: {}", path.display(), error.kind());
    RepositoryError::new(kind, message).because(error)
}

/// An error about something that is not as this program would have left it.
pub(crate) fn corrupt(operation: impl Display, path: &Path, fact: &str) -> RepositoryError {
    let message = format!("{operation}: {}: {fact}", path.display());
    RepositoryError::new(ErrorKind::Corrupt, message)
}
