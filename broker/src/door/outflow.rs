//! The outgoing side of a connection: writes what its session has for the client, and what comes live from the router.

use std::collections::{HashMap, VecDeque};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use bytes::BytesMut;
use schema::clock::Timestamp;

use crate::door::journal::Lsn;
use crate::door::packet::{self, ConnectProperties, Outgoing, Reason, Version};
use crate::door::queue::{Manner, Step, Written};
use crate::door::session::{Left, Session};
use crate::fanout::{Fanout, Feed, Forward, RouterGone};
use crate::message::Qos;
use crate::publication::Publication;
use crate::stats::{DoorStats, QueueDrop};

/// Bytes that may wait for a slow reader before it gets nothing more.
const WAITING_BYTES_MAX: usize = 256 << 10;
/// Topics that are sent by a number to a client that allows it.
const ALIASES_MAX: u16 = 32;
/// Bytes of the longest topic that is sent by a number: what has one is remembered as long as the connection lasts.
const ALIASED_BYTES_MAX: usize = 1 << 10;
/// Bytes of the largest packet of the protocol. A message that came in over one version may be longer in the other.
const PACKET_BYTES_LIMIT: usize = 268_435_460;
/// Live messages that are recognized when they match a second filter.
const RECENT_MAX: usize = 256;

/// What a connection sends.
pub(crate) struct Outflow {
    wire: Wire,
    in_flight_max: usize,
    feed: Option<Box<dyn Feed>>,
    /// Numbers of the live messages that came last.
    recent: VecDeque<u64>,
}

/// How messages are written for this client.
struct Wire {
    version: Version,
    packet_bytes_max: usize,
    aliases_max: u16,
    aliases: HashMap<Arc<str>, NonZeroU16>,
}

impl Outflow {
    pub(crate) fn new(version: Version, properties: &ConnectProperties, in_flight_max: usize) -> Self {
        let wire = Wire {
            version,
            packet_bytes_max: packet_bytes_max(properties),
            aliases_max: properties.topic_alias_max.min(ALIASES_MAX),
            aliases: HashMap::new(),
        };
        let receive_max = properties.receive_max.map_or(usize::MAX, |max| usize::from(max.get()));
        Self { wire, in_flight_max: in_flight_max.min(receive_max), feed: None, recent: VecDeque::new() }
    }

    /// Bytes of the largest packet the client takes.
    pub(crate) fn packet_bytes_max(&self) -> usize {
        self.wire.packet_bytes_max
    }

    /// Whether another message may be written now.
    pub(crate) fn may_send(outbox: &BytesMut) -> bool {
        outbox.len() < WAITING_BYTES_MAX
    }

    /// Writes what the session has for the client, with the journal stored up to `stored`; says what is left.
    pub(crate) fn send(
        &mut self,
        session: &Session,
        outbox: &mut BytesMut,
        now: Timestamp,
        stored: Lsn,
    ) -> Left {
        let wire = &mut self.wire;
        session.send(now, self.in_flight_max, stored, |step| {
            if !Self::may_send(outbox) {
                return Written::NotNow;
            }
            match step {
                Step::Release { packet_id } => {
                    packet::put_pubrel(outbox, wire.version, packet_id, Reason::SUCCESS);
                    Written::Yes
                }
                Step::Publish { publication, manner, packet_id, is_repeated } => {
                    let head = Head { qos: manner.qos, packet_id, dup: is_repeated, retain: manner.retain };
                    wire.put(outbox, publication, head, &manner.subscription_ids, now)
                }
            }
        })
    }

