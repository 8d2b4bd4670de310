//! The outgoing queue of one session: messages at quality 1 and 2 until the client has them, and whatever else it gets
//! while it is connected.
//!
//! A message has a place from the moment it is queued, and its packet id follows from that place. So nothing needs to be
//! stored when it is sent, and after a restart it is sent again under the same id, as the protocol wants.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use schema::clock::Timestamp;

use crate::door::journal::Lsn;
use crate::door::packet::{Malformed, Reason};
use crate::message::Qos;
use crate::publication::Publication;
use crate::share::{Budget, Permit, Share, Spent};
use crate::stats::QueueDrop;
use crate::store::{Owner, Queued};

/// Packet ids there are. A queue never spans more places, so that no two of its messages share an id.
const PACKET_IDS: u64 = 65_535;
/// Messages that wait for all clients together, with those that only keep their place.
const QUEUED_MESSAGES_MAX: usize = 300_000;
/// The bytes every owner may have while there is any room: one part in so many.
const FLOOR_PART: usize = 1000;

/// How much may wait for one client, and for all of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueLimits {
    pub(crate) messages_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) age_max: Duration,
}

/// What waits for all clients together.
#[derive(Debug)]
pub(crate) struct QueueBudget {
    messages: Share<Owner>,
    bytes: Share<Owner>,
}

impl QueueBudget {
    /// A budget of so many bytes. For the messages of one client there is always room while anything is free.
    pub(crate) fn new(bytes_max: usize, messages_of_one_max: usize) -> Self {
        let messages_max = QUEUED_MESSAGES_MAX.max(messages_of_one_max);
        Self {
            messages: Share::new(Budget::QueuedMessages, messages_max, messages_of_one_max),
            bytes: Share::new(Budget::QueuedBytes, bytes_max, bytes_max / FLOOR_PART),
        }
    }
}

impl QueueBudget {
    /// A permit of an owner for bytes, of which none are taken yet.
    pub(crate) fn bytes_of(&self, owner: &Owner) -> Permit<Owner> {
        self.bytes.account(owner).take_anyway(0)
    }
}

/// How a message is sent to one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: Vec<NonZeroU32>,
}

/// A message, and how it is sent to one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parcel {
    pub(crate) publication: Arc<Publication>,
    pub(crate) manner: Manner,
}

/// How far a message is on its way to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not sent over this connection.
    Waiting,
    /// Sent, not answered.
    Sent,
    /// The client has it, and is to be told to release its id.
    Taken,
    /// It was told so.
    Releasing,
    /// Its place is kept only until those before it are gone.
    Gone,
}

#[derive(Debug)]
struct Entry {
    /// `None` at quality 0: it takes no packet id.
    sequence: Option<u64>,
    /// `None` once the client has it, or it is dropped: what only keeps its place holds no payload.
    publication: Option<Arc<Publication>>,
    manner: Manner,
    queued_at: Timestamp,
    stage: Stage,
    /// It may have been sent before, over another connection.
    is_repeated: bool,
    /// It was sent by this process, and does not expire any more.
    was_sent: bool,
    /// Where the journal has its stage.
    lsn: Lsn,
}

impl Entry {
    /// Whether it waited too long. What was sent once does not expire, but nothing waits for ever.
    fn is_too_old(&self, now: Timestamp, age_max: Duration) -> bool {
        let is_expired =
            !self.was_sent && self.publication.as_ref().is_some_and(|known| known.is_expired(now));
        is_expired || now >= self.queued_at + age_max
    }

    /// Whether the next step must not be seen before the journal holds the message's stage. At quality 2 the client keeps
    /// the packet id from PUBLISH to PUBREL: after a kill the id must still belong to the same message, and a message whose
    /// id was released must not come again.
    fn needs_journal(&self) -> bool {
        self.manner.qos == Qos::ExactlyOnce && matches!(self.stage, Stage::Waiting | Stage::Taken)
    }
}

