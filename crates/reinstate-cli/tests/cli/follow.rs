//! Following a live database, and going back to any moment of its log.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::ground::Ground;
use crate::sandbox::outcome;

/// Orders belong to accounts by a column, their items by way of the order. Two tables log their old rows by
/// the primary key, as tables do of themselves.
const SCHEMA: &str = "\
CREATE TABLE accounts (id int PRIMARY KEY, name text);
CREATE TABLE orders (id int PRIMARY KEY, account_id int NOT NULL, note text);
CREATE TABLE items (id int PRIMARY KEY, order_id int NOT NULL REFERENCES orders ON DELETE CASCADE, what text);
CREATE TABLE visits (account_id int NOT NULL, page text);
ALTER TABLE items REPLICA IDENTITY FULL;
ALTER TABLE visits REPLICA IDENTITY FULL;
INSERT INTO accounts SELECT n, 'a' || n FROM generate_series(1, 3) n;
INSERT INTO orders SELECT n, n % 3 + 1, 'o' || n FROM generate_series(1, 30) n;
INSERT INTO items SELECT n, n % 30 + 1, 'i' || n FROM generate_series(1, 90) n;
INSERT INTO visits SELECT n % 3 + 1, 'same' FROM generate_series(1, 9) n;
";

const SECTIONS: &str = "\
[tenancy]
kind = \"account\"
column = \"account_id\"
[tenancy.table.accounts]
column = \"id\"
[tenancy.table.items]
via = \"order_id -> orders.id\"
";

/// Everything of the database, with what tells rows apart that are equal.
const ALL: &str = "\
SELECT 'accounts', a::text FROM accounts a UNION ALL SELECT 'orders', o::text FROM orders o
UNION ALL SELECT 'items', i::text FROM items i UNION ALL SELECT 'visits', v::text FROM visits v ORDER BY 1, 2";

fn of_account(account: i32) -> String {
    format!(
        "SELECT 'a', a::text FROM accounts a WHERE id = {account} UNION ALL
         SELECT 'o', o::text FROM orders o WHERE account_id = {account} UNION ALL
         SELECT 'i', i::text FROM items i JOIN orders o ON o.id = order_id WHERE account_id = {account} UNION ALL
         SELECT 'v', v::text FROM visits v WHERE account_id = {account} ORDER BY 1, 2"
    )
}

fn followed() -> Ground {
    let ground = Ground::prepared(SCHEMA, SECTIONS);
    let first = ground.sandbox.run(&["capture", "follow", "--once"]);
    first.done(&["captured"]);
    ground
}

impl Ground {
    fn follow(&self) {
        let followed = self.sandbox.run(&["capture", "follow", "--once"]);
        followed.done(&["sealed"]);
    }

