//! Rows of everybody that are gone, created because a tenant's rows refer to them.

use std::fs;

use crate::ground::Ground;

const SCHEMA: &str = "\
CREATE TABLE countries (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE currencies (id serial PRIMARY KEY, code text UNIQUE NOT NULL, country_id int REFERENCES countries,
                         peg_id int REFERENCES currencies);
CREATE TABLE orders (id int PRIMARY KEY, account_id int NOT NULL, currency text REFERENCES currencies (code));
INSERT INTO countries SELECT n, 'country ' || n FROM generate_series(1, 9) n;
INSERT INTO currencies SELECT n, 'C' || n, n, CASE WHEN n = 5 THEN 3 END FROM generate_series(1, 9) n;
SELECT setval('currencies_id_seq', 9);
INSERT INTO orders SELECT n, n % 3, 'C' || n % 9 + 1 FROM generate_series(1, 90) n;
";

const TENANCY: &str = "\
[tenancy]
kind = \"account\"
column = \"account_id\"
shared = [\"currencies\", \"countries\"]
";

/// Tables in which rows that are gone are created.
const BOTH: &str = "create_missing = [\"currencies\", \"countries\"]\n";

/// What is gone: account 1's orders, currencies 5 and 2 with their countries, currency 3 that 5 refers to.
const INCIDENT: &str = "\
DELETE FROM orders WHERE account_id = 1;
UPDATE orders SET currency = 'C1';
DELETE FROM currencies WHERE id IN (2, 3, 5);
DELETE FROM countries WHERE id IN (2, 5);
";

fn captured(create_missing: &str) -> Ground {
    let ground = Ground::captured(SCHEMA, TENANCY);
    ground.configure(&format!("{TENANCY}{create_missing}"));
    ground
}

fn orders(ground: &Ground) -> String {
    ground.psql("SELECT t.* FROM orders t WHERE account_id = 1 ORDER BY id")
}

/// Every row of everybody.
fn shared(ground: &Ground) -> String {
    let currencies = ground.psql("SELECT t.* FROM currencies t ORDER BY id");
    let countries = ground.psql("SELECT t.* FROM countries t ORDER BY id");
    format!("{currencies}\n{countries}")
}

fn plan(ground: &Ground, file: &str) {
    let what = ["plan", "account:1", "--at", "latest", "--nearest-before"];
    let run = ground.sandbox.run(&[&what[..], &["--out", file]].concat());
    run.done(&["currencies gets rows of everybody"]);
}

/// Applies a saved plan; says whether it was.
fn apply(ground: &Ground, file: &str) -> crate::sandbox::Run {
    ground
        .sandbox
        .run(&["apply", file, "--confirm", "account:1"])
}

#[test]
fn what_is_gone_is_created_with_what_it_refers_to_and_nothing_else() {
    let ground = captured(BOTH);
    let (before, everybodys) = (orders(&ground), shared(&ground));
    // Orders of account 1 have C2, C5 and C8; nobody's has C3 but currency 5 refers to it.
    ground.psql(INCIDENT);
    let kept = ground.psql("UPDATE countries SET name = 'renamed' WHERE id = 3 RETURNING id");
    assert!(kept.starts_with('3'));
    let run = ground.restore(&[]);
    run.done(&[
        "currencies gets rows of everybody that are gone and are referred to, as create_missing \
         lets it: an undo leaves them (3 rows)",
        "countries gets rows of everybody",
        "countries holds rows of everybody that are referred to and are not what they were",
        "restored",
    ]);
    assert_eq!(orders(&ground), before);
    let expected = everybodys.replace("country 3", "renamed");
    assert_eq!(shared(&ground), expected);
    // Other accounts' orders stay as the incident left them.
    let others = "SELECT count(*) FROM orders WHERE account_id <> 1 AND currency <> 'C1'";
    assert_eq!(ground.psql(others), "0");
    ground.restore(&[]).done(&["nothing to change"]);
}

#[test]
fn only_tables_that_are_named_get_rows_and_the_plan_says_what_else_is_needed() {
    let ground = captured("");
    ground.psql(INCIDENT);
    let gone = shared(&ground);
    let run = ground.restore(&[]);
    run.refused(1, &["(C2, C5): create them first"]);
    ground.configure(&format!("{TENANCY}create_missing = [\"currencies\"]\n"));
    let run = ground.restore(&[]);
    run.refused(
        1,
        &["currencies.country_id -> countries leads to rows that are gone (2, 5): create them first"],
    );
    assert_eq!(shared(&ground), gone);
    assert_eq!(orders(&ground), "");
    ground.configure(&format!("{TENANCY}{BOTH}"));
    ground
        .restore(&["--create", "off"])
        .done(&["nothing to change"]);
    ground.restore(&[]).done(&["restored"]);
    let wrong = format!("{TENANCY}create_missing = [\"orders\"]\n");
    ground.configure(&wrong);
    let run = ground.restore(&[]);
    run.refused(2, &["create_missing: orders is no shared table"]);
}

#[test]
fn what_somebody_made_meanwhile_stays_if_it_is_the_same_and_refuses_the_merge_if_not() {
    let ground = captured(BOTH);
    let (before, everybodys) = (orders(&ground), shared(&ground));
    ground.psql(INCIDENT);
    plan(&ground, "one.plan");
    ground.psql(
        "INSERT INTO countries VALUES (2, 'country 2'); INSERT INTO currencies VALUES (2, 'C2', 1)",
    );
    let run = apply(&ground, "one.plan");
    run.refused(5, &["1 of 3 rows are there with other contents"]);
    assert_eq!(orders(&ground), "");
    assert_eq!(ground.psql("SELECT count(*) FROM currencies"), "7");
    ground.psql("UPDATE currencies SET country_id = 2 WHERE id = 2");
    apply(&ground, "one.plan").done(&["restored"]);
    assert_eq!((orders(&ground), shared(&ground)), (before, everybodys));
}

#[test]
fn a_place_that_another_row_has_taken_is_an_obstacle() {
    let ground = captured(BOTH);
    ground.psql(INCIDENT);
    ground.psql("INSERT INTO currencies VALUES (2, 'C77')");
    let gone = shared(&ground);
    let run = ground.restore(&[]);
    run.refused(
        1,
        &["currencies has live rows with values of rows of everybody that would have to be created \
          (currencies_pkey)"],
    );
    assert_eq!((shared(&ground), orders(&ground)), (gone, String::new()));
}

#[test]
fn what_the_snapshot_does_not_have_is_not_made_up() {
    let ground = captured(BOTH);
    ground.psql(INCIDENT);
    // The older snapshot has no currency that the younger one's orders refer to.
    let younger =
        "INSERT INTO currencies VALUES (40, 'C40'); INSERT INTO orders VALUES (400, 1, 'C40')";
    ground.psql(younger);
    ground.sandbox.run(&["capture", "once"]).done(&[]);
    ground.psql("ALTER TABLE currencies RENAME COLUMN country_id TO land_id");
    ground.psql("DELETE FROM orders WHERE id = 400; DELETE FROM currencies WHERE id = 40");
    let run = ground.restore(&[]);
    run.refused(1, &["(C40), and the table changed since"]);
    ground.psql("ALTER TABLE currencies RENAME COLUMN land_id TO country_id");
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(
        ground.psql("SELECT code FROM currencies WHERE id = 40"),
        "C40"
    );
    // The number is not given away again.
    let next = ground.psql("INSERT INTO currencies (code) VALUES ('new') RETURNING id");
    assert!(next.starts_with("41"), "{next}");
}

#[test]
fn rows_created_for_everybody_are_in_the_plan_and_an_undo_leaves_them() {
    let ground = captured(BOTH);
    let everybodys = shared(&ground);
    ground.psql(INCIDENT);
    plan(&ground, "one.plan");
    let run = ground
        .sandbox
        .json(&["show", "one.plan", "--rows", "--show-values"]);
    let mut created = run.records();
    created.retain(|record| record["change"] == "create_shared");
    let tables: Vec<&str> = created
        .iter()
        .map(|row| row["table"].as_str().unwrap())
        .collect();
    // Parents before children.
    let expected = [
        "countries",
        "countries",
        "currencies",
        "currencies",
        "currencies",
    ];
    assert_eq!(tables, expected);
    assert_eq!(created[0]["after"]["name"], "country 2");
    apply(&ground, "one.plan").done(&["restored"]);
    let shown = ground.sandbox.json(&["show", "one.plan"]).record("plan");
    let job = shown["job"].as_str().unwrap();
    let undo = ground.sandbox.run(&["undo", job, "--confirm", "account:1"]);
    undo.done(&["currencies keeps the rows of everybody that the restore may have created"]);
    assert_eq!(orders(&ground), "");
    assert_eq!(shared(&ground), everybodys);
}

#[test]
fn guards_let_rows_of_everybody_be_created_only_where_the_map_does() {
    let ground = Ground::captured(SCHEMA, TENANCY);
    let before = orders(&ground);
    let guarded = |create_missing: &str| {
        ground.configure(&format!("{TENANCY}{create_missing}"));
        let path = ground.sandbox.path("reinstate.toml");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("unguarded = true\n", "")).unwrap();
    };
    guarded("");
    ground.install_guard();
    ground.psql(INCIDENT);
    guarded(BOTH);
    let run = ground.restore(&[]);
    run.refused(
        1,
        &[
            "currencies has no guard that lets them be created",
            "guard install",
        ],
    );
    assert_eq!(orders(&ground), "");
    ground.install_guard();
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(orders(&ground), before);
    // The guard itself: rows of everybody are created, and neither changed nor deleted.
    let merge = |sql: &str| {
        let sql = format!("BEGIN; SET LOCAL reinstate.tenant = '1'; {sql}; COMMIT");
        ground.database.psql(&sql)
    };
    merge("INSERT INTO countries VALUES (70, 'x')").unwrap();
    for refused in [
        "UPDATE countries SET name = 'y' WHERE id = 70",
        "DELETE FROM countries WHERE id = 70",
        "INSERT INTO orders VALUES (700, 2, 'C1')",
    ] {
        let error = merge(refused).unwrap_err().to_string();
        assert!(error.contains("guard of reinstate"), "{error}");
    }
}

