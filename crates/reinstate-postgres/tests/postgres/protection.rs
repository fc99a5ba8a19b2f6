//! The database itself stops a merge at another tenant's row: by guard triggers, or by row-level
//! security for a role that may do no more than it must.

use std::sync::OnceLock;
use std::time::Duration;

use reinstate_core::{
    ChangeCounts, ChangeSource, ErrorKind, LiveStore, RowRole, RowStream, StoreError, TableIndex,
    TenantKind,
};
use reinstate_postgres::{ConnectionSettings, GuardState, PostgresStore, SecretUrl, TenancyMap};

use crate::ground::{Ground, Plan, bind, collect, entry, image, restore, tenant, via};

const SHOP: &str = "\
CREATE TABLE orders (id int PRIMARY KEY, account_id int NOT NULL, note text);
CREATE TABLE items (id int PRIMARY KEY, order_id int NOT NULL REFERENCES orders, name text);
CREATE TABLE prices (id int PRIMARY KEY, amount int);
INSERT INTO orders SELECT n, n % 3, 'o' || n FROM generate_series(1, 30) n;
INSERT INTO items (id, order_id, name) SELECT n, n % 30 + 1, 'i' || n FROM generate_series(1, 60) n;
INSERT INTO prices VALUES (1, 10);
";

/// Whoever writes an order, whosever it is, changes a row of tenant 2 as well.
const SABOTAGE: &str = "\
CREATE FUNCTION sabotage() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    UPDATE public.orders SET note = 'sabotaged' WHERE id = 2;
    RETURN NULL;
END $$;
CREATE TRIGGER sabotage AFTER INSERT ON orders FOR EACH STATEMENT EXECUTE FUNCTION sabotage();
";

fn rules(map: &mut TenancyMap) {
    via(map, "items", "order_id -> orders.id");
    map.shared.push("prices".to_owned());
    map.allowed_triggers.push("orders.sabotage".to_owned());
}

fn shop() -> Ground {
    Ground::with_map(SHOP, rules)
}

/// A store that insists on a guard.
fn insisting(url: String, adapt: impl FnOnce(&mut TenancyMap)) -> PostgresStore {
    let mut map = TenancyMap::new(TenantKind::parse("account").unwrap());
    map.column = Some("account_id".to_owned());
    adapt(&mut map);
    let settings = ConnectionSettings::new(SecretUrl::new(url), "guarded");
    PostgresStore::connect(settings, map).unwrap()
}

fn lose_tenant_one(ground: &Ground) {
    ground.psql("DELETE FROM items USING orders o WHERE o.id = order_id AND o.account_id = 1");
    ground.psql("DELETE FROM orders WHERE account_id = 1");
}

fn states(store: &PostgresStore) -> Vec<(String, GuardState)> {
    let tables = store.guard_status().unwrap().into_iter();
    tables
        .map(|table| (table.table.to_string(), table.state))
        .collect()
}

/// What a session that says it writes tenant 1 cannot do.
const FOREIGN: [&str; 7] = [
    "UPDATE orders SET note = 'x' WHERE id = 2",
    "UPDATE orders SET account_id = 2 WHERE id = 1",
    "UPDATE orders SET account_id = 1 WHERE id = 2",
    "INSERT INTO orders VALUES (100, 2, 'x')",
    "INSERT INTO items VALUES (100, 2, 'x')",
    "UPDATE items SET order_id = 2 WHERE order_id = 1",
    "DELETE FROM items WHERE order_id = 2",
];

fn as_tenant_one(sql: &str) -> String {
    format!("BEGIN; SET LOCAL reinstate.tenant = '1'; {sql}; COMMIT")
}

