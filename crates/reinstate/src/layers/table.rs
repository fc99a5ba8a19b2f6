//! One table of an image: its stored rows, and what became of them.

use std::sync::Arc;

use reinstate_core::{ContentDigest, Owner, RowBatch, RowStream, StoreError, TableIndex};
use reinstate_format::SegmentReader;

use super::{ChangedRows, Delta, Layers, Place};
use crate::log::Log;
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
    /// What became of their rows; none if nothing changed.
    pub(crate) delta: Option<Arc<Delta>>,
}

impl Default for ImageTable {
    fn default() -> Self {
        Self {
            row_count: 0,
            content: ContentDigest::EMPTY,
            parts: Vec::new(),
            stored_content: ContentDigest::EMPTY,
            delta: None,
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
}

impl RowStream for ImageRows {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        match self {
            Self::Stored(rows) => rows.next_batch(batch),
            Self::Changed(rows) => rows.next_batch(batch),
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
        place: Place,
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
            layers: Layers::open(context, opened, log, place, owner)?,
        })
    }

    /// The owner's rows in one table, in order.
    pub(crate) fn rows(&self, context: Context<'_>, table: TableIndex) -> Result<ImageRows, Error> {
        let rows = ImageTable::of(&self.readers, self.owner, table)?;
        rows.changed(context, &self.layers, self.owner, table)
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
        self.parts.push(part);
    }

    /// Brings the rows to where the layers go, with these parts of the changes.
    pub(crate) fn resolve(
        &mut self,
        context: Context<'_>,
        layers: &Layers,
        table: TableIndex,
        changes: Vec<RunPart>,
    ) -> Result<(), Error> {
        let (delta, content) = layers.resolve(context, table, changes, self.stored_content)?;
        self.content = content;
        self.row_count = content.row_count();
        self.delta = (delta.row_count() > 0).then(|| Arc::new(delta));
        Ok(())
    }

    /// The rows with what became of them.
    pub(crate) fn changed(
        mut self,
        context: Context<'_>,
        layers: &Layers,
        owner: &Owner,
        table: TableIndex,
    ) -> Result<ImageRows, Error> {
        if layers.truncated(table).is_some() {
            self.clear();
        }
        if let Some(parts) = layers.parts(owner)?.remove(&table) {
            self.resolve(context, layers, table, parts)?;
        }
        Ok(self.rows(context))
    }

    pub(crate) fn rows(&self, context: Context<'_>) -> ImageRows {
        let stored = RunStream::new(context.resources, self.parts.clone());
        match &self.delta {
            None => ImageRows::Stored(stored),
            Some(delta) => ImageRows::Changed(Box::new(ChangedRows::new(
                stored,
                (self.stored_content, self.content),
                Arc::clone(delta),
            ))),
        }
    }

    /// Forgets all rows.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
