//! The table of figures of docs/guarantees.md: what tests counted in their last run.
//!
//! `guarantees` prints it and fails where a row is missing or a count of violations is not zero; with
//! `--write` it goes into the page.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use reinstate_testkit::figures;

const PAGE: &str = "docs/guarantees.md";
const START: &str = "<!-- figures: cargo run -p reinstate-tests --bin guarantees -- --write -->\n";
const END: &str = "<!-- end of figures -->";

/// Every run of the tests leaves these. What a test adds here it has to record.
const ROWS: [(&str, &str); 30] = [
    (
        "crash-images-in-place",
        "Power fails at every step of a life; merges in place",
    ),
    (
        "crash-images-aside",
        "Power fails at every step of a life; merges aside",
    ),
    (
        "making-a-repository",
        "Power fails while a repository is made",
    ),
    (
        "failing-steps-in-place",
        "Every step fails, once or for ever; merges in place",
    ),
    (
        "failing-steps-aside",
        "Every step fails, once or for ever; merges aside",
    ),
    ("flipped-bits", "Every bit of every file flipped, and read"),
    (
        "restores-from-damage",
        "A bit flipped, every fourth byte, and restored from",
    ),
    ("other-lengths", "Every file at every other length"),
    ("zeroed-sectors", "Every sector zeroed, and every 64 bytes"),
    (
        "exchanged-files",
        "Every file in place of every other of its kind, older manifests included",
    ),
    (
        "mixed-repositories",
        "Every file in place of that of another repository",
    ),
    (
        "forged-records",
        "Every byte of every record forged, its digest put right",
    ),
    (
        "counts-of-all-ones",
        "Counts of 2^32-1 and 2^64-1 in every place of every record",
    ),
    (
        "killed-at-system-calls",
        "The program killed at every system call that changes a file",
    ),
    ("killed-in-an-undo", "The same, in an undo"),
    (
        "killed-in-a-follower",
        "The same, in a follower that seals a commit",
    ),
    (
        "full-disks",
        "Files may grow to a size and no further, from nothing to enough: a capture, a plan, a restore, an undo",
    ),
    (
        "killed-in-a-follow",
        "A follower of PostgreSQL killed before each of its steps, and every tenant at every commit afterwards",
    ),
    (
        "histories-in-memory",
        "Random histories: every tenant at every commit, just before and just after it, is what a naive replay says; in memory",
    ),
    (
        "histories-altered-in-memory",
        "The same, where the tables change; in memory",
    ),
    (
        "histories-exhaustive",
        "The same, all histories of five steps over two tenants and two keys; in memory",
    ),
    (
        "histories-embedded",
        "The same, through an embedded store that several write to at once",
    ),
    (
        "histories-postgres",
        "The same, through a PostgreSQL server that several write to at once; another decoder replays",
    ),
    (
        "histories-migrations",
        "Tables that come, change and go milliseconds apart beside writers on PostgreSQL, followed by who is stopped again and again",
    ),
    (
        "resumed-runs",
        "A run of several tenants stopped at every operation and gone on with: rows, journal, objects and records as if it had not been",
    ),
    (
        "load-embedded",
        "60 of 1,000 tenants restored beside writers; embedded, in place",
    ),
    ("load-embedded-aside", "The same; aside, in a file"),
    ("load-embedded-followed", "The same; followed, in a file"),
    ("load-postgres", "The same; PostgreSQL"),
    (
        "historic-bugs",
        "Bugs that lost data elsewhere, made again at the seams",
    ),
];

/// Counts that have to be zero.
const VIOLATIONS: [&str; 11] = [
    "survivors",
    "foreign rows changed",
    "acknowledged writes lost",
    "not detected",
    "wrong rows",
    "violations",
    "promises lost",
    "unreadable",
    "tenants neither before nor after",
    "repositories lost",
    "panics",
];

fn main() -> ExitCode {
    let write = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--write") => true,
        Some(other) => return fail(&format!("unknown option {other}; the only one is --write")),
    };
    match table(&figures::directory()) {
        Ok(table) => {
            print!("{table}");
            if write {
                put_into_page(&table)
            } else {
                ExitCode::SUCCESS
            }
        }
        Err(message) => fail(&message),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("guarantees: {message}");
    ExitCode::FAILURE
}

/// The rows that the last run of the tests left.
fn table(directory: &Path) -> Result<String, String> {
    let mut found = BTreeMap::new();
    for (name, title) in ROWS {
        let path = directory.join(name);
        let text = fs::read_to_string(&path).map_err(|error| {
            format!(
                "{name} left no figures: {}: {error}. Run the tests first: tests/run",
                path.display()
            )
        })?;
        for line in text.lines() {
            let (count, what) = line.split_once(' ').unwrap_or((line, ""));
            if VIOLATIONS.contains(&what) && count != "0" {
                return Err(format!("{name}: {count} {what}"));
            }
        }
        let figures: Vec<String> = text.lines().map(grouped).collect();
        found.insert(title, figures.join(", "));
    }
    let mut table = "| what is tried | figures |\n| --- | --- |\n".to_owned();
    for (_, title) in ROWS {
        table.push_str(&format!("| {title} | {} |\n", found[title]));
    }
    Ok(table)
}

/// A line with its number in groups of three digits.
fn grouped(line: &str) -> String {
    let (count, what) = line.split_once(' ').unwrap_or((line, ""));
    let mut digits = String::new();
    for (index, digit) in count.chars().enumerate() {
        if index > 0 && (count.len() - index).is_multiple_of(3) {
            digits.push(',');
        }
        digits.push(digit);
    }
    format!("{digits} {what}")
}

fn put_into_page(table: &str) -> ExitCode {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(PAGE);
    let Ok(page) = fs::read_to_string(&path) else {
        return fail(&format!("read {}", path.display()));
    };
    let parts = page
        .split_once(START)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let Some((before, after)) = parts else {
        return fail(&format!("{PAGE} has no place for the figures"));
    };
    let page = format!("{before}{START}\n{table}\n{END}{after}");
    match fs::write(&path, page) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("write {PAGE}: {error}")),
    }
}
