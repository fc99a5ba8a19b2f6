//! Comparing one tenant's image with the live tenant, table by table.

use std::collections::HashSet;

use reinstate_core::{
    ChangeCounts, ContentDigest, ErrorKind, Event, LiveView, Owner, Phase, Policy, RowBatch,
    RowRef, RowRole, Switch, TableIndex, TenantId,
};
use reinstate_format::{CONFLICTS_MAX, Conflict, RunKey, TablePlan, TenantPlanDescription};

use super::cursor::{RowCursor, Side, StreamCursor, Walk, live_rows, sorted_rows};
use super::describe_tenant;
use super::holds::{self, Holds};
use super::notes::Strays;
use crate::drift::{MappedRows, RowChecks, SchemaMapping, TableMapping};
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
        let mut changes = TableChanges::new(view, table, tenant, writer);
        changes.checks = Some(RowChecks::new(&mapping.checks, view.schema().table(table)));
        let sides = Sides {
            context,
            image,
            view,
            table,
            mapping,
        };
        sides.compare(policy, &mut changes)?;
        changes.finish()?.add_to(&mut description);
    }
    Ok(description)
}

/// One table of a tenant, then and now.
struct Sides<'a> {
    context: Context<'a>,
    image: &'a TenantImage,
    view: &'a dyn LiveView,
    table: TableIndex,
    mapping: &'a TableMapping,
}

impl<'a> Sides<'a> {
    fn compare(&self, policy: Policy, changes: &mut TableChanges<'_, '_>) -> Result<(), Error> {
        let Some(source) = self.mapping.source else {
            // The table is younger than the snapshot.
            let mut now = self.now()?;
            while now.advance()? {
                changes.live(now.row());
                changes.keep();
            }
            return Ok(());
        };
        let holds = if holds::may_stay(policy) && self.view.has_unique_values(self.table) {
            let tenant = &self.image.tenant().id;
            holds::find(self.view, (tenant, self.table), policy, || {
                self.walk(source)
            })?
        } else {
            Holds::default()
        };
        let mut walk = self.walk(source)?;
        let mut passed = Passed::new(self.context);
        while let Some(side) = walk.side() {
            match side {
                Side::Left => match policy.create {
                    Switch::On => changes.create(walk.then(), &holds)?,
                    Switch::Off => changes.keep(),
                },
                Side::Right => {
                    let live = walk.now();
                    changes.live(live);
                    if policy.delete == Switch::On || holds.gives_way(live) {
                        changes.delete(live)?;
                    } else {
                        changes.keep();
                    }
                }
                Side::Both => {
                    let (then, live) = (walk.then(), walk.now());
                    changes.live(live);
                    if then.columns() == live.columns() {
                        changes.same();
                    } else if policy.put_back == Switch::On || holds.gives_way(live) {
                        changes.put_back(live, then, &holds)?;
                    } else {
                        changes.keep();
                    }
                }
            }
            passed.row()?;
            walk.pass(side)?;
        }
        passed.report();
        Ok(())
    }

    fn walk(&self, source: TableIndex) -> Result<Walk<'a>, Error> {
        let shape = self.mapping.shape.as_ref();
        Walk::start(self.then(source)?, self.now()?, shape)
    }

    fn now(&self) -> Result<Box<dyn RowCursor + 'a>, Error> {
        live_rows(self.context, self.view, &self.image.tenant().id, self.table)
    }

    /// The snapshot's rows as rows of the live table.
    fn then(&self, source: TableIndex) -> Result<Box<dyn RowCursor + 'a>, Error> {
        let operation = format!("read the snapshot's rows of {}", self.image.tenant().id);
        let rows = StreamCursor::new(self.image.rows(self.context, source), operation);
        let Some(shape) = &self.mapping.shape else {
            return Ok(Box::new(rows));
        };
        let rows = MappedRows::new(rows, shape);
        if self.view.schema().table(self.table).has_key() {
            return Ok(Box::new(rows));
        }
        // Rows without a key are ordered by their columns, which are others now.
        Ok(Box::new(sorted_rows(self.context, self.table, rows)?))
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
    view: &'w dyn LiveView,
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
    /// Rows to create of which it is not known yet whether their places are free.
    to_create: RowBatch,
    /// Rows to put back of which the same is not known yet, before and after.
    to_put_back: (RowBatch, RowBatch),
    strays: Strays,
}

