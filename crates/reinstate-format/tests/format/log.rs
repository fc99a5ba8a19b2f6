//! Runs of the change log: golden files, damage, hostile bytes.

use std::sync::Arc;

use reinstate_core::{
    ColumnIndex, ColumnOrigin, Commit, Digest, KeyWriter, ObjectId, ObjectReader, Owner, Position,
    RowBatch, RowBuilder, RowRole, SchemaChange, SnapshotId, StoreSchema, TableIndex, TableOrigin,
    Timestamp,
};
use reinstate_format::{
    ChangeKind, FamilyMove, LogBase, LogRunDescription, LogRunExtent, LogVersionDescription,
    LoggedChange, LoggedCommit, RunKey, Truncation, decode_commits, decode_log_base,
    decode_log_origin, decode_log_pack, decode_log_run, decode_log_version, encode_commits,
    encode_log_base, encode_log_origin, encode_log_pack, encode_log_run, encode_log_version,
    is_log_version, link_name, log_run_identity, log_version_place, open_log_run, push_change,
    record_digest, verify_segment,
};

use crate::forge;
use crate::golden::file;
use crate::records::check_damage;
use crate::sample::{IDENTITY, Memory, read_all, run, segment};

const PREVIOUS: Digest = Digest::from_bytes([0xbb; 32]);

fn position(commit: u64) -> Position {
    Position { commit, ordinal: 0 }
}

fn commits() -> Vec<LoggedCommit> {
    let commit = |number, micros: i64, change_count| LoggedCommit {
        commit: Commit {
            position: position(number),
            time: Timestamp::from_micros(1_775_374_680_000_000 + micros),
        },
        change_count,
    };
    // The clock went back by two seconds.
    vec![commit(0x200, 5_000_000, 3), commit(0x300, 3_000_000, 2)]
}

fn change(id: i64, ordinal: u32, kind: ChangeKind, values: &[&str]) -> RowBatch {
    let mut key = KeyWriter::new();
    key.push_integer(id);
    let mut plain = RowBuilder::new();
    plain.start(key.as_bytes());
    values
        .iter()
        .for_each(|value| plain.push(Some(value.as_bytes())));
    let mut row = RowBuilder::new();
    push_change(
        LoggedChange {
            key: key.as_bytes(),
            columns: plain.row().columns(),
            commit: 0x200,
            ordinal,
            kind,
            was: if kind == ChangeKind::Inserted {
                0
            } else {
                0x1234
            },
        },
        &mut row,
    );
    let mut batch = RowBatch::new();
    batch.push_row(row.row());
    batch
}

fn changes() -> Vec<(RunKey, Vec<RowBatch>)> {
    let of = |owner: &str| run(owner.as_bytes(), 0, RowRole::Image);
    vec![
        (of("1"), vec![change(7, 0, ChangeKind::Removed, &[])]),
        (
            of("2"),
            vec![
                change(7, 0, ChangeKind::Inserted, &["7", "moved"]),
                change(9, 1, ChangeKind::Updated, &["9", ""]),
            ],
        ),
    ]
}

/// A run, as its record and its object.
fn written() -> (LogRunDescription, Vec<u8>, Vec<u8>) {
    let identity = log_run_identity(IDENTITY.repository, &PREVIOUS);
    let (mut object, end) = segment(&identity, &changes());
    let (bytes, commits_digest) = encode_commits(identity.container, &commits());
    object.extend_from_slice(&bytes);
    let description = LogRunDescription {
        log: SnapshotId::from_bytes(IDENTITY.container),
        number: 4,
        previous: PREVIOUS,
        after: position(0x100),
        through: position(0x380),
        commit_count: 2,
        latest_time: Some(commits()[0].commit.time),
        sealed_at: Timestamp::from_micros(1_775_374_690_000_000),
        schema_digest: Digest::from_bytes([0xcc; 32]),
        truncations: vec![Truncation {
            commit: 0x300,
            ordinal: 1,
            table: TableIndex(1),
        }],
        moves: vec![FamilyMove {
            commit: 0x200,
            ordinal: 1,
            table: TableIndex(0),
            from: Owner::from_bytes(b"1").unwrap(),
            to: Owner::from_bytes(b"2").unwrap(),
        }],
        extent: LogRunExtent {
            object: ObjectId::from_bytes([0xdd; 16]),
            segment_bytes: end.segment_bytes,
            root: end.root,
            first_owner: end.first_owner,
            last_owner: end.last_owner,
            change_count: end.row_count,
            commits_bytes: bytes.len() as u64,
            commits_digest,
        },
    };
    let record = encode_log_run(IDENTITY.repository, &description).0;
    (description, record, object)
}

