//! What a plan says, as it is written.

use reinstate_core::{
    ConflictPolicy, Digest, Fingerprint, JobId, Policy, RepositoryId, SnapshotId, StoreSchema,
    Switch, TableIndex, Timestamp,
};
use wincode::{SchemaRead, SchemaWrite};

use super::file::PLAN;
use super::{
    Conflict, NoteKind, PlanDescription, PlanNote, PlanSegment, TablePlan, TenantPlanDescription,
};
use crate::FormatError;
use crate::schema::WireSchema;
use crate::wire::{self, WireContent, WireCounts, WirePosition, WireStore};

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

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub(super) struct WirePlan {
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
    notes: Vec<WireNote>,
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
    notes: Vec<WireNote>,
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
    gained: WireContent,
    lost: WireContent,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireConflict {
    table: u32,
    key: Vec<u8>,
    constraint: String,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireNote {
    kind: u8,
    object: String,
    detail: String,
    count: u64,
}

impl From<&PlanNote> for WireNote {
    fn from(note: &PlanNote) -> Self {
        Self {
            kind: note.kind as u8,
            object: note.object.clone(),
            detail: note.detail.clone(),
            count: note.count,
        }
    }
}

impl WireNote {
    fn into_note(self) -> Result<PlanNote, FormatError> {
        let kind = NoteKind::from_number(self.kind).ok_or_else(|| {
            FormatError::malformed(PLAN.structure, format!("unknown note number {}", self.kind))
        })?;
        Ok(PlanNote {
            kind,
            object: self.object,
            detail: self.detail,
            count: self.count,
        })
    }
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
            notes: plan.notes.iter().map(WireNote::from).collect(),
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
            notes: notes(wire.notes)?,
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
            gained: table.gained.into(),
            lost: table.lost.into(),
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
            notes: part.notes.iter().map(WireNote::from).collect(),
        }
    }
}

fn notes(notes: Vec<WireNote>) -> Result<Vec<PlanNote>, FormatError> {
    notes.into_iter().map(WireNote::into_note).collect()
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
            gained: table.gained.into(),
            lost: table.lost.into(),
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
            notes: notes(self.notes)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PLAN_TAIL_BYTES;
    use crate::codec::tests::check_frame_against_bincode;

    #[test]
    fn the_layout_is_that_of_bincode() {
        let golden = include_bytes!("../../tests/golden/v1/plan");
        let (bytes, tail) = golden.split_at(golden.len() - PLAN_TAIL_BYTES);
        let offset = u64::from_le_bytes(tail[8..16].try_into().unwrap());
        let frame = &bytes[usize::try_from(offset).unwrap()..];
        check_frame_against_bincode::<WirePlan>(&PLAN, frame);
    }
}
