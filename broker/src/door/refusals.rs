//! What is refused is counted, and gets a line in the log as long as there is room.

use std::convert::Infallible;
use std::sync::Arc;

use crate::lines::Lines;
use crate::stats::{DoorStats, Refusal};

/// The refusals of a door.
pub(crate) struct Refusals {
    stats: Arc<DoorStats>,
    lines: Lines<Refusal>,
}

impl Refusals {
    pub(crate) fn new(stats: Arc<DoorStats>) -> Self {
        Self { stats, lines: Lines::default() }
    }

    /// Counts a refusal; says whether the log has room for it.
    pub(crate) fn count(&self, refusal: Refusal) -> bool {
        self.stats.count_refused(refusal);
        self.lines.has_room(refusal)
    }

    /// Says once a minute what found no room in the log, for ever.
    pub(crate) async fn sum_up(&self) -> Infallible {
        let say_more = |refusal: Refusal, more| {
            tracing::warn!(reason = refusal.as_str(), more, "refused as well in the last minute");
        };
        self.lines.sum_up(say_more).await
    }
}
