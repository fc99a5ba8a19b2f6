//! A feed goes on with tables that were altered, wherever it is certain what became of their rows.

use reinstate_core::{ErrorKind, StoreError};

use super::session::Session;
use super::{FULL, Follower, ground};
use crate::ground::Ground;
use crate::lease::{Prompt, eventually};

const TABLES: &str = "\
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE accounts (id int PRIMARY KEY, account_id int);
CREATE TABLE t (id int PRIMARY KEY, account_id int, n int, short varchar(10), mood mood);
CREATE TABLE keyless (account_id int, note text);
CREATE TABLE parts (id int PRIMARY KEY, account_id int) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200);
INSERT INTO t SELECT n, 1, n, 'x' || n, 'good' FROM generate_series(1, 9) n;
INSERT INTO keyless SELECT 1, 'x' FROM generate_series(1, 3) n;
INSERT INTO parts SELECT n, 1 FROM generate_series(1, 150) n;
";

/// What a feed goes on with.
const GOES_ON: &[&str] = &[
    "ALTER TABLE t ADD COLUMN more text",
    "ALTER TABLE t ADD COLUMN more text NOT NULL DEFAULT E'a\\tb\\\\c'",
    "ALTER TABLE t ADD COLUMN at timestamptz DEFAULT now(), ADD COLUMN days interval DEFAULT '3 days'",
    "ALTER TABLE t ADD COLUMN list int[] DEFAULT '{1,2}', ADD COLUMN doc jsonb DEFAULT '{\"a\": [1]}',
        ADD COLUMN raw bytea DEFAULT '\\x00ff', ADD COLUMN how mood DEFAULT 'bad',
        ADD COLUMN sum numeric(9,3) DEFAULT 1.5, ADD COLUMN yes boolean DEFAULT true,
        ADD COLUMN box box DEFAULT '(1,1),(0,0)', ADD COLUMN real double precision DEFAULT 0.1",
    "ALTER TABLE t DROP COLUMN n",
    "ALTER TABLE t RENAME COLUMN n TO m",
    "ALTER TABLE t RENAME COLUMN n TO x; ALTER TABLE t RENAME COLUMN short TO n;
     ALTER TABLE t RENAME COLUMN x TO short",
    "ALTER TABLE t RENAME TO u",
    "ALTER TABLE t ALTER account_id SET NOT NULL, ALTER n SET DEFAULT 7",
    "ALTER TABLE t ALTER short TYPE varchar(20)",
    "ALTER TABLE t ALTER short TYPE text",
    "ALTER TABLE keyless ADD COLUMN more text DEFAULT 'x'",
    "ALTER TABLE keyless RENAME COLUMN note TO notes",
    "ALTER TABLE parts ADD COLUMN more int DEFAULT 3",
    "ALTER TABLE t ADD FOREIGN KEY (account_id) REFERENCES accounts NOT VALID",
    "CREATE UNIQUE INDEX ON t (n)",
    "ALTER TYPE mood ADD VALUE 'fair'",
    "DROP TABLE keyless",
    "VACUUM FULL t",
    "ALTER TABLE t ADD COLUMN more int DEFAULT 1; ALTER TABLE t DROP COLUMN more",
];

/// Writes to every table that there is, whatever it is called now.
fn write(ground: &Ground, round: u32) {
    let id = 1000 + 10 * round;
    for sql in [
        format!("INSERT INTO t (id, account_id) VALUES ({id}, 1), ({id} + 1, 2)"),
        format!("INSERT INTO u (id, account_id) VALUES ({id}, 1), ({id} + 1, 2)"),
        "UPDATE t SET account_id = 3 WHERE id % 2 = 1; DELETE FROM t WHERE id = 4".to_owned(),
        "UPDATE u SET account_id = 3 WHERE id % 2 = 1; DELETE FROM u WHERE id = 4".to_owned(),
        "INSERT INTO keyless (account_id) VALUES (1), (2)".to_owned(),
        "DELETE FROM keyless WHERE ctid = (SELECT min(ctid) FROM keyless)".to_owned(),
        format!("INSERT INTO parts (id, account_id) VALUES (150 + {round}, 1)"),
        "UPDATE parts SET account_id = 2 WHERE id % 5 = 0; DELETE FROM parts WHERE id = 7"
            .to_owned(),
    ] {
        let _ = ground.database.psql(&sql);
    }
}

