//! Plays recorded traffic back: each device through a connection and a login of its own, each message when it is due.

mod feed;
pub mod pace;
mod player;
pub mod rewrite;
mod scan;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use tokio::task::JoinSet;

use schema::clock::{Clock, Timestamp};
use schema::store::bench::{Allowed, allowlist_script};

use crate::connection::logins::Logins;
use crate::connection::provision::{Api, Newcomer};
use crate::connection::{Connection, Device};
use crate::ledger::Ledger;
use crate::publisher::{self, Meter};
use crate::report::{self, Live};
use crate::run::{Run, Verdict};
use crate::threshold::Threshold;
use crate::timeline::Timeline;
use crate::watched::{self, Watched};

use pace::{Pace, Tempo};
use player::{Player, Queue, Shared};
use rewrite::copy_name;
use scan::Scan;

/// Devices that are named one by one.
const NAMED_MAX: usize = 10;

/// How the times in the messages are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    /// Each message by what lies between its recorded arrival and when it is due: it looks as fresh as it was then.
    ToDue,
    /// All by the same, so that the recording ends now: the pauses between readings stay.
    EndsNow,
}

/// What to play, and to whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The files, in order.
    pub files: Vec<PathBuf>,
    /// The broker.
    pub connection: Connection,
    /// Where devices are let in first, and the file that keeps their logins.
    pub provision: Option<(Api, Option<PathBuf>)>,
    /// Speed.
    pub pace: Pace,
    /// How often everything is played.
    pub loops: usize,
    /// Barns it is played for.
    pub copies: usize,
    /// Whether events and sessions get new ids.
    pub renews_ids: bool,
    /// How times are moved.
    pub shift: Option<Shift>,
    /// What new ids are derived from; without it they are new each time.
    pub seed: Option<u64>,
    /// Unacknowledged messages of each device at most.
    pub window: usize,
    /// Connections opened per second at most.
    pub connects_per_second: f64,
    /// How long devices may take to connect before the play begins without them.
    pub connect_wait: Duration,
    /// How long answers are waited for after the last message.
    pub drain_wait: Duration,
    /// Where the ledger is written.
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

/// The SQL with which an operator lets in everybody of a recording.
///
/// # Errors
/// When the files cannot be read.
pub fn allowlist_sql(settings: &Settings) -> Result<String> {
    let scan = Scan::of(&settings.files)?;
    let mut script = String::new();
    for (place, (devices, stations)) in scan.places() {
        for copy in 0..settings.copies {
            let named = |ids: &[String]| ids.iter().map(|id| copy_name(id, copy)).collect::<Vec<_>>();
            let (devices, stations) = (named(&devices), named(&stations));
            let barn = copy_name(&place.barn, copy);
            let allowed = Allowed {
                tenant: &place.tenant,
                farm: &place.farm,
                barn: &barn,
                devices: &devices,
                stations: &stations,
            };
            script.push_str(&allowlist_script(&allowed, Clock::system().now()));
        }
    }
    Ok(script)
}

/// Plays the files and prints what came of it. True when every message was acknowledged and no threshold was passed.
///
/// # Errors
/// When a file cannot be read, the broker is not there at first, or a file cannot be written.
pub async fn run(mut settings: Settings, stop: watch::Receiver<bool>) -> Result<bool> {
    let scan = Scan::of(&settings.files)?;
    for line in scan.describe() {
        report::note(line);
    }
    settings.connection.probe().await?;
    if let Some((api, file)) = settings.provision.take() {
        let table = let_in(&api, scan.newcomers(settings.copies)).await?;
        if let Some(file) = file {
            table.write(&file)?;
        }
        settings.connection.logins = Logins::Table(table);
    }
    let total = scan.messages * (settings.loops * settings.copies) as u64;
    let ledger = Ledger::open(settings.ledger.as_deref())?;
    let shared = Shared::new(Timeline::start(), ledger, settings.pace.tempo != Tempo::Max);
    let play = Play { settings: &settings, scan: &scan, shared: Arc::new(shared), total };
    play.run(stop).await
}

async fn let_in(api: &Api, newcomers: Vec<Newcomer>) -> Result<crate::connection::logins::Table> {
    let mut live = Live::start(Some(newcomers.len() as u64));
    let table = api.let_in(newcomers, |done| live.show(done as u64, "devices let in")).await;
    live.finish();
    table
}

struct Play<'a> {
    settings: &'a Settings,
    scan: &'a Scan,
    shared: Arc<Shared>,
    total: u64,
}

