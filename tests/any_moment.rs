//! The incident at a moment that no snapshot knows: a followed pgbench database under load, one branch
//! deleted by a bad script, work that goes on, and the branch brought back to just before that
//! transaction while the others keep writing.

#[expect(dead_code, reason = "other tests of this package use the rest")]
mod support;

use std::fs;

use reinstate_testkit::cluster::{PostgresCluster, shared_cluster};
use support::Shell;

const TABLES: [&str; 4] = [
    "pgbench_history",
    "pgbench_accounts",
    "pgbench_tellers",
    "pgbench_branches",
];

/// pgbench's own transaction, of any branch.
const ALL_WRITE: &str = r"
\set bid random(1, 10)
\set aid (:bid - 1) * 100000 + random(1, 100000)
\set tid (:bid - 1) * 10 + random(1, 10)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
END;
";

const CONFIGURATION: &str = r#"
version = 1
[repository]
url = "file://./repository"
[store]
name = "bank"
kind = "postgres"
unguarded = true
url = { env = "DATABASE_URL" }
[tenancy]
kind = "branch"
column = "bid"
"#;

fn digest(cluster: &PostgresCluster, database: &str, bid: u32) -> Vec<String> {
    let of_table = |table: &&str| {
        let sql = format!(
            "SELECT count(*), md5(string_agg(row, E'\\n' ORDER BY row)) \
             FROM (SELECT t::text AS row FROM {table} t WHERE bid = {bid}) AS rows"
        );
        cluster.psql(database, &sql).expect("digest a branch")
    };
    TABLES.iter().map(of_table).collect()
}

/// What pgbench keeps true: every balance of a branch is the sum of its history.
fn unbalanced(cluster: &PostgresCluster, database: &str) -> String {
    let sql = "SELECT b.bid FROM pgbench_branches b WHERE bbalance <> (SELECT coalesce(sum(delta), 0) FROM pgbench_history h WHERE h.bid = b.bid) \
               OR bbalance <> (SELECT sum(tbalance) FROM pgbench_tellers t WHERE t.bid = b.bid) \
               OR bbalance <> (SELECT sum(abalance) FROM pgbench_accounts a WHERE a.bid = b.bid)";
    cluster.psql(database, sql).expect("compare balances")
}

#[test]
fn a_branch_goes_back_to_just_before_the_transaction_that_deleted_it() {
    let cluster = shared_cluster().expect("a PostgreSQL server");
    let database = cluster.fresh_database().expect("a database");
    let name = database.name();
    let shell = Shell::new(cluster).with_database(name);
    shell.run("pgbench --initialize --scale 10 --quiet \"$DATABASE\"");
    let identities: String = TABLES
        .iter()
        .map(|table| format!("ALTER TABLE {table} REPLICA IDENTITY FULL;"))
        .collect();
    cluster.psql(name, &identities).expect("write whole rows");
    fs::write(shell.directory().join("reinstate.toml"), CONFIGURATION).expect("write a file");
    fs::write(shell.directory().join("all.sql"), ALL_WRITE).expect("write a file");
    let others = ALL_WRITE.replace(
        "\\set bid random(1, 10)",
        "\\set bid random(8, 16)\n\\set bid 1 + mod(:bid - 1, 10)",
    );
    fs::write(shell.directory().join("others.sql"), others).expect("write a file");
    shell.run("reinstate init");

    // The base is taken under load, and the load goes on while it is followed.
    let load = shell
        .spawn("pgbench --no-vacuum --file all.sql --client 4 --rate 250 --time 12 \"$DATABASE\"");
    let follower = shell.spawn(
        "reinstate capture follow --every 1 & echo $! > follower; wait $! || test $? -eq 130",
    );
    load.wait();
    let expected = digest(cluster, name, 7);
    let incident: String = TABLES
        .iter()
        .map(|table| format!("DELETE FROM {table} WHERE bid = 7;"))
        .collect();
    cluster
        .psql(name, &format!("BEGIN;{incident}COMMIT"))
        .expect("delete a branch");

    // Work of the others goes on, then and while the branch is restored.
    let load = shell.spawn(
        "pgbench --no-vacuum --file others.sql --client 4 --rate 250 --time 25 \"$DATABASE\"",
    );
    let found = shell.run(
        "for i in $(seq 60); do \
           reinstate diff branch:7@latest live --json > diff.json; \
           if grep '\"type\":\"transaction\".*\"removed\":1[0-9][0-9][0-9][0-9][0-9]' diff.json; then break; fi; \
           sleep 0.5; \
         done",
    );
    let position = found
        .split("\"position\":\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap_or_else(|| panic!("no transaction in {found}"));
    let restored = shell.run(&format!(
        "reinstate restore branch:7 --at {position} --exclusive --confirm branch:7"
    ));
    assert!(restored.contains("restored"), "{restored}");
    assert_eq!(digest(cluster, name, 7), expected, "{restored}");
    let report = load.wait();
    assert!(
        report.contains("number of failed transactions: 0"),
        "{report}"
    );
    shell.run("kill -s INT $(cat follower)");
    follower.wait();
    assert_eq!(unbalanced(cluster, name), "");
    assert_eq!(digest(cluster, name, 7), expected);

    // What came after the restore is in the log as well: the branch is there at its end.
    shell.run("reinstate capture follow --once");
    let window = shell.run("reinstate window branch:7 --json");
    assert!(window.contains("\"rows_at_end\":100"), "{window}");
    shell.run("reinstate verify");
}

const SHOP: &str = "\
CREATE TABLE customers (id int PRIMARY KEY, account int NOT NULL, name text, note text);
CREATE TABLE orders (id int PRIMARY KEY, customer int NOT NULL REFERENCES customers, total int);
CREATE TABLE visits (account int, page text);
INSERT INTO customers SELECT n, n % 3, 'customer ' || n, 'note ' || n FROM generate_series(1, 30) n;
INSERT INTO orders SELECT n, 1 + n % 30, n FROM generate_series(1, 90) n;
INSERT INTO visits SELECT n % 3, 'page' FROM generate_series(1, 9) n;
";

/// All rows of a tenant of the shop.
fn shop_of(cluster: &PostgresCluster, database: &str, account: u32) -> String {
    let rows = format!(
        "SELECT string_agg(row, E'\\n' ORDER BY row) FROM (
            SELECT c::text AS row FROM customers c WHERE account = {account}
            UNION ALL SELECT o::text FROM orders o JOIN customers c ON c.id = o.customer
                       WHERE c.account = {account}
            UNION ALL SELECT v::text FROM visits v WHERE account = {account}) AS rows"
    );
    cluster.psql(database, &rows).expect("read a tenant")
}