/// How far a queue may be written now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    pub(crate) now: Timestamp,
    /// Messages that may be unanswered.
    pub(crate) in_flight_max: usize,
    pub(crate) age_max: Duration,
    /// How far the journal is stored.
    pub(crate) stored: Lsn,
}

/// What is to be written next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    Publish { publication: &'a Publication, manner: &'a Manner, packet_id: u16, is_repeated: bool },
    Release { packet_id: u16 },
}

/// Whether what was to be written was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Yes,
    /// It never can be, for this reason.
    Never(QueueDrop),
    /// Not now.
    NotNow,
}

/// The messages of one session.
#[derive(Debug)]
pub(crate) struct Queue {
    entries: VecDeque<Entry>,
    next_sequence: u64,
    /// One for each entry.
    places: Permit<Owner>,
    bytes: Permit<Owner>,
    /// Entries that are not gone.
    len: usize,
    /// Sent at quality 1 or 2 and not finished.
    in_flight: usize,
    /// Everything before it was sent, or is gone.
    unsent_from: usize,
}

impl Queue {
    pub(crate) fn new(budget: &QueueBudget, owner: &Owner) -> Self {
        Self {
            entries: VecDeque::new(),
            next_sequence: 0,
            places: budget.messages.account(owner).take_anyway(0),
            bytes: budget.bytes_of(owner),
            len: 0,
            in_flight: 0,
            unsent_from: 0,
        }
    }

    /// The queue as it was stored.
    pub(crate) fn restore(budget: &QueueBudget, owner: &Owner, stored: Vec<Queued>) -> Self {
        let mut queue = Self::new(budget, owner);
        for queued in stored {
            let Queued { sequence, publication, qos, retain, subscription_ids, is_received, queued_at } =
                queued;
            queue.next_sequence = sequence + 1;
            queue.places.grow_anyway(1);
            if !is_received {
                queue.bytes.grow_anyway(publication.cost_bytes());
            }
            queue.keep(Entry {
                sequence: Some(sequence),
                publication: (!is_received).then_some(publication),
                manner: Manner { qos, retain, subscription_ids },
                queued_at,
                stage: if is_received { Stage::Taken } else { Stage::Waiting },
                is_repeated: true,
                was_sent: false,
                lsn: Lsn::START,
            });
            queue.in_flight += usize::from(is_received);
        }
        queue
    }

    /// Messages that are not finished.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends a message. A promised one is recorded under its place, and this says where the journal has it.
    pub(crate) fn push(
        &mut self,
        parcel: Parcel,
        now: Timestamp,
        limits: &QueueLimits,
        record: impl FnOnce(u64) -> Lsn,
    ) -> Result<Lsn, QueueDrop> {
        let Parcel { publication, manner } = parcel;
        let cost = publication.cost_bytes();
        let first = self.entries.iter().find_map(|entry| entry.sequence);
        let spans_all_ids = first.is_some_and(|first| self.next_sequence - first >= PACKET_IDS);
        if self.len >= limits.messages_max || spans_all_ids || self.entries.len() as u64 >= PACKET_IDS {
            return Err(QueueDrop::Count);
        }
        if self.bytes.amount() + cost > limits.bytes_max {
            return Err(QueueDrop::Bytes);
        }
        self.take_room(cost).map_err(QueueDrop::of_spent)?;
        let sequence = (manner.qos != Qos::AtMostOnce).then_some(self.next_sequence);
        self.next_sequence += u64::from(sequence.is_some());
        let lsn = sequence.map_or(Lsn::START, record);
        self.keep(Entry {
            sequence,
            publication: Some(publication),
            manner,
            queued_at: now,
            stage: Stage::Waiting,
            is_repeated: false,
            was_sent: false,
            lsn,
        });
        Ok(lsn)
    }

