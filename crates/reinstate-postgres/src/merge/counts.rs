//! What the transaction changed, as the server counted it: the second line.
//!
//! The server counts every row that anything in the transaction inserts, updates or deletes, in
//! every table, whatever caused it. The session has written nothing before this transaction, or what
//! it wrote is [counted to the end](crate::lease::let_go), so that the counts are this transaction's
//! alone.

use std::collections::BTreeMap;

use reinstate_core::{ChangeCounts, ErrorKind, StoreError, TableIndex, TableName};
use tokio_postgres::types::Type;

use crate::catalog::{Catalog, OWN_NAMESPACE, display_name, get};
use crate::session::Session;

/// What a transaction changed: by table, with the table's object id.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    by_name: BTreeMap<TableName, (u32, ChangeCounts)>,
    /// Rows that were written and are nobody's at the end, by table.
    nobodys: BTreeMap<u32, u64>,
    /// Tables into which rows were copied without naming the tenant.
    pub(super) copied: Vec<TableIndex>,
}

impl Written {
    /// The counts of every table that changed.
    pub(super) fn counts(&self) -> Vec<(TableName, ChangeCounts)> {
        let tables = self.by_name.iter();
        tables
            .map(|(name, (_, counts))| (name.clone(), *counts))
            .collect()
    }

    /// Takes out updates that the merge itself made beyond the plan, to break a cycle.
    ///
    /// # Errors
    /// `Refused` if the server counted fewer.
    pub(super) fn without_updates(
        &mut self,
        table: &TableName,
        updates: u64,
    ) -> Result<(), StoreError> {
        let counted = self.by_name.get_mut(table).map(|(_, counts)| counts);
        if let Some(counts) = counted
            && let Some(rest) = counts.put_back.checked_sub(updates)
        {
            counts.put_back = rest;
            return Ok(());
        }
        let message = format!(
            "count what the transaction changed: the server counted fewer than {updates} updates \
             of table {table}"
        );
        Err(StoreError::new(ErrorKind::Refused, message))
    }

    /// Takes rows that were deleted and made anew for rows that were put back, which they are.
    ///
    /// # Errors
    /// `Refused` if the server counted fewer.
    pub(super) fn as_put_back(&mut self, table: &TableName, rows: u64) -> Result<(), StoreError> {
        if let Some((_, counts)) = self.by_name.get_mut(table)
            && let (Some(created), Some(deleted)) = (
                counts.created.checked_sub(rows),
                counts.deleted.checked_sub(rows),
            )
        {
            (counts.created, counts.deleted) = (created, deleted);
            counts.put_back += rows;
            return Ok(());
        }
        let message = format!(
            "count what the transaction changed: the server counted fewer than {rows} rows of \
             table {table} that were made anew"
        );
        Err(StoreError::new(ErrorKind::Refused, message))
    }

    /// Takes rows that were updated for rows that were deleted and made anew, as the plan has them.
    ///
    /// # Errors
    /// As [`without_updates`](Self::without_updates).
    pub(super) fn as_made_anew(&mut self, table: &TableName, rows: u64) -> Result<(), StoreError> {
        self.without_updates(table, rows)?;
        if let Some((_, counts)) = self.by_name.get_mut(table) {
            counts.created += rows;
            counts.deleted += rows;
        }
        Ok(())
    }

    /// Notes rows of a table that were written and are nobody's.
    pub(super) fn left_to_nobody(&mut self, table: u32, rows: u64) {
        self.nobodys.insert(table, rows);
    }

    /// How many rows of which tables the transaction left behind, if it wrote none twice, and how
    /// many of them are nobody's.
    pub(super) fn rows_left(&self) -> Vec<(u32, u64, u64)> {
        let tables = self.by_name.values();
        tables
            .map(|(oid, counts)| {
                let nobodys = self.nobodys.get(oid).copied().unwrap_or(0);
                (*oid, counts.created + counts.put_back, nobodys)
            })
            .collect()
    }
}

