//! Changes that wait for the rest of their transaction: a row was written before the row that it
//! goes by.

use reinstate_core::{Change, ErrorKind, FeedRow, RowBatch, RowRef, TableIndex};

use crate::{Context, Error};

/// What kind of change waits, and of which table. Its rows stand in the batch, in order.
#[derive(Clone, Copy)]
enum Kind {
    Insert,
    Update,
    Delete,
    Truncate,
}

/// Changes of the transaction that is under way, from the first that has to wait on.
pub(super) struct Waiting {
    changes: Vec<(Kind, TableIndex)>,
    rows: RowBatch,
    bytes_max: usize,
}

/// Changes that waited.
pub(super) struct Waited {
    changes: Vec<(Kind, TableIndex)>,
    rows: RowBatch,
}

impl Waiting {
    pub(super) fn new(context: Context<'_>) -> Self {
        Self {
            changes: Vec::new(),
            rows: RowBatch::new(),
            bytes_max: context.resources.memory_bytes_max() / 4,
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(super) fn push(&mut self, change: Change<'_>) -> Result<(), Error> {
        let kind = match change {
            Change::Insert { table, row } => {
                self.rows.push_row(row.row);
                (Kind::Insert, table)
            }
            Change::Update {
                table,
                before,
                after,
            } => {
                self.rows.push_row(before.row);
                self.rows.push_row(after.row);
                (Kind::Update, table)
            }
            Change::Delete { table, before } => {
                self.rows.push_row(before.row);
                (Kind::Delete, table)
            }
            Change::Truncate { table } => (Kind::Truncate, table),
        };
        self.changes.push(kind);
        if self.rows.as_bytes().len() <= self.bytes_max {
            return Ok(());
        }
        let message = format!(
            "a transaction writes rows before the rows that they belong to, and more than {} MiB \
             after that: give it more with --memory",
            self.bytes_max >> 20
        );
        Err(Error::new(ErrorKind::Refused, message))
    }

    pub(super) fn take(&mut self) -> Waited {
        Waited {
            changes: std::mem::take(&mut self.changes),
            rows: std::mem::take(&mut self.rows),
        }
    }
}

impl Waited {
    pub(super) const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// What waited, in order.
    pub(super) fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        let mut rows = self.rows.iter().map(|row| FeedRow { owner: None, row });
        let mut next = move || rows.next().expect("BUG: a change without its rows");
        self.changes.iter().map(move |&(kind, table)| match kind {
            Kind::Insert => Change::Insert { table, row: next() },
            Kind::Update => Change::Update {
                table,
                before: next(),
                after: next(),
            },
            Kind::Delete => Change::Delete {
                table,
                before: next(),
            },
            Kind::Truncate => Change::Truncate { table },
        })
    }

    /// The rows that were written, in order, with the numbers of their changes.
    pub(super) fn written(&self) -> impl Iterator<Item = (usize, TableIndex, RowRef<'_>)> {
        let changes = self.changes().enumerate();
        changes.filter_map(|(number, change)| match change {
            Change::Insert { table, row } => Some((number, table, row.row)),
            Change::Update { table, after, .. } => Some((number, table, after.row)),
            Change::Delete { .. } | Change::Truncate { .. } => None,
        })
    }

    /// The rows that were deleted, or became others.
    pub(super) fn gone(&self) -> impl Iterator<Item = (TableIndex, RowRef<'_>)> {
        self.changes().filter_map(|change| match change {
            Change::Delete { table, before } | Change::Update { table, before, .. } => {
                Some((table, before.row))
            }
            Change::Insert { .. } | Change::Truncate { .. } => None,
        })
    }
}
