//! Taking a campaign back: every tenant that it touched, store by store, the last phase first.
//!
//! What was committed is what the stores' own journals say. Each attempt plans what is still to be
//! taken back, notes the plan, and merges it like any other.

use std::collections::BTreeSet;

use reinstate_core::{ErrorKind, JobId, Policy, TenantId};
use reinstate_format::{BatchPlan, CampaignEntry, EntryKind};

use super::approval::refuse;
use super::pacing::keeping_pace;
use super::plan::{is_of_the_tenant, job_of};
use super::ports::Deed;
use super::run::{CampaignEnd, CampaignRun, check_estate, in_parallel, open_plan};
use super::state::{CampaignStage, StoreProgress, TenantState, UNDO};
use super::tenant::{Left, again, close_again, merge_once, unproven, violated};
use crate::Error;
use crate::drift::DriftRules;
use crate::job::store_job;
use crate::plan::{OwnerCheck, PlanRequest, StoredPlan, plan_undo};
use crate::verify::chain;

/// Takes back all that an aborted campaign committed, as far as nobody changed the rows since: a
/// tenant of which somebody did is parked with the reason, and keeps what it has.
///
/// Goes on where another attempt ended, and tries those again that are parked. Sites that were handed back are closed first.
///
/// # Errors
/// `Altered` if the campaign was not aborted to be taken back; `Usage` if the stores are others than
/// those it was planned for.
pub fn undo_campaign(run: &CampaignRun<'_>) -> Result<CampaignEnd, Error> {
    run.journal.refresh()?;
    let state = run.state();
    match state.stage {
        // Sites that could not be taken back are tried again.
        CampaignStage::Undone if state.count(TenantState::Parked) == 0 => {
            return Ok(CampaignEnd {
                state,
                stopped: None,
            });
        }
        CampaignStage::Undoing | CampaignStage::Undone => {}
        _ => {
            let message = format!("take campaign {} back: abort it first", run.short());
            let (actor, now) = (run.operator.actor(), run.operator.now());
            return Err(refuse(run.journal, actor, now, ErrorKind::Altered, message));
        }
    }
    check_estate(run)?;
    run.journal.append(vec![run.entry(EntryKind::Started)])?;
    let stopped = keeping_pace(run, || take_back(run)).err();
    let mut entry = run.entry(EntryKind::Stopped);
    match &stopped {
        Some(error) => entry.detail = chain(error),
        None => {
            entry.kind = EntryKind::Finished;
            UNDO.clone_into(&mut entry.detail);
        }
    }
    run.journal.append(vec![entry])?;
    Ok(CampaignEnd {
        state: run.state(),
        stopped,
    })
}

fn take_back(run: &CampaignRun<'_>) -> Result<(), Error> {
    for store in run.estate {
        let prepared = store.live.prepare();
        prepared.map_err(Error::store("prepare the store"))?;
    }
    let description = run.campaign.description();
    let mut parked = BTreeSet::new();
    for store in (0..description.stores.len()).rev() {
        for batch in (0..).take(description.batches.len()) {
            run.context.check()?;
            take_batch_back(run, store, batch, &mut parked)?;
        }
    }
    let whole = (0..).take(description.tenants.len());
    let state = run.state();
    let left = whole.filter(|place| {
        let is_undone = state.tenants[*place as usize].state == TenantState::Undone;
        !is_undone && !parked.contains(place)
    });
    let entries = left.map(|place| run.tenant_entry(EntryKind::Undone, place));
    run.journal.append(entries.collect())
}

