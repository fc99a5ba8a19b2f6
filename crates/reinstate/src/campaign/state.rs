//! Where a campaign is: what its journal adds up to.

use std::collections::BTreeSet;

use reinstate_core::{Position, Timestamp};
use reinstate_format::{BatchPlan, CampaignDescription, CampaignEntry, EntryKind};

use super::record::StoredCampaign;

/// What an entry says of a campaign that is to be taken back, and of one that was.
pub(super) const UNDO: &str = "undo";

/// Where a campaign is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CampaignStage {
    /// It is planned, and not approved by enough people.
    Planned,
    /// It may be run.
    Approved,
    /// A run began and did not say that it ended: it is at work, or was killed.
    Running,
    /// A run ended before its end.
    Stopped,
    /// Somebody asked runs to stop.
    Paused,
    /// Every tenant is handed back or parked.
    Finished,
    /// Somebody ended it; what was done stays.
    Aborted,
    /// Somebody ended it, and it is being taken back.
    Undoing,
    /// Everything that it changed is taken back, but for tenants that are parked.
    Undone,
}

/// Where a tenant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TenantState {
    /// It is in the plan.
    Planned,
    /// Its rows in the plan were read back and are what was approved.
    Extracted,
    /// Its rows are back in some stores.
    Merging,
    /// Its rows are back in all stores, and proven.
    Verified,
    /// It waits for somebody to accept it.
    Waiting,
    /// It passed every gate.
    Gated,
    /// It is its users' again.
    HandedBack,
    /// It was set aside.
    Parked,
    /// Its rows are as they were before the campaign.
    Undone,
}

/// How far a tenant is in one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreProgress {
    /// It is not in this store.
    Absent,
    /// Nothing was written yet.
    Pending,
    /// Its rows are committed.
    Merged(StoreMerge),
    /// They are committed, and were read back.
    Verified {
        /// The commit.
        merge: StoreMerge,
        /// How many rows were read back.
        rows_read: u64,
    },
    /// They are as they were before.
    Undone,
}

/// A commit of a tenant's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreMerge {
    /// When it was noted.
    pub at: Timestamp,
    /// How many rows changed.
    pub rows: u64,
    /// Where in the store's order it is; none if there was nothing to write.
    pub position: Option<Position>,
}

/// What became of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateOutcome {
    /// It was passed.
    Passed,
    /// It was not.
    Failed,
    /// It waits for somebody.
    Waiting,
}

/// A gate of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateProgress {
    /// Its name.
    pub name: String,
    /// What became of it.
    pub outcome: GateOutcome,
    /// What was looked at, or why it was not passed.
    pub detail: String,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
}

/// How far a tenant is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantProgress {
    /// Where it is.
    pub state: TenantState,
    /// How far it is in each store.
    pub stores: Vec<StoreProgress>,
    /// The gates that were looked at, in order, each once.
    pub gates: Vec<GateProgress>,
    /// Why it is parked.
    pub reason: Option<String>,
    /// Whether rows of others carry the mark of what was merged for it, since its last try began.
    pub is_violated: bool,
    /// Whether it was closed, and nobody began to open it since.
    pub is_closed: bool,
    /// When it was handed back.
    pub handed_back_at: Option<Timestamp>,
    /// The last thing that happened to it.
    pub changed_at: Option<Timestamp>,
}

/// Where a campaign is, with all its tenants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignState {
    /// Where it is.
    pub stage: CampaignStage,
    /// Who approved it.
    pub approved_by: BTreeSet<String>,
    /// When its first run began.
    pub started_at: Option<Timestamp>,
    /// When it came to its end.
    pub ended_at: Option<Timestamp>,
    /// Its tenants, in the order of the plan.
    pub tenants: Vec<TenantProgress>,
    /// The plans that take it back: batch, store, plan.
    pub undo_plans: Vec<(u32, u32, BatchPlan)>,
}

impl CampaignState {
    /// How many tenants are in this state.
    #[must_use]
    pub fn count(&self, state: TenantState) -> usize {
        let tenants = self.tenants.iter();
        tenants.filter(|tenant| tenant.state == state).count()
    }

    /// Whether nothing is left to do for any tenant.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.tenants.iter().all(TenantProgress::is_at_end)
    }

    /// How many rows were changed.
    #[must_use]
    pub fn rows_changed(&self) -> u64 {
        let stores = self.tenants.iter().flat_map(|tenant| &tenant.stores);
        stores
            .filter_map(StoreProgress::merge)
            .map(|merge| merge.rows)
            .sum()
    }
}

