//! The most memory that a merge of two million rows takes.

use std::path::Path;
use std::time::Instant;

use crate::rows::{self, CreateComputed};

const ROWS: u64 = 2_000_000;

pub(crate) fn measure(directory: &Path) {
    let store = crate::create(&directory.join("memory"));
    let plan = CreateComputed {
        schema: rows::schema(),
        row_count: ROWS,
    };
    let start = Instant::now();
    let digest = crate::merge(&store, &crate::tenant(1), &plan);
    assert_eq!(digest.row_count(), ROWS);
    let file = std::fs::metadata(directory.join("memory")).expect("the file");
    println!(
        "{ROWS} rows merged in {:.1?}, file {} MiB, peak memory {}",
        start.elapsed(),
        file.len() >> 20,
        peak().unwrap_or_else(|| "unknown here".to_owned()),
    );
}

/// The peak of the process's resident memory, where the system says.
fn peak() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.trim_start_matches("VmHWM:").trim().to_owned())
}
