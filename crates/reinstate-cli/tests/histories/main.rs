//! A log of a real store against a naive replay: at every commit every tenant is what it was then,
//! whoever wrote at the same time and whatever ended the follower.
//!
//! A history is what a few tenants of its own went through. Many of them share a store and its log, so that
//! they lie between each other's commits, and the costs of a store are theirs together.

#![cfg(test)]

mod embedded;
mod killed;
mod migrations;
mod postgres;

use std::collections::BTreeMap;

use reinstate::{
    CaptureOptions, Context, FollowOptions, Follower, Log, ResourceOptions, Resources,
    RestorePoint, TenantImage, begin_log, extract_all_at, extract_at, log_of,
};
use reinstate_core::{
    Cancellation, ErrorKind, FeedSource, Position, Repository, RepositoryId, RowBatch, RowStream,
    Silent, SnapshotId, Tenant, Timestamp,
};
use reinstate_repository::LocalRepository;
use reinstate_testkit::{MemoryRepository, figures};

const SNAPSHOT: SnapshotId = SnapshotId::from_bytes([0x5a; 16]);
const REPOSITORY: RepositoryId = RepositoryId::from_bytes([2; 16]);
const NOW: Timestamp = Timestamp::from_micros(1);

/// A row: its values by their columns, without those that are NULL.
type Row = BTreeMap<String, String>;
/// The rows of each table.
type Rows = BTreeMap<String, Vec<Row>>;

/// What some tenants had at one time.
#[derive(Clone, Debug, Default)]
struct State {
    /// The tables that were there, with their columns.
    columns: BTreeMap<String, Vec<String>>,
    tenants: BTreeMap<String, Rows>,
}

/// What a history says: who had what after its commits. The first state is that of the snapshot.
#[derive(Debug)]
struct Told {
    tenants: Vec<String>,
    states: Vec<(Position, State)>,
}

/// A repository with a snapshot of a store, and a log that goes on from it.
struct Followed {
    /// Where the repository lies, if it lies anywhere.
    directory: Option<tempfile::TempDir>,
    repository: Box<dyn Repository>,
    resources: Resources,
    cancellation: Cancellation,
}

