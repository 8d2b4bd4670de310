//! The door: the engine's own MQTT listener. Devices come in here, and are acknowledged after the commit.
//!
//! Owns the listening socket and one task per connection. A connection that fails or panics takes only itself down;
//! the listener survives any error. Memory is bounded by the credits: when they are spent no socket is read.

mod admission;
mod caller;
mod connection;
#[cfg(test)]
mod doubles;
mod hub;
mod inbound;
mod inflow;
mod journal;
mod judge;
mod layers;
mod listener;
mod live;
mod outbox;
mod outflow;
pub(crate) mod packet;
mod pending;
mod queue;
mod refusals;
mod retained;
mod room;
mod routes;
mod session;
mod sessions;
mod settings;
mod shared;
mod topics;
mod transport;
mod websocket;
mod will;

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use schema::clock::Clock;
#[cfg(any(test, feature = "fuzzing"))]
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, interval, sleep, timeout_at};

use crate::credits::Credits;
use crate::delivery::Intake;
use crate::door::caller::Caller;
use crate::door::hub::Hub;
use crate::door::inflow::{Inflow, InflowParts};
use crate::door::journal::{Journal, Replaced};
use crate::door::judge::Judge;
use crate::door::listener::{Layers, Listeners};
use crate::door::queue::{QueueBudget, QueueLimits};
use crate::door::refusals::Refusals;
use crate::door::retained::Retained;
use crate::door::room::Room;
use crate::door::session::SessionParts;
use crate::door::sessions::Sessions;
pub use crate::door::settings::{Addresses, DoorError, DoorSettings, Live};
use crate::door::shared::{Phase, Shared};
use crate::door::websocket::Origins;
use crate::embedded::Embedded;
use crate::fanout::Fanout;
use crate::gatekeeper::{Gatekeeper, Identity};
use crate::guesses::{Guesses, Source};
use crate::message::{NotPublished, Qos};
use crate::publication::Publication;
use crate::share::Limit;
use crate::stats::{DoorStats, Refusal};
use crate::store::{DoorStore, DoorStoreError, Fault, Stored};
use crate::tls::Tls;

/// Wait after the system refused to accept a connection, for example for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long a finished door tries to store the last changes of its sessions.
const LAST_STORE_MAX: Duration = Duration::from_secs(1);
/// How often the door looks for sessions and last wills whose time has come.
const SESSIONS_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How often the door that keeps sessions looks whether it still does, and how often another one looks whether it may. The
/// first is asked more often, so that it has them back first when both have lost the database.
const KEEPER_LOOK_INTERVAL: Duration = Duration::from_secs(1);
const STANDBY_LOOK_INTERVAL: Duration = Duration::from_secs(3);
/// How often a door that opens asks to keep the sessions, and its wait in between.
const CLAIMS_MAX: u32 = 5;
const CLAIM_RETRY: Duration = Duration::from_millis(200);
/// Wait before a store that is away is asked again, before the door opens.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// How long clients have to go when the door opens again.
const REOPEN_DRAIN_MAX: Duration = Duration::from_secs(5);
/// How often it looks for messages that waited too long: every so many of those looks.
const LOOKS_PER_AGE_CHECK: u32 = 120;

/// Who the door works with.
#[derive(Clone)]
pub struct DoorParts {
    /// Knows credentials and scopes.
    pub gatekeeper: Arc<dyn Gatekeeper>,
    /// Takes every message.
    pub intake: Arc<dyn Intake>,
    /// Keeps sessions and retained messages.
    pub store: Arc<dyn DoorStore>,
    /// Remembers wrong credentials, also those of other ports.
    pub guesses: Guesses,
    /// Wall time.
    pub clock: Clock,
}

/// The open door.
pub struct Door {
    shared: Arc<Shared>,
    listeners: Mutex<Option<Listeners>>,
    due_wills: Mutex<Option<UnboundedReceiver<Inflow>>>,
    addresses: Addresses,
    phase: watch::Sender<Phase>,
    running: watch::Sender<bool>,
    store: Arc<dyn DoorStore>,
    is_to_reopen: AtomicBool,
}

impl Door {
    /// Loads the sessions and retained messages, then listens. Nobody is let in before [`Door::run`].
    ///
    /// # Errors
    /// [`DoorError`] when the sessions cannot be loaded or the address is taken.
    pub async fn bind(settings: DoorSettings, parts: DoorParts) -> Result<Self, DoorError> {
        let router = match settings.live {
            Live::Queues => None,
            Live::Rumqttd => Some(Embedded::new(settings.connections_max) as Arc<dyn Fanout>),
        };
        Self::bind_with(settings, parts, router).await
    }

