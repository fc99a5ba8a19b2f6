//! The store: creating and opening its file.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use redb::{Builder, Database, ReadableDatabase, ReadableTable};
use reinstate_core::{
    ErrorKind, StoreError, StoreId, StoreIdentity, StoreSchema, TableIndex, TenantKind,
};

use crate::error::During;
use crate::gate::Gate;
use crate::key::{DataTable, FACTS, GARBAGE, GENERATIONS, JOURNAL, TABLES, VERSIONS};
use crate::schema_record::{read_table, write_table};

/// The layout of the file. Persisted: a newer one is refused.
const LAYOUT: u8 = 1;

/// How a store's file is opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EmbeddedOptions {
    /// Bytes of the file that are kept in memory.
    pub cache_bytes: usize,
}

impl Default for EmbeddedOptions {
    /// 64 MiB of cache.
    fn default() -> Self {
        Self {
            cache_bytes: 64 * 1024 * 1024,
        }
    }
}

/// A store of many tenants' rows in one file, for one process at a time. Shared by its threads.
#[derive(Debug)]
pub struct EmbeddedStore {
    pub(crate) database: Database,
    pub(crate) gate: Gate,
    pub(crate) leases: Mutex<HashSet<Vec<u8>>>,
    /// Bytes written that the next durable commit has to wait for. Changed by whose turn it is.
    pub(crate) backlog_bytes: AtomicUsize,
    pub(crate) identity: StoreIdentity,
    pub(crate) tenant_kind: TenantKind,
    pub(crate) schema: StoreSchema,
}

impl EmbeddedStore {
    /// Creates a store in a new file.
    ///
    /// # Errors
    /// `Usage` if the file exists, or a table names its owner by a column or a foreign key: here
    /// the store keeps the owner itself. `Locked` if another process has the file open.
    pub fn create(
        path: impl AsRef<Path>,
        options: &EmbeddedOptions,
        identity: StoreIdentity,
        tenant_kind: TenantKind,
        schema: StoreSchema,
    ) -> Result<Self, StoreError> {
        let path = path.as_ref();
        if path.exists() {
            let message = format!("create store {}: the file exists already", path.display());
            return Err(StoreError::new(ErrorKind::Usage, message));
        }
        let operation = format!("create store {}", path.display());
        let database = builder(options).create(path).during(&operation)?;
        let store = Self::new(database, identity, tenant_kind, schema);
        store.write_facts()?;
        Ok(store)
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
        let database = builder(options).open(path).during(&operation)?;
        let store = Self::read_facts(database, &operation)?;
        store.remove_all_garbage()?;
        Ok(store)
    }

    /// Creates a store on storage of the caller's own, to test what happens when it fails.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_on(
        backend: impl redb::StorageBackend,
        identity: StoreIdentity,
        tenant_kind: TenantKind,
        schema: StoreSchema,
    ) -> Result<Self, StoreError> {
        let database = Builder::new()
            .create_with_backend(backend)
            .during("create a store")?;
        let store = Self::new(database, identity, tenant_kind, schema);
        store.write_facts()?;
        Ok(store)
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
        database: Database,
        identity: StoreIdentity,
        tenant_kind: TenantKind,
        schema: StoreSchema,
    ) -> Self {
        let (gate, leases) = (Gate::default(), Mutex::default());
        let backlog_bytes = AtomicUsize::new(0);
        Self {
            database,
            gate,
            leases,
            backlog_bytes,
            identity,
            tenant_kind,
            schema,
        }
    }

    fn write_facts(&self) -> Result<(), StoreError> {
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
            for (index, table) in self.schema.iter() {
                let record = write_table(table).ok_or_else(|| {
                    let message = format!(
                        "table {}: in an embedded store the store itself keeps the owner; \
                         declare it native, shared or excluded",
                        table.name
                    );
                    StoreError::new(ErrorKind::Usage, message)
                })?;
                tables
                    .insert(index.0, record.as_slice())
                    .during(operation)?;
                let data = DataTable::new(index);
                transaction
                    .open_table(data.definition())
                    .during(operation)?;
            }
            transaction.open_table(VERSIONS).during(operation)?;
            transaction.open_table(GENERATIONS).during(operation)?;
            transaction.open_table(GARBAGE).during(operation)?;
            transaction.open_table(JOURNAL).during(operation)?;
        }
        transaction.commit().during(operation)
    }

    fn read_facts(database: Database, operation: &str) -> Result<Self, StoreError> {
        let damaged = |what: &str| {
            StoreError::new(
                ErrorKind::Corrupt,
                format!("{operation}: its {what} is damaged"),
            )
        };
        let transaction = database.begin_read().during(operation)?;
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
        if fact("layout")? != [LAYOUT] {
            let message = format!("{operation}: a newer version wrote it; upgrade");
            return Err(StoreError::new(ErrorKind::Usage, message));
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
        Ok(Self::new(database, identity, tenant_kind, schema))
    }
}

fn builder(options: &EmbeddedOptions) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(options.cache_bytes);
    builder
}
