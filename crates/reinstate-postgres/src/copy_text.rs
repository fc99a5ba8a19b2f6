//! COPY text: a line of the server to a row, and a row to a line.
//!
//! Columns are separated by tabs; NULL is `\N`; a backslash starts an escape. Rows carry values
//! unescaped, so that the same value has one form.

use reinstate_core::{ErrorKind, KeyWriter, RowRef, StoreError, TableSchema, write_varint};

/// Where the owner of a line's row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnerField {
    /// Nowhere: the line holds the columns alone.
    None,
    /// In one of the columns.
    Column(usize),
    /// In a field of its own before the columns.
    First,
}

/// Turns lines into rows of one table. Reuses its buffers.
#[derive(Debug)]
pub(crate) struct LineReader {
    column_count: usize,
    /// Columns of the key, in the order of the key, with their form.
    key: Vec<(usize, reinstate_core::KeyForm)>,
    owner: OwnerField,
    /// Whether blanks at the end of the owner do not count.
    trims_owner: bool,
    line: LineParts,
}

/// The line read last.
#[derive(Debug, Default)]
struct LineParts {
    owner: Vec<u8>,
    /// Whether the owner's own field is NULL.
    is_unowned: bool,
    key: KeyWriter,
    /// Encoded as in a row.
    columns: Vec<u8>,
    /// Where in `columns` the value of each column is; none for NULL.
    places: Vec<Option<(usize, usize)>>,
}

/// How much room the columns of a line may leave behind for the next one.
const KEPT_BYTES_MAX: usize = 4 << 20;

impl LineReader {
    /// A reader of lines that hold the columns of `table` in their order.
    pub(crate) fn new(table: &TableSchema, owner: OwnerField, trims_owner: bool) -> Self {
        let form = |column: usize| table.columns[column].key_form;
        let key = table.key.iter().map(|column| column.get());
        Self {
            column_count: table.columns.len(),
            key: key.map(|column| (column, form(column))).collect(),
            owner,
            trims_owner,
            line: LineParts::default(),
        }
    }

    /// Reads a line, which ends with a line feed.
    ///
    /// # Errors
    /// `Other` if it has another number of columns or is not COPY text.
    pub(crate) fn read(&mut self, line: &[u8]) -> Result<(), StoreError> {
        let Some(body) = line.strip_suffix(b"\n") else {
            return Err(malformed("a line does not end"));
        };
        let parts = &mut self.line;
        parts.owner.clear();
        parts.columns.clear();
        parts.places.clear();
        let is_escaped = memchr::memchr(b'\\', body).is_some();
        let mut rest = body;
        if self.owner == OwnerField::First {
            let (field, after) = split_field(rest);
            parts.push_owner(field)?;
            rest = after.ok_or_else(|| malformed("a line has no columns"))?;
        }
        let mut more = Some(rest).filter(|_| self.column_count > 0);
        while let Some(rest) = more {
            let (field, after) = split_field(rest);
            parts.push_column(field, is_escaped)?;
            more = after;
        }
        if parts.places.len() != self.column_count {
            return Err(malformed("a line has another number of columns"));
        }
        if let OwnerField::Column(column) = self.owner
            && let Some((start, end)) = parts.places[column]
        {
            parts.owner.extend_from_slice(&parts.columns[start..end]);
        }
        if self.trims_owner {
            let length = parts.owner.trim_ascii_end().len();
            parts.owner.truncate(length);
        }
        parts.key.clear();
        for &(column, form) in &self.key {
            let Some((start, end)) = parts.places[column] else {
                return Err(malformed("a column of the primary key is NULL"));
            };
            parts.key.push(form, &parts.columns[start..end]);
        }
        Ok(())
    }

    /// The owner of the row read last: no bytes if it is shared.
    pub(crate) fn owner(&self) -> &[u8] {
        &self.line.owner
    }

    /// Whether the row read last reaches nobody who could be its owner.
    pub(crate) fn is_unowned(&self) -> bool {
        self.line.is_unowned
    }

    /// The key of the row read last.
    pub(crate) fn key(&self) -> &[u8] {
        self.line.key.as_bytes()
    }

    /// Gives back what only a long row took. There is no row any more then.
    pub(crate) fn let_go(&mut self) {
        if self.line.columns.capacity() > KEPT_BYTES_MAX {
            self.line.columns = Vec::new();
        }
    }

