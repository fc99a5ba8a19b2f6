//! Compaction: a snapshot and its log become a younger snapshot, without reading the live store.
//!
//! The younger one stands at the end of a run and goes on with the runs behind it, so that going back
//! to a late commit reads little of the log.
//!
//! *Crash consistency*: segments first, then the record of what it was made from, then the manifest.
//! Until the manifest is there no reader sees anything.

use reinstate_core::{Repository, SnapshotDescription, SnapshotId, TableTotals};
use reinstate_format::{LogBase, encode_log_base, encode_snapshot};

use super::chain::{BASE_RECORD, Log};
use crate::capture::{CaptureOptions, SNAPSHOT_RECORD, Segments, write_segments};
use crate::layers::AllRows;
use crate::{Context, Error};

/// Makes a snapshot of what a snapshot and its log say together, at the log's end. None if the log
/// has no run yet.
///
/// *Cost*: reads the snapshot and the log once.
///
/// # Errors
/// `Corrupt` if what is read is damaged or does not fit together; `Full`; `Cancelled`. Nothing is
/// published then.
pub fn compact(
    context: Context<'_>,
    repository: &dyn Repository,
    log: &Log,
    options: &CaptureOptions,
) -> Result<Option<SnapshotDescription>, Error> {
    let Some(last) = log.runs().last() else {
        return Ok(None);
    };
    let position = log.through();
    let base = log.snapshot_at(position);
    // No commit in it has a later time, wherever the clock went: so a time at or after this one means
    // the same position with either snapshot.
    let mut description = SnapshotDescription {
        id: options.snapshot,
        position,
        taken_at: log.latest_time(),
        segments: Vec::new(),
        totals: vec![TableTotals::default(); base.schema.tables().len()],
        tenant_count: 0,
        ..base.as_ref().clone()
    };
    let rows = AllRows::open(context, repository, log, position)?;
    let segments = Segments::new(context, repository, options, Vec::new());
    write_segments(context, rows, segments, &mut description)?;
    let made = LogBase {
        snapshot: options.snapshot,
        log: log.id(),
        run: last.digest,
        number: last.description.number,
    };
    let publish = |kind: &str, id: SnapshotId, bytes: &[u8]| {
        repository
            .publish(kind, *id.as_bytes(), bytes)
            .map_err(Error::repository(format!("publish snapshot {id}")))
    };
    let bytes = encode_log_base(repository.id(), &made);
    publish(BASE_RECORD, options.snapshot, &bytes)?;
    let bytes = encode_snapshot(repository.id(), &description);
    publish(SNAPSHOT_RECORD, options.snapshot, &bytes)?;
    Ok(Some(description))
}
