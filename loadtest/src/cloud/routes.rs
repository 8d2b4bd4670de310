//! The paths of the pretend cloud: the contract's own, and those of the judge.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use schema::wire::time;

use crate::cloud::auth::{Denied, Signed};
use crate::cloud::batch::Batch;
use crate::cloud::mode::{Mode, Plan};
use crate::cloud::{Shared, until_switched};
use crate::ids;

/// Path of the batches.
pub const BATCH_PATH: &str = "/api/v1/edge/batch";
/// Path of the handshake.
pub const HANDSHAKE_PATH: &str = "/api/v1/edge/diagnostics/handshake";
/// Path of the dedupe diagnostics.
pub const DEDUPE_PATH: &str = "/api/v1/edge/diagnostics/dedupe";
/// Largest body the cloud reads.
const BODY_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Entries of the dedupe diagnostics when the caller does not say, and at most.
const DEDUPE_LIMIT: (usize, usize) = (20, 200);
/// Events shown when the caller does not say.
const EVENTS_LIMIT: usize = 20;
/// Ids in one piece of a streamed answer.
const IDS_PER_FRAME: usize = 1000;

pub(crate) type Reply = Response<BoxBody<Bytes, Infallible>>;

/// The connection is to be cut without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the pretend cloud cuts this connection")]
pub(crate) struct Cut;

/// Answers one request on the port of the cloud.
pub(crate) async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Reply, Cut> {
    let is_edge_path = request.uri().path().starts_with("/api/v1/edge/");
    if is_edge_path {
        return edge(&shared, request).await;
    }
    if request.method() == Method::GET && request.uri().path() == "/api/health" {
        return Ok(plain(StatusCode::OK, "text/plain", "OK"));
    }
    Ok(control(shared, request).await)
}

/// Answers one request on the port of the judge, which stays open whatever the cloud pretends.
pub(crate) async fn control(shared: Arc<Shared>, request: Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    let query = Query::of(&parts);
    match (&parts.method, parts.uri.path()) {
        (&Method::GET, "/judge") => json_reply(StatusCode::OK, &json!(shared.judge().verdict())),
        (&Method::GET, "/judge/ids") => stream_ids(&shared, query.text("tenant_id")),
        (&Method::GET, "/judge/sessions") => {
            json_lines(&shared.judge().weighings.sessions(query.text("tenant_id")))
        }
        (&Method::GET, "/judge/images") => {
            json_lines(&shared.judge().weighings.images(query.text("tenant_id")))
        }
        (&Method::GET, "/judge/events") => {
            let events = shared.judge().last_events(query.number("limit", EVENTS_LIMIT));
            let lines =
                events.iter().map(|event| String::from_utf8_lossy(event)).collect::<Vec<_>>().join(",");
            plain(StatusCode::OK, "application/json", format!("[{lines}]"))
        }
        (&Method::GET, "/judge/digest") => json_lines(&shared.judge().digest.hours(query.text("tenant_id"))),
        (&Method::POST, "/judge/forget") => forget(&shared, &query),
        (&Method::POST, "/judge/reset") => {
            shared.judge().reset();
            json_reply(StatusCode::OK, &json!({"ok": true}))
        }
        (&Method::POST, "/mode") => switch(&shared, body).await,
        _ => error(StatusCode::NOT_FOUND, "NOT_FOUND", &Value::Null),
    }
}

/// Loses the event `event_id` of `tenant_id`, which occurred at `occurred_at`.
fn forget(shared: &Shared, query: &Query) -> Reply {
    let Some(occurred_at) = time::parse(query.text("occurred_at")) else {
        return json_reply(StatusCode::BAD_REQUEST, &json!({"error": "occurred_at is no time"}));
    };
    let was_there = shared.judge().forget(query.text("tenant_id"), query.text("event_id"), occurred_at);
    json_reply(StatusCode::OK, &json!({"was_there": was_there}))
}

async fn switch(shared: &Shared, body: Incoming) -> Reply {
    let bad = |text: String| json_reply(StatusCode::BAD_REQUEST, &json!({"error": text}));
    let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return bad(error.to_string()),
    };
    let plan = match serde_json::from_slice::<Plan>(&body) {
        Ok(plan) => plan,
        Err(error) => return bad(error.to_string()),
    };
    let is_one_way = plan.mode.is_refusing() && plan.seconds.is_none() && !shared.has_control;
    if is_one_way {
        return bad("nobody could reach /mode any more: give \"seconds\", or start with --control".to_owned());
    }
    let answer = json_reply(StatusCode::OK, &json!(plan));
    shared.switch(plan);
    answer
}

