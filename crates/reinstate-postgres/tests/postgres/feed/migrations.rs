//! What migration tools do: one statement after the other, each in a transaction of its own, faster than
//! anybody follows.

use super::partitions::WHOLE;
use super::session::Session;
use super::streamed::sent_early;
use reinstate_core::FeedSource;
use reinstate_postgres::{PostgresStore, TableRule, Unowned};

use super::{Content, Follower, SNAPSHOT, ground};
use crate::ground::{Ground, open_store_with, open_store_with_map};
use crate::lease::eventually;

const TABLES: &str = "\
CREATE TABLE t (id int PRIMARY KEY, account_id int, note text);
INSERT INTO t SELECT n, 1, 'x' || n FROM generate_series(1, 9) n;
";

/// Tables that come, with rows.
const COME: &str = "\
CREATE TABLE fresh (id int PRIMARY KEY, account_id int, n int NOT NULL DEFAULT 3, spare date DEFAULT '2020-02-02');
INSERT INTO fresh SELECT n, 1 + n % 3, n FROM generate_series(1, 20) n;
ALTER TABLE fresh ADD COLUMN early text DEFAULT 'early';
CREATE TABLE parted (id int PRIMARY KEY, account_id int, n int) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100);
INSERT INTO parted SELECT n, 1 + n % 3, n FROM generate_series(1, 20) n;
";

/// What becomes of them, or of others, once they were read, and before their rows are handed over.
const BECOME: &[&str] = &[
    "SELECT 1",
    "CREATE TABLE second (id int PRIMARY KEY, account_id int, n int);
     INSERT INTO second SELECT n, 1, n FROM generate_series(1, 9) n",
    "CREATE TABLE second (id int PRIMARY KEY, account_id int, n int); ALTER TABLE second ADD COLUMN more int;
     ALTER TABLE fresh ADD FOREIGN KEY (n) REFERENCES second NOT VALID; DROP TABLE parted",
    "ALTER TABLE fresh ADD COLUMN more text DEFAULT 'more'",
    "ALTER TABLE fresh ADD COLUMN more int; UPDATE fresh SET more = id WHERE id % 2 = 0;
     ALTER TABLE fresh RENAME COLUMN more TO most; UPDATE fresh SET most = 7 WHERE id = 5;
     ALTER TABLE fresh ADD COLUMN again text NOT NULL DEFAULT 'x'",
    "ALTER TABLE fresh DROP COLUMN spare",
    "ALTER TABLE fresh RENAME COLUMN n TO x; ALTER TABLE fresh RENAME COLUMN early TO n;
     ALTER TABLE fresh RENAME COLUMN x TO early",
    "ALTER TABLE fresh RENAME TO other; ALTER TABLE other ADD COLUMN more int DEFAULT 5",
    // What follows cannot be followed where rows are in the log already.
    "ALTER TABLE fresh ALTER n TYPE bigint",
    "ALTER TABLE fresh ADD COLUMN at timestamptz DEFAULT clock_timestamp()",
    "TRUNCATE fresh; INSERT INTO fresh VALUES (1, 1, 1); ALTER TABLE fresh ADD COLUMN more int",
    "ALTER TABLE fresh ADD COLUMN more int DEFAULT 8; VACUUM FULL fresh; ALTER TABLE fresh ADD COLUMN most int",
    "ALTER TABLE fresh DROP CONSTRAINT fresh_pkey, ADD PRIMARY KEY (id, n)",
    "ALTER TABLE fresh DROP COLUMN early, ADD COLUMN late text DEFAULT 'late'",
    "ALTER PUBLICATION reinstate DROP TABLE fresh; UPDATE fresh SET n = n + 1 WHERE id < 9;
     ALTER PUBLICATION reinstate ADD TABLE fresh; UPDATE fresh SET n = n + 1 WHERE id < 4",
    "ALTER PUBLICATION reinstate DROP TABLE fresh; UPDATE fresh SET n = n + 1 WHERE id < 9",
    "DROP TABLE fresh",
    "DROP TABLE fresh; CREATE TABLE fresh (id int PRIMARY KEY, account_id int, n int, other text);
     INSERT INTO fresh VALUES (1, 2, 3, 'other')",
    "DROP TABLE fresh, parted; CREATE TABLE parted (id int PRIMARY KEY, account_id int, n int);
     INSERT INTO parted VALUES (1, 2, 3)",
    "CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (100) TO (200);
     INSERT INTO parted VALUES (150, 1, 1); UPDATE parted SET id = id + 100 WHERE id IN (2, 3)",
    "ALTER TABLE parted DETACH PARTITION parted_1",
    "ALTER TABLE parted DETACH PARTITION parted_1; UPDATE parted_1 SET n = 77 WHERE id < 4;
     ALTER TABLE parted ATTACH PARTITION parted_1 FOR VALUES FROM (0) TO (100)",
    "DROP TABLE parted_1",
    "CREATE TABLE parted_2 (LIKE parted INCLUDING ALL); INSERT INTO parted_2 VALUES (150, 1, 1);
     ALTER TABLE parted ATTACH PARTITION parted_2 FOR VALUES FROM (100) TO (200)",
    "ALTER TABLE t ADD COLUMN more int DEFAULT 4; UPDATE t SET more = 5 WHERE id = 1;
     ALTER TABLE t ADD COLUMN most int DEFAULT 6; UPDATE t SET most = 7 WHERE id = 2;
     ALTER TABLE t RENAME COLUMN more TO moved; ALTER TABLE t RENAME COLUMN most TO more",
];

