//! The door: the engine's own MQTT listener. Devices come in here, and are acknowledged after the commit.
//!
//! Owns the listening socket and one task per connection. A connection that fails or panics takes only itself down;
//! the listener survives any error. Memory is bounded by the credits: when they are spent no socket is read.

mod admission;
mod caller;
mod connection;
mod hub;
mod inflow;
mod journal;
mod listener;
mod outflow;
pub(crate) mod packet;
mod queue;
mod retained;
mod routes;
mod session;
mod sessions;
mod topics;
mod transport;
mod websocket;
mod will;

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use schema::clock::Clock;
use tokio::io::{self, AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, interval, sleep, timeout_at};

use crate::credits::Credits;
use crate::delivery::Intake;
use crate::door::caller::Caller;
use crate::door::hub::Hub;
use crate::door::journal::Journal;
use crate::door::listener::{Layers, Listener, Listeners};
use crate::door::queue::{QueueBudget, QueueLimits};
use crate::door::retained::Retained;
use crate::door::session::SessionParts;
use crate::door::sessions::{CloseReason, DelayedWill, Sessions};
use crate::door::websocket::Origins;
use crate::embedded::Embedded;
use crate::fanout::Fanout;
use crate::gatekeeper::{Gatekeeper, Identity, Principal};
use crate::guesses::{Guesses, Source};
use crate::lines::Lines;
use crate::places::Places;
use crate::stats::{DoorStats, Refusal};
use crate::store::{DoorStore, DoorStoreError};
use crate::tls::{HandshakeError, Tls, TlsError, TlsFiles};

/// Wait after the system refused to accept a connection, for example for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long a finished door tries to store the last changes of its sessions.
const LAST_STORE_MAX: Duration = Duration::from_secs(1);
/// How often the door looks for sessions and last wills whose time has come.
const SESSIONS_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How often it looks for messages that waited too long: every so many of those looks.
const LOOKS_PER_AGE_CHECK: u32 = 120;

/// How the door behaves.
#[derive(Clone, Debug)]
pub struct DoorSettings {
    /// Address of the plain listener; port 0 lets the system choose.
    pub listen: Option<SocketAddr>,
    /// Address of the encrypted listener; it needs `tls`.
    pub listen_tls: Option<SocketAddr>,
    /// Address of the listener of WebSockets in the clear.
    pub listen_ws: Option<SocketAddr>,
    /// Address of the listener of encrypted WebSockets; it needs `tls`.
    pub listen_wss: Option<SocketAddr>,
    /// What encrypts.
    pub tls: Option<TlsFiles>,
    /// Origins of pages that may open a WebSocket; none named means all.
    pub ws_allowed_origins: Vec<String>,
    /// Whether clients without a credential are let in.
    pub allow_anonymous: bool,
    /// Sockets open at once.
    pub connections_max: usize,
    /// Sockets of one address that are not logged in.
    pub handshakes_per_address_max: usize,
    /// Unanswered messages per connection, in each direction.
    pub inflight_max: usize,
    /// Bytes after the fixed header a PUBLISH may have; a larger one is refused and recorded.
    pub message_bytes_max: usize,
    /// Messages of all connections in the engine's hands.
    pub credit_messages_max: usize,
    /// Bytes of all connections in the engine's hands; at least one message of the largest size.
    pub credit_bytes_max: usize,
    /// From the accept to the end of the login.
    pub connect_timeout: Duration,
    /// Database trouble that lasts longer turns new clients away.
    pub stall_max: Duration,
    /// A packet that was begun must be complete by then, and an answer must have been read by then.
    pub stuck_timeout: Duration,
    /// Seconds a client of MQTT 5 may stay silent; it is told so when it asks for more, or for no limit.
    pub keep_alive_seconds_max: u16,
    /// Seconds a session may outlive its connection.
    pub session_expiry_seconds_max: u32,
    /// Sessions that may outlive their connections.
    pub sessions_max: usize,
    /// Filters one client may subscribe to.
    pub subscriptions_max: usize,
    /// Messages that may wait for one client.
    pub queued_messages_max: usize,
    /// Bytes that may wait for one client.
    pub queued_bytes_max: usize,
    /// Bytes that may wait for all clients together.
    pub queued_total_bytes_max: usize,
    /// How long a message may wait for its client.
    pub queued_age_max: Duration,
}

