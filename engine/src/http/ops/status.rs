//! The state of the box in one document, which the operator page asks for every few seconds.

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actors::sync::status::CloudState;
use axum::Json;
use axum::extract::State;
use schema::clock::Timestamp;
use schema::store::{StoreError, inference};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;

use crate::config::Config;
use crate::http::AppState;
use crate::http::auth::{Call, Tenants};
use crate::http::error::{Code, Error};
use crate::http::inference::model_status;
use crate::http::sync::{SyncStateBody, read_state};
use crate::http::time::Time;
use crate::runway::Runway;

/// How long one part may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// With more images than this to look at, inference lags behind.
const QUEUE_DEPTH_MAX: i64 = 1000;
/// When an image has waited longer than this, inference lags behind.
const QUEUE_AGE_SECONDS_MAX: i64 = 30 * 60;

/// How the whole box is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Overall {
    /// All is well.
    Ok,
    /// Everything works, but something cannot do all of its work now.
    Warn,
    /// Something does not work.
    Degraded,
}

/// The state of the box.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct EdgeStatusBody {
    data: EdgeStatus,
}

/// The inside of [`EdgeStatusBody`].
#[derive(Debug, Serialize, ToSchema)]
struct EdgeStatus {
    /// `DEGRADED` when a part does not work, `WARN` when one is not ready.
    overall: Overall,
    /// When the parts were looked at.
    last_check_at: Time,
    /// The parts, by the names of the services they replaced.
    services: Vec<Service>,
    /// The machine.
    resources: Resources,
    /// The outbox, as far as the caller may see it; while the database is away, as it was last seen.
    sync_state: SyncStateBody,
}

/// A part of the engine.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct Service {
    /// The service that it replaced.
    #[schema(example = "edge-ingress-gateway")]
    name: &'static str,
    /// Where it answers.
    #[schema(example = "http://localhost:3000")]
    base_url: String,
    /// Whether it works.
    health_ok: bool,
    /// Whether it can do all of its work now.
    ready_ok: bool,
    /// Milliseconds it took to find out; null where nobody had to be asked.
    #[schema(example = 3)]
    latency_ms: Option<u64>,
    /// When.
    last_check_at: Time,
    /// What else there is to say; left out where there is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

/// What else there is to say of a part.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
enum Details {
    /// Of `edge-vision-inference`.
    Vision(VisionDetails),
    /// Of `edge-media-store`.
    Media(MediaDetails),
}

/// The model, who works with it, and what waits for them.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct VisionDetails {
    /// `ready`, `demo` for a demonstration model, `disabled` when this engine looks at no images.
    #[schema(example = "demo")]
    model_status: &'static str,
    /// The version that results carry.
    #[schema(example = "demo-1.0.0")]
    model_version: String,
    /// Why the newest package at the model's path is not in use; left out when it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    model_error: Option<String>,
    /// Workers of this engine.
    #[schema(example = 1)]
    workers: usize,
    /// Images to look at, those under way included; null while the database is away.
    #[schema(example = 0)]
    queue_depth: Option<i64>,
    /// How long the oldest of them has waited; null when there is none.
    #[schema(example = 3)]
    queue_age_seconds: Option<i64>,
    /// Whether RabbitMQ answers, without which jobs are found a little later; left out when it is not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    is_rabbitmq_connected: Option<bool>,
}

/// Where images lie.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct MediaDetails {
    /// `s3` or `filesystem`.
    #[schema(example = "filesystem")]
    backend: &'static str,
    /// Whether there is room for more.
    has_room: bool,
}

/// What the machine has left; null where the system does not say.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
struct Resources {
    /// Mean number of running processes over a minute.
    cpu_load_1m: Option<f64>,
    /// Over five minutes.
    cpu_load_5m: Option<f64>,
    /// Over a quarter of an hour.
    cpu_load_15m: Option<f64>,
    /// Memory that programs could still get.
    #[schema(example = 2_147_483_648_u64)]
    memory_free_bytes: Option<u64>,
    /// Memory there is.
    #[schema(example = 8_589_934_592_u64)]
    memory_total_bytes: Option<u64>,
    /// Days that the cloud may stay away until the volume of the database is full; null until an hour was measured.
    #[schema(example = 46.5)]
    offline_runway_days: Option<f64>,
    /// Room on the volume of `ops.disk_path`.
    #[schema(example = 53_687_091_200_u64)]
    disk_free_bytes: Option<u64>,
    /// Its size.
    #[schema(example = 107_374_182_400_u64)]
    disk_total_bytes: Option<u64>,
}

/// Shows how the box is.
#[utoipa::path(get, path = "/api/v1/ops/edge/status", tag = "operations",
    responses((status = 200, description = "How the box is", body = EdgeStatusBody),
        (status = 503, description = "NOT_READY: nothing has been looked at yet")))]
