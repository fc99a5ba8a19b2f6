//! Plan: what it takes to bring tenants from what they are to what they were.
//!
//! A plan is a value in a file: every row that will change, before and after, with the state of
//! the live tenant it was made from. Nothing here can write to a live store. Because it holds the
//! rows as they are *before*, a stored plan is its own undo image.

mod asking;
mod changes;
mod compare;
mod cursor;
mod decide;
mod hindrances;
mod holds;
mod leaving;
mod left_behind;
mod missing;
mod newer;
mod notes;
mod owners;
mod parents;
mod saved;
mod since;
mod tally;
mod turns;
mod undo;

use std::collections::BTreeSet;
use std::sync::Arc;

use reinstate_core::{
    ConflictPolicy, Digest, ErrorKind, Event, Fingerprint, JobId, LiveStore, LiveView, ObjectId,
    ObjectWriter, Phase, Policy, RepositoryId, StoreSchema, TenantId, Timestamp,
};
use reinstate_format::{
    PlanDescription, PlanNote, PlanSegment, SegmentIdentity, TenantPlanDescription,
    encode_plan_end, schema_digest,
};

use crate::drift::{DriftRules, SchemaMapping};
use crate::image::TenantImage;
use crate::into::{CopyRequest, Rekeying, Remap, check_creates_only};
use crate::segment_writer::SegmentWriter;
use crate::{Context, Error};

pub use owners::OwnerCheck;
pub use saved::{LastChanges, RestorePlan, StoredPlan, TenantChanges, store_plan};
pub use since::Since;
pub use undo::plan_undo;

use compare::Rules;
use owners::Owners;
use since::Lookup;

pub(crate) use compare::mapped_rows;
pub(crate) use cursor::{RowCursor, finish_sort, sorted_rows, start_sort, start_sort_of};
pub(crate) use left_behind::are_unchanged;

/// Plans are written once and read two or three times: a light level costs the least overall.
const PLAN_COMPRESSION_LEVEL: i32 = 1;

/// What a plan is made for.
#[derive(Clone, Debug)]
pub struct PlanRequest<'r> {
    /// The run that will apply it; never used before.
    pub job: JobId,
    /// The repository whose snapshot it restores, and which will keep it for undo.
    pub repository: RepositoryId,
    /// Which changes it may contain.
    pub policy: Policy,
    /// What became of tables that changed after the snapshot. Of no effect on an undo.
    pub drift: DriftRules,
    /// Whether rows that are to be deleted as newer are looked for among those that others had in the
    /// snapshot. One that somebody else had is a conflict. Of no effect on an undo.
    pub check_owners: OwnerCheck<'r>,
    /// The time to note where the store has no clock of its own.
    pub planned_at: Timestamp,
}

/// A plan that was written.
#[derive(Clone, Debug)]
pub struct WrittenPlan {
    /// What it says.
    pub description: PlanDescription,
    /// The digest that stands for all of it.
    pub digest: Digest,
    /// The object it was written to.
    pub object: ObjectId,
    /// Bytes read, of other tenants' blocks and of the index, to find out whose rows were.
    pub owner_bytes_read: u64,
}

/// Compares the images, all of one snapshot, with the live tenants, all at one position, and
/// writes what would change to `output`.
///
/// Tenants come in the order in which they have to be restored: as they are, but for those whose rows are
/// referred to by rows of others that are restored as well.
///
/// Reads each image and each live tenant once, and other tenants' rows only as
/// [`check_owners`](PlanRequest::check_owners) says. Holds no more than the context's memory budget,
/// however large a tenant is.
///
/// # Errors
/// `Usage` for no tenants, a tenant twice, or tenants of another store; `Refused` if the live
/// tables differ from the snapshot's and nobody decided what became of them; `Corrupt` if the image is damaged; `Cancelled`. The output
/// is then not published.
pub fn plan(
    context: Context<'_>,
    images: &[TenantImage],
    live: &dyn LiveStore,
    request: &PlanRequest<'_>,
    output: Box<dyn ObjectWriter + '_>,
) -> Result<WrittenPlan, Error> {
    make(context, images, live, request, Made::default(), output)
}

/// As [`plan`](plan()), with what a change log knows of the transactions that changed the rows after
/// the images' position: each row that is written says which one changed it last, and the
/// tenant's notes which ones changed most.
///
/// # Errors
/// As [`plan`](plan()); besides, `Usage` if the log is not of the images' snapshot; `NotRecoverable`
/// if it lacks a commit that is to be taken back.
pub fn plan_since(
    context: Context<'_>,
    images: &[TenantImage],
    live: &dyn LiveStore,
    request: &PlanRequest<'_>,
    since: Since<'_>,
    output: Box<dyn ObjectWriter + '_>,
) -> Result<WrittenPlan, Error> {
    let made = Made {
        since: Some(since),
        ..Made::default()
    };
    make(context, images, live, request, made, output)
}

