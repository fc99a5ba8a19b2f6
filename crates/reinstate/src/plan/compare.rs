//! Comparing one tenant's image with the live tenant, table by table.

use std::collections::HashSet;

use reinstate_core::{
    ChangeCounts, ConflictPolicy, ContentDigest, ErrorKind, Event, LiveView, Owner, Phase, Policy,
    RowBatch, RowBuilder, RowRef, RowRole, Switch, TableIndex, TenantId,
};
use reinstate_format::{CONFLICTS_MAX, Conflict, RunKey, TablePlan, TenantPlanDescription};

use super::cursor::{Pair, RowCursor, Side, StreamCursor, live_rows, sorted_rows};
use super::describe_tenant;
use crate::drift::{MappedRows, RowChecks, SchemaMapping, Shape, TableMapping};
use crate::image::TenantImage;
use crate::segment_writer::{OpenRun, SegmentWriter};
use crate::{Context, Error};

pub(super) fn plan_tenant(
    context: Context<'_>,
    image: &TenantImage,
    view: &dyn LiveView,
    mapping: &SchemaMapping,
    policy: Policy,
    writer: &mut SegmentWriter<'_>,
) -> Result<TenantPlanDescription, Error> {
    let tenant = &image.tenant().id;
    let mut description = describe_tenant(view, tenant)?;
    description.image_digest = image.digest();
    for table in view.schema().write_order() {
        let mapping = mapping.table(table);
        let mut changes = TableChanges::new(table, tenant, writer);
        changes.checks = Some(RowChecks::new(&mapping.checks, view.schema().table(table)));
        plan_table(context, image, view, (table, mapping), policy, &mut changes)?;
        let (plan, conflicts) = changes.finish()?;
        description.conflicts.extend(conflicts);
        description.conflicts.truncate(CONFLICTS_MAX);
        description.tables.push(plan);
    }
    Ok(description)
}

fn plan_table(
    context: Context<'_>,
    image: &TenantImage,
    view: &dyn LiveView,
    (table, mapping): (TableIndex, &TableMapping),
    policy: Policy,
    changes: &mut TableChanges<'_, '_>,
) -> Result<(), Error> {
    let tenant = &image.tenant().id;
    let mut now = live_rows(context, view, tenant, table)?;
    let Some(source) = mapping.source else {
        // The table is younger than the snapshot.
        while now.advance()? {
            changes.live(now.row());
            changes.keep();
        }
        return Ok(());
    };
    let operation = format!("read the snapshot's rows of {tenant}");
    let then = StreamCursor::new(image.rows(context, source), operation);
    let compare = Compare {
        context,
        view,
        policy,
        shape: mapping.shape.as_ref(),
    };
    let Some(shape) = &mapping.shape else {
        return compare.run(then, now, changes);
    };
    let then = MappedRows::new(then, shape);
    if view.schema().table(table).has_key() {
        return compare.run(then, now, changes);
    }
    // Rows without a key are ordered by their columns, which are others now.
    let then = sorted_rows(context, table, then)?;
    compare.run(then, now, changes)
}

/// How two tables are compared.
struct Compare<'a> {
    context: Context<'a>,
    view: &'a dyn LiveView,
    policy: Policy,
    shape: Option<&'a Shape>,
}

impl Compare<'_> {
    fn run(
        &self,
        then: impl RowCursor,
        now: impl RowCursor,
        changes: &mut TableChanges<'_, '_>,
    ) -> Result<(), Error> {
        let Self { view, policy, .. } = *self;
        let mut kept = RowBuilder::new();
        let mut pair = Pair::start(then, now)?;
        let mut missing = RowBatch::new();
        let mut passed = Passed::new(self.context);
        while let Some(side) = pair.side() {
            match side {
                Side::Left => match policy.create {
                    Switch::On => {
                        missing.push_row(pair.left.row());
                        if missing.as_bytes().len() >= RowBatch::TARGET_BYTES {
                            changes.create(view, policy, &mut missing)?;
                        }
                    }
                    Switch::Off => changes.keep(),
                },
                Side::Right => {
                    changes.live(pair.right.row());
                    match policy.delete {
                        Switch::On => changes.delete(pair.right.row())?,
                        Switch::Off => changes.keep(),
                    }
                }
                Side::Both => {
                    let live = pair.right.row();
                    changes.live(live);
                    let mut then = pair.left.row();
                    if let Some(shape) = self.shape {
                        shape.keep_unknown(then, live, &mut kept);
                        then = kept.row();
                    }
                    if then.columns() == live.columns() {
                        changes.same();
                    } else if policy.put_back == Switch::On {
                        changes.put_back(live, then)?;
                    } else {
                        changes.keep();
                    }
                }
            }
            passed.row()?;
            pair.pass(side)?;
        }
        passed.report();
        changes.create(view, policy, &mut missing)
    }
}

/// Rows compared since the observer was last told.
pub(super) struct Passed<'a> {
    context: Context<'a>,
    rows: u64,
}

impl<'a> Passed<'a> {
    pub(super) fn new(context: Context<'a>) -> Self {
        Self { context, rows: 0 }
    }

    pub(super) fn row(&mut self) -> Result<(), Error> {
        self.rows += 1;
        if self.rows == 4096 {
            self.context.check()?;
            self.report();
        }
        Ok(())
    }

