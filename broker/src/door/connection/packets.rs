//! The packets of a connection: what each of them does once it is complete.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use schema::clock::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::credits::Cost;
use crate::door::connection::{Connection, Ending, Pause};
use crate::door::hub::Subscribed;
use crate::door::inflow::{Arrived, Owed};
use crate::door::journal::Lsn;
use crate::door::packet::{
    self, Ack, Asked, Disconnect, Header, Kind, Malformed, MessageProperties, Reason, RetainHandling,
    Subscribe, SubscribeOptions, Unsubscribe, Version,
};
use crate::door::topics::{KnownTopic, Publisher};
use crate::filter;
use crate::message::{Fingerprint, Message, Qos, Verdict};
use crate::store::Subscription;
use crate::window::Answer;

/// Bytes of a control packet; only SUBSCRIBE and UNSUBSCRIBE come near.
const CONTROL_BYTES_MAX: usize = 64 << 10;
/// A packet of more bytes needs its credit before it is read.
const BUFFERED_BYTES_MAX: usize = 16 << 10;
/// A payload of more bytes keeps the memory it was read into, which may be twice as much; a smaller one is copied and frees
/// it.
const COPIED_BYTES_MAX: usize = 64 << 10;
/// Answers that wait for a slow reader before nothing more is read from it.
const UNREAD_BYTES_MAX: usize = 128 << 10;
/// Messages at quality 2 a client of 3.1.1 may leave unreleased; one of version 5 is told its limit.
const UNRELEASED_MAX: usize = 1000;
/// Answers that wait for their turn before nothing more is read.
const OWED_MAX: usize = 1000;

/// A PUBLISH without its payload.
struct Publish {
    topic: KnownTopic,
    qos: Qos,
    retain: bool,
    packet_id: u16,
    properties: MessageProperties,
}

/// A packet that is too large and was recorded: the rest of it passes unseen.
pub(super) struct Skipping {
    pub(super) size_bytes: usize,
    bytes_left: usize,
}

/// What all messages of one read share.
struct Arrival {
    received_at: Instant,
    arrived_at: Timestamp,
}

