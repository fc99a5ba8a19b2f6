//! Snapshots by columns: the same rows in fewer bytes, beside snapshots by rows.

use std::fs;

use crate::sandbox::Sandbox;

/// Writes `[capture]` into the configuration.
fn configure(sandbox: &Sandbox, capture: &str) {
    let path = sandbox.path("reinstate.toml");
    let text = fs::read_to_string(&path).unwrap();
    let before = text.split("\n[capture]").next().unwrap();
    fs::write(&path, format!("{before}\n[capture]\n{capture}\n")).unwrap();
}

fn latest(sandbox: &Sandbox) -> serde_json::Value {
    sandbox.json(&["capture", "once"]).record("snapshot")
}

fn assert_smaller(by_columns: &serde_json::Value, by_rows: &serde_json::Value) {
    let stored = |snapshot: &serde_json::Value| snapshot["stored_bytes"].as_u64().unwrap();
    assert!(
        stored(by_columns) * 100 < stored(by_rows) * 97,
        "{by_columns} {by_rows}"
    );
}

#[test]
fn a_snapshot_by_columns_is_smaller_and_brings_back_the_same_rows() {
    let sandbox = Sandbox::captured_with(6, 20_000);
    let by_rows = latest(&sandbox);
    configure(&sandbox, "layout = \"columns\"");
    let by_columns = latest(&sandbox);
    assert_eq!(by_rows["plain_bytes"], by_columns["plain_bytes"]);
    assert_smaller(&by_columns, &by_rows);
    sandbox.run(&["verify"]).done(&["intact"]);

    let export = |snapshot: &serde_json::Value| {
        let id = snapshot["id"].as_str().unwrap();
        let run = sandbox.run(&["export", &format!("account:2@snap:{id}")]);
        run.done(&[]);
        run.stdout
    };
    let rows = export(&by_columns);
    assert!(rows.lines().count() > 1_000);
    assert_eq!(rows, export(&by_rows));

    let before = sandbox.contents();
    sandbox.destroy(2);
    sandbox
        .run(&["restore", "account:2", "--at", "latest", "--yes"])
        .done(&["restored"]);
    assert_eq!(sandbox.contents().1, before.1);
}

#[test]
fn the_snapshots_of_following_and_compacting_are_by_columns_too() {
    let sandbox = Sandbox::captured_with(6, 20_000);
    let by_rows = latest(&sandbox);
    configure(&sandbox, "layout = \"columns\"");
    let follow = ["capture", "follow", "--once"];
    let followed = sandbox.json(&follow).record("snapshot");
    assert_smaller(&followed, &by_rows);
    sandbox.write_to(3);
    sandbox.run(&follow).done(&["sealed"]);
    let compacted = sandbox.json(&["capture", "compact"]).record("snapshot");
    assert_smaller(&compacted, &by_rows);
    sandbox.run(&["verify"]).done(&["intact"]);
}

#[test]
fn damage_within_columns_is_found() {
    let sandbox = Sandbox::empty();
    let generate = ["generate", "--into", "app.redb", "--tenants", "6"];
    sandbox.run(&generate).done(&[]);
    sandbox.run(&["init", "--embedded", "app.redb"]).done(&[]);
    configure(&sandbox, "layout = \"columns\"");
    sandbox.run(&["capture", "once"]).done(&["captured"]);
    let segment = sandbox.objects().remove(0);
    Sandbox::damage(&segment, |bytes| {
        let place = bytes.len() / 4;
        bytes[place] ^= 0x20;
    });
    sandbox.run(&["verify"]).refused(4, &["damaged"]);
}

#[test]
fn a_layout_that_there_is_not_is_refused() {
    let sandbox = Sandbox::captured();
    configure(&sandbox, "layout = \"diagonal\"");
    sandbox
        .run(&["capture", "once"])
        .refused(2, &["diagonal", "rows", "columns"]);
}
