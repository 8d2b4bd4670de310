//! Measures the door beside other brokers, in one run: how fast they acknowledge, and what an idle connection costs.

mod idle;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::bench::engine::{self, Pace, Script};
use crate::bench::table::{align, show};
use crate::bench::{self, Bench, process};
use crate::mqtt::Login;
use crate::publisher::{self, Link, Meter, Source, Turn};
use crate::report::{note, per_second, say};
use crate::stream::Tls;

/// Nobody is to be pinged in the middle of a measurement.
pub(crate) const KEEPALIVE_SECONDS: u16 = u16::MAX;

/// How often a connection looks whether the others are there.
const GATE_LOOK_EVERY: Duration = Duration::from_millis(2);

/// What to measure.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The brokers; the first one is the engine.
    pub brokers: Vec<Broker>,
    /// The engine's database.
    pub database_url: String,
    /// How to trust the brokers' certificates.
    pub tls: Tls,
    /// Numbers of connections that publish, each measured by itself.
    pub connections: Vec<usize>,
    /// Unacknowledged messages of each.
    pub window: usize,
    /// How long a round publishes.
    pub round: Duration,
    /// Messages of a round at most, of all connections together.
    pub messages: usize,
    /// Rounds; the brokers take turns in each.
    pub rounds: usize,
    /// Numbers of idle connections whose memory is measured.
    pub idle: Vec<usize>,
}

/// A broker that runs beside this program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// What it is, for people.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// `host:port` in the clear.
    pub plain: String,
    /// `host:port` over TLS, if it speaks it.
    pub tls: Option<String>,
}

impl Broker {
    /// Reads `NAME,PID,PLAIN` or `NAME,PID,PLAIN,TLS`.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split(',').collect();
        let (name, pid, plain, tls) = match parts[..] {
            [name, pid, plain] => (name, pid, plain, None),
            [name, pid, plain, tls] => (name, pid, plain, Some(tls.to_owned())),
            _ => return Err("write NAME,PID,HOST:PORT or NAME,PID,HOST:PORT,HOST:PORT-OF-TLS".to_owned()),
        };
        let pid = pid.parse().map_err(|_| format!("{pid} is no process id"))?;
        Ok(Self { name: name.to_owned(), pid, plain: plain.to_owned(), tls })
    }

    /// Its listeners: name of the transport, address, how to encrypt.
    fn listeners(&self, tls: &Tls) -> Vec<(&'static str, String, Option<Tls>)> {
        let encrypted = self.tls.iter().map(|address| ("TLS", address.clone(), Some(tls.clone())));
        [("TCP", self.plain.clone(), None)].into_iter().chain(encrypted).collect()
    }
}

/// What one broker reached over one transport, round by round.
struct Line {
    name: String,
    transport: &'static str,
    rounds: Vec<Round>,
}

/// One measurement of one broker.
#[derive(Clone, Copy)]
struct Round {
    messages: u64,
    elapsed: Duration,
    p50_ms: f64,
    p99_ms: f64,
    cpu: Cpu,
}

/// CPU time of those who take part.
#[derive(Clone, Copy, Default)]
struct Cpu {
    broker: Duration,
    postgres: Duration,
    /// This program, which publishes.
    publisher: Duration,
}

impl Cpu {
    /// Used up to now.
    fn used(bench: &Bench, broker: &Broker) -> Result<Self> {
        Ok(Self {
            broker: process::cpu(broker.pid)?,
            postgres: bench.postgres_cpu().unwrap_or_default(),
            publisher: process::cpu(std::process::id())?,
        })
    }

    fn since(self, before: Self) -> Self {
        Self {
            broker: self.broker.saturating_sub(before.broker),
            postgres: self.postgres.saturating_sub(before.postgres),
            publisher: self.publisher.saturating_sub(before.publisher),
        }
    }
}

/// Runs everything and prints its tables.
///
/// # Errors
/// When a broker or the database cannot be reached, or a message is not acknowledged.
pub async fn run(settings: Settings, stop: watch::Receiver<bool>) -> Result<()> {
    if !settings.idle.is_empty() {
        say("");
        say(idle::measure(&settings, &stop).await?.trim_end());
    }
    for connections in &settings.connections {
        let Some(lines) = publish(&settings, *connections, &stop).await? else { return Ok(()) };
        say("");
        say(format!(
            "{connections} connections, {} unacknowledged messages at most of each",
            settings.window
        ));
        say(render(&lines).trim_end());
    }
    Ok(())
}

