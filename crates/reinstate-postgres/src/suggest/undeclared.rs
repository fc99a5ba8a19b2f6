//! References that the database does not know of: guessed from names, never relied on.

use std::collections::BTreeMap;

use reinstate_core::{ColumnIndex, StoreError, TableIndex};

use super::facts::Facts;
use super::names::{holds, is_elsewhere, kind_base, referred, snake};
use crate::catalog::{TenantType, get};
use crate::session::Session;
use crate::sql::quote;

/// More kinds than this in one column are no kinds.
const KINDS_MAX: usize = 50;

/// A column that looks as if it named a row of another table.
pub(super) struct Guess {
    pub column: ColumnIndex,
    pub parent: TableIndex,
    pub parent_column: ColumnIndex,
}

/// Two columns that name the kind of a row and its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pair {
    pub table: TableIndex,
    pub kind: ColumnIndex,
    pub id: ColumnIndex,
}

/// What the rows of a pair say.
pub(super) enum Kinds {
    /// Nobody looked.
    NotRead,
    /// Each of these, sorted.
    Read(Vec<String>),
    /// More than can be told apart as kinds.
    TooMany,
}

/// Every pair with what its rows say.
pub(super) type AllKinds = BTreeMap<Pair, Kinds>;

/// Finds the pairs and, if asked to, reads what their rows say.
pub(super) fn read_kinds(
    facts: &Facts,
    session: &Session,
    is_wanted: bool,
) -> Result<AllKinds, StoreError> {
    let mut all = AllKinds::new();
    for pair in facts.indexes().flat_map(|index| pairs(facts, index)) {
        let kinds = if is_wanted && facts.can_be_read(pair.table) {
            read_pair(facts, session, pair)?
        } else {
            Kinds::NotRead
        };
        all.insert(pair, kinds);
    }
    Ok(all)
}

fn read_pair(facts: &Facts, session: &Session, pair: Pair) -> Result<Kinds, StoreError> {
    let column = quote(facts.column_name(pair.table, pair.kind));
    let sql = format!(
        "SELECT DISTINCT t.{column}::text COLLATE \"C\" FROM {} AS t
          WHERE t.{column} IS NOT NULL ORDER BY 1 LIMIT {}",
        facts.table(pair.table).catalog.sql_rows(),
        KINDS_MAX + 1
    );
    let operation = format!("read the kinds of {}", facts.name(pair.table));
    let rows = session.rows(&operation, &sql, &[])?;
    if rows.len() > KINDS_MAX {
        return Ok(Kinds::TooMany);
    }
    let kinds: Result<Vec<String>, StoreError> = rows.iter().map(|row| get(row, 0)).collect();
    kinds.map(Kinds::Read)
}

/// The pairs of a table: columns such as `subject_type` and `subject_id`.
fn pairs(facts: &Facts, table: TableIndex) -> Vec<Pair> {
    let columns = &facts.table(table).schema.columns;
    let indexes = || (0..).map(ColumnIndex).zip(columns);
    let mut found = Vec::new();
    for (kind, kind_column) in indexes() {
        let name = snake(&kind_column.name);
        let Some(base) = name.strip_suffix("_type").filter(|base| !base.is_empty()) else {
            continue;
        };
        let is_text = matches!(
            facts.column_catalog(table, kind).tenant_type,
            Some(TenantType::Text | TenantType::Blank | TenantType::Enumeration(..))
        );
        let named = |name: &str| referred(name).as_deref() == Some(base);
        let id = indexes().find(|(_, column)| named(&column.name));
        if let Some((id, _)) = id
            && is_text
            && !is_declared(facts, table, id)
        {
            found.push(Pair { table, kind, id });
        }
    }
    found
}

/// The tables that the columns of a table seem to name, outside of pairs.
pub(super) fn guesses(facts: &Facts, table: TableIndex, kinds: &AllKinds) -> Vec<Guess> {
    let columns = (0..)
        .map(ColumnIndex)
        .zip(&facts.table(table).schema.columns);
    let in_pair = |column: ColumnIndex| {
        let mut pairs = kinds.keys();
        pairs.any(|pair| pair.table == table && pair.id == column)
    };
    columns
        .filter(|(column, _)| !in_pair(*column) && !is_declared(facts, table, *column))
        .filter_map(|(column, schema)| {
            let base = referred(&schema.name)?;
            let parent = named_table(facts, table, &base)?;
            let guess = Guess {
                column,
                parent,
                parent_column: facts.single_key(parent)?,
            };
            fits(facts, table, &guess).then_some(guess)
        })
        .collect()
}

/// Columns that are called as if they named a row of another table, and hold what keys hold, but of
/// which nothing tells what they name.
pub(super) fn unexplained(facts: &Facts, table: TableIndex) -> Vec<&str> {
    let columns = (0..)
        .map(ColumnIndex)
        .zip(&facts.table(table).schema.columns);
    let open = columns.filter(|(column, schema)| {
        let is_key_like = matches!(
            facts.column_catalog(table, *column).tenant_type,
            Some(
                TenantType::SmallInt | TenantType::Integer | TenantType::BigInt | TenantType::Uuid
            )
        );
        let base = referred(&schema.name);
        is_key_like
            && !is_declared(facts, table, *column)
            && base.is_some_and(|base| {
                !is_elsewhere(&base) && named_table(facts, table, &base).is_none()
            })
    });
    open.map(|(_, schema)| schema.name.as_str()).collect()
}

/// The row that a pair names if it says `kind`; none if no other table can hold it.
pub(super) fn of_kind(facts: &Facts, pair: Pair, kind: &str) -> Option<Guess> {
    let parent = named_table(facts, pair.table, &kind_base(kind))?;
    let guess = Guess {
        column: pair.id,
        parent,
        parent_column: facts.single_key(parent)?,
    };
    fits(facts, pair.table, &guess).then_some(guess)
}

fn fits(facts: &Facts, table: TableIndex, guess: &Guess) -> bool {
    let (own, other) = ((table, guess.column), (guess.parent, guess.parent_column));
    guess.parent != table && facts.are_comparable(own, other)
}

/// The only table that holds what `base` names; one in the same schema goes before others.
fn named_table(facts: &Facts, near: TableIndex, base: &str) -> Option<TableIndex> {
    let only = |is_near: bool| {
        let mut found = facts.indexes().filter(|&index| {
            let catalog = &facts.table(index).catalog;
            let same = catalog.namespace == facts.table(near).catalog.namespace;
            same == is_near && holds(&catalog.relation, base)
        });
        match (found.next(), found.next()) {
            (first, None) => Ok(first),
            _ => Err(()),
        }
    };
    match only(true) {
        Ok(None) => only(false).ok().flatten(),
        found => found.ok().flatten(),
    }
}

/// Whether a foreign key says where a column leads.
fn is_declared(facts: &Facts, table: TableIndex, column: ColumnIndex) -> bool {
    let mut keys = facts.keys.iter();
    keys.any(|key| key.child == table && key.reference.columns.contains(&column))
}
