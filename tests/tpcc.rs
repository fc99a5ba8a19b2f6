//! TPC-C with the warehouse as the tenant: one is destroyed and restored while the others trade, and
//! the specification's consistency conditions (3.3.2) hold for all of them afterwards.

#[expect(dead_code, reason = "other tests of this package use the rest")]
mod support;

use std::fs;

use reinstate_testkit::cluster::{PostgresCluster, shared_cluster};
use support::Shell;
use support::following::{
    follow, one_second_before, restore_to_before_removal, restore_to_time, stop,
};

const SCHEMA: &str = include_str!("tpcc/schema.sql");

const CONFIGURATION: &str = r#"
version = 1
[repository]
url = "file:repository"
[store]
name = "tpcc"
kind = "postgres"
url = { env = "DATABASE_URL" }
[tenancy]
kind = "warehouse"
shared = ["item"]
[tenancy.table]
warehouse = { column = "w_id" }
district = { column = "d_w_id" }
customer = { column = "c_w_id" }
history = { column = "h_w_id" }
stock = { column = "s_w_id" }
orders = { column = "o_w_id" }
new_order = { column = "no_w_id" }
order_line = { column = "ol_w_id" }
"#;

/// The tables with the tenant's column, children first.
const TABLES: [(&str, &str); 8] = [
    ("order_line", "ol_w_id"),
    ("new_order", "no_w_id"),
    ("orders", "o_w_id"),
    ("history", "h_w_id"),
    ("stock", "s_w_id"),
    ("customer", "c_w_id"),
    ("district", "d_w_id"),
    ("warehouse", "w_id"),
];

/// Consistency conditions 1 to 10 and 12, each as a query for what breaks it; 11 is about a database
/// that was loaded with a given number of orders.
const CONDITIONS: [&str; 11] = [
    "SELECT w_id FROM warehouse WHERE w_ytd <> (SELECT sum(d_ytd) FROM district WHERE d_w_id = w_id)",
    "SELECT d_w_id, d_id FROM district
      WHERE d_next_o_id - 1 <> (SELECT coalesce(max(o_id), 0) FROM orders WHERE o_w_id = d_w_id AND o_d_id = d_id)
         OR d_next_o_id - 1 <> (SELECT max(no_o_id) FROM new_order WHERE no_w_id = d_w_id AND no_d_id = d_id)",
    "SELECT no_w_id, no_d_id FROM new_order GROUP BY 1, 2
     HAVING max(no_o_id) - min(no_o_id) + 1 <> count(*)",
    "SELECT d_w_id, d_id FROM district
      WHERE (SELECT coalesce(sum(o_ol_cnt), 0) FROM orders WHERE o_w_id = d_w_id AND o_d_id = d_id)
         <> (SELECT count(*) FROM order_line WHERE ol_w_id = d_w_id AND ol_d_id = d_id)",
    "SELECT o_w_id, o_d_id, o_id FROM orders
      WHERE (o_carrier_id IS NULL) <> EXISTS (SELECT FROM new_order
             WHERE no_w_id = o_w_id AND no_d_id = o_d_id AND no_o_id = o_id)",
    "SELECT o_w_id, o_d_id, o_id FROM orders
      WHERE o_ol_cnt <> (SELECT count(*) FROM order_line
             WHERE ol_w_id = o_w_id AND ol_d_id = o_d_id AND ol_o_id = o_id)",
    "SELECT ol_w_id, ol_d_id, ol_o_id FROM order_line
       JOIN orders ON o_w_id = ol_w_id AND o_d_id = ol_d_id AND o_id = ol_o_id
      WHERE (ol_delivery_d IS NULL) <> (o_carrier_id IS NULL)",
    "SELECT w_id FROM warehouse
      WHERE w_ytd <> (SELECT coalesce(sum(h_amount), 0) FROM history WHERE h_w_id = w_id)",
    "SELECT d_w_id, d_id FROM district
      WHERE d_ytd <> (SELECT coalesce(sum(h_amount), 0) FROM history WHERE h_w_id = d_w_id AND h_d_id = d_id)",
    "SELECT c_w_id, c_d_id, c_id FROM customer
      WHERE c_balance <> (SELECT coalesce(sum(ol_amount), 0) FROM order_line
              JOIN orders ON o_w_id = ol_w_id AND o_d_id = ol_d_id AND o_id = ol_o_id
             WHERE o_w_id = c_w_id AND o_d_id = c_d_id AND o_c_id = c_id AND ol_delivery_d IS NOT NULL)
          - (SELECT coalesce(sum(h_amount), 0) FROM history
             WHERE h_c_w_id = c_w_id AND h_c_d_id = c_d_id AND h_c_id = c_id)",
    "SELECT c_w_id, c_d_id, c_id FROM customer
      WHERE c_balance + c_ytd_payment <> (SELECT coalesce(sum(ol_amount), 0) FROM order_line
              JOIN orders ON o_w_id = ol_w_id AND o_d_id = ol_d_id AND o_id = ol_o_id
             WHERE o_w_id = c_w_id AND o_d_id = c_d_id AND o_c_id = c_id AND ol_delivery_d IS NOT NULL)",
];

