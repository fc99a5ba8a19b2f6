//! What a store holds, as the kit sees it, and what it should hold.

use std::collections::BTreeMap;

use reinstate_core::{
    LiveView, OwnedRowBatch, RowBatch, RowStream, SnapshotSource, StoreError, StoreSchema, Tenancy,
    TenantId,
};

use crate::certification::Violation;
use crate::{ApplicationChange, ApplicationRow};

/// An encoded row: key and columns.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// Encoded rows of one owner in one table, sorted, duplicates as often as they are there.
type Table = Vec<Row>;

/// The rows of a store or of a part of it, by owner and table. Owners and tables without rows are
/// left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    tables: BTreeMap<(Vec<u8>, String), Table>,
}

impl Contents {
    /// Adds one encoded row.
    pub(crate) fn add(&mut self, owner: &[u8], table: &str, key: &[u8], columns: &[u8]) {
        let rows = self
            .tables
            .entry((owner.to_vec(), table.to_owned()))
            .or_default();
        let row = (key.to_vec(), columns.to_vec());
        let place = rows.partition_point(|other| *other < row);
        rows.insert(place, row);
    }

    /// Removes the row with this key, or one of those with these columns where keys are empty.
    fn remove(&mut self, owner: &[u8], table: &str, key: &[u8], columns: &[u8]) {
        let place = (owner.to_vec(), table.to_owned());
        let Some(rows) = self.tables.get_mut(&place) else {
            return;
        };
        let is_before =
            |row: &Row| row.0.as_slice() < key || (key.is_empty() && row.1.as_slice() < columns);
        let found = rows.partition_point(is_before);
        let is_it = |row: &Row| row.0 == key && (!key.is_empty() || row.1 == columns);
        if rows.get(found).is_some_and(is_it) {
            rows.remove(found);
        }
        if rows.is_empty() {
            self.tables.remove(&place);
        }
    }

    /// Adds every row of a stream.
    ///
    /// # Errors
    /// As the stream reports it.
    pub(crate) fn add_stream(
        &mut self,
        owner: &[u8],
        table: &str,
        rows: &mut dyn RowStream,
    ) -> Result<(), StoreError> {
        let mut batch = RowBatch::new();
        while rows.next_batch(&mut batch)? {
            for row in batch.iter() {
                self.add(owner, table, row.key(), row.columns());
            }
        }
        Ok(())
    }

    /// The rows of one owner.
    #[must_use]
    pub fn of(&self, tenant: &TenantId) -> Self {
        let own = |(owner, _): &(Vec<u8>, String)| owner == tenant.as_bytes();
        self.filter(own)
    }

    /// The rows of everybody else.
    #[must_use]
    pub fn without(&self, tenant: &TenantId) -> Self {
        let foreign = |(owner, _): &(Vec<u8>, String)| owner != tenant.as_bytes();
        self.filter(foreign)
    }

    fn filter(&self, keep: impl Fn(&(Vec<u8>, String)) -> bool) -> Self {
        let tables = self.tables.iter().filter(|(place, _)| keep(place));
        Self {
            tables: tables
                .map(|(place, rows)| (place.clone(), rows.clone()))
                .collect(),
        }
    }

    /// The rows of one owner in one table.
    pub(crate) fn rows(&self, tenant: &TenantId, table: &str) -> &[Row] {
        let place = (tenant.as_bytes().to_vec(), table.to_owned());
        self.tables.get(&place).map_or(&[], Vec::as_slice)
    }

    /// The rows of a table, owner by owner.
    pub(crate) fn table(&self, table: &str) -> impl Iterator<Item = &[Row]> {
        let tables = self
            .tables
            .iter()
            .filter(move |((_, name), _)| name == table);
        tables.map(|(_, rows)| rows.as_slice())
    }

    /// The rows of everybody else in one table.
    pub(crate) fn foreign_rows(
        &self,
        tenant: &TenantId,
        table: &str,
    ) -> impl Iterator<Item = &Row> {
        let foreign = move |((owner, name), _): &(&(Vec<u8>, String), &Table)| {
            owner != tenant.as_bytes() && name == table
        };
        self.tables
            .iter()
            .filter(foreign)
            .flat_map(|(_, rows)| rows)
    }

