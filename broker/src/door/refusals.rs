//! The log of refusals: each is counted, and a flood of them does not flood the log.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use crate::stats::Refusal;

/// Lines of one reason in a minute.
const LINES_PER_MINUTE_MAX: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);

/// How often each reason was given in this minute.
#[derive(Default)]
pub(crate) struct RefusalLog {
    counts: [AtomicU32; Refusal::ALL.len()],
}

impl RefusalLog {
    /// Notes a refusal; says whether it gets a line of its own.
    pub(crate) fn has_room(&self, refusal: Refusal) -> bool {
        // Wrapping would take four billion refusals in a minute.
        self.counts[refusal as usize].fetch_add(1, Ordering::Relaxed) < LINES_PER_MINUTE_MAX
    }

    /// Says once a minute how many more there were than lines, for ever.
    pub(crate) async fn sum_up(&self) -> Infallible {
        loop {
            sleep(MINUTE).await;
            for (refusal, more) in self.begin_minute() {
                tracing::warn!(reason = refusal.as_str(), more, "refused as well in the last minute");
            }
        }
    }

    /// Forgets the last minute; says for which reasons how many lines were left out in it.
    fn begin_minute(&self) -> Vec<(Refusal, u32)> {
        let left_out = |refusal: Refusal| {
            let count = self.counts[refusal as usize].swap(0, Ordering::Relaxed);
            (refusal, count.saturating_sub(LINES_PER_MINUTE_MAX))
        };
        Refusal::ALL.map(left_out).into_iter().filter(|(_, more)| *more > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_a_minute_and_then_a_number() {
        let log = RefusalLog::default();
        let lines = (0..25).filter(|_| log.has_room(Refusal::Full)).count();
        assert_eq!(lines, 10);
        assert!(log.has_room(Refusal::Acl), "each reason has lines of its own");
        assert_eq!(log.begin_minute(), [(Refusal::Full, 15)]);
        assert!(log.has_room(Refusal::Full));
        assert_eq!(log.begin_minute(), []);
    }
}
