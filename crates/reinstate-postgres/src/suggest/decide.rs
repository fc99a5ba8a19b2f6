//! The decision about every table.
//!
//! First come tables that say themselves whose their rows are. From there ownership spreads along
//! keys that every row has, nearest tables first. Whatever else leads to an owned row, or to one
//! that is undecided, is written down but left open. What nothing leads anywhere is shared.

use reinstate_core::{ColumnIndex, StoreError, TableIndex};

use super::Proposal;
use super::facts::Facts;
use super::tenant::Tenant;
use super::undeclared::{AllKinds, unexplained};
use super::ways::{Way, counted_pair, weak_ways};
use crate::catalog::ForeignKey;
use crate::tenancy::{RouteRule, TableRule, TenancyMap, Unowned};

/// How many tables are named in a reason.
const NAMED_MAX: usize = 3;

/// What is known about a table so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing.
    Free,
    /// Its rows belong to tenants, though it may be open by which of several ways.
    Owned,
    /// Its rows may belong to tenants.
    Undecided,
    /// It is left out.
    Outside,
}

/// The tables and what is known about them.
pub(super) struct State<'a> {
    pub facts: &'a Facts,
    pub tenant: &'a Tenant,
    pub kinds: &'a AllKinds,
    /// What was decided before.
    rules: Vec<Option<TableRule>>,
    standings: Vec<Standing>,
    proposals: Vec<Option<Proposal>>,
}

/// A decision with its reason, before it is known whose.
struct Verdict {
    standing: Standing,
    decisions: Vec<TableRule>,
    reason: String,
    is_unsure: bool,
}

/// Decides about every table, in their order; what `map` has a rule for is decided already.
///
/// # Errors
/// `Usage` if the map has several rules for a table.
pub(super) fn decide(
    facts: &Facts,
    tenant: &Tenant,
    kinds: &AllKinds,
    map: &TenancyMap,
) -> Result<Vec<Proposal>, StoreError> {
    let mut rules = Vec::with_capacity(facts.tables.len());
    for index in facts.indexes() {
        rules.push(map.rule(facts.name(index))?);
    }
    let mut state = State {
        facts,
        tenant,
        kinds,
        rules,
        standings: vec![Standing::Free; facts.tables.len()],
        proposals: vec![None; facts.tables.len()],
    };
    state.advance(State::by_itself);
    loop {
        while state.advance(State::by_firm_keys) {}
        if !state.advance(State::by_counted_pair) {
            break;
        }
    }
    // Pairs name tables of every kind, so they come when as much as possible is known of those.
    loop {
        while state.advance(State::by_weak_ways_but_pairs) {}
        if !state.advance(State::by_weak_ways) {
            break;
        }
    }
    state.advance(|state, index| Some(state.shared(index)));
    let proposals = state.proposals.into_iter().flatten().collect::<Vec<_>>();
    assert_eq!(
        proposals.len(),
        facts.tables.len(),
        "BUG: a table without a proposal"
    );
    Ok(proposals)
}

impl<'a> State<'a> {
    pub(super) fn standing(&self, index: TableIndex) -> Standing {
        self.standings[index.get()]
    }

    /// Whether a key leads to a tenant's own row.
    pub(super) fn is_tenant(&self, parent: TableIndex, columns: &[ColumnIndex]) -> bool {
        self.tenant
            .table
            .is_some_and(|(table, column)| table == parent && columns == [column])
    }

    /// Judges every table of which nothing is known by what was known before this round. Returns
    /// whether anything was found out.
    fn advance(&mut self, judge: impl Fn(&Self, TableIndex) -> Option<Verdict>) -> bool {
        let free = self.facts.indexes();
        let free = free.filter(|&index| self.standing(index) == Standing::Free);
        let found: Vec<_> = free
            .filter_map(|index| Some((index, judge(self, index)?)))
            .collect();
        let is_new = !found.is_empty();
        for (index, verdict) in found {
            self.settle(index, verdict);
        }
        is_new
    }

