//! Reading a feed.
//!
//! The server streams; what it sent waits until it is certain
//! that no table changed before it, and is handed over then. A transaction that is longer goes to
//! the sink change by change, and the look at the tables comes before its commit.
//!
//! *Consistency*: the log tells of a commit before other sessions see it. So the look at the tables
//! counts only if it sees every transaction that waits, and that nothing came beyond them is only
//! said when nobody was altering a table.

use std::fmt;
use std::mem;
use std::thread;
use std::time::Duration;

use reinstate_core::{
    Change, ChangeFeed, ChangeSink, Commit, ErrorKind, FeedProgress, Position, PositionNotation,
    StoreError, StoreSchema, Timestamp,
};

use super::facts::{Facts, altering, read_facts};
use super::incoming::{Incoming, Pause, log_end};
use super::message::{Message, RowChange, Tuples, parse};
use super::relations::{Followed, Relations, RowMaker, stale};
use super::slots::{Slot, find_slot, position};
use crate::session::Session;
use crate::settings::ConnectionSettings;
use crate::snapshot::{Access, begin};
use crate::tenancy::TenancyMap;

/// How long to wait for transactions to be seen, and between two looks.
const LOOKS_MAX: u32 = 500;
const PAUSE: Duration = Duration::from_millis(10);
/// How many looks an alteration that is under way is waited for.
const ALTERING_LOOKS_MAX: u32 = 4;

/// A slot that is being read.
pub(super) struct PostgresFeed {
    session: Session,
    incoming: Incoming,
    settings: ConnectionSettings,
    map: TenancyMap,
    schema: StoreSchema,
    relations: Relations,
    slot: Slot,
    /// The tables as they were when the feed was resumed.
    facts: Facts,
    /// Everything up to here was handed over.
    through: u64,
    row: Transaction,
    is_over: bool,
}

/// The change that is being handed over, and whether its transaction is left out.
#[derive(Debug, Default)]
struct Transaction {
    tuples: Tuples,
    before: RowMaker,
    after: RowMaker,
    is_known: bool,
    /// Whether the sink has changes without their commit.
    is_open: bool,
}

impl PostgresFeed {
    /// Starts to read a slot.
    ///
    /// # Errors
    /// As [`reinstate_core::FeedSource::resume_feed`].
    pub(super) fn open(
        settings: &ConnectionSettings,
        map: &TenancyMap,
        session: Session,
        slot: Slot,
        after: Position,
    ) -> Result<Self, StoreError> {
        check_reached(&session, after)?;
        let catalog = begin(&session, map, Access::ReadOnly)?.catalog;
        let facts = read_facts(&session, map)?;
        let relations = Relations::read(&session, &catalog)?;
        session.roll_back();
        let incoming = Incoming::start(settings, map, &session, &slot, after)?;
        Ok(Self {
            session,
            incoming,
            settings: settings.clone(),
            map: map.clone(),
            schema: catalog.schema,
            relations,
            facts,
            through: after.commit,
            row: Transaction::default(),
            is_over: false,
            slot,
        })
    }

    /// Goes on after the connection was lost, which is what happens to whoever does not listen for a
    /// while.
    fn reconnect(&mut self) -> Result<(), StoreError> {
        let after = position(self.through);
        self.incoming =
            Incoming::start(&self.settings, &self.map, &self.session, &self.slot, after)?;
        Ok(())
    }

    /// Sees that the tables are what they were, after everything that waits. Whether that is
    /// certain for everything that was committed by now.
    fn certify(&self, transactions: &[u32]) -> Result<bool, StoreError> {
        let mut look = 0;
        loop {
            let altering = altering(&self.session)?;
            let facts = read_facts(&self.session, &self.map)?;
            if facts.digest() != self.slot.digest {
                return Err(self.changed(&facts));
            }
            // What is in the log is seen after this long, unless it waits for a standby.
            let is_late =
                look >= ALTERING_LOOKS_MAX && (transactions.is_empty() || !altering.is_committing);
            if facts.see(transactions) && (!altering.is_somebody || is_late) {
                return Ok(!altering.is_somebody);
            }
            if look == LOOKS_MAX {
                let message = "follow the log: a transaction is in the server's log and not yet \
                     committed for others: it waits for a standby (synchronous_standby_names)";
                return Err(StoreError::new(ErrorKind::Contended, message));
            }
            look += 1;
            thread::sleep(PAUSE);
        }
    }

