//! Restore: the four steps in a row, for as many tenants as are asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use reinstate_core::{
    ErrorKind, JobId, LiveStore, Policy, Repository, SnapshotDescription, Tenant, TenantFence,
    TenantId, Timestamp,
};
use reinstate_format::{NoteKind, PlanDescription, TenantPlanDescription};

use crate::batch::extract_all;
use crate::campaign::in_parallel;
use crate::drift::DriftRules;
use crate::job::{merge_receipt_of, store_job};
use crate::merge::{MergeReceipt, again_if_contended, keep_receipt, merge_behind};
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

/// The fences of tenants, which fall when this is dropped. A tenant that is not here has none.
#[derive(Default)]
pub struct Fences<'l>(BTreeMap<TenantId, Box<dyn TenantFence + 'l>>);

impl<'l> Fences<'l> {
    /// Puts up the fence of each of these tenants, so that nobody writes to them until their restore is
    /// verified. Before the plan is made, for a plan that nobody makes stale.
    ///
    /// Their users wait, or are refused, from now on: of many tenants, until the last one's turn came.
    /// On PostgreSQL each fence has a connection of its own.
    ///
    /// # Errors
    /// `Refused` if the store has no fence, or none was put up there; `Locked` if another run holds one of
    /// the tenants; `Contended` if users have a transaction open that wrote to one and does not end, after
    /// several attempts. No fence is left up then.
    pub fn raise(
        context: Context<'_>,
        live: &'l dyn LiveStore,
        tenants: &[TenantId],
    ) -> Result<Self, Error> {
        let mut fences = BTreeMap::new();
        // In order, so that two runs do not wait for each other.
        for tenant in tenants.iter().collect::<BTreeSet<_>>() {
            let raised = again_if_contended(context, || {
                live.fence(tenant)
                    .map_err(Error::store(format!("fence {tenant}")))
            })?;
            let Some(fence) = raised else {
                let message = format!("fence {tenant}: the store has no fence that was put up");
                return Err(Error::new(ErrorKind::Refused, message));
            };
            fences.insert(tenant.clone(), fence);
        }
        Ok(Self(fences))
    }
}

impl fmt::Debug for Fences<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

/// Merges and verifies every tenant of a stored plan: as many at once as the store takes and there are
/// threads. Where that is one, or the tenants have an order, one is merged while the one before it is
/// verified.
///
/// Rows of a tenant may refer to rows of another, as they did in the snapshot, which breaks a rule of the
/// store until those are there. Whoever is in conflict, so that nothing of it was written, is tried again,
/// in the order of the plan, as long as others were restored meanwhile. So is, once, whoever waited in vain
/// for something while another tenant of the run was merged beside it.
///
/// Where the store has a [fence](LiveStore::fence), each tenant is behind it from before its merge until it
/// is verified.
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
    let fences = Fences::default();
    apply_behind(context, plan, live, repository, merged_at, fences)
}

/// The same, with fences that are up already; each falls when its tenant is verified.
///
/// # Errors
/// As [`apply`].
pub fn apply_behind<'l>(
    context: Context<'_>,
    plan: &StoredPlan,
    live: &'l dyn LiveStore,
    repository: &dyn Repository,
    merged_at: Timestamp,
    fences: Fences<'l>,
) -> Result<Vec<TenantOutcome>, Error> {
    store_job(repository, plan, merged_at)?;
    let description = plan.plan().description();
    let parts = &description.tenants;
    let at_once = live
        .merges_at_once()
        .min(context.resources.threads())
        .min(parts.len());
    let is_tried_again = |kind| matches!(kind, ErrorKind::Conflict | ErrorKind::Contended);
    let fences = Mutex::new(fences);
    let fences = || fences.lock().unwrap_or_else(PoisonError::into_inner);
    let prove = |receipt| prove(context, plan, receipt, live, repository, merged_at);
    let merge = |tenant: &TenantId| {
        context.check()?;
        let mut fence = fences().0.remove(tenant);
        let merged = merge_behind(context, plan, tenant, live, &mut fence);
        match (merged, fence) {
            (Ok(receipt), fence) => Ok((receipt, fence)),
            // One that was up before stays up.
            (Err(error), Some(fence)) if is_tried_again(error.kind()) => {
                fences().0.insert(tenant.clone(), fence);
                Err(error)
            }
            (Err(error), _) => Err(error),
        }
    };
    let prove = |(receipt, fence): (MergeReceipt, Option<Box<dyn TenantFence + 'l>>)| {
        let result = prove(receipt);
        drop(fence);
        result
    };
    let one = |tenant: &TenantId| merge(tenant).and_then(prove);
    let are_together = at_once > 1 && !has_order(description);
    let mut results = if are_together {
        let numbered: Vec<_> = parts.iter().enumerate().collect();
        in_parallel(at_once, numbered, |(number, part)| {
            Ok((number, one(&part.tenant)))
        })?
    } else {
        one_after_the_other(parts, merge, prove)
    };
    results.sort_by_key(|(number, _)| *number);
    let mut is_again = are_together;
    let mut is_restored = results.iter().any(|(_, result)| result.is_ok());
    while std::mem::take(&mut is_restored) {
        for (part, (_, result)) in parts.iter().zip(&mut results) {
            let Err(error) = result else { continue };
            let is_again = is_again && error.kind() == ErrorKind::Contended;
            if is_again || error.kind() == ErrorKind::Conflict {
                *result = one(&part.tenant);
                is_restored |= result.is_ok();
            }
        }
        is_again = false;
    }
    let outcomes = parts.iter().zip(results);
    let outcomes = outcomes.map(|(part, (_, result))| TenantOutcome {
        tenant: part.tenant.clone(),
        result,
    });
    Ok(outcomes.collect())
}