    pub(super) fn report(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        self.context.observer.observe(Event::Advanced {
            phase: Phase::Plan,
            rows,
            bytes: 0,
        });
    }
}

/// The changes of one table on their way into the plan.
pub(super) struct TableChanges<'w, 'a> {
    writer: &'w mut SegmentWriter<'a>,
    /// What is asked of rows that come from the snapshot.
    pub(super) checks: Option<RowChecks<'w>>,
    tenant: TenantId,
    table: TableIndex,
    counts: ChangeCounts,
    same: u64,
    kept: u64,
    conflict_count: u64,
    conflicts: Vec<Conflict>,
    before: ContentDigest,
    expected: ContentDigest,
    runs: [Option<OpenRun>; RowRole::ALL.len()],
}

impl<'w, 'a> TableChanges<'w, 'a> {
    pub(super) fn new(
        table: TableIndex,
        tenant: &TenantId,
        writer: &'w mut SegmentWriter<'a>,
    ) -> Self {
        Self {
            writer,
            checks: None,
            tenant: tenant.clone(),
            table,
            counts: ChangeCounts::NONE,
            same: 0,
            kept: 0,
            conflict_count: 0,
            conflicts: Vec::new(),
            before: ContentDigest::EMPTY,
            expected: ContentDigest::EMPTY,
            runs: [const { None }; RowRole::ALL.len()],
        }
    }

    fn append(&mut self, role: RowRole, row: RowRef<'_>) -> Result<(), Error> {
        let run = self.runs[role as usize].get_or_insert_with(|| {
            let owner = Owner::Tenant(self.tenant.clone());
            OpenRun::new(RunKey {
                owner,
                table: self.table,
                role,
            })
        });
        self.writer.append(run, row)
    }

    /// Notes a row that the live tenant has. It stays, until one of the others says otherwise.
    pub(super) fn live(&mut self, row: RowRef<'_>) {
        self.before.add(row);
    }

    /// What the live table holds, once every row of it was noted.
    pub(super) fn before(&self) -> ContentDigest {
        self.before
    }

    fn check(&self, row: RowRef<'_>) -> Result<(), Error> {
        let objection = self.checks.and_then(|checks| checks.objection(row));
        objection.map_or(Ok(()), |message| {
            Err(Error::new(ErrorKind::Refused, message))
        })
    }

    pub(super) fn same(&mut self) {
        self.same += 1;
    }

    /// Notes a difference that stays as it is.
    pub(super) fn keep(&mut self) {
        self.kept += 1;
    }

    pub(super) fn conflict(&mut self, key: &[u8], constraint: &str) {
        self.conflict_count += 1;
        if self.conflicts.len() < CONFLICTS_MAX {
            let constraint = constraint.to_owned();
            self.conflicts.push(Conflict {
                table: self.table,
                key: key.to_vec(),
                constraint,
            });
        }
    }

    pub(super) fn delete(&mut self, row: RowRef<'_>) -> Result<(), Error> {
        self.counts.deleted += 1;
        self.append(RowRole::Deleted, row)
    }

    pub(super) fn put_back(&mut self, before: RowRef<'_>, after: RowRef<'_>) -> Result<(), Error> {
        self.check(after)?;
        self.counts.put_back += 1;
        self.append(RowRole::PutBackBefore, before)?;
        self.append(RowRole::PutBackAfter, after)
    }

    /// Creates these rows, unless somebody else's row is in their place.
    pub(super) fn create(
        &mut self,
        view: &dyn LiveView,
        policy: Policy,
        rows: &mut RowBatch,
    ) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let held = view
            .held_by_others(&self.tenant, self.table, rows)
            .map_err(Error::store("look for rows of others in the way"))?;
        let mut places = HashSet::new();
        for held in &held {
            if places.insert(held.key.as_slice()) {
                self.conflict(&held.key, &held.constraint);
            }
        }
        for row in rows.iter() {
            // With the policy to keep what is live, the row is left out, and counted as a
            // conflict; with any other the plan cannot be applied, so it does not matter.
            let leave_out = policy.on_conflict == ConflictPolicy::KeepLive || !held.is_empty();
            if leave_out && places.contains(row.key()) {
                continue;
            }
            self.check(row)?;
            self.counts.created += 1;
            self.append(RowRole::Created, row)?;
        }
        rows.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(TablePlan, Vec<Conflict>), Error> {
        self.expected = self.before;
        let runs = std::mem::replace(&mut self.runs, [const { None }; RowRole::ALL.len()]);
        for run in runs.into_iter().flatten() {
            let role = run.key().role;
            let content = self.writer.close(run)?;
            match role {
                RowRole::Created | RowRole::PutBackAfter => self.expected.merge(content),
                RowRole::Deleted | RowRole::PutBackBefore => self.expected.subtract(content),
                RowRole::Image => unreachable!("BUG: a plan holds no image"),
            }
        }
        let plan = TablePlan {
            table: self.table,
            counts: self.counts,
            same: self.same,
            kept: self.kept,
            conflicts: self.conflict_count,
            before: self.before,
            expected: self.expected,
        };
        Ok((plan, self.conflicts))
    }
}
