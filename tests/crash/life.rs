//! A life of a store and its repository: followed, hit by an incident, restored, undone, compacted.
//!
//! After each step the program promises its user that the step is done, and what then has to be on the
//! disk is written down beside the promise.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use reinstate::{
    BlockLayout, CaptureOptions, Context, DriftRules, FollowOptions, Follower, OwnerCheck,
    PlanRequest, ResourceOptions, Resources, RestoreRequest, StoredPlan, TenantOutcome,
};
use reinstate_core::{
    Cancellation, JobId, LiveStore, Owner, Policy, Repository, RepositoryId, RowBatch, Silent,
    SnapshotId, StoreId, StoreIdentity, Tenant, TenantKind, Timestamp,
};
use reinstate_embedded::{EmbeddedOptions, EmbeddedStore};
use reinstate_repository::{FileSystem, LocalRepository};
use reinstate_testkit::certification::{Flavour, Rows, owner, standard_schema, tenant};
use reinstate_testkit::{ApplicationChange, ApplicationRow, KeySpace};

use crate::disk::{Disk, Node, State, empty, find};
use crate::facts::Facts;
use crate::failed::Failed;

pub const REPOSITORY: &str = "/repository";
pub const STORE: &str = "/store.redb";
pub const NOW: Timestamp = Timestamp::from_micros(1_775_374_680_000_000);

/// How a store merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    InPlace,
    Aside,
}

impl Way {
    pub fn options(self) -> EmbeddedOptions {
        let mut options = EmbeddedOptions::default();
        options.cache_bytes = 1 << 20;
        // A clock that stands still: the same seed, the same bytes.
        options.clock = || NOW;
        options.in_place_rows_max = match self {
            Self::InPlace => u64::MAX,
            Self::Aside => 0,
        };
        options
    }
}

/// What the user asks for, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A snapshot that a log goes on from.
    Begin,
    /// An ordinary transaction of the application.
    Write(i64),
    /// Everything of a tenant goes.
    Incident,
    /// What was committed is written to the log.
    Follow,
    /// A snapshot.
    Capture(u8),
    /// The tenant goes back to a snapshot.
    Restore { snapshot: u8, job: u8 },
    /// Another tenant does.
    RestoreOther { snapshot: u8, job: u8 },
    /// A job is taken back.
    Undo { merged: u8, job: u8 },
    /// A younger snapshot of the first one and its log.
    Compact(u8),
}

/// The first snapshot.
pub const BASE: u8 = 1;

/// The whole life.
pub const STEPS: [Step; 13] = [
    Step::Begin,
    Step::Write(1),
    Step::Follow,
    Step::Capture(2),
    Step::Write(2),
    Step::Incident,
    Step::Restore {
        snapshot: 2,
        job: 1,
    },
    Step::Follow,
    Step::Undo { merged: 1, job: 2 },
    Step::Undo { merged: 2, job: 3 },
    Step::Follow,
    Step::Compact(3),
    Step::Restore {
        snapshot: 3,
        job: 4,
    },
];

/// Everything that works on one disk.
pub struct Life {
    pub repository: LocalRepository,
    pub store: EmbeddedStore,
    resources: Resources,
    cancellation: Cancellation,
}

impl Life {
    /// A disk on which both were made, with some rows of three tenants. Returns the file's node too.
    pub fn prepare(way: Way) -> (State, Node) {
        Self::prepare_with(way, 11, 1)
    }

    /// The same, with so many rows of each table and tenant, in the repository of this id.
    pub fn prepare_with(way: Way, row_count: i64, repository: u8) -> (State, Node) {
        let disk = Disk::new(empty(), 1);
        let files: Arc<dyn FileSystem> = Arc::new(disk.clone());
        let id = RepositoryId::from_bytes([repository; 16]);
        LocalRepository::init_on(files, REPOSITORY, id, NOW).expect("a repository");
        let identity = StoreIdentity {
            id: StoreId::from_bytes([2; 16]),
            name: "life".to_owned(),
        };
        let kind = TenantKind::parse("site").expect("a kind");
        let schema = standard_schema(Flavour::Native);
        let file = disk.storage(Path::new(STORE));
        let store = EmbeddedStore::create_on(file, identity, kind, schema).expect("a store");
        drop(store);
        let life = Self::open(&disk, way).expect("what was made");
        for name in ["acme", "acme2", "zeta"] {
            let rows = (1..=row_count).flat_map(|id| rows_of(&owner(name), id));
            life.write(&rows.map(ApplicationChange::Put).collect::<Vec<_>>())
                .expect("rows that fit");
        }
        let currency = ApplicationChange::Put(rows().currency("EUR", "euro"));
        life.write(&[currency]).expect("a row that fits");
        drop(life);
        let state = disk.state();
        let node = find(&state, Path::new(STORE));
        (state, node)
    }

