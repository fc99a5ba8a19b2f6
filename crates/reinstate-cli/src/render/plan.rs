//! Plans: the head, the table of counts, and the records.

use std::collections::BTreeMap;

use reinstate::{NoteKind, PlanDescription, PlanNote, TablePlan, TenantPlanDescription};
use reinstate_core::{ConflictPolicy, Digest, Policy, Switch, TenantId};
use serde::Serialize;

use super::{bytes, count, counted, grid, key_text, tenant};
use crate::console::Console;
use crate::render::row::{ChangeRecord, key_parts};

/// How many tenants are shown table by table; with more, one line each.
const DETAILED_TENANTS_MAX: usize = 3;
/// How many conflicts are listed for people.
pub const LISTED_CONFLICTS_MAX: usize = 20;

/// How many notes of one kind are listed for people; obstacles all are.
const LISTED_NOTES_MAX: usize = 12;

/// What a plan comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Rows created.
    pub create: u64,
    /// Rows put back.
    pub put_back: u64,
    /// Rows deleted.
    pub delete: u64,
    /// Rows that are the same.
    pub same: u64,
    /// Rows that differ and stay.
    pub kept: u64,
    /// Rows whose place is taken.
    pub conflict: u64,
}

impl Totals {
    fn add(&mut self, table: &TablePlan) {
        self.create += table.counts.created;
        self.put_back += table.counts.put_back;
        self.delete += table.counts.deleted;
        self.same += table.same;
        self.kept += table.kept;
        self.conflict += table.conflicts;
    }

    /// Rows that change.
    #[must_use]
    pub const fn changed(&self) -> u64 {
        self.create + self.put_back + self.delete
    }

    fn cells(&self, name: String, has_kept: bool) -> Vec<String> {
        let mut cells = vec![
            name,
            count(self.create),
            count(self.put_back),
            count(self.delete),
            count(self.same),
            count(self.conflict),
        ];
        if has_kept {
            cells.push(count(self.kept));
        }
        cells
    }
}

/// What a plan does to all tenants together.
#[must_use]
pub fn totals(plan: &PlanDescription) -> Totals {
    let mut totals = Totals::default();
    for part in &plan.tenants {
        part.tables.iter().for_each(|table| totals.add(table));
    }
    totals
}

fn totals_of(part: &TenantPlanDescription) -> Totals {
    let mut totals = Totals::default();
    part.tables.iter().for_each(|table| totals.add(table));
    totals
}

/// Where the plan comes from and what it may do.
#[must_use]
pub fn plan_head(plan: &PlanDescription) -> Vec<String> {
    let mut lines = vec![format!(
        "target   {} = {}    snapshot {} of store {}",
        plan.point_time,
        plan.point.display(plan.notation),
        plan.snapshot.short(),
        plan.store.name
    )];
    if let Some(job) = plan.undoes {
        lines[0] = format!(
            "undoes   job {}, as far as nobody changed the rows since",
            job.short()
        );
    }
    lines.push(format!(
        "live     {} = {}    policy {}",
        plan.planned_at,
        plan.live_position.display(plan.notation),
        policy_text(plan.policy)
    ));
    lines
}

fn policy_text(policy: Policy) -> String {
    format!(
        "create={} put-back={} delete={} conflict={}",
        switch_text(policy.create),
        switch_text(policy.put_back),
        switch_text(policy.delete),
        conflict_text(policy.on_conflict)
    )
}

const fn switch_text(switch: Switch) -> &'static str {
    match switch {
        Switch::On => "on",
        Switch::Off => "off",
    }
}

const fn conflict_text(policy: ConflictPolicy) -> &'static str {
    match policy {
        ConflictPolicy::Fail => "fail",
        ConflictPolicy::KeepLive => "keep-live",
        ConflictPolicy::TakeSnapshot => "take-snapshot",
    }
}

