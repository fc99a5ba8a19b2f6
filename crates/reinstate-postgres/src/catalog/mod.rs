//! What the database says about its tables, and what an operator says about whose rows they hold.
//!
//! [`read_catalog`] asks both inside one transaction, so that everything read through the result
//! is of the same moment.

mod classify;
mod kept;
mod kinds;
mod query;
mod read;
mod ways;

use std::collections::HashMap;

use reinstate_core::{
    ColumnIndex, ErrorKind, KeyForm, StoreError, StoreSchema, TableIndex, TableSchema,
};

use crate::sql::{columns_of, qualified, quote};

pub(crate) use classify::ForeignKey;
pub(crate) use kept::KeptCatalog;
pub(crate) use kinds::TenantType;
pub(crate) use query::{IS_TABLE, PARTITIONS, POLICY, get, lockable_tables, read_sequences};
pub(crate) use read::{Draft, Drafts, read_catalog, read_drafts};

/// The schema that holds what the engine keeps; no table in it is anybody's.
pub(crate) const OWN_NAMESPACE: &str = "reinstate";

/// The tables of a database: `tables[i]` belongs to `schema.table(i)`.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    pub schema: StoreSchema,
    pub tables: Vec<CatalogTable>,
    pub foreign_keys: Vec<ForeignKey>,
    /// Foreign keys with a column that does not travel.
    pub computed_keys: Vec<ComputedKey>,
    /// Partitions by their root.
    partitions: HashMap<u32, TableIndex>,
}

/// What the values and ports of the engine have no room for.
#[derive(Clone, Debug)]
pub(crate) struct CatalogTable {
    pub oid: u32,
    pub namespace: String,
    pub relation: String,
    pub is_partitioned: bool,
    pub partition_oids: Vec<u32>,
    /// In the order of the schema's columns.
    pub columns: Vec<CatalogColumn>,
    /// Columns that the server computes, which do not travel, with their expressions.
    pub generated: Vec<(String, String)>,
    /// What compares each column of the primary key, as SQL operators.
    pub key_operators: Vec<String>,
    /// For each reference that leads towards the owner, what compares its columns, the parent's
    /// first.
    pub way_operators: Vec<Vec<String>>,
    /// Whether a row that reaches nobody is an error.
    pub refuses_unowned: bool,
    pub unique_indexes: Vec<UniqueIndex>,
    pub triggers: Vec<Trigger>,
    pub sequences: Vec<OwnedSequence>,
    /// Foreign keys of other tables to this one that act on their own rows.
    pub actions: Vec<ReferentialAction>,
    /// Whether row-level security applies to this role.
    pub is_policed: bool,
    /// Whether it lets the role read every row all the same.
    pub shows_all_rows: bool,
    /// Whether what it lets the role write depends on the tenant that a merge says it is about. Whether it
    /// is that tenant's rows and no others is the guards' question.
    pub names_tenant_in_policies: bool,
    /// Whether the role may read the table.
    pub is_readable: bool,
    /// Whether rows of everybody that are gone may be created.
    pub creates_missing: bool,
    /// How many pages the server takes it to have, its partitions not included.
    pub page_count: i32,
}

#[derive(Clone, Debug)]
pub(crate) struct CatalogColumn {
    pub name: String,
    /// The server's number for it; another column of the table never has the same.
    pub number: i16,
    pub type_sql: String,
    pub is_identity_always: bool,
    /// Whether it counts something for a tenant, and is never lowered.
    pub is_counter: bool,
    /// Whether unequal texts are always unequal values.
    pub is_deterministic: bool,
    /// Whether a constraint or a unique index could take offence at NULL in it for a while.
    pub is_watched: bool,
    /// What the column can name as a tenant; none: nothing.
    pub tenant_type: Option<TenantType>,
}

impl CatalogTable {
    /// Whether primary keys that are written otherwise are always different ones.
    pub(crate) fn has_exact_key(&self, schema: &TableSchema) -> bool {
        let mut key = schema.key.iter();
        key.all(|column| self.exact_kind(schema, *column).is_some())
    }

    /// What values of a column are, if those that are written otherwise are always different ones: values of
    /// the same kind are equal if they are written alike.
    pub(crate) fn exact_kind<'s>(
        &self,
        schema: &'s TableSchema,
        column: ColumnIndex,
    ) -> Option<&'s str> {
        let described = &schema.columns[column.get()];
        let name = described.type_name.split('(').next().unwrap_or_default();
        if described.key_form == KeyForm::Integer {
            return Some("integer");
        }
        match name {
            "uuid" | "bytea" | "boolean" | "date" | "oid" => Some(name),
            "text" | "character varying" => {
                let is_deterministic = self.columns[column.get()].is_deterministic;
                is_deterministic.then_some("text")
            }
            _ => name.starts_with("timestamp").then_some(name),
        }
    }
}

