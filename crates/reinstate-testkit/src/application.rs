//! What an application does to its own store, in words that every store understands.

use reinstate_core::{
    ErrorKind, Owner, RowBatch, RowBuilder, RowRef, StoreError, StoreSchema, TableIndex,
    TableSchema, TenantId,
};

/// One row as an application sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApplicationRow {
    /// Whose row it is. Decides only where the store itself keeps the owner; elsewhere the
    /// columns say it, and this must agree with them.
    pub owner: Owner,
    /// The table's name.
    pub table: String,
    /// The columns' values, in the order of the schema.
    pub values: Vec<Option<Vec<u8>>>,
}

/// One change that an application makes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ApplicationChange {
    /// Inserts the row, or replaces the one with its key. A table without a key gets it once more.
    Put(ApplicationRow),
    /// Deletes the row with this key. Of a table without a key, one of the equal rows.
    Delete(ApplicationRow),
}

impl ApplicationRow {
    /// A row of a tenant; values as text.
    #[must_use]
    pub fn new(owner: &Owner, table: &str, values: &[Option<&str>]) -> Self {
        Self {
            owner: owner.clone(),
            table: table.to_owned(),
            values: values
                .iter()
                .map(|value| value.map(|text| text.as_bytes().to_vec()))
                .collect(),
        }
    }

    /// The tenant's id, unless the row is shared.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        match &self.owner {
            Owner::Shared => None,
            Owner::Tenant(tenant) => Some(tenant),
        }
    }

    /// The row's table in a schema.
    ///
    /// # Errors
    /// `Usage` if the schema has no table of that name.
    pub fn find<'s>(
        &self,
        schema: &'s StoreSchema,
    ) -> Result<(TableIndex, &'s TableSchema), StoreError> {
        schema.find(&self.table).ok_or_else(|| {
            let message = format!("write {}: there is no such table", self.table);
            StoreError::new(ErrorKind::Usage, message)
        })
    }

    /// Appends the row to a batch in the encoding of its table.
    ///
    /// # Errors
    /// As [`encode_row`].
    pub fn encode(&self, table: &TableSchema, batch: &mut RowBatch) -> Result<(), StoreError> {
        let values: Vec<Option<&[u8]>> = self.values.iter().map(Option::as_deref).collect();
        let mut builder = RowBuilder::new();
        encode_row(table, &values, &mut builder)?;
        batch.push_row(builder.row());
        Ok(())
    }
}

impl ApplicationChange {
    /// The row that is put or deleted.
    #[must_use]
    pub fn row(&self) -> &ApplicationRow {
        match self {
            Self::Put(row) | Self::Delete(row) => row,
        }
    }
}

/// Builds the row of a table with these values.
///
/// # Errors
/// `Usage` if there are more or fewer values than columns, or a NULL where none is allowed.
pub fn encode_row(
    table: &TableSchema,
    values: &[Option<&[u8]>],
    builder: &mut RowBuilder,
) -> Result<(), StoreError> {
    let usage = |fact: String| {
        let message = format!("write {}: {fact}", table.name);
        Err(StoreError::new(ErrorKind::Usage, message))
    };
    for (value, column) in values.iter().zip(&table.columns) {
        if value.is_none() && !column.nullable {
            return usage(format!("{} may not be NULL", column.name));
        }
    }
    table.encode_row(values, builder).map_err(|error| {
        let message = format!("write {}", table.name);
        StoreError::new(ErrorKind::Usage, message).because(error)
    })
}

/// The values of a row, copied out.
#[must_use]
pub fn row_values(row: RowRef<'_>) -> Vec<Option<Vec<u8>>> {
    row.values()
        .map(|value| value.map(<[u8]>::to_vec))
        .collect()
}
