//! A log of which something is missing, altered, or from elsewhere: never bridged, always named, and
//! what lies before it as good as ever.

use std::sync::atomic::{AtomicBool, Ordering};

use reinstate::{Follower, RestorePoint, damaged_packs, extract_at, logs, verify_log};
use reinstate_core::{
    ErrorKind, ObjectId, ObjectReader, ObjectWriter, Position, Repository, RepositoryError,
    RepositoryId, Timestamp,
};
use reinstate_testkit::MemoryRepository;

use crate::ground::Ground;
use crate::model::{ACTIVITY, Model, PROJECTS, Step, schema, values};

const RUNS: usize = 4;

/// A log of four runs of one transaction each.
fn ground() -> Ground {
    packed(usize::MAX)
}

/// The same, with so many records to a pack.
fn packed(pack_records: usize) -> Ground {
    let schema = schema();
    let mut base = Model::new(&schema);
    base.apply(&Step::Insert(PROJECTS, values(&["1", "a", "x"])));
    let step = |number: usize| {
        let text = number.to_string();
        vec![
            Step::Insert(ACTIVITY, values(&["a", &text])),
            Step::Insert(PROJECTS, values(&[&format!("1{number}"), "b", &text])),
        ]
    };
    let mut ground = Ground::new(&schema, base, (0..RUNS).map(step).collect());
    ground.pack_records = pack_records;
    ground.follow(&[(1, 1); RUNS]);
    assert_eq!(ground.log().runs().len(), RUNS);
    ground
}

/// The name of the record of a run.
fn name(ground: &Ground, run: usize) -> [u8; 16] {
    let names: Vec<_> = ground.repository.list("log").unwrap();
    let log = ground.log();
    let wanted = log.runs()[run].digest;
    let found = names.into_iter().find(|name| {
        let bytes = ground.repository.read("log", *name).unwrap();
        bytes.ends_with(wanted.as_bytes())
    });
    found.unwrap()
}

fn kind_at(ground: &Ground, transaction: u64, tenant: &str) -> Option<ErrorKind> {
    let point = RestorePoint {
        position: Position {
            commit: ground.base.commit + 10 * transaction,
            ordinal: 0,
        },
        time: Timestamp::from_micros(0),
    };
    let tenant = format!("account:{tenant}").parse().unwrap();
    let log = ground.log();
    extract_at(ground.context(), &ground.repository, &log, point, &tenant)
        .err()
        .map(|error| error.kind())
}

#[test]
fn a_record_that_is_missing_ends_the_log_and_those_behind_it_are_named() {
    let ground = ground();
    let removed = name(&ground, 1);
    assert!(ground.repository.remove_record("log", removed));
    let (all, unreachable) = logs(&ground.repository).unwrap();
    assert_eq!(all[0].runs().len(), 1);
    assert_eq!(unreachable.len(), RUNS - 2);
    let mut places: Vec<_> = unreachable.iter().map(|lost| lost.place.unwrap()).collect();
    places.sort_unstable();
    assert_eq!(
        places,
        [(all[0].snapshot().id, 2), (all[0].snapshot().id, 3)]
    );
    assert_eq!(kind_at(&ground, 1, "a"), None);
    for transaction in 2..=RUNS as u64 {
        let kind = kind_at(&ground, transaction, "a");
        assert_eq!(kind, Some(ErrorKind::NotRecoverable));
    }
}

#[test]
fn a_record_with_any_byte_altered_ends_the_log_and_says_so() {
    let ground = ground();
    let altered = name(&ground, 2);
    let length = ground.repository.read("log", altered).unwrap().len();
    for at in (0..length).step_by(7).chain([length - 1]) {
        let flip = |bytes: &mut Vec<u8>| bytes[at] ^= 1;
        assert!(ground.repository.tamper_record("log", altered, flip));
        let log = ground.log();
        assert_eq!(log.runs().len(), 2, "byte {at}");
        assert!(log.damage().is_some(), "byte {at}");
        assert_eq!(kind_at(&ground, 3, "a"), Some(ErrorKind::NotRecoverable));
        assert_eq!(kind_at(&ground, 2, "a"), None);
        assert!(ground.repository.tamper_record("log", altered, flip));
    }
    assert!(ground.log().damage().is_none());
}

#[test]
fn a_record_in_the_place_of_another_ends_the_log() {
    let ground = ground();
    let (first, second) = (name(&ground, 1), name(&ground, 2));
    let other = ground.repository.read("log", second).unwrap();
    let swap = |bytes: &mut Vec<u8>| *bytes = other;
    assert!(ground.repository.tamper_record("log", first, swap));
    let log = ground.log();
    assert_eq!(log.runs().len(), 1);
    assert!(log.damage().is_some());
}

