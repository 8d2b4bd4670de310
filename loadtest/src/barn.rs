//! A barn full of simulated devices: sensors with day curves in every dialect, and weighing stations of two kinds.

mod scale;
mod sensor;
mod station;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::task::JoinSet;

use schema::clock::{Clock, Timestamp};
use schema::store::bench::{Allowed, allowlist_script};
use schema::wire::envelope::Dialect;

use crate::device::{Place, Station};
use crate::mqtt::Login;
use crate::publisher::{self, Link, Meter, Source};
use crate::report::{self, Live};
use crate::station::{Access, Tally};

/// Messages a device keeps in flight.
const WINDOW: usize = 20;
/// Keepalive of every device.
const KEEPALIVE_SECONDS: u16 = 60;

/// A barn and how long it lives.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port` of the broker.
    pub broker: String,
    /// Tenant, farm and barn.
    pub place: Place,
    /// Sensors, each with seven metrics and a connection of its own.
    pub devices: usize,
    /// Weighing stations.
    pub stations: usize,
    /// Simulated seconds between two polls of a sensor.
    pub interval_seconds: f64,
    /// Simulated seconds between two weighings of a station.
    pub weigh_seconds: f64,
    /// The dialect of all sensors; `None` mixes the three.
    pub dialect: Option<Dialect>,
    /// Devices log in as this prefix followed by their id; `None` is anonymous.
    pub user_prefix: Option<String>,
    /// Password of every device.
    pub password: Option<String>,
    /// Simulated seconds per real second.
    pub speed: f64,
    /// Real time until the devices leave; `None` is for ever.
    pub duration: Option<Duration>,
    /// Decides the weather. Event ids never repeat, whatever the seed.
    pub seed: u64,
    /// Where acknowledged event ids that the cloud must see are appended.
    pub ids_file: Option<PathBuf>,
    /// `http://host:port` of the HTTP API; with it stations upload pictures, without it they only publish.
    pub edge: Option<String>,
    /// Share of weighings in which a station has its bad habits, 0 to 1.
    pub bad_share: f64,
    /// Where weighings of stations with pictures are appended, one JSON object a line.
    pub sessions_file: Option<PathBuf>,
}

/// The ids of the sensors: `d-001`, `d-002`, ...
pub fn device_ids(count: usize) -> impl Iterator<Item = String> {
    (1..=count).map(|number| format!("d-{number:03}"))
}

/// The stations and the device at each: `st-01` with `wv-001`, ...
pub fn station_ids(count: usize) -> impl Iterator<Item = (String, String)> {
    (1..=count).map(|number| (format!("st-{number:02}"), format!("wv-{number:03}")))
}

/// The SQL with which an operator enables this barn.
#[must_use]
pub fn allowlist_sql(settings: &Settings, now: Timestamp) -> String {
    let stations: Vec<_> = station_ids(settings.stations).collect();
    let devices: Vec<_> =
        device_ids(settings.devices).chain(stations.iter().map(|(_, device)| device.clone())).collect();
    let stations: Vec<_> = stations.into_iter().map(|(station, _)| station).collect();
    let Place { tenant, farm, barn } = &settings.place;
    allowlist_script(&Allowed { tenant, farm, barn, devices: &devices, stations: &stations }, now)
}

/// Lets the barn live until its time is over or `stop` becomes true, and prints what was published.
///
/// # Errors
/// When a device cannot connect at first, or the ids file cannot be written.
pub async fn run(settings: Settings, stop: watch::Receiver<bool>) -> Result<()> {
    let meter = Arc::new(Meter::default());
    let started = Instant::now();
    let tally = Arc::new(Tally::default());
    let mut devices = spawn(&settings, &meter, &tally, started, stop)?;
    let mut live = Live::start(None);
    let everyone = async {
        while let Some(ended) = devices.join_next().await {
            ended.context("a device's task broke")??;
        }
        Ok(())
    };
    let outcome: Result<()> = report::watch(everyone, &meter, started, &mut live).await;
    live.finish();
    report::say(report::publish_line(&meter, started.elapsed()));
    if settings.edge.is_some() {
        report::say(tally.line());
    }
    outcome
}

