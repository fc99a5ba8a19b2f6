//! Running a campaign: workers take tenants in the order of their priority and lead each all its way.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use reinstate_core::ErrorKind;
use reinstate_format::{BatchPlan, CampaignEntry, EntryKind};

use super::approval::refuse;
use super::journal::Journal;
use super::pacing::keeping_pace;
use super::plan::is_of_the_tenant;
use super::ports::{CampaignWatcher, EstateStore, Operator};
use super::record::StoredCampaign;
use super::state::{
    CampaignStage, CampaignState, TenantProgress, TenantState, campaign_state, is_approved,
};
use super::tenant::{Left, lead};
use crate::job::store_job;
use crate::plan::StoredPlan;
use crate::{Context, Error};

/// How patient a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunLimits {
    /// How often a store that is away or busy is tried again, a second apart, before the run stops.
    pub store_attempts: u32,
}

impl Default for RunLimits {
    /// A minute.
    fn default() -> Self {
        Self { store_attempts: 60 }
    }
}

/// What a run works with.
#[derive(Clone, Copy)]
pub struct CampaignRun<'r> {
    /// Threads, memory, who watches, who may stop it.
    pub context: Context<'r>,
    /// The campaign.
    pub campaign: &'r StoredCampaign,
    /// Its journal.
    pub journal: &'r Journal<'r>,
    /// Its stores, in the order of the plan.
    pub estate: &'r [EstateStore<'r>],
    /// What only an operator knows.
    pub operator: &'r dyn Operator,
    /// Who is told what it does.
    pub watcher: &'r dyn CampaignWatcher,
    /// How patient it is.
    pub limits: RunLimits,
}

impl std::fmt::Debug for CampaignRun<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "CampaignRun({})",
            self.campaign.description().campaign
        )
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct CampaignEnd {
    /// Where the campaign is now.
    pub state: CampaignState,
    /// What stopped it before its end. What was done stays, and the next run goes on.
    pub stopped: Option<Error>,
}

impl CampaignRun<'_> {
    /// Where the campaign is, as far as the journal was read.
    #[must_use]
    pub fn state(&self) -> CampaignState {
        self.journal
            .look(|entries| campaign_state(self.campaign, entries))
    }

    /// An entry of whoever runs this, now.
    pub(super) fn entry(&self, kind: EntryKind) -> CampaignEntry {
        CampaignEntry::new(self.operator.now(), self.operator.actor(), kind)
    }

    /// An entry about a tenant.
    pub(super) fn tenant_entry(&self, kind: EntryKind, tenant: u32) -> CampaignEntry {
        let mut entry = self.entry(kind);
        entry.tenant = Some(tenant);
        entry
    }

    /// What the campaign is called in messages.
    pub(super) fn short(&self) -> String {
        self.campaign.description().campaign.short()
    }

    /// What writes to a store are given: the pace of that store.
    pub(super) fn context_of(&self, store: usize) -> Context<'_> {
        match self.estate[store].pace {
            Some(pace) => self.context.paced(pace),
            None => self.context,
        }
    }

    /// Goes on, or stops because somebody asked.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.context.check()?;
        self.journal.refresh()?;
        let fact = match self.journal.said() {
            Some(EntryKind::Paused) => "paused",
            Some(EntryKind::Aborted) => "aborted",
            _ => return Ok(()),
        };
        let message = format!("campaign {} was {fact} by somebody", self.short());
        Err(Error::new(ErrorKind::Cancelled, message))
    }
}

/// Runs a campaign as far as it can go. Goes on where another run ended, however it did.
///
/// A tenant that cannot be restored is parked and the others go on. What is wrong with a store
/// stops the run, after it was tried for a while.
///
/// # Errors
/// `Altered` if the campaign is not approved or was aborted; `Usage` if the stores are others than
/// those it was planned for. The attempt is in the journal then, and nothing was written.
pub fn run_campaign(run: &CampaignRun<'_>) -> Result<CampaignEnd, Error> {
    run.journal.refresh()?;
    let state = run.state();
    check_may_run(run, &state)?;
    if state.stage == CampaignStage::Finished {
        return Ok(CampaignEnd {
            state,
            stopped: None,
        });
    }
    check_estate(run)?;
    run.journal.append(vec![run.entry(EntryKind::Started)])?;
    let stopped = keeping_pace(run, || run_to_the_end(run)).err();
    let state = run.state();
    let mut entry = run.entry(EntryKind::Stopped);
    match &stopped {
        Some(error) => entry.detail = crate::verify::chain(error),
        None if state.is_at_end() => entry.kind = EntryKind::Finished,
        None => {
            let waiting = state.count(TenantState::Waiting);
            entry.detail = format!("{waiting} tenants wait to be accepted");
        }
    }
    run.journal.append(vec![entry])?;
    Ok(CampaignEnd {
        state: run.state(),
        stopped,
    })
}

