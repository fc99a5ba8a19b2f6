//! Watching a run and stopping it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{ErrorKind, StoreError, Tenant};

/// A stage of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Reading the live store's rows.
    Capture,
    /// Sorting them by tenant and writing segments.
    Write,
    /// Comparing an image with the live tenant.
    Plan,
    /// Writing to the live store.
    Merge,
    /// Reading back and comparing.
    Verify,
}

/// Something that happened. Counts are increments, not totals.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A phase begins; for one tenant, or for the whole store.
    Started {
        /// Which.
        phase: Phase,
        /// Whose, if it is one tenant's.
        tenant: Option<&'a Tenant>,
        /// How many rows it will handle, where that is known.
        rows_expected: Option<u64>,
    },
    /// A phase got on.
    Advanced {
        /// Which.
        phase: Phase,
        /// Rows handled since the last event.
        rows: u64,
        /// Bytes handled since the last event.
        bytes: u64,
    },
    /// A phase is over.
    Finished {
        /// Which.
        phase: Phase,
        /// Whose, if it is one tenant's.
        tenant: Option<&'a Tenant>,
    },
}

/// Is told what happens. Called from several threads; must return soon.
pub trait Observer: Sync {
    /// Something happened.
    fn observe(&self, event: Event<'_>);
}

/// An observer that does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn observe(&self, _event: Event<'_>) {}
}

/// A request to stop, shared by whoever makes it and whoever obeys. Work stops at the next batch
/// of rows, before anything is committed.
#[derive(Clone, Debug, Default)]
pub struct Cancellation(Arc<AtomicBool>);

impl Cancellation {
    /// A handle that nobody has used yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to stop. Cannot be taken back.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Goes on, or stops.
    ///
    /// # Errors
    /// `Cancelled` if somebody asked to stop.
    pub fn check(&self) -> Result<(), StoreError> {
        if self.is_cancelled() {
            Err(StoreError::new(
                ErrorKind::Cancelled,
                "stopped on request; nothing was committed",
            ))
        } else {
            Ok(())
        }
    }
}
