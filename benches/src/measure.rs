//! Taking times in turns, and saying how far they lie apart.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// A figure over several runs.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The one in the middle.
    pub median: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// The spread of these figures.
    #[must_use]
    pub fn of(figures: &[f64]) -> Self {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        Self {
            min: at(0),
            median: at(sorted.len() / 2),
            max: at(sorted.len().saturating_sub(1)),
        }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{:.2} ({:.2} to {:.2})",
            self.median, self.min, self.max
        )
    }
}

/// Ours and the limit, taken in turns.
#[derive(Clone, Debug, Default)]
pub struct Paired {
    ours: Vec<Duration>,
    limit: Vec<Duration>,
}

/// What pairs come to.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Our speed as a part of the limit's, pair by pair: 1 is as fast.
    pub ratio: Spread,
    /// Our time in milliseconds.
    pub ours_ms: Spread,
    /// The limit's time in milliseconds.
    pub limit_ms: Spread,
}

impl Paired {
    /// What the pairs come to.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let ratios: Vec<f64> = self
            .ours
            .iter()
            .zip(&self.limit)
            .map(|(ours, limit)| limit.as_secs_f64() / ours.as_secs_f64())
            .collect();
        let milliseconds =
            |times: &[Duration]| times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        let (ours, limit): (Vec<f64>, Vec<f64>) =
            (milliseconds(&self.ours), milliseconds(&self.limit));
        Summary {
            ratio: Spread::of(&ratios),
            ours_ms: Spread::of(&ours),
            limit_ms: Spread::of(&limit),
        }
    }
}

/// Takes `count` pairs after one that is not counted. Each closure prepares what it needs, then
/// returns how long the measured part took.
///
/// # Errors
/// What a closure returns.
pub fn pairs(
    count: usize,
    mut ours: impl FnMut() -> Result<Duration>,
    mut limit: impl FnMut() -> Result<Duration>,
) -> Result<Paired> {
    ours()?;
    limit()?;
    let mut paired = Paired::default();
    for index in 0..count {
        // Whoever goes first may warm what the other needs: take turns at that too.
        let (first, second) = if index % 2 == 0 {
            let first = ours()?;
            (first, limit()?)
        } else {
            let second = limit()?;
            (ours()?, second)
        };
        paired.ours.push(first);
        paired.limit.push(second);
    }
    Ok(paired)
}

/// How long a piece of work takes.
///
/// # Errors
/// What the work returns.
pub fn time(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

/// The most memory this process ever held, in bytes.
///
/// # Errors
/// If the system does not say.
pub fn peak_memory_bytes() -> Result<u64> {
    let status =
        std::fs::read_to_string("/proc/self/status").context("read this process's size")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line
        .and_then(|line| line.trim().strip_suffix("kB"))
        .context("no peak size")?;
    Ok(kib.trim().parse::<u64>()? * 1024)
}
