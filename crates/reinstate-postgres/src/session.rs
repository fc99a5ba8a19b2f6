//! One connection: the only module where anything is asynchronous.
//!
//! The driver wants a runtime. Each session has its own, on the caller's thread: it runs only
//! while the session waits, so that no thread but the caller's ever touches the socket.
//!
//! **Invariant:** `block_on` is called by [`Session::wait`] alone, which must not be reached from
//! within another runtime: the functions of this crate are for plain threads.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::{SinkExt, TryStreamExt};
use reinstate_core::{ErrorKind, StoreError};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{
    Client, Config, CopyOutStream, Error, NoTls, Row, SimpleQueryMessage, Socket,
};

use crate::error::{is_without_answer, store_error};
use crate::settings::{ConnectionSettings, Protection};
use crate::sql::{PINNED_SETTINGS, TENANT_SETTINGS};

/// The longest message of a COPY to the server.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// How long a session that ends waits for the server to take note.
const GOODBYE_MAX: Duration = Duration::from_millis(500);
/// How long a transaction that is given up may take to roll back.
const ROLLBACK_MAX: Duration = Duration::from_secs(5);

/// Values of a query, each with its type.
pub(crate) type Parameters<'v> = Vec<(&'v (dyn ToSql + Sync), Type)>;

/// A connection with pinned settings.
#[derive(Debug)]
pub(crate) struct Session {
    // None only while the session is being dropped.
    client: Option<Client>,
    connection: Option<JoinHandle<()>>,
    runtime: Runtime,
    /// Whether the server may be in a transaction.
    in_transaction: AtomicBool,
    /// Whether somebody stopped listening in the middle of an answer.
    is_cut_off: AtomicBool,
}

/// What became of a commit.
pub(crate) enum CommitOutcome {
    /// It is durable.
    Committed,
    /// It was refused; nothing changed.
    Refused(StoreError),
    /// No answer came.
    Unknown(StoreError),
}

impl Session {
    /// Connects and pins the settings.
    ///
    /// # Errors
    /// `Unavailable` if the server does not answer; `Usage` if the URL is malformed; `Refused` if
    /// the server does not let the role in.
    pub(crate) fn connect(settings: &ConnectionSettings) -> Result<Self, StoreError> {
        Self::connect_with(settings, "")
    }

