//! A mutant as a live store, and as a fixture that properties can be run on.

use std::sync::Arc;

use reinstate_core::{
    CaptureView, Committed, Fingerprint, JobId, JournalEntry, LiveStore, LiveView,
    PositionNotation, SnapshotSource, StoreError, StoreIdentity, StoreSchema, TenantId, TenantKind,
    TenantWriter,
};

use crate::certification::{Fixture, Flavour, Profile, standard_schema};
use crate::mutants::Mutation;
use crate::mutants::reading::{MutantCapture, MutantView};
use crate::mutants::writing::MutantWriter;
use crate::{ApplicationChange, KeySpace, MemoryOptions, MemoryStore};

/// A memory store with one thing wrong.
#[derive(Debug)]
pub struct MutantStore {
    pub(super) inner: MemoryStore,
    pub(super) mutation: Mutation,
}

/// A mutant with the tables of the kit.
#[derive(Debug)]
pub struct MutantFixture {
    store: MutantStore,
}

impl MutantFixture {
    /// An empty mutant.
    ///
    /// # Panics
    /// Never: the options fit the tables.
    #[must_use]
    pub fn new(mutation: Mutation) -> Self {
        let schema = standard_schema(Flavour::Columns);
        let inner = MemoryStore::try_new(schema, MemoryOptions::default());
        let inner = inner.expect("BUG: the default options do not fit the tables");
        Self {
            store: MutantStore { inner, mutation },
        }
    }
}

impl Fixture for MutantFixture {
    /// The first mutant. Use [`MutantFixture::new`] for a certain one.
    fn create() -> Self {
        Self::new(Mutation::ALL[0])
    }

    fn profile(&self) -> Profile {
        Profile {
            flavour: Flavour::Columns,
            key_space: KeySpace::Global,
            has_counters: true,
            checks_references: false,
        }
    }

    fn store(&self) -> &dyn LiveStore {
        &self.store
    }

    fn application_write(&self, changes: &[ApplicationChange]) -> Result<(), StoreError> {
        self.store.inner.write(changes)
    }
}

impl SnapshotSource for MutantStore {
    fn begin_capture(&self) -> Result<Box<dyn CaptureView + '_>, StoreError> {
        Ok(Box::new(MutantCapture {
            store: self,
            inner: self.inner.begin_capture()?,
        }))
    }
}

impl LiveStore for MutantStore {
    fn identity(&self) -> StoreIdentity {
        self.inner.identity()
    }

    fn tenant_kind(&self) -> &TenantKind {
        self.inner.tenant_kind()
    }

    fn notation(&self) -> PositionNotation {
        self.inner.notation()
    }

    fn prepare(&self) -> Result<(), StoreError> {
        if self.mutation == Mutation::PrepareForgetsTheJournal {
            Arc::make_mut(&mut self.inner.lock()).journal.clear();
        }
        self.inner.prepare()
    }

    fn read_view(&self) -> Result<Box<dyn LiveView + '_>, StoreError> {
        Ok(Box::new(MutantView {
            store: self,
            inner: self.inner.read_view()?,
        }))
    }

    fn begin_merge(
        &self,
        tenant: &TenantId,
        expected: &Fingerprint,
        schema: &StoreSchema,
    ) -> Result<Box<dyn TenantWriter + '_>, StoreError> {
        let shown = self.read_view()?.fingerprint(tenant)?;
        let view = self.inner.read_view()?;
        let current = view.fingerprint(tenant)?;
        // A mutant's own fingerprints mean nothing to the store inside: compare them here.
        let expected = match self.mutation {
            Mutation::MergeIgnoresTheFingerprint => &current,
            _ if shown == *expected => &current,
            _ => expected,
        };
        let schema = match self.mutation {
            Mutation::MergeIgnoresTheSchema => view.schema(),
            _ => schema,
        };
        if self.mutation == Mutation::MergeLetsTwoRunsIn {
            self.inner.locked().remove(tenant);
        }
        let inner = self.inner.begin_merge(tenant, expected, schema)?;
        Ok(Box::new(MutantWriter::new(self, tenant, inner)))
    }

    fn journal_entry(
        &self,
        job: JobId,
        tenant: &TenantId,
    ) -> Result<Option<JournalEntry>, StoreError> {
        if self.mutation == Mutation::JournalIgnoresTheTenant {
            let state = self.inner.state();
            let found = state.journal.values().find(|entry| entry.job == job);
            return Ok(found.cloned());
        }
        self.inner.journal_entry(job, tenant)
    }

    fn committed(&self, job: JobId, tenant: &TenantId) -> Result<Option<Committed>, StoreError> {
        let found = self.inner.committed(job, tenant)?;
        Ok(found.map(|committed| match self.mutation {
            Mutation::CommitIsReadBackWithoutCounters => Committed {
                sequences_raised: Vec::new(),
                ..committed
            },
            Mutation::CommitIsReadBackAsOfNow => Committed {
                commit_mark: self.inner.state().commit.to_be_bytes().to_vec(),
                ..committed
            },
            _ => committed,
        }))
    }

    fn foreign_rows_written(
        &self,
        tenant: &TenantId,
        commit_mark: &[u8],
    ) -> Result<u64, StoreError> {
        match self.mutation {
            Mutation::MarkFindsNothing => Ok(0),
            Mutation::MarkFindsOwnRows => {
                let nobody = crate::certification::tenant("nobody");
                self.inner.foreign_rows_written(&nobody, commit_mark)
            }
            _ => self.inner.foreign_rows_written(tenant, commit_mark),
        }
    }
}
