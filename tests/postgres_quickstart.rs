//! The README's PostgreSQL quickstart, run as it stands there; and the same incident under load.

#[expect(dead_code, reason = "other tests of this package use the rest")]
mod support;

use std::fs;

use reinstate_testkit::cluster::shared_cluster;
use support::pgbench::{TABLES, branch, number_after};
use support::{Shell, readme_block};

#[test]
fn the_quickstart_of_the_readme_restores_branch_7() {
    let cluster = shared_cluster().expect("a PostgreSQL server");
    let shell = Shell::new(cluster);
    let output = shell.run(&readme_block("## PostgreSQL quickstart", "sh"));
    assert!(output.contains("restored"), "{output}");
    let count = cluster
        .psql(
            "shop",
            "SELECT count(*) FROM pgbench_accounts WHERE bid = 7",
        )
        .expect("count accounts");
    assert_eq!(count.trim(), "100000");
}

/// The incident that the project exists for, at a small scale: other branches go on working, one
/// is deleted from all tables, and it is brought back from under them.
#[test]
fn a_branch_is_restored_while_the_others_keep_writing() {
    let cluster = shared_cluster().expect("a PostgreSQL server");
    let database = cluster.fresh_database().expect("a database");
    let name = database.name();
    let shell = Shell::new(cluster).with_database(name);
    shell.run("pgbench --initialize --scale 20 --quiet \"$DATABASE\"");
    // Some history of every branch, duplicates among it, before the snapshot.
    cluster
        .psql(
            name,
            "INSERT INTO pgbench_history SELECT 1 + n % 200, 1 + n % 20, 1 + n % 2000000, n % 7, \
             '2026-04-05 07:38:00', NULL FROM generate_series(1, 4000) AS n; \
             INSERT INTO pgbench_history SELECT * FROM pgbench_history WHERE bid = 7 LIMIT 50",
        )
        .expect("write history");
    fs::write(shell.directory().join("reinstate.toml"), CONFIGURATION).expect("write a file");
    fs::write(shell.directory().join("others.sql"), OTHERS_WRITE).expect("write a file");
    shell.run("reinstate init && reinstate capture once");
    let before = branch(cluster, name, 7);

    // The load writes to every branch but the seventh, and says how many transactions it made.
    let load = shell.spawn(
        "pgbench --no-vacuum --file others.sql --client 3 --rate 200 --time 25 \"$DATABASE\"",
    );
    let delete: String = TABLES
        .iter()
        .rev()
        .map(|table| format!("DELETE FROM {table} WHERE bid = 7;"))
        .collect();
    cluster.psql(name, &delete).expect("delete a branch");
    let output = shell.run("reinstate restore account:7 --at latest --confirm account:7");
    assert!(output.contains("restored"), "{output}");
    assert_eq!(
        branch(cluster, name, 7),
        before,
        "branch 7 is not what it was"
    );

    let report = load.wait();
    let processed = number_after(&report, "number of transactions actually processed: ");
    assert!(processed > 0, "{report}");
    assert_eq!(
        number_after(&report, "number of failed transactions: "),
        0,
        "{report}"
    );
    // Each of the load's transactions added 1 to an account, a teller and a branch and left a
    // line of history: what the others hold is exactly that.
    for (table, column) in [
        ("pgbench_accounts", "abalance"),
        ("pgbench_tellers", "tbalance"),
        ("pgbench_branches", "bbalance"),
    ] {
        let sql = format!("SELECT sum({column}) FROM {table} WHERE bid <> 7");
        let sum = cluster.psql(name, &sql).expect("sum balances");
        assert_eq!(sum.trim(), processed.to_string(), "{table}");
    }
    let history = cluster
        .psql(
            name,
            "SELECT count(*) FROM pgbench_history WHERE bid <> 7 AND filler = 'load'",
        )
        .expect("count history");
    assert_eq!(history.trim(), processed.to_string());
    // Restored once, there is nothing left to do.
    let again = shell.run("reinstate restore account:7 --at latest --yes");
    assert!(again.contains("nothing to change"), "{again}");
    assert_eq!(
        branch(cluster, name, 7),
        before,
        "a second run changed branch 7"
    );
}

