//! Following a store of the embedded database.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

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

#[test]
fn who_was_there_at_a_commit_is_listed_and_shown_as_of_that_commit() {
    let sandbox = Sandbox::captured();
    let follow = || {
        let sealed = sandbox.json(&["capture", "follow", "--once"]).records();
        let run = sealed.iter().rfind(|record| record["type"] == "log_run");
        run.map(|run| run["through"].as_str().unwrap().to_owned())
    };
    let tenants = |at: &[&str]| {
        let listed = sandbox.json(&[&["tenants", "--at"], at].concat()).records();
        let rows = listed.iter().filter(|record| record["type"] == "tenant");
        rows.map(|record| {
            (
                record["tenant"].to_string(),
                record["rows"].as_u64().unwrap(),
            )
        })
        .collect::<std::collections::BTreeMap<_, _>>()
    };
    let export = |at: &str| sandbox.run(&["export", &format!("account:3@{at}")]).stdout;
    follow();
    let (base, snapshot) = (tenants(&["latest"]), export("latest"));
    sandbox.write_to(3);
    let written = follow().unwrap();
    sandbox.destroy(3);
    let destroyed = follow().unwrap();
    let three = "\"account:3\"";
    let mut expected = base.clone();
    *expected.get_mut(three).unwrap() += 1;
    assert_eq!(tenants(&[&written]), expected);
    assert_eq!(
        export(&written).lines().count(),
        snapshot.lines().count() + 1
    );
    expected.remove(three);
    assert_eq!(tenants(&[&destroyed]), expected);
    expected.clone_from(&base);
    *expected.get_mut(three).unwrap() += 1;
    let diff = sandbox.json(&["diff", &format!("account:3@{written}"), "live"]);
    let position = diff.record("transaction")["position"].clone();
    let position = position.as_str().unwrap();
    assert_eq!(tenants(&[position, "--exclusive"]), expected);
    let export = sandbox.run(&["export", &format!("account:3@{destroyed}")]);
    export.refused(8, &["no row of account:3"]);
    sandbox
        .run(&["tenants", "--at", &destroyed])
        .done(&["account:4", "tenants"]);
}

/// A store of which tenant 3 was destroyed by one transaction, followed; then the tenant went on
/// working: it wrote an issue again. Returns the position of the incident.
fn destroyed_and_used() -> (Sandbox, String) {
    let sandbox = Sandbox::captured();
    let follow = || sandbox.run(&["capture", "follow", "--once"]).done(&[]);
    follow();
    sandbox.destroy(3);
    follow();
    let diff = sandbox.json(&["diff", "account:3@latest", "live"]);
    let position = diff.record("transaction")["position"]
        .as_str()
        .map(str::to_owned);
    sandbox.edit_issue_of(3);
    follow();
    (sandbox, position.unwrap())
}

#[test]
fn a_plan_names_the_transactions_that_made_the_differences() {
    let (sandbox, position) = destroyed_and_used();
    let plan = sandbox.json(&["plan", "account:3", "--at", "latest", "--out", "p"]);
    let records = plan.records();
    let notes: Vec<_> = records
        .iter()
        .filter(|record| record["kind"] == "changed_by")
        .collect();
    assert_eq!(notes.len(), 2, "{plan:#?}");
    assert_eq!(notes[0]["object"], position.as_str());
    let plan = plan.record("plan");
    assert_eq!(notes[0]["rows"], plan["create"]);
    // Row by row, from the file alone.
    let rows = sandbox.json(&["show", "p", "--rows"]).records();
    let rows: Vec<_> = rows
        .iter()
        .filter(|record| record["type"] == "change")
        .collect();
    for row in &rows {
        let is_created = row["change"] == "create";
        assert_eq!(row["position"] == position.as_str(), is_created, "{row}");
        assert!(row["time"].is_string(), "{row}");
    }
    assert!(rows.iter().any(|row| row["change"] == "put_back"));
    let shown = sandbox.run(&["show", "p", "--rows"]);
    shown.done(&[
        &format!("{position} of "),
        "was the last to change rows that go back",
    ]);
}

