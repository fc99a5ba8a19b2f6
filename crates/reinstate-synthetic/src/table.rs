//! The tables of the synthetic issue tracker.

use reinstate_core::{
    ColumnIndex, ColumnSchema, KeyForm, Reference, StoreSchema, TableIndex, TableName, TableSchema,
    Tenancy,
};

/// How many tables tenants own.
pub(crate) const OWNED_TABLES: usize = 5;

/// One table of the issue tracker. The numbers are the tables' indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Shared: three-letter codes.
    Currencies = 0,
    /// Shared: what a member's seat costs.
    Plans = 1,
    /// Tenant-owned, keyed by id.
    Projects = 2,
    /// Tenant-owned, keyed by id.
    Members = 3,
    /// Tenant-owned, keyed by id; of a project, by a member.
    Issues = 4,
    /// Keyed by id; of an issue, which alone knows the tenant.
    Comments = 5,
    /// Tenant-owned, without a key; one row in fifty is there twice.
    Activity = 6,
}

/// How rows name their owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// The store keeps it beside the row, as an embedded store does.
    Native,
    /// The column `account_id` holds it, and a comment's issue does, as in a SQL database.
    Columns,
}

impl Table {
    /// Every table, in the order of their indexes: parents before children.
    pub const ALL: [Self; 7] = [
        Self::Currencies,
        Self::Plans,
        Self::Projects,
        Self::Members,
        Self::Issues,
        Self::Comments,
        Self::Activity,
    ];

    /// The tables that tenants own.
    pub const OWNED: [Self; OWNED_TABLES] = [
        Self::Projects,
        Self::Members,
        Self::Issues,
        Self::Comments,
        Self::Activity,
    ];

    /// The table's place in the schema.
    #[must_use]
    pub const fn index(self) -> TableIndex {
        TableIndex(self as u32)
    }

    /// The table at this index, if there is one.
    #[must_use]
    pub fn from_index(index: TableIndex) -> Option<Self> {
        Self::ALL.get(index.get()).copied()
    }

