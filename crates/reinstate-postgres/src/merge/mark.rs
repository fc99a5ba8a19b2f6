//! What marks the rows of a commit: the number of its transaction, which every row version has.
//!
//! There is no index over it. So the mark also holds how many rows the transaction left in each
//! table, as the server counted them: if that many rows of the *tenant* have the number, which
//! its own index finds, then none of anybody else has. Only otherwise is a table read whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use reinstate_core::{ErrorKind, StoreError, TableIndex, Tenancy, TenantId};

use super::counts::Written;
use crate::catalog::{Catalog, get};
use crate::connections::Connections;
use crate::fingerprint::Versions;
use crate::own_sets::OwnSets;
use crate::owner::{Selection, ownership};
use crate::session::Session;
use crate::snapshot::{Access, begin_and};
use crate::tenancy::TenancyMap;

/// A transaction, how many rows it left in which tables, and how many of these are nobody's. Text form:
/// `transaction[;table:rows[:nobodys]]...`, all decimal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CommitMark {
    transaction: u64,
    tables: Vec<(u32, u64, u64)>,
}

impl CommitMark {
    /// The mark of a transaction, but for rows that it created for everybody, by table: those are
    /// nobody's.
    pub(super) fn new(transaction: u64, written: &Written, shared: &[(u32, u64)]) -> Self {
        let mut tables = written.rows_left();
        for (table, created) in shared {
            tables.retain(|(other, rows, _)| other != table || rows != created);
        }
        Self {
            transaction,
            tables,
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut text = self.transaction.to_string();
        for (table, rows, nobodys) in &self.tables {
            text.push_str(&format!(";{table}:{rows}"));
            if *nobodys > 0 {
                text.push_str(&format!(":{nobodys}"));
            }
        }
        text.into_bytes()
    }

    /// Whether as many rows of each table as the transaction left are a tenant's, who has so many of them.
    pub(super) fn is_all_of_one(&self, catalog: &Catalog, own: impl Fn(TableIndex) -> u64) -> bool {
        let mut tables = self.tables(catalog).into_iter();
        tables.all(|(table, expected, _)| own(table) == expected)
    }

    /// The tables that are looked at, with how many rows it left there, and how many of these are nobody's.
    fn tables(&self, catalog: &Catalog) -> Vec<(TableIndex, u64, u64)> {
        let tables = self.tables.iter().filter_map(|&(oid, expected, nobodys)| {
            let index = catalog.by_oid(oid)?;
            let is_excluded = catalog.schema.table(index).tenancy == Tenancy::Excluded;
            (!is_excluded).then_some((index, expected, nobodys))
        });
        tables.collect()
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(bytes).ok()?.split(';');
        let transaction = parts.next()?.parse().ok()?;
        let table = |part: &str| {
            let (table, rows) = part.split_once(':')?;
            let (rows, nobodys) = rows.split_once(':').unwrap_or((rows, "0"));
            Some((
                table.parse().ok()?,
                rows.parse().ok()?,
                nobodys.parse().ok()?,
            ))
        };
        Some(Self {
            transaction,
            tables: parts.map(table).collect::<Option<_>>()?,
        })
    }
}

/// What row versions hold of a transaction's number: its low half.
pub(super) const fn row_number(transaction: u64) -> u32 {
    (transaction & 0xffff_ffff) as u32
}

/// Counts rows of anybody but the tenant that carry the mark.
///
/// # Errors
/// `Corrupt` if the mark is not one.
pub(crate) fn count_foreign_rows(
    connections: &Arc<Connections>,
    map: &TenancyMap,
    tenant: &TenantId,
    mark: &[u8],
) -> Result<u64, StoreError> {
    let mark = CommitMark::parse(mark).ok_or_else(|| {
        let message = "count rows of others: the mark of the commit is damaged";
        StoreError::new(ErrorKind::Corrupt, message)
    })?;
    let session = connections.reader()?;
    let kept = Some(connections.catalog());
    let (moment, ()) = begin_and(&session, map, Access::ReadOnly, kept, || Ok(()))?;
    let catalog = moment.catalog;
    let counter = Counter {
        session: &session,
        catalog: &catalog,
        tenant,
        transaction: mark.transaction,
    };
    let tables = mark.tables(&catalog);
    let own = counter.own(tables.iter().map(|(table, _, _)| *table))?;
    let own = |table| own.get(&table).copied().unwrap_or(0);
    let foreign = counter.foreign(&tables, own)?;
    Ok(foreign.iter().map(|(_, rows)| rows).sum())
}

/// Refuses to commit rows that a COPY took without asking whose they are, unless all that the transaction
/// left in those tables is the tenant's: the rows with its number that were read back as the tenant's have to
/// be as many as the server counted. Where they are not, or nobody read a table back, the rows of others are
/// counted.
///
/// This is what an INSERT would have asked row by row, and it is asked of the rows as they will be
/// committed. It does not depend on the guard, which looked at the end of each such statement.
///
/// # Errors
/// `Refused` if there are others.
pub(super) fn check_copied(
    session: &Session,
    (catalog, tenant): (&Catalog, &TenantId),
    (written, shared): (&Written, &[(u32, u64)]),
    transaction: u64,
    versions: &Versions,
) -> Result<(), StoreError> {
    let mark = CommitMark::new(transaction, written, shared);
    let mut tables = mark.tables(catalog);
    tables.retain(|(table, _, _)| written.copied.contains(table));
    let counter = Counter {
        session,
        catalog,
        tenant,
        transaction,
    };
    match counter
        .foreign(&tables, |table| versions.own_count(table))?
        .as_slice()
    {
        [] => Ok(()),
        [(table, rows), ..] => {
            let name = &catalog.schema.table(*table).name;
            let message = format!(
                "create rows of {name}: {rows} of them are not the tenant's. Nothing was committed"
            );
            Err(StoreError::new(ErrorKind::Refused, message))
        }
    }
}

struct Counter<'a> {
    session: &'a Session,
    catalog: &'a Catalog,
    tenant: &'a TenantId,
    transaction: u64,
}

