//! What keeps a copy from being made: nothing is written then.

use std::fs;

use serde_json::Value;

use super::{INTO, TENANCY, assert_same, captured, copy, counts, others};

#[test]
fn an_id_under_which_somebody_has_rows_is_refused_also_for_a_second_run() {
    let ground = captured();
    let before = others(&ground);
    let taken = [
        "account:8 has rows in accounts already",
        "Nothing was written",
    ];
    copy(&ground, &["--into", "side:8"]).refused(5, &taken);
    copy(&ground, &["--into", "side:7"]).refused(2, &["cannot be copied into itself"]);
    copy(&ground, &["--into", "side:abc"]).refused(2, &["cannot be the id of a copy"]);
    copy(&ground, &["--into", "side:009"]).refused(2, &["cannot be the id of a copy"]);
    copy(&ground, &["--into", "9007"]).refused(2, &["expected side:NEWID"]);
    let live = ["--into", "live", "--remap-out", "keys"];
    copy(&ground, &live).refused(2, &["--remap-out goes with --into side:NEWID"]);
    copy(&ground, &["--into", "site:9007"]).refused(2, &["expected side:NEWID"]);
    copy(&ground, &["account:8", "--into", "side:9007"]).refused(2, &["one tenant"]);
    let site = [
        "restore",
        "site:7",
        "--at",
        "latest",
        "--into",
        "side:9007",
        "--yes",
    ];
    ground.sandbox.run(&site).refused(2, &["kind"]);
    ground.psql("INSERT INTO visits VALUES (9007, NULL, 'early')");
    let early = ["account:9007 has rows in visits already"];
    copy(&ground, &["--into", "side:9007"]).refused(5, &early);
    ground.psql("DELETE FROM visits WHERE account_id = 9007");
    assert_same(&others(&ground), &before);
    copy(&ground, &["--into", "side:9007"]).done(&["created account:9007"]);
    let again = ["account:9007 has rows in accounts already"];
    copy(&ground, &["--into", "side:9007"]).refused(5, &again);
    // Of one snapshot there may be several copies.
    let second = INTO.replace("copy.", "second.");
    ground.configure(&format!("{TENANCY}{second}"));
    copy(&ground, &["--into", "side:9008", "--remap-out", "keys"]).done(&["created account:9008"]);
    assert_eq!(counts(&ground, 9008), counts(&ground, 7));
    assert!(ground.sandbox.path("keys").exists());
    let there = ["--into", "side:9009", "--remap-out", "keys"];
    copy(&ground, &there).refused(2, &["keys"]);
}

#[test]
fn what_only_people_can_decide_is_named_all_at_once() {
    let ground = captured();
    let before = others(&ground);
    ground.configure(TENANCY);
    let into = ["--into", "side:9007"];
    let says = [
        "nothing was written",
        "[into.table.\"accounts\"]   # accounts_slug_key\n",
        "columns = { slug = \"prefix\" or \"suffix\" or \"new\" or \"keep\" }",
        "[into.table.\"codes\"]   # codes_span_excl\ncolumns = { span = \"null\" or \"keep\" }\n",
        "[into.table.\"users\"]   # users_email\n",
        "columns = { email = \"prefix\" or \"suffix\" or \"new\" or \"null\" or \"keep\" }",
    ];
    copy(&ground, &into).refused(1, &says);
    for (rules, code, says) in [
        (
            "[into.table.accounts]\ncolumns = { slug = \"null\" }\n",
            2,
            "slug may not be NULL",
        ),
        (
            "[into.table.accounts]\ncolumns = { id = \"new\" }\n",
            2,
            "id holds the tenant's id",
        ),
        (
            "[into.table.tasks]\ncolumns = { project_id = \"keep\" }\n",
            2,
            "project_id is a reference",
        ),
        (
            "[into.table.tasks]\ncolumns = { id = \"prefix\" }\n",
            2,
            "id is no text",
        ),
        (
            "[into.table.events]\ncolumns = { payload = \"new\" }\n",
            2,
            "no whole number, uuid, text or bytes",
        ),
        (
            "[into]\nleft_out = [\"labels\"]\n",
            2,
            "labels is left out, and task_labels.label_id refers to it",
        ),
        (
            "[into]\ncolumns = { slug = \"null\" }\n",
            2,
            "slug may not be NULL",
        ),
        (
            "[into]\ncolumns = { slug = \"suffix\", id = \"null\" }\n",
            1,
            "[into.table.\"users\"]",
        ),
        ("[into.table.nothing]\n", 2, "there is no table nothing"),
        (
            "[into.table.tasks]\nreferences = [\"nothing -> tasks.id\"]\n",
            2,
            "no column nothing",
        ),
        (
            "[into.table.tasks]\njson = { number = [\"$ -> tasks.id\"] }\n",
            2,
            "number has to hold JSON",
        ),
        (
            "[into.table.events]\njson = { payload = [\"a -> tasks.id\"] }\n",
            2,
            "$.path",
        ),
        (
            "[into.table.accounts]\ncolumns = { slug = \"suffix\" }\n[into.table.codes]\ncolumns = { span = \"null\" }\n[into.table.users]\n\
             columns = { email = { prefix = \"a-text-that-is-far-too-long-for-the-column-\" } }\n",
            1,
            "email holds a text that would be too long",
        ),
        (
            "[into.table.accounts]\ncolumns = { slug = \"keep\" }\n[into.table.codes]\ncolumns = { span = \"null\" }\n[into.table.users]\n\
             columns = { email = \"null\" }\n",
            5,
            "1 conflict",
        ),
    ] {
        ground.configure(&format!("{TENANCY}{rules}"));
        copy(&ground, &into).refused(code, &[says]);
    }
    assert_same(&others(&ground), &before);
    assert!(
        counts(&ground, 9007)
            .lines()
            .all(|line| line.ends_with("|0"))
    );
}

