//! Fences around the tenants of a faulty store.

use std::sync::atomic::{AtomicU64, Ordering};

use reinstate_core::{
    Fingerprint, LiveStore, StoreError, StoreSchema, TenantFence, TenantId, TenantWriter,
};

use super::FaultyStore;

/// How many fences of a store are up, and were put up. They keep nobody off by themselves: whoever writes in
/// the name of users asks whether one is up.
#[derive(Debug, Default)]
pub struct FenceCounts {
    up: AtomicU64,
    raised: AtomicU64,
}

impl FenceCounts {
    /// How many are up.
    #[must_use]
    pub fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    /// How many were put up, those included that fell since.
    #[must_use]
    pub fn raised(&self) -> u64 {
        self.raised.load(Ordering::Relaxed)
    }
}

/// One that is up as long as it lives.
pub(super) struct CountedFence<'s> {
    store: &'s FaultyStore<'s>,
    tenant: TenantId,
    counts: &'s FenceCounts,
}

impl<'s> CountedFence<'s> {
    pub(super) fn raise(
        store: &'s FaultyStore<'s>,
        tenant: &TenantId,
        counts: &'s FenceCounts,
    ) -> Self {
        counts.up.fetch_add(1, Ordering::Relaxed);
        counts.raised.fetch_add(1, Ordering::Relaxed);
        Self {
            store,
            tenant: tenant.clone(),
            counts,
        }
    }
}

impl TenantFence for CountedFence<'_> {
    fn begin_merge(
        &mut self,
        expected: &Fingerprint,
        schema: &StoreSchema,
    ) -> Result<Box<dyn TenantWriter + '_>, StoreError> {
        self.store.begin_merge(&self.tenant, expected, schema)
    }
}

impl Drop for CountedFence<'_> {
    fn drop(&mut self) {
        self.counts.up.fetch_sub(1, Ordering::Relaxed);
    }
}
