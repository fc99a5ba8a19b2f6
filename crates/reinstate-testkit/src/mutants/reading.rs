//! What mutants show of themselves.

use reinstate_core::{
    CaptureView, Fingerprint, HeldKey, LiveStore, LiveView, OwnedRowBatch, OwnedRowStream,
    Position, QuestionCost, RowBatch, RowOrder, RowRef, RowRole, RowStream, SequenceValue,
    SnapshotSource, StoreError, StoreSchema, TableIndex, Tenancy, TenantId, Timestamp,
};

use crate::certification::TENANTS;
use crate::mutants::{MutantStore, Mutation};

/// A batch of a mutant that reads everything at once holds so many bytes.
const UNBOUNDED: usize = usize::MAX;

pub(super) struct MutantCapture<'a> {
    pub(super) store: &'a MutantStore,
    pub(super) inner: Box<dyn CaptureView + 'a>,
}

pub(super) struct MutantView<'a> {
    pub(super) store: &'a MutantStore,
    pub(super) inner: Box<dyn LiveView + 'a>,
}

/// Rows of a table with their owners, all in memory.
struct OwnedRows {
    rows: Vec<(Vec<u8>, RowBatch)>,
    next: usize,
    bytes_max: usize,
}

impl OwnedRowStream for OwnedRows {
    fn next_batch(&mut self, batch: &mut OwnedRowBatch) -> Result<bool, StoreError> {
        batch.clear();
        while batch.byte_count() < self.bytes_max
            && let Some((owner, row)) = self.rows.get(self.next)
        {
            row.iter().for_each(|row| batch.push_row(owner, row));
            self.next += 1;
        }
        Ok(!batch.is_empty())
    }
}

/// Rows of one tenant, all in memory.
pub(super) struct PlainRows {
    rows: Vec<RowBatch>,
    next: usize,
    bytes_max: usize,
}

impl PlainRows {
    pub(super) fn read(stream: &mut dyn RowStream) -> Result<Self, StoreError> {
        let mut batch = RowBatch::new();
        let mut rows = Vec::new();
        while stream.next_batch(&mut batch)? {
            rows.extend(batch.iter().map(single));
        }
        Ok(Self {
            rows,
            next: 0,
            bytes_max: RowBatch::TARGET_BYTES,
        })
    }
}

impl RowStream for PlainRows {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        batch.clear();
        while batch.as_bytes().len() < self.bytes_max
            && let Some(row) = self.rows.get(self.next)
        {
            row.iter().for_each(|row| batch.push_row(row));
            self.next += 1;
        }
        Ok(!batch.is_empty())
    }
}

pub(super) fn single(row: RowRef<'_>) -> RowBatch {
    let mut batch = RowBatch::new();
    batch.push_row(row);
    batch
}

/// The rows with an empty text for every NULL.
pub(super) fn without_null(rows: &RowBatch) -> RowBatch {
    let mut batch = RowBatch::new();
    for row in rows.iter() {
        batch.push(
            row.key(),
            row.values().map(|value| Some(value.unwrap_or_default())),
        );
    }
    batch
}

const STILL: Position = Position {
    commit: 1,
    ordinal: 0,
};

impl CaptureView for MutantCapture<'_> {
    fn schema(&self) -> &StoreSchema {
        self.inner.schema()
    }

    fn position(&self) -> Position {
        match self.store.mutation {
            Mutation::PositionStandsStill => STILL,
            _ => self.inner.position(),
        }
    }

    fn taken_at(&self) -> Option<Timestamp> {
        self.inner.taken_at()
    }

    fn sequences(&self) -> &[SequenceValue] {
        self.inner.sequences()
    }

    fn lanes(&self) -> usize {
        match self.store.mutation {
            Mutation::CaptureHasNoLanes => 0,
            _ => self.inner.lanes(),
        }
    }

    fn table_rows(&self, table: TableIndex) -> Result<Box<dyn OwnedRowStream + '_>, StoreError> {
        let mutation = self.store.mutation;
        let later = self.store.inner.begin_capture()?;
        let view = match mutation {
            Mutation::CaptureSeesLaterWrites => later.as_ref(),
            _ => self.inner.as_ref(),
        };
        let mut stream = view.table_rows(table)?;
        let mut batch = OwnedRowBatch::new();
        let mut rows = Vec::new();
        let mut last_batch_start = 0;
        while stream.next_batch(&mut batch)? {
            last_batch_start = rows.len();
            rows.extend(
                batch
                    .iter()
                    .map(|(owner, row)| (owner.to_vec(), single(row))),
            );
        }
        let schema = self.inner.schema().table(table);
        match mutation {
            Mutation::CaptureMissesTheLastBatch if last_batch_start > 0 => {
                rows.truncate(last_batch_start);
            }
            Mutation::CaptureRepeatsARow if rows.len() > 1 => rows.insert(1, rows[0].clone()),
            Mutation::CaptureMergesDuplicates => rows.dedup(),
            Mutation::CaptureReadsNullAsEmpty => {
                for (_, row) in &mut rows {
                    *row = without_null(row);
                }
            }
            Mutation::CaptureMisattributesAnOwner if schema.name.as_str() == "comments" => {
                for (owner, _) in rows.iter_mut().filter(|(owner, _)| owner == b"acme2") {
                    owner.truncate(4);
                }
            }
            Mutation::CaptureGivesSharedRowsAway if schema.tenancy.is_tenant_owned() => {
                for (owner, _) in rows.iter_mut().filter(|(owner, _)| owner.is_empty()) {
                    owner.extend_from_slice(b"acme");
                }
            }
            _ => {}
        }
        let bytes_max = match mutation {
            Mutation::CaptureReadsATableAtOnce => UNBOUNDED,
            _ => RowBatch::TARGET_BYTES,
        };
        Ok(Box::new(OwnedRows {
            rows,
            next: 0,
            bytes_max,
        }))
    }
}

