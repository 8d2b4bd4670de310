//! The packets of a connection: what each of them does once it is complete.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use schema::clock::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::acl;
use crate::credits::Cost;
use crate::delivery::{Message, Qos, Verdict};
use crate::door::Shared;
use crate::door::codec::{self, Header, Kind, Malformed};
use crate::door::connection::{Connection, Ending, Pause};
use crate::door::subscriber::Subscriber;
use crate::door::topics::KnownTopic;
use crate::stats::Refusal;
use crate::window::Answer;

/// Bytes of a control packet; only SUBSCRIBE and UNSUBSCRIBE come near.
const CONTROL_BYTES_MAX: usize = 64 << 10;
/// A packet of more bytes needs its credit before it is read.
const BUFFERED_BYTES_MAX: usize = 16 << 10;
/// A payload of more bytes keeps the memory it was read into; a smaller one is copied and frees it.
const COPIED_BYTES_MAX: usize = 8 << 10;
/// Answers that wait for a slow reader before nothing more is read from it.
const UNREAD_BYTES_MAX: usize = 512 << 10;
/// Messages at QoS 2 that were answered and not yet released by the client.
const UNRELEASED_MAX: usize = 1000;

/// A PUBLISH without its payload.
struct Publish {
    topic: KnownTopic,
    qos: Qos,
    retain: bool,
    packet_id: u16,
}

/// A packet that is too large: how much of it is still to pass, and what is recorded when it has passed.
pub(super) struct Skipping {
    bytes_left: usize,
    size_bytes: usize,
    publish: Publish,
}

/// What all messages of one read share.
struct Arrival {
    received_at: Instant,
    arrived_at: Timestamp,
}

impl<S: AsyncRead + AsyncWrite> Connection<S> {
    /// Takes in the complete packets of the inbox; `None` when nothing more is to be read.
    pub(super) async fn take_in(&mut self, now: Instant, is_draining: bool) -> Result<Option<Pause>, Ending> {
        self.check_scope()?;
        if is_draining {
            return Ok(None);
        }
        let arrival = Arrival { received_at: now, arrived_at: self.shared.clock.now() };
        loop {
            if self.transport.outbox.len() >= UNREAD_BYTES_MAX {
                return Ok(Some(Pause::Answers));
            }
            if !self.skip(&arrival) {
                return Ok(Some(Pause::Bytes(0)));
            }
            let Some(header) = codec::header(&self.transport.inbox)? else {
                return Ok(Some(Pause::Bytes(0)));
            };
            let pause = match header.kind {
                Kind::Publish { qos, retain, .. } => self.take_publish(&header, qos, retain, &arrival)?,
                Kind::Connect
                | Kind::PubAck
                | Kind::PubRel
                | Kind::Subscribe
                | Kind::Unsubscribe
                | Kind::PingReq
                | Kind::Disconnect => self.take_control(&header).await?,
            };
            if pause.is_some() {
                return Ok(pause);
            }
            self.begun_at = None;
        }
    }

    fn take_publish(
        &mut self,
        header: &Header,
        qos: Qos,
        retain: bool,
        arrival: &Arrival,
    ) -> Result<Option<Pause>, Ending> {
        if self.inflow.open >= self.shared.settings.inflight_max {
            return Ok(Some(Pause::Answers));
        }
        if header.body_bytes > self.shared.settings.message_bytes_max {
            return self.begin_skipping(header, qos, retain);
        }
        let missing = header.frame_bytes().saturating_sub(self.transport.inbox.len());
        if missing == 0 || header.frame_bytes() > BUFFERED_BYTES_MAX {
            let cost = Cost::of_message(header.frame_bytes());
            if !self.inflow.grant(cost) {
                return Ok(Some(Pause::Credit(cost)));
            }
        }
        if missing > 0 {
            return Ok(Some(Pause::Bytes(missing)));
        }
        let body = &self.transport.inbox[header.header_bytes..header.frame_bytes()];
        let Some(head) = codec::publish_head(header.body_bytes, qos, body)? else {
            return Ok(Some(Pause::Bytes(0)));
        };
        let who = self.seat.client().identity.as_ref().zip(self.scope.as_ref());
        let topic = self.topics.get(head.topic, who).clone();
        let publish = Publish { topic, qos, retain, packet_id: head.packet_id };
        let payload_at = header.header_bytes + head.head_bytes;
        let payload = self.take_payload(payload_at, header.frame_bytes());
        let verdict = if publish.topic.may_publish { Verdict::Admitted } else { Verdict::AclDenied };
        self.accept(publish, payload, verdict, arrival)?;
        Ok(None)
    }

    /// Takes a packet off the inbox and says its payload, which holds no more memory than it needs.
    fn take_payload(&mut self, payload_at: usize, frame_bytes: usize) -> Bytes {
        let inbox = &mut self.transport.inbox;
        if frame_bytes - payload_at > COPIED_BYTES_MAX {
            return inbox.split_to(frame_bytes).freeze().slice(payload_at..);
        }
        let payload = Bytes::copy_from_slice(&inbox[payload_at..frame_bytes]);
        inbox.advance(frame_bytes);
        payload
    }

