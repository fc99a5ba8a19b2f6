//! The engine's error: what the caller can do about it, what happened, and why.

use std::error::Error as StdError;
use std::io;

use reinstate_core::{ErrorKind, RepositoryError, StoreError};
use reinstate_format::FormatError;

/// An error of the engine. Nothing was half-written to any store.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the caller can do about it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn store(operation: impl Into<String>) -> impl FnOnce(StoreError) -> Self {
        let message = operation.into();
        move |source| Self {
            kind: source.kind(),
            message,
            source: Some(Box::new(source)),
        }
    }

    pub(crate) fn repository(operation: impl Into<String>) -> impl FnOnce(RepositoryError) -> Self {
        let message = operation.into();
        move |source| Self {
            kind: source.kind(),
            message,
            source: Some(Box::new(source)),
        }
    }

    pub(crate) fn format(operation: impl Into<String>) -> impl FnOnce(FormatError) -> Self {
        let message = operation.into();
        move |source| Self {
            kind: source.kind(),
            message,
            source: Some(Box::new(source)),
        }
    }

    pub(crate) fn spill(source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
            _ => ErrorKind::Other,
        };
        let message = "sort rows in the spill directory".to_owned();
        Self {
            kind,
            message,
            source: Some(Box::new(source)),
        }
    }

    pub(crate) fn because(kind: ErrorKind, message: impl Into<String>, source: Self) -> Self {
        Self {
            kind,
            message: message.into(),
            source: Some(Box::new(source)),
        }
    }

    pub(crate) fn altered(message: impl Into<String>, source: FormatError) -> Self {
        let kind = ErrorKind::Altered;
        Self {
            kind,
            message: message.into(),
            source: Some(Box::new(source)),
        }
    }

    /// As an error of a port, for streams that hand the engine's rows to a store.
    pub(crate) fn into_store_error(self) -> StoreError {
        StoreError::new(self.kind, self.message.clone()).because(self)
    }
}
