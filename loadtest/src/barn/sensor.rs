//! One climate sensor: seven readings per poll, a retained status, and a will that is as old as the process.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use schema::wire::envelope::Dialect;

use crate::barn::books::{Books, Outbound, Speaker, Storms};
use crate::barn::{Settings, SimulatedTime};
use crate::climate::{Climate, Metric};
use crate::device::{self, Message, Place, Reading, State};
use crate::ids::new_event_id;
use crate::mqtt::{Publish, Will};
use crate::publisher::Turn;

/// Polls between two times that nobody can read.
const CONFUSED_EVERY: u64 = 12;

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
    /// When what is in the queue was to be sent.
    due_at: Instant,
    /// Whether it now and then writes a time that nobody can read.
    is_confused: bool,
    polls: u64,
    /// Whether this sensor's storms are the ones that the report shows.
    is_first: bool,
    storms: Storms,
    books: Arc<Books>,
    outbound: Outbound,
}

impl Sensor {
    pub(super) fn new(
        settings: &Settings,
        device: String,
        index: usize,
        dialect: Dialect,
        time: &SimulatedTime,
        books: Arc<Books>,
    ) -> Self {
        let interval = time.real(settings.interval_seconds);
        let share = u32::try_from(index).unwrap_or(0);
        let of = u32::try_from(settings.devices.max(1)).unwrap_or(u32::MAX);
        let outbound = Outbound::new(&device, Arc::clone(&books));
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
            due_at: time.started,
            is_confused: index + settings.confused >= settings.devices,
            polls: 0,
            is_first: index == 0,
            storms: Storms::new(settings.storm_every, time.started),
            books,
            outbound,
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
        if self.is_confused && self.polls.is_multiple_of(CONFUSED_EVERY) {
            let event_id = new_event_id(&mut self.random);
            let value = self.climate.read(Metric::Humidity, at);
            let reading =
                Reading { device: &self.device, metric: Metric::Humidity, value, at, event_id: &event_id };
            self.queue.push_back(reading.confused_message(&self.place));
        }
        self.polls += 1;
        self.due_at = self.poll_at;
        // Polls missed during an outage are not made up for.
        self.poll_at = (self.poll_at + self.interval).max(now);
    }
}

impl Speaker for Sensor {
    fn turn(&mut self, now: Instant) -> Turn {
        if self.queue.is_empty() {
            if self.time.is_over(now) {
                return Turn::Done;
            }
            if self.storms.strikes(now) {
                if self.is_first {
                    self.books.timeline.mark("storm");
                }
                return Turn::Drop;
            }
            if now < self.poll_at {
                return Turn::WaitUntil(self.storms.or_storm(self.time.or_end(self.poll_at)));
            }
            self.poll(now);
        }
        let message = self.queue.pop_front().expect("a poll has just filled the queue");
        self.outbound.publish(message, self.due_at, now)
    }

    fn outbound(&mut self) -> &mut Outbound {
        &mut self.outbound
    }

    fn hello(&mut self) -> Option<Publish> {
        Some(self.status(State::Online))
    }

    fn farewell(&mut self) -> Option<Publish> {
        Some(self.status(State::Offline))
    }
}
