//! The application: threads that go on writing to the tenants that nobody touches, in every store.
//!
//! Each thread has tenants of its own, knows the rows it writes, and notes a write in its ledger
//! only when the store has acknowledged it. The generator's answer plus the ledgers is what the
//! other tenants must hold in the end, to the row.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use reinstate_core::{
    ContentDigest, KeyWriter, Owner, RowBatch, RowRef, StoreError, TableIndex, TableSchema,
};
use reinstate_embedded::EmbeddedStore;
use reinstate_synthetic::{SyntheticStore, Table};

/// Threads of the application in each store.
pub const THREADS: usize = 2;
/// The pause of a thread between two writes.
const PAUSE: Duration = Duration::from_millis(4);
/// How many rows of a tenant a thread knows and edits.
const KNOWN_ROWS: usize = 2;
/// Ids that the generator never hands out.
const NEW_IDS_FROM: u64 = 1_000_000_000_000;
/// How far the ids of two threads are apart.
const NEW_IDS_PER_THREAD: u64 = 1_000_000_000;

/// What goes on while the application writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Period {
    /// Nothing else.
    Idle = 0,
    /// Tenants are being destroyed.
    Destroy = 1,
    /// Tenants are being restored.
    Restore = 2,
    /// It is over.
    After = 3,
}

/// The present period, told to all threads.
#[derive(Debug, Default)]
pub struct Clock(AtomicU8);

impl Clock {
    /// A new period begins.
    pub fn set(&self, period: Period) {
        self.0.store(period as u8, Ordering::Relaxed);
    }

    fn get(&self) -> usize {
        usize::from(self.0.load(Ordering::Relaxed))
    }
}

/// How long the application waited for its writes, by period, shortest first.
#[derive(Clone, Debug, Default)]
pub struct Waits([Vec<Duration>; 4]);

impl Waits {
    /// All waits of these ledgers.
    #[must_use]
    pub fn of(ledgers: &[Ledger]) -> Self {
        let mut all = Self::default();
        ledgers.iter().for_each(|ledger| all.absorb(&ledger.waits));
        all
    }

    fn absorb(&mut self, other: &Self) {
        for (all, more) in self.0.iter_mut().zip(&other.0) {
            all.extend(more);
            all.sort_unstable();
        }
    }

    /// Of a thousand waits in a period, how long the n-th was; and how many there were.
    #[must_use]
    pub fn per_mille(&self, period: Period, per_mille: usize) -> Duration {
        let waits = &self.0[period as usize];
        let place = (waits.len() * per_mille / 1000).min(waits.len().saturating_sub(1));
        waits.get(place).copied().unwrap_or_default()
    }

    /// How many writes there were in a period.
    #[must_use]
    pub fn count(&self, period: Period) -> usize {
        self.0[period as usize].len()
    }
}

/// What acknowledged writes did to one table of one tenant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    added: ContentDigest,
    removed: ContentDigest,
}

impl Written {
    /// What the table holds after these writes, from what it held before.
    #[must_use]
    pub fn after(&self, mut before: ContentDigest) -> ContentDigest {
        before.merge(self.added);
        before.subtract(self.removed);
        before
    }
}

/// What the application knows of its own writes to a store.
#[derive(Debug, Default)]
pub struct Ledger {
    /// What acknowledged writes did, by tenant and table.
    pub written: HashMap<(u32, TableIndex), Written>,
    /// How long they took.
    pub waits: Waits,
}

impl Ledger {
    fn add(&mut self, tenant: u32, table: TableIndex, row: RowRef<'_>) {
        self.written
            .entry((tenant, table))
            .or_default()
            .added
            .add(row);
    }

    fn remove(&mut self, tenant: u32, table: TableIndex, row: RowRef<'_>) {
        self.written
            .entry((tenant, table))
            .or_default()
            .removed
            .add(row);
    }

    fn absorb(&mut self, other: Self) {
        // No two threads write to the same tenant.
        self.written.extend(other.written);
        self.waits.absorb(&other.waits);
    }
}

