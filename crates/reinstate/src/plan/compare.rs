//! Comparing one tenant's image with the live tenant, table by table.

use std::collections::HashSet;

use reinstate_core::{
    ChangeCounts, ContentDigest, ErrorKind, Event, LiveView, Owner, Phase, Policy, RowBatch,
    RowRef, RowRole, Switch, TableIndex, TenantId,
};
use reinstate_format::{
    CONFLICTS_MAX, Conflict, NoteKind, PlanNote, RunKey, TablePlan, TenantPlanDescription,
};

use super::cursor::{RowCursor, Side, StreamCursor, Walk, live_rows, sorted_rows};
use super::describe_tenant;
use super::holds::{self, Holds};
use super::left_behind::{LeftBehind, Returning};
use super::notes::Strays;
use super::owners::{Newer, Owners};
use super::parents::{Parents, References};
use crate::drift::{DriftRules, MappedRows, RowChecks, SchemaMapping, TableMapping};
use crate::image::TenantImage;
use crate::into::Rekeying;
use crate::segment_writer::{OpenRun, SegmentWriter};
use crate::{Context, Error};

pub(super) fn plan_tenant(
    context: Context<'_>,
    image: &TenantImage,
    view: &dyn LiveView,
    (mapping, drift, owners): (&SchemaMapping, &DriftRules, &Owners<'_>),
    rekeying: Option<&Rekeying<'_>>,
    policy: Policy,
    writer: &mut SegmentWriter<'_>,
) -> Result<TenantPlanDescription, Error> {
    let tenant = &image.tenant().id;
    let mut description = describe_tenant(view, tenant)?;
    description.image_digest = image.digest();
    let mut left_behind = LeftBehind::default();
    let mut parents = Parents::new(context, view, image, drift);
    for table in view.schema().write_order() {
        let mapping = mapping.table(table);
        let mut returning = left_behind.take(table);
        let batches = std::mem::take(&mut returning.batches);
        let mut changes = TableChanges::new(context, view, table, tenant, writer);
        changes.returning = returning;
        changes.left_behind = Some(&mut left_behind);
        changes.parents = Some(&mut parents);
        changes.checks = Some(RowChecks::new(&mapping.checks, view.schema().table(table)));
        let sides = Sides {
            context,
            image,
            view,
            table,
            mapping,
            owners,
            rekeying,
            returning: &batches,
        };
        sides.compare(policy, &mut changes)?;
        changes.finish()?.add_to(&mut description);
    }
    description.notes.extend(parents.into_notes()?);
    Ok(description)
}

/// One table of a tenant, then and now.
struct Sides<'a> {
    context: Context<'a>,
    image: &'a TenantImage,
    view: &'a dyn LiveView,
    table: TableIndex,
    mapping: &'a TableMapping,
    owners: &'a Owners<'a>,
    /// How rows become those of a copy, if it is one.
    rekeying: Option<&'a Rekeying<'a>>,
    /// Rows that will be the tenant's without being written.
    returning: &'a [RowBatch],
}

impl<'a> Sides<'a> {
    fn compare(&self, policy: Policy, changes: &mut TableChanges<'_, '_>) -> Result<(), Error> {
        let Some(source) = self.mapping.source else {
            // The table is younger than the snapshot.
            let mut now = self.now()?;
            while now.advance()? {
                let returns = changes.live(now.row());
                changes.keep();
                changes.stays(returns, now.row());
            }
            return Ok(());
        };
        let holds = if holds::may_stay(policy) && self.view.has_unique_values(self.table) {
            let tenant = &self.image.tenant().id;
            holds::find(self.view, (tenant, self.table), policy, || self.walk())?
        } else {
            Holds::default()
        };
        let mut walk = self.walk()?;
        let mut newer = Newer::new(self.owners, self.image, source);
        let mut passed = Passed::new(self.context);
        while let Some(side) = walk.side() {
            match side {
                Side::Left => match policy.create {
                    Switch::On => changes.create(walk.then(), &holds)?,
                    Switch::Off => changes.keep(),
                },
                Side::Right => {
                    let live = walk.now();
                    let returns = changes.live(live);
                    let is_deleted = policy.delete == Switch::On || holds.gives_way(live);
                    if is_deleted {
                        newer.delete(live, returns, changes)?;
                    } else {
                        changes.keep();
                        changes.stays(returns, live);
                    }
                }
                Side::Both => {
                    let (then, live) = (walk.then(), walk.now());
                    let returns = changes.live(live);
                    if then.columns() == live.columns() {
                        changes.same();
                        changes.stays(returns, live);
                    } else if policy.put_back == Switch::On || holds.gives_way(live) {
                        changes.put_back(live, then, &holds)?;
                        changes.stays(returns, then);
                    } else {
                        changes.keep();
                        changes.stays(returns, live);
                    }
                }
            }
            passed.row()?;
            walk.pass(side)?;
        }
        passed.report();
        newer.settle(changes)
    }

