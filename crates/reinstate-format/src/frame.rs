//! The metadata frame: one small structure with its kind, version, length and digest.
//!
//! ```text
//! magic 8 | version u16 | flags u16 | payload length u32 | payload | BLAKE3 of all before 32
//! ```

use reinstate_core::Digest;

use crate::FormatError;
use crate::codec::{self, Decode, Encode};
use crate::error::hash;

/// Bytes before the payload of a frame.
pub const FRAME_HEADER_BYTES: usize = 16;
/// Bytes after the payload of a frame.
pub const FRAME_DIGEST_BYTES: usize = 32;
/// The longest payload of a frame.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 1 << 30;

const VERSION_AT: usize = 8;
const FLAGS_AT: usize = 10;
const LENGTH_AT: usize = 12;

/// What a frame holds.
#[derive(Debug)]
pub(crate) struct FrameKind {
    /// Its first eight bytes.
    pub(crate) magic: [u8; 8],
    /// The newest version that this crate reads, and the one it writes.
    pub(crate) version: u16,
    /// What it is called in messages.
    pub(crate) structure: &'static str,
}

impl FrameKind {
    /// Writes a value in a frame of this kind; returns it with the digest at its end.
    ///
    /// # Panics
    /// If the value takes more than [`FRAME_PAYLOAD_BYTES_MAX`]: far more than a budget of memory
    /// lets it grow to.
    pub(crate) fn encode<T: Encode>(&self, value: &T) -> (Vec<u8>, Digest) {
        let payload = codec::encode(value);
        assert!(
            payload.len() <= FRAME_PAYLOAD_BYTES_MAX,
            "BUG: a {} too long",
            self.structure
        );
        let length = u32::try_from(payload.len()).expect("BUG: the limit does not fit 32 bits");
        let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES + payload.len() + FRAME_DIGEST_BYTES);
        bytes.extend_from_slice(&self.magic);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&0u16.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&payload);
        let digest = hash(&bytes);
        bytes.extend_from_slice(digest.as_bytes());
        (bytes, digest)
    }

    /// Reads the value of a frame that takes up all of `bytes`; returns it with its digest.
    ///
    /// # Errors
    /// `WrongMagic`, `NewerVersion`, `Length`, `Digest` or `Layout`, checked in this order.
    pub(crate) fn decode<T: Decode>(&self, bytes: &[u8]) -> Result<(T, Digest), FormatError> {
        let structure = self.structure;
        let header = bytes
            .first_chunk::<FRAME_HEADER_BYTES>()
            .ok_or(FormatError::Length {
                structure,
                expected: (FRAME_HEADER_BYTES + FRAME_DIGEST_BYTES) as u64,
                found: bytes.len() as u64,
            })?;
        if header[..VERSION_AT] != self.magic {
            return Err(FormatError::WrongMagic { structure });
        }
        self.check_version(u16_at(header, VERSION_AT), u16_at(header, FLAGS_AT))?;
        let length = u32_at(header, LENGTH_AT) as usize;
        let expected = FRAME_HEADER_BYTES + length + FRAME_DIGEST_BYTES;
        if length > FRAME_PAYLOAD_BYTES_MAX || bytes.len() != expected {
            let (expected, found) = (expected as u64, bytes.len() as u64);
            return Err(FormatError::Length {
                structure,
                expected,
                found,
            });
        }
        let (signed, stored) = bytes.split_at(FRAME_HEADER_BYTES + length);
        let found = hash(signed);
        if found.as_bytes() != stored {
            return Err(FormatError::Digest { structure });
        }
        Ok((
            codec::decode(structure, &signed[FRAME_HEADER_BYTES..])?,
            found,
        ))
    }

    fn check_version(&self, found: u16, flags: u16) -> Result<(), FormatError> {
        let structure = self.structure;
        if found > self.version || flags != 0 {
            return Err(FormatError::NewerVersion {
                structure,
                found,
                supported: self.version,
            });
        }
        if found == 0 {
            return Err(FormatError::malformed(
                structure,
                "version 0 was never written",
            ));
        }
        Ok(())
    }
}

fn u16_at(header: &[u8; FRAME_HEADER_BYTES], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(header, at))
}

fn u32_at(header: &[u8; FRAME_HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(header, at))
}

fn bytes_at<const N: usize>(header: &[u8; FRAME_HEADER_BYTES], at: usize) -> [u8; N] {
    *header[at..]
        .first_chunk()
        .expect("BUG: a field beyond the header")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIND: FrameKind = FrameKind {
        magic: *b"RNSTTEST",
        version: 2,
        structure: "test",
    };

    proptest! {
        #[test]
        fn a_value_reads_back(value: Vec<u8>) {
            let (bytes, digest) = KIND.encode(&value);
            prop_assert_eq!(bytes.len(), FRAME_HEADER_BYTES + 8 + value.len() + FRAME_DIGEST_BYTES);
            prop_assert_eq!(KIND.decode::<Vec<u8>>(&bytes).unwrap(), (value, digest));
        }
    }

    /// Its length takes three bytes.
    #[test]
    fn a_long_value_reads_back() {
        let value = vec![7; 100_000];
        let (bytes, digest) = KIND.encode(&value);
        assert_eq!(KIND.decode::<Vec<u8>>(&bytes).unwrap(), (value, digest));
    }

    #[test]
    fn a_newer_version_says_so_and_an_unknown_flag_too() {
        let (mut bytes, _) = KIND.encode(&1u8);
        bytes[VERSION_AT] = 3;
        let error = KIND.decode::<u8>(&bytes).unwrap_err();
        assert!(matches!(
            error,
            FormatError::NewerVersion {
                found: 3,
                supported: 2,
                ..
            }
        ));
        bytes[VERSION_AT] = 2;
        bytes[FLAGS_AT] = 1;
        let error = KIND.decode::<u8>(&bytes).unwrap_err();
        assert!(matches!(error, FormatError::NewerVersion { .. }));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_an_error() {
        let (bytes, _) = KIND.encode(&vec![1u8, 2, 3]);
        crate::damage::check(&bytes, |damaged| KIND.decode::<Vec<u8>>(damaged).is_err());
        // The shortest frame has an empty payload.
        let shortest = (FRAME_HEADER_BYTES + FRAME_DIGEST_BYTES) as u64;
        for (length, whole) in [(0, shortest), (15, shortest), (16, bytes.len() as u64)] {
            let error = KIND.decode::<Vec<u8>>(&bytes[..length]).unwrap_err();
            let FormatError::Length {
                expected, found, ..
            } = error
            else {
                panic!("{error}")
            };
            assert_eq!((expected, found), (whole, length as u64));
        }
    }

    #[test]
    fn a_frame_of_another_kind_is_refused() {
        let other = FrameKind {
            magic: *b"RNSTELSE",
            ..KIND
        };
        let error = KIND.decode::<u8>(&other.encode(&1u8).0).unwrap_err();
        assert!(matches!(error, FormatError::WrongMagic { .. }));
    }
}
