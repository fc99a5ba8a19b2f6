//! From one version of a store's tables to the next, while the store is followed.
//!
//! A row of a table as it was becomes a row of the table as it is by itself: each column is one that
//! was there, or holds the same for all rows. So it makes no difference whether a row changes before or
//! after its table, and where the change stands among those of other transactions costs nothing but how
//! a row looks in between.

use std::collections::BTreeSet;

use super::{
    ColumnIndex, Reference, Route, RouteCondition, StoreSchema, TableIndex, TableSchema, Tenancy,
};

/// Where the values of a column come from, for rows that were there before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ColumnOrigin {
    /// A column that the table had.
    From(ColumnIndex),
    /// Nowhere: it was added, and all rows hold this.
    Filled(Option<Vec<u8>>),
}

/// What a table was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOrigin {
    /// The table.
    pub table: TableIndex,
    /// For each column of the table as it is, where its values come from.
    pub columns: Vec<ColumnOrigin>,
}

/// Tables that are others than they were, and how rows became rows of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaChange {
    schema: StoreSchema,
    origins: Vec<Option<TableOrigin>>,
    facts: Vec<u8>,
}

/// Why rows cannot be followed from tables as they were to tables as they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaChangeError {
    /// An index points nowhere, or two tables or columns come from the same one.
    #[error("{0}")]
    Malformed(&'static str),
    /// The rows of a table are told apart by something else.
    #[error("the primary key of table {0} is another")]
    Key(String),
    /// The rows of a table belong to their tenants by another rule.
    #[error("the rows of table {0} belong to their tenants by another rule")]
    Tenancy(String),
    /// Rows without a key are in the order of all that they contain, and would be in another one.
    #[error("table {0} has no key, and lost columns or has them in another order")]
    Order(String),
}

impl SchemaChange {
    /// Tables that follow those of `before`. For each table of `schema` where it comes from; none: it is
    /// new, and empty. A table from which none comes is gone, with its rows. `facts` is what the store
    /// wants to be told again when its feed is resumed.
    ///
    /// # Errors
    /// Any [`SchemaChangeError`].
    pub fn try_new(
        before: &StoreSchema,
        schema: StoreSchema,
        origins: Vec<Option<TableOrigin>>,
        facts: Vec<u8>,
    ) -> Result<Self, SchemaChangeError> {
        let change = Self {
            schema,
            origins,
            facts,
        };
        change.check_indexes(before)?;
        for ((_, table), origin) in change.schema.iter().zip(&change.origins) {
            if let Some(origin) = origin {
                change.check_rows(before.table(origin.table), origin, table)?;
            }
        }
        Ok(change)
    }

    /// The same tables: only what the store wants to be told again is noted.
    #[must_use]
    pub fn unchanged(schema: &StoreSchema, facts: Vec<u8>) -> Self {
        let origins = schema.iter().map(|(table, described)| {
            let columns = (0..).map(ColumnIndex).take(described.columns.len());
            Some(TableOrigin {
                table,
                columns: columns.map(ColumnOrigin::From).collect(),
            })
        });
        Self {
            origins: origins.collect(),
            schema: schema.clone(),
            facts,
        }
    }

    /// The tables as they are.
    #[must_use]
    pub const fn schema(&self) -> &StoreSchema {
        &self.schema
    }

    /// For each of them what it was; none for a new one.
    #[must_use]
    pub fn origins(&self) -> &[Option<TableOrigin>] {
        &self.origins
    }

    /// What the store wants to be told again.
    #[must_use]
    pub fn facts(&self) -> &[u8] {
        &self.facts
    }

    /// The table that this one became; none if it is gone.
    #[must_use]
    pub fn target(&self, table: TableIndex) -> Option<TableIndex> {
        let is_from = |origin: &Option<TableOrigin>| {
            origin.as_ref().is_some_and(|origin| origin.table == table)
        };
        let place = self.origins.iter().position(is_from)?;
        u32::try_from(place).ok().map(TableIndex)
    }

