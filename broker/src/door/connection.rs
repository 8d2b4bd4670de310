//! One connection after its login: reads packets, opens deliveries, answers them in order, publishes the last will.
//!
//! Everything happens in one task that is generic over the byte stream. Each turn of its loop collects what was
//! settled, takes in the packets that are complete, and then waits for whatever comes first. A socket is read only
//! while the window has room and the credit is not spent. After the end of the stream the task stays until its last
//! delivery is settled, so that what was taken in reaches the commit whether the client waits for it or not.

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use schema::clock::Timestamp;
use tokio::io::{self, AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::acl;
use crate::credits::Cost;
use crate::delivery::{Delivery, Message, Qos, Verdict};
use crate::door::admission::{Admitted, HeldWill};
use crate::door::codec::{self, Header, Kind, Malformed};
use crate::door::sessions::{CloseReason, Seat};
use crate::door::subscriber::Subscriber;
use crate::door::topics::{KnownTopic, Topics};
use crate::door::transport::{Transport, write};
use crate::door::{Phase, Shared};
use crate::fanout::{Forward, RouterGone};
use crate::gatekeeper::Scope;
use crate::redelivery::Redelivery;
use crate::stats::Refusal;
use crate::window::{Answer, Closed, Echo, Returned, Slot, Window};

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
/// How often a connection looks whether its device is still enabled and its peer still alive.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long the goodbye of a stream may take.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// A client that is logged in.
pub(crate) struct Connection<S> {
    shared: Arc<Shared>,
    transport: Transport<S>,
    seat: Seat,
    scope: Option<Scope>,
    will: Option<HeldWill>,
    /// Silence that ends the connection: one and a half times the client's keepalive.
    silence_max: Option<Duration>,
    heard_at: Instant,
    /// When the incomplete packet in the inbox was begun.
    begun_at: Option<Instant>,
    /// Since when the stream took nothing of what waits in the outbox.
    unread_since: Option<Instant>,
    skipping: Option<Skipping>,
    inflow: Inflow,
    topics: Topics,
    subscriber: Subscriber,
    phase: watch::Receiver<Phase>,
    place: OwnedSemaphorePermit,
}

/// The deliveries of a connection; outlives its stream.
struct Inflow {
    shared: Arc<Shared>,
    window: Arc<Window>,
    open: usize,
    redelivery: Redelivery,
    closed: Vec<Closed>,
    returned: Vec<Returned>,
    /// Credit that was taken for the packet that is being read.
    granted: Option<Cost>,
    /// Packet ids at QoS 2 from PUBLISH to PUBREL; true once PUBREC was sent.
    unreleased: HashMap<u16, bool>,
}

/// A PUBLISH without its payload.
struct Publish {
    topic: KnownTopic,
    qos: Qos,
    retain: bool,
    packet_id: u16,
}

/// A packet that is too large: how much of it is still to pass, and what is recorded when it has passed.
struct Skipping {
    bytes_left: usize,
    size_bytes: usize,
    publish: Publish,
}

/// How a conversation ended.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// The client said goodbye: no last will.
    Disconnected,
    /// The stream ended or failed.
    Lost,
    Malformed(Malformed),
    /// No sign of life for too long.
    Silent,
    /// A packet never got complete, or an answer was never read.
    Stuck,
    TakenOver,
    Revoked,
    /// The door closes: no last will.
    DoorClosed,
}

/// What taking in packets stopped at.
#[derive(Clone, Copy, Debug)]
enum Pause {
    /// More bytes are needed, and so many at least for a large packet.
    Bytes(usize),
    /// The window is full, or the client does not read its answers.
    Answers,
    /// The credit is spent.
    Credit(Cost),
}

/// What a turn woke up for.
enum Woken {
    Settled,
    Read(io::Result<bool>),
    Wrote(io::Result<()>),
    Credit(Cost),
    Forward(Result<Forward, RouterGone>),
    Close(CloseReason),
    Phase,
    Timer,
}

/// What all messages of one read share.
struct Arrival {
    received_at: Instant,
    arrived_at: Timestamp,
}

impl From<Malformed> for Ending {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl<S: AsyncRead + AsyncWrite> Connection<S> {
    pub(crate) fn new(shared: Arc<Shared>, admitted: Admitted<S>, place: OwnedSemaphorePermit) -> Self {
        let Admitted { transport, seat, scope, keep_alive_seconds, will } = admitted;
        let now = Instant::now();
        let silence = Duration::from_secs(u64::from(keep_alive_seconds)) * 3 / 2;
        Self {
            transport,
            seat,
            scope,
            will,
            silence_max: (!silence.is_zero()).then_some(silence),
            heard_at: now,
            begun_at: None,
            unread_since: None,
            skipping: None,
            inflow: Inflow::new(Arc::clone(&shared)),
            topics: Topics::default(),
            subscriber: Subscriber::default(),
            phase: shared.phase.clone(),
            shared,
            place,
        }
    }

