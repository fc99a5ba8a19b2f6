//! Planning the undo of a merge: the reverse of its plan, as far as the live rows still are what
//! the merge left.

use reinstate_core::{
    ConflictPolicy, ErrorKind, LiveStore, LiveView, ObjectWriter, Policy, RowBatch, RowRef,
    RowRole, TableIndex, TenantId,
};
use reinstate_format::{NoteKind, PlanDescription, PlanNote, PlanSegment, TenantPlanDescription};

use super::changes::TableChanges;
use super::compare::Passed;
use super::cursor::{Pair, RowCursor, Side, StreamCursor, live_rows};
use super::holds::Holds;
use super::leaving::Leaving;
use super::left_behind::LeftBehind;
use super::{
    PlanRequest, RestorePlan, StoredPlan, WrittenPlan, check_schema, describe_tenant, fingerprint,
    finish, notes, start,
};
use crate::{Context, Error};

/// What to call the reason why a row is not undone.
const CHANGED_SINCE: &str = "changed after the merge";

/// Compares what a merge left with the live tenants, and writes a plan that takes it back.
///
/// A row that somebody changed after the merge is a conflict: with the policy `KeepLive` it
/// stays and all others are taken back, with `TakeSnapshot` it is taken back too, with `Fail` the
/// plan cannot be applied.
///
/// # Errors
/// As [`plan`](super::plan()).
pub fn plan_undo(
    context: Context<'_>,
    merged: &StoredPlan,
    tenants: &[TenantId],
    live: &dyn LiveStore,
    request: &PlanRequest<'_>,
    output: Box<dyn ObjectWriter + '_>,
) -> Result<WrittenPlan, Error> {
    let original = merged.plan().description();
    let view = live
        .read_view()
        .map_err(Error::store("read the live store"))?;
    check_schema(&original.schema, view.schema())?;
    let mut writer = start(context, request, output)?;
    let mut parts = Vec::with_capacity(tenants.len());
    // What came last may refer to what came before.
    for tenant in tenants.iter().rev() {
        let mut description = describe_tenant(tenant);
        let mut left_behind = LeftBehind::default();
        let mut leaving = Leaving::new(context, view.schema());
        for table in view.schema().write_order() {
            let mut returning = left_behind.take(table);
            let batches = std::mem::take(&mut returning.batches);
            let mut changes = TableChanges::new(context, view.as_ref(), table, tenant, &mut writer);
            changes.returning = returning;
            changes.left_behind = Some(&mut left_behind);
            changes.leaving = Some(&mut leaving);
            let undone = UndoTable {
                context,
                plan: merged.plan(),
                tenant,
                table,
                policy: request.policy,
                returning: &batches,
                changes,
            };
            undone.compare(view.as_ref(), &mut description)?;
        }
        for (table, count) in merged.plan().shared_counts(tenant)? {
            let detail = "keeps the rows of everybody that the restore may have created: others may \
                          refer to them by now";
            description.notes.push(PlanNote {
                kind: NoteKind::ParentCreated,
                object: view.schema().table(table).name.to_string(),
                detail: detail.to_owned(),
                count,
            });
        }
        description.fingerprint = fingerprint(view.as_ref(), tenant)?;
        parts.push(description);
    }
    let notes = notes::of_store(view.as_ref(), &mut parts)?;
    let description = PlanDescription {
        job: request.job,
        store: live.identity(),
        planned_at: view.taken_at().unwrap_or(request.planned_at),
        live_position: view.position(),
        policy: request.policy,
        undoes: Some(original.job),
        segment: PlanSegment::default(),
        notes,
        tenants: parts,
        ..original.clone()
    };
    finish(writer, description)
}

struct UndoTable<'w, 'a, 'p> {
    context: Context<'p>,
    plan: &'p RestorePlan,
    tenant: &'p TenantId,
    table: TableIndex,
    policy: Policy,
    /// Rows that will be the tenant's without being written.
    returning: &'p [RowBatch],
    changes: TableChanges<'w, 'a>,
}

