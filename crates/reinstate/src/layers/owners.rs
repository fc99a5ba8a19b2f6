//! All owners of a snapshot and the runs of its log, one after the other, each with its rows at a
//! position.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::sync::Arc;

use reinstate_core::{
    ErrorKind, Owner, Position, Repository, RowBatch, RowRef, RowStream, TableIndex,
};
use reinstate_format::{RunEntry, SegmentReader};

use super::{ImageRows, ImageTable, Layers, Place, family, last_place, widths};
use crate::log::Log;
use crate::opened::Opened;
use crate::run_stream::RunPart;
use crate::sort::{Cursor, Item};
use crate::{Context, Error};

/// Every row at a position, by owner, table and key.
///
/// *Cost*: reads the snapshot and the runs up to the position once. Holds their indexes, about 300
/// bytes for each owner and table, and the rows that went along with others.
pub(crate) struct AllRows<'a> {
    context: Context<'a>,
    sources: Vec<Source>,
    layers: Layers,
    /// Changes that follow from those of other rows.
    followed: BTreeMap<(Owner, TableIndex), RowBatch>,
    /// The owner and table of the current row.
    place: (Owner, TableIndex),
    rows: Option<ImageRows>,
    batch: RowBatch,
    current: usize,
    next: usize,
}

/// The runs of one segment, in order.
struct Source {
    reader: Arc<SegmentReader>,
    runs: Peekable<std::vec::IntoIter<RunEntry>>,
    is_log: bool,
}

impl<'a> AllRows<'a> {
    pub(crate) fn open(
        context: Context<'a>,
        repository: &dyn Repository,
        log: &Log,
        position: Position,
    ) -> Result<Self, Error> {
        let snapshot = log.snapshot();
        let opened = Opened::of(repository);
        let mut sources = Vec::new();
        for segment in &snapshot.segments {
            let reader = opened.segment(snapshot, segment)?;
            sources.push(Source::open(reader, false)?);
        }
        let mut layers = Layers {
            after: snapshot.position.commit,
            through: last_place(position),
            widths: widths(&snapshot.schema),
            ..Layers::default()
        };
        let mut moving: BTreeSet<Owner> = BTreeSet::new();
        for run in log.runs() {
            let description = &run.description;
            if description.after >= position {
                break;
            }
            for truncation in &description.truncations {
                let place: Place = (truncation.commit, truncation.ordinal);
                if place <= layers.through {
                    layers.truncations.push((truncation.table, place));
                }
            }
            for moved in &description.moves {
                if (moved.commit, moved.ordinal) <= layers.through {
                    moving.extend([moved.from.clone(), moved.to.clone()]);
                }
            }
            sources.push(Source::open(opened.run(run)?, true)?);
        }
        let mut followed = BTreeMap::new();
        for owner in moving {
            for (table, rows) in family::followed(context, &opened, log, position, &owner)? {
                followed.insert((owner.clone(), table), rows);
            }
        }
        Ok(Self {
            context,
            sources,
            layers,
            followed,
            place: (Owner::Shared, TableIndex(0)),
            rows: None,
            batch: RowBatch::new(),
            current: 0,
            next: 0,
        })
    }

    /// The next owner that has rows in some table, and how many it has there; none at the end. Reads no
    /// row but those that changed. Not to be mixed with [`advance`](Cursor::advance).
    pub(crate) fn next_count(&mut self) -> Result<Option<(&Owner, u64)>, Error> {
        loop {
            self.context.check()?;
            let Some(rows) = self.next_rows()? else {
                return Ok(None);
            };
            if rows.content.row_count() > 0 {
                return Ok(Some((&self.place.0, rows.content.row_count())));
            }
        }
    }

    /// Opens the rows of the next owner and table that has any; `false` at the end.
    fn next_table(&mut self) -> Result<bool, Error> {
        let rows = self.next_rows()?;
        self.rows = rows.map(|rows| rows.rows(self.context));
        Ok(self.rows.is_some())
    }

    /// Finds the rows of the next owner and table that has any.
    fn next_rows(&mut self) -> Result<Option<ImageTable>, Error> {
        let lowest = self.sources.iter_mut().filter_map(|source| {
            let run = source.runs.peek()?;
            Some((run.key.owner.clone(), run.key.table))
        });
        let followed = self.followed.first_key_value();
        let followed = followed.map(|(place, _)| place.clone());
        let Some(place) = lowest.chain(followed).min() else {
            return Ok(None);
        };
        let (owner, table) = place.clone();
        if table.get() >= self.layers.widths.len() {
            let message = format!("rows of table {}, which there is none of", table.0);
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let mut stored = Vec::new();
        let mut changes = Vec::new();
        for source in &mut self.sources {
            let is_here = |run: &RunEntry| run.key.owner == owner && run.key.table == table;
            while let Some(run) = source.runs.next_if(is_here) {
                let part = RunPart {
                    reader: Arc::clone(&source.reader),
                    run: Arc::new(run),
                };
                let parts = if source.is_log {
                    &mut changes
                } else {
                    &mut stored
                };
                parts.push(part);
            }
        }
        let followed = self.followed.remove(&place);
        let is_changed = followed.is_some() || !changes.is_empty();
        self.layers.followed = followed.into_iter().map(|rows| (table, rows)).collect();
        let mut rows = ImageTable::of_parts(stored);
        if self.layers.truncated(table).is_some() {
            rows.clear();
        }
        if is_changed {
            rows.resolve(self.context, &self.layers, table, changes)?;
        } else {
            rows.content = rows.stored_content;
        }
        self.place = place;
        Ok(Some(rows))
    }
}

impl Cursor for AllRows<'_> {
    fn advance(&mut self) -> Result<bool, Error> {
        while self.next == self.batch.as_bytes().len() {
            self.context.check()?;
            self.next = 0;
            let has_rows = match &mut self.rows {
                Some(rows) => rows
                    .next_batch(&mut self.batch)
                    .map_err(Error::store("read the rows of a snapshot and its log"))?,
                None => false,
            };
            if !has_rows {
                self.batch.clear();
                self.rows = None;
                if !self.next_table()? {
                    return Ok(false);
                }
            }
        }
        let (_, next) = self.batch.row_at(self.next).expect("BUG: no whole row");
        self.current = self.next;
        self.next = next;
        Ok(true)
    }

    fn current(&self) -> Item<'_> {
        let (row, _): (RowRef<'_>, usize) = self
            .batch
            .row_at(self.current)
            .expect("BUG: read before advance");
        Item {
            owner: self.place.0.as_bytes(),
            table: self.place.1,
            row,
        }
    }
}

impl Source {
    fn open(reader: Arc<SegmentReader>, is_log: bool) -> Result<Self, Error> {
        let runs = reader.runs().collect::<Result<Vec<_>, _>>();
        let runs = runs.map_err(Error::format("read the index of a segment"))?;
        Ok(Self {
            reader,
            runs: runs.into_iter().peekable(),
            is_log,
        })
    }
}