/// What the clients of one group do: mostly orders and payments, now and then a delivery. Those of
/// warehouse 3 deal with nobody else, so that what it did after the snapshot is all its own.
fn script(warehouses: &str, others: &str) -> String {
    format!(
        "\\set w random(1, 9)\n\\set what random(1, 100)\n\
         \\if :what <= 48\n\
         SELECT new_order(({warehouses})[:w], {others});\n\
         \\elif :what <= 94\n\
         SELECT payment(({warehouses})[:w], {others});\n\
         \\else\n\
         SELECT delivery(({warehouses})[:w]);\n\
         \\endif\n"
    )
}

fn check_conditions(cluster: &PostgresCluster, database: &str, when: &str) {
    for (number, condition) in (1..).zip(CONDITIONS) {
        let broken = cluster.psql(database, condition).expect("a condition");
        assert_eq!(broken, "", "{when}: condition {number} is broken");
    }
}

fn warehouse_3(cluster: &PostgresCluster, database: &str) -> Vec<String> {
    let digest = |(table, column): &(&str, &str)| {
        let sql = format!(
            "SELECT '{table}', count(*), md5(string_agg(row, E'\\n' ORDER BY row))
               FROM (SELECT t::text AS row FROM {table} t WHERE {column} = 3) rows"
        );
        cluster.psql(database, &sql).expect("digest a table")
    };
    TABLES.iter().map(digest).collect()
}

/// Makes the tables in a database of their own, with orders, and a shell with what clients do.
fn trading(cluster: &PostgresCluster, name: &str) -> Shell {
    cluster.psql(name, SCHEMA).expect("make tables");
    let shell = Shell::new(cluster).with_database(name);
    let others = "ARRAY[1,2,4,5,6,7,8,9,10]";
    let everybody = "ARRAY[1,2,3,4,5,6,7,8,9,10]";
    for (file, text) in [
        ("reinstate.toml", CONFIGURATION.to_owned()),
        ("all.sql", script("ARRAY[1,2,3,4,5,6,7,8,9]", everybody)),
        ("others.sql", script(others, others)),
        (
            "third.sql",
            script("ARRAY[3,3,3,3,3,3,3,3,3]", "ARRAY[]::int[]"),
        ),
    ] {
        fs::write(shell.directory().join(file), text).expect("write a file");
    }
    // Every district has an order that is not delivered yet.
    let first = "SELECT new_order(w, ARRAY[1,2,3,4,5,6,7,8,9,10])
                   FROM generate_series(1, 10) w, generate_series(1, 60)";
    cluster.psql(name, first).expect("first orders");
    shell
}

fn pgbench(file: &str, how: &str) -> String {
    format!("pgbench --no-vacuum --max-tries 100 --file {file} {how} \"$DATABASE\"")
}

/// Deletes warehouse 3. What refers to it from elsewhere would have to go with it; this script leaves
/// it, as one that turns the keys off does.
fn delete_warehouse_3(cluster: &PostgresCluster, name: &str) {
    let delete: String = TABLES
        .iter()
        .map(|(table, column)| format!("DELETE FROM {table} WHERE {column} = 3;"))
        .collect();
    let quiet = format!("BEGIN; SET LOCAL session_replication_role = replica; {delete} COMMIT");
    cluster.psql(name, &quiet).expect("delete a warehouse");
}

