//! `POST /api/v1/telemetry/readings`: a list of readings, judged one by one and stored in one transaction.

use std::sync::Arc;
use std::time::Duration;

use actors::telemetry::Unit;
use axum::Json;
use axum::extract::State;
use schema::store::ledger::Outcome;
use schema::store::telemetry::Reading;
use schema::wire::topic::Kind;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::AppState;
use crate::http::auth::Call;
use crate::http::body::{JsonBody, not_json};
use crate::http::error::{Code, Error};

mod judge;

use judge::Judgment;

/// Events in one call at most.
pub(super) const EVENTS_MAX: usize = 1000;
/// Seconds to wait for the commit; the writer goes on trying, and a call that is repeated is a duplicate then.
const COMMIT_SECONDS_MAX: u64 = 30;
/// Asked again this often when the writer restarts meanwhile.
const STORE_ATTEMPTS_MAX: u32 = 3;

/// The body, for the documentation; it is read event by event.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"events": [{"event_id": "be6ead4e-49b4-4366-a96b-edf9725f68bf", "tenant_id": "t-001",
    "device_id": "d-001", "event_type": "telemetry.reading", "ts": "2026-02-12T09:32:15.052Z",
    "payload": {"metric": "temperature", "value": 25.5, "unit": "celsius"}}]}))]
#[expect(dead_code, reason = "documents the body that is read event by event")]
pub(in crate::http) struct ReadingEvents {
    /// At most 1000.
    #[schema(max_items = 1000)]
    events: Vec<ReadingEvent>,
}

/// One reading.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "documents the body that is read event by event")]
pub(in crate::http) struct ReadingEvent {
    /// Its key: an event that was stored under this id before is a duplicate, whatever it says.
    event_id: String,
    /// Tenant.
    tenant_id: String,
    /// The measuring device.
    device_id: String,
    /// Not checked.
    #[schema(example = "telemetry.reading")]
    event_type: String,
    /// When it was measured.
    #[schema(format = DateTime)]
    ts: String,
    /// `1.0` when it is there.
    #[schema(example = "1.0")]
    schema_version: Option<String>,
    /// Absent: the call's `x-trace-id`.
    trace_id: Option<String>,
    /// Absent: that of the token, else of the allowlist.
    farm_id: Option<String>,
    /// Absent: that of the token, else of the allowlist.
    barn_id: Option<String>,
    /// What was measured.
    payload: ReadingPayload,
}

/// What was measured.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "documents the body that is read event by event")]
pub(in crate::http) struct ReadingPayload {
    /// Absent: `unknown`.
    #[schema(example = "temperature")]
    metric: Option<String>,
    /// The value.
    #[schema(example = 25.5)]
    value: f64,
    /// Its unit.
    #[schema(example = "celsius")]
    unit: Option<String>,
}

/// What became of the events.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"ingested_count": 2, "duplicate_count": 1,
    "rejected": [{"event_id": "e-9", "code": "TS_INVALID", "message": "ts is not a time"}]}))]
pub(in crate::http) struct Ingested {
    /// Events that are safely stored now, duplicates included.
    ingested_count: usize,
    /// Of these, events that had been stored before.
    duplicate_count: usize,
    /// Events that were refused; sent again, they would be refused again.
    rejected: Vec<RejectedEvent>,
}

/// An event that was refused.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct RejectedEvent {
    /// Null when the event has no readable id.
    pub(super) event_id: Option<String>,
    /// Why, for a program.
    pub(super) code: &'static str,
    /// Why, for a person.
    pub(super) message: String,
    /// For the ledger: its tenant, when the caller may act for it.
    #[serde(skip)]
    pub(super) tenant_id: String,
}

/// Stores readings. The events are judged one by one; those that are accepted are one transaction.
#[utoipa::path(post, path = "/api/v1/telemetry/readings", tag = "telemetry", request_body = ReadingEvents,
    responses((status = 200, description = "What became of the events", body = Ingested)))]
pub(in crate::http) async fn store_readings(
    State(state): State<Arc<AppState>>,
    call: Call,
    body: JsonBody,
) -> Result<Json<Ingested>, Error> {
    let events = events(&body)?;
    call.check_header()?;
    let mut readings = Vec::with_capacity(events.len());
    let mut rejected = Vec::new();
    let asked_at = Instant::now();
    for event in &events {
        match judge::judge(&state, &call, event, asked_at).await? {
            Judgment::Accepted(reading) => readings.push(*reading),
            Judgment::Rejected(event) => rejected.push(event),
        }
    }
    let ingested_count = readings.len();
    let refused = rejected.iter().map(|event: &RejectedEvent| Unit::Counted {
        tenant_id: event.tenant_id.clone(),
        outcome: Outcome::Refused,
    });
    let duplicate_count = store(&state, readings, refused.collect(), body.0.len()).await?;
    Ok(Json(Ingested { ingested_count, duplicate_count, rejected }))
}

