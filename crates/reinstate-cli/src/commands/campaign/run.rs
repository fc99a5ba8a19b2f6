//! `campaign run`, `resume` and `abort`.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use reinstate::{
    CampaignEnd, CampaignEntry, CampaignRun, CampaignStage, CampaignState, EntryKind, EstateStore,
    Journal, Pace, PaceLimits, RunLimits, StoredCampaign, TenantState, campaign_journal,
    campaign_state, check_alone, refuse, run_campaign, undo_campaign,
};
use reinstate_core::{ErrorKind, Silent};
use reinstate_repository::RepositoryLock;

use super::approve::given_digest;
use super::estate::{Estate, in_order, lock_all};
use super::live::follow_run;
use super::operator::EstateOperator;
use super::pace;
use super::signs::{Board, Meter};
use super::status::{show, summary};
use crate::arguments::{self, PaceChange};
use crate::exit::{Exit, kind_name};
use crate::failure::{Failure, one_line};
use crate::pacing::{SteadyClock, show_pace};
use crate::render::counted;
use crate::session::now;

/// How a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// As it was left.
    Run,
    /// Going on although it was paused.
    Resume {
        /// Whether parked sites get another try.
        retry_parked: bool,
    },
}

/// `campaign run C`, `campaign resume C`.
pub fn run(
    estate: &Estate<'_>,
    campaign: &StoredCampaign,
    arguments: &arguments::CampaignRun,
    begin: Begin,
) -> anyhow::Result<Exit> {
    let journal = campaign_journal(&estate.repository, campaign)?;
    let _lock = noted(estate, &journal, estate.lock())?;
    if let Begin::Resume { retry_parked } = begin {
        let state = journal.look(|entries| campaign_state(campaign, entries));
        let mut entries = Vec::new();
        let retried = match retry_parked {
            true => retries(estate, campaign, &state),
            false => Vec::new(),
        };
        let places: Vec<u32> = retried.iter().filter_map(|entry| entry.tenant).collect();
        check_no_other(estate, campaign, &journal, &places)?;
        if state.stage == CampaignStage::Paused {
            entries.push(CampaignEntry::new(
                now(),
                estate.actor.clone(),
                EntryKind::Resumed,
            ));
        }
        entries.extend(retried);
        journal.append(entries)?;
    }
    pace::change(estate, campaign, &journal, arguments.pace, &[])?;
    let patience = arguments.patience;
    let end = with_stores(estate, campaign, &journal, patience, run_campaign)?;
    finish(estate, campaign, &end)
}

/// Opens the stores of a campaign, and has something done with them.
fn with_stores(
    estate: &Estate<'_>,
    campaign: &StoredCampaign,
    journal: &Journal<'_>,
    patience: u32,
    what: impl FnOnce(&CampaignRun<'_>) -> Result<CampaignEnd, reinstate::Error>,
) -> anyhow::Result<CampaignEnd> {
    let stores = noted(estate, journal, estate.stores())?;
    let _locks = noted(estate, journal, lock_all(stores))?;
    let open = noted(estate, journal, in_order(campaign.description(), stores))?;
    let clock = SteadyClock::start();
    let probes = open.iter().map(|&store| move || store.live.probe());
    let probes: Vec<_> = probes.collect();
    let paces = probes.iter().zip(&open);
    let paces: Vec<_> = paces
        .map(|(probe, store)| Pace::new(&clock, probe, store.of.pace))
        .collect();
    let engine_stores = open.iter().zip(&paces).map(|(store, pace)| EstateStore {
        live: store.live.as_ref(),
        repository: &store.repository,
        pace: Some(pace),
    });
    let engine_stores: Vec<EstateStore<'_>> = engine_stores.collect();
    let operator = EstateOperator {
        actor: &estate.actor,
        stores: open.clone(),
        cancellation: estate.interruption.cancellation(),
    };
    let board = Board::of(campaign);
    let run = CampaignRun {
        context: estate
            .engine
            .context(&Silent, estate.interruption.cancellation()),
        campaign,
        journal,
        estate: &engine_stores,
        operator: &operator,
        watcher: &board,
        limits: RunLimits {
            store_attempts: patience,
        },
    };
    let mut meter = Meter::start(&estate.actor, &board, &paces);
    let end = thread::scope(|scope| {
        // Dropped when the run ends, however it does.
        let (_running, ended) = channel();
        scope.spawn(move || follow_run(estate, campaign, journal, &mut meter, &ended));
        what(&run)
    });
    for (store, pace) in open.iter().zip(&paces) {
        let report = pace.report();
        if pace.limits() != PaceLimits::default() || report.probes > 0 || !report.waited.is_zero() {
            show_pace(estate.console, Some(&store.of.name), &report);
        }
    }
    end.map_err(|error| refusal(campaign, error))
}

/// Writes down why a run could not begin, and hands that on.
fn noted<T>(
    estate: &Estate<'_>,
    journal: &Journal<'_>,
    result: Result<T, impl Into<anyhow::Error>>,
) -> anyhow::Result<T> {
    let error = match result {
        Ok(value) => return Ok(value),
        Err(error) => error.into(),
    };
    let mut entry = CampaignEntry::new(now(), estate.actor.clone(), EntryKind::Refused);
    entry.detail = one_line(error.as_ref());
    match journal.append(vec![entry]) {
        Ok(()) => Err(error),
        Err(lost) => Err(error.context(format!("write down what was refused: {lost}"))),
    }
}

/// Says what to do about a campaign that may not run: the advice for a single plan does not fit.
fn refusal(campaign: &StoredCampaign, error: reinstate::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::Altered => {
            let short = campaign.description().campaign.short();
            Failure::new(error.kind(), one_line(&error))
                .next(format!(
                    "see how it stands: reinstate campaign status {short}"
                ))
                .into()
        }
        _ => error.into(),
    }
}

