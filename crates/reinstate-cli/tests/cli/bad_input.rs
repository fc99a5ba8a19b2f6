//! Bad input: each a clear error with its exit code, and a store that is as it was.

use std::fs;

use reinstate_repository::LocalRepository;

use crate::sandbox::Sandbox;

/// Runs the tool; it must refuse, and the store must not change.
#[track_caller]
fn check(sandbox: &Sandbox, arguments: &[&str], code: i32, says: &[&str]) {
    let before = sandbox.contents();
    sandbox.run(arguments).refused(code, says);
    assert_eq!(sandbox.contents(), before, "the store changed");
    let error = sandbox.json(arguments).record("error");
    assert_eq!(error["exit_code"], code, "{error}");
}

fn plan<'a>(tenant: &'a str, at: &'a str) -> [&'a str; 6] {
    ["plan", tenant, "--at", at, "--out", "unwanted"]
}

#[test]
fn a_tenant_of_another_kind_is_refused() {
    let sandbox = Sandbox::captured();
    let says = ["site:3 is an id of kind \"site\"", "look the right id up"];
    check(&sandbox, &plan("site:3", "latest"), 2, &says);
    check(&sandbox, &plan("3", "latest"), 2, &["expected KIND:ID"]);
    assert!(!sandbox.path("unwanted").exists());
}

#[test]
fn tenants_that_are_not_in_the_snapshot_are_all_named() {
    let sandbox = Sandbox::captured();
    let restore = [
        "restore",
        "account:77",
        "account:3",
        "account:88",
        "--at",
        "latest",
    ];
    check(
        &sandbox,
        &restore,
        8,
        &["has no row of account:77, account:88", "reinstate tenants"],
    );
}

#[test]
fn an_empty_list_of_tenants_is_refused() {
    let sandbox = Sandbox::captured();
    fs::write(sandbox.path("list"), "# nobody\n\n").unwrap();
    let restore = [
        "restore",
        "--tenants-from",
        "list",
        "--at",
        "latest",
        "--yes",
    ];
    check(&sandbox, &restore, 2, &["the list of tenants is empty"]);
    let restore = [
        "restore",
        "--tenants-from",
        "no such list",
        "--at",
        "latest",
        "--yes",
    ];
    check(
        &sandbox,
        &restore,
        2,
        &["read the list of tenants no such list"],
    );
}

#[test]
fn a_tenant_listed_twice_is_refused() {
    let sandbox = Sandbox::captured();
    let restore = [
        "restore",
        "account:3",
        "account:3",
        "--at",
        "latest",
        "--yes",
    ];
    check(&sandbox, &restore, 2, &["account:3 is listed twice"]);
}

/// A sandbox with two snapshots, the time of the first, and a moment after it.
fn captured_twice() -> (Sandbox, [serde_json::Value; 2], String, String) {
    let sandbox = Sandbox::captured();
    sandbox.write_to(2);
    sandbox.run(&["capture", "once"]).done(&[]);
    let snapshots = sandbox.json(&["snapshots"]).records();
    let snapshots = <[_; 2]>::try_from(snapshots).unwrap();
    let first = snapshots[0]["taken_at"].as_str().unwrap().to_owned();
    let time: jiff::Timestamp = first.parse().unwrap();
    let after = (time + jiff::SignedDuration::from_micros(1)).to_string();
    (sandbox, snapshots, first, after)
}

