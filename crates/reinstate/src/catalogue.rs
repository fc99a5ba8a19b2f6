//! What a repository holds: snapshots, and the tenants in them.

use std::sync::Arc;

use reinstate_core::{
    ErrorKind, Owner, Position, Repository, SegmentDescription, SnapshotDescription, SnapshotId,
    TenantId,
};
use reinstate_format::{SegmentReader, decode_snapshot};

use crate::capture::{SNAPSHOT_RECORD, segment_identity};
use crate::layers::AllRows;
use crate::log::Log;
use crate::{Context, Error};

/// What a snapshot holds of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantSummary {
    /// The tenant.
    pub tenant: TenantId,
    /// Its rows, over all tables.
    pub row_count: u64,
    /// Bytes of its encoded rows.
    pub plain_bytes: u64,
    /// Bytes of its stored blocks.
    pub stored_bytes: u64,
}

/// Every snapshot of the repository, by store and position, oldest first.
///
/// # Errors
/// `Corrupt` if a manifest is not what was written.
pub fn snapshots(repository: &dyn Repository) -> Result<Vec<SnapshotDescription>, Error> {
    let names = repository
        .list(SNAPSHOT_RECORD)
        .map_err(Error::repository("list snapshots"))?;
    let mut snapshots = names
        .into_iter()
        .map(|name| snapshot(repository, SnapshotId::from_bytes(name)))
        .collect::<Result<Vec<_>, _>>()?;
    snapshots.sort_by(|left, right| {
        let order = |snapshot: &SnapshotDescription| {
            (
                snapshot.store.id,
                snapshot.position,
                snapshot.taken_at,
                snapshot.id,
            )
        };
        order(left).cmp(&order(right))
    });
    Ok(snapshots)
}

/// One snapshot.
///
/// # Errors
/// `NotFound` if there is none of that id; `Corrupt` if its manifest is not what was written.
pub fn snapshot(repository: &dyn Repository, id: SnapshotId) -> Result<SnapshotDescription, Error> {
    let bytes = repository
        .read(SNAPSHOT_RECORD, *id.as_bytes())
        .map_err(Error::repository(format!("read snapshot {id}")))?;
    decode_snapshot(&bytes, repository.id(), id)
        .map_err(Error::format(format!("read snapshot {id}")))
}

/// Every tenant of a snapshot, by id, handed to `each` one after the other.
///
/// Reads the indexes of all segments; holds one page of them.
///
/// # Errors
/// `Corrupt` or `NotFound` if a segment is damaged or missing; or the error that `each` returns.
pub fn tenants(
    repository: &dyn Repository,
    snapshot: &SnapshotDescription,
    mut each: impl FnMut(TenantSummary) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut current: Option<TenantSummary> = None;
    for segment in &snapshot.segments {
        let reader = open_segment(repository, snapshot, segment)?;
        for run in reader.runs() {
            let run = run.map_err(Error::format(format!("read segment {}", segment.object)))?;
            let Owner::Tenant(tenant) = run.key.owner else {
                continue;
            };
            if current
                .as_ref()
                .is_none_or(|summary| summary.tenant != tenant)
            {
                let fresh = TenantSummary {
                    tenant,
                    row_count: 0,
                    plain_bytes: 0,
                    stored_bytes: 0,
                };
                if let Some(summary) = current.replace(fresh) {
                    each(summary)?;
                }
            }
            if let Some(summary) = &mut current {
                summary.row_count += run.row_count;
                summary.plain_bytes += run.plain_bytes;
                summary.stored_bytes += run.stored_bytes;
            }
        }
    }
    current.map_or(Ok(()), each)
}

/// Every tenant that had rows at a position of a log, by id, with how many: handed to `each` one after
/// the other.
///
/// *Cost*: reads the indexes of the snapshot and of the runs up to there, and their changes.
///
/// # Errors
/// `Corrupt` if what is read is damaged or does not fit together; or the error that `each` returns.
pub fn tenants_at(
    context: Context<'_>,
    repository: &dyn Repository,
    log: &Log,
    position: Position,
    mut each: impl FnMut(&TenantId, u64) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut rows = AllRows::open(context, repository, log, position)?;
    let mut current: Option<(TenantId, u64)> = None;
    while let Some((owner, count)) = rows.next_count()? {
        let Owner::Tenant(tenant) = owner else {
            continue;
        };
        match &mut current {
            Some((last, total)) if last == tenant => *total += count,
            last => {
                if let Some((last, total)) = last.replace((tenant.clone(), count)) {
                    each(&last, total)?;
                }
            }
        }
    }
    current.map_or(Ok(()), |(tenant, total)| each(&tenant, total))
}

/// Chooses a snapshot by the first digits of its id.
///
/// # Errors
/// `NotFound` if none or several begin like that; the message names the candidates.
pub fn find_snapshot<'s>(
    snapshots: &'s [SnapshotDescription],
    prefix: &str,
) -> Result<&'s SnapshotDescription, Error> {
    let found: Vec<_> = snapshots
        .iter()
        .filter(|snapshot| prefix.len() >= 4 && snapshot.id.to_string().starts_with(prefix))
        .collect();
    match found.as_slice() {
        [snapshot] => Ok(snapshot),
        [] => Err(Error::new(
            ErrorKind::NotFound,
            format!("no snapshot begins with {prefix:?}"),
        )),
        several => {
            let ids: Vec<_> = several
                .iter()
                .map(|snapshot| snapshot.id.to_string())
                .collect();
            let message = format!("{prefix:?} begins several snapshots: {}", ids.join(", "));
            Err(Error::new(ErrorKind::NotFound, message))
        }
    }
}

pub(crate) fn open_segment(
    repository: &dyn Repository,
    snapshot: &SnapshotDescription,
    segment: &SegmentDescription,
) -> Result<Arc<SegmentReader>, Error> {
    let operation = || {
        format!(
            "open segment {} of snapshot {}",
            segment.object, snapshot.id
        )
    };
    let object = repository
        .open_object(segment.object)
        .map_err(|error| match error.kind() {
            // The manifest says that it is there, so that its absence is damage.
            ErrorKind::NotFound => Error::new(ErrorKind::Corrupt, operation()).caused_by(error),
            _ => Error::repository(operation())(error),
        })?;
    let identity = segment_identity(repository, snapshot, segment.number);
    SegmentReader::open(Arc::from(object), &identity, &segment.root)
        .map(Arc::new)
        .map_err(Error::format(operation()))
}
