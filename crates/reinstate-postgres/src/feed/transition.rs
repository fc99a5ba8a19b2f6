//! What became of tables that were altered, or why nobody can say.
//!
//! A column that was added holds in the rows that were there what the server keeps as its missing
//! value. What was dropped is gone. Everything that writes rows anew, or lets rows come and go without
//! a word, cannot be followed: then the feed ends. A table of which no row is in the log yet is an
//! exception: whatever became of it, it can count as gone, and as one that came.

use std::collections::BTreeSet;

use reinstate_core::{
    ColumnIndex, ColumnOrigin, SchemaChange, StoreSchema, TableOrigin, TableSchema,
};

use super::layout::{ColumnLayout, Layout, RelationLayout, TableLayout, streamed};

/// Types whose values are written the same, and that become each other where they lie.
const TEXTS: [u32; 2] = [25, 1043];

/// How the tables followed from those before. `facts` is kept with it. Of the tables in `awaited` no row
/// was handed over yet.
///
/// # Errors
/// What stands in the way, in words.
pub(super) fn transition(
    (before, was): (&StoreSchema, &Layout),
    (schema, is): (&StoreSchema, &Layout),
    awaited: &BTreeSet<u32>,
    facts: Vec<u8>,
) -> Result<SchemaChange, String> {
    if was.publication != is.publication {
        return Err("the publication was altered".to_owned());
    }
    let is_renamed =
        |(oid, label): (&u32, &String)| is.labels.get(oid).is_some_and(|other| other != label);
    if was.labels.iter().any(is_renamed) {
        return Err("a label of an enumeration was renamed, and rows with it".to_owned());
    }
    let mut origins: Vec<Option<TableOrigin>> = vec![None; schema.tables().len()];
    let mut without_awaited = origins.clone();
    for (oid, table) in &is.tables {
        let Some(known) = was.tables.get(oid) else {
            if table.since > 0 {
                // Its rows come in the place of the transaction that published it.
                continue;
            }
            return Err(format!(
                "table {} is new: what was written to it before it is followed is in no log",
                table.name
            ));
        };
        let found = (before.find(&known.name), schema.find(&table.name));
        let (Some((source, described)), Some((index, target))) = found else {
            return Err(format!("table {} is not in the catalogue", table.name));
        };
        let columns = check_table(known, table)
            .and_then(|()| origins_of((known, described), (table, target)));
        let origin = |columns| TableOrigin {
            table: source,
            columns,
        };
        if awaited.contains(oid) {
            origins[index.get()] = columns.ok().map(origin);
            continue;
        }
        let origin = Some(origin(columns?));
        origins[index.get()].clone_from(&origin);
        without_awaited[index.get()] = origin;
    }
    let change = |origins, facts| SchemaChange::try_new(before, schema.clone(), origins, facts);
    if origins != without_awaited
        && let Ok(change) = change(origins, facts.clone())
    {
        return Ok(change);
    }
    change(without_awaited, facts).map_err(|error| error.to_string())
}

/// Where the columns of a table come from that was read at one time, and is another by now.
///
/// # Errors
/// What stands in the way, in words.
pub(super) fn reshaped(
    (was, before): (&TableLayout, &TableSchema),
    (is, after): (&TableLayout, &TableSchema),
) -> Result<Vec<ColumnOrigin>, String> {
    check_table(was, is)?;
    let columns = origins_of((was, before), (is, after))?;
    let mut keys = before.key.iter().zip(&after.key);
    let is_same = keys.all(|(then, now)| {
        let form = |table: &TableSchema, column: ColumnIndex| table.columns[column.get()].key_form;
        columns[now.get()] == ColumnOrigin::From(*then) && form(before, *then) == form(after, *now)
    });
    if before.key.len() == after.key.len() && is_same {
        return Ok(columns);
    }
    Err(format!("the primary key of table {} is another", is.name))
}

