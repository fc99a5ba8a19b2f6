//! SQL that finds the owner of a row.
//!
//! A table has the tenant in a column of its own or reaches it over foreign keys, parent by
//! parent. [`OwnerPath`] is that way as SQL, from a row that is called by an alias.

use reinstate_core::{ErrorKind, Reference, StoreError, TableIndex, Tenancy, TenantId};

use crate::catalog::{Catalog, CatalogTable, TenantType};
use crate::sql::quote;

/// The way from a row to its tenant.
#[derive(Clone, Debug)]
pub(crate) struct OwnerPath {
    /// Parents on the way, nearest first: what to read, under which alias, and what joins it to
    /// the one before.
    pub hops: Vec<Hop>,
    /// The tenant column at the end, as SQL.
    pub column: String,
    pub tenant_type: TenantType,
    /// What the column is called, for messages.
    pub display_name: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Hop {
    pub source: String,
    pub condition: String,
}

/// The way to the owner of rows of `table` that go by `alias`; none for a table that no tenant
/// owns. Other aliases start with the same one.
pub(crate) fn owner_path(catalog: &Catalog, table: TableIndex, alias: &str) -> Option<OwnerPath> {
    let mut hops = Vec::new();
    let (mut table, mut here) = (table, alias.to_owned());
    loop {
        let (schema, columns) = catalog.table(table);
        match &schema.tenancy {
            Tenancy::Direct { column } => {
                let column = &columns.columns[column.get()];
                return Some(OwnerPath {
                    hops,
                    column: format!("{here}.{}", quote(&column.name)),
                    tenant_type: column.tenant_type.clone()?,
                    display_name: format!("{}.{}", schema.name, column.name),
                });
            }
            Tenancy::Via { reference } => {
                let there = format!("{alias}_{}", hops.len() + 1);
                let parent = &catalog.tables[reference.parent.get()];
                hops.push(Hop {
                    source: format!("{} AS {there}", parent.sql_rows()),
                    condition: joined(columns, &here, parent, &there, reference),
                });
                (table, here) = (reference.parent, there);
            }
            _ => return None,
        }
    }
}

fn joined(
    child: &CatalogTable,
    here: &str,
    parent: &CatalogTable,
    there: &str,
    reference: &Reference,
) -> String {
    let pairs = reference.columns.iter().zip(&reference.parent_columns);
    let equal = pairs
        .zip(&child.via_operators)
        .map(|((column, parent_column), operator)| {
            let column = quote(&child.columns[column.get()].name);
            let parent_column = quote(&parent.columns[parent_column.get()].name);
            format!("{there}.{parent_column} {operator} {here}.{column}")
        });
    equal.collect::<Vec<_>>().join(" AND ")
}

impl OwnerPath {
    /// The parents as joins of the kind `JOIN` or `LEFT JOIN`.
    pub(crate) fn joins(&self, kind: &str) -> String {
        let hops = self.hops.iter();
        hops.map(|hop| format!(" {kind} {} ON {}", hop.source, hop.condition))
            .collect()
    }

    /// The parents as further items of a FROM or USING list, each after a comma.
    pub(crate) fn further_sources(&self) -> String {
        let hops = self.hops.iter();
        hops.map(|hop| format!(", {}", hop.source)).collect()
    }

    /// What joins those items, and says that the row is the tenant's.
    ///
    /// # Errors
    /// As [`tenant_value`](Self::tenant_value).
    pub(crate) fn conditions(&self, tenant: &TenantId) -> Result<String, StoreError> {
        let is_owner = self.is_owner(tenant)?;
        let hops = self.hops.iter().map(|hop| hop.condition.as_str());
        Ok(hops
            .chain([is_owner.as_str()])
            .collect::<Vec<_>>()
            .join(" AND "))
    }

    /// That the row is the tenant's.
    ///
    /// # Errors
    /// As [`tenant_value`](Self::tenant_value).
    pub(crate) fn is_owner(&self, tenant: &TenantId) -> Result<String, StoreError> {
        Ok(format!("{} = {}", self.column, self.tenant_value(tenant)?))
    }

    /// That the row is somebody else's, or nobody's.
    ///
    /// # Errors
    /// As [`tenant_value`](Self::tenant_value).
    pub(crate) fn is_not_owner(&self, tenant: &TenantId) -> Result<String, StoreError> {
        let value = self.tenant_value(tenant)?;
        Ok(format!("{} IS DISTINCT FROM {value}", self.column))
    }

    /// # Errors
    /// `NotFound` if the tenant's id is not a value of the column's type.
    fn tenant_value(&self, tenant: &TenantId) -> Result<String, StoreError> {
        self.tenant_type.sql_value(tenant).ok_or_else(|| {
            let message = format!(
                "there is no tenant {tenant}: column {} cannot hold that id",
                self.display_name
            );
            StoreError::new(ErrorKind::NotFound, message)
        })
    }
}
