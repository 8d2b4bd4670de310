//! Breaks a whole barn by a plan that a seed decides, and has everything judged in the end.

mod cluster;
mod crowd;
mod engine;
pub mod fault;
mod pictures;
pub mod plan;
mod process;
pub mod proxy;
pub mod record;
mod stage;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use schema::clock::Clock;
use schema::store::bench::{Allowed, allowlist_script};

use crate::device::{Place, Station};
use crate::ledger::Ledger;
use crate::mqtt::Login;
use crate::publisher::Meter;
use crate::report::{note, say};
use crate::station::{Access, Tally};
use crate::timeline::{Percentiles, Row};
use crate::verify;
use crate::verify::compare::Senders;
use crate::verify::findings::{Findings, Rule};
use crate::watched::{self, Watched};

use crowd::{Habit, Shared};
use fault::Kind;
use pictures::Rounds;
use plan::{Plan, Planned};
use record::{Course, Happened, Usage};
use stage::{Done, SharedStage, Stage};

/// Sensors, and readings per second of each.
const SENSORS: (usize, f64) = (6, 5.0);
/// Stations without pictures, and seconds between two weighings of each.
const SCALES: (usize, f64) = (2, 3.0);
/// Stations with pictures, one of each kind, and seconds between two weighings of each.
const CAMERAS: (usize, f64) = (2, 4.0);
/// How often the run is looked at.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether everything works again.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long devices may take to end what they are at.
const LEAVE_MAX: Duration = Duration::from_secs(60);
/// How much more memory the engine may have after a run: half as much again, and so many KiB.
const MEMORY_GROWTH_KIB_MAX: u64 = 64 * 1024;
/// How many more file handles the engine may have: half as many again, and so many.
const FILES_GROWTH_MAX: usize = 20;
/// What a panic leaves in a log.
const PANIC: &str = "panicked at";
/// Tenant, farm and barn of a run.
const PLACE: [&str; 3] = ["t-001", "f-001", "b-001"];

/// What to break, and how long.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Decides the plan.
    pub seed: u64,
    /// How long devices are at work, the quiet phase included.
    pub lasts: Duration,
    /// The program `farmiq-edge`; the one beside this program when there is none.
    pub engine: Option<PathBuf>,
    /// Where everything of the run stays; a directory that vanishes when there is none.
    pub keep: Option<PathBuf>,
    /// Only faults of these kinds; all when empty.
    pub only: Vec<Kind>,
    /// Whether only the plan is shown.
    pub lists: bool,
    /// Where the run is written as JSON.
    pub json: Option<PathBuf>,
    /// From the end of the last fault, how long it may take until devices are answered again.
    pub recovery_max: Duration,
    /// How long the outbox may take to become empty in the end.
    pub wait: Duration,
}

/// Shows the plan, or carries it out, prints what happened, and says whether nothing was lost.
///
/// # Errors
/// When the run could not be made.
pub async fn run(settings: Settings, stop: watch::Receiver<bool>) -> Result<bool> {
    let plan = Plan::draw(settings.seed, settings.lasts, &settings.only);
    if settings.lists {
        plan.lines().iter().for_each(say);
        return Ok(true);
    }
    let run = carry_out(&settings, &plan, stop).await?;
    if let Some(path) = &settings.json {
        run.file().write(path)?;
    }
    for line in run.findings.lines() {
        say(line);
    }
    let word = if run.findings.is_good() { "good" } else { "BAD" };
    say(format!("seed {}: {word}, {} faults, {} surprises", run.seed, run.faults.len(), run.surprises.len()));
    Ok(run.findings.is_good())
}

/// Carries out a plan.
///
/// # Errors
/// When the run could not be made, or somebody stopped it.
pub async fn carry_out(settings: &Settings, plan: &Plan, stop: watch::Receiver<bool>) -> Result<Course> {
    let program = program(settings.engine.as_deref())?;
    let home = Home::make(settings.keep.as_deref())?;
    let path = home.path();
    note(format!(
        "seed {}, {} faults in {} s, in {}",
        plan.seed,
        plan.faults.len(),
        plan.lasts.as_secs(),
        path.display()
    ));
    let [tenant, farm, barn] = PLACE.map(str::to_owned);
    let place = Place { tenant, farm, barn };
    let ledger = Ledger::open(Some(&path.join("ledger.jsonl")))?;
    let shared = Shared { place, ledger, meter: Arc::new(Meter::default()) };
    let stage = Stage::build(&program, path, plan, shared, &allowlist()).await?;
    let course = UnderWay { settings, plan, stage: Arc::new(stage), started: Instant::now(), home: path };
    let outcome = tokio::select! {
        outcome = course.live(stop) => outcome,
        ended = course.stage.look_after() => Err(ended.err().unwrap_or_else(|| anyhow::anyhow!("nobody looks after the barn"))),
    };
    outcome
}

