//! Live over HTTP: what changes on the board, what becomes of alarms and how sending fares, as server-sent events.
//!
//! A stream asks for what changed since it told last, so nobody queues for it: a slow reader costs its own place until it is
//! dropped. It is judged by what its caller showed whenever that may have changed, ends at once when the engine does, and
//! after [`STREAM_MAX`] in any case, when its client comes back with the id of the last event.

mod body;
mod course;
mod places;
mod sync;

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use utoipa::IntoParams;

use super::AppState;
use super::auth::{Call, Kept};
use super::board::{Asked, BoardQuery};
use super::connections::Visitor;
use super::error::Error;
use super::query::Params;

pub(super) use places::Streams;

/// What changed on the board is told once in this time at most.
const BOARD_EVERY: Duration = Duration::from_secs(2);
/// A sign of life, for clients that know nothing of a connection that died.
const PING_EVERY: Duration = Duration::from_secs(15);
/// How often sending is looked at.
const SYNC_EVERY: Duration = Duration::from_secs(5);
/// How often the caller's credential is judged, beside each change of who may call.
const JUDGED_EVERY: Duration = Duration::from_secs(1);
/// A reader that takes nothing for so long is dropped,
const STALLED_MAX: Duration = Duration::from_secs(10);
/// and its connection with it after this.
const FAREWELL_MAX: Duration = Duration::from_secs(5);
/// The longest stream: no longer than a connection is kept.
const STREAM_MAX: Duration = Duration::from_secs(600);
/// After a stream has ended, a client waits for so long before it comes back.
const RETRY_MS: u64 = 2000;
/// Values of one event of the board; more are several events.
const ENTRIES_PER_EVENT_MAX: usize = 200;
/// Events that wait for a reader at most, beside the last one.
const EVENTS_WAITING_MAX: usize = 2;

/// The header by which a client says what it has seen.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What a client has seen.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "documents the header that is read by hand")]
pub(super) struct SeenHeader {
    /// The id of the last event that was seen. What was missed is told, or `resync` says that it cannot be.
    #[param(rename = "Last-Event-ID")]
    last_event_id: Option<String>,
}

/// Tells what changes as it changes. Events: `board` (values that changed, `{"now", "full", "entries"}`, once in 2 s at most;
/// at first all of them), `alarm` (what became of one, at once), `sync` (how sending fares, for operators), `resync` (more was
/// missed than is remembered: ask for everything again), `end` (the last one, with its `reason`: `stopping`, `removed`,
/// `slow` or `renew`).
#[utoipa::path(get, path = "/api/v1/stream", tag = "telemetry", params(BoardQuery, SeenHeader),
    responses((status = 200, description = "Events, for ten minutes at most", body = String, content_type = "text/event-stream",
            example = "id: 5f3a9c11.812.4\nevent: board\ndata: {\"now\":\"2026-02-12T09:32:17.000Z\",\"full\":false,\"entries\":[]}\n\n"),
        (status = 429, description = "RATE_LIMITED: the caller has as many streams as one may have")))]
pub(super) async fn open_stream(
    State(state): State<Arc<AppState>>,
    call: Call,
    kept: Kept,
    visitor: Option<Extension<Visitor>>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Error> {
    let asked = Asked::of(&call, params)?;
    let place = state.streams.place(&call)?;
    let seen = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty());
    let seen = seen.map(|id| id.to_str().unwrap_or("?").to_owned());
    let viewer =
        course::Viewer { caller: call.caller, kept, asked, visitor: visitor.map(|Extension(own)| own) };
    let body = body::open(state, viewer, seen.as_deref(), place);
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // A proxy that collects answers would hold events back.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, axum::body::Body::new(body)).into_response())
}

#[cfg(test)]
mod tests;
