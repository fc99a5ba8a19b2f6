//! What a capture sees: one moment, every row, tables of every shape.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use reinstate_core::{CaptureView, ErrorKind, OwnedRowBatch, OwnedRowStream, SnapshotSource};
use reinstate_postgres::TableRule;
use reinstate_testkit::cluster::shared_cluster;

use crate::ground::{Ground, open_store, tenant, via};

/// The values of every row of a table, with the owner first.
fn rows(view: &dyn CaptureView, table: &str) -> Vec<Vec<Option<String>>> {
    read(open(view, table))
}

fn open<'v>(view: &'v dyn CaptureView, table: &str) -> Box<dyn OwnedRowStream + 'v> {
    let (index, _) = view.schema().find(table).unwrap();
    view.table_rows(index).unwrap()
}

fn read(mut rows: Box<dyn OwnedRowStream + '_>) -> Vec<Vec<Option<String>>> {
    let mut batch = OwnedRowBatch::new();
    let mut found = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    while rows.next_batch(&mut batch).unwrap() {
        for (owner, row) in batch.iter() {
            let values = row.values().map(|value| value.map(text));
            found.push([Some(text(owner))].into_iter().chain(values).collect());
        }
    }
    found.sort();
    found
}

/// Ends the writers, also when the test fails.
struct StopWhenDropped<'s>(&'s AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_capture_is_of_one_moment_however_many_connections_read_it() {
    let ground = Ground::new(
        "CREATE TABLE purses (id int PRIMARY KEY, account_id int, coins int NOT NULL);
         CREATE TABLE safes (id int PRIMARY KEY, account_id int, coins int NOT NULL);
         INSERT INTO purses SELECT n, n % 5, 1000 FROM generate_series(1, 200) n;
         INSERT INTO safes SELECT n, n % 5, 1000 FROM generate_series(1, 200) n;",
    );
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stopping = StopWhenDropped(&stop);
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let (ground, stop) = (&ground, &stop);
                scope.spawn(move || {
                    let mut count = 0;
                    while !stop.load(Ordering::Relaxed) {
                        // Coins move from one table to the other, and never get more or fewer.
                        ground.psql(&format!(
                            "DO $$ BEGIN FOR n IN 1..200 LOOP
                                 UPDATE purses SET coins = coins - n WHERE id = n;
                                 UPDATE safes SET coins = coins + n WHERE id = 201 - n;
                                 IF n % 7 = {writer} THEN COMMIT; END IF;
                             END LOOP; END $$"
                        ));
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let coins = |stream: Box<dyn OwnedRowStream + '_>| -> i64 {
            let rows = read(stream);
            assert_eq!(rows.len(), 200);
            let coins = rows.iter().map(|row| row[3].as_ref().unwrap());
            coins.map(|coins| coins.parse::<i64>().unwrap()).sum()
        };
        let mut seen = Vec::new();
        for _ in 0..25 {
            let view = ground.store.begin_capture().unwrap();
            assert!(view.lanes() > 1, "one connection proves nothing");
            // Both at once, so that each has a connection of its own.
            let (purses, safes) = (open(view.as_ref(), "purses"), open(view.as_ref(), "safes"));
            let (purses, safes) = (coins(purses), coins(safes));
            assert_eq!(purses + safes, 400_000);
            seen.push(purses);
        }
        drop(stopping);
        let rounds: Vec<i32> = writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect();
        assert!(
            rounds.iter().all(|&count| count > 0),
            "nobody wrote: {rounds:?}"
        );
        seen.dedup();
        assert!(seen.len() > 3, "nobody wrote while captures were made");
    });
}

