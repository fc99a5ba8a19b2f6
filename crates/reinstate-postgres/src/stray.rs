//! Where the references of rows to be written lead.
//!
//! A row's way to its tenant leads to a row of the tenant, and a key that holds the tenant's column
//! on both sides cannot lead anywhere else. Every other foreign key is followed on the server, each
//! value once. Nothing of the rows found comes back.
//!
//! A key that is not validated, or younger than the snapshot, may lead nowhere in rows that are older than it is;
//! in those that are written, it may not, where that can be told by how values are written.

use std::collections::BTreeMap;

use reinstate_core::{
    ErrorKind, Lead, Reference, RowBatch, StoreError, StrayReference, TableIndex, Tenancy, TenantId,
};
use tokio_postgres::Row;

use crate::catalog::{Catalog, ForeignKey, get};
use crate::owner::{joined, ownership};
use crate::sent::{ORDINAL, TOGETHER_BYTES_MAX, column_texts, parameters, push_answers, sent_rows};
use crate::session::Session;
use crate::sql::literal;

/// The references of `rows`, all to be written for `tenant`, that lead astray. Those in `younger` came after
/// the rows were. Of few rows all keys are followed together.
pub(crate) fn stray_references(
    session: &Session,
    catalog: &Catalog,
    tenant: &TenantId,
    (table, younger): (TableIndex, &[Reference]),
    rows: &RowBatch,
) -> Result<Vec<StrayReference>, StoreError> {
    let keys = catalog.foreign_keys.iter().filter(|key| key.child == table);
    let keys: Vec<&ForeignKey> = keys.collect();
    let at_once = match rows.as_bytes().len() {
        few if few <= TOGETHER_BYTES_MAX => keys.len(),
        _ => 1,
    };
    let operation = format!(
        "follow the foreign keys of {}",
        catalog.schema.table(table).name
    );
    let mut strays = Vec::new();
    for keys in keys.chunks(at_once.max(1)) {
        let mut followed = Vec::with_capacity(keys.len());
        for key in keys {
            followed.extend(Followed::find(catalog, key, tenant, younger, rows)?);
        }
        let asked = followed.iter().flat_map(|followed| {
            let questions = followed.questions.iter();
            questions.map(|(sql, _)| (sql.as_str(), parameters(&followed.lists)))
        });
        let asked: Vec<_> = asked.collect();
        let mut answers = session.rows_of_each(&operation, &asked)?.into_iter();
        for followed in &followed {
            for ((_, lead), answers) in followed.questions.iter().zip(answers.by_ref()) {
                followed.add_strays(catalog, *lead, &answers, &mut strays)?;
            }
        }
    }
    Ok(strays)
}

/// A foreign key of rows to be written that has to be followed.
struct Followed<'a> {
    key: &'a ForeignKey,
    /// Its values, and how many rows have each.
    values: Vec<(Vec<&'a str>, u64)>,
    /// The same as lists, one for each column.
    lists: Vec<Vec<&'a str>>,
    /// What is asked of them, and what it means of those that are the answer.
    questions: Vec<(String, Lead)>,
}

impl<'a> Followed<'a> {
    /// None if it cannot lead astray.
    fn find(
        catalog: &'a Catalog,
        key: &'a ForeignKey,
        tenant: &TenantId,
        younger: &[Reference],
        rows: &'a RowBatch,
    ) -> Result<Option<Self>, StoreError> {
        let is_within = stays_within(catalog, key);
        let child = &catalog.schema.table(key.child).tenancy;
        let is_way = child.references().any(|way| *way == key.reference);
        let is_proven = key.is_validated && !younger.contains(&key.reference);
        let may_dangle = !is_proven && !is_way && is_exact(catalog, key);
        if is_within && !may_dangle {
            return Ok(None);
        }
        let values: Vec<(Vec<&str>, u64)> = distinct(rows, key)?.into_iter().collect();
        if values.is_empty() {
            return Ok(None);
        }
        let lists = (0..key.reference.columns.len())
            .map(|place| values.iter().map(|(value, _)| value[place]).collect())
            .collect();
        let parent = catalog.schema.table(key.reference.parent);
        let lead = if parent.tenancy.is_tenant_owned() {
            Lead::ToAnother
        } else {
            Lead::Nowhere
        };
        let mut questions = Vec::new();
        if !is_within {
            questions.push((question(catalog, key, tenant), lead));
        }
        if may_dangle && parent.tenancy.is_tenant_owned() {
            questions.push((unfound(catalog, key), Lead::Unfound));
        }
        Ok(Some(Self {
            key,
            values,
            lists,
            questions,
        }))
    }

