//! What a person at a terminal is asked, on a terminal of the test's own.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::sandbox::{Run, Sandbox};

/// The tool at a terminal: what it says on standard error is read here, answers are typed.
pub struct Terminal {
    master: File,
    child: Child,
    said: String,
}

impl Terminal {
    pub fn start(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let name = OsStr::from_bytes(name.to_bytes());
        let end = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(name)
                .unwrap()
        };
        let child = sandbox
            .command()
            .args(arguments)
            .stdin(Stdio::from(end()))
            .stderr(Stdio::from(end()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            master: File::from(master),
            child,
            said: String::new(),
        }
    }

    /// Reads until the tool has said this.
    pub fn expect(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        while !self.said.contains(text) {
            let length = self.master.read(&mut buffer).unwrap_or(0);
            assert!(length > 0, "it never said {text:?}: {}", self.said);
            self.said
                .push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }

    fn answer(&mut self, text: &str) {
        self.master
            .write_all(format!("{text}\n").as_bytes())
            .unwrap();
    }

    /// Kills the tool.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Reads to the end.
    fn end(mut self) -> Run {
        let mut buffer = [0; 4096];
        // The terminal is gone, with an error, when nobody holds its other end.
        while let Ok(length @ 1..) = self.master.read(&mut buffer) {
            self.said
                .push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        let output = self.child.wait_with_output().unwrap();
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: self.said,
        }
    }
}

#[test]
fn a_plain_plan_takes_a_yes() {
    let sandbox = Sandbox::planned();
    let before = sandbox.contents();
    let mut terminal = Terminal::start(&sandbox, &["apply", "p"]);
    terminal.expect("Apply this plan? [y/N]");
    terminal.answer("");
    terminal
        .end()
        .refused(6, &["not approved", "Nothing was written"]);
    assert_eq!(sandbox.contents(), before);
    let mut terminal = Terminal::start(&sandbox, &["apply", "p"]);
    terminal.expect("[y/N]");
    terminal.answer("y");
    terminal.end().done(&["restored account:3"]);
}

#[test]
fn a_plan_that_deletes_takes_the_tenants_id() {
    let sandbox = Sandbox::captured();
    sandbox.write_to(2);
    let before = sandbox.contents();
    let restore = ["restore", "account:2", "--at", "latest"];
    for wrong in ["y", "account:3", ""] {
        let mut terminal = Terminal::start(&sandbox, &restore);
        terminal.expect("This plan deletes 1 row. Type account:2 to apply it:");
        terminal.answer(wrong);
        terminal.end().refused(6, &["not approved"]);
        assert_eq!(sandbox.contents(), before);
    }
    let mut terminal = Terminal::start(&sandbox, &restore);
    terminal.expect("Type account:2");
    terminal.answer("account:2");
    terminal.end().done(&["restored account:2"]);
}

#[test]
fn a_plan_for_several_tenants_takes_its_digest() {
    let sandbox = Sandbox::captured();
    sandbox.destroy(3);
    sandbox.destroy(4);
    let plan = [
        "plan",
        "account:3",
        "account:4",
        "--at",
        "latest",
        "--out",
        "p",
    ];
    let digest = sandbox.json(&plan).record("plan")["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut terminal = Terminal::start(&sandbox, &["apply", "p"]);
    terminal.expect(&format!("is for 2 tenants. Type {}", &digest[..15]));
    terminal.answer(&digest[..15]);
    terminal.end().done(&["2 of 2 tenants restored"]);
}

#[test]
fn an_interruption_at_the_prompt_ends_it_at_once_and_nothing_is_written() {
    let sandbox = Sandbox::planned();
    let before = sandbox.contents();
    let mut terminal = Terminal::start(&sandbox, &["apply", "p"]);
    terminal.expect("[y/N]");
    crate::stopping::signal(&terminal.child, "INT");
    terminal
        .end()
        .refused(130, &["stopped before the plan was approved"]);
    assert_eq!(sandbox.contents(), before);
}
