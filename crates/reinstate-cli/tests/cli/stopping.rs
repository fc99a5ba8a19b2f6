//! Ctrl-C and SIGTERM.

use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::sandbox::Sandbox;

/// Starts something that takes long, and waits until it has begun.
fn begin(sandbox: &Sandbox) -> Child {
    let rows = ["generate", "--into", "big.redb", "--rows", "50000000"];
    let child = sandbox
        .command()
        .args(rows)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !sandbox.path("big.redb").exists() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "it never began"
        );
        sleep(Duration::from_millis(20));
    }
    child
}

/// Sends a signal to a process.
pub fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

#[test]
fn the_first_signal_stops_in_order_and_says_which_it_was() {
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let sandbox = Sandbox::empty();
        let child = begin(&sandbox);
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains("stopping"), "{stderr}");
        assert!(stderr.contains("stopped on request"), "{stderr}");
        assert!(!sandbox.path("big.redb").exists(), "half a store was left");
    }
}
