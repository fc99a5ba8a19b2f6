//! Temporary tables that hold the rows of a plan until a statement takes them over.
//!
//! A stage has the types of the live table and none of its constraints, defaults, indexes or
//! triggers. It is gone with the transaction.

use reinstate_core::{
    ChangeSource, ErrorKind, RowBatch, RowBuilder, RowRef, RowRole, StoreError, TableIndex,
};

use super::sequences::SequenceColumns;
use crate::catalog::{Catalog, CatalogTable};
use crate::copy_text::write_line;
use crate::session::Session;
use crate::sql::columns_of;

/// From how many rows on a stage gets statistics of its own.
const ANALYZED_ROWS_MIN: u64 = 2_000;

/// From how many rows on a stage's space is given back as soon as nobody reads it any more, and
/// not only at the end of the transaction: emptying a table costs about what staging 500 rows does.
const EMPTIED_ROWS_MIN: u64 = 10_000;

/// About how much is sent at once. The server reads a message whole before it works on it: with
/// messages larger than what a socket buffers, each side would wait for the other.
const MESSAGE_BYTES: usize = 48 * 1024;

/// Rows of one table and role, on the server.
#[derive(Debug)]
pub(super) struct Stage {
    /// As SQL.
    pub name: String,
    pub row_count: u64,
}

/// Which columns a stage has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StageColumns {
    All,
    Key,
}

/// What a stage is made of.
pub(super) struct Staging<'a> {
    pub session: &'a Session,
    pub catalog: &'a Catalog,
    pub changes: &'a dyn ChangeSource,
    /// How many stages there are; each has a number in its name.
    pub stage_count: u32,
}

impl Staging<'_> {
    /// Sends rows to the server. `seen` gets every row's values.
    ///
    /// # Errors
    /// `Corrupt` if there are more or fewer rows than `expected`.
    pub(super) fn stage(
        &mut self,
        table: TableIndex,
        role: RowRole,
        columns: StageColumns,
        expected: u64,
        seen: &mut SequenceColumns<'_>,
    ) -> Result<Stage, StoreError> {
        let (schema, relation) = self.catalog.table(table);
        let operation = format!("send rows of table {}", schema.name);
        let is_staged: Vec<bool> = (0..relation.columns.len())
            .map(|place| {
                columns == StageColumns::All || schema.key.iter().any(|key| key.get() == place)
            })
            .collect();
        self.stage_count += 1;
        let name = format!("pg_temp.reinstate_stage_{}", self.stage_count);
        let create = format!(
            "CREATE TEMPORARY TABLE {name} ON COMMIT DROP AS SELECT {} FROM {} AS t WITH NO DATA",
            staged_columns(relation, &is_staged, "t"),
            relation.sql_name()
        );
        self.session.run(&operation, &create)?;
        let copy = format!("COPY {name} FROM STDIN");
        let kept = (columns == StageColumns::Key).then_some(is_staged.as_slice());
        let (_, row_count) = self.send(&operation, &copy, (table, role), kept, seen)?;
        if row_count != expected {
            let message = format!("{operation}: {row_count} rows instead of {expected}");
            return Err(StoreError::new(ErrorKind::Corrupt, message));
        }
        if row_count >= ANALYZED_ROWS_MIN && columns == StageColumns::Key {
            self.session.run(&operation, &format!("ANALYZE {name}"))?;
        }
        Ok(Stage { name, row_count })
    }

    /// Sends rows straight into a live table, by a COPY that lets only the tenant's in. Returns
    /// how many it let in. `seen` gets every row's values.
    ///
    /// # Errors
    /// `Corrupt` if there are more or fewer rows than `expected`.
    pub(super) fn send_created(
        &self,
        table: TableIndex,
        copy: &str,
        expected: u64,
        seen: &mut SequenceColumns<'_>,
    ) -> Result<u64, StoreError> {
        let operation = format!("create rows of {}", self.catalog.schema.table(table).name);
        let rows = (table, RowRole::Created);
        let (sent, taken) = self.send(&operation, copy, rows, None, seen)?;
        if sent == expected {
            return Ok(taken);
        }
        let message = format!("{operation}: {sent} rows instead of {expected}");
        Err(StoreError::new(ErrorKind::Corrupt, message))
    }

    /// Sends rows, of each only the columns in `kept` if given. Returns how many were sent and
    /// how many the server took.
    fn send(
        &self,
        operation: &str,
        copy: &str,
        (table, role): (TableIndex, RowRole),
        kept: Option<&[bool]>,
        seen: &mut SequenceColumns<'_>,
    ) -> Result<(u64, u64), StoreError> {
        let mut rows = self.changes.rows(table, role)?;
        let (mut batch, mut next, mut sent) = (RowBatch::new(), 0, 0);
        let mut part = RowBuilder::new();
        let taken = self.session.copy_in(operation, copy, |buffer| {
            while buffer.len() < MESSAGE_BYTES {
                let Some((row, after)) = batch.row_at(next) else {
                    next = 0;
                    if rows.next_batch(&mut batch)? {
                        continue;
                    }
                    break;
                };
                next = after;
                sent += 1;
                seen.note(row);
                if let Some(is_kept) = kept {
                    keep_columns(row, is_kept, &mut part);
                    write_line(part.row(), buffer);
                } else {
                    write_line(row, buffer);
                }
            }
            Ok(!buffer.is_empty())
        })?;
        Ok((sent, taken))
    }

    /// Gives the space of a stage back that nobody reads any more, if it is worth it.
    pub(super) fn discard(&self, stage: &Stage) -> Result<(), StoreError> {
        if stage.row_count < EMPTIED_ROWS_MIN {
            return Ok(());
        }
        self.session.run(
            "empty a temporary table",
            &format!("TRUNCATE {}", stage.name),
        )
    }
}

fn staged_columns(relation: &CatalogTable, is_staged: &[bool], alias: &str) -> String {
    let columns = relation.columns.iter().zip(is_staged);
    let names = columns.filter(|(_, is_staged)| **is_staged);
    columns_of(alias, names.map(|(column, _)| column.name.as_str()))
}

fn keep_columns(row: RowRef<'_>, is_kept: &[bool], part: &mut RowBuilder) {
    part.start(b"");
    for (value, is_kept) in row.values().zip(is_kept) {
        if *is_kept {
            part.push(value);
        }
    }
}
