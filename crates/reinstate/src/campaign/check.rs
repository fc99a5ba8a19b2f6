//! The engine's own gates: references within and across stores, and counters.
//!
//! Counts and digests need no gate: a tenant that was not read back as the plan expects it does not
//! get as far as here.
//!
//! *Cost*: the tables that refer to each other are read once more for each reference, and 16 bytes a row are
//! sorted, on disk if need be.

use std::collections::BTreeMap;

use reinstate_core::{
    ColumnIndex, ErrorKind, Lead, LiveView, Reference, RowBatch, TableIndex, Tenancy, TenantId,
};
use reinstate_format::{CampaignLink, CampaignTenant};

use super::astray::{Values, first_astray};
use super::run::CampaignRun;
use crate::Error;
use crate::job::receipt_of;
use crate::plan::StoredPlan;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// All is well; what was looked at.
    Passed(String),
    /// It is not; why.
    Failed(String),
}

/// Whether everything that the tenant's rows refer to is there: within the stores of a phase, and
/// across stores for links that this phase completes.
pub(super) fn check_references(
    run: &CampaignRun<'_>,
    tenant: &CampaignTenant,
    phase: u8,
) -> Result<Checked, Error> {
    let description = run.campaign.description();
    let mut looked_at = 0;
    for (place, store) in description.stores.iter().enumerate() {
        let Some(part) = tenant.parts[place]
            .as_ref()
            .filter(|_| store.phase == phase)
        else {
            continue;
        };
        let view = open(run, place)?;
        match within(run, view.as_ref(), &part.tenant)? {
            Ok(count) => looked_at += count,
            Err(fact) => return Ok(Checked::Failed(format!("store {}: {fact}", store.name))),
        }
    }
    let mut links = 0;
    for link in &description.links {
        let of = |store: u32| description.stores[store as usize].phase;
        if of(link.store).max(of(link.parent_store)) != phase {
            continue;
        }
        if let Err(fact) = across(run, tenant, link)? {
            return Ok(Checked::Failed(fact));
        }
        links += 1;
    }
    Ok(Checked::Passed(format!(
        "{looked_at} references within stores, {links} across"
    )))
}

fn open<'r>(run: &CampaignRun<'r>, place: usize) -> Result<Box<dyn LiveView + 'r>, Error> {
    let view = run.estate[place].live.read_view();
    view.map_err(Error::store("read the live store"))
}

/// How many references between tables of the tenant's own all lead somewhere; or which does not.
fn within(
    run: &CampaignRun<'_>,
    view: &dyn LiveView,
    tenant: &TenantId,
) -> Result<Result<u64, String>, Error> {
    let schema = view.schema();
    let is_owned = |table: TableIndex| {
        !matches!(
            schema.table(table).tenancy,
            Tenancy::Shared | Tenancy::Excluded
        )
    };
    let mut by_parent: BTreeMap<_, Vec<(TableIndex, &Reference)>> = BTreeMap::new();
    for (index, table) in schema.iter().filter(|(index, _)| is_owned(*index)) {
        for reference in table.references.iter().filter(|of| is_owned(of.parent)) {
            let parent = (reference.parent, reference.parent_columns.as_slice());
            by_parent
                .entry(parent)
                .or_default()
                .push((index, reference));
        }
    }
    let mut looked_at = 0;
    for ((parent, columns), children) in by_parent {
        let of = |table, columns| Values {
            view,
            tenant,
            table,
            columns,
        };
        let referring: Vec<Values<'_>> = children
            .iter()
            .map(|(child, reference)| of(*child, reference.columns.as_slice()))
            .collect();
        let is_elsewhere = |place: usize, rows: &RowBatch| {
            let elsewhere = lead_to_others(view, tenant, children[place], rows)?;
            Ok(elsewhere >= rows.len() as u64)
        };
        let astray = first_astray(run, Some(of(parent, columns)), &referring, is_elsewhere)?;
        if let Some(place) = astray {
            let (child, _) = children[place];
            let (child, parent) = (&schema.table(child).name, &schema.table(parent).name);
            return Ok(Err(format!(
                "rows of table {child} refer to rows of table {parent} that are not there"
            )));
        }
        looked_at += children.len() as u64;
    }
    Ok(Ok(looked_at))
}

