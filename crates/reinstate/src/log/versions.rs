//! The versions of a log's tables: those of its snapshot, and those that a record between two runs
//! says.
//!
//! A version is in force for the commits behind its record. Tables and columns have other indexes in
//! other versions; what rows of one are in terms of another follows from the records in between.

use std::sync::Arc;

use reinstate_core::{
    ColumnOrigin, Digest, Position, RowBuilder, RowRef, SnapshotDescription, StoreSchema,
    TableIndex, TableOrigin, TableTotals,
};
use reinstate_format::{LogVersionDescription, schema_digest};

use super::chain::Log;

/// Tables that a log has from one place on.
#[derive(Clone, Debug)]
pub struct LogVersion {
    /// What its record says.
    pub description: Arc<LogVersionDescription>,
    /// Its record's digest.
    pub digest: Digest,
    /// The digest of its schema.
    schema_digest: Digest,
    /// The place among the log's runs of the first that is written in it.
    pub(super) first_run: usize,
}

impl LogVersion {
    pub(super) fn new(description: LogVersionDescription, digest: Digest) -> Self {
        Self {
            schema_digest: schema_digest(description.change.schema()),
            description: Arc::new(description),
            digest,
            first_run: 0,
        }
    }
}

impl Log {
    /// Where its tables changed, in order.
    #[must_use]
    pub fn versions(&self) -> &[LogVersion] {
        &self.versions
    }

    /// The tables in which rows at a position are: those in force when its last commit was made.
    #[must_use]
    pub fn schema_at(&self, position: Position) -> &StoreSchema {
        self.schema_of(self.version_at(position))
    }

    /// The snapshot, with the tables of a position in place of its own.
    #[must_use]
    pub fn snapshot_at(&self, position: Position) -> Arc<SnapshotDescription> {
        let snapshot = self.snapshot();
        let version = self.version_at(position);
        if version == 0 {
            return Arc::clone(snapshot);
        }
        let schema = self.schema_of(version).clone();
        Arc::new(SnapshotDescription {
            totals: vec![TableTotals::default(); schema.tables().len()],
            schema_digest: self.versions[version - 1].schema_digest,
            schema,
            ..snapshot.as_ref().clone()
        })
    }

    /// How many records of tables come before the rows at a position.
    pub(crate) fn version_at(&self, position: Position) -> usize {
        let is_before = |version: &LogVersion| version.description.after < position;
        self.versions.partition_point(is_before)
    }

    /// How many records of tables come before a run, by its place among the runs.
    pub(crate) fn version_of_run(&self, run: usize) -> usize {
        let is_before = |version: &LogVersion| version.first_run <= run;
        self.versions.partition_point(is_before)
    }

    /// The tables after so many records of them.
    pub(crate) fn schema_of(&self, version: usize) -> &StoreSchema {
        match version.checked_sub(1) {
            None => &self.snapshot().schema,
            Some(place) => self.versions[place].description.change.schema(),
        }
    }

    /// The tables in which the next run is written.
    pub(crate) fn last_schema(&self) -> &StoreSchema {
        self.schema_of(self.versions.len())
    }

    pub(crate) fn last_schema_digest(&self) -> Digest {
        let last = self.versions.last();
        last.map_or(self.snapshot().schema_digest, |last| last.schema_digest)
    }

    /// What the store said of the tables in which the next run is written.
    pub(crate) fn last_facts(&self) -> Option<&[u8]> {
        let last = self.versions.last()?;
        Some(last.description.change.facts())
    }

    /// What became of a table from one version to a later one; none if it is gone by then.
    pub(crate) fn carry(
        &self,
        table: TableIndex,
        (from, to): (usize, usize),
    ) -> Option<(TableIndex, Option<Reshape>)> {
        let mut carried = (table, None::<Reshape>);
        for version in &self.versions[from..to] {
            let change = &version.description.change;
            let target = change.target(carried.0)?;
            let origin = change.origins()[target.get()].as_ref()?;
            let next = Reshape::of(origin, self.width(from, table, &carried));
            carried = (target, Reshape::compose(carried.1, next));
        }
        Some(carried)
    }

    /// How many columns a table has that was carried on from a version.
    fn width(
        &self,
        from: usize,
        table: TableIndex,
        (_, reshape): &(TableIndex, Option<Reshape>),
    ) -> usize {
        match reshape {
            Some(reshape) => reshape.columns.len(),
            None => self.schema_of(from).table(table).columns.len(),
        }
    }

    /// What a table of a version was in those before it, from the snapshot's on; none before it was there.
    pub(crate) fn lineage(&self, table: TableIndex, version: usize) -> Vec<Option<TableIndex>> {
        let mut lineage = vec![None; version + 1];
        let mut known = Some(table);
        lineage[version] = known;
        for place in (0..version).rev() {
            let origins = self.versions[place].description.change.origins();
            known = known.and_then(|table| Some(origins[table.get()].as_ref()?.table));
            lineage[place] = known;
        }
        lineage
    }
}

/// How a row of a table as it was becomes one of the table as it is. Its key stays the same, and so does
/// its place among the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reshape {
    columns: Vec<ColumnOrigin>,
}

impl Reshape {
    /// None if a row of so many columns stays as it is.
    pub(crate) fn of(origin: &TableOrigin, width: usize) -> Option<Self> {
        let mut columns = origin.columns.iter().zip(0..);
        let is_same = origin.columns.len() == width
            && columns.all(
                |(column, place)| matches!(column, ColumnOrigin::From(from) if from.0 == place),
            );
        (!is_same).then(|| Self {
            columns: origin.columns.clone(),
        })
    }

    /// One after the other.
    fn compose(first: Option<Self>, second: Option<Self>) -> Option<Self> {
        let (first, second) = match (first, second) {
            (Some(first), Some(second)) => (first, second),
            (first, second) => return first.or(second),
        };
        let columns = second.columns.into_iter().map(|column| match column {
            ColumnOrigin::From(column) => first.columns[column.get()].clone(),
            filled @ ColumnOrigin::Filled(_) => filled,
        });
        Some(Self {
            columns: columns.collect(),
        })
    }

    pub(crate) fn apply(&self, row: RowRef<'_>, builder: &mut RowBuilder) {
        let values: Vec<Option<&[u8]>> = row.values().collect();
        builder.start(row.key());
        for column in &self.columns {
            builder.push(match column {
                ColumnOrigin::From(column) => values.get(column.get()).copied().flatten(),
                ColumnOrigin::Filled(value) => value.as_deref(),
            });
        }
    }
}
