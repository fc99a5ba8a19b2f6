//! What identifies the state of one live tenant.
//!
//! Every version of a row has a place (table, page, line) and the number of the transaction that
//! wrote it. An insert, an update or a delete changes the set of them; locking a row or vacuuming
//! its table does not. What a version holds in a column that was dropped and made anew is another
//! thing: the numbers of the columns, none of which comes again, belong to the state. Rewriting a
//! table (VACUUM FULL, CLUSTER) moves rows and changes the fingerprint although nothing changed: a
//! plan made before is then refused, which is the safe side.
//!
//! A query of its own finds them, or whoever reads all rows of a tenant has their versions come along.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use reinstate_core::{ErrorKind, Fingerprint, StoreError, TableIndex, TenantId};

use crate::catalog::Catalog;
use crate::own_sets::OwnSets;
use crate::owner::ownership;

/// What a version of a row `t` is, as a number.
const VERSION: &str = "hash_record_extended(ROW(t.tableoid, t.ctid, t.xmin), 0)";

/// What asks for the versions of the tenant's rows in these tables, by one query that the server aggregates: for
/// each table its id, their number, and their sum. None for no tables.
///
/// # Errors
/// `NotFound` if the id cannot be a tenant's.
pub(crate) fn question(
    catalog: &Catalog,
    tenant: &TenantId,
    tables: &[TableIndex],
) -> Result<Option<String>, StoreError> {
    let mut parts = Vec::new();
    let mut sets = OwnSets::new(catalog, tenant);
    for &index in tables {
        let table = &catalog.tables[index.get()];
        let Some(own) = sets.selection(index)? else {
            continue;
        };
        parts.push(format!(
            "SELECT {}::int8, count(*), coalesce(sum({VERSION}), 0)::text
               FROM {} AS t{} WHERE {}",
            table.oid,
            table.sql_rows(),
            own.sources,
            own.condition
        ));
    }
    let sql = format!("{}{}", sets.with(), parts.join(" UNION ALL "));
    Ok((!parts.is_empty()).then_some(sql))
}

/// The fingerprint of a tenant with so many rows in each table, whose versions have this sum.
pub(crate) fn fingerprint(catalog: &Catalog, mut tables: Vec<(i64, i64, String)>) -> Fingerprint {
    tables.sort_unstable();
    let mut hasher = blake3::Hasher::new_derive_key("reinstate 2026 postgres fingerprint v2");
    for (table, count, sum) in tables {
        hasher
            .update(&table.to_le_bytes())
            .update(&count.to_le_bytes());
        hasher.update(sum.as_bytes()).update(b";");
        let index = u32::try_from(table)
            .ok()
            .and_then(|oid| catalog.by_oid(oid));
        let columns = index.map_or(&[][..], |index| &catalog.tables[index.get()].columns);
        for column in columns {
            hasher.update(&column.number.to_le_bytes());
        }
        hasher.update(b";");
    }
    Fingerprint::new(hasher.finalize().as_bytes().as_slice())
}

/// The versions of rows that were read, of one tenant at one position.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    tenant: Option<TenantId>,
    tables: BTreeMap<TableIndex, Sum>,
}

/// The versions of rows of one table.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    count: i64,
    sum: i128,
    /// How many of the rows the transaction of `own` wrote.
    own_count: u64,
    own: Option<u32>,
}

impl Sum {
    /// Of no rows yet; `own` is the low half of a transaction's number.
    pub(crate) fn of_none(own: Option<u32>) -> Self {
        Self {
            own,
            ..Self::default()
        }
    }

    /// What a query has to ask for before the columns of its rows `t`, for [`add`](Self::add).
    pub(crate) fn sql() -> String {
        format!("{VERSION}, t.xmin")
    }

    /// Adds the row of a line of COPY text, and returns the rest of the line: its columns.
    ///
    /// # Errors
    /// `Other` if the line does not begin with what was asked for.
    pub(crate) fn add<'l>(&mut self, line: &'l [u8]) -> Result<&'l [u8], StoreError> {
        let (version, rest) = number::<i64>(line)?;
        let (transaction, rest) = number::<u32>(rest)?;
        self.count += 1;
        self.sum += i128::from(version);
        self.own_count += u64::from(self.own == Some(transaction));
        Ok(rest)
    }
}

/// A number at the front, and what comes after its tab; of the last field, its line end.
fn number<N: FromStr>(line: &[u8]) -> Result<(N, &[u8]), StoreError> {
    let end = memchr::memchr2(b'\t', b'\n', line).unwrap_or(line.len());
    let text = std::str::from_utf8(&line[..end]).ok();
    let after = match line.get(end) {
        Some(b'\t') => end + 1,
        _ => end,
    };
    let found = text.and_then(|text| text.parse().ok());
    found.map(|found| (found, &line[after..])).ok_or_else(|| {
        let message = "read COPY text: a row does not say which version it is";
        StoreError::new(ErrorKind::Other, message)
    })
}

impl Versions {
    /// Keeps those of all rows that the tenant has in a table.
    pub(crate) fn keep(&self, tenant: &TenantId, table: TableIndex, sum: Sum) {
        let mut seen = self.seen();
        if seen.tenant.as_ref() != Some(tenant) {
            *seen = Seen {
                tenant: Some(tenant.clone()),
                ..Seen::default()
            };
        }
        seen.tables.insert(table, sum);
    }

    /// Forgets all: rows are going to be written.
    pub(crate) fn forget(&self) {
        *self.seen() = Seen::default();
    }

    /// The tenant's fingerprint, if all of its rows were read.
    pub(crate) fn fingerprint(&self, catalog: &Catalog, tenant: &TenantId) -> Option<Fingerprint> {
        let seen = self.seen();
        if seen.tenant.as_ref() != Some(tenant) {
            return None;
        }
        let owned = catalog
            .iter()
            .filter(|(index, ..)| ownership(catalog, *index, "t").is_some());
        let tables = owned.map(|(index, _, table)| {
            let Sum { count, sum, .. } = seen.tables.get(&index)?;
            Some((i64::from(table.oid), *count, sum.to_string()))
        });
        let tables = tables.collect::<Option<Vec<_>>>()?;
        Some(fingerprint(catalog, tables))
    }

    /// How many of the rows in a table a transaction of the reader's own wrote.
    pub(crate) fn own_count(&self, table: TableIndex) -> u64 {
        let seen = self.seen();
        seen.tables.get(&table).map_or(0, |sum| sum.own_count)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_before_the_columns() {
        let mut sum = Sum::of_none(Some(7));
        assert_eq!(sum.add(b"-5\t7\ta\tb\n").unwrap(), b"a\tb\n");
        assert_eq!(sum.add(b"9223372036854775807\t8\t\n").unwrap(), b"\n");
        assert_eq!(sum.add(b"9223372036854775807\t7\n").unwrap(), b"\n");
        assert_eq!((sum.count, sum.own_count), (3, 2));
        assert_eq!(sum.sum, 2 * i128::from(i64::MAX) - 5);
        for bad in [b"".as_slice(), b"\n", b"1\n", b"a\t1\t2\n", b"1\t-1\t2\n"] {
            assert!(sum.add(bad).is_err(), "{bad:?}");
        }
    }
}