pub(in crate::http) async fn edge_status(
    State(state): State<Arc<AppState>>,
    call: Call,
) -> Result<Json<EdgeStatusBody>, Error> {
    let tenants = call.tenants(None)?;
    let Checked { at, services, resources } = state.edge.checked(&state).await;
    let sync_state = state.edge.sync_state(&state, &tenants).await?;
    let overall = overall(&services);
    let last_check_at = at.into();
    Ok(Json(EdgeStatusBody { data: EdgeStatus { overall, last_check_at, services, resources, sync_state } }))
}

/// | a part | overall |
/// |---|---|
/// | does not work | `DEGRADED` |
/// | works and is not ready | `WARN` |
/// | else | `OK` |
fn overall(services: &[Service]) -> Overall {
    if services.iter().any(|service| !service.health_ok) {
        Overall::Degraded
    } else if services.iter().any(|service| !service.ready_ok) {
        Overall::Warn
    } else {
        Overall::Ok
    }
}

/// Looks at the box no more often than it is told to, however often it is asked.
#[derive(Debug)]
pub(in crate::http) struct EdgeCheck {
    base_url: String,
    disk_path: PathBuf,
    data_dir: PathBuf,
    check_every: Duration,
    /// Workers that this engine is to have.
    workers: usize,
    last: Mutex<Option<(Instant, Checked)>>,
    /// What each group of tenants last saw of the outbox; as many as there are operator keys.
    seen: Mutex<HashMap<Option<Vec<String>>, SyncStateBody>>,
}

#[derive(Clone, Debug)]
struct Checked {
    at: Timestamp,
    services: Vec<Service>,
    resources: Resources,
}

