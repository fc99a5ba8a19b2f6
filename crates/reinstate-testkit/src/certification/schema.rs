//! The tables that an adapter is certified with, and rows for them.

use reinstate_core::{
    ColumnIndex, ColumnSchema, KeyForm, Owner, Reference, StoreSchema, TableIndex, TableName,
    TableSchema, Tenancy, TenantId,
};

use crate::{ApplicationRow, KeySpace};

/// How the tables of a store name the owner of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// The store keeps it beside the row: no column says it.
    Native,
    /// The column `account_id` says it; a comment belongs to the account of its issue.
    Columns,
}

/// Tenants whose ids are easily taken for each other's: one starts like another, one differs in
/// case, one holds what quoting must survive, one is not ASCII.
pub const TENANTS: [&str; 5] = ["acme", "acme2", "Acme", "a'c%_\\me", "acm\u{e9}"];

/// The id of a tenant.
#[must_use]
pub fn tenant(name: &str) -> TenantId {
    TenantId::try_new(name).expect("BUG: a tenant of the kit has no name")
}

/// The owner that a tenant is.
#[must_use]
pub fn owner(name: &str) -> Owner {
    Owner::Tenant(tenant(name))
}

/// The tables that an adapter's store must have:
///
/// | table | key | owner in `Columns` | refers to |
/// | --- | --- | --- | --- |
/// | currencies | code | shared | |
/// | projects | id | account_id, may be NULL | currencies |
/// | issues | id | account_id | projects |
/// | comments | id | that of its issue | issues |
/// | activity | none | account_id | |
/// | settings | account_id, name | account_id | |
///
/// In `Native`, no table has `account_id`, and the key of `settings` is `scope, name`.
#[must_use]
pub fn standard_schema(flavour: Flavour) -> StoreSchema {
    let tables = [
        "currencies",
        "projects",
        "issues",
        "comments",
        "activity",
        "settings",
    ];
    let tables = tables.map(|name| table(name, flavour)).to_vec();
    StoreSchema::try_new(tables).expect("BUG: the tables of the kit do not fit together")
}

/// The standard tables as PostgreSQL definitions, in flavour [`Flavour::Columns`].
#[must_use]
pub fn standard_postgres_ddl() -> String {
    let schema = standard_schema(Flavour::Columns);
    let mut ddl = String::new();
    for table in schema.tables() {
        let name_of = |column: &ColumnIndex| table.columns[column.get()].name.clone();
        let mut parts: Vec<String> = table
            .columns
            .iter()
            .map(|column| {
                let null = if column.nullable { "" } else { " NOT NULL" };
                format!("{} {}{null}", column.name, column.type_name)
            })
            .collect();
        if table.has_key() {
            let key: Vec<String> = table.key.iter().map(name_of).collect();
            parts.push(format!("PRIMARY KEY ({})", key.join(", ")));
        }
        for reference in &table.references {
            let column = name_of(&reference.columns[0]);
            let parent = &schema.table(reference.parent).name;
            parts.push(format!("FOREIGN KEY ({column}) REFERENCES {parent}"));
        }
        ddl.push_str(&format!(
            "CREATE TABLE {} ({});\n",
            table.name,
            parts.join(", ")
        ));
        if table.column("account_id").is_some() {
            ddl.push_str(&format!("CREATE INDEX ON {} (account_id);\n", table.name));
        }
    }
    for table in ["projects", "issues", "comments"] {
        ddl.push_str(&format!(
            "CREATE SEQUENCE {table}_id_seq OWNED BY {table}.id;\n"
        ));
        ddl.push_str(&format!(
            "ALTER TABLE {table} ALTER id SET DEFAULT nextval('{table}_id_seq');\n"
        ));
    }
    ddl.push_str("CREATE INDEX ON comments (issue_id);\n");
    ddl
}

fn table(name: &str, flavour: Flavour) -> TableSchema {
    let (columns, key, parent): (&[&str], &[&str], Option<(&str, u32)>) = match name {
        "currencies" => (&["code text", "name text"], &["code"], None),
        "projects" => (
            &[
                "id bigint",
                "account_id text?",
                "currency text",
                "name text?",
            ],
            &["id"],
            Some(("currency", 0)),
        ),
        "issues" => (
            &[
                "id bigint",
                "account_id text",
                "project_id bigint",
                "title text?",
                "body text?",
            ],
            &["id"],
            Some(("project_id", 1)),
        ),
        "comments" => (
            &["id bigint", "issue_id bigint", "body text?"],
            &["id"],
            Some(("issue_id", 2)),
        ),
        "activity" => (
            &["account_id text", "subject text?", "note text?"],
            &[],
            None,
        ),
        _ => (
            &["account_id text", "name text", "value text?"],
            &["account_id", "name"],
            None,
        ),
    };
    let columns: Vec<ColumnSchema> = columns
        .iter()
        .filter_map(|text| column(text, name, flavour))
        .collect();
    let find = |name: &str| {
        let place = columns.iter().position(|column| column.name == name);
        place
            .and_then(|place| u32::try_from(place).ok())
            .map(ColumnIndex)
    };
    let reference = parent.and_then(|(column, parent)| {
        Some(Reference {
            columns: vec![find(column)?],
            parent: TableIndex(parent),
            parent_columns: vec![ColumnIndex(0)],
        })
    });
    let tenancy = tenancy(name, flavour, find("account_id"), reference.as_ref());
    let key = if (name, flavour) == ("settings", Flavour::Native) {
        &["scope", "name"]
    } else {
        key
    };
    TableSchema {
        name: TableName::new(name),
        key: key.iter().filter_map(|name| find(name)).collect(),
        columns,
        tenancy,
        references: reference.into_iter().collect(),
    }
}

