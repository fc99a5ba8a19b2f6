//! Rows of others that refer to rows which go, or which give up the value that is referred to.
//!
//! The server would refuse the merge because of them, or change them with it. Each foreign key to the
//! table is asked once for all rows. Nothing of the rows found comes back but their number.

use std::collections::BTreeSet;

use reinstate_core::{
    ColumnIndex, ErrorKind, Hindrance, RowBatch, StoreError, TableIndex, Tenancy, TenantId,
};

use crate::catalog::{Catalog, ForeignKey, get};
use crate::left_behind::can_be_left_behind;
use crate::merge::making_anew;
use crate::owner::{Selection, joined, ownership};
use crate::sent::{parameters, sent_rows};
use crate::session::Session;
use crate::sql::literal;

/// What keeps these rows of `tenant` from becoming `after`, or from going, without a row of others
/// that would be changed or left without what it refers to. Rows of each tenant `beside` are told apart.
pub(crate) fn held_in_place(
    session: &Session,
    catalog: &Catalog,
    (tenant, table): (&TenantId, TableIndex),
    (before, after): (&RowBatch, Option<&RowBatch>),
    beside: &[TenantId],
) -> Result<Vec<Hindrance>, StoreError> {
    let mut found = Vec::new();
    found.extend(after.and_then(|after| rigid_identity(catalog, table, before, after)));
    let keys = catalog.foreign_keys.iter();
    for key in keys.filter(|key| key.reference.parent == table) {
        let columns = &key.reference.parent_columns;
        let own_key = &catalog.schema.table(table).key;
        let stays = after.is_some() && columns.iter().all(|column| own_key.contains(column));
        let child = &catalog.tables[key.child.get()];
        if stays || !child.is_readable || child.hides_rows() {
            continue;
        }
        let values = given_up(key, before, after)?;
        if values.is_empty() {
            continue;
        }
        let lists: Vec<Vec<&str>> = (0..columns.len())
            .map(|place| values.iter().map(|value| value[place]).collect())
            .collect();
        let operation = format!("look for what refers to rows by {}", key.name);
        let is_update = after.is_some();
        if let Some(selection) = of_others(catalog, key, tenant)? {
            let (selection, whose) = told_apart(catalog, key, selection, beside);
            let sql = question(catalog, key, &selection, &whose);
            for row in session.rows(&operation, &sql, &parameters(&lists))? {
                let row_count = get::<i64>(&row, 0)?.cast_unsigned();
                let whose: Option<String> = get(&row, 1)?;
                let of = whose.and_then(|whose| TenantId::try_new(whose).ok());
                found.push(describe(catalog, key, is_update, row_count, of));
            }
        }
        if is_update && let Some(selection) = stuck(catalog, key, tenant)? {
            let sql = question(catalog, key, &selection, "NULL::text");
            for row in session.rows(&operation, &sql, &parameters(&lists))? {
                let row_count = get::<i64>(&row, 0)?.cast_unsigned();
                found.push(describe_stuck(catalog, key, row_count));
            }
        }
    }
    Ok(found)
}

/// Rows of which a column GENERATED ALWAYS AS IDENTITY is another: they can only be made anew, if nothing
/// stands against that.
fn rigid_identity(
    catalog: &Catalog,
    table: TableIndex,
    before: &RowBatch,
    after: &RowBatch,
) -> Option<Hindrance> {
    let (schema, relation) = catalog.table(table);
    let columns = relation.columns.iter().enumerate();
    let columns = columns.filter(|(_, column)| column.is_identity_always);
    let places: Vec<usize> = columns.map(|(place, _)| place).collect();
    if places.is_empty() {
        return None;
    }
    let reason = making_anew(catalog, table, "restore while it is dropped")?;
    let rows = before.iter().zip(after.iter());
    let differs = rows.filter(|(before, after)| {
        let (was, is): (Vec<_>, Vec<_>) = (before.values().collect(), after.values().collect());
        places.iter().any(|&place| was.get(place) != is.get(place))
    });
    let row_count = differs.count() as u64;
    (row_count > 0).then(|| Hindrance {
        object: format!("table {}", schema.name),
        detail: format!(
            "has other values in a column GENERATED ALWAYS AS IDENTITY, which nobody may update: {reason}"
        ),
        row_count,
        of: None,
    })
}