    fn settle(&mut self, index: TableIndex, verdict: Verdict) {
        let mut decisions = verdict.decisions.into_iter();
        let decision = decisions.next().expect("BUG: a verdict without a decision");
        self.standings[index.get()] = verdict.standing;
        let main = &self.tenant.columns[0];
        self.proposals[index.get()] = Some(Proposal {
            table: self.facts.name(index).to_owned(),
            decision,
            reason: verdict.reason,
            alternatives: decisions.collect(),
            is_unsure: verdict.is_unsure,
            has_tenant_column: self.facts.column(index, main).is_some(),
            rows: self.facts.rows(index),
        });
    }

    /// Tables that need no other to be understood.
    fn by_itself(&self, index: TableIndex) -> Option<Verdict> {
        let facts = self.facts;
        if let Some(rule) = &self.rules[index.get()] {
            let standing = match rule {
                TableRule::Shared | TableRule::Excluded => Standing::Outside,
                TableRule::Direct { .. } | TableRule::Via { .. } | TableRule::OneOf { .. } => {
                    Standing::Owned
                }
            };
            let reason = "decided in the configuration".to_owned();
            return Some(Verdict::sure(standing, rule.clone(), reason));
        }
        if let Some(reason) = facts.is_outside(index) {
            return Some(Verdict::sure(
                Standing::Outside,
                TableRule::Excluded,
                reason,
            ));
        }
        if let Some((table, column)) = self.tenant.table
            && table == index
        {
            let column = facts.column_name(table, column).to_owned();
            let reason = "the tenants themselves".to_owned();
            let decision = TableRule::Direct { column };
            return Some(Verdict::sure(Standing::Owned, decision, reason));
        }
        let column = self.tenant.column_of(facts, index)?;
        Some(self.direct(index, column))
    }

    fn direct(&self, index: TableIndex, column: ColumnIndex) -> Verdict {
        let facts = self.facts;
        let name = facts.column_name(index, column);
        let catalog = facts.column_catalog(index, column);
        let own = &catalog.type_sql;
        let mut doubts = Vec::new();
        if catalog.tenant_type.is_none() {
            doubts.push(format!(
                "{name} is of type {own}, which cannot name tenants"
            ));
        } else if !catalog.is_deterministic {
            doubts.push(format!(
                "two tenants can be equal under the collation of {name}"
            ));
        } else if let Some(key) = self.tenant.table
            && !facts.are_comparable((index, column), key)
        {
            let key = &facts.column_catalog(key.0, key.1).type_sql;
            doubts.push(format!(
                "{name} is of type {own}, but tenants are of type {key}"
            ));
        }
        let mut keys = facts.keys_of(index);
        let key = keys.find(|key| key.reference.columns == [column]);
        if let Some(key) = key
            && !self.holds_tenant(key)
        {
            let parent = facts.name(key.reference.parent);
            doubts.push(format!(
                "{name} refers to {parent}, which are not the tenants"
            ));
        }
        let decision = TableRule::Direct {
            column: name.to_owned(),
        };
        if !doubts.is_empty() {
            return Verdict {
                standing: Standing::Undecided,
                decisions: vec![decision, TableRule::Shared],
                reason: doubts.join("; "),
                is_unsure: true,
            };
        }
        let null = if facts.is_nullable(index, column) {
            format!("{name} may be NULL, and such a row is everybody's")
        } else {
            format!("{name} is never NULL")
        };
        let reason = match key {
            Some(_) => null,
            None => format!("{null}; no foreign key keeps it to the tenants that exist"),
        };
        Verdict::sure(Standing::Owned, decision, reason)
    }

    /// Whether a key's parent column holds the tenant's id: that of the tenants, or a tenant
    /// column.
    fn holds_tenant(&self, key: &ForeignKey) -> bool {
        let (parent, columns) = (key.reference.parent, &key.reference.parent_columns);
        let own = self.tenant.column_of(self.facts, parent);
        self.tenant.table.is_none()
            || self.is_tenant(parent, columns)
            || own.is_some_and(|own| columns.as_slice() == [own])
    }

