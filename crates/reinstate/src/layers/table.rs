//! One table of an image: its stored rows, and what became of them.

use std::sync::Arc;

use reinstate_core::{ContentDigest, Owner, RowBatch, RowStream, StoreError, TableIndex};
use reinstate_format::SegmentReader;

use super::at_once::KeyedTable;
use super::changed::contradiction;
use super::{ChangedRows, Delta, Layers, Parts, PlaceInLog, ReshapedRows};
use crate::log::{Log, Reshape};
use crate::opened::Opened;
use crate::run_stream::{RunPart, RunStream};
use crate::{Context, Error};

/// One table of an image: an index of its rows.
#[derive(Clone)]
pub(crate) struct ImageTable {
    pub(crate) row_count: u64,
    pub(crate) content: ContentDigest,
    pub(crate) parts: Vec<RunPart>,
    /// What the parts contain.
    pub(crate) stored_content: ContentDigest,
    /// What became of their rows, one after the other; none if nothing changed.
    stages: Vec<TableStage>,
}

/// What became of the rows of a table while it stayed the same, and of the table before.
#[derive(Clone)]
struct TableStage {
    reshape: Option<Arc<Reshape>>,
    delta: Option<TableDelta>,
}

#[derive(Clone)]
pub(super) struct TableDelta {
    pub(super) fates: Arc<Delta>,
    /// What the rows contained before, and what those contain of which nothing became.
    pub(super) content: (ContentDigest, ContentDigest),
}

impl Default for ImageTable {
    fn default() -> Self {
        Self {
            row_count: 0,
            content: ContentDigest::EMPTY,
            parts: Vec::new(),
            stored_content: ContentDigest::EMPTY,
            stages: Vec::new(),
        }
    }
}

/// Rows of one table of an image, in order.
#[derive(Debug)]
pub enum ImageRows {
    /// As they are stored.
    Stored(RunStream),
    /// With what changed since.
    Changed(Box<ChangedRows>),
    /// As rows of a table that changed since.
    Reshaped(Box<ReshapedRows>),
}

impl RowStream for ImageRows {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        match self {
            Self::Stored(rows) => rows.next_batch(batch),
            Self::Changed(rows) => rows.next_batch(batch),
            Self::Reshaped(rows) => rows.next_batch(batch),
        }
    }
}

/// One owner at a place of a log.
pub(crate) struct OwnerAt<'o> {
    owner: &'o Owner,
    readers: Vec<Arc<SegmentReader>>,
    layers: Layers,
}

impl<'o> OwnerAt<'o> {
    pub(crate) fn open(
        context: Context<'_>,
        opened: &Opened<'_>,
        log: &Log,
        owner: &'o Owner,
        at: PlaceInLog,
    ) -> Result<Self, Error> {
        let snapshot = log.snapshot();
        let segments = snapshot.segments.iter();
        let readers = segments
            .filter(|segment| segment.first_owner <= *owner && *owner <= segment.last_owner)
            .map(|segment| opened.segment(snapshot, segment))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            owner,
            readers,
            layers: Layers::open(context, opened, log, at, owner)?,
        })
    }

    /// The owner's rows in one table, in order.
    pub(crate) fn rows(&self, context: Context<'_>, table: TableIndex) -> Result<ImageRows, Error> {
        ImageTable::changed(context, &self.readers, &self.layers, self.owner, table)
    }
}

impl ImageTable {
    /// What these segments have of one owner in one table.
    pub(crate) fn of(
        readers: &[Arc<SegmentReader>],
        owner: &Owner,
        table: TableIndex,
    ) -> Result<Self, Error> {
        let mut rows = Self::default();
        for reader in readers {
            let runs = reader
                .runs_of(owner)
                .map_err(Error::format(format!("find the rows of {owner}")))?;
            for run in runs.into_iter().filter(|run| run.key.table == table) {
                rows.add(RunPart {
                    reader: Arc::clone(reader),
                    run: Arc::new(run),
                });
            }
        }
        Ok(rows)
    }

    /// What these parts have.
    pub(crate) fn of_parts(parts: Vec<RunPart>) -> Self {
        let mut rows = Self::default();
        parts.into_iter().for_each(|part| rows.add(part));
        rows
    }

    fn add(&mut self, part: RunPart) {
        self.stored_content.merge(part.run.content);
        self.content = self.stored_content;
        self.row_count = self.content.row_count();
        self.parts.push(part);
    }

    /// Whether anything became of what is stored.
    pub(crate) fn is_changed(&self) -> bool {
        !self.stages.is_empty()
    }