#[test]
fn the_golden_run_reads_and_is_written_the_same() {
    let record = file("log_run", || written().1);
    let object = file("log_object", || written().2);
    let (description, digest) = decode_log_run(&record, IDENTITY.repository, &PREVIOUS).unwrap();
    assert_eq!(record_digest(&record).unwrap(), digest);
    assert_eq!(
        encode_log_run(IDENTITY.repository, &description),
        (record, digest)
    );
    let object: Arc<dyn ObjectReader> = Arc::new(Memory(object));
    let reader = open_log_run(&object, IDENTITY.repository, &description).unwrap();
    verify_segment(&reader).unwrap();
    assert_eq!(read_all(&reader).unwrap(), changes());
    let found = description
        .read_commits(object.as_ref(), IDENTITY.repository)
        .unwrap();
    assert_eq!(found, commits());
    assert_eq!(
        description.extent.first_owner,
        Owner::from_bytes(b"1").unwrap()
    );
}

#[test]
fn a_run_is_read_only_after_the_record_that_it_follows() {
    let (description, record, object) = written();
    let other = Digest::from_bytes([0; 32]);
    assert!(decode_log_run(&record, IDENTITY.repository, &other).is_err());
    let elsewhere = reinstate_core::RepositoryId::from_bytes([9; 16]);
    assert!(decode_log_run(&record, elsewhere, &PREVIOUS).is_err());
    assert_ne!(
        link_name(elsewhere, &PREVIOUS),
        link_name(IDENTITY.repository, &PREVIOUS)
    );
    // The same bytes in another place of a log do not open.
    let object: Arc<dyn ObjectReader> = Arc::new(Memory(object));
    let moved = LogRunDescription {
        previous: other,
        ..description
    };
    assert!(open_log_run(&object, IDENTITY.repository, &moved).is_err());
    assert!(
        moved
            .read_commits(object.as_ref(), IDENTITY.repository)
            .is_err()
    );
}

#[test]
fn all_damage_to_a_run_is_noticed() {
    let (description, record, object) = written();
    check_damage(&record, |damaged| {
        decode_log_run(damaged, IDENTITY.repository, &PREVIOUS).is_err()
    });
    let start = usize::try_from(description.extent.segment_bytes).unwrap();
    check_damage(&object[start..], |damaged| {
        let mut bytes = object[..start].to_vec();
        bytes.extend_from_slice(damaged);
        description
            .read_commits(&Memory(bytes), IDENTITY.repository)
            .is_err()
    });
}

#[test]
fn any_bytes_as_the_record_or_the_commits_of_a_run() {
    let (_, record, _) = written();
    let (bytes, _) = encode_commits([7; 16], &commits());
    bolero::check!()
        .with_iterations(crate::fuzz::budget().0)
        .with_test_time(crate::fuzz::budget().1)
        .for_each(|input: &[u8]| {
            for valid in [&record, &bytes] {
                let edited = forge::edit(forge::payload(valid), input);
                for frame in [
                    input.to_vec(),
                    forge::frame(valid, input),
                    forge::frame(valid, &edited),
                ] {
                    let read = decode_log_run(&frame, IDENTITY.repository, &PREVIOUS);
                    if let Ok((found, digest)) = read {
                        let again = encode_log_run(IDENTITY.repository, &found);
                        assert_eq!(again, (frame.clone(), digest));
                    }
                    if let Ok(digest) = record_digest(&frame)
                        && let Ok(found) = decode_commits(&frame, [7; 16], &digest)
                    {
                        assert_eq!(encode_commits([7; 16], &found).0, frame);
                    }
                }
            }
        });
}

