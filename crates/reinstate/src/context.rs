//! What every function of the engine is given: workers, memory, somebody who watches, a way to stop,
//! and a pace.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuilder};
use reinstate_core::{Cancellation, ErrorKind, Observer};

use crate::Error;
use crate::pace::Pace;
use crate::run_stream::Openers;

/// The least memory that a run can be given.
pub const MEMORY_BYTES_MIN: usize = 16 * 1024 * 1024;

/// How much of the machine a run may use.
#[derive(Clone, Debug)]
pub struct ResourceOptions {
    /// Threads that decode, compress and sort. They never wait for a store.
    pub threads: NonZeroUsize,
    /// Bytes of rows held in memory at once, over all phases. What does not fit is sorted on
    /// disk. Single rows longer than this are still handled, one at a time.
    pub memory_bytes_max: usize,
    /// Where rows are sorted that do not fit in memory. Files there are unnamed: they vanish
    /// with the process.
    pub spill_directory: PathBuf,
}

impl Default for ResourceOptions {
    /// All processors, 256 MiB, the system's directory for temporary files.
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            memory_bytes_max: 256 * 1024 * 1024,
            spill_directory: std::env::temp_dir(),
        }
    }
}

/// Threads of the engine's own and a budget of memory.
#[derive(Debug)]
pub struct Resources {
    pool: Arc<ThreadPool>,
    openers: Arc<Openers>,
    options: ResourceOptions,
}

impl Resources {
    /// Starts the threads.
    ///
    /// # Errors
    /// `Usage` if the memory is less than [`MEMORY_BYTES_MIN`]; `Other` if threads cannot be
    /// started.
    pub fn try_new(options: ResourceOptions) -> Result<Self, Error> {
        if options.memory_bytes_max < MEMORY_BYTES_MIN {
            let message = format!(
                "memory budget of {} bytes: at least {MEMORY_BYTES_MIN} are needed",
                options.memory_bytes_max
            );
            return Err(Error::new(ErrorKind::Usage, message));
        }
        let pool = ThreadPoolBuilder::new()
            .num_threads(options.threads.get())
            .thread_name(|index| format!("reinstate-{index}"))
            .build()
            .map_err(|error| Error::new(ErrorKind::Other, format!("start threads: {error}")))?;
        Ok(Self {
            pool: Arc::new(pool),
            openers: Arc::default(),
            options,
        })
    }

    pub(crate) fn pool(&self) -> &ThreadPool {
        &self.pool
    }

    pub(crate) fn pool_handle(&self) -> &Arc<ThreadPool> {
        &self.pool
    }

    pub(crate) fn openers(&self) -> &Arc<Openers> {
        &self.openers
    }

    pub(crate) fn threads(&self) -> usize {
        self.options.threads.get()
    }

    pub(crate) fn memory_bytes_max(&self) -> usize {
        self.options.memory_bytes_max
    }

    pub(crate) fn spill_directory(&self) -> &Path {
        &self.options.spill_directory
    }
}

/// What every function of the engine is given.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Threads and memory.
    pub resources: &'a Resources,
    /// Who is told of progress.
    pub observer: &'a dyn Observer,
    /// Who can stop the run.
    pub cancellation: &'a Cancellation,
    /// How fast it may write to the live store; none if as fast as it can.
    pub pace: Option<&'a Pace<'a>>,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Context")
            .field("resources", self.resources)
            .finish_non_exhaustive()
    }
}

impl<'a> Context<'a> {
    /// A run that may write as fast as it can.
    #[must_use]
    pub fn new(
        resources: &'a Resources,
        observer: &'a dyn Observer,
        cancellation: &'a Cancellation,
    ) -> Self {
        Self {
            resources,
            observer,
            cancellation,
            pace: None,
        }
    }

    /// The same run, which writes no faster than this lets it.
    #[must_use]
    pub fn paced(self, pace: &'a Pace<'a>) -> Self {
        Self {
            pace: Some(pace),
            ..self
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        // Asked for every row in places: the text is made only if it is needed.
        let stopped = self.cancellation.check();
        stopped.map_err(|error| Error::store("stop")(error))
    }
}
