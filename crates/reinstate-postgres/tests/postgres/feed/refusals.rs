//! Databases that cannot be followed, and feeds that are somebody else's.

use reinstate_core::{ErrorKind, FeedSource, Position, SnapshotId, StoreError};
use reinstate_testkit::cluster::{ClusterOptions, PostgresCluster};

use super::{FULL, Follower, SNAPSHOT, cluster, ground};
use crate::ground::{Ground, open_store};

#[track_caller]
fn refusal(ground: &Ground) -> String {
    let error = Follower::try_begin(&ground.store).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(ground.store.feeds().unwrap().is_empty());
    error.to_string()
}

#[test]
fn ids_that_the_server_pads_are_refused_by_name() {
    let ground = Ground::on(
        cluster(),
        "CREATE TABLE padded (id int PRIMARY KEY, account_id character(8));
         ALTER TABLE padded REPLICA IDENTITY FULL;",
        |_| {},
    );
    let message = refusal(&ground);
    assert!(message.contains("padded.account_id"), "{message}");
    ground.psql("ALTER TABLE padded ALTER account_id TYPE text");
    Follower::begin(&ground.store);
    ground.store.end_feed(SNAPSHOT).unwrap();
}

fn publications(ground: &Ground) -> String {
    ground.psql("SELECT count(*) FROM pg_publication")
}

