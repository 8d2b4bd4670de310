//! The one drawing of the supervision tree: what runs, in which order it starts, and what each part is handed.
//!
//! ```text
//! database                     asks the database when nobody else does
//! clock                        watches the wall clock beside the monotonic one
//! allowlist  access            reads the allowlists again, puts out whoever is revoked
//! partitions  cleanup          make room ahead, remove what has expired
//! signs_of_life                writes when devices last called over HTTP
//! indexes  tallies             makes those of large tables, sees to the running counts
//! disk  retention              watches the volumes, deletes what has become old
//! aggregate                    closes minutes, hours and days
//! flock  house                 keep the book of the flocks, and the days of the houses
//! places  board                know where devices are, and their latest values
//! alarms                       owns the alarms, hears what commits store
//! uploads                      completes images that nobody completed
//! sync/0 … n-1                 SyncPartition
//! model  inference_queue       switches to a changed model, measures the queue
//! rabbitmq                     carries work orders of inference, if it is to
//! inference/0 … k-1            InferenceWorker
//! telemetry/0 … m-1            TelemetryWriter
//! sessions                     Directory of SessionActor
//! session_upkeep               what comes round again for sessions
//! devices                      Directory of DeviceActor
//! door                         last up, first down
//! ```
//!
//! HTTP stands beside the tree: it answers before the database does, and until everything else is down. So do the heartbeat,
//! which stops when the tree does not answer, and the guard that rings while the database is away.

use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use actors::access::{AccessActor, AccessWatch};
use actors::address::Address;
use actors::aggregate::Aggregation;
use actors::alarm::feed::AlarmFeed;
use actors::alarm::heartbeat::word;
use actors::allowlist::Allowlist;
use actors::board::Board;
use actors::board::keeper::{self, BoardKeeper};
use actors::chore::{self, Chore, ChoreActor};
use actors::clock::ClockKeeper;
use actors::credentials::Credentials;
use actors::credentials::desk::DeviceDesk;
use actors::database::DatabaseHealth;
use actors::database::probe::DatabaseProbe;
use actors::device::{DeviceContext, Devices, IngressSettings};
use actors::directory::{self, Directory, DirectorySettings};
use actors::door::{self, DoorActor, WayIn, WayInView};
use actors::door_store::DatabaseDoorStore;
use actors::flock::house::keeper::HouseKeeper;
use actors::flock::keeper::FlockKeeper;
use actors::gatekeeper::DeviceGatekeeper;
use actors::gauges::Measured;
use actors::ingress::Ingress;
use actors::ingress::stats::IngressStats;
use actors::last_seen::SignsOfLife;
use actors::media::thumbnail::Thumbnails;
use actors::media::watch::UploadWatch;
use actors::operators::Operators;
use actors::place::Places;
use actors::retention::disk::DiskWatch;
use actors::retention::upkeep::{Cleanup, Indexes, Partitions};
use actors::retention::{Retention, RetentionHub, RetentionSettings};
use actors::session::upkeep::SessionUpkeep;
use actors::session::{SessionActors, SessionContext, SessionSettings, Sessions};
use actors::supervisor::{ChildSpec, Supervised};
use actors::sync::cloud::CloudSettings;
use actors::sync::sign::CloudAuth;
use actors::sync::{self, SyncHub, SyncPartition, SyncSettings};
use actors::tallies::Tallies;
use actors::telemetry::tap::Tap;
use actors::telemetry::{self, TelemetryWriter, TelemetryWriters};
use actors::wake::Wake;
use anyhow::{Context, bail};
use broker::guesses::Guesses;
use broker::tls::TlsFiles;
use broker::{DoorParts, DoorSettings, LinkParts, LinkSettings, LinkTls, Live, Operator, Tenants};
use schema::clock::Clock;
use schema::clock::watch::ClockWatch;
use schema::id::TenantId;
use schema::store::health::{self, Problem};
use schema::store::{Store, StoreError, StoreSettings};
use schema::wire::envelope::Dialects;
use schema::wire::topic::heartbeat_topic;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::backup::watch::BackupWatch;
use crate::certificates::{self, CertificateWatch};
use crate::cluster::Stage;
use crate::config::{self, Auth, Broker, Config, LiveWay, MediaBackend, Mqtt, MqttMode, Secret};
use crate::http::{self, AppState, CurrentAuthority, Face};
use crate::parts::Parts;
use crate::runway::RunwayWatch;
use crate::telling::Telling;