    /// Talks to the client until it goes, then stays until its last delivery is settled.
    pub(crate) async fn run(mut self) {
        let present = Present::start(&self.shared);
        let ending = self.converse().await;
        drop(present);
        self.log(&ending);
        if let Some(will) = self.will.take().filter(|_| ending.publishes_will()) {
            self.publish_will(will);
        }
        let Self { inflow, transport, seat, subscriber, place, .. } = self;
        drop((seat, subscriber));
        part(transport, &ending).await;
        drop(place);
        inflow.finish().await;
    }

    async fn converse(&mut self) -> Ending {
        let mut timer = pin!(sleep_until(Instant::now()));
        let mut was_reading = true;
        loop {
            let now = Instant::now();
            self.inflow.collect(now, Some(&mut self.transport.outbox));
            let is_draining = *self.phase.borrow() != Phase::Open;
            if is_draining && self.inflow.open == 0 && self.transport.outbox.is_empty() {
                return Ending::DoorClosed;
            }
            let pause = match self.take_in(now, is_draining).await {
                Ok(pause) => pause,
                Err(ending) => return ending,
            };
            self.subscriber.send_retained(&mut self.transport.outbox, self.shared.settings.inflight_max);
            let is_reading = matches!(pause, Some(Pause::Bytes(_)));
            if is_reading && !was_reading {
                // While the door did not read, the client's signs of life waited in its socket.
                (self.heard_at, self.begun_at) = (now, None);
            }
            was_reading = is_reading;
            if let Some(ending) = self.overdue(now, is_reading) {
                return ending;
            }
            let wake_at = self.wake_at(now, is_reading);
            if timer.deadline() > wake_at || timer.is_elapsed() {
                timer.as_mut().reset(wake_at);
            }
            match self.wait(pause, timer.as_mut()).await {
                Woken::Settled | Woken::Timer | Woken::Phase => {}
                Woken::Read(Ok(true)) => self.heard_at = Instant::now(),
                Woken::Wrote(Ok(())) => self.unread_since = None,
                Woken::Read(Ok(false) | Err(_)) | Woken::Wrote(Err(_)) => return Ending::Lost,
                Woken::Credit(cost) => self.inflow.granted = Some(cost),
                Woken::Forward(Ok(forward)) => self.subscriber.send(&forward, &mut self.transport.outbox),
                Woken::Forward(Err(RouterGone)) => {
                    if self.subscriber.listen_again(&*self.shared.fanout).await.is_err() {
                        return Ending::Lost;
                    }
                }
                Woken::Close(CloseReason::TakenOver) => return Ending::TakenOver,
                Woken::Close(CloseReason::Revoked) => return Ending::Revoked,
            }
        }
    }

    /// Waits for whatever comes first.
    async fn wait(&mut self, pause: Option<Pause>, timer: Pin<&mut Sleep>) -> Woken {
        let Self { transport, seat, inflow, subscriber, phase, shared, .. } = self;
        let Transport { inbox, outbox, reader, writer } = transport;
        let may_forward = subscriber.may_send(outbox, shared.settings.inflight_max);
        let (missing, cost) = match pause {
            Some(Pause::Bytes(missing)) => (Some(missing), None),
            Some(Pause::Credit(cost)) => (None, Some(cost)),
            Some(Pause::Answers) | None => (None, None),
        };
        tokio::select! {
            biased;
            reason = seat.close_asked() => Woken::Close(reason),
            wrote = write(writer, outbox), if !outbox.is_empty() => Woken::Wrote(wrote),
            () = inflow.window.changed() => Woken::Settled,
            () = shared.credits.take(cost.unwrap_or_default()), if cost.is_some() => {
                Woken::Credit(cost.unwrap_or_default())
            }
            read = reader.read(inbox, missing.unwrap_or_default()), if missing.is_some() => Woken::Read(read),
            forward = subscriber.next(), if may_forward => Woken::Forward(forward),
            _ = phase.changed() => Woken::Phase,
            () = timer => Woken::Timer,
        }
    }

