//! What weighing stations say about one weighing: the bodies of weight-vision-service and of iot-weighvision-agent.

use rand::Rng;
use serde_json::{Value, json};

use schema::clock::Timestamp;
use schema::wire::event::{
    IMAGE_CAPTURED, SESSION_CREATED, SESSION_FINALIZED, STATUS, TELEMETRY_READING, WEIGHT_RECORDED,
};

use super::{Message, Place, at_least_once, content_hash, micros, offset, telemetry_topic};
use crate::climate::Metric;
use crate::ids::new_event_id;
use crate::mqtt::Publish;

/// Seconds a station spends between the picture and its last message.
const UPLOAD_SECONDS: i64 = 13;
/// The roles of a station's two pictures.
pub const ROLES: [&str; 2] = ["left", "vis"];

/// A weighing station.
#[derive(Clone, Debug)]
pub struct Station {
    /// Where it stands.
    pub place: Place,
    /// Station id of the topic.
    pub station: String,
    /// Device id of the body.
    pub device: String,
}

/// One weighing of a station.
#[derive(Clone, Copy, Debug)]
pub struct Weighing<'a> {
    /// Session id.
    pub session: &'a str,
    /// What the scale said.
    pub weight_kg: f64,
    /// When the picture was taken; all messages of weight-vision-service carry this time.
    pub at: Timestamp,
}

/// A picture a station speaks of.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its id in the store.
    pub media_id: String,
    /// `left` or `vis`.
    pub role: &'static str,
    /// Its size.
    pub size_bytes: u64,
    /// Lower-case hex.
    pub sha256: String,
}

impl Image {
    /// A picture that nobody ever stored.
    fn made_up(role: &'static str, random: &mut impl Rng) -> Self {
        Self {
            media_id: new_event_id(random),
            role,
            size_bytes: random.random_range(900_000..2_400_000),
            sha256: hex::encode(random.random::<[u8; 32]>()),
        }
    }
}

/// The event ids of one weighing. A device that speaks HTTP and MQTT uses each twice.
#[derive(Clone, Debug)]
pub struct EventIds {
    /// The trace of all of them.
    pub trace: String,
    /// Of the start.
    pub created: String,
    /// Of the weight.
    pub weight: String,
    /// Of the two readings with the same value.
    pub readings: [String; 2],
    /// Of each picture.
    pub images: Vec<String>,
    /// Of the end.
    pub finalized: String,
}

impl EventIds {
    /// New ids for a weighing with so many pictures.
    pub fn new(images: usize, random: &mut impl Rng) -> Self {
        Self {
            trace: new_event_id(random),
            created: new_event_id(random),
            weight: new_event_id(random),
            readings: [new_event_id(random), new_event_id(random)],
            images: (0..images).map(|_| new_event_id(random)).collect(),
            finalized: new_event_id(random),
        }
    }
}

/// A request of weight-vision-service to the session API.
#[derive(Clone, Debug)]
pub struct Call {
    /// The path.
    pub path: String,
    /// The body.
    pub body: Value,
    /// The event id, when the call leads to an event in the cloud.
    pub expected: Option<String>,
}

/// What weight-vision-service sends.
impl Station {
    /// The seven MQTT messages of a weighing with two pictures that nobody stored.
    pub fn weigh(&self, weighing: Weighing<'_>, random: &mut impl Rng) -> Vec<Message> {
        let images = ROLES.map(|role| Image::made_up(role, random));
        self.vision_messages(weighing, &images, &EventIds::new(images.len(), random))
    }

