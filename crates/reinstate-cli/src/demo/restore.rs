//! Bringing the tenants back, and taking one of them away again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reinstate::{
    DriftRules, OwnerCheck, PlanRequest, StoredPlan, TenantImage, TenantOutcome, apply,
    extract_all, plan, plan_undo,
};
use reinstate_core::{ErrorKind, Phase, Policy, Repository, SnapshotDescription, Tenant, TenantId};

use super::Stage;
use super::story::Story;
use crate::failure::{Failure, one_line};
use crate::progress::Progress;
use crate::render::{bytes, count, counted};
use crate::session::{new_job, now};

/// What a restore of many tenants came to.
#[derive(Debug)]
pub struct RestoredAll {
    /// The plan, which also takes it back.
    pub plan: StoredPlan,
    /// Tenants that are proven to be what they were.
    pub tenant_count: usize,
    /// Rows that were written.
    pub row_count: u64,
    /// How long it took, from the first byte read to the last verdict.
    pub elapsed: Duration,
    /// Bytes read from the repository's snapshot.
    pub bytes_read: u64,
    /// Bytes that the tenants have stored there.
    pub stored_bytes: u64,
}

impl Stage<'_> {
    /// Extract, plan, merge and verify, while the application writes on.
    pub(super) fn restore(
        &self,
        story: &Story<'_>,
        snapshot: &SnapshotDescription,
    ) -> anyhow::Result<RestoredAll> {
        let started = Instant::now();
        let snapshot = Arc::new(snapshot.clone());
        let phases = [Phase::Plan, Phase::Merge, Phase::Verify];
        let progress = Progress::new(&phases, self.victims.len());
        let context = self
            .engine
            .context(&progress, self.interruption.cancellation());
        let tenants: Vec<Tenant> = self
            .victims
            .iter()
            .map(|&victim| Tenant {
                kind: self.synthetic.tenant_kind(),
                id: self.tenant(victim),
            })
            .collect();
        let images = extract_all(context, &self.repository, &snapshot, &tenants);
        let images = images.into_iter().collect::<Result<Vec<_>, _>>()?;
        let request = self.request()?;
        let output = self.repository.create_object()?;
        let written = plan(context, &images, &self.store, &request, output)?;
        let plan = StoredPlan::open(&self.repository, written.object)?;
        let planned = started.elapsed();
        let outcomes = apply(context, &plan, &self.store, &self.repository, now())?;
        progress.clear();
        let restored = summarise(plan, &images, &outcomes, started.elapsed())?;
        let seconds = restored.elapsed.as_secs_f64();
        story.step(
            "restore",
            restored.elapsed,
            format_args!(
                "{}, {} brought back: compare {:.1} s, write and verify {:.1} s, {} rows/s",
                counted(restored.tenant_count as u64, "tenant", "tenants"),
                counted(restored.row_count, "row", "rows"),
                planned.as_secs_f64(),
                seconds - planned.as_secs_f64(),
                count(per_second(restored.row_count, seconds))
            ),
        );
        story.say(format_args!(
            "            {} read from the snapshot; the tenants have {} stored in it",
            bytes(restored.bytes_read),
            bytes(restored.stored_bytes)
        ));
        Ok(restored)
    }

    fn request(&self) -> anyhow::Result<PlanRequest<'_>> {
        Ok(PlanRequest {
            job: new_job()?,
            repository: self.repository.id(),
            policy: Policy::EXACT,
            drift: DriftRules::default(),
            check_owners: OwnerCheck::In(&self.repository),
            planned_at: now(),
        })
    }

    /// Takes the restore of one tenant back; returns which.
    pub(super) fn undo(
        &self,
        story: &Story<'_>,
        restored: &RestoredAll,
    ) -> anyhow::Result<TenantId> {
        let started = Instant::now();
        let tenant = self.tenant(self.victims[self.victims.len() / 2]);
        let progress = Progress::new(&[Phase::Plan, Phase::Merge, Phase::Verify], 1);
        let context = self
            .engine
            .context(&progress, self.interruption.cancellation());
        let output = self.repository.create_object()?;
        let request = self.request()?;
        let merged = &restored.plan;
        let tenants = [tenant.clone()];
        let written = plan_undo(context, merged, &tenants, &self.store, &request, output)?;
        let plan = StoredPlan::open(&self.repository, written.object)?;
        let outcomes = apply(context, &plan, &self.store, &self.repository, now())?;
        progress.clear();
        let undone = summarise(plan, &[], &outcomes, started.elapsed())?;
        story.step(
            "undo",
            started.elapsed(),
            format_args!(
                "the restore of {} is taken back, {}",
                self.name(&tenant),
                counted(undone.row_count, "row", "rows")
            ),
        );
        Ok(tenant)
    }
}

fn summarise(
    plan: StoredPlan,
    images: &[TenantImage],
    outcomes: &[TenantOutcome],
    elapsed: Duration,
) -> anyhow::Result<RestoredAll> {
    let mut row_count = 0;
    for outcome in outcomes {
        match &outcome.result {
            Ok(restored) if restored.verdict.is_restored() => {
                row_count += restored.receipt.changed_rows();
            }
            Ok(restored) => {
                let message = format!(
                    "{} came out as {:?}",
                    outcome.tenant,
                    restored.verdict.findings()
                );
                return Err(Failure::new(ErrorKind::Unverified, message).into());
            }
            Err(error) => {
                let message = format!("{}: {}", outcome.tenant, one_line(error));
                return Err(Failure::new(error.kind(), message).into());
            }
        }
    }
    Ok(RestoredAll {
        plan,
        tenant_count: outcomes.len(),
        row_count,
        elapsed,
        bytes_read: images.iter().map(TenantImage::bytes_read).sum(),
        stored_bytes: images.iter().map(TenantImage::stored_bytes).sum(),
    })
}

/// A rate, rounded down.
#[must_use]
pub fn per_second(number: u64, seconds: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rate for people, and seconds are positive"
    )]
    let rate = (number as f64 / seconds.max(1e-9)) as u64;
    rate
}
