//! Transactions that come before they are committed: the server keeps 64 KiB of them.

use reinstate_core::{ErrorKind, FeedSource};
use reinstate_testkit::cluster::{ClusterOptions, Mode, PostgresCluster};

use super::session::Session;
use super::{FULL, Follower, SNAPSHOT, ground};
use crate::ground::{Ground, open_store};

const TABLES: &str = "\
CREATE TABLE t (id int PRIMARY KEY, account_id int, note text);
CREATE TABLE keyless (account_id int, note text);
CREATE TABLE other (id int PRIMARY KEY, account_id int);
INSERT INTO t SELECT n, n % 3, 'start' FROM generate_series(1, 50) n;
INSERT INTO keyless SELECT n % 3, 'k' FROM generate_series(1, 20) n;
";

/// Lets the server send what the transaction did so far.
const SEND: &str = "SELECT pg_logical_emit_message(true, 'padding', repeat('x', 70000));";

/// How many transactions the server sent before they were committed.
pub fn sent_early(ground: &Ground) -> u64 {
    let sql = "SELECT coalesce(sum(t.stream_txns), 0) FROM pg_stat_replication_slots t
                 JOIN pg_replication_slots s USING (slot_name)
                WHERE s.database = current_database()";
    ground.psql(sql).parse().unwrap()
}

/// About a megabyte of rows.
fn many(first: u32) -> String {
    format!(
        "INSERT INTO t SELECT n, n % 3, repeat('m', 900) FROM generate_series({first}, {first} + 999) n;"
    )
}

#[test]
fn transactions_that_overlap_come_whole_in_the_order_of_their_commits() {
    let ground = ground(TABLES);
    let mut follower = Follower::begin(&ground.store);
    let mut feed = follower.resume(&ground.store);
    let mut sessions = [(); 3].map(|()| Session::of(&ground));
    for session in &mut sessions {
        session.run("BEGIN");
    }
    for round in 0..3 {
        for (number, session) in (0..).zip(&mut sessions) {
            session.run(&many(10_000 * (number + 1) + 1_000 * round));
            session.run(&format!(
                "UPDATE t SET note = 's{number}' WHERE id % 10 = {number} AND id <= 50;
                 INSERT INTO keyless VALUES ({number}, 'r{round}'); {SEND}"
            ));
            // Others are done meanwhile, and known at once.
            ground.psql(&format!(
                "INSERT INTO other VALUES ({}, 1)",
                round * 10 + number
            ));
            follower.drain(feed.as_mut()).unwrap();
            assert_eq!(follower.counts.last(), Some(&[1, 0, 0, 0]));
        }
    }
    assert_eq!(follower.commits.len(), 9, "nothing of those that are open");
    sessions[2].run("COMMIT");
    sessions[0].run("ROLLBACK");
    ground.psql("DELETE FROM other WHERE id = 0");
    sessions[1].run("COMMIT");
    follower.drain(feed.as_mut()).unwrap();
    let expected = [[3003, 15, 0, 0], [0, 0, 1, 0], [3003, 15, 0, 0]];
    assert_eq!(follower.counts[9..], expected);
    follower.expect_live(&ground.store);
    assert_eq!(sent_early(&ground), 3);
    let progress = follower.drain(feed.as_mut()).unwrap();
    feed.acknowledge(progress.through).unwrap();
}