/// Writes to whatever there is.
fn write(ground: &Ground, round: u32) {
    let id = 30 + round;
    let mut session = Session::of(ground);
    for table in ["t", "fresh", "other", "second", "parted", "parted_1"] {
        for sql in [
            format!("INSERT INTO {table} (id, account_id) VALUES ({id}, 1)"),
            format!("UPDATE {table} SET account_id = account_id + 1 WHERE id % 5 = {round}"),
            format!("DELETE FROM {table} WHERE id = 10 + {round}"),
            format!("UPDATE {table} SET n = n + 100 WHERE id % 7 = {round}"),
        ] {
            session.run(&sql);
        }
    }
}

/// A follower, and tables that were published and read, and whose rows wait for their place.
fn taken_in() -> (Ground, Follower) {
    let ground = ground(TABLES);
    ground.psql(WHOLE);
    let mut follower = Follower::begin(&ground.store);
    follower.follow(&ground.store).unwrap();
    (ground, follower)
}

/// The store of whoever says by which others these tables go, now that they are there.
fn with_ways(ground: &Ground, ways: &[(&str, &str)]) -> PostgresStore {
    open_store_with_map(&ground.database.url(), |map| {
        for (table, reference) in ways {
            let reference = (*reference).to_owned();
            let unowned = Unowned::Refused;
            let rule = TableRule::Via { reference, unowned };
            map.tables.insert((*table).to_owned(), rule);
        }
    })
}

fn come(ground: &Ground) {
    ground.psql(COME);
    ground.psql("UPDATE t SET note = 'shown' WHERE id = 1");
}

#[track_caller]
fn expect_waiting(ground: &Ground, follower: &Follower) {
    let published = "SELECT count(*) FROM pg_publication_tables WHERE tablename = 'fresh'";
    assert_eq!(ground.psql(published), "1", "it was not taken in");
    assert!(
        !follower
            .schema
            .iter()
            .any(|(_, table)| table.name.as_str() == "fresh")
    );
}

/// The same follower, or one that starts where the first was when it was killed.
fn check_all(is_killed: bool) {
    for sql in BECOME {
        let (ground, mut follower) = taken_in();
        let mut feed = follower.resume(&ground.store);
        come(&ground);
        feed.read(1, &mut follower).unwrap();
        expect_waiting(&ground, &follower);
        write(&ground, 1);
        ground.psql(sql);
        write(&ground, 2);
        if is_killed {
            drop(feed);
            feed = follower.resume(&ground.store);
        }
        let drained = follower.drain(feed.as_mut());
        drained.unwrap_or_else(|error| panic!("{sql}: {error}"));
        follower.expect_live(&ground.store);
        write(&ground, 3);
        follower.drain(feed.as_mut()).unwrap();
        follower.expect_live(&ground.store);
        drop(feed);
        // And again, from what was noted.
        write(&ground, 4);
        follower.follow(&ground.store).unwrap();
        follower.expect_live(&ground.store);
        assert!(Content::live(&ground.store).count("t") > 5);
        ground.store.end_feed(SNAPSHOT).unwrap();
    }
}