    fn check_indexes(&self, before: &StoreSchema) -> Result<(), SchemaChangeError> {
        let malformed = |what| Err(SchemaChangeError::Malformed(what));
        if self.origins.len() != self.schema.tables().len() {
            return malformed("it does not say of every table what it was");
        }
        let mut tables = BTreeSet::new();
        for ((_, table), origin) in self.schema.iter().zip(&self.origins) {
            let Some(origin) = origin else {
                continue;
            };
            let Some(was) = before.get(origin.table) else {
                return malformed("a table comes from one that does not exist");
            };
            if !tables.insert(origin.table) {
                return malformed("two tables come from the same one");
            }
            if origin.columns.len() != table.columns.len() {
                return malformed("it does not say of every column what it was");
            }
            let mut columns = BTreeSet::new();
            for column in &origin.columns {
                if let ColumnOrigin::From(column) = column
                    && (column.get() >= was.columns.len() || !columns.insert(*column))
                {
                    return malformed("a column comes from one that does not exist, or is taken");
                }
            }
        }
        Ok(())
    }

    fn check_rows(
        &self,
        was: &TableSchema,
        origin: &TableOrigin,
        table: &TableSchema,
    ) -> Result<(), SchemaChangeError> {
        let name = || table.name.to_string();
        let key = was.key.iter().map(|column| origin.target(*column));
        let key: Option<Vec<ColumnIndex>> = key.collect();
        let mut forms = was.key.iter().zip(&table.key).map(|(then, now)| {
            was.columns[then.get()].key_form == table.columns[now.get()].key_form
        });
        if key.as_ref() != Some(&table.key) || !forms.all(|is_same| is_same) {
            return Err(SchemaChangeError::Key(name()));
        }
        if self.tenancy(origin, &was.tenancy).as_ref() != Some(&table.tenancy) {
            return Err(SchemaChangeError::Tenancy(name()));
        }
        let kept = origin.columns.iter().filter_map(|column| match column {
            ColumnOrigin::From(column) => Some(column.0),
            ColumnOrigin::Filled(_) => None,
        });
        let kept: Vec<u32> = kept.collect();
        let is_ordered = kept.len() == was.columns.len() && kept.is_sorted();
        if !table.has_key() && !is_ordered {
            return Err(SchemaChangeError::Order(name()));
        }
        Ok(())
    }

    /// What a tenancy is in terms of the tables as they are; none if it leads through something that is
    /// gone.
    fn tenancy(&self, origin: &TableOrigin, tenancy: &Tenancy) -> Option<Tenancy> {
        Some(match tenancy {
            Tenancy::Native => Tenancy::Native,
            Tenancy::Shared => Tenancy::Shared,
            Tenancy::Excluded => Tenancy::Excluded,
            Tenancy::Direct { column } => Tenancy::Direct {
                column: origin.target(*column)?,
            },
            Tenancy::Via { reference } => Tenancy::Via {
                reference: self.reference(origin, reference)?,
            },
            Tenancy::OneOf { routes } => {
                let routes = routes.iter().map(|route| {
                    let condition = match &route.condition {
                        None => None,
                        Some(RouteCondition { column, value }) => Some(RouteCondition {
                            column: origin.target(*column)?,
                            value: value.clone(),
                        }),
                    };
                    Some(Route {
                        condition,
                        reference: self.reference(origin, &route.reference)?,
                    })
                });
                Tenancy::OneOf {
                    routes: routes.collect::<Option<_>>()?,
                }
            }
        })
    }

    fn reference(&self, origin: &TableOrigin, reference: &Reference) -> Option<Reference> {
        let parent = self.target(reference.parent)?;
        let of_parent = self.origins[parent.get()].as_ref()?;
        let columns = |origin: &TableOrigin, columns: &[ColumnIndex]| {
            let columns = columns.iter().map(|column| origin.target(*column));
            columns.collect::<Option<Vec<_>>>()
        };
        Some(Reference {
            columns: columns(origin, &reference.columns)?,
            parent,
            parent_columns: columns(of_parent, &reference.parent_columns)?,
        })
    }
}

