//! A follower that is killed, for good, before every single thing that it does.
//!
//! The steps are numbered as they come: whatever the repository asks of its file system to change
//! something, whatever the server hands over, and each acknowledgement before and after. A process of its
//! own follows and kills itself before the step that it is told.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reinstate::{FollowOptions, Follower, log_of};
use reinstate_core::{
    Change, ChangeByKey, ChangeFeed, ChangeSink, Commit, FeedProgress, FeedSource, Position,
    StoreError, StoreSchema, TableIndex,
};
use reinstate_repository::{
    DirectoryEntry, FileStatus, FileSystem, LocalFileSystem, LocalRepository, OpenMode, StoredFile,
};
use reinstate_testkit::cluster::shared_cluster;
use reinstate_testkit::figures;

use super::postgres::open;
use super::{Followed, NOW, Row, Rows, SNAPSHOT, State, Told};

const SCHEMA: &str = "\
CREATE TABLE projects (id int PRIMARY KEY, account_id int, name text);
CREATE TABLE issues (id int PRIMARY KEY, project_id int NOT NULL REFERENCES projects, title text);
CREATE TABLE comments (id int PRIMARY KEY, issue_id int NOT NULL REFERENCES issues, body text);
CREATE TABLE visits (account_id int, page text);
ALTER TABLE issues REPLICA IDENTITY FULL; ALTER TABLE visits REPLICA IDENTITY FULL;
";
const TENANTS: [&str; 3] = ["0", "1", "2"];
const COLUMNS: [(&str, &[&str]); 2] = [
    ("projects", &["id", "account_id", "name"]),
    ("visits", &["account_id", "page"]),
];
const THIS_TEST: &str = "killed::\
                         a_follower_killed_before_any_step_leaves_a_log_that_goes_on_without_loss";
/// How the child is told what to do: the step, the URL, the repository.
const ORDER: &str = "REINSTATE_TEST_KILLED_BEFORE";

static STEP: AtomicU64 = AtomicU64::new(0);
static LAST: AtomicU64 = AtomicU64::new(u64::MAX);

/// One step: the process ends here if it is the one.
fn step(what: &str) {
    if STEP.fetch_add(1, Ordering::SeqCst) != LAST.load(Ordering::SeqCst) {
        return;
    }
    println!("killed before: {what}");
    let process = std::process::id().to_string();
    let _ = Command::new("kill").args(["-9", &process]).status();
    loop {
        std::thread::park();
    }
}

#[derive(Debug)]
struct Files;

#[derive(Debug)]
struct Stored(Box<dyn StoredFile>);

impl FileSystem for Files {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        step("create a directory");
        LocalFileSystem.create_directory(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        step("sync a directory");
        LocalFileSystem.sync_directory(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        LocalFileSystem.list(path)
    }

    fn status(&self, path: &Path) -> io::Result<FileStatus> {
        LocalFileSystem.status(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn StoredFile>> {
        if mode != OpenMode::Read {
            step("make a file");
        }
        let file = LocalFileSystem.open(path, mode)?;
        Ok(Box::new(Stored(file)))
    }

    fn link(&self, path: &Path, name: &Path) -> io::Result<()> {
        step("link a file");
        LocalFileSystem.link(path, name)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        step("remove a file");
        LocalFileSystem.remove(path)
    }

    fn draw_name(&self, name: &mut [u8; 16]) -> io::Result<()> {
        LocalFileSystem.draw_name(name)
    }
}

impl StoredFile for Stored {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        step("append");
        self.0.append(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        step("sync a file");
        self.0.sync()
    }

    fn clear(&self) -> io::Result<()> {
        step("clear a file");
        self.0.clear()
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, bytes)
    }

    fn status(&self) -> io::Result<FileStatus> {
        self.0.status()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.0.try_lock()
    }
}

struct Feed<'f>(Box<dyn ChangeFeed + 'f>);
struct Sink<'s>(&'s mut dyn ChangeSink);

impl ChangeFeed for Feed<'_> {
    fn schema(&self) -> &StoreSchema {
        self.0.schema()
    }

    fn read(
        &mut self,
        bytes_target: u64,
        sink: &mut dyn ChangeSink,
    ) -> Result<FeedProgress, StoreError> {
        step("peek");
        let read = self.0.read(bytes_target, &mut Sink(sink));
        step("seal the last run");
        read
    }

    fn acknowledge(&mut self, position: Position) -> Result<(), StoreError> {
        step("acknowledge");
        let done = self.0.acknowledge(position);
        step("go on after an acknowledgement");
        done
    }

    fn mark(&mut self) -> Result<(), StoreError> {
        self.0.mark()
    }
}

impl ChangeSink for Sink<'_> {
    fn change(&mut self, change: Change<'_>) -> Result<(), StoreError> {
        step("take a change");
        self.0.change(change)
    }

    fn commit(&mut self, commit: Commit) -> Result<(), StoreError> {
        step("take a commit");
        self.0.commit(commit)
    }

    fn told_by_key(&mut self, tables: &[TableIndex]) -> Result<(), StoreError> {
        step("keep rows");
        self.0.told_by_key(tables)
    }

    fn change_by_key(&mut self, change: ChangeByKey<'_>) -> Result<(), StoreError> {
        step("take a change by key");
        self.0.change_by_key(change)
    }
}

