//! Rows on their way into a tenant's next generation, a turn at a time.
//!
//! A turn is one transaction. It ends early when somebody waits for it, and commits durably when
//! much was written that is not on disk yet: nobody else's commit has to wait for a long backlog.

use std::ops::Bound;

use redb::{Durability, ReadableTableMetadata};
use reinstate_core::{RowBatch, RowRef, StoreError, TableIndex};

use super::EmbeddedWriter;
use crate::error::During;
use crate::gate::Turn;
use crate::key::{Bytes, DataTable, GARBAGE, Place, garbage_key};

/// Bytes written in one transaction while nobody waits for it to end.
const CHUNK_BYTES: usize = 2 * 1024 * 1024;
/// Bytes that are written even when somebody waits, so that a restore gets on beside writers that
/// are always there.
const TURN_BYTES_MIN: usize = 128 * 1024;
/// How many bytes are written before it is looked again whether somebody waits.
const LOOK_BYTES: usize = 16 * 1024;

/// Rows on their way into the next generation.
pub(super) struct Chunk<'w, 's> {
    writer: &'w EmbeddedWriter<'s>,
    table: TableIndex,
    generation: u64,
    place: Place,
    is_multiset: bool,
    rows: Vec<RowBatch>,
    bytes: usize,
    counts: Vec<u64>,
    last_key: Option<Vec<u8>>,
    surplus: u64,
}

impl<'w, 's> Chunk<'w, 's> {
    pub(super) fn new(
        writer: &'w EmbeddedWriter<'s>,
        table: TableIndex,
        generation: u64,
        place: Place,
        is_multiset: bool,
    ) -> Self {
        let (rows, bytes, counts) = (Vec::new(), 0, Vec::new());
        let (last_key, surplus) = (None, 0);
        Self {
            writer,
            table,
            generation,
            place,
            is_multiset,
            rows,
            bytes,
            counts,
            last_key,
            surplus,
        }
    }

    pub(super) fn push(&mut self, row: RowRef<'_>, count: u64) -> Result<(), StoreError> {
        let open = self
            .rows
            .last()
            .filter(|batch| batch.as_bytes().len() < RowBatch::TARGET_BYTES);
        if open.is_none() {
            self.rows.push(RowBatch::new());
        }
        if let Some(batch) = self.rows.last_mut() {
            batch.push_row(row);
        }
        if self.is_multiset {
            self.counts.push(count);
        }
        self.bytes += row.body().len();
        self.write_if_full()
    }

    pub(super) fn push_batch(&mut self, batch: RowBatch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.bytes += batch.as_bytes().len();
        self.rows.push(batch);
        self.write_if_full()
    }

    fn write_if_full(&mut self) -> Result<(), StoreError> {
        if self.bytes >= CHUNK_BYTES {
            self.write()
        } else {
            Ok(())
        }
    }

    /// Writes what is left; returns how many keys appeared that nobody wrote.
    pub(super) fn finish(mut self) -> Result<u64, StoreError> {
        self.write()?;
        Ok(self.surplus)
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let mut pending = Pending {
            rows: std::mem::take(&mut self.rows),
            counts: std::mem::take(&mut self.counts),
            batch: 0,
            offset: 0,
            row: 0,
        };
        self.bytes = 0;
        while !pending.is_empty() {
            self.write_turn(&mut pending)?;
        }
        Ok(())
    }

    /// Writes rows in one transaction: all that are pending, or fewer when somebody waits.
    fn write_turn(&mut self, pending: &mut Pending) -> Result<(), StoreError> {
        let operation = "write the rows of a tenant aside";
        let store = self.writer.store;
        let turn = store.gate.enter();
        // Whoever took the tenant over may build the same generation.
        self.writer.lease.check()?;
        let mut transaction = store.database.begin_write().during(operation)?;
        if self.last_key.is_none() {
            let mut garbage = transaction.open_table(GARBAGE).during(operation)?;
            let owner = self.writer.tenant.as_bytes();
            let key = garbage_key(self.table, self.generation, owner);
            garbage
                .insert(key.as_slice(), ())
                .map(drop)
                .during(operation)?;
        }
        let bytes = {
            let name = DataTable::new(self.table);
            let mut data = transaction
                .open_table(name.definition())
                .during(operation)?;
            let before = data.len().during(operation)?;
            let (written, bytes) = self.insert_sorted(&mut data, pending, &turn)?;
            let added = data.len().during(operation)? - before;
            self.surplus += added.abs_diff(written);
            bytes
        };
        let must_be_durable = store.backlog.add(bytes);
        let durability = if must_be_durable {
            Durability::Immediate
        } else {
            // Made durable by the switch; lost before it, the rows are of no use to anybody.
            Durability::None
        };
        transaction.set_durability(durability).during(operation)?;
        transaction.commit().during(operation)?;
        if must_be_durable {
            store.backlog.committed();
        }
        Ok(())
    }

