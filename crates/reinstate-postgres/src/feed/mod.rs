//! Following a database: everything that is committed to it after a snapshot, from its own log.
//!
//! *Consistency*: a feed begins by making a replication slot, and the snapshot that the server
//! exports with it is the one that is captured: a commit is either seen by that snapshot or decoded
//! by the slot. Positions of commits are the ends of their records in the log.
//!
//! *Crash consistency*: the server forgets what was acknowledged and nothing else. What was handed
//! over comes again after a crash of either side, in the same order and at the same positions.

mod facts;
mod follow;
mod fresh;
mod hand_over;
mod incoming;
mod layout;
mod lineage;
mod looking;
mod message;
mod publication;
mod relations;
mod row_maker;
mod slots;
mod streams;
mod tap;
mod timeline;
mod told;
mod transition;
mod underway;
mod walsender;

use std::thread;
use std::time::{Duration, Instant};

use reinstate_core::{
    CaptureView, ChangeFeed, ErrorKind, FeedHealth, FeedSource, FeedTables, FollowCost, Position,
    SnapshotId, StoreError,
};

use self::facts::{Facts, read_facts};
use self::follow::PostgresFeed;
use self::lineage::check_lineage;
use self::publication::{costs, drop_unneeded, ensure, require};
use self::slots::{SLOT_PREFIX, drop_slot, find_slot, position, slot_name, slots};
use self::walsender::Walsender;

pub(crate) use self::timeline::{timeline, timeline_end};

use crate::capture::PostgresCapture;
use crate::session::Session;
use crate::snapshot::{Access, begin, begin_with_locks, restless};
use crate::sql::quote;
use crate::store::PostgresStore;

/// How often a feed begins anew because tables changed in between.
const ATTEMPTS_MAX: u32 = 5;
/// How long the server may take to notice that a reader is gone.
const READER_GONE_MAX: Duration = Duration::from_secs(3);
/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_millis(20);

impl FeedSource for PostgresStore {
    fn check_feed(&self) -> Result<(), StoreError> {
        let session = Session::connect(self.settings())?;
        let catalog = begin(&session, &self.map, Access::ReadOnly)?.catalog;
        require(&session, &catalog)?;
        self.walsender().map(drop)
    }

    fn follow_costs(&self) -> Result<Vec<FollowCost>, StoreError> {
        let session = Session::connect(self.settings())?;
        let catalog = begin(&session, &self.map, Access::ReadOnly)?.catalog;
        costs(&session, &catalog)
    }

    fn begin_feed(&self, snapshot: SnapshotId) -> Result<Box<dyn CaptureView + '_>, StoreError> {
        let session = Session::connect(self.settings())?;
        if slots(&session)?
            .iter()
            .any(|slot| slot.snapshot == snapshot)
        {
            let message = format!("follow snapshot {snapshot}: there is a feed of it already");
            return Err(StoreError::new(ErrorKind::Conflict, message));
        }
        let catalog = begin(&session, &self.map, Access::ReadOnly)?.catalog;
        session.roll_back();
        require(&session, &catalog)?;
        let mut walsender = self.walsender()?;
        ensure(&session, &catalog)?;
        for _ in 0..ATTEMPTS_MAX {
            let locks = Session::connect(self.settings())?;
            let begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY";
            let Some(locked) = begin_with_locks(&locks, &self.map, begin)? else {
                continue;
            };
            let before = read_facts(&locks, &self.map)?;
            let name = slot_name(snapshot, &before.digest());
            let created = create_slot(&mut walsender, &name)?;
            let opened = PostgresCapture::open_at(
                self.settings(),
                &self.map,
                &created.snapshot,
                created.position,
                (locks, &locked),
            );
            match opened.and_then(|view| self.unchanged(view, &before)) {
                Ok(Some(view)) => return Ok(Box::new(view)),
                Ok(None) => drop_slot(&session, &name)?,
                Err(error) => {
                    // Should that fail as well, the slot is in the list of feeds.
                    let _ = drop_slot(&session, &name);
                    return Err(error);
                }
            }
        }
        Err(restless())
    }

    fn resume_feed(
        &self,
        snapshot: SnapshotId,
        after: Position,
    ) -> Result<Box<dyn ChangeFeed + '_>, StoreError> {
        self.resume(snapshot, after, None)
    }

    fn resume_feed_with(
        &self,
        snapshot: SnapshotId,
        after: Position,
        tables: FeedTables<'_>,
    ) -> Result<Box<dyn ChangeFeed + '_>, StoreError> {
        self.resume(snapshot, after, Some(tables))
    }

    fn end_feed(&self, snapshot: SnapshotId) -> Result<(), StoreError> {
        let session = Session::connect(self.settings())?;
        let deadline = Instant::now() + READER_GONE_MAX;
        loop {
            let mut found = slots(&session)?.into_iter();
            let Some(slot) = found.find(|slot| slot.snapshot == snapshot) else {
                return drop_unneeded(&session, SLOT_PREFIX);
            };
            match (slot.reader, drop_slot(&session, &slot.name)) {
                (_, Ok(())) => {}
                (Some(_), Err(_)) if Instant::now() < deadline => thread::sleep(PAUSE),
                (Some(reader), Err(_)) => return Err(in_use(snapshot, reader)),
                (None, Err(error)) if Instant::now() > deadline => return Err(error),
                (None, Err(_)) => thread::sleep(PAUSE),
            }
        }
    }

    fn feeds(&self) -> Result<Vec<FeedHealth>, StoreError> {
        let slots = slots(&Session::connect(self.settings())?)?;
        Ok(slots.into_iter().map(slots::Slot::health).collect())
    }
}

