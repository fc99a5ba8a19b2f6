//! Unique values that move from one row to another: positions that were shifted, names that were
//! swapped, an address that a row gave up for another.

use crate::ground::{Ground, there_and_back_under};

const TENANCY: &str = "[tenancy]\nkind = \"account\"\ncolumn = \"account_id\"\n";

/// Cards have a place in their list and a label that is unique up to case among those that are open;
/// comments refer to cards, and cards to each other.
const CARDS: &str = "\
CREATE TABLE cards (id int PRIMARY KEY, account_id int NOT NULL, list int NOT NULL, place int NOT NULL,
    label text NOT NULL, open boolean NOT NULL DEFAULT true, next int REFERENCES cards,
    twice int GENERATED ALWAYS AS (place * 2) STORED, UNIQUE (list, place));
CREATE UNIQUE INDEX cards_label ON cards (account_id, lower(label)) WHERE open;
CREATE UNIQUE INDEX cards_twice ON cards (list, twice);
CREATE TABLE comments (id int PRIMARY KEY, account_id int NOT NULL, card int NOT NULL REFERENCES cards);
INSERT INTO cards SELECT n, n % 3, n % 3, n, 'L' || n, true, CASE WHEN n > 3 THEN n - 3 END
  FROM generate_series(1, 300) n;
INSERT INTO comments SELECT n, n % 3, n FROM generate_series(1, 300) n;
";

/// Restores after an incident, takes the restore back, and restores again.
#[track_caller]
fn there_and_back(schema: &str, tables: &[&str], incident: &str) {
    there_and_back_under(schema, TENANCY, tables, incident);
}

fn rows(ground: &Ground, table: &str) -> String {
    ground.psql(&format!("SELECT t.* FROM {table} t ORDER BY id"))
}

#[test]
fn positions_that_were_shifted_come_back() {
    there_and_back(
        CARDS,
        &["cards", "comments"],
        "UPDATE cards SET place = -place WHERE account_id = 1;
         UPDATE cards SET place = 3 - place WHERE account_id = 1",
    );
}

#[test]
fn values_that_were_swapped_come_back() {
    there_and_back(
        CARDS,
        &["cards", "comments"],
        "UPDATE cards SET label = 'x' WHERE id = 4; UPDATE cards SET label = 'l4' WHERE id = 7;
         UPDATE cards SET label = 'l7' WHERE id = 4; UPDATE cards SET open = false WHERE id = 10;
         UPDATE cards SET label = 'L10' WHERE id = 13; UPDATE cards SET next = 4 WHERE id = 16",
    );
}

/// A card is gone and another one has its place; a newer card has the place of that one; and
/// cards refer to the one that is gone.
#[test]
fn a_row_that_comes_back_takes_a_value_that_another_gives_up() {
    there_and_back(
        CARDS,
        &["cards", "comments"],
        "UPDATE cards SET next = NULL WHERE id = 13; DELETE FROM comments WHERE card = 10;
         DELETE FROM cards WHERE id = 10; UPDATE cards SET place = 10 WHERE id = 13;
         INSERT INTO cards VALUES (400, 1, 1, 13, 'new', true, 13);
         UPDATE cards SET next = 400 WHERE id = 16",
    );
}

/// What would have to be made anew cannot be: the plan says so, and what would help.
#[test]
fn values_that_cannot_move_are_refused_when_the_plan_is_made() {
    let incident =
        "UPDATE cards SET place = -1 WHERE id = 4; UPDATE cards SET place = 4 WHERE id = 7;
                    UPDATE cards SET place = 7 WHERE id = 4";
    let trigger = "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
                   CREATE TRIGGER keep BEFORE INSERT ON cards FOR EACH ROW EXECUTE FUNCTION keep();";
    let cascade = "ALTER TABLE comments DROP CONSTRAINT comments_card_fkey, ADD CONSTRAINT \
                   comments_card_fkey FOREIGN KEY (card) REFERENCES cards ON DELETE CASCADE;";
    for (obstacle, says) in [
        (trigger, "trigger cards.keep would fire"),
        (
            cascade,
            "foreign key comments_card_fkey of comments would act",
        ),
    ] {
        let ground = Ground::captured(CARDS, TENANCY);
        let before = rows(&ground, "cards");
        ground.psql(obstacle);
        ground.psql(incident);
        let after = rows(&ground, "cards");
        let run = ground.restore(&[]);
        run.refused(
            1,
            &[
                "cards_list_place_key",
                says,
                "make the constraint DEFERRABLE",
            ],
        );
        assert!(
            run.stdout
                .contains("refuse   account:1: unique index cards_list_place_key"),
            "{run:?}"
        );
        assert_eq!(rows(&ground, "cards"), after);
        // What can be deferred is not in the way.
        ground.psql(
            "ALTER TABLE cards DROP CONSTRAINT cards_list_place_key,
                 ADD UNIQUE (list, place) DEFERRABLE; DROP INDEX cards_twice",
        );
        ground.restore(&[]).done(&["restored"]);
        assert_eq!(rows(&ground, "cards"), before);
    }
}

