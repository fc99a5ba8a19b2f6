//! Campaigns: many tenants over many stores, planned, approved, run, and proven.
//!
//! ```text
//! plan_campaign -> approvals -> run_campaign -> handed back | parked | undone
//! ```
//!
//! A site is one tenant in several stores. Its campaign binds stored plans, one for each batch and
//! store, by their digests; what happens goes into a journal that is one hash chain. ADR 9 says why.
//!
//! *Crash consistency*: what was committed is what the stores' own journals say, each written in the
//! transaction that did the work. A run that was killed anywhere goes on, and one that is repeated
//! writes nothing.

mod approval;
mod astray;
mod batch;
mod check;
mod journal;
mod pacing;
mod plan;
mod ports;
mod record;
mod remap;
mod run;
mod state;
mod tenant;
mod undo;

pub use approval::{approve_campaign, refuse};
pub use journal::{Journal, audit_journal, campaign_journal, check_journals};
pub use plan::{
    CampaignPlanned, CampaignRequest, PlannedStore, SiteRequest, Unfit, UnfitTenant, check_alone,
    plan_campaign,
};
pub use ports::{
    CampaignWatcher, Deed, EstateStore, Images, Operator, StepAnswer, StepPurpose, Subject,
};
pub use record::{StoredCampaign, campaign_of, campaigns};
pub use remap::{Remapping, SiteRemap};
pub(crate) use run::in_parallel;
pub use run::{CampaignEnd, CampaignRun, RunLimits, run_campaign};
pub use state::{
    CampaignStage, CampaignState, GateOutcome, GateProgress, StoreMerge, StoreProgress,
    TenantProgress, TenantState, campaign_state, gate_names,
};
pub use undo::undo_campaign;
