//! What a store's tables look like and which tenant owns their rows.

use std::collections::HashMap;
use std::fmt;

use crate::{KeyForm, KeyWriter, RowBuilder, RowError};

mod order;
mod version;

pub use version::{ColumnOrigin, SchemaChange, SchemaChangeError, TableOrigin};

/// A table's name as its users write it: `orders`, or `billing.invoices` outside the store's
/// default schema.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName(String);

impl TableName {
    /// The name with this text.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A table's place in its [`StoreSchema`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableIndex(pub u32);

impl TableIndex {
    /// The index for slices.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

/// A column's place in its [`TableSchema`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ColumnIndex(pub u32);

impl ColumnIndex {
    /// The index for slices.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

/// One column. Only columns whose values travel are listed: generated ones are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnSchema {
    /// The column's name.
    pub name: String,
    /// The store's own name of the type, as in `character varying(40)`.
    pub type_name: String,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// How the column is written when it is part of the key.
    pub key_form: KeyForm,
}

/// A foreign key: these columns of a table name a row of the parent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// The referencing columns.
    pub columns: Vec<ColumnIndex>,
    /// The table they refer to.
    pub parent: TableIndex,
    /// The columns of the parent, in the same order.
    pub parent_columns: Vec<ColumnIndex>,
}

/// Which tenant owns a row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tenancy {
    /// The store itself keeps the owner beside every row, outside its columns.
    Native,
    /// A column holds the tenant's id. A row with NULL or the empty string there is shared.
    Direct {
        /// That column.
        column: ColumnIndex,
    },
    /// The row that this foreign key names has the owner.
    Via {
        /// That foreign key; none of its columns may be NULL.
        reference: Reference,
    },
    /// The row goes the first of these ways that is open to it, and has the owner of the row that
    /// it finds there. A row to which none is open, or that finds nobody, is shared.
    OneOf {
        /// The ways, at least one.
        routes: Vec<Route>,
    },
    /// Rows of everybody: captured, never written, never deleted.
    Shared,
    /// Left out, by name: not captured, not written.
    Excluded,
}

impl Tenancy {
    /// Whether rows of such a table can belong to a tenant.
    #[must_use]
    pub const fn is_tenant_owned(&self) -> bool {
        match self {
            Self::Native | Self::Direct { .. } | Self::Via { .. } | Self::OneOf { .. } => true,
            Self::Shared | Self::Excluded => false,
        }
    }

    /// The references that lead towards the tenant.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        let (via, routes) = match self {
            Self::Via { reference } => (Some(reference), [].as_slice()),
            Self::OneOf { routes } => (None, routes.as_slice()),
            _ => (None, [].as_slice()),
        };
        via.into_iter()
            .chain(routes.iter().map(|route| &route.reference))
    }
}

/// One way from a row towards its tenant. Open to rows in which none of the reference's columns
/// is NULL and the condition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What the row must say, as in `subject_type = 'Order'`.
    pub condition: Option<RouteCondition>,
    /// Which row it names; declared as a foreign key or not.
    pub reference: Reference,
}

/// That a column has a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteCondition {
    /// The column.
    pub column: ColumnIndex,
    /// Its value as rows carry it.
    pub value: String,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSchema {
    /// The table's name.
    pub name: TableName,
    /// Its columns, in the order in which rows carry them.
    pub columns: Vec<ColumnSchema>,
    /// The columns of the primary key, in key order. None: the table is a multiset of rows.
    pub key: Vec<ColumnIndex>,
    /// Who owns its rows.
    pub tenancy: Tenancy,
    /// Its foreign keys, declared or not.
    pub references: Vec<Reference>,
}

impl TableSchema {
    /// Whether rows are told apart by a key, not by all they contain.
    #[must_use]
    pub fn has_key(&self) -> bool {
        !self.key.is_empty()
    }

    /// Builds the row with these values, one for each column.
    ///
    /// # Errors
    /// `ColumnCount` if there are more or fewer values than columns; `NullInKey` if a column of
    /// the key has none.
    pub fn encode_row(
        &self,
        values: &[Option<&[u8]>],
        builder: &mut RowBuilder,
    ) -> Result<(), RowError> {
        if values.len() != self.columns.len() {
            let (expected, found) = (self.columns.len(), values.len());
            return Err(RowError::ColumnCount { expected, found });
        }
        let mut key = KeyWriter::new();
        for &column in &self.key {
            let value = values[column.get()].ok_or(RowError::NullInKey { column: column.0 })?;
            key.push(self.columns[column.get()].key_form, value);
        }
        builder.start(key.as_bytes());
        for value in values {
            builder.push(*value);
        }
        Ok(())
    }

    /// The column with this name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<ColumnIndex> {
        let index = self.columns.iter().position(|column| column.name == name)?;
        u32::try_from(index).ok().map(ColumnIndex)
    }
}

