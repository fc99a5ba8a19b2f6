//! The main job: a tenant is brought back, proven, and can be taken away again.

use crate::sandbox::Sandbox;

#[test]
fn a_destroyed_tenant_is_brought_back_and_nobody_else_is_touched() {
    let sandbox = Sandbox::captured();
    let before = sandbox.contents_of(3);
    sandbox.destroy(3);
    sandbox.write_to(2);
    let others = sandbox.contents_but(3);
    assert_eq!(sandbox.contents_of(3), []);
    let restore = [
        "restore",
        "account:3",
        "--at",
        "latest",
        "--yes",
        "--prove-isolation",
    ];
    sandbox
        .run(&restore)
        .done(&["restored account:3", "1 of 1 tenant restored", "isolation"]);
    assert_eq!(sandbox.contents_of(3), before);
    assert_eq!(sandbox.contents_but(3), others);
}

#[test]
fn a_second_run_changes_nothing_and_needs_no_approval() {
    let sandbox = Sandbox::captured();
    sandbox.destroy(3);
    let restore = ["restore", "account:3", "--at", "latest"];
    sandbox.run(&[&restore[..], &["--yes"]].concat()).done(&[]);
    let after = sandbox.contents();
    sandbox
        .run(&restore)
        .done(&["no change", "nothing to change", "restored account:3"]);
    assert_eq!(sandbox.contents(), after);
}

