//! Whether the server takes rows as the snapshot has them, whoever holds what.
//!
//! A type lost a label or a domain got a rule, a CHECK is younger than rows that it was never asked
//! about, a partition is gone. The server would say so when the rows are written. What is asked before
//! is only what can be otherwise: columns of types that somebody defined, constraints that are not
//! validated, or of tables that changed since the snapshot, and partitions that do not cover everything.

use std::collections::HashMap;

use reinstate_core::{
    ColumnIndex, ErrorKind, Hindrance, RowBatch, StoreError, TableIndex, TableSchema,
};

use crate::catalog::{Catalog, CatalogTable, get};
use crate::merge::{AT_END, is_at_end};
use crate::obstacles::closed_sequence;
use crate::sent::{gather, parameters, sent_rows};
use crate::session::Session;
use crate::sql::quote;

/// From how many partitions on nobody is asked whether one of them takes a row.
const PARTITIONS_MAX: usize = 256;

/// What tables ask of rows, of those that ask anything.
#[derive(Debug, Default)]
pub(crate) struct Demands {
    tables: HashMap<TableIndex, TableDemands>,
}

#[derive(Debug, Default)]
struct TableDemands {
    /// Columns of which not every text that was a value still is one.
    columns: Vec<ColumnIndex>,
    checks: Vec<Check>,
    /// What the rows of each partition have in common.
    partitions: Vec<String>,
}

#[derive(Debug)]
struct Check {
    name: String,
    expression: String,
    /// Whether all rows of the table satisfy it.
    is_validated: bool,
}

impl Demands {
    pub(crate) fn read(session: &Session, catalog: &Catalog) -> Result<Self, StoreError> {
        let mut demands = Self::default();
        demands.read_columns(session, catalog)?;
        demands.read_checks(session, catalog)?;
        demands.read_partitions(session, catalog)?;
        Ok(demands)
    }

    fn table(&mut self, catalog: &Catalog, oid: u32) -> Option<(TableIndex, &mut TableDemands)> {
        let table = catalog.by_oid(oid)?;
        Some((table, self.tables.entry(table).or_default()))
    }

    fn read_columns(&mut self, session: &Session, catalog: &Catalog) -> Result<(), StoreError> {
        // A label that a column of an enumeration itself lacks is found by its text.
        let sql = "SELECT a.attrelid, a.attname::text
                     FROM pg_attribute a
                     JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p')
                      AND NOT c.relispartition
                     JOIN pg_type t ON t.oid = a.atttypid
                     LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
                    WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
                      AND t.oid >= 16384
                      AND (t.typtype IN ('c', 'd', 'r', 'm') OR e.typtype IN ('c', 'd', 'e', 'r'))
                    ORDER BY 1, a.attnum";
        for row in session.rows("look for types that may refuse values", sql, &[])? {
            let name: String = get(&row, 1)?;
            if let Some((table, demands)) = self.table(catalog, get(&row, 0)?) {
                demands
                    .columns
                    .extend(catalog.schema.table(table).column(&name));
            }
        }
        Ok(())
    }

    fn read_checks(&mut self, session: &Session, catalog: &Catalog) -> Result<(), StoreError> {
        let sql = "SELECT k.conrelid, k.conname::text, pg_get_expr(k.conbin, k.conrelid),
                          k.convalidated
                     FROM pg_constraint k
                     JOIN pg_class c ON c.oid = k.conrelid AND NOT c.relispartition
                    WHERE k.contype = 'c' ORDER BY 1, 2";
        for row in session.rows("look for constraints", sql, &[])? {
            if let Some((_, demands)) = self.table(catalog, get(&row, 0)?) {
                demands.checks.push(Check {
                    name: get(&row, 1)?,
                    expression: get(&row, 2)?,
                    is_validated: get(&row, 3)?,
                });
            }
        }
        Ok(())
    }

    /// Partitions, of tables that have none for whatever belongs to no other.
    fn read_partitions(&mut self, session: &Session, catalog: &Catalog) -> Result<(), StoreError> {
        let sql = "SELECT p.partrelid, pg_get_partition_constraintdef(t.relid)
                     FROM pg_partitioned_table p
                     JOIN pg_class c ON c.oid = p.partrelid AND NOT c.relispartition
                     JOIN LATERAL pg_partition_tree(p.partrelid) t ON t.isleaf
                    WHERE NOT EXISTS (SELECT FROM pg_class d
                                       WHERE d.oid = p.partdefid AND d.relkind <> 'p')
                    ORDER BY 1";
        for row in session.rows("look for partitions", sql, &[])? {
            let (table, constraint): (u32, Option<String>) = (get(&row, 0)?, get(&row, 1)?);
            if let Some((_, demands)) = self.table(catalog, table) {
                demands
                    .partitions
                    .push(constraint.unwrap_or_else(|| "true".to_owned()));
            }
        }
        Ok(())
    }