    /// The encoded columns of the row read last.
    pub(crate) fn columns(&self) -> &[u8] {
        &self.line.columns
    }
}

impl LineParts {
    fn push_owner(&mut self, field: &[u8]) -> Result<(), StoreError> {
        self.is_unowned = field == b"\\N";
        if !self.is_unowned {
            unescape(field, &mut self.owner)?;
        }
        Ok(())
    }

    fn push_column(&mut self, field: &[u8], may_be_escaped: bool) -> Result<(), StoreError> {
        if may_be_escaped && field == b"\\N" {
            self.columns.push(0);
            self.places.push(None);
            return Ok(());
        }
        let escapes = if may_be_escaped {
            count_escapes(field)
        } else {
            0
        };
        let length = field.len() - escapes;
        write_varint(&mut self.columns, length as u64 + 1);
        let start = self.columns.len();
        // A long value is not to be copied on to a larger place, again and again, while it grows.
        self.columns.reserve(length);
        if escapes == 0 {
            self.columns.extend_from_slice(field);
        } else {
            unescape(field, &mut self.columns)?;
        }
        self.places.push(Some((start, self.columns.len())));
        Ok(())
    }
}

/// The field at the front, and what comes after its tab.
fn split_field(rest: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'\t', rest) {
        Some(end) => (&rest[..end], Some(&rest[end + 1..])),
        None => (rest, None),
    }
}

/// How many bytes shorter a field is without its escapes. Each takes two.
fn count_escapes(field: &[u8]) -> usize {
    let (mut rest, mut count) = (field, 0);
    while let Some(place) = memchr::memchr(b'\\', rest) {
        count += 1;
        // One at the very end is malformed, as whoever reads it says.
        rest = rest.get(place + 2..).unwrap_or_default();
    }
    count
}

fn unescape(field: &[u8], value: &mut Vec<u8>) -> Result<(), StoreError> {
    let mut rest = field;
    while let Some(place) = memchr::memchr(b'\\', rest) {
        value.extend_from_slice(&rest[..place]);
        // What the server writes; it reads more, but never sends it.
        value.push(match rest.get(place + 1) {
            Some(b'\\') => b'\\',
            Some(b't') => b'\t',
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'v') => 0x0b,
            _ => return Err(malformed("an unknown escape")),
        });
        rest = &rest[place + 2..];
    }
    value.extend_from_slice(rest);
    Ok(())
}

/// Appends a row's columns as one line.
pub(crate) fn write_line(row: RowRef<'_>, buffer: &mut Vec<u8>) {
    buffer.reserve(row.columns().len());
    for (place, value) in row.values().enumerate() {
        if place > 0 {
            buffer.push(b'\t');
        }
        match value {
            None => buffer.extend_from_slice(b"\\N"),
            Some(value) => escape(value, buffer),
        }
    }
    buffer.push(b'\n');
}

fn escape(value: &[u8], buffer: &mut Vec<u8>) {
    // Only backslash, tab, line feed and carriage return mean anything to the server.
    let mut rest = value;
    while let Some(place) = find_special(rest) {
        buffer.extend_from_slice(&rest[..place]);
        buffer.push(b'\\');
        buffer.push(match rest[place] {
            b'\t' => b't',
            b'\n' => b'n',
            b'\r' => b'r',
            other => other,
        });
        rest = &rest[place + 1..];
    }
    buffer.extend_from_slice(rest);
}

fn find_special(bytes: &[u8]) -> Option<usize> {
    let first = memchr::memchr3(b'\\', b'\t', b'\n', bytes);
    let until = first.unwrap_or(bytes.len());
    memchr::memchr(b'\r', &bytes[..until]).or(first)
}

