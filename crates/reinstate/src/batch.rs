//! Images of many tenants at one point: what they are read from is opened once for all of them.

use std::sync::Arc;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use reinstate_core::{Repository, SnapshotDescription, Tenant};

use crate::image::{RestorePoint, TenantImage, extract_from, extract_from_at, layers_of_everybody};
use crate::log::Log;
use crate::opened::Opened;
use crate::{Context, Error};

/// Finds many tenants in a snapshot, each as [`extract`](crate::extract) does, in their order.
///
/// *Cost*: opens each segment once, and finds tenants that lie beside each other in the same pages of
/// its index; on all threads of the context.
#[must_use]
pub fn extract_all(
    context: Context<'_>,
    repository: &dyn Repository,
    snapshot: &Arc<SnapshotDescription>,
    tenants: &[Tenant],
) -> Vec<Result<TenantImage, Error>> {
    let opened = Opened::of(repository);
    let find = |tenant| {
        context.check()?;
        extract_from(&opened, snapshot, tenant)
    };
    context
        .resources
        .pool()
        .install(|| tenants.par_iter().map(find).collect())
}

/// Finds many tenants as they were at a commit that a log covers, each as
/// [`extract_at`](crate::extract_at) does, in their order.
///
/// *Cost*: as [`extract_at`](crate::extract_at) for each; but each segment and each run of the log is
/// opened once, and what became of the rows of everybody is found out once.
///
/// # Errors
/// `NotRecoverable` if the log does not cover the point; `Corrupt` if the changes of the rows of
/// everybody cannot be read.
pub fn extract_all_at(
    context: Context<'_>,
    repository: &dyn Repository,
    log: &Log,
    point: RestorePoint,
    tenants: &[Tenant],
) -> Result<Vec<Result<TenantImage, Error>>, Error> {
    let opened = Opened::of(repository);
    let of_everybody = layers_of_everybody(context, &opened, log, point)?;
    // One after the other: putting changes in order uses the threads by itself.
    let images = tenants.iter().map(|tenant| {
        context.check()?;
        extract_from_at(context, &opened, log, (point, &of_everybody), tenant)
    });
    Ok(images.collect())
}