impl TableOrigin {
    /// The column that this one became; none if it is gone.
    fn target(&self, column: ColumnIndex) -> Option<ColumnIndex> {
        let mut columns = self.columns.iter();
        let place = columns.position(|origin| *origin == ColumnOrigin::From(column))?;
        u32::try_from(place).ok().map(ColumnIndex)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{direct, table, via};
    use super::*;

    fn before() -> StoreSchema {
        StoreSchema::try_new(vec![
            table("items", via(0, 1), &[1]),
            table("orders", direct(), &[]),
        ])
        .unwrap()
    }

    fn from(table: u32, columns: &[Option<u32>]) -> Option<TableOrigin> {
        let columns = columns.iter().map(|column| match column {
            Some(column) => ColumnOrigin::From(ColumnIndex(*column)),
            None => ColumnOrigin::Filled(None),
        });
        Some(TableOrigin {
            table: TableIndex(table),
            columns: columns.collect(),
        })
    }

    const SAME: [Option<u32>; 3] = [Some(0), Some(1), Some(2)];

    #[test]
    fn tables_may_change_places_and_columns_may_come_and_go() {
        let after = StoreSchema::try_new(vec![
            table("orders", direct(), &[]),
            table("lines", via(0, 0), &[0]),
            table("new", via(0, 0), &[0]),
        ])
        .unwrap();
        let origins = vec![from(1, &[Some(0), Some(1), None]), from(0, &SAME), None];
        let change = SchemaChange::try_new(&before(), after, origins, vec![1]).unwrap();
        assert_eq!(change.target(TableIndex(0)), Some(TableIndex(1)));
        assert_eq!(change.target(TableIndex(2)), None);
    }

    #[test]
    fn what_tells_rows_apart_or_says_whose_they_are_must_stay() {
        let check = |tables: Vec<TableSchema>, origins| {
            let schema = StoreSchema::try_new(tables).unwrap();
            SchemaChange::try_new(&before(), schema, origins, Vec::new()).unwrap_err()
        };
        let orders = || table("orders", direct(), &[]);
        let other_key = vec![from(1, &[Some(2), Some(1), Some(0)])];
        assert_eq!(
            check(vec![orders()], other_key),
            SchemaChangeError::Key("orders".to_owned())
        );
        let other_tenant = vec![from(1, &[Some(0), Some(2), Some(1)])];
        assert_eq!(
            check(vec![orders()], other_tenant),
            SchemaChangeError::Tenancy("orders".to_owned())
        );
        // What its rows go by is gone.
        let parentless = vec![None, from(0, &SAME)];
        assert_eq!(
            check(vec![orders(), table("items", via(0, 0), &[0])], parentless),
            SchemaChangeError::Tenancy("items".to_owned())
        );
        for malformed in [
            vec![],
            vec![from(7, &SAME)],
            vec![from(1, &SAME[..2])],
            vec![from(1, &[Some(0), Some(1), Some(1)])],
            vec![from(1, &[Some(0), Some(1), Some(9)])],
        ] {
            let error = check(vec![orders()], malformed);
            assert!(matches!(error, SchemaChangeError::Malformed(_)), "{error}");
        }
    }

    #[test]
    fn rows_without_a_key_must_stay_in_their_order() {
        let keyless = || TableSchema {
            key: Vec::new(),
            ..table("log", direct(), &[])
        };
        let before = StoreSchema::try_new(vec![keyless()]).unwrap();
        let make = |columns: &[Option<u32>]| {
            let mut after = keyless();
            let column = after.columns[2].clone();
            after.columns.resize(columns.len(), column);
            let schema = StoreSchema::try_new(vec![after]).unwrap();
            SchemaChange::try_new(&before, schema, vec![from(0, columns)], Vec::new())
        };
        assert!(make(&[Some(0), Some(1), Some(2), None]).is_ok());
        let order = Err(SchemaChangeError::Order("log".to_owned()));
        assert_eq!(make(&[Some(0), Some(1)]), order);
    }
}
