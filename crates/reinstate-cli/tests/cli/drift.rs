//! Tables that changed between the snapshot and now: rows come back into what the tables are now,
//! or nothing is written.

use crate::ground::Ground;

const SCHEMA: &str = "\
CREATE TYPE mood AS ENUM ('calm', 'angry');
CREATE TABLE tickets (id int PRIMARY KEY, account_id int NOT NULL, title varchar(40), size int,
                      note text, mood mood);
CREATE TABLE comments (id int PRIMARY KEY, ticket_id int NOT NULL REFERENCES tickets, body text);
CREATE TABLE visits (account_id int NOT NULL, page text);
INSERT INTO tickets SELECT n, n % 3, 'ticket ' || n, n * 1000, 'n' || n,
    (ARRAY['calm', 'angry'])[n % 2 + 1]::mood FROM generate_series(1, 60) n;
INSERT INTO comments SELECT n, n % 60 + 1, 'c' || n FROM generate_series(1, 120) n;
INSERT INTO visits SELECT n % 3, 'p' || n % 5 FROM generate_series(1, 90) n;
";

const TENANCY: &str = "\
[tenancy]
kind = \"account\"
column = \"account_id\"
[tenancy.table.comments]
via = \"ticket_id -> tickets.id\"
";

/// What an incident does to tenant 1: some rows go, one is written over, one is new.
const INCIDENT: &str = "\
DELETE FROM comments WHERE ticket_id IN (SELECT id FROM tickets WHERE account_id = 1 AND id < 40);
DELETE FROM tickets WHERE account_id = 1 AND id < 40;
DELETE FROM visits WHERE account_id = 1 AND page = 'p1';
";

fn captured() -> Ground {
    Ground::captured(SCHEMA, TENANCY)
}

/// Everything in the three tables, as the statement after a migration would have it.
fn contents(ground: &Ground, tickets: &str) -> String {
    ground.psql(&format!(
        "SELECT {tickets} FROM tickets t ORDER BY id; SELECT t.*::text FROM comments t \
         ORDER BY 1; SELECT t.*::text FROM visits t ORDER BY 1"
    ))
}

/// Migrates, and checks that a restore ends where the migration alone would have ended.
fn check(ground: &Ground, migration: &str, tickets: &str, says: &[&str]) {
    ground.psql(migration);
    let expected = contents(ground, tickets);
    let others = "SELECT t.xmin, t.* FROM tickets t WHERE account_id <> 1 ORDER BY id";
    let others_before = ground.psql(others);
    ground.psql(INCIDENT);
    assert_ne!(contents(ground, tickets), expected);
    ground.restore(&[]).done(says);
    assert_eq!(contents(ground, tickets), expected);
    assert_eq!(ground.psql(others), others_before);
    let again = ground.restore(&[]);
    again.done(&["no change"]);
}

#[test]
fn columns_that_were_added_hold_what_the_migration_gave_them() {
    let ground = captured();
    let decided = "[drift.table.visits]\nvalues = { seconds = \"1.50\" }\n";
    ground.configure(&format!("{TENANCY}{decided}"));
    let migration = "\
        ALTER TABLE tickets ADD COLUMN colour text;
        ALTER TABLE tickets ADD COLUMN state varchar(10) NOT NULL DEFAULT 'open';
        ALTER TABLE tickets ADD COLUMN urgent boolean NOT NULL DEFAULT false;
        ALTER TABLE tickets ADD COLUMN tags text[] NOT NULL DEFAULT ARRAY['a', 'b c']::text[];
        ALTER TABLE visits ADD COLUMN seconds numeric(6,2) DEFAULT 1.5;
        UPDATE tickets SET colour = 'red' WHERE id = 43;";
    let says = [
        "tickets.colour added: rows that come back hold NULL",
        "tickets.state added: rows that come back hold its default",
    ];
    check(&ground, migration, "t.*::text", &says);
}

