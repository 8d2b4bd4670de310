//! What a scale weighed on the days that are over, as fast as it is taken.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::barn::books::{Books, Outbound};
use crate::flock::play::History;
use crate::mqtt::Refused;
use crate::publisher::{Source, Turn};
use crate::report;

/// Days of the past between two lines about it.
const TOLD_EVERY_DAYS: usize = 5;

/// The past of one scale.
pub(super) struct Past {
    history: History,
    device: String,
    books: Arc<Books>,
    outbound: Outbound,
    /// Whether this scale tells how far the past is.
    is_teller: bool,
    days_left: usize,
}

impl Past {
    pub(super) fn new(history: History, device: &str, books: Arc<Books>, is_teller: bool) -> Self {
        let outbound = Outbound::new(device, Arc::clone(&books));
        let days_left = history.days_left();
        Self { history, device: device.to_owned(), books, outbound, is_teller, days_left }
    }

    fn tell(&mut self) {
        let days_left = self.history.days_left();
        if self.is_teller && days_left < self.days_left && days_left.is_multiple_of(TOLD_EVERY_DAYS) {
            report::note(format!("the flock's past: {days_left} days to go"));
        }
        self.days_left = days_left;
    }
}

impl Source for Past {
    fn turn(&mut self, now: Instant) -> Turn {
        let message = self.history.message();
        self.tell();
        match message {
            Some(message) => self.outbound.publish(message, now, now),
            None => Turn::Done,
        }
    }

    fn acknowledged(&mut self, tags: &[u64]) -> Result<()> {
        self.outbound.acknowledged(tags)
    }

    fn refused(&mut self, tag: u64, code: u8) -> Result<()> {
        self.outbound.refused(tag, code)
    }

    fn left_open(&mut self, tags: &[u64]) -> Result<()> {
        self.outbound.left_open(tags)
    }

    fn connected(&mut self, took: Duration) {
        self.books.timeline.connected(took);
    }

    fn gives_up(&mut self, refused: Refused) -> bool {
        self.books.shut_out(&self.device, refused.code);
        true
    }
}
