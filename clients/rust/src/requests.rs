//! The requests of a client: options, then `send`.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use prost::Message;

use crate::builder::metadata;
use crate::cards::Model;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::proto::google::rpc::Code;
use crate::proto::v1;
use crate::results::{ClassifyResult, CompareEvent, Comparison, DetectResult, Task};
use crate::transport::{Outgoing, PollFn, Streaming};

/// The options of every call.
#[derive(Clone, Debug)]
struct Call {
    client: Client,
    timeout: Duration,
    headers: Vec<(String, String)>,
}

impl Call {
    fn of(client: &Client) -> Self {
        Self { client: client.clone(), timeout: client.timeout(), headers: Vec::new() }
    }

    fn outgoing(&self, path: &'static str, request: &impl Message) -> Result<Outgoing> {
        let mut headers = self.client.headers();
        headers.extend(metadata(&self.headers)?);
        Ok(Outgoing::new(path, request, headers, self.timeout))
    }

    async fn unary<Answer: Message + Default>(
        &self,
        path: &'static str,
        request: &impl Message,
    ) -> Result<Answer> {
        self.client.connection().unary(&self.outgoing(path, request)?).await
    }
}

/// Declares a request: its message, and the options of every call.
macro_rules! request {
    ($(#[$doc:meta])* $name:ident($message:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        #[must_use = "a request does nothing until it is sent"]
        pub struct $name {
            call: Call,
            request: $message,
        }

        impl $name {
            /// Sets the timeout of this call, retries included.
            pub fn timeout(mut self, timeout: Duration) -> Self {
                self.call.timeout = timeout;
                self
            }

            /// Sends a header; it replaces the client's of the same name.
            pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
                self.call.headers.push((name.into(), value.into()));
                self
            }
        }
    };
}

/// Declares the options that requests share, by name.
macro_rules! options {
    ($name:ident: $($option:ident),*) => {
        impl $name { $(options!(@ $option);)* }
    };
    (@ version) => {
        /// Chooses a version of the model, 1 or above. By default the highest.
        pub fn version(mut self, version: i32) -> Self {
            self.request.version = Some(version);
            self
        }
    };
    (@ top_k) => {
        /// Sets the number of labels of each classifier, 1 or above. By default 5.
        pub fn top_k(mut self, labels: i32) -> Self {
            self.request.top_k = Some(labels);
            self
        }
    };
    (@ drawing) => {
        /// Requests the picture with the answer drawn on it.
        pub fn annotate(mut self) -> Self {
            self.request.annotate = true;
            self
        }

        /// Requests a heat map of the best label. A model that can't give one refuses.
        pub fn explain(mut self) -> Self {
            self.request.explain = Some(v1::Explain { label: None });
            self
        }

        /// Requests a heat map of a label, which the model must have.
        pub fn explain_label(mut self, label: impl Into<String>) -> Self {
            self.request.explain = Some(v1::Explain { label: Some(label.into()) });
            self
        }
    };
    (@ detector) => {
        /// Returns detections with a score above this. Range [0, 1]. By default the model's.
        pub fn score_threshold(mut self, score: f32) -> Self {
            self.request.score_threshold = Some(score);
            self
        }

        /// Drops the lower-scored of two boxes whose IoU exceeds this. Range [0, 1].
        pub fn iou_threshold(mut self, iou: f32) -> Self {
            self.request.iou_threshold = Some(iou);
            self
        }

        /// Sets the maximum number of detections. Range [1, 1000]. By default 300.
        pub fn max_detections(mut self, detections: i32) -> Self {
            self.request.max_detections = Some(detections);
            self
        }

        /// Keeps these labels only.
        pub fn labels<Label: Into<String>>(
            mut self,
            labels: impl IntoIterator<Item = Label>,
        ) -> Self {
            self.request.labels = labels.into_iter().map(Into::into).collect();
            self
        }

        /// Lets boxes of different labels suppress each other.
        pub fn class_agnostic(mut self) -> Self {
            self.request.class_agnostic = true;
            self
        }
    };
    (@ comparison) => {
        /// Compares on these tasks only.
        pub fn tasks(mut self, tasks: impl IntoIterator<Item = Task>) -> Self {
            self.request.tasks = tasks.into_iter().map(Task::value).collect();
            self
        }

        /// Compares these models only.
        pub fn models<Name: Into<String>>(
            mut self,
            models: impl IntoIterator<Item = Name>,
        ) -> Self {
            self.request.models = models.into_iter().map(Into::into).collect();
            self
        }

        /// Names the model that the others are compared with. By default the first.
        pub fn baseline(mut self, model: impl Into<String>) -> Self {
            self.request.baseline = Some(model.into());
            self
        }

        /// Requests the picture with all answers side by side, as `annotate` does, with the boxes in
        /// three colours: in both answers, only here, only in the baseline.
        pub fn annotate_difference(mut self) -> Self {
            self.request.annotate_difference = true;
            self
        }
    };
}

request!(
    /// A request for one model's labels. Made by [`Client::classify`].
    Classify(v1::ClassifyRequest)
);
options!(Classify: version, top_k, drawing);