impl PostgresStore {
    fn resume(
        &self,
        snapshot: SnapshotId,
        after: Position,
        tables: Option<FeedTables<'_>>,
    ) -> Result<Box<dyn ChangeFeed + '_>, StoreError> {
        let session = Session::connect(self.settings())?;
        let mut deadline = Instant::now() + READER_GONE_MAX;
        // What nothing is known of cannot be compared.
        let mut is_checked = tables.is_none();
        let slot = loop {
            let slot = find_slot(&session, snapshot)?;
            slot.check(after)?;
            match slot.reader {
                None if is_checked => break slot,
                None => {
                    let last = tables.and_then(|tables| tables.last);
                    let store = (self.settings(), &self.map);
                    check_lineage(store, &session, &slot, after, last)?;
                    is_checked = true;
                    deadline = Instant::now() + READER_GONE_MAX;
                }
                Some(_) if Instant::now() < deadline => thread::sleep(PAUSE),
                Some(reader) => return Err(in_use(snapshot, reader)),
            }
        };
        let feed = PostgresFeed::open(self.settings(), &self.map, session, slot, after, tables)?;
        Ok(Box::new(feed))
    }

    fn walsender(&self) -> Result<Walsender, StoreError> {
        Walsender::connect(self.settings(), "").map_err(|error| match error.kind() {
            ErrorKind::Refused => {
                let message = format!(
                    "this database cannot be followed: {error}. The role needs the right to \
                     replicate (ALTER ROLE ... REPLICATION) and to connect so (pg_hba.conf)"
                );
                StoreError::new(ErrorKind::Refused, message).because(error)
            }
            _ => error,
        })
    }

    /// The view, if its tables are what they were when the slot got its name.
    fn unchanged(
        &self,
        view: Option<PostgresCapture>,
        before: &Facts,
    ) -> Result<Option<PostgresCapture>, StoreError> {
        let Some(view) = view else {
            return Ok(None);
        };
        let facts = read_facts(view.session(), &self.map)?;
        Ok((facts.digest() == before.digest()).then_some(view))
    }
}

/// A slot that was just made.
struct CreatedSlot {
    position: Position,
    /// The name of the exported snapshot, which lasts until the walsender is told something else.
    snapshot: String,
}

/// Makes a slot. Waits for every transaction that is writing; for none longer than the time limit
/// of locks.
fn create_slot(walsender: &mut Walsender, name: &str) -> Result<CreatedSlot, StoreError> {
    let operation = "make a replication slot";
    let command = format!(
        "CREATE_REPLICATION_SLOT {} LOGICAL pgoutput (SNAPSHOT 'export')",
        quote(name)
    );
    let rows = walsender.ask(operation, &command).map_err(|error| {
        if error.kind() != ErrorKind::Contended {
            return error;
        }
        let message = format!(
            "{operation}: a transaction that was writing before did not end in time (see \
             pg_stat_activity.backend_xid, and pg_prepared_xacts). Try again when it is over, or \
             raise lock_timeout"
        );
        StoreError::new(ErrorKind::Contended, message).because(error)
    })?;
    let row = rows.first().filter(|row| row.len() >= 3);
    let found = row.and_then(|row| Some((parse_lsn(&row[1])?, row[2].clone())));
    let Some((commit, snapshot)) = found else {
        let message = format!("{operation}: the server's answer makes no sense");
        return Err(StoreError::new(ErrorKind::Other, message));
    };
    Ok(CreatedSlot {
        position: position(commit),
        snapshot,
    })
}

/// Reads `16/B374D848`.
fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let (high, low) = (
        u32::from_str_radix(high, 16).ok()?,
        u32::from_str_radix(low, 16).ok()?,
    );
    Some(u64::from(high) << 32 | u64::from(low))
}

fn in_use(snapshot: SnapshotId, reader: i32) -> StoreError {
    let message =
        format!("follow snapshot {snapshot}: the server process {reader} is reading it already");
    StoreError::new(ErrorKind::Locked, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_the_log_is_read_from_its_text() {
        assert_eq!(parse_lsn("16/B374D848"), Some(0x16_B374_D848));
        assert_eq!(parse_lsn("FFFFFFFF/FFFFFFFF"), Some(u64::MAX));
        for text in ["", "16", "16/", "/1", "100000000/0", "x/y"] {
            assert_eq!(parse_lsn(text), None, "{text}");
        }
    }
}
