//! Sites whose id, or whose own keys, somebody else has in a store by now: restored there under another id,
//! as a copy is. Only where that was allowed, and where it is so.
//!
//! Each is a batch of its own, after the others: its plan in that store is one of a copy, which holds one
//! tenant. Everything else about it is as for any site.

use std::collections::BTreeMap;
use std::io;

use reinstate_core::{ErrorKind, RowRef, TableSchema, Tenant, TenantId};
use reinstate_format::{BatchPlan, CampaignBatch, CampaignTenant};

use super::batch::{
    PlannedBatch, UnfitMap, Unsealed, describe_part, extract, in_store, note_blocked, note_unfit,
    plan_request, plan_store, write_unsealed,
};
use super::plan::{CampaignRequest, SiteRequest, is_of_the_tenant, job_of};
use crate::image::TenantImage;
use crate::into::{CopyRequest, CopyRules};
use crate::plan::plan_copy;
use crate::{Context, Error};

/// Is told of every row that is restored under another id: the store, the site, the table, the row as it
/// was, and as it will be.
pub type SiteRemap<'r> =
    dyn Fn(&str, &Tenant, &TableSchema, RowRef<'_>, RowRef<'_>) -> io::Result<()> + 'r;

/// What becomes of sites whose id somebody else has in a store by now.
pub struct Remapping<'r> {
    /// The ids for that, by site: one for each store; none where there is none for it. Nobody may have rows
    /// under them.
    pub ids: BTreeMap<TenantId, Vec<Option<TenantId>>>,
    /// What becomes of single columns, by store.
    pub rules: Vec<CopyRules>,
    /// Who is told which key became which.
    pub told: &'r SiteRemap<'r>,
}

impl std::fmt::Debug for Remapping<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Remapping({} sites)", self.ids.len())
    }
}

/// Plans a site that cannot be restored under its own ids, with others where those are taken. None, and the
/// reason noted, if that cannot be either.
pub(super) fn plan_remapped<'r>(
    context: Context<'_>,
    request: &CampaignRequest<'r>,
    number: u32,
    site: &SiteRequest,
    unfit: &mut UnfitMap,
) -> Result<Option<PlannedBatch<'r>>, Error> {
    let sites = std::slice::from_ref(site);
    let count = request.stores.len();
    let mut tenant = CampaignTenant {
        site: site.site.clone(),
        batch: number,
        parked: None,
        parts: vec![None; count],
    };
    let (mut plans, mut unsealed) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for place in 0..count {
        let mut why = UnfitMap::new();
        let images = extract(context, request, place, sites, &mut why)?;
        let job = job_of(request.campaign, number, place, 0);
        let planned = plan_place(context, request, (place, job), site, images, &mut why)?;
        if let Some(reason) = why.remove(&site.site) {
            unfit.insert(site.site.clone(), reason);
            return Ok(None);
        }
        let Some((image, (written, object), instead_of)) = planned else {
            plans.push(None);
            unsealed.push(None);
            continue;
        };
        let mut part = describe_part(&image, &written.description.tenants[0]);
        part.instead_of = instead_of;
        tenant.parts[place] = Some(part);
        plans.push(Some(BatchPlan {
            job,
            object: written.object,
            digest: written.digest,
        }));
        unsealed.push(Some(object));
    }
    Ok(Some(PlannedBatch {
        batch: CampaignBatch { plans },
        unsealed,
        tenants: vec![tenant],
    }))
}

type PlannedPlace<'r> = (TenantImage, Unsealed<'r>, Option<TenantId>);

/// Plans the site in one store: under its own id, or under the other one if that is taken.
fn plan_place<'r>(
    context: Context<'_>,
    request: &CampaignRequest<'r>,
    (place, job): (usize, reinstate_core::JobId),
    site: &SiteRequest,
    mut images: Vec<(usize, TenantImage)>,
    why: &mut UnfitMap,
) -> Result<Option<PlannedPlace<'r>>, Error> {
    let sites = std::slice::from_ref(site);
    let own = plan_store(context, request, (place, job), sites, &mut images, why)?;
    let (Some(own), Some((_, image))) = (own, images.first()) else {
        return Ok(None);
    };
    note_blocked(request, place, sites, (&images, &own.0), why);
    let is_taken = matches!(why.get(&site.site), Some((ErrorKind::Conflict, _)));
    let Some(id) = id_instead(request, place, site).filter(|_| is_taken) else {
        return Ok(Some((image.clone(), own, None)));
    };
    let store = &request.stores[place];
    let remapping = request.remapping.as_ref().expect("BUG: an id of nothing");
    let copy = CopyRequest {
        tenant: id.clone(),
        rules: remapping.rules[place].clone(),
    };
    let whose = Tenant {
        kind: request.site_kind.clone(),
        id: site.site.clone(),
    };
    let remap = |table: &TableSchema, old: RowRef<'_>, new: RowRef<'_>| {
        (remapping.told)(&store.name, &whose, table, old, new)
    };
    let plan_request = plan_request(request, place, job);
    let written = write_unsealed(store.repository, |output| {
        plan_copy(
            context,
            image,
            store.live,
            &plan_request,
            &copy,
            &remap,
            output,
        )
    });
    // Whatever was in the way of its own id is not any more.
    why.remove(&site.site);
    match written {
        Ok(written) => {
            note_blocked(request, place, sites, (&images, &written.0), why);
            let had = image.tenant().id.clone();
            Ok(Some((image.clone(), written, Some(had))))
        }
        Err(error) if is_of_the_tenant(error.kind()) => {
            note_unfit(&site.site, store, &error, why);
            Ok(None)
        }
        Err(error) => Err(in_store(store, error)),
    }
}

/// The id under which a site is restored in a store where its own is taken.
fn id_instead<'q>(
    request: &'q CampaignRequest<'_>,
    place: usize,
    site: &SiteRequest,
) -> Option<&'q TenantId> {
    let ids = request.remapping.as_ref()?.ids.get(&site.site)?;
    ids.get(place)?.as_ref()
}
