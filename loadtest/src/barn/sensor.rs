//! One climate sensor: seven readings per poll, a retained status, and a will that is as old as the process.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::SeedableRng;
use rand::rngs::StdRng;

use schema::wire::envelope::Dialect;

use crate::barn::{Ledger, Settings, SimulatedTime};
use crate::climate::{Climate, Metric};
use crate::device::{self, Message, Place, Reading, State};
use crate::ids::new_event_id;
use crate::mqtt::{Publish, Will};
use crate::publisher::{Source, Turn};

/// A sensor that polls in real time and publishes what it reads.
pub(super) struct Sensor {
    place: Place,
    device: String,
    dialect: Dialect,
    climate: Climate,
    /// Ids come from the machine's entropy: a second run must not repeat them.
    random: StdRng,
    time: SimulatedTime,
    interval: Duration,
    poll_at: Instant,
    queue: VecDeque<Message>,
    outbound: Outbound,
}

impl Sensor {
    pub(super) fn new(
        settings: &Settings,
        device: String,
        index: usize,
        dialect: Dialect,
        time: &SimulatedTime,
        ledger: Ledger,
    ) -> Self {
        let interval = time.real(settings.interval_seconds);
        let share = u32::try_from(index).unwrap_or(0);
        let of = u32::try_from(settings.devices.max(1)).unwrap_or(u32::MAX);
        Self {
            place: settings.place.clone(),
            device,
            dialect,
            climate: Climate::new(settings.seed.wrapping_add(index as u64), time.started_at),
            random: StdRng::from_os_rng(),
            interval,
            // Devices do not poll in step.
            poll_at: time.started + interval * share / of,
            time: time.clone(),
            queue: VecDeque::with_capacity(Metric::ALL.len()),
            outbound: Outbound::new(ledger),
        }
    }

    /// The last will, made once.
    pub(super) fn will(&self) -> Will {
        let event_id = new_event_id(&mut self.random.clone());
        let at = self.time.started_at;
        let status = device::status(&self.place, &self.device, self.dialect, State::Offline, at, &event_id);
        Will { topic: status.topic.to_string(), payload: status.payload.to_vec(), is_retained: true }
    }

    fn status(&mut self, state: State) -> Publish {
        let at = self.time.at(Instant::now());
        let event_id = new_event_id(&mut self.random);
        device::status(&self.place, &self.device, self.dialect, state, at, &event_id)
    }

    fn poll(&mut self, now: Instant) {
        let at = self.time.at(now);
        for metric in Metric::ALL {
            let event_id = new_event_id(&mut self.random);
            let value = self.climate.read(metric, at);
            let reading = Reading { device: &self.device, metric, value, at, event_id: &event_id };
            self.queue.push_back(reading.message(&self.place, self.dialect));
        }
        // Polls missed during an outage are not made up for.
        self.poll_at = (self.poll_at + self.interval).max(now);
    }
}

impl Source for Sensor {
    fn turn(&mut self, now: Instant) -> Turn {
        if self.queue.is_empty() {
            if self.time.is_over(now) {
                return Turn::Done;
            }
            if now < self.poll_at {
                return Turn::WaitUntil(self.time.or_end(self.poll_at));
            }
            self.poll(now);
        }
        let message = self.queue.pop_front().expect("a poll has just filled the queue");
        self.outbound.publish(message)
    }

    fn acknowledged(&mut self, tags: &[u64]) -> Result<()> {
        self.outbound.acknowledged(tags)
    }

    fn hello(&mut self) -> Option<Publish> {
        Some(self.status(State::Online))
    }

    fn farewell(&mut self) -> Option<Publish> {
        Some(self.status(State::Offline))
    }
}

/// Which expected event id belongs to which message in flight.
pub(super) struct Outbound {
    last_tag: u64,
    expected: HashMap<u64, String>,
    ledger: Ledger,
}

impl Outbound {
    pub(super) fn new(ledger: Ledger) -> Self {
        Self { last_tag: 0, expected: HashMap::new(), ledger }
    }

    pub(super) fn publish(&mut self, message: Message) -> Turn {
        self.last_tag += 1;
        if let Some(event_id) = message.expected {
            self.expected.insert(self.last_tag, event_id);
        }
        Turn::Publish(self.last_tag, message.publish)
    }

    pub(super) fn acknowledged(&mut self, tags: &[u64]) -> Result<()> {
        let ids: Vec<_> = tags.iter().filter_map(|tag| self.expected.remove(tag)).collect();
        self.ledger.append(ids.iter().map(String::as_str))
    }
}
