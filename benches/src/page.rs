//! The page that the measurements become.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::chapters::Row;

const BEGIN: &str = "<!-- measured: begin -->";
const END: &str = "<!-- measured: end -->";

/// The measured part of the page.
///
/// # Errors
/// If the machine cannot be described.
pub fn render(rows: &[Row]) -> Result<String> {
    let mut page = String::new();
    writeln!(page, "Machine: {}\n", machine()?)?;
    writeln!(
        page,
        "Dataset: synthetic issue tracker, rows of 150 to 400 bytes, tenants' sizes by Zipf, from \
         a fixed seed. Ratios are medians of pairs taken in turns, with the least and the greatest."
    )?;
    writeln!(
        page,
        "\n| what | figure | beside | target | reached |\n| --- | --- | --- | --- | --- |"
    )?;
    for row in rows {
        let reached = match row.reached {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "",
        };
        let Row {
            what,
            figure,
            beside,
            target,
            ..
        } = row;
        writeln!(
            page,
            "| {what} | {figure} | {beside} | {target} | {reached} |"
        )?;
    }
    Ok(page)
}

/// Puts the measured part into the page between its marks, and leaves the rest as it is.
///
/// # Errors
/// If the page is not there or has no marks.
pub fn write(measured: &str) -> Result<()> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks.md");
    let page = std::fs::read_to_string(&path).context("read docs/benchmarks.md")?;
    let (before, rest) = page
        .split_once(BEGIN)
        .context("the page has no mark to begin at")?;
    let (_, after) = rest
        .split_once(END)
        .context("the page has no mark to end at")?;
    let page = format!("{before}{BEGIN}\n{measured}\n{END}{after}");
    std::fs::write(&path, page).context("write docs/benchmarks.md")
}

/// What it was measured on, and when.
///
/// # Errors
/// If that cannot be found out.
pub fn machine() -> Result<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").context("read the processor's name")?;
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |line| {
        line.trim_start_matches([' ', '\t', ':'])
    });
    let cores = std::thread::available_parallelism()?;
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map_or_else(
            |_| "unknown".to_owned(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    };
    let (kernel, rustc) = (run("uname", &["-sr"]), run("rustc", &["--version"]));
    let date = run("date", &["-u", "+%Y-%m-%d"]);
    Ok(format!(
        "{model}, {cores} cores; {kernel}; {rustc}; measured {date}"
    ))
}
