//! Streams of rows out of a COPY.

use reinstate_core::{
    ErrorKind, OwnedRowBatch, OwnedRowStream, ROW_BYTES_MAX, RowBatch, RowBuilder, RowStream,
    StoreError, TableIndex, TenantId,
};

use crate::catalog::{Catalog, TenantType};
use crate::copy_text::{LineReader, OwnerField};
use crate::owner::owner_path;
use crate::session::{CopyOut, Session};

/// The rows of one tenant in one table.
pub(crate) struct TenantRows<'s> {
    lines: CopyOut<'s>,
    reader: LineReader,
    has_more: bool,
}

impl<'s> TenantRows<'s> {
    /// Starts to read them.
    ///
    /// # Errors
    /// `Usage` if no tenant owns the table; `NotFound` if the id cannot be a tenant's.
    pub(crate) fn open(
        session: &'s Session,
        catalog: &Catalog,
        table: TableIndex,
        tenant: &TenantId,
    ) -> Result<Self, StoreError> {
        let (schema, relation) = catalog.table(table);
        let operation = format!("read the rows of {tenant} in table {}", schema.name);
        let Some(path) = owner_path(catalog, table, "t") else {
            let message = format!("{operation}: no tenant owns the table");
            return Err(StoreError::new(ErrorKind::Usage, message));
        };
        let sql = format!(
            "COPY (SELECT {} FROM {} AS t{} WHERE {}) TO STDOUT",
            relation.sql_columns("t"),
            relation.sql_rows(),
            path.joins("JOIN"),
            path.is_owner(tenant)?
        );
        Ok(Self {
            lines: session.copy_out(operation, &sql)?,
            reader: LineReader::new(schema, OwnerField::None, false),
            has_more: true,
        })
    }
}

impl RowStream for TenantRows<'_> {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        batch.clear();
        if self.has_more {
            let reader = &mut self.reader;
            self.has_more = self.lines.pull(|line| {
                check_length(line)?;
                reader.read(line)?;
                batch.push_parts(reader.key(), reader.columns());
                Ok(batch.as_bytes().len() < RowBatch::TARGET_BYTES)
            })?;
        }
        Ok(!batch.is_empty())
    }
}

/// Every row of one table, each with its owner.
pub(crate) struct OwnedRows<'s> {
    lines: CopyOut<'s>,
    reader: LineReader,
    builder: RowBuilder,
    has_more: bool,
}

impl<'s> OwnedRows<'s> {
    /// Starts to read them.
    ///
    /// A row that names a parent which does not exist, as only a database whose foreign keys
    /// were switched off can have it, is shared: it is never lost.
    pub(crate) fn open(
        session: &'s Session,
        catalog: &Catalog,
        table: TableIndex,
    ) -> Result<Self, StoreError> {
        let (schema, relation) = catalog.table(table);
        let operation = format!("read table {}", schema.name);
        let path = owner_path(catalog, table, "t");
        let is_blank = |kind: &TenantType| *kind == TenantType::Blank;
        let trims_owner = path
            .as_ref()
            .is_some_and(|path| is_blank(&path.tenant_type));
        let owner = match (&schema.tenancy, &path) {
            (reinstate_core::Tenancy::Direct { column }, _) => OwnerField::Column(column.get()),
            (_, Some(_)) => OwnerField::First,
            (_, None) => OwnerField::None,
        };
        let columns = relation.sql_columns("t");
        let sql = match (owner, &path) {
            (OwnerField::First, Some(path)) => format!(
                "COPY (SELECT {}, {columns} FROM {} AS t{}) TO STDOUT",
                path.column,
                relation.sql_rows(),
                path.joins("LEFT JOIN"),
            ),
            _ if relation.is_partitioned || relation.columns.is_empty() => format!(
                "COPY (SELECT {columns} FROM {} AS t) TO STDOUT",
                relation.sql_rows()
            ),
            // Cheaper than a query: no executor, and inherited tables are left out as well.
            _ => {
                let names = relation
                    .columns
                    .iter()
                    .map(|column| crate::sql::quote(&column.name));
                let names: Vec<String> = names.collect();
                format!(
                    "COPY {} ({}) TO STDOUT",
                    relation.sql_name(),
                    names.join(", ")
                )
            }
        };
        Ok(Self {
            lines: session.copy_out(operation, &sql)?,
            reader: LineReader::new(schema, owner, trims_owner),
            builder: RowBuilder::new(),
            has_more: true,
        })
    }
}

impl OwnedRowStream for OwnedRows<'_> {
    fn next_batch(&mut self, batch: &mut OwnedRowBatch) -> Result<bool, StoreError> {
        batch.clear();
        if self.has_more {
            let (reader, builder) = (&mut self.reader, &mut self.builder);
            self.has_more = self.lines.pull(|line| {
                check_length(line)?;
                reader.read(line)?;
                builder.start(reader.key());
                builder.push_columns(reader.columns());
                batch.push_row(reader.owner(), builder.row());
                Ok(batch.byte_count() < RowBatch::TARGET_BYTES)
            })?;
        }
        Ok(!batch.is_empty())
    }
}

fn check_length(line: &[u8]) -> Result<(), StoreError> {
    // Unescaping only makes it shorter; the key adds at most the columns once more.
    if line.len() <= ROW_BYTES_MAX / 2 {
        return Ok(());
    }
    let message = format!(
        "a row of {} bytes of text: at most {}",
        line.len(),
        ROW_BYTES_MAX / 2
    );
    Err(StoreError::new(ErrorKind::Refused, message))
}
