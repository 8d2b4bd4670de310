//! The envelope of a device's message: read in one of three dialects, checked, and compared with its topic.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::id::{self, DeviceId, TenantId};
use crate::wire::event::{STATUS, TELEMETRY_READING};
use crate::wire::reject::{Reason, Reject};
use crate::wire::time;
use crate::wire::topic::{Kind, Topic};

/// The only `schema_version` there is.
pub const SCHEMA_VERSION: &str = "1.0";

/// The three ways in which real devices write an envelope; also the `dialect` label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// The envelope as it was specified.
    Canonical,
    /// The envelope with explicit nulls for optional fields, or with a numeric offset in `ts`.
    NullFields,
    /// No envelope: the reading's or the status's own keys at the top level.
    Flat,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 3] = [Self::Canonical, Self::NullFields, Self::Flat];

    /// The metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Canonical => "canonical",
            Self::NullFields => "null_fields",
            Self::Flat => "flat",
        }
    }
}

/// Which dialects are accepted.
#[derive(Clone, Copy, Debug)]
pub struct Dialects {
    /// Accept [`Dialect::Canonical`].
    pub canonical: bool,
    /// Accept [`Dialect::NullFields`].
    pub null_fields: bool,
    /// Accept [`Dialect::Flat`].
    pub flat: bool,
}

impl Default for Dialects {
    fn default() -> Self {
        Self { canonical: true, null_fields: true, flat: true }
    }
}

impl Dialects {
    fn accepts(self, dialect: Dialect) -> bool {
        match dialect {
            Dialect::Canonical => self.canonical,
            Dialect::NullFields => self.null_fields,
            Dialect::Flat => self.flat,
        }
    }
}

/// A message that passed the steps up to its agreement with the topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// How it was written.
    pub dialect: Dialect,
    /// The event id in its normal form.
    pub event_id: String,
    /// The device's trace id, if it sent one.
    pub trace_id: Option<String>,
    /// The sending device; on weighvision topics the topic does not repeat it.
    pub device_id: DeviceId,
    /// The type of the event.
    pub event_type: String,
    /// When it happened, by the device's clock.
    pub occurred_at: Timestamp,
    /// Whether the time came from `occurred_at` because `ts` is absent.
    pub is_ts_alias: bool,
    /// The payload; `Null` when absent.
    pub payload: Value,
}

impl Envelope {
    /// Reads and checks a body that arrived on `topic`: JSON, dialect, fields, and agreement with the topic, in the
    /// order of the contract's table. `body_sha256_hex` names a bare status message that carries no event id.
    ///
    /// # Errors
    /// The first refusal.
    pub fn decode(
        topic: &Topic,
        body: &[u8],
        body_sha256_hex: &str,
        received_at: Timestamp,
        dialects: Dialects,
    ) -> Result<Self, Reject> {
        let fields = Fields::parse(body)?;
        let dialect = fields.dialect(topic.kind());
        if !dialects.accepts(dialect) {
            return Err(Reason::DialectDisabled.into());
        }
        let (envelope, tenant_id) = match (dialect, topic.kind()) {
            (Dialect::Flat, Kind::Status) => fields.bare_status(topic, body_sha256_hex, received_at)?,
            (Dialect::Flat, _) => fields.flat_reading()?,
            (Dialect::Canonical | Dialect::NullFields, _) => fields.canonical(dialect)?,
        };
        envelope.agree(topic, &tenant_id, &fields)?;
        Ok(envelope)
    }

