//! Rows that an incident left behind.
//!
//! Where nothing guards a reference, deleting a row leaves those behind that belong to it: comments
//! on an issue that is gone. They are nobody's then. As soon as the issue is back, they are its
//! tenant's again, so that a plan has to treat them as rows that the tenant has: leave them where
//! they are what they were, put them back or delete them where not.

use std::collections::{BTreeMap, HashMap};

use reinstate_core::{
    ContentDigest, ErrorKind, LiveView, RowBatch, RowRef, RowRole, RowStream, TableIndex,
};
use reinstate_format::{NoteKind, TablePlan, TenantPlanDescription};

use super::leaving::Leaving;
use super::saved::RestorePlan;
use crate::{Context, Error};

/// The part of the memory that such rows may take, all tables of one tenant together.
const MEMORY_PART: usize = 8;

/// Rows left behind, of tables that are still to be planned.
#[derive(Debug, Default)]
pub(super) struct LeftBehind {
    tables: BTreeMap<TableIndex, Vec<RowBatch>>,
    bytes: usize,
}

impl LeftBehind {
    /// Finds what belongs to these rows of a table that are to be written, as far as it `returns`,
    /// and what belongs to that.
    pub(super) fn find(
        &mut self,
        context: Context<'_>,
        view: &dyn LiveView,
        (table, written): (TableIndex, &RowBatch),
        returns: impl Fn(TableIndex, RowRef<'_>) -> bool,
    ) -> Result<(), Error> {
        let ask = |table, rows: &RowBatch| {
            view.left_behind(table, rows)
                .map_err(Error::store("look for rows that were left behind"))
        };
        let mut waiting = ask(table, written)?;
        for (table, rows) in &mut waiting {
            let mut kept = RowBatch::new();
            for row in rows.iter().filter(|row| returns(*table, *row)) {
                kept.push_row(row);
            }
            *rows = kept;
        }
        waiting.retain(|(_, rows)| !rows.is_empty());
        while let Some((table, rows)) = waiting.pop() {
            context.check()?;
            self.bytes += rows.as_bytes().len();
            if self.bytes > context.resources.memory_bytes_max() / MEMORY_PART {
                let message = format!(
                    "more rows were left behind in {} than fit in memory: delete those that \
                     belong to nothing, or give more --memory",
                    view.schema().table(table).name
                );
                return Err(Error::new(ErrorKind::Refused, message));
            }
            waiting.extend(ask(table, &rows)?);
            self.tables.entry(table).or_default().push(rows);
        }
        Ok(())
    }

    /// The rows of one table, whose parents have all been planned.
    pub(super) fn take(&mut self, table: TableIndex) -> Returning {
        let batches = self.tables.remove(&table).unwrap_or_default();
        self.bytes -= batches
            .iter()
            .map(|rows| rows.as_bytes().len())
            .sum::<usize>();
        let mut copies: HashMap<Vec<u8>, u64> = HashMap::new();
        for row in batches.iter().flat_map(RowBatch::iter) {
            *copies.entry(row.body().to_vec()).or_insert(0) += 1;
        }
        Returning {
            batches,
            copies,
            passed: HashMap::new(),
        }
    }
}

/// Rows of one table that come back to the tenant by themselves.
#[derive(Debug, Default)]
pub(super) struct Returning {
    pub(super) batches: Vec<RowBatch>,
    copies: HashMap<Vec<u8>, u64>,
    /// Those that were passed.
    passed: HashMap<Vec<u8>, u64>,
}

impl Returning {
    /// Whether a live row is one of them. Each counts once.
    pub(super) fn pass(&mut self, live: RowRef<'_>) -> bool {
        match self.copies.get_mut(live.body()) {
            Some(copies) if *copies > 0 => {
                *copies -= 1;
                *self.passed.entry(live.body().to_vec()).or_insert(0) += 1;
                true
            }
            _ => false,
        }
    }

