//! Identifiers of repositories, stores, snapshots, objects, jobs and campaigns.
//!
//! Each is 16 opaque bytes made by whoever creates the thing; the text form is 32 lowercase
//! hexadecimal digits. They are different types so that one cannot stand in for another.

use std::fmt;
use std::str::FromStr;

/// A text that is not 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("parse {expected} id {text:?}: expected 32 hexadecimal digits")]
pub struct ParseIdError {
    text: String,
    expected: &'static str,
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $noun:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The identifier made of these 16 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes of this identifier.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// The first eight hexadecimal digits: enough for people, never for lookups that
            /// must not be ambiguous.
            #[must_use]
            pub fn short(&self) -> String {
                hex(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                unhex(text).map(Self).ok_or_else(|| ParseIdError {
                    text: text.to_owned(),
                    expected: $noun,
                })
            }
        }
    };
}

identifier!(
    /// A repository: the place that holds snapshots. Part of every block's identity.
    RepositoryId,
    "repository"
);
identifier!(
    /// A live store. Fixed for the life of the store, so that a plan cannot meet another one.
    StoreId,
    "store"
);
identifier!(
    /// A snapshot of a whole store at one position.
    SnapshotId,
    "snapshot"
);
identifier!(
    /// An immutable object in a repository. Never derived from a tenant's or a table's name.
    ObjectId,
    "object"
);
identifier!(
    /// One run of one plan against a live store.
    JobId,
    "job"
);
identifier!(
    /// A restore of many tenants over many stores.
    CampaignId,
    "campaign"
);

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| {
            [
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ]
        })
        .map(char::from)
        .collect()
}

pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_id_reads_back_from_its_text(bytes: [u8; 16]) {
            let id = SnapshotId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert!(id.to_string().starts_with(&id.short()));
        }

        #[test]
        fn parsing_any_text_never_panics(text: String) {
            let _ = text.parse::<JobId>();
        }
    }

    #[test]
    fn upper_case_and_wrong_lengths_are_refused() {
        assert!("A".repeat(32).parse::<JobId>().is_err());
        assert!("a".repeat(31).parse::<JobId>().is_err());
        assert!("a".repeat(34).parse::<JobId>().is_err());
    }
}