#[test]
fn a_tenant_goes_back_to_before_during_and_after_migrations() {
    let cluster = shared_cluster().expect("a PostgreSQL server");
    let database = cluster.fresh_database().expect("a database");
    let name = database.name();
    let shell = Shell::new(cluster).with_database(name);
    let psql = |sql: &str| cluster.psql(name, sql).expect("a statement");
    psql(SHOP);
    for table in ["customers", "orders", "visits"] {
        psql(&format!("ALTER TABLE {table} REPLICA IDENTITY FULL"));
    }
    let configuration = CONFIGURATION
        .replace("\"branch\"", "\"account\"")
        .replace("\"bid\"", "\"account\"");
    let drift = "[tenancy.table.orders]\nvia = \"customer -> customers.id\"\n\
                 [drift.table.customers]\ndropped = [\"note\"]\n\
                 [drift.table.visits]\nvalues = { at = \"5\" }\n";
    let file = shell.directory().join("reinstate.toml");
    fs::write(file, format!("{configuration}{drift}")).expect("write a file");
    shell.run("reinstate init && reinstate capture follow --once");
    let mut moments = Vec::new();
    for sql in [
        "UPDATE customers SET name = 'before' WHERE id < 10",
        "ALTER TABLE customers ADD COLUMN plan text NOT NULL DEFAULT 'free';
         UPDATE customers SET plan = 'paid' WHERE id % 2 = 0",
        "BEGIN; UPDATE orders SET total = 0 WHERE id < 20;
         ALTER TABLE orders ADD COLUMN currency varchar(3) DEFAULT 'EUR';
         UPDATE orders SET currency = 'USD' WHERE id > 80; COMMIT",
        "ALTER TABLE customers DROP COLUMN note; ALTER TABLE visits ADD COLUMN at int DEFAULT 5;
         INSERT INTO visits VALUES (1, 'late', 6);
         CREATE TABLE tags (id int PRIMARY KEY, account int, label text);
         ALTER TABLE tags REPLICA IDENTITY FULL;
         INSERT INTO tags SELECT n, n % 3, 'tag' FROM generate_series(1, 12) n",
        "UPDATE customers SET name = 'after' WHERE id < 5",
    ] {
        psql(sql);
        // Some while it is followed, and two at once.
        if moments.len() != 2 {
            let said = shell.run("reinstate capture follow --once");
            let is_altered = [1, 3].contains(&moments.len());
            assert_eq!(said.contains("tables   were altered"), is_altered, "{said}");
        }
        let position = psql("SELECT pg_current_wal_lsn()");
        moments.push((
            position,
            [1, 2].map(|account| shop_of(cluster, name, account)),
        ));
    }
    psql(
        "DELETE FROM orders WHERE customer IN (SELECT id FROM customers WHERE account = 1);
          DELETE FROM customers WHERE account = 1; DELETE FROM visits WHERE account = 1",
    );
    shell.run("reinstate capture follow --once");
    for is_compacted in [false, true] {
        for (place, (position, expected)) in moments.iter().enumerate().rev() {
            let restored = shell.run(&format!(
                "reinstate restore account:1 --at lsn:{position} --confirm account:1 --yes"
            ));
            assert!(restored.contains("restored"), "{place}: {restored}");
            let found = shop_of(cluster, name, 1);
            // What a later migration added holds its default, and what it dropped is gone.
            if place >= 3 {
                assert_eq!(found, expected[0], "{place}: {restored}");
                // A table that came with its rows.
                let tags = psql(
                    "SELECT string_agg(id::text, ' ' ORDER BY id) FROM tags WHERE account = 1",
                );
                assert_eq!(tags, "1 4 7 10", "{place}: {restored}");
            } else {
                let count = |text: &str| text.lines().count();
                assert_eq!(count(&found), count(&expected[0]), "{place}: {restored}");
            }
            let names = |text: &str| text.matches(",before,").count();
            assert_eq!(names(&found), names(&expected[0]), "{place}");
        }
        assert_eq!(shop_of(cluster, name, 2), moments[4].1[1]);
        if !is_compacted {
            let run = shell.run("reinstate capture follow --once && reinstate capture compact");
            assert!(run.contains("snapshot"), "{run}");
        }
    }
    let verified = shell.run("reinstate verify");
    assert!(!verified.contains("damage"), "{verified}");
}
