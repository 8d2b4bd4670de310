//! The engine end to end: readings over MQTT at QoS 1, timed from publish to PUBACK.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use schema::clock::Clock;
use schema::store::bench::{Allowed, enable_devices, reading_count};
use schema::wire::envelope::Dialect;

use crate::bench::table::Row;
use crate::bench::{Bench, Memory, process};
use crate::climate::Metric;
use crate::device::{Place, Reading};
use crate::ids::new_event_id;
use crate::mqtt::{self, Login, Publish};
use crate::publisher::{self, Link, Meter, Source, Turn};
use crate::report::{self, Live, note};

/// How long a change of the allowlist may take; the contract says ten seconds.
const ALLOWLIST_WAIT_MAX: Duration = Duration::from_secs(20);
/// Idle connections must not be pinged in the middle of a measurement.
const IDLE_KEEPALIVE_SECONDS: u16 = u16::MAX;
/// How often the engine's memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// Whoever publishes until it is told to stop gets its messages for this long at a time.
pub(crate) const PUBLISH_ROUND: Duration = Duration::from_secs(5);

/// How fast to publish.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// As fast as the windows allow, so many messages.
    Max(usize),
    /// Messages per second, for so long.
    PerSecond(f64, Duration),
}

/// Lets the devices in.
pub(crate) async fn enable(bench: &Bench) -> Result<()> {
    let Place { tenant, farm, barn } = &bench.engine_place;
    let allowed = Allowed { tenant, farm, barn, devices: &bench.devices, stations: &[] };
    let conn = bench.store.conn().await.context("connect to the database")?;
    enable_devices(&conn, &allowed, Clock::system().now()).await.context("enable the devices")
}

