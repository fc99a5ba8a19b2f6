//! A tenant's rows of many tables, in one statement that looks at each table once.
//!
//! By [`ownership`] every table looks for its tenant all the way, over parents that other tables go over
//! as well. Here what a parent is referred to by becomes a part of the statement, found once.

use std::collections::{BTreeMap, BTreeSet};

use reinstate_core::{ColumnIndex, Reference, StoreError, TableIndex, Tenancy, TenantId};

use crate::catalog::Catalog;
use crate::owner::{EQUAL, Selection, joined, ownership};
use crate::sql::{columns_of, quote};

/// What finds rows `t` of one tenant, with what was found on the way.
pub(crate) struct OwnSets<'c> {
    catalog: &'c Catalog,
    tenant: &'c TenantId,
    /// Parts of the statement, each after those that it needs.
    parts: Vec<String>,
    /// The names of parents' sets.
    names: BTreeMap<TableIndex, String>,
}

impl<'c> OwnSets<'c> {
    pub(crate) const fn new(catalog: &'c Catalog, tenant: &'c TenantId) -> Self {
        Self {
            catalog,
            tenant,
            parts: Vec::new(),
            names: BTreeMap::new(),
        }
    }

    /// The tenant's rows `t` of a table; none for a table that no tenant owns.
    ///
    /// # Errors
    /// `NotFound` if the tenant's id is not a value of the tenant's column.
    pub(crate) fn selection(&mut self, table: TableIndex) -> Result<Option<Selection>, StoreError> {
        let catalog = self.catalog;
        let Some(reference) = simple_way(catalog, table) else {
            let owned = ownership(catalog, table, "t");
            return owned.map(|owned| owned.joined(self.tenant)).transpose();
        };
        let Some(name) = self.set(reference.parent)? else {
            return Ok(None);
        };
        let (child, parent) = (
            &catalog.tables[table.get()],
            &catalog.tables[reference.parent.get()],
        );
        let columns = reference.parent_columns.iter();
        let columns = columns.map(|column| parent.columns[column.get()].name.as_str());
        let operators = &child.way_operators[0];
        let sources = format!(
            // They are different as they are. Not knowing that, the server would take each for one of
            // ten, and rather look at every row of the table for its parent.
            " JOIN (SELECT DISTINCT {} FROM {name} AS o) AS p ON {}",
            columns_of("o", columns),
            joined(child, "t", parent, "p", reference, operators).join(" AND "),
        );
        Ok(Some(Selection {
            sources,
            condition: "true".to_owned(),
        }))
    }

    /// What comes before the statement.
    pub(crate) fn with(&self) -> String {
        if self.parts.is_empty() {
            return String::new();
        }
        format!("WITH {} ", self.parts.join(", "))
    }

    /// The name of the set of what the tenant's rows of a table are referred to by.
    fn set(&mut self, table: TableIndex) -> Result<Option<String>, StoreError> {
        if let Some(name) = self.names.get(&table) {
            return Ok(Some(name.clone()));
        }
        let Some(own) = self.selection(table)? else {
            return Ok(None);
        };
        let relation = &self.catalog.tables[table.get()];
        let columns = referred_to(self.catalog, table);
        let columns = columns.iter().map(|column| &relation.columns[column.get()]);
        let names: Vec<&str> = columns.clone().map(|column| column.name.as_str()).collect();
        let nulls = columns.map(|column| format!("NULL::{}", column.type_sql));
        let listed = names.iter().map(|name| quote(name));
        let name = format!("own_{}", table.0);
        // Nothing is added to the set, but the server does not see that. It would reckon with one row
        // where it believes that there are few, and read a whole table again for each that there is.
        self.parts.push(format!(
            "{name}({}) AS MATERIALIZED (
                 SELECT {} FROM {} AS t{} WHERE {}
                  UNION ALL SELECT {} FROM generate_series(1, (SELECT 0)))",
            listed.collect::<Vec<_>>().join(", "),
            columns_of("t", names.iter().copied()),
            relation.sql_rows(),
            own.sources,
            own.condition,
            nulls.collect::<Vec<_>>().join(", "),
        ));
        self.names.insert(table, name.clone());
        Ok(Some(name))
    }
}

/// The only way of a table to its tenant, if it compares values as they are.
fn simple_way(catalog: &Catalog, table: TableIndex) -> Option<&Reference> {
    let (schema, relation) = catalog.table(table);
    let Tenancy::Via { reference } = &schema.tenancy else {
        return None;
    };
    let operators = relation.way_operators.first()?;
    let is_plain = operators.iter().all(|operator| operator == EQUAL);
    is_plain.then_some(reference)
}

/// The tables over which a table looks for its tenant here, the last first, and itself.
pub(crate) fn path(catalog: &Catalog, table: TableIndex) -> Vec<TableIndex> {
    let mut path = vec![table];
    let mut last = table;
    while let Some(reference) = simple_way(catalog, last) {
        last = reference.parent;
        if path.contains(&last) {
            break;
        }
        path.push(last);
    }
    path.reverse();
    path
}

/// The columns by which rows of a table are found to be a parent.
fn referred_to(catalog: &Catalog, table: TableIndex) -> BTreeSet<ColumnIndex> {
    let children = catalog.iter().map(|(child, _, _)| child);
    let ways = children.filter_map(|child| simple_way(catalog, child));
    let ways = ways.filter(|way| way.parent == table);
    ways.flat_map(|way| way.parent_columns.iter().copied())
        .collect()
}