#[test]
fn what_is_rolled_back_to_a_savepoint_does_not_come_however_deep_it_was() {
    let ground = ground(TABLES);
    let mut follower = Follower::begin(&ground.store);
    let mut feed = follower.resume(&ground.store);
    let mut session = Session::of(&ground);
    let mut at = 1_000;
    // What each depth writes is more than waits in memory in one case, and less in another.
    for send_each in [true, false] {
        for back_to in 1..=5 {
            session.run("BEGIN; INSERT INTO other VALUES (1, 1);");
            for depth in 1..=5 {
                at += 1_000;
                session.run(&format!("SAVEPOINT s{depth}; {}", many(at)));
                session.run(&format!(
                    "UPDATE t SET note = 'd{depth}' WHERE id = {depth};"
                ));
                if send_each {
                    session.run(SEND);
                    follower.drain(feed.as_mut()).unwrap();
                }
                // One that is over, and goes with the one that it is in.
                session.run(
                    "SAVEPOINT within; DELETE FROM keyless WHERE account_id = 1; RELEASE within;",
                );
            }
            session.run(&format!("{SEND} ROLLBACK TO s{back_to}; {SEND}"));
            follower.drain(feed.as_mut()).unwrap();
            session.run("INSERT INTO keyless VALUES (1, 'after'); SAVEPOINT again;");
            session.run(&format!(
                "UPDATE t SET note = 'again' WHERE id = 40; {SEND} ROLLBACK TO again;"
            ));
            session.run(&format!("DELETE FROM other; {SEND} COMMIT"));
            follower.drain(feed.as_mut()).unwrap();
            follower.expect_live(&ground.store);
        }
    }
    assert_eq!(follower.commits.len(), 10);
    assert_eq!(sent_early(&ground), 10);
    // Nothing is left of this one: it does not come at all.
    session.run(&format!(
        "BEGIN; SAVEPOINT a; {} {SEND} ROLLBACK TO a; COMMIT",
        many(90_000)
    ));
    follower.drain(feed.as_mut()).unwrap();
    let last = *follower.counts.last().unwrap();
    assert!(follower.commits.len() == 10 || last == [0; 4], "{last:?}");
    follower.expect_live(&ground.store);
}

/// Statements of a transaction, with savepoints that are kept, left and gone back to.
fn random(seed: u64) -> String {
    let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |end: u64| {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % end
    };
    let (mut script, mut depth) = ("BEGIN;".to_owned(), 0);
    for number in 0..40 {
        let id = 1 + below(60);
        script += &match below(14) {
            0 | 1 => {
                depth += 1;
                format!("SAVEPOINT s{depth};")
            }
            2 | 3 if depth > 0 => {
                depth = 1 + below(depth);
                format!("ROLLBACK TO s{depth};")
            }
            4 if depth > 0 => {
                depth -= 1;
                format!("RELEASE s{};", depth + 1)
            }
            5 | 6 => SEND.to_owned(),
            7 => format!("DELETE FROM t WHERE id = {id};"),
            8 => format!("INSERT INTO keyless VALUES ({}, 'n{number}');", below(3)),
            9 => format!(
                "DELETE FROM keyless WHERE ctid IN (SELECT ctid FROM keyless WHERE account_id = {} LIMIT 2);",
                below(3)
            ),
            10 if below(4) == 0 => "TRUNCATE keyless;".to_owned(),
            11 => format!(
                "INSERT INTO t VALUES ({id}, {}, repeat('r', {})) ON CONFLICT (id) DO UPDATE SET id = t.id + 1000 * {seed};",
                below(3),
                below(3000)
            ),
            _ => format!(
                "UPDATE t SET note = 'u{number}', account_id = {} WHERE id = {id};",
                below(3)
            ),
        };
    }
    script + if below(6) == 0 { "ROLLBACK" } else { "COMMIT" }
}

#[test]
fn random_transactions_of_several_writers_come_as_they_were() {
    let ground = ground(TABLES);
    let mut follower = Follower::begin(&ground.store);
    let mut feed = follower.resume(&ground.store);
    for round in 0..6 {
        std::thread::scope(|scope| {
            for writer in 0..3 {
                let ground = &ground;
                scope.spawn(move || {
                    let mut session = Session::of(ground);
                    session.run("SET deadlock_timeout = '20ms'");
                    for number in 0..4 {
                        session.run(&random(1 + round * 100 + writer * 10 + number));
                        session.run("ROLLBACK");
                    }
                });
            }
            for _ in 0..4 {
                follower.drain(feed.as_mut()).unwrap();
            }
        });
        follower.drain(feed.as_mut()).unwrap();
        follower.expect_live(&ground.store);
    }
    assert!(sent_early(&ground) > 20, "{}", sent_early(&ground));
}

