//! The most memory that capturing a large store and restoring a large tenant takes.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use reinstate_benches::{Site, SiteOptions, peak_memory_bytes, restore_once};

use super::Row;

const BUDGET_BYTES: u64 = 512 << 20;

pub fn measure(full: bool) -> Result<Vec<Row>> {
    let program = std::env::current_exe().context("find this program")?;
    let mut child = Command::new(program);
    if full {
        child.arg("--full");
    }
    let output = child
        .arg("--large")
        .output()
        .context("run this program again")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout)?;
    let peak: u64 = text.trim().parse().context("the child said no number")?;
    let (store, tenant) = sizes(full);
    Ok(vec![Row {
        what: format!("peak memory: capture of {store} rows, restore of {tenant}"),
        figure: format!("{} MiB", peak >> 20),
        beside: "the whole process, store's cache included".to_owned(),
        target: "at most 512 MiB",
        reached: Some(peak <= BUDGET_BYTES),
    }])
}

/// Does the work in this process and prints its peak.
pub fn child(full: bool) -> Result<()> {
    let (row_count, large) = sizes(full);
    let site = Site::create(&SiteOptions {
        tenant_count: 1_000,
        row_count,
        large_tenant_rows: Some(large),
        ..SiteOptions::default()
    })?;
    let tenant = site.tenant_of_about(large);
    restore_once(&site, &tenant)?;
    println!("{}", peak_memory_bytes()?);
    Ok(())
}

fn sizes(full: bool) -> (u64, u64) {
    if full {
        (10_000_000, 2_000_000)
    } else {
        (1_000_000, 200_000)
    }
}