impl Default for DoorSettings {
    fn default() -> Self {
        Self {
            listen: None,
            listen_tls: None,
            listen_ws: None,
            listen_wss: None,
            tls: None,
            ws_allowed_origins: Vec::new(),
            allow_anonymous: false,
            connections_max: 1000,
            handshakes_per_address_max: 500,
            inflight_max: 100,
            message_bytes_max: 1 << 20,
            credit_messages_max: 20_000,
            credit_bytes_max: 64 << 20,
            connect_timeout: Duration::from_secs(10),
            stall_max: Duration::from_secs(30),
            stuck_timeout: Duration::from_secs(30),
            keep_alive_seconds_max: 60,
            session_expiry_seconds_max: 7 * 24 * 3600,
            sessions_max: 1000,
            subscriptions_max: 100,
            queued_messages_max: 1000,
            queued_bytes_max: 8 << 20,
            queued_total_bytes_max: 64 << 20,
            queued_age_max: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

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

/// Why the door did not open.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The files of the encrypted listeners are of no use.
    #[error("encrypt the MQTT listener")]
    Tls(#[from] TlsError),
    /// A listener is to be encrypted and nothing is there to do it with.
    #[error("encrypt the listener at {address} without a certificate")]
    NoCertificate {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The sessions and retained messages could not be loaded.
    #[error("load the sessions and retained messages")]
    Store(#[from] DoorStoreError),
}

/// Where a door listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// In the clear.
    pub plain: Option<SocketAddr>,
    /// Encrypted.
    pub tls: Option<SocketAddr>,
    /// WebSockets in the clear.
    pub ws: Option<SocketAddr>,
    /// Encrypted WebSockets.
    pub wss: Option<SocketAddr>,
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [("mqtt", self.plain), ("mqtts", self.tls), ("ws", self.ws), ("wss", self.wss)];
        let mut separator = "";
        for (scheme, address) in all {
            if let Some(address) = address {
                write!(f, "{separator}{scheme}://{address}")?;
                separator = " ";
            }
        }
        Ok(())
    }
}

/// The open door.
pub struct Door {
    shared: Arc<Shared>,
    listeners: Mutex<Option<Listeners>>,
    due_wills: Mutex<Option<UnboundedReceiver<DelayedWill>>>,
    addresses: Addresses,
    tls: Option<Arc<Tls>>,
    phase: watch::Sender<Phase>,
    running: watch::Sender<bool>,
}

/// Where the door is on its way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Everybody is welcome.
    Open,
    /// Nothing more is read; what is in hand is finished and answered.
    Draining,
    /// The deadline passed.
    Over,
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) settings: DoorSettings,
    /// Counts how often everybody was judged again.
    rechecks: AtomicU64,
    pub(crate) gatekeeper: Arc<dyn Gatekeeper>,
    pub(crate) intake: Arc<dyn Intake>,
    pub(crate) clock: Clock,
    pub(crate) hub: Arc<Hub>,
    pub(crate) fanout: Arc<dyn Fanout>,
    pub(crate) credits: Arc<Credits>,
    pub(crate) sessions: Arc<Sessions>,
    /// Last wills to be published by nobody's connection; there is one at most for each session that lasts.
    pub(crate) due_wills: UnboundedSender<DelayedWill>,
    pub(crate) stats: Arc<DoorStats>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) guesses: Guesses,
    refusals: Lines<Refusal>,
    origins: Origins,
    places: Arc<Semaphore>,
    /// The places of clients that are not logged in.
    handshakes: Places,
}

impl Shared {
    /// Counts a refusal; says whether the log has room for it.
    pub(crate) fn refuse(&self, refusal: Refusal) -> bool {
        self.stats.count_refused(refusal);
        self.refusals.has_room(refusal)
    }
}

impl Door {
    /// Loads the sessions and retained messages, then listens. Nobody is let in before [`Door::run`].
    ///
    /// # Errors
    /// [`DoorError`] when the sessions cannot be loaded or the address is taken.
    pub async fn bind(settings: DoorSettings, parts: DoorParts) -> Result<Self, DoorError> {
        let fanout = Embedded::new(settings.connections_max);
        Self::bind_with(settings, parts, fanout).await
    }

