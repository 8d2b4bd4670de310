//! Gives replayed messages new ids, new times and new places, so that a second play is new data.

use chrono::{DateTime, SecondsFormat};
use rand::Rng;
use sha2::{Digest, Sha256};

use crate::ids::{hyphenated, parse};
use crate::recording::Message;
use crate::traffic::text::{self, Scalar};
use crate::traffic::{self, Level};

/// Keys whose values name one event, one session or one picture.
const OCCURRENCES: [&str; 14] = [
    "event_id",
    "eventId",
    "trace_id",
    "traceId",
    "session_id",
    "sessionId",
    "capture_id",
    "captureId",
    "media_id",
    "mediaId",
    "media_object_id",
    "mediaObjectId",
    "image_id",
    "imageId",
];
/// Keys whose values name a place or a device.
const PLACES: [&str; 6] = ["barn_id", "barnId", "station_id", "stationId", "device_id", "deviceId"];

/// What all messages of a run have in common.
#[derive(Clone, Debug)]
pub struct Rewriter {
    renews_ids: bool,
    /// New ids are derived from the old ones and this, so that all messages of a session agree on its new name.
    nonce: u128,
}

/// Which playing of a message it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Take {
    /// Round, from zero.
    pub round: usize,
    /// Copy of the barn; zero is the barn itself.
    pub copy: usize,
    /// By how much times are moved.
    pub shift: Option<chrono::Duration>,
}

impl Rewriter {
    /// New ids differ from those of every other run, unless the seed is the same.
    #[must_use]
    pub fn new(renews_ids: bool, seed: Option<u64>) -> Self {
        let nonce = seed.map_or_else(|| rand::rng().random(), u128::from);
        Self { renews_ids, nonce }
    }

    /// The message as it is sent in this take. What is no JSON keeps its body.
    #[must_use]
    pub fn rewrite(&self, message: Message, take: Take) -> Message {
        // A second barn with the events of the first would only be a duplicate.
        let renews_ids = self.renews_ids || take.copy > 0;
        if !renews_ids && take.shift.is_none() {
            return message;
        }
        let topic = self.topic(&message.topic, take, renews_ids);
        let body = std::str::from_utf8(&message.payload).ok();
        let body = body.and_then(|body| {
            text::map_envelope(body, |key, scalar| match scalar {
                Scalar::Text(value) => self.value(key, value, take, renews_ids),
                Scalar::Number(_) => None,
            })
        });
        let payload = body.map_or(message.payload, Into::into);
        let client = message.client.map(|client| copy_name(&client, take.copy));
        Message { topic, payload, client, ..message }
    }

    fn topic(&self, topic: &str, take: Take, renews_ids: bool) -> String {
        let levels: Vec<_> = traffic::levels(topic)
            .map(|(level, text)| match level {
                Level::Barn | Level::Device | Level::Station => copy_name(text, take.copy),
                Level::Session if renews_ids => self.renew(text, take),
                Level::Session | Level::Word | Level::Tenant | Level::Farm | Level::Unknown => {
                    text.to_owned()
                }
            })
            .collect();
        levels.join("/")
    }

    fn value(&self, key: &str, value: &str, take: Take, renews_ids: bool) -> Option<String> {
        if OCCURRENCES.contains(&key) {
            return (renews_ids && !value.is_empty()).then(|| self.renew(value, take));
        }
        if PLACES.contains(&key) {
            return (take.copy > 0 && !value.is_empty()).then(|| copy_name(value, take.copy));
        }
        shift(value, take.shift?)
    }

    /// A UUID becomes another of its version, also behind a prefix; any other id is given an ending.
    fn renew(&self, old: &str, take: Take) -> String {
        let uuid_at = old.len().checked_sub(36).filter(|at| old.is_char_boundary(*at));
        let uuid = uuid_at.and_then(|at| Some((&old[..at], parse(&old[at..].to_ascii_lowercase())?)));
        let mut hash = Sha256::new();
        hash.update(self.nonce.to_be_bytes());
        hash.update((take.round as u64).to_be_bytes());
        hash.update((take.copy as u64).to_be_bytes());
        // A trace id that is the event id behind a prefix stays one.
        match uuid {
            Some((_, uuid)) => hash.update(uuid.to_be_bytes()),
            None => hash.update(old),
        }
        let digest: [u8; 32] = hash.finalize().into();
        let (bits, _) = digest.split_first_chunk::<16>().expect("a digest has 32 bytes");
        let bits = u128::from_be_bytes(*bits);
        match uuid {
            Some((prefix, old)) => {
                const KEPT: u128 = (0xF << 76) | (0b11 << 62);
                format!("{prefix}{}", hyphenated((bits & !KEPT) | (old & KEPT)))
            }
            None => format!("{old}-{:08x}", bits >> 96),
        }
    }
}

