//! A batch as the cloud reads it: borrowed, unparsed where nobody looks, and checked for truthiness.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The body of a request.
#[derive(Debug, Deserialize)]
pub(crate) struct Batch<'a> {
    #[serde(borrow)]
    pub(crate) tenant_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(crate) edge_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) sent_at: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) events: Vec<&'a RawValue>,
}

/// The fields of one event; a `null` is the same as nothing.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Event<'a> {
    #[serde(borrow, default)]
    pub(crate) event_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) event_type: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) tenant_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) farm_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) barn_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) device_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) station_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) session_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) occurred_at: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) trace_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) schema_version: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) idempotency_key: Option<&'a RawValue>,
}

impl<'a> Event<'a> {
    /// Reads an element of `events`. What is no object has no fields, as in the cloud's own language.
    pub(crate) fn read(raw: &'a RawValue) -> Self {
        serde_json::from_str(raw.get()).unwrap_or_default()
    }

    /// The first check that fails, in the order in which the cloud makes them.
    pub(crate) fn missing(&self) -> Option<&'static str> {
        let checks = [
            (is_truthy(self.event_id), "Missing event_id"),
            (is_truthy(self.event_type), "Missing event_type"),
            (is_truthy(self.tenant_id), "Missing tenant_id"),
            (is_truthy(self.farm_id), "Missing farm_id"),
            (is_truthy(self.barn_id), "Missing barn_id"),
            (is_truthy(self.device_id) || is_truthy(self.station_id), "Missing device_id or station_id"),
            (is_truthy(self.occurred_at), "Missing occurred_at"),
            (is_truthy(self.trace_id), "Missing trace_id"),
            (is_truthy(self.schema_version), "Missing schema_version"),
            (is_truthy(self.payload), "Missing payload"),
        ];
        checks.into_iter().find(|(is_there, _)| !is_there).map(|(_, text)| text)
    }
}

/// The keys of a reading that its consumer needs.
#[derive(Debug, Deserialize)]
pub(crate) struct ReadingPayload<'a> {
    #[serde(borrow)]
    pub(crate) metric_type: Cow<'a, str>,
    #[expect(dead_code, reason = "reading it is the check that it is a number")]
    pub(crate) metric_value: f64,
}

/// A field as text; a number or a boolean as it was written.
pub(crate) fn text(field: Option<&RawValue>) -> Cow<'_, str> {
    let Some(raw) = field.map(RawValue::get) else {
        return Cow::Borrowed("");
    };
    match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(plain) if !plain.contains('\\') => Cow::Borrowed(plain),
        Some(_) => Cow::Owned(serde_json::from_str(raw).expect("the text was read as JSON before")),
        None => Cow::Borrowed(raw),
    }
}

/// Whether the cloud's language takes the field for something: not null, not empty, not zero, not false.
fn is_truthy(field: Option<&RawValue>) -> bool {
    match field.map(RawValue::get) {
        None | Some("null" | "\"\"" | "false") => false,
        Some(raw) if raw.starts_with(['-', '0']) => raw.parse::<f64>().is_ok_and(|number| number != 0.0),
        Some(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"{"event_id":"e","event_type":"y","tenant_id":"t","farm_id":"f","barn_id":"b","device_id":"d",
        "station_id":"s","occurred_at":"o","trace_id":"r","schema_version":"1.0","payload":{}}"#;

    fn missing(json: &str) -> Option<&'static str> {
        Event::read(&RawValue::from_string(json.to_owned()).unwrap()).missing()
    }

    #[test]
    fn each_missing_field_is_named() {
        assert_eq!(missing(WHOLE), None);
        for field in ["event_id", "event_type", "tenant_id", "farm_id", "barn_id", "occurred_at", "trace_id"]
        {
            let mut event: serde_json::Value = serde_json::from_str(WHOLE).unwrap();
            for falsy in [serde_json::json!(null), "".into(), 0.into(), false.into(), serde_json::json!(-0.0)]
            {
                event[field] = falsy;
                assert_eq!(
                    missing(&event.to_string()),
                    Some(format!("Missing {field}")).as_deref(),
                    "{event}"
                );
            }
        }
        assert_eq!(missing(&WHOLE.replace("{}", "null")), Some("Missing payload"));
        assert_eq!(missing("{}"), Some("Missing event_id"));
        assert_eq!(missing("7"), Some("Missing event_id"));
    }

    #[test]
    fn a_device_or_a_station_is_enough() {
        assert_eq!(missing(&WHOLE.replace(r#""device_id":"d","#, "")), None);
        assert_eq!(missing(&WHOLE.replace(r#""station_id":"s","#, "")), None);
        let neither = WHOLE.replace(r#""device_id":"d","#, "").replace(r#""station_id":"s","#, "");
        assert_eq!(missing(&neither), Some("Missing device_id or station_id"));
    }
}
