//! A strict pretend cloud that fails on demand and judges what it is sent.

mod auth;
mod batch;
mod digest;
mod judge;
pub mod log;
mod mode;
mod routes;
mod seen;
#[cfg(test)]
mod tests;
mod weighings;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use anyhow::{Context, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use schema::clock::{Clock, Timestamp};

pub use auth::{Auth, sign};
pub use digest::HourDigest;
pub use judge::{Verdict, Violation};
pub use mode::{Mode, Plan};
pub use routes::{BATCH_PATH, DEDUPE_PATH, HANDSHAKE_PATH};
pub use weighings::{SeenImage, SeenSession};

use judge::Judge;
use mode::Behavior;
use seen::Seen;

/// Connections waiting to be accepted.
const BACKLOG: u32 = 1024;

/// How a pretend cloud is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of the cloud; port 0 takes a free one.
    pub listen: SocketAddr,
    /// A second address for `/judge` and `/mode`, open even while the cloud refuses connections.
    pub control: Option<SocketAddr>,
    /// Who may send.
    pub auth: Auth,
    /// How it behaves at first.
    pub mode: Mode,
    /// Accepted ids are appended here and read again at the next start.
    pub state_file: Option<PathBuf>,
    /// What was decided about each event is written here, in order, for `verify` to read; an older file is replaced.
    pub events_file: Option<PathBuf>,
    /// Whether an event older than what its lane delivered in an earlier batch is only counted. Real devices replay
    /// old buffers, so a test that does the same needs this.
    pub tolerates_late: bool,
    /// Where signatures get their time from.
    pub clock: Clock,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            control: None,
            auth: Auth::None,
            mode: Mode::Ok,
            state_file: None,
            events_file: None,
            tolerates_late: false,
            clock: Clock::system(),
        }
    }
}

/// A running pretend cloud. Dropping it closes every socket.
#[derive(Debug)]
pub struct PretendCloud {
    shared: Arc<Shared>,
    address: SocketAddr,
    control: Option<SocketAddr>,
    listening: watch::Receiver<bool>,
    tasks: JoinSet<()>,
}

/// What connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    auth: Auth,
    clock: Clock,
    has_control: bool,
    behavior: watch::Sender<Behavior>,
    judge: Mutex<Judge>,
    signatures: Mutex<auth::Seen>,
}

impl Shared {
    fn judge(&self) -> MutexGuard<'_, Judge> {
        self.judge.lock().expect("the judge does not panic")
    }

    fn switch(&self, plan: Plan) {
        self.behavior.send_replace(Behavior::new(plan, Instant::now()));
    }

    fn take_mode(&self) -> Mode {
        let mut mode = Mode::Ok;
        // Counting a request down is no change anybody waits for.
        self.behavior.send_if_modified(|behavior| {
            mode = behavior.take(Instant::now());
            false
        });
        mode
    }

    /// The behavior of now; what is switched from here on shows as a change.
    fn watch_mode(&self) -> watch::Receiver<Behavior> {
        self.behavior.subscribe()
    }

    fn authorize(&self, request: auth::Signed<'_>) -> Result<(), auth::Denied> {
        let mut seen = self.signatures.lock().expect("checking a signature does not panic");
        auth::check(&self.auth, &mut seen, request, self.clock.now())
    }
}

impl PretendCloud {
    /// Opens the sockets; requests are answered from now on.
    ///
    /// # Errors
    /// When an address is taken or the state file cannot be read.
    pub async fn start(settings: Settings) -> Result<Self> {
        let listener = TcpListener::bind(settings.listen).await;
        let listener = listener.with_context(|| format!("listen on {}", settings.listen))?;
        let address = listener.local_addr().context("read the own address")?;
        let control = match settings.control {
            Some(at) => Some(TcpListener::bind(at).await.with_context(|| format!("listen on {at}"))?),
            None => None,
        };
        let control_address = control.as_ref().map(TcpListener::local_addr).transpose()?;
        let judge = open_judge(&settings)?;
        let shared = Arc::new(Shared {
            auth: settings.auth,
            clock: settings.clock,
            has_control: control.is_some(),
            behavior: watch::Sender::new(Behavior::new(settings.mode.into(), Instant::now())),
            judge: Mutex::new(judge),
            signatures: Mutex::default(),
        });
        let (is_listening, listening) = watch::channel(true);
        let mut tasks = JoinSet::new();
        tasks.spawn(run_cloud(Arc::clone(&shared), listener, address, is_listening));
        if let Some(control) = control {
            tasks.spawn(run_control(Arc::clone(&shared), control));
        }
        Ok(Self { shared, address, control: control_address, listening, tasks })
    }

    /// Where the cloud listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the judge listens while the cloud refuses connections.
    #[must_use]
    pub fn control_address(&self) -> Option<SocketAddr> {
        self.control
    }