/// The name of a thing in a copy of the barn.
#[must_use]
pub fn copy_name(name: &str, copy: usize) -> String {
    if copy == 0 { name.to_owned() } else { format!("{name}-c{copy}") }
}

/// A time moved, in the way it is written; `None` for what is no time.
fn shift(text: &str, by: chrono::Duration) -> Option<String> {
    let at = DateTime::parse_from_rfc3339(text).ok()?;
    let fraction = text.split_once('.').map_or("", |(_, rest)| rest);
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    let precision = match digits {
        0 => SecondsFormat::Secs,
        1..=3 => SecondsFormat::Millis,
        4..=6 => SecondsFormat::Micros,
        _ => SecondsFormat::Nanos,
    };
    let moved = at.checked_add_signed(by)?;
    Some(moved.to_rfc3339_opts(precision, text.ends_with(['Z', 'z'])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::properties::Properties;
    use schema::clock::Timestamp;

    fn message(topic: &str, payload: &str) -> Message {
        Message {
            at: Timestamp::UNIX_EPOCH,
            topic: topic.into(),
            qos: 1,
            is_retained: false,
            payload: payload.to_owned().into(),
            properties: Properties::default(),
            client: None,
        }
    }

    fn parts(message: &Message) -> (&str, &str) {
        (&message.topic, std::str::from_utf8(&message.payload).unwrap())
    }

    #[test]
    fn a_plain_play_changes_no_byte() {
        let message = message("iot/telemetry/t/f/b/d/co2", r#"{"event_id" : "e"}"#);
        assert_eq!(Rewriter::new(false, None).rewrite(message.clone(), Take::default()), message);
    }

    #[test]
    fn all_messages_of_a_session_agree_on_its_new_name() {
        let rewriter = Rewriter::new(true, Some(1));
        let topic = "iot/weighvision/t/f/b/st/session/20260212_093215/x";
        let body = r#"{"event_id":"be6ead4e-49b4-4366-a96b-edf9725f68bf","trace_id":"tr-be6ead4e-49b4-4366-a96b-edf9725f68bf","payload":{"capture_id":"20260212_093215","batchId":null}}"#;
        let take = |round| Take { round, ..Take::default() };
        let first = rewriter.rewrite(message(topic, body), take(0));
        let (new_topic, new_body) = parts(&first);
        let session = new_topic.split('/').nth(7).unwrap();
        assert!(session.starts_with("20260212_093215-"), "{session}");
        assert!(new_body.contains(&format!(r#""capture_id":"{session}""#)), "{new_body}");
        let said = traffic::Said::of(topic, &first.payload);
        let event = said.event_id.unwrap();
        assert!(event.len() == 36 && &event[14..15] == "4" && !body.contains(&event), "{event}");
        assert!(new_body.contains(&format!(r#""trace_id":"tr-{event}""#)), "{new_body}");
        assert_ne!(rewriter.rewrite(message(topic, body), take(1)), first);
        assert_eq!(rewriter.rewrite(message(topic, body), take(0)), first);
    }

    #[test]
    fn a_copy_has_a_barn_devices_and_events_of_its_own() {
        let rewriter = Rewriter::new(false, Some(1));
        let body = r#"{"event_id":"e-1","tenant_id":"t","barnId":"b","device_id":"d","metric":"d"}"#;
        let copied =
            rewriter.rewrite(message("iot/telemetry/t/f/b/d/co2", body), Take { copy: 2, ..Take::default() });
        let (topic, body) = parts(&copied);
        assert_eq!(topic, "iot/telemetry/t/f/b-c2/d-c2/co2");
        let tail = r#","tenant_id":"t","barnId":"b-c2","device_id":"d-c2","metric":"d"}"#;
        assert!(body.starts_with(r#"{"event_id":"e-1-"#) && body.ends_with(tail), "{body}");
    }

    #[test]
    fn times_move_and_keep_their_form() {
        let hour = chrono::Duration::hours(1);
        let check = |old: &str, new: Option<&str>| assert_eq!(shift(old, hour).as_deref(), new, "{old}");
        check("2026-02-12T09:32:15.052269Z", Some("2026-02-12T10:32:15.052269Z"));
        check("2026-02-12T09:32:15.052+00:00", Some("2026-02-12T10:32:15.052+00:00"));
        check("2026-02-12T23:32:15+07:00", Some("2026-02-13T00:32:15+07:00"));
        check("20260212_093215", None);
        check("yesterday", None);
    }
}