    /// The MQTT messages of a weighing in the order the device sends them: created, weight, telemetry, images,
    /// finalized, and the telemetry once more under another event id.
    #[must_use]
    pub fn vision_messages(&self, weighing: Weighing<'_>, images: &[Image], ids: &EventIds) -> Vec<Message> {
        let Weighing { session, weight_kg, at } = weighing;
        let reading = json!({"unit": "kg", "value": weight_kg});
        let created = json!({"batchId": null, "capture_id": session, "captured_at": micros(at)});
        let finalized_at = offset(at + chrono::Duration::seconds(UPLOAD_SECONDS));
        let finalized =
            json!({"capture_id": session, "finalized_at": finalized_at, "image_count": images.len()});
        let mut steps = vec![
            (SESSION_CREATED, &ids.created, created),
            (WEIGHT_RECORDED, &ids.weight, json!({"weightKg": weight_kg})),
            (TELEMETRY_READING, &ids.readings[0], reading.clone()),
        ];
        for (image, event_id) in images.iter().zip(&ids.images) {
            let payload = json!({"content_type": "image/jpeg", "image_role": image.role,
                "mediaObjectId": image.media_id, "sha256": image.sha256, "size_bytes": image.size_bytes});
            steps.push((IMAGE_CAPTURED, event_id, payload));
        }
        steps.push((SESSION_FINALIZED, &ids.finalized, finalized));
        steps.push((TELEMETRY_READING, &ids.readings[1], reading));
        let message = |(event_type, event_id, payload): (&str, &String, Value)| {
            let topic = match event_type {
                TELEMETRY_READING => telemetry_topic(&self.place, &self.device, Metric::Weight),
                _ => self.session_topic(session, event_type),
            };
            let produced_at = offset(at + chrono::Duration::seconds(UPLOAD_SECONDS));
            let body = json!({
                "schema_version": "1.0", "event_id": event_id, "trace_id": ids.trace,
                "tenant_id": self.place.tenant, "device_id": self.device, "event_type": event_type,
                "ts": micros(at), "content_hash": content_hash(&payload), "produced_at": produced_at,
                "payload": payload,
            });
            // An image is bound to its session and causes no event of its own.
            let expected = (event_type != IMAGE_CAPTURED).then(|| event_id.clone());
            Message { publish: at_least_once(topic, body.to_string()), expected }
        };
        steps.into_iter().map(message).collect()
    }

    /// The calls of the session API that come before: create, bind-weight, bind-media, finalize.
    #[must_use]
    pub fn vision_calls(&self, weighing: Weighing<'_>, images: &[Image], ids: &EventIds) -> Vec<Call> {
        let Weighing { session, weight_kg, at } = weighing;
        let Place { tenant, farm, barn } = &self.place;
        let sessions = "/api/v1/weighvision/sessions";
        let at = micros(at);
        let call = |path: String, event_id: &String, body: Value, is_expected: bool| Call {
            path,
            body,
            expected: is_expected.then(|| event_id.clone()),
        };
        let create = json!({"sessionId": session, "eventId": ids.created, "tenantId": tenant, "farmId": farm,
            "barnId": barn, "deviceId": self.device, "stationId": self.station, "startAt": at});
        let weight =
            json!({"tenantId": tenant, "weightKg": weight_kg, "occurredAt": at, "eventId": ids.weight});
        let mut calls = vec![
            call(sessions.to_owned(), &ids.created, create, true),
            call(format!("{sessions}/{session}/bind-weight"), &ids.weight, weight, true),
        ];
        for (image, event_id) in images.iter().zip(&ids.images) {
            let body = json!({"tenantId": tenant, "mediaObjectId": image.media_id, "occurredAt": at,
                "eventId": event_id});
            calls.push(call(format!("{sessions}/{session}/bind-media"), event_id, body, false));
        }
        let finalize = json!({"tenantId": tenant, "eventId": ids.finalized, "occurredAt": at});
        calls.push(call(format!("{sessions}/{session}/finalize"), &ids.finalized, finalize, true));
        calls
    }
}

/// What a scale without a camera sends.
impl Station {
    /// The three messages of a weighing: created, with the batch of the birds, weight, and finalized.
    #[must_use]
    pub fn bare_messages(
        &self,
        weighing: Weighing<'_>,
        batch_id: &str,
        random: &mut impl Rng,
    ) -> Vec<Message> {
        let Weighing { session, weight_kg, at } = weighing;
        let trace = new_event_id(random);
        let steps = [
            (SESSION_CREATED, json!({"batch_id": batch_id})),
            (WEIGHT_RECORDED, json!({"weight_kg": weight_kg})),
            (SESSION_FINALIZED, json!({"image_count": 0})),
        ];
        let message = |(event_type, payload): (&str, Value)| {
            let event_id = new_event_id(random);
            let body = self.agent_envelope(event_type, &event_id, &trace, at, &payload);
            let publish = at_least_once(self.session_topic(session, event_type), body);
            Message { publish, expected: Some(event_id) }
        };
        steps.into_iter().map(message).collect()
    }
}