fn malformed(what: &str) -> StoreError {
    StoreError::new(ErrorKind::Other, format!("read COPY text: {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use reinstate_core::{
        ColumnIndex, ColumnSchema, KeyForm, KeyPart, RowBatch, TableName, Tenancy,
    };

    fn table(forms: &[KeyForm], key: &[u32]) -> TableSchema {
        let column = |form: &KeyForm| ColumnSchema {
            name: "c".to_owned(),
            type_name: "text".to_owned(),
            nullable: true,
            key_form: *form,
        };
        TableSchema {
            name: TableName::new("t"),
            columns: forms.iter().map(column).collect(),
            key: key.iter().copied().map(ColumnIndex).collect(),
            tenancy: Tenancy::Shared,
            references: vec![],
        }
    }

    #[track_caller]
    fn round_trip(values: &[Option<&[u8]>]) {
        let schema = table(&vec![KeyForm::Bytes; values.len()], &[]);
        let mut batch = RowBatch::new();
        batch.push(b"", values.iter().copied());
        let mut line = Vec::new();
        write_line(batch.iter().next().unwrap(), &mut line);
        let mut reader = LineReader::new(&schema, OwnerField::None, false);
        reader.read(&line).unwrap();
        let mut again = RowBatch::new();
        again.push_parts(reader.key(), reader.columns());
        assert_eq!(again, batch, "{line:?}");
    }

    #[test]
    fn a_row_reads_back_from_its_line() {
        round_trip(&[None]);
        round_trip(&[Some(b"")]);
        round_trip(&[Some(b"\\N"), None, Some(b"")]);
        round_trip(&[Some(b"a\tb\nc\rd\\e\x08\x0b\x0c\x7f"), Some(b"\\.")]);
        let every: Vec<u8> = (1..=255).collect();
        round_trip(&[Some(&every), None, Some(&every)]);
        let mut state = 1_u64;
        for _ in 0..2_000 {
            let values: Vec<Option<Vec<u8>>> = (0..3)
                .map(|_| {
                    let mut next = || {
                        state = state
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1);
                        (state >> 33) as usize
                    };
                    let alphabet = b"\\\t\n\rNtnab. ";
                    let value = (0..next() % 9).map(|_| alphabet[next() % alphabet.len()]);
                    let value: Vec<u8> = value.collect();
                    (next() % 4 != 0).then_some(value)
                })
                .collect();
            let values: Vec<Option<&[u8]>> = values.iter().map(Option::as_deref).collect();
            round_trip(&values);
        }
    }

    #[test]
    fn owner_and_key_are_found_where_they_are() {
        let schema = table(&[KeyForm::Bytes, KeyForm::Integer, KeyForm::Bytes], &[1, 0]);
        let mut reader = LineReader::new(&schema, OwnerField::First, false);
        reader.read(b"acme\\t\tx\t42\t\\N\n").unwrap();
        assert_eq!(reader.owner(), b"acme\t");
        let key = KeyPart::parse_all(reader.key()).unwrap();
        assert_eq!(key, [KeyPart::Integer(42), KeyPart::Bytes(b"x".to_vec())]);
        let mut reader = LineReader::new(&schema, OwnerField::Column(2), true);
        reader.read(b"x\t42\tab  \n").unwrap();
        assert_eq!(reader.owner(), b"ab");
        reader.read(b"x\t42\t\\N\n").unwrap();
        assert_eq!(reader.owner(), b"");
    }

    #[test]
    fn a_malformed_line_is_an_error() {
        let schema = table(&[KeyForm::Bytes, KeyForm::Bytes], &[0]);
        let mut reader = LineReader::new(&schema, OwnerField::None, false);
        for line in [
            b"a\tb".as_slice(),
            b"",
            b"\n",
            b"a\n",
            b"a\tb\tc\n",
            b"a\t\\\n",
            b"a\t\\x41\n",
            b"\\N\tb\n",
        ] {
            assert!(reader.read(line).is_err(), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_as_a_line_of_copy(
            line in proptest::collection::vec(
                prop_oneof![Just(b'\t'), Just(b'\\'), Just(b'\n'), Just(b'N'), any::<u8>()],
                0..40,
            ),
            trims: bool,
        ) {
            let schema = table(&[KeyForm::Bytes, KeyForm::Integer], &[1, 0]);
            for owner in [OwnerField::None, OwnerField::First, OwnerField::Column(0)] {
                let mut reader = LineReader::new(&schema, owner, trims);
                if reader.read(&line).is_ok() {
                    prop_assert!(reader.owner().len() <= line.len());
                    prop_assert!(KeyPart::parse_all(reader.key()).is_some());
                }
                // One line leaves nothing behind for the next.
                let next: &[u8] = match owner {
                    OwnerField::First => b"a\tb\t7\n",
                    _ => b"b\t7\n",
                };
                prop_assert!(reader.read(next).is_ok());
                let key = KeyPart::parse_all(reader.key()).unwrap();
                prop_assert_eq!(key, [KeyPart::Integer(7), KeyPart::Bytes(b"b".to_vec())]);
            }
        }
    }
}
