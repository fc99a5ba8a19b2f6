//! How fast a run may write to the live store: the options, the clock, and what became of them.

use std::fmt;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use reinstate::{PaceLimits, PaceReport};
use reinstate_core::Clock;
use serde::Serialize;

use crate::arguments::{Cap, PaceChange, Pacing};
use crate::console::Console;
use crate::render::{count, counted};

/// The clock of this machine that never goes back.
#[derive(Clone, Copy, Debug)]
pub struct SteadyClock(Instant);

impl SteadyClock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SteadyClock {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn wait(&self, duration: Duration) {
        thread::sleep(duration);
    }
}

impl Pacing {
    /// The limits; none if nothing was limited.
    #[must_use]
    pub fn limits(&self) -> Option<PaceLimits> {
        let limits = PaceLimits {
            rows_per_second: self.rows_per_second,
            latency_max: self.latency_max,
        };
        (limits != PaceLimits::default()).then_some(limits)
    }
}

/// Reads a length of time, as in `20ms`.
///
/// # Errors
/// If it is none, or not more than nothing.
pub fn parse_length(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration = text
        .parse()
        .map_err(|error| format!("{error}; write it as in 20ms or 15m"))?;
    let duration = Duration::try_from(duration).unwrap_or_default();
    if duration.is_zero() {
        return Err("a length of time is more than nothing, as in 20ms".to_owned());
    }
    Ok(duration)
}

/// Reads a limit, or `none`.
///
/// # Errors
/// If it is neither.
pub fn parse_cap<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<Cap<T>, String> {
    if text == "none" {
        return Ok(Cap::Off);
    }
    let limit = text.parse().map(Cap::At);
    limit.map_err(|error| format!("{error}; or none"))
}

/// Reads a length of time, or `none`.
///
/// # Errors
/// If it is neither.
pub fn parse_latency(text: &str) -> Result<Cap<Duration>, String> {
    match text {
        "none" => Ok(Cap::Off),
        text => parse_length(text).map(Cap::At),
    }
}

impl PaceChange {
    /// Whether it says anything.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.rows_per_second.is_none() && self.latency_max.is_none()
    }

    /// The limits after it: what it does not name stays.
    #[must_use]
    pub fn after(&self, before: PaceLimits) -> PaceLimits {
        fn one<T>(change: Option<Cap<T>>, before: Option<T>) -> Option<T> {
            match change {
                None => before,
                Some(Cap::Off) => None,
                Some(Cap::At(limit)) => Some(limit),
            }
        }
        PaceLimits {
            rows_per_second: one(self.rows_per_second, before.rows_per_second),
            latency_max: one(self.latency_max, before.latency_max),
        }
    }
}

/// Limits for people.
#[must_use]
pub fn limits_text(limits: PaceLimits) -> String {
    let rows = limits
        .rows_per_second
        .map(|rows| format!("{} rows/s", count(rows.get())));
    let latency = limits
        .latency_max
        .map(|latency| format!("slower above {}", milliseconds(latency)));
    match (rows, latency) {
        (None, None) => "as fast as it can".to_owned(),
        (Some(text), None) | (None, Some(text)) => text,
        (Some(rows), Some(latency)) => format!("{rows}, {latency}"),
    }
}

/// A latency for people.
#[must_use]
pub fn milliseconds(length: Duration) -> String {
    format!("{:.1} ms", length.as_secs_f64() * 1e3)
}

#[derive(Serialize)]
struct PaceRecord<'p> {
    #[serde(rename = "type")]
    record: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<&'p str>,
    rows: u64,
    waited_seconds: f64,
    probes: u64,
    slow_probes: u64,
    latency_max_seconds: Option<f64>,
    rows_per_second: Option<f64>,
}

/// Says what the limits came to: of the store, or of this one among several.
pub fn show_pace(console: &Console, store: Option<&str>, report: &PaceReport) {
    console.record(&PaceRecord {
        record: "pace",
        store,
        rows: report.rows,
        waited_seconds: report.waited.as_secs_f64(),
        probes: report.probes,
        slow_probes: report.slow_probes,
        latency_max_seconds: report.latency_max.map(|latency| latency.as_secs_f64()),
        rows_per_second: report.rows_per_second,
    });
    let latency = match report.latency_max {
        None => String::new(),
        Some(latency) => format!(
            "; the store answered within {}, {} of {} too slow",
            milliseconds(latency),
            report.slow_probes,
            counted(report.probes, "probe", "probes"),
        ),
    };
    console.line(format_args!(
        "pace     {}waited {:.1} s for its limits{latency}",
        store.map_or_else(String::new, |store| format!("{store}: ")),
        report.waited.as_secs_f64()
    ));
}
