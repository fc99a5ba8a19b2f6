//! Merge: one tenant's changes in one transaction.
//!
//! Every statement that writes into a live table names the tenant: a row of somebody else is
//! neither deleted nor updated nor created, and the number of rows that each statement touched must
//! be the number that was sent. Rows go into temporary tables first and are taken over from there;
//! only rows to create, in a table that holds the tenant itself and has no triggers, are copied
//! straight into it, by a COPY whose condition lets the tenant's rows in and nobody else's. Where a
//! parent says whose they are, and the table's guard is armed, they are copied without a condition: the
//! guard asks at the end of the statement, and the merge before it commits.
//! The second line is the server's own count of what the transaction changed, cascades and
//! triggers included, which [`TenantWriter::apply`] returns. See decision record 0004.
//!
//! *Consistency*: the transaction runs under REPEATABLE READ. The tenant's fingerprint is read in
//! it, so that whoever changes a row in between makes the merge fail, not the other way round;
//! and once more, by another connection, right before the commit, since rows that were added in
//! between stand in nobody's way. What is added between that look and the commit is found by
//! whoever verifies afterwards.
//!
//! *Crash consistency*: everything, the journal's entry included, is one transaction of the
//! server. Only sequences are outside: they may stay raised when nothing else was committed.

mod apply;
mod counts;
mod cycles;
mod fenced;
mod guards;
mod keepers;
mod mark;
mod moving;
mod sequences;
mod shared;
mod staging;
mod statements;
mod suspects;

use std::fmt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use reinstate_core::{
    ChangeCounts, ChangeSource, Committed, ErrorKind, Fingerprint, JournalEntry, Position,
    RowStream, StoreError, StoreSchema, TableIndex, TableName, TenantId, TenantWriter,
};

use tokio_postgres::types::Type;

use crate::catalog::{Catalog, get};
use crate::connections::{Connections, Reader};
use crate::fingerprint::Versions;
use crate::journal;
use crate::own_keys::OwnKeys;
use crate::rows::TenantRows;
use crate::session::CommitOutcome;
use crate::snapshot::{Access, begin_and, settle};
use crate::state::{Ahead, StateQuestion};
use crate::tenancy::TenancyMap;

use counts::Written;
use mark::CommitMark;
use sequences::RestoredValues;
use shared::SharedRows;

pub(crate) use apply::{quiet_obstacles, together_obstacles};
pub(crate) use fenced::{MergeSession, PostgresFence};
pub(crate) use mark::count_foreign_rows;
pub(crate) use moving::{can_move, making_anew, obstacle};
pub(crate) use sequences::{AT_END, find_own_sequence, is_at_end};
pub(crate) use shared::shared_creation;

/// How long the look before the commit waits for a lock at most. All tables are locked against whoever could keep it
/// from reading, but for the time that an index is rebuilt.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(1);

/// One open transaction on one tenant.
pub(crate) struct PostgresWriter<'s> {
    session: MergeSession<'s>,
    connections: &'s Arc<Connections>,
    map: &'s TenancyMap,
    catalog: Arc<Catalog>,
    tenant: TenantId,
    state: StateQuestion,
    fingerprint: Fingerprint,
    /// What sequences must have handed out at least.
    restored: RestoredValues,
    written: Written,
    /// The keys of rows that were read back.
    keys: OwnKeys,
    /// Their versions.
    versions: Versions,
    /// The number of the transaction, once it wrote.
    transaction: Option<u64>,
    /// Rows created for everybody, by table.
    shared: Vec<(u32, u64)>,
    /// The connection for the look before the commit, made while the rows are sent.
    other: Option<JoinHandle<Result<Reader, StoreError>>>,
    is_open: bool,
}

