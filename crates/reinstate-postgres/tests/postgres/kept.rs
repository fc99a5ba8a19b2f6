//! A store that read the catalogue before sees it as one that never did.

use reinstate_core::{ChangeCounts, ColumnIndex, LiveStore, StoreError};
use reinstate_postgres::{ConnectionSettings, PostgresStore, SecretUrl, TenancyMap};
use reinstate_testkit::cluster::shared_cluster;

use crate::ground::{open_store, via};

const TABLES: &str = "\
CREATE SCHEMA other;
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE DOMAIN amount AS int;
CREATE FUNCTION loud(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper($1)';
CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TABLE notes (id bigint PRIMARY KEY, account_id text, number int, text text, mood mood, due amount,
    CONSTRAINT is_loud CHECK (loud(text) = text), UNIQUE (account_id, number));
CREATE TABLE parts (id serial PRIMARY KEY, note bigint NOT NULL REFERENCES notes,
    half int GENERATED ALWAYS AS (id / 2) STORED);
CREATE TABLE days (account_id text, day date, PRIMARY KEY (account_id, day)) PARTITION BY RANGE (day);
CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE days_2 (account_id text NOT NULL, day date NOT NULL, PRIMARY KEY (account_id, day));
CREATE TRIGGER acts BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION act();
CREATE RULE quiet AS ON DELETE TO notes DO ALSO NOTHING;
";

fn map(map: &mut TenancyMap) {
    via(map, "parts", "note -> notes.id");
}

/// All that a view tells without being asked about rows.
fn seen(store: &PostgresStore) -> Result<String, StoreError> {
    let view = store.read_view()?;
    let mut text = format!("{:?}\n", view.schema());
    let all = ChangeCounts {
        created: 1,
        put_back: 1,
        deleted: 1,
    };
    for (index, table) in view.schema().iter() {
        text.push_str(&format!(
            "{} {:?} {:?} {:?} {} {}\n",
            table.name,
            view.side_effects(index, all),
            view.unique_keys(index)?,
            view.fixed_values(index),
            view.has_unique_values(index),
            view.is_divided(index),
        ));
        for column in (0..).map(ColumnIndex).take(table.columns.len()) {
            text.push_str(&format!(
                "{} {:?} {:?}\n",
                view.is_counted_up(index, column),
                view.value_kind(index, column),
                view.fit("mood", index, column)?,
            ));
        }
    }
    Ok(text)
}

fn text(store: &PostgresStore) -> String {
    seen(store).unwrap_or_else(|error| error.to_string())
}

#[test]
fn whatever_is_altered_is_seen_by_a_store_that_read_the_catalogue_before() {
    let database = shared_cluster().unwrap().fresh_database().unwrap();
    database.psql(TABLES).unwrap();
    let store = open_store(&database.url(), map);
    let mut before = text(&store);
    for alteration in [
        "ALTER TABLE notes ADD more int",
        "ALTER TABLE notes RENAME more TO less",
        "ALTER TABLE notes ALTER number SET NOT NULL",
        "ALTER TABLE notes ALTER less TYPE varchar(7)",
        "ALTER TYPE mood RENAME TO temper",
        "ALTER TYPE temper RENAME TO mood",
        "ALTER TYPE mood ADD VALUE 'so so'",
        "ALTER TABLE notes DISABLE TRIGGER acts",
        "ALTER TABLE notes DISABLE RULE quiet",
        "ALTER TABLE notes ENABLE RULE quiet",
        "CREATE UNIQUE INDEX more ON notes (number) WHERE number > 0",
        "ALTER INDEX more RENAME TO less",
        "ALTER SEQUENCE parts_id_seq INCREMENT -1 MINVALUE -5",
        "ALTER SEQUENCE parts_id_seq INCREMENT 1",
        "ALTER TABLE parts ALTER id DROP DEFAULT; ALTER SEQUENCE parts_id_seq OWNED BY NONE",
        "ALTER TABLE days ATTACH PARTITION days_2 FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')",
        "ALTER TABLE days_1 SET SCHEMA other",
        "ALTER TABLE parts ADD CONSTRAINT also FOREIGN KEY (id) REFERENCES notes ON DELETE CASCADE",
        "DROP TABLE days",
        "CREATE TABLE younger (id int PRIMARY KEY)",
    ] {
        assert!(before.contains("notes"), "{before}");
        database.psql(alteration).unwrap();
        let fresh = text(&open_store(&database.url(), map));
        assert_eq!(text(&store), fresh, "{alteration}");
        // Otherwise it would prove nothing. What a plan does not tell is altered on the way.
        let untold = ["ADD VALUE", "SET SCHEMA"];
        let tells = !untold.iter().any(|what| alteration.contains(what));
        assert!(!tells || fresh != before, "{alteration}");
        before = fresh;
    }
}

#[test]
fn what_a_role_may_see_is_asked_anew() {
    let cluster = shared_cluster().unwrap();
    let database = cluster.fresh_database().unwrap();
    database.psql(TABLES).unwrap();
    let role = format!("sees_{}", database.name());
    let group = format!("group_{}", database.name());
    let may_see = format!(
        "CREATE ROLE {role} LOGIN; CREATE ROLE {group}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {group};
         GRANT {group} TO {role}"
    );
    database.psql(&may_see).unwrap();
    let open = || {
        let mut rules = TenancyMap::new(reinstate_core::TenantKind::parse("account").unwrap());
        rules.column = Some("account_id".to_owned());
        map(&mut rules);
        let url = format!("{}&user={role}", database.url());
        let settings = ConnectionSettings::new(SecretUrl::new(&url), "kept");
        PostgresStore::connect(settings, rules).unwrap()
    };
    let store = open();
    let whole = text(&store);
    assert!(whole.contains("notes"), "{whole}");
    let all = "USING (true)";
    for (change, is_seen) in [
        (format!("REVOKE {group} FROM {role}"), false),
        (format!("GRANT {group} TO {role}"), true),
        (format!("REVOKE SELECT ON parts FROM {group}"), false),
        (format!("GRANT SELECT ON parts TO {group}"), true),
        (
            "REVOKE USAGE ON SCHEMA public FROM PUBLIC".to_owned(),
            false,
        ),
        ("GRANT USAGE ON SCHEMA public TO PUBLIC".to_owned(), true),
        (
            "ALTER TABLE notes ENABLE ROW LEVEL SECURITY".to_owned(),
            false,
        ),
        (format!("ALTER ROLE {role} BYPASSRLS"), true),
        (format!("ALTER ROLE {role} NOBYPASSRLS"), false),
        (format!("CREATE POLICY p ON notes {all}"), true),
        ("ALTER POLICY p ON notes USING (id > 0)".to_owned(), false),
        (format!("ALTER POLICY p ON notes {all}"), true),
        (format!("ALTER POLICY p ON notes TO {group}_other"), false),
    ] {
        if change.ends_with("_other") {
            let other = format!("CREATE ROLE {group}_other");
            database.psql(&other).unwrap();
        }
        database.psql(&change).unwrap();
        let found = seen(&store);
        assert_eq!(found.is_ok(), is_seen, "{change}: {found:?}");
        let fresh = text(&open());
        let found = found.unwrap_or_else(|error| error.to_string());
        assert_eq!(found, fresh, "{change}");
    }
}