#[test]
fn tables_that_do_not_log_whole_rows_are_refused_all_at_once_and_stay_writable() {
    let ground = Ground::on(
        cluster(),
        "CREATE TABLE keyed (id int PRIMARY KEY, account_id int); INSERT INTO keyed VALUES (1, 1);
         CREATE TABLE \"Key less\" (account_id int, n int); INSERT INTO \"Key less\" VALUES (1, 1);
         CREATE TABLE parts (id int PRIMARY KEY, account_id int) PARTITION BY RANGE (id);
         CREATE TABLE parts_1 PARTITION OF parts DEFAULT; ALTER TABLE parts_1 REPLICA IDENTITY NOTHING;
         CREATE TABLE late (id int PRIMARY KEY DEFERRABLE, account_id int);
         CREATE TABLE twice (id int PRIMARY KEY, account_id int, n int NOT NULL UNIQUE);
         ALTER TABLE twice REPLICA IDENTITY USING INDEX twice_n_key;
         CREATE TABLE full_already (account_id int); ALTER TABLE full_already REPLICA IDENTITY FULL;
         CREATE UNLOGGED TABLE cache (account_id int);
         CREATE TABLE loose (account_id int) PARTITION BY LIST (account_id);
         CREATE TABLE left_out (n int);",
        |map| map.excluded.push("left_out".to_owned()),
    );
    let message = refusal(&ground);
    for part in [
        "ALTER TABLE \"public\".\"Key less\" REPLICA IDENTITY FULL;",
        "ALTER TABLE \"public\".\"late\" REPLICA IDENTITY FULL;",
        "ALTER TABLE \"public\".\"twice\" REPLICA IDENTITY FULL;",
        "ALTER TABLE \"public\".\"parts_1\" REPLICA IDENTITY FULL;",
        "unlogged tables, of which the server logs no change: \"public\".\"cache\"",
        "partitioned tables without a primary key: loose",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(
        ["full_already", "left_out", "keyed", "\"parts\""]
            .iter()
            .all(|fine| !message.contains(fine)),
        "{message}"
    );
    assert_eq!(publications(&ground), "0");
    // What a publication would have forbidden.
    ground.psql("UPDATE \"Key less\" SET n = 2; DELETE FROM \"Key less\"; UPDATE keyed SET id = 2");
    ground.psql("DROP TABLE cache, loose");
    ground.psql(FULL);
    Follower::begin(&ground.store)
        .follow(&ground.store)
        .unwrap();
    ground.psql("INSERT INTO left_out VALUES (1); UPDATE left_out SET n = 2");
    ground.store.end_feed(SNAPSHOT).unwrap();
    assert_eq!(publications(&ground), "0", "it goes with the last feed");
    ground.store.end_feed(SNAPSHOT).unwrap();
}

#[test]
fn a_role_without_the_right_to_replicate_or_publish_is_told_what_to_run() {
    let ground = ground("CREATE TABLE t (id int PRIMARY KEY, account_id int)");
    let role = format!("follower_{}", ground.database.name());
    ground.psql(&format!(
        "CREATE ROLE {role} LOGIN; GRANT SELECT ON t TO {role}"
    ));
    let store = open_store(&format!("{}&user={role}", ground.database.url()), |_| {});
    let refused = || Follower::try_begin(&store).map(drop).unwrap_err();
    let error = refused();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(
        error.to_string().contains("ALTER ROLE ... REPLICATION"),
        "{error}"
    );
    ground.psql(&format!("ALTER ROLE {role} REPLICATION"));
    let error = refused();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    let message = error.to_string();
    let at = message.find("CREATE PUBLICATION").expect(&message);
    ground.psql(&message[at..]);
    let mut follower = Follower::begin(&store);
    ground.psql("INSERT INTO t VALUES (1, 1); DELETE FROM t; INSERT INTO t VALUES (2, 1)");
    follower.follow(&store).unwrap();
    follower.expect_live(&store);
    // A further table: the publication must hold it as well.
    ground.psql(&format!(
        "CREATE TABLE u (account_id int); GRANT SELECT ON u TO {role}"
    ));
    ground.psql(FULL);
    store.end_feed(SNAPSHOT).unwrap();
    assert_eq!(publications(&ground), "1", "it is not the role's");
    let message = refused().to_string();
    let at = message.find("ALTER PUBLICATION").expect(&message);
    ground.psql(&message[at..]);
    let mut follower = Follower::begin(&store);
    ground.psql("INSERT INTO u VALUES (1), (1); UPDATE u SET account_id = 2");
    follower.follow(&store).unwrap();
    follower.expect_live(&store);
    store.end_feed(SNAPSHOT).unwrap();
}

#[test]
fn a_server_that_does_not_log_enough_is_refused() {
    let cluster =
        PostgresCluster::start(&ClusterOptions::fast().with("wal_level", "replica")).unwrap();
    cluster
        .psql("postgres", "CREATE TABLE t (account_id int)")
        .unwrap();
    cluster.psql("postgres", FULL).unwrap();
    let store = open_store(&cluster.url("postgres"), |_| {});
    let error = Follower::try_begin(&store).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(
        error.to_string().contains("wal_level is replica"),
        "{error}"
    );
}

#[test]
fn one_reads_a_feed_at_a_time_and_what_is_not_there_is_not_found() {
    let ground = ground("CREATE TABLE t (id int PRIMARY KEY, account_id int)");
    let kind = |result: Result<(), StoreError>| result.unwrap_err().kind();
    let resume = |after: Position| ground.store.resume_feed(SNAPSHOT, after).map(drop);
    let start = Position {
        commit: 0,
        ordinal: 0,
    };
    assert_eq!(kind(resume(start)), ErrorKind::NotFound);
    let mut follower = Follower::begin(&ground.store);
    let again = Follower::try_begin(&ground.store).map(drop);
    assert_eq!(kind(again), ErrorKind::Conflict);
    let mut feed = follower.resume(&ground.store);
    assert_eq!(kind(resume(follower.at)), ErrorKind::Locked);
    assert_eq!(kind(ground.store.end_feed(SNAPSHOT)), ErrorKind::Locked);
    ground.psql("INSERT INTO t VALUES (1, 1)");
    let begun = follower.at;
    let progress = follower.drain(feed.as_mut()).unwrap();
    let beyond = Position {
        commit: progress.through.commit + 1,
        ..begun
    };
    assert_eq!(kind(feed.acknowledge(beyond)), ErrorKind::Usage);
    feed.acknowledge(progress.through).unwrap();
    drop(feed);
    // What was acknowledged is forgotten, and a later place is of another history.
    let error = resume(begun).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRecoverable, "{error}");
    assert!(error.to_string().contains("is forgotten"), "{error}");
    let never = Position {
        commit: progress.through.commit + (1 << 40),
        ..begun
    };
    assert_eq!(kind(resume(never)), ErrorKind::NotRecoverable);
    // Two feeds side by side know nothing of each other.
    let other = SnapshotId::from_bytes([7; 16]);
    drop(ground.store.begin_feed(other).unwrap());
    assert_eq!(ground.store.feeds().unwrap().len(), 2);
    ground.store.end_feed(SNAPSHOT).unwrap();
    assert_eq!(publications(&ground), "1");
    ground.store.end_feed(other).unwrap();
    assert_eq!(publications(&ground), "0");
}
