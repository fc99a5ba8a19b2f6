//! Reading a feed.
//!
//! The server streams; what it sent waits until it is certain
//! that no table changed before it, and is handed over then. A transaction that is longer comes before it
//! is committed, and is handed over at its commit from where it was kept; or, where the server sends it
//! whole, it goes to the sink change by change, and the look at the tables comes before its commit.
//!
//! Where tables changed, the feed goes on with them as they are, if what became of the rows is certain.
//! It does so as late as it can: before the first transaction that shows one of them, or once everything
//! that was committed before is handed over. The tables as they are by now are those of the last look: what
//! earlier looks saw, and was not gone on with, is of no account.
//!
//! *Consistency*: the log tells of a commit before other sessions see it. So the look at the tables
//! counts only if it sees every transaction that waits, and that nothing came beyond them is only
//! said when nobody was altering a table.

use std::collections::BTreeSet;
use std::fmt;
use std::mem;
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use reinstate_core::{
    Change, ChangeFeed, ChangeSink, Commit, ErrorKind, FeedProgress, FeedTables, Position,
    PositionNotation, StoreError, StoreSchema, Timestamp,
};

use super::facts::{Facts, altering, read_facts};
use super::fresh::Fresh;
use super::hand_over::Transaction;
use super::incoming::{Incoming, Pause, log_end};
use super::layout::Layout;
use super::looking::{Seen, see};
use super::message::{Message, Tuples, parse};
use super::relations::{Relations, stale};
use super::slots::{Slot, find_slot, position};
use super::streams::Whole;
use super::transition::transition;
use crate::session::Session;
use crate::settings::ConnectionSettings;
use crate::tenancy::TenancyMap;

/// How long to wait for transactions to be seen, and between two looks.
const LOOKS_MAX: u32 = 500;
pub(super) const PAUSE: Duration = Duration::from_millis(10);
/// How many looks an alteration that is under way is waited for.
const ALTERING_LOOKS_MAX: u32 = 4;

/// A slot that is being read.
pub(super) struct PostgresFeed {
    pub session: Session,
    pub incoming: Incoming,
    pub settings: ConnectionSettings,
    pub map: TenancyMap,
    pub schema: StoreSchema,
    pub relations: Relations,
    slot: Slot,
    /// The tables of the feed.
    pub layout: Layout,
    /// What the catalogue said when it was looked at in detail.
    pub facts: Facts,
    /// The tables as they are by now, where they are others.
    pub next: Option<Next>,
    /// Tables that are new, with their rows, in the order of their places.
    pub fresh: Vec<Fresh>,
    /// Tables of the feed whose rows somebody read and did not hand over: they are read anew.
    pub lost: BTreeSet<u32>,
    /// Whether there is a reason to look at the tables, whatever the catalogue says.
    pub is_look_due: bool,
    /// Everything up to here was handed over.
    pub through: u64,
    row: Transaction,
    is_over: bool,
}