/// What iot-weighvision-agent sends.
impl Station {
    /// The messages of a session in the order the broker sees them: pictures, then created, which waited for the
    /// connection, then the weight unless the scale was unrest, then finalized. Each has a time of its own.
    #[must_use]
    pub fn agent_messages(
        &self,
        weighing: Weighing<'_>,
        images: &[Image],
        ids: &EventIds,
        is_stable: bool,
    ) -> Vec<Message> {
        let Weighing { session, weight_kg, at } = weighing;
        let second = |seconds: i64| at + chrono::Duration::seconds(seconds);
        let mut messages = Vec::new();
        let mut push = |event_type: &str, event_id: &String, at: Timestamp, payload: Value| {
            let body = self.agent_envelope(event_type, event_id, &ids.trace, at, &payload);
            let expected = (event_type != IMAGE_CAPTURED).then(|| event_id.clone());
            let publish = at_least_once(self.session_topic(session, event_type), body);
            messages.push(Message { publish, expected });
        };
        for (image, event_id) in images.iter().zip(&ids.images) {
            let payload = json!({"media_id": image.media_id, "content_type": "image/jpeg",
                "size_bytes": image.size_bytes, "sha256": image.sha256});
            push(IMAGE_CAPTURED, event_id, second(2), payload);
        }
        push(SESSION_CREATED, &ids.created, at, json!({"batch_id": ids.trace}));
        if is_stable {
            push(WEIGHT_RECORDED, &ids.weight, second(1), json!({"weight_kg": weight_kg}));
        }
        push(SESSION_FINALIZED, &ids.finalized, second(3), json!({"image_count": images.len()}));
        messages
    }

    /// The retained status of the agent: everything well, gone without a word (the will), or leaving in order.
    #[must_use]
    pub fn agent_status(&self, health: AgentHealth, at: Timestamp, event_id: &str) -> Publish {
        let (others_ok, mqtt_ok) = match health {
            AgentHealth::Well => (true, true),
            AgentHealth::Leaving => (true, false),
            AgentHealth::Lost => (false, false),
        };
        let payload = json!({"last_seen_at": offset(at), "firmware_version": "1.0.0", "ip": null,
            "signal_strength": null,
            "health": {"camera_ok": others_ok, "scale_ok": others_ok, "disk_ok": others_ok, "mqtt_ok": mqtt_ok}});
        let Place { tenant, farm, barn } = &self.place;
        let topic = format!("iot/status/{tenant}/{farm}/{barn}/{}", self.device);
        let body = self.agent_envelope(STATUS, event_id, event_id, at, &payload);
        Publish { is_retained: true, ..at_least_once(topic, body) }
    }

    fn agent_envelope(
        &self,
        event_type: &str,
        event_id: &str,
        trace_id: &str,
        at: Timestamp,
        payload: &Value,
    ) -> String {
        json!({
            "schema_version": "1.0", "event_id": event_id, "trace_id": trace_id, "tenant_id": self.place.tenant,
            "device_id": self.device, "event_type": event_type, "ts": offset(at), "payload": payload,
            "content_hash": null, "produced_at": null, "retry_count": 0,
        })
        .to_string()
    }

    fn session_topic(&self, session: &str, event_type: &str) -> String {
        let Place { tenant, farm, barn } = &self.place;
        format!("iot/weighvision/{tenant}/{farm}/{barn}/{}/session/{session}/{event_type}", self.station)
    }
}

/// What the agent says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentHealth {
    /// At every connect.
    Well,
    /// At a clean stop.
    Leaving,
    /// In its will.
    Lost,
}
