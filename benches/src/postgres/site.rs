//! A PostgreSQL server full of tenants, with a repository that holds a snapshot of it.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use reinstate::{
    BlockLayout, CaptureOptions, Context, DriftRules, OwnerCheck, PlanRequest, ResourceOptions,
    Resources, RestoreRequest, StoredPlan,
};
use reinstate_core::{
    Cancellation, JobId, LiveStore as _, Policy, Repository as _, RepositoryId, RowBatch,
    RowStream as _, Silent, SnapshotDescription, SnapshotId, Tenant, Timestamp,
};
use reinstate_postgres::{ConnectionSettings, PostgresStore, SecretUrl};
use reinstate_repository::LocalRepository;
use reinstate_synthetic::{Flavour, SyntheticStore, Table, copy_text_line};
use reinstate_testkit::cluster::{ClusterOptions, PostgresCluster};
use tempfile::TempDir;

use super::RawClient;
use super::dataset::{ForeignKeys, MESSAGE_BYTES, fill, spec, tenancy};

/// What the server is given: enough that nothing but the rows costs time. Commits reach the disk.
const SERVER: [(&str, &str); 4] = [
    ("shared_buffers", "512MB"),
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "30min"),
    // It would come to one side of a pair and not to the other; the site vacuums by itself.
    ("autovacuum", "off"),
];

const FURTHER_SETTINGS: &str = "REINSTATE_BENCH_SERVER";

/// These options with what `REINSTATE_BENCH_SERVER` says, `name=value;name=value`, to profile with.
#[must_use]
pub fn with_further_settings(mut options: ClusterOptions) -> ClusterOptions {
    let settings = std::env::var(FURTHER_SETTINGS).unwrap_or_default();
    for (name, value) in settings.split(';').filter_map(|item| item.split_once('=')) {
        options = options.with(name, value);
    }
    options
}

const DATABASE: &str = "tracker";

const NOW: Timestamp = Timestamp::from_micros(0);

/// COPY text of one tenant, table by table, parents first.
#[derive(Debug)]
pub struct TenantText {
    tables: Vec<(&'static str, Vec<Bytes>)>,
    row_count: u64,
}

/// A live database with a repository that holds a snapshot of it.
#[derive(Debug)]
pub struct PostgresSite {
    directory: TempDir,
    cluster: PostgresCluster,
    synthetic: SyntheticStore,
    store: PostgresStore,
    repository: LocalRepository,
    snapshot: Arc<SnapshotDescription>,
    resources: Resources,
    cancellation: Cancellation,
    /// Connected as whoever looks after the database.
    keeper: RawClient,
    next_id: AtomicU64,
}

impl PostgresSite {
    /// How many connections a capture uses.
    pub const LANES: usize = 2;

    /// Starts a server, fills its tables, adds keys and indexes, and captures them.
    ///
    /// # Errors
    /// If PostgreSQL is not installed or does not start; as it reports it.
    pub fn create(keys: ForeignKeys) -> Result<Self> {
        let mut options = ClusterOptions::default();
        for (name, value) in SERVER {
            options = options.with(name, value);
        }
        let cluster = PostgresCluster::start(&with_further_settings(options))?;
        cluster.create_database(DATABASE)?;
        let url = cluster.url(DATABASE);
        let keeper = RawClient::connect(&url)?;
        // Whole tenants go: checking row by row that nobody refers to them would scan the tables.
        keeper.run("SET session_replication_role = replica")?;
        let synthetic = SyntheticStore::try_new(spec(), Flavour::Columns)?;
        fill(&synthetic, &keeper, keys)?;
        let mut settings = ConnectionSettings::new(SecretUrl::new(url), DATABASE);
        settings.unguarded = true;
        settings.lanes = Self::LANES;
        let store = PostgresStore::connect(settings, tenancy(&synthetic))?;
        store.prepare()?;
        let directory = tempfile::tempdir().context("make a directory for the site")?;
        let repository = LocalRepository::init(
            directory.path().join("repository"),
            RepositoryId::from_bytes([2; 16]),
            NOW,
        )?;
        let resources = Resources::try_new(ResourceOptions {
            threads: NonZeroUsize::new(Self::LANES).unwrap_or(NonZeroUsize::MIN),
            memory_bytes_max: 512 << 20,
            spill_directory: directory.path().to_owned(),
        })?;
        let cancellation = Cancellation::new();
        let context = Context::new(&resources, &Silent, &cancellation);
        let capture = CaptureOptions::new(SnapshotId::from_bytes([3; 16]), NOW);
        let snapshot = Arc::new(reinstate::capture(context, &store, &repository, &capture)?);
        Ok(Self {
            directory,
            cluster,
            synthetic,
            store,
            repository,
            snapshot,
            resources,
            cancellation,
            keeper,
            next_id: AtomicU64::new(1),
        })
    }

