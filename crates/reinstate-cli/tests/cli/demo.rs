//! The demo, small.

use crate::sandbox::Sandbox;

#[test]
fn the_demo_proves_what_it_says() {
    let sandbox = Sandbox::empty();
    let small = [
        "demo",
        "--tenants",
        "20",
        "--restore",
        "5",
        "--rows",
        "20000",
    ];
    let demo = sandbox.json(&small);
    assert_eq!(demo.code, 0, "{demo:#?}");
    let record = demo.record("demo");
    assert_eq!(record["proven"], true);
    assert_eq!(record["tenants_restored"], 5);
    assert!(
        record["writes_during_restore"].as_u64().unwrap() > 0,
        "{record}"
    );
    assert_eq!(
        std::fs::read_dir(sandbox.path("")).unwrap().count(),
        0,
        "left something behind"
    );
}

#[test]
fn a_kept_demo_can_be_looked_at_with_the_other_verbs() {
    let sandbox = Sandbox::empty();
    let kept = [
        "demo",
        "--tenants",
        "10",
        "--restore",
        "3",
        "--rows",
        "2000",
        "--keep",
        "kept",
    ];
    sandbox.run(&kept).done(&["PROVEN", "kept in kept"]);
    let run = |arguments: &[&str]| {
        let mut command = sandbox.command();
        crate::sandbox::outcome(command.current_dir(sandbox.path("kept")).args(arguments))
    };
    run(&["snapshots"]).done(&["demo"]);
    run(&["doctor"]).done(&["ok    store"]);
    run(&["verify"]).done(&["intact"]);
    sandbox.run(&kept).refused(2, &["--keep kept"]);
}

#[test]
fn a_demo_that_leaves_nobody_to_write_is_refused() {
    let sandbox = Sandbox::empty();
    let all = ["demo", "--tenants", "20", "--restore", "20"];
    sandbox.run(&all).refused(2, &["--restore 20"]);
    sandbox
        .run(&["demo", "--tenants", "20", "--restore", "2", "--rows", "30"])
        .refused(2, &["--rows"]);
}