#[test]
fn without_a_guard_nothing_is_written() {
    let ground = shop();
    let image = ground.image("1");
    lose_tenant_one(&ground);
    let store = insisting(ground.database.url(), rules);
    let error = restore(&store, "1", &image, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let message = error.to_string();
    assert!(message.contains("row of orders, items: run"), "{message}");
    assert_eq!(
        ground.psql("SELECT count(*) FROM orders WHERE account_id = 1"),
        "0"
    );
    store.install_guard().unwrap();
    restore(&store, "1", &image, 2).unwrap();
    assert_eq!(ground.image("1"), image);
}

#[test]
fn guard_triggers_stop_what_reaches_another_tenant_and_let_everybody_else_work() {
    let ground = shop();
    let store = insisting(ground.database.url(), rules);
    store.install_guard().unwrap();
    for sql in FOREIGN
        .into_iter()
        .chain(["UPDATE prices SET amount = 1", "DELETE FROM prices"])
    {
        let error = ground.database.psql(&as_tenant_one(sql)).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("guard of reinstate"), "{sql}: {message}");
        // Those whom no merge is about do as they like.
        ground.psql(&format!("BEGIN; {sql}; ROLLBACK"));
    }
    for sql in [
        "UPDATE orders SET note = 'mine' WHERE account_id = 1",
        "INSERT INTO items VALUES (100, 1, 'mine')",
        "DELETE FROM items WHERE order_id = 1",
    ] {
        ground.psql(&as_tenant_one(sql));
    }

    let image = ground.image("1");
    lose_tenant_one(&ground);
    ground.psql(SABOTAGE);
    let error = restore(&store, "1", &image, 1).unwrap_err();
    let message = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Refused, "{message}");
    assert!(
        message.contains("guard of reinstate: the merge would change rows of orders"),
        "{message}"
    );
    assert_eq!(ground.psql("SELECT note FROM orders WHERE id = 2"), "o2");
}

/// Rows two parents away from their tenant. A guard does not look beyond a parent that the transaction wrote:
/// the statement that wrote that one was looked at.
#[test]
fn guards_see_foreign_rows_behind_parents_that_were_there_and_that_were_written() {
    let ground = Ground::with_map(
        &format!(
            "{SHOP} CREATE TABLE parts (id int PRIMARY KEY, item_id int NOT NULL REFERENCES items);
             INSERT INTO parts SELECT n, n % 60 + 1 FROM generate_series(1, 240) n"
        ),
        |map| {
            rules(map);
            via(map, "parts", "item_id -> items.id");
        },
    );
    let store = insisting(ground.database.url(), |map| {
        rules(map);
        via(map, "parts", "item_id -> items.id");
    });
    store.prepare().unwrap();
    store.install_guard().unwrap();
    let own =
        "(SELECT min(i.id) FROM items i JOIN orders o ON o.id = order_id WHERE account_id = 1)";
    let others =
        "(SELECT min(i.id) FROM items i JOIN orders o ON o.id = order_id WHERE account_id = 2)";
    for sql in [
        format!("INSERT INTO parts VALUES (1000, {others})"),
        // One among many of the tenant's own.
        format!(
            "INSERT INTO parts SELECT 1000 + n, CASE n WHEN 50 THEN {others} ELSE {own} END
               FROM generate_series(1, 100) n"
        ),
        format!("UPDATE parts SET item_id = {others} WHERE item_id = {own}"),
        format!("UPDATE parts SET item_id = {own} WHERE item_id = {others}"),
        format!("DELETE FROM parts WHERE item_id = {others}"),
        // Behind a parent that was written: it is looked at itself, in whichever order.
        format!(
            "UPDATE items SET name = 'x' WHERE id = {others}; INSERT INTO parts VALUES (1000, {others})"
        ),
        "INSERT INTO items VALUES (1000, 2); INSERT INTO parts VALUES (1000, 1000)".to_owned(),
        format!(
            "WITH i AS (INSERT INTO items VALUES (1000, 2)) INSERT INTO parts VALUES (1000, {own})"
        ),
    ] {
        let error = ground.database.psql(&as_tenant_one(&sql)).unwrap_err();
        assert!(
            error.to_string().contains("guard of reinstate"),
            "{sql}: {error}"
        );
    }
    for sql in [
        format!("INSERT INTO parts VALUES (1000, {own})"),
        "INSERT INTO items VALUES (1000, 1); INSERT INTO parts VALUES (1001, 1000)".to_owned(),
        format!(
            "UPDATE items SET name = 'x' WHERE id = {own}; DELETE FROM parts WHERE item_id = {own}"
        ),
    ] {
        ground.psql(&as_tenant_one(&sql));
    }
    // Parents that stayed, and parents that come back as well.
    let image = ground.image("1");
    let others = "SELECT t.xmin, t.* FROM parts t WHERE item_id IN (
                      SELECT i.id FROM items i JOIN orders o ON o.id = order_id WHERE account_id <> 1)
                   ORDER BY id";
    let before = ground.psql(others);
    let lose = |table: &str| {
        format!(
            "DELETE FROM {table} WHERE id IN (SELECT t.id FROM {table} t LEFT JOIN items i
                 ON i.id = t.item_id JOIN orders o ON o.id = i.order_id WHERE account_id = 1)"
        )
    };
    ground.psql(&lose("parts"));
    restore(&store, "1", &image, 1).unwrap();
    assert_eq!(ground.image("1"), image);
    ground.psql(&lose("parts"));
    lose_tenant_one(&ground);
    restore(&store, "1", &image, 2).unwrap();
    assert_eq!(ground.image("1"), image);
    assert_eq!(ground.psql(others), before);
}

