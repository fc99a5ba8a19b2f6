//! A repository, a snapshot, and a log followed from a script.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, OnceLock};

use reinstate::{
    BlockLayout, CaptureOptions, Context, Error, FollowOptions, Follower, Log, ResourceOptions,
    Resources, RestorePoint, TenantImage, capture, compact, extract_all_at, extract_at, log_of,
    tenants_at,
};
use reinstate_core::{
    Cancellation, Commit, Digest, ErrorKind, Owner, Position, Repository, RepositoryId, RowBatch,
    RowStream, SchemaChange, Silent, SnapshotId, StoreSchema, TableIndex, Tenant, Timestamp,
};
use reinstate_testkit::{
    ApplicationChange, ApplicationRow, MemoryOptions, MemoryRepository, MemoryStore,
};

use crate::feed::{Script, ScriptFeed};
use crate::model::{Model, Step};

pub const SNAPSHOT: SnapshotId = SnapshotId::from_bytes([7; 16]);

pub struct Ground {
    pub repository: MemoryRepository,
    cancellation: Cancellation,
    /// What the store was at the snapshot and after each transaction.
    pub models: Vec<Model>,
    /// Where the tables changed before a transaction, what the store was then, by its number.
    pub altered: BTreeMap<usize, Model>,
    pub script: Script,
    pub base: Position,
    /// How many records followers pack into one.
    pub pack_records: usize,
    /// Whether images are read in any order as well, and compared.
    pub reads_blocks: bool,
}

/// So many threads for all of them: starting them takes longer than most histories.
fn resources(of_two_threads: bool) -> &'static Resources {
    static RESOURCES: [OnceLock<Resources>; 2] = [const { OnceLock::new() }; 2];
    let threads = 1 + usize::from(of_two_threads);
    RESOURCES[threads - 1].get_or_init(|| {
        let mut options = ResourceOptions {
            threads: NonZeroUsize::new(threads).unwrap(),
            ..ResourceOptions::default()
        };
        if of_two_threads {
            // Little, so that what does not fit is tried as well.
            options.memory_bytes_max = 16 << 20;
        }
        Resources::try_new(options).unwrap()
    })
}

fn at(commit: u64) -> Position {
    Position { commit, ordinal: 0 }
}

impl Ground {
    /// A snapshot of `base`, and then these transactions, ten positions from one to the next.
    pub fn new(schema: &StoreSchema, base: Model, transactions: Vec<Vec<Step>>) -> Self {
        let mut ground = Self {
            repository: MemoryRepository::new(RepositoryId::from_bytes([1; 16])),
            cancellation: Cancellation::new(),
            models: vec![base],
            altered: BTreeMap::new(),
            script: Script {
                schema: schema.clone(),
                transactions: Vec::new(),
                changes: BTreeMap::new(),
                acknowledged: Arc::new(Mutex::new(0)),
                is_by_key: false,
            },
            base: at(0),
            pack_records: FollowOptions::default().pack_records,
            reads_blocks: false,
        };
        ground.capture();
        ground.extend(transactions);
        ground
    }

    /// The same snapshot with other transactions, where this one has none.
    pub fn and_then(&self, transactions: Vec<Vec<Step>>) -> Self {
        assert!(self.script.transactions.is_empty());
        let mut ground = Self {
            repository: self.repository.clone(),
            cancellation: Cancellation::new(),
            models: self.models.clone(),
            altered: BTreeMap::new(),
            script: Script {
                acknowledged: Arc::default(),
                ..self.script.clone()
            },
            base: self.base,
            pack_records: self.pack_records,
            reads_blocks: self.reads_blocks,
        };
        ground.extend(transactions);
        ground
    }

    fn extend(&mut self, transactions: Vec<Vec<Step>>) {
        for steps in transactions {
            let mut model = self.models.last().unwrap().clone();
            steps.iter().for_each(|step| model.apply(step));
            self.push(model, steps);
        }
    }