#[test]
fn triggers_on_shared_tables_that_would_fire_are_obstacles() {
    let ground = captured(BOTH);
    ground.psql(INCIDENT);
    ground.psql(
        "CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN INSERT INTO public.countries VALUES (NEW.id + 100, 'made'); RETURN NULL; END $$;
         CREATE TRIGGER more AFTER INSERT ON currencies FOR EACH ROW EXECUTE FUNCTION more()",
    );
    let gone = shared(&ground);
    ground
        .restore(&[])
        .refused(1, &["currencies.more would fire"]);
    ground.configure(&format!(
        "{TENANCY}{BOTH}allowed_triggers = [\"currencies.more\"]\n"
    ));
    // What it writes is not in the plan.
    let run = ground.restore(&[]);
    run.refused(
        1,
        &["the store counted other changes than planned in table countries"],
    );
    assert_eq!((shared(&ground), orders(&ground)), (gone, String::new()));
}

/// Two restores may need the same row: the one that comes second waits for it and takes it as it is.
#[test]
fn what_somebody_is_about_to_make_is_waited_for() {
    let ground = captured(BOTH);
    let (before, everybodys) = (orders(&ground), shared(&ground));
    ground.psql(INCIDENT);
    plan(&ground, "one.plan");
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            ground.psql(
                "BEGIN; INSERT INTO countries VALUES (5, 'country 5'), (2, 'country 2');
                 SELECT pg_sleep(2); COMMIT",
            )
        });
        let begun = "SELECT count(*) FROM pg_stat_activity
                      WHERE datname = current_database() AND wait_event = 'PgSleep'";
        while ground.psql(begun) == "0" {
            assert!(!other.is_finished(), "it slept too short to be seen");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        apply(&ground, "one.plan").done(&["restored"]);
        other.join().unwrap();
    });
    assert_eq!((orders(&ground), shared(&ground)), (before, everybodys));
}
