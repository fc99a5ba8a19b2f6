//! `diff`: a tenant at two points in time, or then and now.
//!
//! Two snapshots are walked side by side. With the live store the engine's own comparison is
//! used: a plan that nobody applies.

use std::cmp::Ordering;
use std::sync::Arc;

use reinstate::{
    Context, OwnerCheck, PlanRequest, RestorePlan, TenantHistory, TenantImage, history_of, plan,
};
use reinstate_core::{
    ChangeSource, ErrorKind, LiveStore, Phase, Policy, PositionNotation, Repository, RowRef,
    RowRole, Silent, SnapshotDescription, TableIndex, TableSchema, Tenant, compare_rows,
};
use reinstate_repository::LocalRepository;
use serde::Serialize;

use super::show::{Past, Shower, Values};
use super::stream::{Rows, for_each_row};
use super::target::{Moment, parse_target};
use super::tenants::extract_all;
use crate::adapters;
use crate::arguments::Diff;
use crate::console::Console;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::point::PointInTime;
use crate::progress::Progress;
use crate::render::{count, counted, grid};
use crate::resolve::{Match, Resolved};
use crate::session::{Session, new_job, now};

/// How many transactions are listed for people.
const TRANSACTIONS_LISTED_MAX: usize = 20;

/// How a table differs, from the left side to the right.
#[derive(Clone, Debug, Default, Serialize)]
struct TableDiff {
    #[serde(rename = "type")]
    record: &'static str,
    tenant: String,
    table: String,
    added: u64,
    changed: u64,
    removed: u64,
    same: u64,
}

/// `diff TENANT@A [TENANT@B|live]`.
pub fn run(arguments: &Diff, session: &Session<'_>) -> anyhow::Result<Exit> {
    let (tenant, left) = parse_target(&arguments.left)?;
    let right = parse_right(&arguments.right, &tenant)?;
    let repository = session.repository()?;
    let side = Side {
        session,
        repository: &repository,
        arguments,
        tenant: &tenant,
    };
    let (differences, history) = match (left, right) {
        (Moment::Past(left), Moment::Live) => side.with_live(&left)?,
        (Moment::Past(left), Moment::Past(right)) => side.between(&left, &right)?,
        (Moment::Live, _) => {
            let message = "the left side is the earlier one: it cannot be live";
            return Err(Failure::usage(message)
                .next("reinstate diff TENANT@TIME live")
                .into());
        }
    };
    let console = session.console;
    if !arguments.rows {
        show_counts(console, &differences);
    }
    let is_different = differences
        .iter()
        .any(|table| table.added + table.changed + table.removed > 0);
    show_transactions(console, &tenant, &history);
    if !is_different {
        console.line(format_args!("{tenant}: no difference"));
    }
    if arguments.detailed_exitcode && is_different {
        return Ok(Exit::Changes);
    }
    Ok(Exit::Done)
}

/// What the change log says about the time between the two sides.
#[derive(Default)]
struct Between {
    history: TenantHistory,
    notation: Option<PositionNotation>,
    schema: Option<Arc<SnapshotDescription>>,
}

impl Between {
    /// What it says about the rows of this table.
    fn past(&self, table: &TableSchema) -> Option<Past<'_>> {
        let schema = &self.schema.as_ref()?.schema;
        let (index, _) = schema.find(table.name.as_str())?;
        Some(Past {
            history: &self.history,
            table: index,
            notation: self.notation?,
        })
    }
}

#[derive(Serialize)]
struct TransactionRecord {
    #[serde(rename = "type")]
    record: &'static str,
    tenant: String,
    position: String,
    time: String,
    inserted: u64,
    updated: u64,
    removed: u64,
    truncated_tables: u64,
}

/// Lists the transactions in between, for people only the latest.
fn show_transactions(console: &Console, tenant: &Tenant, between: &Between) {
    let Some(notation) = between.notation else {
        return;
    };
    let transactions = &between.history.transactions;
    let records = transactions.iter().map(|transaction| TransactionRecord {
        record: "transaction",
        tenant: tenant.to_string(),
        position: transaction.commit.position.display(notation),
        time: transaction.commit.time.to_string(),
        inserted: transaction.inserted,
        updated: transaction.updated,
        removed: transaction.removed,
        truncated_tables: transaction.truncated,
    });
    if console.is_json() {
        records.for_each(|record| console.record(&record));
        return;
    }
    if transactions.is_empty() {
        return;
    }
    let left_out = transactions.len().saturating_sub(TRANSACTIONS_LISTED_MAX);
    if left_out > 0 {
        let left_out = counted(left_out as u64, "transaction", "transactions");
        console.line(format_args!(" {left_out} before these; all with --json"));
    }
    let rows = records.skip(left_out).map(|record| {
        let mut removed = count(record.removed);
        if record.truncated_tables > 0 {
            let tables = counted(record.truncated_tables, "table emptied", "tables emptied");
            removed = format!("{removed}, {tables}");
        }
        let (inserted, updated) = (count(record.inserted), count(record.updated));
        vec![record.position, record.time, inserted, updated, removed]
    });
    let header = [
        "transaction",
        "committed at",
        ">+ inserted",
        ">~ updated",
        ">- removed",
    ];
    grid(&header, rows)
        .iter()
        .for_each(|line| console.line(line));
}

