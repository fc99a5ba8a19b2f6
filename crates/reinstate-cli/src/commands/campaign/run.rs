//! `campaign run` and `resume`.

use reinstate::{
    CampaignEnd, CampaignEntry, CampaignRun, CampaignStage, EntryKind, EstateStore, RunLimits,
    StoredCampaign, TenantState, campaign_journal, campaign_state, refuse, run_campaign,
};
use reinstate_core::{ErrorKind, Phase};

use super::approve::given_digest;
use super::estate::{Estate, OpenStore, in_order, lock_all};
use super::operator::EstateOperator;
use super::status::{show, summary};
use crate::arguments;
use crate::exit::{Exit, kind_name};
use crate::failure::{Failure, one_line};
use crate::progress::Progress;
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
    let _lock = estate.lock()?;
    let journal = campaign_journal(&estate.repository, campaign)?;
    if let Begin::Resume { retry_parked } = begin {
        let state = journal.look(|entries| campaign_state(campaign, entries));
        let mut entries = Vec::new();
        if state.stage == CampaignStage::Paused {
            entries.push(CampaignEntry::new(
                now(),
                estate.actor.clone(),
                EntryKind::Resumed,
            ));
        }
        if retry_parked {
            entries.extend(retries(estate, campaign, &state));
        }
        journal.append(entries)?;
    }
    let stores = estate.stores()?;
    let _locks = lock_all(&stores)?;
    let opened = in_order(campaign.description(), &stores)?;
    let (open, engine_stores): (Vec<&OpenStore>, Vec<EstateStore<'_>>) = opened.into_iter().unzip();
    let operator = EstateOperator {
        actor: &estate.actor,
        stores: open,
        cancellation: estate.interruption.cancellation(),
    };
    let progress = Progress::new(&[Phase::Merge, Phase::Verify], 0);
    let end = run_campaign(&CampaignRun {
        context: estate
            .engine
            .context(&progress, estate.interruption.cancellation()),
        campaign,
        journal: &journal,
        estate: &engine_stores,
        operator: &operator,
        limits: RunLimits {
            store_attempts: arguments.patience,
        },
    })?;
    progress.clear();
    finish(estate, campaign, &end)
}

/// Another try for sites that were parked in a run, and not when the campaign was planned.
fn retries(
    estate: &Estate<'_>,
    campaign: &StoredCampaign,
    state: &reinstate::CampaignState,
) -> Vec<CampaignEntry> {
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
        false => show(estate, campaign, state),
    }
    if let Some(error) = &end.stopped {
        let exit = match error.kind() {
            ErrorKind::Cancelled => Exit::Interrupted,
            kind => Exit::of(kind),
        };
        let message = format!(
            "the campaign stopped with {done} of {} handed back: {}",
            counted(all, "site", "sites"),
            one_line(error)
        );
        return Err(Failure::ending(exit, kind_name(error.kind()), message)
            .next(format!("reinstate campaign resume {short}"))
            .into());
    }
    let violated = state.tenants.iter().any(|tenant| {
        let reason = tenant.reason.as_ref();
        reason.is_some_and(|reason| reason.contains("ISOLATION VIOLATED"))
    });
    let waiting = state.count(TenantState::Waiting) as u64;
    if waiting > 0 {
        let message = format!(
            "{done} of {} handed back, {parked} parked, and {waiting} wait to be accepted",
            counted(all, "site", "sites")
        );
        return Err(Failure::ending(Exit::Interrupted, "waiting", message)
            .next(format!(
                "reinstate campaign accept {short} SITE, then reinstate campaign resume {short}"
            ))
            .into());
    }
    if parked > 0 {
        let exit = match violated {
            true => Exit::Unproven,
            false => Exit::Partial,
        };
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

/// `campaign abort C`.
pub fn abort(
    estate: &Estate<'_>,
    campaign: &StoredCampaign,
    undo: bool,
    given: Option<&str>,
) -> anyhow::Result<Exit> {
    let journal = campaign_journal(&estate.repository, campaign)?;
    let short = campaign.description().campaign.short();
    if let Some(given) = given
        && given_digest(campaign, given)? != campaign.digest()
    {
        let message = format!(
            "abort campaign {short}: its digest is {}, not {given}",
            campaign.digest().short()
        );
        let error = refuse(&journal, &estate.actor, now(), ErrorKind::Altered, message);
        return Err(error.into());
    }
    if undo {
        let message = format!("abort campaign {short}: taking it back is not there yet");
        let error = refuse(&journal, &estate.actor, now(), ErrorKind::Refused, message);
        return Err(error.into());
    }
    let entry = CampaignEntry::new(now(), estate.actor.clone(), EntryKind::Aborted);
    journal.append(vec![entry])?;
    estate
        .console
        .line(format_args!("aborted  {short}: what was done stays"));
    Ok(Exit::Done)
}
