//! The tool on PostgreSQL: what it refuses, with which exit code and in which words.

#[expect(dead_code, reason = "other tests of this package use the rest")]
mod support;

use std::fs;

use reinstate_testkit::cluster::{PostgresCluster, TestDatabase, shared_cluster};
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
"#;

const TABLES: &str = "\
    CREATE TABLE customers (id bigint PRIMARY KEY, account_id bigint NOT NULL, name text); \
    CREATE TABLE orders (id bigint PRIMARY KEY, account_id bigint NOT NULL, \
        customer_id bigint NOT NULL REFERENCES customers, total numeric NOT NULL); \
    INSERT INTO customers SELECT n, 1 + n % 5, 'customer ' || n FROM generate_series(1, 100) n; \
    INSERT INTO orders SELECT n, 1 + n % 5, 1 + (n - 1) % 100, n FROM generate_series(1, 500) n";

/// A database with two tables of five accounts, and a shell with a configuration for it.
fn shop(cluster: &PostgresCluster) -> (TestDatabase<'_>, Shell) {
    let database = cluster.fresh_database().expect("a database");
    database.psql(TABLES).expect("make tables");
    let shell = Shell::new(cluster).with_database(database.name());
    let path = shell.directory().join("reinstate.toml");
    fs::write(path, CONFIGURATION).expect("write a file");
    (database, shell)
}

/// Runs a command that must end with this exit code and say each of these.
#[track_caller]
fn refused(shell: &Shell, command: &str, code: u8, says: &[&str]) {
    let output = shell.run(&format!("{command} && exit 99; echo \"exit $?\""));
    assert!(output.contains(&format!("exit {code}\n")), "{output}");
    for text in says.iter().chain(&["error:", "next:"]) {
        assert!(output.contains(text), "no {text:?} in {output}");
    }
}

#[test]
fn a_table_without_an_owner_is_an_error_that_names_it() {
    let cluster = shared_cluster().expect("a PostgreSQL server");
    let (database, shell) = shop(cluster);
    database
        .psql("CREATE TABLE notes (id bigint PRIMARY KEY)")
        .expect("make a table");
    refused(&shell, "reinstate init", 2, &["notes", "classify"]);
    refused(&shell, "reinstate capture once", 2, &["notes"]);
    refused(&shell, "reinstate doctor", 2, &["FAIL", "notes"]);
    assert!(!shell.run("reinstate snapshots").contains("shop"));
    let path = shell.directory().join("reinstate.toml");
    fs::write(path, format!("{CONFIGURATION}excluded = [\"notes\"]\n")).expect("write a file");
    shell.run("reinstate init && reinstate capture once && reinstate doctor");
}

#[test]
fn a_role_that_may_not_see_all_rows_captures_nothing() {
    let cluster = shared_cluster().expect("a PostgreSQL server");
    let (database, shell) = shop(cluster);
    shell.run("reinstate init");
    let role = format!("blind_{}", database.name());
    let sql = format!(
        "CREATE ROLE {role} LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; \
         GRANT USAGE ON SCHEMA public TO {role}; \
         ALTER TABLE orders ENABLE ROW LEVEL SECURITY; \
         CREATE POLICY own ON orders USING (account_id = 1)"
    );
    database.psql(&sql).expect("make a role");
    let as_role =
        |command: &str| format!("DATABASE_URL=${{DATABASE_URL/user=*/user={role}}} {command}");
    refused(&shell, &as_role("reinstate capture once"), 1, &["orders"]);
    assert!(!shell.run("reinstate snapshots").contains("shop"));
    database
        .psql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .expect("drop a role");
}

