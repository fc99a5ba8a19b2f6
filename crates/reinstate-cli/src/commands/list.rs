//! `snapshots` and `tenants`: what can be restored.

use reinstate::{find_snapshot, snapshots as all_snapshots, tenants as all_tenants, tenants_at};
use reinstate_core::{Owner, Silent, SnapshotDescription, TenantId, TenantKind};

use crate::arguments;
use crate::console::Console;
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
    let wanted = Match::of(arguments.nearest_before).exclusive(arguments.exclusive);
    let repository = session.repository()?;
    let resolved = session.resolve(&repository, None, &point, wanted)?;
    resolved.announce(session.console, &point);
    let snapshot = &resolved.snapshot;
    let mut listed = Listed {
        console: session.console,
        kind: &snapshot.tenant_kind,
        count: 0,
        lines: Vec::new(),
    };
    if resolved.point.position == snapshot.position {
        all_tenants(&repository, snapshot, |summary| {
            let bytes = Some((summary.plain_bytes, summary.stored_bytes));
            listed.add(&summary.tenant, summary.row_count, bytes);
            Ok(())
        })?;
    } else {
        let context = session.context(&Silent);
        let position = resolved.point.position;
        tenants_at(
            context,
            &repository,
            &resolved.log,
            position,
            |tenant, rows| {
                listed.add(tenant, rows, None);
                Ok(())
            },
        )?;
    }
    listed.end();
    Ok(Exit::Done)
}

/// Tenants that are listed.
struct Listed<'a> {
    console: &'a Console,
    kind: &'a TenantKind,
    count: u64,
    lines: Vec<Vec<String>>,
}

impl Listed<'_> {
    /// Adds a tenant; what its rows take is known of snapshots.
    fn add(&mut self, id: &TenantId, rows: u64, taken: Option<(u64, u64)>) {
        let name = tenant(self.kind, id).to_string();
        self.count += 1;
        if self.console.is_json() {
            self.console.record(&TenantRecord {
                record: "tenant",
                tenant: name,
                rows,
                plain_bytes: taken.map(|(plain, _)| plain),
                stored_bytes: taken.map(|(_, stored)| stored),
            });
            return;
        }
        let mut cells = vec![name, count(rows)];
        cells.extend(
            taken
                .iter()
                .flat_map(|(plain, stored)| [bytes(*plain), bytes(*stored)]),
        );
        self.lines.push(cells);
    }

    fn end(self) {
        let has_bytes = self.lines.iter().any(|cells| cells.len() > 2);
        let header = ["tenant", ">rows", ">plain", ">stored"];
        let header = if has_bytes { &header[..] } else { &header[..2] };
        let lines = grid(header, self.lines);
        lines.iter().for_each(|line| self.console.line(line));
        let tenants = counted(self.count, "tenant", "tenants");
        self.console.line(format_args!(" {tenants}"));
    }
}
