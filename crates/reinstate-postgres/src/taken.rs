//! Whether the server takes rows as the snapshot has them, whoever holds what.
//!
//! A type lost a label or a domain got a rule, a CHECK is younger than rows that it was never asked
//! about, a partition is gone. The server would say so when the rows are written. What is asked before
//! is only what can be otherwise: columns of types that somebody defined, CHECK constraints, and
//! partitions that do not cover everything. A constraint that calls a function of somebody's own may ask
//! other tables, which hold what they shall only when the rows are written, unless the function is declared
//! `IMMUTABLE`: otherwise it is asked only where it was not validated or its table changed.
//!
//! *Cost*: of each row that is to be written, the columns of its table's constraints are sent once.

use std::collections::{BTreeSet, HashMap};

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
    /// Whether it may ask for more than the row's own values: it calls a function that is not immutable.
    calls_functions: bool,
    /// The columns that it looks at; none if they are more than those of a row's own.
    columns: Option<Vec<ColumnIndex>>,
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
                          k.convalidated,
                          EXISTS (SELECT FROM pg_depend d
                                    LEFT JOIN pg_operator o
                                      ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
                                    JOIN pg_proc p ON p.oid = coalesce(o.oprcode::oid, d.refobjid)
                                   WHERE d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
                                     AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
                                     AND p.oid >= 16384 AND p.provolatile <> 'i'),
                          ARRAY(SELECT a.attname::text FROM unnest(k.conkey) u(number)
                                  LEFT JOIN pg_attribute a ON a.attrelid = k.conrelid
                                   AND a.attnum = u.number AND a.attnum > 0 AND a.attgenerated = '')
                     FROM pg_constraint k
                     JOIN pg_class c ON c.oid = k.conrelid AND NOT c.relispartition
                    WHERE k.contype = 'c' ORDER BY 1, 2";
        for row in session.rows("look for constraints", sql, &[])? {
            let names: Vec<Option<String>> = get(&row, 5)?;
            if let Some((table, demands)) = self.table(catalog, get(&row, 0)?) {
                let schema = catalog.schema.table(table);
                let columns = names.iter().map(|name| schema.column(name.as_ref()?));
                demands.checks.push(Check {
                    name: get(&row, 1)?,
                    expression: get(&row, 2)?,
                    is_validated: get(&row, 3)?,
                    calls_functions: get(&row, 4)?,
                    columns: columns.collect(),
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
            .filter(|check| is_changed || !check.is_validated || !check.calls_functions);
        let mut columns = Some(BTreeSet::new());
        for check in checks.clone() {
            match (&mut columns, &check.columns) {
                (Some(columns), Some(of_check)) => columns.extend(of_check),
                _ => columns = None,
            }
        }
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
            // By which columns they are told apart is not asked.
            columns = None;
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
        let every = || (0..).map(ColumnIndex).take(asked.schema.columns.len());
        let columns = match columns {
            Some(columns) if !columns.is_empty() => columns.into_iter().collect(),
            _ => every().collect::<Vec<_>>(),
        };
        let conditions_alone = conditions.iter().map(|(condition, ..)| condition.as_str());
        let counts = asked.count(&columns, conditions_alone)?;
        for ((_, object, detail), row_count) in conditions.into_iter().zip(counts) {
            if row_count > 0 {
                found.push(Hindrance {
                    object,
                    detail,
                    row_count,
                    of: None,
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
                    of: None,
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

    /// Of how many rows each condition holds, which looks at these columns or, where they are all, at what
    /// the server computes from them.
    fn count<'c>(
        &self,
        columns: &[ColumnIndex],
        conditions: impl Iterator<Item = &'c str>,
    ) -> Result<Vec<u64>, StoreError> {
        let operation = format!("look whether {} takes rows", self.schema.name);
        let values = gather(self.rows, columns).ok_or_else(|| not_text(&operation))?;
        let counts = conditions.map(|condition| format!("count(*) FILTER (WHERE {condition})"));
        let counts: Vec<String> = counts.collect();
        let is_whole = columns.len() == self.schema.columns.len();
        let generated = self.relation.generated.iter().filter(|_| is_whole);
        let generated: String = generated
            .map(|(name, expression)| format!(", ({expression}) AS {}", quote(name)))
            .collect();
        let sql = format!(
            "SELECT {} FROM (SELECT v.*{generated} FROM {} v) r",
            counts.join(", "),
            self.sent(columns)
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
