//! Rows of a snapshot on their way into live tables of another shape.

use reinstate_core::{ColumnIndex, Fit, KeyPart, RowBuilder, RowRef, TableSchema};

use crate::Error;
use crate::plan::RowCursor;

/// Where the value of a live column comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A column of the snapshot.
    From(ColumnIndex),
    /// The same, but a live row keeps its own value if that is greater.
    Counter(ColumnIndex),
    /// Nowhere: the column was added. The value of rows that come back.
    Filled(Option<Vec<u8>>),
}

/// How a row of the snapshot becomes one of the live table. Its key stays the same.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    places: Vec<Place>,
}

impl Shape {
    /// A shape, unless every one of the snapshot's `width` columns is in its own place.
    pub(super) fn unless_the_same(places: Vec<Place>, width: usize) -> Option<Self> {
        let mut in_place = places.iter().zip(0..);
        let is_same = places.len() == width
            && in_place.all(|(place, number)| *place == Place::From(ColumnIndex(number)));
        (!is_same).then_some(Self { places })
    }

    /// The row as it would be created.
    fn create(&self, row: RowRef<'_>, builder: &mut RowBuilder) {
        let values: Vec<Option<&[u8]>> = row.values().collect();
        builder.start(row.key());
        for place in &self.places {
            match place {
                Place::From(column) | Place::Counter(column) => {
                    builder.push(values.get(column.get()).copied().flatten());
                }
                Place::Filled(value) => builder.push(value.as_deref()),
            }
        }
    }

    /// The row as it would be put back in the place of a live one: what the snapshot does not know
    /// stays as it is, and counters are not lowered.
    pub(crate) fn keep_unknown(&self, row: RowRef<'_>, live: RowRef<'_>, builder: &mut RowBuilder) {
        builder.start(row.key());
        for ((place, value), live) in self.places.iter().zip(row.values()).zip(live.values()) {
            match place {
                Place::From(_) => builder.push(value),
                Place::Counter(_) => builder.push(greater(value, live)),
                Place::Filled(_) => builder.push(live),
            }
        }
    }
}

/// The greater of two numbers; the first if they are not.
fn greater<'v>(then: Option<&'v [u8]>, live: Option<&'v [u8]>) -> Option<&'v [u8]> {
    let number = |text: Option<&[u8]>| std::str::from_utf8(text?).ok()?.parse::<i128>().ok();
    match (number(then), number(live)) {
        (Some(was), Some(is)) if is > was => live,
        (None, Some(_)) if then.is_none() => live,
        _ => then,
    }
}

/// Rows of the snapshot as rows of the live table, in the same order: only for tables with a key.
pub(crate) struct MappedRows<'m, C> {
    inner: C,
    shape: &'m Shape,
    builder: RowBuilder,
}

impl<'m, C: RowCursor> MappedRows<'m, C> {
    pub(crate) fn new(inner: C, shape: &'m Shape) -> Self {
        Self {
            inner,
            shape,
            builder: RowBuilder::new(),
        }
    }
}

impl<C: RowCursor> RowCursor for MappedRows<'_, C> {
    fn advance(&mut self) -> Result<bool, Error> {
        let more = self.inner.advance()?;
        if more {
            self.shape.create(self.inner.row(), &mut self.builder);
        }
        Ok(more)
    }

    fn row(&self) -> RowRef<'_> {
        self.builder.row()
    }
}

/// What a value must be to be written into a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnCheck {
    pub(super) column: ColumnIndex,
    /// Whether NULL was allowed and no longer is.
    pub(super) is_required: bool,
    pub(super) fit: Fit,
}

/// What is asked of rows that are written to a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowChecks<'a> {
    checks: &'a [ColumnCheck],
    table: &'a TableSchema,
}

impl<'a> RowChecks<'a> {
    pub(crate) const fn new(checks: &'a [ColumnCheck], table: &'a TableSchema) -> Self {
        Self { checks, table }
    }

    /// What is wrong with the row, if anything is; says nothing of its values but the key.
    pub(crate) fn objection(&self, row: RowRef<'_>) -> Option<String> {
        self.checks
            .iter()
            .find_map(|check| check.objection(row, self.table))
    }
}

impl ColumnCheck {
    fn objection(&self, row: RowRef<'_>, table: &TableSchema) -> Option<String> {
        let value = row.values().nth(self.column.get())?;
        let fits = match value {
            None => !self.is_required,
            Some(value) => self.fit.admits(value),
        };
        if fits {
            return None;
        }
        let column = &table.columns[self.column.get()];
        let parts = KeyPart::parse_all(row.key()).unwrap_or_default();
        let parts = parts.iter().map(KeyPart::text);
        let key: Vec<_> = parts
            .map(|part| String::from_utf8_lossy(&part).into_owned())
            .collect();
        let what = match value {
            None => "NULL, which the live column no longer takes".to_owned(),
            Some(_) => format!(
                "a value that the live column ({}) has no room for",
                column.type_name
            ),
        };
        Some(format!(
            "table {}, row {}: the snapshot holds {what} in {}. Nothing was written",
            table.name,
            key.join(","),
            column.name
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_raised_and_never_lowered() {
        let text = |text: &'static str| Some(text.as_bytes());
        for (then, live, expected) in [
            (text("9"), text("10"), text("10")),
            (text("10"), text("9"), text("10")),
            (text("-1"), text("-2"), text("-1")),
            (None, text("3"), text("3")),
            (text("3"), None, text("3")),
            (None, None, None),
            (text("x"), text("3"), text("x")),
        ] {
            assert_eq!(greater(then, live), expected);
        }
    }
}
