//! A barn full of simulated devices: sensors with day curves in every dialect, and weighing stations of two kinds.

mod books;
mod past;
mod scale;
mod sensor;
mod station;
mod subscriber;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::task::JoinSet;

use schema::clock::{Clock, Timestamp};
use schema::store::bench::{Allowed, allowlist_script};
use schema::wire::envelope::Dialect;

use crate::connection::logins::Logins;
use crate::connection::provision::{Api, Newcomer};
use crate::connection::{Connection, Device};
use crate::device::{Place, Station};
use crate::flock::Book;
use crate::flock::air;
use crate::flock::play::{self, History};
use crate::flock::truth::{Flock, Wish};
use crate::mqtt::{Login, refusal};
use crate::publisher::{self, Link, Meter};
use crate::report::{self, Live};
use crate::run::{Refusal, Run, Verdict};
use crate::station::{Access, Tally};
use crate::threshold::{self, Threshold};
use crate::watched::{self, Watched};

use books::{Books, Lines, Speaker, Spoken};
pub use subscriber::Subscribers;

/// Messages a device keeps in flight.
const WINDOW: usize = 20;
/// How long deliveries are waited for after the devices left.
const DELIVERY_WAIT: Duration = Duration::from_secs(5);
/// How long the past waits for the first bird of today.
const FIRST_BIRD_WAIT_MAX: Duration = Duration::from_secs(60);
/// Refused devices that are named one by one.
const NAMED_MAX: usize = 10;

/// A barn and how long it lives.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The broker, and what each device shows there.
    pub connection: Connection,
    /// Where devices are let in first, and the file that keeps their logins.
    pub provision: Option<(Api, Option<PathBuf>)>,
    /// Connections opened per second at most.
    pub connects_per_second: f64,
    /// Time between two storms, in which all sensors lose their connections and come back at once.
    pub storm_every: Option<Duration>,
    /// Who listens.
    pub subscribers: Option<Subscribers>,
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
    /// The flock whose past is played first.
    pub flock: Option<FlockSettings>,
    /// Sensors, the last ones, that now and then write a time that nobody can read.
    pub confused: usize,
    /// Share of weighings in which a station has its bad habits, 0 to 1.
    pub bad_share: f64,
    /// Where weighings of stations with pictures are appended, one JSON object a line.
    pub sessions_file: Option<PathBuf>,
    /// Where the ledger is written: what became of each message.
    pub ledger: Option<PathBuf>,
    /// Where the run is written.
    pub run_file: Option<PathBuf>,
    /// What must not be.
    pub fail_if: Vec<Threshold>,
    /// Processes to watch.
    pub watched: watched::Settings,
    /// What the user said, for the report.
    pub told: BTreeMap<String, String>,
}

impl Settings {
    /// Sensors, and the probes of a barn whose air is played.
    fn device_ids(&self) -> impl Iterator<Item = String> {
        let has_air = self.flock.as_ref().is_some_and(|flock| flock.air_hours.is_some());
        device_ids(self.devices).chain(air::probe_ids().filter(move |_| has_air))
    }
}

/// A flock whose past is played.
#[derive(Clone, Debug)]
pub struct FlockSettings {
    /// Where it is written down; `None`: it is there already, its past as well.
    pub book: Option<Book>,
    /// Whether its past is played beside the life of the barn, once a bird was weighed, and not before it.
    pub is_beside: bool,
    /// How much too much the last scale says at the end, as a share.
    pub drift: f64,
    /// Days of its past, before today.
    pub days: u16,
    /// Birds placed.
    pub birds: u32,
    /// Weighings of a day, of all stations together.
    pub weighings_per_day: u32,
    /// Hours of the air of its barn, up to now; `None` plays none.
    pub air_hours: Option<u16>,
    /// Where its truth is written.
    pub truth_file: Option<PathBuf>,
}

impl FlockSettings {
    /// How much too much a scale of several says at the end: the last one drifts.
    fn drift_of(&self, index: usize, scales: usize) -> f64 {
        if index + 1 == scales { self.drift } else { 0.0 }
    }
}