    /// Opens the delivery of a message that was read.
    fn accept(
        &mut self,
        publish: Publish,
        payload: Bytes,
        verdict: Verdict,
        arrival: &Arrival,
    ) -> Result<(), Ending> {
        let Publish { topic, qos, retain, packet_id } = publish;
        let cost = self.inflow.granted.take().unwrap_or_default();
        let answer = match qos {
            Qos::AtMostOnce => Answer::None,
            Qos::AtLeastOnce => Answer::PubAck(packet_id),
            Qos::ExactlyOnce => match self.inflow.unreleased.get(&packet_id) {
                None if self.inflow.unreleased.len() >= UNRELEASED_MAX => {
                    return Err(Malformed("too many messages at QoS 2 are not released").into());
                }
                None => {
                    self.inflow.unreleased.insert(packet_id, false);
                    Answer::PubRec(packet_id)
                }
                // The same message once more: it is, or will be, answered without another delivery.
                Some(is_answered) => {
                    if *is_answered {
                        codec::put_pubrec(&mut self.transport.outbox, packet_id);
                    }
                    self.shared.credits.give_back(cost);
                    return Ok(());
                }
            },
        };
        if verdict == Verdict::AclDenied {
            self.shared.stats.count_refused(Refusal::Acl);
        }
        let message = Message {
            topic: Arc::clone(&topic.name),
            payload,
            qos,
            retain,
            received_at: arrival.received_at,
            arrived_at: arrival.arrived_at,
            identity: self.seat.client().identity.clone(),
            verdict,
        };
        self.inflow.deliver(message, &topic, answer, cost);
        Ok(())
    }

    /// A message above the limit: its head is read, its payload passes unseen, and it is recorded as refused.
    fn begin_skipping(&mut self, header: &Header, qos: Qos, retain: bool) -> Result<Option<Pause>, Ending> {
        let body = &self.transport.inbox[header.header_bytes..];
        let Some(head) = codec::publish_head(header.body_bytes, qos, body)? else {
            return Ok(Some(Pause::Bytes(0)));
        };
        let cost = Cost::of_message(head.head_bytes);
        if !self.inflow.grant(cost) {
            return Ok(Some(Pause::Credit(cost)));
        }
        let who = self.seat.client().identity.as_ref().zip(self.scope.as_ref());
        let topic = self.topics.get(head.topic, who).clone();
        let publish = Publish { topic, qos, retain, packet_id: head.packet_id };
        let size_bytes = header.body_bytes - head.head_bytes;
        let read_bytes = header.header_bytes + head.head_bytes;
        self.skipping = Some(Skipping { bytes_left: size_bytes, size_bytes, publish });
        self.transport.inbox.advance(read_bytes);
        Ok(None)
    }

    /// Lets the rest of a too large message pass; false while more of it is to come.
    fn skip(&mut self, arrival: &Arrival) -> bool {
        let Some(mut skipping) = self.skipping.take() else { return true };
        let passed = skipping.bytes_left.min(self.transport.inbox.len());
        self.transport.inbox.advance(passed);
        skipping.bytes_left -= passed;
        if skipping.bytes_left > 0 {
            self.skipping = Some(skipping);
            return false;
        }
        let verdict = Verdict::TooLarge { size_bytes: skipping.size_bytes };
        // Only a flood of messages at QoS 2 is an error here, and the next packet of it ends the connection.
        let _ = self.accept(skipping.publish, Bytes::new(), verdict, arrival);
        true
    }

    async fn take_control(&mut self, header: &Header) -> Result<Option<Pause>, Ending> {
        if header.body_bytes > CONTROL_BYTES_MAX {
            return Err(Malformed("control packet is too large").into());
        }
        let missing = header.frame_bytes().saturating_sub(self.transport.inbox.len());
        if missing > 0 {
            return Ok(Some(Pause::Bytes(missing)));
        }
        let body = Bytes::copy_from_slice(&self.transport.inbox[header.header_bytes..header.frame_bytes()]);
        self.transport.inbox.advance(header.frame_bytes());
        match header.kind {
            Kind::Connect | Kind::Publish { .. } => return Err(Malformed("a second CONNECT").into()),
            Kind::PubAck => self.subscriber.answered(codec::packet_id(&body)?),
            Kind::PubRel => self.release(codec::packet_id(&body)?)?,
            Kind::Subscribe => self.subscribe(&body).await?,
            Kind::Unsubscribe => {
                let (packet_id, filters) = codec::unsubscribe(&body)?;
                for filter in filters {
                    self.subscriber.unsubscribe(filter).await;
                }
                codec::put_unsuback(&mut self.transport.outbox, packet_id);
            }
            Kind::PingReq => codec::put_pingresp(&mut self.transport.outbox),
            Kind::Disconnect => return Err(Ending::Disconnected),
        }
        Ok(None)
    }

    fn release(&mut self, packet_id: u16) -> Result<(), Ending> {
        if self.inflow.unreleased.remove(&packet_id) == Some(false) {
            return Err(Malformed("PUBREL before its PUBREC").into());
        }
        codec::put_pubcomp(&mut self.transport.outbox, packet_id);
        Ok(())
    }

    async fn subscribe(&mut self, body: &[u8]) -> Result<(), Ending> {
        let (packet_id, filters) = codec::subscribe(body)?;
        let mut codes = Vec::with_capacity(filters.len());
        for (filter, qos) in filters {
            let Shared { fanout, retained, .. } = &*self.shared;
            codes.push(if self.may_subscribe(filter) {
                self.subscriber.subscribe(filter, qos, &**fanout, retained).await
            } else {
                self.shared.stats.count_refused(Refusal::Acl);
                Subscriber::refused()
            });
        }
        codec::put_suback(&mut self.transport.outbox, packet_id, &codes);
        Ok(())
    }

    fn may_subscribe(&self, filter: &str) -> bool {
        match self.seat.client().identity.as_ref().zip(self.scope.as_ref()) {
            Some((identity, scope)) => acl::may_subscribe(scope, identity, filter),
            None => acl::anonymous_may_subscribe(filter),
        }
    }
}
