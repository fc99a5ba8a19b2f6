//! Manifests, plans, receipts and the small records: what was written is read, and nothing else.

use std::sync::Arc;

use proptest::prelude::*;
use reinstate_core::{
    ChangeCounts, Digest, ErrorKind, JobId, ObjectId, RepositoryId, RowRole, SnapshotId,
    TableIndex, Timestamp,
};
use reinstate_format::{
    FormatError, JobDescription, JournalPayload, PlanDescription, PlanSegment, RepositoryHeader,
    SegmentIdentity, decode_job, decode_journal_payload, decode_receipt, decode_repository_header,
    decode_snapshot, encode_job, encode_journal_payload, encode_plan_end, encode_receipt,
    encode_repository_header, encode_snapshot, read_plan, verify_segment,
};

use crate::golden;
use crate::sample::{Memory, batch, read_all, run, segment};
use crate::values;

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([0x11; 16]);

/// Asserts that every flipped bit, every truncation and an added byte is noticed.
#[track_caller]
pub(crate) fn check_damage(bytes: &[u8], is_noticed: impl Fn(&[u8]) -> bool) {
    assert!(!is_noticed(bytes), "intact bytes are refused");
    let mut damaged = bytes.to_vec();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            damaged[at] ^= 1 << bit;
            assert!(is_noticed(&damaged), "bit {bit} of byte {at}");
            damaged[at] ^= 1 << bit;
        }
        assert!(is_noticed(&bytes[..at]), "cut at {at}");
    }
    damaged.push(0);
    assert!(is_noticed(&damaged), "a byte more");
}

/// Writes a plan with two runs; returns its file and what it says, segment filled in.
fn write_plan(mut plan: PlanDescription) -> (Vec<u8>, PlanDescription) {
    let identity = SegmentIdentity {
        repository: plan.repository,
        container: *plan.job.as_bytes(),
        number: 0,
    };
    let rows = |key: u8| vec![batch(&vec![(vec![key], vec![Some(vec![key; 20]), None])])];
    let runs = [
        (run(b"7", 1, RowRole::Deleted), rows(1)),
        (run(b"7", 0, RowRole::Created), rows(2)),
    ];
    let (mut bytes, end) = segment(&identity, &runs);
    plan.segment = PlanSegment {
        stored_bytes: end.segment_bytes,
        root: end.root,
    };
    bytes.extend_from_slice(&encode_plan_end(&plan).0);
    (bytes, plan)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_manifest_reads_back(snapshot in values::snapshot()) {
        let bytes = encode_snapshot(REPOSITORY, &snapshot);
        prop_assert_eq!(&decode_snapshot(&bytes, REPOSITORY, snapshot.id).unwrap(), &snapshot);
        let other = RepositoryId::from_bytes([9; 16]);
        let error = decode_snapshot(&bytes, other, snapshot.id).unwrap_err();
        prop_assert!(matches!(error, FormatError::Foreign { .. }), "{}", error);
        let other = SnapshotId::from_bytes(snapshot.id.as_bytes().map(|byte| !byte));
        let error = decode_snapshot(&bytes, REPOSITORY, other).unwrap_err();
        prop_assert!(matches!(error, FormatError::Foreign { .. }), "{}", error);
    }

    #[test]
    fn a_plan_reads_back(plan in values::plan()) {
        let (bytes, plan) = write_plan(plan);
        let (found, digest, reader) = read_plan(Arc::new(Memory(bytes))).unwrap();
        prop_assert_eq!(digest, encode_plan_end(&plan).1);
        prop_assert_eq!(found, plan);
        verify_segment(&reader).unwrap();
        let keys: Vec<_> = read_all(&reader).unwrap().into_iter().map(|(key, _)| key.role).collect();
        prop_assert_eq!(keys, [RowRole::Created, RowRole::Deleted]);
    }

    #[test]
    fn a_receipt_reads_back(receipt in values::receipt()) {
        prop_assert_eq!(decode_receipt(&encode_receipt(&receipt)).unwrap(), receipt);
    }

    #[test]
    fn small_records_read_back(
        ids: [[u8; 16]; 2], numbers: [u64; 3], micros: i64
    ) {
        let payload = JournalPayload {
            snapshot: SnapshotId::from_bytes(ids[0]),
            plan_object: ObjectId::from_bytes(ids[1]),
            counts: ChangeCounts { created: numbers[0], put_back: numbers[1], deleted: numbers[2] },
        };
        let bytes = encode_journal_payload(&payload);
        prop_assert_eq!(decode_journal_payload(&bytes).unwrap(), payload);
        let job = JobDescription {
            job: JobId::from_bytes(ids[0]),
            plan: Digest::from_bytes([7; 32]),
            plan_object: ObjectId::from_bytes(ids[1]),
            started_at: Timestamp::from_micros(micros),
            undoes: (numbers[0] % 2 == 0).then(|| JobId::from_bytes(ids[1])),
        };
        let bytes = encode_job(&job);
        prop_assert_eq!(&decode_job(&bytes, job.job).unwrap(), &job);
        let error = decode_job(&bytes, JobId::from_bytes(ids[0].map(|byte| !byte))).unwrap_err();
        prop_assert!(matches!(error, FormatError::Foreign { .. }), "{}", error);
        let header = RepositoryHeader {
            id: RepositoryId::from_bytes(ids[0]),
            created_at: Timestamp::from_micros(micros),
        };
        let bytes = encode_repository_header(&header);
        prop_assert_eq!(decode_repository_header(&bytes).unwrap(), header);
    }
}

