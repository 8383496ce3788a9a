//! A connection that is opened when it is needed, and again after it breaks.

use std::path::PathBuf;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::rustls::ServerName;
use tokio_rustls::TlsConnector;

use crate::error::{Error, Result};
use crate::proto::google::rpc::Code;

// A stream's default window of 64 KiB would make a large answer wait for the network's round trips.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Where a server is.
pub(crate) enum Place {
    /// HOST:PORT, with TLS if there is a connector.
    Tcp { address: String, tls: Option<Box<(TlsConnector, ServerName)>> },
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// A server and the connection to it, for any number of concurrent calls.
pub(crate) struct Connection {
    place: Place,
    open: Mutex<Option<SendRequest<Bytes>>>,
}

impl Connection {
    pub(crate) fn new(place: Place) -> Self {
        Self { place, open: Mutex::new(None) }
    }

    /// Returns the URL of the server, without a path.
    pub(crate) fn origin(&self) -> String {
        match &self.place {
            Place::Tcp { address, tls: Some(_) } => format!("https://{address}"),
            Place::Tcp { address, tls: None } => format!("http://{address}"),
            Place::Unix(_) => "http://localhost".into(),
        }
    }

    /// Returns an open connection that is ready for another call.
    pub(crate) async fn ready(&self) -> Result<SendRequest<Bytes>> {
        let mut open = self.open.lock().await;
        if let Some(http) = open.take() {
            if let Ok(ready) = http.ready().await {
                *open = Some(ready.clone());
                return Ok(ready);
            }
        }
        let ready = self.opened().await?.ready().await.map_err(broken)?;
        *open = Some(ready.clone());
        Ok(ready)
    }

    /// Makes the next call open a new connection; calls in progress keep this one.
    pub(crate) fn forget(&self) {
        // If it is locked, another call is opening one already.
        if let Ok(mut open) = self.open.try_lock() {
            *open = None;
        }
    }

    async fn opened(&self) -> Result<SendRequest<Bytes>> {
        match &self.place {
            Place::Tcp { address, tls } => {
                let stream = TcpStream::connect(address).await;
                let stream = stream.map_err(|error| self.unanswered(error))?;
                stream.set_nodelay(true).map_err(|error| self.unanswered(error))?;
                match tls {
                    None => over(stream).await,
                    Some(tls) => {
                        let (connector, host) = &**tls;
                        let stream = connector.connect(host.clone(), stream).await;
                        over(stream.map_err(|error| self.unanswered(error))?).await
                    }
                }
            }
            #[cfg(unix)]
            Place::Unix(path) => {
                let stream = tokio::net::UnixStream::connect(path).await;
                over(stream.map_err(|error| self.unanswered(error))?).await
            }
            #[cfg(not(unix))]
            Place::Unix(_) => Err(Error::InvalidSettings("this system has no unix sockets".into())),
        }
    }

    fn unanswered(&self, error: std::io::Error) -> Error {
        let place = match &self.place {
            Place::Tcp { address, .. } => address.clone(),
            Place::Unix(path) => path.display().to_string(),
        };
        Error::of(Code::Unavailable, format!("no answer from {place}: {error}"))
    }
}

/// Returns the error of a call whose connection broke, which is worth another attempt.
pub(crate) fn broken(error: h2::Error) -> Error {
    Error::of(Code::Unavailable, error.to_string())
}

async fn over<Stream>(stream: Stream) -> Result<SendRequest<Bytes>>
where
    Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (http, connection) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(stream)
        .await
        .map_err(broken)?;
    // Drives the I/O of all calls; each call receives its own errors.
    tokio::spawn(connection);
    Ok(http)
}
