//! Other tenants' writers on PostgreSQL, each on a connection of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use reinstate_core::Tenant;

use super::{PostgresSite, RawClient};
use crate::Waits;

/// Writers that update a row and insert one now and then, each of a tenant of its own.
#[derive(Debug)]
pub struct PostgresWriters {
    writers: Vec<Writer>,
    pause: Duration,
}

#[derive(Debug)]
struct Writer {
    client: RawClient,
    /// What it does: one transaction, one round trip.
    transaction: String,
}

impl PostgresWriters {
    /// Connects one writer for each of these tenants, which pauses between two transactions.
    ///
    /// # Errors
    /// As the server reports it; or if a tenant has no issue.
    pub fn connect(site: &PostgresSite, tenants: &[Tenant], pause: Duration) -> Result<Self> {
        let connect = |tenant: &Tenant| -> Result<Writer> {
            let client = site.client()?;
            let account = &tenant.id;
            let issue = client.value(&format!(
                "SELECT min(id) FROM issues WHERE account_id = {account}"
            ))?;
            let member = client.value(&format!(
                "SELECT min(id) FROM members WHERE account_id = {account}"
            ))?;
            let transaction = format!(
                "BEGIN;
                 UPDATE issues SET updated_at = now() WHERE id = {issue} AND account_id = {account};
                 INSERT INTO comments (issue_id, author_id, created_at, body)
                      VALUES ({issue}, {member}, now(), repeat('written meanwhile ', 10));
                 COMMIT"
            );
            Ok(Writer {
                client,
                transaction,
            })
        };
        Ok(Self {
            writers: tenants.iter().map(connect).collect::<Result<_>>()?,
            pause,
        })
    }

    /// Lets the writers write while `work` goes on.
    ///
    /// # Errors
    /// What `work` or a writer returns.
    pub fn during<T>(&mut self, work: impl FnOnce() -> Result<T>) -> Result<(T, Waits)> {
        let (stop, pause) = (AtomicBool::new(false), self.pause);
        thread::scope(|scope| {
            let threads: Vec<_> = self
                .writers
                .iter_mut()
                .map(|writer| scope.spawn(|| writer.write(pause, &stop)))
                .collect();
            let result = work();
            stop.store(true, Ordering::Relaxed);
            let mut waits = Vec::new();
            for thread in threads {
                waits.extend(thread.join().map_err(|_| anyhow!("a writer died"))??);
            }
            Ok((result?, Waits::of(waits)))
        })
    }
}

impl Writer {
    fn write(&mut self, pause: Duration, stop: &AtomicBool) -> Result<Vec<Duration>> {
        let mut waits = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(pause);
            let start = Instant::now();
            self.client.run(&self.transaction)?;
            waits.push(start.elapsed());
        }
        Ok(waits)
    }
}
