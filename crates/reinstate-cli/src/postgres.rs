//! Opening a PostgreSQL store.

use std::path::Path;

use reinstate_postgres::{ConnectionSettings, PostgresStore, SecretUrl};

use crate::configuration::{PostgresConfiguration, StoreConfiguration};
use crate::failure::Failure;
use crate::session::Session;

/// Connects to the database.
///
/// # Errors
/// As the store reports it; never with the URL in it.
pub fn connect(name: &str, configuration: &PostgresConfiguration) -> anyhow::Result<PostgresStore> {
    let settings = settings(name, configuration)?;
    Ok(PostgresStore::connect(
        settings,
        configuration.tenancy.clone(),
    )?)
}

/// Connects to the database, also to follow it: long transactions are kept in this directory until they
/// are committed.
///
/// # Errors
/// As [`connect`].
pub fn connect_to_follow(
    name: &str,
    configuration: &PostgresConfiguration,
    spill_directory: &Path,
) -> anyhow::Result<PostgresStore> {
    let mut settings = settings(name, configuration)?;
    spill_directory.clone_into(&mut settings.spill_directory);
    Ok(PostgresStore::connect(
        settings,
        configuration.tenancy.clone(),
    )?)
}

fn settings(
    name: &str,
    configuration: &PostgresConfiguration,
) -> anyhow::Result<ConnectionSettings> {
    let url = SecretUrl::new(configuration.url.resolve()?.reveal());
    let mut settings = ConnectionSettings::new(url, name);
    settings.unguarded = configuration.unguarded;
    settings.merges_at_once = configuration.merges_at_once;
    configuration.bounds.set(&mut settings);
    Ok(settings)
}

/// Connects to the database that a command is about.
///
/// # Errors
/// Usage, with `otherwise`, if the store is another; as [`connect`].
pub fn needed(session: &Session<'_>, otherwise: &str) -> anyhow::Result<PostgresStore> {
    let configuration = &session.configuration;
    match &configuration.store {
        StoreConfiguration::Postgres(postgres) => connect(&configuration.store_name, postgres),
        StoreConfiguration::Embedded { .. } => {
            Err(Failure::usage(otherwise).next("reinstate doctor").into())
        }
    }
}
