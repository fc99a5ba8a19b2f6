//! From the columns of a relation in the stream to rows of a table.

use reinstate_core::{
    ColumnIndex, ErrorKind, FeedRow, KeyWriter, ROW_BYTES_MAX, RowBuilder, StoreError,
};

use super::message::Field;
use super::relations::{Followed, Place, stale};

/// Builds rows from tuples, with buffers that it reuses.
#[derive(Debug, Default)]
pub(super) struct RowMaker {
    key: KeyWriter,
    builder: RowBuilder,
}

impl RowMaker {
    /// The row of a tuple. What the tuple says is unchanged is taken from the row as it was.
    ///
    /// # Errors
    /// `Stale` if a value is nowhere, or there are fewer or more than columns; `Refused` if the row
    /// is too long.
    pub(super) fn make(
        &mut self,
        relation: &Followed,
        message: &[u8],
        fields: &[Field],
        old: &[Field],
    ) -> Result<FeedRow<'_>, StoreError> {
        let values = Values::new(relation, message, (fields, old))?;
        self.start(relation, &values)?;
        for column in 0..relation.places.len() {
            self.builder.push(values.of(column)?);
        }
        Ok(self.row())
    }

    /// The row of a tuple, with NULL in place of what it says is unchanged; `unchanged` becomes the
    /// columns of that. Of the row as it was no more is known than its key.
    ///
    /// # Errors
    /// As [`make`](Self::make).
    pub(super) fn make_part(
        &mut self,
        relation: &Followed,
        message: &[u8],
        (fields, old): (&[Field], &[Field]),
        unchanged: &mut Vec<ColumnIndex>,
    ) -> Result<FeedRow<'_>, StoreError> {
        let values = Values::new(relation, message, (fields, old))?;
        self.start(relation, &values)?;
        unchanged.clear();
        for (column, index) in (0..relation.places.len()).zip(0..) {
            let is_key = relation.key.iter().any(|(key, _)| *key == column);
            if values.is_unchanged(column) && !is_key {
                unchanged.push(ColumnIndex(index));
                self.builder.push(None);
            } else {
                self.builder.push(values.of(column)?);
            }
        }
        Ok(self.row())
    }

    /// The key of a tuple.
    ///
    /// # Errors
    /// As [`make`](Self::make).
    pub(super) fn make_key(
        &mut self,
        relation: &Followed,
        message: &[u8],
        fields: &[Field],
    ) -> Result<&[u8], StoreError> {
        let values = Values::new(relation, message, (fields, &[]))?;
        self.start(relation, &values)?;
        Ok(self.key.as_bytes())
    }

    fn start(&mut self, relation: &Followed, values: &Values<'_>) -> Result<(), StoreError> {
        self.key.clear();
        for &(column, form) in &relation.key {
            let Some(text) = values.of(column)? else {
                return Err(stale("a column of a key is NULL"));
            };
            self.key.push(form, text);
        }
        self.builder.start(self.key.as_bytes());
        Ok(())
    }

    fn row(&self) -> FeedRow<'_> {
        FeedRow {
            owner: None,
            row: self.builder.row(),
        }
    }
}

/// The values of a tuple by the columns of its table.
struct Values<'m> {
    relation: &'m Followed,
    message: &'m [u8],
    fields: &'m [Field],
    old: &'m [Field],
}

impl<'m> Values<'m> {
    fn new(
        relation: &'m Followed,
        message: &'m [u8],
        (fields, old): (&'m [Field], &'m [Field]),
    ) -> Result<Self, StoreError> {
        if fields.len() != relation.numbers.len() {
            return Err(stale("a row has another number of columns than its table"));
        }
        if message.len() > ROW_BYTES_MAX / 2 {
            let text = format!(
                "follow the log: a change of {} bytes: at most {}",
                message.len(),
                ROW_BYTES_MAX / 2
            );
            return Err(StoreError::new(ErrorKind::Refused, text));
        }
        Ok(Self {
            relation,
            message,
            fields,
            old,
        })
    }

    fn is_unchanged(&self, column: usize) -> bool {
        let place = &self.relation.places[column];
        matches!(place, Place::At(place) if self.fields[*place] == Field::Unchanged)
    }

    fn of(&self, column: usize) -> Result<Option<&'m [u8]>, StoreError> {
        let place = match &self.relation.places[column] {
            Place::At(place) => *place,
            Place::Missing(value) => return Ok(value.as_deref().map(str::as_bytes)),
        };
        let field = match &self.fields[place] {
            Field::Unchanged => self.old.get(place).unwrap_or(&Field::Unchanged),
            field => field,
        };
        match field {
            Field::Null => Ok(None),
            Field::Text(range) => Ok(Some(&self.message[range.clone()])),
            Field::Unchanged => Err(stale(&format!(
                "the log does not say the value of column {} of a table",
                self.relation.numbers[place]
            ))),
        }
    }
}
