//! The plan of a campaign: what is approved.

use reinstate_core::{
    CampaignId, ChangeCounts, Digest, JobId, ObjectId, Position, PositionNotation, RepositoryId,
    SnapshotId, StoreIdentity, TenantId, TenantKind, Timestamp,
};
use wincode::{SchemaRead, SchemaWrite};

use super::action::{CampaignAction, CampaignGate, WireAction, WireGate};
use super::wire::WireBatchPlan;
use crate::FormatError;
use crate::frame::FrameKind;
use crate::wire::{self, WireCounts, WirePosition, WireStore};

pub(crate) const CAMPAIGN: FrameKind = FrameKind {
    magic: *b"RNSTCMPN",
    version: 1,
    structure: "campaign",
};

/// What a campaign does. Persisted: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CampaignMode {
    /// Chosen tenants, into the stores that they were in.
    Chosen = 0,
    /// Every tenant of the snapshots, into stores that are new and empty.
    Everyone = 1,
}

/// What a campaign will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignDescription {
    /// Which campaign it is.
    pub campaign: CampaignId,
    /// The repository that keeps this, and the journal.
    pub repository: RepositoryId,
    /// What the operators call the estate.
    pub estate: String,
    /// What kind of id the sites have.
    pub site_kind: TenantKind,
    /// What it does.
    pub mode: CampaignMode,
    /// The point in time as it was asked for.
    pub asked: String,
    /// When it was planned.
    pub planned_at: Timestamp,
    /// Who planned it.
    pub planned_by: String,
    /// How many people have to approve it.
    pub approvals_needed: u8,
    /// How many tenants are under way at once.
    pub batch_size: u32,
    /// The stores, in the order in which a tenant goes through them.
    pub stores: Vec<CampaignStore>,
    /// What a tenant has to pass, in order.
    pub gates: Vec<CampaignGate>,
    /// Which columns refer to rows of other stores.
    pub links: Vec<CampaignLink>,
    /// What closes a site, before anything of it is written.
    pub close: Option<CampaignAction>,
    /// What opens it, when all of it is proven.
    pub open: Option<CampaignAction>,
    /// The stored plans.
    pub batches: Vec<CampaignBatch>,
    /// The tenants, in the order of their priority.
    pub tenants: Vec<CampaignTenant>,
}

/// A store of a campaign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignStore {
    /// What the estate calls it.
    pub name: String,
    /// Which store it is.
    pub store: StoreIdentity,
    /// The repository that has its snapshots and the stored plans.
    pub repository: RepositoryId,
    /// What kind of id its tenants have.
    pub tenant_kind: TenantKind,
    /// 1 metadata, 2 customer data, 3 ecosystem.
    pub phase: u8,
    /// How many tenants are written to it at once.
    pub concurrency: u32,
    /// The snapshot that is restored from.
    pub snapshot: SnapshotId,
    /// The position that it goes back to.
    pub point: Position,
    /// The time of that position.
    pub point_time: Timestamp,
    /// How the store writes positions.
    pub notation: PositionNotation,
}

/// Columns whose values are also those of another table, perhaps of another store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignLink {
    /// The store that refers.
    pub store: u32,
    /// Its table.
    pub table: String,
    /// Its column; NULL refers to nothing.
    pub column: String,
    /// The store that is referred to.
    pub parent_store: u32,
    /// Its table.
    pub parent_table: String,
    /// Its column.
    pub parent_column: String,
}

/// Tenants that were planned together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignBatch {
    /// The stored plan of each store; none where none of the batch's tenants is.
    pub plans: Vec<Option<BatchPlan>>,
}

/// A stored plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    /// The job that applies it.
    pub job: JobId,
    /// The object that holds it, in the store's repository.
    pub object: ObjectId,
    /// Its digest.
    pub digest: Digest,
}

/// A tenant of a campaign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignTenant {
    /// The site's id.
    pub site: TenantId,
    /// Its batch.
    pub batch: u32,
    /// Why nothing of it is restored, if that was known when it was planned.
    pub parked: Option<String>,
    /// What it is in each store; none where it is not.
    pub parts: Vec<Option<CampaignPart>>,
}