#[test]
fn a_feed_goes_on_with_tables_that_were_altered_while_it_is_read() {
    for sql in GOES_ON {
        let ground = ground(TABLES);
        ground.psql("INSERT INTO accounts VALUES (1, 1), (2, 2), (3, 3)");
        let mut follower = Follower::begin(&ground.store);
        let mut feed = follower.resume(&ground.store);
        write(&ground, 1);
        follower.drain(feed.as_mut()).unwrap();
        follower.expect_live(&ground.store);
        // Rows of before and of after in one reading.
        write(&ground, 2);
        ground.psql(sql);
        write(&ground, 3);
        follower
            .drain(feed.as_mut())
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        follower.expect_live(&ground.store);
        write(&ground, 4);
        follower.drain(feed.as_mut()).unwrap();
        follower.expect_live(&ground.store);
        drop(feed);
        // And again, from what was noted.
        write(&ground, 5);
        follower.follow(&ground.store).unwrap();
        follower.expect_live(&ground.store);
    }
}

#[test]
fn a_feed_goes_on_with_tables_that_were_altered_while_nobody_read_it() {
    for sql in GOES_ON {
        let ground = ground(TABLES);
        ground.psql("INSERT INTO accounts VALUES (1, 1), (2, 2), (3, 3)");
        let mut follower = Follower::begin(&ground.store);
        follower.follow(&ground.store).unwrap();
        write(&ground, 1);
        ground.psql(sql);
        write(&ground, 2);
        let resumed = follower.follow(&ground.store);
        resumed.unwrap_or_else(|error| panic!("{sql}: {error}"));
        follower.expect_live(&ground.store);
        follower.follow(&ground.store).unwrap();
    }
}

/// A follower of a store with these tables, which read what there was.
fn begin(ground: &Ground) -> Follower {
    let mut follower = Follower::begin(&ground.store);
    follower.follow(&ground.store).unwrap();
    follower
}

#[test]
fn rows_that_are_written_in_the_transaction_that_alters_their_table_are_followed() {
    let ground = ground(TABLES);
    let mut follower = begin(&ground);
    ground.psql(
        "BEGIN;
         UPDATE t SET n = n + 1 WHERE id < 5;
         INSERT INTO t VALUES (50, 2, 1, 'y', 'bad');
         ALTER TABLE t ADD COLUMN more int DEFAULT 7;
         UPDATE t SET more = n WHERE id < 3;
         ALTER TABLE t DROP COLUMN short;
         DELETE FROM t WHERE id = 9;
         COMMIT;
         UPDATE t SET more = 1 WHERE id = 8",
    );
    follower.follow(&ground.store).unwrap();
    follower.expect_live(&ground.store);
    assert_eq!(follower.altered, [0], "before its transaction");
    assert_eq!(follower.commits.len(), 2);
}

#[test]
fn several_migrations_with_rows_in_between_are_followed_at_once() {
    let ground = ground(TABLES);
    let mut follower = begin(&ground);
    for (round, sql) in (1..).zip([
        "ALTER TABLE t ADD COLUMN one text DEFAULT 'one'",
        "ALTER TABLE keyless ADD COLUMN two text DEFAULT 'two'",
        "ALTER TABLE t ADD COLUMN three int DEFAULT 3",
        "ALTER TABLE t DROP COLUMN one",
        "ALTER TABLE t RENAME COLUMN three TO four",
        "ALTER TABLE parts ADD COLUMN five int",
        "ALTER TABLE t ALTER short TYPE text",
        "ALTER TABLE t RENAME TO u",
        "DROP TABLE keyless",
    ]) {
        write(&ground, round);
        ground.psql(sql);
    }
    write(&ground, 20);
    follower.follow(&ground.store).unwrap();
    follower.expect_live(&ground.store);
    assert_eq!(follower.altered.len(), 1);
}

