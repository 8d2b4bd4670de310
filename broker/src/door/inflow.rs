//! What flows in over one connection: its open deliveries, from the intake to the answer. Outlives the stream.
//!
//! An answer leaves when everything before it left, and when the journal holds what it promises.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use schema::clock::Clock;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::credits::{Cost, Credits};
use crate::delivery::{Delivery, Intake};
use crate::door::hub::Hub;
use crate::door::journal::Place;
use crate::door::packet::{self, Reason, Version};
use crate::door::queue::Parcel;
use crate::door::refusals::Refusals;
use crate::door::session::Session;
use crate::door::topics::{KnownTopic, Publisher};
use crate::door::will::{DelayedWill, HeldWill};
use crate::gatekeeper::{Gatekeeper, Principal};
use crate::message::{Message, Verdict};
use crate::publication::Publication;
use crate::redelivery::Redelivery;
use crate::stats::{DoorStats, Refusal};
use crate::window::{Answer, Audience, Closed, Returned, Slot, Window};

/// An answer the client is to get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owed {
    PubAck(u16, Reason),
    PubRec(u16, Reason),
    PubComp(u16, Reason),
    /// With the retained messages that follow it.
    SubAck(u16, Vec<u8>, Vec<Parcel>),
    UnsubAck(u16, Vec<Reason>),
    /// Nothing; only the credit is to be given back.
    Nothing,
}

/// What all inflows work with.
pub(crate) struct InflowParts {
    pub(crate) credits: Arc<Credits>,
    pub(crate) stats: Arc<DoorStats>,
    pub(crate) intake: Arc<dyn Intake>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) gatekeeper: Arc<dyn Gatekeeper>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) clock: Clock,
}

/// The deliveries of a connection; outlives its stream.
pub(crate) struct Inflow {
    parts: Arc<InflowParts>,
    session: Arc<Session>,
    version: Version,
    window: Arc<Window>,
    /// Deliveries that are not settled yet.
    pub(crate) open: usize,
    /// Messages at quality 1 that are not answered yet.
    pub(crate) unacknowledged: usize,
    redelivery: Redelivery,
    closed: Vec<Closed>,
    returned: Vec<Returned>,
    /// Answers in their order, each with the place in the journal it waits for.
    owed: VecDeque<(Place, Owed, Cost)>,
    stored: watch::Receiver<Place>,
    /// Ids of messages at quality 2 that came again while their first delivery, over an earlier connection, was open.
    awaited: Vec<u16>,
    /// Credit that was taken for the packet that is being read.
    pub(crate) granted: Option<Cost>,
}

impl Inflow {
    pub(crate) fn new(parts: Arc<InflowParts>, session: Arc<Session>, version: Version) -> Self {
        let audience = Arc::clone(&parts.hub) as Arc<dyn Audience>;
        Self {
            window: Window::new(Arc::clone(&parts.credits), Some(audience)),
            stored: parts.hub.journal.follow(),
            parts,
            session,
            version,
            open: 0,
            unacknowledged: 0,
            redelivery: Redelivery::default(),
            closed: Vec::new(),
            returned: Vec::new(),
            owed: VecDeque::new(),
            awaited: Vec::new(),
            granted: None,
        }
    }

    /// Takes the credit of the packet that is being read, unless it was taken before; false when it is spent.
    pub(crate) fn grant(&mut self, cost: Cost) -> bool {
        if self.granted.is_none() && self.parts.credits.try_take(cost) {
            self.granted = Some(cost);
        }
        self.granted.is_some()
    }

    /// Opens the delivery of a message and hands it to the intake.
    pub(crate) fn deliver(&mut self, message: Message, slot: Slot) {
        self.unacknowledged += usize::from(matches!(slot.answer, Answer::PubAck(_)));
        let turn = self.window.open(slot);
        self.open += 1;
        self.parts.stats.opened();
        self.parts.intake.take(Delivery::from_window(message, 0, Arc::clone(&self.window), turn));
    }

    /// Hands a last will in like a message that came over the connection.
    pub(crate) fn deliver_will(&mut self, will: HeldWill, principal: &Principal) {
        let HeldWill { will, reserved } = will;
        let scope = principal.device().and_then(|identity| self.parts.gatekeeper.scope(identity));
        let topic = KnownTopic::judge(&will.topic, Publisher::of(principal, scope.as_ref()));
        if !topic.may_publish && self.parts.refusals.count(Refusal::Acl) {
            let device_id = principal.device().map(|identity| identity.device_id.as_str());
            tracing::info!(device_id, topic = &*topic.name, "last will refused: outside the scope");
        }
        let (received_at, arrived_at) = (Instant::now(), self.parts.clock.now());
        let slot = Slot {
            answer: Answer::None,
            cost: reserved.take(),
            echo: topic.echo(will.retain, will.properties, arrived_at),
            is_denied: !topic.may_publish,
            kind: topic.kind,
            received_at,
            epoch: 0,
        };
        let message = Message {
            topic: Arc::clone(&topic.name),
            payload: will.payload,
            qos: will.qos,
            retain: will.retain,
            received_at,
            arrived_at,
            identity: principal.device().cloned(),
            verdict: if topic.may_publish { Verdict::Admitted } else { Verdict::AclDenied },
        };
        self.deliver(message, slot);
    }

    /// Has the client get an answer, in its turn.
    pub(crate) fn owe(&mut self, place: Place, owed: Owed) {
        self.owed.push_back((place, owed, Cost::default()));
    }

    /// Has the client get the answer of a message at quality 2 that another delivery brings to its end.
    pub(crate) fn await_commit(&mut self, packet_id: u16) {
        self.awaited.push(packet_id);
    }