    /// The server.
    #[must_use]
    pub fn cluster(&self) -> &PostgresCluster {
        &self.cluster
    }

    /// The database's name.
    #[must_use]
    pub fn database(&self) -> &str {
        DATABASE
    }

    /// The database as the engine sees it.
    #[must_use]
    pub fn store(&self) -> &PostgresStore {
        &self.store
    }

    /// A place for files that go with the site.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A connection of one's own.
    ///
    /// # Errors
    /// As the server reports it.
    pub fn client(&self) -> Result<RawClient> {
        RawClient::connect(&self.cluster.url(DATABASE))
    }

    /// What the server is and what it was given.
    ///
    /// # Errors
    /// As the server reports it.
    pub fn server(&self) -> Result<String> {
        let version = self.keeper.value("SHOW server_version")?;
        let fsync = self.keeper.value("SHOW fsync")?;
        let settings: Vec<String> = SERVER
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        Ok(format!("{version}; fsync {fsync}, {}", settings.join(", ")))
    }

    /// The tenants, largest first.
    #[must_use]
    pub fn tenants_by_size(&self) -> Vec<Tenant> {
        let indexes = self.synthetic.tenants_by_size();
        indexes
            .into_iter()
            .map(|index| self.tenant(index))
            .collect()
    }

    /// The tenant whose number of rows is nearest to this.
    #[must_use]
    pub fn tenant_of_about(&self, row_count: u64) -> Tenant {
        let indexes = self.synthetic.tenants_by_size();
        let nearest = indexes
            .iter()
            .min_by_key(|&&index| self.synthetic.tenant_row_count(index).abs_diff(row_count));
        self.tenant(nearest.copied().unwrap_or(0))
    }

    fn tenant(&self, index: u32) -> Tenant {
        Tenant {
            kind: self.synthetic.tenant_kind(),
            id: self.synthetic.tenant(index),
        }
    }

    /// A tenant's rows as COPY reads them, in memory.
    ///
    /// # Errors
    /// If there is no such tenant.
    pub fn text(&self, tenant: &Tenant) -> Result<TenantText> {
        let index = self.synthetic.tenant_index(&tenant.id);
        let index = index.with_context(|| format!("there is no {tenant}"))?;
        let mut text = TenantText {
            tables: Vec::new(),
            row_count: 0,
        };
        let mut batch = RowBatch::new();
        for table in Table::OWNED {
            let mut rows = self.synthetic.rows_of(index, table.index());
            let (mut messages, mut message) = (Vec::new(), Vec::new());
            while rows.next_batch(&mut batch)? {
                for row in batch.iter() {
                    copy_text_line(row, &mut message);
                    text.row_count += 1;
                    if message.len() >= MESSAGE_BYTES {
                        messages.push(Bytes::from(std::mem::take(&mut message)));
                    }
                }
            }
            messages.push(Bytes::from(message));
            text.tables.push((table.name(), messages));
        }
        Ok(text)
    }

    /// Deletes tenants, for good, and leaves the tables as a vacuum and a checkpoint do.
    ///
    /// # Errors
    /// As the server reports it.
    pub fn delete(&self, tenants: &[Tenant]) -> Result<()> {
        let ids: Vec<String> = tenants.iter().map(|tenant| tenant.id.to_string()).collect();
        let ids = ids.join(", ");
        let mut sql = format!(
            "BEGIN; DELETE FROM comments USING issues
              WHERE issues.id = comments.issue_id AND issues.account_id IN ({ids});"
        );
        for table in ["activity", "issues", "members", "projects"] {
            sql.push_str(&format!("DELETE FROM {table} WHERE account_id IN ({ids});"));
        }
        self.keeper.run(&(sql + "COMMIT"))?;
        let tables = Table::OWNED.map(Table::name).join(", ");
        self.keeper.run(&format!("VACUUM {tables}"))?;
        self.keeper.run("CHECKPOINT")
    }

    /// What the engine is given.
    #[must_use]
    pub fn context(&self) -> Context<'_> {
        Context::new(&self.resources, &Silent, &self.cancellation)
    }

    fn next_id(&self) -> [u8; 16] {
        u128::from(self.next_id.fetch_add(1, Ordering::Relaxed)).to_be_bytes()
    }