#[test]
fn a_guard_that_is_not_that_of_the_map_does_not_count() {
    let ground = shop();
    let store = insisting(ground.database.url(), rules);
    let all = |state: GuardState| {
        let names = ["items", "orders", "prices"];
        names.map(|name| (name.to_owned(), state)).to_vec()
    };
    assert_eq!(states(&store), all(GuardState::Absent));
    store.install_guard().unwrap();
    assert_eq!(states(&store), all(GuardState::Armed));
    // Another map asks for other triggers.
    let other = insisting(ground.database.url(), |map| {
        map.shared.extend(["prices".to_owned(), "items".to_owned()]);
    });
    assert_eq!(states(&other)[0].1, GuardState::Outdated);
    assert_eq!(states(&other)[1].1, GuardState::Armed);

    ground.psql("ALTER TABLE orders DISABLE TRIGGER reinstate_guard_delete");
    assert_eq!(states(&store)[1].1, GuardState::Outdated);
    ground.psql("DROP TRIGGER reinstate_guard_update ON items");
    assert_eq!(states(&store)[0].1, GuardState::Outdated);
    let image = ground.image("1");
    lose_tenant_one(&ground);
    assert!(restore(&store, "1", &image, 1).is_err());
    store.install_guard().unwrap();
    assert_eq!(states(&store), all(GuardState::Armed));
    restore(&store, "1", &image, 2).unwrap();
    assert_eq!(store.remove_guard().unwrap(), 3);
    assert_eq!(states(&store), all(GuardState::Absent));
    assert_eq!(store.remove_guard().unwrap(), 0);
}

#[test]
fn a_confined_role_restores_its_tenant_and_can_do_nothing_else() {
    let ground = shop();
    // One table has policies of the application already.
    ground.psql(
        "ALTER TABLE items ENABLE ROW LEVEL SECURITY;
         CREATE POLICY application ON items USING (current_setting('app.tenant', true) = '7')",
    );
    let role = format!("confined_{}", ground.database.name());
    ground.psql(&format!("CREATE ROLE {role} LOGIN"));
    ground.psql(&ground.store.role_script(&role).unwrap());
    let store = insisting(format!("{}&user={role}", ground.database.url()), rules);
    let status = store.guard_status().unwrap();
    let confined: Vec<bool> = status.iter().map(|table| table.is_confined).collect();
    assert_eq!(confined, [true, true, false], "{status:?}");

    let image = ground.image("1");
    let others = "SELECT t.xmin, t.* FROM orders t WHERE account_id <> 1 ORDER BY id";
    let before = ground.psql(others);
    lose_tenant_one(&ground);
    restore(&store, "1", &image, 1).unwrap();
    assert_eq!(ground.image("1"), image);
    assert_eq!(ground.psql(others), before);

    // An operator's questions are answered about every row; what would write outside of a merge is refused.
    let limit = Duration::from_secs(60);
    let count = "SELECT count(*) FROM orders JOIN items ON order_id = orders.id";
    assert_eq!(
        store.ask(count, &tenant("1"), limit).unwrap(),
        ground.psql(count)
    );
    let action = "UPDATE orders SET id = id WHERE account_id::text = $1";
    let error = store.tell(action, &tenant("1"), limit).unwrap_err();
    assert!(error.to_string().contains("row-level security"), "{error}");

    let items = ground.psql("SELECT t.xmin, t.* FROM items t ORDER BY id");
    for sql in FOREIGN
        .into_iter()
        .chain(["UPDATE prices SET amount = 1", "DELETE FROM prices"])
    {
        // Refused, or there is no such row for it.
        let _ = ground
            .database
            .psql(&format!("SET ROLE {role}; {}", as_tenant_one(sql)));
    }
    let _ = ground
        .database
        .psql(&format!("SET ROLE {role}; DELETE FROM orders"));
    assert_eq!(ground.psql(others), before);
    assert_eq!(
        ground.psql("SELECT t.xmin, t.* FROM items t ORDER BY id"),
        items
    );
    assert_eq!(ground.psql("SELECT amount FROM prices"), "10");
}

