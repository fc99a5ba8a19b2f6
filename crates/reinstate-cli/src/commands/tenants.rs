//! Tenants as they are named on the command line, and their images.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use reinstate::{TenantImage, extract};
use reinstate_core::{ErrorKind, Repository, SnapshotDescription, Tenant};

use crate::arguments::Whose;
use crate::failure::Failure;

/// How many missing tenants are named.
const NAMED_MAX: usize = 10;

/// Reads one tenant.
///
/// # Errors
/// Usage: if it is not KIND:ID.
pub fn parse_tenant(text: &str) -> Result<Tenant, Failure> {
    text.parse().map_err(|error| {
        Failure::usage(format!("{error}")).next("see which tenants there are: reinstate tenants")
    })
}

/// The tenants that the command line names, at least one.
///
/// # Errors
/// Usage: if there are none, one is not KIND:ID, or the file cannot be read.
pub fn parse_tenants(whose: &Whose) -> Result<Vec<Tenant>, Failure> {
    let mut texts = whose.tenants.clone();
    if let Some(path) = &whose.tenants_from {
        let listed = read_list(path)?;
        let lines = listed.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        texts.extend(lines.map(ToOwned::to_owned));
    }
    if texts.is_empty() {
        return Err(
            Failure::usage("the list of tenants is empty: nothing was done")
                .next("see which tenants there are: reinstate tenants"),
        );
    }
    texts.iter().map(|text| parse_tenant(text)).collect()
}

fn read_list(path: &Path) -> Result<String, Failure> {
    let read = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    read.map_err(|error| {
        Failure::usage(format!("read the list of tenants {}", path.display())).because(error)
    })
}

/// The images of all tenants; if some are not in the snapshot, all of those are named at once.
///
/// # Errors
/// `NotFound` if a tenant has no row in the snapshot; otherwise as [`extract`].
pub fn extract_all(
    repository: &dyn Repository,
    snapshot: &Arc<SnapshotDescription>,
    tenants: &[Tenant],
) -> anyhow::Result<Vec<TenantImage>> {
    let mut images = Vec::with_capacity(tenants.len());
    let mut missing = Vec::new();
    for tenant in tenants {
        match extract(repository, snapshot, tenant) {
            Ok(image) => images.push(image),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                missing.push(tenant.to_string());
            }
            Err(error) if error.kind() == ErrorKind::Usage => {
                let next = "see which tenants there are: reinstate tenants";
                return Err(Failure::usage(error.to_string()).next(next).into());
            }
            Err(error) => return Err(error.into()),
        }
    }
    if missing.is_empty() {
        return Ok(images);
    }
    let id = snapshot.id.short();
    let named = missing.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>();
    let more = match missing.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!("snapshot {id} has no row of {}{more}", named.join(", "));
    let next = format!("see who is in it: reinstate tenants --at snap:{id}");
    Err(Failure::new(ErrorKind::NotFound, message).next(next).into())
}
