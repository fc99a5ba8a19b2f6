//! Which table belongs to whom, as an operator declares it.

use std::collections::BTreeMap;

use reinstate_core::{ErrorKind, StoreError, TenantKind};

/// What an operator declares about the tables of a database.
///
/// Tables are named `orders` in the schema `public`, and `billing.invoices` elsewhere. A table
/// that nothing here covers is an error of kind `Unclassified`, never skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenancyMap {
    /// What kind of id a tenant has.
    pub kind: TenantKind,
    /// The tenant column of every table that has it and no rule of its own.
    pub column: Option<String>,
    /// Tables whose rows belong to everybody: captured, never written.
    pub shared: Vec<String>,
    /// Tables that are left out.
    pub excluded: Vec<String>,
    /// Shared tables in which rows that are gone, and that a tenant's restored rows refer to, are
    /// created again.
    pub create_missing: Vec<String>,
    /// Rules for single tables; they go before everything else.
    pub tables: BTreeMap<String, TableRule>,
    /// Triggers and rules, as `table.trigger`, that may fire when a merge writes.
    pub allowed_triggers: Vec<String>,
    /// Columns, as `accounts.next_number`, that count something for a tenant: a row that is put back
    /// keeps the greater of its two values, so that no number is given away again.
    pub counters: Vec<String>,
    /// Sequences that each tenant has of its own, by their names with `{tenant}` in them, and the
    /// column, as `issues.number`, that they are for: raised to what is restored.
    pub sequences: BTreeMap<String, String>,
    /// Triggers, as `table.trigger`, that are kept from firing while rows of their table are put back,
    /// because they would write something else: `updated_at` set to now. No other trigger of the
    /// table fires then, and the merge checks its foreign keys itself. The role must be allowed to
    /// set `session_replication_role`.
    pub silenced_triggers: Vec<String>,
    /// Foreign keys, by their columns as `users.last_account_id`, that may lead to rows of another
    /// tenant, or from rows of everybody to a tenant's.
    pub crossing: Vec<String>,
    /// Schemas in which triggers, and functions that indexes and defaults call, look for what they
    /// name without a schema. None: they find only what the server itself brings.
    pub search_path: Vec<String>,
}

/// What one table's rows belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableRule {
    /// A column holds the tenant's id.
    Direct {
        /// That column.
        column: String,
    },
    /// A foreign key leads to a row that has an owner.
    Via {
        /// The key, as `order_id -> orders.id`; several columns are separated by commas, as
        /// `region, number -> orders.region, orders.number`.
        reference: String,
        /// What rows are that reach nobody this way.
        unowned: Unowned,
    },
    /// The first of several ways that is open to a row.
    OneOf {
        /// The ways.
        routes: Vec<RouteRule>,
        /// What rows are that reach nobody by any of them.
        unowned: Unowned,
    },
    /// Rows of everybody.
    Shared,
    /// Left out.
    Excluded,
}

impl TableRule {
    /// The rule that a foreign key, written as in [`TableRule::Via`], leads every row to its owner.
    #[must_use]
    pub fn via(reference: impl Into<String>) -> Self {
        Self::Via {
            reference: reference.into(),
            unowned: Unowned::Refused,
        }
    }
}

/// What a row is that reaches no row with an owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unowned {
    /// A reason to refuse: the declared foreign keys or the map are wrong.
    #[default]
    Refused,
    /// Everybody's. Then the way may be one that the database does not guard: a key that may be
    /// NULL, or a reference that is not declared.
    Shared,
}

/// One way from a table to the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRule {
    /// What a row must say to go this way, as `subject_type = Order`; none: nothing.
    pub when: Option<String>,
    /// The reference, written as in [`TableRule::Via`]; declared as a foreign key or not.
    pub via: String,
}

/// A foreign key as a rule names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedReference {
    pub columns: Vec<String>,
    pub parent: String,
    pub parent_columns: Vec<String>,
}

impl TenancyMap {
    /// A map that says nothing yet but the kind of id.
    #[must_use]
    pub fn new(kind: TenantKind) -> Self {
        Self {
            kind,
            column: None,
            shared: Vec::new(),
            excluded: Vec::new(),
            create_missing: Vec::new(),
            tables: BTreeMap::new(),
            allowed_triggers: Vec::new(),
            silenced_triggers: Vec::new(),
            crossing: Vec::new(),
            counters: Vec::new(),
            sequences: BTreeMap::new(),
            search_path: Vec::new(),
        }
    }

    /// The rule that covers a table by its name, if one does.
    ///
    /// # Errors
    /// `Usage` if two rules cover it.
    pub(crate) fn rule(&self, table: &str) -> Result<Option<TableRule>, StoreError> {
        let is_named = |names: &[String]| names.iter().any(|name| name == table);
        let rules: Vec<TableRule> = [
            self.tables.get(table).cloned(),
            is_named(&self.shared).then_some(TableRule::Shared),
            is_named(&self.excluded).then_some(TableRule::Excluded),
        ]
        .into_iter()
        .flatten()
        .collect();
        match rules.as_slice() {
            [] => Ok(None),
            [rule] => Ok(Some(rule.clone())),
            _ => Err(StoreError::new(
                ErrorKind::Usage,
                format!("tenancy: table {table} is classified more than once"),
            )),
        }
    }