    /// Brings the rows to where the layers go, with these parts of the changes. What they contain is
    /// known then only if the table stayed the same: see [`count`](Self::count).
    ///
    /// # Errors
    /// `Corrupt` if the changes do not follow from each other, or leave something where there are no rows.
    pub(crate) fn resolve(
        &mut self,
        context: Context<'_>,
        layers: &Layers,
        table: TableIndex,
        parts: &mut Parts,
    ) -> Result<(), Error> {
        self.resolve_beside(context, layers, table, parts, 1)
    }

    /// The same, of one of so many tables at the same time, which share the memory.
    pub(crate) fn resolve_beside(
        &mut self,
        context: Context<'_>,
        layers: &Layers,
        table: TableIndex,
        parts: &mut Parts,
        table_count: usize,
    ) -> Result<(), Error> {
        for span in layers.spans(table) {
            if layers.truncated(&span).is_some() {
                self.clear();
            }
            let has_changes = span.tables.iter().any(|place| {
                let (stage, table) = place;
                parts.contains_key(place) || layers.stages[*stage].followed.contains_key(table)
            });
            let before = self.content;
            let mut delta = None;
            if has_changes {
                let (fates, content) =
                    layers.resolve(context, &span, parts, (before, table_count))?;
                self.content = content;
                if fates.row_count() == 0 && content != before {
                    return Err(contradiction());
                }
                let mut stays = content;
                stays.subtract(fates.arrived());
                delta = (fates.row_count() > 0).then(|| TableDelta {
                    fates: Arc::new(fates),
                    content: (before, stays),
                });
            }
            // Nothing was there to be reshaped.
            let reshape = span.reshape.filter(|_| before.row_count() > 0);
            if reshape.is_some() || delta.is_some() {
                self.stages.push(TableStage { reshape, delta });
            }
        }
        self.row_count = self.content.row_count();
        if self.row_count == 0 && self.content != ContentDigest::EMPTY && !self.is_reshaped() {
            // Nobody would read them, and find out.
            return Err(contradiction());
        }
        Ok(())
    }

    fn is_reshaped(&self) -> bool {
        self.stages.iter().any(|stage| stage.reshape.is_some())
    }

    /// Reads the rows, if their table changed on the way, and finds out what they contain.
    pub(crate) fn count(&mut self, context: Context<'_>) -> Result<(), Error> {
        if !self.is_reshaped() {
            return Ok(());
        }
        let mut content = ContentDigest::EMPTY;
        self.for_each_in_order(context, |batch| {
            batch.iter().for_each(|row| content.add(row));
        })?;
        self.content = content;
        self.row_count = content.row_count();
        Ok(())
    }

    /// Hands each batch of its rows to `each`.
    pub(crate) fn for_each_in_order(
        &self,
        context: Context<'_>,
        mut each: impl FnMut(&RowBatch),
    ) -> Result<(), Error> {
        let mut rows = self.rows(context);
        let mut batch = RowBatch::new();
        while rows
            .next_batch(&mut batch)
            .map_err(Error::store("read the rows of a snapshot and its log"))?
        {
            context.check()?;
            each(&batch);
        }
        Ok(())
    }

    /// What these segments have of one owner in one table, with what became of it.
    pub(crate) fn changed(
        context: Context<'_>,
        readers: &[Arc<SegmentReader>],
        layers: &Layers,
        owner: &Owner,
        table: TableIndex,
    ) -> Result<ImageRows, Error> {
        let mut rows = match layers.stored(table) {
            Some(stored) => Self::of(readers, owner, stored)?,
            None => Self::default(),
        };
        rows.resolve(context, layers, table, &mut layers.parts(owner)?)?;
        Ok(rows.rows(context))
    }

    /// The table as one whose rows can be read by all threads, if it has a key and stayed the same, and only
    /// rows changed.
    pub(crate) fn keyed(&self, index: TableIndex) -> Option<KeyedTable<'_>> {
        let [stage] = self.stages.as_slice() else {
            return None;
        };
        let delta = stage.delta.as_ref().filter(|_| stage.reshape.is_none())?;
        delta.fates.is_keyed().then_some(KeyedTable {
            index,
            parts: &self.parts,
            delta,
        })
    }

    pub(crate) fn rows(&self, context: Context<'_>) -> ImageRows {
        let stored = RunStream::new(context.resources, self.parts.clone());
        let mut rows = ImageRows::Stored(stored);
        for stage in &self.stages {
            if let Some(reshape) = &stage.reshape {
                rows = ImageRows::Reshaped(ReshapedRows::new(rows, Arc::clone(reshape)).into());
            }
            if let Some(delta) = &stage.delta {
                let fates = Arc::clone(&delta.fates);
                rows = ImageRows::Changed(ChangedRows::new(rows, delta.content, fates).into());
            }
        }
        rows
    }

    /// Forgets all rows.
    fn clear(&mut self) {
        *self = Self::default();
    }
}