const CODES: &str = "\
CREATE TABLE projects (id int PRIMARY KEY, account_id int NOT NULL, code text NOT NULL UNIQUE);
CREATE TABLE tasks (id int PRIMARY KEY, account_id int NOT NULL,
    code text REFERENCES projects (code) ON UPDATE CASCADE, title text);
CREATE TABLE marks (id int PRIMARY KEY, account_id int NOT NULL,
    code text REFERENCES projects (code) ON UPDATE SET NULL);
INSERT INTO projects SELECT n, n % 3, 'c' || n FROM generate_series(1, 12) n;
INSERT INTO tasks SELECT n, n % 3, 'c' || (n - 1) % 12 + 1, 't' || n FROM generate_series(1, 60) n;
INSERT INTO marks SELECT n, n % 3, 'c' || (n - 1) % 12 + 1 FROM generate_series(1, 60) n;
";

#[test]
fn rows_that_follow_a_key_by_themselves_are_counted() {
    there_and_back(
        CODES,
        &["projects", "tasks", "marks"],
        "UPDATE projects SET code = 'renamed' WHERE id = 4; UPDATE tasks SET title = 'x' WHERE id = 1;
         INSERT INTO tasks VALUES (100, 1, 'renamed'), (103, 1, 'c7');
         UPDATE marks SET code = 'renamed' WHERE id = 16",
    );
}

/// A row of another tenant follows the key: it would change with it.
#[test]
fn rows_of_others_that_follow_a_key_are_not_taken_along() {
    let ground = Ground::captured(CODES, TENANCY);
    ground.psql(
        "UPDATE projects SET code = 'renamed' WHERE id = 4;
         UPDATE tasks SET code = 'renamed' WHERE id = 2",
    );
    let all = || ["projects", "tasks", "marks"].map(|table| rows(&ground, table));
    let before = all();
    let run = ground.restore(&[]);
    let says = "foreign key tasks_code_fkey of tasks leads from rows that are not the tenant's to a \
                value that is put back: they would change with it";
    run.refused(1, &[says]);
    assert_eq!(all(), before);
    ground.psql("UPDATE tasks SET code = 'c2' WHERE id = 2");
    ground.restore(&[]).done(&["restored"]);
}

/// What follows a key has followers itself: each is counted once for every key that changes it.
#[test]
fn rows_that_follow_rows_that_follow_are_counted() {
    let chain = |first: &str, second: &str| {
        format!(
            "CREATE TABLE projects (id int PRIMARY KEY, account_id int NOT NULL, code text UNIQUE);
             CREATE TABLE tasks (id int PRIMARY KEY, account_id int NOT NULL,
                 code text UNIQUE REFERENCES projects (code) ON UPDATE {first});
             CREATE TABLE marks (id int PRIMARY KEY, account_id int NOT NULL,
                 code text REFERENCES tasks (code) ON UPDATE {second},
                 other text REFERENCES tasks (code) ON UPDATE {second});
             INSERT INTO projects SELECT n, n % 3, 'c' || n FROM generate_series(1, 12) n;
             INSERT INTO tasks SELECT n, n % 3, 'c' || n FROM generate_series(1, 12) n;
             INSERT INTO marks SELECT n, n % 3, 'c' || (n - 1) % 12 + 1,
                    CASE WHEN n < 13 THEN 'c' || n END FROM generate_series(1, 36) n;"
        )
    };
    let rename = "UPDATE projects SET code = 'new' WHERE id = 4";
    let tables = ["projects", "tasks", "marks"];
    for (first, second) in [("CASCADE", "CASCADE DEFERRABLE"), ("SET NULL", "CASCADE")] {
        there_and_back(&chain(first, second), &tables, rename);
    }
}

/// A row that is deleted and made anew, because its code goes to another one, takes nobody along.
#[test]
fn codes_that_were_swapped_come_back_with_what_follows_them() {
    there_and_back(
        CODES,
        &["projects", "tasks", "marks"],
        "UPDATE projects SET code = 'x' WHERE id = 4; UPDATE projects SET code = 'c4' WHERE id = 7;
         UPDATE projects SET code = 'c7' WHERE id = 4; UPDATE projects SET code = 'y' WHERE id = 10",
    );
}

/// A row that is put back by the same statement has its own value by the time the server looks.
#[test]
fn rows_that_follow_another_of_their_own_table_come_back() {
    there_and_back(
        "CREATE TABLE pages (id int PRIMARY KEY, account_id int NOT NULL, slug text UNIQUE,
             under text REFERENCES pages (slug) ON UPDATE CASCADE);
         INSERT INTO pages SELECT n, n % 3, 's' || n, CASE WHEN n > 3 THEN 's' || n - 3 END
           FROM generate_series(1, 12) n",
        &["pages"],
        "UPDATE pages SET slug = 'x' WHERE id = 4; UPDATE pages SET slug = 'y' WHERE id = 1",
    );
}

