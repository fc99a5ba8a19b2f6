//! What a merge writes: exactly the plan, every byte of it, and nothing of anybody else.

use reinstate_core::{ChangeCounts, ErrorKind, LiveStore, TableName};

use crate::ground::{Ground, bind, entry, restore, tenant, via};

const TRACKER: &str = "\
CREATE TABLE projects (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account_id int NOT NULL,
    slug text UNIQUE, parent_id bigint REFERENCES projects);
CREATE TABLE issues (id bigserial PRIMARY KEY, account_id int NOT NULL,
    project_id bigint NOT NULL REFERENCES projects, title text, UNIQUE (account_id, id));
CREATE TABLE comments (issue_id bigint NOT NULL, account int NOT NULL, number int NOT NULL,
    body text, PRIMARY KEY (number, issue_id),
    FOREIGN KEY (account, issue_id) REFERENCES issues (account_id, id) ON DELETE CASCADE);
CREATE TABLE events (account_id int, at timestamptz, what text, amount float8);
CREATE INDEX ON issues (account_id); CREATE INDEX ON issues (project_id);
INSERT INTO projects (account_id, slug, parent_id)
    SELECT n % 3, 'p' || n, CASE WHEN n > 3 THEN n - 3 END FROM generate_series(1, 30) n;
INSERT INTO issues (account_id, project_id, title)
    SELECT n % 3, n % 30 + CASE WHEN n % 30 = 0 THEN 30 ELSE 0 END, 'i' || n
      FROM generate_series(1, 3000) n;
INSERT INTO comments SELECT id, account_id, n, 'c' || n FROM issues, generate_series(1, 2) n;
INSERT INTO events SELECT n % 3, '2026-01-01', 'e' || n % 5, NULL FROM generate_series(1, 300) n;
INSERT INTO events VALUES (NULL, NULL, 'e1', 1), (NULL, NULL, 'e1', 1);
";
const TABLES: &[&str] = &["projects", "issues", "events"];

fn tracker() -> Ground {
    Ground::with_map(TRACKER, |map| {
        via(
            map,
            "comments",
            "account, issue_id -> issues.account_id, issues.id",
        );
    })
}

/// Changes the tenant, restores it, and checks that only the tenant changed, to what it was.
#[track_caller]
fn comes_back(ground: &Ground, change: &str) -> Vec<(TableName, ChangeCounts)> {
    let image = ground.image("1");
    ground.psql(change);
    let others = ground.others(TABLES, "1");
    let outcome = ground.restore("1", &image).unwrap();
    assert_eq!(outcome.counted, outcome.planned);
    assert_eq!(ground.image("1"), image);
    assert_eq!(ground.others(TABLES, "1"), others);
    let foreign = ground
        .store
        .foreign_rows_written(&tenant("1"), &outcome.committed.commit_mark);
    assert_eq!(foreign.unwrap(), 0);
    outcome.counted
}

#[test]
fn a_deleted_tenant_comes_back_with_keys_of_every_kind() {
    let ground = tracker();
    let counts = comes_back(
        &ground,
        "DELETE FROM issues WHERE account_id = 1; DELETE FROM projects WHERE account_id = 1;
         DELETE FROM events WHERE account_id = 1",
    );
    let created: Vec<u64> = counts.iter().map(|(_, counts)| counts.created).collect();
    assert_eq!(created, [2000, 100, 1000, 10]);
    ground.psql("INSERT INTO projects (account_id, slug) VALUES (1, 'next')");
}

#[test]
fn a_mixture_of_changes_in_every_table_is_undone() {
    let ground = tracker();
    comes_back(
        &ground,
        "INSERT INTO projects (account_id, slug) VALUES (1, 'new');
         UPDATE issues SET title = 'x', project_id = currval('projects_id_seq')
          WHERE account_id = 1 AND id % 7 = 0;
         DELETE FROM issues WHERE account_id = 1 AND id % 5 = 0;
         INSERT INTO comments SELECT id, 1, 9, 'nine' FROM issues WHERE account_id = 1;
         UPDATE comments SET body = NULL WHERE account = 1 AND number = 2",
    );
}

/// The row that goes is still referred to by a row that only moves back afterwards.
#[test]
fn an_issue_moves_back_from_a_project_that_goes() {
    let ground = tracker();
    comes_back(
        &ground,
        "INSERT INTO projects (account_id, slug) VALUES (1, 'new');
         UPDATE issues SET project_id = currval('projects_id_seq') WHERE account_id = 1;
         DELETE FROM projects WHERE account_id = 1 AND slug = 'p28'",
    );
    // In a table that refers to itself, in both directions, over several rows.
    comes_back(
        &ground,
        "INSERT INTO projects (account_id, slug) VALUES (1, 'top');
         INSERT INTO projects (account_id, slug, parent_id)
              VALUES (1, 'below', currval('projects_id_seq'));
         UPDATE projects SET parent_id = currval('projects_id_seq')
          WHERE account_id = 1 AND slug IN ('p4', 'p7')",
    );
    // A row that is put back refers to one that is created.
    comes_back(
        &ground,
        "UPDATE projects SET parent_id = NULL WHERE account_id = 1;
         UPDATE issues SET project_id = 28 WHERE account_id = 1;
         DELETE FROM projects WHERE account_id = 1 AND id < 20",
    );
}

