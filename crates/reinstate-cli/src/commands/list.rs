//! `snapshots` and `tenants`: what can be restored.

use reinstate::{find_snapshot, snapshots as all_snapshots, tenants as all_tenants};
use reinstate_core::{Owner, SnapshotDescription};

use crate::arguments;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::point::PointInTime;
use crate::render::{TenantRecord, bytes, count, counted, grid, snapshot_record, tenant};
use crate::resolve::Match;
use crate::session::Session;

/// `snapshots [ID]`.
pub fn snapshots(arguments: &arguments::Snapshots, session: &Session<'_>) -> anyhow::Result<Exit> {
    let repository = session.repository()?;
    let found = all_snapshots(&repository)?;
    let console = session.console;
    if let Some(prefix) = &arguments.id {
        let prefix = prefix.strip_prefix("snap:").unwrap_or(prefix);
        let snapshot = find_snapshot(&found, &prefix.to_ascii_lowercase()).map_err(|error| {
            Failure::new(error.kind(), error.to_string()).next("list them: reinstate snapshots")
        })?;
        console.record(&snapshot_record(snapshot));
        detail(session, snapshot);
        return Ok(Exit::Done);
    }
    for snapshot in &found {
        console.record(&snapshot_record(snapshot));
    }
    if found.is_empty() {
        console.line("no snapshots yet: reinstate capture once");
        return Ok(Exit::Done);
    }
    let rows = found.iter().map(|snapshot| {
        let record = snapshot_record(snapshot);
        vec![
            snapshot.id.short(),
            record.taken_at,
            record.position,
            record.store,
            count(record.tenants),
            count(record.rows),
            bytes(record.stored_bytes),
        ]
    });
    let header = [
        "id", "taken at", "position", "store", ">tenants", ">rows", ">stored",
    ];
    grid(&header, rows)
        .iter()
        .for_each(|line| console.line(line));
    Ok(Exit::Done)
}

fn detail(session: &Session<'_>, snapshot: &SnapshotDescription) {
    let console = session.console;
    let record = snapshot_record(snapshot);
    for (name, value) in [
        ("snapshot", record.id),
        ("store", format!("{} ({})", record.store, record.store_id)),
        ("taken at", record.taken_at),
        ("position", record.position),
        (
            "tenants",
            format!("{} of kind {}", count(record.tenants), record.tenant_kind),
        ),
        (
            "stored",
            format!(
                "{} of {}",
                bytes(record.stored_bytes),
                bytes(record.plain_bytes)
            ),
        ),
        ("segments", count(record.segments as u64)),
    ] {
        console.line(format_args!(" {name:<9} {value}"));
    }
    let rows = snapshot
        .totals
        .iter()
        .zip(snapshot.schema.tables())
        .map(|(total, table)| {
            vec![
                table.name.to_string(),
                count(total.row_count),
                bytes(total.plain_bytes),
                bytes(total.stored_bytes),
            ]
        });
    let lines = grid(&["table", ">rows", ">plain", ">stored"], rows);
    lines.iter().for_each(|line| console.line(line));
    for segment in &snapshot.segments {
        console.line(format_args!(
            " segment {}    {}, {} to {}",
            segment.object,
            bytes(segment.stored_bytes),
            owner(&segment.first_owner),
            owner(&segment.last_owner)
        ));
    }
}

fn owner(owner: &Owner) -> String {
    match owner {
        Owner::Shared => "shared rows".to_owned(),
        Owner::Tenant(id) => id.to_string(),
    }
}

/// `tenants [--at T]`.
pub fn tenants(arguments: &arguments::Tenants, session: &Session<'_>) -> anyhow::Result<Exit> {
    let point = PointInTime::parse(&arguments.at)?;
    let wanted = Match::of(arguments.nearest_before);
    let repository = session.repository()?;
    let resolved = session.resolve(&repository, None, &point, wanted)?;
    resolved.announce(session.console, &point);
    let snapshot = &resolved.snapshot;
    let console = session.console;
    if resolved.around.is_some() {
        console.warn(format_args!(
            "these are the tenants of snapshot {}: those that came later are not listed, and those \
             that went still are",
            snapshot.id.short()
        ));
    }
    let mut lines = Vec::new();
    all_tenants(&repository, snapshot, |summary| {
        let name = tenant(&snapshot.tenant_kind, &summary.tenant).to_string();
        if console.is_json() {
            console.record(&TenantRecord {
                record: "tenant",
                tenant: name,
                rows: summary.row_count,
                plain_bytes: summary.plain_bytes,
                stored_bytes: summary.stored_bytes,
            });
        } else {
            lines.push(vec![
                name,
                count(summary.row_count),
                bytes(summary.plain_bytes),
                bytes(summary.stored_bytes),
            ]);
        }
        Ok(())
    })?;
    let tenant_count = lines.len() as u64;
    let lines = grid(&["tenant", ">rows", ">plain", ">stored"], lines);
    lines.iter().for_each(|line| console.line(line));
    console.line(format_args!(
        " {}",
        counted(tenant_count, "tenant", "tenants")
    ));
    Ok(Exit::Done)
}