/// Rooms are booked for a time; no two bookings of a room overlap.
const BOOKINGS: &str = "\
CREATE EXTENSION btree_gist;
CREATE TABLE bookings (id int PRIMARY KEY, account_id int NOT NULL, room int, during int4range,
    CONSTRAINT no_overlap EXCLUDE USING gist (room WITH =, during WITH &&));
INSERT INTO bookings SELECT n, n % 3, 1, int4range(n * 10, n * 10 + 10)
  FROM generate_series(1, 12) n;";

/// The times of two bookings were swapped, and one was moved into what another one left.
#[test]
fn values_under_an_exclusion_constraint_move() {
    there_and_back(
        BOOKINGS,
        &["bookings"],
        "UPDATE bookings SET during = '[500,510)' WHERE id = 4;
         UPDATE bookings SET during = '[40,50)' WHERE id = 7;
         UPDATE bookings SET during = '[70,80)' WHERE id = 4;
         UPDATE bookings SET during = '[15,20)' WHERE id = 1;
         UPDATE bookings SET during = '[10,15)' WHERE id = 10",
    );
}

/// A neighbour booked the room for a part of the time: found before anything is written, as an equal
/// value is.
#[test]
fn a_neighbour_under_an_exclusion_constraint_is_a_conflict_of_the_plan() {
    for incident in [
        "DELETE FROM bookings WHERE id = 4; INSERT INTO bookings VALUES (40, 2, 1, '[45,47)')",
        "UPDATE bookings SET during = '[900,901)' WHERE id = 4;
         INSERT INTO bookings VALUES (40, 2, 1, '[45,47)')",
    ] {
        let ground = Ground::captured(BOOKINGS, TENANCY);
        ground.psql(incident);
        let after = rows(&ground, "bookings");
        let run = ground.restore(&[]);
        run.refused(5, &["the plan has 1 conflict"]);
        assert!(run.stdout.contains("bookings id=4: no_overlap"), "{run:?}");
        assert_eq!(rows(&ground, "bookings"), after);
    }
}

/// What follows would get another primary key while others refer to it: it cannot go and come under its
/// own key, as its part of the plan says.
#[test]
fn rows_that_would_follow_by_their_key_are_refused_by_the_plan() {
    let ground = Ground::captured(
        "CREATE TABLE projects (id int PRIMARY KEY, account_id int NOT NULL, code text UNIQUE);
         CREATE TABLE tasks (code text PRIMARY KEY REFERENCES projects (code) ON UPDATE CASCADE,
             account_id int NOT NULL);
         CREATE TABLE marks (id int PRIMARY KEY, account_id int NOT NULL,
             code text CONSTRAINT of_task REFERENCES tasks ON UPDATE CASCADE);
         INSERT INTO projects SELECT n, n % 3, 'c' || n FROM generate_series(1, 12) n;
         INSERT INTO tasks SELECT 'c' || n, n % 3 FROM generate_series(1, 12) n;
         INSERT INTO marks SELECT n, n % 3, 'c' || n FROM generate_series(1, 6) n;",
        TENANCY,
    );
    let all = || ["projects", "tasks", "marks"].map(|table| ground.psql(&format!("TABLE {table}")));
    let before = all();
    ground.psql("UPDATE projects SET code = 'new' WHERE id = 4");
    let after = all();
    let says = "foreign key tasks_code_fkey would give rows of tasks another primary key";
    ground.restore(&[]).refused(1, &[says]);
    assert_eq!(all(), after);
    // Nobody refers to the task of this one.
    ground.psql("UPDATE projects SET code = 'c4' WHERE id = 4");
    assert_eq!(all().map(|rows| rows.len()), before.map(|rows| rows.len()));
    ground.psql("UPDATE projects SET code = 'new' WHERE id = 10");
    ground.restore(&[]).done(&["restored"]);
}

/// A column that the server alone sets, and lets nobody update: the row is made anew, unless something
/// would happen at that.
#[test]
fn an_identity_outside_of_the_key_comes_back() {
    let schema = "CREATE TABLE notes (id int PRIMARY KEY, account_id int NOT NULL, body text,
             serial bigint GENERATED ALWAYS AS IDENTITY);
         CREATE TABLE marks (id int PRIMARY KEY, account_id int NOT NULL, note int REFERENCES notes);
         INSERT INTO notes (id, account_id, body) SELECT n, n % 3, 'x' FROM generate_series(1, 9) n;
         INSERT INTO marks SELECT n, n % 3, n FROM generate_series(1, 9) n";
    let incident = "UPDATE notes SET serial = DEFAULT, body = 'y' WHERE id IN (4, 7);
                    UPDATE notes SET body = 'z' WHERE id = 1";
    there_and_back(schema, &["notes", "marks"], incident);
    let acts = schema.replace("REFERENCES notes)", "REFERENCES notes ON DELETE SET NULL)");
    let ground = Ground::captured(&acts, TENANCY);
    ground.psql(incident);
    let says = "table notes has other values in a column GENERATED ALWAYS AS IDENTITY, which nobody may \
                update: rows would have to be deleted and made anew, and foreign key marks_note_fkey";
    ground.restore(&[]).refused(1, &[says]);
}
