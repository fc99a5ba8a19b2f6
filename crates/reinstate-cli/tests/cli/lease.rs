//! A run that hangs or dies in the middle of a merge, and the next one.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use reinstate_testkit::cluster::TestDatabase;

use crate::guard::{captured, restore};
use crate::killed::copy;
use crate::sandbox::Sandbox;

/// Somebody at a prompt, in the middle of a transaction.
pub struct Prompt {
    psql: Child,
    said: BufReader<ChildStdout>,
}

impl Prompt {
    /// Begins a transaction with these statements, and waits until they are done. Whatever is not
    /// committed is rolled back when the prompt is dropped.
    pub fn after(database: &TestDatabase<'_>, sql: &str) -> Self {
        let mut command = database.cluster().command("psql").unwrap();
        command.args(["-X", "-q", "-A", "-t", "-d", database.name()]);
        let mut psql = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(psql.stdout.take().unwrap());
        let mut prompt = Self { psql, said };
        prompt.say(&format!("BEGIN; {sql}; SELECT 'begun';"));
        prompt.hears("begun");
        prompt
    }

    /// Types more statements.
    pub fn say(&mut self, sql: &str) {
        writeln!(self.psql.stdin.as_mut().unwrap(), "{sql}").unwrap();
    }

    /// Waits for a line.
    pub fn hears(&mut self, wanted: &str) {
        let mut line = String::new();
        while line.trim_end() != wanted {
            line.clear();
            let length = self.said.read_line(&mut line).unwrap();
            assert!(length > 0, "no answer {wanted:?}");
        }
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        drop(self.psql.stdin.take());
        let _ = self.psql.wait();
    }
}

/// Waits until it is so, which no test is to do for ever.
#[track_caller]
pub fn eventually(mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < end, "it never came to that");
    }
}

fn send(signal: &str, process: &Child) {
    let id = process.id().to_string();
    let status = Command::new("kill").args([signal, &id]).status();
    assert!(status.unwrap().success());
}

/// A restore of account:1 in a process of its own, which is in the middle of its transaction when this
/// returns, with what it had to wait for out of its way.
fn stopped_in_its_merge(sandbox: &Sandbox, database: &TestDatabase<'_>) -> Child {
    let holder = Prompt::after(database, "SELECT id FROM notes WHERE id = 1 FOR UPDATE");
    let run = sandbox
        .command()
        .args(["restore", "account:1", "--at", "latest", "--nearest-before"])
        .args(["--confirm", "account:1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                    AND application_name = 'reinstate' AND wait_event_type = 'Lock'";
    eventually(|| database.psql(waits).unwrap() == "1");
    send("-STOP", &run);
    drop(holder);
    run
}

const DAMAGE: &str = "UPDATE notes SET body = 'x' WHERE account_id = 1";
const DAMAGED: &str = "SELECT count(*) FROM notes WHERE account_id = 1 AND body = 'x'";
const COMMITTED: &str = "SELECT count(*) FROM reinstate.journal";

#[test]
fn a_run_that_was_stopped_is_taken_over_and_writes_nothing_when_it_wakes_up() {
    let (sandbox, database) = captured();
    sandbox.run(&["guard", "install"]).done(&[]);
    let psql = |sql: &str| database.psql(sql).unwrap();
    let lease = |options: &[&str]| {
        let run = sandbox.json(&[&["lease", "account:1"], options].concat());
        run.done(&[]);
        run.record("lease")
    };
    sandbox
        .run(&["lease", "account:1"])
        .done(&["nobody is restoring account:1"]);
    psql(DAMAGE);
    let stopped = stopped_in_its_merge(&sandbox, &database);
    let held = lease(&[]);
    assert!(
        held["process"].is_i64() && held["role"].is_string(),
        "{held}"
    );
    // The repository is its own as well: a second operator has another one, with the same in it.
    let id = stopped.id();
    let says = [
        format!("locks/writer: process {id} (reinstate restore) on "),
        format!("that process is stopped: kill -CONT {id} lets it go on, kill -KILL {id} ends it"),
    ];
    restore(&sandbox).refused(11, &says.each_ref().map(String::as_str));
    sandbox
        .run(&["doctor"])
        .done(&["warn  repository", &says[0], &says[1]]);
    let other = Sandbox::empty();
    copy(&sandbox.path(""), &other.path(""));
    restore(&other).refused(
        11,
        &["server process", "reinstate lease account:1 --take-over"],
    );
    let taken = lease(&["--take-over"]);
    assert_eq!(taken["taken_over"], true);
    assert_eq!(taken["process"], held["process"]);
    restore(&other).done(&["restored"]);
    assert_eq!(psql(COMMITTED), "1");

    // Its users go on, and then it wakes up.
    psql("UPDATE notes SET body = 'x' WHERE id = 4");
    send("-CONT", &stopped);
    let output = stopped.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("error:"),
        "{said}"
    );
    assert_eq!(psql(COMMITTED), "1", "{said}");
    assert_eq!(psql(DAMAGED), "1", "{said}");
}

#[test]
fn a_run_that_was_killed_in_its_merge_leaves_the_tenant_to_the_next() {
    let (sandbox, database) = captured();
    sandbox.run(&["guard", "install"]).done(&[]);
    database.psql(DAMAGE).unwrap();
    let mut killed = stopped_in_its_merge(&sandbox, &database);
    // As the one who comes next is told to.
    let advice = format!("kill -KILL {}", killed.id());
    restore(&sandbox).refused(11, &[&advice]);
    killed.kill().unwrap();
    killed.wait().unwrap();
    // The server notices by itself.
    let held = || {
        let run = sandbox.json(&["lease", "account:1"]);
        run.record("lease")["process"].is_i64()
    };
    eventually(|| !held());
    restore(&sandbox).done(&["restored"]);
    assert_eq!(database.psql(DAMAGED).unwrap(), "0");
    assert_eq!(database.psql(COMMITTED).unwrap(), "1");
}

/// What `[store]` says reaches the server.
#[test]
fn a_statement_of_a_merge_takes_no_longer_than_the_configuration_lets_it() {
    let (sandbox, database) = captured();
    sandbox.run(&["guard", "install"]).done(&[]);
    database.psql(DAMAGE).unwrap();
    let file = sandbox.path("reinstate.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let with = |bounds: &str| {
        let text = text.replace("[tenancy]", &format!("{bounds}\n[tenancy]"));
        std::fs::write(&file, text).unwrap();
    };
    with("lease = \"1s\"");
    restore(&sandbox).refused(2, &["store.lease = \"1s\"", "from 10s to 24h"]);
    let holder = Prompt::after(&database, "SELECT id FROM notes WHERE id = 1 FOR UPDATE");
    with("statement_timeout = \"100ms\"\nlock_timeout = \"10m\"");
    restore(&sandbox).refused(1, &["statement timeout"]);
    with("statement_timeout = \"24h\"\nlock_timeout = \"10ms\"");
    restore(&sandbox).refused(1, &["lock timeout"]);
    assert_eq!(database.psql(COMMITTED).unwrap(), "0");
    drop(holder);
    restore(&sandbox).done(&["restored"]);
}

#[test]
fn an_embedded_store_has_none() {
    let sandbox = Sandbox::captured();
    sandbox
        .run(&["lease", "account:1"])
        .refused(2, &["the process that has its file open"]);
}