pub(crate) mod inference;
pub(crate) mod media;
pub mod ways;
pub mod worker;

/// A device that has been silent for so long leaves the memory.
const DEVICE_IDLE: Duration = Duration::from_secs(600);
/// Devices in memory at most.
const DEVICES_MAX: usize = 20_000;
/// A session that has been silent for so long leaves the memory.
const SESSION_IDLE: Duration = Duration::from_secs(60);
/// Sessions in memory at most.
const SESSIONS_MAX: usize = 10_000;
/// From the wish to stop to the end of the tree: less than the program has, whatever a part of it waits for.
const SHUTDOWN: Duration = Duration::from_secs(7);
/// Of that, for deliveries that are in hand, and for the request to the cloud that is under way.
const DRAIN: Duration = Duration::from_secs(5);
/// Bytes of a gibibyte.
const GIB: u64 = 1 << 30;
/// Sessions and queues of the door are configured in hours.
const SECONDS_PER_HOUR: u32 = 3600;
/// Logins, of whom there may be any number, get this part of the connections to the database, and calls that write as well.
const SHARES: usize = 4;
/// The wait between two tries to reach the database at the start.
const DATABASE_RETRY: Duration = Duration::from_millis(500);

impl Parts {
    /// The parts of a configuration; nothing runs yet and nothing is connected.
    ///
    /// # Errors
    /// When the database URL cannot be read, a generated secret cannot be kept, or the model cannot be used.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let clock = Clock::system();
        let store = Store::new(&store_settings(config)?)?;
        let share = (config.database.pool_max / SHARES).max(1);
        let calls = store.share(share);
        let refresh_every = Duration::from_secs(config.device.access_refresh_seconds);
        let provision_rows_max = i64::try_from(config.ingress.auto_provision_rows_max).unwrap_or(i64::MAX);
        let provision_rows_max = config.ingress.auto_provision.then_some(provision_rows_max);
        let allowlist = Allowlist::new(store.clone(), clock.clone(), provision_rows_max, refresh_every);
        let directory = media::directory(config)?;
        let media = media::store(config, directory.as_ref());
        let thumbnails = media::thumbnails(config);
        let clock_watch = ClockWatch::new(clock.clone());
        let retention = RetentionHub::new(
            retention_settings(config, thumbnails.clone()),
            store.clone(),
            clock_watch.clone(),
            Arc::clone(&media),
        );
        let guesses = Guesses::default();
        let way_in = WayInView::default();
        let alarms = Address::default();
        Ok(Self {
            telling: Telling::new(config, &way_in, &clock, &alarms),
            alarms,
            retention,
            clock_watch,
            database: DatabaseHealth::default(),
            cluster: None,
            own_database: None,
            allowlist,
            credentials: Credentials::new(store.share(share), clock.clone(), guesses.clone()),
            guesses,
            operators: Operators::new(operators(&config.auth)),
            desk: desk(config, &calls, &clock),
            signs_of_life: SignsOfLife::new(
                store.clone(),
                clock.clone(),
                Duration::from_secs(config.device.last_seen_write_seconds),
            ),
            writers: TelemetryWriters::new(config.telemetry.writers, clock.clone()),
            tap: Tap::default(),
            board: Board::default(),
            places: Places::new(store.clone()),
            alarm_feed: AlarmFeed::default(),
            sessions: Sessions::default(),
            media_wake: Wake::default(),
            stats: Arc::new(IngressStats::new(clock.now())),
            way_in,
            sync: SyncHub::new(sync_settings(config), store.clone(), clock.clone())?,
            media,
            thumbnails,
            directory,
            inference: inference::hub(config)?,
            calls,
            store,
            clock,
        })
    }
}

fn desk(config: &Config, store: &Store, clock: &Clock) -> DeviceDesk {
    const HOUR_SECONDS: u64 = 3600;
    let overlap = Duration::from_secs(config.device.rotation_overlap_hours * HOUR_SECONDS);
    DeviceDesk { store: store.clone(), clock: clock.clone(), overlap }
}