    fn walk(&self) -> Result<Walk<'a>, Error> {
        let shape = self.mapping.shape.as_ref();
        Walk::start(self.then()?, self.now()?, shape)
    }

    fn now(&self) -> Result<Box<dyn RowCursor + 'a>, Error> {
        let tenant = &self.image.tenant().id;
        live_rows(self.context, self.view, tenant, self.table, self.returning)
    }

    /// The snapshot's rows as they are to be in the live table.
    fn then(&self) -> Result<Box<dyn RowCursor + 'a>, Error> {
        let rows = mapped_rows(
            self.context,
            self.image,
            self.view,
            self.table,
            self.mapping,
        )?;
        match self.rekeying {
            None => Ok(rows),
            Some(rekeying) => rekeying.rows(self.context, self.view, self.table, rows),
        }
    }
}

/// The snapshot's rows of a live table that it has, as rows of that table, in order.
pub(crate) fn mapped_rows<'a>(
    context: Context<'a>,
    image: &TenantImage,
    view: &dyn LiveView,
    table: TableIndex,
    mapping: &'a TableMapping,
) -> Result<Box<dyn RowCursor + 'a>, Error> {
    let source = mapping.source.expect("BUG: rows of a younger table");
    let operation = format!("read the snapshot's rows of {}", image.tenant().id);
    let rows = StreamCursor::new(image.rows(context, source), operation);
    let Some(shape) = &mapping.shape else {
        return Ok(Box::new(rows));
    };
    let rows = MappedRows::new(rows, shape);
    if view.schema().table(table).has_key() {
        return Ok(Box::new(rows));
    }
    // Rows without a key are ordered by their columns, which are others now.
    Ok(Box::new(sorted_rows(context, table, rows)?))
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
    context: Context<'w>,
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
    /// Rows that the tenant will have without their being written.
    pub(super) returning: Returning,
    /// Those of later tables.
    pub(super) left_behind: Option<&'w mut LeftBehind>,
    /// What the rows refer to.
    pub(super) parents: Option<&'w mut (dyn References + 'w)>,
    /// Rows that return, as they are.
    found: ContentDigest,
    /// Rows that return, as they are in the end.
    gained: ContentDigest,
}

impl<'w, 'a> TableChanges<'w, 'a> {
    pub(super) fn new(
        context: Context<'w>,
        view: &'w dyn LiveView,
        table: TableIndex,
        tenant: &TenantId,
        writer: &'w mut SegmentWriter<'a>,
    ) -> Self {
        Self {
            context,
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
            returning: Returning::default(),
            left_behind: None,
            parents: None,
            found: ContentDigest::EMPTY,
            gained: ContentDigest::EMPTY,
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

    /// Notes a row that the live tenant has, or will have without its being written: returns
    /// whether that. It stays, until one of the others says otherwise.
    pub(super) fn live(&mut self, row: RowRef<'_>) -> bool {
        let returns = self.returning.pass(row);
        if returns {
            self.found.add(row);
        } else {
            self.before.add(row);
        }
        returns
    }

    /// Notes what a row that returns by itself is in the end.
    pub(super) fn stays(&mut self, returns: bool, row: RowRef<'_>) {
        if returns {
            self.gained.add(row);
        }
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
    fn look_around(&mut self, role: RowRole, rows: &RowBatch) -> Result<HashSet<Vec<u8>>, Error> {
        if rows.is_empty() {
            return Ok(HashSet::new());
        }
        if let Some(parents) = &mut self.parents {
            parents.follow(self.table, rows)?;
        }
        let strays = self
            .view
            .stray_references(&self.tenant, self.table, rows)
            .map_err(Error::store("follow the references of rows to be written"))?;
        strays.into_iter().for_each(|stray| self.strays.add(stray));
        let held = self
            .view
            .held_by_others(&self.tenant, self.table, role, rows)
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
        let held = self.look_around(RowRole::Created, &rows)?;
        let mut created = RowBatch::new();
        for row in rows.iter().filter(|row| !held.contains(row.key())) {
            self.counts.created += 1;
            self.append(RowRole::Created, row)?;
            created.push_row(row);
        }
        if let Some(left_behind) = &mut self.left_behind
            && !created.is_empty()
        {
            left_behind.find(self.context, self.view, self.table, &created)?;
        }
        rows.clear();
        self.to_create = rows;
        Ok(())
    }

    fn put_back_gathered(&mut self) -> Result<(), Error> {
        let (mut before, mut after) = std::mem::take(&mut self.to_put_back);
        let held = self.look_around(RowRole::PutBackAfter, &after)?;
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
        self.expected.merge(self.found);
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
            gained: self.gained,
            lost: ContentDigest::EMPTY,
        };
        Ok(Finished {
            name: self.view.schema().table(self.table).name.to_string(),
            found: self.found.row_count(),
            plan,
            conflicts: self.conflicts,
            strays: self.strays,
        })
    }
}

/// The changes of one table, all written.
pub(super) struct Finished {
    name: String,
    /// How many rows return by themselves.
    found: u64,
    pub(super) plan: TablePlan,
    conflicts: Vec<Conflict>,
    strays: Strays,
}

impl Finished {
    pub(super) fn add_to(self, description: &mut TenantPlanDescription) {
        description.conflicts.extend(self.conflicts);
        description.conflicts.truncate(CONFLICTS_MAX);
        description.notes.extend(self.strays.into_notes());
        if self.found > 0 {
            let detail = "holds rows that were left behind when what they belong to went: they are \
                          the tenant's again";
            description.notes.push(PlanNote {
                kind: NoteKind::LeftBehind,
                object: self.name,
                detail: detail.to_owned(),
                count: self.found,
            });
        }
        description.tables.push(self.plan);
    }
}