    /// Takes in the complete packets of the inbox; `None` when nothing more is to be read.
    async fn take_in(&mut self, now: Instant, is_draining: bool) -> Result<Option<Pause>, Ending> {
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

    /// Looks whether the device is still enabled, and forgets what was judged in another scope.
    fn check_scope(&mut self) -> Result<(), Ending> {
        let Some(identity) = &self.seat.client().identity else { return Ok(()) };
        let scope = self.shared.gatekeeper.scope(identity).ok_or(Ending::Revoked)?;
        if self.scope.as_ref() != Some(&scope) {
            self.topics.forget();
            self.scope = Some(scope);
        }
        Ok(())
    }

    /// Whether the connection waited too long for its peer.
    fn overdue(&mut self, now: Instant, is_reading: bool) -> Option<Ending> {
        let is_partial = is_reading && !(self.transport.inbox.is_empty() && self.skipping.is_none());
        self.begun_at = is_partial.then(|| self.begun_at.unwrap_or(now));
        let is_unread = !self.transport.outbox.is_empty();
        self.unread_since = is_unread.then(|| self.unread_since.unwrap_or(now));
        if is_reading && self.silence_max.is_some_and(|silence_max| now >= self.heard_at + silence_max) {
            return Some(Ending::Silent);
        }
        let stuck_timeout = self.shared.settings.stuck_timeout;
        let is_stuck = |since: Option<Instant>| since.is_some_and(|since| now >= since + stuck_timeout);
        (is_stuck(self.begun_at) || is_stuck(self.unread_since)).then_some(Ending::Stuck)
    }

    /// When the connection must look again even if nothing happens.
    fn wake_at(&self, now: Instant, is_reading: bool) -> Instant {
        let stuck_timeout = self.shared.settings.stuck_timeout;
        let silent_at =
            self.silence_max.filter(|_| is_reading).map(|silence_max| self.heard_at + silence_max);
        let stuck_at =
            self.begun_at.into_iter().chain(self.unread_since).min().map(|since| since + stuck_timeout);
        let due = [silent_at, stuck_at, self.inflow.redelivery.due_at()];
        due.into_iter().flatten().fold(now + CHECK_INTERVAL, Instant::min)
    }

    /// Publishes the last will as a live message, through the same checks as any other.
    fn publish_will(&mut self, held: HeldWill) {
        let (will, cost) = held.release();
        let topic = match &self.seat.client().identity {
            None => KnownTopic::judge(&will.topic, None),
            Some(identity) => match self.shared.gatekeeper.scope(identity) {
                Some(scope) => KnownTopic::judge(&will.topic, Some((identity, &scope))),
                None => KnownTopic::judge(&will.topic, None).denied(),
            },
        };
        if !topic.may_publish {
            self.shared.stats.count_refused(Refusal::Acl);
        }
        let message = Message {
            topic: Arc::clone(&topic.name),
            payload: will.payload,
            qos: will.qos,
            retain: will.retain,
            received_at: Instant::now(),
            arrived_at: self.shared.clock.now(),
            identity: self.seat.client().identity.clone(),
            verdict: if topic.may_publish { Verdict::Admitted } else { Verdict::AclDenied },
        };
        self.inflow.deliver(message, &topic, Answer::None, cost);
    }

    fn log(&self, ending: &Ending) {
        let client = self.seat.client();
        let device_id = client.identity.as_ref().map(|identity| identity.device_id.as_str());
        match ending {
            Ending::Malformed(rule) => {
                self.shared.stats.count_refused(Refusal::Malformed);
                tracing::warn!(device_id, client_id = &*client.client_id, %rule, "connection closed: protocol broken");
            }
            Ending::Revoked => {
                self.shared.stats.count_refused(Refusal::Revoked);
                tracing::info!(
                    device_id,
                    client_id = &*client.client_id,
                    "connection closed: device not enabled"
                );
            }
            Ending::Disconnected
            | Ending::Lost
            | Ending::Silent
            | Ending::Stuck
            | Ending::TakenOver
            | Ending::DoorClosed => {
                tracing::debug!(device_id, client_id = &*client.client_id, ?ending, "connection closed");
            }
        }
    }
}

impl Ending {
    fn publishes_will(&self) -> bool {
        match self {
            Self::Disconnected | Self::DoorClosed => false,
            Self::Lost
            | Self::Malformed(_)
            | Self::Silent
            | Self::Stuck
            | Self::TakenOver
            | Self::Revoked => true,
        }
    }
}

impl Inflow {
    fn new(shared: Arc<Shared>) -> Self {
        let window = Window::new(Arc::clone(&shared.credits), Some(Arc::clone(&shared.fanout)));
        Self {
            shared,
            window,
            open: 0,
            redelivery: Redelivery::default(),
            closed: Vec::new(),
            returned: Vec::new(),
            granted: None,
            unreleased: HashMap::new(),
        }
    }

