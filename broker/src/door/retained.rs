//! Retained messages: the last one of each topic that was published to be kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schema::clock::Timestamp;

use crate::door::journal::{Journal, Place};
use crate::filter;
use crate::publication::Publication;
use crate::stats::DoorStats;
use crate::store::Change;

/// Messages, and bytes of them, that are retained together. One beyond is shown to those who are there and not kept.
const RETAINED_MESSAGES_MAX: usize = 100_000;
const RETAINED_BYTES_MAX: usize = 64 << 20;

/// The retained messages of the door.
pub(crate) struct Retained {
    state: Mutex<State>,
    journal: Arc<Journal>,
    stats: Arc<DoorStats>,
}

#[derive(Default)]
struct State {
    messages: HashMap<Arc<str>, Arc<Publication>>,
    bytes: usize,
}

impl Retained {
    /// What was stored.
    pub(crate) fn new(stored: Vec<Publication>, journal: Arc<Journal>, stats: Arc<DoorStats>) -> Self {
        let mut state = State::default();
        for publication in stored {
            state.bytes += publication.cost_bytes();
            state.messages.insert(Arc::clone(&publication.topic), Arc::new(publication));
        }
        Self { state: Mutex::new(state), journal, stats }
    }

    /// Replaces the message of a topic; an empty payload removes it. Says where that is in the journal.
    pub(crate) fn set(&self, publication: &Arc<Publication>) -> Place {
        let mut state = self.lock();
        let removed = state.messages.remove(&publication.topic);
        state.bytes -= removed.as_ref().map_or(0, |old| old.cost_bytes());
        let cost = publication.cost_bytes();
        let has_room =
            state.messages.len() < RETAINED_MESSAGES_MAX && state.bytes + cost <= RETAINED_BYTES_MAX;
        let is_kept = !publication.payload.is_empty() && has_room;
        if is_kept {
            state.bytes += cost;
            state.messages.insert(Arc::clone(&publication.topic), Arc::clone(publication));
            return self.journal.record(Change::Retained(Arc::clone(publication)));
        }
        if !publication.payload.is_empty() {
            self.stats.count_not_retained();
        }
        match removed {
            Some(_) => self.journal.record(Change::Unretained(Arc::clone(&publication.topic))),
            None => Place::START,
        }
    }

    /// The messages a new subscription gets.
    pub(crate) fn matching(&self, filter: &str, now: Timestamp) -> Vec<Arc<Publication>> {
        let state = self.lock();
        if !filter.contains(['+', '#']) {
            return state
                .messages
                .get(filter)
                .filter(|known| !known.is_expired(now))
                .cloned()
                .into_iter()
                .collect();
        }
        let matching = state.messages.values().filter(|known| filter::matches(filter, &known.topic));
        matching.filter(|known| !known.is_expired(now)).cloned().collect()
    }

    /// Forgets what nobody wants any more.
    pub(crate) fn drop_expired(&self, now: Timestamp) {
        let mut state = self.lock();
        let State { messages, bytes } = &mut *state;
        messages.retain(|topic, known| {
            let is_kept = !known.is_expired(now);
            if !is_kept {
                *bytes -= known.cost_bytes();
                self.journal.record(Change::Unretained(Arc::clone(topic)));
            }
            is_kept
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::Qos;
    use crate::store::Forgetful;

    fn publication(topic: &str, payload: &'static [u8], expires_at: Option<Timestamp>) -> Arc<Publication> {
        Arc::new(Publication {
            topic: Arc::from(topic),
            payload: Bytes::from_static(payload),
            qos: Qos::AtLeastOnce,
            retain: true,
            carried: Bytes::new(),
            expires_at,
            publisher: 1,
        })
    }

    #[test]
    fn the_last_message_of_a_topic_is_kept_until_an_empty_one_or_its_time() {
        let now = Timestamp::UNIX_EPOCH;
        let soon = now + std::time::Duration::from_secs(1);
        let retained = Retained::new(Vec::new(), Arc::new(Journal::new(Arc::new(Forgetful))), Arc::default());
        retained.set(&publication("a/1", b"old", None));
        retained.set(&publication("a/1", b"new", None));
        retained.set(&publication("a/2", b"short", Some(soon)));
        let payloads = |filter, now| {
            let mut found: Vec<Bytes> =
                retained.matching(filter, now).iter().map(|known| known.payload.clone()).collect();
            found.sort();
            found
        };
        assert_eq!(payloads("a/+", now), ["new", "short"]);
        assert_eq!(payloads("a/1", now), ["new"]);
        assert_eq!(payloads("#", soon), ["new"]);
        retained.drop_expired(soon);
        retained.set(&publication("a/1", b"", None));
        assert_eq!(payloads("#", now), [] as [&str; 0]);
        assert_eq!(retained.lock().bytes, 0);
    }
}
