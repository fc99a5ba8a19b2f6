//! Every kind of change and value.

use super::{Content, FULL, Follower, cluster, ground};
use crate::ground::{Ground, open_store};
use crate::types::EVERY_TYPE;

#[test]
fn a_value_of_any_type_is_the_same_captured_and_followed() {
    let ground = Ground::on(cluster(), EVERY_TYPE, |_| {});
    ground.psql(
        "CREATE TABLE again (LIKE every_type INCLUDING ALL); CREATE TABLE changed (LIKE again INCLUDING ALL);
         INSERT INTO changed (id, account_id) SELECT id, 'x' FROM every_type;",
    );
    ground.psql(FULL);
    // Whatever is set for others.
    for set in [
        "DateStyle = 'SQL, DMY'",
        "TimeZone = 'Asia/Kolkata'",
        "bytea_output = 'escape'",
        "extra_float_digits = '-5'",
        "IntervalStyle = 'iso_8601'",
        "client_encoding = 'LATIN1'",
    ] {
        let name = ground.database.name();
        ground.psql(&format!("ALTER DATABASE {name} SET {set}"));
    }
    let store = open_store(&ground.database.url(), |_| {});
    let mut follower = Follower::begin(&store);
    let columns = ground.psql(
        "SELECT string_agg(quote_ident(attname), ',' ORDER BY attnum) FROM pg_attribute
          WHERE attrelid = 'every_type'::regclass AND attnum > 0 AND attgenerated = ''",
    );
    ground.psql(&format!(
        "INSERT INTO again ({columns}) SELECT {columns} FROM every_type;
         UPDATE changed SET ({columns}) = (SELECT {columns} FROM every_type e WHERE e.id = changed.id)"
    ));
    follower.follow(&store).unwrap();
    // Each row came by an insert and an update, and is what a capture reads.
    follower.expect_live(&store);
    let live = Content::live(&store);
    assert_eq!(live.count("again"), live.count("every_type"));
    assert_eq!(follower.content, live);
    // And is known as it was.
    ground.psql("DELETE FROM again; UPDATE changed SET id = id + 5000, c_text = 'other'");
    follower.follow(&store).unwrap();
    follower.expect_live(&store);
    assert_eq!(follower.content.count("again"), 0);
}

#[test]
fn a_long_value_that_an_update_leaves_alone_is_there_all_the_same() {
    let ground = ground(
        "CREATE TABLE documents (id int PRIMARY KEY, account_id int, n int, body text, raw bytea);
         ALTER TABLE documents ALTER body SET STORAGE EXTERNAL;
         INSERT INTO documents SELECT n, 1, 0, repeat(md5(n::text), 2000), NULL
           FROM generate_series(1, 20) n;",
    );
    let mut follower = Follower::begin(&ground.store);
    ground.psql(
        "UPDATE documents SET n = n + 1;
         UPDATE documents SET n = n + 1, raw = decode(repeat(md5(id::text), 9000), 'hex') WHERE id < 9;
         UPDATE documents SET raw = NULL WHERE id = 3; UPDATE documents SET id = id + 100;
         UPDATE documents SET body = 'short' WHERE id = 104; DELETE FROM documents WHERE id = 105;",
    );
    follower.follow(&ground.store).unwrap();
    follower.expect_live(&ground.store);
}

#[test]
fn changes_of_every_kind_come_through() {
    let ground = ground(
        "CREATE TABLE keyed (id int, account_id int, part text, note text, PRIMARY KEY (part, id),
             twice int GENERATED ALWAYS AS (id * 2) STORED);
         CREATE TABLE children (id int PRIMARY KEY, account_id int, keyed_id int, part text,
             FOREIGN KEY (part, keyed_id) REFERENCES keyed (part, id)
             ON UPDATE CASCADE ON DELETE CASCADE);
         CREATE TABLE keyless (account_id int, note text);
         INSERT INTO keyed SELECT n, 1, 'p', 'n' FROM generate_series(1, 10) n;
         INSERT INTO children SELECT n, 1, 1 + n % 10, 'p' FROM generate_series(1, 30) n;
         INSERT INTO keyless SELECT 1, 'same' FROM generate_series(1, 5);",
    );
    let mut follower = Follower::begin(&ground.store);
    for (sql, expected) in [
        (
            "INSERT INTO keyless SELECT 1, 'same' FROM generate_series(1, 3)",
            Some([3, 0, 0, 0]),
        ),
        (
            "DELETE FROM keyless WHERE ctid = (SELECT min(ctid) FROM keyless)",
            Some([0, 0, 1, 0]),
        ),
        (
            "UPDATE keyless SET note = 'other' WHERE ctid = (SELECT max(ctid) FROM keyless)",
            Some([0, 1, 0, 0]),
        ),
        // Keys that change take the rows of others along.
        (
            "UPDATE keyed SET id = id + 100 WHERE id <= 3",
            Some([0, 12, 0, 0]),
        ),
        (
            "UPDATE keyed SET account_id = 2, part = 'q' WHERE id > 100",
            Some([0, 12, 0, 0]),
        ),
        ("DELETE FROM keyed WHERE id = 4", Some([0, 0, 4, 0])),
        (
            "UPDATE keyed SET note = note WHERE id = 5",
            Some([0, 1, 0, 0]),
        ),
        (
            "BEGIN; SAVEPOINT a; DELETE FROM keyless; ROLLBACK TO a; SAVEPOINT b;
          INSERT INTO keyless VALUES (3, NULL); SAVEPOINT c; INSERT INTO keyless VALUES (3, '');
          RELEASE c; ROLLBACK TO b; INSERT INTO keyless VALUES (4, NULL); COMMIT",
            Some([1, 0, 0, 0]),
        ),
        (
            "BEGIN; DELETE FROM keyless; DELETE FROM children; ROLLBACK",
            None,
        ),
        (
            "BEGIN; TRUNCATE keyless; INSERT INTO keyless VALUES (9, 'nine'); COMMIT",
            Some([1, 0, 0, 1]),
        ),
        ("TRUNCATE keyed, children", Some([0, 0, 0, 2])),
        (
            "TRUNCATE keyless RESTART IDENTITY CASCADE",
            Some([0, 0, 0, 1]),
        ),
        (
            "SELECT pg_logical_emit_message(false, 'somebody', 'else')",
            None,
        ),
        (
            "COPY keyless FROM PROGRAM 'printf ''1\\ta\\n2\\tb\\n'''",
            Some([2, 0, 0, 0]),
        ),
    ] {
        let before = follower.commits.len();
        ground.psql(sql);
        follower.follow(&ground.store).unwrap();
        follower.expect_live(&ground.store);
        assert_eq!(follower.counts.get(before), expected.as_ref(), "{sql}");
        assert!(follower.commits.len() <= before + 1, "{sql}");
    }
}

