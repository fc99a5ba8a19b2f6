//! The store on PostgreSQL keeps every promise of a live store, and the engine's on it.

use reinstate_core::{ErrorKind, LiveStore, StoreError, TableSchema, TenantKind};
use reinstate_postgres::{ConnectionSettings, PostgresStore, SecretUrl, TableRule, TenancyMap};
use reinstate_testkit::certification::{
    Fixture, Flavour, Profile, standard_postgres_ddl, standard_schema,
};
use reinstate_testkit::cluster::{TestDatabase, shared_cluster};
use reinstate_testkit::{ApplicationChange, KeySpace};

/// As a superuser whom nothing stops.
const UNGUARDED: u8 = 0;
/// As a superuser, with guard triggers.
const GUARDED: u8 = 1;
/// As the role of least privilege, confined by row-level security.
const CONFINED: u8 = 2;

/// A database of its own in the test process's server.
struct PostgresFixture<const PROTECTION: u8> {
    store: PostgresStore,
    database: TestDatabase<'static>,
}

fn open(url: String) -> PostgresStore {
    connect(ConnectionSettings::new(SecretUrl::new(url), "certified"))
}

fn open_unguarded(database: &TestDatabase<'static>) -> PostgresStore {
    let mut settings = ConnectionSettings::new(SecretUrl::new(database.url()), "certified");
    settings.unguarded = true;
    connect(settings)
}

fn connect(settings: ConnectionSettings) -> PostgresStore {
    let mut map = TenancyMap::new(TenantKind::parse("account").expect("a kind"));
    map.column = Some("account_id".to_owned());
    map.shared.push("currencies".to_owned());
    let reference = "issue_id -> issues.id".to_owned();
    map.tables
        .insert("comments".to_owned(), TableRule::via(reference));
    PostgresStore::connect(settings, map).expect("a connection")
}

/// Opens the database as a role that may do no more than it must.
fn confined(database: &TestDatabase<'static>, owner: &PostgresStore) -> PostgresStore {
    let role = format!("confined_{}", database.name());
    let create = format!("CREATE ROLE {role} LOGIN");
    database.psql(&create).expect("a role");
    let script = owner.role_script(&role).expect("a script");
    database.psql(&script).expect("the rights of the role");
    open(format!("{}&user={role}", database.url()))
}

impl<const PROTECTION: u8> Fixture for PostgresFixture<PROTECTION> {
    fn create() -> Self {
        let cluster = shared_cluster().expect("a PostgreSQL server");
        let database = cluster.fresh_database().expect("a database");
        database
            .psql(&standard_postgres_ddl())
            .expect("the standard tables");
        let owner = open(database.url());
        owner.prepare().expect("a journal");
        let store = match PROTECTION {
            GUARDED => {
                owner.install_guard().expect("guard triggers");
                owner
            }
            CONFINED => confined(&database, &owner),
            _ => open_unguarded(&database),
        };
        Self { store, database }
    }

    fn profile(&self) -> Profile {
        Profile {
            flavour: Flavour::Columns,
            key_space: KeySpace::Global,
            has_counters: true,
            checks_references: true,
        }
    }

    fn store(&self) -> &dyn LiveStore {
        &self.store
    }

    fn application_write(&self, changes: &[ApplicationChange]) -> Result<(), StoreError> {
        let schema = standard_schema(Flavour::Columns);
        let mut sql = "BEGIN;\n".to_owned();
        for change in changes {
            let (_, table) = change.row().find(&schema)?;
            sql.push_str(&statement(change, table));
        }
        sql.push_str("COMMIT;\n");
        self.database.psql(&sql).map(drop).map_err(|error| {
            StoreError::new(ErrorKind::Other, "write as the application").because(error)
        })
    }
}

/// The change as an application would write it in SQL.
fn statement(change: &ApplicationChange, table: &TableSchema) -> String {
    let columns: Vec<&str> = table
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    let values: Vec<String> = change.row().values.iter().map(literal).collect();
    let is_key = |place: &usize| table.key.iter().any(|column| column.get() == *place);
    let name = &table.name;
    let matching = |places: &mut dyn Iterator<Item = usize>| {
        let equal =
            |place: usize| format!("{} IS NOT DISTINCT FROM {}", columns[place], values[place]);
        places.map(equal).collect::<Vec<_>>().join(" AND ")
    };
    match change {
        ApplicationChange::Put(_) => {
            let mut text = format!(
                "INSERT INTO {name} ({}) VALUES ({})",
                columns.join(", "),
                values.join(", ")
            );
            if table.has_key() {
                let key: Vec<&str> = table
                    .key
                    .iter()
                    .map(|column| columns[column.get()])
                    .collect();
                let rest = (0..columns.len()).filter(|place| !is_key(place));
                let set = rest.map(|place| format!("{0} = EXCLUDED.{0}", columns[place]));
                let set: Vec<String> = set.collect();
                text.push_str(&format!(
                    " ON CONFLICT ({}) DO UPDATE SET {}",
                    key.join(", "),
                    set.join(", ")
                ));
            }
            text + ";\n"
        }
        ApplicationChange::Delete(_) if table.has_key() => {
            let condition = matching(&mut (0..columns.len()).filter(is_key));
            format!("DELETE FROM {name} WHERE {condition};\n")
        }
        ApplicationChange::Delete(_) => {
            let condition = matching(&mut (0..columns.len()));
            format!(
                "DELETE FROM {name} WHERE ctid = \
                 (SELECT ctid FROM {name} WHERE {condition} LIMIT 1);\n"
            )
        }
    }
}

/// A value as SQL writes it. Backslashes mean themselves under the server's defaults.
fn literal(value: &Option<Vec<u8>>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some(bytes) => format!("'{}'", String::from_utf8_lossy(bytes).replace('\'', "''")),
    }
}

mod unguarded {
    use super::{PostgresFixture, UNGUARDED};

    reinstate_testkit::certify_live_store!(PostgresFixture<UNGUARDED>);
    reinstate_testkit::certify_engine!(PostgresFixture<UNGUARDED>, cases = 10);
}

mod guarded {
    use super::{GUARDED, PostgresFixture};

    reinstate_testkit::certify_live_store!(PostgresFixture<GUARDED>);
    reinstate_testkit::certify_engine!(PostgresFixture<GUARDED>, cases = 10);
}

mod confined {
    use super::{CONFINED, PostgresFixture};

    reinstate_testkit::certify_live_store!(PostgresFixture<CONFINED>);
    reinstate_testkit::certify_engine!(PostgresFixture<CONFINED>, cases = 10);
}

/// Sixty of a thousand tenants restored again and again while eight sessions write to the others.
mod under_load {
    use std::time::Duration;

    use reinstate_testkit::engine::{Load, check_load};

    use super::{GUARDED, PostgresFixture};

    #[test]
    fn restores_lose_no_write_of_others() {
        let load = Load {
            tenants: 1000,
            restored: 60,
            writers: 8,
            runs: 3,
            pause: Duration::from_millis(100),
        };
        check_load::<PostgresFixture<GUARDED>>("load-postgres", load);
    }
}