    /// As [`Door::bind`], with any router of live messages, or none.
    pub(crate) async fn bind_with(
        settings: DoorSettings,
        parts: DoorParts,
        router: Option<Arc<dyn Fanout>>,
    ) -> Result<Self, DoorError> {
        let DoorParts { gatekeeper, intake, store, guesses, clock } = parts;
        let (keeps_sessions, stored) = open_store(&*store).await?;
        let tls = match &settings.tls {
            Some(files) => Some(Arc::new(Tls::open(files.clone()).await?)),
            None => None,
        };
        let (listeners, addresses) = Listeners::open(&settings, tls.as_ref())?;
        if settings.allow_anonymous {
            tracing::warn!("clients without a credential are let in: insecure");
        }
        let (phase, phase_seen) = watch::channel(Phase::Open);
        let stats: Arc<DoorStats> = Arc::default();
        tell_part(keeps_sessions, &stats);
        let journal = Arc::new(Journal::new(Arc::clone(&store)));
        let retained = Retained::new(stored.retained, Arc::clone(&journal), Arc::clone(&stats));
        let retained = Arc::new(retained);
        let hub = Hub::new(clock.clone(), Arc::clone(&journal), Arc::clone(&retained), router);
        let hub = Arc::new(hub);
        let parts = SessionParts {
            retained,
            journal,
            stats: Arc::clone(&stats),
            budget: QueueBudget::new(settings.queued_total_bytes_max, settings.queued_messages_max),
            limits: QueueLimits {
                messages_max: settings.queued_messages_max,
                bytes_max: settings.queued_bytes_max,
                age_max: settings.queued_age_max,
            },
        };
        let credits = Credits::shared(
            settings.credit_messages_max,
            settings.credit_bytes_max,
            settings.message_bytes_max,
            Arc::clone(&stats),
        );
        let refusals = Arc::new(Refusals::new(Arc::clone(&stats)));
        let inflow = InflowParts {
            credits,
            wills: will::budget(settings.connections_max.saturating_add(settings.sessions_max)),
            stats: Arc::clone(&stats),
            intake,
            hub: Arc::clone(&hub),
            gatekeeper: Arc::clone(&gatekeeper),
            refusals: Arc::clone(&refusals),
            clock: clock.clone(),
        };
        let inflow = Arc::new(inflow);
        let (sessions, due_wills) =
            Sessions::new(Arc::new(parts), Arc::clone(&inflow), settings.sessions_max);
        sessions.restore(stored.sessions, stored.wills, clock.now());
        let shared = Shared {
            keeps_sessions,
            judge: Judge::new(Arc::clone(&sessions), Arc::clone(&gatekeeper), tls),
            gatekeeper,
            clock,
            hub,
            inflow,
            sessions,
            refusals,
            stats,
            phase: phase_seen,
            guesses,
            origins: Origins(settings.ws_allowed_origins.clone()),
            room: Room::new(&settings),
            settings,
        };
        Ok(Self {
            shared: Arc::new(shared),
            listeners: Mutex::new(Some(listeners)),
            due_wills: Mutex::new(Some(due_wills)),
            addresses,
            phase,
            running: watch::Sender::new(false),
            store,
            is_to_reopen: AtomicBool::new(false),
        })
    }

    /// The addresses that are listened on.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The door's counters.
    #[must_use]
    pub fn stats(&self) -> Arc<DoorStats> {
        Arc::clone(&self.shared.stats)
    }

    /// Publishes what the engine itself has to say, at QoS 1 and retained: it reaches who is connected at once, also while
    /// nothing can be stored.
    ///
    /// # Errors
    /// When the door does not serve clients now.
    pub fn publish(&self, topic: &str, payload: Bytes) -> Result<(), NotPublished> {
        if !*self.running.borrow() {
            return Err(NotPublished);
        }
        let publication = Publication {
            topic: topic.into(),
            payload,
            qos: Qos::AtLeastOnce,
            retain: true,
            carried: Bytes::new(),
            expires_at: None,
            publisher: 0,
        };
        // Nobody is promised anything: what matters is said again until it is answered.
        self.shared.hub.publish(publication).unseen();
        Ok(())
    }

    /// Whether the door ended since it keeps sessions from now on, or does not any more: opened again, it has the right ones.
    #[must_use]
    pub fn is_to_reopen(&self) -> bool {
        self.is_to_reopen.load(Ordering::Relaxed)
    }