    /// Steps 5 to 7: the body says the same as the topic.
    fn agree(&self, topic: &Topic, tenant_id: &TenantId, fields: &Fields<'_>) -> Result<(), Reject> {
        let place = topic.place();
        if *tenant_id != place.tenant_id {
            return Err(Reject::of(Reason::TenantMismatch, "tenant_id"));
        }
        if self.dialect == Dialect::Flat {
            fields.farm_id.agrees("farm_id", place.farm_id.as_str())?;
            fields.barn_id.agrees("barn_id", place.barn_id.as_str())?;
        }
        if topic.device_id().is_some_and(|device_id| device_id != self.device_id) {
            return Err(Reject::of(Reason::DeviceMismatch, "device_id"));
        }
        if topic.event_type().is_some_and(|event_type| event_type != self.event_type) {
            return Err(Reject::of(Reason::EventTypeMismatch, "event_type"));
        }
        if let Topic::Telemetry { metric, .. } = topic { self.agree_on_metric(metric) } else { Ok(()) }
    }

    fn agree_on_metric(&self, metric: &str) -> Result<(), Reject> {
        if self.event_type != TELEMETRY_READING {
            return Err(Reject::of(Reason::EventTypeNotTelemetry, "event_type"));
        }
        match self.payload.get("metric") {
            Some(Value::String(named)) if named != metric => {
                Err(Reject::of(Reason::MetricMismatch, "payload.metric"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// A top-level field before it is judged.
#[derive(Debug, Default)]
enum Field<'a> {
    #[default]
    Absent,
    Null,
    Text(Cow<'a, str>),
    Other(Value),
}

impl<'a> Field<'a> {
    fn is_there(&self) -> bool {
        matches!(self, Self::Text(_) | Self::Other(_))
    }

    /// Whether its key is there, be it with a null.
    fn is_named(&self) -> bool {
        !matches!(self, Self::Absent)
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Text(text) if text.is_empty())
    }

    /// The text of an optional field; absent and null are the same.
    fn optional(&self, name: &'static str) -> Result<Option<&str>, Reject> {
        match self {
            Self::Absent | Self::Null => Ok(None),
            Self::Text(text) => Ok(Some(text)),
            Self::Other(_) => Err(Reject::of(Reason::FieldType, name)),
        }
    }

    /// The text of a field that [`require`] has found to be a string.
    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Absent | Self::Null | Self::Other(_) => "",
        }
    }

    fn agrees(&self, name: &'static str, expected: &str) -> Result<(), Reject> {
        match self.optional(name)? {
            Some(text) if text != expected => Err(Reject::of(Reason::ScopeMismatch, name)),
            Some(_) | None => Ok(()),
        }
    }
}

impl<'de> Deserialize<'de> for Field<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldVisitor;
        impl<'de> Visitor<'de> for FieldVisitor {
            type Value = Field<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON value")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Field::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Field::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Field::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
                Ok(Field::Other(Value::from(value)))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
                Ok(Field::Other(Value::from(value)))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
                Ok(Field::Other(Value::from(value)))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
                Ok(Field::Other(Value::from(value)))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<Value>()?.is_some() {}
                Ok(Field::Other(Value::Array(Vec::new())))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<Cow<'de, str>, Value>()?.is_some() {}
                Ok(Field::Other(Value::Object(Map::new())))
            }
        }
        deserializer.deserialize_any(FieldVisitor)
    }
}

macro_rules! fields {
    ($($name:ident),* $(,)?) => {
        /// The top-level keys that mean something in any dialect. Of a repeated key the last one counts.
        #[derive(Debug, Default)]
        struct Fields<'a> {
            $($name: Field<'a>,)*
            payload: Value,
        }

        impl<'a> Fields<'a> {
            /// Puts the value of one key in its place; unknown keys are read, so that bad JSON in them is seen, and dropped.
            fn put<A: MapAccess<'a>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
                match key {
                    $(stringify!($name) => self.$name = map.next_value()?,)*
                    "payload" => self.payload = map.next_value()?,
                    _ => drop(map.next_value::<Value>()?),
                }
                Ok(())
            }
        }
    };
}