/// An event as an object, and as the text it was sent as.
pub(super) struct Event<'a> {
    pub(super) fields: serde_json::Map<String, serde_json::Value>,
    pub(super) text: &'a str,
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

fn events(body: &JsonBody) -> Result<Vec<Event<'_>>, Error> {
    let list: List<'_> = serde_json::from_slice(&body.0).map_err(|error| {
        let is_json = error.is_data() && serde_json::from_slice::<&RawValue>(&body.0).is_ok();
        if is_json { Error::validation("events: must be a list of events") } else { not_json() }
    })?;
    if list.events.len() > EVENTS_MAX {
        return Err(Error::validation(format!("events: must have at most {EVENTS_MAX} events")));
    }
    list.events.iter().enumerate().map(|(position, raw)| event(position, raw)).collect()
}

fn event(position: usize, raw: &RawValue) -> Result<Event<'_>, Error> {
    let text = raw.get();
    match serde_json::from_str(text).map_err(|_| not_json())? {
        serde_json::Value::Object(fields) => Ok(Event { fields, text }),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_)
        | serde_json::Value::Array(_) => {
            Err(Error::validation(format!("events[{position}]: must be an object")))
        }
    }
}

/// Stores the readings, has the ledger count what was `refused` beside them, and returns how many had been stored before, be it
/// by an earlier event of the same call.
async fn store(
    state: &AppState,
    readings: Vec<Reading>,
    refused: Vec<Unit>,
    bytes: usize,
) -> Result<usize, Error> {
    let has_readings = !readings.is_empty();
    // Nothing depends on counting what was refused: that answer is given without a database, too.
    if !state.database.is_up() {
        return if has_readings { Err(Error::database_unavailable()) } else { Ok(0) };
    }
    let units: Vec<Unit> = readings.into_iter().map(Unit::Reading).chain(refused).collect();
    if units.is_empty() {
        return Ok(0);
    }
    let commit = commit(state, units, bytes);
    let stored = tokio::time::timeout(Duration::from_secs(COMMIT_SECONDS_MAX), commit).await;
    stored.map_err(|_| Error::database_unavailable())?
}

async fn commit(state: &AppState, units: Vec<Unit>, bytes: usize) -> Result<usize, Error> {
    for _ in 0..STORE_ATTEMPTS_MAX {
        let share = state.calls.take(units.len(), bytes)?;
        match state.telemetry.store(Kind::Telemetry, units.clone(), share).await {
            Some(Ok(stored)) => return Ok(stored.duplicates),
            Some(Err(refused)) => {
                let cause: Arc<dyn std::error::Error + Send + Sync> = Arc::new(refused);
                return Err(Error {
                    cause: Some(cause),
                    ..Error::new(Code::InternalError, "the events could not be stored")
                });
            }
            None => tracing::warn!("telemetry writer restarted while a request waited for it"),
        }
    }
    Err(Error::database_unavailable())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> Option<(Code, String)> {
        let body = JsonBody(text.to_owned().into());
        events(&body).err().map(|error| (error.code, error.message.into_owned()))
    }

    #[test]
    fn a_body_that_is_no_list_of_events_is_refused_whole() {
        let check = |text: &str, code, message: &str| {
            assert_eq!(refusal(text), Some((code, message.to_owned())), "{text}");
        };
        check("", Code::BodyNotJson, "body is not valid JSON");
        check("{", Code::BodyNotJson, "body is not valid JSON");
        check(r#"{"events":[{"a":1e999}]}"#, Code::BodyNotJson, "body is not valid JSON");
        check(r#"{"events":[NaN]}"#, Code::BodyNotJson, "body is not valid JSON");
        check("[]", Code::ValidationError, "events: must be a list of events");
        check("{}", Code::ValidationError, "events: must be a list of events");
        check(r#"{"events":{}}"#, Code::ValidationError, "events: must be a list of events");
        check(r#"{"events":[{},7]}"#, Code::ValidationError, "events[1]: must be an object");
        let many = format!(r#"{{"events":[{}]}}"#, vec!["{}"; 1001].join(","));
        check(&many, Code::ValidationError, "events: must have at most 1000 events");
    }

    #[test]
    fn an_empty_list_is_a_list() {
        assert_eq!(refusal(r#"{"events":[]}"#), None);
    }
}