#[test]
fn damage_anywhere_in_a_manifest_is_found() {
    let snapshot = golden::snapshot();
    let bytes = encode_snapshot(REPOSITORY, &snapshot);
    check_damage(&bytes, |damaged| {
        decode_snapshot(damaged, REPOSITORY, snapshot.id).is_err()
    });
}

#[test]
fn damage_anywhere_in_a_receipt_or_a_small_record_is_found() {
    check_damage(&encode_receipt(&golden::receipt()), |damaged| {
        decode_receipt(damaged).is_err()
    });
    let payload = encode_journal_payload(&golden::journal_payload());
    check_damage(&payload, |damaged| decode_journal_payload(damaged).is_err());
    let job = golden::job();
    check_damage(&encode_job(&job), |damaged| {
        decode_job(damaged, job.job).is_err()
    });
    let header = encode_repository_header(&golden::repository_header());
    check_damage(&header, |damaged| {
        decode_repository_header(damaged).is_err()
    });
}

#[test]
fn damage_anywhere_in_a_plan_is_found() {
    let (bytes, _) = write_plan(golden::plan());
    check_damage(&bytes, |damaged| {
        let read = read_plan(Arc::new(Memory(damaged.to_vec())));
        read.and_then(|(_, _, segment)| verify_segment(&segment))
            .is_err()
    });
}

#[test]
fn a_plan_whose_segment_was_exchanged_for_another_valid_one_is_refused() {
    let (bytes, plan) = write_plan(golden::plan());
    let other = PlanDescription {
        job: JobId::from_bytes([8; 16]),
        ..plan.clone()
    };
    let (other, _) = write_plan(other);
    let length = usize::try_from(plan.segment.stored_bytes).unwrap();
    let mixed = [&other[..length], &bytes[length..]].concat();
    assert_eq!(
        mixed.len(),
        bytes.len(),
        "the test needs segments of one length"
    );
    let error = read_plan(Arc::new(Memory(mixed))).unwrap_err();
    assert!(matches!(error, FormatError::Foreign { .. }), "{error}");
}

#[test]
fn a_plan_that_gives_its_segment_another_length_is_refused() {
    let (bytes, mut plan) = write_plan(golden::plan());
    let length = usize::try_from(plan.segment.stored_bytes).unwrap();
    plan.segment.stored_bytes += 1;
    let (mut end, _) = encode_plan_end(&plan);
    let tail = end.len() - 16;
    end[tail..tail + 8].copy_from_slice(&(length as u64).to_le_bytes());
    let error = read_plan(Arc::new(Memory([&bytes[..length], &end].concat()))).unwrap_err();
    assert!(error.to_string().starts_with("plan segment: "), "{error}");
}

#[test]
fn a_plan_for_a_table_that_there_is_none_of_is_refused() {
    let mut plan = golden::plan();
    plan.tenants[0].tables[0].table = TableIndex(99);
    let (bytes, _) = write_plan(plan);
    let error = read_plan(Arc::new(Memory(bytes))).unwrap_err();
    assert!(error.to_string().contains("table 99"), "{error}");
}

#[test]
fn a_manifest_with_a_schema_that_core_refuses_is_refused() {
    let mut snapshot = golden::snapshot();
    snapshot.schema_digest = Digest::from_bytes([0; 32]);
    let bytes = encode_snapshot(REPOSITORY, &snapshot);
    let error = decode_snapshot(&bytes, REPOSITORY, snapshot.id).unwrap_err();
    assert!(matches!(error, FormatError::Malformed { .. }), "{error}");
    let mut snapshot = golden::snapshot();
    snapshot.segments.reverse();
    let bytes = encode_snapshot(REPOSITORY, &snapshot);
    let error = decode_snapshot(&bytes, REPOSITORY, snapshot.id).unwrap_err();
    assert!(error.to_string().contains("not in order"), "{error}");
}

#[test]
fn a_newer_version_is_refused_with_the_advice_to_upgrade() {
    let mut bytes = encode_receipt(&golden::receipt());
    bytes[8] = 2;
    let error = decode_receipt(&bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("upgrade"), "{error}");
}
