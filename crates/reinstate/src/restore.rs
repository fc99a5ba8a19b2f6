//! Restore: the four steps in a row, for as many tenants as are asked for.

use std::sync::Arc;

use reinstate_core::{
    ErrorKind, JobId, LiveStore, Policy, Repository, SnapshotDescription, Tenant, TenantId,
    Timestamp,
};

use crate::batch::extract_all;
use crate::drift::DriftRules;
use crate::job::store_job;
use crate::merge::{MergeReceipt, keep_receipt, merge};
use crate::plan::{OwnerCheck, PlanRequest, StoredPlan, plan};
use crate::verify::{Verdict, verify};
use crate::{Context, Error};

/// What to restore.
#[derive(Clone, Debug)]
pub struct RestoreRequest {
    /// The run; never used before. Undo asks for it again.
    pub job: JobId,
    /// The snapshot to go back to.
    pub snapshot: Arc<SnapshotDescription>,
    /// The tenants; at least one.
    pub tenants: Vec<Tenant>,
    /// Which changes may be made.
    pub policy: Policy,
    /// What became of tables that changed after the snapshot.
    pub drift: DriftRules,
    /// The time to note where the store has no clock of its own.
    pub requested_at: Timestamp,
}

/// How one tenant of a run came out.
#[derive(Debug)]
pub struct TenantOutcome {
    /// The tenant.
    pub tenant: TenantId,
    /// What was done and found; or why nothing was done.
    pub result: Result<Restored, Error>,
}

/// One tenant's merge with its verification.
#[derive(Debug)]
pub struct Restored {
    /// What was done.
    pub receipt: MergeReceipt,
    /// What it came to.
    pub verdict: Verdict,
}

impl TenantOutcome {
    /// Whether the tenant is proven to be what was asked for.
    #[must_use]
    pub fn is_restored(&self) -> bool {
        self.result
            .as_ref()
            .is_ok_and(|restored| restored.verdict.is_restored())
    }
}

/// Extracts, plans, merges and verifies the tenants, one transaction each. A tenant that goes
/// wrong does not keep the others from being restored.
///
/// # Errors
/// Whatever keeps the whole plan from being made: see [`extract`](crate::extract) and [`plan`](plan()). Nothing
/// was written then.
pub fn restore(
    context: Context<'_>,
    live: &dyn LiveStore,
    repository: &dyn Repository,
    request: &RestoreRequest,
) -> Result<Vec<TenantOutcome>, Error> {
    let images = extract_all(context, repository, &request.snapshot, &request.tenants);
    let images = images.into_iter().collect::<Result<Vec<_>, _>>()?;
    let plan_request = PlanRequest {
        job: request.job,
        repository: repository.id(),
        policy: request.policy,
        drift: request.drift.clone(),
        check_owners: OwnerCheck::In(repository),
        planned_at: request.requested_at,
    };
    let output = repository
        .create_object()
        .map_err(Error::repository("keep the plan"))?;
    let written = plan(context, &images, live, &plan_request, output)?;
    let stored = StoredPlan::open(repository, written.object)?;
    apply(context, &stored, live, repository, request.requested_at)
}

/// Merges and verifies every tenant of a stored plan, one after the other.
///
/// # Errors
/// If the run cannot be noted in the repository. Nothing was written to the store then.
pub fn apply(
    context: Context<'_>,
    plan: &StoredPlan,
    live: &dyn LiveStore,
    repository: &dyn Repository,
    merged_at: Timestamp,
) -> Result<Vec<TenantOutcome>, Error> {
    store_job(repository, plan, merged_at)?;
    let tenants = plan
        .plan()
        .description()
        .tenants
        .iter()
        .map(|part| part.tenant.clone());
    Ok(tenants
        .map(|tenant| {
            let result = apply_one(context, plan, &tenant, live, repository, merged_at);
            TenantOutcome { tenant, result }
        })
        .collect())
}

/// Merges and verifies one tenant of a stored plan.
///
/// # Errors
/// See [`merge`] and [`verify`]. An error of the kind `Cancelled` means that nothing was written.
pub fn apply_one(
    context: Context<'_>,
    plan: &StoredPlan,
    tenant: &TenantId,
    live: &dyn LiveStore,
    repository: &dyn Repository,
    merged_at: Timestamp,
) -> Result<Restored, Error> {
    context.check()?;
    let receipt = merge(context, plan, tenant, live)?;
    let verdict = verify(context, plan.plan(), &receipt, live).map_err(|error| {
        Error::because(
            ErrorKind::Unverified,
            format!("the rows of {tenant} are committed, but could not be verified"),
            error,
        )
    })?;
    keep_receipt(repository, plan, &receipt, merged_at)?;
    Ok(Restored { receipt, verdict })
}
