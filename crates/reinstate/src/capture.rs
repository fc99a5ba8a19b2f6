//! Capture: one consistent image of a whole live store becomes a snapshot.
//!
//! Several lanes read tables, each with a sorter of its own; the sorted rows are merged by
//! (owner, table, key) into segments. Everything a tenant owns lies together.
//!
//! *Crash consistency*: segments first, each durable, then the manifest by put-if-absent. Until
//! the manifest is there, no reader sees anything; segments without one are garbage.
//!
//! *Cost*: one pass over each table of the live store. The live store sorts nothing.

use std::sync::atomic::{AtomicUsize, Ordering};

use reinstate_core::{
    CaptureView, ContentDigest, Encryption, Event, LiveStore, ObjectId, OwnedRowBatch, Owner,
    Phase, Repository, RowRole, SegmentDescription, SnapshotDescription, SnapshotId, TableIndex,
    TableTotals, Tenancy, Timestamp,
};
use reinstate_format::{
    BlockLayout, Dictionary, RunKey, SegmentEnd, SegmentIdentity, encode_snapshot, schema_digest,
};

use crate::dictionaries::{RowSample, sample_bytes_max, train};
use crate::log::note_origin;
use crate::segment_writer::{FinishedSegment, OpenRun, SegmentWriter};
use crate::sort::{Cursor, SortBudget, Sorted, SortedRows, Sorter};
use crate::{Context, Error};

/// Name of the kind of record that a snapshot's manifest is.
pub(crate) const SNAPSHOT_RECORD: &str = "snapshot";

/// How a snapshot is made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CaptureOptions {
    /// The snapshot's id; never used before.
    pub snapshot: SnapshotId,
    /// The time to note where the store has no clock of its own.
    pub taken_at: Timestamp,
    /// zstd level, 1 to 19. Higher is smaller and slower to write, and no slower to read.
    pub compression_level: i32,
    /// In which order a block has the bytes of its rows. By columns a snapshot is smaller, and reading it takes
    /// longer.
    pub layout: BlockLayout,
    /// A segment is ended at the next tenant after this many stored bytes.
    pub segment_bytes_target: u64,
    /// The most bytes of a dictionary for a table's small blocks; 0 for no dictionaries. They make
    /// snapshots of many small tenants smaller, and whoever restores a small tenant reads them.
    pub dictionary_bytes_max: usize,
}

impl CaptureOptions {
    /// Level 3, blocks of rows, segments of about 1 GiB, no dictionaries.
    #[must_use]
    pub const fn new(snapshot: SnapshotId, taken_at: Timestamp) -> Self {
        Self {
            snapshot,
            taken_at,
            compression_level: 3,
            layout: BlockLayout::Rows,
            segment_bytes_target: 1 << 30,
            dictionary_bytes_max: 0,
        }
    }
}

/// Takes a snapshot of the whole store while others write on, and publishes it.
///
/// Holds at most the context's memory budget in rows; sorts the rest on disk, which takes about
/// the plain size of the store there.
///
/// # Errors
/// `Refused` if the store would hide rows; `Unclassified` if a table has no owner; `Full` if the
/// repository or the spill directory is full; `Cancelled`. Nothing is published then.
pub fn capture(
    context: Context<'_>,
    live: &dyn LiveStore,
    repository: &dyn Repository,
    options: &CaptureOptions,
) -> Result<SnapshotDescription, Error> {
    let view = live
        .begin_capture()
        .map_err(Error::store("open the store for capture"))?;
    capture_view(context, view, live, repository, options)
}

/// Takes a snapshot of what the view shows, and publishes it.
pub(crate) fn capture_view(
    context: Context<'_>,
    view: Box<dyn CaptureView + '_>,
    live: &dyn LiveStore,
    repository: &dyn Repository,
    options: &CaptureOptions,
) -> Result<SnapshotDescription, Error> {
    let (rows, samples) = read_tables(context, view.as_ref(), options)?;
    let schema = view.schema().clone();
    let mut description = SnapshotDescription {
        id: options.snapshot,
        store: live.identity(),
        tenant_kind: live.tenant_kind().clone(),
        position: view.position(),
        notation: live.notation(),
        taken_at: view.taken_at().unwrap_or(options.taken_at),
        schema_digest: schema_digest(&schema),
        sequences: view.sequences().to_vec(),
        segments: Vec::new(),
        totals: vec![TableTotals::default(); schema.tables().len()],
        tenant_count: 0,
        schema,
    };
    // The rows are all here: let go of the store's old versions before the slow part.
    drop(view);
    let dictionaries = train(context.resources, samples, options.dictionary_bytes_max);
    let segments = Segments::new(context, repository, options, dictionaries);
    write_segments(context, rows, segments, &mut description)?;
    note_origin(repository, options.snapshot, live)?;
    let bytes = encode_snapshot(repository.id(), &description);
    repository
        .publish(SNAPSHOT_RECORD, *options.snapshot.as_bytes(), &bytes)
        .map_err(Error::repository(format!(
            "publish snapshot {}",
            options.snapshot
        )))?;
    Ok(description)
}

