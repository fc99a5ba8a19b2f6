//! Capture: the whole database at one position, on several connections.
//!
//! The first connection exports its snapshot and the others read in it. Each table is read once,
//! unsorted, by one of them.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use reinstate_core::{
    CaptureView, OwnedRowBatch, OwnedRowStream, Position, SequenceValue, StoreError, StoreSchema,
    TableIndex, Timestamp,
};

use crate::catalog::{get, read_sequences};
use crate::rows::OwnedRows;
use crate::session::Session;
use crate::settings::ConnectionSettings;
use crate::snapshot::{Access, Moment, begin, examine, read_position, settle};
use crate::sql::literal;
use crate::tenancy::TenancyMap;

/// Read-only transactions on one snapshot.
pub(crate) struct PostgresCapture {
    moment: Moment,
    sequences: Vec<SequenceValue>,
    sessions: Vec<Session>,
    /// Places of the sessions that nobody uses.
    idle: Mutex<Vec<usize>>,
    freed: Condvar,
    /// What holds the tables' locks, where the sessions themselves came later.
    _locks: Option<Session>,
}

/// A read-only transaction that sees what an exported snapshot sees.
fn import(settings: &ConnectionSettings, snapshot: &str) -> Result<Session, StoreError> {
    let session = Session::connect(settings)?;
    let import = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY, NOT DEFERRABLE;
         SET TRANSACTION SNAPSHOT {}",
        literal(snapshot)
    );
    session.run("import the snapshot", &import)?;
    Ok(session)
}

impl PostgresCapture {
    pub(crate) fn open(
        settings: &ConnectionSettings,
        map: &TenancyMap,
    ) -> Result<Self, StoreError> {
        let first = Session::connect(settings)?;
        let moment = begin(&first, map, Access::ReadOnly)?;
        let sequences = read_sequences(&first, &moment.catalog)?;
        let lanes = settings.lanes.max(1);
        let mut sessions = vec![first];
        if lanes > 1 {
            let export = "SELECT pg_export_snapshot()";
            let row = sessions[0].row("export the snapshot", export, &[])?;
            let snapshot = get::<String>(&row, 0)?;
            for _ in 1..lanes {
                let session = import(settings, &snapshot)?;
                settle(&session, map, &moment.catalog)?;
                sessions.push(session);
            }
        }
        Ok(Self::new(moment, sequences, sessions, None))
    }

    /// Opens what an exported snapshot sees, whose position is known. `locked` are the tables that
    /// the session `locks` holds, and keeps as long as anything is read. None, if there is a table
    /// besides.
    pub(crate) fn open_at(
        settings: &ConnectionSettings,
        map: &TenancyMap,
        snapshot: &str,
        position: Position,
        (locks, locked): (Session, &HashSet<u32>),
    ) -> Result<Option<Self>, StoreError> {
        let first = import(settings, snapshot)?;
        let (_, taken_at) = read_position(&first)?;
        let Some(catalog) = examine(&first, map, locked, None)? else {
            return Ok(None);
        };
        let sequences = read_sequences(&first, &catalog)?;
        let mut sessions = vec![first];
        for _ in 1..settings.lanes {
            let session = import(settings, snapshot)?;
            settle(&session, map, &catalog)?;
            sessions.push(session);
        }
        let moment = Moment {
            catalog,
            position,
            taken_at,
        };
        Ok(Some(Self::new(moment, sequences, sessions, Some(locks))))
    }

    fn new(
        moment: Moment,
        sequences: Vec<SequenceValue>,
        sessions: Vec<Session>,
        locks: Option<Session>,
    ) -> Self {
        Self {
            moment,
            sequences,
            idle: Mutex::new((0..sessions.len()).collect()),
            sessions,
            freed: Condvar::new(),
            _locks: locks,
        }
    }

    /// A session that sees what the view sees, as long as nobody reads.
    pub(crate) fn session(&self) -> &Session {
        &self.sessions[0]
    }

    fn idle(&self) -> MutexGuard<'_, Vec<usize>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for PostgresCapture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = formatter.debug_struct("PostgresCapture");
        text.field("position", &self.moment.position)
            .finish_non_exhaustive()
    }
}

impl CaptureView for PostgresCapture {
    fn schema(&self) -> &StoreSchema {
        &self.moment.catalog.schema
    }

    fn position(&self) -> Position {
        self.moment.position
    }

    fn taken_at(&self) -> Option<Timestamp> {
        Some(self.moment.taken_at)
    }

    fn sequences(&self) -> &[SequenceValue] {
        &self.sequences
    }

    fn lanes(&self) -> usize {
        self.sessions.len()
    }

    fn table_rows(&self, table: TableIndex) -> Result<Box<dyn OwnedRowStream + '_>, StoreError> {
        // A session can be used by one thread at a time: its place is taken out of the list.
        let mut idle = self.idle();
        let place = loop {
            match idle.pop() {
                Some(place) => break place,
                None => {
                    idle = self
                        .freed
                        .wait(idle)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        };
        drop(idle);
        let lane = Lane {
            capture: self,
            place,
        };
        let rows = OwnedRows::open(&self.sessions[place], &self.moment.catalog, table)?;
        Ok(Box::new(LaneRows { rows, _lane: lane }))
    }
}

/// A session in use; dropping it frees it.
struct Lane<'c> {
    capture: &'c PostgresCapture,
    place: usize,
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        self.capture.idle().push(self.place);
        self.capture.freed.notify_one();
    }
}

/// The rows of one table, on one lane.
struct LaneRows<'c> {
    // Before the lane: the stream ends before somebody else uses the session.
    rows: OwnedRows<'c>,
    _lane: Lane<'c>,
}

impl OwnedRowStream for LaneRows<'_> {
    fn next_batch(&mut self, batch: &mut OwnedRowBatch) -> Result<bool, StoreError> {
        self.rows.next_batch(batch)
    }
}
