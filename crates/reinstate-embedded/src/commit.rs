//! Numbers of commits, and which commit wrote to an owner last.

use redb::ReadableTable;
use reinstate_core::{ErrorKind, StoreError};

use crate::error::During;
use crate::feed::Recorder;
use crate::key::{Bytes, COMMITS, FACTS, VERSIONS, commit_key};

/// Gives a transaction the next commit number, under which it notes which owners it writes to, and
/// for those who follow the store what it changed. Returns the number.
pub(crate) fn stamp<'o>(
    transaction: &redb::WriteTransaction,
    owners: impl Iterator<Item = &'o [u8]>,
    recorder: Option<Recorder>,
) -> Result<u64, StoreError> {
    let commit = number(transaction, owners)?;
    if let Some(recorder) = recorder {
        recorder.end(transaction, commit)?;
    }
    Ok(commit)
}

/// Notes which owners a transaction writes to, under the next commit number; returns that. If the
/// store is followed, the caller has to note the commit for its feeds.
pub(crate) fn number<'o>(
    transaction: &redb::WriteTransaction,
    owners: impl Iterator<Item = &'o [u8]>,
) -> Result<u64, StoreError> {
    let operation = "number a transaction";
    let mut facts = transaction.open_table(FACTS).during(operation)?;
    let commit = read_commit(&facts)? + 1;
    facts
        .insert("commit", commit.to_le_bytes().as_slice())
        .during(operation)?;
    let mut versions = transaction.open_table(VERSIONS).during(operation)?;
    let mut commits = transaction.open_table(COMMITS).during(operation)?;
    for owner in owners {
        let before = versions.insert(owner, commit).during(operation)?;
        if let Some(before) = before {
            let key = commit_key(before.value(), owner);
            commits.remove(key.as_slice()).during(operation)?;
        }
        let key = commit_key(commit, owner);
        commits.insert(key.as_slice(), ()).during(operation)?;
    }
    Ok(commit)
}

/// The number of the last commit.
pub(crate) fn read_commit(
    facts: &impl ReadableTable<&'static str, Bytes>,
) -> Result<u64, StoreError> {
    let damaged = || StoreError::new(ErrorKind::Corrupt, "the store's commit number is damaged");
    let value = facts
        .get("commit")
        .during("read the commit number")?
        .ok_or_else(damaged)?;
    value
        .value()
        .try_into()
        .map(u64::from_le_bytes)
        .map_err(|_| damaged())
}
