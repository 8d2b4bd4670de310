//! What flows in over one connection, from the intake to the answer. Outlives the stream.
//!
//! Deliveries belong to the inbound window of the client, which the connection collects as long as no other takes over. An
//! answer leaves when everything before it left, and when the journal holds what it promises: whatever tells the client of a
//! change is owed to it here, with the log sequence number of the change. Messages of the queue, which are no answers, carry
//! their number themselves.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use schema::clock::Clock;
use schema::wire::topic::Kind;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::credits::{Cost, Credits, Purse};
use crate::delivery::{Delivery, Intake};
use crate::door::hub::Hub;
use crate::door::inbound::Inbound;
use crate::door::journal::Lsn;
use crate::door::packet::{self, Reason, Version};
use crate::door::pending::PendingRetained;
use crate::door::refusals::Refusals;
use crate::door::session::Session;
use crate::door::topics::{KnownTopic, Publisher};
use crate::door::will::{DelayedWill, HeldWill};
use crate::gatekeeper::{Gatekeeper, Principal};
use crate::message::{Fingerprint, Message, Verdict};
use crate::publication::Publication;
use crate::share::Share;
use crate::stats::{DoorStats, Refusal};
use crate::store::{Change, Owner};
use crate::window::{Answer, Audience, Closed, Echo, Returned, Slot};

/// An answer the client is to get.
#[derive(Debug)]
pub(crate) enum Owed {
    PubAck(u16, Reason),
    PubRec(u16, Reason),
    PubRel(u16, Reason),
    PubComp(u16, Reason),
    /// With the retained messages that follow it.
    SubAck(u16, Vec<u8>, Vec<PendingRetained>),
    UnsubAck(u16, Vec<Reason>),
    /// Nothing; only the credit is to be given back.
    Nothing,
}

/// What is remembered of a message that arrives.
pub(crate) struct Arrived {
    pub(crate) answer: Answer,
    pub(crate) cost: Cost,
    pub(crate) echo: Echo,
    /// The topic may not be used by the client.
    pub(crate) is_denied: bool,
    pub(crate) kind: Option<Kind>,
    pub(crate) received_at: Instant,
}

/// What all inflows work with.
pub(crate) struct InflowParts {
    pub(crate) credits: Arc<Credits>,
    /// Bytes of the last wills of clients that are connected, or may come back in time, or whose will is under way.
    pub(crate) wills: Share<Owner>,
    pub(crate) stats: Arc<DoorStats>,
    pub(crate) intake: Arc<dyn Intake>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) gatekeeper: Arc<dyn Gatekeeper>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) clock: Clock,
}

/// What flows in over one connection, and is collected by it.
pub(crate) struct Inflow {
    parts: Arc<InflowParts>,
    inbound: Arc<Inbound>,
    /// The number under which this one collects, as long as no other has taken over.
    collector: u64,
    session: Arc<Session>,
    version: Version,
    closed: Vec<Closed>,
    returned: Vec<Returned>,
    /// Answers in their order, each with how far the journal must be stored before it.
    owed: VecDeque<(Lsn, Owed, Cost)>,
    stored: watch::Receiver<Lsn>,
    /// Credit that was taken for the packet that is being read.
    pub(crate) granted: Option<Cost>,
}

impl InflowParts {
    /// An inbound window without deliveries, of a client of this owner.
    pub(crate) fn inbound(&self, owner: &Owner) -> Arc<Inbound> {
        Inbound::new(self.credits.purse(owner), Arc::clone(&self.hub) as Arc<dyn Audience>)
    }
}

impl Inflow {
    /// Takes the inbound window of a client over.
    pub(crate) fn new(
        parts: Arc<InflowParts>,
        inbound: Arc<Inbound>,
        session: Arc<Session>,
        version: Version,
    ) -> Self {
        Self {
            collector: inbound.take_over(),
            stored: parts.hub.journal.follow(),
            parts,
            inbound,
            session,
            version,
            closed: Vec::new(),
            returned: Vec::new(),
            owed: VecDeque::new(),
            granted: None,
        }
    }

