//! What the live store has to say about planned changes, as notes of the plan.

use std::collections::{BTreeMap, BTreeSet};

use reinstate_core::{
    ChangeCounts, Lead, LiveView, OwnHold, RowBatch, SideEffect, StrayReference, TableIndex,
};
use reinstate_format::{NoteKind, PlanNote, TenantPlanDescription};

use crate::{Context, Error};

/// How many values of a stray reference are named.
const NAMED_VALUES_MAX: usize = 3;

/// What the store does by itself when these plans are carried out, and what it does not let them do.
/// What stands in the way of a tenant is noted with it, as it would be alone: it is none of the
/// others' business.
///
/// *Cost*: asks once for all tenants, and only if something stands in the way once for each.
pub(super) fn of_store(
    view: &dyn LiveView,
    tenants: &mut [TenantPlanDescription],
) -> Result<Vec<PlanNote>, Error> {
    let found = |tenants: &[TenantPlanDescription]| -> Result<Vec<PlanNote>, Error> {
        let mut notes = side_effects(view, tenants)?;
        notes.extend(other_relations(view, tenants)?);
        Ok(notes)
    };
    let mut notes = found(tenants)?;
    let is_obstacle = |note: &PlanNote| note.kind.is_obstacle();
    if !notes.iter().any(is_obstacle) {
        return Ok(notes);
    }
    for tenant in tenants {
        let own = found(std::slice::from_ref(tenant))?;
        tenant.notes.extend(own.into_iter().filter(is_obstacle));
    }
    notes.retain(|note| !is_obstacle(note));
    Ok(notes)
}

fn side_effects(
    view: &dyn LiveView,
    tenants: &[TenantPlanDescription],
) -> Result<Vec<PlanNote>, Error> {
    let mut counts: BTreeMap<TableIndex, ChangeCounts> = BTreeMap::new();
    for table in tenants.iter().flat_map(|part| &part.tables) {
        *counts.entry(table.table).or_default() += table.counts;
    }
    counts.retain(|_, counts| counts.total() > 0);
    if counts.is_empty() {
        return Ok(Vec::new());
    }
    let changed = |part: &&TenantPlanDescription| {
        let mut tables = part.tables.iter();
        tables.any(|table| table.counts.total() > 0)
    };
    let ids: Vec<_> = tenants
        .iter()
        .filter(changed)
        .map(|part| &part.tenant)
        .collect();
    let order = view.schema().write_order().into_iter();
    let changes: Vec<_> = order
        .filter_map(|table| Some((table, *counts.get(&table)?)))
        .collect();
    let others = view.other_effects(&ids, &changes).map_err(Error::store(
        "look for what stands in the way of the changes",
    ))?;
    let effects = counts
        .into_iter()
        .flat_map(|(table, counts)| view.side_effects(table, counts));
    Ok(effects.chain(others).map(effect_note).collect())
}

/// What to say of something that the store does by itself.
pub(super) fn effect_note(effect: SideEffect) -> PlanNote {
    PlanNote {
        kind: if effect.is_allowed {
            NoteKind::EffectAllowed
        } else {
            NoteKind::EffectRefused
        },
        object: effect.object,
        detail: effect.detail,
        count: 0,
    }
}

/// The part of the memory that keys of rows to be put back may take, those of one table.
const FIXED_MEMORY_PART: usize = 16;
/// What a key takes beside its bytes, about.
const ENTRY_BYTES: usize = 64;

/// Unique values that are on their way from one row to another and cannot get there. With more rows
/// than there is memory for, nothing is foreseen: the merge refuses then, before it writes.
#[derive(Debug)]
pub(super) struct FixedValues {
    /// The constraints that do not let them, with the reason.
    constraints: BTreeMap<String, String>,
    /// Keys of rows that have what another one gets, by constraint.
    holders: BTreeMap<String, BTreeSet<Vec<u8>>>,
    /// Keys of the rows that are put back.
    put_back: BTreeSet<Vec<u8>>,
    bytes: usize,
    bytes_max: usize,
}

impl FixedValues {
    pub(super) fn of(context: Context<'_>, view: &dyn LiveView, table: TableIndex) -> Self {
        Self {
            constraints: view.fixed_values(table).into_iter().collect(),
            holders: BTreeMap::new(),
            put_back: BTreeSet::new(),
            bytes: 0,
            bytes_max: context.resources.memory_bytes_max() / FIXED_MEMORY_PART,
        }
    }

