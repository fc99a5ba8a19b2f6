//! Opening what the configuration names: the repository, the live store, plan files.

use std::env;
use std::path::Path;
use std::sync::Arc;

use reinstate::RestorePlan;
use reinstate_core::{ErrorKind, FeedSource, LiveStore, ObjectReader, ObjectWriter};
use reinstate_embedded::{EmbeddedOptions, EmbeddedStore};
use reinstate_repository::{LocalRepository, RepositoryLock, create_file, open_file};

use crate::configuration::{Configuration, StoreConfiguration};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::holder;

/// The lock of those who write: captures and merges.
const WRITER_LOCK: &str = "writer";

/// Opens the repository in this directory.
///
/// # Errors
/// Exit 10 if there is none; otherwise as it reports it.
pub fn open_repository(path: &Path) -> Result<LocalRepository, Failure> {
    LocalRepository::open(path).map_err(|error| {
        let message = format!("open repository {}", path.display());
        match error.kind() {
            ErrorKind::NotFound => {
                let message = format!("there is no repository in {}", path.display());
                Failure::ending(Exit::NoRepository, "no_repository", message).next("reinstate init")
            }
            kind => Failure::new(kind, message).because(error),
        }
    })
}

/// Keeps other captures and merges away from the repository until it is dropped.
///
/// # Errors
/// `Locked` if one is at work.
pub fn lock(repository: &LocalRepository) -> Result<RepositoryLock, Failure> {
    holder::lock(repository, WRITER_LOCK, || {
        format!(
            "open repository {} for writing",
            repository.path().display()
        )
    })
}

/// Opens the live store.
///
/// # Errors
/// Usage if the store is another one than the configuration says; otherwise as it reports it.
pub fn open_store(
    configuration: &Configuration,
    cache_bytes: usize,
) -> anyhow::Result<Box<dyn LiveStore>> {
    // What is not followed keeps nothing there.
    Ok(open_feed_source(
        configuration,
        cache_bytes,
        &env::temp_dir(),
    )?)
}

/// Opens the live store, also to follow what is committed to it: what has to wait for its commit is kept
/// in this directory.
///
/// # Errors
/// As [`open_store`].
pub fn open_feed_source(
    configuration: &Configuration,
    cache_bytes: usize,
    spill_directory: &Path,
) -> anyhow::Result<Box<dyn FeedSource>> {
    let store: Box<dyn FeedSource> = match &configuration.store {
        StoreConfiguration::Embedded { path } => Box::new(open_embedded(path, cache_bytes)?),
        StoreConfiguration::Postgres(postgres) => Box::new(crate::postgres::connect_to_follow(
            &configuration.store_name,
            postgres,
            spill_directory,
        )?),
    };
    check(configuration, store.as_ref())?;
    Ok(store)
}

/// Opens a file of the embedded database.
///
/// # Errors
/// Usage if there is none; `Locked` if another process has it open.
pub fn open_embedded(path: &Path, cache_bytes: usize) -> Result<EmbeddedStore, Failure> {
    let mut options = EmbeddedOptions::default();
    options.cache_bytes = cache_bytes;
    EmbeddedStore::open(path, &options).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::usage(format!("there is no store {}", path.display()))
            .because(error)
            .next("correct store.path, or make a store: reinstate generate --into FILE"),
        ErrorKind::Locked => {
            let message = format!("another process has the store {} open", path.display());
            Failure::new(ErrorKind::Locked, message)
                .because(error)
                .next("stop that process, or restore from inside it with the library")
        }
        kind => Failure::new(kind, format!("open store {}", path.display())).because(error),
    })
}

/// The configuration and the store must mean the same thing.
///
/// # Errors
/// Usage if they do not.
pub fn check(configuration: &Configuration, store: &dyn LiveStore) -> Result<(), Failure> {
    let wrong = |fact: String| {
        Failure::usage(format!(
            "configuration {}: {fact}",
            configuration.path.display()
        ))
        .next("correct the file, or point it at the right store")
    };
    let name = store.identity().name;
    if name != configuration.store_name {
        let expected = &configuration.store_name;
        return Err(wrong(format!(
            "store.name is {expected:?}, but the store is {name:?}"
        )));
    }
    let kind = store.tenant_kind().as_str();
    match &configuration.tenant_kind {
        Some(expected) if expected != kind => Err(wrong(format!(
            "tenancy.kind is {expected:?}, but the tenants of the store are of kind {kind:?}"
        ))),
        _ => Ok(()),
    }
}

/// Starts a file for a plan; it must not exist.
///
/// # Errors
/// Usage if it does.
pub fn create_plan_file(path: &Path) -> Result<Box<dyn ObjectWriter>, Failure> {
    match create_file(path) {
        Ok(writer) => Ok(Box::new(writer)),
        Err(error) => {
            let message = format!("save the plan to {}", path.display());
            Err(Failure::new(error.kind(), message)
                .because(error)
                .next("choose another --out"))
        }
    }
}

/// Opens a saved plan and checks every byte of it.
///
/// # Errors
/// Usage if there is no such file; `Altered` if it is not what was saved.
pub fn open_plan_file(path: &Path) -> anyhow::Result<(Arc<dyn ObjectReader>, RestorePlan)> {
    let (reader, plan) = open_plan_unread(path)?;
    plan.check()?;
    Ok((reader, plan))
}

/// Opens a saved plan and checks what it says of itself, but not its rows: for whoever reads all of them anyway
/// before a row of the store is written.
///
/// # Errors
/// As [`open_plan_file`].
pub fn open_plan_unread(path: &Path) -> anyhow::Result<(Arc<dyn ObjectReader>, RestorePlan)> {
    let reader = open_file(path).map_err(|error| {
        let kind = match error.kind() {
            ErrorKind::NotFound => ErrorKind::Usage,
            kind => kind,
        };
        Failure::new(kind, format!("open plan {}", path.display()))
            .because(error)
            .next("make one: reinstate plan --help")
    })?;
    let plan = RestorePlan::open(Arc::clone(&reader))?;
    Ok((reader, plan))
}
