//! Order-preserving encoding of primary keys.
//!
//! Each key column becomes one part: a tag, then bytes whose `memcmp` order is the column's
//! order. Parts follow each other, so that the encoded keys of one table sort as the tuples do.
//! The tag also says how to read the part back.

/// Persisted: never renumber.
const TAG_BYTES: u8 = 1;
/// Persisted: never renumber.
const TAG_INTEGER: u8 = 2;

/// How a key column's values are ordered and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyForm {
    /// By bytes.
    Bytes,
    /// As signed 64-bit integers; values are their decimal text.
    Integer,
}

/// One column of a key, as it is read back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyPart {
    /// A value ordered by its bytes.
    Bytes(Vec<u8>),
    /// A value ordered as a number.
    Integer(i64),
}

/// Writes a key, column by column, into a buffer that it reuses.
#[derive(Clone, Debug, Default)]
pub struct KeyWriter {
    bytes: Vec<u8>,
}

impl KeyWriter {
    /// A writer with an empty key.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Forgets the key written so far and keeps the buffer.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// The key written so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends a value ordered by its bytes. A zero byte becomes `00 FF`, and `00` ends the
    /// part: every tag is below `FF`, so a shorter value sorts first.
    pub fn push_bytes(&mut self, value: &[u8]) {
        self.bytes.push(TAG_BYTES);
        for &byte in value {
            self.bytes.push(byte);
            if byte == 0 {
                self.bytes.push(0xff);
            }
        }
        self.bytes.push(0);
    }

    /// Appends a value ordered as a number: big-endian with the sign bit turned.
    pub fn push_integer(&mut self, value: i64) {
        self.bytes.push(TAG_INTEGER);
        self.bytes
            .extend_from_slice(&(value.cast_unsigned() ^ (1 << 63)).to_be_bytes());
    }

    /// Appends the text of a value in the given form.
    ///
    /// A value of form [`KeyForm::Integer`] that is not the canonical decimal text of a 64-bit
    /// integer is written by its bytes instead, so that no two different texts share a key.
    pub fn push(&mut self, form: KeyForm, text: &[u8]) {
        match form {
            KeyForm::Bytes => self.push_bytes(text),
            KeyForm::Integer => match canonical_integer(text) {
                Some(value) => self.push_integer(value),
                None => self.push_bytes(text),
            },
        }
    }
}

impl KeyPart {
    /// Reads the parts of an encoded key; `None` if it is not one.
    #[must_use]
    pub fn parse_all(mut key: &[u8]) -> Option<Vec<Self>> {
        let mut parts = Vec::new();
        while let Some((&tag, rest)) = key.split_first() {
            key = match tag {
                TAG_INTEGER => {
                    let (digits, rest) = rest.split_first_chunk::<8>()?;
                    let value = (u64::from_be_bytes(*digits) ^ (1 << 63)).cast_signed();
                    parts.push(Self::Integer(value));
                    rest
                }
                TAG_BYTES => {
                    let (value, rest) = read_bytes(rest)?;
                    parts.push(Self::Bytes(value));
                    rest
                }
                _ => return None,
            };
        }
        Some(parts)
    }

    /// The value's text.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Integer(value) => value.to_string().into_bytes(),
        }
    }
}

fn read_bytes(mut bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    loop {
        let (&byte, rest) = bytes.split_first()?;
        if byte != 0 {
            value.push(byte);
            bytes = rest;
        } else if rest.first() == Some(&0xff) {
            value.push(0);
            bytes = &rest[1..];
        } else {
            return Some((value, rest));
        }
    }
}

fn canonical_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.split_first()? {
        (b'-', digits) => (true, digits),
        _ => (false, text),
    };
    let canonical = match digits {
        [b'0'] => !negative,
        [first, ..] => *first != b'0' && digits.len() <= 19,
        [] => false,
    };
    if !canonical {
        return None;
    }
    let mut value: i64 = 0;
    for &digit in digits {
        let digit = i64::from(digit.checked_sub(b'0').filter(|&digit| digit <= 9)?);
        // Below zero all the way, because i64 reaches one further down than up.
        value = value.checked_mul(10)?.checked_sub(digit)?;
    }
    if negative {
        Some(value)
    } else {
        value.checked_neg()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part() -> impl Strategy<Value = KeyPart> {
        prop_oneof![
            proptest::collection::vec(prop_oneof![Just(0), Just(0xff), any::<u8>()], 0..5)
                .prop_map(KeyPart::Bytes),
        ]
    }

    fn encode(parts: &[KeyPart]) -> Vec<u8> {
        let mut writer = KeyWriter::new();
        for part in parts {
            match part {
                KeyPart::Bytes(bytes) => writer.push_bytes(bytes),
                KeyPart::Integer(value) => writer.push_integer(*value),
            }
        }
        writer.as_bytes().to_vec()
    }

    proptest! {
        #[test]
        fn keys_sort_as_their_tuples_do(
            left in proptest::collection::vec(part(), 2), right in proptest::collection::vec(part(), 2)
        ) {
            prop_assert_eq!(encode(&left).cmp(&encode(&right)), left.cmp(&right));
        }

        #[test]
        fn integers_sort_as_numbers(left: i64, right: i64) {
            let key = |value| encode(&[KeyPart::Integer(value)]);
            prop_assert_eq!(key(left).cmp(&key(right)), left.cmp(&right));
        }

        #[test]
        fn a_key_reads_back(parts in proptest::collection::vec(part(), 0..4), number: i64) {
            let mut parts = parts;
            parts.push(KeyPart::Integer(number));
            prop_assert_eq!(KeyPart::parse_all(&encode(&parts)), Some(parts));
        }

        #[test]
        fn reading_any_bytes_never_panics(bytes: Vec<u8>) {
            let _ = KeyPart::parse_all(&bytes);
        }

        #[test]
        fn an_integer_and_its_text_agree(value: i64) {
            prop_assert_eq!(canonical_integer(value.to_string().as_bytes()), Some(value));
        }
    }

    #[test]
    fn a_text_that_is_not_canonical_keeps_its_own_key() {
        for text in [
            "",
            "-",
            "-0",
            "007",
            "+1",
            "1 ",
            "9223372036854775808",
            "1e3",
        ] {
            assert_eq!(canonical_integer(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(canonical_integer(b"-9223372036854775808"), Some(i64::MIN));
    }
}