/// Where devices of the configured database get their passwords, for a program that runs beside the engine.
///
/// # Errors
/// When the database URL cannot be read.
pub(crate) fn desk_alone(config: &Config) -> anyhow::Result<DeviceDesk> {
    Ok(desk(config, &store_alone(config)?, &Clock::system()))
}

/// The configured database, for a program that runs beside the engine.
///
/// # Errors
/// When the database URL cannot be read.
pub(crate) fn store_alone(config: &Config) -> anyhow::Result<Store> {
    Ok(Store::new(&StoreSettings { pool_max: 1, ..store_settings(config)? })?)
}

fn retention_settings(config: &Config, thumbnails: Thumbnails) -> RetentionSettings {
    let (retention, media) = (&config.retention, &config.media);
    RetentionSettings {
        telemetry_raw_days: retention.telemetry_raw_days,
        telemetry_agg_days: retention.telemetry_agg_days,
        media_days: retention.media_days,
        outbox_acked_days: retention.outbox_acked_days,
        interval_minutes: retention.interval_minutes,
        is_dry_run: retention.dry_run,
        is_emergency_delete: retention.emergency_delete,
        free_bytes_min: retention.free_disk_gb_min.saturating_mul(GIB),
        database_free_bytes_min: retention.database_free_gb_min.saturating_mul(GIB),
        media_root: (media.backend_in_use() == MediaBackend::Filesystem).then(|| media.root.clone()),
        bucket: media.bucket.clone(),
        thumbnails,
    }
}

pub(crate) fn store_settings(config: &Config) -> anyhow::Result<StoreSettings> {
    let url = config.database.url.as_ref().context("database.url is not set")?;
    Ok(StoreSettings {
        url: url.expose().to_owned(),
        pool_max: config.database.pool_max,
        statement_timeout_seconds: config.database.statement_timeout_seconds,
        read_pool_max: config.database.read_pool_max,
        read_timeout_seconds: config.database.read_timeout_seconds,
        application_name: format!("farmiq-edge {}", config.edge.id),
    })
}

/// Brings the tables of the configured database to this program's version.
///
/// # Errors
/// When the database is away, a migration fails, or the database is newer than this program.
pub async fn migrate(config: &Config) -> anyhow::Result<()> {
    Ok(Store::new(&store_settings(config)?)?.migrate().await?)
}

/// Runs the engine from here to `shutdown`. It starts while its database is away and waits for it; HTTP answers meanwhile.
///
/// # Errors
/// When a listener cannot be opened, the database is newer than this program, or parts fail again and again.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    run_beside(config, Beside::default(), shutdown).await
}

/// What stands beside the engine and changes while it runs.
#[derive(Default)]
pub struct Beside {
    /// What the private cluster is busy with, when there is one.
    pub cluster: Option<watch::Receiver<Stage>>,
    /// Where that cluster lies.
    pub own_database: Option<PathBuf>,
    /// Who may call, when that can change.
    pub auth: Option<watch::Receiver<Arc<Auth>>>,
}

/// As [`run`], beside what changes meanwhile.
///
/// # Errors
/// As [`run`].
pub async fn run_beside(
    config: Config,
    beside: Beside,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let Beside { cluster, own_database, auth } = beside;
    let parts = Parts { cluster, own_database, ..Parts::new(&config)? };
    let state = AppState::of(&config, &parts)?;
    let reloads = take_up(auth, state.authority(), parts.clone());
    let telling = ways::keep(&config, &parts);
    let beside = async {
        tokio::join!(reloads, telling);
    };
    serve(&config, &parts, http::face(&config, state), beside, children, shutdown).await
}

/// Lets others call whenever the settings say so, and puts out whoever is connected with a key that has gone.
async fn take_up(auth: Option<watch::Receiver<Arc<Auth>>>, authority: CurrentAuthority, parts: Parts) {
    let Some(mut auth) = auth else { return };
    while auth.changed().await.is_ok() {
        let settings = Arc::clone(&auth.borrow_and_update());
        if let Err(error) = authority.replace(&settings) {
            tracing::error!(%error, "the settings of who may call are of no use, those before stay in force");
            continue;
        }
        parts.operators.replace(operators(&settings));
        parts.way_in.recheck(None).await;
    }
}