    /// The URL an edge sends batches to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}{BATCH_PATH}", self.address)
    }

    /// Switches the behavior; when this returns, the listening socket is open or closed as the mode says. Requests
    /// that hang are cut.
    pub async fn mode(&self, plan: impl Into<Plan>) {
        let plan = plan.into();
        let is_open = !plan.mode.is_refusing();
        self.shared.switch(plan);
        let mut listening = self.listening.clone();
        // The sender lives as long as the cloud; when it is gone there is nothing to wait for.
        drop(listening.wait_for(|is_listening| *is_listening == is_open).await);
    }

    /// What was received so far, and what was wrong with it.
    #[must_use]
    pub fn judge(&self) -> Verdict {
        self.shared.judge().verdict()
    }

    /// The accepted event ids of a tenant, in no order.
    #[must_use]
    pub fn ids(&self, tenant_id: &str) -> Vec<String> {
        let (uuids, mut ids) = self.shared.judge().seen.ids(tenant_id);
        ids.extend(uuids.into_iter().map(crate::ids::hyphenated));
        ids
    }

    /// The last accepted events as they came, oldest first; at most 1,000 are kept.
    #[must_use]
    pub fn events(&self, limit: usize) -> Vec<serde_json::Value> {
        let events = self.shared.judge().last_events(limit);
        events.iter().filter_map(|event| serde_json::from_slice(event).ok()).collect()
    }

    /// The sessions of a tenant.
    #[must_use]
    pub fn sessions(&self, tenant_id: &str) -> Vec<SeenSession> {
        self.shared.judge().weighings.sessions(tenant_id)
    }

    /// The pictures of a tenant.
    #[must_use]
    pub fn images(&self, tenant_id: &str) -> Vec<SeenImage> {
        self.shared.judge().weighings.images(tenant_id)
    }

    /// What the cloud has of a tenant, by hour of the events; of what was taken since its start.
    #[must_use]
    pub fn digest(&self, tenant_id: &str) -> Vec<HourDigest> {
        self.shared.judge().digest.hours(tenant_id)
    }

    /// How old readings were when they came, in milliseconds at this quantile (0 to 1), by the times their devices gave them.
    #[must_use]
    pub fn age_ms(&self, quantile: f64) -> u64 {
        self.shared.judge().ages_ms.value_at_quantile(quantile)
    }

    /// Loses an event that was taken. `false`: it was not there.
    #[must_use]
    pub fn forget(&self, tenant_id: &str, event_id: &str, occurred_at: Timestamp) -> bool {
        self.shared.judge().forget(tenant_id, event_id, occurred_at)
    }

    /// Forgets ids, lanes, counters and violations.
    pub fn reset(&self) {
        self.shared.judge().reset();
    }

    /// Closes every socket and returns the last verdict.
    pub async fn shutdown(mut self) -> Verdict {
        self.tasks.shutdown().await;
        self.judge()
    }
}

fn open_judge(settings: &Settings) -> Result<Judge> {
    let log = settings.events_file.as_deref().map(log::EventLog::create).transpose()?;
    let Some(path) = &settings.state_file else {
        return Ok(Judge::new(settings.tolerates_late, None, log, Seen::default()));
    };
    let file = std::fs::OpenOptions::new().read(true).append(true).create(true).open(path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    let seen =
        Seen::read(std::io::BufReader::new(&file)).with_context(|| format!("read {}", path.display()))?;
    Ok(Judge::new(settings.tolerates_late, Some(file), log, seen))
}

async fn run_cloud(
    shared: Arc<Shared>,
    listener: TcpListener,
    address: SocketAddr,
    is_listening: watch::Sender<bool>,
) {
    let mut listener = listener;
    loop {
        accept_until_refusing(&shared, listener).await;
        let reserved = reserve(address);
        is_listening.send_replace(false);
        let mut behavior = shared.watch_mode();
        while behavior.borrow_and_update().mode_at(Instant::now()).is_refusing() {
            until_switched(&mut behavior).await;
        }
        listener = match reserved.and_then(|socket| socket.listen(BACKLOG)) {
            Ok(listener) => listener,
            Err(error) => return crate::report::note(format!("cannot listen on {address} again: {error}")),
        };
        is_listening.send_replace(true);
    }
}

/// Waits until somebody switches the mode, or until it ends by itself.
async fn until_switched(behavior: &mut watch::Receiver<Behavior>) {
    let until = behavior.borrow().until();
    let ends = async {
        match until {
            Some(until) => tokio::time::sleep_until(until.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = behavior.changed() => {}
        () = ends => {}
    }
}

/// Takes the port without listening on it: connects are refused, and nobody else can have it.
fn reserve(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Serves until the mode says otherwise, then cuts every connection.
async fn accept_until_refusing(shared: &Arc<Shared>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    let mut behavior = shared.watch_mode();
    loop {
        if behavior.borrow_and_update().mode_at(Instant::now()).is_refusing() {
            return;
        }
        tokio::select! {
            _ = behavior.changed() => {}
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(Arc::clone(shared), stream));
                }
            }
        }
    }
}

async fn run_control(shared: Arc<Shared>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve_control(Arc::clone(&shared), stream));
                }
            }
        }
    }
}

async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    drop(stream.set_nodelay(true));
    let service = service_fn(move |request| routes::answer(Arc::clone(&shared), request));
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    // A connection that ends badly was either cut on purpose or left by the client.
    drop(connection.await);
}

async fn serve_control(shared: Arc<Shared>, stream: TcpStream) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(routes::control(shared, request).await) }
    });
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    drop(connection.await);
}
