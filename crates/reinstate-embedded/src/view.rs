//! The live store as the engine reads it, and as it writes to one tenant.

use redb::ReadableTable;
use reinstate_core::{
    Committed, Digest, ErrorKind, Fingerprint, HeldKey, JobId, JournalEntry, LiveStore, LiveView,
    Position, PositionNotation, RowBatch, RowOrder, RowRole, RowStream, StoreError, StoreIdentity,
    StoreSchema, TableIndex, TenantId, TenantKind, TenantWriter, Timestamp,
};

use crate::EmbeddedStore;
use crate::capture::position;
use crate::error::During;
use crate::key::{Bytes, COMMITS, DataTable, JOURNAL, VERSIONS, commit_key, journal_key};
use crate::merge::{EmbeddedWriter, committed};
use crate::reading::ReadTransaction;
use crate::scan::Scan;

const DIGEST_BYTES: usize = 32;

impl LiveStore for EmbeddedStore {
    fn identity(&self) -> StoreIdentity {
        self.identity.clone()
    }

    fn tenant_kind(&self) -> &TenantKind {
        &self.tenant_kind
    }

    fn notation(&self) -> PositionNotation {
        PositionNotation::Commit
    }

    fn prepare(&self) -> Result<(), StoreError> {
        // The journal is created with the store.
        Ok(())
    }

    fn read_view(&self) -> Result<Box<dyn LiveView + '_>, StoreError> {
        let transaction = self.read()?;
        let position = position(&transaction.transaction)?;
        Ok(Box::new(EmbeddedView {
            transaction,
            position,
        }))
    }

    fn begin_merge(
        &self,
        tenant: &TenantId,
        expected: &Fingerprint,
        schema: &StoreSchema,
    ) -> Result<Box<dyn TenantWriter + '_>, StoreError> {
        Ok(Box::new(EmbeddedWriter::begin(
            self, tenant, expected, schema,
        )?))
    }

    fn journal_entry(
        &self,
        job: JobId,
        tenant: &TenantId,
    ) -> Result<Option<JournalEntry>, StoreError> {
        let noted = self.noted(job, tenant)?;
        Ok(noted.map(|noted| noted.entry))
    }

    fn committed(&self, job: JobId, tenant: &TenantId) -> Result<Option<Committed>, StoreError> {
        let noted = self.noted(job, tenant)?;
        Ok(noted.map(|noted| committed(noted.commit)))
    }

    fn foreign_rows_written(
        &self,
        tenant: &TenantId,
        commit_mark: &[u8],
    ) -> Result<u64, StoreError> {
        let operation = "look for others with the mark of a merge";
        let mark = commit_mark
            .try_into()
            .map(u64::from_le_bytes)
            .map_err(|_| {
                StoreError::new(
                    ErrorKind::Usage,
                    format!("{operation}: not a mark of this store"),
                )
            })?;
        let transaction = self.begin_read(operation)?;
        let commits = transaction.open_table(COMMITS).during(operation)?;
        let first = commit_key(mark, &[]);
        let mut count = 0;
        for entry in commits.range(first.as_slice()..).during(operation)? {
            let (key, _) = entry.during(operation)?;
            let Some(owner) = key.value().strip_prefix(first.as_slice()) else {
                break;
            };
            count += u64::from(owner != tenant.as_bytes());
        }
        Ok(count)
    }

    /// A commit that changes nothing and still has to reach the disk, in its turn among the writers.
    fn probe(&self) -> Result<(), StoreError> {
        let operation = "probe the store";
        let _turn = self.gate.enter();
        let transaction = self.database.begin_write().during(operation)?;
        self.commit(transaction, operation)
    }

    fn writes_between_batches(&self) -> bool {
        // Few changes are gathered first; many are written aside, a turn at a time.
        true
    }
}

/// What the journal has of a merge.
struct Noted {
    entry: JournalEntry,
    commit: u64,
}

