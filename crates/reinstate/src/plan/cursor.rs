//! Walking over streams of rows one row at a time.

use std::cmp::Ordering;

use reinstate_core::{
    ErrorKind, LiveView, RowBatch, RowBuilder, RowOrder, RowRef, RowStream, TableIndex, TenantId,
    compare_rows,
};

use crate::drift::Shape;
use crate::sort::{Cursor, SortBudget, Sorted, SortedRows, Sorter};
use crate::{Context, Error};

/// Rows of one table in order, one at a time.
pub(crate) trait RowCursor {
    /// Goes to the next row; `false` at the end.
    fn advance(&mut self) -> Result<bool, Error>;

    /// The current row; only after `advance` returned `true`.
    fn row(&self) -> RowRef<'_>;
}

/// A stream that is sorted already. That it is, is checked as it goes by.
pub(super) struct StreamCursor<S> {
    stream: S,
    batch: RowBatch,
    current: usize,
    next: usize,
    last_of_previous: RowBatch,
    operation: String,
}

impl<S: RowStream> StreamCursor<S> {
    pub(super) fn new(stream: S, operation: String) -> Self {
        Self {
            stream,
            batch: RowBatch::new(),
            current: 0,
            next: 0,
            last_of_previous: RowBatch::new(),
            operation,
        }
    }

    fn refill(&mut self) -> Result<bool, Error> {
        self.last_of_previous.clear();
        if let Some((last, _)) = self.batch.row_at(self.current) {
            self.last_of_previous.push_row(last);
        }
        let more = self
            .stream
            .next_batch(&mut self.batch)
            .map_err(Error::store(self.operation.clone()))?;
        self.current = 0;
        self.next = 0;
        Ok(more)
    }

    fn check_order(&self, previous: Option<RowRef<'_>>, row: RowRef<'_>) -> Result<(), Error> {
        let Some(previous) = previous else {
            return Ok(());
        };
        let in_order = match compare_rows(previous, row) {
            Ordering::Less => row.key().is_empty() || previous.key() != row.key(),
            Ordering::Equal => row.key().is_empty(),
            Ordering::Greater => false,
        };
        if in_order {
            return Ok(());
        }
        let message = format!("{}: rows out of order, or a key twice", self.operation);
        Err(Error::new(ErrorKind::Corrupt, message))
    }
}

impl<S: RowStream> RowCursor for StreamCursor<S> {
    fn advance(&mut self) -> Result<bool, Error> {
        let fresh = self.next == self.batch.as_bytes().len();
        if fresh && !self.refill()? {
            return Ok(false);
        }
        let (row, next) = self
            .batch
            .row_at(self.next)
            .expect("BUG: a stream gave no whole row");
        let previous = if fresh {
            self.last_of_previous.row_at(0).map(|(row, _)| row)
        } else {
            self.batch.row_at(self.current).map(|(row, _)| row)
        };
        self.check_order(previous, row)?;
        self.current = self.next;
        self.next = next;
        Ok(true)
    }

    fn row(&self) -> RowRef<'_> {
        self.batch
            .row_at(self.current)
            .expect("BUG: read before advance")
            .0
    }
}

impl RowCursor for SortedRows {
    fn advance(&mut self) -> Result<bool, Error> {
        Cursor::advance(self)
    }

    fn row(&self) -> RowRef<'_> {
        self.current().row
    }
}

/// A cursor that can be asked whether it has a row before it goes there.
pub(super) struct Ahead<C> {
    cursor: C,
    /// Whether it has one, if it was asked and not yet gone to.
    has_row: Option<bool>,
}

impl<C: RowCursor> Ahead<C> {
    pub(super) const fn of(cursor: C) -> Self {
        Self {
            cursor,
            has_row: None,
        }
    }

    pub(super) fn has_row(&mut self) -> Result<bool, Error> {
        let has_row = match self.has_row {
            Some(has_row) => has_row,
            None => self.cursor.advance()?,
        };
        self.has_row = Some(has_row);
        Ok(has_row)
    }
}

impl<C: RowCursor> RowCursor for Ahead<C> {
    fn advance(&mut self) -> Result<bool, Error> {
        match self.has_row.take() {
            Some(has_row) => Ok(has_row),
            None => self.cursor.advance(),
        }
    }

    fn row(&self) -> RowRef<'_> {
        self.cursor.row()
    }
}

/// The live tenant's rows in one table, and others that will be its own, in order, sorted here if
/// the store does not.
pub(super) fn live_rows<'v>(
    context: Context<'_>,
    view: &'v dyn LiveView,
    tenant: &TenantId,
    table: TableIndex,
    others: &[RowBatch],
) -> Result<Box<dyn RowCursor + 'v>, Error> {
    let name = &view.schema().table(table).name;
    let operation = format!("read the live rows of {tenant} in {name}");
    let mut stream = view
        .tenant_rows(tenant, table)
        .map_err(Error::store(operation.clone()))?;
    if view.row_order() == RowOrder::Sorted && others.is_empty() {
        return Ok(Box::new(StreamCursor::new(stream, operation)));
    }
    let mut sorter = start_sort(context);
    for row in others.iter().flat_map(RowBatch::iter) {
        sorter.push(&[], table, row)?;
    }
    let mut batch = RowBatch::new();
    while stream
        .next_batch(&mut batch)
        .map_err(Error::store(operation.clone()))?
    {
        context.check()?;
        for row in batch.iter() {
            sorter.push(&[], table, row)?;
        }
    }
    Ok(Box::new(finish_sort(context, sorter)?))
}

