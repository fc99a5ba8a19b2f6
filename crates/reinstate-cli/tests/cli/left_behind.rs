//! Rows that an incident left behind because nothing guarded what they belong to: they are the
//! tenant's again, and as they were.

use crate::ground::Ground;

/// Comments are on issues or pages, reactions on comments (guarded by a key), views have no key at
/// all, and nothing but their columns says what they belong to.
const SCHEMA: &str = "\
CREATE TABLE issues (id int PRIMARY KEY, account_id int NOT NULL, title text);
CREATE TABLE pages (id int PRIMARY KEY, account_id int NOT NULL);
CREATE TABLE comments (id int PRIMARY KEY, on_type text NOT NULL, on_id bigint NOT NULL,
                       body text, pinned boolean, tags text[]);
CREATE TABLE reactions (id int PRIMARY KEY, comment_id int NOT NULL REFERENCES comments, kind text);
CREATE TABLE views (issue_id int, page text);
INSERT INTO issues SELECT n, n % 3, 'i' || n FROM generate_series(1, 30) n;
INSERT INTO pages SELECT n, n % 3 FROM generate_series(1, 30) n;
INSERT INTO comments SELECT n, (ARRAY['Issue', 'Page'])[n % 2 + 1], n % 30 + 1, 'c' || n,
    n % 4 = 0, ARRAY['a b', NULL, n::text] FROM generate_series(1, 120) n;
INSERT INTO reactions SELECT n, n % 120 + 1, 'r' || n % 3 FROM generate_series(1, 240) n;
INSERT INTO views SELECT n % 30 + 1, 'p' || n % 2 FROM generate_series(1, 90) n;
INSERT INTO views SELECT n % 30 + 1, 'p' || n % 2 FROM generate_series(1, 90) n;
";