impl<S: AsyncRead + AsyncWrite> Connection<S> {
    /// Takes in the complete packets of the inbox; `None` when nothing more is to be read.
    pub(super) async fn take_in(&mut self, now: Instant, is_draining: bool) -> Result<Option<Pause>, Ending> {
        self.check_scope().await?;
        if is_draining {
            return Ok(None);
        }
        let is_behind = self.shared.hub.journal.is_behind();
        let arrival = Arrival { received_at: now, arrived_at: self.shared.clock.now() };
        loop {
            let has_unread = self.transport.outbox.copied_bytes() >= UNREAD_BYTES_MAX;
            if has_unread || self.inflow.owed() >= OWED_MAX {
                return Ok(Some(Pause::Answers));
            }
            if !self.skip() {
                return Ok(Some(Pause::Bytes(0)));
            }
            let Some(header) = packet::header(&self.transport.inbox, Some(self.version))? else {
                return Ok(Some(Pause::Bytes(0)));
            };
            let pause = match header.kind {
                Kind::Publish { qos, retain, .. } => {
                    self.take_publish(&header, qos, retain, is_behind, &arrival)?
                }
                kind if is_behind && self.records(kind) => Some(Pause::Journal),
                Kind::Connect
                | Kind::PubAck
                | Kind::PubRec
                | Kind::PubRel
                | Kind::PubComp
                | Kind::Subscribe
                | Kind::Unsubscribe
                | Kind::PingReq
                | Kind::Disconnect
                | Kind::Auth => self.take_control(&header).await?,
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
        is_behind: bool,
        arrival: &Arrival,
    ) -> Result<Option<Pause>, Ending> {
        // A message whose answer waits for the journal is unanswered as well.
        if self.inflow.open() + self.inflow.owed() >= self.shared.settings.inflight_max {
            return Ok(Some(Pause::Answers));
        }
        if header.body_bytes > self.shared.settings.message_bytes_max {
            return self.begin_skipping(header, qos, retain, arrival);
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
        let Some((publish, head_bytes)) =
            self.read_head(header, qos, retain, header.header_bytes..header.frame_bytes())?
        else {
            return Ok(Some(Pause::Bytes(0)));
        };
        if is_behind && self.records_publish(&publish) {
            self.inflow.return_grant();
            return Ok(Some(Pause::Journal));
        }
        let payload = self.take_payload(header.header_bytes + head_bytes, header.frame_bytes());
        let verdict = if publish.topic.may_publish { Verdict::Admitted } else { Verdict::AclDenied };
        self.accept(publish, payload, verdict, arrival)?;
        Ok(None)
    }

    /// Whether a control packet adds to the journal.
    fn records(&self, kind: Kind) -> bool {
        let is_recorded = match kind {
            Kind::PubAck
            | Kind::PubRec
            | Kind::PubRel
            | Kind::PubComp
            | Kind::Subscribe
            | Kind::Unsubscribe => true,
            Kind::Connect | Kind::Publish { .. } | Kind::PingReq | Kind::Disconnect | Kind::Auth => false,
        };
        is_recorded && self.seat.session().expiry_seconds() > 0
    }

    /// Whether a message adds to the journal: by its id, as a retained one, or in the queue of a session that lasts. Those
    /// of a device that nobody listens to do not, and go on while the store of the journal is away.
    fn records_publish(&self, publish: &Publish) -> bool {
        let keeps_id = publish.qos == Qos::ExactlyOnce && self.seat.session().expiry_seconds() > 0;
        let Publish { topic, retain, .. } = publish;
        keeps_id || topic.is_retained(*retain) || self.shared.hub.is_kept(&topic.name)
    }

    /// Reads a PUBLISH up to its payload, and how many bytes that is; `None` while more of it is needed.
    fn read_head(
        &mut self,
        header: &Header,
        qos: Qos,
        retain: bool,
        body: Range<usize>,
    ) -> Result<Option<(Publish, usize)>, Malformed> {
        let Self { transport, aliases, topics, principal, scope, version, .. } = self;
        let body = &transport.inbox[body];
        let Some(head) = packet::publish_head(*version, header.body_bytes, qos, body)? else {
            return Ok(None);
        };
        let publisher = Publisher::of(principal, scope.as_ref());
        let topic = match head.alias {
            None => topics.get(head.topic, publisher),
            Some(alias) => topics.get(&aliases.resolve(head.topic, alias)?, publisher),
        };
        let publish = Publish { topic, qos, retain, packet_id: head.packet_id, properties: head.properties };
        Ok(Some((publish, head.head_bytes)))
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
        let Publish { topic, qos, retain, packet_id, properties } = publish;
        let cost = self.inflow.granted.take().unwrap_or_default();
        let answer = match qos {
            Qos::AtMostOnce => Answer::None,
            Qos::AtLeastOnce => {
                self.check_receive_maximum()?;
                Answer::PubAck(packet_id)
            }
            Qos::ExactlyOnce => {
                let fingerprint = Fingerprint::of(&topic.name, &payload);
                if !self.seat.session().receive(packet_id, fingerprint) {
                    // The same message once more: it is answered without another delivery.
                    self.inflow.purse().give_back(cost);
                    self.inflow.answer_again(packet_id, arrival.received_at);
                    return Ok(());
                }
                // The id counts among the unreleased ones already.
                self.check_receive_maximum()?;
                Answer::PubRec(packet_id, fingerprint)
            }
        };
        if verdict == Verdict::AclDenied {
            self.refuse_scope("message refused", &topic.name);
        }
        let mut echo = topic.echo(retain, properties, arrival.arrived_at);
        if verdict != Verdict::Admitted {
            (echo.retain, echo.fan_out, echo.is_foreign) = (false, false, false);
        }
        let arrived = Arrived {
            answer,
            cost,
            echo,
            is_denied: verdict == Verdict::AclDenied,
            kind: topic.kind(),
            received_at: arrival.received_at,
        };
        let message = Message {
            topic: Arc::clone(&topic.name),
            parsed: topic.parsed.clone(),
            payload,
            qos,
            retain,
            received_at: arrival.received_at,
            arrived_at: arrival.arrived_at,
            identity: self.principal.device().cloned(),
            verdict,
        };
        self.inflow.deliver(message, arrived);
        Ok(())
    }

    /// Whether the client keeps to the number of unanswered messages it may have.
    fn check_receive_maximum(&self) -> Result<(), Malformed> {
        let unreleased = self.seat.session().unreleased();
        let is_exceeded = match self.version {
            Version::V4 => unreleased > UNRELEASED_MAX,
            Version::V5 => unreleased > self.shared.settings.inflight_max,
        };
        if is_exceeded {
            return Err(Malformed::with(
                "too many messages are unanswered",
                Reason::RECEIVE_MAXIMUM_EXCEEDED,
            ));
        }
        Ok(())
    }

    /// A message above the limit is recorded as refused as soon as its head is there: over a slow line the rest may never
    /// arrive. A client of version 5, which was told the limit, is told goodbye; one of 3.1.1 may let the rest pass.
    fn begin_skipping(
        &mut self,
        header: &Header,
        qos: Qos,
        retain: bool,
        arrival: &Arrival,
    ) -> Result<Option<Pause>, Ending> {
        let end = self.transport.inbox.len().min(header.frame_bytes());
        let Some((publish, head_bytes)) = self.read_head(header, qos, retain, header.header_bytes..end)?
        else {
            return Ok(Some(Pause::Bytes(0)));
        };
        let cost = Cost::of_message(head_bytes);
        if !self.inflow.grant(cost) {
            return Ok(Some(Pause::Credit(cost)));
        }
        let size_bytes = header.body_bytes - head_bytes;
        self.transport.inbox.advance(header.header_bytes + head_bytes);
        self.skipping = Some(Skipping { size_bytes, bytes_left: size_bytes });
        self.accept(publish, Bytes::new(), Verdict::TooLarge { size_bytes }, arrival)?;
        match self.version {
            Version::V4 => Ok(None),
            Version::V5 => Err(Malformed::with("message above the limit", Reason::PACKET_TOO_LARGE).into()),
        }
    }

    /// Lets the rest of a too large message pass; false while more of it is to come.
    fn skip(&mut self) -> bool {
        let Some(skipping) = &mut self.skipping else { return true };
        let passed = skipping.bytes_left.min(self.transport.inbox.len());
        self.transport.inbox.advance(passed);
        skipping.bytes_left -= passed;
        if skipping.bytes_left > 0 {
            return false;
        }
        self.skipping = None;
        true
    }

    async fn take_control(&mut self, header: &Header) -> Result<Option<Pause>, Ending> {
        if header.body_bytes > CONTROL_BYTES_MAX {
            return Err(Malformed::with("control packet is too large", Reason::PACKET_TOO_LARGE).into());
        }
        let missing = header.frame_bytes().saturating_sub(self.transport.inbox.len());
        if missing > 0 {
            return Ok(Some(Pause::Bytes(missing)));
        }
        if matches!(header.kind, Kind::Subscribe | Kind::Unsubscribe) && self.inflow.open() > 0 {
            // What the client published before belongs to its subscriptions as they are now.
            return Ok(Some(Pause::Answers));
        }
        let body = Bytes::copy_from_slice(&self.transport.inbox[header.header_bytes..header.frame_bytes()]);
        self.transport.inbox.advance(header.frame_bytes());
        match header.kind {
            Kind::Connect | Kind::Publish { .. } => {
                return Err(Malformed::protocol("a second CONNECT").into());
            }
            Kind::Auth => {
                return Err(Malformed::protocol("AUTH without an authentication method").into());
            }
            Kind::PubAck | Kind::PubRec | Kind::PubRel | Kind::PubComp => {
                self.take_answer(header.kind, packet::ack(self.version, header.kind, &body)?)?;
            }
            Kind::Subscribe => {
                let subscribe = packet::subscribe(self.version, &body)?;
                self.check_codes(subscribe.filters.len())?;
                self.subscribe(subscribe).await;
            }
            Kind::Unsubscribe => {
                let unsubscribe = packet::unsubscribe(self.version, &body)?;
                self.check_codes(unsubscribe.filters.len())?;
                self.unsubscribe(unsubscribe).await;
            }
            Kind::PingReq => packet::put_pingresp(self.transport.outbox.tail()),
            Kind::Disconnect => match packet::disconnect(self.version, &body) {
                Ok(disconnect) => return Err(self.leave(disconnect)),
                Err(malformed) => return Err(Ending::BrokenGoodbye(malformed)),
            },
        }
        Ok(None)
    }

    /// Whether the client takes an answer with so many codes; without one there is no going on.
    fn check_codes(&self, codes: usize) -> Result<(), Malformed> {
        if packet::codes_bytes(codes) <= self.outflow.packet_bytes_max() {
            Ok(())
        } else {
            Err(Malformed::with("the client does not take the answer", Reason::PACKET_TOO_LARGE))
        }
    }

    fn take_answer(&mut self, kind: Kind, ack: Ack) -> Result<(), Malformed> {
        let Ack { packet_id, reason } = ack;
        let session = self.seat.session();
        match kind {
            Kind::PubAck => session.acknowledged(packet_id)?,
            Kind::PubRec if reason.is_error() => session.refused(packet_id)?,
            Kind::PubRec => {
                let found = session.taken(packet_id)?;
                self.inflow.owe(found.lsn, Owed::PubRel(packet_id, found.reason()));
            }
            Kind::PubComp => session.completed(packet_id)?,
            Kind::PubRel => {
                let found = session.release(packet_id)?;
                self.inflow.owe(found.lsn, Owed::PubComp(packet_id, found.reason()));
            }
            Kind::Connect
            | Kind::Publish { .. }
            | Kind::Subscribe
            | Kind::Unsubscribe
            | Kind::PingReq
            | Kind::Disconnect
            | Kind::Auth => {}
        }
        Ok(())
    }

    /// The client says goodbye.
    fn leave(&self, disconnect: Disconnect) -> Ending {
        let session = self.seat.session();
        if let Some(expiry_seconds) = disconnect.session_expiry_seconds {
            if session.expiry_seconds() == 0 && expiry_seconds > 0 {
                return Malformed::protocol("a session that ends with its connection is to last").into();
            }
            session.expire_after(expiry_seconds.min(self.shared.settings.session_expiry_seconds_max));
        }
        if disconnect.reason == Reason::NORMAL_DISCONNECTION {
            Ending::Disconnected
        } else {
            Ending::DisconnectedWithWill
        }
    }

    async fn subscribe(&mut self, subscribe: Subscribe<'_>) {
        let Subscribe { packet_id, subscription_id, filters } = subscribe;
        let mut codes = Vec::with_capacity(filters.len());
        let (mut lsn, mut retained) = (Lsn::START, Vec::new());
        let mut known: HashMap<&str, (SubscribeOptions, u8)> = HashMap::new();
        for Asked { filter, options } in filters {
            if let Some((_, code)) = known.get(filter).filter(|(known, _)| *known == options) {
                // The same once more: however often a packet says it, it is done once.
                codes.push(*code);
                continue;
            }
            let subscription = Subscription {
                filter: Arc::from(filter),
                qos: options.qos,
                no_local: options.no_local,
                retain_as_published: options.retain_as_published,
                id: subscription_id,
            };
            let outcome = self.subscribe_one(subscription, options.retain_handling).await;
            let code = match (outcome, self.version) {
                (Ok(made), _) => {
                    lsn = lsn.max(made.lsn);
                    retained.extend(made.retained);
                    options.qos as u8
                }
                (Err(reason), Version::V5) => reason.0,
                (Err(_), Version::V4) => Reason::UNSPECIFIED.0,
            };
            codes.push(code);
            known.insert(filter, (options, code));
        }
        self.inflow.owe(lsn, Owed::SubAck(packet_id, codes, retained));
    }

    /// Makes one subscription, or says why it is refused.
    async fn subscribe_one(
        &mut self,
        subscription: Subscription,
        retain_handling: RetainHandling,
    ) -> Result<Subscribed, Reason> {
        let filter = Arc::clone(&subscription.filter);
        if !self.may_subscribe(&filter) {
            self.refuse_scope("subscription refused", &filter);
            return Err(Reason::NOT_AUTHORIZED);
        }
        if filter::is_too_deep(&filter) {
            return Err(Reason::TOPIC_FILTER_INVALID);
        }
        let session = Arc::clone(self.seat.session());
        let subscriptions_max = self.shared.settings.subscriptions_max;
        let made = self.shared.hub.subscribe(&session, subscription, retain_handling, subscriptions_max)?;
        if self.listen(&filter, made.listening).await.is_err() {
            self.shared.hub.unsubscribe(&session, &filter);
            return Err(Reason::UNSPECIFIED);
        }
        Ok(made)
    }

    async fn unsubscribe(&mut self, unsubscribe: Unsubscribe<'_>) {
        let Unsubscribe { packet_id, filters } = unsubscribe;
        let mut codes = Vec::with_capacity(filters.len());
        let mut lsn = Lsn::START;
        let session = Arc::clone(self.seat.session());
        for filter in filters {
            match self.shared.hub.unsubscribe(&session, filter) {
                Some(removed) => {
                    lsn = lsn.max(removed.lsn);
                    // A router that is gone serves nothing.
                    let _ = self.listen(filter, removed.listening).await;
                    codes.push(Reason::SUCCESS);
                }
                None => {
                    // It may have existed until a moment ago.
                    lsn = lsn.max(session.recorded());
                    codes.push(Reason::NO_SUBSCRIPTION_EXISTED);
                }
            }
        }
        self.inflow.owe(lsn, Owed::UnsubAck(packet_id, codes));
    }
}
