//! A whole barn in this process: the engine, its database and a cloud that judges what it is sent.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Mutex;

use engine::{observe, tree};
use loadtest::barn::station_ids;
use loadtest::cloud::{self, PretendCloud};
use schema::store::ledger::{self, Line};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;

use crate::device::{Device, TENANT};
use crate::engine::sum_of_metric;
use crate::postgres::Database;
use crate::settings::Settings;
use crate::wait::{PATIENCE, until};

/// Stations that are let in.
pub const STATIONS: usize = 6;
/// What the engine says when it leaves deliveries unanswered.
const UNSETTLED: &str = "deliveries were not settled in time";

/// Warnings and errors of this process.
static COMPLAINTS: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// A barn at work. [`Barn::finish`] ends it and checks that it left nothing behind.
pub struct Barn {
    /// Its database.
    pub db: Database,
    /// Its cloud.
    pub cloud: PretendCloud,
    /// What the engine was told.
    pub settings: Settings,
    engine: Option<Running>,
}

/// An engine in this process.
struct Running {
    stop: oneshot::Sender<()>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Barn {
    /// A barn whose place lets devices `d-0` to `d-9` in, and stations `st-01` to `st-06` with `wv-001` to `wv-006`.
    pub async fn start() -> Self {
        Self::start_with(|settings| settings).await
    }

    /// A barn with settings of its own.
    pub async fn start_with(change: impl FnOnce(Settings) -> Settings) -> Self {
        Self::start_judged(cloud::Settings::default(), change).await
    }

    /// A barn with settings and a cloud of its own.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_judged(cloud: cloud::Settings, change: impl FnOnce(Settings) -> Settings) -> Self {
        listen_for_complaints();
        let db = Database::fresh().await;
        admit(&db).await;
        let cloud = PretendCloud::start(cloud).await.expect("a free port");
        let settings = change(Settings::of(&db.url).set("cloud.url", &cloud.url()));
        let mut barn = Self { db, cloud, settings, engine: None };
        barn.start_engine().await;
        barn
    }

    /// Where devices connect.
    #[must_use]
    pub fn mqtt(&self) -> SocketAddr {
        self.settings.mqtt
    }

    /// Connects a device.
    pub async fn device(&self, client_id: &str) -> Device {
        Device::connect(self.mqtt(), client_id).await
    }

    /// The sum of a metric over its labels, or over those that contain `label`.
    #[must_use]
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        sum_of_metric(&observe::render_metrics(), name, label)
    }

    /// Whether a warning or an error of this process said so.
    ///
    /// # Panics
    /// When a writer of the log has panicked.
    #[must_use]
    pub fn has_complained(&self, text: &str) -> bool {
        let complaints = COMPLAINTS.lock().expect("no writer panics");
        String::from_utf8_lossy(&complaints).contains(text)
    }

    /// How many lines of the log, warnings and worse, say this.
    ///
    /// # Panics
    /// When a writer of the log has panicked.
    #[must_use]
    pub fn complaints(&self, text: &str) -> usize {
        let complaints = COMPLAINTS.lock().expect("no writer panics");
        String::from_utf8_lossy(&complaints).lines().filter(|line| line.contains(text)).count()
    }

    /// Waits until the cloud has taken so many events.
    ///
    /// # Panics
    /// When it never does.
    pub async fn delivered(&self, events: u64) {
        until("the cloud takes every event", async || self.cloud.judge().accepted >= events).await;
    }

    /// Ends the engine in order and starts it again.
    ///
    /// # Panics
    /// When it does not end or start well.
    pub async fn restart(&mut self) {
        self.stop_engine().await;
        self.start_engine().await;
    }

    /// Ends the engine in order and checks that nothing was left behind: no event under way, no lease, no unanswered
    /// delivery, no error in the log, and nothing the judge of the cloud objects to.
    ///
    /// # Panics
    /// When anything was.
    pub async fn finish(self) -> Database {
        self.finish_after("").await
    }

    /// The same after something that the engine rightly logs as an error: the message of it.
    ///
    /// # Panics
    /// When anything else was left behind, or the error was not logged.
    pub async fn finish_after(mut self, error: &str) -> Database {
        self.stop_engine().await;
        check_idle(&self.db).await;
        let complaints = COMPLAINTS.lock().expect("no writer panics").clone();
        let complaints = String::from_utf8_lossy(&complaints);
        assert!(complaints.contains(error), "no complaint of {error:?}");
        let is_expected = |line: &str| !error.is_empty() && line.contains(error);
        // The level, and not a reason such as VALIDATION_ERROR.
        let is_error = |line: &str| line.split_whitespace().nth(1) == Some("ERROR");
        let is_grave = |line: &&str| (is_error(line) && !is_expected(line)) || line.contains(UNSETTLED);
        let grave: Vec<_> = complaints.lines().filter(is_grave).collect();
        assert!(grave.is_empty(), "the engine complained: {grave:#?}");
        let verdict = self.cloud.shutdown().await;
        assert_eq!(verdict.violations, [], "{verdict:?}");
        self.db
    }

    async fn start_engine(&mut self) {
        let config = self.settings.config();
        let _ = observe::metrics(&config);
        let (stop, stopped) = oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(tree::run(config, async { drop(stopped.await) }));
        let mqtt = self.settings.mqtt;
        until("the engine listens", async || {
            if let Some(ended) = tasks.try_join_next() {
                panic!("the engine ended: {ended:?}");
            }
            TcpStream::connect(mqtt).await.is_ok()
        })
        .await;
        self.engine = Some(Running { stop, tasks });
    }

    async fn stop_engine(&mut self) {
        let Running { stop, mut tasks } = self.engine.take().expect("the engine runs");
        stop.send(()).expect("the engine still runs");
        let ended = timeout(PATIENCE, tasks.join_next()).await.expect("the engine ends");
        ended.expect("it was started").expect("it does not panic").expect("it ends well");
    }
}