/// Tables that the feed goes on with.
#[derive(Debug)]
pub(super) struct Next {
    pub schema: StoreSchema,
    pub layout: Layout,
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
        tables: Option<FeedTables<'_>>,
    ) -> Result<Self, StoreError> {
        check_reached(&session, after)?;
        let Seen {
            catalog,
            facts,
            layout: now,
        } = see(&session, map, settings.lock_timeout)?;
        let known = tables.and_then(|tables| Some((tables.schema, tables.facts?)));
        let (schema, mut layout) = match known {
            Some((schema, kept)) => (schema.clone(), Layout::decode(kept)?),
            None if facts.digest() == slot.digest => (catalog.schema.clone(), now),
            None => {
                let what = "tables, types or the publication were altered since the snapshot was \
                            taken";
                return Err(stale(what));
            }
        };
        if facts.digest() == layout.digest {
            layout.note_storage(&facts);
        }
        let mut feed = Self {
            incoming: Incoming::start(settings, map, &session, &slot, after)?,
            relations: Relations::new(&schema, &layout)?,
            session,
            settings: settings.clone(),
            map: map.clone(),
            schema,
            layout,
            facts,
            next: None,
            fresh: Vec::new(),
            lost: BTreeSet::new(),
            is_look_due: false,
            through: after.commit,
            row: Transaction::default(),
            is_over: false,
            slot,
        };
        feed.find_lost(|table| table.since > after.commit);
        if feed.is_look_due || feed.facts.digest() != feed.layout.digest {
            feed.look()?;
        }
        Ok(feed)
    }

    /// Goes on after the connection was lost, which is what happens to whoever does not listen for a
    /// while.
    fn reconnect(&mut self) -> Result<(), StoreError> {
        let after = position(self.through);
        self.incoming =
            Incoming::start(&self.settings, &self.map, &self.session, &self.slot, after)?;
        Ok(())
    }

    /// Sees what the tables are, after everything that waits: those of the feed, or the next ones.
    /// Whether that is certain for everything that was committed by now.
    fn certify(&mut self, transactions: &[u32]) -> Result<bool, StoreError> {
        let mut look = 0;
        loop {
            let altering = altering(&self.session)?;
            let mut facts = read_facts(&self.session, &self.map)?;
            let known = self.next.as_ref().map_or(&self.layout, |next| &next.layout);
            if facts.digest() != known.digest || self.is_look_due {
                self.look()?;
                // What comes after it is seen by the next one: otherwise nothing would be handed over while
                // tables are altered one behind the other.
                facts = self.facts.clone();
            }
            // What is in the log is seen after this long, unless it waits for a standby.
            let is_late =
                look >= ALTERING_LOOKS_MAX && (transactions.is_empty() || !altering.is_committing);
            if facts.see(transactions) && (!altering.is_somebody || is_late) {
                if self.next.is_none() {
                    self.layout.note_storage(&facts);
                    self.relations.note_certain();
                }
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

    /// Goes on with the next tables.
    fn go_on(&mut self, sink: &mut dyn ChangeSink) -> Result<(), StoreError> {
        let Some(Next { schema, mut layout }) = self.next.take() else {
            return Ok(());
        };
        self.relations.note_earlier(&mut layout);
        layout.note_taken(&self.fresh);
        let is_settled = self.through >= self.layout.reached;
        layout.gone = self.relations.gone_by(&layout, is_settled);
        let awaited = self.awaited();
        let before = (&self.schema, &self.layout);
        let change = transition(before, (&schema, &layout), &awaited, layout.encode());
        sink.tables(&change.map_err(|reason| stale(&reason))?)?;
        self.relations = self.relations.go_on(&schema, &layout, &awaited)?;
        self.schema = schema;
        self.layout = layout;
        sink.told_by_key(&self.layout.told_by_key(&self.schema))
    }

    /// Hands over the rows of new tables, if this is the transaction in whose place they are.
    fn hand_over_fresh(
        &mut self,
        (transaction, commit): (u32, u64),
        sink: &mut dyn ChangeSink,
    ) -> Result<(), StoreError> {
        let awaiting = self.layout.awaiting((transaction, commit));
        let awaiting: BTreeSet<u32> = awaiting.map(|(oid, _)| oid).collect();
        let mut fresh = self.fresh.iter();
        let place = fresh.position(|fresh| fresh.transaction == transaction);
        let fresh = place.map(|place| self.fresh.remove(place));
        let tables = fresh.as_ref().map(|fresh| &fresh.tables);
        let is_read = |oid: &u32| tables.is_some_and(|tables| tables.contains_key(oid));
        if !awaiting.iter().all(is_read) {
            return Err(stale(
                "the rows that new tables had were read, and not written down before the follower \
                 was stopped",
            ));
        }
        for oid in &awaiting {
            if let Some(table) = self.layout.tables.get_mut(oid) {
                table.awaits = None;
                self.relations.begin_with(table);
            }
        }
        let Some(fresh) = fresh else {
            return Ok(());
        };
        self.row.is_open = true;
        let incoming = &mut self.incoming;
        let mut taken = |bytes| incoming.taken(bytes);
        fresh.hand_over((&self.schema, &self.layout), sink, &mut taken)
    }

    /// Whether a transaction shows a table as it is next.
    fn shows_next(&self, messages: &[BytesMut]) -> Result<bool, StoreError> {
        let Some(next) = &self.next else {
            return Ok(false);
        };
        let mut commit = 0;
        for message in messages {
            if let Some(shown) = self.shows(message, &mut commit, next)? {
                return Ok(shown);
            }
        }
        Ok(false)
    }

    /// Whether a message of a transaction, of which the first one says where it is committed, shows a table
    /// as it is next; none if that is up to those that follow.
    fn shows(
        &self,
        message: &[u8],
        commit: &mut u64,
        next: &Next,
    ) -> Result<Option<bool>, StoreError> {
        // The other kinds are looked at when they are handed over.
        if !matches!(message.first(), Some(b'B' | b'R' | b'M')) {
            return Ok(None);
        }
        Ok(match parse(message, &mut Tuples::default())? {
            Message::Begin { commit, .. } if commit < self.through => Some(false),
            Message::Begin {
                commit: at,
                transaction,
            } => {
                *commit = at;
                let mut fresh = self.fresh.iter();
                let is_place = fresh.any(|fresh| fresh.transaction == transaction)
                    || self.layout.awaiting((transaction, at)).next().is_some();
                is_place.then_some(true)
            }
            Message::Relation(found) if self.relations.shows(&found, *commit, &next.layout)? => {
                Some(true)
            }
            Message::TakenIn { relations } if self.relations.are_unnoted(&relations) => Some(true),
            _ => None,
        })
    }

    /// Hands over the whole transactions that wait, and takes note of them.
    fn hand_over(&mut self, sink: &mut dyn ChangeSink) -> Result<(), StoreError> {
        if self.incoming.waiting.whole == 0 {
            return Ok(());
        }
        let transactions = self.incoming.waiting.transactions.clone();
        self.foresee()?;
        self.certify(&transactions)?;
        let messages = self.incoming.waiting.take_whole();
        for transaction in messages.split_inclusive(|message| message.first() == Some(&b'C')) {
            if self.shows_next(transaction)? {
                self.go_on(sink)?;
            }
            for message in transaction {
                self.apply(message, sink)?;
            }
        }
        Ok(())
    }

    /// Hands over a transaction that was kept until it was committed.
    fn hand_over_kept(
        &mut self,
        kept: &Whole,
        sink: &mut dyn ChangeSink,
    ) -> Result<(), StoreError> {
        self.foresee_kept(kept)?;
        self.certify(&[kept.transaction])?;
        if let Some(next) = &self.next {
            let mut messages = kept.messages()?;
            let (mut shown, mut commit) = (None, 0);
            while shown.is_none()
                && let Some(message) = messages.next()?
            {
                shown = self.shows(message, &mut commit, next)?;
            }
            if shown == Some(true) {
                self.go_on(sink)?;
            }
        }
        let mut messages = kept.messages()?;
        while let Some(message) = messages.next()? {
            self.apply(message, sink)?;
        }
        Ok(())
    }

    /// Hands over a transaction as it comes.
    fn stream_long(&mut self, sink: &mut dyn ChangeSink) -> Result<(), StoreError> {
        let transaction = self.incoming.waiting.open.take();
        let transaction = transaction.expect("BUG: no transaction is long");
        self.certify(&[])?;
        self.go_on(sink)?;
        for message in mem::take(&mut self.incoming.waiting.messages) {
            self.apply(&message, sink)?;
        }
        loop {
            let message = self.incoming.next_of_long()?;
            let is_end = message.first() == Some(&b'C');
            if is_end {
                self.certify(&[transaction])?;
                if let Some(next) = &self.next {
                    self.relations.recheck(&next.layout)?;
                }
            }
            self.apply(&message, sink)?;
            if is_end {
                return Ok(());
            }
        }
    }

    fn apply(&mut self, message: &[u8], sink: &mut dyn ChangeSink) -> Result<(), StoreError> {
        self.incoming.taken(message.len())?;
        let Transaction {
            tuples,
            is_known,
            is_open,
            ..
        } = &mut self.row;
        match parse(message, tuples)? {
            Message::Begin {
                commit,
                transaction,
            } => {
                *is_known = commit < self.through;
                self.relations.is_settled = commit >= self.layout.reached;
                self.relations.commit = commit;
                if !*is_known {
                    self.hand_over_fresh((transaction, commit), sink)?;
                }
            }
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
            Message::Relation(relation) => self.relations.tell(&self.schema, &relation)?,
            Message::Row { .. } | Message::Truncate { .. } if *is_known => {}
            Message::Truncate { relations } => {
                *is_open = true;
                for table in self.relations.emptied(&self.schema, &relations)? {
                    sink.change(Change::Truncate { table })?;
                }
            }
            Message::Row { relation, change } => {
                *is_open = true;
                if let Some(relation) = self.relations.get(relation)? {
                    self.row
                        .hand_over(&self.schema, relation, change, message, sink)?;
                }
            }
            Message::TakenIn { .. } | Message::Other => {}
        }
        Ok(())
    }

    fn read_on(
        &mut self,
        bytes_target: u64,
        sink: &mut dyn ChangeSink,
    ) -> Result<FeedProgress, StoreError> {
        let mut taken = 0;
        sink.told_by_key(&self.layout.told_by_key(&self.schema))?;
        loop {
            let wanted = bytes_target.saturating_sub(taken).max(1);
            let is_awaited = self.next.is_some();
            let pause = self.incoming.gather(&self.session, wanted)?;
            self.hand_over(sink)?;
            match &pause {
                Pause::Long => self.stream_long(sink)?,
                Pause::Committed(kept) => self.hand_over_kept(kept, sink)?,
                Pause::Full | Pause::Idle(_) => {}
            }
            taken += self.incoming.take_bytes();
            if let Pause::Idle(sent) = pause {
                // Everything was handed over that was committed before they were seen.
                if is_awaited {
                    self.go_on(sink)?;
                }
                if sent > self.through && self.certify(&[])? {
                    self.through = sent;
                }
                if self.next.is_none() && self.fresh.is_empty() {
                    // What did not come by now came before the feed was resumed.
                    let tables = self.layout.tables.values_mut();
                    tables.for_each(|table| table.awaits = None);
                    return Ok(self.progress(false));
                }
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
    fn explain(&mut self, error: StoreError) -> StoreError {
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
                Ok(facts) if facts.digest() != self.layout.digest => match self.look() {
                    Err(altered) if altered.kind() == ErrorKind::Stale => altered,
                    _ => error,
                },
                _ => error,
            },
        }
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

    fn facts(&self) -> Option<Vec<u8>> {
        Some(self.layout.encode())
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
