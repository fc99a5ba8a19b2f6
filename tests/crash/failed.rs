//! What went wrong, whichever part of the program says so.

use std::fmt;

use reinstate::Error;
use reinstate_core::{ErrorKind, RepositoryError, StoreError};

/// An error of any part, with its causes.
#[derive(Clone, Debug)]
pub struct Failed {
    pub kind: ErrorKind,
    message: String,
}

impl Failed {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, message }
    }

    fn with_causes(kind: ErrorKind, error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(source) = cause {
            message.push_str(&format!(": {source}"));
            cause = source.source();
        }
        Self { kind, message }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}: {}", self.kind, self.message)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::with_causes(error.kind(), &error)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::with_causes(error.kind(), &error)
    }
}

impl From<RepositoryError> for Failed {
    fn from(error: RepositoryError) -> Self {
        Self::with_causes(error.kind(), &error)
    }
}
