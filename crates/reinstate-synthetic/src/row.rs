//! The rows themselves: each a function of seed, tenant, table and row number.

use rand_core::Rng;
use rand_pcg::Pcg64Mcg;
use reinstate_core::{KeyWriter, RowBuilder, RowRef, Timestamp};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::draft::{CURRENCY_COUNT, Draft, PLAN_COUNT};
use crate::sizes::Sizes;
use crate::table::Table;
use crate::text::Vocabulary;

/// The first moment anything happens: 2023-01-01.
const EPOCH_DAY: i64 = 19_358;
/// How many days the store's history spans.
pub(crate) const DAY_COUNT: usize = 1_095;
/// The last moment of the history, which is when a snapshot of it says it was taken.
pub(crate) const TAKEN_AT: Timestamp =
    Timestamp::from_micros((EPOCH_DAY + DAY_COUNT as i64) * 86_400_000_000);

/// Everything that rows are computed from.
#[derive(Clone, Debug)]
pub(crate) struct RowSource {
    pub(crate) seed: u64,
    /// What the ids of tenants begin with.
    pub(crate) tenant_prefix: String,
    pub(crate) sizes: Sizes,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) days: Vec<[u8; 10]>,
}

/// Buffers of one row, used again for the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) builder: RowBuilder,
    pub(crate) key: KeyWriter,
    pub(crate) text: Vec<u8>,
}

impl RowSource {
    pub(crate) fn new(seed: u64, sizes: Sizes) -> Self {
        let day = |number: usize| {
            let micros = (EPOCH_DAY + number as i64) * 86_400_000_000;
            let text = Timestamp::from_micros(micros).to_string();
            let mut date = [b'0'; 10];
            date.copy_from_slice(&text.as_bytes()[..10]);
            date
        };
        Self {
            seed,
            tenant_prefix: String::new(),
            sizes,
            vocabulary: Vocabulary::new(),
            days: (0..DAY_COUNT).map(day).collect(),
        }
    }

    /// The id of a tenant's row: unique in the whole table, and interleaved with the ids of other
    /// tenants as a counter's would be.
    pub(crate) fn id(&self, tenant: u32, row: u32) -> u64 {
        1 + u64::from(row) * u64::from(self.sizes.tenant_count()) + u64::from(tenant)
    }

    /// How many rows a tenant has in a table; of a shared table, how many there are.
    pub(crate) fn row_count(&self, tenant: u32, table: Table) -> u32 {
        match table {
            Table::Currencies => CURRENCY_COUNT,
            Table::Plans => PLAN_COUNT,
            _ => self.sizes.tables(tenant)[table.owned_index()],
        }
    }

    /// Writes one row of a table into `scratch`. The tenant of a shared table's row is ignored.
    pub(crate) fn write<'s>(
        &self,
        table: Table,
        tenant: u32,
        row: u32,
        scratch: &'s mut Scratch,
    ) -> RowRef<'s> {
        let row = self.original(table, tenant, row);
        let mut draft = Draft {
            source: self,
            random: self.random(table, tenant, row),
            scratch,
            tenant,
            counts: self.sizes.tables(tenant),
        };
        match table {
            Table::Currencies => draft.currency(row),
            Table::Plans => draft.plan(row),
            Table::Projects => draft.project(row),
            Table::Members => draft.member(row),
            Table::Issues => draft.issue(row),
            Table::Comments => draft.comment(row),
            Table::Activity => draft.activity(row),
        }
        scratch.builder.row()
    }

    /// The row that this one is a duplicate of, or itself.
    fn original(&self, table: Table, tenant: u32, mut row: u32) -> u32 {
        if table == Table::Activity {
            while row > 0
                && self
                    .random(table, tenant, row)
                    .next_u64()
                    .is_multiple_of(50)
            {
                row -= 1;
            }
        }
        row
    }

    fn random(&self, table: Table, tenant: u32, row: u32) -> Pcg64Mcg {
        let mut place = [0; 9];
        place[0] = table as u8;
        place[1..5].copy_from_slice(&tenant.to_le_bytes());
        place[5..].copy_from_slice(&row.to_le_bytes());
        Pcg64Mcg::new(xxh3_128_with_seed(&place, self.seed))
    }
}

/// A number below `bound`; zero if that is zero. Even to within `bound / 2^64`.
pub(crate) fn below(random: &mut Pcg64Mcg, bound: u64) -> u64 {
    let product = u128::from(random.next_u64()) * u128::from(bound);
    (product >> 64) as u64
}
