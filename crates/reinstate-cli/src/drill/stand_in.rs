//! A scratch store in place of the one that a snapshot was taken from.
//!
//! A plan is bound to its store by the store's id. A scratch database has an id of its own, so that nothing
//! that was planned for the live one can run there by mistake; here it is meant to.

use reinstate_core::{
    CaptureView, Committed, Fingerprint, JobId, JournalEntry, LiveStore, LiveView,
    PositionNotation, SnapshotSource, StoreError, StoreIdentity, StoreSchema, TenantId, TenantKind,
    TenantWriter,
};

/// A store that answers to the name of another one.
pub(super) struct StandIn<'s> {
    pub(super) scratch: &'s dyn LiveStore,
    /// The store that it stands in for.
    pub(super) identity: StoreIdentity,
}

impl SnapshotSource for StandIn<'_> {
    fn begin_capture(&self) -> Result<Box<dyn CaptureView + '_>, StoreError> {
        self.scratch.begin_capture()
    }
}

impl LiveStore for StandIn<'_> {
    fn identity(&self) -> StoreIdentity {
        self.identity.clone()
    }

    fn tenant_kind(&self) -> &TenantKind {
        self.scratch.tenant_kind()
    }

    fn notation(&self) -> PositionNotation {
        self.scratch.notation()
    }

    fn prepare(&self) -> Result<(), StoreError> {
        self.scratch.prepare()
    }

    fn read_view(&self) -> Result<Box<dyn LiveView + '_>, StoreError> {
        self.scratch.read_view()
    }

    fn begin_merge(
        &self,
        tenant: &TenantId,
        expected: &Fingerprint,
        schema: &StoreSchema,
    ) -> Result<Box<dyn TenantWriter + '_>, StoreError> {
        self.scratch.begin_merge(tenant, expected, schema)
    }

    fn journal_entry(
        &self,
        job: JobId,
        tenant: &TenantId,
    ) -> Result<Option<JournalEntry>, StoreError> {
        self.scratch.journal_entry(job, tenant)
    }

    fn committed(&self, job: JobId, tenant: &TenantId) -> Result<Option<Committed>, StoreError> {
        self.scratch.committed(job, tenant)
    }

    fn foreign_rows_written(
        &self,
        tenant: &TenantId,
        commit_mark: &[u8],
    ) -> Result<u64, StoreError> {
        self.scratch.foreign_rows_written(tenant, commit_mark)
    }

    fn probe(&self) -> Result<(), StoreError> {
        self.scratch.probe()
    }

    fn writes_between_batches(&self) -> bool {
        self.scratch.writes_between_batches()
    }
}
