//! How fast a run may write to the live store: the options, the clock, and what became of them.

use std::thread;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use reinstate::{PaceLimits, PaceReport};
use reinstate_core::Clock;
use serde::Serialize;

use crate::arguments::Pacing;
use crate::console::Console;
use crate::render::counted;

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

#[derive(Serialize)]
struct PaceRecord {
    #[serde(rename = "type")]
    record: &'static str,
    rows: u64,
    waited_seconds: f64,
    probes: u64,
    slow_probes: u64,
    latency_max_seconds: Option<f64>,
    rows_per_second: Option<f64>,
}

/// Says what the limits came to.
pub fn show_pace(console: &Console, report: &PaceReport) {
    console.record(&PaceRecord {
        record: "pace",
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
            "; the store answered within {:.1} ms, {} of {} too slow",
            latency.as_secs_f64() * 1e3,
            report.slow_probes,
            counted(report.probes, "probe", "probes"),
        ),
    };
    console.line(format_args!(
        "pace     waited {:.1} s for its limits{latency}",
        report.waited.as_secs_f64()
    ));
}
