//! Connections that one look at a tenant leaves to the next.
//!
//! A new connection costs the server a process that knows nothing of the catalogue yet, which for
//! a small tenant takes longer than its rows. So a session that only read goes back to the store,
//! and the next one that only reads takes it. A merge always makes a new one.
//!
//! **Invariant:** no session that ever wrote, locked a tenant or was left in the middle of an
//! answer comes back.

use std::mem;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use reinstate_core::{ErrorKind, StoreError};

use crate::catalog::KeptCatalog;
use crate::session::Session;
use crate::settings::ConnectionSettings;
use crate::state::StateQuestion;

/// How many sessions wait for the next one to use them.
const IDLE_MAX: usize = 2;

/// How long a session may have waited. Later, something between here and the server may have
/// forgotten the connection without a word to either.
const IDLE_AGE_MAX: Duration = Duration::from_secs(20);

/// How long the server may take to end a session that was let go.
const ENDING_MAX: Duration = Duration::from_secs(1);
/// The wait before it is asked again whether it has a place.
const ENDING_PAUSE: Duration = Duration::from_millis(20);

/// How a store reaches its database.
#[derive(Debug)]
pub(crate) struct Connections {
    settings: ConnectionSettings,
    idle: Mutex<Vec<(Session, Instant)>>,
    asked_before: Mutex<Option<StateQuestion>>,
    catalog: KeptCatalog,
}

impl Connections {
    pub(crate) fn new(settings: ConnectionSettings) -> Self {
        Self {
            settings,
            idle: Mutex::default(),
            asked_before: Mutex::default(),
            catalog: KeptCatalog::default(),
        }
    }

    pub(crate) fn settings(&self) -> &ConnectionSettings {
        &self.settings
    }

    /// The catalogue that was read last.
    pub(crate) fn catalog(&self) -> &KeptCatalog {
        &self.catalog
    }

    /// A session that waited, outside of any transaction.
    fn idle_session(&self) -> Option<Session> {
        loop {
            // The lock is not held while the server is asked.
            let (session, since) = self.idle().pop()?;
            if since.elapsed() < IDLE_AGE_MAX && session.answers(self.settings.connect_timeout) {
                return Some(session);
            }
        }
    }

    /// A session that will only read, and then be left to the next one.
    ///
    /// # Errors
    /// As [`Session::connect`].
    pub(crate) fn reader(self: &Arc<Self>) -> Result<Reader, StoreError> {
        let session = match self.idle_session() {
            Some(session) => session,
            None => Session::connect_for_tenant(&self.settings)?,
        };
        Ok(self.lend(session))
    }

    /// The same, if one waits for use: nobody connects.
    pub(crate) fn idle_reader(self: &Arc<Self>) -> Option<Reader> {
        let session = self.idle_session()?;
        Some(self.lend(session))
    }

    fn lend(self: &Arc<Self>, session: Session) -> Reader {
        Reader {
            session: Some(session),
            connections: Arc::clone(self),
        }
    }

    /// What was last asked for the state of a tenant.
    pub(crate) fn asked_before(&self) -> Option<StateQuestion> {
        let asked = self.asked_before.lock();
        asked.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what is asked for the state of a tenant, which is likely to be asked again.
    pub(crate) fn will_ask_again(&self, question: StateQuestion) {
        let asked = self.asked_before.lock();
        *asked.unwrap_or_else(PoisonError::into_inner) = Some(question);
    }

    /// Connects for what cannot do without. If the server has no place, sessions that wait for use give theirs up.
    ///
    /// # Errors
    /// As `connect` reports it.
    pub(crate) fn make_room<T>(
        &self,
        connect: impl Fn(&ConnectionSettings) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let is_full = |connected: &Result<T, StoreError>| {
            let error = connected.as_ref().err();
            error.is_some_and(|error| error.kind() == ErrorKind::Unavailable)
        };
        let mut connected = connect(&self.settings);
        if !is_full(&connected) {
            return connected;
        }
        let waiting = mem::take(&mut *self.idle());
        if waiting.is_empty() {
            return connected;
        }
        drop(waiting);
        // Their processes may take a moment to end.
        let since = Instant::now();
        while is_full(&connected) && since.elapsed() < ENDING_MAX {
            thread::sleep(ENDING_PAUSE);
            connected = connect(&self.settings);
        }
        connected
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Session, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session that only reads. Dropping it ends its transaction and leaves it to the next one.
pub(crate) struct Reader {
    // None only while it is being dropped.
    session: Option<Session>,
    connections: Arc<Connections>,
}

impl Deref for Reader {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.session
            .as_ref()
            .expect("BUG: a reader without a session")
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        if !session.is_reusable() {
            return;
        }
        let mut idle = self.connections.idle();
        if idle.len() < IDLE_MAX {
            idle.push((session, Instant::now()));
        }
    }
}
