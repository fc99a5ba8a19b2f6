//! `campaign status`: how far campaigns are.

use reinstate::{
    CampaignDescription, CampaignStage, CampaignState, GateOutcome, StoreProgress, StoredCampaign,
    TenantProgress, TenantState, campaign_journal, campaign_state, campaigns,
};
use serde::Serialize;

use super::estate::Estate;
use super::live::figures;
use super::signs::Signs;
use super::view::View;
use crate::exit::Exit;
use crate::render::{count, counted, grid};

/// The states of a tenant, in the order of its way.
pub const STATES: [TenantState; 9] = [
    TenantState::Planned,
    TenantState::Extracted,
    TenantState::Merging,
    TenantState::Verified,
    TenantState::Waiting,
    TenantState::Gated,
    TenantState::HandedBack,
    TenantState::Parked,
    TenantState::Undone,
];

/// What a stage is called.
#[must_use]
pub const fn stage_name(stage: CampaignStage) -> &'static str {
    match stage {
        CampaignStage::Planned => "planned",
        CampaignStage::Approved => "approved",
        CampaignStage::Running => "running",
        CampaignStage::Stopped => "stopped",
        CampaignStage::Paused => "paused",
        CampaignStage::Finished => "finished",
        CampaignStage::Aborted => "aborted",
        CampaignStage::Undoing => "undoing",
        CampaignStage::Undone => "undone",
    }
}

/// What a state is called.
#[must_use]
pub const fn state_name(state: TenantState) -> &'static str {
    match state {
        TenantState::Planned => "planned",
        TenantState::Extracted => "extracted",
        TenantState::Merging => "merging",
        TenantState::Verified => "verified",
        TenantState::Waiting => "waiting",
        TenantState::Gated => "gated",
        TenantState::HandedBack => "handed_back",
        TenantState::Parked => "parked",
        TenantState::Undone => "undone",
    }
}