#[test]
fn a_run_that_names_the_changes_of_another_is_found_out() {
    let ground = ground();
    let last = name(&ground, RUNS - 1);
    let log = ground.log();
    let [.., before, forged] = log.runs() else {
        panic!("{} runs", log.runs().len());
    };
    let (theirs, ours) = (&before.description.extent, &forged.description.extent);
    assert_eq!(theirs.segment_bytes, ours.segment_bytes);
    // Its own record in all else, with its digest put right.
    let forge = |record: &mut Vec<u8>| {
        for (from, to) in [
            (
                ours.object.as_bytes().as_slice(),
                theirs.object.as_bytes().as_slice(),
            ),
            (ours.root.as_bytes(), theirs.root.as_bytes()),
        ] {
            let place = record.windows(from.len()).position(|bytes| bytes == from);
            let place = place.expect("it is in the record");
            record[place..place + to.len()].copy_from_slice(to);
        }
        sign(record);
    };
    assert!(ground.repository.tamper_record("log", last, forge));
    assert_eq!(ground.log().runs().len(), RUNS);
    let kind = kind_at(&ground, RUNS as u64, "a");
    assert_eq!(kind, Some(ErrorKind::Corrupt), "its rows came twice");
}

#[test]
fn a_run_that_says_another_number_of_changes_is_found_out() {
    let ground = ground();
    let last = name(&ground, RUNS - 1);
    let log = ground.log();
    let extent = &log.runs()[RUNS - 1].description.extent;
    let forge = |record: &mut Vec<u8>| {
        // Right before how long the commits are, and their digest.
        let digest = extent.commits_digest.as_bytes();
        let place = record
            .windows(digest.len())
            .position(|bytes| bytes == digest);
        let end = place.expect("it is in the record") - 8;
        let number = &mut record[end - 8..end];
        assert_eq!(*number, extent.change_count.to_le_bytes());
        number.copy_from_slice(&(extent.change_count + 1).to_le_bytes());
        sign(record);
    };
    assert!(ground.repository.tamper_record("log", last, forge));
    let report = verify_log(ground.context(), &ground.repository, &ground.log()).unwrap();
    let [damage] = report.damage.as_slice() else {
        panic!("{:?}", report.damage)
    };
    let said = format!("{} changes, its record says", extent.change_count);
    assert!(damage.message.contains(&said), "{damage:?}");
}

/// Puts the digest of a record right.
fn sign(record: &mut [u8]) {
    let (signed, digest) = record.split_at_mut(record.len() - 32);
    digest.copy_from_slice(blake3::hash(signed).as_bytes());
}

#[test]
fn a_log_of_another_store_does_not_go_on_from_this_snapshot() {
    let (ground, mut other) = (ground(), ground());
    // The same snapshot id in a repository of the same id, of another history.
    other.repository = MemoryRepository::default();
    let stolen = ground.repository.clone();
    let elsewhere = name(&ground, 0);
    let record = stolen.read("log", elsewhere).unwrap();
    other.repository.publish("log", elsewhere, &record).unwrap();
    let (all, unreachable) = logs(&other.repository).unwrap();
    assert!(all.is_empty());
    assert_eq!(unreachable.len(), 1);
}

#[test]
fn an_object_that_is_missing_or_damaged_stops_what_needs_it_and_nothing_else() {
    let ground = ground();
    let log = ground.log();
    let object = log.runs()[2].description.extent.object;
    let intact = verify_log(ground.context(), &ground.repository, &log).unwrap();
    assert!(intact.damage.is_empty());
    assert_eq!(intact.rows_checked, 2 * RUNS as u64);
    let length = usize::try_from(log.runs()[2].description.extent.segment_bytes).unwrap();
    for at in (0..length).step_by(5) {
        let flip = |bytes: &mut Vec<u8>| bytes[at] ^= 0x10;
        assert!(ground.repository.tamper_object(object, flip));
        for tenant in ["a", "b"] {
            assert_eq!(kind_at(&ground, 2, tenant), None, "byte {at}");
        }
        // What the damage hits is found; a tenant whose bytes are whole is not kept from its rows.
        let found = ["a", "b"].map(|tenant| kind_at(&ground, 4, tenant));
        for kind in found.into_iter().flatten() {
            // Bytes that say that they are of a newer version are refused as such.
            let kinds = [ErrorKind::Corrupt, ErrorKind::Refused];
            assert!(kinds.contains(&kind), "byte {at}: {kind:?}");
        }
        assert!(ground.repository.tamper_object(object, flip));
    }
    assert!(ground.repository.remove_object(object));
    assert_eq!(kind_at(&ground, 2, "a"), None);
    assert_eq!(kind_at(&ground, 3, "a"), Some(ErrorKind::Corrupt));
    let damaged = verify_log(ground.context(), &ground.repository, &log).unwrap();
    assert!(!damaged.damage.is_empty());
}

