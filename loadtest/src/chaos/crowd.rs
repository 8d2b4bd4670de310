//! Devices of a run: sensors whose values a judge can compute again, stations, and devices with bad habits. Whatever they
//! send stands in the ledger, answered or not.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::watch;

use schema::clock::Clock;
use schema::wire::envelope::Dialect;
use schema::wire::event::TELEMETRY_READING;

use crate::climate::Metric;
use crate::device::{Place, Reading, Station, Weighing, at_least_once};
use crate::ids::new_event_id;
use crate::ledger::{Entry, Ledger, Outcome, sha256};
use crate::mqtt::{Login, Publish};
use crate::publisher::{Link, Meter, Source, Turn, publish_all};
use crate::verify::compare::derived_value;

/// Messages of a device in flight.
const WINDOW: usize = 20;
/// Messages in flight of a device that floods.
const FLOOD_WINDOW: usize = 200;
/// Messages of a flood at most.
const FLOOD_MESSAGES_MAX: usize = 2000;
/// How many messages a device mixes that does not keep their order.
const SHUFFLED: usize = 25;
/// How often a device says everything that says everything several times.
const COPIES: usize = 3;
/// One message in so many is a generic event.
const EVENT_EVERY: u32 = 20;
/// Wait before a device that never got in tries again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Metrics whose values are derived: all but the weight, which is what a scale says.
const METRICS: [Metric; 6] = [
    Metric::Temperature,
    Metric::Humidity,
    Metric::Ammonia,
    Metric::Co2,
    Metric::LightIntensity,
    Metric::WaterConsumption,
];

/// What a device is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Habit {
    /// So many readings per second, in order.
    Regular(f64),
    /// A weighing every so many seconds, without pictures.
    Weighing(f64),
    /// A clock that is off by so many seconds.
    WrongClock(i64),
    /// As fast as it can.
    Flood,
    /// Everything several times.
    Duplicates,
    /// Not in order.
    Reorder,
}

impl Habit {
    fn gap(self) -> Duration {
        match self {
            Self::Regular(per_second) => Duration::from_secs_f64(1.0 / per_second.max(0.01)),
            Self::Weighing(seconds) => Duration::from_secs_f64(seconds.max(0.1)),
            Self::WrongClock(_) => Duration::from_millis(100),
            Self::Flood => Duration::ZERO,
            Self::Duplicates | Self::Reorder => Duration::from_millis(50),
        }
    }
}

/// What all devices share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    /// Where they are.
    pub(crate) place: Place,
    /// Where everything is written down.
    pub(crate) ledger: Ledger,
    /// Where everything is counted.
    pub(crate) meter: Arc<Meter>,
}

