//! Digests: one for bytes, one for a set of rows.

use std::fmt;
use std::str::FromStr;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::id::{hex, unhex};
use crate::{ParseIdError, RowRef, SnapshotId};

/// A BLAKE3 digest of bytes. Text form: 64 lowercase hexadecimal digits, optionally after `b3:`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest with these 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of this digest.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// `b3:` and the first twelve digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        format!("b3:{}", hex(&self.0[..6]))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "b3:{}", hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let digits = text.strip_prefix("b3:").unwrap_or(text);
        unhex(digits).map(Self).ok_or_else(|| {
            // Borrow the id's error: both say "not this many hexadecimal digits".
            let Err(error) = digits.parse::<SnapshotId>() else {
                unreachable!("BUG: 32 digits parsed as a digest of 64")
            };
            error
        })
    }
}

/// What a set of rows of one table contains, whatever order they are met in.
///
/// The sum, modulo 2^128, of one XXH3-128 hash per row, with the number of rows. Equal multisets
/// give equal digests; two different ones agree with probability about 2^-128. It is a check
/// against accident, not against somebody who composes rows to collide: bytes at rest are
/// protected by BLAKE3 digests up to the manifest instead. Being a sum, it is the same for any
/// order, any split over threads and any memory budget, and a change to a set is a change to its
/// digest that costs only the rows that changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ContentDigest {
    sum: u128,
    row_count: u64,
}

impl ContentDigest {
    /// The digest of no rows.
    pub const EMPTY: Self = Self {
        sum: 0,
        row_count: 0,
    };

    /// Rebuilds a digest from its parts, as read back from where it was kept.
    #[must_use]
    pub const fn from_parts(sum: u128, row_count: u64) -> Self {
        Self { sum, row_count }
    }

    /// Adds one row.
    pub fn add(&mut self, row: RowRef<'_>) {
        self.sum = self.sum.wrapping_add(hash(row));
        // Wrapping, as all of it: what is taken away may come before what it was added with.
        self.row_count = self.row_count.wrapping_add(1);
    }

    /// Takes one row away that had been added before.
    pub fn remove(&mut self, row: RowRef<'_>) {
        self.sum = self.sum.wrapping_sub(hash(row));
        self.row_count = self.row_count.wrapping_sub(1);
    }

    /// Adds every row of another set.
    pub fn merge(&mut self, other: Self) {
        self.sum = self.sum.wrapping_add(other.sum);
        self.row_count = self.row_count.wrapping_add(other.row_count);
    }

    /// Takes every row of another set away; all of them had been added before.
    pub fn subtract(&mut self, other: Self) {
        self.sum = self.sum.wrapping_sub(other.sum);
        self.row_count = self.row_count.wrapping_sub(other.row_count);
    }

    /// How many rows were added.
    #[must_use]
    pub const fn row_count(&self) -> u64 {
        self.row_count
    }

    /// The sum of the rows' hashes.
    #[must_use]
    pub const fn sum(&self) -> u128 {
        self.sum
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}:{}", self.sum, self.row_count)
    }
}

fn hash(row: RowRef<'_>) -> u128 {
    // The seed keeps ("ab", "c") and ("a", "bc") apart without a copy of the row.
    xxh3_128_with_seed(row.body(), row.key().len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RowBatch;
    use proptest::prelude::*;

    fn digest(rows: &[(Vec<u8>, Vec<u8>)]) -> ContentDigest {
        let mut batch = RowBatch::new();
        let mut digest = ContentDigest::EMPTY;
        for (key, value) in rows {
            batch.push(key, [Some(value.as_slice())]);
        }
        for row in batch.iter() {
            digest.add(row);
        }
        digest
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_removal_undoes_addition(
            mut rows: Vec<(Vec<u8>, Vec<u8>)>, extra: (Vec<u8>, Vec<u8>)
        ) {
            let forward = digest(&rows);
            rows.reverse();
            prop_assert_eq!(digest(&rows), forward);
            rows.push(extra.clone());
            let mut more = digest(&rows);
            prop_assert_ne!(more, forward);
            let mut batch = RowBatch::new();
            batch.push(&extra.0, [Some(extra.1.as_slice())]);
            more.remove(batch.iter().next().unwrap());
            prop_assert_eq!(more, forward);
        }

        #[test]
        fn sets_are_merged_and_taken_apart_as_their_rows_are(
            one: Vec<(Vec<u8>, Vec<u8>)>, other: Vec<(Vec<u8>, Vec<u8>)>
        ) {
            let both: Vec<_> = one.iter().chain(&other).cloned().collect();
            let mut merged = digest(&one);
            merged.merge(digest(&other));
            prop_assert_eq!(merged, digest(&both));
            merged.subtract(digest(&other));
            prop_assert_eq!(merged, digest(&one));
            prop_assert_eq!(ContentDigest::from_parts(merged.sum(), merged.row_count()), merged);
        }

        #[test]
        fn a_digest_reads_back_from_its_text(bytes: [u8; 32]) {
            let digest = Digest::from_bytes(bytes);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
        }
    }

    #[test]
    fn the_border_between_key_and_columns_counts() {
        let left = digest(&[(b"ab".to_vec(), b"c".to_vec())]);
        let right = digest(&[(b"a".to_vec(), b"bc".to_vec())]);
        assert_ne!(left, right);
    }

    #[test]
    fn digests_are_shown_as_their_digits() {
        let digest = Digest::from_bytes([0xab; 32]);
        assert_eq!(digest.short(), "b3:abababababab");
        let rows = ContentDigest::from_parts(0xfe, 3);
        assert_eq!(rows.to_string(), "000000000000000000000000000000fe:3");
    }

    #[test]
    fn a_duplicate_row_counts_twice() {
        let once = digest(&[(vec![], b"x".to_vec())]);
        let twice = digest(&[(vec![], b"x".to_vec()), (vec![], b"x".to_vec())]);
        assert_ne!(once, twice);
        assert_eq!(twice.row_count(), 2);
    }
}
