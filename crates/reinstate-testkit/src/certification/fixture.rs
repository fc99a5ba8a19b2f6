//! What an adapter brings to its certification, and what can be found wrong with it.

use reinstate_core::{LiveStore, StoreError};

use crate::certification::Flavour;
use crate::{ApplicationChange, KeySpace};

/// A live store of the adapter that is being certified, with an application beside it.
///
/// Every property gets a store of its own.
pub trait Fixture: Sync {
    /// An empty store with the tables of [`standard_schema`](crate::certification::standard_schema)
    /// in the profile's flavour, not yet prepared. May panic: without a store there is no test.
    fn create() -> Self
    where
        Self: Sized;

    /// What the store promises where stores may differ.
    fn profile(&self) -> Profile;

    /// The adapter.
    fn store(&self) -> &dyn LiveStore;

    /// Makes an application's changes in one transaction, in this order, without the adapter's
    /// writer: as the application would.
    ///
    /// # Errors
    /// As the store reports it.
    fn application_write(&self, changes: &[ApplicationChange]) -> Result<(), StoreError>;
}

/// What a store promises where stores may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// How its tables name the owner of a row.
    pub flavour: Flavour,
    /// Whose keys must differ from each other.
    pub key_space: KeySpace,
    /// Whether `projects`, `issues` and `comments` have counters named `<table>_id_seq`.
    pub has_counters: bool,
    /// Whether a broken foreign key is refused by the store itself.
    pub checks_references: bool,
}

/// A promise that a store broke.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub(crate) String);

impl Violation {
    /// A broken promise; the text says what should be and what is.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl From<StoreError> for Violation {
    fn from(error: StoreError) -> Self {
        Self(format!("unexpected error {:?}: {error}", error.kind()))
    }
}

/// Returns a [`Violation`] with the text unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::certification::Violation::new(format!($($text)+)));
        }
    };
}

pub(crate) use ensure;