/// A unique index, or an exclusion constraint: of no two rows that satisfy `predicate` do all
/// `operators` hold between their `expressions`.
#[derive(Clone, Debug)]
pub(crate) struct UniqueIndex {
    pub name: String,
    pub is_primary: bool,
    /// SQL over the table's columns, unqualified.
    pub expressions: Vec<String>,
    /// What compares each expression, as SQL operators.
    pub operators: Vec<String>,
    /// The columns, if the expressions are columns and there is no predicate.
    pub columns: Option<Vec<ColumnIndex>>,
    pub predicate: Option<String>,
    pub nulls_are_equal: bool,
    /// Whether it is checked row by row, and not at the end of a statement or later.
    pub is_immediate: bool,
    /// Whether rows that agree in nothing may be in each other's way.
    pub is_exclusion: bool,
    /// Whether the server finds the only row with a value by it: it is of columns, under their own collations,
    /// and complete.
    pub finds_values: bool,
}

impl UniqueIndex {
    /// Rows as a subquery, with what the index compares of them, and only those that it holds.
    /// `from` has the table's columns.
    pub(crate) fn sql_rows(&self, name: &str, from: &str) -> String {
        let expressions = self.expressions.iter().zip(1..);
        let expressions: String = expressions
            .map(|(expression, place): (_, usize)| {
                format!(", ({expression}) AS \"reinstate {place}\"")
            })
            .collect();
        let predicate = match &self.predicate {
            Some(predicate) => format!(" WHERE {predicate}"),
            None => String::new(),
        };
        format!("(SELECT {name}.*{expressions} FROM {from} AS {name}{predicate})")
    }

    /// That two rows of such subqueries cannot both be there, as SQL.
    pub(crate) fn sql_equal(&self, one: &str, other: &str) -> String {
        let operators = self.operators.iter().zip(1..);
        let equal = operators.map(|(operator, place): (_, usize)| {
            let (one, other) = (
                format!("{one}.\"reinstate {place}\""),
                format!("{other}.\"reinstate {place}\""),
            );
            if self.nulls_are_equal {
                format!("({one} {operator} {other} OR ({one} IS NULL AND {other} IS NULL))")
            } else {
                format!("{one} {operator} {other}")
            }
        });
        equal.collect::<Vec<_>>().join(" AND ")
    }

    /// Rows that were sent, as a subquery that has the columns which the server computes as far as the
    /// index may need them.
    pub(crate) fn sql_complete(&self, generated: &[(String, String)], sent: &str) -> String {
        let generated: String = generated
            .iter()
            .filter(|_| self.columns.is_none())
            .map(|(name, expression)| format!(", ({expression}) AS {}", quote(name)))
            .collect();
        format!("(SELECT v.*{generated} FROM {sent} AS v)")
    }
}

/// A trigger or rule that an application defined and that would fire.
#[derive(Clone, Debug)]
pub(crate) struct Trigger {
    pub name: String,
    /// Whether it is kept from firing while rows are put back.
    pub is_silenced: bool,
    /// Whether an operator said that it may fire.
    pub is_allowed: bool,
    pub on_insert: bool,
    pub on_update: bool,
    pub on_delete: bool,
}

/// A foreign key with a column that the server computes.
#[derive(Clone, Debug)]
pub(crate) struct ComputedKey {
    pub name: String,
    pub child: TableIndex,
    pub parent: TableIndex,
    /// Whether it can wait until the end of a transaction, and acts on nothing.
    pub waits: bool,
}

/// A sequence that hands out values for a column.
#[derive(Clone, Debug)]
pub(crate) struct OwnedSequence {
    pub namespace: String,
    pub relation: String,
    pub display_name: String,
    pub column: ColumnIndex,
    pub increment: i64,
    pub value_max: i64,
    /// Whether it begins again at its end.
    pub is_cycle: bool,
}

/// A foreign key that changes or deletes its own table's rows when the parent's change.
#[derive(Clone, Debug)]
pub(crate) struct ReferentialAction {
    pub constraint: String,
    pub child: String,
    /// Whether the rows of the child belong to tenants, so that a plan can hold them.
    pub child_is_owned: bool,
    pub on_delete: bool,
    pub on_update: bool,
    /// Whether the key refers to columns outside of the primary key, which a merge may change.
    pub can_change: bool,
}

