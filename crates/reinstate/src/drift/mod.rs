//! Drift: the live tables are no longer those that the snapshot was taken of.
//!
//! A migration ran between the snapshot and now. Every table of the snapshot is paired with a live
//! one and every live column with where its values come from: by name, by rule where only one
//! answer can be right, or by what the operator decided. What nobody decided is refused before
//! anything is read, all of it at once.

mod pairs;
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use reinstate_core::{
    ColumnIndex, ErrorKind, Filling, Fit, LiveView, Reference, StoreSchema, TableIndex, TableSchema,
};
use reinstate_format::{NoteKind, PlanNote};

use crate::Error;
use pairs::Pairs;

use rows::ColumnCheck;
pub(crate) use rows::{MappedRows, RowChecks, Shape};

/// What an operator decided about tables that changed after a snapshot. Entries about what did
/// not change are of no effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriftRules {
    /// Tables that were renamed, or moved to another schema: their name in the snapshot, and the
    /// live one.
    pub renamed: BTreeMap<String, String>,
    /// Tables of the snapshot whose rows are not restored because the tables are gone.
    pub dropped: BTreeSet<String>,
    /// What became of the columns of a table, by its live name.
    pub tables: BTreeMap<String, TableDriftRules>,
}

/// What an operator decided about the columns of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableDriftRules {
    /// Columns that were renamed: their name in the snapshot, and the live one.
    pub renamed: BTreeMap<String, String>,
    /// Columns of the snapshot whose values are not restored because the columns are gone.
    pub dropped: BTreeSet<String>,
    /// What columns that the snapshot does not have hold in rows that come back.
    pub values: BTreeMap<String, String>,
}

/// How the snapshot's rows become rows of the live tables.
#[derive(Debug)]
pub(crate) struct SchemaMapping {
    /// By the live tables' indexes; none for those that no tenant owns.
    tables: Vec<Option<TableMapping>>,
    /// What a reviewer of the plan should know.
    pub notes: Vec<PlanNote>,
}

/// How the snapshot's rows become rows of one live table.
#[derive(Debug, Default)]
pub(crate) struct TableMapping {
    /// The snapshot's table; none if there was none, and then live rows stay as they are.
    pub source: Option<TableIndex>,
    /// How a row changes; none if it does not.
    pub shape: Option<Shape>,
    /// What is checked of rows that are to be written.
    pub checks: Vec<ColumnCheck>,
    /// References of the live table that the snapshot's did not have.
    pub younger: Vec<Reference>,
}

impl SchemaMapping {
    /// Pairs the tables of a snapshot, of which only those in `needed` have rows to restore, with
    /// the live ones.
    ///
    /// # Errors
    /// `Refused` with everything that has to be decided first.
    pub(crate) fn find(
        then: &StoreSchema,
        needed: &BTreeSet<TableIndex>,
        view: &dyn LiveView,
        rules: &DriftRules,
    ) -> Result<Self, Error> {
        let now = view.schema();
        let pairs = Pairs::find(then, now, rules);
        let mut finder = Finder::new(then, view, rules, &pairs);
        finder.find_gone(needed);
        let mut tables = Vec::with_capacity(now.tables().len());
        for (index, table) in now.iter() {
            tables.push(if table.tenancy.is_tenant_owned() {
                Some(finder.table(index, table, needed)?)
            } else {
                None
            });
        }
        if finder.undecided.is_empty() {
            let notes = finder.notes;
            return Ok(Self { tables, notes });
        }
        let message = format!(
            "the live tables differ from the snapshot's, and what became of them has to be \
             decided first: {}. Nothing was written",
            finder.undecided.join("; ")
        );
        Err(Error::new(ErrorKind::Refused, message))
    }

    /// How rows come into a live table that tenants own.
    pub(crate) fn table(&self, index: TableIndex) -> &TableMapping {
        self.tables[index.get()]
            .as_ref()
            .expect("BUG: rows of a table that no tenant owns")
    }
}

impl DriftRules {
    /// The snapshot's table that became a live one.
    pub(crate) fn source(
        &self,
        then: &StoreSchema,
        now: &StoreSchema,
        table: TableIndex,
    ) -> Option<TableIndex> {
        Pairs::find(then, now, self).source(table)
    }
}

/// How rows of one table of a snapshot become rows of the live table, whosever they are; none if
/// something would have to be decided first.
///
/// # Errors
/// As the store reports it.
pub(crate) fn map_table(
    then: &StoreSchema,
    (source, table): (TableIndex, TableIndex),
    view: &dyn LiveView,
    rules: &DriftRules,
) -> Result<Option<TableMapping>, Error> {
    let pairs = Pairs::find(then, view.schema(), rules);
    let mut finder = Finder::new(then, view, rules, &pairs);
    let needed = BTreeSet::from([source]);
    let mapping = finder.table(table, view.schema().table(table), &needed)?;
    Ok(finder.undecided.is_empty().then_some(mapping))
}

