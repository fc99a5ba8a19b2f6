//! Reports: one file that stands alone, says what was done and what was not, and nothing about others.

use std::fs;

use crate::ground::Ground;
use crate::sandbox::{Run, Sandbox};

fn job_of(run: &Run) -> String {
    assert!([0, 4].contains(&run.code), "{run:?}");
    run.record("summary")["job"].as_str().unwrap().to_owned()
}

/// What a report of the job says, its tags and its style left out.
fn text(html: &str) -> String {
    let body = html.split_once("</style>").unwrap().1;
    let mut text = String::new();
    let mut is_tag = false;
    for character in body.chars() {
        match character {
            '<' => is_tag = true,
            '>' => {
                is_tag = false;
                text.push(' ');
            }
            character if !is_tag => text.push(character),
            _ => {}
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn says(html: &str, expected: &[&str]) {
    let text = text(html);
    for expected in expected {
        assert!(text.contains(expected), "{expected:?} is not in: {text}");
    }
}

/// That a file needs nothing but itself.
#[track_caller]
fn stands_alone(html: &str) {
    for foreign in [
        "http:", "https:", "<script", "src=", "url(", "@import", "<link", "<img",
    ] {
        assert!(!html.contains(foreign), "{foreign} in {html}");
    }
    assert!(html.contains("default-src 'none'") && html.is_ascii());
    for tag in ["table", "details", "dl", "tr", "main"] {
        let count = |what: String| html.matches(&what).count();
        let opened = count(format!("<{tag}>")) + count(format!("<{tag} "));
        assert_eq!(opened, count(format!("</{tag}>")), "{tag}");
    }
}

#[test]
fn a_restore_and_its_undo_are_reported_for_all_and_for_one() {
    let sandbox = Sandbox::captured();
    sandbox.destroy(3);
    sandbox.edit_issue_of(2);
    sandbox.write_to(2);
    let plan = [
        "plan",
        "account:2",
        "account:3",
        "--at",
        "latest",
        "--out",
        "p",
    ];
    let plan = sandbox.json(&plan);
    let digest = plan.record("plan")["digest"].as_str().unwrap().to_owned();
    let job = job_of(&sandbox.json(&["apply", "p", "--confirm-digest", &digest]));
    let files = || {
        let entries = fs::read_dir(sandbox.path("")).unwrap();
        entries.count()
    };
    let before = files();
    let report = sandbox.json(&["report", &job[..8], "-o", "all.html"]);
    assert_eq!(report.record("report")["outcome"], "Restored");
    assert_eq!(files(), before + 1);
    let html = fs::read_to_string(sandbox.path("all.html")).unwrap();
    stands_alone(&html);
    let rows = sandbox.synthetic().tenant_row_count(2);
    says(
        &html,
        &[
            "Restore of 2 tenants",
            "All 2 tenants are back",
            "account:2",
            "account:3",
            "Data loss window",
            "Deleted: 1 newer row. Newer values lost: 1 row.",
            &format!("{rows} rows changed"),
            &digest,
            &job,
        ],
    );
    let one = ["report", &job, "--tenant", "account:3", "-o", "one.html"];
    sandbox.run(&one).done(&["one.html: Restored"]);
    let html = fs::read_to_string(sandbox.path("one.html")).unwrap();
    says(&html, &["Restore of account:3", "The tenant is back"]);
    assert!(!html.contains("account:2") && !html.contains("2 tenants"));
    sandbox
        .run(&one)
        .refused(2, &["one.html", "must not exist"]);
    let missing = ["report", &job, "--tenant", "account:9", "-o", "x.html"];
    sandbox.run(&missing).refused(8, &["no tenant account:9"]);
    sandbox
        .run(&["report", "0000", "-o", "x.html"])
        .refused(8, &["no job begins with"]);
    sandbox
        .run(&["report", &job, "-o", "nowhere/x.html"])
        .refused(2, &["nowhere"]);
    assert!(!sandbox.path("x.html").exists());

    let undo = sandbox.json(&["undo", &job, "--confirm-digest", "b3:000000000000"]);
    assert_eq!(undo.code, 6, "{undo:?}");
    let digest = undo.record("plan")["digest"].as_str().unwrap().to_owned();
    assert!(digest.starts_with("b3:"));
    sandbox.run(&["undo", &job, "--out", "u"]).done(&["saved"]);
    let shown = sandbox.json(&["show", "u"]);
    let digest = shown.record("plan")["digest"].as_str().unwrap().to_owned();
    let undone = job_of(&sandbox.json(&["apply", "u", "--confirm-digest", &digest]));
    sandbox
        .run(&["report", &undone, "-o", "undo.html"])
        .done(&["Taken back"]);
    let html = fs::read_to_string(sandbox.path("undo.html")).unwrap();
    says(&html, &["Undo for 2 tenants", "Takes back job", &job]);
    assert!(!html.contains("Data loss"));
}

/// The store's own journal is in the transaction of the merge; the receipt is kept after it.
#[test]
fn a_lost_receipt_is_no_lost_restore_in_the_report() {
    let sandbox = Sandbox::captured();
    sandbox.destroy(3);
    let restore = ["restore", "account:3", "--at", "latest", "--yes"];
    let job = job_of(&sandbox.json(&restore));
    fs::remove_dir_all(sandbox.path("reinstate-repository/records/receipt")).unwrap();
    let report = |file: &str| {
        let run = sandbox.json(&["report", &job, "-o", file]);
        let html = fs::read_to_string(sandbox.path(file)).unwrap();
        let outcome = run.record("report")["outcome"].clone();
        (outcome, html)
    };
    let (outcome, html) = report("journal.html");
    assert_eq!(outcome, "Committed, not known to be verified");
    says(
        &html,
        &["own journal", "reinstate verify JOB", "Committed at"],
    );
    // Where it cannot be asked, that is said, and nothing is made up.
    let store = sandbox.store();
    let (outcome, html) = report("unasked.html");
    assert_eq!(outcome, "Not restored");
    says(
        &html,
        &["could not be asked", "another process has the store"],
    );
    drop(store);
    // A merge that was never made is none.
    let undo = ["undo", &job, "--confirm", "account:3"];
    sandbox.run(&undo).done(&[]);
    sandbox.run(&["verify", &job]).refused(4, &[]);
}

#[test]
fn hostile_names_are_text_and_what_was_left_out_is_said() {
    const EVIL: &str = "<script>alert(1)</script>\"'&";
    let table = "\"<img src=x onerror=alert(2)>\"";
    let schema = format!(
        "CREATE TABLE {table} (id int PRIMARY KEY, account_id text NOT NULL, slug text UNIQUE);
         INSERT INTO {table} VALUES (1, $${EVIL}$$, 'a'), (2, $${EVIL}$$, 'b'), (3, 'other', 'c');"
    );
    let tenancy = "[tenancy]\nkind = \"account\"\ncolumn = \"account_id\"\n";
    let ground = Ground::captured(&schema, tenancy);
    ground.psql(&format!(
        "DELETE FROM {table} WHERE account_id <> 'other';
         UPDATE {table} SET slug = 'a' WHERE id = 3"
    ));
    let tenants = ground.sandbox.json(&["tenants"]);
    let names = tenants.records();
    let names = names.iter().filter_map(|record| record["tenant"].as_str());
    let evil = names.into_iter().find(|name| *name != "account:other");
    let evil = evil.unwrap().to_owned();
    let restore = [
        "restore",
        &evil,
        "--at",
        "latest",
        "--on-conflict",
        "keep-live",
    ];
    let run = ground
        .sandbox
        .json(&[&restore[..], &["--confirm", &evil]].concat());
    let job = job_of(&run);
    ground
        .sandbox
        .run(&["report", &job, "-o", "r.html"])
        .done(&["Restored in part"]);
    let html = fs::read_to_string(ground.sandbox.path("r.html")).unwrap();
    for foreign in ["<script", "<img", "onerror=alert(2)>"] {
        assert!(!html.contains(foreign), "{foreign} in {html}");
    }
    assert!(!text(&html).contains("other"), "{}", text(&html));
    says(
        &html,
        &["1 row left out:", "&#60;img src=x onerror=alert(2)&#62;"],
    );
}
