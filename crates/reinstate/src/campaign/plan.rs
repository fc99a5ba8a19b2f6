//! Planning a campaign: stored plans for each batch and store, and the record that binds them.
//!
//! Nothing is written to a live store. What keeps a tenant from being restored is found out for all
//! of them before anything is refused, so that one answer names everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use reinstate_core::{
    CampaignId, ErrorKind, JobId, LiveStore, OwnedRowBatch, Policy, Repository,
    SnapshotDescription, Tenancy, TenantId, TenantKind, Timestamp,
};
use reinstate_format::{
    CampaignAction, CampaignBatch, CampaignDescription, CampaignEntry, CampaignGate, CampaignLink,
    CampaignMode, CampaignStore, CampaignTenant, EntryKind,
};

use super::batch::{PlannedBatch, plan_batch};
use super::journal::campaign_journal;
use super::ports::Images;
use super::record::{StoredCampaign, campaigns, store_campaign};
use super::remap::{Remapping, plan_remapped};
use super::state::{CampaignStage, campaign_state};
use crate::drift::DriftRules;
use crate::image::RestorePoint;
use crate::{Context, Error};

/// How many plans may wait to be sealed until it is known that the campaign is not refused: each is an
/// open file.
const UNSEALED_MAX: usize = 256;
/// How many people have to approve that sites get other ids.
const APPROVALS_OF_REMAPS: u8 = 2;

/// What a campaign is planned for.
pub struct CampaignRequest<'r> {
    /// The campaign; never used before.
    pub campaign: CampaignId,
    /// Where it is kept, with its journal.
    pub repository: &'r dyn Repository,
    /// What the operators call the estate.
    pub estate: String,
    /// What kind of id the sites have.
    pub site_kind: TenantKind,
    /// What it does.
    pub mode: CampaignMode,
    /// The point in time as it was asked for.
    pub asked: String,
    /// Who plans it.
    pub planned_by: String,
    /// This moment.
    pub planned_at: Timestamp,
    /// How many people have to approve it.
    pub approvals_needed: u8,
    /// How many tenants are planned together, and are under way at once.
    pub batch_size: u32,
    /// Which changes may be made.
    pub policy: Policy,
    /// The stores, in the order in which a tenant goes through them: by phase.
    pub stores: Vec<PlannedStore<'r>>,
    /// What a tenant has to pass.
    pub gates: Vec<CampaignGate>,
    /// Which columns refer to rows of other stores.
    pub links: Vec<CampaignLink>,
    /// What closes a site.
    pub close: Option<CampaignAction>,
    /// What opens it.
    pub open: Option<CampaignAction>,
    /// The tenants, in the order of their priority.
    pub tenants: Vec<SiteRequest>,
    /// What becomes of tenants that cannot be restored.
    pub unfit: Unfit,
    /// What becomes of tenants whose id somebody else has by now; none: they cannot be restored.
    pub remapping: Option<Remapping<'r>>,
}

impl std::fmt::Debug for CampaignRequest<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "CampaignRequest({})", self.campaign)
    }
}

/// A store that a campaign is planned for.
pub struct PlannedStore<'r> {
    /// What the estate calls it.
    pub name: String,
    /// The live store.
    pub live: &'r dyn LiveStore,
    /// The repository with its snapshots, which keeps the plans.
    pub repository: &'r dyn Repository,
    /// 1 metadata, 2 customer data, 3 ecosystem.
    pub phase: u8,
    /// How many tenants are written to it at once.
    pub concurrency: u32,
    /// The snapshot that is restored from.
    pub snapshot: Arc<SnapshotDescription>,
    /// The point that it goes back to.
    pub point: RestorePoint,
    /// The images at that point.
    pub images: &'r dyn Images,
    /// What became of tables that changed after the snapshot.
    pub drift: DriftRules,
    /// Whether rows to delete are looked for among those that other tenants had.
    pub check_owners: bool,
    /// Whether a site may be without rows in it.
    pub may_be_absent: bool,
}

