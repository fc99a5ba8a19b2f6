//! `capture follow`, `capture compact` and `capture end`: the change log of the live store.

use std::sync::Arc;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use reinstate::{
    CaptureOptions, FollowOptions, Follower, Log, LogRun, LogVersion, begin_log,
    compact as compact_log, logs,
};
use reinstate_core::{
    ErrorKind, FeedHealth, FeedSource, LiveStore, Phase, Position, PositionNotation, Repository,
    SnapshotId,
};
use reinstate_repository::LocalRepository;
use serde::Serialize;

use super::capture::report;
use crate::adapters;
use crate::arguments::Follow;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::holder;
use crate::progress::Progress;
use crate::render::{bytes, counted};
use crate::session::{Session, new_snapshot, now};

/// The lock of those who follow the store.
const FOLLOWER_LOCK: &str = "follower";
/// How often a wait looks whether it was asked to stop.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Serialize)]
struct RunRecord {
    #[serde(rename = "type")]
    record: &'static str,
    snapshot: String,
    number: u64,
    through: String,
    latest_time: Option<String>,
    commits: u64,
    changes: u64,
    stored_bytes: u64,
}

/// `capture follow`.
pub fn run(arguments: &Follow, session: &Session<'_>) -> anyhow::Result<Exit> {
    let repository = session.repository()?;
    let _lock = holder::lock(&repository, FOLLOWER_LOCK, || {
        "somebody else follows into this repository".to_owned()
    })?;
    let source = session.feed_source()?;
    let snapshot = choose(arguments, session, &repository, source.as_ref())?;
    let progress = Progress::new(&[], 0);
    let mut options = FollowOptions::default();
    options.compression_level = arguments.level;
    let context = session.context(&progress);
    let mut follower = Follower::start(context, source.as_ref(), &repository, snapshot, options)
        .map_err(ended(snapshot))?;
    let log = follower.log();
    session.console.note(format_args!(
        "following from {}, behind {} of the log of snapshot {}",
        log.through().display(log.snapshot().notation),
        counted(log.runs().len() as u64, "run", "runs"),
        snapshot.short()
    ));
    if arguments.once {
        // The mark comes out behind everything that was committed by now, however busy the store is.
        let now_there = source.read_view()?.position();
        follower.mark()?;
        return catch_up(session, &mut follower, snapshot, now_there);
    }
    std::thread::scope(|scope| {
        let mut bases = Bases {
            every: session.configuration.base_every,
            scope,
            making: None,
        };
        go_on(arguments, session, &mut follower, snapshot, &mut bases)
    })
}

/// Makes a younger snapshot from time to time, beside the following.
struct Bases<'scope, 'env> {
    every: Option<Duration>,
    scope: &'scope Scope<'scope, 'env>,
    making: Option<ScopedJoinHandle<'scope, anyhow::Result<Exit>>>,
}

impl<'scope> Bases<'scope, '_> {
    /// Starts to make one if it is time, and reports one that is made.
    fn look(
        &mut self,
        level: i32,
        session: &'scope Session<'_>,
        repository: &dyn Repository,
        log: SnapshotId,
    ) -> anyhow::Result<()> {
        let Some(every) = self.every else {
            return Ok(());
        };
        if let Some(making) = &self.making {
            if !making.is_finished() {
                return Ok(());
            }
            let made = self.making.take().map(ScopedJoinHandle::join);
            if let Some(Ok(Err(error))) = made {
                session
                    .console
                    .warn(format_args!("no younger snapshot was made: {error:#}"));
            }
        }
        let youngest = logs(repository)?
            .0
            .into_iter()
            .filter(|found| found.id() == log)
            .map(|found| found.snapshot().taken_at)
            .max();
        let age = youngest.map_or(0, |at| now().as_micros().saturating_sub(at.as_micros()));
        if Duration::from_micros(u64::try_from(age).unwrap_or(0)) < every {
            return Ok(());
        }
        self.making = Some(self.scope.spawn(move || compact(level, session)));
        Ok(())
    }
}

