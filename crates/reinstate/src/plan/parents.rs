//! Rows of everybody that the rows to be written refer to: currencies, users of several tenants.
//!
//! A restore never touches them, so that a row can come back to a parent that is not what it was. Those
//! parents alone are compared with the snapshot, and only what differs is said.
//!
//! *Cost*: nothing without such references. Else each parent is read once from the live store for
//! every batch of rows that is the first to refer to it, and the snapshot's rows of everybody of its
//! table are read up to the last of them.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet};

use reinstate_core::{
    ColumnIndex, LiveView, Reference, RowBatch, RowBuilder, RowRef, SharedCreation, StrayReference,
    TableIndex, TableSchema,
};
use reinstate_format::{NoteKind, PlanNote};

use super::cursor::{RowCursor, StreamCursor, finish_sort, place_order, start_sort};
use super::missing::Missing;
use crate::drift::{DriftRules, MappedRows, TableMapping, map_table};
use crate::image::TenantImage;
use crate::sort::{Cursor, SortedRows, Sorter};
use crate::{Context, Error};

/// The part of the memory that is spent on knowing which parents were read.
const ASKED_MEMORY_PART: usize = 64;

/// How many columns are named in which parents differ.
const NAMED_COLUMNS_MAX: usize = 4;

/// What is told of every row that is to be written.
pub(super) trait References {
    /// Notes what these rows of a table refer to.
    fn follow(&mut self, table: TableIndex, rows: &RowBatch) -> Result<(), Error>;

    /// Takes a reference that leads astray, if it leads to a row that is gone; else gives it back.
    fn stray(&mut self, stray: StrayReference) -> Result<Option<StrayReference>, Error>;
}

/// The parents of one tenant's rows.
pub(super) struct Parents<'p> {
    pub(super) context: Context<'p>,
    pub(super) view: &'p dyn LiveView,
    pub(super) image: &'p TenantImage,
    pub(super) drift: &'p DriftRules,
    /// Tables that can hold rows of everybody, with the snapshot's table; none for the others.
    tables: HashMap<TableIndex, Option<TableIndex>>,
    /// What was asked for, and how many bytes that takes.
    asked: HashSet<(TableIndex, usize, Vec<u8>)>,
    asked_bytes: usize,
    /// The live parents, some of them more than once.
    live: Option<Sorter<'p>>,
    /// Whether any row may be created.
    pub(super) creates: bool,
    /// Where rows of everybody may be.
    pub(super) creations: HashMap<TableIndex, SharedCreation>,
    /// Those that are gone.
    pub(super) missing: Missing,
}

impl<'p> Parents<'p> {
    pub(super) fn new(
        context: Context<'p>,
        view: &'p dyn LiveView,
        image: &'p TenantImage,
        drift: &'p DriftRules,
        creates: bool,
    ) -> Self {
        Self {
            context,
            view,
            image,
            drift,
            tables: HashMap::new(),
            asked: HashSet::new(),
            asked_bytes: 0,
            live: None,
            creates,
            creations: HashMap::new(),
            missing: Missing::default(),
        }
    }

    /// Whether a live table can hold rows of everybody that the snapshot has, and it keeps them in
    /// which table.
    pub(super) fn source(&mut self, table: TableIndex) -> Result<Option<TableIndex>, Error> {
        if let Some(source) = self.tables.get(&table) {
            return Ok(*source);
        }
        let then = &self.image.snapshot().schema;
        let source = self.drift.source(then, self.view.schema(), table);
        let source = match source {
            Some(source) if self.image.may_have_rows_of_everybody(source)? => Some(source),
            _ => None,
        };
        self.tables.insert(table, source);
        Ok(source)
    }

    /// Those of the rows whose parent was not asked for yet.
    fn unasked(
        &mut self,
        (table, place, reference): (TableIndex, usize, &Reference),
        rows: &RowBatch,
    ) -> RowBatch {
        let mut unasked = RowBatch::new();
        for row in rows.iter() {
            let Some(value) = referred_to(row, &reference.columns) else {
                continue;
            };
            let bytes = value.len() + 64;
            if self.asked.insert((table, place, value)) {
                self.asked_bytes += bytes;
                unasked.push_row(row);
            }
        }
        if self.asked_bytes > self.context.resources.memory_bytes_max() / ASKED_MEMORY_PART {
            // They may be asked for again, which costs time and changes nothing.
            self.asked.clear();
            self.asked_bytes = 0;
        }
        unasked
    }

    /// What there is to say of the parents.
    pub(super) fn into_notes(mut self) -> Result<Vec<PlanNote>, Error> {
        let mut notes = Vec::new();
        let Some(live) = self.live.take() else {
            return Ok(notes);
        };
        let mut live = finish_sort(self.context, live)?;
        let mut has_live = Cursor::advance(&mut live)?;
        while has_live {
            let table = live.current().table;
            let source = self.source(table)?.expect("BUG: parents of no table");
            let schema = self.view.schema().table(table);
            let then = &self.image.snapshot().schema;
            let detail = match map_table(then, (source, table), self.view, self.drift)? {
                Some(mapping) => {
                    let found = self.compare(&mapping, source, &mut live)?;
                    has_live = found.has_more;
                    found.note(schema)
                }
                None => {
                    has_live = skip_table(&mut live)?;
                    let detail = "has changed since the snapshot, so that the rows of everybody \
                                  that are referred to are not compared";
                    Some((detail.to_owned(), 0))
                }
            };
            notes.extend(detail.map(|(detail, count)| PlanNote {
                kind: NoteKind::ParentChanged,
                object: schema.name.to_string(),
                detail,
                count,
            }));
        }
        Ok(notes)
    }