/// Whether a tenant may have to wait until another one is done.
fn has_order(description: &PlanDescription) -> bool {
    let mut notes = description.tenants.iter().flat_map(|part| &part.notes);
    // What is undone last may refer to what is undone first.
    description.undoes.is_some() || notes.any(|note| note.kind == NoteKind::ComesAfter)
}

/// Merges the tenants, and proves each while the next is merged. The results come with their places.
fn one_after_the_other<M: Send>(
    parts: &[TenantPlanDescription],
    merge: impl Fn(&TenantId) -> Result<M, Error>,
    prove: impl Fn(M) -> Result<Restored, Error> + Send,
) -> Vec<(usize, Result<Restored, Error>)> {
    // Nothing waits in between: a merge begins when all but the one before it are proven.
    let (hand_over, merged) = sync_channel(0);
    thread::scope(|scope| {
        let prover = scope.spawn(move || {
            let proven = merged
                .iter()
                .map(|(number, merged)| (number, prove(merged)));
            proven.collect::<Vec<(usize, Result<Restored, Error>)>>()
        });
        let mut results = Vec::with_capacity(parts.len());
        for (number, part) in parts.iter().enumerate() {
            match merge(&part.tenant) {
                Ok(merged) => {
                    if hand_over.send((number, merged)).is_err() {
                        // The prover panicked, which goes on below.
                        break;
                    }
                }
                Err(error) => results.push((number, Err(error))),
            }
        }
        drop(hand_over);
        match prover.join() {
            Ok(proven) => results.extend(proven),
            Err(panic) => std::panic::resume_unwind(panic),
        }
        results
    })
}

/// Merges and verifies one tenant of a stored plan, behind a fence where the store has one.
///
/// # Errors
/// See [`merge`](crate::merge()) and [`verify`]; `Unverified` if the rows are committed and not proven, or their
/// receipt is not kept: [`apply_once`] finds the commit. An error of the kind `Cancelled` means that nothing was
/// written.
pub fn apply_one(
    context: Context<'_>,
    plan: &StoredPlan,
    tenant: &TenantId,
    live: &dyn LiveStore,
    repository: &dyn Repository,
    merged_at: Timestamp,
) -> Result<Restored, Error> {
    context.check()?;
    let mut fence = None;
    let receipt = merge_behind(context, plan, tenant, live, &mut fence)?;
    let result = prove(context, plan, receipt, live, repository, merged_at);
    drop(fence);
    result
}

/// Merges and verifies one tenant of a stored plan; or, if the store's journal knows that merge, verifies
/// what it left. So whoever does not know what became of it may do it again.
///
/// # Errors
/// As [`apply_one`]; `Altered` if the journal knows another plan under the same job.
pub fn apply_once(
    context: Context<'_>,
    plan: &StoredPlan,
    tenant: &TenantId,
    live: &dyn LiveStore,
    repository: &dyn Repository,
    merged_at: Timestamp,
) -> Result<Restored, Error> {
    let entry = live
        .journal_entry(plan.plan().description().job, tenant)
        .map_err(Error::store("read the store's journal"))?;
    let Some(entry) = entry else {
        return apply_one(context, plan, tenant, live, repository, merged_at);
    };
    if entry.plan != plan.plan().digest() {
        let message = "the store's journal knows another plan under the same job";
        return Err(Error::new(ErrorKind::Altered, message));
    }
    let receipt = merge_receipt_of(plan, live, repository, &entry)?;
    prove(context, plan, receipt, live, repository, merged_at)
}

/// Keeps the receipt of a merge and verifies what it left.
fn prove(
    context: Context<'_>,
    plan: &StoredPlan,
    receipt: MergeReceipt,
    live: &dyn LiveStore,
    repository: &dyn Repository,
    merged_at: Timestamp,
) -> Result<Restored, Error> {
    // First, so that a process that dies while it verifies leaves what verifies it again.
    let kept = keep_receipt(repository, plan, &receipt, merged_at).map_err(|error| {
        let message = format!(
            "the rows of {} are committed, but its receipt could not be kept",
            receipt.tenant
        );
        Error::because(ErrorKind::Unverified, message, error)
    });
    let verdict = verify(context, plan.plan(), &receipt, live).map_err(|error| {
        let tenant = &receipt.tenant;
        Error::because(
            ErrorKind::Unverified,
            format!("the rows of {tenant} are committed, but could not be verified"),
            error,
        )
    })?;
    kept?;
    Ok(Restored { receipt, verdict })
}