    /// Takes the inbound window of a client over and publishes a will that waited for the client. To be finished by the
    /// caller.
    pub(crate) fn of_will(parts: &Arc<InflowParts>, inbound: &Arc<Inbound>, delayed: DelayedWill) -> Self {
        let DelayedWill { id, will, principal, session, due_at: _ } = delayed;
        let inflow = Self::new(Arc::clone(parts), Arc::clone(inbound), session, Version::V4);
        inflow.deliver_will_as(will, &principal, Answer::Will(id));
        inflow
    }

    /// Deliveries that are not collected yet.
    pub(crate) fn open(&self) -> usize {
        self.inbound.open()
    }

    /// The credit of what is in hand.
    pub(crate) fn purse(&self) -> &Arc<Purse> {
        &self.inbound.purse
    }

    /// Takes the credit of the packet that is being read, unless it was taken before; false when it is spent.
    pub(crate) fn grant(&mut self, cost: Cost) -> bool {
        if self.granted.is_none() && self.purse().try_take(cost) {
            self.granted = Some(cost);
        }
        self.granted.is_some()
    }

    /// Gives back the credit of the packet that is being read: it has to wait for something else.
    pub(crate) fn return_grant(&mut self) {
        let granted = self.granted.take().unwrap_or_default();
        self.purse().give_back(granted);
    }

    /// Opens the delivery of a message and hands it to the intake.
    pub(crate) fn deliver(&self, message: Message, arrived: Arrived) {
        self.hand_in(message, self.slot(arrived));
    }

    fn hand_in(&self, message: Message, slot: Slot) {
        let turn = self.inbound.window.open(slot);
        let window = Arc::clone(&self.inbound.window);
        self.parts.intake.take(Delivery::from_window(message, 0, window, turn));
    }

    /// Has a message at QoS 2 answered that came again, after those before it.
    pub(crate) fn answer_again(&self, packet_id: u16, received_at: Instant) {
        let answer = Answer::PubRecAgain(packet_id);
        let (cost, echo) = (Cost::default(), Echo::default());
        let again = Arrived { answer, cost, echo, is_denied: false, kind: None, received_at };
        self.inbound.window.open_settled(self.slot(again));
    }

    fn slot(&self, arrived: Arrived) -> Slot {
        let Arrived { answer, cost, echo, is_denied, kind, received_at } = arrived;
        self.inbound.opened();
        self.parts.stats.opened();
        let (epoch, publisher) = (self.collector, self.session.number());
        Slot { answer, cost, echo, is_denied, kind, received_at, epoch, publisher, _will: None }
    }

    /// Hands a last will in like a message that came over the connection.
    pub(crate) fn deliver_will(&self, will: HeldWill, principal: &Principal) {
        self.deliver_will_as(will, principal, Answer::None);
    }

    fn deliver_will_as(&self, will: HeldWill, principal: &Principal, answer: Answer) {
        let HeldWill { will, permit } = will;
        let scope = principal.device().and_then(|identity| self.parts.gatekeeper.scope(identity));
        let topic = KnownTopic::judge(&will.topic, Publisher::of(principal, scope.as_ref()));
        if !topic.may_publish && self.parts.refusals.count(Refusal::Acl) {
            let device_id = principal.device().map(|identity| identity.device_id.as_str());
            tracing::info!(device_id, topic = &*topic.name, "last will refused: outside the scope");
        }
        let (received_at, arrived_at) = (Instant::now(), self.parts.clock.now());
        let arrived = Arrived {
            answer,
            cost: Cost::default(),
            echo: topic.echo(will.retain, will.properties, arrived_at),
            is_denied: !topic.may_publish,
            kind: topic.kind(),
            received_at,
        };
        let message = Message {
            topic: Arc::clone(&topic.name),
            parsed: topic.parsed.clone(),
            payload: will.payload,
            qos: will.qos,
            retain: will.retain,
            received_at,
            arrived_at,
            identity: principal.device().cloned(),
            verdict: if topic.may_publish { Verdict::Admitted } else { Verdict::AclDenied },
        };
        let slot = Slot { _will: Some(Arc::new(permit)), ..self.slot(arrived) };
        self.hand_in(message, slot);
    }

