//! The responses of one call.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, BytesMut};
use futures_core::ready;
use h2::RecvStream;
use prost::Message;
use tokio::time::{sleep_until, Instant, Sleep};

use super::{connection, frames, late};
use crate::error::{Error, Result};
use crate::proto::google::rpc::Code;

/// `std::future::poll_fn`, which Rust has since 1.64.
pub(crate) struct PollFn<F>(pub F);

impl<T, F: FnMut(&mut Context) -> Poll<T> + Unpin> Future for PollFn<F> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<T> {
        (self.0)(context)
    }
}

/// The responses of one call. Dropping it cancels the call.
pub(crate) struct Streaming<Answer> {
    body: RecvStream,
    arrived: BytesMut,
    complete: bool,
    deadline: Pin<Box<Sleep>>,
    answers: PhantomData<fn() -> Answer>,
}

impl<Answer: Message + Default> Streaming<Answer> {
    pub(super) fn new(body: RecvStream, deadline: Instant) -> Self {
        Self {
            body,
            arrived: BytesMut::new(),
            complete: false,
            deadline: Box::pin(sleep_until(deadline)),
            answers: PhantomData,
        }
    }

    /// Returns the next response; None after the last one, if the call succeeded.
    pub(crate) async fn next(&mut self) -> Result<Option<Answer>> {
        PollFn(|context: &mut Context| self.poll(context)).await
    }

    pub(crate) fn poll(&mut self, context: &mut Context) -> Poll<Result<Option<Answer>>> {
        if self.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(late()));
        }
        while !self.complete {
            if let Some(message) = frames::unframed(&mut self.arrived)? {
                return Poll::Ready(Answer::decode(message).map(Some).map_err(|error| {
                    Error::of(Code::Internal, format!("the response is unreadable: {error}"))
                }));
            }
            match ready!(self.body.poll_data(context)) {
                Some(chunk) => {
                    let chunk = chunk.map_err(connection::broken)?;
                    let released = self.body.flow_control().release_capacity(chunk.len());
                    released.map_err(connection::broken)?;
                    self.arrived.put(chunk);
                }
                None => self.complete = true,
            }
        }
        let trailers = ready!(self.body.poll_trailers(context)).map_err(connection::broken)?;
        Poll::Ready(frames::check(&trailers.unwrap_or_default()).map(|()| None))
    }
}
