//! What changed a row of a plan last, in the clothes of a row without a key.
//!
//! ```text
//! last change := role u8 | known u8 | commit u64 | time i64      big-endian, one value
//! ```

use reinstate_core::{Commit, Position, RowBuilder, RowRef, RowRole, Timestamp};

use crate::FormatError;

/// Bytes of a last change.
pub const LAST_CHANGE_BYTES: usize = 1 + 1 + 8 + 8;

/// What changed one row of a plan last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastChange {
    /// What the plan does to the row: `Created`, `PutBackBefore` or `Deleted`.
    pub role: RowRole,
    /// The transaction; none if nobody knows.
    pub commit: Option<Commit>,
}

/// Builds the row that stands for a last change.
pub fn push_last_change(change: LastChange, row: &mut RowBuilder) {
    let mut value = [0; LAST_CHANGE_BYTES];
    value[0] = change.role as u8;
    if let Some(commit) = change.commit {
        value[1] = 1;
        value[2..10].copy_from_slice(&commit.position.commit.to_be_bytes());
        value[10..].copy_from_slice(&commit.time.as_micros().to_be_bytes());
    }
    row.start(&[]);
    row.push(Some(&value));
}

impl LastChange {
    /// The last change that a row stands for.
    ///
    /// # Errors
    /// `Malformed` if it stands for none.
    pub fn read(row: RowRef<'_>) -> Result<Self, FormatError> {
        let malformed = || FormatError::malformed("last change", "no role, or not 18 bytes");
        row.check(1).map_err(|_| malformed())?;
        let value = row.values().next().flatten().ok_or_else(malformed)?;
        let value: &[u8; LAST_CHANGE_BYTES] = value.try_into().map_err(|_| malformed())?;
        let [role, is_known, rest @ ..] = value;
        let role = RowRole::from_number(*role).ok_or_else(malformed)?;
        let is_changed = matches!(
            role,
            RowRole::Created | RowRole::PutBackBefore | RowRole::Deleted
        );
        let (commit, time) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
        let time = <[u8; 8]>::try_from(time).map_err(|_| malformed())?;
        let (commit, time) = (u64::from_be_bytes(*commit), i64::from_be_bytes(time));
        let commit = match is_known {
            0 if commit == 0 && time == 0 => None,
            1 => Some(Commit {
                position: Position { commit, ordinal: 0 },
                time: Timestamp::from_micros(time),
            }),
            _ => return Err(malformed()),
        };
        if !row.key().is_empty() || !is_changed {
            return Err(malformed());
        }
        Ok(Self { role, commit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use reinstate_core::RowBatch;

    proptest! {
        #[test]
        fn a_last_change_reads_back(
            role in 0..3_usize,
            known: Option<(u64, i64)>,
        ) {
            let role = [RowRole::Created, RowRole::PutBackBefore, RowRole::Deleted][role];
            let commit = known.map(|(commit, time)| Commit {
                position: Position { commit, ordinal: 0 },
                time: Timestamp::from_micros(time),
            });
            let change = LastChange { role, commit };
            let mut row = RowBuilder::new();
            push_last_change(change, &mut row);
            prop_assert_eq!(LastChange::read(row.row()).unwrap(), change);
        }

        #[test]
        fn reading_any_row_never_panics(key: Vec<u8>, values: Vec<Option<Vec<u8>>>, value: [u8; 18]) {
            let mut batch = RowBatch::new();
            batch.push(&key, values.iter().map(|value| value.as_deref()));
            batch.push(&[], [Some(value.as_slice())]);
            for row in batch.iter() {
                if let Ok(change) = LastChange::read(row) {
                    let mut again = RowBuilder::new();
                    push_last_change(change, &mut again);
                    prop_assert_eq!(again.row().columns(), row.columns());
                }
            }
        }
    }

    #[test]
    fn last_changes_have_the_bytes_of_the_documentation() {
        let mut row = RowBuilder::new();
        let commit = Commit {
            position: Position {
                commit: 0x0102_0304_0506_0708,
                ordinal: 0,
            },
            time: Timestamp::from_micros(0x1112_1314_1516_1718),
        };
        let role = RowRole::Deleted;
        push_last_change(
            LastChange {
                role,
                commit: Some(commit),
            },
            &mut row,
        );
        let expected = [
            4, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
        ];
        assert_eq!(row.row().values().next().flatten(), Some(&expected[..]));
        push_last_change(LastChange { role, commit: None }, &mut row);
        let mut expected = [0; LAST_CHANGE_BYTES];
        expected[0] = 4;
        assert_eq!(row.row().values().next().flatten(), Some(&expected[..]));
    }
}
