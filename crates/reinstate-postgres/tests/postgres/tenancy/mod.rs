//! Finding out whose rows the tables of a database hold.

mod check;
mod suggest;

use std::path::Path;

use reinstate_core::TenantKind;
use reinstate_postgres::{
    ConnectionSettings, PostgresStore, SecretUrl, SuggestOptions, TenancyMap, TenancyProposal,
};
use reinstate_testkit::cluster::{TestDatabase, shared_cluster};

/// One table of each shape.
const SCHEMA: &str = include_str!("schema.sql");

fn database(ddl: &str) -> TestDatabase<'static> {
    let database = shared_cluster().unwrap().fresh_database().unwrap();
    database.psql(ddl).unwrap();
    database
}

fn store(url: &str, map: TenancyMap) -> PostgresStore {
    let settings = ConnectionSettings::new(SecretUrl::new(url), "main");
    PostgresStore::connect(settings, map).unwrap()
}

fn empty_map() -> TenancyMap {
    TenancyMap::new(TenantKind::parse("account").unwrap())
}

fn suggest(database: &TestDatabase<'_>, options: &SuggestOptions) -> TenancyProposal {
    let store = store(&database.url(), empty_map());
    store.suggest_tenancy(options).unwrap()
}

/// Compares with a reviewed file. After a wanted change:
/// `REINSTATE_BLESS=1 cargo test -p reinstate-postgres`.
#[track_caller]
fn reviewed(name: &str, found: &str) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgres/tenancy");
    let path = directory.join(name);
    if std::env::var_os("REINSTATE_BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        found, expected,
        "{name} changed: see the top of this function"
    );
}
