//! `window`: which points in time can be gone back to.

use std::sync::Arc;

use reinstate::{Log, RestorePoint, extract_at};
use reinstate_core::{Commit, ErrorKind, Repository, Silent, Tenant};
use serde::Serialize;

use super::tenants::parse_tenant;
use crate::arguments::Window;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::{count, counted, grid};
use crate::session::Session;

#[derive(Serialize)]
struct RangeRecord {
    #[serde(rename = "type")]
    record: &'static str,
    snapshot: String,
    from_time: String,
    from_position: String,
    to_time: Option<String>,
    to_position: String,
    runs: u64,
    commits: u64,
    changes: u64,
    stored_bytes: u64,
    rows_at_start: Option<u64>,
    rows_at_end: Option<u64>,
}

#[derive(Serialize)]
struct GapRecord {
    #[serde(rename = "type")]
    record: &'static str,
    from_time: Option<String>,
    from_position: String,
    to_time: String,
    to_position: String,
}

/// `window [TENANT]`.
pub fn run(arguments: &Window, session: &Session<'_>) -> anyhow::Result<Exit> {
    let tenant = arguments.tenant.as_deref().map(parse_tenant).transpose()?;
    let repository = session.repository()?;
    let logs = session.logs_of(&repository, None)?;
    let console = session.console;
    let Some(first) = logs.first() else {
        let message = "there is no snapshot of this store yet";
        return Err(Failure::new(ErrorKind::NotFound, message)
            .next("reinstate capture once")
            .into());
    };
    if let Some(tenant) = &tenant
        && tenant.kind != first.snapshot().tenant_kind
    {
        let kind = first.snapshot().tenant_kind.as_str();
        let message = format!("{tenant}: the store's tenants are of kind {kind:?}");
        return Err(Failure::usage(message)
            .next("see which tenants there are: reinstate tenants")
            .into());
    }
    let mut lines = Vec::new();
    let mut end: Option<(Arc<Log>, Option<Commit>)> = None;
    let mut gap_count: u64 = 0;
    for log in &logs {
        if let Some((before, last)) = &end
            && before.through() < log.snapshot().position
        {
            gap_count += 1;
            lines.push(gap(session, before, *last, log));
        }
        let last = last_commit(&repository, log)?;
        let rows = rows(session, &repository, log, tenant.as_ref())?;
        lines.push(range(session, log, last, rows));
        if end
            .as_ref()
            .is_none_or(|(before, _)| before.through() <= log.through())
        {
            end = Some((Arc::clone(log), last));
        }
    }
    let header = ["from", "to", "snapshot", ">runs", ">commits", ">rows"];
    grid(&header, lines)
        .iter()
        .for_each(|line| console.line(line));
    if gap_count > 0 {
        console.line(format_args!(
            " {} that cannot be gone back to",
            counted(gap_count, "gap", "gaps")
        ));
    }
    Ok(Exit::Done)
}

/// The last commit that a log has.
fn last_commit(repository: &dyn Repository, log: &Log) -> anyhow::Result<Option<Commit>> {
    let around = log.around(repository, log.through())?;
    Ok(around.and_then(|around| around.before))
}

/// How many rows a tenant has at both ends of a log.
fn rows(
    session: &Session<'_>,
    repository: &dyn Repository,
    log: &Log,
    tenant: Option<&Tenant>,
) -> anyhow::Result<Option<(u64, u64)>> {
    let Some(tenant) = tenant else {
        return Ok(None);
    };
    let rows_at = |position| {
        let point = RestorePoint {
            position,
            time: log.snapshot().taken_at,
        };
        match extract_at(session.context(&Silent), repository, log, point, tenant) {
            Ok(image) => Ok(image.tables().map(|table| image.row_count(table)).sum()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    };
    let start = rows_at(log.snapshot().position)?;
    Ok(Some((start, rows_at(log.through())?)))
}

fn range(
    session: &Session<'_>,
    log: &Log,
    last: Option<Commit>,
    rows: Option<(u64, u64)>,
) -> Vec<String> {
    let snapshot = log.snapshot();
    let runs = log.runs();
    let sum = |of: fn(&reinstate::LogRun) -> u64| runs.iter().map(|run| of(run)).sum();
    let record = RangeRecord {
        record: "range",
        snapshot: snapshot.id.to_string(),
        from_time: snapshot.taken_at.to_string(),
        from_position: snapshot.position.display(snapshot.notation),
        to_time: last.map(|commit| commit.time.to_string()),
        to_position: log.through().display(snapshot.notation),
        runs: runs.len() as u64,
        commits: sum(|run| run.description.commit_count),
        changes: sum(|run| run.description.extent.change_count),
        stored_bytes: sum(|run| run.description.extent.segment_bytes),
        rows_at_start: rows.map(|(start, _)| start),
        rows_at_end: rows.map(|(_, end)| end),
    };
    session.console.record(&record);
    let to = if log.through() == snapshot.position {
        "(this point only)".to_owned()
    } else {
        let time = record.to_time.as_deref().unwrap_or("no commit yet");
        format!("{time} = {}", record.to_position)
    };
    let held = match rows {
        None => String::new(),
        Some((start, end)) if start == end => count(start),
        Some((start, end)) => format!("{} to {}", count(start), count(end)),
    };
    vec![
        format!("{} = {}", record.from_time, record.from_position),
        to,
        snapshot.id.short(),
        count(record.runs),
        count(record.commits),
        held,
    ]
}

fn gap(session: &Session<'_>, before: &Log, last: Option<Commit>, next: &Log) -> Vec<String> {
    let snapshot = next.snapshot();
    let record = GapRecord {
        record: "gap",
        from_time: last.map(|commit| commit.time.to_string()),
        from_position: before.through().display(snapshot.notation),
        to_time: snapshot.taken_at.to_string(),
        to_position: snapshot.position.display(snapshot.notation),
    };
    session.console.record(&record);
    let mut cells = vec![
        format!("! gap after {}", record.from_position),
        format!("until {}", record.to_position),
    ];
    cells.resize(6, String::new());
    cells
}
