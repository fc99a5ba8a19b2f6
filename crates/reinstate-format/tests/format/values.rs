//! Any value that a structure can hold.

use proptest::prelude::*;
use reinstate_core::{
    ChangeCounts, ColumnIndex, ColumnSchema, ConflictPolicy, ContentDigest, Digest, Encryption,
    Fingerprint, JobId, KeyForm, ObjectId, Owner, Policy, Position, PositionNotation, Reference,
    RepositoryId, Route, RouteCondition, SegmentDescription, SequenceRaise, SequenceValue,
    SnapshotDescription, SnapshotId, StoreId, StoreIdentity, StoreSchema, Switch, TableIndex,
    TableName, TableSchema, TableTotals, Tenancy, TenantId, TenantKind, Timestamp,
};
use reinstate_format::{
    Conflict, NoteKind, PlanDescription, PlanNote, PlanSegment, ReceiptDescription, TablePlan,
    TenantPlanDescription, schema_digest,
};

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::from_bytes)
}

fn content() -> impl Strategy<Value = ContentDigest> {
    any::<(u128, u64)>().prop_map(|(sum, rows)| ContentDigest::from_parts(sum, rows))
}

fn position() -> impl Strategy<Value = Position> {
    any::<(u64, u32)>().prop_map(|(commit, ordinal)| Position { commit, ordinal })
}

fn notation() -> impl Strategy<Value = PositionNotation> {
    prop_oneof![Just(PositionNotation::Commit), Just(PositionNotation::Lsn)]
}

fn time() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_micros)
}

fn store() -> impl Strategy<Value = StoreIdentity> {
    any::<([u8; 16], String)>().prop_map(|(id, name)| StoreIdentity {
        id: StoreId::from_bytes(id),
        name,
    })
}

fn kind() -> impl Strategy<Value = TenantKind> {
    "[a-z][a-z0-9_-]{0,9}".prop_map(|name| TenantKind::parse(&name).unwrap())
}

fn tenant() -> impl Strategy<Value = TenantId> {
    proptest::collection::vec(any::<u8>(), 1..9).prop_map(|id| TenantId::try_new(id).unwrap())
}

fn counts() -> impl Strategy<Value = ChangeCounts> {
    any::<(u64, u64, u64)>().prop_map(|(created, put_back, deleted)| ChangeCounts {
        created,
        put_back,
        deleted,
    })
}

fn column() -> impl Strategy<Value = ColumnSchema> {
    any::<(String, String, bool)>().prop_map(|(name, type_name, integer)| ColumnSchema {
        name,
        type_name,
        nullable: false,
        key_form: if integer {
            KeyForm::Integer
        } else {
            KeyForm::Bytes
        },
    })
}

/// One to three tables; the later ones may refer to the first.
pub(crate) fn schema() -> impl Strategy<Value = StoreSchema> {
    let columns = proptest::collection::vec(column(), 1..4);
    let table = (columns, any::<bool>(), 0..6u8, any::<bool>());
    proptest::collection::vec(table, 1..4).prop_map(|tables| {
        let to_first = || Reference {
            columns: vec![ColumnIndex(0)],
            parent: TableIndex(0),
            parent_columns: vec![ColumnIndex(0)],
        };
        let tables = tables.into_iter().enumerate().map(|(index, table)| {
            let (columns, has_key, tenancy, refers) = table;
            TableSchema {
                name: TableName::new(format!("table {index}")),
                columns,
                key: if has_key {
                    vec![ColumnIndex(0)]
                } else {
                    Vec::new()
                },
                tenancy: match tenancy {
                    _ if index == 0 => Tenancy::Direct {
                        column: ColumnIndex(0),
                    },
                    0 => Tenancy::Native,
                    1 => Tenancy::Direct {
                        column: ColumnIndex(0),
                    },
                    2 => Tenancy::Via {
                        reference: to_first(),
                    },
                    3 => Tenancy::Shared,
                    4 => Tenancy::OneOf {
                        routes: [None, Some("Order")]
                            .map(|value| Route {
                                condition: value.map(|value: &str| RouteCondition {
                                    column: ColumnIndex(0),
                                    value: value.to_owned(),
                                }),
                                reference: to_first(),
                            })
                            .to_vec(),
                    },
                    _ => Tenancy::Excluded,
                },
                references: if refers { vec![to_first()] } else { Vec::new() },
            }
        });
        StoreSchema::try_new(tables.collect()).unwrap()
    })
}

