//! Every promise of a live store, on PostgreSQL.

use reinstate_core::{ErrorKind, LiveStore, StoreError, TenantKind};
use reinstate_postgres::{ConnectionSettings, PostgresStore, SecretUrl, TableRule, TenancyMap};
use reinstate_testkit::certification::{Fixture, Flavour, Profile, standard_postgres_ddl};
use reinstate_testkit::certify_live_store;
use reinstate_testkit::cluster::{TestDatabase, shared_cluster};
use reinstate_testkit::{ApplicationChange, ApplicationRow, KeySpace};

pub struct PostgresFixture {
    store: PostgresStore,
    database: TestDatabase<'static>,
}

impl Fixture for PostgresFixture {
    fn create() -> Self {
        let cluster = shared_cluster().expect("a server");
        let database = cluster.fresh_database().expect("a database");
        database.psql(&standard_postgres_ddl()).expect("tables");
        let mut map = TenancyMap::new(TenantKind::parse("account").expect("a kind"));
        map.column = Some("account_id".to_owned());
        map.shared = vec!["currencies".to_owned()];
        let reference = "issue_id -> issues.id".to_owned();
        map.tables
            .insert("comments".to_owned(), TableRule::Via { reference });
        let settings = ConnectionSettings::new(SecretUrl::new(database.url()), "test");
        let store = PostgresStore::connect(settings, map).expect("a store");
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
        let mut sql = "SET standard_conforming_strings = on; BEGIN;\n".to_owned();
        for change in changes {
            sql.push_str(&statement(change));
        }
        sql.push_str("COMMIT;");
        self.database.psql(&sql).map(drop).map_err(|error| {
            StoreError::new(ErrorKind::Other, "write as an application").because(error)
        })
    }
}

fn statement(change: &ApplicationChange) -> String {
    let row = change.row();
    let (columns, key) = shape(row);
    let values: Vec<String> = row
        .values
        .iter()
        .map(|value| literal(value.as_deref()))
        .collect();
    let same = |places: &[usize]| {
        let equal = places.iter().map(|&place| {
            format!(
                "t.{} IS NOT DISTINCT FROM {}",
                columns[place], values[place]
            )
        });
        equal.collect::<Vec<_>>().join(" AND ")
    };
    let (table, list) = (&row.table, columns.join(", "));
    match change {
        ApplicationChange::Put(_) if key.is_empty() => {
            format!(
                "INSERT INTO {table} ({list}) VALUES ({});\n",
                values.join(", ")
            )
        }
        ApplicationChange::Put(_) => {
            let keys: Vec<&str> = key.iter().map(|&place| columns[place]).collect();
            let set: Vec<String> = columns
                .iter()
                .map(|column| format!("{column} = EXCLUDED.{column}"))
                .collect();
            format!(
                "INSERT INTO {table} ({list}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {};\n",
                values.join(", "),
                keys.join(", "),
                set.join(", ")
            )
        }
        ApplicationChange::Delete(_) if key.is_empty() => {
            let every: Vec<usize> = (0..columns.len()).collect();
            format!(
                "DELETE FROM {table} WHERE ctid = (SELECT ctid FROM {table} t WHERE {} LIMIT 1);\n",
                same(&every)
            )
        }
        ApplicationChange::Delete(_) => format!("DELETE FROM {table} t WHERE {};\n", same(key)),
    }
}

/// The columns of a table of the kit, and the places of its key.
fn shape(row: &ApplicationRow) -> (&'static [&'static str], &'static [usize]) {
    match row.table.as_str() {
        "currencies" => (&["code", "name"], &[0]),
        "projects" => (&["id", "account_id", "currency", "name"], &[0]),
        "issues" => (&["id", "account_id", "project_id", "title", "body"], &[0]),
        "comments" => (&["id", "issue_id", "body"], &[0]),
        "activity" => (&["account_id", "subject", "note"], &[]),
        _ => (&["account_id", "name", "value"], &[0, 1]),
    }
}

fn literal(value: Option<&[u8]>) -> String {
    value.map_or("NULL".to_owned(), |value| {
        let text = std::str::from_utf8(value).expect("text");
        format!("'{}'", text.replace('\'', "''"))
    })
}

certify_live_store!(PostgresFixture);
