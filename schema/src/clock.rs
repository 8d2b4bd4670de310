//! Wall time as a value that is handed in, so that a test decides what time it is, and what of it may be believed.
//!
//! A barn's clock may be wrong by minutes or by decades, and be put right at any moment. So nothing waits for a deadline
//! that nobody can have set ([`deadline`]), nothing is deleted or given up by a clock that nothing bears out
//! ([`believable`]), and steps are noticed by the monotonic clock ([`watch`]).

pub mod believable;
pub mod deadline;
pub mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, Duration, Utc};

/// A point in wall time. The database keeps microseconds; the wire shows milliseconds.
pub type Timestamp = DateTime<Utc>;

/// The only source of wall time. Cloning shares the same clock.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    /// Microseconds since the epoch.
    Manual(Arc<AtomicI64>),
    /// From when on, and since when by tokio's time.
    Following(Timestamp, tokio::time::Instant),
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still at `start` until it is told to advance.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(start.timestamp_micros()))))
    }

    /// A clock that goes with tokio's time from `start` on: in a paused runtime it stands still until everybody waits.
    #[must_use]
    pub fn following(start: Timestamp) -> Self {
        Self(Source::Following(start, tokio::time::Instant::now()))
    }

    /// The current time, cut to the microseconds the database keeps.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let micros = match &self.0 {
            #[expect(
                clippy::disallowed_methods,
                reason = "this is the one place that reads the machine's clock"
            )]
            Source::System => Utc::now().timestamp_micros(),
            Source::Manual(micros) => micros.load(Ordering::SeqCst),
            Source::Following(start, since) => {
                let passed = i64::try_from(since.elapsed().as_micros()).unwrap_or(i64::MAX);
                start.timestamp_micros().saturating_add(passed)
            }
        };
        DateTime::from_timestamp_micros(micros).expect("the machine's clock lies within chrono's range")
    }

    /// Moves a manual clock forward.
    ///
    /// # Panics
    /// On the system clock, which nobody can move.
    pub fn advance(&self, by: Duration) {
        match &self.0 {
            Source::System | Source::Following(..) => panic!("only a manual clock can be advanced"),
            Source::Manual(micros) => {
                let step = by.num_microseconds().expect("a step fits into 292,000 years");
                micros.fetch_add(step, Ordering::SeqCst);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(DateTime::UNIX_EPOCH);
        let twin = clock.clone();
        clock.advance(Duration::seconds(5));
        assert_eq!(twin.now(), DateTime::UNIX_EPOCH + Duration::seconds(5));
        assert_eq!(twin.now(), clock.now());
    }
}
