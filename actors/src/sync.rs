//! Sync: takes events from the outbox to the cloud, in the order of their lanes, for as long as it takes.
//!
//! Owns: a share of the lane groups, and the batch that is under way.
//! Accepts: `Ended` from its own work; wake-ups and triggers come through [`SyncHub`] and need no mailbox.
//! Sends: nothing.
//! Dies: of a bug only; its leases run out, or are taken back when it starts again.

pub mod answer;
pub mod backoff;
pub mod cloud;
pub mod course;
mod monitor;
mod partition;
pub mod ports;
pub mod sign;
pub mod status;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::Rng;
use schema::clock::{Clock, Timestamp};
use schema::store::outbox::LANE_GROUPS;
use schema::store::{Store, StoreError, cause, sync_state};
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use answer::{Answer, CLOUD_REQUEST_FAILED, RETRY_AFTER_MAX, Verdict};
use cloud::{Cloud, CloudError, CloudSettings};
use monitor::Monitor;
use partition::Partition;
use ports::{Database, Http, Ports};
use status::{CloudView, SyncStatus};

/// How long a trigger waits for its attempt at most.
const TRIGGER_WAIT_MAX: Duration = Duration::from_secs(50);
/// How often a tenant's low-water marks are moved after something was settled for it: a mark takes three moves.
const MOVES_AFTER_WORK: u32 = 4;
/// What is left of the drain for writing down where the batch stands.
const SETTLE_GRACE: Duration = Duration::from_secs(1);

/// How the outbox is sent.
#[derive(Clone, Debug)]
pub struct SyncSettings {
    /// Name of this engine as the cloud knows it.
    pub edge_id: String,
    /// Where to send to; without it rows are kept and nothing is sent.
    pub cloud: Option<CloudSettings>,
    /// Whether anything is sent at all (`outbox.mode`).
    pub is_sending: bool,
    /// Senders side by side; more than there are lane groups are of no use.
    pub partitions: usize,
    /// Events of a batch.
    pub batch_events_max: usize,
    /// Bytes of a batch.
    pub batch_bytes_max: usize,
    /// How long nobody else may have a batch.
    pub lease_seconds: u64,
    /// Rejections of an event before it waits for a person.
    pub rejections_max: u32,
    /// Longest wait between two attempts.
    pub backoff_seconds_max: u64,
    /// How often the outbox is looked at when nothing wakes the senders; those that are woken look less and less often while
    /// they find nothing.
    pub poll_ms: u64,
    /// How long a request under way may take when the engine stops.
    pub drain_ms: u64,
}

impl SyncSettings {
    fn wait_max(&self) -> TimeDelta {
        let longest = Duration::from_secs(self.backoff_seconds_max).max(RETRY_AFTER_MAX);
        TimeDelta::from_std(longest).unwrap_or(TimeDelta::MAX)
    }
}

/// What the senders, HTTP and the writers share. Cloning shares it.
#[derive(Clone, Debug)]
pub struct SyncHub {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: SyncSettings,
    /// What the senders work on.
    pub(crate) ports: Ports,
    /// For the gauges.
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    /// Who is greeted; `None` while nothing is to be sent.
    pub(crate) cloud: Option<Arc<Cloud>>,
    pub(crate) status: SyncStatus,
    seats: Vec<Seat>,
    /// Whether those who write rows ever said so.
    is_woken: AtomicBool,
    /// Counts what was written and sent in this process.
    stirs: AtomicU64,
    /// Tenants for which something was sent, and how often their low-water marks are still to be moved.
    at_work: std::sync::Mutex<HashMap<String, u32>>,
    /// Counts the attempts that were asked for.
    wanted: watch::Sender<u64>,
}

/// What outlives a partition's incarnations.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) wake: Notify,
    /// The last attempt that was made because it was asked for.
    pub(crate) tried: watch::Sender<u64>,
    /// When work must be over.
    pub(crate) ends_at: watch::Sender<Option<Instant>>,
}

/// What a cloud answered to a greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// Whether it is as it should be.
    pub is_ok: bool,
    /// The HTTP status of the answer, if there was one.
    pub status: Option<u16>,
    /// What it amounts to, without secrets.
    pub message: String,
    /// The difference of the clocks, milliseconds, when the cloud complained of it.
    pub skew_ms: Option<i64>,
}

