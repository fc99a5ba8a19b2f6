//! From columns to rows.

use reinstate_core::{read_varint, write_varint};

use super::{
    COLUMN_CONSTANT, COLUMN_COUNT_MAX, COLUMN_DECIMAL, COLUMN_MARKERS, INTEGER_PART_BYTES,
    INTEGER_TAG, KEY_INTEGERS, KEY_LENGTHS, KEY_NONE, value_length,
};

/// Values up to this length are copied as so many bytes, of which what is too much is dropped: that is faster
/// than to copy as many as there are.
const SHORT_BYTES: usize = 32;

/// Puts rows together; holds buffers that it reuses, shorter than rows as they are in tables.
#[derive(Default)]
pub(in crate::segment) struct Assembler {
    /// Keys and decimal text, which the content says in fewer bytes.
    made: Vec<u8>,
    /// The integers of the keys, part by part.
    numbers: Vec<i64>,
    /// How long the body of each row is.
    bodies: Vec<usize>,
    columns: Vec<Column>,
}

/// Where the rows' values of one column, or their keys, are.
#[derive(Clone, Copy)]
struct Column {
    markers: Markers,
    /// The next one.
    value: usize,
    /// Whether that is a place in what was made, and not in the content.
    is_made: bool,
}

#[derive(Clone, Copy)]
enum Markers {
    /// Each row's, in whole bytes.
    Constant(u64),
    /// Where the next one is.
    At(usize),
}

/// Why content is not that many rows of that many bytes.
type Fault = &'static str;

const ENDS_EARLY: Fault = "they end early";
const OTHER_LENGTH: Fault = "their rows have another length";

/// Reads content from its front.
struct Reader<'c> {
    content: &'c [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, Fault> {
        let byte = self.content.get(self.at).copied().ok_or(ENDS_EARLY)?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    fn number(&mut self) -> Result<u64, Fault> {
        let rest = self.content.get(self.at..).ok_or(ENDS_EARLY)?;
        let (number, taken) = read_varint(rest).ok_or(ENDS_EARLY)?;
        self.at += taken;
        Ok(number)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Fault> {
        let end = self.at.checked_add(bytes).ok_or(ENDS_EARLY)?;
        if end > self.content.len() {
            return Err(ENDS_EARLY);
        }
        self.at = end;
        Ok(())
    }
}

impl Assembler {
    /// Puts `row_count` rows of `row_bytes` bytes together, in `rows`, which is empty after an error.
    ///
    /// *Cost*: two passes, the second of which copies every value. Allocates the rows, eight bytes for each of
    /// them, and what the content does not say itself, up to twice the rows: a few times `row_bytes`, whatever
    /// the content says.
    pub(in crate::segment) fn assemble(
        &mut self,
        content: &[u8],
        row_count: usize,
        row_bytes: usize,
        rows: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        rows.clear();
        // Each row says two lengths.
        if row_count
            .checked_mul(2)
            .is_none_or(|least| least > row_bytes)
        {
            return Err("there are more rows than bytes");
        }
        self.made.clear();
        self.numbers.clear();
        self.bodies.clear();
        self.bodies.resize(row_count, 0);
        self.columns.clear();
        let mut reader = Reader { content, at: 0 };
        let key = self.read_key(&mut reader, row_bytes)?;
        let column_count = usize::try_from(reader.number()?).map_err(|_| OTHER_LENGTH)?;
        if column_count > COLUMN_COUNT_MAX {
            return Err("there are more columns than a block of them may have");
        }
        // And each column a marker.
        let least = column_count.saturating_add(2).saturating_mul(row_count);
        if least > row_bytes {
            return Err("there are more columns than bytes");
        }
        for _ in 0..column_count {
            let column = self.read_column(&mut reader, row_bytes)?;
            self.columns.push(column);
        }
        if reader.at != content.len() {
            return Err("bytes are left over");
        }
        self.check_length(content, key, row_bytes)?;
        rows.reserve_exact(row_bytes + SHORT_BYTES);
        self.write(content, key, rows);
        Ok(())
    }

    fn read_key(&mut self, reader: &mut Reader<'_>, row_bytes: usize) -> Result<Column, Fault> {
        let row_count = self.bodies.len();
        match reader.byte()? {
            KEY_NONE => Ok(Column {
                markers: Markers::Constant(0),
                value: reader.at,
                is_made: false,
            }),
            KEY_LENGTHS => {
                let at = reader.at;
                let mut bytes = 0;
                for body in &mut self.bodies {
                    let length = within(reader.number()?, row_bytes)?;
                    *body = length;
                    bytes += length;
                }
                let value = reader.at;
                reader.skip(bytes)?;
                Ok(Column {
                    markers: Markers::At(at),
                    value,
                    is_made: false,
                })
            }
            KEY_INTEGERS => {
                let parts = within(reader.number()?, row_bytes)?;
                let length = parts.saturating_mul(INTEGER_PART_BYTES);
                if parts == 0 || length.saturating_mul(row_count) > row_bytes {
                    return Err(OTHER_LENGTH);
                }
                for _ in 0..parts {
                    let mut last = 0_i64;
                    for _ in 0..row_count {
                        let zigzag = reader.number()?;
                        let difference = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
                        last = last.wrapping_add(difference);
                        self.numbers.push(last);
                    }
                }
                for row in 0..row_count {
                    for part in 0..parts {
                        let number = self.numbers[part * row_count + row];
                        let bytes = (number.cast_unsigned() ^ (1 << 63)).to_be_bytes();
                        self.made.push(INTEGER_TAG);
                        self.made.extend_from_slice(&bytes);
                    }
                }
                self.bodies.fill(length);
                Ok(Column {
                    markers: Markers::Constant(length as u64),
                    value: 0,
                    is_made: true,
                })
            }
            _ => Err("the form of their key is unknown"),
        }
    }