    /// Whether every value can move, or no more is looked for.
    pub(super) fn is_empty(&self) -> bool {
        self.constraints.is_empty()
    }

    /// Notes rows that are put back, and who has their values now.
    pub(super) fn add(&mut self, rows: &RowBatch, held: Vec<OwnHold>) {
        for row in rows.iter() {
            self.bytes += row.key().len() + ENTRY_BYTES;
            self.put_back.insert(row.key().to_vec());
        }
        for hold in held {
            if self.constraints.contains_key(&hold.constraint) {
                self.bytes += hold.holder.len() + ENTRY_BYTES;
                let holders = self.holders.entry(hold.constraint).or_default();
                holders.insert(hold.holder);
            }
        }
        if self.bytes > self.bytes_max {
            self.constraints.clear();
            self.holders.clear();
            self.put_back.clear();
        }
    }

    pub(super) fn into_notes(self) -> impl Iterator<Item = PlanNote> {
        let Self {
            constraints,
            holders,
            put_back,
            ..
        } = self;
        constraints.into_iter().filter_map(move |(name, reason)| {
            let holders = holders.get(&name)?;
            let moving = holders.iter().filter(|key| put_back.contains(*key));
            let count = moving.count() as u64;
            (count > 0).then(|| PlanNote {
                kind: NoteKind::EffectRefused,
                object: format!("unique index {name}"),
                detail: format!("has values that move among rows to be put back: {reason}"),
                count,
            })
        })
    }
}

/// The relations of the store that are no ordinary tables, if these plans change anything.
fn other_relations(
    view: &dyn LiveView,
    tenants: &[TenantPlanDescription],
) -> Result<Vec<PlanNote>, Error> {
    let plans = tenants.iter().flat_map(|part| &part.tables);
    let changed = plans.filter(|plan| plan.counts.total() > 0);
    let changed: BTreeSet<TableIndex> = changed.map(|plan| plan.table).collect();
    if changed.is_empty() {
        return Ok(Vec::new());
    }
    let changed: Vec<TableIndex> = changed.into_iter().collect();
    let others = view
        .other_relations(&changed)
        .map_err(Error::store("look for relations that are no tables"))?;
    let notes = others.into_iter().map(|other| PlanNote {
        kind: if other.is_obstacle {
            NoteKind::EffectRefused
        } else {
            NoteKind::OtherRelations
        },
        object: other.relations,
        detail: other.treatment,
        count: 0,
    });
    Ok(notes.collect())
}

/// The stray references of one table's rows, gathered by where they lead.
#[derive(Debug, Default)]
pub(super) struct Strays {
    /// By where they lead, the reference, and why the row there cannot be created.
    found: BTreeMap<(Lead, String, String), (u64, Vec<String>)>,
}

impl Strays {
    pub(super) fn add(&mut self, stray: StrayReference) {
        self.add_refused(stray, String::new());
    }

    /// Adds one to a row that is gone and that the plan would create, but for a reason.
    pub(super) fn add_refused(&mut self, stray: StrayReference, reason: String) {
        let place = (stray.lead, stray.reference, reason);
        let (rows, values) = self.found.entry(place).or_default();
        *rows += stray.row_count;
        let value = stray.values.join(",");
        if values.len() <= NAMED_VALUES_MAX && !values.contains(&value) {
            values.push(value);
        }
    }

    pub(super) fn into_notes(self) -> impl Iterator<Item = PlanNote> {
        self.found
            .into_iter()
            .map(|((lead, reference, reason), (count, mut values))| {
                let more = if values.len() > NAMED_VALUES_MAX {
                    values.truncate(NAMED_VALUES_MAX);
                    ", ..."
                } else {
                    ""
                };
                let values = format!("({}{more})", values.join(", "));
                let (kind, detail) = match lead {
                    Lead::Nowhere | Lead::Unfound => (
                        NoteKind::ParentMissing,
                        match reason.as_str() {
                            "" => {
                                format!("leads to rows that are gone {values}: create them first")
                            }
                            _ => format!("leads to rows that are gone {values}, and {reason}"),
                        },
                    ),
                    Lead::ToAnother => (
                        NoteKind::ParentForeign,
                        format!("leads to rows of other tenants {values}"),
                    ),
                };
                PlanNote {
                    kind,
                    object: reference,
                    detail,
                    count,
                }
            })
    }
}
