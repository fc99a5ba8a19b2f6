//! What operators are told: what they have to decide, and what they should look at.

use std::collections::BTreeMap;

use reinstate_core::{ColumnIndex, LiveView, TableIndex, UniqueKey, ValueKind};
use reinstate_format::{NoteKind, PlanNote};

use super::Source;
use super::classes::{Classes, Place, TENANT};
use super::decide::{Decisions, kind};

/// What has to be decided, as the lines to write.
pub(super) fn undecided(
    view: &dyn LiveView,
    classes: &Classes,
    open: &[(TableIndex, UniqueKey)],
) -> String {
    let mut tables: BTreeMap<TableIndex, Vec<&UniqueKey>> = BTreeMap::new();
    for (table, key) in open {
        tables.entry(*table).or_default().push(key);
    }
    let mut lines = String::new();
    for (table, keys) in tables {
        let described = view.schema().table(table);
        let mut choices = BTreeMap::new();
        for column in keys.iter().flat_map(|key| &key.columns) {
            let name = described.columns[column.get()].name.as_str();
            choices.insert(name, words(view, classes, (table, *column)).join(" or "));
        }
        choices.retain(|_, words| !words.is_empty());
        let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
        let columns: Vec<String> = choices
            .iter()
            .map(|(name, words)| format!("{name} = {words}"))
            .collect();
        lines.push_str(&format!(
            "[into.table.{:?}]   # {}\ncolumns = {{ {} }}\n",
            described.name.as_str(),
            names.join(", "),
            columns.join(", ")
        ));
    }
    lines
}

/// What can be said of a column.
fn words(view: &dyn LiveView, classes: &Classes, place: Place) -> Vec<String> {
    let mut words = Vec::new();
    let is_reference = classes.refers(place);
    if !is_reference {
        let class = classes.of(place);
        words.extend(match class.map(|class| kind(view, classes, class)) {
            Some(ValueKind::Text { .. }) => &["prefix", "suffix", "new"][..],
            Some(ValueKind::Integer { .. } | ValueKind::Uuid | ValueKind::Bytes) => &["new"],
            _ => &[],
        });
    }
    let column = &view.schema().table(place.0).columns[place.1.get()];
    if column.nullable && !classes.is_referred(place) {
        words.push("null");
    }
    if !is_reference {
        words.push("keep");
    }
    words.iter().map(|word| format!("{word:?}")).collect()
}

/// Columns that could refer to the original's rows, and of which nothing says so.
pub(super) fn notes(
    source: &Source<'_>,
    classes: &Classes,
    decisions: &Decisions,
) -> Vec<PlanNote> {
    let mut notes = Vec::new();
    for (table, described) in source.view.schema().iter() {
        if source.left_out.contains(&table) {
            notes.push(PlanNote {
                kind: NoteKind::LeftOut,
                object: described.name.to_string(),
                detail: "is left out: the copy has no rows in it".to_owned(),
                count: 0,
            });
        }
        if !source.has_rows(table) {
            continue;
        }
        let mut names = Vec::new();
        for (column, place) in described.columns.iter().zip(0..) {
            let place = (table, ColumnIndex(place));
            let class = classes.of(place).filter(|class| *class != TENANT);
            let Some(class) = class else { continue };
            let is_known = decisions.of(class).is_some()
                || decisions.is_kept(class)
                || decisions.is_null(place)
                || classes.is_pinned(class)
                || classes.follows.iter().any(|follow| follow.child == place);
            let endings = ["_id", "_ids", "_uuid", "_uuids"];
            let kind = source.view.value_kind(table, place.1);
            let may_refer = matches!(kind, ValueKind::Json | ValueKind::Uuid)
                || endings.iter().any(|ending| column.name.ends_with(ending));
            if !is_known && may_refer {
                names.push(column.name.as_str());
            }
        }
        if !names.is_empty() {
            notes.push(PlanNote {
                kind: NoteKind::ReferenceKept,
                object: described.name.to_string(),
                detail: format!(
                    "{}: whatever they refer to stays what it is in the original; what they do refer \
                     to can be said under [into.table.{:?}]",
                    names.join(", "),
                    described.name.as_str()
                ),
                count: 0,
            });
        }
    }
    notes
}
