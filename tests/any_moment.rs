//! The incident at a moment that no snapshot knows: a followed pgbench database under load, one branch
//! deleted by a bad script, an hour of work that goes on, and the branch brought back to one second
//! before, and to just before that very transaction, while the others keep writing.

#[expect(dead_code, reason = "other tests of this package use the rest")]
mod support;

use std::fs;
use std::ops::RangeInclusive;

use reinstate_testkit::cluster::{PostgresCluster, shared_cluster};
use support::following::{
    follow, one_second_before, restore_to_before_removal, restore_to_time, stop,
};
use support::pgbench::{Ledger, TABLES, branch, load_of, number_after};
use support::{Shell, readme_block};

const BRANCHES: RangeInclusive<u32> = 1..=8;
const VICTIM: u32 = 7;

/// What pgbench keeps true, account by account: every balance is what history says was added to it, and
/// nobody's row is in another branch or gone. Anything else is a line.
const UNBALANCED: &str = "\
SELECT 'account', aid, bid FROM pgbench_accounts
  LEFT JOIN (SELECT aid, bid, sum(delta) AS written FROM pgbench_history GROUP BY 1, 2) h USING (aid, bid)
 WHERE abalance <> coalesce(written, 0) OR bid <> (aid - 1) / 100000 + 1
UNION ALL SELECT 'teller', tid, bid FROM pgbench_tellers
  LEFT JOIN (SELECT tid, bid, sum(delta) AS written FROM pgbench_history GROUP BY 1, 2) h USING (tid, bid)
 WHERE tbalance <> coalesce(written, 0) OR bid <> (tid - 1) / 10 + 1
UNION ALL SELECT 'branch', bid, bid FROM pgbench_branches
  LEFT JOIN (SELECT bid, sum(delta) AS written FROM pgbench_history GROUP BY 1) h USING (bid)
 WHERE bbalance <> coalesce(written, 0)
UNION ALL SELECT 'rows', (SELECT count(*) FROM pgbench_accounts), (SELECT count(*) FROM pgbench_tellers)
 WHERE (SELECT count(*) FROM pgbench_accounts) <> 800000
    OR (SELECT count(*) FROM pgbench_tellers) <> 80 OR (SELECT count(*) FROM pgbench_branches) <> 8";

/// How many transactions wrote rows of other branches and accounts of the victim, by table. No script
/// of the load writes to two branches: it would be a restore.
fn foreign_rows(cluster: &PostgresCluster, database: &str) -> String {
    let count = |table: &str| {
        let sql = format!(
            "SELECT count(*) FROM (SELECT xmin::text FROM {table} WHERE bid <> {VICTIM} INTERSECT \
             SELECT xmin::text FROM pgbench_accounts WHERE bid = {VICTIM}) AS writers"
        );
        cluster.psql(database, &sql).expect("look for foreign rows")
    };
    TABLES.map(count).join(" ")
}

/// Which versions of the victim's rows there are: a row that is written again, the same, is another.
fn versions(cluster: &PostgresCluster, database: &str) -> String {
    let digest = |table: &str| {
        let sql = format!(
            "SELECT md5(string_agg(ctid || ' ' || xmin, ' ' ORDER BY ctid)) FROM {table} WHERE bid = {VICTIM}"
        );
        cluster.psql(database, &sql).expect("look at versions")
    };
    TABLES.map(digest).join(" ")
}

/// The document that the quickstart of the README writes, between marks of this name.
fn quickstart_part(mark: &str) -> String {
    let block = readme_block("## PostgreSQL quickstart", "sh");
    let (_, rest) = block.split_once(&format!("<<'{mark}'\n")).expect("a mark");
    let (part, _) = rest.split_once(&format!("\n{mark}\n")).expect("its end");
    part.to_owned()
}