    /// Compares the live parents of one table, up to those of the next.
    fn compare(
        &self,
        mapping: &TableMapping,
        source: TableIndex,
        live: &mut SortedRows,
    ) -> Result<Compared, Error> {
        let rows = self.image.rows_of_everybody(self.context, source)?;
        let operation = "read the snapshot's rows of everybody".to_owned();
        let rows = StreamCursor::new(rows, operation);
        let mut then: Box<dyn RowCursor + '_> = match &mapping.shape {
            Some(shape) => Box::new(MappedRows::new(rows, shape)),
            None => Box::new(rows),
        };
        let mut has_then = then.advance()?;
        let mut compared = Compared::default();
        let mut completed = RowBuilder::new();
        let mut last = RowBatch::new();
        let table = live.current().table;
        while compared.has_more && live.current().table == table {
            let now = live.current().row;
            if last.row_at(0).is_none_or(|(last, _)| last != now) {
                last.clear();
                last.push_row(now);
                while has_then && place_order(then.row(), now) == Ordering::Less {
                    has_then = then.advance()?;
                }
                if has_then && place_order(then.row(), now) == Ordering::Equal {
                    let was = match &mapping.shape {
                        Some(shape) => {
                            shape.keep_unknown(then.row(), now, &mut completed);
                            completed.row()
                        }
                        None => then.row(),
                    };
                    compared.both(was, now);
                } else {
                    compared.unknown += 1;
                }
            }
            self.context.check()?;
            compared.has_more = Cursor::advance(live)?;
        }
        Ok(compared)
    }
}

impl References for Parents<'_> {
    fn stray(&mut self, stray: StrayReference) -> Result<Option<StrayReference>, Error> {
        self.missing(stray)
    }

    fn follow(&mut self, table: TableIndex, rows: &RowBatch) -> Result<(), Error> {
        let view = self.view;
        for (place, reference) in view.schema().table(table).references.iter().enumerate() {
            if self.source(reference.parent)?.is_none() {
                continue;
            }
            let rows = self.unasked((table, place, reference), rows);
            if rows.is_empty() {
                continue;
            }
            let parents = view
                .parents_of_everybody(table, reference, &rows)
                .map_err(Error::store("read what rows to be written refer to"))?;
            let context = self.context;
            for row in parents.iter() {
                let live = self.live.get_or_insert_with(|| start_sort(context));
                live.push(&[], reference.parent, row)?;
            }
        }
        Ok(())
    }
}

/// What a row holds in these columns; none if one of them is NULL, so that it refers to nothing.
fn referred_to(row: RowRef<'_>, columns: &[ColumnIndex]) -> Option<Vec<u8>> {
    let values: Vec<Option<&[u8]>> = row.values().collect();
    let mut found = Vec::new();
    for column in columns {
        let value = values.get(column.get()).copied().flatten()?;
        found.extend((value.len() as u64).to_le_bytes());
        found.extend_from_slice(value);
    }
    Some(found)
}

/// Goes on to the rows of the next table.
fn skip_table(live: &mut SortedRows) -> Result<bool, Error> {
    let table = live.current().table;
    while Cursor::advance(live)? {
        if live.current().table != table {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How the parents in one table compare.
struct Compared {
    /// Rows with other contents, and the columns that differ.
    changed: u64,
    columns: BTreeSet<usize>,
    /// Rows that the snapshot does not have.
    unknown: u64,
    /// Whether there are parents in another table.
    has_more: bool,
}

impl Default for Compared {
    fn default() -> Self {
        Self {
            changed: 0,
            columns: BTreeSet::new(),
            unknown: 0,
            has_more: true,
        }
    }
}

impl Compared {
    fn both(&mut self, then: RowRef<'_>, now: RowRef<'_>) {
        if then.columns() == now.columns() {
            return;
        }
        self.changed += 1;
        let pairs = then.values().zip(now.values()).enumerate();
        let differ = pairs.filter(|(_, (then, now))| then != now);
        self.columns.extend(differ.map(|(place, _)| place));
    }

    /// What to say, and of how many rows.
    fn note(&self, schema: &TableSchema) -> Option<(String, u64)> {
        let names = self.columns.iter().take(NAMED_COLUMNS_MAX);
        let names: Vec<&str> = names
            .map(|&place| schema.columns[place].name.as_str())
            .collect();
        let more = match self.columns.len() > NAMED_COLUMNS_MAX {
            true => ", ...",
            false => "",
        };
        let mut facts = Vec::new();
        if self.changed > 0 {
            let (rows, names) = (self.changed, names.join(", "));
            facts.push(format!("{rows} hold something else in {names}{more}"));
        }
        if self.unknown > 0 {
            facts.push(format!("{} are not in the snapshot", self.unknown));
        }
        if facts.is_empty() {
            return None;
        }
        let detail = format!(
            "holds rows of everybody that are referred to and are not what they were, and stay as \
             they are: {}",
            facts.join(", ")
        );
        Some((detail, self.changed + self.unknown))
    }
}