/// Takes the tenants of a batch back in one store.
fn take_batch_back(
    run: &CampaignRun<'_>,
    store: usize,
    batch: u32,
    parked: &mut BTreeSet<u32>,
) -> Result<(), Error> {
    let description = run.campaign.description();
    let Some(planned) = &description.batches[batch as usize].plans[store] else {
        return Ok(());
    };
    let at_once = description.stores[store].concurrency.max(1);
    let at_once = usize::try_from(at_once).unwrap_or(usize::MAX);
    let (touched, committed) = touched(run, store, batch, planned.job, parked)?;
    // The attempt that committed these was stopped before it noted that: they are read back.
    for (attempt, tenants) in committed {
        match open_plan(&run.estate[store], &attempt) {
            Ok(undo) => take_all_back(run, (store, at_once), &undo, tenants, parked)?,
            Err(error) => park_all(run, store, tenants, error, parked)?,
        }
    }
    if touched.is_empty() {
        return Ok(());
    }
    let merged = match open_plan(&run.estate[store], planned) {
        Ok(merged) => merged,
        Err(error) => return park_all(run, store, touched, error, parked),
    };
    let state = run.state();
    let closed = in_parallel(at_once, touched, |(place, id)| {
        let before = state.tenants[place as usize].clone();
        let closed = close_again(run, place, before);
        run.watcher.does(place, None);
        match closed {
            Ok(()) => Ok(Ok((place, id))),
            Err(Left::Stopped(error)) => Err(error),
            Err(Left::Parked(reason)) => Ok(Err((place, reason))),
            Err(Left::Waiting) => Ok(Err((place, "it waits".to_owned()))),
        }
    })?;
    let (ready, failed): (Vec<_>, Vec<_>) = closed.into_iter().partition(Result::is_ok);
    for (place, reason) in failed.into_iter().filter_map(Result::err) {
        park(run, place, reason, parked)?;
    }
    let ready: Vec<(u32, TenantId)> = ready.into_iter().flatten().collect();
    if ready.is_empty() {
        return Ok(());
    }
    plan_and_take_back(run, (store, at_once), (batch, &merged), ready, parked)
}

/// Plans what takes tenants back, together or, if that cannot be done for one of them, one by one; and
/// takes them back.
fn plan_and_take_back(
    run: &CampaignRun<'_>,
    (store, at_once): (usize, usize),
    (batch, merged): (u32, &StoredPlan),
    tenants: Tenants,
    parked: &mut BTreeSet<u32>,
) -> Result<(), Error> {
    match plan_back(run, store, batch, merged, &tenants) {
        Ok(undo) => take_all_back(run, (store, at_once), &undo, tenants, parked),
        Err(error) if tenants.len() > 1 && is_of_the_tenant(error.kind()) => {
            tenants.into_iter().try_for_each(|tenant| {
                let tenant = vec![tenant];
                plan_and_take_back(run, (store, at_once), (batch, merged), tenant, parked)
            })
        }
        Err(error) => park_all(run, store, tenants, error, parked),
    }
}

/// Takes tenants back by a plan, or finds out whether they are, where that was committed.
fn take_all_back(
    run: &CampaignRun<'_>,
    (store, at_once): (usize, usize),
    undo: &StoredPlan,
    tenants: Tenants,
    parked: &mut BTreeSet<u32>,
) -> Result<(), Error> {
    let outcomes = in_parallel(at_once, tenants, |(place, id)| {
        let outcome = take_tenant_back(run, store, undo, (place, &id));
        match outcome {
            Ok(()) => Ok(None),
            Err(Left::Stopped(error)) => Err(error),
            Err(Left::Parked(reason)) => Ok(Some((place, reason))),
            Err(Left::Waiting) => Ok(None),
        }
    })?;
    for (place, reason) in outcomes.into_iter().flatten() {
        park(run, place, in_store(run, store, &reason), parked)?;
    }
    Ok(())
}

/// Parks tenants that cannot be taken back, and keeps no others from it; unless the store itself is what
/// is wrong.
fn park_all(
    run: &CampaignRun<'_>,
    store: usize,
    tenants: Tenants,
    error: Error,
    parked: &mut BTreeSet<u32>,
) -> Result<(), Error> {
    if !is_of_the_tenant(error.kind()) {
        return Err(error);
    }
    let reason = in_store(run, store, &chain(&error));
    tenants
        .into_iter()
        .try_for_each(|(place, _)| park(run, place, reason.clone(), parked))
}

fn in_store(run: &CampaignRun<'_>, store: usize, reason: &str) -> String {
    let name = &run.campaign.description().stores[store].name;
    format!("taking it back in store {name}: {reason}")
}

fn park(
    run: &CampaignRun<'_>,
    place: u32,
    reason: String,
    parked: &mut BTreeSet<u32>,
) -> Result<(), Error> {
    parked.insert(place);
    let mut entry = run.tenant_entry(EntryKind::Parked, place);
    entry.detail = reason;
    run.journal.append(vec![entry])
}

/// Tenants with their places.
type Tenants = Vec<(u32, TenantId)>;

