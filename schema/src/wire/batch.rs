//! Batches to the cloud: how an outbox row becomes an event of a request, and how the answer is read.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::wire::time;

/// Schema version of an event whose payload names none.
const SCHEMA_VERSION: &str = "1.0";
/// The start of the cloud's texts for an event without a required field. Such an event never gets better by waiting.
pub const MISSING_PREFIX: &str = "Missing ";

/// The columns of an outbox row from which an event is made. Nothing is taken from inside the payload but a station
/// and a schema version, where the row has none.
#[derive(Clone, Copy, Debug)]
pub struct EventRow<'a> {
    /// Row id.
    pub id: Uuid,
    /// Tenant.
    pub tenant_id: &'a str,
    /// Farm, where known.
    pub farm_id: Option<&'a str>,
    /// Barn, where known.
    pub barn_id: Option<&'a str>,
    /// Device, where known.
    pub device_id: Option<&'a str>,
    /// Station, where known.
    pub station_id: Option<&'a str>,
    /// Session, where known.
    pub session_id: Option<&'a str>,
    /// Type, also the routing key at the cloud.
    pub event_type: &'a str,
    /// When it happened; for rows without it, when the row was made.
    pub occurred_at: Timestamp,
    /// Trace id, where known.
    pub trace_id: Option<&'a str>,
    /// The payload as JSON text, which is copied as it stands.
    pub payload_json: &'a str,
}

/// Appends the event of `row` to `out` as JSON.
///
/// # Errors
/// The text with which the cloud would reject the event; `out` is left as it was.
pub fn write_event(out: &mut String, row: &EventRow<'_>) -> Result<(), &'static str> {
    let hints = Hints::read(row.payload_json);
    let station_id = filled(row.station_id).map(Cow::Borrowed).or_else(|| hints.station_id());
    let schema_version = hints.schema_version();
    check(row, station_id.as_deref(), &schema_version)?;

    let id = row.id.hyphenated().to_string();
    let fallback_trace_id = || Cow::Owned(format!("trace-{id}"));
    let trace_id = filled(row.trace_id).map_or_else(fallback_trace_id, Cow::Borrowed);
    out.push_str("{\"event_id\":\"");
    out.push_str(&id);
    out.push('"');
    text_field(out, "event_type", Some(row.event_type));
    text_field(out, "tenant_id", Some(row.tenant_id));
    text_field(out, "farm_id", filled(row.farm_id));
    text_field(out, "barn_id", filled(row.barn_id));
    text_field(out, "device_id", filled(row.device_id));
    text_field(out, "station_id", station_id.as_deref());
    text_field(out, "session_id", filled(row.session_id));
    text_field(out, "occurred_at", Some(&time::format(row.occurred_at)));
    text_field(out, "trace_id", Some(&trace_id));
    text_field(out, "schema_version", Some(&schema_version));
    out.push_str(",\"payload\":");
    out.push_str(row.payload_json);
    text_field(out, "idempotency_key", Some(&format!("{}:{id}", row.tenant_id)));
    out.push('}');
    Ok(())
}

/// The body of a request: the events are the texts that [`write_event`] made. An empty batch is a legal one.
#[must_use]
pub fn body<'a>(
    tenant_id: &str,
    edge_id: &str,
    sent_at: Timestamp,
    events: impl IntoIterator<Item = &'a str>,
) -> String {
    let mut out = String::from("{\"tenant_id\":");
    push_text(&mut out, tenant_id);
    text_field(&mut out, "edge_id", Some(edge_id));
    text_field(&mut out, "sent_at", Some(&time::format(sent_at)));
    out.push_str(",\"events\":[");
    for (i, event) in events.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(event);
    }
    out.push_str("]}");
    out
}

/// Bytes of a body without its events.
#[must_use]
pub fn frame_bytes(tenant_id: &str, edge_id: &str) -> usize {
    body(tenant_id, edge_id, Timestamp::UNIX_EPOCH, []).len()
}

