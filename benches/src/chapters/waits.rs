//! Other tenants' writers with and without a restore: the table of docs/guarantees.md.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use reinstate_benches::{
    ForeignKeys, PostgresSite, PostgresWriters, Site, SiteOptions, Waits, Writers,
};

use crate::page::machine;

const PAGE: &str = "../docs/guarantees.md";
const BEGIN: &str = "<!-- waits: cargo run --release -p reinstate-benches -- --waits --write -->";
const END: &str = "<!-- end of waits -->";

const WRITERS: usize = 4;
const PAUSE: Duration = Duration::from_millis(5);
const IDLE: Duration = Duration::from_secs(4);
const ROUNDS: u32 = 3;
const RESTORED_TENANTS: usize = 60;
/// Sizes of one tenant that is restored alone. The greatest there is stands for the last.
const ROWS: [u64; 2] = [10_000, 100_000];

/// The table.
///
/// # Errors
/// As the stores report it.
pub fn measure() -> Result<String> {
    let mut table = format!(
        "Machine: {}. {WRITERS} writers of tenants that are not restored, each pausing {} ms between two durable \
         transactions; times in milliseconds.\n\n\
         | store | meanwhile | p50 | p99 | max | transactions |\n| --- | --- | --- | --- | --- | --- |\n",
        machine()?,
        PAUSE.as_millis()
    );
    embedded(&mut table)?;
    postgres(&mut table)?;
    Ok(table)
}

/// Puts the table into its page.
///
/// # Errors
/// If the page is not there or has no marks.
pub fn write(table: &str) -> Result<()> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = std::fs::read_to_string(&path).context("read docs/guarantees.md")?;
    let (before, rest) = page.split_once(BEGIN).context("no place for the waits")?;
    let (_, after) = rest.split_once(END).context("no end of the waits")?;
    let page = format!("{before}{BEGIN}\n\n{table}\n{END}{after}");
    std::fs::write(&path, page).context("write docs/guarantees.md")
}

fn add(table: &mut String, store: &str, meanwhile: &str, waits: &Waits) -> Result<()> {
    let [median, most, greatest] = [0.5, 0.99, 1.0].map(|part| waits.quantile_ms(part));
    writeln!(
        table,
        "| {store} | {meanwhile} | {median:.1} | {most:.1} | {greatest:.1} | {} |",
        waits.count()
    )?;
    Ok(())
}

fn embedded(table: &mut String) -> Result<()> {
    let site = Site::create(&SiteOptions::default())?;
    let by_size = site.tenants_by_size();
    let others = by_size.iter().skip(RESTORED_TENANTS).take(WRITERS);
    let writers = Writers::new(others.cloned().collect(), PAUSE);
    let (_, idle) = writers.during(&site, || {
        thread::sleep(IDLE);
        Ok(())
    })?;
    add(table, "embedded", "nothing", &idle)?;
    for row_count in ROWS {
        let tenant = [site.tenant_of_about(row_count)];
        let what = format!("restore of a tenant of {} rows", site.row_count(&tenant[0]));
        let waits = rounds(|| {
            site.delete_all(&tenant)?;
            Ok(writers.during(&site, || site.restore(&tenant))?.1)
        })?;
        add(table, "embedded", &what, &waits)?;
    }
    let many = &by_size[..RESTORED_TENANTS];
    let waits = rounds(|| {
        site.delete_all(many)?;
        Ok(writers.during(&site, || site.restore(many))?.1)
    })?;
    let what = format!("restore of {RESTORED_TENANTS} tenants");
    add(table, "embedded", &what, &waits)
}

fn postgres(table: &mut String) -> Result<()> {
    let site = PostgresSite::create(ForeignKeys::All)?;
    let by_size = site.tenants_by_size();
    let others: Vec<_> = by_size
        .iter()
        .skip(RESTORED_TENANTS)
        .take(WRITERS)
        .cloned()
        .collect();
    let mut writers = PostgresWriters::connect(&site, &others, PAUSE)?;
    let (_, idle) = writers.during(|| {
        thread::sleep(IDLE);
        Ok(())
    })?;
    add(table, "PostgreSQL", "nothing", &idle)?;
    for row_count in ROWS {
        let tenant = [site.tenant_of_about(row_count)];
        let what = format!(
            "restore of a tenant of {} rows",
            site.text(&tenant[0])?.row_count()
        );
        let waits = rounds(|| {
            site.delete(&tenant)?;
            Ok(writers.during(|| site.restore(&tenant))?.1)
        })?;
        add(table, "PostgreSQL", &what, &waits)?;
    }
    let many = &by_size[..RESTORED_TENANTS];
    let waits = rounds(|| {
        site.delete(many)?;
        Ok(writers.during(|| site.restore(many))?.1)
    })?;
    let what = format!("restore of {RESTORED_TENANTS} tenants");
    add(table, "PostgreSQL", &what, &waits)
}

fn rounds(mut round: impl FnMut() -> Result<Waits>) -> Result<Waits> {
    let mut waits = Waits::default();
    for _ in 0..ROUNDS {
        waits.extend(round()?);
    }
    Ok(waits)
}
