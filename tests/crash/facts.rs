//! What can be read from a disk: everything that a promise is about.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reinstate::{Context, StoreDigests};
use reinstate_core::{
    Cancellation, Digest, ErrorKind, JobId, LiveStore, Repository, Silent, SnapshotId,
};
use reinstate_embedded::EmbeddedStore;
use reinstate_repository::LocalRepository;
use reinstate_testkit::certification::tenant;

use crate::disk::{Disk, State, files_below};
use crate::failed::Failed;
use crate::life::{REPOSITORY, STEPS, STORE, Step, Way, job_id, resources};

/// What a repository holds. Everything that it names was read and is whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RepositoryFacts {
    snapshots: BTreeSet<SnapshotId>,
    /// Jobs, with their plans' digests.
    jobs: BTreeMap<JobId, Digest>,
    receipts: BTreeSet<JobId>,
    /// Logs, with the commit that they reach and the number of their runs.
    logs: BTreeMap<SnapshotId, (u64, usize)>,
}

/// What a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreFacts {
    /// What every tenant has.
    digests: StoreDigests,
    /// Jobs whose merge was committed, with their plans.
    journal: BTreeMap<JobId, Digest>,
}

/// Both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub repository: RepositoryFacts,
    pub store: StoreFacts,
}

/// How thoroughly a repository is read.
#[derive(Clone, Copy, Debug)]
pub enum Reading<'p> {
    /// Every row of all that it names.
    EveryRow,
    /// Every byte, which is compared with what was published in the end: published bytes never change.
    /// That was read row by row.
    EveryByte(&'p Published),
}

/// What a repository held in the end, by path.
#[derive(Debug)]
pub struct Published(BTreeMap<PathBuf, Vec<u8>>);

impl Published {
    pub fn of(state: &State) -> Self {
        let files = files_below(state, Path::new(REPOSITORY)).into_iter();
        Self(files.map(|(path, file)| (path, file.bytes())).collect())
    }

    /// An error unless every file that has its name is what was published under it.
    fn compare(&self, state: &State) -> Result<(), Failed> {
        for (path, file) in files_below(state, Path::new(REPOSITORY)) {
            let is_draft = path.starts_with("temporary");
            let is_published = || self.0.get(&path) == Some(&file.bytes());
            if !is_draft && !is_published() {
                let message = format!("{} is not what was written", path.display());
                return Err(Failed::new(ErrorKind::Corrupt, message));
            }
        }
        Ok(())
    }
}

