//! A report that can be shown: one HTML file that needs no network, runs no program, and holds no
//! contents of rows.

mod campaign;
mod job;
mod page;

use std::io::Write as _;
use std::path::Path;

use anyhow::anyhow;
use askama::Template;
use reinstate::{StoredPlan, jobs, merge_receipt_of};
use reinstate_core::{ChangeCounts, ErrorKind, LiveStore, TenantId, Timestamp};
use serde::Serialize;

use crate::arguments::Report;
use crate::commands::{find_job, parse_tenant};
use crate::console::Console;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::counted;
use crate::session::{Session, now};

use page::Page;

pub use campaign::Seen;

/// `report JOB -o FILE`.
pub fn run(arguments: &Report, session: &Session<'_>) -> anyhow::Result<Exit> {
    let repository = session.repository()?;
    let job = find_job(&jobs(&repository)?, &arguments.job)?;
    let only = arguments.tenant.as_deref().map(parse_tenant).transpose()?;
    let only = only.as_ref().map(|tenant| &tenant.id);
    let store = std::cell::OnceCell::new();
    let journal = |plan: &StoredPlan, tenant: &TenantId| {
        let store: &anyhow::Result<Box<dyn LiveStore>> = store.get_or_init(|| session.store());
        let live = match store {
            Ok(live) => live.as_ref(),
            Err(error) => return Err(anyhow!("{error:#}")),
        };
        let Some(entry) = live.journal_entry(job, tenant)? else {
            return Ok(None);
        };
        let receipt = merge_receipt_of(plan, live, &repository, &entry)?;
        Ok(receipt.committed.map(job::Commit::from))
    };
    let page = job::page(&repository, job, only, &journal, now())?;
    write(session.console, &page, &arguments.out)
}

/// Writes what a campaign did, or what it did for one site.
///
/// # Errors
/// As [`campaign::page`], and if the file cannot be written.
pub fn write_campaign(
    console: &Console,
    seen: &Seen<'_>,
    only: Option<&TenantId>,
    out: &Path,
) -> anyhow::Result<Exit> {
    let page = campaign::page(seen, only, now())?;
    write(console, &page, out)
}

/// What a restore to a moment in the past leaves out, whatever it did: what was written from then until
/// it was planned. What is known of it are the rows that were still there.
fn data_loss_window(
    after: Timestamp,
    before: Timestamp,
    counts: ChangeCounts,
    how: &str,
) -> String {
    let mut text = format!(
        "Data loss window: what was written after {after} and before {before} is not in the restored rows"
    );
    if counts.deleted + counts.put_back == 0 {
        text.push_str(". Nothing of it was still there to be deleted or overwritten.");
        return text;
    }
    text.push_str(&format!(
        ". Deleted: {}. Newer values lost: {}. {how}",
        counted(counts.deleted, "newer row", "newer rows"),
        counted(counts.put_back, "row", "rows"),
    ));
    text
}

#[derive(Serialize)]
struct ReportRecord {
    #[serde(rename = "type")]
    record: &'static str,
    file: String,
    outcome: String,
    tenants: usize,
    bytes: usize,
}

/// Writes the page to a file that does not exist yet.
fn write(console: &Console, page: &Page, path: &Path) -> anyhow::Result<Exit> {
    let text = page.render()?;
    let failed = |error: std::io::Error| {
        let kind = match error.kind() {
            std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::NotFound => ErrorKind::Usage,
            std::io::ErrorKind::StorageFull => ErrorKind::Full,
            _ => ErrorKind::Other,
        };
        Failure::new(kind, format!("write the report {}", path.display()))
            .because(error)
            .next("choose another --out: the file must not exist, its directory must")
    };
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".reinstate-report-")
        .tempfile_in(directory)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist_noclobber(path)
        .map_err(|error| failed(error.error))?;
    console.record(&ReportRecord {
        record: "report",
        file: path.display().to_string(),
        outcome: page.status.label.clone(),
        tenants: page.subjects.len(),
        bytes: text.len(),
    });
    console.line(format_args!(
        "report   {}: {}",
        path.display(),
        page.status.label
    ));
    Ok(Exit::Done)
}
