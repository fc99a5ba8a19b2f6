//! The rows of a block column by column, which compresses better and takes longer to read.
//!
//! ```text
//! content := key columns
//! key     := 0                                            no row has a key
//!          | 1 varint(length) for each row, then all keys
//!          | 2 varint(parts), then for each part and row varint(zigzag(difference))
//! columns := varint(how many) column ...
//! column  := 0 varint(marker) values                      the marker of every row
//!          | 1 varint(marker) for each row, then values
//!          | 2 varint(part)                               decimal text of that part of the key
//! ```
//!
//! A marker is that of a row: 0 for NULL, else the value's length + 1. *Values* are those of all rows, in
//! their order. Key form 2 is for keys whose parts are all integers: each is the difference from the row
//! before, the first from 0, modulo 2^64.
//!
//! Rows are put together again byte for byte: nothing beyond this module knows how a block holds them.

mod assemble;
mod transpose;

pub(super) use assemble::Assembler;
pub(super) use transpose::Transposer;

/// Forms of the key. Persisted: never renumber.
const KEY_NONE: u8 = 0;
const KEY_LENGTHS: u8 = 1;
const KEY_INTEGERS: u8 = 2;

/// Forms of a column. Persisted: never renumber.
const COLUMN_CONSTANT: u8 = 0;
const COLUMN_MARKERS: u8 = 1;
const COLUMN_DECIMAL: u8 = 2;

/// The most columns of a block of columns, as many as no store has: a reader keeps some bytes for each, and a
/// column can take less than that.
pub(crate) const COLUMN_COUNT_MAX: usize = 4096;

/// What a part of a key takes that is an integer: its tag and eight bytes.
const INTEGER_PART_BYTES: usize = 9;
/// The tag of such a part.
const INTEGER_TAG: u8 = 2;

