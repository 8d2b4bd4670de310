//! What a message says about itself: its place and its ids, read from topic and body without the engine's help.

pub mod text;

use serde::Deserialize;
use serde_json::Value;

use schema::wire::event::TELEMETRY_READING;

use crate::connection::Device;

/// A topic by its levels: `iot/KIND/TENANT/FARM/BARN/DEVICE-OR-STATION/...`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A word that every installation has: the root, the kind, a metric, an event type.
    Word,
    /// Tenant id.
    Tenant,
    /// Farm id.
    Farm,
    /// Barn id.
    Barn,
    /// Device id.
    Device,
    /// Station id.
    Station,
    /// Session id.
    Session,
    /// Nothing is known about it.
    Unknown,
}

/// The levels of a topic, each with what it is. In a topic that is not of this kind nothing is known of any level.
pub fn levels(topic: &str) -> impl Iterator<Item = (Level, &str)> {
    let kind = topic.strip_prefix("iot/").and_then(|rest| rest.split('/').next());
    let is_weighing = kind == Some("weighvision");
    let is_ours = is_weighing || matches!(kind, Some("telemetry" | "event" | "status"));
    topic.split('/').enumerate().map(move |(at, text)| {
        let level = match at {
            _ if !is_ours => Level::Unknown,
            2 => Level::Tenant,
            3 => Level::Farm,
            4 => Level::Barn,
            5 if is_weighing => Level::Station,
            5 => Level::Device,
            7 if is_weighing => Level::Session,
            _ => Level::Word,
        };
        (level, text)
    })
}

/// What a message says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Tenant id.
    pub tenant: Option<String>,
    /// Farm id, of the topic.
    pub farm: Option<String>,
    /// Barn id, of the topic.
    pub barn: Option<String>,
    /// Device id: of the topic, or of the body where the topic names a station.
    pub device: Option<String>,
    /// Station id, of the topic.
    pub station: Option<String>,
    /// Event id, of the body.
    pub event_id: Option<String>,
    /// Event type, of the body; a bare reading is one by its topic.
    pub event_type: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    #[serde(alias = "tenantId")]
    tenant_id: Value,
    #[serde(alias = "deviceId")]
    device_id: Value,
    #[serde(alias = "eventId")]
    event_id: Value,
    #[serde(alias = "eventType")]
    event_type: Value,
}

impl Said {
    /// Reads topic and body; a body that is no JSON object says nothing.
    #[must_use]
    pub fn of(topic: &str, payload: &[u8]) -> Self {
        let mut said = Self::default();
        for (level, text) in levels(topic) {
            let place = match level {
                Level::Tenant => &mut said.tenant,
                Level::Farm => &mut said.farm,
                Level::Barn => &mut said.barn,
                Level::Device => &mut said.device,
                Level::Station => &mut said.station,
                Level::Word | Level::Session | Level::Unknown => continue,
            };
            *place = Some(text.to_owned());
        }
        let body: Body = serde_json::from_slice(payload).unwrap_or_default();
        let text = |value: Value| value.as_str().map(str::to_owned);
        said.event_id = text(body.event_id);
        said.event_type = text(body.event_type);
        said.tenant = said.tenant.or_else(|| text(body.tenant_id));
        said.device = said.device.or_else(|| text(body.device_id));
        if said.event_type.is_none() && topic.starts_with("iot/telemetry/") {
            said.event_type = Some(TELEMETRY_READING.to_owned());
        }
        said
    }

    /// Whose message it is, as far as that is known: without a device it is its station's, without a tenant nobody's.
    #[must_use]
    pub fn sender(&self) -> Option<Device> {
        let id = self.device.as_ref().or(self.station.as_ref())?;
        Some(Device { tenant: self.tenant.clone()?, id: id.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_and_body_together_say_whose_message_it_is() {
        let sender = |topic: &str, body: &str| {
            let said = Said::of(topic, body.as_bytes());
            said.sender().map(|device| format!("{}/{}", device.tenant, device.id))
        };
        let check = |topic: &str, body: &str, expected: Option<&str>| {
            assert_eq!(sender(topic, body).as_deref(), expected, "{topic} {body}");
        };
        check("iot/telemetry/t/f/b/d/temperature", "{}", Some("t/d"));
        check("iot/status/t/f/b/d", "no json", Some("t/d"));
        check("iot/weighvision/t/f/b/st/session/s/x", r#"{"device_id":"wv"}"#, Some("t/wv"));
        check("iot/weighvision/t/f/b/st/session/s/x", r#"{"device_id":1}"#, Some("t/st"));
        check("other", r#"{"tenantId":"t","deviceId":"d"}"#, Some("t/d"));
        check("other", "{}", None);
    }

    #[test]
    fn the_body_names_the_event() {
        let said = Said::of("iot/telemetry/t/f/b/d/co2", br#"{"event_id":"e","value":1}"#);
        assert_eq!(said.event_id.as_deref(), Some("e"));
        assert_eq!(said.event_type.as_deref(), Some("telemetry.reading"));
    }
}
