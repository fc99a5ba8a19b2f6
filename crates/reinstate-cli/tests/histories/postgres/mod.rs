//! Writers at work in a PostgreSQL database, and what another decoder makes of the same server log.

mod witness;
mod writers;

use std::fmt::Write as _;
use std::sync::mpsc;
use std::thread;

use reinstate::{CaptureOptions, FollowOptions, Follower, compact, log_of};
use reinstate_core::{FeedSource, SnapshotId, TenantKind};
use reinstate_postgres::{ConnectionSettings, PostgresStore, SecretUrl, TableRule, TenancyMap};
use reinstate_testkit::cluster::{TestDatabase, shared_cluster};
use reinstate_testkit::figures;

use super::{Followed, NOW, SNAPSHOT, Told, seeds};
use witness::{Witness, World};
pub use writers::Psql;
use writers::script;

/// Databases of one run; one of them is followed into a repository on the disk.
const DATABASES: u64 = 13;
/// Histories of one database, and how many go on at the same time.
const HISTORIES: usize = 8;
const AT_ONCE: usize = 2;
/// Writers of one history.
const WRITERS: usize = 3;

/// Rows with a tenant, rows that belong to them over one and two hops, and rows without a key. What is
/// dropped and renamed in between is of types that no other column has.
const TABLES: &str = "\
CREATE TABLE projects (id int PRIMARY KEY, account_id int, name text, spare date DEFAULT '2020-02-02');
CREATE TABLE issues (id int PRIMARY KEY, project_id int NOT NULL REFERENCES projects ON UPDATE CASCADE ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, title text, spare bigint DEFAULT 7);
CREATE TABLE comments (id int PRIMARY KEY, issue_id int NOT NULL REFERENCES issues ON DELETE CASCADE, body text);
CREATE TABLE visits (account_id int, page text);
ALTER TABLE visits REPLICA IDENTITY FULL;
ALTER TABLE comments ALTER body SET STORAGE EXTERNAL;
";
/// Old rows that are logged whole, or by their keys.
const WHOLE: &str = "\
ALTER TABLE projects REPLICA IDENTITY FULL; ALTER TABLE issues REPLICA IDENTITY FULL;
ALTER TABLE comments REPLICA IDENTITY FULL;\n";
const BY_KEY: &str = "ALTER TABLE issues REPLICA IDENTITY USING INDEX issues_pkey;\n";

/// A store whose tables in these schemas lead to `account_id`.
fn open_schemas(url: &str, schemas: impl Iterator<Item = String>) -> PostgresStore {
    let mut map = TenancyMap::new(TenantKind::parse("account").unwrap());
    map.column = Some("account_id".to_owned());
    for schema in schemas {
        for (table, reference) in [
            ("issues", format!("project_id -> {schema}projects.id")),
            ("comments", format!("issue_id -> {schema}issues.id")),
        ] {
            let rule = TableRule::via(reference);
            map.tables.insert(format!("{schema}{table}"), rule);
        }
    }
    let mut settings = ConnectionSettings::new(SecretUrl::new(url), "ground");
    settings.unguarded = true;
    let store = PostgresStore::connect(settings, map).unwrap();
    reinstate_core::LiveStore::prepare(&store).unwrap();
    store
}

pub fn open(url: &str) -> PostgresStore {
    open_schemas(url, std::iter::once(String::new()))
}

fn schema(history: usize) -> String {
    format!("h{history}")
}

/// The first tenant of a history; its others follow, and no other history has any of them.
fn first_tenant(history: usize) -> usize {
    10 * history + 1
}

/// The tables of every history, in a schema of its own.
fn tables(seed: u64) -> String {
    let mut sql = String::new();
    for history in 0..HISTORIES {
        let schema = schema(history);
        let identity = [WHOLE, BY_KEY][(history + usize::from(seed.is_multiple_of(2))) % 2];
        writeln!(
            sql,
            "CREATE SCHEMA {schema}; SET search_path = {schema};\n{TABLES}{identity}"
        )
        .unwrap();
    }
    sql
}

/// The first rows of every history, in one transaction.
fn first_rows() -> String {
    let mut sql = String::from("BEGIN;\n");
    for history in 0..HISTORIES {
        let (schema, tenant) = (schema(history), first_tenant(history));
        writeln!(
            sql,
            "SET LOCAL search_path = {schema};
             INSERT INTO projects SELECT n, n % 3 + {tenant}, 'p' FROM generate_series(1, 6) n;
             INSERT INTO issues SELECT n, n % 6 + 1, 'i' FROM generate_series(1, 12) n;
             INSERT INTO comments SELECT n, n % 12 + 1, 'c' FROM generate_series(1, 12) n;
             INSERT INTO visits SELECT n % 3 + {tenant}, 'same' FROM generate_series(1, 6) n;"
        )
        .unwrap();
    }
    sql + "COMMIT;\n"
}

/// Writes all histories, some at the same time, and follows meanwhile: first commit by commit, then in
/// larger runs.
fn write_all(database: &TestDatabase<'_>, store: &PostgresStore, followed: &Followed, seed: u64) {
    let (done, news) = mpsc::channel();
    thread::scope(|scope| {
        for lane in 0..AT_ONCE {
            let done = done.clone();
            scope.spawn(move || {
                let mut sessions: Vec<Psql> =
                    (0..WRITERS).map(|_| Psql::connect(database)).collect();
                for history in (lane..HISTORIES).step_by(AT_ONCE) {
                    for (session, writer) in sessions.iter_mut().zip(0..) {
                        session.send(&script(seed, history, writer));
                    }
                    sessions.iter_mut().for_each(Psql::wait);
                    done.send(()).unwrap();
                }
            });
        }
        drop(done);
        for (number, ()) in news.into_iter().enumerate() {
            if number % 2 == 0 {
                followed.follow(store, [1, 300, 1 << 20][number / 2 % 3]);
            }
        }
    });
    followed.follow(store, 1 << 20);
}

