//! A question to the data, as one query that counts rows and names the first of them.

use reinstate_core::{StoreError, TableIndex, Tenancy};

use super::{TenancyFault, TenancyFinding};
use crate::catalog::{Catalog, get};
use crate::owner::ownership;
use crate::session::Session;
use crate::sql::quote;

/// How many rows of a finding are named.
const EXAMPLES_MAX: u32 = 5;

/// Which rows of a table are wrong?
pub(super) struct Question {
    pub table: TableIndex,
    pub reference: Option<String>,
    /// A query of the rows that are wrong: whether each is everybody's, its key as texts, and
    /// something to sort by, as `is_shared`, `key` and `place`.
    pub sql: String,
    /// What is wrong with a row that is a tenant's or nobody's.
    pub fault: TenancyFault,
}

/// Asks for the rows of a table that find no parent, unless its own column says whose they are or
/// the map says that they may. Those that find one whose rows are wrong are not named again.
pub(super) fn of_unowned(catalog: &Catalog, table: TableIndex) -> Option<Question> {
    let (schema, relation) = catalog.table(table);
    let must_be_owned = match schema.tenancy {
        Tenancy::Via { .. } => true,
        _ => relation.refuses_unowned,
    };
    let finds_nobody = ownership(catalog, table, "c")?.finds_nobody()?;
    let sql = format!(
        "SELECT false AS is_shared, {} FROM {} AS c WHERE {finds_nobody}",
        key_items(catalog, table),
        relation.sql_rows(),
    );
    must_be_owned.then_some(Question {
        table,
        reference: None,
        sql,
        fault: TenancyFault::Unowned,
    })
}

/// The key of a row that goes by the alias `c`: as texts, and as itself.
pub(super) fn key_items(catalog: &Catalog, table: TableIndex) -> String {
    let (schema, relation) = catalog.table(table);
    let columns = schema.key.iter();
    let columns: Vec<String> = columns
        .map(|column| format!("c.{}", quote(&relation.columns[column.get()].name)))
        .collect();
    if columns.is_empty() {
        return "'{}'::text[] AS key, 0 AS place".to_owned();
    }
    let texts: Vec<String> = columns.iter().map(|name| format!("{name}::text")).collect();
    format!(
        "ARRAY[{}] AS key, ROW({}) AS place",
        texts.join(", "),
        columns.join(", ")
    )
}

/// Asks, and makes a finding of each kind of wrong rows.
pub(super) fn ask(
    session: &Session,
    catalog: &Catalog,
    question: &Question,
) -> Result<Vec<TenancyFinding>, StoreError> {
    let (schema, relation) = catalog.table(question.table);
    let sql = format!(
        "SELECT found.is_shared, found.total, found.key
           FROM (SELECT wrong.is_shared, wrong.key,
                        count(*) OVER (PARTITION BY wrong.is_shared) AS total,
                        row_number() OVER (PARTITION BY wrong.is_shared ORDER BY wrong.place)
                            AS number
                   FROM ({}) wrong) found
          WHERE found.number <= {EXAMPLES_MAX} ORDER BY found.is_shared, found.number",
        question.sql
    );
    let operation = match &question.reference {
        Some(reference) => format!("follow {reference} of {}", schema.name),
        None => format!("look for rows of {} that reach nobody", schema.name),
    };
    let mut findings: Vec<TenancyFinding> = Vec::new();
    for row in session.rows(&operation, &sql, &[])? {
        let (is_shared, total): (bool, i64) = (get(&row, 0)?, get(&row, 1)?);
        let fault = if is_shared {
            TenancyFault::SharedRefersToOwned
        } else {
            question.fault
        };
        if findings.last().is_none_or(|last| last.fault != fault) {
            let columns = schema.key.iter();
            let columns = columns.map(|column| relation.columns[column.get()].name.clone());
            findings.push(TenancyFinding {
                table: schema.name.to_string(),
                fault,
                reference: question.reference.clone(),
                row_count: u64::try_from(total).unwrap_or(0),
                key_columns: columns.collect(),
                keys: Vec::new(),
            });
        }
        let key: Vec<String> = get(&row, 2)?;
        if let Some(finding) = findings.last_mut()
            && !key.is_empty()
        {
            finding.keys.push(key);
        }
    }
    Ok(findings)
}