/// The counts: a table for each tenant if there are few, else one line for each.
#[must_use]
pub fn plan_tables(plan: &PlanDescription) -> Vec<String> {
    let has_kept = totals(plan).kept > 0;
    let mut lines = Vec::new();
    if plan.tenants.len() <= DETAILED_TENANTS_MAX {
        for part in &plan.tenants {
            let whose = tenant(&plan.tenant_kind, &part.tenant);
            let own = totals_of(part);
            if own.changed() + own.conflict + own.kept == 0 {
                lines.push(format!("tenant   {whose}: no change"));
                continue;
            }
            lines.push(format!("tenant   {whose}"));
            lines.extend(counts_grid("table", has_kept, tables_of(plan, part)));
        }
    } else {
        let parts = plan.tenants.iter().map(|part| {
            let whose = tenant(&plan.tenant_kind, &part.tenant);
            (whose.to_string(), totals_of(part))
        });
        lines.extend(counts_grid("tenant", has_kept, parts));
    }
    lines.extend(conflict_lines(plan));
    lines.extend(note_lines(plan));
    let all = totals(plan);
    lines.push(format!(
        "total    {} to create, {} to put back, {} to delete, in {}",
        count(all.create),
        count(all.put_back),
        count(all.delete),
        counted(plan.tenants.len() as u64, "tenant", "tenants")
    ));
    if all.changed() > 0 {
        lines.push(format!(
            "undo     {}, {} kept before the first write",
            counted(all.changed(), "row", "rows"),
            bytes(plan.segment.stored_bytes)
        ));
    }
    lines
}

fn tables_of<'p>(
    plan: &'p PlanDescription,
    part: &'p TenantPlanDescription,
) -> impl Iterator<Item = (String, Totals)> {
    part.tables.iter().filter_map(|table| {
        let mut totals = Totals::default();
        totals.add(table);
        let is_empty = totals == Totals::default();
        let name = plan.schema.table(table.table).name.as_str();
        (!is_empty).then(|| (name.to_owned(), totals))
    })
}

fn counts_grid(
    first: &str,
    has_kept: bool,
    rows: impl Iterator<Item = (String, Totals)>,
) -> Vec<String> {
    let mut header = vec![
        first,
        ">+ create",
        ">~ put back",
        ">- delete",
        ">= same",
        ">! conflict",
    ];
    if has_kept {
        header.push(">kept as is");
    }
    grid(
        &header,
        rows.map(|(name, totals)| totals.cells(name, has_kept)),
    )
}

fn conflict_lines(plan: &PlanDescription) -> Vec<String> {
    let conflict_count = totals(plan).conflict;
    let all = plan.tenants.iter().flat_map(|part| {
        part.conflicts.iter().map(|conflict| {
            let table = plan.schema.table(conflict.table);
            format!(
                "! {} {} {}: {}",
                tenant(&plan.tenant_kind, &part.tenant),
                table.name,
                key_text(table, &conflict.key),
                conflict.constraint
            )
        })
    });
    let mut lines: Vec<String> = all.take(LISTED_CONFLICTS_MAX).collect();
    if conflict_count > lines.len() as u64 {
        lines.push(format!(
            "! and {} more conflicts: add --rows",
            count(conflict_count - lines.len() as u64)
        ));
    }
    lines
}

/// Every note of a plan, with the tenant it is about.
pub fn notes(plan: &PlanDescription) -> impl Iterator<Item = (Option<TenantId>, &PlanNote)> {
    let own = plan.tenants.iter().flat_map(|part| {
        let notes = part.notes.iter();
        notes.map(|note| (Some(part.tenant.clone()), note))
    });
    plan.notes.iter().map(|note| (None, note)).chain(own)
}

fn note_lines(plan: &PlanDescription) -> Vec<String> {
    let mut lines = Vec::new();
    let mut counts: BTreeMap<NoteKind, usize> = BTreeMap::new();
    for (whose, note) in notes(plan) {
        let count = counts.entry(note.kind).or_default();
        *count += 1;
        if *count <= LISTED_NOTES_MAX || note.kind.is_obstacle() {
            lines.push(note_line(plan, whose, note));
        }
    }
    for (kind, count) in counts {
        if count > LISTED_NOTES_MAX && !kind.is_obstacle() {
            let more = (count - LISTED_NOTES_MAX) as u64;
            lines.push(format!(
                "note     and {} more of the kind {}: add --json",
                self::count(more),
                kind.name()
            ));
        }
    }
    lines
}

