//! Whether the server's log is the one that was followed.
//!
//! A copy of a server's files, and one that was restored to a moment of before, have its slot and its
//! timeline, and histories of their own from that moment on: the same places of the log stand for other
//! transactions. What tells is that their slot remembers less than was followed. So wherever that is
//! so, as after a crash, what was followed and not acknowledged is read once more: its end must be there as it was.

use std::mem;

use reinstate_core::{Commit, ErrorKind, Position, PositionNotation, StoreError, Timestamp};

use super::incoming::{Incoming, Pause};
use super::message::{Message, Tuples, parse};
use super::slots::{Slot, position};
use crate::session::Session;
use crate::settings::ConnectionSettings;
use crate::tenancy::TenancyMap;

/// Refuses a server of which the log, up to `after`, does not end with this commit.
///
/// # Errors
/// `NotRecoverable`.
pub(super) fn check_lineage(
    (settings, map): (&ConnectionSettings, &TenancyMap),
    session: &Session,
    slot: &Slot,
    after: Position,
    last: Option<Commit>,
) -> Result<(), StoreError> {
    if slot.acknowledged >= after.commit {
        return Ok(());
    }
    let acknowledged = position(slot.acknowledged);
    let expected = last.filter(|commit| commit.position > acknowledged);
    let mut incoming = Incoming::start(settings, map, session, slot, acknowledged)?;
    let mut found = None;
    loop {
        let (commits, is_over) = next_commits(&mut incoming, session)?;
        for commit in commits.iter().filter(|commit| commit.position <= after) {
            found = Some(*commit);
        }
        let is_beyond = |commit: &Commit| commit.position > after;
        if is_over || commits.last().is_some_and(is_beyond) {
            break;
        }
    }
    incoming.close();
    if found == expected {
        return Ok(());
    }
    let shown = |commit: Option<Commit>| match commit {
        Some(commit) => format!(
            "{} of {}",
            commit.position.display(PositionNotation::Lsn),
            commit.time
        ),
        None => "none".to_owned(),
    };
    let message = format!(
        "follow snapshot {}: the last transaction before {} was {}, and is {} in the server's log: it is a \
         copy of the server that was followed, or was restored from a backup of it, and went on by itself. What was \
         committed to it since is in no log: take a new snapshot",
        slot.snapshot,
        after.display(PositionNotation::Lsn),
        shown(expected),
        shown(found)
    );
    Err(StoreError::new(ErrorKind::NotRecoverable, message))
}

/// The commits that came next, and whether there are no more.
fn next_commits(
    incoming: &mut Incoming,
    session: &Session,
) -> Result<(Vec<Commit>, bool), StoreError> {
    let pause = incoming.gather(session, 1)?;
    let mut commits = Vec::new();
    for message in incoming.waiting.take_whole() {
        commits.extend(commit_of(&message)?);
    }
    match pause {
        Pause::Full => {}
        Pause::Idle(_) => return Ok((commits, true)),
        Pause::Committed(whole) => commits.extend(commit_of(whole.end())?),
        Pause::Long => {
            incoming.waiting.open = None;
            mem::take(&mut incoming.waiting.messages);
            let mut end = None;
            while end.is_none() {
                end = commit_of(&incoming.next_of_long()?)?;
            }
            commits.extend(end);
        }
    }
    incoming.take_bytes();
    Ok((commits, false))
}

/// The commit that a message says.
fn commit_of(message: &[u8]) -> Result<Option<Commit>, StoreError> {
    if message.first() != Some(&b'C') {
        return Ok(None);
    }
    Ok(match parse(message, &mut Tuples::default())? {
        Message::Commit { end, micros } => Some(Commit {
            position: position(end),
            time: Timestamp::from_micros(micros),
        }),
        _ => None,
    })
}
