//! How often a plan asks a PostgreSQL server about a table: as its log counts.

#[expect(dead_code, reason = "other tests of this package use the rest")]
mod support;

use std::fs;

use reinstate_testkit::cluster::{ClusterOptions, PostgresCluster};
use support::Shell;

const CONFIGURATION: &str = r#"
version = 1
[repository]
url = "file:repository"
[store]
name = "shop"
kind = "postgres"
unguarded = true
url = { env = "DATABASE_URL" }
[tenancy]
kind = "account"
column = "account_id"
shared = ["currencies"]
"#;

/// No index but those that keys need.
const TABLES: &str = "
    CREATE TABLE currencies (code text PRIMARY KEY);
    CREATE TABLE customers (id bigint PRIMARY KEY, account_id bigint NOT NULL, email text UNIQUE);
    CREATE TABLE orders (id bigint PRIMARY KEY, account_id bigint NOT NULL,
        customer_id bigint NOT NULL REFERENCES customers,
        currency text NOT NULL REFERENCES currencies, note text NOT NULL);
    INSERT INTO currencies VALUES ('EUR'), ('USD');
";

/// Statements with parameters that a restore of so many rows takes, which is how rows are sent with a
/// question: those that look at rows of the application.
fn questions(cluster: &PostgresCluster, rows: u32) -> usize {
    let database = cluster.fresh_database().expect("a database");
    database
        .psql(&format!(
            "{TABLES}
             INSERT INTO customers SELECT n, n % 2, 'c' || n FROM generate_series(1, {rows}) n;
             INSERT INTO orders SELECT n, n % 2, n, 'EUR', repeat('x', 200)
               FROM generate_series(1, {rows}) n;"
        ))
        .expect("make tables");
    let shell = Shell::new(cluster).with_database(database.name());
    fs::write(shell.directory().join("reinstate.toml"), CONFIGURATION).expect("write a file");
    shell.run("reinstate init && reinstate capture once");
    database
        .psql("DELETE FROM orders WHERE account_id = 1; DELETE FROM customers WHERE account_id = 1")
        .expect("delete an account");
    let before = cluster.log().expect("the log").len();
    let said = shell.run("reinstate restore account:1 --at latest --confirm account:1");
    assert!(said.contains("restored and proven"), "{said}");
    let log = cluster.log().expect("the log");
    let statements = log[before..]
        .lines()
        .filter(|line| line.contains("FROM unnest("));
    // Those that look at a moved or a left row are not made here: nothing is left.
    statements.filter(|line| line.contains("text[]")).count()
}

#[test]
fn a_table_is_asked_about_as_often_however_many_rows_come_back() {
    let options = ClusterOptions::fast().with("log_statement", "all");
    let cluster = PostgresCluster::start(&options).expect("a server");
    let few = questions(&cluster, 400);
    let many = questions(&cluster, 12_000);
    assert!(few > 0, "nothing was asked");
    assert_eq!(few, many);
}
