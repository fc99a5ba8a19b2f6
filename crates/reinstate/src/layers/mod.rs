//! A snapshot and the runs of its log that matter for one position, put together row by row.
//!
//! ```text
//! runs -> changes of one owner and table -> by key, then by place -> what became of each row
//!                                                    with the snapshot's rows -> rows at the position
//! ```
//!
//! Where the tables changed on the way, the rows so far become rows of the tables as they are, and what
//! comes after changes those.
//!
//! All changes of one row stay together, whatever the memory: they are sorted, on disk if need be, and
//! only what became of the row in the end is kept. Each chain of changes has to fit: a row that is
//! changed without being there, or inserted where one is, means that something is missing.

mod at_once;
mod changed;
mod delta;
mod family;
mod owners;
mod reshaped;
mod resolve;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

use reinstate_core::{ErrorKind, Owner, Position, RowBatch, TableIndex};
use reinstate_format::SegmentReader;

use crate::log::{Log, LogRun, Reshape};
use crate::opened::Opened;
use crate::run_stream::RunPart;
use crate::{Context, Error};

pub(crate) use at_once::for_each_batch;
pub use changed::ChangedRows;
pub(crate) use delta::Delta;
pub(crate) use owners::AllRows;
pub use reshaped::ReshapedRows;
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
    /// Everything up to this commit was in the snapshot.
    after: u64,
    /// Nothing beyond this place counts.
    through: Place,
    /// One for each version of the tables up to that place; none without a log.
    stages: Vec<Stage>,
    /// For each table of the last version, what it was in those before it.
    lineages: Vec<Vec<Option<TableIndex>>>,
}

/// What happened while the tables were those of one version of the log.
#[derive(Clone, Default)]
struct Stage {
    runs: Vec<(Arc<LogRun>, Arc<SegmentReader>)>,
    /// The truncations that count.
    truncations: Vec<(TableIndex, Place)>,
    /// Changes that follow from those of other rows, by table.
    followed: BTreeMap<TableIndex, RowBatch>,
    /// How many columns each table has.
    widths: Vec<usize>,
    /// How rows of the tables before become rows of these; those not named here stay as they are.
    reshapes: BTreeMap<TableIndex, Arc<Reshape>>,
}

/// Versions through which a table stayed the same, and how its rows came there.
struct Span {
    reshape: Option<Arc<Reshape>>,
    /// Which of the stages, and which table it is there.
    tables: Vec<(usize, TableIndex)>,
}

impl Stage {
    fn new(log: &Log, version: usize) -> Self {
        let schema = log.schema_of(version);
        let widths = schema.tables().iter().map(|table| table.columns.len());
        let mut stage = Self {
            widths: widths.collect(),
            ..Self::default()
        };
        let Some(before) = version.checked_sub(1) else {
            return stage;
        };
        let origins = log.versions()[before].description.change.origins();
        for (origin, table) in origins.iter().zip(0..) {
            let Some(origin) = origin else {
                continue;
            };
            let width = log.schema_of(before).table(origin.table).columns.len();
            if let Some(reshape) = Reshape::of(origin, width) {
                stage.reshapes.insert(TableIndex(table), reshape.into());
            }
        }
        stage
    }

    /// Where a table last lost all its rows.
    fn truncated(&self, table: TableIndex) -> Option<Place> {
        let of_table = self.truncations.iter().rev();
        let mut of_table = of_table.filter(|(truncated, _)| *truncated == table);
        of_table.next().map(|(_, place)| *place)
    }
}

/// A place in a log, and how many records of tables come before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlaceInLog {
    pub(crate) place: Place,
    pub(crate) version: usize,
}

impl PlaceInLog {
    /// The last place of everything up to a position.
    pub(crate) fn end_of(log: &Log, position: Position) -> Self {
        Self {
            place: last_place(position),
            version: log.version_at(position),
        }
    }
}

impl Layers {
    /// No run yet.
    fn new(log: &Log, at: PlaceInLog) -> Self {
        let tables = log.schema_of(at.version).iter();
        Self {
            after: log.snapshot().position.commit,
            through: at.place,
            stages: (0..=at.version)
                .map(|version| Stage::new(log, version))
                .collect(),
            lineages: tables
                .map(|(table, _)| log.lineage(table, at.version))
                .collect(),
        }
    }

    /// Opens the runs of which the index may name this owner, and finds out which rows came and went
    /// with others.
    pub(crate) fn open(
        context: Context<'_>,
        opened: &Opened<'_>,
        log: &Log,
        at: PlaceInLog,
        owner: &Owner,
    ) -> Result<Self, Error> {
        let after = log.snapshot().position.commit;
        Self::between(context, opened, log, (after, at), owner)
    }