/// A policy that names the tenant and lets others pass besides, in whatever way, confines nobody.
#[test]
fn policies_that_let_more_pass_than_the_tenant_are_no_guard() {
    let ground = shop();
    let role = format!("loose_{}", ground.database.name());
    ground.psql(&format!("CREATE ROLE {role} LOGIN"));
    ground.psql(&ground.store.role_script(&role).unwrap());
    let store = insisting(format!("{}&user={role}", ground.database.url()), rules);
    let is_confined = |table: usize| store.guard_status().unwrap()[table].is_confined;
    let image = ground.image("1");
    lose_tenant_one(&ground);
    let own = ground.psql(
        "SELECT pg_get_expr(polqual, polrelid) FROM pg_policy
          WHERE polname = 'reinstate_delete' AND polrelid = 'orders'::regclass",
    );
    let changes = [
        (
            "reinstate_insert",
            format!("WITH CHECK (({own}) OR id > 100)"),
        ),
        (
            "reinstate_update",
            format!("USING (({own}) OR true) WITH CHECK ({own})"),
        ),
        (
            "reinstate_update",
            format!("USING ({own}) WITH CHECK (({own}) OR true)"),
        ),
        ("reinstate_delete", format!("USING (NOT ({own}))")),
        (
            "reinstate_insert",
            "WITH CHECK (coalesce(current_setting('reinstate.tenant', true), '') <> '')".to_owned(),
        ),
    ];
    for (job, (policy, change)) in (1_u8..).zip(changes) {
        ground.psql(&format!("ALTER POLICY {policy} ON orders {change}"));
        assert!(!is_confined(1), "{change}");
        let error = restore(&store, "1", &image, job).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{change}");
        assert!(
            error
                .to_string()
                .contains("the policies of orders are not those"),
            "{error}"
        );
        let condition = match policy {
            "reinstate_insert" => format!("WITH CHECK ({own})"),
            "reinstate_update" => format!("USING ({own}) WITH CHECK ({own})"),
            _ => format!("USING ({own})"),
        };
        ground.psql(&format!("ALTER POLICY {policy} ON orders {condition}"));
        assert!(is_confined(1), "{condition}");
    }
    restore(&store, "1", &image, 10).unwrap();
    assert_eq!(ground.image("1"), image);
}

#[test]
fn policies_that_would_hide_rows_are_refused_whatever_else_they_allow() {
    let ground = shop();
    let role = format!("confined_{}", ground.database.name());
    ground.psql(&format!("CREATE ROLE {role} LOGIN"));
    ground.psql(&ground.store.role_script(&role).unwrap());
    let store = insisting(format!("{}&user={role}", ground.database.url()), rules);
    assert!(store.read_view().is_ok());
    ground.psql("CREATE POLICY hides ON orders AS RESTRICTIVE FOR SELECT USING (id > 3)");
    let error = store.read_view().map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(
        error.to_string().contains("would hide rows of orders"),
        "{error}"
    );
}

#[test]
fn triggers_that_do_not_see_every_statement_are_no_guard() {
    let ground = shop();
    let store = insisting(ground.database.url(), rules);
    store.prepare().unwrap();
    store.install_guard().unwrap();
    assert_eq!(states(&store)[1], ("orders".to_owned(), GuardState::Armed));
    let function = ground.psql(
        "SELECT tgfoid::regproc FROM pg_trigger
          WHERE tgname = 'reinstate_guard_delete' AND tgrelid = 'orders'::regclass",
    );
    for instead in [
        "AFTER INSERT ON orders REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT",
        "AFTER DELETE ON orders REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT WHEN (false)",
    ] {
        ground.psql(&format!(
            "CREATE OR REPLACE TRIGGER reinstate_guard_delete {instead} EXECUTE FUNCTION {function}();
             ALTER TABLE orders ENABLE ALWAYS TRIGGER reinstate_guard_delete"
        ));
        assert_eq!(states(&store)[1].1, GuardState::Outdated, "{instead}");
        store.install_guard().unwrap();
        assert_eq!(states(&store)[1].1, GuardState::Armed, "{instead}");
    }
}

/// A plan during which something happens right before its rows are sent.
struct Meanwhile<'a> {
    plan: Plan,
    act: &'a (dyn Fn() + Sync),
}

impl ChangeSource for Meanwhile<'_> {
    fn tables(&self) -> &[TableIndex] {
        self.plan.tables()
    }

    fn counts(&self, table: TableIndex) -> ChangeCounts {
        self.plan.counts(table)
    }

    fn rows(
        &self,
        table: TableIndex,
        role: RowRole,
    ) -> Result<Box<dyn RowStream + '_>, StoreError> {
        (self.act)();
        self.plan.rows(table, role)
    }
}

/// Whether a temporary table is being filled: nobody else has a table to himself here.
fn is_staging(ground: &Ground) -> bool {
    let sql = "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                               WHERE d.datname = current_database() AND l.locktype = 'relation'
                                 AND l.mode = 'AccessExclusiveLock')";
    ground.psql(sql) == "t"
}