/// Publishes from so many connections, in rounds in which the brokers take turns; `None` when it was stopped.
async fn publish(
    settings: &Settings,
    connections: usize,
    stop: &watch::Receiver<bool>,
) -> Result<Option<Vec<Line>>> {
    let engine = settings.brokers.first().context("name at least one broker")?;
    let bench = Bench::open(bench::Settings {
        broker: engine.plain.clone(),
        engine_pid: Some(engine.pid),
        devices: connections,
        connections,
        window: settings.window,
        ..bench::Settings::arriving(settings.database_url.clone(), 1.0)
    })
    .await?;
    engine::admit(&bench).await?;
    let mut lines = lines(settings);
    // The first round warms everything up and is not counted.
    for round in 0..=settings.rounds {
        for line in &mut lines {
            if *stop.borrow() {
                return Ok(None);
            }
            let measured = measure(settings, &bench, line, stop).await?;
            let Line { name, transport, .. } = line;
            note(format!(
                "round {round}: {name} over {transport}, {connections} connections: {:.0}/s",
                measured.rate()
            ));
            if round > 0 {
                line.rounds.push(measured);
            }
        }
    }
    Ok(Some(lines))
}

fn lines(settings: &Settings) -> Vec<Line> {
    let of = |broker: &Broker| {
        let name = broker.name.clone();
        broker.listeners(&settings.tls).into_iter().map(move |(transport, _, _)| Line {
            name: name.clone(),
            transport,
            rounds: Vec::new(),
        })
    };
    let mut lines: Vec<_> = settings.brokers.iter().flat_map(of).collect();
    lines.sort_by_key(|line| line.transport);
    lines
}