#[test]
fn one_transaction_is_taken_back_and_the_work_of_others_since_stays() {
    let (sandbox, position) = destroyed_and_used();
    let restore = |more: &[&str]| {
        let mut arguments = vec!["restore", "account:3", "--at", "latest", "--yes"];
        arguments.extend(["--confirm", "account:3", "--only-changed-by"]);
        arguments.extend(more);
        sandbox.run(&arguments)
    };
    let before = sandbox.contents();
    restore(&[&position]).refused(5, &["1 conflict"]);
    restore(&["commit:9999"]).refused(7, &["commit:9999", "its end, commit:"]);
    restore(&["latest"]).refused(2, &["expected the position of a transaction"]);
    restore(&["lsn:0/1"]).refused(2, &["commit:1"]);
    restore(&[&position, "--into", "side:77"]).refused(2, &["--only-changed-by"]);
    assert_eq!(sandbox.contents().1, before.1);
    let restored = restore(&[&position, "--on-conflict", "keep-live"]);
    // What is left out makes it less than a full success.
    assert_eq!(restored.code, 4, "{restored:#?}");
    let taken_back = format!("{position} is taken back");
    for text in [
        "changed since by commit:",
        &taken_back,
        "1 row left out as conflicts",
    ] {
        assert!(restored.stdout.contains(text), "{restored:#?}");
    }
    // As if the incident had never been.
    let other = Sandbox::captured();
    other.edit_issue_of(3);
    assert_eq!(sandbox.contents_of(3), other.contents_of(3));
    assert_eq!(sandbox.contents_but(3), other.contents_but(3));
}

/// Records of a log that are missing, altered, in each other's place or another store's: what lies before
/// them is as good as ever, everything behind is refused with the nearest point, and nothing is written.
#[test]
fn a_log_that_is_not_what_was_written_ends_there_and_says_so() {
    let sandbox = Sandbox::captured();
    let records = sandbox.path("reinstate-repository/records/log");
    let list = || -> BTreeSet<PathBuf> {
        let names = fs::read_dir(&records).into_iter().flatten();
        names.map(|entry| entry.unwrap().path()).collect()
    };
    // One run after the other, each with the position that it ends at.
    let (mut runs, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let known = list();
        sandbox.write_to(3);
        let followed = sandbox.json(&["capture", "follow", "--once"]).records();
        runs.extend(list().difference(&known).cloned());
        let run = followed.iter().rfind(|record| record["type"] == "log_run");
        ends.push(run.unwrap()["through"].as_str().unwrap().to_owned());
    }
    assert_eq!(runs.len(), 4);
    let other = Sandbox::captured();
    other.run(&["capture", "follow", "--once"]).done(&[]);
    let other_records = other.path("reinstate-repository/records/log");
    let foreign = fs::read_dir(other_records)
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let foreign = fs::read(foreign.path()).unwrap();
    let whole: Vec<Vec<u8>> = runs.iter().map(|run| fs::read(run).unwrap()).collect();
    let before = sandbox.contents();
    let mut altered = whole[1].clone();
    altered[100] ^= 1;
    let damaged = "lies behind a record of the change log that is damaged or missing";
    for records in [
        vec![(1, None)],
        vec![(1, None), (2, None)],
        vec![(1, Some(&altered))],
        vec![(1, Some(&whole[2])), (2, Some(&whole[1]))],
        vec![(1, Some(&whole[0]))],
        vec![(1, Some(&foreign))],
    ] {
        for (run, bytes) in &records {
            match bytes {
                Some(bytes) => Sandbox::damage(&runs[*run], |record| record.clone_from(bytes)),
                None => fs::remove_file(&runs[*run]).unwrap(),
            }
        }
        let plan = |at: &str| sandbox.run(&["plan", "account:3", "--at", at, "--out", "p"]);
        for end in &ends[1..] {
            plan(end).refused(7, &[damaged, &format!("before it: {} of", ends[0])]);
        }
        assert!(!sandbox.path("p").exists());
        sandbox.run(&["verify"]).refused(4, &["damaged"]);
        let status = sandbox.run(&["status"]);
        assert_eq!(status.code, 4, "{status:?}");
        assert!(status.stderr.contains("HOLE"), "{status:?}");
        let follow = sandbox.run(&["capture", "follow", "--once"]);
        follow.refused(7, &["ENDS here", "--new-base"]);
        sandbox
            .run(&["export", &format!("account:3@{}", ends[0])])
            .done(&[]);
        for (run, _) in &records {
            let _ = fs::remove_file(&runs[*run]);
            fs::write(&runs[*run], &whole[*run]).unwrap();
        }
    }
    // Of the last record nothing tells but that the store has forgotten what was in it.
    fs::remove_file(&runs[3]).unwrap();
    let status = sandbox.run(&["status"]);
    assert_eq!(status.code, 4, "{status:?}");
    assert!(status.stderr.contains("HOLE"), "{status:?}");
    let follow = sandbox.run(&["capture", "follow", "--once"]);
    follow.refused(7, &["ENDS here", "--new-base"]);
    fs::write(&runs[3], &whole[3]).unwrap();
    sandbox.run(&["status"]).done(&["published through"]);
    assert_eq!(sandbox.contents(), before);
    sandbox.run(&["verify"]).done(&["intact"]);
    sandbox
        .run(&["export", &format!("account:3@{}", ends[3])])
        .done(&[]);
}