    /// Captures the store once more, with blocks laid out like this.
    ///
    /// # Errors
    /// As the engine reports it.
    pub fn capture(&self, layout: BlockLayout) -> Result<SnapshotDescription> {
        let mut options = CaptureOptions::new(SnapshotId::from_bytes(self.next_id()), NOW);
        options.layout = layout;
        let captured = reinstate::capture(self.context(), &self.store, &self.repository, &options)?;
        Ok(captured)
    }

    /// Plans to bring a tenant back.
    ///
    /// # Errors
    /// As the engine reports it.
    pub fn plan(&self, tenant: &Tenant) -> Result<StoredPlan> {
        let request = PlanRequest {
            job: JobId::from_bytes(self.next_id()),
            repository: self.repository.id(),
            policy: Policy::EXACT,
            drift: DriftRules::default(),
            check_owners: OwnerCheck::Off,
            planned_at: NOW,
        };
        let images = [reinstate::extract(
            &self.repository,
            &self.snapshot,
            tenant,
        )?];
        let output = self.repository.create_object()?;
        let written = reinstate::plan(self.context(), &images, &self.store, &request, output)?;
        Ok(StoredPlan::open(&self.repository, written.object)?)
    }

    /// Plans to bring tenants back, and finds out whose the rows were that would be deleted.
    ///
    /// # Errors
    /// As the engine reports it.
    pub fn plan_checked(&self, tenants: &[Tenant]) -> Result<()> {
        let request = PlanRequest {
            job: JobId::from_bytes(self.next_id()),
            repository: self.repository.id(),
            policy: Policy::EXACT,
            drift: DriftRules::default(),
            check_owners: OwnerCheck::In(&self.repository),
            planned_at: NOW,
        };
        let context = self.context();
        let images = reinstate::extract_all(context, &self.repository, &self.snapshot, tenants);
        let images = images.into_iter().collect::<Result<Vec<_>, _>>()?;
        let output = self.repository.create_object()?;
        reinstate::plan(context, &images, &self.store, &request, output)?;
        Ok(())
    }

    /// Gives each of these tenants another member, younger than the snapshot.
    ///
    /// # Errors
    /// As the server reports it.
    pub fn add_members(&self, tenants: &[Tenant]) -> Result<()> {
        for tenant in tenants {
            self.keeper.run(&format!(
                "INSERT INTO members
                 SELECT (SELECT max(id) + 1 FROM members), account_id, plan_id, email || '.new',
                        full_name, joined_at, last_seen_at, preferences, about
                 FROM members WHERE account_id = {} LIMIT 1",
                tenant.id
            ))?;
        }
        Ok(())
    }

    /// Merges a plan; returns how many rows changed.
    ///
    /// # Errors
    /// As the engine reports it.
    pub fn merge(&self, plan: &StoredPlan, tenant: &Tenant) -> Result<u64> {
        let receipt = reinstate::merge(self.context(), plan, &tenant.id, &self.store)?;
        Ok(receipt.changed_rows())
    }

    /// Restores tenants with all four steps, proof included.
    ///
    /// # Errors
    /// As the engine reports it; or if one of them is not proven to be restored.
    pub fn restore(&self, tenants: &[Tenant]) -> Result<()> {
        let request = RestoreRequest {
            job: JobId::from_bytes(self.next_id()),
            snapshot: Arc::clone(&self.snapshot),
            tenants: tenants.to_vec(),
            policy: Policy::EXACT,
            drift: DriftRules::default(),
            requested_at: NOW,
        };
        let outcomes = reinstate::restore(self.context(), &self.store, &self.repository, &request)?;
        for outcome in outcomes {
            let restored = outcome.is_restored();
            outcome.result?;
            ensure!(restored, "{} is not restored", outcome.tenant);
        }
        Ok(())
    }
}

impl TenantText {
    /// How many rows the text holds.
    #[must_use]
    pub fn row_count(&self) -> u64 {
        self.row_count
    }

    /// Copies the rows into the live tables, in one transaction.
    ///
    /// # Errors
    /// As the server reports it; or if it took another number of rows.
    pub fn copy_in(&self, client: &RawClient) -> Result<()> {
        client.run("BEGIN")?;
        let mut row_count = 0;
        for (table, messages) in &self.tables {
            row_count += client.copy_in(&format!("COPY {table} FROM STDIN"), messages)?;
        }
        ensure!(row_count == self.row_count, "COPY took {row_count} rows");
        client.run("COMMIT")
    }
}