    /// The table's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Currencies => "currencies",
            Self::Plans => "plans",
            Self::Projects => "projects",
            Self::Members => "members",
            Self::Issues => "issues",
            Self::Comments => "comments",
            Self::Activity => "activity",
        }
    }

    /// Whether tenants own its rows.
    #[must_use]
    pub const fn is_tenant_owned(self) -> bool {
        !matches!(self, Self::Currencies | Self::Plans)
    }

    /// Place among the tenant-owned tables. Only for those.
    pub(crate) const fn owned_index(self) -> usize {
        self as usize - (Self::ALL.len() - OWNED_TABLES)
    }

    /// Columns as `name type`, in PostgreSQL's own spelling; a trailing `?` allows NULL.
    pub(crate) const fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Currencies => &["code text", "name text", "digits integer"],
            Self::Plans => &["id bigint", "name text", "features jsonb"],
            Self::Projects => &[
                "id bigint",
                "account_id bigint",
                "currency_code text",
                "name text",
                "created_at timestamp with time zone",
                "settings jsonb",
                "description text?",
            ],
            Self::Members => &[
                "id bigint",
                "account_id bigint",
                "plan_id bigint",
                "email text",
                "full_name text",
                "joined_at timestamp with time zone",
                "last_seen_at timestamp with time zone?",
                "preferences jsonb",
                "about text?",
            ],
            Self::Issues => &[
                "id bigint",
                "account_id bigint",
                "project_id bigint",
                "reporter_id bigint",
                "assignee_id bigint?",
                "number integer",
                "status text",
                "due_on date?",
                "created_at timestamp with time zone",
                "updated_at timestamp with time zone",
                "labels jsonb",
                "environment text?",
                "title text",
                "body text",
            ],
            Self::Comments => &[
                "id bigint",
                "issue_id bigint",
                "author_id bigint",
                "created_at timestamp with time zone",
                "edited_at timestamp with time zone?",
                "reactions jsonb?",
                "body text",
            ],
            Self::Activity => &[
                "account_id bigint",
                "issue_id bigint",
                "member_id bigint?",
                "action text",
                "happened_at timestamp with time zone",
                "origin text",
                "detail jsonb",
            ],
        }
    }

    /// Foreign keys as column and parent; each refers to the parent's key.
    pub(crate) const fn parents(self) -> &'static [(&'static str, Table)] {
        match self {
            Self::Currencies | Self::Plans => &[],
            Self::Projects => &[("currency_code", Self::Currencies)],
            Self::Members => &[("plan_id", Self::Plans)],
            Self::Issues => &[
                ("project_id", Self::Projects),
                ("reporter_id", Self::Members),
                ("assignee_id", Self::Members),
            ],
            Self::Comments => &[("issue_id", Self::Issues), ("author_id", Self::Members)],
            Self::Activity => &[("issue_id", Self::Issues), ("member_id", Self::Members)],
        }
    }

    /// The name of the key's only column; none for a table without a key.
    pub(crate) const fn key_column(self) -> Option<&'static str> {
        match self {
            Self::Currencies => Some("code"),
            Self::Activity => None,
            _ => Some("id"),
        }
    }

    /// The counter that hands out the table's ids, where it has one.
    pub(crate) const fn sequence(self) -> Option<&'static str> {
        match self {
            Self::Projects => Some("projects_id_seq"),
            Self::Members => Some("members_id_seq"),
            Self::Issues => Some("issues_id_seq"),
            Self::Comments => Some("comments_id_seq"),
            _ => None,
        }
    }

    fn schema(self, flavour: Flavour) -> TableSchema {
        let columns: Vec<ColumnSchema> = self.columns().iter().copied().map(column).collect();
        let find = |name: &str| {
            let place = columns.iter().position(|column| column.name == name);
            place
                .and_then(|place| u32::try_from(place).ok())
                .map(ColumnIndex)
        };
        let references: Vec<Reference> = self
            .parents()
            .iter()
            .filter_map(|(name, parent)| {
                Some(Reference {
                    columns: vec![find(name)?],
                    parent: parent.index(),
                    parent_columns: vec![ColumnIndex(0)],
                })
            })
            .collect();
        let tenancy = match (flavour, find("account_id"), references.first()) {
            _ if !self.is_tenant_owned() => Tenancy::Shared,
            (Flavour::Native, ..) => Tenancy::Native,
            (Flavour::Columns, Some(column), _) => Tenancy::Direct { column },
            (Flavour::Columns, None, Some(reference)) => Tenancy::Via {
                reference: reference.clone(),
            },
            (Flavour::Columns, None, None) => Tenancy::Excluded,
        };
        TableSchema {
            name: TableName::new(self.name()),
            key: self.key_column().and_then(find).into_iter().collect(),
            columns,
            tenancy,
            references,
        }
    }
}

/// The schema of the whole store.
pub(crate) fn schema(flavour: Flavour) -> StoreSchema {
    let tables = Table::ALL.map(|table| table.schema(flavour)).to_vec();
    StoreSchema::try_new(tables).expect("BUG: the synthetic tables do not fit together")
}

fn column(text: &str) -> ColumnSchema {
    let (name, type_name) = text.split_once(' ').unwrap_or((text, "text"));
    let nullable = type_name.ends_with('?');
    let type_name = type_name.trim_end_matches('?');
    let integer = matches!(type_name, "bigint" | "integer");
    ColumnSchema {
        name: name.to_owned(),
        type_name: type_name.to_owned(),
        nullable,
        key_form: if integer {
            KeyForm::Integer
        } else {
            KeyForm::Bytes
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_owned_in_both_flavours_and_can_be_ordered() {
        for flavour in [Flavour::Native, Flavour::Columns] {
            let schema = schema(flavour);
            for (index, table) in schema.iter() {
                let kind = Table::from_index(index).unwrap();
                assert_eq!(table.name.as_str(), kind.name());
                assert_eq!(table.tenancy.is_tenant_owned(), kind.is_tenant_owned());
                assert_eq!(table.has_key(), kind.key_column().is_some());
                assert_eq!(table.references.len(), kind.parents().len());
            }
            let order = schema.write_order();
            assert_eq!(order, Table::OWNED.map(Table::index));
        }
    }

    #[test]
    fn a_comment_reaches_its_tenant_through_its_issue() {
        let schema = schema(Flavour::Columns);
        let comments = schema.table(Table::Comments.index());
        let Tenancy::Via { reference } = &comments.tenancy else {
            panic!("{:?}", comments.tenancy);
        };
        assert_eq!(reference.parent, Table::Issues.index());
    }
}
