//! What frames every request and every answer: ids, security headers, the error body, metrics and one log line.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::header::{
    CONTENT_LENGTH, CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use broker::lines::Lines;
use schema::{id, metrics};
use tokio::time::{Instant, sleep_until};

use super::AppState;
use super::connections::Visitor;
use super::error::{self, Code, Error};

/// Names the request: taken from the caller or made, and echoed.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Names what the request belongs to: taken, else the request id, and echoed.
pub(super) const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
/// Names the build.
pub(super) const COMMIT_ID: HeaderName = HeaderName::from_static("x-commit-id");

/// What an answer that is no page may do in a browser.
const NOTHING: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// The route of metrics and logs when no route fits.
const UNMATCHED: &str = "unmatched";

/// The ids of a call; an extension of every request.
#[derive(Clone, Debug)]
pub(super) struct CallIds {
    /// Of this request alone.
    pub request_id: Arc<str>,
    /// Of everything the call causes.
    pub trace_id: Arc<str>,
    /// Whether the caller chose it.
    pub is_trace_given: bool,
}

impl CallIds {
    fn of(headers: &HeaderMap) -> Self {
        let request_id = taken(headers, &REQUEST_ID).unwrap_or_else(|| id::new_id().to_string().into());
        let trace_id = taken(headers, &TRACE_ID);
        let is_trace_given = trace_id.is_some();
        let trace_id = trace_id.unwrap_or_else(|| Arc::clone(&request_id));
        Self { request_id, trace_id, is_trace_given }
    }

    /// The trace id that goes on to later calls: a request id that stands for one ends with its request.
    pub(super) fn given_trace_id(&self) -> Option<String> {
        self.is_trace_given.then(|| self.trace_id.to_string())
    }
}

/// An id the caller chose; one that no column or log line can hold counts as absent.
fn taken(headers: &HeaderMap, name: &HeaderName) -> Option<Arc<str>> {
    let text = text_of(headers.get(name)?)?;
    id::is_event_id(text).then(|| Arc::from(text))
}

/// The text of a header, in whichever script it is.
pub(super) fn text_of(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

impl<S: Sync> FromRequestParts<S> for CallIds {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Ok(parts.extensions.get::<Self>().expect("every request passes the frame").clone())
    }
}

/// Who called, for the log; an extension of the answers of guarded routes.
#[derive(Clone, Debug)]
pub(super) struct CalledBy {
    pub(super) tenant_id: Option<String>,
    pub(super) device_id: Option<String>,
}

/// A refusal that is told at a certain time; an extension of its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct ToldAt(pub(super) Instant);

/// What a stranger can have the log complain of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Complaint {
    /// The system hands no connection over.
    Accept,
    /// There is no place for a connection.
    Full,
    /// A call failed.
    Answer(Code),
}

impl Complaint {
    fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Full => "full",
            Self::Answer(code) => code.as_str(),
        }
    }
}

/// The lines that strangers cause, of which the log has a few a minute.
#[derive(Default)]
pub(super) struct Complaints(Lines<Complaint>);

impl Complaints {
    /// Notes a complaint; says whether it gets a line of its own.
    pub(super) fn has_room(&self, complaint: Complaint) -> bool {
        self.0.has_room(complaint)
    }

    /// Says once a minute how many more there were than lines, for ever.
    pub(super) async fn sum_up(&self) -> Infallible {
        let say = |complaint: Complaint, more| {
            tracing::warn!(reason = complaint.as_str(), more, "requests failed as well in the last minute");
        };
        self.0.sum_up(say).await
    }
}

/// The outermost layer.
pub(super) async fn frame(State(state): State<Arc<AppState>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let ids = CallIds::of(request.headers());
    let visitor = request.extensions().get::<Visitor>().cloned();
    let seen = Seen::of(&request, visitor.as_ref().map(|visitor| visitor.peer));
    request.extensions_mut().insert(ids.clone());
    let (mut response, error) = error::render(next.run(request).await, &ids.trace_id);
    set_headers(response.headers_mut(), &ids, &state.settings.commit);
    seen.report(started, &response, &ids, error.as_ref(), &state.complaints);
    if let Some((ToldAt(at), mut visitor)) = response.extensions().get().copied().zip(visitor) {
        // It waits no longer than the engine runs.
        tokio::select! {
            () = sleep_until(at) => {}
            _ = visitor.closed.wait_for(|is_closed| *is_closed) => {}
        }
    }
    response
}

