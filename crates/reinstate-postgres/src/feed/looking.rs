//! Looking at tables that are not those of the feed any more.
//!
//! A look takes in what is new, and says what the tables are by now. It never stands in the way of the next
//! one: migrations make and alter tables faster than anybody reads a log, so each look starts from the
//! tables of the feed, and from the rows that wait, as if it were the first.
//!
//! *Consistency*: of a table whose rows wait, or were lost by a follower that was stopped, no row is in the
//! log. So it can be read anew at any time. What was noted of it awaits the earlier reading then; so that
//! whoever comes next is not misled, the feed goes on with the tables that await the later one before it
//! hands over the transaction in whose place the earlier one was.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use reinstate_core::{ErrorKind, StoreError};

use super::facts::{Facts, read_facts};
use super::follow::{Next, PAUSE, PostgresFeed};
use super::fresh::{Fresh, Reader, check_new, take_in};
use super::layout::{Layout, TableLayout};
use super::message::{Message, Tuples, parse};
use super::relations::{Relations, stale};
use super::streams::Whole;
use super::transition::transition;
use crate::catalog::{Catalog, get};
use crate::session::Session;
use crate::snapshot::{Access, restless, try_begin};
use crate::tenancy::TenancyMap;

/// How often the tables are read anew because others came or went.
const LOOKS_CLOSELY_MAX: u32 = 200;
/// How often what is said of tables that nobody locked yet is looked at again before it is believed.
const DOUBTS_MAX: u32 = 10;
/// How many milliseconds a lock is waited for at once. Whoever waits for us as well, in a deadlock, is not stopped
/// by the server before a second: by then we have let go, and try again.
const LOCK_MILLISECONDS: u128 = 200;

/// The tables as of one moment.
#[derive(Debug)]
pub(super) struct Seen {
    pub catalog: Arc<Catalog>,
    pub facts: Facts,
    pub layout: Layout,
}

/// Sees the tables as of one moment. Locks are waited for as long as the connection's time limit says.
///
/// # Errors
/// As [`begin`](crate::snapshot::begin).
pub(super) fn see(
    session: &Session,
    map: &TenancyMap,
    lock_timeout: Duration,
) -> Result<Seen, StoreError> {
    let further = patience(lock_timeout);
    let mut doubts = Doubts::new(lock_timeout);
    for _ in 0..LOOKS_CLOSELY_MAX {
        let moment = try_begin(session, map, Access::ReadOnly, &further);
        let seen = moment.and_then(|moment| {
            let Some(moment) = moment else {
                return Ok(None);
            };
            let facts = read_facts(session, map)?;
            let layout = Layout::read(session, &moment.catalog, &facts)?;
            Ok(Some(Seen {
                catalog: moment.catalog,
                facts,
                layout,
            }))
        });
        session.roll_back();
        match seen {
            Ok(Some(seen)) => return Ok(seen),
            Ok(None) => {}
            Err(error) => doubts.raise(error)?,
        }
        thread::sleep(PAUSE);
    }
    Err(restless())
}

/// Limits how long a lock is waited for at once.
fn patience(lock_timeout: Duration) -> String {
    let milliseconds = match lock_timeout.as_millis() {
        0 => LOCK_MILLISECONDS,
        limit => limit.min(LOCK_MILLISECONDS),
    };
    format!("SET LOCAL lock_timeout = {milliseconds}")
}

/// Errors that need not be any. Of a table that goes while it is looked at, and is not locked, the catalogue
/// says some things and others not: then it seems to belong to nobody, or to be missing.
#[derive(Debug)]
struct Doubts {
    count: u32,
    lock_timeout: Duration,
    contended_since: Option<Instant>,
}

impl Doubts {
    const fn new(lock_timeout: Duration) -> Self {
        Self {
            count: 0,
            lock_timeout,
            contended_since: None,
        }
    }

