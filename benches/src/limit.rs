//! The limits: the plainest code that moves the same rows.

use std::fmt;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use redb::{Database, ReadableDatabase, TableDefinition, TableHandle};
use reinstate_core::{ObjectReader, Owner, Repository, Tenant};
use reinstate_embedded::EmbeddedOptions;
use reinstate_format::{SegmentIdentity, SegmentReader};

use crate::Site;

/// The stored blocks of one tenant, in memory and where they lie.
pub struct StoredBlocks {
    blocks: Vec<StoredBlock>,
    plain_bytes: u64,
}

struct StoredBlock {
    object: Arc<dyn ObjectReader>,
    offset: u64,
    bytes: Vec<u8>,
    plain_bytes: usize,
}

/// Where a plain decoder takes blocks from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeFrom {
    /// They are there before the clock starts.
    Memory,
    /// They are read from the repository's files, which the system has in its cache, as extract reads them.
    Files,
}

impl fmt::Debug for StoredBlocks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "StoredBlocks({})", self.blocks.len())
    }
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
            let object: Arc<dyn ObjectReader> = site.repository.open_object(segment.object)?.into();
            let reader = SegmentReader::open(Arc::clone(&object), &identity, &segment.root)?;
            for block in reader.runs_of(&owner)?.iter().flat_map(|run| &run.blocks) {
                let mut bytes = vec![0; block.stored_bytes as usize];
                object.read_exact_at(block.offset, &mut bytes)?;
                blocks.push(StoredBlock {
                    object: Arc::clone(&object),
                    offset: block.offset,
                    bytes,
                    plain_bytes: block.plain_bytes as usize,
                });
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
    /// If zstd refuses a block, or it cannot be read.
    pub fn decode(&self, threads: usize, from: DecodeFrom) -> Result<()> {
        let decode = |blocks: &[StoredBlock]| -> Result<()> {
            let mut decoder = zstd::bulk::Decompressor::new()?;
            let (mut read, mut plain): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
            for block in blocks {
                let stored = match from {
                    DecodeFrom::Memory => block.bytes.as_slice(),
                    DecodeFrom::Files => {
                        let length = block.bytes.len();
                        if read.len() < length {
                            read.resize(length, 0);
                        }
                        block
                            .object
                            .read_exact_at(block.offset, &mut read[..length])?;
                        &read[..length]
                    }
                };
                plain.clear();
                plain.reserve(block.plain_bytes);
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

/// A copy of the live store's file, opened with redb alone, and one tenant's entries of it.
///
/// The same tables, tree and free pages, so that what is left is what the merge does beside
/// inserting. The layout of the file is the documented one: `data/N` with keys that begin with the
/// owner.
#[derive(Debug)]
pub struct RawStore {
    database: Database,
    tables: Vec<RawTable>,
}

/// One tenant's entries in one table.
#[derive(Debug)]
struct RawTable {
    /// Which of the tenants.
    tenant: usize,
    name: String,
    entries: Vec<(Vec<u8>, Vec<u8>)>,
}

impl RawStore {
    /// Copies the site's file, while nobody writes to it, and takes the tenant's entries into
    /// memory.
    ///
    /// # Errors
    /// As redb or the system reports it.
    pub fn create(site: &Site, tenant: &Tenant, path: &Path) -> Result<Self> {
        Self::of_all(site, std::slice::from_ref(tenant), path)
    }

    /// The same, of many tenants.
    ///
    /// # Errors
    /// As redb or the system reports it.
    pub fn of_all(site: &Site, tenants: &[Tenant], path: &Path) -> Result<Self> {
        std::fs::copy(site.copy_path(), path).context("copy the live store")?;
        let mut builder = Database::builder();
        builder.set_cache_size(EmbeddedOptions::default().cache_bytes);
        let database = builder.open(path).context("open the plain store")?;
        let transaction = database.begin_read()?;
        let mut tables = Vec::new();
        for (number, tenant) in tenants.iter().enumerate() {
            let mut prefix = u16::try_from(tenant.id.as_bytes().len())?
                .to_be_bytes()
                .to_vec();
            prefix.extend_from_slice(tenant.id.as_bytes());
            for handle in transaction.list_tables()? {
                let name = handle.name().to_owned();
                if !name.starts_with("data/") {
                    continue;
                }
                let table = transaction.open_table(definition(&name))?;
                let mut entries = Vec::new();
                for entry in table.range(prefix.as_slice()..)? {
                    let (key, value) = entry?;
                    if !key.value().starts_with(&prefix) {
                        break;
                    }
                    entries.push((key.value().to_vec(), value.value().to_vec()));
                }
                if !entries.is_empty() {
                    tables.push(RawTable {
                        tenant: number,
                        name,
                        entries,
                    });
                }
            }
        }
        drop(transaction);
        Ok(Self { database, tables })
    }

    /// How many entries [`insert`](Self::insert) inserts.
    #[must_use]
    pub fn entry_count(&self) -> usize {
        self.tables.iter().map(|table| table.entries.len()).sum()
    }

    /// Removes what the tenant has, in one durable transaction.
    ///
    /// # Errors
    /// As redb reports it.
    pub fn delete(&self) -> Result<()> {
        let transaction = self.database.begin_write()?;
        for RawTable { name, entries, .. } in &self.tables {
            let mut table = transaction.open_table(definition(name))?;
            if let (Some((first, _)), Some((last, _))) = (entries.first(), entries.last()) {
                table.retain_in(first.as_slice()..=last.as_slice(), |_, _| false)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Inserts the entries, sorted, in one durable transaction.
    ///
    /// # Errors
    /// As redb reports it.
    pub fn insert(&self) -> Result<()> {
        self.insert_tables(&self.tables)
    }

    /// Inserts the entries, sorted, in one durable transaction for each tenant.
    ///
    /// # Errors
    /// As redb reports it.
    pub fn insert_one_by_one(&self) -> Result<()> {
        let of_one = |left: &RawTable, right: &RawTable| left.tenant == right.tenant;
        let mut tenants = self.tables.chunk_by(of_one);
        tenants.try_for_each(|tables| self.insert_tables(tables))
    }

    fn insert_tables(&self, tables: &[RawTable]) -> Result<()> {
        let transaction = self.database.begin_write()?;
        for RawTable { name, entries, .. } in tables {
            let mut table = transaction.open_table(definition(name))?;
            let Some((first, _)) = entries.first() else {
                continue;
            };
            let mut cursor = table.upper_bound_mut(Bound::Excluded(first.as_slice()))?;
            for (key, value) in entries {
                cursor.insert_before(key.as_slice(), value.as_slice())?;
            }
            cursor.close()?;
        }
        transaction.commit()?;
        Ok(())
    }
}

fn definition(name: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(name)
}
