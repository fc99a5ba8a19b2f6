//! Which of a store's histories a log belongs to.
//!
//! A standby that becomes a store of its own goes on with a history of its own. What was committed to
//! the other one after that is in the log and never was in this store: positions and times look the same,
//! and nothing but the record of the origin tells.

use reinstate_core::{ErrorKind, LiveStore, Position, Repository, SnapshotId};
use reinstate_format::{decode_log_origin, encode_log_origin};

use super::chain::Log;
use crate::Error;

/// Name of the kind of record that says on which timeline a snapshot was taken.
const ORIGIN_RECORD: &str = "origin";

/// Notes on which timeline a snapshot was taken, where the store has several.
pub(crate) fn note_origin(
    repository: &dyn Repository,
    snapshot: SnapshotId,
    live: &dyn LiveStore,
) -> Result<(), Error> {
    let timeline = live
        .timeline()
        .map_err(Error::store("find out the store's timeline"))?;
    let Some(timeline) = timeline else {
        return Ok(());
    };
    let bytes = encode_log_origin(repository.id(), snapshot, timeline);
    repository
        .publish(ORIGIN_RECORD, *snapshot.as_bytes(), &bytes)
        .map_err(Error::repository(format!(
            "note the timeline of snapshot {snapshot}"
        )))
}

/// The timeline on which a log was written; none if the store has only one, or nobody noted it.
///
/// # Errors
/// `Corrupt` if the record is not what was written.
pub fn timeline_of(repository: &dyn Repository, log: &Log) -> Result<Option<u32>, Error> {
    let id = log.id();
    let operation = || format!("read the timeline of snapshot {id}");
    match repository.read(ORIGIN_RECORD, *id.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => {
            let bytes = read.map_err(Error::repository(operation()))?;
            decode_log_origin(&bytes, repository.id(), id)
                .map(Some)
                .map_err(Error::format(operation()))
        }
    }
}

/// The timelines of a log and of the store, if they are known and not the same.
fn different(
    repository: &dyn Repository,
    log: &Log,
    live: &dyn LiveStore,
) -> Result<Option<(u32, u32)>, Error> {
    let Some(then) = timeline_of(repository, log)? else {
        return Ok(None);
    };
    let now = live
        .timeline()
        .map_err(Error::store("find out the store's timeline"))?;
    Ok(now.filter(|now| *now != then).map(|now| (then, now)))
}

/// Refuses a position of a log that the store as it is now never was at.
///
/// # Errors
/// `NotRecoverable` if the store's history left the log's before that position, or does not come from it;
/// the message names where it left. As the store reports it, if that cannot be found out.
pub fn check_timeline(
    repository: &dyn Repository,
    log: &Log,
    position: Position,
    live: &dyn LiveStore,
) -> Result<(), Error> {
    let Some((then, now)) = different(repository, log, live)? else {
        return Ok(());
    };
    let end = live
        .timeline_end(then)
        .map_err(Error::store("find out where the store's timelines parted"))?;
    let shown = |position: Position| position.display(log.snapshot().notation);
    let place = match end {
        Some(end) if position <= end => return Ok(()),
        Some(end) => format!(
            "the store left that timeline at {} and is on timeline {now}; before it: {}",
            shown(end),
            shown(end)
        ),
        None => format!("the store is on timeline {now}, which does not come from there"),
    };
    let message = format!(
        "{} is of timeline {then}, and was never committed to the store as it is: {place}",
        shown(position)
    );
    Err(Error::new(ErrorKind::NotRecoverable, message))
}

/// Refuses to go on with a log of another timeline: what was committed in between is not known.
pub(super) fn check_same(
    repository: &dyn Repository,
    log: &Log,
    live: &dyn LiveStore,
) -> Result<(), Error> {
    let Some((then, now)) = different(repository, log, live)? else {
        return Ok(());
    };
    let message = format!(
        "the log of snapshot {} was written on timeline {then}, and the store is on timeline {now} now: \
         what was committed after {} is not known. Take a new snapshot",
        log.id().short(),
        log.through().display(log.snapshot().notation)
    );
    Err(Error::new(ErrorKind::NotRecoverable, message))
}
