//! Load with a memory: many devices that publish readings, resend what a lost connection took, and remember which
//! readings were acknowledged.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use loadtest::mqtt::Publish;
use loadtest::publisher::{self, Link, Meter, Source, Turn};
use schema::id::outbox_id;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::device::{TENANT, login, new_event_id, reading};
use crate::wait::until;

/// What a load is.
#[derive(Clone, Copy, Debug)]
pub struct LoadSettings {
    /// Number of the first device.
    pub first_device: usize,
    /// Devices, each with its own connection: `d-0`, `d-1`, … from the first one on.
    pub devices: usize,
    /// Readings of each device at most.
    pub readings: usize,
    /// Readings of each device per second at most.
    pub per_second: f64,
    /// Unacknowledged messages of a device.
    pub window: usize,
}

impl Default for LoadSettings {
    fn default() -> Self {
        Self { first_device: 0, devices: 8, readings: usize::MAX, per_second: 100.0, window: 50 }
    }
}

/// One device and how it reaches the engine.
#[derive(Clone, Debug)]
pub struct Line {
    /// The device.
    pub device: String,
    /// Its connection.
    pub link: Link,
    /// How it publishes: 1 or 2.
    pub qos: u8,
}

/// Which readings were offered and which of them were acknowledged.
#[derive(Debug, Default)]
pub struct Ledger {
    ids: Mutex<Ids>,
}

#[derive(Debug, Default)]
struct Ids {
    offered: HashSet<String>,
    acked: HashSet<String>,
}

impl Ledger {
    /// Notes that a reading was handed to a connection.
    pub fn offered(&self, event_id: &str) {
        self.lock().offered.insert(event_id.to_owned());
    }

    /// Notes that a reading was acknowledged.
    pub fn acked(&self, event_id: &str) {
        self.lock().acked.insert(event_id.to_owned());
    }

    /// How many readings were offered and acknowledged so far.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let ids = self.lock();
        (ids.offered.len(), ids.acked.len())
    }

    /// The outbox ids of the acknowledged readings.
    #[must_use]
    pub fn acked_outbox_ids(&self) -> HashSet<String> {
        self.lock().acked.iter().map(|id| outbox_id(TENANT, id).to_string()).collect()
    }

    /// Compares what was acknowledged with the database, id by id: nothing is missing, nothing is there twice, nothing
    /// is there that nobody sent, and mark, reading and event stand together.
    ///
    /// # Panics
    /// When anything differs.
    pub async fn check_kept(&self, client: &Client) {
        // As they stand at one moment: what was taken in and never answered may still be committed.
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.expect("a transaction begins");
        let stored = column(client, "SELECT event_id FROM telemetry_raw").await;
        let marked = column(client, "SELECT event_id FROM ingress_dedupe").await;
        let queued = column(client, "SELECT id::text FROM sync_outbox").await;
        client.batch_execute("COMMIT").await.expect("a transaction ends");
        let Ids { offered, acked } = &*self.lock();
        let (stored, marked) = (once("telemetry_raw", stored), once("ingress_dedupe", marked));
        let missing: Vec<_> = acked.difference(&stored).take(5).collect();
        assert!(missing.is_empty(), "acknowledged and not stored: {missing:?}, …");
        let unknown: Vec<_> = stored.difference(offered).take(5).collect();
        assert!(unknown.is_empty(), "stored and never sent: {unknown:?}, …");
        assert!(stored == marked, "{} readings but {} marks", stored.len(), marked.len());
        let expected: HashSet<_> = stored.iter().map(|id| outbox_id(TENANT, id).to_string()).collect();
        let queued = once("sync_outbox", queued);
        assert!(expected == queued, "{} readings but {} events", expected.len(), queued.len());
    }

    fn lock(&self) -> MutexGuard<'_, Ids> {
        self.ids.lock().expect("nothing panics while it holds the lock")
    }
}

async fn column(client: &Client, sql: &str) -> Vec<String> {
    let rows = client.query(sql, &[]).await.expect("the query is right");
    rows.iter().map(|row| row.get(0)).collect()
}