/// Reads the counts, by table; partitions count for their root. No row that is put back moves to
/// another partition, which would count as a delete and an insert: primary keys hold the columns
/// that decide the partition.
///
/// # Errors
/// `Refused` if something in the transaction truncated or altered a table, which the server does
/// not count.
pub(super) fn read_written(session: &Session, catalog: &Catalog) -> Result<Written, StoreError> {
    let operation = "count what the transaction changed";
    let sql = "SELECT c.oid, n.nspname::text, c.relname::text,
                      s.n_tup_ins, s.n_tup_upd, s.n_tup_del,
                      EXISTS (SELECT FROM pg_locks l
                               WHERE l.pid = pg_backend_pid() AND l.relation = c.oid
                                 AND l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock')
                 FROM pg_stat_xact_user_tables s
                 JOIN pg_class c ON c.oid = s.relid
                 JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE c.relpersistence <> 't' AND n.nspname <> $1";
    let mut written = Written::default();
    for row in session.rows(operation, sql, &[(&OWN_NAMESPACE, Type::TEXT)])? {
        let count = |column| Ok::<u64, StoreError>(get::<i64>(&row, column)?.cast_unsigned());
        let oid: u32 = get(&row, 0)?;
        let (name, oid) = match catalog.by_oid(oid) {
            Some(index) => {
                let (schema, relation) = catalog.table(index);
                (schema.name.clone(), relation.oid)
            }
            None => {
                let (namespace, relation): (String, String) = (get(&row, 1)?, get(&row, 2)?);
                (TableName::new(display_name(&namespace, &relation)), oid)
            }
        };
        if get(&row, 6)? {
            let message = format!(
                "{operation}: something truncated or altered table {name} in it: look for triggers"
            );
            return Err(StoreError::new(ErrorKind::Refused, message));
        }
        let changed = ChangeCounts {
            created: count(3)?,
            put_back: count(4)?,
            deleted: count(5)?,
        };
        if changed != ChangeCounts::NONE {
            written
                .by_name
                .entry(name)
                .or_insert((oid, ChangeCounts::NONE))
                .1 += changed;
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTS: u32 = 16_384;
    const PAGES: u32 = 16_390;

    fn counts(created: u64, put_back: u64, deleted: u64) -> ChangeCounts {
        ChangeCounts {
            created,
            put_back,
            deleted,
        }
    }

    fn written() -> Written {
        let by_name = [
            ("documents", DOCUMENTS, counts(5, 7, 6)),
            ("pages", PAGES, counts(1, 0, 0)),
        ];
        Written {
            by_name: by_name
                .map(|(name, oid, counts)| (TableName::new(name), (oid, counts)))
                .into(),
            ..Written::default()
        }
    }

    /// What is left of the counts of the documents; those of the pages stay as they are.
    fn documents(written: &Written) -> ChangeCounts {
        let counted = written.counts();
        let [(documents, first), (pages, second)] = counted.as_slice() else {
            panic!("{counted:?}")
        };
        assert_eq!((documents.as_str(), pages.as_str()), ("documents", "pages"));
        assert_eq!(*second, counts(1, 0, 0));
        *first
    }

    #[test]
    fn what_the_merge_did_beyond_the_plan_is_taken_out_of_the_counts_and_no_more() {
        let table = TableName::new("documents");
        let mut written = written();
        assert_eq!(documents(&written), counts(5, 7, 6));
        written.without_updates(&table, 2).unwrap();
        assert_eq!(documents(&written), counts(5, 5, 6));
        written.as_put_back(&table, 3).unwrap();
        assert_eq!(documents(&written), counts(2, 8, 3));
        written.as_made_anew(&table, 4).unwrap();
        assert_eq!(documents(&written), counts(6, 4, 7));
        // All of them, and then there are none.
        written.without_updates(&table, 4).unwrap();
        written.as_put_back(&table, 6).unwrap();
        assert_eq!(documents(&written), counts(0, 6, 1));
    }

    #[test]
    fn fewer_than_the_merge_made_are_refused_and_stay_as_they_are() {
        type Take = fn(&mut Written, &TableName, u64) -> Result<(), StoreError>;
        let takes: [(Take, u64); 3] = [
            (Written::without_updates, 8),
            // There are six deleted rows, and five created ones.
            (Written::as_put_back, 6),
            (Written::as_made_anew, 8),
        ];
        for (take, rows) in takes {
            let mut written = written();
            for (table, rows) in [("documents", rows), ("labels", 1)] {
                let error = take(&mut written, &TableName::new(table), rows).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
                assert!(error.to_string().contains(table), "{error}");
            }
            assert_eq!(documents(&written), counts(5, 7, 6));
        }
    }

    #[test]
    fn rows_that_are_left_are_those_created_and_put_back() {
        let mut written = written();
        assert_eq!(written.rows_left(), [(DOCUMENTS, 12, 0), (PAGES, 1, 0)]);
        written.left_to_nobody(PAGES, 1);
        assert_eq!(written.rows_left(), [(DOCUMENTS, 12, 0), (PAGES, 1, 1)]);
    }
}
