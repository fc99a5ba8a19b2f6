//! What the server sends, until it is handed over.
//!
//! At most [`WAITING_BYTES_MAX`] of whole transactions wait, and what is begun of a longer one.
//! Transactions that come before they are committed are kept beside them.

use std::mem;
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use reinstate_core::{ErrorKind, Position, PositionNotation, StoreError};
use tokio_postgres::types::Type;

use super::message::{Message, Tuples, parse};
use super::publication::PUBLICATION;
use super::slots::{Slot, find_slot, position};
use super::streams::{Streams, Taken, Whole};
use super::walsender::{Streamed, Walsender};
use crate::catalog::get;
use crate::session::Session;
use crate::settings::ConnectionSettings;
use crate::sql::{literal, quote};
use crate::tenancy::TenancyMap;

/// How many bytes of whole transactions wait to be handed over.
const WAITING_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// After how many bytes that somebody took the server hears of us.
const UNHEARD_BYTES_MAX: usize = 512 * 1024;
/// How often the same answer shows that a server at rest has nothing more to send.
const SAME_ANSWERS: u32 = 4;
/// How often it shows that whatever the server seems to do: a millisecond each.
const SAME_ANSWERS_MAX: u32 = 10_000;

/// A slot that streams.
#[derive(Debug)]
pub(super) struct Incoming {
    walsender: Walsender,
    slot: String,
    pub waiting: Waiting,
    streams: Streams,
    /// Bytes of transactions under way that came since somebody asked.
    streamed_bytes: u64,
    /// Everything up to here came from the server.
    sent: u64,
    /// Bytes that were taken since the server heard of us.
    unheard_bytes: usize,
}

/// What the server sent and nobody has yet.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub messages: Vec<BytesMut>,
    /// How many of them belong to whole transactions, and which these are.
    pub whole: usize,
    pub transactions: Vec<u32>,
    /// The transaction under way.
    pub open: Option<u32>,
    pub bytes: u64,
}

/// Why no more was gathered.
pub(super) enum Pause {
    /// It is enough.
    Full,
    /// A single transaction is more than may wait.
    Long,
    /// One that came before it was committed is committed behind those that wait.
    Committed(Whole),
    /// Nothing is left; the server sent all up to here.
    Idle(u64),
}

