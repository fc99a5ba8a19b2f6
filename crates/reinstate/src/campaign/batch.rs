//! Planning the tenants of one batch in every store.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use reinstate_core::{
    ChangeCounts, ErrorKind, JobId, ObjectId, ObjectWriter, Repository, RepositoryError, Tenant,
    TenantId,
};
use reinstate_format::{
    BatchPlan, CampaignBatch, CampaignMode, CampaignPart, CampaignTenant, TenantPlanDescription,
};

use super::plan::{CampaignRequest, PlannedStore, SiteRequest, is_of_the_tenant, job_of, name};
use crate::image::TenantImage;
use crate::plan::{
    OwnerCheck, PlanRequest, WrittenPlan, is_blocked, obstacles, plan_elsewhere, plan_side_by_side,
};
use crate::{Context, Error};

/// A batch that was planned.
pub(super) struct PlannedBatch<'r> {
    /// Its plans. Those that are not sealed have no name yet.
    pub(super) batch: CampaignBatch,
    /// The objects of its plans, by store, as far as they are not sealed.
    pub(super) unsealed: Vec<Option<Box<dyn ObjectWriter + 'r>>>,
    /// Its tenants.
    pub(super) tenants: Vec<CampaignTenant>,
}

/// What keeps tenants from being restored, by site.
pub(super) type UnfitMap = BTreeMap<TenantId, (ErrorKind, String)>;

/// Plans the tenants of a batch in every store, and notes those that cannot be restored.
pub(super) fn plan_batch<'r>(
    context: Context<'_>,
    request: &CampaignRequest<'r>,
    number: u32,
    sites: &[SiteRequest],
    unfit: &mut UnfitMap,
) -> Result<PlannedBatch<'r>, Error> {
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
    let mut unsealed = Vec::with_capacity(request.stores.len());
    for (place, mut images) in all_images.into_iter().enumerate() {
        images.retain(|(site, _)| !unfit.contains_key(&sites[*site].site));
        let job = job_of(request.campaign, number, place, 0);
        let written = plan_store(context, request, (place, job), sites, &mut images, unfit)?;
        let Some((written, object)) = written else {
            plans.push(None);
            unsealed.push(None);
            continue;
        };
        for (site, image, part) in parts(&images, &written) {
            tenants[site].parts[place] = Some(describe_part(image, part));
        }
        unsealed.push(Some(object));
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
        unsealed,
        tenants,
    })
}

impl PlannedBatch<'_> {
    /// Makes its plans visible.
    pub(super) fn seal(&mut self) -> Result<(), Error> {
        for (plan, object) in self.batch.plans.iter_mut().zip(&mut self.unsealed) {
            if let (Some(plan), Some(object)) = (plan, object.take()) {
                let sealed = object.seal();
                plan.object = sealed.map_err(Error::repository("keep the plan"))?;
            }
        }
        Ok(())
    }
}

/// The images of a batch's tenants in one store, with the places of their sites.
pub(super) fn extract(
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

/// What a batch's plan in a store is made for.
pub(super) fn plan_request<'p>(
    request: &CampaignRequest<'p>,
    place: usize,
    job: JobId,
) -> PlanRequest<'p> {
    let store = &request.stores[place];
    PlanRequest {
        job,
        repository: store.repository.id(),
        policy: request.policy,
        drift: store.drift.clone(),
        check_owners: match request.mode {
            CampaignMode::Chosen if store.check_owners => OwnerCheck::In(store.repository),
            // Nothing is deleted from a store that is empty.
            _ => OwnerCheck::Off,
        },
        planned_at: request.planned_at,
    }
}

/// A plan that was written, and its object, which nobody finds before it is sealed.
pub(super) type Unsealed<'r> = (WrittenPlan, Box<dyn ObjectWriter + 'r>);

/// Writes a plan into an object of the repository that is not sealed yet: of a campaign that is refused
/// nothing is left.
pub(super) fn write_unsealed<'r>(
    repository: &'r dyn Repository,
    write: impl FnOnce(Box<dyn ObjectWriter + '_>) -> Result<WrittenPlan, Error>,
) -> Result<Unsealed<'r>, Error> {
    let created = repository.create_object();
    let created = created.map_err(Error::repository("keep the plan"))?;
    let object = Mutex::new(created);
    let written = write(Box::new(Passing(&object)))?;
    let object = object.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((written, object))
}

