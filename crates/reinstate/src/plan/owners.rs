//! Whose a row was that the tenant has and did not have.
//!
//! Such a row is newer than the snapshot, unless somebody gave it to the tenant: then it was
//! everybody's or another tenant's, and no restore of this tenant may destroy it. Nothing in a snapshot
//! finds a row by its key alone, so that the table is read as a whole, of all owners.
//!
//! *Cost*: nothing for a table of which nothing is to be deleted. Else one reading of the rows of
//! everybody for each tenant, and one of the other tenants' blocks of that table for all tenants of the
//! plan together; or one for each eighth of the memory budget that the rows to be deleted take.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use reinstate_core::{
    ColumnIndex, Digest, Owner, Repository, RowBatch, RowRef, TableIndex, TableSchema, Tenancy,
    TenantId,
};
use reinstate_format::{BlockOpener, ChangeKind, LoggedChange, SegmentReader};

use crate::image::{TenantImage, read_block, share};
use crate::layers::{Place, last_place};
use crate::log::Log;
use crate::opened::Opened;
use crate::run_stream::RunPart;
use crate::{Context, Error};

/// Whether rows that a plan would delete as newer are looked for among those that other tenants had.
#[derive(Clone, Copy, Default)]
pub enum OwnerCheck<'r> {
    /// They are not: what the tenant did not have is deleted, whosever it was.
    #[default]
    Off,
    /// In the repository of the images. Reads other tenants' blocks, of the tables in which something
    /// would be deleted.
    In(&'r dyn Repository),
}

impl fmt::Debug for OwnerCheck<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => formatter.write_str("Off"),
            Self::In(repository) => write!(formatter, "In({})", repository.id()),
        }
    }
}

/// The owners of one snapshot, or of a commit after it.
pub(super) struct Owners<'r> {
    pub(super) context: Context<'r>,
    /// What is open of the repository; none if nobody is looked for.
    opened: Option<Opened<'r>>,
    /// What was found out for tenants whose turn has not come.
    known: RefCell<BTreeMap<(TenantId, TableIndex), Known>>,
    bytes_read: Cell<u64>,
}

/// What was found out about rows of one tenant in one table.
pub(super) struct Known {
    /// Which rows: what their keys contain.
    pub(super) keys: Digest,
    /// Whether others had them, in the order of the rows.
    pub(super) had: Vec<bool>,
}

/// Rows that tenants have and did not have: a key of each, in the same table.
#[derive(Default)]
pub(super) struct Claims<'k> {
    tenants: Vec<Owner>,
    /// The number of each key, and which of the tenants has it now.
    keys: HashMap<&'k [u8], (usize, usize)>,
}

impl<'k> Claims<'k> {
    /// Begins with the keys of another tenant.
    pub(super) fn of(&mut self, image: &TenantImage) {
        self.tenants.push(Owner::Tenant(image.tenant().id.clone()));
    }

    /// Adds a key of the last tenant. `false` if another of them has it as well.
    pub(super) fn add(&mut self, key: &'k [u8]) -> bool {
        let (number, tenant) = (self.keys.len(), self.tenants.len() - 1);
        self.keys.insert(key, (number, tenant)).is_none()
    }

    /// Whether an owner is the only one who claims anything.
    fn is_all_of(&self, owner: &Owner) -> bool {
        self.tenants.iter().all(|tenant| tenant == owner)
    }
}

impl<'r> Owners<'r> {
    pub(super) fn new(context: Context<'r>, check: OwnerCheck<'r>) -> Self {
        Self {
            context,
            opened: match check {
                OwnerCheck::Off => None,
                OwnerCheck::In(repository) => Some(Opened::of(repository)),
            },
            known: RefCell::default(),
            bytes_read: Cell::new(0),
        }
    }

    pub(super) fn keep_known(&self, tenant: &TenantId, table: TableIndex, known: Known) {
        let place = (tenant.clone(), table);
        self.known.borrow_mut().insert(place, known);
    }

    /// What was found out about a tenant's rows before its turn came, if anything.
    pub(super) fn take_known(&self, tenant: &TenantId, table: TableIndex) -> Option<Known> {
        self.known.borrow_mut().remove(&(tenant.clone(), table))
    }

