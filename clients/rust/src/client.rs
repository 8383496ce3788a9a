//! The client of one server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::{sleep, timeout};

use crate::builder::ClientBuilder;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::proto::google::rpc::Code;
use crate::proto::health::health_check_response::ServingStatus;
use crate::proto::health::{HealthCheckRequest, HealthCheckResponse};
use crate::requests::{Classify, Compare, CompareStream, Detect, GetModel, Models};
use crate::transport::{Connection, Outgoing};

const READY_POLL: Duration = Duration::from_millis(100);

/// A connection to one server. Clones share it.
///
/// It needs tokio's runtime. Every method returns a request, which is sent by its `send`.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    connection: Connection,
    headers: HeaderMap,
    timeout: Duration,
}

impl Client {
    /// Returns a client of the server at `HOST:PORT` or `unix:PATH`, without TLS.
    ///
    /// The first call opens the connection. Fails with [`Error::InvalidSettings`] if the address is
    /// unusable.
    pub fn new(address: impl Into<String>) -> Result<Self> {
        Self::builder(address).build()
    }

    /// Returns the settings of a client of the server at `HOST:PORT` or `unix:PATH`.
    pub fn builder(address: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(address.into())
    }

    /// Requests one model's labels for the whole image.
    pub fn classify(&self, model: impl Into<String>, image: impl Into<Image>) -> Classify {
        Classify::new(self, model.into(), image.into())
    }

    /// Requests the objects that one model finds in the image.
    pub fn detect(&self, model: impl Into<String>, image: impl Into<Image>) -> Detect {
        Detect::new(self, model.into(), image.into())
    }

    /// Requests the answers of all capable models for one image, side by side.
    pub fn compare(&self, image: impl Into<Image>) -> Compare {
        Compare::new(self, image.into())
    }

    /// Requests each model's answer as soon as it is ready, then the whole comparison.
    pub fn compare_stream(&self, image: impl Into<Image>) -> CompareStream {
        CompareStream::new(self, image.into())
    }

    /// Requests the cards of all models, ordered by name, without labels and receipts.
    pub fn models(&self) -> Models {
        Models::new(self)
    }

    /// Requests one model's card, with its labels and its receipt.
    pub fn model(&self, name: impl Into<String>) -> GetModel {
        GetModel::new(self, name.into())
    }

    /// Returns once the server has loaded its models.
    ///
    /// Fails with [`Error::DeadlineExceeded`] if that takes longer than `patience`.
    pub async fn wait_until_ready(&self, patience: Duration) -> Result<()> {
        let path = "/grpc.health.v1.Health/Check";
        let poll = async {
            loop {
                let request = HealthCheckRequest::default();
                let call = Outgoing::new(path, &request, self.0.headers.clone(), patience);
                match self.0.connection.unary::<HealthCheckResponse>(&call).await {
                    Ok(answer) if answer.status() == ServingStatus::Serving => return Ok(()),
                    Err(error) if !matches!(error, Error::Unavailable(_)) => return Err(error),
                    _ => sleep(READY_POLL).await,
                }
            }
        };
        timeout(patience, poll).await.unwrap_or_else(|_| {
            let text = format!("the server is not ready after {} s", patience.as_secs_f64());
            Err(Error::of(Code::DeadlineExceeded, text))
        })
    }

    pub(crate) fn over(connection: Connection, headers: HeaderMap, timeout: Duration) -> Self {
        Self(Arc::new(Inner { connection, headers, timeout }))
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.0.connection
    }

    pub(crate) fn headers(&self) -> HeaderMap {
        self.0.headers.clone()
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.0.timeout
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        write!(to, "Client({})", self.0.connection.origin())
    }
}
