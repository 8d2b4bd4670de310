//! One session: what a client subscribed to, what waits for it, and which messages at quality 2 it is in the middle of.
//!
//! It may outlive its connection, and then whatever happens to it goes to the journal as well.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schema::clock::Timestamp;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::door::journal::{Journal, Lsn};
use crate::door::live::LiveLine;
use crate::door::packet::{Malformed, Reason};
use crate::door::pending::{Pending, PendingRetained};
use crate::door::queue::{Allowance, Manner, Parcel, Queue, QueueBudget, QueueLimits, Step, Written};
use crate::door::retained::Retained;
use crate::filter::{self, Shared};
use crate::message::{Fingerprint, Qos};
use crate::publication::Publication;
use crate::share::Permit;
use crate::stats::{DoorStats, QueueDrop};
use crate::store::{Change, Client, Owner, Queued, Received, StoredSession, Subscription};

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
    /// Messages at QoS 2 by their ids, from PUBLISH to PUBREL.
    received: HashMap<u16, Exchange>,
    queue: Queue,
    /// What waits without a promise.
    live: LiveLine,
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

impl State {
    /// Whether the session outlives its connection, and so is stored.
    fn lasts(&self) -> bool {
        self.expiry_seconds > 0
    }
}

/// What a session has not written yet, and does not wait for its client with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// How far the journal must be stored before more can be written.
    pub(crate) waits_for: Option<Lsn>,
    /// There may be more at once.
    pub(crate) is_more: bool,
}

/// Whether a packet id was in use, and what the answer to it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) lsn: Lsn,
    pub(crate) is_found: bool,
}

impl Found {
    fn at(lsn: Lsn) -> Self {
        Self { lsn, is_found: true }
    }

    /// What version 5 is told.
    pub(crate) fn reason(self) -> Reason {
        if self.is_found { Reason::SUCCESS } else { Reason::PACKET_ID_NOT_FOUND }
    }
}

/// A message at QoS 2 that arrived under an id which is not released.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    /// `None` where an earlier program stored it.
    fingerprint: Option<Fingerprint>,
    receipt: Receipt,
}

impl Exchange {
    /// Whether it is of this message. One that is not known any more is taken for the same, as the protocol wants.
    fn is_of(&self, fingerprint: Fingerprint) -> bool {
        self.fingerprint.is_none_or(|known| known == fingerprint)
    }
}

