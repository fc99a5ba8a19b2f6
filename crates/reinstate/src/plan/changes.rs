//! The changes of one table of a tenant on their way into a plan.

use std::collections::HashSet;

use reinstate_core::{
    ChangeCounts, ContentDigest, ErrorKind, Lead, LiveView, Owner, Reference, RowBatch, RowBuilder,
    RowRef, RowRole, StrayReference, TableIndex, TenantId,
};
use reinstate_format::{
    CONFLICTS_MAX, Conflict, LastChange, NoteKind, PlanNote, RunKey, TablePlan,
    TenantPlanDescription, push_last_change,
};

use super::asking::{around, question_bytes, strays, without};
use super::decide::Decision;
use super::hindrances::Hindrances;
use super::holds::Holds;
use super::leaving::Leaving;
use super::left_behind::{LeftBehind, Returning};
use super::notes::{FixedValues, Strays};
use super::parents::References;
use super::since::By;
use crate::drift::RowChecks;
use crate::segment_writer::{OpenRun, SegmentWriter};
use crate::{Context, Error};

/// Why a row is not written although its place is free.
const PARENT_MOVES: &str =
    "belongs by a value, without a foreign key, to a row that loses the value first";

/// The changes of one table on their way into the plan.
pub(super) struct TableChanges<'w, 'a> {
    context: Context<'w>,
    view: &'w dyn LiveView,
    writer: &'w mut SegmentWriter<'a>,
    /// What is asked of rows that come from the snapshot.
    pub(super) checks: Option<RowChecks<'w>>,
    /// Whether the table changed since the snapshot.
    pub(super) was_changed: bool,
    /// The table's references that came since.
    pub(super) younger: Vec<Reference>,
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
    /// What changed the row last that is handled next.
    pub(super) by: By,
    /// Who wants to know what changed the rows last that are written; nobody if nothing is known.
    pub(super) on_change: Option<&'w mut (dyn FnMut(By) -> Result<(), Error> + 'w)>,
    /// A row that says so.
    last_change: RowBuilder,
    /// How many bytes of rows are gathered before the store is asked about them.
    question_bytes: usize,
    /// Rows to create of which it is not known yet whether their places are free.
    to_create: RowBatch,
    /// What changed them last.
    to_create_by: Vec<By>,
    /// Rows to put back of which the same is not known yet, before and after.
    to_put_back: (RowBatch, RowBatch),
    to_put_back_by: Vec<By>,
    strays: Strays,
    fixed: FixedValues,
    pub(super) hindrances: Hindrances,
    /// Rows that the tenant will have without their being written.
    pub(super) returning: Returning,
    /// Those of them that are in nobody's way.
    pub(super) giving_way: RowBatch,
    /// Those of later tables.
    pub(super) left_behind: Option<&'w mut LeftBehind>,
    /// What the rows refer to.
    pub(super) parents: Option<&'w mut (dyn References + 'w)>,
    /// What rows belong to that goes.
    pub(super) leaving: Option<&'w mut Leaving>,
    /// Rows that were given values by which others may belong to them: those created, and those
    /// put back.
    other_values: (RowBatch, RowBatch),
    /// Rows that will be nobody's, as they are in the end.
    lost: ContentDigest,
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
            was_changed: false,
            younger: Vec::new(),
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
            by: By::Unknown,
            on_change: None,
            last_change: RowBuilder::new(),
            question_bytes: question_bytes(context, view),
            to_create: RowBatch::new(),
            to_create_by: Vec::new(),
            to_put_back: (RowBatch::new(), RowBatch::new()),
            to_put_back_by: Vec::new(),
            strays: Strays::default(),
            fixed: FixedValues::of(context, view, table),
            hindrances: Hindrances::default(),
            returning: Returning::default(),
            giving_way: RowBatch::new(),
            left_behind: None,
            parents: None,
            leaving: None,
            other_values: (RowBatch::new(), RowBatch::new()),
            lost: ContentDigest::EMPTY,
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

    /// Notes what changed a row last that is written.
    fn changed_by(&mut self, role: RowRole, by: By) -> Result<(), Error> {
        let Some(on_change) = &mut self.on_change else {
            return Ok(());
        };
        on_change(by)?;
        let mut row = std::mem::take(&mut self.last_change);
        let commit = by.commit();
        push_last_change(LastChange { role, commit }, &mut row);
        self.append(RowRole::LastChange, row.row())?;
        self.last_change = row;
        Ok(())
    }

    /// Notes a row that the live tenant has, or will have without its being written: returns
    /// whether that. It stays, until one of the others says otherwise.
    ///
    /// # Errors
    /// As [`Leaving::goes`]; so it is with all that change a row.
    pub(super) fn live(&mut self, row: RowRef<'_>) -> Result<bool, Error> {
        if let Some(leaving) = &mut self.leaving
            && leaving.leads(self.table, row)
        {
            self.lost.add(row);
            leaving.goes(self.table, row)?;
        }
        let returns = self.returning.pass(row);
        if returns {
            self.found.add(row);
        } else {
            self.before.add(row);
        }
        Ok(returns)
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

    /// Notes that a row is not written, and why.
    pub(super) fn leave(&mut self, key: &[u8], decision: Decision) {
        match decision {
            Decision::Same => self.same += 1,
            Decision::Conflict(reason) => self.conflict(key, &reason),
            Decision::Keep | Decision::Write => self.keep(),
        }
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
        if let Some(leaving) = &mut self.leaving {
            if leaving.leads(self.table, row) {
                self.lost.remove(row);
            } else {
                leaving.goes(self.table, row)?;
            }
        }
        self.counts.deleted += 1;
        self.changed_by(RowRole::Deleted, self.by)?;
        let place = (&self.tenant, self.table);
        self.hindrances.delete(self.view, place, row)?;
        self.append(RowRole::Deleted, row)
    }

    /// Deletes a row of which it was noted before that it stays.
    pub(super) fn delete_again(&mut self, row: RowRef<'_>) -> Result<(), Error> {
        if self.returning.take(row) {
            self.gained.remove(row);
        }
        self.delete(row)
    }

    /// Puts a row back of which it was noted before that it stays. Nobody is asked about the tenant's
    /// own rows.
    pub(super) fn put_back_again(
        &mut self,
        before: RowRef<'_>,
        after: RowRef<'_>,
    ) -> Result<(), Error> {
        if self.returning.take(before) {
            self.gained.remove(before);
            self.gained.add(after);
        }
        self.put_back(before, after, &Holds::NONE)
    }

    /// Whether what a row belongs to is put back first, so that the row is nobody's when its turn
    /// comes: a conflict.
    fn is_stuck(&mut self, row: RowRef<'_>) -> bool {
        let leaving = self.leaving.as_ref();
        let is_stuck = leaving.is_some_and(|leaving| leaving.leads_to_moved(self.table, row));
        if is_stuck {
            self.conflict(row.key(), PARENT_MOVES);
        }
        is_stuck
    }

    /// Puts a row back, unless somebody else's row, or one of `holds`, has a value of it.
    pub(super) fn put_back(
        &mut self,
        before: RowRef<'_>,
        after: RowRef<'_>,
        holds: &Holds,
    ) -> Result<(), Error> {
        self.check(after)?;
        if self.is_stuck(before) {
            return Ok(());
        }
        if let Some(constraint) = holds.constraint(after) {
            self.conflict(after.key(), constraint);
            return Ok(());
        }
        self.to_put_back.0.push_row(before);
        self.to_put_back.1.push_row(after);
        self.to_put_back_by.push(self.by);
        if self.to_put_back.1.as_bytes().len() >= self.question_bytes {
            self.put_back_gathered()?;
        }
        Ok(())
    }

    /// Creates a row, unless somebody else's row, or one of `holds`, is in its place.
    pub(super) fn create(&mut self, row: RowRef<'_>, holds: &Holds) -> Result<(), Error> {
        self.check(row)?;
        if self.is_stuck(row) {
            return Ok(());
        }
        if let Some(constraint) = holds.constraint(row) {
            self.conflict(row.key(), constraint);
            return Ok(());
        }
        self.to_create.push_row(row);
        self.to_create_by.push(self.by);
        if self.to_create.as_bytes().len() >= self.question_bytes {
            self.create_gathered()?;
        }
        Ok(())
    }

    fn ask_taken(&mut self, rows: &RowBatch) -> Result<(), Error> {
        let (table, was_changed) = (self.table, self.was_changed);
        self.hindrances
            .ask_taken(self.view, table, rows, was_changed)
    }

    /// The keys among these rows that somebody else holds; each is noted as a conflict. Where
    /// their references lead astray is noted too. In the same order `before` has what they are now.
    fn look_around(
        &mut self,
        role: RowRole,
        rows: &RowBatch,
        before: Option<&RowBatch>,
    ) -> Result<HashSet<Vec<u8>>, Error> {
        if rows.is_empty() {
            return Ok(HashSet::new());
        }
        let place = (&self.tenant, self.table, self.younger.as_slice());
        let (held, found) = around(self.view, place, (role, rows, before), &self.giving_way)?;
        let mut places = HashSet::new();
        for held in held {
            if !places.contains(&held.key) {
                self.conflict(&held.key, &held.constraint);
                places.insert(held.key);
            }
        }
        if places.is_empty() {
            self.follow(rows, found)?;
        } else {
            let place = (&self.tenant, self.table, self.younger.as_slice());
            let free = without(rows, &places);
            self.follow(&free, strays(self.view, place, &free, (rows, before))?)?;
        }
        Ok(places)
    }

    /// Notes what rows that will be written refer to.
    fn follow(&mut self, rows: &RowBatch, strays: Vec<StrayReference>) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        if let Some(parents) = &mut self.parents {
            parents.follow(self.table, rows)?;
        }
        for stray in strays {
            let stray = match &mut self.parents {
                Some(parents) => parents.stray(stray)?,
                None => Some(stray).filter(|stray| stray.lead != Lead::Unfound),
            };
            stray.into_iter().for_each(|stray| self.strays.add(stray));
        }
        Ok(())
    }

    /// Writes the rows whose places are free. The others are left out: with the policy to keep what
    /// is live that is what was asked for, with any other the plan cannot be applied.
    fn create_gathered(&mut self) -> Result<(), Error> {
        let mut rows = std::mem::take(&mut self.to_create);
        self.ask_taken(&rows)?;
        let held = self.look_around(RowRole::Created, &rows, None)?;
        let by = std::mem::take(&mut self.to_create_by);
        let free = rows.iter().zip(by);
        for (row, by) in free.filter(|(row, _)| !held.contains(row.key())) {
            self.counts.created += 1;
            self.changed_by(RowRole::Created, by)?;
            self.append(RowRole::Created, row)?;
            self.came(row)?;
        }
        if !held.is_empty() {
            rows = without(&rows, &held);
        }
        let leaving = self.leaving.as_ref();
        if leaving.is_some_and(|leaving| leaving.has_other_values(self.table)) {
            rows.iter()
                .for_each(|row| self.other_values.0.push_row(row));
        } else if let Some(left_behind) = &mut self.left_behind
            && !rows.is_empty()
        {
            left_behind.find(self.context, self.view, (self.table, &rows), |_, _| true)?;
        }
        rows.clear();
        self.to_create = rows;
        Ok(())
    }

    fn put_back_gathered(&mut self) -> Result<(), Error> {
        let (mut before, mut after) = std::mem::take(&mut self.to_put_back);
        self.ask_taken(&after)?;
        let held = self.look_around(RowRole::PutBackAfter, &after, Some(&before))?;
        if !self.fixed.is_empty() && !after.is_empty() {
            let own = self
                .view
                .held_by_own(&self.tenant, self.table, &after)
                .map_err(Error::store("look for values that move from row to row"))?;
            self.fixed.add(&after, own);
        }
        let place = (&self.tenant, self.table);
        self.hindrances
            .ask(self.view, place, &before, Some(&after))?;
        let by = std::mem::take(&mut self.to_put_back_by);
        for ((before, after), by) in before.iter().zip(after.iter()).zip(by) {
            if !held.contains(after.key()) {
                self.counts.put_back += 1;
                self.changed_by(RowRole::PutBackBefore, by)?;
                self.append(RowRole::PutBackBefore, before)?;
                self.append(RowRole::PutBackAfter, after)?;
                self.became(before, after)?;
            }
        }
        before.clear();
        after.clear();
        self.to_put_back = (before, after);
        Ok(())
    }

    /// Follows what belongs to a row that is created.
    fn came(&mut self, row: RowRef<'_>) -> Result<(), Error> {
        let Some(leaving) = &mut self.leaving else {
            return Ok(());
        };
        if !leaving.leads(self.table, row) {
            return leaving.comes(self.table, row);
        }
        self.lost.add(row);
        leaving.goes(self.table, row)
    }

    /// Follows what belongs to a row that is put back.
    fn became(&mut self, before: RowRef<'_>, after: RowRef<'_>) -> Result<(), Error> {
        let Some(leaving) = &mut self.leaving else {
            return Ok(());
        };
        let was_leaving = leaving.leads(self.table, before);
        let leaves = leaving.leads(self.table, after);
        if was_leaving {
            self.lost.remove(before);
        }
        if leaves {
            self.lost.add(after);
        }
        match (was_leaving, leaves) {
            (false, false) => {
                leaving.changes(self.table, before, after)?;
                if leaving.moves(self.table, before, after) {
                    self.other_values.1.push_row(after);
                }
                Ok(())
            }
            (true, false) => leaving.stays(self.table, after),
            (was_leaving, true) => {
                if !was_leaving {
                    leaving.goes(self.table, before)?;
                }
                if leaving.moves(self.table, before, after) {
                    leaving.goes(self.table, after)?;
                }
                Ok(())
            }
        }
    }

    /// Finds what belongs to rows by values that they did not have.
    fn find_by_other_values(&mut self) -> Result<(), Error> {
        let (created, put_back) = std::mem::take(&mut self.other_values);
        let (Some(left_behind), Some(leaving)) = (&mut self.left_behind, &self.leaving) else {
            return Ok(());
        };
        for (rows, is_created) in [(created, true), (put_back, false)] {
            if !rows.is_empty() {
                let returns = |table, row: RowRef<'_>| leaving.returns(table, row, is_created);
                left_behind.find(self.context, self.view, (self.table, &rows), returns)?;
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Finished, Error> {
        self.put_back_gathered()?;
        self.create_gathered()?;
        let place = (&self.tenant, self.table);
        self.hindrances.ask_deleted(self.view, place)?;
        self.find_by_other_values()?;
        self.expected = self.before;
        self.expected.merge(self.found);
        self.expected.subtract(self.lost);
        let runs = std::mem::replace(&mut self.runs, [const { None }; RowRole::ALL.len()]);
        for run in runs.into_iter().flatten() {
            let role = run.key().role;
            let content = self.writer.close(run)?;
            match role {
                RowRole::Created | RowRole::PutBackAfter => self.expected.merge(content),
                RowRole::Deleted | RowRole::PutBackBefore => self.expected.subtract(content),
                RowRole::LastChange => {}
                RowRole::Image | RowRole::SharedCreated => {
                    unreachable!("BUG: a plan holds no image")
                }
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
            lost: self.lost,
        };
        Ok(Finished {
            name: self.view.schema().table(self.table).name.to_string(),
            found: self.found.row_count(),
            plan,
            conflicts: self.conflicts,
            strays: self.strays,
            fixed: self.fixed,
            hindrances: self.hindrances,
        })
    }
}

/// The changes of one table, all written.
pub(super) struct Finished {
    name: String,
    /// How many rows return by themselves.
    pub(super) found: u64,
    pub(super) plan: TablePlan,
    conflicts: Vec<Conflict>,
    strays: Strays,
    fixed: FixedValues,
    pub(super) hindrances: Hindrances,
}

impl Finished {
    /// What keeps a restore from being carried out because of rows that would be nobody's.
    pub(super) fn would_leave(&self) -> Option<PlanNote> {
        let count = self.plan.lost.row_count();
        (count > 0).then(|| PlanNote {
            kind: NoteKind::EffectRefused,
            object: format!("table {}", self.name),
            detail: "holds rows of the tenant that would be nobody's: they stay, and what they \
                     belong to goes or gets another value. Put back and delete them too \
                     (--put-back on, --delete on), or give them away before"
                .to_owned(),
            count,
        })
    }

    /// What an undo leaves to nobody, as it was before the merge.
    pub(super) fn leaves(&self) -> Option<PlanNote> {
        let count = self.plan.lost.row_count();
        (count > 0).then(|| PlanNote {
            kind: NoteKind::EffectAllowed,
            object: format!("table {}", self.name),
            detail: "holds rows that stay as they are and are nobody's again".to_owned(),
            count,
        })
    }

    pub(super) fn add_to(self, description: &mut TenantPlanDescription) {
        description.conflicts.extend(self.conflicts);
        description.conflicts.truncate(CONFLICTS_MAX);
        description.notes.extend(self.strays.into_notes());
        description.notes.extend(self.fixed.into_notes());
        description.notes.extend(self.hindrances.into_notes());
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