/// The tables before: those of the sample snapshot.
fn before() -> StoreSchema {
    crate::golden::schema()
}

/// The first table gets a column in front and loses its last one, and the others are gone.
fn version() -> LogVersionDescription {
    let before = before();
    let was = &before.tables()[0];
    let mut table = was.clone();
    let last = table.columns.pop().unwrap();
    let mut columns = vec![ColumnOrigin::Filled(Some(b"free".to_vec()))];
    let kept = (0..).map(ColumnIndex).take(table.columns.len());
    columns.extend(kept.map(ColumnOrigin::From));
    table.columns.insert(0, last);
    table.columns[0].name = "plan".to_owned();
    for column in &mut table.key {
        column.0 += 1;
    }
    table.references.clear();
    if let reinstate_core::Tenancy::Direct { column } = &mut table.tenancy {
        column.0 += 1;
    }
    let mut new = table.clone();
    new.name = reinstate_core::TableName::new("new");
    let origin = TableOrigin {
        table: TableIndex(0),
        columns,
    };
    let schema = StoreSchema::try_new(vec![new, table]).unwrap();
    let change =
        SchemaChange::try_new(&before, schema, vec![None, Some(origin)], vec![1, 2]).unwrap();
    LogVersionDescription {
        log: SnapshotId::from_bytes(IDENTITY.container),
        number: 4,
        previous: PREVIOUS,
        after: position(0x100),
        noted_at: Timestamp::from_micros(1_775_374_690_000_000),
        change,
    }
}

#[test]
fn the_golden_tables_of_a_log_read_and_are_written_the_same() {
    let record = file("log_version", || {
        encode_log_version(IDENTITY.repository, &version()).0
    });
    assert!(is_log_version(&record));
    let (found, digest) =
        decode_log_version(&record, IDENTITY.repository, &PREVIOUS, &before()).unwrap();
    assert_eq!(found, version());
    assert_eq!(
        encode_log_version(IDENTITY.repository, &found),
        (record.clone(), digest)
    );
    assert_eq!(log_version_place(&record).unwrap(), (found.log, 4));
    assert!(decode_log_run(&record, IDENTITY.repository, &PREVIOUS).is_err());
    let other = Digest::from_bytes([0; 32]);
    assert!(decode_log_version(&record, IDENTITY.repository, &other, &before()).is_err());
    // They follow only the tables that they say what became of.
    let elsewhere = StoreSchema::try_new(Vec::new()).unwrap();
    assert!(decode_log_version(&record, IDENTITY.repository, &PREVIOUS, &elsewhere).is_err());
    check_damage(&record, |damaged| {
        decode_log_version(damaged, IDENTITY.repository, &PREVIOUS, &before()).is_err()
    });
}

#[test]
fn any_bytes_as_the_tables_of_a_log() {
    let (record, _) = encode_log_version(IDENTITY.repository, &version());
    bolero::check!()
        .with_iterations(crate::fuzz::budget().0)
        .with_test_time(crate::fuzz::budget().1)
        .for_each(|input: &[u8]| {
            let edited = forge::edit(forge::payload(&record), input);
            for frame in [
                input.to_vec(),
                forge::frame(&record, input),
                forge::frame(&record, &edited),
            ] {
                let _ = log_version_place(&frame);
                let read = decode_log_version(&frame, IDENTITY.repository, &PREVIOUS, &before());
                if let Ok((found, digest)) = read {
                    let again = encode_log_version(IDENTITY.repository, &found);
                    assert_eq!(again, (frame.clone(), digest));
                }
            }
        });
}

