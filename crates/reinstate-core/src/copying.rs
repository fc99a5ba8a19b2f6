//! What a store says of its columns when a tenant is copied under another id.

use crate::ColumnIndex;

/// How the values of a column are written, as far as a copy may have to write others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// Whole numbers between these two, both included, in decimal without anything superfluous.
    Integer {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// 36 characters: hexadecimal digits in lower case, and hyphens.
    Uuid,
    /// Any text, of at most this many characters.
    Text {
        /// How many; none: any number.
        characters_max: Option<u64>,
    },
    /// Bytes: `\x` and two hexadecimal digits in lower case for each.
    Bytes,
    /// A JSON document.
    Json,
    /// Anything else.
    Other,
}

/// A promise of the store that no two rows of a table, whosever they are, have the same values
/// in some columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueKey {
    /// What the store calls it.
    pub name: String,
    /// The columns that it depends on.
    pub columns: Vec<ColumnIndex>,
}