fn spawn(
    settings: &Settings,
    meter: &Arc<Meter>,
    tally: &Arc<Tally>,
    started: Instant,
    stop: watch::Receiver<bool>,
) -> Result<JoinSet<Result<()>>> {
    let ledger = Ledger::open(settings.ids_file.as_deref())?;
    let sessions = Ledger::open(settings.sessions_file.as_deref())?;
    let time = SimulatedTime::new(settings, started);
    let mut devices = JoinSet::new();
    for (index, device) in device_ids(settings.devices).enumerate() {
        let dialect = settings.dialect.unwrap_or(Dialect::ALL[index % Dialect::ALL.len()]);
        let sensor = sensor::Sensor::new(settings, device.clone(), index, dialect, &time, ledger.clone());
        let login = Login { will: Some(sensor.will()), ..login(settings, device) };
        devices.spawn(live(settings.broker.clone(), login, sensor, Arc::clone(meter), stop.clone()));
    }
    for (index, (station, device)) in station_ids(settings.stations).enumerate() {
        let login = login(settings, device.clone());
        if let Some(edge) = &settings.edge {
            let (meter, tally) = (Arc::clone(meter), Arc::clone(tally));
            let access = Access {
                broker: settings.broker.clone(),
                tls: None,
                edge: edge.clone(),
                login,
                meter,
                tally,
            };
            let station = Station { place: settings.place.clone(), station, device };
            let ledgers = (ledger.clone(), sessions.clone());
            let rounds = station::Rounds::new(settings, station, &access, index, &time, ledgers);
            devices.spawn(rounds.run(stop.clone()));
            continue;
        }
        let source = scale::Scale::new(settings, station, device, index, &time, ledger.clone());
        devices.spawn(live(settings.broker.clone(), login, source, Arc::clone(meter), stop.clone()));
    }
    Ok(devices)
}

async fn live(
    broker: String,
    login: Login,
    mut source: impl Source,
    meter: Arc<Meter>,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let link = Link { broker, tls: None, login, window: WINDOW };
    publisher::publish_all(&link, &mut source, &meter, stop).await
}

fn login(settings: &Settings, device: String) -> Login {
    let user = settings.user_prefix.as_ref().map(|prefix| format!("{prefix}{device}"));
    Login {
        client_id: device,
        user,
        password: settings.password.clone(),
        keepalive_seconds: KEEPALIVE_SECONDS,
        ..Login::default()
    }
}

/// The clock on the barn's wall, which may run fast.
#[derive(Clone, Debug)]
struct SimulatedTime {
    started: Instant,
    started_at: Timestamp,
    speed: f64,
    ends: Option<Instant>,
}

impl SimulatedTime {
    fn new(settings: &Settings, started: Instant) -> Self {
        let ends = settings.duration.map(|duration| started + duration);
        Self { started, started_at: Clock::system().now(), speed: settings.speed.max(1e-3), ends }
    }

    /// What the clock shows.
    fn at(&self, now: Instant) -> Timestamp {
        let seconds = now.saturating_duration_since(self.started).as_secs_f64() * self.speed;
        #[expect(clippy::cast_possible_truncation, reason = "a run is shorter than 292,000 simulated years")]
        let micros = (seconds * 1e6) as i64;
        self.started_at + chrono::Duration::microseconds(micros)
    }

    /// How long a simulated span takes.
    fn real(&self, simulated_seconds: f64) -> Duration {
        Duration::from_secs_f64((simulated_seconds / self.speed).clamp(1e-6, 1e9))
    }

    fn is_over(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| now >= ends)
    }

    /// The earlier of `at` and the end.
    fn or_end(&self, at: Instant) -> Instant {
        self.ends.map_or(at, |ends| at.min(ends))
    }
}

/// The file of acknowledged event ids, shared by all devices.
#[derive(Clone, Debug)]
struct Ledger(Option<Arc<Mutex<BufWriter<File>>>>);

impl Ledger {
    fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self(None));
        };
        let file = File::options().append(true).create(true).open(path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        Ok(Self(Some(Arc::new(Mutex::new(BufWriter::new(file))))))
    }

    /// Appends and flushes: what the file holds was acknowledged, whatever happens next.
    fn append<'a>(&self, ids: impl Iterator<Item = &'a str>) -> Result<()> {
        let Some(file) = &self.0 else {
            return Ok(());
        };
        let mut file = file.lock().expect("writing a line does not panic");
        for id in ids {
            writeln!(file, "{id}").context("append to the ids file")?;
        }
        file.flush().context("flush the ids file")
    }
}
