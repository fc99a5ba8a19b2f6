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
    let demo = sandbox.json(&[&small[..], &["--out", "report.html"]].concat());
    assert_eq!(demo.code, 0, "{demo:#?}");
    let record = demo.record("demo");
    assert_eq!(record["proven"], true);
    assert_eq!(record["tenants_restored"], 5);
    let campaign = demo.record("campaign");
    assert_eq!(campaign["states"]["handed_back"], 5, "{campaign}");
    assert_eq!(record["rows_restored"], campaign["rows_planned"]);
    let stores: Vec<_> = demo
        .records()
        .into_iter()
        .filter(|step| step["name"] == "build")
        .collect();
    assert_eq!(stores.len(), 3);
    assert!(record["peak_memory_bytes"].as_u64() <= record["memory_bytes_max"].as_u64());
    assert!(
        record["writes_during_restore"].as_u64().unwrap() > 0,
        "{record}"
    );
    let report = std::fs::read_to_string(sandbox.path("report.html")).unwrap();
    assert!(report.contains("5 of 5 sites are handed back"), "{report}");
    assert_eq!(
        std::fs::read_dir(sandbox.path("")).unwrap().count(),
        1,
        "left something behind beside the report"
    );
    sandbox
        .run(&[&small[..], &["--out", "report.html"]].concat())
        .refused(2, &["--out report.html"]);
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
    let demo = sandbox.run(&kept);
    demo.done(&["PROVEN", "kept in kept", "$ reinstate campaign run"]);
    let run = |arguments: &[&str]| {
        let mut command = sandbox.command();
        crate::sandbox::outcome(command.current_dir(sandbox.path("kept")).args(arguments))
    };
    for store in ["metadata", "content", "ecosystem"] {
        let configuration = format!("{store}/reinstate.toml");
        let of = |verb| run(&["--config", &configuration, verb]);
        of("snapshots").done(&[store]);
        of("doctor").done(&["ok    store"]);
        of("verify").done(&["intact"]);
    }
    run(&["campaign", "status"]).done(&["3 handed back"]);
    // What it says at its end works: the site that is gone has ids of its own in each store.
    let says = demo
        .stdout
        .lines()
        .find(|line| line.starts_with("  reinstate campaign plan"));
    let words: Vec<_> = says.unwrap().split_whitespace().skip(1).collect();
    run(&words).done(&["1 site in 3 stores"]);
    let report = std::fs::read_to_string(sandbox.path("kept/report.html")).unwrap();
    assert!(report.contains("account:c-"), "{report}");
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
