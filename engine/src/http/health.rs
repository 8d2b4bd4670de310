//! Whether the process lives, and whether it can do its work.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actors::sync::status::CloudState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use rustix::fs::{Access, access};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::AppState;
use super::time::Time;
use crate::config::{Media, MediaBackend, Url};

/// How long an answer of the media store is good for.
const MEDIA_ANSWER_AGE_MAX: Duration = Duration::from_secs(5);
/// How long the media store may take to answer.
const MEDIA_ANSWER_WAIT_MAX: Duration = Duration::from_secs(2);

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
#[schema(example = json!({"status": "ready", "db": "up", "mqtt": true, "outbox": "ok", "bucket": "farmiq-media",
    "presign": "ok", "s3": "up", "cloud": "down", "cloud_last_success_at": "2026-02-12T08:01:10.000Z"}))]
pub(super) struct Readiness {
    /// `ready`, or `not_ready` when database, MQTT or the media store are unusable.
    status: &'static str,
    /// `up` or `down`.
    db: &'static str,
    /// Whether the broker, embedded or external, is usable.
    mqtt: bool,
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
}

/// Says whether the engine can do its work; a barn stays ready while its cloud is away.
#[utoipa::path(get, path = "/api/ready", tag = "health",
    responses((status = 200, description = "Ready", body = Readiness),
        (status = 503, description = "Not ready: a status document, not an error", body = Readiness)))]
pub(super) async fn ready(State(state): State<Arc<AppState>>) -> (StatusCode, Json<Readiness>) {
    let is_database_up = state.database.is_up();
    let is_mqtt_connected = (state.is_mqtt_connected)();
    let is_media_up = state.media.is_up().await;
    let cloud = state.sync.view();
    let is_ready = is_database_up && is_mqtt_connected && is_media_up;
    let body = Readiness {
        status: if is_ready { "ready" } else { "not_ready" },
        db: up_or_down(is_database_up),
        mqtt: is_mqtt_connected,
        outbox: ok_or_error(is_database_up),
        bucket: state.media.bucket.clone(),
        presign: ok_or_error(is_media_up),
        s3: up_or_down(is_media_up),
        cloud: word(cloud.state),
        cloud_last_success_at: cloud.last_success_at.map(Time),
    };
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body))
}

/// Says whether the engine can do its work, under the short name.
#[utoipa::path(get, path = "/ready", tag = "health",
    responses((status = 200, description = "Ready", body = Readiness),
        (status = 503, description = "Not ready: a status document, not an error", body = Readiness)))]
pub(super) async fn short_ready(state: State<Arc<AppState>>) -> (StatusCode, Json<Readiness>) {
    ready(state).await
}

fn word(cloud: CloudState) -> &'static str {
    match cloud {
        CloudState::Up => "up",
        CloudState::Down => "down",
        CloudState::Unknown => "unknown",
        CloudState::Disabled => "disabled",
    }
}

fn up_or_down(is_up: bool) -> &'static str {
    if is_up { "up" } else { "down" }
}

fn ok_or_error(is_ok: bool) -> &'static str {
    if is_ok { "ok" } else { "error" }
}

/// Watches the place of the images, asking it no more often than every few seconds.
#[derive(Debug)]
pub(super) struct MediaProbe {
    bucket: String,
    place: Place,
    last: Mutex<Option<(Instant, bool)>>,
}

#[derive(Clone, Debug)]
enum Place {
    /// A directory that must be writable.
    Directory(PathBuf),
    /// An S3 server that must take connections.
    Server(String, u16),
}

impl MediaProbe {
    /// Watches what the configuration names.
    pub(super) fn new(media: &Media) -> Self {
        let endpoint = media.endpoint.as_ref().and_then(Url::host_and_port);
        let place = match (media.backend_in_use(), endpoint) {
            (MediaBackend::S3, Some((host, port))) => Place::Server(host, port),
            (MediaBackend::S3 | MediaBackend::Filesystem, _) => Place::Directory(media.root.clone()),
        };
        Self { bucket: media.bucket.clone(), place, last: Mutex::default() }
    }

    async fn is_up(&self) -> bool {
        let mut last = self.last.lock().await;
        if let Some((at, is_up)) = *last
            && at.elapsed() < MEDIA_ANSWER_AGE_MAX
        {
            return is_up;
        }
        let asked = tokio::time::timeout(MEDIA_ANSWER_WAIT_MAX, self.place.ask()).await;
        let is_up = asked.unwrap_or(false);
        *last = Some((Instant::now(), is_up));
        is_up
    }
}

impl Place {
    async fn ask(&self) -> bool {
        match self.clone() {
            Self::Directory(path) => {
                let is_writable = move || {
                    std::fs::create_dir_all(&path).is_ok()
                        && access(&path, Access::WRITE_OK | Access::EXEC_OK).is_ok()
                };
                tokio::task::spawn_blocking(is_writable).await.unwrap_or(false)
            }
            Self::Server(host, port) => TcpStream::connect((host.as_str(), port)).await.is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_is_up_when_it_can_be_written_to() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(Place::Directory(directory.path().join("media")).ask().await);
        let file = directory.path().join("file");
        std::fs::write(&file, "").expect("a file");
        assert!(!Place::Directory(file).ask().await);
    }
}
