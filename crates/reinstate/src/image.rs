//! Extract: one tenant's rows out of a snapshot.
//!
//! Opening an image reads the trailer and a path of the index; reading its rows reads the
//! tenant's own blocks, each checked against the digests that lead up to the manifest. Nothing of
//! another tenant is read. With a log the rows can be those of any of its commits.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use reinstate_core::{
    ContentDigest, Digest, ErrorKind, Owner, Position, Repository, RowBatch, SnapshotDescription,
    SnapshotId, TableIndex, Tenant, TenantId, Timestamp,
};
use reinstate_format::{BlockDescriptor, BlockOpener, RunEntry, RunKey, SegmentReader};

use crate::layers::{ImageRows, ImageTable, Layers, Parts, PlaceInLog, for_each_batch};
use crate::log::Log;
use crate::opened::Opened;
use crate::run_stream::RunPart;
use crate::{Context, Error};

/// From so many bytes on the changes of a table are gathered beside those of another.
const CHANGES_BYTES_OF_LONG_MIN: u64 = 256 << 10;

/// A table with its stored rows, and what became of them.
type Unresolved = (TableIndex, ImageTable, Parts);

/// Where in a store's history an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestorePoint {
    /// Every commit up to here is in it, and none after.
    pub position: Position,
    /// The time that stands for it.
    pub time: Timestamp,
}

/// One tenant's rows as of a snapshot, or of a commit after it: an index of them, and the means to
/// read them.
///
/// Small itself: about 70 bytes a block of 256 KiB. What changed since the snapshot is held besides,
/// in memory up to a sixteenth of the budget for each table.
#[derive(Clone)]
pub struct TenantImage {
    tenant: Tenant,
    snapshot: Arc<SnapshotDescription>,
    point: RestorePoint,
    tables: BTreeMap<TableIndex, ImageTable>,
    readers: Vec<Arc<SegmentReader>>,
    /// Segments with rows of everybody.
    shared: Vec<Arc<SegmentReader>>,
    /// What changed since the snapshot, of the tenant's rows and of those of everybody.
    layers: Layers,
    shared_layers: Layers,
    /// What followed the snapshot, unless the image is of the snapshot itself.
    log: Option<Log>,
    digest: Digest,
}

impl std::fmt::Debug for TenantImage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "TenantImage({} of {}, {})",
            self.tenant, self.snapshot.id, self.digest
        )
    }
}

/// Finds one tenant in a snapshot.
///
/// # Errors
/// `Usage` if the tenant's id is of another kind than the snapshot's tenants; `NotFound` if the
/// snapshot has no row of it; `Corrupt` if the index is damaged; the message names what is.
pub fn extract(
    repository: &dyn Repository,
    snapshot: &Arc<SnapshotDescription>,
    tenant: &Tenant,
) -> Result<TenantImage, Error> {
    extract_from(&Opened::of(repository), snapshot, tenant)
}