fn read_tables(
    context: Context<'_>,
    view: &dyn CaptureView,
    options: &CaptureOptions,
) -> Result<(SortedRows, Vec<RowSample>), Error> {
    context.observer.observe(Event::Started {
        phase: Phase::Capture,
        tenant: None,
        rows_expected: None,
    });
    let schema = view.schema();
    let tables: Vec<TableIndex> = schema
        .iter()
        .filter(|(_, table)| table.tenancy != Tenancy::Excluded)
        .map(|(index, _)| index)
        .collect();
    let lanes = view.lanes().clamp(1, tables.len().max(1));
    let memory = context.resources.memory_bytes_max();
    let budget = SortBudget {
        memory_bytes_max: memory / 2 / lanes,
        directory: context.resources.spill_directory().to_owned(),
    };
    let tables = Tables {
        next: AtomicUsize::new(0),
        sample_bytes_max: sample_bytes_max(
            context.resources,
            tables.len(),
            options.dictionary_bytes_max,
        ),
        indexes: tables,
    };
    // Plain threads, not the pool's: a lane waits for the store's socket.
    let parts: Vec<Result<Lane, Error>> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes)
            .map(|_| scope.spawn(|| read_lane(context, view, &tables, budget.clone())))
            .collect();
        lanes
            .into_iter()
            .map(|lane| lane.join().expect("BUG: a lane panicked"))
            .collect()
    });
    let lanes = parts.into_iter().collect::<Result<Vec<_>, _>>()?;
    context.observer.observe(Event::Finished {
        phase: Phase::Capture,
        tenant: None,
    });
    let (parts, samples): (Vec<_>, Vec<_>) = lanes.into_iter().unzip();
    let rows = Sorted::merge(parts, memory / 8)?;
    Ok((rows, samples.into_iter().flatten().collect()))
}

/// The tables that the lanes take one after the other.
struct Tables {
    indexes: Vec<TableIndex>,
    next: AtomicUsize,
    sample_bytes_max: usize,
}

/// What one lane read.
type Lane = (Sorted, Vec<RowSample>);

fn read_lane(
    context: Context<'_>,
    view: &dyn CaptureView,
    tables: &Tables,
    budget: SortBudget,
) -> Result<Lane, Error> {
    let mut sorter = Sorter::new(context.resources.pool(), budget);
    let mut batch = OwnedRowBatch::new();
    let mut samples = Vec::new();
    while let Some(&table) = tables
        .indexes
        .get(tables.next.fetch_add(1, Ordering::Relaxed))
    {
        let name = &view.schema().table(table).name;
        let reading = || Error::store(format!("read table {name}"));
        let mut sample = RowSample::new(table, tables.sample_bytes_max);
        let mut rows = view.table_rows(table).map_err(reading())?;
        while rows.next_batch(&mut batch).map_err(reading())? {
            context.check()?;
            for (owner, row) in batch.iter() {
                sorter.push(owner, table, row)?;
                if tables.sample_bytes_max > 0 {
                    sample.offer(row);
                }
            }
            context.observer.observe(Event::Advanced {
                phase: Phase::Capture,
                rows: batch.len() as u64,
                bytes: batch.byte_count() as u64,
            });
        }
        samples.push(sample);
    }
    Ok((sorter.finish()?, samples))
}

/// Writes all rows, given by owner, table and key, into segments, and notes them in the description.
pub(crate) fn write_segments(
    context: Context<'_>,
    mut rows: impl Cursor,
    mut segments: Segments<'_>,
    description: &mut SnapshotDescription,
) -> Result<(), Error> {
    context.observer.observe(Event::Started {
        phase: Phase::Write,
        tenant: None,
        rows_expected: None,
    });
    let mut run: Option<OpenRun> = None;
    let mut progress = Progress::default();
    while rows.advance()? {
        let item = rows.current();
        let same = run.as_ref().is_some_and(|run| {
            run.key().table == item.table && run.key().owner.as_bytes() == item.owner
        });
        if !same {
            let new_owner = run
                .as_ref()
                .is_none_or(|run| run.key().owner.as_bytes() != item.owner);
            if let Some(run) = run.take() {
                segments.close(run, description)?;
            }
            if new_owner {
                segments.end_if_large(description)?;
                description.tenant_count += u64::from(!item.owner.is_empty());
            }
            let owner = Owner::from_bytes(item.owner).map_err(|error| {
                Error::new(
                    reinstate_core::ErrorKind::Refused,
                    format!("read an owner: {error}"),
                )
            })?;
            run = Some(OpenRun::new(RunKey {
                owner,
                table: item.table,
                role: RowRole::Image,
            }));
        }
        let totals = &mut description.totals[item.table.get()];
        totals.row_count += 1;
        totals.plain_bytes += item.row.body().len() as u64;
        progress.row(context, item.row.body().len());
        let run = run.as_mut().expect("BUG: no run was opened");
        segments.writer(description)?.append(run, item.row)?;
    }
    if let Some(run) = run.take() {
        segments.close(run, description)?;
    }
    segments.end(description)?;
    progress.report(context);
    context.observer.observe(Event::Finished {
        phase: Phase::Write,
        tenant: None,
    });
    Ok(())
}

