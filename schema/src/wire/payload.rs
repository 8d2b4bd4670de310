//! What each kind of message must carry in its payload.

use serde_json::{Map, Value};

use crate::wire::reject::{Reason, Reject};

/// Bytes of a generic device event's payload that are kept.
pub const EVENT_PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a status message's text that are kept.
pub const STATUS_MESSAGE_BYTES_MAX: usize = 200;

/// A reading.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// A finite number.
    pub value: f64,
    /// Its unit as the device names it.
    pub unit: Option<String>,
}

impl Reading {
    /// Reads `value` and `unit`; a unit that is no string is ignored.
    ///
    /// # Errors
    /// `VALUE_NOT_NUMBER`, `VALUE_NOT_FINITE`, or `PAYLOAD_KEY_INVALID` for a unit with a NUL, which no text column holds.
    pub fn decode(payload: &Value) -> Result<Self, Reject> {
        let value = payload.get("value").and_then(Value::as_f64);
        let value = value.ok_or(Reject::of(Reason::ValueNotNumber, "payload.value"))?;
        if !value.is_finite() {
            return Err(Reject::of(Reason::ValueNotFinite, "payload.value"));
        }
        let unit = payload.get("unit").and_then(Value::as_str);
        if unit.is_some_and(|unit| unit.contains('\0')) {
            return Err(Reject::of(Reason::PayloadKeyInvalid, "payload.unit"));
        }
        Ok(Self { value, unit: unit.map(str::to_owned) })
    }
}

/// The state a device reports of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// It works.
    Online,
    /// It said good-bye, or its last will did.
    Offline,
    /// It works and is in trouble.
    Error,
}

impl DeviceState {
    /// The value of `device_last_seen.state`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Error => "error",
        }
    }
}

/// A status message.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The state it amounts to.
    pub state: DeviceState,
    /// As the device names it.
    pub firmware_version: Option<String>,
    /// At most [`STATUS_MESSAGE_BYTES_MAX`] bytes.
    pub message: Option<String>,
    /// The health flags: the booleans of `payload.health`.
    pub health: Option<Map<String, Value>>,
}

impl Status {
    /// Reads a status payload; what is not understood is left out, since no status message is refused for its payload.
    #[must_use]
    pub fn decode(payload: &Value) -> Self {
        let flags = payload.get("health").and_then(Value::as_object).map(health_flags);
        let status = payload.get("status").and_then(Value::as_str);
        let mqtt_is_down = flags.as_ref().and_then(|flags| flags.get("mqtt_ok")) == Some(&Value::Bool(false));
        let state = match status {
            _ if mqtt_is_down => DeviceState::Offline,
            Some("offline") => DeviceState::Offline,
            Some("error") => DeviceState::Error,
            Some(_) | None => DeviceState::Online,
        };
        Self {
            state,
            firmware_version: text(payload, "firmware_version"),
            message: text(payload, "message"),
            health: flags,
        }
    }
}

fn health_flags(health: &Map<String, Value>) -> Map<String, Value> {
    let is_kept = |(key, value): &(&String, &Value)| value.is_boolean() && !key.contains('\0');
    health.iter().filter(is_kept).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// A text cut at a character's end to what is kept, without the NUL no text column holds.
fn text(payload: &Value, key: &str) -> Option<String> {
    let text = payload.get(key)?.as_str()?;
    let mut end = text.len().min(STATUS_MESSAGE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Some(text[..end].replace('\0', ""))
}

/// The payload of a generic event, written as JSON, or `None` when it has none.
///
/// # Errors
/// `MESSAGE_TOO_LARGE` above [`EVENT_PAYLOAD_BYTES_MAX`]; `PAYLOAD_KEY_INVALID` for an escaped NUL, which `jsonb` cannot hold.
pub fn event_json(payload: &Value) -> Result<Option<String>, Reject> {
    if payload.is_null() {
        return Ok(None);
    }
    let json = payload.to_string();
    if json.len() > EVENT_PAYLOAD_BYTES_MAX {
        return Err(Reject::of(Reason::MessageTooLarge, "payload"));
    }
    if json.contains("\\u0000") && contains_nul(payload) {
        return Err(Reject::of(Reason::PayloadKeyInvalid, "payload"));
    }
    Ok(Some(json))
}

fn contains_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(contains_nul),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || contains_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reading_needs_a_number() {
        let reason = |payload: Value| Reading::decode(&payload).map_err(|reject| reject.reason);
        assert_eq!(reason(json!({"value": 1, "unit": 5})), Ok(Reading { value: 1.0, unit: None }));
        assert_eq!(reason(json!({"value": "1"})), Err(Reason::ValueNotNumber));
        assert_eq!(reason(json!(null)), Err(Reason::ValueNotNumber));
        assert_eq!(reason(json!({"value": 1, "unit": "a\0"})), Err(Reason::PayloadKeyInvalid));
    }

    #[test]
    fn the_state_follows_the_health_flag_before_the_status() {
        let state = |payload: Value| Status::decode(&payload).state;
        assert_eq!(state(json!({"health": {"mqtt_ok": false}, "status": "online"})), DeviceState::Offline);
        assert_eq!(state(json!({"status": "offline"})), DeviceState::Offline);
        assert_eq!(state(json!({"status": "error", "health": {"mqtt_ok": true}})), DeviceState::Error);
        assert_eq!(state(json!({"status": "sleepy"})), DeviceState::Online);
        assert_eq!(state(json!(null)), DeviceState::Online);
    }

    #[test]
    fn a_status_message_is_cut_between_characters() {
        let long = "ü".repeat(150);
        let status = Status::decode(&json!({"message": long}));
        assert_eq!(status.message.map(|message| message.len()), Some(200));
    }

    #[test]
    fn an_event_payload_keeps_what_the_database_can_hold() {
        assert_eq!(event_json(&json!(null)), Ok(None));
        assert_eq!(event_json(&json!({"a": "\\u0000"})), Ok(Some(r#"{"a":"\\u0000"}"#.to_owned())));
        assert_eq!(
            event_json(&json!(["\0"])).map_err(|reject| reject.reason),
            Err(Reason::PayloadKeyInvalid)
        );
        let large = json!("x".repeat(EVENT_PAYLOAD_BYTES_MAX));
        assert_eq!(event_json(&large).map_err(|reject| reject.reason), Err(Reason::MessageTooLarge));
    }
}