/// A parent says whose the items are. Where the guard asks that of them, they need not be staged first.
#[test]
fn rows_of_a_guarded_table_are_copied_into_it_and_others_staged() {
    for is_guarded in [true, false] {
        let ground = shop();
        let guarded = insisting(ground.database.url(), rules);
        guarded.prepare().unwrap();
        if is_guarded {
            guarded.install_guard().unwrap();
        }
        let store = match is_guarded {
            true => &guarded,
            false => &ground.store,
        };
        let wanted = ground.image("1");
        ground.psql("DELETE FROM items USING orders o WHERE o.id = order_id AND o.account_id = 1");
        let (fingerprint, schema) = bind(store, &tenant("1"));
        let found = OnceLock::new();
        let changes = Meanwhile {
            plan: Plan::between(&schema, &ground.image("1"), &wanted),
            act: &|| found.set(is_staging(&ground)).unwrap(),
        };
        let id = tenant("1");
        let mut writer = store.begin_merge(&id, &fingerprint, &schema).unwrap();
        assert_eq!(
            writer.apply(&changes).unwrap(),
            changes.plan.counts_by_name()
        );
        writer.commit(&entry(1, &id)).unwrap();
        assert_eq!(found.get(), Some(&!is_guarded));
        assert_eq!(ground.image("1"), wanted);
    }
}

/// The guard was awake when the merge looked, and is not when the rows come: they are counted by the merge itself
/// before it commits, whether they were read back or not.
#[test]
fn rows_that_are_not_the_tenants_are_not_committed_without_a_guard_either() {
    let ground = shop();
    check_without_a_guard(&ground);
    check_without_a_guard(&Ground::with_map(&SHOP.replace(ITEMS, PARTITIONED), rules));
}

const ITEMS: &str = "\
CREATE TABLE items (id int PRIMARY KEY, order_id int NOT NULL REFERENCES orders, name text);
";
const PARTITIONED: &str = "\
CREATE TABLE items (name text, id int, order_id int NOT NULL REFERENCES orders, PRIMARY KEY (id, order_id))
    PARTITION BY HASH (order_id);
CREATE TABLE items_0 PARTITION OF items FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE items_1 (order_id int NOT NULL, name text, id int NOT NULL);
ALTER TABLE items ATTACH PARTITION items_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
";

fn check_without_a_guard(ground: &Ground) {
    let store = insisting(ground.database.url(), rules);
    store.prepare().unwrap();
    let wanted = ground.image("1");
    // Order 1 is somebody else's by now, and an item of it is missing.
    ground.psql("DELETE FROM items WHERE order_id IN (1, 4)");
    ground.psql("UPDATE orders SET account_id = 2 WHERE id = 1");
    let live = ground.image("1");
    let (fingerprint, schema) = bind(&store, &tenant("1"));
    let (items, _) = schema.find("items").unwrap();
    let mut wrong = live.clone();
    wrong.insert(items, wanted[&items].clone());
    let plan = || Plan::between(&schema, &live, &wrong);
    let name = "SELECT DISTINCT format('reinstate.%I', p.proname) FROM pg_trigger t
                  JOIN pg_proc p ON p.oid = t.tgfoid
                 WHERE t.tgrelid = 'items'::regclass AND starts_with(t.tgname, 'reinstate_guard')";
    let items_before = ground.psql("SELECT count(*) FROM items");
    for (is_asleep, reads_back) in [(false, false), (true, false), (true, true)] {
        store.install_guard().unwrap();
        let function = ground.psql(name);
        let act = || {
            if is_asleep {
                ground.psql(&format!(
                    "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql
                        AS 'BEGIN RETURN NULL; END'"
                ));
            }
        };
        let changes = Meanwhile {
            plan: plan(),
            act: &act,
        };
        let id = tenant("1");
        let mut writer = store.begin_merge(&id, &fingerprint, &schema).unwrap();
        let applied = writer.apply(&changes);
        let error = if is_asleep {
            assert_eq!(applied.unwrap(), changes.plan.counts_by_name());
            if reads_back {
                collect(writer.read_back(items).unwrap()).unwrap();
            }
            writer.commit(&entry(1, &id)).unwrap_err()
        } else {
            drop(writer);
            applied.unwrap_err()
        };
        let says = match is_asleep {
            true => "create rows of items: 2 of them are not the tenant's",
            false => "guard of reinstate: the merge would change rows of items",
        };
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(ground.psql("SELECT count(*) FROM items"), items_before);
        assert_eq!(image(&store, "1"), live);
    }
}
