//! Pace: how fast a run may write to one live store, so that those who use it are not kept waiting.
//!
//! Rows per second can be capped, and the time that a probe of the store takes, which does the least that
//! a user does. Too slow a probe stops the writing for a while and halves its speed; as long as probes are
//! fast it grows again. A merge asks between tenants; inside of one only where the store says that no
//! lock is held while rows are handed over, as the engine never waits for its pace in the middle of a
//! transaction that stands in somebody's way.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reinstate_core::{Cancellation, Clock, StoreError};

/// How often the store is probed while there is something to write.
const PROBE_EVERY: Duration = Duration::from_millis(200);
/// The longest wait before it is looked again whether the run was stopped or the limits were changed.
const WAIT_MAX: Duration = Duration::from_millis(50);
/// Nothing is written for so many times as long as too slow a probe took, but for a second at most.
const RELIEF: u32 = 10;
const RELIEF_MAX: Duration = Duration::from_secs(1);
/// What the speed becomes after a probe that was too slow, and after one that was fast.
const SLOWER: f64 = 0.5;
const FASTER: f64 = 1.25;
/// The part of the highest latency below which a probe is fast.
const FAST: f64 = 0.8;
/// However slow the store is, a run gets on: rows per second.
const SPEED_MIN: f64 = 50.0;
/// How many times the speed that was reached a limit may be before it is none.
const SPEED_OUT_OF_REACH: f64 = 4.0;
/// What limits are called in text.
const ROWS_KEY: &str = "rows_per_second=";
const LATENCY_KEY: &str = "latency_max_us=";

/// What a run must keep to. Without either, it writes as fast as it can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PaceLimits {
    /// The most rows in a second, on average.
    pub rows_per_second: Option<NonZeroU64>,
    /// The longest that a probe of the store should take.
    pub latency_max: Option<Duration>,
}

/// As in `rows_per_second=5000 latency_max_us=20000`; `none` without limits.
impl fmt::Display for PaceLimits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.rows_per_second, self.latency_max) {
            (None, None) => return formatter.write_str("none"),
            (Some(rows), None) => write!(formatter, "{ROWS_KEY}{rows}"),
            (None, Some(_)) => Ok(()),
            (Some(rows), Some(_)) => write!(formatter, "{ROWS_KEY}{rows} "),
        }?;
        match self.latency_max {
            Some(latency) => write!(formatter, "{LATENCY_KEY}{}", latency.as_micros()),
            None => Ok(()),
        }
    }
}

/// Limits that are not written as they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limits are written as in rows_per_second=5000 latency_max_us=20000, or none")]
pub struct PaceLimitsError;

impl FromStr for PaceLimits {
    type Err = PaceLimitsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut limits = Self::default();
        if text == "none" {
            return Ok(limits);
        }
        for word in text.split(' ') {
            if let Some(rows) = word.strip_prefix(ROWS_KEY) {
                limits.rows_per_second = Some(rows.parse().map_err(|_| PaceLimitsError)?);
            } else if let Some(micros) = word.strip_prefix(LATENCY_KEY) {
                let micros = micros.parse().map_err(|_| PaceLimitsError)?;
                limits.latency_max = Some(Duration::from_micros(micros));
            } else {
                return Err(PaceLimitsError);
            }
        }
        Ok(limits)
    }
}

/// What became of the pace so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PaceReport {
    /// Rows handed to the store.
    pub rows: u64,
    /// How long nothing was written because of the limits.
    pub waited: Duration,
    /// How often the store was probed, and how often that took too long.
    pub probes: u64,
    /// How many of the probes took longer than they should.
    pub slow_probes: u64,
    /// How long the last probe took; none if there was none.
    pub latency_last: Option<Duration>,
    /// How long the slowest took.
    pub latency_max: Option<Duration>,
    /// Rows per second that are let through at present; none if as many as can be.
    pub rows_per_second: Option<f64>,
}

/// Does the least that a user of the store does, and waits for it.
pub type Probe<'a> = dyn Fn() -> Result<(), StoreError> + Sync + 'a;

/// The pace of one store: shared by all who write to it, and changed while they do.
pub struct Pace<'a> {
    clock: &'a dyn Clock,
    probe: &'a Probe<'a>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    limits: PaceLimits,
    /// When the next row may be written, by the clock.
    due: Duration,
    /// What the latency allows, if it does not allow everything: rows per second.
    allowed: Option<f64>,
    probe_at: Duration,
    /// Rows since the last probe, and when that was.
    rows_since: u64,
    since: Duration,
    /// The most rows per second that were reached between two probes.
    reached: f64,
    report: PaceReport,
}

