//! Merging into one tenant.
//!
//! Few changes are made in place, in one transaction. Many are made by building the tables'
//! next generation aside, in short transactions between which other writers get their turn, and
//! switching to it in one: nobody waits for the size of a tenant, and memory holds a chunk.
//!
//! *Crash consistency*: rows of a generation that is not in use are recorded as such before the
//! first of them is written. The switch, the journal's entry and the tenant's new version are one
//! durable transaction. A process that dies before it leaves the tenant as it was, and the rows
//! aside are removed when the store is opened again.

mod aside;
mod chunk;
mod flush;
mod followed;
mod gathered;
mod in_place;
mod plan_rows;

use redb::ReadableDatabase;
use reinstate_core::{
    ChangeCounts, ChangeSource, Committed, ErrorKind, Fingerprint, JournalEntry, Position,
    RowBatch, RowStream, StoreError, StoreSchema, TableIndex, TableName, TenantId, TenantWriter,
};

use crate::EmbeddedStore;
use crate::commit::number;
use crate::error::During;
use crate::feed::Recorder;
use crate::gate::Turn;
use crate::key::{DataTable, JOURNAL, VERSIONS, journal_key};
use crate::lease::Lease;
use crate::scan::Scan;
use crate::view::{PlaceRows, fingerprint, version};

use aside::Aside;
use gathered::Gathered;

/// One tenant, open for a merge.
pub(crate) struct EmbeddedWriter<'s> {
    state: State<'s>,
    store: &'s EmbeddedStore,
    tenant: TenantId,
    version: u64,
    lease: Lease<'s>,
}

enum State<'s> {
    /// Nothing was written.
    Open,
    /// All changes are in this transaction, which ends before the next writer's turn begins.
    InPlace {
        transaction: Box<redb::WriteTransaction>,
        recorder: Option<Recorder>,
        _turn: Turn<'s>,
    },
    /// All changes are in generations that nobody sees yet.
    Aside(Aside),
    /// The merge is over.
    Ended,
}

impl<'s> EmbeddedWriter<'s> {
    pub(crate) fn begin(
        store: &'s EmbeddedStore,
        tenant: &TenantId,
        expected: &Fingerprint,
        schema: &StoreSchema,
    ) -> Result<Self, StoreError> {
        if *schema != store.schema {
            let message = "the store's tables are not the ones of the plan";
            return Err(StoreError::new(ErrorKind::Stale, message));
        }
        let lease = Lease::take(store, tenant)?;
        let transaction = store
            .database
            .begin_read()
            .during("read a tenant's version")?;
        let versions = transaction
            .open_table(VERSIONS)
            .during("read a tenant's version")?;
        let version = version(&versions, tenant.as_bytes())?;
        if fingerprint(store, version) != *expected {
            return Err(stale(tenant));
        }
        let tenant = tenant.clone();
        Ok(Self {
            state: State::Open,
            store,
            tenant,
            version,
            lease,
        })
    }

    /// Fails if anybody wrote to the tenant since the plan was made, or took it over.
    fn check_version(&self, transaction: &redb::WriteTransaction) -> Result<(), StoreError> {
        self.lease.check()?;
        let versions = transaction
            .open_table(VERSIONS)
            .during("read a tenant's version")?;
        if version(&versions, self.tenant.as_bytes())? == self.version {
            Ok(())
        } else {
            Err(stale(&self.tenant))
        }
    }

    /// Writes the journal's entry, numbers the transaction, and lets `note` note under that number
    /// for those who follow the store what it changed; then commits it.
    fn finish(
        &self,
        transaction: redb::WriteTransaction,
        entry: &JournalEntry,
        note: impl FnOnce(&redb::WriteTransaction, u64) -> Result<(), StoreError>,
    ) -> Result<Committed, StoreError> {
        let operation = "commit a merge";
        let commit = number(&transaction, std::iter::once(self.tenant.as_bytes()))?;
        {
            let mut journal = transaction.open_table(JOURNAL).during(operation)?;
            let key = journal_key(entry.job.as_bytes(), &entry.tenant);
            let mut value = entry.plan.as_bytes().to_vec();
            value.extend_from_slice(&commit.to_le_bytes());
            value.extend_from_slice(&entry.payload);
            journal
                .insert(key.as_slice(), value.as_slice())
                .map(drop)
                .during(operation)?;
        }
        note(&transaction, commit)?;
        let _held = self.lease.hold()?;
        self.store.commit(transaction, operation)?;
        self.store.backlog.committed();
        Ok(committed(commit))
    }
}