/// How many bytes a value takes that a marker says.
const fn value_length(marker: u64) -> u64 {
    marker.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use reinstate_core::{KeyWriter, RowBatch};

    type Columns = Vec<Option<Vec<u8>>>;

    fn there_and_back(rows: &RowBatch) -> Option<usize> {
        let mut transposer = Transposer::default();
        let content = transposer.transpose(rows)?.to_vec();
        let mut found = Vec::new();
        let (count, bytes) = (rows.len(), rows.as_bytes().len());
        let mut assembler = Assembler::default();
        assembler
            .assemble(&content, count, bytes, &mut found)
            .unwrap();
        assert_eq!(found, rows.as_bytes());
        Some(content.len())
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        let number = prop_oneof![any::<i64>(), -3..300i64];
        let part = prop_oneof![
            3 => number.prop_map(Ok),
            1 => proptest::collection::vec(any::<u8>(), 0..4).prop_map(Err)
        ];
        proptest::collection::vec(part, 0..3).prop_map(|parts| {
            let mut key = KeyWriter::new();
            for part in parts {
                match part {
                    Ok(number) => key.push_integer(number),
                    Err(bytes) => key.push_bytes(&bytes),
                }
            }
            key.as_bytes().to_vec()
        })
    }

    fn value() -> impl Strategy<Value = Option<Vec<u8>>> {
        let bytes = prop_oneof![
            8 => proptest::collection::vec(any::<u8>(), 0..50),
            1 => proptest::collection::vec(any::<u8>(), 120..300),
            1 => (-3..300i64).prop_map(|number| number.to_string().into_bytes()),
        ];
        proptest::option::weighted(0.8, bytes)
    }

    fn rows() -> impl Strategy<Value = Vec<(Vec<u8>, Columns)>> {
        (0..6usize).prop_flat_map(|width| {
            let row = (key(), proptest::collection::vec(value(), width));
            proptest::collection::vec(row, 1..40)
        })
    }

    fn batch(rows: &[(Vec<u8>, Columns)]) -> RowBatch {
        let mut batch = RowBatch::new();
        for (key, values) in rows {
            batch.push(key, values.iter().map(Option::as_deref));
        }
        batch
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn rows_come_back_byte_for_byte(rows in rows()) {
            there_and_back(&batch(&rows));
        }

        /// Keys as stores have them, with their text among the columns.
        #[test]
        fn numbered_rows_come_back_byte_for_byte(
            numbers: Vec<(i64, i64)>,
            decimal in proptest::bool::weighted(0.9),
            same in value()
        ) {
            let mut rows = RowBatch::new();
            for (index, (first, second)) in numbers.iter().enumerate() {
                let mut key = KeyWriter::new();
                key.push_integer(*first);
                key.push_integer(*second);
                let mut text = second.to_string();
                if !decimal && index == numbers.len() / 2 {
                    text.insert(0, '0');
                }
                rows.push(key.as_bytes(), [same.as_deref(), Some(text.as_bytes()), None]);
            }
            there_and_back(&rows);
        }

        /// Whatever is read, there is an error or rows of the length that was said; nothing larger is
        /// allocated and nothing panics.
        #[test]
        fn content_from_anywhere_is_rows_or_an_error(
            rows in rows(),
            edits in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..4),
            cut in any::<u16>(),
            count in 0..60usize,
            bytes in 0..4_000usize,
        ) {
            let rows = batch(&rows);
            let mut transposer = Transposer::default();
            let Some(content) = transposer.transpose(&rows) else {
                return Ok(());
            };
            let mut content = content.to_vec();
            for (place, byte) in &edits {
                let place = usize::from(*place) % content.len();
                content[place] = *byte;
            }
            if cut % 4 == 0 {
                content.truncate(usize::from(cut) % (content.len() + 1));
            }
            let mut found = Vec::new();
            for (count, bytes) in [(rows.len(), rows.as_bytes().len()), (count, bytes)] {
                let mut assembler = Assembler::default();
                let result = assembler.assemble(&content, count, bytes, &mut found);
                if result.is_ok() {
                    prop_assert_eq!(found.len(), bytes);
                    prop_assert_eq!(RowBatch::try_from_bytes(found.clone()).unwrap().len(), count);
                } else {
                    prop_assert!(found.is_empty());
                }
            }
        }

        #[test]
        fn any_bytes_are_rows_or_an_error(content: Vec<u8>, count in 0..9usize, bytes in 0..99usize) {
            let mut found = Vec::new();
            let _ = Assembler::default().assemble(&content, count, bytes, &mut found);
        }
    }

    /// Rows as a table of an application has them take less than they did, by what is known of the key.
    #[test]
    fn what_the_key_says_is_not_said_again() {
        let mut rows = RowBatch::new();
        for id in 0..1000i64 {
            let mut key = KeyWriter::new();
            key.push_integer(1_000_000 + 3 * id);
            let text = (1_000_000 + 3 * id).to_string();
            rows.push(key.as_bytes(), [Some(text.as_bytes()), Some(b"42"), None]);
        }
        // 3 bytes for the first key and one for each other, two for each "42", and the forms.
        assert_eq!(
            there_and_back(&rows),
            Some(2 + 3 + 999 + 1 + 2 + 2 + 2000 + 2)
        );
    }

    #[test]
    fn rows_with_another_number_of_columns_are_left_as_they_are() {
        let mut rows = RowBatch::new();
        rows.push(b"a", [Some(&b"1"[..]), None]);
        rows.push(b"b", [Some(&b"1"[..])]);
        assert_eq!(there_and_back(&rows), None);
        assert_eq!(there_and_back(&RowBatch::new()), None);
    }

    #[test]
    fn rows_of_more_columns_than_the_limit_are_left_as_they_are() {
        let rows = |columns: usize| {
            let mut rows = RowBatch::new();
            for _ in 0..3 {
                rows.push(b"", std::iter::repeat_n(None, columns));
            }
            rows
        };
        assert!(there_and_back(&rows(COLUMN_COUNT_MAX)).is_some());
        assert_eq!(there_and_back(&rows(COLUMN_COUNT_MAX + 1)), None);
    }
}
