//! gRPC over HTTP/2, as much of it as a client with unary and streamed answers needs.
//!
//! Most programs take the crate tonic for this. Debian, from whose packages this client can be
//! built without any other registry, doesn't have it; h2 and prost it has, and gRPC is what
//! lies between the two.

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

/// The largest answer that is taken; gRPC's own libraries take 4 MiB unless they are set to more.
const ANSWER_BYTES_MAX: usize = 96 << 20;

/// How often a call is made that meets UNAVAILABLE or is cut off; and the first pause, which
/// doubles.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(100);

/// A server, and the connection to it, which takes any number of calls at once.
///
/// It connects with its first call, and again with the first call after a connection has ended.
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

    /// Returns a channel to HOST:PORT with TLS, to be used if an authority vouches for HOST.
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

    /// Returns a connection that is open, which takes one more call.
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
        // Moves the bytes of all calls; a call that waits for some learns how it ended.
        tokio::spawn(connection);
        Ok(http)
    }

    /// Calls a method that gives one answer; again, where it meets UNAVAILABLE or is cut off.
    ///
    /// All methods only read, so a call may be made again. All attempts end by the call's deadline.
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
        // The status comes behind the answer, and counts for more.
        answers.next().await?;
        answer.ok_or_else(|| Status::new(Code::Internal, "the server gave no answer"))
    }

    /// Calls a method that gives any number of answers, once.
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
            // Perhaps nothing is at its other end any more, which TCP notices after minutes.
            *self.connection.lock().await = None;
        }
        started
    }
}

/// What goes with a call beside its request.
pub struct Call {
    pub timeout: Duration,
    pub metadata: Vec<(&'static str, String)>,
}

impl Default for Call {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), metadata: Vec::new() }
    }
}

/// The answers to one call. Dropping it cancels the call.
pub struct Streaming<Answer> {
    body: RecvStream,
    arrived: BytesMut,
    deadline: Instant,
    answers: PhantomData<Answer>,
}

impl<Answer: Message + Default> Streaming<Answer> {
    /// Returns the next answer; none after the last, if the call ended well.
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

/// Returns a message as it travels: whether it is compressed, its length, its bytes.
fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(0);
    frame.put_u32(length as u32);
    message.encode(&mut frame).expect("there is room");
    frame.freeze()
}

/// Takes the first message from what has arrived, once it is whole.
fn unframed(arrived: &mut BytesMut) -> Result<Option<Bytes>, Status> {
    // The first byte says that it is compressed, which happens only to those who ask for it.
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

/// How a call failed.
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

    /// Returns the detail of a kind, by the name that its proto has.
    pub fn detail<Detail: Message + Default>(&self, name: &str) -> Option<Detail> {
        let of_kind = |any: &&prost_types::Any| any.type_url.rsplit('/').next() == Some(name);
        let any = self.details.iter().find(of_kind)?;
        Detail::decode(&*any.value).ok()
    }

    /// Returns the error that the headers at the end of a call tell of, if any.
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