impl std::fmt::Debug for PlannedStore<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "PlannedStore({})", self.name)
    }
}

/// A site that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteRequest {
    /// Its id.
    pub site: TenantId,
    /// Its id in each store; none where it has none.
    pub ids: Vec<Option<TenantId>>,
}

/// What becomes of tenants that cannot be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// No campaign is made.
    Refuse,
    /// They are parked from the beginning, with their reasons.
    Park,
}

/// A tenant that cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfitTenant {
    /// The site.
    pub site: TenantId,
    /// What can be done about it.
    pub kind: ErrorKind,
    /// Why.
    pub reason: String,
}

/// What planning came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CampaignPlanned {
    /// A campaign, to be approved.
    Campaign(Box<StoredCampaign>),
    /// Nothing, because of these.
    Unfit(Vec<UnfitTenant>),
}

/// Plans a campaign and keeps it.
///
/// # Errors
/// `Usage` for no tenants or one twice; `Locked` if another campaign that is not over has one of them;
/// otherwise whatever is wrong with a store as a whole. Nothing is kept then,
/// but for plans of a campaign of many batches, or if the repository fails while they are made visible.
pub fn plan_campaign(
    context: Context<'_>,
    request: &CampaignRequest<'_>,
) -> Result<CampaignPlanned, Error> {
    check_request(request)?;
    check_overlap(request)?;
    if request.mode == CampaignMode::Everyone {
        request.stores.iter().try_for_each(check_shared)?;
    }
    let mut unfit = BTreeMap::new();
    let mut batches: Vec<PlannedBatch<'_>> = Vec::new();
    let mut tenants = Vec::with_capacity(request.tenants.len());
    let size = usize::try_from(request.batch_size.max(1)).unwrap_or(usize::MAX);
    let mut number = 0;
    for sites in request.tenants.chunks(size) {
        let mut planned = plan_batch(context, request, number, sites, &mut unfit)?;
        tenants.append(&mut planned.tenants);
        if batches.len() * request.stores.len() >= UNSEALED_MAX {
            planned.seal()?;
        }
        batches.push(planned);
        number += 1;
    }
    for (place, site) in request.tenants.iter().enumerate() {
        let is_taken = matches!(unfit.get(&site.site), Some((ErrorKind::Conflict, _)));
        if request.remapping.is_none() || !is_taken {
            continue;
        }
        let planned = plan_remapped(context, request, number, site, &mut unfit)?;
        if let Some(mut planned) = planned {
            unfit.remove(&site.site);
            tenants[place] = planned.tenants.remove(0);
            batches.push(planned);
            number += 1;
        }
    }
    let reasons = request.tenants.iter().filter_map(|site| {
        let (kind, reason) = unfit.get(&site.site)?;
        Some(UnfitTenant {
            site: site.site.clone(),
            kind: *kind,
            reason: reason.clone(),
        })
    });
    let reasons: Vec<_> = reasons.collect();
    let is_refused = request.unfit == Unfit::Refuse || reasons.len() == request.tenants.len();
    if is_refused && !reasons.is_empty() {
        return Ok(CampaignPlanned::Unfit(reasons));
    }
    batches.iter_mut().try_for_each(PlannedBatch::seal)?;
    let batches = batches.into_iter().map(|planned| planned.batch).collect();
    for tenant in &mut tenants {
        tenant.parked = unfit.remove(&tenant.site).map(|(_, reason)| reason);
    }
    // Somebody may have planned them meanwhile.
    check_overlap(request)?;
    let campaign = store_campaign(request.repository, describe(request, batches, tenants))?;
    let mut entry = CampaignEntry::new(
        request.planned_at,
        request.planned_by.clone(),
        EntryKind::Planned,
    );
    entry.digest = Some(campaign.digest());
    campaign_journal(request.repository, &campaign)?.append(vec![entry])?;
    Ok(CampaignPlanned::Campaign(Box::new(campaign)))
}

