//! How far a campaign is, in numbers: what its plan adds up to, and what its journal says of that.

use std::time::Duration;

use reinstate::{
    CampaignStage, CampaignState, GateOutcome, PaceLimits, StoreProgress, StoredCampaign,
    TenantState,
};

use super::signs::Signs;

/// A run that was not heard of for so long is not at work any more.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// So much of so much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// What is done.
    pub done: u64,
    /// What there is.
    pub all: u64,
}

/// How far a campaign is.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Whether it is being taken back, or was.
    pub is_undo: bool,
    /// Sites handed back, or taken back, of all.
    pub sites: Part,
    /// Sites that are parked.
    pub parked: usize,
    /// Sites that wait to be accepted.
    pub waiting: usize,
    /// Sites that something was done to, and that are not at their end.
    pub under_way: usize,
    /// Rows committed, of those that are to be: without what parked sites lack.
    pub rows: Part,
    /// The same in bytes of the snapshots that hold them.
    pub bytes: Part,
    /// The stores, in the order of the plan.
    pub stores: Vec<StoreFigures>,
    /// What a run that is at work does.
    pub signs: Option<Signs>,
    /// How long ago a run was heard of that did not say that it ended, and is silent.
    pub silent_for: Option<Duration>,
    /// How long it will take, if that can be said.
    pub left: Option<Duration>,
}

/// How far a campaign is in one store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreFigures {
    /// Sites of which nothing was written yet.
    pub pending: usize,
    /// Sites that are committed and not verified.
    pub merged: usize,
    /// Sites that are verified.
    pub verified: usize,
    /// Sites that are taken back.
    pub undone: usize,
    /// Rows, as over all stores.
    pub rows: Part,
    /// How fast it may be written to.
    pub limits: PaceLimits,
}

impl Figures {
    /// Adds up where a campaign is. The limits are those of its stores.
    #[must_use]
    pub fn of(
        campaign: &StoredCampaign,
        state: &CampaignState,
        limits: &[PaceLimits],
        signs: Option<Signs>,
    ) -> Self {
        let is_undo = matches!(state.stage, CampaignStage::Undoing | CampaignStage::Undone);
        let stores = limits.iter().map(|limits| StoreFigures {
            limits: *limits,
            ..StoreFigures::default()
        });
        let end = match is_undo {
            true => TenantState::Undone,
            false => TenantState::HandedBack,
        };
        let all = state.tenants.len();
        let at_end = [end, TenantState::Parked, TenantState::Waiting].map(|of| state.count(of));
        let untouched = match is_undo {
            true => 0,
            false => state.count(TenantState::Planned) + state.count(TenantState::Extracted),
        };
        let under_way = all - at_end.iter().sum::<usize>();
        let mut figures = Self {
            is_undo,
            sites: Part {
                done: at_end[0] as u64,
                all: all as u64,
            },
            parked: at_end[1],
            waiting: if is_undo { 0 } else { at_end[2] },
            under_way: under_way.saturating_sub(untouched),
            rows: Part::default(),
            bytes: Part::default(),
            stores: stores.collect(),
            signs: None,
            silent_for: None,
            left: None,
        };
        figures.add_rows(campaign, state);
        figures.take_signs(state, signs);
        figures
    }

    fn add_rows(&mut self, campaign: &StoredCampaign, state: &CampaignState) {
        let tenants = campaign.description().tenants.iter().zip(&state.tenants);
        for (tenant, progress) in tenants {
            let is_parked = progress.state == TenantState::Parked;
            let stores = tenant.parts.iter().zip(&progress.stores);
            for ((part, store), figures) in stores.zip(&mut self.stores) {
                let Some(part) = part else { continue };
                let (count, is_done) = match store {
                    StoreProgress::Absent => continue,
                    StoreProgress::Pending => (&mut figures.pending, false),
                    StoreProgress::Merged(_) => (&mut figures.merged, !self.is_undo),
                    StoreProgress::Verified { .. } => (&mut figures.verified, !self.is_undo),
                    StoreProgress::Undone => (&mut figures.undone, self.is_undo),
                };
                let is_pending = *store == StoreProgress::Pending;
                // What a parked site lacks does not come; what was never written is not taken back.
                let is_left_out = if self.is_undo {
                    is_pending
                } else {
                    is_parked && is_pending
                };
                if is_left_out {
                    continue;
                }
                *count += 1;
                let rows = part.counts.total();
                for of in [&mut figures.rows, &mut self.rows] {
                    of.all += rows;
                    of.done += if is_done { rows } else { 0 };
                }
                self.bytes.all += part.stored_bytes;
                self.bytes.done += if is_done { part.stored_bytes } else { 0 };
            }
        }
    }

    fn take_signs(&mut self, state: &CampaignState, signs: Option<Signs>) {
        let claims_to_run = matches!(state.stage, CampaignStage::Running | CampaignStage::Undoing);
        match signs {
            Some(signs) if signs.age() <= SILENCE_MAX => {
                self.left = self.left_at(&signs);
                self.signs = Some(signs);
            }
            Some(signs) if claims_to_run => self.silent_for = Some(signs.age()),
            _ => {}
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn left_at(&self, signs: &Signs) -> Option<Duration> {
        let left = self.rows.all - self.rows.done;
        let speed = signs.rows_per_second().filter(|speed| *speed > 0.0)?;
        Duration::try_from_secs_f64(left as f64 / speed)
            .ok()
            .filter(|_| left > 0)
    }
}

/// The gates at which sites wait to be accepted, with the places of these.
#[must_use]
pub fn waiting_at(state: &CampaignState) -> Vec<(&str, Vec<usize>)> {
    let mut gates: Vec<(&str, Vec<usize>)> = Vec::new();
    for (place, tenant) in state.tenants.iter().enumerate() {
        if tenant.state != TenantState::Waiting {
            continue;
        }
        let waits = |gate: &&reinstate::GateProgress| gate.outcome == GateOutcome::Waiting;
        let Some(gate) = tenant.gates.iter().find(waits) else {
            continue;
        };
        match gates.iter_mut().find(|(name, _)| *name == gate.name) {
            Some((_, places)) => places.push(place),
            None => gates.push((&gate.name, vec![place])),
        }
    }
    gates
}