/// Runs HTTP and, below it, the tree; `children` is what runs once the database is there.
async fn serve(
    config: &Config,
    parts: &Parts,
    face: Face,
    reloads: impl Future<Output = ()> + Send + 'static,
    children: impl FnOnce(&Config, &Parts) -> anyhow::Result<Vec<ChildSpec>>,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut beside = JoinSet::new();
    beside.spawn(reloads);
    let encryption = http::Encryption::open(&config.http, parts.allowlist.clone()).await?;
    let listener = TcpListener::bind(config.http.listen).await;
    let listener = listener.with_context(|| format!("listen for HTTP on {}", config.http.listen))?;
    let stopping = watch::Sender::new(false);
    let mut stop = stopping.subscribe();
    let mut serving = JoinSet::new();
    serving.spawn(http::serve(listener, face, encryption, async move {
        drop(stop.wait_for(|is_stopping| *is_stopping).await)
    }));
    let shutdown = async {
        shutdown.await;
        stopping.send_replace(true);
    };
    let outcome = run_tree(config, parts, children, shutdown).await;
    stopping.send_replace(true);
    // Requests in flight end in their own time, or are given up.
    while serving.join_next().await.is_some() {}
    outcome
}

async fn run_tree(
    config: &Config,
    parts: &Parts,
    children: impl FnOnce(&Config, &Parts) -> anyhow::Result<Vec<ChildSpec>>,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut shutdown = std::pin::pin!(shutdown);
    tokio::select! {
        ready = database_ready(parts) => ready?,
        () = &mut shutdown => return Ok(()),
    }
    let mut tree = tokio::select! {
        started = Supervised::start(children(config, parts)?) => started?,
        // A part may wait for the database while it starts. The door, which comes last, is not open then.
        () = &mut shutdown => return Ok(()),
    };
    tracing::info!(mqtt = %parts.way_in.addresses(), http = %config.http.listen, "farmiq-edge runs");
    let heart = &parts.telling.heart;
    heart.follow(Some(tree.pulse()));
    tokio::select! {
        () = tree.ended() => bail!("parts of the engine failed again and again"),
        () = &mut shutdown => {
            heart.follow(None);
            ways::part(config, parts);
            parts.sync.stop_by(Instant::now() + DRAIN);
            parts.inference.stop();
            tree.shut_down(SHUTDOWN).await;
        }
    }
    tracing::info!("farmiq-edge has stopped");
    Ok(())
}

/// Waits for the database and migrates it. Nothing else is needed to store a message: what housekeeping is to make comes
/// in its own time.
async fn database_ready(parts: &Parts) -> anyhow::Result<()> {
    if let Some(mut stage) = parts.cluster.clone() {
        // It is gone when the whole program ends.
        let _ = stage.wait_for(|stage| *stage == Stage::Ready).await;
    }
    let mut told = Vec::new();
    loop {
        match prepare_database(parts, &mut told).await {
            Ok(()) => {
                parts.database.works();
                return Ok(());
            }
            Err(error) if error.is_permanent() => return Err(error.into()),
            Err(error) => {
                parts.database.fails(&error);
                tokio::time::sleep(DATABASE_RETRY).await;
            }
        }
    }
}

/// Problems with the database are told once each.
async fn prepare_database(parts: &Parts, told: &mut Vec<Problem>) -> Result<(), StoreError> {
    let problems = health::problems(&parts.store).await?;
    let (fatal, others): (Vec<_>, Vec<_>) = problems.into_iter().partition(|problem| problem.is_fatal);
    if let Some(problem) = fatal.first() {
        return Err(StoreError::Unfit(problem.to_string()));
    }
    for problem in others {
        if !told.contains(&problem) {
            tracing::warn!(advice = problem.advice, "database: {}", problem.text);
            told.push(problem);
        }
    }
    parts.store.migrate().await
}

