//! Bugs that really lost data somewhere, made again on purpose: each has to be caught.
//!
//! They are made where the program meets the world: in the file system, in the feed of changes, in the
//! store. So nothing in a released program can be switched to be wrong. What catches them are the same
//! properties that everything else is held to.

use std::io;
use std::path::Path;
use std::sync::Arc;

use reinstate::{FollowOptions, Follower};
use reinstate_core::{
    Change, ChangeFeed, ChangeSink, Commit, FeedProgress, FeedSource, Position, Repository,
    StoreError, StoreSchema, Tenant, TenantKind,
};
use reinstate_repository::{
    DirectoryEntry, FileStatus, FileSystem, LocalRepository, OpenMode, StoredFile,
};
use reinstate_testkit::certification::{PROPERTIES, tenant};
use reinstate_testkit::figures;
use reinstate_testkit::mutants::{MutantFixture, Mutation};

use crate::disk::{Disk, Failing};
use crate::failed::Failed;
use crate::life::{BASE, Life, NOW, REPOSITORY, Step, Way, snapshot_id};

/// What is wrong with the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// With the files of a repository.
    File(FileBug),
    /// With the changes that a store hands out.
    Feed(FeedBug),
    /// With the store.
    Store(Mutation),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileBug {
    /// A write that failed is taken for one that did not.
    WriteErrorIgnored,
    /// A sync that failed, too.
    SyncErrorIgnored,
    /// A directory that cannot be listed is an empty one.
    ListErrorIsEmpty,
    /// A record takes the place of another.
    LinkReplaces,
    /// A sweep takes what is still being written.
    LocksIgnored,
    /// A name that is taken is taken for one's own.
    TakenIsMine,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FeedBug {
    /// Of changes that share a position, all but the first are dropped.
    SharedPositionDropped,
    /// A commit is lost.
    CommitLost,
    /// A commit comes twice.
    CommitTwice,
    /// The store forgets what was only read.
    AcknowledgedWhenRead,
    /// Deleted rows are not handed out, so that they come back.
    DeletesDropped,
}

/// Each bug with where it was, or how PostgreSQL lets it happen.
const HISTORY: [(&str, Bug); 27] = [
    (
        "pgBackRest 2.11: a truncated file published after a failed write",
        Bug::File(FileBug::WriteErrorIgnored),
    ),
    (
        "PostgreSQL's fsync of 2018: a failed sync tried again",
        Bug::File(FileBug::SyncErrorIgnored),
    ),
    (
        "restic #4612: an error while listing read as an empty list",
        Bug::File(FileBug::ListErrorIsEmpty),
    ),
    (
        "two writers of one manifest, the last one wins",
        Bug::File(FileBug::LinkReplaces),
    ),
    (
        "kopia #1949, SlateDB RFC-26, ArcticDB #3028: clean-up raced a writer",
        Bug::File(FileBug::LocksIgnored),
    ),
    (
        "object_store #852: a name taken by another taken for one's own",
        Bug::File(FileBug::TakenIsMine),
    ),
    (
        "Debezium DBZ-1554: events that share a position lost",
        Bug::Feed(FeedBug::SharedPositionDropped),
    ),
    (
        "TiDB #36246: a gap in the log not seen",
        Bug::Feed(FeedBug::CommitLost),
    ),
    (
        "a slot resumed one commit early",
        Bug::Feed(FeedBug::CommitTwice),
    ),
    (
        "a slot advanced before what was read is durable",
        Bug::Feed(FeedBug::AcknowledgedWhenRead),
    ),
    (
        "CockroachDB #103334: deleted rows came back",
        Bug::Feed(FeedBug::DeletesDropped),
    ),
    (
        "MatrixOne #27117, restic #3166: success printed, rows skipped",
        Bug::Store(Mutation::MergeWritesTheFirstBatchOnly),
    ),
    (
        "CockroachDB #24083: the last of the work skipped, the job green",
        Bug::Store(Mutation::CommitLeavesTheLastChangeOut),
    ),
    (
        "ON DELETE CASCADE takes a row of another tenant",
        Bug::Store(Mutation::MergeCascadesIntoNeighbours),
    ),
    (
        "DELETE straight from a partition: rows of others deleted",
        Bug::Store(Mutation::MergeDeletesByPrefix),
    ),
    (
        "a collation that folds case: acme deleted ACME",
        Bug::Store(Mutation::ViewFoldsCase),
    ),
    (
        "ON CONFLICT DO NOTHING: the row silently lost",
        Bug::Store(Mutation::MergeLosesADuplicate),
    ),
    (
        "ON CONFLICT DO UPDATE: a row of another overwritten",
        Bug::Store(Mutation::MergeTakesKeys),
    ),
    (
        "a trigger rewrote a restored column",
        Bug::Store(Mutation::MergeWritesNullAsEmpty),
    ),
    (
        "a concurrent row lost in delete and insert",
        Bug::Store(Mutation::CommitLosesConcurrentWrites),
    ),
    (
        "a counter lowered: the next INSERT fails",
        Bug::Store(Mutation::CountersAreLowered),
    ),
    (
        "a counter not raised",
        Bug::Store(Mutation::CountersAreForgotten),
    ),
    (
        "connection lost after COMMIT, and no journal to ask",
        Bug::Store(Mutation::CommitForgetsTheJournal),
    ),
    (
        "rows whose tenant is NULL given to a tenant",
        Bug::Store(Mutation::CaptureGivesSharedRowsAway),
    ),
    (
        "a trigger of a table's owner updated a foreign row",
        Bug::Store(Mutation::MergeRewritesANeighbour),
    ),
    (
        "a dump whose tables are of different moments",
        Bug::Store(Mutation::CaptureSeesLaterWrites),
    ),
    (
        "duplicates of a table without a key merged",
        Bug::Store(Mutation::CaptureMergesDuplicates),
    ),
];

#[test]
fn every_bug_that_lost_data_elsewhere_is_caught_here() {
    for probe in [probe_files(None), probe_feed(None)] {
        probe.expect("nothing is wrong, and nothing is found");
    }
    let mut survivors = Vec::new();
    for (story, bug) in HISTORY {
        let caught = match bug {
            Bug::File(bug) => probe_files(Some(bug)).err().map(|error| error.to_string()),
            Bug::Feed(bug) => probe_feed(Some(bug)).err().map(|error| error.to_string()),
            Bug::Store(mutation) => probe_store(mutation),
        };
        match caught {
            Some(by) => println!("{story}: {by}"),
            None => survivors.push(story),
        }
    }
    figures::record(
        "historic-bugs",
        &[
            ("bugs made again", HISTORY.len() as u64),
            ("survivors", survivors.len() as u64),
        ],
    );
    assert!(survivors.is_empty(), "{survivors:#?}");
}

/// The property of live stores that a mutant breaks.
fn probe_store(mutation: Mutation) -> Option<String> {
    let mut properties = PROPERTIES.iter();
    let broken = properties.find(|property| (property.run)(&MutantFixture::new(mutation)).is_err());
    broken.map(|property| property.name.to_owned())
}

fn found(fact: &str) -> Failed {
    Failed::new(reinstate_core::ErrorKind::Corrupt, fact)
}

/// Holds a repository to what docs/guarantees.md promises.
fn probe_files(bug: Option<FileBug>) -> Result<(), Failed> {
    let (state, _) = Life::prepare(Way::InPlace);
    let disk = Disk::new(state, 2);
    let files: Arc<dyn FileSystem> = Arc::new(Sabotaged {
        disk: disk.clone(),
        bug,
    });
    let repository = LocalRepository::open_on(files, REPOSITORY)?;
    let rows = vec![7; 3_000];
    // What fails is not published.
    for number in 0.. {
        disk.fail(Failing::Once(number), 5);
        let sealed = write_object(&repository, &rows);
        let was_met = disk.step_count() > number;
        disk.fail(Failing::Never, 0);
        if let Err(error) = &sealed
            && error
                .to_string()
                .contains("not as long as what was written")
        {
            // The program finds out by itself.
            return Err(error.clone());
        }
        if let Ok(object) = sealed {
            let reader = repository.open_object(object)?;
            let mut read = vec![0; rows.len()];
            if reader.byte_count() != rows.len() as u64
                || reader.read_exact_at(0, &mut read).is_err()
                || read != rows
            {
                return Err(found("an object was sealed that is not what was written"));
            }
            // A step before the name is there is not dispensable.
            if was_met && number < STEPS_UNTIL_NAMED {
                return Err(found("a step failed, and the object was sealed"));
            }
        }
        if !was_met {
            break;
        }
    }
    // Records are never replaced, and one's own is recognised.
    repository.publish("snapshot", [1; 16], b"first")?;
    repository.publish("snapshot", [1; 16], b"first")?;
    if repository.publish("snapshot", [1; 16], b"second").is_ok() {
        return Err(found("a record was replaced, or its writer thinks so"));
    }
    if repository.read("snapshot", [1; 16])? != b"first" {
        return Err(found("a record was replaced"));
    }
    // Nobody's work is swept away.
    let mut writer = repository.create_object()?;
    writer.write(&rows)?;
    repository.sweep_temporary()?;
    let object = writer.seal()?;
    repository.open_object(object)?;
    // What cannot be listed is not empty.
    let names = repository.list("snapshot")?;
    if names != [[1; 16]] {
        return Err(found("a record is not listed"));
    }
    UNLISTABLE.set(true);
    let listed = repository.list("snapshot");
    UNLISTABLE.set(false);
    match listed {
        Ok(names) => Err(found(&format!(
            "{} records in what cannot be listed",
            names.len()
        ))),
        Err(_) => Ok(()),
    }
}

/// Make, write, sync, link: the steps that a sealed object cannot do without.
const STEPS_UNTIL_NAMED: u64 = 4;

fn write_object(
    repository: &LocalRepository,
    bytes: &[u8],
) -> Result<reinstate_core::ObjectId, Failed> {
    let mut writer = repository.create_object()?;
    writer.write(bytes)?;
    Ok(writer.seal()?)
}

thread_local! {
    /// Whether directories cannot be listed just now.
    static UNLISTABLE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// A disk with a bug.
#[derive(Clone, Debug)]
struct Sabotaged {
    disk: Disk,
    bug: Option<FileBug>,
}

impl Sabotaged {
    fn has(&self, bug: FileBug) -> bool {
        self.bug == Some(bug)
    }
}

impl FileSystem for Sabotaged {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.create_directory(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_directory(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        if !UNLISTABLE.get() {
            return self.disk.list(path);
        }
        if self.has(FileBug::ListErrorIsEmpty) {
            return Ok(Vec::new());
        }
        Err(io::Error::from_raw_os_error(5))
    }

    fn status(&self, path: &Path) -> io::Result<FileStatus> {
        self.disk.status(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn StoredFile>> {
        Ok(Box::new(SabotagedFile {
            file: self.disk.open(path, mode)?,
            bug: self.bug,
        }))
    }

    fn link(&self, path: &Path, name: &Path) -> io::Result<()> {
        match self.disk.link(path, name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if self.has(FileBug::LinkReplaces) {
                    self.disk.remove(name)?;
                    return self.disk.link(path, name);
                }
                if self.has(FileBug::TakenIsMine) {
                    return Ok(());
                }
                Err(error)
            }
            linked => linked,
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn draw_name(&self, name: &mut [u8; 16]) -> io::Result<()> {
        self.disk.draw_name(name)
    }
}

#[derive(Debug)]
struct SabotagedFile {
    file: Box<dyn StoredFile>,
    bug: Option<FileBug>,
}

impl StoredFile for SabotagedFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        match self.file.append(bytes) {
            Err(_) if self.bug == Some(FileBug::WriteErrorIgnored) => Ok(()),
            written => written,
        }
    }

    fn sync(&self) -> io::Result<()> {
        match self.file.sync() {
            Err(_) if self.bug == Some(FileBug::SyncErrorIgnored) => Ok(()),
            synced => synced,
        }
    }

    fn clear(&self) -> io::Result<()> {
        self.file.clear()
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, bytes)
    }

    fn status(&self) -> io::Result<FileStatus> {
        self.file.status()
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(self.file.try_lock()? || self.bug == Some(FileBug::LocksIgnored))
    }
}

/// Follows a store by a feed with a bug, and compares what the log says in the end with the store.
fn probe_feed(bug: Option<FeedBug>) -> Result<(), Failed> {
    let (state, _) = Life::prepare(Way::InPlace);
    let disk = Disk::new(state, 2);
    let life = Life::open(&disk, Way::InPlace)?;
    life.take(Step::Begin)?;
    for number in 1..5 {
        life.take(Step::Write(number))?;
    }
    if bug == Some(FeedBug::AcknowledgedWhenRead) {
        // It is read, and the process dies before anything is published.
        let log = reinstate::log_of(&life.repository, snapshot_id(BASE))?;
        let mut feed = life.store.resume_feed(log.id(), log.through())?;
        let through = feed.read(u64::MAX, &mut Nowhere)?.through;
        feed.acknowledge(through)?;
    }
    let log = reinstate::log_of(&life.repository, snapshot_id(BASE))?;
    let feed = life.store.resume_feed(log.id(), log.through())?;
    let feed = SabotagedFeed { feed, bug };
    let mut follower = Follower::with_feed(
        life.context(),
        Box::new(feed),
        &life.repository,
        log,
        FollowOptions::default(),
    )?;
    while follower.step(NOW)?.has_more {}
    drop(follower);
    life.take(Step::Compact(50))?;
    life.take(Step::Capture(51))?;
    let snapshots =
        [50, 51].map(|number| reinstate::snapshot(&life.repository, snapshot_id(number)));
    let [log, live] = snapshots;
    let (log, live) = (Arc::new(log?), Arc::new(live?));
    for name in ["acme", "acme2", "zeta"] {
        let whose = Tenant {
            kind: TenantKind::parse("site").expect("a kind"),
            id: tenant(name),
        };
        let logged = reinstate::extract(&life.repository, &log, &whose)?;
        let lives = reinstate::extract(&life.repository, &live, &whose)?;
        for table in lives.tables().chain(logged.tables()) {
            if logged.content(table) != lives.content(table) {
                return Err(found(&format!("the log is not what became of {name}")));
            }
        }
    }
    Ok(())
}

struct Nowhere;

impl ChangeSink for Nowhere {
    fn change(&mut self, _change: Change<'_>) -> Result<(), StoreError> {
        Ok(())
    }

    fn commit(&mut self, _commit: Commit) -> Result<(), StoreError> {
        Ok(())
    }
}

struct SabotagedFeed<'f> {
    feed: Box<dyn ChangeFeed + 'f>,
    bug: Option<FeedBug>,
}

impl ChangeFeed for SabotagedFeed<'_> {
    fn schema(&self) -> &StoreSchema {
        self.feed.schema()
    }

    fn read(
        &mut self,
        bytes_target: u64,
        sink: &mut dyn ChangeSink,
    ) -> Result<FeedProgress, StoreError> {
        let mut sink = SabotagedSink {
            sink,
            bug: self.bug,
            change_index: 0,
            commit_index: 0,
        };
        self.feed.read(bytes_target, &mut sink)
    }

    fn acknowledge(&mut self, position: Position) -> Result<(), StoreError> {
        self.feed.acknowledge(position)
    }

    fn mark(&mut self) -> Result<(), StoreError> {
        self.feed.mark()
    }
}

struct SabotagedSink<'s> {
    sink: &'s mut dyn ChangeSink,
    bug: Option<FeedBug>,
    change_index: usize,
    commit_index: usize,
}

impl ChangeSink for SabotagedSink<'_> {
    fn change(&mut self, change: Change<'_>) -> Result<(), StoreError> {
        let index = self.change_index;
        self.change_index += 1;
        let is_lost = match self.bug {
            Some(FeedBug::SharedPositionDropped) => index > 0,
            Some(FeedBug::CommitLost) => self.commit_index == 1,
            Some(FeedBug::DeletesDropped) => matches!(change, Change::Delete { .. }),
            _ => false,
        };
        if is_lost {
            return Ok(());
        }
        self.sink.change(change)
    }

    fn commit(&mut self, commit: Commit) -> Result<(), StoreError> {
        let index = self.commit_index;
        (self.change_index, self.commit_index) = (0, index + 1);
        if self.bug == Some(FeedBug::CommitLost) && index == 1 {
            return Ok(());
        }
        self.sink.commit(commit)?;
        if self.bug == Some(FeedBug::CommitTwice) && index == 1 {
            return self.sink.commit(commit);
        }
        Ok(())
    }
}