#[test]
fn a_feed_goes_on_over_whatever_becomes_of_a_new_table_before_its_rows_are_handed_over() {
    check_all(false);
}

#[test]
fn a_follower_that_is_killed_before_rows_of_a_new_table_are_handed_over_reads_them_anew() {
    check_all(true);
}

/// Each statement is read by itself, while others wait: as many tables as there are looks.
#[test]
fn tables_that_come_one_behind_the_other_wait_for_their_places_together() {
    let (ground, mut follower) = taken_in();
    let mut feed = follower.resume(&ground.store);
    for number in 0..5 {
        ground.psql(&format!(
            "CREATE TABLE fresh{number} (id int PRIMARY KEY, account_id int);
             INSERT INTO fresh{number} SELECT n, 1 FROM generate_series(1, 9) n;"
        ));
        ground.psql("UPDATE t SET note = note || '.' WHERE id = 1");
        feed.read(1, &mut follower).unwrap();
        for other in 0..=number {
            ground.psql(&format!(
                "INSERT INTO fresh{other} VALUES (100 + {number}, 2);
                 UPDATE fresh{other} SET account_id = account_id + 1 WHERE id % 3 = {number} % 3;
                 ALTER TABLE fresh{other} ADD COLUMN c{number} int DEFAULT {number}"
            ));
        }
    }
    follower.drain(feed.as_mut()).unwrap();
    follower.expect_live(&ground.store);
    drop(feed);
    ground.psql("UPDATE fresh0 SET c4 = 9; UPDATE fresh4 SET c4 = 9 WHERE id = 3");
    follower.follow(&ground.store).unwrap();
    follower.expect_live(&ground.store);
}

/// Whatever was written down before it was stopped, and however often.
#[test]
fn a_follower_that_is_stopped_at_any_step_of_a_migration_goes_on() {
    let (ground, mut follower) = taken_in();
    let mut stops = 0;
    for steps in 0.. {
        ground.psql(&format!(
            "CREATE TABLE a{steps} (id int PRIMARY KEY, account_id int);
             INSERT INTO a{steps} VALUES (1, 1), (2, 2);"
        ));
        ground.psql("UPDATE t SET note = 'x' WHERE id = 1");
        let mut feed = follower.resume(&ground.store);
        feed.read(1, &mut follower).unwrap();
        ground.psql(&format!(
            "CREATE TABLE b{steps} (id int PRIMARY KEY, account_id int);
             INSERT INTO b{steps} VALUES (1, 1), (2, 2); INSERT INTO a{steps} VALUES (3, 1);
             ALTER TABLE a{steps} ADD COLUMN more int DEFAULT 3; INSERT INTO a{steps} VALUES (4, 1);
             ALTER TABLE t ADD COLUMN c{steps} int; UPDATE t SET c{steps} = 4 WHERE id = 2;"
        ));
        follower.steps_left = Some(steps);
        let stopped = follower.drain(feed.as_mut()).is_err();
        drop(feed);
        stops += u32::from(stopped);
        ground.psql(&format!(
            "INSERT INTO a{steps} VALUES (5, 1); DELETE FROM a{steps} WHERE id = 2;
             ALTER TABLE b{steps} ADD COLUMN more int DEFAULT 3; INSERT INTO b{steps} VALUES (5, 1);
             UPDATE a{steps} SET account_id = 7 WHERE id = 1"
        ));
        // Again, somewhere else.
        follower.steps_left = Some(steps / 2);
        if let Ok(mut feed) = follower.try_resume(&ground.store) {
            let _ = follower.drain(feed.as_mut());
        }
        ground.psql(&format!("UPDATE b{steps} SET account_id = 7 WHERE id = 1"));
        if steps % 2 == 0 {
            ground.psql(&format!(
                "DROP TABLE a{steps}; UPDATE t SET note = 'y' WHERE id = 1"
            ));
        }
        follower.steps_left = None;
        follower.follow(&ground.store).unwrap();
        follower.expect_live(&ground.store);
        if !stopped {
            break;
        }
    }
    assert!(stops > 10, "{stops}");
}