/// Tells the senders that rows were committed. Cheap enough to call after every commit; calls coalesce. The default one
/// wakes nobody.
#[derive(Clone, Debug, Default)]
pub struct SyncWake {
    shared: Option<Arc<Shared>>,
}

impl SyncWake {
    /// Rows may be due. A lost call costs one interval between two looks.
    pub fn wake(&self) {
        let Some(shared) = &self.shared else { return };
        shared.is_woken.store(true, Ordering::Relaxed);
        shared.stirs.fetch_add(1, Ordering::Relaxed);
        shared.seats.iter().for_each(|seat| seat.wake.notify_one());
    }
}

impl SyncHub {
    /// Prepares sending. No connection is opened yet.
    ///
    /// # Errors
    /// When the settings of the cloud cannot be used.
    pub fn new(settings: SyncSettings, store: Store, clock: Clock) -> Result<Self, CloudError> {
        let is_enabled = settings.is_sending && settings.cloud.is_some();
        let cloud = match &settings.cloud {
            Some(cloud) if is_enabled => Some(Arc::new(Cloud::new(cloud, clock.clone())?)),
            _ => None,
        };
        let edge_id = settings.edge_id.clone();
        let ports = Ports {
            rows: Arc::new(Database { store: store.clone(), edge_id, slot: Mutex::default() }),
            line: cloud.clone().map(|cloud| Arc::new(Http(cloud)) as Arc<dyn ports::Line>),
            chance: Arc::new(|| rand::rng().random_range(0.5..=1.0)),
        };
        Ok(Self::of(settings, ports, cloud, store, clock))
    }

    /// Sending over a model of rows and line, under a clock that goes with tokio's time; its senders are
    /// [`SyncHub::send`]. Nothing reaches `store`.
    #[must_use]
    pub fn simulated(settings: SyncSettings, ports: Ports, store: Store, clock: Clock) -> Self {
        Self::of(settings, ports, None, store, clock)
    }

    fn of(
        settings: SyncSettings,
        ports: Ports,
        cloud: Option<Arc<Cloud>>,
        store: Store,
        clock: Clock,
    ) -> Self {
        let groups = usize::from(LANE_GROUPS.unsigned_abs());
        let partitions = settings.partitions.clamp(1, groups);
        let seat =
            |_| Seat { wake: Notify::new(), tried: watch::Sender::new(0), ends_at: watch::Sender::new(None) };
        let shared = Shared {
            status: SyncStatus::new(ports.line.is_some()),
            ports,
            seats: (0..partitions).map(seat).collect(),
            is_woken: AtomicBool::new(false),
            stirs: AtomicU64::new(0),
            at_work: std::sync::Mutex::default(),
            wanted: watch::Sender::new(0),
            settings,
            store,
            clock,
            cloud,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The work of one sender without its actor, until [`SyncHub::stop_by`].
    pub fn send(&self, partition: usize) -> impl Future<Output = ()> + Send + use<> {
        Partition::new(Arc::clone(&self.shared), partition).run()
    }

    /// How many [`SyncPartition`]s there are to start.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.shared.seats.len()
    }

    /// For those who write outbox rows.
    #[must_use]
    pub fn waker(&self) -> SyncWake {
        SyncWake { shared: Some(Arc::clone(&self.shared)) }
    }

    /// Tells the senders that rows may be due.
    pub fn wake(&self) {
        self.waker().wake();
    }

    /// Has every sender make one attempt with what is due, pauses notwithstanding, and returns after it.
    /// `false` when that took too long; the attempts go on.
    pub async fn trigger(&self) -> bool {
        if self.shared.ports.line.is_none() {
            return true;
        }
        let mut wanted = 0;
        self.shared.wanted.send_modify(|count| {
            *count += 1;
            wanted = *count;
        });
        let attempts = async {
            for seat in &self.shared.seats {
                // The sender lives in the seat, which lives in the hub.
                let _ = seat.tried.subscribe().wait_for(|tried| *tried >= wanted).await;
            }
        };
        tokio::time::timeout(TRIGGER_WAIT_MAX, attempts).await.is_ok()
    }

    /// Greets the cloud and tells what it answered.
    pub async fn diagnose(&self) -> Diagnosis {
        let Some(cloud) = &self.shared.cloud else {
            let message = "sending is switched off".to_owned();
            return Diagnosis { is_ok: false, status: None, message, skew_ms: None };
        };
        let answer = cloud.handshake().await;
        self.shared.note_handshake(&answer).await
    }

    /// What is known of the cloud, without asking it.
    #[must_use]
    pub fn view(&self) -> CloudView {
        self.shared.status.view()
    }

    /// The name under which this engine holds leases, which no other living engine has.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn holder(&self) -> Result<Arc<str>, StoreError> {
        self.shared.holder().await
    }

