//! A tenant is copied under another id: its rows are the original's under new keys, none of their
//! references leads to the original, and of anybody else's rows none changes.

mod refusals;

use std::fs;

use serde_json::Value;

use crate::ground::Ground;
use crate::sandbox::{Run, Sandbox};

const SCHEMA: &str = include_str!("application.sql");

const TENANCY: &str = "\
[tenancy]
kind = \"account\"
column = \"account_id\"
shared = [\"currencies\"]
[tenancy.table.accounts]
column = \"id\"
[tenancy.table.tasks]
via = \"project_id -> projects.id\"
[tenancy.table.task_labels]
via = \"task_id -> tasks.id\"
[tenancy.table.comments]
one_of = [
    { when = \"subject_type = Project\", via = \"subject_id -> projects.id\" },
    { when = \"subject_type = Task\", via = \"subject_id -> tasks.id\" },
]
[tenancy.table.pins]
one_of = [
    { when = \"subject_type = Project\", via = \"subject_id -> projects.id\" },
    { when = \"subject_type = Task\", via = \"subject_id -> tasks.id\" },
]
";

const INTO: &str = "\
[into.table.accounts]
columns = { slug = \"suffix\" }
[into.table.users]
columns = { email = { prefix = \"copy.\" } }
[into.table.codes]
columns = { span = \"null\" }
[into.table.events]
references = [
    \"project_id -> projects.id\",
    { when = \"target_type = Task\", via = \"target_id -> tasks.id\" },
    { when = \"target_type = Project\", via = \"target_id -> projects.id\" },
]
[into.table.events.json]
payload = [\"$.account_id -> tenant\", \"$.task.id -> tasks.id\", \"$.projects[*] -> projects.id\",
           \"$.by -> users.id\"]
raw = [\"$.account_id -> accounts.id\", \"$.b[*] -> tasks.id\"]
[into.table.visits]
references = [\"task_id -> tasks.id\"]
";

/// Whose the subject of a row is.
const OF_SUBJECT: &str = "(SELECT account_id FROM projects p WHERE p.id = CASE subject_type
    WHEN 'Project' THEN subject_id ELSE (SELECT project_id FROM tasks k WHERE k.id = subject_id) END)";

/// Tables with what tells whose a row is.
const TABLES: [(&str, &str); 15] = [
    ("currencies", "0"),
    ("accounts", "id"),
    ("users", "account_id"),
    ("projects", "account_id"),
    (
        "tasks",
        "(SELECT account_id FROM projects p WHERE p.id = t.project_id)",
    ),
    ("comments", OF_SUBJECT),
    ("labels", "account_id"),
    (
        "task_labels",
        "(SELECT account_id FROM projects p JOIN tasks k ON k.project_id = p.id WHERE k.id = t.task_id)",
    ),
    ("invoices", "account_id"),
    ("invoice_lines", "account_id"),
    ("events", "account_id"),
    ("visits", "account_id"),
    ("codes", "account_id"),
    ("shares", "account_id"),
    ("pins", OF_SUBJECT),
];

/// Everything but the copy, with what tells whether a row was written.
fn others(ground: &Ground) -> String {
    let parts = TABLES.map(|(table, owner)| {
        format!(
            "SELECT '{table}', t.xmin::text, t.ctid::text, t::text FROM {table} t
              WHERE {owner} IS DISTINCT FROM 9007"
        )
    });
    ground.psql(&format!("{} ORDER BY 1, 3", parts.join(" UNION ALL ")))
}

/// One account as a graph: rows with what they refer to by its names, and no key that is only a
/// number or a uuid. The same for the original and the copy.
fn graph(ground: &Ground, account: u32) -> String {
    let name = "replace(replace(coalesce(u.email, '-'), 'copy.', ''), '@x.org', '')";
    let sql = format!(
        "WITH task AS (SELECT t.*, p.account_id, p.name || '/' || t.number AS path
                         FROM tasks t JOIN projects p ON p.id = t.project_id WHERE p.account_id = {account}),
              usr AS (SELECT u.*, {name} AS name FROM users u WHERE account_id = {account}),
              project AS (SELECT * FROM projects WHERE account_id = {account})
         SELECT 'account', split_part(replace(slug, '-9007', ''), '-', 2), name, parent_account_id::text
           FROM accounts a LEFT JOIN usr ON usr.id = owner_id WHERE a.id = {account}
         UNION ALL SELECT 'user', u.name, m.name, NULL FROM usr u LEFT JOIN usr m ON m.id = u.manager_id
         UNION ALL SELECT 'project', name, currency, NULL FROM project
         UNION ALL SELECT 'task', t.path, parent.path, u.name
                     FROM task t LEFT JOIN task parent ON parent.id = t.parent_id
                     LEFT JOIN usr u ON u.id = t.assignee
         UNION ALL SELECT 'comment', c.body, coalesce(p.name, t.path), subject_type
                     FROM comments c LEFT JOIN project p ON subject_type = 'Project' AND p.id = subject_id
                     LEFT JOIN task t ON subject_type = 'Task' AND t.id = subject_id
                    WHERE p.id IS NOT NULL OR t.id IS NOT NULL
         UNION ALL SELECT 'label', t.path, l.name, (l.account_id = {account})::text
                     FROM task_labels tl JOIN task t ON t.id = tl.task_id
                     JOIN labels l ON l.id = tl.label_id
                      AND (l.account_id = {account} OR l.account_id IS NULL)
         UNION ALL SELECT 'own label', name, NULL, NULL FROM labels WHERE account_id = {account}
         UNION ALL SELECT 'line', number || '/' || line, p.name, NULL
                     FROM invoice_lines l JOIN project p ON p.id = l.project_id
                    WHERE l.account_id = {account}
         UNION ALL SELECT 'event', t.path || ' ' || p.name || ' ' || (payload->>'text') || (payload->>'z'),
                          u.name || coalesce(tt.path, tp.name),
                          (SELECT string_agg(coalesce(q.name, e.value), ' ' ORDER BY e.ordinality)
                             FROM jsonb_array_elements_text(payload->'projects') WITH ORDINALITY e
                             LEFT JOIN project q ON q.id::text = e.value)
                          || replace(replace(raw::text, ':{account},', ':A,'), raw->'b'->>0, k.path)
                     FROM events e JOIN task t ON t.id::text = payload->'task'->>'id'
                     JOIN project p ON p.id = e.project_id
                     LEFT JOIN task tt ON target_type = 'Task' AND tt.id::text = target_id
                     LEFT JOIN project tp ON target_type = 'Project' AND tp.id::text = target_id
                     JOIN task k ON k.id::text = raw->'b'->>0
                     JOIN usr u ON u.id::text = payload->>'by'
                    WHERE e.account_id = {account} AND (payload->'account_id')::int = {account}
         UNION ALL SELECT 'pin', coalesce(p.name, t.path), subject_type, NULL
                     FROM pins c LEFT JOIN project p ON subject_type = 'Project' AND p.id = subject_id
                     LEFT JOIN task t ON subject_type = 'Task' AND t.id = subject_id
                    WHERE p.id IS NOT NULL OR t.id IS NOT NULL
         UNION ALL SELECT 'share', CASE with_id WHEN {account} THEN 'own' ELSE with_id::text END, NULL, NULL
                     FROM shares WHERE account_id = {account}
         UNION ALL SELECT 'visit', t.path, v.page, count(*)::text
                     FROM visits v JOIN task t ON t.id = v.task_id
                    WHERE v.account_id = {account} GROUP BY 2, 3
         ORDER BY 1, 2, 3, 4"
    );
    ground.psql(&sql)
}

/// Two lists are the same, or the first line that is not is shown.
#[track_caller]
fn assert_same(found: &str, expected: &str) {
    let (mut found, mut expected) = (found.lines(), expected.lines());
    loop {
        let pair = (found.next(), expected.next());
        assert_eq!(pair.0, pair.1);
        if pair.0.is_none() {
            return;
        }
    }
}

fn counts(ground: &Ground, account: u32) -> String {
    let parts = TABLES.map(|(table, owner)| {
        format!("SELECT '{table}', count(*) FROM {table} t WHERE {owner} = {account}")
    });
    ground.psql(&format!("{} ORDER BY 1", parts.join(" UNION ALL ")))
}

fn captured() -> Ground {
    Ground::captured(SCHEMA, &format!("{TENANCY}{INTO}"))
}

fn copy(ground: &Ground, options: &[&str]) -> Run {
    let what = ["restore", "account:7", "--at", "latest", "--yes"];
    ground.sandbox.run(&[&what[..], options].concat())
}

fn job_of(run: &Run) -> String {
    let line = run.stdout.lines().find(|line| line.starts_with("job "));
    line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn a_copy_is_the_original_under_new_keys_and_undo_takes_exactly_it_away() {
    let ground = captured();
    let (original, rows) = (graph(&ground, 7), counts(&ground, 7));
    assert!(original.lines().count() > 200, "{original}");
    // The original lives on before the copy is made: the copy is as of the snapshot.
    ground.psql(
        "UPDATE projects SET name = 'renamed' WHERE account_id = 7 AND name = 'p6';
         DELETE FROM visits WHERE account_id = 7; DELETE FROM codes WHERE account_id = 7;
         INSERT INTO projects (account_id, name) VALUES (7, 'new')",
    );
    let (before, now) = (others(&ground), graph(&ground, 7));
    let plan = [
        "plan",
        "account:7",
        "--at",
        "latest",
        "--into",
        "side:9007",
        "--out",
        "p",
    ];
    let planned = ground.sandbox.run(&plan);
    planned.done(&[
        "account:7 is copied, and its own rows stay as they are",
        "tasks.id and what refers to it: ",
        "users.id and what refers to it: new uuids",
        "codes.id goes up to ",
        "accounts.slug and what refers to it: \"-9007\" after it",
        "account:9007",
        "0 to put back, 0 to delete, in 1 tenant",
    ]);
    assert_same(&others(&ground), &before);
    let remap = fs::read_to_string(ground.sandbox.path("p.remap")).unwrap();
    let run = ground
        .sandbox
        .run(&["apply", "p", "--yes", "--prove-isolation"]);
    run.done(&["created account:9007", "1 of 1 tenant created and proven"]);

    assert_same(&others(&ground), &before);
    assert_same(&graph(&ground, 7), &now);
    assert_same(&graph(&ground, 9007), &original);
    assert_eq!(counts(&ground, 9007), rows);
    no_reference_leads_out(&ground);
    the_remap_file_is_true(&ground, &remap);
    new_rows_get_new_keys(&ground);

    let undo = ["undo", &job_of(&run), "--confirm", "account:9007"];
    ground.sandbox.run(&undo).done(&["undone account:9007"]);
    assert_same(&others(&ground), &before);
    let left = counts(&ground, 9007);
    assert!(left.lines().all(|line| line.ends_with("|0")), "{left}");
    copy(&ground, &["--into", "side:9007"]).done(&["created account:9007"]);
}

/// Whatever a row of the copy refers to is the copy's, or was never the original's.
fn no_reference_leads_out(ground: &Ground) {
    for sql in [
        "SELECT count(*) FROM users u JOIN users m ON m.id = u.manager_id
          WHERE u.account_id = 9007 AND m.account_id <> 9007",
        "SELECT count(*) FROM task_labels tl JOIN labels l ON l.id = tl.label_id
           JOIN tasks t ON t.id = tl.task_id JOIN projects p ON p.id = t.project_id
          WHERE p.account_id = 9007 AND l.account_id IS NOT NULL AND l.account_id <> 9007",
        "SELECT count(*) FROM invoice_lines l JOIN projects p ON p.id = l.project_id
          WHERE l.account_id = 9007 AND p.account_id <> 9007",
    ] {
        assert_eq!(ground.psql(sql), "0", "{sql}");
    }
    // A reference to another account, and those to rows of everybody, stay.
    let parent = "SELECT parent_account_id FROM accounts WHERE id = 9007";
    assert_eq!(ground.psql(parent), "1");
    let spans = "SELECT count(*), count(span) FROM codes WHERE account_id = 9007";
    assert_eq!(ground.psql(spans), "10|0");
    // Rows that were copied byte by byte but for what had to change.
    let payload = "SELECT count(*) FROM events WHERE account_id = 9007 AND raw::text NOT LIKE \
                   '{ \"account_id\" :9007,\"b\":[ % ]}'";
    assert_eq!(ground.psql(payload), "0");
}

fn the_remap_file_is_true(ground: &Ground, remap: &str) {
    let mut lines = remap
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let head = lines.next().unwrap();
    assert_eq!(
        (&head["of"], &head["into"]),
        (&"account:7".into(), &"account:9007".into())
    );
    let mut keys = 0;
    for line in lines {
        keys += 1;
        if line["table"] != "tasks" {
            continue;
        }
        let id = |side: &str| line[side]["id"].as_str().unwrap().to_owned();
        let sql = format!(
            "SELECT count(*) FROM tasks a JOIN tasks b ON a.number = b.number
              WHERE a.id = {} AND b.id = {}",
            id("old"),
            id("new")
        );
        assert_eq!(ground.psql(&sql), "1", "{line}");
    }
    let counts = counts(ground, 9007);
    let rows = counts.lines().filter(|line| !line.starts_with("visits"));
    let rows: u64 = rows
        .map(|line| line.split('|').nth(1).unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(keys, rows, "a line for every row with a key");
}

fn new_rows_get_new_keys(ground: &Ground) {
    for (table, columns, values) in [
        ("projects", "account_id, name", "1, 'new'"),
        ("tasks", "project_id, number", "1, 100000"),
        ("comments", "subject_type, subject_id", "'Task', 1"),
        ("labels", "name", "'new'"),
    ] {
        let sql = format!(
            "BEGIN; INSERT INTO {table} ({columns}) VALUES ({values})
             RETURNING id > (SELECT max(id) FROM {table}); ROLLBACK"
        );
        assert!(ground.psql(&sql).contains('t'), "{table}");
    }
}

#[test]
fn a_copy_can_be_made_of_an_original_that_is_gone_and_is_not_in_its_way() {
    let ground = captured();
    let original = graph(&ground, 7);
    ground.psql(
        "DELETE FROM codes WHERE account_id = 7; DELETE FROM shares WHERE 7 IN (account_id, with_id);
         DELETE FROM visits WHERE account_id = 7; DELETE FROM events WHERE account_id = 7;
         DELETE FROM invoice_lines WHERE account_id = 7; DELETE FROM invoices WHERE account_id = 7;
         CREATE TEMP TABLE gone AS SELECT t.id FROM tasks t JOIN projects p ON p.id = t.project_id
           WHERE p.account_id = 7;
         DELETE FROM task_labels WHERE task_id IN (TABLE gone);
         DELETE FROM labels WHERE account_id = 7;
         DELETE FROM comments WHERE subject_type = 'Task' AND subject_id IN (TABLE gone)
             OR subject_type = 'Project' AND subject_id IN (SELECT id FROM projects WHERE account_id = 7);
         DELETE FROM pins WHERE subject_type = 'Task' AND subject_id IN (TABLE gone)
             OR subject_type = 'Project' AND subject_id IN (SELECT id FROM projects WHERE account_id = 7);
         DELETE FROM tasks WHERE id IN (TABLE gone); DELETE FROM projects WHERE account_id = 7;
         UPDATE accounts SET owner_id = NULL WHERE id = 7; UPDATE users SET manager_id = NULL
           WHERE account_id = 7; DELETE FROM users WHERE account_id = 7;
         DELETE FROM accounts WHERE id = 7;",
    );
    copy(&ground, &["--into", "side:9007"]).done(&["created account:9007"]);
    assert_same(&graph(&ground, 9007), &original);
    let back = ["restore", "account:7", "--at", "latest", "--yes"];
    ground.sandbox.run(&back).done(&["restored account:7"]);
    assert_same(&graph(&ground, 7), &original);
    assert_same(&graph(&ground, 9007), &original);
}

#[test]
fn a_copy_goes_into_tables_that_changed_and_ids_may_be_texts() {
    let tenancy = "[tenancy]\nkind = \"account\"\ncolumn = \"tenant\"\n[tenancy.table.notes]\n\
                   via = \"doc_id -> docs.id\"\n";
    let ground = Ground::captured(
        "CREATE TABLE tenants (tenant text PRIMARY KEY, title text);
         CREATE TABLE docs (id int PRIMARY KEY, tenant text NOT NULL REFERENCES tenants, title text,
                            about jsonb, code text UNIQUE, stamp bytea UNIQUE, serial char(8) UNIQUE);
         CREATE TABLE notes (id int PRIMARY KEY, doc_id int NOT NULL REFERENCES docs, body text);
         INSERT INTO tenants VALUES ('7', 'seven'), ('a b', 'other');
         INSERT INTO docs SELECT n, '7', 'doc ' || n,
             jsonb_build_object('of', '7', 'next', n + 1, 'text', '7'), 'c' || n,
             decode(lpad(to_hex(n), 8, '0'), 'hex'), 's' || n FROM generate_series(1, 9) n;
         INSERT INTO notes SELECT n, n % 9 + 1, 'note ' || n FROM generate_series(1, 90) n",
        tenancy,
    );
    ground.psql(
        "ALTER TABLE docs RENAME title TO name; ALTER TABLE docs ADD COLUMN state text DEFAULT 'open';
         ALTER TABLE notes ALTER id TYPE bigint; ALTER TABLE notes RENAME TO remarks",
    );
    let before = ground.psql("TABLE docs; TABLE remarks; TABLE tenants");
    let map = tenancy.replace("table.notes", "table.remarks");
    ground.configure(&format!(
        "{map}[drift]\nrenamed = {{ notes = \"remarks\" }}\n[drift.table.docs]\n\
         renamed = {{ title = \"name\" }}\n[into]\n\
         columns = {{ code = {{ suffix = \"+\" }}, stamp = \"new\", serial = \"new\" }}\n\
         [into.table.docs.json]\nabout = [\"$.of -> tenant\", \"$.next -> docs.id\"]\n"
    ));
    copy(&ground, &["--into", "side:b%20c"]).done(&["created account:b%20c"]);
    let found = ground.psql(
        "SELECT d.name, d.code, d.state, length(d.stamp), length(d.serial), d.about->>'of',
                d.about->>'text', n.id IS NOT NULL OR d.about->>'next' = '10',
                (SELECT string_agg(body, ',' ORDER BY r.id) FROM remarks r WHERE r.doc_id = d.id)
           FROM docs d LEFT JOIN docs n ON n.id = (d.about->>'next')::int AND n.tenant = d.tenant
          WHERE d.tenant = 'b c' ORDER BY d.id",
    );
    for (line, number) in found.lines().zip(1..) {
        let notes = (0..10).map(|n| {
            format!(
                "note {}",
                if number == 1 {
                    9 * n + 9
                } else {
                    9 * n + number - 1
                }
            )
        });
        let notes: Vec<String> = notes.collect();
        let expected = format!(
            "doc {number}|c{number}+|open|4|8|b c|7|t|{}",
            notes.join(",")
        );
        assert_eq!(line, expected);
    }
    assert_eq!(found.lines().count(), 9);
    let others = "SELECT * FROM docs WHERE tenant <> 'b c'; SELECT r.* FROM remarks r WHERE r.id <= 90; \
                  SELECT * FROM tenants WHERE tenant <> 'b c'";
    assert_eq!(ground.psql(others), before);
}

#[test]
fn tables_that_are_left_out_have_no_rows_of_the_copy() {
    let ground = captured();
    let rules = format!("[into]\nleft_out = [\"events\", \"codes\"]\n{INTO}");
    ground.configure(&format!("{TENANCY}{rules}"));
    let says = [
        "events is left out: the copy has no rows in it",
        "created account:9007",
    ];
    copy(&ground, &["--into", "side:9007"]).done(&says);
    let found = counts(&ground, 9007);
    assert!(
        found.contains("events|0\n") && found.contains("codes|0\n"),
        "{found}"
    );
    assert!(found.contains("visits|100"), "{found}");
}

#[test]
fn what_nothing_declares_is_said_to_stay_what_it_is() {
    let ground = captured();
    let rules = INTO.split("[into.table.events]").next().unwrap();
    ground.configure(&format!("{TENANCY}{rules}"));
    let plan = [
        "plan",
        "account:7",
        "--at",
        "latest",
        "--into",
        "side:9007",
        "--out",
        "p",
    ];
    ground.sandbox.run(&plan).done(&[
        "events payload, raw, target_id, project_id: whatever they refer to stays",
        "visits task_id: whatever they refer to stays",
    ]);
}

#[test]
fn in_an_embedded_store_a_copy_has_the_very_same_keys() {
    let sandbox = Sandbox::captured();
    let (others, original) = (sandbox.contents_but(9007), sandbox.contents_of(3));
    let copy = [
        "restore",
        "account:3",
        "--at",
        "latest",
        "--into",
        "side:9007",
        "--yes",
    ];
    let run = sandbox.run(&copy);
    run.done(&["created account:9007"]);
    assert_eq!(sandbox.contents_of(9007), original);
    assert_eq!(sandbox.contents_but(9007), others);
    sandbox.run(&copy).refused(5, &["account:9007 has rows in"]);
    let undo = ["undo", &job_of(&run), "--confirm", "account:9007"];
    sandbox.run(&undo).done(&["undone account:9007"]);
    assert_eq!(sandbox.contents_of(9007), []);
}