/// `capture compact`.
pub fn compact(level: i32, session: &Session<'_>) -> anyhow::Result<Exit> {
    let repository = session.repository()?;
    let _writer = adapters::lock(&repository)?;
    let logs = session.logs_of(&repository, None)?;
    let Some(log) = logs.iter().rev().find(|log| !log.runs().is_empty()) else {
        let message = "there is no change log to make a younger snapshot of";
        return Err(Failure::new(ErrorKind::NotFound, message)
            .next("reinstate capture follow")
            .into());
    };
    let same = logs
        .iter()
        .find(|other| other.id() == log.id() && other.snapshot().position == log.through());
    if let Some(same) = same {
        session.console.line(format_args!(
            "nothing came after snapshot {}: there is no younger one to make",
            same.snapshot().id.short()
        ));
        return Ok(Exit::Done);
    }
    let mut options = CaptureOptions::new(new_snapshot()?, now());
    options.compression_level = level;
    options.layout = session.configuration.layout;
    let progress = Progress::new(&[Phase::Write], 0);
    let started = Instant::now();
    let made = compact_log(session.context(&progress), &repository, log, &options)?;
    progress.clear();
    if let Some(snapshot) = made {
        report(session.console, &snapshot, started.elapsed());
    }
    Ok(Exit::Done)
}

/// Follows until the log has everything up to this position, which comes before that of a commit.
fn catch_up(
    session: &Session<'_>,
    follower: &mut Follower<'_>,
    snapshot: SnapshotId,
    until: Position,
) -> anyhow::Result<Exit> {
    loop {
        let did = match (
            step(session, follower, snapshot),
            session.interruption.exit(),
        ) {
            (_, Some(exit)) => return Ok(exit),
            (did, None) => did?,
        };
        if follower.log().through() > until {
            return Ok(Exit::Done);
        }
        if !did.has_more {
            std::thread::sleep(LOOK);
        }
    }
}

fn go_on<'scope>(
    arguments: &Follow,
    session: &'scope Session<'_>,
    follower: &mut Follower<'_>,
    snapshot: SnapshotId,
    bases: &mut Bases<'scope, '_>,
) -> anyhow::Result<Exit> {
    let repository = session.repository()?;
    let mut quiet_since = Instant::now();
    loop {
        let did = match (
            step(session, follower, snapshot),
            session.interruption.exit(),
        ) {
            // What was not published yet comes again.
            (Err(_), Some(exit)) => return Ok(exit),
            (did, _) => did?,
        };
        if !did.sealed.is_empty() {
            bases.look(arguments.level, session, &repository, snapshot)?;
        }
        if !did.sealed.is_empty() {
            quiet_since = Instant::now();
        }
        if let Some(exit) = session.interruption.exit() {
            return Ok(exit);
        }
        if did.has_more {
            continue;
        }
        // A mark is the proof that nothing else was committed before it: without one the last minutes
        // of a quiet store could not be gone back to.
        if quiet_since.elapsed() >= arguments.mark_every() {
            follower.mark()?;
            quiet_since = Instant::now();
            continue;
        }
        let until = Instant::now() + arguments.every();
        while Instant::now() < until && session.interruption.exit().is_none() {
            std::thread::sleep(LOOK);
        }
    }
}

fn step(
    session: &Session<'_>,
    follower: &mut Follower<'_>,
    snapshot: SnapshotId,
) -> anyhow::Result<reinstate::FollowStep> {
    let notation = follower.log().snapshot().notation;
    let step = follower.step(now()).map_err(ended(snapshot))?;
    step.sealed
        .iter()
        .for_each(|run| show(session, run, notation));
    let versions = follower.log().versions();
    for version in &versions[versions.len() - step.versions..] {
        show_tables(session, version, notation);
    }
    Ok(step)
}

fn show(session: &Session<'_>, run: &LogRun, notation: PositionNotation) {
    let run = &run.description;
    let record = RunRecord {
        record: "log_run",
        snapshot: run.log.to_string(),
        number: run.number,
        through: run.through.display(notation),
        latest_time: run.latest_time.map(|time| time.to_string()),
        commits: run.commit_count,
        changes: run.extent.change_count,
        stored_bytes: run.extent.segment_bytes + run.extent.commits_bytes,
    };
    session.console.record(&record);
    session.console.line(format_args!(
        "sealed   run {}: {}, {}, {} through {} {}",
        record.number,
        counted(record.commits, "commit", "commits"),
        counted(record.changes, "change", "changes"),
        bytes(record.stored_bytes),
        record.through,
        record.latest_time.as_deref().unwrap_or_default()
    ));
}

#[derive(Serialize)]
struct TablesRecord {
    #[serde(rename = "type")]
    record: &'static str,
    snapshot: String,
    after: String,
    tables: usize,
}