/// Refuses to go on with sites that another campaign has by now.
fn check_no_other(
    estate: &Estate<'_>,
    campaign: &StoredCampaign,
    journal: &Journal<'_>,
    places: &[u32],
) -> anyhow::Result<()> {
    let checked = check_alone(&estate.repository, campaign, places);
    Ok(checked.map_err(|error| match error.kind() {
        kind @ ErrorKind::Locked => refuse(journal, &estate.actor, now(), kind, error.to_string()),
        _ => error,
    })?)
}

/// Another try for sites that were parked in a run, and not when the campaign was planned.
fn retries(
    estate: &Estate<'_>,
    campaign: &StoredCampaign,
    state: &CampaignState,
) -> Vec<CampaignEntry> {
    if matches!(
        state.stage,
        CampaignStage::Aborted | CampaignStage::Undoing | CampaignStage::Undone
    ) {
        return Vec::new();
    }
    let tenants = (0..)
        .zip(&campaign.description().tenants)
        .zip(&state.tenants);
    let parked = tenants.filter(|((_, tenant), progress)| {
        progress.state == TenantState::Parked && tenant.parked.is_none()
    });
    parked
        .map(|((place, _), _)| {
            let mut entry = CampaignEntry::new(now(), estate.actor.clone(), EntryKind::Retried);
            entry.tenant = Some(place);
            entry
        })
        .collect()
}

/// Says how a run ended.
fn finish(
    estate: &Estate<'_>,
    campaign: &StoredCampaign,
    end: &CampaignEnd,
) -> anyhow::Result<Exit> {
    let state = &end.state;
    let short = campaign.description().campaign.short();
    let all = state.tenants.len() as u64;
    let done = state.count(TenantState::HandedBack) as u64;
    let parked = state.count(TenantState::Parked) as u64;
    match done == all {
        true => summary(estate, campaign, state),
        false => show(estate, campaign, state, None),
    }
    if let Some(error) = &end.stopped {
        let all = counted(all, "site", "sites");
        let how_far = format!("the campaign stopped with {done} of {all} handed back");
        let next = format!("reinstate campaign resume {short}");
        return Err(stopped(&how_far, error).next(next).into());
    }
    let waiting = state.count(TenantState::Waiting) as u64;
    if waiting > 0 {
        let message = format!(
            "{done} of {} handed back, {parked} parked, and {waiting} wait to be accepted",
            counted(all, "site", "sites")
        );
        let exit = unless_violated(state, Exit::Interrupted);
        return Err(Failure::ending(exit, "waiting", message)
            .next(format!(
                "reinstate campaign accept {short} SITE, then reinstate campaign resume {short}"
            ))
            .into());
    }
    if done + parked < all {
        let message = format!(
            "{done} of {} handed back, {parked} parked, and the others are not done",
            counted(all, "site", "sites")
        );
        let exit = unless_violated(state, Exit::Interrupted);
        return Err(Failure::ending(exit, "unfinished", message)
            .next(format!("reinstate campaign resume {short}"))
            .into());
    }
    if parked > 0 {
        let exit = unless_violated(state, Exit::Partial);
        let message = format!(
            "{done} of {} handed back, {parked} parked",
            counted(all, "site", "sites")
        );
        return Err(Failure::ending(exit, "partial", message)
            .next(format!(
                "see why: reinstate campaign status {short}; try again: reinstate campaign resume \
                 {short} --retry-parked"
            ))
            .into());
    }
    Ok(Exit::Done)
}

/// That something stopped a run before its end.
fn stopped(how_far: &str, error: &reinstate::Error) -> Failure {
    let exit = match error.kind() {
        ErrorKind::Cancelled => Exit::Interrupted,
        kind => Exit::of(kind),
    };
    let message = format!("{how_far}: {}", one_line(error));
    Failure::ending(exit, kind_name(error.kind()), message)
}

