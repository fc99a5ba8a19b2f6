//! Whose a row was that the tenant has and did not have.
//!
//! Such a row is newer than the snapshot, unless somebody gave it to the tenant: then it was
//! everybody's or another tenant's, and no restore of this tenant may destroy it. Nothing in a snapshot
//! finds a row by its key alone, so that the table is read as a whole, of all owners.
//!
//! *Cost*: nothing for a table of which nothing is to be deleted. Else one reading of the rows of
//! everybody, and one of the other tenants' blocks of that table for each eighth of the memory budget
//! that the rows to be deleted take.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use reinstate_core::{ColumnIndex, Owner, Repository, RowBatch, RowRef, TableIndex, Tenancy};
use reinstate_format::{BlockOpener, ChangeKind, LoggedChange, SegmentReader};

use super::changes::TableChanges;
use super::cursor::{RowCursor, StreamCursor};
use crate::catalogue::open_segment;
use crate::image::{TenantImage, read_block, share};
use crate::layers::{ImageRows, Place, last_place};
use crate::log::Log;
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

/// Why a row that the tenant has now is not deleted.
const WAS_EVERYBODYS: &str = "everybody's in the snapshot, and no restore would bring it back";
/// The same. Not whose it was: that is nobody's business who restores this tenant.
const WAS_ANOTHERS: &str =
    "belonged to another tenant in the snapshot, and is not this one's to delete";

/// The owners of one snapshot, or of a commit after it.
pub(super) struct Owners<'r> {
    context: Context<'r>,
    check: OwnerCheck<'r>,
    bytes_read: Cell<u64>,
}

impl<'r> Owners<'r> {
    pub(super) const fn new(context: Context<'r>, check: OwnerCheck<'r>) -> Self {
        Self {
            context,
            check,
            bytes_read: Cell::new(0),
        }
    }