fn children(config: &Config, parts: &Parts) -> anyhow::Result<Vec<ChildSpec>> {
    let context = Arc::new(DeviceContext {
        clock: parts.clock.clone(),
        allowlist: parts.allowlist.clone(),
        writers: parts.writers.clone(),
        sessions: parts.sessions.clone(),
        stats: Arc::clone(&parts.stats),
        settings: ingress_settings(config),
    });
    let devices = directory::Children::default();
    let mut children = chores(config, parts);
    children.push(ways::owner(config, parts));
    children.push(access_watch(config, parts));
    children.push(board(parts));
    children.extend(sync_partitions(parts));
    children.extend(inference::children(config, parts));
    children.extend(telemetry_writers(config, parts));
    children.push(sessions(config, parts));
    children.push(session_upkeep(config, parts));
    children.push(ChildSpec::new("devices", "", devices.address(), {
        let (context, devices) = (Arc::clone(&context), devices.clone());
        let settings = DirectorySettings { idle: DEVICE_IDLE, children_max: DEVICES_MAX };
        move || (Directory::default(), (Devices(Arc::clone(&context)), settings, devices.clone()))
    }));
    let sirens = parts.telling.sirens.clone();
    children.push(door(config, parts, Ingress { context, devices, sirens })?);
    Ok(children)
}

fn database_probe(parts: &Parts) -> DatabaseProbe {
    let (store, clock) = (parts.store.clone(), parts.clock.clone());
    DatabaseProbe { store, clock, health: parts.database.clone() }
}

fn chores(config: &Config, parts: &Parts) -> Vec<ChildSpec> {
    let (store, clock) = (&parts.store, &parts.clock);
    let probe = database_probe(parts);
    let cleanup = Cleanup {
        store: store.clone(),
        watch: parts.clock_watch.clone(),
        every_minutes: config.ingress.dedupe_cleanup_minutes,
        rejects_rows_max: i64::try_from(config.ingress.rejects_rows_max).unwrap_or(i64::MAX),
    };
    let keeper = ClockKeeper::new(store.clone(), parts.clock_watch.clone());
    let mut chores = vec![
        chore(parts, probe),
        chore(parts, keeper),
        chore(parts, parts.allowlist.clone()),
        chore(parts, Partitions::new(store.clone(), clock.clone())),
        chore(parts, Indexes { store: store.clone() }),
        chore(parts, Tallies { store: store.clone(), clock: clock.clone() }),
        chore(parts, cleanup),
        chore(parts, parts.signs_of_life.clone()),
    ];
    if config.telemetry.aggregate {
        let is_emitting = config.telemetry.emit_aggregates;
        let aggregation = Aggregation::new(store.clone(), parts.clock_watch.clone(), is_emitting);
        chores.push(chore(parts, aggregation));
    }
    chores.push(chore(parts, FlockKeeper::new(store.clone(), clock.clone(), parts.sync.waker())));
    chores.push(chore(parts, HouseKeeper::new(store.clone(), clock.clone())));
    chores.push(chore(parts, parts.places.clone()));
    let media = &config.media;
    chores.push(chore(
        parts,
        UploadWatch {
            completer: parts.completer(config),
            implicit_grace_seconds: i64::try_from(media.implicit_grace_seconds).unwrap_or(i64::MAX),
            offer_max: chrono::Duration::seconds(
                i64::try_from(media.presign_seconds).unwrap_or(i64::from(u32::MAX)),
            ),
            bootstrap_attempts: media.bootstrap_retries,
            bootstrap_delay: Duration::from_millis(media.bootstrap_delay_ms),
            measured_at: None,
            gauges: Measured::new("media"),
        },
    ));
    chores.push(chore(
        parts,
        DiskWatch {
            hub: parts.retention.clone(),
            store: store.clone(),
            own_database: parts.own_database.clone(),
            root: config.ops.disk_path.clone(),
            check_seconds: config.ops.check_seconds,
            was_full: false,
            was_database_full: false,
        },
    ));
    let (data_dir, check_seconds) = (config.edge.data_dir.clone(), config.ops.check_seconds);
    let runway = RunwayWatch {
        store: store.clone(),
        own_database: parts.own_database.clone(),
        clock: clock.clone(),
        data_dir: data_dir.clone(),
        check_seconds,
        told: None,
    };
    chores.push(chore(parts, runway));
    chores.push(chore(parts, BackupWatch { data_dir, clock: clock.clone(), check_seconds }));
    let files = certificates::files(config);
    chores.push(chore(parts, CertificateWatch { files, clock: clock.clone(), check_seconds }));
    let hub = parts.retention.clone();
    chores.push(ChildSpec::new("retention", "", &Address::default(), move || (Retention, hub.clone())));
    chores
}

