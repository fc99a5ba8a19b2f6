//! Tables that reach their tenant by one of several ways, by keys that may be NULL, and by
//! references that nobody declared.

use std::collections::BTreeMap;

use reinstate_core::{ErrorKind, LiveStore, OwnedRowBatch, SnapshotSource, TableIndex};
use reinstate_postgres::{RouteRule, TableRule, TenancyMap, Unowned};
use reinstate_testkit::cluster::shared_cluster;

use crate::ground::{Ground, open_store};

/// Posts and pages have an account, some have none. Comments are on posts, pages or other things;
/// reactions are on comments; files are on a post or a page, or both, or nothing; notes have an
/// author who may be nobody; tags name posts that may not exist.
const BOARD: &str = "\
CREATE TABLE posts (id int PRIMARY KEY, account_id int, title text);
CREATE TABLE pages (id int PRIMARY KEY, account_id text);
CREATE TABLE comments (id int PRIMARY KEY, on_type varchar(20) NOT NULL, on_id bigint, body text);
CREATE TABLE reactions (comment_id int REFERENCES comments, kind text);
CREATE TABLE files (id int PRIMARY KEY, post_id int REFERENCES posts, page_id int REFERENCES pages);
CREATE TABLE notes (id int PRIMARY KEY, post_id int REFERENCES posts);
CREATE TABLE tags (post bigint, name text, PRIMARY KEY (post, name));
INSERT INTO posts SELECT n, nullif(n % 4, 0), 'post ' || n FROM generate_series(1, 40) n;
INSERT INTO pages SELECT n, CASE WHEN n % 5 > 0 THEN (n % 4 + 1)::text ELSE '' END
  FROM generate_series(1, 40) n;
INSERT INTO comments SELECT n, (ARRAY['Post', 'Page'])[n % 2 + 1], n % 40 + 1, 'c' || n
  FROM generate_series(1, 400) n;
INSERT INTO reactions SELECT n, 'r' || n % 3 FROM generate_series(1, 400) n, generate_series(1, 2);
INSERT INTO files SELECT n, CASE WHEN n % 3 < 2 THEN n % 40 + 1 END,
    CASE WHEN n % 3 > 0 THEN (n + 39) % 40 + 1 END FROM generate_series(1, 90) n;
INSERT INTO notes SELECT n, CASE WHEN n % 3 > 0 THEN n % 40 + 1 END FROM generate_series(1, 90) n;
INSERT INTO tags SELECT n % 50 + 1, 't' || n FROM generate_series(1, 200) n;
";

/// Whose rows they are, as SQL that looks at one row at a time.
const OWNERS: &[(&str, &str)] = &[
    ("posts", "t.account_id::text"),
    ("pages", "nullif(t.account_id, '')"),
    (
        "comments",
        "CASE t.on_type WHEN 'Post' THEN (SELECT account_id::text FROM posts WHERE id = t.on_id)
                        WHEN 'Page' THEN (SELECT nullif(account_id, '') FROM pages
                                           WHERE id = t.on_id) END",
    ),
    (
        "reactions",
        "(SELECT CASE c.on_type WHEN 'Post' THEN
             (SELECT account_id::text FROM posts WHERE id = c.on_id) ELSE
             (SELECT nullif(account_id, '') FROM pages WHERE id = c.on_id) END
            FROM comments c WHERE c.id = t.comment_id)",
    ),
    (
        "files",
        "CASE WHEN t.post_id IS NOT NULL
              THEN (SELECT account_id::text FROM posts WHERE id = t.post_id)
              ELSE (SELECT nullif(account_id, '') FROM pages WHERE id = t.page_id) END",
    ),
    (
        "notes",
        "(SELECT account_id::text FROM posts WHERE id = t.post_id)",
    ),
    (
        "tags",
        "(SELECT account_id::text FROM posts WHERE id = t.post)",
    ),
];

fn way(when: Option<&str>, via: &str) -> RouteRule {
    RouteRule {
        when: when.map(str::to_owned),
        via: via.to_owned(),
    }
}