    /// How many rows there are.
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.tables.values().map(Vec::len).sum()
    }

    /// How many rows a table has.
    #[must_use]
    pub fn rows_in(&self, table: &str) -> usize {
        let rows = self.tables.iter().filter(|((_, name), _)| name == table);
        rows.map(|(_, rows)| rows.len()).sum()
    }

    /// Makes an application's changes, as a store should.
    ///
    /// # Errors
    /// `Usage` if a row does not fit its table.
    pub fn write(
        &mut self,
        schema: &StoreSchema,
        changes: &[ApplicationChange],
    ) -> Result<(), StoreError> {
        for change in changes {
            let row = change.row();
            let (_, table) = row.find(schema)?;
            let (key, columns) = encoded(schema, row)?;
            let owner = row.owner.as_bytes();
            if table.has_key() || matches!(change, ApplicationChange::Delete(_)) {
                self.remove(owner, &row.table, &key, &columns);
            }
            if matches!(change, ApplicationChange::Put(_)) {
                self.add(owner, &row.table, &key, &columns);
            }
        }
        Ok(())
    }

    /// Whether it is the same as what should be.
    ///
    /// # Errors
    /// A violation that names the first owner and table that differ.
    pub fn expect(&self, expected: &Self, what: &str) -> Result<(), Violation> {
        let places = self.tables.keys().chain(expected.tables.keys());
        for place in places {
            let (found, wanted) = (self.tables.get(place), expected.tables.get(place));
            if found != wanted {
                let count = |rows: Option<&Table>| rows.map_or(0, Vec::len);
                return Err(Violation::new(format!(
                    "{what}: table {} of {:?} holds {} rows that are not the expected {}{}",
                    place.1,
                    String::from_utf8_lossy(&place.0),
                    count(found),
                    count(wanted),
                    first_difference(found, wanted),
                )));
            }
        }
        Ok(())
    }
}

fn first_difference(found: Option<&Table>, wanted: Option<&Table>) -> String {
    let rows = |table: Option<&Table>| table.cloned().unwrap_or_default();
    let (found, wanted) = (rows(found), rows(wanted));
    let text = |row: &Row| {
        let mut text = row.1.escape_ascii().to_string();
        text.truncate(200);
        text
    };
    let extra = found.iter().find(|row| !wanted.contains(row));
    let missing = wanted.iter().find(|row| !found.contains(row));
    let part = |name: &str, row: Option<&Row>| {
        row.map_or_else(String::new, |row| format!("; {name}: {}", text(row)))
    };
    part("not expected", extra) + &part("missing", missing)
}

/// The encoded key and columns of a row.
///
/// # Errors
/// `Usage` if it does not fit its table.
pub(crate) fn encoded(
    schema: &StoreSchema,
    row: &ApplicationRow,
) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
    let (_, table) = row.find(schema)?;
    let mut batch = RowBatch::new();
    row.encode(table, &mut batch)?;
    let parts = batch
        .row_at(0)
        .map(|(row, _)| (row.key().to_vec(), row.columns().to_vec()));
    Ok(parts.unwrap_or_default())
}

/// Everything in a store, as a capture sees it.
///
/// # Errors
/// As the store reports it.
pub fn captured(store: &dyn SnapshotSource) -> Result<Contents, StoreError> {
    let view = store.begin_capture()?;
    let mut contents = Contents::default();
    let mut batch = OwnedRowBatch::new();
    for (index, table) in view.schema().iter() {
        if table.tenancy == Tenancy::Excluded {
            continue;
        }
        let mut rows = view.table_rows(index)?;
        while rows.next_batch(&mut batch)? {
            for (owner, row) in batch.iter() {
                contents.add(owner, table.name.as_str(), row.key(), row.columns());
            }
        }
    }
    Ok(contents)
}

/// Everything of one tenant, as a live view sees it.
///
/// # Errors
/// As the store reports it.
pub fn viewed(view: &dyn LiveView, tenant: &TenantId) -> Result<Contents, StoreError> {
    let mut contents = Contents::default();
    for (index, table) in view.schema().iter() {
        if table.tenancy.is_tenant_owned() {
            let mut rows = view.tenant_rows(tenant, index)?;
            contents.add_stream(tenant.as_bytes(), table.name.as_str(), rows.as_mut())?;
        }
    }
    Ok(contents)
}