fn set_headers(headers: &mut HeaderMap, ids: &CallIds, commit: &HeaderValue) {
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).ok();
    for (name, id) in [(REQUEST_ID, &ids.request_id), (TRACE_ID, &ids.trace_id)] {
        if let Some(id) = value(id) {
            headers.insert(name, id);
        }
    }
    headers.insert(COMMIT_ID, commit.clone());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(NOTHING);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("strict-origin-when-cross-origin"));
}

/// What is remembered of a request until its answer is known.
struct Seen {
    route: Option<MatchedPath>,
    method: &'static str,
    content_length: Option<u64>,
    peer: Option<SocketAddr>,
}

impl Seen {
    fn of(request: &Request, peer: Option<SocketAddr>) -> Self {
        let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        Self {
            route: request.extensions().get::<MatchedPath>().cloned(),
            method: method_label(request.method()),
            content_length: length.and_then(|text| text.parse().ok()),
            peer,
        }
    }

    fn report(
        &self,
        started: Instant,
        response: &Response,
        ids: &CallIds,
        error: Option<&Error>,
        complaints: &Complaints,
    ) {
        let route = self.route.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
        let status = response.status();
        let elapsed = started.elapsed();
        metrics::http_requests_total(route, self.method, status.as_u16()).increment(1);
        metrics::http_request_duration_seconds(route, self.method, status.as_u16()).record(elapsed);
        // A status document of an engine that is not ready is no error: what it waits for has lines of its own.
        if error.is_some_and(|error| !complaints.has_room(Complaint::Answer(error.code))) {
            return;
        }
        let by = response.extensions().get::<CalledBy>();
        let cause = error.and_then(|error| error.cause.as_deref()).map(chain);
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    route,
                    method = self.method,
                    status = status.as_u16(),
                    duration_ms = elapsed.as_secs_f64() * 1000.0,
                    request_id = %ids.request_id,
                    trace_id = %ids.trace_id,
                    tenant_id = by.and_then(|by| by.tenant_id.as_deref()),
                    device_id = by.and_then(|by| by.device_id.as_deref()),
                    content_length = self.content_length,
                    peer = self.peer.map(tracing::field::display),
                    error_code = error.map(|error| error.code.as_str()),
                    cause,
                    "request answered"
                )
            };
        }
        match status {
            _ if error.is_none() => line!(debug),
            StatusCode::INTERNAL_SERVER_ERROR => line!(error),
            _ if status.is_server_error() => line!(warn),
            _ if status.is_client_error() => line!(info),
            _ => line!(debug),
        }
    }
}

/// An error and its sources in one line.
fn chain(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// Methods are free text on the wire and a closed list as a label.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "PATCH" => "PATCH",
        "OPTIONS" => "OPTIONS",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(pairs: &[(HeaderName, &str)]) -> CallIds {
        let pair = |(name, text): &(HeaderName, &str)| {
            (name.clone(), HeaderValue::from_str(text).expect("a header"))
        };
        CallIds::of(&pairs.iter().map(pair).collect())
    }

    #[test]
    fn ids_are_taken_and_the_trace_falls_back_to_the_request() {
        let both = ids(&[(REQUEST_ID, "r-1"), (TRACE_ID, "t-1")]);
        assert_eq!((&*both.request_id, &*both.trace_id), ("r-1", "t-1"));
        assert_eq!(both.given_trace_id().as_deref(), Some("t-1"));
        let one = ids(&[(REQUEST_ID, "r-1")]);
        assert_eq!((&*one.trace_id, one.given_trace_id()), ("r-1", None));
    }

    #[test]
    fn an_id_that_cannot_be_kept_is_made_anew() {
        let long = "x".repeat(201);
        for bad in ["", "a\tb", &long] {
            let made = ids(&[(REQUEST_ID, bad)]);
            assert_eq!(made.request_id.len(), 36, "{bad:?}");
            assert_eq!(made.request_id, made.trace_id);
        }
    }
}
