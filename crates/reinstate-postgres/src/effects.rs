//! What the database does by itself when rows change.

use reinstate_core::{ChangeCounts, SideEffect, TableIndex};

use crate::catalog::{Catalog, ReferentialAction, Trigger};
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
        let name = format!("{}.{}", schema.name, trigger.name);
        let (detail, is_allowed) = match firing(trigger, counts, is_quiet) {
            Firing::Never => return None,
            Firing::Silenced => {
                let detail = "keeps still while rows are put back, as silenced_triggers says";
                (detail.to_owned(), true)
            }
            Firing::Fires if map.allows_trigger(schema.name.as_str(), &trigger.name) => {
                ("fires, as allowed_triggers lets it".to_owned(), true)
            }
            Firing::Fires => {
                let detail = format!(
                    "would fire: if it changes no rows but the one it fires for, and writes nothing \
                     else into it, add {name:?} to allowed_triggers"
                );
                (detail, false)
            }
        };
        Some(SideEffect {
            object: format!("trigger or rule {name}"),
            detail,
            is_allowed,
        })
    });
    let actions = relation.actions.iter();
    let actions = actions.filter(|action| reaches_nobodys(action, counts));
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

/// What a trigger does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Firing {
    Never,
    /// It would fire while rows are put back, and is kept from it.
    Silenced,
    Fires,
}

/// What a trigger does when so many rows of its table change, which are put back quietly or not.
fn firing(trigger: &Trigger, counts: ChangeCounts, is_quiet: bool) -> Firing {
    let sees_put_back = trigger.on_update && counts.put_back > 0;
    let fires = trigger.on_insert && counts.created > 0
        || trigger.on_delete && counts.deleted > 0
        || sees_put_back && !is_quiet;
    match (fires, sees_put_back) {
        (true, _) => Firing::Fires,
        (false, true) => Firing::Silenced,
        (false, false) => Firing::Never,
    }
}

/// Whether a foreign key changes rows that no tenant owns when so many rows of the parent change.
fn reaches_nobodys(action: &ReferentialAction, counts: ChangeCounts) -> bool {
    let acts = action.on_delete && counts.deleted > 0
        || action.on_update && action.can_change && counts.put_back > 0;
    acts && !action.child_is_owned
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every choice of yes and no for so many questions.
    fn choices<const QUESTIONS: usize>() -> impl Iterator<Item = [bool; QUESTIONS]> {
        (0..1u32 << QUESTIONS)
            .map(|number| std::array::from_fn(|question| number >> question & 1 == 1))
    }

    fn counts(created: bool, put_back: bool, deleted: bool) -> ChangeCounts {
        let count = |is_some| if is_some { 3 } else { 0 };
        ChangeCounts {
            created: count(created),
            put_back: count(put_back),
            deleted: count(deleted),
        }
    }

    #[test]
    fn a_trigger_fires_for_the_changes_that_it_looks_at_and_no_others() {
        for [
            on_insert,
            on_update,
            on_delete,
            created,
            put_back,
            deleted,
            is_quiet,
        ] in choices()
        {
            let trigger = Trigger {
                name: "numbering".to_owned(),
                is_silenced: is_quiet,
                is_allowed: false,
                on_insert,
                on_update,
                on_delete,
            };
            let seen = [
                (on_insert, created, Firing::Fires),
                (on_delete, deleted, Firing::Fires),
                (
                    on_update,
                    put_back,
                    if is_quiet {
                        Firing::Silenced
                    } else {
                        Firing::Fires
                    },
                ),
            ];
            let mut seen = seen.iter().filter(|(looks, happens, _)| *looks && *happens);
            // Where it fires for one kind of change, it does not matter that it keeps still for another.
            let expected = seen.next().map_or(Firing::Never, |(_, _, firing)| *firing);
            let found = firing(&trigger, counts(created, put_back, deleted), is_quiet);
            assert_eq!(
                found, expected,
                "{trigger:?} {created} {put_back} {deleted}"
            );
        }
    }

    #[test]
    fn a_foreign_key_of_nobodys_table_acts_where_its_parent_is_deleted_or_changes() {
        for [
            child_is_owned,
            on_delete,
            on_update,
            can_change,
            put_back,
            deleted,
        ] in choices()
        {
            let action = ReferentialAction {
                constraint: "labels_document_id_fkey".to_owned(),
                child: "labels".to_owned(),
                child_is_owned,
                on_delete,
                on_update,
                can_change,
            };
            let by_delete = on_delete && deleted;
            let by_update = [on_update, can_change, put_back].iter().all(|is_so| *is_so);
            let expected = match child_is_owned {
                true => false,
                false => by_delete || by_update,
            };
            let found = reaches_nobodys(&action, counts(true, put_back, deleted));
            assert_eq!(found, expected, "{action:?} {put_back} {deleted}");
        }
    }
}
