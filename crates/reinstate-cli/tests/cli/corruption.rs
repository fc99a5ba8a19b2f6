//! Damaged repositories: named, never restored from, and other tenants stay restorable.

use std::fs;

use crate::sandbox::Sandbox;

#[test]
fn a_damaged_block_is_named_and_other_tenants_stay_restorable() {
    let sandbox = Sandbox::captured();
    let segment = sandbox.objects().remove(0);
    // Early in the segment: the shared rows come first, then account:1.
    Sandbox::damage(&segment, |bytes| {
        let place = bytes.len() / 4;
        bytes[place] ^= 0x20;
    });
    let verify = sandbox.json(&["verify"]);
    assert_eq!(verify.code, 4, "{verify:#?}");
    let damage = verify.record("verified")["damage"].clone();
    let [damaged] = damage.as_array().unwrap().as_slice() else {
        panic!("{damage}")
    };
    let tenant = damaged["tenant"].as_str().unwrap();
    let number: u32 = tenant.trim_start_matches("account:").parse().unwrap();
    sandbox.run(&["verify"]).refused(
        4,
        &["1 snapshot or log is damaged", "can still be restored"],
    );

    sandbox.destroy(number);
    let before = sandbox.contents();
    let restore = sandbox.run(&["restore", tenant, "--at", "latest", "--yes"]);
    restore.refused(4, &["read block", "because:"]);
    assert_eq!(sandbox.contents(), before);

    let other = if number == 6 { 5 } else { 6 };
    sandbox.destroy(other);
    let other = format!("account:{other}");
    sandbox
        .run(&["restore", &other, "--at", "latest", "--yes"])
        .done(&["restored"]);
}

#[test]
fn a_truncated_a_swapped_and_a_missing_segment_are_corruption() {
    let sandbox = Sandbox::captured();
    sandbox.write_to(2);
    sandbox.run(&["capture", "once"]).done(&[]);
    sandbox.destroy(3);
    let objects = sandbox.objects();
    let [one, two] = &objects[..] else {
        panic!("{objects:?}")
    };
    let (first, second) = (fs::read(one).unwrap(), fs::read(two).unwrap());
    let before = sandbox.contents();
    let check = || {
        let restore = ["restore", "account:3", "--at", "latest", "--yes"];
        sandbox
            .run(&restore)
            .refused(4, &["segment", "reinstate verify"]);
        assert_eq!(sandbox.contents(), before);
        let verify = sandbox.run(&["verify"]);
        assert_eq!(verify.code, 4, "{verify:#?}");
        assert!(verify.stdout.contains("DAMAGED"), "{verify:#?}");
    };
    let write = |one_bytes: &[u8], two_bytes: &[u8]| {
        Sandbox::damage(one, |bytes| *bytes = one_bytes.to_vec());
        Sandbox::damage(two, |bytes| *bytes = two_bytes.to_vec());
    };
    write(&first[..first.len() - 100], &second[..second.len() - 100]);
    check();
    write(&second, &first);
    check();
    fs::remove_file(one).unwrap();
    fs::remove_file(two).unwrap();
    check();
}

#[test]
fn a_damaged_manifest_is_corruption_and_not_an_empty_list() {
    let sandbox = Sandbox::captured();
    let records = sandbox.path("reinstate-repository/records");
    let mut found = Vec::new();
    for kind in fs::read_dir(records).unwrap() {
        for record in fs::read_dir(kind.unwrap().path()).unwrap() {
            found.push(record.unwrap().path());
        }
    }
    let [manifest] = &found[..] else {
        panic!("{found:?}")
    };
    Sandbox::damage(manifest, |bytes| {
        let place = bytes.len() / 2;
        bytes[place] ^= 1;
    });
    for verb in [&["snapshots"][..], &["tenants"], &["verify"]] {
        sandbox.run(verb).refused(4, &["read snapshot"]);
    }
}

#[test]
fn a_full_disk_is_an_error_and_leaves_no_snapshot() {
    // A limit on the size of files stands for a full disk: the write fails in the same place.
    let sandbox = Sandbox::captured();
    let before = sandbox.json(&["snapshots"]).records().len();
    let tool = env!("CARGO_BIN_EXE_reinstate");
    let script = format!("trap '' XFSZ; ulimit -f 64; exec '{tool}' capture once");
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", &script]).current_dir(sandbox.path(""));
    let run = crate::sandbox::outcome(&mut shell);
    run.refused(1, &["make room"]);
    assert_eq!(sandbox.json(&["snapshots"]).records().len(), before);
    sandbox.run(&["verify"]).done(&["intact"]);
    sandbox.run(&["capture", "once"]).done(&[]);
}