    fn now(&self) -> String {
        self.psql("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
    }

    fn restore_at(&self, at: &str, options: &[&str]) -> crate::sandbox::Run {
        let what = ["restore", "account:1", "--at", at, "--confirm", "account:1"];
        self.sandbox.run(&[&what[..], options].concat())
    }
}

#[test]
fn an_account_goes_back_to_a_moment_between_two_transactions() {
    let ground = followed();
    ground.psql(
        "INSERT INTO orders VALUES (101, 1, 'new'); INSERT INTO items VALUES (201, 101, 'new')",
    );
    ground.psql("UPDATE orders SET note = 'changed' WHERE id = 3; DELETE FROM items WHERE id = 2");
    ground.psql("INSERT INTO visits VALUES (1, 'same'), (1, 'last'); DELETE FROM visits WHERE account_id = 1 AND page = 'last'");
    let before = ground.psql(&of_account(1));
    let at = ground.now();
    // The incident: every order of the account, its items with them, and what it visited.
    ground.psql("DELETE FROM orders WHERE account_id = 1; DELETE FROM visits WHERE account_id = 1; UPDATE accounts SET name = 'gone' WHERE id = 1");
    ground.psql(
        "INSERT INTO orders VALUES (102, 2, 'later'); INSERT INTO items VALUES (202, 102, 'later')",
    );
    ground.follow();
    let others = ground.psql(
        &[of_account(2), of_account(3)]
            .map(|sql| format!("({sql})"))
            .join(" UNION ALL "),
    );
    let restored = ground.restore_at(&at, &[]);
    restored.done(&["restored"]);
    assert!(
        restored.stderr.contains("last commit in it"),
        "{restored:?}"
    );
    assert_eq!(ground.psql(&of_account(1)), before);
    let after = ground.psql(
        &[of_account(2), of_account(3)]
            .map(|sql| format!("({sql})"))
            .join(" UNION ALL "),
    );
    assert_eq!(after, others);
    ground.restore_at(&at, &[]).done(&["no change"]);
}

#[test]
fn every_commit_can_be_gone_back_to_by_its_position_and_just_before_it() {
    let ground = followed();
    let mut moments = Vec::new();
    for number in 0..4 {
        ground.psql(&format!(
            "UPDATE orders SET note = 'n{number}' WHERE account_id = 1"
        ));
        moments.push((
            ground.psql("SELECT pg_current_wal_insert_lsn()"),
            ground.psql(&of_account(1)),
        ));
    }
    ground.follow();
    for (lsn, expected) in &moments {
        ground.restore_at(&format!("lsn:{lsn}"), &[]).done(&[]);
        assert_eq!(&ground.psql(&of_account(1)), expected);
    }
    let records = ground.sandbox.json(&[
        "diff",
        &format!("account:1@lsn:{}", moments[0].0),
        &format!("account:1@lsn:{}", moments[1].0),
    ]);
    let diff: Vec<_> = records
        .records()
        .into_iter()
        .filter(|record| record["type"] == "table_diff" && record["table"] == "orders")
        .collect();
    assert_eq!(diff[0]["changed"], 10, "{diff:?}");
}

#[test]
fn rows_that_moved_to_another_account_are_there_where_they_were_at_the_time() {
    let ground = followed();
    let before = [ground.psql(&of_account(1)), ground.psql(&of_account(2))];
    let lsn = ground.psql("SELECT pg_current_wal_insert_lsn()");
    ground.psql("UPDATE orders SET account_id = 2 WHERE account_id = 1");
    ground.follow();
    let at = format!("lsn:{lsn}");
    let export = ground
        .sandbox
        .run(&["export", &format!("account:1@{at}:items")]);
    assert_eq!(export.stdout.lines().count(), 30, "{export:?}");
    let export = ground
        .sandbox
        .run(&["export", &format!("account:2@{at}:items")]);
    assert_eq!(export.stdout.lines().count(), 30, "{export:?}");
    let log_end = ground.psql("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name LIKE 'reinstate%' AND database = current_database()");
    let export = ground
        .sandbox
        .run(&["export", &format!("account:2@lsn:{log_end}:items")]);
    assert_eq!(export.stdout.lines().count(), 60, "{export:?}");
    ground.psql("UPDATE orders SET account_id = 1 WHERE id % 3 = 0");
    assert_eq!(
        [ground.psql(&of_account(1)), ground.psql(&of_account(2))],
        before
    );
}

#[test]
fn what_the_log_does_not_cover_is_refused_with_the_nearest_points() {
    let ground = Ground::captured(SCHEMA, SECTIONS);
    let between = ground.now();
    ground
        .sandbox
        .run(&["capture", "follow", "--once", "--new-base"])
        .done(&["captured"]);
    ground
        .restore_at(&between, &[])
        .refused(7, &["between", "--at snap:"]);
    let later = ground.now();
    ground.psql("UPDATE orders SET note = 'x' WHERE id = 1");
    ground.restore_at(&later, &[]).refused(
        7,
        &["after what the change log has so far", "--nearest-before"],
    );
    ground.follow();
    ground.restore_at(&later, &[]).done(&[]);
    ground
        .restore_at("2020-01-01T00:00Z", &[])
        .refused(7, &["before the first snapshot"]);
    let window = ground.sandbox.run(&["window", "account:1"]);
    window.done(&["gap", "1 gap that cannot be gone back to"]);
    ground.sandbox.run(&["status"]).done(&["published through"]);
    // What it takes to follow is told to who may.
    ground.as_owner();
    ground.sandbox.run(&["doctor"]).done(&[
        "it is followed",
        "old rows      2 tables of",
        "KiB log them whole",
        "; 2 tables of",
        "KiB by their keys",
    ]);
    ground
        .sandbox
        .run(&["verify"])
        .done(&["of its log", "intact"]);
}

#[test]
fn a_younger_snapshot_is_made_of_the_log_without_the_store() {
    let ground = followed();
    ground.psql("UPDATE orders SET note = 'first' WHERE account_id = 1");
    ground.follow();
    ground
        .sandbox
        .run(&["capture", "compact"])
        .done(&["captured"]);
    ground
        .sandbox
        .run(&["capture", "compact"])
        .done(&["no younger one to make"]);
    let expected = ground.psql(&of_account(1));
    let at = ground.now();
    ground.psql("DELETE FROM orders WHERE account_id = 1");
    ground.follow();
    ground.restore_at(&at, &[]).done(&["restored"]);
    assert_eq!(ground.psql(&of_account(1)), expected);
    let snapshots = ground.sandbox.json(&["snapshots"]).records();
    assert_eq!(snapshots.len(), 2, "{snapshots:?}");
}

#[test]
fn an_account_is_copied_as_it_was_at_a_commit() {
    let ground = followed();
    ground.psql("UPDATE orders SET note = 'then' WHERE id = 3; DELETE FROM orders WHERE id = 6");
    let notes = "SELECT note FROM orders WHERE account_id = ACCOUNT ORDER BY note";
    let expected = ground.psql(&notes.replace("ACCOUNT", "1"));
    let lsn = ground.psql("SELECT pg_current_wal_insert_lsn()");
    ground.psql("DELETE FROM orders WHERE account_id = 1");
    ground.follow();
    let at = format!("lsn:{lsn}");
    let into = [
        "restore",
        "account:1",
        "--at",
        &at,
        "--into",
        "side:9",
        "--yes",
    ];
    ground.sandbox.run(&into).done(&["created"]);
    assert_eq!(ground.psql(&notes.replace("ACCOUNT", "9")), expected);
    assert_eq!(ground.psql(&notes.replace("ACCOUNT", "1")), "");
}

#[test]
fn a_table_that_was_written_anew_ends_the_log_and_a_new_one_starts() {
    let ground = followed();
    ground.psql("UPDATE orders SET note = 'kept' WHERE id = 1");
    ground.follow();
    // The new values are in no change that the server hands out.
    ground.psql(
        "ALTER TABLE orders ADD COLUMN extra timestamptz DEFAULT clock_timestamp();
         UPDATE orders SET note = 'x' WHERE id = 1",
    );
    let ended = ground.sandbox.run(&["capture", "follow", "--once"]);
    ended.refused(7, &["ENDS here", "--new-base"]);
    ground
        .sandbox
        .run(&["capture", "follow", "--once", "--new-base"])
        .done(&["captured"]);
    ground.psql("UPDATE orders SET note = 'y' WHERE id = 1");
    ground.follow();
    assert_eq!(ground.psql("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'reinstate%' AND database = current_database()"), "1");
}

#[test]
fn a_table_without_a_replica_identity_is_named_and_the_application_is_not_harmed() {
    let ground = Ground::prepared(
        &format!("{SCHEMA}ALTER TABLE visits REPLICA IDENTITY DEFAULT;"),
        SECTIONS,
    );
    let refused = ground.sandbox.run(&["capture", "follow", "--once"]);
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(
        refused.stderr.contains("visits") && refused.stderr.contains("REPLICA IDENTITY FULL"),
        "{refused:?}"
    );
    let doctor = ground.sandbox.run(&["doctor"]);
    doctor.done(&["could not be followed", "REPLICA IDENTITY FULL"]);
    // With a publication over it, this would fail.
    ground.psql("UPDATE visits SET page = 'x' WHERE account_id = 1; DELETE FROM visits");
    assert_eq!(
        ground
            .psql("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"),
        "0"
    );
}

#[test]
fn a_follower_that_is_killed_and_started_again_loses_and_doubles_nothing() {
    let ground = followed();
    let mut expected = Vec::new();
    for round in 0..6 {
        let mut child = ground
            .sandbox
            .command_of(&["capture", "follow", "--every", "1", "--mark-every", "1"])
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_millis(300 + 350 * round);
        while Instant::now() < until {
            ground.psql("INSERT INTO visits SELECT n % 3 + 1, clock_timestamp()::text FROM generate_series(1, 5) n");
            ground.psql("UPDATE orders SET note = note || '.' WHERE id % 7 = 0");
        }
        // SIGKILL, wherever it is.
        child.kill().unwrap();
        child.wait().unwrap();
        expected.push((
            ground.psql("SELECT pg_current_wal_insert_lsn()"),
            ground.psql(&of_account(1)),
        ));
    }
    ground.follow();
    for (lsn, expected) in &expected {
        ground.restore_at(&format!("lsn:{lsn}"), &[]).done(&[]);
        assert_eq!(&ground.psql(&of_account(1)), expected);
    }
    assert!(!ground.psql(ALL).is_empty());
}

/// Ends what others do when it is dropped, by a failed assertion too.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// However busy the store is: what was committed before it began is in the log, and it ends.
#[test]
fn following_once_ends_behind_what_was_committed_before_it_began() {
    let ground = followed();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&is_over);
        for writer in 0..2 {
            let (ground, is_over) = (&ground, &is_over);
            scope.spawn(move || {
                let mut id = 1_000 + writer;
                while !is_over.load(Ordering::Relaxed) {
                    let inserts: String = (0..50)
                        .map(|_| {
                            id += 2;
                            format!("INSERT INTO orders VALUES ({id}, 1, 'busy');")
                        })
                        .collect();
                    ground.psql(&inserts);
                }
            });
        }
        for _ in 0..5 {
            let before = ground.psql("SELECT pg_current_wal_insert_lsn()");
            let runs = ground.sandbox.json(&["capture", "follow", "--once"]);
            let through = runs
                .records()
                .iter()
                .filter_map(|record| record["through"].as_str())
                .next_back()
                .map(|through| through.trim_start_matches("lsn:").to_owned());
            let compare = format!("SELECT '{}'::pg_lsn >= '{before}'", through.unwrap());
            assert_eq!(ground.psql(&compare), "t");
        }
    });
}

