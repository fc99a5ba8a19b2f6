//! Into: one tenant's rows become another's, in the same store.
//!
//! The rows of an image pass through one more stage on their way into a plan: the tenant's id,
//! keys that the original has or could have again, and every reference to either are rewritten.
//! New keys are functions of the old ones, so that no table of them has to be held: a number moves
//! by as much as the greatest one of the store asks for, a uuid becomes a hash of itself and the job.
//! Columns that hold each other's values, because one refers to the other, form a *class* and are
//! rewritten by the same function.
//!
//! *Cost*: the image is read once more before the comparison, if numbers have to be moved or
//! references could lead out of the tenant. Of those, the values that do are held in memory.

mod classes;
mod decide;
mod json;
mod rows;
mod rules;
mod survey;
mod values;
mod words;

use std::collections::BTreeSet;
use std::io;

use reinstate_core::{ErrorKind, LiveView, RowBatch, RowRef, TableIndex, TableSchema, TenantId};
use reinstate_format::{NoteKind, PlanNote, TenantPlanDescription};

use crate::drift::SchemaMapping;
use crate::image::TenantImage;
use crate::plan::{RowCursor, finish_sort, mapped_rows, sorted_rows, start_sort};
use crate::{Context, Error};
use classes::Classes;
use decide::Decisions;
use rows::{RekeyedRows, TableRekeying};

pub use rules::{ColumnRule, CopyReference, CopyRules, TableCopyRules};

/// Under which id a tenant is copied, and what an operator decided about its columns.
#[derive(Clone, Debug)]
pub struct CopyRequest {
    /// The id that the copy gets. Nobody may have rows under it yet.
    pub tenant: TenantId,
    /// What becomes of single columns.
    pub rules: CopyRules,
}

/// Who is told of every row that is copied from a table that has a key: as it is in the snapshot,
/// and as it will be.
pub type Remap<'r> = dyn Fn(&TableSchema, RowRef<'_>, RowRef<'_>) -> io::Result<()> + 'r;

/// How the rows of an image become those of its copy.
pub(crate) struct Rekeying<'r> {
    tables: Vec<TableRekeying>,
    left_out: BTreeSet<TableIndex>,
    /// What a reviewer of the plan should know.
    pub(crate) notes: Vec<PlanNote>,
    remap: &'r Remap<'r>,
}

/// What the image's rows are read from, in the shape of the live tables.
#[derive(Clone, Copy)]
struct Source<'a> {
    context: Context<'a>,
    image: &'a TenantImage,
    view: &'a dyn LiveView,
    mapping: &'a SchemaMapping,
    left_out: &'a BTreeSet<TableIndex>,
}

impl<'a> Source<'a> {
    /// Whether the copy has rows in a live table.
    fn has_rows(&self, table: TableIndex) -> bool {
        let owned = self.view.schema().table(table).tenancy.is_tenant_owned();
        if !owned || self.left_out.contains(&table) {
            return false;
        }
        let source = self.mapping.table(table).source;
        source.is_some_and(|source| self.image.row_count(source) > 0)
    }

    fn rows(&self, table: TableIndex) -> Result<Box<dyn RowCursor + 'a>, Error> {
        let mapping = self.mapping.table(table);
        mapped_rows(self.context, self.image, self.view, table, mapping)
    }
}