/// What rows hold in the columns that a key refers to and will hold no more, each value once. Without
/// an action a value that another row gets is none.
fn given_up<'r>(
    key: &ForeignKey,
    before: &'r RowBatch,
    after: Option<&'r RowBatch>,
) -> Result<Vec<Vec<&'r str>>, StoreError> {
    let columns = &key.reference.parent_columns;
    let mut values = BTreeSet::new();
    let Some(after) = after else {
        for row in before.iter() {
            values.extend(tuple(key, &row.values().collect::<Vec<_>>(), columns)?);
        }
        return Ok(values.into_iter().collect());
    };
    let mut kept = BTreeSet::new();
    for (before, after) in before.iter().zip(after.iter()) {
        let was = tuple(key, &before.values().collect::<Vec<_>>(), columns)?;
        let is = tuple(key, &after.values().collect::<Vec<_>>(), columns)?;
        if was != is {
            values.extend(was);
            kept.extend(is);
        }
    }
    if !key.acts_on_update {
        values.retain(|value| !kept.contains(value));
    }
    Ok(values.into_iter().collect())
}

/// The values of some columns; none if one of them is NULL.
fn tuple<'r>(
    key: &ForeignKey,
    values: &[Option<&'r [u8]>],
    columns: &[ColumnIndex],
) -> Result<Option<Vec<&'r str>>, StoreError> {
    let found = columns
        .iter()
        .map(|column| values.get(column.get()).copied().flatten());
    let Some(found) = found.collect::<Option<Vec<&[u8]>>>() else {
        return Ok(None);
    };
    let found: Result<Vec<&str>, _> = found.into_iter().map(std::str::from_utf8).collect();
    found.map(Some).map_err(|_| {
        let message = format!("look for what refers to rows by {}: not text", key.name);
        StoreError::new(ErrorKind::Corrupt, message)
    })
}

/// The rows `k` of a table that are not the tenant's. None where all that refer by the key are.
///
/// Rows that belong to whom they refer to, or may have been left behind, are nobody's to others: they
/// are the plan's own business.
fn of_others(
    catalog: &Catalog,
    key: &ForeignKey,
    tenant: &TenantId,
) -> Result<Option<Selection>, StoreError> {
    let tenancy = &catalog.schema.table(key.child).tenancy;
    if matches!(tenancy, Tenancy::Via { reference } if *reference == key.reference) {
        return Ok(None);
    }
    let Some(owned) = ownership(catalog, key.child, "k") else {
        return Ok(Some(Selection::everything()));
    };
    let mut ways = tenancy.references();
    if !can_be_left_behind(catalog, key.child) && ways.all(|way| *way != key.reference) {
        return owned.of_others(tenant).map(Some);
    }
    let (sources, owner) = owned.captured();
    let own = literal(&String::from_utf8_lossy(tenant.as_bytes()));
    Ok(Some(Selection {
        sources,
        condition: format!("({owner}) COLLATE \"C\" NOT IN ('', {own})"),
    }))
}

/// The tenant's own rows `k` that get another primary key with what they refer to, while others still
/// refer to them: they would have to go and come under their own key before that. None if there
/// cannot be any.
fn stuck(
    catalog: &Catalog,
    key: &ForeignKey,
    tenant: &TenantId,
) -> Result<Option<Selection>, StoreError> {
    let (schema, child) = catalog.table(key.child);
    let mut columns = key.reference.columns.iter();
    if !key.acts_on_update || !columns.any(|column| schema.key.contains(column)) {
        return Ok(None);
    }
    let holding = catalog.foreign_keys.iter().filter(|other| {
        other.reference.parent == key.child && (!other.is_deferrable || other.acts_on_delete)
    });
    let holding = holding.map(|other| {
        let rows = &catalog.tables[other.child.get()];
        let equal = joined(rows, "h", child, "k", &other.reference, &other.operators);
        let rows = rows.sql_rows();
        format!(
            "EXISTS (SELECT FROM {rows} AS h WHERE {})",
            equal.join(" AND ")
        )
    });
    let holding: Vec<String> = holding.collect();
    let (Some(owned), false) = (ownership(catalog, key.child, "k"), holding.is_empty()) else {
        return Ok(None);
    };
    let mut own = owned.joined(tenant)?;
    own.condition = format!("{} AND ({})", own.condition, holding.join(" OR "));
    Ok(Some(own))
}

