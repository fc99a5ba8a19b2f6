//! What the live store has to say about planned changes, as notes of the plan.

use std::collections::BTreeMap;

use reinstate_core::{ChangeCounts, Lead, LiveView, StrayReference, TableIndex};
use reinstate_format::{NoteKind, PlanNote, TenantPlanDescription};

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
