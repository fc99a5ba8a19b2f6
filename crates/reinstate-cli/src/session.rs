//! What a command works with: configuration, repository, store, threads and memory.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;

use reinstate::{Context, Log, ResourceOptions, Resources, check_timeline, logs};
use reinstate_core::{
    Cancellation, ErrorKind, FeedSource, JobId, LiveStore, ObjectId, Observer, Repository,
    SnapshotId, Timestamp,
};
use reinstate_repository::LocalRepository;

use crate::adapters;
use crate::arguments::Global;
use crate::configuration::Configuration;
use crate::console::Console;
use crate::failure::Failure;
use crate::point::PointInTime;
use crate::resolve::{Match, Resolved, resolve};
use crate::signals::Interruption;

/// The least memory that the process can be given.
const MEMORY_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// How the memory of the process is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySplit {
    /// For the engine: rows on their way.
    pub engine_bytes: usize,
    /// For the embedded store's cache.
    pub cache_bytes: usize,
}

impl MemorySplit {
    /// Half for the engine, an eighth for the store's cache; the rest is for code, stacks, the
    /// blocks being compressed and what the allocator keeps.
    ///
    /// # Errors
    /// Usage: if it is too little.
    pub fn of(memory_bytes: u64) -> Result<Self, Failure> {
        if memory_bytes < MEMORY_BYTES_MIN {
            let message = format!("--memory {memory_bytes}: at least 64MiB are needed");
            return Err(Failure::usage(message));
        }
        let whole = usize::try_from(memory_bytes)
            .map_err(|error| Failure::usage("--memory").because(error))?;
        Ok(Self {
            engine_bytes: whole / 2,
            cache_bytes: whole / 8,
        })
    }
}

/// Threads and memory, as the global options say.
#[derive(Debug)]
pub struct Engine {
    split: MemorySplit,
    resources: Resources,
    spill_directory: PathBuf,
}

impl Engine {
    /// Starts the threads.
    ///
    /// # Errors
    /// Usage: if there is too little memory or no spill directory.
    pub fn start(global: &Global) -> anyhow::Result<Self> {
        let split = MemorySplit::of(global.memory.as_u64())?;
        let spill_directory = match &global.spill_dir {
            Some(directory) => directory.clone(),
            None => std::env::temp_dir(),
        };
        if !spill_directory.is_dir() {
            let message = format!(
                "--spill-dir {}: no such directory",
                spill_directory.display()
            );
            return Err(Failure::usage(message).into());
        }
        let threads = global.threads.or_else(|| available_parallelism().ok());
        let resources = Resources::try_new(ResourceOptions {
            threads: threads.unwrap_or(NonZeroUsize::MIN),
            memory_bytes_max: split.engine_bytes,
            spill_directory: spill_directory.clone(),
        })?;
        Ok(Self {
            split,
            resources,
            spill_directory,
        })
    }

    /// What every function of the engine is given.
    #[must_use]
    pub fn context<'c>(
        &'c self,
        observer: &'c dyn Observer,
        cancellation: &'c Cancellation,
    ) -> Context<'c> {
        Context::new(&self.resources, observer, cancellation)
    }

    /// Bytes for the embedded store's cache.
    #[must_use]
    pub fn cache_bytes(&self) -> usize {
        self.split.cache_bytes
    }

    /// Where rows are sorted that do not fit in memory, and plans kept for a while.
    #[must_use]
    pub fn spill_directory(&self) -> &Path {
        &self.spill_directory
    }
}

/// What a command works with.
#[derive(Debug)]
pub struct Session<'a> {
    /// Where words go.
    pub console: &'a Console,
    /// Who may stop it.
    pub interruption: &'a Interruption,
    /// The configuration.
    pub configuration: Configuration,
    engine: Engine,
}

