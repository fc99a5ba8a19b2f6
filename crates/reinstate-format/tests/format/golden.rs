//! Files of every released version: they read, and writing the same values gives the same bytes.
//!
//! What zstd makes of a block may change with its version, so a golden segment is written again
//! from the golden blocks themselves: header, index, digests and trailer must come out the same
//! to the byte. To add a file that is missing, run the tests once with `REINSTATE_ADD_GOLDEN=1`;
//! files that exist are never written.

use std::path::PathBuf;
use std::sync::Arc;

use reinstate_core::{
    ChangeCounts, ColumnIndex, ColumnSchema, ContentDigest, Digest, Encryption, Fingerprint, JobId,
    KeyForm, KeyWriter, ObjectId, Owner, Policy, Position, PositionNotation, Reference,
    RepositoryId, RowBatch, RowRole, SegmentDescription, SequenceRaise, SequenceValue,
    SnapshotDescription, SnapshotId, StoreId, StoreIdentity, StoreSchema, TableIndex, TableName,
    TableSchema, TableTotals, Tenancy, TenantId, TenantKind, Timestamp,
};
use reinstate_format::{
    BlockLayout, Conflict, IndexBuilder, JobDescription, JournalPayload, NoteKind, PlanDescription,
    PlanNote, PlanSegment, ReceiptDescription, RepositoryHeader, RunKey, SealedBlock,
    SegmentIdentity, SegmentReader, TablePlan, TenantPlanDescription, decode_job,
    decode_journal_payload, decode_receipt, decode_repository_header, decode_snapshot, encode_job,
    encode_journal_payload, encode_plan_end, encode_receipt, encode_repository_header,
    encode_snapshot, read_plan, schema_digest, segment_header, verify_segment,
};

use crate::sample::{IDENTITY, Memory, content, read_all, run, segment, segment_of};

const REPOSITORY: RepositoryId = IDENTITY.repository;
const SNAPSHOT: SnapshotId = SnapshotId::from_bytes(IDENTITY.container);

fn time(second: i64) -> Timestamp {
    Timestamp::from_micros(1_775_374_680_000_000 + second * 1_000_000)
}

fn store() -> StoreIdentity {
    StoreIdentity {
        id: StoreId::from_bytes([0x33; 16]),
        name: "main".to_owned(),
    }
}

fn kind() -> TenantKind {
    TenantKind::parse("account").unwrap()
}

fn tenant(id: &str) -> TenantId {
    TenantId::try_new(id).unwrap()
}

fn column(name: &str, type_name: &str, nullable: bool, key_form: KeyForm) -> ColumnSchema {
    ColumnSchema {
        name: name.to_owned(),
        type_name: type_name.to_owned(),
        nullable,
        key_form,
    }
}

/// `accounts` with a key; `notes` without one, owned through its account.
pub fn schema() -> StoreSchema {
    let to_account = Reference {
        columns: vec![ColumnIndex(0)],
        parent: TableIndex(0),
        parent_columns: vec![ColumnIndex(0)],
    };
    let accounts = TableSchema {
        name: TableName::new("accounts"),
        columns: vec![
            column("id", "bigint", false, KeyForm::Integer),
            column("name", "text", true, KeyForm::Bytes),
        ],
        key: vec![ColumnIndex(0)],
        tenancy: Tenancy::Direct {
            column: ColumnIndex(0),
        },
        references: Vec::new(),
    };
    let notes = TableSchema {
        name: TableName::new("notes"),
        columns: vec![
            column("account", "bigint", false, KeyForm::Integer),
            column("body", "text", true, KeyForm::Bytes),
        ],
        key: Vec::new(),
        tenancy: Tenancy::Via {
            reference: to_account.clone(),
        },
        references: vec![to_account],
    };
    StoreSchema::try_new(vec![accounts, notes]).unwrap()
}

fn account(id: i64, name: Option<&str>) -> RowBatch {
    let mut key = KeyWriter::new();
    key.push_integer(id);
    let mut batch = RowBatch::new();
    let id = id.to_string();
    batch.push(
        key.as_bytes(),
        [Some(id.as_bytes()), name.map(str::as_bytes)],
    );
    batch
}

fn notes(account: &str, bodies: &[&str]) -> RowBatch {
    let mut batch = RowBatch::new();
    for body in bodies {
        batch.push(&[], [Some(account.as_bytes()), Some(body.as_bytes())]);
    }
    batch
}