/// As [`plan`](plan()), for tenants that are restored side by side, in no order: one that would have to
/// wait for another one cannot be restored.
///
/// # Errors
/// As [`plan`](plan()).
pub(crate) fn plan_side_by_side(
    context: Context<'_>,
    images: &[TenantImage],
    live: &dyn LiveStore,
    request: &PlanRequest<'_>,
    output: Box<dyn ObjectWriter + '_>,
) -> Result<WrittenPlan, Error> {
    let made = Made {
        has_no_order: true,
        ..Made::default()
    };
    make(context, images, live, request, made, output)
}

/// As [`plan`](plan()), into another store than the one that the images come from: a new one, in which
/// none of the tenants has a row yet. Nothing but rows to create.
///
/// # Errors
/// As [`plan`](plan()); besides, `Conflict` if one of the tenants has a row there, and `Usage` if it
/// is the store that the images come from.
pub fn plan_elsewhere(
    context: Context<'_>,
    images: &[TenantImage],
    live: &dyn LiveStore,
    request: &PlanRequest<'_>,
    output: Box<dyn ObjectWriter + '_>,
) -> Result<WrittenPlan, Error> {
    let made = Made {
        destination: Destination::Elsewhere,
        ..Made::default()
    };
    make(context, images, live, request, made, output)
}

/// Plans a copy of one tenant's image under another id, in the same store: nothing but rows to create.
/// Everything that the plan is used for afterwards is about the copy. Of the request's policy only what
/// becomes of conflicts counts. `remap` is told which key becomes which.
///
/// # Errors
/// As [`plan`](plan()); besides, `Usage` if the id cannot be a tenant's or a rule does not fit;
/// `Conflict` if there are rows under the id; `Refused` with all that has to be decided first, or if
/// there is no room for the copy's keys.
pub fn plan_copy<'r>(
    context: Context<'_>,
    image: &TenantImage,
    live: &dyn LiveStore,
    request: &PlanRequest<'_>,
    copy: &'r CopyRequest,
    remap: &'r Remap<'r>,
    output: Box<dyn ObjectWriter + '_>,
) -> Result<WrittenPlan, Error> {
    let images = std::slice::from_ref(image);
    let made = Made {
        copy: Some((copy, remap)),
        ..Made::default()
    };
    make(context, images, live, request, made, output)
}

/// What a plan is besides a restore.
#[derive(Clone, Copy, Default)]
struct Made<'r> {
    copy: Option<(&'r CopyRequest, &'r Remap<'r>)>,
    since: Option<Since<'r>>,
    destination: Destination,
    /// Whether no tenant can be restored before another one.
    has_no_order: bool,
}

/// Which store a plan is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Destination {
    /// The one that the images come from.
    #[default]
    Origin,
    /// Another one, which has no row of the tenants.
    Elsewhere,
}