    /// Has the client get an answer in its turn, once the journal is stored up to there.
    pub(crate) fn owe(&mut self, lsn: Lsn, owed: Owed) {
        self.owed.push_back((lsn, owed, Cost::default()));
    }

    /// How far the journal is stored.
    pub(crate) fn stored(&mut self) -> Lsn {
        *self.stored.borrow_and_update()
    }

    /// Answers that wait for their turn.
    pub(crate) fn owed(&self) -> usize {
        self.owed.len()
    }

    /// Collects what was settled: shows it to subscribers, answers it in order of arrival, gives its credit back; and
    /// delivers again what was handed back. Without an outbox nobody is left to answer.
    pub(crate) fn collect(&mut self, now: Instant, outbox: Option<&mut BytesMut>) {
        let inbound = Arc::clone(&self.inbound);
        // Held until subscribers have seen what was settled: whoever takes over shows them later messages.
        let Some(mut collecting) = inbound.collecting(self.collector) else { return };
        inbound.window.collect(&mut self.closed, &mut self.returned);
        if !self.closed.is_empty() {
            self.parts.stats.closed(collecting.collected(&inbound, self.closed.len()));
            let mut closed = std::mem::take(&mut self.closed);
            for closed in closed.drain(..) {
                self.close(closed, now, outbox.is_some());
            }
            self.closed = closed;
        }
        for returned in &self.returned {
            self.parts.stats.count_handed_back(returned.kind);
        }
        collecting.redelivery.put(now, self.returned.drain(..));
        collecting.redelivery.deliver_due(now, &inbound.window, &*self.parts.intake);
        drop(collecting);
        self.answer(outbox);
    }

    /// Waits until [`Inflow::collect`] may find something, or the journal is stored up to what the outgoing side waits for.
    /// Dropping the future loses nothing.
    pub(crate) async fn changed(&mut self, outgoing: Option<Lsn>) {
        let Self { inbound, stored, owed, .. } = self;
        let first = owed.front().map(|(lsn, ..)| *lsn).into_iter().chain(outgoing).min();
        tokio::select! {
            () = inbound.window.changed() => {}
            // The journal lives as long as the door.
            _ = stored.wait_for(|stored| Some(*stored) >= first), if first.is_some() => {}
        }
    }