impl<'s> PostgresWriter<'s> {
    /// Begins the transaction, with the tenant locked and in the expected state.
    ///
    /// # Errors
    /// `Locked` if another run holds the tenant; `Stale` if the tenant or the tables are not as
    /// expected; `Refused` if the server cannot count changes or the role may not write.
    pub(crate) fn open(
        session: MergeSession<'s>,
        connections: &'s Arc<Connections>,
        map: &'s TenancyMap,
        tenant: &TenantId,
        expected: &Fingerprint,
        schema: &StoreSchema,
    ) -> Result<Self, StoreError> {
        guards::check_session(&session, connections.settings())?;
        // Before the transaction takes its snapshot: whoever held the lease until now, or wrote to the
        // tenant, may have committed after a snapshot taken earlier.
        session.take(map, tenant)?;
        let ahead = || Ahead::guess(connections, &session, tenant);
        let (moment, ahead) = begin_and(
            &session,
            map,
            Access::ReadWrite,
            Some(connections.catalog()),
            ahead,
        )
        .inspect_err(|_| {
            session.roll_back();
            session.let_go(tenant);
        })?;
        let state = StateQuestion::new(map, &moment.catalog, tenant).inspect_err(|_| {
            session.roll_back();
            session.let_go(tenant);
        })?;
        connections.will_ask_again(state.clone());
        let writer = Self {
            session,
            connections,
            map,
            catalog: moment.catalog,
            tenant: tenant.clone(),
            state,
            fingerprint: expected.clone(),
            restored: RestoredValues::default(),
            written: Written::default(),
            keys: OwnKeys::default(),
            versions: Versions::default(),
            transaction: None,
            shared: Vec::new(),
            other: None,
            is_open: true,
        };
        let name = String::from_utf8_lossy(tenant.as_bytes()).into_owned();
        writer.session.row(
            "say which tenant is written",
            "SELECT set_config('reinstate.tenant', $1, true)",
            &[(&name, Type::TEXT)],
        )?;
        if writer.catalog.schema != *schema {
            return Err(writer.stale("the tables changed after the plan was made"));
        }
        let (state, catalog) = (&writer.state, &writer.catalog);
        if state.ask(&writer.session, catalog, ahead)? != *expected {
            return Err(writer.stale("its rows changed after the plan was made"));
        }
        Ok(writer)
    }

    fn stale(&self, fact: &str) -> StoreError {
        let message = format!("write the rows of {}: {fact}. Make a new plan", self.tenant);
        StoreError::new(ErrorKind::Stale, message)
    }

    /// Starts to connect for [`check_unchanged`](Self::check_unchanged).
    fn connect_other(&mut self) {
        let connections = Arc::clone(self.connections);
        // Without a thread the connection is made when it is needed.
        self.other = thread::Builder::new()
            .spawn(move || connections.reader())
            .ok();
    }

    /// Whether everybody else still sees the tenant as the plan expects it.
    fn check_unchanged(&mut self) -> Result<(), StoreError> {
        let connected = self.other.take().and_then(|other| other.join().ok());
        let other = match connected {
            Some(Ok(reader)) => reader,
            // It may have been a moment without a free connection.
            _ => self.connections.reader()?,
        };
        // Only one that waits: another merge may need the connection that would have to be made.
        let second = self
            .state
            .is_shared()
            .then(|| self.connections.idle_reader());
        // Who waits to alter a table waits for this merge, and the other session behind him: nobody would get on.
        let lock_timeout = match self.connections.settings().lock_timeout {
            Duration::ZERO => LOCK_WAIT_MAX,
            timeout => timeout.min(LOCK_WAIT_MAX),
        };
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = {}",
            lock_timeout.as_millis()
        );
        other.begin("look at the tenant again", &begin)?;
        settle(&other, self.map, &self.catalog)?;
        let ahead = match second.flatten() {
            Some(second) => Ahead::start(self.state.clone(), &other, second)?,
            None => None,
        };
        if self.state.ask(&other, &self.catalog, ahead)? == self.fingerprint {
            return Ok(());
        }
        Err(self.stale("somebody wrote to its rows at the same time; nothing was committed"))
    }

    fn position(&self) -> Result<Position, StoreError> {
        let sql = "SELECT (pg_current_wal_insert_lsn() - '0/0')::int8";
        let row = self
            .session
            .row("read the position of the commit", sql, &[])?;
        Ok(Position {
            commit: get::<i64>(&row, 0)?.cast_unsigned(),
            ordinal: 0,
        })
    }
}