/// Runs all batches, and again as long as somebody accepts tenants meanwhile.
fn run_to_the_end(run: &CampaignRun<'_>) -> Result<(), Error> {
    loop {
        let before = run.journal.head();
        run_batches(run)?;
        run.journal.refresh()?;
        let state = run.state();
        let mut tenants = state.tenants.iter();
        let is_left =
            tenants.any(|tenant| !tenant.is_at_end() && tenant.state != TenantState::Waiting);
        if !is_left || run.journal.head() == before {
            return Ok(());
        }
    }
}

fn check_may_run(run: &CampaignRun<'_>, state: &CampaignState) -> Result<(), Error> {
    let short = run.short();
    let fact = match state.stage {
        CampaignStage::Aborted | CampaignStage::Undoing | CampaignStage::Undone => {
            format!("run campaign {short}: it was aborted. Make a new one")
        }
        CampaignStage::Paused => {
            format!(
                "run campaign {short}: it is paused. Go on with `reinstate campaign resume {short}`"
            )
        }
        _ if !is_approved(run.campaign, state) => {
            let needed = run.campaign.description().approvals_needed.max(1);
            format!(
                "run campaign {short}: {} of {needed} approvals are there. Approve it by its digest: \
                 `reinstate campaign approve {short} --confirm-digest {}`",
                state.approved_by.len(),
                run.campaign.digest().short()
            )
        }
        _ => return Ok(()),
    };
    let (actor, now) = (run.operator.actor(), run.operator.now());
    Err(refuse(run.journal, actor, now, ErrorKind::Altered, fact))
}

/// The stores must be those that the campaign was planned for.
pub(super) fn check_estate(run: &CampaignRun<'_>) -> Result<(), Error> {
    let planned = &run.campaign.description().stores;
    let mut wrong = None;
    if planned.len() != run.estate.len() {
        wrong = Some(format!(
            "it was planned for {} stores, not {}",
            planned.len(),
            run.estate.len()
        ));
    }
    for (planned, open) in planned.iter().zip(run.estate) {
        let found = open.live.identity();
        if found.id != planned.store.id {
            wrong = Some(format!(
                "store {} was {}, and is {} now",
                planned.name, planned.store.id, found.id
            ));
        } else if open.repository.id() != planned.repository {
            wrong = Some(format!(
                "the repository of store {} was {}, and is {} now",
                planned.name,
                planned.repository,
                open.repository.id()
            ));
        }
    }
    let Some(fact) = wrong else {
        return Ok(());
    };
    let message = format!("run campaign {}: {fact}", run.short());
    let (actor, now) = (run.operator.actor(), run.operator.now());
    Err(refuse(run.journal, actor, now, ErrorKind::Usage, message))
}

fn run_batches(run: &CampaignRun<'_>) -> Result<(), Error> {
    for store in run.estate {
        let prepared = store.live.prepare();
        prepared.map_err(Error::store("prepare the store"))?;
    }
    let count = run.campaign.description().batches.len();
    for batch in (0..).take(count) {
        run.check()?;
        run_batch(run, batch)?;
    }
    Ok(())
}

fn run_batch(run: &CampaignRun<'_>, batch: u32) -> Result<(), Error> {
    let state = run.state();
    let tenants = run.campaign.batch(batch).map(|(place, _)| place);
    let at = |place: u32| &state.tenants[place as usize];
    let left: Vec<u32> = tenants.filter(|place| !at(*place).is_at_end()).collect();
    if left.is_empty() {
        return Ok(());
    }
    let plans = match open_plans(run, batch) {
        Ok(plans) => plans,
        Err(error) if is_of_the_tenant(error.kind()) => {
            let reason = crate::verify::chain(&error);
            let entries = left.into_iter().map(|place| {
                let mut entry = run.tenant_entry(EntryKind::Parked, place);
                entry.detail.clone_from(&reason);
                entry
            });
            return run.journal.append(entries.collect());
        }
        Err(error) => return Err(error),
    };
    let new = left
        .iter()
        .filter(|place| at(**place).state == TenantState::Planned);
    let extracted = new.map(|place| run.tenant_entry(EntryKind::Extracted, *place));
    run.journal.append(extracted.collect())?;
    let left = left.into_iter().map(|place| (place, at(place).clone()));
    work(run, &plans, left.collect())
}

