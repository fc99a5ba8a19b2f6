//! The saved plan: one file with the rows that will change, and what the plan says of them.
//!
//! ```text
//! segment | frame | tail: magic 8, frame offset u64, frame length u64
//! ```
//!
//! The segment's identity is (repository, job, 0); its root is in the frame. The digest of the
//! frame stands for the whole plan: it is what a reviewer approves.

use std::sync::Arc;

use reinstate_core::{
    ChangeCounts, ConflictPolicy, ContentDigest, Digest, Fingerprint, JobId, ObjectReader, Policy,
    Position, PositionNotation, RepositoryId, SnapshotId, StoreIdentity, StoreSchema, Switch,
    TableIndex, TenantId, TenantKind, Timestamp,
};
use wincode::{SchemaRead, SchemaWrite};

use crate::FormatError;
use crate::frame::{FRAME_DIGEST_BYTES, FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_MAX, FrameKind};
use crate::schema::WireSchema;
use crate::segment::{Extent, SegmentIdentity, SegmentReader};
use crate::wire::{self, WireContent, WireCounts, WirePosition, WireStore};

pub(crate) const PLAN: FrameKind = FrameKind {
    magic: *b"RNSTPLAN",
    version: 1,
    structure: "plan",
};
/// First bytes of the tail.
pub(crate) const TAIL_MAGIC: [u8; 8] = *b"RNSTPEND";
/// Bytes of the tail.
pub const PLAN_TAIL_BYTES: usize = 24;
/// The most conflicts that are listed for one tenant; all are counted.
pub const CONFLICTS_MAX: usize = 1000;

/// Persisted: never renumber.
const SWITCH_OFF: u8 = 0;
/// Persisted: never renumber.
const SWITCH_ON: u8 = 1;
/// Persisted: never renumber.
const ON_CONFLICT_FAIL: u8 = 0;
/// Persisted: never renumber.
const ON_CONFLICT_KEEP_LIVE: u8 = 1;
/// Persisted: never renumber.
const ON_CONFLICT_TAKE_SNAPSHOT: u8 = 2;

/// What a plan says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanDescription {
    /// The run that will apply it.
    pub job: JobId,
    /// The repository whose snapshot it restores.
    pub repository: RepositoryId,
    /// The store that it is for.
    pub store: StoreIdentity,
    /// What kind of id its tenants have.
    pub tenant_kind: TenantKind,
    /// The snapshot that it restores from.
    pub snapshot: SnapshotId,
    /// The position that it goes back to.
    pub point: Position,
    /// The time of that position.
    pub point_time: Timestamp,
    /// How the store writes positions.
    pub notation: PositionNotation,
    /// When it was made, by the store's clock if it has one.
    pub planned_at: Timestamp,
    /// The position of the live store that it was made from.
    pub live_position: Position,
    /// The live store's tables.
    pub schema: StoreSchema,
    /// The digest of that schema.
    pub schema_digest: Digest,
    /// Which changes it may contain.
    pub policy: Policy,
    /// The job whose merge it takes back, if it is an undo.
    pub undoes: Option<JobId>,
    /// Where its rows are.
    pub segment: PlanSegment,
    /// What it does to each tenant.
    pub tenants: Vec<TenantPlanDescription>,
}

/// The segment of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanSegment {
    /// Its length; it starts with the file.
    pub stored_bytes: u64,
    /// The digest of its trailer.
    pub root: Digest,
}

impl Default for PlanSegment {
    /// No bytes and a digest of zeros: to be filled in when the segment is written.
    fn default() -> Self {
        Self {
            stored_bytes: 0,
            root: Digest::from_bytes([0; 32]),
        }
    }
}

/// What a plan does to one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantPlanDescription {
    /// The tenant.
    pub tenant: TenantId,
    /// The state of the live tenant that the plan was made from.
    pub fingerprint: Fingerprint,
    /// The digest of the image that it restores.
    pub image_digest: Digest,
    /// What it does to each table.
    pub tables: Vec<TablePlan>,
    /// The first [`CONFLICTS_MAX`] conflicts; the tables have the counts of all.
    pub conflicts: Vec<Conflict>,
}

