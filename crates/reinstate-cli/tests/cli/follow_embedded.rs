//! Following a store of the embedded database.

use crate::sandbox::Sandbox;

#[test]
fn a_tenant_goes_back_to_a_commit_that_no_snapshot_has() {
    let sandbox = Sandbox::captured();
    sandbox
        .run(&["capture", "follow", "--once"])
        .done(&["captured"]);
    sandbox.write_to(3);
    let expected = sandbox.contents_of(3);
    let others = sandbox.contents_but(3);
    let status = sandbox.json(&["capture", "follow", "--once"]).records();
    let run = status
        .iter()
        .rfind(|record| record["type"] == "log_run")
        .unwrap();
    let position = run["through"].as_str().unwrap().to_owned();
    sandbox.destroy(3);
    sandbox
        .run(&["capture", "follow", "--once"])
        .done(&["sealed"]);
    let restored = sandbox.run(&[
        "restore",
        "account:3",
        "--at",
        &position,
        "--confirm",
        "account:3",
    ]);
    restored.done(&["restored"]);
    assert_eq!(sandbox.contents_of(3), expected);
    assert_eq!(sandbox.contents_but(3), others);
    sandbox.run(&["window", "account:3"]).done(&["snapshot"]);
    sandbox.run(&["verify"]).done(&["of its log"]);
}