/// Three tenants in two tables; one of them in two blocks, one row twice.
fn rows() -> Vec<(RunKey, Vec<RowBatch>)> {
    let image = |owner: &str, table| run(owner.as_bytes(), table, RowRole::Image);
    vec![
        (image("1", 0), vec![account(1, Some("Ada"))]),
        (
            image("1", 1),
            vec![notes("1", &["first", "twice"]), notes("1", &["twice"])],
        ),
        (image("2", 0), vec![account(2, None)]),
        (image("3", 0), vec![account(3, Some(""))]),
        (image("3", 1), vec![notes("3", &["third"])]),
    ]
}

fn plan_rows() -> Vec<(RunKey, Vec<RowBatch>)> {
    let of = |table, role| run(b"2", table, role);
    vec![
        (
            of(0, RowRole::PutBackBefore),
            vec![account(2, Some("changed"))],
        ),
        (of(0, RowRole::PutBackAfter), vec![account(2, None)]),
        (of(1, RowRole::Created), vec![notes("2", &["lost"])]),
        (of(1, RowRole::Deleted), vec![notes("2", &["new", "newer"])]),
    ]
}

pub(crate) fn snapshot() -> SnapshotDescription {
    let segment = |number: u32, first: &str, last: &str| SegmentDescription {
        object: ObjectId::from_bytes([0x44 + u8::try_from(number).unwrap(); 16]),
        number,
        stored_bytes: 4096 + u64::from(number),
        first_owner: Owner::from_bytes(first.as_bytes()).unwrap(),
        last_owner: Owner::from_bytes(last.as_bytes()).unwrap(),
        row_count: 7,
        root: Digest::from_bytes([0x55; 32]),
        encryption: Encryption::None,
    };
    SnapshotDescription {
        id: SNAPSHOT,
        store: store(),
        tenant_kind: kind(),
        position: Position {
            commit: 0x16B3_74D8,
            ordinal: 1,
        },
        notation: PositionNotation::Lsn,
        taken_at: time(0),
        schema: schema(),
        schema_digest: schema_digest(&schema()),
        sequences: vec![SequenceValue {
            name: "accounts_id_seq".to_owned(),
            last_value: 3,
        }],
        segments: vec![segment(0, "", "2"), segment(1, "2", "3")],
        totals: vec![
            TableTotals {
                row_count: 3,
                plain_bytes: 60,
                stored_bytes: 90,
            },
            TableTotals {
                row_count: 4,
                plain_bytes: 40,
                stored_bytes: 70,
            },
        ],
        tenant_count: 3,
    }
}

/// A plan whose segment is still to be filled in.
pub(crate) fn plan() -> PlanDescription {
    let table = |table, counts| TablePlan {
        table: TableIndex(table),
        counts,
        same: 5,
        kept: 0,
        conflicts: u64::from(table),
        before: ContentDigest::from_parts(7, 8),
        expected: ContentDigest::from_parts(u128::MAX - 9, 10),
        gained: ContentDigest::from_parts(11, 12),
        lost: ContentDigest::from_parts(13, 14),
    };
    PlanDescription {
        job: JobId::from_bytes([0x66; 16]),
        repository: REPOSITORY,
        store: store(),
        tenant_kind: kind(),
        snapshot: SNAPSHOT,
        point: Position {
            commit: 0x16B3_74D8,
            ordinal: 1,
        },
        point_time: time(0),
        notation: PositionNotation::Lsn,
        planned_at: time(60),
        live_position: Position {
            commit: 0x1A90_F220,
            ordinal: 0,
        },
        schema: schema(),
        schema_digest: schema_digest(&schema()),
        policy: Policy::EXACT,
        undoes: None,
        segment: PlanSegment::default(),
        notes: vec![PlanNote {
            kind: NoteKind::ColumnAdded,
            object: "notes.colour".to_owned(),
            detail: "added".to_owned(),
            count: 0,
        }],
        tenants: vec![TenantPlanDescription {
            tenant: tenant("2"),
            fingerprint: Fingerprint::new([1, 2, 3]),
            image_digest: Digest::from_bytes([0x77; 32]),
            tables: vec![
                table(
                    0,
                    ChangeCounts {
                        created: 0,
                        put_back: 1,
                        deleted: 0,
                    },
                ),
                table(
                    1,
                    ChangeCounts {
                        created: 1,
                        put_back: 0,
                        deleted: 2,
                    },
                ),
            ],
            conflicts: vec![Conflict {
                table: TableIndex(1),
                key: vec![1, 2],
                constraint: "notes_body_key".to_owned(),
            }],
            notes: vec![PlanNote {
                kind: NoteKind::ParentMissing,
                object: "notes.topic".to_owned(),
                detail: "gone".to_owned(),
                count: 7,
            }],
        }],
    }
}

