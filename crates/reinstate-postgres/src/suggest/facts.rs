//! What the catalogue says, and how many rows there are.

use std::collections::HashMap;

use reinstate_core::{ColumnIndex, StoreError, TableIndex};

use super::RowCount;
use super::names::is_bookkeeping;
use crate::catalog::{CatalogColumn, Draft, Drafts, ForeignKey, get, read_drafts};
use crate::session::Session;

/// The tables of a database with their keys and sizes.
pub(super) struct Facts {
    /// In the order of their names.
    pub tables: Vec<Draft>,
    /// In the order of their tables and columns, each reference once.
    pub keys: Vec<ForeignKey>,
    rows: Vec<RowCount>,
    extensions: Vec<Option<String>>,
}

/// Reads the catalogue.
pub(super) fn read(session: &Session) -> Result<Facts, StoreError> {
    let Drafts {
        tables, mut keys, ..
    } = read_drafts(session)?;
    // A reference that is declared twice is one that is validated, if either is.
    keys.sort_by(|left, right| {
        let place = |key: &ForeignKey| (key.child, key.reference.clone(), !key.is_validated);
        place(left).cmp(&place(right))
    });
    keys.dedup_by(|left, right| left.child == right.child && left.reference == right.reference);
    let mut found = read_sizes(session)?;
    let sizes = tables.iter().map(|table| {
        let found = found.remove(&table.catalog.oid);
        found.unwrap_or((RowCount::Unknown, None))
    });
    let (rows, extensions) = sizes.unzip();
    Ok(Facts {
        tables,
        keys,
        rows,
        extensions,
    })
}

/// How many rows every table has, by its object id, as the server estimates it.
pub(crate) fn estimates(session: &Session) -> Result<HashMap<u32, u64>, StoreError> {
    let sizes = read_sizes(session)?.into_iter();
    Ok(sizes
        .filter_map(|(oid, (rows, _))| match rows {
            RowCount::Exact(rows) | RowCount::About(rows) => Some((oid, rows)),
            RowCount::Unknown => None,
        })
        .collect())
}