/// What was tried with one database.
#[derive(Debug, Default)]
struct Counted {
    transactions: u64,
    alterations: u64,
    images: u64,
}

fn check_database(seed: u64, on_disk: bool) -> Counted {
    let database = shared_cluster().unwrap().fresh_database().unwrap();
    database.psql(&tables(seed)).unwrap();
    let name = database.name();
    let little = format!("ALTER DATABASE {name} SET logical_decoding_work_mem = '64kB'");
    database.psql(&little).unwrap();
    let store = open_schemas(
        &database.url(),
        (0..HISTORIES).map(|history| format!("{}.", schema(history))),
    );
    let slot = Witness::begin(&database);
    database.psql(&first_rows()).unwrap();
    let followed = if on_disk {
        Followed::begin(&store)
    } else {
        Followed::begin_in_memory(&store)
    };
    slot.note("base");
    // From here on the log has what the store says of its tables, and goes on over changes of them.
    followed.follow(&store, 1 << 20);
    write_all(&database, &store, &followed, seed);
    let replayed = slot.replay();
    let sent_early = "SELECT sum(t.stream_txns) > 5 FROM pg_stat_replication_slots t
        JOIN pg_replication_slots s USING (slot_name) WHERE s.database = current_database()";
    assert_eq!(database.psql(sent_early).unwrap(), "t");
    store.end_feed(SNAPSHOT).unwrap();
    assert!(replayed.has_unchanged_toast);
    assert_eq!(replayed.last, World::read(&database, &replayed.last));

    let (log, commits) = (followed.log(), followed.commits(false));
    assert_eq!(commits.len(), replayed.commits.len(), "transactions");
    replayed.check_columns(&log, &commits);
    let base = log.snapshot().position;
    let mut told: Vec<Told> = (0..HISTORIES)
        .map(|history| {
            let first = first_tenant(history);
            Told {
                tenants: (first..first + 4).map(|id| id.to_string()).collect(),
                states: vec![(base, replayed.base.state(&schema(history)))],
            }
        })
        .collect();
    let mut number_of = std::collections::BTreeMap::new();
    number_of.extend((0..HISTORIES).map(|history| (schema(history), history)));
    for (position, commit) in commits.iter().zip(&replayed.commits) {
        let history: usize = number_of[&commit.schema];
        told[history].states.push((*position, commit.state.clone()));
    }
    let mut counted = Counted {
        transactions: commits.len() as u64,
        alterations: replayed.alterations.len() as u64,
        images: 0,
    };
    for told in &told {
        assert!(told.states.len() > 5, "{} states", told.states.len());
        counted.images += followed.check(&log, told);
    }
    counted
}

/// A witness that knows nothing of this project decodes the same transactions.
#[test]
fn every_tenant_at_every_commit_of_many_writers_is_what_another_decoder_says() {
    let mut all = Counted::default();
    let seeds = seeds(DATABASES);
    for seed in seeds.clone() {
        println!("seed {seed}");
        let counted = check_database(seed, seed == seeds.start);
        all.transactions += counted.transactions;
        all.alterations += counted.alterations;
        all.images += counted.images;
    }
    assert!(all.alterations > 0);
    figures::record(
        "histories-postgres",
        &[
            ("histories", (seeds.end - seeds.start) * HISTORIES as u64),
            ("writers each", WRITERS as u64),
            ("transactions", all.transactions),
            ("alterations of tables", all.alterations),
            ("images compared", all.images),
        ],
    );
}

/// A snapshot that was made of a log lacks what the store said of its tables, which the log has.
#[test]
fn a_follower_goes_on_from_a_snapshot_that_was_made_of_its_log() {
    let database = shared_cluster().unwrap().fresh_database().unwrap();
    database.psql(TABLES).unwrap();
    let store = open(&database.url());
    let followed = Followed::begin(&store);
    let write = |id: u32| {
        let sql = format!("INSERT INTO projects (id, account_id, name) VALUES ({id}, 1, 'p')");
        database.psql(&sql).unwrap();
    };
    write(101);
    followed.follow(&store, 1 << 20);
    database
        .psql("ALTER TABLE projects ADD COLUMN more text DEFAULT 'd'")
        .unwrap();
    write(102);
    followed.follow(&store, 1 << 20);
    let younger = SnapshotId::from_bytes([0x5b; 16]);
    let (context, repository) = (followed.context(), followed.repository.as_ref());
    let options = CaptureOptions::new(younger, NOW);
    compact(context, repository, &followed.log(), &options)
        .unwrap()
        .unwrap();
    write(103);
    let options = FollowOptions::default();
    let mut follower = Follower::start(context, &store, repository, younger, options).unwrap();
    while follower.step(NOW).unwrap().has_more {}
    drop(follower);
    let log = log_of(repository, younger).unwrap();
    assert_eq!(
        (log.runs().len(), log.through()),
        (1, followed.log().through())
    );
    let tenant = "account:1".parse().unwrap();
    let found = followed.images(&log, log.through(), &[tenant], false);
    let mut ids = found[0]["projects"].iter().map(|row| row["id"].as_str());
    assert!(ids.any(|id| id == "103"), "{found:?}");
    store.end_feed(SNAPSHOT).unwrap();
}