fn access_watch(config: &Config, parts: &Parts) -> ChildSpec {
    let watch = AccessWatch {
        store: parts.store.clone(),
        watch: parts.clock_watch.clone(),
        allowlist: parts.allowlist.clone(),
        credentials: parts.credentials.clone(),
        way_in: parts.way_in.clone(),
        refresh_every: Duration::from_secs(config.device.access_refresh_seconds),
    };
    ChildSpec::new("access", "", &Address::default(), move || (AccessActor, watch.clone()))
}

/// What keeps the board of latest values. It hears of commits from before the first on.
pub fn board(parts: &Parts) -> ChildSpec {
    let args = keeper::Args {
        board: parts.board.clone(),
        tap: parts.tap.clone(),
        places: parts.places.clone(),
        store: parts.store.clone(),
        clock: parts.clock.clone(),
    };
    ChildSpec::new("board", "", &Address::default(), move || (BoardKeeper, args.clone()))
}

fn chore<C: Chore + Clone>(parts: &Parts, chore: C) -> ChildSpec {
    let args = chore::Args { chore, database: parts.database.clone(), clock: parts.clock.clone() };
    ChildSpec::new(C::NAME, "", &Address::default(), move || (ChoreActor::default(), args.clone()))
}

fn sync_partitions(parts: &Parts) -> impl Iterator<Item = ChildSpec> {
    (0..parts.sync.partitions()).map(|partition| {
        let args = sync::Args { hub: parts.sync.clone(), partition };
        ChildSpec::new("sync", &partition.to_string(), &Address::default(), move || {
            (SyncPartition, args.clone())
        })
    })
}

/// The directory of weighing sessions.
pub fn sessions(config: &Config, parts: &Parts) -> ChildSpec {
    let settings = SessionSettings {
        dedupe_ttl: hours(config.ingress.dedupe_ttl_hours),
        finalize_wait: hours(config.session.finalize_wait_hours),
    };
    let context = Arc::new(SessionContext::new(
        parts.store.clone(),
        parts.clock.clone(),
        parts.database.clone(),
        Arc::clone(&parts.stats),
        parts.writers.clone(),
        parts.sync.waker(),
        parts.media_wake.clone(),
        settings,
    ));
    let limits = DirectorySettings { idle: SESSION_IDLE, children_max: SESSIONS_MAX };
    let children = parts.sessions.children().clone();
    ChildSpec::new("sessions", "", parts.sessions.children().address(), move || {
        (Directory::default(), (SessionActors(Arc::clone(&context)), limits, children.clone()))
    })
}

fn session_upkeep(config: &Config, parts: &Parts) -> ChildSpec {
    let idle_hours = config.session.idle_cancel_hours;
    chore(
        parts,
        SessionUpkeep {
            store: parts.store.clone(),
            watch: parts.clock_watch.clone(),
            sessions: parts.sessions.clone(),
            finalize_wait: hours(config.session.finalize_wait_hours),
            idle_cancel: (idle_hours > 0).then(|| hours(idle_hours)),
            gauges: Measured::new("session"),
        },
    )
}

/// A configured number of hours, at most a century.
fn hours(count: u64) -> chrono::Duration {
    const CENTURY_HOURS: i64 = 100 * 366 * 24;
    chrono::Duration::hours(i64::try_from(count).unwrap_or(CENTURY_HOURS).min(CENTURY_HOURS))
}

/// Writers that an engine may have.
const WRITERS_MAX: usize = 32;
/// Sets of counters, of which an engine uses the one that its name chooses. A database whose engines change their names
/// with each start has no more.
const COUNTER_SETS: u64 = 16;

/// Where a writer counts: engines on one database seldom wait for each other's counters.
fn shard_of(edge_id: &str, writer: usize) -> i32 {
    let mut hasher = DefaultHasher::new();
    edge_id.hash(&mut hasher);
    let set = usize::try_from(hasher.finish() % COUNTER_SETS).expect("a few sets");
    i32::try_from(set * WRITERS_MAX + writer).expect("a few hundred")
}

