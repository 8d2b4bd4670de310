//! What flows in over one connection: its open deliveries, from the intake to the answer. Outlives the stream.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::time::{Instant, sleep_until};

use crate::credits::Cost;
use crate::delivery::{Delivery, Message, Verdict};
use crate::door::topics::KnownTopic;
use crate::door::{Shared, codec};
use crate::redelivery::Redelivery;
use crate::window::{Answer, Closed, Echo, Returned, Slot, Window};

/// The deliveries of a connection; outlives its stream.
pub(crate) struct Inflow {
    shared: Arc<Shared>,
    window: Arc<Window>,
    /// Deliveries that are not answered yet.
    pub(crate) open: usize,
    redelivery: Redelivery,
    closed: Vec<Closed>,
    returned: Vec<Returned>,
    /// Credit that was taken for the packet that is being read.
    pub(crate) granted: Option<Cost>,
    /// Packet ids at QoS 2 from PUBLISH to PUBREL; true once PUBREC was sent.
    pub(crate) unreleased: HashMap<u16, bool>,
}

impl Inflow {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
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
    pub(crate) fn grant(&mut self, cost: Cost) -> bool {
        if self.granted.is_none() && self.shared.credits.try_take(cost) {
            self.granted = Some(cost);
        }
        self.granted.is_some()
    }

    /// Opens the delivery of a message and hands it to the intake.
    pub(crate) fn deliver(&mut self, message: Message, topic: &KnownTopic, answer: Answer, cost: Cost) {
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
    pub(crate) fn collect(&mut self, now: Instant, mut outbox: Option<&mut BytesMut>) {
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

    /// Waits until [`Inflow::collect`] may find something.
    pub(crate) async fn changed(&self) {
        self.window.changed().await;
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
