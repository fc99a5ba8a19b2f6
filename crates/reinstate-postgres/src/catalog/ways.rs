//! Ways from a table to the tenant, as a rule names them.

use reinstate_core::{
    ColumnIndex, Reference, Route, RouteCondition, StoreError, TableIndex, Tenancy,
};

use super::classify::{Class, ForeignKey, find, refused, usage};
use super::read::Draft;
use crate::owner::EQUAL;
use crate::tenancy::{NamedReference, RouteRule, Unowned};

/// What the ways of one table are looked up in.
#[derive(Clone, Copy)]
pub(super) struct Ways<'a> {
    pub drafts: &'a [Draft],
    pub keys: &'a [ForeignKey],
    pub child: TableIndex,
}

/// A reference that a rule names.
struct Found<'a> {
    reference: Reference,
    operators: Vec<String>,
    /// The foreign key that declares it.
    key: Option<&'a ForeignKey>,
}

impl<'a> Ways<'a> {
    /// One way, which leads every row to its owner unless the rule says that it need not.
    ///
    /// # Errors
    /// `Usage` if the rule names what does not exist; `Refused` if it cannot be relied on.
    pub(super) fn via(self, text: &str, unowned: Unowned) -> Result<Class, StoreError> {
        let found = self.reference(text)?;
        if unowned == Unowned::Refused {
            self.check_guarded(text, &found)?;
            return Ok(Class {
                tenancy: Tenancy::Via {
                    reference: found.reference,
                },
                way_operators: vec![found.operators],
                refuses_unowned: false,
            });
        }
        let route = Route {
            condition: None,
            reference: found.reference,
        };
        Ok(Class {
            tenancy: Tenancy::OneOf {
                routes: vec![route],
            },
            way_operators: vec![found.operators],
            refuses_unowned: false,
        })
    }

    /// Several ways.
    ///
    /// # Errors
    /// As [`via`](Self::via).
    pub(super) fn one_of(self, rules: &[RouteRule], unowned: Unowned) -> Result<Class, StoreError> {
        let name = self.draft().schema.name.as_str();
        let (mut routes, mut way_operators) = (Vec::new(), Vec::new());
        for rule in rules {
            let found = self.reference(&rule.via)?;
            let condition = match rule.condition(name)? {
                Some((column, value)) => Some(RouteCondition {
                    column: self.column(self.child, column)?,
                    value: value.to_owned(),
                }),
                None => None,
            };
            way_operators.push(found.operators);
            routes.push(Route {
                condition,
                reference: found.reference,
            });
        }
        if routes.is_empty() {
            return Err(usage(format!("tenancy: table {name}: one_of names no way")));
        }
        Ok(Class {
            tenancy: Tenancy::OneOf { routes },
            way_operators,
            refuses_unowned: unowned == Unowned::Refused,
        })
    }

