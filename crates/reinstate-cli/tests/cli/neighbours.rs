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

/// Plans accounts 1 and 2 together.
fn plan_both(ground: &Ground, policy: &[&str]) -> crate::sandbox::Run {
    let what = [
        "plan",
        "account:1",
        "account:2",
        "--at",
        "latest",
        "--out",
        "p",
    ];
    let _ = std::fs::remove_file(ground.sandbox.path("p"));
    ground.sandbox.json(&[&what[..], policy].concat())
}

/// A neighbour's link leads to an issue that is newer than the snapshot, and the neighbour is restored by
/// the same plan: once it is, nothing leads there any more. It comes first, in whichever order it was named.
#[test]
fn a_neighbour_that_is_restored_as_well_comes_before_what_its_rows_refer_to() {
    for acts in ["", "ON DELETE CASCADE", "ON DELETE SET NULL"] {
        let ground = Ground::captured(&issues(acts), TENANCY);
        let all = || {
            ["issues", "links"]
                .map(|table| ground.psql(&format!("SELECT t.* FROM {table} t ORDER BY id")))
        };
        let before = all();
        ground.psql("INSERT INTO issues VALUES (31, 1); UPDATE links SET issue = 31 WHERE id = 5");
        let after = all();

        // Where the neighbour keeps what it has, its link stays, and the issue cannot go.
        let kept = plan_both(&ground, &["--put-back", "off"]);
        assert!(
            kept.stdout
                .contains("That one is not restored before to all that it was"),
            "{kept:?}"
        );

        let plan = plan_both(&ground, &[]);
        assert_eq!(plan.code, 0, "{plan:?}");
        assert!(
            plan.stdout.contains("That one is restored before"),
            "{plan:?}"
        );
        let digest = plan.record("plan")["digest"].as_str().unwrap().to_owned();
        let apply = ["apply", "p", "--confirm-digest", &digest];
        ground
            .sandbox
            .run(&apply)
            .done(&["2 of 2 tenants restored"]);
        assert_eq!(all(), before);

        // A report for the owner of one says nothing of the other.
        let job = plan.record("plan")["job"].as_str().unwrap().to_owned();
        let _ = std::fs::remove_file(ground.sandbox.path("one.html"));
        let report = ["report", &job, "--tenant", "account:1", "-o", "one.html"];
        ground.sandbox.run(&report).done(&["Restored"]);
        let html = std::fs::read_to_string(ground.sandbox.path("one.html")).unwrap();
        assert!(
            html.contains("from rows of another tenant of the plan"),
            "{html}"
        );

        // Two that wait for each other have no order: nothing is written.
        ground.psql(
            "INSERT INTO issues VALUES (31, 1), (32, 2);
             UPDATE links SET issue = 31 WHERE id = 5; UPDATE links SET issue = 32 WHERE id = 4",
        );
        assert_ne!(all(), after);
        let crossed = all();
        let plan = plan_both(&ground, &[]);
        let refused = plan
            .stdout
            .matches("is not restored before to all that it was");
        assert_eq!(refused.count(), 1, "{plan:?}");
        let digest = plan.record("plan")["digest"].as_str().unwrap().to_owned();
        let apply = ["apply", "p", "--confirm-digest", &digest];
        let run = ground.sandbox.run(&apply);
        assert_ne!(run.code, 0, "{run:?}");
        let links = ground.psql("SELECT issue FROM links WHERE id = 4");
        assert_eq!(
            links,
            crossed[1]
                .lines()
                .find(|line| line.starts_with("4|"))
                .unwrap()[4..]
        );
    }
}
