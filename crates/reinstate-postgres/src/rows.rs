//! Streams of rows out of a COPY.

use reinstate_core::{
    ErrorKind, OwnedRowBatch, OwnedRowStream, ROW_BYTES_MAX, RowBatch, RowStream, StoreError,
    TableIndex, TableName, Tenancy, TenantId,
};

use crate::catalog::{Catalog, CatalogTable, TenantType};
use crate::copy_text::{LineReader, OwnerField};
use crate::fingerprint::{Sum, Versions};
use crate::own_keys::{Noted, OwnKeys};
use crate::owner::{Selection, ownership};
use crate::session::{CopyOut, Session};

/// The rows of one tenant in one table.
pub(crate) struct TenantRows<'s> {
    lines: CopyOut<'s>,
    reader: LineReader,
    has_more: bool,
    /// What others refer to the rows by, until all were read.
    noted: Option<Noted>,
    keys: &'s OwnKeys,
    sum: Sum,
    versions: &'s Versions,
    tenant: TenantId,
    table: TableIndex,
}

impl<'s> TenantRows<'s> {
    /// Starts to read them. `keys` and `versions` are of the same position; `transaction` is the low half
    /// of the session's own, if it wrote rows.
    ///
    /// # Errors
    /// `Usage` if no tenant owns the table; `NotFound` if the id cannot be a tenant's.
    pub(crate) fn open(
        session: &'s Session,
        catalog: &Catalog,
        table: TableIndex,
        tenant: &TenantId,
        (keys, versions): (&'s OwnKeys, &'s Versions),
        transaction: Option<u32>,
    ) -> Result<Self, StoreError> {
        let (schema, relation) = catalog.table(table);
        let operation = format!("read the rows of {tenant} in table {}", schema.name);
        let Some(owned) = ownership(catalog, table, "t") else {
            let message = format!("{operation}: no tenant owns the table");
            return Err(StoreError::new(ErrorKind::Usage, message));
        };
        let own = match keys.joined_parents(catalog, table, tenant) {
            Some(sources) => Selection {
                sources,
                condition: "true".to_owned(),
            },
            None => owned.joined(tenant)?,
        };
        let columns = match relation.columns.is_empty() {
            true => String::new(),
            false => format!(", {}", relation.sql_columns("t")),
        };
        let sql = format!(
            "COPY (SELECT {}{columns} FROM {} AS t{} WHERE {}) TO STDOUT",
            Sum::sql(),
            relation.sql_rows(),
            own.sources,
            own.condition
        );
        Ok(Self {
            lines: session.copy_out(operation, &sql)?,
            reader: LineReader::new(schema, OwnerField::None, false),
            has_more: true,
            noted: keys.start(catalog, table),
            keys,
            sum: Sum::of_none(transaction),
            versions,
            tenant: tenant.clone(),
            table,
        })
    }
}

impl RowStream for TenantRows<'_> {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        batch.clear();
        if self.has_more {
            let (reader, sum) = (&mut self.reader, &mut self.sum);
            self.has_more = self.lines.pull(|line| {
                check_length(line)?;
                reader.read(sum.add(line)?)?;
                batch.push_parts(reader.key(), reader.columns());
                reader.let_go();
                Ok(batch.as_bytes().len() < RowBatch::TARGET_BYTES)
            })?;
            if let Some(noted) = &mut self.noted {
                noted.note(batch);
            }
            if !self.has_more {
                self.versions.keep(&self.tenant, self.table, self.sum);
                if let Some(noted) = self.noted.take() {
                    self.keys.keep(&self.tenant, self.table, noted);
                }
            }
        }
        Ok(!batch.is_empty())
    }
}

/// Every row of one table, each with its owner.
pub(crate) struct OwnedRows<'s> {
    lines: CopyOut<'s>,
    reader: LineReader,
    table: TableName,
    refuses_unowned: bool,
    has_more: bool,
}