    /// Bytes read so far to find out whose rows were.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read.get()
    }

    /// Which of the keys others had, in the order of the keys.
    fn had(
        &self,
        repository: &dyn Repository,
        image: &TenantImage,
        table: TableIndex,
        keys: &HashMap<&[u8], usize>,
    ) -> Result<Vec<bool>, Error> {
        let had: Vec<AtomicBool> = keys.iter().map(|_| AtomicBool::new(false)).collect();
        let own = Owner::Tenant(image.tenant().id.clone());
        let snapshot = image.snapshot();
        for segment in &snapshot.segments {
            if segment.last_owner == Owner::Shared
                || (segment.first_owner == own && segment.last_owner == own)
            {
                continue;
            }
            let reader = open_segment(repository, snapshot, segment)?;
            let is_another = |owner: &Owner| *owner != own && *owner != Owner::Shared;
            self.for_each_row(&reader, table, is_another, |row| {
                if let Some(&place) = keys.get(row.key()) {
                    had[place].store(true, Ordering::Relaxed);
                }
                Ok(())
            })?;
        }
        let mut had: Vec<bool> = had.into_iter().map(AtomicBool::into_inner).collect();
        if let Some(log) = image.log() {
            let changes = self.changes(repository, (image, log), table, keys)?;
            changes.apply(&mut had);
        }
        Ok(had)
    }

    /// What became of the keys after the snapshot and up to the image, whoever had them.
    fn changes(
        &self,
        repository: &dyn Repository,
        (image, log): (&TenantImage, &Log),
        table: TableIndex,
        keys: &HashMap<&[u8], usize>,
    ) -> Result<Changes, Error> {
        let through = image.position();
        let mut truncated = None;
        let last: Mutex<HashMap<usize, (Place, bool)>> = Mutex::default();
        let runs = log.runs().iter();
        for run in runs.take_while(|run| run.description.after.commit < through.commit) {
            truncated = truncated.max(run.truncated(table, through));
            let reader = run.open(repository)?;
            self.for_each_row(
                &reader,
                table,
                |_| true,
                |row| {
                    let change =
                        LoggedChange::read(row).map_err(Error::format("read a log run"))?;
                    let place = (change.commit, change.ordinal);
                    if let Some(&key) = keys.get(change.key)
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
        each: impl Fn(RowRef<'_>) -> Result<(), Error> + Sync,
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
        each: &(impl Fn(RowRef<'_>) -> Result<(), Error> + Sync),
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
                        batch.iter().try_for_each(each)?;
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

/// Rows of one table that the tenant has and did not have, on their way to be deleted.
pub(super) struct Newer<'s> {
    owners: &'s Owners<'s>,
    image: &'s TenantImage,
    source: TableIndex,
    /// Rows of everybody in the snapshot that are left, with whether there is a current one.
    everybodys: Option<(StreamCursor<ImageRows>, bool)>,
    /// Where others' rows are looked for; none if none could have the same key.
    repository: Option<&'s dyn Repository>,
    /// Rows that others may have had, and whether each returns by itself.
    rows: RowBatch,
    return_by_themselves: Vec<bool>,
}

impl<'s> Newer<'s> {
    pub(super) fn new(owners: &'s Owners<'s>, image: &'s TenantImage, source: TableIndex) -> Self {
        let table = image.snapshot().schema.table(source);
        let is_in_key = |column: &ColumnIndex| table.key.contains(column);
        let can_move = match &table.tenancy {
            // Each tenant has keys of its own there.
            Tenancy::Native | Tenancy::Shared | Tenancy::Excluded => false,
            // A row that goes to another tenant gets another key.
            Tenancy::Direct { column } => !is_in_key(column),
            Tenancy::Via { .. } | Tenancy::OneOf { .. } => true,
        };
        let repository = match owners.check {
            OwnerCheck::In(repository) if table.has_key() && can_move => Some(repository),
            _ => None,
        };
        Self {
            owners,
            image,
            source,
            everybodys: None,
            repository,
            rows: RowBatch::new(),
            return_by_themselves: Vec::new(),
        }
    }

    /// Deletes the row, now or once it is known whose it was. Given rows in their order.
    pub(super) fn delete(
        &mut self,
        live: RowRef<'_>,
        returns: bool,
        changes: &mut TableChanges<'_, '_>,
    ) -> Result<(), Error> {
        if self.was_everybodys(live)? {
            changes.conflict(live.key(), WAS_EVERYBODYS);
            changes.stays(returns, live);
            return Ok(());
        }
        if self.repository.is_none() {
            return changes.delete(live);
        }
        self.rows.push_row(live);
        self.return_by_themselves.push(returns);
        // Each key has an entry besides, with its place in the batch.
        let held_bytes = self.rows.as_bytes().len() + 64 * self.return_by_themselves.len();
        if held_bytes >= self.owners.context.resources.memory_bytes_max() / 8 {
            self.settle(changes)?;
        }
        Ok(())
    }

    /// Deletes what is left to be deleted.
    pub(super) fn settle(&mut self, changes: &mut TableChanges<'_, '_>) -> Result<(), Error> {
        let (Some(repository), false) = (self.repository, self.rows.is_empty()) else {
            return Ok(());
        };
        let keys = self.rows.iter().map(RowRef::key).zip(0..).collect();
        let had = self
            .owners
            .had(repository, self.image, self.source, &keys)?;
        for ((row, had), returns) in self.rows.iter().zip(had).zip(&self.return_by_themselves) {
            if had {
                changes.conflict(row.key(), WAS_ANOTHERS);
                changes.stays(*returns, row);
            } else {
                changes.delete(row)?;
            }
        }
        self.rows.clear();
        self.return_by_themselves.clear();
        Ok(())
    }

    /// Whether the row was everybody's. Rows without a key are not told apart from others that are the
    /// same, and are nobody's in particular.
    fn was_everybodys(&mut self, live: RowRef<'_>) -> Result<bool, Error> {
        if live.key().is_empty() {
            return Ok(false);
        }
        let (rows, has_row) = match &mut self.everybodys {
            Some(rows) => rows,
            none => {
                let context = self.owners.context;
                let stream = self.image.rows_of_everybody(context, self.source)?;
                let operation = "read the snapshot's rows of everybody".to_owned();
                let mut rows = StreamCursor::new(stream, operation);
                let has_row = rows.advance()?;
                none.insert((rows, has_row))
            }
        };
        while *has_row && rows.row().key() < live.key() {
            *has_row = rows.advance()?;
        }
        Ok(*has_row && rows.row().key() == live.key())
    }
}