/// Lets the devices in and waits until the engine knows.
pub(crate) async fn admit(bench: &Bench) -> Result<()> {
    enable(bench).await?;
    let tenant = &bench.engine_place.tenant;
    let conn = bench.store.conn().await.context("connect to the database")?;
    let started = Instant::now();
    while started.elapsed() < ALLOWLIST_WAIT_MAX {
        let (row, _) = run(bench, "probe", Pace::Max(1), 1, watch::channel(false).1).await?;
        let stored = reading_count(&conn, tenant).await.context("count readings")?;
        if row.events == 1 && stored > 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    bail!("the engine acknowledges readings of {tenant} but stores none: is it on this database?")
}

/// Opens connections that say nothing.
pub(crate) async fn idle_connections(bench: &Bench, count: usize) -> Result<Vec<TcpStream>> {
    let mut idle = Vec::with_capacity(count);
    for number in 0..count {
        let login = login(format!("bench-idle-{number}"));
        idle.push(mqtt::connect(&bench.settings.broker, &login).await?);
    }
    Ok(idle)
}

/// Measures the engine, says how it went, and compares what was acknowledged with what was stored.
pub(crate) async fn measure(
    bench: &Bench,
    name: &str,
    pace: Pace,
    memory: &mut Memory,
    stop: &watch::Receiver<bool>,
) -> Result<Row> {
    let stored_before = bench.stored().await?;
    let (row, kib) = run(bench, name, pace, bench.settings.connections, stop.clone()).await?;
    let stored = bench.stored().await? - stored_before;
    note(format!("{name}: {:.0} events/s, {} acknowledged, {stored} stored", row.rate(), row.events));
    if bench.settings.engine_pid.is_some() {
        memory.note_busy(kib);
    }
    Ok(row)
}

/// Publishes from many connections and returns the measurement with the highest memory seen, in KiB.
pub(crate) async fn run(
    bench: &Bench,
    name: &str,
    pace: Pace,
    connections: usize,
    stop: watch::Receiver<bool>,
) -> Result<(Row, u64)> {
    let meter = Arc::new(Meter::default());
    let scripts = scripts(bench, pace, connections);
    let before = bench.gauge().await?;
    let started = Instant::now();
    let mut live = Live::start(None);
    let mut resident_kib_max = 0;
    let all = send(bench, &meter, pace, scripts, stop);
    let outcome = tokio::select! {
        outcome = report::watch(all, &meter, started, &mut live) => outcome,
        never = sample_memory(bench.settings.engine_pid, &mut resident_kib_max) => match never {},
    };
    live.finish();
    outcome?;
    let elapsed = started.elapsed();
    let used = bench.gauge().await?.since(&before);
    let row = Row {
        name: name.to_owned(),
        events: meter.acknowledged(),
        elapsed,
        latency_ms: Some((meter.latency_ms(0.5), meter.latency_ms(0.99))),
        ..used
    };
    Ok((row, resident_kib_max))
}

/// Publishes from many connections at a steady rate until it is told to stop, and shows nothing.
pub(crate) async fn publish_until(
    bench: &Bench,
    meter: &Arc<Meter>,
    rate: f64,
    stopped: watch::Receiver<bool>,
) -> Result<()> {
    let pace = Pace::PerSecond(rate, PUBLISH_ROUND);
    while !*stopped.borrow() {
        let scripts = scripts(bench, pace, bench.settings.connections);
        send(bench, meter, pace, scripts, stopped.clone()).await?;
    }
    Ok(())
}

async fn send(
    bench: &Bench,
    meter: &Arc<Meter>,
    pace: Pace,
    scripts: Vec<Vec<Publish>>,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let connections = scripts.len();
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for (number, messages) in scripts.into_iter().enumerate() {
        let link = Link {
            broker: bench.settings.broker.clone(),
            tls: None,
            login: login(format!("bench-{number}")),
            window: bench.settings.window,
        };
        let gap = match pace {
            Pace::Max(_) => Duration::ZERO,
            Pace::PerSecond(rate, _) => Duration::from_secs_f64(count_f64(connections) / rate),
        };
        let first_at = started + gap.mul_f64(count_f64(number) / count_f64(connections));
        let mut script = Script::new(messages, first_at, gap);
        let (meter, stop) = (Arc::clone(meter), stop.clone());
        tasks.spawn(async move { publisher::publish_all(&link, &mut script, &meter, stop).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a publisher broke")??;
    }
    Ok(())
}

async fn sample_memory(pid: Option<u32>, resident_kib_max: &mut u64) -> Infallible {
    loop {
        if let Some(kib) = pid.and_then(|pid| process::resident_kib(pid).ok()) {
            *resident_kib_max = kib.max(*resident_kib_max);
        }
        tokio::time::sleep(SAMPLE_EVERY).await;
    }
}

pub(crate) fn login(client_id: String) -> Login {
    Login { client_id, keepalive_seconds: IDLE_KEEPALIVE_SECONDS, ..Login::default() }
}

/// The messages of each connection, made before the clock starts: making them is not what is measured.
pub(crate) fn scripts(bench: &Bench, pace: Pace, connections: usize) -> Vec<Vec<Publish>> {
    let total = match pace {
        Pace::Max(events) => events,
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "both factors are positive"
        )]
        Pace::PerSecond(rate, duration) => (rate * duration.as_secs_f64()) as usize,
    };
    let mut random = StdRng::from_os_rng();
    let topics = topics(bench);
    (0..connections)
        .map(|connection| {
            let own = (connection..bench.devices.len()).step_by(connections);
            let slots = own.flat_map(|device| (0..Metric::ALL.len()).map(move |metric| (device, metric)));
            let slots = slots.collect::<Vec<_>>().into_iter().cycle();
            let count = total / connections + usize::from(connection < total % connections);
            slots
                .take(count)
                .map(|(device, metric)| message(bench, &topics, device, metric, &mut random))
                .collect()
        })
        .collect()
}

fn topics(bench: &Bench) -> Vec<[Arc<str>; 7]> {
    let of = |device: &String| {
        Metric::ALL
            .map(|metric| Arc::from(crate::device::telemetry_topic(&bench.engine_place, device, metric)))
    };
    bench.devices.iter().map(of).collect()
}

fn message(
    bench: &Bench,
    topics: &[[Arc<str>; 7]],
    device: usize,
    metric: usize,
    random: &mut StdRng,
) -> Publish {
    let reading = Reading {
        device: &bench.devices[device],
        metric: Metric::ALL[metric],
        value: f64::from(random.random_range(0_u16..4000)) / 100.0,
        at: Clock::system().now(),
        event_id: &new_event_id(random),
    };
    let payload = reading.body(&bench.engine_place, Dialect::Canonical).into();
    Publish {
        topic: Arc::clone(&topics[device][metric]),
        payload,
        qos: 1,
        is_retained: false,
        properties: bytes::Bytes::new(),
    }
}

/// Messages of one connection, all at once or at a steady pace.
pub(crate) struct Script {
    messages: std::vec::IntoIter<Publish>,
    next: u32,
    first_at: Instant,
    gap: Duration,
}

impl Script {
    /// Messages of which the first is due then, and each further one after a gap.
    pub(crate) fn new(messages: Vec<Publish>, first_at: Instant, gap: Duration) -> Self {
        Self { messages: messages.into_iter(), next: 0, first_at, gap }
    }
}

impl Source for Script {
    fn turn(&mut self, now: Instant) -> Turn {
        let due_at = self.first_at + self.gap * self.next;
        if now < due_at {
            return Turn::WaitUntil(due_at);
        }
        self.next += 1;
        match self.messages.next() {
            Some(publish) => Turn::Publish(u64::from(self.next), publish),
            None => Turn::Done,
        }
    }

    fn acknowledged(&mut self, _: &[u64]) -> Result<()> {
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "connections are few")]
fn count_f64(count: usize) -> f64 {
    count as f64
}