fn program(engine: Option<&Path>) -> Result<PathBuf> {
    let program = match engine {
        Some(program) => program.to_owned(),
        None => {
            let me = std::env::current_exe().context("find this program")?;
            me.with_file_name("farmiq-edge")
        }
    };
    let program = program.canonicalize().with_context(|| format!("find {}", program.display()))?;
    ensure!(program.is_file(), "{} is no program: name it with --engine", program.display());
    Ok(program)
}

/// Where a run has its files.
enum Home {
    Kept(PathBuf),
    Vanishing(TempDir),
}

impl Home {
    fn make(keep: Option<&Path>) -> Result<Self> {
        let home = match keep {
            Some(path) => {
                std::fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
                let is_empty = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
                ensure!(is_empty, "{} is not empty", path.display());
                Self::Kept(path.canonicalize().context("find the directory")?)
            }
            None => Self::Vanishing(
                tempfile::Builder::new().prefix("farmiq-chaos.").tempdir().context("make a directory")?,
            ),
        };
        // The server runs as somebody else.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(home.path(), everybody).context("open the directory to the server")?;
        Ok(home)
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Vanishing(directory) => directory.path(),
        }
    }
}

/// Everybody who may come.
fn allowlist() -> String {
    let names = |letter: &'static str, count| (1..=count).map(move |number| format!("{letter}-{number:02}"));
    let stations = |letter| names(letter, SCALES.0.max(CAMERAS.0));
    let devices: Vec<_> = names("d", SENSORS.0)
        .chain(names("s", SCALES.0))
        .chain(names("c", CAMERAS.0))
        .chain(stage::guests())
        .collect();
    let stations: Vec<_> = stations("st").chain(stations("ct")).collect();
    let [tenant, farm, barn] = PLACE;
    let allowed = Allowed { tenant, farm, barn, devices: &devices, stations: &stations };
    allowlist_script(&allowed, Clock::system().now())
}

/// A run under way.
struct UnderWay<'a> {
    settings: &'a Settings,
    plan: &'a Plan,
    stage: SharedStage,
    started: Instant,
    home: &'a Path,
}