fields! {
    schema_version, event_id, trace_id, tenant_id, device_id, event_type, ts, occurred_at, content_hash,
    retry_count, produced_at, value, unit, metric, status, message, farm_id, barn_id,
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Fields::default();
                while let Some(key) = map.next_key::<Key<'de>>()? {
                    fields.put(&key.0, &mut map)?;
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// A key, borrowed unless it contains an escape.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// The fields that must be there and the optional ones, in the order in which they are judged.
fn require(
    required: &[(&'static str, &Field<'_>)],
    optional: &[(&'static str, &Field<'_>)],
) -> Result<(), Reject> {
    if let Some((name, _)) = required.iter().find(|(_, field)| !field.is_there()) {
        return Err(Reject::of(Reason::FieldMissing, name));
    }
    for (name, field) in required.iter().chain(optional) {
        field.optional(name)?;
    }
    if let Some((name, _)) = required.iter().find(|(_, field)| field.is_empty()) {
        return Err(Reject::of(Reason::FieldInvalid, name));
    }
    Ok(())
}

impl<'a> Fields<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, Reject> {
        serde_json::from_slice(body).map_err(|error| {
            let is_json = error.is_data() && serde_json::from_slice::<Value>(body).is_ok();
            if is_json { Reason::BodyNotObject.into() } else { Reason::BodyNotJson.into() }
        })
    }

    fn dialect(&self, kind: Kind) -> Dialect {
        let is_bare = self.payload.is_null() && !self.event_type.is_there();
        let is_flat = (kind == Kind::Telemetry && self.value.is_named())
            || (kind == Kind::Status && self.status.is_named());
        if is_bare && is_flat {
            return Dialect::Flat;
        }
        if self.has_null_fields() { Dialect::NullFields } else { Dialect::Canonical }
    }

    fn has_null_fields(&self) -> bool {
        let optional = [
            &self.trace_id,
            &self.ts,
            &self.occurred_at,
            &self.content_hash,
            &self.retry_count,
            &self.produced_at,
        ];
        let is_offset =
            |field: &Field<'_>| matches!(field, Field::Text(text) if time::has_numeric_offset(text));
        let used_time = if self.ts.is_there() { &self.ts } else { &self.occurred_at };
        optional.iter().any(|field| matches!(field, Field::Null)) || is_offset(used_time)
    }

    fn canonical(&self, dialect: Dialect) -> Result<(Envelope, TenantId), Reject> {
        require(
            &[
                ("schema_version", &self.schema_version),
                ("event_id", &self.event_id),
                ("tenant_id", &self.tenant_id),
                ("device_id", &self.device_id),
                ("event_type", &self.event_type),
            ],
            &[
                ("trace_id", &self.trace_id),
                ("ts", &self.ts),
                ("occurred_at", &self.occurred_at),
                ("content_hash", &self.content_hash),
                ("produced_at", &self.produced_at),
            ],
        )?;
        if self.occurred_at.is_empty() {
            // Also where `ts` goes before it.
            return Err(Reject::of(Reason::FieldInvalid, "occurred_at"));
        }
        self.check_retry_count()?;
        let event_type = event_id_of(&self.event_type, "event_type")?.to_owned();
        let (envelope, tenant_id) = self.named(dialect, event_type, self.payload.clone())?;
        Ok((envelope, tenant_id))
    }

    fn flat_reading(&self) -> Result<(Envelope, TenantId), Reject> {
        require(
            &[("event_id", &self.event_id), ("tenant_id", &self.tenant_id), ("device_id", &self.device_id)],
            &[
                ("trace_id", &self.trace_id),
                ("schema_version", &self.schema_version),
                ("ts", &self.ts),
                ("occurred_at", &self.occurred_at),
                ("farm_id", &self.farm_id),
                ("barn_id", &self.barn_id),
            ],
        )?;
        let Field::Other(value @ Value::Number(_)) = &self.value else {
            return Err(Reject::of(Reason::FieldType, "value"));
        };
        let mut payload = Map::new();
        payload.insert("value".to_owned(), value.clone());
        for (name, field) in [("metric", &self.metric), ("unit", &self.unit)] {
            if let Field::Text(text) = field {
                payload.insert(name.to_owned(), Value::from(text.as_ref()));
            }
        }
        self.named(Dialect::Flat, TELEMETRY_READING.to_owned(), Value::Object(payload))
    }

    fn bare_status(
        &self,
        topic: &Topic,
        body_sha256_hex: &str,
        received_at: Timestamp,
    ) -> Result<(Envelope, TenantId), Reject> {
        require(
            &[("device_id", &self.device_id), ("status", &self.status)],
            &[
                ("trace_id", &self.trace_id),
                ("schema_version", &self.schema_version),
                ("tenant_id", &self.tenant_id),
                ("event_id", &self.event_id),
                ("ts", &self.ts),
                ("occurred_at", &self.occurred_at),
                ("farm_id", &self.farm_id),
                ("barn_id", &self.barn_id),
            ],
        )?;
        if !matches!(self.status.text(), "online" | "offline" | "error") {
            return Err(Reject::of(Reason::FieldInvalid, "status"));
        }
        let tenant_id = match self.tenant_id.optional("tenant_id")? {
            Some(text) => id_of(TenantId::new(text), "tenant_id")?,
            None => topic.place().tenant_id.clone(),
        };
        let event_id = match self.event_id.optional("event_id")? {
            Some(_) => id::normal_form(event_id_of(&self.event_id, "event_id")?),
            None => id::bare_status_event_id(tenant_id.as_str(), body_sha256_hex).to_string(),
        };
        let device_id = id_of(DeviceId::new(self.device_id.text()), "device_id")?;
        let trace_id = self.trace()?;
        self.check_version()?;
        let occurred_at = match self.time() {
            Ok(time) => time,
            Err(reject) if reject.reason == Reason::TsMissing => (received_at, false),
            Err(reject) => return Err(reject),
        };
        let mut payload = Map::new();
        payload.insert("status".to_owned(), Value::from(self.status.text()));
        if let Field::Text(message) = &self.message {
            payload.insert("message".to_owned(), Value::from(message.as_ref()));
        }
        let envelope = Envelope {
            dialect: Dialect::Flat,
            event_id,
            trace_id,
            device_id,
            event_type: STATUS.to_owned(),
            occurred_at: occurred_at.0,
            is_ts_alias: occurred_at.1,
            payload: Value::Object(payload),
        };
        Ok((envelope, tenant_id))
    }

    /// The checks that all envelopes with an event id share.
    fn named(
        &self,
        dialect: Dialect,
        event_type: String,
        payload: Value,
    ) -> Result<(Envelope, TenantId), Reject> {
        let event_id = id::normal_form(event_id_of(&self.event_id, "event_id")?);
        let tenant_id = id_of(TenantId::new(self.tenant_id.text()), "tenant_id")?;
        let device_id = id_of(DeviceId::new(self.device_id.text()), "device_id")?;
        let trace_id = self.trace()?;
        self.check_version()?;
        let (occurred_at, is_ts_alias) = self.time()?;
        let envelope = Envelope {
            dialect,
            event_id,
            trace_id,
            device_id,
            event_type,
            occurred_at,
            is_ts_alias,
            payload,
        };
        Ok((envelope, tenant_id))
    }

    fn trace(&self) -> Result<Option<String>, Reject> {
        match self.trace_id.optional("trace_id")? {
            Some(_) => Ok(Some(event_id_of(&self.trace_id, "trace_id")?.to_owned())),
            None => Ok(None),
        }
    }

    fn check_version(&self) -> Result<(), Reject> {
        match self.schema_version.optional("schema_version")? {
            None | Some(SCHEMA_VERSION) => Ok(()),
            Some(_) => Err(Reject::of(Reason::SchemaVersionUnsupported, "schema_version")),
        }
    }

    fn check_retry_count(&self) -> Result<(), Reject> {
        match &self.retry_count {
            Field::Absent | Field::Null => Ok(()),
            Field::Other(Value::Number(number)) if number.is_u64() => Ok(()),
            Field::Other(Value::Number(number)) if number.is_i64() => {
                Err(Reject::of(Reason::FieldInvalid, "retry_count"))
            }
            Field::Other(_) | Field::Text(_) => Err(Reject::of(Reason::FieldType, "retry_count")),
        }
    }

    /// The time of the event and whether it came from the alias.
    fn time(&self) -> Result<(Timestamp, bool), Reject> {
        let (text, name, is_alias) =
            match (self.ts.optional("ts")?, self.occurred_at.optional("occurred_at")?) {
                (Some(text), _) => (text, "ts", false),
                (None, Some(text)) => (text, "occurred_at", true),
                (None, None) => return Err(Reject::of(Reason::TsMissing, "ts")),
            };
        if text.is_empty() {
            return Err(Reject::of(Reason::FieldInvalid, name));
        }
        let time = time::parse(text).ok_or(Reject::of(Reason::TsInvalid, name))?;
        Ok((time, is_alias))
    }
}

