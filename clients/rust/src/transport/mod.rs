//! A gRPC client over HTTP/2, for unary calls and streamed responses.
//!
//! The crate tonic does this and more. Debian does not package it, but has h2 and prost, so that
//! this client builds from Debian's packages alone.

mod connection;
mod frames;
mod streaming;

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use prost::Message;
use tokio::time::{sleep, timeout_at, Instant};

pub(crate) use connection::{Connection, Place};
pub(crate) use streaming::{PollFn, Streaming};

use crate::error::{Error, Result};
use crate::proto::google::rpc::Code;

/// The attempts of a call that fails as UNAVAILABLE or is cut off, and the pause before the second
/// one. Each further pause is twice as long.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(100);

/// A path, a message and what accompanies it.
pub(crate) struct Outgoing {
    path: &'static str,
    frame: Bytes,
    headers: HeaderMap,
    deadline: Instant,
}

impl Outgoing {
    pub(crate) fn new(
        path: &'static str,
        request: &impl Message,
        headers: HeaderMap,
        timeout: Duration,
    ) -> Self {
        Self { path, frame: frames::framed(request), headers, deadline: Instant::now() + timeout }
    }
}

impl Connection {
    /// Makes a unary call; retries it if it fails as UNAVAILABLE or is cut off.
    ///
    /// All methods are read-only, so retries are safe. The deadline covers all attempts.
    pub(crate) async fn unary<Answer: Message + Default>(&self, call: &Outgoing) -> Result<Answer> {
        repeated(call.deadline, || async move {
            let mut answers = self.started(call).await?;
            let answer = answers.next().await?;
            // The status follows the response and takes precedence over it.
            answers.next().await?;
            answer.ok_or_else(|| Error::of(Code::Internal, "the server gave no answer"))
        })
        .await
    }

    /// Makes a call with a stream of responses; retries it until the server begins to answer.
    pub(crate) async fn server_streaming<Answer: Message + Default>(
        &self,
        call: &Outgoing,
    ) -> Result<Streaming<Answer>> {
        repeated(call.deadline, || self.started(call)).await
    }

    async fn started<Answer: Message + Default>(
        &self,
        call: &Outgoing,
    ) -> Result<Streaming<Answer>> {
        let started = within(call.deadline, self.exchange(call)).await;
        if let Err(Error::DeadlineExceeded(_)) = started {
            // The peer may be gone, which TCP detects only after minutes.
            self.forget();
        }
        let body = started?;
        Ok(Streaming::new(body, call.deadline))
    }

    async fn exchange(&self, call: &Outgoing) -> Result<h2::RecvStream> {
        let remaining = call.deadline.saturating_duration_since(Instant::now());
        let mut head = Request::post(self.origin() + call.path)
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .header("grpc-timeout", format!("{}m", remaining.as_millis()))
            .body(())
            .map_err(|error| Error::InvalidSettings(error.to_string()))?;
        head.headers_mut().extend(call.headers.clone());
        let mut http = self.ready().await?;
        let (response, mut body) = http.send_request(head, false).map_err(connection::broken)?;
        body.send_data(call.frame.clone(), true).map_err(connection::broken)?;
        let response = response.await.map_err(connection::broken)?;
        if response.status() != 200 {
            let text = format!("the server answered with HTTP {}", response.status());
            return Err(Error::of(Code::Unknown, text));
        }
        if response.headers().contains_key("grpc-status") {
            frames::check(response.headers())?;
        }
        Ok(response.into_body())
    }
}

async fn repeated<Answer, Attempt>(
    deadline: Instant,
    mut attempt: impl FnMut() -> Attempt,
) -> Result<Answer>
where
    Attempt: Future<Output = Result<Answer>>,
{
    let mut pause = PAUSE;
    for _ in 1..ATTEMPTS {
        match attempt().await {
            Err(Error::Unavailable(_) | Error::Cancelled(_))
                if Instant::now() + pause < deadline =>
            {
                sleep(pause).await;
                pause *= 2;
            }
            done => return done,
        }
    }
    attempt().await
}

async fn within<T>(deadline: Instant, work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout_at(deadline, work).await.unwrap_or_else(|_| Err(late()))
}

fn late() -> Error {
    Error::of(Code::DeadlineExceeded, "no answer within the timeout; try a longer one")
}
