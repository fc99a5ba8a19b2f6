//! Servers that crash, slots that are lost, transactions that are prepared.

use std::thread;
use std::time::Duration;

use reinstate_core::{ErrorKind, FeedSource};
use reinstate_postgres::PostgresStore;
use reinstate_testkit::cluster::{ClusterOptions, Mode, PostgresCluster};

use super::{FULL, Follower, SNAPSHOT};
use crate::ground::open_store;

const TABLE: &str = "CREATE TABLE t (id bigserial PRIMARY KEY, account_id int, note text);";

fn server(options: &ClusterOptions) -> (PostgresCluster, PostgresStore) {
    let cluster = PostgresCluster::start(options).unwrap();
    cluster.psql("postgres", TABLE).unwrap();
    cluster.psql("postgres", FULL).unwrap();
    let store = open_store(&cluster.url("postgres"), |_| {});
    (cluster, store)
}

#[test]
fn nothing_is_lost_or_doubled_when_the_server_is_killed() {
    let (mut cluster, store) = server(&ClusterOptions::default());
    let mut follower = Follower::begin(&store);
    for round in 0..6 {
        let mut feed = follower.resume(&store);
        for n in 0..5 {
            let sql = format!(
                "INSERT INTO t (account_id, note) VALUES (1, 'r{round}');
                 UPDATE t SET note = note || {n} WHERE id % 5 = {n}; DELETE FROM t WHERE id % 7 = {n}"
            );
            cluster.psql("postgres", &sql).unwrap();
            if n < 3 {
                let progress = follower.drain(feed.as_mut()).unwrap();
                // Now and then the server hears of it, and may forget that again.
                if round % 2 == 0 {
                    feed.acknowledge(progress.through).unwrap();
                }
            }
        }
        match round % 3 {
            0 => cluster.kill_nine().unwrap(),
            1 => cluster.stop(Mode::Immediate).unwrap(),
            // Waits until its log was read.
            _ => thread::scope(|scope| {
                let stopping = scope.spawn(|| cluster.stop(Mode::Fast).unwrap());
                while !stopping.is_finished() && follower.drain(feed.as_mut()).is_ok() {}
            }),
        }
        let error = follower.drain(feed.as_mut()).unwrap_err();
        if round % 3 < 2 {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        }
        drop(feed);
        cluster.restart().unwrap();
        follower.follow(&store).unwrap();
        follower.expect_live(&store);
    }
}

#[test]
fn a_prepared_transaction_comes_when_it_is_committed() {
    let (cluster, store) = server(&ClusterOptions::fast().with("max_prepared_transactions", "5"));
    let psql = |sql: &str| cluster.psql("postgres", sql).unwrap();
    let mut follower = Follower::begin(&store);
    psql("BEGIN; INSERT INTO t (account_id) VALUES (1), (2); PREPARE TRANSACTION 'a'");
    psql("BEGIN; INSERT INTO t (account_id) VALUES (3); PREPARE TRANSACTION 'b'");
    follower.follow(&store).unwrap();
    assert_eq!(follower.commits.len(), 0);
    psql("INSERT INTO t (account_id) VALUES (4)");
    psql("ROLLBACK PREPARED 'b'");
    psql("COMMIT PREPARED 'a'");
    follower.follow(&store).unwrap();
    assert_eq!(follower.counts, [[1, 0, 0, 0], [2, 0, 0, 0]]);
    follower.expect_live(&store);
}

#[test]
fn a_slot_that_is_dropped_or_lost_ends_the_feed_and_the_gap_is_not_bridged() {
    let options = ClusterOptions::fast()
        .with("max_slot_wal_keep_size", "16MB")
        .with("min_wal_size", "32MB")
        .with("max_wal_size", "32MB")
        .with("wal_keep_size", "0");
    let (cluster, store) = server(&options);
    let psql = |sql: &str| cluster.psql("postgres", sql).unwrap();
    let mut follower = Follower::begin(&store);
    psql("INSERT INTO t (account_id) VALUES (1)");
    follower.follow(&store).unwrap();
    let mut feed = follower.resume(&store);
    // Reads all the time and never acknowledges, until the server has enough of it.
    let error = thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..12 {
                psql(
                    "INSERT INTO t (account_id, note)
                         SELECT 1, repeat('x', 1000) FROM generate_series(1, 5000);
                     DELETE FROM t; SELECT pg_switch_wal(); CHECKPOINT",
                );
            }
        });
        loop {
            match feed.read(1, &mut follower) {
                Ok(_) => thread::sleep(Duration::from_millis(1)),
                Err(error) => break error,
            }
        }
    });
    assert_eq!(error.kind(), ErrorKind::NotRecoverable, "{error}");
    assert!(
        error.to_string().contains("max_slot_wal_keep_size = 16MB"),
        "{error}"
    );
    drop(feed);
    let error = store
        .resume_feed(SNAPSHOT, follower.at)
        .map(drop)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRecoverable, "{error}");
    let health = store.feeds().unwrap();
    assert!(
        health[0].lost.as_ref().unwrap().contains("16MB"),
        "{health:?}"
    );
    store.end_feed(SNAPSHOT).unwrap();

    let follower = Follower::begin(&store);
    psql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots");
    let error = store
        .resume_feed(SNAPSHOT, follower.at)
        .map(drop)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[test]