fn id_of<T>(id: Result<T, id::InvalidId>, name: &'static str) -> Result<T, Reject> {
    id.map_err(|_| Reject::of(Reason::FieldInvalid, name))
}

fn event_id_of<'a>(field: &'a Field<'_>, name: &'static str) -> Result<&'a str, Reject> {
    let text = field.text();
    if id::is_event_id(text) { Ok(text) } else { Err(Reject::of(Reason::FieldInvalid, name)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TELEMETRY: &str = "iot/telemetry/t-001/f-001/b-001/d-001/temperature";
    const EVENT: &str = "iot/event/t-001/f-001/b-001/d-001/door_opened";
    const SESSION: &str = "iot/weighvision/t-001/f-001/b-001/st-01/session/s-1/weighvision.session.created";
    const STATUS_TOPIC: &str = "iot/status/t-001/f-001/b-001/d-001";

    fn canonical() -> Value {
        json!({
            "schema_version": "1.0", "event_id": "E-1", "trace_id": "tr", "tenant_id": "t-001", "device_id": "d-001",
            "event_type": "telemetry.reading", "ts": "2026-02-12T09:32:15.052269Z", "payload": {"value": 20.5, "unit": "celsius"},
        })
    }

    fn flat() -> Value {
        json!({"event_id": "e-1", "tenant_id": "t-001", "device_id": "d-001", "metric": "temperature", "value": 20.5,
            "unit": "celsius", "ts": "2026-02-12T09:32:15+00:00", "farm_id": "f-001", "barn_id": "b-001", "schema_version": "1.0"})
    }

    fn decode_bytes(topic: &str, body: &[u8], dialects: Dialects) -> Result<Envelope, Reject> {
        let topic = Topic::parse(topic).expect("a topic");
        Envelope::decode(&topic, body, "00", chrono::DateTime::UNIX_EPOCH, dialects)
    }

    fn decode(topic: &str, body: &Value) -> Result<Envelope, Reject> {
        decode_bytes(topic, body.to_string().as_bytes(), Dialects::default())
    }

    /// The canonical envelope with one field changed (or removed, by null in a fresh object).
    fn with(field: &str, value: Value) -> Value {
        let mut body = canonical();
        body[field] = value;
        body
    }

    fn without(mut body: Value, field: &str) -> Value {
        body.as_object_mut().expect("an object").remove(field);
        body
    }

    fn refused(topic: &str, body: &Value, expected: Reason, field: Option<&str>) {
        let reject = decode(topic, body).expect_err("it is refused");
        assert_eq!((reject.reason, reject.field), (expected, field), "{body}");
    }

    #[test]
    fn the_three_dialects_mean_the_same_reading() {
        let of = |body: &Value| decode(TELEMETRY, body).expect("it is accepted");
        let canonical_one = of(&canonical());
        assert_eq!(canonical_one.dialect, Dialect::Canonical);
        assert_eq!(canonical_one.event_id, "E-1");
        assert_eq!(of(&with("produced_at", Value::Null)).dialect, Dialect::NullFields);
        assert_eq!(of(&with("ts", json!("2026-02-12T16:32:15.052269+07:00"))).dialect, Dialect::NullFields);
        assert_eq!(
            of(&with("ts", json!("2026-02-12T16:32:15.052269+07:00"))).occurred_at,
            canonical_one.occurred_at
        );
        let flat_one = of(&flat());
        assert_eq!((flat_one.dialect, flat_one.event_type.as_str()), (Dialect::Flat, TELEMETRY_READING));
        assert_eq!(flat_one.payload, json!({"metric": "temperature", "value": 20.5, "unit": "celsius"}));
    }

    #[test]
    fn a_uuid_is_lower_cased_and_unknown_or_null_keys_are_ignored() {
        let mut body = with("event_id", json!("BE6EAD4E-49B4-4366-A96B-EDF9725F68BF"));
        body["farm_id"] = json!("another");
        body["extra"] = json!({"deep": [1, 2]});
        let envelope = decode(TELEMETRY, &body).expect("it is accepted");
        assert_eq!(envelope.event_id, "be6ead4e-49b4-4366-a96b-edf9725f68bf");
        assert_eq!(envelope.dialect, Dialect::Canonical);
    }

    #[test]
    fn of_a_repeated_key_the_last_one_counts() {
        let body = canonical().to_string().replacen('{', r#"{"event_id":"first","#, 1);
        let envelope = decode_bytes(TELEMETRY, body.as_bytes(), Dialects::default()).expect("it is accepted");
        assert_eq!(envelope.event_id, "E-1");
    }

    #[test]
    fn occurred_at_is_used_only_without_ts() {
        let body = without(with("occurred_at", json!("2026-02-12T10:00Z")), "ts");
        assert!(decode(TELEMETRY, &body).expect("it is accepted").is_ts_alias);
        let both = with("occurred_at", json!("garbage"));
        assert!(!decode(TELEMETRY, &both).expect("ts wins").is_ts_alias);
    }

    #[test]
    fn a_body_must_be_a_json_object() {
        let reason =
            |body: &[u8]| decode_bytes(TELEMETRY, body, Dialects::default()).expect_err("refused").reason;
        for body in [
            &b""[..],
            b"{",
            b"NaN",
            b"{\"value\":NaN}",
            b"{\"x\":1e999}",
            b"{\"x\":Infinity}",
            b"{\"a\":\"\xff\"}",
            b"{}x",
        ] {
            assert_eq!(reason(body), Reason::BodyNotJson, "{}", String::from_utf8_lossy(body));
        }
        for body in [&b"[]"[..], b"1", b"null", b"\"text\"", b" true "] {
            assert_eq!(reason(body), Reason::BodyNotObject, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn the_fields_of_the_canonical_envelope_are_checked() {
        for field in ["schema_version", "event_id", "tenant_id", "device_id", "event_type"] {
            refused(TELEMETRY, &without(canonical(), field), Reason::FieldMissing, Some(field));
            refused(TELEMETRY, &with(field, Value::Null), Reason::FieldMissing, Some(field));
            refused(TELEMETRY, &with(field, json!(5)), Reason::FieldType, Some(field));
            refused(TELEMETRY, &with(field, json!("")), Reason::FieldInvalid, Some(field));
        }
        for field in ["trace_id", "ts", "content_hash", "produced_at"] {
            refused(TELEMETRY, &with(field, json!([1])), Reason::FieldType, Some(field));
        }
        refused(TELEMETRY, &with("trace_id", json!("")), Reason::FieldInvalid, Some("trace_id"));
        refused(TELEMETRY, &with("event_id", json!("a\u{0}b")), Reason::FieldInvalid, Some("event_id"));
        refused(TELEMETRY, &with("event_id", json!("x".repeat(201))), Reason::FieldInvalid, Some("event_id"));
        refused(TELEMETRY, &with("device_id", json!("d/1")), Reason::FieldInvalid, Some("device_id"));
        refused(
            TELEMETRY,
            &with("schema_version", json!("2.0")),
            Reason::SchemaVersionUnsupported,
            Some("schema_version"),
        );
        refused(TELEMETRY, &with("retry_count", json!(1.5)), Reason::FieldType, Some("retry_count"));
        refused(TELEMETRY, &with("retry_count", json!("1")), Reason::FieldType, Some("retry_count"));
        refused(TELEMETRY, &with("retry_count", json!(-1)), Reason::FieldInvalid, Some("retry_count"));
        refused(TELEMETRY, &without(canonical(), "ts"), Reason::TsMissing, Some("ts"));
        refused(TELEMETRY, &with("ts", json!("yesterday")), Reason::TsInvalid, Some("ts"));
        refused(TELEMETRY, &with("ts", json!("")), Reason::FieldInvalid, Some("ts"));
        refused(TELEMETRY, &with("occurred_at", json!("")), Reason::FieldInvalid, Some("occurred_at"));
        assert!(decode(TELEMETRY, &with("retry_count", json!(3))).is_ok());
    }

    #[test]
    fn a_null_in_place_of_a_time_is_of_the_dialect_of_nulls() {
        let strict = Dialects { null_fields: false, flat: false, ..Dialects::default() };
        let mut body = with("occurred_at", json!("2026-02-12T10:00:00Z"));
        body["ts"] = Value::Null;
        let envelope = decode(TELEMETRY, &body).expect("it is accepted");
        assert_eq!((envelope.dialect, envelope.is_ts_alias), (Dialect::NullFields, true));
        let refusal = |body: &Value| {
            decode_bytes(TELEMETRY, body.to_string().as_bytes(), strict).expect_err("refused").reason
        };
        assert_eq!(refusal(&body), Reason::DialectDisabled);
        assert_eq!(refusal(&with("occurred_at", json!(""))), Reason::FieldInvalid);
        assert_eq!(refusal(&with("ts", json!("2026-02-12T16:32:15+07:00"))), Reason::DialectDisabled);
    }

    #[test]
    fn a_null_in_place_of_the_value_is_named() {
        let flat = json!({"event_id": "e-1", "tenant_id": "t-001", "device_id": "d-001", "value": null,
            "ts": "2026-02-12T09:00:00Z"});
        refused(TELEMETRY, &flat, Reason::FieldType, Some("value"));
        let status = json!({"device_id": "d-001", "status": null});
        refused("iot/status/t-001/f-001/b-001/d-001", &status, Reason::FieldMissing, Some("status"));
    }

    #[test]
    fn body_and_topic_must_agree() {
        refused(TELEMETRY, &with("tenant_id", json!("t-002")), Reason::TenantMismatch, Some("tenant_id"));
        refused(TELEMETRY, &with("device_id", json!("d-002")), Reason::DeviceMismatch, Some("device_id"));
        refused(
            TELEMETRY,
            &with("event_type", json!("other")),
            Reason::EventTypeNotTelemetry,
            Some("event_type"),
        );
        refused(
            TELEMETRY,
            &with("payload", json!({"metric": "humidity", "value": 1})),
            Reason::MetricMismatch,
            Some("payload.metric"),
        );
        refused(EVENT, &canonical(), Reason::EventTypeMismatch, Some("event_type"));
        refused(SESSION, &with("device_id", json!("any")), Reason::EventTypeMismatch, Some("event_type"));
        let mut other_device = with("event_type", json!("weighvision.session.created"));
        other_device["device_id"] = json!("wv-001");
        assert!(decode(SESSION, &other_device).is_ok(), "a station's topic names no device");
        assert!(decode(STATUS_TOPIC, &with("event_type", json!("whatever"))).is_ok());
    }

    #[test]
    fn flat_readings_are_checked() {
        let with = |field: &str, value: Value| {
            let mut body = flat();
            body[field] = value;
            body
        };
        refused(
            TELEMETRY,
            &json!({"value": 1, "unit": "c", "timestamp": 5}),
            Reason::FieldMissing,
            Some("event_id"),
        );
        refused(TELEMETRY, &with("value", json!("20.5")), Reason::FieldType, Some("value"));
        refused(TELEMETRY, &with("farm_id", json!("f-002")), Reason::ScopeMismatch, Some("farm_id"));
        refused(TELEMETRY, &with("barn_id", json!("b-002")), Reason::ScopeMismatch, Some("barn_id"));
        refused(
            TELEMETRY,
            &with("metric", json!("humidity")),
            Reason::MetricMismatch,
            Some("payload.metric"),
        );
        refused(
            TELEMETRY,
            &with("schema_version", json!("1.1")),
            Reason::SchemaVersionUnsupported,
            Some("schema_version"),
        );
        refused(TELEMETRY, &without(flat(), "ts"), Reason::TsMissing, Some("ts"));
        assert!(decode(TELEMETRY, &without(flat(), "schema_version")).is_ok());
        assert!(decode(TELEMETRY, &with("unit", json!(5))).is_ok(), "a unit of another type is ignored");
    }

    #[test]
    fn a_bare_status_gets_its_id_from_its_body() {
        let body =
            br#"{"device_id":"d-001","status":"online","ts":"2026-02-12T09:00:00+00:00","message":""}"#;
        let topic = Topic::parse(STATUS_TOPIC).expect("a topic");
        let sha256 = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(body));
        let envelope =
            Envelope::decode(&topic, body, &sha256, chrono::DateTime::UNIX_EPOCH, Dialects::default());
        let envelope = envelope.expect("it is accepted");
        assert_eq!(envelope.event_id, "f0dcce05-701f-5005-9436-8262da647a11");
        assert_eq!((envelope.dialect, envelope.event_type.as_str()), (Dialect::Flat, STATUS));
        refused(
            STATUS_TOPIC,
            &json!({"device_id": "d-001", "status": "asleep"}),
            Reason::FieldInvalid,
            Some("status"),
        );
        refused(STATUS_TOPIC, &json!({"status": "online"}), Reason::FieldMissing, Some("device_id"));
        let now =
            decode(STATUS_TOPIC, &json!({"device_id": "d-001", "status": "error"})).expect("it is accepted");
        assert_eq!(now.occurred_at, chrono::DateTime::UNIX_EPOCH);
    }

    #[test]
    fn a_dialect_that_is_switched_off_is_refused() {
        let reason = |body: Value, dialects| {
            decode_bytes(TELEMETRY, body.to_string().as_bytes(), dialects).err().map(|reject| reject.reason)
        };
        let only_canonical = Dialects { canonical: true, null_fields: false, flat: false };
        assert_eq!(reason(canonical(), only_canonical), None);
        assert_eq!(reason(with("trace_id", Value::Null), only_canonical), Some(Reason::DialectDisabled));
        assert_eq!(
            reason(with("ts", json!("2026-02-12T09:32:15+00:00")), only_canonical),
            Some(Reason::DialectDisabled)
        );
        assert_eq!(reason(flat(), only_canonical), Some(Reason::DialectDisabled));
        let no_canonical = Dialects { canonical: false, ..Dialects::default() };
        assert_eq!(reason(canonical(), no_canonical), Some(Reason::DialectDisabled));
    }

    proptest::proptest! {
        #[test]
        fn no_body_stops_the_reader(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200), kind in 0..4_usize) {
            let topic = [TELEMETRY, EVENT, SESSION, STATUS_TOPIC][kind];
            let _ = decode_bytes(topic, &body, Dialects::default());
        }

        #[test]
        fn no_mutation_of_a_good_body_stops_the_reader(at in 0..250_usize, byte in proptest::num::u8::ANY, kind in 0..4_usize) {
            let topic = [TELEMETRY, EVENT, SESSION, STATUS_TOPIC][kind];
            let mut body = canonical().to_string().into_bytes();
            let at = at % body.len();
            body[at] = byte;
            let _ = decode_bytes(topic, &body, Dialects::default());
        }
    }
}
