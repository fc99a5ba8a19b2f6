//! What tests counted, kept for the table of docs/guarantees.md.
//!
//! A test that tries many cases says how many, and how many of them went wrong, by [`record`]. The
//! figures are printed and lie below the build directory, in `guarantees/`, until the next run.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Names a seed other than the usual one. For longer runs, each with another.
pub const SEED_VARIABLE: &str = "REINSTATE_SEED";

/// Says how many times as many cases are to be tried.
pub const SCALE_VARIABLE: &str = "REINSTATE_SCALE";

/// The seed of this run: the usual one unless [`SEED_VARIABLE`] says otherwise.
///
/// # Panics
/// If the variable is not a number.
#[must_use]
pub fn seed(usual: u64) -> u64 {
    number(SEED_VARIABLE).unwrap_or(usual)
}

/// How many times as many cases are to be tried; 1 unless [`SCALE_VARIABLE`] says otherwise.
///
/// # Panics
/// If the variable is not a number.
#[must_use]
pub fn scale() -> usize {
    let scale = number(SCALE_VARIABLE).unwrap_or(1);
    usize::try_from(scale).expect("a scale that fits").max(1)
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable}={value}: expected a number")))
}

/// Prints what a test counted and keeps it under this name: words with hyphens between them.
///
/// # Panics
/// If it cannot be kept.
pub fn record(name: &str, figures: &[(&str, u64)]) {
    let mut text = String::new();
    for (what, count) in figures {
        writeln!(text, "{count} {what}").expect("write to a string");
    }
    println!("{name}: {}", text.trim_end().replace('\n', ", "));
    let directory = directory();
    fs::create_dir_all(&directory).expect("make the directory of figures");
    fs::write(directory.join(name), text).expect("keep the figures");
}

/// Where figures are kept.
///
/// # Panics
/// If the program does not know where it lies.
#[must_use]
pub fn directory() -> PathBuf {
    let program = std::env::current_exe().expect("the path of this program");
    // Tests lie in target/debug/deps, programs in target/debug.
    let mut above = program.ancestors().skip(1);
    let profile = above.find(|path| !path.ends_with("deps"));
    let target = profile.and_then(Path::parent);
    target
        .expect("a build directory above this program")
        .join("guarantees")
}
