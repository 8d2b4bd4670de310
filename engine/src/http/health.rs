//! Whether the process lives, and whether it can do its work.

use std::convert::Infallible;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use actors::media::store::MediaStore;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schema::metrics;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;

use super::AppState;
use super::time::Time;
use crate::cluster::Stage;

/// How long an answer of the media store is good for.
const MEDIA_ANSWER_AGE_MAX: Duration = Duration::from_secs(5);
/// How long the media store may take to answer.
const MEDIA_ANSWER_WAIT_MAX: Duration = Duration::from_secs(2);
/// How often the engine looks itself whether it is ready, so that log and metric know when nobody asks.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The process lives.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `healthy`.
    #[schema(example = "healthy")]
    status: &'static str,
}

/// Says that the process lives; nothing else is touched.
#[utoipa::path(get, path = "/api/health", tag = "health",
    responses((status = 200, description = "It lives", body = Health)))]
pub(super) async fn health() -> Json<Health> {
    Json(Health { status: "healthy" })
}

/// Says that the process lives, under the short name.
#[utoipa::path(get, path = "/health", tag = "health",
    responses((status = 200, description = "It lives", body = Health)))]
pub(super) async fn short_health() -> Json<Health> {
    health().await
}

/// Whether the engine can do its work, and what it depends on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"status": "ready", "db": "up", "mqtt": true, "sessions": "kept", "outbox": "ok", "bucket": "farmiq-media",
    "presign": "ok", "s3": "up", "cloud": "down", "cloud_last_success_at": "2026-02-12T08:01:10.000Z"}))]
pub(super) struct Readiness {
    /// `ready`, or `not_ready` when database, MQTT or the media store are unusable.
    status: &'static str,
    /// `up` or `down`.
    db: &'static str,
    /// Whether the broker, embedded or external, is usable.
    mqtt: bool,
    /// `kept` when lasting MQTT sessions are kept by this engine, `elsewhere` when another engine on the same database keeps
    /// them. It never changes the status, and is not there with an external broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<&'static str>,
    /// `ok`, or `error` when no event can be queued for the cloud.
    outbox: &'static str,
    /// The bucket of images; a name for either backend.
    bucket: String,
    /// `ok`, or `error` when no upload can be offered.
    presign: &'static str,
    /// The media store of either backend: `up` or `down`.
    s3: &'static str,
    /// `up`, `down`, `unknown` or `disabled`; it never changes the status.
    cloud: &'static str,
    /// When the cloud last took something; null when it never did.
    cloud_last_success_at: Option<Time>,
    /// What it waits for while it is not ready: `initdb`, `postgres` or `recovery` of a private database, else
    /// `database`, `mqtt` or `media`.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<&'static str>,
}

/// Says whether the engine can do its work; a barn stays ready while its cloud is away.
#[utoipa::path(get, path = "/api/ready", tag = "health",
    responses((status = 200, description = "Ready", body = Readiness),
        (status = 503, description = "Not ready: a status document, not an error", body = Readiness,
            example = json!({"status": "not_ready", "db": "down", "mqtt": true, "outbox": "error", "bucket": "farmiq-media",
                "presign": "ok", "s3": "up", "cloud": "down", "cloud_last_success_at": null, "waits_for": "database"}))))]
pub(super) async fn ready(State(state): State<Arc<AppState>>) -> (StatusCode, Json<Readiness>) {
    let Found { is_database_up, is_mqtt_connected, is_media_up, waits_for } = look(&state).await;
    let cloud = state.sync.view();
    let is_ready = waits_for.is_none();
    let body = Readiness {
        status: if is_ready { "ready" } else { "not_ready" },
        db: up_or_down(is_database_up),
        mqtt: is_mqtt_connected,
        sessions: (state.keeps_sessions)().map(|is_kept| if is_kept { "kept" } else { "elsewhere" }),
        outbox: ok_or_error(is_database_up),
        bucket: state.settings.bucket.clone(),
        presign: ok_or_error(is_media_up),
        s3: up_or_down(is_media_up),
        cloud: cloud.state.as_str(),
        cloud_last_success_at: cloud.last_success_at.map(Time),
        waits_for,
    };
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body))
}

/// Says whether the engine can do its work, under the short name.
#[utoipa::path(get, path = "/ready", tag = "health",
    responses((status = 200, description = "Ready", body = Readiness),
        (status = 503, description = "Not ready: a status document, not an error", body = Readiness,
            example = json!({"status": "not_ready", "db": "down", "mqtt": true, "outbox": "error", "bucket": "farmiq-media",
                "presign": "ok", "s3": "up", "cloud": "down", "cloud_last_success_at": null, "waits_for": "database"}))))]
pub(super) async fn short_ready(state: State<Arc<AppState>>) -> (StatusCode, Json<Readiness>) {
    ready(state).await
}