#[test]
fn two_followers_of_one_log_cannot_both_publish() {
    let ground = ground();
    let mut script = ground.script.clone();
    let last = script.transactions.last().unwrap().0.position.commit;
    let next = reinstate_core::Commit {
        position: Position {
            commit: last + 10,
            ordinal: 0,
        },
        time: Timestamp::from_micros(0),
    };
    script
        .transactions
        .push((next, vec![Step::Insert(ACTIVITY, values(&["a", "y"]))]));
    let follower = |text: &str| {
        let mut script = script.clone();
        script.transactions.last_mut().unwrap().1 =
            vec![Step::Insert(ACTIVITY, values(&["a", text]))];
        let log = ground.log();
        let feed = Box::new(script.feed(&log, 9));
        let options = reinstate::FollowOptions::default();
        Follower::with_feed(ground.context(), feed, &ground.repository, log, options).unwrap()
    };
    let (mut one, mut two) = (follower("one"), follower("two"));
    one.step(Timestamp::from_micros(1)).unwrap();
    let error = two.step(Timestamp::from_micros(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert_eq!(ground.log().runs().len(), RUNS + 1);
}

/// A repository to which somebody else publishes the records of a log just when they are listed.
struct Late<'r> {
    inner: &'r MemoryRepository,
    is_there: AtomicBool,
}

impl Repository for Late<'_> {
    fn id(&self) -> RepositoryId {
        self.inner.id()
    }

    fn create_object(&self) -> Result<Box<dyn ObjectWriter + '_>, RepositoryError> {
        self.inner.create_object()
    }

    fn open_object(&self, object: ObjectId) -> Result<Box<dyn ObjectReader>, RepositoryError> {
        self.inner.open_object(object)
    }

    fn list_objects(&self) -> Result<Vec<ObjectId>, RepositoryError> {
        self.inner.list_objects()
    }

    fn publish(&self, kind: &str, name: [u8; 16], bytes: &[u8]) -> Result<(), RepositoryError> {
        self.inner.publish(kind, name, bytes)
    }

    fn read(&self, kind: &str, name: [u8; 16]) -> Result<Vec<u8>, RepositoryError> {
        if kind == "log" && !self.is_there.load(Ordering::Relaxed) {
            return Err(RepositoryError::new(ErrorKind::NotFound, "not yet"));
        }
        self.inner.read(kind, name)
    }

    fn list(&self, kind: &str) -> Result<Vec<[u8; 16]>, RepositoryError> {
        self.is_there.fetch_or(kind == "log", Ordering::Relaxed);
        self.inner.list(kind)
    }
}

#[test]
fn runs_that_are_sealed_while_logs_are_read_are_not_taken_for_lost() {
    let ground = ground();
    let repository = Late {
        inner: &ground.repository,
        is_there: AtomicBool::new(false),
    };
    let (all, unreachable) = logs(&repository).unwrap();
    assert_eq!(unreachable, []);
    assert_eq!(all[0].runs().len(), RUNS);
}

/// A pack replaces the records that it holds, and none of them needs it.
#[test]
fn packs_and_records_stand_in_for_each_other_and_damage_of_either_is_named() {
    let ground = packed(2);
    let names = |kind: &str| ground.repository.list(kind).unwrap();
    let records = names("log");
    let packs = names("log-pack");
    assert_eq!((records.len(), packs.len()), (RUNS, 2));
    let whole: Vec<_> = ground.log().runs().to_vec();
    let is_whole = || {
        let (all, unreachable) = logs(&ground.repository).unwrap();
        assert!(all[0].damage().is_none() && unreachable.is_empty());
        assert_eq!(all[0].runs(), whole);
        assert_eq!(ground.log().runs(), whole);
        assert_eq!(kind_at(&ground, RUNS as u64, "a"), None);
    };
    let damaged = || damaged_packs(&ground.repository).unwrap();
    is_whole();
    assert!(damaged().is_empty());
    let bytes = ground.repository.read("log-pack", packs[0]).unwrap();
    for at in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
        let flip = |bytes: &mut Vec<u8>| bytes[at] ^= 1;
        assert!(ground.repository.tamper_record("log-pack", packs[0], flip));
        is_whole();
        assert_eq!(damaged().len(), 1, "byte {at}");
        assert_eq!(damaged()[0].0, packs[0]);
        assert!(ground.repository.tamper_record("log-pack", packs[0], flip));
    }
    // Written anew, with a record that is none: what it says is not believed.
    let (mut forged, end) = (bytes.clone(), bytes.len() - 32);
    forged[end - 8] ^= 1;
    let digest = blake3::hash(&forged[..end]);
    forged[end..].copy_from_slice(digest.as_bytes());
    let forge = |bytes: &mut Vec<u8>| bytes.clone_from(&forged);
    assert!(ground.repository.tamper_record("log-pack", packs[0], forge));
    is_whole();
    assert!(!damaged().is_empty());
    let mend = |found: &mut Vec<u8>| found.clone_from(&bytes);
    assert!(ground.repository.tamper_record("log-pack", packs[0], mend));
    // A record that is not what it was.
    let flip = |bytes: &mut Vec<u8>| bytes[40] ^= 1;
    assert!(ground.repository.tamper_record("log", records[0], flip));
    is_whole();
    assert_eq!(damaged().len(), 1);
    // And without any.
    for record in records {
        assert!(ground.repository.remove_record("log", record));
    }
    is_whole();
    assert!(damaged().is_empty());
    assert!(ground.repository.remove_record("log-pack", packs[0]));
    assert!(ground.repository.remove_record("log-pack", packs[1]));
    assert!(ground.log().runs().is_empty());
}
