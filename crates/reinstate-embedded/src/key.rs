//! Keys in the file: whose row it is, which generation of the table, then the row's own key.
//!
//! ```text
//! data key := owner length u16 BE, owner, generation u64 BE, row key
//! ```
//!
//! The length comes first, so that no tenant's id can be the beginning of another's range.
//! A table without a key has its encoded columns as the row key, and a count as the value.

use std::ops::Bound;

use redb::{TableDefinition, TableHandle};
use reinstate_core::{TableIndex, TenantId};

pub(crate) type Bytes = &'static [u8];

/// Facts about the store.
pub(crate) const FACTS: TableDefinition<'_, &str, Bytes> = TableDefinition::new("reinstate/facts");
/// One record for each table of the schema.
pub(crate) const TABLES: TableDefinition<'_, u32, Bytes> = TableDefinition::new("reinstate/tables");
/// Tenant's id: the commit that wrote to it last. The empty id stands for shared rows.
pub(crate) const VERSIONS: TableDefinition<'_, Bytes, u64> =
    TableDefinition::new("reinstate/versions");
/// Commit u64 BE, owner: the same the other way round.
pub(crate) const COMMITS: TableDefinition<'_, Bytes, ()> =
    TableDefinition::new("reinstate/commits");
/// Table number u32 BE, owner: the generation in use, if it is not the first.
pub(crate) const GENERATIONS: TableDefinition<'_, Bytes, u64> =
    TableDefinition::new("reinstate/generations");
/// Table number u32 BE, generation u64 BE, owner: rows that no reader sees, to be removed.
pub(crate) const GARBAGE: TableDefinition<'_, Bytes, ()> =
    TableDefinition::new("reinstate/garbage");
/// Job id, tenant: digest of the plan, payload.
pub(crate) const JOURNAL: TableDefinition<'_, Bytes, Bytes> =
    TableDefinition::new("reinstate/journal");

/// Snapshot's id: commit up to which its feed was acknowledged u64 LE, bytes noted up to there u64 LE.
pub(crate) const FEEDS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("reinstate/feeds");
/// Commit u64 BE, block u32 BE: changes, as `feed/block.rs` has them.
pub(crate) const FEED: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("reinstate/feed");
/// Number u64 BE, block u32 BE: changes of a large restore.
pub(crate) const FEED_ASIDE: TableDefinition<'_, Bytes, Bytes> =
    TableDefinition::new("reinstate/feed-aside");
/// Numbers of such changes that no commit leads to, or none any more, to be removed.
pub(crate) const FEED_GARBAGE: TableDefinition<'_, u64, ()> =
    TableDefinition::new("reinstate/feed-garbage");

/// The rows of one table.
pub(crate) struct DataTable(String);

impl DataTable {
    pub(crate) fn new(table: TableIndex) -> Self {
        Self(format!("data/{}", table.0))
    }

    pub(crate) fn definition(&self) -> TableDefinition<'_, Bytes, Bytes> {
        let definition = TableDefinition::new(&self.0);
        debug_assert_eq!(definition.name(), self.0);
        definition
    }
}

/// Where in a table's data one owner's rows of one generation lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    prefix: Vec<u8>,
}

impl Place {
    pub(crate) fn new(owner: &[u8], generation: u64) -> Self {
        let length = u16::try_from(owner.len()).expect("BUG: a tenant id of 64 KiB");
        let mut prefix = Vec::with_capacity(2 + owner.len() + 8);
        prefix.extend_from_slice(&length.to_be_bytes());
        prefix.extend_from_slice(owner);
        prefix.extend_from_slice(&generation.to_be_bytes());
        Self { prefix }
    }

    pub(crate) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Writes the key of a row to a buffer.
    pub(crate) fn write_key(&self, row_key: &[u8], key: &mut Vec<u8>) {
        key.clear();
        key.extend_from_slice(&self.prefix);
        key.extend_from_slice(row_key);
    }

    /// The first key after this place.
    pub(crate) fn end(&self) -> Bound<Vec<u8>> {
        let mut end = self.prefix.clone();
        while let Some(last) = end.last_mut() {
            if *last < u8::MAX {
                *last += 1;
                return Bound::Excluded(end);
            }
            end.pop();
        }
        Bound::Unbounded
    }
}

/// The parts of a data key: owner, generation, row key.
pub(crate) fn split(key: &[u8]) -> Option<(&[u8], u64, &[u8])> {
    let (length, rest) = key.split_first_chunk::<2>()?;
    let (owner, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let (generation, row_key) = rest.split_first_chunk::<8>()?;
    Some((owner, u64::from_be_bytes(*generation), row_key))
}

pub(crate) fn commit_key(commit: u64, owner: &[u8]) -> Vec<u8> {
    let mut key = commit.to_be_bytes().to_vec();
    key.extend_from_slice(owner);
    key
}

/// A block's key: in the feed behind a commit, aside behind a number.
pub(crate) fn block_key(number: u64, block: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8..].copy_from_slice(&block.to_be_bytes());
    key
}

/// The commit, or the number, of a block.
pub(crate) fn block_number(key: &[u8]) -> Option<u64> {
    let (number, block) = key.split_first_chunk()?;
    (block.len() == 4).then_some(u64::from_be_bytes(*number))
}

pub(crate) fn generation_key(table: TableIndex, owner: &[u8]) -> Vec<u8> {
    let mut key = table.0.to_be_bytes().to_vec();
    key.extend_from_slice(owner);
    key
}

pub(crate) fn garbage_key(table: TableIndex, generation: u64, owner: &[u8]) -> Vec<u8> {
    let mut key = table.0.to_be_bytes().to_vec();
    key.extend_from_slice(&generation.to_be_bytes());
    key.extend_from_slice(owner);
    key
}

/// The parts of a garbage key.
pub(crate) fn split_garbage(key: &[u8]) -> Option<(TableIndex, u64, &[u8])> {
    let (table, rest) = key.split_first_chunk::<4>()?;
    let (generation, owner) = rest.split_first_chunk::<8>()?;
    Some((
        TableIndex(u32::from_be_bytes(*table)),
        u64::from_be_bytes(*generation),
        owner,
    ))
}

pub(crate) fn journal_key(job: &[u8; 16], tenant: &TenantId) -> Vec<u8> {
    let mut key = job.to_vec();
    key.extend_from_slice(tenant.as_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_key_is_in_its_own_place_and_in_no_other(
            owner in proptest::collection::vec(any::<u8>(), 0..4),
            other in proptest::collection::vec(any::<u8>(), 0..4),
            generation in prop_oneof![Just(u64::MAX), 0_u64..3],
            row_key: Vec<u8>,
        ) {
            let inside = |place: &Place, key: &[u8]| {
                let before_end = match place.end() {
                    Bound::Excluded(end) => key < end.as_slice(),
                    _ => true,
                };
                place.prefix() <= key && before_end
            };
            let mut key = Vec::new();
            let place = Place::new(&owner, generation);
            place.write_key(&row_key, &mut key);
            prop_assert_eq!(split(&key), Some((&owner[..], generation, &row_key[..])));
            prop_assert!(inside(&place, &key));
            prop_assert_eq!(inside(&Place::new(&other, generation), &key), owner == other);
            prop_assert!(!inside(&Place::new(&owner, generation.wrapping_add(1)), &key));
        }
    }
}