/// One round: every connection publishes its messages and waits for their acknowledgements.
async fn measure(
    settings: &Settings,
    bench: &Bench,
    line: &Line,
    stop: &watch::Receiver<bool>,
) -> Result<Round> {
    let broker = settings.brokers.iter().find(|broker| broker.name == line.name);
    let broker = broker.context("a line is of a broker")?;
    let listeners = broker.listeners(&settings.tls);
    let found = listeners.into_iter().find(|(transport, _, _)| *transport == line.transport);
    let (_, address, tls) = found.context("a line is of a listener")?;
    let scripts = engine::scripts(bench, Pace::Max(settings.messages), bench.settings.connections);
    let meter = Arc::new(Meter::default());
    let gate = Arc::new(Gate::new(scripts.len(), settings.round));
    let before = Cpu::used(bench, broker)?;
    let mut tasks = JoinSet::new();
    for (number, messages) in scripts.into_iter().enumerate() {
        let client_id = format!("bench-{number}");
        let login = Login { client_id, keepalive_seconds: KEEPALIVE_SECONDS, ..Login::default() };
        let link = Link { broker: address.clone(), tls: tls.clone(), login, window: settings.window };
        let script = Script::new(messages, Instant::now(), Duration::ZERO);
        let mut script = Gated { script, gate: Arc::clone(&gate), has_arrived: false };
        let (meter, stop) = (Arc::clone(&meter), stop.clone());
        tasks.spawn(async move { publisher::publish_all(&link, &mut script, &meter, stop).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a publisher broke")??;
    }
    Ok(Round {
        messages: meter.acknowledged(),
        elapsed: gate.opened_at.get().context("nobody connected")?.elapsed(),
        p50_ms: meter.latency_ms(0.5),
        p99_ms: meter.latency_ms(0.99),
        cpu: Cpu::used(bench, broker)?.since(before),
    })
}

/// Opens when everybody is connected: how long that takes is not what a round measures.
struct Gate {
    missing: AtomicUsize,
    opened_at: OnceLock<Instant>,
    open_for: Duration,
}

impl Gate {
    fn new(connections: usize, open_for: Duration) -> Self {
        Self { missing: AtomicUsize::new(connections), opened_at: OnceLock::new(), open_for }
    }

    fn arrive(&self, now: Instant) {
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.opened_at.get_or_init(|| now);
        }
    }
}

/// A script that begins when the gate opens, and breaks off when it closes.
struct Gated {
    script: Script,
    gate: Arc<Gate>,
    has_arrived: bool,
}

impl Source for Gated {
    fn turn(&mut self, now: Instant) -> Turn {
        if !std::mem::replace(&mut self.has_arrived, true) {
            self.gate.arrive(now);
        }
        match self.gate.opened_at.get() {
            Some(opened_at) if now < *opened_at + self.gate.open_for => self.script.turn(now),
            Some(_) => Turn::Done,
            None => Turn::WaitUntil(now + GATE_LOOK_EVERY),
        }
    }

    fn acknowledged(&mut self, tags: &[u64]) -> Result<()> {
        self.script.acknowledged(tags)
    }
}

impl Round {
    fn rate(&self) -> f64 {
        per_second(self.messages, self.elapsed)
    }
}

impl Line {
    fn median(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        let mut sorted: Vec<f64> = self.rounds.iter().map(figure).collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Microseconds of CPU time a message took, over all rounds: the clock is too coarse for one.
    #[expect(clippy::cast_precision_loss, reason = "messages of a benchmark stay far below 2^52")]
    fn micros(&self, of: fn(&Cpu) -> Duration) -> f64 {
        let messages: u64 = self.rounds.iter().map(|round| round.messages).sum();
        let used: Duration = self.rounds.iter().map(|round| of(&round.cpu)).sum();
        used.as_secs_f64() * 1e6 / messages as f64
    }
}

/// Ratios refer to the second broker over the same transport.
fn render(lines: &[Line]) -> String {
    let header =
        ["", "", "messages/s", "from", "to", "ratio", "p50 ms", "p99 ms", "broker us", "PG us", "client us"];
    let mut cells = vec![header.map(str::to_owned)];
    for line in lines {
        let same = lines.iter().filter(|other| other.transport == line.transport);
        let rate = line.median(Round::rate);
        let base = same.skip(1).map(|other| other.median(Round::rate)).next();
        let rates = line.rounds.iter().map(Round::rate);
        cells.push([
            line.name.clone(),
            line.transport.to_owned(),
            show(Some(rate), 0),
            show(rates.clone().reduce(f64::min), 0),
            show(rates.reduce(f64::max), 0),
            show(base.map(|base| rate / base), 2),
            show(Some(line.median(|round| round.p50_ms)), 1),
            show(Some(line.median(|round| round.p99_ms)), 1),
            show(Some(line.micros(|cpu| cpu.broker)), 1),
            show(Some(line.micros(|cpu| cpu.postgres)), 1),
            show(Some(line.micros(|cpu| cpu.publisher)), 1),
        ]);
    }
    align(&cells)
}

/// Memory of a broker, KiB.
fn resident_kib(broker: &Broker) -> Result<u64> {
    process::resident_kib(broker.pid).with_context(|| format!("look at the memory of {}", broker.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_named_with_or_without_tls() {
        let plain = Broker::parse("rumqttd,7,127.0.0.1:1").unwrap();
        assert_eq!((plain.name.as_str(), plain.pid, plain.tls), ("rumqttd", 7, None));
        let both = Broker::parse("engine,7,127.0.0.1:1,127.0.0.1:2").unwrap();
        assert_eq!(both.tls.as_deref(), Some("127.0.0.1:2"));
        assert!(Broker::parse("engine").is_err());
        assert!(Broker::parse("engine,x,127.0.0.1:1").is_err());
    }

    #[test]
    fn ratios_refer_to_the_second_broker() {
        let cpu = Cpu {
            broker: Duration::from_millis(1),
            postgres: Duration::from_millis(2),
            publisher: Duration::from_millis(3),
        };
        let line = |name: &str, rates: [u64; 3]| Line {
            name: name.into(),
            transport: "TCP",
            rounds: rates
                .map(|messages| Round {
                    messages,
                    elapsed: Duration::from_secs(1),
                    p50_ms: 1.0,
                    p99_ms: 2.0,
                    cpu,
                })
                .to_vec(),
        };
        let text = render(&[line("engine", [40, 50, 60]), line("other", [100, 90, 110])]);
        let cells: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells, ["engine", "TCP", "50", "40", "60", "0.50", "1.0", "2.0", "20.0", "40.0", "60.0"]);
    }
}