    /// The same, of what was committed after a commit only.
    pub(crate) fn between(
        context: Context<'_>,
        opened: &Opened<'_>,
        log: &Log,
        (after, at): (u64, PlaceInLog),
        owner: &Owner,
    ) -> Result<Self, Error> {
        let through = at.place;
        let mut layers = Self {
            after,
            ..Self::new(log, at)
        };
        let mut moves = Vec::new();
        for (number, run) in log.runs().iter().enumerate() {
            let description = &run.description;
            if description.after.commit >= through.0 {
                break;
            }
            if description.through.commit <= after {
                continue;
            }
            let version = log.version_of_run(number);
            let stage = &mut layers.stages[version];
            for truncation in &description.truncations {
                let place = (truncation.commit, truncation.ordinal);
                if after < place.0 && place <= through {
                    stage.truncations.push((truncation.table, place));
                }
            }
            moves.extend(description.moves.iter().filter_map(|moved| {
                let counts = after < moved.commit
                    && (moved.commit, moved.ordinal) <= through
                    && (moved.from == *owner || moved.to == *owner);
                counts.then_some((version, run, moved))
            }));
            let extent = &description.extent;
            let may_have = extent.change_count > 0
                && extent.first_owner <= *owner
                && *owner <= extent.last_owner;
            if may_have {
                stage.runs.push((Arc::clone(run), opened.run(run)?));
            }
        }
        for group in moves.chunk_by(|left, right| family::go_together(left.2, right.2)) {
            let (version, run, _) = group[0];
            let moves: Vec<_> = group.iter().map(|(_, _, moved)| *moved).collect();
            let followed = family::follow(context, opened, log, (version, run, &moves), owner)?;
            for (table, rows) in followed {
                let all = layers.stages[version].followed.entry(table).or_default();
                rows.iter().for_each(|row| all.push_row(row));
            }
        }
        Ok(layers)
    }

    /// The same, which counts what is read through it for itself.
    pub(crate) fn siblings(&self) -> Self {
        let mut layers = self.clone();
        let runs = layers.stages.iter_mut().flat_map(|stage| &mut stage.runs);
        for (_, reader) in runs {
            *reader = Arc::new(reader.sibling());
        }
        layers
    }

    /// Which table of the snapshot a table of the last version was; none if it was not there.
    pub(crate) fn stored(&self, table: TableIndex) -> Option<TableIndex> {
        match self.lineages.get(table.get()) {
            Some(lineage) => lineage[0],
            None => Some(table),
        }
    }

    /// For each table of a stage, which one of the last version it is; none if it is gone.
    fn targets(&self, stage: usize) -> Vec<Option<TableIndex>> {
        let mut targets = vec![None; self.stages[stage].widths.len()];
        for (lineage, table) in self.lineages.iter().zip(0..) {
            if let Some(was) = lineage[stage] {
                targets[was.get()] = Some(TableIndex(table));
            }
        }
        targets
    }

    /// The stages of a table of the last version, those together between which it stayed the same.
    fn spans(&self, table: TableIndex) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        let lineage = self.lineages.get(table.get());
        for (stage, was) in lineage.into_iter().flatten().enumerate() {
            let Some(was) = *was else {
                continue;
            };
            let reshape = self.stages[stage].reshapes.get(&was);
            match spans.last_mut() {
                Some(span) if reshape.is_none() => span.tables.push((stage, was)),
                _ => spans.push(Span {
                    reshape: reshape.cloned(),
                    tables: vec![(stage, was)],
                }),
            }
        }
        spans
    }

    /// Where a table last lost all its rows.
    fn truncated(&self, span: &Span) -> Option<Place> {
        let mut tables = span.tables.iter().rev();
        tables.find_map(|&(stage, table)| self.stages[stage].truncated(table))
    }

    /// The changes of this owner, in the order of the runs.
    pub(crate) fn parts(&self, owner: &Owner) -> Result<Parts, Error> {
        let mut parts = Parts::default();
        for (stage, layer) in self.stages.iter().enumerate() {
            for (run, reader) in &layer.runs {
                let number = run.description.number;
                let found = reader.runs_of(owner).map_err(Error::format(format!(
                    "find the changes of {owner} in log run {number}"
                )))?;
                for run in found {
                    let table = run.key.table;
                    if table.get() >= layer.widths.len() {
                        let message = format!("log run {number}: a run of table {}", table.0);
                        return Err(Error::new(ErrorKind::Corrupt, message));
                    }
                    let (reader, run) = (Arc::clone(reader), Arc::new(run));
                    let of_table = parts.entry((stage, table)).or_default();
                    of_table.push(RunPart { reader, run });
                }
            }
        }
        Ok(parts)
    }

    /// Which table a table of the last version is in each of the stages in which it is there.
    pub(crate) fn places(&self, table: TableIndex) -> impl Iterator<Item = (usize, TableIndex)> {
        let lineage = self.lineages.get(table.get()).into_iter().flatten();
        let places = lineage.enumerate();
        places.filter_map(|(stage, table)| Some((stage, (*table)?)))
    }

    /// Changes of a table of a stage that follow from those of other rows.
    pub(crate) fn followed(&self, (stage, table): (usize, TableIndex)) -> Option<&RowBatch> {
        self.stages[stage].followed.get(&table)
    }

    /// Where a table of a stage last lost all its rows there.
    pub(crate) fn truncated_in(&self, (stage, table): (usize, TableIndex)) -> Option<Place> {
        self.stages[stage].truncated(table)
    }

    /// Bytes read so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        let readers = self.stages.iter().flat_map(|stage| &stage.runs);
        readers.map(|(_, reader)| reader.bytes_read()).sum()
    }
}

/// Changes of one owner, by the stage and the table there.
pub(crate) type Parts = BTreeMap<(usize, TableIndex), Vec<RunPart>>;
