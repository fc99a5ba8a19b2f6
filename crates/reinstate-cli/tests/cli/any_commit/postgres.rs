//! Writers at work in a PostgreSQL database, and what another decoder makes of the same server log.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;
use std::thread;

use reinstate::{CaptureOptions, FollowOptions, Follower, compact, log_of};
use reinstate_core::{SnapshotId, TenantKind};
use reinstate_postgres::{ConnectionSettings, PostgresStore, SecretUrl, TableRule, TenancyMap};
use reinstate_testkit::cluster::{TestDatabase, shared_cluster};

use super::{Dice, Followed, NOW, Row, Rows, seeds};

/// Rows with a tenant, rows that belong to them over one and two hops, and rows without a key.
const SCHEMA: &str = "\
CREATE TABLE projects (id int PRIMARY KEY, account_id int, name text);
CREATE TABLE issues (id int PRIMARY KEY, project_id int NOT NULL REFERENCES projects ON UPDATE CASCADE ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, title text);
CREATE TABLE comments (id int PRIMARY KEY, issue_id int NOT NULL REFERENCES issues ON DELETE CASCADE, body text);
CREATE TABLE visits (account_id int, page text);
ALTER TABLE visits REPLICA IDENTITY FULL;
ALTER TABLE comments ALTER body SET STORAGE EXTERNAL;
INSERT INTO projects SELECT n, n % 3 + 1, 'p' FROM generate_series(1, 6) n;
INSERT INTO issues SELECT n, n % 6 + 1, 'i' FROM generate_series(1, 12) n;
INSERT INTO comments SELECT n, n % 12 + 1, 'c' FROM generate_series(1, 12) n;
INSERT INTO visits SELECT n % 3 + 1, 'same' FROM generate_series(1, 6) n;
";
/// Old rows that are logged whole, or by their keys.
const WHOLE: &str = "\
ALTER TABLE projects REPLICA IDENTITY FULL; ALTER TABLE issues REPLICA IDENTITY FULL;
ALTER TABLE comments REPLICA IDENTITY FULL;";
const BY_KEY: &str = "ALTER TABLE issues REPLICA IDENTITY USING INDEX issues_pkey;";
const TABLES: [(&str, &[&str]); 4] = [
    ("projects", &["id", "account_id", "name"]),
    ("issues", &["id", "project_id", "title"]),
    ("comments", &["id", "issue_id", "body"]),
    ("visits", &["account_id", "page"]),
];
/// Lets the server send what the transaction did so far, which it keeps 64 KiB of.
const SENT_EARLY: &str = " PERFORM pg_logical_emit_message(true, 'padding', repeat('x', 70000));";
const TENANTS: [&str; 4] = ["1", "2", "3", "4"];
const WRITERS: u64 = 4;

pub fn open(url: &str) -> PostgresStore {
    let mut map = TenancyMap::new(TenantKind::parse("account").unwrap());
    map.column = Some("account_id".to_owned());
    for (table, reference) in [
        ("issues", "project_id -> projects.id"),
        ("comments", "issue_id -> issues.id"),
    ] {
        let rule = TableRule::via(reference.to_owned());
        map.tables.insert(table.to_owned(), rule);
    }
    let mut settings = ConnectionSettings::new(SecretUrl::new(url), "ground");
    settings.unguarded = true;
    let store = PostgresStore::connect(settings, map).unwrap();
    reinstate_core::LiveStore::prepare(&store).unwrap();
    store
}