/// The size of every table by its object id, and the extension that it belongs to.
fn read_sizes(session: &Session) -> Result<HashMap<u32, (RowCount, Option<String>)>, StoreError> {
    let sql = "SELECT c.oid,
                  CASE WHEN c.relkind = 'p' THEN (
                      SELECT CASE WHEN bool_or(l.reltuples < 0) THEN -1
                                  ELSE coalesce(sum(l.reltuples), 0) END
                        FROM pg_partition_tree(c.oid) p JOIN pg_class l ON l.oid = p.relid
                       WHERE p.isleaf AND l.relkind = 'r')
                  ELSE c.reltuples END::int8,
                  (SELECT e.extname::text FROM pg_depend d
                     JOIN pg_extension e ON e.oid = d.refobjid
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                      AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' LIMIT 1)
             FROM pg_class c WHERE c.relkind IN ('r', 'p')";
    let mut found = HashMap::new();
    for row in session.rows("read the sizes of tables", sql, &[])? {
        let (oid, estimate): (u32, i64) = (get(&row, 0)?, get(&row, 1)?);
        let rows = u64::try_from(estimate).map_or(RowCount::Unknown, RowCount::About);
        found.insert(oid, (rows, get::<Option<String>>(&row, 2)?));
    }
    Ok(found)
}

impl Facts {
    /// Counts the rows of every table that the role may read in full.
    pub(super) fn count_rows(&mut self, session: &Session) -> Result<(), StoreError> {
        for index in self.indexes().collect::<Vec<_>>() {
            if !self.can_be_read(index) {
                continue;
            }
            let sql = format!(
                "SELECT count(*) FROM {}",
                self.table(index).catalog.sql_rows()
            );
            let operation = format!("count the rows of {}", self.name(index));
            let count: i64 = get(&session.row(&operation, &sql, &[])?, 0)?;
            self.rows[index.get()] = RowCount::Exact(u64::try_from(count).unwrap_or(0));
        }
        Ok(())
    }

    /// Whether the role sees every row of a table.
    pub(super) fn can_be_read(&self, index: TableIndex) -> bool {
        let table = &self.table(index).catalog;
        table.is_readable && !table.hides_rows()
    }

    pub(super) fn indexes(&self) -> impl Iterator<Item = TableIndex> + use<> {
        let count = u32::try_from(self.tables.len()).expect("BUG: more tables than numbers");
        (0..count).map(TableIndex)
    }

    pub(super) fn table(&self, index: TableIndex) -> &Draft {
        &self.tables[index.get()]
    }

    pub(super) fn name(&self, index: TableIndex) -> &str {
        self.table(index).schema.name.as_str()
    }

    pub(super) fn rows(&self, index: TableIndex) -> RowCount {
        self.rows[index.get()]
    }

    /// Why a table holds no data of the application, if that is so.
    pub(super) fn is_outside(&self, index: TableIndex) -> Option<String> {
        if let Some(extension) = &self.extensions[index.get()] {
            return Some(format!("belongs to the extension {extension}"));
        }
        let is_bookkeeping = is_bookkeeping(&self.table(index).catalog.relation);
        is_bookkeeping.then(|| "a framework's record of its own migrations".to_owned())
    }

    /// The column of a table with this name.
    pub(super) fn column(&self, index: TableIndex, name: &str) -> Option<ColumnIndex> {
        self.table(index).schema.column(name)
    }

    pub(super) fn column_name(&self, index: TableIndex, column: ColumnIndex) -> &str {
        &self.table(index).schema.columns[column.get()].name
    }

    pub(super) fn column_catalog(&self, index: TableIndex, column: ColumnIndex) -> &CatalogColumn {
        &self.table(index).catalog.columns[column.get()]
    }

    pub(super) fn is_nullable(&self, index: TableIndex, column: ColumnIndex) -> bool {
        self.table(index).schema.columns[column.get()].nullable
    }

    /// The only column of a table's primary key.
    pub(super) fn single_key(&self, index: TableIndex) -> Option<ColumnIndex> {
        match self.table(index).schema.key.as_slice() {
            [column] => Some(*column),
            _ => None,
        }
    }

    /// The foreign keys of a table to others.
    pub(super) fn keys_of(&self, index: TableIndex) -> impl Iterator<Item = &ForeignKey> {
        let keys = self.keys.iter();
        keys.filter(move |key| key.child == index && key.reference.parent != index)
    }

    /// Whether every row of a table has the row that a foreign key names.
    pub(super) fn is_firm(&self, key: &ForeignKey) -> bool {
        let mut columns = key.reference.columns.iter();
        key.is_validated && columns.all(|&column| !self.is_nullable(key.child, column))
    }

    /// Whether values of two columns can be equal and be compared by their texts.
    pub(super) fn are_comparable(
        &self,
        left: (TableIndex, ColumnIndex),
        right: (TableIndex, ColumnIndex),
    ) -> bool {
        let (left, right) = (
            self.column_catalog(left.0, left.1),
            self.column_catalog(right.0, right.1),
        );
        let is_exact = left.is_deterministic && right.is_deterministic;
        is_exact && family(&left.type_sql) == family(&right.type_sql)
    }

    /// The columns of a reference, as in `region, number`.
    pub(super) fn columns_text(&self, index: TableIndex, columns: &[ColumnIndex]) -> String {
        let names = columns
            .iter()
            .map(|&column| self.column_name(index, column));
        names.collect::<Vec<_>>().join(", ")
    }

    /// A reference as a rule names it.
    pub(super) fn reference_text(
        &self,
        child: TableIndex,
        columns: &[ColumnIndex],
        parent: TableIndex,
        parent_columns: &[ColumnIndex],
    ) -> String {
        let targets = parent_columns
            .iter()
            .map(|&column| format!("{}.{}", self.name(parent), self.column_name(parent, column)));
        let targets: Vec<String> = targets.collect();
        format!(
            "{} -> {}",
            self.columns_text(child, columns),
            targets.join(", ")
        )
    }
}

/// A type by what its values can be compared with.
fn family(type_sql: &str) -> &str {
    let name = type_sql.split('(').next().unwrap_or(type_sql).trim();
    match name {
        "smallint" | "integer" => "bigint",
        "character varying" => "text",
        other => other,
    }
}
