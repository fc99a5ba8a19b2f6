//! What a plan says of the world around the tenant's rows: rows of everybody that they refer to,
//! rows of others, and what happens by itself when they are written.

use crate::ground::Ground;

const SCHEMA: &str = "\
CREATE TABLE currencies (code text, kind text, name text, PRIMARY KEY (code, kind));
CREATE TABLE users (id int PRIMARY KEY, account_id int, name text);
CREATE TABLE orders (id int PRIMARY KEY, account_id int NOT NULL, currency text, kind text,
                     seller_id int REFERENCES users,
                     FOREIGN KEY (currency, kind) REFERENCES currencies);
INSERT INTO currencies SELECT 'C' || n, 'k', 'c' || n FROM generate_series(1, 9) n;
INSERT INTO users SELECT n, nullif(n % 4, 3), 'u' || n FROM generate_series(1, 40) n;
INSERT INTO orders SELECT n, n % 3, 'C' || n % 9 + 1, CASE WHEN n % 2 = 0 THEN 'k' END, n % 40 + 1
  FROM generate_series(1, 90) n;
";

const TENANCY: &str = "\
[tenancy]
kind = \"account\"
column = \"account_id\"
shared = [\"currencies\"]
";

fn captured() -> Ground {
    Ground::captured(SCHEMA, TENANCY)
}

fn orders(ground: &Ground) -> String {
    ground.psql("SELECT t.* FROM orders t WHERE account_id = 1 ORDER BY id")
}

#[test]
fn a_row_of_everybody_that_is_gone_stops_the_plan_that_needs_it() {
    let ground = captured();
    let before = orders(&ground);
    ground.psql("DELETE FROM orders WHERE account_id = 1");
    let gone = ground.psql("SELECT t.* FROM orders t ORDER BY id");
    ground.psql("UPDATE orders SET currency = 'C1' WHERE currency = 'C5'");
    ground.psql("DELETE FROM currencies WHERE code = 'C5'");
    let run = ground.restore(&[]);
    // Orders 4, 22, 40, 58 and 76 have the currency; those with a NULL in the key do not refer.
    let note = "refuse   account:1: orders.currency,kind -> currencies leads to rows that are gone \
                (C5,k): create them first (5 rows)";
    assert!(run.stdout.contains(note), "{run:?}");
    run.refused(
        1,
        &["leads to rows that are gone (C5,k)", "Nothing was written"],
    );
    assert_eq!(
        ground.psql("SELECT t.* FROM orders t WHERE account_id = 1"),
        ""
    );
    assert!(!gone.is_empty());
    ground.psql("INSERT INTO currencies VALUES ('C5', 'k', 'again')");
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(orders(&ground), before);
}

#[test]
fn rows_of_other_tenants_that_are_referred_to_are_noted() {
    let ground = captured();
    let before = orders(&ground);
    ground.psql("DELETE FROM orders WHERE account_id = 1");
    let run = ground.sandbox.json(&[
        "plan",
        "account:1",
        "--at",
        "latest",
        "--nearest-before",
        "--out",
        "plan",
    ]);
    let note = run.record("plan_note");
    assert_eq!(note["kind"], "parent_foreign");
    assert_eq!(note["tenant"], "account:1");
    assert_eq!(note["object"], "orders.seller_id -> users");
    assert_eq!(note["obstacle"], false);
    // Of 30 orders, those whose seller is of account 0 or 2; sellers without an account are
    // everybody's.
    let crossing = "SELECT count(*) FROM orders o JOIN users u ON u.id = o.seller_id
                     WHERE o.account_id = 1 AND u.account_id <> 1";
    ground.restore(&[]).done(&[
        "restored",
        "note     account:1: orders.seller_id -> users leads",
    ]);
    assert_eq!(orders(&ground), before);
    assert_eq!(note["rows"].to_string(), ground.psql(crossing));
}

#[test]
fn triggers_that_would_fire_are_listed_and_only_allowed_ones_do() {
    let ground = captured();
    let before = orders(&ground);
    ground.psql(
        "CREATE TABLE audit (what text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO public.audit VALUES (TG_OP); RETURN NULL; END $$;
         CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
         CREATE TRIGGER harmless BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION keep();
         CREATE TRIGGER on_delete AFTER DELETE ON orders FOR EACH ROW EXECUTE FUNCTION note();",
    );
    ground.configure(&format!("{TENANCY}excluded = [\"audit\"]\n"));
    ground.psql(
        "ALTER TABLE orders DISABLE TRIGGER ALL; DELETE FROM orders WHERE account_id = 1;
                 ALTER TABLE orders ENABLE TRIGGER ALL",
    );
    let run = ground.restore(&[]);
    let note = "refuse   account:1: trigger or rule orders.harmless would fire";
    assert!(run.stdout.contains(note), "{run:?}");
    assert!(!run.stdout.contains("on_delete"), "{run:?}");
    run.refused(1, &["orders.harmless would fire", "allowed_triggers"]);
    assert_eq!(orders(&ground), "");
    let allowed =
        format!("{TENANCY}excluded = [\"audit\"]\nallowed_triggers = [\"orders.harmless\"]\n");
    ground.configure(&allowed);
    let note = "note     trigger or rule orders.harmless fires, as allowed_triggers lets it";
    ground.restore(&[]).done(&[note, "restored"]);
    assert_eq!(orders(&ground), before);
}

/// What a plan for account 1 notes of a kind.
fn notes(ground: &Ground, kind: &str) -> Vec<(String, String, u64)> {
    let file = ground.sandbox.path("noted.plan");
    let _ = std::fs::remove_file(&file);
    let arguments = ["plan", "account:1", "--at", "latest", "--nearest-before"];
    let run = ground
        .sandbox
        .json(&[&arguments[..], &["--out", "noted.plan"]].concat());
    let notes = run
        .records()
        .into_iter()
        .filter(|record| record["type"] == "plan_note" && record["kind"] == kind);
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    notes
        .map(|note| {
            let rows = note["rows"].as_u64().unwrap();
            (text(&note["object"]), text(&note["detail"]), rows)
        })
        .collect()
}

#[test]
fn rows_of_everybody_that_changed_are_noted_if_rows_to_be_written_refer_to_them() {
    let ground = captured();
    let before = orders(&ground);
    let sellers = "SELECT count(*) FROM users u WHERE u.account_id IS NULL
          AND u.id IN (SELECT seller_id FROM orders WHERE account_id = 1 AND id IN (4, 31, 34))";
    let everybodys: u64 = ground.psql(sellers).parse().unwrap();
    assert_eq!(everybodys, 1, "an order has a seller of everybody's");
    assert!(notes(&ground, "parent_changed").is_empty());
    // Order 4 has C5 and seller 5; 31 has C5 and no kind, so that it refers to no currency, and
    // seller 32; 34 has C8 and seller 35, who is everybody's.
    ground.psql("DELETE FROM orders WHERE id IN (4, 31, 34)");
    ground.psql("UPDATE currencies SET name = 'other' WHERE code IN ('C1', 'C2', 'C5')");
    let of_currencies = |ground: &Ground, detail: &str, rows: u64| {
        let notes = notes(ground, "parent_changed");
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert_eq!((notes[0].0.as_str(), notes[0].2), ("currencies", rows));
        assert!(notes[0].1.contains(detail), "{notes:?}");
    };
    of_currencies(&ground, ": 1 hold something else in name", 1);
    ground.psql("UPDATE currencies SET name = 'other' WHERE code = 'C8'");
    of_currencies(&ground, ": 2 hold something else in name", 2);
    // A column that nobody had is not a difference; one that is gone cannot be compared.
    ground.psql("ALTER TABLE currencies ADD COLUMN rate numeric DEFAULT 1.5");
    ground.psql("UPDATE currencies SET rate = 2 WHERE code <> 'C5'");
    of_currencies(&ground, ": 2 hold something else in name", 2);
    ground.psql("UPDATE currencies SET name = 'c8' WHERE code = 'C8'");
    of_currencies(&ground, ": 1 hold something else in name", 1);
    ground.psql("ALTER TABLE currencies DROP COLUMN name");
    of_currencies(&ground, "are not compared", 0);
    // A row of everybody in a table of tenants, and one of a tenant's, which is its own business.
    ground.psql("UPDATE users SET name = 'renamed' WHERE id IN (5, 35)");
    let found = notes(&ground, "parent_changed");
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!((found[1].0.as_str(), found[1].2), ("users", 1));
    ground.restore(&[]).done(&[
        "note     account:1: users holds rows of everybody",
        "restored",
    ]);
    assert_eq!(orders(&ground), before);
    // Seller 5 is the tenant's own.
    let names = ground.psql("SELECT name FROM users WHERE id IN (5, 35) ORDER BY id");
    assert_eq!(names, "u5\nrenamed");
}

#[test]
fn a_row_of_everybody_that_was_made_anew_is_not_the_one_in_the_snapshot() {
    let schema = "\
CREATE TABLE plans (id int PRIMARY KEY, code text UNIQUE NOT NULL);
CREATE TABLE sites (id int PRIMARY KEY, account_id int NOT NULL, plan text REFERENCES plans (code));
INSERT INTO plans VALUES (1, 'basic'), (2, 'pro');
INSERT INTO sites SELECT n, n % 3, CASE n % 2 WHEN 0 THEN 'basic' ELSE 'pro' END
  FROM generate_series(1, 12) n;
";
    let tenancy = "\
[tenancy]
kind = \"account\"
column = \"account_id\"
shared = [\"plans\"]
";
    let ground = Ground::captured(schema, tenancy);
    ground.psql(
        "DELETE FROM sites WHERE account_id = 1; UPDATE sites SET plan = 'pro';
         DELETE FROM plans WHERE code = 'basic'; INSERT INTO plans VALUES (9, 'basic')",
    );
    let found = notes(&ground, "parent_changed");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].0.as_str(), found[0].2), ("plans", 1));
    assert!(
        found[0].1.ends_with("1 are not in the snapshot"),
        "{found:?}"
    );
    ground.restore(&[]).done(&["restored"]);
}