impl Catalog {
    /// A table with both of its descriptions.
    pub(crate) fn table(&self, index: TableIndex) -> (&TableSchema, &CatalogTable) {
        (self.schema.table(index), &self.tables[index.get()])
    }

    /// Both descriptions of every table.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TableIndex, &TableSchema, &CatalogTable)> {
        self.schema
            .iter()
            .zip(&self.tables)
            .map(|((index, table), catalog)| (index, table, catalog))
    }

    /// The table and the column that a name, as `issues.number`, stands for.
    ///
    /// # Errors
    /// `Usage`, with what names it, if there is none, or no tenant owns it, or it holds no whole
    /// numbers.
    pub(crate) fn counting_column(
        &self,
        name: &str,
        named_by: &str,
    ) -> Result<(TableIndex, ColumnIndex), StoreError> {
        let found = name.rsplit_once('.').and_then(|(table, column)| {
            let (index, table) = self.schema.find(table)?;
            let column = table.column(column)?;
            let is_number = table.columns[column.get()].key_form == KeyForm::Integer;
            (is_number && table.tenancy.is_tenant_owned()).then_some((index, column))
        });
        found.ok_or_else(|| {
            let message = format!(
                "tenancy.{named_by}: {name} is no column of whole numbers in a table of tenants"
            );
            StoreError::new(ErrorKind::Usage, message)
        })
    }

    /// Notes the tables in which rows of everybody may be created.
    ///
    /// # Errors
    /// `Usage` if one of them is not shared, or has no key that tells its rows apart.
    pub(crate) fn let_create(&mut self, names: &[String]) -> Result<(), StoreError> {
        for name in names {
            let found = self.schema.find(name);
            let shared = found.filter(|(_, table)| {
                table.tenancy == reinstate_core::Tenancy::Shared && table.has_key()
            });
            let Some((index, _)) = shared else {
                let message = format!(
                    "tenancy.create_missing: {name} is no shared table with a primary key: rows that \
                     are gone are created in no other"
                );
                return Err(StoreError::new(ErrorKind::Usage, message));
            };
            self.tables[index.get()].creates_missing = true;
        }
        Ok(())
    }

    /// The table that a relation is, or is a partition of.
    pub(crate) fn by_oid(&self, oid: u32) -> Option<TableIndex> {
        self.partitions.get(&oid).copied()
    }
}

impl CatalogTable {
    /// The table's name as SQL.
    pub(crate) fn sql_name(&self) -> String {
        qualified(&self.namespace, &self.relation)
    }

    /// The table as a source of rows: its own and its partitions', but not those of tables that
    /// inherit from it, which are tables by themselves.
    pub(crate) fn sql_rows(&self) -> String {
        if self.is_partitioned {
            self.sql_name()
        } else {
            format!("ONLY {}", self.sql_name())
        }
    }

    /// Whether row-level security would filter what this role reads.
    pub(crate) fn hides_rows(&self) -> bool {
        self.is_policed && !self.shows_all_rows
    }

    /// Whether triggers have to keep still while rows are put back.
    pub(crate) fn is_put_back_quietly(&self) -> bool {
        let mut triggers = self.triggers.iter();
        triggers.any(|trigger| trigger.on_update && trigger.is_silenced)
    }

    /// The columns as SQL, in the order of the schema.
    pub(crate) fn sql_columns(&self, alias: &str) -> String {
        columns_of(
            alias,
            self.columns.iter().map(|column| column.name.as_str()),
        )
    }
}

impl OwnedSequence {
    /// The greatest value from which nobody gets another one: of a row with such a value, the sequence
    /// would be at its end. None if it has none.
    pub(crate) fn last_of(&self, table: &CatalogTable) -> Option<i64> {
        if self.is_cycle || self.increment <= 0 {
            return None;
        }
        let column = table.columns.get(self.column.get());
        let of_type = match column.and_then(|column| column.tenant_type.as_ref()) {
            Some(TenantType::SmallInt) => i16::MAX.into(),
            Some(TenantType::Integer) => i32::MAX.into(),
            _ => i64::MAX,
        };
        Some(self.value_max.min(of_type))
    }

    /// The sequence's name as SQL.
    pub(crate) fn sql_name(&self) -> String {
        qualified(&self.namespace, &self.relation)
    }
}

/// A table's name as its users write it.
pub(crate) fn display_name(namespace: &str, relation: &str) -> String {
    if namespace == "public" {
        relation.to_owned()
    } else {
        format!("{namespace}.{relation}")
    }
}