/// A transaction that comes before its commit needs room in the spill directory.
#[test]
fn a_long_transaction_for_which_there_is_no_room_is_said_and_comes_again() {
    let ground = Ground::prepared(
        "CREATE TABLE orders (id int PRIMARY KEY, account_id int NOT NULL, note text);
         ALTER TABLE orders REPLICA IDENTITY FULL;",
        "[tenancy]\nkind = \"account\"\ncolumn = \"account_id\"\n",
    );
    let name = ground.database.name();
    ground.psql(&format!(
        "ALTER DATABASE {name} SET logical_decoding_work_mem = '64kB'"
    ));
    let begun = ground.sandbox.run(&["capture", "follow", "--once"]);
    begun.done(&["captured"]);
    ground.psql("INSERT INTO orders VALUES (1, 1, 'before')");
    ground
        .psql("INSERT INTO orders SELECT n, 1, repeat('x', 1000) FROM generate_series(2, 8000) n");
    // No file may be longer than 2 MiB, or 4, as the shell counts it.
    let plain = ground.sandbox.command_of(&["capture", "follow", "--once"]);
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 4096; exec \"$@\"", "sh"])
        .arg(plain.get_program())
        .args(plain.get_args())
        .current_dir(plain.get_current_dir().unwrap());
    outcome(&mut limited).refused(
        1,
        &["spill directory", "no room", "Nothing is lost", "make room"],
    );
    ground.follow();
    let log_end = ground.psql("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name LIKE 'reinstate%' AND database = current_database()");
    let export = ground
        .sandbox
        .run(&["export", &format!("account:1@lsn:{log_end}:orders")]);
    assert_eq!(export.stdout.lines().count(), 8000);
}

#[test]
fn younger_snapshots_are_made_while_following_as_often_as_is_configured() {
    let sections = format!("{SECTIONS}[capture]\nbase_every = \"1m\"\n");
    let ground = Ground::prepared(SCHEMA, &sections);
    let first = ground.sandbox.run(&["capture", "follow", "--once"]);
    first.done(&["captured"]);
    let mut child = ground
        .sandbox
        .command_of(&["capture", "follow", "--every", "1", "--mark-every", "1"])
        .spawn()
        .unwrap();
    let mut number = 0;
    let snapshots = || ground.sandbox.json(&["snapshots"]).records().len();
    while snapshots() < 2 && number < 600 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_secs(1));
        number += 1;
        ground.psql(&format!(
            "UPDATE orders SET note = 'n{number}' WHERE id = 3"
        ));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(snapshots(), 2);
    let at = ground.now();
    let expected = ground.psql(&of_account(1));
    ground.psql("DELETE FROM orders WHERE account_id = 1");
    ground.follow();
    ground.restore_at(&at, &[]).done(&["restored"]);
    assert_eq!(ground.psql(&of_account(1)), expected);
    ground.sandbox.run(&["verify"]).done(&["intact"]);
}
