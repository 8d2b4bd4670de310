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
use schema::store::StoreError;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;

use crate::config::Config;
use crate::http::AppState;
use crate::http::auth::{Call, Tenants};
use crate::http::error::{Code, Error};
use crate::http::sync::{SyncStateBody, read_state};
use crate::http::time::Time;

/// How long one part may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);

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
    /// Milliseconds it took to find out.
    #[schema(example = 3)]
    latency_ms: u64,
    /// When.
    last_check_at: Time,
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
    check_every: Duration,
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
            check_every: Duration::from_secs(config.ops.check_seconds),
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
        let (database, media, resources) = tokio::join!(
            timed(async { state.store.ping().await.is_ok() }),
            timed(state.media_probe.is_up()),
            resources(self.disk_path.clone())
        );
        let mqtt = timed(async { (state.is_mqtt_connected)() }).await;
        let is_cloud_away = state.sync.view().state == CloudState::Down;
        let is_rabbitmq_away = state.inference.orders().is_some_and(|orders| !orders.is_connected());
        let parts = [
            ("edge-ingress-gateway", &mqtt, true),
            ("edge-telemetry-timeseries", &database, true),
            ("edge-weighvision-session", &database, true),
            // Without RabbitMQ jobs are found a little later.
            ("edge-vision-inference", &database, !is_rabbitmq_away),
            ("edge-media-store", &media, true),
            // A barn works on while it is offline; its events wait.
            ("edge-sync-forwarder", &database, !is_cloud_away),
        ];
        let services = parts.map(|(name, found, is_ready)| Service {
            name,
            base_url: self.base_url.clone(),
            health_ok: found.is_up,
            ready_ok: found.is_up && is_ready,
            latency_ms: u64::try_from(found.latency.as_millis()).unwrap_or(u64::MAX),
            last_check_at: at.into(),
        });
        Checked { at, services: services.into(), resources }
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

/// Whether a part answers, and how fast.
struct Answer {
    is_up: bool,
    latency: Duration,
}

async fn timed(question: impl Future<Output = bool>) -> Answer {
    let asked_at = Instant::now();
    let is_up = timeout(ANSWER_MAX, question).await.unwrap_or(false);
    Answer { is_up, latency: asked_at.elapsed() }
}

/// A volume may hang, and must not hold anybody up.
async fn resources(disk_path: PathBuf) -> Resources {
    let look = tokio::task::spawn_blocking(move || look_at_machine(&disk_path));
    timeout(ANSWER_MAX, look).await.ok().and_then(Result::ok).unwrap_or_default()
}

fn look_at_machine(disk_path: &Path) -> Resources {
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
            latency_ms: 0,
            last_check_at: schema::wire::time::parse("2026-02-12T09:00:00Z").expect("a time").into(),
        };
        let check = |services: &[Service], expected| assert_eq!(overall(services), expected, "{services:?}");
        check(&[service(true, true), service(true, true)], Overall::Ok);
        check(&[service(true, true), service(true, false)], Overall::Warn);
        check(&[service(true, false), service(false, false)], Overall::Degraded);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "MemTotal:       8000 kB\nMemFree:  1 kB\nMemAvailable:   4000 kB\n";
        assert_eq!(memory_bytes(text, "MemTotal:"), Some(8_192_000));
        assert_eq!(memory_bytes(text, "MemAvailable:"), Some(4_096_000));
        assert_eq!(memory_bytes(text, "SwapTotal:"), None);
    }
}