/// A context for reading.
pub fn with_context<T>(read: impl FnOnce(Context<'_>) -> T) -> T {
    thread_local! {
        static RESOURCES: reinstate::Resources = resources();
    }
    let cancellation = Cancellation::new();
    RESOURCES.with(|resources| read(Context::new(resources, &Silent, &cancellation)))
}

impl Facts {
    /// What is on a disk on which nothing went wrong.
    pub fn of(state: &State, way: Way) -> Self {
        let disk = || Disk::new(state.clone(), 3);
        Self {
            repository: RepositoryFacts::read(&disk(), Reading::EveryRow)
                .expect("a repository that is whole"),
            store: StoreFacts::read(&disk(), way).expect("a store that is whole"),
        }
    }
}

impl RepositoryFacts {
    /// Opens the repository and reads all that it names.
    ///
    /// # Errors
    /// If anything of it cannot be read.
    pub fn read(disk: &Disk, reading: Reading<'_>) -> Result<Self, Failed> {
        if let Reading::EveryByte(published) = reading {
            published.compare(&disk.state())?;
        }
        let verifies = matches!(reading, Reading::EveryRow);
        let files = Arc::new(disk.clone());
        let repository = LocalRepository::open_on(files, REPOSITORY)?;
        let repository: &dyn Repository = &repository;
        repository.list_objects()?;
        let mut facts = Self::default();
        for snapshot in reinstate::snapshots(repository)? {
            if verifies {
                let verify = |context: Context<'_>| {
                    reinstate::verify_snapshot(context, repository, &snapshot)
                };
                undamaged(&with_context(verify)?)?;
            }
            facts.snapshots.insert(snapshot.id);
        }
        for job in reinstate::jobs(repository)? {
            let plan = reinstate::plan_of(repository, job.job)?;
            if verifies {
                plan.plan().check()?;
            }
            facts.jobs.insert(job.job, job.plan);
            if reinstate::receipt_of(repository, job.job, &tenant("acme"))?.is_some() {
                facts.receipts.insert(job.job);
            }
        }
        let (logs, unreachable) = reinstate::logs(repository)?;
        assert!(unreachable.is_empty(), "{unreachable:?}");
        for log in logs {
            if verifies {
                let verify =
                    |context: Context<'_>| reinstate::verify_log(context, repository, &log);
                undamaged(&with_context(verify)?)?;
            }
            if let Some(damage) = log.damage() {
                return Err(Failed::new(ErrorKind::Corrupt, damage));
            }
            let reach = (log.through().commit, log.runs().len());
            facts.logs.insert(log.snapshot().id, reach);
        }
        Ok(facts)
    }

    /// Whether it holds all that these say, and nothing that the others do not.
    pub fn is_between(&self, before: &Self, after: &Self) -> bool {
        let contains = |more: &Self, less: &Self| {
            let has_jobs = |(job, plan): (&JobId, &Digest)| more.jobs.get(job) == Some(plan);
            let reaches = |(log, reach): (&SnapshotId, &(u64, usize))| {
                more.logs.get(log).is_some_and(|found| found >= reach)
            };
            more.snapshots.is_superset(&less.snapshots)
                && more.receipts.is_superset(&less.receipts)
                && less.jobs.iter().all(has_jobs)
                && less.logs.iter().all(reaches)
        };
        contains(self, before) && contains(after, self)
    }

    /// Whether what is needed to take back everything in a store's journal is here.
    pub fn can_undo(&self, store: &StoreFacts) -> bool {
        let mut journal = store.journal.iter();
        journal.all(|(job, plan)| self.jobs.get(job) == Some(plan))
    }

    /// Whether there is a snapshot of this id.
    pub fn has(&self, snapshot: SnapshotId) -> bool {
        self.snapshots.contains(&snapshot)
    }
}

impl StoreFacts {
    /// Opens the store and reads all of it.
    ///
    /// # Errors
    /// If anything of it cannot be read.
    pub fn read(disk: &Disk, way: Way) -> Result<Self, Failed> {
        let file = disk.storage(Path::new(STORE));
        let store = EmbeddedStore::open_on(file, &way.options())?;
        Self::of(&store)
    }

    /// What an open store holds.
    pub fn of(store: &EmbeddedStore) -> Result<Self, Failed> {
        let mut journal = BTreeMap::new();
        for step in STEPS {
            if let Step::Restore { job, .. } | Step::Undo { job, .. } = step {
                let entry = store.journal_entry(job_id(job), &tenant("acme"));
                let entry = entry?;
                journal.extend(entry.map(|entry| (job_id(job), entry.plan)));
            }
        }
        Ok(Self {
            digests: with_context(|context| reinstate::store_digests(context, store))?,
            journal,
        })
    }

    /// Whether every tenant has what it has there.
    pub fn has_same_rows(&self, other: &Self) -> bool {
        self.digests == other.digests
    }

    /// Whether every other tenant has what it has there.
    pub fn has_same_others(&self, other: &Self) -> bool {
        self.digests
            .compare(&other.digests, &[tenant("acme")])
            .changed
            .is_empty()
    }
}

/// An error that says what is damaged, if anything is.
pub fn undamaged(report: &reinstate::SnapshotReport) -> Result<(), Failed> {
    match report.damage.first() {
        None => Ok(()),
        Some(damage) => {
            let message = damage.message.clone();
            Err(Failed::new(ErrorKind::Corrupt, message))
        }
    }
}
