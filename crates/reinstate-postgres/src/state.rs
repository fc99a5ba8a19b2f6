//! Asking for the state of a tenant, of two sessions at once where that takes a while.
//!
//! Where foreign keys have no index, finding a tenant's rows is a reading of all tables. It is shared between the
//! session that asks and another one that sees the same: it takes over the snapshot of the first. A statement that
//! is likely to be asked can be on its way while the catalogue is still being read. What it said counts
//! only if it turns out to be the very statement that would have been asked.
//!
//! **Invariant:** every part of an answer is of the snapshot of the session that asks. Whatever goes wrong with the
//! other one, its part is asked here instead.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use reinstate_core::{Fingerprint, StoreError, TableIndex, TenantId};

use crate::catalog::{Catalog, get};
use crate::connections::{Connections, Reader};
use crate::fingerprint::{fingerprint, question};
use crate::own_sets::path;
use crate::session::Session;
use crate::snapshot::{same_moment, settings};
use crate::tenancy::TenancyMap;

/// From how many tables of tenants on the state is asked of two sessions.
const SHARED_TABLES_MIN: usize = 16;

/// How much of a hundred parts is left to the other session: it begins earlier.
const OTHER_PERCENT: u64 = 60;

/// A table, how many rows of it the tenant has, and the sum of their versions.
type Sums = Vec<(i64, i64, String)>;

/// What tells the state of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StateQuestion {
    tenant: TenantId,
    /// How a transaction has to behave for it.
    settings: String,
    /// For the other session, if it is worth one.
    other: Option<String>,
    /// For the one that asks; none where no table is a tenant's.
    own: Option<String>,
}

impl StateQuestion {
    /// # Errors
    /// `NotFound` if the id cannot be a tenant's.
    pub(crate) fn new(
        map: &TenancyMap,
        catalog: &Catalog,
        tenant: &TenantId,
    ) -> Result<Self, StoreError> {
        let owned = catalog
            .iter()
            .filter(|(_, schema, _)| schema.tenancy.is_tenant_owned());
        let mut tables: Vec<TableIndex> = owned.map(|(table, ..)| table).collect();
        let other = match tables.len() {
            count if count >= SHARED_TABLES_MIN => {
                // Those that go over the same parents stay together.
                tables.sort_by_cached_key(|table| path(catalog, *table));
                tables.drain(..part(catalog, &tables)).collect()
            }
            _ => Vec::new(),
        };
        Ok(Self {
            tenant: tenant.clone(),
            settings: settings(map, catalog),
            other: question(catalog, tenant, &other)?,
            own: question(catalog, tenant, &tables)?,
        })
    }

    /// Whether it is worth another session.
    pub(crate) const fn is_shared(&self) -> bool {
        self.other.is_some()
    }

    /// The state as this session sees it. `ahead` was started in its transaction.
    ///
    /// # Errors
    /// As the server reports it.
    pub(crate) fn ask(
        &self,
        session: &Session,
        catalog: &Catalog,
        ahead: Option<Ahead>,
    ) -> Result<Fingerprint, StoreError> {
        let mut found = match &self.own {
            Some(sql) => sums(session, &self.tenant, sql)?,
            None => Vec::new(),
        };
        if let Some(sql) = &self.other {
            found.extend(match ahead.and_then(|ahead| ahead.answer(self)) {
                Some(answer) => answer,
                None => sums(session, &self.tenant, sql)?,
            });
        }
        Ok(fingerprint(catalog, found))
    }
}

/// How many of these tables, from the first on, the other session is asked about.
fn part(catalog: &Catalog, tables: &[TableIndex]) -> usize {
    let weights = tables.iter().map(|table| {
        let pages = catalog.tables[table.get()].page_count;
        1 + u64::from(pages.unsigned_abs())
    });
    let all: u64 = weights.clone().sum();
    let mut passed = 0;
    let goes = |weight: &u64| {
        passed += weight;
        passed * 100 <= all * OTHER_PERCENT
    };
    weights.take_while(goes).count()
}

fn sums(session: &Session, tenant: &TenantId, sql: &str) -> Result<Sums, StoreError> {
    let rows = session.rows(&format!("read the state of {tenant}"), sql, &[])?;
    let mut sums = Vec::with_capacity(rows.len());
    for row in &rows {
        sums.push((get(row, 0)?, get(row, 1)?, get(row, 2)?));
    }
    Ok(sums)
}

/// A part of the state that another session is asked for.
#[derive(Debug)]
pub(crate) struct Ahead {
    asked: StateQuestion,
    answer: JoinHandle<Result<Sums, StoreError>>,
}

impl Ahead {
    /// Asks what was asked of the tenant before, if there is a connection that waits for use. The transaction
    /// of the session must have a snapshot for good.
    ///
    /// # Errors
    /// If the session cannot be asked any more.
    pub(crate) fn guess(
        connections: &Arc<Connections>,
        session: &Session,
        tenant: &TenantId,
    ) -> Result<Option<Self>, StoreError> {
        let before = connections.asked_before();
        let Some(asked) = before.filter(|asked| asked.tenant == *tenant) else {
            return Ok(None);
        };
        let idle = asked.is_shared().then(|| connections.idle_reader());
        match idle.flatten() {
            Some(reader) => Self::start(asked, session, reader),
            None => Ok(None),
        }
    }

    /// Asks the other session for its part, as the session sees it.
    ///
    /// # Errors
    /// As [`guess`](Self::guess).
    pub(crate) fn start(
        asked: StateQuestion,
        session: &Session,
        reader: Reader,
    ) -> Result<Option<Self>, StoreError> {
        let Some(sql) = asked.other.clone() else {
            return Ok(None);
        };
        let begin = same_moment(session, &asked.settings)?;
        let tenant = asked.tenant.clone();
        let ask = move || {
            reader.begin("look at the same", &begin)?;
            sums(&reader, &tenant, &sql)
        };
        // Without a thread all of it is asked of the session itself.
        let spawned = thread::Builder::new().spawn(ask);
        Ok(spawned.ok().map(|answer| Self { asked, answer }))
    }

    /// What the other session said, if it was asked for just this.
    fn answer(self, question: &StateQuestion) -> Option<Sums> {
        // Before anything else, so that nothing goes on in the snapshot of a transaction that ends.
        let answer = self.answer.join().ok()?.ok()?;
        (self.asked == *question).then_some(answer)
    }
}
