//! Nothing is written that nobody agreed to.

use crate::sandbox::Sandbox;

#[test]
fn without_a_terminal_and_without_a_flag_nothing_is_written() {
    let sandbox = Sandbox::planned();
    let before = sandbox.contents();
    let apply = sandbox.run(&["apply", "p"]);
    apply.refused(
        2,
        &["no terminal", "Nothing was written", "--confirm-digest b3:"],
    );
    let restore = sandbox.run(&["restore", "account:3", "--at", "latest"]);
    restore.refused(2, &["no terminal", "Nothing was written"]);
    assert_eq!(sandbox.contents(), before);
}

#[test]
fn yes_is_not_enough_to_delete_rows_or_for_several_tenants() {
    let sandbox = Sandbox::captured();
    sandbox.write_to(2);
    let before = sandbox.contents();
    let delete = ["restore", "account:2", "--at", "latest", "--yes"];
    sandbox.run(&delete).refused(
        2,
        &[
            "deletes 1 row",
            "--yes is not enough",
            "--confirm account:2",
        ],
    );
    sandbox.destroy(3);
    let several = [
        "restore",
        "account:3",
        "account:4",
        "--at",
        "latest",
        "--yes",
    ];
    let between = sandbox.contents();
    sandbox.run(&several).refused(2, &["is for 2 tenants"]);
    assert_eq!(sandbox.contents(), between);
    assert_ne!(before, between);
}

#[test]
fn approval_of_another_plan_or_tenant_is_not_approval() {
    let sandbox = Sandbox::planned();
    let before = sandbox.contents();
    let digest = "b3:000000000000";
    let apply = sandbox.run(&["apply", "p", "--confirm-digest", digest]);
    apply.refused(6, &["the plan's digest is b3:", digest]);
    let apply = sandbox.run(&["apply", "p", "--confirm", "account:4"]);
    apply.refused(6, &["the plan is for account:3, not account:4"]);
    sandbox
        .run(&["apply", "p", "--confirm-digest", "b3:00"])
        .refused(2, &["at least 12"]);
    assert_eq!(sandbox.contents(), before);
}