/// What a plan does to one table of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TablePlan {
    /// The table.
    pub table: TableIndex,
    /// How many rows change.
    pub counts: ChangeCounts,
    /// How many rows are the same.
    pub same: u64,
    /// How many rows differ and are left alone because a switch is off.
    pub kept: u64,
    /// How many rows conflict.
    pub conflicts: u64,
    /// What the live table contains before the merge.
    pub before: ContentDigest,
    /// What it must contain after.
    pub expected: ContentDigest,
}

/// A row whose place is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The table.
    pub table: TableIndex,
    /// The row's encoded key.
    pub key: Vec<u8>,
    /// What takes its place, without any value.
    pub constraint: String,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WirePlan {
    job: [u8; 16],
    repository: [u8; 16],
    store: WireStore,
    tenant_kind: String,
    snapshot: [u8; 16],
    point: WirePosition,
    point_time_micros: i64,
    notation: u8,
    planned_at_micros: i64,
    live_position: WirePosition,
    schema_digest: [u8; 32],
    schema: WireSchema,
    policy: WirePolicy,
    undoes: Option<[u8; 16]>,
    segment_bytes: u64,
    segment_root: [u8; 32],
    tenants: Vec<WireTenant>,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WirePolicy {
    create: u8,
    put_back: u8,
    delete: u8,
    on_conflict: u8,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireTenant {
    tenant: Vec<u8>,
    fingerprint: Vec<u8>,
    image_digest: [u8; 32],
    tables: Vec<WireTable>,
    conflicts: Vec<WireConflict>,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireTable {
    table: u32,
    counts: WireCounts,
    same: u64,
    kept: u64,
    conflicts: u64,
    before: WireContent,
    expected: WireContent,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireConflict {
    table: u32,
    key: Vec<u8>,
    constraint: String,
}

/// Writes what follows the segment of a plan, of `plan.segment.stored_bytes` bytes; returns it with
/// the digest that stands for the whole plan.
///
/// # Panics
/// If it takes more than [`FRAME_PAYLOAD_BYTES_MAX`]: millions of tenants.
#[must_use]
pub fn encode_plan_end(plan: &PlanDescription) -> (Vec<u8>, Digest) {
    let (mut bytes, digest) = PLAN.encode(&WirePlan::from(plan));
    let length = bytes.len() as u64;
    bytes.extend_from_slice(&TAIL_MAGIC);
    bytes.extend_from_slice(&plan.segment.stored_bytes.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    (bytes, digest)
}

/// Opens a saved plan: what it says, its digest, and its rows. What it says is checked here; the
/// rows are checked as they are read, or all by [`verify_segment`](crate::verify_segment).
///
/// # Errors
/// Any of the frame's and of [`SegmentReader::open`]'s; `Length` if the pieces do not make up the
/// file; `ReadPlan`.
pub fn read_plan(
    reader: Arc<dyn ObjectReader>,
) -> Result<(PlanDescription, Digest, SegmentReader), FormatError> {
    let (offset, length) = read_tail(reader.as_ref())?;
    let mut bytes = vec![0; length];
    read_at(reader.as_ref(), offset, &mut bytes)?;
    let (wire, digest) = PLAN.decode::<WirePlan>(&bytes)?;
    let plan = PlanDescription::try_from(wire)?;
    let expected = plan.segment.stored_bytes;
    if expected != offset {
        return Err(FormatError::Length {
            structure: "plan segment",
            expected,
            found: offset,
        });
    }
    let identity = SegmentIdentity {
        repository: plan.repository,
        container: *plan.job.as_bytes(),
        number: 0,
    };
    let extent = Extent::First(offset);
    let segment = SegmentReader::open_extent(reader, extent, &identity, &plan.segment.root)?;
    Ok((plan, digest, segment))
}

/// Where the frame is, and how long: it lies between the segment and the tail.
fn read_tail(reader: &dyn ObjectReader) -> Result<(u64, usize), FormatError> {
    let structure = PLAN.structure;
    let found = reader.byte_count();
    let frame_least = (FRAME_HEADER_BYTES + FRAME_DIGEST_BYTES) as u64;
    let Some(tail_offset) = found.checked_sub(PLAN_TAIL_BYTES as u64) else {
        let expected = frame_least + PLAN_TAIL_BYTES as u64;
        return Err(FormatError::Length {
            structure,
            expected,
            found,
        });
    };
    let mut tail = [0; PLAN_TAIL_BYTES];
    read_at(reader, tail_offset, &mut tail)?;
    let (magic, places) = tail.split_at(TAIL_MAGIC.len());
    let (offset, length) = places.split_at(8);
    if magic != TAIL_MAGIC {
        return Err(FormatError::WrongMagic { structure });
    }
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0, |sum, &byte| sum << 8 | u64::from(byte))
    };
    let (offset, length) = (number(offset), number(length));
    let limit = (frame_least as usize + FRAME_PAYLOAD_BYTES_MAX) as u64;
    let fits = offset.checked_add(length) == Some(tail_offset);
    match usize::try_from(length) {
        Ok(bytes) if fits && (frame_least..=limit).contains(&length) => Ok((offset, bytes)),
        _ => Err(FormatError::Length {
            structure,
            expected: offset.saturating_add(length),
            found,
        }),
    }
}

fn read_at(reader: &dyn ObjectReader, offset: u64, bytes: &mut [u8]) -> Result<(), FormatError> {
    let length = bytes.len() as u64;
    reader
        .read_exact_at(offset, bytes)
        .map_err(|source| FormatError::ReadPlan {
            offset,
            length,
            source,
        })
}

impl From<&PlanDescription> for WirePlan {
    fn from(plan: &PlanDescription) -> Self {
        Self {
            job: *plan.job.as_bytes(),
            repository: *plan.repository.as_bytes(),
            store: WireStore::from(&plan.store),
            tenant_kind: plan.tenant_kind.as_str().to_owned(),
            snapshot: *plan.snapshot.as_bytes(),
            point: plan.point.into(),
            point_time_micros: plan.point_time.as_micros(),
            notation: wire::notation_number(plan.notation),
            planned_at_micros: plan.planned_at.as_micros(),
            live_position: plan.live_position.into(),
            schema_digest: *plan.schema_digest.as_bytes(),
            schema: WireSchema::from(&plan.schema),
            policy: WirePolicy::from(plan.policy),
            undoes: plan.undoes.map(|job| *job.as_bytes()),
            segment_bytes: plan.segment.stored_bytes,
            segment_root: *plan.segment.root.as_bytes(),
            tenants: plan.tenants.iter().map(WireTenant::from).collect(),
        }
    }
}

impl TryFrom<WirePlan> for PlanDescription {
    type Error = FormatError;

    fn try_from(wire: WirePlan) -> Result<Self, FormatError> {
        let structure = PLAN.structure;
        let schema_digest = Digest::from_bytes(wire.schema_digest);
        let schema = wire.schema.into_schema(structure, schema_digest)?;
        let tenants: Result<Vec<_>, _> = wire
            .tenants
            .into_iter()
            .map(|tenant| tenant.into_description(&schema))
            .collect();
        let tenants = tenants?;
        let mut names: Vec<_> = tenants.iter().map(|part| &part.tenant).collect();
        names.sort_unstable();
        if !names.is_sorted_by(|left, right| left < right) {
            return Err(FormatError::malformed(
                structure,
                "a tenant is listed twice",
            ));
        }
        Ok(Self {
            job: JobId::from_bytes(wire.job),
            repository: RepositoryId::from_bytes(wire.repository),
            store: wire.store.into(),
            tenant_kind: wire::tenant_kind(structure, &wire.tenant_kind)?,
            snapshot: SnapshotId::from_bytes(wire.snapshot),
            point: wire.point.into(),
            point_time: Timestamp::from_micros(wire.point_time_micros),
            notation: wire::notation(structure, wire.notation)?,
            planned_at: Timestamp::from_micros(wire.planned_at_micros),
            live_position: wire.live_position.into(),
            schema,
            schema_digest,
            policy: wire.policy.into_policy()?,
            undoes: wire::job(wire.undoes),
            segment: PlanSegment {
                stored_bytes: wire.segment_bytes,
                root: Digest::from_bytes(wire.segment_root),
            },
            tenants,
        })
    }
}

impl From<Policy> for WirePolicy {
    fn from(policy: Policy) -> Self {
        let switch = |switch| match switch {
            Switch::Off => SWITCH_OFF,
            Switch::On => SWITCH_ON,
        };
        Self {
            create: switch(policy.create),
            put_back: switch(policy.put_back),
            delete: switch(policy.delete),
            on_conflict: match policy.on_conflict {
                ConflictPolicy::Fail => ON_CONFLICT_FAIL,
                ConflictPolicy::KeepLive => ON_CONFLICT_KEEP_LIVE,
                ConflictPolicy::TakeSnapshot => ON_CONFLICT_TAKE_SNAPSHOT,
            },
        }
    }
}

impl WirePolicy {
    fn into_policy(self) -> Result<Policy, FormatError> {
        let unknown = |number: u8| {
            FormatError::malformed(PLAN.structure, format!("unknown policy number {number}"))
        };
        let switch = |number| match number {
            SWITCH_OFF => Ok(Switch::Off),
            SWITCH_ON => Ok(Switch::On),
            other => Err(unknown(other)),
        };
        Ok(Policy {
            create: switch(self.create)?,
            put_back: switch(self.put_back)?,
            delete: switch(self.delete)?,
            on_conflict: match self.on_conflict {
                ON_CONFLICT_FAIL => ConflictPolicy::Fail,
                ON_CONFLICT_KEEP_LIVE => ConflictPolicy::KeepLive,
                ON_CONFLICT_TAKE_SNAPSHOT => ConflictPolicy::TakeSnapshot,
                other => return Err(unknown(other)),
            },
        })
    }
}

impl From<&TenantPlanDescription> for WireTenant {
    fn from(part: &TenantPlanDescription) -> Self {
        let tables = part.tables.iter().map(|table| WireTable {
            table: table.table.0,
            counts: table.counts.into(),
            same: table.same,
            kept: table.kept,
            conflicts: table.conflicts,
            before: table.before.into(),
            expected: table.expected.into(),
        });
        let conflicts = part.conflicts.iter().map(|conflict| WireConflict {
            table: conflict.table.0,
            key: conflict.key.clone(),
            constraint: conflict.constraint.clone(),
        });
        Self {
            tenant: part.tenant.as_bytes().to_vec(),
            fingerprint: part.fingerprint.as_bytes().to_vec(),
            image_digest: *part.image_digest.as_bytes(),
            tables: tables.collect(),
            conflicts: conflicts.collect(),
        }
    }
}

impl WireTenant {
    fn into_description(self, schema: &StoreSchema) -> Result<TenantPlanDescription, FormatError> {
        let structure = PLAN.structure;
        let tenant = wire::tenant_id(structure, self.tenant)?;
        let mut indexes = self
            .tables
            .iter()
            .map(|table| table.table)
            .chain(self.conflicts.iter().map(|conflict| conflict.table));
        if let Some(table) = indexes.find(|&table| schema.get(TableIndex(table)).is_none()) {
            let fact = format!("{tenant} has changes in table {table}, which there is none of");
            return Err(FormatError::malformed(structure, fact));
        }
        drop(indexes);
        let tables = self.tables.into_iter().map(|table| TablePlan {
            table: TableIndex(table.table),
            counts: table.counts.into(),
            same: table.same,
            kept: table.kept,
            conflicts: table.conflicts,
            before: table.before.into(),
            expected: table.expected.into(),
        });
        let conflicts = self.conflicts.into_iter().map(|conflict| Conflict {
            table: TableIndex(conflict.table),
            key: conflict.key,
            constraint: conflict.constraint,
        });
        Ok(TenantPlanDescription {
            tenant,
            fingerprint: Fingerprint::new(self.fingerprint),
            image_digest: Digest::from_bytes(self.image_digest),
            tables: tables.collect(),
            conflicts: conflicts.collect(),
        })
    }
}
