//! What each kind of message must carry in its payload.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::wire::reject::{Reason, Reject};

mod verbatim;

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

/// The payload of a generic event as the device wrote it, digit by digit, or `None` when it has none. `body` is the whole
/// message, which was read before.
///
/// # Errors
/// `MESSAGE_TOO_LARGE` above [`EVENT_PAYLOAD_BYTES_MAX`]; `PAYLOAD_KEY_INVALID` for an escaped NUL, which `jsonb` cannot hold.
pub fn event_json(body: &[u8]) -> Result<Option<String>, Reject> {
    let found: Found<'_> = serde_json::from_slice(body).map_err(|_| Reject::from(Reason::BodyNotJson))?;
    let Some(payload) = found.payload.filter(|payload| payload.get() != "null") else { return Ok(None) };
    let json = verbatim::json(payload).ok_or(Reject::of(Reason::PayloadKeyInvalid, "payload"))?;
    if json.len() > EVENT_PAYLOAD_BYTES_MAX {
        return Err(Reject::of(Reason::MessageTooLarge, "payload"));
    }
    Ok(Some(json))
}

/// The text of the payload in a message. Of a repeated key the last one counts.
struct Found<'a> {
    payload: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for Found<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FoundVisitor;
        impl<'de> Visitor<'de> for FoundVisitor {
            type Value = Found<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut payload = None;
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    if key == "payload" {
                        payload = Some(map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Found { payload })
            }
        }
        deserializer.deserialize_map(FoundVisitor)
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
    fn an_event_payload_is_kept_digit_by_digit() {
        let check = |payload: &str, expected: &str| {
            let body = format!("{{\"event_id\": \"e-1\", \"payload\": {payload} }}");
            assert_eq!(event_json(body.as_bytes()), Ok(Some(expected.to_owned())), "{payload}");
        };
        check(r#"{ "iccid": 89660012345678901234 }"#, r#"{"iccid":89660012345678901234}"#);
        check("[18446744073709551616, -9223372036854775809]", "[18446744073709551616,-9223372036854775809]");
        check("[1.10, 0.1000000000000000055, 1E+2, -0]", "[1.10,0.1000000000000000055,1E+2,-0]");
        check("\t17 ", "17");
        check(r#"{"a b": "x \" 1e-500 \\", "e": true}"#, r#"{"a b":"x \" 1e-500 \\","e":true}"#);
        // No double is that small, and a decimal of so many digits would be large.
        check("[1e-500, -1.5E-99999, 0e999, 1e300]", "[0.0,-0.0,0.0,1e300]");
    }

    #[test]
    fn an_event_payload_keeps_what_the_database_can_hold() {
        let of = |payload: &str| event_json(format!("{{\"payload\":{payload}}}").as_bytes());
        let reason = |payload: &str| of(payload).map_err(|reject| reject.reason);
        assert_eq!(of("null"), Ok(None));
        assert_eq!(event_json(b"{}"), Ok(None));
        assert_eq!(of("null,\"payload\":1"), Ok(Some("1".to_owned())));
        assert_eq!(of(r#"{"a":"\\u0000"}"#), Ok(Some(r#"{"a":"\\u0000"}"#.to_owned())));
        assert_eq!(reason(r#"["\u0000"]"#), Err(Reason::PayloadKeyInvalid));
        assert_eq!(reason(r#"{"\u0000":1}"#), Err(Reason::PayloadKeyInvalid));
        assert_eq!(reason(r#"{"a":"\u0000","a":1}"#), Err(Reason::PayloadKeyInvalid));
        let large = format!("\"{}\"", "x".repeat(EVENT_PAYLOAD_BYTES_MAX));
        assert_eq!(reason(&large), Err(Reason::MessageTooLarge));
        let spacious = format!("[1{}]", " ".repeat(EVENT_PAYLOAD_BYTES_MAX));
        assert_eq!(reason(&spacious), Ok(Some("[1]".to_owned())));
    }
}
