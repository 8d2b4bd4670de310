//! Live fan-out to subscribers: what the door asks of whoever routes messages. Best effort, after the commit.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use schema::wire::topic::ROOT;

use crate::delivery::Message;

/// The router is not there any more; opening a new feed finds or starts another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the router of live messages is gone")]
pub struct RouterGone;

/// Routes committed messages to live subscribers.
#[async_trait]
pub trait Fanout: Send + Sync + fmt::Debug {
    /// Whether anybody subscribes at all: one load, so that publish-only traffic costs nothing.
    fn is_wanted(&self) -> bool;

    /// Routes a message without waiting; when the router is behind, the message is not shown.
    fn publish(&self, message: &Message);

    /// Opens the feed of one subscriber.
    async fn open(&self) -> Result<Box<dyn Feed>, RouterGone>;
}

/// What one subscriber gets to see. Dropping it ends its subscriptions.
#[async_trait]
pub trait Feed: Send {
    /// Adds a filter; everything committed from now on that matches comes by.
    async fn subscribe(&mut self, filter: &str) -> Result<(), RouterGone>;

    /// Removes a filter.
    async fn unsubscribe(&mut self, filter: &str) -> Result<(), RouterGone>;

    /// The next message; dropping the future loses nothing.
    async fn next(&mut self) -> Result<Forward, RouterGone>;
}

/// A message on its way to a subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The topic it was published to.
    pub topic: Bytes,
    /// The body.
    pub payload: Bytes,
}

/// Whether a topic may reach the router at all.
pub(crate) fn is_routable(topic: &str) -> bool {
    topic.starts_with(ROOT) && topic.is_ascii()
}
