//! How one actor reaches another across restarts of the other.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use ractor::{ActorRef, Message};

/// The place of an actor in the tree. Whoever holds the address reaches whichever incarnation lives there now.
pub struct Address<M: Message> {
    current: Arc<ArcSwapOption<ActorRef<M>>>,
}

impl<M: Message> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { current: Arc::clone(&self.current) }
    }
}

impl<M: Message> Default for Address<M> {
    fn default() -> Self {
        Self { current: Arc::new(ArcSwapOption::empty()) }
    }
}

impl<M: Message> Address<M> {
    /// Sends a message and says whether a living actor took it. A message that nobody takes is dropped, and with it
    /// the deliveries inside, which are thereby handed back.
    pub fn cast(&self, message: M) -> bool {
        match self.current.load().as_deref() {
            Some(actor) => actor.send_message(message).is_ok(),
            None => false,
        }
    }

    /// Points the address at a new incarnation.
    pub fn set(&self, actor: ActorRef<M>) {
        self.current.store(Some(Arc::new(actor)));
    }
}
