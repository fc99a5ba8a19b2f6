//! References from rows to rows of tenants.

use reinstate_core::{ErrorKind, Reference, StoreError, TableIndex, Tenancy};

use super::TenancyFault;
use super::question::{Question, key_items};
use crate::catalog::{Catalog, ForeignKey};
use crate::owner::{joined, ownership};
use crate::tenancy::TenancyMap;

/// A declared reference to a table that belongs to tenants.
pub(super) struct Edge<'c> {
    key: &'c ForeignKey,
}

/// Every reference that could lead to another tenant's row, in the order of the tables; not those
/// from tables that are left out, nor those that the map lets cross.
///
/// # Errors
/// `Usage` if the map names a key that there is not.
pub(super) fn edges<'c>(
    catalog: &'c Catalog,
    map: &TenancyMap,
) -> Result<Vec<Edge<'c>>, StoreError> {
    let mut keys: Vec<&ForeignKey> = catalog.foreign_keys.iter().collect();
    let is_unknown = |name: &&String| !keys.iter().any(|key| **name == name_of(catalog, key));
    if let Some(name) = map.crossing.iter().find(is_unknown) {
        let message = format!("tenancy.crossing: no foreign key has the columns {name}");
        return Err(StoreError::new(ErrorKind::Usage, message));
    }
    keys.retain(|key| !map.crossing.contains(&name_of(catalog, key)));
    keys.retain(|key| {
        let child = &catalog.schema.table(key.child).tenancy;
        let parent = &catalog.schema.table(key.reference.parent).tenancy;
        let is_left_out = *child == Tenancy::Excluded;
        parent.is_tenant_owned() && !is_left_out && !always_agrees(child, &key.reference, parent)
    });
    keys.sort_by_key(|key| (key.child, &key.reference));
    keys.dedup_by(|left, right| left.child == right.child && left.reference == right.reference);
    Ok(keys.into_iter().map(|key| Edge { key }).collect())
}

/// What a key is called in the map: its table and columns.
fn name_of(catalog: &Catalog, key: &ForeignKey) -> String {
    let schema = catalog.schema.table(key.child);
    let columns = key.reference.columns.iter();
    let columns: Vec<&str> = columns
        .map(|column| schema.columns[column.get()].name.as_str())
        .collect();
    format!("{}.{}", schema.name, columns.join(","))
}

/// Whether a reference cannot lead to another tenant: it is the only way to the owner, or it holds
/// the tenant on both sides.
fn always_agrees(child: &Tenancy, reference: &Reference, parent: &Tenancy) -> bool {
    match (child, parent) {
        (Tenancy::Via { reference: way }, _) => way == reference,
        (Tenancy::OneOf { routes }, _) => match routes.as_slice() {
            [route] => route.condition.is_none() && route.reference == *reference,
            _ => false,
        },
        (Tenancy::Direct { column }, Tenancy::Direct { column: of_parent }) => {
            let pairs = reference.columns.iter().zip(&reference.parent_columns);
            pairs.into_iter().any(|pair| pair == (column, of_parent))
        }
        _ => false,
    }
}

/// Asks for rows whose parent is a tenant's and that are not that tenant's.
pub(super) fn of_edge(catalog: &Catalog, edge: &Edge<'_>) -> Option<Question> {
    let (child, reference) = (edge.key.child, &edge.key.reference);
    let (_, relation) = catalog.table(child);
    let parent = &catalog.tables[reference.parent.get()];
    let (parent_joins, parent_owner) = ownership(catalog, reference.parent, "p")?.captured();
    let (child_joins, child_owner) = match ownership(catalog, child, "c") {
        None => (String::new(), "''".to_owned()),
        // A row that reaches nobody is everybody's, or named for that already.
        Some(ownership) => {
            let (joins, owner) = ownership.captured();
            (joins, format!("coalesce({owner}, '')"))
        }
    };
    let equal = joined(relation, "c", parent, "p", reference, &edge.key.operators);
    let sql = format!(
        "SELECT own.owner = '' AS is_shared, own.key, own.place
           FROM (SELECT ({child_owner})::text COLLATE \"C\" AS owner,
                        ({parent_owner})::text COLLATE \"C\" AS parent_owner, {}
                   FROM {} AS c JOIN {} AS p ON {}{child_joins}{parent_joins}) own
          WHERE own.parent_owner <> '' AND own.owner <> own.parent_owner",
        key_items(catalog, child),
        relation.sql_rows(),
        parent.sql_rows(),
        equal.join(" AND "),
    );
    Some(Question {
        table: child,
        reference: Some(text_of(catalog, child, reference)),
        sql,
        fault: if is_route(catalog, child, reference) {
            TenancyFault::RoutesDisagree
        } else {
            TenancyFault::CrossesTenants
        },
    })
}

/// Whether a reference could say whose the rows are: the map has it as one of several ways, or
/// every row has it.
fn is_route(catalog: &Catalog, child: TableIndex, reference: &Reference) -> bool {
    let schema = catalog.schema.table(child);
    let mut columns = reference.columns.iter();
    let is_whole = columns.all(|column| !schema.columns[column.get()].nullable);
    let mut ways = schema.tenancy.references();
    reference.parent != child && (is_whole || ways.any(|way| way == reference))
}

fn text_of(catalog: &Catalog, child: TableIndex, reference: &Reference) -> String {
    let (schema, parent) = (
        catalog.schema.table(child),
        catalog.schema.table(reference.parent),
    );
    let columns = reference.columns.iter();
    let columns: Vec<&str> = columns
        .map(|column| schema.columns[column.get()].name.as_str())
        .collect();
    let targets = reference.parent_columns.iter();
    let targets: Vec<String> = targets
        .map(|column| format!("{}.{}", parent.name, parent.columns[column.get()].name))
        .collect();
    format!("{} -> {}", columns.join(", "), targets.join(", "))
}
