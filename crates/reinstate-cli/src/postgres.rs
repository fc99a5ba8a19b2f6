//! Opening a PostgreSQL store.

use reinstate_core::LiveStore;

use crate::configuration::{PostgresTenancy, UrlSource};
use crate::failure::Failure;

/// Connects to the database.
///
/// # Errors
/// As the store reports it.
pub fn connect(
    _name: &str,
    url: &UrlSource,
    _tenancy: &PostgresTenancy,
) -> anyhow::Result<Box<dyn LiveStore>> {
    let _url = url.resolve()?;
    Err(Failure::usage("PostgreSQL is not built in").into())
}
