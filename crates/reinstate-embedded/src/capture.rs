//! Capture: every row of the store at one commit.

use redb::Range;
use reinstate_core::{
    CaptureView, OwnedRowBatch, OwnedRowStream, Position, RowBatch, SequenceValue, SnapshotSource,
    StoreError, StoreSchema, TableIndex, Timestamp,
};

use crate::EmbeddedStore;
use crate::commit::read_commit;
use crate::error::During;
use crate::generation::current;
use crate::key::{Bytes, DataTable, FACTS, GENERATIONS, split};
use crate::scan::read_count;

/// Streams that are worth reading at once: one reads while the other sorts.
const LANES: usize = 2;

impl SnapshotSource for EmbeddedStore {
    fn begin_capture(&self) -> Result<Box<dyn CaptureView + '_>, StoreError> {
        Ok(Box::new(EmbeddedCapture::open(self, None)?))
    }
}

pub(crate) fn position(transaction: &redb::ReadTransaction) -> Result<Position, StoreError> {
    let facts = transaction
        .open_table(FACTS)
        .during("read the commit number")?;
    Ok(Position {
        commit: read_commit(&facts)?,
        ordinal: 0,
    })
}

/// The store at one commit.
pub(crate) struct EmbeddedCapture<'s> {
    store: &'s EmbeddedStore,
    transaction: redb::ReadTransaction,
    position: Position,
    taken_at: Option<Timestamp>,
}

impl<'s> EmbeddedCapture<'s> {
    /// The store as it is now, which is at this time if the caller has the turn.
    pub(crate) fn open(
        store: &'s EmbeddedStore,
        taken_at: Option<Timestamp>,
    ) -> Result<Self, StoreError> {
        let transaction = store.begin_read("open the store for capture")?;
        let position = position(&transaction)?;
        Ok(Self {
            store,
            transaction,
            position,
            taken_at,
        })
    }
}

impl CaptureView for EmbeddedCapture<'_> {
    fn schema(&self) -> &StoreSchema {
        &self.store.schema
    }

    fn position(&self) -> Position {
        self.position
    }

    fn taken_at(&self) -> Option<Timestamp> {
        self.taken_at
    }

    fn sequences(&self) -> &[SequenceValue] {
        &[]
    }

    fn lanes(&self) -> usize {
        LANES
    }

    fn table_rows(&self, table: TableIndex) -> Result<Box<dyn OwnedRowStream + '_>, StoreError> {
        let operation = "read a table";
        let name = DataTable::new(table);
        let data = self
            .transaction
            .open_table(name.definition())
            .during(operation)?;
        let range = data.range::<&[u8]>(..).during(operation)?;
        let generations = self.transaction.open_table(GENERATIONS).during(operation)?;
        Ok(Box::new(TableRows {
            table,
            is_multiset: !self.store.schema.table(table).has_key(),
            range,
            generations,
            place: None,
            copies: None,
            row: RowBatch::new(),
        }))
    }
}

/// Walks over a whole table and leaves out generations that are not in use.
struct TableRows {
    table: TableIndex,
    is_multiset: bool,
    range: Range<'static, Bytes, Bytes>,
    generations: redb::ReadOnlyTable<Bytes, u64>,
    place: Option<(Vec<u8>, u64, bool)>,
    copies: Option<(Vec<u8>, u64)>,
    row: RowBatch,
}

impl OwnedRowStream for TableRows {
    fn next_batch(&mut self, batch: &mut OwnedRowBatch) -> Result<bool, StoreError> {
        batch.clear();
        self.push_copies(batch);
        while batch.byte_count() < RowBatch::TARGET_BYTES {
            let Some(entry) = self.range.next() else {
                break;
            };
            let (key, value) = entry.during("read a table")?;
            let Some((owner, generation, row_key)) = split(key.value()) else {
                let kind = reinstate_core::ErrorKind::Corrupt;
                return Err(StoreError::new(kind, "read a table: a key is malformed"));
            };
            if !self.is_in_use(owner, generation)? {
                continue;
            }
            self.row.clear();
            if self.is_multiset {
                self.row.push_parts(&[], row_key);
                self.copies = Some((owner.to_vec(), read_count(value.value())?));
                self.push_copies(batch);
            } else {
                self.row.push_parts(row_key, value.value());
                if let Some((row, _)) = self.row.row_at(0) {
                    batch.push_row(owner, row);
                }
            }
        }
        Ok(!batch.is_empty())
    }
}

impl TableRows {
    fn is_in_use(&mut self, owner: &[u8], generation: u64) -> Result<bool, StoreError> {
        if let Some((last_owner, last_generation, in_use)) = &self.place
            && last_owner == owner
            && *last_generation == generation
        {
            return Ok(*in_use);
        }
        let in_use = current(&self.generations, self.table, owner)? == generation;
        self.place = Some((owner.to_vec(), generation, in_use));
        Ok(in_use)
    }

    fn push_copies(&mut self, batch: &mut OwnedRowBatch) {
        let Some((owner, copies)) = &mut self.copies else {
            return;
        };
        let Some((row, _)) = self.row.row_at(0) else {
            return;
        };
        while *copies > 0 && batch.byte_count() < RowBatch::TARGET_BYTES {
            batch.push_row(owner, row);
            *copies -= 1;
        }
        if *copies == 0 {
            self.copies = None;
        }
    }
}