/// One statement of a writer.
fn statement(dice: &mut Dice, writer: u64) -> String {
    let id = 1 + dice.below(14);
    let own = 20 + writer * 10 + dice.below(4);
    let (tenant, other) = (1 + dice.below(4), 1 + dice.below(14));
    let text = ["x", "again", "a-longer-text"][usize::try_from(dice.below(3)).unwrap()];
    // Kept out of line, and not logged again by an update that leaves it.
    let long = "long".repeat([1, 1000][usize::try_from(dice.below(2)).unwrap()]);
    match dice.below(20) {
        0 => format!("INSERT INTO projects VALUES ({own}, {tenant}, '{text}')"),
        1 => format!("UPDATE projects SET name = '{text}' WHERE id = {id}"),
        // A family goes to another tenant.
        2 => format!("UPDATE projects SET account_id = {tenant} WHERE id = {id}"),
        3 => format!("UPDATE projects SET account_id = NULL WHERE id = {own}"),
        4 => format!("DELETE FROM projects WHERE id = {id} AND name <> 'p'"),
        5 | 6 => format!(
            "INSERT INTO issues VALUES ({own}, {id}, '{text}') ON CONFLICT (id) DO UPDATE SET title = 'upsert'"
        ),
        7 => format!("UPDATE issues SET project_id = {other} WHERE id = {id}"),
        8 => format!("DELETE FROM issues WHERE id = {id}"),
        9 => format!("UPDATE issues SET id = {own} + 100 WHERE id = {own}"),
        10 | 11 => {
            format!("INSERT INTO comments VALUES ({own}, {id}, '{long}') ON CONFLICT DO NOTHING")
        }
        12 => format!("UPDATE comments SET issue_id = {other}, body = '{text}' WHERE id = {own}"),
        13 => format!("DELETE FROM comments WHERE id = {id}"),
        14 if dice.below(2) == 0 => format!("UPDATE comments SET id = id + 1000 WHERE id = {own}"),
        14 => format!("UPDATE comments SET issue_id = {other} WHERE id = {own}"),
        15 | 16 => format!("INSERT INTO visits VALUES ({tenant}, 'same'), ({tenant}, '{text}')"),
        17 => format!(
            "UPDATE visits SET account_id = {tenant} WHERE ctid IN (SELECT ctid FROM visits WHERE page = '{text}' LIMIT 2)"
        ),
        18 => format!(
            "DELETE FROM visits WHERE ctid IN (SELECT ctid FROM visits WHERE account_id = {tenant} LIMIT 2)"
        ),
        _ if dice.below(4) == 0 => "TRUNCATE visits".to_owned(),
        _ => "TRUNCATE comments".to_owned(),
    }
}

/// Tables that change while they are written to, and others that come: the log goes on with them. Not those
/// that are truncated as well: where both come between two looks, the log ends.
fn alteration(dice: &mut Dice, number: u64) -> String {
    let (table, _) = TABLES[usize::try_from(dice.below(2)).unwrap()];
    let column = ["text DEFAULT 'd'", "int", "numeric DEFAULT 1.50"];
    let column = column[usize::try_from(dice.below(3)).unwrap()];
    match dice.below(4) {
        0 => format!("CREATE TABLE later_{number} (id int PRIMARY KEY, account_id int);\n"),
        _ => format!("ALTER TABLE {table} ADD COLUMN more_{number} {column};\n"),
    }
}

/// What one writer does: transactions of a few statements, each of which may fail and be left out, in
/// sub-transactions; some are rolled back.
fn script(seed: u64, writer: u64, transactions: u64) -> String {
    let mut dice = Dice(seed * WRITERS + writer);
    let mut script = String::from("SET deadlock_timeout = '20ms';\n");
    for number in 0..transactions {
        let mut body = String::new();
        for _ in 0..=dice.below(4) {
            let statement = statement(&mut dice, writer);
            body += &format!(" BEGIN {statement}; EXCEPTION WHEN OTHERS THEN NULL; END;");
            if dice.below(4) == 0 {
                body += SENT_EARLY;
            }
        }
        let end =
            ["ROLLBACK", "COMMIT", "COMMIT", "COMMIT"][usize::try_from(dice.below(4)).unwrap()];
        // A deferred constraint may still refuse the commit.
        script += &format!("BEGIN; DO $$ BEGIN{body} END $$; {end};\n");
        if writer == 0 && number % 4 == 1 {
            script += &alteration(&mut dice, number);
        }
    }
    script
}

/// A whole store: its tables with all rows.
type World = BTreeMap<String, Vec<Row>>;

