//! A synthetic store as a live one that nobody can write to.

use reinstate_core::{
    CaptureView, Committed, ErrorKind, Fingerprint, HeldKey, JobId, JournalEntry, LiveStore,
    LiveView, Position, PositionNotation, RowBatch, RowOrder, RowRole, RowStream, SnapshotSource,
    StoreError, StoreId, StoreIdentity, StoreSchema, TableIndex, TenantId, TenantKind,
    TenantWriter, Timestamp,
};
use reinstate_synthetic::SyntheticStore;

/// A [`SyntheticStore`] behind the port of live stores: captures and views work, merges are
/// refused. For captures of any size, of which every tenant's contents are known.
#[derive(Debug)]
pub struct SyntheticLive {
    store: SyntheticStore,
    kind: TenantKind,
}

impl SyntheticLive {
    /// The store as a live one.
    #[must_use]
    pub fn new(store: SyntheticStore) -> Self {
        Self {
            kind: store.tenant_kind(),
            store,
        }
    }

    /// The known answer.
    #[must_use]
    pub fn answer(&self) -> &SyntheticStore {
        &self.store
    }
}

impl SnapshotSource for SyntheticLive {
    fn begin_capture(&self) -> Result<Box<dyn CaptureView + '_>, StoreError> {
        self.store.begin_capture()
    }
}

impl LiveStore for SyntheticLive {
    fn identity(&self) -> StoreIdentity {
        StoreIdentity {
            id: StoreId::from_bytes(*b"synthetic store1"),
            name: "synthetic".to_owned(),
        }
    }

    fn tenant_kind(&self) -> &TenantKind {
        &self.kind
    }

    fn notation(&self) -> PositionNotation {
        PositionNotation::Commit
    }

    fn prepare(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn read_view(&self) -> Result<Box<dyn LiveView + '_>, StoreError> {
        Ok(Box::new(SyntheticView {
            store: &self.store,
            capture: self.store.begin_capture()?,
        }))
    }

    fn begin_merge(
        &self,
        tenant: &TenantId,
        _expected: &Fingerprint,
        _schema: &StoreSchema,
    ) -> Result<Box<dyn TenantWriter + '_>, StoreError> {
        let message = format!("merge {tenant}: a synthetic store cannot be written to");
        Err(StoreError::new(ErrorKind::Refused, message))
    }

    fn journal_entry(
        &self,
        _job: JobId,
        _tenant: &TenantId,
    ) -> Result<Option<JournalEntry>, StoreError> {
        Ok(None)
    }

    fn committed(&self, _job: JobId, _tenant: &TenantId) -> Result<Option<Committed>, StoreError> {
        Ok(None)
    }

    fn foreign_rows_written(
        &self,
        _tenant: &TenantId,
        _commit_mark: &[u8],
    ) -> Result<u64, StoreError> {
        Ok(0)
    }
}

struct SyntheticView<'a> {
    store: &'a SyntheticStore,
    capture: Box<dyn CaptureView + 'a>,
}

impl LiveView for SyntheticView<'_> {
    fn schema(&self) -> &StoreSchema {
        self.store.schema()
    }

    fn position(&self) -> Position {
        self.capture.position()
    }

    fn taken_at(&self) -> Option<Timestamp> {
        self.capture.taken_at()
    }

    fn fingerprint(&self, _tenant: &TenantId) -> Result<Fingerprint, StoreError> {
        Ok(Fingerprint::new(Vec::new()))
    }

    fn row_order(&self) -> RowOrder {
        RowOrder::Any
    }

    fn tenant_rows(
        &self,
        tenant: &TenantId,
        table: TableIndex,
    ) -> Result<Box<dyn RowStream + '_>, StoreError> {
        let Some(index) = self.store.tenant_index(tenant) else {
            return Ok(Box::new(NoRows));
        };
        Ok(self.store.rows_of(index, table))
    }

    /// Nothing: nothing can be created either.
    fn held_by_others(
        &self,
        _tenant: &TenantId,
        _table: TableIndex,
        _role: RowRole,
        _rows: &RowBatch,
    ) -> Result<Vec<HeldKey>, StoreError> {
        Ok(Vec::new())
    }
}

struct NoRows;

impl RowStream for NoRows {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        batch.clear();
        Ok(false)
    }
}
