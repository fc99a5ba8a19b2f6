//! Parts of a campaign as they are written.

use reinstate_core::{Digest, JobId, ObjectId, Timestamp};
use wincode::{SchemaRead, SchemaWrite};

use super::entry::{CampaignEntry, EntryKind};
use super::plan::BatchPlan;
use crate::FormatError;
use crate::wire::WirePosition;

/// A stored plan.
#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub(super) struct WireBatchPlan {
    job: [u8; 16],
    object: [u8; 16],
    digest: [u8; 32],
}

impl From<BatchPlan> for WireBatchPlan {
    fn from(plan: BatchPlan) -> Self {
        Self {
            job: *plan.job.as_bytes(),
            object: *plan.object.as_bytes(),
            digest: *plan.digest.as_bytes(),
        }
    }
}

impl From<WireBatchPlan> for BatchPlan {
    fn from(plan: WireBatchPlan) -> Self {
        Self {
            job: JobId::from_bytes(plan.job),
            object: ObjectId::from_bytes(plan.object),
            digest: Digest::from_bytes(plan.digest),
        }
    }
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub(super) struct WireEntry {
    at_micros: i64,
    actor: String,
    kind: u8,
    tenant: Option<u32>,
    store: Option<u32>,
    batch: Option<u32>,
    gate: String,
    rows: u64,
    position: Option<WirePosition>,
    digest: Option<[u8; 32]>,
    plan: Option<WireBatchPlan>,
    detail: String,
}

impl From<&CampaignEntry> for WireEntry {
    fn from(entry: &CampaignEntry) -> Self {
        Self {
            at_micros: entry.at.as_micros(),
            actor: entry.actor.clone(),
            kind: entry.kind as u8,
            tenant: entry.tenant,
            store: entry.store,
            batch: entry.batch,
            gate: entry.gate.clone(),
            rows: entry.rows,
            position: entry.position.map(WirePosition::from),
            digest: entry.digest.map(|digest| *digest.as_bytes()),
            plan: entry.plan.map(WireBatchPlan::from),
            detail: entry.detail.clone(),
        }
    }
}

impl WireEntry {
    pub(super) fn into_entry(self, structure: &'static str) -> Result<CampaignEntry, FormatError> {
        let kind = EntryKind::of(self.kind).ok_or_else(|| {
            FormatError::malformed(structure, format!("unknown entry {}", self.kind))
        })?;
        Ok(CampaignEntry {
            at: Timestamp::from_micros(self.at_micros),
            actor: self.actor,
            kind,
            tenant: self.tenant,
            store: self.store,
            batch: self.batch,
            gate: self.gate,
            rows: self.rows,
            position: self.position.map(Into::into),
            digest: self.digest.map(Digest::from_bytes),
            plan: self.plan.map(BatchPlan::from),
            detail: self.detail,
        })
    }
}
