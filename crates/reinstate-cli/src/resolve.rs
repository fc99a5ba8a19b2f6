//! Which snapshot a point in time means.
//!
//! A snapshot is the only kind of point that can be gone back to. A time or a position that is
//! not exactly one of them is refused with the nearest ones named, unless the nearest one before
//! is asked for.

use std::sync::Arc;

use jiff::SignedDuration;
use reinstate::find_snapshot;
use reinstate_core::{ErrorKind, Position, PositionNotation, SnapshotDescription, Timestamp};
use serde::Serialize;

use crate::console::Console;
use crate::failure::Failure;
use crate::point::PointInTime;

/// Whether a snapshot before the point in time will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// Only the very point.
    Exact,
    /// The latest one at or before it.
    NearestBefore,
}

/// A point in time that was found.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The snapshot.
    pub snapshot: Arc<SnapshotDescription>,
    /// How much earlier than asked for it is, where that is known and not nothing.
    pub earlier_by: Option<SignedDuration>,
}

impl Match {
    /// What the flag `--nearest-before` means.
    #[must_use]
    pub const fn of(nearest_before: bool) -> Self {
        if nearest_before {
            Self::NearestBefore
        } else {
            Self::Exact
        }
    }
}

#[derive(Serialize)]
struct TargetRecord {
    #[serde(rename = "type")]
    record: &'static str,
    asked: String,
    time: String,
    position: String,
    snapshot: String,
    earlier_by_seconds: Option<f64>,
}

impl Resolved {
    /// Says which point was found: always, because a time typed is not yet a position.
    pub fn announce(&self, console: &Console, asked: &PointInTime) {
        let snapshot = &self.snapshot;
        console.record(&TargetRecord {
            record: "target",
            asked: asked.to_string(),
            time: snapshot.taken_at.to_string(),
            position: snapshot.position.display(snapshot.notation),
            snapshot: snapshot.id.to_string(),
            earlier_by_seconds: self.earlier_by.map(|gap| gap.as_secs_f64()),
        });
        console.note(format_args!("{asked} is {}", describe(snapshot)));
        match self.earlier_by {
            Some(gap) if gap.is_zero() => console.warn(format_args!(
                "commits between {} and {asked} are NOT in it",
                snapshot.position.display(snapshot.notation)
            )),
            Some(gap) => console.warn(format_args!(
                "that is {gap:#} EARLIER than asked for: what was written in between is NOT in it"
            )),
            None => {}
        }
    }
}

/// A snapshot in one line.
#[must_use]
pub fn describe(snapshot: &SnapshotDescription) -> String {
    format!(
        "{} = {}    snapshot {}",
        snapshot.taken_at,
        snapshot.position.display(snapshot.notation),
        snapshot.id.short()
    )
}

/// Finds the snapshot. `snapshots` are those of one store, oldest first.
///
/// # Errors
/// `NotFound` if there are no snapshots or none of that id; `NotRecoverable` if none is exactly
/// there; usage, if the store writes positions in another way.
pub fn resolve(
    snapshots: &[SnapshotDescription],
    point: &PointInTime,
    wanted: Match,
    now: Timestamp,
) -> anyhow::Result<Resolved> {
    let Some(last) = snapshots.last() else {
        let message = "there is no snapshot of this store yet";
        return Err(Failure::new(ErrorKind::NotFound, message)
            .next("reinstate capture once")
            .into());
    };
    let exact = |snapshot: &SnapshotDescription| Resolved {
        snapshot: Arc::new(snapshot.clone()),
        earlier_by: None,
    };
    match point {
        PointInTime::Snapshot(prefix) => Ok(exact(find_snapshot(snapshots, prefix)?)),
        PointInTime::Latest { back } => {
            let place = snapshots.len().checked_sub(back + 1);
            match place {
                Some(place) => Ok(exact(&snapshots[place])),
                None => Err(Failure::new(
                    ErrorKind::NotFound,
                    format!("{point}: there are only {} snapshots", snapshots.len()),
                )
                .next("reinstate snapshots")
                .into()),
            }
        }
        PointInTime::Commit { commit, notation } => {
            by_position(snapshots, point, *commit, *notation, last, wanted)
        }
        PointInTime::Time(time) => by_time(snapshots, point, *time, wanted, now),
        PointInTime::Ago { micros } => {
            let time = Timestamp::from_micros(now.as_micros().saturating_sub(*micros));
            by_time(snapshots, point, time, wanted, now)
        }
    }
}

