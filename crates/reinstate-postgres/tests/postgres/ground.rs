//! A database to merge in, and plans made by comparing an image with what is live.
//!
//! With `REINSTATE_TEST_CONFINED` in the environment the store is reached as a role of least privilege
//! instead of as a superuser; the role is described anew whenever a test changes the tables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU8, Ordering};

use reinstate_core::{
    ChangeCounts, ChangeSource, Committed, Digest, Fingerprint, JobId, JournalEntry, LiveStore,
    RowBatch, RowRole, RowStream, StoreError, StoreSchema, TableIndex, TableName, TenantId,
    TenantKind, TenantWriter,
};
use reinstate_postgres::{ConnectionSettings, PostgresStore, SecretUrl, TableRule, TenancyMap};
use reinstate_testkit::cluster::{PostgresCluster, TestDatabase, shared_cluster};

/// The rows of one table: key and columns, sorted.
pub type Rows = Vec<(Vec<u8>, Vec<u8>)>;
/// The rows of one tenant, by table.
pub type Image = BTreeMap<TableIndex, Rows>;

/// How many rows a stream of changes hands out at once.
const BATCH_ROWS: usize = 700;

/// A database of its own, with a store on it whose tenants are in columns `account_id`.
pub struct Ground {
    pub store: PostgresStore,
    pub database: TestDatabase<'static>,
    /// What describes the role that the store is reached as, if it is a confined one.
    owner: Option<PostgresStore>,
    jobs: AtomicU8,
}

/// A variable of the environment: stores are reached as a confined role.
const CONFINED: &str = "REINSTATE_TEST_CONFINED";

/// What a merge did.
#[derive(Debug)]
pub struct Outcome {
    pub planned: Vec<(TableName, ChangeCounts)>,
    pub counted: Vec<(TableName, ChangeCounts)>,
    pub committed: Committed,
}

impl Ground {
    /// A database with these tables.
    pub fn new(ddl: &str) -> Self {
        Self::with_map(ddl, |_| {})
    }

    /// A database with these tables, and a map that `adapt` completes.
    pub fn with_map(ddl: &str, adapt: impl FnOnce(&mut TenancyMap)) -> Self {
        Self::on(shared_cluster().unwrap(), ddl, adapt)
    }

    /// The same on a server of the caller's choice.
    pub fn on(
        cluster: &'static PostgresCluster,
        ddl: &str,
        adapt: impl FnOnce(&mut TenancyMap),
    ) -> Self {
        let database = cluster.fresh_database().unwrap();
        database.psql(ddl).unwrap();
        let mut map = map();
        adapt(&mut map);
        let open = |url: String| PostgresStore::connect(unguarded(&url), map.clone()).unwrap();
        let owner = open(database.url());
        owner.prepare().unwrap();
        let jobs = AtomicU8::new(10);
        if std::env::var_os(CONFINED).is_none() {
            return Self {
                store: owner,
                database,
                owner: None,
                jobs,
            };
        }
        let role = role_of(&database);
        database.psql(&format!("CREATE ROLE {role} LOGIN")).unwrap();
        confine(&owner, &database);
        let url = format!("{}&user={role}", database.url());
        let settings = ConnectionSettings::new(SecretUrl::new(&url), "ground");
        Self {
            store: PostgresStore::connect(settings, map.clone()).unwrap(),
            database,
            owner: Some(owner),
            jobs,
        }
    }

    /// The store as whoever owns its tables reaches it, for what takes an owner.
    pub fn owners(&self) -> &PostgresStore {
        self.owner.as_ref().unwrap_or(&self.store)
    }

    /// The database without anybody who holds a connection to it.
    pub fn into_database(self) -> TestDatabase<'static> {
        self.database
    }

    /// Describes the role anew, if it is a confined one, after what the owner did.
    pub fn describe_role(&self) {
        if let Some(owner) = &self.owner {
            confine(owner, &self.database);
        }
    }

    pub fn psql(&self, sql: &str) -> String {
        let said = self.database.psql(sql).unwrap();
        let mut words = sql.split(|character: char| !character.is_ascii_alphabetic());
        if words.any(|word| ["CREATE", "ALTER", "DROP"].contains(&word)) {
            self.describe_role();
        }
        said
    }

    pub fn image(&self, tenant: &str) -> Image {
        image(&self.store, tenant)
    }

    /// Everything that is not the tenant's, as text.
    pub fn others(&self, tables: &[&str], tenant: &str) -> String {
        let dump = |table: &&str| {
            let sql = format!(
                "SELECT t.tableoid, t.ctid, t.xmin, t.*::text FROM {table} t
                  WHERE account_id IS DISTINCT FROM '{tenant}' ORDER BY 4, 2"
            );
            self.psql(&sql)
        };
        tables.iter().map(dump).collect()
    }

    /// Merges the image of a tenant, as a job of its own.
    pub fn restore(&self, tenant: &str, image: &Image) -> Result<Outcome, StoreError> {
        let job = self.jobs.fetch_add(1, Ordering::Relaxed);
        restore(&self.store, tenant, image, job)
    }

    /// The number of the server process that holds a merge open in this database.
    pub fn merging_process(&self) -> String {
        self.psql(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()
                AND application_name = 'reinstate' AND state LIKE 'idle in transaction%'",
        )
    }
}