impl<'a> Session<'a> {
    /// Reads the configuration and starts the threads.
    ///
    /// # Errors
    /// Usage.
    pub fn open(
        global: &Global,
        console: &'a Console,
        interruption: &'a Interruption,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            console,
            interruption,
            configuration: Configuration::read(&global.config)?,
            engine: Engine::start(global)?,
        })
    }

    /// Opens the repository.
    ///
    /// # Errors
    /// Exit 10 if there is none.
    pub fn repository(&self) -> Result<LocalRepository, Failure> {
        adapters::open_repository(&self.configuration.repository)
    }

    /// Opens the live store.
    ///
    /// # Errors
    /// As the store reports it.
    pub fn store(&self) -> anyhow::Result<Box<dyn LiveStore>> {
        adapters::open_store(&self.configuration, self.engine.cache_bytes())
    }

    /// Opens the live store to follow what is committed to it.
    ///
    /// # Errors
    /// As the store reports it.
    pub fn feed_source(&self) -> anyhow::Result<Box<dyn FeedSource>> {
        let cache_bytes = self.engine.cache_bytes();
        adapters::open_feed_source(&self.configuration, cache_bytes, self.spill_directory())
    }

    /// What every function of the engine is given.
    #[must_use]
    pub fn context<'c>(&'c self, observer: &'c dyn Observer) -> Context<'c> {
        self.engine
            .context(observer, self.interruption.cancellation())
    }

    /// Where plans are kept for a while.
    #[must_use]
    pub fn spill_directory(&self) -> &Path {
        self.engine.spill_directory()
    }

    /// Bytes for an embedded store's cache.
    #[must_use]
    pub fn cache_bytes(&self) -> usize {
        self.engine.cache_bytes()
    }

    /// The snapshots of the configured store with their logs, oldest first: by the store's id if it
    /// is open, by its name if it is not.
    ///
    /// # Errors
    /// `Corrupt` if a manifest or a log is damaged; usage if several stores had the name.
    pub fn logs_of(
        &self,
        repository: &dyn Repository,
        live: Option<&dyn LiveStore>,
    ) -> anyhow::Result<Vec<Arc<Log>>> {
        let mut found = all_logs(self.console, repository)?;
        if let Some(live) = live {
            let id = live.identity().id;
            found.retain(|log| log.snapshot().store.id == id);
            return Ok(found);
        }
        let name = &self.configuration.store_name;
        found.retain(|log| log.snapshot().store.name == *name);
        let several = found
            .windows(2)
            .any(|pair| pair[0].snapshot().store.id != pair[1].snapshot().store.id);
        if !several {
            return Ok(found);
        }
        // Only the store itself knows which of them it is.
        let id = self.store()?.identity().id;
        found.retain(|log| log.snapshot().store.id == id);
        Ok(found)
    }

    /// Looks a point in time up.
    ///
    /// # Errors
    /// See [`resolve`] and [`logs_of`](Self::logs_of).
    pub fn resolve(
        &self,
        repository: &dyn Repository,
        live: Option<&dyn LiveStore>,
        point: &PointInTime,
        wanted: Match,
    ) -> anyhow::Result<Resolved> {
        let logs = self.logs_of(repository, live)?;
        let resolved = resolve(repository, &logs, point, wanted, now())?;
        if let Some(live) = live {
            check_history(repository, &resolved, live)?;
        }
        Ok(resolved)
    }
}

/// Refuses a point that the store as it is now never was at.
///
/// # Errors
/// See [`check_timeline`].
pub fn check_history(
    repository: &dyn Repository,
    resolved: &Resolved,
    live: &dyn LiveStore,
) -> Result<(), Failure> {
    let position = resolved.point.position;
    check_timeline(repository, &resolved.log, position, live).map_err(|error| {
        let next = "--at an earlier point, or look at it: reinstate export TENANT@TIME";
        Failure::new(error.kind(), error.to_string()).next(next)
    })
}

/// The snapshots of every store of a repository with their logs, oldest first.
///
/// # Errors
/// `Corrupt` if a manifest or a log is damaged.
pub fn all_logs(console: &Console, repository: &dyn Repository) -> anyhow::Result<Vec<Arc<Log>>> {
    let (logs, unreachable) = logs(repository)?;
    for lost in &unreachable {
        let name = ObjectId::from_bytes(lost.name);
        let place = match lost.place {
            Some((snapshot, number)) => {
                format!("run {number} of the log of snapshot {}", snapshot.short())
            }
            None => "a run that cannot be read".to_owned(),
        };
        console.warn(format_args!(
            "log record {name}, {place}, follows nothing that is here: a record before it is \
             missing, and what it covers cannot be recovered"
        ));
    }
    for (log, damage) in logs.iter().filter_map(|log| Some((log, log.damage()?))) {
        console.warn(format_args!(
            "the log of snapshot {} ends at {}, because the record behind it is damaged or missing: {damage}",
            log.snapshot().id.short(),
            log.through().display(log.snapshot().notation)
        ));
    }
    Ok(logs.into_iter().map(Arc::new).collect())
}

/// This moment, by this machine's clock.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::from_micros(jiff::Timestamp::now().as_microsecond())
}

/// A new job.
///
/// # Errors
/// If the operating system gives no random bytes.
pub fn new_job() -> Result<JobId, Failure> {
    random().map(JobId::from_bytes)
}

/// A new snapshot's id.
///
/// # Errors
/// If the operating system gives no random bytes.
pub fn new_snapshot() -> Result<SnapshotId, Failure> {
    random().map(SnapshotId::from_bytes)
}

/// Random bytes: ids that begin differently are told apart by a few digits.
pub(crate) fn random() -> Result<[u8; 16], Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(ErrorKind::Other, "make an id").because(error))?;
    Ok(bytes)
}