impl UnderWay<'_> {
    async fn live(&self, stop: watch::Receiver<bool>) -> Result<Course> {
        let samples = Mutex::new(Vec::new());
        let (leave, left) = watch::channel(false);
        let mut devices = self.devices(&left);
        let work = async {
            let outcome = self.work(stop).await;
            leave.send_replace(true);
            outcome
        };
        let (faults, usage_before, usage_after, recovered) = tokio::select! {
            worked = work => worked?,
            never = self.sample(&samples) => match never {},
            broken = broken(&mut devices) => return Err(broken),
        };
        if tokio::time::timeout(LEAVE_MAX, all(&mut devices)).await.is_err() {
            note("a device did not end what it was at");
        }
        self.stage.shared.ledger.finish()?;
        let ended_at = Clock::system().now();
        let took = chrono::Duration::from_std(self.started.elapsed()).unwrap_or_default();
        let mut findings = verify::judge(&self.verify_settings()).await?;
        self.judge_recovery(recovered, &mut findings);
        judge_usage(usage_before, usage_after, &mut findings);
        self.judge_log(&mut findings).await;
        Ok(Course {
            started_at: ended_at - took,
            ended_at,
            seed: self.plan.seed,
            versions: self.versions().await,
            faults,
            series: samples.into_inner().expect("no sampler panics"),
            usage_before,
            usage_after,
            recovered_seconds: recovered.map(|duration| duration.as_secs_f64()),
            surprises: self.surprises().await,
            findings,
        })
    }

    /// Sensors, scales and cameras.
    fn devices(&self, left: &watch::Receiver<bool>) -> JoinSet<Result<()>> {
        let mut devices = JoinSet::new();
        let stage = &self.stage;
        let regular = (1..=SENSORS.0).map(|number| (format!("d-{number:02}"), Habit::Regular(SENSORS.1)));
        let scales = (1..=SCALES.0).map(|number| (format!("s-{number:02}"), Habit::Weighing(SCALES.1)));
        for (number, (device, habit)) in regular.chain(scales).enumerate() {
            let seed = self.plan.seed.wrapping_mul(1000).wrapping_add(number as u64);
            devices.spawn(crowd::live(
                stage.shared.clone(),
                stage.broker(),
                device,
                habit,
                seed,
                left.clone(),
            ));
        }
        for number in 1..=CAMERAS.0 {
            let (device, station) = (format!("c-{number:02}"), format!("ct-{number:02}"));
            let access = Access {
                broker: stage.broker(),
                tls: None,
                edge: stage.engine.base(),
                login: Login { client_id: device.clone(), keepalive_seconds: 60, ..Login::default() },
                meter: Arc::clone(&stage.shared.meter),
                tally: Arc::new(Tally::default()),
            };
            let rounds = Rounds {
                index: number - 1,
                station: Station { place: stage.shared.place.clone(), station, device },
                access,
                shared: stage.shared.clone(),
                every: Duration::from_secs_f64(CAMERAS.1),
                file: self.home.join(format!("weighings-{number}.jsonl")),
            };
            devices.spawn(pictures::weigh(rounds, left.clone()));
        }
        devices
    }

    /// The faults, the quiet phase, and what was used before and after.
    async fn work(
        &self,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(Vec<Happened>, Usage, Usage, Option<Duration>)> {
        let first =
            self.plan.faults.first().map_or(self.plan.lasts, |planned| Duration::from_millis(planned.at_ms));
        sleep_until((self.started + first.mul_f64(0.9)).into()).await;
        let usage_before = self.usage().await?;
        let faults = tokio::select! {
            faults = self.faults() => faults?,
            _ = stop.wait_for(|is_stopped| *is_stopped) => bail!("somebody stopped the run"),
        };
        let recovered = self.recover().await;
        sleep_until((self.started + self.plan.lasts).into()).await;
        let usage_after = self.usage().await.unwrap_or_default();
        Ok((faults, usage_before, usage_after, recovered))
    }

    async fn faults(&self) -> Result<Vec<Happened>> {
        let mut under_way = JoinSet::new();
        for planned in self.plan.faults.clone() {
            let (stage, started) = (Arc::clone(&self.stage), self.started);
            under_way.spawn(async move { inflict(&stage, started, &planned).await });
        }
        let mut happened = Vec::new();
        while let Some(ended) = under_way.join_next().await {
            happened.push(ended.context("a fault broke")??);
        }
        happened.sort_by(|one, other| one.at_seconds.total_cmp(&other.at_seconds));
        Ok(happened)
    }

    /// Waits until the engine is ready and devices are answered; `None` when that does not happen in time.
    async fn recover(&self) -> Option<Duration> {
        let (began, meter) = (Instant::now(), &self.stage.shared.meter);
        let acknowledged = meter.acknowledged();
        while began.elapsed() < self.settings.recovery_max {
            let is_answered = meter.acknowledged() >= acknowledged + SENSORS.0 as u64;
            if is_answered && self.stage.engine.is_ready().await {
                return Some(began.elapsed());
            }
            sleep(LOOK_EVERY).await;
        }
        None
    }

    async fn usage(&self) -> Result<Usage> {
        let (engine_kib, engine_files) = self.stage.engine.usage().await?;
        Ok(Usage { engine_kib, engine_files })
    }

    async fn sample(&self, rows: &Mutex<Vec<Row>>) -> std::convert::Infallible {
        let meter = &self.stage.shared.meter;
        let (mut published, mut acknowledged) = (meter.published(), meter.acknowledged());
        let mut looked_at = Instant::now();
        let mut watched = Watched::default();
        let mut pids = (None, None);
        loop {
            sleep(SAMPLE_EVERY).await;
            let now_pids =
                (self.stage.engine.process.pid().await.ok(), self.stage.cluster.process.pid().await.ok());
            if now_pids != pids {
                pids = now_pids;
                let (engine_pid, postgres_pid) = pids;
                watched = Watched::new(watched::Settings {
                    engine_pid,
                    postgres_pid,
                    ..watched::Settings::default()
                });
            }
            let since = looked_at.elapsed();
            looked_at = Instant::now();
            let count = meter.acknowledged() - acknowledged;
            let row = Row {
                at_s: self.started.elapsed().as_secs_f64(),
                seconds: since.as_secs_f64(),
                published: meter.published() - published,
                acknowledged: count,
                sent: (count > 0).then(|| percentiles(meter, count)),
                usage: watched.usage(since),
                ..Row::default()
            };
            (published, acknowledged) = (meter.published(), meter.acknowledged());
            meter.reset_latency();
            rows.lock().expect("no sampler panics").push(row);
        }
    }

    fn verify_settings(&self) -> verify::Settings {
        let cameras = (1..=CAMERAS.0).map(|number| format!("c-{number:02}"));
        verify::Settings {
            ledger: Some(self.home.join("ledger.jsonl")),
            cloud: self.stage.cloud.control_address().map(|address| format!("http://{address}")),
            cloud_events: Some(self.home.join("cloud.jsonl")),
            database_url: Some(self.stage.cluster.url()),
            edge: Some(self.stage.engine.base()),
            senders: Senders { unwatched: cameras.collect(), derives_values: true },
            wait: self.settings.wait,
            ..verify::Settings::default()
        }
    }

    fn judge_recovery(&self, recovered: Option<Duration>, findings: &mut Findings) {
        findings.look(Rule::Recovery, 1);
        match recovered {
            Some(after) => {
                findings.count("recovered after ms", usize::try_from(after.as_millis()).unwrap_or(usize::MAX))
            }
            None => {
                let detail =
                    format!("not within {} s of the last fault", self.settings.recovery_max.as_secs());
                findings.differ(Rule::Recovery, "engine", detail);
            }
        }
    }

    async fn judge_log(&self, findings: &mut Findings) {
        let log = self.stage.engine.process.log().await;
        let second = std::fs::read_to_string(self.home.join("second.log")).unwrap_or_default();
        findings.look(Rule::Engine, log.lines().count() + second.lines().count());
        for line in log.lines().chain(second.lines()).filter(|line| line.contains(PANIC)) {
            findings.differ(Rule::Engine, "panic", line.chars().take(300).collect::<String>());
        }
    }

    async fn surprises(&self) -> Vec<String> {
        let mut surprises = Vec::new();
        for (at, status) in self.stage.engine.process.surprises().await {
            let seconds = at.saturating_duration_since(self.started).as_secs_f64();
            surprises.push(format!("{seconds:.1} s: the engine ended by itself: {status}"));
        }
        surprises
    }

    async fn versions(&self) -> Vec<String> {
        let mut versions = Vec::new();
        if let Ok(program) = program(self.settings.engine.as_deref())
            && let Ok(output) = tokio::process::Command::new(program).arg("--version").output().await
        {
            versions.push(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        versions.extend(self.stage.cluster.version().await.ok());
        versions
    }
}

/// Waits for the time of a fault and does it.
async fn inflict(stage: &Stage, started: Instant, planned: &Planned) -> Result<Happened> {
    sleep_until((started + Duration::from_millis(planned.at_ms)).into()).await;
    let _turn = stage.turn(&planned.fault).await;
    let at_seconds = started.elapsed().as_secs_f64();
    note(format!("{at_seconds:7.1} s  {}", planned.fault));
    let done = stage.inflict(&planned.fault).await.with_context(|| planned.fault.to_string())?;
    let (note_text, is_skipped) = match done {
        Done::Happened(text) => (text, false),
        Done::Skipped(text) => (text, true),
    };
    let ends_seconds = started.elapsed().as_secs_f64();
    let word = if is_skipped { "skipped" } else { "over" };
    note(format!("{ends_seconds:7.1} s  {word}: {}  {note_text}", planned.fault));
    Ok(Happened { at_seconds, ends_seconds, name: planned.fault.to_string(), note: note_text, is_skipped })
}

fn percentiles(meter: &Meter, count: u64) -> Percentiles {
    let [p50, p90, p99, p999, max] = [0.5, 0.9, 0.99, 0.999, 1.0].map(|quantile| meter.latency_ms(quantile));
    Percentiles { p50, p90, p99, p999, max, count }
}

/// The first device that breaks; devices that end in order are waited for elsewhere.
async fn broken(devices: &mut JoinSet<Result<()>>) -> anyhow::Error {
    loop {
        match devices.join_next().await {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => return error.context("a device broke"),
            Some(Err(error)) => return anyhow::Error::new(error).context("a device broke"),
            None => std::future::pending().await,
        }
    }
}

async fn all(devices: &mut JoinSet<Result<()>>) {
    while let Some(ended) = devices.join_next().await {
        if let Ok(Err(error)) = ended {
            note(format!("a device broke: {error:#}"));
        }
    }
}

fn judge_usage(before: Usage, after: Usage, findings: &mut Findings) {
    findings.look(Rule::Resources, 2);
    let kib_max = before.engine_kib + before.engine_kib / 2 + MEMORY_GROWTH_KIB_MAX;
    if after.engine_kib > kib_max {
        let detail = format!("{} KiB before, {} KiB after", before.engine_kib, after.engine_kib);
        findings.differ(Rule::Resources, "memory", detail);
    }
    let files_max = before.engine_files + before.engine_files / 2 + FILES_GROWTH_MAX;
    if after.engine_files > files_max {
        let detail = format!("{} before, {} after", before.engine_files, after.engine_files);
        findings.differ(Rule::Resources, "file handles", detail);
    }
}
