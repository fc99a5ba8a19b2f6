//! Campaigns whose stores are PostgreSQL databases: gates that are statements, and everyone at once.

use std::fs;

use reinstate_testkit::cluster::{TestDatabase, shared_cluster};

use super::ground::{Ground, id_and_digest};
use crate::sandbox::Run;

/// What is behind the embedded store: a database of notes, in which a site may have none.
fn notes(rest: &str) -> String {
    format!(
        "[[store]]\nname = \"notes\"\nconfiguration = \"notes.toml\"\nphase = 2\n\
         may_be_absent = true\n{rest}"
    )
}

/// A new database with these tables.
fn database(sql: &str) -> TestDatabase<'static> {
    let database = shared_cluster().unwrap().fresh_database().unwrap();
    database.psql(sql).unwrap();
    database
}

/// Writes the configuration of the store of notes.
fn configure(ground: &Ground, url: &str, tenancy: &str) {
    let text = format!(
        "version = 1\n[repository]\nurl = \"file:notes-repository\"\n[store]\nname = \"notes\"\n\
         kind = \"postgres\"\nunguarded = true\nurl = {url:?}\n[tenancy]\nkind = \"account\"\n\
         column = \"account_id\"\n{tenancy}"
    );
    fs::write(ground.sandbox.path("notes.toml"), text).unwrap();
}

fn of_notes(ground: &Ground, verb: &[&str]) -> Run {
    ground.run(&[&["--config", "notes.toml"], verb].concat())
}