async fn edge(shared: &Shared, request: Request<Incoming>) -> Result<Reply, Cut> {
    let (parts, body) = request.into_parts();
    let mut behavior = shared.watch_mode();
    let mode = shared.take_mode();
    if mode == Mode::Hang {
        until_switched(&mut behavior).await;
        return Err(Cut);
    }
    if let Mode::Slow { latency_ms } = mode {
        tokio::time::sleep(Duration::from_millis(latency_ms)).await;
    }
    let body = match read_body(shared, &mode, body).await? {
        Ok(body) => body,
        Err(reply) => return Ok(reply),
    };
    if let Some(reply) = outage(&mode) {
        return Ok(reply);
    }
    let signed =
        Signed { method: &parts.method, path: parts.uri.path(), headers: &parts.headers, body: &body };
    if let Err(Denied { status, code, extra }) = shared.authorize(signed) {
        return Ok(error(status, code, &extra));
    }
    match (&parts.method, parts.uri.path()) {
        (&Method::POST, BATCH_PATH) => take_batch(shared, &mode, &parts.headers, &body),
        (&Method::GET, HANDSHAKE_PATH) => Ok(handshake(shared, &parts.headers)),
        (&Method::GET, DEDUPE_PATH) => Ok(dedupe(shared, &Query::of(&parts))),
        _ => Ok(error(StatusCode::NOT_FOUND, "NOT_FOUND", &Value::Null)),
    }
}

