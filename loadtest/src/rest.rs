//! Measures what a barn asks of its box nearly all the time: an engine and its PostgreSQL at rest, and at a few readings a
//! second with the cloud up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinSet;

use schema::clock::Clock;
use schema::store::bench::{transactions, unsent_count};
use schema::wire::envelope::Dialect;

use crate::bench::edge::Edge;
use crate::bench::{self, Bench, Gauge, engine, process};
use crate::climate::Metric;
use crate::cloud::{self, PretendCloud};
use crate::device::{Place, Reading, telemetry_topic};
use crate::ids::new_event_id;
use crate::mqtt::Publish;
use crate::publisher::{self, Link, Meter, Source, Turn};
use crate::report::{note, per_second, say};

/// How long an engine has after its start: housekeeping begins a minute later.
const SETTLE: Duration = Duration::from_secs(75);
/// How long the cloud may take for what is left at the end.
const DELIVERY_MAX: Duration = Duration::from_secs(60);
/// How often it is looked whether everything has arrived, or whether somebody stopped the run.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What to measure, and how long.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A migrated database whose outbox is empty.
    pub database_url: String,
    /// The engine's program.
    pub engine: PathBuf,
    /// How long nothing comes.
    pub rest: Duration,
    /// Readings per second afterwards.
    pub rate: f64,
    /// For so long.
    pub rate_duration: Duration,
    /// Of so many devices, each with a connection.
    pub devices: usize,
}

/// Runs both measurements. Returns whether every reading that was acknowledged arrived at the cloud.
///
/// # Errors
/// When the database or the engine cannot be used.
pub async fn run(settings: Settings, stop: watch::Receiver<bool>) -> Result<bool> {
    let mut bench = Bench::open(bench::Settings {
        devices: settings.devices,
        connections: settings.devices,
        ..bench::Settings::arriving(settings.database_url.clone(), settings.rate)
    })
    .await?;
    engine::enable(&bench).await?;
    let cloud = PretendCloud::start(cloud::Settings::default()).await?;
    let mut edge =
        Edge::start(&settings.engine, &settings.database_url, &[("FARMIQ_CLOUD__URL", &cloud.url())])?;
    bench.settings.engine_pid = Some(edge.pid()?);
    bench.settings.broker = edge.broker().to_string();
    edge.until_ready().await?;
    note(format!("the engine is ready; {} s for it to settle", SETTLE.as_secs()));
    pause(SETTLE, &stop).await;
    let before = Moment::of(&bench).await?;
    pause(settings.rest, &stop).await;
    Moment::of(&bench).await?.tell(&before, "at rest", 0, &bench);
    let is_stopped = *stop.borrow();
    let is_whole = is_stopped || load(&settings, &bench, &cloud, &stop).await?;
    edge.check_alive()?;
    edge.end().await?;
    let verdict = cloud.shutdown().await;
    Ok(is_whole && verdict.violations_total == 0)
}

/// Readings at a steady pace, up to the cloud.
async fn load(
    settings: &Settings,
    bench: &Bench,
    cloud: &PretendCloud,
    stop: &watch::Receiver<bool>,
) -> Result<bool> {
    let meter = Arc::new(Meter::default());
    let before = Moment::of(bench).await?;
    publish(settings, bench, &meter, stop).await?;
    let after = Moment::of(bench).await?;
    let acknowledged = meter.acknowledged();
    let name = format!("{:.0}/s of {} devices", settings.rate, settings.devices);
    after.tell(&before, &name, acknowledged, bench);
    until_delivered(bench, cloud, acknowledged).await?;
    let accepted = cloud.judge().by_event_type.get("telemetry.ingested").copied().unwrap_or(0);
    say(format!(
        "  publish to PUBACK: p50 {:.1} ms, p99 {:.1} ms",
        meter.latency_ms(0.5),
        meter.latency_ms(0.99)
    ));
    let ages: Vec<String> = [0.5, 0.95, 0.99, 1.0].iter().map(|at| cloud.age_ms(*at).to_string()).collect();
    say(format!(
        "  publish to cloud: p50 {} ms, p95 {} ms, p99 {} ms, longest {} ms",
        ages[0], ages[1], ages[2], ages[3]
    ));
    say(format!("  {acknowledged} acknowledged, {accepted} in the cloud"));
    Ok(accepted >= acknowledged)
}