    /// The longest that a tenant pauses: a pause that ends later was set by a wrong clock and holds nothing.
    #[must_use]
    pub fn pause_max(&self) -> TimeDelta {
        self.shared.wait_max()
    }

    /// Ends all work by `deadline`, side by side; the actors then stop without a wait of their own.
    pub fn stop_by(&self, deadline: Instant) {
        for seat in &self.shared.seats {
            seat.ends_at.send_replace(Some(deadline));
        }
    }
}

impl Shared {
    pub(crate) fn seat(&self, partition: usize) -> &Seat {
        &self.seats[partition]
    }

    /// Whether those who write rows say so in this process; then senders need not look all the time.
    pub(crate) fn is_woken(&self) -> bool {
        self.is_woken.load(Ordering::Relaxed)
    }

    /// How often something was written or sent in this process.
    pub(crate) fn stirs(&self) -> u64 {
        self.stirs.load(Ordering::Relaxed)
    }

    /// Something was settled for a tenant.
    pub(crate) fn settled(&self, tenant_id: &str) {
        self.stirs.fetch_add(1, Ordering::Relaxed);
        let mut at_work = self.at_work.lock().expect("nothing panics while it holds the lock");
        match at_work.get_mut(tenant_id) {
            Some(moves) => *moves = MOVES_AFTER_WORK,
            None => {
                at_work.insert(tenant_id.to_owned(), MOVES_AFTER_WORK);
            }
        }
    }

    /// Tenants whose low-water marks are to be moved now. There are no more of them than tenants with rows.
    pub(crate) fn tenants_at_work(&self) -> Vec<String> {
        let mut at_work = self.at_work.lock().expect("nothing panics while it holds the lock");
        let tenants = at_work.keys().cloned().collect();
        at_work.retain(|_, moves| {
            *moves -= 1;
            *moves > 0
        });
        tenants
    }

    /// The name under which leases are held.
    pub(crate) async fn holder(&self) -> Result<Arc<str>, StoreError> {
        self.ports.rows.holder().await
    }

    /// The `n`th wait in a row.
    pub(crate) fn backoff(&self, n: u32) -> Duration {
        backoff::wait_by(n, Duration::from_secs(self.settings.backoff_seconds_max), (self.ports.chance)())
    }

    pub(crate) fn wanted(&self) -> watch::Receiver<u64> {
        self.wanted.subscribe()
    }

    /// The longest that a tenant pauses or a row waits, whoever says for how long.
    pub(crate) fn wait_max(&self) -> TimeDelta {
        self.settings.wait_max()
    }

    /// How long nobody else may have a batch.
    pub(crate) fn lease(&self) -> TimeDelta {
        TimeDelta::seconds(i64::try_from(self.settings.lease_seconds).unwrap_or(i64::from(u32::MAX)))
    }

    /// Takes note of the answer to a greeting.
    pub(crate) async fn note_handshake(&self, answer: &Answer) -> Diagnosis {
        let now = self.clock.now();
        let diagnosis = Diagnosis::of(answer, now);
        if let Some(skew_ms) = diagnosis.skew_ms {
            partition::tell_skew(skew_ms);
        }
        if diagnosis.is_ok {
            self.status.answered();
            self.resume().await;
        } else {
            self.status.failed(now, diagnosis.message.clone());
        }
        diagnosis
    }