fn tenancy(
    table: &str,
    flavour: Flavour,
    account: Option<ColumnIndex>,
    reference: Option<&Reference>,
) -> Tenancy {
    match (table, flavour, account, reference) {
        ("currencies", ..) => Tenancy::Shared,
        (_, Flavour::Native, ..) => Tenancy::Native,
        (_, _, Some(column), _) => Tenancy::Direct { column },
        (_, _, None, Some(reference)) => Tenancy::Via {
            reference: reference.clone(),
        },
        (_, _, None, None) => Tenancy::Excluded,
    }
}

/// A column from `name type`; a trailing `?` allows NULL. None where the flavour has it not.
fn column(text: &str, table: &str, flavour: Flavour) -> Option<ColumnSchema> {
    let (name, type_name) = text.split_once(' ')?;
    let native = flavour == Flavour::Native;
    let name = match (name, table) {
        ("account_id", "settings") if native => "scope",
        ("account_id", _) if native => return None,
        _ => name,
    };
    let base = type_name.trim_end_matches('?');
    Some(ColumnSchema {
        name: name.to_owned(),
        type_name: base.to_owned(),
        nullable: type_name.ends_with('?'),
        key_form: if base == "bigint" {
            KeyForm::Integer
        } else {
            KeyForm::Bytes
        },
    })
}

/// Makes rows of the standard tables in a flavour.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// The flavour of the tables.
    pub flavour: Flavour,
    /// Whose keys must differ from each other.
    pub key_space: KeySpace,
}

impl Rows {
    fn row(self, owner: &Owner, table: &str, values: &[Option<&str>]) -> ApplicationRow {
        ApplicationRow::new(owner, table, values)
    }

    fn owned(
        self,
        owner: &Owner,
        table: &str,
        before: &[&str],
        after: &[Option<&str>],
    ) -> ApplicationRow {
        let account = String::from_utf8_lossy(owner.as_bytes()).into_owned();
        let account = (!account.is_empty()).then_some(account.as_str());
        let mut values: Vec<Option<&str>> = before.iter().map(|value| Some(*value)).collect();
        if self.flavour == Flavour::Columns {
            values.push(account);
        }
        values.extend_from_slice(after);
        self.row(owner, table, &values)
    }

    /// A currency, which is shared.
    #[must_use]
    pub fn currency(self, code: &str, name: &str) -> ApplicationRow {
        self.row(&Owner::Shared, "currencies", &[Some(code), Some(name)])
    }

    /// A project. Without an owner it is shared; only in [`Flavour::Columns`].
    #[must_use]
    pub fn project(self, owner: &Owner, id: i64, name: Option<&str>) -> ApplicationRow {
        self.owned(owner, "projects", &[&id.to_string()], &[Some("EUR"), name])
    }

    /// An issue of a project.
    #[must_use]
    pub fn issue(
        self,
        owner: &Owner,
        id: i64,
        project: i64,
        title: Option<&str>,
        body: Option<&str>,
    ) -> ApplicationRow {
        let project = project.to_string();
        self.owned(
            owner,
            "issues",
            &[&id.to_string()],
            &[Some(&project), title, body],
        )
    }

    /// A comment on an issue.
    #[must_use]
    pub fn comment(self, owner: &Owner, id: i64, issue: i64, body: Option<&str>) -> ApplicationRow {
        let (id, issue) = (id.to_string(), issue.to_string());
        self.row(owner, "comments", &[Some(&id), Some(&issue), body])
    }

    /// An entry of the activity log, which has no key.
    #[must_use]
    pub fn activity(
        self,
        owner: &Owner,
        subject: Option<&str>,
        note: Option<&str>,
    ) -> ApplicationRow {
        self.owned(owner, "activity", &[], &[subject, note])
    }

    /// A setting. Its key begins with the account, or with `scope` in [`Flavour::Native`].
    #[must_use]
    pub fn setting(self, owner: &Owner, name: &str, value: Option<&str>) -> ApplicationRow {
        let account = String::from_utf8_lossy(owner.as_bytes()).into_owned();
        let scope = match (self.flavour, self.key_space) {
            (Flavour::Native, KeySpace::PerTenant) => "app",
            _ => account.as_str(),
        };
        self.row(owner, "settings", &[Some(scope), Some(name), value])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_fit_together_in_both_flavours() {
        for flavour in [Flavour::Native, Flavour::Columns] {
            let schema = standard_schema(flavour);
            assert_eq!(schema.tables().len(), 6);
            assert_eq!(schema.write_order().len(), 5);
            let key_space = KeySpace::Global;
            let rows = Rows { flavour, key_space };
            let owner = owner("acme");
            for row in [
                rows.currency("EUR", "euro"),
                rows.project(&owner, 1, None),
                rows.issue(&owner, 1, 1, None, Some("")),
                rows.comment(&owner, 1, 1, None),
                rows.activity(&owner, None, None),
                rows.setting(&owner, "theme", None),
            ] {
                let (_, table) = row.find(&schema).unwrap();
                assert_eq!(row.values.len(), table.columns.len(), "{}", row.table);
                let by_column = matches!(table.tenancy, Tenancy::Direct { .. });
                assert_eq!(by_column, table.column("account_id").is_some());
            }
        }
    }
}