impl<'s> OwnedRows<'s> {
    /// Starts to read them.
    ///
    /// A row that reaches nobody, such as one that names a parent which does not exist in a
    /// database whose foreign keys were switched off, is shared: it is never lost. Where the map
    /// does not expect such rows it is an error, of kind `Unclassified`, that comes with the rows.
    pub(crate) fn open(
        session: &'s Session,
        catalog: &Catalog,
        table: TableIndex,
    ) -> Result<Self, StoreError> {
        let (schema, relation) = catalog.table(table);
        let operation = format!("read table {}", schema.name);
        let owned = ownership(catalog, table, "t");
        // Where the owner is a field of its own, the server trimmed it already.
        let mut trims_owner = false;
        let owner = match (&schema.tenancy, &owned) {
            (Tenancy::Direct { column }, _) => {
                let kind = &relation.columns[column.get()].tenant_type;
                trims_owner = *kind == Some(TenantType::Blank);
                OwnerField::Column(column.get())
            }
            (_, Some(_)) => OwnerField::First,
            (_, None) => OwnerField::None,
        };
        let columns = relation.sql_columns("t");
        let sql = match (owner, &owned) {
            (OwnerField::First, Some(owned)) => {
                let (joins, owner) = owned.captured();
                let rows = relation.sql_rows();
                format!("COPY (SELECT {owner}, {columns} FROM {rows} AS t{joins}) TO STDOUT")
            }
            _ => all_rows(relation),
        };
        Ok(Self {
            lines: session.copy_out(operation, &sql)?,
            reader: LineReader::new(schema, owner, trims_owner),
            table: schema.name.clone(),
            refuses_unowned: relation.refuses_unowned,
            has_more: true,
        })
    }

    /// The same without their owners: no other table is read for that.
    pub(crate) fn open_without_owners(
        session: &'s Session,
        catalog: &Catalog,
        table: TableIndex,
    ) -> Result<Self, StoreError> {
        let (schema, relation) = catalog.table(table);
        let operation = format!("read table {}", schema.name);
        Ok(Self {
            lines: session.copy_out(operation, &all_rows(relation))?,
            reader: LineReader::new(schema, OwnerField::None, false),
            table: schema.name.clone(),
            refuses_unowned: false,
            has_more: true,
        })
    }
}

fn all_rows(relation: &CatalogTable) -> String {
    if relation.is_partitioned || relation.columns.is_empty() {
        let (columns, rows) = (relation.sql_columns("t"), relation.sql_rows());
        return format!("COPY (SELECT {columns} FROM {rows} AS t) TO STDOUT");
    }
    // Cheaper than a query: no executor, and inherited tables are left out as well.
    let columns = relation.columns.iter();
    let names: Vec<String> = columns
        .map(|column| crate::sql::quote(&column.name))
        .collect();
    let names = names.join(", ");
    format!("COPY {} ({names}) TO STDOUT", relation.sql_name())
}

impl OwnedRowStream for OwnedRows<'_> {
    fn next_batch(&mut self, batch: &mut OwnedRowBatch) -> Result<bool, StoreError> {
        batch.clear();
        if self.has_more {
            let reader = &mut self.reader;
            let refuses_unowned = self.refuses_unowned;
            self.has_more = self.lines.pull(|line| {
                check_length(line)?;
                reader.read(line)?;
                if refuses_unowned && reader.is_unowned() {
                    return Err(unowned(&self.table));
                }
                batch.push_parts(reader.owner(), reader.key(), reader.columns());
                reader.let_go();
                Ok(batch.byte_count() < RowBatch::TARGET_BYTES)
            })?;
        }
        Ok(!batch.is_empty())
    }
}

fn unowned(table: &TableName) -> StoreError {
    let message = format!(
        "table {table} has a row that none of the ways of its rule leads to an owner. See which: \
         reinstate tenancy check. If such rows are everybody's, add unowned = \"shared\""
    );
    StoreError::new(ErrorKind::Unclassified, message)
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