/// The same, from what is open already.
pub(crate) fn extract_from(
    opened: &Opened<'_>,
    snapshot: &Arc<SnapshotDescription>,
    tenant: &Tenant,
) -> Result<TenantImage, Error> {
    let point = RestorePoint {
        position: snapshot.position,
        time: snapshot.taken_at,
    };
    let image = find(opened, snapshot, tenant, point)?;
    if image.tables.is_empty() {
        let message = format!("snapshot {} has no row of {tenant}", snapshot.id.short());
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    Ok(image)
}

/// Finds one tenant as it was at a commit that a log covers.
///
/// *Cost*: reads the tenant's changes up to there, and the snapshot's rows of the tables in which it
/// has changes.
///
/// # Errors
/// `Usage` if the tenant's id is of another kind than the store's; `NotRecoverable` if the log does
/// not cover the point; `NotFound` if the tenant had no row then; `Corrupt` if what is read is damaged
/// or does not fit together.
pub fn extract_at(
    context: Context<'_>,
    repository: &dyn Repository,
    log: &Log,
    point: RestorePoint,
    tenant: &Tenant,
) -> Result<TenantImage, Error> {
    let opened = Opened::of(repository);
    let shared = layers_of_everybody(context, &opened, log, point)?;
    extract_from_at(context, &opened, log, (point, &shared), tenant)
}

/// What became of the rows of everybody, up to a commit that a log covers.
///
/// # Errors
/// `NotRecoverable` if the log does not cover the point; `Corrupt`.
pub(crate) fn layers_of_everybody(
    context: Context<'_>,
    opened: &Opened<'_>,
    log: &Log,
    point: RestorePoint,
) -> Result<Layers, Error> {
    let snapshot = log.snapshot();
    let (from, to) = (snapshot.position, log.through());
    let shown = |position: Position| position.display(snapshot.notation);
    if point.position < from || to < point.position {
        let message = format!(
            "{} is not covered by the log of snapshot {}, which has everything from {} to {}",
            shown(point.position),
            snapshot.id.short(),
            shown(from),
            shown(to)
        );
        return Err(Error::new(ErrorKind::NotRecoverable, message));
    }
    let at = PlaceInLog::end_of(log, point.position);
    Layers::open(context, opened, log, at, &Owner::Shared)
}

/// One tenant at a commit that the log covers, from what is open already.
pub(crate) fn extract_from_at(
    context: Context<'_>,
    opened: &Opened<'_>,
    log: &Log,
    (point, of_everybody): (RestorePoint, &Layers),
    tenant: &Tenant,
) -> Result<TenantImage, Error> {
    let snapshot = log.snapshot();
    let mut image = find(opened, snapshot, tenant, point)?;
    let owner = Owner::Tenant(tenant.id.clone());
    let at = PlaceInLog::end_of(log, point.position);
    image.layers = Layers::open(context, opened, log, at, &owner)?;
    image.shared_layers = of_everybody.siblings();
    image.snapshot = log.snapshot_at(point.position);
    image.log = Some(log.clone());
    image.change(context, &owner)?;
    if image.tables.is_empty() {
        let shown = point.position.display(snapshot.notation);
        let message = format!("{tenant} had no row at {shown}");
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    image.digest = digest(&image.tables);
    Ok(image)
}

/// What a snapshot has of a tenant, if anything.
fn find(
    opened: &Opened<'_>,
    snapshot: &Arc<SnapshotDescription>,
    tenant: &Tenant,
    point: RestorePoint,
) -> Result<TenantImage, Error> {
    if tenant.kind != snapshot.tenant_kind {
        let message = format!(
            "{tenant} is an id of kind {:?}, but the tenants of store {} are of kind {:?}: \
             look the right id up, do not change the prefix",
            tenant.kind.as_str(),
            snapshot.store.name,
            snapshot.tenant_kind.as_str(),
        );
        return Err(Error::new(ErrorKind::Usage, message));
    }
    let owner = Owner::Tenant(tenant.id.clone());
    let mut tables: BTreeMap<TableIndex, ImageTable> = BTreeMap::new();
    let mut readers = Vec::new();
    let mut shared = Vec::new();
    for segment in &snapshot.segments {
        let has_shared = segment.first_owner == Owner::Shared;
        let has_own = segment.first_owner <= owner && owner <= segment.last_owner;
        if !has_shared && !has_own {
            continue;
        }
        let reader = opened.segment(snapshot, segment)?;
        if has_shared {
            shared.push(Arc::clone(&reader));
        }
        if !has_own {
            continue;
        }
        let runs = reader.runs_of(&owner).map_err(Error::format(format!(
            "find {tenant} in segment {}",
            segment.object
        )))?;
        for run in runs {
            add_run(&mut tables, snapshot, &reader, run)?;
        }
        readers.push(reader);
    }
    let digest = digest(&tables);
    Ok(TenantImage {
        tenant: tenant.clone(),
        snapshot: Arc::clone(snapshot),
        point,
        tables,
        readers,
        shared,
        layers: Layers::default(),
        shared_layers: Layers::default(),
        log: None,
        digest,
    })
}

fn add_run(
    tables: &mut BTreeMap<TableIndex, ImageTable>,
    snapshot: &SnapshotDescription,
    reader: &Arc<SegmentReader>,
    run: RunEntry,
) -> Result<(), Error> {
    if snapshot.schema.get(run.key.table).is_none() {
        let message = format!(
            "snapshot {}: a run of table {}",
            snapshot.id, run.key.table.0
        );
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    let table = tables.entry(run.key.table).or_default();
    table.row_count += run.row_count;
    table.content.merge(run.content);
    table.stored_content.merge(run.content);
    table.parts.push(RunPart {
        reader: Arc::clone(reader),
        run: Arc::new(run),
    });
    Ok(())
}

/// What the image contains, however it is laid out: equal rows give equal digests in every
/// snapshot.
fn digest(tables: &BTreeMap<TableIndex, ImageTable>) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("reinstate 2026 tenant image v1");
    for (table, rows) in tables {
        hasher.update(&table.0.to_le_bytes());
        hasher.update(&rows.content.row_count().to_le_bytes());
        hasher.update(&rows.content.sum().to_le_bytes());
    }
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

impl TenantImage {
    /// Whose rows these are.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The same rows, said to be another tenant's of the same kind.
    pub(crate) fn under(&self, tenant: &TenantId) -> Self {
        let mut image = self.clone();
        image.tenant.id = tenant.clone();
        image
    }

    /// The snapshot they come from. Its tables are those of the image: where they changed since the
    /// snapshot was taken, they are as they were at the image's position.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<SnapshotDescription> {
        &self.snapshot
    }

    /// That snapshot's id.
    #[must_use]
    pub fn snapshot_id(&self) -> SnapshotId {
        self.snapshot.id
    }

    /// The position as of which the rows are.
    #[must_use]
    pub fn position(&self) -> Position {
        self.point.position
    }

    /// The time that stands for that position.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.point.time
    }

    /// What followed the snapshot; none if the image is of the snapshot itself.
    pub(crate) const fn log(&self) -> Option<&Log> {
        self.log.as_ref()
    }

    /// What the image contains. The same for the same rows, whatever the threads and the memory.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The tables in which the tenant has rows.
    pub fn tables(&self) -> impl Iterator<Item = TableIndex> {
        self.tables.keys().copied()
    }

    /// How many rows the tenant has in a table.
    #[must_use]
    pub fn row_count(&self, table: TableIndex) -> u64 {
        self.tables.get(&table).map_or(0, |table| table.row_count)
    }

    /// What a table of the tenant contains.
    #[must_use]
    pub fn content(&self, table: TableIndex) -> ContentDigest {
        self.tables
            .get(&table)
            .map_or(ContentDigest::EMPTY, |table| table.content)
    }

    /// Bytes of the tenant's stored blocks.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.runs().map(|part| part.run.stored_bytes).sum()
    }

    /// Bytes of the tenant's encoded rows.
    #[must_use]
    pub fn plain_bytes(&self) -> u64 {
        self.runs().map(|part| part.run.plain_bytes).sum()
    }

    /// Bytes read from the repository's objects so far: trailers, index pages and blocks.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        let is_own = |reader: &&Arc<SegmentReader>| {
            let mut own = self.readers.iter();
            own.any(|other| Arc::ptr_eq(other, reader))
        };
        let others = self.shared.iter().filter(|reader| !is_own(reader));
        let readers = self.readers.iter().chain(others);
        let stored: u64 = readers.map(|reader| reader.bytes_read()).sum();
        stored + self.layers.bytes_read() + self.shared_layers.bytes_read()
    }

    /// The rows of one table in order. Blocks are read and decoded ahead by the context's
    /// threads, within its memory budget.
    #[must_use]
    pub fn rows(&self, context: Context<'_>, table: TableIndex) -> ImageRows {
        match self.tables.get(&table) {
            Some(table) => table.rows(context),
            None => ImageTable::default().rows(context),
        }
    }

    /// The rows of one table that were everybody's in the snapshot, in order: none of the tenant's.
    ///
    /// # Errors
    /// `Corrupt` if the index is damaged.
    pub(crate) fn rows_of_everybody(
        &self,
        context: Context<'_>,
        table: TableIndex,
    ) -> Result<ImageRows, Error> {
        let layers = &self.shared_layers;
        ImageTable::changed(context, &self.shared, layers, &Owner::Shared, table)
    }

    /// Whether it can have rows of everybody in a table of the snapshot.
    ///
    /// # Errors
    /// `Corrupt` if the index is damaged.
    pub(crate) fn may_have_rows_of_everybody(&self, table: TableIndex) -> Result<bool, Error> {
        // What was added after the snapshot is not in its index.
        let is_followed = self.log.is_some();
        Ok(is_followed
            || !ImageTable::of(&self.shared, &Owner::Shared, table)?
                .parts
                .is_empty())
    }

    /// Brings the tables to the point.
    fn change(&mut self, context: Context<'_>, owner: &Owner) -> Result<(), Error> {
        let mut stored = std::mem::take(&mut self.tables);
        let mut changes = self.layers.parts(owner)?;
        let (mut long, mut short) = (Vec::new(), Vec::new());
        for (table, _) in self.snapshot.schema.iter() {
            let was = self.layers.stored(table);
            let rows = was.and_then(|was| stored.remove(&was)).unwrap_or_default();
            let places = self.layers.places(table);
            let parts: Parts = places
                .filter_map(|place| changes.remove_entry(&place))
                .collect();
            let bytes = parts.values().flatten().map(|part| part.run.plain_bytes);
            let bytes = bytes.sum::<u64>();
            if bytes >= CHANGES_BYTES_OF_LONG_MIN {
                long.push((bytes, (table, rows, parts)));
            } else {
                short.push((table, rows, parts));
            }
        }
        // Taken from the end where there are two threads: the longest first.
        long.sort_by_key(|(bytes, _)| *bytes);
        let mut long: Vec<_> = long.into_iter().map(|(_, table)| table).collect();
        let layers = &self.layers;
        let resolve = |(table, mut rows, mut parts): Unresolved, table_count| {
            rows.resolve_beside(context, layers, table, &mut parts, table_count)?;
            rows.count(context)?;
            Ok((table, rows))
        };
        // Not on the pool, which decodes for them: they wait for it.
        let at_once = context.resources.threads().min(long.len()).min(2);
        let resolved: Vec<Result<(TableIndex, ImageTable), Error>> = if at_once < 2 {
            long.append(&mut short);
            long.into_iter().map(|table| resolve(table, 1)).collect()
        } else {
            let queue = Mutex::new(long);
            let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let work = || std::iter::from_fn(next).map(|table| resolve(table, at_once));
            std::thread::scope(|scope| {
                let other = scope.spawn(|| work().collect::<Vec<_>>());
                let mut resolved: Vec<_> = work().collect();
                resolved.extend(short.into_iter().map(|table| resolve(table, at_once)));
                resolved.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
                resolved
            })
        };
        for table in resolved {
            let (table, rows) = table?;
            self.tables.insert(table, rows);
        }
        self.tables.retain(|_, rows| rows.row_count > 0);
        Ok(())
    }

    /// Reads and checks every row, in any order, on all threads of the context; hands each block
    /// of one table to `each`. The fastest way to read a tenant. A changed table without a key, or one that was
    /// reshaped, is read in order by one thread more, beside them.
    ///
    /// # Errors
    /// `Corrupt` with the block, if one is damaged.
    pub fn for_each_block(
        &self,
        context: Context<'_>,
        each: impl Fn(TableIndex, &RowBatch) + Sync,
    ) -> Result<(), Error> {
        let threads = context.resources.threads();
        // In the snapshot it may have been another of the tables.
        let unchanged = self.tables.iter().filter(|(_, rows)| !rows.is_changed());
        let blocks: Vec<(TableIndex, (&RunPart, Range<usize>))> = unchanged
            .flat_map(|(table, rows)| rows.parts.iter().map(|part| (*table, part)))
            .flat_map(|(table, part)| share(part, threads).map(move |piece| (table, piece)))
            .collect();
        let keyed = self.tables.iter();
        let keyed: Vec<_> = keyed
            .filter_map(|(table, rows)| rows.keyed(*table))
            .collect();
        let at_once = || {
            // Rayon reports one of the errors, not the first: sort them out by collecting.
            let results: Vec<Result<(), Error>> = context.resources.pool().install(|| {
                blocks
                    .par_iter()
                    .map_init(
                        || (BlockOpener::new(), RowBatch::new()),
                        |(opener, batch), (table, (part, blocks))| {
                            for block in &part.run.blocks[blocks.clone()] {
                                read_block(part, block, opener, batch)?;
                                each(*table, batch);
                            }
                            context.check()
                        },
                    )
                    .collect()
            });
            results.into_iter().collect::<Result<(), Error>>()?;
            for_each_batch(context, &keyed, &each)
        };
        let others = self.tables.iter();
        let others: Vec<_> = others
            .filter(|(table, rows)| rows.is_changed() && rows.keyed(**table).is_none())
            .collect();
        let in_order = || {
            let mut others = others.iter();
            others.try_for_each(|(table, rows)| {
                rows.for_each_in_order(context, |batch| each(**table, batch))
            })
        };
        if threads < 2 || others.is_empty() {
            return at_once().and_then(|()| in_order());
        }
        // In order there is work for one thread, which would be alone with it at the end.
        std::thread::scope(|scope| {
            let others = scope.spawn(in_order);
            let read = at_once();
            let others = others.join().unwrap_or_else(|panic| resume_unwind(panic));
            read.and(others)
        })
    }

    fn runs(&self) -> impl Iterator<Item = &RunPart> {
        self.tables.values().flat_map(|table| &table.parts)
    }
}

/// Cuts a run into pieces for the threads, small enough that none is left with much more work.
pub(crate) fn share(
    part: &RunPart,
    threads: usize,
) -> impl Iterator<Item = (&RunPart, Range<usize>)> {
    let blocks = part.run.blocks.len();
    let piece = (blocks / (threads * 4)).clamp(1, 16);
    (0..blocks)
        .step_by(piece)
        .map(move |start| (part, start..(start + piece).min(blocks)))
}

pub(crate) fn read_block(
    part: &RunPart,
    block: &BlockDescriptor,
    opener: &mut BlockOpener,
    batch: &mut RowBatch,
) -> Result<(), Error> {
    let RunKey { owner, table, .. } = &part.run.key;
    part.reader
        .read_block_into(&part.run.key, block, opener, batch)
        .map_err(|error| {
            let operation = format!("read block {} of {owner}, table {}", block.number, table.0);
            Error::format(operation)(error)
        })
}
