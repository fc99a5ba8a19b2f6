//! Whose rows a table holds.

use reinstate_core::{ErrorKind, Reference, StoreError, TableIndex, Tenancy};

use super::read::Draft;
use super::ways::Ways;
use crate::tenancy::{TableRule, TenancyMap};

/// A declared foreign key.
#[derive(Clone, Debug)]
pub(crate) struct ForeignKey {
    pub name: String,
    pub child: TableIndex,
    pub reference: Reference,
    pub is_validated: bool,
    /// Whether all of it can wait until the end of a transaction; a RESTRICT never does.
    pub is_deferrable: bool,
    /// Whether all of its columns are NULL, or none.
    pub is_match_full: bool,
    pub acts_on_delete: bool,
    /// Whether a row that is referred to cannot be deleted even for a moment.
    pub restricts_delete: bool,
    pub acts_on_update: bool,
    /// Whether rows get the new value of what they refer to.
    pub cascades_update: bool,
    /// What compares each pair of columns, the parent's first, as SQL operators.
    pub operators: Vec<String>,
}

/// Whose rows a table holds, and how to get there.
pub(super) struct Class {
    pub tenancy: Tenancy,
    pub way_operators: Vec<Vec<String>>,
    pub refuses_unowned: bool,
}

impl From<Tenancy> for Class {
    fn from(tenancy: Tenancy) -> Self {
        Self {
            tenancy,
            way_operators: Vec::new(),
            refuses_unowned: false,
        }
    }
}

/// The class of every table, in their order.
pub(super) fn classify(
    drafts: &[Draft],
    keys: &[ForeignKey],
    map: &TenancyMap,
) -> Result<Vec<Class>, StoreError> {
    for name in map.named_tables() {
        if find(drafts, name).is_none() {
            return Err(usage(format!(
                "tenancy: there is no table {name}; tables outside of the schema public are \
                 written schema.table"
            )));
        }
    }
    let mut classes = Vec::with_capacity(drafts.len());
    let mut unclassified = Vec::new();
    for (index, draft) in (0..).map(TableIndex).zip(drafts) {
        let name = draft.schema.name.as_str();
        let class = match map.rule(name)? {
            Some(TableRule::Shared) => Tenancy::Shared.into(),
            Some(TableRule::Excluded) => Tenancy::Excluded.into(),
            Some(TableRule::Direct { column }) => direct(draft, &column)?.into(),
            Some(TableRule::Via { reference, unowned }) => Ways {
                drafts,
                keys,
                child: index,
            }
            .via(&reference, unowned)?,
            Some(TableRule::OneOf { routes, unowned }) => Ways {
                drafts,
                keys,
                child: index,
            }
            .one_of(&routes, unowned)?,
            None => match &map.column {
                Some(column) if draft.schema.column(column).is_some() => {
                    direct(draft, column)?.into()
                }
                _ => {
                    unclassified.push(index);
                    Tenancy::Excluded.into()
                }
            },
        };
        classes.push(class);
    }
    if unclassified.is_empty() {
        Ok(classes)
    } else {
        Err(nobody_owns(drafts, keys, &unclassified))
    }
}

pub(super) fn find<'d>(drafts: &'d [Draft], name: &str) -> Option<(TableIndex, &'d Draft)> {
    let mut drafts = (0..).map(TableIndex).zip(drafts);
    drafts.find(|(_, draft)| draft.schema.name.as_str() == name)
}

fn direct(draft: &Draft, column: &str) -> Result<Tenancy, StoreError> {
    let table = &draft.schema.name;
    let Some(index) = draft.schema.column(column) else {
        return Err(usage(format!(
            "tenancy: table {table} has no column {column} (generated columns do not count)"
        )));
    };
    let found = &draft.catalog.columns[index.get()];
    if !found.is_deterministic {
        return Err(refused(format!(
            "tenancy: column {table}.{column} has a nondeterministic collation, under which two \
             tenants can be equal: give it a deterministic one"
        )));
    }
    if found.tenant_type.is_none() {
        return Err(refused(format!(
            "tenancy: column {table}.{column} is of type {}, whose values cannot name tenants: \
             expected an integer, text, uuid or an enumeration",
            found.type_sql
        )));
    }
    Ok(Tenancy::Direct { column: index })
}

/// Names every table without an owner, with lines that would give it one.
fn nobody_owns(drafts: &[Draft], keys: &[ForeignKey], tables: &[TableIndex]) -> StoreError {
    let mut message = format!(
        "tenancy: {} tables have no declared owner, so that their rows would be in nobody's \
         restore. Say for each whose they are:\n",
        tables.len()
    );
    for &index in tables {
        let name = drafts[index.get()].schema.name.as_str();
        let header = match name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            true => format!("[tenancy.table.{name}]"),
            false => format!("[tenancy.table.{name:?}]"),
        };
        message.push_str(&format!("{header}\n"));
        match suggestion(drafts, keys, index) {
            Some(via) => message.push_str(&format!("via = {via:?}\n")),
            None => message.push_str("column = \"...\"   # or via = \"column -> parent.column\"\n"),
        }
    }
    let names: Vec<String> = tables
        .iter()
        .map(|index| format!("{:?}", drafts[index.get()].schema.name.as_str()))
        .collect();
    message.push_str(&format!(
        "or, in [tenancy], shared = [{}] if the rows are everybody's, excluded = [...] to leave \
         them out",
        names.join(", ")
    ));
    StoreError::new(ErrorKind::Unclassified, message)
}

/// The only foreign key of a table that its rows cannot be without.
fn suggestion(drafts: &[Draft], keys: &[ForeignKey], table: TableIndex) -> Option<String> {
    let schema = &drafts[table.get()].schema;
    let is_firm = |key: &&ForeignKey| {
        let mut columns = key.reference.columns.iter();
        key.child == table
            && key.reference.parent != table
            && key.is_validated
            && columns.all(|column| !schema.columns[column.get()].nullable)
    };
    let mut firm = keys.iter().filter(is_firm);
    let (key, None) = (firm.next()?, firm.next()) else {
        return None;
    };
    let parent = &drafts[key.reference.parent.get()].schema;
    let columns: Vec<&str> = key
        .reference
        .columns
        .iter()
        .map(|column| schema.columns[column.get()].name.as_str())
        .collect();
    let targets: Vec<String> = key
        .reference
        .parent_columns
        .iter()
        .map(|column| format!("{}.{}", parent.name, parent.columns[column.get()].name))
        .collect();
    Some(format!("{} -> {}", columns.join(", "), targets.join(", ")))
}

pub(super) fn usage(message: String) -> StoreError {
    StoreError::new(ErrorKind::Usage, message)
}

pub(super) fn refused(message: String) -> StoreError {
    StoreError::new(ErrorKind::Refused, message)
}