    fn draft(&self) -> &'a Draft {
        &self.drafts[self.child.get()]
    }

    fn reference(&self, text: &str) -> Result<Found<'a>, StoreError> {
        let table = &self.draft().schema.name;
        let named = NamedReference::parse(table.as_str(), text)?;
        let Some((parent, _)) = find(self.drafts, &named.parent) else {
            return Err(usage(format!(
                "tenancy: table {table}: via = {text:?}: there is no table {}",
                named.parent
            )));
        };
        let mut pairs = Vec::new();
        for (column, parent_column) in named.columns.iter().zip(&named.parent_columns) {
            pairs.push((
                self.column(self.child, column)?,
                self.column(parent, parent_column)?,
            ));
        }
        pairs.sort();
        let is_it = |key: &&ForeignKey| {
            let reference = &key.reference;
            let columns = reference.columns.iter().copied();
            let mut found: Vec<_> = columns
                .zip(reference.parent_columns.iter().copied())
                .collect();
            found.sort();
            key.child == self.child && reference.parent == parent && found == pairs
        };
        if let Some(key) = self.keys.iter().find(is_it) {
            return Ok(Found {
                reference: key.reference.clone(),
                operators: key.operators.clone(),
                key: Some(key),
            });
        }
        self.undeclared(text, parent, pairs)
    }

    /// A reference that the database does not know of. It must lead to one row at most, or rows
    /// would be found twice.
    fn undeclared(
        &self,
        text: &str,
        parent: TableIndex,
        pairs: Vec<(ColumnIndex, ColumnIndex)>,
    ) -> Result<Found<'a>, StoreError> {
        let child = &self.draft().schema.name;
        let target = &self.drafts[parent.get()];
        let (columns, parent_columns): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let is_unique = target.catalog.unique_indexes.iter().any(|index| {
            let unique = index.columns.as_ref().filter(|_| !index.is_exclusion);
            unique.is_some_and(|unique| unique.iter().all(|column| parent_columns.contains(column)))
        });
        if !is_unique {
            return Err(refused(format!(
                "tenancy: table {child}: via = {text:?}: no foreign key is declared there, and \
                 nothing keeps table {} from having two such rows",
                target.schema.name
            )));
        }
        let mut operators = Vec::new();
        for (column, parent_column) in columns.iter().zip(&parent_columns) {
            let own = &self.draft().catalog.columns[column.get()];
            let other = &target.catalog.columns[parent_column.get()];
            let is_exact = own.is_deterministic && other.is_deterministic;
            if !is_exact || !are_comparable(&own.type_sql, &other.type_sql) {
                return Err(refused(format!(
                    "tenancy: table {child}: via = {text:?}: a {} cannot name a {}",
                    own.type_sql, other.type_sql
                )));
            }
            operators.push(EQUAL.to_owned());
        }
        Ok(Found {
            reference: Reference {
                columns,
                parent,
                parent_columns,
            },
            operators,
            key: None,
        })
    }

    /// Refuses a way that can leave a row without an owner.
    fn check_guarded(&self, text: &str, found: &Found<'_>) -> Result<(), StoreError> {
        let Draft {
            schema, catalog, ..
        } = self.draft();
        let table = &schema.name;
        let Some(key) = found.key else {
            return Err(refused(format!(
                "tenancy: table {table}: via = {text:?}: no foreign key is declared there, so that \
                 nothing keeps its rows from having no owner. If such rows are everybody's, add \
                 unowned = \"shared\""
            )));
        };
        if !key.is_validated {
            return Err(refused(format!(
                "tenancy: table {table}: foreign key {} is not validated: run ALTER TABLE {} \
                 VALIDATE CONSTRAINT {}",
                key.name,
                catalog.sql_name(),
                crate::sql::quote(&key.name)
            )));
        }
        let mut columns = found.reference.columns.iter();
        match columns.find(|column| schema.columns[column.get()].nullable) {
            None => Ok(()),
            Some(column) => Err(refused(format!(
                "tenancy: table {table}: via = {text:?}: column {} may be NULL, which would leave \
                 rows without an owner. If such rows are everybody's, add unowned = \"shared\"",
                schema.columns[column.get()].name
            ))),
        }
    }

    fn column(&self, table: TableIndex, name: &str) -> Result<ColumnIndex, StoreError> {
        let schema = &self.drafts[table.get()].schema;
        schema.column(name).ok_or_else(|| {
            usage(format!(
                "tenancy: table {} has no column {name}",
                schema.name
            ))
        })
    }
}

/// Whether the server's own equality says of values of two types what their texts say.
fn are_comparable(own: &str, other: &str) -> bool {
    let family = |name: &str| {
        let name = name.split('(').next().unwrap_or(name).trim();
        match name {
            "smallint" | "integer" | "bigint" => "integer".to_owned(),
            "text" | "character varying" => "text".to_owned(),
            other => other.to_owned(),
        }
    };
    family(own) == family(other)
}