impl Incoming {
    /// Starts to stream a slot.
    ///
    /// # Errors
    /// As [`reinstate_core::FeedSource::resume_feed`].
    pub(super) fn start(
        settings: &ConnectionSettings,
        map: &TenancyMap,
        session: &Session,
        slot: &Slot,
        after: Position,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            walsender: start(settings, map, session, slot, after)?,
            slot: slot.name.clone(),
            waiting: Waiting::default(),
            streams: Streams::new(&settings.spill_directory),
            streamed_bytes: 0,
            sent: 0,
            unheard_bytes: 0,
        })
    }

    /// Takes what the server sends, until it is enough or there is no more for now: everything was
    /// sent that was on its disk when this was called.
    pub(super) fn gather(
        &mut self,
        session: &Session,
        bytes_target: u64,
    ) -> Result<Pause, StoreError> {
        let enough = bytes_target.min(WAITING_BYTES_MAX);
        let mut end: Option<LogEnd> = None;
        loop {
            let is_whole = self.waiting.open.is_none();
            let is_between = is_whole && !self.streams.is_within();
            let is_enough =
                self.waiting.bytes >= enough || self.streamed_bytes >= WAITING_BYTES_MAX;
            if is_between && is_enough {
                return Ok(Pause::Full);
            }
            if !is_whole && self.waiting.bytes > WAITING_BYTES_MAX {
                return Ok(Pause::Long);
            }
            let mut streamed = self.walsender.next_arrived()?;
            if streamed.is_none() && is_between {
                if end.is_none() {
                    end = Some(log_end(session)?);
                }
                self.walsender.report(self.sent, true)?;
            }
            let streamed = match streamed.take() {
                Some(streamed) => streamed,
                None => self.walsender.next()?,
            };
            match streamed {
                Streamed::Message(message) => {
                    if let Some(whole) = self.take(message)? {
                        return Ok(Pause::Committed(whole));
                    }
                }
                Streamed::Alive {
                    sent,
                    at,
                    wants_reply,
                } => {
                    self.heard(sent, wants_reply)?;
                    let is_end = match end.as_mut().map(|end| end.is_reached(sent, at)) {
                        None | Some(Reached::No) => false,
                        Some(Reached::Yes) => true,
                        Some(Reached::IfAtRest) => self.is_at_rest(session)?,
                    };
                    if is_end && is_between {
                        return Ok(Pause::Idle(sent));
                    }
                }
            }
        }
    }

    /// Lets a message wait, or the whole transaction that it is the commit of, if that is short.
    fn take(&mut self, message: BytesMut) -> Result<Option<Whole>, StoreError> {
        let bytes = message.len() as u64;
        match self.streams.take(message)? {
            Taken::Not(message) => self.waiting.push(message)?,
            Taken::Kept => self.streamed_bytes += bytes,
            Taken::Whole(whole) if whole.is_in_memory() => {
                let mut messages = whole.messages()?;
                while let Some(message) = messages.next()? {
                    self.waiting.push(message.into())?;
                }
            }
            Taken::Whole(whole) => return Ok(Some(whole)),
        }
        Ok(None)
    }

    /// How many bytes came since this was asked last.
    pub(super) fn take_bytes(&mut self) -> u64 {
        mem::take(&mut self.waiting.bytes) + mem::take(&mut self.streamed_bytes)
    }

    /// Whether the server waits for more to be written to its log. While it decodes a long transaction
    /// it answers as well, and always the same.
    fn is_at_rest(&self, session: &Session) -> Result<bool, StoreError> {
        let sql = "SELECT coalesce(bool_or(lower(a.wait_event)
                              IN ('walsendermain', 'walsenderwaitforwal')), false)
                     FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid
                    WHERE s.slot_name = $1";
        let row = session.row(
            "look at what the server does",
            sql,
            &[(&self.slot, Type::TEXT)],
        )?;
        get(&row, 0)
    }

    fn heard(&mut self, sent: u64, wants_reply: bool) -> Result<(), StoreError> {
        self.sent = self.sent.max(sent);
        if wants_reply {
            self.walsender.report(self.sent, false)?;
        }
        Ok(())
    }

    /// The next message of a transaction that is under way.
    pub(super) fn next_of_long(&mut self) -> Result<BytesMut, StoreError> {
        loop {
            match self.walsender.next()? {
                Streamed::Alive {
                    sent, wants_reply, ..
                } => self.heard(sent, wants_reply)?,
                Streamed::Message(message) => {
                    self.waiting.bytes += message.len() as u64;
                    return Ok(message);
                }
            }
        }
    }

    /// Takes note of bytes that somebody takes: however long that lasts, the server hears of us.
    pub(super) fn taken(&mut self, bytes: usize) -> Result<(), StoreError> {
        self.unheard_bytes += bytes;
        if self.unheard_bytes < UNHEARD_BYTES_MAX {
            return Ok(());
        }
        self.unheard_bytes = 0;
        self.walsender.report(self.sent, false)
    }

    /// Lets the server forget what is before this position.
    pub(super) fn acknowledge(&mut self, kept: u64) -> Result<(), StoreError> {
        self.walsender.acknowledge(self.sent, kept)
    }

    /// Ends the stream.
    pub(super) fn close(&mut self) {
        self.walsender.close();
    }
}

impl Waiting {
    /// The messages of the whole transactions, which no longer wait.
    pub(super) fn take_whole(&mut self) -> Vec<BytesMut> {
        self.transactions.clear();
        let rest = self.messages.split_off(mem::take(&mut self.whole));
        mem::replace(&mut self.messages, rest)
    }

