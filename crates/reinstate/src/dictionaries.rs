//! Dictionaries for small blocks, learned from rows that pass by while a store is read.

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use reinstate_core::{RowRef, TableIndex};
use reinstate_format::{Dictionary, train_dictionary};

use crate::Resources;

/// The most dictionaries in a segment: each worker keeps tables of its own for every one.
const DICTIONARIES_MAX: usize = 16;
/// The most bytes of samples for each byte of a dictionary; zstd's own advice.
const SAMPLE_RATIO: usize = 100;
/// What is looked at of a long row.
const ROW_BYTES_MAX: usize = 4 * 1024;

/// Every so many-th row of a table, so that all parts of it count alike.
pub(crate) struct RowSample {
    table: TableIndex,
    bytes: Vec<u8>,
    lengths: Vec<usize>,
    bytes_max: usize,
    stride: u64,
    seen: u64,
}

impl RowSample {
    pub(crate) fn new(table: TableIndex, bytes_max: usize) -> Self {
        Self {
            table,
            bytes: Vec::new(),
            lengths: Vec::new(),
            bytes_max,
            stride: 1,
            seen: 0,
        }
    }

    pub(crate) fn offer(&mut self, row: RowRef<'_>) {
        if self.seen.is_multiple_of(self.stride) {
            let body = row.body();
            let length = body.len().min(ROW_BYTES_MAX);
            self.bytes.extend_from_slice(&body[..length]);
            self.lengths.push(length);
            while self.bytes.len() > self.bytes_max && !self.lengths.is_empty() {
                self.thin_out();
            }
        }
        self.seen += 1;
    }

    /// Drops every second row.
    fn thin_out(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let lengths = std::mem::take(&mut self.lengths);
        let mut rest = bytes.as_slice();
        for (index, length) in lengths.into_iter().enumerate() {
            let (row, after) = rest.split_at(length);
            rest = after;
            if index % 2 == 0 && self.bytes.len() + length <= self.bytes_max {
                self.bytes.extend_from_slice(row);
                self.lengths.push(length);
            }
        }
        self.stride *= 2;
    }

    fn rows(&self) -> Vec<&[u8]> {
        let mut rest = self.bytes.as_slice();
        let lengths = self.lengths.iter();
        lengths
            .map(|&length| {
                let (row, after) = rest.split_at(length);
                rest = after;
                row
            })
            .collect()
    }
}

/// How many bytes of samples to keep for each of this many tables.
pub(crate) fn sample_bytes_max(
    resources: &Resources,
    table_count: usize,
    dictionary_bytes_max: usize,
) -> usize {
    let share = resources.memory_bytes_max() / 16 / table_count.max(1);
    share.min(dictionary_bytes_max.saturating_mul(SAMPLE_RATIO))
}

/// Learns a dictionary for each of the tables with the most rows; none for a table whose rows are
/// too few to learn from.
pub(crate) fn train(
    resources: &Resources,
    mut samples: Vec<RowSample>,
    dictionary_bytes_max: usize,
) -> Vec<Dictionary> {
    samples.sort_by_key(|sample| (std::cmp::Reverse(sample.seen), sample.table));
    samples.truncate(DICTIONARIES_MAX);
    let trained: Vec<Option<Vec<u8>>> = resources.pool().install(|| {
        samples
            .par_iter()
            .map(|sample| train_dictionary(&sample.rows(), dictionary_bytes_max))
            .collect()
    });
    let ids = 1..;
    ids.zip(samples.iter().zip(trained))
        .filter_map(|(id, (sample, bytes))| Dictionary::new(id, sample.table, bytes?))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reinstate_core::RowBatch;

    use super::*;

    proptest! {
        #[test]
        fn a_sample_is_of_rows_equally_far_apart_within_its_bound(
            row_count in 1_u64..400,
            bytes_max in 8_usize..600,
        ) {
            let mut sample = RowSample::new(TableIndex(0), bytes_max);
            for number in 0..row_count {
                let mut batch = RowBatch::new();
                batch.push(&number.to_be_bytes(), std::iter::empty());
                batch.iter().for_each(|row| sample.offer(row));
            }
            let taken: Vec<u64> = sample
                .rows()
                .iter()
                .map(|row| u64::from_be_bytes(*row.first_chunk().unwrap()))
                .collect();
            let expected: Vec<u64> = (0..row_count)
                .filter(|number| number.is_multiple_of(sample.stride))
                .collect();
            prop_assert_eq!(taken, expected);
            prop_assert!(sample.bytes.len() <= bytes_max);
        }
    }
}