/// Refuses what changes rows without a word.
fn check_table(was: &TableLayout, is: &TableLayout) -> Result<(), String> {
    let name = &is.name;
    if was.published != is.published {
        return Err(format!(
            "table {name} was taken out of the publication, or put into it"
        ));
    }
    let mut known = was.relations.keys();
    if known.any(|oid| !is.relations.contains_key(oid)) {
        return Err(format!(
            "partitions of table {name} were detached or dropped, and the log does not say which rows went \
             with them"
        ));
    }
    for (oid, relation) in &is.relations {
        let Some(known) = was.relations.get(oid) else {
            check_partition(was, relation, name)?;
            continue;
        };
        if known.attached != relation.attached && !known.attached.is_empty() {
            return Err(format!(
                "partition {} of table {name} was detached and attached again: what was written to it \
                 meanwhile is in no log",
                relation.birth.name
            ));
        }
        if known.kind != relation.kind {
            return Err(format!(
                "table {name} no longer logs what it did (ALTER TABLE {name} REPLICA IDENTITY FULL)"
            ));
        }
        if known.storage != relation.storage && !same_columns(known, relation) {
            return Err(format!(
                "table {name} was altered, and its rows were written anew meanwhile: what they hold \
                 now is in no log"
            ));
        }
    }
    Ok(())
}

/// Refuses a partition that came, unless all rows that it ever had are in the stream: it was made as a
/// partition, or nothing was written to it yet.
fn check_partition(was: &TableLayout, is: &RelationLayout, table: &str) -> Result<(), String> {
    let name = &is.birth.name;
    if !is.kind.starts_with("rp") {
        return Err(format!(
            "partition {name} of table {table} is unlogged or on another server: what is written to it is in \
             no log"
        ));
    }
    let is_known = |step: &String| {
        let mut known = was.relations.values();
        known.any(|other| other.attached.contains(step))
    };
    if is.birth.is_empty || is.birth.later.iter().all(is_known) {
        return Ok(());
    }
    Err(format!(
        "partition {name} of table {table} was attached, and may have had rows before, which are in no log. \
         The log goes on where it has none yet when the follower looks, or was made by CREATE TABLE ... \
         PARTITION OF"
    ))
}

fn same_columns(was: &RelationLayout, is: &RelationLayout) -> bool {
    was.allocated == is.allocated && was.columns == is.columns
}

fn origins_of(
    (was, before): (&TableLayout, &TableSchema),
    (is, after): (&TableLayout, &TableSchema),
) -> Result<Vec<ColumnOrigin>, String> {
    let mut found: Option<Vec<ColumnOrigin>> = None;
    for (oid, relation) in &is.relations {
        // One that came has no rows of before.
        let Some(known) = was.relations.get(oid) else {
            continue;
        };
        let origins = after.columns.iter().map(|column| {
            let mut columns = streamed(&relation.columns);
            let column = columns.find(|other| other.name == column.name);
            let column =
                column.ok_or_else(|| format!("columns of table {} are missing", is.name))?;
            origin(known, column, (before, &is.name))
        });
        let origins = origins.collect::<Result<Vec<_>, _>>()?;
        if found.as_ref().is_some_and(|found| *found != origins) {
            return Err(format!(
                "partitions of table {} were altered one by one",
                is.name
            ));
        }
        found = Some(origins);
    }
    if let Some(found) = found {
        return Ok(found);
    }
    // Without a partition it has no row.
    let names = |table: &TableSchema| -> Vec<String> {
        table
            .columns
            .iter()
            .map(|column| column.name.clone())
            .collect()
    };
    if names(before) != names(after) {
        return Err(format!(
            "table {} was altered, and has no partition",
            is.name
        ));
    }
    let columns = (0..).map(ColumnIndex).take(after.columns.len());
    Ok(columns.map(ColumnOrigin::From).collect())
}

fn origin(
    known: &RelationLayout,
    column: &ColumnLayout,
    (before, table): (&TableSchema, &str),
) -> Result<ColumnOrigin, String> {
    if column.number > known.allocated {
        let missing = column.missing.clone();
        return Ok(ColumnOrigin::Filled(missing.map(String::into_bytes)));
    }
    let mut columns = streamed(&known.columns);
    let was = columns.find(|other| other.number == column.number);
    let Some(was) = was else {
        return Err(format!(
            "column {} of table {table} was computed by the server, and no longer is",
            column.name
        ));
    };
    let is_text = |kind| TEXTS.contains(&kind);
    let same_texts =
        was.type_id == column.type_id || (is_text(was.type_id) && is_text(column.type_id));
    if !same_texts {
        return Err(format!(
            "column {} of table {table} has another type, in which its values may read otherwise",
            column.name
        ));
    }
    let place = before
        .columns
        .iter()
        .position(|other| other.name == was.name);
    let place = place.and_then(|place| u32::try_from(place).ok());
    let place = place.ok_or_else(|| format!("columns of table {table} are missing"))?;
    Ok(ColumnOrigin::From(ColumnIndex(place)))
}