/// The application of one store.
#[derive(Debug)]
pub struct Application<'s> {
    synthetic: &'s SyntheticStore,
    store: &'s EmbeddedStore,
    tenants: Vec<u32>,
}

impl<'s> Application<'s> {
    /// The application of all tenants but the victims, as far as they have issues and activity.
    #[must_use]
    pub fn new(synthetic: &'s SyntheticStore, store: &'s EmbeddedStore, victims: &[u32]) -> Self {
        let has = |tenant: u32, table: Table| synthetic.row_count_of(tenant, table.index()) > 0;
        let tenants = (0..synthetic.spec().tenant_count)
            .filter(|tenant| !victims.contains(tenant))
            .filter(|&tenant| has(tenant, Table::Issues) && has(tenant, Table::Activity))
            .collect();
        Self {
            synthetic,
            store,
            tenants,
        }
    }

    /// How many tenants it writes to.
    #[must_use]
    pub fn tenant_count(&self) -> usize {
        self.tenants.len()
    }
}

/// Writes for as long as `work` lasts; returns what it returns, with a ledger for each store.
///
/// # Errors
/// What `work` returns, or the first write that a store refused.
pub fn run_while<T>(
    applications: &[Application<'_>],
    work: impl FnOnce(&Clock) -> anyhow::Result<T>,
) -> anyhow::Result<(T, Vec<Ledger>)> {
    let clock = Clock::default();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (clock, is_over) = (&clock, &is_over);
        let start = |application| {
            let begin = move |number| {
                let writer = Writer::new(application, number);
                scope.spawn(move || writer.write_until(is_over, clock))
            };
            (0..THREADS).map(begin).collect::<Vec<_>>()
        };
        let threads: Vec<_> = applications.iter().map(start).collect();
        // Told even when the work panics: a scope waits for its threads.
        let over = OnDrop(is_over);
        let result = work(clock);
        drop(over);
        let mut ledgers = Vec::with_capacity(threads.len());
        for of_one_store in threads {
            let mut ledger = Ledger::default();
            for thread in of_one_store {
                let part = thread
                    .join()
                    .expect("BUG: a thread of the application panicked")?;
                ledger.absorb(part);
            }
            ledgers.push(ledger);
        }
        Ok((result?, ledgers))
    })
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One thread of the application.
struct Writer<'w> {
    synthetic: &'w SyntheticStore,
    store: &'w EmbeddedStore,
    tenants: Vec<u32>,
    random: fastrand::Rng,
    known: HashMap<u32, Vec<KnownRow>>,
    created: Vec<(u32, KnownRow)>,
    next_id: u64,
    ledger: Ledger,
}

/// A row as the application has it. Encoded: it knows some of every tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KnownRow(RowBatch);

impl KnownRow {
    fn of(row: RowRef<'_>) -> Self {
        let mut batch = RowBatch::new();
        batch.push_row(row);
        Self(batch)
    }

    fn row(&self) -> RowRef<'_> {
        let mut rows = self.0.iter();
        rows.next().expect("BUG: a known row is one row")
    }

    /// The same row with another value in a column, and the key that follows from it.
    fn with(&self, table: &TableSchema, column: &str, text: &str) -> Self {
        let column = table
            .column(column)
            .expect("BUG: the table has no such column");
        let mut values: Vec<Option<&[u8]>> = self.row().values().collect();
        values[column.get()] = Some(text.as_bytes());
        let mut key = KeyWriter::new();
        for &column in &table.key {
            let value = values[column.get()].unwrap_or_default();
            key.push(table.columns[column.get()].key_form, value);
        }
        let mut batch = RowBatch::new();
        batch.push(key.as_bytes(), values);
        Self(batch)
    }
}

impl<'w> Writer<'w> {
    fn new(application: &Application<'w>, number: usize) -> Self {
        let own = application.tenants.iter().skip(number).step_by(THREADS);
        let (synthetic, number) = (application.synthetic, number as u64);
        Self {
            synthetic,
            store: application.store,
            tenants: own.copied().collect(),
            random: fastrand::Rng::with_seed(synthetic.spec().seed.wrapping_add(number << 32)),
            known: HashMap::new(),
            created: Vec::new(),
            next_id: NEW_IDS_FROM + number * NEW_IDS_PER_THREAD,
            ledger: Ledger::default(),
        }
    }