/// The same checks in the same order as the cloud makes them: what its language takes for nothing is missing.
/// Ids, times and the trace id are always there.
fn check(row: &EventRow<'_>, station_id: Option<&str>, schema_version: &str) -> Result<(), &'static str> {
    let checks = [
        (!row.event_type.is_empty(), "Missing event_type"),
        (!row.tenant_id.is_empty(), "Missing tenant_id"),
        (filled(row.farm_id).is_some(), "Missing farm_id"),
        (filled(row.barn_id).is_some(), "Missing barn_id"),
        (filled(row.device_id).or(station_id).is_some(), "Missing device_id or station_id"),
        (!schema_version.is_empty(), "Missing schema_version"),
        (is_truthy(row.payload_json), "Missing payload"),
    ];
    checks.into_iter().find(|(is_there, _)| !is_there).map_or(Ok(()), |(_, text)| Err(text))
}

fn is_truthy(json: &str) -> bool {
    match json {
        "null" | "false" | "\"\"" => false,
        _ if json.starts_with(['-', '0']) => json.parse::<f64>().is_ok_and(|number| number != 0.0),
        _ => true,
    }
}

fn filled(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

fn text_field(out: &mut String, name: &str, value: Option<&str>) {
    let Some(value) = value else { return };
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    push_text(out, value);
}

fn push_text(out: &mut String, text: &str) {
    let is_plain = text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\');
    if is_plain {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::to_string(text).expect("a text always serializes"));
    }
}

/// The few keys of a payload that stand in for a column.
#[derive(Debug, Default, Deserialize)]
struct Hints<'a> {
    #[serde(borrow, default)]
    station_id: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "stationId")]
    station_id_camel: Option<&'a RawValue>,
    #[serde(borrow, default)]
    schema_version: Option<&'a RawValue>,
}

impl<'a> Hints<'a> {
    /// Most payloads name none of the keys and are not parsed.
    fn read(payload_json: &'a str) -> Self {
        let keys = ["\"station_id\"", "\"stationId\"", "\"schema_version\""];
        // An array is no payload with keys, though it could be read as one by position.
        let may_name_one = payload_json.starts_with('{') && keys.iter().any(|key| payload_json.contains(key));
        if may_name_one { serde_json::from_str(payload_json).unwrap_or_default() } else { Self::default() }
    }

    fn station_id(&self) -> Option<Cow<'a, str>> {
        let station = text_of(self.station_id).filter(|text| !text.is_empty());
        station.or_else(|| text_of(self.station_id_camel).filter(|text| !text.is_empty()))
    }

    fn schema_version(&self) -> Cow<'a, str> {
        text_of(self.schema_version).unwrap_or(Cow::Borrowed(SCHEMA_VERSION))
    }
}

fn text_of(json: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let json = json?.get();
    if !json.starts_with('"') {
        return None;
    }
    serde_json::from_str::<String>(json).ok().map(Cow::Owned)
}

/// What the cloud says about a well-formed batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Events it had already.
    pub duplicated: u64,
    /// Events it refused; `None` when the answer has no such counter.
    pub rejected: Option<u64>,
    /// The refusals it explains.
    pub errors: Vec<EventError>,
}

/// One refused event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventError {
    /// The event, when the answer names it.
    pub event_id: Option<Uuid>,
    /// Why, in the cloud's words.
    pub error: String,
}

/// A counter that is there but is no count: it agrees with no list of errors.
const UNREADABLE_COUNT: u64 = u64::MAX;

impl Receipt {
    /// Reads the body of a 2xx answer. `None` when it is no JSON object: somebody else than the cloud has answered.
    #[must_use]
    pub fn read(body: &[u8]) -> Option<Self> {
        let Ok(Value::Object(object)) = serde_json::from_slice(body) else { return None };
        let counter = |name: &str| object.get(name).filter(|value| !value.is_null()).map(count);
        let errors = match object.get("errors") {
            Some(Value::Array(errors)) => errors.iter().map(EventError::read).collect(),
            None | Some(Value::Null) => Vec::new(),
            // Errors in a form that nobody knows are errors all the same.
            Some(other) => vec![EventError::read(other)],
        };
        Some(Self { duplicated: counter("duplicated").unwrap_or(0), rejected: counter("rejected"), errors })
    }
}

impl EventError {
    fn read(value: &Value) -> Self {
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        Self {
            event_id: text("event_id").and_then(|id| Uuid::try_parse(id).ok()),
            error: text("error").or_else(|| value.as_str()).unwrap_or("rejected without a text").to_owned(),
        }
    }
}

fn count(value: &Value) -> u64 {
    let from_float = || value.as_f64().filter(|n| n.fract() == 0.0 && (0.0..1e9).contains(n));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number below 1e9")]
    value.as_u64().or_else(|| from_float().map(|n| n as u64)).unwrap_or(UNREADABLE_COUNT)
}

#[cfg(test)]
mod tests;