impl fmt::Debug for PostgresWriter<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = formatter.debug_struct("PostgresWriter");
        text.field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl TenantWriter for PostgresWriter<'_> {
    fn create_shared(
        &mut self,
        changes: &dyn ChangeSource,
    ) -> Result<Vec<(TableName, u64)>, StoreError> {
        let rows = SharedRows {
            session: &self.session,
            map: self.map,
            catalog: &self.catalog,
            tenant: &self.tenant,
            is_unguarded: self.connections.settings().unguarded,
        };
        let created = rows.create(changes, &mut self.restored)?;
        let by_oid = created
            .iter()
            .map(|(table, rows)| (self.catalog.tables[table.get()].oid, *rows));
        self.shared = by_oid.collect();
        let names = created
            .iter()
            .map(|(table, rows)| (self.catalog.schema.table(*table).name.clone(), *rows));
        Ok(names.collect())
    }

    fn apply(
        &mut self,
        changes: &dyn ChangeSource,
    ) -> Result<Vec<(TableName, ChangeCounts)>, StoreError> {
        if !self.map.sequences.is_empty() {
            sequences::add_own_sequences(
                &self.session,
                self.map,
                Arc::make_mut(&mut self.catalog),
                &self.tenant,
                changes,
            )?;
        }
        guards::check_changes(&self.session, self.map, &self.catalog, changes)?;
        let is_needed = !self.connections.settings().unguarded;
        let guarded = guards::check_guarded(&self.session, &self.catalog, changes, is_needed)?;
        self.connect_other();
        self.keys.forget();
        self.versions.forget();
        self.written = apply::apply(
            &self.session,
            &self.catalog,
            &self.tenant,
            changes,
            &guarded,
            &mut self.restored,
        )?;
        self.transaction = Some(journal::transaction(&self.session)?);
        Ok(self.written.counts())
    }

    fn suspects(&mut self, table: &TableName, changes: &dyn ChangeSource) -> Vec<String> {
        suspects::find(&self.session, &self.catalog, table, changes).unwrap_or_default()
    }

    fn read_back(&mut self, table: TableIndex) -> Result<Box<dyn RowStream + '_>, StoreError> {
        let (catalog, noted) = (&self.catalog, (&self.keys, &self.versions));
        let low = self.transaction.map(mark::row_number);
        let rows = TenantRows::open(&self.session, catalog, table, &self.tenant, noted, low)?;
        Ok(Box::new(rows))
    }

    fn state_read_back(&mut self) -> Option<Fingerprint> {
        let mark = CommitMark::new(self.transaction?, &self.written, &self.shared);
        let is_own = mark.is_all_of_one(&self.catalog, |table| self.versions.own_count(table));
        let state = self.versions.fingerprint(&self.catalog, &self.tenant);
        state.filter(|_| is_own)
    }

    fn commit(mut self: Box<Self>, entry: &JournalEntry) -> Result<Committed, StoreError> {
        let operation = format!("commit the rows of {}", self.tenant);
        let sequences_raised = self.restored.raise(&self.session)?;
        let transaction = journal::transaction(&self.session)?;
        mark::check_copied(
            &self.session,
            (&self.catalog, &self.tenant),
            (&self.written, &self.shared),
            transaction,
            &self.versions,
        )?;
        let mark = CommitMark::new(transaction, &self.written, &self.shared).to_bytes();
        journal::write(&self.session, entry, &mark, &sequences_raised)?;
        self.check_unchanged()?;
        let unknown = |cause: StoreError| {
            let message = format!("{operation}: no answer came; the journal knows");
            StoreError::new(ErrorKind::OutcomeUnknown, message).because(cause)
        };
        match self.session.commit(&operation) {
            CommitOutcome::Committed => self.is_open = false,
            CommitOutcome::Refused(error) => return Err(error),
            CommitOutcome::Unknown(cause) => return Err(unknown(cause)),
        }
        Ok(Committed {
            // Without a position there is no honest answer: the journal tells.
            position: self.position().map_err(unknown)?,
            commit_mark: mark,
            sequences_raised,
        })
    }
}

impl Drop for PostgresWriter<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.session.roll_back();
        }
        // The server would do it by itself when it notices that the connection is gone, which
        // may be later than somebody's next attempt.
        self.session.let_go(&self.tenant);
    }
}
