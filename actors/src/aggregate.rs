//! The aggregation: every minute, the closed buckets and those a late reading changed.

use std::time::Duration;

use schema::clock::Timestamp;
use schema::clock::watch::ClockWatch;
use schema::store::aggregate::{self, STEP_MAX, STEP_MIN, Scope};
use schema::store::{Store, StoreError};

use crate::chore::Chore;

/// Seconds after the full minute at which a pass starts, so that its last readings are committed.
const AFTER_THE_MINUTE_SECONDS: i64 = 2;

/// The chore.
#[derive(Clone)]
pub struct Aggregation {
    store: Store,
    watch: ClockWatch,
    /// Whether closed buckets go to the cloud.
    is_emitting: bool,
    /// How much of the past one pass covers.
    step: chrono::Duration,
    /// Steps of the clock that are reckoned with.
    steps: usize,
    /// Up to which time what came in was looked at, since the clock was set last. `None` before the first pass.
    looked_until: Option<Timestamp>,
    /// The same for the stretches of time that a step of the clock has ended since the last pass.
    ended: Vec<(Timestamp, Timestamp)>,
    /// What the last pass has left for the next one.
    horizon: Option<i64>,
}

impl Aggregation {
    /// An aggregation that begins where the last pass of any engine has ended.
    #[must_use]
    pub fn new(store: Store, watch: ClockWatch, is_emitting: bool) -> Self {
        Self {
            store,
            watch,
            is_emitting,
            step: STEP_MAX,
            steps: 0,
            looked_until: None,
            ended: Vec::new(),
            horizon: None,
        }
    }

    /// Notes which stretches of time have ended because the clock was set.
    fn follow_steps(&mut self) {
        let steps = self.watch.steps_after(self.steps);
        self.steps += steps.len();
        for step in steps {
            if let Some(looked_until) = self.looked_until {
                self.ended.push((looked_until.min(step.from), step.from));
                self.looked_until = Some(step.to);
            }
        }
    }
}

impl Chore for Aggregation {
    const NAME: &'static str = "aggregate";
    type Error = StoreError;

    async fn run(&mut self) -> Result<Duration, StoreError> {
        self.follow_steps();
        let now = self.watch.now();
        let scope = Scope {
            newest_seen: self.watch.newest_seen(),
            looked_until: self.looked_until,
            ended: &self.ended,
            horizon: self.horizon,
            step: self.step,
            is_emitting: self.is_emitting,
            ..Scope::at(now)
        };
        let pass = match aggregate::pass(&self.store, scope).await {
            Ok(pass) => pass,
            Err(error) => {
                if error.is_timeout() {
                    self.step = (self.step / 2).max(STEP_MIN);
                }
                return Err(error);
            }
        };
        let Some(pass) = pass else { return Ok(until_the_next_minute(now)) };
        self.step = (self.step * 2).min(STEP_MAX);
        self.ended.clear();
        self.looked_until = Some(now);
        self.horizon = Some(pass.horizon);
        Ok(if pass.is_behind { Duration::ZERO } else { until_the_next_minute(self.watch.now()) })
    }
}

fn until_the_next_minute(now: Timestamp) -> Duration {
    let into_the_minute = now.timestamp().rem_euclid(60);
    let wait = (60 + AFTER_THE_MINUTE_SECONDS - into_the_minute).rem_euclid(60);
    Duration::from_secs(wait.unsigned_abs().max(1))
}