fn telemetry_writers(config: &Config, parts: &Parts) -> Vec<ChildSpec> {
    let dedupe_ttl = hours(config.ingress.dedupe_ttl_hours);
    let writer = |(shard, address): (usize, &Address<telemetry::Msg>)| {
        let args = telemetry::Args {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            database: parts.database.clone(),
            stats: Arc::clone(&parts.stats),
            wake_sync: parts.sync.waker(),
            tap: parts.tap.clone(),
            dedupe_ttl,
            shard: shard_of(&config.edge.id, shard),
        };
        ChildSpec::new("telemetry", &shard.to_string(), address, move || (TelemetryWriter, args.clone()))
    };
    parts.writers.addresses().iter().enumerate().map(writer).collect()
}

/// How to reach the cloud; `None` when there is none.
pub(crate) fn cloud_settings(config: &Config) -> Option<CloudSettings> {
    let cloud = &config.cloud;
    let secret = |secret: &Option<Secret>| {
        secret.as_ref().map(|secret| secret.expose().to_owned()).unwrap_or_default()
    };
    let auth = match cloud.auth_mode {
        config::CloudAuth::None => CloudAuth::None,
        config::CloudAuth::ApiKey => CloudAuth::ApiKey(secret(&cloud.api_key)),
        config::CloudAuth::Hmac => CloudAuth::Hmac(secret(&cloud.hmac_secret)),
    };
    let header = |(name, value): (&str, &Secret)| (name.to_owned(), value.expose().to_owned());
    Some(CloudSettings {
        url: cloud.url.as_ref()?.as_str().to_owned(),
        auth,
        authorization: secret(&cloud.authorization),
        headers: cloud.headers_json.iter().map(header).collect(),
        tls: LinkTls { ca: cloud.tls_ca.clone(), own: cloud.tls_cert.clone().zip(cloud.tls_key.clone()) },
        proxy: cloud.proxy.as_ref().map(|proxy| proxy.expose().to_owned()),
        timeout_seconds: cloud.timeout_seconds,
        handshake_seconds: cloud.handshake_seconds,
    })
}

fn sync_settings(config: &Config) -> SyncSettings {
    let outbox = &config.outbox;
    SyncSettings {
        edge_id: config.edge.id.clone(),
        cloud: cloud_settings(config),
        is_sending: outbox.mode == config::OutboxMode::Send,
        partitions: outbox.partitions,
        batch_events_max: outbox.batch_events_max,
        batch_bytes_max: outbox.batch_bytes_max,
        lease_seconds: outbox.lease_seconds,
        rejections_max: outbox.rejections_max,
        backoff_seconds_max: outbox.backoff_seconds_max,
        poll_ms: outbox.poll_ms,
        drain_ms: u64::try_from(DRAIN.as_millis()).expect("a few seconds"),
    }
}

fn ingress_settings(config: &Config) -> IngressSettings {
    IngressSettings {
        dialects: Dialects {
            canonical: config.ingress.dialect_canonical,
            null_fields: config.ingress.dialect_null_fields,
            flat: config.ingress.dialect_flat,
        },
        message_bytes_max: match config.mqtt.mode {
            MqttMode::Embedded => config.broker.message_bytes_max,
            MqttMode::External => config.mqtt.packet_bytes_max,
        },
        is_weighvision_device_required: config.ingress.weighvision_require_device,
        forward_events: config.ingress.forward_events.clone(),
        last_seen_write_seconds: config.device.last_seen_write_seconds,
        is_retained_a_copy: config.mqtt.mode == MqttMode::External,
    }
}

fn door(config: &Config, parts: &Parts, ingress: Ingress) -> anyhow::Result<ChildSpec> {
    let args =
        door::Args { way_in: way_in(config, parts, ingress)?, view: parts.way_in.clone(), drain_max: DRAIN };
    Ok(ChildSpec::new("door", "", &Address::default(), move || (DoorActor, args.clone())))
}

fn way_in(config: &Config, parts: &Parts, ingress: Ingress) -> anyhow::Result<WayIn> {
    let intake = Arc::new(ingress);
    let clock = parts.clock.clone();
    match config.mqtt.mode {
        MqttMode::Embedded => {
            let gatekeeper = Arc::new(DeviceGatekeeper {
                credentials: parts.credentials.clone(),
                operators: parts.operators.clone(),
                allowlist: parts.allowlist.clone(),
                database: parts.database.clone(),
                is_anonymous_allowed: config.broker.allow_anonymous,
                is_failing: AtomicBool::new(false),
            });
            let store = Arc::new(DatabaseDoorStore::new(parts.store.clone()));
            let guesses = parts.guesses.clone();
            let door = DoorParts { gatekeeper, intake, store, guesses, clock };
            Ok(WayIn::Embedded(door_settings(config), door))
        }
        MqttMode::External => Ok(WayIn::External(link_settings(config)?, LinkParts { intake, clock })),
    }
}