/// Plans the tenants of a batch in one store. If that cannot be done for some of them, those are found
/// out, noted, taken out, and the others planned.
pub(super) fn plan_store<'r>(
    context: Context<'_>,
    request: &CampaignRequest<'r>,
    (place, job): (usize, JobId),
    sites: &[SiteRequest],
    images: &mut Vec<(usize, TenantImage)>,
    unfit: &mut UnfitMap,
) -> Result<Option<Unsealed<'r>>, Error> {
    let store = &request.stores[place];
    if images.is_empty() {
        return Ok(None);
    }
    let plan_request = plan_request(request, place, job);
    let attempt = |images: &[TenantImage], output: Box<dyn ObjectWriter + '_>| match request.mode {
        CampaignMode::Chosen => {
            plan_side_by_side(context, images, store.live, &plan_request, output)
        }
        CampaignMode::Everyone => {
            plan_elsewhere(context, images, store.live, &plan_request, output)
        }
    };
    let keep = |images: &[(usize, TenantImage)]| {
        let images: Vec<_> = images.iter().map(|(_, image)| image.clone()).collect();
        write_unsealed(store.repository, |output| attempt(&images, output))
    };
    match keep(images) {
        Ok(written) => return Ok(Some(written)),
        Err(error) if !is_of_the_tenant(error.kind()) => return Err(in_store(store, error)),
        Err(_) => {}
    }
    let mut kept = Vec::with_capacity(images.len());
    for (site, image) in std::mem::take(images) {
        match attempt(std::slice::from_ref(&image), Box::new(Discard)) {
            Ok(_) => kept.push((site, image)),
            Err(error) if is_of_the_tenant(error.kind()) => {
                note_unfit(&sites[site].site, store, &error, unfit);
            }
            Err(error) => return Err(in_store(store, error)),
        }
    }
    *images = kept;
    if images.is_empty() {
        return Ok(None);
    }
    keep(images).map(Some)
}

/// Notes the tenants whose part cannot be merged as it is.
pub(super) fn note_blocked(
    request: &CampaignRequest<'_>,
    place: usize,
    sites: &[SiteRequest],
    (images, written): (&[(usize, TenantImage)], &WrittenPlan),
    unfit: &mut UnfitMap,
) {
    let store = &request.stores[place];
    let description = &written.description;
    for (site, _, part) in parts(images, written) {
        let notes: Vec<_> = obstacles(description, part)
            .map(|note| format!("{} {}", note.object, note.detail))
            .collect();
        let (kind, fact) = if is_blocked(request.policy, part) {
            let conflicts: u64 = part.tables.iter().map(|table| table.conflicts).sum();
            let fact = format!("{conflicts} of its rows conflict with rows that are there");
            (ErrorKind::Conflict, fact)
        } else if let Some(rows) = rows_of_somebody_else(request, part) {
            let fact = format!(
                "its id is somebody else's: {rows} rows are under it, and none that it had"
            );
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
            .entry(sites[site].site.clone())
            .or_insert((kind, reason));
    }
}

/// What a plan has of each image, with the place of its site. A plan has an order of its own.
fn parts<'a>(
    images: &'a [(usize, TenantImage)],
    written: &'a WrittenPlan,
) -> impl Iterator<Item = (usize, &'a TenantImage, &'a TenantPlanDescription)> {
    let parts = written.description.tenants.iter();
    let parts: BTreeMap<&TenantId, _> = parts.map(|part| (&part.tenant, part)).collect();
    images
        .iter()
        .filter_map(move |(site, image)| Some((*site, image, *parts.get(&image.tenant().id)?)))
}

/// Something is wrong with a store: says with which.
pub(super) fn in_store(store: &PlannedStore<'_>, error: Error) -> Error {
    let message = format!("plan a batch in store {}", store.name);
    Error::because(error.kind(), message, error)
}

pub(super) fn note_unfit(
    site: &TenantId,
    store: &PlannedStore<'_>,
    error: &Error,
    unfit: &mut UnfitMap,
) {
    let reason = format!("store {}: {}", store.name, crate::verify::chain(error));
    unfit.entry(site.clone()).or_insert((error.kind(), reason));
}

pub(super) fn describe_part(image: &TenantImage, part: &TenantPlanDescription) -> CampaignPart {
    let tables = || part.tables.iter();
    CampaignPart {
        tenant: part.tenant.clone(),
        instead_of: None,
        image: part.image_digest,
        counts: tables().fold(ChangeCounts::NONE, |mut sum, table| {
            sum += table.counts;
            sum
        }),
        same: tables().map(|table| table.same).sum(),
        stored_bytes: image.stored_bytes(),
    }
}

/// How many rows are under a tenant's id, if none of them is one that it had: then they are those of
/// somebody who has the id by now. Whether that can be is for whoever plans to say.
fn rows_of_somebody_else(
    request: &CampaignRequest<'_>,
    part: &TenantPlanDescription,
) -> Option<u64> {
    request.remapping.as_ref()?;
    let (mut had, mut others) = (0, 0);
    for table in &part.tables {
        had += table.same + table.counts.put_back;
        others += table.counts.deleted;
    }
    (had == 0 && others > 0).then_some(others)
}

/// Hands on what is written, and leaves the sealing to whoever holds the object.
struct Passing<'p, 'r>(&'p Mutex<Box<dyn ObjectWriter + 'r>>);

impl ObjectWriter for Passing<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), RepositoryError> {
        let mut object = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        object.write(bytes)
    }

    fn seal(self: Box<Self>) -> Result<ObjectId, RepositoryError> {
        Ok(ObjectId::from_bytes([0; 16]))
    }
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
