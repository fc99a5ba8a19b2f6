//! Where a feed ends because tables are not what they were: before the first transaction that could
//! be told wrong, and never later.

use reinstate_core::{ErrorKind, FeedSource, StoreError};

use super::{Follower, SNAPSHOT, ground};

const TABLES: &str = "\
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE t (id int PRIMARY KEY, account_id int, n int, mood mood);
CREATE TABLE keyless (account_id int, note text);
CREATE TABLE parts (id int PRIMARY KEY, account_id int) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200);
INSERT INTO t SELECT n, 1, n, 'good' FROM generate_series(1, 9) n;
INSERT INTO parts SELECT n, 1 FROM generate_series(1, 150) n;
";

/// What ends a feed, and a part of how it is said.
const ENDS: &[(&str, &str)] = &[
    (
        "ALTER TABLE t ALTER n TYPE bigint",
        "(t): table t was altered, and its rows were written anew",
    ),
    // The same type, and every row another.
    (
        "ALTER TABLE t ALTER n TYPE int USING n + 1",
        "its rows were written anew",
    ),
    (
        "ALTER TABLE t ADD COLUMN more double precision DEFAULT random()",
        "its rows were written anew",
    ),
    (
        "ALTER TABLE t ADD COLUMN more serial",
        "its rows were written anew",
    ),
    // Nothing is written, and -1 reads 4294967295.
    (
        "ALTER TABLE t ALTER n TYPE oid",
        "its values may read otherwise",
    ),
    (
        "ALTER TABLE t DROP CONSTRAINT t_pkey",
        "the primary key of table t is another",
    ),
    (
        "ALTER TABLE t ADD COLUMN site_id int; UPDATE t SET site_id = 1;
         ALTER TABLE t DROP COLUMN account_id; ALTER TABLE t RENAME site_id TO account_id",
        "belong to their tenants by another rule",
    ),
    (
        "ALTER TABLE t REPLICA IDENTITY DEFAULT",
        "REPLICA IDENTITY FULL",
    ),
    (
        "ALTER TABLE keyless DROP COLUMN note",
        "table keyless has no key",
    ),
    (
        "ALTER TABLE keyless ADD UNIQUE (account_id), ALTER account_id SET NOT NULL",
        "the primary key of table keyless is another",
    ),
    ("CREATE TABLE nobodys (n int)", "nobodys"),
    ("ALTER TYPE mood RENAME VALUE 'good' TO 'fine'", ""),
    ("ALTER PUBLICATION reinstate DROP TABLE t", "t"),
    (
        "ALTER PUBLICATION reinstate DROP TABLE t; ALTER PUBLICATION reinstate ADD TABLE t",
        "t",
    ),
    (
        "ALTER PUBLICATION reinstate SET TABLE t WHERE (id > 5), keyless, parts",
        "t",
    ),
    ("ALTER PUBLICATION reinstate SET (publish = 'insert')", ""),
    (
        "CREATE TABLE parts_3 (LIKE parts INCLUDING ALL); INSERT INTO parts_3 VALUES (201, 1);
         ALTER TABLE parts_3 REPLICA IDENTITY FULL;
         ALTER TABLE parts ATTACH PARTITION parts_3 FOR VALUES FROM (200) TO (300)",
        "partition parts_3 of table parts was attached, and may have had rows before",
    ),
    // The same, in one transaction, with rows of later as well.
    (
        "BEGIN; CREATE TABLE parts_3 (LIKE parts INCLUDING ALL); INSERT INTO parts_3 VALUES (201, 1);
         ALTER TABLE parts ATTACH PARTITION parts_3 FOR VALUES FROM (200) TO (300);
         INSERT INTO parts VALUES (202, 1); COMMIT",
        "partition parts_3 of table parts was attached, and may have had rows before",
    ),
    (
        "BEGIN; CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (200) TO (300);
         ALTER TABLE parts DETACH PARTITION parts_3; INSERT INTO parts_3 VALUES (201, 1);
         ALTER TABLE parts ATTACH PARTITION parts_3 FOR VALUES FROM (200) TO (300); COMMIT",
        "partition parts_3 of table parts was attached, and may have had rows before",
    ),
    // A tree of its own, grafted on.
    (
        "CREATE TABLE tree (LIKE parts INCLUDING ALL) PARTITION BY RANGE (id);
         CREATE TABLE leaf PARTITION OF tree FOR VALUES FROM (200) TO (250);
         INSERT INTO tree VALUES (201, 1);
         ALTER TABLE parts ATTACH PARTITION tree FOR VALUES FROM (200) TO (300)",
        "partition leaf of table parts was attached, and may have had rows before",
    ),
    (
        "CREATE UNLOGGED TABLE parts_3 PARTITION OF parts FOR VALUES FROM (200) TO (300)",
        "is unlogged or on another server",
    ),
    ("DROP TABLE parts_2", "partitions of table parts were detached or dropped"),
    (
        "ALTER TABLE parts DETACH PARTITION parts_2; DROP TABLE parts_2",
        "partitions of table parts were detached or dropped",
    ),
    (
        "ALTER TABLE parts DETACH PARTITION parts_2; UPDATE parts_2 SET account_id = 2;
         ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM (100) TO (200)",
        "partition parts_2 of table parts was detached and attached again",
    ),
    ("TRUNCATE parts_1", "parts"),
];

