//! The plainest client: COPY both ways, nothing else.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures_util::{SinkExt as _, TryStreamExt as _};
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// A connection that is driven by the thread that uses it.
#[derive(Debug)]
pub struct RawClient {
    client: Client,
    runtime: Runtime,
}

impl RawClient {
    /// Connects, with the server's own settings.
    ///
    /// # Errors
    /// As the server reports it.
    pub fn connect(url: &str) -> Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start a runtime")?;
        let (client, connection) = runtime
            .block_on(tokio_postgres::connect(url, NoTls))
            .context("connect")?;
        runtime.spawn(async move {
            let _ = connection.await;
        });
        Ok(Self { client, runtime })
    }

    /// Runs statements in one round trip.
    ///
    /// # Errors
    /// At the first statement that fails.
    pub fn run(&self, sql: &str) -> Result<()> {
        self.runtime
            .block_on(self.client.batch_execute(sql))
            .with_context(|| format!("run {sql}"))
    }

    /// The first value of the first row.
    ///
    /// # Errors
    /// As the server reports it; or if there is no row.
    pub fn value(&self, sql: &str) -> Result<String> {
        let messages = self
            .runtime
            .block_on(self.client.simple_query(sql))
            .with_context(|| format!("run {sql}"))?;
        for message in messages {
            if let SimpleQueryMessage::Row(row) = message {
                return Ok(row.get(0).unwrap_or_default().to_owned());
            }
        }
        bail!("{sql}: no rows")
    }

    /// Copies text that is ready, message by message. Returns how many rows the server took.
    ///
    /// # Errors
    /// As the server reports it.
    pub fn copy_in(&self, sql: &str, messages: &[Bytes]) -> Result<u64> {
        let copied: Result<u64, tokio_postgres::Error> = self.runtime.block_on(async {
            let sink = self.client.copy_in::<_, Bytes>(sql).await?;
            let mut sink = Box::pin(sink);
            for message in messages {
                sink.send(message.clone()).await?;
                tokio::task::yield_now().await;
            }
            sink.as_mut().finish().await
        });
        copied.with_context(|| format!("run {sql}"))
    }

    /// Reads what a COPY TO STDOUT sends and throws it away. Returns how many bytes it was.
    ///
    /// # Errors
    /// As the server reports it.
    pub fn copy_out(&self, sql: &str) -> Result<u64> {
        let read: Result<u64, tokio_postgres::Error> = self.runtime.block_on(async {
            let mut stream = Box::pin(self.client.copy_out(sql).await?);
            let mut byte_count = 0;
            while let Some(line) = stream.try_next().await? {
                byte_count += line.len() as u64;
            }
            Ok(byte_count)
        });
        read.with_context(|| format!("run {sql}"))
    }
}

/// Copies whole tables out, each on the first connection that is free, all from the snapshot
/// that the first one exports. Returns how many bytes they were.
///
/// # Errors
/// As the server reports it.
pub fn copy_tables_out(clients: &mut [RawClient], tables: &[&str]) -> Result<u64> {
    const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    let Some((first, others)) = clients.split_first() else {
        bail!("no connection to copy on");
    };
    first.run(BEGIN)?;
    let snapshot = first.value("SELECT pg_export_snapshot()")?;
    for client in others {
        client.run(&format!("{BEGIN}; SET TRANSACTION SNAPSHOT '{snapshot}'"))?;
    }
    let next = AtomicUsize::new(0);
    let copy = |client: &mut RawClient| -> Result<u64> {
        let mut byte_count = 0;
        while let Some(table) = tables.get(next.fetch_add(1, Ordering::Relaxed)) {
            byte_count += client.copy_out(&format!("COPY {table} TO STDOUT"))?;
        }
        client.run("COMMIT")?;
        Ok(byte_count)
    };
    std::thread::scope(|scope| {
        let lanes: Vec<_> = clients
            .iter_mut()
            .map(|client| scope.spawn(|| copy(client)))
            .collect();
        lanes
            .into_iter()
            .map(|lane| {
                lane.join()
                    .map_err(|_| anyhow::anyhow!("a thread died"))
                    .flatten()
            })
            .sum()
    })
}
