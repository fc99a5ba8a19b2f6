//! `drill`: tenants drawn by lot are restored beside the live store, proven, and taken away again.
//!
//! What is measured is what an incident would take: how long a tenant takes to come back, and how much
//! of the latest past could not come back. Nothing is written to the live store or to the repository.

mod draw;
mod ground;
mod publish;
mod stand_in;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use reinstate_core::{Digest, ErrorKind, Silent, Timestamp};
use serde::Serialize;

use crate::arguments::Drill;
use crate::exit::Exit;
use crate::failure::{Failure, exit_of, one_line};
use crate::render::counted;
use crate::session::{Session, now, random};

use draw::{Lot, Lots, newest_point};
use ground::Ground;
use publish::{Published, publish};

/// What one tenant's drill came to.
#[derive(Clone, Copy, Debug)]
struct Drilled {
    rows: u64,
    tables: usize,
    image: Digest,
    took: Duration,
}

/// `drill`.
pub fn run(arguments: &Drill, session: &Session<'_>) -> anyhow::Result<Exit> {
    let mut published = Published::nothing(now());
    let result = drill(arguments, session, &mut published);
    if let Some(path) = &arguments.publish {
        publish(path, &published)
            .with_context(|| format!("publish the drill in {}", path.display()))?;
    }
    result
}

fn drill(
    arguments: &Drill,
    session: &Session<'_>,
    published: &mut Published,
) -> anyhow::Result<Exit> {
    let repository = session.repository()?;
    let logs = session.logs_of(&repository, None)?;
    if logs.is_empty() {
        let message = "there is no snapshot of this store yet: nothing could be brought back";
        return Err(Failure::new(ErrorKind::NotRecoverable, message)
            .next("reinstate capture once")
            .into());
    }
    let newest = newest_point(&repository, &logs)?;
    published.recovery_point_age = Some(between(newest, published.at));
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => u64::from_le_bytes(*random()?.first_chunk().context("random bytes")?),
    };
    let ground = Ground::prepare(session, &repository)?;
    let count = u64::from(arguments.tenants.get());
    session.console.line(format_args!(
        "drill    seed {seed}: {}, each at a moment of its own, into {}",
        counted(count, "tenant", "tenants"),
        ground.name()
    ));
    let mut lots = Lots::new(seed, &logs);
    let mut errors = Vec::new();
    for _ in 0..count {
        let (lot, image, found_in) = lots.draw(session.context(&Silent), &repository)?;
        let started = Instant::now();
        let drilled = ground.restore(session, &lot, &image).map(|proven| Drilled {
            rows: proven.rows,
            tables: proven.tables,
            image: image.digest(),
            took: found_in + (proven.proven_at - started),
        });
        show(session, &lot, &drilled);
        match drilled {
            Ok(drilled) => published.recovery_time = published.recovery_time.max(drilled.took),
            Err(error) => errors.push(error),
        }
        session.interruption.cancellation().check()?;
    }
    let failed = errors.len() as u64;
    let result = judge(arguments, published, errors);
    published.is_good = result.is_ok();
    summarise(
        session,
        seed,
        &ground,
        (count, failed),
        published,
        newest,
        &result,
    );
    result.map(|()| Exit::Done)
}

/// Whether the drill went as it has to.
fn judge(
    arguments: &Drill,
    published: &Published,
    errors: Vec<anyhow::Error>,
) -> anyhow::Result<()> {
    let count = arguments.tenants.get() as usize;
    let failed = errors.len();
    let is_damage = |error: &anyhow::Error| exit_of(error) == Exit::Unproven;
    let worst = errors.iter().position(is_damage).unwrap_or(0);
    if let Some(worst) = errors.into_iter().nth(worst) {
        let message = format!("{failed} of {count} tenants could not be brought back");
        // Damage is damage, whomever else it spares.
        if failed == count || is_damage(&worst) {
            return Err(worst.context(message));
        }
        return Err(Failure::ending(Exit::Partial, "partial", message)
            .because(worst)
            .next("see to it now: an incident would find it the same")
            .into());
    }
    let slow = arguments
        .recovery_time_max
        .filter(|max| published.recovery_time > *max);
    let age = published.recovery_point_age.unwrap_or_default();
    let old = arguments.recovery_point_max.filter(|max| age > *max);
    let (what, took, max, next) = match (slow, old) {
        (None, None) => return Ok(()),
        (Some(max), _) => (
            "a tenant took longer to come back than it may",
            published.recovery_time,
            max,
            "see what else the machine does, or raise --recovery-time-max",
        ),
        (None, Some(max)) => (
            "the newest moment that can be gone back to is older than it may be",
            age,
            max,
            "reinstate status; reinstate capture follow",
        ),
    };
    let message = format!(
        "{what}: {:.1} s, at most {:.1} s",
        took.as_secs_f64(),
        max.as_secs_f64()
    );
    Err(Failure::ending(Exit::Other, "too_late", message)
        .next(next)
        .into())
}

