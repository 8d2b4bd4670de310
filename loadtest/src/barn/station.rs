//! One weighing station with pictures, of either kind: it weighs a bird now and then, and writes down what went through.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;

use schema::clock::Timestamp;

use crate::barn::books::Lines;
use crate::barn::{Birds, Settings, SimulatedTime};
use crate::device::{Station, Weighing};
use crate::flock::truth::scale_kg;
use crate::ids::new_event_id;
use crate::render::random_weight_kg;
use crate::station::{Access, AnyStation, Weighed};

/// How soon a device begins again when a capture failed.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// A station at work.
pub(super) struct Rounds {
    station: AnyStation,
    names_sessions_by_second: bool,
    /// The birds that step on it, and what it says too much of them; any birds without.
    birds: Option<(Arc<Birds>, f64)>,
    random: StdRng,
    time: SimulatedTime,
    interval: Duration,
    events: Lines,
    sessions: Lines,
}

impl Rounds {
    pub(super) fn new(
        settings: &Settings,
        station: Station,
        access: &Access,
        index: usize,
        time: &SimulatedTime,
        (events, sessions): (Lines, Lines),
    ) -> Self {
        Self {
            station: AnyStation::new(index, station, access, settings.bad_share),
            // Only one station may: two that weigh in the same second would share a session.
            names_sessions_by_second: index == 0,
            birds: None,
            random: StdRng::from_os_rng(),
            interval: time.real(settings.weigh_seconds),
            time: time.clone(),
            events,
            sessions,
        }
    }

    /// The same at a place where these birds step on a scale that says so much too much of them, as a share.
    pub(super) fn of(self, birds: Arc<Birds>, drift: f64) -> Self {
        Self { birds: Some((birds, drift)), ..self }
    }

    /// Weighs until the time is over or `stop` becomes true; a weighing that is under way then is not finished.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<()> {
        let outcome = tokio::select! {
            outcome = self.weigh_on() => outcome,
            _ = stop.wait_for(|is_stopped| *is_stopped) => Ok(()),
        };
        // A broker that is away is not waited for.
        drop(tokio::time::timeout(AGAIN_AFTER, self.station.close()).await);
        outcome
    }

    async fn weigh_on(&mut self) -> Result<()> {
        let mut weigh_at = self.time.started;
        loop {
            tokio::time::sleep_until(self.time.or_end(weigh_at).into()).await;
            let now = Instant::now();
            if self.time.is_over(now) {
                return Ok(());
            }
            let weighed = self.weigh(self.time.at(now)).await;
            self.write_down(&weighed)?;
            // Weighings missed during an outage are not made up for, and a second names one session.
            weigh_at = (weigh_at + self.interval).max(now + self.time.real(1.0)).max(Instant::now());
        }
    }

    /// One bird, as often as its capture fails: new ids, the same session.
    async fn weigh(&mut self, at: Timestamp) -> Weighed {
        let session = self.session_id(at);
        let weight_kg = match &self.birds {
            Some((birds, drift)) => {
                scale_kg(birds.flock.bird_kg(birds.age_days, &mut self.random) * (1.0 + drift))
            }
            None => random_weight_kg(&mut self.random),
        };
        let weighing = Weighing { session: &session, weight_kg, at };
        loop {
            match self.station.weigh(weighing).await {
                Ok(course) => return course.weighed,
                Err(_) => tokio::time::sleep(AGAIN_AFTER).await,
            }
        }
    }

    fn session_id(&mut self, at: Timestamp) -> String {
        if self.names_sessions_by_second {
            at.format("%Y%m%d_%H%M%S").to_string()
        } else {
            new_event_id(&mut self.random)
        }
    }

    fn write_down(&self, weighed: &Weighed) -> Result<()> {
        self.events.append(weighed.event_ids.iter().map(String::as_str))?;
        let line = serde_json::to_string(weighed).context("write a weighing as JSON")?;
        self.sessions.append(std::iter::once(line.as_str()))
    }
}
