//! One device of a replay: sends each message when it is due, and tells what became of it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use schema::clock::Clock;

use crate::ledger::{Entry, Ledger, Outcome, sha256};
use crate::mqtt::{Publish, Refused, refusal};
use crate::publisher::{Source, Turn};
use crate::run::Refusal;
use crate::timeline::Timeline;
use crate::traffic::Said;

/// How long a device with nothing to send sleeps before it looks again unasked.
const IDLE: Duration = Duration::from_secs(3600);

/// A message on its way to a device.
#[derive(Debug)]
pub(super) struct Due {
    /// When it is to be sent.
    pub(super) at: Instant,
    /// What is sent.
    pub(super) publish: Publish,
    /// What it says about itself.
    pub(super) said: Said,
    /// Its place in the memory of the run, given back when it is answered.
    #[expect(dead_code, reason = "it is given back when it is dropped")]
    pub(super) room: OwnedSemaphorePermit,
}

/// What waits for one device.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Due>,
    is_closed: bool,
}

impl Queue {
    /// Adds a message, which is due no earlier than the one before it.
    pub(super) fn push(&self, due: Due) {
        self.lock().messages.push_back(due);
        self.changed.notify_one();
    }

    /// Nothing follows.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    fn next(&self, now: Instant) -> Next {
        let mut waiting = self.lock();
        match waiting.messages.front() {
            Some(first) if first.at > now => Next::At(first.at),
            Some(_) => Next::Due(Box::new(waiting.messages.pop_front().expect("it was just looked at"))),
            None if waiting.is_closed => Next::Nothing,
            None => Next::At(now + IDLE),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nothing panics while it holds the queue")
    }
}

enum Next {
    Due(Box<Due>),
    At(Instant),
    Nothing,
}

/// What all devices of a run share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) timeline: Timeline,
    pub(super) ledger: Ledger,
    /// Whether messages have a time of their own; without one they are due when they are sent.
    pub(super) is_paced: bool,
    pub(super) clock: Clock,
    /// Messages that were sent and never answered, at QoS 1 or 2.
    pub(super) unanswered: AtomicU64,
    /// Messages that were refused, also those of devices that were not let in.
    pub(super) refused: AtomicU64,
    /// Messages refused, by device and code.
    refusals: Mutex<BTreeMap<(String, u8), u64>>,
    /// Devices that are connected or will never be.
    pub(super) settled: AtomicU64,
    pub(super) settled_changed: Notify,
    /// The latest a message was sent after it was due.
    lag_micros_max: AtomicU64,
}

impl Shared {
    pub(super) fn new(timeline: Timeline, ledger: Ledger, is_paced: bool) -> Self {
        Self {
            timeline,
            ledger,
            is_paced,
            clock: Clock::system(),
            unanswered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            refusals: Mutex::new(BTreeMap::new()),
            settled: AtomicU64::new(0),
            settled_changed: Notify::new(),
            lag_micros_max: AtomicU64::new(0),
        }
    }

    /// Who was refused what, by device.
    pub(super) fn refusals(&self) -> Vec<Refusal> {
        let refusals = self.refusals.lock().expect("no recorder panics");
        let refusal = |((device, code), messages): (&(String, u8), &u64)| Refusal {
            device: device.clone(),
            code: *code,
            reason: refusal(*code).to_owned(),
            messages: *messages,
        };
        refusals.iter().map(refusal).collect()
    }

    /// The latest a message was sent after it was due.
    pub(super) fn lag_max(&self) -> Duration {
        Duration::from_micros(self.lag_micros_max.load(Ordering::Relaxed))
    }
}

/// A message that was sent.
#[derive(Debug)]
struct Sent {
    due: Due,
    sent_at: Instant,
}

/// A device at work.
pub(super) struct Player {
    /// `tenant/device`.
    name: String,
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    open: HashMap<u64, Sent>,
    last_tag: u64,
    is_settled: bool,
    /// The code with which the broker does not let this device in.
    is_out: Option<u8>,
}

impl Player {
    pub(super) fn new(name: String, queue: Arc<Queue>, shared: Arc<Shared>) -> Self {
        Self { name, queue, shared, open: HashMap::new(), last_tag: 0, is_settled: false, is_out: None }
    }

