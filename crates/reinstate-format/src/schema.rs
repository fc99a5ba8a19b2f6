//! A store's tables, as manifests and plans contain them.

use reinstate_core::{
    ColumnIndex, ColumnSchema, Digest, KeyForm, Reference, Route, RouteCondition, StoreSchema,
    TableIndex, TableName, TableSchema, Tenancy,
};
use wincode::{SchemaRead, SchemaWrite};

use crate::FormatError;
use crate::codec;

/// First bytes of what a schema's digest is over.
pub(crate) const SCHEMA_TAG: [u8; 8] = *b"RNSTSCHM";

/// Persisted: never renumber.
const KEY_FORM_BYTES: u8 = 0;
/// Persisted: never renumber.
const KEY_FORM_INTEGER: u8 = 1;

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct WireSchema {
    tables: Vec<WireTable>,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireTable {
    name: String,
    columns: Vec<WireColumn>,
    key: Vec<u32>,
    tenancy: WireTenancy,
    references: Vec<WireReference>,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireColumn {
    name: String,
    type_name: String,
    nullable: bool,
    key_form: u8,
}

/// The variant's number is a u32 in front. Persisted: never renumber.
#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
enum WireTenancy {
    #[wincode(tag = 0)]
    Native,
    #[wincode(tag = 1)]
    Direct { column: u32 },
    #[wincode(tag = 2)]
    Via { reference: WireReference },
    #[wincode(tag = 3)]
    Shared,
    #[wincode(tag = 4)]
    Excluded,
    #[wincode(tag = 5)]
    OneOf { routes: Vec<WireRoute> },
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireRoute {
    condition: Option<WireCondition>,
    reference: WireReference,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireCondition {
    column: u32,
    value: String,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireReference {
    columns: Vec<u32>,
    parent: u32,
    parent_columns: Vec<u32>,
}

/// The digest of a store's tables: equal for equal schemas.
#[must_use]
pub fn schema_digest(schema: &StoreSchema) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&SCHEMA_TAG);
    hasher.update(&codec::encode(&WireSchema::from(schema)));
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

impl From<&StoreSchema> for WireSchema {
    fn from(schema: &StoreSchema) -> Self {
        Self {
            tables: schema.tables().iter().map(WireTable::from).collect(),
        }
    }
}

impl WireSchema {
    /// The schema, checked by its own constructor and against the digest kept beside it.
    pub(crate) fn into_schema(
        self,
        structure: &'static str,
        digest: Digest,
    ) -> Result<StoreSchema, FormatError> {
        let tables: Result<Vec<_>, _> = self
            .tables
            .into_iter()
            .map(|table| table.into_table(structure))
            .collect();
        let schema = StoreSchema::try_new(tables?)
            .map_err(|error| FormatError::malformed(structure, error.to_string()))?;
        if schema_digest(&schema) == digest {
            Ok(schema)
        } else {
            Err(FormatError::malformed(
                structure,
                "the tables do not have the digest beside them",
            ))
        }
    }
}

impl From<&TableSchema> for WireTable {
    fn from(table: &TableSchema) -> Self {
        Self {
            name: table.name.as_str().to_owned(),
            columns: table.columns.iter().map(WireColumn::from).collect(),
            key: numbers(&table.key),
            tenancy: WireTenancy::from(&table.tenancy),
            references: table.references.iter().map(WireReference::from).collect(),
        }
    }
}

impl WireTable {
    fn into_table(self, structure: &'static str) -> Result<TableSchema, FormatError> {
        let columns: Result<Vec<_>, _> = self
            .columns
            .into_iter()
            .map(|column| column.into_column(structure))
            .collect();
        Ok(TableSchema {
            name: TableName::new(self.name),
            columns: columns?,
            key: indexes(self.key),
            tenancy: self.tenancy.into(),
            references: self.references.into_iter().map(Reference::from).collect(),
        })
    }
}

impl From<&ColumnSchema> for WireColumn {
    fn from(column: &ColumnSchema) -> Self {
        Self {
            name: column.name.clone(),
            type_name: column.type_name.clone(),
            nullable: column.nullable,
            key_form: match column.key_form {
                KeyForm::Bytes => KEY_FORM_BYTES,
                KeyForm::Integer => KEY_FORM_INTEGER,
            },
        }
    }
}

impl WireColumn {
    fn into_column(self, structure: &'static str) -> Result<ColumnSchema, FormatError> {
        let key_form = match self.key_form {
            KEY_FORM_BYTES => KeyForm::Bytes,
            KEY_FORM_INTEGER => KeyForm::Integer,
            other => {
                let fact = format!("column {}: unknown key form {other}", self.name);
                return Err(FormatError::malformed(structure, fact));
            }
        };
        let Self {
            name,
            type_name,
            nullable,
            ..
        } = self;
        Ok(ColumnSchema {
            name,
            type_name,
            nullable,
            key_form,
        })
    }
}

impl From<&Tenancy> for WireTenancy {
    fn from(tenancy: &Tenancy) -> Self {
        match tenancy {
            Tenancy::Native => Self::Native,
            Tenancy::Direct { column } => Self::Direct { column: column.0 },
            Tenancy::Via { reference } => Self::Via {
                reference: reference.into(),
            },
            Tenancy::OneOf { routes } => Self::OneOf {
                routes: routes.iter().map(WireRoute::from).collect(),
            },
            Tenancy::Shared => Self::Shared,
            Tenancy::Excluded => Self::Excluded,
        }
    }
}

impl From<WireTenancy> for Tenancy {
    fn from(tenancy: WireTenancy) -> Self {
        match tenancy {
            WireTenancy::Native => Self::Native,
            WireTenancy::Direct { column } => Self::Direct {
                column: ColumnIndex(column),
            },
            WireTenancy::Via { reference } => Self::Via {
                reference: reference.into(),
            },
            WireTenancy::OneOf { routes } => Self::OneOf {
                routes: routes.into_iter().map(Route::from).collect(),
            },
            WireTenancy::Shared => Self::Shared,
            WireTenancy::Excluded => Self::Excluded,
        }
    }
}

impl From<&Route> for WireRoute {
    fn from(route: &Route) -> Self {
        Self {
            condition: route.condition.as_ref().map(|condition| WireCondition {
                column: condition.column.0,
                value: condition.value.clone(),
            }),
            reference: WireReference::from(&route.reference),
        }
    }
}

impl From<WireRoute> for Route {
    fn from(route: WireRoute) -> Self {
        Self {
            condition: route.condition.map(|condition| RouteCondition {
                column: ColumnIndex(condition.column),
                value: condition.value,
            }),
            reference: route.reference.into(),
        }
    }
}

impl From<&Reference> for WireReference {
    fn from(reference: &Reference) -> Self {
        Self {
            columns: numbers(&reference.columns),
            parent: reference.parent.0,
            parent_columns: numbers(&reference.parent_columns),
        }
    }
}

impl From<WireReference> for Reference {
    fn from(reference: WireReference) -> Self {
        Self {
            columns: indexes(reference.columns),
            parent: TableIndex(reference.parent),
            parent_columns: indexes(reference.parent_columns),
        }
    }
}

fn numbers(columns: &[ColumnIndex]) -> Vec<u32> {
    columns.iter().map(|column| column.0).collect()
}

fn indexes(columns: Vec<u32>) -> Vec<ColumnIndex> {
    columns.into_iter().map(ColumnIndex).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::check_against_bincode;

    #[test]
    fn the_layout_of_every_kind_of_table_is_that_of_bincode() {
        let reference = || WireReference {
            columns: vec![0, 1],
            parent: 7,
            parent_columns: vec![1, 0],
        };
        let tenancies = [
            WireTenancy::Native,
            WireTenancy::Direct { column: 3 },
            WireTenancy::Via {
                reference: reference(),
            },
            WireTenancy::Shared,
            WireTenancy::Excluded,
            WireTenancy::OneOf {
                routes: vec![
                    WireRoute {
                        condition: Some(WireCondition {
                            column: 1,
                            value: "Order".to_owned(),
                        }),
                        reference: reference(),
                    },
                    WireRoute {
                        condition: None,
                        reference: reference(),
                    },
                ],
            },
        ];
        for (number, tenancy) in (0u32..).zip(tenancies) {
            assert_eq!(codec::encode(&tenancy)[..4], number.to_le_bytes());
            let column = WireColumn {
                name: "id".to_owned(),
                type_name: "bigint".to_owned(),
                nullable: true,
                key_form: KEY_FORM_INTEGER,
            };
            check_against_bincode(&WireSchema {
                tables: vec![WireTable {
                    name: "orders".to_owned(),
                    columns: vec![column],
                    key: vec![0],
                    tenancy,
                    references: vec![reference()],
                }],
            });
        }
    }
}