/// Nobody knows any more that it was one of the tables, but for what the log itself says.
#[test]
fn a_table_that_was_taken_in_by_a_follower_that_was_killed_and_is_gone_is_passed_over() {
    let (ground, mut follower) = taken_in();
    let mut feed = follower.resume(&ground.store);
    come(&ground);
    feed.read(1, &mut follower).unwrap();
    expect_waiting(&ground, &follower);
    drop(feed);
    write(&ground, 1);
    ground.psql("DROP TABLE fresh, parted");
    // Killed again, behind the place where it was taken in.
    let mut feed = follower.resume(&ground.store);
    feed.read(1, &mut follower).unwrap();
    drop(feed);
    let mut feed = follower.resume(&ground.store);
    feed.read(1, &mut follower).unwrap();
    drop(feed);
    follower.follow(&ground.store).unwrap();
    follower.expect_live(&ground.store);
    write(&ground, 2);
    follower.follow(&ground.store).unwrap();
    follower.expect_live(&ground.store);
}

/// It was read anew after it was taken in, and whoever did that is killed between the two places, to the first of
/// which nobody comes back: what was written in between is told of before the log says once more what it was.
#[test]
fn a_table_that_was_taken_in_twice_and_is_gone_before_the_second_place_is_passed_over() {
    for is_killed_first in [false, true] {
        let (ground, mut follower) = taken_in();
        let mut feed = follower.resume(&ground.store);
        come(&ground);
        feed.read(1, &mut follower).unwrap();
        expect_waiting(&ground, &follower);
        write(&ground, 1);
        if is_killed_first {
            drop(feed);
            feed = follower.resume(&ground.store);
        } else {
            ground.psql("ALTER TABLE fresh ALTER n TYPE bigint");
        }
        let commit_count = follower.commits.len();
        feed.read(1, &mut follower).unwrap();
        drop(feed);
        assert_eq!(follower.commits.len(), commit_count + 1);
        write(&ground, 2);
        ground.psql("DROP TABLE fresh, parted");
        for _ in 0..3 {
            let mut feed = follower.resume(&ground.store);
            feed.read(1, &mut follower).unwrap();
        }
        follower.follow(&ground.store).unwrap();
        follower.expect_live(&ground.store);
        write(&ground, 3);
        follower.follow(&ground.store).unwrap();
        follower.expect_live(&ground.store);
    }
}

/// The server sends the transaction that took it in before it is committed, and what it says with it; also where
/// somebody's trigger wrote so many rows in it that they wait in a file.
#[test]
fn a_table_that_is_gone_is_passed_over_also_if_what_took_it_in_came_early() {
    for rows in [0, 1, 400] {
        let (ground, mut follower) = taken_in();
        ground.psql(&format!(
            "CREATE FUNCTION pad() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO public.t SELECT 1000 + n, 1, repeat('x', 900) FROM generate_series(1, {rows}) n
                   ON CONFLICT (id) DO NOTHING;
                 PERFORM pg_logical_emit_message(true, 'padding', repeat('x', 70000));
             END $$;
             CREATE EVENT TRIGGER pad ON ddl_command_end WHEN TAG IN ('ALTER PUBLICATION') EXECUTE FUNCTION pad()",
        ));
        let mut feed = follower.resume(&ground.store);
        come(&ground);
        feed.read(1, &mut follower).unwrap();
        expect_waiting(&ground, &follower);
        drop(feed);
        write(&ground, 1);
        ground.psql("DROP TABLE fresh, parted");
        for round in 0..3 {
            let mut feed = follower.resume(&ground.store);
            feed.read(1, &mut follower)
                .unwrap_or_else(|error| panic!("{rows} rows, round {round}: {error}"));
        }
        follower
            .follow(&ground.store)
            .unwrap_or_else(|error| panic!("{rows} rows: {error}"));
        follower.expect_live(&ground.store);
        assert!(sent_early(&ground) > 0);
    }
}

/// A table that goes: what was written to it comes behind the tables without it, and is of no account.
#[test]
fn a_follower_that_is_killed_behind_a_table_that_went_goes_on() {
    let (ground, mut follower) = taken_in();
    ground.psql("CREATE TABLE u (id int PRIMARY KEY, account_id int); CREATE TABLE v (LIKE t INCLUDING ALL)");
    follower.follow(&ground.store).unwrap();
    ground.psql("ALTER TABLE t ADD COLUMN more int; UPDATE t SET more = 1 WHERE id = 1");
    for id in 0..4 {
        ground.psql(&format!("INSERT INTO u VALUES ({id}, 1)"));
    }
    ground.psql("DROP TABLE u; UPDATE t SET more = 2 WHERE id = 1");
    for _ in 0..3 {
        let mut feed = follower.resume(&ground.store);
        feed.read(1, &mut follower).unwrap();
    }
    assert!(
        !follower
            .schema
            .iter()
            .any(|(_, table)| table.name.as_str() == "u")
    );
    follower.follow(&ground.store).unwrap();
    follower.expect_live(&ground.store);
}