    /// Tables whose every row has a key to an owned one.
    fn by_firm_keys(&self, index: TableIndex) -> Option<Verdict> {
        let keys = self.facts.keys_of(index).filter(|key| {
            self.facts.is_firm(key) && self.standing(key.reference.parent) == Standing::Owned
        });
        let ways: Vec<Way> = keys.map(|key| Way::firm(self, key)).collect();
        match ways.as_slice() {
            [] => None,
            [way] if way.can_be_written => Some(Verdict::sure(
                Standing::Owned,
                way.decision.clone(),
                way.reason.clone(),
            )),
            _ => {
                let reasons = ways.iter().map(|way| way.reason.as_str());
                let reasons: Vec<&str> = reasons.collect();
                Some(Verdict {
                    standing: Standing::Owned,
                    reason: match reasons.as_slice() {
                        [only] => (*only).to_owned(),
                        _ => format!("ways of the same length: {}", reasons.join("; ")),
                    },
                    decisions: ways.into_iter().map(|way| way.decision).collect(),
                    is_unsure: true,
                })
            }
        }
    }

    /// Tables whose every row names its owner's row by kind and id.
    fn by_counted_pair(&self, index: TableIndex) -> Option<Verdict> {
        let (routes, reason) = counted_pair(self, index)?;
        let unowned = Unowned::Refused;
        Some(Verdict::sure(
            Standing::Owned,
            TableRule::OneOf { routes, unowned },
            reason,
        ))
    }

    fn by_weak_ways_but_pairs(&self, index: TableIndex) -> Option<Verdict> {
        let mut pairs = self.kinds.keys();
        if pairs.any(|pair| pair.table == index) {
            return None;
        }
        self.by_weak_ways(index)
    }

    /// Tables with a way that not every row has, or that nothing guards.
    fn by_weak_ways(&self, index: TableIndex) -> Option<Verdict> {
        let ways = weak_ways(self, index);
        if ways.is_empty() {
            return None;
        }
        let mut decisions = Vec::new();
        let routes: Vec<RouteRule> = ways.iter().flat_map(|way| way.routes.clone()).collect();
        if routes.len() > 1 {
            let unowned = Unowned::Refused;
            decisions.push(TableRule::OneOf { routes, unowned });
        }
        for way in &ways {
            let is_new = !decisions.contains(&way.decision);
            if is_new && way.decision != TableRule::Shared {
                decisions.push(way.decision.clone());
            }
        }
        decisions.push(TableRule::Shared);
        let reasons: Vec<&str> = ways.iter().map(|way| way.reason.as_str()).collect();
        Some(Verdict {
            standing: Standing::Undecided,
            decisions,
            reason: reasons.join("; "),
            is_unsure: true,
        })
    }

    fn shared(&self, index: TableIndex) -> Verdict {
        let facts = self.facts;
        let keys = facts.keys.iter();
        let mut children: Vec<&str> = keys
            .filter(|key| key.reference.parent == index)
            .filter(|key| matches!(self.standing(key.child), Standing::Owned))
            .map(|key| facts.name(key.child))
            .collect();
        children.dedup();
        let reason = match children.as_slice() {
            [] => "no way to a tenant, and no tenant's row refers to it".to_owned(),
            [only] => format!("no way to a tenant; {only} refers to it"),
            several => {
                let named = several[..several.len().min(NAMED_MAX)].join(", ");
                match several.len().saturating_sub(NAMED_MAX) {
                    0 => format!("no way to a tenant; {named} refer to it"),
                    more => format!("no way to a tenant; {named} and {more} more refer to it"),
                }
            }
        };
        let unexplained = unexplained(facts, index);
        if unexplained.is_empty() {
            return Verdict::sure(Standing::Outside, TableRule::Shared, reason);
        }
        let names = unexplained.join(" and ");
        Verdict {
            standing: Standing::Undecided,
            decisions: vec![TableRule::Shared, TableRule::Excluded],
            reason: format!(
                "{reason}; but {names} may name rows of other tables: if those are tenants' rows, \
                 write via or one_of for it"
            ),
            is_unsure: true,
        }
    }
}

impl Verdict {
    fn sure(standing: Standing, decision: TableRule, reason: String) -> Self {
        Self {
            standing,
            decisions: vec![decision],
            reason,
            is_unsure: false,
        }
    }
}