#[test]
fn a_point_that_is_no_snapshot_names_its_neighbours() {
    let (sandbox, snapshots, _, between) = captured_twice();
    let short = |place: usize| &snapshots[place]["id"].as_str().unwrap()[..8];
    let (first, second) = (short(0), short(1));
    let unknown = "no snapshot begins with";
    for (at, code, says) in [
        (between.as_str(), 7, [first, second, "--nearest-before"]),
        (
            "-5h",
            7,
            ["before the first snapshot", "before it: none", first],
        ),
        (
            "2126-01-01T00:00Z",
            7,
            ["lies in the future", "after it: none", second],
        ),
        (
            "commit:99999",
            7,
            ["after the latest snapshot", "no change log", second],
        ),
        (
            "lsn:0/1",
            2,
            ["positions of this store look like commit:"; 3],
        ),
        (
            "2026-04-05T07:38",
            7,
            ["zone", first, "next: --at 2026-04-05T07:38:00.000000Z, if"],
        ),
        (
            "2026-03-29T02:30[Europe/Brussels]",
            7,
            [
                "falls into a gap",
                first,
                "--at 2026-03-29T00:30:00.000000Z or --at 2026-03-29T01:30:00.000000Z",
            ],
        ),
        ("latest~2", 8, ["only 2 snapshots"; 3]),
        ("snap:0000", 8, [unknown; 3]),
    ] {
        check(&sandbox, &plan("account:3", at), code, &says);
    }
}

#[test]
fn the_nearest_snapshot_before_is_taken_only_when_asked_and_with_a_warning() {
    let (sandbox, _, exact, after) = captured_twice();
    sandbox
        .run(&["tenants", "--at", &exact])
        .done(&["account:3"]);
    sandbox
        .run(&["tenants", "--at", &after])
        .refused(7, &["lies between snapshots"]);
    let nearest = sandbox.run(&["tenants", "--at", &after, "--nearest-before"]);
    nearest.done(&["account:3"]);
    assert!(
        nearest.stderr.contains("EARLIER than asked for"),
        "{nearest:#?}"
    );
    let future = ["tenants", "--at", "2126-01-01T00:00Z", "--nearest-before"];
    sandbox.run(&future).refused(7, &["lies in the future"]);
}

#[test]
fn a_plan_that_was_edited_or_cut_short_is_refused() {
    let sandbox = Sandbox::planned();
    let whole = fs::read(sandbox.path("p")).unwrap();
    let before = sandbox.contents();
    for (place, message) in [
        (0, "first"),
        (whole.len() / 2, "middle"),
        (whole.len() - 1, "last"),
    ] {
        let mut edited = whole.clone();
        edited[place] ^= 1;
        fs::write(sandbox.path("edited"), edited).unwrap();
        let apply = sandbox.run(&["apply", "edited", "--yes"]);
        apply.refused(6, &["the plan"]);
        sandbox.run(&["show", "edited"]).refused(6, &["the plan"]);
        assert_eq!(sandbox.contents(), before, "{message} byte");
    }
    for length in [0, 10, whole.len() / 2, whole.len() - 1] {
        fs::write(sandbox.path("cut"), &whole[..length]).unwrap();
        sandbox
            .run(&["apply", "cut", "--yes"])
            .refused(6, &["the plan"]);
        sandbox.run(&["show", "cut"]).refused(6, &["the plan"]);
    }
    assert_eq!(sandbox.contents(), before);
    sandbox
        .run(&["apply", "nothing", "--yes"])
        .refused(2, &["open plan nothing"]);
}

#[test]
fn a_tenant_that_was_written_to_since_makes_the_plan_stale_and_others_do_not() {
    let sandbox = Sandbox::planned();
    sandbox.write_to(3);
    check(
        &sandbox,
        &["apply", "p", "--yes"],
        6,
        &["account:3 is not restored"],
    );
    let sandbox = Sandbox::planned();
    sandbox.write_to(2);
    sandbox
        .run(&["apply", "p", "--yes"])
        .done(&["restored account:3"]);
    // A second time it is verified and nothing is written.
    let after = sandbox.contents();
    sandbox
        .run(&["apply", "p", "--yes"])
        .done(&["restored account:3"]);
    assert_eq!(sandbox.contents(), after);
    sandbox.write_to(3);
    check(
        &sandbox,
        &["apply", "p", "--yes"],
        6,
        &["was applied before", "written to since"],
    );
}

#[test]
fn a_plan_for_another_repository_is_refused() {
    let (sandbox, other) = (Sandbox::planned(), Sandbox::captured());
    fs::copy(sandbox.path("p"), other.path("p")).unwrap();
    check(
        &other,
        &["apply", "p", "--yes"],
        2,
        &["the plan was made for repository"],
    );
}

