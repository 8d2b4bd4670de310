//! The judgment over one reading that came by HTTP: its fields, the caller's scope, the allowlist.

use std::sync::Arc;

use schema::clock::Timestamp;
use schema::id;
use schema::metrics;
use schema::store::StoreError;
use schema::store::device::Allowed;
use schema::store::telemetry::Reading;
use schema::wire;
use schema::wire::envelope::SCHEMA_VERSION;
use schema::wire::payload;
use schema::wire::reject::{Reason, Reject};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{AppState, Event, RejectedEvent};
use crate::http::auth::{Call, Scope, agrees_with_token};

/// What stands in the dedupe table instead of an MQTT topic.
pub(super) const TOPIC: &str = "http:/api/v1/telemetry/readings";
/// The metric of a reading that names none.
const METRIC_UNKNOWN: &str = "unknown";

/// What becomes of an event.
pub(super) enum Judgment {
    Accepted(Box<Reading>),
    Rejected(RejectedEvent),
}

/// Why an event is refused. `SCOPE_UNKNOWN` exists over HTTP alone, since a topic always names a farm and a barn.
enum Refusal {
    Reject(Reject),
    Scope { code: &'static str, reason: &'static str, message: &'static str },
}

impl From<Reject> for Refusal {
    fn from(reject: Reject) -> Self {
        Self::Reject(reject)
    }
}

const TENANT_MISMATCH: Refusal = Refusal::Scope {
    code: "TENANT_MISMATCH",
    reason: "tenant",
    message: "tenants of credential, header and event differ",
};
const SCOPE_MISMATCH: Refusal = Refusal::Scope {
    code: "SCOPE_MISMATCH",
    reason: "scope",
    message: "device, farm or barn are not those of the credential or the allowlist",
};
const DEVICE_NOT_ALLOWED: Refusal =
    Refusal::Scope { code: "DEVICE_NOT_ALLOWED", reason: "device", message: "device is not enabled" };
const SCOPE_UNKNOWN: Refusal = Refusal::Scope {
    code: "SCOPE_UNKNOWN",
    reason: "scope_unknown",
    message: "neither event, token nor allowlist name farm and barn",
};

/// Judges one event of a call that came at `asked_at`. The order is that of MQTT: fields, tenant, scope, allowlist, payload.
///
/// # Errors
/// When the allowlist cannot be asked.
pub(super) async fn judge(
    state: &Arc<AppState>,
    call: &Call,
    event: &Event<'_>,
    asked_at: Instant,
) -> Result<Judgment, StoreError> {
    let named = || event.fields.get("event_id").and_then(Value::as_str).map(str::to_owned);
    let fields = match Fields::of(&event.fields) {
        Ok(fields) => fields,
        Err(reject) => return Ok(Judgment::Rejected(rejected(named(), &reject.into()))),
    };
    if let Err(refusal) = check_credential(call, &fields) {
        return Ok(Judgment::Rejected(rejected(named(), &refusal)));
    }
    let row = state.allowlist.device_row(fields.tenant_id, fields.device_id, asked_at).await?;
    Ok(match accept(call, &fields, row.as_ref(), event.text) {
        Ok(reading) => Judgment::Accepted(Box::new(reading)),
        Err(refusal) => {
            let tenant_id = fields.tenant_id.to_owned();
            Judgment::Rejected(RejectedEvent { tenant_id, ..rejected(named(), &refusal) })
        }
    })
}

fn rejected(event_id: Option<String>, refusal: &Refusal) -> RejectedEvent {
    match refusal {
        Refusal::Scope { code, reason, message } => {
            metrics::auth_refused(reason).increment(1);
            RejectedEvent { event_id, code, message: (*message).to_owned(), tenant_id: String::new() }
        }
        Refusal::Reject(reject) => {
            // The other texts name their field themselves.
            let names_field =
                matches!(reject.reason, Reason::FieldMissing | Reason::FieldType | Reason::FieldInvalid);
            let message = if names_field { reject.to_string() } else { reject.reason.text().to_owned() };
            RejectedEvent { event_id, code: reject.reason.code(), message, tenant_id: String::new() }
        }
    }
}

/// The fields of an event, checked by themselves.
struct Fields<'a> {
    event_id: &'a str,
    tenant_id: &'a str,
    device_id: &'a str,
    occurred_at: Timestamp,
    trace_id: Option<&'a str>,
    farm_id: Option<&'a str>,
    barn_id: Option<&'a str>,
    payload: &'a Value,
}