impl<'r> Rekeying<'r> {
    /// Decides what every column of the copy holds.
    ///
    /// # Errors
    /// `Usage` if the id cannot be a tenant's, or a rule names what there is not; `Conflict` if
    /// somebody has rows under it; `Refused` with everything that has to be decided first, or with
    /// the numbers for which there is no room.
    pub(crate) fn find(
        context: Context<'_>,
        image: &TenantImage,
        view: &dyn LiveView,
        mapping: &SchemaMapping,
        (request, job): (&CopyRequest, &[u8; 16]),
        remap: &'r Remap<'r>,
    ) -> Result<Self, Error> {
        let tables = request.rules.left_out.iter();
        let left_out = tables.map(|name| rules::table(view.schema(), name));
        let left_out: BTreeSet<TableIndex> = left_out.collect::<Result<_, _>>()?;
        let source = Source {
            context,
            image,
            view,
            mapping,
            left_out: &left_out,
        };
        check_empty(&source, &request.tenant)?;
        let classes = Classes::find(view, &request.rules)?;
        let decisions = Decisions::find(&source, &classes, &request.rules, &request.tenant)?;
        let survey = survey::survey(&source, &classes, &decisions)?;
        let changes = values::find(&source, &classes, &decisions, &survey, request, job)?;
        let mut notes = vec![PlanNote {
            kind: NoteKind::Copied,
            object: image.tenant().to_string(),
            detail: "is copied, and its own rows stay as they are".to_owned(),
            count: 0,
        }];
        notes.extend(values::notes(&source, &classes, &survey, &changes));
        notes.extend(words::notes(&source, &classes, &decisions));
        let tables = rows::find(&source, &classes, &decisions, &survey, &changes);
        Ok(Self {
            tables,
            left_out,
            notes,
            remap,
        })
    }

    /// The rows of the copy in one table, in order, from those of the original.
    pub(crate) fn rows<'a>(
        &'a self,
        context: Context<'a>,
        view: &'a dyn LiveView,
        table: TableIndex,
        rows: Box<dyn RowCursor + 'a>,
    ) -> Result<Box<dyn RowCursor + 'a>, Error> {
        if self.left_out.contains(&table) {
            return Ok(Box::new(finish_sort(context, start_sort(context))?));
        }
        let rekeying = &self.tables[table.get()];
        let schema = view.schema().table(table);
        let rows = RekeyedRows::new(rows, schema, rekeying, self.remap);
        if rekeying.keeps_order {
            return Ok(Box::new(rows));
        }
        Ok(Box::new(sorted_rows(context, table, rows)?))
    }
}

/// Refuses an id under which there is anything.
fn check_empty(source: &Source<'_>, tenant: &TenantId) -> Result<(), Error> {
    let kind = &source.image.tenant().kind;
    if *tenant == source.image.tenant().id {
        let message = format!("{kind}:{tenant} cannot be copied into itself");
        return Err(Error::new(ErrorKind::Usage, message));
    }
    let mut batch = RowBatch::new();
    for (index, table) in source.view.schema().iter() {
        if !table.tenancy.is_tenant_owned() {
            continue;
        }
        let mut rows =
            source
                .view
                .tenant_rows(tenant, index)
                .map_err(|error| match error.kind() {
                    ErrorKind::NotFound => {
                        let message = format!("{kind}:{tenant} cannot be the id of a copy");
                        Error::new(ErrorKind::Usage, message).caused_by(error)
                    }
                    _ => Error::store("look for rows under the new id")(error),
                })?;
        let has_rows = rows
            .next_batch(&mut batch)
            .map_err(Error::store("look for rows under the new id"))?;
        if has_rows {
            let message = format!(
                "{kind}:{tenant} has rows in {} already, and a copy is never mixed with others. \
                 Choose another id, or undo the job that made them. Nothing was written",
                table.name
            );
            return Err(Error::new(ErrorKind::Conflict, message));
        }
    }
    Ok(())
}

/// Refuses a plan for a copy that does anything but create rows: some that nobody owns would become
/// the copy's.
pub(crate) fn check_creates_only(
    view: &dyn LiveView,
    part: &TenantPlanDescription,
) -> Result<(), Error> {
    let other = part.tables.iter().find(|table| {
        table.counts.created != table.counts.total()
            || table.before.row_count() + table.gained.row_count() > 0
    });
    let Some(table) = other else { return Ok(()) };
    let message = format!(
        "rows of {} that belong to nobody would become those of {}: delete them first, or choose \
         another id. Nothing was written",
        view.schema().table(table.table).name,
        part.tenant
    );
    Err(Error::new(ErrorKind::Conflict, message))
}