/// How many of these rows refer to rows that another tenant has: those are there.
fn lead_to_others(
    view: &dyn LiveView,
    tenant: &TenantId,
    (child, reference): (TableIndex, &Reference),
    astray: &RowBatch,
) -> Result<u64, Error> {
    let strays = view
        .stray_references(tenant, child, astray, &[])
        .map_err(Error::store("look where references lead"))?;
    let found = strays.iter().filter(|stray| {
        stray.lead == Lead::ToAnother
            && stray.parent == reference.parent
            && stray.parent_columns == reference.parent_columns
    });
    Ok(found.map(|stray| stray.row_count).sum())
}

/// Whether a column of one store refers to rows of another.
fn across(
    run: &CampaignRun<'_>,
    tenant: &CampaignTenant,
    link: &CampaignLink,
) -> Result<Result<(), String>, Error> {
    let (store, parent_store) = (link.store as usize, link.parent_store as usize);
    let Some(part) = &tenant.parts[store] else {
        // Nothing is there that could refer to anything.
        return Ok(Ok(()));
    };
    let view = open(run, store)?;
    let (table, column) = find(view.as_ref(), &link.table, &link.column)?;
    let referring = [Values {
        view: view.as_ref(),
        tenant: &part.tenant,
        table,
        columns: &[column],
    }];
    let parent = tenant.parts[parent_store].as_ref();
    let is_astray = match parent {
        None => first_astray(run, None, &referring, |_, _| Ok(false))?.is_some(),
        Some(parent) => {
            let view = open(run, parent_store)?;
            let (table, column) = find(view.as_ref(), &link.parent_table, &link.parent_column)?;
            let known = Values {
                view: view.as_ref(),
                tenant: &parent.tenant,
                table,
                columns: &[column],
            };
            first_astray(run, Some(known), &referring, |_, _| Ok(false))?.is_some()
        }
    };
    if !is_astray {
        return Ok(Ok(()));
    }
    let stores = &run.campaign.description().stores;
    let missing = match parent {
        None => "the site is not in that store",
        Some(_) => "that are not there",
    };
    Ok(Err(format!(
        "{}.{} of store {} refers to rows of {} in store {}{} {missing}",
        link.table,
        link.column,
        stores[store].name,
        link.parent_table,
        stores[parent_store].name,
        if parent.is_none() { ", but" } else { "" },
    )))
}

fn find(
    view: &dyn LiveView,
    table: &str,
    column: &str,
) -> Result<(TableIndex, ColumnIndex), Error> {
    let found = view.schema().find(table);
    let found = found.and_then(|(index, schema)| Some((index, schema.column(column)?)));
    found.ok_or_else(|| {
        let message = format!("a link names {table}.{column}, which there is not");
        Error::new(ErrorKind::Usage, message)
    })
}

/// Whether the counters that the merges of a phase raised still stand where they were raised to: a
/// counter that went back hands out restored values again.
pub(super) fn check_counters(
    run: &CampaignRun<'_>,
    tenant: &CampaignTenant,
    plans: &[Option<StoredPlan>],
    phase: u8,
) -> Result<Checked, Error> {
    let mut looked_at = 0;
    for (place, store) in run.campaign.description().stores.iter().enumerate() {
        let (Some(part), Some(plan)) = (&tenant.parts[place], &plans[place]) else {
            continue;
        };
        if store.phase != phase {
            continue;
        }
        let open = &run.estate[place];
        let job = plan.plan().description().job;
        let receipt = receipt_of(open.repository, job, &part.tenant)?;
        let raised = receipt.map(|receipt| receipt.sequences_raised);
        let raised = raised.unwrap_or_default();
        if raised.is_empty() {
            continue;
        }
        let view = open.live.begin_capture();
        let view = view.map_err(Error::store("read the store's counters"))?;
        for counter in raised {
            let found = view
                .sequences()
                .iter()
                .find(|found| found.name == counter.name);
            match found {
                Some(found) if found.last_value >= counter.to => looked_at += 1,
                found => {
                    let at = found.map_or_else(
                        || "gone".to_owned(),
                        |found| format!("at {}", found.last_value),
                    );
                    return Ok(Checked::Failed(format!(
                        "store {}: counter {} was raised to {} and is {at}",
                        store.name, counter.name, counter.to
                    )));
                }
            }
        }
    }
    Ok(Checked::Passed(format!("{looked_at} raised counters")))
}
