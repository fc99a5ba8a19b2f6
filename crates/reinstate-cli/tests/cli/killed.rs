//! The program killed at every system call that changes a file.
//!
//! strace stops it at the first call of each kind, at the second, and so on, until it gets done. Each
//! time the next run finds a store and a repository that are whole, and ends well.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use reinstate_testkit::figures;

use crate::sandbox::{Sandbox, outcome};

/// The system calls that change what is on the disk, or bring it there.
const CALLS: [&str; 11] = [
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "ftruncate",
    "mkdir",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "fallocate",
];
/// More calls of one kind than any run here makes.
const CALLS_MAX: usize = 2_000;
const SIGKILL: i32 = 9;

/// What is killed, and what has to be true before and after.
struct Story<'s> {
    /// Everything before.
    base: &'s Sandbox,
    arguments: &'s [&'s str],
    /// Whether a sandbox is as after; panics if it is neither as before nor as after.
    is_done: &'s dyn Fn(&Sandbox) -> bool,
}

/// Kills the program at every call; returns how often, and after how many kills it was done.
fn kill_everywhere(story: &Story<'_>) -> (u64, u64) {
    let (mut kills, mut done) = (0, 0);
    for call in CALLS {
        for number in 1.. {
            assert!(number < CALLS_MAX, "{call} is never done");
            let sandbox = Sandbox::empty();
            copy(story.base.path("").as_path(), sandbox.path("").as_path());
            if !is_killed(&sandbox, story.arguments, call, number) {
                assert!((story.is_done)(&sandbox), "not killed, and not done");
                break;
            }
            kills += 1;
            let was_done = (story.is_done)(&sandbox);
            done += u64::from(was_done);
            sandbox.run(&["verify"]).done(&[]);
            // Whatever is left is in nobody's way.
            sandbox.run(story.arguments).done(&[]);
            assert!((story.is_done)(&sandbox), "{call} {number}: again");
        }
    }
    (kills, done)
}

/// Runs the program and kills it at this call; whether it got that far.
fn is_killed(sandbox: &Sandbox, arguments: &[&str], call: &str, number: usize) -> bool {
    let program = sandbox.command();
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-o", "/dev/null"])
        .args(["-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:signal=KILL:when={number}")])
        .arg(program.get_program())
        .args(arguments)
        .current_dir(sandbox.path(""));
    let output = command
        .output()
        .expect("strace: tests/run installs it, or apt-get install strace");
    let is_killed = output.status.signal() == Some(SIGKILL);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        is_killed || output.status.success(),
        "{call} {number}: {said}"
    );
    is_killed
}

/// Copies everything below a directory.
pub fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

fn snapshot_count(sandbox: &Sandbox) -> usize {
    let listed = outcome(sandbox.command().args(["snapshots", "--json"]));
    assert_eq!(listed.code, 0, "{listed:#?}");
    listed
        .records()
        .iter()
        .filter(|record| record["type"] == "snapshot")
        .count()
}

#[test]
fn killed_at_every_system_call_a_capture_and_a_restore_are_done_or_not() {
    let base = Sandbox::captured_with(3, 60);
    let captured = |sandbox: &Sandbox| match snapshot_count(sandbox) {
        1 => false,
        // A second run after a kill that came too late takes another.
        2 | 3 => true,
        count => panic!("{count} snapshots"),
    };
    let capture = kill_everywhere(&Story {
        base: &base,
        arguments: &["capture", "once"],
        is_done: &captured,
    });

    let whole = base.contents().1;
    base.destroy(3);
    let lost = base.contents().1;
    let is_restored = |sandbox: &Sandbox| {
        let found = sandbox.contents().1;
        assert!(found == whole || found == lost, "neither before nor after");
        found == whole
    };
    let arguments = ["restore", "account:3", "--at", "latest", "--yes"];
    let restore = kill_everywhere(&Story {
        base: &base,
        arguments: &arguments,
        is_done: &is_restored,
    });

    figures::record(
        "killed-at-system-calls",
        &[
            ("kills", capture.0 + restore.0),
            ("of them after it was done", capture.1 + restore.1),
            ("violations", 0),
        ],
    );
    assert!(capture.0 > 20 && restore.0 > 40, "{capture:?} {restore:?}");
    assert!(capture.1 > 0 && restore.1 > 0, "{capture:?} {restore:?}");
}
