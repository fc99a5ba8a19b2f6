//! A store full of tenants, captured once, to measure on.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use reinstate::{
    BlockLayout, CaptureOptions, Context, DriftRules, ResourceOptions, Resources, RestoreRequest,
    TenantImage,
};
use reinstate_core::{
    Cancellation, JobId, Owner, Policy, RepositoryId, Silent, SnapshotDescription, SnapshotId,
    SnapshotSource, StoreId, StoreIdentity, Tenant, TenantId, Timestamp,
};
use reinstate_embedded::{EmbeddedOptions, EmbeddedStore};
use reinstate_repository::LocalRepository;
use reinstate_synthetic::{Flavour, LargeTenant, SyntheticSpec, SyntheticStore};
use tempfile::TempDir;

/// How large a site is.
#[derive(Clone, Debug)]
pub struct SiteOptions {
    /// Tenants.
    pub tenant_count: u32,
    /// Rows of all tenants together.
    pub row_count: u64,
    /// Zipf exponent of the tenants' sizes.
    pub skew: f64,
    /// A tenant of exactly this size, the first one.
    pub large_tenant_rows: Option<u64>,
    /// How the snapshot's blocks are laid out.
    pub layout: BlockLayout,
    /// Threads of the engine.
    pub threads: usize,
    /// Bytes of the engine's memory budget.
    pub memory_bytes_max: usize,
}

impl Default for SiteOptions {
    fn default() -> Self {
        Self {
            tenant_count: 200,
            row_count: 400_000,
            skew: 1.0,
            large_tenant_rows: Some(100_000),
            layout: BlockLayout::Rows,
            threads: 2,
            memory_bytes_max: 256 << 20,
        }
    }
}

/// A live store with a repository that holds a snapshot of it.
#[derive(Debug)]
pub struct Site {
    directory: TempDir,
    synthetic: SyntheticStore,
    /// The live store.
    pub store: EmbeddedStore,
    /// Its repository.
    pub repository: LocalRepository,
    /// The snapshot.
    pub snapshot: Arc<SnapshotDescription>,
    resources: Resources,
    cancellation: Cancellation,
    next_job: AtomicU64,
}

impl Site {
    /// Fills a store and captures it.
    ///
    /// # Errors
    /// As the store and the repository report it.
    pub fn create(options: &SiteOptions) -> Result<Self> {
        let directory = tempfile::tempdir().context("make a directory for the site")?;
        let synthetic = SyntheticStore::try_new(spec(options), Flavour::Native)?;
        let identity = StoreIdentity {
            id: StoreId::from_bytes([1; 16]),
            name: "benchmark".to_owned(),
        };
        let store = EmbeddedStore::create(
            store_path(directory.path()),
            &EmbeddedOptions::default(),
            identity,
            synthetic.tenant_kind(),
            synthetic.schema().clone(),
        )?;
        store.load(synthetic.begin_capture()?.as_ref())?;
        drop(store);
        // Loaded, closed and opened again, as a store is that has been in use for a while.
        let path = store_path(directory.path());
        std::fs::copy(&path, copy_path(directory.path())).context("copy the store")?;
        let store = EmbeddedStore::open(&path, &EmbeddedOptions::default())?;
        let repository = LocalRepository::init(
            directory.path().join("repository"),
            RepositoryId::from_bytes([2; 16]),
            Timestamp::from_micros(0),
        )?;
        let resources = resources(options, directory.path())?;
        let cancellation = Cancellation::new();
        let context = Context::new(&resources, &Silent, &cancellation);
        let mut capture =
            CaptureOptions::new(SnapshotId::from_bytes([3; 16]), Timestamp::from_micros(0));
        capture.layout = options.layout;
        let snapshot = Arc::new(reinstate::capture(context, &store, &repository, &capture)?);
        Ok(Self {
            directory,
            synthetic,
            store,
            repository,
            snapshot,
            resources,
            cancellation,
            next_job: AtomicU64::new(1),
        })
    }

