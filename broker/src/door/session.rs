//! One session: what a client subscribed to, what waits for it, and which messages at quality 2 it is in the middle of.
//!
//! It may outlive its connection, and then whatever happens to it goes to the journal as well.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schema::clock::Timestamp;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::door::journal::{Journal, Place};
use crate::door::packet::{Malformed, Reason};
use crate::door::pending::{Pending, PendingRetained};
use crate::door::queue::{Manner, Parcel, Queue, QueueBudget, QueueLimits, Step, Written};
use crate::door::retained::Retained;
use crate::filter::{self, Shared};
use crate::message::Qos;
use crate::publication::Publication;
use crate::stats::{DoorStats, QueueDrop};
use crate::store::{Change, Client, Queued, StoredSession, Subscription};

/// Looks at the retained messages in one turn of a connection.
const LOOK_UPS_MAX: usize = 8;

/// What all sessions work with.
pub(crate) struct SessionParts {
    pub(crate) retained: Arc<Retained>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) stats: Arc<DoorStats>,
    pub(crate) budget: QueueBudget,
    pub(crate) limits: QueueLimits,
}

/// A session.
pub(crate) struct Session {
    parts: Arc<SessionParts>,
    number: u64,
    id: Uuid,
    client: Client,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    /// Seconds it outlives its connection; zero when it ends with it.
    expiry_seconds: u32,
    is_connected: bool,
    subscriptions: Vec<Subscription>,
    /// Ids of messages at QoS 2, from PUBLISH to PUBREL.
    received: HashMap<u16, Receipt>,
    queue: Queue,
    /// Retained messages for new subscriptions, which come to the queue as there is room.
    pending: Pending,
}

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotQueued {
    /// It carries no promise, and the client is not there.
    Away,
    /// There is no room for it.
    NoRoom(QueueDrop),
}

/// What became of a message at QoS 2 that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receipt {
    /// It is not committed yet.
    Pending,
    /// It is committed, there in the journal.
    Committed(Place),
    /// It was refused for this reason, and its sender was not there any more to be told.
    Refused(Reason),
}

impl Session {
    /// A session nobody is connected to yet.
    pub(crate) fn new(
        parts: &Arc<SessionParts>,
        number: u64,
        client: Client,
        expiry_seconds: u32,
    ) -> Arc<Self> {
        Arc::new(Self {
            number,
            id: Uuid::now_v7(),
            state: Mutex::new(State {
                expiry_seconds,
                is_connected: false,
                subscriptions: Vec::new(),
                received: HashMap::new(),
                queue: Queue::new(&parts.budget, &client.owner),
                pending: Pending::default(),
            }),
            client,
            changed: Notify::new(),
            parts: Arc::clone(parts),
        })
    }

    /// A session as it was stored, without a connection.
    pub(crate) fn restore(parts: &Arc<SessionParts>, number: u64, stored: StoredSession) -> Arc<Self> {
        let StoredSession { id, client, expiry_seconds, left_at: _, subscriptions, received, queue } = stored;
        Arc::new(Self {
            number,
            id,
            state: Mutex::new(State {
                expiry_seconds,
                is_connected: false,
                subscriptions,
                received: received
                    .into_iter()
                    .map(|packet_id| (packet_id, Receipt::Committed(Place::START)))
                    .collect(),
                queue: Queue::restore(&parts.budget, &client.owner, queue),
                pending: Pending::default(),
            }),
            client,
            changed: Notify::new(),
            parts: Arc::clone(parts),
        })
    }

    /// Its number among the sessions of this process.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whose it is.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether its client is there.
    pub(crate) fn is_connected(&self) -> bool {
        self.lock().is_connected
    }

    /// Seconds it outlives its connection; zero when it ends with it.
    pub(crate) fn expiry_seconds(&self) -> u32 {
        self.lock().expiry_seconds
    }

    /// The client is there, and wants the session to last so long after it left.
    pub(crate) fn attach(&self, expiry_seconds: u32) {
        let mut state = self.lock();
        self.set_expiry(&mut state, expiry_seconds);
        state.is_connected = true;
        state.queue.restart();
        if expiry_seconds > 0 {
            self.record_life(&state, None);
        }
    }

    /// The client left.
    pub(crate) fn detach(&self, now: Timestamp) {
        let mut state = self.lock();
        state.is_connected = false;
        if state.expiry_seconds > 0 {
            self.record_life(&state, Some(now));
        }
    }