/// Tools make tables in the order of their names, and foreign keys in the end. A row that came before the one that
/// it goes by would wait in memory until the transaction ends.
#[test]
fn rows_of_new_tables_come_behind_those_that_they_go_by() {
    let (ground, mut follower) = taken_in();
    ground.psql(
        "CREATE TABLE a (id int PRIMARY KEY, b_id int NOT NULL);
         CREATE TABLE b (id int PRIMARY KEY, c_id int NOT NULL);
         CREATE TABLE c (id int PRIMARY KEY, account_id int);
         INSERT INTO c VALUES (1, 1); INSERT INTO b VALUES (2, 1); INSERT INTO a VALUES (3, 2), (4, 2);
         ALTER TABLE a ADD FOREIGN KEY (b_id) REFERENCES b;
         ALTER TABLE b ADD FOREIGN KEY (c_id) REFERENCES c",
    );
    let store = with_ways(&ground, &[("a", "b_id -> b.id"), ("b", "c_id -> c.id")]);
    follower.follow(&store).unwrap();
    assert_eq!(follower.came, ["c", "b", "a"]);
    follower.expect_live(&store);
}

/// Others commit between the moment from which a new table is in step and the transaction that says so, and that is
/// where the follower is killed: it is seen only later, in the stream, that the rows are lost. A table that goes by
/// it, and that is new by then, was read before it again: its rows came first, and belonged to nobody.
#[test]
fn tables_that_go_by_one_that_a_killed_follower_took_in_come_behind_it() {
    let (ground, mut follower) = taken_in();
    let mut feed = follower.resume(&ground.store);
    ground.psql(
        "CREATE TABLE fresh (id int PRIMARY KEY, account_id int);
         INSERT INTO fresh SELECT n, 1 FROM generate_series(1, 5) n",
    );
    ground.psql("UPDATE t SET note = 'shown' WHERE id = 1");
    feed.read(1, &mut follower).unwrap();
    expect_waiting(&ground, &follower);
    // It is noted, and does not come.
    follower.steps_left = Some(0);
    follower.drain(feed.as_mut()).unwrap_err();
    drop(feed);
    follower.steps_left = None;
    follower.came.clear();
    commit_meanwhile(&follower, "fresh");
    ground.psql(
        "CREATE TABLE child (id int PRIMARY KEY, fresh_id int NOT NULL REFERENCES fresh);
         INSERT INTO child SELECT n, 1 + n % 5 FROM generate_series(1, 7) n",
    );
    let store = with_ways(&ground, &[("child", "fresh_id -> fresh.id")]);
    follower.follow(&store).unwrap();
    assert_eq!(follower.came, ["fresh", "child"]);
    follower.expect_live(&store);
    ground.psql("INSERT INTO fresh VALUES (6, 1); INSERT INTO child VALUES (8, 6)");
    follower.follow(&store).unwrap();
    follower.expect_live(&store);
}

/// Makes it so in what was noted that everything up to here was committed between the moment of a table that waits
/// and its transaction.
fn commit_meanwhile(follower: &Follower, name: &str) {
    let facts = follower.facts.take().unwrap();
    let facts = String::from_utf8(facts).unwrap();
    let mut count = 0;
    let lines = facts.lines().map(|line| {
        let mut fields: Vec<String> = line.split('\t').map(str::to_owned).collect();
        if fields[0] == "table" && fields[2] == name {
            assert_ne!(fields[5], "0", "it waits for no transaction");
            assert!(fields[4].parse::<u64>().unwrap() > follower.at.commit);
            fields[4] = follower.at.commit.to_string();
            count += 1;
        }
        fields.join("\t") + "\n"
    });
    let facts: String = lines.collect();
    assert_eq!(count, 1);
    follower.facts.replace(Some(facts.into_bytes()));
}