    /// Writes a live message that the router shows, in this manner.
    pub(crate) fn send_live(
        &mut self,
        forward: &Forward,
        manner: &Manner,
        outbox: &mut BytesMut,
        now: Timestamp,
        stats: &DoorStats,
    ) {
        let Forward { number, publication } = forward;
        if self.recent.contains(number) || publication.is_expired(now) {
            return;
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(*number);
        let head = Head { qos: manner.qos, packet_id: 0, dup: false, retain: manner.retain };
        let written = self.wire.put(outbox, publication, head, &manner.subscription_ids, now);
        if let Written::Never(reason) = written {
            stats.count_queue_dropped(reason);
        }
    }

    /// Asks the router for a filter.
    pub(crate) async fn listen(&mut self, filter: &str, router: &dyn Fanout) -> Result<(), RouterGone> {
        let mut feed = match self.feed.take() {
            Some(feed) => feed,
            None => router.open().await?,
        };
        let outcome = feed.subscribe(filter).await;
        self.feed = Some(feed);
        outcome
    }

    /// Does not ask the router for a filter any more.
    pub(crate) async fn unlisten(&mut self, filter: &str) {
        if let Some(feed) = &mut self.feed {
            // A dead router is noticed, and replaced, when the feed is read.
            let _ = feed.unsubscribe(filter).await;
        }
    }

    /// Asks the router for these filters and no others.
    pub(crate) async fn listen_again(
        &mut self,
        filters: &[Arc<str>],
        router: &dyn Fanout,
    ) -> Result<(), RouterGone> {
        self.feed = None;
        self.recent.clear();
        for filter in filters {
            self.listen(filter, router).await?;
        }
        Ok(())
    }

    /// Waits for the next live message; without a live subscription for ever. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Forward, RouterGone> {
        match &mut self.feed {
            Some(feed) => feed.next().await,
            None => std::future::pending().await,
        }
    }
}

fn packet_bytes_max(properties: &ConnectProperties) -> usize {
    let asked = properties.packet_bytes_max.map_or(usize::MAX, |max| max.get() as usize);
    asked.min(PACKET_BYTES_LIMIT)
}

/// The part of a message that differs from sending to sending.
#[derive(Clone, Copy)]
struct Head {
    qos: Qos,
    packet_id: u16,
    dup: bool,
    retain: bool,
}

impl Wire {
    fn put(
        &mut self,
        outbox: &mut BytesMut,
        publication: &Publication,
        head: Head,
        subscription_ids: &[NonZeroU32],
        now: Timestamp,
    ) -> Written {
        let alias = self.alias(&publication.topic);
        let Head { qos, packet_id, dup, retain } = head;
        let outgoing = Outgoing {
            topic: &publication.topic,
            alias,
            payload: &publication.payload,
            qos,
            packet_id,
            dup,
            retain,
            expiry_seconds: publication.expiry_seconds(now),
            carried: &publication.carried,
            subscription_ids,
        };
        if packet::publish_bytes(self.version, &outgoing) > self.packet_bytes_max {
            return Written::Never(QueueDrop::PacketSize);
        }
        packet::put_publish(outbox, self.version, &outgoing);
        if let Some((alias, false)) = alias {
            self.aliases.insert(Arc::clone(&publication.topic), alias);
        }
        Written::Yes
    }

    /// The number of a topic, and whether the client knows it; `None` when it has none.
    fn alias(&self, topic: &Arc<str>) -> Option<(NonZeroU16, bool)> {
        if self.aliases_max == 0 || topic.len() > ALIASED_BYTES_MAX {
            return None;
        }
        match self.aliases.get(topic) {
            Some(alias) => Some((*alias, true)),
            None => {
                let next = u16::try_from(self.aliases.len()).ok()?.checked_add(1)?;
                NonZeroU16::new(next).filter(|next| next.get() <= self.aliases_max).map(|next| (next, false))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_topic_is_not_remembered_for_an_alias() {
        let wire = Wire {
            version: Version::V5,
            packet_bytes_max: usize::MAX,
            aliases_max: ALIASES_MAX,
            aliases: HashMap::new(),
        };
        let has_alias = |bytes: usize| wire.alias(&Arc::from("x".repeat(bytes))).is_some();
        assert!(has_alias(ALIASED_BYTES_MAX));
        assert!(!has_alias(ALIASED_BYTES_MAX + 1));
    }
}
