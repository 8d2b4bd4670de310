//! Live fan-out to subscribers at quality 0 by a router: what the door asks of it. Best effort, after the commit. An option:
//! without a router the door's own queues do it.

use std::fmt;

use async_trait::async_trait;

use crate::publication::Publication;

/// The router is not there any more, or takes no more; opening a new feed finds or starts another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the router of live messages is gone or full")]
pub struct RouterGone;

/// Routes committed messages to live subscribers.
#[async_trait]
pub trait Fanout: Send + Sync + fmt::Debug {
    /// Whether anybody subscribes at all: one load, so that publish-only traffic costs nothing.
    fn is_wanted(&self) -> bool;

    /// Routes a message without waiting; when the router is behind, the message is not shown.
    fn publish(&self, publication: &Publication);

    /// Opens the feed of one subscriber.
    async fn open(&self) -> Result<Box<dyn Feed>, RouterGone>;

    /// Looks after the router until it is dropped: replaces it when it does not answer, or has grown too large.
    async fn watch(&self);
}

/// What one subscriber gets to see. Dropping it ends its subscriptions.
#[async_trait]
pub trait Feed: Send {
    /// Adds a filter; everything committed from now on that matches comes by.
    async fn subscribe(&mut self, filter: &str) -> Result<(), RouterGone>;

    /// Removes a filter.
    async fn unsubscribe(&mut self, filter: &str) -> Result<(), RouterGone>;

    /// The next message, which may be of a filter that was removed, and comes once for each filter it matches. Dropping
    /// the future loses nothing.
    async fn next(&mut self) -> Result<Forward, RouterGone>;
}

/// A message on its way to a live subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Its number in the order it was routed: the same for each filter it matches.
    pub number: u64,
    /// The message.
    pub publication: Publication,
}
