//! Rows gathered in memory and sorted there.

use std::collections::HashMap;

use rayon::ThreadPool;
use rayon::slice::ParallelSliceMut;
use reinstate_core::{RowBatch, RowRef, TableIndex, compare_rows};

use super::{Cursor, Item};
use crate::Error;

/// What a row takes besides its bytes: its entry.
const ENTRY_BYTES: usize = size_of::<Entry>();

/// So many rows are sorted by the caller itself: asking the pool takes longer.
const SORTED_AT_ONCE_ROWS_MAX: usize = 512;

/// Rows of any owners and tables.
pub(super) struct Arena {
    bytes_max: usize,
    rows: RowBatch,
    entries: Vec<Entry>,
    groups: Vec<(Box<[u8]>, TableIndex)>,
    group_numbers: HashMap<TableIndex, HashMap<Box<[u8]>, u32>>,
    group_bytes: usize,
}

/// A row's place, with enough of its key to decide most comparisons without touching the row.
#[derive(Clone, Copy)]
struct Entry {
    key_prefix: u128,
    offset: usize,
    group: u32,
}

impl Arena {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            rows: RowBatch::new(),
            entries: Vec::new(),
            groups: Vec::new(),
            group_numbers: HashMap::new(),
            group_bytes: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the row fits in the budget; a first row always does.
    pub(super) fn has_room_for(&self, row: RowRef<'_>) -> bool {
        let rows = self.rows.as_bytes().len() + row.body().len() + 20;
        let entries = (self.entries.len() + 1) * ENTRY_BYTES;
        self.entries.is_empty() || rows + entries + self.group_bytes <= self.bytes_max
    }

    pub(super) fn push(&mut self, owner: &[u8], table: TableIndex, row: RowRef<'_>) {
        let group = self.group(owner, table);
        let offset = self.rows.as_bytes().len();
        self.entries.push(Entry {
            key_prefix: prefix(row.key()),
            offset,
            group,
        });
        self.rows.push_row(row);
    }

    fn group(&mut self, owner: &[u8], table: TableIndex) -> u32 {
        let numbers = self.group_numbers.entry(table).or_default();
        if let Some(&number) = numbers.get(owner) {
            return number;
        }
        // As many groups as rows at most, and a row takes more than one byte of a usize's worth.
        let number =
            u32::try_from(self.groups.len()).expect("BUG: more groups than a budget holds");
        numbers.insert(owner.into(), number);
        self.groups.push((owner.into(), table));
        self.group_bytes += 2 * owner.len() + 96;
        number
    }

    /// Sorts the entries; the rows stay where they are.
    pub(super) fn sort(&mut self, pool: &ThreadPool) {
        let mut order: Vec<u32> = (0..).take(self.groups.len()).collect();
        order.sort_unstable_by_key(|&number| &self.groups[number as usize]);
        let mut ranks = vec![0_u32; order.len()];
        for (rank, &number) in (0..).zip(&order) {
            ranks[number as usize] = rank;
        }
        let rows = &self.rows;
        let entries = &mut self.entries;
        let compare = |left: &Entry, right: &Entry| {
            ranks[left.group as usize]
                .cmp(&ranks[right.group as usize])
                .then_with(|| left.key_prefix.cmp(&right.key_prefix))
                .then_with(|| compare_rows(row(rows, *left), row(rows, *right)))
        };
        if entries.len() <= SORTED_AT_ONCE_ROWS_MAX {
            entries.sort_unstable_by(compare);
        } else {
            pool.install(|| entries.par_sort_unstable_by(compare));
        }
    }

    /// Forgets the rows and keeps the memory for the next ones.
    pub(super) fn clear(&mut self) {
        self.rows.clear_within();
        self.entries.clear();
        self.groups.clear();
        self.group_numbers.clear();
        self.group_bytes = 0;
    }

    pub(super) fn cursor(&self) -> ArenaCursor<&Self> {
        ArenaCursor {
            arena: self,
            next: 0,
        }
    }

    pub(super) fn into_cursor(self) -> ArenaCursor<Self> {
        ArenaCursor {
            arena: self,
            next: 0,
        }
    }
}

impl AsRef<Self> for Arena {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// Walks over a sorted arena.
pub(super) struct ArenaCursor<A> {
    arena: A,
    next: usize,
}

impl<A: AsRef<Arena>> Cursor for ArenaCursor<A> {
    fn advance(&mut self) -> Result<bool, Error> {
        let more = self.next < self.arena.as_ref().entries.len();
        self.next += usize::from(more);
        Ok(more)
    }

    fn current(&self) -> Item<'_> {
        let arena = self.arena.as_ref();
        let entry = arena.entries[self.next - 1];
        let (owner, table) = &arena.groups[entry.group as usize];
        Item {
            owner,
            table: *table,
            row: row(&arena.rows, entry),
        }
    }
}

fn row(rows: &RowBatch, entry: Entry) -> RowRef<'_> {
    rows.row_at(entry.offset)
        .expect("BUG: an entry points past the arena")
        .0
}

/// The first 16 bytes of a key as a number: equal prefixes decide nothing, others decide all,
/// because missing bytes count as zero and a longer key never sorts before its own prefix.
fn prefix(key: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    let length = key.len().min(16);
    bytes[..length].copy_from_slice(&key[..length]);
    u128::from_be_bytes(bytes)
}