/// `campaign status [C]`.
pub fn run(estate: &Estate<'_>, campaign: Option<&str>) -> anyhow::Result<Exit> {
    if let Some(prefix) = campaign {
        let campaign = estate.find(prefix)?;
        let journal = campaign_journal(&estate.repository, &campaign)?;
        let signs = Signs::read(estate, &campaign);
        let (state, figures) = figures(estate, &campaign, &journal, signs);
        let view = View {
            campaign: &campaign,
            state: &state,
            figures: &figures,
        };
        estate.console.record(&view.record());
        show(estate, &campaign, &state, Some(view));
        let head = journal.head();
        estate.console.line(format_args!("journal  head {head}"));
        return Ok(Exit::Done);
    }
    let all = campaigns(&estate.repository)?;
    if all.is_empty() {
        estate
            .console
            .note("there is no campaign yet; next: reinstate campaign plan --help");
    }
    for campaign in all {
        let journal = campaign_journal(&estate.repository, &campaign)?;
        let state = journal.look(|entries| campaign_state(&campaign, entries));
        summary(estate, &campaign, &state);
    }
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct CampaignRecord {
    #[serde(rename = "type")]
    record: &'static str,
    campaign: String,
    digest: String,
    stage: &'static str,
    asked: String,
    planned_at: String,
    planned_by: String,
    approved_by: Vec<String>,
    approvals_needed: u8,
    started_at: Option<String>,
    ended_at: Option<String>,
    sites: usize,
    states: std::collections::BTreeMap<&'static str, usize>,
    rows_planned: u64,
    rows_changed: u64,
}

/// A campaign in one line and one record.
pub fn summary(estate: &Estate<'_>, campaign: &StoredCampaign, state: &CampaignState) {
    let description = campaign.description();
    let counts = STATES.map(|of| (state_name(of), state.count(of)));
    let present = counts.iter().filter(|(_, count)| *count > 0);
    let parts = description
        .tenants
        .iter()
        .flat_map(|tenant| tenant.parts.iter().flatten());
    estate.console.record(&CampaignRecord {
        record: "campaign",
        campaign: description.campaign.to_string(),
        digest: campaign.digest().to_string(),
        stage: stage_name(state.stage),
        asked: description.asked.clone(),
        planned_at: description.planned_at.to_string(),
        planned_by: description.planned_by.clone(),
        approved_by: state.approved_by.iter().cloned().collect(),
        approvals_needed: description.approvals_needed,
        started_at: state.started_at.map(|at| at.to_string()),
        ended_at: state.ended_at.map(|at| at.to_string()),
        sites: description.tenants.len(),
        states: counts.into_iter().collect(),
        rows_planned: parts.map(|part| part.counts.total()).sum(),
        rows_changed: state.rows_changed(),
    });
    let states: Vec<String> = present
        .map(|(name, count)| format!("{count} {}", name.replace('_', " ")))
        .collect();
    estate.console.line(format_args!(
        "campaign {}  {}  {}: {}; {} changed",
        description.campaign.short(),
        stage_name(state.stage),
        counted(description.tenants.len() as u64, "site", "sites"),
        states.join(", "),
        counted(state.rows_changed(), "row", "rows")
    ));
}

#[derive(Serialize)]
struct SiteRecord {
    #[serde(rename = "type")]
    record: &'static str,
    site: String,
    state: &'static str,
    reason: Option<String>,
    stores: Vec<StoreRecord>,
    gates: Vec<GateRecord>,
    changed_at: Option<String>,
    handed_back_at: Option<String>,
}

#[derive(Serialize)]
struct StoreRecord {
    store: String,
    tenant: Option<String>,
    instead_of: Option<String>,
    state: &'static str,
    rows_planned: u64,
    rows_changed: u64,
    rows_read: Option<u64>,
    position: Option<String>,
}

#[derive(Serialize)]
struct GateRecord {
    gate: String,
    outcome: &'static str,
    detail: String,
    at: String,
    by: String,
}

/// A campaign with each of its sites; at a glance first, if there is a view of it.
pub fn show(
    estate: &Estate<'_>,
    campaign: &StoredCampaign,
    state: &CampaignState,
    view: Option<View<'_>>,
) {
    summary(estate, campaign, state);
    let glance = view.map(|view| view.lines()).unwrap_or_default();
    // The first line says what the summary says.
    for line in glance.iter().skip(1) {
        estate.console.line(line);
    }
    for line in remap_lines(campaign.description()) {
        estate.console.line(line);
    }
    let description = campaign.description();
    let console = estate.console;
    let mut rows = Vec::with_capacity(state.tenants.len());
    for (place, progress) in state.tenants.iter().enumerate() {
        console.record(&site_record(description, place, progress));
        rows.push(site_row(description, place, progress));
    }
    let mut header = vec!["site", "state"];
    header.extend(description.stores.iter().map(|store| store.name.as_str()));
    header.push("why");
    grid(&header, rows)
        .into_iter()
        .for_each(|line| console.line(line));
}

fn site_row(
    description: &CampaignDescription,
    place: usize,
    progress: &TenantProgress,
) -> Vec<String> {
    let site = &description.tenants[place].site;
    let mut row = vec![
        format!("{}:{site}", description.site_kind),
        state_name(progress.state).replace('_', " "),
    ];
    row.extend(progress.stores.iter().map(|store| match store.merge() {
        Some(merge) => format!("{} {}", store_state(store), count(merge.rows)),
        None => store_state(store).to_owned(),
    }));
    let waiting = progress
        .gates
        .iter()
        .find(|gate| gate.outcome == GateOutcome::Waiting);
    row.push(match (&progress.reason, waiting) {
        (Some(reason), _) => reason.clone(),
        (None, Some(gate)) => format!("to be accepted at {}", gate.name),
        (None, None) => String::new(),
    });
    row
}

const fn store_state(store: &StoreProgress) -> &'static str {
    match store {
        StoreProgress::Absent => "-",
        StoreProgress::Pending => "pending",
        StoreProgress::Merged(_) => "merged",
        StoreProgress::Verified { .. } => "verified",
        StoreProgress::Undone => "undone",
    }
}