async fn read_body(shared: &Shared, mode: &Mode, body: Incoming) -> Result<Result<Bytes, Reply>, Cut> {
    let too_large = || Ok(Err(error(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", &Value::Null)));
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => {
            let body = body.to_bytes();
            let Mode::TooLarge { bytes_max } = mode else {
                return Ok(Ok(body));
            };
            if body.len() <= *bytes_max {
                return Ok(Ok(body));
            }
            if let Ok(batch) = serde_json::from_slice::<Batch<'_>>(&body) {
                shared.judge().refuse(&batch);
            }
            too_large()
        }
        Err(failure) if failure.is::<LengthLimitError>() => {
            shared.judge().violate("body_too_large", format!("more than {BODY_BYTES_MAX} bytes"));
            too_large()
        }
        Err(_) => Err(Cut),
    }
}

/// The answers that look at nothing.
fn outage(mode: &Mode) -> Option<Reply> {
    let status = |code, name| Some(error(code, name, &Value::Null));
    match mode {
        Mode::Unavailable => status(StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE"),
        Mode::Unauthorized => status(StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
        Mode::Forbidden => status(StatusCode::FORBIDDEN, "FORBIDDEN"),
        Mode::NotFound => status(StatusCode::NOT_FOUND, "NOT_FOUND"),
        Mode::Status { code } => {
            status(StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), "PRETENDED")
        }
        Mode::Throttled { retry_after } => {
            let mut reply = error(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_REQUESTS", &Value::Null);
            let value = retry_after.as_deref().and_then(|text| text.parse().ok());
            value.map(|value| reply.headers_mut().insert(RETRY_AFTER, value));
            Some(reply)
        }
        Mode::Captive => Some(plain(StatusCode::OK, "text/html", "<html><body>Please log in.</body></html>")),
        Mode::Redirect => {
            let mut reply = plain(StatusCode::FOUND, "text/html", "");
            reply
                .headers_mut()
                .insert(LOCATION, hyper::header::HeaderValue::from_static("http://127.0.0.1:9/login"));
            Some(reply)
        }
        Mode::Ok
        | Mode::Refuse
        | Mode::Hang
        | Mode::Slow { .. }
        | Mode::LoseAnswer
        | Mode::Poison { .. }
        | Mode::TooLarge { .. }
        | Mode::RejectIds { .. }
        | Mode::RejectWithoutIds
        | Mode::CountMismatch
        | Mode::BareOk => None,
    }
}

fn take_batch(shared: &Shared, mode: &Mode, headers: &HeaderMap, body: &[u8]) -> Result<Reply, Cut> {
    let parsed = serde_json::from_slice::<Batch<'_>>(body);
    let mut judge = shared.judge();
    judge.verdict.received_batches += 1;
    let mut malformed = |detail: String| {
        let reply = error(StatusCode::BAD_REQUEST, "VALIDATION_ERROR", &json!({"message": detail}));
        judge.violate("malformed_batch", detail);
        Ok(reply)
    };
    let batch = match parsed {
        Ok(batch) => batch,
        Err(failure) => return malformed(format!("no batch: {failure}")),
    };
    if let Err(flaw) = check_headers(headers, &batch) {
        return malformed(flaw);
    }
    if batch.events.iter().any(|event| event.get() == "null") {
        judge.violate("fatal_null_event", "a null element of events makes the cloud process exit");
        return Err(Cut);
    }
    if let Mode::Poison { ids } = mode
        && is_poisoned(&batch, ids)
    {
        judge.refuse(&batch);
        return Ok(error(StatusCode::BAD_REQUEST, "BAD_REQUEST", &Value::Null));
    }
    let answer = judge.take(&batch, mode, shared.clock.now());
    if *mode == Mode::LoseAnswer {
        return Err(Cut);
    }
    Ok(json_reply(StatusCode::OK, &answer))
}

fn check_headers(headers: &HeaderMap, batch: &Batch<'_>) -> Result<(), String> {
    let header = |name: &str| {
        headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok()).unwrap_or_default()
    };
    let tenant_id = batch.tenant_id.as_deref().unwrap_or_default();
    if tenant_id.is_empty() {
        return Err("tenant_id is missing".to_owned());
    }
    if header("content-type").split(';').next().map(str::trim) != Some("application/json") {
        return Err(format!("content-type is {:?}", header("content-type")));
    }
    if headers.contains_key(CONTENT_ENCODING) {
        return Err("content-encoding is not understood".to_owned());
    }
    if header("x-tenant-id") != tenant_id {
        return Err(format!("x-tenant-id {:?} differs from tenant_id {tenant_id:?}", header("x-tenant-id")));
    }
    let batch_id = header("x-request-id");
    for name in ["x-request-id", "x-trace-id", "x-idempotency-key"] {
        let value = header(name);
        let is_batch_id = value == batch_id && ids::parse(value).is_some_and(|id| (id >> 76) & 0xF == 7);
        if !is_batch_id {
            return Err(format!("{name} is {value:?}, which is not the UUIDv7 of the batch"));
        }
    }
    Ok(())
}

fn is_poisoned(batch: &Batch<'_>, ids: &std::collections::HashSet<String>) -> bool {
    let is_poison = |raw: &&serde_json::value::RawValue| {
        let event = crate::cloud::batch::Event::read(raw);
        ids.contains(crate::cloud::batch::text(event.event_id).as_ref())
    };
    ids.is_empty() || batch.events.iter().any(is_poison)
}

fn handshake(shared: &Shared, headers: &HeaderMap) -> Reply {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    json_reply(
        StatusCode::OK,
        &json!({"ok": true, "service": "cloud-ingestion", "auth_mode": shared.auth.name(),
            "request_id": header("x-request-id"), "trace_id": header("x-trace-id"),
            "time": time::format(shared.clock.now())}),
    )
}

fn dedupe(shared: &Shared, query: &Query) -> Reply {
    let (default, max) = DEDUPE_LIMIT;
    let limit = query.number("limit", default).min(max);
    let entries = shared.judge().first_seen(query.text("tenant_id"), limit);
    json_reply(StatusCode::OK, &json!({"count": entries.len(), "entries": entries}))
}

/// One object a line.
fn json_lines<T: serde::Serialize>(items: &[T]) -> Reply {
    let lines: String = items.iter().map(|item| format!("{}\n", json!(item))).collect();
    plain(StatusCode::OK, "application/x-ndjson", lines)
}

fn stream_ids(shared: &Shared, tenant_id: &str) -> Reply {
    let (uuids, others) = shared.judge().seen.ids(tenant_id);
    let body = IdLines { uuids: uuids.into_iter(), others: others.into_iter() };
    let mut reply = Response::new(body.boxed());
    reply.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/plain"));
    reply
}

/// Ids, one a line, made into text piece by piece.
struct IdLines {
    uuids: std::vec::IntoIter<u128>,
    others: std::vec::IntoIter<String>,
}

impl Body for IdLines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let ids = this.uuids.by_ref().map(ids::hyphenated).chain(this.others.by_ref());
        let lines: String = ids.take(IDS_PER_FRAME).flat_map(|id| [id, "\n".to_owned()]).collect();
        if lines.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(lines)))))
    }
}

/// The query string, undecoded: ids need no escapes.
struct Query(HashMap<String, String>);

impl Query {
    fn of(parts: &Parts) -> Self {
        let pairs = parts.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        Self(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    fn number(&self, key: &str, default: usize) -> usize {
        self.text(key).parse().unwrap_or(default)
    }
}

fn plain(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()).boxed());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    reply
}

fn json_reply(status: StatusCode, body: &Value) -> Reply {
    plain(status, "application/json", body.to_string())
}

/// An error as the cloud writes it; what it tells beyond the code stands inside and beside `error`.
fn error(status: StatusCode, code: &str, extra: &Value) -> Reply {
    let mut inner = json!({"code": code, "message": code, "traceId": "pretend"});
    let mut body = json!({});
    for (key, value) in extra.as_object().into_iter().flatten() {
        inner[key] = value.clone();
        body[key] = value.clone();
    }
    body["error"] = inner;
    json_reply(status, &body)
}
