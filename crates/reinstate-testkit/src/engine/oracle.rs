//! What a restore should leave, computed the slow and obvious way.

use std::collections::{BTreeMap, BTreeSet};

use reinstate_core::{ChangeCounts, Policy, StoreSchema, Switch, TableSchema, Tenancy, TenantId};

use crate::certification::Contents;
use crate::certification::Row;

/// What a tenant should hold after a restore.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) contents: Contents,
    /// Rows that cannot be created because others hold their keys, and rows that are not deleted
    /// because others had their keys.
    pub(super) held: u64,
}

/// The tenant of `then` brought into the store of `now`.
pub(super) fn answer<'c>(
    schema: &StoreSchema,
    then: &'c Contents,
    now: &'c Contents,
    tenant: &TenantId,
    policy: Policy,
    keys_are_global: bool,
) -> Answer {
    let mut answer = Answer {
        contents: Contents::default(),
        held: 0,
    };
    for (_, table) in schema
        .iter()
        .filter(|(_, table)| table.tenancy.is_tenant_owned())
    {
        let name = table.name.as_str();
        let foreign = |contents: &'c Contents, counts: bool| -> BTreeSet<&'c [u8]> {
            let rows = contents.foreign_rows(tenant, name).filter(|_| counts);
            rows.map(|(key, _)| key.as_slice()).collect()
        };
        let is_native = table.tenancy == Tenancy::Native;
        let (had, have) = (
            foreign(then, keys_are_global && !is_native),
            foreign(now, keys_are_global),
        );
        let (then, live) = (then.rows(tenant, name), now.rows(tenant, name));
        let rows = if table.has_key() {
            with_key(then, live, policy, (&had, &have), &mut answer.held)
        } else {
            without_key(then, live, policy)
        };
        for (key, columns) in rows {
            answer.contents.add(tenant.as_bytes(), name, &key, &columns);
        }
    }
    answer
}

fn with_key(
    then: &[Row],
    now: &[Row],
    policy: Policy,
    (had, have): (&BTreeSet<&[u8]>, &BTreeSet<&[u8]>),
    held: &mut u64,
) -> Vec<Row> {
    let then: BTreeMap<_, _> = then.iter().cloned().collect();
    let now: BTreeMap<_, _> = now.iter().cloned().collect();
    let keys: BTreeSet<_> = then.keys().chain(now.keys()).collect();
    let mut rows = Vec::new();
    for key in keys {
        let kept = match (then.get(key), now.get(key)) {
            (Some(_), None) if policy.create == Switch::On && have.contains(key.as_slice()) => {
                *held += 1;
                None
            }
            (Some(then), None) => (policy.create == Switch::On).then_some(then),
            (Some(then), Some(_)) if policy.put_back == Switch::On => Some(then),
            (None, Some(now)) if policy.delete == Switch::On && had.contains(key.as_slice()) => {
                *held += 1;
                Some(now)
            }
            (None, Some(_)) if policy.delete == Switch::On => None,
            (_, now) => now,
        };
        rows.extend(kept.map(|columns| (key.clone(), columns.clone())));
    }
    rows
}

fn without_key(then: &[Row], now: &[Row], policy: Policy) -> Vec<Row> {
    let count = |rows: &[Row], row: &Row| rows.iter().filter(|other| *other == row).count();
    let different: BTreeSet<&Row> = then.iter().chain(now).collect();
    let mut rows = Vec::new();
    for row in different {
        let (then, now) = (count(then, row), count(now, row));
        let allowed = if then > now {
            policy.create
        } else {
            policy.delete
        };
        let kept = if allowed == Switch::On { then } else { now };
        rows.extend(std::iter::repeat_n(row.clone(), kept));
    }
    rows
}

/// Whether a store would take the tenant's rows as they are: every row finds the one it refers to.
///
/// Where only paths to the tenant are checked, other references do not count. A path must end at
/// a row of the same tenant.
pub(super) fn is_closed(
    schema: &StoreSchema,
    others: &Contents,
    own: &Contents,
    tenant: &TenantId,
    checks_references: bool,
) -> bool {
    schema.tables().iter().all(|table| {
        table.references.iter().all(|reference| {
            let is_path = table.tenancy.references().any(|path| path == reference);
            if !is_path && !checks_references {
                return true;
            }
            let parent = schema.table(reference.parent);
            let parents = values(own.rows(tenant, parent.name.as_str()), parent, 0);
            let foreign = others.table(parent.name.as_str());
            let foreign: BTreeSet<_> = foreign.flat_map(|rows| values(rows, parent, 0)).collect();
            let column = reference.columns[0].get();
            values(own.rows(tenant, table.name.as_str()), table, column)
                .iter()
                .all(|value| parents.contains(value) || (!is_path && foreign.contains(value)))
        })
    })
}

/// The values of one column, NULL left out.
fn values(rows: &[Row], table: &TableSchema, column: usize) -> BTreeSet<Vec<u8>> {
    let mut batch = reinstate_core::RowBatch::new();
    for (key, columns) in rows {
        batch.push_parts(key, columns);
    }
    debug_assert!(column < table.columns.len());
    batch
        .iter()
        .filter_map(|row| row.values().nth(column).flatten().map(<[u8]>::to_vec))
        .collect()
}

/// How many rows of a table differ, by kind of change.
pub(super) fn difference(
    before: &Contents,
    after: &Contents,
    tenant: &TenantId,
    table: &TableSchema,
) -> ChangeCounts {
    let name = table.name.as_str();
    let (before, after) = (before.rows(tenant, name), after.rows(tenant, name));
    let mut counts = ChangeCounts::NONE;
    if table.has_key() {
        let before: BTreeMap<_, _> = before.iter().cloned().collect();
        let after: BTreeMap<_, _> = after.iter().cloned().collect();
        for (key, columns) in &after {
            match before.get(key) {
                None => counts.created += 1,
                Some(other) => counts.put_back += u64::from(other != columns),
            }
        }
        let deleted = before
            .keys()
            .filter(|key| !after.contains_key(*key))
            .count();
        counts.deleted += deleted as u64;
        return counts;
    }
    let count = |rows: &[Row], row: &Row| rows.iter().filter(|other| *other == row).count() as u64;
    let different: BTreeSet<&Row> = before.iter().chain(after).collect();
    for row in different {
        let (before, after) = (count(before, row), count(after, row));
        counts.created += after.saturating_sub(before);
        counts.deleted += before.saturating_sub(after);
    }
    counts
}