    /// Serves clients until [`Door::shutdown`], or until it is to be opened again; a second call returns at once.
    pub async fn run(&self) {
        let Some(listeners) = self.listeners.lock().await.take() else { return };
        let Some(mut due_wills) = self.due_wills.lock().await.take() else { return };
        let Shared { hub, stats, .. } = &*self.shared;
        let _running = Running::start(&self.running, stats);
        let mut tasks = JoinSet::new();
        tokio::select! {
            () = async {
                self.accept_all(listeners, &mut due_wills, &mut tasks).await;
                self.drain(&mut due_wills, &mut tasks).await;
            } => {}
            Replaced = hub.journal.keep() => self.is_to_reopen.store(true, Ordering::Relaxed),
            () = self.keep_sessions() => {}
            () = self.end_deleted() => {}
            () = self.watch_part() => {}
            never = hub.journal.sum_up() => match never {},
            never = self.shared.sessions.sum_up() => match never {},
            () = hub.watch_router() => {}
            never = self.shared.judge.watch_certificates() => match never {},
            never = self.shared.refusals.sum_up() => match never {},
        }
        let stored = timeout_at(Instant::now() + LAST_STORE_MAX, hub.journal.store_all()).await;
        if !matches!(stored, Ok(Ok(()))) {
            tracing::warn!("the last changes of some sessions were not stored");
        }
    }

    /// The credit of all connections.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn credits(&self) -> Arc<Credits> {
        Arc::clone(&self.shared.inflow.credits)
    }

    /// Serves one client over any stream, as if it had been accepted.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) async fn serve_stream(&self, stream: impl AsyncRead + AsyncWrite) {
        let shared = Arc::clone(&self.shared);
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let waiting = shared.room.come_in(Source::of(peer.ip())).expect("the address has room");
        let caller = Caller::new(peer, Instant::now() + shared.settings.connect_timeout, waiting);
        layers::converse(shared, stream, caller).await;
    }

    /// Stops accepting and reading, waits for the deliveries in hand, answers them and closes.
    /// After the deadline the rest is cut off. Says how many deliveries were cut off.
    pub async fn shutdown(&self, deadline: Duration) -> usize {
        self.phase.send_replace(Phase::Draining);
        drop(self.listeners.lock().await.take());
        let mut running = self.running.subscribe();
        let stopped = running.wait_for(|is_running| !is_running);
        if timeout_at(Instant::now() + deadline, stopped).await.is_err() {
            self.phase.send_replace(Phase::Over);
            let mut running = self.running.subscribe();
            let _ = running.wait_for(|is_running| !is_running).await;
        }
        self.shared.stats.abandoned()
    }

    /// Judges everybody who is connected again, or the connections of one device, and closes whom the gatekeeper would not
    /// let in now: the device is not enabled any more, or its password not accepted. Nobody is closed for want of an answer.
    pub async fn recheck(&self, of: Option<&Identity>) {
        self.shared.judge.recheck(of).await;
    }

    /// Ends sessions, publishes delayed wills and drops messages when their time has come.
    async fn keep_sessions(&self) {
        let Shared { hub, sessions, clock, .. } = &*self.shared;
        let mut looks = interval(SESSIONS_LOOK_INTERVAL);
        for look in (0..LOOKS_PER_AGE_CHECK).cycle() {
            looks.tick().await;
            sessions.end_overdue(Instant::now());
            if look == 0 {
                let now = clock.now();
                hub.retained.drop_expired(now).await;
                sessions.all().iter().for_each(|session| session.drop_aged(now));
            }
        }
    }

    /// Ends sessions whose rows were deleted.
    async fn end_deleted(&self) {
        let Shared { hub, sessions, .. } = &*self.shared;
        loop {
            sessions.end_deleted(&hub.journal.gone().await);
        }
    }

    /// Closes the door when it is to keep sessions from now on, or not any more. Never ends by itself.
    async fn watch_part(&self) {
        let keeps_sessions = self.shared.keeps_sessions;
        let mut looks = interval(if keeps_sessions { KEEPER_LOOK_INTERVAL } else { STANDBY_LOOK_INTERVAL });
        loop {
            looks.tick().await;
            match self.store.keeps_sessions().await {
                Ok(keeps) if keeps != keeps_sessions => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(error = &error as &dyn Error, "who keeps the sessions is not known");
                }
            }
        }
        self.is_to_reopen.store(true, Ordering::Relaxed);
        self.phase.send_replace(Phase::Draining);
        sleep(REOPEN_DRAIN_MAX).await;
        self.phase.send_replace(Phase::Over);
        std::future::pending().await
    }

    async fn accept_all(
        &self,
        mut listeners: Listeners,
        due_wills: &mut UnboundedReceiver<Inflow>,
        tasks: &mut JoinSet<()>,
    ) {
        let mut phase = self.shared.phase.clone();
        while *phase.borrow_and_update() == Phase::Open {
            tokio::select! {
                _ = phase.changed() => {}
                Some(ended) = tasks.join_next() => self.count_panic(ended),
                Some(will) = due_wills.recv() => drop(tasks.spawn(will.finish())),
                (accepted, layers) = listeners.accept() => match accepted {
                    Ok((stream, peer)) => self.admit(stream, peer, layers, tasks),
                    Err(error) => {
                        if self.shared.refuse(Refusal::Accept) {
                            tracing::warn!(error = &error as &dyn Error, "connection not accepted");
                        }
                        sleep(ACCEPT_RETRY).await;
                    }
                },
            }
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr, layers: Layers, tasks: &mut JoinSet<()>) {
        let shared = &self.shared;
        let waiting = match shared.room.come_in(Source::of(peer.ip())) {
            Ok(waiting) => waiting,
            Err(spent) => {
                shared.stats.count_spent(spent);
                let (refusal, text) = match spent.limit {
                    Limit::Share => (Refusal::Address, "too many of its address are not logged in"),
                    Limit::Total => (Refusal::Full, "too many clients are not logged in"),
                };
                if shared.refuse(refusal) {
                    tracing::warn!(%peer, "connection refused: {text}");
                }
                return;
            }
        };
        if let Err(error) = listener::set_up(&stream) {
            tracing::debug!(%peer, %error, "connection lost before its first byte");
            return;
        }
        let caller = Caller::new(peer, Instant::now() + shared.settings.connect_timeout, waiting);
        tasks.spawn(layers::serve(Arc::clone(shared), stream, layers, caller));
    }

    /// Waits until every connection finished what it has in hand, or the deadline cuts them off.
    async fn drain(&self, due_wills: &mut UnboundedReceiver<Inflow>, tasks: &mut JoinSet<()>) {
        let mut phase = self.shared.phase.clone();
        loop {
            tokio::select! {
                _ = phase.wait_for(|phase| *phase == Phase::Over) => break,
                Some(will) = due_wills.recv() => drop(tasks.spawn(will.finish())),
                ended = tasks.join_next() => match ended {
                    Some(ended) => self.count_panic(ended),
                    None if due_wills.is_empty() => break,
                    None => {}
                },
            }
        }
        tasks.shutdown().await;
    }

    fn count_panic(&self, ended: Result<(), JoinError>) {
        if ended.is_err_and(|error| error.is_panic()) {
            self.shared.stats.count_panicked();
            tracing::error!("a connection ended by a bug; only it is gone");
        }
    }
}