struct Finder<'a> {
    then: &'a StoreSchema,
    view: &'a dyn LiveView,
    rules: &'a DriftRules,
    pairs: &'a Pairs,
    notes: Vec<PlanNote>,
    undecided: Vec<String>,
}

impl<'a> Finder<'a> {
    fn new(
        then: &'a StoreSchema,
        view: &'a dyn LiveView,
        rules: &'a DriftRules,
        pairs: &'a Pairs,
    ) -> Self {
        Self {
            then,
            view,
            rules,
            pairs,
            notes: Vec::new(),
            undecided: Vec::new(),
        }
    }

    fn note(&mut self, kind: NoteKind, object: String, detail: impl Into<String>) {
        self.notes.push(PlanNote {
            kind,
            object,
            detail: detail.into(),
            count: 0,
        });
    }

    fn table(
        &mut self,
        index: TableIndex,
        table: &TableSchema,
        needed: &BTreeSet<TableIndex>,
    ) -> Result<TableMapping, Error> {
        let Some(source) = self.pairs.source(index) else {
            self.find_detached(table, needed);
            let detail = "not in the snapshot: the tenant's rows in it stay as they are";
            self.note(NoteKind::TableAdded, table.name.to_string(), detail);
            return Ok(TableMapping::default());
        };
        let was = self.then.table(source);
        if was.name != table.name {
            let detail = format!("was {} in the snapshot", was.name);
            self.note(NoteKind::TableRenamed, table.name.to_string(), detail);
        }
        if self.pairs.tenancy(source, &was.tenancy).as_ref() != Some(&table.tenancy) {
            self.undecided.push(format!(
                "{}: its rows belong to their tenants by another rule than in the snapshot. Take \
                 a new snapshot, or classify the table as it was",
                table.name
            ));
            return Ok(TableMapping::default());
        }
        if !needed.contains(&source) {
            // The image has no row that would have to be mapped.
            let source = Some(source);
            return Ok(TableMapping {
                source,
                ..TableMapping::default()
            });
        }
        if !self.has_same_key(source, table) {
            self.undecided.push(format!(
                "{}: its primary key is another than in the snapshot. Restore into a table with \
                 the old key",
                table.name
            ));
        }
        self.find_dropped(source, table);
        self.columns(index, table, source)
    }

    /// A table that came since and is like a part of another: rows that it holds would be created there.
    fn find_detached(&mut self, table: &TableSchema, needed: &BTreeSet<TableIndex>) {
        let now = self.view.schema();
        let mut wholes = now.iter().filter(|(index, whole)| {
            let source = self.pairs.source(*index);
            source.is_some_and(|source| needed.contains(&source))
                && self.view.is_divided(*index)
                && whole.columns == table.columns
                && whole.key == table.key
        });
        if let Some((_, whole)) = wholes.next() {
            self.undecided.push(format!(
                "{0} is not in the snapshot and is like a part of {1}: if it was detached from it, its \
                 rows would be there twice. Attach it again, or add {0:?} to excluded under [tenancy] \
                 for this restore",
                table.name.as_str(),
                whole.name
            ));
        }
    }

    fn has_same_key(&self, source: TableIndex, table: &TableSchema) -> bool {
        let was = self.then.table(source);
        let columns = |column: &ColumnIndex| self.pairs.column(source, *column);
        let key: Option<Vec<_>> = was.key.iter().map(columns).collect();
        let forms_are_the_same = was.key.iter().zip(&table.key).all(|(then, now)| {
            was.columns[then.get()].key_form == table.columns[now.get()].key_form
        });
        key.as_ref() == Some(&table.key) && forms_are_the_same
    }

    /// Columns of the snapshot's table that the live one does not have.
    fn find_dropped(&mut self, source: TableIndex, table: &TableSchema) {
        let was = self.then.table(source);
        let rules = self.rules.tables.get(table.name.as_str());
        for (column, place) in was.columns.iter().zip(0..) {
            if self.pairs.column(source, ColumnIndex(place)).is_some() {
                continue;
            }
            let name = &column.name;
            let object = format!("{}.{name}", table.name);
            if rules.is_some_and(|rules| rules.dropped.contains(name)) {
                let detail = "gone: its values are not restored";
                self.note(NoteKind::ColumnDropped, object, detail);
            } else {
                self.undecided.push(format!(
                    "{object} is gone: say `dropped = [{name:?}]` under [drift.table.{:?}] to \
                     restore without its values, or `renamed = {{ {name:?} = \"...\" }}`",
                    table.name.as_str()
                ));
            }
        }
    }