fn make<'r>(
    context: Context<'_>,
    images: &[TenantImage],
    live: &dyn LiveStore,
    request: &PlanRequest<'_>,
    Made {
        copy,
        since,
        destination,
        has_no_order,
    }: Made<'r>,
    output: Box<dyn ObjectWriter + '_>,
) -> Result<WrittenPlan, Error> {
    let snapshot = check_images(images, live, destination)?;
    if let Some(since) = &since {
        since.check(&images[0])?;
    }
    let view = live
        .read_view()
        .map_err(Error::store("read the live store"))?;
    let needed = images.iter().flat_map(TenantImage::tables).collect();
    let mapping = SchemaMapping::find(&snapshot.schema, &needed, view.as_ref(), &request.drift)?;
    let policy = match copy {
        None => request.policy,
        // There is nothing yet that could be put back, deleted or kept.
        Some(_) => Policy {
            on_conflict: request.policy.on_conflict,
            ..Policy::EXACT
        },
    };
    let owners = Owners::new(context, request.check_owners);
    let mut writer = start(context, request, output)?;
    let mut tenants = Vec::with_capacity(images.len());
    let mut notes = mapping.notes.clone();
    notes.extend(since.iter().flat_map(Since::notes));
    // Of what was committed up to the point the images have everything.
    let has_later = |since: &Since<'_>| since.log.through() > images[0].position();
    let lookup = since.filter(has_later).map(Lookup::of);
    let ids = images.iter().map(|image| image.tenant().id.clone());
    let ids: Arc<[TenantId]> = match images {
        _ if has_no_order => Arc::default(),
        [_] => Arc::default(),
        _ => ids.collect(),
    };
    let rules = Rules {
        tenants: &ids,
        mapping: &mapping,
        drift: &request.drift,
        owners: &owners,
        since: lookup.as_ref(),
        policy,
    };
    let mut waits = Vec::new();
    for (number, image) in images.iter().enumerate() {
        let rekeying = match copy {
            None => None,
            Some((copy, remap)) => {
                let request = (copy, request.job.as_bytes());
                let view = view.as_ref();
                Some(Rekeying::find(
                    context, image, view, &mapping, request, remap,
                )?)
            }
        };
        notes.extend(rekeying.iter().flat_map(|rekeying| rekeying.notes.clone()));
        let copied = copy.map(|(copy, _)| image.under(&copy.tenant));
        let image = copied.as_ref().unwrap_or(image);
        started(context, image);
        let part = compare::plan_tenant(
            context,
            (image, &images[number + 1..]),
            view.as_ref(),
            rules,
            rekeying.as_ref(),
            &mut writer,
            &mut waits,
        )?;
        if copy.is_some() {
            check_creates_only(view.as_ref(), &part)?;
        }
        if destination == Destination::Elsewhere {
            check_is_new(view.as_ref(), live, &part)?;
        }
        tenants.push(part);
        context.observer.observe(Event::Finished {
            phase: Phase::Plan,
            tenant: Some(image.tenant()),
        });
    }
    let is_selective = since.is_some_and(|since| !since.only.is_empty());
    let mut tenants = turns::put_in_order(tenants, &waits, policy, is_selective);
    notes.extend(notes::of_store(view.as_ref(), &mut tenants)?);
    let description = PlanDescription {
        job: request.job,
        repository: request.repository,
        store: live.identity(),
        tenant_kind: live.tenant_kind().clone(),
        snapshot: snapshot.id,
        point: images[0].position(),
        point_time: images[0].time(),
        notation: live.notation(),
        planned_at: view.taken_at().unwrap_or(request.planned_at),
        live_position: view.position(),
        schema_digest: schema_digest(view.schema()),
        schema: view.schema().clone(),
        policy,
        undoes: None,
        segment: PlanSegment::default(),
        notes,
        tenants,
    };
    Ok(WrittenPlan {
        owner_bytes_read: owners.bytes_read(),
        ..finish(writer, description)?
    })
}

/// Tells the observer that a tenant's turn has come.
fn started(context: Context<'_>, image: &TenantImage) {
    context.observer.observe(Event::Started {
        phase: Phase::Plan,
        tenant: Some(image.tenant()),
        rows_expected: Some(image.tables().map(|table| image.row_count(table)).sum()),
    });
}

fn start<'a>(
    context: Context<'a>,
    request: &PlanRequest<'_>,
    output: Box<dyn ObjectWriter + 'a>,
) -> Result<SegmentWriter<'a>, Error> {
    let identity = SegmentIdentity {
        repository: request.repository,
        container: *request.job.as_bytes(),
        number: 0,
    };
    SegmentWriter::start(context, identity, output, PLAN_COMPRESSION_LEVEL)
}

fn finish(
    writer: SegmentWriter<'_>,
    mut description: PlanDescription,
) -> Result<WrittenPlan, Error> {
    let mut segment = writer.finish()?;
    description.segment = PlanSegment {
        stored_bytes: segment.end.segment_bytes,
        root: segment.end.root,
    };
    let (bytes, digest) = encode_plan_end(&description);
    segment
        .object
        .write(&bytes)
        .map_err(Error::repository("write the plan"))?;
    let (object, _) = segment.seal()?;
    Ok(WrittenPlan {
        description,
        digest,
        object,
        owner_bytes_read: 0,
    })
}