/// Relations of every kind that is no ordinary table.
const OTHERS: &str = "\
CREATE TABLE notes (id int PRIMARY KEY, text text);
CREATE VIEW busy AS SELECT id, account_id, seller_id FROM orders;
CREATE MATERIALIZED VIEW sums AS SELECT account_id, count(*) FROM busy GROUP BY 1;
CREATE MATERIALIZED VIEW texts AS SELECT * FROM notes;
CREATE UNLOGGED TABLE sessions (id int PRIMARY KEY, account_id int NOT NULL);
CREATE UNLOGGED TABLE scratch (id int);
CREATE EXTENSION file_fdw;
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE imported (id int) SERVER files OPTIONS (filename '/dev/null');
INSERT INTO sessions SELECT n, n % 3 FROM generate_series(1, 9) n;
";

#[test]
fn relations_that_are_no_tables_are_named_with_what_becomes_of_them() {
    let tenancy = "\
[tenancy]
kind = \"account\"
column = \"account_id\"
shared = [\"currencies\", \"notes\"]
excluded = [\"scratch\"]
crossing = [\"orders.seller_id\"]
";
    let ground = Ground::captured(&format!("{SCHEMA}{OTHERS}"), tenancy);
    assert!(
        notes(&ground, "other_relations").is_empty(),
        "nothing changes"
    );
    ground.psql("DELETE FROM orders WHERE account_id = 1; DELETE FROM sessions");
    let said = [
        "materialised views sums are computed from tables that a restore changes",
        "other materialised views texts are computed from nothing that a restore changes",
        "foreign tables imported hold rows of another server",
        "unlogged tables sessions are captured and restored like others",
        "views busy hold no rows",
    ];
    let found = notes(&ground, "other_relations");
    assert_eq!(found.len(), said.len(), "{found:?}");
    for ((object, detail, _), said) in found.iter().zip(said) {
        let line = format!("{object} {detail}");
        assert!(line.starts_with(said), "{line} is not {said}");
    }
    let check = ground.sandbox.run(&["tenancy", "check"]);
    check.done(&said);
    let suggest = ground.sandbox.run(&["tenancy", "suggest"]);
    suggest.done(&[
        "views busy hold no rows",
        "unlogged tables scratch, sessions",
    ]);
    ground
        .restore(&[])
        .done(&["note     materialised views sums", "restored"]);
    // A view of another table has nothing to refresh.
    ground.psql("UPDATE sessions SET id = id + 100 WHERE account_id = 1");
    let found = notes(&ground, "other_relations");
    assert_eq!(found[0].0, "other materialised views sums, texts");
}

#[test]
fn a_table_with_a_partition_on_another_server_is_not_written() {
    let schema = "\
CREATE TABLE logs (id int, account_id int NOT NULL) PARTITION BY LIST (account_id);
CREATE TABLE logs_1 PARTITION OF logs FOR VALUES IN (1, 2);
CREATE TABLE orders (id int PRIMARY KEY, account_id int NOT NULL);
CREATE EXTENSION file_fdw;
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE logs_9 PARTITION OF logs FOR VALUES IN (9)
    SERVER files OPTIONS (filename '/dev/null');
INSERT INTO logs SELECT n, n % 2 + 1 FROM generate_series(1, 9) n;
INSERT INTO orders SELECT n, n % 2 + 1 FROM generate_series(1, 9) n;
";
    let tenancy = "[tenancy]\nkind = \"account\"\ncolumn = \"account_id\"\n";
    let ground = Ground::captured(schema, tenancy);
    ground.psql("DELETE FROM orders WHERE account_id = 1");
    ground.restore(&[]).done(&["restored"]);
    ground.psql("DELETE FROM logs WHERE account_id = 1");
    let run = ground.restore(&[]);
    let note = "refuse   account:1: foreign partitions logs_9 lie on another server";
    assert!(run.stdout.contains(note), "{run:?}");
    run.refused(1, &["foreign partitions logs_9", "Detach them"]);
    ground.psql("ALTER TABLE logs DETACH PARTITION logs_9");
    let what = ["plan", "account:1", "--at", "latest", "--nearest-before"];
    ground
        .sandbox
        .run(&[&what[..], &["--out", "logs.plan"]].concat())
        .done(&[]);
    ground.psql("ALTER TABLE logs ATTACH PARTITION logs_9 FOR VALUES IN (9)");
    let run = ground.sandbox.run(&["apply", "logs.plan", "--yes"]);
    run.refused(1, &["foreign partitions logs_9"]);
    ground.psql("ALTER TABLE logs DETACH PARTITION logs_9");
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(ground.psql("SELECT count(*) FROM logs"), "9");
}