impl<'w, 'a> TableChanges<'w, 'a> {
    pub(super) fn new(
        view: &'w dyn LiveView,
        table: TableIndex,
        tenant: &TenantId,
        writer: &'w mut SegmentWriter<'a>,
    ) -> Self {
        Self {
            view,
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
            to_create: RowBatch::new(),
            to_put_back: (RowBatch::new(), RowBatch::new()),
            strays: Strays::default(),
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

    /// Puts a row back, unless somebody else's row, or one of `holds`, has a value of it.
    pub(super) fn put_back(
        &mut self,
        before: RowRef<'_>,
        after: RowRef<'_>,
        holds: &Holds,
    ) -> Result<(), Error> {
        self.check(after)?;
        if let Some(constraint) = holds.constraint(after) {
            self.conflict(after.key(), constraint);
            return Ok(());
        }
        self.to_put_back.0.push_row(before);
        self.to_put_back.1.push_row(after);
        if self.to_put_back.1.as_bytes().len() >= RowBatch::TARGET_BYTES {
            self.put_back_gathered()?;
        }
        Ok(())
    }

    /// Creates a row, unless somebody else's row, or one of `holds`, is in its place.
    pub(super) fn create(&mut self, row: RowRef<'_>, holds: &Holds) -> Result<(), Error> {
        self.check(row)?;
        if let Some(constraint) = holds.constraint(row) {
            self.conflict(row.key(), constraint);
            return Ok(());
        }
        self.to_create.push_row(row);
        if self.to_create.as_bytes().len() >= RowBatch::TARGET_BYTES {
            self.create_gathered()?;
        }
        Ok(())
    }

    /// The keys among these rows that somebody else holds; each is noted as a conflict. Where
    /// their references lead astray is noted too.
    fn look_around(&mut self, rows: &RowBatch) -> Result<HashSet<Vec<u8>>, Error> {
        if rows.is_empty() {
            return Ok(HashSet::new());
        }
        let strays = self
            .view
            .stray_references(&self.tenant, self.table, rows)
            .map_err(Error::store("follow the references of rows to be written"))?;
        strays.into_iter().for_each(|stray| self.strays.add(stray));
        let held = self
            .view
            .held_by_others(&self.tenant, self.table, rows)
            .map_err(Error::store("look for rows of others in the way"))?;
        let mut places = HashSet::new();
        for held in held {
            if !places.contains(&held.key) {
                self.conflict(&held.key, &held.constraint);
                places.insert(held.key);
            }
        }
        Ok(places)
    }

    /// Writes the rows whose places are free. The others are left out: with the policy to keep what
    /// is live that is what was asked for, with any other the plan cannot be applied.
    fn create_gathered(&mut self) -> Result<(), Error> {
        let mut rows = std::mem::take(&mut self.to_create);
        let held = self.look_around(&rows)?;
        for row in rows.iter().filter(|row| !held.contains(row.key())) {
            self.counts.created += 1;
            self.append(RowRole::Created, row)?;
        }
        rows.clear();
        self.to_create = rows;
        Ok(())
    }

    fn put_back_gathered(&mut self) -> Result<(), Error> {
        let (mut before, mut after) = std::mem::take(&mut self.to_put_back);
        let held = self.look_around(&after)?;
        for (before, after) in before.iter().zip(after.iter()) {
            if !held.contains(after.key()) {
                self.counts.put_back += 1;
                self.append(RowRole::PutBackBefore, before)?;
                self.append(RowRole::PutBackAfter, after)?;
            }
        }
        before.clear();
        after.clear();
        self.to_put_back = (before, after);
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Finished, Error> {
        self.put_back_gathered()?;
        self.create_gathered()?;
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
        Ok(Finished {
            plan,
            conflicts: self.conflicts,
            strays: self.strays,
        })
    }
}

/// The changes of one table, all written.
pub(super) struct Finished {
    pub(super) plan: TablePlan,
    conflicts: Vec<Conflict>,
    strays: Strays,
}

impl Finished {
    pub(super) fn add_to(self, description: &mut TenantPlanDescription) {
        description.conflicts.extend(self.conflicts);
        description.conflicts.truncate(CONFLICTS_MAX);
        description.notes.extend(self.strays.into_notes());
        description.tables.push(self.plan);
    }
}