    fn add_strays(
        &self,
        catalog: &Catalog,
        lead: Lead,
        answers: &[Row],
        strays: &mut Vec<StrayReference>,
    ) -> Result<(), StoreError> {
        let reference = &self.key.reference;
        for answer in answers {
            let place = usize::try_from(get::<i64>(answer, 0)?).ok();
            if let Some((value, row_count)) = place.and_then(|place| self.values.get(place)) {
                strays.push(StrayReference {
                    reference: name(catalog, self.key),
                    parent: reference.parent,
                    parent_columns: reference.parent_columns.clone(),
                    values: value.iter().map(|&value| value.to_owned()).collect(),
                    lead,
                    row_count: *row_count,
                });
            }
        }
        Ok(())
    }
}

/// The rows of everybody that `rows`, all to be written into `table`, refer to by a foreign key; none
/// if it declares none with that reference.
pub(crate) fn parents_of_everybody(
    session: &Session,
    catalog: &Catalog,
    (table, reference): (TableIndex, &Reference),
    rows: &RowBatch,
) -> Result<RowBatch, StoreError> {
    let mut parents = RowBatch::new();
    let mut keys = catalog.foreign_keys.iter();
    let Some(key) = keys.find(|key| key.child == table && key.reference == *reference) else {
        return Ok(parents);
    };
    let values: Vec<Vec<&str>> = distinct(rows, key)?.into_keys().collect();
    if values.is_empty() {
        return Ok(parents);
    }
    let lists: Vec<Vec<&str>> = (0..reference.columns.len())
        .map(|place| values.iter().map(|value| value[place]).collect())
        .collect();
    let (schema, relation) = catalog.table(reference.parent);
    let (joins, condition) = match ownership(catalog, reference.parent, "p") {
        None => (String::new(), "true".to_owned()),
        Some(owned) => {
            let (joins, owner) = owned.captured();
            (joins, format!("({owner}) = ''"))
        }
    };
    let (sent, equal) = sent_values(catalog, key);
    let sql = format!(
        "SELECT {} FROM {sent} w JOIN {} AS p ON {equal}{joins} WHERE {condition}",
        column_texts(relation, "p"),
        relation.sql_rows(),
    );
    let operation = format!("read the rows of {} that are referred to", schema.name);
    let answers = session.rows(&operation, &sql, &parameters(&lists))?;
    push_answers(&operation, schema, &answers, &mut parents)?;
    Ok(parents)
}

/// Whether a key cannot lead out of the tenant, because whose the row is depends on it, or because
/// both sides name the tenant.
fn stays_within(catalog: &Catalog, key: &ForeignKey) -> bool {
    let child = &catalog.schema.table(key.child).tenancy;
    if child.references().any(|way| *way == key.reference) {
        return true;
    }
    let parent = &catalog.schema.table(key.reference.parent).tenancy;
    let (Tenancy::Direct { column: own }, Tenancy::Direct { column: theirs }) = (child, parent)
    else {
        return false;
    };
    let reference = &key.reference;
    let mut pairs = reference.columns.iter().zip(&reference.parent_columns);
    pairs.any(|pair| pair == (own, theirs))
}

