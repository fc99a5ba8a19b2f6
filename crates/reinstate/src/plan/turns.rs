//! Whose turn comes first, of several tenants that are restored by one plan.
//!
//! Rows of one tenant can refer to rows of another that go. Where the one is restored by the same plan, to
//! all that it was, its rows refer to them no more afterwards: it only has to be restored before. Two that
//! wait for each other are an obstacle, since each tenant has a transaction of its own.

use std::collections::BTreeSet;

use reinstate_core::{Hindrance, Policy, Switch, TenantId};
use reinstate_format::{NoteKind, PlanNote, TenantPlanDescription};

/// A tenant whose rows refer to what goes of another.
#[derive(Debug)]
pub(super) struct Wait {
    waiting: TenantId,
    first: TenantId,
    what: Hindrance,
}

impl Wait {
    pub(super) fn new(waiting: &TenantId, first: TenantId, what: Hindrance) -> Self {
        Self {
            waiting: waiting.clone(),
            first,
            what,
        }
    }

    /// Does not say who the other tenant is: reports for the owner of one say nothing of others.
    fn note(&self, is_settled: bool) -> PlanNote {
        let detail = &self.what.detail;
        let (kind, then) = match is_settled {
            true => (
                NoteKind::ComesAfter,
                "That one is restored before, and its rows with it",
            ),
            false => (
                NoteKind::EffectRefused,
                "That one is not restored before to all that it was: restore it alone first, or let its rows \
                 refer to something else, or to nothing",
            ),
        };
        PlanNote {
            kind,
            object: self.what.object.clone(),
            detail: format!("{detail}. {then}"),
            count: self.what.row_count,
        }
    }
}

/// Orders tenants so that each comes after those that it waits for, and else as they are; notes what
/// they wait for, and what no order helps against.
pub(super) fn put_in_order(
    tenants: Vec<TenantPlanDescription>,
    waits: &[Wait],
    policy: Policy,
    is_selective: bool,
) -> Vec<TenantPlanDescription> {
    if waits.is_empty() {
        return tenants;
    }
    let takes_all = policy.put_back == Switch::On && policy.delete == Switch::On && !is_selective;
    let leaves_nothing = |part: &&TenantPlanDescription| {
        let mut tables = part.tables.iter();
        takes_all && tables.all(|table| table.conflicts + table.kept == 0)
    };
    let whole = tenants.iter().filter(leaves_nothing);
    let whole: BTreeSet<TenantId> = whole.map(|part| part.tenant.clone()).collect();
    let mut ordered: Vec<TenantPlanDescription> = Vec::with_capacity(tenants.len());
    let mut placed: BTreeSet<TenantId> = BTreeSet::new();
    let mut rest = tenants;
    while !rest.is_empty() {
        let is_free = |part: &TenantPlanDescription| {
            let mut own = waits.iter().filter(|wait| wait.waiting == part.tenant);
            own.all(|wait| placed.contains(&wait.first) || !whole.contains(&wait.first))
        };
        // If none is free they wait for each other, whoever comes first.
        let next = rest.iter().position(is_free).unwrap_or(0);
        let mut part = rest.remove(next);
        let own = waits.iter().filter(|wait| wait.waiting == part.tenant);
        part.notes.extend(
            own.map(|wait| wait.note(placed.contains(&wait.first) && whole.contains(&wait.first))),
        );
        placed.insert(part.tenant.clone());
        ordered.push(part);
    }
    ordered
}
