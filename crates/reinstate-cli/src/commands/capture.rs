//! `capture once`: one snapshot of the whole store.

use std::time::{Duration, Instant};

use reinstate::{CaptureOptions, capture};
use reinstate_core::{Phase, SnapshotDescription};

use super::follow;
use crate::adapters;
use crate::arguments::Capture;
use crate::console::Console;
use crate::exit::Exit;
use crate::progress::Progress;
use crate::render::{bytes, count, snapshot_record};
use crate::resolve::describe;
use crate::session::{Session, new_snapshot, now};

/// As much as a restore of a small tenant may read more for each table.
const DICTIONARY_BYTES_MAX: usize = 32 * 1024;

/// `capture`.
pub fn run(arguments: &Capture, session: &Session<'_>) -> anyhow::Result<Exit> {
    match arguments {
        Capture::Once {
            level,
            dictionaries,
        } => once(*level, *dictionaries, session),
        Capture::Follow(arguments) => follow::run(arguments, session),
        Capture::Compact { level } => follow::compact(*level, session),
        Capture::End { snapshot } => follow::end(snapshot, session),
    }
}

fn once(level: i32, dictionaries: bool, session: &Session<'_>) -> anyhow::Result<Exit> {
    let repository = session.repository()?;
    let _lock = adapters::lock(&repository)?;
    let store = session.store()?;
    let mut options = CaptureOptions::new(new_snapshot()?, now());
    options.compression_level = level;
    options.layout = session.configuration.layout;
    if dictionaries {
        options.dictionary_bytes_max = DICTIONARY_BYTES_MAX;
    }
    let progress = Progress::new(&[Phase::Capture, Phase::Write], 0);
    let started = Instant::now();
    let context = session.context(&progress);
    let snapshot = capture(context, store.as_ref(), &repository, &options)?;
    progress.clear();
    report(session.console, &snapshot, started.elapsed());
    Ok(Exit::Done)
}

/// Says what was captured.
pub fn report(console: &Console, snapshot: &SnapshotDescription, took: Duration) {
    let record = snapshot_record(snapshot);
    console.line(format_args!("captured {}", describe(snapshot)));
    console.line(format_args!(
        "         {} tenants, {} rows, {} stored of {}, in {:.1} s",
        count(record.tenants),
        count(record.rows),
        bytes(record.stored_bytes),
        bytes(record.plain_bytes),
        took.as_secs_f64()
    ));
    console.record(&record);
}
