//! Tenants as they are named on the command line, and their images.

use std::io::Read;
use std::path::Path;

use reinstate::{Context, TenantImage};
use reinstate_core::{ErrorKind, Repository, Tenant};

use crate::arguments::Whose;
use crate::failure::Failure;
use crate::resolve::Resolved;

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

/// The images of all tenants; if some are not there at that point, all of those are named at once.
///
/// # Errors
/// `NotFound` if a tenant has no row at that point; otherwise as [`Resolved::image`].
pub fn extract_all(
    context: Context<'_>,
    repository: &dyn Repository,
    resolved: &Resolved,
    tenants: &[Tenant],
) -> anyhow::Result<Vec<TenantImage>> {
    let mut images = Vec::with_capacity(tenants.len());
    let mut missing = Vec::new();
    let found = resolved.images(context, repository, tenants)?;
    for (tenant, image) in tenants.iter().zip(found) {
        match image {
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
    let point = resolved.name();
    let named = missing.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>();
    let more = match missing.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let id = resolved.snapshot.id.short();
    let what = if resolved.around.is_none() {
        format!("snapshot {id} has")
    } else {
        format!("at {point} there is")
    };
    let message = format!("{what} no row of {}{more}", named.join(", "));
    let next = format!("see who was there: reinstate tenants --at {point}");
    Err(Failure::new(ErrorKind::NotFound, message).next(next).into())
}
