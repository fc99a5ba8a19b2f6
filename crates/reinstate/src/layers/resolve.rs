//! Resolve: from all changes of a row to what became of it.

use reinstate_core::{ContentDigest, ErrorKind, RowBatch, RowBuilder, RowRef, TableIndex};
use reinstate_format::{ChangeKind, FormatError, LoggedChange};

use super::delta::{Delta, DeltaWriter};
use super::{Layers, Parts, Place, Span};
use crate::plan::{finish_sort, start_sort_of};
use crate::run_stream::{RunPart, RunStream};
use crate::sort::{Cursor, Item, SortedRows};
use crate::{Context, Error};

/// Up to so many parts are read side by side: each is in order. More are sorted.
const SIDE_BY_SIDE_MAX: usize = 8;

impl Layers {
    /// What became of the rows of one owner in one table while it stayed the same, by these parts of its
    /// changes, and what the rows contain then if they contained `content` before. So many tables share the
    /// memory.
    ///
    /// *Cost*: reads the parts once, and sorts them if there are many.
    ///
    /// # Errors
    /// `Corrupt` if the changes of a row do not follow from each other.
    pub(super) fn resolve(
        &self,
        context: Context<'_>,
        span: &Span,
        parts: &mut Parts,
        (mut content, table_count): (ContentDigest, usize),
    ) -> Result<(Delta, ContentDigest), Error> {
        let resources = context.resources;
        let (_, table) = *span.tables.last().expect("BUG: a span of nothing");
        let limits = Limits {
            after: self.after,
            through: self.through,
            truncated: self.truncated(span),
        };
        let mut read: Vec<(Vec<RunPart>, usize)> = Vec::new();
        let mut followed: Vec<&RowBatch> = Vec::new();
        for &(stage, table) in &span.tables {
            let layer = &self.stages[stage];
            let parts = parts.remove(&(stage, table)).unwrap_or_default();
            read.push((parts, layer.widths[table.get()]));
            followed.extend(layer.followed.get(&table));
        }
        let changes = |parts: Vec<RunPart>, width: usize, at_once: usize| Changes {
            rows: RunStream::beside_others(resources, parts, at_once * table_count),
            batch: RowBatch::new(),
            current: 0,
            next: 0,
            table,
            width,
            limits,
        };
        let parts = read.iter().flat_map(|(parts, _)| parts);
        let longest: Vec<usize> = parts.map(longest_block_bytes).collect();
        let part_count = longest.len();
        let fit = fit_side_by_side(&longest, resources.memory_bytes_max() / table_count);
        let changes = if fit && followed.is_empty() {
            let parts = read.into_iter().flat_map(|(parts, width)| {
                let parts = parts.into_iter();
                parts.map(move |part| changes(vec![part], width, part_count))
            });
            SortedRows::of(parts.map(|part| Box::new(part) as Box<dyn Cursor + Send>))?
        } else {
            let mut sorter = start_sort_of(context, table_count);
            for (parts, width) in read {
                let mut changes = changes(parts, width, 1);
                while changes.advance()? {
                    context.check()?;
                    sorter.push(&[], table, changes.current().row)?;
                }
            }
            for row in followed.into_iter().flat_map(RowBatch::iter) {
                if limits.counts(&read_change(row)?) {
                    sorter.push(&[], table, row)?;
                }
            }
            finish_sort(context, sorter)?
        };
        let memory = resources.memory_bytes_max() / 16;
        let delta = DeltaWriter::new(memory, resources.spill_directory());
        let delta = fates(context, changes, &mut content, delta)?;
        Ok((delta, content))
    }
}

fn longest_block_bytes(part: &RunPart) -> usize {
    let blocks = part.run.blocks.iter();
    let longest = blocks.map(|block| block.plain_bytes as usize).max();
    longest.unwrap_or(0)
}

/// Whether parts with blocks of up to these lengths can be read side by side: of each there is a block in memory, and
/// one that is decoded ahead. A block is as long as its only row may be.
fn fit_side_by_side(longest_bytes: &[usize], memory_bytes_max: usize) -> bool {
    let bytes: usize = longest_bytes.iter().map(|bytes| 2 * bytes).sum();
    longest_bytes.len() <= SIDE_BY_SIDE_MAX
        && (longest_bytes.len() <= 1 || bytes <= memory_bytes_max / 4)
}

