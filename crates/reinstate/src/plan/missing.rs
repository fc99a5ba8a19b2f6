//! Rows of everybody that are gone, that rows to be written refer to, and that a plan creates again
//! because the store's operator lets it, table by table.
//!
//! They come from the snapshot, with whatever of everybody's they refer to themselves. They are looked
//! for by the texts of what is referred to: a value that the parent writes another way is not found,
//! and stays an obstacle.

use std::collections::BTreeMap;

use reinstate_core::{
    ChangeCounts, ColumnIndex, ErrorKind, Lead, Owner, RowBatch, RowRef, RowRole, SharedCreation,
    StrayReference, TableIndex, TenantId,
};
use reinstate_format::{NoteKind, PlanNote, RunKey};

use super::cursor::{RowCursor, StreamCursor};
use super::notes::{Strays, effect_note};
use super::parents::{Parents, References};
use crate::drift::{MappedRows, RowChecks, map_table};
use crate::segment_writer::{OpenRun, SegmentWriter};
use crate::{Context, Error};

/// The part of the memory that such rows may take.
const MEMORY_PART: usize = 8;

/// What the references hold that lead to rows that are gone, with who holds it.
type Wanted = BTreeMap<Vec<String>, Vec<StrayReference>>;

/// References to rows of everybody that are gone.
#[derive(Default)]
pub(super) struct Missing {
    /// By the parents' table and columns: those that may be created.
    wanted: BTreeMap<(TableIndex, Vec<ColumnIndex>), Wanted>,
    /// By the parents' table and columns: those to rows of the tenant's own, which the plan may create.
    unfound: BTreeMap<(TableIndex, Vec<ColumnIndex>), Wanted>,
    unfound_bytes: usize,
    /// Those that may not.
    refused: Strays,
    /// Rows to create, each in a batch of its own, by table and key.
    found: BTreeMap<(TableIndex, Vec<u8>), RowBatch>,
    found_bytes: usize,
}

impl Missing {
    /// Notes a reference that leads to a row that is gone.
    pub(super) fn add(&mut self, stray: StrayReference, creation: SharedCreation) {
        match creation {
            SharedCreation::Allowed => {
                let parents = (stray.parent, stray.parent_columns.clone());
                let wanted = self.wanted.entry(parents).or_default();
                let holders = wanted.entry(stray.values.clone()).or_default();
                holders.push(stray);
            }
            SharedCreation::NotAllowed => self.refused.add(stray),
            SharedCreation::Refused(reason) => self.refused.add_refused(stray, reason),
        }
    }

    /// Notes a reference to a row of the tenant's own that is not there. With more than there is memory for,
    /// nothing is foreseen: the store refuses then.
    fn add_unfound(&mut self, context: Context<'_>, stray: StrayReference) {
        if self.unfound_bytes > context.resources.memory_bytes_max() / MEMORY_PART {
            self.unfound.clear();
            return;
        }
        let values = stray.values.iter().map(String::len).sum::<usize>();
        self.unfound_bytes += 2 * (values + stray.reference.len()) + size_of::<StrayReference>();
        let parents = (stray.parent, stray.parent_columns.clone());
        let wanted = self.unfound.entry(parents).or_default();
        let holders = wanted.entry(stray.values.clone()).or_default();
        holders.push(stray);
    }

    fn take_wanted(&mut self) -> Option<((TableIndex, Vec<ColumnIndex>), Wanted)> {
        self.wanted.pop_first()
    }

    /// Takes rows that were found, and returns those that are new.
    fn keep(
        &mut self,
        context: Context<'_>,
        table: TableIndex,
        rows: &RowBatch,
    ) -> Result<RowBatch, Error> {
        let mut new = RowBatch::new();
        for row in rows.iter() {
            let key = (table, row.key().to_vec());
            if !self.found.contains_key(&key) {
                let mut batch = RowBatch::new();
                batch.push_row(row);
                self.found_bytes += batch.as_bytes().len() + row.key().len();
                self.found.insert(key, batch);
                new.push_row(row);
            }
        }
        if self.found_bytes > context.resources.memory_bytes_max() / MEMORY_PART {
            let message = "more rows of everybody are gone than fit in memory: create them first, \
                           or give more --memory";
            return Err(Error::new(ErrorKind::Refused, message));
        }
        Ok(new)
    }
}