const TENANCY: &str = "\
[tenancy]
kind = \"account\"
column = \"account_id\"
[tenancy.table.comments]
one_of = [
    { when = \"on_type = Issue\", via = \"on_id -> issues.id\" },
    { when = \"on_type = Page\", via = \"on_id -> pages.id\" },
]
[tenancy.table.reactions]
via = \"comment_id -> comments.id\"
unowned = \"shared\"
[tenancy.table.views]
via = \"issue_id -> issues.id\"
unowned = \"shared\"
";

fn captured() -> Ground {
    let ground = Ground::captured(SCHEMA, TENANCY);
    ground.install_guard();
    ground
}

/// Everything there is.
fn contents(ground: &Ground) -> [String; 5] {
    ["issues", "pages", "comments", "reactions", "views"]
        .map(|table| ground.psql(&format!("SELECT t.* FROM {table} t ORDER BY t.*::text")))
}

#[test]
fn rows_that_are_what_they_were_are_not_even_written() {
    let ground = captured();
    let before = contents(&ground);
    let written = "SELECT 'c', xmin, id FROM comments UNION ALL SELECT 'r', xmin, id FROM reactions
                   ORDER BY 1, 3";
    let versions = ground.psql(written);
    ground.psql("DELETE FROM issues WHERE account_id = 1; DELETE FROM pages WHERE account_id = 1");
    let run = ground.restore(&[]);
    run.done(&[
        "note     account:1: comments holds rows that were left behind",
        "again (40 rows)",
        "again (80 rows)",
        "views holds rows that were left behind",
        "restored",
    ]);
    assert_eq!(contents(&ground), before);
    assert_eq!(ground.psql(written), versions);
    ground.restore(&[]).done(&["no change"]);
}

#[test]
fn rows_that_changed_are_put_back_and_newer_ones_go() {
    let ground = captured();
    let before = contents(&ground);
    ground.psql(
        "UPDATE comments SET body = 'edited', pinned = NULL WHERE id IN (6, 60);
         INSERT INTO comments VALUES (500, 'Issue', 4, 'newer'), (501, 'Page', 7, 'newer');
         INSERT INTO reactions VALUES (900, 500, 'newer'), (901, 6, 'newer');
         INSERT INTO views VALUES (4, 'p0'), (4, 'newer'), (NULL, 'nobody');
         DELETE FROM views WHERE ctid IN (SELECT ctid FROM views WHERE issue_id = 7 LIMIT 1);
         DELETE FROM issues WHERE account_id = 1; DELETE FROM pages WHERE account_id = 1;
         INSERT INTO issues VALUES (700, 1, 'newer');
         INSERT INTO comments VALUES (502, 'Issue', 700, 'newer');
         INSERT INTO views VALUES (700, 'newer'), (700, 'newer')",
    );
    ground.restore(&[]).done(&["restored"]);
    ground.psql("DELETE FROM views WHERE issue_id IS NULL");
    assert_eq!(contents(&ground), before);
}

#[test]
fn what_came_back_by_itself_is_nobodys_again_after_an_undo() {
    let ground = captured();
    let whole = contents(&ground);
    ground.psql("DELETE FROM issues WHERE account_id = 1; DELETE FROM pages WHERE account_id = 1");
    let lost = contents(&ground);
    let what = ["restore", "account:1", "--at", "latest", "--nearest-before"];
    let run = ground
        .sandbox
        .json(&[&what[..], &["--confirm", "account:1"]].concat());
    let job = run.record("plan")["job"].as_str().unwrap().to_owned();
    assert_eq!(contents(&ground), whole);
    let undo = |job: &str| {
        let run = ground
            .sandbox
            .json(&["undo", job, "--confirm", "account:1"]);
        assert_eq!(run.code, 0, "{run:?}");
        run.record("plan")["job"].as_str().unwrap().to_owned()
    };
    let undone = undo(&job);
    assert_eq!(contents(&ground), lost);
    undo(&undone);
    assert_eq!(contents(&ground), whole);
}

#[test]
fn rows_that_moved_to_a_newer_parent_come_back_to_the_older_one() {
    let ground = captured();
    let before = contents(&ground);
    ground.psql(
        "INSERT INTO issues VALUES (700, 1, 'newer'); INSERT INTO pages VALUES (701, 1);
         UPDATE comments SET on_id = 700 WHERE id = 6;
         UPDATE comments SET on_type = 'Page', on_id = 701 WHERE id = 60;
         UPDATE comments SET on_id = 701 WHERE on_type = 'Page' AND id = 27",
    );
    assert_ne!(contents(&ground), before);
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(contents(&ground), before);
}

/// Restores and returns the job.
fn restored(ground: &Ground) -> String {
    let what = ["restore", "account:1", "--at", "latest", "--nearest-before"];
    let run = ground
        .sandbox
        .json(&[&what[..], &["--confirm", "account:1"]].concat());
    assert_eq!(run.code, 0, "{run:?}");
    run.record("plan")["job"].as_str().unwrap().to_owned()
}

#[track_caller]
fn undone(ground: &Ground, job: &str) -> String {
    let arguments = ["undo", job, "--confirm", "account:1", "--prove-isolation"];
    let run = ground.sandbox.json(&arguments[..4]);
    assert_eq!(run.code, 0, "{run:?}");
    run.record("plan")["job"].as_str().unwrap().to_owned()
}

/// What came back by itself lives on: it is edited, deleted and added to. Taking the restore back
/// was refused then, with a number of rows below zero.
#[test]
fn an_undo_leaves_to_nobody_what_the_application_wrote_since() {
    let ground = captured();
    ground.psql("DELETE FROM issues WHERE account_id = 1; DELETE FROM pages WHERE account_id = 1");
    let job = restored(&ground);
    ground.psql(
        "UPDATE comments SET body = 'since' WHERE id IN (6, 27);
         DELETE FROM reactions WHERE comment_id = 60; DELETE FROM comments WHERE id = 60;
         INSERT INTO comments VALUES (800, 'Issue', 4, 'since');
         INSERT INTO reactions VALUES (901, 800, 'since'), (902, 6, 'since');
         INSERT INTO views VALUES (4, 'since'), (4, 'since');
         DELETE FROM views WHERE ctid IN (SELECT ctid FROM views WHERE issue_id = 7 LIMIT 3)",
    );
    let since = contents(&ground);
    let [_, _, comments, reactions, views] = &since;
    let undo = undone(&ground, &job);
    let after = contents(&ground);
    assert_eq!(
        [&after[2], &after[3], &after[4]],
        [comments, reactions, views]
    );
    assert_eq!(
        ground.psql("SELECT count(*) FROM issues WHERE account_id = 1"),
        "0"
    );
    // What is nobody's is written to as well, and comes back as it is then.
    ground.psql("UPDATE comments SET body = 'nobody' WHERE id = 6");
    undone(&ground, &undo);
    let again = contents(&ground);
    assert_eq!([&again[0], &again[1]], [&since[0], &since[1]]);
    assert_eq!(
        ground.psql("SELECT body FROM comments WHERE id = 6"),
        "nobody"
    );
}

#[test]
fn an_undo_takes_back_what_was_done_to_rows_left_behind() {
    let ground = captured();
    ground.psql(
        "UPDATE comments SET body = 'edited', pinned = NULL WHERE id IN (6, 60);
         UPDATE comments SET on_id = 7 WHERE id = 66;
         INSERT INTO comments VALUES (500, 'Issue', 4, 'newer'), (501, 'Page', 7, 'newer');
         INSERT INTO reactions VALUES (900, 500, 'newer'), (901, 6, 'newer'), (903, 27, 'newer');
         INSERT INTO views VALUES (4, 'p0'), (4, 'newer');
         DELETE FROM reactions WHERE comment_id = 36; DELETE FROM comments WHERE id = 36;
         DELETE FROM views WHERE ctid IN (SELECT ctid FROM views WHERE issue_id = 7 LIMIT 1);
         DELETE FROM issues WHERE account_id = 1; DELETE FROM pages WHERE account_id = 1",
    );
    let lost = contents(&ground);
    let job = restored(&ground);
    let whole = contents(&ground);
    assert_ne!(lost, whole);
    let undo = undone(&ground, &job);
    assert_eq!(contents(&ground), lost);
    undone(&ground, &undo);
    assert_eq!(contents(&ground), whole);
}

const SLUGS: &str = "\
CREATE TABLE projects (id int PRIMARY KEY, account_id int NOT NULL, slug text NOT NULL UNIQUE);
CREATE TABLE tasks (id int PRIMARY KEY, project text NOT NULL, place int NOT NULL, title text,
                    UNIQUE (project, place));
INSERT INTO projects SELECT n, n % 3, 'p' || n FROM generate_series(1, 12) n;
INSERT INTO tasks SELECT n, 'p' || n % 12 + 1, n, 't' || n FROM generate_series(1, 60) n;
";

const SLUGS_TENANCY: &str = "\
[tenancy]
kind = \"account\"
column = \"account_id\"
[tenancy.table.tasks]
via = \"project -> projects.slug\"
unowned = \"shared\"
";

fn tasks(ground: &Ground) -> [String; 2] {
    ["projects", "tasks"]
        .map(|table| ground.psql(&format!("SELECT t.* FROM {table} t ORDER BY id")))
}

/// Nothing but a text says what a task belongs to, and the text was changed on the one side.
#[test]
fn rows_come_back_when_what_they_refer_to_by_is_put_back() {
    let ground = Ground::captured(SLUGS, SLUGS_TENANCY);
    let before = tasks(&ground);
    ground.psql(
        "UPDATE projects SET slug = 'renamed' WHERE id = 4;
         UPDATE projects SET slug = 'swap' WHERE id = 7; UPDATE projects SET slug = 'p7' WHERE id = 10;
         UPDATE projects SET slug = 'p10' WHERE id = 7;
         INSERT INTO tasks VALUES (100, 'renamed', 1, 'newer')",
    );
    let after = tasks(&ground);
    let job = restored(&ground);
    assert_eq!(tasks(&ground), before);
    undone(&ground, &job);
    assert_eq!(tasks(&ground), after);

    // A row that was written to when it came back cannot be taken back: it would have to be before
    // the project is, and the other way round.
    ground.psql("UPDATE tasks SET title = 'edited' WHERE id = 3");
    let edited = tasks(&ground);
    let job = restored(&ground);
    assert_eq!(tasks(&ground), before);
    let run = ground
        .sandbox
        .run(&["undo", &job, "--confirm", "account:1"]);
    run.refused(5, &["1 conflict", "--on-conflict keep-live"]);
    assert!(
        run.stdout
            .contains("! account:1 tasks id=3: belongs by a value"),
        "{run:?}"
    );
    assert_eq!(tasks(&ground), before);
    let keep = [
        "undo",
        &job,
        "--on-conflict",
        "keep-live",
        "--confirm",
        "account:1",
    ];
    assert_eq!(ground.sandbox.run(&keep).code, 4);
    let kept = tasks(&ground);
    assert_eq!(kept[0], edited[0]);
    assert_eq!(kept[1], edited[1].replace("|edited", "|t3"));
}

#[test]
fn a_row_left_behind_may_take_the_value_of_another_one() {
    let ground = Ground::captured(SLUGS, SLUGS_TENANCY);
    let before = tasks(&ground);
    ground.psql(
        "DELETE FROM tasks WHERE id = 15; UPDATE tasks SET place = 700 WHERE id = 3;
         INSERT INTO tasks VALUES (200, 'p4', 3, 'newer'), (201, 'p4', 15, 'newer');
         DELETE FROM projects WHERE id = 4",
    );
    let after = tasks(&ground);
    let job = restored(&ground);
    assert_eq!(tasks(&ground), before);
    undone(&ground, &job);
    assert_eq!(tasks(&ground), after);
}

#[test]
fn rows_left_behind_that_changed_since_make_a_plan_stale() {
    let ground = Ground::captured(SLUGS, SLUGS_TENANCY);
    ground
        .psql("UPDATE tasks SET title = 'edited' WHERE id = 3; DELETE FROM projects WHERE id = 4");
    for (change, number) in [
        ("UPDATE tasks SET title = 'again' WHERE id = 3", 1),
        ("UPDATE tasks SET title = 'again' WHERE id = 15", 2),
        ("INSERT INTO tasks VALUES (300, 'p4', 300, 'new')", 3),
        ("DELETE FROM tasks WHERE id = 27", 4),
    ] {
        let file = format!("{number}.plan");
        let plan = [
            "plan",
            "account:1",
            "--at",
            "latest",
            "--nearest-before",
            "--out",
            &file,
        ];
        ground.sandbox.run(&plan).done(&["left behind"]);
        ground.psql(change);
        let before = tasks(&ground);
        let run = ground
            .sandbox
            .run(&["apply", &file, "--confirm", "account:1"]);
        run.refused(6, &["left behind", "changed after the plan was made"]);
        assert_eq!(tasks(&ground), before, "{change}");
    }
    ground.restore(&[]).done(&["restored"]);
}

/// Where a newer row goes and another stays that belongs to it, that one would be nobody's.
#[test]
fn a_restore_that_would_leave_rows_behind_is_refused() {
    let ground = captured();
    ground.psql(
        "INSERT INTO issues VALUES (700, 1, 'newer');
         UPDATE comments SET on_id = 700 WHERE id IN (6, 60)",
    );
    let before = contents(&ground);
    let run = ground.restore(&["--put-back", "off"]);
    run.refused(
        1,
        &["table comments holds rows of the tenant that would be nobody's"],
    );
    assert!(run.stdout.contains("(2 rows)"), "{run:?}");
    assert_eq!(contents(&ground), before);
    ground.restore(&[]).done(&["restored"]);
}

#[test]
fn newer_rows_that_were_left_behind_go_also_with_a_plan_of_several_tenants() {
    // Those of the second tenant are looked up while the first one is planned; by its own turn it has
    // more of them, because the issues that they are on are about to return.
    let ground = captured();
    let before = contents(&ground);
    ground.psql(
        "INSERT INTO comments VALUES (500, 'Issue', 5, 'newer'), (501, 'Page', 7, 'newer'),
                                     (502, 'Issue', 4, 'newer'), (503, 'Issue', 7, 'newer');
         DELETE FROM issues WHERE account_id = 1",
    );
    let plan = [
        "plan",
        "account:2",
        "account:1",
        "--at",
        "latest",
        "--out",
        "p",
    ];
    let digest = ground.sandbox.json(&plan).record("plan")["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    ground
        .sandbox
        .run(&["apply", "p", "--confirm-digest", &digest])
        .done(&["2 of 2 tenants restored"]);
    assert_eq!(contents(&ground), before);
}