    fn changed(&self, facts: &Facts) -> StoreError {
        let names = facts.changed_since(&self.facts);
        if let Err(error) = begin(&self.session, &self.map, Access::ReadOnly)
            && error.kind() == ErrorKind::Unclassified
        {
            return error;
        }
        self.session.roll_back();
        if names.is_empty() {
            let what = "tables, types or the publication were altered since the snapshot was taken";
            return stale(what);
        }
        stale(&format!("tables were altered: {}", names.join(", ")))
    }

    /// Hands over the whole transactions that wait, and takes note of them.
    fn hand_over(&mut self, sink: &mut dyn ChangeSink) -> Result<(), StoreError> {
        if self.incoming.waiting.whole == 0 {
            return Ok(());
        }
        self.certify(&self.incoming.waiting.transactions)?;
        for message in self.incoming.waiting.take_whole() {
            self.apply(&message, sink)?;
        }
        Ok(())
    }

    /// Hands over a transaction as it comes.
    fn stream_long(&mut self, sink: &mut dyn ChangeSink) -> Result<(), StoreError> {
        let transaction = self.incoming.waiting.open.take();
        let transaction = transaction.expect("BUG: no transaction is long");
        for message in mem::take(&mut self.incoming.waiting.messages) {
            self.apply(&message, sink)?;
        }
        loop {
            let message = self.incoming.next_of_long()?;
            let is_end = message.first() == Some(&b'C');
            if is_end {
                self.certify(&[transaction])?;
            }
            self.apply(&message, sink)?;
            if is_end {
                return Ok(());
            }
        }
    }

    fn apply(&mut self, message: &[u8], sink: &mut dyn ChangeSink) -> Result<(), StoreError> {
        self.incoming.taken(message)?;
        let Transaction {
            tuples,
            is_known,
            is_open,
            ..
        } = &mut self.row;
        match parse(message, tuples)? {
            Message::Begin { commit, .. } => *is_known = commit < self.through,
            Message::Commit { end, micros } => {
                if !*is_known {
                    sink.commit(Commit {
                        position: position(end),
                        time: Timestamp::from_micros(micros),
                    })?;
                    *is_open = false;
                    self.through = end;
                }
            }
            Message::Relation(relation) => self.relations.check(&relation)?,
            Message::Row { .. } | Message::Truncate { .. } if *is_known => {}
            Message::Truncate { relations } => {
                *is_open = true;
                for table in self.relations.emptied(&self.schema, &relations)? {
                    sink.change(Change::Truncate { table })?;
                }
            }
            Message::Row { relation, change } => {
                *is_open = true;
                let relation = self.relations.get(relation)?;
                self.row
                    .hand_over(&self.schema, relation, change, message, sink)?;
            }
            Message::Other => {}
        }
        Ok(())
    }

    fn read_on(
        &mut self,
        bytes_target: u64,
        sink: &mut dyn ChangeSink,
    ) -> Result<FeedProgress, StoreError> {
        let mut taken = 0;
        loop {
            let wanted = bytes_target.saturating_sub(taken).max(1);
            let pause = self.incoming.gather(&self.session, wanted)?;
            self.hand_over(sink)?;
            if matches!(pause, Pause::Long) {
                self.stream_long(sink)?;
            }
            taken += mem::take(&mut self.incoming.waiting.bytes);
            if let Pause::Idle(sent) = pause {
                if sent > self.through && self.certify(&[])? {
                    self.through = sent;
                }
                return Ok(self.progress(false));
            }
            if taken >= bytes_target {
                return Ok(self.progress(true));
            }
        }
    }

    const fn progress(&self, has_more: bool) -> FeedProgress {
        FeedProgress {
            through: position(self.through),
            has_more,
        }
    }

