//! The window of one source: its open deliveries in the order of arrival, closed in any order, answered in order.
//!
//! A delivery that was handed back is delivered again, and keeps its turn meanwhile: a later one of the same device is
//! *out of turn* until the one before it is settled or under way again, and whoever is about to apply it hands it back.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use schema::clock::Timestamp;
use schema::id::TenantId;
use schema::wire::topic::{Kind, Source, Topic};
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use crate::credits::{Cost, Purse};
use crate::message::{Fingerprint, Message};
use crate::share::Permit;
use crate::store::Owner;

/// Whether anybody listens to what is committed.
pub(crate) trait Audience: Send + Sync + fmt::Debug {
    /// One load, so that publish-only traffic costs nothing.
    fn is_listening(&self) -> bool;
}

/// The answer a closed delivery owes to its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    None,
    PubAck(u16),
    PubRec(u16, Fingerprint),
    /// For a message that came again under an id that is not released.
    PubRecAgain(u16),
    /// Nobody is told. It is a last will that is stored under this key until it is settled.
    Will(Uuid),
}

/// Who wants a message once it is settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Echo {
    /// The canonical spelling of its topic, where it was published under another one.
    pub(crate) topic: Option<Arc<str>>,
    /// It becomes the retained message of its topic.
    pub(crate) retain: bool,
    /// Subscribers see it.
    pub(crate) fan_out: bool,
    /// Its topic means nothing to the engine, which refuses and records it; it is only for those who subscribe.
    pub(crate) is_foreign: bool,
    /// Properties of MQTT 5 that travel with it.
    pub(crate) carried: Bytes,
    /// Nobody wants it after this.
    pub(crate) expires_at: Option<Timestamp>,
}

/// What is remembered of an open delivery.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) answer: Answer,
    pub(crate) cost: Cost,
    pub(crate) echo: Echo,
    /// The topic may not be used by the client.
    pub(crate) is_denied: bool,
    pub(crate) kind: Option<Kind>,
    pub(crate) received_at: Instant,
    /// The connection it came over: only that one gets its answer.
    pub(crate) epoch: u64,
    /// The session that published it; zero for the link.
    pub(crate) publisher: u64,
    /// What a last will takes from the budget of wills until it is settled.
    pub(crate) _will: Option<Arc<Permit<Owner>>>,
}

/// A delivery whose turn to be answered has come.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) slot: Slot,
    /// It was refused for good.
    pub(crate) is_refused: bool,
    /// The message, when somebody wants it after the commit.
    pub(crate) message: Option<Box<Message>>,
}

/// A delivery that was dropped before it was done.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) lane: Lane,
    pub(crate) sequence: u64,
    pub(crate) kind: Option<Kind>,
    pub(crate) message: Message,
    pub(crate) attempt: u32,
}

/// The place of a delivery among those of its source, and the round in which it set out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) sequence: u64,
    pub(crate) round: u64,
}

/// The open deliveries of one source. Only the source opens and collects; anybody closes, on any thread.
#[derive(Debug)]
pub struct Window {
    state: Mutex<State>,
    changed: Notify,
    purse: Arc<Purse>,
    audience: Option<Arc<dyn Audience>>,
    /// Something was handed back and is not settled yet, which is rare: nearly every delivery need not look further.
    has_returned: AtomicBool,
}

/// What keeps its order: the messages of one device or station. `None`: topics that are nobody's.
pub(crate) type Lane = Option<(TenantId, Source)>;

fn lane_of(topic: &str) -> Lane {
    let topic = Topic::parse(topic).ok()?;
    Some((topic.place().tenant_id.clone(), topic.source()))
}

/// Where a delivery stands that was handed back and is not settled yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    /// It waits to be delivered again.
    Waits,
    /// It was delivered again in this round.
    In(u64),
}