#[derive(Serialize)]
struct DrilledRecord {
    #[serde(rename = "type")]
    record: &'static str,
    tenant: String,
    time: String,
    position: String,
    snapshot: String,
    verdict: &'static str,
    rows: Option<u64>,
    tables: Option<usize>,
    image: Option<String>,
    seconds: Option<f64>,
    message: Option<String>,
}

fn show(session: &Session<'_>, lot: &Lot, drilled: &anyhow::Result<Drilled>) {
    let snapshot = lot.log.snapshot();
    let position = lot.point.position.display(snapshot.notation);
    let done = drilled.as_ref().ok();
    let message = drilled.as_ref().err().map(|error| one_line(error.as_ref()));
    session.console.record(&DrilledRecord {
        record: "drilled",
        tenant: lot.tenant.to_string(),
        time: lot.point.time.to_string(),
        position: position.clone(),
        snapshot: snapshot.id.to_string(),
        verdict: if done.is_some() { "restored" } else { "failed" },
        rows: done.map(|drilled| drilled.rows),
        tables: done.map(|drilled| drilled.tables),
        image: done.map(|drilled| drilled.image.to_string()),
        seconds: done.map(|drilled| drilled.took.as_secs_f64()),
        message: message.clone(),
    });
    let place = format!("{} at {} = {position}", lot.tenant, lot.point.time);
    match (done, message) {
        (Some(drilled), _) => session.console.line(format_args!(
            "proven   {place}    {} in {} read back and equal, {:.2} s",
            counted(drilled.rows, "row", "rows"),
            counted(drilled.tables as u64, "table", "tables"),
            drilled.took.as_secs_f64()
        )),
        (None, message) => session.console.line(format_args!(
            "FAILED   {place}    {}",
            message.unwrap_or_default()
        )),
    }
}

#[derive(Serialize)]
struct DrillRecord<'a> {
    #[serde(rename = "type")]
    record: &'static str,
    seed: u64,
    into: &'a str,
    tenants: u64,
    proven: u64,
    recovery_time_seconds: f64,
    recovery_point: String,
    recovery_point_age_seconds: Option<f64>,
    exit_code: u8,
}

fn summarise(
    session: &Session<'_>,
    seed: u64,
    ground: &Ground,
    (count, failed): (u64, u64),
    published: &Published,
    newest: Timestamp,
    result: &anyhow::Result<()>,
) {
    let exit = result.as_ref().err().map_or(Exit::Done, exit_of);
    let age = published.recovery_point_age.map(|age| age.as_secs_f64());
    session.console.record(&DrillRecord {
        record: "drill",
        seed,
        into: ground.name(),
        tenants: count,
        proven: count - failed,
        recovery_time_seconds: published.recovery_time.as_secs_f64(),
        recovery_point: newest.to_string(),
        recovery_point_age_seconds: age,
        exit_code: exit.code(),
    });
    session.console.line(format_args!(
        "drill    {} of {} proven; the slowest took {:.2} s; what was written until {newest} could be \
         brought back, {:.0} s ago",
        count - failed,
        counted(count, "tenant", "tenants"),
        published.recovery_time.as_secs_f64(),
        age.unwrap_or_default()
    ));
}

/// The time from one moment to another; nothing if it is the earlier one.
fn between(from: Timestamp, to: Timestamp) -> Duration {
    let micros = to.as_micros().saturating_sub(from.as_micros());
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