fn a_reader_that_was_cut_off_between_two_readings_goes_on_by_itself() {
    let (cluster, store) = server(&ClusterOptions::fast());
    let psql = |sql: &str| cluster.psql("postgres", sql).unwrap();
    let mut follower = Follower::begin(&store);
    let mut feed = follower.resume(&store);
    for _ in 0..5 {
        psql("INSERT INTO t (account_id) SELECT n FROM generate_series(1, 2000) n");
        follower.drain(feed.as_mut()).unwrap();
        psql("DELETE FROM t WHERE id % 3 = 1; UPDATE t SET note = 'again'");
        psql("SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots");
        follower.drain(feed.as_mut()).unwrap();
        follower.expect_live(&store);
    }
}

/// Far more than waits here at once; nothing of it is kept.
#[test]
fn a_long_transaction_goes_through_change_by_change() {
    let (cluster, store) = server(&ClusterOptions::fast());
    let psql = |sql: &str| cluster.psql("postgres", sql).unwrap();
    let mut follower = Follower::begin(&store);
    follower.counts_only = true;
    psql("INSERT INTO t (account_id) VALUES (1)");
    psql(
        "INSERT INTO t (account_id, note)
             SELECT n % 5, repeat('x', 60) FROM generate_series(1, 1000000) n",
    );
    psql("INSERT INTO t (account_id) VALUES (2)");
    follower.follow(&store).unwrap();
    let one = [1, 0, 0, 0];
    assert_eq!(follower.counts, [one, [1_000_000, 0, 0, 0], one]);
}

#[test]
fn a_transaction_that_does_not_end_keeps_a_feed_from_beginning_and_leaves_no_slot() {
    let (cluster, store) = server(&ClusterOptions::fast());
    let psql = |sql: &str| cluster.psql("postgres", sql).unwrap();
    let error = thread::scope(|scope| {
        scope.spawn(|| psql("BEGIN; INSERT INTO t VALUES (1, 1); SELECT pg_sleep(9); COMMIT"));
        let writing = "SELECT count(backend_xid) FROM pg_stat_activity WHERE query ~ 'pg_sleep.9'";
        while psql(writing) == "0" {}
        Follower::try_begin(&store).map(drop).unwrap_err()
    });
    assert_eq!(error.kind(), ErrorKind::Contended, "{error}");
    assert!(error.to_string().contains("lock_timeout"), "{error}");
    assert!(store.feeds().unwrap().is_empty());
    let mut follower = Follower::begin(&store);
    follower.follow(&store).unwrap();
    follower.expect_live(&store);
}

/// A commit that waits for a standby is in the log, and nobody sees it: neither does the look at the
/// tables.
#[test]
fn a_table_whose_commit_nobody_sees_yet_is_not_passed_over() {
    let (cluster, store) = server(&ClusterOptions::fast().with("autovacuum", "off"));
    let psql = |sql: &str| cluster.psql("postgres", sql).unwrap();
    let mut follower = Follower::begin(&store);
    let mut feed = follower.resume(&store);
    follower.drain(feed.as_mut()).unwrap();
    psql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'; SELECT pg_reload_conf()");
    thread::scope(|scope| {
        scope.spawn(|| psql("CREATE TABLE fresh AS SELECT 1 AS account_id"));
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        while psql(waiting) != "1" {}
        let committed: u64 = psql("SELECT pg_current_wal_flush_lsn() - '0/0'")
            .parse()
            .unwrap();
        let before = follower.drain(feed.as_mut()).unwrap();
        // What others commit later is not told without it either.
        psql("SET synchronous_commit = local; INSERT INTO t (account_id) VALUES (1)");
        let told = follower.drain(feed.as_mut());
        psql("ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()");
        assert!(before.through.commit < committed, "{before:?} {committed}");
        let error = told.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Contended, "{error}");
        assert!(follower.commits.is_empty());
    });
    let resumed = store.resume_feed(SNAPSHOT, follower.at).map(drop);
    let error = resumed.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
}
