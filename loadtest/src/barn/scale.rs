//! One weighing station without pictures: a whole session of seven messages at a time, no status and no will.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use schema::clock::Timestamp;

use crate::barn::books::{Books, Outbound, Speaker};
use crate::barn::{Settings, SimulatedTime};
use crate::climate::{Climate, Metric};
use crate::device::{Message, Station, Weighing};
use crate::ids::new_event_id;
use crate::publisher::Turn;

/// The scale and camera of a station.
pub(super) struct Scale {
    station: Station,
    index: usize,
    climate: Climate,
    random: StdRng,
    time: SimulatedTime,
    interval: Duration,
    weigh_at: Instant,
    last_second: i64,
    queue: VecDeque<Message>,
    /// When what is in the queue was to be sent.
    due_at: Instant,
    outbound: Outbound,
}

impl Scale {
    pub(super) fn new(
        settings: &Settings,
        station: String,
        device: String,
        index: usize,
        time: &SimulatedTime,
        books: Arc<Books>,
    ) -> Self {
        let outbound = Outbound::new(&device, books);
        Self {
            station: Station { place: settings.place.clone(), station, device },
            index,
            climate: Climate::new(settings.seed.wrapping_mul(31).wrapping_add(index as u64), time.started_at),
            random: StdRng::from_os_rng(),
            interval: time.real(settings.weigh_seconds),
            weigh_at: time.started,
            time: time.clone(),
            last_second: i64::MIN,
            queue: VecDeque::new(),
            due_at: time.started,
            outbound,
        }
    }

    fn weigh(&mut self, now: Instant) {
        let at = self.time.at(now);
        self.due_at = self.weigh_at;
        self.weigh_at = (self.weigh_at + self.interval).max(now);
        let Some(session) = self.session_id(at) else {
            return;
        };
        let weight_kg = self.climate.read(Metric::Weight, at);
        let weighing = Weighing { session: &session, weight_kg, at };
        self.queue.extend(self.station.weigh(weighing, &mut self.random));
    }

    /// The first station names its sessions by the second, as one device type does; the others must not meet it and
    /// use UUIDs, as the other device type does. `None` when the second is already taken.
    fn session_id(&mut self, at: Timestamp) -> Option<String> {
        if self.index > 0 {
            return Some(new_event_id(&mut self.random));
        }
        let is_taken = at.timestamp() <= self.last_second;
        self.last_second = self.last_second.max(at.timestamp());
        (!is_taken).then(|| at.format("%Y%m%d_%H%M%S").to_string())
    }
}

impl Speaker for Scale {
    fn turn(&mut self, now: Instant) -> Turn {
        if self.queue.is_empty() {
            if self.time.is_over(now) {
                return Turn::Done;
            }
            if now >= self.weigh_at {
                self.weigh(now);
            }
        }
        match self.queue.pop_front() {
            Some(message) => self.outbound.publish(message, self.due_at, now),
            None => Turn::WaitUntil(self.time.or_end(self.weigh_at.max(now + Duration::from_millis(1)))),
        }
    }

    fn outbound(&mut self) -> &mut Outbound {
        &mut self.outbound
    }
}