#[test]
fn a_reader_that_goes_away_in_the_middle_gets_all_of_it_again() {
    let ground = ground(TABLES);
    let mut follower = Follower::begin(&ground.store);
    let mut session = Session::of(&ground);
    session.run(&format!("BEGIN; {} {SEND}", many(1_000)));
    ground.psql("INSERT INTO other VALUES (1, 1)");
    // What was committed meanwhile is acknowledged, and what is open is not forgotten for it.
    follower.follow(&ground.store).unwrap();
    ground.psql("CHECKPOINT");
    session.run(&format!("{} {SEND}", many(2_000)));
    let mut feed = follower.resume(&ground.store);
    follower.drain(feed.as_mut()).unwrap();
    // The connection is cut, and the feed goes on by itself.
    ground.psql("SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE database = current_database()");
    session.run(&format!("{} {SEND}", many(3_000)));
    follower.drain(feed.as_mut()).unwrap();
    drop(feed);
    session.run(&many(4_000));
    follower.follow(&ground.store).unwrap();
    session.run("COMMIT");
    let (content, at, commits) = (
        follower.content.clone(),
        follower.at,
        follower.commits.len(),
    );
    let mut feed = follower.resume(&ground.store);
    follower.drain(feed.as_mut()).unwrap();
    follower.expect_live(&ground.store);
    assert_eq!(follower.counts[1..], [[4_000, 0, 0, 0]]);
    // It was not acknowledged, and comes again.
    drop(feed);
    (follower.content, follower.at) = (content, at);
    follower.commits.truncate(commits);
    follower.follow(&ground.store).unwrap();
    follower.expect_live(&ground.store);
    assert_eq!(follower.counts[2..], [[4_000, 0, 0, 0]]);
}

#[test]
fn a_transaction_that_altered_a_table_comes_with_the_tables_as_they_are_then() {
    for (inside, outside) in [
        ("ALTER TABLE t ADD COLUMN more int DEFAULT 5", "SELECT 1"),
        (
            "ALTER TABLE t DROP COLUMN note; ALTER TABLE t ADD COLUMN n int",
            "SELECT 1",
        ),
        (
            "SELECT 1",
            "ALTER TABLE other ADD COLUMN more text DEFAULT 'x'",
        ),
        (
            "ALTER TABLE t ADD COLUMN more text",
            "CREATE TABLE fresh (id int PRIMARY KEY, account_id int); ALTER TABLE fresh REPLICA IDENTITY FULL; INSERT INTO fresh VALUES (1, 1)",
        ),
        (
            "CREATE TABLE fresh (id int PRIMARY KEY, account_id int); ALTER TABLE fresh REPLICA IDENTITY FULL; INSERT INTO fresh VALUES (1, 1)",
            "SELECT 1",
        ),
        // Not kept: the table is as it was.
        (
            "SAVEPOINT a; ALTER TABLE t ADD COLUMN more int; UPDATE t SET more = 1 WHERE id = 2; ROLLBACK TO a",
            "SELECT 1",
        ),
    ] {
        let ground = ground(TABLES);
        let mut follower = Follower::begin(&ground.store);
        let mut feed = follower.resume(&ground.store);
        follower.drain(feed.as_mut()).unwrap();
        let mut session = Session::of(&ground);
        session.run(&format!("BEGIN; {} {SEND}", many(1_000)));
        ground.psql(&format!(
            "INSERT INTO other VALUES (1, 1); {outside}; INSERT INTO other VALUES (2, 2)"
        ));
        // Of an alteration that is under way nothing is certain, and nothing is said.
        session.run(&format!("{inside}; {SEND}"));
        session.run(&format!(
            "INSERT INTO t (id, account_id) VALUES (70, 1); DELETE FROM t WHERE id = 4; {SEND}"
        ));
        session.run("COMMIT");
        ground.psql(
            "UPDATE t SET account_id = 9 WHERE id IN (5, 1200); INSERT INTO other VALUES (3, 3)",
        );
        follower
            .drain(feed.as_mut())
            .unwrap_or_else(|error| panic!("{inside} / {outside}: {error}"));
        follower.expect_live(&ground.store);
        drop(feed);
        ground.psql("UPDATE t SET account_id = 8 WHERE id IN (6, 1300)");
        follower.follow(&ground.store).unwrap();
        follower.expect_live(&ground.store);
        assert!(sent_early(&ground) > 0);
    }
}

