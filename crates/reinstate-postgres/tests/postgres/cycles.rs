//! Tables whose foreign keys form cycles, of every kind.

use reinstate_core::LiveStore;

use crate::ground::{Ground, Plan, bind, tenant};

/// Departments have a head, who may be nobody yet; employees have a department.
const LOOSE: &str = "\
CREATE TABLE departments (id int PRIMARY KEY, account_id int NOT NULL, head int, name text);
CREATE TABLE employees (id int PRIMARY KEY, account_id int NOT NULL,
    department int NOT NULL REFERENCES departments, boss int REFERENCES employees);
INSERT INTO departments SELECT n, n % 3, NULL, 'd' || n FROM generate_series(1, 30) n;
INSERT INTO employees SELECT n, n % 3, (n - 1) % 30 + 1, CASE WHEN n > 30 THEN n - 30 END
  FROM generate_series(1, 300) n;
UPDATE departments SET head = id + 60;
ALTER TABLE departments ADD FOREIGN KEY (head) REFERENCES employees;";

/// Every left has a right and every right has a left, at once.
const RIGID: &str = "\
CREATE TABLE lefts (id int PRIMARY KEY, account_id int NOT NULL, other int NOT NULL, note text);
CREATE TABLE rights (id int PRIMARY KEY, account_id int NOT NULL, other int NOT NULL, note text);
INSERT INTO lefts SELECT n, n % 3, n, NULL FROM generate_series(1, 60) n;
INSERT INTO rights SELECT n, n % 3, n, NULL FROM generate_series(1, 60) n;
ALTER TABLE lefts ADD FOREIGN KEY (other) REFERENCES rights;
ALTER TABLE rights ADD FOREIGN KEY (other) REFERENCES lefts;";

const TABLES_OF_THE_RING: usize = 13;

/// Thirteen tables, each of which refers to the next, the last to the first.
fn ring(last_column: &str, key: &str) -> (String, Vec<String>) {
    let names: Vec<String> = (0..TABLES_OF_THE_RING)
        .map(|n| format!("ring_{n:02}"))
        .collect();
    let mut ddl = String::new();
    for (place, name) in names.iter().enumerate() {
        let column = if place + 1 == names.len() {
            last_column
        } else {
            "int NOT NULL"
        };
        ddl.push_str(&format!(
            "CREATE TABLE {name} (id int PRIMARY KEY, account_id int NOT NULL, next {column});
             INSERT INTO {name} SELECT n, n % 3, n FROM generate_series(1, 30) n;\n"
        ));
    }
    for (name, next) in names.iter().zip(names.iter().cycle().skip(1)) {
        ddl.push_str(&format!(
            "ALTER TABLE {name} ADD FOREIGN KEY (next) REFERENCES {next} {key};\n"
        ));
    }
    (ddl, names)
}

/// Changes the tenant and restores it: it is what it was, and so is everybody else.
#[track_caller]
fn comes_back(ground: &Ground, tables: &[&str], change: &str) {
    let image = ground.image("1");
    ground.psql(change);
    let others = ground.others(tables, "1");
    let outcome = ground.restore("1", &image).unwrap();
    assert!(!outcome.planned.is_empty());
    assert_eq!(outcome.counted, outcome.planned);
    assert_eq!(ground.image("1"), image);
    assert_eq!(ground.others(tables, "1"), others);
    let mark = &outcome.committed.commit_mark;
    let foreign = ground.store.foreign_rows_written(&tenant("1"), mark);
    assert_eq!(foreign.unwrap(), 0);
    assert_eq!(ground.restore("1", &image).unwrap().planned, []);
}

/// Deletes the tenant from all tables in one go, as only deferred or combined statements can.
fn delete_all(tables: &[&str]) -> String {
    let parts = tables
        .iter()
        .map(|table| format!("gone_{table} AS (DELETE FROM {table} WHERE account_id = 1)"));
    format!("WITH {} SELECT 1", parts.collect::<Vec<_>>().join(", "))
}

#[test]
fn a_cycle_through_a_key_that_may_be_null_is_broken_for_a_while() {
    let ground = Ground::new(LOOSE);
    let tables = ["departments", "employees"];
    comes_back(&ground, &tables, &delete_all(&tables));
    // Some gone, some new that refer to each other, some that refer to what is new.
    comes_back(
        &ground,
        &tables,
        "UPDATE employees SET boss = NULL WHERE account_id = 1;
         UPDATE departments SET head = NULL WHERE account_id = 1 AND id < 20;
         DELETE FROM employees WHERE account_id = 1 AND id > 150;
         INSERT INTO departments VALUES (901, 1, NULL, 'new'), (904, 1, NULL, 'new');
         INSERT INTO employees VALUES (901, 1, 901, NULL), (904, 1, 904, 901);
         UPDATE departments SET head = 904 WHERE account_id = 1 AND id IN (901, 904, 4);
         UPDATE employees SET department = 904 WHERE account_id = 1 AND id < 50",
    );
}

