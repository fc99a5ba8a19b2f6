//! The server process that decodes its log for us, and how to talk to it.
//!
//! It answers questions like any other until it is told to stream; from then on only
//! [`next`](Walsender::next), [`report`](Walsender::report) and the end follow.

use std::fmt;
use std::io;
use std::ops::Range;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use postgres_protocol::message::frontend;
use reinstate_core::{ErrorKind, StoreError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

use super::tap::{BoxedStream, connect_plain, connect_tls};
use crate::error::{reported_error, store_error};
use crate::settings::{ConnectionSettings, Protection};
use crate::sql::PINNED_SETTINGS;

/// How much is read at once.
const READ_BYTES: usize = 256 * 1024;
/// The longest message: the server makes none longer than a gigabyte.
const MESSAGE_BYTES_MAX: usize = (1 << 30) + 1024;
/// How long the end of a connection waits for the server to take note.
const GOODBYE_MAX: Duration = Duration::from_millis(500);

/// A walsender. Dropping it ends it.
pub(super) struct Walsender {
    // None once it is closed.
    stream: Option<BoxedStream>,
    runtime: Runtime,
    incoming: BytesMut,
    operation: String,
    is_streaming: bool,
}

/// What a walsender that streams has to say.
#[derive(Debug)]
pub(super) enum Streamed {
    /// A message of the output plugin.
    Message(BytesMut),
    /// Everything up to here was sent.
    Alive {
        /// This position of the log.
        sent: u64,
        /// When that was said, in microseconds since 2000 by the server's clock.
        at: i64,
        /// Whether the server wants to hear from us.
        wants_reply: bool,
    },
}

impl Walsender {
    /// Connects and pins the settings.
    ///
    /// # Errors
    /// As [`Session::connect`](crate::session::Session::connect); `Refused` if the role may not
    /// replicate.
    pub(super) fn connect(
        settings: &ConnectionSettings,
        further: &str,
    ) -> Result<Self, StoreError> {
        let operation = format!("connect to store {} for replication", settings.name);
        let other = |error: io::Error| {
            StoreError::new(ErrorKind::Other, format!("{operation}: no runtime")).because(error)
        };
        let (config, protection) = settings.driver_config()?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(other)?;
        let timeout = settings.connect_timeout;
        let opened = match &protection {
            Protection::Off => runtime
                .block_on(async { tokio::time::timeout(timeout, connect_plain(&config)).await }),
            Protection::Verified { root_certificates } => {
                let tls = crate::tls::connector(root_certificates.as_deref())?;
                runtime.block_on(async {
                    tokio::time::timeout(timeout, async { Ok(connect_tls(&config, tls).await) })
                        .await
                })
            }
        };
        let stream = match opened {
            Ok(Ok(Ok(stream))) => stream,
            Ok(Ok(Err(error))) => return Err(store_error(&operation, &error)),
            Ok(Err(error)) => return Err(lost(&operation, error)),
            Err(_) => {
                let message = format!("{operation}: no answer in {timeout:?}");
                return Err(StoreError::new(ErrorKind::Unavailable, message));
            }
        };
        let mut walsender = Self {
            stream: Some(stream),
            runtime,
            incoming: BytesMut::with_capacity(READ_BYTES),
            operation,
            is_streaming: false,
        };
        let lock_timeout = settings.lock_timeout.as_millis();
        // Whoever does not listen for a minute is cut off: a process that is stuck in sending cannot
        // be ended otherwise, and the server's checkpoints may wait for it.
        let all = format!(
            "{PINNED_SETTINGS}{further}SET lock_timeout = {lock_timeout};
             SET wal_sender_timeout = '60s';"
        );
        walsender.ask("connect to the store for replication", &all)?;
        Ok(walsender)
    }

    /// The rows of what `sql` returns; NULL is an empty text.
    ///
    /// # Errors
    /// As the server reports it.
    pub(super) fn ask(
        &mut self,
        operation: &str,
        sql: &str,
    ) -> Result<Vec<Vec<String>>, StoreError> {
        operation.clone_into(&mut self.operation);
        let mut message = BytesMut::new();
        frontend::query(sql, &mut message).map_err(|error| lost(operation, error))?;
        self.send(&message)?;
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            let (tag, body) = self.receive()?;
            match tag {
                b'D' => rows.push(fields(&body).ok_or_else(|| self.malformed())?),
                b'E' => failure = Some(reported(operation, &body)),
                b'Z' => break,
                _ => {}
            }
        }
        failure.map_or(Ok(rows), Err)
    }

    /// Starts to stream.
    ///
    /// # Errors
    /// As the server reports it.
    pub(super) fn stream(&mut self, operation: &str, command: &str) -> Result<(), StoreError> {
        operation.clone_into(&mut self.operation);
        let mut message = BytesMut::new();
        frontend::query(command, &mut message).map_err(|error| lost(operation, error))?;
        self.send(&message)?;
        loop {
            let (tag, body) = self.receive()?;
            match tag {
                b'W' => {
                    "follow the log".clone_into(&mut self.operation);
                    self.is_streaming = true;
                    return Ok(());
                }
                b'E' => return Err(reported(operation, &body)),
                b'Z' => return Err(self.malformed()),
                _ => {}
            }
        }
    }

    /// The next that a streaming server says, if it came already.
    ///
    /// # Errors
    /// `Unavailable` if the server went away.
    pub(super) fn next_arrived(&mut self) -> Result<Option<Streamed>, StoreError> {
        while let Some((tag, mut body)) = self.take_message()? {
            match tag {
                b'd' => {}
                b'E' => return Err(reported(&self.operation, &body)),
                b'c' => {
                    let message = format!("{}: the server ended the stream", self.operation);
                    return Err(StoreError::new(ErrorKind::Unavailable, message));
                }
                _ => continue,
            }
            match body.first() {
                // Behind the positions of the start and the end, and the time.
                Some(b'w') if body.len() >= 25 => {
                    body.advance(25);
                    return Ok(Some(Streamed::Message(body)));
                }
                Some(b'k') if body.len() == 18 => {
                    body.advance(1);
                    let sent = body.get_u64();
                    let at = body.get_i64();
                    let wants_reply = body.get_u8() == 1;
                    return Ok(Some(Streamed::Alive {
                        sent,
                        at,
                        wants_reply,
                    }));
                }
                _ => return Err(self.malformed()),
            }
        }
        Ok(None)
    }

    /// The next that a streaming server says; waits for it.
    ///
    /// # Errors
    /// As [`next_arrived`](Self::next_arrived).
    pub(super) fn next(&mut self) -> Result<Streamed, StoreError> {
        loop {
            if let Some(streamed) = self.next_arrived()? {
                return Ok(streamed);
            }
            self.fill()?;
        }
    }

    /// Says that everything that the server sent up to `sent` came, and whether an answer is wanted.
    ///
    /// A server that shuts down waits for this. It hears nothing here of what is kept: that, said
    /// once, would be what it waits for instead.
    ///
    /// # Errors
    /// `Unavailable` if the server went away.
    pub(super) fn report(&mut self, sent: u64, wants_answer: bool) -> Result<(), StoreError> {
        self.send(&status(sent, 0, wants_answer))
    }

    /// Says that everything up to `kept` is kept elsewhere.
    ///
    /// # Errors
    /// `Unavailable` if the server went away.
    pub(super) fn acknowledge(&mut self, sent: u64, kept: u64) -> Result<(), StoreError> {
        let mut messages = status(sent, kept, false);
        messages.extend(status(sent, 0, false));
        self.send(&messages)
    }

    /// Says goodbye, and listens until the server did: what it frees is free then.
    pub(super) fn close(&mut self) {
        let Some(mut stream) = self.stream.take() else {
            return;
        };
        let goodbye: &[u8] = match self.is_streaming {
            true => b"c\0\0\0\x04X\0\0\0\x04",
            false => b"X\0\0\0\x04",
        };
        let mut rest = vec![0; READ_BYTES];
        self.runtime.block_on(async {
            let _ = tokio::time::timeout(GOODBYE_MAX, async {
                stream.write_all(goodbye).await?;
                stream.flush().await?;
                while stream.read(&mut rest).await? > 0 {}
                io::Result::Ok(())
            })
            .await;
        });
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let Some(stream) = self.stream.as_mut() else {
            return Err(lost(&self.operation, io::ErrorKind::NotConnected.into()));
        };
        let sent = self.runtime.block_on(async {
            stream.write_all(bytes).await?;
            stream.flush().await
        });
        sent.map_err(|error| lost(&self.operation, error))
    }

    fn fill(&mut self) -> Result<(), StoreError> {
        let Some(stream) = self.stream.as_mut() else {
            return Err(lost(&self.operation, io::ErrorKind::NotConnected.into()));
        };
        self.incoming.reserve(READ_BYTES);
        let incoming = &mut self.incoming;
        let read = self
            .runtime
            .block_on(async { stream.read_buf(incoming).await });
        match read.map_err(|error| lost(&self.operation, error))? {
            0 => Err(lost(&self.operation, io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }

    fn receive(&mut self) -> Result<(u8, BytesMut), StoreError> {
        loop {
            if let Some(message) = self.take_message()? {
                return Ok(message);
            }
            self.fill()?;
        }
    }

    /// The tag and body of the next message, if it is here whole.
    fn take_message(&mut self) -> Result<Option<(u8, BytesMut)>, StoreError> {
        let Some((&[tag, a, b, c, d], _)) = self.incoming.split_first_chunk::<5>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if !(4..=MESSAGE_BYTES_MAX).contains(&length) {
            return Err(self.malformed());
        }
        if self.incoming.len() <= length {
            // At once for a long one, and not piece by piece.
            self.incoming.reserve(length + 1 - self.incoming.len());
            return Ok(None);
        }
        let mut message = self.incoming.split_to(length + 1);
        message.advance(5);
        Ok(Some((tag, message)))
    }

    fn malformed(&self) -> StoreError {
        let message = format!("{}: the server's answer makes no sense", self.operation);
        StoreError::new(ErrorKind::Other, message)
    }
}

impl fmt::Debug for Walsender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Walsender").finish_non_exhaustive()
    }
}

impl Drop for Walsender {
    fn drop(&mut self) {
        self.close();
    }
}

/// A standby's status: what came, and what is kept; zero says nothing.
fn status(sent: u64, kept: u64, wants_answer: bool) -> Vec<u8> {
    let mut message = vec![b'd'];
    let body_bytes: u32 = 1 + 3 * 8 + 8 + 1;
    message.extend_from_slice(&(body_bytes + 4).to_be_bytes());
    message.push(b'r');
    for place in [sent, kept, kept] {
        message.extend_from_slice(&place.to_be_bytes());
    }
    // Our clock, of which the server makes nothing but a statistic.
    message.extend_from_slice(&0_u64.to_be_bytes());
    message.push(u8::from(wants_answer));
    message
}

fn lost(operation: &str, error: io::Error) -> StoreError {
    let message = format!("{operation}: the connection is lost: {error}");
    StoreError::new(ErrorKind::Unavailable, message).because(error)
}

/// The error in a message of the server.
fn reported(operation: &str, body: &[u8]) -> StoreError {
    let (mut code, mut text) = (String::new(), String::new());
    for field in body.split(|&byte| byte == 0) {
        let Some((kind, value)) = field.split_first() else {
            continue;
        };
        match kind {
            b'C' => code = String::from_utf8_lossy(value).into_owned(),
            b'M' => text = String::from_utf8_lossy(value).into_owned(),
            _ => {}
        }
    }
    reported_error(operation, &code, &text)
}

/// The fields of a row; NULL is an empty text.
fn fields(body: &[u8]) -> Option<Vec<String>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut fields = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        let range: Range<usize> = 0..length;
        fields.push(String::from_utf8_lossy(after.get(range)?).into_owned());
        rest = &after[length..];
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_taken_apart_and_a_short_one_refused() {
        let row = b"\0\x02\0\0\0\x01a\xff\xff\xff\xff";
        assert_eq!(fields(row).unwrap(), ["a", ""]);
        for end in 0..row.len() {
            assert!(fields(&row[..end]).is_none(), "{end}");
        }
    }

    #[test]
    fn an_error_keeps_its_code_and_its_text() {
        let error = reported("try", b"SERROR\0C55P03\0Mtoo late\0\0");
        assert_eq!(error.kind(), ErrorKind::Contended);
        assert!(error.to_string().starts_with("try: too late"), "{error}");
    }
}
