//! Drills: what an incident would take is measured beside the live store, which is not touched.

use std::fs;

use reinstate_testkit::cluster::shared_cluster;
use serde_json::Value;

use crate::ground::Ground;
use crate::sandbox::{Run, Sandbox};

/// A store that was captured and followed through some writes.
fn followed() -> Sandbox {
    let sandbox = Sandbox::captured();
    let follow = ["capture", "follow", "--once"];
    sandbox.run(&follow).done(&[]);
    for number in [2, 3, 4, 2] {
        sandbox.write_to(number);
        sandbox.run(&follow).done(&["sealed"]);
    }
    sandbox.destroy(4);
    sandbox.run(&follow).done(&["sealed"]);
    sandbox
}

/// Who was brought back, to when.
fn lots(run: &Run) -> Vec<(Value, Value)> {
    let records = run.records();
    let drilled = records.iter().filter(|record| record["type"] == "drilled");
    drilled
        .map(|record| (record["tenant"].clone(), record["position"].clone()))
        .collect()
}

fn files(sandbox: &Sandbox) -> usize {
    let mut count = 0;
    let mut directories = vec![sandbox.path("reinstate-repository")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            count += 1;
            if path.is_dir() {
                directories.push(path);
            }
        }
    }
    count
}

#[test]
fn tenants_drawn_by_lot_are_proven_while_an_application_has_the_store() {
    let sandbox = followed();
    let (before, kept) = (sandbox.contents(), files(&sandbox));
    let store = sandbox.store();
    let drill = [
        "drill",
        "--tenants",
        "5",
        "--seed",
        "11",
        "--publish",
        "drill.prom",
    ];
    let run = sandbox.json(&drill);
    assert_eq!(run.code, 0, "{run:?}");
    let drawn = lots(&run);
    assert_eq!(drawn.len(), 5);
    let mut moments: Vec<_> = drawn.iter().map(|(_, at)| at.as_str().unwrap()).collect();
    moments.sort_unstable();
    moments.dedup();
    assert!(moments.len() > 1, "{drawn:?}");
    let summary = run.record("drill");
    assert_eq!(
        (&summary["proven"], &summary["seed"]),
        (&5.into(), &11.into())
    );
    assert!(summary["recovery_time_seconds"].as_f64().unwrap() > 0.0);
    assert!(summary["recovery_point_age_seconds"].as_f64().unwrap() > 0.0);
    let published = fs::read_to_string(sandbox.path("drill.prom")).unwrap();
    assert!(
        published.contains("\nreinstate_drill_success 1\n"),
        "{published}"
    );
    assert_eq!(lots(&sandbox.json(&drill)), drawn);
    assert_ne!(
        lots(&sandbox.json(&["drill", "--tenants", "5", "--seed", "12"])),
        drawn
    );
    sandbox
        .run(&["drill"])
        .done(&["seed ", "3 of 3 tenants proven"]);
    drop(store);
    assert_eq!((sandbox.contents(), files(&sandbox)), (before, kept));
}

#[test]
fn a_drill_that_cannot_bring_anybody_back_fails_loudly() {
    let sandbox = followed();
    let drill = ["drill", "--seed", "5", "--publish", "drill.prom"];
    sandbox.run(&drill).done(&["3 of 3"]);
    let published = || fs::read_to_string(sandbox.path("drill.prom")).unwrap();
    let success = |text: &str| {
        let name = "reinstate_drill_last_success_timestamp_seconds ";
        let line = text.lines().find(|line| line.starts_with(name));
        line.map(ToOwned::to_owned)
    };
    let last = success(&published());
    assert!(last.is_some(), "{}", published());
    let late = [&drill[..], &["--recovery-point-max", "1ms"]].concat();
    sandbox
        .run(&late)
        .refused(1, &["older than it may be", "capture follow"]);
    assert!(published().contains("\nreinstate_drill_success 0\n"));
    let slow = [&drill[..], &["--recovery-time-max", "1us"]].concat();
    sandbox.run(&slow).refused(1, &["longer to come back"]);
    for object in sandbox.objects() {
        Sandbox::damage(&object, |bytes| {
            let (from, to) = (bytes.len() / 8, bytes.len() / 2);
            bytes[from..to].iter_mut().for_each(|byte| *byte ^= 0x20);
        });
    }
    let run = sandbox.run(&drill);
    assert_eq!(run.code, 4, "{run:?}");
    assert!(published().contains("\nreinstate_drill_success 0\n"));
    assert_eq!(success(&published()), last);
}