#[test]
fn a_unique_value_that_a_new_row_took_is_free_again() {
    let ground = tracker();
    comes_back(
        &ground,
        "UPDATE projects SET slug = 'other' WHERE slug = 'p28';
         INSERT INTO projects (account_id, slug) VALUES (1, 'p28')",
    );
}

#[test]
fn copies_of_rows_without_a_key_are_counted_one_by_one() {
    let ground = tracker();
    let counts = comes_back(
        &ground,
        "DELETE FROM events WHERE ctid IN
             (SELECT ctid FROM events WHERE account_id = 1 AND what = 'e1' LIMIT 7);
         INSERT INTO events SELECT 1, '2026-01-01', 'e2', NULL FROM generate_series(1, 5);
         INSERT INTO events SELECT 1, NULL, 'e1', '-0' FROM generate_series(1, 3);
         INSERT INTO events SELECT 1, NULL, '', 0 FROM generate_series(1, 2)",
    );
    let expected = ChangeCounts {
        created: 7,
        put_back: 0,
        deleted: 10,
    };
    assert_eq!(counts, [(TableName::new("events"), expected)]);
}

#[test]
fn nothing_to_do_is_committed_as_nothing() {
    let ground = tracker();
    assert_eq!(comes_back(&ground, "SELECT"), []);
}

#[test]
fn partitions_are_written_through_their_parent() {
    let ground = Ground::new(
        "CREATE TABLE events (id bigint, account_id text, month int, body text,
             PRIMARY KEY (id, month, account_id)) PARTITION BY RANGE (month);
         CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (1) TO (5);
         CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (5) TO (9)
             PARTITION BY LIST (account_id);
         CREATE TABLE events_2a PARTITION OF events_2 FOR VALUES IN ('acme');
         CREATE TABLE events_2b PARTITION OF events_2 DEFAULT;
         CREATE TABLE logs (account_id text, body text) PARTITION BY HASH (body);
         CREATE TABLE logs_1 PARTITION OF logs FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE logs_2 PARTITION OF logs FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         INSERT INTO events SELECT n, CASE WHEN n % 3 = 0 THEN 'acme' ELSE 'beta' END, n % 8 + 1, 'b'
           FROM generate_series(1, 600) n;
         INSERT INTO logs SELECT CASE WHEN n % 3 = 0 THEN 'acme' ELSE 'beta' END, 'b' || n % 9
           FROM generate_series(1, 600) n",
    );
    let tables = ["events", "logs"];
    let image = ground.image("acme");
    let others = ground.others(&tables, "acme");
    ground.psql(
        "DELETE FROM events WHERE account_id = 'acme' AND id < 300;
         UPDATE events SET body = 'x' WHERE account_id = 'acme' AND id > 500;
         DELETE FROM logs WHERE account_id = 'acme' AND body IN ('b3', 'b6');
         INSERT INTO logs SELECT 'acme', 'b0' FROM generate_series(1, 4)",
    );
    let outcome = ground.restore("acme", &image).unwrap();
    assert_eq!(outcome.counted, outcome.planned);
    assert_eq!(ground.image("acme"), image);
    assert_eq!(ground.others(&tables, "acme"), others);
}

#[test]
fn a_generated_identity_is_restored_and_its_sequence_raised() {
    let ground = tracker();
    let image = ground.image("1");
    ground.psql(
        "DELETE FROM issues WHERE account_id = 1 OR project_id > 28;
         DELETE FROM projects WHERE account_id = 1;
         SELECT setval('projects_id_seq', 7, false), setval('issues_id_seq', 5);
         DELETE FROM projects p WHERE id > 28",
    );
    let outcome = ground.restore("1", &image).unwrap();
    let raised: Vec<(&str, i64, i64)> = outcome
        .committed
        .sequences_raised
        .iter()
        .map(|raise| (raise.name.as_str(), raise.from, raise.to))
        .collect();
    // The greatest ids of the tenant; one by way of nextval, the other by setval.
    assert_eq!(
        raised,
        [("issues_id_seq", 5, 2998), ("projects_id_seq", 6, 28)]
    );
    ground.psql("INSERT INTO projects (account_id, slug) VALUES (0, 'p')");
    assert_eq!(
        ground.psql("SELECT max(id) FROM projects WHERE slug = 'p'"),
        "29"
    );
}

