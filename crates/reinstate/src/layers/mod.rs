//! A snapshot and the runs of its log that matter for one position, put together row by row.
//!
//! ```text
//! runs -> changes of one owner and table -> by key, then by place -> what became of each row
//!                                                    with the snapshot's rows -> rows at the position
//! ```
//!
//! All changes of one row stay together, whatever the memory: they are sorted, on disk if need be, and
//! only what became of the row in the end is kept. Each chain of changes has to fit: a row that is
//! changed without being there, or inserted where one is, means that something is missing.

mod changed;
mod delta;
mod family;
mod owners;
mod resolve;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

use reinstate_core::{Owner, Position, RowBatch, StoreSchema, TableIndex};
use reinstate_format::SegmentReader;

use crate::log::{Log, LogRun};
use crate::opened::Opened;
use crate::run_stream::RunPart;
use crate::{Context, Error};

pub use changed::ChangedRows;
pub(crate) use delta::Delta;
pub(crate) use owners::AllRows;
pub use table::ImageRows;
pub(crate) use table::{ImageTable, OwnerAt};

/// Where a change is in a log: its commit, and which of the changes of that transaction it is.
pub(crate) type Place = (u64, u32);

/// The last place of everything up to a position.
pub(crate) const fn last_place(position: Position) -> Place {
    (position.commit, u32::MAX)
}

/// The runs of a log that matter for one owner at one place.
#[derive(Clone, Default)]
pub(crate) struct Layers {
    runs: Vec<(Arc<LogRun>, Arc<SegmentReader>)>,
    /// Everything up to this commit was in the snapshot.
    after: u64,
    /// Nothing beyond this place counts.
    through: Place,
    /// The truncations that count.
    truncations: Vec<(TableIndex, Place)>,
    /// Changes that follow from those of other rows, by table.
    followed: BTreeMap<TableIndex, RowBatch>,
    /// How many columns each table has.
    widths: Vec<usize>,
}

/// How many columns each table has.
fn widths(schema: &StoreSchema) -> Vec<usize> {
    let tables = schema.tables().iter();
    tables.map(|table| table.columns.len()).collect()
}

impl Layers {
    /// Opens the runs of which the index may name this owner, and finds out which rows came and went
    /// with others.
    pub(crate) fn open(
        context: Context<'_>,
        opened: &Opened<'_>,
        log: &Log,
        through: Place,
        owner: &Owner,
    ) -> Result<Self, Error> {
        let after = log.snapshot().position.commit;
        Self::between(context, opened, log, (after, through), owner)
    }

    /// The same, of what was committed after a commit only.
    pub(crate) fn between(
        context: Context<'_>,
        opened: &Opened<'_>,
        log: &Log,
        (after, through): (u64, Place),
        owner: &Owner,
    ) -> Result<Self, Error> {
        let mut layers = Self {
            after,
            through,
            widths: widths(&log.snapshot().schema),
            ..Self::default()
        };
        let mut moves = Vec::new();
        for run in log.runs() {
            let description = &run.description;
            if description.after.commit >= through.0 {
                break;
            }
            if description.through.commit <= after {
                continue;
            }
            for truncation in &description.truncations {
                let place = (truncation.commit, truncation.ordinal);
                if after < place.0 && place <= through {
                    layers.truncations.push((truncation.table, place));
                }
            }
            moves.extend(description.moves.iter().filter_map(|moved| {
                let counts = after < moved.commit
                    && (moved.commit, moved.ordinal) <= through
                    && (moved.from == *owner || moved.to == *owner);
                counts.then_some((run, moved))
            }));
            let extent = &description.extent;
            let may_have = extent.change_count > 0
                && extent.first_owner <= *owner
                && *owner <= extent.last_owner;
            if may_have {
                layers.runs.push((Arc::clone(run), opened.run(run)?));
            }
        }
        for group in moves.chunk_by(|left, right| family::go_together(left.1, right.1)) {
            let (run, _) = group[0];
            let moves: Vec<_> = group.iter().map(|(_, moved)| *moved).collect();
            family::follow(context, opened, log, (run, &moves), owner, &mut layers)?;
        }
        Ok(layers)
    }

    /// The same, which counts what is read through it for itself.
    pub(crate) fn siblings(&self) -> Self {
        let mut layers = self.clone();
        for (_, reader) in &mut layers.runs {
            *reader = Arc::new(reader.sibling());
        }
        layers
    }

    /// Where the table last lost all its rows.
    pub(crate) fn truncated(&self, table: TableIndex) -> Option<Place> {
        let of_table = self.truncations.iter().rev();
        let mut of_table = of_table.filter(|(truncated, _)| *truncated == table);
        of_table.next().map(|(_, place)| *place)
    }

    /// The changes of this owner, by table, in the order of the runs. Tables of which only rows that
    /// followed others changed are there too.
    pub(crate) fn parts(&self, owner: &Owner) -> Result<BTreeMap<TableIndex, Vec<RunPart>>, Error> {
        let mut parts: BTreeMap<TableIndex, Vec<RunPart>> = BTreeMap::new();
        for &table in self.followed.keys() {
            parts.entry(table).or_default();
        }
        for (run, reader) in &self.runs {
            let number = run.description.number;
            let found = reader.runs_of(owner).map_err(Error::format(format!(
                "find the changes of {owner} in log run {number}"
            )))?;
            for run in found {
                let (reader, run) = (Arc::clone(reader), Arc::new(run));
                let of_table = parts.entry(run.key.table).or_default();
                of_table.push(RunPart { reader, run });
            }
        }
        Ok(parts)
    }

    /// Changes of this table that follow from those of other rows.
    pub(crate) fn followed(&self, table: TableIndex) -> Option<&RowBatch> {
        self.followed.get(&table)
    }

    /// Bytes read so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        let readers = self.runs.iter();
        readers.map(|(_, reader)| reader.bytes_read()).sum()
    }
}