#[derive(Debug, Default)]
struct State {
    /// How often something was delivered again.
    round: u64,
    /// By lane, the deliveries that were handed back and are not settled yet.
    retries: HashMap<Lane, Vec<(u64, Retry)>>,
    /// Sequence number of the first slot.
    first: u64,
    slots: VecDeque<Open>,
    returned: Vec<Returned>,
    /// The source was told and has not looked since: a burst of closings wakes it once.
    is_signaled: bool,
}

#[derive(Debug)]
struct Open {
    slot: Slot,
    is_closed: bool,
    is_refused: bool,
    message: Option<Box<Message>>,
}

impl Window {
    pub(crate) fn new(purse: Arc<Purse>, audience: Option<Arc<dyn Audience>>) -> Arc<Self> {
        let (state, changed, has_returned) = <(Mutex<State>, Notify, AtomicBool)>::default();
        Arc::new(Self { state, changed, purse, audience, has_returned })
    }

    /// Appends a delivery whose cost was taken from the credit, and says its place.
    pub(crate) fn open(&self, slot: Slot) -> Turn {
        let mut state = self.lock();
        state.slots.push_back(Open { slot, is_closed: false, is_refused: false, message: None });
        Turn { sequence: state.first + state.slots.len() as u64 - 1, round: state.round }
    }

    /// Appends what needs no delivery, and only waits for those before it.
    pub(crate) fn open_settled(&self, slot: Slot) {
        let mut state = self.lock();
        let is_front = state.slots.is_empty();
        state.slots.push_back(Open { slot, is_closed: true, is_refused: false, message: None });
        if is_front {
            self.signal(state);
        }
    }

    /// Whether an earlier delivery of the same lane was handed back and did not set out before this one.
    pub(crate) fn is_out_of_turn(&self, turn: Turn, topic: &str) -> bool {
        if !self.has_returned.load(Ordering::Acquire) {
            return false;
        }
        let passes = |(sequence, retry): &(u64, Retry)| {
            *sequence < turn.sequence
                && match retry {
                    Retry::Waits => true,
                    Retry::In(round) => *round > turn.round,
                }
        };
        self.lock().retries.get(&lane_of(topic)).is_some_and(|retries| retries.iter().any(passes))
    }

    /// These deliveries of a lane set out again; says in which round.
    pub(crate) fn set_out_again(&self, lane: &Lane, returned: &[Returned]) -> u64 {
        let mut state = self.lock();
        state.round += 1;
        let round = state.round;
        for (sequence, retry) in state.retries.get_mut(lane).into_iter().flatten() {
            if returned.iter().any(|returned| returned.sequence == *sequence) {
                *retry = Retry::In(round);
            }
        }
        round
    }

    /// The delivery is settled: committed, or refused for good.
    pub(crate) fn close(&self, sequence: u64, message: &Message, is_refused: bool) {
        let mut state = self.lock();
        if self.has_returned.load(Ordering::Relaxed) {
            state.forget_retry(sequence, &message.topic);
            self.has_returned.store(!state.retries.is_empty(), Ordering::Release);
        }
        let is_front = sequence == state.first;
        let open = state.slot_mut(sequence);
        (open.is_closed, open.is_refused) = (true, is_refused);
        let is_shown = !is_refused || open.slot.echo.is_foreign;
        if is_shown && self.is_wanted(&open.slot.echo) {
            open.message = Some(Box::new(message.clone()));
        }
        if is_front {
            self.signal(state);
        }
    }

    /// The delivery was dropped; the source delivers it again.
    pub(crate) fn hand_back(&self, sequence: u64, message: Message, attempt: u32) {
        let mut state = self.lock();
        let kind = state.slot_mut(sequence).slot.kind;
        let lane = lane_of(&message.topic);
        let retries = state.retries.entry(lane.clone()).or_default();
        match retries.iter_mut().find(|(known, _)| *known == sequence) {
            Some(retry) => retry.1 = Retry::Waits,
            None => retries.push((sequence, Retry::Waits)),
        }
        self.has_returned.store(true, Ordering::Release);
        state.returned.push(Returned { lane, sequence, kind, message, attempt });
        self.signal(state);
    }

