//! The program killed at every system call that changes a file.
//!
//! strace stops it at the first call of each kind, at the second, and so on, until it gets done. Each
//! time the next run finds a store and a repository that are whole, and ends well.

use std::collections::BTreeSet;
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
    /// Whether the same can be run again when it is done.
    is_repeated: bool,
    /// What else has to hold once it is done, by whichever run; may change the sandbox.
    holds_then: &'s dyn Fn(&Sandbox),
    /// After how many kills the whole repository is read, once: all of them take a while.
    kills_per_verify: u64,
}

/// Kills the program at every call; returns how often, and after how many kills it was done.
fn kill_everywhere(story: &Story<'_>) -> (u64, u64) {
    let (mut kills, mut done) = (0_u64, 0_u64);
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
            if kills.is_multiple_of(story.kills_per_verify) {
                sandbox.run(&["verify"]).done(&[]);
            }
            // Whatever is left is in nobody's way.
            if !was_done || story.is_repeated {
                sandbox.run(story.arguments).done(&[]);
            }
            assert!((story.is_done)(&sandbox), "{call} {number}: again");
            // Those that were done when they were killed are the ones to ask; of the others, some.
            if was_done || kills.is_multiple_of(8) {
                (story.holds_then)(&sandbox);
            }
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

/// The jobs that the repository knows.
fn jobs(sandbox: &Sandbox) -> BTreeSet<String> {
    let directory = sandbox.path("reinstate-repository/records/job");
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

/// Exactly one of the jobs that are not `before` was committed: it can be taken back, and the others were
/// nothing.
fn take_back(sandbox: &Sandbox, before: &BTreeSet<String>) {
    let new = &jobs(sandbox) - before;
    let undone = new.iter().filter(|job| {
        let run = sandbox.run(&["undo", job, "--confirm", "account:3"]);
        assert!(run.code == 0 || run.code == 8, "{run:#?}");
        run.code == 0
    });
    let count = undone.count();
    assert_eq!(count, 1, "of {} jobs", new.len());
}

fn record(name: &str, (kills, done): (u64, u64)) {
    figures::record(
        name,
        &[
            ("kills", kills),
            ("of them after it was done", done),
            ("violations", 0),
        ],
    );
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
        is_repeated: true,
        holds_then: &|_| (),
        kills_per_verify: 1,
    });

    let whole = base.contents().1;
    base.destroy(3);
    let lost = base.contents().1;
    let is_restored = |sandbox: &Sandbox| {
        let found = sandbox.contents().1;
        assert!(found == whole || found == lost, "neither before nor after");
        found == whole
    };
    // The store's journal is what says that it was done, and the plan that it can be taken back.
    let taken_back = |sandbox: &Sandbox| {
        take_back(sandbox, &BTreeSet::new());
        assert_eq!(sandbox.contents().1, lost);
    };
    let arguments = ["restore", "account:3", "--at", "latest", "--yes"];
    let restore = kill_everywhere(&Story {
        base: &base,
        arguments: &arguments,
        is_done: &is_restored,
        is_repeated: true,
        holds_then: &taken_back,
        kills_per_verify: 1,
    });

    record(
        "killed-at-system-calls",
        (capture.0 + restore.0, capture.1 + restore.1),
    );
    assert!(capture.0 > 20 && restore.0 > 40, "{capture:?} {restore:?}");
    assert!(capture.1 > 0 && restore.1 > 0, "{capture:?} {restore:?}");
}

#[test]
fn killed_at_every_system_call_an_undo_is_done_or_not() {
    let base = Sandbox::captured_with(3, 60);
    base.destroy(3);
    let lost = base.contents().1;
    let restore = ["restore", "account:3", "--at", "latest", "--yes"];
    let restored = base.json(&restore);
    assert_eq!(restored.code, 0, "{restored:#?}");
    let whole = base.contents().1;
    let job = restored.record("summary")["job"]
        .as_str()
        .unwrap()
        .to_owned();
    let is_undone = |sandbox: &Sandbox| {
        let found = sandbox.contents().1;
        assert!(found == whole || found == lost, "neither before nor after");
        found == lost
    };
    let before = jobs(&base);
    let taken_back = |sandbox: &Sandbox| {
        take_back(sandbox, &before);
        assert_eq!(sandbox.contents().1, whole);
    };
    let undo = kill_everywhere(&Story {
        base: &base,
        arguments: &["undo", &job, "--confirm", "account:3"],
        is_done: &is_undone,
        is_repeated: false,
        holds_then: &taken_back,
        kills_per_verify: 4,
    });
    record("killed-in-an-undo", undo);
    assert!(undo.0 > 40 && undo.1 > 0, "{undo:?}");
}

#[test]
fn killed_at_every_system_call_a_follower_has_sealed_a_commit_or_not() {
    let base = Sandbox::captured_with(3, 60);
    let follow = ["capture", "follow", "--once"];
    base.run(&follow).done(&[]);
    base.write_to(3);
    let published = |sandbox: &Sandbox| {
        let status = sandbox.json(&["status"]);
        let published = status.record("feed")["published"].clone();
        let number = published
            .as_str()
            .and_then(|text| text.strip_prefix("commit:"));
        number.unwrap().parse::<u64>().unwrap()
    };
    let before = published(&base);
    let after = Sandbox::empty();
    copy(&base.path(""), &after.path(""));
    after.run(&follow).done(&["sealed"]);
    let after = published(&after);
    assert!(before < after);
    let is_sealed = |sandbox: &Sandbox| {
        let found = published(sandbox);
        // Opening a store after a kill may be a commit of its own, which changes no row.
        assert!(found == before || found >= after, "{found}");
        found >= after
    };
    // What was written is in the log, and no more than that.
    let written = base.contents().1;
    let comes_back = |sandbox: &Sandbox| {
        sandbox.destroy(3);
        sandbox
            .run(&[
                "restore",
                "account:3",
                "--at",
                &format!("commit:{after}"),
                "--yes",
            ])
            .done(&["restored"]);
        assert_eq!(sandbox.contents().1, written);
    };
    let followed = kill_everywhere(&Story {
        base: &base,
        arguments: &follow,
        is_done: &is_sealed,
        is_repeated: true,
        holds_then: &comes_back,
        kills_per_verify: 4,
    });
    record("killed-in-a-follower", followed);
    assert!(followed.0 > 20 && followed.1 > 0, "{followed:?}");
}

/// A file that was synced, and whose name was not, may be gone after a crash with all that is in it.
#[test]
fn a_new_store_is_there_with_its_name_before_it_is_said_to_be() {
    let sandbox = Sandbox::empty();
    let directory = sandbox.path("made");
    fs::create_dir(&directory).unwrap();
    let program = sandbox.command();
    let traced = Command::new("strace")
        .args(["-f", "-qq", "-y", "-o", "trace"])
        .args(["-e", "trace=fsync,fdatasync"])
        .arg(program.get_program())
        .args([
            "generate",
            "--into",
            "made/app.redb",
            "--tenants",
            "1",
            "--rows",
            "10",
        ])
        .current_dir(sandbox.path(""))
        .output()
        .unwrap();
    assert!(traced.status.success(), "{traced:?}");
    let trace = fs::read_to_string(sandbox.path("trace")).unwrap();
    let directory = directory.canonicalize().unwrap();
    let of = |path: &Path| format!("<{}>)", path.display());
    assert!(trace.contains(&of(&directory.join("app.redb"))), "{trace}");
    assert!(trace.contains(&of(&directory)), "{trace}");
}
