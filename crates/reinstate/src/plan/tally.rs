//! Which transactions made the differences that a plan takes back: counted, and the largest named.

use std::collections::BTreeSet;

use reinstate_core::{PositionNotation, RowBatch, TableIndex, Timestamp};
use reinstate_format::{NoteKind, PlanNote};

use super::cursor::RowCursor;
use super::since::{By, Since};
use crate::sort::{SortBudget, Sorted, Sorter};
use crate::{Context, Error};

/// How many transactions are named for each tenant: those that changed the most rows last.
const TRANSACTIONS_NAMED_MAX: usize = 20;

/// Rows of one tenant's plan by what changed them last.
pub(super) struct Tally<'a> {
    context: Context<'a>,
    sorter: Sorter<'a>,
    later: u64,
    unknown: u64,
    row: RowBatch,
}

/// A transaction by how many rows it changed last: its commit, and when that was.
type Named = (u64, u64, i64);

impl<'a> Tally<'a> {
    pub(super) fn new(context: Context<'a>) -> Self {
        let resources = context.resources;
        let budget = SortBudget {
            memory_bytes_max: resources.memory_bytes_max() / 16,
            directory: resources.spill_directory().to_owned(),
        };
        Self {
            context,
            sorter: Sorter::new(resources.pool(), budget),
            later: 0,
            unknown: 0,
            row: RowBatch::new(),
        }
    }

    /// Counts a row.
    pub(super) fn add(&mut self, by: By) -> Result<(), Error> {
        let commit = match by {
            By::Later => {
                self.later += 1;
                return Ok(());
            }
            By::Unknown => {
                self.unknown += 1;
                return Ok(());
            }
            By::Logged(commit) => commit,
        };
        self.row.clear();
        self.row.push_parts(
            &commit.position.commit.to_be_bytes(),
            &commit.time.as_micros().to_be_bytes(),
        );
        let mut rows = self.row.iter();
        rows.try_for_each(|row| self.sorter.push(&[], TableIndex(0), row))
    }

    pub(super) fn into_notes(
        self,
        since: &Since<'_>,
        notation: PositionNotation,
    ) -> Result<Vec<PlanNote>, Error> {
        let memory = self.context.resources.memory_bytes_max() / 32;
        let mut rows = Sorted::merge(vec![self.sorter.finish()?], memory)?;
        let mut largest: BTreeSet<Named> = BTreeSet::new();
        let (mut other_count, mut other_rows) = (0_u64, 0_u64);
        let mut current: Option<Named> = None;
        loop {
            let found = RowCursor::advance(&mut rows)?.then(|| read(rows.row()));
            match (&mut current, found) {
                (Some((count, commit, _)), Some((next, _))) if *commit == next => *count += 1,
                (done, found) => {
                    largest.extend(done.take());
                    if largest.len() > TRANSACTIONS_NAMED_MAX
                        && let Some((count, ..)) = largest.pop_first()
                    {
                        other_count += 1;
                        other_rows += count;
                    }
                    let Some((commit, time)) = found else {
                        break;
                    };
                    *done = Some((1, commit, time));
                }
            }
        }
        let mut notes: Vec<PlanNote> = largest
            .into_iter()
            .rev()
            .map(|(count, commit, time)| PlanNote {
                kind: NoteKind::ChangedBy,
                object: position(commit).display(notation),
                detail: format!(
                    "of {} was the last to change rows that go back",
                    Timestamp::from_micros(time)
                ),
                count,
            })
            .collect();
        let rest = [
            (
                NoteKind::ChangedBy,
                format!("{other_count} other transactions"),
                "were the last to change rows that go back: show --rows names each".to_owned(),
                other_rows,
            ),
            (
                NoteKind::ChangedLater,
                "something".to_owned(),
                format!(
                    "that is not in the change log, which ends at {}, changed rows that go back last",
                    since.log.through().display(notation)
                ),
                self.later,
            ),
            (
                NoteKind::ChangedLater,
                "something".to_owned(),
                "changed rows last in tables that are not what they were: the change log does not \
                 say what"
                    .to_owned(),
                self.unknown,
            ),
        ];
        notes.extend(rest.into_iter().filter(|(.., count)| *count > 0).map(
            |(kind, object, detail, count)| PlanNote {
                kind,
                object,
                detail,
                count,
            },
        ));
        Ok(notes)
    }
}

const fn position(commit: u64) -> reinstate_core::Position {
    reinstate_core::Position { commit, ordinal: 0 }
}

fn read(row: reinstate_core::RowRef<'_>) -> (u64, i64) {
    let number = |bytes: &[u8]| bytes.try_into().expect("BUG: counted in another form");
    (
        u64::from_be_bytes(number(row.key())),
        i64::from_be_bytes(number(row.columns())),
    )
}