fn board_map(map: &mut TenancyMap) {
    let on_anything = vec![
        way(Some("on_type = Post"), "on_id -> posts.id"),
        way(Some("on_type = Page"), "on_id -> pages.id"),
    ];
    let on_either = vec![
        way(None, "post_id -> posts.id"),
        way(None, "page_id -> pages.id"),
    ];
    let one_of = |routes, unowned| TableRule::OneOf { routes, unowned };
    let shared_via = |reference: &str| TableRule::Via {
        reference: reference.to_owned(),
        unowned: Unowned::Shared,
    };
    let rules = [
        ("comments", one_of(on_anything, Unowned::Refused)),
        ("reactions", shared_via("comment_id -> comments.id")),
        ("files", one_of(on_either, Unowned::Refused)),
        ("notes", shared_via("post_id -> posts.id")),
        ("tags", shared_via("post -> posts.id")),
    ];
    map.tables
        .extend(rules.map(|(name, rule)| (name.to_owned(), rule)));
}

fn board() -> Ground {
    Ground::with_map(BOARD, board_map)
}

/// How many rows each owner has in a table, as a capture tells.
fn captured(ground: &Ground) -> BTreeMap<(String, String), u64> {
    let view = ground.store.begin_capture().unwrap();
    let mut counts = BTreeMap::new();
    for (index, table) in view.schema().iter() {
        let mut rows = view.table_rows(index).unwrap();
        let mut batch = OwnedRowBatch::new();
        while rows.next_batch(&mut batch).unwrap() {
            for (owner, _) in batch.iter() {
                let owner = String::from_utf8(owner.to_vec()).unwrap();
                *counts.entry((table.name.to_string(), owner)).or_default() += 1;
            }
        }
    }
    counts
}

/// The same by looking at one row at a time.
fn looked_up(ground: &Ground) -> BTreeMap<(String, String), u64> {
    let mut counts = BTreeMap::new();
    for (table, owner) in OWNERS {
        let sql = format!("SELECT coalesce({owner}, ''), count(*) FROM {table} t GROUP BY 1");
        for line in ground.psql(&sql).lines() {
            let (owner, count) = line.split_once('|').unwrap();
            let key = ((*table).to_owned(), owner.to_owned());
            counts.insert(key, count.parse().unwrap());
        }
    }
    counts
}

#[test]
fn every_row_has_the_owner_that_looking_at_it_alone_finds() {
    let ground = board();
    let expected = looked_up(&ground);
    assert_eq!(captured(&ground), expected);
    for tenant in ["1", "2", "3", "4"] {
        let image = ground.image(tenant);
        let view = ground.store.read_view().unwrap();
        for (index, table) in view.schema().iter() {
            let key = (table.name.to_string(), tenant.to_owned());
            let expected = expected.get(&key).copied().unwrap_or(0);
            assert_eq!(image[&index].len() as u64, expected, "{key:?}");
        }
    }
}

/// All rows of all tables with their owners, but the tenant's.
fn rows_of_others(ground: &Ground, tenant: &str) -> String {
    let dump = |(table, owner): &(&str, &str)| {
        ground.psql(&format!(
            "SELECT t.ctid, t.xmin, t::text FROM {table} t
              WHERE ({owner}) IS DISTINCT FROM '{tenant}' ORDER BY 1"
        ))
    };
    OWNERS.iter().map(dump).collect()
}

fn comes_back(ground: &Ground, tenant: &str, change: &str) {
    let image = ground.image(tenant);
    ground.psql(change);
    let others = rows_of_others(ground, tenant);
    let outcome = ground.restore(tenant, &image).unwrap();
    assert_eq!(outcome.counted, outcome.planned);
    assert!(!outcome.planned.is_empty());
    assert_eq!(ground.image(tenant), image);
    assert_eq!(rows_of_others(ground, tenant), others);
    let id = crate::ground::tenant(tenant);
    let mark = &outcome.committed.commit_mark;
    assert_eq!(ground.store.foreign_rows_written(&id, mark).unwrap(), 0);
    let again = ground.restore(tenant, &image).unwrap();
    assert_eq!(again.planned, []);
}