/// Which changes count.
#[derive(Clone, Copy)]
struct Limits {
    /// Everything up to this commit was in the snapshot.
    after: u64,
    through: Place,
    /// Where the table last lost all its rows.
    truncated: Option<Place>,
}

impl Limits {
    fn counts(self, change: &LoggedChange<'_>) -> bool {
        let place = (change.commit, change.ordinal);
        self.after < change.commit
            && place <= self.through
            && self.truncated.is_none_or(|truncated| place > truncated)
    }
}

/// The changes of some parts that count, as they lie there.
struct Changes {
    rows: RunStream,
    batch: RowBatch,
    current: usize,
    next: usize,
    /// The table as which they are handed out.
    table: TableIndex,
    /// How many columns it has.
    width: usize,
    limits: Limits,
}

impl Cursor for Changes {
    fn advance(&mut self) -> Result<bool, Error> {
        loop {
            let Some((row, next)) = self.batch.row_at(self.next) else {
                if !self.rows.next(&mut self.batch)? {
                    return Ok(false);
                }
                self.next = 0;
                continue;
            };
            let change = read_change(row)?;
            let counts = self.limits.counts(&change);
            if counts {
                change.check(self.width).map_err(unreadable)?;
            }
            (self.current, self.next) = (self.next, next);
            if counts {
                return Ok(true);
            }
        }
    }

    fn current(&self) -> Item<'_> {
        let row = self.batch.row_at(self.current);
        Item {
            owner: &[],
            table: self.table,
            row: row.expect("BUG: read before advance").0,
        }
    }
}

fn read_change(row: RowRef<'_>) -> Result<LoggedChange<'_>, Error> {
    LoggedChange::read(row).map_err(unreadable)
}

fn unreadable(error: FormatError) -> Error {
    Error::format("read a change")(error)
}

/// What became of each row by its changes, given in order, and of what the rows contain.
fn fates(
    context: Context<'_>,
    mut changes: SortedRows,
    content: &mut ContentDigest,
    mut delta: DeltaWriter<'_>,
) -> Result<Delta, Error> {
    let mut row = Row::default();
    let mut after = RowBuilder::new();
    while changes.advance()? {
        context.check()?;
        let Item {
            table, row: logged, ..
        } = changes.current();
        let change = read_change(logged)?;
        change.follow(content, &mut after);
        if row.is_of(&change) {
            row.add(&change, table)?;
        } else {
            row.write(&mut delta)?;
            row.start(&change);
        }
    }
    row.write(&mut delta)?;
    delta.finish()
}

/// One row and what the changes so far made of it.
#[derive(Default)]
struct Row {
    /// Whether there is one.
    started: bool,
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
    fn start(&mut self, change: &LoggedChange<'_>) {
        self.started = true;
        replace(&mut self.key, change.key);
        replace(&mut self.columns, change.columns);
        self.was = change.kind != ChangeKind::Inserted;
        self.is = change.kind != ChangeKind::Removed;
        self.count = step(change.kind);
    }

    fn is_of(&self, change: &LoggedChange<'_>) -> bool {
        self.started
            && if change.key.is_empty() {
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
        replace(&mut self.columns, change.columns);
        Ok(())
    }

    fn write(&self, delta: &mut DeltaWriter<'_>) -> Result<(), Error> {
        if !self.started {
            return Ok(());
        }
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

fn replace(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(bytes);
}

const fn step(kind: ChangeKind) -> i64 {
    match kind {
        ChangeKind::Inserted => 1,
        ChangeKind::Updated => 0,
        ChangeKind::Removed => -1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_with_long_rows_are_read_one_behind_the_other() {
        const MIB: usize = 1 << 20;
        assert!(fit_side_by_side(&[], 16 * MIB));
        assert!(fit_side_by_side(&[MIB / 4; 8], 16 * MIB));
        assert!(!fit_side_by_side(&[1; 9], 16 * MIB));
        assert!(!fit_side_by_side(&[100 * MIB, 100 * MIB], 256 * MIB));
        assert!(!fit_side_by_side(&[100 * MIB, 1], 256 * MIB));
        assert!(fit_side_by_side(&[30 * MIB, 1], 256 * MIB));
        // Sorting it would hold it as well.
        assert!(fit_side_by_side(&[100 * MIB], 16 * MIB));
    }
}