    /// Ends the pauses of tenants that wait for a cloud which was away, once it has answered somebody. Pauses that the cloud
    /// itself asked for, or that need a person, last as long as they were to. The senders see it at their next look.
    pub(crate) async fn resume(&self) {
        let now = self.clock.now();
        let work = async |conn: &mut _| sync_state::resume(conn, CLOUD_REQUEST_FAILED, now).await;
        match self.store.run("sync_resume", work).await {
            Ok(0) => {}
            Ok(tenants) => tracing::info!(tenants, "the cloud answers again, waiting no longer"),
            Err(error) => {
                tracing::debug!(%error, cause = cause(&error), "pauses not ended, they end by themselves");
            }
        }
    }
}

/// Greets a cloud once, for whoever wants to know before an engine runs.
///
/// # Errors
/// When the settings cannot be used.
pub async fn greet(settings: &CloudSettings, clock: Clock) -> Result<Diagnosis, CloudError> {
    let answer = Cloud::new(settings, clock.clone())?.handshake().await;
    Ok(Diagnosis::of(&answer, clock.now()))
}

impl Diagnosis {
    /// Reads the answer to a greeting. Only a 2xx with a JSON object comes from the cloud.
    fn of(answer: &Answer, now: Timestamp) -> Self {
        let status = match answer {
            Answer::Lost { .. } => None,
            Answer::Response { status, .. } => Some(*status),
        };
        let (is_ok, message, skew_ms) = match answer::decide(answer, &[], now) {
            Verdict::Taken { .. } => (true, "the cloud answers".to_owned(), None),
            Verdict::Split { text } => (false, text, None),
            Verdict::Later(trouble) => (false, trouble.message, trouble.skew_ms),
        };
        Self { is_ok, status, message, skew_ms }
    }
}

/// The actor; see the head of this file.
pub struct SyncPartition;

/// Which share of the work an actor has.
#[derive(Clone, Debug)]
pub struct Args {
    /// What it shares with the others.
    pub hub: SyncHub,
    /// Its number, below [`SyncHub::partitions`].
    pub partition: usize,
}

/// What a partition is told.
#[derive(Debug)]
pub enum Msg {
    /// Its work ended though nobody stopped it.
    Ended,
}

/// The work of a partition.
#[derive(Debug)]
pub struct State {
    args: Args,
    work: JoinSet<()>,
}

impl Actor for SyncPartition {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let shared = Arc::clone(&args.hub.shared);
        shared.seat(args.partition).ends_at.send_replace(None);
        let mut work = JoinSet::new();
        let partition = args.partition;
        work.spawn(async move {
            let mut tasks = JoinSet::new();
            if partition == 0 {
                tasks.spawn(Monitor::new(Arc::clone(&shared)).run());
            }
            tasks.spawn(Partition::new(shared, partition).run());
            // Whichever ends first, by a panic or by a stop, ends the incarnation.
            while let Some(ended) = tasks.join_next().await {
                if ended.is_err() {
                    break;
                }
            }
            // The actor may be gone already.
            let _ = myself.send_message(Msg::Ended);
        });
        Ok(State { args, work })
    }

    async fn handle(
        &self,
        _: ActorRef<Msg>,
        Msg::Ended: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let seat = state.args.hub.shared.seat(state.args.partition);
        if seat.ends_at.borrow().is_some() {
            return Ok(());
        }
        Err("the work of a sync partition ended".into())
    }

    /// Lets the request under way finish, or gives its rows back.
    async fn post_stop(&self, _: ActorRef<Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        let shared = &state.args.hub.shared;
        let deadline = Instant::now() + Duration::from_millis(shared.settings.drain_ms);
        let seat = shared.seat(state.args.partition);
        seat.ends_at.send_if_modified(|ends_at| {
            let is_news = ends_at.is_none();
            ends_at.get_or_insert(deadline);
            is_news
        });
        let ends_at = seat.ends_at.borrow().unwrap_or(deadline) + SETTLE_GRACE;
        let ended = async { while state.work.join_next().await.is_some() {} };
        if tokio::time::timeout_at(ends_at, ended).await.is_err() {
            tracing::warn!(
                partition = state.args.partition,
                "sync did not stop in time, its lease will run out"
            );
        }
        Ok(())
    }
}
