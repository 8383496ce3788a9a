//! A minimal gRPC client over HTTP/2, for unary calls and streamed responses.
//!
//! Most programs use the crate tonic for this. Debian does not package it, but has h2 and prost,
//! so that this client builds from Debian's packages alone. This module is the layer between them.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::RecvStream;
use http::{HeaderMap, Request};
use percent_encoding::percent_decode;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout_at, Instant};
use tokio_rustls::rustls::{Certificate, ClientConfig, RootCertStore, ServerName};
use tokio_rustls::TlsConnector;

use crate::google::rpc;
pub use crate::google::rpc::Code;

/// The largest accepted response; the default of gRPC's own libraries is 4 MiB.
const ANSWER_BYTES_MAX: usize = 96 << 20;

/// The attempts of a call that fails as UNAVAILABLE or is cut off, and the pause before the second
/// one. Each further pause is twice as long.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(100);

/// A server and the connection to it, for any number of concurrent calls.
///
/// The first call opens the connection. If it breaks, the next call opens a new one.
pub struct Channel {
    address: String,
    tls: Option<(TlsConnector, ServerName)>,
    connection: Mutex<Option<SendRequest<Bytes>>>,
}

impl Channel {
    /// Returns a channel to HOST:PORT without TLS.
    pub fn plaintext(address: &str) -> Self {
        Self { address: address.to_owned(), tls: None, connection: Mutex::new(None) }
    }

    /// Returns a channel to HOST:PORT with TLS, which verifies the certificate of HOST.
    pub fn tls(address: &str, authorities_pem: &[u8]) -> Result<Self, Box<dyn Error>> {
        let mut roots = RootCertStore::empty();
        for certificate in rustls_pemfile::certs(&mut &*authorities_pem)? {
            roots.add(&Certificate(certificate))?;
        }
        let mut config = ClientConfig::builder()
            .with_safe_defaults()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let tls = (TlsConnector::from(Arc::new(config)), ServerName::try_from(host)?);
        Ok(Self { tls: Some(tls), ..Self::plaintext(address) })
    }

    /// Returns an open connection that is ready for another call.
    async fn connected(&self) -> Result<SendRequest<Bytes>, Status> {
        let mut connection = self.connection.lock().await;
        if let Some(open) = connection.take() {
            if let Ok(ready) = open.ready().await {
                *connection = Some(ready.clone());
                return Ok(ready);
            }
        }
        let stream = TcpStream::connect(&self.address).await?;
        let http = match &self.tls {
            Some((connector, host)) => {
                Self::over(connector.connect(host.clone(), stream).await?).await?
            }
            None => Self::over(stream).await?,
        };
        let ready = http.ready().await?;
        *connection = Some(ready.clone());
        Ok(ready)
    }

    async fn over<Stream>(stream: Stream) -> Result<SendRequest<Bytes>, Status>
    where
        Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (http, connection) = h2::client::handshake(stream).await?;
        // Drives the I/O of all calls; each call receives its own errors.
        tokio::spawn(connection);
        Ok(http)
    }

    /// Makes a unary call; retries it if it fails as UNAVAILABLE or is cut off.
    ///
    /// All methods are read-only, so retries are safe. The deadline covers all attempts.
    pub async fn unary<Answer: Message + Default>(
        &self,
        path: &str,
        request: &impl Message,
        call: &Call,
    ) -> Result<Answer, Status> {
        let deadline = Instant::now() + call.timeout;
        let mut pause = PAUSE;
        for _ in 1..ATTEMPTS {
            match self.attempt(path, request, call, deadline).await {
                Err(Status { code: Code::Unavailable | Code::Cancelled, .. })
                    if Instant::now() + pause < deadline =>
                {
                    sleep(pause).await;
                    pause *= 2;
                }
                done => return done,
            }
        }
        self.attempt(path, request, call, deadline).await
    }

    async fn attempt<Answer: Message + Default>(
        &self,
        path: &str,
        request: &impl Message,
        call: &Call,
        deadline: Instant,
    ) -> Result<Answer, Status> {
        let mut answers = self.started(path, request, call, deadline).await?;
        let answer = answers.next().await?;
        // The status follows the response and takes precedence over it.
        answers.next().await?;
        answer.ok_or_else(|| Status::new(Code::Internal, "the server gave no answer"))
    }

    /// Makes a call with a stream of responses, without retries.
    pub async fn server_streaming<Answer: Message + Default>(
        &self,
        path: &str,
        request: &impl Message,
        call: &Call,
    ) -> Result<Streaming<Answer>, Status> {
        self.started(path, request, call, Instant::now() + call.timeout).await
    }

    async fn started<Answer: Message + Default>(
        &self,
        path: &str,
        request: &impl Message,
        call: &Call,
        deadline: Instant,
    ) -> Result<Streaming<Answer>, Status> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let remaining = deadline.saturating_duration_since(Instant::now());
        let mut head = Request::post(format!("{scheme}://{}{path}", self.address))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .header("grpc-timeout", format!("{}m", remaining.as_millis()));
        for (key, value) in &call.metadata {
            head = head.header(*key, value);
        }
        let head =
            head.body(()).map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))?;
        let started = within(deadline, async {
            let (response, mut body) = self.connected().await?.send_request(head, false)?;
            body.send_data(framed(request), true)?;
            let response = response.await?;
            if response.status() != 200 {
                let text = format!("the server answered with HTTP {}", response.status());
                return Err(Status::new(Code::Unknown, text));
            }
            if response.headers().contains_key("grpc-status") {
                Status::check(response.headers())?;
            }
            Ok(Streaming {
                body: response.into_body(),
                arrived: BytesMut::new(),
                deadline,
                answers: PhantomData,
            })
        })
        .await;
        if matches!(started, Err(Status { code: Code::DeadlineExceeded, .. })) {
            // The peer may be gone, which TCP detects only after minutes.
            *self.connection.lock().await = None;
        }
        started
    }
}