#[test]
fn a_plan_is_reviewed_approved_by_its_digest_and_applied() {
    let sandbox = Sandbox::captured();
    let before = sandbox.contents();
    let plan = [
        "plan",
        "account:2",
        "account:3",
        "--at",
        "latest",
        "--out",
        "p",
    ];
    sandbox.destroy(3);
    sandbox.write_to(2);
    let digest = sandbox.json(&plan).record("plan")["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    sandbox
        .run(&["show", "p"])
        .done(&["account:2", "account:3", &digest]);
    let apply = ["apply", "p", "--confirm-digest", &digest[..15]];
    sandbox.run(&apply).done(&["2 of 2 tenants restored"]);
    assert_eq!(sandbox.contents().1, before.1);
}

#[test]
fn an_undo_takes_the_restore_back_and_can_be_undone_itself() {
    let sandbox = Sandbox::captured();
    sandbox.destroy(3);
    let destroyed = sandbox.contents().1;
    let restore = sandbox.json(&["restore", "account:3", "--at", "latest", "--yes"]);
    let restored = sandbox.contents().1;
    let job = restore.record("summary")["job"]
        .as_str()
        .unwrap()
        .to_owned();
    sandbox
        .run(&["verify", &job[..6]])
        .done(&["as left account:3"]);
    let undo = sandbox.json(&["undo", &job[..6], "--confirm", "account:3"]);
    assert_eq!(undo.code, 0, "{undo:#?}");
    assert_eq!(sandbox.contents().1, destroyed);
    let job = undo.record("summary")["job"].as_str().unwrap().to_owned();
    sandbox
        .run(&["undo", &job, "--yes"])
        .done(&["undone account:3"]);
    assert_eq!(sandbox.contents().1, restored);
}

#[test]
fn an_undo_leaves_rows_that_were_edited_since_unless_told_otherwise() {
    let sandbox = Sandbox::captured();
    sandbox.destroy(3);
    let restore = sandbox.json(&["restore", "account:3", "--at", "latest", "--yes"]);
    let job = restore.record("summary")["job"]
        .as_str()
        .unwrap()
        .to_owned();
    sandbox.edit_issue_of(3);
    let edited = sandbox.contents();
    let undo = ["undo", &job, "--confirm", "account:3"];
    sandbox
        .run(&undo)
        .refused(5, &["1 conflict", "Nothing was written"]);
    assert_eq!(sandbox.contents(), edited);
    let keep = sandbox.run(&[&undo[..], &["--on-conflict", "keep-live"]].concat());
    keep.refused(4, &["account:3 is not proven to be undone"]);
    let left: u64 = sandbox
        .contents_of(3)
        .iter()
        .map(|(_, content)| content.row_count())
        .sum();
    assert_eq!(left, 1);
}

#[test]
fn switches_leave_rows_as_they_are() {
    let sandbox = Sandbox::captured();
    let before = sandbox.contents_of(3);
    sandbox.write_to(3);
    sandbox.edit_issue_of(3);
    let live = sandbox.contents_of(3);
    let restore = [
        "restore",
        "account:3",
        "--at",
        "latest",
        "--yes",
        "--delete",
        "off",
    ];
    let kept = [&restore[..], &["--put-back", "off"]].concat();
    sandbox.run(&kept).done(&["kept as is"]);
    assert_eq!(sandbox.contents_of(3), live);
    sandbox
        .run(&restore)
        .done(&["1 to put back", "0 to delete"]);
    let confirm = [
        "restore",
        "account:3",
        "--at",
        "latest",
        "--confirm",
        "account:3",
    ];
    sandbox.run(&confirm).done(&["1 to delete"]);
    assert_eq!(sandbox.contents_of(3), before);
}

#[test]
fn tenants_are_read_from_a_list() {
    let sandbox = Sandbox::captured();
    let before = sandbox.contents().1;
    sandbox.destroy(3);
    sandbox.destroy(5);
    std::fs::write(
        sandbox.path("list"),
        "# wrongly deleted\naccount:3\n\n  account:5\n",
    )
    .unwrap();
    let plan = [
        "plan",
        "--tenants-from",
        "list",
        "--at",
        "latest",
        "--out",
        "p",
    ];
    let digest = sandbox.json(&plan).record("plan")["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    sandbox
        .run(&["apply", "p", "--confirm-digest", &digest])
        .done(&["2 of 2 tenants restored"]);
    assert_eq!(sandbox.contents().1, before);
}

#[test]
fn a_plan_that_was_cut_short_goes_on_where_it_stopped() {
    // The first run restored account:3 alone: as after a crash between two tenants, the journal
    // has one of the plan's two. The same command must finish the other and verify the first.
    let sandbox = Sandbox::captured();
    let before = sandbox.contents().1;
    sandbox.destroy(3);
    sandbox.destroy(5);
    let plan = [
        "plan",
        "account:3",
        "account:5",
        "--at",
        "latest",
        "--out",
        "p",
    ];
    let digest = sandbox.json(&plan).record("plan")["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let apply = ["apply", "p", "--confirm-digest", &digest];
    sandbox.write_to(5);
    sandbox
        .run(&apply)
        .refused(3, &["1 of 2 tenants are not restored"]);
    sandbox.destroy(5);
    // The tenant was written to in between, so that its part of the plan stays stale ...
    sandbox
        .run(&apply)
        .refused(3, &["1 of 2 tenants are not restored"]);
    // ... and a new plan does the rest.
    let restore = ["restore", "account:3", "account:5", "--at", "latest"];
    let rest = sandbox.run(&[&restore[..1], &restore[2..], &["--yes"]].concat());
    rest.done(&["restored account:5"]);
    assert_eq!(sandbox.contents().1, before);
}

#[test]
fn a_restore_can_be_told_how_fast_it_may_write() {
    let sandbox = Sandbox::captured();
    sandbox.destroy(3);
    let restore = ["restore", "account:3", "--at", "latest", "--yes"];
    let limits = ["--rows-per-second", "1000000", "--latency-max", "30s"];
    let run = sandbox.json(&[&restore[..], &limits].concat());
    assert_eq!(run.code, 0, "{run:?}");
    let (pace, summary) = (run.record("pace"), run.record("summary"));
    assert_eq!(pace["rows"], summary["rows_changed"]);
    assert!(pace["probes"].as_u64().unwrap() > 0, "{pace}");
    assert!(pace["latency_max_seconds"].as_f64().unwrap() > 0.0);
    let wrong = [
        "--latency-max=0ms",
        "--latency-max=-3ms",
        "--latency-max=soon",
        "--latency-max=3",
        "--rows-per-second=0",
    ];
    for limit in wrong {
        let run = sandbox.run(&[&restore[..], &[limit]].concat());
        let option = limit.split('=').next().unwrap();
        assert!(run.code == 2 && run.stderr.contains(option), "{run:?}");
    }
}