    fn columns(
        &mut self,
        index: TableIndex,
        table: &TableSchema,
        source: TableIndex,
    ) -> Result<TableMapping, Error> {
        let mut places = Vec::with_capacity(table.columns.len());
        let mut checks = Vec::new();
        for (column, place) in table.columns.iter().zip(0..) {
            let target = ColumnIndex(place);
            let object = format!("{}.{}", table.name, column.name);
            let Some(from) = self.pairs.column_source(source, target) else {
                let filling = self.filling(index, target, table, object)?;
                places.push(rows::Place::Filled(filling));
                continue;
            };
            let was = &self.then.table(source).columns[from.get()];
            if was.name != column.name {
                let detail = format!("was {} in the snapshot", was.name);
                self.note(NoteKind::ColumnRenamed, object.clone(), detail);
            }
            let fit = self
                .view
                .fit(&was.type_name, index, target)
                .map_err(Error::store("compare the types of columns"))?;
            if was.type_name != column.type_name {
                let (was, is) = (&was.type_name, &column.type_name);
                if fit.is_some() {
                    let detail = format!("was {was}, is {is}: the values stay the same");
                    self.note(NoteKind::TypeChanged, object, detail);
                } else {
                    self.undecided.push(format!(
                        "{object} was {was} and is {is}: its values would have to be written \
                         another way. Restore into a table with the old type"
                    ));
                }
            }
            let fit = fit.unwrap_or(Fit::Every);
            let is_required = was.nullable && !column.nullable;
            if is_required || fit != Fit::Every {
                checks.push(ColumnCheck {
                    column: target,
                    is_required,
                    fit,
                });
            }
            places.push(if self.view.is_counter(index, target) {
                rows::Place::Counter(from)
            } else {
                rows::Place::From(from)
            });
        }
        let width = self.then.table(source).columns.len();
        Ok(TableMapping {
            source: Some(source),
            shape: Shape::unless_the_same(places, width),
            checks,
            younger: self.younger(table, source),
        })
    }

    /// References of the live table that the snapshot's did not have: its rows may not satisfy them.
    fn younger(&self, table: &TableSchema, source: TableIndex) -> Vec<Reference> {
        let then = self.then.table(source).references.iter();
        let known = then.filter_map(|reference| self.pairs.reference(source, reference));
        let known: BTreeSet<Reference> = known.collect();
        let now = table.references.iter();
        now.filter(|reference| !known.contains(reference))
            .cloned()
            .collect()
    }

    /// What a column that the snapshot does not have holds in rows that come back.
    fn filling(
        &mut self,
        index: TableIndex,
        column: ColumnIndex,
        table: &TableSchema,
        object: String,
    ) -> Result<Option<Vec<u8>>, Error> {
        let name = table.columns[column.get()].name.as_str();
        let rules = self.rules.tables.get(table.name.as_str());
        if let Some(value) = rules.and_then(|rules| rules.values.get(name)) {
            let made = self
                .view
                .value_of(index, column, value)
                .map_err(Error::store("make values of [drift]"))?;
            match made {
                Ok(value) => {
                    let detail = "added: rows that come back hold the value of [drift]";
                    self.note(NoteKind::ColumnAdded, object, detail);
                    return Ok(Some(value));
                }
                Err(reason) => {
                    self.undecided.push(format!(
                        "{object} was added, and {value:?} is no value for it ({reason}): correct \
                         `values` under [drift.table.{:?}]",
                        table.name.as_str()
                    ));
                    return Ok(None);
                }
            }
        }
        if !table.has_key() {
            self.undecided.push(format!(
                "{object} was added to a table without a key, where rows that hold something else \
                 in it count as others: say `values = {{ {name:?} = \"...\" }}` under \
                 [drift.table.{:?}] to write that",
                table.name.as_str()
            ));
            return Ok(None);
        }
        let filling = self
            .view
            .filling(index, column)
            .map_err(Error::store("look for the defaults of columns"))?;
        match filling {
            Filling::Value(value) => {
                let what = if value.is_some() {
                    "its default"
                } else {
                    "NULL"
                };
                let detail = format!("added: rows that come back hold {what}");
                self.note(NoteKind::ColumnAdded, object, detail);
                Ok(value)
            }
            Filling::Unknown(reason) => {
                self.undecided.push(format!(
                    "{object} was added, and {reason}: say `values = {{ {name:?} = \"...\" }}` \
                     under [drift.table.{:?}]",
                    table.name.as_str()
                ));
                Ok(None)
            }
        }
    }

    /// Tables of the snapshot with rows to restore for which there is no live table.
    fn find_gone(&mut self, needed: &BTreeSet<TableIndex>) {
        for &source in needed {
            if self.pairs.target(source).is_some() {
                continue;
            }
            let name = self.then.table(source).name.to_string();
            if self.rules.dropped.contains(&name) {
                let detail = "gone: its rows are not restored";
                self.note(NoteKind::TableGone, name, detail);
            } else {
                self.undecided.push(format!(
                    "table {name} is gone: say `dropped = [{name:?}]` under [drift] to restore \
                     without its rows, or `renamed = {{ {name:?} = \"...\" }}`"
                ));
            }
        }
        for &source in needed {
            let Some(target) = self.pairs.target(source) else {
                continue;
            };
            let table = self.view.schema().table(target);
            if !table.tenancy.is_tenant_owned() {
                self.undecided.push(format!(
                    "{}: tenants own it in the snapshot, and no tenant does now. Classify the \
                     table as it was",
                    table.name
                ));
            }
        }
    }
}
