//! Resolve: from all changes of a row to what became of it.

use reinstate_core::{ContentDigest, ErrorKind, RowBatch, RowBuilder, RowRef, TableIndex};
use reinstate_format::{ChangeKind, LoggedChange};

use super::delta::{Delta, DeltaWriter};
use super::{Layers, Parts, Span};
use crate::run_stream::RunStream;
use crate::sort::{Cursor, SortBudget, Sorted, SortedRows, Sorter};
use crate::{Context, Error};

impl Layers {
    /// What became of the rows of one owner in one table while it stayed the same, by these parts of its
    /// changes, and what the rows contain then if they contained `content` before.
    ///
    /// *Cost*: reads the parts once and sorts them.
    ///
    /// # Errors
    /// `Corrupt` if the changes of a row do not follow from each other.
    pub(super) fn resolve(
        &self,
        context: Context<'_>,
        span: &Span,
        parts: &mut Parts,
        mut content: ContentDigest,
    ) -> Result<(Delta, ContentDigest), Error> {
        let resources = context.resources;
        let budget = SortBudget {
            memory_bytes_max: resources.memory_bytes_max() / 4,
            directory: resources.spill_directory().to_owned(),
        };
        let mut sorter = Sorter::new(resources.pool(), budget);
        let truncated = self.truncated(span);
        let mut after = RowBuilder::new();
        let (_, table) = *span.tables.last().expect("BUG: a span of nothing");
        let mut add = |row: RowRef<'_>, width: Option<usize>| -> Result<(), Error> {
            let change = LoggedChange::read(row).map_err(Error::format("read a change"))?;
            let place = (change.commit, change.ordinal);
            let counts = self.after < change.commit
                && place <= self.through
                && truncated.is_none_or(|truncated| place > truncated);
            if !counts {
                return Ok(());
            }
            if let Some(width) = width {
                change
                    .check(width)
                    .map_err(Error::format("read a change"))?;
            }
            change.follow(&mut content, &mut after);
            sorter.push(&[], table, row)
        };
        for &(stage, table) in &span.tables {
            let layer = &self.stages[stage];
            let parts = parts.remove(&(stage, table)).unwrap_or_default();
            let mut rows = RunStream::new(resources, parts);
            let mut batch = RowBatch::new();
            while rows.next(&mut batch)? {
                context.check()?;
                for row in batch.iter() {
                    add(row, Some(layer.widths[table.get()]))?;
                }
            }
            let followed = layer.followed.get(&table).into_iter();
            for row in followed.flat_map(RowBatch::iter) {
                add(row, None)?;
            }
        }
        let memory = resources.memory_bytes_max() / 16;
        let changes = Sorted::merge(vec![sorter.finish()?], memory)?;
        let delta = DeltaWriter::new(memory, resources.spill_directory());
        Ok((fates(changes, delta, table)?, content))
    }
}

fn fates(
    mut changes: SortedRows,
    mut delta: DeltaWriter<'_>,
    table: TableIndex,
) -> Result<Delta, Error> {
    let mut row: Option<Row> = None;
    while changes.advance()? {
        let change =
            LoggedChange::read(changes.current().row).map_err(Error::format("read a change"))?;
        match &mut row {
            Some(row) if row.is_of(&change) => row.add(&change, table)?,
            other => {
                if let Some(done) = other.take() {
                    done.write(&mut delta)?;
                }
                *other = Some(Row::start(&change));
            }
        }
    }
    if let Some(row) = row {
        row.write(&mut delta)?;
    }
    delta.finish()
}

/// One row and what the changes so far made of it.
struct Row {
    key: Vec<u8>,
    columns: Vec<u8>,
    /// Whether it was there before the first change.
    was: bool,
    /// Whether it is there after the last one.
    is: bool,
    /// How many more there are, of a row without a key.
    count: i64,
}

impl Row {
    fn start(change: &LoggedChange<'_>) -> Self {
        Self {
            key: change.key.to_vec(),
            columns: change.columns.to_vec(),
            was: change.kind != ChangeKind::Inserted,
            is: change.kind != ChangeKind::Removed,
            count: step(change.kind),
        }
    }

    fn is_of(&self, change: &LoggedChange<'_>) -> bool {
        if change.key.is_empty() {
            self.key.is_empty() && self.columns == change.columns
        } else {
            self.key == change.key
        }
    }

    fn add(&mut self, change: &LoggedChange<'_>, table: TableIndex) -> Result<(), Error> {
        if change.key.is_empty() {
            self.count += step(change.kind);
            return Ok(());
        }
        let needs_row = change.kind != ChangeKind::Inserted;
        if needs_row != self.is {
            let message = format!(
                "the log contradicts itself about a row of table {}: {:?} at commit {}, where the row \
                 is {}",
                table.0,
                change.kind,
                change.commit,
                if self.is { "there" } else { "gone" },
            );
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        self.is = change.kind != ChangeKind::Removed;
        self.columns.clear();
        self.columns.extend_from_slice(change.columns);
        Ok(())
    }

    fn write(self, delta: &mut DeltaWriter<'_>) -> Result<(), Error> {
        if self.key.is_empty() {
            if self.count == 0 {
                return Ok(());
            }
            return delta.keyless(&self.columns, self.count);
        }
        if !self.was && !self.is {
            return Ok(());
        }
        let columns = self.is.then_some(self.columns.as_slice());
        delta.keyed(&self.key, self.was, columns)
    }
}

const fn step(kind: ChangeKind) -> i64 {
    match kind {
        ChangeKind::Inserted => 1,
        ChangeKind::Updated => 0,
        ChangeKind::Removed => -1,
    }
}