fn world(database: &TestDatabase<'_>) -> World {
    let value = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let rows = |(table, columns): &(&str, &[&str])| {
        let columns = columns.join(", ");
        let text = database
            .psql(&format!("SELECT {columns} FROM {table}"))
            .unwrap();
        let row = |line: &str| line.split('|').map(value).collect();
        ((*table).to_owned(), text.lines().map(row).collect())
    };
    TABLES.iter().map(rows).collect()
}

/// The values in `id[integer]:1 name[text]:'x'`, where those that are null may be left out.
fn values(table: &str, text: &str) -> Row {
    let mut found = BTreeMap::new();
    for value in text.split_whitespace() {
        let (name, value) = value.split_once("]:").unwrap();
        let (name, _) = name.split_once('[').unwrap();
        if value != "null" {
            found.insert(name, value.trim_matches('\'').to_owned());
        }
    }
    let (_, columns) = TABLES.iter().find(|(name, _)| *name == table).unwrap();
    columns.iter().map(|name| found.remove(name)).collect()
}

/// A row as it became, where what the words call unchanged is what it was.
fn completed(was: &Row, is: Row) -> Row {
    let values = was.iter().zip(is).map(|(was, is)| match is {
        Some(is) if is == "unchanged-toast-datum" => was.clone(),
        is => is,
    });
    values.collect()
}

/// What each committed transaction that changed anything left, by the words of `test_decoding`.
fn replay(mut world: World, words: &str) -> Vec<World> {
    let mut worlds = vec![world.clone()];
    let mut is_changed = false;
    for line in words.lines() {
        if line.starts_with("COMMIT") {
            if std::mem::take(&mut is_changed) {
                worlds.push(world.clone());
            }
            continue;
        }
        let Some(rest) = line.strip_prefix("table public.") else {
            continue;
        };
        let (names, rest) = rest.split_once(": ").unwrap();
        if let Some(rest) = rest.strip_prefix("TRUNCATE") {
            assert!(rest.contains("flags"), "{line}");
            for name in names.split(", ") {
                world
                    .get_mut(name.trim_start_matches("public."))
                    .unwrap()
                    .clear();
            }
            is_changed = true;
            continue;
        }
        let Some(rows) = world.get_mut(names) else {
            continue;
        };
        is_changed = true;
        // Where only the key of the old row is told, every other value is missing.
        let mut remove = |row: &Row| {
            let is_it = |other: &Row| other == row || names != "visits" && other[0] == row[0];
            let place = rows.iter().position(is_it);
            rows.swap_remove(place.unwrap_or_else(|| panic!("no such row: {line}")))
        };
        match rest.split_once(": ").unwrap() {
            ("INSERT", row) => rows.push(values(names, row)),
            ("DELETE", row) => drop(remove(&values(names, row))),
            ("UPDATE", rows_of) => {
                let (before, after) = match rows_of.strip_prefix("old-key: ") {
                    Some(both) => both.split_once(" new-tuple: ").unwrap(),
                    None => (rows_of, rows_of),
                };
                let was = remove(&values(names, before));
                rows.push(completed(&was, values(names, after)));
            }
            other => panic!("{other:?}"),
        }
    }
    worlds
}

/// Whose each row is, by walking.
fn by_tenant(world: &World) -> BTreeMap<String, Rows> {
    let owner_of = |table: &str, row: &Row| -> Option<String> {
        let up = |table: &str, id: &Option<String>| {
            let rows = world[table].iter();
            rows.into_iter().find(|row| row[0] == *id).cloned()
        };
        let project = match table {
            "visits" => return row[0].clone(),
            "projects" => row.clone(),
            "issues" => up("projects", &row[1])?,
            _ => up("projects", &up("issues", &row[1])?[1])?,
        };
        project[1].clone()
    };
    let mut tenants: BTreeMap<String, Rows> = BTreeMap::new();
    for (table, rows) in world {
        for row in rows {
            if let Some(owner) = owner_of(table, row) {
                let tables = tenants.entry(owner).or_default();
                tables.entry(table.clone()).or_default().push(row.clone());
            }
        }
    }
    for rows in tenants.values_mut().flat_map(BTreeMap::values_mut) {
        rows.sort();
    }
    tenants
}

