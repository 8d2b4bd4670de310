//! How many requests are in flight, how long one may take, and what a panic answers.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connections::Visitor;
use super::error::{Code, Error};

/// Requests in flight at most; the next one is turned away at once.
pub(super) const REQUESTS_IN_FLIGHT_MAX: usize = 256;
/// Seconds a request may take, reading its body included.
pub(super) const REQUEST_SECONDS_MAX: u64 = 60;

/// Routes that answer however busy the engine is, because somebody decides by them whether it lives.
const NOT_COUNTED: [&str; 6] =
    ["/api/health", "/health", "/api/ready", "/ready", "/metrics", "/api/v1/heartbeat"];

/// A route whose answers last for minutes, and that has places of its own.
const STREAM: &str = "/api/v1/stream";

/// The permits of the requests in flight. Cloning shares them.
#[derive(Clone, Debug)]
pub(super) struct InFlight(Arc<Semaphore>);

impl InFlight {
    pub(super) fn new(requests_max: usize) -> Self {
        Self(Arc::new(Semaphore::new(requests_max)))
    }
}

/// Turns a request away when too many are in flight, or its connection is one in reserve. A request is in flight until its
/// answer is read to the end.
pub(super) async fn in_flight(State(limit): State<InFlight>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    if route.is_some_and(|route| NOT_COUNTED.contains(&route.as_str())) {
        return next.run(request).await;
    }
    if request.extensions().get::<Visitor>().is_some_and(|visitor| visitor.is_in_reserve) {
        return Error::new(Code::NotReady, "too many connections").into_response();
    }
    if route.is_some_and(|route| route.as_str() == STREAM) {
        return next.run(request).await;
    }
    match Arc::clone(&limit.0).try_acquire_owned() {
        Ok(permit) => next.run(request).await.map(|body| in_flight_until_read(body, permit)),
        Err(_) => Error::new(Code::NotReady, "too many requests in flight").into_response(),
    }
}

fn in_flight_until_read(body: Body, permit: OwnedSemaphorePermit) -> Body {
    if body.is_end_stream() { body } else { Body::new(InFlightBody { body, _permit: permit }) }
}

/// An answer whose request is in flight until it is dropped.
struct InFlightBody {
    body: Body,
    _permit: OwnedSemaphorePermit,
}

impl HttpBody for InFlightBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Gives a request up that takes too long.
pub(super) async fn time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(Duration::from_secs(REQUEST_SECONDS_MAX), next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("the request took longer than {REQUEST_SECONDS_MAX} s");
            Error::new(Code::NotReady, message).into_response()
        }
    }
}

/// The answer of a handler that panicked; its task alone is lost.
pub(super) fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    Error::new(Code::InternalError, "internal error").into_response()
}
