//! Looking without restoring: snapshots, tenants, export, diff, show.

use serde_json::Value;

use crate::sandbox::{ROWS, Sandbox, TENANTS};

#[test]
fn an_export_is_the_tenants_rows_and_nothing_else() {
    let sandbox = Sandbox::captured();
    let synthetic = sandbox.synthetic();
    let export = sandbox.run(&["export", "account:3@latest"]);
    assert_eq!(export.code, 0, "{export:#?}");
    let rows = export.records();
    assert_eq!(rows.len() as u64, synthetic.tenant_row_count(2));
    let project = sandbox
        .run(&["export", "account:3@latest:projects"])
        .records()
        .remove(0);
    assert_eq!(project["table"], "projects");
    assert_eq!(project["row"]["account_id"], "3");
    let id = project["row"]["id"].as_str().unwrap();
    let one = sandbox
        .run(&["export", &format!("account:3@latest:projects/{id}")])
        .records();
    assert_eq!(one, [project]);
    sandbox.destroy(3);
    let live = sandbox.run(&["export", "account:3@live"]);
    live.refused(8, &["account:3 has no row in the live store"]);
    let gone = sandbox.run(&["export", "account:3@latest:projects/no-such-id"]);
    gone.refused(8, &["has no row no-such-id in projects"]);
    sandbox
        .run(&["export", "account:3@latest:nothing"])
        .refused(8, &["there is no table nothing"]);
    sandbox
        .run(&["export", "account:3@latest:plans"])
        .refused(2, &["shared"]);
}

#[test]
fn a_diff_says_what_was_added_changed_and_removed() {
    let sandbox = Sandbox::captured();
    sandbox
        .run(&["diff", "account:3@latest"])
        .done(&["no difference"]);
    sandbox.write_to(3);
    sandbox.edit_issue_of(3);
    let count = |run: &crate::sandbox::Run, what: &str| -> u64 {
        let records = run.records();
        records
            .iter()
            .filter_map(|record| record[what].as_u64())
            .sum()
    };
    let live = sandbox.json(&["diff", "account:3@latest", "live"]);
    assert_eq!(
        (
            count(&live, "added"),
            count(&live, "changed"),
            count(&live, "removed")
        ),
        (1, 1, 0)
    );
    sandbox.run(&["capture", "once"]).done(&[]);
    sandbox.destroy(3);
    sandbox.run(&["capture", "once"]).done(&[]);
    let past = sandbox.json(&["diff", "account:3@latest~2", "account:3@latest~1"]);
    assert_eq!(
        (
            count(&past, "added"),
            count(&past, "changed"),
            count(&past, "removed")
        ),
        (1, 1, 0)
    );
    let gone = sandbox.json(&["diff", "account:3@latest~1", "latest"]);
    let rows = sandbox.synthetic().tenant_row_count(2);
    assert_eq!(count(&gone, "removed"), rows + 1);
    let rows = [
        "diff",
        "account:3@latest~2",
        "latest~1",
        "--rows",
        "--detailed-exitcode",
    ];
    let listed = sandbox.run(&rows);
    assert_eq!(listed.code, 20, "{listed:#?}");
    assert!(
        listed.stdout.contains("~ account:3 issues id="),
        "{listed:#?}"
    );
    assert!(
        !listed.stdout.contains("edited since"),
        "values were not asked for: {listed:#?}"
    );
    let shown = sandbox.run(&[&rows[..4], &["--show-values"]].concat());
    shown.done(&["title=\"edited since\""]);
}

#[test]
fn a_plan_shows_keys_and_values_only_when_asked() {
    let sandbox = Sandbox::planned();
    let show = sandbox.run(&["show", "p", "--rows"]);
    show.done(&["+ account:3 issues id=", "+ account:3 activity (no key)"]);
    assert!(!show.stdout.contains("title="), "{show:#?}");
    sandbox
        .run(&["show", "p", "--rows", "--show-values"])
        .done(&["title="]);
    let records = sandbox.json(&["show", "p", "--rows"]).records();
    let changes: Vec<&Value> = records
        .iter()
        .filter(|record| record["type"] == "change")
        .collect();
    assert_eq!(
        changes.len() as u64,
        sandbox.synthetic().tenant_row_count(2)
    );
    assert!(changes.iter().all(|change| change["after"].is_null()));
    // Neither configuration nor repository is needed to review a plan.
    let elsewhere = Sandbox::empty();
    std::fs::copy(sandbox.path("p"), elsewhere.path("p")).unwrap();
    elsewhere.run(&["show", "p"]).done(&["account:3"]);
}

#[test]
fn snapshots_and_tenants_are_listed_with_ids_that_can_be_pasted_back() {
    let sandbox = Sandbox::captured();
    let snapshot = sandbox.json(&["snapshots"]).record("snapshot");
    assert_eq!(snapshot["tenants"], TENANTS);
    let id = snapshot["id"].as_str().unwrap();
    sandbox.run(&["snapshots", &id[..4]]).done(&[id, "issues"]);
    sandbox
        .run(&["tenants", "--at", &format!("snap:{}", &id[..4])])
        .done(&["6 tenants"]);
    let tenants = sandbox.json(&["tenants"]).records();
    let rows: u64 = tenants
        .iter()
        .filter_map(|tenant| tenant["rows"].as_u64())
        .sum();
    assert_eq!(rows, ROWS);
    for (name, value) in [("taken_at", ""), ("position", "")] {
        let at = snapshot[name].as_str().unwrap();
        assert_ne!(at, value);
        sandbox.run(&["tenants", "--at", at]).done(&["account:1"]);
    }
}

#[test]
fn a_doctor_names_what_is_wrong_with_its_remedy() {
    let sandbox = Sandbox::captured();
    let good = sandbox.run(&["doctor"]);
    good.done(&[
        "ok    repository",
        "ok    store",
        "ok    journal",
        "none unclassified",
    ]);
    std::fs::rename(sandbox.path("app.redb"), sandbox.path("moved.redb")).unwrap();
    let bad = sandbox.run(&["doctor"]);
    bad.refused(2, &["1 of", "checks failed"]);
    assert!(bad.stdout.contains("FAIL  store"), "{bad:#?}");
    assert!(bad.stdout.contains("-> "), "{bad:#?}");
    std::fs::remove_file(sandbox.path("reinstate.toml")).unwrap();
    sandbox.run(&["doctor"]).refused(2, &["checks failed"]);
}

#[test]
fn generated_sql_is_the_same_store() {
    let sandbox = Sandbox::empty();
    let sql = sandbox.run(&["generate", "--sql", "--tenants", "5", "--rows", "500"]);
    sql.done(&[
        "CREATE TABLE issues",
        "COPY issues FROM stdin;",
        "\\.",
        "COMMIT;",
    ]);
    let again = sandbox.run(&["generate", "--sql", "--tenants", "5", "--rows", "500"]);
    assert_eq!(sql.stdout, again.stdout);
}
