//! The report of a campaign: what its journal adds up to, with the plans and receipts of its stores.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use reinstate::{
    CampaignDescription, CampaignStage, CampaignState, GateOutcome, GateProgress, Journal,
    StoreProgress, StoredCampaign, StoredPlan, TenantProgress, TenantState, receipt_of,
};
use reinstate_core::{ChangeCounts, ErrorKind, TenantId, Timestamp};
use reinstate_repository::LocalRepository;

use super::data_loss_window;
use super::job::{Commit, tenant_part};
use super::page::{Fact, Gate, Page, Part, Status, Subject};
use crate::failure::Failure;
use crate::render::{count, counted, tenant};

/// What the outcome of a campaign rests on.
const PROOF: &str = "Every merge is one transaction, and compared with its approved plan, row by row, before it is \
    committed; receipts are kept after it. The campaign's journal is one chain: each record holds the digest of the \
    one before, so that none can be changed or taken away without changing the last digest below. A site is \
    handed back only when all its stores are proven and every gate is passed.";

/// How many parked sites are named before everything else.
const PARKED_MAX: usize = 20;

/// A campaign as a report sees it.
pub struct Seen<'c> {
    pub campaign: &'c StoredCampaign,
    pub journal: &'c Journal<'c>,
    pub state: &'c CampaignState,
    /// The repositories of its stores, in the order of its plan.
    pub repositories: &'c [LocalRepository],
}

/// Makes the page of a campaign, or of one site of it.
///
/// # Errors
/// `NotFound` if the site is not in it; `Altered` if a plan is not the one that the campaign names.
pub(super) fn page(
    seen: &Seen<'_>,
    only: Option<&TenantId>,
    written_at: Timestamp,
) -> anyhow::Result<Page> {
    let description = seen.campaign.description();
    let mut plans = Plans::default();
    let mut subjects = Vec::new();
    let mut all = Totals::default();
    for place in 0..description.tenants.len() {
        if only.is_none_or(|only| *only == description.tenants[place].site) {
            subjects.push(subject(seen, &mut plans, place, &mut all)?);
        }
    }
    if let (Some(only), []) = (only, subjects.as_slice()) {
        let name = tenant(&description.site_kind, only);
        let message = format!(
            "campaign {} has no site {name}",
            description.campaign.short()
        );
        return Err(Failure::new(ErrorKind::NotFound, message)
            .next("see who is in it: reinstate campaign status")
            .into());
    }
    Ok(compose(seen, subjects, &all, written_at))
}

/// The stored plans that were opened, by batch and store.
#[derive(Default)]
struct Plans(BTreeMap<(u32, usize), StoredPlan>);

impl Plans {
    fn get(
        &mut self,
        seen: &Seen<'_>,
        batch: u32,
        store: usize,
    ) -> anyhow::Result<Option<&StoredPlan>> {
        let planned = seen.campaign.description().batches.get(batch as usize);
        let Some(planned) = planned.and_then(|batch| *batch.plans.get(store)?) else {
            return Ok(None);
        };
        match self.0.entry((batch, store)) {
            Entry::Occupied(opened) => Ok(Some(opened.into_mut())),
            Entry::Vacant(place) => {
                let stored = StoredPlan::open(&seen.repositories[store], planned.object)?;
                if stored.plan().digest() != planned.digest {
                    let message =
                        format!("plan {} is not the one that was approved", planned.object);
                    return Err(Failure::new(ErrorKind::Altered, message).into());
                }
                Ok(Some(place.insert(stored)))
            }
        }
    }
}

/// What all sites of the report come to.
#[derive(Debug, Default)]
struct Totals {
    sites: u64,
    handed_back: u64,
    parked: u64,
    undone: u64,
    counts: ChangeCounts,
}