#[test]
fn tables_of_every_shape_are_read_whole_under_their_own_names() {
    let ground = Ground::with_map(
        r#"CREATE SCHEMA "Other. ""Place"; CREATE SCHEMA billing;
         CREATE TABLE U&"Select ""me"" \00fc.x" ("Account id" int, "id" int PRIMARY KEY, " " text);
         INSERT INTO U&"Select ""me"" \00fc.x" VALUES (1, 1, 'a'), (2, 2, NULL);
         CREATE TABLE orders (id int, account_id int, region text, PRIMARY KEY (id, region))
             PARTITION BY LIST (region);
         CREATE TABLE orders_eu PARTITION OF orders FOR VALUES IN ('eu');
         CREATE TABLE orders_rest PARTITION OF orders DEFAULT;
         INSERT INTO orders VALUES (1, 1, 'eu'), (2, 1, 'us'), (1, 2, 'us');
         CREATE TABLE billing.orders (id int PRIMARY KEY, gone int, account_id int,
             twice int GENERATED ALWAYS AS (id * 2) STORED, note text);
         ALTER TABLE billing.orders DROP COLUMN gone;
         INSERT INTO billing.orders VALUES (7, 2, DEFAULT, 'seven');
         CREATE TABLE "Other. ""Place".lines (order_id int NOT NULL REFERENCES billing.orders, n int);
         INSERT INTO "Other. ""Place".lines VALUES (7, 1), (7, 1), (7, NULL);
         CREATE TABLE animals (id int PRIMARY KEY, account_id int);
         CREATE TABLE dogs (tail text, PRIMARY KEY (id)) INHERITS (animals);
         INSERT INTO animals VALUES (1, 1); INSERT INTO dogs VALUES (2, 1, 'long');
         CREATE UNLOGGED TABLE visits (account_id int); INSERT INTO visits VALUES (1), (NULL);
         CREATE VIEW everything AS SELECT * FROM animals;
         CREATE MATERIALIZED VIEW copies AS SELECT * FROM animals;
         CREATE TABLE nothing ();
         INSERT INTO nothing DEFAULT VALUES;"#,
        |map| {
            let column = "Account id".to_owned();
            let name = "Select \"me\" \u{fc}.x".to_owned();
            map.tables.insert(name, TableRule::Direct { column });
            map.shared.push("nothing".to_owned());
            via(map, "Other. \"Place.lines", "order_id -> billing.orders.id");
        },
    );
    let view = ground.store.begin_capture().unwrap();
    let names: Vec<&str> = view
        .schema()
        .tables()
        .iter()
        .map(|table| table.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "Other. \"Place.lines",
            "Select \"me\" \u{fc}.x",
            "animals",
            "billing.orders",
            "dogs",
            "nothing",
            "orders",
            "visits"
        ]
    );
    let expect = |table: &str, expected: &[&[&str]]| {
        let value = |text: &&str| (*text != "NULL").then(|| (*text).to_owned());
        let expected: Vec<Vec<Option<String>>> = expected
            .iter()
            .map(|row| row.iter().map(value).collect())
            .collect();
        assert_eq!(rows(view.as_ref(), table), expected, "{table}");
    };
    expect(
        "Select \"me\" \u{fc}.x",
        &[&["1", "1", "1", "a"], &["2", "2", "2", "NULL"]],
    );
    expect(
        "orders",
        &[
            &["1", "1", "1", "eu"],
            &["1", "2", "1", "us"],
            &["2", "1", "2", "us"],
        ],
    );
    expect("billing.orders", &[&["2", "7", "2", "seven"]]);
    expect(
        "Other. \"Place.lines",
        &[&["2", "7", "NULL"], &["2", "7", "1"], &["2", "7", "1"]],
    );
    expect("animals", &[&["1", "1", "1"]]);
    expect("dogs", &[&["1", "2", "1", "long"]]);
    expect("visits", &[&["", "NULL"], &["1", "1"]]);
    expect("nothing", &[&[""]]);
    drop(view);
    let image = ground.image("2");
    ground.psql(
        r#"DELETE FROM "Other. ""Place".lines; DELETE FROM billing.orders WHERE account_id = 2;
           DELETE FROM orders WHERE account_id = 2; DELETE FROM U&"Select ""me"" \00fc.x" WHERE id = 2"#,
    );
    ground.restore("2", &image).unwrap();
    assert_eq!(ground.image("2"), image);
    assert_eq!(ground.psql("SELECT twice FROM billing.orders"), "14");
}