#[track_caller]
fn expect_end(error: &StoreError, part: &str, sql: &str) {
    let kinds = [ErrorKind::Stale, ErrorKind::Unclassified];
    assert!(
        kinds.contains(&error.kind()),
        "{sql}: {:?} {error}",
        error.kind()
    );
    assert!(error.to_string().contains(part), "{sql}: {error}");
}

#[test]
fn a_feed_ends_before_what_a_change_of_tables_could_make_wrong() {
    for (sql, part) in ENDS {
        let ground = ground(TABLES);
        let mut follower = Follower::begin(&ground.store);
        let mut feed = follower.resume(&ground.store);
        ground.psql("INSERT INTO t VALUES (10, 1, 1, 'bad'); DELETE FROM parts WHERE id = 7");
        follower.drain(feed.as_mut()).unwrap();
        follower.expect_live(&ground.store);
        assert_eq!(follower.commits.len(), 2);
        ground.psql(sql);
        // Somebody goes on writing, where the table is still there.
        let _ = ground
            .database
            .psql("INSERT INTO t (id, account_id) VALUES (99, 1)");
        let before = follower.at;
        let error = follower.drain(feed.as_mut()).unwrap_err();
        expect_end(&error, part, sql);
        assert_eq!((follower.commits.len(), follower.at), (2, before), "{sql}");
        assert!(feed.read(1, &mut follower).is_err(), "{sql}");
    }
}

#[test]
fn a_change_of_tables_while_nobody_follows_ends_the_feed_as_well() {
    for (sql, _) in ENDS {
        let ground = ground(TABLES);
        let mut follower = Follower::begin(&ground.store);
        ground.psql(sql);
        let _ = ground
            .database
            .psql("INSERT INTO t (id, account_id) VALUES (99, 1)");
        // Without what was noted when it was followed.
        let resumed = ground.store.resume_feed(SNAPSHOT, follower.at);
        let error = match resumed {
            Ok(mut feed) => follower.drain(feed.as_mut()).unwrap_err(),
            Err(error) => error,
        };
        expect_end(&error, "", sql);
        assert!(follower.commits.is_empty(), "{sql}");
    }
}

/// What changes nothing that is followed.
#[test]
fn a_feed_outlives_what_leaves_rows_and_columns_alone() {
    let ground = ground(TABLES);
    let mut follower = Follower::begin(&ground.store);
    let mut feed = follower.resume(&ground.store);
    for (round, sql) in [
        "VACUUM FULL t",
        "CLUSTER t USING t_pkey",
        "ANALYZE",
        "CREATE INDEX ON t (n); REINDEX TABLE t",
        "CREATE TEMP TABLE passing (n int)",
        "CREATE TABLE reinstate.own (n int)",
        "GRANT SELECT ON t TO public",
        "CREATE VIEW seen AS SELECT * FROM t",
        "TRUNCATE parts",
        "CHECKPOINT",
    ]
    .into_iter()
    .enumerate()
    {
        ground.psql(sql);
        let insert = format!("INSERT INTO t VALUES ({round} + 1000, 1, 1, 'bad')");
        ground.psql(&insert);
        follower.drain(feed.as_mut()).unwrap();
        follower.expect_live(&ground.store);
    }
}

/// A table and its rows in one transaction: nothing of it is in the stream. It is not passed over, and
/// once it can be followed, it is.
#[test]
fn a_table_that_comes_with_its_rows_is_never_passed_over() {
    for _ in 0..10 {
        let ground = ground(TABLES);
        let mut follower = Follower::begin(&ground.store);
        let mut feed = follower.resume(&ground.store);
        let error = std::thread::scope(|scope| {
            scope.spawn(|| ground.psql("CREATE TABLE fresh AS SELECT 1 AS account_id"));
            loop {
                match feed.read(1, &mut follower) {
                    Ok(progress) => follower.at = progress.through,
                    Err(error) => break error,
                }
            }
        });
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(
            error.to_string().contains("REPLICA IDENTITY FULL"),
            "{error}"
        );
        let log = ground.psql("SELECT pg_current_wal_lsn() - '0/0'");
        assert!(follower.at.commit < log.parse().unwrap());
        drop(feed);
        ground.psql("INSERT INTO fresh VALUES (2); ALTER TABLE fresh REPLICA IDENTITY FULL");
        follower.follow(&ground.store).unwrap();
        follower.expect_live(&ground.store);
    }
}