    fn write_until(mut self, is_over: &AtomicBool, clock: &Clock) -> Result<Ledger, StoreError> {
        while !is_over.load(Ordering::Relaxed) && !self.tenants.is_empty() {
            let tenant = self.tenants[self.random.usize(..self.tenants.len())];
            self.know(tenant)?;
            let period = clock.get();
            let started = Instant::now();
            match self.random.u32(..10) {
                0..=3 => self.edit(tenant)?,
                4..=6 => self.create(tenant)?,
                7..=8 => self.log(tenant)?,
                _ => self.delete()?,
            }
            self.ledger.waits.0[period].push(started.elapsed());
            thread::sleep(PAUSE);
        }
        Ok(self.ledger)
    }

    /// Loads a few issues of a tenant: what an application would read before it writes.
    fn know(&mut self, tenant: u32) -> Result<(), StoreError> {
        if self.known.contains_key(&tenant) {
            return Ok(());
        }
        let mut batch = RowBatch::new();
        let mut rows = self.synthetic.rows_of(tenant, Table::Issues.index());
        rows.next_batch(&mut batch)?;
        let known = batch.iter().take(KNOWN_ROWS).map(KnownRow::of).collect();
        self.known.insert(tenant, known);
        Ok(())
    }

    fn owner(&self, tenant: u32) -> Owner {
        Owner::Tenant(self.synthetic.tenant(tenant))
    }

    /// Changes the title of an issue.
    fn edit(&mut self, tenant: u32) -> Result<(), StoreError> {
        let (table, schema) = self.issues();
        let owner = self.owner(tenant);
        let number = self.random.u64(..);
        let place = self.random.usize(..self.known[&tenant].len());
        let before = self.known[&tenant][place].clone();
        let after = before.with(schema, "title", &format!("edited {number:x}"));
        self.store
            .write(|transaction| transaction.table(table)?.put(&owner, after.row()))?;
        self.ledger.remove(tenant, table, before.row());
        self.ledger.add(tenant, table, after.row());
        let rows = self.known.get_mut(&tenant).expect("BUG: not loaded");
        rows[place] = after;
        Ok(())
    }

    /// Files an issue.
    fn create(&mut self, tenant: u32) -> Result<(), StoreError> {
        let (table, schema) = self.issues();
        let owner = self.owner(tenant);
        let new = self.known[&tenant][0].with(schema, "id", &self.next_id.to_string());
        self.next_id += 1;
        self.store
            .write(|transaction| transaction.table(table)?.put(&owner, new.row()))?;
        self.ledger.add(tenant, table, new.row());
        self.created.push((tenant, new));
        Ok(())
    }

    /// Adds a line to a table without a key; the same line may be there already.
    fn log(&mut self, tenant: u32) -> Result<(), StoreError> {
        let table = Table::Activity.index();
        let owner = self.owner(tenant);
        let mut batch = RowBatch::new();
        self.synthetic
            .rows_of(tenant, table)
            .next_batch(&mut batch)?;
        let Some(row) = batch.iter().next() else {
            return Ok(());
        };
        self.store
            .write(|transaction| transaction.table(table)?.put(&owner, row))?;
        self.ledger.add(tenant, table, row);
        Ok(())
    }

    /// Deletes an issue that was filed before.
    fn delete(&mut self) -> Result<(), StoreError> {
        let Some((tenant, old)) = self.created.pop() else {
            return Ok(());
        };
        let (table, _) = self.issues();
        let owner = self.owner(tenant);
        self.store.write(|transaction| {
            transaction
                .table(table)?
                .delete(&owner, old.row())
                .map(drop)
        })?;
        self.ledger.remove(tenant, table, old.row());
        Ok(())
    }

    fn issues(&self) -> (TableIndex, &'w TableSchema) {
        let table = Table::Issues.index();
        (table, self.synthetic.schema().table(table))
    }
}