#[test]
fn a_cycle_of_keys_that_may_not_be_null_is_written_by_one_statement() {
    let ground = Ground::new(RIGID);
    let tables = ["lefts", "rights"];
    comes_back(&ground, &tables, &delete_all(&tables));
    comes_back(
        &ground,
        &tables,
        "WITH a AS (DELETE FROM lefts WHERE account_id = 1 AND id > 30),
              b AS (DELETE FROM rights WHERE account_id = 1 AND id > 30),
              c AS (INSERT INTO lefts VALUES (901, 1, 904), (904, 1, 901)),
              d AS (INSERT INTO rights VALUES (901, 1, 901), (904, 1, 904)) SELECT 1;
         UPDATE lefts SET other = 901, note = 'x' WHERE account_id = 1 AND id < 10;
         UPDATE rights SET note = 'y' WHERE account_id = 1 AND id < 20",
    );
}

#[test]
fn a_ring_of_thirteen_tables_comes_back_whatever_its_keys_are() {
    for (last_column, key) in [
        ("int", ""),
        ("int NOT NULL", ""),
        ("int NOT NULL", "DEFERRABLE"),
        ("int NOT NULL", "DEFERRABLE INITIALLY DEFERRED"),
        ("int", "ON DELETE RESTRICT"),
    ] {
        let (ddl, names) = ring(last_column, key);
        let ground = Ground::new(&ddl);
        let tables: Vec<&str> = names.iter().map(String::as_str).collect();
        let change = match key {
            "ON DELETE RESTRICT" => {
                let mut change = "UPDATE ring_12 SET next = NULL WHERE account_id = 1;".to_owned();
                for table in &tables {
                    change.push_str(&format!("DELETE FROM {table} WHERE account_id = 1;"));
                }
                change
            }
            _ => delete_all(&tables),
        };
        comes_back(&ground, &tables, &change);
        comes_back(
            &ground,
            &tables,
            "UPDATE ring_12 SET next = 1 WHERE account_id = 1;
             UPDATE ring_05 SET next = 4 WHERE account_id = 1 AND id > 10",
        );
    }
}

#[test]
fn rows_that_refer_to_themselves_and_each_other_come_back() {
    let ground = Ground::new(
        "CREATE TABLE nodes (id int PRIMARY KEY, account_id int NOT NULL,
             root int NOT NULL REFERENCES nodes, note text);
         INSERT INTO nodes SELECT n, n % 3, n % 3 + 3, NULL FROM generate_series(3, 90) n;",
    );
    comes_back(
        &ground,
        &["nodes"],
        "DELETE FROM nodes WHERE account_id = 1",
    );
    comes_back(
        &ground,
        &["nodes"],
        "INSERT INTO nodes VALUES (904, 1, 904, 'new'), (907, 1, 904, 'new');
         UPDATE nodes SET root = 907 WHERE account_id = 1 AND id % 4 = 0",
    );
}

/// A project was deleted and made anew under the same name, and its issues moved to the new one.
#[test]
fn what_was_made_anew_under_the_same_name_goes_first_if_its_keys_can_wait() {
    let ground = Ground::new(
        "CREATE TABLE projects (id int PRIMARY KEY, account_id int NOT NULL, slug text,
             UNIQUE (account_id, slug));
         CREATE TABLE issues (id int PRIMARY KEY, account_id int NOT NULL,
             project_id int NOT NULL REFERENCES projects DEFERRABLE);
         INSERT INTO projects VALUES (1, 1, 'x'), (9, 2, 'x');
         INSERT INTO issues SELECT n, 1, 1 FROM generate_series(1, 5) n",
    );
    let image = ground.image("1");
    ground.psql(
        "INSERT INTO projects VALUES (2, 1, 'y'); UPDATE issues SET project_id = 2;
         DELETE FROM projects WHERE id = 1; UPDATE projects SET slug = 'x' WHERE id = 2",
    );
    ground.restore("1", &image).unwrap();
    assert_eq!(ground.image("1"), image);
}

/// Making a key deferrable would keep everybody from the table until the end.
#[test]
fn no_table_is_altered_to_let_rows_come_back() {
    let schema = "CREATE TABLE crews (id int PRIMARY KEY, account_id int NOT NULL, head int);
         CREATE TABLE staff (id int PRIMARY KEY, account_id int NOT NULL, crew int NOT NULL
             REFERENCES crews);
         ALTER TABLE crews ADD CONSTRAINT head FOREIGN KEY (head) REFERENCES staff;
         INSERT INTO crews SELECT n, n % 3 FROM generate_series(1, 9) n;
         INSERT INTO staff SELECT n, n % 3, n FROM generate_series(1, 9) n;
         UPDATE crews SET head = id";
    let ground = Ground::new(schema);
    let image = ground.image("1");
    let locked = "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
          WHERE c.relname IN ('crews', 'staff')
            AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')";
    let naive =
        format!("BEGIN; ALTER TABLE crews ALTER CONSTRAINT head DEFERRABLE; {locked}; ROLLBACK");
    assert_ne!(ground.psql(&naive), "0");
    ground.psql(
        "WITH gone AS (DELETE FROM staff WHERE account_id = 1) DELETE FROM crews WHERE account_id = 1",
    );
    let id = tenant("1");
    let (fingerprint, schema) = bind(&ground.store, &id);
    let plan = Plan::between(&schema, &ground.image("1"), &image);
    let mut writer = ground
        .store
        .begin_merge(&id, &fingerprint, &schema)
        .unwrap();
    writer.apply(&plan).unwrap();
    assert_eq!(ground.psql(locked), "0");
}