#[test]
fn a_statement_passes_answers_otherwise_fails_hangs_or_is_not_asked_and_only_the_first_opens() {
    let database = database(
        "CREATE TABLE notes (id serial PRIMARY KEY, account_id int NOT NULL, body text NOT NULL);
         CREATE TABLE opened (account_id int NOT NULL);
         INSERT INTO notes (account_id, body) SELECT n % 7, 'body ' || n FROM generate_series(1, 35) n
         WHERE n % 7 <> 5;",
    );
    let all_notes = || database.psql("SELECT * FROM notes ORDER BY id").unwrap();
    // By site: 1 passes, 2 hangs, 3 fails, 4 answers otherwise, 5 has no notes, 6 answers nothing.
    let ground = Ground::new(
        &[("sites", 1)],
        &notes(
            "[[gate]]\nname = \"legible\"\nphase = 2\nstore = \"notes\"\ntimeout = \"1s\"\n\
             expect = \"yes\"\nsql = '''SELECT CASE account_id WHEN 2 THEN pg_sleep(600)::text \
             WHEN 3 THEN (1 / (account_id - 3))::text WHEN 4 THEN 'no' WHEN 6 THEN NULL ELSE 'yes' END \
             FROM notes WHERE account_id = $1 LIMIT 1'''\n\
             [open]\nstore = \"notes\"\nsql = \"INSERT INTO opened VALUES ($1)\"\n",
        ),
    );
    configure(&ground, &database.url(), "excluded = [\"opened\"]\n");
    of_notes(&ground, &["init"]).done(&[]);
    of_notes(&ground, &["capture", "once"]).done(&[]);
    let (before, sites) = (all_notes(), ground.contents());
    let destroy = "DELETE FROM notes WHERE account_id <> 0";
    database.psql(destroy).unwrap();
    ground.destroy_in("sites", &[1, 2, 3, 4, 5, 6]);
    let campaign = ground.approved(&[1, 2, 3, 4, 5, 6], &[]);
    let run = ground.run(&["campaign", "run", &campaign]);
    run.refused(3, &["1 of 6 sites handed back, 5 parked"]);
    let why = |site: u32| {
        let name = format!("account:{site} ");
        let mut lines = run.stdout.lines();
        let line = lines.find(|line| line.trim_start().starts_with(&name));
        line.unwrap_or_else(|| panic!("{name}is not in {run:#?}"))
            .to_owned()
    };
    for (site, says) in [
        (2, "no answer within 1s"),
        (3, "division by zero"),
        (4, "gate legible: it answered \"no\", not \"yes\""),
        (5, "the site is not in that store"),
        (6, "gate legible: it answered \"\", not \"yes\""),
    ] {
        assert!(why(site).contains(says), "{says:?} is not in {}", why(site));
        assert!(why(site).contains("gate legible"), "{}", why(site));
    }
    // All rows are there and proven, and still only one site is open.
    assert_eq!(all_notes(), before);
    assert_eq!(ground.contents(), sites);
    assert_eq!(database.psql("SELECT * FROM opened").unwrap(), "1");
    let status = ground.sandbox.json(&["campaign", "status", &campaign]);
    let records = status.records();
    let gates = records.iter().flat_map(|site| site["gates"].as_array());
    let passed = gates.flatten().filter(|gate| gate["gate"] == "legible");
    let passed: Vec<_> = passed
        .map(|gate| gate["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(
        passed,
        ["passed", "failed", "failed", "failed", "failed", "failed"]
    );
    // A server that is not there, now and when the campaign runs.
    let again = ground.run(&["campaign", "abort", &campaign]);
    again.done(&["aborted"]);
    database.psql(destroy).unwrap();
    let campaign = ground.approved(&[1, 2], &[]);
    configure(&ground, "postgres:///nowhere?host=/nonexistent", "");
    let run = ["campaign", "run", &campaign, "--patience", "1"];
    ground.run(&run).refused(1, &["open store \"notes\""]);
    ground
        .run(&["campaign", "plan", "--at", "latest", "account:3"])
        .refused(1, &["open store \"notes\""]);
    ground
        .run(&["campaign", "status"])
        .done(&["approved  2 sites: 2 planned"]);
}

/// Tables with keys that depend on each other, rows of everybody, a counter, and no key at all.
const TABLES: &str = "\
CREATE TABLE currencies (code text PRIMARY KEY, name text NOT NULL);
CREATE TABLE projects (id serial PRIMARY KEY, account_id int NOT NULL,
    currency text NOT NULL REFERENCES currencies, name text);
CREATE TABLE issues (id serial PRIMARY KEY, project_id int NOT NULL REFERENCES projects,
    after int REFERENCES issues, title text NOT NULL);
CREATE TABLE activity (account_id int NOT NULL, what text NOT NULL);";

const EVERYBODYS: &str = "INSERT INTO currencies VALUES ('EUR', 'Euro'), ('CHF', 'Franken');";

const ROWS: &str = "\
INSERT INTO projects (account_id, currency, name)
    SELECT n % 4, CASE n % 2 WHEN 0 THEN 'EUR' ELSE 'CHF' END, repeat('x', n) FROM generate_series(1, 40) n;
INSERT INTO issues (project_id, after, title)
    SELECT 1 + n % 40, CASE WHEN n > 40 THEN n - 40 END, 'issue ' || n FROM generate_series(1, 400) n;
INSERT INTO activity SELECT n % 4, 'seen' FROM generate_series(1, 50) n;";

/// All rows of a database.
fn rows_of(database: &TestDatabase<'_>) -> Vec<String> {
    let tables = ["currencies", "projects", "issues", "activity"];
    let rows = tables.map(|table| format!("SELECT t.* FROM {table} t ORDER BY t"));
    rows.iter().map(|sql| database.psql(sql).unwrap()).collect()
}

#[test]
fn everyone_goes_into_a_new_database_whose_tables_are_there() {
    let lost = database(&[TABLES, EVERYBODYS, ROWS].concat());
    let ground = Ground::new(&[], &notes(""));
    let tenancy =
        "shared = [\"currencies\"]\n[tenancy.table.issues]\nvia = \"project_id -> projects.id\"\n";
    configure(&ground, &lost.url(), tenancy);
    of_notes(&ground, &["init"]).done(&[]);
    of_notes(&ground, &["capture", "once"]).done(&[]);
    let plan = ["campaign", "plan", "--everyone", "--at", "latest"];
    // The store that the snapshot is of is not a new one.
    ground.run(&plan).refused(8, &["store \"notes\""]);
    let new = database(TABLES);
    configure(&ground, &new.url(), tenancy);
    of_notes(&ground, &["init"]).done(&[]);
    ground
        .run(&plan)
        .refused(1, &["lacks the rows of everybody", "currencies"]);
    new.psql(EVERYBODYS).unwrap();
    let planned = ground.sandbox.json(&plan);
    planned.done(&[]);
    let planned = planned.record("campaign_planned");
    assert_eq!(planned["sites"], 4);
    let campaign = id_and_digest(&planned);
    ground.approve(&campaign);
    let run = ["campaign", "run", &campaign.0];
    ground.run(&run).done(&["4 handed back"]);
    assert_eq!(rows_of(&new), rows_of(&lost));
    // Whoever comes next gets a number that nobody has.
    let next = "INSERT INTO issues (project_id, title) VALUES (1, 'next') RETURNING id > 400";
    assert!(new.psql(next).unwrap().starts_with('t'));
    ground.run(&plan).refused(5, &["should be new and empty"]);
}
