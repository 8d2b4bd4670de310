//! The HTTP face of the engine: one port for devices, operators, health and metrics.

use std::path::PathBuf;
use std::sync::Arc;

use actors::alarm::desk::AlarmDesk;
use actors::alarm::feed::AlarmFeed;
use actors::allowlist::Allowlist;
use actors::board::Board;
use actors::budget::CallBudget;
use actors::console::ConsoleDesk;
use actors::credentials::Credentials;
use actors::credentials::desk::DeviceDesk;
use actors::database::DatabaseHealth;
use actors::flock::desk::FlockDesk;
use actors::inference::InferenceHub;
use actors::ingress::stats::IngressStats;
use actors::last_seen::SignsOfLife;
use actors::place::PlaceDesk;
use actors::retention::RetentionHub;
use actors::session::Sessions;
use actors::session::mark::MarkDesk;
use actors::stations::StationDesk;
use actors::sync::SyncHub;
use actors::telemetry::TelemetryWriters;
use axum::extract::DefaultBodyLimit;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{Method, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use broker::guesses::Guesses;
use schema::clock::Clock;
use schema::store::Store;
use tokio::sync::watch;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::CorsLayer;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use crate::cluster::Stage;
use crate::config::Config;
use crate::observe;
use crate::parts::Parts;
use crate::telling::Telling;

mod alarm;
mod audit;
pub mod auth;
mod board;
mod body;
mod chart;
mod climate;
mod comparison;
mod connections;
mod console;
mod cursor;
mod device;
mod error;
mod event;
mod fields;
mod flock;
mod frame;
mod health;
mod heartbeat;
mod inference;
mod ingress;
mod ledger;
mod limit;
mod media;
mod openapi;
mod ops;
mod place;
mod query;
mod reject;
mod retention;
mod runbooks;
mod server;
mod session;
mod standard;
mod station;
mod stream;
mod sync;
mod telemetry;
mod time;
pub(crate) mod tls;
mod way;

pub(crate) use comparison::ComparisonLine;
pub use connections::Connections;
pub(crate) use connections::RESERVED_MAX as CONNECTIONS_RESERVED;
pub use server::serve;
pub use tls::Encryption;

pub use auth::CurrentAuthority;
use auth::{Class, KeyFileError};
use error::{Code, Error};
use frame::Complaints;
use health::{MediaProbe, Troubles};
use limit::{InFlight, REQUESTS_IN_FLIGHT_MAX};
use media::MediaDesk;
use ops::status::EdgeCheck;
use stream::Streams;

/// Everything the handlers work with.
pub struct AppState {
    /// Limits and headers.
    settings: Settings,
    /// Wall time.
    clock: Clock,
    /// The database, where calls write.
    store: Store,
    /// Where they look.
    reads: Store,
    /// Whether it answers.
    database: DatabaseHealth,
    /// What the private cluster is busy with, when there is one.
    cluster: Option<watch::Receiver<Stage>>,
    /// Who may call, as it stands now.
    authority: CurrentAuthority,
    /// Which devices may act.
    allowlist: Allowlist,
    /// Passwords of devices.
    credentials: Credentials,
    /// Who has shown wrong credentials, over MQTT or HTTP.
    guesses: Guesses,
    /// Makes credentials.
    desk: DeviceDesk,
    /// Lets stations in.
    stations: StationDesk,
    /// The flocks' book.
    book: FlockDesk,
    /// What people say of weighings.
    marks: MarkDesk,
    /// Says where devices are.
    place_desk: PlaceDesk,
    /// The latest value of each metric of each device.
    board: Board,
    /// What becomes of alarms.
    alarm_feed: AlarmFeed,
    /// The live streams that are open.
    streams: Streams,
    /// Who may look at the console.
    console: ConsoleDesk,
    /// The alarms.
    alarms: AlarmDesk,
    /// When devices last called.
    signs_of_life: SignsOfLife,
    /// What calls may have in the engine's hands.
    calls: CallBudget,
    /// Where readings are stored.
    telemetry: TelemetryWriters,
    /// Where orders of weighing sessions go.
    sessions: Sessions,
    /// What came in over MQTT.
    ingress: Arc<IngressStats>,
    /// Whether the broker, embedded or external, is usable.
    is_mqtt_connected: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Whether lasting sessions are kept here; `None` with an external broker.
    keeps_sessions: Arc<dyn Fn() -> Option<bool> + Send + Sync>,
    /// Sends to the cloud.
    sync: SyncHub,
    /// Images.
    media: MediaDesk,
    /// The model, and whoever works with it.
    inference: InferenceHub,
    /// Whether the place of the images is usable; `None` where nobody needs it.
    media_probe: Option<MediaProbe>,
    /// When the engine was not ready.
    troubles: Troubles,
    /// Passes over what has become old.
    retention: RetentionHub,
    /// What tells of alarms, and of the engine's own life.
    telling: Telling,
    /// The state of the box, as it was last looked at.
    edge: EdgeCheck,
    /// The text of all metrics; `None` when Prometheus is switched off.
    render_metrics: Option<Render>,
    /// Which lines of the log strangers have caused.
    complaints: Complaints,
}

impl AppState {
    /// The state of an engine that is made of `parts`.
    ///
    /// # Errors
    /// When a file of `auth.jwt_public_key_files` cannot be read.
    pub fn of(config: &Config, parts: &Parts) -> Result<Self, KeyFileError> {
        let (way_in, sessions_view) = (parts.way_in.clone(), parts.way_in.clone());
        Ok(Self {
            settings: Settings::of(config),
            clock: parts.clock.clone(),
            store: parts.calls.clone(),
            reads: parts.store.reads(),
            database: parts.database.clone(),
            cluster: parts.cluster.clone(),
            authority: CurrentAuthority::new(&config.auth)?,
            allowlist: parts.allowlist.clone(),
            credentials: parts.credentials.clone(),
            guesses: parts.guesses.clone(),
            desk: parts.desk.clone(),
            stations: StationDesk { store: parts.calls.clone(), clock: parts.clock.clone() },
            book: FlockDesk {
                store: parts.calls.clone(),
                reads: parts.store.reads(),
                clock: parts.clock.clone(),
            },
            marks: MarkDesk {
                store: parts.calls.clone(),
                reads: parts.store.reads(),
                clock: parts.clock.clone(),
            },
            place_desk: PlaceDesk {
                store: parts.calls.clone(),
                reads: parts.store.reads(),
                clock: parts.clock.clone(),
                places: parts.places.clone(),
            },
            board: parts.board.clone(),
            alarm_feed: parts.alarm_feed.clone(),
            streams: Streams::default(),
            console: ConsoleDesk { store: parts.calls.clone(), clock: parts.clock.clone() },
            alarms: AlarmDesk {
                store: parts.calls.clone(),
                reads: parts.store.reads(),
                clock: parts.clock.clone(),
                owner: parts.alarms.clone(),
                edge_id: config.edge.id.clone(),
                drill_at: config.alarms.drill_at,
            },
            signs_of_life: parts.signs_of_life.clone(),
            calls: CallBudget::default(),
            telemetry: parts.writers.clone(),
            sessions: parts.sessions.clone(),
            ingress: Arc::clone(&parts.stats),
            is_mqtt_connected: Arc::new(move || way_in.is_connected()),
            keeps_sessions: Arc::new(move || sessions_view.keeps_sessions()),
            sync: parts.sync.clone(),
            media: MediaDesk::of(config, parts),
            inference: parts.inference.clone(),
            media_probe: Some(MediaProbe::new(Arc::clone(&parts.media))),
            troubles: Troubles::default(),
            retention: parts.retention.clone(),
            telling: parts.telling.clone(),
            edge: EdgeCheck::new(config),
            render_metrics: config.metrics.prometheus.then(|| Arc::new(observe::render_metrics) as Render),
            complaints: Complaints::default(),
        })
    }
}

impl AppState {
    /// Who decides who may call, for whoever puts another one in its place.
    pub fn authority(&self) -> CurrentAuthority {
        self.authority.clone()
    }

    /// Whether the place of the images is usable, or needed by nobody.
    async fn is_media_up(&self) -> bool {
        match &self.media_probe {
            Some(probe) => probe.is_up().await,
            None => true,
        }
    }
}

/// Writes all metrics as text.
type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// What the configuration says about the port.
#[derive(Clone, Debug)]
struct Settings {
    /// Largest JSON body.
    body_bytes_max: usize,
    /// Origins of browsers that may call.
    allowed_origins: Vec<HeaderValue>,
    /// The bucket of images; a name for either backend.
    bucket: String,
    /// The value of `x-commit-id`.
    commit: HeaderValue,
    /// The version in the description of the API.
    version: String,
    /// The name of the engine.
    edge_id: String,
    /// Whether a session needs the row of its device, too.
    is_weighvision_device_required: bool,
    /// Whether this engine looks at images.
    is_inference_enabled: bool,
    /// Whether this port speaks TLS.
    is_encrypted: bool,
    /// Where the engine keeps what it measures of itself.
    data_dir: PathBuf,
}

impl Settings {
    /// The settings of a configuration.
    fn of(config: &Config) -> Self {
        let (http, edge) = (&config.http, &config.edge);
        let origin = |origin: &String| HeaderValue::from_str(origin).ok();
        Self {
            body_bytes_max: http.body_bytes_max,
            bucket: config.media.bucket.clone(),
            allowed_origins: http.allowed_origins.iter().filter_map(origin).collect(),
            commit: HeaderValue::from_str(&edge.commit).unwrap_or(HeaderValue::from_static("Unknown")),
            version: edge.version.clone(),
            edge_id: edge.id.clone(),
            is_weighvision_device_required: config.ingress.weighvision_require_device,
            is_inference_enabled: config.inference.enabled,
            is_encrypted: http.tls_cert.is_some(),
            data_dir: edge.data_dir.clone(),
        }
    }
}

/// A route with the class that says who may call it.
struct Route {
    class: Class,
    path: &'static str,
    handlers: UtoipaMethodRouter<Arc<AppState>>,
}

/// Every route there is: who may call it, where it is, and what answers. The only other paths are the files of the
/// documentation's page.
fn table() -> Vec<Route> {
    use Class::{Act, Admin, Box, Device, Public, Read, Write};
    let row = |class, path, handlers| Route { class, path, handlers };
    vec![
        row(Public, "/api/health", routes!(health::health)),
        row(Public, "/health", routes!(health::short_health)),
        row(Public, "/api/ready", routes!(health::ready)),
        row(Public, "/ready", routes!(health::short_ready)),
        row(Public, "/api/v1/heartbeat", routes!(heartbeat::heartbeat)),
        row(Public, "/api-docs", routes!(openapi::page)),
        row(Public, "/api-docs/openapi.json", routes!(openapi::description)),
        row(Public, "/docs/runbooks", routes!(runbooks::all)),
        row(Public, "/docs/runbooks/{alert}", routes!(runbooks::of_alert)),
        row(Public, "/api/v1/ingress/device-token", routes!(ingress::device_token)),
        row(Device, "/api/v1/telemetry/readings", routes!(telemetry::intake::store_readings)),
        row(Public, "/api/v1/media/uploads/{media_id}", routes!(media::upload)),
        row(Device, "/api/v1/media/images/presign", routes!(media::presign)),
        row(Device, "/api/v1/media/images/complete", routes!(media::complete)),
        row(Device, "/api/v1/weighvision/sessions", routes!(session::create)),
        row(Read, "/api/v1/weighvision/sessions", routes!(session::list_sessions)),
        row(Device, "/api/v1/weighvision/sessions/{id}/bind-weight", routes!(session::bind_weight)),
        row(Device, "/api/v1/weighvision/sessions/{id}/bind-media", routes!(session::bind_media)),
        row(Device, "/api/v1/weighvision/sessions/{id}/attach", routes!(session::attach)),
        row(Device, "/api/v1/weighvision/sessions/{id}/finalize", routes!(session::finalize)),
        row(Read, "/api/v1/weighvision/sessions/{id}", routes!(session::show)),
        row(Read, "/api/v1/weighvision/sessions/{id}/marks", routes!(session::list_marks)),
        row(Write, "/api/v1/weighvision/sessions/{id}/exclude", routes!(session::exclude)),
        row(Write, "/api/v1/weighvision/sessions/{id}/include", routes!(session::include)),
        row(Write, "/api/v1/weighvision/sessions/{id}/review", routes!(session::review)),
        row(Device, "/api/v1/inference/jobs", routes!(inference::create_job)),
        row(Box, "/api/v1/inference/models", routes!(inference::show_model)),
        row(Box, "/metrics", routes!(ops::prometheus)),
        row(Box, "/api/v1/ops/edge/status", routes!(ops::status::edge_status)),
        row(Box, "/api/v1/ops/doctor", routes!(ops::doctor::examine)),
        row(Box, "/api/v1/ingress/stats", routes!(ingress::ingress_stats)),
        row(Box, "/api/v1/ingress/rejects", routes!(reject::list_rejects)),
        row(Box, "/api/v1/sync/state", routes!(sync::show_state)),
        row(Box, "/api/v1/ledger", routes!(ledger::show_ledger)),
        row(Box, "/api/v1/ledger/digest", routes!(ledger::show_digest)),
        row(Box, "/api/v1/sync/outbox", routes!(sync::list_outbox)),
        row(Read, "/api/v1/telemetry/readings", routes!(telemetry::list_readings)),
        row(Read, "/api/v1/telemetry/aggregates", routes!(telemetry::list_aggregates)),
        row(Read, "/api/v1/telemetry/metrics", routes!(telemetry::telemetry_metrics)),
        row(Read, "/api/v1/telemetry/stats", routes!(telemetry::telemetry_stats)),
        row(Read, "/api/v1/board", routes!(board::show_board)),
        row(Read, "/api/v1/stream", routes!(stream::open_stream)),
        row(Read, "/api/v1/climate", routes!(climate::show_climate)),
        row(Read, "/api/v1/places", routes!(place::list_places)),
        row(Write, "/api/v1/places", routes!(place::put_place)),
        row(Write, "/api/v1/places", routes!(place::remove_place)),
        row(Read, "/api/v1/events", routes!(event::list_events)),
        row(Read, "/api/v1/inference/jobs/{id}", routes!(inference::show_job)),
        row(Read, "/api/v1/inference/results", routes!(inference::list_results)),
        row(Read, "/api/v1/inference/stats", routes!(inference::inference_stats)),
        row(Box, "/api/v1/sync/diagnostics/cloud", routes!(sync::diagnose_cloud)),
        row(Read, "/api/v1/media/stats", routes!(media::media_stats)),
        row(Read, "/api/v1/media/objects/by-key", routes!(media::show_by_key)),
        row(Read, "/api/v1/media/objects/{media_id}", routes!(media::show_media)),
        row(Read, "/api/v1/media/objects/{media_id}/meta", routes!(media::media_meta)),
        row(Box, "/api/v1/devices", routes!(device::list_devices)),
        row(Act, "/api/v1/devices", routes!(device::add_device)),
        row(Box, "/api/v1/devices/{device_id}", routes!(device::show_device)),
        row(Act, "/api/v1/devices/{device_id}/rotate", routes!(device::rotate_device)),
        row(Act, "/api/v1/devices/{device_id}/revoke", routes!(device::revoke_device)),
        row(Box, "/api/v1/stations", routes!(station::list_stations)),
        row(Act, "/api/v1/stations", routes!(station::add_station)),
        row(Act, "/api/v1/stations/{station_id}/revoke", routes!(station::revoke_station)),
        row(Read, "/api/v1/barns", routes!(flock::list_barns)),
        row(Write, "/api/v1/barns", routes!(flock::put_barn)),
        row(Read, "/api/v1/standards", routes!(standard::list_standards)),
        row(Write, "/api/v1/standards/import", routes!(standard::import_standard)),
        row(Write, "/api/v1/standards/derive", routes!(standard::derive_standard)),
        row(Read, "/api/v1/standards/{id}", routes!(standard::show_standard)),
        row(Read, "/api/v1/flocks", routes!(flock::list_flocks)),
        row(Write, "/api/v1/flocks", routes!(flock::create_flock)),
        row(Read, "/api/v1/flocks/{id}", routes!(flock::show_flock)),
        row(Write, "/api/v1/flocks/{id}/end", routes!(flock::end_flock)),
        row(Read, "/api/v1/flocks/{id}/records", routes!(flock::list_records)),
        row(Write, "/api/v1/flocks/{id}/records", routes!(flock::add_record)),
        row(Write, "/api/v1/flocks/{id}/records/{record_id}/correct", routes!(flock::correct_record)),
        row(Read, "/api/v1/flocks/{id}/days", routes!(flock::list_days)),
        row(Read, "/api/v1/flocks/{id}/days.csv", routes!(flock::days_csv)),
        row(Read, "/api/v1/flocks/{id}/forecast", routes!(flock::show_forecast)),
        row(Read, "/api/v1/flocks/{id}/histogram", routes!(flock::show_histogram)),
        row(Read, "/api/v1/flocks/{id}/comparison", routes!(comparison::show_comparison)),
        row(Read, "/api/v1/alarms", routes!(alarm::list_alarms)),
        row(Read, "/api/v1/alarms/history", routes!(alarm::alarm_history)),
        row(Read, "/api/v1/alarms/figures", routes!(alarm::alarm_figures)),
        row(Read, "/api/v1/alarms/rules", routes!(alarm::rule::list_rules)),
        row(Act, "/api/v1/alarms/rules", routes!(alarm::rule::put_rule)),
        row(Read, "/api/v1/alarms/rules/{rule_id}/history", routes!(alarm::rule::rule_history)),
        row(Read, "/api/v1/alarms/mode", routes!(alarm::rule::show_mode)),
        row(Write, "/api/v1/alarms/mode", routes!(alarm::rule::put_mode)),
        row(Read, "/api/v1/alarms/drills", routes!(alarm::drill::list_drills)),
        row(Write, "/api/v1/alarms/drills", routes!(alarm::drill::begin_drill)),
        row(Write, "/api/v1/alarms/drills/{id}/answer", routes!(alarm::drill::answer_drill)),
        row(Read, "/api/v1/alarms/{id}", routes!(alarm::show_alarm)),
        row(Write, "/api/v1/alarms/{id}/ack", routes!(alarm::acknowledge)),
        row(Write, "/api/v1/alarms/{id}/shelve", routes!(alarm::shelve)),
        row(Write, "/api/v1/alarms/{id}/unshelve", routes!(alarm::unshelve)),
        row(Act, "/api/v1/alarms/{id}/out-of-service", routes!(alarm::take_out_of_service)),
        row(Act, "/api/v1/alarms/{id}/in-service", routes!(alarm::put_in_service)),
        row(Box, "/api/v1/alarms/ways", routes!(way::list_ways)),
        row(Box, "/api/v1/alarms/ways/{name}", routes!(way::reach_way)),
        row(Act, "/api/v1/alarms/ways/{name}/try", routes!(way::try_way)),
        row(Box, "/api/v1/janitor/state", routes!(retention::janitor_state)),
        row(Act, "/api/v1/janitor/run", routes!(retention::run_janitor)),
        row(Act, "/api/v1/sync/trigger", routes!(sync::trigger)),
        row(Admin, "/api/v1/sync/dlq", routes!(sync::list_dead)),
        row(Admin, "/api/v1/sync/redrive", routes!(sync::redrive)),
        row(Admin, "/api/v1/sync/dlq/redrive", routes!(sync::redrive_dead)),
        row(Admin, "/api/v1/sync/resend", routes!(ledger::resend)),
        row(Admin, "/api/v1/sync/discard", routes!(sync::discard)),
        row(Admin, "/api/v1/sync/unclaim-stuck", routes!(sync::unclaim_stuck)),
        row(Admin, "/api/v1/audit", routes!(audit::list_audit)),
    ]
}

/// What a port shows, and to how many.
pub struct Face {
    router: Router,
    connections: Connections,
    state: Arc<AppState>,
}

/// The whole HTTP face.
pub fn face(config: &Config, state: AppState) -> Face {
    face_of(config, state, shared_router)
}

/// The HTTP face of a worker, which may need the images: health and metrics.
pub fn worker_face(config: &Config, state: AppState, needs_media: bool) -> Face {
    let media_probe = state.media_probe.filter(|_| needs_media);
    // It has no devices, so that they are never missing.
    let state = AppState { is_mqtt_connected: Arc::new(|| true), media_probe, ..state };
    face_of(config, state, worker_router)
}

fn face_of(config: &Config, state: AppState, router: fn(Arc<AppState>) -> Router) -> Face {
    let http = &config.http;
    let per_address_max = match http.connections_per_address_max {
        0 => http.connections_max.div_ceil(2),
        max => max,
    };
    let connections = Connections::new(http.connections_max, per_address_max);
    let state = Arc::new(state);
    Face { router: router(Arc::clone(&state)), connections, state }
}

/// The whole HTTP face without its port. Layers are named from the inside out: whatever answers, the frame has the last
/// word.
pub fn router(state: AppState) -> Router {
    shared_router(Arc::new(state))
}

fn shared_router(state: Arc<AppState>) -> Router {
    let pages = console::router(&state);
    layered(guarded(&state, table()), pages, state, REQUESTS_IN_FLIGHT_MAX)
}

/// The paths of a worker.
const WORKER_PATHS: [&str; 5] = ["/api/health", "/health", "/api/ready", "/ready", "/metrics"];

fn worker_router(state: Arc<AppState>) -> Router {
    let rows = table().into_iter().filter(|route| WORKER_PATHS.contains(&route.path));
    layered(guarded(&state, rows), Router::new(), state, REQUESTS_IN_FLIGHT_MAX)
}

fn layered(
    routes: OpenApiRouter<Arc<AppState>>,
    pages: Router<Arc<AppState>>,
    state: Arc<AppState>,
    requests_in_flight_max: usize,
) -> Router {
    let (routes, mut description) = routes.split_for_parts();
    description.info.version.clone_from(&state.settings.version);
    let description = openapi::Description(Arc::new(openapi::document(&description)));
    routes
        .merge(pages)
        .route("/api-docs/", axum::routing::get(openapi::page))
        .route("/api-docs/{*file}", axum::routing::get(openapi::asset))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(Extension(description))
        .layer(DefaultBodyLimit::max(state.settings.body_bytes_max))
        .layer(CatchPanicLayer::custom(limit::panicked))
        .layer(from_fn(limit::time))
        .layer(from_fn_with_state(InFlight::new(requests_in_flight_max), limit::in_flight))
        .layer(cors(&state.settings))
        .layer(from_fn_with_state(Arc::clone(&state), frame::frame))
        .with_state(state)
}

/// Each route behind its guard, described with what the guard asks for.
fn guarded(state: &Arc<AppState>, rows: impl IntoIterator<Item = Route>) -> OpenApiRouter<Arc<AppState>> {
    let router = OpenApiRouter::with_openapi(openapi::skeleton());
    rows.into_iter().fold(router, |router, Route { class, path, mut handlers }| {
        for item in handlers.1.paths.values_mut() {
            openapi::operations(item).for_each(|(_, operation)| openapi::describe(class, path, operation));
        }
        let guard = from_fn_with_state((Arc::clone(state), class, path), auth::guard);
        router.routes(handlers.map(|methods| methods.route_layer(guard)))
    })
}

fn cors(settings: &Settings) -> CorsLayer {
    let ours = [auth::TENANT_ID, "x-request-id", "x-trace-id", auth::API_KEY].map(HeaderName::from_static);
    CorsLayer::new()
        .allow_origin(settings.allowed_origins.clone())
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::OPTIONS])
        .allow_headers([CONTENT_TYPE, AUTHORIZATION].into_iter().chain(ours).collect::<Vec<_>>())
}

async fn unknown_path(_: Uri) -> Response {
    Error::new(Code::NotFound, "there is no such path").into_response()
}

async fn wrong_method() -> Response {
    Error::new(Code::MethodNotAllowed, "the path does not know this method").into_response()
}

#[cfg(test)]
mod tests;
