//! Reading one owner's rows of a table, a batch at a time.

use std::ops::Bound;

use redb::ReadableTable;
use reinstate_core::{ErrorKind, RowBatch, StoreError};

use crate::error::During;
use crate::key::{Bytes, Place};

/// How far a scan has come. Holds no lock and no reference, so that it goes on in the same
/// transaction after other things were done there.
#[derive(Debug)]
pub(crate) struct Scan {
    place: Place,
    is_multiset: bool,
    last_key: Option<Vec<u8>>,
    copies_left: u64,
    finished: bool,
}

impl Scan {
    pub(crate) fn new(place: Place, is_multiset: bool) -> Self {
        Self {
            place,
            is_multiset,
            last_key: None,
            copies_left: 0,
            finished: false,
        }
    }

    /// The next rows in place of what is in `batch`; `false` at the end.
    pub(crate) fn next(
        &mut self,
        table: &impl ReadableTable<Bytes, Bytes>,
        batch: &mut RowBatch,
    ) -> Result<bool, StoreError> {
        let operation = "read the rows of a tenant";
        batch.clear();
        self.push_copies(batch);
        if self.finished || is_full(batch) {
            return Ok(!batch.is_empty());
        }
        let lower = match &self.last_key {
            Some(key) => Bound::Excluded(key.clone()),
            None => Bound::Included(self.place.prefix().to_vec()),
        };
        let upper = self.place.end();
        let bounds = (as_slice(&lower), as_slice(&upper));
        let mut range = table.range::<&[u8]>(bounds).during(operation)?;
        while !is_full(batch) {
            let Some(entry) = range.next() else {
                self.finished = true;
                break;
            };
            let (key, value) = entry.during(operation)?;
            let row_key = &key.value()[self.place.prefix().len()..];
            if self.is_multiset {
                self.last_key = Some(key.value().to_vec());
                self.copies_left = read_count(value.value())?;
                self.push_copies(batch);
            } else {
                batch.push_parts(row_key, value.value());
                if is_full(batch) {
                    self.last_key = Some(key.value().to_vec());
                }
            }
        }
        Ok(!batch.is_empty())
    }

    fn push_copies(&mut self, batch: &mut RowBatch) {
        let Some(key) = &self.last_key else { return };
        let columns = &key[self.place.prefix().len()..];
        while self.copies_left > 0 && !is_full(batch) {
            batch.push_parts(&[], columns);
            self.copies_left -= 1;
        }
    }
}

fn is_full(batch: &RowBatch) -> bool {
    batch.as_bytes().len() >= RowBatch::TARGET_BYTES
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

/// How often a row of a table without a key is there.
pub(crate) fn read_count(value: &[u8]) -> Result<u64, StoreError> {
    let bytes = value.try_into().map_err(|_| {
        StoreError::new(
            ErrorKind::Corrupt,
            "read the count of a row: it is not eight bytes",
        )
    })?;
    Ok(u64::from_le_bytes(bytes))
}
