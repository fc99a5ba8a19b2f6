//! One change of one row, in the clothes of a row, so that blocks hold changes as they hold rows.
//!
//! ```text
//! place   := commit u64, ordinal u32, kind u8, was u128     big-endian, so that places compare by bytes
//! keyed   := key | varint(30) place | columns
//! keyless := columns | varint(30) place
//! ```
//!
//! In the order of a block the changes of one row lie together: by key, then by place; in a table
//! without a key by all that the row contains, then by place.

use reinstate_core::{RowBuilder, RowRef, read_varint};

use crate::FormatError;

/// Bytes of a change's place.
pub const CHANGE_PLACE_BYTES: usize = 8 + 4 + 1 + 16;
/// Bytes of a place as a column: its length, and itself.
const PLACE_COLUMN_BYTES: usize = 1 + CHANGE_PLACE_BYTES;
/// What a varint of the length plus one is.
const PLACE_LENGTH_BYTE: u8 = 30;
const _: () = assert!(PLACE_LENGTH_BYTE as usize == CHANGE_PLACE_BYTES + 1);

/// What happened to a row. Persisted: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ChangeKind {
    /// The owner did not have a row of this key, and has this one since.
    Inserted = 1,
    /// The owner had a row of this key, and has this one since.
    Updated = 2,
    /// The owner had this row, and has none of this key since. Of a row with a key only the key is
    /// noted.
    Removed = 3,
}

/// A change as it is read from a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedChange<'a> {
    /// The key; empty in a table without one.
    pub key: &'a [u8],
    /// The encoded columns; empty for a row with a key that was removed.
    pub columns: &'a [u8],
    /// The number of the commit.
    pub commit: u64,
    /// Which of the changes of that transaction it is.
    pub ordinal: u32,
    /// What happened.
    pub kind: ChangeKind,
    /// What the row that was there contained: the sum of its [`ContentDigest`](reinstate_core::ContentDigest). Zero for one that was
    /// inserted. What an owner contains after a change follows from what it contained before.
    pub was: u128,
}

/// Builds the row that stands for a change.
pub fn push_change(change: LoggedChange<'_>, row: &mut RowBuilder) {
    let mut place = [0; CHANGE_PLACE_BYTES];
    place[..8].copy_from_slice(&change.commit.to_be_bytes());
    place[8..12].copy_from_slice(&change.ordinal.to_be_bytes());
    place[12] = change.kind as u8;
    place[13..].copy_from_slice(&change.was.to_be_bytes());
    row.start(change.key);
    if change.key.is_empty() {
        row.push_columns(change.columns);
        row.push(Some(&place));
    } else {
        row.push(Some(&place));
        row.push_columns(change.columns);
    }
}

impl<'a> LoggedChange<'a> {
    /// The change that a row of a log stands for.
    ///
    /// # Errors
    /// `Malformed` if it stands for none.
    #[inline]
    pub fn read(row: RowRef<'a>) -> Result<Self, FormatError> {
        let malformed = || FormatError::malformed("logged change", "no place, or an unknown kind");
        let (key, body) = (row.key(), row.columns());
        let (place, columns) = if key.is_empty() {
            let start = body
                .len()
                .checked_sub(PLACE_COLUMN_BYTES)
                .ok_or_else(malformed)?;
            (&body[start..], &body[..start])
        } else {
            body.split_at_checked(PLACE_COLUMN_BYTES)
                .ok_or_else(malformed)?
        };
        let place: &[u8; PLACE_COLUMN_BYTES] = place.try_into().map_err(|_| malformed())?;
        let [length, place @ ..] = place;
        let (commit, rest) = place.split_first_chunk::<8>().ok_or_else(malformed)?;
        let (ordinal, kind) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
        let (kind, was) = kind.split_first().ok_or_else(malformed)?;
        let was = <[u8; 16]>::try_from(was).map_err(|_| malformed())?;
        let was = u128::from_be_bytes(was);
        let kind = match kind {
            1 if was == 0 => ChangeKind::Inserted,
            2 => ChangeKind::Updated,
            3 => ChangeKind::Removed,
            _ => return Err(malformed()),
        };
        let is_bare = columns.is_empty();
        let must_be_bare = kind == ChangeKind::Removed && !key.is_empty();
        let keyless_update = kind == ChangeKind::Updated && key.is_empty();
        if *length != PLACE_LENGTH_BYTE || (must_be_bare && !is_bare) || keyless_update {
            return Err(malformed());
        }
        Ok(Self {
            key,
            columns,
            commit: u64::from_be_bytes(*commit),
            ordinal: u32::from_be_bytes(*ordinal),
            kind,
            was,
        })
    }

    /// Whether the columns are exactly as many well-formed values as the table has columns.
    ///
    /// # Errors
    /// `Malformed` if they are not.
    #[inline]
    pub fn check(&self, column_count: usize) -> Result<(), FormatError> {
        let expected = if self.kind == ChangeKind::Removed && !self.key.is_empty() {
            0
        } else {
            column_count
        };
        let mut rest = self.columns;
        let mut found = 0;
        while let Some(after) = skip_value(rest) {
            rest = after;
            found += 1;
        }
        if rest.is_empty() && found == expected {
            return Ok(());
        }
        let fact = format!("{found} columns where its table has {column_count}");
        Err(FormatError::malformed("logged change", fact))
    }
}

/// What follows the first value; nothing if there is no whole one.
#[inline]
fn skip_value(bytes: &[u8]) -> Option<&[u8]> {
    let (marker, taken) = read_varint(bytes)?;
    let length = usize::try_from(marker.saturating_sub(1)).ok()?;
    bytes.get(taken.checked_add(length)?..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use reinstate_core::RowBatch;

    proptest! {
        #[test]
        fn a_change_reads_back(
            key in proptest::collection::vec(any::<u8>(), 0..9),
            values: Vec<Option<Vec<u8>>>,
            (commit, ordinal, kind, was) in (any::<u64>(), any::<u32>(), 0..3_usize, any::<u128>()),
        ) {
            let mut plain = RowBuilder::new();
            plain.start(&key);
            values.iter().for_each(|value| plain.push(value.as_deref()));
            let kind = [ChangeKind::Inserted, ChangeKind::Updated, ChangeKind::Removed][kind];
            prop_assume!(kind != ChangeKind::Updated || !key.is_empty());
            let is_bare = kind == ChangeKind::Removed && !key.is_empty();
            let columns = if is_bare { &[][..] } else { plain.row().columns() };
            let was = if kind == ChangeKind::Inserted { 0 } else { was };
            let change = LoggedChange { key: &key, columns, commit, ordinal, kind, was };
            let mut row = RowBuilder::new();
            push_change(change, &mut row);
            let width = if is_bare { 1 } else { 1 + values.len() };
            prop_assert_eq!(row.row().check(width), Ok(()));
            let read = LoggedChange::read(row.row()).unwrap();
            prop_assert_eq!(read, change);
            prop_assert!(read.check(values.len()).is_ok());
            prop_assert!(is_bare || read.check(values.len() + 1).is_err());
        }

        #[test]
        fn reading_any_row_never_panics(key: Vec<u8>, columns: Vec<u8>) {
            let mut batch = RowBatch::new();
            batch.push_parts(&key, &columns);
            for row in batch.iter() {
                if let Ok(change) = LoggedChange::read(row) {
                    let _ = change.check(2);
                }
            }
        }
    }
}
