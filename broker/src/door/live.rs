//! What waits for a client without a promise: a short line of its own, of which the oldest goes when it is full.
//!
//! So a reader that is too slow misses what it was never promised, and keeps its queue for what it was.

use std::collections::VecDeque;

use schema::clock::Timestamp;

use crate::door::queue::{Parcel, QueueBudget, Step, Written};
use crate::publication::Publication;
use crate::share::Permit;
use crate::stats::QueueDrop;
use crate::store::Owner;

/// Messages at quality 0 that wait for one client.
pub(crate) const LIVE_MESSAGES_MAX: usize = 1000;
/// Bytes of them; one message may be larger.
const LIVE_BYTES_MAX: usize = 1 << 20;

/// The messages at quality 0 that wait for one client.
#[derive(Debug)]
pub(crate) struct LiveLine {
    waiting: VecDeque<Parcel>,
    /// Taken from the same budget as what waits in queues.
    bytes: Permit<Owner>,
}

impl LiveLine {
    pub(crate) fn new(budget: &QueueBudget, owner: &Owner) -> Self {
        Self { waiting: VecDeque::new(), bytes: budget.bytes_of(owner) }
    }

    /// Whether something has to go to make room for a message.
    pub(crate) fn is_full_for(&self, publication: &Publication) -> bool {
        let is_too_much = self.bytes.amount() + publication.cost_bytes() > LIVE_BYTES_MAX;
        self.waiting.len() >= LIVE_MESSAGES_MAX || (is_too_much && !self.waiting.is_empty())
    }

    /// Appends a message, if need be in place of the oldest ones. `dropped` hears of each that goes, which may be this one.
    pub(crate) fn push(&mut self, parcel: Parcel, mut dropped: impl FnMut(QueueDrop)) {
        while self.is_full_for(&parcel.publication) && self.remove_first() {
            dropped(QueueDrop::Live);
        }
        while let Err(spent) = self.bytes.grow(parcel.publication.cost_bytes()) {
            if !self.remove_first() {
                dropped(QueueDrop::of_spent(spent));
                return;
            }
            dropped(QueueDrop::Live);
        }
        self.waiting.push_back(parcel);
    }

    /// Writes what may be written now, in order. `dropped` hears of each message that is never sent.
    pub(crate) fn send(
        &mut self,
        now: Timestamp,
        mut write: impl FnMut(Step<'_>) -> Written,
        mut dropped: impl FnMut(QueueDrop),
    ) {
        while let Some(Parcel { publication, manner }) = self.waiting.front() {
            let written = if publication.is_expired(now) {
                Written::Never(QueueDrop::Age)
            } else {
                write(Step::Publish { publication, manner, packet_id: 0, is_repeated: false })
            };
            match written {
                Written::NotNow => return,
                Written::Never(reason) => dropped(reason),
                Written::Yes => {}
            }
            self.remove_first();
        }
    }

    /// Takes out what is not wanted any more.
    pub(crate) fn retain(&mut self, is_wanted: impl Fn(&Publication) -> bool) {
        let bytes = &mut self.bytes;
        self.waiting.retain(|parcel| {
            let is_kept = is_wanted(&parcel.publication);
            if !is_kept {
                bytes.shrink(parcel.publication.cost_bytes());
            }
            is_kept
        });
    }

    /// The client is not there any more: nothing was promised.
    pub(crate) fn clear(&mut self) {
        self.retain(|_| false);
        self.waiting.shrink_to_fit();
    }

    fn remove_first(&mut self) -> bool {
        let Some(parcel) = self.waiting.pop_front() else { return false };
        self.bytes.shrink(parcel.publication.cost_bytes());
        if self.waiting.is_empty() {
            // An idle client's line costs nothing.
            self.waiting.shrink_to_fit();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::door::queue::Manner;
    use crate::message::Qos;

    fn parcel(number: usize, bytes: usize) -> Parcel {
        let publication = Arc::new(Publication {
            topic: Arc::from(number.to_string()),
            payload: Bytes::from(vec![0; bytes]),
            qos: Qos::AtMostOnce,
            retain: false,
            carried: Bytes::new(),
            expires_at: None,
            publisher: 0,
        });
        let manner = Manner { qos: Qos::AtMostOnce, retain: false, subscription_ids: Vec::new() };
        Parcel { publication, manner }
    }

    fn push(line: &mut LiveLine, parcel: Parcel) -> Vec<QueueDrop> {
        let mut dropped = Vec::new();
        line.push(parcel, |reason| dropped.push(reason));
        dropped
    }

    fn sent(line: &mut LiveLine) -> Vec<usize> {
        let mut numbers = Vec::new();
        let write = |step: Step<'_>| {
            let Step::Publish { publication, .. } = step else { panic!("{step:?}") };
            numbers.push(publication.topic.parse().unwrap());
            Written::Yes
        };
        line.send(Timestamp::UNIX_EPOCH, write, |reason| panic!("{reason:?}"));
        numbers
    }

    #[test]
    fn the_oldest_goes_when_so_many_or_so_much_waits() {
        let budget = QueueBudget::new(1 << 30, 1000);
        let mut line = LiveLine::new(&budget, &Owner::Anonymous);
        for number in 0..LIVE_MESSAGES_MAX {
            assert_eq!(push(&mut line, parcel(number, 10)), []);
        }
        assert_eq!(push(&mut line, parcel(LIVE_MESSAGES_MAX, 10)), [QueueDrop::Live]);
        assert_eq!(sent(&mut line), (1..=LIVE_MESSAGES_MAX).collect::<Vec<_>>());
        assert_eq!(push(&mut line, parcel(1, LIVE_BYTES_MAX / 2)), []);
        assert_eq!(push(&mut line, parcel(2, LIVE_BYTES_MAX / 2)), [QueueDrop::Live]);
        assert_eq!(push(&mut line, parcel(3, 2 * LIVE_BYTES_MAX)), [QueueDrop::Live]);
        assert_eq!(sent(&mut line), [3], "a large one goes alone");
        assert_eq!(line.bytes.amount(), 0);
    }

    #[test]
    fn a_line_keeps_to_the_budget_of_its_owner() {
        let budget = QueueBudget::new(3000, 1000);
        let mut line = LiveLine::new(&budget, &Owner::Anonymous);
        assert_eq!(push(&mut line, parcel(1, 600)), []);
        assert_eq!(push(&mut line, parcel(2, 600)), [QueueDrop::Live]);
        assert_eq!(push(&mut line, parcel(3, 6000)), [QueueDrop::Live, QueueDrop::TotalBytes]);
        assert_eq!(push(&mut line, parcel(4, 600)), []);
        line.clear();
        assert_eq!((line.bytes.amount(), sent(&mut line)), (0, vec![]));
    }
}
