//! Resolve: from all changes of a row to what became of it.

use reinstate_core::{ContentDigest, ErrorKind, RowBatch, RowRef, TableIndex};
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
        (content, table_count): (ContentDigest, usize),
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
        let memory = resources.memory_bytes_max() / 16;
        let delta = DeltaWriter::new(memory, resources.spill_directory());
        let mut fates = Fates::new(table, content, delta);
        if fit && followed.is_empty() {
            let parts = read.into_iter().flat_map(|(parts, width)| {
                let parts = parts.into_iter();
                parts.map(move |part| changes(vec![part], width, part_count))
            });
            let mut parts: Vec<Changes> = parts.collect();
            if parts.len() > 1 {
                let parts = parts.into_iter();
                let merged = parts.map(|part| Box::new(part) as Box<dyn Cursor + Send>);
                fates.follow(context, SortedRows::of(merged)?)?;
            } else if let Some(part) = parts.pop() {
                part.for_each(context, |change| fates.add(change))?;
            }
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
            fates.follow(context, finish_sort(context, sorter)?)?;
        }
        fates.finish()
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

impl Changes {
    /// Hands every change to `each`: what a single one of such cursors is read by, sooner than by its steps.
    fn for_each(
        mut self,
        context: Context<'_>,
        mut each: impl FnMut(&LoggedChange<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        while self.rows.next(&mut self.batch)? {
            context.check()?;
            for row in self.batch.iter() {
                if let Some(change) = self.counted(row)? {
                    each(&change)?;
                }
            }
        }
        Ok(())
    }

    /// The change that a row stands for, if it counts.
    fn counted<'r>(&self, row: RowRef<'r>) -> Result<Option<LoggedChange<'r>>, Error> {
        let change = read_change(row)?;
        if !self.limits.counts(&change) {
            return Ok(None);
        }
        change.check(self.width).map_err(unreadable)?;
        Ok(Some(change))
    }
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
            let counts = self.counted(row)?.is_some();
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
struct Fates<'d> {
    table: TableIndex,
    /// What the rows contain after the changes so far.
    content: ContentDigest,
    delta: DeltaWriter<'d>,
    /// Of the row that the last change was of, which is the last one of the delta.
    row: Option<RowSoFar>,
}

/// What the changes so far made of one row.
#[derive(Clone, Copy)]
struct RowSoFar {
    has_key: bool,
    /// Whether it was there before the first change.
    was: bool,
    /// Whether it is there after the last one.
    is: bool,
    /// How many more there are, of a row without a key.
    count: i64,
    /// What the row contains that was inserted or updated last.
    content: ContentDigest,
}

impl<'d> Fates<'d> {
    const fn new(table: TableIndex, content: ContentDigest, delta: DeltaWriter<'d>) -> Self {
        Self {
            table,
            content,
            delta,
            row: None,
        }
    }

    fn follow(&mut self, context: Context<'_>, mut changes: SortedRows) -> Result<(), Error> {
        while changes.advance()? {
            context.check()?;
            self.add(&read_change(changes.current().row)?)?;
        }
        Ok(())
    }

    fn add(&mut self, change: &LoggedChange<'_>) -> Result<(), Error> {
        let before = self.row.take();
        let of_same = before.filter(|_| self.delta.is_last(change.key, change.columns));
        if of_same.is_some() {
            self.delta.pop();
        } else if let Some(before) = before {
            self.settle(before);
        }
        let mut row = of_same.unwrap_or_else(|| RowSoFar::before(change));
        if change.kind != ChangeKind::Inserted {
            let was = ContentDigest::from_parts(change.was, 1);
            self.content.subtract(was);
        }
        row.count += step(change.kind);
        let is = change.kind != ChangeKind::Removed;
        let now = if row.has_key {
            let needs_row = change.kind != ChangeKind::Inserted;
            if needs_row != row.is {
                return Err(self.contradiction(change, row.is));
            }
            let columns = is.then_some(change.columns);
            self.delta.keyed(change.key, row.was, columns)?
        } else {
            let now = self.delta.keyless(change.columns, row.count)?;
            is.then_some(now)
        };
        if let Some(now) = now {
            row.content = ContentDigest::EMPTY;
            row.content.add(now);
            self.content.merge(row.content);
        }
        row.is = is;
        self.row = Some(row);
        Ok(())
    }

    /// Leaves the last row of the delta behind.
    fn settle(&mut self, row: RowSoFar) {
        // One with a key that came and went stays: whoever meets a row of that key knows that a change is missing.
        if !row.has_key && row.count == 0 {
            self.delta.pop();
            return;
        }
        let more = if row.has_key {
            i64::from(row.is)
        } else {
            row.count
        };
        for _ in 0..more {
            self.delta.arrived(row.content);
        }
    }

    fn finish(mut self) -> Result<(Delta, ContentDigest), Error> {
        if let Some(row) = self.row.take() {
            self.settle(row);
        }
        Ok((self.delta.finish()?, self.content))
    }

    fn contradiction(&self, change: &LoggedChange<'_>, is: bool) -> Error {
        let message = format!(
            "the log contradicts itself about a row of table {}: {:?} at commit {}, where the row is {}",
            self.table.0,
            change.kind,
            change.commit,
            if is { "there" } else { "gone" },
        );
        Error::new(ErrorKind::Corrupt, message)
    }
}

impl RowSoFar {
    /// A row of which this is the first change.
    fn before(change: &LoggedChange<'_>) -> Self {
        let was = change.kind != ChangeKind::Inserted;
        Self {
            has_key: !change.key.is_empty(),
            was,
            is: was,
            count: 0,
            content: ContentDigest::EMPTY,
        }
    }
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