/// Lets the usual devices and stations in.
pub async fn admit(db: &Database) {
    for number in 0..10 {
        db.allow_device(TENANT, &format!("d-{number}"), "f-001", "b-001").await;
    }
    for (station, device) in station_ids(STATIONS) {
        db.allow_device(TENANT, &device, "f-001", "b-001").await;
        db.allow_station(TENANT, &station, "f-001", "b-001").await;
    }
}

/// Checks that no event is on its way, no lane is leased, and that the ledger is whole.
///
/// # Panics
/// When one is.
pub async fn check_idle(db: &Database) {
    let under_way = db.count("SELECT count(*) FROM sync_outbox WHERE status IN ('claimed', 'sent')").await;
    let leased = db.count("SELECT count(*) FROM sync_lane_groups").await;
    assert_eq!((under_way, leased), (0, 0), "events under way, leased groups");
    check_ledger(db).await;
}

/// Checks that the ledger knows what became of everything, and that what waits and failed by its word is there.
///
/// # Panics
/// When it does not.
pub async fn check_ledger(db: &Database) -> Line {
    let totals = async || {
        let totals = db.store.run("test", async |conn| ledger::totals(conn, None).await).await;
        totals.expect("the ledger can be read")
    };
    let of_status = async |status: &str| {
        db.count(&format!("SELECT count(*) FROM ONLY sync_outbox WHERE status IN ({status})")).await
    };
    // Ledger and rows are read one after the other: they can be compared when nothing came in or was sent meanwhile.
    let (totals, rows) = loop {
        let before = totals().await;
        let rows = (of_status("'pending', 'claimed', 'sent'").await, of_status("'failed'").await);
        if totals().await == before {
            break (before, rows);
        }
    };
    assert_eq!(totals.difference, 0, "the ledger is whole: {totals:?}");
    assert_eq!((totals.line.waiting, totals.line.failed), rows, "what waits and what failed: {totals:?}");
    totals.line
}

/// Collects warnings and errors, and shows everything else with the test.
fn listen_for_complaints() {
    let shown = tracing_subscriber::fmt::layer().with_test_writer().with_filter(LevelFilter::INFO);
    let kept = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(|| Complaints);
    // A second barn of the same test finds everything in place.
    drop(tracing_subscriber::registry().with(shown).with(kept.with_filter(LevelFilter::WARN)).try_init());
}

struct Complaints;

impl Write for Complaints {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        COMPLAINTS.lock().expect("no writer panics").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