/// The files that encrypt MQTT listeners, when there are such listeners.
pub(crate) fn door_files(broker: &Broker) -> Option<TlsFiles> {
    broker.listen_tls.or(broker.listen_wss)?;
    let (cert, key) = (broker.tls_cert.clone()?, broker.tls_key.clone()?);
    Some(TlsFiles { cert, key, client_ca: broker.client_ca.clone(), client_crl: broker.client_crl.clone() })
}

/// The operators that may listen over MQTT: those whose keys have a name.
fn operators(auth: &Auth) -> impl Iterator<Item = (Operator, &str)> {
    auth.operator_keys.iter().filter_map(|key| {
        let tenants = if key.tenants.iter().any(|tenant| tenant == "*") {
            Tenants::All
        } else {
            Tenants::Of(key.tenants.iter().filter_map(|id| TenantId::new(id).ok()).collect())
        };
        Some((Operator { name: key.name.as_deref()?.into(), tenants }, key.key.expose()))
    })
}

fn door_settings(config: &Config) -> DoorSettings {
    let broker = &config.broker;
    DoorSettings {
        listen: broker.listen,
        listen_tls: broker.listen_tls,
        listen_ws: broker.listen_ws,
        listen_wss: broker.listen_wss,
        tls: door_files(broker),
        ws_allowed_origins: broker.ws_allowed_origins.clone(),
        allow_anonymous: broker.allow_anonymous,
        connections_max: broker.connections_max,
        handshakes_per_address_max: broker.handshakes_per_address_max,
        live: match broker.live {
            LiveWay::Queues => Live::Queues,
            LiveWay::Rumqttd => Live::Rumqttd,
        },
        inflight_max: usize::from(broker.inflight_max),
        message_bytes_max: broker.message_bytes_max,
        credit_messages_max: broker.credit_messages_max,
        credit_bytes_max: broker.credit_bytes_max,
        stall_max: Duration::from_secs(broker.stall_seconds),
        keep_alive_seconds_max: broker.keep_alive_seconds_max,
        session_expiry_seconds_max: broker.session_expiry_hours * SECONDS_PER_HOUR,
        sessions_max: broker.sessions_max,
        subscriptions_max: broker.subscriptions_max,
        queued_messages_max: broker.queued_max,
        queued_bytes_max: broker.queued_bytes_max,
        queued_total_bytes_max: broker.queued_total_bytes_max,
        queued_age_max: Duration::from_secs(broker.queued_age_hours * u64::from(SECONDS_PER_HOUR)),
        ..DoorSettings::default()
    }
}

/// What encrypts the link to an external broker; `None` when its address asks for none.
pub(crate) fn link_tls(mqtt: &Mqtt) -> Option<LinkTls> {
    let own = mqtt.tls_cert.clone().zip(mqtt.tls_key.clone());
    mqtt.url.is_encrypted().then(|| LinkTls { ca: mqtt.tls_ca.clone(), own })
}

pub(crate) fn link_settings(config: &Config) -> anyhow::Result<LinkSettings> {
    let mqtt = &config.mqtt;
    let (host, port) = mqtt.url.host_and_port().context("mqtt.url names no host")?;
    let named = mqtt.username.clone().map(|username| {
        let password = mqtt.password.as_ref().map(|password| password.expose().to_owned());
        (username, password.unwrap_or_default())
    });
    let credentials = named.or_else(|| mqtt.url.credentials());
    Ok(LinkSettings {
        host,
        port,
        tls: link_tls(mqtt),
        client_id: mqtt.client_id.clone(),
        credentials,
        ack_window: usize::from(mqtt.ack_window),
        packet_bytes_max: mqtt.packet_bytes_max,
        keepalive: Duration::from_secs(mqtt.keepalive_seconds),
        will: Some((heartbeat_topic(&config.edge.id), word(&config.edge.id, "lost", None, &Clock::system()))),
    })
}
