//! The limits: the plainest code that moves the same rows.

use std::ops::Bound;
use std::path::Path;

use anyhow::{Context as _, Result};
use redb::{Database, ReadableTableMetadata, TableDefinition};
use reinstate::TenantImage;
use reinstate_core::{ObjectReader, Owner, Repository, RowBatch, RowStream, Tenant};
use reinstate_format::{SegmentIdentity, SegmentReader};

use crate::Site;

/// The stored blocks of one tenant, in memory.
#[derive(Debug)]
pub struct StoredBlocks {
    blocks: Vec<(Vec<u8>, usize)>,
    plain_bytes: u64,
}

impl StoredBlocks {
    /// Reads a tenant's blocks as they lie in the repository.
    ///
    /// # Errors
    /// As the repository reports it.
    pub fn read(site: &Site, tenant: &Tenant) -> Result<Self> {
        let owner = Owner::Tenant(tenant.id.clone());
        let mut blocks = Vec::new();
        let mut plain_bytes = 0;
        for segment in &site.snapshot.segments {
            let identity = SegmentIdentity {
                repository: site.repository.id(),
                container: *site.snapshot.id.as_bytes(),
                number: segment.number,
            };
            let object: std::sync::Arc<dyn ObjectReader> =
                site.repository.open_object(segment.object)?.into();
            let reader =
                SegmentReader::open(std::sync::Arc::clone(&object), &identity, &segment.root)?;
            for block in reader.runs_of(&owner)?.iter().flat_map(|run| &run.blocks) {
                let mut stored = vec![0; block.stored_bytes as usize];
                object.read_exact_at(block.offset, &mut stored)?;
                blocks.push((stored, block.plain_bytes as usize));
                plain_bytes += u64::from(block.plain_bytes);
            }
        }
        Ok(Self {
            blocks,
            plain_bytes,
        })
    }

    /// Bytes of the decoded blocks.
    #[must_use]
    pub fn plain_bytes(&self) -> u64 {
        self.plain_bytes
    }

    /// Decodes every block with plain zstd into reused buffers, on this many threads.
    ///
    /// # Errors
    /// If zstd refuses a block.
    pub fn decode(&self, threads: usize) -> Result<()> {
        let decode = |blocks: &[(Vec<u8>, usize)]| -> Result<()> {
            let mut decoder = zstd::bulk::Decompressor::new()?;
            let mut plain: Vec<u8> = Vec::new();
            for (stored, plain_bytes) in blocks {
                plain.clear();
                plain.reserve(*plain_bytes);
                decoder.decompress_to_buffer(stored, &mut plain)?;
                std::hint::black_box(plain.as_slice());
            }
            Ok(())
        };
        if threads < 2 {
            return decode(&self.blocks);
        }
        let share = self.blocks.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let parts: Vec<_> = self
                .blocks
                .chunks(share)
                .map(|blocks| scope.spawn(move || decode(blocks)))
                .collect();
            parts
                .into_iter()
                .try_for_each(|part| part.join().map_err(|_| anyhow::anyhow!("a thread died"))?)
        })
    }
}

/// A plain redb file that already holds other rows, and one tenant's rows to insert into it.
#[derive(Debug)]
pub struct RawStore {
    database: Database,
    rows: Vec<(String, Vec<RowBatch>)>,
    row_count: u64,
}

impl RawStore {
    /// Takes the tenant's rows into memory, and fills a file with the rows of as many others.
    ///
    /// # Errors
    /// As redb or the repository reports it.
    pub fn create(site: &Site, image: &TenantImage, path: &Path) -> Result<Self> {
        let mut builder = Database::builder();
        builder.set_cache_size(64 << 20);
        let database = builder.create(path).context("create the plain store")?;
        let mut store = Self {
            database,
            rows: Vec::new(),
            row_count: 0,
        };
        for table in image.tables() {
            let mut batches = Vec::new();
            let mut stream = image.rows(site.context(), table);
            let mut batch = RowBatch::new();
            while stream.next_batch(&mut batch)? {
                batches.push(batch.clone());
            }
            store.rows.push((format!("table {}", table.0), batches));
        }
        store.insert(b"before ")?;
        store.insert(b"zz after ")?;
        Ok(store)
    }

    /// How many rows [`insert`](Self::insert) inserts.
    #[must_use]
    pub fn row_count(&self) -> u64 {
        self.row_count
    }

    /// Removes what a tenant has, if anything.
    ///
    /// # Errors
    /// As redb reports it.
    pub fn delete(&self, tenant: &[u8]) -> Result<()> {
        let transaction = self.database.begin_write()?;
        for (name, _) in &self.rows {
            let definition: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(name);
            let mut table = transaction.open_table(definition)?;
            table.retain(|key, _| !key.starts_with(tenant))?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Inserts the rows under this prefix, sorted, in one durable transaction.
    ///
    /// # Errors
    /// As redb reports it.
    pub fn insert(&mut self, tenant: &[u8]) -> Result<()> {
        let transaction = self.database.begin_write()?;
        let mut row_count = 0_u64;
        let mut key = Vec::new();
        for (name, batches) in &self.rows {
            let definition: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(name);
            let mut table = transaction.open_table(definition)?;
            let mut cursor = table.upper_bound_mut(Bound::Included(tenant))?;
            for row in batches.iter().flat_map(RowBatch::iter) {
                key.clear();
                key.extend_from_slice(tenant);
                if row.key().is_empty() {
                    // Equal rows of a table without a key get a number, in order.
                    key.extend_from_slice(&row_count.to_be_bytes());
                } else {
                    key.extend_from_slice(row.key());
                }
                cursor.insert_before(key.as_slice(), row.columns())?;
                row_count += 1;
            }
            cursor.close()?;
            table.len()?;
        }
        transaction.commit()?;
        self.row_count = row_count;
        Ok(())
    }
}
