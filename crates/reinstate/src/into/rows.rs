//! Rows of the original on their way to become the copy's.

use std::sync::Arc;

use reinstate_core::{
    ColumnIndex, ErrorKind, KeyForm, KeyPart, RouteCondition, RowBuilder, RowRef, TableSchema,
    Tenancy, ValueKind,
};

use super::classes::{Classes, Place, TENANT};
use super::decide::Decisions;
use super::json::{Scalar, Step, rewrite};
use super::survey::{Strangers, Survey, holds};
use super::values::{Change, Changes};
use super::{Remap, Source};
use crate::Error;
use crate::plan::RowCursor;

/// How the rows of one table change.
#[derive(Debug, Default)]
pub(super) struct TableRekeying {
    columns: Vec<ColumnRekeying>,
    /// Whether rows are in the same order afterwards.
    pub(super) keeps_order: bool,
}

/// How one column changes.
#[derive(Debug, Default)]
struct ColumnRekeying {
    is_null: bool,
    /// The first that holds for a row is what becomes of it.
    branches: Vec<Branch>,
    documents: Vec<(Vec<Step>, Branch)>,
    /// How many characters it takes.
    characters_max: Option<u64>,
}

/// What becomes of the values of some rows.
#[derive(Clone, Debug)]
struct Branch {
    condition: Option<RouteCondition>,
    change: Arc<Change>,
    /// Values that stay.
    strangers: Vec<Strangers>,
}

impl Branch {
    /// The copy's value; none if this one stays.
    fn of(&self, value: &str) -> Result<Option<String>, &'static str> {
        let mut sets = self.strangers.iter();
        if sets.any(|set| set.contains(value.as_bytes())) {
            return Ok(None);
        }
        self.change.of(value)
    }
}

impl ColumnRekeying {
    fn is_identity(&self) -> bool {
        !self.is_null && self.branches.is_empty() && self.documents.is_empty()
    }

    /// Whether values are in the same order afterwards. In the column that says whose a row is, all are
    /// the same.
    fn keeps_order(&self, form: KeyForm, says_owner: bool) -> bool {
        let mut branches = self.branches.iter();
        !self.is_null
            && branches.all(|branch| match branch.change.as_ref() {
                Change::Tenant { .. } => says_owner,
                Change::Offset(_) => {
                    form == KeyForm::Integer
                        && branch.condition.is_none()
                        && branch.strangers.is_empty()
                }
                _ => false,
            })
    }

    /// The copy's value, if it is another one.
    fn of(&self, value: &str, values: &[Option<&[u8]>]) -> Result<Option<String>, &'static str> {
        if !self.documents.is_empty() {
            return self.of_document(value).map(Some);
        }
        let is_open = |branch: &&Branch| {
            let condition = branch.condition.as_ref();
            condition.is_none_or(|condition| holds(condition, values))
        };
        let Some(branch) = self.branches.iter().find(is_open) else {
            return Ok(None);
        };
        let new = branch.of(value)?;
        let is_too_long = |text: &String| {
            let max = self.characters_max;
            max.is_some_and(|max| text.chars().count() as u64 > max)
        };
        if new.as_ref().is_some_and(is_too_long) {
            return Err("a text that would be too long");
        }
        Ok(new)
    }

    fn of_document(&self, document: &str) -> Result<String, &'static str> {
        let paths: Vec<&[Step]> = self
            .documents
            .iter()
            .map(|(path, _)| path.as_slice())
            .collect();
        let mut failed = None;
        let mut output = Vec::with_capacity(document.len() + 16);
        let replace = |place: usize, scalar: Scalar<'_>| {
            let new = self.documents[place].1.of(scalar.text());
            new.unwrap_or_else(|fact| {
                failed = Some(fact);
                None
            })
        };
        rewrite(document, &paths, replace, &mut output).ok_or("a document that is none")?;
        match failed {
            Some(fact) => Err(fact),
            None => String::from_utf8(output).map_err(|_| "a document that is none"),
        }
    }
}

/// How the rows of all tables change.
pub(super) fn find(
    source: &Source<'_>,
    classes: &Classes,
    decisions: &Decisions,
    survey: &Survey,
    changes: &Changes,
) -> Vec<TableRekeying> {
    let schema = source.view.schema();
    let mut tables = Vec::with_capacity(schema.tables().len());
    for (table, described) in schema.iter() {
        let places = (0..).map(ColumnIndex).take(described.columns.len());
        let columns: Vec<ColumnRekeying> = places
            .map(|column| find_column(source, classes, decisions, survey, changes, (table, column)))
            .collect();
        let is_identity = columns.iter().all(ColumnRekeying::is_identity);
        let keeps_order = described.has_key()
            && described.key.iter().all(|column| {
                let form = described.columns[column.get()].key_form;
                let says_owner = described.tenancy == Tenancy::Direct { column: *column };
                columns[column.get()].keeps_order(form, says_owner)
            });
        tables.push(TableRekeying {
            columns,
            keeps_order: keeps_order || is_identity,
        });
    }
    tables
}