    /// Every table name that the map mentions.
    pub(crate) fn named_tables(&self) -> impl Iterator<Item = &str> {
        let rules = self.tables.keys();
        rules
            .chain(&self.shared)
            .chain(&self.excluded)
            .map(String::as_str)
    }

    /// Whether a trigger or rule of a table may fire.
    pub(crate) fn allows_trigger(&self, table: &str, trigger: &str) -> bool {
        let name = format!("{table}.{trigger}");
        self.allowed_triggers.contains(&name)
    }

    /// Whether an event trigger may fire.
    pub(crate) fn allows_event_trigger(&self, name: &str) -> bool {
        self.allowed_triggers.iter().any(|allowed| allowed == name)
    }

    /// Whether a trigger or rule of a table is kept from firing while rows are put back.
    pub(crate) fn silences_trigger(&self, table: &str, trigger: &str) -> bool {
        let name = format!("{table}.{trigger}");
        self.silenced_triggers.contains(&name)
    }
}

impl RouteRule {
    /// The column and the value of the condition.
    ///
    /// # Errors
    /// `Usage` if it is anything but `column = value`.
    pub(crate) fn condition(&self, table: &str) -> Result<Option<(&str, &str)>, StoreError> {
        let Some(text) = &self.when else {
            return Ok(None);
        };
        let sides = text.split_once('=');
        let sides = sides.map(|(column, value)| (column.trim(), value.trim()));
        match sides {
            Some((column, value)) if !column.is_empty() && !value.is_empty() => {
                Ok(Some((column, value)))
            }
            _ => {
                let message = format!(
                    "tenancy: table {table}: when = {text:?}: expected \"column = value\", as in \
                     \"subject_type = Order\""
                );
                Err(StoreError::new(ErrorKind::Usage, message))
            }
        }
    }
}

impl NamedReference {
    /// Reads `order_id -> orders.id`.
    ///
    /// # Errors
    /// `Usage` if the text is anything else.
    pub(crate) fn parse(table: &str, text: &str) -> Result<Self, StoreError> {
        Self::try_parse(text).ok_or_else(|| {
            let message = format!(
                "tenancy: table {table}: via = {text:?}: expected \"column -> parent.column\", \
                 as in \"order_id -> orders.id\""
            );
            StoreError::new(ErrorKind::Usage, message)
        })
    }

    fn try_parse(text: &str) -> Option<Self> {
        let (columns, targets) = text.split_once("->")?;
        let list = |text: &str| -> Vec<String> {
            text.split(',').map(|part| part.trim().to_owned()).collect()
        };
        let columns = list(columns);
        let targets = list(targets);
        let split: Option<Vec<(&str, &str)>> = targets
            .iter()
            .map(|target| target.rsplit_once('.'))
            .collect();
        let split = split?;
        let parent = split.first()?.0.to_owned();
        let parent_columns: Vec<String> = split
            .iter()
            .map(|(_, column)| (*column).to_owned())
            .collect();
        let whole = columns.len() == parent_columns.len()
            && split.iter().all(|(table, _)| *table == parent)
            && !parent.is_empty()
            && columns
                .iter()
                .chain(&parent_columns)
                .all(|name| !name.is_empty());
        whole.then_some(Self {
            columns,
            parent,
            parent_columns,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_read_from_its_text() {
        let one = NamedReference::parse("items", " order_id->orders.id ").unwrap();
        assert_eq!(one.columns, ["order_id"]);
        assert_eq!(one.parent, "orders");
        assert_eq!(one.parent_columns, ["id"]);
        let two = NamedReference::parse("lines", "r, n -> billing.orders.r, billing.orders.n");
        let two = two.unwrap();
        assert_eq!(two.parent, "billing.orders");
        assert_eq!(two.parent_columns, ["r", "n"]);
        for bad in [
            "",
            "a",
            "a ->",
            "-> b.c",
            "a -> b",
            "a, b -> c.d",
            "a,b -> c.d, e.f",
        ] {
            let error = NamedReference::parse("items", bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{bad}");
        }
    }

    #[test]
    fn a_table_that_is_classified_twice_is_refused() {
        let mut map = TenancyMap::new(TenantKind::parse("account").unwrap());
        map.shared.push("a".to_owned());
        assert_eq!(map.rule("a").unwrap(), Some(TableRule::Shared));
        assert_eq!(map.rule("b").unwrap(), None);
        map.excluded.push("a".to_owned());
        assert_eq!(map.rule("a").unwrap_err().kind(), ErrorKind::Usage);
    }
}