    /// What the table has against these rows. `is_changed`: whether it is not as it was when they were in
    /// it.
    ///
    /// # Errors
    /// `Refused` if a value is none of its column's type.
    pub(crate) fn hindrances(
        &self,
        session: &Session,
        catalog: &Catalog,
        table: TableIndex,
        rows: &RowBatch,
        is_changed: bool,
    ) -> Result<Vec<Hindrance>, StoreError> {
        let asked = Asked {
            session,
            schema: catalog.schema.table(table),
            relation: &catalog.tables[table.get()],
            rows,
        };
        let mut found = asked.sequences_at_end()?;
        let Some(demands) = self.tables.get(&table) else {
            return Ok(found);
        };
        for &column in &demands.columns {
            asked.cast(column)?;
        }
        let checks = demands
            .checks
            .iter()
            .filter(|check| is_changed || !check.is_validated);
        let mut conditions: Vec<(String, String, String)> = checks
            .map(|check| {
                let broken = format!("({}) IS FALSE", check.expression);
                let object = format!("constraint {} of {}", check.name, asked.schema.name);
                let detail = "is broken by rows of the snapshot, which are older than it is. Restore \
                              while it is dropped, or leave those rows out";
                (broken, object, detail.to_owned())
            })
            .collect();
        if !demands.partitions.is_empty() && demands.partitions.len() <= PARTITIONS_MAX {
            let taken = demands.partitions.join(") OR (");
            let object = format!("table {}", asked.schema.name);
            let detail = "has no partition for rows of the snapshot: create or attach it first";
            conditions.push((
                format!("(({taken})) IS NOT TRUE"),
                object,
                detail.to_owned(),
            ));
        }
        if conditions.is_empty() {
            return Ok(found);
        }
        let counts = asked.count(conditions.iter().map(|(condition, ..)| condition.as_str()))?;
        for ((_, object, detail), row_count) in conditions.into_iter().zip(counts) {
            if row_count > 0 {
                found.push(Hindrance {
                    object,
                    detail,
                    row_count,
                });
            }
        }
        Ok(found)
    }
}

/// Rows that a table is asked about.
struct Asked<'a> {
    session: &'a Session,
    schema: &'a TableSchema,
    relation: &'a CatalogTable,
    rows: &'a RowBatch,
}

impl Asked<'_> {
    fn sent(&self, columns: &[ColumnIndex]) -> String {
        sent_rows(
            columns
                .iter()
                .map(|column| &self.relation.columns[column.get()]),
        )
    }

    /// Sequences that would have nothing more to give once these rows are there. Those that the role may
    /// not read are another hindrance.
    fn sequences_at_end(&self) -> Result<Vec<Hindrance>, StoreError> {
        let mut found = Vec::new();
        for sequence in &self.relation.sequences {
            let Some(last) = sequence.last_of(self.relation) else {
                continue;
            };
            let values = self.rows.iter().filter_map(|row| {
                let text = row.values().nth(sequence.column.get()).flatten();
                text.and_then(|bytes| std::str::from_utf8(bytes).ok()?.parse::<i64>().ok())
            });
            let greatest = values.filter(|value| *value <= last).max();
            let Some(greatest) = greatest.filter(|value| *value > last - sequence.increment) else {
                continue;
            };
            if closed_sequence(self.session, sequence)?.is_none()
                && is_at_end(self.session, sequence, Some(last), greatest)?
            {
                found.push(Hindrance {
                    object: format!("sequence {}", sequence.display_name),
                    detail: AT_END.to_owned(),
                    row_count: 1,
                });
            }
        }
        Ok(found)
    }

    /// Makes values of the texts of one column.
    fn cast(&self, column: ColumnIndex) -> Result<(), StoreError> {
        let described = &self.schema.columns[column.get()];
        let operation = format!(
            "look whether {}.{} takes values",
            self.schema.name, described.name
        );
        let values = gather(self.rows, &[column]).ok_or_else(|| not_text(&operation))?;
        let sql = format!(
            "SELECT count(w.{}) FROM {} w",
            quote(&described.name),
            self.sent(&[column])
        );
        match self.session.row(&operation, &sql, &parameters(&values)) {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::Other | ErrorKind::Conflict) => {
                let message = format!(
                    "table {}: the snapshot holds values in {} that the live column ({}) does not \
                     take. Nothing was written",
                    self.schema.name, described.name, described.type_name
                );
                // What the server says has the value in it.
                Err(StoreError::new(ErrorKind::Refused, message))
            }
            Err(error) => Err(error),
        }
    }

    /// Of how many rows each condition holds.
    fn count<'c>(&self, conditions: impl Iterator<Item = &'c str>) -> Result<Vec<u64>, StoreError> {
        let operation = format!("look whether {} takes rows", self.schema.name);
        let columns = (0..).map(ColumnIndex).take(self.schema.columns.len());
        let columns: Vec<ColumnIndex> = columns.collect();
        let values = gather(self.rows, &columns).ok_or_else(|| not_text(&operation))?;
        let counts = conditions.map(|condition| format!("count(*) FILTER (WHERE {condition})"));
        let counts: Vec<String> = counts.collect();
        let generated = self.relation.generated.iter();
        let generated: String = generated
            .map(|(name, expression)| format!(", ({expression}) AS {}", quote(name)))
            .collect();
        let sql = format!(
            "SELECT {} FROM (SELECT v.*{generated} FROM {} v) r",
            counts.join(", "),
            self.sent(&columns)
        );
        let row = self.session.row(&operation, &sql, &parameters(&values))?;
        (0..counts.len())
            .map(|place| Ok(get::<i64>(&row, place)?.cast_unsigned()))
            .collect()
    }
}

fn not_text(operation: &str) -> StoreError {
    StoreError::new(ErrorKind::Corrupt, format!("{operation}: not text"))
}
