//! `show`: a saved plan, and the rows in it.

use reinstate::{Context, PlanDescription, RestorePlan, TenantHistory, TenantPlanDescription};
use reinstate_core::{
    ChangeSource, Commit, PositionNotation, RowRef, RowRole, Silent, TableIndex, TableSchema,
};

use super::stream::{Rows, for_each_row};
use crate::adapters;
use crate::arguments::{Global, Show};
use crate::console::Console;
use crate::exit::Exit;
use crate::render::{
    ChangeRecord, LISTED_CONFLICTS_MAX, key_parts, key_text, plan_head, plan_tables, record_plan,
    row_text, row_value, tenant,
};
use crate::session::Engine;
use crate::signals::Interruption;

/// `show FILE`. Needs neither configuration nor repository.
pub fn run(
    arguments: &Show,
    global: &Global,
    console: &Console,
    interruption: &Interruption,
) -> anyhow::Result<Exit> {
    let (_, plan) = adapters::open_plan_file(&arguments.file)?;
    let description = plan.description();
    let file = arguments.file.display().to_string();
    record_plan(console, description, plan.digest(), Some(&file));
    let lines = plan_head(description)
        .into_iter()
        .chain(plan_tables(description));
    lines.for_each(|line| console.line(line));
    console.line(format_args!("plan     {}", plan.digest()));
    if arguments.rows {
        let engine = Engine::start(global)?;
        let context = engine.context(&Silent, interruption.cancellation());
        let values = Values::of(arguments.show_values);
        for part in &description.tenants {
            show_rows(console, context, &plan, part, values)?;
        }
    }
    Ok(Exit::Done)
}

/// Whether rows are shown with their values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Only their keys.
    Hidden,
    /// Everything: it was asked for by name.
    Shown,
}

impl Values {
    /// What the flag `--show-values` means.
    #[must_use]
    pub const fn of(show_values: bool) -> Self {
        if show_values {
            Self::Shown
        } else {
            Self::Hidden
        }
    }
}

/// Lists the rows of one tenant that a plan changes.
///
/// # Errors
/// `Altered` if the plan is damaged.
pub fn show_rows(
    console: &Console,
    context: Context<'_>,
    plan: &RestorePlan,
    part: &TenantPlanDescription,
    values: Values,
) -> anyhow::Result<()> {
    let description = plan.description();
    let name = tenant(&description.tenant_kind, &part.tenant).to_string();
    let changes = plan.changes(context, &part.tenant)?;
    for &index in changes.shared_tables() {
        let shower = Shower {
            console,
            tenant: &name,
            table: description.schema.table(index),
            values,
            past: None,
        };
        for_each_row(changes.rows(index, RowRole::SharedCreated)?, |row| {
            shower.show("create_shared", None, Some(row));
            !console.is_closed()
        })?;
    }
    for &index in changes.tables() {
        let table = description.schema.table(index);
        let shower = Shower {
            console,
            tenant: &name,
            table,
            values,
            past: None,
        };
        for (role, change) in [
            (RowRole::Created, "create"),
            (RowRole::Deleted, "delete"),
            (RowRole::PutBackBefore, "put_back"),
        ] {
            let mut rows = Rows::new(changes.rows(index, role)?);
            let mut after = match role {
                RowRole::PutBackBefore => {
                    Some(Rows::new(changes.rows(index, RowRole::PutBackAfter)?))
                }
                _ => None,
            };
            let mut last_changes = changes.last_changes(index, role)?;
            while !console.is_closed() && rows.advance()? {
                if let Some(after) = &mut after {
                    after.advance()?;
                }
                let by = last_changes.advance()?;
                let by = by.map(|commit| written(commit, description.notation));
                let row = rows.current();
                match role {
                    RowRole::Created => shower.show_by(change, None, row, by),
                    _ => shower.show_by(change, row, after.as_ref().and_then(Rows::current), by),
                }
            }
        }
    }
    if part.conflicts.len() > LISTED_CONFLICTS_MAX {
        // Fewer are listed with the counts already.
        show_conflicts(console, description, part, &name);
    }
    Ok(())
}

fn show_conflicts(
    console: &Console,
    plan: &PlanDescription,
    part: &TenantPlanDescription,
    name: &str,
) {
    for conflict in &part.conflicts {
        let table = plan.schema.table(conflict.table);
        console.line(format_args!(
            "! {name} {} {}: {}",
            table.name,
            key_text(table, &conflict.key),
            conflict.constraint
        ));
    }
}

/// Shows rows of one table.
#[derive(Clone, Copy, Debug)]
pub struct Shower<'a> {
    /// Where to.
    pub console: &'a Console,
    /// Whose.
    pub tenant: &'a str,
    /// The table.
    pub table: &'a TableSchema,
    /// With their values or not.
    pub values: Values,
    /// Which transactions changed them.
    pub past: Option<Past<'a>>,
}

/// What the change log says about the rows of one table.
#[derive(Clone, Copy, Debug)]
pub struct Past<'a> {
    /// What it says about the tenant.
    pub history: &'a TenantHistory,
    /// The table, as the log numbers it.
    pub table: TableIndex,
    /// How the store writes positions.
    pub notation: PositionNotation,
}

impl Past<'_> {
    /// Where and when the row was changed last.
    fn of(&self, row: RowRef<'_>) -> Option<(String, String)> {
        let commit = self
            .history
            .last_change(self.table, row.key(), row.columns())?;
        Some(written(commit, self.notation))
    }
}

/// A commit's position and time.
fn written(commit: Commit, notation: PositionNotation) -> (String, String) {
    let position = commit.position.display(notation);
    (position, commit.time.to_string())
}

impl Shower<'_> {
    /// Shows one row that is created, put back or deleted.
    pub fn show(&self, change: &str, before: Option<RowRef<'_>>, after: Option<RowRef<'_>>) {
        let by = after.or(before).zip(self.past);
        let by = by.and_then(|(row, past)| past.of(row));
        self.show_by(change, before, after, by);
    }

    /// The same, with the position and the time of the transaction that changed it last.
    fn show_by(
        &self,
        change: &str,
        before: Option<RowRef<'_>>,
        after: Option<RowRef<'_>>,
        by: Option<(String, String)>,
    ) {
        let Some(row) = after.or(before) else {
            return;
        };
        let is_shown = self.values == Values::Shown;
        let value = |row: Option<RowRef<'_>>| {
            row.filter(|_| is_shown)
                .map(|row| row_value(self.table, row))
        };
        let (position, time) = by.unzip();
        if self.console.is_json() {
            self.console.record(&ChangeRecord {
                record: "change",
                tenant: self.tenant,
                table: self.table.name.as_str(),
                change,
                key: key_parts(row.key()),
                before: value(before),
                after: value(after),
                held_by: None,
                position,
                time,
            });
            return;
        }
        let mark = match change {
            "create" | "create_shared" | "added" => '+',
            "delete" | "removed" => '-',
            _ => '~',
        };
        let key = key_text(self.table, row.key());
        let by = match (&position, &time) {
            (Some(position), Some(time)) => format!("    {position}, {time}"),
            _ => String::new(),
        };
        self.console.line(format_args!(
            "{mark} {} {} {key}{by}",
            self.tenant, self.table.name
        ));
        if is_shown {
            for (side, row) in [("was", before), ("is ", after)] {
                if let Some(row) = row {
                    let is_pair = before.is_some() && after.is_some();
                    let side = if is_pair { side } else { "   " };
                    self.console
                        .line(format_args!("    {side} {}", row_text(self.table, row)));
                }
            }
        }
    }
}