    /// Finds where a column's values are, and adds what they take to the rows' lengths.
    fn read_column(&mut self, reader: &mut Reader<'_>, row_bytes: usize) -> Result<Column, Fault> {
        match reader.byte()? {
            COLUMN_CONSTANT => {
                let marker = reader.number()?;
                let length = within(value_length(marker), row_bytes)?;
                let value = reader.at;
                reader.skip(length.checked_mul(self.bodies.len()).ok_or(ENDS_EARLY)?)?;
                let taken = varint_bytes(marker) + length;
                self.bodies.iter_mut().for_each(|body| *body += taken);
                Ok(Column {
                    markers: Markers::Constant(marker),
                    value,
                    is_made: false,
                })
            }
            COLUMN_MARKERS => {
                let at = reader.at;
                let mut bytes = 0;
                for body in &mut self.bodies {
                    let before = reader.at;
                    let length = within(value_length(reader.number()?), row_bytes)?;
                    *body += reader.at - before + length;
                    bytes += length;
                }
                let value = reader.at;
                reader.skip(bytes)?;
                Ok(Column {
                    markers: Markers::At(at),
                    value,
                    is_made: false,
                })
            }
            COLUMN_DECIMAL => self.make_decimal(reader.number()?, row_bytes),
            _ => Err("the form of a column is unknown"),
        }
    }

    /// Makes a column of the decimal text of a part of the key: its markers, then its values.
    fn make_decimal(&mut self, part: u64, row_bytes: usize) -> Result<Column, Fault> {
        let row_count = self.bodies.len();
        let part = within(part, row_bytes)?;
        let start = part.checked_mul(row_count).ok_or(ENDS_EARLY)?;
        let numbers = start
            .checked_add(row_count)
            .and_then(|end| self.numbers.get(start..end))
            .ok_or("a column is a part of the key that there is not")?;
        let at = self.made.len();
        self.made.resize(at + row_count, 0);
        let value = self.made.len();
        for (row, (number, body)) in numbers.iter().zip(&mut self.bodies).enumerate() {
            let mut buffer = itoa::Buffer::new();
            let text = buffer.format(*number).as_bytes();
            self.made.extend_from_slice(text);
            // At most twenty digits, and a sign: a marker of one byte.
            self.made[at + row] = text.len().to_le_bytes()[0] + 1;
            *body += 1 + text.len();
            // All of it goes into the rows.
            if self.made.len() > row_bytes {
                return Err(OTHER_LENGTH);
            }
        }
        Ok(Column {
            markers: Markers::At(at),
            value,
            is_made: true,
        })
    }

    /// Whether the rows have the length that they must have.
    fn check_length(&self, content: &[u8], key: Column, row_bytes: usize) -> Result<(), Fault> {
        let mut found = 0;
        let mut key = key;
        for &body in &self.bodies {
            let key_length = self.marker(content, &mut key);
            found += varint_bytes(body as u64) + varint_bytes(key_length) + body;
        }
        if found == row_bytes {
            Ok(())
        } else {
            Err(OTHER_LENGTH)
        }
    }

    /// Writes what was found to be whole.
    fn write(&mut self, content: &[u8], mut key: Column, rows: &mut Vec<u8>) {
        let mut columns = std::mem::take(&mut self.columns);
        for &body in &self.bodies {
            write_short_varint(rows, body as u64);
            let length = self.marker(content, &mut key);
            write_short_varint(rows, length);
            self.copy(content, &mut key, length, rows);
            for column in &mut columns {
                let marker = self.marker(content, column);
                write_short_varint(rows, marker);
                self.copy(content, column, value_length(marker), rows);
            }
        }
        self.columns = columns;
    }

    /// The marker of the next row: it was read once, so that it can be read.
    #[inline]
    fn marker(&self, content: &[u8], column: &mut Column) -> u64 {
        match &mut column.markers {
            Markers::Constant(marker) => *marker,
            Markers::At(at) => {
                let source = if column.is_made { &self.made } else { content };
                let (marker, taken) =
                    read_varint(&source[*at..]).expect("BUG: a marker that was read before");
                *at += taken;
                marker
            }
        }
    }

    /// Appends the next value.
    #[inline]
    fn copy(&self, content: &[u8], column: &mut Column, length: u64, rows: &mut Vec<u8>) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "it was found within the rows"
        )]
        let length = length as usize;
        let source = if column.is_made { &self.made } else { content };
        let end = column.value + length;
        let short = source[column.value..].first_chunk::<SHORT_BYTES>();
        match short {
            Some(short) if length <= SHORT_BYTES => {
                let whole = rows.len() + length;
                rows.extend_from_slice(short);
                rows.truncate(whole);
            }
            _ => rows.extend_from_slice(&source[column.value..end]),
        }
        column.value = end;
    }
}

/// A length that is not more than what there is.
#[inline]
fn within(length: u64, most: usize) -> Result<usize, Fault> {
    match usize::try_from(length) {
        Ok(length) if length <= most => Ok(length),
        _ => Err(OTHER_LENGTH),
    }
}

/// How many bytes a varint takes.
const fn varint_bytes(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Most lengths take one or two bytes.
#[inline]
fn write_short_varint(bytes: &mut Vec<u8>, value: u64) {
    let [low, high, ..] = value.to_le_bytes();
    if value < 0x80 {
        bytes.push(low);
    } else if value < 0x4000 {
        bytes.extend_from_slice(&[low | 0x80, high << 1 | low >> 7]);
    } else {
        write_varint(bytes, value);
    }
}
