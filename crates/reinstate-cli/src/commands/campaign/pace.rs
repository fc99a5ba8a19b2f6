//! `campaign pace`: how fast runs may write to the stores, also while one is at work.

use reinstate::{
    CampaignEntry, CampaignStage, EntryKind, Journal, PaceLimits, StoredCampaign, campaign_journal,
    campaign_state, refuse,
};
use reinstate_core::ErrorKind;
use serde::Serialize;

use super::estate::Estate;
use crate::arguments::PaceChange;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::pacing::limits_text;
use crate::session::now;

/// `campaign pace C`.
pub fn run(
    estate: &Estate<'_>,
    campaign: &StoredCampaign,
    stores: &[String],
    asked: PaceChange,
) -> anyhow::Result<Exit> {
    let journal = campaign_journal(&estate.repository, campaign)?;
    let stage = journal
        .look(|entries| campaign_state(campaign, entries))
        .stage;
    let is_over = matches!(
        stage,
        CampaignStage::Finished | CampaignStage::Aborted | CampaignStage::Undone
    );
    if is_over && !asked.is_none() {
        let short = campaign.description().campaign.short();
        let message = format!("set the pace of campaign {short}: it is over");
        let error = refuse(&journal, &estate.actor, now(), ErrorKind::Stale, message);
        return Err(error.into());
    }
    change(estate, campaign, &journal, asked, stores)?;
    show(estate, campaign, &journal);
    Ok(Exit::Done)
}

/// Writes other limits into the journal, for these stores, or for all if none is named: whoever runs the
/// campaign keeps to them from the next moment on. Nothing if nothing is to change.
///
/// # Errors
/// Usage if there is no store of a name; otherwise as the repository reports it.
pub fn change(
    estate: &Estate<'_>,
    campaign: &StoredCampaign,
    journal: &Journal<'_>,
    asked: PaceChange,
    only: &[String],
) -> anyhow::Result<()> {
    let stores = &campaign.description().stores;
    let unknown = only
        .iter()
        .find(|name| stores.iter().all(|store| store.name != **name));
    if let Some(name) = unknown {
        let names: Vec<&str> = stores.iter().map(|store| store.name.as_str()).collect();
        let message = format!("the campaign has no store {name:?}");
        return Err(Failure::usage(message)
            .next(format!("its stores are: {}", names.join(", ")))
            .into());
    }
    let mut entries = Vec::new();
    for (place, store) in (0..).zip(stores) {
        let before = limits(estate, campaign, journal, place);
        let after = asked.after(before);
        let is_meant = only.is_empty() || only.contains(&store.name);
        if is_meant && after != before {
            let mut entry = CampaignEntry::new(now(), estate.actor.clone(), EntryKind::Paced);
            entry.store = Some(place);
            entry.detail = after.to_string();
            entries.push(entry);
        }
    }
    Ok(journal.append(entries)?)
}

/// What a store is limited to: what somebody said last, or else what the estate says.
#[must_use]
pub fn limits(
    estate: &Estate<'_>,
    campaign: &StoredCampaign,
    journal: &Journal<'_>,
    place: u32,
) -> PaceLimits {
    journal.limits(place).unwrap_or_else(|| {
        let name = &campaign.description().stores[place as usize].name;
        let stores = &estate.configuration.stores;
        let of = stores.iter().find(|store| store.name == *name);
        of.map_or_else(PaceLimits::default, |store| store.pace)
    })
}

#[derive(Serialize)]
struct LimitsRecord<'l> {
    #[serde(rename = "type")]
    record: &'static str,
    store: &'l str,
    rows_per_second: Option<u64>,
    latency_max_seconds: Option<f64>,
}

fn show(estate: &Estate<'_>, campaign: &StoredCampaign, journal: &Journal<'_>) {
    for (place, store) in (0..).zip(&campaign.description().stores) {
        let limits = limits(estate, campaign, journal, place);
        estate.console.record(&LimitsRecord {
            record: "pace_limits",
            store: &store.name,
            rows_per_second: limits.rows_per_second.map(std::num::NonZero::get),
            latency_max_seconds: limits.latency_max.map(|latency| latency.as_secs_f64()),
        });
        estate.console.line(format_args!(
            "pace     {}  {}",
            store.name,
            limits_text(limits)
        ));
    }
}