    /// Returns how many rows and how many bytes it wrote.
    fn insert_sorted(
        &mut self,
        data: &mut redb::Table<'_, Bytes, Bytes>,
        pending: &mut Pending,
        turn: &Turn<'_>,
    ) -> Result<(u64, usize), StoreError> {
        let operation = "write the rows of a tenant aside";
        let mut key = match self.last_key.take() {
            Some(key) => key,
            None => self.place.prefix().to_vec(),
        };
        let mut cursor = data
            .upper_bound_mut(Bound::Included(key.as_slice()))
            .during(operation)?;
        let (mut written, mut bytes, mut look_at) = (0, 0, TURN_BYTES_MIN);
        while let Some((row, count)) = pending.row() {
            let count = count.to_le_bytes();
            let (row_key, value) = if self.is_multiset {
                (row.columns(), count.as_slice())
            } else {
                (row.key(), row.columns())
            };
            self.place.write_key(row_key, &mut key);
            cursor
                .insert_before(key.as_slice(), value)
                .during(operation)?;
            written += 1;
            bytes += row.body().len();
            pending.advance();
            if bytes >= look_at {
                if turn.is_awaited() {
                    break;
                }
                look_at = bytes + LOOK_BYTES;
            }
        }
        cursor.close().during(operation)?;
        self.last_key = Some(key);
        Ok((written, bytes))
    }
}

/// Rows of a chunk that are not written yet.
struct Pending {
    rows: Vec<RowBatch>,
    counts: Vec<u64>,
    batch: usize,
    offset: usize,
    row: usize,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.batch >= self.rows.len()
    }

    /// The first of them, with the number of its copies in a table without a key.
    fn row(&self) -> Option<(RowRef<'_>, u64)> {
        let (row, _) = self.rows.get(self.batch)?.row_at(self.offset)?;
        Some((row, self.counts.get(self.row).copied().unwrap_or(1)))
    }

    fn advance(&mut self) {
        let batch = self.rows.get(self.batch);
        if let Some((_, next)) = batch.and_then(|batch| batch.row_at(self.offset)) {
            self.offset = next;
            self.row += 1;
        }
        // No batch is empty, so the next one has a row at its beginning.
        if batch.is_none_or(|batch| self.offset >= batch.as_bytes().len()) {
            self.batch += 1;
            self.offset = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use reinstate_core::{LiveStore, TenantId};

    use crate::testing::{Create, store};

    const ROWS: u64 = 30_000;

    /// Merges nine megabytes; returns in how many turns. Others draw turns meanwhile.
    fn turns(others: usize) -> u64 {
        let store = store();
        let tenant = TenantId::try_new("a").unwrap();
        let fingerprint = store.read_view().unwrap().fingerprint(&tenant).unwrap();
        let mut writer = store
            .begin_merge(&tenant, &fingerprint, store.schema())
            .unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let waiting: Vec<_> = (0..others)
                .map(|_| {
                    scope.spawn(|| {
                        let mut drawn = 0_u64;
                        while !stop.load(Ordering::SeqCst) {
                            drop(store.gate.enter());
                            drawn += 1;
                        }
                        drawn
                    })
                })
                .collect();
            let applied = writer.apply(&Create(ROWS));
            stop.store(true, Ordering::SeqCst);
            applied.unwrap();
            let others = waiting.into_iter().map(|thread| thread.join().unwrap());
            let others: u64 = others.sum();
            store.gate.drawn() - others
        })
    }

    #[test]
    fn a_turn_is_short_when_somebody_waits_and_long_when_nobody_does() {
        let alone = turns(0);
        assert!(alone <= 6, "{alone} turns although nobody waits");
        let awaited = turns(3);
        assert!(awaited >= 3 * alone, "{awaited} turns although others wait");
    }
}