#[test]
fn without_a_repository_the_exit_is_10() {
    let sandbox = Sandbox::captured();
    fs::rename(
        sandbox.path("reinstate-repository"),
        sandbox.path("elsewhere"),
    )
    .unwrap();
    for verb in [
        &["snapshots"][..],
        &["tenants"],
        &["verify"],
        &["capture", "once"],
    ] {
        check(
            &sandbox,
            verb,
            10,
            &["there is no repository in", "reinstate init"],
        );
    }
    check(
        &sandbox,
        &plan("account:3", "latest"),
        10,
        &["there is no repository"],
    );
}

#[test]
fn a_store_or_repository_that_somebody_holds_is_locked() {
    let sandbox = Sandbox::planned();
    let store = sandbox.store();
    let plan = sandbox.run(&plan("account:3", "latest"));
    plan.refused(11, &["another process has the store"]);
    sandbox.run(&["snapshots"]).done(&[]);
    drop(store);
    let repository = LocalRepository::open(sandbox.path("reinstate-repository")).unwrap();
    let lock = repository.lock("writer", "process 1 (somebody)").unwrap();
    check(&sandbox, &["apply", "p", "--yes"], 11, &["holds it"]);
    check(&sandbox, &["capture", "once"], 11, &["holds it"]);
    sandbox.run(&["tenants"]).done(&["account:3"]);
    drop(lock);
    sandbox.run(&["apply", "p", "--yes"]).done(&[]);
}

#[test]
fn a_store_that_is_not_the_configured_one_is_refused() {
    let sandbox = Sandbox::captured();
    let path = sandbox.path("reinstate.toml");
    let text = fs::read_to_string(&path).unwrap();
    let with = |from: &str, to: &str| fs::write(&path, text.replace(from, to)).unwrap();
    let verb = plan("account:3", "latest");
    with("\"main\"", "\"other\"");
    check(&sandbox, &verb, 2, &["the store is \"main\""]);
    with("\"account\"", "\"site\"");
    check(
        &sandbox,
        &verb,
        2,
        &["tenants of the store are of kind \"account\""],
    );
    with("app.redb", "gone.redb");
    check(&sandbox, &verb, 2, &["there is no store"]);
    with("path =", "paths =");
    check(&sandbox, &verb, 2, &["unknown field", "paths"]);
    fs::remove_file(&path).unwrap();
    check(
        &sandbox,
        &verb,
        2,
        &["read configuration reinstate.toml", "reinstate init"],
    );
}

#[test]
fn an_existing_file_is_never_overwritten() {
    let sandbox = Sandbox::planned();
    let plan_file = fs::read(sandbox.path("p")).unwrap();
    let again = ["plan", "account:2", "--at", "latest", "--out", "p"];
    check(&sandbox, &again, 2, &["save the plan to p", "--out"]);
    assert_eq!(fs::read(sandbox.path("p")).unwrap(), plan_file);
    check(
        &sandbox,
        &["generate", "--into", "app.redb"],
        2,
        &["exists"],
    );
    check(
        &sandbox,
        &["init", "--embedded", "app.redb"],
        2,
        &["there is a configuration already"],
    );
}

#[test]
fn an_unknown_job_names_the_known_ones() {
    let sandbox = Sandbox::planned();
    check(
        &sandbox,
        &["undo", "abcd"],
        8,
        &["no job begins with", "there are no jobs yet"],
    );
    check(&sandbox, &["undo", "ab"], 2, &["at least 4 digits"]);
    check(
        &sandbox,
        &["verify", "0000"],
        8,
        &["no snapshot and no job"],
    );
}

#[test]
fn too_little_memory_and_a_missing_spill_directory_are_refused() {
    let sandbox = Sandbox::captured();
    check(
        &sandbox,
        &["capture", "once", "--memory", "1MiB"],
        2,
        &["at least 64MiB"],
    );
    check(
        &sandbox,
        &["capture", "once", "--spill-dir", "gone"],
        2,
        &["no such directory"],
    );
}
