//! Deliveries that were handed back and wait for their next attempt.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::delivery::{Delivery, Intake};
use crate::window::{Returned, Window};

/// Wait before the second attempt; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
/// The longest wait between two attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The handed-back deliveries of one source, by the time of their next attempt. Bounded by its window.
#[derive(Default)]
pub(crate) struct Redelivery {
    waiting: BinaryHeap<Waiting>,
}

struct Waiting {
    due_at: Instant,
    returned: Returned,
}

impl Redelivery {
    /// Takes what came back at `now`.
    pub(crate) fn put(&mut self, now: Instant, returned: impl Iterator<Item = Returned>) {
        self.waiting
            .extend(returned.map(|returned| Waiting { due_at: now + backoff(returned.attempt), returned }));
    }

    /// When the next attempt is due.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        self.waiting.peek().map(|next| next.due_at)
    }

    /// Delivers again what is due.
    pub(crate) fn deliver_due(&mut self, now: Instant, window: &Arc<Window>, intake: &dyn Intake) {
        while self.due_at().is_some_and(|due_at| due_at <= now) {
            let Some(Waiting { returned, .. }) = self.waiting.pop() else { return };
            let Returned { sequence, message, attempt, .. } = returned;
            intake.take(Delivery::from_window(message, attempt, Arc::clone(window), sequence));
        }
    }
}

fn backoff(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    BACKOFF_MAX.min(BACKOFF_FIRST * 2u32.pow(doublings))
}

impl Ord for Waiting {
    /// The earliest, and among equals the oldest, is the greatest: the heap gives it out first.
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |waiting: &Self| (waiting.due_at, waiting.returned.sequence);
        key(other).cmp(&key(self))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_limit() {
        assert_eq!(backoff(1), Duration::from_millis(20));
        assert_eq!(backoff(3), Duration::from_millis(80));
        assert_eq!(backoff(30), BACKOFF_MAX);
    }
}
