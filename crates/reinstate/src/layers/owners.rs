//! All owners of a snapshot and the runs of its log, one after the other, each with its rows at a
//! position.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::sync::Arc;

use reinstate_core::{
    ErrorKind, Owner, Position, Repository, RowBatch, RowRef, RowStream, TableIndex,
};
use reinstate_format::{RunEntry, SegmentReader};

use super::{ImageRows, ImageTable, Layers, Parts, Place, PlaceInLog, family};
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
    /// Changes that follow from those of other rows, by owner and table, with the stage and the table
    /// there.
    followed: BTreeMap<(Owner, TableIndex), Vec<Followed>>,
    /// The owner and table of the current row.
    place: (Owner, TableIndex),
    rows: Option<ImageRows>,
    batch: RowBatch,
    current: usize,
    next: usize,
}

/// In which stage, which table there, and the changes.
type Followed = (usize, TableIndex, RowBatch);

/// The runs of one segment, in order.
struct Source {
    reader: Arc<SegmentReader>,
    /// By owner and table; the tables are those of the last version.
    runs: Peekable<std::vec::IntoIter<(TableIndex, RunEntry)>>,
    /// In which stage the changes are; none if it has rows.
    stage: Option<usize>,
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
        let at = PlaceInLog::end_of(log, position);
        let mut layers = Layers::new(log, at);
        let mut sources = Vec::new();
        for segment in &snapshot.segments {
            let reader = opened.segment(snapshot, segment)?;
            sources.push(Source::open(reader, &layers, None)?);
        }
        let mut moving: BTreeSet<Owner> = BTreeSet::new();
        for (number, run) in log.runs().iter().enumerate() {
            let description = &run.description;
            if description.after >= position {
                break;
            }
            let stage = log.version_of_run(number);
            for truncation in &description.truncations {
                let place: Place = (truncation.commit, truncation.ordinal);
                if place <= layers.through {
                    let truncations = &mut layers.stages[stage].truncations;
                    truncations.push((truncation.table, place));
                }
            }
            for moved in &description.moves {
                if (moved.commit, moved.ordinal) <= layers.through {
                    moving.extend([moved.from.clone(), moved.to.clone()]);
                }
            }
            let reader = opened.run(run)?;
            sources.push(Source::open(reader, &layers, Some(stage))?);
        }
        let mut followed: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for owner in moving {
            for ((stage, table), rows) in family::followed(context, &opened, log, position, &owner)?
            {
                if let Some(target) = layers.targets(stage)[table.get()] {
                    let of_table = followed.entry((owner.clone(), target)).or_default();
                    of_table.push((stage, table, rows));
                }
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
            let (table, run) = source.runs.peek()?;
            Some((run.key.owner.clone(), *table))
        });
        let followed = self.followed.first_key_value();
        let followed = followed.map(|(place, _)| place.clone());
        let Some(place) = lowest.chain(followed).min() else {
            return Ok(None);
        };
        let (owner, table) = place.clone();
        let mut stored = Vec::new();
        let mut changes = Parts::new();
        for source in &mut self.sources {
            let is_here =
                |(target, run): &(TableIndex, RunEntry)| run.key.owner == owner && *target == table;
            while let Some((_, run)) = source.runs.next_if(is_here) {
                let was = run.key.table;
                let part = RunPart {
                    reader: Arc::clone(&source.reader),
                    run: Arc::new(run),
                };
                match source.stage {
                    None => stored.push(part),
                    Some(stage) => changes.entry((stage, was)).or_default().push(part),
                }
            }
        }
        for stage in &mut self.layers.stages {
            stage.followed.clear();
        }
        for (stage, table, rows) in self.followed.remove(&place).unwrap_or_default() {
            self.layers.stages[stage].followed.insert(table, rows);
        }
        let mut rows = ImageTable::of_parts(stored);
        rows.resolve(self.context, &self.layers, table, &mut changes)?;
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
    fn open(
        reader: Arc<SegmentReader>,
        layers: &Layers,
        stage: Option<usize>,
    ) -> Result<Self, Error> {
        let targets = layers.targets(stage.unwrap_or(0));
        let mut runs = Vec::new();
        for run in reader.runs() {
            let run = run.map_err(Error::format("read the index of a segment"))?;
            let table = run.key.table;
            let Some(target) = targets.get(table.get()) else {
                let message = format!("rows of table {}, which there is none of", table.0);
                return Err(Error::new(ErrorKind::Corrupt, message));
            };
            // Those of a table that is gone go with it.
            if let Some(target) = target {
                runs.push((*target, run));
            }
        }
        // Tables may have changed places.
        runs.sort_by(|(left, one), (right, two)| {
            (&one.key.owner, left).cmp(&(&two.key.owner, right))
        });
        Ok(Self {
            reader,
            runs: runs.into_iter().peekable(),
            stage,
        })
    }
}