    /// As [`Door::bind`], with any router of live messages.
    pub(crate) async fn bind_with(
        settings: DoorSettings,
        parts: DoorParts,
        fanout: Arc<dyn Fanout>,
    ) -> Result<Self, DoorError> {
        let DoorParts { gatekeeper, intake, store, guesses, clock } = parts;
        let stored = store.load().await?;
        let tls = match &settings.tls {
            Some(files) => Some(Arc::new(Tls::open(files.clone()).await?)),
            None => None,
        };
        let (listeners, addresses) = listen(&settings, tls.as_ref())?;
        if settings.allow_anonymous {
            tracing::warn!("clients without a credential are let in: insecure");
        }
        let (phase, phase_seen) = watch::channel(Phase::Open);
        let stats: Arc<DoorStats> = Arc::default();
        let journal = Arc::new(Journal::new(store));
        let retained = Retained::new(stored.retained, Arc::clone(&journal), Arc::clone(&stats));
        let hub = Hub::new(clock.clone(), Arc::clone(&journal), retained, Arc::clone(&fanout));
        let hub = Arc::new(hub);
        let parts = SessionParts {
            journal,
            stats: Arc::clone(&stats),
            budget: QueueBudget::new(settings.queued_total_bytes_max),
            limits: QueueLimits {
                messages_max: settings.queued_messages_max,
                bytes_max: settings.queued_bytes_max,
                age_max: settings.queued_age_max,
            },
        };
        let sessions = Sessions::new(Arc::clone(&hub), Arc::new(parts), settings.sessions_max);
        sessions.restore(stored.sessions, clock.now());
        let (due_wills, wills_due) = unbounded_channel();
        let shared = Shared {
            rechecks: AtomicU64::new(0),
            gatekeeper,
            intake,
            clock,
            hub,
            fanout,
            credits: Credits::new(
                settings.credit_messages_max,
                settings.credit_bytes_max,
                settings.message_bytes_max,
            ),
            sessions,
            due_wills,
            stats,
            phase: phase_seen,
            guesses,
            refusals: Lines::default(),
            origins: Origins(settings.ws_allowed_origins.clone()),
            places: Arc::new(Semaphore::new(settings.connections_max)),
            handshakes: Places::new(settings.handshakes_per_address_max),
            settings,
        };
        Ok(Self {
            shared: Arc::new(shared),
            listeners: Mutex::new(Some(Listeners::new(listeners))),
            due_wills: Mutex::new(Some(wills_due)),
            addresses,
            tls,
            phase,
            running: watch::Sender::new(false),
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

    /// Serves clients until [`Door::shutdown`]; a second call returns at once.
    pub async fn run(&self) {
        let Some(listeners) = self.listeners.lock().await.take() else { return };
        let Some(due_wills) = self.due_wills.lock().await.take() else { return };
        let Shared { hub, fanout, stats, .. } = &*self.shared;
        let _running = Running::start(&self.running, stats);
        let mut tasks = JoinSet::new();
        tokio::select! {
            () = async {
                self.accept_all(listeners, due_wills, &mut tasks).await;
                self.drain(&mut tasks).await;
            } => {}
            () = hub.journal.keep() => {}
            () = self.keep_sessions() => {}
            () = fanout.watch() => {}
            () = self.watch_certificates() => {}
            never = self.shared.refusals.sum_up(say_more) => match never {},
        }
        if timeout_at(Instant::now() + LAST_STORE_MAX, hub.journal.store_all()).await.is_err() {
            tracing::warn!("the last changes of some sessions were not stored");
        }
    }

    /// The credit of all connections.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn credits(&self) -> Arc<Credits> {
        Arc::clone(&self.shared.credits)
    }

    /// Serves one client over any stream, as if it had been accepted.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) async fn serve_stream(&self, stream: impl AsyncRead + AsyncWrite) {
        let shared = Arc::clone(&self.shared);
        let place = Arc::clone(&shared.places).acquire_owned().await.expect("nobody closes it");
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let waiting = shared.handshakes.take(Source::of(peer.ip())).expect("the address has room");
        let caller = Caller::new(peer, Instant::now() + shared.settings.connect_timeout, waiting);
        converse(shared, stream, caller, place).await;
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
        self.shared.rechecks.fetch_add(1, Ordering::SeqCst);
        self.shared.judge(of).await;
    }

    /// Ends sessions, publishes delayed wills and drops messages when their time has come.
    async fn keep_sessions(&self) {
        let Shared { hub, sessions, due_wills, clock, .. } = &*self.shared;
        let mut looks = interval(SESSIONS_LOOK_INTERVAL);
        for look in (0..LOOKS_PER_AGE_CHECK).cycle() {
            looks.tick().await;
            for will in sessions.end_overdue(Instant::now()) {
                // The receiver is there as long as this runs.
                let _ = due_wills.send(will);
            }
            if look == 0 {
                let now = clock.now();
                hub.retained.drop_expired(now);
                sessions.all().iter().for_each(|session| session.drop_aged(now));
            }
        }
    }

    /// Takes up changed certificate files, and closes the connections of clients that are not trusted any more.
    async fn watch_certificates(&self) {
        let Some(tls) = &self.tls else { return std::future::pending().await };
        let mut taken_up = tls.taken_up();
        let close_untrusted = async {
            while taken_up.changed().await.is_ok() {
                self.shared.sessions.close_untrusted(|chain| tls.still_trusts(chain));
            }
        };
        tokio::select! {
            () = close_untrusted => {}
            never = tls.watch() => match never {},
        }
    }

    async fn accept_all(
        &self,
        mut listeners: Listeners,
        mut due_wills: UnboundedReceiver<DelayedWill>,
        tasks: &mut JoinSet<()>,
    ) {
        let mut phase = self.shared.phase.clone();
        while *phase.borrow_and_update() == Phase::Open {
            tokio::select! {
                _ = phase.changed() => {}
                Some(ended) = tasks.join_next() => self.count_panic(ended),
                Some(delayed) = due_wills.recv() => {
                    tasks.spawn(will::publish_delayed(Arc::clone(&self.shared), delayed));
                }
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
        let Ok(place) = Arc::clone(&shared.places).try_acquire_owned() else {
            if shared.refuse(Refusal::Full) {
                tracing::warn!(%peer, "connection refused: all places are taken");
            }
            return;
        };
        let Some(waiting) = shared.handshakes.take(Source::of(peer.ip())) else {
            if shared.refuse(Refusal::Address) {
                tracing::warn!(%peer, "connection refused: too many of its address are not logged in");
            }
            return;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "connection lost before its first byte");
            return;
        }
        let caller = Caller::new(peer, Instant::now() + shared.settings.connect_timeout, waiting);
        tasks.spawn(serve(Arc::clone(shared), stream, layers, caller, place));
    }

    /// Waits until every connection finished what it has in hand, or the deadline cuts them off.
    async fn drain(&self, tasks: &mut JoinSet<()>) {
        let mut phase = self.shared.phase.clone();
        loop {
            tokio::select! {
                _ = phase.wait_for(|phase| *phase == Phase::Over) => break,
                ended = tasks.join_next() => match ended {
                    Some(ended) => self.count_panic(ended),
                    None => break,
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

fn say_more(refusal: Refusal, more: u32) {
    tracing::warn!(reason = refusal.as_str(), more, "refused as well in the last minute");
}

/// Opens every listener that is asked for.
fn listen(settings: &DoorSettings, tls: Option<&Arc<Tls>>) -> Result<(Vec<Listener>, Addresses), DoorError> {
    let mut addresses = Addresses::default();
    let mut listeners = Vec::new();
    for (asked, is_encrypted, has_websocket, bound) in [
        (settings.listen, false, false, &mut addresses.plain),
        (settings.listen_tls, true, false, &mut addresses.tls),
        (settings.listen_ws, false, true, &mut addresses.ws),
        (settings.listen_wss, true, true, &mut addresses.wss),
    ] {
        let Some(address) = asked else { continue };
        let tls = match (is_encrypted, tls) {
            (true, Some(tls)) => Some(Arc::clone(tls)),
            (true, None) => return Err(DoorError::NoCertificate { address }),
            (false, _) => {
                tracing::warn!(%address, "the MQTT listener is not encrypted: for development only");
                None
            }
        };
        let listener = Listener::bind(address, Layers { tls, has_websocket })?;
        *bound = Some(listener.local_addr);
        listeners.push(listener);
    }
    Ok((listeners, addresses))
}

impl Shared {
    /// Closes whom the gatekeeper would not let in now.
    async fn judge(&self, of: Option<&Identity>) {
        let gatekeeper = &self.gatekeeper;
        let mut holders = Vec::new();
        let mut credentials = Vec::new();
        for connected in self.sessions.connected(of) {
            let device = connected.visitor.principal.device();
            if device.is_some_and(|identity| gatekeeper.scope(identity).is_none()) {
                connected.close(CloseReason::Revoked);
            } else if let Some(credential) = &connected.visitor.credential {
                credentials.push(credential.clone());
                holders.push(connected);
            }
        }
        if credentials.is_empty() {
            return;
        }
        let accepted = gatekeeper.still_accepts(&credentials).await.unwrap_or_default();
        let refused = holders.iter().zip(accepted).filter(|(_, is_accepted)| !is_accepted);
        refused.for_each(|(holder, _)| holder.close(CloseReason::Revoked));
    }

    /// How often everybody was judged so far.
    pub(crate) fn rechecks(&self) -> u64 {
        self.rechecks.load(Ordering::SeqCst)
    }

    /// Judges a device that has just taken its seat, when others were judged since its login was looked up: it was not
    /// among them, and its credential may have gone meanwhile.
    pub(crate) async fn judge_if_missed(&self, principal: &Principal, rechecks: u64) {
        if let Some(identity) = principal.device()
            && self.rechecks() != rechecks
        {
            self.judge(Some(identity)).await;
        }
    }
}

/// One connection from its first byte to the end of its last delivery.
async fn serve(
    shared: Arc<Shared>,
    stream: TcpStream,
    layers: Layers,
    mut caller: Caller,
    place: OwnedSemaphorePermit,
) {
    let Some(tls) = layers.tls else {
        return upgrade(shared, stream, layers.has_websocket, caller, place).await;
    };
    let mut phase = shared.phase.clone();
    let greeted = tokio::select! {
        greeted = timeout_at(caller.deadline, tls.accept(stream)) => greeted.unwrap_or(Err(HandshakeError::TooSlow)),
        _ = phase.wait_for(|phase| *phase != Phase::Open) => return,
    };
    match greeted {
        Ok((stream, chain)) => {
            caller.chain = chain;
            upgrade(shared, stream, layers.has_websocket, caller, place).await;
        }
        Err(error) => {
            if shared.refuse(Refusal::Handshake) {
                tracing::info!(peer = %caller.peer, error = &error as &dyn Error, "client refused: TLS");
            }
        }
    }
}

/// Takes a stream out of its WebSocket, if it comes in one.
async fn upgrade<S>(
    shared: Arc<Shared>,
    stream: S,
    has_websocket: bool,
    caller: Caller,
    place: OwnedSemaphorePermit,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if !has_websocket {
        return converse(shared, stream, caller, place).await;
    }
    let mut phase = shared.phase.clone();
    let upgraded = tokio::select! {
        upgraded = timeout_at(caller.deadline, websocket::upgrade(stream, &shared.origins)) => upgraded,
        _ = phase.wait_for(|phase| *phase != Phase::Open) => return,
    };
    match upgraded {
        Ok(Ok(stream)) => converse(shared, stream, caller, place).await,
        Ok(Err(error)) => {
            if shared.refuse(Refusal::Upgrade) {
                tracing::info!(peer = %caller.peer, error = &error as &dyn Error, "client refused: WebSocket");
            }
        }
        Err(_) => {
            if shared.refuse(Refusal::Upgrade) {
                tracing::info!(peer = %caller.peer, "client refused: no WebSocket in time");
            }
        }
    }
}

async fn converse<S>(shared: Arc<Shared>, stream: S, caller: Caller, place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite,
{
    let transport = transport::Transport::new(stream);
    if let Some(admitted) = admission::admit(&shared, transport, caller).await {
        connection::Connection::new(shared, admitted, place).run().await;
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
