//! Other tenants' writers: how long each of their transactions takes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reinstate_core::{Owner, RowBatch, TableIndex, Tenant};

use crate::Site;

/// How long the writers' transactions took.
#[derive(Clone, Debug, Default)]
pub struct Waits {
    sorted: Vec<Duration>,
}

impl Waits {
    /// These times.
    #[must_use]
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self { sorted: times }
    }

    /// Adds those of another round.
    pub fn extend(&mut self, other: Self) {
        self.sorted.extend(other.sorted);
        self.sorted.sort();
    }

    /// How many transactions there were.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The time that this part of the transactions did not exceed, in milliseconds.
    #[must_use]
    pub fn quantile_ms(&self, part: f64) -> f64 {
        let last = self.sorted.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index among a few thousand"
        )]
        let index = (last as f64 * part).round() as usize;
        self.sorted
            .get(index)
            .map_or(f64::NAN, |wait| wait.as_secs_f64() * 1e3)
    }
}

impl std::fmt::Display for Waits {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "p50 {:.1}, p99 {:.1}, max {:.1} ms of {}",
            self.quantile_ms(0.5),
            self.quantile_ms(0.99),
            self.quantile_ms(1.0),
            self.count()
        )
    }
}

/// Writers that put a row now and then, each of a tenant of its own.
#[derive(Debug)]
pub struct Writers {
    tenants: Vec<Tenant>,
    pause: Duration,
}

impl Writers {
    /// One writer for each of these tenants, which pauses between two transactions.
    #[must_use]
    pub fn new(tenants: Vec<Tenant>, pause: Duration) -> Self {
        Self { tenants, pause }
    }

    /// Lets the writers write while `work` goes on.
    ///
    /// # Errors
    /// What `work` or a writer returns.
    pub fn during<T>(&self, site: &Site, work: impl FnOnce() -> Result<T>) -> Result<(T, Waits)> {
        let stop = AtomicBool::new(false);
        let failed = AtomicU64::new(0);
        let waits = Mutex::new(Vec::new());
        let result = thread::scope(|scope| {
            for tenant in &self.tenants {
                let (stop, failed, waits) = (&stop, &failed, &waits);
                scope.spawn(move || {
                    let row = first_row(site, tenant);
                    while !stop.load(Ordering::Relaxed) {
                        thread::sleep(self.pause);
                        let start = Instant::now();
                        if put(site, tenant, &row).is_err() {
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                        let wait = start.elapsed();
                        waits
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(wait);
                    }
                });
            }
            let result = work();
            stop.store(true, Ordering::Relaxed);
            result
        })?;
        ensure!(failed.load(Ordering::Relaxed) == 0, "writers met errors");
        let waits = waits.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((result, Waits::of(waits)))
    }
}

const TABLE: TableIndex = TableIndex(0);

fn first_row(site: &Site, tenant: &Tenant) -> RowBatch {
    let mut first = RowBatch::new();
    let owner = Owner::Tenant(tenant.id.clone());
    let read = site.store.read().and_then(|transaction| {
        transaction.rows(&owner, TABLE, |batch| {
            if let Some(row) = batch.iter().next().filter(|_| first.is_empty()) {
                first.push_row(row);
            }
            Ok(())
        })
    });
    read.expect("BUG: a tenant of the site cannot be read");
    first
}

fn put(site: &Site, tenant: &Tenant, row: &RowBatch) -> Result<()> {
    let owner = Owner::Tenant(tenant.id.clone());
    site.store.write(|transaction| {
        let mut table = transaction.table(TABLE)?;
        row.iter().try_for_each(|row| table.put(&owner, row))
    })?;
    Ok(())
}