fn show_tables(session: &Session<'_>, version: &LogVersion, notation: PositionNotation) {
    let version = &version.description;
    let record = TablesRecord {
        record: "log_tables",
        snapshot: version.log.to_string(),
        after: version.after.display(notation),
        tables: version.change.schema().tables().len(),
    };
    session.console.record(&record);
    session.console.line(format_args!(
        "tables   were altered after {}: the log goes on with {} as they are",
        record.after,
        counted(record.tables as u64, "table", "tables"),
    ));
}

/// Which log to go on with; a new one if there is none, or if that is asked for.
fn choose(
    arguments: &Follow,
    session: &Session<'_>,
    repository: &LocalRepository,
    source: &dyn FeedSource,
) -> anyhow::Result<SnapshotId> {
    let known = known_feeds(session, repository, source)?;
    let old = known.last().map(|feed| feed.snapshot);
    if let (Some(snapshot), false) = (old, arguments.new_base) {
        return Ok(snapshot);
    }
    let logs = session.logs_of(repository, Some(source))?;
    let ended = logs.iter().rev().find(|log| !log.runs().is_empty());
    if let (Some(log), true) = (ended, known.is_empty()) {
        session.console.warn(format_args!(
            "the store keeps nothing for the log of snapshot {} any more, as after a standby took its \
             place: what was committed after {} and before the new snapshot is in NO log",
            log.snapshot().id.short(),
            log.through().display(log.snapshot().notation)
        ));
    }
    let snapshot = begin(arguments, session, repository, source)?;
    for feed in known {
        // The new log has everything from here on; what the old one has stays where it is.
        source.end_feed(feed.snapshot)?;
    }
    Ok(snapshot)
}

/// The feeds that go on from a snapshot of this repository, oldest first. Others are named: the store
/// keeps everything for them.
fn known_feeds(
    session: &Session<'_>,
    repository: &LocalRepository,
    source: &dyn FeedSource,
) -> anyhow::Result<Vec<FeedHealth>> {
    let logs = session.logs_of(repository, Some(source))?;
    let mut known = Vec::new();
    let mut feeds = source.feeds()?;
    for log in &logs {
        let id = log.snapshot().id;
        if let Some(place) = feeds.iter().position(|feed| feed.snapshot == id) {
            known.push(feeds.remove(place));
        }
    }
    for feed in feeds {
        session.console.warn(format_args!(
            "the store keeps {} for a feed of snapshot {}, which is not in this repository: if \
             nobody else follows it, end it with: reinstate capture end {}",
            bytes(feed.kept_bytes),
            feed.snapshot.short(),
            feed.snapshot
        ));
    }
    Ok(known)
}

fn begin(
    arguments: &Follow,
    session: &Session<'_>,
    repository: &LocalRepository,
    source: &dyn FeedSource,
) -> anyhow::Result<SnapshotId> {
    let _writer = adapters::lock(repository)?;
    let mut options = CaptureOptions::new(new_snapshot()?, now());
    options.compression_level = arguments.level;
    options.layout = session.configuration.layout;
    let progress = Progress::new(&[Phase::Capture, Phase::Write], 0);
    let started = Instant::now();
    let context = session.context(&progress);
    let snapshot = begin_log(context, source, repository, &options)?;
    progress.clear();
    report(session.console, &snapshot, started.elapsed());
    Ok(snapshot.id)
}

/// What the end of a log means, in words.
fn ended(snapshot: SnapshotId) -> impl FnOnce(reinstate::Error) -> anyhow::Error {
    move |error| {
        if !matches!(
            error.kind(),
            ErrorKind::Stale | ErrorKind::NotRecoverable | ErrorKind::NotFound
        ) {
            return error.into();
        }
        let message = format!(
            "the log of snapshot {} ENDS here: what it has stays recoverable, what follows is not in it",
            snapshot.short()
        );
        Failure::new(ErrorKind::NotRecoverable, message)
            .because(error)
            .next("start a new one: reinstate capture follow --new-base")
            .into()
    }
}