impl MutantView<'_> {
    /// What is read in place of the tenant.
    fn read_as(&self, tenant: &TenantId) -> Vec<TenantId> {
        let all = TENANTS.map(crate::certification::tenant);
        let id = tenant.as_bytes();
        let matches = |other: &TenantId| match self.store.mutation {
            Mutation::ViewMatchesPrefixes => other.as_bytes().starts_with(id),
            Mutation::ViewFoldsCase => other.as_bytes().eq_ignore_ascii_case(id),
            _ => false,
        };
        let mut read: Vec<TenantId> = all.into_iter().filter(matches).collect();
        if !read.contains(tenant) {
            read.push(tenant.clone());
        }
        read
    }

    /// A fingerprint made of the rows of some tables, instead of the store's own.
    fn sum_rows(
        &self,
        tenant: &TenantId,
        counts: impl Fn(&Tenancy, bool) -> bool,
        sum: impl Fn(RowRef<'_>) -> u64,
    ) -> Result<Fingerprint, StoreError> {
        let mut total: u64 = 0;
        for (index, table) in self.inner.schema().iter() {
            if !table.tenancy.is_tenant_owned() || !counts(&table.tenancy, table.has_key()) {
                continue;
            }
            let rows = PlainRows::read(self.inner.tenant_rows(tenant, index)?.as_mut())?;
            for row in rows.rows.iter().flat_map(RowBatch::iter) {
                total = total.wrapping_mul(31).wrapping_add(sum(row));
            }
        }
        Ok(Fingerprint::new(total.to_be_bytes()))
    }
}

/// A number that changes with every byte of a row.
fn number(row: RowRef<'_>) -> u64 {
    let step = |sum: u64, byte: &u8| sum.wrapping_mul(257).wrapping_add(u64::from(*byte) + 1);
    row.body().iter().fold(row.key().len() as u64, step)
}

impl LiveView for MutantView<'_> {
    fn schema(&self) -> &StoreSchema {
        self.inner.schema()
    }

    fn position(&self) -> Position {
        match self.store.mutation {
            Mutation::PositionStandsStill => STILL,
            _ => self.inner.position(),
        }
    }

    fn taken_at(&self) -> Option<Timestamp> {
        self.inner.taken_at()
    }

    fn fingerprint(&self, tenant: &TenantId) -> Result<Fingerprint, StoreError> {
        let any = |_: &Tenancy, _: bool| true;
        match self.store.mutation {
            Mutation::FingerprintIsTheStores => {
                Ok(Fingerprint::new(self.inner.position().commit.to_be_bytes()))
            }
            Mutation::FingerprintCountsRows => self.sum_rows(tenant, any, |_| 1),
            Mutation::FingerprintSkipsKeylessTables => {
                self.sum_rows(tenant, |_, has_key| has_key, number)
            }
            Mutation::FingerprintSkipsIndirectTables => {
                let direct = |tenancy: &Tenancy, _| !matches!(tenancy, Tenancy::Via { .. });
                self.sum_rows(tenant, direct, number)
            }
            _ => self.inner.fingerprint(tenant),
        }
    }

    fn question_cost(&self) -> QuestionCost {
        self.inner.question_cost()
    }

    fn row_order(&self) -> RowOrder {
        self.inner.row_order()
    }

    fn tenant_rows(
        &self,
        tenant: &TenantId,
        table: TableIndex,
    ) -> Result<Box<dyn RowStream + '_>, StoreError> {
        let later = self.store.inner.read_view()?;
        let view = match self.store.mutation {
            Mutation::ViewSeesLaterWrites => later.as_ref(),
            _ => self.inner.as_ref(),
        };
        let mut all = PlainRows::read(view.tenant_rows(tenant, table)?.as_mut())?;
        for other in self.read_as(tenant).iter().filter(|other| *other != tenant) {
            let rows = PlainRows::read(view.tenant_rows(other, table)?.as_mut())?;
            all.rows.extend(rows.rows);
        }
        match self.store.mutation {
            Mutation::ViewMergesDuplicates => all.rows.dedup(),
            Mutation::ViewIsNotSortedAsClaimed => all.rows.reverse(),
            Mutation::ViewReadsATableAtOnce => all.bytes_max = UNBOUNDED,
            _ => {}
        }
        Ok(Box::new(all))
    }

    fn held_by_others(
        &self,
        tenant: &TenantId,
        table: TableIndex,
        role: RowRole,
        rows: &RowBatch,
    ) -> Result<Vec<HeldKey>, StoreError> {
        let mut held = self.inner.held_by_others(tenant, table, role, rows)?;
        match self.store.mutation {
            Mutation::HeldIsAlwaysEmpty => held.clear(),
            Mutation::HeldNamesOwnKeys => {
                let own = PlainRows::read(self.inner.tenant_rows(tenant, table)?.as_mut())?;
                let is_own = |row: &RowRef<'_>| {
                    let mut keys = own.rows.iter().flat_map(RowBatch::iter);
                    !row.key().is_empty() && keys.any(|other| other.key() == row.key())
                };
                held.extend(rows.iter().filter(is_own).map(|row| HeldKey {
                    key: row.key().to_vec(),
                    constraint: "primary key".to_owned(),
                }));
            }
            _ => {}
        }
        Ok(held)
    }
}