    /// Opens what is on a disk, as a process that starts.
    pub fn open(disk: &Disk, way: Way) -> Result<Self, Failed> {
        let files: Arc<dyn FileSystem> = Arc::new(disk.clone());
        let repository = LocalRepository::open_on(files, REPOSITORY)?;
        let file = disk.storage(Path::new(STORE));
        let store = EmbeddedStore::open_on(file, &way.options())?;
        Ok(Self {
            repository,
            store,
            resources: resources(),
            cancellation: Cancellation::new(),
        })
    }

    pub fn context(&self) -> Context<'_> {
        Context::new(&self.resources, &Silent, &self.cancellation)
    }

    /// Does what the user asks for. `Ok` is the promise.
    pub fn take(&self, step: Step) -> Result<(), Failed> {
        match step {
            Step::Begin => {
                let options = options(BASE);
                reinstate::begin_log(self.context(), &self.store, &self.repository, &options)?;
            }
            Step::Write(number) => {
                let mut changes: Vec<_> = rows_of(&owner("acme"), 100 + number)
                    .chain(rows_of(&owner("zeta"), 100 + number))
                    .map(ApplicationChange::Put)
                    .collect();
                let changed = rows().project(&owner("acme2"), number, Some("changed"));
                changes.push(ApplicationChange::Put(changed));
                let gone = rows().setting(&owner("acme"), &format!("s{number}"), Some("on"));
                changes.push(ApplicationChange::Delete(gone));
                self.write(&changes)?;
            }
            Step::Incident => self.incident()?,
            Step::Follow => self.follow()?,
            Step::Capture(number) => {
                let options = options(number);
                reinstate::capture(self.context(), &self.store, &self.repository, &options)?;
            }
            Step::Restore { snapshot, job } => proven(self.restore(snapshot, job)?)?,
            Step::RestoreOther { snapshot, job } => {
                proven(self.restore_tenant("zeta", snapshot, job)?)?;
            }
            Step::Undo { merged, job } => proven(self.undo(merged, job)?)?,
            Step::Compact(number) => {
                let log = reinstate::log_of(&self.repository, snapshot_id(BASE))?;
                let options = options(number);
                reinstate::compact(self.context(), &self.repository, &log, &options)?;
            }
        }
        Ok(())
    }

    /// An ordinary transaction of the application.
    pub fn write(&self, changes: &[ApplicationChange]) -> Result<(), Failed> {
        let written = self.store.write(|transaction| {
            for change in changes {
                let row = change.row();
                let (index, table) = row.find(self.store.schema())?;
                let mut batch = RowBatch::new();
                row.encode(table, &mut batch)?;
                let mut writer = transaction.table(index)?;
                for encoded in batch.iter() {
                    match change {
                        ApplicationChange::Put(_) => writer.put(&row.owner, encoded)?,
                        ApplicationChange::Delete(_) => {
                            writer.delete(&row.owner, encoded).map(drop)?;
                        }
                    }
                }
            }
            Ok(())
        });
        Ok(written?)
    }

    fn incident(&self) -> Result<(), Failed> {
        let written = self.store.write(|transaction| {
            for name in ["projects", "issues", "comments", "activity", "settings"] {
                let table = self.store.table(name)?;
                transaction.table(table)?.delete_all(&owner("acme"))?;
            }
            Ok(())
        });
        Ok(written?)
    }

    pub fn follow(&self) -> Result<(), Failed> {
        let mut options = FollowOptions::default();
        // Small runs, so that a step publishes several.
        options.run_bytes_target = 2_000;
        let base = snapshot_id(BASE);
        let mut follower =
            Follower::start(self.context(), &self.store, &self.repository, base, options)?;
        while follower.step(NOW)?.has_more {}
        Ok(())
    }

    pub fn restore(&self, snapshot: u8, job: u8) -> Result<Vec<TenantOutcome>, Failed> {
        self.restore_tenant("acme", snapshot, job)
    }

    fn restore_tenant(
        &self,
        name: &str,
        snapshot: u8,
        job: u8,
    ) -> Result<Vec<TenantOutcome>, Failed> {
        let snapshot = reinstate::snapshot(&self.repository, snapshot_id(snapshot))?;
        let request = RestoreRequest {
            job: job_id(job),
            snapshot: Arc::new(snapshot),
            tenants: vec![Tenant {
                kind: self.store.tenant_kind().clone(),
                id: tenant(name),
            }],
            policy: Policy::EXACT,
            drift: DriftRules::default(),
            requested_at: NOW,
        };
        Ok(reinstate::restore(
            self.context(),
            &self.store,
            &self.repository,
            &request,
        )?)
    }

    fn undo(&self, merged: u8, job: u8) -> Result<Vec<TenantOutcome>, Failed> {
        let request = PlanRequest {
            job: job_id(job),
            repository: self.repository.id(),
            policy: Policy::EXACT,
            drift: DriftRules::default(),
            check_owners: OwnerCheck::In(&self.repository),
            planned_at: NOW,
        };
        let output = self.repository.create_object()?;
        let plan = reinstate::plan_undo_of(
            self.context(),
            &self.repository,
            &self.store,
            job_id(merged),
            &request,
            output,
        )?;
        let plan = StoredPlan::open(&self.repository, plan.object)?;
        Ok(reinstate::apply(
            self.context(),
            &plan,
            &self.store,
            &self.repository,
            NOW,
        )?)
    }
}

