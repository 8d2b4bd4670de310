//! Everything of a run, and how each fault is done to it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::cluster::Cluster;
use super::crowd::{self, Habit, Shared};
use super::engine::{self, Common, Engine, FakeClock};
use super::fault::{Fault, How, Kind, Part};
use super::plan::Plan;
use super::proxy::{Proxy, Trouble};
use crate::cloud::{self, BATCH_PATH, Mode, PretendCloud};

/// How long a picture in the hand of a model is waited for.
const INFERRING_MAX: Duration = Duration::from_secs(5);
/// Devices at the second engine.
const SECOND_DEVICES: usize = 2;
/// Readings per second of each.
const SECOND_RATE: f64 = 5.0;
/// Events that the cloud refuses by name at most.
const REFUSED_MAX: i64 = 3;
/// Settings that a restart changes, in turns.
const OTHER_SETTINGS: [(&str, &str); 5] = [
    ("FARMIQ_DATABASE__POOL_MAX", "6"),
    ("FARMIQ_OUTBOX__BATCH_EVENTS_MAX", "7"),
    ("FARMIQ_OUTBOX__PARTITIONS", "1"),
    ("FARMIQ_TELEMETRY__WRITERS", "1"),
    ("FARMIQ_BROKER__CREDIT_MESSAGES_MAX", "500"),
];

/// A whole barn.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) engine: Engine,
    pub(crate) cloud: PretendCloud,
    pub(crate) shared: Shared,
    second: Mutex<Option<Engine>>,
    program: PathBuf,
    home: PathBuf,
    media: PathBuf,
    database_line: Proxy,
    cloud_line: Proxy,
    device_line: Proxy,
    clock: Option<FakeClock>,
    /// One fault at a time for each of these: what takes longer than planned holds up the next one.
    turns: [Mutex<()>; 6],
}

/// What came of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// It happened, with what is worth telling.
    Happened(String),
    /// It could not be done here.
    Skipped(String),
}

fn plainly() -> Result<Done> {
    Ok(Done::Happened(String::new()))
}

