//! Tables whose foreign keys lead back to each other, and act on rows besides.

use crate::ground::there_and_back_under;

const TENANCY: &str = "[tenancy]\nkind = \"account\"\ncolumn = \"account_id\"\n";

/// Crews have a head, members have a crew.
fn crews(head: &str, keys: &str) -> String {
    format!(
        "CREATE TABLE crews (id int PRIMARY KEY, account_id int NOT NULL, head int {head});
         CREATE TABLE members (id int PRIMARY KEY, account_id int NOT NULL, crew int NOT NULL);
         INSERT INTO crews SELECT n, n % 3, n FROM generate_series(1, 12) n;
         INSERT INTO members SELECT n, n % 3, n FROM generate_series(1, 12) n;
         ALTER TABLE crews ADD FOREIGN KEY (head) REFERENCES members {keys};
         ALTER TABLE members ADD FOREIGN KEY (crew) REFERENCES crews {keys};"
    )
}

const GONE: &str = "WITH gone AS (DELETE FROM members WHERE account_id = 1)
                    DELETE FROM crews WHERE account_id = 1";
const NEWER: &str = "INSERT INTO crews VALUES (31, 1, 7); INSERT INTO members VALUES (31, 1, 31);
                     UPDATE crews SET head = 31 WHERE id IN (4, 31);
                     UPDATE members SET crew = 31 WHERE id = 7";

/// An account came back, but the restore could not be taken back: all keys could wait, so that crews
/// were deleted while members referred to them, and the server does not wait with what a key does.
#[test]
fn keys_that_can_wait_but_act_do_not_keep_a_restore_from_being_taken_back() {
    for (head, keys) in [
        ("", "ON DELETE CASCADE DEFERRABLE"),
        ("NOT NULL", "ON UPDATE CASCADE ON DELETE CASCADE DEFERRABLE"),
        ("", "ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED"),
        ("NOT NULL", "ON DELETE CASCADE"),
    ] {
        for incident in [GONE, NEWER] {
            there_and_back_under(&crews(head, keys), TENANCY, &["crews", "members"], incident);
        }
    }
}

/// A key is NULL for a while only where that breaks no rule; else one statement writes both tables.
#[test]
fn a_key_in_which_null_would_break_a_rule_is_never_null() {
    for rule in [
        "CHECK (head IS NOT NULL OR account_id < 0)",
        "CHECK (coalesce(head, 0) > 0)",
        "UNIQUE NULLS NOT DISTINCT (account_id, head)",
        "CHECK (head > 0 AND account_id < 9)",
    ] {
        let rule = format!("CONSTRAINT rule {rule}").replacen("CONSTRAINT", ", CONSTRAINT", 1);
        there_and_back_under(&crews(&rule, ""), TENANCY, &["crews", "members"], GONE);
    }
    let partial = "CREATE UNIQUE INDEX ON crews (account_id) WHERE head IS NULL";
    let schema = format!("{}{partial}", crews("", ""));
    there_and_back_under(&schema, TENANCY, &["crews", "members"], GONE);
    // Of the two columns only one may be NULL, which such a key does not let be.
    let full = "CREATE TABLE crews (id int PRIMARY KEY, account_id int NOT NULL, head int);
         CREATE TABLE members (id int PRIMARY KEY, account_id int NOT NULL, crew int NOT NULL,
             UNIQUE (account_id, id));
         INSERT INTO crews SELECT n, n % 3, n FROM generate_series(1, 12) n;
         INSERT INTO members SELECT n, n % 3, n FROM generate_series(1, 12) n;
         ALTER TABLE crews ADD FOREIGN KEY (account_id, head)
             REFERENCES members (account_id, id) MATCH FULL;
         ALTER TABLE members ADD FOREIGN KEY (crew) REFERENCES crews";
    there_and_back_under(full, TENANCY, &["crews", "members"], GONE);
}