/// Rows written since the observer was last told.
#[derive(Default)]
struct Progress {
    rows: u64,
    bytes: u64,
}

impl Progress {
    fn row(&mut self, context: Context<'_>, bytes: usize) {
        self.rows += 1;
        self.bytes += bytes as u64;
        if self.rows == 8192 {
            self.report(context);
        }
    }

    fn report(&mut self, context: Context<'_>) {
        let Self { rows, bytes } = std::mem::take(self);
        context.observer.observe(Event::Advanced {
            phase: Phase::Write,
            rows,
            bytes,
        });
    }
}

/// The segments of a snapshot, at most one of which is being written.
pub(crate) struct Segments<'a> {
    context: Context<'a>,
    repository: &'a dyn Repository,
    options: &'a CaptureOptions,
    dictionaries: Vec<Dictionary>,
    open: Option<SegmentWriter<'a>>,
}

impl<'a> Segments<'a> {
    pub(crate) fn new(
        context: Context<'a>,
        repository: &'a dyn Repository,
        options: &'a CaptureOptions,
        dictionaries: Vec<Dictionary>,
    ) -> Self {
        Self {
            context,
            repository,
            options,
            dictionaries,
            open: None,
        }
    }

    fn writer(
        &mut self,
        description: &SnapshotDescription,
    ) -> Result<&mut SegmentWriter<'a>, Error> {
        if self.open.is_none() {
            let identity = segment_identity(self.repository, description, next_number(description));
            let object = self
                .repository
                .create_object()
                .map_err(Error::repository("create a segment"))?;
            let level = self.options.compression_level;
            let mut writer = SegmentWriter::start(self.context, identity, object, level)?;
            writer.use_layout(self.options.layout);
            writer.use_dictionaries(&self.dictionaries)?;
            self.open = Some(writer);
        }
        Ok(self.open.as_mut().expect("BUG: opened just now"))
    }

    fn close(
        &mut self,
        run: OpenRun,
        description: &SnapshotDescription,
    ) -> Result<ContentDigest, Error> {
        self.writer(description)?.close(run)
    }

    fn end_if_large(&mut self, description: &mut SnapshotDescription) -> Result<(), Error> {
        let large =
            |writer: &SegmentWriter<'_>| writer.stored_bytes() >= self.options.segment_bytes_target;
        if self.open.as_ref().is_some_and(large) {
            self.end(description)
        } else {
            Ok(())
        }
    }

    fn end(&mut self, description: &mut SnapshotDescription) -> Result<(), Error> {
        let Some(writer) = self.open.take() else {
            return Ok(());
        };
        let finished: FinishedSegment<'_> = writer.finish()?;
        let (object, end) = finished.seal()?;
        for (table, stored_bytes) in &end.stored_bytes_by_table {
            description.totals[table.get()].stored_bytes += stored_bytes;
        }
        let number = next_number(description);
        description.segments.push(describe(number, object, &end));
        Ok(())
    }
}

fn next_number(description: &SnapshotDescription) -> u32 {
    u32::try_from(description.segments.len()).expect("BUG: 2^32 segments")
}

pub(crate) fn segment_identity(
    repository: &dyn Repository,
    description: &SnapshotDescription,
    number: u32,
) -> SegmentIdentity {
    SegmentIdentity {
        repository: repository.id(),
        container: *description.id.as_bytes(),
        number,
    }
}

fn describe(number: u32, object: ObjectId, end: &SegmentEnd) -> SegmentDescription {
    SegmentDescription {
        object,
        number,
        stored_bytes: end.segment_bytes,
        first_owner: end.first_owner.clone(),
        last_owner: end.last_owner.clone(),
        row_count: end.row_count,
        root: end.root,
        encryption: Encryption::None,
    }
}