fn stale(result: Result<(), StoreError>, part: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
    assert!(error.to_string().contains(part), "{error}");
}

#[test]
fn a_column_in_the_place_of_another_of_its_type_is_followed_only_if_it_is_certain_which_is_which() {
    let drop = "ALTER TABLE t DROP COLUMN mood";
    let add = "ALTER TABLE t ADD COLUMN other mood DEFAULT 'bad'";
    // Nobody looked in between, and rows were written under both.
    let first = ground(TABLES);
    let mut follower = begin(&first);
    write(&first, 1);
    first.psql(&format!("BEGIN; {drop}; {add}; COMMIT"));
    write(&first, 2);
    stale(follower.follow(&first.store), "in more ways than one");
    // Somebody looked.
    let second = ground(TABLES);
    let mut follower = begin(&second);
    for (round, sql) in [(1, drop), (2, add)] {
        write(&second, round);
        second.psql(sql);
        write(&second, 10 + round);
        follower.follow(&second.store).unwrap();
        follower.expect_live(&second.store);
    }
    // The log itself shows both at once.
    let third = ground(TABLES);
    let mut follower = begin(&third);
    third.psql(add);
    write(&third, 1);
    third.psql(drop);
    write(&third, 2);
    follower.follow(&third.store).unwrap();
    follower.expect_live(&third.store);
    // Of another type there is no doubt.
    let fourth = ground(TABLES);
    let mut follower = begin(&fourth);
    write(&fourth, 1);
    fourth.psql(&format!(
        "BEGIN; {drop}; ALTER TABLE t ADD COLUMN other int DEFAULT 5; COMMIT"
    ));
    write(&fourth, 2);
    follower.follow(&fourth.store).unwrap();
    follower.expect_live(&fourth.store);
}

#[test]
fn rows_written_anew_beside_an_alteration_end_the_feed_and_alone_they_do_not() {
    let ground = ground(TABLES);
    let mut follower = begin(&ground);
    ground.psql("VACUUM FULL t");
    follower.follow(&ground.store).unwrap();
    ground.psql("ALTER TABLE t ADD COLUMN more int");
    write(&ground, 1);
    follower.follow(&ground.store).unwrap();
    follower.expect_live(&ground.store);
    ground.psql("ALTER TABLE t ADD COLUMN again int; VACUUM FULL t");
    stale(follower.follow(&ground.store), "written anew");
}

#[test]
fn what_was_noted_before_a_crash_is_what_the_feed_goes_on_from() {
    let ground = ground(TABLES);
    let mut follower = begin(&ground);
    ground.psql(
        "BEGIN; UPDATE t SET n = 100 WHERE id = 1; ALTER TABLE t ADD COLUMN more int DEFAULT 7;
         UPDATE t SET more = 8 WHERE id = 2; COMMIT",
    );
    let before = follower.at;
    let mut feed = follower.resume(&ground.store);
    follower.drain(feed.as_mut()).unwrap();
    drop(feed);
    follower.expect_live(&ground.store);
    // The tables were noted and nothing more: rows of before come again, as rows of after.
    let mut again = begin_again(&follower, before);
    let mut feed = again.try_resume(&ground.store).unwrap();
    again.counts_only = true;
    again.drain(feed.as_mut()).unwrap();
    assert_eq!(again.counts, [[0, 2, 0, 0]]);
    assert!(again.altered.is_empty());
}

/// A follower that noted the tables, and not yet what came behind them.
fn begin_again(follower: &Follower, at: reinstate_core::Position) -> Follower {
    Follower {
        schema: follower.schema.clone(),
        facts: follower.facts.clone(),
        altered: Vec::new(),
        content: follower.content.clone(),
        at,
        commits: Vec::new(),
        counts: Vec::new(),
        open: Vec::new(),
        tally: [0; 4],
        came: Vec::new(),
        counts_only: false,
        steps_left: None,
    }
}

