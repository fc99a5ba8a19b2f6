//! What the live store has to say about planned changes, as notes of the plan.

use std::collections::{BTreeMap, BTreeSet};

use reinstate_core::{ChangeCounts, Lead, LiveView, StrayReference, TableIndex};
use reinstate_format::{NoteKind, PlanNote, TenantPlanDescription};

use crate::Error;

/// How many values of a stray reference are named.
const NAMED_VALUES_MAX: usize = 3;

/// What the store does by itself when these plans are carried out.
pub(super) fn side_effects(
    view: &dyn LiveView,
    tenants: &[TenantPlanDescription],
) -> Vec<PlanNote> {
    let mut counts: BTreeMap<TableIndex, ChangeCounts> = BTreeMap::new();
    for table in tenants.iter().flat_map(|part| &part.tables) {
        *counts.entry(table.table).or_default() += table.counts;
    }
    let effects = counts
        .into_iter()
        .filter(|(_, counts)| counts.total() > 0)
        .flat_map(|(table, counts)| view.side_effects(table, counts));
    effects
        .map(|effect| PlanNote {
            kind: if effect.is_allowed {
                NoteKind::EffectAllowed
            } else {
                NoteKind::EffectRefused
            },
            object: effect.object,
            detail: effect.detail,
            count: 0,
        })
        .collect()
}

/// The relations of the store that are no ordinary tables, if these plans change anything.
pub(super) fn other_relations(
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
    found: BTreeMap<(Lead, String), (u64, Vec<String>)>,
}

impl Strays {
    pub(super) fn add(&mut self, stray: StrayReference) {
        let (rows, values) = self.found.entry((stray.lead, stray.reference)).or_default();
        *rows += stray.row_count;
        if values.len() <= NAMED_VALUES_MAX && !values.contains(&stray.value) {
            values.push(stray.value);
        }
    }

    pub(super) fn into_notes(self) -> impl Iterator<Item = PlanNote> {
        self.found
            .into_iter()
            .map(|((lead, reference), (count, mut values))| {
                let more = if values.len() > NAMED_VALUES_MAX {
                    values.truncate(NAMED_VALUES_MAX);
                    ", ..."
                } else {
                    ""
                };
                let values = format!("({}{more})", values.join(", "));
                let (kind, detail) = match lead {
                    Lead::Nowhere => (
                        NoteKind::ParentMissing,
                        format!("leads to rows that are gone {values}: create them first"),
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