    /// The connection is another one: what was sent and not answered is sent again. What had no promise is gone.
    pub(crate) fn restart(&mut self) {
        self.in_flight = 0;
        for index in 0..self.entries.len() {
            let entry = &mut self.entries[index];
            match entry.stage {
                Stage::Sent => {
                    (entry.stage, entry.is_repeated, entry.was_sent) = (Stage::Waiting, true, true);
                }
                Stage::Taken | Stage::Releasing => {
                    entry.stage = Stage::Taken;
                    self.in_flight += 1;
                }
                Stage::Waiting if entry.sequence.is_none() => self.remove(index),
                Stage::Waiting | Stage::Gone => {}
            }
        }
        self.unsent_from = 0;
        self.shorten();
    }

    /// Writes what may be written now, in order. `dropped` hears of every message that is never sent, with its place. Says
    /// how far the journal must be stored before more can be written, when that is what it stopped at.
    pub(crate) fn send(
        &mut self,
        allowance: Allowance,
        mut write: impl FnMut(Step<'_>) -> Written,
        mut dropped: impl FnMut(Option<u64>, QueueDrop),
    ) -> Option<Lsn> {
        let Allowance { now, in_flight_max, age_max, stored } = allowance;
        let mut waits_for = None;
        while self.unsent_from < self.entries.len() {
            let entry = &mut self.entries[self.unsent_from];
            if entry.needs_journal() && entry.lsn > stored {
                waits_for = Some(entry.lsn);
                break;
            }
            match entry.stage {
                Stage::Sent | Stage::Releasing | Stage::Gone => {}
                Stage::Taken => match write(Step::Release { packet_id: packet_id(entry.sequence) }) {
                    Written::NotNow => break,
                    Written::Yes | Written::Never(_) => entry.stage = Stage::Releasing,
                },
                Stage::Waiting => {
                    let is_promised = entry.sequence.is_some();
                    if is_promised && self.in_flight >= in_flight_max {
                        break;
                    }
                    let written = if entry.is_too_old(now, age_max) {
                        Written::Never(QueueDrop::Age)
                    } else {
                        write(Step::Publish {
                            publication: entry.publication.as_ref().expect("what waits has its message"),
                            manner: &entry.manner,
                            packet_id: packet_id(entry.sequence),
                            is_repeated: entry.is_repeated && is_promised,
                        })
                    };
                    match written {
                        Written::NotNow => break,
                        Written::Yes if is_promised => {
                            entry.stage = Stage::Sent;
                            self.in_flight += 1;
                        }
                        Written::Yes => self.remove(self.unsent_from),
                        Written::Never(reason) => {
                            dropped(entry.sequence, reason);
                            self.remove(self.unsent_from);
                        }
                    }
                }
            }
            self.unsent_from += 1;
        }
        self.shorten();
        waits_for
    }

    /// The client has a message at quality 1: says its place. `None` for an id that is not in use.
    pub(crate) fn acknowledged(&mut self, id: u16) -> Result<Option<u64>, Malformed> {
        self.finish(id, Qos::AtLeastOnce, Stage::Sent)
    }

    /// The client released the id of a message at quality 2: says its place. `None` for an id that is not in use.
    pub(crate) fn completed(&mut self, id: u16) -> Result<Option<u64>, Malformed> {
        self.finish(id, Qos::ExactlyOnce, Stage::Releasing)
    }

    /// The client has a message at quality 2, which is recorded under its place when it is news. Says where the journal has
    /// it: the client is told to release the id after that. `Ok(None)` for an id that is not in use.
    pub(crate) fn taken(
        &mut self,
        id: u16,
        record: impl FnOnce(u64) -> Lsn,
    ) -> Result<Option<Lsn>, Malformed> {
        let Some(index) = self.find(id) else { return Ok(None) };
        let entry = &mut self.entries[index];
        if entry.manner.qos != Qos::ExactlyOnce {
            return Err(WRONG_ANSWER);
        }
        if entry.stage == Stage::Sent {
            entry.lsn = entry.sequence.map_or(Lsn::START, record);
        }
        entry.stage = Stage::Releasing;
        let lsn = entry.lsn;
        self.forget_message(index);
        Ok(Some(lsn))
    }

    /// The client refused a message at quality 2: says its place. `None` for an id that is not in use.
    pub(crate) fn refused(&mut self, id: u16) -> Result<Option<u64>, Malformed> {
        self.finish(id, Qos::ExactlyOnce, Stage::Sent)
    }

    /// Takes out what is not sent and not wanted any more; `dropped` hears the places.
    pub(crate) fn retain(&mut self, is_wanted: impl Fn(&Publication) -> bool, dropped: impl FnMut(u64)) {
        let is_unwanted =
            |entry: &Entry| entry.publication.as_ref().is_some_and(|publication| !is_wanted(publication));
        self.take_out(is_unwanted, dropped);
    }

    /// Takes out what is not sent and waited too long; `dropped` hears the places.
    pub(crate) fn drop_aged(&mut self, now: Timestamp, age_max: Duration, dropped: impl FnMut(u64)) {
        self.take_out(|entry| entry.is_too_old(now, age_max), dropped);
    }

    fn take_out(&mut self, is_due: impl Fn(&Entry) -> bool, mut dropped: impl FnMut(u64)) {
        for index in 0..self.entries.len() {
            let entry = &self.entries[index];
            if entry.stage == Stage::Waiting && is_due(entry) {
                if let Some(sequence) = entry.sequence {
                    dropped(sequence);
                }
                self.remove(index);
            }
        }
        self.shorten();
    }

    fn finish(&mut self, id: u16, qos: Qos, stage: Stage) -> Result<Option<u64>, Malformed> {
        let Some(index) = self.find(id) else { return Ok(None) };
        let entry = &self.entries[index];
        if entry.manner.qos != qos || entry.stage != stage {
            return Err(WRONG_ANSWER);
        }
        let sequence = entry.sequence;
        self.in_flight -= 1;
        self.remove(index);
        self.shorten();
        Ok(sequence)
    }

    /// The message in flight under an id. They stand near the front, and are as many as may be in flight.
    fn find(&self, id: u16) -> Option<usize> {
        self.entries.iter().take(self.unsent_from.max(1)).position(|entry| {
            let is_in_flight = matches!(entry.stage, Stage::Sent | Stage::Taken | Stage::Releasing);
            is_in_flight && packet_id(entry.sequence) == id
        })
    }

    fn take_room(&mut self, bytes: usize) -> Result<(), Spent> {
        self.places.grow(1)?;
        self.bytes.grow(bytes).inspect_err(|_| self.places.shrink(1))
    }

    fn keep(&mut self, entry: Entry) {
        self.len += 1;
        self.entries.push_back(entry);
    }

    fn remove(&mut self, index: usize) {
        self.entries[index].stage = Stage::Gone;
        self.len -= 1;
        self.forget_message(index);
    }

    /// Lets go of a message, and gives its bytes back. Its entry may have to stay until those before it are gone.
    fn forget_message(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        entry.manner.subscription_ids = Vec::new();
        let Some(publication) = entry.publication.take() else { return };
        self.bytes.shrink(publication.cost_bytes());
    }

    fn shorten(&mut self) {
        while self.entries.pop_front_if(|entry| entry.stage == Stage::Gone).is_some() {
            self.unsent_from = self.unsent_from.saturating_sub(1);
            self.places.shrink(1);
        }
        if self.entries.is_empty() {
            // An idle client's queue costs nothing.
            self.entries.shrink_to(0);
        }
    }
}

/// An answer that does not belong to the quality, or the state, of the message.
const WRONG_ANSWER: Malformed =
    Malformed::with("an answer that does not fit the message", Reason::PROTOCOL_ERROR);

/// The packet id of a place; zero for a message without one.
fn packet_id(sequence: Option<u64>) -> u16 {
    sequence.map_or(0, |sequence| (sequence % PACKET_IDS) as u16 + 1)
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
