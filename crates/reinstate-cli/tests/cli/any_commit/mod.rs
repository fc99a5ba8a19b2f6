//! A log of a real store against a naive replay: at every commit every tenant is what it was then,
//! whoever wrote at the same time and whatever ended the follower.

mod embedded;
mod killed;
mod postgres;
mod standby;

use std::collections::BTreeMap;
use std::ops::Range;

use reinstate::{
    CaptureOptions, Context, FollowOptions, Follower, Log, ResourceOptions, Resources,
    RestorePoint, begin_log, extract_at, log_of,
};
use reinstate_core::{
    Cancellation, ErrorKind, FeedSource, Position, RepositoryId, RowBatch, RowStream, Silent,
    SnapshotId, Tenant, Timestamp,
};
use reinstate_repository::LocalRepository;
use reinstate_testkit::figures;

const SNAPSHOT: SnapshotId = SnapshotId::from_bytes([0x5a; 16]);
const NOW: Timestamp = Timestamp::from_micros(1);

/// A row: its values as text.
type Row = Vec<Option<String>>;
/// The rows of each table, sorted.
type Rows = BTreeMap<String, Vec<Row>>;

/// A repository with a snapshot of a store, and a log that goes on from it.
struct Followed {
    directory: tempfile::TempDir,
    repository: LocalRepository,
    resources: Resources,
    cancellation: Cancellation,
    /// The tables and columns that are compared; all where it is not said.
    compared: Option<Columns>,
}

/// Tables with the names of columns.
type Columns = &'static [(&'static str, &'static [&'static str])];

impl Followed {
    fn begin(source: &dyn FeedSource) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("repository");
        let id = RepositoryId::from_bytes([2; 16]);
        let followed = Self {
            repository: LocalRepository::init(path, id, NOW).unwrap(),
            directory,
            resources: Resources::try_new(ResourceOptions::default()).unwrap(),
            cancellation: Cancellation::new(),
            compared: None,
        };
        let options = CaptureOptions::new(SNAPSHOT, NOW);
        begin_log(followed.context(), source, &followed.repository, &options).unwrap();
        followed
    }

    fn context(&self) -> Context<'_> {
        Context::new(&self.resources, &Silent, &self.cancellation)
    }

    fn log(&self) -> Log {
        log_of(&self.repository, SNAPSHOT).unwrap()
    }

    /// Follows until nothing is left, in runs of about so many bytes.
    fn follow(&self, source: &dyn FeedSource, run_bytes_target: u64) {
        let mut options = FollowOptions::default();
        options.run_bytes_target = run_bytes_target;
        let (context, repository) = (self.context(), &self.repository);
        let mut follower = Follower::start(context, source, repository, SNAPSHOT, options).unwrap();
        while follower.step(NOW).unwrap().has_more {}
    }

    /// The commits of the log that changed anything, in order.
    fn commits(&self) -> Vec<Position> {
        let mut positions = Vec::new();
        for run in self.log().runs() {
            let commits = run.commits(&self.repository).unwrap();
            let commits = commits.iter().filter(|logged| logged.change_count > 0);
            positions.extend(commits.map(|logged| logged.commit.position));
        }
        positions
    }

    /// A tenant's rows at a position.
    fn rows(&self, log: &Log, position: Position, tenant: &str) -> Rows {
        let tenant: Tenant = format!("account:{tenant}").parse().unwrap();
        let point = RestorePoint {
            position,
            time: NOW,
        };
        let mut found = Rows::new();
        let image = match extract_at(self.context(), &self.repository, log, point, &tenant) {
            Err(error) if error.kind() == ErrorKind::NotFound => return found,
            image => image.unwrap(),
        };
        let schema = log.schema_at(position);
        for index in image.tables() {
            let table = schema.table(index);
            let name = table.name.to_string();
            let mut places: Vec<usize> = (0..table.columns.len()).collect();
            if let Some(compared) = self.compared {
                let Some((_, columns)) = compared.iter().find(|(known, _)| *known == name) else {
                    continue;
                };
                let place = |wanted: &&str| {
                    let mut columns = table.columns.iter();
                    columns.position(|column| column.name == *wanted).unwrap()
                };
                places = columns.iter().map(place).collect();
            }
            let mut all = Vec::new();
            let mut rows = image.rows(self.context(), index);
            let mut batch = RowBatch::new();
            while rows.next_batch(&mut batch).unwrap() {
                all.extend(batch.iter().map(|row| {
                    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
                    let values: Row = row.values().map(|value| value.map(text)).collect();
                    places
                        .iter()
                        .map(|place| values[*place].clone())
                        .collect::<Row>()
                }));
            }
            all.sort();
            found.insert(name, all);
        }
        found
    }

    /// Compares every tenant at every commit, and just before the next one, with these states: the
    /// first is the snapshot's, each other that after one commit.
    #[track_caller]
    fn check(&self, tenants: &[&str], states: &[BTreeMap<String, Rows>]) {
        let commits = self.commits();
        assert_eq!(commits.len() + 1, states.len(), "transactions");
        let log = self.log();
        let starts: Vec<Position> = std::iter::once(log.snapshot().position)
            .chain(commits)
            .collect();
        for (number, state) in states.iter().enumerate() {
            let next = starts.get(number + 1);
            let just_before = next.map(|next| Position {
                commit: next.commit - 1,
                ordinal: 0,
            });
            let positions = [Some(starts[number]), just_before];
            for position in positions.into_iter().flatten() {
                for tenant in tenants {
                    let expected = state.get(*tenant).cloned().unwrap_or_default();
                    let found = self.rows(&log, position, tenant);
                    assert_eq!(found, expected, "{tenant} after transaction {number}");
                }
            }
        }
    }
}

impl Followed {
    /// The same, where a transaction that changed nothing may be in the log or not, and in the states.
    #[track_caller]
    fn check_distinct(&self, tenants: &[&str], states: &[BTreeMap<String, Rows>]) {
        let log = self.log();
        let starts = std::iter::once(log.snapshot().position).chain(self.commits());
        let at = |tenant: &&str, position| self.rows(&log, position, tenant);
        let mut found: Vec<Vec<Rows>> = starts
            .map(|position| tenants.iter().map(|tenant| at(tenant, position)).collect())
            .collect();
        let of = |state: &BTreeMap<String, Rows>| {
            let rows = tenants.iter().map(|tenant| state.get(*tenant).cloned());
            rows.map(Option::unwrap_or_default).collect::<Vec<Rows>>()
        };
        let mut expected: Vec<Vec<Rows>> = states.iter().map(of).collect();
        expected.dedup();
        found.dedup();
        assert!(found.len() > 5, "{} states", found.len());
        assert_eq!(found, expected);
    }
}

/// Numbers that look random: the same ones for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// The seeds of as many histories: a few; for longer runs, `REINSTATE_SCALE` times as many, from the seed
/// `REINSTATE_SEED` on.
fn seeds(usual: u64) -> Range<u64> {
    let first = figures::seed(1);
    first..first + usual * figures::scale() as u64
}