/// Counts of which a few can be added up.
fn count() -> impl Strategy<Value = u64> {
    0..1_u64 << 56
}

fn segments() -> impl Strategy<Value = Vec<SegmentDescription>> {
    let owner = proptest::collection::vec(any::<u8>(), 0..5);
    let rest = (any::<[u8; 16]>(), count(), count(), digest());
    let owners = proptest::collection::vec(owner, 0..8);
    (owners, proptest::collection::vec(rest, 4)).prop_map(|(mut owners, rest)| {
        owners.sort();
        let owner = |bytes: &[u8]| Owner::from_bytes(bytes).unwrap();
        let segments = owners.chunks_exact(2).zip(rest).enumerate();
        segments
            .map(
                |(number, (owners, (object, stored_bytes, row_count, root)))| SegmentDescription {
                    object: ObjectId::from_bytes(object),
                    number: u32::try_from(number).unwrap(),
                    stored_bytes,
                    first_owner: owner(&owners[0]),
                    last_owner: owner(&owners[1]),
                    row_count,
                    root,
                    encryption: Encryption::None,
                },
            )
            .collect()
    })
}

pub(crate) fn snapshot() -> impl Strategy<Value = SnapshotDescription> {
    let names = (
        any::<[u8; 16]>(),
        store(),
        kind(),
        position(),
        notation(),
        time(),
    );
    let sequences = proptest::collection::vec(any::<(String, i64)>(), 0..3);
    (
        names,
        schema(),
        sequences,
        segments(),
        (count(), any::<u64>()),
    )
        .prop_map(
            |(names, schema, sequences, segments, (row_count, tenant_count))| {
                let (id, store, tenant_kind, position, notation, taken_at) = names;
                let totals = TableTotals {
                    row_count,
                    plain_bytes: 7,
                    stored_bytes: 5,
                };
                SnapshotDescription {
                    id: SnapshotId::from_bytes(id),
                    store,
                    tenant_kind,
                    position,
                    notation,
                    taken_at,
                    schema_digest: schema_digest(&schema),
                    totals: vec![totals; schema.tables().len()],
                    schema,
                    sequences: sequences
                        .into_iter()
                        .map(|(name, last_value)| SequenceValue { name, last_value })
                        .collect(),
                    segments,
                    tenant_count,
                }
            },
        )
}

fn policy() -> impl Strategy<Value = Policy> {
    let switch = || prop_oneof![Just(Switch::On), Just(Switch::Off)];
    let on_conflict = prop_oneof![
        Just(ConflictPolicy::Fail),
        Just(ConflictPolicy::KeepLive),
        Just(ConflictPolicy::TakeSnapshot)
    ];
    (switch(), switch(), switch(), on_conflict).prop_map(
        |(create, put_back, delete, on_conflict)| Policy {
            create,
            put_back,
            delete,
            on_conflict,
        },
    )
}

fn notes() -> impl Strategy<Value = Vec<PlanNote>> {
    let kind = proptest::sample::select(NoteKind::ALL.to_vec());
    let note =
        (kind, any::<(String, String, u64)>()).prop_map(|(kind, (object, detail, count))| {
            PlanNote {
                kind,
                object,
                detail,
                count,
            }
        });
    proptest::collection::vec(note, 0..3)
}

