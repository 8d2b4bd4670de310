//! The outgoing side of a connection: writes what its session has for the client, and what comes live from the router.

use std::collections::{HashMap, VecDeque};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use schema::clock::Timestamp;

use crate::door::journal::Lsn;
use crate::door::outbox::Outbox;
use crate::door::packet::{self, ConnectProperties, Outgoing, Reason, Version};
use crate::door::queue::{Manner, Step, Written};
use crate::door::session::{Left, Session};
use crate::fanout::{Fanout, Feed, Forward, RouterGone};
use crate::message::Qos;
use crate::publication::Publication;
use crate::share::Permit;
use crate::stats::{DoorStats, QueueDrop};
use crate::store::Owner;

/// Bytes that may wait for a slow reader before it gets no further message.
const WAITING_BYTES_MAX: usize = 64 << 10;
/// A payload of more bytes is not copied for each reader.
const COPIED_BYTES_MAX: usize = 8 << 10;
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
    /// Payloads that wait in the outbox. They count as queued until they are sent: a client may acknowledge what it never
    /// read, and its queue holds it no more.
    unsent: Permit<Owner>,
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
    pub(crate) fn new(
        version: Version,
        properties: &ConnectProperties,
        in_flight_max: usize,
        unsent: Permit<Owner>,
    ) -> Self {
        let wire = Wire {
            version,
            packet_bytes_max: packet_bytes_max(properties),
            aliases_max: properties.topic_alias_max.min(ALIASES_MAX),
            aliases: HashMap::new(),
        };
        let receive_max = properties.receive_max.map_or(usize::MAX, |max| usize::from(max.get()));
        Self {
            wire,
            in_flight_max: in_flight_max.min(receive_max),
            unsent,
            feed: None,
            recent: VecDeque::new(),
        }
    }

    /// Bytes of the largest packet the client takes.
    pub(crate) fn packet_bytes_max(&self) -> usize {
        self.wire.packet_bytes_max
    }

    /// Whether another message may be written now.
    pub(crate) fn may_send(outbox: &Outbox) -> bool {
        outbox.len() < WAITING_BYTES_MAX
    }

    /// Writes what the session has for the client, with the journal stored up to `stored`; says what is left.
    pub(crate) fn send(
        &mut self,
        session: &Session,
        outbox: &mut Outbox,
        now: Timestamp,
        stored: Lsn,
    ) -> Left {
        let wire = &mut self.wire;
        let left = session.send(now, self.in_flight_max, stored, |step| {
            if !Self::may_send(outbox) {
                return Written::NotNow;
            }
            match step {
                Step::Release { packet_id } => {
                    packet::put_pubrel(outbox.tail(), wire.version, packet_id, Reason::SUCCESS);
                    Written::Yes
                }
                Step::Publish { publication, manner, packet_id, is_repeated } => {
                    let head = Head { qos: manner.qos, packet_id, dup: is_repeated, retain: manner.retain };
                    wire.put(outbox, publication, head, &manner.subscription_ids, now)
                }
            }
        });
        self.unsent.resize_anyway(outbox.shared_bytes());
        left
    }

    /// Writes a live message that the router shows, in this manner.
    pub(crate) fn send_live(
        &mut self,
        forward: &Forward,
        manner: &Manner,
        outbox: &mut Outbox,
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
        outbox: &mut Outbox,
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
        if publication.payload.len() > COPIED_BYTES_MAX {
            packet::put_publish_head(outbox.tail(), self.version, &outgoing);
            outbox.share(publication.payload.clone());
        } else {
            packet::put_publish(outbox.tail(), self.version, &outgoing);
        }
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
    use bytes::{Buf, Bytes};

    use super::*;
    use crate::door::doubles::{Bench, client};
    use crate::door::queue::Parcel;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn wire(version: Version, packet_bytes_max: usize) -> Wire {
        Wire { version, packet_bytes_max, aliases_max: ALIASES_MAX, aliases: HashMap::new() }
    }

    fn publication(payload_bytes: usize) -> Publication {
        Publication {
            topic: Arc::from("t"),
            payload: Bytes::from(vec![0; payload_bytes]),
            qos: Qos::AtLeastOnce,
            retain: false,
            carried: Bytes::new(),
            expires_at: None,
            publisher: 0,
        }
    }

    #[test]
    fn a_long_topic_is_not_remembered_for_an_alias() {
        let wire = wire(Version::V5, usize::MAX);
        let has_alias = |bytes: usize| wire.alias(&Arc::from("x".repeat(bytes))).is_some();
        assert!(has_alias(ALIASED_BYTES_MAX));
        assert!(!has_alias(ALIASED_BYTES_MAX + 1));
    }

    #[test]
    fn a_message_that_no_packet_of_the_other_version_holds_is_not_sent_in_it() {
        let put = |version, publication: &Publication| {
            let mut outbox = Outbox::default();
            let head = Head { qos: Qos::AtLeastOnce, packet_id: 1, dup: false, retain: false };
            wire(version, packet_bytes_max(&ConnectProperties::default())).put(
                &mut outbox,
                publication,
                head,
                &[],
                NOW,
            )
        };
        // As large as a PUBLISH of 3.1.1 may be: the one of version 5 has a byte more.
        let largest = publication((1 << 28) - 1 - 5);
        assert_eq!(put(Version::V4, &largest), Written::Yes);
        assert_eq!(put(Version::V5, &largest), Written::Never(QueueDrop::PacketSize));
    }

    #[test]
    fn what_was_acknowledged_unread_counts_as_long_as_it_waits_in_the_outbox() {
        let bench = Bench::new();
        let session = Session::new(&bench.sessions, 1, client("c"), 0);
        let mut outflow = Outflow::new(Version::V4, &ConnectProperties::default(), 10, session.unsent());
        let mut outbox = Outbox::default();
        let large = Arc::new(publication(600_000));
        let offer = || {
            let manner = Manner { qos: Qos::AtLeastOnce, retain: false, subscription_ids: Vec::new() };
            session.offer(Parcel { publication: Arc::clone(&large), manner }, NOW).unseen();
            bench.inflow.stats.queue_dropped(QueueDrop::OwnerBytes)
        };
        assert_eq!(offer(), 0);
        let _ = outflow.send(&session, &mut outbox, NOW, Lsn::START);
        assert_eq!(outbox.shared_bytes(), 600_000);
        session.acknowledged(1).unwrap();
        assert_eq!(offer(), 1, "two of them are more than a third of what may be queued");
        outbox.advance(outbox.remaining());
        let _ = outflow.send(&session, &mut outbox, NOW, Lsn::START);
        assert_eq!(offer(), 1);
    }

    #[test]
    fn readers_of_one_large_message_share_it() {
        let large = publication(1 << 20);
        let [mut first, mut second] = [Version::V4, Version::V5].map(|version| {
            let mut outbox = Outbox::default();
            let head = Head { qos: Qos::AtLeastOnce, packet_id: 1, dup: false, retain: false };
            assert_eq!(wire(version, usize::MAX).put(&mut outbox, &large, head, &[], NOW), Written::Yes);
            outbox
        });
        for outbox in [&mut first, &mut second] {
            outbox.advance(outbox.copied_bytes());
            assert_eq!(outbox.chunk().as_ptr(), large.payload.as_ptr());
            assert!(!Outflow::may_send(outbox));
        }
    }
}
