//! How many requests are in flight, how long one may take, and what a panic answers.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use super::error::{Code, Error};

/// Requests in flight at most; the next one is turned away at once.
pub(super) const REQUESTS_IN_FLIGHT_MAX: usize = 256;
/// Seconds a request may take, reading its body included.
pub(super) const REQUEST_SECONDS_MAX: u64 = 60;

/// Routes that answer however busy the engine is, because somebody decides by them whether it lives.
const NOT_COUNTED: [&str; 5] = ["/api/health", "/health", "/api/ready", "/ready", "/metrics"];

/// The permits of the requests in flight. Cloning shares them.
#[derive(Clone, Debug)]
pub(super) struct InFlight(Arc<Semaphore>);

impl InFlight {
    pub(super) fn new(requests_max: usize) -> Self {
        Self(Arc::new(Semaphore::new(requests_max)))
    }
}

/// Turns a request away when too many are in flight.
pub(super) async fn in_flight(State(limit): State<InFlight>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    if route.is_some_and(|route| NOT_COUNTED.contains(&route.as_str())) {
        return next.run(request).await;
    }
    match limit.0.try_acquire() {
        Ok(_permit) => next.run(request).await,
        Err(_) => Error::new(Code::NotReady, "too many requests in flight").into_response(),
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
