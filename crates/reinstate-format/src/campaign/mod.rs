//! Campaigns: many tenants over many stores, what was approved and what happened.
//!
//! ```text
//! campaign <- record 0 <- record 1 <- record 2      each holds the digest of the one before it
//! ```
//!
//! The campaign's plan binds the stored plans of its batches; its digest is what is approved. What
//! happens is a chain of records behind it.

mod action;
mod entry;
mod journal;
mod plan;
mod wire;

pub use action::{CampaignAction, CampaignCheck, CampaignGate, CampaignStep};
pub use entry::{CampaignEntry, EntryKind};
pub use journal::{CampaignChain, CampaignRecord, decode_campaign_record, encode_campaign_record};
pub use plan::{
    BatchPlan, CampaignBatch, CampaignDescription, CampaignLink, CampaignMode, CampaignPart,
    CampaignStore, CampaignTenant, decode_campaign, encode_campaign,
};

#[cfg(test)]
pub(crate) use journal::{AUDIT_TAG, CAMPAIGN_RECORD};
#[cfg(test)]
pub(crate) use plan::CAMPAIGN;