    /// What the engine is given.
    #[must_use]
    pub fn context(&self) -> Context<'_> {
        Context::new(&self.resources, &Silent, &self.cancellation)
    }

    /// The same site with another number of threads.
    ///
    /// # Errors
    /// If the threads cannot be started.
    pub fn set_threads(&mut self, threads: usize) -> Result<()> {
        let options = SiteOptions {
            threads,
            ..SiteOptions::default()
        };
        self.resources = resources(&options, self.directory.path())?;
        Ok(())
    }

    /// A copy of the live store's file as it was before anybody wrote to it.
    #[must_use]
    pub fn copy_path(&self) -> PathBuf {
        copy_path(self.directory.path())
    }

    /// A place for files that go with the site.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
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

    /// The tenants, largest first.
    #[must_use]
    pub fn tenants_by_size(&self) -> Vec<Tenant> {
        self.synthetic
            .tenants_by_size()
            .into_iter()
            .map(|index| self.tenant(index))
            .collect()
    }

    /// How many rows a tenant has in the snapshot.
    #[must_use]
    pub fn row_count(&self, tenant: &Tenant) -> u64 {
        let index = self.synthetic.tenant_index(&tenant.id);
        index.map_or(0, |index| self.synthetic.tenant_row_count(index))
    }

    /// The tenant's image.
    ///
    /// # Errors
    /// As the engine reports it.
    pub fn image(&self, tenant: &Tenant) -> Result<TenantImage> {
        Ok(reinstate::extract(
            &self.repository,
            &self.snapshot,
            tenant,
        )?)
    }

    /// Deletes a tenant for good, as a script with the wrong id would.
    ///
    /// # Errors
    /// As the store reports it.
    pub fn delete(&self, tenant: &TenantId) -> Result<()> {
        let owner = Owner::Tenant(tenant.clone());
        self.store.write(|transaction| {
            for (index, table) in self.store.schema().iter() {
                if table.tenancy.is_tenant_owned() {
                    transaction.table(index)?.delete_all(&owner)?;
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Deletes tenants for good, in one transaction.
    ///
    /// # Errors
    /// As the store reports it.
    pub fn delete_all(&self, tenants: &[Tenant]) -> Result<()> {
        self.store.write(|transaction| {
            for (index, table) in self.store.schema().iter() {
                for tenant in tenants {
                    if table.tenancy.is_tenant_owned() {
                        let owner = Owner::Tenant(tenant.id.clone());
                        transaction.table(index)?.delete_all(&owner)?;
                    }
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Restores tenants in one request, with all four steps and the proof.
    ///
    /// # Errors
    /// As the engine reports it; or if one of them is not proven to be restored.
    pub fn restore(&self, tenants: &[Tenant]) -> Result<()> {
        let request = RestoreRequest {
            job: self.next_job(),
            snapshot: Arc::clone(&self.snapshot),
            tenants: tenants.to_vec(),
            policy: Policy::EXACT,
            drift: DriftRules::default(),
            requested_at: Timestamp::from_micros(0),
        };
        let outcomes = reinstate::restore(self.context(), &self.store, &self.repository, &request)?;
        for outcome in outcomes {
            let is_restored = outcome.is_restored();
            outcome.result?;
            ensure!(is_restored, "{} is not restored", outcome.tenant);
        }
        Ok(())
    }

    /// A job that was never used.
    #[must_use]
    pub fn next_job(&self) -> JobId {
        let number = self.next_job.fetch_add(1, Ordering::Relaxed);
        JobId::from_bytes(u128::from(number).to_be_bytes())
    }

    fn tenant(&self, index: u32) -> Tenant {
        Tenant {
            kind: self.synthetic.tenant_kind(),
            id: self.synthetic.tenant(index),
        }
    }
}

fn store_path(directory: &Path) -> PathBuf {
    directory.join("live.redb")
}

fn copy_path(directory: &Path) -> PathBuf {
    directory.join("copy.redb")
}

fn spec(options: &SiteOptions) -> SyntheticSpec {
    SyntheticSpec {
        seed: 20_221_123,
        tenant_count: options.tenant_count,
        row_count: options.row_count,
        skew: options.skew,
        large_tenant: options.large_tenant_rows.map(|row_count| LargeTenant {
            index: 0,
            row_count,
        }),
    }
}

fn resources(options: &SiteOptions, directory: &Path) -> Result<Resources> {
    Ok(Resources::try_new(ResourceOptions {
        threads: NonZeroUsize::new(options.threads).unwrap_or(NonZeroUsize::MIN),
        memory_bytes_max: options.memory_bytes_max,
        spill_directory: directory.to_owned(),
    })?)
}