/// A description of tables that cannot be restored from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// Two tables have the same name.
    #[error("table {0} appears twice")]
    DuplicateTable(TableName),
    /// A column or table index points nowhere, or a foreign key has unequal sides.
    #[error("table {0}: {1}")]
    Malformed(TableName, &'static str),
    /// The chain of tables towards the tenant never reaches one that has it.
    #[error("table {0}: its path to the tenant ends at {1}, which no tenant owns")]
    PathUnowned(TableName, TableName),
    /// The chain of tables towards the tenant comes back to itself.
    #[error(
        "table {0}: its path to the tenant is a circle. Whose a row is has to be said by the row itself \
         or by a row of another table: give each the tenant's column, or list the table as excluded"
    )]
    PathCircular(TableName),
    /// A tenant's path leads through a column that may be NULL: its rows could belong to nobody.
    #[error("table {0}: its path to the tenant leads through its column {1}, which may be NULL")]
    PathNullable(TableName, String),
}

/// The tables of a store. Every reference in it points at something that exists, and every
/// tenant-owned table reaches its tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSchema {
    tables: Vec<TableSchema>,
}

impl StoreSchema {
    /// Checks the tables against each other.
    ///
    /// # Errors
    /// Any [`SchemaError`].
    pub fn try_new(tables: Vec<TableSchema>) -> Result<Self, SchemaError> {
        let schema = Self { tables };
        let mut seen = HashMap::new();
        for table in &schema.tables {
            if seen.insert(&table.name, ()).is_some() {
                return Err(SchemaError::DuplicateTable(table.name.clone()));
            }
            schema.check_indexes(table)?;
        }
        for table in &schema.tables {
            schema.check_path(table)?;
        }
        schema.check_circles()?;
        Ok(schema)
    }

    /// The tables, in the order of their indexes.
    #[must_use]
    pub fn tables(&self) -> &[TableSchema] {
        &self.tables
    }

    /// Indexes and tables.
    pub fn iter(&self) -> impl Iterator<Item = (TableIndex, &TableSchema)> {
        (0..).map(TableIndex).zip(&self.tables)
    }

    /// The table at this index.
    ///
    /// # Panics
    /// If the index is not of this schema; use [`get`](Self::get) for one from outside.
    #[must_use]
    pub fn table(&self, index: TableIndex) -> &TableSchema {
        &self.tables[index.get()]
    }

    /// The table at this index, if there is one.
    #[must_use]
    pub fn get(&self, index: TableIndex) -> Option<&TableSchema> {
        self.tables.get(index.get())
    }