#[test]
fn a_tenant_whose_rows_go_every_way_comes_back_whole() {
    let ground = board();
    let gone = |table: &str| {
        let (_, owner) = OWNERS.iter().find(|(name, _)| *name == table).unwrap();
        format!("DELETE FROM {table} t WHERE ({owner}) = '2';\n")
    };
    let order = [
        "reactions",
        "tags",
        "notes",
        "files",
        "comments",
        "pages",
        "posts",
    ];
    comes_back(&ground, "2", &order.map(gone).concat());
    comes_back(
        &ground,
        "3",
        "UPDATE comments SET body = 'x' WHERE id % 3 = 0 AND on_type = 'Page'
            AND on_id IN (SELECT id FROM pages WHERE account_id = '3');
         INSERT INTO files SELECT 1000 + id, id, NULL FROM posts WHERE account_id = 3;
         DELETE FROM notes WHERE post_id IN (SELECT id FROM posts WHERE account_id = 3);
         DELETE FROM tags WHERE post IN (SELECT id FROM posts WHERE account_id = 3) AND name > 't2'",
    );
}

#[test]
fn a_row_that_reaches_nobody_is_refused_or_shared_as_the_map_says() {
    let ground = board();
    ground.psql("INSERT INTO comments VALUES (9999, 'Video', 1, 'whose?')");
    let read = |ground: &Ground, index: TableIndex| {
        let view = ground.store.begin_capture().unwrap();
        let mut rows = view.table_rows(index).unwrap();
        let mut batch = OwnedRowBatch::new();
        let mut shared = 0;
        while rows.next_batch(&mut batch)? {
            shared += batch.iter().filter(|(owner, _)| owner.is_empty()).count();
        }
        Ok::<_, reinstate_core::StoreError>(shared)
    };
    let view = ground.store.read_view().unwrap();
    let (comments, _) = view.schema().find("comments").unwrap();
    let (notes, _) = view.schema().find("notes").unwrap();
    drop(view);
    let error = read(&ground, comments).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unclassified);
    assert!(error.to_string().contains("comments"), "{error}");
    assert!(read(&ground, notes).unwrap() >= 30);
}

#[test]
fn a_way_that_cannot_be_relied_on_is_refused() {
    let database = shared_cluster().unwrap().fresh_database().unwrap();
    database
        .psql(
            "CREATE TABLE a (id int PRIMARY KEY, account_id int, code text, twice int);
             CREATE TABLE b (id int PRIMARY KEY, a_id int REFERENCES a, code text, n uuid);",
        )
        .unwrap();
    let refusal = |rule: TableRule| {
        let store = open_store(&database.url(), |map| {
            map.tables.insert("b".to_owned(), rule);
        });
        store.read_view().map(drop).unwrap_err()
    };
    let shared = |reference: &str| TableRule::Via {
        reference: reference.to_owned(),
        unowned: Unowned::Shared,
    };
    let one_of = |when: &str, via: &str| TableRule::OneOf {
        routes: vec![way(Some(when), via)],
        unowned: Unowned::Refused,
    };
    for (rule, kind, named) in [
        (
            TableRule::via("a_id -> a.id"),
            ErrorKind::Refused,
            "a_id may be NULL",
        ),
        (
            TableRule::via("id -> a.id"),
            ErrorKind::Refused,
            "unowned = \"shared\"",
        ),
        (shared("id -> a.twice"), ErrorKind::Refused, "two such rows"),
        (
            shared("n -> a.id"),
            ErrorKind::Refused,
            "a uuid cannot name a integer",
        ),
        (
            shared("a_id -> nothing.id"),
            ErrorKind::Usage,
            "no table nothing",
        ),
        (
            one_of("code", "a_id -> a.id"),
            ErrorKind::Usage,
            "column = value",
        ),
        (
            one_of("what = x", "a_id -> a.id"),
            ErrorKind::Usage,
            "no column what",
        ),
    ] {
        let error = refusal(rule);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
}
