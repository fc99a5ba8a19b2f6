//! How the demo tells what it does, and what it says in the end.

use std::fmt;
use std::time::Duration;

use reinstate_core::ErrorKind;
use serde::Serialize;

use super::campaign::{RestoredAll, per_second};
use super::proof::Proof;
use super::writers::{Period, Waits};
use crate::arguments::Demo;
use crate::console::Console;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::{bytes, count};

/// The teller.
#[derive(Clone, Copy, Debug)]
pub struct Story<'a> {
    console: &'a Console,
}

#[derive(Serialize)]
struct StepRecord<'a> {
    #[serde(rename = "type")]
    record: &'static str,
    name: &'a str,
    seconds: f64,
    peak_memory_bytes: Option<u64>,
    message: String,
}

/// What the demo came to.
#[derive(Debug, Default, Serialize)]
pub struct StoryRecord {
    #[serde(rename = "type")]
    record: &'static str,
    proven: bool,
    tenants_restored: usize,
    rows_restored: u64,
    restore_seconds: f64,
    rows_per_second: u64,
    stored_bytes: u64,
    writes_during_restore: usize,
    writer_idle_p50_ms: f64,
    writer_idle_p99_ms: f64,
    writer_p50_ms: f64,
    writer_p99_ms: f64,
    writer_max_ms: f64,
    peak_memory_bytes: Option<u64>,
    memory_bytes_max: u64,
    wrong: Vec<String>,
    seconds: f64,
}

impl<'a> Story<'a> {
    /// A story told here.
    #[must_use]
    pub const fn new(console: &'a Console) -> Self {
        Self { console }
    }

    /// What is going to happen.
    pub fn introduce(&self, arguments: &Demo) {
        self.say(format_args!(
            "{} sites share three stores. {} of them will be destroyed in all three and brought back \
             while the\nothers write.\nsteps: build, capture, destroy, restore, prove, report, undo, \
             prove again\n",
            count(u64::from(arguments.tenants)),
            count(u64::from(arguments.restore))
        ));
    }

    /// A line of the story.
    pub fn say(&self, text: impl fmt::Display) {
        self.console.line(text);
    }

    /// A step that is done.
    pub fn step(&self, name: &str, elapsed: Duration, text: impl fmt::Display) {
        let seconds = elapsed.as_secs_f64();
        self.say(format_args!("{name:<11} {text}  ({seconds:.1} s)"));
        self.console.record(&StepRecord {
            record: "step",
            name,
            seconds,
            peak_memory_bytes: peak_memory_bytes(),
            message: text.to_string(),
        });
    }

    /// How long the application waited.
    pub fn waits(&self, waits: &Waits) {
        let line = |title: &str, period: Period| {
            self.say(format_args!(
                "            {title:<22} {:>6} writes, durable after p50 {}, p99 {}, max {}",
                count(waits.count(period) as u64),
                milliseconds(waits.per_mille(period, 500)),
                milliseconds(waits.per_mille(period, 990)),
                milliseconds(waits.per_mille(period, 1000))
            ));
        };
        line("writers before", Period::Idle);
        line("writers while restored", Period::Restore);
    }

    /// The end: what is proven, and what it cost.
    ///
    /// # Errors
    /// Exit 4 if anything is not as it should be.
    pub fn end(
        &self,
        mut record: StoryRecord,
        elapsed: Duration,
        memory_bytes_max: u64,
    ) -> anyhow::Result<Exit> {
        record.record = "demo";
        record.proven = record.wrong.is_empty();
        record.peak_memory_bytes = peak_memory_bytes();
        record.memory_bytes_max = memory_bytes_max;
        record.seconds = elapsed.as_secs_f64();
        let memory = record
            .peak_memory_bytes
            .map_or_else(|| "unknown".to_owned(), bytes);
        self.say(format_args!(
            "\npeak memory of this process {memory}, of {} that it was given; all of it took {:.0} s",
            bytes(memory_bytes_max),
            record.seconds
        ));
        self.console.record(&record);
        if !record.proven {
            let message = format!("{} owners are not as they should be", record.wrong.len());
            return Err(Failure::new(ErrorKind::Unverified, message)
                .next("this is a bug: please report it with the output above")
                .into());
        }
        self.say(
            "PROVEN: every restored site is byte for byte what the generator says in all stores, every \
             other\nsite holds exactly what its own application wrote, and the undo took one site back \
             and nobody else.",
        );
        Ok(Exit::Done)
    }
}

impl StoryRecord {
    /// Notes what was restored and how long the others waited.
    pub fn restored(&mut self, restored: &RestoredAll, waits: &Waits) {
        let seconds = restored.elapsed.as_secs_f64();
        let wait = |period, per_mille| waits.per_mille(period, per_mille).as_secs_f64() * 1e3;
        self.tenants_restored = restored.site_count;
        self.rows_restored = restored.row_count;
        self.restore_seconds = seconds;
        self.rows_per_second = per_second(restored.row_count, seconds);
        self.stored_bytes = restored.stored_bytes;
        self.writes_during_restore = waits.count(Period::Restore);
        self.writer_idle_p50_ms = wait(Period::Idle, 500);
        self.writer_idle_p99_ms = wait(Period::Idle, 990);
        self.writer_p50_ms = wait(Period::Restore, 500);
        self.writer_p99_ms = wait(Period::Restore, 990);
        self.writer_max_ms = wait(Period::Restore, 1000);
    }

    /// Notes what a proof found.
    pub fn proof(&mut self, proof: &Proof) {
        self.wrong.extend(proof.wrong.iter().cloned());
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

/// The most memory this process ever held, where the system tells.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}
