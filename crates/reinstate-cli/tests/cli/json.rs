//! `--json`: standard output is JSON lines and nothing else, usage errors included.

use crate::sandbox::Sandbox;

#[test]
fn usage_errors_are_records_too() {
    let sandbox = Sandbox::empty();
    for arguments in [
        &["plan", "--json"][..],
        &["--json"],
        &["nonsense", "--json"],
        &["--json", "capture", "once", "--level", "99"],
    ] {
        let run = sandbox.run(arguments);
        assert_eq!(run.code, 2, "{run:#?}");
        let error = run.record("error");
        assert_eq!(error["exit_code"], 2);
        assert_eq!(error["kind"], "usage");
        assert!(!error["message"].as_str().unwrap().is_empty());
        assert!(error["causes"].is_array());
        assert!(!error["next"].as_str().unwrap().is_empty());
    }
}

#[test]
fn every_verb_speaks_json() {
    let sandbox = Sandbox::captured();
    let captured = sandbox.json(&["capture", "once"]);
    assert_eq!(captured.record("snapshot")["store"], "main");
    sandbox.destroy(3);
    let plan = sandbox.json(&["plan", "account:3", "--at", "latest", "--out", "p"]);
    let record = plan.record("plan");
    let rows = sandbox.synthetic().tenant_row_count(2);
    assert_eq!(record["create"], rows);
    assert_eq!(plan.record("target")["asked"], "latest");
    let read = plan.record("cost")["bytes_read"].as_u64().unwrap();
    assert!(read > 0);
    let apply = sandbox.json(&["apply", "p", "--yes"]);
    assert_eq!(apply.record("outcome")["verdict"], "restored");
    assert_eq!(apply.record("summary")["rows_changed"], rows);
    assert_eq!(sandbox.json(&["verify"]).records().len(), 2);
    assert!(sandbox.json(&["doctor"]).records().len() > 8);
    assert_eq!(
        sandbox.json(&["init"]).record("initialised")["repository_made"],
        false
    );
}

#[test]
fn the_schema_of_an_error_is_the_documented_one() {
    let sandbox = Sandbox::captured();
    let error = sandbox
        .json(&["tenants", "--at", "snap:0000"])
        .record("error");
    let mut keys: Vec<_> = error
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        ["causes", "exit_code", "kind", "message", "next", "type"]
    );
    assert_eq!(error["kind"], "not_found");
}