#[test]
fn without_a_snapshot_nothing_could_be_brought_back() {
    let sandbox = Sandbox::empty();
    let generate = [
        "generate",
        "--into",
        "app.redb",
        "--tenants",
        "3",
        "--rows",
        "50",
    ];
    sandbox.run(&generate).done(&[]);
    sandbox.run(&["init", "--embedded", "app.redb"]).done(&[]);
    sandbox
        .run(&["drill"])
        .refused(7, &["no snapshot", "reinstate capture once"]);
}

const SCHEMA: &str = "\
CREATE TABLE kinds (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE issues (id int PRIMARY KEY, account_id int NOT NULL, kind_id int REFERENCES kinds,
                     title text CHECK (title <> ''));
CREATE TABLE comments (id serial PRIMARY KEY, issue_id int NOT NULL REFERENCES issues, body text);
";
const KINDS: &str = "INSERT INTO kinds VALUES (1, 'bug'), (2, 'wish');";
const ROWS: &str = "\
INSERT INTO issues SELECT n, n % 4, n % 2 + 1, 'i' || n FROM generate_series(1, 40) n;
INSERT INTO comments (issue_id, body) SELECT n % 40 + 1, 'c' || n FROM generate_series(1, 99) n;
";
const TENANCY: &str = "\
[tenancy]
kind = \"account\"
column = \"account_id\"
shared = [\"kinds\"]
[tenancy.table.comments]
via = \"issue_id -> issues.id\"
";

#[test]
fn a_database_is_drilled_in_another_one_with_the_same_tables() {
    let ground = Ground::captured(&format!("{SCHEMA}{KINDS}{ROWS}"), TENANCY);
    let everything = "SELECT (SELECT count(*) FROM issues), (SELECT count(*) FROM comments),
                             (SELECT count(*) FROM kinds)";
    let before = ground.psql(everything);
    let drill = ["drill", "--seed", "3"];
    ground
        .sandbox
        .run(&drill)
        .refused(2, &["another database", "[drill]"]);
    let with = |url: &str| format!("{TENANCY}[drill]\ninto = {url:?}\n");
    ground.configure(&with(&ground.database.url()));
    ground
        .sandbox
        .run(&drill)
        .refused(2, &["the live database itself"]);
    assert_eq!(ground.psql(everything), before);

    let scratch = shared_cluster().unwrap().fresh_database().unwrap();
    scratch.psql(SCHEMA).unwrap();
    ground.configure(&with(&scratch.url()));
    // Without the rows of everybody it is not what an incident would find.
    let run = ground.sandbox.run(&drill);
    assert!(run.code != 0 && run.stdout.contains("kinds"), "{run:?}");
    assert_eq!(scratch.psql(everything).unwrap(), "0|0|0");

    scratch.psql(KINDS).unwrap();
    for _ in 0..2 {
        ground
            .sandbox
            .run(&drill)
            .done(&["the scratch database", "3 of 3 tenants proven"]);
        assert_eq!(scratch.psql(everything).unwrap(), "0|0|2");
    }
    assert_eq!(ground.psql(everything), before);

    // A constraint that the live database has not: a restore would meet it there.
    scratch
        .psql("ALTER TABLE comments ADD CHECK (body NOT LIKE 'c1%')")
        .unwrap();
    let run = ground.sandbox.run(&drill);
    assert!(run.code != 0 && run.stdout.contains("FAILED"), "{run:?}");
    assert_eq!(scratch.psql(everything).unwrap(), "0|0|2");

    // One that took the place of the live database, which was lost, and has no snapshot yet.
    let anew = shared_cluster().unwrap().fresh_database().unwrap();
    anew.psql(&format!("{SCHEMA}{KINDS}")).unwrap();
    let sections = with(&anew.url());
    let path = ground.sandbox.path("reinstate.toml");
    let configuration = fs::read_to_string(&path).unwrap();
    let configuration = configuration.replace(&ground.database.url(), &anew.url());
    fs::write(&path, configuration.replace(&scratch.url(), &anew.url())).unwrap();
    assert!(fs::read_to_string(&path).unwrap().ends_with(&sections));
    ground
        .sandbox
        .run(&drill)
        .refused(2, &["the live database itself"]);
}
