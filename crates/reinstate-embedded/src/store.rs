//! The store: creating and opening its file.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, StorageBackend};
use reinstate_core::{
    ErrorKind, SnapshotId, StoreError, StoreId, StoreIdentity, StoreSchema, TableIndex, TenantKind,
    Timestamp,
};

use crate::backend::{CountedBackend, Decisions};
use crate::backlog::Backlog;
use crate::error::{During, store_error};
use crate::gate::Gate;
use crate::key::{
    Bytes, COMMITS, DataTable, FACTS, GARBAGE, GENERATIONS, JOURNAL, TABLES, VERSIONS,
};
use crate::lease::Leases;
use crate::schema_record::{read_table, write_table};

/// The layout of the file. Persisted: a newer one is refused, and so are 1 and 2, of before the first
/// release, whose journal does not have the numbers of commits.
const LAYOUT: u8 = 3;
/// The layout while the store has feeds: whoever does not know of them must not write to it.
const FOLLOWED_LAYOUT: u8 = 4;
/// How every redb file begins.
const REDB_MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// How a store's file is opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EmbeddedOptions {
    /// Bytes of the file that are kept in memory.
    pub cache_bytes: usize,
    /// The most changed rows that a merge writes in place, in a single transaction. A larger one
    /// builds the tenant's next generation aside.
    pub in_place_rows_max: u64,
    /// The most bytes of rows, keys included, that a tenant may have for a merge to be made in place. A
    /// merge in place reads all of them back while everybody waits, however little it changes.
    pub in_place_tenant_bytes_max: u64,
    /// What says when a transaction of a followed store was committed. Asked while the transaction
    /// has its turn, so that a clock that never goes back gives times in the order of the commits.
    pub clock: fn() -> Timestamp,
}

impl Default for EmbeddedOptions {
    /// 64 MiB of cache; 4,096 rows in place, of tenants of at most 16 MiB: a transaction of the length of
    /// a few turns; the system's clock.
    fn default() -> Self {
        Self {
            cache_bytes: 64 * 1024 * 1024,
            in_place_rows_max: 4096,
            in_place_tenant_bytes_max: 16 * 1024 * 1024,
            clock: system_time,
        }
    }
}

/// The time of the system's clock.
fn system_time() -> Timestamp {
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => micros(after),
        Err(before) => -micros(before.duration()),
    })
}

/// A store of many tenants' rows in one file, for one process at a time. Shared by its threads.
#[derive(Debug)]
pub struct EmbeddedStore {
    pub(crate) database: Arc<Database>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) leases: Leases,
    /// Feeds that somebody reads.
    pub(crate) readings: Mutex<HashSet<SnapshotId>>,
    pub(crate) backlog: Arc<Backlog>,
    pub(crate) in_place_rows_max: u64,
    pub(crate) in_place_tenant_bytes_max: u64,
    pub(crate) clock: fn() -> Timestamp,
    decisions: Decisions,
    /// A commit may have reached the disk or not: what is in memory is no longer what counts.
    is_in_doubt: AtomicBool,
    pub(crate) identity: StoreIdentity,
    pub(crate) tenant_kind: TenantKind,
    pub(crate) schema: StoreSchema,
}