    /// Connects to look at one tenant: with [`TENANT_SETTINGS`] besides the pinned ones.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub(crate) fn connect_for_tenant(settings: &ConnectionSettings) -> Result<Self, StoreError> {
        Self::connect_with(settings, TENANT_SETTINGS)
    }

    fn connect_with(settings: &ConnectionSettings, further: &str) -> Result<Self, StoreError> {
        let operation = format!("connect to store {}", settings.name);
        let (config, protection) = settings.driver_config()?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| {
                StoreError::new(ErrorKind::Other, format!("{operation}: no runtime")).because(error)
            })?;
        let opened = match &protection {
            Protection::Off => runtime.block_on(open(&config, NoTls, settings.connect_timeout)),
            Protection::Verified { root_certificates } => {
                let tls = crate::tls::connector(root_certificates.as_deref())?;
                runtime.block_on(open(&config, tls, settings.connect_timeout))
            }
        };
        let no_answer = || {
            let message = format!("{operation}: no answer in {:?}", settings.connect_timeout);
            StoreError::new(ErrorKind::Unavailable, message)
        };
        let (client, connection) = opened.map_err(|error| match error {
            Some(error) => store_error(&operation, &error),
            None => no_answer(),
        })?;
        let session = Self {
            client: Some(client),
            connection: Some(connection),
            runtime,
            in_transaction: AtomicBool::new(false),
            is_cut_off: AtomicBool::new(false),
        };
        let lock_timeout = settings.lock_timeout.as_millis();
        let all = format!("{PINNED_SETTINGS}{further}SET lock_timeout = {lock_timeout};");
        // Where a pooler stands between, it may have taken the connection and have no session for it.
        let settle = session.client().batch_execute(&all);
        let settled = session
            .wait(async { tokio::time::timeout(settings.connect_timeout, settle).await })
            .map_err(|_| no_answer())?;
        settled.map_err(|error| store_error(&operation, &error))?;
        Ok(session)
    }

    fn client(&self) -> &Client {
        self.client
            .as_ref()
            .expect("BUG: a session without a client")
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Begins a transaction.
    pub(crate) fn begin(&self, operation: &str, sql: &str) -> Result<(), StoreError> {
        self.in_transaction.store(true, Ordering::Relaxed);
        self.run(operation, sql)
    }

    /// Runs statements that return nothing.
    pub(crate) fn run(&self, operation: &str, sql: &str) -> Result<(), StoreError> {
        self.wait(self.client().batch_execute(sql))
            .map_err(|error| store_error(operation, &error))
    }

    /// The rows of a query.
    pub(crate) fn rows(
        &self,
        operation: &str,
        sql: &str,
        values: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, StoreError> {
        self.wait(self.client().query_typed(sql, values))
            .map_err(|error| store_error(operation, &error))
    }

    /// The rows of several queries, in their order. They are sent together: the server goes on from one to the
    /// next by itself. All answers are held.
    pub(crate) fn rows_of_each(
        &self,
        operation: &str,
        questions: &[(&str, Parameters<'_>)],
    ) -> Result<Vec<Vec<Row>>, StoreError> {
        let asked = questions
            .iter()
            .map(|(sql, values)| self.client().query_typed(sql, values));
        self.wait(try_join_all(asked))
            .map_err(|error| store_error(operation, &error))
    }

    /// The only row of a query that has exactly one.
    pub(crate) fn row(
        &self,
        operation: &str,
        sql: &str,
        values: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Row, StoreError> {
        let mut rows = self.rows(operation, sql, values)?;
        match rows.len() {
            1 => Ok(rows.remove(0)),
            count => Err(StoreError::new(
                ErrorKind::Other,
                format!("{operation}: {count} rows instead of one"),
            )),
        }
    }

    /// What statements answer, as text: columns are separated by tabs, rows by line ends. No more of it
    /// is held than is asked for.
    ///
    /// # Errors
    /// `Refused` if it is longer than `bytes_max`.
    pub(crate) fn answer(
        &self,
        operation: &str,
        sql: &str,
        bytes_max: usize,
    ) -> Result<String, StoreError> {
        let failed = |error: Error| store_error(operation, &error);
        self.wait(async {
            let messages = self.client().simple_query_raw(sql).await.map_err(failed)?;
            let mut messages = pin!(messages);
            let mut lines = Vec::new();
            let mut length = 0;
            while let Some(message) = messages.try_next().await.map_err(failed)? {
                let SimpleQueryMessage::Row(row) = message else {
                    continue;
                };
                let columns = (0..row.len()).map(|column| row.get(column).unwrap_or_default());
                let line = columns.collect::<Vec<_>>().join("\t");
                length += line.len() + 1;
                if length > bytes_max {
                    self.is_cut_off.store(true, Ordering::Relaxed);
                    let message =
                        format!("{operation}: the answer is longer than {bytes_max} bytes");
                    return Err(StoreError::new(ErrorKind::Refused, message));
                }
                lines.push(line);
            }
            Ok(lines.join("\n"))
        })
    }

    /// How many rows a statement changed.
    pub(crate) fn execute(
        &self,
        operation: &str,
        sql: &str,
        values: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<u64, StoreError> {
        self.wait(self.client().execute_typed(sql, values))
            .map_err(|error| store_error(operation, &error))
    }

    /// Starts a COPY TO STDOUT.
    pub(crate) fn copy_out(
        &self,
        operation: impl Into<String>,
        sql: &str,
    ) -> Result<CopyOut<'_>, StoreError> {
        let operation = operation.into();
        match self.wait(self.client().copy_out(sql)) {
            Ok(stream) => Ok(CopyOut {
                session: self,
                stream: Box::pin(stream),
                operation,
                is_read: false,
            }),
            Err(error) => Err(store_error(&operation, &error)),
        }
    }

    /// Runs a COPY FROM STDIN with what `fill` appends to an empty buffer, until it returns
    /// false. Returns how many rows the server took.
    pub(crate) fn copy_in(
        &self,
        operation: &str,
        sql: &str,
        mut fill: impl FnMut(&mut Vec<u8>) -> Result<bool, StoreError>,
    ) -> Result<u64, StoreError> {
        let failed = |error: Error| store_error(operation, &error);
        let sink = self
            .wait(self.client().copy_in::<_, Bytes>(sql))
            .map_err(failed)?;
        let mut sink = Box::pin(sink);
        let mut size = 0;
        loop {
            let mut buffer = Vec::with_capacity(size);
            // Leaving here drops the sink, which ends the COPY as failed.
            if !fill(&mut buffer)? {
                break;
            }
            size = size.max(buffer.len()).min(MESSAGE_BYTES_MAX);
            let mut bytes = Bytes::from(buffer);
            let sent = self.wait(async {
                // A message is copied on its way; a row may be spread over several.
                while !bytes.is_empty() {
                    let part = bytes.split_to(bytes.len().min(MESSAGE_BYTES_MAX));
                    sink.send(part).await?;
                    // Until the connection has its turn, the bytes are in a queue; the server is to
                    // work on them while the next ones are made.
                    tokio::task::yield_now().await;
                }
                Ok(())
            });
            // What the server has against the rows says more than that it hung up.
            if let Err(error) = sent {
                return Err(failed(error));
            }
        }
        self.wait(sink.as_mut().finish()).map_err(failed)
    }

    /// Commits, and tells a refusal from silence.
    pub(crate) fn commit(&self, operation: &str) -> CommitOutcome {
        match self.wait(self.client().batch_execute("COMMIT")) {
            Ok(()) => CommitOutcome::Committed,
            Err(error) if is_without_answer(&error) => {
                CommitOutcome::Unknown(store_error(operation, &error))
            }
            Err(error) => CommitOutcome::Refused(store_error(operation, &error)),
        }
    }

    /// Gives up the transaction, and waits until its locks are free again. A session that cannot
    /// do that has lost its connection, and the server rolls back by itself.
    pub(crate) fn roll_back(&self) {
        self.ends_in_time(ROLLBACK_MAX, "ROLLBACK");
        self.in_transaction.store(false, Ordering::Relaxed);
    }

    /// Ends the transaction, if there is one. Whether somebody else may use the session then.
    pub(crate) fn is_reusable(&self) -> bool {
        !self.is_cut_off.load(Ordering::Relaxed)
            && (!self.in_transaction.swap(false, Ordering::Relaxed)
                || self.ends_in_time(ROLLBACK_MAX, "ROLLBACK"))
    }

    /// Whether the server is still there.
    pub(crate) fn answers(&self, timeout: Duration) -> bool {
        self.ends_in_time(timeout, "")
    }

    fn ends_in_time(&self, timeout: Duration, sql: &str) -> bool {
        let statement = self.client().batch_execute(sql);
        let ended = self.wait(async { tokio::time::timeout(timeout, statement).await });
        matches!(ended, Ok(Ok(())))
    }
}

impl Session {
    /// Frees the locks that outlive transactions. What cannot be freed here is freed when the
    /// server notices that the connection is gone.
    pub(crate) fn unlock(&self) {
        self.free("SELECT pg_advisory_unlock_all()");
    }

    /// Frees some of them, by this statement.
    pub(crate) fn free(&self, sql: &str) {
        self.ends_in_time(ROLLBACK_MAX, sql);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.client.take());
        if let Some(connection) = self.connection.take() {
            // The connection says goodbye once its client is gone.
            let _ = self
                .runtime
                .block_on(async { tokio::time::timeout(GOODBYE_MAX, connection).await });
        }
    }
}

/// Connects; `None` for an error is a time-out.
async fn open<T>(
    config: &Config,
    tls: T,
    timeout: Duration,
) -> Result<(Client, JoinHandle<()>), Option<Error>>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let connected = tokio::time::timeout(timeout, config.connect(tls)).await;
    let (client, connection) = connected.map_err(|_| None)?.map_err(Some)?;
    // An error of the connection reaches whoever uses the client next.
    let connection = tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok((client, connection))
}

/// The lines of a COPY TO STDOUT.
pub(crate) struct CopyOut<'s> {
    session: &'s Session,
    stream: Pin<Box<CopyOutStream>>,
    operation: String,
    is_read: bool,
}

impl CopyOut<'_> {
    /// Hands lines to `take`, each with its line end, until it returns false or there are no
    /// more. Returns whether there may be more.
    pub(crate) fn pull(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        let (stream, operation) = (&mut self.stream, &self.operation);
        let is_read = &mut self.is_read;
        self.session.wait(async {
            loop {
                let line = stream.try_next().await;
                match line.map_err(|error| store_error(operation, &error))? {
                    None => {
                        *is_read = true;
                        return Ok(false);
                    }
                    Some(line) => {
                        if !take(&line)? {
                            return Ok(true);
                        }
                    }
                }
            }
        })
    }
}

impl Drop for CopyOut<'_> {
    fn drop(&mut self) {
        if !self.is_read {
            self.session.is_cut_off.store(true, Ordering::Relaxed);
        }
    }
}