impl UndoTable<'_, '_, '_> {
    fn compare(
        mut self,
        view: &dyn LiveView,
        description: &mut TenantPlanDescription,
    ) -> Result<(), Error> {
        let mut live = self.live(view)?;
        while live.advance()? {
            let returns = self.changes.live(live.row())?;
            self.changes.stays(returns, live.row());
        }
        drop(live);
        let parts = self
            .plan
            .tenant(self.tenant)
            .into_iter()
            .flat_map(|part| &part.tables);
        let has_key = view.schema().table(self.table).has_key();
        let merged = parts.into_iter().find(|plan| plan.table == self.table);
        // Without a key only the number of equal rows tells anything. A table that holds what it
        // held before the merge was taken back already.
        let merged = merged.filter(|plan| has_key || plan.before != self.changes.before());
        let merged = merged.map_or(Default::default(), |plan| plan.counts);
        if merged.created > 0 {
            self.take_back_created(view)?;
        }
        if merged.put_back + merged.deleted > 0 {
            self.take_back_changed(view)?;
        }
        let mut finished = self.changes.finish()?;
        let plan = &mut finished.plan;
        let rows = plan.before.row_count() + finished.found;
        plan.same = rows - plan.counts.put_back - plan.counts.deleted;
        description.notes.extend(finished.leaves());
        finished.add_to(description);
        Ok(())
    }

    fn live<'v>(&self, view: &'v dyn LiveView) -> Result<Box<dyn RowCursor + 'v>, Error> {
        live_rows(self.context, view, self.tenant, self.table, self.returning)
    }

    fn merged_rows(&self, role: RowRole) -> Result<impl RowCursor + use<>, Error> {
        let stream = self.plan.run(self.context, self.tenant, self.table, role)?;
        Ok(StreamCursor::new(
            stream,
            "read the plan that was merged".to_owned(),
        ))
    }

    /// Whether a row that somebody changed since is taken back all the same. If it is, nothing is
    /// left to settle; if not, it is a conflict.
    fn changed_since(&mut self, row_key: &[u8]) -> bool {
        let settled = self.policy.on_conflict == ConflictPolicy::TakeSnapshot;
        if !settled {
            self.changes.conflict(row_key, CHANGED_SINCE);
        }
        settled
    }

    fn take_back_created(&mut self, view: &dyn LiveView) -> Result<(), Error> {
        let created = self.merged_rows(RowRole::Created)?;
        let live = self.live(view)?;
        let mut pair = Pair::start(created, live)?;
        let mut passed = Passed::new(self.context);
        while let Some(side) = pair.side() {
            match side {
                Side::Both => {
                    let unchanged = pair.left.row() == pair.right.row();
                    if unchanged || self.changed_since(pair.right.row().key()) {
                        self.changes.delete_again(pair.right.row())?;
                    }
                }
                // Somebody deleted it already: nothing to take back.
                Side::Left | Side::Right => {}
            }
            passed.row()?;
            pair.pass(side)?;
        }
        Ok(())
    }

    /// Takes back what the merge put back or deleted: both in one walk, so that what is written
    /// stays in order. Nobody is asked about unique values of the tenant's own rows: the store
    /// refuses what does not fit.
    fn take_back_changed(&mut self, view: &dyn LiveView) -> Result<(), Error> {
        let has_key = view.schema().table(self.table).has_key();
        let gone = Gone::start(
            self.merged_rows(RowRole::PutBackBefore)?,
            self.merged_rows(RowRole::PutBackAfter)?,
            self.merged_rows(RowRole::Deleted)?,
        )?;
        let live = self.live(view)?;
        let mut pair = Pair::start(gone, live)?;
        let mut passed = Passed::new(self.context);
        while let Some(side) = pair.side() {
            if side != Side::Right {
                let was = pair.left.row();
                let left = pair.left.left_by_merge();
                match side {
                    // Rows that are equal to a deleted one were there beside it.
                    Side::Both if has_key && pair.right.row() != was => {
                        // Either somebody wrote to it since, or a new row has the key that the
                        // deleted one had.
                        let is_untouched = left == Some(pair.right.row());
                        if is_untouched || self.changed_since(was.key()) {
                            self.changes.put_back_again(pair.right.row(), was)?;
                        }
                    }
                    Side::Both if has_key => {}
                    // Somebody deleted the row that the merge left. It stays deleted unless told
                    // otherwise.
                    _ if left.is_some() && !self.changed_since(was.key()) => {}
                    _ => self.changes.create(was, &Holds::NONE)?,
                }
            }
            passed.row()?;
            pair.pass(side)?;
        }
        Ok(())
    }
}

/// Rows as they were before a merge that put them back or deleted them, in order. No key is in
/// both roles.
struct Gone<C> {
    before: C,
    after: C,
    deleted: C,
    has_put_back: bool,
    has_deleted: bool,
    current: Option<RowRole>,
}

impl<C: RowCursor> Gone<C> {
    fn start(mut before: C, mut after: C, mut deleted: C) -> Result<Self, Error> {
        let has_put_back = step_both(&mut before, &mut after)?;
        let has_deleted = deleted.advance()?;
        Ok(Self {
            before,
            after,
            deleted,
            has_put_back,
            has_deleted,
            current: None,
        })
    }

    /// The current row as the merge left it, if it left it.
    fn left_by_merge(&self) -> Option<RowRef<'_>> {
        (self.current == Some(RowRole::PutBackBefore)).then(|| self.after.row())
    }
}

/// Goes to the next row that was put back.
fn step_both<C: RowCursor>(before: &mut C, after: &mut C) -> Result<bool, Error> {
    match (before.advance()?, after.advance()?) {
        (true, true) => Ok(true),
        (false, false) => Ok(false),
        _ => Err(Error::new(
            ErrorKind::Corrupt,
            "the merged plan lacks a row's past",
        )),
    }
}

impl<C: RowCursor> RowCursor for Gone<C> {
    fn advance(&mut self) -> Result<bool, Error> {
        match self.current {
            Some(RowRole::PutBackBefore) => {
                self.has_put_back = step_both(&mut self.before, &mut self.after)?;
            }
            Some(_) => self.has_deleted = self.deleted.advance()?,
            None => {}
        }
        self.current = match (self.has_put_back, self.has_deleted) {
            (false, false) => None,
            (true, false) => Some(RowRole::PutBackBefore),
            (false, true) => Some(RowRole::Deleted),
            (true, true) if self.before.row().key() < self.deleted.row().key() => {
                Some(RowRole::PutBackBefore)
            }
            (true, true) => Some(RowRole::Deleted),
        };
        Ok(self.current.is_some())
    }

    fn row(&self) -> RowRef<'_> {
        match self.current {
            Some(RowRole::PutBackBefore) => self.before.row(),
            _ => self.deleted.row(),
        }
    }
}
