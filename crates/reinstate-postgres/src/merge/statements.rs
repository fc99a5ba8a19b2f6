//! The statements that write rows into a live table. All of them name the tenant, but for a COPY into a table
//! that its guard looks after.
//!
//! Aliases: `t` is the live table, `s` the stage.

use std::collections::BTreeSet;

use reinstate_core::{ColumnIndex, ErrorKind, StoreError, TableIndex, TableSchema, TenantId};

use super::staging::Stage;
use crate::catalog::{Catalog, CatalogTable, ForeignKey};
use crate::owner::{Ownership, joined, ownership};
use crate::sql::quote;

/// What a statement is about.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub catalog: &'a Catalog,
    pub table: TableIndex,
    pub tenant: &'a TenantId,
}

impl<'a> Target<'a> {
    pub(super) fn schema(&self) -> &'a TableSchema {
        self.catalog.schema.table(self.table)
    }

    pub(super) fn relation(&self) -> &'a CatalogTable {
        &self.catalog.tables[self.table.get()]
    }

    fn owned(&self, alias: &str) -> Result<Ownership, StoreError> {
        ownership(self.catalog, self.table, alias).ok_or_else(|| {
            let message = format!("write table {}: no tenant owns it", self.schema().name);
            StoreError::new(ErrorKind::Refused, message)
        })
    }

    /// Deletes the rows whose keys are staged, unless one of `keepers` holds for them.
    ///
    /// # Errors
    /// As [`Ownership::listed`].
    pub(super) fn delete(&self, stage: &Stage, keepers: &[String]) -> Result<String, StoreError> {
        let own = self.owned("t")?.listed(self.tenant)?;
        let unless: String = keepers
            .iter()
            .map(|keeper| format!(" AND NOT {keeper}"))
            .collect();
        Ok(format!(
            "DELETE FROM {} AS t USING {} AS s{} WHERE {} AND {}{unless}",
            self.relation().sql_rows(),
            stage.name,
            own.sources,
            self.same_key("t", "s"),
            own.condition,
        ))
    }

    /// Deletes as many copies of each staged row as are staged, of a table without a key.
    ///
    /// Rows are compared as the server writes them, the way they were read.
    ///
    /// # Errors
    /// As [`Ownership::listed`].
    pub(super) fn delete_copies(&self, stage: &Stage) -> Result<String, StoreError> {
        let (numbered, delete) = self.copies(stage)?;
        Ok(format!("{numbered} {delete}"))
    }

    /// The same, as far as the rows are the tenant's now; takes what was deleted out of the stage.
    /// As many rows of the stage go as live ones.
    ///
    /// # Errors
    /// As [`Ownership::listed`].
    pub(super) fn delete_own_copies(&self, stage: &Stage) -> Result<String, StoreError> {
        let (numbered, delete) = self.copies(stage)?;
        Ok(format!(
            "{numbered}, gone AS ({delete} RETURNING n.line),
             counted AS (SELECT g.line, count(*) AS copies FROM gone g GROUP BY 1),
             staged AS (
                 SELECT s.ctid AS place, {0} AS line, row_number() OVER (PARTITION BY {0}) AS copy
                   FROM {1} AS s)
             DELETE FROM {1} AS s USING staged k, counted c
              WHERE s.ctid = k.place AND k.line = c.line AND k.copy <= c.copies",
            self.line("s"),
            stage.name,
        ))
    }

    /// The tenant's copies of the staged rows, numbered, and the statement that deletes as many of
    /// each as are staged.
    fn copies(&self, stage: &Stage) -> Result<(String, String), StoreError> {
        let own = self.owned("t")?.joined(self.tenant)?;
        let rows = self.relation().sql_rows();
        let numbered = format!(
            "WITH wanted AS (
                 SELECT {} AS line, count(*) AS copies FROM {} AS s GROUP BY 1),
             found AS (
                 SELECT t.tableoid AS part, t.ctid AS place, {} AS line
                   FROM {rows} AS t{} WHERE {}),
             numbered AS (
                 SELECT f.part, f.place, f.line, w.copies,
                        row_number() OVER (PARTITION BY f.line) AS copy
                   FROM found f JOIN wanted w ON w.line = f.line)",
            self.line("s"),
            stage.name,
            self.line("t"),
            own.sources,
            own.condition,
        );
        let delete = format!(
            "DELETE FROM {rows} AS t USING numbered n
              WHERE t.ctid = n.place AND t.tableoid = n.part AND n.copy <= n.copies"
        );
        Ok((numbered, delete))
    }

    /// A row as the server writes it.
    fn line(&self, alias: &str) -> String {
        format!("ROW({})::text", self.relation().sql_columns(alias))
    }

    /// Gives live rows the values that are staged under their keys. Both the row as it is and
    /// the row as it shall be must be the tenant's.
    ///
    /// # Errors
    /// `Refused` if the table has nothing but its key.
    pub(super) fn update(&self, stage: &Stage) -> Result<String, StoreError> {
        let live = self.owned("t")?.listed(self.tenant)?;
        let staged = self.owned("s")?.listed(self.tenant)?;
        let assignments: Vec<String> = self
            .value_columns()
            .filter(|column| !self.is_identity_always(*column))
            .map(|column| format!("{0} = s.{0}", self.column(column)))
            .collect();
        if assignments.is_empty() {
            let message = format!(
                "put back rows of {}: it has no column that can be changed",
                self.schema().name
            );
            return Err(StoreError::new(ErrorKind::Refused, message));
        }
        Ok(format!(
            "UPDATE {} AS t SET {} FROM {} AS s{}{} WHERE {} AND {} AND {}",
            self.relation().sql_rows(),
            assignments.join(", "),
            stage.name,
            live.sources,
            staged.sources,
            self.same_key("t", "s"),
            live.condition,
            staged.condition,
        ))
    }

    /// Gives live rows everything that is staged under keys that are equal, the keys as they are written
    /// included, and takes those out of the stage.
    ///
    /// # Errors
    /// As [`Ownership::listed`].
    pub(super) fn update_whole(&self, stage: &Stage) -> Result<String, StoreError> {
        let live = self.owned("t")?.listed(self.tenant)?;
        let staged = self.owned("s")?.listed(self.tenant)?;
        let assignments = self
            .columns()
            .map(|column| format!("{0} = s.{0}", self.column(column)));
        Ok(format!(
            "WITH updated AS (
                 UPDATE {} AS t SET {} FROM {} AS s{}{} WHERE {} AND {} AND {}
                 RETURNING s.ctid AS place)
             DELETE FROM {} AS s USING updated u WHERE s.ctid = u.place",
            self.relation().sql_rows(),
            assignments.collect::<Vec<_>>().join(", "),
            stage.name,
            live.sources,
            staged.sources,
            self.same_key("t", "s"),
            live.condition,
            staged.condition,
            stage.name,
        ))
    }

    /// Counts the rows in which a column that only the server may set is not as staged. None if
    /// there is no such column.
    pub(super) fn count_unlike(&self, stage: &Stage) -> Option<String> {
        let unlike = self.unlike();
        (!unlike.is_empty()).then(|| {
            format!(
                "SELECT count(*) FROM {} AS t JOIN {} AS s ON {} WHERE {}",
                self.relation().sql_rows(),
                stage.name,
                self.same_key("t", "s"),
                unlike.join(" OR ")
            )
        })
    }

    /// The keys of the rows in which such a column is not as staged, as a query. None if there is no such
    /// column.
    pub(super) fn keys_unlike(&self, stage: &Stage) -> Option<String> {
        let unlike = self.unlike();
        let key = self
            .schema()
            .key
            .iter()
            .map(|&key| format!("t.{}", self.column(key)));
        (!unlike.is_empty()).then(|| {
            format!(
                "SELECT {} FROM {} AS t JOIN {} AS s ON {} WHERE {}",
                key.collect::<Vec<_>>().join(", "),
                self.relation().sql_rows(),
                stage.name,
                self.same_key("t", "s"),
                unlike.join(" OR ")
            )
        })
    }

    /// Locks the rows that the staged ones refer to by this key, as the server does when it checks the
    /// key; returns their number, and how many staged rows refer to a row that is not there.
    pub(super) fn count_orphans(&self, stage: &Stage, key: &ForeignKey) -> String {
        let (relation, reference) = (self.relation(), &key.reference);
        let parent = &self.catalog.tables[reference.parent.get()];
        let equal = joined(relation, "s", parent, "p", reference, &key.operators);
        let filled: Vec<String> = reference
            .columns
            .iter()
            .map(|column| format!("s.{} IS NOT NULL", self.column(*column)))
            .collect();
        let (parents, equal) = (parent.sql_rows(), equal.join(" AND "));
        format!(
            "WITH locked AS MATERIALIZED (
                 SELECT FROM {parents} AS p
                  WHERE EXISTS (SELECT FROM {0} AS s WHERE {equal}) FOR KEY SHARE OF p)
             SELECT (SELECT count(*) FROM locked), count(*) FROM {0} AS s
              WHERE {1} AND NOT EXISTS (SELECT FROM {parents} AS p WHERE {equal})",
            stage.name,
            filled.join(" AND "),
        )
    }

    /// Creates the staged rows that are the tenant's, with NULL in the loose columns.
    ///
    /// # Errors
    /// As [`Ownership::joined`].
    pub(super) fn insert(
        &self,
        stage: &Stage,
        loose: Option<&BTreeSet<ColumnIndex>>,
    ) -> Result<String, StoreError> {
        let is_loose = |column: ColumnIndex| loose.is_some_and(|loose| loose.contains(&column));
        let values = self.columns().map(|column| {
            if is_loose(column) {
                "NULL".to_owned()
            } else {
                format!("s.{}", self.column(column))
            }
        });
        let own = self.owned("s")?.joined_while_writing(self.tenant)?;
        let relation = self.relation();
        let names = relation.columns.iter().map(|column| quote(&column.name));
        let overriding = overriding(relation);
        Ok(format!(
            "INSERT INTO {} ({}){overriding} SELECT {} FROM {} AS s{} WHERE {}",
            relation.sql_name(),
            names.collect::<Vec<_>>().join(", "),
            values.collect::<Vec<_>>().join(", "),
            stage.name,
            own.sources,
            own.condition,
        ))
    }

    /// Creates the staged rows whose keys nobody has, of a table of everybody's. Where somebody is
    /// about to create one of them, waits for that and leaves it.
    pub(super) fn insert_missing(&self, stage: &Stage) -> String {
        let relation = self.relation();
        // The server does not look aside for what it checks only at the end.
        let mut indexes = relation.unique_indexes.iter();
        let aside = match indexes.all(|index| index.is_immediate) {
            true => " ON CONFLICT DO NOTHING",
            false => "",
        };
        let names = relation.columns.iter().map(|column| quote(&column.name));
        format!(
            "INSERT INTO {} ({}){} SELECT {} FROM {} AS s
              WHERE NOT EXISTS (SELECT FROM {} AS t WHERE {}){aside}",
            relation.sql_name(),
            names.collect::<Vec<_>>().join(", "),
            overriding(relation),
            relation.sql_columns("s"),
            stage.name,
            relation.sql_rows(),
            self.same_key("t", "s"),
        )
    }

    /// Counts the staged rows that are live ones, as the server writes them.
    pub(super) fn count_alike(&self, stage: &Stage) -> String {
        format!(
            "SELECT count(*) FROM {} AS t JOIN {} AS s ON {} WHERE {} = {}",
            self.relation().sql_rows(),
            stage.name,
            self.same_key("t", "s"),
            self.line("t"),
            self.line("s"),
        )
    }

    /// Takes rows from the connection straight into the table, but only the tenant's. None where
    /// that cannot be said of a row alone: the tenant is another table's, or something fires that
    /// COPY treats otherwise than INSERT.
    ///
    /// # Errors
    /// As [`Ownership::joined`].
    pub(super) fn copy(&self) -> Result<Option<String>, StoreError> {
        let owned = self.owned(&quote(&self.relation().relation))?;
        let Some(is_owner) = owned.by_row_alone(self.tenant)? else {
            return Ok(None);
        };
        let copy = self.copy_all();
        Ok(copy.map(|copy| format!("{copy} WHERE {is_owner}")))
    }

    /// The same without a look at whose the rows are, which somebody else has to take: see
    /// [`check_copied`](super::mark::check_copied).
    pub(super) fn copy_all(&self) -> Option<String> {
        let relation = self.relation();
        // COPY into a table under row-level security is refused.
        if !relation.triggers.is_empty() || relation.is_policed {
            return None;
        }
        let names = relation.columns.iter().map(|column| quote(&column.name));
        Some(format!(
            "COPY {} ({}) FROM STDIN",
            relation.sql_name(),
            names.collect::<Vec<_>>().join(", "),
        ))
    }

    /// Sets the loose columns of the tenant's rows whose keys are staged to NULL.
    ///
    /// # Errors
    /// As [`Ownership::listed`].
    pub(super) fn loosen(
        &self,
        stage: &Stage,
        loose: &BTreeSet<ColumnIndex>,
    ) -> Result<String, StoreError> {
        self.set(stage, loose, "t", |_| "NULL".to_owned())
    }

    /// Gives the loose columns of the tenant's rows the values that are staged.
    ///
    /// # Errors
    /// As [`Ownership::listed`].
    pub(super) fn tighten(
        &self,
        stage: &Stage,
        loose: &BTreeSet<ColumnIndex>,
    ) -> Result<String, StoreError> {
        self.set(stage, loose, "s", |column| format!("s.{column}"))
    }

    /// Sets columns of the tenant's rows whose keys are staged, where `side` has a value in one of
    /// them.
    fn set(
        &self,
        stage: &Stage,
        columns: &BTreeSet<ColumnIndex>,
        side: &str,
        value: impl Fn(&str) -> String,
    ) -> Result<String, StoreError> {
        let own = self.owned("t")?.listed(self.tenant)?;
        let names: Vec<String> = columns.iter().map(|&column| self.column(column)).collect();
        let assignments: Vec<String> = names
            .iter()
            .map(|name| format!("{name} = {}", value(name)))
            .collect();
        let filled: Vec<String> = names
            .iter()
            .map(|name| format!("{side}.{name} IS NOT NULL"))
            .collect();
        Ok(format!(
            "UPDATE {} AS t SET {} FROM {} AS s{} WHERE {} AND {} AND ({})",
            self.relation().sql_rows(),
            assignments.join(", "),
            stage.name,
            own.sources,
            self.same_key("t", "s"),
            own.condition,
            filled.join(" OR "),
        ))
    }

    /// That two aliases have the same primary key.
    pub(super) fn same_key(&self, left: &str, right: &str) -> String {
        let columns = self.schema().key.iter().zip(&self.relation().key_operators);
        let equal = columns.map(|(column, operator)| {
            let name = self.column(*column);
            format!("{left}.{name} {operator} {right}.{name}")
        });
        equal.collect::<Vec<_>>().join(" AND ")
    }

    /// Whether rows of the table refer to others of it.
    pub(super) fn refers_to_itself(&self) -> bool {
        let mut references = self.schema().references.iter();
        references.any(|reference| reference.parent == self.table)
    }

    fn columns(&self) -> impl Iterator<Item = ColumnIndex> {
        let count = u32::try_from(self.schema().columns.len()).unwrap_or(u32::MAX);
        (0..count).map(ColumnIndex)
    }

    fn value_columns(&self) -> impl Iterator<Item = ColumnIndex> {
        let schema = self.schema();
        self.columns().filter(|column| !schema.key.contains(column))
    }

    /// For each column that only the server may update, that it is not as staged.
    fn unlike(&self) -> Vec<String> {
        self.value_columns()
            .filter(|column| self.is_identity_always(*column))
            .map(|column| format!("t.{0} IS DISTINCT FROM s.{0}", self.column(column)))
            .collect()
    }

    fn is_identity_always(&self, column: ColumnIndex) -> bool {
        self.relation().columns[column.get()].is_identity_always
    }

    fn column(&self, column: ColumnIndex) -> String {
        quote(&self.relation().columns[column.get()].name)
    }
}

/// What lets values be given for a column `GENERATED ALWAYS AS IDENTITY`.
fn overriding(relation: &CatalogTable) -> &'static str {
    // Without it the server refuses values for such a column; for others it means nothing.
    let mut columns = relation.columns.iter();
    match columns.any(|column| column.is_identity_always) {
        true => " OVERRIDING SYSTEM VALUE",
        false => "",
    }
}