/// The incident as the project tells it: a bad script at a known moment, an hour of the others' work
/// (in three thousand transactions), and a restore to one second before, under load. Of everybody's
/// transactions that were committed and reported, none is lost.
#[test]
fn a_branch_goes_back_to_one_second_before_it_was_deleted_and_no_transaction_is_lost() {
    let cluster = shared_cluster().expect("a PostgreSQL server");
    let database = cluster.fresh_database().expect("a database");
    let name = database.name();
    let shell = Shell::new(cluster).with_database(name);
    let others = || BRANCHES.filter(|&bid| bid != VICTIM);
    let mut ledger = Ledger::default();
    let victim = || branch(cluster, name, VICTIM);
    let history = |which: &str| {
        let sql = format!("SELECT count(*) FROM pgbench_history WHERE bid {which} {VICTIM}");
        let count = cluster.psql(name, &sql).expect("count history");
        count.parse::<u64>().expect("a number")
    };
    shell.run("pgbench --initialize --scale 8 --quiet \"$DATABASE\"");
    // History has no key, and of all accounts a follower would make a copy first.
    let whole = "ALTER TABLE pgbench_history REPLICA IDENTITY FULL;
                 ALTER TABLE pgbench_accounts REPLICA IDENTITY FULL";
    cluster.psql(name, whole).expect("write whole rows");
    let file = shell.directory().join("reinstate.toml");
    fs::write(file, quickstart_part("TOML")).expect("write a file");
    shell.run("reinstate init && reinstate guard install && reinstate doctor");

    // The base is taken under load, and the load goes on while it is followed.
    let load = load_of(&shell, BRANCHES, "--client 4 --rate 250 --time 5");
    let load = shell.spawn(&load);
    let follower = follow(&shell);
    let more = load_of(&shell, BRANCHES, "--client 2 --transactions 300");
    ledger.add(&shell.run(&more));
    ledger.add(&load.wait());
    ledger.check(cluster, name);
    let before = victim();
    let lines_before = history("=");

    // From here on the others work without a pause, until they are told that it is enough.
    let load = load_of(&shell, others(), "--client 2 --rate 200 --transactions 100");
    let load = shell.spawn(&format!(
        "until test -e enough; do {load}; done > reports 2>&1"
    ));
    let moment = one_second_before(cluster, name);
    let script = quickstart_part("SQL");
    cluster.psql(name, &script).expect("delete a branch");
    assert_eq!(history("="), 0);
    let hour = load_of(&shell, others(), "--client 3 --transactions 1000");
    ledger.add(&shell.run(&hour));

    let worked = history("<>");
    let said = restore_to_time(&shell, "account:7", &moment);
    assert!(said.contains("1 of 1 tenant restored and proven"), "{said}");
    assert!(history("<>") > worked, "nobody wrote during the restore");
    assert_eq!(victim(), before, "{said}");
    assert_eq!(foreign_rows(cluster, name), "0 0 0 0");
    let as_restored = versions(cluster, name);
    let said = restore_to_time(&shell, "account:7", &moment);
    assert!(said.contains("nothing to change"), "{said}");
    assert_eq!(versions(cluster, name), as_restored, "{said}");

    // The branch works again with all others, until the same happens in one transaction.
    ledger.add(&shell.run(&more));
    let before = victim();
    let script = format!("BEGIN; {script} COMMIT");
    cluster.psql(name, &script).expect("delete a branch");
    let worked = history("<>");
    let said = restore_to_before_removal(&shell, "account:7", 6);
    assert!(said.contains("1 of 1 tenant restored and proven"), "{said}");
    assert!(history("<>") > worked, "nobody wrote during the restore");
    assert_eq!(victim(), before, "{said}");
    fs::write(shell.directory().join("enough"), "").expect("write a file");
    let (code, _) = load.end();
    let reports = fs::read_to_string(shell.directory().join("reports")).expect("read a file");
    assert_eq!(code, Some(0), "{reports}");
    ledger.add(&reports);
    stop(&shell, follower);
    ledger.check(cluster, name);
    assert_eq!(cluster.psql(name, UNBALANCED).expect("compare"), "");
    assert_eq!(foreign_rows(cluster, name), "0 0 0 0");
    assert_eq!(victim(), before);

    // The log has all that as well, and began before the work that came back.
    shell.run("reinstate capture follow --once");
    let window = shell.run("reinstate window account:7 --json");
    let rows = 100_011 + history("=");
    assert_eq!(number_after(&window, "\"rows_at_end\":"), rows, "{window}");
    let at_start = number_after(&window, "\"rows_at_start\":");
    assert!(at_start < 100_011 + lines_before, "{window}");
    let end = window.split("\"to_position\":\"").last().expect("the end");
    let end = end.split('"').next().expect("a position");
    for bid in [1, VICTIM, 8] {
        let same = shell.run(&format!("reinstate diff account:{bid}@{end} live"));
        assert!(same.contains("no difference"), "{bid}: {same}");
    }
    shell.run("reinstate verify");
}

const CONFIGURATION: &str = r#"
version = 1
[repository]
url = "file://./repository"
[store]
name = "shop"
kind = "postgres"
unguarded = true
url = { env = "DATABASE_URL" }
[tenancy]
kind = "account"
column = "account"
"#;

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
    let drift = "[tenancy.table.orders]\nvia = \"customer -> customers.id\"\n\
                 [drift.table.customers]\ndropped = [\"note\"]\n\
                 [drift.table.visits]\nvalues = { at = \"5\" }\n";
    let file = shell.directory().join("reinstate.toml");
    fs::write(file, format!("{CONFIGURATION}{drift}")).expect("write a file");
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
