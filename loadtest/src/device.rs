//! The bodies real devices send, in all three dialects.
//!
//! The shapes are spelled here once more on purpose: a device shares no code with the engine that reads it.

mod weighing;

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use chrono::SecondsFormat;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use schema::clock::Timestamp;
use schema::wire::envelope::Dialect;
use schema::wire::event::{STATUS, TELEMETRY_READING};

use crate::climate::Metric;
use crate::mqtt::Publish;

pub use weighing::{AgentHealth, Call, EventIds, Image, ROLES, Station, Weighing};

/// Where a device stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Tenant id.
    pub tenant: String,
    /// Farm id.
    pub farm: String,
    /// Barn id.
    pub barn: String,
}

/// One message, and the event ids the cloud must see once the message is acknowledged.
#[derive(Clone, Debug)]
pub struct Message {
    /// What goes over the wire.
    pub publish: Publish,
    /// The event id, when the message leads to an event in the cloud.
    pub expected: Option<String>,
}

/// What a sensor says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It works.
    Online,
    /// It is gone, or about to go.
    Offline,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
        }
    }
}

/// One reading of one metric.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// The measuring device.
    pub device: &'a str,
    /// What it measures.
    pub metric: Metric,
    /// The value in the metric's unit.
    pub value: f64,
    /// When it was measured.
    pub at: Timestamp,
    /// The event id.
    pub event_id: &'a str,
}

impl Reading<'_> {
    /// The topic of the reading.
    #[must_use]
    pub fn topic(&self, place: &Place) -> String {
        telemetry_topic(place, self.device, self.metric)
    }

    /// The body of the reading.
    #[must_use]
    pub fn body(&self, place: &Place, dialect: Dialect) -> String {
        let mut body = String::with_capacity(420);
        let written = match dialect {
            Dialect::Canonical => self.canonical(&mut body, place),
            Dialect::NullFields => self.null_fields(&mut body, place),
            Dialect::Flat => self.flat(&mut body, place),
        };
        written.expect("writing into a string cannot fail");
        body
    }

    fn canonical(&self, out: &mut String, Place { tenant, .. }: &Place) -> std::fmt::Result {
        let Self { device, event_id, value, .. } = self;
        let (unit, ts) = (self.metric.unit(), zulu(self.at));
        write!(
            out,
            r#"{{"schema_version":"1.0","event_id":"{event_id}","trace_id":"tr-{event_id}","tenant_id":"{tenant}","device_id":"{device}","event_type":"{TELEMETRY_READING}","ts":"{ts}","payload":{{"unit":"{unit}","value":{value:?}}}}}"#
        )
    }

    fn null_fields(&self, out: &mut String, Place { tenant, .. }: &Place) -> std::fmt::Result {
        let Self { device, event_id, value, .. } = self;
        let (unit, ts) = (self.metric.unit(), offset(self.at));
        write!(
            out,
            r#"{{"schema_version":"1.0","event_id":"{event_id}","trace_id":null,"tenant_id":"{tenant}","device_id":"{device}","event_type":"{TELEMETRY_READING}","ts":"{ts}","payload":{{"value":{value:?},"unit":"{unit}"}},"content_hash":null,"produced_at":null,"retry_count":0}}"#
        )
    }

    fn flat(&self, out: &mut String, Place { tenant, farm, barn }: &Place) -> std::fmt::Result {
        let Self { device, event_id, value, .. } = self;
        let (metric, unit, ts) = (self.metric.name(), self.metric.unit(), offset(self.at));
        write!(
            out,
            r#"{{"event_id":"{event_id}","tenant_id":"{tenant}","farm_id":"{farm}","barn_id":"{barn}","device_id":"{device}","metric":"{metric}","value":{value:?},"unit":"{unit}","ts":"{ts}","schema_version":"1.0"}}"#
        )
    }

    /// The same with a time as a display shows it, which nobody can read: it is refused.
    #[must_use]
    pub fn confused_message(&self, place: &Place) -> Message {
        let shown = self.at.format("%d/%m/%y %H:%M").to_string();
        let body = self.body(place, Dialect::Canonical).replace(&zulu(self.at), &shown);
        Message { publish: at_least_once(self.topic(place), body), expected: None }
    }

    /// The reading as a message at QoS 1, expected in the cloud.
    #[must_use]
    pub fn message(&self, place: &Place, dialect: Dialect) -> Message {
        let publish = at_least_once(self.topic(place), self.body(place, dialect));
        Message { publish, expected: Some(self.event_id.to_owned()) }
    }
}

/// The topic of a device's readings of one metric.
#[must_use]
pub fn telemetry_topic(Place { tenant, farm, barn }: &Place, device: &str, metric: Metric) -> String {
    format!("iot/telemetry/{tenant}/{farm}/{barn}/{device}/{}", metric.name())
}

/// The retained status of a device, also the body of its last will. A flat sensor sends the bare form, the others a
/// whole envelope whose health flags say the same.
#[must_use]
pub fn status(
    place: &Place,
    device: &str,
    dialect: Dialect,
    state: State,
    at: Timestamp,
    event_id: &str,
) -> Publish {
    let Place { tenant, farm, barn } = place;
    let is_up = state == State::Online;
    let body = match dialect {
        Dialect::Flat => {
            json!({"device_id": device, "status": state.as_str(), "ts": offset(at), "message": ""})
        }
        Dialect::Canonical | Dialect::NullFields => json!({
            "schema_version": "1.0", "event_id": event_id, "trace_id": format!("tr-{event_id}"),
            "tenant_id": tenant, "device_id": device, "event_type": STATUS, "ts": offset(at),
            "payload": {"last_seen_at": offset(at), "firmware_version": "1.0.0", "ip": null, "signal_strength": null,
                "health": {"camera_ok": is_up, "scale_ok": is_up, "disk_ok": is_up, "mqtt_ok": is_up}},
            "content_hash": null, "produced_at": null, "retry_count": 0,
        }),
    };
    let topic = format!("iot/status/{tenant}/{farm}/{barn}/{device}");
    Publish { is_retained: true, ..at_least_once(topic, body.to_string()) }
}