pub fn open_store(url: &str, adapt: impl FnOnce(&mut TenancyMap)) -> PostgresStore {
    let mut map = map();
    adapt(&mut map);
    PostgresStore::connect(unguarded(url), map).unwrap()
}

/// The same with other settings.
pub fn open_store_with(url: &str, adapt: impl FnOnce(&mut ConnectionSettings)) -> PostgresStore {
    let mut settings = unguarded(url);
    adapt(&mut settings);
    PostgresStore::connect(settings, map()).unwrap()
}

/// The same database with another map.
pub fn open_store_with_map(url: &str, adapt: impl FnOnce(&mut TenancyMap)) -> PostgresStore {
    let mut map = map();
    adapt(&mut map);
    PostgresStore::connect(unguarded(url), map).unwrap()
}

fn map() -> TenancyMap {
    let mut map = TenancyMap::new(TenantKind::parse("account").unwrap());
    map.column = Some("account_id".to_owned());
    map
}

fn unguarded(url: &str) -> ConnectionSettings {
    let mut settings = ConnectionSettings::new(SecretUrl::new(url), "ground");
    settings.unguarded = true;
    settings
}

fn role_of(database: &TestDatabase<'_>) -> String {
    format!("least_{}", database.name())
}

/// Lets the role do what the store's script says. What a test is about may be that there is none.
fn confine(owner: &PostgresStore, database: &TestDatabase<'_>) {
    database.drop_policies().unwrap();
    if let Ok(script) = owner.role_script(&role_of(database)) {
        database.psql(&script).unwrap();
    }
}

/// A rule for a table whose tenant is another table's.
pub fn via(map: &mut TenancyMap, table: &str, reference: &str) {
    let reference = reference.to_owned();
    map.tables
        .insert(table.to_owned(), TableRule::via(reference));
}

pub fn tenant(name: &str) -> TenantId {
    TenantId::try_new(name).unwrap()
}

pub fn image(store: &PostgresStore, name: &str) -> Image {
    let view = store.read_view().unwrap();
    let tables = view.schema().iter();
    let owned = tables.filter(|(_, table)| table.tenancy.is_tenant_owned());
    owned
        .map(|(index, _)| {
            (
                index,
                collect(view.tenant_rows(&tenant(name), index).unwrap()).unwrap(),
            )
        })
        .collect()
}

pub fn collect(mut stream: impl RowStream) -> Result<Rows, StoreError> {
    let mut rows = Rows::new();
    let mut batch = RowBatch::new();
    while stream.next_batch(&mut batch)? {
        rows.extend(
            batch
                .iter()
                .map(|row| (row.key().to_vec(), row.columns().to_vec())),
        );
    }
    rows.sort();
    Ok(rows)
}

pub fn entry(job: u8, tenant: &TenantId) -> JournalEntry {
    JournalEntry {
        job: JobId::from_bytes([job; 16]),
        tenant: tenant.clone(),
        plan: Digest::from_bytes([job; 32]),
        payload: vec![0, 255, b'\\', job],
    }
}

/// What a merge is bound to.
pub fn bind(store: &PostgresStore, tenant: &TenantId) -> (Fingerprint, StoreSchema) {
    let view = store.read_view().unwrap();
    (view.fingerprint(tenant).unwrap(), view.schema().clone())
}

/// Plans and merges the image of a tenant, reads it back before the commit, and checks that it
/// is the image.
pub fn restore(
    store: &PostgresStore,
    name: &str,
    image: &Image,
    job: u8,
) -> Result<Outcome, StoreError> {
    let tenant = tenant(name);
    let (fingerprint, schema) = bind(store, &tenant);
    let plan = Plan::between(&schema, &self::image(store, name), image);
    let mut writer = store.begin_merge(&tenant, &fingerprint, &schema)?;
    let counted = writer.apply(&plan)?;
    check_read_back(writer.as_mut(), image)?;
    let committed = writer.commit(&entry(job, &tenant))?;
    Ok(Outcome {
        planned: plan.counts_by_name(),
        counted,
        committed,
    })
}

