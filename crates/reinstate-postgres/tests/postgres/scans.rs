//! How often tables are read: counted by the server, so that no answer depends on how fast it is.

use crate::ground::{Ground, image, open_store, restore, tenant, via};
use reinstate_core::LiveStore as _;

/// Three tables, each without an index on what it refers to.
const TABLES: &str = "
    CREATE TABLE folders (id int PRIMARY KEY, account_id int NOT NULL, name text);
    CREATE TABLE documents (id int PRIMARY KEY, folder_id int NOT NULL REFERENCES folders, body text);
    CREATE TABLE lines (id int PRIMARY KEY, document_id int NOT NULL REFERENCES documents, line text);
";

/// What tables of millions of rows come to, for a server that decides about small ones: reading a table
/// is what costs, and nothing is found faster by its key.
const COSTS: &str = "DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET cpu_tuple_cost = 0.0001', current_database());
    EXECUTE format('ALTER DATABASE %I SET cpu_index_tuple_cost = 1', current_database());
END $$;";

const NAMES: [&str; 3] = ["folders", "documents", "lines"];

/// Scans of whole tables while a tenant comes back that has so many rows in each and was gone when the
/// server last looked at what the tables hold.
fn scans(rows: u32) -> u64 {
    let ground = Ground::with_map(TABLES, |map| {
        via(map, "documents", "folder_id -> folders.id");
        via(map, "lines", "document_id -> documents.id");
    });
    let all = rows * 8;
    ground.psql(&format!(
        "INSERT INTO folders SELECT n, n % 8, 'f' || n FROM generate_series(1, {all}) n;
         INSERT INTO documents SELECT n, n, 'd' || n FROM generate_series(1, {all}) n;
         INSERT INTO lines SELECT n, n, 'l' || n FROM generate_series(1, {all}) n;
         {COSTS}"
    ));
    let before = ground.image("3");
    ground.psql(
        "DELETE FROM lines WHERE id % 8 = 3; DELETE FROM documents WHERE id % 8 = 3;
         DELETE FROM folders WHERE id % 8 = 3; VACUUM ANALYZE;",
    );
    // By itself: a session's own counts come when it ends.
    ground.psql("SELECT pg_stat_reset()");
    let store = open_store(&ground.database.url(), |map| {
        via(map, "documents", "folder_id -> folders.id");
        via(map, "lines", "document_id -> documents.id");
    });
    let outcome = restore(&store, "3", &before, 1).unwrap();
    assert_eq!(image(&store, "3"), before);
    let mark = outcome.committed.commit_mark;
    let foreign = store.foreign_rows_written(&tenant("3"), &mark).unwrap();
    assert_eq!(foreign, 0);
    // What a session counted is there once it is gone.
    drop(store);
    let database = ground.into_database();
    let others = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
    while database.psql(others).unwrap() != "0" {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let sum = "SELECT sum(seq_scan) FROM pg_stat_user_tables WHERE relname = ANY ('{NAMES}')";
    let sum = sum.replace("NAMES", &NAMES.join(","));
    database.psql(&sum).unwrap().parse().unwrap()
}

#[test]
fn no_table_is_read_once_per_row_when_the_server_last_saw_it_without_the_tenant() {
    let (few, many) = (scans(100), scans(800));
    assert!(
        many <= few.max(60),
        "{many} scans of whole tables, {few} for fewer rows"
    );
}

#[test]
fn rows_are_found_by_parents_of_any_name() {
    let map = |map: &mut reinstate_postgres::TenancyMap| {
        via(map, "lists", "folder -> folders.name");
        via(map, "items", "folder, number -> lists.folder, lists.number");
    };
    let ground = Ground::with_map(
        "CREATE TABLE folders (name text PRIMARY KEY, account_id int NOT NULL);
         CREATE TABLE lists (folder text NOT NULL REFERENCES folders, number int NOT NULL,
             PRIMARY KEY (folder, number));
         CREATE TABLE items (id int PRIMARY KEY, number int NOT NULL, folder text NOT NULL,
             FOREIGN KEY (folder, number) REFERENCES lists);
         INSERT INTO folders
             SELECT f, 1 + n % 2 FROM unnest(ARRAY['', 'NULL', 'null', ' x ', E'a\\tb\\nc', '{a,b}', 'a\"b',
                 E'a\\\\b', '''', U&'\\00FC', 'plain', '1']) WITH ORDINALITY u(f, n);
         INSERT INTO lists SELECT name, n FROM folders, generate_series(1, 3) n;
         INSERT INTO items SELECT row_number() OVER (), number, folder FROM lists;",
        map,
    );
    for account in ["1", "2"] {
        let tables = ground.image(account);
        let counts: Vec<usize> = tables.values().map(Vec::len).collect();
        assert_eq!(counts.iter().sum::<usize>(), 6 + 18 + 18, "{counts:?}");
    }
}
