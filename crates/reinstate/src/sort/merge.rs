//! Merging sorted runs into one sequence.

use std::cmp::Ordering;

use super::arena::{Arena, ArenaCursor};
use super::run::{Run, RunCursor};
use super::{Cursor, Item};
use crate::Error;

const BUFFER_BYTES_MIN: usize = 16 * 1024;
const BUFFER_BYTES_MAX: usize = 1024 * 1024;

/// Rows of several runs, in one order. Equal rows are all there.
///
/// A binary heap of cursors, the smallest on top, held by hand because a cursor's current row
/// borrows from the cursor. *Cost*: `O(log runs)` comparisons a row, and about one when a run
/// goes on being the smallest.
pub(crate) struct SortedRows {
    heap: Vec<Source>,
    started: bool,
}

enum Source {
    Memory(ArenaCursor<Arena>),
    File(RunCursor),
    Other(Box<dyn Cursor + Send>),
}

impl Cursor for Source {
    fn advance(&mut self) -> Result<bool, Error> {
        match self {
            Self::Memory(cursor) => cursor.advance(),
            Self::File(cursor) => cursor.advance(),
            Self::Other(cursor) => cursor.advance(),
        }
    }

    fn current(&self) -> Item<'_> {
        match self {
            Self::Memory(cursor) => cursor.current(),
            Self::File(cursor) => cursor.current(),
            Self::Other(cursor) => cursor.current(),
        }
    }
}

impl SortedRows {
    pub(super) fn merge(
        runs: Vec<Run>,
        arenas: Vec<Arena>,
        memory_bytes_max: usize,
    ) -> Result<Self, Error> {
        let buffer = memory_bytes_max / runs.len().max(1);
        let buffer = buffer.clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX);
        let files = runs
            .into_iter()
            .map(|run| Source::File(run.into_cursor(buffer)));
        let memory = arenas
            .into_iter()
            .map(|arena| Source::Memory(arena.into_cursor()));
        Self::start(files.chain(memory))
    }

    /// Merges cursors, each in order.
    pub(crate) fn of(cursors: impl Iterator<Item = Box<dyn Cursor + Send>>) -> Result<Self, Error> {
        Self::start(cursors.map(Source::Other))
    }

    fn start(sources: impl Iterator<Item = Source>) -> Result<Self, Error> {
        let mut heap = Vec::new();
        for mut source in sources {
            if source.advance()? {
                heap.push(source);
            }
        }
        let mut rows = Self {
            heap,
            started: false,
        };
        for index in (0..rows.heap.len() / 2).rev() {
            rows.sift_down(index);
        }
        Ok(rows)
    }

    fn less(&self, left: usize, right: usize) -> bool {
        self.heap[left]
            .current()
            .compare(&self.heap[right].current())
            == Ordering::Less
    }

    fn sift_down(&mut self, mut index: usize) {
        loop {
            let mut smallest = 2 * index + 1;
            if smallest >= self.heap.len() {
                return;
            }
            if smallest + 1 < self.heap.len() && self.less(smallest + 1, smallest) {
                smallest += 1;
            }
            if !self.less(smallest, index) {
                return;
            }
            self.heap.swap(smallest, index);
            index = smallest;
        }
    }
}

impl Cursor for SortedRows {
    fn advance(&mut self) -> Result<bool, Error> {
        if self.started
            && let Some(top) = self.heap.first_mut()
        {
            if !top.advance()? {
                self.heap.swap_remove(0);
            }
            self.sift_down(0);
        }
        self.started = true;
        Ok(!self.heap.is_empty())
    }

    fn current(&self) -> Item<'_> {
        self.heap[0].current()
    }
}
