//! The state of a tenant with so many tables that two sessions are asked for it.

use std::fmt::Write as _;

use reinstate_core::{ErrorKind, LiveStore};
use reinstate_postgres::TenancyMap;

use crate::ground::{Ground, Plan, bind, entry, image, tenant, via};

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
