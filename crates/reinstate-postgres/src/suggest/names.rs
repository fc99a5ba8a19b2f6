//! What names of tables and columns tell.

/// Tables in which frameworks keep their books.
const BOOKKEEPING: &[&str] = &[
    "__diesel_schema_migrations",
    "__efmigrationshistory",
    "_prisma_migrations",
    "_sqlx_migrations",
    "alembic_version",
    "ar_internal_metadata",
    "databasechangelog",
    "databasechangeloglock",
    "django_migrations",
    "doctrine_migration_versions",
    "flyway_schema_history",
    "goose_db_version",
    "knex_migrations",
    "knex_migrations_lock",
    "mikro_orm_migrations",
    "phinxlog",
    "refinery_schema_history",
    "schema_migrations",
    "schema_version",
    "sequelizemeta",
];

/// What tenants are called.
const TENANTS: &[&str] = &[
    "account",
    "agency",
    "business",
    "client",
    "community",
    "company",
    "customer",
    "domain",
    "firm",
    "instance",
    "merchant",
    "org",
    "organisation",
    "organization",
    "project",
    "school",
    "shop",
    "site",
    "space",
    "store",
    "team",
    "tenant",
    "workspace",
];

/// Whether a table is a framework's, and no data.
pub(super) fn is_bookkeeping(relation: &str) -> bool {
    BOOKKEEPING.contains(&relation.to_ascii_lowercase().as_str())
}

/// Whether a table's name says that its rows are tenants.
pub(super) fn names_tenants(relation: &str) -> bool {
    let relation = snake(relation);
    TENANTS.iter().any(|word| is_plural(&relation, word))
}

/// Whether a reference by this name leads out of the database.
pub(super) fn is_elsewhere(base: &str) -> bool {
    matches!(
        base,
        "external" | "foreign" | "legacy" | "remote" | "upstream"
    )
}

/// What a column refers to by its name, in lower case with underscores: `order` for `order_id`
/// and for `orderId`.
pub(super) fn referred(column: &str) -> Option<String> {
    let column = snake(column);
    let base = column
        .strip_suffix("_id")
        .or_else(|| column.strip_suffix("_uuid"))?;
    (!base.is_empty()).then(|| base.to_owned())
}

/// Whether a table may hold what `base` names: `order` is in `order`, `orders` or `Orders`.
pub(super) fn holds(relation: &str, base: &str) -> bool {
    is_plural(&snake(relation), base)
}

/// What an application calls a kind of row, as a table would be named: `line_item` for
/// `Shop::LineItem`.
pub(super) fn kind_base(kind: &str) -> String {
    let last = kind.rsplit([':', '\\', '.', '/']).next();
    snake(last.unwrap_or(kind))
}

/// A name in lower case with underscores between its words.
pub(super) fn snake(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut was_small = false;
    for character in name.chars() {
        if character.is_uppercase() && was_small {
            text.push('_');
        }
        was_small = character.is_lowercase() || character.is_ascii_digit();
        text.extend(character.to_lowercase());
    }
    text
}

fn is_plural(name: &str, base: &str) -> bool {
    let Some(unowned) = name.strip_prefix(base) else {
        let stem = base.strip_suffix('y').filter(|stem| !stem.is_empty());
        return stem.is_some_and(|stem| name.strip_prefix(stem) == Some("ies"));
    };
    matches!(unowned, "" | "s" | "es")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_name_tables_in_every_common_spelling() {
        for (column, table) in [
            ("order_id", "orders"),
            ("order_id", "order"),
            ("orderId", "Order"),
            ("OrderID", "orders"),
            ("category_id", "categories"),
            ("box_uuid", "boxes"),
            ("line_item_id", "LineItems"),
        ] {
            let base = referred(column).unwrap();
            assert!(holds(table, &base), "{column} {table} {base}");
        }
        for (column, table) in [
            ("order_id", "orders_archive"),
            ("order_id", "ordinaries"),
            ("y_id", "ies"),
        ] {
            assert!(!holds(table, &referred(column).unwrap()), "{column}");
        }
        assert_eq!(referred("id"), None);
        assert_eq!(referred("_id"), None);
        assert_eq!(referred("paid"), None);
    }

    #[test]
    fn kinds_name_tables_whatever_language_wrote_them() {
        for kind in ["Shop::LineItem", "App\\Models\\LineItem", "shop.LineItem"] {
            assert_eq!(kind_base(kind), "line_item", "{kind}");
        }
        assert_eq!(kind_base("post"), "post");
    }

    #[test]
    fn tenants_and_bookkeeping_are_known_by_name() {
        for name in ["accounts", "Companies", "site", "organizations"] {
            assert!(names_tenants(name), "{name}");
        }
        assert!(!names_tenants("users"));
        assert!(is_bookkeeping("SequelizeMeta"));
        assert!(!is_bookkeeping("migrations"));
    }
}