/// A whole life on a disk, with what has to be on it after each promise.
pub fn live(way: Way) -> (State, Node, Disk, Vec<Facts>) {
    let (state, node) = Life::prepare(way);
    let disk = Disk::new(state.clone(), 2);
    let life = Life::open(&disk, way).expect("what was prepared");
    let mut promises = vec![Facts::of(&disk.state(), way)];
    disk.promise(0);
    for step in STEPS {
        if let Err(error) = life.take(step) {
            panic!("{step:?}: {error}");
        }
        disk.promise(promises.len());
        promises.push(Facts::of(&disk.state(), way));
    }
    drop(life);
    (state, node, disk, promises)
}

/// An error unless every tenant is proven to be what was asked for.
pub fn proven(outcomes: Vec<TenantOutcome>) -> Result<(), Failed> {
    for outcome in outcomes {
        let restored = outcome.result?;
        assert!(restored.verdict.is_restored(), "{:?}", restored.verdict);
    }
    Ok(())
}

pub fn resources() -> Resources {
    let options = ResourceOptions {
        threads: NonZeroUsize::MIN,
        memory_bytes_max: reinstate::MEMORY_BYTES_MIN,
        ..ResourceOptions::default()
    };
    Resources::try_new(options).expect("threads")
}

pub fn snapshot_id(number: u8) -> SnapshotId {
    SnapshotId::from_bytes([number; 16])
}

pub fn job_id(number: u8) -> JobId {
    JobId::from_bytes([number; 16])
}

fn options(number: u8) -> CaptureOptions {
    let mut options = CaptureOptions::new(snapshot_id(number), NOW);
    if number % 2 == 1 {
        options.layout = BlockLayout::Columns;
    }
    options
}

fn rows() -> Rows {
    Rows {
        flavour: Flavour::Native,
        key_space: KeySpace::PerTenant,
    }
}

fn rows_of(owner: &Owner, id: i64) -> impl Iterator<Item = ApplicationRow> + use<> {
    let text = format!("text {id} of {owner} ").repeat(3);
    let rows = rows();
    [
        rows.project(owner, id, Some(&text)),
        rows.issue(owner, id, id, Some("issue"), Some(&text)),
        rows.comment(owner, id, id, Some(&text)),
        rows.activity(owner, Some("twice"), None),
        rows.setting(owner, &format!("s{id}"), Some("on")),
    ]
    .into_iter()
}