    /// The session lasts so long after its client left.
    pub(crate) fn expire_after(&self, expiry_seconds: u32) {
        self.set_expiry(&mut self.lock(), expiry_seconds);
    }

    /// The session is over.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        if state.expiry_seconds > 0 {
            state.expiry_seconds = 0;
            self.parts.journal.record(Change::Ended { id: self.id });
        }
    }

    /// What the client subscribed to.
    pub(crate) fn subscriptions(&self) -> Vec<Subscription> {
        self.lock().subscriptions.clone()
    }

    /// Adds or replaces a subscription: says where that is in the journal, and which one it replaced. `None` when the
    /// client has as many as it may have.
    pub(crate) fn subscribe(
        &self,
        subscription: Subscription,
        subscriptions_max: usize,
    ) -> Option<(Place, Option<Subscription>)> {
        let mut state = self.lock();
        let count = state.subscriptions.len();
        let known = state.subscriptions.iter_mut().find(|known| known.filter == subscription.filter);
        let replaced = match known {
            Some(known) => Some(std::mem::replace(known, subscription.clone())),
            None if count >= subscriptions_max => return None,
            None => {
                state.subscriptions.push(subscription.clone());
                None
            }
        };
        let place = self.record(&state, || Change::Subscribed { id: self.id, subscription });
        Some((place, replaced))
    }

    /// Removes a subscription: says where that is in the journal. `None` when there is none.
    pub(crate) fn unsubscribe(&self, filter: &str) -> Option<(Place, Subscription)> {
        let mut state = self.lock();
        let index = state.subscriptions.iter().position(|known| *known.filter == *filter)?;
        let removed = state.subscriptions.remove(index);
        state.pending.remove(filter);
        let place =
            self.record(&state, || Change::Unsubscribed { id: self.id, filter: Arc::clone(&removed.filter) });
        Some((place, removed))
    }

    /// Takes out what waits for subscriptions the client may not have any more: all that none of the others matches.
    pub(crate) fn drop_unsubscribed(&self) {
        let mut state = self.lock();
        let State { queue, subscriptions, pending, .. } = &mut *state;
        pending.keep_only(subscriptions);
        let is_wanted = |publication: &Publication| {
            subscriptions.iter().any(|known| {
                let filter = Shared::parse(&known.filter).map_or(&*known.filter, |shared| shared.filter);
                filter::matches(filter, &publication.topic)
            })
        };
        let mut dropped = Vec::new();
        queue.retain(is_wanted, |sequence| dropped.push(sequence));
        for sequence in dropped {
            self.record(&state, || Change::Dequeued { id: self.id, sequence });
        }
    }

    /// Takes out what waited too long.
    pub(crate) fn drop_aged(&self, now: Timestamp) {
        let mut state = self.lock();
        let age_max = self.parts.limits.age_max;
        let mut dropped = Vec::new();
        state.queue.drop_aged(now, age_max, |sequence| dropped.push(sequence));
        for sequence in dropped {
            self.parts.stats.count_queue_dropped(QueueDrop::Age);
            self.record(&state, || Change::Dequeued { id: self.id, sequence });
        }
    }

    /// Queues a message for the client: says where that is in the journal. What finds no room is counted.
    pub(crate) fn offer(&self, parcel: Parcel, now: Timestamp) -> Place {
        match self.try_offer(parcel, now) {
            Ok(place) => place,
            Err(NotQueued::Away) => Place::START,
            Err(NotQueued::NoRoom(reason)) => {
                self.parts.stats.count_queue_dropped(reason);
                Place::START
            }
        }
    }

    /// Queues a message for the client if there is room: says where that is in the journal. A message without a promise is
    /// for those who are there.
    pub(crate) fn try_offer(&self, parcel: Parcel, now: Timestamp) -> Result<Place, NotQueued> {
        let mut state = self.lock();
        if !state.is_connected && parcel.manner.qos == Qos::AtMostOnce {
            return Err(NotQueued::Away);
        }
        let is_lasting = state.expiry_seconds > 0;
        let place = self.enqueue(&mut state.queue, is_lasting, parcel, now);
        drop(state);
        self.changed.notify_one();
        place.map_err(NotQueued::NoRoom)
    }

    /// Has the retained messages of new subscriptions sent to the client, as there is room for them.
    pub(crate) fn offer_retained(&self, pending: Vec<PendingRetained>) {
        let mut state = self.lock();
        let State { pending: known, subscriptions, .. } = &mut *state;
        pending.into_iter().for_each(|pending| known.put(pending));
        // The client may have taken back what is only answered now.
        known.keep_only(subscriptions);
        drop(state);
        self.changed.notify_one();
    }

    /// Writes what may be written now; says whether there may be more at once.
    pub(crate) fn send(
        &self,
        now: Timestamp,
        in_flight_max: usize,
        mut write: impl FnMut(Step<'_>) -> Written,
    ) -> bool {
        let mut state = self.lock();
        for _ in 0..LOOK_UPS_MAX {
            self.write(&mut state, now, in_flight_max, &mut write);
            if state.pending.is_empty() || !self.look_up_retained(&mut state, now, in_flight_max) {
                return false;
            }
        }
        true
    }

    fn write(
        &self,
        state: &mut State,
        now: Timestamp,
        in_flight_max: usize,
        write: impl FnMut(Step<'_>) -> Written,
    ) {
        let mut dropped = Vec::new();
        state.queue.send(now, in_flight_max, self.parts.limits.age_max, write, |sequence, reason| {
            self.parts.stats.count_queue_dropped(reason);
            dropped.extend(sequence);
        });
        for sequence in dropped {
            self.record(state, || Change::Dequeued { id: self.id, sequence });
        }
    }

    /// Queues retained messages as far as there is room for them, so that however many there are, none falls to a limit.
    /// Says whether there is something new to write, or to look at.
    fn look_up_retained(&self, state: &mut State, now: Timestamp, in_flight_max: usize) -> bool {
        let State { queue, pending, expiry_seconds, .. } = state;
        let queued_max = in_flight_max.min(self.parts.limits.messages_max);
        let queued = queue.len();
        if queued >= queued_max {
            return false;
        }
        let mut has_room = true;
        pending.look_up(&self.parts.retained, now, |parcel| {
            if queue.len() >= queued_max {
                return false;
            }
            match self.enqueue(queue, *expiry_seconds > 0, parcel, now) {
                Ok(_) => true,
                // It waits until the client has what is before it.
                Err(_) if queue.len() > 0 => {
                    has_room = false;
                    false
                }
                Err(reason) => {
                    self.parts.stats.count_queue_dropped(reason);
                    true
                }
            }
        });
        has_room || queue.len() > queued
    }

    /// The client has a message at quality 1.
    pub(crate) fn acknowledged(&self, packet_id: u16) -> Result<(), Malformed> {
        let mut state = self.lock();
        let sequence = state.queue.acknowledged(packet_id)?;
        self.record_dequeued(&state, sequence);
        Ok(())
    }

    /// The client has a message at quality 2, and is told to release its id; false for an id that is not in use.
    pub(crate) fn taken(&self, packet_id: u16) -> Result<bool, Malformed> {
        let mut state = self.lock();
        match state.queue.taken(packet_id) {
            Ok(news) => {
                if let Some(sequence) = news {
                    self.record(&state, || Change::Taken { id: self.id, sequence });
                }
                Ok(true)
            }
            Err(None) => Ok(false),
            Err(Some(malformed)) => Err(malformed),
        }
    }

    /// The client refused a message at quality 2.
    pub(crate) fn refused(&self, packet_id: u16) -> Result<(), Malformed> {
        let mut state = self.lock();
        let sequence = state.queue.refused(packet_id)?;
        self.record_dequeued(&state, sequence);
        Ok(())
    }

    /// The client released the id of a message at quality 2.
    pub(crate) fn completed(&self, packet_id: u16) -> Result<(), Malformed> {
        let mut state = self.lock();
        let sequence = state.queue.completed(packet_id)?;
        self.record_dequeued(&state, sequence);
        Ok(())
    }

    /// Takes the id of a message at QoS 2 that arrives; false when the same message came before.
    pub(crate) fn receive(&self, packet_id: u16) -> bool {
        let mut state = self.lock();
        let is_new = !state.received.contains_key(&packet_id);
        if is_new {
            state.received.insert(packet_id, Receipt::Pending);
        }
        is_new
    }

    /// Messages at quality 2 that are not released.
    pub(crate) fn unreleased(&self) -> usize {
        self.lock().received.len()
    }

    /// The message that arrived under an id is committed: says where that is in the journal.
    pub(crate) fn committed(&self, packet_id: u16) -> Place {
        let mut state = self.lock();
        let place = self.record(&state, || Change::Received { id: self.id, packet_id });
        state.received.insert(packet_id, Receipt::Committed(place));
        place
    }

    /// The message that arrived under an id was refused. The id is free when its sender is told so; otherwise the sender is
    /// told when the message comes again.
    pub(crate) fn refuse(&self, packet_id: u16, reason: Reason, is_told: bool) {
        let mut state = self.lock();
        if is_told {
            state.received.remove(&packet_id);
        } else {
            state.received.insert(packet_id, Receipt::Refused(reason));
        }
    }

    /// What the sender of a message that came again is told, and how far the journal must be stored before that.
    pub(crate) fn answer_again(&self, packet_id: u16) -> (Place, Reason) {
        let mut state = self.lock();
        match state.received.get(&packet_id).copied() {
            Some(Receipt::Committed(place)) => (place, Reason::SUCCESS),
            Some(Receipt::Refused(reason)) => {
                state.received.remove(&packet_id);
                (Place::START, reason)
            }
            // It came twice, and was refused the first time.
            Some(Receipt::Pending) | None => (Place::START, Reason::UNSPECIFIED),
        }
    }

    /// The client released an id: says where that is in the journal. `Ok(None)` for an id that is not in use.
    pub(crate) fn release(&self, packet_id: u16) -> Result<Option<Place>, Malformed> {
        let mut state = self.lock();
        match state.received.get(&packet_id) {
            None => Ok(None),
            Some(Receipt::Pending | Receipt::Refused(_)) => {
                Err(Malformed::protocol("PUBREL before its PUBREC"))
            }
            Some(Receipt::Committed(_)) => {
                state.received.remove(&packet_id);
                Ok(Some(self.record(&state, || Change::Released { id: self.id, packet_id })))
            }
        }
    }

    /// Waits until there may be something to send or to answer. Dropping the future loses nothing.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The numbers of the live subscriptions a message matches, and whether one of them wants its retain flag; `None`
    /// when none matches.
    pub(crate) fn live_matches(&self, publication: &Publication) -> Option<(Vec<NonZeroU32>, bool)> {
        let state = self.lock();
        let mut matching = (state.subscriptions.iter())
            .filter(|known| is_live(known) && filter::matches(&known.filter, &publication.topic))
            .filter(|known| !(known.no_local && publication.publisher == self.number))
            .peekable();
        matching.peek()?;
        Some(matching.fold((Vec::new(), false), |(mut ids, retain), known| {
            ids.extend(known.id);
            (ids, retain || known.retain_as_published)
        }))
    }

    fn enqueue(
        &self,
        queue: &mut Queue,
        is_lasting: bool,
        parcel: Parcel,
        now: Timestamp,
    ) -> Result<Place, QueueDrop> {
        let Parcel { publication, manner } = parcel.clone();
        let Manner { qos, retain, subscription_ids } = manner;
        let sequence = queue.push(parcel, now, &self.parts.limits)?;
        let Some(sequence) = sequence.filter(|_| is_lasting) else { return Ok(Place::START) };
        let queued = Queued {
            sequence,
            publication,
            qos,
            retain,
            subscription_ids,
            is_received: false,
            queued_at: now,
        };
        Ok(self.parts.journal.record(Change::Queued { id: self.id, queued }))
    }

    fn set_expiry(&self, state: &mut State, expiry_seconds: u32) {
        let was_stored = state.expiry_seconds > 0;
        state.expiry_seconds = expiry_seconds;
        if was_stored && expiry_seconds == 0 {
            self.parts.journal.record(Change::Ended { id: self.id });
        }
    }

    fn record_life(&self, state: &State, left_at: Option<Timestamp>) -> Place {
        self.parts.journal.record(Change::Session {
            id: self.id,
            client: self.client.clone(),
            expiry_seconds: state.expiry_seconds,
            left_at,
        })
    }

    fn record_dequeued(&self, state: &State, sequence: Option<u64>) {
        if let Some(sequence) = sequence {
            self.record(state, || Change::Dequeued { id: self.id, sequence });
        }
    }

    /// Records a change of a session that outlives its connection; whatever ends with its connection is not stored.
    fn record(&self, state: &State, change: impl FnOnce() -> Change) -> Place {
        if state.expiry_seconds > 0 { self.parts.journal.record(change()) } else { Place::START }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a subscription is served live, by the router: nothing is promised, and nobody shares it.
pub(crate) fn is_live(subscription: &Subscription) -> bool {
    subscription.qos == Qos::AtMostOnce && Shared::parse(&subscription.filter).is_none()
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("number", &self.number)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}