#[test]
fn columns_may_stand_in_another_order_and_be_wider() {
    let ground = captured();
    let migration = "\
        CREATE TABLE moved (mood mood, note text, size bigint, title text, account_id int NOT NULL,
                            id bigint PRIMARY KEY);
        INSERT INTO moved SELECT mood, note, size, title, account_id, id FROM tickets;
        ALTER TABLE comments DROP CONSTRAINT comments_ticket_id_fkey;
        ALTER TABLE comments ALTER ticket_id TYPE bigint;
        DROP TABLE tickets;
        ALTER TABLE moved RENAME TO tickets;
        ALTER TABLE comments ADD FOREIGN KEY (ticket_id) REFERENCES tickets;";
    let says = ["tickets.size was integer, is bigint: the values stay the same"];
    check(&ground, migration, "t.*::text", &says);
}

#[test]
fn what_was_renamed_or_dropped_is_decided_by_the_operator() {
    let ground = captured();
    let migration = "\
        CREATE SCHEMA support;
        ALTER TABLE tickets SET SCHEMA support;
        ALTER TABLE support.tickets RENAME TO cases;
        ALTER TABLE support.cases RENAME COLUMN title TO subject;
        ALTER TABLE support.cases DROP COLUMN note;
        ALTER TABLE support.cases ADD COLUMN opened timestamptz NOT NULL DEFAULT now();
        UPDATE support.cases SET opened = '2022-04-05 07:38:00+00';
        CREATE VIEW tickets AS SELECT * FROM support.cases;
        DROP TABLE visits;
        CREATE TABLE labels (account_id int, name text);
        INSERT INTO labels VALUES (1, 'mine');";
    let tenancy = TENANCY.replace("tickets.id", "support.cases.id");
    ground.psql(migration);
    ground.configure(&tenancy);
    let refused = ground.restore(&[]);
    let undecided = [
        "table tickets is gone: say `dropped = [\"tickets\"]` under [drift]",
        "table visits is gone",
        "comments: its rows belong to their tenants by another rule",
        "Nothing was written",
    ];
    refused.refused(1, &undecided);
    let drift = format!(
        "{tenancy}\n[drift]\nrenamed = {{ tickets = \"support.cases\" }}\ndropped = [\"visits\"]\n"
    );
    ground.configure(&drift);
    let undecided = [
        "support.cases.title is gone: say `dropped = [\"title\"]`",
        "support.cases.note is gone",
        "support.cases.opened was added, and its default is not the same at all times",
    ];
    ground.restore(&[]).refused(1, &undecided);
    let decided = "[drift.table.\"support.cases\"]\nrenamed = { title = \"subject\" }\n\
                   dropped = [\"note\"]\nvalues = { opened = \"2022-04-05 07:38:00+00\" }\n";
    ground.configure(&format!("{drift}{decided}"));
    let contents = || {
        ground.psql(
            "SELECT t.*::text FROM support.cases t ORDER BY id; SELECT t.*::text FROM comments t \
             ORDER BY 1; TABLE labels",
        )
    };
    let expected = contents();
    ground.psql(
        "DELETE FROM comments WHERE ticket_id IN (SELECT id FROM support.cases WHERE account_id = 1);
         DELETE FROM support.cases WHERE account_id = 1",
    );
    let says = [
        "support.cases was tickets in the snapshot",
        "support.cases.subject was title in the snapshot",
        "support.cases.note gone: its values are not restored",
        "visits gone: its rows are not restored",
        "labels not in the snapshot",
    ];
    ground.restore(&[]).done(&says);
    assert_eq!(contents(), expected);
}

