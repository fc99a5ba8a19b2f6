//! How many rows to be written a store is asked about at once, which of them are left then, and where
//! they lead.

use std::collections::HashSet;

use reinstate_core::{
    HeldKey, Lead, LiveView, QuestionCost, Reference, RowBatch, RowRole, StrayReference,
    TableIndex, TableSchema, TenantId,
};

use crate::{Context, Error};

/// The part of the memory that rows may take which the store is to be asked about.
const MEMORY_PART: usize = 32;

/// How many bytes of rows to gather before the store is asked about them.
pub(super) fn question_bytes(context: Context<'_>, view: &dyn LiveView) -> usize {
    match view.question_cost() {
        QuestionCost::EachRow => RowBatch::TARGET_BYTES,
        QuestionCost::EachQuestion => {
            let bytes = context.resources.memory_bytes_max() / MEMORY_PART;
            bytes.max(RowBatch::TARGET_BYTES)
        }
    }
}

/// The rows but for those with these keys.
pub(super) fn without(rows: &RowBatch, keys: &HashSet<Vec<u8>>) -> RowBatch {
    let mut rest = RowBatch::new();
    let others = rows.iter().filter(|row| !keys.contains(row.key()));
    others.for_each(|row| rest.push_row(row));
    rest
}

/// The keys among these rows that somebody else holds, and, where there are none, where the rows lead
/// astray: see [`strays`].
pub(super) fn around(
    view: &dyn LiveView,
    place: (&TenantId, TableIndex, &[Reference]),
    (role, rows, before): (RowRole, &RowBatch, Option<&RowBatch>),
    giving_way: &RowBatch,
) -> Result<(Vec<HeldKey>, Vec<StrayReference>), Error> {
    let failed = Error::store("look for rows of others in the way");
    let (tenant, table, younger) = place;
    if before.is_none() {
        let around = view.look_around(tenant, (table, role), rows, giving_way, younger);
        return around.map_err(failed);
    }
    let held = view
        .held_by_strangers(tenant, table, role, rows, giving_way)
        .map_err(failed)?;
    let found = match held.is_empty() {
        true => strays(view, place, rows, (rows, before))?,
        false => Vec::new(),
    };
    Ok((held, found))
}

/// Where rows that will be written lead astray, which are `after` and, if they are there, `before`, or some
/// of these. A reference to nothing that a row has already is not a restore's: the store does not ask about
/// what stays. The references in `younger` came after the rows were.
pub(super) fn strays(
    view: &dyn LiveView,
    (tenant, table, younger): (&TenantId, TableIndex, &[Reference]),
    rows: &RowBatch,
    (after, before): (&RowBatch, Option<&RowBatch>),
) -> Result<Vec<StrayReference>, Error> {
    let ask = |rows: &RowBatch| {
        let strays = match rows.is_empty() {
            true => Ok(Vec::new()),
            false => view.stray_references(tenant, table, rows, younger),
        };
        strays.map_err(Error::store("follow the references of rows to be written"))
    };
    let leads_nowhere = |stray: &StrayReference| stray.lead != Lead::ToAnother;
    let mut strays = ask(rows)?;
    if let Some(before) = before
        && strays.iter().any(leads_nowhere)
    {
        let keeping = keeping(view.schema().table(table), before, after);
        strays.retain(|stray| !leads_nowhere(stray));
        let others = ask(&without(rows, &keeping))?;
        strays.extend(others.into_iter().filter(leads_nowhere));
    }
    Ok(strays)
}

/// The keys of those rows that keep all of their references, of rows in the same order.
fn keeping(table: &TableSchema, before: &RowBatch, after: &RowBatch) -> HashSet<Vec<u8>> {
    let columns = || {
        table
            .references
            .iter()
            .flat_map(|reference| &reference.columns)
    };
    let pairs = before.iter().zip(after.iter()).filter(|(before, after)| {
        let before: Vec<Option<&[u8]>> = before.values().collect();
        let after: Vec<Option<&[u8]>> = after.values().collect();
        columns().all(|column| before.get(column.get()) == after.get(column.get()))
    });
    pairs.map(|(_, after)| after.key().to_vec()).collect()
}