impl Counter<'_> {
    /// How many rows of anybody else carry the number, of the tables where there are any, when so many of
    /// the tenant's do.
    fn foreign(
        &self,
        tables: &[(TableIndex, u64, u64)],
        own: impl Fn(TableIndex) -> u64,
    ) -> Result<Vec<(TableIndex, u64)>, StoreError> {
        let mut foreign = Vec::new();
        for &(table, expected, nobodys) in tables {
            if own(table) != expected {
                // Rows that an undo gave back to nobody are no foreign ones.
                let rows = self.of_others(table)?.saturating_sub(nobodys);
                foreign.extend((rows > 0).then_some((table, rows)));
            }
        }
        Ok(foreign)
    }

    /// How many of the tenant's rows carry the number, by table.
    fn own(
        &self,
        tables: impl Iterator<Item = TableIndex>,
    ) -> Result<BTreeMap<TableIndex, u64>, StoreError> {
        let mut counts = BTreeMap::new();
        let mut sets = OwnSets::new(self.catalog, self.tenant);
        let (mut parts, mut indexes) = (Vec::new(), Vec::new());
        for table in tables {
            if let Some(own) = sets.selection(table)? {
                parts.push(self.count(table, &format!("{}::int8", indexes.len()), &own));
                indexes.push(table);
            }
        }
        if parts.is_empty() {
            return Ok(counts);
        }
        let sql = format!("{}{}", sets.with(), parts.join(" UNION ALL "));
        for row in self.session.rows("count rows of the commit", &sql, &[])? {
            let (place, count): (i64, i64) = (get(&row, 0)?, get(&row, 1)?);
            let place = usize::try_from(place).ok();
            if let Some(&table) = place.and_then(|place| indexes.get(place)) {
                counts.insert(table, count.cast_unsigned());
            }
        }
        Ok(counts)
    }

    fn of_others(&self, table: TableIndex) -> Result<u64, StoreError> {
        let rows = match ownership(self.catalog, table, "t") {
            Some(owned) => owned.of_others(self.tenant)?,
            None => Selection::everything(),
        };
        let operation = format!(
            "count rows of the commit in table {}",
            self.catalog.schema.table(table).name
        );
        let sql = self.count(table, "0", &rows);
        let row = self.session.row(&operation, &sql, &[])?;
        Ok(get::<i64>(&row, 1)?.cast_unsigned())
    }

    /// Counts rows that carry the number, after what tells them from the rows of other tables.
    fn count(&self, table: TableIndex, label: &str, rows: &Selection) -> String {
        let low = row_number(self.transaction);
        format!(
            "SELECT {label}, count(*) FROM {} AS t{} WHERE t.xmin = '{low}'::xid AND {}",
            self.catalog.tables[table.get()].sql_rows(),
            rows.sources,
            rows.condition
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mark_reads_back() {
        for tables in [
            vec![],
            vec![(1, 0, 0)],
            vec![(16_384, 7, 3), (16_390, u64::MAX, 0)],
        ] {
            let mark = CommitMark {
                transaction: 1 << 33,
                tables,
            };
            assert_eq!(CommitMark::parse(&mark.to_bytes()), Some(mark));
        }
        // As it lies in journals.
        let text = b"8589934592;16384:7:3;16390:9";
        let mark = CommitMark::parse(text).expect("a mark");
        assert_eq!(mark.tables, [(16_384, 7, 3), (16_390, 9, 0)]);
        assert_eq!(mark.to_bytes(), text);
        for bad in ["", "x", "1;", "1;2", "1;2:x", "1;:2", "\u{e9}"] {
            assert_eq!(CommitMark::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_as_the_mark_of_a_commit(bytes in "[0-9;:x-]{0,40}") {
            if let Some(mark) = CommitMark::parse(bytes.as_bytes()) {
                let again = mark.to_bytes();
                prop_assert_eq!(CommitMark::parse(&again).map(|mark| mark.to_bytes()), Some(again));
            }
        }
    }
}
