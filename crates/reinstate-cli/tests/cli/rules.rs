//! Rules that are younger than the rows of a snapshot: what they break is said when the plan is made, with
//! nothing written and no value shown.

use crate::ground::Ground;

const TENANCY: &str = "[tenancy]\nkind = \"account\"\ncolumn = \"account_id\"\n";

/// A plan is refused, and says this; with the remedy the account comes back.
#[track_caller]
fn refused_until(schema: &str, incident: &str, says: &[&str], remedy: &str) {
    let ground = Ground::captured(schema, TENANCY);
    ground.psql(incident);
    let all = || ground.psql("SELECT t.* FROM things t ORDER BY id");
    let after = all();
    let run = ground.restore(&[]);
    run.refused(1, says);
    let said = format!("{}{}", run.stdout, run.stderr);
    assert!(
        !said.contains("FAILED") && !said.contains("angry"),
        "{run:?}"
    );
    assert_eq!(all(), after);
    ground.psql(remedy);
    ground.restore(&[]).done(&["restored"]);
}

const MOODS: &str = "\
CREATE TYPE mood AS ENUM ('calm', 'angry');
CREATE TYPE pair AS (mood mood, number int);
CREATE TABLE things (id int PRIMARY KEY, account_id int NOT NULL, moods mood[], pair pair);
INSERT INTO things SELECT n, n % 3, '{calm,angry}', NULL FROM generate_series(1, 9) n;";

/// The label is gone, and the type has its old name: nothing in the catalogue tells.
#[test]
fn an_array_with_a_label_that_is_gone_is_refused() {
    refused_until(
        MOODS,
        "DELETE FROM things WHERE account_id = 1;
         ALTER TABLE things ALTER moods TYPE text[], ALTER pair TYPE text; DROP TYPE pair, mood;
         UPDATE things SET moods = array_remove(moods, 'angry');
         CREATE TYPE mood AS ENUM ('calm'); CREATE TYPE pair AS (mood mood, number int);
         ALTER TABLE things ALTER moods TYPE mood[] USING moods::mood[],
                            ALTER pair TYPE pair USING pair::pair",
        &[
            "table things: the snapshot holds values in moods that the live column (public.mood[]) does \
           not take",
        ],
        "ALTER TYPE mood ADD VALUE 'angry'",
    );
}

#[test]
fn values_that_a_domain_no_longer_takes_are_refused() {
    refused_until(
        "CREATE DOMAIN size AS int CHECK (value > 0);
         CREATE TABLE things (id int PRIMARY KEY, account_id int NOT NULL, size size);
         INSERT INTO things SELECT n, n % 3, n FROM generate_series(1, 9) n;",
        "UPDATE things SET size = 100 WHERE id % 3 = 1; DELETE FROM things WHERE size < 10;
         ALTER DOMAIN size ADD CONSTRAINT large CHECK (value > 5)",
        &[
            "table things: the snapshot holds values in size that the live column (public.size) does not",
        ],
        "ALTER DOMAIN size DROP CONSTRAINT large",
    );
}

/// The server never asked the rows that were there, and does ask those that come back.
#[test]
fn rows_that_a_constraint_was_never_asked_about_are_refused() {
    refused_until(
        "CREATE TABLE things (id int PRIMARY KEY, account_id int NOT NULL, size int,
             twice int GENERATED ALWAYS AS (size * 2) STORED);
         INSERT INTO things SELECT n, n % 3, n FROM generate_series(1, 9) n;",
        "ALTER TABLE things ADD CONSTRAINT large CHECK (twice > 10) NOT VALID;
         DELETE FROM things WHERE account_id = 1",
        &[
            "constraint large of things is broken by rows of the snapshot, which are older than it is",
        ],
        "ALTER TABLE things DROP CONSTRAINT large",
    );
}

/// A migration that changed the table may have added a rule to it, of which the rows that are there now
/// all are.
#[test]
fn rows_that_break_a_rule_of_a_table_that_changed_are_refused() {
    refused_until(
        "CREATE TABLE things (id int PRIMARY KEY, account_id int NOT NULL, size int);
         INSERT INTO things SELECT n, n % 3, n FROM generate_series(1, 9) n;",
        "DELETE FROM things WHERE account_id = 1; ALTER TABLE things ADD unit text NOT NULL DEFAULT 'cm',
         ADD CONSTRAINT known CHECK (size NOT IN (4) OR unit = 'm')",
        &["constraint known of things is broken by rows of the snapshot"],
        "ALTER TABLE things DROP CONSTRAINT known",
    );
}

#[test]
fn rows_for_which_there_is_no_partition_any_more_are_refused() {
    refused_until(
        "CREATE TABLE things (id int, account_id int NOT NULL, on_day date, PRIMARY KEY (id, on_day))
             PARTITION BY RANGE (on_day);
         CREATE TABLE things_20 PARTITION OF things FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
         CREATE TABLE things_21 PARTITION OF things FOR VALUES FROM ('2021-01-01') TO ('2022-01-01')
             PARTITION BY LIST (id);
         CREATE TABLE things_21_default PARTITION OF things_21 DEFAULT;
         INSERT INTO things SELECT n, n % 3, date '2020-01-01' + n * 30 FROM generate_series(1, 21) n;",
        "DROP TABLE things_20",
        &["table things has no partition for rows of the snapshot: create or attach it first"],
        "CREATE TABLE things_20 PARTITION OF things FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')",
    );
}

/// A value of [drift] is made one when the plan is made, and written as the server writes it.
#[test]
fn a_value_of_drift_is_what_its_column_takes() {
    let ground = Ground::captured(
        "CREATE TABLE things (id int PRIMARY KEY, account_id int NOT NULL);
         INSERT INTO things SELECT n, n % 3 FROM generate_series(1, 9) n;",
        TENANCY,
    );
    ground.psql(
        "DELETE FROM things WHERE account_id = 1;
         ALTER TABLE things ADD opened timestamptz NOT NULL DEFAULT now(),
                            ADD price numeric(9,2) NOT NULL DEFAULT random(),
                            ADD unit varchar(3) NOT NULL DEFAULT substr(random()::text, 1, 3)",
    );
    let drift_of = |opened: &str, unit: &str| {
        format!(
            "{TENANCY}[drift.table.things]\n\
             values = {{ opened = {opened:?}, price = \"3\", unit = {unit:?} }}\n"
        )
    };
    let drift = |opened: &str| drift_of(opened, "cm ");
    // As an INSERT has it: nothing of a text is cut off.
    ground.configure(&drift_of("2022-04-05 09:38+02", "metres"));
    let says = "things.unit was added, and \"metres\" is no value for it";
    ground.restore(&[]).refused(1, &[says, "longer"]);
    ground.configure(&drift("yesterday at noon"));
    let says = "things.opened was added, and \"yesterday at noon\" is no value for it";
    ground.restore(&[]).refused(1, &[says, "correct `values`"]);
    ground.configure(&drift("2022-04-05 09:38+02"));
    ground.restore(&[]).done(&["restored"]);
    let found = ground.psql(
        "SELECT DISTINCT opened AT TIME ZONE 'UTC', price, unit FROM things WHERE id % 3 = 1",
    );
    assert_eq!(found, "2022-04-05 07:38:00|3.00|cm ");
    ground.restore(&[]).done(&["no change"]);
}