    /// Takes note of an error.
    ///
    /// # Errors
    /// That one, if it is believed.
    fn raise(&mut self, error: StoreError) -> Result<(), StoreError> {
        let is_believed = match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Full => true,
            ErrorKind::Contended => {
                let since = *self.contended_since.get_or_insert_with(Instant::now);
                !self.lock_timeout.is_zero() && since.elapsed() >= self.lock_timeout
            }
            _ => {
                self.count += 1;
                self.count > DOUBTS_MAX
            }
        };
        if is_believed { Err(error) } else { Ok(()) }
    }
}

impl PostgresFeed {
    /// Looks at tables that are not those of the feed any more.
    ///
    /// # Errors
    /// `Stale` if it cannot be said what became of the rows.
    pub(super) fn look(&mut self) -> Result<(), StoreError> {
        let Seen {
            catalog,
            facts,
            mut layout,
        } = self.look_closely()?;
        let schema = catalog.schema.clone();
        let sql = "SELECT (pg_current_wal_insert_lsn() - '0/0')::int8";
        let row = self.session.row("look for the end of the log", sql, &[])?;
        layout.reached = get::<i64>(&row, 0)?.cast_unsigned();
        layout.keep_missing(&self.layout);
        layout.keep_since(&self.layout, &self.fresh);
        self.relations.note_coming(&self.layout, &layout);
        let names = facts.changed_since(&self.facts).join(", ");
        self.facts = facts;
        let before = (&self.schema, &self.layout);
        let change = transition(before, (&schema, &layout), &self.awaited(), Vec::new());
        if let Err(reason) = change {
            let names = if names.is_empty() {
                String::new()
            } else {
                format!("tables were altered ({names}): ")
            };
            return Err(stale(&format!("{names}{reason}")));
        }
        self.lost.clear();
        self.is_look_due = false;
        self.next = Some(Next { schema, layout });
        Ok(())
    }

    /// The tables as they are, once those that are new are published and read. Whatever comes meanwhile is for
    /// the next look.
    fn look_closely(&mut self) -> Result<Seen, StoreError> {
        let lock_timeout = self.settings.lock_timeout;
        let further = patience(lock_timeout);
        let mut doubts = Doubts::new(lock_timeout);
        for _ in 0..LOOKS_CLOSELY_MAX {
            let mut seen = see(&self.session, &self.map, lock_timeout)?;
            let mut fresh = self.fresh.iter();
            if !fresh.all(|fresh| fresh.fits(&seen.catalog.schema, &seen.layout)) {
                self.give_up_fresh();
            }
            let known = self.known();
            let tables = seen.layout.tables.keys();
            let new: BTreeSet<u32> = tables.filter(|oid| !known.contains(oid)).copied().collect();
            if new.is_empty() {
                return Ok(seen);
            }
            let incoming = &mut self.incoming;
            let reader = Reader {
                session: &self.session,
                map: &self.map,
                further: &further,
                directory: &self.settings.spill_directory,
                taken: &mut |bytes| incoming.taken(bytes),
            };
            let checked = check_new(&self.session, &seen.catalog);
            match checked.and_then(|()| take_in(reader, &seen, &new)) {
                Ok(Some(fresh)) => {
                    for (oid, taken) in &fresh.tables {
                        if let Some(table) = seen.layout.tables.get_mut(oid) {
                            table.published.clone_from(&taken.layout.published);
                        }
                    }
                    self.fresh.push(fresh);
                    return Ok(seen);
                }
                Ok(None) => {}
                Err(error) => doubts.raise(error)?,
            }
            thread::sleep(PAUSE);
        }
        Err(restless())
    }

    /// The tables of which all rows are in the log, or wait for their places.
    fn known(&self) -> BTreeSet<u32> {
        let tables = self.layout.tables.keys();
        let tables = tables.filter(|oid| !self.lost.contains(oid));
        let fresh = self.fresh.iter().flat_map(|fresh| fresh.tables.keys());
        tables.chain(fresh).copied().collect()
    }

