//! What the database does by itself when rows change.

use reinstate_core::{ChangeCounts, SideEffect, TableIndex};

use crate::catalog::Catalog;
use crate::tenancy::TenancyMap;

/// The triggers and rules that fire, and the foreign keys of tables that no tenant owns that act on
/// their rows, when this many rows of a table change.
pub(crate) fn side_effects(
    map: &TenancyMap,
    catalog: &Catalog,
    table: TableIndex,
    counts: ChangeCounts,
) -> Vec<SideEffect> {
    let (schema, relation) = catalog.table(table);
    let is_quiet = relation.is_put_back_quietly();
    let triggers = relation.triggers.iter().filter_map(|trigger| {
        let fires = trigger.on_insert && counts.created > 0
            || trigger.on_delete && counts.deleted > 0
            || trigger.on_update && counts.put_back > 0 && !is_quiet;
        let is_silenced = trigger.on_update && counts.put_back > 0 && is_quiet;
        let name = format!("{}.{}", schema.name, trigger.name);
        let is_allowed = !fires || map.allows_trigger(schema.name.as_str(), &trigger.name);
        let detail = match (fires, is_silenced) {
            (false, false) => return None,
            (false, true) => {
                "keeps still while rows are put back, as silenced_triggers says".to_owned()
            }
            (true, _) if is_allowed => "fires, as allowed_triggers lets it".to_owned(),
            (true, _) => format!(
                "would fire: if it changes no rows but the one it fires for, and writes nothing \
                 else into it, add {name:?} to allowed_triggers"
            ),
        };
        Some(SideEffect {
            object: format!("trigger or rule {name}"),
            detail,
            is_allowed,
        })
    });
    let actions = relation.actions.iter().filter(|action| {
        let acts = action.on_delete && counts.deleted > 0
            || action.on_update && action.can_change && counts.put_back > 0;
        acts && !action.child_is_owned
    });
    let actions = actions.map(|action| SideEffect {
        object: format!("foreign key {}", action.constraint),
        detail: format!(
            "would change or delete rows of {}, which no tenant owns, when rows of {} change",
            action.child, schema.name
        ),
        is_allowed: false,
    });
    triggers.chain(actions).collect()
}