    /// Answers that wait for their turn.
    pub(crate) fn owed(&self) -> usize {
        self.owed.len() + self.awaited.len()
    }

    /// Collects what was settled: shows it to subscribers, answers it in order of arrival, gives its credit back; and
    /// delivers again what was handed back.
    pub(crate) fn collect(&mut self, now: Instant, outbox: Option<&mut BytesMut>) {
        self.window.collect(&mut self.closed, &mut self.returned);
        if !self.closed.is_empty() {
            self.open -= self.closed.len();
            self.parts.stats.closed(self.closed.len());
            let mut closed = std::mem::take(&mut self.closed);
            for closed in closed.drain(..) {
                self.close(closed, now);
            }
            self.closed = closed;
        }
        self.answer(outbox);
        for returned in &self.returned {
            self.parts.stats.count_handed_back(returned.kind);
        }
        self.redelivery.put(now, self.returned.drain(..));
        self.redelivery.deliver_due(now, &self.window, &*self.parts.intake);
    }

    /// Waits until [`Inflow::collect`] may find something. Dropping the future loses nothing.
    pub(crate) async fn changed(&mut self) {
        let Self { window, stored, owed, .. } = self;
        let place = owed.front().map(|(place, ..)| *place);
        tokio::select! {
            () = window.changed() => {}
            // The journal lives as long as the door.
            _ = stored.wait_for(|stored| Some(*stored) >= place), if place.is_some() => {}
        }
    }

    /// When a delivery that was handed back is due again.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        self.redelivery.due_at()
    }

    /// Stays until the last delivery is settled.
    pub(crate) async fn finish(mut self) {
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

    fn close(&mut self, closed: Closed, now: Instant) {
        let Closed { slot, is_refused, message } = closed;
        self.parts.stats.answered(slot.kind, now - slot.received_at);
        let reason = match self.version {
            Version::V4 => Reason::SUCCESS,
            Version::V5 if slot.is_denied => Reason::NOT_AUTHORIZED,
            Version::V5 if is_refused && !slot.echo.is_foreign => Reason::IMPLEMENTATION_SPECIFIC,
            Version::V5 => Reason::SUCCESS,
        };
        let mut place = Place::START;
        if let Some(message) = message {
            let Message { topic, payload, qos, .. } = *message;
            let echo = slot.echo;
            place = self.parts.hub.publish(Publication {
                topic,
                payload,
                qos,
                retain: echo.retain,
                carried: echo.carried,
                expires_at: echo.expires_at,
                publisher: self.session.number(),
            });
        }
        let owed = match slot.answer {
            Answer::None => Owed::Nothing,
            Answer::PubAck(packet_id) => Owed::PubAck(packet_id, reason),
            Answer::PubRec(packet_id) => {
                if reason.is_error() {
                    // With an error the exchange is over.
                    self.session.uncommitted(packet_id);
                } else {
                    place = place.max(self.session.committed(packet_id));
                }
                Owed::PubRec(packet_id, reason)
            }
        };
        self.owed.push_back((place, owed, slot.cost));
    }

    /// Has the client get the answers of messages at quality 2 that came again, as soon as they are committed.
    fn owe_awaited(&mut self) {
        let Self { awaited, owed, session, .. } = self;
        awaited.retain(|packet_id| match session.committed_at(*packet_id) {
            Some(place) => {
                owed.push_back((place, Owed::PubRec(*packet_id, Reason::SUCCESS), Cost::default()));
                false
            }
            None => true,
        });
    }

    /// Writes the answers whose turn has come. Without an outbox nobody is left to answer.
    pub(crate) fn answer(&mut self, mut outbox: Option<&mut BytesMut>) {
        self.owe_awaited();
        let mut cost = Cost::default();
        let stored = *self.stored.borrow_and_update();
        while let Some((_, owed, paid)) =
            self.owed.pop_front_if(|(place, ..)| outbox.is_none() || *place <= stored)
        {
            cost = cost.plus(paid);
            self.unacknowledged -= usize::from(matches!(owed, Owed::PubAck(..)));
            if let Some(outbox) = &mut outbox {
                put(outbox, self.version, &owed);
            }
            if let Owed::SubAck(_, _, retained) = owed {
                self.session.offer_retained(retained);
            }
        }
        self.parts.credits.give_back(cost);
    }
}

/// Publishes a will whose client did not come back in time, and stays until it is settled.
pub(crate) async fn publish_delayed(parts: Arc<InflowParts>, delayed: DelayedWill) {
    let DelayedWill { will, principal, session, .. } = delayed;
    let mut inflow = Inflow::new(parts, session, Version::V4);
    inflow.deliver_will(will, &principal);
    inflow.finish().await;
}

impl Drop for Inflow {
    fn drop(&mut self) {
        self.parts.stats.abandon(self.open);
        let owed = self.owed.drain(..).fold(Cost::default(), |sum, (_, _, cost)| sum.plus(cost));
        self.parts.credits.give_back(owed.plus(self.granted.take().unwrap_or_default()));
    }
}

fn put(outbox: &mut BytesMut, version: Version, owed: &Owed) {
    match owed {
        Owed::PubAck(packet_id, reason) => packet::put_puback(outbox, version, *packet_id, *reason),
        Owed::PubRec(packet_id, reason) => packet::put_pubrec(outbox, version, *packet_id, *reason),
        Owed::PubComp(packet_id, reason) => packet::put_pubcomp(outbox, version, *packet_id, *reason),
        Owed::SubAck(packet_id, codes, _) => packet::put_suback(outbox, version, *packet_id, codes),
        Owed::UnsubAck(packet_id, codes) => packet::put_unsuback(outbox, version, *packet_id, codes),
        Owed::Nothing => {}
    }
}
