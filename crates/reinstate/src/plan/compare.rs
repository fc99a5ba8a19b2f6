//! Comparing one tenant's image with the live tenant, table by table.

use reinstate_core::{Event, LiveView, Phase, Policy, RowBatch, Switch, TableIndex};
use reinstate_format::TenantPlanDescription;

use super::changes::TableChanges;
use super::cursor::{RowCursor, Side, StreamCursor, Walk, live_rows, sorted_rows};
use super::describe_tenant;
use super::holds::{self, Holds};
use super::leaving::Leaving;
use super::left_behind::LeftBehind;
use super::newer::{Newer, Turn};
use super::owners::Owners;
use super::parents::Parents;
use crate::drift::{DriftRules, MappedRows, RowChecks, SchemaMapping, TableMapping};
use crate::image::TenantImage;
use crate::into::Rekeying;
use crate::segment_writer::SegmentWriter;
use crate::{Context, Error};

pub(super) fn plan_tenant(
    context: Context<'_>,
    (image, later): (&TenantImage, &[TenantImage]),
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
    let mut parents = Parents::new(context, view, image, drift, policy.create == Switch::On);
    let mut leaving = Leaving::new(context, view.schema());
    for table in view.schema().write_order() {
        let mapping = mapping.table(table);
        let mut returning = left_behind.take(table);
        let batches = std::mem::take(&mut returning.batches);
        let mut changes = TableChanges::new(context, view, table, tenant, writer);
        // What is not as in the snapshot gives way; otherwise it may stay.
        if policy.put_back == Switch::On && policy.delete == Switch::On {
            batches
                .iter()
                .flat_map(RowBatch::iter)
                .for_each(|row| changes.giving_way.push_row(row));
        }
        changes.returning = returning;
        changes.left_behind = Some(&mut left_behind);
        changes.parents = Some(&mut parents);
        changes.leaving = Some(&mut leaving);
        changes.checks = Some(RowChecks::new(&mapping.checks, view.schema().table(table)));
        let sides = Sides {
            context,
            image,
            later,
            view,
            table,
            mapping,
            owners,
            rekeying,
            returning: &batches,
        };
        sides.compare(policy, &mut changes)?;
        let finished = changes.finish()?;
        description.notes.extend(finished.would_leave());
        finished.add_to(&mut description);
    }
    let created = parents.create_missing(writer, tenant)?;
    description.notes.extend(created);
    description.notes.extend(parents.into_notes()?);
    Ok(description)
}

/// One table of a tenant, then and now.
struct Sides<'a> {
    context: Context<'a>,
    image: &'a TenantImage,
    /// Those whose turn comes after it.
    later: &'a [TenantImage],
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
                let returns = changes.live(now.row())?;
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
        let mut newer = Newer::new(Turn {
            owners: self.owners,
            view: self.view,
            table: self.table,
            source,
            mapping: self.mapping,
            image: self.image,
            // Where few rows are deleted, there is little to look up together.
            later: match policy.delete {
                Switch::On => self.later,
                Switch::Off => &[],
            },
        });
        let mut passed = Passed::new(self.context);
        while let Some(side) = walk.side() {
            match side {
                Side::Left => match policy.create {
                    Switch::On => changes.create(walk.then(), &holds)?,
                    Switch::Off => changes.keep(),
                },
                Side::Right => {
                    let live = walk.now();
                    let returns = changes.live(live)?;
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
                    let returns = changes.live(live)?;
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
        // The view may be asked for other rows only when these are read.
        drop(walk);
        newer.finish(changes)
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
