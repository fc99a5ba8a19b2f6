//! A store that remembers everything: tables as plain lists, owners by looking them up.

use reinstate_core::{
    ColumnIndex, ColumnSchema, KeyForm, Owner, Reference, Route, RouteCondition, RowBatch,
    RowBuilder, StoreSchema, TableIndex, TableName, TableSchema, Tenancy,
};

/// The values of a row.
pub type Values = Vec<Option<String>>;

/// Tables by index: rows in no order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    pub schema: StoreSchema,
    pub tables: Vec<Vec<Values>>,
}

/// One change, as a store that knows whole rows before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Insert(u32, Values),
    Update(u32, Values, Values),
    Delete(u32, Values),
    Truncate(u32),
}

pub const CURRENCIES: u32 = 0;
pub const PROJECTS: u32 = 1;
pub const ISSUES: u32 = 2;
pub const COMMENTS: u32 = 3;
pub const ACTIVITY: u32 = 4;
pub const NOTES: u32 = 5;
pub const MARKS: u32 = 6;

fn reference(column: u32, parent: u32) -> Reference {
    Reference {
        columns: vec![ColumnIndex(column)],
        parent: TableIndex(parent),
        parent_columns: vec![ColumnIndex(0)],
    }
}

fn table(name: &str, columns: &str, key: bool, tenancy: Tenancy) -> TableSchema {
    let column = |name: &str| ColumnSchema {
        name: name.trim_end_matches('?').to_owned(),
        type_name: "text".to_owned(),
        nullable: name.ends_with('?'),
        key_form: KeyForm::Integer,
    };
    TableSchema {
        name: TableName::new(name),
        columns: columns.split(' ').map(column).collect(),
        key: if key {
            vec![ColumnIndex(0)]
        } else {
            Vec::new()
        },
        references: tenancy.references().cloned().collect(),
        tenancy,
    }
}

/// Every kind of tenancy: shared, by a column, over one and two hops, one of two ways, and without a
/// key by a column and over a hop.
pub fn schema() -> StoreSchema {
    let way = |kind: &str, parent| Route {
        condition: Some(RouteCondition {
            column: ColumnIndex(1),
            value: kind.to_owned(),
        }),
        reference: reference(2, parent),
    };
    let direct = |column| Tenancy::Direct {
        column: ColumnIndex(column),
    };
    let via = |column, parent| Tenancy::Via {
        reference: reference(column, parent),
    };
    let notes = Tenancy::OneOf {
        routes: vec![way("p", PROJECTS), way("i", ISSUES)],
    };
    StoreSchema::try_new(vec![
        table("currencies", "code name?", true, Tenancy::Shared),
        table("projects", "id account? name?", true, direct(1)),
        table("issues", "id project title?", true, via(1, PROJECTS)),
        table("comments", "id issue body?", true, via(1, ISSUES)),
        table("activity", "account? note?", false, direct(0)),
        table("notes", "id kind? subject? text?", true, notes),
        table("marks", "project label?", false, via(0, PROJECTS)),
    ])
    .unwrap()
}

/// One table, which no other goes by.
pub fn schema_of_one() -> StoreSchema {
    let tenancy = Tenancy::Direct {
        column: ColumnIndex(1),
    };
    StoreSchema::try_new(vec![table("projects", "id account name?", true, tenancy)]).unwrap()
}

pub fn values(values: &[&str]) -> Values {
    let value = |value: &&str| (*value != "-").then(|| (*value).to_owned());
    values.iter().map(value).collect()
}

/// The row with these values, as stores encode it.
pub fn encode(schema: &StoreSchema, table: u32, values: &Values) -> RowBuilder {
    let mut row = RowBuilder::new();
    let values: Vec<Option<&[u8]>> = values
        .iter()
        .map(|v| v.as_deref().map(str::as_bytes))
        .collect();
    schema
        .table(TableIndex(table))
        .encode_row(&values, &mut row)
        .unwrap();
    row
}

impl Model {
    pub fn new(schema: &StoreSchema) -> Self {
        Self {
            schema: schema.clone(),
            tables: vec![Vec::new(); schema.tables().len()],
        }
    }

    pub fn apply(&mut self, step: &Step) {
        let remove = |rows: &mut Vec<Values>, row: &Values| {
            let place = rows.iter().position(|other| other == row).unwrap();
            rows.remove(place);
        };
        match step {
            Step::Insert(table, row) => self.tables[*table as usize].push(row.clone()),
            Step::Update(table, before, after) => {
                let rows = &mut self.tables[*table as usize];
                remove(rows, before);
                rows.push(after.clone());
            }
            Step::Delete(table, row) => remove(&mut self.tables[*table as usize], row),
            Step::Truncate(table) => self.tables[*table as usize].clear(),
        }
    }

    /// The owner of a row, found by walking; none: shared.
    pub fn owner(&self, table: u32, row: &Values) -> Option<String> {
        let go = |reference: &Reference| {
            let name = row[reference.columns[0].get()].as_ref()?;
            let parent = reference.parent.0;
            let rows = &self.tables[parent as usize];
            let column = reference.parent_columns[0].get();
            let found = rows.iter().find(|row| row[column].as_ref() == Some(name))?;
            self.owner(parent, found)
        };
        match &self.schema.table(TableIndex(table)).tenancy {
            Tenancy::Direct { column } => row[column.get()].clone().filter(|id| !id.is_empty()),
            Tenancy::Via { reference } => go(reference),
            Tenancy::OneOf { routes } => {
                let open = routes.iter().find(|route| {
                    let condition = route.condition.as_ref().unwrap();
                    row[condition.column.get()].as_ref() == Some(&condition.value)
                        && row[route.reference.columns[0].get()].is_some()
                });
                open.and_then(|route| go(&route.reference))
            }
            _ => None,
        }
    }

    /// The rows of one owner in one table, encoded and in order.
    pub fn rows_of(&self, table: u32, owner: &Owner) -> Vec<u8> {
        let rows = self.tables[table as usize].iter();
        let own = rows.filter(|row| {
            let found = self.owner(table, row).unwrap_or_default();
            found.as_bytes() == owner.as_bytes()
        });
        let mut encoded: Vec<RowBuilder> =
            own.map(|row| encode(&self.schema, table, row)).collect();
        encoded.sort_by(|left, right| reinstate_core::compare_rows(left.row(), right.row()));
        let mut batch = RowBatch::new();
        encoded.iter().for_each(|row| batch.push_row(row.row()));
        batch.into_bytes()
    }

    /// The row with this first value.
    pub fn find(&self, table: u32, id: &str) -> Option<&Values> {
        let mut rows = self.tables[table as usize].iter();
        rows.find(|row| row[0].as_deref() == Some(id))
    }

    /// The rows of a table that refer to this one by a column.
    pub fn named_by(&self, table: u32, column: usize, id: &str) -> Vec<Values> {
        let rows = self.tables[table as usize].iter();
        rows.filter(|row| row[column].as_deref() == Some(id))
            .cloned()
            .collect()
    }
}