/// The birds that are in the house today.
#[derive(Debug)]
struct Birds {
    flock: Flock,
    age_days: u16,
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
        settings.device_ids().chain(stations.iter().map(|(_, device)| device.clone())).collect();
    let stations: Vec<_> = stations.into_iter().map(|(station, _)| station).collect();
    let Place { tenant, farm, barn } = &settings.place;
    allowlist_script(&Allowed { tenant, farm, barn, devices: &devices, stations: &stations }, now)
}

/// Lets the barn live until its time is over or `stop` becomes true, and prints what was published. True when every
/// device was let in and no threshold was passed.
///
/// # Errors
/// When the broker is not there at first, or a file cannot be written.
pub async fn run(mut settings: Settings, stop: watch::Receiver<bool>) -> Result<bool> {
    settings.connection.probe().await?;
    if let Some((api, file)) = settings.provision.take() {
        settings.connection.logins = let_in(&api, &settings, file).await?;
    }
    let life = Life {
        books: Books::open(&settings)?,
        meter: Arc::new(Meter::default()),
        tally: Arc::new(Tally::default()),
        settings: &settings,
    };
    life.run(stop).await
}

async fn let_in(api: &Api, settings: &Settings, file: Option<PathBuf>) -> Result<Logins> {
    let ids =
        settings.device_ids().chain(station_ids(settings.stations).map(|(_, device)| device)).map(|id| {
            Newcomer {
                device: Device { tenant: settings.place.tenant.clone(), id },
                farm: settings.place.farm.clone(),
                barn: settings.place.barn.clone(),
            }
        });
    let newcomers: Vec<_> = ids.collect();
    let mut live = Live::start(Some(newcomers.len() as u64));
    let table = api.let_in(newcomers, |done| live.show(done as u64, "devices let in")).await;
    live.finish();
    let table = table?;
    if let Some(file) = file {
        table.write(&file)?;
    }
    Ok(Logins::Table(table))
}

/// A barn under way.
struct Life<'a> {
    settings: &'a Settings,
    books: Arc<Books>,
    meter: Arc<Meter>,
    tally: Arc<Tally>,
}