impl Play<'_> {
    async fn run(&self, stop: watch::Receiver<bool>) -> Result<bool> {
        let began_at = Clock::system().now();
        let meter = Arc::new(Meter::default());
        let (end, ended) = watch::channel(false);
        let mut queues = BTreeMap::new();
        let mut devices = JoinSet::new();
        let mut live = Live::start(Some(self.total));
        let mut watched = Watched::new(self.settings.watched.clone());
        let work = async {
            self.connect(&mut queues, &mut devices, &meter, &ended).await?;
            self.shared.timeline.mark("play");
            let fed = feed::feed(self.settings, self.scan, &self.shared, &queues, stop.clone()).await;
            queues.values().for_each(|queue| queue.close());
            self.wait_for_answers(&mut devices, stop.clone()).await?;
            fed
        };
        let fed = watched.beside(work, &meter, &self.shared.timeline, &mut live).await;
        // Whoever still waits for an answer is told to leave; the publisher then waits for a bounded time.
        end.send_replace(true);
        while let Some(device) = devices.join_next().await {
            device.context("a device's task broke")??;
        }
        live.finish();
        self.shared.ledger.finish()?;
        let fed = fed?;
        self.conclude(began_at, &meter, fed, watched.engine())
    }

    /// Opens all connections, at their rate, and waits until each stands or is refused.
    async fn connect(
        &self,
        queues: &mut BTreeMap<Device, Arc<Queue>>,
        devices: &mut JoinSet<Result<()>>,
        meter: &Arc<Meter>,
        stop: &watch::Receiver<bool>,
    ) -> Result<()> {
        let mut turns =
            tokio::time::interval(Duration::from_secs_f64(1.0 / self.settings.connects_per_second));
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        for device in self.scan.senders(self.settings.copies) {
            turns.tick().await;
            let queue = Arc::new(Queue::default());
            queues.insert(device.clone(), Arc::clone(&queue));
            let name = format!("{}/{}", device.tenant, device.id);
            if self.settings.connection.logins.lacks(&device) {
                report::note(format!("{name} has no row in the credentials, so it shows none"));
            }
            let client_id = format!("{}.{}", device.tenant, device.id);
            let link = self.settings.connection.link(&device, client_id, self.settings.window)?;
            let mut player = Player::new(name, queue, Arc::clone(&self.shared));
            let (meter, stop) = (Arc::clone(meter), stop.clone());
            devices.spawn(async move {
                publisher::publish_patiently(&link, &mut player, &meter, stop.clone()).await?;
                player.refuse_rest(&stop).await
            });
        }
        let settled = async {
            while self.shared.settled.load(Ordering::Relaxed) < queues.len() as u64 {
                self.shared.settled_changed.notified().await;
            }
        };
        if tokio::time::timeout(self.settings.connect_wait, settled).await.is_err() {
            let settled = self.shared.settled.load(Ordering::Relaxed);
            report::note(format!(
                "only {settled} of {} devices are connected; the play begins",
                queues.len()
            ));
        }
        Ok(())
    }

    async fn wait_for_answers(
        &self,
        devices: &mut JoinSet<Result<()>>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<()> {
        let everyone = async {
            while let Some(device) = devices.join_next().await {
                device.context("a device's task broke")??;
            }
            Ok(())
        };
        tokio::select! {
            answered = everyone => answered,
            () = tokio::time::sleep(self.settings.drain_wait) => Ok(()),
            _ = stop.wait_for(|is_stopped| *is_stopped) => Ok(()),
        }
    }

    fn conclude(&self, began_at: Timestamp, meter: &Meter, fed: u64, engine: Option<&str>) -> Result<bool> {
        let mut run = Run::new("replay", began_at, Clock::system().now());
        let refused = self.shared.refused.load(Ordering::Relaxed);
        let unanswered = self.shared.unanswered.load(Ordering::Relaxed);
        let done = meter.acknowledged() + meter.fire_and_forget() + refused + unanswered;
        let counts = [
            ("recorded", self.total),
            ("published", meter.published()),
            ("acknowledged", meter.acknowledged()),
            ("qos0", meter.fire_and_forget()),
            ("refused", refused),
            ("unanswered", unanswered),
            ("unsent", self.total.saturating_sub(done)),
            ("resent", meter.resent.load(Ordering::Relaxed)),
            ("reconnects", meter.reconnects.load(Ordering::Relaxed)),
            ("devices", self.scan.senders(self.settings.copies).count() as u64),
            ("lag_ms_max", u64::try_from(self.shared.lag_max().as_millis()).unwrap_or(u64::MAX)),
        ];
        run.counts = counts.map(|(name, count)| (name.to_owned(), count)).into();
        run.take(&self.shared.timeline);
        run.engine = engine.map(str::to_owned);
        (run.settings, run.seed) = (self.settings.told.clone(), self.settings.seed);
        run.refusals = self.shared.refusals();
        run.verdict = self.verdict(&run, fed)?;
        for line in crate::threshold::summary(&run) {
            report::say(line);
        }
        if let Some(path) = &self.settings.run_file {
            run.write(path)?;
        }
        Ok(run.verdict.passed)
    }

    fn verdict(&self, run: &Run, fed: u64) -> Result<Verdict> {
        let mut reasons = Vec::new();
        for refusal in run.refusals.iter().take(NAMED_MAX) {
            reasons.push(format!(
                "{}: {} messages refused with code {:#04x}: {}",
                refusal.device, refusal.messages, refusal.code, refusal.reason
            ));
        }
        if run.refusals.len() > NAMED_MAX {
            reasons.push(format!("… and {} more refusals", run.refusals.len() - NAMED_MAX));
        }
        let count = |name: &str| run.counts.get(name).copied().unwrap_or(0);
        if count("unanswered") > 0 {
            reasons.push(format!("{} messages were sent and not answered", count("unanswered")));
        }
        if fed < self.total || count("unsent") > 0 {
            reasons.push(format!("{} of {} messages were not sent", count("unsent"), self.total));
        }
        reasons.extend(crate::threshold::broken(&self.settings.fail_if, std::slice::from_ref(run))?);
        Ok(Verdict { passed: reasons.is_empty(), reasons })
    }
}

/// Checks settings that cannot both be.
///
/// # Errors
/// The first that cannot.
pub fn check(settings: &Settings) -> Result<()> {
    if settings.files.is_empty() {
        bail!("name a file to play");
    }
    if settings.connects_per_second <= 0.0 || !settings.connects_per_second.is_finite() {
        bail!("connections per second are more than 0");
    }
    Ok(())
}

/// An instant far enough in the past or future is that of now: arithmetic on instants must not overflow.
fn after(start: Instant, due: Duration) -> Instant {
    start.checked_add(due).unwrap_or(start)
}
