//! From rows to columns.

use reinstate_core::{RowBatch, read_varint, write_varint};

use super::{
    COLUMN_CONSTANT, COLUMN_COUNT_MAX, COLUMN_DECIMAL, COLUMN_MARKERS, INTEGER_PART_BYTES,
    INTEGER_TAG, KEY_INTEGERS, KEY_LENGTHS, KEY_NONE, value_length,
};

/// How much room the columns' values keep for the next rows.
const HELD_BYTES_MAX: usize = 4 << 20;

/// Takes rows apart; holds buffers that it reuses, about as long as the rows.
#[derive(Default)]
pub(in crate::segment) struct Transposer {
    content: Vec<u8>,
    keys: Keys,
    columns: Vec<Column>,
}

#[derive(Default)]
struct Keys {
    lengths: Vec<u8>,
    bytes: Vec<u8>,
    /// The integers of the row at hand, which all its parts are.
    numbers: Vec<i64>,
    /// For each part, the differences; none if some key is no row of integers, or of another number of them.
    parts: Option<Vec<Part>>,
}

#[derive(Default)]
struct Part {
    differences: Vec<u8>,
    last: i64,
}

#[derive(Default)]
struct Column {
    markers: Vec<u8>,
    values: Vec<u8>,
    /// The marker of the first row, and whether all others have it too.
    marker: u64,
    is_constant: bool,
    /// The part of the key whose decimal text every value is so far.
    decimal_of: Option<usize>,
}

impl Transposer {
    /// The rows by columns, in at most as many bytes. `None` if they do not all have the same number of
    /// columns, or more than [`COLUMN_COUNT_MAX`]; if there are no rows; or if it would be longer.
    pub(in crate::segment) fn transpose(&mut self, rows: &RowBatch) -> Option<&[u8]> {
        let mut is_first = true;
        for row in rows.iter() {
            if is_first {
                self.begin(row.key(), row.columns())?;
            }
            self.keys.push(row.key());
            let mut rest = row.columns();
            for column in &mut self.columns {
                let (marker, taken) = read_varint(rest)?;
                let end = taken.checked_add(usize::try_from(value_length(marker)).ok()?)?;
                let value = rest.get(taken..end)?;
                column.push(marker, &rest[..taken], value, &self.keys.numbers, is_first);
                rest = &rest[end..];
            }
            if !rest.is_empty() {
                return None;
            }
            is_first = false;
        }
        if is_first {
            return None;
        }
        self.write();
        (self.content.len() <= rows.as_bytes().len()).then_some(&self.content)
    }

    /// Makes room for rows like this one.
    fn begin(&mut self, key: &[u8], columns: &[u8]) -> Option<()> {
        self.keys.begin(key);
        let mut count = 0;
        let mut rest = columns;
        while !rest.is_empty() {
            let (marker, taken) = read_varint(rest)?;
            let end = taken.checked_add(usize::try_from(value_length(marker)).ok()?)?;
            rest = rest.get(end..)?;
            count += 1;
        }
        if count > COLUMN_COUNT_MAX {
            return None;
        }
        let held: usize = self
            .columns
            .iter()
            .map(|column| column.values.capacity())
            .sum();
        // Other tables have other long columns: not all of them are to be paid for until the end.
        let kept = if held > HELD_BYTES_MAX { 0 } else { count };
        self.columns.truncate(kept);
        self.columns.iter_mut().for_each(Column::clear);
        self.columns.resize_with(count, Column::default);
        Some(())
    }

    fn write(&mut self) {
        let content = &mut self.content;
        content.clear();
        self.keys.write(content);
        write_varint(content, self.columns.len() as u64);
        for column in &self.columns {
            column.write(content);
        }
    }
}

impl Keys {
    fn begin(&mut self, key: &[u8]) {
        self.lengths.clear();
        self.bytes.clear();
        let parts = key.len() / INTEGER_PART_BYTES;
        let kept = self.parts.get_or_insert_default();
        kept.truncate(parts);
        for part in kept.iter_mut() {
            part.differences.clear();
            part.last = 0;
        }
        kept.resize_with(parts, Part::default);
    }

    fn push(&mut self, key: &[u8]) {
        write_varint(&mut self.lengths, key.len() as u64);
        self.bytes.extend_from_slice(key);
        self.numbers.clear();
        let Some(parts) = &mut self.parts else {
            return;
        };
        let (chunks, rest) = key.as_chunks::<INTEGER_PART_BYTES>();
        let are_integers = chunks.iter().all(|chunk| chunk[0] == INTEGER_TAG);
        let is_alike = rest.is_empty() && chunks.len() == parts.len() && are_integers;
        if !is_alike {
            self.parts = None;
            return;
        }
        for (part, &[_, ref number @ ..]) in parts.iter_mut().zip(chunks) {
            let number = (u64::from_be_bytes(*number) ^ (1 << 63)).cast_signed();
            let difference = number.wrapping_sub(part.last);
            let zigzag = (difference << 1) ^ (difference >> 63);
            write_varint(&mut part.differences, zigzag.cast_unsigned());
            part.last = number;
            self.numbers.push(number);
        }
    }

    fn write(&self, content: &mut Vec<u8>) {
        if self.bytes.is_empty() {
            content.push(KEY_NONE);
        } else if let Some(parts) = &self.parts {
            content.push(KEY_INTEGERS);
            write_varint(content, parts.len() as u64);
            for part in parts {
                content.extend_from_slice(&part.differences);
            }
        } else {
            content.push(KEY_LENGTHS);
            content.extend_from_slice(&self.lengths);
            content.extend_from_slice(&self.bytes);
        }
    }
}

impl Column {
    fn clear(&mut self) {
        self.markers.clear();
        self.values.clear();
    }

    fn push(&mut self, marker: u64, encoded: &[u8], value: &[u8], key: &[i64], is_first: bool) {
        if is_first {
            self.marker = marker;
            self.is_constant = true;
            self.decimal_of = key.iter().position(|number| is_decimal(value, *number));
        } else {
            self.is_constant &= marker == self.marker;
            let part = self.decimal_of.and_then(|part| key.get(part));
            if !part.is_some_and(|number| is_decimal(value, *number)) {
                self.decimal_of = None;
            }
        }
        self.markers.extend_from_slice(encoded);
        self.values.extend_from_slice(value);
    }

    fn write(&self, content: &mut Vec<u8>) {
        if let Some(part) = self.decimal_of {
            content.push(COLUMN_DECIMAL);
            write_varint(content, part as u64);
            return;
        }
        if self.is_constant {
            content.push(COLUMN_CONSTANT);
            write_varint(content, self.marker);
        } else {
            content.push(COLUMN_MARKERS);
            content.extend_from_slice(&self.markers);
        }
        content.extend_from_slice(&self.values);
    }
}

/// Whether a value is what the number is in decimal. NULL is not: no number is written as nothing.
fn is_decimal(value: &[u8], number: i64) -> bool {
    itoa::Buffer::new().format(number).as_bytes() == value
}