fn note_line(plan: &PlanDescription, whose: Option<TenantId>, note: &PlanNote) -> String {
    let mark = match note.kind.is_obstacle() {
        true => "refuse",
        false => "note",
    };
    let whose = whose.map_or(String::new(), |id| {
        format!("{}: ", tenant(&plan.tenant_kind, &id))
    });
    let rows = match note.count {
        0 => String::new(),
        rows => format!(" ({})", counted(rows, "row", "rows")),
    };
    format!("{mark:8} {whose}{} {}{rows}", note.object, note.detail)
}

#[derive(Serialize)]
struct NoteRecord<'a> {
    #[serde(rename = "type")]
    record: &'static str,
    tenant: Option<String>,
    kind: &'static str,
    object: &'a str,
    detail: &'a str,
    rows: u64,
    obstacle: bool,
}

#[derive(Serialize)]
struct PlanRecord<'a> {
    #[serde(rename = "type")]
    record: &'static str,
    file: Option<String>,
    digest: String,
    job: String,
    store: &'a str,
    snapshot: String,
    point: String,
    point_time: String,
    planned_at: String,
    live_position: String,
    policy: PolicyRecord,
    undoes: Option<String>,
    tenants: usize,
    #[serde(flatten)]
    totals: Totals,
    plan_bytes: u64,
}

#[derive(Serialize)]
struct PolicyRecord {
    create: &'static str,
    put_back: &'static str,
    delete: &'static str,
    on_conflict: &'static str,
}

#[derive(Serialize)]
struct TableRecord<'a> {
    #[serde(rename = "type")]
    record: &'static str,
    tenant: String,
    table: &'a str,
    #[serde(flatten)]
    totals: Totals,
}

/// Writes the records of a plan: itself, its tables, its conflicts.
pub fn record_plan(console: &Console, plan: &PlanDescription, digest: Digest, file: Option<&str>) {
    if !console.is_json() {
        return;
    }
    console.record(&PlanRecord {
        record: "plan",
        file: file.map(ToOwned::to_owned),
        digest: digest.to_string(),
        job: plan.job.to_string(),
        store: &plan.store.name,
        snapshot: plan.snapshot.to_string(),
        point: plan.point.display(plan.notation),
        point_time: plan.point_time.to_string(),
        planned_at: plan.planned_at.to_string(),
        live_position: plan.live_position.display(plan.notation),
        policy: PolicyRecord {
            create: switch_text(plan.policy.create),
            put_back: switch_text(plan.policy.put_back),
            delete: switch_text(plan.policy.delete),
            on_conflict: conflict_text(plan.policy.on_conflict),
        },
        undoes: plan.undoes.map(|job| job.to_string()),
        tenants: plan.tenants.len(),
        totals: totals(plan),
        plan_bytes: plan.segment.stored_bytes,
    });
    for (whose, note) in notes(plan) {
        console.record(&NoteRecord {
            record: "plan_note",
            tenant: whose.map(|id| tenant(&plan.tenant_kind, &id).to_string()),
            kind: note.kind.name(),
            object: &note.object,
            detail: &note.detail,
            rows: note.count,
            obstacle: note.kind.is_obstacle(),
        });
    }
    for part in &plan.tenants {
        let whose = tenant(&plan.tenant_kind, &part.tenant).to_string();
        for table in &part.tables {
            let mut totals = Totals::default();
            totals.add(table);
            console.record(&TableRecord {
                record: "plan_table",
                tenant: whose.clone(),
                table: plan.schema.table(table.table).name.as_str(),
                totals,
            });
        }
        for conflict in &part.conflicts {
            console.record(&ChangeRecord {
                record: "change",
                tenant: &whose,
                table: plan.schema.table(conflict.table).name.as_str(),
                change: "conflict",
                key: key_parts(&conflict.key),
                before: None,
                after: None,
                held_by: Some(&conflict.constraint),
                position: None,
                time: None,
            });
        }
    }
}