/// The options of a call.
pub struct Call {
    pub timeout: Duration,
    pub metadata: Vec<(&'static str, String)>,
}

impl Default for Call {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), metadata: Vec::new() }
    }
}

/// The responses of one call. Dropping it cancels the call.
pub struct Streaming<Answer> {
    body: RecvStream,
    arrived: BytesMut,
    deadline: Instant,
    answers: PhantomData<Answer>,
}

impl<Answer: Message + Default> Streaming<Answer> {
    /// Returns the next response; None after the last one, if the call succeeded.
    pub async fn next(&mut self) -> Result<Option<Answer>, Status> {
        within(self.deadline, async {
            loop {
                if let Some(message) = unframed(&mut self.arrived)? {
                    return Ok(Some(Answer::decode(message)?));
                }
                match self.body.data().await {
                    Some(chunk) => {
                        let chunk = chunk?;
                        self.body.flow_control().release_capacity(chunk.len())?;
                        self.arrived.put(chunk);
                    }
                    None => {
                        let trailers = self.body.trailers().await?.unwrap_or_default();
                        return Status::check(&trailers).map(|()| None);
                    }
                }
            }
        })
        .await
    }
}

/// Returns a message in gRPC's framing: compression flag, length, bytes.
fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(0);
    frame.put_u32(length as u32);
    message.encode(&mut frame).expect("there is room");
    frame.freeze()
}

/// Removes the first message from the received bytes, if it is complete.
fn unframed(arrived: &mut BytesMut) -> Result<Option<Bytes>, Status> {
    // The first byte is the compression flag; this client does not request compression.
    let length = match arrived.get(1..5) {
        Some(mut length) => length.get_u32() as usize,
        None => return Ok(None),
    };
    if length > ANSWER_BYTES_MAX {
        let text = format!("the answer has {length} bytes; the limit is {ANSWER_BYTES_MAX}");
        return Err(Status::new(Code::ResourceExhausted, text));
    }
    if arrived.len() < 5 + length {
        return Ok(None);
    }
    arrived.advance(5);
    Ok(Some(arrived.split_to(length).freeze()))
}

async fn within<T>(
    deadline: Instant,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let late = |_| Err(Status::new(Code::DeadlineExceeded, "the deadline has passed"));
    timeout_at(deadline, work).await.unwrap_or_else(late)
}

/// The error of a failed call.
#[derive(Debug)]
pub struct Status {
    pub code: Code,
    pub message: String,
    details: Vec<prost_types::Any>,
}

impl Status {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Vec::new() }
    }

    /// Returns the detail with the given proto message name.
    pub fn detail<Detail: Message + Default>(&self, name: &str) -> Option<Detail> {
        let of_kind = |any: &&prost_types::Any| any.type_url.rsplit('/').next() == Some(name);
        let any = self.details.iter().find(of_kind)?;
        Detail::decode(&*any.value).ok()
    }

    /// Returns the error in the trailers of a call, if any.
    fn check(headers: &HeaderMap) -> Result<(), Self> {
        let header = |name| headers.get(name).map(|value| value.as_bytes()).unwrap_or_default();
        let code = std::str::from_utf8(header("grpc-status")).unwrap_or_default().parse();
        let code = code.ok().and_then(Code::from_i32).unwrap_or(Code::Unknown);
        if code == Code::Ok {
            return Ok(());
        }
        let message = percent_decode(header("grpc-message")).decode_utf8_lossy().into_owned();
        let details = base64::decode(header("grpc-status-details-bin")).unwrap_or_default();
        let details = rpc::Status::decode(&*details).unwrap_or_default().details;
        Err(Self { code, message, details })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        write!(to, "{}: {}", self.code.as_str_name(), self.message)
    }
}

impl Error for Status {}

impl From<h2::Error> for Status {
    fn from(error: h2::Error) -> Self {
        Self::new(Code::Unavailable, error.to_string())
    }
}

/// No connection.
impl From<std::io::Error> for Status {
    fn from(error: std::io::Error) -> Self {
        Self::new(Code::Unavailable, error.to_string())
    }
}

impl From<prost::DecodeError> for Status {
    fn from(error: prost::DecodeError) -> Self {
        Self::new(Code::Internal, error.to_string())
    }
}
