//! Which position a point in time means.
//!
//! A snapshot is a point; with its change log so is every commit after it. What is not proven to be
//! covered is refused with the nearest points named, unless the nearest one before is asked for.

use std::sync::Arc;

use jiff::SignedDuration;
use reinstate::{
    Context, Error, Log, Moment, RestorePoint, Surroundings, TenantImage, extract, extract_all,
    extract_all_at, extract_at, find_snapshot,
};
use reinstate_core::{
    Commit, ErrorKind, Position, PositionNotation, Repository, SnapshotDescription, Tenant,
    Timestamp,
};
use serde::Serialize;

use crate::console::Console;
use crate::failure::Failure;
use crate::point::PointInTime;

/// Which point near the one that was typed will do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// The latest one at or before it, if it is not covered itself.
    pub nearest_before: bool,
    /// The one just before it: what was committed at that very time or position is left out.
    pub exclusive: bool,
}

/// A point in time that was found.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The snapshot, and its log as far as it is known.
    pub log: Arc<Log>,
    /// The snapshot.
    pub snapshot: Arc<SnapshotDescription>,
    /// The point: the snapshot's own, or one of its log.
    pub point: RestorePoint,
    /// The commits around it, if it is one of the log.
    pub around: Option<Surroundings>,
    /// How much earlier than asked for it is, where that is known and not nothing.
    pub earlier_by: Option<SignedDuration>,
}

impl Match {
    /// What the flag `--nearest-before` means.
    #[must_use]
    pub const fn of(nearest_before: bool) -> Self {
        Self {
            nearest_before,
            exclusive: false,
        }
    }

    /// With what the flag `--exclusive` means.
    #[must_use]
    pub const fn exclusive(self, exclusive: bool) -> Self {
        Self { exclusive, ..self }
    }
}

#[derive(Serialize)]
struct CommitRecord {
    position: String,
    time: String,
}

#[derive(Serialize)]
struct TargetRecord {
    #[serde(rename = "type")]
    record: &'static str,
    asked: String,
    time: String,
    position: String,
    snapshot: String,
    last_commit: Option<CommitRecord>,
    next_commit: Option<CommitRecord>,
    earlier_by_seconds: Option<f64>,
}

impl Resolved {
    fn of_snapshot(log: &Arc<Log>) -> Self {
        let snapshot = Arc::clone(log.snapshot());
        Self {
            point: RestorePoint {
                position: snapshot.position,
                time: snapshot.taken_at,
            },
            snapshot,
            log: Arc::clone(log),
            around: None,
            earlier_by: None,
        }
    }

    fn of_log(log: &Arc<Log>, around: Surroundings, time: Option<Timestamp>) -> Self {
        let snapshot = log.snapshot_at(around.position);
        let last = around.before.map(|commit| commit.time);
        Self {
            point: RestorePoint {
                position: around.position,
                time: time.or(last).unwrap_or(snapshot.taken_at),
            },
            snapshot,
            log: Arc::clone(log),
            around: Some(around),
            earlier_by: None,
        }
    }

    /// One tenant at this point.
    ///
    /// # Errors
    /// See [`extract`] and [`extract_at`].
    pub fn image(
        &self,
        context: Context<'_>,
        repository: &dyn Repository,
        tenant: &Tenant,
    ) -> Result<TenantImage, Error> {
        if self.point.position == self.snapshot.position {
            return extract(repository, &self.snapshot, tenant);
        }
        extract_at(context, repository, &self.log, self.point, tenant)
    }

    /// Many tenants at this point, in their order; each of them may be missing.
    ///
    /// # Errors
    /// See [`extract_all`] and [`extract_all_at`].
    pub fn images(
        &self,
        context: Context<'_>,
        repository: &dyn Repository,
        tenants: &[Tenant],
    ) -> Result<Vec<Result<TenantImage, Error>>, Error> {
        if self.point.position == self.snapshot.position {
            return Ok(extract_all(context, repository, &self.snapshot, tenants));
        }
        extract_all_at(context, repository, &self.log, self.point, tenants)
    }

