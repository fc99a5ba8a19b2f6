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
    ground.sandbox.run(&["guard", "install"]).done(&[]);
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
