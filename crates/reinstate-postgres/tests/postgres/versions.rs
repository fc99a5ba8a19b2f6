//! Which version each row of a tenant is, as it comes along with the rows: the state that was read back
//! before a commit is found again after it, until somebody writes to the tenant.

use reinstate_core::{LiveStore, LiveView, TenantWriter};

use crate::ground::{Ground, Plan, bind, check_read_back, collect, entry, image, tenant, via};

const SHOP: &str = "\
CREATE TABLE orders (id int PRIMARY KEY, account_id int NOT NULL, note text);
CREATE TABLE items (id int PRIMARY KEY, order_id int NOT NULL REFERENCES orders, name text);
CREATE TABLE parts (item_id int NOT NULL REFERENCES items, name text);
INSERT INTO orders SELECT n, n % 3, 'o' || n FROM generate_series(1, 30) n;
INSERT INTO items SELECT n, n % 30 + 1, 'i' || n FROM generate_series(1, 60) n;
INSERT INTO parts SELECT n % 60 + 1, 'p' FROM generate_series(1, 240) n;
";

const LOSE: &str = "\
DELETE FROM parts WHERE item_id IN (SELECT i.id FROM items i JOIN orders o ON o.id = i.order_id
                                     WHERE o.account_id = 1);
DELETE FROM items WHERE order_id IN (SELECT id FROM orders WHERE account_id = 1);
UPDATE orders SET note = 'lost' WHERE account_id = 1 AND id < 9;
DELETE FROM orders WHERE account_id = 1 AND id > 8;
";

/// Another tenant's order, whenever one of anybody is created.
const SABOTAGE: &str = "\
CREATE FUNCTION sabotage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.orders SELECT 100, 2, 'x' WHERE NOT EXISTS (
        SELECT FROM public.orders WHERE id = 100);
    RETURN NULL;
END $$;
CREATE TRIGGER sabotage AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION sabotage();
";

fn shop() -> Ground {
    Ground::with_map(SHOP, |map| {
        via(map, "items", "order_id -> orders.id");
        via(map, "parts", "item_id -> items.id");
        map.allowed_triggers.push("orders.sabotage".to_owned());
    })
}

/// A merge of what was lost, and its plan.
fn begun<'g>(
    ground: &'g Ground,
    wanted: &crate::ground::Image,
) -> (Box<dyn TenantWriter + 'g>, Plan) {
    let id = tenant("1");
    let (fingerprint, schema) = bind(&ground.store, &id);
    let plan = Plan::between(&schema, &image(&ground.store, "1"), wanted);
    let writer = ground.store.begin_merge(&id, &fingerprint, &schema);
    (writer.unwrap(), plan)
}

/// The same, about to be committed.
fn merged<'g>(ground: &'g Ground, wanted: &crate::ground::Image) -> Box<dyn TenantWriter + 'g> {
    let (mut writer, plan) = begun(ground, wanted);
    writer.apply(&plan).unwrap();
    writer
}

#[test]
fn what_was_read_back_is_found_again_until_somebody_writes() {
    let ground = shop();
    let wanted = ground.image("1");
    ground.psql(LOSE);
    let mut writer = merged(&ground, &wanted);
    // Nothing was read yet.
    assert_eq!(writer.state_read_back(), None);
    check_read_back(writer.as_mut(), &wanted).unwrap();
    let state = writer.state_read_back().expect("all of it was read");
    writer.commit(&entry(1, &tenant("1"))).unwrap();

    let now = || bind(&ground.store, &tenant("1")).0;
    assert_eq!(now(), state);
    ground.psql("UPDATE orders SET note = 'x' WHERE account_id = 2; VACUUM");
    assert_eq!(now(), state);
    for sql in [
        "UPDATE orders SET note = note WHERE id = 1",
        "INSERT INTO orders VALUES (301, 1)",
        "DELETE FROM parts WHERE ctid IN (SELECT p.ctid FROM parts p JOIN items i ON i.id = p.item_id
                                            JOIN orders o ON o.id = i.order_id AND o.account_id = 1
                                           LIMIT 1)",
    ] {
        let before = now();
        ground.psql(sql);
        assert_ne!(now(), before, "{sql}");
    }
}

#[test]
fn what_was_read_before_rows_were_written_is_not_the_state_behind_them() {
    let ground = shop();
    let wanted = ground.image("1");
    // Taken away only: no row that is left says that it was written since.
    ground.psql("INSERT INTO orders VALUES (301, 1)");
    let found = ground.image("1");
    let (mut writer, plan) = begun(&ground, &wanted);
    check_read_back(writer.as_mut(), &found).unwrap();
    writer.apply(&plan).unwrap();
    assert_eq!(writer.state_read_back(), None);
}

/// What rows hold in a column that was dropped and made anew is not what they held, and no row is another
/// version for that.
#[test]
fn another_column_of_the_same_name_is_another_state() {
    let ground = shop();
    let (before, schema) = bind(&ground.store, &tenant("1"));
    let held = ground.image("1");
    ground.psql(
        "ALTER TABLE orders DROP COLUMN note; ALTER TABLE orders ADD COLUMN note text DEFAULT 'x'",
    );
    let (after, same) = bind(&ground.store, &tenant("1"));
    assert_eq!(schema, same);
    assert_ne!(ground.image("1"), held);
    assert_ne!(after, before);
}

#[test]
fn where_the_transaction_left_a_row_of_somebody_else_nothing_is_said() {
    let ground = shop();
    let wanted = ground.image("1");
    ground.psql(LOSE);
    ground.psql(SABOTAGE);
    let mut writer = merged(&ground, &wanted);
    check_read_back(writer.as_mut(), &wanted).unwrap();
    assert_eq!(writer.state_read_back(), None);
}

#[test]
fn a_view_that_read_everything_knows_the_same_state_as_one_that_asks() {
    let ground = shop();
    for name in ["1", "2", "77"] {
        let id = tenant(name);
        let asked = ground.store.read_view().unwrap();
        let read = ground.store.read_view().unwrap();
        // What is of another tenant does not count.
        for id in [&tenant("2"), &id] {
            for (table, schema) in read.schema().iter() {
                if schema.tenancy.is_tenant_owned() {
                    collect(read.tenant_rows(id, table).unwrap()).unwrap();
                }
            }
        }
        assert_eq!(
            fingerprint(read.as_ref(), name),
            fingerprint(asked.as_ref(), name)
        );
    }
}

fn fingerprint(view: &dyn LiveView, name: &str) -> reinstate_core::Fingerprint {
    view.fingerprint(&tenant(name)).unwrap()
}