/// While tables are altered and written to at random times, what is followed is what is there.
#[test]
fn alterations_beside_writers_are_followed_to_the_row() {
    let ground = ground(TABLES);
    let mut follower = begin(&ground);
    let mut feed = follower.resume(&ground.store);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..12 {
                write(&ground, 30 + round);
                let sql = match round % 4 {
                    0 => format!("ALTER TABLE t ADD COLUMN c{round} int DEFAULT {round}"),
                    1 => format!("ALTER TABLE t RENAME COLUMN c{} TO d{round}", round - 1),
                    2 => format!("ALTER TABLE parts ADD COLUMN p{round} text DEFAULT 'p'"),
                    _ => format!("ALTER TABLE t DROP COLUMN d{}", round - 2),
                };
                ground.psql(&sql);
                let sql = "UPDATE t SET n = n + 1; UPDATE keyless SET account_id = account_id + 1";
                ground.psql(sql);
            }
            is_over.store(true, std::sync::atomic::Ordering::Release);
        });
        while !is_over.load(std::sync::atomic::Ordering::Acquire) {
            follower.drain(feed.as_mut()).unwrap();
        }
    });
    follower.drain(feed.as_mut()).unwrap();
    follower.expect_live(&ground.store);
    assert!(!follower.altered.is_empty());
    ground.psql(FULL);
}

const NEW: &str = "\
CREATE TABLE fresh (id int PRIMARY KEY, account_id int, t_id int REFERENCES t, note text);
ALTER TABLE fresh REPLICA IDENTITY FULL;
CREATE TABLE loose (account_id int, note text);
ALTER TABLE loose REPLICA IDENTITY FULL;
INSERT INTO fresh SELECT n, 1, 1 + n % 3, E'a\\tb' FROM generate_series(1, 20) n;
INSERT INTO loose SELECT 1, NULL FROM generate_series(1, 5) n;
UPDATE fresh SET note = 'x' WHERE id = 3; DELETE FROM fresh WHERE id = 4;
ALTER TABLE fresh ADD COLUMN more int DEFAULT 3";

#[test]
fn a_table_that_is_new_is_followed_with_the_rows_that_it_has() {
    for is_followed in [true, false] {
        let ground = ground(TABLES);
        let mut follower = begin(&ground);
        write(&ground, 1);
        let mut feed = is_followed.then(|| follower.resume(&ground.store));
        ground.psql(NEW);
        ground.psql("ALTER TABLE t ADD COLUMN more text DEFAULT 'more'");
        write(&ground, 2);
        match &mut feed {
            Some(feed) => drop(follower.drain(feed.as_mut()).unwrap()),
            None => follower.follow(&ground.store).unwrap(),
        }
        follower.expect_live(&ground.store);
        ground.psql(
            "INSERT INTO fresh VALUES (90, 2, 1, 'late', 4); UPDATE fresh SET more = 9 WHERE id < 9;
             DELETE FROM loose; INSERT INTO loose VALUES (3, 'z'); TRUNCATE fresh;
             INSERT INTO fresh VALUES (1, 1, 1, 'again')",
        );
        drop(feed);
        follower.follow(&ground.store).unwrap();
        follower.expect_live(&ground.store);
    }
}

/// Whoever writes to a table while it comes writes either before it was read, or into the log.
#[test]
fn rows_written_while_a_table_comes_are_neither_lost_nor_doubled() {
    let ground = ground(TABLES);
    let mut follower = begin(&ground);
    let mut feed = follower.resume(&ground.store);
    for round in 0..4 {
        let name = format!("fresh{round}");
        ground.psql(&format!(
            "CREATE TABLE {name} (id serial PRIMARY KEY, account_id int);
             ALTER TABLE {name} REPLICA IDENTITY FULL"
        ));
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..40 {
                    ground.psql(&format!(
                        "INSERT INTO {name} (account_id) VALUES (1), (2);
                         UPDATE {name} SET account_id = account_id + 1 WHERE id % 3 = 0;
                         DELETE FROM {name} WHERE id % 7 = 0"
                    ));
                }
                is_over.store(true, std::sync::atomic::Ordering::Release);
            });
            while !is_over.load(std::sync::atomic::Ordering::Acquire) {
                follower.drain(feed.as_mut()).unwrap();
            }
        });
        follower.drain(feed.as_mut()).unwrap();
        follower.expect_live(&ground.store);
    }
}