/// A tenant in one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignPart {
    /// Its id there.
    pub tenant: TenantId,
    /// The id that it had there, if somebody else has that by now.
    pub instead_of: Option<TenantId>,
    /// The digest of what it goes back to.
    pub image: Digest,
    /// How many rows change.
    pub counts: ChangeCounts,
    /// How many rows are the same.
    pub same: u64,
    /// How many bytes the repository holds of it.
    pub stored_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireCampaign {
    campaign: [u8; 16],
    repository: [u8; 16],
    estate: String,
    site_kind: String,
    mode: u8,
    asked: String,
    planned_at_micros: i64,
    planned_by: String,
    approvals_needed: u8,
    batch_size: u32,
    stores: Vec<WireCampaignStore>,
    gates: Vec<WireGate>,
    links: Vec<WireLink>,
    close: Option<WireAction>,
    open: Option<WireAction>,
    batches: Vec<Vec<Option<WireBatchPlan>>>,
    tenants: Vec<WireTenant>,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireCampaignStore {
    name: String,
    store: WireStore,
    repository: [u8; 16],
    tenant_kind: String,
    phase: u8,
    concurrency: u32,
    snapshot: [u8; 16],
    point: WirePosition,
    point_time_micros: i64,
    notation: u8,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireLink {
    store: u32,
    table: String,
    column: String,
    parent_store: u32,
    parent_table: String,
    parent_column: String,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireTenant {
    site: Vec<u8>,
    batch: u32,
    parked: Option<String>,
    parts: Vec<Option<WirePart>>,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WirePart {
    tenant: Vec<u8>,
    instead_of: Option<Vec<u8>>,
    image: [u8; 32],
    counts: WireCounts,
    same: u64,
    stored_bytes: u64,
}

/// Writes a campaign; returns it with its digest.
#[must_use]
pub fn encode_campaign(campaign: &CampaignDescription) -> (Vec<u8>, Digest) {
    let batches = campaign.batches.iter().map(|batch| {
        let plans = batch.plans.iter();
        plans.map(|plan| plan.map(WireBatchPlan::from)).collect()
    });
    let wire = WireCampaign {
        campaign: *campaign.campaign.as_bytes(),
        repository: *campaign.repository.as_bytes(),
        estate: campaign.estate.clone(),
        site_kind: campaign.site_kind.as_str().to_owned(),
        mode: campaign.mode as u8,
        asked: campaign.asked.clone(),
        planned_at_micros: campaign.planned_at.as_micros(),
        planned_by: campaign.planned_by.clone(),
        approvals_needed: campaign.approvals_needed,
        batch_size: campaign.batch_size,
        stores: campaign
            .stores
            .iter()
            .map(WireCampaignStore::from)
            .collect(),
        gates: campaign.gates.iter().map(WireGate::from).collect(),
        links: campaign.links.iter().map(WireLink::from).collect(),
        close: campaign.close.as_ref().map(WireAction::from),
        open: campaign.open.as_ref().map(WireAction::from),
        batches: batches.collect(),
        tenants: campaign.tenants.iter().map(WireTenant::from).collect(),
    };
    CAMPAIGN.encode(&wire)
}

/// Reads the campaign of this id in this repository; returns it with its digest.
///
/// # Errors
/// Any of the frame's; `Foreign` if it is another one; `Malformed` if a value cannot be, or a place
/// that it names is none of its own.
pub fn decode_campaign(
    bytes: &[u8],
    repository: RepositoryId,
    expected: CampaignId,
) -> Result<(CampaignDescription, Digest), FormatError> {
    let (wire, digest) = CAMPAIGN.decode::<WireCampaign>(bytes)?;
    let structure = CAMPAIGN.structure;
    let found = CampaignId::from_bytes(wire.campaign);
    if found != expected || wire.repository != *repository.as_bytes() {
        return Err(FormatError::Foreign {
            structure,
            expected: format!("campaign {expected} of repository {repository}"),
            found: format!(
                "campaign {found} of repository {}",
                RepositoryId::from_bytes(wire.repository)
            ),
        });
    }
    let mode = match wire.mode {
        0 => CampaignMode::Chosen,
        1 => CampaignMode::Everyone,
        mode => {
            let message = format!("unknown mode {mode}");
            return Err(FormatError::malformed(structure, message));
        }
    };
    let action = |action: Option<WireAction>| action.map(|action| action.into_action(structure));
    let batches = wire.batches.into_iter().map(|plans| CampaignBatch {
        plans: plans
            .into_iter()
            .map(|plan| plan.map(BatchPlan::from))
            .collect(),
    });
    let campaign = CampaignDescription {
        campaign: found,
        repository,
        estate: wire.estate,
        site_kind: wire::tenant_kind(structure, &wire.site_kind)?,
        mode,
        asked: wire.asked,
        planned_at: Timestamp::from_micros(wire.planned_at_micros),
        planned_by: wire.planned_by,
        approvals_needed: wire.approvals_needed,
        batch_size: wire.batch_size,
        stores: wire
            .stores
            .into_iter()
            .map(WireCampaignStore::into_store)
            .collect::<Result<_, _>>()?,
        gates: wire
            .gates
            .into_iter()
            .map(|gate| gate.into_gate(structure))
            .collect::<Result<_, _>>()?,
        links: wire.links.into_iter().map(CampaignLink::from).collect(),
        close: action(wire.close).transpose()?,
        open: action(wire.open).transpose()?,
        batches: batches.collect(),
        tenants: wire
            .tenants
            .into_iter()
            .map(WireTenant::into_tenant)
            .collect::<Result<_, _>>()?,
    };
    check_places(&campaign)?;
    Ok((campaign, digest))
}

/// Whoever reads a campaign looks its places up without asking: they have to be there.
fn check_places(campaign: &CampaignDescription) -> Result<(), FormatError> {
    use super::action::{CampaignCheck, CampaignStep};
    let stores = campaign.stores.len();
    let is_store = |place: u32| (place as usize) < stores;
    let is_step = |step: &CampaignStep| match step {
        CampaignStep::Sql { store, .. } => is_store(*store),
        CampaignStep::Command(_) => true,
    };
    let actions = campaign.close.iter().chain(&campaign.open);
    let gates = campaign.gates.iter().all(|gate| match &gate.check {
        CampaignCheck::Step { step, .. } => is_step(step),
        CampaignCheck::Acceptance => true,
    });
    let links = campaign.links.iter();
    let batches = &campaign.batches;
    let tenants = campaign.tenants.iter().all(|tenant| {
        let batch = batches.get(tenant.batch as usize);
        let parts = tenant.parts.iter().map(Option::is_some);
        batch.is_some_and(|batch| {
            let plans = batch.plans.iter().map(Option::is_some);
            tenant.parts.len() == stores && parts.zip(plans).all(|(part, plan)| plan || !part)
        })
    });
    let is_sound = actions.map(|action| &action.step).all(is_step)
        && gates
        && { links }.all(|link| is_store(link.store) && is_store(link.parent_store))
        && batches.iter().all(|batch| batch.plans.len() == stores)
        && tenants;
    if is_sound {
        return Ok(());
    }
    let message = "it names a store, a batch or a plan that it does not have";
    Err(FormatError::malformed(
        CAMPAIGN.structure,
        message.to_owned(),
    ))
}

impl From<&CampaignStore> for WireCampaignStore {
    fn from(store: &CampaignStore) -> Self {
        Self {
            name: store.name.clone(),
            store: WireStore::from(&store.store),
            repository: *store.repository.as_bytes(),
            tenant_kind: store.tenant_kind.as_str().to_owned(),
            phase: store.phase,
            concurrency: store.concurrency,
            snapshot: *store.snapshot.as_bytes(),
            point: store.point.into(),
            point_time_micros: store.point_time.as_micros(),
            notation: wire::notation_number(store.notation),
        }
    }
}

impl WireCampaignStore {
    fn into_store(self) -> Result<CampaignStore, FormatError> {
        let structure = CAMPAIGN.structure;
        Ok(CampaignStore {
            name: self.name,
            store: self.store.into(),
            repository: RepositoryId::from_bytes(self.repository),
            tenant_kind: wire::tenant_kind(structure, &self.tenant_kind)?,
            phase: self.phase,
            concurrency: self.concurrency,
            snapshot: SnapshotId::from_bytes(self.snapshot),
            point: self.point.into(),
            point_time: Timestamp::from_micros(self.point_time_micros),
            notation: wire::notation(structure, self.notation)?,
        })
    }
}

impl From<&CampaignLink> for WireLink {
    fn from(link: &CampaignLink) -> Self {
        Self {
            store: link.store,
            table: link.table.clone(),
            column: link.column.clone(),
            parent_store: link.parent_store,
            parent_table: link.parent_table.clone(),
            parent_column: link.parent_column.clone(),
        }
    }
}

impl From<WireLink> for CampaignLink {
    fn from(link: WireLink) -> Self {
        Self {
            store: link.store,
            table: link.table,
            column: link.column,
            parent_store: link.parent_store,
            parent_table: link.parent_table,
            parent_column: link.parent_column,
        }
    }
}

impl From<&CampaignTenant> for WireTenant {
    fn from(tenant: &CampaignTenant) -> Self {
        let parts = tenant.parts.iter();
        Self {
            site: tenant.site.as_bytes().to_vec(),
            batch: tenant.batch,
            parked: tenant.parked.clone(),
            parts: parts
                .map(|part| part.as_ref().map(WirePart::from))
                .collect(),
        }
    }
}

impl WireTenant {
    fn into_tenant(self) -> Result<CampaignTenant, FormatError> {
        let parts = self.parts.into_iter();
        let parts = parts.map(|part| part.map(WirePart::into_part).transpose());
        Ok(CampaignTenant {
            site: wire::tenant_id(CAMPAIGN.structure, self.site)?,
            batch: self.batch,
            parked: self.parked,
            parts: parts.collect::<Result<_, _>>()?,
        })
    }
}

impl From<&CampaignPart> for WirePart {
    fn from(part: &CampaignPart) -> Self {
        Self {
            tenant: part.tenant.as_bytes().to_vec(),
            instead_of: part.instead_of.as_ref().map(|id| id.as_bytes().to_vec()),
            image: *part.image.as_bytes(),
            counts: part.counts.into(),
            same: part.same,
            stored_bytes: part.stored_bytes,
        }
    }
}

impl WirePart {
    fn into_part(self) -> Result<CampaignPart, FormatError> {
        Ok(CampaignPart {
            tenant: wire::tenant_id(CAMPAIGN.structure, self.tenant)?,
            instead_of: self
                .instead_of
                .map(|id| wire::tenant_id(CAMPAIGN.structure, id))
                .transpose()?,
            image: Digest::from_bytes(self.image),
            counts: self.counts.into(),
            same: self.same,
            stored_bytes: self.stored_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::check_frame_against_bincode;

    #[test]
    fn the_layout_is_that_of_bincode() {
        let golden = include_bytes!("../../tests/golden/v1/campaign");
        check_frame_against_bincode::<WireCampaign>(&CAMPAIGN, golden);
    }
}