/// What would make a snapshot or a restore silently wrong is refused, and says what to do.
#[test]
fn what_cannot_be_captured_or_restored_whole_is_refused() {
    let cluster = shared_cluster().expect("a PostgreSQL server");
    let database = cluster.fresh_database().expect("a database");
    let name = database.name();
    let role = format!("reader_{name}");
    let sql = format!(
        "CREATE TABLE orders (id bigint PRIMARY KEY, account_id bigint NOT NULL, note text); \
         INSERT INTO orders SELECT n, 1 + n % 3, 'x' FROM generate_series(1, 30) AS n; \
         CREATE ROLE {role} LOGIN; GRANT SELECT ON orders TO {role}; \
         ALTER TABLE orders ENABLE ROW LEVEL SECURITY; \
         CREATE POLICY own ON orders USING (account_id = 1)"
    );
    cluster.psql(name, &sql).expect("make tables");
    let shell = Shell::new(cluster).with_database(name);
    let configuration = CONFIGURATION
        .split_once("[tenancy.table")
        .map_or(CONFIGURATION, |(head, _)| head)
        .replace("[tenancy]", "[tenancy]\ncolumn = \"account_id\"");
    fs::write(shell.directory().join("reinstate.toml"), configuration).expect("write a file");
    shell.run("reinstate init && reinstate capture once");
    let capture_as =
        format!("DATABASE_URL=\"${{DATABASE_URL%user=*}}user={role}\" reinstate capture once");
    for (script, code, words) in [
        // Row-level security would hide rows of this role without a word.
        (capture_as.as_str(), 1, ["row", "orders"]),
        (
            "reinstate plan site:1 --at latest --out a.plan",
            2,
            ["kind", "account"],
        ),
        (
            "reinstate plan account:9 --at latest --out a.plan",
            8,
            ["account:9", "no row"],
        ),
        (
            "reinstate plan account:x --at latest --out a.plan",
            8,
            ["account:x", "no row"],
        ),
        (
            ": | reinstate plan --tenants-from - --at latest --out a.plan",
            2,
            ["empty", "tenant"],
        ),
        (
            "reinstate plan account:1 --at 2020-01-01T00:00Z --out a.plan",
            7,
            ["2020", "snap"],
        ),
    ] {
        let (found, text) = shell.fail(script);
        assert_eq!(found, Some(code), "{script}\n{text}");
        for word in words {
            assert!(text.contains(word), "{script}: no {word:?} in\n{text}");
        }
        assert!(
            !shell.directory().join("a.plan").exists(),
            "{script} left a plan"
        );
    }
    cluster
        .psql(name, "CREATE TABLE surprise (id bigint PRIMARY KEY)")
        .expect("make a table");
    let (code, text) = shell.fail("reinstate capture once");
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("surprise"), "{text}");
    cluster
        .psql(name, "DROP TABLE surprise")
        .expect("drop a table");

    // A plan whose tenant moved since is refused, and nothing of it is written.
    cluster
        .psql(name, "DELETE FROM orders WHERE account_id = 2")
        .expect("delete");
    shell.run("reinstate plan account:2 --at latest --out moved.plan");
    cluster
        .psql(name, "INSERT INTO orders VALUES (100, 2, 'new')")
        .expect("insert");
    let (code, text) = shell.fail("reinstate apply moved.plan --yes");
    assert_eq!(code, Some(6), "{text}");
    let rows = cluster.psql(name, "SELECT count(*) FROM orders WHERE account_id = 2");
    assert_eq!(rows.expect("count").trim(), "1");
    // An id that somebody else has taken meanwhile is a conflict, and never overwritten.
    cluster
        .psql(
            name,
            "DELETE FROM orders WHERE id = 100; INSERT INTO orders VALUES (1, 3, 'theirs')",
        )
        .expect("take an id");
    let (code, text) = shell.fail("reinstate restore account:2 --at latest --confirm account:2");
    assert_eq!(code, Some(5), "{text}");
    assert!(!text.contains("theirs"), "{text}");
    let rows = cluster.psql(name, "SELECT note FROM orders WHERE id = 1");
    assert_eq!(rows.expect("read").trim(), "theirs");
}

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
kind = "account"
[tenancy.table.pgbench_branches]
column = "bid"
[tenancy.table.pgbench_tellers]
column = "bid"
[tenancy.table.pgbench_accounts]
column = "bid"
[tenancy.table.pgbench_history]
column = "bid"
"#;

/// A transaction of some branch that is not the seventh: pgbench's own, with 1 as the amount.
const OTHERS_WRITE: &str = r"
\set bid random(8, 26)
\set bid 1 + mod(:bid - 1, 20)
\set aid (:bid - 1) * 100000 + random(1, 100000)
\set tid (:bid - 1) * 10 + random(1, 10)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + 1 WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + 1 WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime, filler)
  VALUES (:tid, :bid, :aid, 1, CURRENT_TIMESTAMP, 'load');
END;
";