fn site_record(
    description: &CampaignDescription,
    place: usize,
    progress: &TenantProgress,
) -> SiteRecord {
    let tenant = &description.tenants[place];
    let stores = description
        .stores
        .iter()
        .zip(&tenant.parts)
        .zip(&progress.stores);
    let stores = stores.map(|((store, part), progress)| StoreRecord {
        store: store.name.clone(),
        tenant: part.as_ref().map(|part| part.tenant.to_string()),
        instead_of: part
            .as_ref()
            .and_then(|part| Some(part.instead_of.as_ref()?.to_string())),
        state: match progress {
            StoreProgress::Absent => "absent",
            other => store_state(other),
        },
        rows_planned: part.as_ref().map_or(0, |part| part.counts.total()),
        rows_changed: progress.merge().map_or(0, |merge| merge.rows),
        rows_read: match progress {
            StoreProgress::Verified { rows_read, .. } => Some(*rows_read),
            _ => None,
        },
        position: progress
            .merge()
            .and_then(|merge| Some(merge.position?.display(store.notation))),
    });
    let gates = progress.gates.iter().map(|gate| GateRecord {
        gate: gate.name.clone(),
        outcome: match gate.outcome {
            GateOutcome::Passed => "passed",
            GateOutcome::Failed => "failed",
            GateOutcome::Waiting => "waiting",
        },
        detail: gate.detail.clone(),
        at: gate.at.to_string(),
        by: gate.actor.clone(),
    });
    SiteRecord {
        record: "site",
        site: format!("{}:{}", description.site_kind, tenant.site),
        state: state_name(progress.state),
        reason: progress.reason.clone(),
        stores: stores.collect(),
        gates: gates.collect(),
        changed_at: progress.changed_at.map(|at| at.to_string()),
        handed_back_at: progress.handed_back_at.map(|at| at.to_string()),
    }
}

/// The stores of a campaign, with the points that they go back to.
#[must_use]
pub fn store_lines(description: &CampaignDescription) -> Vec<String> {
    let rows = description.stores.iter().enumerate().map(|(place, store)| {
        let parts = description
            .tenants
            .iter()
            .filter_map(|tenant| tenant.parts[place].as_ref());
        let (mut sites, mut rows) = (0, 0);
        for part in parts {
            sites += 1;
            rows += part.counts.total();
        }
        vec![
            store.name.clone(),
            store.phase.to_string(),
            store.point_time.to_string(),
            store.point.display(store.notation),
            store.snapshot.short(),
            count(sites),
            count(rows),
        ]
    });
    let header = [
        "store", ">phase", "time", "position", "snapshot", ">sites", ">rows",
    ];
    grid(&header, rows)
}

/// The sites that were parked when the campaign was planned.
#[must_use]
pub fn parked_lines(campaign: &StoredCampaign) -> Vec<String> {
    let description = campaign.description();
    let parked = description.tenants.iter().filter_map(|tenant| {
        let reason = tenant.parked.as_ref()?;
        Some(format!(
            "parked   {}:{}    {reason}",
            description.site_kind, tenant.site
        ))
    });
    parked.collect()
}

/// A site that gets another id in a store.
#[derive(Clone, Debug, Serialize)]
pub struct RemapRecord {
    site: String,
    store: String,
    id: String,
    instead_of: String,
}

/// The sites that get other ids, and where.
#[must_use]
pub fn remaps(description: &CampaignDescription) -> Vec<RemapRecord> {
    let mut remaps = Vec::new();
    for tenant in &description.tenants {
        for (part, store) in tenant.parts.iter().zip(&description.stores) {
            let Some(part) = part else { continue };
            let Some(had) = &part.instead_of else {
                continue;
            };
            remaps.push(RemapRecord {
                site: format!("{}:{}", description.site_kind, tenant.site),
                store: store.name.clone(),
                id: format!("{}:{}", store.tenant_kind, part.tenant),
                instead_of: format!("{}:{had}", store.tenant_kind),
            });
        }
    }
    remaps
}

/// The same for people.
#[must_use]
pub fn remap_lines(description: &CampaignDescription) -> Vec<String> {
    let remaps = remaps(description).into_iter().map(|remap| {
        let RemapRecord {
            site,
            store,
            id,
            instead_of,
        } = remap;
        format!("remapped {site}    becomes {id} in store {store}: somebody else has {instead_of} by now")
    });
    remaps.collect()
}