    /// The same, where the store had these tables from some transactions on: by the number of the first
    /// one, from zero, with what the store was just before it. The steps are in those terms.
    pub fn with_changes(
        base: Model,
        changes: &BTreeMap<usize, (SchemaChange, Model)>,
        transactions: Vec<Vec<Step>>,
    ) -> Self {
        let schema = base.schema.clone();
        let mut ground = Self::new(&schema, base, Vec::new());
        for (number, steps) in transactions.into_iter().enumerate() {
            let mut model = ground.models.last().unwrap().clone();
            if let Some((change, altered)) = changes.get(&number) {
                ground.script.changes.insert(number, change.clone());
                ground.altered.insert(number, altered.clone());
                model = altered.clone();
            }
            steps.iter().for_each(|step| model.apply(step));
            ground.push(model, steps);
        }
        ground
    }

    fn push(&mut self, model: Model, steps: Vec<Step>) {
        self.models.push(model);
        let number = self.script.transactions.len() as u64 + 1;
        let commit = Commit {
            position: at(self.base.commit + 10 * number),
            time: Timestamp::from_micros(0),
        };
        self.script.transactions.push((commit, steps));
    }

    /// The store when it holds what the model says.
    pub fn store(&self, model: &Model) -> MemoryStore {
        let store = MemoryStore::try_new(model.schema.clone(), MemoryOptions::default()).unwrap();
        let mut changes = Vec::new();
        for (index, table) in model.schema.iter() {
            for row in &model.tables[index.get()] {
                let row: Vec<Option<&str>> = row.iter().map(Option::as_deref).collect();
                let row = ApplicationRow::new(&Owner::Shared, table.name.as_str(), &row);
                changes.push(ApplicationChange::Put(row));
            }
        }
        store.write(&changes).unwrap();
        store
    }

    fn capture(&mut self) {
        let store = self.store(&self.models[0]);
        let mut options = CaptureOptions::new(SNAPSHOT, Timestamp::from_micros(0));
        if self.reads_blocks {
            options.layout = BlockLayout::Columns;
        }
        let snapshot = capture(self.context(), &store, &self.repository, &options).unwrap();
        self.base = snapshot.position;
    }