/// Whatever their number: neither memory nor open files go up with it.
#[test]
fn rows_of_many_new_tables_wait_in_one_file() {
    let (ground, mut follower) = taken_in();
    let directory = tempfile::tempdir().unwrap();
    let store = open_store_with(&ground.database.url(), |settings| {
        settings.spill_directory = directory.path().to_owned();
    });
    let mut feed = follower.resume(&store);
    for number in 0..6 {
        ground.psql(&format!(
            "CREATE TABLE large{number} (id int PRIMARY KEY, account_id int, note text);
             INSERT INTO large{number} SELECT n, 1, repeat('x', 1000) || n FROM generate_series(1, 400) n"
        ));
    }
    ground.psql("UPDATE t SET note = 'shown' WHERE id = 1");
    feed.read(1, &mut follower).unwrap();
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    let files = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    let spilled = files.filter(|file| file.starts_with(directory.path()));
    assert_eq!(spilled.count(), 1);
    follower.drain(feed.as_mut()).unwrap();
    follower.expect_live(&ground.store);
}

/// More than may wait in memory lies in a file meanwhile.
#[test]
fn a_new_table_of_any_size_is_followed() {
    let (ground, mut follower) = taken_in();
    let mut feed = follower.resume(&ground.store);
    ground.psql(
        "CREATE TABLE large (id int PRIMARY KEY, account_id int, note text);
         INSERT INTO large SELECT n, 1, repeat('x', 1000) || n FROM generate_series(1, 70000) n",
    );
    follower.counts_only = true;
    follower.drain(feed.as_mut()).unwrap();
    assert!(
        follower.counts.contains(&[70_000, 0, 0, 0]),
        "{:?}",
        follower.counts
    );
    ground.psql("DELETE FROM large WHERE id > 3");
    follower.drain(feed.as_mut()).unwrap();
    assert!(
        follower.counts.contains(&[0, 0, 69_997, 0]),
        "{:?}",
        follower.counts
    );
}

/// There is room for few rows only: the others are altered on their way to the sink.
#[test]
fn rows_that_waited_in_a_file_become_rows_of_the_table_as_it_is() {
    let (ground, mut follower) = taken_in();
    let mut feed = follower.resume(&ground.store);
    ground.psql(
        "CREATE TABLE fresh (id int PRIMARY KEY, account_id int, gone text, note text);
         INSERT INTO fresh SELECT n, 1, 'x', repeat('y', 500) || n FROM generate_series(1, 2000) n;
         INSERT INTO fresh VALUES (0, NULL, NULL, NULL)",
    );
    ground.psql("UPDATE t SET note = 'shown' WHERE id = 1");
    feed.read(1, &mut follower).unwrap();
    expect_waiting(&ground, &follower);
    ground.psql(
        "ALTER TABLE fresh DROP COLUMN gone; ALTER TABLE fresh ADD COLUMN more text DEFAULT 'more';
         UPDATE fresh SET more = 'x' WHERE id % 100 = 0",
    );
    follower.drain(feed.as_mut()).unwrap();
    follower.expect_live(&ground.store);
}

/// A migration holds one table and wants another, which the follower has looked at while it waits for the first:
/// the follower lets go, and nobody is stopped by the server.
#[test]
fn a_migration_that_alters_several_tables_at_once_is_not_stopped_by_a_follower_that_looks() {
    let ground = ground(&format!(
        "CREATE TABLE a (id int PRIMARY KEY, account_id int);{TABLES}"
    ));
    ground.psql(WHOLE);
    let mut follower = Follower::begin(&ground.store);
    follower.follow(&ground.store).unwrap();
    let mut feed = follower.resume(&ground.store);
    ground.psql(
        "CREATE TABLE fresh (id int PRIMARY KEY, account_id int); INSERT INTO fresh VALUES (1, 1)",
    );
    let mut migration = Session::of(&ground);
    migration.run("BEGIN; ALTER TABLE t ADD COLUMN more int");
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessShareLock'
                    AND relation = 't'::regclass";
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| follower.drain(feed.as_mut()).map(drop));
        eventually(|| ground.psql(waits) == "1");
        migration.run("ALTER TABLE a ADD COLUMN more int; COMMIT");
        drained.join().unwrap().unwrap();
    });
    let altered = "SELECT count(*) FROM pg_attribute WHERE attname = 'more'
                     AND attrelid IN ('a'::regclass, 't'::regclass)";
    assert_eq!(ground.psql(altered), "2", "the migration was stopped");
    follower.drain(feed.as_mut()).unwrap();
    follower.expect_live(&ground.store);
}
