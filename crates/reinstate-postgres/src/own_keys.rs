//! What a tenant's rows are referred to by, noted as they are read.
//!
//! A row that reaches its tenant over a parent is found by joining it with the parent, that with its own,
//! and so on: a table that is six references away costs a reading of six more. Whoever reads tables in
//! their order has just seen the parents, though, all of them, at the same position: their keys are sent
//! with the question instead, which reads nothing but the table itself, and lets the server know how many
//! parents there are.
//!
//! *Cost*: the keys of parents, within [`BYTES_MAX`]. Where there are more, or a parent was not read to
//! its end, the server looks for the parents itself, and so it does where values are compared by anything
//! but the server's own equality.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use reinstate_core::{ColumnIndex, Reference, RowBatch, TableIndex, Tenancy, TenantId};

use crate::catalog::Catalog;
use crate::owner::{EQUAL, joined};
use crate::sql::{literal, quote};

/// How many bytes the keys of one table may take, as text.
const TABLE_BYTES_MAX: usize = 4 << 20;
/// How many bytes all keys may take that are kept at the same time.
const BYTES_MAX: usize = 16 << 20;

/// The keys of one tenant's rows at one position, as far as they are known.
#[derive(Debug, Default)]
pub(crate) struct OwnKeys {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    tenant: Option<TenantId>,
    tables: BTreeMap<TableIndex, Noted>,
    bytes: usize,
}

/// The keys of rows that go by.
#[derive(Debug)]
pub(crate) struct Noted {
    columns: Vec<ColumnIndex>,
    /// For each column, the texts as elements of an array, with commas.
    lists: Vec<String>,
    is_whole: bool,
}

impl OwnKeys {
    /// What joins rows `t` of a table with their parents, if all parents of the tenant are known.
    pub(crate) fn joined_parents(
        &self,
        catalog: &Catalog,
        table: TableIndex,
        tenant: &TenantId,
    ) -> Option<String> {
        let reference = plain_way(catalog, table)?;
        let known = self.known();
        let is_of_tenant = known.tenant.as_ref() == Some(tenant);
        let parents = known.tables.get(&reference.parent);
        let parents = parents.filter(|_| is_of_tenant)?;
        let (child, parent) = (
            &catalog.tables[table.get()],
            &catalog.tables[reference.parent.get()],
        );
        let places = parents.columns.iter().zip(1..);
        let casts = places.clone().map(|(column, place): (_, usize)| {
            let column = &parent.columns[column.get()];
            format!("u.v{place}::{} AS {}", column.type_sql, quote(&column.name))
        });
        let lists = parents.lists.iter();
        let lists = lists.map(|list| format!("{}::text[]", literal(&format!("{{{list}}}"))));
        let names = places.map(|(_, place)| format!("v{place}"));
        let operators = &child.way_operators[0];
        Some(format!(
            // The keys are different as they are. That they are, the server would not know: it would
            // take each for one of ten and rather look at every row of the table for its parent.
            " JOIN (SELECT DISTINCT {} FROM unnest({}) AS u({})) AS p ON {}",
            casts.collect::<Vec<_>>().join(", "),
            lists.collect::<Vec<_>>().join(", "),
            names.collect::<Vec<_>>().join(", "),
            joined(child, "t", parent, "p", reference, operators).join(" AND "),
        ))
    }

    /// What notes the keys of a table's rows; none if nobody is found by them.
    pub(crate) fn start(&self, catalog: &Catalog, table: TableIndex) -> Option<Noted> {
        let mut children = catalog.iter().map(|(child, _, _)| child);
        let is_parent = children.any(|child| {
            let reference = plain_way(catalog, child);
            reference.is_some_and(|reference| reference.parent == table)
        });
        let columns = &catalog.schema.table(table).key;
        is_parent.then(|| Noted {
            columns: columns.clone(),
            lists: vec![String::new(); columns.len()],
            is_whole: true,
        })
    }

    /// Keeps the keys of all rows that the tenant has in a table.
    pub(crate) fn keep(&self, tenant: &TenantId, table: TableIndex, noted: Noted) {
        let mut known = self.known();
        if known.tenant.as_ref() != Some(tenant) {
            *known = Known {
                tenant: Some(tenant.clone()),
                ..Known::default()
            };
        }
        if let Some(before) = known.tables.remove(&table) {
            known.bytes -= before.byte_count();
        }
        let bytes = known.bytes + noted.byte_count();
        if noted.is_whole && bytes <= BYTES_MAX {
            known.bytes = bytes;
            known.tables.insert(table, noted);
        }
    }

    /// Forgets what was known: rows have been written.
    pub(crate) fn forget(&self) {
        *self.known() = Known::default();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Noted {
    /// Notes the keys of these rows.
    pub(crate) fn note(&mut self, rows: &RowBatch) {
        if !self.is_whole {
            return;
        }
        for row in rows.iter() {
            let values: Vec<Option<&[u8]>> = row.values().collect();
            for (list, column) in self.lists.iter_mut().zip(&self.columns) {
                let value = values.get(column.get()).copied().flatten();
                let text = value.and_then(|value| std::str::from_utf8(value).ok());
                match text {
                    Some(text) => push_element(list, text),
                    // Whoever reads on will say what is wrong with it.
                    None => self.is_whole = false,
                }
            }
        }
        if self.byte_count() > TABLE_BYTES_MAX {
            self.is_whole = false;
            self.lists.clear();
        }
    }

    fn byte_count(&self) -> usize {
        self.lists.iter().map(String::len).sum()
    }
}

/// The only way of a table to its tenant, if it leads to the key of its parent and compares texts as
/// values.
fn plain_way(catalog: &Catalog, table: TableIndex) -> Option<&Reference> {
    let (schema, relation) = catalog.table(table);
    let Tenancy::Via { reference } = &schema.tenancy else {
        return None;
    };
    let key = &catalog.schema.table(reference.parent).key;
    let columns = &reference.parent_columns;
    let is_key = columns.len() == key.len() && key.iter().all(|column| columns.contains(column));
    let operators = relation.way_operators.first()?;
    let is_plain = is_key && operators.iter().all(|operator| operator == EQUAL);
    is_plain.then_some(reference)
}

/// Adds an element to the text of an array.
fn push_element(list: &mut String, text: &str) {
    if !list.is_empty() {
        list.push(',');
    }
    list.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            list.push('\\');
        }
        list.push(character);
    }
    list.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_quoted() {
        let mut list = String::new();
        for text in ["1", "", "a\"b\\c,{d}", "NULL"] {
            push_element(&mut list, text);
        }
        assert_eq!(list, r#""1","","a\"b\\c,{d}","NULL""#);
    }
}