fn find_column(
    source: &Source<'_>,
    classes: &Classes,
    decisions: &Decisions,
    survey: &Survey,
    changes: &Changes,
    place: Place,
) -> ColumnRekeying {
    let mut found = ColumnRekeying {
        is_null: decisions.is_null(place),
        ..ColumnRekeying::default()
    };
    let own = classes.follows.iter().enumerate();
    for (number, follow) in own.filter(|(_, follow)| follow.child == place) {
        let (Some(change), false) = (changes.get(&follow.class), follow.is_whole) else {
            continue;
        };
        let strangers = match follow.class {
            TENANT => Vec::new(),
            class => survey.strangers(class, Some(number)),
        };
        let branch = Branch {
            condition: follow.condition.clone(),
            change: Arc::clone(change),
            strangers,
        };
        match &follow.path {
            Some(path) => found.documents.push((path.clone(), branch)),
            None => found.branches.push(branch),
        }
    }
    if let Some(class) = classes.of(place)
        && let Some(change) = changes.get(&class)
    {
        found.branches.push(Branch {
            condition: None,
            change: Arc::clone(change),
            strangers: survey.strangers(class, None),
        });
    }
    if let ValueKind::Text { characters_max } = source.view.value_kind(place.0, place.1) {
        found.characters_max = characters_max;
    }
    found
}

/// Rows of one table of the copy, in the order of the original's.
pub(super) struct RekeyedRows<'a> {
    inner: Box<dyn RowCursor + 'a>,
    table: &'a TableSchema,
    rekeying: &'a TableRekeying,
    remap: &'a Remap<'a>,
    builder: RowBuilder,
}

impl<'a> RekeyedRows<'a> {
    pub(super) fn new(
        inner: Box<dyn RowCursor + 'a>,
        table: &'a TableSchema,
        rekeying: &'a TableRekeying,
        remap: &'a Remap<'a>,
    ) -> Self {
        Self {
            inner,
            table,
            rekeying,
            remap,
            builder: RowBuilder::new(),
        }
    }

    fn build(&mut self) -> Result<(), Error> {
        let row = self.inner.row();
        let values: Vec<Option<&[u8]>> = row.values().collect();
        let mut new: Vec<Option<String>> = vec![None; values.len()];
        for (place, column) in self.rekeying.columns.iter().enumerate() {
            let value = values.get(place).copied().flatten();
            if column.is_identity() || column.is_null {
                continue;
            }
            let Some(text) = value.and_then(|value| std::str::from_utf8(value).ok()) else {
                continue;
            };
            new[place] = column
                .of(text, &values)
                .map_err(|fact| self.refuse(row, place, fact))?;
        }
        let columns = self.rekeying.columns.iter().zip(&values).zip(&new);
        let built: Vec<Option<&[u8]>> = columns
            .map(|((column, old), new)| match new {
                _ if column.is_null => None,
                Some(new) => Some(new.as_bytes()),
                None => *old,
            })
            .collect();
        self.table
            .encode_row(&built, &mut self.builder)
            .map_err(|error| {
                let message = format!("copy a row of {}", self.table.name);
                Error::new(ErrorKind::Corrupt, message).caused_by(error)
            })
    }

    fn refuse(&self, row: RowRef<'_>, place: usize, fact: &str) -> Error {
        let parts = KeyPart::parse_all(row.key()).unwrap_or_default();
        let parts = parts.iter().map(KeyPart::text);
        let key: Vec<_> = parts
            .map(|part| String::from_utf8_lossy(&part).into_owned())
            .collect();
        let message = format!(
            "copy table {}, row {}: {} holds {fact}. Nothing was written",
            self.table.name,
            key.join(","),
            self.table.columns[place].name
        );
        Error::new(ErrorKind::Refused, message)
    }
}

impl RowCursor for RekeyedRows<'_> {
    fn advance(&mut self) -> Result<bool, Error> {
        if !self.inner.advance()? {
            return Ok(false);
        }
        self.build()?;
        let (old, new) = (self.inner.row(), self.builder.row());
        if old.key() != new.key() {
            (self.remap)(self.table, old, new).map_err(|error| {
                let kind = match error.kind() {
                    std::io::ErrorKind::StorageFull => ErrorKind::Full,
                    _ => ErrorKind::Other,
                };
                Error::new(kind, "write down which key became which").caused_by(error)
            })?;
        }
        Ok(true)
    }

    fn row(&self) -> RowRef<'_> {
        self.builder.row()
    }
}