pub(crate) fn receipt() -> ReceiptDescription {
    let counts = ChangeCounts {
        created: 1,
        put_back: 0,
        deleted: 2,
    };
    ReceiptDescription {
        job: JobId::from_bytes([0x66; 16]),
        plan: Digest::from_bytes([0x88; 32]),
        plan_object: ObjectId::from_bytes([0x99; 16]),
        store: store(),
        tenant_kind: kind(),
        tenant: tenant("2"),
        snapshot: SNAPSHOT,
        position: Position {
            commit: 0x1A90_F300,
            ordinal: 0,
        },
        notation: PositionNotation::Lsn,
        commit_mark: vec![0xab, 0xcd],
        merged_at: time(70),
        counts: vec![(TableIndex(1), TableName::new("notes"), counts)],
        sequences_raised: vec![SequenceRaise {
            name: "notes_seq".to_owned(),
            from: -1,
            to: 4,
        }],
        undoes: Some(JobId::from_bytes([0xaa; 16])),
    }
}

pub(crate) fn journal_payload() -> JournalPayload {
    JournalPayload {
        snapshot: SNAPSHOT,
        plan_object: ObjectId::from_bytes([0x99; 16]),
        counts: ChangeCounts {
            created: 1,
            put_back: 1,
            deleted: 2,
        },
    }
}

pub(crate) fn job() -> JobDescription {
    JobDescription {
        job: JobId::from_bytes([0x66; 16]),
        plan: Digest::from_bytes([0x88; 32]),
        plan_object: ObjectId::from_bytes([0x99; 16]),
        started_at: time(65),
        undoes: Some(JobId::from_bytes([0xaa; 16])),
    }
}

pub(crate) fn repository_header() -> RepositoryHeader {
    RepositoryHeader {
        id: REPOSITORY,
        created_at: time(-60),
    }
}