#[test]
fn partitions_come_as_the_table_that_they_are_parts_of() {
    let ground = ground(
        "CREATE TABLE orders (id int, account_id int, region text, note text, PRIMARY KEY (id, region))
             PARTITION BY LIST (region);
         CREATE TABLE orders_eu (note text, region text NOT NULL, gone int, id int NOT NULL,
             account_id int, PRIMARY KEY (id, region));
         ALTER TABLE orders_eu DROP COLUMN gone;
         ALTER TABLE orders ATTACH PARTITION orders_eu FOR VALUES IN ('eu');
         CREATE TABLE orders_rest PARTITION OF orders DEFAULT PARTITION BY HASH (id);
         CREATE TABLE orders_rest_0 PARTITION OF orders_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE orders_rest_1 PARTITION OF orders_rest FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         INSERT INTO orders VALUES (1, 1, 'eu', 'x'), (2, 1, 'us', 'y'), (3, 2, 'us', NULL);",
    );
    let mut follower = Follower::begin(&ground.store);
    ground.psql(
        "INSERT INTO orders SELECT n, n % 3, CASE n % 2 WHEN 0 THEN 'eu' ELSE 'us' END, 'n'
           FROM generate_series(10, 60) n;
         UPDATE orders SET region = 'eu' WHERE id % 5 = 1; UPDATE orders_eu SET note = 'z' WHERE id > 40;
         DELETE FROM orders WHERE id % 7 = 0;",
    );
    follower.follow(&ground.store).unwrap();
    follower.expect_live(&ground.store);
    ground.psql("BEGIN; TRUNCATE orders; INSERT INTO orders VALUES (1, 1, 'eu', 'again'); COMMIT");
    follower.follow(&ground.store).unwrap();
    follower.expect_live(&ground.store);
    assert_eq!(*follower.counts.last().unwrap(), [1, 0, 0, 1]);
    // Of one partition alone the log does not say which rows went.
    ground.psql("INSERT INTO orders VALUES (2, 1, 'us', 'kept')");
    ground.psql("TRUNCATE orders_eu");
    let error = follower.follow(&ground.store).unwrap_err();
    assert_eq!(error.kind(), reinstate_core::ErrorKind::Stale, "{error}");
    assert!(error.to_string().contains("orders"), "{error}");
    assert_eq!(
        follower.content.count("orders"),
        2,
        "what was before it was handed over"
    );
}

#[test]
fn a_mark_comes_out_as_a_transaction_without_changes() {
    let ground = ground("CREATE TABLE t (id int PRIMARY KEY, account_id int)");
    let mut follower = Follower::begin(&ground.store);
    let mut feed = follower.resume(&ground.store);
    for round in 0..20 {
        feed.mark().unwrap();
        ground.psql(&format!("INSERT INTO t VALUES ({round}, 1)"));
        feed.mark().unwrap();
        follower.drain(feed.as_mut()).unwrap();
        let counts = follower.counts.split_off(0);
        assert_eq!(counts, [[0; 4], [1, 0, 0, 0], [0; 4]], "round {round}");
    }
    let times: Vec<_> = follower.commits.iter().map(|commit| commit.time).collect();
    assert!(times.is_sorted(), "{times:?}");
    let now = ground.psql("SELECT (extract(epoch FROM now()) * 1000000)::int8");
    let age = now.parse::<i64>().unwrap() - times[0].as_micros();
    assert!((0..600_000_000).contains(&age), "{age}");
}

#[test]
fn what_a_merge_does_comes_through_like_anything_else() {
    let ground = ground(
        "CREATE TABLE lists (id int PRIMARY KEY, account_id int, name text);
         CREATE TABLE notes (account_id int, body text);
         INSERT INTO lists SELECT n, n % 3, 'l' || n FROM generate_series(1, 60) n;
         INSERT INTO notes SELECT n % 3, 'n' || n % 4 FROM generate_series(1, 60) n;",
    );
    let image = ground.image("1");
    let mut follower = Follower::begin(&ground.store);
    ground.psql(
        "DELETE FROM lists WHERE account_id = 1 AND id % 2 = 0;
         UPDATE lists SET name = 'x' WHERE account_id = 1; DELETE FROM notes WHERE account_id = 1",
    );
    follower.follow(&ground.store).unwrap();
    ground.restore("1", &image).unwrap();
    let before = follower.commits.len();
    follower.follow(&ground.store).unwrap();
    follower.expect_live(&ground.store);
    let changes: u64 = follower.counts[before..].iter().flatten().sum();
    assert_eq!((follower.commits.len() - before, changes), (1, 40));
    assert_eq!(ground.image("1"), image);
}