#[test]
fn sequences_never_go_back_while_others_take_values() {
    let ground = Ground::new(
        "CREATE TABLE near (id bigserial PRIMARY KEY, account_id text);
         CREATE TABLE far (id bigserial PRIMARY KEY, account_id text);
         CREATE TABLE steps (id int GENERATED BY DEFAULT AS IDENTITY (INCREMENT 10 CACHE 5) PRIMARY KEY,
             account_id text);
         CREATE TABLE falling (id int GENERATED BY DEFAULT AS IDENTITY (INCREMENT -1) PRIMARY KEY,
             account_id text);
         CREATE TABLE small (id int PRIMARY KEY, n smallserial, account_id text);
         INSERT INTO near VALUES (900, 'acme'), (1, 'beta'); INSERT INTO far VALUES (5000000, 'acme');
         INSERT INTO steps VALUES (95, 'acme'); INSERT INTO falling VALUES (-50, 'acme'), (7, 'acme');
         INSERT INTO small VALUES (1, 300, 'acme')",
    );
    let image = ground.image("acme");
    ground.psql("TRUNCATE near, far, steps, falling, small; SELECT setval('near_id_seq', 400)");
    let taken = std::thread::scope(|scope| {
        let taker = scope.spawn(|| {
            let sql = "DO $$ DECLARE last int8 := 0; now int8; BEGIN
                           FOR i IN 1..30000 LOOP
                               now := nextval('near_id_seq'); ASSERT now > last; last := now;
                               PERFORM nextval('far_id_seq');
                           END LOOP; END $$";
            ground.psql(sql)
        });
        let outcome = ground.restore("acme", &image).unwrap();
        taker.join().unwrap();
        outcome.committed.sequences_raised
    });
    let last = |name: &str| -> i64 {
        ground
            .psql(&format!("SELECT last_value FROM {name}"))
            .parse()
            .unwrap()
    };
    assert!(last("near_id_seq") >= 30_400 && last("far_id_seq") >= 5_000_000);
    assert!(last("steps_id_seq") >= 95 && last("falling_id_seq") == -1);
    assert_eq!(last("small_n_seq"), 300);
    for raise in taken {
        assert!(raise.to > raise.from, "{raise:?}");
    }
}

#[test]
fn a_row_whose_key_somebody_else_took_is_a_conflict_and_writes_nothing() {
    let ground = tracker();
    let image = ground.image("1");
    for (change, constraint) in [
        (
            "UPDATE issues SET account_id = 2 WHERE id = 1",
            "issues_pkey",
        ),
        (
            "UPDATE projects SET slug = 'gone' WHERE slug = 'p28';
             UPDATE projects SET slug = 'p28' WHERE slug = 'p2'",
            "projects_slug_key",
        ),
    ] {
        ground.psql(&format!(
            "ALTER TABLE comments DISABLE TRIGGER ALL; ALTER TABLE issues DISABLE TRIGGER ALL;
             DELETE FROM comments WHERE issue_id = 1; {change};
             ALTER TABLE issues ENABLE TRIGGER ALL; ALTER TABLE comments ENABLE TRIGGER ALL"
        ));
        let (live, others) = (ground.image("1"), ground.others(TABLES, "1"));
        let error = ground.restore("1", &image).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(constraint), "{cause}");
        assert_eq!(ground.image("1"), live);
        assert_eq!(ground.others(TABLES, "1"), others);
    }
}

#[test]
fn the_journal_keeps_what_was_committed_and_refuses_it_twice() {
    let ground = tracker();
    let image = ground.image("1");
    let id = tenant("1");
    let job = entry(1, &id).job;
    assert_eq!(ground.store.journal_entry(job, &id).unwrap(), None);
    ground.psql("DELETE FROM events WHERE account_id = 1");
    restore(&ground.store, "1", &image, 1).unwrap();
    assert_eq!(
        ground.store.journal_entry(job, &id).unwrap(),
        Some(entry(1, &id))
    );
    assert_eq!(ground.store.journal_entry(job, &tenant("2")).unwrap(), None);
    ground.psql("DELETE FROM events WHERE account_id = 1");
    let error = restore(&ground.store, "1", &image, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(
        ground.psql("SELECT count(*) FROM events WHERE account_id = 1"),
        "0"
    );
    ground.store.prepare().unwrap();
    assert_eq!(
        ground.store.journal_entry(job, &id).unwrap(),
        Some(entry(1, &id))
    );
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing_and_frees_the_tenant() {
    let ground = tracker();
    let image = ground.image("1");
    ground.psql("DELETE FROM issues WHERE account_id = 1 AND id % 2 = 0");
    let (live, others) = (ground.image("1"), ground.others(TABLES, "1"));
    let id = tenant("1");
    for _ in 0..5 {
        let (fingerprint, schema) = bind(&ground.store, &id);
        let plan = crate::ground::Plan::between(&schema, &live, &image);
        let mut writer = ground
            .store
            .begin_merge(&id, &fingerprint, &schema)
            .unwrap();
        writer.apply(&plan).unwrap();
        let busy = ground
            .store
            .begin_merge(&id, &fingerprint, &schema)
            .map(drop)
            .unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::Locked, "{busy}");
        // Another tenant is free.
        let (other, schema) = bind(&ground.store, &tenant("2"));
        drop(
            ground
                .store
                .begin_merge(&tenant("2"), &other, &schema)
                .unwrap(),
        );
        drop(writer);
        let locks = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                      WHERE l.locktype = 'advisory' AND d.datname = current_database()";
        assert_eq!(ground.psql(locks), "0");
        assert_eq!(ground.image("1"), live);
    }
    assert_eq!(ground.others(TABLES, "1"), others);
    ground.restore("1", &image).unwrap();
}