#[test]
fn values_that_no_longer_fit_are_refused_before_anything_is_written() {
    for (migration, says) in [
        (
            "UPDATE tickets SET size = 1 WHERE size > 32767;
             ALTER TABLE tickets ALTER size TYPE smallint",
            "table tickets, row 34: the snapshot holds a value that the live column (smallint) has \
             no room for in size",
        ),
        (
            "UPDATE tickets SET title = 'short';
             ALTER TABLE tickets ALTER title TYPE varchar(8)",
            "table tickets, row 10: the snapshot holds a value",
        ),
        (
            "ALTER TYPE mood RENAME VALUE 'angry' TO 'furious'",
            "table tickets, row 1: the snapshot holds a value that the live column (public.mood) \
             has no room for in mood",
        ),
        (
            "ALTER TABLE tickets ALTER mood TYPE int USING 1",
            "tickets.mood was public.mood and is integer: its values would have to be written \
             another way",
        ),
        (
            "ALTER TABLE tickets ALTER size TYPE numeric(9,1)",
            "tickets.size was integer and is numeric(9,1)",
        ),
        (
            "ALTER TABLE comments DROP CONSTRAINT comments_pkey",
            "comments: its primary key is another than in the snapshot",
        ),
        (
            "ALTER TABLE tickets ADD COLUMN code uuid NOT NULL DEFAULT gen_random_uuid()",
            "tickets.code was added, and its default is not the same at all times",
        ),
        (
            "ALTER TABLE visits ADD COLUMN seconds numeric(6,2) DEFAULT 1.5",
            "visits.seconds was added to a table without a key",
        ),
        (
            "CREATE DOMAIN five AS int DEFAULT 5; ALTER TABLE tickets ADD COLUMN five five",
            "tickets.five was added, and its domain has a default, or takes no NULL",
        ),
        (
            "ALTER TABLE tickets ADD COLUMN number int GENERATED BY DEFAULT AS IDENTITY",
            "tickets.number was added, and it numbers its rows by itself",
        ),
    ] {
        let ground = captured();
        ground.psql(migration);
        ground.psql(INCIDENT);
        let before = contents(&ground, "t.*::text");
        ground
            .restore(&[])
            .refused(1, &[says, "Nothing was written"]);
        assert_eq!(contents(&ground, "t.*::text"), before, "{migration}");
    }
}

#[test]
fn a_column_that_may_no_longer_be_null_refuses_rows_that_had_none() {
    let ground = captured();
    ground.psql("UPDATE tickets SET note = NULL WHERE id = 4");
    ground.sandbox.run(&["capture", "once"]).done(&[]);
    ground.psql("UPDATE tickets SET note = '' WHERE id = 4");
    ground.psql("ALTER TABLE tickets ALTER note SET NOT NULL");
    let says = "table tickets, row 4: the snapshot holds NULL, which the live column no longer \
                takes in note";
    ground.restore(&[]).refused(1, &[says]);
}

#[test]
fn a_table_that_is_owned_otherwise_is_refused_even_if_the_tenant_has_nothing_in_it() {
    let ground = captured();
    let shared = TENANCY.to_owned() + "[tenancy.table.visits]\nshared = true\n";
    ground.configure(&shared);
    let says = "visits: tenants own it in the snapshot, and no tenant does now";
    ground.restore(&[]).refused(1, &[says]);
}

/// Last year's events were detached, and are a table of their own. A restore would not find them where
/// they were, and create every one a second time.
#[test]
fn rows_of_a_partition_that_was_detached_are_not_created_again() {
    let ground = Ground::captured(
        "CREATE TABLE events (id int, account_id int NOT NULL, year int, PRIMARY KEY (id, year))
             PARTITION BY LIST (year);
         CREATE TABLE events_20 PARTITION OF events FOR VALUES IN (2020);
         CREATE TABLE events_rest PARTITION OF events DEFAULT;
         INSERT INTO events SELECT n, n % 3, 2020 + n % 2 FROM generate_series(1, 12) n",
        "[tenancy]\nkind = \"account\"\ncolumn = \"account_id\"\n",
    );
    ground.psql("ALTER TABLE events DETACH PARTITION events_20; DELETE FROM events WHERE id = 1");
    let says = "events_20 is not in the snapshot and is like a part of events: if it was detached";
    ground.restore(&[]).refused(1, &[says, "Attach it again"]);
    ground.psql("ALTER TABLE events ATTACH PARTITION events_20 FOR VALUES IN (2020)");
    ground
        .restore(&[])
        .done(&["1 of 1 tenant restored and proven, 1 row changed"]);
    assert_eq!(ground.psql("SELECT count(*) FROM events"), "12");
}
