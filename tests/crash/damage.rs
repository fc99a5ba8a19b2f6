//! Every way in which the files of a small repository can be wrong: found, before a row is written.
//!
//! The repository holds snapshots, a log, a younger snapshot made of it, a restore and what undoes it.
//! Its files are damaged one after the other; then everything is read that reads the damaged file, and
//! the tenant is restored. Reading has to find the damage. A restore has to be refused with the store
//! as it was, or, where it does not need what is damaged, end with exactly the right rows.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use reinstate::Context;
use reinstate_core::{ErrorKind, JobId, Repository, SnapshotId};
use reinstate_repository::LocalRepository;
use reinstate_testkit::certification::tenant;
use reinstate_testkit::figures;

use crate::disk::{Disk, Holds, State, files_below, find};
use crate::facts::{Reading, RepositoryFacts, StoreFacts, undamaged, with_context};
use crate::failed::Failed;
use crate::life::{BASE, Life, REPOSITORY, Step, Way, job_id, snapshot_id};
use crate::random::Random;

/// Rows of each table and tenant: as few as have every structure.
const ROWS: i64 = 2;
/// What happened until the repository is damaged.
const STEPS: [Step; 8] = [
    Step::Begin,
    Step::Write(1),
    Step::Follow,
    Step::Capture(2),
    Step::Compact(3),
    Step::Incident,
    Step::Restore {
        snapshot: 2,
        job: 1,
    },
    Step::Incident,
];
const SECTOR_BYTES: usize = 512;

/// Something that can be read of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Snapshot(SnapshotId),
    Log(SnapshotId),
    Job(JobId),
}

impl Part {
    /// Reads every byte that belongs to it.
    fn read(self, disk: &Disk) -> Result<(), Failed> {
        let repository = LocalRepository::open_on(Arc::new(disk.clone()), REPOSITORY)?;
        let repository: &dyn Repository = &repository;
        match self {
            Self::Whole => {}
            Self::Snapshot(id) => {
                let snapshot = reinstate::snapshot(repository, id)?;
                let verify = |context: Context<'_>| {
                    reinstate::verify_snapshot(context, repository, &snapshot)
                };
                undamaged(&with_context(verify)?)?;
            }
            Self::Log(id) => {
                let log = reinstate::log_of(repository, id)?;
                let verify =
                    |context: Context<'_>| reinstate::verify_log(context, repository, &log);
                undamaged(&with_context(verify)?)?;
            }
            Self::Job(job) => {
                reinstate::plan_of(repository, job)?.plan().check()?;
                reinstate::receipt_of(repository, job, &tenant("acme"))?
                    .ok_or_else(|| Failed::new(ErrorKind::NotFound, "no receipt"))?;
            }
        }
        Ok(())
    }
}

/// The undamaged repository and store.
struct Golden {
    state: State,
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// What reads a file, in the order in which it is cheapest to ask.
    readers: BTreeMap<PathBuf, Vec<Part>>,
    facts: RepositoryFacts,
    /// The store before the tenant is restored, and after.
    store: [StoreFacts; 2],
}

impl Golden {
    fn make() -> Self {
        Self::make_in(1)
    }

    /// The same in the repository of this id.
    fn make_in(repository: u8) -> Self {
        let (state, _) = Life::prepare_with(Way::InPlace, ROWS, repository);
        let disk = Disk::new(state, 2);
        let life = Life::open(&disk, Way::InPlace).expect("what was prepared");
        for step in STEPS {
            life.take(step)
                .unwrap_or_else(|error| panic!("{step:?}: {error}"));
        }
        drop(life);
        let state = disk.state();
        let copy = Disk::new(state.clone(), 3);
        let before = StoreFacts::read(&copy, Way::InPlace).expect("a store");
        let life = Life::open(&copy, Way::InPlace).expect("a disk that works");
        life.take(Step::Restore {
            snapshot: 2,
            job: 9,
        })
        .expect("a restore");
        let after = StoreFacts::of(&life.store).expect("a store");
        let files = files_below(&state, Path::new(REPOSITORY));
        let mut golden = Self {
            facts: RepositoryFacts::read(&Disk::new(state.clone(), 3), Reading::EveryRow)
                .expect("a repository"),
            state,
            files: files
                .into_iter()
                .map(|(path, contents)| (path, contents.bytes()))
                .collect(),
            readers: BTreeMap::new(),
            store: [before, after],
        };
        golden.find_readers();
        golden
    }

