//! Running a plan: approval, merge, verification.
//!
//! `apply`, `restore` and `undo` differ in where the plan comes from; from there on they are this.

use std::path::Path;
use std::time::Instant;

use reinstate::{
    Context, Fences, IsolationReport, Pace, PlanDescription, StoreDigests, StoredPlan,
    TenantOutcome, apply_behind, apply_once, is_blocked, store_digests, store_plan,
};
use reinstate_core::{ErrorKind, LiveStore, Phase, TenantId};
use reinstate_repository::LocalRepository;

use super::report::{Report, report};
use crate::adapters;
use crate::arguments::{Approval, Pacing};
use crate::confirm::approve;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::pacing::{SteadyClock, show_pace};
use crate::progress::Progress;
use crate::render::{counted, notes, totals};
use crate::session::{Session, now};

/// How a plan is run.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// What it works with.
    pub session: &'a Session<'a>,
    /// Where the plan is kept and the job is noted.
    pub repository: &'a LocalRepository,
    /// What counts as approval.
    pub approval: &'a Approval,
    /// Whether every other tenant is compared before and after.
    pub prove_isolation: bool,
    /// How fast the store may be written to.
    pub pacing: &'a Pacing,
    /// The phases of the whole command, for the progress.
    pub phases: &'a [Phase],
    /// What success is called.
    pub done: &'static str,
    /// How to go on if nobody can be asked.
    pub approve_next: &'a str,
    /// How to go on after an interruption.
    pub resume: &'a str,
}

impl Run<'_> {
    /// Runs the plan in this file.
    ///
    /// # Errors
    /// Whatever kept it from being started; nothing was written to the store then. Or how it came
    /// out, if any tenant is not proven to be what was asked for.
    pub fn run(&self, file: &Path, live: &dyn LiveStore) -> anyhow::Result<Exit> {
        self.run_behind(Fences::default(), file, live)
    }

    /// The same, with fences that are up already.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_behind<'l>(
        &self,
        fences: Fences<'l>,
        file: &Path,
        live: &'l dyn LiveStore,
    ) -> anyhow::Result<Exit> {
        // Every row of it is checked when it is stored, before a row of the store is written.
        let (reader, plan) = adapters::open_plan_unread(file)?;
        let description = plan.description();
        check_obstacles(description)?;
        check_conflicts(description)?;
        let cancellation = self.session.interruption.cancellation();
        let next = self.approve_next;
        approve(
            self.approval,
            description,
            plan.digest(),
            next,
            cancellation,
        )?;
        let _lock = adapters::lock(self.repository)?;
        live.prepare()?;
        let stored = store_plan(self.repository, &reader)?;
        let progress = Progress::new(self.phases, description.tenants.len());
        let context = self.session.context(&progress);
        let started = Instant::now();
        let before = self.digests(context, live)?;
        let (clock, probe) = (SteadyClock::start(), || live.probe());
        let limits = self.pacing.limits();
        let pace = limits.map(|limits| Pace::new(&clock, &probe, limits));
        let paced = pace.as_ref().map_or(context, |pace| context.paced(pace));
        let outcomes = outcomes(paced, &stored, live, self.repository, fences)?;
        let isolation = before.map(|before| isolation(context, live, &before, description));
        progress.clear();
        if let Some(pace) = &pace {
            show_pace(self.session.console, None, &pace.report());
        }
        report(&Report {
            console: self.session.console,
            plan: description,
            outcomes: &outcomes,
            isolation: isolation.as_ref(),
            done: self.done,
            resume: self.resume,
            signal: self.session.interruption.exit(),
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    fn digests(
        &self,
        context: Context<'_>,
        live: &dyn LiveStore,
    ) -> anyhow::Result<Option<StoreDigests>> {
        if !self.prove_isolation {
            return Ok(None);
        }
        Ok(Some(store_digests(context, live)?))
    }
}

/// Refuses a plan with obstacles: as a whole, so that what was reviewed is what runs.
fn check_obstacles(plan: &PlanDescription) -> Result<(), Failure> {
    let obstacles: Vec<_> = notes(plan)
        .filter(|(_, note)| note.kind.is_obstacle())
        .map(|(_, note)| format!("{} {}", note.object, note.detail))
        .collect();
    if obstacles.is_empty() {
        return Ok(());
    }
    let message = format!("{}. Nothing was written", obstacles.join("; "));
    Err(Failure::new(ErrorKind::Refused, message))
}

/// Refuses a plan with conflicts that its policy does not settle: as a whole, so that what was
/// reviewed is what runs.
fn check_conflicts(plan: &PlanDescription) -> Result<(), Failure> {
    let blocked = plan
        .tenants
        .iter()
        .filter(|part| is_blocked(plan.policy, part))
        .count();
    if blocked == 0 {
        return Ok(());
    }
    let message = format!(
        "the plan has {}, in {blocked} of {} tenants, and its policy is to fail on \
         them. Nothing was written",
        counted(totals(plan).conflict, "conflict", "conflicts"),
        plan.tenants.len()
    );
    Err(Failure::new(ErrorKind::Conflict, message))
}

/// What every other tenant holds now, against before.
fn isolation(
    context: Context<'_>,
    live: &dyn LiveStore,
    before: &StoreDigests,
    plan: &PlanDescription,
) -> Result<IsolationReport, reinstate::Error> {
    let restored: Vec<TenantId> = plan
        .tenants
        .iter()
        .map(|part| part.tenant.clone())
        .collect();
    let after = store_digests(context, live)?;
    Ok(after.compare(before, &restored))
}

/// Applies the plan. If it was applied to some of its tenants before, because a run was
/// interrupted, those are verified and the others applied.
fn outcomes<'l>(
    context: Context<'_>,
    plan: &StoredPlan,
    live: &'l dyn LiveStore,
    repository: &LocalRepository,
    fences: Fences<'l>,
) -> anyhow::Result<Vec<TenantOutcome>> {
    let description = plan.plan().description();
    let mut is_known = Vec::with_capacity(description.tenants.len());
    for part in &description.tenants {
        let entry = live.journal_entry(description.job, &part.tenant)?;
        is_known.push(entry.is_some());
    }
    if !is_known.contains(&true) {
        let outcomes = apply_behind(context, plan, live, repository, now(), fences)?;
        return Ok(outcomes);
    }
    // Each of the others gets its own, when its turn comes.
    drop(fences);
    // The job is noted in the repository: its first merge would not have been made otherwise.
    let was_complete = !is_known.contains(&false);
    let mut outcomes = Vec::with_capacity(is_known.len());
    for part in &description.tenants {
        let tenant = part.tenant.clone();
        let result = apply_once(context, plan, &tenant, live, repository, now());
        outcomes.push(TenantOutcome { tenant, result });
    }
    if was_complete && outcomes.iter().any(differs) {
        let message = "the plan was applied before, and its tenants were written to since. \
                       Nothing was written now";
        return Err(Failure::new(ErrorKind::Stale, message).into());
    }
    Ok(outcomes)
}

/// Whether a tenant is not what its merge left.
fn differs(outcome: &TenantOutcome) -> bool {
    let result = outcome.result.as_ref();
    result.is_ok_and(|restored| !restored.verdict.is_restored())
}
