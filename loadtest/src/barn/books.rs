//! What the devices of a barn keep books of together: ids, latencies, refusals, arrivals.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use schema::clock::Clock;

use super::{Settings, refused};
use crate::device::Message;
use crate::ledger::{Entry, Ledger, Outcome, sha256};
use crate::mqtt::{Publish, Refused};
use crate::publisher::{Source, Turn};
use crate::run::Refusal;
use crate::timeline::Timeline;
use crate::traffic::Said;

/// Messages whose time of publishing is kept for their deliveries; older ones are delivered without a latency.
const PUBLISHED_MAX: usize = 200_000;

/// The books.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) timeline: Timeline,
    /// Acknowledged event ids, one a line.
    pub(super) ids: Lines,
    pub(super) ledger: Ledger,
    pub(super) delivered: AtomicU64,
    /// Readings that were acknowledged, which subscribers must see.
    pub(super) telemetry_acknowledged: AtomicU64,
    pub(super) unanswered: AtomicU64,
    clock: Clock,
    /// When each of the newest messages was published; `None` when nobody listens.
    published: Option<Mutex<Published>>,
    /// Messages refused by device and code; none for a device that was not let in.
    refusals: Mutex<BTreeMap<(String, u8), u64>>,
}

#[derive(Debug, Default)]
struct Published {
    at: HashMap<u64, Instant>,
    order: VecDeque<u64>,
}

impl Books {
    pub(super) fn open(settings: &Settings) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            timeline: Timeline::start(),
            ids: Lines::open(settings.ids_file.as_deref())?,
            ledger: Ledger::open(settings.ledger.as_deref())?,
            delivered: AtomicU64::new(0),
            telemetry_acknowledged: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            clock: Clock::system(),
            published: settings.subscribers.is_some().then(Mutex::default),
            refusals: Mutex::new(BTreeMap::new()),
        }))
    }

    /// A subscriber received this.
    pub(super) fn deliver(&self, topic: &str, payload: &[u8]) {
        let key = key(topic, payload);
        let at = self
            .published
            .as_ref()
            .and_then(|published| published.lock().expect("no writer panics").at.get(&key).copied());
        self.delivered.fetch_add(1, Ordering::Relaxed);
        self.timeline.delivered(at.map(|at| at.elapsed()));
    }

    /// A device was not let in.
    pub(super) fn shut_out(&self, device: &str, code: u8) {
        self.refusals.lock().expect("no writer panics").entry((device.to_owned(), code)).or_default();
    }

    pub(super) fn refusals(&self) -> Vec<Refusal> {
        let refusals = self.refusals.lock().expect("no writer panics");
        refusals.iter().map(|((device, code), messages)| refused(device, *code, *messages)).collect()
    }

    fn note_published(&self, publish: &Publish, now: Instant) {
        self.timeline.published();
        let Some(published) = &self.published else { return };
        let key = key(&publish.topic, &publish.payload);
        let mut published = published.lock().expect("no writer panics");
        published.at.insert(key, now);
        published.order.push_back(key);
        if published.order.len() > PUBLISHED_MAX
            && let Some(oldest) = published.order.pop_front()
        {
            published.at.remove(&oldest);
        }
    }
}

fn key(topic: &str, payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (topic, payload).hash(&mut hasher);
    hasher.finish()
}

/// A message in flight.
#[derive(Debug)]
struct Sent {
    message: Message,
    due_at: Instant,
    sent_at: Instant,
}

/// What one device has in flight.
#[derive(Debug)]
pub(super) struct Outbound {
    device: String,
    last_tag: u64,
    open: HashMap<u64, Sent>,
    books: Arc<Books>,
}

impl Outbound {
    pub(super) fn new(device: &str, books: Arc<Books>) -> Self {
        Self { device: device.to_owned(), last_tag: 0, open: HashMap::new(), books }
    }

    /// Publishes a message that was due at this time.
    pub(super) fn publish(&mut self, message: Message, due_at: Instant, now: Instant) -> Turn {
        self.last_tag += 1;
        let publish = message.publish.clone();
        self.books.note_published(&publish, now);
        self.open.insert(self.last_tag, Sent { message, due_at: due_at.min(now), sent_at: now });
        Turn::Publish(self.last_tag, publish)
    }

    fn acknowledged(&mut self, tags: &[u64]) -> Result<()> {
        let now = Instant::now();
        let sent: Vec<_> = tags.iter().filter_map(|tag| self.open.remove(tag)).collect();
        for message in &sent {
            self.books.timeline.acknowledged(now - message.due_at, now - message.sent_at);
            let is_reading = message.message.publish.topic.starts_with("iot/telemetry/");
            self.books.telemetry_acknowledged.fetch_add(u64::from(is_reading), Ordering::Relaxed);
        }
        self.books.ids.append(sent.iter().filter_map(|sent| sent.message.expected.as_deref()))?;
        self.write(&sent, Outcome::Acknowledged, 0)
    }