/// What a look at everything that is needed has found.
struct Found {
    is_database_up: bool,
    is_mqtt_connected: bool,
    is_media_up: bool,
    waits_for: Option<&'static str>,
}

/// Looks, and notes what was found.
async fn look(state: &AppState) -> Found {
    let is_database_up = state.database.is_up();
    let is_mqtt_connected = (state.is_mqtt_connected)();
    let is_media_up = state.is_media_up().await;
    let stage = state.cluster.as_ref().map(|stage| *stage.borrow());
    let waits_for = waits_for(stage, is_database_up, is_mqtt_connected, is_media_up);
    state.troubles.note(waits_for);
    Found { is_database_up, is_mqtt_connected, is_media_up, waits_for }
}

/// Looks now and then, for ever.
pub(super) async fn watch(state: &AppState) -> Infallible {
    loop {
        look(state).await;
        sleep(LOOK_EVERY).await;
    }
}

/// Times in which the engine was not ready: each has a line in the log at its beginning and one at its end.
#[derive(Default)]
pub(super) struct Troubles(StdMutex<Standing>);

/// How it stood at the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Standing {
    /// Nobody has looked.
    #[default]
    Unknown,
    /// It was never ready.
    Starting(Instant),
    Ready,
    NotReady(Instant),
}

impl Troubles {
    fn note(&self, waits_for: Option<&'static str>) {
        metrics::engine_ready().set(if waits_for.is_none() { 1.0 } else { 0.0 });
        let mut standing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *standing = match (*standing, waits_for) {
            (Standing::Unknown | Standing::Ready, None) => Standing::Ready,
            (Standing::Unknown, Some(waits_for)) => {
                tracing::info!(waits_for, "not ready yet");
                Standing::Starting(Instant::now())
            }
            (Standing::Starting(since), None) => {
                tracing::info!(after_seconds = since.elapsed().as_secs(), "ready");
                Standing::Ready
            }
            (Standing::Ready, Some(waits_for)) => {
                tracing::warn!(waits_for, "not ready any more");
                Standing::NotReady(Instant::now())
            }
            (Standing::NotReady(since), None) => {
                tracing::info!(after_seconds = since.elapsed().as_secs(), "ready again");
                Standing::Ready
            }
            (same @ (Standing::Starting(_) | Standing::NotReady(_)), Some(_)) => same,
        };
    }
}

/// The first thing that is missing: what comes after it may well be missing because of it.
fn waits_for(
    cluster: Option<Stage>,
    is_database_up: bool,
    is_mqtt_connected: bool,
    is_media_up: bool,
) -> Option<&'static str> {
    match cluster {
        Some(Stage::Making) => Some("initdb"),
        Some(Stage::Starting) => Some("postgres"),
        Some(Stage::Recovering) => Some("recovery"),
        Some(Stage::Ready) | None if !is_database_up => Some("database"),
        Some(Stage::Ready) | None if !is_mqtt_connected => Some("mqtt"),
        Some(Stage::Ready) | None => (!is_media_up).then_some("media"),
    }
}

fn up_or_down(is_up: bool) -> &'static str {
    if is_up { "up" } else { "down" }
}

fn ok_or_error(is_ok: bool) -> &'static str {
    if is_ok { "ok" } else { "error" }
}

/// Watches the place of the images, asking it no more often than every few seconds.
pub(super) struct MediaProbe {
    store: Arc<dyn MediaStore>,
    last: Mutex<Option<(Instant, bool)>>,
}

impl MediaProbe {
    /// Watches this store.
    pub(super) fn new(store: Arc<dyn MediaStore>) -> Self {
        Self { store, last: Mutex::default() }
    }

    pub(super) async fn is_up(&self) -> bool {
        let mut last = self.last.lock().await;
        if let Some((at, is_up)) = *last
            && at.elapsed() < MEDIA_ANSWER_AGE_MAX
        {
            return is_up;
        }
        let asked = tokio::time::timeout(MEDIA_ANSWER_WAIT_MAX, self.store.probe()).await;
        let is_up = asked.is_ok_and(|answer| answer.is_ok());
        *last = Some((Instant::now(), is_up));
        is_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_begins_and_ends_once_however_often_somebody_asks() {
        let troubles = Troubles::default();
        let check = |waits_for, is_expected: fn(Standing) -> bool| {
            for _ in 0..3 {
                troubles.note(waits_for);
                let standing = *troubles.0.lock().unwrap();
                assert!(is_expected(standing), "{standing:?}");
            }
        };
        check(Some("initdb"), |standing| matches!(standing, Standing::Starting(_)));
        check(None, |standing| standing == Standing::Ready);
        check(Some("database"), |standing| matches!(standing, Standing::NotReady(_)));
        check(Some("media"), |standing| matches!(standing, Standing::NotReady(_)));
        check(None, |standing| standing == Standing::Ready);
    }
}
