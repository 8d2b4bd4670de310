//! What a scale weighed on the days that are over, as fast as it is taken.

use std::sync::Arc;
use std::time::Instant;

use crate::barn::books::{Books, Outbound, Speaker};
use crate::flock::play::History;
use crate::publisher::Turn;
use crate::report;

/// Days of the past between two lines about it.
const TOLD_EVERY_DAYS: usize = 5;

/// The past of one scale.
pub(super) struct Past {
    history: History,
    outbound: Outbound,
    /// Whether this scale tells how far the past is.
    is_teller: bool,
    days_left: usize,
}

impl Past {
    pub(super) fn new(history: History, device: &str, books: Arc<Books>, is_teller: bool) -> Self {
        let days_left = history.days_left();
        Self { history, outbound: Outbound::new(device, books), is_teller, days_left }
    }

    fn tell(&mut self) {
        let days_left = self.history.days_left();
        if self.is_teller && days_left < self.days_left && days_left.is_multiple_of(TOLD_EVERY_DAYS) {
            report::note(format!("the flock's past: {days_left} days to go"));
        }
        self.days_left = days_left;
    }
}

impl Speaker for Past {
    fn turn(&mut self, now: Instant) -> Turn {
        let message = self.history.message();
        self.tell();
        match message {
            Some(message) => self.outbound.publish(message, now, now),
            None => Turn::Done,
        }
    }

    fn outbound(&mut self) -> &mut Outbound {
        &mut self.outbound
    }
}