    /// A form of the point that can be typed again.
    #[must_use]
    pub fn name(&self) -> String {
        if self.point.position == self.snapshot.position {
            return format!("snap:{}", self.snapshot.id.short());
        }
        self.point.position.display(self.snapshot.notation)
    }

    /// Says which point was found: always, because a time typed is not yet a position.
    pub fn announce(&self, console: &Console, asked: &PointInTime) {
        let snapshot = &self.snapshot;
        let shown = |position: Position| position.display(snapshot.notation);
        let record = |commit: Option<Commit>| {
            commit.map(|commit| CommitRecord {
                position: shown(commit.position),
                time: commit.time.to_string(),
            })
        };
        let before = self.around.and_then(|around| around.before);
        let after = self.around.and_then(|around| around.after);
        console.record(&TargetRecord {
            record: "target",
            asked: asked.to_string(),
            time: self.point.time.to_string(),
            position: shown(self.point.position),
            snapshot: snapshot.id.to_string(),
            last_commit: record(before),
            next_commit: record(after),
            earlier_by_seconds: self.earlier_by.map(|gap| gap.as_secs_f64()),
        });
        if self.around.is_none() {
            console.note(format_args!("{asked} is {}", describe(snapshot)));
        } else {
            let log = self.log.snapshot().id.short();
            console.note(format_args!(
                "{asked} is {} = {}    snapshot {log} and its log",
                self.point.time,
                shown(self.point.position)
            ));
            let side = |commit: Option<Commit>, none: &str| match commit {
                Some(commit) => format!("{} {}", shown(commit.position), commit.time),
                None => none.to_owned(),
            };
            console.note(format_args!(
                "last commit in it: {}; first not in it: {}",
                side(before, "none after the snapshot"),
                side(after, "none yet")
            ));
        }
        match self.earlier_by {
            Some(gap) if gap.is_zero() => console.warn(format_args!(
                "commits between {} and {asked} are NOT in it",
                shown(self.point.position)
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

/// Finds the point. `logs` are those of one store, oldest first.
///
/// # Errors
/// `NotFound` if there are no snapshots or none of that id; `NotRecoverable` if the point is not
/// covered; usage, if the store writes positions in another way; `Corrupt` if a log is damaged.
pub fn resolve(
    repository: &dyn Repository,
    logs: &[Arc<Log>],
    point: &PointInTime,
    wanted: Match,
    now: Timestamp,
) -> anyhow::Result<Resolved> {
    if logs.is_empty() {
        let message = "there is no snapshot of this store yet";
        return Err(Failure::new(ErrorKind::NotFound, message)
            .next("reinstate capture once")
            .into());
    }
    let search = Search {
        repository,
        logs,
        point,
        wanted,
        now,
    };
    match point {
        PointInTime::Snapshot(prefix) => search.snapshot(prefix),
        PointInTime::Latest { back } => match logs.len().checked_sub(back + 1) {
            Some(place) => Ok(Resolved::of_snapshot(&logs[place])),
            None => Err(Failure::new(
                ErrorKind::NotFound,
                format!("{point}: there are only {} snapshots", logs.len()),
            )
            .next("reinstate snapshots")
            .into()),
        },
        PointInTime::Commit { commit, notation } => search.position(*commit, *notation),
        PointInTime::Time(time) => search.time(*time),
        PointInTime::Unclear { fact, readings, .. } => Err(search.unclear(fact, readings)?),
        PointInTime::Ago { micros } => {
            let time = Timestamp::from_micros(now.as_micros().saturating_sub(*micros));
            search.time(time)
        }
    }
}

/// A point that is looked for.
struct Search<'a> {
    repository: &'a dyn Repository,
    logs: &'a [Arc<Log>],
    point: &'a PointInTime,
    wanted: Match,
    now: Timestamp,
}

impl Search<'_> {
    fn snapshot(&self, prefix: &str) -> anyhow::Result<Resolved> {
        let snapshots: Vec<SnapshotDescription> = self
            .logs
            .iter()
            .map(|log| log.snapshot().as_ref().clone())
            .collect();
        let id = find_snapshot(&snapshots, prefix)?.id;
        let log = self.logs.iter().find(|log| log.snapshot().id == id);
        Ok(Resolved::of_snapshot(log.expect("BUG: found just now")))
    }

    fn time(&self, time: Timestamp) -> anyhow::Result<Resolved> {
        let taken = |log: &Arc<Log>| log.snapshot().taken_at;
        let exact = self.logs.iter().rev().find(|log| taken(log) == time);
        if let (Some(log), false) = (exact, self.wanted.exclusive) {
            return Ok(Resolved::of_snapshot(log));
        }
        let moment = Moment {
            time,
            exclusive: self.wanted.exclusive,
        };
        // The youngest snapshot that is old enough leaves the least of its log to read.
        let old_enough = |log: &&Arc<Log>| taken(log) < time;
        for log in self.logs.iter().rev().filter(old_enough) {
            if let Some(around) = log.at(self.repository, moment)? {
                return Ok(Resolved::of_log(log, around, Some(time)));
            }
        }
        let before =
            self.points(|log| taken(log) <= time && !moment_excludes(moment, taken(log)))?;
        let before = before.into_iter().filter(|found| found.point.time <= time);
        let before = before.max_by_key(|found| (found.point.time, found.point.position));
        if let (Some(mut found), true) = (
            before.clone(),
            self.wanted.nearest_before && time <= self.now,
        ) {
            let gap = time.as_micros() - found.point.time.as_micros();
            found.earlier_by = (gap > 0).then(|| SignedDuration::from_micros(gap));
            return Ok(found);
        }
        let after = self.logs.iter().filter(|log| taken(log) > time);
        let after = after.min_by_key(|log| (taken(log), log.snapshot().position));
        let label = match self.point {
            PointInTime::Ago { .. } => format!("{} ({time})", self.point),
            _ => self.point.to_string(),
        };
        if time > self.now {
            let label = format!("{label} lies in the future");
            return Err(not_recoverable(&label, before.as_ref(), after, false));
        }
        let label = place(&label, before.as_ref(), after);
        Err(not_recoverable(&label, before.as_ref(), after, true))
    }

    /// Why a time means no moment, with the moments that it could mean and the points around those.
    fn unclear(&self, fact: &str, readings: &[Timestamp]) -> anyhow::Result<anyhow::Error> {
        let taken = |log: &Arc<Log>| log.snapshot().taken_at;
        let (Some(&first), Some(&last)) = (readings.first(), readings.last()) else {
            return Ok(Failure::usage(format!("{}: {fact}", self.point)).into());
        };
        let before = self.points(|log| taken(log) <= first)?;
        let before = before.into_iter().filter(|found| found.point.time <= first);
        let before = before.max_by_key(|found| (found.point.time, found.point.position));
        let after = self.points(|log| last < taken(log) || last < log.latest_time())?;
        let after = after.into_iter().filter(|found| last < found.point.time);
        let after = after.min_by_key(|found| (found.point.time, found.point.position));
        let label = format!("point in time {:?}: {fact}", self.point.to_string());
        let message = around(&label, before.as_ref(), after.as_ref());
        let exact: Vec<_> = readings.iter().map(|time| format!("--at {time}")).collect();
        let next = match exact.as_slice() {
            [one] => format!("{one}, if that was meant"),
            several => format!("{}, whichever was meant", several.join(" or ")),
        };
        let failure = Failure::new(ErrorKind::NotRecoverable, message).next(next);
        Ok(failure.into())
    }

    fn position(&self, commit: u64, notation: PositionNotation) -> anyhow::Result<Resolved> {
        let last = self.logs.last().expect("BUG: there are logs").snapshot();
        let point = self.point;
        if last.notation != notation {
            let shown = last.position.display(last.notation);
            let message = format!("{point}: positions of this store look like {shown}");
            return Err(Failure::usage(message).next("reinstate snapshots").into());
        }
        let commit = commit - u64::from(self.wanted.exclusive && commit > 0);
        let position = Position { commit, ordinal: 0 };
        let at = |log: &Arc<Log>| log.snapshot().position;
        if let Some(log) = self.logs.iter().rfind(|log| at(log) == position) {
            return Ok(Resolved::of_snapshot(log));
        }
        for log in self.logs.iter().rev().filter(|log| at(log) < position) {
            if let Some(around) = log.around(self.repository, position)? {
                return Ok(Resolved::of_log(log, around, None));
            }
        }
        let before = self.points(|log| at(log) <= position)?;
        let before = before.into_iter().max_by_key(|found| found.point.position);
        if let (Some(mut found), true) = (before.clone(), self.wanted.nearest_before) {
            // How long the commits in between took, nobody has written down.
            found.earlier_by = Some(SignedDuration::ZERO);
            return Ok(found);
        }
        let after = self.logs.iter().find(|log| at(log) > position);
        let label = place(&point.to_string(), before.as_ref(), after);
        Err(not_recoverable(&label, before.as_ref(), after, true))
    }

    /// The snapshots of these logs, and the ends of the logs.
    fn points(&self, wanted: impl Fn(&Arc<Log>) -> bool) -> anyhow::Result<Vec<Resolved>> {
        let mut points = Vec::new();
        for log in self.logs.iter().filter(|log| wanted(log)) {
            points.push(Resolved::of_snapshot(log));
            if log.through() > log.snapshot().position
                && let Some(around) = log.around(self.repository, log.through())?
            {
                points.push(Resolved::of_log(log, around, None));
            }
        }
        Ok(points)
    }
}

fn moment_excludes(moment: Moment, time: Timestamp) -> bool {
    moment.exclusive && time == moment.time
}

/// Where a point lies that is not covered.
fn place(label: &str, before: Option<&Resolved>, after: Option<&Arc<Log>>) -> String {
    let log = before.map(|found| &found.log);
    let has_log = log.is_some_and(|log| !log.runs().is_empty());
    let is_damaged = log.is_some_and(|log| log.damage().is_some());
    let where_it_is = match (before, after) {
        (None, _) => "lies before the first snapshot",
        (Some(_), _) if is_damaged => {
            "lies behind a record of the change log that is damaged or missing"
        }
        (Some(_), None) if has_log => "lies after what the change log has so far",
        (Some(_), Some(_)) if has_log => "lies in a gap between a change log and the next snapshot",
        (Some(_), None) => "lies after the latest snapshot, and there is no change log",
        (Some(_), Some(_)) => "lies between snapshots, and there is no change log",
    };
    format!("{label} {where_it_is}")
}

/// What is said of a point, with those that can be gone back to on both sides of it.
fn around(label: &str, before: Option<&Resolved>, after: Option<&Resolved>) -> String {
    let side = |name: &str, found: Option<&Resolved>| match found {
        Some(found) => {
            let typed = found.name();
            let position = found.point.position.display(found.snapshot.notation);
            let position = match typed == position {
                true => String::new(),
                false => format!(" = {position}"),
            };
            format!("{name} it: {typed} of {}{position}", found.point.time)
        }
        None => format!("{name} it: none"),
    };
    let (earlier, later) = (side("before", before), side("after", after));
    format!("{label}; {earlier}; {later}")
}

fn not_recoverable(
    label: &str,
    before: Option<&Resolved>,
    after: Option<&Arc<Log>>,
    takes_nearest: bool,
) -> anyhow::Error {
    let after = after.map(Resolved::of_snapshot);
    let message = around(label, before, after.as_ref());
    let usable = [before, after.as_ref()];
    let commands: Vec<_> = usable
        .iter()
        .flatten()
        .map(|found| format!("--at {}", found.name()))
        .collect();
    let next = match before {
        Some(_) if takes_nearest => format!("{}, or add --nearest-before", commands.join(" or ")),
        _ => commands.join(" or "),
    };
    Failure::new(ErrorKind::NotRecoverable, message)
        .next(next)
        .into()
}