    /// The tables of which no row is in the log.
    pub(super) fn awaited(&self) -> BTreeSet<u32> {
        let fresh = self.fresh.iter().flat_map(|fresh| fresh.tables.keys());
        fresh.chain(&self.lost).copied().collect()
    }

    /// Forgets the rows that wait: their tables are read anew, all of them together, so that those that go
    /// by others do not come before them.
    fn give_up_fresh(&mut self) {
        let tables = |fresh: &Fresh| fresh.tables.keys().copied().collect::<Vec<u32>>();
        let tables = self.fresh.iter().flat_map(tables);
        let is_of_feed = |oid: &u32| self.layout.tables.contains_key(oid);
        self.lost.extend(tables.filter(is_of_feed));
        self.fresh.clear();
    }

    /// Looks for tables whose rows are still to come, and that nobody has any more. What waits is given up where there
    /// are some: they are read anew, and those that go by them may be among what waits, which would come before them.
    pub(super) fn find_lost(&mut self, is_to_come: impl Fn(&TableLayout) -> bool) {
        let is_waiting = |oid: &u32| {
            let mut fresh = self.fresh.iter();
            fresh.any(|fresh| fresh.tables.contains_key(oid))
        };
        let tables = self.layout.tables.iter();
        let lost = tables
            .filter(|(oid, table)| table.awaits.is_some() && is_to_come(table) && !is_waiting(oid));
        let lost: Vec<u32> = lost.map(|(oid, _)| *oid).collect();
        if !lost.is_empty() {
            self.is_look_due = true;
            self.lost.extend(lost);
            self.give_up_fresh();
        }
    }

    /// Looks among the transactions that wait for those of an earlier follower that took tables in.
    pub(super) fn foresee(&mut self) -> Result<(), StoreError> {
        let waiting = &self.incoming.waiting;
        let mut foreseen = Foreseen::default();
        for message in &waiting.messages[..waiting.whole] {
            foreseen.note(message, self.through, &self.layout, &mut self.relations)?;
        }
        self.take_note_of(&foreseen);
        Ok(())
    }

    /// The same of a transaction that was kept until it was committed.
    pub(super) fn foresee_kept(&mut self, kept: &Whole) -> Result<(), StoreError> {
        let mut foreseen = Foreseen::default();
        let mut messages = kept.messages()?;
        while let Some(message) = messages.next()?
            && foreseen.note(message, self.through, &self.layout, &mut self.relations)?
        {}
        self.take_note_of(&foreseen);
        Ok(())
    }

    fn take_note_of(&mut self, foreseen: &Foreseen) {
        self.is_look_due |= foreseen.is_look_due;
        // Those that were taken in later are to come as well.
        if let Some(since) = foreseen.lost_since {
            self.find_lost(|table| table.since >= since);
        }
    }
}

/// What transactions of an earlier follower that took tables in are about.
#[derive(Debug, Default)]
struct Foreseen {
    /// Whether the log has the transaction already.
    is_known: bool,
    /// The first place of which rows are awaited that nobody has.
    lost_since: Option<u64>,
    is_look_due: bool,
}

impl Foreseen {
    /// Takes note of a message: returns whether it is one of those with which a transaction begins.
    fn note(
        &mut self,
        message: &[u8],
        through: u64,
        layout: &Layout,
        relations: &mut Relations,
    ) -> Result<bool, StoreError> {
        if !matches!(message.first(), Some(b'B' | b'M')) {
            return Ok(false);
        }
        match parse(message, &mut Tuples::default())? {
            Message::Begin {
                commit,
                transaction,
            } => {
                self.is_known = commit < through;
                let awaiting = layout.awaiting((transaction, commit));
                let since = awaiting.map(|(_, table)| table.since).min();
                let since = since.filter(|_| !self.is_known);
                self.lost_since = self.lost_since.or(since);
            }
            Message::TakenIn {
                relations: taken_in,
            } if !self.is_known => {
                self.is_look_due |= relations.note_taken_in(&taken_in);
            }
            _ => {}
        }
        Ok(true)
    }
}
