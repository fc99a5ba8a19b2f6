//! `guard`: installed, shown, made use of, removed; and the role of least privilege from the
//! printed statements.

use std::fs;

use reinstate_testkit::cluster::{TestDatabase, shared_cluster};

use crate::sandbox::{Run, Sandbox};

fn configure(sandbox: &Sandbox, url: &str) {
    let text = format!(
        "version = 1\n[repository]\nurl = \"file:repository\"\n[store]\nname = \"main\"\n\
         kind = \"postgres\"\nurl = {url:?}\n[tenancy]\nkind = \"account\"\ncolumn = \"account_id\"\n"
    );
    fs::write(sandbox.path("reinstate.toml"), text).unwrap();
}

pub fn captured() -> (Sandbox, TestDatabase<'static>) {
    let database = shared_cluster().unwrap().fresh_database().unwrap();
    database
        .psql(
            "CREATE TABLE notes (id serial PRIMARY KEY, account_id int NOT NULL, body text);
             INSERT INTO notes (account_id, body) SELECT n % 3, 'n' || n FROM generate_series(1, 30) n",
        )
        .unwrap();
    let sandbox = Sandbox::empty();
    configure(&sandbox, &database.url());
    sandbox.run(&["init"]).done(&[]);
    sandbox.run(&["capture", "once"]).done(&[]);
    (sandbox, database)
}

pub fn restore(sandbox: &Sandbox) -> Run {
    let what = ["restore", "account:1", "--at", "latest", "--nearest-before"];
    sandbox.run(&[&what[..], &["--confirm", "account:1"]].concat())
}

#[test]
fn a_restore_waits_for_a_guard_and_says_how_to_get_one() {
    let (sandbox, database) = captured();
    database
        .psql("DELETE FROM notes WHERE account_id = 1")
        .unwrap();
    let refused = restore(&sandbox);
    let remedies = [
        "reinstate guard install",
        "reinstate guard role",
        "unguarded = true",
    ];
    assert_ne!(refused.code, 0);
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(
        remedies.iter().all(|remedy| said.contains(remedy)),
        "{refused:?}"
    );
    sandbox
        .run(&["doctor"])
        .done(&["warn  guard", "-> reinstate guard install"]);
    sandbox.run(&["guard", "install"]).done(&["notes", "armed"]);
    let status = sandbox.json(&["guard", "status"]).record("guard");
    assert_eq!(status["triggers"], "armed");
    sandbox.run(&["doctor"]).done(&["ok    guard"]);
    restore(&sandbox).done(&["restored"]);
    assert_eq!(status["fence"], "none");
    sandbox
        .run(&["guard", "install", "--fence"])
        .done(&["armed"]);
    let status = sandbox.json(&["guard", "status"]).record("guard");
    assert_eq!(status["fence"], "armed");
    database
        .psql("DELETE FROM notes WHERE account_id = 1")
        .unwrap();
    restore(&sandbox).done(&["restored"]);
    sandbox
        .run(&["guard", "remove"])
        .done(&["1 table is no longer guarded"]);
    assert_eq!(
        database
            .psql("SELECT count(*) FROM notes WHERE account_id = 1")
            .unwrap(),
        "10"
    );
}

#[test]
fn a_role_made_of_the_printed_statements_captures_and_restores() {
    let (sandbox, database) = captured();
    let role = format!("printed_{}", database.name());
    database.psql(&format!("CREATE ROLE {role} LOGIN")).unwrap();
    let printed = sandbox.run(&["guard", "role", &role]);
    database.psql(&printed.stdout).unwrap();
    configure(&sandbox, &format!("{}&user={role}", database.url()));
    sandbox
        .run(&["doctor"])
        .done(&["ok    guard", "every row can be seen"]);
    sandbox.run(&["capture", "once"]).done(&[]);
    database
        .psql("DELETE FROM notes WHERE account_id = 1")
        .unwrap();
    restore(&sandbox).done(&["restored"]);
    assert_eq!(
        database
            .psql("SELECT count(*) FROM notes WHERE account_id = 1")
            .unwrap(),
        "10"
    );
}

#[test]
fn an_embedded_store_needs_none() {
    let sandbox = Sandbox::captured();
    sandbox
        .run(&["guard", "status"])
        .refused(2, &["an embedded store guards itself"]);
}