impl Stage {
    /// Builds everything that the plan needs below `home`, and waits until the engine is ready.
    pub(crate) async fn build(
        program: &Path,
        home: &Path,
        plan: &Plan,
        shared: Shared,
        allowlist: &str,
    ) -> Result<Self> {
        let cluster = Cluster::start(home, plan.has(Kind::DiskFull)).await.context("start PostgreSQL")?;
        let cloud = PretendCloud::start(cloud::Settings {
            tolerates_late: true,
            events_file: Some(home.join("cloud.jsonl")),
            control: Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0))),
            ..cloud::Settings::default()
        })
        .await
        .context("start the pretend cloud")?;
        let database_line = Proxy::start(cluster.address()).await?;
        let cloud_line = Proxy::start(cloud.address()).await?;
        let clock = if plan.has(Kind::ClockStep) { FakeClock::new(home)? } else { None };
        let media = home.join("disk/media");
        std::fs::create_dir_all(&media).context("make a directory for images")?;
        let common = Common {
            program,
            home,
            database_url: &database_url(&database_line),
            cloud_url: &cloud_url(&cloud_line),
            media: &media,
            clock: clock.as_ref(),
        };
        // Everybody is let in before anybody comes.
        engine::migrate(program, &cluster.url()).await?;
        cluster.execute(allowlist).await.context("let the devices in")?;
        let engine = Engine::start("engine", &common)?;
        engine.until_ready().await?;
        let device_line = Proxy::start(engine.mqtt()).await?;
        Ok(Self {
            cluster,
            engine,
            cloud,
            shared,
            second: Mutex::new(None),
            program: program.to_owned(),
            home: home.to_owned(),
            media,
            database_line,
            cloud_line,
            device_line,
            clock,
            turns: Default::default(),
        })
    }

    /// Where devices connect.
    pub(crate) fn broker(&self) -> String {
        self.device_line.address().to_string()
    }

    /// Starts again whatever ends by itself; never comes to an end itself.
    pub(crate) async fn look_after(&self) -> Result<()> {
        tokio::try_join!(self.engine.process.look_after(), self.cluster.process.look_after())?;
        Ok(())
    }

    /// Waits until the part of a fault has none any more.
    pub(crate) async fn turn(&self, fault: &Fault) -> Option<MutexGuard<'_, ()>> {
        let turn = match fault.kind.part() {
            Part::Engine => &self.turns[0],
            Part::SecondEngine => &self.turns[1],
            Part::Database => &self.turns[2],
            Part::Cloud => &self.turns[3],
            Part::Line => &self.turns[4],
            Part::Clock => &self.turns[5],
            // Each comes alone by the plan, and ends in time.
            Part::Device(_) => return None,
        };
        Some(turn.lock().await)
    }

    /// Does a fault, and undoes it when its time is over.
    ///
    /// # Errors
    /// When the stage is broken in a way that no fault explains.
    pub(crate) async fn inflict(&self, fault: &Fault) -> Result<Done> {
        let lasts = Duration::from_millis(fault.lasts_ms);
        match fault.kind {
            Kind::EngineKill => self.kill_engine(lasts).await,
            Kind::EngineStop => {
                // An engine that is not there cannot be stopped; it is then on its way back.
                drop(self.engine.process.freeze(true).await);
                sleep(lasts).await;
                drop(self.engine.process.freeze(false).await);
                plainly()
            }
            Kind::EngineReconfigure => self.reconfigure(fault, lasts).await,
            Kind::WorkerKill => {
                let started = Instant::now();
                let mut is_inferring = false;
                while !is_inferring && started.elapsed() < INFERRING_MAX {
                    is_inferring = self.cluster.is_inferring().await.unwrap_or(false);
                    sleep(Duration::from_millis(20)).await;
                }
                self.kill_engine(lasts).await?;
                let hand = if is_inferring { "a picture" } else { "nothing" };
                Ok(Done::Happened(format!("with {hand} in its hand")))
            }
            Kind::SecondEngine => self.second_engine(fault, lasts).await,
            Kind::PostmasterKill => {
                self.cluster.process.kill().await?;
                sleep(lasts).await;
                self.cluster.process.up().await?;
                self.cluster.until_back().await?;
                plainly()
            }
            Kind::PostmasterStop => {
                drop(self.cluster.process.freeze(true).await);
                sleep(lasts).await;
                drop(self.cluster.process.freeze(false).await);
                plainly()
            }
            Kind::BackendKill | Kind::BackendStop => self.hit_backend(fault, lasts).await,
            Kind::BackendTerminate => match self.cluster.terminate_backends().await {
                Ok(count) => Ok(Done::Happened(format!("{count} connections"))),
                Err(error) => Ok(Done::Skipped(format!("{error:#}"))),
            },
            Kind::ReadOnly => self.read_only(lasts).await,
            Kind::DiskFull => self.fill_disk(lasts).await,
            Kind::DatabaseCut
            | Kind::DatabaseDelay
            | Kind::DatabaseHalfOpen
            | Kind::DatabaseThrottle
            | Kind::CloudCut
            | Kind::CloudDelay
            | Kind::CloudHalfOpen
            | Kind::CloudThrottle
            | Kind::DevicesCut
            | Kind::DevicesHalfOpen => self.trouble(fault, lasts).await,
            Kind::CloudMode => self.cloud_mode(fault, lasts).await,
            Kind::ClockStep => self.step_clock(fault, lasts).await,
            Kind::WrongClock | Kind::Flood | Kind::Duplicates | Kind::Reorder => {
                self.bad_device(fault, lasts).await
            }
        }
    }

    async fn kill_engine(&self, lasts: Duration) -> Result<Done> {
        self.engine.process.kill().await?;
        sleep(lasts).await;
        self.engine.process.up().await?;
        plainly()
    }

    async fn reconfigure(&self, fault: &Fault, lasts: Duration) -> Result<Done> {
        let How::Which(number) = fault.how else { return plainly() };
        let (name, value) = OTHER_SETTINGS[number as usize % OTHER_SETTINGS.len()];
        let ended = self.engine.process.end().await?;
        sleep(lasts).await;
        self.engine.process.set(name, value).await;
        self.engine.process.up().await?;
        let code = ended.code.map_or("no code".to_owned(), |code| format!("code {code}"));
        Ok(Done::Happened(format!(
            "ended with {code} after {:.1} s; now {name}={value}",
            ended.took.as_secs_f64()
        )))
    }

    async fn second_engine(&self, fault: &Fault, lasts: Duration) -> Result<Done> {
        let common = Common {
            program: &self.program,
            home: &self.home,
            database_url: &database_url(&self.database_line),
            cloud_url: &cloud_url(&self.cloud_line),
            media: &self.media,
            clock: self.clock.as_ref(),
        };
        let engine = Engine::start("second", &common)?;
        let (stop, stopped) = watch::channel(false);
        let mut devices = JoinSet::new();
        for number in 1..=SECOND_DEVICES {
            let (shared, broker) = (self.shared.clone(), engine.mqtt().to_string());
            let device = format!("e-{number:02}");
            let life = crowd::live(
                shared,
                broker,
                device,
                Habit::Regular(SECOND_RATE),
                number as u64,
                stopped.clone(),
            );
            devices.spawn(life);
        }
        *self.second.lock().await = Some(engine);
        sleep(lasts).await;
        let engine = self.second.lock().await.take().context("the second engine was just put there")?;
        let how = if fault.how == How::Killed(true) {
            engine.process.kill().await?;
            "killed".to_owned()
        } else {
            let ended = engine.process.end().await?;
            format!("ended with {:?} after {:.1} s", ended.code, ended.took.as_secs_f64())
        };
        stop.send_replace(true);
        while let Some(ended) = devices.join_next().await {
            ended.context("a device broke")??;
        }
        Ok(Done::Happened(how))
    }

    async fn hit_backend(&self, fault: &Fault, lasts: Duration) -> Result<Done> {
        let How::Which(number) = fault.how else { return plainly() };
        let backend = match self.cluster.backend(number).await {
            Ok(backend) => backend,
            Err(error) => return Ok(Done::Skipped(format!("{error:#}"))),
        };
        if fault.kind == Kind::BackendKill {
            drop(self.cluster.signal(backend, Signal::KILL));
            self.cluster.until_back().await?;
        } else {
            drop(self.cluster.signal(backend, Signal::STOP));
            sleep(lasts).await;
            // It may be gone: a server that restarts kills it.
            drop(self.cluster.signal(backend, Signal::CONT));
        }
        Ok(Done::Happened(format!("process {backend}")))
    }

    async fn read_only(&self, lasts: Duration) -> Result<Done> {
        if let Err(error) = self.cluster.set_read_only(true).await {
            return Ok(Done::Skipped(format!("{error:#}")));
        }
        sleep(lasts).await;
        self.cluster.until_back().await?;
        self.cluster.set_read_only(false).await?;
        plainly()
    }

    async fn fill_disk(&self, lasts: Duration) -> Result<Done> {
        let Some(disk) = self.cluster.disk() else {
            return Ok(Done::Skipped("this process may not mount a small disk".to_owned()));
        };
        let bytes = disk.fill().await?;
        sleep(lasts).await;
        disk.clear().await?;
        self.cluster.until_back().await?;
        Ok(Done::Happened(format!("{} MiB were free", bytes >> 20)))
    }

    async fn trouble(&self, fault: &Fault, lasts: Duration) -> Result<Done> {
        let line = if fault.kind.part() == Part::Database {
            &self.database_line
        } else if fault.kind.part() == Part::Cloud {
            &self.cloud_line
        } else {
            &self.device_line
        };
        let trouble = match (&fault.how, fault.kind) {
            (How::Delayed(ms), _) => Trouble::Delayed(Duration::from_millis(*ms)),
            (How::Throttled(bytes), _) => Trouble::Throttled(*bytes),
            (_, Kind::DatabaseCut | Kind::CloudCut | Kind::DevicesCut) => Trouble::Cut,
            _ => Trouble::HalfOpen,
        };
        line.set(trouble);
        sleep(lasts).await;
        line.set(Trouble::None);
        plainly()
    }

    async fn cloud_mode(&self, fault: &Fault, lasts: Duration) -> Result<Done> {
        let How::Mode(mode) = &fault.how else { return plainly() };
        let needs_ids = matches!(mode, Mode::Poison { .. } | Mode::RejectIds { .. });
        let ids = if needs_ids {
            self.cluster.waiting_ids(REFUSED_MAX).await.unwrap_or_default()
        } else {
            Vec::new()
        };
        let note = ids.join(" ");
        let mode = if let Mode::Poison { .. } = mode {
            Mode::Poison { ids: ids.into_iter().collect::<HashSet<_>>() }
        } else if let Mode::RejectIds { marks, .. } = mode {
            let ids = ids.into_iter().map(|id| (id, "publish failed".to_owned()));
            Mode::RejectIds { ids: ids.collect::<HashMap<_, _>>(), marks: *marks }
        } else {
            mode.clone()
        };
        self.cloud.mode(mode).await;
        sleep(lasts).await;
        self.cloud.mode(Mode::Ok).await;
        Ok(Done::Happened(note))
    }

    async fn step_clock(&self, fault: &Fault, lasts: Duration) -> Result<Done> {
        let (Some(clock), How::Seconds(seconds)) = (&self.clock, &fault.how) else {
            return Ok(Done::Skipped("libfaketime is not installed".to_owned()));
        };
        clock.set(*seconds)?;
        sleep(lasts).await;
        clock.set(0)?;
        plainly()
    }

    async fn bad_device(&self, fault: &Fault, lasts: Duration) -> Result<Done> {
        let (device, habit) = match (fault.kind, &fault.how) {
            (Kind::WrongClock, How::Seconds(seconds)) => ("x-01", Habit::WrongClock(*seconds)),
            (Kind::Flood, _) => ("x-02", Habit::Flood),
            (Kind::Duplicates, _) => ("x-03", Habit::Duplicates),
            _ => ("x-04", Habit::Reorder),
        };
        let (stop, stopped) = watch::channel(false);
        let life = crowd::live(
            self.shared.clone(),
            self.broker(),
            device.to_owned(),
            habit,
            fault.lasts_ms,
            stopped,
        );
        let ending = async {
            sleep(lasts).await;
            stop.send_replace(true);
        };
        let (lived, ()) = tokio::join!(life, ending);
        lived?;
        plainly()
    }
}

/// Devices that only faults bring along.
pub(crate) fn guests() -> impl Iterator<Item = String> {
    let second = (1..=SECOND_DEVICES).map(|number| format!("e-{number:02}"));
    second.chain((1..=4).map(|number| format!("x-{number:02}")))
}

fn database_url(line: &Proxy) -> String {
    format!("host=127.0.0.1 port={} user=farmiq dbname=farmiq", line.address().port())
}

fn cloud_url(line: &Proxy) -> String {
    format!("http://{}{BATCH_PATH}", line.address())
}

/// A stage that is shared by faults under way.
pub(crate) type SharedStage = Arc<Stage>;
