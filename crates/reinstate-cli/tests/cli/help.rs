//! Help as it is printed. After a wanted change: `REINSTATE_BLESS=1 cargo test -p reinstate-cli`.

use std::fmt::Write;
use std::path::Path;

use crate::sandbox::Sandbox;

const VERBS: [&str; 23] = [
    "demo",
    "init",
    "doctor",
    "tenancy",
    "guard",
    "capture",
    "snapshots",
    "tenants",
    "export",
    "diff",
    "plan",
    "show",
    "apply",
    "restore",
    "undo",
    "lease",
    "campaign",
    "verify",
    "drill",
    "report",
    "generate",
    "completions",
    "man",
];

#[test]
fn help_is_as_it_was_reviewed() {
    let sandbox = Sandbox::empty();
    let mut found = sandbox.run(&["--help"]).stdout;
    for verb in VERBS {
        let help = sandbox.run(&[verb, "--help"]);
        help.done(&["Usage: reinstate"]);
        // The global options are the same everywhere: once is enough.
        let own = help.stdout.split("Global options:").next().unwrap();
        write!(found, "\n---- {verb}\n{own}").unwrap();
    }
    let found: Vec<_> = found.lines().map(str::trim_end).collect();
    let found = found.join("\n") + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/help.txt");
    if std::env::var_os("REINSTATE_BLESS").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let reviewed = std::fs::read_to_string(&path).unwrap();
    assert_eq!(found, reviewed, "help changed: see the top of this file");
}

#[test]
fn completions_and_manual_pages_are_made() {
    let sandbox = Sandbox::empty();
    for shell in ["bash", "zsh", "fish"] {
        sandbox.run(&["completions", shell]).done(&["reinstate"]);
    }
    sandbox.run(&["man", "pages"]).done(&["wrote manual pages"]);
    assert!(sandbox.path("pages/reinstate-restore.1").exists());
}

#[test]
fn every_verb_of_the_tool_is_in_the_manual() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let manual = std::fs::read_to_string(root).unwrap();
    for verb in VERBS {
        assert!(
            manual.contains(&format!("`{verb}")),
            "docs/cli.md lacks {verb}"
        );
    }
}