impl EdgeCheck {
    /// Nothing was looked at yet.
    pub(in crate::http) fn new(config: &Config) -> Self {
        Self {
            base_url: config.http.url().as_str().to_owned(),
            disk_path: config.ops.disk_path.clone(),
            data_dir: config.edge.data_dir.clone(),
            check_every: Duration::from_secs(config.ops.check_seconds),
            workers: if config.inference.enabled { config.inference.workers } else { 0 },
            last: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    async fn checked(&self, state: &AppState) -> Checked {
        let mut last = self.last.lock().await;
        if let Some((at, checked)) = last.as_ref()
            && at.elapsed() < self.check_every
        {
            return checked.clone();
        }
        let checked = self.check(state).await;
        *last = Some((Instant::now(), checked.clone()));
        checked
    }

    async fn check(&self, state: &AppState) -> Checked {
        let at = state.clock.now();
        let queue = async |conn: &mut _| inference::queue(conn).await;
        let (database, queue, media, has_room, resources) = tokio::join!(
            timed(async { state.reads.ping().await.ok() }),
            timed(async { state.reads.run("inference_queue", queue).await.ok() }),
            timed(async { state.is_media_up().await.then_some(()) }),
            timed(async { Some(state.media.has_room().await) }),
            resources(self.disk_path.clone(), self.data_dir.clone())
        );
        let is_mqtt_up = (state.is_mqtt_connected)();
        let is_cloud_away = state.sync.view().state == CloudState::Down;
        // A volume that does not answer is no reason to say that it is full.
        let has_room = has_room.found.unwrap_or(true);
        let service = |name, latency: Option<Duration>, health_ok, is_ready| Service {
            name,
            base_url: self.base_url.clone(),
            health_ok,
            ready_ok: health_ok && is_ready,
            latency_ms: latency.map(|latency| u64::try_from(latency.as_millis()).unwrap_or(u64::MAX)),
            last_check_at: at.into(),
            details: None,
        };
        let part = |name, answer: &Answer<()>, is_ready| {
            service(name, Some(answer.latency), answer.found.is_some(), is_ready)
        };
        let vision = vision_details(state, queue.found, at);
        let is_vision_up = queue.found.is_some() && (self.workers == 0 || vision.workers > 0);
        let is_vision_ready = is_abreast(&vision, self.workers);
        let media_details = MediaDetails { backend: state.media.backend(), has_room };
        let services = vec![
            // Whether clients are served is known without asking anybody.
            service("edge-ingress-gateway", None, is_mqtt_up, true),
            part("edge-telemetry-timeseries", &database, true),
            part("edge-weighvision-session", &database, true),
            Service {
                details: Some(Details::Vision(vision)),
                ..service("edge-vision-inference", Some(queue.latency), is_vision_up, is_vision_ready)
            },
            Service {
                details: Some(Details::Media(media_details)),
                ..part("edge-media-store", &media, has_room)
            },
            // A barn works on while it is offline; its events wait.
            part("edge-sync-forwarder", &database, !is_cloud_away),
        ];
        Checked { at, services, resources }
    }

    /// The outbox of some tenants, or what was last seen of it.
    async fn sync_state(&self, state: &AppState, tenants: &Tenants) -> Result<SyncStateBody, Error> {
        let silent = Err(StoreError::Unanswered { name: "sync_state" });
        let read = timeout(ANSWER_MAX, read_state(state, tenants)).await.unwrap_or(silent);
        let mut seen = self.seen.lock().await;
        let whose = tenants.as_slice().map(<[String]>::to_vec);
        match read {
            Ok(body) => {
                seen.insert(whose, body.clone());
                Ok(body)
            }
            Err(error) => seen.get(&whose).cloned().ok_or_else(|| Error {
                cause: Some(Arc::new(error)),
                ..Error::new(Code::NotReady, "the outbox has not been looked at yet")
            }),
        }
    }
}

/// What is known of inference; `queue` is its depth, and since when the oldest job waits.
fn vision_details(
    state: &AppState,
    queue: Option<(i64, Option<Timestamp>)>,
    now: Timestamp,
) -> VisionDetails {
    let oldest_at = queue.and_then(|(_, oldest_at)| oldest_at);
    VisionDetails {
        model_status: model_status(state),
        model_version: state.inference.model_version().to_string(),
        model_error: state.inference.fault().map(|fault| fault.to_string()),
        workers: state.inference.workers(),
        queue_depth: queue.map(|(depth, _)| depth),
        queue_age_seconds: oldest_at.map(|oldest_at| (now - oldest_at).num_seconds().max(0)),
        is_rabbitmq_connected: state.inference.orders().map(|orders| orders.is_connected()),
    }
}

/// Whether inference has all its workers, the newest model and its RabbitMQ, and does not lag behind.
fn is_abreast(vision: &VisionDetails, workers: usize) -> bool {
    vision.workers >= workers
        && vision.model_error.is_none()
        && vision.is_rabbitmq_connected != Some(false)
        && vision.queue_depth.is_none_or(|depth| depth <= QUEUE_DEPTH_MAX)
        && vision.queue_age_seconds.is_none_or(|seconds| seconds <= QUEUE_AGE_SECONDS_MAX)
}

/// What a part answers, and how fast.
struct Answer<T> {
    found: Option<T>,
    latency: Duration,
}

async fn timed<T>(question: impl Future<Output = Option<T>>) -> Answer<T> {
    let asked_at = Instant::now();
    let found = timeout(ANSWER_MAX, question).await.ok().flatten();
    Answer { found, latency: asked_at.elapsed() }
}

/// A volume may hang, and must not hold anybody up.
async fn resources(disk_path: PathBuf, data_dir: PathBuf) -> Resources {
    let look = tokio::task::spawn_blocking(move || look_at_machine(&disk_path, &data_dir));
    timeout(ANSWER_MAX, look).await.ok().and_then(Result::ok).unwrap_or_default()
}

fn look_at_machine(disk_path: &Path, data_dir: &Path) -> Resources {
    let loads = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut loads = loads.split_whitespace().map_while(|load| load.parse().ok());
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let disk = rustix::fs::statvfs(disk_path).ok();
    Resources {
        cpu_load_1m: loads.next(),
        cpu_load_5m: loads.next(),
        cpu_load_15m: loads.next(),
        memory_free_bytes: memory_bytes(&memory, "MemAvailable:"),
        memory_total_bytes: memory_bytes(&memory, "MemTotal:"),
        offline_runway_days: Runway::read(data_dir).map(|runway| runway.days),
        disk_free_bytes: disk.as_ref().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
        disk_total_bytes: disk.as_ref().map(|disk| disk.f_blocks.saturating_mul(disk.f_frsize)),
    }
}

/// A line of `/proc/meminfo`, which counts in KiB.
fn memory_bytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_part_decides() {
        let service = |health_ok, ready_ok| Service {
            name: "edge-media-store",
            base_url: String::new(),
            health_ok,
            ready_ok,
            latency_ms: None,
            last_check_at: schema::wire::time::parse("2026-02-12T09:00:00Z").expect("a time").into(),
            details: None,
        };
        let check = |services: &[Service], expected| assert_eq!(overall(services), expected, "{services:?}");
        check(&[service(true, true), service(true, true)], Overall::Ok);
        check(&[service(true, true), service(true, false)], Overall::Warn);
        check(&[service(true, false), service(false, false)], Overall::Degraded);
    }

    #[test]
    fn inference_is_abreast_until_something_is_amiss() {
        let good = VisionDetails {
            model_status: "ready",
            model_version: "v1".to_owned(),
            model_error: None,
            workers: 2,
            queue_depth: Some(1000),
            queue_age_seconds: Some(1800),
            is_rabbitmq_connected: None,
        };
        let check = |change: fn(&mut VisionDetails), expected| {
            let mut vision = good.clone();
            change(&mut vision);
            assert_eq!(is_abreast(&vision, 2), expected, "{vision:?}");
        };
        check(|_| {}, true);
        check(|vision| vision.queue_age_seconds = None, true);
        check(|vision| vision.workers = 1, false);
        check(|vision| vision.queue_depth = Some(1001), false);
        check(|vision| vision.queue_age_seconds = Some(1801), false);
        check(|vision| vision.is_rabbitmq_connected = Some(false), false);
        check(|vision| vision.model_error = Some("broken".to_owned()), false);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "MemTotal:       8000 kB\nMemFree:  1 kB\nMemAvailable:   4000 kB\n";
        assert_eq!(memory_bytes(text, "MemTotal:"), Some(8_192_000));
        assert_eq!(memory_bytes(text, "MemAvailable:"), Some(4_096_000));
        assert_eq!(memory_bytes(text, "SwapTotal:"), None);
    }
}