/// Lets a device live until `stop` becomes true; it connects as often as that takes. What was not answered is written
/// down as that.
pub(crate) async fn live(
    shared: Shared,
    broker: String,
    device: String,
    habit: Habit,
    seed: u64,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let login = Login { client_id: device.clone(), keepalive_seconds: 5, ..Login::default() };
    let window = if habit == Habit::Flood { FLOOD_WINDOW } else { WINDOW };
    let link = Link { broker, tls: None, login, window };
    let mut feed = Feed::new(shared.clone(), device, habit, seed);
    loop {
        let published = publish_all(&link, &mut feed, &shared.meter, stop.clone()).await;
        if published.is_ok() || *stop.borrow() {
            break;
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    feed.finish()
}

/// The messages of one device.
struct Feed {
    shared: Shared,
    device: String,
    habit: Habit,
    random: StdRng,
    dialect: Dialect,
    station: Station,
    queue: VecDeque<Publish>,
    next_at: Instant,
    last_tag: u64,
    open: BTreeMap<u64, Entry>,
}

impl Feed {
    fn new(shared: Shared, device: String, habit: Habit, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let dialect = *Dialect::ALL.choose(&mut random).expect("there are dialects");
        let number = device.rsplit('-').next().unwrap_or_default();
        let station = format!("st-{number}");
        let station = Station { place: shared.place.clone(), station, device: device.clone() };
        // Ids must not come again in another run on the same database.
        let random = StdRng::seed_from_u64(seed ^ rand::rng().random::<u64>());
        let (queue, open) = (VecDeque::new(), BTreeMap::new());
        Self {
            shared,
            device,
            habit,
            random,
            dialect,
            station,
            queue,
            next_at: Instant::now(),
            last_tag: 0,
            open,
        }
    }

    fn fill(&mut self) {
        match self.habit {
            Habit::Weighing(_) => {
                let session = new_event_id(&mut self.random);
                let weight_kg = f64::from(self.random.random_range(500_u16..4000)) / 1000.0;
                let weighing = Weighing { session: &session, weight_kg, at: Clock::system().now() };
                let messages = self.station.weigh(weighing, &mut self.random);
                self.queue.extend(messages.into_iter().map(|message| message.publish));
            }
            Habit::Reorder => {
                let mut messages: Vec<_> = (0..SHUFFLED).map(|number| self.measure(number as i64)).collect();
                messages.shuffle(&mut self.random);
                self.queue.extend(messages);
            }
            Habit::Duplicates => {
                let message = self.measure(0);
                self.queue.extend(std::iter::repeat_n(message, COPIES));
            }
            Habit::Regular(_) | Habit::WrongClock(_) | Habit::Flood => {
                let message = self.measure(0);
                self.queue.push_back(message);
            }
        }
    }

    /// A reading, or now and then an event, so many milliseconds ahead.
    fn measure(&mut self, ahead_ms: i64) -> Publish {
        let off = if let Habit::WrongClock(seconds) = self.habit { seconds } else { 0 };
        let at =
            Clock::system().now() + chrono::Duration::seconds(off) + chrono::Duration::milliseconds(ahead_ms);
        let event_id = new_event_id(&mut self.random);
        if self.random.random_ratio(1, EVENT_EVERY) {
            return event(&self.shared.place, &self.device, &event_id, at);
        }
        let metric = *METRICS.choose(&mut self.random).expect("there are metrics");
        let value = derived_value(&event_id);
        let reading = Reading { device: &self.device, metric, value, at, event_id: &event_id };
        reading.message(&self.shared.place, self.dialect).publish
    }

    /// Writes down what was never answered.
    fn finish(self) -> Result<()> {
        let entries: Vec<_> = self.open.into_values().collect();
        self.shared.ledger.append(&entries)
    }
}

impl Source for Feed {
    fn turn(&mut self, now: Instant) -> Turn {
        if self.habit == Habit::Flood && self.last_tag >= FLOOD_MESSAGES_MAX as u64 {
            return Turn::Done;
        }
        if self.queue.is_empty() {
            if now < self.next_at {
                return Turn::WaitUntil(self.next_at);
            }
            // What was missed while nobody took it is not made up for.
            self.next_at = (self.next_at + self.habit.gap()).max(now);
            self.fill();
        }
        let publish = self.queue.pop_front().expect("it was just filled");
        self.last_tag += 1;
        self.open.insert(self.last_tag, entry(&self.shared.place, &self.device, &publish));
        Turn::Publish(self.last_tag, publish)
    }

    fn acknowledged(&mut self, tags: &[u64]) -> Result<()> {
        let at = Clock::system().now();
        let known = tags.iter().filter_map(|tag| self.open.remove(tag));
        let entries: Vec<_> =
            known.map(|entry| Entry { at, outcome: Outcome::Acknowledged, ..entry }).collect();
        self.shared.ledger.append(&entries)
    }
}

/// A message as the ledger holds it before its answer.
fn entry(place: &Place, device: &str, publish: &Publish) -> Entry {
    let body: Value = serde_json::from_slice(&publish.payload).unwrap_or_default();
    let text = |name: &str| body[name].as_str().map(str::to_owned);
    Entry {
        at: Clock::system().now(),
        tenant_id: Some(place.tenant.clone()),
        device_id: Some(device.to_owned()),
        event_id: text("event_id"),
        topic: publish.topic.to_string(),
        sha256: sha256(&publish.payload),
        outcome: Outcome::Unknown,
        reason_code: 0,
        event_type: Some(text("event_type").unwrap_or_else(|| TELEMETRY_READING.to_owned())),
    }
}

fn event(place: &Place, device: &str, event_id: &str, at: schema::clock::Timestamp) -> Publish {
    let Place { tenant, farm, barn } = place;
    let body = json!({"schema_version": "1.0", "event_id": event_id, "trace_id": format!("tr-{event_id}"),
        "tenant_id": tenant, "device_id": device, "event_type": "door_opened",
        "ts": at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true), "payload": {"door": 1}});
    let topic = format!("iot/event/{tenant}/{farm}/{barn}/{device}/door_opened");
    at_least_once(topic, body.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Entries;
    use crate::verify::message::Kind;

    fn feed(habit: Habit, ledger: Ledger) -> Feed {
        let place = Place { tenant: "t-001".into(), farm: "f-001".into(), barn: "b-001".into() };
        let shared = Shared { place, ledger, meter: Arc::default() };
        Feed::new(shared, "d-01".into(), habit, 1)
    }

    fn take(feed: &mut Feed, count: usize) -> Vec<Publish> {
        let mut taken = Vec::new();
        while taken.len() < count {
            match feed.turn(Instant::now() + Duration::from_secs(3600)) {
                Turn::Publish(_, publish) => taken.push(publish),
                Turn::WaitUntil(_) | Turn::Drop => {}
                Turn::Done => break,
            }
        }
        taken
    }

    #[test]
    fn everything_that_was_sent_stands_in_the_ledger_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let ledger = Ledger::open(Some(file.path())).unwrap();
        let mut feed = feed(Habit::Regular(10.0), ledger);
        let sent = take(&mut feed, 50);
        feed.acknowledged(&[1, 2, 3, 99]).unwrap();
        feed.finish().unwrap();
        let entries: Vec<Entry> = Entries::open(file.path()).unwrap().map(Result::unwrap).collect();
        assert_eq!(entries.len(), 50);
        assert_eq!(entries.iter().filter(|entry| entry.outcome == Outcome::Acknowledged).count(), 3);
        assert_eq!(entries[0].sha256, sha256(&sent[0].payload));
        assert!(entries.iter().all(|entry| entry.event_id.is_some()));
    }

    #[test]
    fn habits_show_in_what_is_sent() {
        let ids = |sent: &[Publish]| -> Vec<String> {
            let body = |publish: &Publish| serde_json::from_slice::<Value>(&publish.payload).unwrap();
            sent.iter().map(|publish| body(publish)["event_id"].as_str().unwrap().to_owned()).collect()
        };
        let twice = ids(&take(&mut feed(Habit::Duplicates, Ledger::default()), 2 * COPIES));
        assert!(twice[0] == twice[COPIES - 1] && twice[0] != twice[COPIES]);
        let weighed = take(&mut feed(Habit::Weighing(1.0), Ledger::default()), 7);
        assert!(matches!(Kind::of(&weighed[0].topic), Kind::Created(_)));
        let flood = take(&mut feed(Habit::Flood, Ledger::default()), usize::MAX);
        assert_eq!(flood.len(), FLOOD_MESSAGES_MAX);
    }
}
