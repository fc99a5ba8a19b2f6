//! Streams of synthetic rows: one tenant's, and a whole table's in the order of a heap.

use reinstate_core::{OwnedRowBatch, OwnedRowStream, RowBatch, RowStream, StoreError};

use crate::row::{RowSource, Scratch};
use crate::table::Table;
use crate::text::push_number;

/// How many rows of an average tenant lie together in a table.
const ROWS_TOGETHER: u64 = 4;

/// One tenant's rows in one table, by row number.
#[derive(Debug)]
pub(crate) struct TenantRows<'a> {
    source: &'a RowSource,
    table: Table,
    tenant: u32,
    next: u32,
    end: u32,
    scratch: Scratch,
}

impl<'a> TenantRows<'a> {
    pub(crate) fn new(source: &'a RowSource, table: Table, tenant: u32) -> Self {
        Self {
            source,
            table,
            tenant,
            next: 0,
            end: source.row_count(tenant, table),
            scratch: Scratch::default(),
        }
    }
}

impl RowStream for TenantRows<'_> {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        batch.clear();
        while self.next < self.end && batch.as_bytes().len() < RowBatch::TARGET_BYTES {
            let row = self
                .source
                .write(self.table, self.tenant, self.next, &mut self.scratch);
            batch.push_row(row);
            self.next += 1;
        }
        Ok(!batch.is_empty())
    }
}

/// Every row of a table, tenants mixed as clients that write all the time would mix them.
///
/// The table is written in rounds. Each round visits every tenant once, in an order of its own,
/// and takes the tenant's share of rows; a tenant smaller than the number of rounds comes up in
/// some of them. Nothing is kept but where the walk is.
#[derive(Debug)]
pub(crate) struct HeapRows<'a> {
    source: &'a RowSource,
    table: Table,
    rounds: u64,
    round: u64,
    visit: Visit,
    next: u32,
    end: u32,
    owner: Vec<u8>,
    scratch: Scratch,
}

/// A walk over all tenants that meets each once: `(start + step * n) mod count`.
#[derive(Clone, Copy, Debug)]
struct Visit {
    tenant: u64,
    step: u64,
    left: u64,
}

impl<'a> HeapRows<'a> {
    pub(crate) fn new(source: &'a RowSource, table: Table) -> Self {
        let mut rows = Self {
            source,
            table,
            rounds: 1,
            round: 0,
            visit: Visit {
                tenant: 0,
                step: 0,
                left: 0,
            },
            next: 0,
            end: 0,
            owner: Vec::new(),
            scratch: Scratch::default(),
        };
        if table.is_tenant_owned() {
            let tenants = u64::from(source.sizes.tenant_count());
            rows.rounds = (source.sizes.total(table) / tenants / ROWS_TOGETHER).max(1);
            rows.start_round();
        } else {
            rows.round = 1;
            rows.end = source.row_count(0, table);
        }
        rows
    }

    fn start_round(&mut self) {
        let count = u64::from(self.source.sizes.tenant_count());
        let mixed = mix(self.source.seed ^ mix(self.round ^ (self.table as u64) << 56));
        let mut step = (mixed % count) | 1;
        while gcd(step, count) != 1 {
            step += 2;
        }
        self.visit = Visit {
            tenant: mix(mixed) % count,
            step,
            left: count,
        };
    }

    /// Goes on to the next tenant that has rows here. `false` when the table is over.
    fn advance(&mut self) -> bool {
        let count = u64::from(self.source.sizes.tenant_count());
        while self.round < self.rounds {
            while self.visit.left > 0 {
                self.visit.left -= 1;
                self.visit.tenant = (self.visit.tenant + self.visit.step) % count;
                let Ok(tenant) = u32::try_from(self.visit.tenant) else {
                    continue;
                };
                (self.next, self.end) = self.share(tenant);
                if self.next < self.end {
                    self.owner.clear();
                    let prefix = self.source.tenant_prefix.as_bytes();
                    self.owner.extend_from_slice(prefix);
                    push_number(&mut self.owner, u64::from(tenant) + 1);
                    return true;
                }
            }
            self.round += 1;
            if self.round < self.rounds {
                self.start_round();
            }
        }
        false
    }

    /// The rows that a tenant writes in this round. Over all rounds: each row once, in order.
    fn share(&self, tenant: u32) -> (u32, u32) {
        let rows = u64::from(self.source.row_count(tenant, self.table));
        // Without a phase, every small tenant's only row would come in the last round.
        let phase = mix(self.source.seed ^ u64::from(tenant)) % self.rounds;
        let bound = |round: u64| u32::try_from((rows * round + phase) / self.rounds).unwrap_or(0);
        (bound(self.round), bound(self.round + 1))
    }
}

impl OwnedRowStream for HeapRows<'_> {
    fn next_batch(&mut self, batch: &mut OwnedRowBatch) -> Result<bool, StoreError> {
        batch.clear();
        while batch.byte_count() < RowBatch::TARGET_BYTES {
            if self.next == self.end && !self.advance() {
                break;
            }
            let tenant = u32::try_from(self.visit.tenant).unwrap_or(0);
            let row = self
                .source
                .write(self.table, tenant, self.next, &mut self.scratch);
            batch.push_row(&self.owner, row);
            self.next += 1;
        }
        Ok(!batch.is_empty())
    }
}

/// The finalizer of `SplitMix64`: a permutation of 64-bit numbers that looks random.
fn mix(mut number: u64) -> u64 {
    number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

fn gcd(mut left: u64, mut right: u64) -> u64 {
    while right > 0 {
        (left, right) = (right, left % right);
    }
    left
}
