//! LEB128 variable-length integers: seven bits a byte, low bits first.

/// Appends `value` in 1 to 10 bytes.
pub fn write_varint(bytes: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

/// Reads a value from the front of `bytes`; returns it with the number of bytes it took.
///
/// `None` when the bytes end early, the value does not fit 64 bits, or the encoding is longer
/// than the shortest one: every value has exactly one accepted form, so equal values are equal
/// bytes.
#[inline]
#[must_use]
pub fn read_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    if first < 0x80 {
        return Some((u64::from(first), 1));
    }
    // Most rows have lengths of two bytes.
    if let Some(&second @ 1..0x80) = bytes.get(1) {
        return Some((u64::from(first & 0x7f) | u64::from(second) << 7, 2));
    }
    read_long(bytes)
}

/// Not where the others are read: loops over rows stay small enough to be one.
#[cold]
#[inline(never)]
fn read_long(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = u64::from(bytes.first()? & 0x7f);
    for (index, &byte) in bytes.iter().enumerate().take(10).skip(1) {
        if index == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return (byte != 0).then_some((value, index + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_reads_back(value: u64, tail: Vec<u8>) {
            let mut bytes = Vec::new();
            write_varint(&mut bytes, value);
            let length = bytes.len();
            bytes.extend(tail);
            prop_assert_eq!(read_varint(&bytes), Some((value, length)));
        }

        #[test]
        fn any_accepted_form_is_the_shortest(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Some((value, length)) = read_varint(&bytes) {
                let mut again = Vec::new();
                write_varint(&mut again, value);
                prop_assert_eq!(&again[..], &bytes[..length]);
            }
        }
    }
}