/// Whether the values of a key are equal on both sides if they are written alike, and only then.
fn is_exact(catalog: &Catalog, key: &ForeignKey) -> bool {
    let (child_schema, child) = catalog.table(key.child);
    let (parent_schema, parent) = catalog.table(key.reference.parent);
    let columns = key.reference.columns.iter();
    let mut pairs = columns.zip(&key.reference.parent_columns);
    pairs.all(|(own, theirs)| {
        let kind = child.exact_kind(child_schema, *own);
        kind.is_some() && kind == parent.exact_kind(parent_schema, *theirs)
    })
}

/// The values that rows hold in the columns of a key, with how many rows do. Rows with NULL in one
/// of them refer to nothing.
fn distinct<'r>(
    rows: &'r RowBatch,
    key: &ForeignKey,
) -> Result<BTreeMap<Vec<&'r str>, u64>, StoreError> {
    let mut found = BTreeMap::new();
    for row in rows.iter() {
        let values: Vec<Option<&[u8]>> = row.values().collect();
        let columns = key.reference.columns.iter();
        let value: Option<Vec<&[u8]>> = columns
            .map(|column| values.get(column.get()).copied().flatten())
            .collect();
        let Some(value) = value else { continue };
        let value: Result<Vec<&str>, _> = value.into_iter().map(std::str::from_utf8).collect();
        let value = value.map_err(|_| {
            let message = format!("follow foreign key {}: not text", key.name);
            StoreError::new(ErrorKind::Corrupt, message)
        })?;
        *found.entry(value).or_insert(0) += 1;
    }
    Ok(found)
}

/// The places of the values that lead astray, from zero, as a query whose parameters are the columns
/// as lists of texts.
fn question(catalog: &Catalog, key: &ForeignKey, tenant: &TenantId) -> String {
    let parent = &catalog.tables[key.reference.parent.get()];
    let (sent, equal) = sent_values(catalog, key);
    let (joins, is_astray) = match ownership(catalog, key.reference.parent, "p") {
        None => (String::new(), "p.tableoid IS NULL".to_owned()),
        Some(owned) => {
            let (joins, owner) = owned.captured();
            // Ids are texts of the tenant's column, or no row could have them.
            let own = literal(&String::from_utf8_lossy(tenant.as_bytes()));
            (joins, format!("({owner}) COLLATE \"C\" NOT IN ('', {own})"))
        }
    };
    format!(
        "SELECT w.{ORDINAL} - 1 FROM {sent} w
           LEFT JOIN {} AS p ON {equal}{joins} WHERE {is_astray} ORDER BY 1",
        parent.sql_rows(),
    )
}

/// The same of the values that find no parent at all.
fn unfound(catalog: &Catalog, key: &ForeignKey) -> String {
    let parent = &catalog.tables[key.reference.parent.get()];
    let (sent, equal) = sent_values(catalog, key);
    format!(
        "SELECT w.{ORDINAL} - 1 FROM {sent} w
          WHERE NOT EXISTS (SELECT FROM {} AS p WHERE {equal}) ORDER BY 1",
        parent.sql_rows(),
    )
}

/// The values sent, and what joins them to the parents `p`.
fn sent_values(catalog: &Catalog, key: &ForeignKey) -> (String, String) {
    let child = &catalog.tables[key.child.get()];
    let parent = &catalog.tables[key.reference.parent.get()];
    let columns = key.reference.columns.iter();
    let sent = sent_rows(columns.map(|column| &child.columns[column.get()]));
    let equal = joined(child, "w", parent, "p", &key.reference, &key.operators);
    (sent, equal.join(" AND "))
}

fn name(catalog: &Catalog, key: &ForeignKey) -> String {
    let child = catalog.schema.table(key.child);
    let parent = catalog.schema.table(key.reference.parent);
    let columns = key.reference.columns.iter();
    let columns: Vec<&str> = columns
        .map(|column| child.columns[column.get()].name.as_str())
        .collect();
    format!("{}.{} -> {}", child.name, columns.join(","), parent.name)
}
