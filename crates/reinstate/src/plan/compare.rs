//! Comparing one tenant's image with the live tenant, table by table.

use std::sync::Arc;

use reinstate_core::{
    Event, LiveView, Phase, Policy, Position, RowBatch, Switch, TableIndex, TenantId,
};
use reinstate_format::TenantPlanDescription;

use super::asking::question_bytes;
use super::changes::TableChanges;
use super::cursor::{RowCursor, Side, StreamCursor, Walk, live_rows, sorted_rows};
use super::decide::{Deciding, Decision};
use super::holds::{self, Holds};
use super::leaving::Leaving;
use super::left_behind::LeftBehind;
use super::newer::{Newer, Turn};
use super::owners::Owners;
use super::parents::Parents;
use super::since::{By, Lookup, TenantSince};
use super::tally::Tally;
use super::turns::Wait;
use super::{describe_tenant, fingerprint};
use crate::drift::{DriftRules, MappedRows, RowChecks, SchemaMapping, TableMapping};
use crate::image::TenantImage;
use crate::into::Rekeying;
use crate::segment_writer::SegmentWriter;
use crate::{Context, Error};

/// By what the plans of several tenants are made.
#[derive(Clone, Copy)]
pub(super) struct Rules<'r> {
    pub(super) mapping: &'r SchemaMapping,
    pub(super) drift: &'r DriftRules,
    pub(super) owners: &'r Owners<'r>,
    /// What changed the rows since, if it is to be looked up.
    pub(super) since: Option<&'r Lookup<'r>>,
    pub(super) policy: Policy,
    /// The tenants that are restored.
    pub(super) tenants: &'r Arc<[TenantId]>,
}

pub(super) fn plan_tenant(
    context: Context<'_>,
    (image, later): (&TenantImage, &[TenantImage]),
    view: &dyn LiveView,
    rules: Rules<'_>,
    rekeying: Option<&Rekeying<'_>>,
    writer: &mut SegmentWriter<'_>,
    waits: &mut Vec<Wait>,
) -> Result<TenantPlanDescription, Error> {
    let Rules {
        mapping,
        drift,
        owners,
        policy,
        since: lookup,
        tenants,
    } = rules;
    let since = lookup.map(|lookup| lookup.since);
    let tenant = &image.tenant().id;
    let mut description = describe_tenant(tenant);
    description.image_digest = image.digest();
    let mut left_behind = LeftBehind::default();
    let mut parents = Parents::new(context, view, image, drift, policy.create == Switch::On);
    let mut leaving = Leaving::new(context, view.schema());
    let known = lookup.map(|lookup| TenantSince::open(context, lookup, image));
    let known = known.transpose()?;
    let mut tally = Tally::new(context);
    for table in view.schema().write_order() {
        let mapping = mapping.table(table);
        let mut returning = left_behind.take(table);
        let batches = std::mem::take(&mut returning.batches);
        let mut changes = TableChanges::new(context, view, table, tenant, writer);
        // What is not as in the snapshot gives way; otherwise it may stay.
        let is_selective = since.is_some_and(|since| !since.only.is_empty());
        if policy.put_back == Switch::On && policy.delete == Switch::On && !is_selective {
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
        changes.hindrances.beside = Arc::clone(tenants);
        changes.younger.clone_from(&mapping.younger);
        changes.was_changed = mapping.shape.is_some() || !mapping.checks.is_empty();
        let mut count = |by: By| tally.add(by);
        if since.is_some() {
            changes.on_change = Some(&mut count);
        }
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
            since: known.as_ref(),
            is_selective,
            end: since.map_or(image.position(), |since| since.log.through()),
        };
        sides.compare(policy, &mut changes)?;
        let mut finished = changes.finish()?;
        waits.extend(finished.hindrances.take_waits(tenant));
        description.notes.extend(finished.would_leave());
        finished.add_to(&mut description);
    }
    let created = parents.create_missing(writer, tenant)?;
    description.notes.extend(created);
    description.notes.extend(parents.into_notes()?);
    if let (Some(since), Some(known)) = (&since, &known) {
        let notation = image.snapshot().notation;
        description.notes.extend(tally.into_notes(since, notation)?);
        owners.count_bytes(known.bytes_read());
    }
    description.fingerprint = fingerprint(view, tenant)?;
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
    /// What changed the tenant's rows since, if that was looked up.
    since: Option<&'a TenantSince<'a>>,
    /// Whether only what certain transactions changed goes back.
    is_selective: bool,
    /// How far the change log goes.
    end: Position,
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
        let may_stay = holds::may_stay(policy) || self.is_selective;
        let holds = if may_stay && self.view.has_unique_values(self.table) {
            let start = || Ok((self.walk()?, self.deciding(policy, source)?));
            let tenant = &self.image.tenant().id;
            let asked = (self.view, question_bytes(self.context, self.view));
            holds::find(asked, (tenant, self.table), policy, start)?
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
                Switch::On if !self.is_selective => self.later,
                Switch::On | Switch::Off => &[],
            },
        });
        let mut deciding = self.deciding(policy, source)?;
        let mut passed = Passed::new(self.context);
        while let Some(side) = walk.side() {
            let (decision, by) = deciding.decide(side, &walk)?;
            changes.by = by;
            if side == Side::Left {
                match decision {
                    Decision::Write => changes.create(walk.then(), &holds)?,
                    decision => changes.leave(walk.then().key(), decision),
                }
                passed.row()?;
                walk.pass(side)?;
                continue;
            }
            let live = walk.now();
            let returns = changes.live(live)?;
            let gives_way = decision != Decision::Same && holds.gives_way(live);
            match (side, decision) {
                (Side::Both, decision) if gives_way || decision == Decision::Write => {
                    changes.put_back(live, walk.then(), &holds)?;
                    changes.stays(returns, walk.then());
                }
                (_, decision) if gives_way || decision == Decision::Write => {
                    newer.delete(live, returns, changes)?;
                }
                (_, decision) => {
                    changes.leave(live.key(), decision);
                    changes.stays(returns, live);
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

    /// How it is decided about the table's rows, which the snapshot has under the number `source`.
    fn deciding(&self, policy: Policy, source: TableIndex) -> Result<Deciding<'a>, Error> {
        // The log knows the rows of another table, if this one is not what it was.
        let known = self.since.filter(|_| self.mapping.shape.is_none());
        let since = known
            .map(|since| since.table(source))
            .transpose()?
            .flatten();
        Ok(Deciding {
            policy,
            since,
            is_selective: self.is_selective,
            end: (self.end, self.image.snapshot().notation),
        })
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