#[test]
fn a_prepared_transaction_that_came_early_waits_for_its_commit_over_a_crash() {
    let options = ClusterOptions::fast()
        .with("max_prepared_transactions", "5")
        .with("logical_decoding_work_mem", "64kB");
    let mut cluster = PostgresCluster::start(&options).unwrap();
    cluster.psql("postgres", TABLES).unwrap();
    cluster.psql("postgres", FULL).unwrap();
    let store = open_store(&cluster.url("postgres"), |_| {});
    let mut follower = Follower::begin(&store);
    let psql = |cluster: &PostgresCluster, sql: &str| cluster.psql("postgres", sql).unwrap();
    psql(
        &cluster,
        &format!("BEGIN; {} {SEND} PREPARE TRANSACTION 'a'", many(1_000)),
    );
    psql(
        &cluster,
        &format!("BEGIN; {} {SEND} PREPARE TRANSACTION 'b'", many(2_000)),
    );
    // One that the crash ends without a word.
    let mut lost = Session::open(&cluster, "postgres");
    lost.run(&format!("BEGIN; {} {SEND}", many(3_000)));
    follower.follow(&store).unwrap();
    psql(&cluster, "INSERT INTO other VALUES (1, 1)");
    follower.follow(&store).unwrap();
    cluster.stop(Mode::Immediate).unwrap();
    cluster.restart().unwrap();
    let mut feed = follower.resume(&store);
    follower.drain(feed.as_mut()).unwrap();
    assert_eq!(follower.counts, [[1, 0, 0, 0]]);
    psql(&cluster, "ROLLBACK PREPARED 'b'");
    psql(&cluster, "INSERT INTO other VALUES (2, 1)");
    psql(&cluster, "COMMIT PREPARED 'a'");
    let progress = follower.drain(feed.as_mut()).unwrap();
    feed.acknowledge(progress.through).unwrap();
    assert_eq!(follower.counts[1..], [[1, 0, 0, 0], [1_000, 0, 0, 0]]);
    follower.expect_live(&store);
    drop(feed);
    psql(&cluster, &format!("BEGIN; {} {SEND} COMMIT", many(3_000)));
    follower.follow(&store).unwrap();
    follower.expect_live(&store);
}

#[test]
fn without_a_place_to_keep_it_a_long_transaction_is_an_error_and_comes_again() {
    let ground = ground(TABLES);
    let mut follower = Follower::begin(&ground.store);
    let directory = tempfile::tempdir().unwrap();
    let store = crate::ground::open_store_with(&ground.database.url(), |settings| {
        settings.spill_directory = directory.path().join("gone");
    });
    ground.psql("INSERT INTO other VALUES (1, 1)");
    ground.psql(&format!("BEGIN; {} {SEND} COMMIT", many(1_000)));
    let error = follower.follow(&store).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Other, "{error}");
    assert!(error.to_string().contains("spill directory"), "{error}");
    let slots = store.feeds().unwrap();
    assert_eq!(slots[0].snapshot, SNAPSHOT);
    assert!(slots[0].acknowledged <= follower.at);
    follower.follow(&ground.store).unwrap();
    follower.expect_live(&ground.store);
    assert_eq!(follower.counts.last(), Some(&[1_000, 0, 0, 0]));
}
