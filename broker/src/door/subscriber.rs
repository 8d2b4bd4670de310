//! The outgoing side of a connection: its subscriptions, retained messages for them, and live messages at QoS 0 and 1.
//!
//! Live messages are best effort. A message at QoS 1 has a packet id and takes a place among the unanswered ones; it
//! is not sent again after a reconnect, because there are no lasting sessions.

use std::collections::{HashSet, VecDeque};

use bytes::BytesMut;

use crate::delivery::Qos;
use crate::door::codec;
use crate::fanout::{Fanout, Feed, Forward, RouterGone};
use crate::filter;
use crate::retained::{Retained, RetainedMessage};

/// Filters one client may have; one more is refused.
const FILTERS_MAX: usize = 64;
/// Bytes that may wait for a slow reader before it gets nothing more.
const WAITING_BYTES_MAX: usize = 256 << 10;
/// The code of a filter that was refused.
const REFUSED: u8 = 0x80;

/// What a client subscribed to.
#[derive(Default)]
pub(crate) struct Subscriber {
    filters: Vec<(String, Qos)>,
    feed: Option<Box<dyn Feed>>,
    /// Retained messages that wait for their turn.
    retained: VecDeque<(RetainedMessage, Qos)>,
    unanswered: HashSet<u16>,
    last_id: u16,
}

impl Subscriber {
    /// Adds a filter that is allowed and says its code; its retained messages follow the answer.
    pub(crate) async fn subscribe(
        &mut self,
        filter: &str,
        asked: Qos,
        fanout: &dyn Fanout,
        retained: &Retained,
    ) -> u8 {
        let granted = asked.min(Qos::AtLeastOnce);
        let known = self.filters.iter_mut().find(|(known, _)| known == filter);
        if let Some((_, qos)) = known {
            *qos = granted;
        } else {
            if self.filters.len() == FILTERS_MAX || self.listen(filter, fanout).await.is_err() {
                return REFUSED;
            }
            self.filters.push((filter.to_owned(), granted));
        }
        // What waits already and matches is in the new set too: a topic waits once.
        self.retained.retain(|(message, _)| !filter::matches(filter, &message.topic));
        self.retained.extend(retained.matching(filter).into_iter().map(|message| (message, granted)));
        granted as u8
    }

    /// The code of a filter that is not allowed.
    pub(crate) fn refused() -> u8 {
        REFUSED
    }

    /// Removes a filter.
    pub(crate) async fn unsubscribe(&mut self, filter: &str) {
        let before = self.filters.len();
        self.filters.retain(|(known, _)| known != filter);
        if let (true, Some(feed)) = (self.filters.len() < before, &mut self.feed) {
            // A dead router is noticed, and replaced, when the feed is read.
            let _ = feed.unsubscribe(filter).await;
        }
    }

    /// The client has a message of ours.
    pub(crate) fn answered(&mut self, packet_id: u16) {
        self.unanswered.remove(&packet_id);
    }

    /// Whether another message may be written now.
    pub(crate) fn may_send(&self, outbox: &BytesMut, inflight_max: usize) -> bool {
        outbox.len() < WAITING_BYTES_MAX && self.unanswered.len() < inflight_max
    }

    /// Writes the retained messages whose turn has come.
    pub(crate) fn send_retained(&mut self, outbox: &mut BytesMut, inflight_max: usize) {
        while self.may_send(outbox, inflight_max) {
            let Some((message, qos)) = self.retained.pop_front() else { return };
            let packet_id = self.packet_id(qos);
            codec::put_publish(outbox, message.topic.as_bytes(), &message.payload, packet_id, true);
        }
    }

    /// Waits for the next live message; without a subscription for ever. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Forward, RouterGone> {
        match &mut self.feed {
            Some(feed) => feed.next().await,
            None => std::future::pending().await,
        }
    }

    /// Writes a live message.
    pub(crate) fn send(&mut self, forward: &Forward, outbox: &mut BytesMut) {
        let Ok(topic) = std::str::from_utf8(&forward.topic) else { return };
        let matching = self.filters.iter().filter(|(known, _)| filter::matches(known, topic));
        if let Some(qos) = matching.map(|(_, qos)| *qos).max() {
            let packet_id = self.packet_id(qos);
            codec::put_publish(outbox, &forward.topic, &forward.payload, packet_id, false);
        }
    }

    /// Subscribes everything again at a new router.
    pub(crate) async fn listen_again(&mut self, fanout: &dyn Fanout) -> Result<(), RouterGone> {
        self.feed = None;
        let filters: Vec<String> = self.filters.iter().map(|(filter, _)| filter.clone()).collect();
        for filter in filters {
            self.listen(&filter, fanout).await?;
        }
        Ok(())
    }

    async fn listen(&mut self, filter: &str, fanout: &dyn Fanout) -> Result<(), RouterGone> {
        let mut feed = match self.feed.take() {
            Some(feed) => feed,
            None => fanout.open().await?,
        };
        let outcome = feed.subscribe(filter).await;
        self.feed = Some(feed);
        outcome
    }

    fn packet_id(&mut self, qos: Qos) -> Option<u16> {
        if qos == Qos::AtMostOnce {
            return None;
        }
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if self.unanswered.insert(self.last_id) {
                return Some(self.last_id);
            }
        }
    }
}
