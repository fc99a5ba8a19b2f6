//! Every site there was: the tenants of all stores, and that none of them is left out.

use std::collections::BTreeSet;

use reinstate::{SiteRequest, tenants, tenants_at};
use reinstate_core::{ErrorKind, Silent, Tenant, TenantId};

use super::estate::{Estate, OpenStore};
use super::ids::site_requests;
use crate::configuration::IdRule;
use crate::failure::Failure;
use crate::resolve::Resolved;

/// How many tenants that belong to no site are named.
const NAMED_MAX: usize = 10;

/// The sites of an estate at a point, with their ids in each store. The first store whose tenants have
/// the sites' own ids says which sites there were.
///
/// # Errors
/// Usage if no store has the sites' own ids; `NotFound` if a store has tenants of no site: they would be
/// left out.
pub fn everyone(
    estate: &Estate<'_>,
    stores: &[OpenStore],
    resolved: &[Resolved],
) -> anyhow::Result<(Vec<Tenant>, Vec<SiteRequest>)> {
    let first = stores.iter().position(|store| store.of.ids == IdRule::Same);
    let Some(first) = first else {
        let message =
            "no store of the estate has the sites' own ids: nothing says which sites there were";
        return Err(Failure::usage(message)
            .next("name the sites: --tenants-from FILE")
            .into());
    };
    let mut present = Vec::with_capacity(stores.len());
    for (store, resolved) in stores.iter().zip(resolved) {
        present.push(tenants_of(estate, store, resolved)?);
    }
    let sites: Vec<Tenant> = present[first]
        .iter()
        .map(|id| Tenant {
            kind: estate.configuration.kind.clone(),
            id: id.clone(),
        })
        .collect();
    let requests = site_requests(&sites, stores)?;
    for (place, (store, present)) in stores.iter().zip(&present).enumerate() {
        let known: BTreeSet<&TenantId> = requests
            .iter()
            .filter_map(|request| request.ids[place].as_ref())
            .collect();
        let lost: Vec<String> = present
            .iter()
            .filter(|id| !known.contains(id))
            .map(|id| format!("{}:{id}", store.live.tenant_kind()))
            .collect();
        if !lost.is_empty() {
            let message = format!(
                "{} tenants of store {:?} belong to no site of store {:?}: {}",
                lost.len(),
                store.of.name,
                stores[first].of.name,
                lost.iter()
                    .take(NAMED_MAX)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            return Err(Failure::new(ErrorKind::NotFound, message)
                .next("correct ids in the estate file")
                .into());
        }
    }
    Ok((sites, requests))
}

/// Everybody who had rows in a store at a point.
fn tenants_of(
    estate: &Estate<'_>,
    store: &OpenStore,
    resolved: &Resolved,
) -> anyhow::Result<BTreeSet<TenantId>> {
    let mut found = BTreeSet::new();
    let repository = &store.repository;
    if resolved.point.position == resolved.snapshot.position {
        tenants(repository, &resolved.snapshot, |summary| {
            found.insert(summary.tenant);
            Ok(())
        })?;
        return Ok(found);
    }
    let context = estate
        .engine
        .context(&Silent, estate.interruption.cancellation());
    let position = resolved.point.position;
    tenants_at(context, repository, &resolved.log, position, |id, _| {
        found.insert(id.clone());
        Ok(())
    })?;
    Ok(found)
}