#[test]
fn a_connection_that_dies_while_a_table_is_read_is_an_error_and_not_an_end() {
    let ground = Ground::new(
        "CREATE TABLE long (id int PRIMARY KEY, account_id int, filler text);
         INSERT INTO long SELECT n, n % 5, repeat('x', 500) FROM generate_series(1, 200000) n;",
    );
    let view = ground.store.begin_capture().unwrap();
    let (long, _) = view.schema().find("long").unwrap();
    let mut rows = view.table_rows(long).unwrap();
    let mut batch = OwnedRowBatch::new();
    assert!(rows.next_batch(&mut batch).unwrap());
    let mut count = batch.len();
    ground.psql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE datname = current_database() AND query LIKE 'COPY %'",
    );
    let error = loop {
        match rows.next_batch(&mut batch) {
            Ok(true) => count += batch.len(),
            Ok(false) => panic!("{count} of 200000 rows, and then an end"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(count < 200_000);
}

#[test]
fn what_was_set_for_the_role_changes_no_value() {
    let cluster = shared_cluster().unwrap();
    let database = cluster.fresh_database().unwrap();
    database
        .psql(
            "CREATE TABLE odd (id int PRIMARY KEY, account_id int, at timestamptz, d date, b bytea,
                 f float8, i interval, m money, x text);
             INSERT INTO odd VALUES (1, 1, '2026-03-29 01:59:59.123456+00', '2026-02-01', '\\x00ff5c',
                 0.1 + 0.2, '1 mon -2 days 03:04:05', '12.34', E'\\\\ \\t \\n'),
                 (2, 1, '-infinity', 'infinity', '', 'NaN', '-1 day', '-0.01', '');",
        )
        .unwrap();
    let capture = || {
        let store = open_store(&database.url(), |_| {});
        let view = store.begin_capture().unwrap();
        rows(view.as_ref(), "odd")
    };
    let before = capture();
    let set: BTreeMap<&str, &str> = [
        ("DateStyle", "'SQL, DMY'"),
        ("TimeZone", "'Asia/Kolkata'"),
        ("bytea_output", "'escape'"),
        ("extra_float_digits", "'-5'"),
        ("IntervalStyle", "'iso_8601'"),
        ("search_path", "''"),
        ("standard_conforming_strings", "off"),
        ("client_encoding", "'LATIN1'"),
        ("default_transaction_isolation", "'read committed'"),
    ]
    .into();
    for (name, value) in set {
        let sql = format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET {name} = {}', current_database()); \
             END $$",
            value.replace('\'', "''")
        );
        database.psql(&sql).unwrap();
    }
    assert_eq!(capture(), before);
}

#[test]
fn an_operators_statement_is_answered_as_text_reads_only_and_not_without_end() {
    let ground = Ground::new("CREATE TABLE seen (account_id text, n int)");
    let limit = Duration::from_secs(60);
    let odd = tenant("a'\\$1");
    let answer = ground.store.ask(
        "SELECT $1, NULL, 'x' UNION ALL SELECT 'b', '', $1",
        &odd,
        limit,
    );
    assert_eq!(answer.unwrap(), "a'\\$1\t\tx\nb\t\ta'\\$1");
    let write = "INSERT INTO seen VALUES ($1, 1)";
    let error = ground.store.ask(write, &odd, limit).unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");
    assert_eq!(ground.store.tell(write, &odd, limit).unwrap(), "");
    assert_eq!(ground.psql("SELECT * FROM seen"), "a'\\$1|1");
    // Far more than fits in memory.
    let endless = "SELECT repeat('x', 100000)
                     FROM generate_series(1, 10000) a, generate_series(1, 10000) b";
    let error = ground.store.ask(endless, &odd, limit).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[test]
fn the_id_of_a_tenant_is_a_value_and_nothing_else_wherever_it_is_written() {
    let ground = Ground::new("CREATE TABLE seen (account_id text, n int)");
    let limit = Duration::from_secs(60);
    // Tenants may choose their names.
    let meant = "COMMIT; INSERT INTO public.seen VALUES (NULL, 666); SELECT 1";
    let quoted = [
        ("SELECT '$1'", format!("; {meant}; SELECT ")),
        ("SELECT E'\\'$1'", format!("; {meant}; --")),
        ("SELECT E'x'\n'\\'$1'", format!("; {meant}; --")),
        ("SELECT 1 AS \"$1\"", format!("\"; {meant}; --")),
        ("DO $$ BEGIN PERFORM $1; END $$", format!("$$; {meant}; --")),
        ("SELECT $a$ $1 $a$", format!("$a$; {meant}; --")),
    ];
    for (statement, id) in quoted {
        let error = ground.store.ask(statement, &tenant(&id), limit);
        let error = error.expect_err(statement);
        assert_eq!(error.kind(), ErrorKind::Usage, "{statement}: {error}");
    }
    for comment in ["SELECT 1 -- $1\n", "SELECT 1 /* /* */ $1 */"] {
        let id = tenant(&format!("\n*/; {meant}; --"));
        let answer = ground.store.ask(comment, &id, limit);
        assert_eq!(answer.unwrap(), "1", "{comment}");
    }
    let number = ground
        .store
        .ask("SELECT ($1)::text, '$10'", &tenant("7"), limit);
    assert_eq!(number.unwrap(), "7\t$10");
    assert_eq!(ground.psql("SELECT count(*) FROM seen"), "0");
}