impl EmbeddedStore {
    /// Creates a store in a new file.
    ///
    /// # Errors
    /// `Usage` if the file exists, or a table names its owner by a column or a foreign key: here
    /// the store keeps the owner itself. No file is left behind then.
    pub fn create(
        path: impl AsRef<Path>,
        options: &EmbeddedOptions,
        identity: StoreIdentity,
        tenant_kind: TenantKind,
        schema: StoreSchema,
    ) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let operation = format!("create store {}", path.display());
        let records = table_records(&schema)?;
        let file = File::create_new(path)
            .map_err(|error| file_error(&operation, error, io::ErrorKind::AlreadyExists))?;
        let created = FileBackend::new(file)
            .during(&operation)
            .and_then(|file| Opened::new(file, options, &operation))
            .map(|opened| Self::new(opened, identity, tenant_kind, schema))
            .and_then(|store| store.write_facts(&records).map(|()| store))
            .and_then(|store| sync_name(path, &operation).map(|()| store));
        if created.is_err() {
            // A file that is not a store yet is of no use, and would be in the way of the next try.
            let _ = std::fs::remove_file(path);
        }
        created
    }

    /// Opens a store that was created before, and removes what an earlier process left behind in
    /// the middle of a restore.
    ///
    /// # Errors
    /// `NotFound` if there is no such file; `Locked` if another process has it open; `Usage` if
    /// it is not a store; `Corrupt` if its own records are damaged.
    pub fn open(path: impl AsRef<Path>, options: &EmbeddedOptions) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let operation = format!("open store {}", path.display());
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file =
            file.map_err(|error| file_error(&operation, error, io::ErrorKind::IsADirectory))?;
        let file = FileBackend::new(file).during(&operation)?;
        Self::open_backend(file, options, &operation)
    }

    /// Creates a store on storage of the caller's own, to test what happens when it fails.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_on(
        backend: impl StorageBackend,
        identity: StoreIdentity,
        tenant_kind: TenantKind,
        schema: StoreSchema,
    ) -> Result<Self, StoreError> {
        let records = table_records(&schema)?;
        let opened = Opened::new(backend, &EmbeddedOptions::default(), "create a store")?;
        let store = Self::new(opened, identity, tenant_kind, schema);
        store.write_facts(&records)?;
        Ok(store)
    }

    /// Opens a store on storage of the caller's own.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_on(
        backend: impl StorageBackend,
        options: &EmbeddedOptions,
    ) -> Result<Self, StoreError> {
        Self::open_backend(backend, options, "open a store")
    }

    fn open_backend(
        backend: impl StorageBackend,
        options: &EmbeddedOptions,
        operation: &str,
    ) -> Result<Self, StoreError> {
        // redb would make a database of an empty file, whoever it belongs to.
        let mut magic = [0; REDB_MAGIC.len()];
        if backend.read(0, &mut magic).is_err() || magic != REDB_MAGIC {
            let message = format!("{operation}: it is not a redb file");
            return Err(StoreError::new(ErrorKind::Usage, message));
        }
        let store = Self::read_facts(Opened::new(backend, options, operation)?, operation)?;
        store.remove_all_garbage()?;
        store.tidy_feed()?;
        Ok(store)
    }

    /// Commits a transaction, durably unless it was told otherwise.
    ///
    /// # Errors
    /// `OutcomeUnknown` if the storage failed so late that the commit may have reached the disk;
    /// with every other error nothing was committed.
    pub(crate) fn commit(
        &self,
        transaction: redb::WriteTransaction,
        operation: &str,
    ) -> Result<(), StoreError> {
        // Whoever commits has the turn, so nobody else does either meanwhile.
        let decisions = self.decisions.count();
        transaction.commit().map_err(|error| {
            if self.decisions.count() == decisions {
                return store_error(operation, error);
            }
            self.is_in_doubt.store(true, Ordering::SeqCst);
            let message = format!(
                "{operation}: the storage failed in the middle; open the store again to see \
                 whether it was written"
            );
            StoreError::new(ErrorKind::OutcomeUnknown, message).because(error)
        })
    }

    /// Opens the file for reading as it is now.
    ///
    /// # Errors
    /// `OutcomeUnknown` after a commit of which nobody knows whether it reached the disk: what is in
    /// memory would say that it did not.
    pub(crate) fn begin_read(&self, operation: &str) -> Result<redb::ReadTransaction, StoreError> {
        if self.is_in_doubt.load(Ordering::SeqCst) {
            let message = format!(
                "{operation}: an earlier commit failed in the middle; open the store again to see \
                 whether it was written"
            );
            return Err(StoreError::new(ErrorKind::OutcomeUnknown, message));
        }
        self.database.begin_read().during(operation)
    }

    /// The store's tables.
    #[must_use]
    pub fn schema(&self) -> &StoreSchema {
        &self.schema
    }

    /// The table with this name.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub fn table(&self, name: &str) -> Result<TableIndex, StoreError> {
        let found = self.schema.find(name).map(|(index, _)| index);
        found.ok_or_else(|| {
            StoreError::new(
                ErrorKind::NotFound,
                format!("the store has no table {name}"),
            )
        })
    }

    fn new(
        opened: Opened,
        identity: StoreIdentity,
        tenant_kind: TenantKind,
        schema: StoreSchema,
    ) -> Self {
        let (gate, leases) = (Arc::default(), Leases::default());
        Self {
            database: Arc::new(opened.database),
            gate,
            leases,
            readings: Mutex::default(),
            backlog: Arc::new(Backlog::new()),
            in_place_rows_max: opened.in_place_rows_max,
            in_place_tenant_bytes_max: opened.in_place_tenant_bytes_max,
            clock: opened.clock,
            decisions: opened.decisions,
            is_in_doubt: AtomicBool::new(false),
            identity,
            tenant_kind,
            schema,
        }
    }

    fn write_facts(&self, records: &[Vec<u8>]) -> Result<(), StoreError> {
        let operation = "describe the store in its file";
        let transaction = self.database.begin_write().during(operation)?;
        {
            let mut facts = transaction.open_table(FACTS).during(operation)?;
            let mut put =
                |name: &str, value: &[u8]| facts.insert(name, value).map(drop).during(operation);
            put("layout", &[LAYOUT])?;
            put("id", self.identity.id.as_bytes())?;
            put("name", self.identity.name.as_bytes())?;
            put("tenant kind", self.tenant_kind.as_str().as_bytes())?;
            put("commit", &0_u64.to_le_bytes())?;
            let mut tables = transaction.open_table(TABLES).during(operation)?;
            for ((index, _), record) in self.schema.iter().zip(records) {
                tables
                    .insert(index.0, record.as_slice())
                    .during(operation)?;
                let data = DataTable::new(index);
                transaction
                    .open_table(data.definition())
                    .during(operation)?;
            }
            transaction.open_table(VERSIONS).during(operation)?;
            transaction.open_table(COMMITS).during(operation)?;
            transaction.open_table(GENERATIONS).during(operation)?;
            transaction.open_table(GARBAGE).during(operation)?;
            transaction.open_table(JOURNAL).during(operation)?;
        }
        transaction.commit().during(operation)
    }

    fn read_facts(opened: Opened, operation: &str) -> Result<Self, StoreError> {
        let damaged = |what: &str| {
            StoreError::new(
                ErrorKind::Corrupt,
                format!("{operation}: its {what} is damaged"),
            )
        };
        let transaction = opened.database.begin_read().during(operation)?;
        let facts = transaction.open_table(FACTS).map_err(|error| {
            let message = format!("{operation}: it is a redb file, but not a store of reinstate");
            StoreError::new(ErrorKind::Usage, message).because(error)
        })?;
        let fact = |name: &str| {
            let value = facts.get(name).during(operation)?;
            value
                .map(|value| value.value().to_vec())
                .ok_or_else(|| damaged(name))
        };
        let refused = match fact("layout")?[..] {
            [LAYOUT | FOLLOWED_LAYOUT] => None,
            [layout] if layout < LAYOUT => Some(
                "a version from before the first release wrote it; load its rows into a new one",
            ),
            _ => Some("a newer version wrote it; upgrade"),
        };
        if let Some(why) = refused {
            return Err(StoreError::new(
                ErrorKind::Usage,
                format!("{operation}: {why}"),
            ));
        }
        let id = <[u8; 16]>::try_from(fact("id")?.as_slice()).map_err(|_| damaged("id"))?;
        let name = String::from_utf8(fact("name")?).map_err(|_| damaged("name"))?;
        let kind = String::from_utf8(fact("tenant kind")?).map_err(|_| damaged("tenant kind"))?;
        let tenant_kind = TenantKind::parse(&kind).map_err(|_| damaged("tenant kind"))?;
        let records = transaction.open_table(TABLES).during(operation)?;
        let mut tables = Vec::new();
        for record in records.iter().during(operation)? {
            let (_, record) = record.during(operation)?;
            tables.push(read_table(record.value()).ok_or_else(|| damaged("list of tables"))?);
        }
        let schema = StoreSchema::try_new(tables)
            .map_err(|error| damaged("list of tables").because(error))?;
        drop((facts, records, transaction));
        let identity = StoreIdentity {
            id: StoreId::from_bytes(id),
            name,
        };
        Ok(Self::new(opened, identity, tenant_kind, schema))
    }
}