impl Parents<'_> {
    /// Writes the rows of everybody that have to be created into the plan, and returns what there is
    /// to say about them and about those that cannot be.
    pub(super) fn create_missing(
        &mut self,
        writer: &mut SegmentWriter<'_>,
        tenant: &TenantId,
    ) -> Result<Vec<PlanNote>, Error> {
        let mut notes = Vec::new();
        self.find_own()?;
        while let Some(((table, columns), mut wanted)) = self.missing.take_wanted() {
            let (rows, reason) = match self.find(table, &columns, &mut wanted)? {
                Some(rows) => (rows, "the snapshot does not have them either"),
                None => (
                    RowBatch::new(),
                    "the table changed since, so that they cannot be created",
                ),
            };
            for stray in wanted.into_values().flatten() {
                let reason = reason.to_owned();
                self.missing.refused.add_refused(stray, reason);
            }
            let new = self.missing.keep(self.context, table, &rows)?;
            if !new.is_empty() {
                notes.extend(self.look_around(tenant, table, &new)?);
            }
        }
        notes.extend(std::mem::take(&mut self.missing.refused).into_notes());
        notes.extend(self.write(writer, tenant)?);
        Ok(notes)
    }

    /// The snapshot's rows that are referred to; none if they have to be others now. What is found is no
    /// longer wanted.
    fn find(
        &mut self,
        table: TableIndex,
        columns: &[ColumnIndex],
        wanted: &mut Wanted,
    ) -> Result<Option<RowBatch>, Error> {
        let mut found = RowBatch::new();
        let Some(source) = self.source(table)? else {
            return Ok(Some(found));
        };
        let then = &self.image.snapshot().schema;
        let Some(mapping) = map_table(then, (source, table), self.view, self.drift)? else {
            return Ok(None);
        };
        let checks = RowChecks::new(&mapping.checks, self.view.schema().table(table));
        let rows = self.image.rows_of_everybody(self.context, source)?;
        let operation = "read the snapshot's rows of everybody".to_owned();
        let rows = StreamCursor::new(rows, operation);
        let mut rows: Box<dyn RowCursor + '_> = match &mapping.shape {
            Some(shape) => Box::new(MappedRows::new(rows, shape)),
            None => Box::new(rows),
        };
        while !wanted.is_empty() && rows.advance()? {
            self.context.check()?;
            let row = rows.row();
            if texts(row, columns).is_none_or(|values| wanted.remove(&values).is_none()) {
                continue;
            }
            if let Some(message) = checks.objection(row) {
                return Err(Error::new(ErrorKind::Refused, message));
            }
            found.push_row(row);
        }
        Ok(Some(found))
    }

    /// Looks for rows of the tenant's own, that are not there and are referred to, among those that the plan
    /// creates: refused is what leads to none of them.
    fn find_own(&mut self) -> Result<(), Error> {
        for ((table, columns), mut wanted) in std::mem::take(&mut self.missing.unfound) {
            let then = &self.image.snapshot().schema;
            let source = self.drift.source(then, self.view.schema(), table);
            let source = source.filter(|_| self.creates);
            let mapping = match source {
                Some(source) => map_table(then, (source, table), self.view, self.drift)?,
                None => None,
            };
            if let Some(source) = source {
                let Some(mapping) = mapping else {
                    // What its rows are now is found out when they are written.
                    continue;
                };
                let operation = "read the snapshot's rows".to_owned();
                let rows = StreamCursor::new(self.image.rows(self.context, source), operation);
                let mut rows: Box<dyn RowCursor + '_> = match &mapping.shape {
                    Some(shape) => Box::new(MappedRows::new(rows, shape)),
                    None => Box::new(rows),
                };
                while !wanted.is_empty() && rows.advance()? {
                    self.context.check()?;
                    if let Some(values) = texts(rows.row(), &columns) {
                        wanted.remove(&values);
                    }
                }
            }
            for stray in wanted.into_values().flatten() {
                let reason = "neither are they in the snapshot. Restore while the key is dropped, or \
                              leave the rows out";
                self.missing.refused.add_refused(stray, reason.to_owned());
            }
        }
        Ok(())
    }

    /// Where the references of rows to be created lead, and whether their places are free.
    fn look_around(
        &mut self,
        tenant: &TenantId,
        table: TableIndex,
        rows: &RowBatch,
    ) -> Result<Option<PlanNote>, Error> {
        self.follow(table, rows)?;
        let strays = self
            .view
            .stray_references(tenant, table, rows, &[])
            .map_err(Error::store("follow the references of rows of everybody"))?;
        for stray in strays {
            if let Some(stray) = self.missing(stray)? {
                let reason = "rows of everybody cannot be created that need them".to_owned();
                self.missing.refused.add_refused(stray, reason);
            }
        }
        let held = self
            .view
            .held_by_others(tenant, table, RowRole::SharedCreated, rows)
            .map_err(Error::store(
                "look for rows in the way of those of everybody",
            ))?;
        let Some(first) = held.first() else {
            return Ok(None);
        };
        let detail = format!(
            "has live rows with values of rows of everybody that would have to be created ({})",
            first.constraint
        );
        Ok(Some(PlanNote {
            kind: NoteKind::ParentMissing,
            object: self.view.schema().table(table).name.to_string(),
            detail,
            count: held.len() as u64,
        }))
    }

    fn write(
        &mut self,
        writer: &mut SegmentWriter<'_>,
        tenant: &TenantId,
    ) -> Result<Vec<PlanNote>, Error> {
        let mut notes = Vec::new();
        let mut found = std::mem::take(&mut self.missing.found)
            .into_iter()
            .peekable();
        while let Some(&((table, _), _)) = found.peek() {
            let mut run = OpenRun::new(RunKey {
                owner: Owner::Tenant(tenant.clone()),
                table,
                role: RowRole::SharedCreated,
            });
            while let Some((_, batch)) = found.next_if(|((of, _), _)| *of == table) {
                for row in batch.iter() {
                    writer.append(&mut run, row)?;
                }
            }
            let count = writer.close(run)?.row_count();
            let created = ChangeCounts {
                created: count,
                ..ChangeCounts::NONE
            };
            let effects = self.view.side_effects(table, created);
            notes.extend(effects.into_iter().map(effect_note));
            let detail = "gets rows of everybody that are gone and are referred to, as \
                          create_missing lets it: an undo leaves them";
            notes.push(PlanNote {
                kind: NoteKind::ParentCreated,
                object: self.view.schema().table(table).name.to_string(),
                detail: detail.to_owned(),
                count,
            });
        }
        Ok(notes)
    }

    /// Takes a reference to a row that is gone, if it leads to everybody's.
    pub(super) fn missing(
        &mut self,
        stray: StrayReference,
    ) -> Result<Option<StrayReference>, Error> {
        match stray.lead {
            Lead::ToAnother => return Ok(Some(stray)),
            Lead::Unfound => {
                self.missing.add_unfound(self.context, stray);
                return Ok(None);
            }
            Lead::Nowhere => {}
        }
        let creation = match self.creations.get(&stray.parent) {
            Some(creation) => creation.clone(),
            None if self.creates => {
                let creation = self
                    .view
                    .shared_creation(stray.parent)
                    .map_err(Error::store("ask whether rows of everybody may be created"))?;
                self.creations.insert(stray.parent, creation.clone());
                creation
            }
            None => SharedCreation::NotAllowed,
        };
        self.missing.add(stray, creation);
        Ok(None)
    }
}

/// What a row holds in these columns, as texts; none if one of them is NULL.
fn texts(row: RowRef<'_>, columns: &[ColumnIndex]) -> Option<Vec<String>> {
    let values: Vec<Option<&[u8]>> = row.values().collect();
    let texts = columns.iter().map(|column| {
        let value = values.get(column.get()).copied().flatten()?;
        Some(std::str::from_utf8(value).ok()?.to_owned())
    });
    texts.collect()
}