    /// Moves what can be answered, in order of arrival, and what was handed back.
    pub(crate) fn collect(&self, closed: &mut Vec<Closed>, returned: &mut Vec<Returned>) {
        let mut state = self.lock();
        state.is_signaled = false;
        returned.append(&mut state.returned);
        while let Some(open) = state.slots.pop_front_if(|open| open.is_closed) {
            state.first += 1;
            let Open { slot, is_refused, message, is_closed: _ } = open;
            closed.push(Closed { slot, is_refused, message });
        }
    }

    /// Waits until [`Window::collect`] may find something.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Has somebody else look: whoever calls this was woken and does not collect.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }

    fn is_wanted(&self, echo: &Echo) -> bool {
        echo.retain
            || (echo.fan_out && self.audience.as_ref().is_some_and(|audience| audience.is_listening()))
    }

    fn signal(&self, mut state: MutexGuard<'_, State>) {
        if !state.is_signaled {
            state.is_signaled = true;
            drop(state);
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn slot_mut(&mut self, sequence: u64) -> &mut Open {
        let index =
            usize::try_from(sequence - self.first).expect("a window is shorter than the address space");
        &mut self.slots[index]
    }

    fn forget_retry(&mut self, sequence: u64, topic: &str) {
        let Entry::Occupied(mut lane) = self.retries.entry(lane_of(topic)) else { return };
        lane.get_mut().retain(|(known, _)| *known != sequence);
        if lane.get().is_empty() {
            lane.remove();
        }
    }
}

impl Drop for Window {
    /// The source died with deliveries out: the last of them to go gives the credit back.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for open in state.slots.drain(..) {
            self.purse.give_back(open.slot.cost);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window() -> Arc<Window> {
        Window::new(Purse::alone(1000, 1 << 20, 1024, Arc::default()), None)
    }

    fn slot(packet_id: u16) -> Slot {
        Slot {
            answer: Answer::PubAck(packet_id),
            cost: Cost::default(),
            echo: Echo::default(),
            is_denied: false,
            kind: None,
            received_at: Instant::now(),
            epoch: 0,
            publisher: 0,
            _will: None,
        }
    }

    fn message() -> Message {
        Message {
            topic: Arc::from("t"),
            parsed: None,
            payload: Bytes::new(),
            qos: crate::Qos::AtLeastOnce,
            retain: false,
            received_at: Instant::now(),
            arrived_at: Timestamp::UNIX_EPOCH,
            identity: None,
            verdict: crate::Verdict::Admitted,
        }
    }

    fn answers(window: &Window) -> Vec<Answer> {
        let (mut closed, mut returned) = (Vec::new(), Vec::new());
        window.collect(&mut closed, &mut returned);
        closed.into_iter().map(|closed| closed.slot.answer).collect()
    }

    proptest! {
        #[test]
        fn answers_leave_in_order_of_arrival_whatever_the_order_of_closing(
            order in Just((0u64..40).collect::<Vec<_>>()).prop_shuffle(),
            looks in proptest::collection::vec(any::<bool>(), 40),
        ) {
            let window = window();
            for packet_id in 0..40 {
                window.open(slot(packet_id));
            }
            let mut seen = Vec::new();
            for (sequence, look) in order.into_iter().zip(looks) {
                window.close(sequence, &message(), false);
                if look {
                    seen.extend(answers(&window));
                }
            }
            seen.extend(answers(&window));
            prop_assert_eq!(seen, (0..40).map(Answer::PubAck).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_window_that_is_dropped_gives_its_credit_back() {
        let purse = Purse::alone(1, 4096, 1024, Arc::default());
        let cost = Cost::of_message(100);
        assert!(purse.try_take(cost));
        let window = Window::new(Arc::clone(&purse), None);
        window.open(Slot { cost, ..slot(1) });
        assert!(!purse.try_take(cost));
        drop(window);
        assert!(purse.try_take(cost));
    }
}
