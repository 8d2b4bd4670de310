//! The queue as metrics: how many jobs are not done, and how old the oldest of them is.

use std::convert::Infallible;
use std::time::Duration;

use schema::clock::Clock;
use schema::metrics;
use schema::store::{Store, inference};

use crate::chore::Chore;
use crate::gauges::Measured;

/// How often the queue is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(10);

/// Measures the queue.
#[derive(Clone)]
pub struct QueueMonitor {
    /// The database.
    pub store: Store,
    /// Wall time.
    pub clock: Clock,
    /// What of it is shown.
    pub gauges: Measured,
}

impl Chore for QueueMonitor {
    const NAME: &'static str = "inference_queue";
    type Error = Infallible;

    async fn run(&mut self) -> Result<Duration, Infallible> {
        let queue =
            self.store.reads().run("inference_queue", async |conn| inference::queue(conn).await).await;
        let gauges = [metrics::inference_queue_depth(), metrics::inference_oldest_age_seconds()];
        let Some((depth, oldest_at)) = self.gauges.found(queue, gauges) else { return Ok(MEASURE_EVERY) };
        let age = oldest_at.and_then(|at| (self.clock.now() - at).to_std().ok()).unwrap_or_default();
        metrics::inference_queue_depth().set(f64::from(i32::try_from(depth).unwrap_or(i32::MAX)));
        metrics::inference_oldest_age_seconds().set(age.as_secs_f64());
        Ok(MEASURE_EVERY)
    }
}
