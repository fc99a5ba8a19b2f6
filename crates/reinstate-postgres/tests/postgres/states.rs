//! Two sessions that are asked at once: for the state of a tenant with so many tables, and about many rows.

use std::fmt::Write as _;
use std::thread::{self, Scope};
use std::time::Duration;

use reinstate_core::{ErrorKind, LiveStore, RowBatch, RowRole};
use reinstate_postgres::TenancyMap;

use crate::ground::{
    Ground, Plan, bind, entry, image, open_store, open_store_with, restore, tenant, via,
};

const COUNT: usize = 20;

/// Tables `t0` and on: every fifth has the account in a column, the others refer to the one before.
fn tables() -> Ground {
    let mut sql = String::new();
    for number in 0..COUNT {
        let owner = match number % 5 {
            0 => "account_id int NOT NULL".to_owned(),
            _ => format!("parent int NOT NULL REFERENCES t{}", number - 1),
        };
        let value = match number % 5 {
            0 => "n % 3",
            _ => "n",
        };
        write!(
            sql,
            "CREATE TABLE t{number} (id int PRIMARY KEY, {owner}, name text);
             INSERT INTO t{number} SELECT n, {value}, 'x' FROM generate_series(1, 30) n;"
        )
        .unwrap();
    }
    Ground::with_map(&sql, rules)
}

fn rules(map: &mut TenancyMap) {
    for number in (0..COUNT).filter(|number| number % 5 > 0) {
        let reference = format!("parent -> t{}.id", number - 1);
        via(map, &format!("t{number}"), &reference);
    }
}

#[test]
fn the_state_is_the_same_whoever_asks() {
    let ground = tables();
    let id = tenant("1");
    let asked = bind(&ground.store, &id).0;
    // Of what was read.
    let view = ground.store.read_view().unwrap();
    for (table, _) in view.schema().iter() {
        crate::ground::collect(view.tenant_rows(&id, table).unwrap()).unwrap();
    }
    assert_eq!(view.fingerprint(&id).unwrap(), asked);
    drop(view);
    // By two sessions that were left, one of them ahead.
    drop([(); 2].map(|()| ground.store.read_view().unwrap()));
    for _ in 0..3 {
        let view = ground.store.read_view_of(&id).unwrap();
        assert_eq!(view.fingerprint(&id).unwrap(), asked);
    }
    let others = ground.store.read_view_of(&tenant("2")).unwrap();
    assert_ne!(others.fingerprint(&tenant("2")).unwrap(), asked);
    drop(others);
    // What was asked before is not what has to be asked now.
    ground.psql("ALTER TABLE t3 ADD more int");
    let view = ground.store.read_view_of(&id).unwrap();
    assert_ne!(view.fingerprint(&id).unwrap(), asked);
    drop(view);
    ground.psql(
        "ALTER TABLE t3 DROP more; ALTER TABLE t4 RENAME TO was_t4; CREATE TABLE t4 (LIKE t3)",
    );
    ground.psql("DROP TABLE t4; ALTER TABLE was_t4 RENAME TO t4");
    let view = ground.store.read_view_of(&id).unwrap();
    assert_eq!(view.fingerprint(&id).unwrap(), asked);
}

#[test]
fn a_change_in_any_table_makes_a_plan_stale_before_the_merge_and_right_before_its_commit() {
    let ground = tables();
    let id = tenant("1");
    ground.store.prepare().unwrap();
    let wanted = image(&ground.store, "1");
    ground.psql("DELETE FROM t19 WHERE id = 1");
    for number in 0..COUNT {
        let table = format!("t{number}");
        let (expected, schema) = bind(&ground.store, &id);
        ground.psql(&format!("UPDATE {table} SET name = 'y' WHERE id = 4"));
        let begun = ground.store.begin_merge(&id, &expected, &schema);
        assert_eq!(
            begun.map(drop).unwrap_err().kind(),
            ErrorKind::Stale,
            "{table}"
        );

        let (expected, schema) = bind(&ground.store, &id);
        let plan = Plan::between(&schema, &image(&ground.store, "1"), &wanted);
        let mut writer = ground.store.begin_merge(&id, &expected, &schema).unwrap();
        writer.apply(&plan).unwrap();
        // A new row: it is in nobody's way.
        ground.psql(&format!("INSERT INTO {table} SELECT 100, 1, 'new'"));
        let error = writer.commit(&entry(1, &id)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stale, "{table}: {error}");
        ground.psql(&format!("DELETE FROM {table} WHERE id = 100"));
        ground.psql(&format!("UPDATE {table} SET name = 'x' WHERE id = 4"));
    }
    assert_eq!(ground.psql("SELECT count(*) FROM t19 WHERE id = 1"), "0");
    ground.restore("1", &wanted).unwrap();
    assert_eq!(image(&ground.store, "1"), wanted);
}