/// What a plan does to tenants of a store that has at least one table.
fn tenants() -> impl Strategy<Value = Vec<TenantPlanDescription>> {
    let contents = (content(), content(), content(), content());
    let table = (counts(), any::<(u64, u64, u64)>(), contents).prop_map(
        |(counts, (same, kept, conflicts), (before, expected, gained, lost))| TablePlan {
            table: TableIndex(0),
            counts,
            same,
            kept,
            conflicts,
            before,
            expected,
            gained,
            lost,
        },
    );
    let conflict = any::<(Vec<u8>, String)>().prop_map(|(key, constraint)| Conflict {
        table: TableIndex(0),
        key,
        constraint,
    });
    let tables = proptest::collection::vec(table, 0..2);
    let conflicts = proptest::collection::vec(conflict, 0..3);
    let part = (any::<Vec<u8>>(), digest(), tables, conflicts, notes());
    proptest::collection::btree_map(tenant(), part, 0..4).prop_map(|parts| {
        let parts = parts.into_iter();
        parts
            .map(
                |(tenant, (fingerprint, image_digest, tables, conflicts, notes))| {
                    TenantPlanDescription {
                        tenant,
                        fingerprint: Fingerprint::new(fingerprint),
                        image_digest,
                        tables,
                        conflicts,
                        notes,
                    }
                },
            )
            .collect()
    })
}

/// A plan whose segment is still to be filled in.
pub(crate) fn plan() -> impl Strategy<Value = PlanDescription> {
    let ids = (
        any::<[[u8; 16]; 3]>(),
        store(),
        kind(),
        any::<Option<[u8; 16]>>(),
    );
    let places = (position(), position(), notation(), time(), time());
    (ids, places, schema(), policy(), (notes(), tenants())).prop_map(
        |(ids, places, schema, policy, (notes, tenants))| {
            let ([job, repository, snapshot], store, tenant_kind, undoes) = ids;
            let (point, live_position, notation, point_time, planned_at) = places;
            PlanDescription {
                job: JobId::from_bytes(job),
                repository: RepositoryId::from_bytes(repository),
                store,
                tenant_kind,
                snapshot: SnapshotId::from_bytes(snapshot),
                point,
                point_time,
                notation,
                planned_at,
                live_position,
                schema_digest: schema_digest(&schema),
                schema,
                policy,
                undoes: undoes.map(JobId::from_bytes),
                segment: PlanSegment::default(),
                notes,
                tenants,
            }
        },
    )
}

pub(crate) fn receipt() -> impl Strategy<Value = ReceiptDescription> {
    let ids = (any::<[[u8; 16]; 3]>(), digest(), store(), kind(), tenant());
    let places = (
        position(),
        notation(),
        time(),
        any::<Vec<u8>>(),
        any::<Option<[u8; 16]>>(),
    );
    let tables = proptest::collection::vec((any::<(u32, String)>(), counts()), 0..3);
    let raises = proptest::collection::vec(any::<(String, i64, i64)>(), 0..3);
    (ids, places, tables, raises).prop_map(|(ids, places, tables, raises)| {
        let ([job, plan_object, snapshot], plan, store, tenant_kind, tenant) = ids;
        let (position, notation, merged_at, commit_mark, undoes) = places;
        ReceiptDescription {
            job: JobId::from_bytes(job),
            plan,
            plan_object: ObjectId::from_bytes(plan_object),
            store,
            tenant_kind,
            tenant,
            snapshot: SnapshotId::from_bytes(snapshot),
            position,
            notation,
            commit_mark,
            merged_at,
            counts: tables
                .into_iter()
                .map(|((table, name), counts)| (TableIndex(table), TableName::new(name), counts))
                .collect(),
            sequences_raised: raises
                .into_iter()
                .map(|(name, from, to)| SequenceRaise { name, from, to })
                .collect(),
            undoes: undoes.map(JobId::from_bytes),
        }
    })
}