pub fn check_read_back(writer: &mut dyn TenantWriter, image: &Image) -> Result<(), StoreError> {
    for (&table, expected) in image {
        let found = collect(writer.read_back(table)?)?;
        assert!(found == *expected, "table {table:?} reads back otherwise");
    }
    Ok(())
}

/// Changes in memory.
pub struct Plan {
    tables: Vec<(TableIndex, TableName)>,
    order: Vec<TableIndex>,
    rows: BTreeMap<(TableIndex, u8), Rows>,
}

impl Plan {
    /// What turns one image into another.
    pub fn between(schema: &StoreSchema, live: &Image, wanted: &Image) -> Self {
        let mut plan = Self {
            tables: Vec::new(),
            order: Vec::new(),
            rows: BTreeMap::new(),
        };
        let none = Rows::new();
        for table in schema.write_order() {
            let live = live.get(&table).unwrap_or(&none);
            let wanted = wanted.get(&table).unwrap_or(&none);
            plan.compare(table, schema.table(table).has_key(), live, wanted);
            if plan.counts(table).total() > 0 {
                plan.order.push(table);
                plan.tables.push((table, schema.table(table).name.clone()));
            }
        }
        plan
    }

    fn compare(&mut self, table: TableIndex, has_key: bool, live: &Rows, wanted: &Rows) {
        let mut copies: BTreeMap<&(Vec<u8>, Vec<u8>), i64> = BTreeMap::new();
        live.iter()
            .for_each(|row| *copies.entry(row).or_default() += 1);
        wanted
            .iter()
            .for_each(|row| *copies.entry(row).or_default() -= 1);
        let surplus = |sign: i64| -> Rows {
            let rows = copies.iter().filter(|(_, count)| **count * sign > 0);
            rows.flat_map(|(row, count)| (0..count.abs()).map(|_| (*row).clone()))
                .collect()
        };
        let (rest, missing) = (surplus(1), surplus(-1));
        let keys = |rows: &Rows| {
            rows.iter()
                .map(|row| row.0.clone())
                .collect::<BTreeSet<_>>()
        };
        let (there, needed) = (keys(&rest), keys(&missing));
        let both = |key: &Vec<u8>| has_key && there.contains(key) && needed.contains(key);
        let mut push = |role: RowRole, rows: Rows| {
            if !rows.is_empty() {
                self.rows.insert((table, role as u8), rows);
            }
        };
        let pick = |rows: &Rows, wanted: bool| -> Rows {
            rows.iter()
                .filter(|row| both(&row.0) == wanted)
                .cloned()
                .collect()
        };
        push(RowRole::Created, pick(&missing, false));
        push(RowRole::Deleted, pick(&rest, false));
        push(RowRole::PutBackBefore, pick(&rest, true));
        push(RowRole::PutBackAfter, pick(&missing, true));
    }

    pub fn counts_by_name(&self) -> Vec<(TableName, ChangeCounts)> {
        let tables = self.tables.iter();
        let mut counts: Vec<_> = tables
            .map(|(table, name)| (name.clone(), self.counts(*table)))
            .collect();
        counts.sort_by(|left, right| left.0.cmp(&right.0));
        counts
    }

    fn count(&self, table: TableIndex, role: RowRole) -> u64 {
        self.rows
            .get(&(table, role as u8))
            .map_or(0, |rows| rows.len() as u64)
    }
}

impl ChangeSource for Plan {
    fn tables(&self) -> &[TableIndex] {
        &self.order
    }

    fn counts(&self, table: TableIndex) -> ChangeCounts {
        ChangeCounts {
            created: self.count(table, RowRole::Created),
            put_back: self.count(table, RowRole::PutBackAfter),
            deleted: self.count(table, RowRole::Deleted),
        }
    }

    fn rows(
        &self,
        table: TableIndex,
        role: RowRole,
    ) -> Result<Box<dyn RowStream + '_>, StoreError> {
        let rows = self
            .rows
            .get(&(table, role as u8))
            .map_or(&[][..], Vec::as_slice);
        Ok(Box::new(PlanRows(rows)))
    }
}

struct PlanRows<'a>(&'a [(Vec<u8>, Vec<u8>)]);

impl RowStream for PlanRows<'_> {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        batch.clear();
        let (now, later) = self.0.split_at(self.0.len().min(BATCH_ROWS));
        self.0 = later;
        for (key, columns) in now {
            batch.push_parts(key, columns);
        }
        Ok(!batch.is_empty())
    }
}
