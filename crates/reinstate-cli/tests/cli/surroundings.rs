//! What a plan says of the world around the tenant's rows: rows of everybody that they refer to,
//! rows of others, and what happens by itself when they are written.

use crate::ground::Ground;

const SCHEMA: &str = "\
CREATE TABLE currencies (code text, kind text, name text, PRIMARY KEY (code, kind));
CREATE TABLE users (id int PRIMARY KEY, account_id int, name text);
CREATE TABLE orders (id int PRIMARY KEY, account_id int NOT NULL, currency text, kind text,
                     seller_id int REFERENCES users,
                     FOREIGN KEY (currency, kind) REFERENCES currencies);
INSERT INTO currencies SELECT 'C' || n, 'k', 'c' || n FROM generate_series(1, 9) n;
INSERT INTO users SELECT n, nullif(n % 4, 3), 'u' || n FROM generate_series(1, 40) n;
INSERT INTO orders SELECT n, n % 3, 'C' || n % 9 + 1, CASE WHEN n % 2 = 0 THEN 'k' END, n % 40 + 1
  FROM generate_series(1, 90) n;
";

const TENANCY: &str = "\
[tenancy]
kind = \"account\"
column = \"account_id\"
shared = [\"currencies\"]
";

fn captured() -> Ground {
    Ground::captured(SCHEMA, TENANCY)
}

fn orders(ground: &Ground) -> String {
    ground.psql("SELECT t.* FROM orders t WHERE account_id = 1 ORDER BY id")
}

#[test]
fn a_row_of_everybody_that_is_gone_stops_the_plan_that_needs_it() {
    let ground = captured();
    let before = orders(&ground);
    ground.psql("DELETE FROM orders WHERE account_id = 1");
    let gone = ground.psql("SELECT t.* FROM orders t ORDER BY id");
    ground.psql("UPDATE orders SET currency = 'C1' WHERE currency = 'C5'");
    ground.psql("DELETE FROM currencies WHERE code = 'C5'");
    let run = ground.restore(&[]);
    // Orders 4, 22, 40, 58 and 76 have the currency; those with a NULL in the key do not refer.
    let note = "refuse   account:1: orders.currency,kind -> currencies leads to rows that are gone \
                (C5,k): create them first (5 rows)";
    assert!(run.stdout.contains(note), "{run:?}");
    run.refused(
        1,
        &["leads to rows that are gone (C5,k)", "Nothing was written"],
    );
    assert_eq!(
        ground.psql("SELECT t.* FROM orders t WHERE account_id = 1"),
        ""
    );
    assert!(!gone.is_empty());
    ground.psql("INSERT INTO currencies VALUES ('C5', 'k', 'again')");
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(orders(&ground), before);
}

#[test]
fn rows_of_other_tenants_that_are_referred_to_are_noted() {
    let ground = captured();
    let before = orders(&ground);
    ground.psql("DELETE FROM orders WHERE account_id = 1");
    let run = ground.sandbox.json(&[
        "plan",
        "account:1",
        "--at",
        "latest",
        "--nearest-before",
        "--out",
        "plan",
    ]);
    let note = run.record("plan_note");
    assert_eq!(note["kind"], "parent_foreign");
    assert_eq!(note["tenant"], "account:1");
    assert_eq!(note["object"], "orders.seller_id -> users");
    assert_eq!(note["obstacle"], false);
    // Of 30 orders, those whose seller is of account 0 or 2; sellers without an account are
    // everybody's.
    let crossing = "SELECT count(*) FROM orders o JOIN users u ON u.id = o.seller_id
                     WHERE o.account_id = 1 AND u.account_id <> 1";
    ground.restore(&[]).done(&[
        "restored",
        "note     account:1: orders.seller_id -> users leads",
    ]);
    assert_eq!(orders(&ground), before);
    assert_eq!(note["rows"].to_string(), ground.psql(crossing));
}

#[test]
fn triggers_that_would_fire_are_listed_and_only_allowed_ones_do() {
    let ground = captured();
    let before = orders(&ground);
    ground.psql(
        "CREATE TABLE audit (what text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO public.audit VALUES (TG_OP); RETURN NULL; END $$;
         CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
         CREATE TRIGGER harmless BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION keep();
         CREATE TRIGGER on_delete AFTER DELETE ON orders FOR EACH ROW EXECUTE FUNCTION note();",
    );
    ground.configure(&format!("{TENANCY}excluded = [\"audit\"]\n"));
    ground.psql(
        "ALTER TABLE orders DISABLE TRIGGER ALL; DELETE FROM orders WHERE account_id = 1;
                 ALTER TABLE orders ENABLE TRIGGER ALL",
    );
    let run = ground.restore(&[]);
    let note = "refuse   trigger or rule orders.harmless would fire";
    assert!(run.stdout.contains(note), "{run:?}");
    assert!(!run.stdout.contains("on_delete"), "{run:?}");
    run.refused(1, &["orders.harmless would fire", "allowed_triggers"]);
    assert_eq!(orders(&ground), "");
    let allowed =
        format!("{TENANCY}excluded = [\"audit\"]\nallowed_triggers = [\"orders.harmless\"]\n");
    ground.configure(&allowed);
    let note = "note     trigger or rule orders.harmless fires, as allowed_triggers lets it";
    ground.restore(&[]).done(&[note, "restored"]);
    assert_eq!(orders(&ground), before);
}
