//! What a log has to say about one tenant: which transactions changed its rows, and which one changed
//! a row last.

use std::collections::BTreeMap;

use reinstate_core::{Commit, Owner, Position, Repository, RowBatch, TableIndex, TenantId};
use reinstate_format::{ChangeKind, LoggedChange};

use super::chain::Log;
use crate::run_stream::{RunPart, RunStream};
use crate::{Context, Error};

/// How many rows are remembered with the transaction that changed them last.
const ROWS_MAX: usize = 1_000_000;

/// The transactions that changed a tenant's rows.
#[derive(Clone, Debug, Default)]
pub struct TenantHistory {
    /// The transactions, in the order of their commits.
    pub transactions: Vec<TenantTransaction>,
    /// By table, and by key (by columns, where there is none), which of them changed a row last.
    rows: BTreeMap<(TableIndex, Vec<u8>), u64>,
}

/// What one transaction did to a tenant's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantTransaction {
    /// The commit.
    pub commit: Commit,
    /// Rows that it inserted.
    pub inserted: u64,
    /// Rows that it updated in place.
    pub updated: u64,
    /// Rows that it removed. Not those of a table that it emptied.
    pub removed: u64,
    /// Tables that it emptied, of everybody's rows.
    pub truncated: u64,
}

impl TenantHistory {
    /// The transaction that changed this row last; none if it was not changed, or there were too many
    /// rows to remember.
    #[must_use]
    pub fn last_change(&self, table: TableIndex, key: &[u8], columns: &[u8]) -> Option<Commit> {
        let name = if key.is_empty() { columns } else { key };
        let commit = self.rows.get(&(table, name.to_vec()))?;
        let place = self
            .transactions
            .binary_search_by_key(commit, |transaction| transaction.commit.position.commit)
            .ok()?;
        Some(self.transactions[place].commit)
    }
}

/// What changed a tenant's rows after one position and up to another.
///
/// Rows that went to another tenant with the row that they belong to are counted with that row only.
///
/// *Cost*: reads the tenant's changes in between, and the commits of those runs. Remembers at most a
/// million rows.
///
/// # Errors
/// `Corrupt` if what is read is damaged.
pub fn history_of(
    context: Context<'_>,
    repository: &dyn Repository,
    log: &Log,
    tenant: &TenantId,
    (after, through): (Position, Position),
) -> Result<TenantHistory, Error> {
    let owner = Owner::Tenant(tenant.clone());
    let mut found: BTreeMap<u64, TenantTransaction> = BTreeMap::new();
    let mut history = TenantHistory::default();
    let is_between = |commit: u64| after.commit < commit && commit <= through.commit;
    let last_version = log.version_at(through);
    for (place, run) in log.runs().iter().enumerate() {
        let version = log.version_of_run(place);
        let description = &run.description;
        if description.through <= after || description.after >= through {
            continue;
        }
        let mut counts: BTreeMap<u64, [u64; 4]> = BTreeMap::new();
        for truncation in &description.truncations {
            if is_between(truncation.commit) {
                counts.entry(truncation.commit).or_default()[3] += 1;
            }
        }
        let reader = run.open(repository)?;
        let runs = reader
            .runs_of(&owner)
            .map_err(Error::format("find a tenant's changes"))?;
        let mut batch = RowBatch::new();
        for entry in runs {
            // In terms of the tables in the end.
            let carried = (version <= last_version)
                .then(|| log.carry(entry.key.table, (version, last_version)));
            let Some((table, _)) = carried.flatten() else {
                continue;
            };
            let part = RunPart {
                reader: reader.clone(),
                run: entry.into(),
            };
            let mut rows = RunStream::new(context.resources, vec![part]);
            while rows.next(&mut batch)? {
                context.check()?;
                for row in batch.iter() {
                    let change = LoggedChange::read(row).map_err(Error::format("read a change"))?;
                    if !is_between(change.commit) {
                        continue;
                    }
                    let place = match change.kind {
                        ChangeKind::Inserted => 0,
                        ChangeKind::Updated => 1,
                        ChangeKind::Removed => 2,
                    };
                    counts.entry(change.commit).or_default()[place] += 1;
                    history.note(table, &change);
                }
            }
        }
        if counts.is_empty() {
            continue;
        }
        for logged in run.commits(repository)? {
            let commit = logged.commit;
            let Some([inserted, updated, removed, truncated]) =
                counts.remove(&commit.position.commit)
            else {
                continue;
            };
            let transaction = TenantTransaction {
                commit,
                inserted,
                updated,
                removed,
                truncated,
            };
            found.insert(commit.position.commit, transaction);
        }
    }
    history.transactions = found.into_values().collect();
    Ok(history)
}

impl TenantHistory {
    fn note(&mut self, table: TableIndex, change: &LoggedChange<'_>) {
        let name = if change.key.is_empty() {
            change.columns
        } else {
            change.key
        };
        if self.rows.len() >= ROWS_MAX {
            return;
        }
        let last = self.rows.entry((table, name.to_vec())).or_default();
        *last = change.commit.max(*last);
    }
}