fn subject(
    seen: &Seen<'_>,
    plans: &mut Plans,
    place: usize,
    all: &mut Totals,
) -> anyhow::Result<Subject> {
    let description = seen.campaign.description();
    let (site, progress) = (&description.tenants[place], &seen.state.tenants[place]);
    all.sites += 1;
    match progress.state {
        TenantState::HandedBack => all.handed_back += 1,
        TenantState::Parked => all.parked += 1,
        TenantState::Undone => all.undone += 1,
        _ => {}
    }
    let mut parts = Vec::new();
    let mut changed = 0;
    for (store, part) in site.parts.iter().enumerate() {
        let Some(part) = part else {
            continue;
        };
        let (of_store, progress) = (&description.stores[store], &progress.stores[store]);
        if progress.merge().is_some() {
            changed += part.counts.total();
            all.counts += part.counts;
        }
        let mut written = match plans.get(seen, site.batch, store)? {
            None => Part::default(),
            Some(stored) => {
                let plan = stored.plan().description();
                let receipt = receipt_of(&seen.repositories[store], plan.job, &part.tenant)?;
                let commit = receipt.map(Commit::from);
                let own = stored.plan().tenant(&part.tenant);
                own.map_or_else(Part::default, |own| tenant_part(plan, own, commit.as_ref()))
            }
        };
        written.name = format!("Store {}, phase {}", of_store.name, of_store.phase);
        let there = tenant(&of_store.tenant_kind, &part.tenant);
        let there = match &part.instead_of {
            None => there.to_string(),
            Some(had) => format!(
                "{there}, with new keys: {} is somebody else's by now",
                tenant(&of_store.tenant_kind, had)
            ),
        };
        let facts = [
            Fact::new("State", store_words(progress)),
            Fact::new("There it is", there),
            Fact::new("Went back to", of_store.point_time),
        ];
        written.facts.splice(0..0, facts);
        parts.push(written);
    }
    Ok(Subject {
        anchor: format!("tenant-{place}"),
        name: tenant(&description.site_kind, &site.site).to_string(),
        status: status_of(progress),
        rows_changed: count(changed),
        remark: remark(progress),
        parts,
        gates: progress.gates.iter().map(gate).collect(),
    })
}

fn store_words(progress: &StoreProgress) -> String {
    match progress {
        StoreProgress::Absent => "Not in this store".to_owned(),
        StoreProgress::Pending => "Nothing was written".to_owned(),
        StoreProgress::Merged(merge) => format!("Committed, noted {}", merge.at),
        StoreProgress::Verified { rows_read, .. } => {
            format!("Proven: {} read back", counted(*rows_read, "row", "rows"))
        }
        StoreProgress::Undone => "As before the campaign".to_owned(),
    }
}

fn status_of(progress: &TenantProgress) -> Status {
    match progress.state {
        TenantState::HandedBack => Status::good("Handed back"),
        TenantState::Gated => Status::good("Every gate passed"),
        TenantState::Parked => Status::bad("Parked"),
        TenantState::Waiting => Status::warn("Waits to be accepted"),
        TenantState::Undone => Status::still("As before the campaign"),
        TenantState::Verified => Status::still("Proven"),
        TenantState::Merging => Status::still("Under way"),
        TenantState::Planned | TenantState::Extracted => Status::still("Planned"),
    }
}

fn remark(progress: &TenantProgress) -> String {
    match (&progress.reason, progress.handed_back_at) {
        (Some(reason), _) => reason.clone(),
        (None, Some(at)) => format!("Handed back {at}."),
        (None, None) => String::new(),
    }
}

fn gate(gate: &GateProgress) -> Gate {
    Gate {
        name: gate.name.clone(),
        status: match gate.outcome {
            GateOutcome::Passed => Status::good("Passed"),
            GateOutcome::Failed => Status::bad("Not passed"),
            GateOutcome::Waiting => Status::warn("Waits"),
        },
        detail: gate.detail.clone(),
        when: format!("{}, {}", gate.at, gate.actor),
    }
}