impl Classify {
    pub(crate) fn new(client: &Client, model: String, image: Image) -> Self {
        let image = Some(image.into_message());
        let request = v1::ClassifyRequest { image, model, ..Default::default() };
        Self { call: Call::of(client), request }
    }

    /// Returns the labels.
    pub async fn send(self) -> Result<ClassifyResult> {
        let path = "/visavis.v1.VisionService/Classify";
        let answer: v1::ClassifyResponse = self.call.unary(path, &self.request).await?;
        Ok(answer.into())
    }
}

request!(
    /// A request for the objects that one model finds. Made by [`Client::detect`].
    Detect(v1::DetectRequest)
);
options!(Detect: version, detector, drawing);

impl Detect {
    pub(crate) fn new(client: &Client, model: String, image: Image) -> Self {
        let image = Some(image.into_message());
        let request = v1::DetectRequest { image, model, ..Default::default() };
        Self { call: Call::of(client), request }
    }

    /// Returns the objects.
    pub async fn send(self) -> Result<DetectResult> {
        let path = "/visavis.v1.VisionService/Detect";
        let answer: v1::DetectResponse = self.call.unary(path, &self.request).await?;
        Ok(answer.into())
    }
}

request!(
    /// A request for all models' answers. Made by [`Client::compare`].
    Compare(v1::CompareRequest)
);
options!(Compare: comparison, top_k, detector, drawing);

impl Compare {
    pub(crate) fn new(client: &Client, image: Image) -> Self {
        let image = Some(image.into_message());
        let request = v1::CompareRequest { image, ..Default::default() };
        Self { call: Call::of(client), request }
    }

    /// Returns the comparison.
    pub async fn send(self) -> Result<Comparison> {
        let path = "/visavis.v1.VisionService/Compare";
        let answer: v1::CompareResponse = self.call.unary(path, &self.request).await?;
        Ok(answer.into())
    }
}

request!(
    /// A request for all models' answers as they become ready. Made by [`Client::compare_stream`].
    CompareStream(v1::CompareStreamRequest)
);
options!(CompareStream: comparison, top_k, detector, drawing);

impl CompareStream {
    pub(crate) fn new(client: &Client, image: Image) -> Self {
        let image = Some(image.into_message());
        let request = v1::CompareStreamRequest { image, ..Default::default() };
        Self { call: Call::of(client), request }
    }

    /// Returns the stream once the server begins to answer. The timeout covers all of it.
    pub async fn send(self) -> Result<CompareStreaming> {
        let path = "/visavis.v1.VisionService/CompareStream";
        let outgoing = self.call.outgoing(path, &self.request)?;
        let answers = self.call.client.connection().server_streaming(&outgoing).await?;
        Ok(CompareStreaming { answers, complete: false })
    }
}

/// The answers of a streamed comparison. Dropping it cancels the rest.
#[must_use = "a stream does nothing until it is polled"]
pub struct CompareStreaming {
    answers: Streaming<v1::CompareStreamResponse>,
    complete: bool,
}

impl CompareStreaming {
    /// Returns the next answer, at last the comparison, then None.
    pub async fn next(&mut self) -> Result<Option<CompareEvent>> {
        PollFn(|context: &mut Context| Pin::new(&mut *self).poll_next(context)).await.transpose()
    }
}

impl Stream for CompareStreaming {
    type Item = Result<CompareEvent>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<Option<Self::Item>> {
        while !self.complete {
            let next = futures_core::ready!(self.answers.poll(context));
            self.complete = !matches!(next, Ok(Some(_)));
            match next {
                // A step that is newer than this client is skipped.
                Ok(Some(message)) => match CompareEvent::known(message) {
                    Some(event) => return Poll::Ready(Some(Ok(event))),
                    None => continue,
                },
                Ok(None) => return Poll::Ready(None),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        Poll::Ready(None)
    }
}

request!(
    /// A request for the cards of all models. Made by [`Client::models`].
    Models(v1::ListModelsRequest)
);

impl Models {
    pub(crate) fn new(client: &Client) -> Self {
        Self { call: Call::of(client), request: v1::ListModelsRequest {} }
    }

    /// Returns the cards, ordered by name.
    pub async fn send(self) -> Result<Vec<Model>> {
        let path = "/visavis.v1.VisionService/ListModels";
        let answer: v1::ListModelsResponse = self.call.unary(path, &self.request).await?;
        Ok(answer.models.into_iter().map(Model::from).collect())
    }
}

request!(
    /// A request for one model's card. Made by [`Client::model`].
    GetModel(v1::GetModelRequest)
);
options!(GetModel: version);

impl GetModel {
    pub(crate) fn new(client: &Client, model: String) -> Self {
        let request = v1::GetModelRequest { model, ..Default::default() };
        Self { call: Call::of(client), request }
    }

    /// Returns the card, with labels and receipt.
    pub async fn send(self) -> Result<Model> {
        let path = "/visavis.v1.VisionService/GetModel";
        let answer: v1::GetModelResponse = self.call.unary(path, &self.request).await?;
        let card = answer.model.map(Model::from);
        card.ok_or_else(|| Error::of(Code::Internal, "the server sent no card"))
    }
}