impl<'a> Fields<'a> {
    fn of(fields: &'a Map<String, Value>) -> Result<Self, Reject> {
        let event_id = required(fields, "event_id", id::is_event_id)?;
        let tenant_id = required(fields, "tenant_id", id::is_id)?;
        let device_id = required(fields, "device_id", id::is_id)?;
        required(fields, "event_type", id::is_event_id)?;
        let trace_id = optional(fields, "trace_id", id::is_event_id)?;
        let farm_id = optional(fields, "farm_id", id::is_id)?;
        let barn_id = optional(fields, "barn_id", id::is_id)?;
        let version = optional(fields, "schema_version", |_| true)?;
        if version.is_some_and(|version| version != SCHEMA_VERSION) {
            return Err(Reject::of(Reason::SchemaVersionUnsupported, "schema_version"));
        }
        let occurred_at = time(fields)?;
        let payload = fields.get("payload").filter(|payload| !payload.is_null());
        let payload = payload.ok_or(Reject::of(Reason::FieldMissing, "payload"))?;
        Ok(Self { event_id, tenant_id, device_id, occurred_at, trace_id, farm_id, barn_id, payload })
    }
}

fn optional<'a>(
    fields: &'a Map<String, Value>,
    name: &'static str,
    is_good: impl Fn(&str) -> bool,
) -> Result<Option<&'a str>, Reject> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if is_good(text) => Ok(Some(text)),
        Some(Value::String(_)) => Err(Reject::of(Reason::FieldInvalid, name)),
        Some(_) => Err(Reject::of(Reason::FieldType, name)),
    }
}

fn required<'a>(
    fields: &'a Map<String, Value>,
    name: &'static str,
    is_good: impl Fn(&str) -> bool,
) -> Result<&'a str, Reject> {
    optional(fields, name, is_good)?.ok_or(Reject::of(Reason::FieldMissing, name))
}

fn time(fields: &Map<String, Value>) -> Result<Timestamp, Reject> {
    let text = optional(fields, "ts", |text| !text.is_empty())?;
    let text = text.ok_or(Reject::of(Reason::TsMissing, "ts"))?;
    wire::time::parse(text).ok_or(Reject::of(Reason::TsInvalid, "ts"))
}

/// The first two checks of scope: the tenant, then what the token says of the device and its place.
fn check_credential(call: &Call, fields: &Fields<'_>) -> Result<(), Refusal> {
    if !call.may_act_for(fields.tenant_id) {
        return Err(TENANT_MISMATCH);
    }
    let Some(scope) = call.scope() else { return Ok(()) };
    let is_own = scope.device_id == fields.device_id
        && agrees_with_token(scope.farm_id.as_deref(), fields.farm_id)
        && agrees_with_token(scope.barn_id.as_deref(), fields.barn_id);
    if is_own { Ok(()) } else { Err(SCOPE_MISMATCH) }
}

/// The third check of scope, the allowlist, and the payload.
fn accept(call: &Call, fields: &Fields<'_>, row: Option<&Allowed>, text: &str) -> Result<Reading, Refusal> {
    let row = row.filter(|row| row.is_enabled).ok_or(DEVICE_NOT_ALLOWED)?;
    let claim = |claim: fn(&Scope) -> Option<&str>| call.scope().and_then(claim);
    let farm_id = place(fields.farm_id, claim(|scope| scope.farm_id.as_deref()), row.farm_id.as_deref())?;
    let barn_id = place(fields.barn_id, claim(|scope| scope.barn_id.as_deref()), row.barn_id.as_deref())?;
    let payload::Reading { value, unit } = payload::Reading::decode(fields.payload)?;
    let event_id = id::normal_form(fields.event_id);
    Ok(Reading {
        id: id::new_id(),
        outbox_id: id::outbox_id(fields.tenant_id, &event_id),
        tenant_id: fields.tenant_id.to_owned(),
        farm_id: farm_id.to_owned(),
        barn_id: barn_id.to_owned(),
        device_id: fields.device_id.to_owned(),
        metric: metric(fields.payload)?.to_owned(),
        value,
        unit,
        occurred_at: fields.occurred_at,
        trace_id: fields.trace_id.unwrap_or(&call.ids.trace_id).to_owned(),
        topic: TOPIC.to_owned(),
        // Of the event and not of the whole body, so that the same event in another list is the same.
        hash: hex::encode(Sha256::digest(text)),
        event_id,
    })
}

/// The farm or barn of a reading: the event's, else the token's, else the allowlist's; and it is the allowlist's own.
fn place<'a>(
    named: Option<&'a str>,
    claim: Option<&'a str>,
    row: Option<&'a str>,
) -> Result<&'a str, Refusal> {
    let place = named.or(claim).or(row).ok_or(SCOPE_UNKNOWN)?;
    if row.is_none_or(|row| row == place) { Ok(place) } else { Err(SCOPE_MISMATCH) }
}

fn metric(payload: &Value) -> Result<&str, Reject> {
    match payload.get("metric") {
        None | Some(Value::Null) => Ok(METRIC_UNKNOWN),
        Some(Value::String(metric)) if id::is_event_id(metric) => Ok(metric),
        Some(_) => Err(Reject::of(Reason::PayloadKeyInvalid, "payload.metric")),
    }
}

#[cfg(test)]
mod tests;