fn describe(
    request: &CampaignRequest<'_>,
    batches: Vec<CampaignBatch>,
    tenants: Vec<CampaignTenant>,
) -> CampaignDescription {
    let stores = request.stores.iter().map(|store| CampaignStore {
        name: store.name.clone(),
        store: store.live.identity(),
        repository: store.repository.id(),
        tenant_kind: store.live.tenant_kind().clone(),
        phase: store.phase,
        concurrency: store.concurrency,
        snapshot: store.snapshot.id,
        point: store.point.position,
        point_time: store.point.time,
        notation: store.snapshot.notation,
    });
    CampaignDescription {
        campaign: request.campaign,
        repository: request.repository.id(),
        estate: request.estate.clone(),
        site_kind: request.site_kind.clone(),
        mode: request.mode,
        asked: request.asked.clone(),
        planned_at: request.planned_at,
        planned_by: request.planned_by.clone(),
        approvals_needed: match tenants.iter().any(is_remapped) {
            true => request.approvals_needed.max(APPROVALS_OF_REMAPS),
            false => request.approvals_needed,
        },
        batch_size: request.batch_size,
        stores: stores.collect(),
        gates: request.gates.clone(),
        links: request.links.clone(),
        close: request.close.clone(),
        open: request.open.clone(),
        batches,
        tenants,
    }
}

/// Whether a tenant gets another id in a store.
fn is_remapped(tenant: &CampaignTenant) -> bool {
    let mut parts = tenant.parts.iter().flatten();
    parts.any(|part| part.instead_of.is_some())
}

fn check_request(request: &CampaignRequest<'_>) -> Result<(), Error> {
    let wrong = |message: String| Err(Error::new(ErrorKind::Usage, message));
    if request.tenants.is_empty() {
        return wrong("plan a campaign: the list of tenants is empty".to_owned());
    }
    let kind = &request.site_kind;
    let mut sites = BTreeSet::new();
    let mut ids: Vec<BTreeMap<&TenantId, &TenantId>> = vec![BTreeMap::new(); request.stores.len()];
    for tenant in &request.tenants {
        let site = &tenant.site;
        if !sites.insert(site) {
            return wrong(format!("plan a campaign: {kind}:{site} is listed twice"));
        }
        for ((store, seen), id) in request.stores.iter().zip(&mut ids).zip(&tenant.ids) {
            let Some(id) = id else { continue };
            if let Some(other) = seen.insert(id, site) {
                return wrong(format!(
                    "plan a campaign: {kind}:{site} and {kind}:{other} are both {} in store {}",
                    name(store, id),
                    store.name
                ));
            }
        }
    }
    let others = request
        .remapping
        .iter()
        .flat_map(|remapping| &remapping.ids);
    for (site, others) in others {
        for ((store, seen), id) in request.stores.iter().zip(&mut ids).zip(others) {
            let Some(id) = id else { continue };
            if let Some(other) = seen.insert(id, site) {
                return wrong(format!(
                    "plan a campaign: the id for {kind}:{site} where its own is taken, {} in store {}, \
                     is also that of {kind}:{other}",
                    name(store, id),
                    store.name
                ));
            }
        }
    }
    Ok(())
}

/// What everybody refers to is not restored: it has to be in a new store before anybody is.
fn check_shared(store: &PlannedStore<'_>) -> Result<(), Error> {
    let reading = || {
        Error::store(format!(
            "read the rows of everybody in store {}",
            store.name
        ))
    };
    let view = store.live.begin_capture().map_err(reading())?;
    for ((_, table), totals) in store.snapshot.schema.iter().zip(&store.snapshot.totals) {
        let found = view.schema().find(table.name.as_str());
        let Some((index, live)) = found.filter(|_| totals.row_count > 0) else {
            continue;
        };
        if live.tenancy != Tenancy::Shared {
            continue;
        }
        let mut batch = OwnedRowBatch::new();
        let mut rows = view.table_rows(index).map_err(reading())?;
        if !rows.next_batch(&mut batch).map_err(reading())? {
            let message = format!(
                "store {} is new, and lacks the rows of everybody: table {} had {} of them and is \
                 empty. Load them first",
                store.name, table.name, totals.row_count
            );
            return Err(Error::new(ErrorKind::Refused, message));
        }
    }
    Ok(())
}

