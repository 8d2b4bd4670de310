//! A message in the engine's hands, and the promise that goes with it: done, or handed back.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::message::Message;
use crate::window::{Turn, Window};

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Committed: acknowledged and shown to subscribers.
    Done,
    /// Refused for good and recorded: acknowledged, shown to nobody.
    Rejected,
    /// Dropped: it is delivered again.
    HandedBack,
}

/// A message that must be settled: [`Delivery::done`] after the commit, [`Delivery::reject`] after a refusal was
/// recorded. Dropping it hands it back, and it is delivered again after a short wait.
pub struct Delivery {
    message: Message,
    attempt: u32,
    receipt: Option<Receipt>,
}

/// Where every message of the door and of the link goes.
pub trait Intake: Send + Sync {
    /// Takes a message without waiting: what may be in flight is bounded by the credits of its source.
    fn take(&self, delivery: Delivery);

    /// A look at a message that an external broker has sent, before it waits for its turn to be taken. It may come again.
    fn overhear(&self, _topic: &str, _payload: &[u8]) {}
}

/// Who learns how a delivery ended.
enum Receipt {
    Window { window: Arc<Window>, turn: Turn },
    Callback(Box<dyn FnOnce(Settlement) + Send + Sync>),
}

impl Delivery {
    /// A delivery that reports its end to `on_settled`: for sources outside this crate, and for tests.
    pub fn with_callback(
        message: Message,
        on_settled: impl FnOnce(Settlement) + Send + Sync + 'static,
    ) -> Self {
        Self { message, attempt: 0, receipt: Some(Receipt::Callback(Box::new(on_settled))) }
    }

    pub(crate) fn from_window(message: Message, attempt: u32, window: Arc<Window>, turn: Turn) -> Self {
        Self { message, attempt, receipt: Some(Receipt::Window { window, turn }) }
    }

    /// How often this message was handed back before.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether an earlier message of the same device was handed back and is still to come: applying this one would turn
    /// their order round. Whoever is about to apply it drops it instead, and it comes again after the other.
    #[must_use]
    pub fn is_out_of_turn(&self) -> bool {
        match &self.receipt {
            Some(Receipt::Window { window, turn }) => window.is_out_of_turn(*turn, &self.message.topic),
            Some(Receipt::Callback(_)) | None => false,
        }
    }

    /// Its effect is committed: acknowledge it and show it to subscribers.
    pub fn done(mut self) {
        self.settle(Settlement::Done);
    }

    /// It was refused for good and that is recorded: acknowledge it, but show it to nobody.
    pub fn reject(mut self) {
        self.settle(Settlement::Rejected);
    }

    fn settle(&mut self, settlement: Settlement) {
        match self.receipt.take() {
            Some(Receipt::Window { window, turn: Turn { sequence, .. } }) => match settlement {
                Settlement::Done => window.close(sequence, &self.message, false),
                Settlement::Rejected => window.close(sequence, &self.message, true),
                Settlement::HandedBack => window.hand_back(sequence, self.message.clone(), self.attempt + 1),
            },
            Some(Receipt::Callback(on_settled)) => on_settled(settlement),
            None => {}
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.settle(Settlement::HandedBack);
    }
}

impl Deref for Delivery {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("topic", &self.message.topic)
            .field("payload_bytes", &self.message.payload.len())
            .field("verdict", &self.message.verdict)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