/// A database and how it is to be used.
struct Opened {
    database: Database,
    decisions: Decisions,
    in_place_rows_max: u64,
    in_place_tenant_bytes_max: u64,
    clock: fn() -> Timestamp,
}

impl Opened {
    fn new(
        backend: impl StorageBackend,
        options: &EmbeddedOptions,
        operation: &str,
    ) -> Result<Self, StoreError> {
        let (backend, decisions) = CountedBackend::new(backend);
        let mut builder = Builder::new();
        builder.set_cache_size(options.cache_bytes);
        let database = builder.create_with_backend(backend).during(operation)?;
        Ok(Self {
            database,
            decisions,
            in_place_rows_max: options.in_place_rows_max,
            in_place_tenant_bytes_max: options.in_place_tenant_bytes_max,
            clock: options.clock,
        })
    }
}

/// Whether the store has feeds.
pub(crate) fn is_followed(
    facts: &impl ReadableTable<&'static str, Bytes>,
) -> Result<bool, StoreError> {
    let layout = facts.get("layout").during("look for feeds")?;
    Ok(layout.is_some_and(|layout| layout.value() == [FOLLOWED_LAYOUT]))
}

/// Notes whether the store has feeds.
pub(crate) fn set_followed(
    facts: &mut redb::Table<'_, &'static str, Bytes>,
    is_followed: bool,
) -> Result<(), StoreError> {
    let layout = if is_followed { FOLLOWED_LAYOUT } else { LAYOUT };
    facts
        .insert("layout", [layout].as_slice())
        .map(drop)
        .during("note that the store is followed")
}

/// What is kept of each table.
fn table_records(schema: &StoreSchema) -> Result<Vec<Vec<u8>>, StoreError> {
    let tables = schema.tables().iter();
    tables
        .map(|table| {
            write_table(table).ok_or_else(|| {
                let message = format!(
                    "table {}: in an embedded store the store itself keeps the owner; \
                     declare it native, shared or excluded",
                    table.name
                );
                StoreError::new(ErrorKind::Usage, message)
            })
        })
        .collect()
}

/// Brings a new file's name to the disk: what is committed to it would be lost with its name.
fn sync_name(path: &Path, operation: &str) -> Result<(), StoreError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| store_error(operation, redb::Error::Io(error)))
}

/// An error of the file itself; of this kind it is the caller's mistake.
fn file_error(operation: &str, error: io::Error, mistake: io::ErrorKind) -> StoreError {
    if error.kind() == mistake {
        return StoreError::new(ErrorKind::Usage, operation).because(error);
    }
    store_error(operation, redb::Error::Io(error))
}