/// How it ended, unless rows of others were touched: nothing else matters then.
fn unless_violated(state: &CampaignState, exit: Exit) -> Exit {
    match state.tenants.iter().any(|tenant| tenant.is_violated) {
        true => Exit::Unproven,
        false => exit,
    }
}

/// What `campaign abort` was given.
#[derive(Clone, Copy, Debug)]
pub struct Abort<'a> {
    /// Whether everything is put back.
    pub undo: bool,
    /// The digest that was typed.
    pub digest: Option<&'a str>,
    /// For how many seconds what is in the way is waited for.
    pub patience: u32,
    /// How fast.
    pub pace: PaceChange,
}

/// `campaign abort C`.
pub fn abort(
    estate: &Estate<'_>,
    campaign: &StoredCampaign,
    abort: Abort<'_>,
) -> anyhow::Result<Exit> {
    let journal = campaign_journal(&estate.repository, campaign)?;
    let short = campaign.description().campaign.short();
    if let Some(given) = abort.digest
        && given_digest(campaign, given)? != campaign.digest()
    {
        let message = format!(
            "abort campaign {short}: its digest is {}, not {given}",
            campaign.digest().short()
        );
        let error = refuse(&journal, &estate.actor, now(), ErrorKind::Altered, message);
        return Err(error.into());
    }
    let stage = journal
        .look(|entries| campaign_state(campaign, entries))
        .stage;
    if !matches!(stage, CampaignStage::Undoing | CampaignStage::Undone) {
        let mut entry = CampaignEntry::new(now(), estate.actor.clone(), EntryKind::Aborted);
        if abort.undo {
            let all = campaign.description().tenants.len();
            let all: Vec<u32> = (0..).take(all).collect();
            check_no_other(estate, campaign, &journal, &all)?;
            "undo".clone_into(&mut entry.detail);
        }
        journal.append(vec![entry])?;
    }
    if !abort.undo {
        estate
            .console
            .line(format_args!("aborted  {short}: what was done stays"));
        return Ok(Exit::Done);
    }
    // Whoever runs it stops after what is being written.
    let _lock = wait_for_lock(estate, abort.patience)?;
    journal.refresh()?;
    pace::change(estate, campaign, &journal, abort.pace, &[])?;
    let end = with_stores(estate, campaign, &journal, abort.patience, undo_campaign)?;
    finish_undo(estate, campaign, &end)
}

fn wait_for_lock(estate: &Estate<'_>, patience: u32) -> anyhow::Result<RepositoryLock> {
    let mut left = patience;
    loop {
        match estate.lock() {
            Err(_) if left > 0 => left -= 1,
            settled => return Ok(settled?),
        }
        thread::sleep(Duration::from_secs(1));
        estate.interruption.cancellation().check()?;
    }
}

/// Says how taking a campaign back ended.
fn finish_undo(
    estate: &Estate<'_>,
    campaign: &StoredCampaign,
    end: &CampaignEnd,
) -> anyhow::Result<Exit> {
    let state = &end.state;
    let short = campaign.description().campaign.short();
    let all = state.tenants.len() as u64;
    let undone = state.count(TenantState::Undone) as u64;
    let again = format!(
        "reinstate campaign abort {short} --undo --confirm-digest {}",
        campaign.digest().short()
    );
    if undone == all && end.stopped.is_none() {
        summary(estate, campaign, state);
        return Ok(Exit::Done);
    }
    show(estate, campaign, state, None);
    if let Some(error) = &end.stopped {
        let all = counted(all, "site", "sites");
        let how_far = format!("taking the campaign back stopped with {undone} of {all} undone");
        return Err(stopped(&how_far, error).next(again).into());
    }
    let message = format!(
        "{undone} of {} are as they were before the campaign; the others keep what they have",
        counted(all, "site", "sites")
    );
    let exit = unless_violated(state, Exit::Partial);
    Err(Failure::ending(exit, "partial", message)
        .next(format!(
            "see why: reinstate campaign status {short}; try those again: {again}"
        ))
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_others_that_were_touched_decide_the_exit_whatever_else_there_is() {
        let site = |is_violated: bool| reinstate::TenantProgress {
            state: TenantState::Parked,
            stores: Vec::new(),
            gates: Vec::new(),
            reason: Some("a gate said ISOLATION VIOLATED".to_owned()),
            is_violated,
            is_closed: false,
            handed_back_at: None,
            changed_at: None,
        };
        let state = |tenants| CampaignState {
            stage: CampaignStage::Finished,
            approved_by: std::collections::BTreeSet::new(),
            started_at: None,
            ended_at: None,
            tenants,
            undo_plans: Vec::new(),
        };
        let exit = |tenants| unless_violated(&state(tenants), Exit::Partial);
        assert_eq!(exit(vec![site(false), site(false)]), Exit::Partial);
        assert_eq!(exit(vec![site(false), site(true)]), Exit::Unproven);
    }
}
