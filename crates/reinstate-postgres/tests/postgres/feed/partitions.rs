//! Partitions that come while their table is followed.

use reinstate_core::FeedSource;

use super::{Content, Follower, SNAPSHOT, ground};
use crate::ground::Ground;

const TABLES: &str = "\
CREATE TABLE parts (id int, account_id int, note text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (id);
CREATE TABLE parts_2a PARTITION OF parts_2 FOR VALUES FROM (100) TO (150);
CREATE TABLE other (id int PRIMARY KEY, account_id int);
INSERT INTO parts SELECT n, n % 3, 'start' FROM generate_series(1, 140) n;
";

/// Ways in which a partition for 200 to 299 comes, whole or in part, and is written to at once.
const COMES: &[&str] = &[
    "CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (200) TO (300)",
    "BEGIN; CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (200) TO (300);
     INSERT INTO parts VALUES (203, 1, 'at once'); COMMIT",
    "BEGIN; SAVEPOINT a; CREATE TABLE parts_3 PARTITION OF parts DEFAULT; RELEASE a;
     UPDATE parts SET id = id + 200 WHERE id IN (3, 103); COMMIT",
    "CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (200) TO (300) PARTITION BY HASH (id);
     CREATE TABLE parts_3a PARTITION OF parts_3 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
     CREATE TABLE parts_3b PARTITION OF parts_3 FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    // Below one that was there.
    "CREATE TABLE parts_2b PARTITION OF parts_2 FOR VALUES FROM (150) TO (200);
     CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (200) TO (300)",
    // Altered since.
    "CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (200) TO (300);
     ALTER TABLE parts ALTER account_id SET DEFAULT 1; ALTER TABLE parts_3 ALTER note SET NOT NULL",
    // Two at once, and a table of its own.
    "CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (200) TO (250);
     CREATE TABLE parts_4 PARTITION OF parts FOR VALUES FROM (250) TO (300);
     CREATE TABLE fresh (id int PRIMARY KEY, account_id int); ALTER TABLE fresh REPLICA IDENTITY FULL;
     INSERT INTO fresh VALUES (1, 1)",
];

/// Writes to what there is, by way of the table, and moves rows between its parts.
fn write(ground: &Ground, round: u32) {
    for sql in [
        format!(
            "INSERT INTO parts SELECT n, 1, 'r{round}' FROM generate_series(210, 290, 7) n ON CONFLICT DO NOTHING"
        ),
        format!("INSERT INTO parts VALUES (160 + {round}, 1, 'x')"),
        "UPDATE parts SET id = id + 1 WHERE id IN (99, 149, 249)".to_owned(),
        format!("UPDATE parts SET note = 'u{round}', account_id = 2 WHERE id % 5 = {round}"),
        format!("DELETE FROM parts WHERE id % 11 = {round}"),
        format!("INSERT INTO other VALUES ({round}, 1)"),
    ] {
        // What has no partition yet is refused.
        let _ = ground.database.psql(&sql);
    }
}

/// Every partition logs its old rows whole from its first row on: it is followed by whoever takes
/// whole rows only.
pub const WHOLE: &str = "\
CREATE FUNCTION whole() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE t regclass; BEGIN
    FOR t IN SELECT objid FROM pg_event_trigger_ddl_commands() WHERE command_tag = 'CREATE TABLE' LOOP
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', t);
    END LOOP;
END $$;
CREATE EVENT TRIGGER whole ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION whole();
";

#[test]
fn a_partition_that_comes_is_followed_from_its_first_row_on() {
    for sql in COMES {
        for read_between in [true, false] {
            let ground = ground(TABLES);
            ground.psql(WHOLE);
            let mut follower = Follower::begin(&ground.store);
            let mut feed = follower.resume(&ground.store);
            write(&ground, 1);
            follower.drain(feed.as_mut()).unwrap();
            ground.psql(sql);
            if read_between {
                follower.drain(feed.as_mut()).unwrap();
                follower.expect_live(&ground.store);
            }
            write(&ground, 2);
            let drained = follower.drain(feed.as_mut());
            drained.unwrap_or_else(|error| panic!("{sql}: {error}"));
            follower.expect_live(&ground.store);
            drop(feed);
            // And again, from what was noted.
            write(&ground, 3);
            follower.follow(&ground.store).unwrap();
            follower.expect_live(&ground.store);
            ground.psql("TRUNCATE parts");
            write(&ground, 4);
            follower.follow(&ground.store).unwrap();
            follower.expect_live(&ground.store);
            assert!(Content::live(&ground.store).count("parts") > 10, "{sql}");
            ground.store.end_feed(SNAPSHOT).unwrap();
        }
    }
}

/// Made as a table and attached, as some tools do, to be written to later.
#[test]
fn a_partition_that_is_attached_without_rows_is_followed() {
    for sql in [
        "BEGIN; CREATE TABLE parts_3 (LIKE parts INCLUDING ALL);
         ALTER TABLE parts ATTACH PARTITION parts_3 FOR VALUES FROM (200) TO (300); COMMIT",
        "CREATE TABLE parts_3 (LIKE parts INCLUDING ALL); ALTER TABLE parts_3 REPLICA IDENTITY FULL;
         ALTER TABLE parts ATTACH PARTITION parts_3 FOR VALUES FROM (200) TO (300)",
    ] {
        let ground = ground(TABLES);
        ground.psql(WHOLE);
        let mut follower = Follower::begin(&ground.store);
        follower.follow(&ground.store).unwrap();
        ground.psql(sql);
        follower.follow(&ground.store).unwrap();
        write(&ground, 2);
        follower.follow(&ground.store).unwrap();
        follower.expect_live(&ground.store);
    }
}