    /// When a delivery that was handed back is due again.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        self.inbound.collecting(self.collector).and_then(|collecting| collecting.redelivery.due_at())
    }

    /// Stays until the last delivery is settled, or another takes over.
    pub(crate) async fn finish(mut self) {
        while self.inbound.collecting(self.collector).is_some() {
            self.collect(Instant::now(), None);
            if self.open() == 0 {
                return;
            }
            let due_at = self.due_at();
            tokio::select! {
                () = self.inbound.window.changed() => {}
                () = self.inbound.passed_on() => {}
                () = sleep_until(due_at.unwrap_or_else(Instant::now)), if due_at.is_some() => {}
            }
        }
        self.inbound.window.wake();
    }

    fn close(&mut self, closed: Closed, now: Instant, is_heard: bool) {
        let Closed { slot, is_refused, message } = closed;
        let is_told = is_heard && slot.epoch == self.collector;
        self.parts.stats.answered(slot.kind, now - slot.received_at);
        let reason = match self.version {
            Version::V4 => Reason::SUCCESS,
            Version::V5 if slot.is_denied => Reason::NOT_AUTHORIZED,
            Version::V5 if is_refused && !slot.echo.is_foreign => Reason::IMPLEMENTATION_SPECIFIC,
            Version::V5 => Reason::SUCCESS,
        };
        // After a kill between two of these changes the message would reach its subscribers twice, or never. Most messages
        // change nothing, and need not take the lock that all sessions take.
        let is_recorded = message.is_some() || !matches!(slot.answer, Answer::None | Answer::PubAck(_));
        let parts = is_recorded.then(|| Arc::clone(&self.parts));
        let _stored_together = parts.as_ref().map(|parts| parts.hub.journal.whole());
        let mut lsn = Lsn::START;
        if let Some(message) = message {
            let Message { topic, payload, qos, .. } = *message;
            let echo = slot.echo;
            lsn = self.parts.hub.publish(Publication {
                topic: echo.topic.unwrap_or(topic),
                payload,
                qos,
                retain: echo.retain,
                carried: echo.carried,
                expires_at: echo.expires_at,
                publisher: slot.publisher,
            });
        }
        let owed = match slot.answer {
            Answer::None => Owed::Nothing,
            Answer::Will(id) => {
                self.parts.hub.journal.note(Change::WillGone { id });
                Owed::Nothing
            }
            Answer::PubAck(packet_id) => Owed::PubAck(packet_id, reason),
            Answer::PubRec(packet_id, fingerprint) => {
                lsn = lsn.max(self.received(slot.publisher, packet_id, fingerprint, reason, is_told));
                Owed::PubRec(packet_id, reason)
            }
            Answer::PubRecAgain(_) if !is_told => Owed::Nothing,
            Answer::PubRecAgain(packet_id) => {
                let reason;
                (lsn, reason) = self.session.answer_again(packet_id);
                Owed::PubRec(packet_id, reason)
            }
        };
        let owed = if is_told { owed } else { Owed::Nothing };
        self.owed.push_back((lsn, owed, slot.cost));
    }

    /// Notes what became of a message at QoS 2: says where that is in the journal.
    fn received(
        &self,
        publisher: u64,
        packet_id: u16,
        fingerprint: Fingerprint,
        reason: Reason,
        is_told: bool,
    ) -> Lsn {
        if publisher != self.session.number() {
            // The session that published it is over, and its ids with it.
            return Lsn::START;
        }
        if reason.is_error() {
            // With an error the exchange is over.
            self.session.refuse(packet_id, fingerprint, reason, is_told);
            return Lsn::START;
        }
        self.session.committed(packet_id, fingerprint)
    }

    /// Writes the answers whose turn has come. Without an outbox nobody is left to answer.
    pub(crate) fn answer(&mut self, mut outbox: Option<&mut BytesMut>) {
        let mut cost = Cost::default();
        let stored = self.stored();
        while let Some((_, owed, paid)) =
            self.owed.pop_front_if(|(lsn, ..)| outbox.is_none() || *lsn <= stored)
        {
            cost = cost.plus(paid);
            if let Some(outbox) = &mut outbox {
                put(outbox, self.version, &owed);
            }
            if let Owed::SubAck(_, _, retained) = owed {
                self.session.offer_retained(retained);
            }
        }
        self.purse().give_back(cost);
    }
}

impl Drop for Inflow {
    fn drop(&mut self) {
        if let Some(mut collecting) = self.inbound.collecting(self.collector) {
            self.parts.stats.abandon(collecting.abandon(&self.inbound));
        }
        let owed = self.owed.drain(..).fold(Cost::default(), |sum, (_, _, cost)| sum.plus(cost));
        let granted = self.granted.take().unwrap_or_default();
        self.purse().give_back(owed.plus(granted));
    }
}

fn put(outbox: &mut BytesMut, version: Version, owed: &Owed) {
    match owed {
        Owed::PubAck(packet_id, reason) => packet::put_puback(outbox, version, *packet_id, *reason),
        Owed::PubRec(packet_id, reason) => packet::put_pubrec(outbox, version, *packet_id, *reason),
        Owed::PubRel(packet_id, reason) => packet::put_pubrel(outbox, version, *packet_id, *reason),
        Owed::PubComp(packet_id, reason) => packet::put_pubcomp(outbox, version, *packet_id, *reason),
        Owed::SubAck(packet_id, codes, _) => packet::put_suback(outbox, version, *packet_id, codes),
        Owed::UnsubAck(packet_id, codes) => packet::put_unsuback(outbox, version, *packet_id, codes),
        Owed::Nothing => {}
    }
}

#[cfg(test)]
#[path = "inflow_tests.rs"]
mod tests;