/// Lower-case hex SHA-256 of a payload written with sorted keys; payloads here are built with their keys in order.
#[must_use]
pub fn content_hash(payload: &Value) -> String {
    hex::encode(Sha256::digest(payload.to_string()))
}

/// A message at QoS 1 that is not retained.
pub(crate) fn at_least_once(topic: String, body: String) -> Publish {
    Publish {
        topic: Arc::from(topic),
        payload: Bytes::from(body),
        qos: 1,
        is_retained: false,
        properties: Bytes::new(),
    }
}

/// Milliseconds and `Z`.
fn zulu(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Microseconds and `Z`.
fn micros(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Microseconds and `+00:00`, as Python writes it.
fn offset(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{TimeZone, Utc};
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use schema::wire::envelope::{Dialects, Envelope};
    use schema::wire::event::{IMAGE_CAPTURED, SESSION_CREATED, SESSION_FINALIZED, WEIGHT_RECORDED};
    use schema::wire::topic::Topic;

    fn place() -> Place {
        Place { tenant: "t-001".into(), farm: "f-001".into(), barn: "b-001".into() }
    }

    fn noon() -> Timestamp {
        Utc.with_ymd_and_hms(2026, 2, 12, 12, 0, 0).unwrap()
    }

    fn decode(publish: &Publish) -> Envelope {
        let topic = Topic::parse(&publish.topic).unwrap();
        let hash = hex::encode(Sha256::digest(&publish.payload));
        Envelope::decode(&topic, &publish.payload, &hash, noon(), Dialects::default()).unwrap()
    }

    #[test]
    fn every_metric_in_every_dialect_is_a_valid_reading() {
        for (dialect, metric) in Dialect::ALL.into_iter().flat_map(|d| Metric::ALL.map(|m| (d, m))) {
            let reading = Reading { device: "d-001", metric, value: 26.0, at: noon(), event_id: "e-1" };
            let message = reading.message(&place(), dialect);
            let envelope = decode(&message.publish);
            assert_eq!(envelope.dialect, dialect);
            assert_eq!(envelope.event_id, "e-1");
            assert_eq!(envelope.occurred_at, noon());
            assert_eq!(envelope.payload["value"], 26.0, "{dialect:?} {metric:?}");
            assert_eq!(envelope.payload["unit"], metric.unit());
        }
    }

    #[test]
    fn statuses_are_retained_and_valid_in_every_dialect() {
        for dialect in Dialect::ALL {
            let publish = status(&place(), "d-001", dialect, State::Offline, noon(), "e-1");
            assert!(publish.is_retained);
            assert_eq!(decode(&publish).event_type, STATUS);
        }
    }

    #[test]
    fn a_weighing_is_seven_valid_messages_of_which_the_images_cause_no_event() {
        let station = Station { place: place(), station: "st-01".into(), device: "wv-001".into() };
        let weighing = Weighing { session: "20260212_120000", weight_kg: 0.2, at: noon() };
        let messages = station.weigh(weighing, &mut StdRng::seed_from_u64(1));
        let types: Vec<_> = messages.iter().map(|message| decode(&message.publish).event_type).collect();
        let expected = [
            SESSION_CREATED,
            WEIGHT_RECORDED,
            TELEMETRY_READING,
            IMAGE_CAPTURED,
            IMAGE_CAPTURED,
            SESSION_FINALIZED,
            TELEMETRY_READING,
        ];
        assert_eq!(types, expected);
        assert_eq!(messages.iter().filter(|message| message.expected.is_some()).count(), 5);
    }

    #[test]
    fn an_agent_speaks_of_its_picture_before_its_session_begins() {
        let station = Station { place: place(), station: "st-02".into(), device: "wv-002".into() };
        let weighing = Weighing { session: "s-1", weight_kg: 0.2, at: noon() };
        let mut random = StdRng::seed_from_u64(1);
        let image = Image { media_id: "m-1".into(), role: "vis", size_bytes: 5, sha256: "00".repeat(32) };
        let ids = EventIds::new(1, &mut random);
        let types = |is_stable| -> Vec<String> {
            let messages = station.agent_messages(weighing, std::slice::from_ref(&image), &ids, is_stable);
            let envelopes = messages.iter().map(|message| decode(&message.publish));
            envelopes
                .inspect(|envelope| assert_eq!(envelope.dialect, Dialect::NullFields))
                .map(|e| e.event_type)
                .collect()
        };
        assert_eq!(types(true), [IMAGE_CAPTURED, SESSION_CREATED, WEIGHT_RECORDED, SESSION_FINALIZED]);
        assert_eq!(types(false), [IMAGE_CAPTURED, SESSION_CREATED, SESSION_FINALIZED]);
        let will = station.agent_status(AgentHealth::Lost, noon(), "e-1");
        assert!(will.is_retained);
        assert_eq!(decode(&will).payload["health"]["camera_ok"], false);
    }

    #[test]
    fn the_content_hash_follows_the_vector_of_the_contract() {
        let hash = content_hash(&json!({"weightKg": 0.2}));
        assert_eq!(hash, "85427c844f93825c6da2568206d51f572cb955df0bfd4daee43253489f69b550");
    }
}