impl Followed {
    /// A repository on the disk.
    fn begin(source: &dyn FeedSource) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("repository");
        let repository = LocalRepository::init(path, REPOSITORY, NOW).unwrap();
        Self::begin_in(source, Box::new(repository), Some(directory))
    }

    /// A repository in memory.
    fn begin_in_memory(source: &dyn FeedSource) -> Self {
        let repository = MemoryRepository::new(REPOSITORY);
        Self::begin_in(source, Box::new(repository), None)
    }

    fn begin_in(
        source: &dyn FeedSource,
        repository: Box<dyn Repository>,
        directory: Option<tempfile::TempDir>,
    ) -> Self {
        let followed = Self {
            repository,
            directory,
            resources: Resources::try_new(ResourceOptions::default()).unwrap(),
            cancellation: Cancellation::new(),
        };
        let options = CaptureOptions::new(SNAPSHOT, NOW);
        let repository = followed.repository.as_ref();
        begin_log(followed.context(), source, repository, &options).unwrap();
        followed
    }

    fn context(&self) -> Context<'_> {
        Context::new(&self.resources, &Silent, &self.cancellation)
    }

    fn log(&self) -> Log {
        log_of(self.repository.as_ref(), SNAPSHOT).unwrap()
    }

    /// Follows until nothing is left, in runs of about so many bytes.
    fn follow(&self, source: &dyn FeedSource, run_bytes_target: u64) {
        let mut options = FollowOptions::default();
        options.run_bytes_target = run_bytes_target;
        let (context, repository) = (self.context(), self.repository.as_ref());
        let mut follower = Follower::start(context, source, repository, SNAPSHOT, options).unwrap();
        while follower.step(NOW).unwrap().has_more {}
    }

    /// The commits of the log in order, those that changed nothing as well or not.
    fn commits(&self, with_empty: bool) -> Vec<Position> {
        let mut positions = Vec::new();
        for run in self.log().runs() {
            let commits = run.commits(self.repository.as_ref()).unwrap();
            let commits = commits
                .iter()
                .filter(|logged| with_empty || logged.change_count > 0);
            positions.extend(commits.map(|logged| logged.commit.position));
        }
        positions
    }

    /// What an image holds, by the names of the tables and columns of its time.
    fn rows(&self, image: &TenantImage) -> Rows {
        let mut found = Rows::new();
        let mut batch = RowBatch::new();
        for index in image.tables() {
            let table = image.snapshot().schema.table(index);
            let mut all = Vec::new();
            let mut rows = image.rows(self.context(), index);
            while rows.next_batch(&mut batch).unwrap() {
                for row in batch.iter() {
                    let named = table.columns.iter().zip(row.values());
                    let value =
                        |(column, value): (&reinstate_core::ColumnSchema, Option<&[u8]>)| {
                            let value = String::from_utf8(value?.to_vec()).unwrap();
                            Some((column.name.clone(), value))
                        };
                    all.push(named.filter_map(value).collect());
                }
            }
            found.insert(table.name.to_string(), all);
        }
        found
    }

    /// What tenants have at a position, all of them asked for at once or one by one.
    fn images(
        &self,
        log: &Log,
        position: Position,
        tenants: &[Tenant],
        at_once: bool,
    ) -> Vec<Rows> {
        let point = RestorePoint {
            position,
            time: NOW,
        };
        let (context, repository) = (self.context(), self.repository.as_ref());
        let images = if at_once {
            extract_all_at(context, repository, log, point, tenants).unwrap()
        } else {
            let one = |tenant| extract_at(context, repository, log, point, tenant);
            tenants.iter().map(one).collect()
        };
        let rows = |image: Result<TenantImage, reinstate::Error>| match image {
            Err(error) if error.kind() == ErrorKind::NotFound => Rows::new(),
            image => self.rows(&image.unwrap()),
        };
        images.into_iter().map(rows).collect()
    }

    /// Compares every tenant of a history at each of its commits, right behind it, and just before the next
    /// one. Returns how many images were compared.
    #[track_caller]
    fn check(&self, log: &Log, told: &Told) -> u64 {
        let tenant = |id: &String| format!("account:{id}").parse::<Tenant>().unwrap();
        let tenants: Vec<Tenant> = told.tenants.iter().map(tenant).collect();
        let mut compared = 0;
        for (number, (at, state)) in told.states.iter().enumerate() {
            let next = told.states.get(number + 1).map(|(next, _)| next.commit);
            let end = next.map_or(log.through().commit, |next| next - 1);
            let mut commits = vec![at.commit, (at.commit + 1).min(end), end];
            commits.dedup();
            for (place, commit) in commits.into_iter().enumerate() {
                let position = Position { commit, ordinal: 0 };
                let images = self.images(log, position, &tenants, place > 0);
                let schema = log.schema_at(position);
                for (tenant, found) in told.tenants.iter().zip(images) {
                    let expected = state.tenants.get(tenant).cloned().unwrap_or_default();
                    let columns = |table: &str| {
                        let (_, known) = schema.find(table)?;
                        let known = known.columns.iter().map(|column| column.name.as_str());
                        let named = state.columns.get(table)?;
                        Some(
                            known
                                .filter(|name| named.iter().any(|n| n == name))
                                .collect(),
                        )
                    };
                    assert_eq!(
                        compared_rows(&found, columns),
                        compared_rows(&expected, columns),
                        "{tenant} after its transaction {number}, at {position:?}"
                    );
                    compared += 1;
                }
            }
        }
        compared
    }
}

/// Rows in order, in the columns that both sides know; of tables that one of them does not know, all.
fn compared_rows<'c>(
    rows: &Rows,
    columns: impl Fn(&str) -> Option<Vec<&'c str>>,
) -> BTreeMap<&String, Vec<Vec<(&String, &String)>>> {
    let of_table = |(table, rows): &(&String, &Vec<Row>)| !rows.is_empty() && !table.is_empty();
    let compared = rows.iter().filter(of_table).map(|(table, rows)| {
        let columns = columns(table);
        let mut rows: Vec<Vec<_>> = rows
            .iter()
            .map(|row| {
                let values = row.iter();
                let is_compared = |(name, _): &(&String, &String)| {
                    let known = columns.as_ref();
                    known.is_none_or(|known| known.contains(&name.as_str()))
                };
                values.filter(is_compared).collect()
            })
            .collect();
        rows.sort();
        (table, rows)
    });
    compared.collect()
}

/// Numbers that look random: the same ones for the same seed.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

/// The seeds of so many stores, from `REINSTATE_SEED` on; `REINSTATE_SCALE` times as many for longer runs.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    let first = figures::seed(1);
    first..first + usual * figures::scale() as u64
}