/// A run's record and what stands behind it, as a log has them.
fn packed() -> Vec<Vec<u8>> {
    let (tables, _) = encode_log_version(IDENTITY.repository, &version());
    vec![written().1, tables]
}

#[test]
fn the_golden_pack_of_a_log_reads_and_is_written_the_same() {
    let name = link_name(IDENTITY.repository, &PREVIOUS);
    let pack = file("log_pack", || {
        encode_log_pack(IDENTITY.repository, name, &packed())
    });
    let found = decode_log_pack(&pack, IDENTITY.repository, name).unwrap();
    assert_eq!(found, packed());
    assert_eq!(encode_log_pack(IDENTITY.repository, name, &found), pack);
    assert!(decode_log_pack(&pack, IDENTITY.repository, [0; 16]).is_err());
    check_damage(&pack, |damaged| {
        decode_log_pack(damaged, IDENTITY.repository, name).is_err()
    });
}

#[test]
fn any_bytes_as_a_pack_of_a_log() {
    let name = link_name(IDENTITY.repository, &PREVIOUS);
    let pack = encode_log_pack(IDENTITY.repository, name, &packed());
    bolero::check!()
        .with_iterations(crate::fuzz::budget().0)
        .with_test_time(crate::fuzz::budget().1)
        .for_each(|input: &[u8]| {
            let edited = forge::edit(forge::payload(&pack), input);
            for frame in [
                input.to_vec(),
                forge::frame(&pack, input),
                forge::frame(&pack, &edited),
            ] {
                if let Ok(found) = decode_log_pack(&frame, IDENTITY.repository, name) {
                    assert_eq!(encode_log_pack(IDENTITY.repository, name, &found), frame);
                }
            }
        });
}

fn base() -> LogBase {
    LogBase {
        snapshot: SnapshotId::from_bytes([0xee; 16]),
        log: SnapshotId::from_bytes(IDENTITY.container),
        run: PREVIOUS,
        number: 4,
    }
}

const TIMELINE: u32 = 7;

#[test]
fn the_golden_base_and_origin_of_a_log_read_and_are_written_the_same() {
    let repository = IDENTITY.repository;
    let snapshot = base().snapshot;
    let bytes = file("log_base", || encode_log_base(repository, &base()));
    let found = decode_log_base(&bytes, repository, snapshot).unwrap();
    assert_eq!(found, base());
    assert_eq!(encode_log_base(repository, &found), bytes);
    let bytes = file("log_origin", || {
        encode_log_origin(repository, snapshot, TIMELINE)
    });
    let found = decode_log_origin(&bytes, repository, snapshot).unwrap();
    assert_eq!(found, TIMELINE);
    assert_eq!(encode_log_origin(repository, snapshot, found), bytes);
}

#[test]
fn any_bytes_as_the_base_or_the_origin_of_a_log() {
    let repository = IDENTITY.repository;
    let snapshot = base().snapshot;
    let base = encode_log_base(repository, &base());
    let origin = encode_log_origin(repository, snapshot, TIMELINE);
    bolero::check!()
        .with_iterations(crate::fuzz::budget().0)
        .with_test_time(crate::fuzz::budget().1)
        .for_each(|input: &[u8]| {
            for golden in [&base, &origin] {
                let edited = forge::edit(forge::payload(golden), input);
                for frame in [
                    input.to_vec(),
                    forge::frame(golden, input),
                    forge::frame(golden, &edited),
                ] {
                    if let Ok(found) = decode_log_base(&frame, repository, snapshot) {
                        assert_eq!(encode_log_base(repository, &found), frame);
                    }
                    if let Ok(found) = decode_log_origin(&frame, repository, snapshot) {
                        assert_eq!(encode_log_origin(repository, snapshot, found), frame);
                    }
                }
            }
        });
}
