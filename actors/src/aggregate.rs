//! The aggregation: every minute, the closed buckets and those a late reading changed.

use std::time::Duration;

use schema::clock::Clock;
use schema::store::{Store, StoreError, aggregate};

use crate::chore::Chore;

/// Seconds after the full minute at which a pass starts, so that its last readings are committed.
const AFTER_THE_MINUTE_SECONDS: i64 = 2;

/// The chore.
#[derive(Clone)]
pub struct Aggregation {
    /// The database.
    pub store: Store,
    /// Wall time.
    pub clock: Clock,
    /// Whether closed buckets go to the cloud.
    pub is_emitting: bool,
}

impl Chore for Aggregation {
    const NAME: &'static str = "aggregate";
    type Error = StoreError;

    async fn run(&mut self) -> Result<Duration, StoreError> {
        let pass = aggregate::pass(&self.store, self.clock.now(), self.is_emitting).await?;
        if pass.is_some_and(|pass| pass.is_behind) {
            return Ok(Duration::ZERO);
        }
        let into_the_minute = self.clock.now().timestamp().rem_euclid(60);
        let wait = (60 + AFTER_THE_MINUTE_SECONDS - into_the_minute).rem_euclid(60);
        Ok(Duration::from_secs(wait.unsigned_abs().max(1)))
    }
}