impl TenantProgress {
    /// Whether nothing is left to do for it.
    #[must_use]
    pub const fn is_at_end(&self) -> bool {
        matches!(
            self.state,
            TenantState::HandedBack | TenantState::Parked | TenantState::Undone
        )
    }

    /// What became of a gate, if it was looked at.
    #[must_use]
    pub fn gate(&self, name: &str) -> Option<&GateProgress> {
        self.gates.iter().find(|gate| gate.name == name)
    }

    fn note_gate(&mut self, entry: &CampaignEntry, outcome: GateOutcome) {
        self.gates.retain(|gate| gate.name != entry.gate);
        self.gates.push(GateProgress {
            name: entry.gate.clone(),
            outcome,
            detail: entry.detail.clone(),
            at: entry.at,
            actor: entry.actor.clone(),
        });
    }

    /// Where a tenant is that was not set aside, handed back or taken back.
    fn underway(&self, has_all_gates: bool) -> TenantState {
        let waits = |gate: &GateProgress| gate.outcome == GateOutcome::Waiting;
        let present = || {
            let stores = self.stores.iter();
            stores.filter(|store| **store != StoreProgress::Absent)
        };
        if self.gates.iter().any(waits) {
            return TenantState::Waiting;
        }
        if present().all(StoreProgress::is_verified) {
            return match has_all_gates {
                true => TenantState::Gated,
                false => TenantState::Verified,
            };
        }
        match present().any(|store| store.merge().is_some()) {
            true => TenantState::Merging,
            false => TenantState::Extracted,
        }
    }
}

impl StoreProgress {
    /// The commit, if there is one that stands.
    #[must_use]
    pub const fn merge(&self) -> Option<&StoreMerge> {
        match self {
            Self::Merged(merge) | Self::Verified { merge, .. } => Some(merge),
            Self::Absent | Self::Pending | Self::Undone => None,
        }
    }

    /// Whether the rows were read back.
    #[must_use]
    pub const fn is_verified(&self) -> bool {
        matches!(self, Self::Verified { .. })
    }
}

/// Adds up what happened.
#[must_use]
pub fn campaign_state(campaign: &StoredCampaign, entries: &[CampaignEntry]) -> CampaignState {
    let description = campaign.description();
    let tenants = description.tenants.iter().map(|tenant| TenantProgress {
        state: match tenant.parked {
            Some(_) => TenantState::Parked,
            None => TenantState::Planned,
        },
        stores: tenant
            .parts
            .iter()
            .map(|part| match part {
                Some(_) => StoreProgress::Pending,
                None => StoreProgress::Absent,
            })
            .collect(),
        gates: Vec::new(),
        reason: tenant.parked.clone(),
        is_violated: false,
        is_closed: false,
        handed_back_at: None,
        changed_at: None,
    });
    let mut state = CampaignState {
        stage: CampaignStage::Planned,
        approved_by: BTreeSet::new(),
        started_at: None,
        ended_at: None,
        tenants: tenants.collect(),
        undo_plans: Vec::new(),
    };
    for entry in entries {
        note_stage(&mut state, campaign, entry);
        let place = entry.tenant.map(|place| place as usize);
        if let Some(tenant) = place.and_then(|place| state.tenants.get_mut(place)) {
            note_tenant(tenant, description, entry);
        }
    }
    state
}

fn note_stage(state: &mut CampaignState, campaign: &StoredCampaign, entry: &CampaignEntry) {
    let needed = usize::from(campaign.description().approvals_needed);
    let is_ended = matches!(
        state.stage,
        CampaignStage::Aborted | CampaignStage::Undoing | CampaignStage::Undone
    );
    match entry.kind {
        EntryKind::Approved if entry.digest == Some(campaign.digest()) => {
            state.approved_by.insert(entry.actor.clone());
            if state.stage == CampaignStage::Planned && state.approved_by.len() >= needed {
                state.stage = CampaignStage::Approved;
            }
        }
        EntryKind::Aborted => {
            state.ended_at = Some(entry.at);
            state.stage = match entry.detail.as_str() {
                UNDO => CampaignStage::Undoing,
                _ => CampaignStage::Aborted,
            };
        }
        // A run that was at its end when somebody aborted the campaign says so too, and took nothing back.
        EntryKind::Finished if is_ended && entry.detail == UNDO => {
            state.ended_at = Some(entry.at);
            state.stage = CampaignStage::Undone;
        }
        EntryKind::UndoPlanned => {
            if let (Some(batch), Some(store), Some(plan)) = (entry.batch, entry.store, entry.plan) {
                state.undo_plans.push((batch, store, plan));
            }
        }
        _ if is_ended => {}
        EntryKind::Started => {
            state.started_at = state.started_at.or(Some(entry.at));
            state.stage = CampaignStage::Running;
        }
        EntryKind::Stopped if state.stage != CampaignStage::Paused => {
            state.stage = CampaignStage::Stopped;
        }
        EntryKind::Paused => state.stage = CampaignStage::Paused,
        EntryKind::Resumed | EntryKind::Retried => state.stage = CampaignStage::Stopped,
        EntryKind::Finished => {
            state.ended_at = Some(entry.at);
            state.stage = CampaignStage::Finished;
        }
        _ => {}
    }
}

