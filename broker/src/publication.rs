//! A committed message on its way to those who subscribed.

use std::sync::Arc;

use bytes::Bytes;
use schema::clock::Timestamp;

use crate::message::Qos;

/// A message as subscribers get it. Never changed once it was made, so that all of them share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The topic it was published to.
    pub topic: Arc<str>,
    /// The body.
    pub payload: Bytes,
    /// How it was published; a subscriber gets it at this or at a lower one.
    pub qos: Qos,
    /// It was published to be retained.
    pub retain: bool,
    /// Properties of MQTT 5 that travel with it unaltered, as they are encoded: payload format, content type, response
    /// topic, correlation data, user properties.
    pub carried: Bytes,
    /// Nobody wants it after this.
    pub expires_at: Option<Timestamp>,
    /// The session that published it, for subscribers who do not want their own messages; zero for one of an earlier
    /// process.
    pub publisher: u64,
}

/// Bytes a publication costs beside topic, payload and properties.
const OVERHEAD_BYTES: usize = 160;

impl Publication {
    /// Bytes it takes in memory.
    #[must_use]
    pub fn cost_bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + self.carried.len() + OVERHEAD_BYTES
    }

    /// Whether it is of no use any more.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }

    /// Seconds it is still of use, as a subscriber is told: at least one, and less by the whole seconds it has waited.
    #[must_use]
    pub fn expiry_seconds(&self, now: Timestamp) -> Option<u32> {
        let left = self.expires_at? - now;
        let seconds = left.num_seconds() + i64::from(left.subsec_nanos() > 0);
        Some(u32::try_from(seconds.max(1)).unwrap_or(u32::MAX))
    }
}
