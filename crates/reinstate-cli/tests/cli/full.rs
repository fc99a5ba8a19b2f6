//! A disk that is full, at any step of any verb: files that may grow to this size and no further, from
//! nothing at all to as much as it takes.

use std::process::Command;

use reinstate_testkit::figures;

use crate::killed::copy;
use crate::sandbox::{Run, Sandbox, outcome};

/// Runs the tool where no file may grow beyond so many blocks of 512 bytes. Growing further is an error, not a signal.
fn run_with(sandbox: &Sandbox, blocks: u64, arguments: &[&str]) -> Run {
    let program = sandbox.command();
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ; ulimit -f $0; exec \"$@\""])
        .arg(blocks.to_string())
        .arg(program.get_program())
        .args(arguments)
        .current_dir(sandbox.path(""));
    outcome(&mut command)
}

/// Tries it with ever more room. Whatever it had, `holds` afterwards, which says whether it was done; and
/// with room enough the same command ends well.
fn with_ever_more_room(
    base: &Sandbox,
    arguments: &[&str],
    holds: impl Fn(&Sandbox) -> bool,
) -> u64 {
    let (mut blocks, mut refused, mut done) = (0, 0, 0);
    loop {
        let sandbox = Sandbox::empty();
        copy(&base.path(""), &sandbox.path(""));
        let run = run_with(&sandbox, blocks, arguments);
        let is_done = holds(&sandbox);
        if run.code == 0 {
            assert!(is_done, "{blocks}: {run:#?}");
            done += 1;
        } else {
            refused += 1;
            let said = run.stderr.to_lowercase();
            let is_said = ["full", "too large", "room", "space"];
            assert!(
                is_said.iter().any(|word| said.contains(word)),
                "{blocks}: {run:#?}"
            );
            assert!(!said.contains("panicked"), "{run:#?}");
            if !is_done {
                sandbox.run(arguments).done(&[]);
                assert!(holds(&sandbox), "{blocks}: again");
            }
        }
        // Twice with room enough: more changes nothing.
        if done == 2 {
            assert!(refused > 0, "nothing was ever in its way");
            return refused;
        }
        blocks = (blocks + 1).max(blocks * 2);
    }
}

#[test]
fn with_too_little_room_nothing_is_half_done_and_with_enough_it_is() {
    let base = Sandbox::captured_with(3, 60);
    let mut refused = 0;
    let snapshots = |sandbox: &Sandbox| {
        let listed = sandbox.json(&["snapshots"]);
        let records = listed.records();
        records
            .iter()
            .filter(|record| record["type"] == "snapshot")
            .count()
    };
    refused += with_ever_more_room(&base, &["capture", "once"], |sandbox| {
        let found = snapshots(sandbox);
        assert!(found == 1 || found == 2, "{found} snapshots");
        sandbox.run(&["verify"]).done(&[]);
        found == 2
    });

    let whole = base.contents().1;
    base.destroy(3);
    let lost = base.contents().1;
    let plan = ["plan", "account:3", "--at", "latest", "--out", "p"];
    refused += with_ever_more_room(&base, &plan, |sandbox| {
        assert_eq!(sandbox.contents().1, lost);
        sandbox.path("p").exists()
    });

    let is_whole = |sandbox: &Sandbox| {
        let found = sandbox.contents().1;
        assert!(found == whole || found == lost, "neither before nor after");
        found == whole
    };
    let restore = ["restore", "account:3", "--at", "latest", "--yes"];
    refused += with_ever_more_room(&base, &restore, is_whole);

    let restored = base.json(&restore);
    let job = restored.record("summary")["job"]
        .as_str()
        .unwrap()
        .to_owned();
    let undo = ["undo", &job, "--confirm", "account:3"];
    refused += with_ever_more_room(&base, &undo, |sandbox| !is_whole(sandbox));
    figures::record(
        "full-disks",
        &[
            ("runs that had too little room", refused),
            ("violations", 0),
        ],
    );
}