/// A tenant that is in a campaign that is not over cannot be in another one.
fn check_overlap(request: &CampaignRequest<'_>) -> Result<(), Error> {
    let sites: BTreeSet<&TenantId> = request.tenants.iter().map(|site| &site.site).collect();
    let sites = (&request.site_kind, &sites);
    check_elsewhere(
        request.repository,
        "plan a campaign",
        request.campaign,
        sites,
    )
}

/// Makes sure that these tenants of a campaign, by their places, are in no other one that is not over:
/// one that was over may only be gone on with, or taken back, if nobody else has its tenants by now.
///
/// # Errors
/// `Locked` if one is; the message names it.
pub fn check_alone(
    repository: &dyn Repository,
    campaign: &StoredCampaign,
    places: &[u32],
) -> Result<(), Error> {
    let description = campaign.description();
    let sites = places.iter();
    let sites = sites.filter_map(|place| description.tenants.get(*place as usize));
    let sites: BTreeSet<&TenantId> = sites.map(|tenant| &tenant.site).collect();
    let operation = format!("go on with campaign {}", description.campaign.short());
    let sites = (&description.site_kind, &sites);
    check_elsewhere(repository, &operation, description.campaign, sites)
}

fn check_elsewhere(
    repository: &dyn Repository,
    operation: &str,
    campaign: CampaignId,
    (kind, sites): (&TenantKind, &BTreeSet<&TenantId>),
) -> Result<(), Error> {
    if sites.is_empty() {
        return Ok(());
    }
    for other in campaigns(repository)? {
        if other.description().campaign == campaign || other.description().site_kind != *kind {
            continue;
        }
        let journal = campaign_journal(repository, &other)?;
        let state = journal.look(|entries| campaign_state(&other, entries));
        if matches!(
            state.stage,
            CampaignStage::Finished | CampaignStage::Aborted | CampaignStage::Undone
        ) {
            continue;
        }
        let tenants = other.description().tenants.iter();
        let both = tenants
            .map(|tenant| &tenant.site)
            .find(|site| sites.contains(site));
        if let Some(site) = both {
            let short = other.description().campaign.short();
            let message = format!(
                "{operation}: {kind}:{site} is in campaign {short}, which is not over: finish it with \
                 `reinstate campaign resume {short}`, or end it with `reinstate campaign abort {short}`"
            );
            return Err(Error::new(ErrorKind::Locked, message));
        }
    }
    Ok(())
}

/// Whether something is wrong with one tenant, and not with a store as a whole.
pub(super) const fn is_of_the_tenant(kind: ErrorKind) -> bool {
    !matches!(
        kind,
        ErrorKind::Unavailable
            | ErrorKind::Locked
            | ErrorKind::Contended
            | ErrorKind::Full
            | ErrorKind::OutcomeUnknown
            | ErrorKind::Cancelled
            | ErrorKind::Unclassified
            | ErrorKind::Unverified
    )
}

/// The job of a batch in a store: of its restore, or of an attempt to take that back.
pub(super) fn job_of(campaign: CampaignId, batch: u32, store: usize, undo: u32) -> JobId {
    let mut hasher = blake3::Hasher::new_derive_key("reinstate 2026 campaign job v1");
    hasher
        .update(campaign.as_bytes())
        .update(&batch.to_le_bytes())
        .update(&(store as u64).to_le_bytes())
        .update(&undo.to_le_bytes());
    let digest = hasher.finalize();
    let bytes = digest.as_bytes().first_chunk();
    JobId::from_bytes(*bytes.expect("BUG: a digest of less than 16 bytes"))
}

/// A tenant's name in a store.
pub(super) fn name(store: &PlannedStore<'_>, id: &TenantId) -> String {
    format!("{}:{id}", store.live.tenant_kind())
}