impl EmbeddedStore {
    fn noted(&self, job: JobId, tenant: &TenantId) -> Result<Option<Noted>, StoreError> {
        let operation = "read the journal";
        let transaction = self.begin_read(operation)?;
        let journal = transaction.open_table(JOURNAL).during(operation)?;
        let key = journal_key(job.as_bytes(), tenant);
        let Some(value) = journal.get(key.as_slice()).during(operation)? else {
            return Ok(None);
        };
        let cut_short = || {
            let message = format!("{operation}: the entry of {tenant} is cut short");
            StoreError::new(ErrorKind::Corrupt, message)
        };
        let value = value.value();
        let (plan, rest) = value
            .split_first_chunk::<DIGEST_BYTES>()
            .ok_or_else(cut_short)?;
        let (commit, payload) = rest.split_first_chunk().ok_or_else(cut_short)?;
        Ok(Some(Noted {
            entry: JournalEntry {
                job,
                tenant: tenant.clone(),
                plan: Digest::from_bytes(*plan),
                payload: payload.to_vec(),
            },
            commit: u64::from_le_bytes(*commit),
        }))
    }
}

/// Which commit wrote to an owner last; zero if none did.
pub(crate) fn version(
    versions: &impl ReadableTable<Bytes, u64>,
    owner: &[u8],
) -> Result<u64, StoreError> {
    let found = versions.get(owner).during("read a tenant's version")?;
    Ok(found.map_or(0, |version| version.value()))
}

/// A tenant's state: the store, and the commit that wrote to the tenant last.
pub(crate) fn fingerprint(store: &EmbeddedStore, version: u64) -> Fingerprint {
    let mut bytes = store.identity.id.as_bytes().to_vec();
    bytes.extend_from_slice(&version.to_le_bytes());
    Fingerprint::new(bytes)
}

struct EmbeddedView<'s> {
    transaction: ReadTransaction<'s>,
    position: Position,
}

impl LiveView for EmbeddedView<'_> {
    fn schema(&self) -> &StoreSchema {
        &self.transaction.store.schema
    }

    fn position(&self) -> Position {
        self.position
    }

    fn taken_at(&self) -> Option<Timestamp> {
        None
    }

    fn fingerprint(&self, tenant: &TenantId) -> Result<Fingerprint, StoreError> {
        let inner = &self.transaction.transaction;
        let versions = inner
            .open_table(VERSIONS)
            .during("read a tenant's version")?;
        let version = version(&versions, tenant.as_bytes())?;
        Ok(fingerprint(self.transaction.store, version))
    }

    fn row_order(&self) -> RowOrder {
        RowOrder::Sorted
    }

    fn tenant_rows(
        &self,
        tenant: &TenantId,
        table: TableIndex,
    ) -> Result<Box<dyn RowStream + '_>, StoreError> {
        Ok(Box::new(open_rows(
            &self.transaction,
            tenant.as_bytes(),
            table,
        )?))
    }

    fn held_by_others(
        &self,
        _tenant: &TenantId,
        _table: TableIndex,
        _role: RowRole,
        _rows: &RowBatch,
    ) -> Result<Vec<HeldKey>, StoreError> {
        // Keys are a tenant's own here: nobody else can hold one.
        Ok(Vec::new())
    }
}

/// The rows of one owner in a table, as of a transaction.
pub(crate) fn open_rows(
    transaction: &ReadTransaction<'_>,
    owner: &[u8],
    table: TableIndex,
) -> Result<PlaceRows, StoreError> {
    let place = EmbeddedStore::place_in_read(&transaction.transaction, table, owner)?;
    let is_multiset = !transaction.store.schema.table(table).has_key();
    PlaceRows::open(
        &transaction.transaction,
        table,
        Scan::new(place, is_multiset),
    )
}

/// Rows of a place in a transaction that reads.
pub(crate) struct PlaceRows {
    data: redb::ReadOnlyTable<Bytes, Bytes>,
    scan: Scan,
}

impl PlaceRows {
    pub(crate) fn open(
        transaction: &redb::ReadTransaction,
        table: TableIndex,
        scan: Scan,
    ) -> Result<Self, StoreError> {
        let name = DataTable::new(table);
        let data = transaction
            .open_table(name.definition())
            .during("open a table")?;
        Ok(Self { data, scan })
    }
}

impl RowStream for PlaceRows {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        self.scan.next(&self.data, batch)
    }
}