#[test]
fn a_server_that_is_not_there_is_unavailable_and_its_password_is_nobodys_business() {
    let cluster = shared_cluster().expect("a PostgreSQL server");
    let (_database, shell) = shop(cluster);
    shell.run("reinstate init && reinstate capture once");
    let gone = "DATABASE_URL='postgres://me:s3cret@127.0.0.1:1/shop?sslmode=disable'";
    for command in [
        "reinstate capture once",
        "reinstate doctor",
        "reinstate plan account:3 --at latest --out p",
        "reinstate --json capture once",
    ] {
        let output = shell.run(&format!("{gone} {command} && exit 99; echo \"exit $?\""));
        assert!(output.contains("exit 1\n"), "{output}");
        assert!(!output.contains("s3cret"), "{output}");
    }
    // What is in the repository can still be looked at.
    let output = shell.run(&format!("{gone} reinstate export account:3@latest:orders"));
    assert_eq!(
        output.matches("\"account_id\":\"3\"").count(),
        100,
        "{output}"
    );
}

#[test]
fn a_place_taken_by_another_tenant_is_a_conflict_and_is_never_overwritten() {
    let cluster = shared_cluster().expect("a PostgreSQL server");
    let (database, shell) = shop(cluster);
    shell.run("reinstate init && reinstate capture once");
    // Account 3 loses an order, and account 4 is given one of that very number.
    let sql = "DELETE FROM orders WHERE id = 2; INSERT INTO orders VALUES (2, 4, 3, 9)";
    database.psql(sql).expect("write");
    let taken = || {
        database
            .psql("SELECT * FROM orders WHERE id = 2")
            .expect("read")
    };
    let before = taken();
    let restore = "reinstate restore account:3 --at latest --yes";
    refused(
        &shell,
        restore,
        5,
        &["1 conflict", "orders id=2", "Nothing was written"],
    );
    let keep = format!("{restore} --on-conflict keep-live");
    refused(&shell, &keep, 4, &["left out"]);
    assert_eq!(taken(), before);
}

#[test]
fn a_trigger_that_changes_what_is_restored_is_refused() {
    let cluster = shared_cluster().expect("a PostgreSQL server");
    let (database, shell) = shop(cluster);
    shell.run("reinstate init && reinstate capture once");
    let sql = "CREATE FUNCTION one() RETURNS trigger LANGUAGE plpgsql AS \
               'BEGIN NEW.total := 1; RETURN NEW; END'; \
               CREATE TRIGGER renumber BEFORE INSERT ON orders \
               FOR EACH ROW EXECUTE FUNCTION one(); \
               DELETE FROM orders WHERE account_id = 3";
    database.psql(sql).expect("make a trigger");
    let count = || database.psql("SELECT count(*) FROM orders").expect("count");
    let before = count();
    refused(
        &shell,
        "reinstate restore account:3 --at latest --yes",
        1,
        &["renumber"],
    );
    assert_eq!(count(), before);
}

#[test]
fn the_synthetic_store_is_loaded_by_psql_and_restored() {
    let cluster = shared_cluster().expect("a PostgreSQL server");
    let database = cluster.fresh_database().expect("a database");
    let shell = Shell::new(cluster).with_database(database.name());
    let tables = "shared = [\"currencies\", \"plans\"]\n[tenancy.table.comments]\n\
                  via = \"issue_id -> issues.id\"\n";
    let path = shell.directory().join("reinstate.toml");
    fs::write(path, format!("{CONFIGURATION}{tables}")).expect("write a file");
    shell.run("reinstate generate --sql --tenants 10 --rows 5000 | psql --quiet \"$DATABASE\"");
    shell.run("reinstate init && reinstate doctor && reinstate capture once");
    let before = shell.run("reinstate export account:3@live");
    let sql = "DELETE FROM activity WHERE account_id = 3; \
               DELETE FROM comments WHERE issue_id IN (SELECT id FROM issues WHERE account_id = 3); \
               DELETE FROM issues WHERE account_id = 3; DELETE FROM members WHERE account_id = 3; \
               DELETE FROM projects WHERE account_id = 3";
    database.psql(sql).expect("delete");
    let restore = "reinstate restore account:3 --at latest --yes --prove-isolation";
    let output = shell.run(restore);
    assert!(output.contains("restored account:3"), "{output}");
    assert!(output.contains("hold the very same rows"), "{output}");
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(ToOwned::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(
        sorted(&shell.run("reinstate export account:3@live")),
        sorted(&before)
    );
}