    fn push(&mut self, message: BytesMut) -> Result<(), StoreError> {
        self.bytes += message.len() as u64;
        let kind = message.first().copied();
        // The other kinds are looked at when they are handed over.
        let begun = match kind {
            Some(b'B') => parse(&message, &mut Tuples::default())?,
            _ => Message::Other,
        };
        self.messages.push(message);
        match (kind, begun, self.open) {
            (_, Message::Begin { transaction, .. }, None) => self.open = Some(transaction),
            (Some(b'C'), _, Some(transaction)) => {
                self.open = None;
                self.transactions.push(transaction);
                self.whole = self.messages.len();
            }
            // A message of somebody that belongs to no transaction.
            (Some(b'M'), _, None) => {
                self.messages.pop();
            }
            (Some(b'B'), ..) | (_, _, None) => {
                let message = "follow the log: a change that belongs to no transaction";
                return Err(StoreError::new(ErrorKind::Other, message));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Starts to stream a slot.
fn start(
    settings: &ConnectionSettings,
    map: &TenancyMap,
    session: &Session,
    slot: &Slot,
    after: Position,
) -> Result<Walsender, StoreError> {
    let mut further = String::new();
    if !map.search_path.is_empty() {
        let schemas: Vec<String> = map.search_path.iter().map(|name| quote(name)).collect();
        let schemas = schemas.join(", ");
        further = format!("SET search_path = pg_catalog, {schemas}, pg_temp;");
    }
    let mut walsender = Walsender::connect(settings, &further)?;
    let start = position(after.commit).display(PositionNotation::Lsn);
    let command = format!(
        "START_REPLICATION SLOT {} LOGICAL {} (proto_version '2', streaming 'on', \
         publication_names {}, messages 'true')",
        quote(&slot.name),
        start.trim_start_matches("lsn:"),
        literal(&quote(PUBLICATION))
    );
    let operation = format!("follow snapshot {}", slot.snapshot);
    if let Err(error) = walsender.stream(&operation, &command) {
        // Somebody was faster, or the slot was lost just now.
        let slot = find_slot(session, slot.snapshot)?;
        slot.check(after)?;
        return Err(match slot.reader {
            Some(reader) => super::in_use(slot.snapshot, reader),
            None => error,
        });
    }
    Ok(walsender)
}

/// Where the server's log ended on its disk.
pub(super) struct LogEnd {
    pub at: u64,
    /// When that was, in microseconds since 2000 by the server's clock.
    since: i64,
    /// What the server said it has sent, and how often since then.
    said: (u64, u32),
}

impl LogEnd {
    /// Whether everything up to the end was sent, as the server says that it sent all up to `sent`.
    ///
    /// The end may lie within a record that is not written to its own end: then the server stays
    /// where it is. What it said before the end was looked for proves nothing of the kind.
    fn is_reached(&mut self, sent: u64, at: i64) -> Reached {
        if at > self.since {
            match &mut self.said {
                (said, count) if *said == sent => *count += 1,
                said => *said = (sent, 1),
            }
            if self.said.1 > 1 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        match self.said.1 {
            _ if sent >= self.at => Reached::Yes,
            SAME_ANSWERS_MAX.. => Reached::Yes,
            SAME_ANSWERS.. => Reached::IfAtRest,
            _ => Reached::No,
        }
    }
}

/// Whether everything was sent.
enum Reached {
    No,
    Yes,
    /// If the server is not at work.
    IfAtRest,
}

pub(super) fn log_end(session: &Session) -> Result<LogEnd, StoreError> {
    let sql = "SELECT (pg_current_wal_flush_lsn() - '0/0')::int8,
                      (extract(epoch FROM clock_timestamp() - '2000-01-01 UTC'::timestamptz)
                          * 1000000)::int8";
    let row = session.row("look for the end of the log", sql, &[])?;
    Ok(LogEnd {
        at: get::<i64>(&row, 0)?.cast_unsigned(),
        since: get(&row, 1)?,
        said: (0, 0),
    })
}