    /// Takes the messages of a device that is not let in, each when it is due, until nothing follows.
    pub(super) async fn refuse_rest(&mut self, stop: &tokio::sync::watch::Receiver<bool>) -> Result<()> {
        let Some(code) = self.is_out else { return Ok(()) };
        let open: Vec<u64> = self.open.keys().copied().collect();
        self.left_open(&open)?;
        let mut stop = stop.clone();
        loop {
            match self.queue.next(Instant::now()) {
                Next::Due(due) => self.refuse(&due, code)?,
                Next::Nothing => return Ok(()),
                Next::At(at) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at.into()) => {}
                        () = self.queue.changed.notified() => {}
                        _ = stop.wait_for(|is_stopped| *is_stopped) => return Ok(()),
                    }
                }
            }
        }
    }

    fn refuse(&self, due: &Due, code: u8) -> Result<()> {
        self.shared.timeline.refused(1);
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
        let mut refusals = self.shared.refusals.lock().expect("no recorder panics");
        *refusals.entry((self.name.clone(), code)).or_default() += 1;
        drop(refusals);
        self.shared.ledger.append(&[self.entry(due, Outcome::Refused, code)])
    }

    fn entry(&self, due: &Due, outcome: Outcome, reason_code: u8) -> Entry {
        Entry {
            at: self.shared.clock.now(),
            tenant_id: due.said.tenant.clone(),
            device_id: due.said.device.clone(),
            event_id: due.said.event_id.clone(),
            topic: due.publish.topic.to_string(),
            sha256: sha256(&due.publish.payload),
            outcome,
            reason_code,
            event_type: due.said.event_type.clone(),
        }
    }

    /// The lines of messages, where a ledger is kept: hashing them costs.
    fn entries<'a>(&self, sent: impl Iterator<Item = &'a Sent>, outcome: Outcome) -> Vec<Entry> {
        if !self.shared.ledger.is_kept() {
            return Vec::new();
        }
        sent.map(|sent| self.entry(&sent.due, outcome, 0)).collect()
    }

    fn settle(&mut self) {
        if !std::mem::replace(&mut self.is_settled, true) {
            self.shared.settled.fetch_add(1, Ordering::Relaxed);
            self.shared.settled_changed.notify_one();
        }
    }
}

impl Source for Player {
    fn turn(&mut self, now: Instant) -> Turn {
        match self.queue.next(now) {
            Next::At(at) => Turn::WaitUntil(at),
            Next::Nothing => Turn::Done,
            Next::Due(due) => {
                self.last_tag += 1;
                let publish = due.publish.clone();
                self.shared.timeline.published();
                let mut due = *due;
                if !self.shared.is_paced {
                    due.at = now;
                }
                let lag = u64::try_from((now - due.at).as_micros()).unwrap_or(u64::MAX);
                self.shared.lag_micros_max.fetch_max(lag, Ordering::Relaxed);
                let sent = Sent { due, sent_at: now };
                if publish.qos == 0 {
                    let entries = self.entries(std::iter::once(&sent), Outcome::Unknown);
                    // The publisher has no way to fail here; a full disk shows at the next acknowledgement.
                    drop(self.shared.ledger.append(&entries));
                } else {
                    self.open.insert(self.last_tag, sent);
                }
                Turn::Publish(self.last_tag, publish)
            }
        }
    }

    fn acknowledged(&mut self, tags: &[u64]) -> Result<()> {
        let now = Instant::now();
        let sent: Vec<Sent> = tags.iter().filter_map(|tag| self.open.remove(tag)).collect();
        for message in &sent {
            self.shared.timeline.acknowledged(now - message.due.at, now - message.sent_at);
        }
        self.shared.ledger.append(&self.entries(sent.iter(), Outcome::Acknowledged))
    }

    fn refused(&mut self, tag: u64, code: u8) -> Result<()> {
        let Some(sent) = self.open.remove(&tag) else { return Ok(()) };
        self.refuse(&sent.due, code)
    }

    fn left_open(&mut self, tags: &[u64]) -> Result<()> {
        let sent: Vec<Sent> = tags.iter().filter_map(|tag| self.open.remove(tag)).collect();
        self.shared.unanswered.fetch_add(sent.len() as u64, Ordering::Relaxed);
        self.shared.ledger.append(&self.entries(sent.iter(), Outcome::Unknown))
    }

    fn connected(&mut self, took: Duration) {
        self.shared.timeline.connected(took);
        self.settle();
    }

    fn gives_up(&mut self, refused: Refused) -> bool {
        self.is_out = Some(refused.code);
        self.settle();
        true
    }

    fn wake(&self) -> Option<Arc<Notify>> {
        Some(Arc::clone(&self.queue.changed))
    }
}