    /// Finds out what reads a file by emptying it.
    fn find_readers(&mut self) {
        let parts = [
            Part::Whole,
            Part::Snapshot(snapshot_id(BASE)),
            Part::Snapshot(snapshot_id(2)),
            Part::Snapshot(snapshot_id(3)),
            Part::Log(snapshot_id(BASE)),
            Part::Log(snapshot_id(3)),
            Part::Job(job_id(1)),
        ];
        for path in self.files.keys() {
            let disk = Disk::new(self.with(path, &[]), 3);
            let reads = |part: &&Part| part.read(&disk).is_err();
            let readers: Vec<Part> = parts.iter().filter(reads).copied().collect();
            assert!(!readers.is_empty(), "nothing reads {}", path.display());
            self.readers.insert(path.clone(), readers);
        }
    }

    /// The disk with other bytes in one file.
    fn with(&self, path: &Path, bytes: &[u8]) -> State {
        let mut state = self.state.clone();
        put(&mut state, path, bytes);
        state
    }
}

fn put(state: &mut State, path: &Path, bytes: &[u8]) {
    let node = find(state, &Path::new(REPOSITORY).join(path));
    let mut contents = crate::contents::Contents::default();
    contents.write(0, bytes);
    state[node] = Arc::new(Holds::File(contents));
}

/// What came of damage.
#[derive(Debug, Default)]
struct Found {
    cases: AtomicU64,
    restores: AtomicU64,
    refused: AtomicU64,
    neighbours: AtomicU64,
    undetected: AtomicU64,
    wrong: AtomicU64,
    panics: AtomicU64,
}

impl Found {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn violations(&self) -> u64 {
        [&self.undetected, &self.wrong, &self.panics]
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    #[track_caller]
    fn record(&self, name: &str, cases: &str) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        figures::record(
            name,
            &[
                (cases, of(&self.cases)),
                ("restores tried", of(&self.restores)),
                ("of them refused", of(&self.refused)),
                (
                    "neighbours restored beside a damaged block",
                    of(&self.neighbours),
                ),
                ("not detected", of(&self.undetected)),
                ("wrong rows", of(&self.wrong)),
                ("panics", of(&self.panics)),
            ],
        );
        assert_eq!(self.violations(), 0);
        assert!(of(&self.cases) > 0);
    }
}

/// Reads what reads the file: it has to find the damage.
fn check_reading(golden: &Golden, path: &Path, bytes: &[u8], what: &str, found: &Found) {
    Found::add(&found.cases);
    let disk = Disk::new(golden.with(path, bytes), 3);
    let readers = &golden.readers[path];
    let read = || readers.iter().any(|part| part.read(&disk).is_err());
    match panic::catch_unwind(AssertUnwindSafe(read)) {
        Ok(true) => {}
        Ok(false) => {
            println!("{}: {what}: not detected", path.display());
            Found::add(&found.undetected);
        }
        Err(_) => {
            println!("{}: {what}: panics", path.display());
            Found::add(&found.panics);
        }
    }
}

/// Restores the tenant from a damaged repository.
fn check_restore(golden: &Golden, state: State, what: &str, found: &Found) {
    Found::add(&found.restores);
    let disk = Disk::new(state, 4);
    let restore = || -> Result<(), Failed> {
        let life = Life::open(&disk, Way::InPlace)?;
        life.take(Step::Restore {
            snapshot: 2,
            job: 9,
        })
    };
    let Ok(result) = panic::catch_unwind(AssertUnwindSafe(restore)) else {
        println!("{what}: panics");
        return Found::add(&found.panics);
    };
    let now = StoreFacts::read(&disk, Way::InPlace).expect("the store itself is whole");
    let [before, after] = &golden.store;
    let is_right = match &result {
        Ok(()) => now.has_same_rows(after),
        Err(_) => now.has_same_rows(before),
    };
    if !is_right {
        println!("{what}: wrong rows after {result:?}");
        Found::add(&found.wrong);
    }
    let Err(error) = result else { return };
    Found::add(&found.refused);
    if error.to_string().contains("block") && error.kind == ErrorKind::Corrupt {
        // Only this tenant's rows are hit: everybody else's can still be restored.
        let life = Life::open(&disk, Way::InPlace).expect("it was opened before");
        match life.take(Step::RestoreOther {
            snapshot: 2,
            job: 10,
        }) {
            Ok(()) => Found::add(&found.neighbours),
            Err(other) => {
                println!("{what}: {error}; and the neighbour: {other}");
                Found::add(&found.wrong);
            }
        }
    }
}

/// Runs every case, on two threads.
fn on_all<T: Sync>(cases: &[T], run: impl Fn(&T) + Sync) {
    let (left, right) = cases.split_at(cases.len() / 2);
    thread::scope(|scope| {
        for half in [left, right] {
            scope.spawn(|| half.iter().for_each(&run));
        }
    });
}

