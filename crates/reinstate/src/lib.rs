//! Brings chosen tenants of a shared, live, multi-tenant data store back to a point in time,
//! without touching any other tenant, and proves it.
//!
//! ```text
//! capture -> repository -> extract -> image -> plan -> merge -> receipt -> verify -> verdict
//! ```
//!
//! Each step is a function that takes values and returns a value. [`extract`] reads the
//! repository only; [`plan`](plan()) reads the live store and cannot write to it; [`merge`] is the only
//! function that writes to a live store; [`verify`] reads. [`restore`] is their composition, and
//! [`plan_undo_of`] takes a run back. The library prints nothing, keeps no globals, and reads no
//! clock: time, ids, threads, memory, an observer and a way to stop are given to it.

mod batch;
mod campaign;
mod capture;
mod catalogue;
mod contents;
mod context;
mod dictionaries;
mod drift;
mod error;
mod image;
mod into;
mod isolation;
mod job;
mod layers;
mod log;
mod merge;
mod opened;
mod pace;
mod plan;
mod restore;
mod run_stream;
mod segment_writer;
mod sort;
mod verify;

pub use batch::{extract_all, extract_all_at};
pub use campaign::{
    CampaignEnd, CampaignPlanned, CampaignRequest, CampaignRun, CampaignStage, CampaignState,
    CampaignWatcher, Deed, EstateStore, GateOutcome, GateProgress, Images, Journal, Operator,
    PlannedStore, Remapping, RunLimits, SiteRemap, SiteRequest, StepAnswer, StepPurpose,
    StoreMerge, StoreProgress, StoredCampaign, Subject, TenantProgress, TenantState, Unfit,
    UnfitTenant, approve_campaign, audit_journal, campaign_journal, campaign_of, campaign_state,
    campaigns, check_alone, check_journals, gate_names, plan_campaign, refuse, run_campaign,
    undo_campaign,
};
pub use capture::{CaptureOptions, capture};
pub use catalogue::{TenantSummary, find_snapshot, snapshot, snapshots, tenants, tenants_at};
pub use context::{Context, MEMORY_BYTES_MIN, ResourceOptions, Resources};
pub use drift::{DriftRules, TableDriftRules};
pub use error::Error;
pub use image::{RestorePoint, TenantImage, extract, extract_at};
pub use into::{ColumnRule, CopyReference, CopyRequest, CopyRules, Remap, TableCopyRules};
pub use isolation::{IsolationReport, StoreDigests, store_digests};
pub use job::{job_of, jobs, merge_receipt_of, plan_of, plan_undo_of, receipt_of};
pub use layers::{ChangedRows, ImageRows};
pub use log::{
    FollowOptions, FollowStep, Follower, Log, LogRun, LogVersion, Moment, Surroundings,
    TenantHistory, TenantTransaction, Unreachable, begin_log, check_timeline, compact,
    damaged_packs, history_of, log_of, logs, timeline_of,
};
pub use merge::{CommitReceipt, MergeReceipt, keep_receipt, merge};
pub use pace::{Pace, PaceLimits, PaceLimitsError, PaceReport, Probe};
pub use plan::{
    LastChanges, OwnerCheck, PlanRequest, RestorePlan, Since, StoredPlan, TenantChanges,
    WrittenPlan, is_blocked, obstacles, plan, plan_copy, plan_elsewhere, plan_since, plan_undo,
    store_plan,
};
pub use restore::{
    Fences, RestoreRequest, Restored, TenantOutcome, apply, apply_behind, apply_once, apply_one,
    restore,
};
pub use run_stream::RunStream;
pub use verify::{
    Damage, Finding, Proof, SnapshotReport, Verdict, verify, verify_log, verify_snapshot,
};

/// What a plan, a job, a receipt and a campaign say, and how a block is laid out.
pub use reinstate_format::{
    BatchPlan, BlockLayout, CampaignAction, CampaignBatch, CampaignCheck, CampaignDescription,
    CampaignEntry, CampaignGate, CampaignLink, CampaignMode, CampaignPart, CampaignStep,
    CampaignStore, CampaignTenant, Conflict, EntryKind, JobDescription, NoteKind, PlanDescription,
    PlanNote, ReceiptDescription, TablePlan, TenantPlanDescription,
};