async fn publish(
    settings: &Settings,
    bench: &Bench,
    meter: &Arc<Meter>,
    stop: &watch::Receiver<bool>,
) -> Result<()> {
    let (devices, started) = (u32::try_from(settings.devices).unwrap_or(1), Instant::now());
    let gap = Duration::from_secs_f64(f64::from(devices) / settings.rate);
    let mut tasks = JoinSet::new();
    for (number, device) in (0..devices).zip(&bench.devices) {
        let link = Link {
            broker: bench.settings.broker.clone(),
            tls: None,
            login: engine::login(format!("rest-{number}")),
            window: bench.settings.window,
        };
        let mut readings = Readings {
            place: bench.engine_place.clone(),
            device: device.clone(),
            next: 0,
            first_at: started + gap.mul_f64(f64::from(number) / f64::from(devices)),
            gap,
            ends_at: started + settings.rate_duration,
            random: StdRng::from_os_rng(),
        };
        let (meter, stop) = (Arc::clone(meter), stop.clone());
        tasks.spawn(async move { publisher::publish_all(&link, &mut readings, &meter, stop).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a publisher broke")??;
    }
    Ok(())
}

async fn until_delivered(bench: &Bench, cloud: &PretendCloud, expected: u64) -> Result<()> {
    let started = Instant::now();
    let conn = bench.store.conn().await.context("connect to the database")?;
    while started.elapsed() < DELIVERY_MAX {
        let unsent = unsent_count(&conn).await.context("count what waits")?;
        if unsent == 0 && cloud.judge().accepted >= expected {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Waits so long, or until the run is stopped.
async fn pause(length: Duration, stop: &watch::Receiver<bool>) {
    let mut stop = stop.clone();
    drop(tokio::time::timeout(length, stop.wait_for(|is_stopped| *is_stopped)).await);
}

/// Readings of one device that are made when they are published: their age tells how long their way was.
struct Readings {
    place: Place,
    device: String,
    next: u32,
    first_at: Instant,
    gap: Duration,
    ends_at: Instant,
    random: StdRng,
}

impl Source for Readings {
    fn turn(&mut self, now: Instant) -> Turn {
        let due_at = self.first_at + self.gap * self.next;
        if due_at >= self.ends_at {
            return Turn::Done;
        }
        if now < due_at {
            return Turn::WaitUntil(due_at);
        }
        let metric = Metric::ALL[self.next as usize % Metric::ALL.len()];
        self.next += 1;
        let reading = Reading {
            device: &self.device,
            metric,
            value: f64::from(self.next % 4000) / 100.0,
            at: Clock::system().now(),
            event_id: &new_event_id(&mut self.random),
        };
        let publish = Publish {
            topic: telemetry_topic(&self.place, &self.device, metric).into(),
            payload: reading.body(&self.place, Dialect::Canonical).into(),
            qos: 1,
            is_retained: false,
            properties: bytes::Bytes::new(),
        };
        Turn::Publish(u64::from(self.next), publish)
    }

    fn acknowledged(&mut self, _: &[u64]) -> Result<()> {
        Ok(())
    }
}

/// Counters at one moment.
struct Moment {
    at: Instant,
    gauge: Gauge,
    engine_wakeups: Option<u64>,
    postgres_wakeups: Option<u64>,
    transactions: i64,
}

impl Moment {
    async fn of(bench: &Bench) -> Result<Self> {
        let conn = bench.store.conn().await.context("connect to the database")?;
        let transactions = transactions(&conn).await.context("count transactions")?;
        drop(conn);
        Ok(Self {
            at: Instant::now(),
            gauge: bench.gauge().await?,
            engine_wakeups: bench.settings.engine_pid.and_then(|pid| process::wakeups(pid).ok()),
            postgres_wakeups: bench.postmaster().and_then(|pid| process::family_wakeups(pid).ok()),
            transactions,
        })
    }

    /// Says what was used since another moment, and with each of so many events.
    fn tell(&self, before: &Self, name: &str, events: u64, bench: &Bench) {
        let elapsed = self.at - before.at;
        let used = self.gauge.since(&before.gauge);
        let share = |cpu: Option<Duration>| match cpu {
            Some(cpu) => format!("{:.2} % of a core", cpu.as_secs_f64() / elapsed.as_secs_f64() * 100.0),
            None => "-".to_owned(),
        };
        #[expect(clippy::cast_precision_loss, reason = "events of one run stay far below 2^52")]
        let each = |cpu: Option<Duration>| match cpu {
            Some(cpu) if events > 0 => {
                format!(", {:.0} µs an event", cpu.as_secs_f64() * 1e6 / events as f64)
            }
            _ => String::new(),
        };
        let often = |now: Option<u64>, then: Option<u64>| match now.zip(then) {
            Some((now, then)) => format!("{:.1}", per_second(now.saturating_sub(then), elapsed)),
            None => "-".to_owned(),
        };
        let mib = |kib: Option<u64>| {
            kib.map_or_else(|| "-".to_owned(), |kib| format!("{:.1}", process::kib_to_mib(kib)))
        };
        let postgres_kib = bench.postmaster().and_then(|pid| process::family_kib(pid).ok());
        say(format!("{name}, {:.0} s:", elapsed.as_secs_f64()));
        say(format!(
            "  engine: {}{}, {} wake-ups/s, {} MiB resident",
            share(used.engine_cpu),
            each(used.engine_cpu),
            often(self.engine_wakeups, before.engine_wakeups),
            mib(bench.engine_kib())
        ));
        say(format!(
            "  PostgreSQL: {}{}, {} wake-ups/s, {} MiB of all its processes",
            share(used.postgres_cpu),
            each(used.postgres_cpu),
            often(self.postgres_wakeups, before.postgres_wakeups),
            mib(postgres_kib)
        ));
        let transactions = u64::try_from(self.transactions - before.transactions).unwrap_or(0);
        let wal = used.wal_bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
        let wal_each =
            wal.checked_div(events).map(|bytes| format!(", {bytes} B an event")).unwrap_or_default();
        say(format!(
            "  {:.1} transactions/s, {:.1} kB/s of WAL{wal_each}",
            per_second(transactions, elapsed),
            per_second(wal, elapsed) / 1000.0
        ));
    }
}