    /// Takes the credit of the packet that is being read, unless it was taken before; false when it is spent.
    fn grant(&mut self, cost: Cost) -> bool {
        if self.granted.is_none() && self.shared.credits.try_take(cost) {
            self.granted = Some(cost);
        }
        self.granted.is_some()
    }

    fn deliver(&mut self, message: Message, topic: &KnownTopic, answer: Answer, cost: Cost) {
        let is_admitted = message.verdict == Verdict::Admitted;
        let slot = Slot {
            answer,
            cost,
            echo: if is_admitted { topic.echo(message.retain) } else { Echo::default() },
            kind: topic.kind,
            received_at: message.received_at,
            epoch: 0,
        };
        let sequence = self.window.open(slot);
        self.open += 1;
        self.shared.stats.opened();
        self.shared.intake.take(Delivery::from_window(message, 0, Arc::clone(&self.window), sequence));
    }

    /// Collects what was settled: answers it in order of arrival, shows it to subscribers, gives its credit back;
    /// and delivers again what was handed back.
    fn collect(&mut self, now: Instant, mut outbox: Option<&mut BytesMut>) {
        self.window.collect(&mut self.closed, &mut self.returned);
        if !self.closed.is_empty() {
            let mut cost = Cost::default();
            self.open -= self.closed.len();
            self.shared.stats.closed(self.closed.len());
            for Closed { slot, message } in self.closed.drain(..) {
                cost = cost.plus(slot.cost);
                self.shared.stats.answered(slot.kind, now - slot.received_at);
                match (slot.answer, &mut outbox) {
                    (Answer::PubAck(packet_id), Some(outbox)) => codec::put_puback(outbox, packet_id),
                    (Answer::PubRec(packet_id), Some(outbox)) => {
                        self.unreleased.insert(packet_id, true);
                        codec::put_pubrec(outbox, packet_id);
                    }
                    (Answer::None, _) | (_, None) => {}
                }
                if let Some(message) = message {
                    show(&self.shared, slot.echo, &message);
                }
            }
            self.shared.credits.give_back(cost);
        }
        for returned in &self.returned {
            self.shared.stats.count_handed_back(returned.kind);
        }
        self.redelivery.put(now, self.returned.drain(..));
        self.redelivery.deliver_due(now, &self.window, &*self.shared.intake);
    }

    /// Stays until the last delivery is settled.
    async fn finish(mut self) {
        loop {
            self.collect(Instant::now(), None);
            if self.open == 0 {
                return;
            }
            let due_at = self.redelivery.due_at();
            tokio::select! {
                () = self.window.changed() => {}
                () = sleep_until(due_at.unwrap_or_else(Instant::now)), if due_at.is_some() => {}
            }
        }
    }
}

impl Drop for Inflow {
    fn drop(&mut self) {
        self.shared.stats.abandon(self.open);
        self.shared.credits.give_back(self.granted.take().unwrap_or_default());
    }
}

/// A committed message becomes the retained one of its topic, and goes to who listens.
fn show(shared: &Shared, echo: Echo, message: &Message) {
    if echo.retain {
        shared.retained.set(&message.topic, message.payload.clone());
    }
    if echo.fan_out && shared.fanout.is_wanted() {
        shared.fanout.publish(message);
    }
}

/// Sends what is left to a client that is still there, and closes its stream. What the client still sends is read and
/// thrown away until it closes too: closing over unread bytes could take back the last answers.
async fn part<S: AsyncRead + AsyncWrite>(mut transport: Transport<S>, ending: &Ending) {
    if matches!(ending, Ending::Lost | Ending::Stuck) {
        return;
    }
    let goodbye = async {
        transport.flush().await?;
        transport.writer.shutdown().await?;
        while transport.read().await? {
            transport.inbox.clear();
        }
        io::Result::Ok(())
    };
    // Nobody is left to tell when the goodbye fails.
    let _ = timeout(GOODBYE_MAX, goodbye).await;
}

/// Counts a client as connected.
struct Present(Arc<Shared>);

impl Present {
    fn start(shared: &Arc<Shared>) -> Self {
        shared.stats.client_came();
        Self(Arc::clone(shared))
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.stats.client_left();
    }
}