fn check_images<'i>(
    images: &'i [TenantImage],
    live: &dyn LiveStore,
    destination: Destination,
) -> Result<&'i reinstate_core::SnapshotDescription, Error> {
    let Some(first) = images.first() else {
        return Err(Error::new(
            ErrorKind::Usage,
            "make a plan: the list of tenants is empty",
        ));
    };
    let snapshot = first.snapshot();
    let identity = live.identity();
    let is_origin = snapshot.store.id == identity.id;
    if is_origin && destination == Destination::Elsewhere {
        let message = format!(
            "snapshot {} was taken from this very store {} ({}): it is not a new one",
            snapshot.id, identity.name, identity.id
        );
        return Err(Error::new(ErrorKind::Usage, message));
    }
    if !is_origin && destination == Destination::Origin {
        let message = format!(
            "snapshot {} was taken from store {} ({}), but the live store is {} ({})",
            snapshot.id, snapshot.store.name, snapshot.store.id, identity.name, identity.id
        );
        return Err(Error::new(ErrorKind::Usage, message));
    }
    let mut seen = BTreeSet::new();
    for image in images {
        if image.snapshot_id() != snapshot.id || image.position() != first.position() {
            let message = "make a plan: the images come from several snapshots or positions";
            return Err(Error::new(ErrorKind::Usage, message));
        }
        if !seen.insert(&image.tenant().id) {
            let message = format!("make a plan: {} is listed twice", image.tenant());
            return Err(Error::new(ErrorKind::Usage, message));
        }
    }
    Ok(snapshot)
}

/// Refuses a tenant that has rows in a store that should be new.
fn check_is_new(
    view: &dyn LiveView,
    live: &dyn LiveStore,
    part: &TenantPlanDescription,
) -> Result<(), Error> {
    let has_rows = part.tables.iter().find(|table| {
        table.counts.created != table.counts.total()
            || table.before.row_count() + table.gained.row_count() > 0
    });
    let Some(table) = has_rows else { return Ok(()) };
    let message = format!(
        "{} has rows in table {} of store {}, which should be new and empty",
        part.tenant,
        view.schema().table(table.table).name,
        live.identity().name
    );
    Err(Error::new(ErrorKind::Conflict, message))
}

/// Refuses to take rows out of tables that are not the ones they were written to.
fn check_schema(then: &StoreSchema, now: &StoreSchema) -> Result<(), Error> {
    if then == now {
        return Ok(());
    }
    let difference = then
        .tables()
        .iter()
        .find_map(|table| match now.find(table.name.as_str()) {
            None => Some(format!("table {} is gone", table.name)),
            Some((_, live)) if live.columns != table.columns => {
                Some(format!("the columns of table {} changed", table.name))
            }
            Some((_, live)) if live.key != table.key => {
                Some(format!("the primary key of table {} changed", table.name))
            }
            Some((_, live)) if live.tenancy != table.tenancy => {
                Some(format!("table {} is now classified otherwise", table.name))
            }
            Some((_, live)) if live.references != table.references => {
                Some(format!("the foreign keys of table {} changed", table.name))
            }
            Some(_) => None,
        })
        .or_else(|| {
            let added = now
                .tables()
                .iter()
                .find(|table| then.find(table.name.as_str()).is_none());
            added.map(|table| format!("table {} was added", table.name))
        })
        .unwrap_or_else(|| "the tables are in another order".to_owned());
    let message = format!(
        "the live tables are no longer those that the merge wrote to: {difference}. Nothing was \
         written"
    );
    Err(Error::new(ErrorKind::Refused, message))
}

/// What keeps a plan from being applied to this tenant, besides conflicts.
pub fn obstacles<'p>(
    plan: &'p PlanDescription,
    tenant: &'p TenantPlanDescription,
) -> impl Iterator<Item = &'p PlanNote> {
    let notes = plan.notes.iter().chain(&tenant.notes);
    notes.filter(|note| note.kind.is_obstacle())
}

/// Whether conflicts keep a plan from being applied to this tenant.
#[must_use]
pub fn is_blocked(policy: Policy, tenant: &TenantPlanDescription) -> bool {
    // A place held by somebody else's row is never taken, so only leaving the row out helps.
    policy.on_conflict != ConflictPolicy::KeepLive
        && tenant.tables.iter().any(|table| table.conflicts > 0)
}

/// A part of a plan that is still to be filled in.
fn describe_tenant(tenant: &TenantId) -> TenantPlanDescription {
    TenantPlanDescription {
        tenant: tenant.clone(),
        fingerprint: Fingerprint::new([]),
        image_digest: Digest::from_bytes([0; 32]),
        tables: Vec::new(),
        conflicts: Vec::new(),
        notes: Vec::new(),
    }
}

/// The state of the live tenant. Asked for when its rows were read: a store may know it then.
fn fingerprint(view: &dyn LiveView, tenant: &TenantId) -> Result<Fingerprint, Error> {
    let operation = format!("fingerprint the live tenant {tenant}");
    view.fingerprint(tenant).map_err(Error::store(operation))
}
