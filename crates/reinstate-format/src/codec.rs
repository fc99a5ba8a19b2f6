//! The metadata layout: bincode 1.3 with fixed-width integers, little-endian.
//!
//! Written by `wincode`, its maintained successor; a test holds both to the same bytes. This is
//! the only module that calls either.

use wincode::config::{self, Configuration};
use wincode::int_encoding::{FixInt, LittleEndian};
use wincode::len::BincodeLen;
use wincode::{SchemaRead, SchemaWrite};

use crate::FormatError;
use crate::frame::FRAME_PAYLOAD_BYTES_MAX;

/// The most memory that one sequence may ask for because of its length alone, before any of its
/// elements is seen.
pub(crate) const SEQUENCE_BYTES_MAX: usize = 64 << 20;

type WriteConfig = Configuration<true, { config::PREALLOCATION_SIZE_LIMIT_DISABLED }>;
type ReadConfig = Configuration<
    true,
    SEQUENCE_BYTES_MAX,
    BincodeLen,
    LittleEndian,
    FixInt,
    u32,
    FRAME_PAYLOAD_BYTES_MAX,
>;

/// A value that can be written.
pub(crate) trait Encode: SchemaWrite<WriteConfig, Src = Self> {}
impl<T: SchemaWrite<WriteConfig, Src = T>> Encode for T {}

/// A value that can be read and borrows nothing.
pub(crate) trait Decode: for<'a> SchemaRead<'a, ReadConfig, Dst = Self> {}
impl<T: for<'a> SchemaRead<'a, ReadConfig, Dst = T>> Decode for T {}

pub(crate) fn encode<T: Encode>(value: &T) -> Vec<u8> {
    config::serialize(value, WriteConfig::new()).expect("BUG: writing to memory went wrong")
}

/// Reads a value that takes up all of `bytes`.
///
/// # Errors
/// `Layout` if they are anything else.
pub(crate) fn decode<T: Decode>(structure: &'static str, bytes: &[u8]) -> Result<T, FormatError> {
    config::deserialize_exact(bytes, ReadConfig::new()).map_err(|source| FormatError::Layout {
        structure,
        source: Box::new(source),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::frame::FrameKind;
    use serde::{Serialize, de::DeserializeOwned};

    /// Holds this module and the original bincode 1.3 to the same bytes, both ways.
    #[track_caller]
    pub(crate) fn check_against_bincode<T>(value: &T)
    where
        T: Encode + Decode + Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let ours = encode(value);
        let theirs = bincode::serialize(value).unwrap();
        assert_eq!(ours, theirs);
        assert_eq!(&bincode::deserialize::<T>(&ours).unwrap(), value);
        assert_eq!(&decode::<T>("value", &theirs).unwrap(), value);
    }

    /// The same for the payload of a golden frame, which must come out as it is.
    #[track_caller]
    pub(crate) fn check_frame_against_bincode<T>(kind: &FrameKind, golden: &[u8])
    where
        T: Encode + Decode + Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let (value, _) = kind.decode::<T>(golden).unwrap();
        check_against_bincode(&value);
        assert_eq!(kind.encode(&value).0, golden);
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        let mut bytes = encode(&7u32);
        bytes.push(0);
        assert!(decode::<u32>("number", &bytes).is_err());
    }

    #[test]
    fn a_length_that_asks_for_too_much_is_an_error_before_it_allocates() {
        let bytes = encode(&(SEQUENCE_BYTES_MAX as u64 + 1));
        assert!(decode::<Vec<u8>>("bytes", &bytes).is_err());
        let bytes = encode(&u64::MAX);
        assert!(decode::<Vec<u64>>("numbers", &bytes).is_err());
    }
}