#[test]
fn numbers_for_which_there_is_no_room_are_refused_by_name() {
    let ground = captured();
    ground.psql("SELECT setval('tasks_id_seq', 2147483600)");
    let before = others(&ground);
    let says = [
        "tasks.id (from ",
        "2147483647 is the greatest possible",
        "Nothing was written",
    ];
    copy(&ground, &["--into", "side:9007"]).refused(1, &says);
    assert_same(&others(&ground), &before);
    ground.psql("SELECT setval('tasks_id_seq', 2147480000)");
    copy(&ground, &["--into", "side:9007"]).done(&["created account:9007"]);
}

#[test]
fn rows_of_nobody_that_would_become_the_copys_are_refused() {
    let ground = captured();
    let plan = |file: &'static str| {
        let what = [
            "plan",
            "account:7",
            "--at",
            "latest",
            "--into",
            "side:9007",
            "--out",
            file,
        ];
        ground.sandbox.run(&what)
    };
    plan("p").done(&[]);
    let remap = fs::read_to_string(ground.sandbox.path("p.remap")).unwrap();
    let mut keys = remap
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let key = keys.find(|line| line["table"] == "projects").unwrap();
    let new = key["new"]["id"].as_str().unwrap();
    ground.psql(&format!(
        "INSERT INTO comments (subject_type, subject_id) VALUES ('Project', {new})"
    ));
    let says = ["rows of comments that belong to nobody would become those of 9007"];
    plan("q").refused(5, &says);
    for file in ["q", "q.remap"] {
        assert!(!ground.sandbox.path(file).exists(), "{file}");
    }
}

/// Both plans know the same free numbers. The first copy takes them; the second finds them taken, and
/// writes nothing.
#[test]
fn of_two_copies_planned_from_one_state_the_second_has_to_be_planned_again() {
    let ground = captured();
    let plan = |id: &str, out: &str| {
        let into = format!("side:{id}");
        let what = ["plan", "account:7", "--at", "latest", "--nearest-before"];
        ground
            .sandbox
            .run(&[&what[..], &["--into", &into, "--out", out]].concat())
            .done(&["total"]);
    };
    plan("9007", "first");
    let second = INTO.replace("copy.", "second.");
    ground.configure(&format!("{TENANCY}{second}"));
    plan("9008", "second");
    let apply = |plan: &str| ground.sandbox.run(&["apply", plan, "--yes"]);
    apply("first").done(&["created account:9007"]);
    let before = others(&ground);
    apply("second").refused(5, &["account:9008 is not created", "make a new plan"]);
    assert_same(&others(&ground), &before);
    assert_eq!(
        ground.psql("SELECT count(*) FROM accounts WHERE id = 9008"),
        "0"
    );
    plan("9008", "again");
    apply("again").done(&["created account:9008"]);
    assert_eq!(counts(&ground, 9008), counts(&ground, 9007));
}