    pub fn context(&self) -> Context<'_> {
        Context::new(resources(self.reads_blocks), &Silent, &self.cancellation)
    }

    pub fn log(&self) -> Log {
        log_of(&self.repository, SNAPSHOT).unwrap()
    }

    /// A follower that goes on where the log ends, and reads so many transactions at a time.
    pub fn follower(&self, at_once: usize, run_bytes_target: u64) -> Follower<'_> {
        let log = self.log();
        let feed = Box::new(self.script.feed(&log, at_once));
        let mut options = FollowOptions::default();
        options.run_bytes_target = run_bytes_target;
        options.pack_records = self.pack_records;
        Follower::with_feed(self.context(), feed, &self.repository, log, options).unwrap()
    }

    /// A follower that reads this feed.
    pub fn follower_of(&self, feed: ScriptFeed) -> Follower<'_> {
        let options = FollowOptions::default();
        let (feed, log) = (Box::new(feed), self.log());
        Follower::with_feed(self.context(), feed, &self.repository, log, options).unwrap()
    }

    /// Follows to the end, with a new follower for each of these, which say how much each reads.
    pub fn follow(&self, steps: &[(usize, u64)]) {
        let now = Timestamp::from_micros(1);
        for &(at_once, bytes) in steps {
            self.follower(at_once, bytes).step(now).unwrap();
        }
        let mut last = self.follower(3, 1 << 20);
        while last.step(now).unwrap().has_more {}
        assert_eq!(
            last.log().through(),
            self.script
                .transactions
                .last()
                .map_or(self.base, |(commit, _)| commit.position)
        );
    }

    /// The image of a tenant at a position, by table; none if it has no row then.
    pub fn image(&self, log: &Log, position: u64, tenant: &str) -> Option<Vec<Vec<u8>>> {
        let images = self.images(&self.repository, log, (position, false), &[tenant]);
        images.into_iter().next().unwrap()
    }

    /// The images of tenants at a position, all of them asked for at once or one by one.
    fn images(
        &self,
        repository: &MemoryRepository,
        log: &Log,
        (position, at_once): (u64, bool),
        tenants: &[&str],
    ) -> Vec<Option<Vec<Vec<u8>>>> {
        let tenant = |tenant: &&str| format!("account:{tenant}").parse::<Tenant>().unwrap();
        let tenants: Vec<Tenant> = tenants.iter().map(tenant).collect();
        let point = RestorePoint {
            position: at(position),
            time: Timestamp::from_micros(0),
        };
        let images = if at_once {
            extract_all_at(self.context(), repository, log, point, &tenants).unwrap()
        } else {
            let one = |tenant| extract_at(self.context(), repository, log, point, tenant);
            tenants.iter().map(one).collect()
        };
        let rows = |image: Result<TenantImage, Error>| match image {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            image => Some(self.rows(&image.unwrap())),
        };
        images.into_iter().map(rows).collect()
    }

    fn rows(&self, image: &TenantImage) -> Vec<Vec<u8>> {
        let count = image.snapshot().schema.tables().len();
        let mut tables = vec![Vec::new(); count];
        for table in image.tables() {
            let all = &mut tables[table.get()];
            let mut rows = image.rows(self.context(), table);
            let mut batch = RowBatch::new();
            let mut count = 0;
            while rows.next_batch(&mut batch).unwrap() {
                all.extend_from_slice(batch.as_bytes());
                count += batch.len() as u64;
            }
            assert_eq!(count, image.row_count(table));
        }
        if self.reads_blocks {
            self.check_blocks(image, &tables);
        }
        tables
    }

    /// Compares what is handed out in any order with what is read in order.
    fn check_blocks(&self, image: &TenantImage, tables: &[Vec<u8>]) {
        let found: Mutex<Vec<Vec<Vec<u8>>>> = Mutex::new(vec![Vec::new(); tables.len()]);
        let each = |table: TableIndex, batch: &RowBatch| {
            let rows = batch.iter().map(|row| [row.key(), row.body()].concat());
            found.lock().unwrap()[table.get()].extend(rows);
        };
        image.for_each_block(self.context(), each).unwrap();
        for (mut found, rows) in found.into_inner().unwrap().into_iter().zip(tables) {
            let rows = RowBatch::try_from_bytes(rows.clone()).unwrap();
            let rows = rows.iter().map(|row| [row.key(), row.body()].concat());
            let mut rows: Vec<_> = rows.collect();
            rows.sort();
            found.sort();
            assert!(rows == found);
        }
    }

    /// Compares what a snapshot made of the log so far, and the log behind it, say of every commit
    /// from there on.
    pub fn check_compacted(&self, after_runs: usize, tenants: &[&str]) -> usize {
        let log = self.log();
        let Some(run) = log.runs().get(after_runs) else {
            return 0;
        };
        let until = run.description.through;
        // As if it had been made then: by a copy of the repository that ends there.
        let shorter = self.repository.clone();
        for later in &log.runs()[after_runs + 1..] {
            let name = record_name(&self.repository, later.description.previous);
            assert!(shorter.remove_record("log", name));
        }
        let packs = self.repository.list("log-pack").unwrap();
        for pack in &packs {
            assert!(shorter.remove_record("log-pack", *pack));
        }
        let id = SnapshotId::from_bytes([8; 16]);
        let options = CaptureOptions::new(id, Timestamp::from_micros(0));
        let shorter_log = log_of(&shorter, SNAPSHOT).unwrap();
        let made = compact(self.context(), &shorter, &shorter_log, &options).unwrap();
        assert_eq!(made.unwrap().position, until);
        let again = CaptureOptions::new(SnapshotId::from_bytes([9; 16]), Timestamp::from_micros(0));
        compact(self.context(), &self.repository, &log, &again).unwrap();
        // With the records behind it, it goes on.
        for later in &log.runs()[after_runs + 1..] {
            let name = record_name(&self.repository, later.description.previous);
            let bytes = self.repository.read("log", name).unwrap();
            shorter.publish("log", name, &bytes).unwrap();
        }
        for pack in packs {
            let bytes = self.repository.read("log-pack", pack).unwrap();
            shorter.publish("log-pack", pack, &bytes).unwrap();
        }
        let compacted = log_of(&shorter, id).unwrap();
        assert_eq!(compacted.through(), log.through());
        let last = log_of(&self.repository, SnapshotId::from_bytes([9; 16])).unwrap();
        assert!(last.runs().is_empty());
        let ends = [
            (&shorter, &compacted, until),
            (&self.repository, &last, log.through()),
        ];
        let compared = ends.iter().map(|(repository, compacted, from)| {
            self.check_from(repository, compacted, from.commit, tenants)
        });
        compared.sum()
    }

    /// Compares which tenants there are at every commit, and how many rows they have, with the naive
    /// replay.
    pub fn check_tenants(&self, tenants: &[&str]) {
        let log = self.log();
        for (number, model) in (0_u64..).zip(&self.models) {
            let commit = self.base.commit + 10 * number;
            let next = usize::try_from(number).unwrap();
            let altered = self.altered.get(&next).unwrap_or(model);
            for (position, model) in [(commit, model), (commit + 9, altered)] {
                if position > log.through().commit {
                    continue;
                }
                let mut expected: Vec<(String, u64)> = tenants
                    .iter()
                    .map(|tenant| ((*tenant).to_owned(), row_count(model, tenant)))
                    .collect();
                expected.retain(|(_, count)| *count > 0);
                expected.sort();
                let mut found = Vec::new();
                let position = at(position);
                tenants_at(
                    self.context(),
                    &self.repository,
                    &log,
                    position,
                    |tenant, rows| {
                        found.push((tenant.to_string(), rows));
                        Ok(())
                    },
                )
                .unwrap();
                assert_eq!(found, expected, "after transaction {number}");
            }
        }
    }

    /// Compares a tenant at every commit, just before and just after it, with the naive replay.
    /// Returns how many images were compared.
    pub fn check(&self, tenants: &[&str]) -> usize {
        self.check_from(&self.repository, &self.log(), self.base.commit, tenants)
    }

    /// The same, by a log and from a commit on.
    fn check_from(
        &self,
        repository: &MemoryRepository,
        log: &Log,
        from: u64,
        tenants: &[&str],
    ) -> usize {
        let covered = from..=log.through().commit;
        let mut compared = 0;
        for (number, model) in (0_u64..).zip(&self.models) {
            let commit = self.base.commit + 10 * number;
            // The tables change right behind the commit before.
            let next = usize::try_from(number).unwrap();
            let mut expected = Vec::new();
            for model in std::iter::once(model).chain(self.altered.get(&next)) {
                let rows = tenants.iter().map(|tenant| rows_of(model, tenant));
                expected.push(rows.collect::<Vec<_>>());
            }
            for (position, at_once, altered) in [
                (commit, false, false),
                (commit + 1, true, true),
                (commit + 9, true, true),
            ] {
                if !covered.contains(&position) {
                    continue;
                }
                let images = self.images(repository, log, (position, at_once), tenants);
                let expected = if altered {
                    expected.last()
                } else {
                    expected.first()
                };
                for ((tenant, image), expected) in tenants.iter().zip(images).zip(expected.unwrap())
                {
                    let is_nothing = expected.iter().all(Vec::is_empty);
                    assert_eq!(image.is_none(), is_nothing, "{tenant} at {position}");
                    let found = image.unwrap_or_else(|| vec![Vec::new(); expected.len()]);
                    assert_eq!(found, *expected, "{tenant} after transaction {number}");
                    compared += 1;
                }
            }
        }
        compared
    }
}

/// What a tenant has, by table.
fn rows_of(model: &Model, tenant: &str) -> Vec<Vec<u8>> {
    let owner = Owner::from_bytes(tenant.as_bytes()).unwrap();
    let tables = 0..u32::try_from(model.tables.len()).unwrap();
    tables.map(|table| model.rows_of(table, &owner)).collect()
}

fn row_count(model: &Model, tenant: &str) -> u64 {
    let rows = rows_of(model, tenant).into_iter();
    let counts = rows.map(|rows| RowBatch::try_from_bytes(rows).unwrap().len() as u64);
    counts.sum()
}

/// The name of the record that follows the one with this digest.
pub fn record_name(repository: &MemoryRepository, previous: Digest) -> [u8; 16] {
    let names = repository.list("log").unwrap();
    let found = names.into_iter().find(|name| {
        let bytes = repository.read("log", *name).unwrap();
        // A record says what it follows right behind its own place in the log.
        bytes
            .windows(32)
            .any(|window| window == previous.as_bytes())
            && !bytes.ends_with(previous.as_bytes())
    });
    found.unwrap()
}