/// What the child does.
fn follow_until_killed(order: &str) {
    let [last, url, path] = order.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("{order:?}");
    };
    let store = open(url);
    let repository = LocalRepository::open_on(Arc::new(Files), path).unwrap();
    let log = log_of(&repository, SNAPSHOT).unwrap();
    let resources = reinstate::Resources::try_new(reinstate::ResourceOptions::default()).unwrap();
    let cancellation = reinstate_core::Cancellation::new();
    let context = reinstate::Context::new(&resources, &reinstate_core::Silent, &cancellation);
    let feed = Box::new(Feed(store.resume_feed(log.id(), log.through()).unwrap()));
    let mut options = FollowOptions::default();
    options.run_bytes_target = 1;
    options.pack_records = 1;
    LAST.store(last.parse().unwrap(), Ordering::SeqCst);
    let mut follower = Follower::with_feed(context, feed, &repository, log, options).unwrap();
    while follower.step(NOW).unwrap().has_more {}
    println!("followed in {} steps", STEP.load(Ordering::SeqCst));
}

/// One transaction of the store, and what each tenant has after it.
fn transaction(number: u64, world: &mut BTreeMap<String, Rows>) -> String {
    let tenant = (number % 3).to_string();
    let row = |table: usize, values: &[&str]| -> Row {
        let named = COLUMNS[table].1.iter().zip(values);
        named
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let id = number.to_string();
    let tables = world.entry(tenant.clone()).or_default();
    let projects = tables.entry("projects".to_owned()).or_default();
    let last = number.saturating_sub(3).to_string();
    let last_one = projects.iter_mut().filter(|row| row["id"] == last);
    last_one.for_each(|project| drop(project.insert("name".to_owned(), id.clone())));
    projects.push(row(0, &[&id, &tenant, "new"]));
    let visits = tables.entry("visits".to_owned()).or_default();
    visits.push(row(1, &[&tenant, "same"]));
    format!(
        "BEGIN; UPDATE projects SET name = {id} WHERE id = {last};
         INSERT INTO projects VALUES ({id}, {tenant}, 'new');
         SELECT pg_logical_emit_message(true, 'padding', repeat('x', 70000)) WHERE {number} % 2 = 0;
         INSERT INTO visits VALUES ({tenant}, 'same'); COMMIT;"
    )
}

#[test]
fn a_follower_killed_before_any_step_leaves_a_log_that_goes_on_without_loss() {
    if let Ok(order) = std::env::var(ORDER) {
        follow_until_killed(&order);
        return;
    }
    let database = shared_cluster().unwrap().fresh_database().unwrap();
    database.psql(SCHEMA).unwrap();
    // Every second transaction comes in two pieces, one of them before its commit.
    let name = database.name();
    let little = format!("ALTER DATABASE {name} SET logical_decoding_work_mem = '64kB'");
    database.psql(&little).unwrap();
    let store = open(&database.url());
    let followed = Followed::begin(&store);
    let mut world = BTreeMap::new();
    let mut states = vec![world.clone()];
    let mut killed = Vec::new();
    for last in 0..500_u64 {
        for _ in 0..2 {
            let sql = transaction(states.len() as u64, &mut world);
            database.psql(&sql).unwrap();
            states.push(world.clone());
        }
        let before = followed.log();
        let directory = followed.directory.as_ref().unwrap();
        let path = directory.path().join("repository");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", THIS_TEST, "--nocapture"])
            .env(
                ORDER,
                format!("{last} {} {}", database.url(), path.display()),
            )
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout).into_owned();
        let end = said
            .lines()
            .find_map(|line| line.split_once("killed before: "));
        // What was published before is there, and what is there follows from it.
        let after = followed.log();
        assert_eq!(after.damage(), None, "{said}");
        assert!(after.runs().starts_with(before.runs()), "{said}");
        followed.follow(&store, 1);
        let (_, what) = match (end, child.status.success()) {
            (Some(end), false) => end,
            (None, true) => break,
            other => panic!("{other:?}: {child:?}"),
        };
        killed.push(what.to_owned());
    }
    for what in [
        "peek",
        "keep rows",
        "take a change",
        "take a change by key",
        "take a commit",
        "append",
        "sync a file",
        "link a file",
        "sync a directory",
        "seal the last run",
        "acknowledge",
        "go on after an acknowledgement",
    ] {
        assert!(killed.iter().any(|step| step == what), "{what}: {killed:?}");
    }
    println!("killed {} times", killed.len());
    let (log, commits) = (followed.log(), followed.commits(false));
    assert_eq!(commits.len() + 1, states.len(), "transactions");
    let positions = std::iter::once(log.snapshot().position).chain(commits);
    let columns = COLUMNS.iter().map(|(table, columns)| {
        let columns = columns.iter().map(|name| (*name).to_owned());
        ((*table).to_owned(), columns.collect())
    });
    let columns: BTreeMap<String, Vec<String>> = columns.collect();
    let state = |tenants| State {
        columns: columns.clone(),
        tenants,
    };
    let told = Told {
        tenants: TENANTS.iter().map(|tenant| (*tenant).to_owned()).collect(),
        states: positions.zip(states.into_iter().map(state)).collect(),
    };
    let images = followed.check(&log, &told);
    figures::record(
        "killed-in-a-follow",
        &[("kills", killed.len() as u64), ("images compared", images)],
    );
    store.end_feed(SNAPSHOT).unwrap();
}