/// Runs a script to its end, whatever fails in it.
fn write(database: &TestDatabase<'_>, script: &str) {
    let mut psql = database.cluster().command("psql").unwrap();
    psql.args(["-X", "-q", "-d", database.name(), "-f", "-"]);
    psql.stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut psql = psql.spawn().unwrap();
    let mut input = psql.stdin.take().unwrap();
    input.write_all(script.as_bytes()).unwrap();
    drop(input);
    assert!(psql.wait().unwrap().success());
}

fn check_history(seed: u64) {
    let database = shared_cluster().unwrap().fresh_database().unwrap();
    database.psql(SCHEMA).unwrap();
    database
        .psql([WHOLE, BY_KEY][usize::try_from(seed % 2).unwrap()])
        .unwrap();
    let name = database.name();
    database
        .psql(&format!(
            "ALTER DATABASE {name} SET logical_decoding_work_mem = '64kB'"
        ))
        .unwrap();
    let store = open(&database.url());
    let slot = format!("witness_{}", database.name());
    database
        .psql(&format!(
            "SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')"
        ))
        .unwrap();
    let base = world(&database);
    let mut followed = Followed::begin(&store);
    followed.compared = Some(&TABLES);
    let followed = followed;
    for long in [
        "INSERT INTO comments VALUES (500, 1, repeat('long', 1000))",
        "UPDATE comments SET issue_id = 2 WHERE id = 500",
        "UPDATE comments SET id = 501 WHERE id = 500",
    ] {
        database.psql(long).unwrap();
    }
    // From here on the log has what the store says of its tables, and goes on over changes of them.
    followed.follow(&store, 1 << 20);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let script = script(seed, writer, 12);
            let database = &database;
            scope.spawn(move || write(database, &script));
        }
        // Followed while they write, run by run.
        for _ in 0..3 {
            followed.follow(&store, 300);
        }
    });
    followed.follow(&store, 1 << 20);
    let words = database
        .psql(&format!(
            "SELECT data FROM pg_logical_slot_get_changes('{slot}', NULL, NULL, 'include-xids', '0', 'skip-empty-xacts', '1')"
        ))
        .unwrap();
    database
        .psql(&format!("SELECT pg_drop_replication_slot('{slot}')"))
        .unwrap();
    assert!(words.contains("unchanged-toast-datum"));
    let sent_early = "SELECT sum(t.stream_txns) > 5 FROM pg_stat_replication_slots t
        JOIN pg_replication_slots s USING (slot_name) WHERE s.database = current_database()";
    assert_eq!(database.psql(sent_early).unwrap(), "t");
    let worlds = replay(base, &words);
    let sorted = |mut world: World| {
        world.values_mut().for_each(|rows| rows.sort());
        world
    };
    let last = worlds.last().unwrap().clone();
    assert_eq!(sorted(last), sorted(world(&database)));
    assert!(worlds.len() > 15, "{} transactions", worlds.len());
    let states: Vec<_> = worlds.iter().map(by_tenant).collect();
    followed.check(&TENANTS, &states);
    reinstate_core::FeedSource::end_feed(&store, super::SNAPSHOT).unwrap();
}

/// A witness that knows nothing of this project decodes the same transactions.
#[test]
fn every_tenant_at_every_commit_of_many_writers_is_what_another_decoder_says() {
    for seed in seeds(2) {
        println!("seed {seed}");
        check_history(seed);
    }
}

/// A snapshot that was made of a log lacks what the store said of its tables, which the log has.
#[test]
fn a_follower_goes_on_from_a_snapshot_that_was_made_of_its_log() {
    let database = shared_cluster().unwrap().fresh_database().unwrap();
    database.psql(SCHEMA).unwrap();
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
    let (context, repository) = (followed.context(), &followed.repository);
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
    let rows = followed.rows(&log, log.through(), "1");
    let ids = rows["projects"].iter().map(|row| row[0].clone().unwrap());
    assert!(
        ids.clone().any(|id| id == "103"),
        "{:?}",
        ids.collect::<Vec<_>>()
    );
    reinstate_core::FeedSource::end_feed(&store, super::SNAPSHOT).unwrap();
}
