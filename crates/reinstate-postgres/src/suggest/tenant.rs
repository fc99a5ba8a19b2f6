//! Which column holds the tenant's id, and which table the tenants.

use std::collections::BTreeMap;

use reinstate_core::{ColumnIndex, ErrorKind, StoreError, TableIndex};

use super::facts::Facts;
use super::names::{holds, names_tenants, referred};

/// How many columns are named that may be meant.
const NAMED_MAX: usize = 6;

/// What tenants are known by.
pub(super) struct Tenant {
    /// The columns that hold a tenant's id, the usual one first; at least one.
    pub columns: Vec<String>,
    /// The tenants themselves, and the column of theirs that the others refer to.
    pub table: Option<(TableIndex, ColumnIndex)>,
    others: Vec<String>,
}

/// A column that many tables have, and where it leads.
struct Candidate {
    column: String,
    table_count: usize,
    parent: (TableIndex, ColumnIndex),
}

/// Finds the tenant's column, unless it is given.
///
/// # Errors
/// `Usage` if a given one does not exist, or none can be found.
pub(super) fn find(facts: &Facts, given: &[String]) -> Result<Tenant, StoreError> {
    let candidates = candidates(facts);
    if let Some(first) = given.first() {
        for column in given {
            if table_count(facts, column) == 0 {
                let message = format!("no table has a column {column}{}", listed(&candidates));
                return Err(StoreError::new(ErrorKind::Usage, message));
            }
        }
        let found = candidates.iter().find(|found| found.column == *first);
        return Ok(Tenant {
            columns: given.to_vec(),
            table: found.map(|found| found.parent),
            others: Vec::new(),
        });
    }
    let mut likely: Vec<&Candidate> = candidates
        .iter()
        .filter(|found| names_tenants(&facts.table(found.parent.0).catalog.relation))
        .collect();
    let belongs = |inner: &Candidate, outer: &Candidate| {
        let (inner, outer) = (inner.parent.0, outer.parent.0);
        let mut keys = facts.keys_of(inner);
        keys.any(|key| key.reference.parent == outer && facts.is_firm(key))
    };
    // Projects that belong to accounts are not the tenants, however many tables refer to them.
    let outermost: Vec<&Candidate> = likely
        .iter()
        .filter(|inner| !likely.iter().any(|outer| belongs(inner, outer)))
        .copied()
        .collect();
    let chosen = *outermost.first().or(likely.first()).ok_or_else(|| {
        let message = format!(
            "no column was found that holds the ids of tenants: name it with --column{}",
            listed(&candidates)
        );
        StoreError::new(ErrorKind::Usage, message)
    })?;
    likely.retain(|other| other.parent != chosen.parent);
    let others = likely.iter().map(|other| {
        let (table, key) = other.parent;
        format!(
            "{} ({}, leads to {}.{})",
            other.column,
            tables(other.table_count),
            facts.name(table),
            facts.column_name(table, key)
        )
    });
    Ok(Tenant {
        columns: vec![chosen.column.clone()],
        table: Some(chosen.parent),
        others: others.collect(),
    })
}

impl Tenant {
    /// The column of a table that holds the tenant's id by its name.
    pub(super) fn column_of(&self, facts: &Facts, index: TableIndex) -> Option<ColumnIndex> {
        let mut columns = self.columns.iter();
        columns.find_map(|name| facts.column(index, name))
    }

    /// What is worth knowing about the choice.
    pub(super) fn notes(&self, facts: &Facts) -> Vec<String> {
        let mut notes = Vec::new();
        for column in &self.columns {
            let (count, all) = (table_count(facts, column), facts.tables.len());
            notes.push(format!("{column} is in {count} of {all} tables"));
        }
        match self.table {
            Some((table, key)) => notes.push(format!(
                "the tenants are the rows of {}, by their {}",
                facts.name(table),
                facts.column_name(table, key)
            )),
            None => notes.push("no table was found that holds the tenants themselves".to_owned()),
        }
        if !self.others.is_empty() {
            notes.push(format!(
                "--column could also mean: {}",
                self.others.join(", ")
            ));
        }
        notes
    }
}

fn table_count(facts: &Facts, column: &str) -> usize {
    let mut indexes = facts.indexes().collect::<Vec<_>>();
    indexes.retain(|&index| facts.is_outside(index).is_none());
    indexes
        .iter()
        .filter(|&&index| facts.column(index, column).is_some())
        .count()
}

/// Columns that lead to another table, those of the most tables first.
fn candidates(facts: &Facts) -> Vec<Candidate> {
    let mut parents: BTreeMap<&str, BTreeMap<(TableIndex, ColumnIndex), usize>> = BTreeMap::new();
    for key in &facts.keys {
        if let ([column], [parent_column]) = (
            key.reference.columns.as_slice(),
            key.reference.parent_columns.as_slice(),
        ) && key.reference.parent != key.child
        {
            let column = facts.column_name(key.child, *column);
            let parent = (key.reference.parent, *parent_column);
            *parents
                .entry(column)
                .or_default()
                .entry(parent)
                .or_default() += 1;
        }
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for index in facts.indexes() {
        if facts.is_outside(index).is_some() {
            continue;
        }
        let table = facts.table(index);
        for (column, catalog) in table.schema.columns.iter().zip(&table.catalog.columns) {
            if catalog.tenant_type.is_some() {
                *counts.entry(&column.name).or_default() += 1;
            }
        }
    }
    let mut found = Vec::new();
    for (column, table_count) in counts {
        let declared = parents.get(column).and_then(|parents| {
            let mut parents: Vec<_> = parents.iter().collect();
            parents.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            parents.first().map(|(parent, _)| **parent)
        });
        if let Some(parent) = declared.or_else(|| named_parent(facts, column)) {
            found.push(Candidate {
                column: column.to_owned(),
                table_count,
                parent,
            });
        }
    }
    found.sort_by_key(|candidate| std::cmp::Reverse(candidate.table_count));
    found
}

/// The only table that a column names.
fn named_parent(facts: &Facts, column: &str) -> Option<(TableIndex, ColumnIndex)> {
    let base = referred(column)?;
    let mut named = facts
        .indexes()
        .filter(|&index| holds(&facts.table(index).catalog.relation, &base));
    let (index, None) = (named.next()?, named.next()) else {
        return None;
    };
    facts.single_key(index).map(|key| (index, key))
}

fn tables(count: usize) -> String {
    format!("{count} {}", if count == 1 { "table" } else { "tables" })
}

fn listed(candidates: &[Candidate]) -> String {
    if candidates.is_empty() {
        return String::new();
    }
    let named = candidates.iter().take(NAMED_MAX);
    let named = named.map(|found| format!("{} ({})", found.column, tables(found.table_count)));
    format!(
        "; columns that lead to other tables: {}",
        named.collect::<Vec<_>>().join(", ")
    )
}