/// What became of a message at QoS 2 that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receipt {
    /// It is not committed yet.
    Pending,
    /// It is committed, there in the journal.
    Committed(Lsn),
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
                live: LiveLine::new(&parts.budget, &client.owner),
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
                    .map(|Received { packet_id, fingerprint }| {
                        (packet_id, Exchange { fingerprint, receipt: Receipt::Committed(Lsn::START) })
                    })
                    .collect(),
                queue: Queue::restore(&parts.budget, &client.owner, queue),
                live: LiveLine::new(&parts.budget, &client.owner),
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

    /// Its key in the store.
    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    /// Whose it is.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// For payloads that are taken off its queue and not sent yet.
    pub(crate) fn unsent(&self) -> Permit<Owner> {
        self.parts.budget.bytes_of(&self.client.owner)
    }

    /// Whether its client is there.
    pub(crate) fn is_connected(&self) -> bool {
        self.lock().is_connected
    }

    /// Seconds it outlives its connection; zero when it ends with it.
    pub(crate) fn expiry_seconds(&self) -> u32 {
        self.lock().expiry_seconds
    }

    /// The client is there, and wants the session to last so long after it left. A session that is not to last any more is
    /// gone once the journal is stored up to there.
    pub(crate) fn attach(&self, expiry_seconds: u32) -> Lsn {
        let mut state = self.lock();
        let lsn = self.set_expiry(&mut state, expiry_seconds);
        state.is_connected = true;
        state.queue.restart();
        self.note_life(&state, None);
        lsn
    }

    /// The client left.
    pub(crate) fn detach(&self, now: Timestamp) {
        let mut state = self.lock();
        state.is_connected = false;
        state.live.clear();
        self.note_life(&state, Some(now));
    }

    /// The session lasts so long after its client left, which says goodbye with this.
    pub(crate) fn expire_after(&self, expiry_seconds: u32) {
        self.set_expiry(&mut self.lock(), expiry_seconds).unseen();
    }

    /// The session is over, for a client that is told so once the journal is stored up to there.
    pub(crate) fn end(&self) -> Lsn {
        self.set_expiry(&mut self.lock(), 0)
    }

    /// The store does not have the session any more: it ends with its connection, and nothing of it is recorded.
    pub(crate) fn forget(&self) {
        self.lock().expiry_seconds = 0;
    }

    /// Where the journal has everything that happened to the session so far.
    pub(crate) fn recorded(&self) -> Lsn {
        self.recorded_if(self.lock().lasts())
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
    ) -> Option<(Lsn, Option<Subscription>)> {
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
        let lsn = self.record(state.lasts(), || Change::Subscribed { id: self.id, subscription });
        Some((lsn, replaced))
    }

    /// Removes a subscription: says where that is in the journal. `None` when there is none.
    pub(crate) fn unsubscribe(&self, filter: &str) -> Option<(Lsn, Subscription)> {
        let mut state = self.lock();
        let index = state.subscriptions.iter().position(|known| *known.filter == *filter)?;
        let removed = state.subscriptions.remove(index);
        state.pending.remove(filter);
        let filter = Arc::clone(&removed.filter);
        let lsn = self.record(state.lasts(), || Change::Unsubscribed { id: self.id, filter });
        Some((lsn, removed))
    }

    /// Takes out what waits for subscriptions the client may not have any more: all that none of the others matches.
    pub(crate) fn drop_unsubscribed(&self) {
        let mut state = self.lock();
        let State { queue, live, subscriptions, pending, .. } = &mut *state;
        pending.keep_only(subscriptions);
        let is_wanted = |publication: &Publication| {
            subscriptions.iter().any(|known| {
                let filter = Shared::parse(&known.filter).map_or(&*known.filter, |shared| shared.filter);
                filter::matches(filter, &publication.topic)
            })
        };
        live.retain(is_wanted);
        let mut dropped = Vec::new();
        queue.retain(is_wanted, |sequence| dropped.push(sequence));
        for sequence in dropped {
            self.note_dequeued(&state, sequence);
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
            self.note_dequeued(&state, sequence);
        }
    }

    /// Queues a message for the client: says where that is in the journal. What finds no room is counted. One without a
    /// promise takes the place of the oldest of its kind.
    pub(crate) fn offer(&self, parcel: Parcel, now: Timestamp) -> Lsn {
        if parcel.manner.qos == Qos::AtMostOnce {
            let mut state = self.lock();
            if state.is_connected {
                state.live.push(parcel, |reason| self.parts.stats.count_queue_dropped(reason));
                drop(state);
                self.changed.notify_one();
            }
            return Lsn::START;
        }
        match self.try_offer(parcel, now) {
            Ok(lsn) => lsn,
            Err(NotQueued::Away) => Lsn::START,
            Err(NotQueued::NoRoom(reason)) => {
                self.parts.stats.count_queue_dropped(reason);
                Lsn::START
            }
        }
    }

    /// Queues a message for the client if there is room: says where that is in the journal. A message without a promise is
    /// for those who are there.
    pub(crate) fn try_offer(&self, parcel: Parcel, now: Timestamp) -> Result<Lsn, NotQueued> {
        let mut state = self.lock();
        if parcel.manner.qos == Qos::AtMostOnce {
            if !state.is_connected {
                return Err(NotQueued::Away);
            }
            if state.live.is_full_for(&parcel.publication) {
                return Err(NotQueued::NoRoom(QueueDrop::Live));
            }
            drop(state);
            return Ok(self.offer(parcel, now));
        }
        let lasts = state.lasts();
        let lsn = self.enqueue(&mut state.queue, lasts, parcel, now);
        drop(state);
        self.changed.notify_one();
        lsn.map_err(NotQueued::NoRoom)
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

    /// Writes what may be written now, with the journal stored up to `stored`; says what is left.
    pub(crate) fn send(
        &self,
        now: Timestamp,
        in_flight_max: usize,
        stored: Lsn,
        mut write: impl FnMut(Step<'_>) -> Written,
    ) -> Left {
        let mut state = self.lock();
        let allowance = Allowance { now, in_flight_max, age_max: self.parts.limits.age_max, stored };
        for _ in 0..LOOK_UPS_MAX {
            let waits_for = self.write(&mut state, allowance, &mut write);
            if state.pending.is_empty() || !self.look_up_retained(&mut state, now, in_flight_max) {
                return Left { waits_for, is_more: false };
            }
        }
        Left { waits_for: None, is_more: true }
    }

    fn write(
        &self,
        state: &mut State,
        allowance: Allowance,
        mut write: impl FnMut(Step<'_>) -> Written,
    ) -> Option<Lsn> {
        let now = allowance.now;
        let mut dropped = Vec::new();
        let waits_for = state.queue.send(allowance, &mut write, |sequence, reason| {
            self.parts.stats.count_queue_dropped(reason);
            dropped.extend(sequence);
        });
        state.live.send(now, write, |reason| self.parts.stats.count_queue_dropped(reason));
        for sequence in dropped {
            self.note_dequeued(state, sequence);
        }
        waits_for
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
        self.finish(packet_id, Queue::acknowledged)
    }

    /// The client has a message at quality 2: says where that is in the journal, after which it is told to release the id.
    pub(crate) fn taken(&self, packet_id: u16) -> Result<Found, Malformed> {
        let mut state = self.lock();
        let lasts = state.lasts();
        let record = |sequence| self.record(lasts, || Change::Taken { id: self.id, sequence });
        let lsn = state.queue.taken(packet_id, record)?;
        Ok(lsn.map_or_else(|| self.not_found(lasts), Found::at))
    }

    /// The client refused a message at quality 2.
    pub(crate) fn refused(&self, packet_id: u16) -> Result<(), Malformed> {
        self.finish(packet_id, Queue::refused)
    }

    /// The client released the id of a message at quality 2.
    pub(crate) fn completed(&self, packet_id: u16) -> Result<(), Malformed> {
        self.finish(packet_id, Queue::completed)
    }

    /// Takes the id of a message at QoS 2 that arrives; false when the same message came before. Another one takes the id
    /// over: its sender forgot what it had sent under it, and will never release that.
    pub(crate) fn receive(&self, packet_id: u16, fingerprint: Fingerprint) -> bool {
        let mut state = self.lock();
        let is_new = !state.received.get(&packet_id).is_some_and(|known| known.is_of(fingerprint));
        if is_new {
            let exchange = Exchange { fingerprint: Some(fingerprint), receipt: Receipt::Pending };
            state.received.insert(packet_id, exchange);
        }
        is_new
    }

    /// Messages at quality 2 that are not released.
    pub(crate) fn unreleased(&self) -> usize {
        self.lock().received.len()
    }

    /// The message that arrived under an id is committed: says where that is in the journal.
    pub(crate) fn committed(&self, packet_id: u16, fingerprint: Fingerprint) -> Lsn {
        let mut state = self.lock();
        let received = Received { packet_id, fingerprint: Some(fingerprint) };
        let lsn = self.record(state.lasts(), || Change::Received { id: self.id, received });
        set_receipt(&mut state, packet_id, fingerprint, Receipt::Committed(lsn));
        lsn
    }

    /// The message that arrived under an id was refused. The id is free when its sender is told so; otherwise the sender is
    /// told when the message comes again.
    pub(crate) fn refuse(&self, packet_id: u16, fingerprint: Fingerprint, reason: Reason, is_told: bool) {
        let mut state = self.lock();
        if !is_told {
            set_receipt(&mut state, packet_id, fingerprint, Receipt::Refused(reason));
        } else if state.received.get(&packet_id).is_some_and(|known| known.is_of(fingerprint)) {
            state.received.remove(&packet_id);
        }
    }

    /// What the sender of a message that came again is told, and how far the journal must be stored before that.
    pub(crate) fn answer_again(&self, packet_id: u16) -> (Lsn, Reason) {
        let mut state = self.lock();
        match state.received.get(&packet_id).map(|known| known.receipt) {
            Some(Receipt::Committed(lsn)) => (lsn, Reason::SUCCESS),
            Some(Receipt::Refused(reason)) => {
                state.received.remove(&packet_id);
                (Lsn::START, reason)
            }
            // It came twice, and was refused the first time.
            Some(Receipt::Pending) | None => (Lsn::START, Reason::UNSPECIFIED),
        }
    }

    /// The client released an id: says where that is in the journal, after which it may use the id again.
    pub(crate) fn release(&self, packet_id: u16) -> Result<Found, Malformed> {
        let mut state = self.lock();
        let lasts = state.lasts();
        match state.received.get(&packet_id).map(|known| known.receipt) {
            None => Ok(self.not_found(lasts)),
            Some(Receipt::Pending | Receipt::Refused(_)) => {
                Err(Malformed::protocol("PUBREL before its PUBREC"))
            }
            Some(Receipt::Committed(_)) => {
                state.received.remove(&packet_id);
                Ok(Found::at(self.record(lasts, || Change::Released { id: self.id, packet_id })))
            }
        }
    }

    /// Waits until there may be something to send or to answer. Dropping the future loses nothing.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// How a message is sent at quality 0 for those of the subscriptions that match it; `None` when none does.
    pub(crate) fn manner_at(
        &self,
        publication: &Publication,
        is_asked: impl Fn(&Subscription) -> bool,
    ) -> Option<Manner> {
        let state = self.lock();
        let mut matching = (state.subscriptions.iter())
            .filter(|known| is_asked(known) && filter::matches(&known.filter, &publication.topic))
            .filter(|known| !(known.no_local && publication.publisher == self.number))
            .peekable();
        matching.peek()?;
        let mut manner = Manner { qos: Qos::AtMostOnce, retain: false, subscription_ids: Vec::new() };
        for known in matching {
            manner.subscription_ids.extend(known.id);
            manner.retain |= publication.retain && known.retain_as_published;
        }
        Some(manner)
    }

    fn enqueue(
        &self,
        queue: &mut Queue,
        lasts: bool,
        parcel: Parcel,
        now: Timestamp,
    ) -> Result<Lsn, QueueDrop> {
        let Parcel { publication, manner: Manner { qos, retain, subscription_ids } } = parcel.clone();
        let record = |sequence| {
            let (is_received, queued_at) = (false, now);
            let queued =
                Queued { sequence, publication, qos, retain, subscription_ids, is_received, queued_at };
            self.record(lasts, || Change::Queued { id: self.id, queued })
        };
        queue.push(parcel, now, &self.parts.limits, record)
    }

    /// Takes a message out that its client is done with, which nobody is told.
    fn finish(
        &self,
        packet_id: u16,
        finish: impl FnOnce(&mut Queue, u16) -> Result<Option<u64>, Malformed>,
    ) -> Result<(), Malformed> {
        let mut state = self.lock();
        if let Some(sequence) = finish(&mut state.queue, packet_id)? {
            self.note_dequeued(&state, sequence);
        }
        Ok(())
    }

    /// An id that is not in use. It may have been until now, so that the client hears of it after all that was recorded.
    fn not_found(&self, lasts: bool) -> Found {
        Found { lsn: self.recorded_if(lasts), is_found: false }
    }

    fn recorded_if(&self, lasts: bool) -> Lsn {
        if lasts { self.parts.journal.last() } else { Lsn::START }
    }

    fn set_expiry(&self, state: &mut State, expiry_seconds: u32) -> Lsn {
        let was_lasting = state.lasts();
        state.expiry_seconds = expiry_seconds;
        self.record(was_lasting && !state.lasts(), || Change::Ended { id: self.id })
    }

    /// That a session lasts is told by the answer to its first subscription or message.
    fn note_life(&self, state: &State, left_at: Option<Timestamp>) {
        let (client, expiry_seconds) = (&self.client, state.expiry_seconds);
        let life = || Change::Session { id: self.id, client: client.clone(), expiry_seconds, left_at };
        self.record(state.lasts(), life).unseen();
    }

    fn note_dequeued(&self, state: &State, sequence: u64) {
        self.record(state.lasts(), || Change::Dequeued { id: self.id, sequence }).unseen();
    }

    /// Records a change of a session that outlives its connection; what ends with its connection is not stored.
    fn record(&self, lasts: bool, change: impl FnOnce() -> Change) -> Lsn {
        if lasts { self.parts.journal.record(change()) } else { Lsn::START }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes what became of a message, unless another one took its id over meanwhile.
fn set_receipt(state: &mut State, packet_id: u16, fingerprint: Fingerprint, receipt: Receipt) {
    let exchange = Exchange { fingerprint: Some(fingerprint), receipt };
    let known = state.received.entry(packet_id).or_insert(exchange);
    if known.is_of(fingerprint) {
        *known = exchange;
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("number", &self.number)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}
