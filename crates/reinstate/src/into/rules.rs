//! What an operator decides about the columns of a copy, and how it is written.

use std::collections::{BTreeMap, BTreeSet};

use reinstate_core::{ColumnIndex, ErrorKind, RouteCondition, StoreSchema, TableIndex};

use super::json::Step;
use crate::Error;

/// What an operator decided about copies under another id, table by table, by their live names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyRules {
    /// Tables of which the copy has no rows.
    pub left_out: BTreeSet<String>,
    /// What columns of a name hold in the copy, in every table where they have to be unique and nothing
    /// else decides.
    pub columns: BTreeMap<String, ColumnRule>,
    /// The tables.
    pub tables: BTreeMap<String, TableCopyRules>,
}

/// What an operator decided about one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableCopyRules {
    /// What single columns hold in the copy.
    pub columns: BTreeMap<String, ColumnRule>,
    /// References that neither a foreign key nor the tenancy declares.
    pub references: Vec<CopyReference>,
    /// References inside of JSON columns, as `$.order_ids[*] -> orders.id`, or `-> tenant` for the
    /// tenant's own id.
    pub json: BTreeMap<String, Vec<String>>,
}

/// What a column holds in the copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnRule {
    /// New numbers, uuids or bytes, and so does all that refers to it.
    New,
    /// What the original holds.
    Keep,
    /// NULL.
    Null,
    /// What the original holds, after this text; none: after the id of the copy and a hyphen.
    Prefix(Option<String>),
    /// What the original holds, and this text; none: a hyphen and the id of the copy.
    Suffix(Option<String>),
}

/// A reference from columns to columns of another table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyReference {
    /// What a row must say to have it, as `subject_type = Order`; none: nothing.
    pub when: Option<String>,
    /// The columns, as `subject_id -> orders.id`.
    pub via: String,
}

/// What a value inside of a JSON document refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum JsonTarget {
    Tenant,
    Column(TableIndex, ColumnIndex),
}

pub(super) fn usage(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Usage, message)
}

/// The table that a rule is about.
///
/// # Errors
/// `Usage` if there is none that tenants own.
pub(super) fn table(schema: &StoreSchema, name: &str) -> Result<TableIndex, Error> {
    match schema.find(name) {
        Some((index, table)) if table.tenancy.is_tenant_owned() => Ok(index),
        Some(_) => Err(usage(format!("into: no tenant owns rows of table {name}"))),
        None => Err(usage(format!("into: there is no table {name}"))),
    }
}

/// The column that a rule is about.
///
/// # Errors
/// `Usage` if there is none.
pub(super) fn column(
    schema: &StoreSchema,
    table: TableIndex,
    name: &str,
) -> Result<ColumnIndex, Error> {
    let table = schema.table(table);
    let missing = || usage(format!("into: table {} has no column {name}", table.name));
    table.column(name).ok_or_else(missing)
}

impl CopyReference {
    /// The pairs of columns and what leads to them, with the condition.
    ///
    /// # Errors
    /// `Usage` if it is not written as it should be, or names what there is not.
    #[expect(clippy::type_complexity, reason = "taken apart where it is returned")]
    pub(super) fn parse(
        &self,
        schema: &StoreSchema,
        child: TableIndex,
    ) -> Result<
        (
            Option<RouteCondition>,
            Vec<(ColumnIndex, (TableIndex, ColumnIndex))>,
        ),
        Error,
    > {
        let name = &schema.table(child).name;
        let wrong = || {
            usage(format!(
                "into.table.{name}: {:?}: expected \"column -> parent.column\", as in \
                 \"order_id -> orders.id\", and when = \"column = value\"",
                self.via
            ))
        };
        let (columns, targets) = self.via.split_once("->").ok_or_else(wrong)?;
        let columns: Vec<&str> = columns.split(',').map(str::trim).collect();
        let targets: Vec<&str> = targets.split(',').map(str::trim).collect();
        if columns.len() != targets.len() {
            return Err(wrong());
        }
        let mut pairs = Vec::with_capacity(columns.len());
        for (name, target) in columns.into_iter().zip(targets) {
            let target = target_column(schema, target).ok_or_else(wrong)??;
            pairs.push((column(schema, child, name)?, target));
        }
        let condition = match &self.when {
            None => None,
            Some(text) => {
                let (name, value) = text.split_once('=').ok_or_else(wrong)?;
                Some(RouteCondition {
                    column: column(schema, child, name.trim())?,
                    value: value.trim().to_owned(),
                })
            }
        };
        Ok((condition, pairs))
    }
}

/// Reads `$.order_ids[*] -> orders.id`.
///
/// # Errors
/// `Usage` if it is not written as it should be, or names what there is not.
pub(super) fn json_reference(
    schema: &StoreSchema,
    text: &str,
) -> Result<(Vec<Step>, JsonTarget), Error> {
    let wrong = || {
        usage(format!(
            "into: json {text:?}: expected \"$.path -> table.column\", as in \
             \"$.order_ids[*] -> orders.id\", or \"$.path -> tenant\""
        ))
    };
    let (path, target) = text.rsplit_once("->").ok_or_else(wrong)?;
    let path = Step::parse_all(path.trim()).ok_or_else(wrong)?;
    let target = match target.trim() {
        "tenant" => JsonTarget::Tenant,
        target => {
            let (table, column) = target_column(schema, target).ok_or_else(wrong)??;
            JsonTarget::Column(table, column)
        }
    };
    Ok((path, target))
}

/// The column that `orders.id` stands for; none if it is not written like that.
fn target_column(
    schema: &StoreSchema,
    text: &str,
) -> Option<Result<(TableIndex, ColumnIndex), Error>> {
    let (name, column_name) = text.rsplit_once('.')?;
    let found = table(schema, name);
    Some(found.and_then(|table| Ok((table, column(schema, table, column_name)?))))
}