fn compose(seen: &Seen<'_>, subjects: Vec<Subject>, all: &Totals, written_at: Timestamp) -> Page {
    let description = seen.campaign.description();
    let state = seen.state;
    let (status, title, lede) = match subjects.as_slice() {
        [only] => (
            only.status.clone(),
            format!("Restore of {}", only.name),
            format!("{}: {}.", only.name, only.status.label.to_lowercase()),
        ),
        _ => (
            overall(state, all),
            format!("Campaign {}", description.campaign.short()),
            format!(
                "{} of {} are handed back, {} parked, {} as before the campaign.",
                count(all.handed_back),
                counted(all.sites, "site", "sites"),
                count(all.parked),
                count(all.undone)
            ),
        ),
    };
    let (created, put_back, deleted) =
        (all.counts.created, all.counts.put_back, all.counts.deleted);
    Page {
        version: env!("CARGO_PKG_VERSION"),
        written_at: written_at.to_string(),
        kind: "Report of a campaign",
        title,
        status,
        lede,
        figures: vec![
            Fact::new("Sites", count(all.sites)),
            Fact::new("Rows created", count(created)),
            Fact::new("Rows put back", count(put_back)),
            Fact::new("Newer rows deleted", count(deleted)),
        ],
        cautions: cautions(seen, all.counts, subjects.len()),
        moment: moment(description, state),
        each: "Site",
        subjects,
        proof: PROOF,
        evidence: vec![
            Fact::new("Campaign", description.campaign),
            Fact::new("Plan, as it was approved", seen.campaign.digest()),
            Fact::new("Last digest of the journal", seen.journal.head()),
        ],
    }
}

fn overall(state: &CampaignState, all: &Totals) -> Status {
    match state.stage {
        CampaignStage::Finished if all.parked > 0 => Status::warn("Finished, some parked"),
        CampaignStage::Finished => Status::good("Finished"),
        CampaignStage::Undone => Status::still("Taken back"),
        CampaignStage::Aborted => Status::bad("Aborted"),
        CampaignStage::Planned | CampaignStage::Approved => Status::still("Not begun"),
        CampaignStage::Running
        | CampaignStage::Stopped
        | CampaignStage::Paused
        | CampaignStage::Undoing => Status::warn("Not finished"),
    }
}

/// What must not be overlooked in a report of so many sites: of one alone nothing is said of the others.
fn cautions(seen: &Seen<'_>, counts: ChangeCounts, subject_count: usize) -> Vec<String> {
    let description = seen.campaign.description();
    let mut cautions = Vec::new();
    if subject_count > 1 {
        let sites = description.tenants.iter().zip(&seen.state.tenants);
        let parked: Vec<_> = sites
            .filter(|(_, progress)| progress.state == TenantState::Parked)
            .collect();
        cautions.extend(parked.iter().take(PARKED_MAX).map(|(site, progress)| {
            let name = tenant(&description.site_kind, &site.site);
            let reason = progress.reason.as_deref().unwrap_or("no reason was noted");
            format!("Parked: {name}. {reason}")
        }));
        if parked.len() > PARKED_MAX {
            let more = (parked.len() - PARKED_MAX) as u64;
            cautions.push(format!("Parked: {} more.", counted(more, "site", "sites")));
        }
    }
    let points = description.stores.iter().map(|store| store.point_time);
    let (first, last) = (points.clone().min(), points.max());
    if let (Some(first), Some(last)) = (first, last)
        && counts.total() > 0
    {
        cautions.push(data_loss_window(
            first,
            description.planned_at,
            counts,
            "Both are kept in the plans: reinstate campaign abort --undo, or reinstate undo for a job, brings them \
             back.",
        ));
        if first != last {
            cautions.push(format!(
                "The stores did not go back to the very same moment: from {first} to {last}."
            ));
        }
    }
    cautions
}

fn moment(description: &CampaignDescription, state: &CampaignState) -> Vec<Fact> {
    let mut facts = vec![
        Fact::new("Asked for", &description.asked),
        Fact::new(
            "Planned",
            format!("{}, {}", description.planned_at, description.planned_by),
        ),
        Fact::new(
            "Approved by",
            state
                .approved_by
                .iter()
                .cloned()
                .collect::<Vec<_>>()
                .join(", "),
        ),
    ];
    facts.extend(state.started_at.map(|at| Fact::new("Begun", at)));
    facts.extend(state.ended_at.map(|at| Fact::new("Ended", at)));
    facts.extend(description.stores.iter().map(|store| {
        let position = store.point.display(store.notation);
        Fact::new(
            format!("Store {} went back to", store.name),
            format!("{} = {position}", store.point_time),
        )
    }));
    facts
}