    /// The table with this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<(TableIndex, &TableSchema)> {
        self.iter().find(|(_, table)| table.name.as_str() == name)
    }

    /// The tenant-owned tables, parents before children: the order in which rows can be
    /// inserted. Deletes go the other way. Tables that nothing orders keep the order of their
    /// indexes.
    ///
    /// The tables of a cycle of foreign keys stand together, ordered by their paths to the tenant,
    /// which have no cycles; whoever writes must defer or break the other references. A table that
    /// refers to itself is no cycle: a single statement inserts its rows.
    #[must_use]
    pub fn write_order(&self) -> Vec<TableIndex> {
        order::write_order(self)
    }

    /// These tables, whosever they are, parents before children. Tables of a cycle stay in their order.
    #[must_use]
    pub fn parents_first(&self, tables: &[TableIndex]) -> Vec<TableIndex> {
        let mut waiting = tables.to_vec();
        let mut ordered = Vec::with_capacity(waiting.len());
        while !waiting.is_empty() {
            let waits = |table: &TableIndex| {
                let references = self.table(*table).references.iter();
                let mut parents = references.map(|reference| reference.parent);
                parents.any(|parent| parent != *table && waiting.contains(&parent))
            };
            let next = waiting.iter().position(|table| !waits(table));
            ordered.push(waiting.remove(next.unwrap_or(0)));
        }
        ordered
    }

    fn check_indexes(&self, table: &TableSchema) -> Result<(), SchemaError> {
        let malformed = |what| Err(SchemaError::Malformed(table.name.clone(), what));
        let width = table.columns.len();
        if table.key.iter().any(|column| column.get() >= width) {
            return malformed("its key names a column that it does not have");
        }
        match &table.tenancy {
            Tenancy::Direct { column } if column.get() >= width => {
                return malformed("its tenant column does not exist");
            }
            Tenancy::OneOf { routes } if routes.is_empty() => {
                return malformed("it has no way to the tenant");
            }
            Tenancy::OneOf { routes } => {
                let mut conditions = routes.iter().filter_map(|route| route.condition.as_ref());
                if conditions.any(|condition| condition.column.get() >= width) {
                    return malformed("the condition of a way names a column that does not exist");
                }
            }
            _ => {}
        }
        for reference in table.references.iter().chain(table.tenancy.references()) {
            let Some(parent) = self.get(reference.parent) else {
                return malformed("a foreign key names a table that does not exist");
            };
            if reference.columns.is_empty()
                || reference.columns.len() != reference.parent_columns.len()
            {
                return malformed("a foreign key has no columns, or two sides of unequal length");
            }
            if reference.columns.iter().any(|column| column.get() >= width)
                || reference
                    .parent_columns
                    .iter()
                    .any(|c| c.get() >= parent.columns.len())
            {
                return malformed("a foreign key names a column that does not exist");
            }
        }
        Ok(())
    }

    /// What a table's ways lead to must belong to a tenant.
    fn check_path(&self, table: &TableSchema) -> Result<(), SchemaError> {
        if let Tenancy::Via { reference } = &table.tenancy {
            let mut columns = reference.columns.iter();
            let nullable = columns.find(|column| table.columns[column.get()].nullable);
            if let Some(column) = nullable {
                let column = table.columns[column.get()].name.clone();
                return Err(SchemaError::PathNullable(table.name.clone(), column));
            }
        }
        for reference in table.tenancy.references() {
            let parent = self.table(reference.parent);
            if !parent.tenancy.is_tenant_owned() {
                let (table, parent) = (table.name.clone(), parent.name.clone());
                return Err(SchemaError::PathUnowned(table, parent));
            }
        }
        Ok(())
    }

    /// No way may come back to where it started.
    fn check_circles(&self) -> Result<(), SchemaError> {
        let mut ends = vec![false; self.tables.len()];
        loop {
            let mut is_settled = true;
            let mut open = None;
            for (index, table) in self.iter() {
                if ends[index.get()] {
                    continue;
                }
                let mut parents = table.tenancy.references();
                if parents.all(|reference| ends[reference.parent.get()]) {
                    ends[index.get()] = true;
                    is_settled = false;
                } else {
                    open.get_or_insert(table);
                }
            }
            match open {
                None => return Ok(()),
                Some(table) if is_settled => {
                    return Err(SchemaError::PathCircular(table.name.clone()));
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn table(name: &str, tenancy: Tenancy, parents: &[u32]) -> TableSchema {
        let column = |name: &str| ColumnSchema {
            name: name.to_owned(),
            type_name: "bigint".to_owned(),
            nullable: name == "maybe",
            key_form: KeyForm::Integer,
        };
        TableSchema {
            name: TableName::new(name),
            columns: vec![column("id"), column("tenant"), column("maybe")],
            key: vec![ColumnIndex(0)],
            tenancy,
            references: parents.iter().map(|&parent| reference(0, parent)).collect(),
        }
    }

    fn reference(column: u32, parent: u32) -> Reference {
        Reference {
            columns: vec![ColumnIndex(column)],
            parent: TableIndex(parent),
            parent_columns: vec![ColumnIndex(0)],
        }
    }

    pub(super) fn direct() -> Tenancy {
        Tenancy::Direct {
            column: ColumnIndex(1),
        }
    }

    pub(super) fn via(column: u32, parent: u32) -> Tenancy {
        Tenancy::Via {
            reference: reference(column, parent),
        }
    }

    pub(super) fn one_of(parents: &[u32]) -> Tenancy {
        let routes = parents.iter().map(|&parent| Route {
            condition: None,
            reference: reference(2, parent),
        });
        Tenancy::OneOf {
            routes: routes.collect(),
        }
    }

    #[test]
    fn parents_are_written_before_their_children() {
        let schema = StoreSchema::try_new(vec![
            table("items", via(0, 1), &[1, 3]),
            table("orders", direct(), &[2, 1]),
            table("customers", direct(), &[]),
            table("currencies", Tenancy::Shared, &[]),
        ])
        .unwrap();
        let names: Vec<_> = schema
            .write_order()
            .into_iter()
            .map(|index| schema.table(index).name.as_str())
            .collect();
        assert_eq!(names, ["customers", "orders", "items"]);
    }

    #[test]
    fn a_path_that_may_leave_rows_unowned_is_refused() {
        let check = |tables: Vec<TableSchema>| StoreSchema::try_new(tables).unwrap_err();
        assert!(matches!(
            check(vec![
                table("a", via(0, 1), &[]),
                table("b", Tenancy::Shared, &[])
            ]),
            SchemaError::PathUnowned(..)
        ));
        assert!(matches!(
            check(vec![table("a", via(0, 1), &[]), table("b", via(0, 0), &[])]),
            SchemaError::PathCircular(_)
        ));
        assert!(matches!(
            check(vec![table("a", via(2, 1), &[]), table("b", direct(), &[])]),
            SchemaError::PathNullable(..)
        ));
        assert!(matches!(
            check(vec![
                table("a", direct(), &[]),
                table("b", one_of(&[0, 2]), &[]),
                table("c", one_of(&[0, 1]), &[])
            ]),
            SchemaError::PathCircular(_)
        ));
        assert!(matches!(
            check(vec![
                table("a", direct(), &[]),
                table("b", one_of(&[0, 2]), &[]),
                table("c", Tenancy::Shared, &[])
            ]),
            SchemaError::PathUnowned(..)
        ));
        assert!(matches!(
            check(vec![table("a", one_of(&[]), &[])]),
            SchemaError::Malformed(..)
        ));
    }

    #[test]
    fn an_index_that_points_nowhere_is_refused() {
        for bad in [
            vec![table(
                "a",
                Tenancy::Direct {
                    column: ColumnIndex(9),
                },
                &[],
            )],
            vec![table("a", direct(), &[7])],
            vec![table("a", direct(), &[]), table("a", direct(), &[])],
        ] {
            assert!(StoreSchema::try_new(bad).is_err());
        }
    }
}