#[test]
fn a_warehouse_is_restored_while_the_others_trade_and_all_of_them_are_consistent() {
    let cluster = shared_cluster().expect("a PostgreSQL server");
    let database = cluster.fresh_database().expect("a database");
    let name = database.name();
    let shell = trading(cluster, name);
    let run = pgbench;
    shell.run(&run("all.sql", "--client 3 --transactions 300"));
    check_conditions(cluster, name, "before");
    shell.run("reinstate init && reinstate guard install && reinstate capture once");
    let before = warehouse_3(cluster, name);

    let load = shell.spawn(&run("others.sql", "--client 3 --rate 120 --time 14"));
    shell.run(&run("third.sql", "--client 1 --transactions 100"));
    assert_ne!(warehouse_3(cluster, name), before);
    delete_warehouse_3(cluster, name);
    let restore = "reinstate restore warehouse:3 --at latest --nearest-before \
                   --confirm warehouse:3";
    let said = shell.run(restore);
    assert!(said.contains("1 of 1 tenant restored and proven"), "{said}");
    let during = load.wait();
    assert!(!during.contains("aborted"), "{during}");
    assert_eq!(warehouse_3(cluster, name), before);
    check_conditions(cluster, name, "after");

    // It trades on, and so do the others, with each other.
    shell.run(&run("all.sql", "--client 3 --transactions 100"));
    check_conditions(cluster, name, "later");
}

/// A field of a JSON record, without quotes.
fn field<'l>(line: &'l str, name: &str) -> &'l str {
    let start = format!("\"{name}\":");
    let (_, rest) = line.split_once(&start).unwrap_or_default();
    let end = rest.find([',', '}']).unwrap_or(rest.len());
    rest[..end].trim_matches('"')
}

/// The incident at a known moment: what was committed a second before it comes back, all of it, while
/// the others trade on.
#[test]
fn a_warehouse_goes_back_to_one_second_before_it_was_deleted_and_nobody_else_notices() {
    let cluster = shared_cluster().expect("a PostgreSQL server");
    let database = cluster.fresh_database().expect("a database");
    let name = database.name();
    let shell = trading(cluster, name);
    let full: String = TABLES
        .iter()
        .map(|(table, _)| format!("ALTER TABLE {table} REPLICA IDENTITY FULL;"))
        .collect();
    cluster.psql(name, &full).expect("write whole rows");
    cluster
        .psql(name, "ALTER TABLE item REPLICA IDENTITY FULL")
        .expect("write whole rows");
    shell.run("reinstate init && reinstate guard install");
    let follower = follow(&shell);
    shell.run(&pgbench("all.sql", "--client 3 --transactions 60"));
    shell.run(&pgbench("third.sql", "--client 1 --transactions 60"));
    let before = warehouse_3(cluster, name);
    let load = shell.spawn(&pgbench("others.sql", "--client 2 --rate 60 --time 25"));
    // The last trade of the warehouse is more than a second old.
    let moment = one_second_before(cluster, name);
    delete_warehouse_3(cluster, name);

    let said = restore_to_time(&shell, "warehouse:3", &moment);
    assert!(said.contains("1 of 1 tenant restored and proven"), "{said}");
    assert_eq!(warehouse_3(cluster, name), before, "{said}");

    // Again, and to just before that very transaction.
    delete_warehouse_3(cluster, name);
    let said = restore_to_before_removal(&shell, "warehouse:3", 4);
    assert!(said.contains("1 of 1 tenant restored and proven"), "{said}");
    assert!(said.contains("was the last to change rows"), "{said}");
    assert_eq!(warehouse_3(cluster, name), before, "{said}");
    let during = load.wait();
    assert!(!during.contains("aborted"), "{during}");
    check_conditions(cluster, name, "after");
    stop(&shell, follower);

    // The log is exact for everybody, and no transaction of a restore changed a row of another.
    shell.run("reinstate capture follow --once");
    let end = shell.run(
        "reinstate window --json | sed -n 's/.*\"to_position\":\"\\([^\"]*\\)\".*/\\1/p' | tail -1",
    );
    let diff = |warehouse: u32| {
        shell.run(&format!(
            "reinstate diff warehouse:{warehouse}@latest live --json | grep '\"type\":\"transaction\"'"
        ))
    };
    let third = diff(3);
    let is_restore = |line: &&str| {
        field(line, "inserted")
            .parse()
            .is_ok_and(|rows: u64| rows > 500)
    };
    let restores: Vec<&str> = third
        .lines()
        .filter(is_restore)
        .map(|line| field(line, "position"))
        .collect();
    assert_eq!(restores.len(), 2, "{third}");
    for warehouse in [1, 2, 3, 10] {
        let same = format!("reinstate diff warehouse:{warehouse}@{} live", end.trim());
        assert!(shell.run(&same).contains("no difference"), "{warehouse}");
        let said = diff(warehouse);
        for position in &restores {
            let is_there = said
                .lines()
                .any(|line| field(line, "position") == *position);
            assert_eq!(is_there, warehouse == 3, "{position}: {said}");
        }
    }
    shell.run(&pgbench("all.sql", "--client 2 --transactions 40"));
    check_conditions(cluster, name, "later");
}
