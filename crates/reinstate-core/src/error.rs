//! What can go wrong at the ports.

use std::error::Error;

/// What the caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request or the configuration is wrong. Correct it.
    Usage,
    /// Tables have no declared owner. Classify each of them.
    Unclassified,
    /// The store refuses, or would hide or change rows. Remove the cause that the message names.
    Refused,
    /// The store cannot be reached, or went away. Nothing was committed. Try again.
    Unavailable,
    /// The live tenant or its tables changed after the plan was made. Make a new plan; the same
    /// one cannot succeed.
    Stale,
    /// The plan is not the one that was made, or not the one that was approved. Make a new one.
    Altered,
    /// No snapshot covers the point in time. Choose another point.
    NotRecoverable,
    /// A row's place is taken, or the store's own rules refuse the rows.
    Conflict,
    /// Somebody else holds the tenant, the store or the repository. Wait, then try again.
    Locked,
    /// Other writers came in the way. Nothing was committed. Try again.
    Contended,
    /// Space ran out. Nothing was committed. Make room, then try again.
    Full,
    /// Bytes are not what was written. Other tenants may still be readable.
    Corrupt,
    /// There is no such thing.
    NotFound,
    /// The commit was sent and no answer came. Read the journal back before anything else.
    OutcomeUnknown,
    /// The caller asked to stop. Nothing was committed.
    Cancelled,
    /// Rows were committed but could not be read back, or their receipt could not be kept. The same
    /// command again finds the commit and does the rest.
    Unverified,
    /// Anything else, as the operating system or the store reported it.
    Other,
}

/// An error of a live store.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// An error of a repository.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct RepositoryError {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

macro_rules! kinded_error {
    ($name:ident) => {
        impl $name {
            /// An error of this kind. The message says the operation, the object and the fact.
            #[must_use]
            pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
                Self {
                    kind,
                    message: message.into(),
                    source: None,
                }
            }

            /// The same error with what caused it.
            #[must_use]
            pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
                self.source = Some(source.into());
                self
            }

            /// What the caller can do about it.
            #[must_use]
            pub const fn kind(&self) -> ErrorKind {
                self.kind
            }
        }
    };
}

kinded_error!(StoreError);
kinded_error!(RepositoryError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_at_the_end_of_the_chain() {
        let error = StoreError::new(ErrorKind::Unavailable, "read orders: connection lost")
            .because(std::io::Error::other("reset by peer"));
        assert_eq!(error.to_string(), "read orders: connection lost");
        assert_eq!(
            error.source().map(ToString::to_string).as_deref(),
            Some("reset by peer")
        );
    }
}
