//! A published message, and what the door knows about it.

use std::sync::Arc;

use bytes::Bytes;
use schema::clock::Timestamp;
use schema::wire::topic::Topic;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::gatekeeper::Identity;

/// How a message was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    /// Nothing is acknowledged.
    AtMostOnce,
    /// PUBACK after the commit.
    AtLeastOnce,
    /// PUBREC after the commit.
    ExactlyOnce,
}

/// There is no broker to publish to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the broker is away, so that nothing can be published")]
pub struct NotPublished;

/// What tells a message at QoS 2 from another one under the same packet id: a device that forgot which ids it used may begin
/// anew with one that is not released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// The one of a message with this topic and body. It is the same in every program, since it is stored.
    #[must_use]
    pub fn of(topic: &str, payload: &[u8]) -> Self {
        // No topic has a NUL.
        let digest = Sha256::new().chain_update(topic).chain_update([0]).chain_update(payload).finalize();
        Self(digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

/// What the door already knows about a message. Everything but [`Verdict::Admitted`] only wants to be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing speaks against it.
    Admitted,
    /// The topic is outside the device's scope.
    AclDenied,
    /// The message is larger than the limit; its payload was not kept.
    TooLarge {
        /// Bytes of the payload as it was announced.
        size_bytes: usize,
    },
}

/// A published message.
#[derive(Clone, Debug)]
pub struct Message {
    /// The topic as it was sent.
    pub topic: Arc<str>,
    /// What the topic means; `None` when it means nothing here.
    pub parsed: Option<Arc<Topic>>,
    /// The body; not opened.
    pub payload: Bytes,
    /// How it was published.
    pub qos: Qos,
    /// From a device: to be retained. From an external broker: a retained copy, delivered after a subscribe.
    pub retain: bool,
    /// When it arrived, for latencies.
    pub received_at: Instant,
    /// When it arrived, in wall time.
    pub arrived_at: Timestamp,
    /// The device behind the connection; `None` when anonymous or from an external broker.
    pub identity: Option<Identity>,
    /// What the door already knows.
    pub verdict: Verdict,
}