impl Life<'_> {
    async fn run(&self, stop: watch::Receiver<bool>) -> Result<bool> {
        let began_at = Clock::system().now();
        let (end, ended) = watch::channel(false);
        let mut listeners = JoinSet::new();
        let mut live = Live::start(None);
        let mut watched = Watched::new(self.settings.watched.clone());
        let outcome = {
            let work = async {
                if let Some(subscribers) = &self.settings.subscribers {
                    subscribers.join(&mut listeners, &self.books, ended.clone()).await?;
                }
                if self.settings.flock.as_ref().is_some_and(|flock| flock.is_beside) {
                    tokio::try_join!(self.play_past(stop.clone()), self.live(stop.clone()))?;
                } else {
                    self.play_past(stop.clone()).await?;
                    self.live(stop.clone()).await?;
                }
                self.wait_for_deliveries(stop).await;
                Ok::<(), anyhow::Error>(())
            };
            watched.beside(work, &self.meter, &self.books.timeline, &mut live).await
        };
        end.send_replace(true);
        while let Some(listener) = listeners.join_next().await {
            listener.context("a subscriber's task broke")??;
        }
        live.finish();
        self.books.ledger.finish()?;
        outcome?;
        report::say(report::publish_line(&self.meter, self.books.timeline.started().elapsed()));
        if self.settings.edge.is_some() {
            report::say(self.tally.line());
        }
        self.conclude(began_at, watched.engine())
    }

    fn wish(&self, settings: &FlockSettings) -> Wish {
        Wish {
            seed: self.settings.seed,
            placed_on: play::today(Clock::system().now()) - chrono::Days::new(u64::from(settings.days)),
            days: settings.days,
            birds: settings.birds,
            weighings_per_day: settings.weighings_per_day,
        }
    }

    /// Plays the past of the flock, as fast as the engine takes it.
    async fn play_past(&self, mut stop: watch::Receiver<bool>) -> Result<()> {
        let Some(settings) = &self.settings.flock else { return Ok(()) };
        let Some(book) = &settings.book else { return Ok(()) };
        let wish = self.wish(settings);
        let placed_on = wish.placed_on;
        let mut placed = play::place(book, &self.settings.place, wish, |_| {}).await?;
        report::note(format!(
            "placed flock {} of {} birds on {placed_on}",
            placed.truth.flock_id, settings.birds
        ));
        if settings.is_beside {
            tokio::select! {
                () = self.first_bird() => {}
                _ = stop.wait_for(|is_stopped| *is_stopped) => return Ok(()),
            }
        }
        if let Some(file) = &settings.truth_file {
            placed.truth.write(file)?;
        }
        let stations = self.settings.stations;
        let mut scales = JoinSet::new();
        for (index, (station, device)) in station_ids(stations).enumerate() {
            let client_id = if settings.is_beside { format!("{device}-past") } else { device.clone() };
            let link = self.link_as(&device, client_id)?;
            let station = Station { place: self.settings.place.clone(), station, device };
            let history = History::new(station.clone(), &placed, (index, stations));
            let history = history.drifting(settings.drift_of(index, stations));
            let source = past::Past::new(history, &station.device, Arc::clone(&self.books), index == 0);
            scales.spawn(publish(link, source, Arc::clone(&self.meter), stop.clone()));
        }
        while let Some(ended) = scales.join_next().await {
            ended.context("a scale's task broke")??;
        }
        if let Some(hours) = settings.air_hours {
            let (place, now) = (&self.settings.place, Clock::system().now());
            placed.truth.air = Some(air::play(book, place, self.settings.seed, hours, now).await?);
            report::note(format!("played {hours} hours of air by {} probes", air::probe_ids().count()));
            if let Some(file) = &settings.truth_file {
                placed.truth.write(file)?;
            }
        }
        Ok(())
    }

    /// Waits until a bird was weighed, or for as long as that may take: the past is to delay nobody's first look.
    async fn first_bird(&self) {
        let weighed = async {
            while self.tally.weighings.load(Ordering::Relaxed) == 0 {
                tokio::time::sleep(report::REDRAW_EVERY).await;
            }
        };
        drop(tokio::time::timeout(FIRST_BIRD_WAIT_MAX, weighed).await);
    }

    /// Everybody's life, from connecting to leaving.
    async fn live(&self, stop: watch::Receiver<bool>) -> Result<()> {
        let sessions = Lines::open(self.settings.sessions_file.as_deref())?;
        let time = SimulatedTime::new(self.settings, self.books.timeline.started());
        let mut turns =
            tokio::time::interval(Duration::from_secs_f64(1.0 / self.settings.connects_per_second));
        let birds = self
            .settings
            .flock
            .as_ref()
            .map(|flock| Arc::new(Birds { flock: Flock::draw(self.wish(flock)), age_days: flock.days }));
        let mut devices = JoinSet::new();
        for (index, device) in device_ids(self.settings.devices).enumerate() {
            turns.tick().await;
            let dialect = self.settings.dialect.unwrap_or(Dialect::ALL[index % Dialect::ALL.len()]);
            let books = Arc::clone(&self.books);
            let sensor = sensor::Sensor::new(self.settings, device.clone(), index, dialect, &time, books);
            let mut link = self.link(&device)?;
            link.login.will = Some(sensor.will());
            devices.spawn(publish(link, sensor, Arc::clone(&self.meter), stop.clone()));
        }
        for (index, (station, device)) in station_ids(self.settings.stations).enumerate() {
            turns.tick().await;
            let link = self.link(&device)?;
            if let Some(edge) = &self.settings.edge {
                let access = self.access(link, edge);
                let station = Station { place: self.settings.place.clone(), station, device };
                let files = (self.books.ids.clone(), sessions.clone());
                let mut rounds = station::Rounds::new(self.settings, station, &access, index, &time, files);
                if let (Some(flock), Some(birds)) = (&self.settings.flock, &birds) {
                    let drift = flock.drift_of(index, self.settings.stations);
                    rounds = rounds.of(Arc::clone(birds), drift);
                }
                devices.spawn(rounds.run(stop.clone()));
                continue;
            }
            let books = Arc::clone(&self.books);
            let source = scale::Scale::new(self.settings, station, device, index, &time, books);
            devices.spawn(publish(link, source, Arc::clone(&self.meter), stop.clone()));
        }
        while let Some(ended) = devices.join_next().await {
            ended.context("a device's task broke")??;
        }
        Ok(())
    }

    fn link(&self, device: &str) -> Result<Link> {
        self.link_as(device, device.to_owned())
    }

    fn link_as(&self, device: &str, client_id: String) -> Result<Link> {
        let known = Device { tenant: self.settings.place.tenant.clone(), id: device.to_owned() };
        self.settings.connection.link(&known, client_id, WINDOW)
    }

    fn access(&self, link: Link, edge: &str) -> Access {
        let Link { broker, tls, login, .. } = link;
        let login: Login = login;
        let (meter, tally) = (Arc::clone(&self.meter), Arc::clone(&self.tally));
        Access { broker, tls, edge: edge.to_owned(), login, meter, tally }
    }

    async fn wait_for_deliveries(&self, mut stop: watch::Receiver<bool>) {
        let Some(subscribers) = &self.settings.subscribers else { return };
        let everything = async {
            while self.books.delivered.load(Ordering::Relaxed) < self.expected(subscribers) {
                tokio::time::sleep(report::REDRAW_EVERY).await;
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(DELIVERY_WAIT, everything) => {}
            _ = stop.wait_for(|is_stopped| *is_stopped) => {}
        }
    }

    /// Deliveries there must be: of what was acknowledged, to each subscriber or to one of them.
    fn expected(&self, subscribers: &Subscribers) -> u64 {
        let each = if subscribers.is_shared { 1 } else { subscribers.count as u64 };
        self.books.telemetry_acknowledged.load(Ordering::Relaxed) * each
    }

    fn conclude(&self, began_at: Timestamp, engine: Option<&str>) -> Result<bool> {
        let mut run = Run::new("barn", began_at, Clock::system().now());
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let mut counts = vec![
            ("published", self.meter.published()),
            ("acknowledged", self.meter.acknowledged()),
            ("refused", count(&self.meter.refused)),
            ("unanswered", count(&self.books.unanswered)),
            ("resent", count(&self.meter.resent)),
            ("reconnects", count(&self.meter.reconnects)),
            ("devices", (self.settings.devices + self.settings.stations) as u64),
        ];
        if let Some(subscribers) = &self.settings.subscribers {
            let (delivered, expected) = (count(&self.books.delivered), self.expected(subscribers));
            counts.push(("delivered", delivered));
            counts.push(("undelivered", expected.saturating_sub(delivered)));
        }
        run.counts = counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        run.take(&self.books.timeline);
        run.engine = engine.map(str::to_owned);
        (run.settings, run.seed) = (self.settings.told.clone(), Some(self.settings.seed));
        run.refusals = self.books.refusals();
        run.verdict = self.verdict(&run)?;
        for line in threshold::summary(&run) {
            report::say(line);
        }
        if let Some(path) = &self.settings.run_file {
            run.write(path)?;
        }
        Ok(run.verdict.passed)
    }

    fn verdict(&self, run: &Run) -> Result<Verdict> {
        let named = run.refusals.iter().take(NAMED_MAX);
        let line = |it: &Refusal| match it.messages {
            0 => format!("{}: not let in, code {:#04x}: {}", it.device, it.code, it.reason),
            messages => {
                format!(
                    "{}: {messages} messages refused with code {:#04x}: {}",
                    it.device, it.code, it.reason
                )
            }
        };
        let mut reasons: Vec<_> = named.map(line).collect();
        if run.refusals.len() > NAMED_MAX {
            reasons.push(format!("… and {} more refusals", run.refusals.len() - NAMED_MAX));
        }
        reasons.extend(threshold::broken(&self.settings.fail_if, std::slice::from_ref(run))?);
        Ok(Verdict { passed: reasons.is_empty(), reasons })
    }
}

async fn publish(
    link: Link,
    speaker: impl Speaker,
    meter: Arc<Meter>,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    publisher::publish_patiently(&link, &mut Spoken(speaker), &meter, stop).await
}

/// The line of a report about refusals of one device.
fn refused(device: &str, code: u8, messages: u64) -> Refusal {
    Refusal { device: device.to_owned(), code, reason: refusal(code).to_owned(), messages }
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
