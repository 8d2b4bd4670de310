//! What a scale weighed on the days that are over, as fast as it is taken.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::barn::books::{Books, Outbound};
use crate::flock::play::History;
use crate::mqtt::Refused;
use crate::publisher::{Source, Turn};

/// The past of one scale.
pub(super) struct Past {
    history: History,
    device: String,
    books: Arc<Books>,
    outbound: Outbound,
}

impl Past {
    pub(super) fn new(history: History, device: &str, books: Arc<Books>) -> Self {
        let outbound = Outbound::new(device, Arc::clone(&books));
        Self { history, device: device.to_owned(), books, outbound }
    }
}

impl Source for Past {
    fn turn(&mut self, now: Instant) -> Turn {
        match self.history.message() {
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