fn note_tenant(
    tenant: &mut TenantProgress,
    description: &CampaignDescription,
    entry: &CampaignEntry,
) {
    tenant.changed_at = Some(entry.at);
    let store = entry.store.map(|place| place as usize);
    let store = store.and_then(|place| tenant.stores.get_mut(place));
    match (entry.kind, store) {
        (EntryKind::Closed, _) => tenant.is_closed = true,
        // From here on it may be open, whatever becomes of whoever opens it.
        (EntryKind::Opening, _) => tenant.is_closed = false,
        (EntryKind::Merged, Some(store)) => {
            *store = StoreProgress::Merged(StoreMerge {
                at: entry.at,
                rows: entry.rows,
                position: entry.position,
            });
        }
        (EntryKind::Verified, Some(store)) => {
            if let StoreProgress::Merged(merge) = store {
                let merge = merge.clone();
                let rows_read = entry.rows;
                *store = StoreProgress::Verified { merge, rows_read };
            }
        }
        (EntryKind::Undone, Some(store)) => *store = StoreProgress::Undone,
        (EntryKind::GatePassed | EntryKind::Accepted, _) => {
            tenant.note_gate(entry, GateOutcome::Passed);
        }
        (EntryKind::GateFailed, _) => tenant.note_gate(entry, GateOutcome::Failed),
        (EntryKind::Waiting, _) => tenant.note_gate(entry, GateOutcome::Waiting),
        _ => {}
    }
    match entry.kind {
        EntryKind::Parked => {
            tenant.state = TenantState::Parked;
            tenant.reason = Some(entry.detail.clone());
            return;
        }
        EntryKind::HandedBack => {
            tenant.state = TenantState::HandedBack;
            tenant.is_closed = false;
            tenant.handed_back_at = Some(entry.at);
            return;
        }
        EntryKind::Undone if entry.store.is_none() => {
            tenant.state = TenantState::Undone;
            return;
        }
        EntryKind::Violated => tenant.is_violated = true,
        EntryKind::Retried => {
            tenant.reason = None;
            tenant.is_violated = false;
            tenant.state = TenantState::Extracted;
        }
        _ if tenant.is_at_end() => return,
        _ => {}
    }
    let passed = |name: &str| {
        let gate = tenant.gates.iter().find(|gate| gate.name == name);
        gate.is_some_and(|gate| gate.outcome == GateOutcome::Passed)
    };
    let has_all_gates = gate_names(description).iter().all(|name| passed(name));
    tenant.state = tenant.underway(has_all_gates);
}

/// The phases that there are stores of, in order.
pub(super) fn phases(description: &CampaignDescription) -> BTreeSet<u8> {
    description.stores.iter().map(|store| store.phase).collect()
}

/// What the check of the references in a phase is called.
pub(super) fn references_gate(phase: u8) -> String {
    format!("references, phase {phase}")
}

/// What the check of the counters in a phase is called.
pub(super) fn counters_gate(phase: u8) -> String {
    format!("counters, phase {phase}")
}

/// The names of all gates that a tenant has to pass, in order: the engine's own of each phase, then
/// the operator's.
#[must_use]
pub fn gate_names(description: &CampaignDescription) -> Vec<String> {
    let mut names = Vec::new();
    for phase in phases(description) {
        names.push(references_gate(phase));
        names.push(counters_gate(phase));
        let own = description.gates.iter().filter(|gate| gate.phase == phase);
        names.extend(own.map(|gate| gate.name.clone()));
    }
    names
}

/// Whether the digest is the one that was approved by enough people.
#[must_use]
pub(super) fn is_approved(campaign: &StoredCampaign, state: &CampaignState) -> bool {
    let needed = usize::from(campaign.description().approvals_needed.max(1));
    state.approved_by.len() >= needed
}