#[test]
fn every_flipped_bit_of_every_file_is_found() {
    let (golden, found) = (Golden::make(), Found::default());
    let cases: Vec<(&PathBuf, usize)> = golden
        .files
        .iter()
        .flat_map(|(path, bytes)| (0..bytes.len()).map(move |place| (path, place)))
        .collect();
    on_all(&cases, |(path, place)| {
        let mut bytes = golden.files[*path].clone();
        for bit in 0..8 {
            bytes[*place] ^= 1 << bit;
            check_reading(
                &golden,
                path,
                &bytes,
                &format!("byte {place}, bit {bit}"),
                &found,
            );
            bytes[*place] ^= 1 << bit;
        }
    });
    found.record("flipped-bits", "bits flipped");
}

#[test]
fn no_flipped_byte_restores_a_wrong_row() {
    let (golden, found) = (Golden::make(), Found::default());
    let mut random = Random::new(figures::seed(11));
    let mut cases = Vec::new();
    for (path, bytes) in &golden.files {
        for place in 0..bytes.len() {
            if random.below(4) == 0 {
                cases.push((path, place, random.below(8)));
            }
        }
    }
    on_all(&cases, |(path, place, bit)| {
        Found::add(&found.cases);
        let mut bytes = golden.files[*path].clone();
        bytes[*place] ^= 1 << bit;
        let what = format!("{}, byte {place}, bit {bit}", path.display());
        check_restore(&golden, golden.with(path, &bytes), &what, &found);
    });
    found.record("restores-from-damage", "bits flipped");
}

#[test]
fn every_other_length_of_every_file_is_found() {
    let (golden, found) = (Golden::make(), Found::default());
    let cases: Vec<(&PathBuf, usize)> = golden
        .files
        .iter()
        .flat_map(|(path, bytes)| (0..=bytes.len() + 1).map(move |length| (path, length)))
        .filter(|(path, length)| golden.files[*path].len() != *length)
        .collect();
    on_all(&cases, |(path, length)| {
        let mut bytes = golden.files[*path].clone();
        bytes.resize(*length, 0);
        check_reading(
            &golden,
            path,
            &bytes,
            &format!("{length} bytes long"),
            &found,
        );
        if length.is_multiple_of(16) {
            let what = format!("{}, {length} bytes long", path.display());
            check_restore(&golden, golden.with(path, &bytes), &what, &found);
        }
    });
    found.record("other-lengths", "lengths");
}

#[test]
fn every_zeroed_sector_and_part_of_one_is_found() {
    let (golden, found) = (Golden::make(), Found::default());
    let mut cases = Vec::new();
    for (path, bytes) in &golden.files {
        for size in [SECTOR_BYTES, 64] {
            for start in (0..bytes.len()).step_by(size) {
                let end = bytes.len().min(start + size);
                if bytes[start..end].iter().any(|byte| *byte != 0) {
                    cases.push((path, start, end));
                }
            }
        }
    }
    on_all(&cases, |(path, start, end)| {
        let mut bytes = golden.files[*path].clone();
        bytes[*start..*end].fill(0);
        let what = format!("{}, bytes {start} to {end} zeroed", path.display());
        check_reading(&golden, path, &bytes, &what, &found);
        check_restore(&golden, golden.with(path, &bytes), &what, &found);
    });
    found.record("zeroed-sectors", "places zeroed");
}

/// Objects among themselves, records among themselves: each manifest replayed in place of each other,
/// each run of the log in place of each other, a plan as a segment.
#[test]
fn every_file_in_place_of_another_is_found() {
    let (golden, found) = (Golden::make(), Found::default());
    let kind = |path: &Path| {
        path.components()
            .next()
            .map(|part| part.as_os_str().to_owned())
    };
    let mut cases = Vec::new();
    for left in golden.files.keys() {
        for right in golden.files.keys() {
            if left != right && kind(left) == kind(right) {
                cases.push((left, right));
            }
        }
    }
    on_all(&cases, |(left, right)| {
        let what = format!("in its place {}", right.display());
        check_reading(&golden, left, &golden.files[*right], &what, &found);
        // And both exchanged.
        let mut state = golden.with(left, &golden.files[*right]);
        put(&mut state, right, &golden.files[*left]);
        let what = format!("{} exchanged for {}", left.display(), right.display());
        check_restore(&golden, state, &what, &found);
    });
    found.record("exchanged-files", "exchanges");
}