    /// What an error of the stream means for the feed.
    fn explain(&self, error: StoreError) -> StoreError {
        if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Other) {
            return error;
        }
        let lost = find_slot(&self.session, self.slot.snapshot).map(|slot| slot.lost);
        match lost {
            Ok(Some(reason)) => {
                let message = format!(
                    "follow snapshot {}: {reason}. What was committed after {} is in no log: take \
                     a new snapshot",
                    self.slot.snapshot,
                    position(self.through).display(PositionNotation::Lsn)
                );
                StoreError::new(ErrorKind::NotRecoverable, message).because(error)
            }
            Err(missing) if missing.kind() == ErrorKind::NotFound => missing.because(error),
            _ => match read_facts(&self.session, &self.map) {
                Ok(facts) if facts.digest() != self.slot.digest => self.changed(&facts),
                _ => error,
            },
        }
    }
}

impl Transaction {
    /// Hands over the change whose tuples were read last.
    fn hand_over(
        &mut self,
        schema: &StoreSchema,
        relation: &Followed,
        change: RowChange,
        message: &[u8],
        sink: &mut dyn ChangeSink,
    ) -> Result<(), StoreError> {
        let table = relation.table;
        let (old, new) = (&self.tuples.old, &self.tuples.new);
        if old.is_empty() && change != RowChange::Insert && !relation.is_without_columns() {
            let name = &schema.table(table).name;
            return Err(stale(&format!(
                "an old row of table {name} is not told whole (REPLICA IDENTITY FULL)"
            )));
        }
        sink.change(match change {
            RowChange::Insert => Change::Insert {
                table,
                row: self.after.make(relation, message, new, &[])?,
            },
            RowChange::Update => Change::Update {
                table,
                before: self.before.make(relation, message, old, &[])?,
                after: self.after.make(relation, message, new, old)?,
            },
            RowChange::Delete => Change::Delete {
                table,
                before: self.before.make(relation, message, old, &[])?,
            },
        })
    }
}

impl fmt::Debug for PostgresFeed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PostgresFeed")
            .field("slot", &self.slot.name)
            .field("through", &self.through)
            .finish_non_exhaustive()
    }
}

impl ChangeFeed for PostgresFeed {
    fn schema(&self) -> &StoreSchema {
        &self.schema
    }

    fn read(
        &mut self,
        bytes_target: u64,
        sink: &mut dyn ChangeSink,
    ) -> Result<FeedProgress, StoreError> {
        if self.is_over {
            let message = "follow the log: this feed ended with an error; resume it";
            return Err(StoreError::new(ErrorKind::Other, message));
        }
        let mut read = self.read_on(bytes_target, sink);
        if let Err(error) = &read
            && error.kind() == ErrorKind::Unavailable
            && !self.row.is_open
            && self.reconnect().is_ok()
        {
            read = self.read_on(bytes_target, sink);
        }
        read.map_err(|error| {
            self.is_over = true;
            // Nobody listens any more, and a server that shuts down would wait for it.
            self.incoming.close();
            self.explain(error)
        })
    }

    fn acknowledge(&mut self, position: Position) -> Result<(), StoreError> {
        if position.commit > self.through {
            let message = format!(
                "acknowledge {}: only what is before {} was handed over",
                position.display(PositionNotation::Lsn),
                self.progress(false).through.display(PositionNotation::Lsn)
            );
            return Err(StoreError::new(ErrorKind::Usage, message));
        }
        self.incoming.acknowledge(position.commit)
    }

    fn mark(&mut self) -> Result<(), StoreError> {
        let sql = "SELECT pg_logical_emit_message(true, 'reinstate', '')::text";
        self.session.row("commit a mark", sql, &[]).map(drop)
    }
}

/// Refuses a position that the server's log does not reach: it is of another server's history.
fn check_reached(session: &Session, after: Position) -> Result<(), StoreError> {
    let end = log_end(session)?.at;
    if after.commit <= end {
        return Ok(());
    }
    let message = format!(
        "asked for what was committed after {}, but the server's log ends at {}: it is not the \
         server, or not the history, that was followed",
        after.display(PositionNotation::Lsn),
        position(end).display(PositionNotation::Lsn)
    );
    Err(StoreError::new(ErrorKind::NotRecoverable, message))
}