/// What the commit of a merge leaves, by its number.
pub(crate) fn committed(commit: u64) -> Committed {
    Committed {
        position: Position { commit, ordinal: 0 },
        commit_mark: commit.to_le_bytes().to_vec(),
        sequences_raised: Vec::new(),
    }
}

/// Ends what was noted of a commit, if anybody follows the store.
fn end(
    recorder: Option<Recorder>,
    transaction: &redb::WriteTransaction,
    commit: u64,
) -> Result<(), StoreError> {
    recorder.map_or(Ok(()), |recorder| recorder.end(transaction, commit))
}

fn stale(tenant: &TenantId) -> StoreError {
    let message = format!("tenant {tenant} was written to after the plan was made");
    StoreError::new(ErrorKind::Stale, message)
}

impl TenantWriter for EmbeddedWriter<'_> {
    fn apply(
        &mut self,
        changes: &dyn ChangeSource,
    ) -> Result<Vec<(TableName, ChangeCounts)>, StoreError> {
        let mut total = 0;
        for &table in changes.tables() {
            if !self
                .store
                .schema
                .get(table)
                .is_some_and(|table| table.tenancy.is_tenant_owned())
            {
                let message = format!("table {} is not a tenant's to restore", table.0);
                return Err(StoreError::new(ErrorKind::Refused, message));
            }
            total += changes.counts(table).total();
        }
        let small = if total <= self.store.in_place_rows_max && self.is_small_tenant()? {
            Gathered::read(changes)?
        } else {
            None
        };
        match small {
            Some(gathered) => self.apply_in_place(&gathered),
            None => self.build(changes),
        }
    }

    fn read_back(&mut self, table: TableIndex) -> Result<Box<dyn RowStream + '_>, StoreError> {
        let owner = self.tenant.as_bytes();
        let is_multiset = !self.store.schema.table(table).has_key();
        match &self.state {
            State::InPlace { transaction, .. } => {
                let place = EmbeddedStore::place_in_write(transaction, table, owner)?;
                let scan = Scan::new(place, is_multiset);
                Ok(Box::new(RowsInside {
                    transaction: transaction.as_ref(),
                    table,
                    scan,
                }))
            }
            State::Open | State::Aside(_) | State::Ended => {
                let transaction = self
                    .store
                    .database
                    .begin_read()
                    .during("read a tenant back")?;
                let place = match &self.state {
                    State::Aside(aside) => aside.place(table),
                    _ => None,
                };
                let place = match place {
                    Some(place) => place,
                    None => EmbeddedStore::place_in_read(&transaction, table, owner)?,
                };
                let scan = Scan::new(place, is_multiset);
                Ok(Box::new(PlaceRows::open(&transaction, table, scan)?))
            }
        }
    }

    fn commit(mut self: Box<Self>, entry: &JournalEntry) -> Result<Committed, StoreError> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::InPlace {
                transaction,
                recorder,
                _turn,
            } => self.finish(*transaction, entry, |transaction, commit| {
                end(recorder, transaction, commit)
            }),
            State::Aside(aside) => self.switch(aside, entry),
            State::Open | State::Ended => {
                let _turn = self.store.gate.enter();
                let transaction = self.store.database.begin_write().during("commit a merge")?;
                self.check_version(&transaction)?;
                let recorder = Recorder::begin(&transaction, self.store.clock)?;
                self.finish(transaction, entry, |transaction, commit| {
                    end(recorder, transaction, commit)
                })
            }
        }
    }
}

impl Drop for EmbeddedWriter<'_> {
    fn drop(&mut self) {
        if let State::Aside(aside) = std::mem::replace(&mut self.state, State::Ended) {
            self.discard(&aside);
        }
    }
}

/// Rows of a tenant as they are inside a transaction that writes.
struct RowsInside<'w> {
    transaction: &'w redb::WriteTransaction,
    table: TableIndex,
    scan: Scan,
}

impl RowStream for RowsInside<'_> {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        let name = DataTable::new(self.table);
        let data = self
            .transaction
            .open_table(name.definition())
            .during("read a tenant back")?;
        self.scan.next(&data, batch)
    }
}
