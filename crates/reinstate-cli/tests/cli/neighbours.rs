//! Rows of others that refer to what a restore would delete: they are nobody's to write, and what the
//! server would do with them is said when the plan is made.

use crate::ground::Ground;

const TENANCY: &str = "[tenancy]\nkind = \"account\"\ncolumn = \"account_id\"\n";

fn issues(acts: &str) -> String {
    format!(
        "CREATE TABLE issues (id int PRIMARY KEY, account_id int NOT NULL);
         CREATE TABLE links (id int PRIMARY KEY, account_id int NOT NULL, issue int,
             CONSTRAINT to_issue FOREIGN KEY (issue) REFERENCES issues {acts});
         INSERT INTO issues SELECT n, n % 3 FROM generate_series(1, 9) n;
         INSERT INTO links SELECT n, n % 3, n FROM generate_series(1, 9) n;"
    )
}

/// A neighbour linked to an issue that is newer than the snapshot. Deleting it would delete the
/// neighbour's link, or empty it, without a word; the merge counts that and takes it back, but only
/// when everything was written.
#[test]
fn what_a_neighbour_refers_to_is_not_deleted_and_the_plan_says_so() {
    for (acts, says) in [
        ("ON DELETE CASCADE", "they would change or go with them"),
        ("ON DELETE SET NULL", "they would change or go with them"),
        ("ON DELETE SET DEFAULT", "they would change or go with them"),
        (
            "DEFERRABLE INITIALLY DEFERRED",
            "they would be left without them",
        ),
        ("", "they would be left without them"),
    ] {
        let ground = Ground::captured(&issues(acts), TENANCY);
        ground.psql(
            "INSERT INTO issues VALUES (31, 1); UPDATE links SET issue = 31 WHERE id IN (4, 5)",
        );
        let all = || ["issues", "links"].map(|table| ground.psql(&format!("TABLE {table}")));
        let after = all();
        let run = ground.restore(&[]);
        let names = "foreign key to_issue of links leads from rows that are not the tenant's";
        run.refused(1, &[names, says, "Nothing was written"]);
        assert!(!run.stdout.contains("FAILED"), "no merge began: {run:?}");
        assert_eq!(all(), after);
        ground.psql("UPDATE links SET issue = 5 WHERE id = 5");
        ground.restore(&[]).done(&["restored"]);
    }
}

/// So it is with rows of everybody.
#[test]
fn what_everybody_refers_to_is_not_deleted_either() {
    let schema = "CREATE TABLE issues (id int PRIMARY KEY, account_id int NOT NULL);
         CREATE TABLE pins (id int PRIMARY KEY, issue int CONSTRAINT pin REFERENCES issues);
         INSERT INTO issues SELECT n, n % 3 FROM generate_series(1, 9) n;
         INSERT INTO pins VALUES (1, NULL)";
    let sections = TENANCY.to_owned() + "shared = [\"pins\"]\n";
    let ground = Ground::captured(schema, &sections);
    ground.psql("INSERT INTO issues VALUES (31, 1); UPDATE pins SET issue = 31");
    let names = "foreign key pin of pins leads from rows that are not the tenant's";
    ground.restore(&[]).refused(1, &[names]);
    ground.psql("UPDATE pins SET issue = NULL");
    ground.restore(&[]).done(&["restored"]);
}
