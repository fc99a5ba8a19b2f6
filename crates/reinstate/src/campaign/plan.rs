//! Planning a campaign: stored plans for each batch and store, and the record that binds them.
//!
//! Nothing is written to a live store. What keeps a tenant from being restored is found out for all
//! of them before anything is refused, so that one answer names everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use reinstate_core::{
    CampaignId, ChangeCounts, ErrorKind, JobId, LiveStore, ObjectId, ObjectWriter, Policy,
    Repository, RepositoryError, SnapshotDescription, Tenant, TenantId, TenantKind, Timestamp,
};
use reinstate_format::{
    BatchPlan, CampaignAction, CampaignBatch, CampaignDescription, CampaignEntry, CampaignGate,
    CampaignLink, CampaignMode, CampaignPart, CampaignStore, CampaignTenant, EntryKind,
    TenantPlanDescription,
};

use super::journal::campaign_journal;
use super::ports::Images;
use super::record::{StoredCampaign, campaigns, store_campaign};
use super::state::{CampaignStage, campaign_state};
use crate::drift::DriftRules;
use crate::image::{RestorePoint, TenantImage};
use crate::plan::{OwnerCheck, PlanRequest, WrittenPlan, is_blocked, obstacles, plan};
use crate::{Context, Error};

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
/// otherwise whatever is wrong with a store as a whole. Nothing is kept then but plans that nobody names.
pub fn plan_campaign(
    context: Context<'_>,
    request: &CampaignRequest<'_>,
) -> Result<CampaignPlanned, Error> {
    check_request(request)?;
    check_overlap(request)?;
    let mut unfit = BTreeMap::new();
    let mut batches = Vec::new();
    let mut tenants = Vec::with_capacity(request.tenants.len());
    let size = usize::try_from(request.batch_size.max(1)).unwrap_or(usize::MAX);
    for (number, sites) in (0..).zip(request.tenants.chunks(size)) {
        let planned = plan_batch(context, request, number, sites, &mut unfit)?;
        batches.push(planned.batch);
        tenants.extend(planned.tenants);
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
    for tenant in &mut tenants {
        tenant.parked = unfit.remove(&tenant.site).map(|(_, reason)| reason);
    }
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
        approvals_needed: request.approvals_needed,
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
    Ok(())
}

/// A tenant that is in a campaign that is not over cannot be in another one.
fn check_overlap(request: &CampaignRequest<'_>) -> Result<(), Error> {
    let sites: BTreeSet<&TenantId> = request.tenants.iter().map(|site| &site.site).collect();
    for other in campaigns(request.repository)? {
        if other.description().site_kind != request.site_kind {
            continue;
        }
        let journal = campaign_journal(request.repository, &other)?;
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
                "plan a campaign: {}:{site} is in campaign {short}, which is not over: finish it \
                 with `reinstate campaign resume {short}`, or end it with `reinstate campaign abort \
                 {short}`",
                request.site_kind
            );
            return Err(Error::new(ErrorKind::Locked, message));
        }
    }
    Ok(())
}

struct PlannedBatch {
    batch: CampaignBatch,
    tenants: Vec<CampaignTenant>,
}

type UnfitMap = BTreeMap<TenantId, (ErrorKind, String)>;

fn plan_batch(
    context: Context<'_>,
    request: &CampaignRequest<'_>,
    number: u32,
    sites: &[SiteRequest],
    unfit: &mut UnfitMap,
) -> Result<PlannedBatch, Error> {
    let tenants = sites.iter().map(|site| CampaignTenant {
        site: site.site.clone(),
        batch: number,
        parked: None,
        parts: vec![None; request.stores.len()],
    });
    let mut tenants: Vec<_> = tenants.collect();
    let mut all_images = Vec::with_capacity(request.stores.len());
    for place in 0..request.stores.len() {
        all_images.push(extract(context, request, place, sites, unfit)?);
    }
    let mut plans = Vec::with_capacity(request.stores.len());
    for (place, mut images) in all_images.into_iter().enumerate() {
        images.retain(|(site, _)| !unfit.contains_key(&sites[*site].site));
        let job = job_of(request.campaign, number, place, 0);
        let written = plan_store(context, request, (place, job), sites, &mut images, unfit)?;
        let Some(written) = written else {
            plans.push(None);
            continue;
        };
        for ((site, image), part) in images.iter().zip(&written.description.tenants) {
            tenants[*site].parts[place] = Some(describe_part(image, part));
        }
        note_blocked(request, place, sites, (&images, &written), unfit);
        plans.push(Some(BatchPlan {
            job,
            object: written.object,
            digest: written.digest,
        }));
    }
    for (site, tenant) in sites.iter().zip(&tenants) {
        let parts = tenant.parts.iter().flatten();
        if !unfit.contains_key(&site.site)
            && parts.map(|part| part.counts.total()).sum::<u64>() == 0
        {
            let reason = match tenant.parts.iter().all(Option::is_none) {
                true => "it was in none of the stores then",
                false => "nothing to restore: it is in every store as it was then",
            };
            let reason = reason.to_owned();
            unfit.insert(site.site.clone(), (ErrorKind::Usage, reason));
        }
    }
    Ok(PlannedBatch {
        batch: CampaignBatch { plans },
        tenants,
    })
}