    fn refused(&mut self, tag: u64, code: u8) -> Result<()> {
        let Some(sent) = self.open.remove(&tag) else { return Ok(()) };
        self.books.timeline.refused(1);
        let mut refusals = self.books.refusals.lock().expect("no writer panics");
        *refusals.entry((self.device.clone(), code)).or_default() += 1;
        drop(refusals);
        self.write(&[sent], Outcome::Refused, code)
    }

    fn left_open(&mut self, tags: &[u64]) -> Result<()> {
        let sent: Vec<_> = tags.iter().filter_map(|tag| self.open.remove(tag)).collect();
        self.books.unanswered.fetch_add(sent.len() as u64, Ordering::Relaxed);
        self.write(&sent, Outcome::Unknown, 0)
    }

    fn write(&self, sent: &[Sent], outcome: Outcome, reason_code: u8) -> Result<()> {
        if !self.books.ledger.is_kept() {
            return Ok(());
        }
        let at = self.books.clock.now();
        let entry = |sent: &Sent| {
            let publish = &sent.message.publish;
            let said = Said::of(&publish.topic, &publish.payload);
            Entry {
                at,
                tenant_id: said.tenant,
                device_id: said.device,
                event_id: said.event_id,
                topic: publish.topic.to_string(),
                sha256: sha256(&publish.payload),
                outcome,
                reason_code,
                event_type: said.event_type,
            }
        };
        self.books.ledger.append(&sent.iter().map(entry).collect::<Vec<_>>())
    }
}

/// A device of the barn: what it says next. What becomes of it is written down alike for all of them.
pub(super) trait Speaker: Send {
    /// The next step; called only while the window has room.
    fn turn(&mut self, now: Instant) -> Turn;

    /// What it has in flight.
    fn outbound(&mut self) -> &mut Outbound;

    /// Published first on every new connection.
    fn hello(&mut self) -> Option<Publish> {
        None
    }

    /// Published last before a clean good-bye.
    fn farewell(&mut self) -> Option<Publish> {
        None
    }
}

/// A device as a source of messages, which gives up when it is not let in.
#[derive(Debug)]
pub(super) struct Spoken<S>(pub(super) S);

impl<S: Speaker> Source for Spoken<S> {
    fn turn(&mut self, now: Instant) -> Turn {
        self.0.turn(now)
    }

    fn acknowledged(&mut self, tags: &[u64]) -> Result<()> {
        self.0.outbound().acknowledged(tags)
    }

    fn refused(&mut self, tag: u64, code: u8) -> Result<()> {
        self.0.outbound().refused(tag, code)
    }

    fn left_open(&mut self, tags: &[u64]) -> Result<()> {
        self.0.outbound().left_open(tags)
    }

    fn connected(&mut self, took: Duration) {
        self.0.outbound().books.timeline.connected(took);
    }

    fn gives_up(&mut self, refused: Refused) -> bool {
        let outbound = self.0.outbound();
        outbound.books.shut_out(&outbound.device, refused.code);
        true
    }

    fn hello(&mut self) -> Option<Publish> {
        self.0.hello()
    }

    fn farewell(&mut self) -> Option<Publish> {
        self.0.farewell()
    }
}

/// A file of lines that all devices append to; without a path nothing is written.
#[derive(Clone, Debug)]
pub(super) struct Lines(Option<Arc<Mutex<BufWriter<File>>>>);

impl Lines {
    pub(super) fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self(None));
        };
        let file = File::options().append(true).create(true).open(path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        Ok(Self(Some(Arc::new(Mutex::new(BufWriter::new(file))))))
    }

    /// Appends and flushes: what the file holds was acknowledged, whatever happens next.
    pub(super) fn append<'a>(&self, lines: impl Iterator<Item = &'a str>) -> Result<()> {
        let Some(file) = &self.0 else {
            return Ok(());
        };
        let mut file = file.lock().expect("writing a line does not panic");
        for line in lines {
            writeln!(file, "{line}").context("append a line")?;
        }
        file.flush().context("append a line")
    }
}

/// When a device loses its connection the next time.
#[derive(Debug)]
pub(super) struct Storms {
    every: Option<Duration>,
    next_at: Option<Instant>,
}

impl Storms {
    pub(super) fn new(every: Option<Duration>, started: Instant) -> Self {
        Self { every, next_at: every.map(|every| started + every) }
    }

    /// Whether one is due, which then is over.
    pub(super) fn strikes(&mut self, now: Instant) -> bool {
        let (Some(every), Some(at)) = (self.every, self.next_at) else { return false };
        let strikes = now >= at;
        if strikes {
            self.next_at = Some((at + every).max(now));
        }
        strikes
    }

    /// The earlier of `at` and the next storm.
    pub(super) fn or_storm(&self, at: Instant) -> Instant {
        self.next_at.map_or(at, |storm_at| at.min(storm_at))
    }
}
