//! `campaign approve`, `accept`, `pause`: what people say about a campaign.

use reinstate::{
    CampaignCheck, CampaignEntry, CampaignStage, EntryKind, GateOutcome, StoredCampaign,
    approve_campaign, campaign_journal, campaign_state, refuse,
};
use reinstate_core::{Digest, ErrorKind, Tenant};

use super::estate::{Estate, check_kind};
use crate::commands::tenants::parse_tenant;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::session::now;

/// The fewest digits of a digest that stand for it.
const DIGEST_DIGITS_MIN: usize = 12;

/// The campaign's digest, if that is the one that was given; otherwise one that it does not have.
///
/// # Errors
/// Usage if there are too few digits.
pub fn given_digest(campaign: &StoredCampaign, given: &str) -> Result<Digest, Failure> {
    let digits = given.strip_prefix("b3:").unwrap_or(given);
    if digits.len() < DIGEST_DIGITS_MIN {
        let message = format!("digest {given:?}: at least {DIGEST_DIGITS_MIN} digits are needed");
        return Err(Failure::usage(message));
    }
    let whole = campaign.digest().to_string();
    if whole.trim_start_matches("b3:").starts_with(digits) {
        return Ok(campaign.digest());
    }
    Ok(format!("b3:{digits:0<64}")
        .parse()
        .unwrap_or(Digest::from_bytes([0; 32])))
}

/// `campaign approve C --confirm-digest D`.
pub fn approve(
    estate: &Estate<'_>,
    campaign: &StoredCampaign,
    given: &str,
) -> anyhow::Result<Exit> {
    let description = campaign.description();
    let short = description.campaign.short();
    let journal = campaign_journal(&estate.repository, campaign)?;
    let digest = given_digest(campaign, given)?;
    let people = approve_campaign(campaign, &journal, digest, &estate.actor, now())?;
    let needed = usize::from(description.approvals_needed.max(1));
    estate.console.line(format_args!(
        "approved {short} by {}    {people} of {needed}",
        estate.actor
    ));
    let next = match people < needed {
        true => format!(
            "somebody else: reinstate campaign approve {short} --confirm-digest {}",
            campaign.digest().short()
        ),
        false => format!("reinstate campaign run {short}"),
    };
    estate.console.note(format_args!("next: {next}"));
    Ok(Exit::Done)
}

/// `campaign pause C`.
pub fn pause(estate: &Estate<'_>, campaign: &StoredCampaign) -> anyhow::Result<Exit> {
    let journal = campaign_journal(&estate.repository, campaign)?;
    let state = journal.look(|entries| campaign_state(campaign, entries));
    let short = campaign.description().campaign.short();
    if matches!(
        state.stage,
        CampaignStage::Finished
            | CampaignStage::Aborted
            | CampaignStage::Undoing
            | CampaignStage::Undone
    ) {
        let message = format!("pause campaign {short}: it is over");
        let error = refuse(&journal, &estate.actor, now(), ErrorKind::Stale, message);
        return Err(error.into());
    }
    journal.append(vec![CampaignEntry::new(
        now(),
        estate.actor.clone(),
        EntryKind::Paused,
    )])?;
    estate.console.line(format_args!(
        "paused   {short}: whoever runs it stops after what is being written"
    ));
    let console = estate.console;
    console.note(format_args!("next: reinstate campaign resume {short}"));
    Ok(Exit::Done)
}

/// `campaign accept C SITE`.
pub fn accept(
    estate: &Estate<'_>,
    campaign: &StoredCampaign,
    site: &str,
    gate: Option<&str>,
) -> anyhow::Result<Exit> {
    let site = parse_tenant(site)?;
    check_kind(&estate.configuration, std::slice::from_ref(&site))?;
    let journal = campaign_journal(&estate.repository, campaign)?;
    let (place, gate) = match waiting_at(campaign, &journal, &site, gate) {
        Ok(found) => found,
        Err((kind, message)) => {
            return Err(refuse(&journal, &estate.actor, now(), kind, message).into());
        }
    };
    let mut entry = CampaignEntry::new(now(), estate.actor.clone(), EntryKind::Accepted);
    entry.tenant = Some(place);
    entry.gate.clone_from(&gate);
    journal.append(vec![entry])?;
    let short = campaign.description().campaign.short();
    estate.console.line(format_args!(
        "accepted {site} at {gate} by {}",
        estate.actor
    ));
    let console = estate.console;
    console.note(format_args!("next: reinstate campaign resume {short}"));
    Ok(Exit::Done)
}

/// The site's place, and the gate that it waits at.
fn waiting_at(
    campaign: &StoredCampaign,
    journal: &reinstate::Journal<'_>,
    site: &Tenant,
    gate: Option<&str>,
) -> Result<(u32, String), (ErrorKind, String)> {
    let description = campaign.description();
    let mut tenants = (0..).zip(&description.tenants);
    let found = tenants.find(|(_, tenant)| tenant.site == site.id);
    let short = description.campaign.short();
    let Some((place, _)) = found else {
        let message = format!("accept {site}: campaign {short} does not have it");
        return Err((ErrorKind::NotFound, message));
    };
    let state = journal.look(|entries| campaign_state(campaign, entries));
    let progress = &state.tenants[place as usize];
    let waits = progress.gates.iter().find(|found| {
        found.outcome == GateOutcome::Waiting && gate.is_none_or(|gate| gate == found.name)
    });
    if let Some(waits) = waits {
        return Ok((place, waits.name.clone()));
    }
    let gates: Vec<&str> = description
        .gates
        .iter()
        .filter(|gate| gate.check == CampaignCheck::Acceptance)
        .map(|gate| gate.name.as_str())
        .collect();
    let message = format!(
        "accept {site}: it does not wait to be accepted{}; gates where sites do: {}",
        gate.map_or_else(String::new, |gate| format!(" at {gate:?}")),
        if gates.is_empty() {
            "none".to_owned()
        } else {
            gates.join(", ")
        }
    );
    Err((ErrorKind::Stale, message))
}