    /// Whether a live row is one of those that were passed. Each counts once.
    pub(super) fn take(&mut self, live: RowRef<'_>) -> bool {
        match self.passed.get_mut(live.body()) {
            Some(copies) if *copies > 0 => {
                *copies -= 1;
                true
            }
            _ => false,
        }
    }
}

/// Whether the rows that a plan counts in as left behind are those that there are. No fingerprint
/// covers them, since they are nobody's.
pub(crate) fn are_unchanged(
    context: Context<'_>,
    plan: &RestorePlan,
    part: &TenantPlanDescription,
    view: &dyn LiveView,
) -> Result<bool, Error> {
    let mut notes = part.notes.iter();
    if !notes.any(|note| note.kind == NoteKind::LeftBehind) {
        return Ok(true);
    }
    let again = Again {
        context,
        plan,
        part,
    };
    let mut left_behind = LeftBehind::default();
    let mut leaving = Leaving::new(context, view.schema());
    for table in view.schema().write_order() {
        let mut found = ContentDigest::EMPTY;
        let returning = left_behind.take(table);
        let rows = returning.batches.iter().flat_map(RowBatch::iter);
        rows.for_each(|row| found.add(row));
        let Some(planned) = part.tables.iter().find(|planned| planned.table == table) else {
            continue;
        };
        if found != again.planned(planned)? {
            return Ok(false);
        }
        again.follow(view, table, &mut left_behind, &mut leaving)?;
    }
    Ok(true)
}

/// A plan that was made before, on its way to be carried out.
struct Again<'p> {
    context: Context<'p>,
    plan: &'p RestorePlan,
    part: &'p TenantPlanDescription,
}

impl Again<'_> {
    fn each(
        &self,
        table: TableIndex,
        role: RowRole,
        mut each: impl FnMut(&RowBatch) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut rows = self
            .plan
            .run(self.context, &self.part.tenant, table, role)?;
        let mut batch = RowBatch::new();
        let operation = || Error::store("read the plan");
        while rows.next_batch(&mut batch).map_err(operation())? {
            self.context.check()?;
            each(&batch)?;
        }
        Ok(())
    }

    /// The rows of a table that the plan says were left behind.
    fn planned(&self, table: &TablePlan) -> Result<ContentDigest, Error> {
        let mut found = table.expected;
        found.merge(table.lost);
        found.subtract(table.before);
        for role in RowRole::ALL {
            let mut content = ContentDigest::EMPTY;
            self.each(table.table, role, |rows| {
                rows.iter().for_each(|row| content.add(row));
                Ok(())
            })?;
            match role {
                RowRole::Created | RowRole::PutBackAfter => found.subtract(content),
                RowRole::Deleted | RowRole::PutBackBefore => found.merge(content),
                RowRole::Image | RowRole::SharedCreated | RowRole::LastChange => {}
            }
        }
        Ok(found)
    }

    /// Finds what belongs to the rows of a table that are to be written, as the plan did.
    fn follow(
        &self,
        view: &dyn LiveView,
        table: TableIndex,
        left_behind: &mut LeftBehind,
        leaving: &mut Leaving,
    ) -> Result<(), Error> {
        let context = self.context;
        if !leaving.has_other_values(table) {
            return self.each(table, RowRole::Created, |rows| {
                left_behind.find(context, view, (table, rows), |_, _| true)
            });
        }
        self.each(table, RowRole::Deleted, |rows| {
            rows.iter().try_for_each(|row| leaving.goes(table, row))
        })?;
        self.each(table, RowRole::Created, |rows| {
            rows.iter().try_for_each(|row| leaving.comes(table, row))
        })?;
        self.each(table, RowRole::PutBackBefore, |rows| {
            rows.iter().try_for_each(|row| leaving.goes(table, row))
        })?;
        self.each(table, RowRole::PutBackAfter, |rows| {
            rows.iter().try_for_each(|row| leaving.stays(table, row))
        })?;
        for (role, is_created) in [(RowRole::Created, true), (RowRole::PutBackAfter, false)] {
            self.each(table, role, |rows| {
                let returns = |table, row: RowRef<'_>| leaving.returns(table, row, is_created);
                left_behind.find(context, view, (table, rows), returns)
            })?;
        }
        Ok(())
    }
}