const ORDERS: &str = "\
CREATE TABLE orders (id int PRIMARY KEY, account_id int NOT NULL);
CREATE TABLE notes (id int PRIMARY KEY, account_id int NOT NULL, order_id int REFERENCES orders);
INSERT INTO orders SELECT n, n % 2 FROM generate_series(1, 400) n;
INSERT INTO notes SELECT n, 1, n FROM generate_series(1, 400) n;
";

/// Alters the orders as soon as that is possible, and returns when it has to wait for that.
fn alter_orders<'scope>(ground: &'scope Ground, scope: &'scope Scope<'scope, '_>) {
    let altering = scope.spawn(|| ground.psql("ALTER TABLE orders ADD more int"));
    let sql = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND database =
                   (SELECT oid FROM pg_database WHERE datname = current_database()))";
    while ground.psql(sql) != "t" {
        assert!(!altering.is_finished(), "nobody is in the way");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Somebody waited to alter a table that a plan was about. The plan's second session waited behind him, he for the
/// first one, and that one for the second, until the second gave up and the plan with it.
#[test]
fn a_plan_does_not_wait_for_who_waits_for_it() {
    let ground = Ground::new(ORDERS);
    let id = tenant("1");
    let view = ground.store.read_view().unwrap();
    let (notes, _) = view.schema().find("notes").unwrap();
    let mut rows = RowBatch::new();
    let mut stream = view.tenant_rows(&id, notes).unwrap();
    assert!(stream.next_batch(&mut rows).unwrap());
    while stream.next_batch(&mut RowBatch::new()).unwrap() {}
    drop(stream);
    assert_eq!(rows.len(), 400);
    let around = thread::scope(|scope| {
        alter_orders(&ground, scope);
        let place = (notes, RowRole::Created);
        let around = view.look_around(&id, place, &rows, &RowBatch::new(), &[]);
        drop(view);
        around
    });
    let (held, strays) = around.unwrap();
    // Those of the other account.
    assert_eq!((held.len(), strays.len()), (0, 200));
}

/// The same right before a commit: everybody waited for who waited to alter the table, for as long as the merge was
/// told to wait for locks, which may be for ever.
#[test]
fn a_commit_does_not_wait_for_who_waits_for_it() {
    let ground = Ground::new(ORDERS);
    let store = open_store_with(&ground.database.url(), |settings| {
        settings.lock_timeout = Duration::ZERO;
    });
    let id = tenant("1");
    let wanted = image(&store, "1");
    ground.psql("DELETE FROM notes WHERE id = 1");
    let (fingerprint, schema) = bind(&store, &id);
    let plan = Plan::between(&schema, &image(&store, "1"), &wanted);
    let mut writer = store.begin_merge(&id, &fingerprint, &schema).unwrap();
    writer.apply(&plan).unwrap();
    let committed = thread::scope(|scope| {
        alter_orders(&ground, scope);
        writer.commit(&entry(1, &id))
    });
    let error = committed.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Contended, "{error}");
    assert_eq!(ground.psql("SELECT count(*) FROM notes WHERE id = 1"), "0");
    assert_eq!(ground.psql("SELECT count(more) FROM orders"), "0");
}

/// A role with two connections was enough for a restore, and was not any more once two sessions waited for use.
#[test]
fn sessions_that_wait_for_use_give_up_their_places() {
    let ground = Ground::new(
        "CREATE TABLE notes (id int PRIMARY KEY, account_id int NOT NULL);
         INSERT INTO notes SELECT n, n % 2 FROM generate_series(1, 10) n",
    );
    let role = format!("narrow_{}", ground.database.name());
    ground.psql(&format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 2"));
    ground.psql(&ground.store.role_script(&role).unwrap());
    let store = open_store(&format!("{}&user={role}", ground.database.url()), |_| {});
    let wanted = image(&store, "1");
    ground.psql("DELETE FROM notes WHERE id = 1");
    let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'");
    // The one that the store was opened with ends in its own time.
    while ground.psql(&sessions) != "1" {
        thread::sleep(Duration::from_millis(10));
    }
    drop([(); 2].map(|()| store.read_view().unwrap()));
    assert_eq!(ground.psql(&sessions), "2");
    restore(&store, "1", &wanted, 1).unwrap();
    assert_eq!(image(&store, "1"), wanted);
}