/// `capture end SNAPSHOT`.
pub fn end(prefix: &str, session: &Session<'_>) -> anyhow::Result<Exit> {
    let source = session.feed_source()?;
    let feeds = source.feeds()?;
    let prefix = prefix.strip_prefix("snap:").unwrap_or(prefix);
    let found: Vec<_> = feeds
        .iter()
        .filter(|feed| prefix.len() >= 4 && feed.snapshot.to_string().starts_with(prefix))
        .collect();
    let [feed] = found.as_slice() else {
        let names: Vec<_> = feeds.iter().map(|feed| feed.snapshot.to_string()).collect();
        let message = format!(
            "{} of {} begin with {prefix:?}: {}",
            found.len(),
            counted(feeds.len() as u64, "feed", "feeds"),
            names.join(", ")
        );
        return Err(Failure::new(ErrorKind::NotFound, message)
            .next("reinstate status")
            .into());
    };
    source.end_feed(feed.snapshot)?;
    session.console.line(format_args!(
        "ended    the feed of snapshot {}: the store keeps nothing for it any more ({} until now)",
        feed.snapshot.short(),
        bytes(feed.kept_bytes)
    ));
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct FeedRecord {
    #[serde(rename = "type")]
    record: &'static str,
    snapshot: String,
    acknowledged: String,
    published: Option<String>,
    lag_seconds: Option<f64>,
    lag_bytes: u64,
    lost: Option<String>,
}

/// `status`: how the feeds are, and how far behind. A log with a hole is said whether anybody follows it or
/// not.
pub fn status(session: &Session<'_>) -> anyhow::Result<Exit> {
    let repository = session.repository()?;
    let source = session.feed_source()?;
    let (console, notation) = (session.console, source.notation());
    let live: &dyn LiveStore = source.as_ref();
    // Read first: what was acknowledged by then is written down when the logs are read.
    let feeds = source.feeds()?;
    let logs = session.logs_of(&repository, Some(live))?;
    if feeds.is_empty() {
        console.line("nobody follows this store: reinstate capture follow");
    }
    let mut exit = Exit::Done;
    for log in logs.iter().filter(|log| log.damage().is_some()) {
        exit = Exit::Unproven;
        say_hole(session, log);
    }
    for feed in feeds {
        let log = logs.iter().find(|log| log.snapshot().id == feed.snapshot);
        show_feed(
            session,
            &repository,
            (&feed, notation),
            log.map(Arc::as_ref),
        )?;
        let is_short = |log: &&Arc<Log>| log.through() < feed.acknowledged;
        if let Some(log) = log.filter(is_short) {
            if log.damage().is_none() {
                say_hole(session, log);
            }
            exit = Exit::Unproven;
        }
        if let Some(lost) = &feed.lost {
            if exit == Exit::Done {
                exit = Exit::NotRecoverable;
            }
            console.warn(format_args!(
                "that feed is LOST ({lost}): its log ends where it is. Start a new one: reinstate \
                 capture follow --new-base"
            ));
        }
    }
    Ok(exit)
}

/// Says that what a log had behind its end is not there.
fn say_hole(session: &Session<'_>, log: &Log) {
    session.console.warn(format_args!(
        "the log of snapshot {} has a HOLE: it ends at {}, and what was written down behind that is damaged or \
         missing. No time behind it can be gone back to before the next snapshot. See: reinstate verify. Start a new \
         one: reinstate capture follow --new-base",
        log.snapshot().id.short(),
        log.through().display(log.snapshot().notation)
    ));
}

fn show_feed(
    session: &Session<'_>,
    repository: &LocalRepository,
    (feed, notation): (&FeedHealth, PositionNotation),
    log: Option<&Log>,
) -> anyhow::Result<()> {
    let console = session.console;
    let published = log.map(|log| log.through().display(notation));
    let last = match log {
        Some(log) => log
            .around(repository as &dyn Repository, log.through())?
            .and_then(|around| around.before)
            .map(|commit| commit.time)
            .or(Some(log.snapshot().taken_at)),
        None => None,
    };
    let seconds = last.map(|last| {
        let micros = now().as_micros().saturating_sub(last.as_micros());
        Duration::from_micros(u64::try_from(micros).unwrap_or(0)).as_secs_f64()
    });
    let record = FeedRecord {
        record: "feed",
        snapshot: feed.snapshot.to_string(),
        acknowledged: feed.acknowledged.display(notation),
        published,
        lag_seconds: seconds,
        lag_bytes: feed.kept_bytes,
        lost: feed.lost.clone(),
    };
    console.record(&record);
    let through = match (&record.published, seconds) {
        (Some(published), Some(seconds)) => {
            format!("published through {published}, last commit {seconds:.0} s ago")
        }
        _ => "of no snapshot in this repository".to_owned(),
    };
    console.line(format_args!(
        "feed     snapshot {}: {through}; the store keeps {} for it",
        feed.snapshot.short(),
        bytes(feed.kept_bytes)
    ));
    Ok(())
}
