//! Opening a PostgreSQL store.

use reinstate_core::LiveStore;
use reinstate_postgres::{ConnectionSettings, PostgresStore, SecretUrl, TenancyMap};

use crate::configuration::UrlSource;

/// Connects to the database.
///
/// # Errors
/// As the store reports it; never with the URL in it.
pub fn connect(
    name: &str,
    url: &UrlSource,
    tenancy: &TenancyMap,
) -> anyhow::Result<Box<dyn LiveStore>> {
    let url = SecretUrl::new(url.resolve()?.reveal());
    let settings = ConnectionSettings::new(url, name);
    Ok(Box::new(PostgresStore::connect(settings, tenancy.clone())?))
}