    /// Bytes read so far to find out whose rows were.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read.get()
    }

    /// Counts what was read besides.
    pub(super) fn count_bytes(&self, bytes: u64) {
        self.bytes_read.set(self.bytes_read.get() + bytes);
    }

    /// Whether rows of a table are looked for among those that other tenants had.
    pub(super) fn are_looked_for(&self, table: &TableSchema) -> bool {
        let is_in_key = |column: &ColumnIndex| table.key.contains(column);
        let can_move = match &table.tenancy {
            // Each tenant has keys of its own there.
            Tenancy::Native | Tenancy::Shared | Tenancy::Excluded => false,
            // A row that goes to another tenant gets another key.
            Tenancy::Direct { column } => !is_in_key(column),
            Tenancy::Via { .. } | Tenancy::OneOf { .. } => true,
        };
        self.opened.is_some() && table.has_key() && can_move
    }

    /// Which of the keys others had than the tenants who claim them, in the order of the keys: in one
    /// reading. All of the tenants are at the point of this image.
    pub(super) fn had(
        &self,
        image: &TenantImage,
        table: TableIndex,
        claims: &Claims<'_>,
    ) -> Result<Vec<bool>, Error> {
        let had: Vec<AtomicBool> = claims.keys.iter().map(|_| AtomicBool::new(false)).collect();
        let Some(opened) = &self.opened else {
            return Ok(had.into_iter().map(AtomicBool::into_inner).collect());
        };
        let snapshot = image.snapshot();
        let stored = match image.log() {
            Some(log) => log.lineage(table, log.version_at(image.position()))[0],
            None => Some(table),
        };
        let is_looked_at = |owner: &Owner| *owner != Owner::Shared && !claims.is_all_of(owner);
        for segment in &snapshot.segments {
            let Some(table) = stored else {
                break;
            };
            let is_one_owners = segment.first_owner == segment.last_owner;
            if segment.last_owner == Owner::Shared
                || (is_one_owners && !is_looked_at(&segment.first_owner))
            {
                continue;
            }
            let reader = opened.segment(snapshot, segment)?;
            self.for_each_row(&reader, table, is_looked_at, |owner, row| {
                if let Some(&(place, tenant)) = claims.keys.get(row.key())
                    && claims.tenants[tenant] != *owner
                {
                    had[place].store(true, Ordering::Relaxed);
                }
                Ok(())
            })?;
        }
        let mut had: Vec<bool> = had.into_iter().map(AtomicBool::into_inner).collect();
        if let Some(log) = image.log() {
            let changes = self.changes(opened, (image, log), table, claims)?;
            changes.apply(&mut had);
        }
        Ok(had)
    }

    /// What became of the keys after the snapshot and up to the image, whoever had them.
    fn changes(
        &self,
        opened: &Opened<'_>,
        (image, log): (&TenantImage, &Log),
        table: TableIndex,
        claims: &Claims<'_>,
    ) -> Result<Changes, Error> {
        let through = image.position();
        let mut truncated = None;
        let last: Mutex<HashMap<usize, (Place, bool)>> = Mutex::default();
        let lineage = log.lineage(table, log.version_at(through));
        for (number, run) in log.runs().iter().enumerate() {
            if run.description.after.commit >= through.commit {
                break;
            }
            // Its key is the same in all of them.
            let Some(table) = lineage[log.version_of_run(number)] else {
                continue;
            };
            truncated = truncated.max(run.truncated(table, through));
            let reader = opened.run(run)?;
            self.for_each_row(
                &reader,
                table,
                |_| true,
                |_, row| {
                    let change =
                        LoggedChange::read(row).map_err(Error::format("read a log run"))?;
                    let place = (change.commit, change.ordinal);
                    if let Some(&(key, _)) = claims.keys.get(change.key)
                        && place <= last_place(through)
                    {
                        let is_there = change.kind != ChangeKind::Removed;
                        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                        let known = last.entry(key).or_insert((place, is_there));
                        *known = (*known).max((place, is_there));
                    }
                    Ok(())
                },
            )?;
        }
        let last = last.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Changes { truncated, last })
    }

    /// Reads the rows of one table of some owners, in any order, on all threads of the context.
    fn for_each_row(
        &self,
        reader: &Arc<SegmentReader>,
        table: TableIndex,
        is_read: impl Fn(&Owner) -> bool,
        each: impl Fn(&Owner, RowRef<'_>) -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        let mut parts = Vec::new();
        let mut blocks = 0;
        for run in reader.runs() {
            let run = run.map_err(Error::format("read an index"))?;
            if run.key.table != table || !is_read(&run.key.owner) {
                continue;
            }
            blocks += run.blocks.len();
            parts.push(RunPart {
                reader: Arc::clone(reader),
                run: Arc::new(run),
            });
            if blocks >= BLOCKS_AT_ONCE {
                self.read_parts(&parts, &each)?;
                parts.clear();
                blocks = 0;
            }
        }
        self.read_parts(&parts, &each)?;
        self.bytes_read
            .set(self.bytes_read.get() + reader.bytes_read());
        Ok(())
    }

    fn read_parts(
        &self,
        parts: &[RunPart],
        each: &(impl Fn(&Owner, RowRef<'_>) -> Result<(), Error> + Sync),
    ) -> Result<(), Error> {
        let context = self.context;
        let threads = context.resources.threads();
        let pieces: Vec<_> = parts.iter().flat_map(|part| share(part, threads)).collect();
        // Rayon reports one of the errors, not the first: sort them out by collecting.
        let results: Vec<Result<(), Error>> = context.resources.pool().install(|| {
            let pieces = pieces.par_iter().map_init(
                || (BlockOpener::new(), RowBatch::new()),
                |(opener, batch), (part, blocks)| {
                    for block in &part.run.blocks[blocks.clone()] {
                        read_block(part, block, opener, batch)?;
                        let owner = &part.run.key.owner;
                        batch.iter().try_for_each(|row| each(owner, row))?;
                    }
                    context.check()
                },
            );
            pieces.collect()
        });
        results.into_iter().collect()
    }
}

/// Blocks whose places are held at once: about 70 bytes each.
const BLOCKS_AT_ONCE: usize = 4096;

/// What became of keys after the snapshot.
struct Changes {
    /// Where the table last lost all its rows.
    truncated: Option<Place>,
    /// Where each key last changed, and whether it was there then; by the number of the key.
    last: HashMap<usize, (Place, bool)>,
}

impl Changes {
    fn apply(&self, had: &mut [bool]) {
        for (number, had) in had.iter_mut().enumerate() {
            let last = self.last.get(&number);
            match last {
                Some((place, is_there)) => {
                    *had = *is_there && self.truncated.is_none_or(|gone| gone < *place);
                }
                None => *had = *had && self.truncated.is_none(),
            }
        }
    }
}
