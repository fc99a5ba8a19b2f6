//! Which rows would meet another row that has the same unique value.
//!
//! For every unique index of the table, the rows' values are sent once and joined with the live
//! rows. Indexes on expressions and partial indexes are evaluated by the server, on both sides
//! alike. Nothing of somebody else's rows comes back.

use reinstate_core::{
    ColumnIndex, ErrorKind, HeldKey, KeyWriter, OwnHold, RowBatch, RowRef, RowRole, StoreError,
    TableIndex, Tenancy, TenantId,
};
use tokio_postgres::Row;

use crate::catalog::{Catalog, UniqueIndex, get};
use crate::owner::{Selection, ownership};
use crate::sent::{ORDINAL, TOGETHER_BYTES_MAX, gather, parameters, sent_rows, sent_rows_from};
use crate::session::Session;
use crate::sql::quote;

/// What is asked about.
pub(crate) struct Holders<'a> {
    pub session: &'a Session,
    pub catalog: &'a Catalog,
    pub tenant: &'a TenantId,
    pub table: TableIndex,
}

/// Whose rows have the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Others,
    /// Those of others, but for the row with the same key.
    OthersElsewhere,
    Own,
}

impl Holders<'_> {
    /// The keys among `rows` that somebody else holds, and not one of the rows that give way.
    pub(crate) fn others(
        &self,
        role: RowRole,
        rows: &RowBatch,
        giving_way: &RowBatch,
    ) -> Result<Vec<HeldKey>, StoreError> {
        let whose = match role {
            RowRole::PutBackAfter => Whose::OthersElsewhere,
            _ => Whose::Others,
        };
        let indexes = &self.catalog.tables[self.table.get()].unique_indexes;
        let mut held = Vec::new();
        self.ask_each(indexes, whose, (rows, giving_way), |index, row, _| {
            held.push(HeldKey {
                key: row.key().to_vec(),
                constraint: index.name.clone(),
            });
            Ok(())
        })?;
        Ok(held)
    }

    /// The rows among `rows` with a unique value that another row of the tenant has.
    pub(crate) fn own(&self, rows: &RowBatch) -> Result<Vec<OwnHold>, StoreError> {
        let (schema, relation) = self.catalog.table(self.table);
        let mut held = Vec::new();
        let mut key = KeyWriter::new();
        let indexes = relation.unique_indexes.iter();
        let indexes = indexes.filter(|index| !index.is_primary || !relation.has_exact_key(schema));
        let nothing = RowBatch::new();
        self.ask_each(
            indexes,
            Whose::Own,
            (rows, &nothing),
            |index, row, answer| {
                key.clear();
                for (column, place) in schema.key.iter().zip(1..) {
                    let text: String = get(answer, place)?;
                    key.push(schema.columns[column.get()].key_form, text.as_bytes());
                }
                held.push(OwnHold {
                    key: row.key().to_vec(),
                    columns: row.columns().to_vec(),
                    holder: key.as_bytes().to_vec(),
                    constraint: index.name.clone(),
                });
                Ok(())
            },
        )?;
        Ok(held)
    }

    /// Calls `each` with every row that meets one of `whose` in one of the indexes, and the server's answer.
    /// Of few rows the indexes are asked about together.
    fn ask_each<'i>(
        &self,
        indexes: impl IntoIterator<Item = &'i UniqueIndex>,
        whose: Whose,
        (rows, giving_way): (&RowBatch, &RowBatch),
        mut each: impl FnMut(&UniqueIndex, RowRef<'_>, &Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let indexes: Vec<&UniqueIndex> = indexes.into_iter().collect();
        let bytes = rows.as_bytes().len() + giving_way.as_bytes().len();
        let at_once = if bytes <= TOGETHER_BYTES_MAX {
            indexes.len()
        } else {
            1
        };
        for indexes in indexes.chunks(at_once.max(1)) {
            self.ask(indexes, whose, (rows, giving_way), &mut each)?;
        }
        Ok(())
    }

    fn ask(
        &self,
        indexes: &[&UniqueIndex],
        whose: Whose,
        (rows, giving_way): (&RowBatch, &RowBatch),
        mut each: impl FnMut(&UniqueIndex, RowRef<'_>, &Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let schema = self.catalog.schema.table(self.table);
        let operation = format!("look for rows in the way in table {}", schema.name);
        // What an expression needs is not looked at: all columns.
        let every = || (0..).map(ColumnIndex).take(schema.columns.len()).collect();
        let gives_way = !schema.key.is_empty() && !giving_way.is_empty();
        let mut asked = Vec::new();
        for &index in indexes {
            let mut columns: Vec<ColumnIndex> = index.columns.clone().unwrap_or_else(every);
            if whose != Whose::Others {
                columns.extend(&schema.key);
                columns.sort_unstable();
                columns.dedup();
            }
            let Some(sql) = self.question(index, whose, &columns, gives_way)? else {
                continue;
            };
            let not_text = || StoreError::new(ErrorKind::Corrupt, format!("{operation}: not text"));
            let mut values = gather(rows, &columns).ok_or_else(not_text)?;
            if gives_way {
                values.extend(gather(giving_way, &schema.key).ok_or_else(not_text)?);
            }
            asked.push((index, sql, values));
        }
        let questions = asked
            .iter()
            .map(|(_, sql, values)| (sql.as_str(), parameters(values)));
        let questions: Vec<_> = questions.collect();
        let answers = self.session.rows_of_each(&operation, &questions)?;
        for ((index, ..), answers) in asked.iter().zip(answers) {
            let mut answers = answers.iter().peekable();
            // Ordinals start at one, and the answers are in their order.
            for (row, ordinal) in rows.iter().zip(1_i64..) {
                while let Some(answer) = answers.peek() {
                    if get::<i64>(answer, 0)? != ordinal {
                        break;
                    }
                    each(index, row, answer)?;
                    answers.next();
                }
            }
        }
        Ok(())
    }

    /// The ordinals of the rows that meet another in this index, as a query whose parameters are
    /// the columns as lists of texts. Of the tenant's own rows, their keys as well.
    fn question(
        &self,
        index: &UniqueIndex,
        whose: Whose,
        columns: &[ColumnIndex],
        gives_way: bool,
    ) -> Result<Option<String>, StoreError> {
        let (schema, relation) = self.catalog.table(self.table);
        let owned = ownership(self.catalog, self.table, "t");
        let mut found = vec![format!("w.{ORDINAL}")];
        let mut selection = match (whose, owned) {
            (Whose::Others | Whose::OthersElsewhere, Some(owned)) => {
                owned.of_others(self.tenant)?
            }
            (Whose::Own, Some(owned)) => owned.joined(self.tenant)?,
            // Rows of everybody to be created meet every row.
            (Whose::Others, None) if schema.tenancy == Tenancy::Shared => Selection::everything(),
            (_, None) => return Ok(None),
        };
        if whose != Whose::Others {
            let keys = schema.key.iter().zip(&relation.key_operators);
            let equal = keys.map(|(column, operator)| {
                let name = quote(&relation.columns[column.get()].name);
                let text = |alias| format!("pg_catalog.format('%s', {alias}.{name})");
                found.push(text("t"));
                match whose {
                    // One that is written otherwise is another row of the tenant's.
                    Whose::Own => format!("{} COLLATE \"C\" = {}", text("t"), text("w")),
                    _ => format!("t.{name} {operator} w.{name}"),
                }
            });
            let equal = equal.collect::<Vec<_>>().join(" AND ");
            if !equal.is_empty() {
                selection.condition = format!("{} AND NOT ({equal})", selection.condition);
            }
        }
        let sent = sent_rows(columns.iter().map(|column| &relation.columns[column.get()]));
        if gives_way {
            let key = || {
                schema
                    .key
                    .iter()
                    .map(|column| &relation.columns[column.get()])
            };
            let giving_way = sent_rows_from(columns.len() + 1, key());
            let equal = key()
                .zip(&relation.key_operators)
                .map(|(column, operator)| {
                    let name = quote(&column.name);
                    format!("y.{name} {operator} t.{name}")
                });
            selection.condition = format!(
                "{} AND NOT EXISTS (SELECT FROM {giving_way} y WHERE {})",
                selection.condition,
                equal.collect::<Vec<_>>().join(" AND ")
            );
        }
        let sent = index.sql_rows("s", &index.sql_complete(&relation.generated, &sent));
        let live = index.sql_rows("t", &relation.sql_rows());
        let (met, equal) = (found.join(", "), index.sql_equal("w", "t"));
        let Selection { sources, condition } = selection;
        if whose == Whose::Others && index.finds_values {
            // Nearly always nobody is met. Each value is looked up, and only then it is asked whose the rows are:
            // the server would rather read the whole table, and those of all parents, before it has met anybody.
            return Ok(Some(format!(
                "WITH t AS MATERIALIZED (
                     SELECT w.{ORDINAL}, t.* FROM {sent} w
                      CROSS JOIN LATERAL (SELECT t.* FROM {live} t WHERE {equal} LIMIT 1) t)
                 SELECT DISTINCT t.{ORDINAL} FROM t{sources} WHERE {condition} ORDER BY 1"
            )));
        }
        Ok(Some(format!(
            "SELECT DISTINCT {met} FROM {sent} w JOIN {live} t ON {equal}{sources}
              WHERE {condition} ORDER BY 1"
        )))
    }
}