fn by_time(
    snapshots: &[SnapshotDescription],
    point: &PointInTime,
    time: Timestamp,
    wanted: Match,
    now: Timestamp,
) -> anyhow::Result<Resolved> {
    let before = snapshots.iter().filter(|found| found.taken_at <= time);
    let before = before.max_by_key(|found| (found.taken_at, found.position));
    let after = snapshots.iter().filter(|found| found.taken_at > time);
    let after = after.min_by_key(|found| (found.taken_at, found.position));
    let label = match point {
        PointInTime::Ago { .. } => format!("{point} ({time})"),
        _ => point.to_string(),
    };
    if let Some(found) = before {
        let gap = time.as_micros() - found.taken_at.as_micros();
        let may_be_earlier = wanted == Match::NearestBefore && time <= now;
        if gap == 0 || may_be_earlier {
            let earlier_by = (gap > 0).then(|| SignedDuration::from_micros(gap));
            let snapshot = Arc::new(found.clone());
            return Ok(Resolved {
                snapshot,
                earlier_by,
            });
        }
    }
    let label = if time > now {
        format!("{label} lies in the future")
    } else {
        place(&label, before, after)
    };
    Err(not_recoverable(&label, before, after))
}

fn by_position(
    snapshots: &[SnapshotDescription],
    point: &PointInTime,
    commit: u64,
    notation: PositionNotation,
    last: &SnapshotDescription,
    wanted: Match,
) -> anyhow::Result<Resolved> {
    if last.notation != notation {
        let shown = last.position.display(last.notation);
        let message = format!("{point}: positions of this store look like {shown}");
        return Err(Failure::usage(message).next("reinstate snapshots").into());
    }
    let position = Position { commit, ordinal: 0 };
    let before = snapshots.iter().rfind(|found| found.position <= position);
    let after = snapshots.iter().find(|found| found.position > position);
    if let Some(found) = before {
        let is_exact = found.position == position;
        if is_exact || wanted == Match::NearestBefore {
            // How long the commits in between took, nobody has written down.
            return Ok(Resolved {
                snapshot: Arc::new(found.clone()),
                earlier_by: (!is_exact).then_some(SignedDuration::ZERO),
            });
        }
    }
    let label = place(&point.to_string(), before, after);
    Err(not_recoverable(&label, before, after))
}

/// Where a point lies that is no snapshot.
fn place(
    label: &str,
    before: Option<&SnapshotDescription>,
    after: Option<&SnapshotDescription>,
) -> String {
    let where_it_is = match (before, after) {
        (None, _) => "lies before the first snapshot",
        (_, None) => "lies after the latest snapshot",
        _ => "lies between snapshots",
    };
    format!("{label} {where_it_is}, and there is no change log")
}

fn not_recoverable(
    label: &str,
    before: Option<&SnapshotDescription>,
    after: Option<&SnapshotDescription>,
) -> anyhow::Error {
    let side = |name: &str, found: Option<&SnapshotDescription>| match found {
        Some(found) => format!(
            "{name} it: snap:{} of {} = {}",
            found.id.short(),
            found.taken_at,
            found.position.display(found.notation)
        ),
        None => format!("{name} it: none"),
    };
    let (earlier, later) = (side("before", before), side("after", after));
    let message = format!("{label}; {earlier}; {later}");
    let usable = [before, after];
    let commands: Vec<_> = usable
        .iter()
        .flatten()
        .map(|found| format!("--at snap:{}", found.id.short()))
        .collect();
    let next = match before {
        Some(_) => format!("{}, or add --nearest-before", commands.join(" or ")),
        None => commands.join(" or "),
    };
    Failure::new(ErrorKind::NotRecoverable, message)
        .next(next)
        .into()
}