/// The images of a batch's tenants in one store, with the places of their sites.
fn extract(
    context: Context<'_>,
    request: &CampaignRequest<'_>,
    place: usize,
    sites: &[SiteRequest],
    unfit: &mut UnfitMap,
) -> Result<Vec<(usize, TenantImage)>, Error> {
    let store = &request.stores[place];
    for site in sites.iter().filter(|site| site.ids[place].is_none()) {
        if !store.may_be_absent {
            let reason = format!("store {}: it has no id there", store.name);
            unfit
                .entry(site.site.clone())
                .or_insert((ErrorKind::NotFound, reason));
        }
    }
    let wanted = sites.iter().enumerate().filter_map(|(site, tenant)| {
        let id = tenant.ids[place].clone()?;
        let kind = store.live.tenant_kind().clone();
        Some((site, Tenant { kind, id }))
    });
    let (places, tenants): (Vec<usize>, Vec<Tenant>) = wanted.unzip();
    if tenants.is_empty() {
        return Ok(Vec::new());
    }
    context.check()?;
    let found = store.images.images(context, &tenants)?;
    let mut images = Vec::with_capacity(found.len());
    for (site, image) in places.into_iter().zip(found) {
        match image {
            Ok(image) => images.push((site, image)),
            Err(error) if error.kind() == ErrorKind::NotFound && store.may_be_absent => {}
            Err(error) if is_of_the_tenant(error.kind()) => {
                note_unfit(&sites[site].site, store, &error, unfit);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(images)
}

/// Plans the tenants of a batch in one store. If that cannot be done for some of them, those are found
/// out, noted, taken out, and the others planned.
fn plan_store(
    context: Context<'_>,
    request: &CampaignRequest<'_>,
    (place, job): (usize, JobId),
    sites: &[SiteRequest],
    images: &mut Vec<(usize, TenantImage)>,
    unfit: &mut UnfitMap,
) -> Result<Option<WrittenPlan>, Error> {
    let store = &request.stores[place];
    if images.is_empty() {
        return Ok(None);
    }
    let plan_request = PlanRequest {
        job,
        repository: store.repository.id(),
        policy: request.policy,
        drift: store.drift.clone(),
        check_owners: match store.check_owners {
            true => OwnerCheck::In(store.repository),
            false => OwnerCheck::Off,
        },
        planned_at: request.planned_at,
    };
    let attempt = |images: &[TenantImage], output: Box<dyn ObjectWriter + '_>| {
        plan(context, images, store.live, &plan_request, output)
    };
    let keep = || {
        let created = store.repository.create_object();
        created.map_err(Error::repository("keep the plan"))
    };
    let chosen = |images: &[(usize, TenantImage)]| -> Vec<TenantImage> {
        images.iter().map(|(_, image)| image.clone()).collect()
    };
    match attempt(&chosen(images), keep()?) {
        Ok(written) => return Ok(Some(written)),
        Err(error) if !is_of_the_tenant(error.kind()) => return Err(error),
        Err(_) => {}
    }
    let mut kept = Vec::with_capacity(images.len());
    for (site, image) in std::mem::take(images) {
        match attempt(std::slice::from_ref(&image), Box::new(Discard)) {
            Ok(_) => kept.push((site, image)),
            Err(error) if is_of_the_tenant(error.kind()) => {
                note_unfit(&sites[site].site, store, &error, unfit);
            }
            Err(error) => return Err(error),
        }
    }
    *images = kept;
    if images.is_empty() {
        return Ok(None);
    }
    attempt(&chosen(images), keep()?).map(Some)
}

/// Notes the tenants whose part cannot be merged as it is.
fn note_blocked(
    request: &CampaignRequest<'_>,
    place: usize,
    sites: &[SiteRequest],
    (images, written): (&[(usize, TenantImage)], &WrittenPlan),
    unfit: &mut UnfitMap,
) {
    let store = &request.stores[place];
    let description = &written.description;
    for ((site, _), part) in images.iter().zip(&description.tenants) {
        let notes: Vec<_> = obstacles(description, part)
            .map(|note| format!("{} {}", note.object, note.detail))
            .collect();
        let (kind, fact) = if is_blocked(request.policy, part) {
            let conflicts: u64 = part.tables.iter().map(|table| table.conflicts).sum();
            let fact = format!("{conflicts} of its rows conflict with rows that are there");
            (ErrorKind::Conflict, fact)
        } else if notes.is_empty() {
            continue;
        } else {
            (ErrorKind::Refused, notes.join("; "))
        };
        let reason = format!(
            "store {}, {}: {fact}",
            store.name,
            name(store, &part.tenant)
        );
        unfit
            .entry(sites[*site].site.clone())
            .or_insert((kind, reason));
    }
}

fn note_unfit(site: &TenantId, store: &PlannedStore<'_>, error: &Error, unfit: &mut UnfitMap) {
    let reason = format!("store {}: {}", store.name, crate::verify::chain(error));
    unfit.entry(site.clone()).or_insert((error.kind(), reason));
}

fn describe_part(image: &TenantImage, part: &TenantPlanDescription) -> CampaignPart {
    let tables = || part.tables.iter();
    CampaignPart {
        tenant: part.tenant.clone(),
        image: part.image_digest,
        counts: tables().fold(ChangeCounts::NONE, |mut sum, table| {
            sum += table.counts;
            sum
        }),
        same: tables().map(|table| table.same).sum(),
        stored_bytes: image.stored_bytes(),
    }
}

fn name(store: &PlannedStore<'_>, id: &TenantId) -> String {
    format!("{}:{id}", store.live.tenant_kind())
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

/// A plan that nobody keeps: it is made to see whether it can be.
struct Discard;

impl ObjectWriter for Discard {
    fn write(&mut self, _bytes: &[u8]) -> Result<(), RepositoryError> {
        Ok(())
    }

    fn seal(self: Box<Self>) -> Result<ObjectId, RepositoryError> {
        Ok(ObjectId::from_bytes([0; 16]))
    }
}