/// The golden file of this name. Adds it with these bytes if it is missing and that is asked for.
pub(crate) fn file(name: &str, bytes: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1");
    let path = directory.join(name);
    if !path.exists() && std::env::var_os("REINSTATE_ADD_GOLDEN").is_some() {
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(&path, bytes()).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn segment_file() -> Vec<u8> {
    file("segment", || segment(&IDENTITY, &rows()).0)
}

/// The root of the golden segment: BLAKE3 of its trailer.
pub(crate) fn segment_root(bytes: &[u8]) -> Digest {
    let trailer = &bytes[bytes.len() - reinstate_format::SEGMENT_TRAILER_BYTES..];
    Digest::from_bytes(*blake3::hash(trailer).as_bytes())
}

pub(crate) fn plan_file() -> Vec<u8> {
    file("plan", || {
        let mut plan = plan();
        let container = *plan.job.as_bytes();
        let identity = SegmentIdentity {
            repository: REPOSITORY,
            container,
            number: 0,
        };
        let (mut bytes, end) = segment(&identity, &plan_rows());
        plan.segment = PlanSegment {
            stored_bytes: end.segment_bytes,
            root: end.root,
        };
        bytes.extend_from_slice(&encode_plan_end(&plan).0);
        bytes
    })
}

/// Writes a segment again from its own stored blocks, placed in the order of their offsets.
#[track_caller]
fn check_written_again(bytes: &[u8], reader: &SegmentReader) {
    let mut blocks = Vec::new();
    let runs: Vec<_> = reader.runs().map(Result::unwrap).collect();
    for run in &runs {
        blocks.extend(run.blocks.iter().map(|block| (run.key.clone(), *block)));
    }
    blocks.sort_by_key(|(_, block)| block.offset);
    let mut again = segment_header(reader.identity());
    let mut index = IndexBuilder::new(*reader.identity(), again.len() as u64);
    for (key, block) in blocks {
        let start = usize::try_from(block.offset).unwrap();
        let sealed = SealedBlock {
            number: block.number,
            stored: bytes[start..start + block.stored_bytes as usize].to_vec(),
            plain_bytes: block.plain_bytes,
            row_count: block.row_count,
            crc: block.crc,
            digest: block.digest,
            layout: block.layout,
            dictionary: block.dictionary,
        };
        index.place(&key, &sealed);
        again.extend_from_slice(&sealed.stored);
    }
    for run in &runs {
        index.content(&run.key, run.content);
    }
    again.extend_from_slice(&index.finish().unwrap().bytes);
    assert_eq!(again, bytes);
}

#[track_caller]
fn check_rows(reader: &SegmentReader, expected: &[(RunKey, Vec<RowBatch>)]) {
    for (key, blocks) in expected {
        let mut whole = ContentDigest::EMPTY;
        blocks.iter().for_each(|block| whole.merge(content(block)));
        assert_eq!(reader.find(key).unwrap().unwrap().content, whole);
    }
    assert_eq!(read_all(reader).unwrap(), expected);
}

#[test]
fn the_golden_segment_reads_and_is_written_the_same() {
    let bytes = segment_file();
    let root = segment_root(&bytes);
    let reader = SegmentReader::open(Arc::new(Memory(bytes.clone())), &IDENTITY, &root).unwrap();
    verify_segment(&reader).unwrap();
    check_rows(&reader, &rows());
    check_written_again(&bytes, &reader);
}

/// Rows as most tables have them: numbered, some values of one length, some NULL.
fn rows_of_columns() -> Vec<(RunKey, Vec<RowBatch>)> {
    let mut batch = RowBatch::new();
    for id in [7, 9, 300] {
        let mut key = KeyWriter::new();
        key.push_integer(id);
        let (id, note) = (id.to_string(), format!("note of {id}"));
        let note = (id != "9").then_some(note.as_bytes());
        batch.push(
            key.as_bytes(),
            [Some(id.as_bytes()), Some(b"42"), note, None],
        );
    }
    let mut named = RowBatch::new();
    for name in ["a", "bcd", "e"] {
        let mut key = KeyWriter::new();
        key.push_bytes(name.as_bytes());
        named.push(key.as_bytes(), [Some(name.as_bytes())]);
    }
    vec![
        (run(b"42", 0, RowRole::Image), vec![batch]),
        (
            run(b"42", 1, RowRole::Image),
            vec![notes("42", &["one", "two"])],
        ),
        (run(b"42", 2, RowRole::Image), vec![named]),
    ]
}

#[test]
fn the_golden_segment_of_columns_reads_and_is_written_the_same() {
    let rows = rows_of_columns();
    let bytes = file("segment_columns", || {
        segment_of(BlockLayout::Columns, &IDENTITY, &rows).0
    });
    let reader = SegmentReader::open(
        Arc::new(Memory(bytes.clone())),
        &IDENTITY,
        &segment_root(&bytes),
    );
    let reader = reader.unwrap();
    verify_segment(&reader).unwrap();
    check_rows(&reader, &rows);
    check_written_again(&bytes, &reader);
    let runs: Vec<_> = reader.runs().map(Result::unwrap).collect();
    let mut blocks = runs.iter().flat_map(|run| &run.blocks);
    assert!(blocks.all(|block| block.layout == BlockLayout::Columns));
}

#[test]
fn the_golden_plan_reads_and_is_written_the_same() {
    let bytes = plan_file();
    let (found, digest, reader) = read_plan(Arc::new(Memory(bytes.clone()))).unwrap();
    verify_segment(&reader).unwrap();
    check_rows(&reader, &plan_rows());
    assert_eq!(
        found,
        PlanDescription {
            segment: found.segment,
            ..plan()
        }
    );
    let (end, again) = encode_plan_end(&found);
    assert_eq!(again, digest);
    let (of_segment, of_end) = bytes.split_at(usize::try_from(found.segment.stored_bytes).unwrap());
    assert_eq!(of_end, end);
    check_written_again(of_segment, &reader);
}

#[test]
fn the_golden_records_read_and_are_written_the_same() {
    let manifest = encode_snapshot(REPOSITORY, &snapshot());
    let bytes = file("snapshot", || manifest.clone());
    assert_eq!(
        decode_snapshot(&bytes, REPOSITORY, SNAPSHOT).unwrap(),
        snapshot()
    );
    assert_eq!(bytes, manifest);
    let bytes = file("receipt", || encode_receipt(&receipt()));
    assert_eq!(decode_receipt(&bytes).unwrap(), receipt());
    assert_eq!(bytes, encode_receipt(&receipt()));
    let bytes = file("journal", || encode_journal_payload(&journal_payload()));
    assert_eq!(decode_journal_payload(&bytes).unwrap(), journal_payload());
    assert_eq!(bytes, encode_journal_payload(&journal_payload()));
    let bytes = file("job", || encode_job(&job()));
    assert_eq!(decode_job(&bytes, job().job).unwrap(), job());
    assert_eq!(bytes, encode_job(&job()));
    let bytes = file("repository", || {
        encode_repository_header(&repository_header())
    });
    assert_eq!(
        decode_repository_header(&bytes).unwrap(),
        repository_header()
    );
    assert_eq!(bytes, encode_repository_header(&repository_header()));
}