/// New tables are locked together. While one is waited for, another one comes: all of them are followed.
#[test]
fn a_table_that_comes_while_another_is_waited_for_is_followed_with_it() {
    let ground = ground(TABLES);
    let mut follower = begin(&ground);
    let mut feed = follower.resume(&ground.store);
    let new = |name: &str| {
        ground.psql(&format!(
            "CREATE TABLE {name} (id int PRIMARY KEY, account_id int);
             ALTER TABLE {name} REPLICA IDENTITY FULL;
             INSERT INTO {name} SELECT n, n % 3 FROM generate_series(1, 20) n"
        ));
    };
    new("first");
    let writer = Prompt::after(&ground, "writer", "INSERT INTO first VALUES (90, 1)");
    let waits = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
                  WHERE NOT granted AND mode = 'ShareLock' AND datname = current_database()";
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| follower.drain(feed.as_mut()).map(drop));
        eventually(|| ground.psql(waits) == "1");
        new("second");
        writer.commit();
        drained.join().unwrap().unwrap();
    });
    follower.drain(feed.as_mut()).unwrap();
    follower.expect_live(&ground.store);
    ground.psql("UPDATE first SET account_id = 7; DELETE FROM second WHERE id < 4");
    follower.drain(feed.as_mut()).unwrap();
    follower.expect_live(&ground.store);
}

/// Another table shows its alteration before the new one was read: what is written to the new one in
/// between is in the rows that were read, and not handed over besides.
#[test]
fn rows_of_a_new_table_are_not_doubled_where_another_table_is_altered_first() {
    for is_followed in [true, false] {
        let ground = ground(TABLES);
        let mut follower = begin(&ground);
        let mut feed = is_followed.then(|| follower.resume(&ground.store));
        ground.psql(NEW);
        ground.psql("ALTER TABLE t ADD COLUMN more text DEFAULT 'more'");
        write(&ground, 1);
        ground.psql(
            "ALTER PUBLICATION reinstate ADD TABLE fresh, loose;
             INSERT INTO fresh VALUES (90, 2, 1, 'late', 4); UPDATE fresh SET more = 9 WHERE id < 9;
             DELETE FROM fresh WHERE id = 12; INSERT INTO loose VALUES (1, NULL); TRUNCATE loose;
             INSERT INTO loose VALUES (2, 'x')",
        );
        match &mut feed {
            Some(feed) => drop(follower.drain(feed.as_mut()).unwrap()),
            None => follower.follow(&ground.store).unwrap(),
        }
        follower.expect_live(&ground.store);
    }
}

/// While new tables wait for their lock, another one comes: what was looked up before is not what there is.
#[test]
fn a_table_that_comes_while_another_new_one_is_being_locked_is_followed_as_well() {
    let ground = ground(TABLES);
    let mut follower = Follower::begin(&ground.store);
    let mut feed = follower.resume(&ground.store);
    follower.drain(feed.as_mut()).unwrap();
    let fresh = |name: &str| {
        format!(
            "CREATE TABLE {name} (id int PRIMARY KEY, account_id int);
             ALTER TABLE {name} REPLICA IDENTITY FULL; INSERT INTO {name} VALUES (1, 1);"
        )
    };
    ground.psql(&fresh("first"));
    let mut writer = Session::of(&ground);
    writer.run("BEGIN; INSERT INTO first VALUES (2, 2)");
    std::thread::scope(|scope| {
        let following = scope.spawn(|| follower.drain(feed.as_mut()).map(drop));
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'ShareLock'
                          AND relation = 'first'::regclass";
        while ground.psql(waiting) != "1" {}
        ground.psql(&fresh("second"));
        writer.run("COMMIT");
        following.join().unwrap().unwrap();
    });
    follower.expect_live(&ground.store);
    ground.psql("INSERT INTO first VALUES (3, 3); INSERT INTO second VALUES (3, 3)");
    follower.drain(feed.as_mut()).unwrap();
    follower.expect_live(&ground.store);
}
