//! Planning the undo of a merge: the reverse of its plan, as far as the live rows still are what
//! the merge left.

use reinstate_core::{
    ConflictPolicy, ErrorKind, LiveStore, LiveView, ObjectWriter, Policy, RowBatch, RowRole,
    TableIndex, TenantId,
};
use reinstate_format::{CONFLICTS_MAX, PlanDescription, PlanSegment, TenantPlanDescription};

use super::compare::{Passed, TableChanges};
use super::cursor::{Pair, RowCursor, Side, StreamCursor, live_rows};
use super::{
    PlanRequest, RestorePlan, StoredPlan, WrittenPlan, check_schema, describe_tenant, finish, start,
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
    request: &PlanRequest,
    output: Box<dyn ObjectWriter + '_>,
) -> Result<WrittenPlan, Error> {
    let original = merged.plan().description();
    let view = live
        .read_view()
        .map_err(Error::store("read the live store"))?;
    check_schema(&original.schema, view.schema())?;
    let mut writer = start(context, request, output)?;
    let mut parts = Vec::with_capacity(tenants.len());
    for tenant in tenants {
        let mut description = describe_tenant(view.as_ref(), tenant)?;
        for table in view.schema().write_order() {
            let changes = TableChanges::new(table, tenant, &mut writer);
            let undone = UndoTable {
                context,
                plan: merged.plan(),
                tenant,
                table,
                policy: request.policy,
                changes,
            };
            undone.compare(view.as_ref(), &mut description)?;
        }
        parts.push(description);
    }
    let description = PlanDescription {
        job: request.job,
        store: live.identity(),
        planned_at: view.taken_at().unwrap_or(request.planned_at),
        live_position: view.position(),
        policy: request.policy,
        undoes: Some(original.job),
        segment: PlanSegment::default(),
        notes: Vec::new(),
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
    changes: TableChanges<'w, 'a>,
}

impl UndoTable<'_, '_, '_> {
    fn compare(
        mut self,
        view: &dyn LiveView,
        description: &mut TenantPlanDescription,
    ) -> Result<(), Error> {
        let mut live = live_rows(self.context, view, self.tenant, self.table)?;
        while live.advance()? {
            self.changes.live(live.row());
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
        if merged.put_back > 0 {
            self.take_back_put_back(view)?;
        }
        if merged.deleted > 0 {
            self.take_back_deleted(view)?;
        }
        let (mut plan, conflicts) = self.changes.finish()?;
        plan.same = plan.before.row_count() - plan.counts.put_back - plan.counts.deleted;
        description.conflicts.extend(conflicts);
        description.conflicts.truncate(CONFLICTS_MAX);
        description.tables.push(plan);
        Ok(())
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
        let live = live_rows(self.context, view, self.tenant, self.table)?;
        let mut pair = Pair::start(created, live)?;
        let mut passed = Passed::new(self.context);
        while let Some(side) = pair.side() {
            match side {
                Side::Both => {
                    let unchanged = pair.left.row() == pair.right.row();
                    if unchanged || self.changed_since(pair.right.row().key()) {
                        self.changes.delete(pair.right.row())?;
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

    fn take_back_put_back(&mut self, view: &dyn LiveView) -> Result<(), Error> {
        let mut before = self.merged_rows(RowRole::PutBackBefore)?;
        let after = self.merged_rows(RowRole::PutBackAfter)?;
        let live = live_rows(self.context, view, self.tenant, self.table)?;
        let mut has_before = before.advance()?;
        let mut pair = Pair::start(after, live)?;
        let mut passed = Passed::new(self.context);
        while let Some(side) = pair.side() {
            if side != Side::Right && !has_before {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    "the merged plan lacks a row's past",
                ));
            }
            match side {
                Side::Both if pair.right.row() == before.row() => {}
                Side::Both => {
                    let unchanged = pair.left.row() == pair.right.row();
                    if unchanged || self.changed_since(pair.right.row().key()) {
                        self.changes.put_back(pair.right.row(), before.row())?;
                    }
                }
                // Somebody deleted the row since. It stays deleted unless told otherwise.
                Side::Left => {
                    if self.changed_since(pair.left.row().key()) {
                        let mut rows = RowBatch::new();
                        rows.push_row(before.row());
                        self.changes.create(view, self.policy, &mut rows)?;
                    }
                }
                Side::Right => {}
            }
            if side != Side::Right {
                has_before = before.advance()?;
            }
            passed.row()?;
            pair.pass(side)?;
        }
        Ok(())
    }

    fn take_back_deleted(&mut self, view: &dyn LiveView) -> Result<(), Error> {
        let has_key = view.schema().table(self.table).has_key();
        let deleted = self.merged_rows(RowRole::Deleted)?;
        let live = live_rows(self.context, view, self.tenant, self.table)?;
        let mut pair = Pair::start(deleted, live)?;
        let mut missing = RowBatch::new();
        let mut passed = Passed::new(self.context);
        while let Some(side) = pair.side() {
            match side {
                Side::Left => missing.push_row(pair.left.row()),
                // Rows that are equal to a deleted one were there beside it.
                Side::Both if !has_key => missing.push_row(pair.left.row()),
                Side::Both if pair.left.row() == pair.right.row() => {}
                // A new row has the key that the deleted one had.
                Side::Both => {
                    if self.changed_since(pair.right.row().key()) {
                        self.changes.put_back(pair.right.row(), pair.left.row())?;
                    }
                }
                Side::Right => {}
            }
            if missing.as_bytes().len() >= RowBatch::TARGET_BYTES {
                self.changes.create(view, self.policy, &mut missing)?;
            }
            passed.row()?;
            pair.pass(side)?;
        }
        drop(pair);
        self.changes.create(view, self.policy, &mut missing)
    }
}