/// The plans of a batch, every byte of them checked against what was approved.
fn open_plans(run: &CampaignRun<'_>, batch: u32) -> Result<Vec<Option<StoredPlan>>, Error> {
    let description = run.campaign.description();
    let plans = &description.batches[batch as usize].plans;
    let mut open = Vec::with_capacity(plans.len());
    for ((planned, store), name) in plans.iter().zip(run.estate).zip(&description.stores) {
        let Some(planned) = planned else {
            open.push(None);
            continue;
        };
        let plan = open_plan(store, planned).map_err(|error| {
            let kind = match error.kind() {
                ErrorKind::NotFound | ErrorKind::Corrupt => ErrorKind::Altered,
                kind => kind,
            };
            let message = format!(
                "the plan of batch {} in store {} is not the one that was approved",
                batch + 1,
                name.name
            );
            Error::because(kind, message, error)
        })?;
        store_job(store.repository, &plan, run.operator.now())?;
        open.push(Some(plan));
    }
    Ok(open)
}

/// Opens a stored plan, and checks that it is this one.
pub(super) fn open_plan(store: &EstateStore<'_>, planned: &BatchPlan) -> Result<StoredPlan, Error> {
    let stored = StoredPlan::open(store.repository, planned.object)?;
    let plan = stored.plan();
    if plan.digest() != planned.digest || plan.description().job != planned.job {
        let message = format!(
            "its digest is {}, not {}",
            plan.digest().short(),
            planned.digest.short()
        );
        return Err(Error::new(ErrorKind::Altered, message));
    }
    plan.check()?;
    Ok(stored)
}

/// What the workers of a batch share.
pub(super) struct Shared<'b> {
    /// The plans of the batch, by store.
    pub(super) plans: &'b [Option<StoredPlan>],
    /// How many more tenants may be written to each store.
    pub(super) permits: Vec<Permits>,
}

impl Shared<'_> {
    /// Nothing: for what writes to no store.
    pub(super) const fn none() -> Self {
        Self {
            plans: &[],
            permits: Vec::new(),
        }
    }
}

/// Leads the tenants, at most as many at once as the stores take.
fn work(
    run: &CampaignRun<'_>,
    plans: &[Option<StoredPlan>],
    left: Vec<(u32, TenantProgress)>,
) -> Result<(), Error> {
    let stores = &run.campaign.description().stores;
    let permits = stores.iter().map(|store| Permits::new(store.concurrency));
    let shared = Shared {
        plans,
        permits: permits.collect(),
    };
    let at_once: u64 = stores
        .iter()
        .map(|store| u64::from(store.concurrency.max(1)))
        .sum();
    let at_once = usize::try_from(at_once).unwrap_or(usize::MAX);
    in_parallel(at_once, left, |(place, before)| {
        lead_one(run, &shared, place, before)
    })
    .map(drop)
}

/// Does something with each of these, so many at once, in their order. After an error nothing more is
/// begun; what is under way comes to its end.
pub(crate) fn in_parallel<I: Send, O: Send>(
    at_once: usize,
    items: Vec<I>,
    each: impl Fn(I) -> Result<O, Error> + Sync,
) -> Result<Vec<O>, Error> {
    let workers = at_once.min(items.len());
    let queue = Mutex::new(VecDeque::from(items));
    let done = Mutex::new(Vec::new());
    let stopped: Mutex<Option<Error>> = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while lock(&stopped).is_none() {
                    let Some(item) = lock(&queue).pop_front() else {
                        return;
                    };
                    match each(item) {
                        Ok(outcome) => lock(&done).push(outcome),
                        Err(error) => {
                            lock(&stopped).get_or_insert(error);
                        }
                    }
                }
            });
        }
    });
    let stopped = stopped.into_inner().unwrap_or_else(PoisonError::into_inner);
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    stopped.map_or(Ok(done), Err)
}

fn lead_one(
    run: &CampaignRun<'_>,
    shared: &Shared<'_>,
    tenant: u32,
    before: TenantProgress,
) -> Result<(), Error> {
    run.check()?;
    let led = lead(run, shared, tenant, before);
    run.watcher.does(tenant, None);
    match led {
        Ok(()) | Err(Left::Waiting) => Ok(()),
        Err(Left::Parked(reason)) => {
            let mut entry = run.tenant_entry(EntryKind::Parked, tenant);
            entry.detail = reason;
            run.journal.append(vec![entry])
        }
        Err(Left::Stopped(error)) => Err(error),
    }
}

/// How many more may do something at once.
#[derive(Debug)]
pub(super) struct Permits {
    free: Mutex<u32>,
    freed: Condvar,
}

/// A permit that was taken; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Permit<'p>(&'p Permits);

impl Permits {
    fn new(count: u32) -> Self {
        Self {
            free: Mutex::new(count.max(1)),
            freed: Condvar::new(),
        }
    }

    /// Waits for a permit.
    pub(super) fn take(&self) -> Permit<'_> {
        let free = lock(&self.free);
        let mut free = self
            .freed
            .wait_while(free, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.freed.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
