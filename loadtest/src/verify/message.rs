//! The messages of a ledger as a judge needs them: what kind each is, and what its sender knows of it.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};

use schema::wire::event::{SESSION_CREATED, SESSION_FINALIZED, WEIGHT_RECORDED};

use super::mapping::normal_form;
use crate::ledger::{Entries, Entry, Outcome};

/// Topic under which an image that was taken over stands in a ledger, before its media id.
pub const IMAGE_TOPIC: &str = "http:/api/v1/media/uploads/";

/// What a message is, by its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A reading.
    Reading,
    /// The beginning of this session.
    Created(String),
    /// A weight of this session.
    Weight(String),
    /// An image of this session.
    Picture(String),
    /// The end of this session.
    Finalized(String),
    /// A generic event of a device.
    Event,
    /// A status, which is a state and no event: only the last one stays.
    Status,
    /// The bytes of an image.
    Image,
    /// There is no topic to tell.
    Any,
}

impl Kind {
    /// Empty segments do not count.
    #[must_use]
    pub fn of(topic: &str) -> Self {
        if topic.starts_with(IMAGE_TOPIC) {
            return Self::Image;
        }
        let segments: Vec<_> = topic.split('/').filter(|segment| !segment.is_empty()).collect();
        match segments.as_slice() {
            ["iot", "telemetry", ..] => Self::Reading,
            ["iot", "event", ..] => Self::Event,
            ["iot", "status", ..] => Self::Status,
            ["iot", "weighvision", _, _, _, _, "session", session, event_type] => {
                let session = (*session).to_owned();
                match *event_type {
                    SESSION_CREATED => Self::Created(session),
                    WEIGHT_RECORDED => Self::Weight(session),
                    SESSION_FINALIZED => Self::Finalized(session),
                    _ => Self::Picture(session),
                }
            }
            _ => Self::Any,
        }
    }
}

/// A tenant and an id of its own.
pub type Key = (String, String);

/// A message, however often it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// Where it was published; empty when nobody knows.
    pub topic: String,
    /// Hash of its body; empty when nobody knows.
    pub sha256: String,
    /// How often it was acknowledged.
    pub acknowledged: usize,
    /// How often it was refused in the answer.
    pub refused: usize,
}

/// Everything of a ledger, by tenant and normal form of the event id.
#[derive(Debug, Default)]
pub struct Messages {
    /// The messages.
    pub by_key: HashMap<Key, Message>,
    /// Statuses and bodies without an event id, which cannot be found again.
    pub nameless: usize,
}

impl Messages {
    /// Reads a ledger.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(path: &Path, tenant: &str) -> Result<Self> {
        let mut messages = Self::default();
        for entry in Entries::open(path)? {
            messages.add(entry?, tenant);
        }
        Ok(messages)
    }

    /// Reads a file of acknowledged event ids, one a line.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_ids(path: &Path, tenant: &str) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let mut messages = Self::default();
        for id in text.lines().map(str::trim).filter(|id| !id.is_empty()) {
            messages.put((tenant.to_owned(), normal_form(id)), "", "", Outcome::Acknowledged);
        }
        Ok(messages)
    }

    /// Adds what a sender knows of one sending.
    pub fn add(&mut self, entry: Entry, tenant: &str) {
        let kind = Kind::of(&entry.topic);
        let (Some(event_id), false) = (entry.event_id, kind == Kind::Status) else {
            self.nameless += 1;
            return;
        };
        let key = (entry.tenant_id.unwrap_or_else(|| tenant.to_owned()), normal_form(&event_id));
        self.put(key, &entry.topic, &entry.sha256, entry.outcome);
    }

    fn put(&mut self, key: Key, topic: &str, sha256: &str, outcome: Outcome) {
        let message = self.by_key.entry(key).or_insert_with(|| Message {
            kind: Kind::of(topic),
            topic: topic.to_owned(),
            sha256: sha256.to_owned(),
            acknowledged: 0,
            refused: 0,
        });
        match outcome {
            Outcome::Acknowledged => message.acknowledged += 1,
            Outcome::Refused => message.refused += 1,
            Outcome::Unknown => {}
        }
    }

    /// Those that were acknowledged.
    pub fn acknowledged(&self) -> impl Iterator<Item = (&Key, &Message)> {
        self.by_key.iter().filter(|(_, message)| message.acknowledged > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_say_what_a_message_is() {
        let session = "iot/weighvision/t/f/b/st/session/s-1/";
        for (topic, kind) in [
            ("iot/telemetry/t/f/b/d/temperature", Kind::Reading),
            ("/iot//telemetry/t/f/b/d/temperature/", Kind::Reading),
            ("iot/event/t/f/b/d/door_opened", Kind::Event),
            ("iot/status/t/f/b/d", Kind::Status),
            (&format!("{session}weighvision.session.created"), Kind::Created("s-1".into())),
            (&format!("{session}weighvision.weight.recorded"), Kind::Weight("s-1".into())),
            (&format!("{session}media.bound"), Kind::Picture("s-1".into())),
            (&format!("{session}weighvision.session.finalized"), Kind::Finalized("s-1".into())),
            (&format!("{IMAGE_TOPIC}m-1"), Kind::Image),
            ("", Kind::Any),
        ] {
            assert_eq!(Kind::of(topic), kind, "{topic}");
        }
    }

    #[test]
    fn a_message_sent_twice_is_one_message() {
        let mut messages = Messages::default();
        let key = ("t".to_owned(), "e".to_owned());
        messages.put(key.clone(), "iot/event/t/f/b/d/x", "00", Outcome::Unknown);
        assert_eq!(messages.acknowledged().count(), 0);
        messages.put(key.clone(), "iot/event/t/f/b/d/x", "00", Outcome::Acknowledged);
        messages.put(key.clone(), "iot/event/t/f/b/d/x", "00", Outcome::Acknowledged);
        assert_eq!(messages.by_key[&key].acknowledged, 2);
    }
}
