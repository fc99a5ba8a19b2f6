//! The engine on a fixture: one repository, one set of resources, ids by number.

use std::num::NonZeroUsize;
use std::sync::Arc;

use reinstate::{
    BlockLayout, CaptureOptions, Context, DriftRules, Error, OwnerCheck, PlanRequest,
    ResourceOptions, Resources, RestoreRequest, StoredPlan, TenantOutcome, WrittenPlan,
};
use reinstate_core::{
    Cancellation, JobId, LiveStore, Policy, Repository, Silent, SnapshotDescription, SnapshotId,
    Tenant, TenantId, Timestamp,
};

use crate::MemoryRepository;
use crate::certification::{Fixture, Violation, tenant};

/// The engine with a repository of its own.
pub(super) struct Engine<'f> {
    pub(super) store: &'f dyn LiveStore,
    pub(super) repository: MemoryRepository,
    resources: Resources,
    cancellation: Cancellation,
}

/// The time that every run is said to be at.
pub(super) const NOW: Timestamp = Timestamp::from_micros(1_775_374_680_000_000);

/// The least memory that the engine takes.
pub(super) const MEMORY_BYTES: usize = reinstate::MEMORY_BYTES_MIN;

impl From<Error> for Violation {
    fn from(error: Error) -> Self {
        let mut text = format!("unexpected error {:?}: {error}", error.kind());
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Self::new(text)
    }
}

impl<'f> Engine<'f> {
    pub(super) fn new(fixture: &'f dyn Fixture) -> Result<Self, Violation> {
        Self::with(fixture.store(), 2, MEMORY_BYTES)
    }

    pub(super) fn with(
        store: &'f dyn LiveStore,
        threads: usize,
        memory_bytes_max: usize,
    ) -> Result<Self, Violation> {
        store.prepare()?;
        let options = ResourceOptions {
            threads: NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN),
            memory_bytes_max,
            ..ResourceOptions::default()
        };
        Ok(Self {
            store,
            repository: MemoryRepository::default(),
            resources: Resources::try_new(options)?,
            cancellation: Cancellation::new(),
        })
    }

    pub(super) fn with_repository(self, repository: MemoryRepository) -> Self {
        Self { repository, ..self }
    }

    pub(super) fn context(&self) -> Context<'_> {
        Context::new(&self.resources, &Silent, &self.cancellation)
    }

    pub(super) fn capture(&self, number: u8) -> Result<Arc<SnapshotDescription>, Error> {
        let mut options = CaptureOptions::new(SnapshotId::from_bytes([number; 16]), NOW);
        // It makes no difference to anything but the bytes of a block.
        if number % 2 == 1 {
            options.layout = BlockLayout::Columns;
        }
        let snapshot = reinstate::capture(self.context(), self.store, &self.repository, &options)?;
        Ok(Arc::new(snapshot))
    }

    pub(super) fn tenant(&self, name: &str) -> Tenant {
        Tenant {
            kind: self.store.tenant_kind().clone(),
            id: tenant(name),
        }
    }

    pub(super) fn restore(
        &self,
        snapshot: &Arc<SnapshotDescription>,
        names: &[&str],
        policy: Policy,
        job: u8,
    ) -> Result<Vec<TenantOutcome>, Error> {
        let request = RestoreRequest {
            job: job_id(job),
            snapshot: Arc::clone(snapshot),
            tenants: names.iter().map(|name| self.tenant(name)).collect(),
            policy,
            drift: DriftRules::default(),
            requested_at: NOW,
        };
        reinstate::restore(self.context(), self.store, &self.repository, &request)
    }

    pub(super) fn plan(
        &self,
        snapshot: &Arc<SnapshotDescription>,
        names: &[&str],
        policy: Policy,
        job: u8,
    ) -> Result<WrittenPlan, Error> {
        let tenants: Vec<_> = names.iter().map(|name| self.tenant(name)).collect();
        let context = self.context();
        let images = reinstate::extract_all(context, &self.repository, snapshot, &tenants);
        let images = images.into_iter().collect::<Result<Vec<_>, _>>()?;
        let output = self.output()?;
        let request = self.plan_request(policy, job);
        reinstate::plan(self.context(), &images, self.store, &request, output)
    }

    pub(super) fn apply(&self, plan: &WrittenPlan) -> Result<Vec<TenantOutcome>, Error> {
        let stored = StoredPlan::open(&self.repository, plan.object)?;
        reinstate::apply(self.context(), &stored, self.store, &self.repository, NOW)
    }

    pub(super) fn undo(&self, merged: u8, policy: Policy, job: u8) -> Result<WrittenPlan, Error> {
        reinstate::plan_undo_of(
            self.context(),
            &self.repository,
            self.store,
            job_id(merged),
            &self.plan_request(policy, job),
            self.output()?,
        )
    }

    fn plan_request(&self, policy: Policy, job: u8) -> PlanRequest<'_> {
        PlanRequest {
            job: job_id(job),
            repository: self.repository.id(),
            policy,
            drift: DriftRules::default(),
            check_owners: OwnerCheck::In(&self.repository),
            planned_at: NOW,
        }
    }

    fn output(&self) -> Result<Box<dyn reinstate_core::ObjectWriter + '_>, Error> {
        let output = self.repository.create_object();
        Ok(output.expect("BUG: a repository in memory is never full"))
    }
}

pub(super) fn job_id(number: u8) -> JobId {
    JobId::from_bytes([number; 16])
}

/// One tenant's outcome, which must be a success.
pub(super) fn succeeded(
    outcomes: Vec<TenantOutcome>,
) -> Result<Vec<(TenantId, reinstate::Restored)>, Violation> {
    outcomes
        .into_iter()
        .map(|outcome| Ok((outcome.tenant, outcome.result?)))
        .collect()
}