/// The ids as a set, each of which may occur once.
fn once(table: &str, ids: Vec<String>) -> HashSet<String> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for id in &ids {
        *counts.entry(id).or_default() += 1;
    }
    let repeated: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).take(5).collect();
    assert!(repeated.is_empty(), "more than once in {table}: {repeated:?}, …");
    ids.into_iter().collect()
}

/// Devices at work.
pub struct Load {
    /// What they offered and what was acknowledged.
    pub ledger: Arc<Ledger>,
    /// What happened to their connections.
    pub meter: Arc<Meter>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Load {
    /// Connects the devices in the clear, which publish from now on.
    #[must_use]
    pub fn start(mqtt: SocketAddr, settings: LoadSettings) -> Self {
        let line = |number| {
            let device = format!("d-{number}");
            let link =
                Link { broker: mqtt.to_string(), tls: None, login: login(&device), window: settings.window };
            Line { device, link, qos: 1 }
        };
        let numbers = settings.first_device..settings.first_device + settings.devices;
        Self::over(numbers.map(line).collect(), settings.readings, settings.per_second)
    }

    /// Connects devices each in its own way, which publish from now on: so many readings each, so many per second each.
    #[must_use]
    pub fn over(lines: Vec<Line>, readings: usize, per_second: f64) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (ledger, meter) = (Arc::new(Ledger::default()), Arc::new(Meter::default()));
        let gap = Duration::from_secs_f64(1.0 / per_second);
        let mut tasks = JoinSet::new();
        for Line { device, link, qos } in lines {
            let mut feed = Feed {
                device,
                qos,
                ledger: Arc::clone(&ledger),
                sent: Vec::new(),
                readings,
                gap,
                next_at: Instant::now(),
            };
            let (meter, stopped) = (Arc::clone(&meter), stopped.clone());
            tasks.spawn(async move { publisher::publish_all(&link, &mut feed, &meter, stopped).await });
        }
        Self { ledger, meter, stop, tasks }
    }

    /// Waits until so many more readings were acknowledged.
    ///
    /// # Panics
    /// When they never are.
    pub async fn progress(&self, more: usize) {
        let (_, before) = self.ledger.counts();
        until("more readings are acknowledged", async || self.ledger.counts().1 >= before + more).await;
    }

    /// Waits until every device has sent all its readings and has been answered for each.
    ///
    /// # Panics
    /// When a device fails.
    pub async fn finish(mut self) -> Arc<Ledger> {
        self.join().await;
        self.ledger
    }

    /// Lets the devices send nothing new, waits for what is open, and ends.
    ///
    /// # Panics
    /// When a device fails.
    pub async fn stop(mut self) -> Arc<Ledger> {
        self.stop.send_replace(true);
        self.join().await;
        self.ledger
    }

    async fn join(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no device panics").expect("every device connects");
        }
    }
}

/// The readings of one device, at its pace.
struct Feed {
    device: String,
    qos: u8,
    ledger: Arc<Ledger>,
    /// The event id of each reading, by its tag.
    sent: Vec<String>,
    readings: usize,
    gap: Duration,
    next_at: Instant,
}

impl Source for Feed {
    fn turn(&mut self, now: Instant) -> Turn {
        if self.sent.len() >= self.readings {
            return Turn::Done;
        }
        if now < self.next_at {
            return Turn::WaitUntil(self.next_at);
        }
        self.next_at = (self.next_at + self.gap).max(now);
        let event_id = new_event_id();
        let publish = Publish { qos: self.qos, ..reading(&self.device, &event_id) };
        self.ledger.offered(&event_id);
        self.sent.push(event_id);
        Turn::Publish(self.sent.len() as u64 - 1, publish)
    }

    fn acknowledged(&mut self, tags: &[u64]) -> anyhow::Result<()> {
        for tag in tags {
            self.ledger.acked(&self.sent[usize::try_from(*tag)?]);
        }
        Ok(())
    }
}