/// Rows in order, of a cursor in any.
pub(crate) fn sorted_rows(
    context: Context<'_>,
    table: TableIndex,
    mut rows: impl RowCursor,
) -> Result<SortedRows, Error> {
    let mut sorter = start_sort(context);
    while rows.advance()? {
        sorter.push(&[], table, rows.row())?;
    }
    finish_sort(context, sorter)
}

/// Begins to sort rows, with a part of the context's memory.
pub(crate) fn start_sort(context: Context<'_>) -> Sorter<'_> {
    start_sort_of(context, 1)
}

/// One of so many sorts at the same time, which share that part.
pub(crate) fn start_sort_of(context: Context<'_>, sort_count: usize) -> Sorter<'_> {
    let resources = context.resources;
    let budget = SortBudget {
        memory_bytes_max: resources.memory_bytes_max() / 4 / sort_count,
        directory: resources.spill_directory().to_owned(),
    };
    Sorter::new(resources.pool(), budget)
}

/// The rows in order.
pub(crate) fn finish_sort(context: Context<'_>, sorter: Sorter<'_>) -> Result<SortedRows, Error> {
    let memory_bytes_max = context.resources.memory_bytes_max() / 16;
    Sorted::merge(vec![sorter.finish()?], memory_bytes_max)
}

/// Two cursors walked side by side.
pub(super) struct Pair<L, R> {
    pub(super) left: L,
    pub(super) right: R,
    has_left: bool,
    has_right: bool,
}

/// Which of the two has a row at this place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
    Both,
}

impl<L: RowCursor, R: RowCursor> Pair<L, R> {
    pub(super) fn start(mut left: L, mut right: R) -> Result<Self, Error> {
        let (has_left, has_right) = (left.advance()?, right.advance()?);
        Ok(Self {
            left,
            right,
            has_left,
            has_right,
        })
    }

    /// Who has a row at the lowest place that is left: rows of a table with a key meet by key,
    /// others by all they contain.
    pub(super) fn side(&self) -> Option<Side> {
        Some(match (self.has_left, self.has_right) {
            (false, false) => return None,
            (true, false) => Side::Left,
            (false, true) => Side::Right,
            (true, true) => match place_order(self.left.row(), self.right.row()) {
                Ordering::Less => Side::Left,
                Ordering::Greater => Side::Right,
                Ordering::Equal => Side::Both,
            },
        })
    }

    /// Goes on past the rows that `side` named.
    pub(super) fn pass(&mut self, side: Side) -> Result<(), Error> {
        if side != Side::Right {
            self.has_left = self.left.advance()?;
        }
        if side != Side::Left {
            self.has_right = self.right.advance()?;
        }
        Ok(())
    }
}

/// A tenant's rows in one table, then and now, side by side.
pub(super) struct Walk<'a> {
    pair: Pair<Box<dyn RowCursor + 'a>, Box<dyn RowCursor + 'a>>,
    shape: Option<&'a Shape>,
    /// The snapshot's row with what the live one knows beyond it, if both are there.
    completed: RowBuilder,
}

impl<'a> Walk<'a> {
    pub(super) fn start(
        then: Box<dyn RowCursor + 'a>,
        now: Box<dyn RowCursor + 'a>,
        shape: Option<&'a Shape>,
    ) -> Result<Self, Error> {
        let mut walk = Self {
            pair: Pair::start(then, now)?,
            shape,
            completed: RowBuilder::new(),
        };
        walk.complete();
        Ok(walk)
    }

    pub(super) fn side(&self) -> Option<Side> {
        self.pair.side()
    }

    /// The snapshot's row, as it would be written.
    pub(super) fn then(&self) -> RowRef<'_> {
        match self.shape {
            Some(_) if self.side() == Some(Side::Both) => self.completed.row(),
            _ => self.pair.left.row(),
        }
    }

    /// The live row.
    pub(super) fn now(&self) -> RowRef<'_> {
        self.pair.right.row()
    }

    pub(super) fn pass(&mut self, side: Side) -> Result<(), Error> {
        self.pair.pass(side)?;
        self.complete();
        Ok(())
    }

    fn complete(&mut self) {
        if let Some(shape) = self.shape
            && self.pair.side() == Some(Side::Both)
        {
            let (then, now) = (self.pair.left.row(), self.pair.right.row());
            shape.keep_unknown(then, now, &mut self.completed);
        }
    }
}

impl RowCursor for Box<dyn RowCursor + '_> {
    fn advance(&mut self) -> Result<bool, Error> {
        (**self).advance()
    }

    fn row(&self) -> RowRef<'_> {
        (**self).row()
    }
}

/// How the places of two rows compare, by key or, without one, by all they contain.
pub(super) fn place_order(left: RowRef<'_>, right: RowRef<'_>) -> Ordering {
    if left.key().is_empty() && right.key().is_empty() {
        left.columns().cmp(right.columns())
    } else {
        left.key().cmp(right.key())
    }
}