impl fmt::Debug for Pace<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Pace({:?})", self.state())
    }
}

impl<'a> Pace<'a> {
    /// A pace that keeps to these limits.
    #[must_use]
    pub fn new(clock: &'a dyn Clock, probe: &'a Probe<'a>, limits: PaceLimits) -> Self {
        let now = clock.elapsed();
        let state = State {
            limits,
            since: now,
            probe_at: now,
            ..State::default()
        };
        Self {
            clock,
            probe,
            state: Mutex::new(state),
        }
    }

    /// Keeps to other limits from now on, whoever is writing.
    pub fn set_limits(&self, limits: PaceLimits) {
        let now = self.clock.elapsed();
        let mut state = self.state();
        if state.limits == limits {
            return;
        }
        state.limits = limits;
        if limits.latency_max.is_none() {
            state.allowed = None;
        }
        // What was written under the old limits does not count under the new ones.
        state.due = state.due.min(now);
    }

    /// What it keeps to.
    pub fn limits(&self) -> PaceLimits {
        self.state().limits
    }

    /// What became of it so far.
    pub fn report(&self) -> PaceReport {
        let state = self.state();
        PaceReport {
            rows_per_second: state.rows_per_second(),
            ..state.report
        }
    }

    /// Notes rows that were handed to the store.
    pub(crate) fn wrote(&self, rows: u64) {
        let now = self.clock.elapsed();
        let mut state = self.state();
        state.report.rows += rows;
        state.rows_since += rows;
        state.due = state.due.max(now);
        if let Some(speed) = state.rows_per_second() {
            state.due += Duration::from_secs_f64(number(rows) / speed);
        }
    }

    /// Waits until more may be written.
    ///
    /// # Errors
    /// `Cancelled`; or as the store reports it, if it cannot be probed.
    pub(crate) fn wait(&self, cancellation: &Cancellation) -> Result<(), StoreError> {
        loop {
            cancellation.check()?;
            let now = self.clock.elapsed();
            let due = {
                let mut state = self.state();
                if state.limits.latency_max.is_some() && state.probe_at <= now {
                    // Nobody else probes meanwhile.
                    state.probe_at = now + PROBE_EVERY;
                    None
                } else {
                    Some(state.due)
                }
            };
            let Some(due) = due else {
                (self.probe)()?;
                let after = self.clock.elapsed();
                self.state().learn(after.saturating_sub(now), after);
                continue;
            };
            if due <= now {
                return Ok(());
            }
            let wait = (due - now).min(WAIT_MAX);
            self.clock.wait(wait);
            self.state().report.waited += wait;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole values are stored, so that a panic elsewhere leaves nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The speed that both limits allow.
    fn rows_per_second(&self) -> Option<f64> {
        let capped = self.limits.rows_per_second.map(|cap| number(cap.get()));
        match (capped, self.allowed) {
            (Some(capped), Some(allowed)) => Some(capped.min(allowed)),
            (capped, allowed) => capped.or(allowed),
        }
    }

    /// Takes in that a probe took so long and is over now.
    fn learn(&mut self, latency: Duration, now: Duration) {
        let seconds = now.saturating_sub(self.since).as_secs_f64();
        let reached = number(self.rows_since) / seconds.max(1e-6);
        self.reached = self.reached.max(reached);
        let has_written = self.rows_since > 0;
        (self.rows_since, self.since) = (0, now);
        self.report.probes += 1;
        self.report.latency_last = Some(latency);
        self.report.latency_max = self.report.latency_max.max(Some(latency));
        let Some(latency_max) = self.limits.latency_max else {
            return;
        };
        if latency > latency_max {
            self.report.slow_probes += 1;
            if has_written {
                let speed = self.allowed.unwrap_or(reached).min(reached);
                self.allowed = Some((speed * SLOWER).max(SPEED_MIN));
            }
            let relief = latency.saturating_mul(RELIEF).min(RELIEF_MAX);
            self.due = self.due.max(now + relief);
        } else if let Some(allowed) = self.allowed
            && latency <= latency_max.mul_f64(FAST)
        {
            let speed = allowed * FASTER;
            let is_within_reach = speed <= self.reached * SPEED_OUT_OF_REACH;
            self.allowed = is_within_reach.then_some(speed);
        }
    }
}

/// Rows as what they are divided by.
#[expect(clippy::cast_precision_loss, reason = "speeds need no 53 bits")]
fn number(rows: u64) -> f64 {
    rows as f64
}

#[cfg(test)]
mod tests;
