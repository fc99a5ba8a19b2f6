//! Several tenants that are restored by one run.

use std::process::Stdio;

use crate::ground::Ground;
use crate::lease::{Prompt, eventually};

const TENANCY: &str = "[tenancy]\nkind = \"account\"\ncolumn = \"account_id\"\n";

const NOTES: &str = "\
CREATE TABLE tags (id int PRIMARY KEY, account_id int NOT NULL);
CREATE TABLE notes (id int PRIMARY KEY, account_id int NOT NULL, body text NOT NULL,
                    tag int REFERENCES tags);
INSERT INTO tags SELECT n, n % 3 FROM generate_series(1, 30) n;
INSERT INTO notes SELECT n, n % 3, 'body ' || n, n FROM generate_series(1, 30) n;
";

/// Plans accounts 1 and 2 together, and returns what applies the plan.
fn plan_both(ground: &Ground) -> Vec<String> {
    plan_all(ground, &["account:1", "account:2"])
}

fn plan_all(ground: &Ground, tenants: &[&str]) -> Vec<String> {
    let when = ["--at", "latest", "--nearest-before", "--out", "p"];
    let plan = ground
        .sandbox
        .json(&[&["plan"], tenants, &when[..]].concat());
    assert_eq!(plan.code, 0, "{plan:?}");
    let digest = plan.record("plan")["digest"].as_str().unwrap().to_owned();
    ["apply", "p", "--confirm-digest", &digest]
        .map(str::to_owned)
        .to_vec()
}

fn notes(ground: &Ground) -> String {
    ground.psql("SELECT t.* FROM notes t ORDER BY id")
}

/// The merge of one tenant waits for somebody who has one of its rows; another tenant comes back meanwhile.
#[test]
fn nobody_waits_for_the_merge_of_another_tenant() {
    let ground = Ground::captured(NOTES, TENANCY);
    let before = notes(&ground);
    ground.psql("UPDATE notes SET body = 'spoiled' WHERE account_id > 0");
    let holder = Prompt::after(
        &ground.database,
        "SELECT id FROM notes WHERE id = 1 FOR UPDATE",
    );
    let run = ground
        .sandbox
        .command()
        .args(plan_both(&ground))
        .args(["--jobs", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                    AND application_name = 'reinstate' AND wait_event_type = 'Lock'";
    let journal = "SELECT string_agg(convert_from(tenant, 'UTF8'), ',') FROM reinstate.journal";
    // Only account 1 waits, and does so still when account 2 is back.
    eventually(|| ground.psql(waits) == "1" && ground.psql(journal) == "2");
    drop(holder);
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("2 of 2 tenants restored and proven"),
        "{output:?}"
    );
    assert_eq!(notes(&ground), before);
}

/// Rows of one tenant refer to rows of another, and both are gone: they come back in whichever order the
/// tenants are named, with one merge at a time and with two.
#[test]
fn what_refers_to_another_tenant_of_the_run_comes_back_with_it() {
    for (tags, jobs) in [(1, "1"), (1, "2"), (2, "1"), (2, "2")] {
        let ground = Ground::captured(
            &format!(
                "{NOTES} UPDATE notes SET tag = {tags} WHERE account_id > 0;
                 INSERT INTO notes SELECT n, 0, '', 3 FROM generate_series(100, 110) n"
            ),
            TENANCY,
        );
        let before = notes(&ground);
        ground
            .psql("DELETE FROM notes WHERE account_id > 0; DELETE FROM tags WHERE account_id > 0");
        let apply = plan_both(&ground);
        let mut arguments: Vec<&str> = apply.iter().map(String::as_str).collect();
        arguments.extend(["--jobs", jobs]);
        ground
            .sandbox
            .run(&arguments)
            .done(&["2 of 2 tenants restored and proven"]);
        assert_eq!(notes(&ground), before);
    }
}

/// Each refers to the next one in the order in which they are named.
#[test]
fn tenants_that_refer_to_one_another_in_a_row_all_come_back() {
    for jobs in ["1", "2"] {
        let ground = Ground::captured(
            &format!(
                "{NOTES} UPDATE notes SET account_id = id % 4;
                 UPDATE tags SET account_id = id % 4;
                 UPDATE notes SET tag = CASE account_id WHEN 1 THEN 2 WHEN 2 THEN 3 ELSE 4 END"
            ),
            TENANCY,
        );
        let before = notes(&ground);
        ground
            .psql("DELETE FROM notes WHERE account_id > 0; DELETE FROM tags WHERE account_id > 0");
        let apply = plan_all(&ground, &["account:1", "account:2", "account:3"]);
        let mut arguments: Vec<&str> = apply.iter().map(String::as_str).collect();
        arguments.extend(["--jobs", jobs]);
        let run = ground.sandbox.run(&arguments);
        run.done(&["3 of 3 tenants restored and proven"]);
        assert_eq!(notes(&ground), before);
    }
}
