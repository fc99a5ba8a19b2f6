//! A connection of the kind that replicates, opened by the driver and then taken from it.
//!
//! The driver resolves hosts, protects the connection and proves who we are, but cannot ask for
//! replication. So its first message, the one that says who connects, is completed on its way out;
//! and once the server is ready for a question, the connection is the caller's and the driver's no
//! more.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::config::Host;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{Config, Error, NoTls, Socket};

/// What makes a connection one that replicates from its database.
const REPLICATION: &[u8] = b"replication\0database\0";
/// The port of a server that names none.
const PORT: u16 = 5432;

/// Bytes in both directions.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// An open connection.
pub(super) type BoxedStream = Box<dyn Stream>;

/// Connects without TLS, to the first host that answers.
///
/// # Errors
/// The inner error is the driver's, the outer one that of a socket.
pub(super) async fn connect_plain(config: &Config) -> io::Result<Result<BoxedStream, Error>> {
    let socket = connect_socket(config).await?;
    let taken = Taken::default();
    let tap = Tap::new(socket, ChannelBinding::none(), taken.clone());
    // Neither says goodbye when it is dropped: the server hears nothing of it.
    let connected = config.connect_raw(tap, NoTls).await;
    Ok(connected.map(|_driver| taken.take()))
}

/// Connects with TLS.
pub(super) async fn connect_tls<T>(config: &Config, tls: T) -> Result<BoxedStream, Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send + 'static,
{
    let taken = Taken::default();
    let tapped = Tapped {
        tls,
        taken: taken.clone(),
    };
    let connected = config.connect(tapped).await;
    connected.map(|_driver| taken.take())
}

async fn connect_socket(config: &Config) -> io::Result<BoxedStream> {
    let (hosts, addresses) = (config.get_hosts(), config.get_hostaddrs());
    let mut failure = None;
    for place in 0..hosts.len().max(addresses.len()) {
        let ports = config.get_ports();
        let port = ports.get(place).or_else(|| ports.first());
        let port = port.copied().unwrap_or(PORT);
        let connected: io::Result<BoxedStream> = match (addresses.get(place), hosts.get(place)) {
            (Some(&address), _) => tcp(TcpStream::connect((address, port)).await),
            (None, Some(Host::Tcp(name))) => tcp(TcpStream::connect((name.as_str(), port)).await),
            (None, Some(Host::Unix(directory))) => {
                let path = directory.join(format!(".s.PGSQL.{port}"));
                UnixStream::connect(path)
                    .await
                    .map(|stream| Box::new(stream) as BoxedStream)
            }
            (None, None) => continue,
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| io::Error::other("no host is named")))
}

fn tcp(connected: io::Result<TcpStream>) -> io::Result<BoxedStream> {
    let stream = connected?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

/// Where a connection is left for whoever wanted it.
#[derive(Clone, Default)]
struct Taken(Arc<Mutex<Option<BoxedStream>>>);

impl Taken {
    fn take(&self) -> BoxedStream {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stream
            .take()
            .expect("BUG: the driver connected without a connection")
    }

    fn with<T>(
        &self,
        use_it: impl FnOnce(Pin<&mut BoxedStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match stream.as_mut() {
            Some(stream) => use_it(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

/// A connection as the driver sees it.
struct Tap {
    taken: Taken,
    binding: Mutex<Option<ChannelBinding>>,
    /// What has yet to go out of the first message; none: it did not come yet.
    first: Option<Vec<u8>>,
}

impl Tap {
    fn new(stream: BoxedStream, binding: ChannelBinding, taken: Taken) -> Self {
        *taken.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        Self {
            taken,
            binding: Mutex::new(Some(binding)),
            first: None,
        }
    }

    fn poll_first(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(first) = &mut self.first else {
            return Poll::Ready(Ok(()));
        };
        while !first.is_empty() {
            let sent = ready!(self.taken.with(|stream| stream.poll_write(context, first)))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            first.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }
}

/// The message that starts a connection, completed.
fn complete(message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(message.len()).unwrap_or(0);
    let Some(body) = message
        .strip_prefix(&length.to_be_bytes())
        .and_then(|body| body.strip_suffix(&[0]))
    else {
        return Err(io::Error::other("the driver starts in an unknown way"));
    };
    let length = message.len() + REPLICATION.len();
    let mut completed = u32::try_from(length)
        .map_err(io::Error::other)?
        .to_be_bytes()
        .to_vec();
    completed.extend_from_slice(body);
    completed.extend_from_slice(REPLICATION);
    completed.push(0);
    Ok(completed)
}

impl AsyncRead for Tap {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.taken.with(|stream| stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.first.is_none() {
            self.first = Some(complete(bytes)?);
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_first(context))?;
        self.taken.with(|stream| stream.poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_first(context))?;
        self.taken.with(|stream| stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_first(context))?;
        self.taken.with(|stream| stream.poll_shutdown(context))
    }
}

impl TlsStream for Tap {
    fn channel_binding(&self) -> ChannelBinding {
        let mut binding = self.binding.lock().unwrap_or_else(PoisonError::into_inner);
        binding.take().unwrap_or_else(ChannelBinding::none)
    }
}

/// TLS whose connections are tapped.
struct Tapped<T> {
    tls: T,
    taken: Taken,
}

impl<T> MakeTlsConnect<Socket> for Tapped<T>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send + 'static,
{
    type Stream = Tap;
    type TlsConnect = Tapped<T::TlsConnect>;
    type Error = T::Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Self::TlsConnect, T::Error> {
        let tls = self.tls.make_tls_connect(domain)?;
        let taken = self.taken.clone();
        Ok(Tapped { tls, taken })
    }
}

impl<T> TlsConnect<Socket> for Tapped<T>
where
    T: TlsConnect<Socket>,
    T::Stream: Send + 'static,
    T::Future: Send + 'static,
{
    type Stream = Tap;
    type Error = T::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Tap, T::Error>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        let (connecting, taken) = (self.tls.connect(stream), self.taken);
        Box::pin(async move {
            let stream = connecting.await?;
            let binding = stream.channel_binding();
            Ok(Tap::new(Box::new(stream), binding, taken))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_message_asks_for_replication_as_well() {
        let message = b"\0\0\0\x11\0\x03\0\0user\0me\0\0";
        let completed = complete(message).unwrap();
        let expected = b"\0\0\0\x26\0\x03\0\0user\0me\0replication\0database\0\0";
        assert_eq!(completed, expected);
        assert!(complete(b"\0\0\0\x12\0\x03\0\0user\0me\0\0").is_err());
        assert!(complete(b"").is_err());
    }
}