/// The same rows, with what says whose they are as far as that is one of the tenants `beside`.
fn told_apart(
    catalog: &Catalog,
    key: &ForeignKey,
    selection: Selection,
    beside: &[TenantId],
) -> (Selection, String) {
    let owned = ownership(catalog, key.child, "k").filter(|_| !beside.is_empty());
    let Some(owned) = owned else {
        return (selection, "NULL::text".to_owned());
    };
    let (sources, owner) = owned.captured();
    let ids = beside.iter();
    let ids = ids.map(|id| literal(&String::from_utf8_lossy(id.as_bytes())));
    let ids = ids.collect::<Vec<_>>().join(", ");
    let whose = format!("CASE WHEN ({owner}) COLLATE \"C\" IN ({ids}) THEN {owner} END");
    // It has the joins of the selection, and those of other ways.
    (
        Selection {
            sources,
            ..selection
        },
        whose,
    )
}

/// How many rows refer to the values sent, and whose they are, as a query whose parameters are the parent's
/// columns as lists of texts.
fn question(catalog: &Catalog, key: &ForeignKey, selection: &Selection, whose: &str) -> String {
    let child = &catalog.tables[key.child.get()];
    let parent = &catalog.tables[key.reference.parent.get()];
    let columns = key.reference.parent_columns.iter();
    let sent = sent_rows(columns.map(|column| &parent.columns[column.get()]));
    let equal = joined(child, "k", parent, "w", &key.reference, &key.operators);
    format!(
        "SELECT count(*), {whose} FROM {sent} w JOIN {} AS k ON {}{} WHERE {} GROUP BY 2 ORDER BY 2",
        child.sql_rows(),
        equal.join(" AND "),
        selection.sources,
        selection.condition
    )
}

fn describe(
    catalog: &Catalog,
    key: &ForeignKey,
    is_update: bool,
    row_count: u64,
    of: Option<TenantId>,
) -> Hindrance {
    let child = &catalog.schema.table(key.child).name;
    let acts = match is_update {
        true => key.acts_on_update,
        false => key.acts_on_delete,
    };
    let (what, then) = match (is_update, acts) {
        (true, true) => ("a value that is put back", "would change with it"),
        (true, false) => ("a value that is put back", "would be left without it"),
        (false, true) => ("rows to be deleted", "would change or go with them"),
        (false, false) => ("rows to be deleted", "would be left without them"),
    };
    let detail = match &of {
        // Who that is, is not said: what is noted here is read by the owner of these rows.
        Some(_) => {
            format!(
                "of {child} leads from rows of another tenant of the plan to {what}: they {then}"
            )
        }
        None => format!(
            "of {child} leads from rows that are not the tenant's to {what}: they {then}, and are not \
             a restore's to write. Let them refer to something else, or to nothing, first"
        ),
    };
    Hindrance {
        object: format!("foreign key {}", key.name),
        detail,
        row_count,
        of,
    }
}

fn describe_stuck(catalog: &Catalog, key: &ForeignKey, row_count: u64) -> Hindrance {
    let child = &catalog.schema.table(key.child).name;
    Hindrance {
        object: format!("foreign key {}", key.name),
        detail: format!(
            "would give rows of {child} another primary key, while others refer to them: make the keys \
             that refer to {child} DEFERRABLE, or rename back what it refers to first"
        ),
        row_count,
        of: None,
    }
}
