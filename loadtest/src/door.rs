//! Measures the door beside other brokers, in one run: how fast they acknowledge, and what an idle connection costs.

mod idle;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::bench::engine::{self, Pace, Script};
use crate::bench::table::{align, show};
use crate::bench::{self, Bench, process};
use crate::mqtt::Login;
use crate::publisher::{self, Link, Meter};
use crate::report::{note, per_second, say};
use crate::stream::Tls;

/// Nobody is to be pinged in the middle of a measurement.
pub(crate) const KEEPALIVE_SECONDS: u16 = u16::MAX;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The brokers; the first one is the engine.
    pub brokers: Vec<Broker>,
    /// The engine's database.
    pub database_url: String,
    /// How to trust the brokers' certificates.
    pub tls: Tls,
    /// Connections that publish.
    pub connections: usize,
    /// Unacknowledged messages of each.
    pub window: usize,
    /// Messages of each in a round.
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

/// What one broker reached over one transport.
struct Line {
    name: String,
    transport: &'static str,
    /// Messages per second of each round.
    rates: Vec<f64>,
    /// p50 and p99 of each round, milliseconds.
    latencies_ms: Vec<(f64, f64)>,
}

/// Runs everything and prints two tables.
///
/// # Errors
/// When a broker or the database cannot be reached, or a message is not acknowledged.
pub async fn run(settings: Settings, stop: watch::Receiver<bool>) -> Result<()> {
    let engine = settings.brokers.first().context("name at least one broker")?;
    let bench = Bench::open(bench::Settings {
        broker: engine.plain.clone(),
        engine_pid: Some(engine.pid),
        devices: settings.connections,
        connections: settings.connections,
        window: settings.window,
        ..bench::Settings::arriving(settings.database_url.clone(), 1.0)
    })
    .await?;
    if !settings.idle.is_empty() {
        say("");
        say(idle::measure(&settings, &stop).await?.trim_end());
    }
    engine::admit(&bench).await?;
    let mut lines = lines(&settings);
    // The first round warms everything up and is not counted.
    for round in 0..=settings.rounds {
        for line in &mut lines {
            if *stop.borrow() {
                return Ok(());
            }
            let (rate, latency_ms) = measure(&settings, &bench, line, &stop).await?;
            note(format!("round {round}: {} over {}: {rate:.0}/s", line.name, line.transport));
            if round > 0 {
                line.rates.push(rate);
                line.latencies_ms.push(latency_ms);
            }
        }
    }
    say("");
    say(render(&lines).trim_end());
    Ok(())
}

fn lines(settings: &Settings) -> Vec<Line> {
    let of = |broker: &Broker| {
        let name = broker.name.clone();
        broker.listeners(&settings.tls).into_iter().map(move |(transport, _, _)| Line {
            name: name.clone(),
            transport,
            rates: Vec::new(),
            latencies_ms: Vec::new(),
        })
    };
    let mut lines: Vec<_> = settings.brokers.iter().flat_map(of).collect();
    lines.sort_by_key(|line| line.transport);
    lines
}

/// One round: every connection publishes its messages; messages per second, and p50 and p99 of their acknowledgements.
async fn measure(
    settings: &Settings,
    bench: &Bench,
    line: &Line,
    stop: &watch::Receiver<bool>,
) -> Result<(f64, (f64, f64))> {
    let broker = settings.brokers.iter().find(|broker| broker.name == line.name);
    let listeners = broker.context("a line is of a broker")?.listeners(&settings.tls);
    let found = listeners.into_iter().find(|(transport, _, _)| *transport == line.transport);
    let (_, address, tls) = found.context("a line is of a listener")?;
    let total = settings.connections * settings.messages;
    let scripts = engine::scripts(bench, Pace::Max(total), settings.connections);
    let meter = Arc::new(Meter::default());
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for (number, messages) in scripts.into_iter().enumerate() {
        let client_id = format!("bench-{number}");
        let login = Login { client_id, keepalive_seconds: KEEPALIVE_SECONDS, ..Login::default() };
        let link = Link { broker: address.clone(), tls: tls.clone(), login, window: settings.window };
        let mut script = Script::new(messages, started, Duration::ZERO);
        let (meter, stop) = (Arc::clone(&meter), stop.clone());
        tasks.spawn(async move { publisher::publish_all(&link, &mut script, &meter, stop).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a publisher broke")??;
    }
    let rate = per_second(meter.acknowledged(), started.elapsed());
    Ok((rate, (meter.latency_ms(0.5), meter.latency_ms(0.99))))
}

/// Ratios refer to the second broker over the same transport.
fn render(lines: &[Line]) -> String {
    let header = ["", "", "messages/s", "from", "to", "ratio", "p50 ms", "p99 ms"].map(str::to_owned);
    let mut cells = vec![header];
    for line in lines {
        let same = lines.iter().filter(|other| other.transport == line.transport);
        let base = same.skip(1).map(|other| median(&other.rates)).next();
        let of =
            |pick: fn(&(f64, f64)) -> f64| median(&line.latencies_ms.iter().map(pick).collect::<Vec<_>>());
        cells.push([
            line.name.clone(),
            line.transport.to_owned(),
            show(Some(median(&line.rates)), 0),
            show(line.rates.iter().copied().reduce(f64::min), 0),
            show(line.rates.iter().copied().reduce(f64::max), 0),
            show(base.map(|base| median(&line.rates) / base), 2),
            show(Some(of(|(p50, _)| *p50)), 1),
            show(Some(of(|(_, p99)| *p99)), 1),
        ]);
    }
    align(&cells)
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
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
        let line = |name: &str, rates: [f64; 3]| Line {
            name: name.into(),
            transport: "TCP",
            rates: rates.to_vec(),
            latencies_ms: vec![(1.0, 2.0); 3],
        };
        let text = render(&[line("engine", [40.0, 50.0, 60.0]), line("other", [100.0, 90.0, 110.0])]);
        let cells: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells, ["engine", "TCP", "50", "40", "60", "0.50", "1.0", "2.0"]);
    }
}