/// Whether this door keeps sessions, and what is stored. A store that is away or takes no writes is waited for, as it is once
/// the door is open: whoever ended instead would only be started again.
async fn open_store(store: &dyn DoorStore) -> Result<(bool, Stored), DoorStoreError> {
    let mut is_told = false;
    loop {
        let opening = async {
            let keeps_sessions = claim(store).await?;
            Ok((keeps_sessions, store.load().await?))
        };
        match opening.await {
            Err(DoorStoreError { fault: Fault::Away, source }) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(%source, "sessions and retained messages cannot be loaded, the door waits");
                }
                sleep(STORE_RETRY).await;
            }
            outcome => return outcome,
        }
    }
}

/// Asks to be the door that keeps sessions, for a little longer than a server needs to notice that the last process of this
/// engine was killed.
async fn claim(store: &dyn DoorStore) -> Result<bool, DoorStoreError> {
    for _ in 1..CLAIMS_MAX {
        if store.keeps_sessions().await? {
            return Ok(true);
        }
        sleep(CLAIM_RETRY).await;
    }
    store.keeps_sessions().await
}

/// Says what the door does for lasting sessions.
fn tell_part(keeps_sessions: bool, stats: &DoorStats) {
    stats.set_keeps_sessions(keeps_sessions);
    if keeps_sessions {
        tracing::info!("this engine keeps lasting sessions");
    } else {
        tracing::warn!(
            "another engine on this database keeps lasting sessions: this one serves devices, and takes over when that \
             one has gone"
        );
    }
}

/// The door is served as long as this lives.
struct Running<'a> {
    running: &'a watch::Sender<bool>,
    stats: &'a DoorStats,
}

impl<'a> Running<'a> {
    fn start(running: &'a watch::Sender<bool>, stats: &'a DoorStats) -> Self {
        running.send_replace(true);
        stats.set_connected(true);
        Self { running, stats }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.stats.set_connected(false);
        self.running.send_replace(false);
    }
}

#[cfg(test)]
#[path = "door/durability_tests.rs"]
mod durability_tests;
#[cfg(test)]
mod tests;