fn parse_right(text: &str, tenant: &Tenant) -> Result<Moment, Failure> {
    if !text.contains('@') {
        return Moment::parse(text);
    }
    let (other, moment) = parse_target(text)?;
    if other == *tenant {
        return Ok(moment);
    }
    Err(Failure::usage(format!(
        "{tenant} and {other}: a tenant is compared with itself"
    )))
}

fn show_counts(console: &Console, differences: &[TableDiff]) {
    differences.iter().for_each(|table| console.record(table));
    let changed = differences
        .iter()
        .filter(|t| t.added + t.changed + t.removed > 0);
    let rows: Vec<_> = changed
        .map(|table| {
            let numbers = [table.added, table.changed, table.removed, table.same];
            let mut cells = vec![table.table.clone()];
            cells.extend(numbers.map(count));
            cells
        })
        .collect();
    if !rows.is_empty() {
        let header = ["table", ">+ added", ">~ changed", ">- removed", ">= same"];
        grid(&header, rows)
            .iter()
            .for_each(|line| console.line(line));
    }
}

#[derive(Clone, Copy)]
struct Side<'a> {
    session: &'a Session<'a>,
    repository: &'a LocalRepository,
    arguments: &'a Diff,
    tenant: &'a Tenant,
}

impl Side<'_> {
    fn shower<'s>(
        &'s self,
        name: &'s str,
        table: &'s TableSchema,
        between: &'s Between,
    ) -> Option<Shower<'s>> {
        self.arguments.rows.then_some(Shower {
            console: self.session.console,
            tenant: name,
            table,
            values: Values::of(self.arguments.show_values),
            past: between.past(table),
        })
    }

    /// What the log of the left side says about the time up to the right one.
    fn history(&self, left: &Resolved, right: Option<&Resolved>) -> anyhow::Result<Between> {
        let log = &left.log;
        let end = log.through();
        let through = right.map_or(end, |right| right.point.position.min(end));
        if log.runs().is_empty() || through <= left.point.position {
            return Ok(Between::default());
        }
        if right.is_none_or(|right| right.point.position > end) {
            let end = end.display(log.snapshot().notation);
            self.session.console.note(format_args!(
                "the change log ends at {end}: transactions behind it are not listed"
            ));
        }
        let range = (left.point.position, through);
        let context = self.session.context(&Silent);
        Ok(Between {
            history: history_of(context, self.repository, log, &self.tenant.id, range)?,
            notation: Some(log.snapshot().notation),
            schema: Some(log.snapshot_at(through)),
        })
    }

    /// From a snapshot to the live store.
    fn with_live(&self, left: &PointInTime) -> anyhow::Result<(Vec<TableDiff>, Between)> {
        let Self {
            session,
            repository,
            ..
        } = *self;
        let store = session.store()?;
        let wanted = Match::of(self.arguments.nearest_before);
        let resolved = session.resolve(repository, Some(store.as_ref()), left, wanted)?;
        resolved.announce(session.console, left);
        let tenants = [self.tenant.clone()];
        let images = extract_all(session.context(&Silent), repository, &resolved, &tenants)?;
        let progress = Progress::new(&[Phase::Plan], 1);
        let directory = tempfile::tempdir_in(session.spill_directory())?;
        let file = directory.path().join("diff.plan");
        let context = session.context(&progress);
        let plan = plan_to(
            context,
            repository,
            &images,
            store.as_ref(),
            self.session,
            &file,
        )?;
        progress.clear();
        let between = self.history(&resolved, None)?;
        Ok((self.differences_of(context, &plan, &between)?, between))
    }

    /// A plan goes back; a difference goes forward: what would be created was removed since.
    fn differences_of(
        &self,
        context: Context<'_>,
        plan: &RestorePlan,
        between: &Between,
    ) -> anyhow::Result<Vec<TableDiff>> {
        let description = plan.description();
        let name = self.tenant.to_string();
        let mut differences = Vec::new();
        let changes = plan.changes(context, &self.tenant.id)?;
        for part in description.tenants.iter().flat_map(|part| &part.tables) {
            let table = description.schema.table(part.table);
            differences.push(TableDiff {
                record: "table_diff",
                tenant: name.clone(),
                table: table.name.to_string(),
                added: part.counts.deleted,
                changed: part.counts.put_back,
                removed: part.counts.created + part.conflicts,
                same: part.same,
            });
            let Some(shower) = self.shower(&name, table, between) else {
                continue;
            };
            for_each_row(changes.rows(part.table, RowRole::Created)?, |row| {
                shower.show("removed", Some(row), None);
                !self.session.console.is_closed()
            })?;
            for_each_row(changes.rows(part.table, RowRole::Deleted)?, |row| {
                shower.show("added", None, Some(row));
                !self.session.console.is_closed()
            })?;
            let mut then = Rows::new(changes.rows(part.table, RowRole::PutBackAfter)?);
            let mut live = Rows::new(changes.rows(part.table, RowRole::PutBackBefore)?);
            while then.advance()? && live.advance()? {
                shower.show("changed", then.current(), live.current());
            }
        }
        Ok(differences)
    }

    /// From a snapshot to another.
    fn between(
        &self,
        left: &PointInTime,
        right: &PointInTime,
    ) -> anyhow::Result<(Vec<TableDiff>, Between)> {
        let (from, to) = (self.point(left)?, self.point(right)?);
        let between = self.history(&from, Some(&to))?;
        let (left, right) = (self.image(&from)?, self.image(&to)?);
        let Some(schema) = left
            .as_ref()
            .or(right.as_ref())
            .map(|image| &image.snapshot().schema)
        else {
            let message = format!("there is no row of {} at either point", self.tenant);
            return Err(Failure::new(ErrorKind::NotFound, message).into());
        };
        if let (Some(left), Some(right)) = (&left, &right)
            && left.snapshot().schema != right.snapshot().schema
        {
            let message = "the tables changed between the two snapshots: their rows cannot be \
                           compared";
            return Err(Failure::new(ErrorKind::Refused, message)
                .next("reinstate export")
                .into());
        }
        let name = self.tenant.to_string();
        let mut differences = Vec::new();
        for (index, table) in schema
            .iter()
            .filter(|(_, table)| table.tenancy.is_tenant_owned())
        {
            let shower = self.shower(&name, table, &between);
            let pair = (left.as_ref(), right.as_ref());
            let mut counts = self.walk(index, pair, shower)?;
            counts.record = "table_diff";
            counts.tenant.clone_from(&name);
            counts.table = table.name.to_string();
            differences.push(counts);
        }
        Ok((differences, between))
    }

    fn point(&self, point: &PointInTime) -> anyhow::Result<Resolved> {
        let wanted = Match::of(self.arguments.nearest_before);
        let resolved = self.session.resolve(self.repository, None, point, wanted)?;
        resolved.announce(self.session.console, point);
        Ok(resolved)
    }

    /// The tenant at a point in time, if it has rows then.
    fn image(&self, resolved: &Resolved) -> anyhow::Result<Option<TenantImage>> {
        let context = self.session.context(&Silent);
        match resolved.image(context, self.repository, self.tenant) {
            Ok(image) => Ok(Some(image)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn walk(
        &self,
        table: TableIndex,
        (left, right): (Option<&TenantImage>, Option<&TenantImage>),
        shower: Option<Shower<'_>>,
    ) -> anyhow::Result<TableDiff> {
        let context = self.session.context(&Silent);
        let rows = |image: Option<&TenantImage>| {
            image.map(|image| Rows::new(Box::new(image.rows(context, table))))
        };
        let (mut left, mut right) = (rows(left), rows(right));
        let advance = |rows: &mut Option<Rows<'_>>| rows.as_mut().map_or(Ok(false), Rows::advance);
        let show = |change: &str, before: Option<RowRef<'_>>, after: Option<RowRef<'_>>| {
            if let Some(shower) = shower {
                shower.show(change, before, after);
            }
        };
        let mut counts = TableDiff::default();
        advance(&mut left)?;
        advance(&mut right)?;
        loop {
            let then = left.as_ref().and_then(Rows::current);
            let now = right.as_ref().and_then(Rows::current);
            let order = match (then, now) {
                (None, None) => return Ok(counts),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(then), Some(now)) => same_place(then, now),
            };
            match order {
                Ordering::Less => {
                    counts.removed += 1;
                    show("removed", then, None);
                }
                Ordering::Greater => {
                    counts.added += 1;
                    show("added", None, now);
                }
                Ordering::Equal if then == now => counts.same += 1,
                Ordering::Equal => {
                    counts.changed += 1;
                    show("changed", then, now);
                }
            }
            if order != Ordering::Greater {
                advance(&mut left)?;
            }
            if order != Ordering::Less {
                advance(&mut right)?;
            }
        }
    }
}

/// Rows with a key meet by it; rows without one by all they contain.
fn same_place(left: RowRef<'_>, right: RowRef<'_>) -> Ordering {
    if left.key().is_empty() {
        compare_rows(left, right)
    } else {
        left.key().cmp(right.key())
    }
}

fn plan_to(
    context: Context<'_>,
    repository: &dyn Repository,
    images: &[TenantImage],
    store: &dyn LiveStore,
    session: &Session<'_>,
    file: &std::path::Path,
) -> anyhow::Result<RestorePlan> {
    let request = PlanRequest {
        job: new_job()?,
        repository: repository.id(),
        policy: Policy::EXACT,
        drift: session.configuration.drift.clone(),
        check_owners: OwnerCheck::Off,
        planned_at: now(),
    };
    let output = adapters::create_plan_file(file)?;
    plan(context, images, store, &request, output)?;
    Ok(adapters::open_plan_file(file)?.1)
}
