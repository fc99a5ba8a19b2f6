//! What redb reports, as errors of the port.

use std::io;

use redb::{
    CommitError, CursorError, DatabaseError, Error, SetDurabilityError, StorageError, TableError,
    TransactionError,
};
use reinstate_core::{ErrorKind, StoreError};

/// An error of redb during an operation.
pub(crate) fn store_error(operation: &str, error: impl Into<Error>) -> StoreError {
    let error = error.into();
    let kind = match &error {
        Error::Io(error) => io_kind(error),
        Error::Corrupted(_) => ErrorKind::Corrupt,
        Error::DatabaseAlreadyOpen => ErrorKind::Locked,
        // An earlier write failed: nothing more can be written until the file is opened again.
        Error::PreviousIo | Error::DatabaseClosed => ErrorKind::Unavailable,
        _ => ErrorKind::Other,
    };
    StoreError::new(kind, operation).because(error)
}

fn io_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ErrorKind::Full
        }
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::InvalidData => ErrorKind::Corrupt,
        _ => ErrorKind::Other,
    }
}

/// Says during which operation an error of redb happened.
pub(crate) trait During<T> {
    fn during(self, operation: &str) -> Result<T, StoreError>;
}

macro_rules! during {
    ($($error:ty),+) => {
        $(impl<T> During<T> for Result<T, $error> {
            fn during(self, operation: &str) -> Result<T, StoreError> {
                self.map_err(|error| store_error(operation, error))
            }
        })+
    };
}

during!(
    StorageError,
    TableError,
    TransactionError,
    CommitError,
    CursorError,
    DatabaseError,
    SetDurabilityError
);