/// Two repositories in which the same happened, mixed: a backup copied over another.
#[test]
fn every_file_of_another_repository_is_found() {
    let (golden, other) = (Golden::make(), Golden::make_in(9));
    let found = Found::default();
    let shared: Vec<&PathBuf> = golden
        .files
        .keys()
        .filter(|path| other.files.contains_key(*path))
        .collect();
    assert!(shared.len() > 9, "only {} files meet", shared.len());
    on_all(&shared, |path| {
        let bytes = &other.files[*path];
        check_reading(&golden, path, bytes, "of another repository", &found);
        let what = format!("{} of another repository", path.display());
        check_restore(&golden, golden.with(path, bytes), &what, &found);
    });
    found.record("mixed-repositories", "files of another repository");
}

/// What an attacker does who can write but has no key, as there is none: every bit of every record, with
/// the digest of the record put right. Many such records are consistent, a time or a name in them is
/// another; but never does a row come to the store that is not the right one.
#[test]
fn a_record_with_its_digest_put_right_restores_no_wrong_row() {
    let (golden, found) = (Golden::make(), Found::default());
    let mut cases = Vec::new();
    for (path, bytes) in &golden.files {
        if !path.starts_with("objects") {
            let places = FRAME_HEADER_BYTES..bytes.len() - FRAME_DIGEST_BYTES;
            cases.extend(places.map(|place| (path, place)));
        }
    }
    let mut random = Random::new(figures::seed(12));
    let bits: Vec<usize> = cases.iter().map(|_| random.below(8)).collect();
    let cases: Vec<_> = cases.into_iter().zip(bits).collect();
    on_all(&cases, |((path, place), bit)| {
        Found::add(&found.cases);
        let mut bytes = golden.files[*path].clone();
        bytes[*place] ^= 1 << bit;
        let signed = bytes.len() - FRAME_DIGEST_BYTES;
        let digest = blake3::hash(&bytes[..signed]);
        bytes[signed..].copy_from_slice(digest.as_bytes());
        let what = format!(
            "{}, byte {place}, bit {bit}, digest put right",
            path.display()
        );
        check_restore(&golden, golden.with(path, &bytes), &what, &found);
    });
    found.record("forged-records", "bits flipped with the digest put right");
}

/// Counts and lengths of 2^64-1 in every place of every record, the digest put right.
#[test]
fn a_count_of_all_ones_anywhere_is_refused_without_allocating() {
    let (golden, found) = (Golden::make(), Found::default());
    let mut cases = Vec::new();
    for (path, bytes) in &golden.files {
        if !path.starts_with("objects") {
            let last = bytes.len() - FRAME_DIGEST_BYTES;
            for length in [4, 8] {
                cases.extend(
                    (FRAME_HEADER_BYTES..=last - length).map(|place| (path, place, length)),
                );
            }
        }
    }
    let before = memory_peak_bytes();
    on_all(&cases, |(path, place, length)| {
        Found::add(&found.cases);
        let mut bytes = golden.files[*path].clone();
        bytes[*place..place + length].fill(0xff);
        let signed = bytes.len() - FRAME_DIGEST_BYTES;
        let digest = blake3::hash(&bytes[..signed]);
        bytes[signed..].copy_from_slice(digest.as_bytes());
        let disk = Disk::new(golden.with(path, &bytes), 3);
        let read = || {
            golden.readers[*path]
                .iter()
                .for_each(|part| drop(part.read(&disk)));
        };
        let what = format!("{}, {length} ones at byte {place}", path.display());
        if panic::catch_unwind(AssertUnwindSafe(read)).is_err() {
            println!("{what}: panics");
            Found::add(&found.panics);
        }
        if place.is_multiple_of(8) {
            check_restore(&golden, disk.state(), &what, &found);
        }
    });
    let grown = memory_peak_bytes() - before;
    println!("{grown} bytes more memory");
    assert!(grown < 512 << 20, "{grown} bytes more memory");
    found.record("counts-of-all-ones", "places of records");
}

/// The most memory that this process had so far.
fn memory_peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.expect("VmHWM").trim().trim_end_matches(" kB");
    kibibytes.parse::<u64>().expect("a number") * 1024
}

/// As docs/format says.
const FRAME_HEADER_BYTES: usize = 16;
const FRAME_DIGEST_BYTES: usize = 32;

#[test]
fn the_golden_repository_is_read_whole() {
    let golden = Golden::make();
    let again = RepositoryFacts::read(&Disk::new(golden.state.clone(), 3), Reading::EveryRow);
    assert_eq!(again.expect("a repository"), golden.facts);
    let sizes: usize = golden.files.values().map(Vec::len).sum();
    println!("{} files, {sizes} bytes", golden.files.len());
    for (path, readers) in &golden.readers {
        println!(
            "{} {} {readers:?}",
            path.display(),
            golden.files[path].len()
        );
    }
}
