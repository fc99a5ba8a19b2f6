//! Opening a PostgreSQL store.

use reinstate_postgres::{ConnectionSettings, PostgresStore, SecretUrl, TenancyMap};

use crate::configuration::UrlSource;

/// Connects to the database.
///
/// # Errors
/// As the store reports it; never with the URL in it.
pub fn connect(name: &str, url: &UrlSource, tenancy: &TenancyMap) -> anyhow::Result<PostgresStore> {
    let url = SecretUrl::new(url.resolve()?.reveal());
    let settings = ConnectionSettings::new(url, name);
    Ok(PostgresStore::connect(settings, tenancy.clone())?)
}