/// The tenants of a batch whose merge the store's journal knows, and no undo of it; and those of which it
/// knows one that was not noted, by the plan of that.
fn touched(
    run: &CampaignRun<'_>,
    store: usize,
    batch: u32,
    job: JobId,
    parked: &BTreeSet<u32>,
) -> Result<(Tenants, Vec<(BatchPlan, Tenants)>), Error> {
    let live = run.estate[store].live;
    let state = run.state();
    let place_of_store = u32::try_from(store).expect("BUG: more stores than numbers");
    let attempts = state.undo_plans.iter();
    let attempts = attempts.filter(|(of, at, _)| (*of, *at) == (batch, place_of_store));
    let undone_by: Vec<BatchPlan> = attempts.map(|(_, _, plan)| *plan).collect();
    let knows = |job, id: &TenantId| {
        let entry = live.journal_entry(job, id);
        entry.map_err(Error::store("read the store's journal"))
    };
    let mut touched = Vec::new();
    let mut committed: Vec<(BatchPlan, Tenants)> =
        undone_by.iter().map(|plan| (*plan, Vec::new())).collect();
    for (place, tenant) in run.campaign.batch(batch) {
        let Some(part) = &tenant.parts[store] else {
            continue;
        };
        let is_undone = state.tenants[place as usize].stores[store] == StoreProgress::Undone;
        if is_undone || parked.contains(&place) || knows(job, &part.tenant)?.is_none() {
            continue;
        }
        let mut known = None;
        for (number, attempt) in undone_by.iter().enumerate() {
            if knows(attempt.job, &part.tenant)?.is_some() {
                known = Some(number);
            }
        }
        let tenants = known.map_or(&mut touched, |number| &mut committed[number].1);
        tenants.push((place, part.tenant.clone()));
    }
    committed.retain(|(_, tenants)| !tenants.is_empty());
    Ok((touched, committed))
}

/// Plans what takes these tenants back, and notes the plan before anything is merged.
fn plan_back(
    run: &CampaignRun<'_>,
    store: usize,
    batch: u32,
    merged: &StoredPlan,
    tenants: &[(u32, TenantId)],
) -> Result<StoredPlan, Error> {
    let open = &run.estate[store];
    let place = u32::try_from(store).expect("BUG: more stores than numbers");
    let state = run.state();
    let before = state.undo_plans.iter();
    let before = before
        .filter(|(of, at, _)| (*of, *at) == (batch, place))
        .count();
    let attempt = u32::try_from(before + 1).expect("BUG: more attempts than numbers");
    let request = PlanRequest {
        job: job_of(run.campaign.description().campaign, batch, store, attempt),
        repository: open.repository.id(),
        policy: Policy::EXACT,
        drift: DriftRules::default(),
        check_owners: OwnerCheck::Off,
        planned_at: run.operator.now(),
    };
    let output = open
        .repository
        .create_object()
        .map_err(Error::repository("keep the plan"))?;
    let ids: Vec<TenantId> = tenants.iter().map(|(_, id)| id.clone()).collect();
    let written = plan_undo(run.context, merged, &ids, open.live, &request, output)?;
    let mut entry = run.entry(EntryKind::UndoPlanned);
    entry.batch = Some(batch);
    entry.store = Some(place);
    entry.plan = Some(BatchPlan {
        job: request.job,
        object: written.object,
        digest: written.digest,
    });
    run.journal.append(vec![entry])?;
    let undo = StoredPlan::open(open.repository, written.object)?;
    store_job(open.repository, &undo, run.operator.now())?;
    Ok(undo)
}

fn take_tenant_back(
    run: &CampaignRun<'_>,
    store: usize,
    undo: &StoredPlan,
    (place, id): (u32, &TenantId),
) -> Result<(), Left> {
    let number = u32::try_from(store).expect("BUG: more stores than numbers");
    let restored = again(run, place, || {
        run.watcher
            .does(place, Some(Deed::TakingBack { store: number }));
        merge_once(run, undo, id, store)
    });
    run.watcher.does(place, None);
    let restored = restored?;
    if let Some(violated) = violated(run, place, store, &restored.verdict) {
        run.journal.append(vec![violated]).map_err(Left::Stopped)?;
    }
    if let Some(found) = unproven(&restored.verdict) {
        return Err(Left::Parked(found));
    }
    let rows = restored.receipt.changed_rows();
    note_undone(run, store, place, rows).map_err(Left::Stopped)
}

fn note_undone(run: &CampaignRun<'_>, store: usize, place: u32, rows: u64) -> Result<(), Error> {
    let mut entry: CampaignEntry = run.tenant_entry(EntryKind::Undone, place);
    entry.store = Some(u32::try_from(store).expect("BUG: more stores than numbers"));
    entry.rows = rows;
    run.journal.append(vec![entry])
}
