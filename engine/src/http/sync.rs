//! The outbox and the cloud, as operators see them and repair them.

use std::sync::Arc;

use actors::sync::Diagnosis;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schema::clock::Timestamp;
use schema::id::Uuid;
use schema::metrics;
use schema::store::audit::Action;
use schema::store::outbox::queries::{self, Counts, Dead, DeadFilter, Entry, Status};
use schema::store::page::Place;
use schema::store::sync_state::{self, Summary};
use schema::store::{self, StoreError};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::auth::{Call, Tenants};
use super::body::JsonBody;
use super::cursor::{self, DeadKey};
use super::error::{Error, ErrorDetail};
use super::frame::CallIds;
use super::query::{Params, Problems};
use super::telemetry::TenantQuery;
use super::time::Time;

mod redrive;

pub(super) use redrive::{__path_redrive, __path_redrive_dead, redrive, redrive_dead};

/// Seconds a lease must be over before a row counts as stuck, when the caller does not say.
const STUCK_SECONDS_DEFAULT: u64 = 300;
/// Seconds beyond which the age of a lease is not asked for: a year.
const STUCK_SECONDS_MAX: u64 = 366 * 24 * 3600;
/// Rows named by id in one call at most.
const REDRIVE_IDS_MAX: usize = 1000;

/// Characters of a reason at most.
const REASON_CHARS_MAX: usize = 500;

const STATUSES: [(&str, Status); 6] = [
    ("pending", Status::Pending),
    ("claimed", Status::Claimed),
    ("sent", Status::Sent),
    ("acked", Status::Acked),
    ("failed", Status::Failed),
    ("dlq", Status::Failed),
];

/// How far sending has come.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({"pending_count": 12, "claimed_count": 0, "sent_count": 0, "dlq_count": 0,
    "oldest_pending_age_seconds": 3, "last_success_at": "2026-02-12T09:32:30.000Z", "last_error_at": null,
    "last_error": null, "consecutive_failures": 0, "paused_until": null}))]
pub(super) struct SyncStateBody {
    /// Rows that wait.
    pending_count: i64,
    /// Rows claimed and not yet on the line.
    claimed_count: i64,
    /// Rows on the line.
    sent_count: i64,
    /// Rows that were given up.
    dlq_count: i64,
    /// Age of the oldest row that waits.
    oldest_pending_age_seconds: Option<i64>,
    /// When a batch was last taken.
    last_success_at: Option<Time>,
    /// When one last failed.
    last_error_at: Option<Time>,
    /// Why.
    last_error: Option<String>,
    /// Failures in a row.
    consecutive_failures: i32,
    /// Until when nothing is sent.
    paused_until: Option<Time>,
}

impl SyncStateBody {
    fn of(counts: &Counts, summary: Summary, now: Timestamp) -> Self {
        let age_seconds = |at: Timestamp| (now - at).num_seconds().max(0);
        Self {
            pending_count: counts.pending,
            claimed_count: counts.claimed,
            sent_count: counts.sent,
            dlq_count: counts.failed,
            oldest_pending_age_seconds: counts.oldest_pending_at.map(age_seconds),
            last_success_at: summary.last_success_at.map(Time),
            last_error_at: summary.last_error_at.map(Time),
            last_error: summary.last_error,
            consecutive_failures: summary.consecutive_failures,
            paused_until: summary.paused_until.map(Time),
        }
    }
}

/// Shows how far sending has come.
#[utoipa::path(get, path = "/api/v1/sync/state", tag = "sync", params(TenantQuery),
    responses((status = 200, description = "The state", body = SyncStateBody)))]
pub(super) async fn show_state(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<SyncStateBody>, Error> {
    let named = params.id("tenant_id");
    params.finish()?;
    let tenants = call.tenants(named.as_deref())?;
    Ok(Json(read_state(&state, &tenants).await?))
}

/// How far sending has come for some tenants.
///
/// # Errors
/// When the database fails.
pub(super) async fn read_state(state: &AppState, tenants: &Tenants) -> Result<SyncStateBody, StoreError> {
    let tenants = tenants.as_slice();
    let (now, pause_max) = (state.clock.now(), state.sync.pause_max());
    let read = async |conn: &mut _| {
        let summary = sync_state::summary(conn, tenants, now, pause_max).await?;
        Ok((queries::counts(conn, tenants).await?, summary))
    };
    let (counts, summary) = state.reads.run("sync_state", read).await?;
    Ok(SyncStateBody::of(&counts, summary, now))
}

/// Which outbox rows are listed.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameters that are read by hand")]
pub(super) struct OutboxQuery {
    /// `pending`, `claimed`, `sent`, `acked`, `failed`, or `dlq`, which is another name for `failed`.
    #[param(default = "pending")]
    status: Option<String>,
    /// Rows at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<i64>,
}

/// An outbox row.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OutboxEntry {
    /// Row id, which is the id of the event towards the cloud.
    id: Uuid,
    /// Tenant.
    #[schema(example = "t-001")]
    tenant_id: String,
    /// Type of the event.
    #[schema(example = "telemetry.ingested")]
    event_type: String,
    /// What is done with it.
    #[schema(example = "pending")]
    status: String,
    /// Claims so far.
    attempt_count: i32,
    /// When it may go again after a rejection.
    next_attempt_at: Time,
    /// Who claimed it.
    claimed_by: Option<String>,
    /// Until when nobody else may.
    lease_expires_at: Option<Time>,
    /// Why it last failed, for a program.
    last_error_code: Option<String>,
    /// Why it last failed, for a person.
    last_error_message: Option<String>,
    /// When it was queued.
    created_at: Time,
}

impl From<Entry> for OutboxEntry {
    fn from(row: Entry) -> Self {
        Self {
            id: row.id,
            tenant_id: row.tenant_id,
            event_type: row.event_type,
            status: row.status,
            attempt_count: row.attempt_count,
            next_attempt_at: row.next_attempt_at.into(),
            claimed_by: row.claimed_by,
            lease_expires_at: row.lease_expires_at.map(Time),
            last_error_code: row.last_error_code,
            last_error_message: row.last_error_message,
            created_at: row.created_at.into(),
        }
    }
}

/// Outbox rows by the time of their events.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OutboxList {
    entries: Vec<OutboxEntry>,
    /// How many there are in this list.
    count: usize,
}

/// Lists outbox rows of one status.
#[utoipa::path(get, path = "/api/v1/sync/outbox", tag = "sync", params(OutboxQuery),
    responses((status = 200, description = "The rows", body = OutboxList)))]
pub(super) async fn list_outbox(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<OutboxList>, Error> {
    let status = params.one_of("status", &STATUSES).unwrap_or(Status::Pending);
    let limit = params.limit();
    params.finish()?;
    let tenants = call.tenants(None)?;
    let read = async |conn: &mut _| queries::list(conn, status, limit, tenants.as_slice()).await;
    let entries: Vec<_> =
        state.reads.run("outbox_list", read).await?.into_iter().map(OutboxEntry::from).collect();
    Ok(Json(OutboxList { count: entries.len(), entries }))
}

/// What of it is listed.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameters that are read by hand")]
pub(super) struct DeadQuery {
    /// `outbox`, `session`, `media` or `inference`.
    source: Option<String>,
    /// Of this type of event.
    #[param(example = "telemetry.ingested")]
    event_type: Option<String>,
    /// Given up for this reason, or because of this error.
    reason: Option<String>,
    /// Of this device.
    device_id: Option<String>,
    /// Given up then or later.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Given up before.
    #[param(format = DateTime)]
    to: Option<String>,
    /// Only what stands behind: `next` of the list before.
    after: Option<String>,
    /// Rows at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<i64>,
}

/// Where something was given up.
const SOURCES: [(&str, &str); 4] =
    [("outbox", "outbox"), ("session", "session"), ("media", "media"), ("inference", "inference")];

/// Something that was given up.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeadEntry {
    /// Row id.
    id: Uuid,
    /// Tenant.
    #[schema(example = "t-001")]
    tenant_id: String,
    /// Type of the event.
    #[schema(example = "telemetry.ingested")]
    event_type: String,
    /// Attempts so far.
    attempt_count: i32,
    /// Why it last failed, for a program.
    last_error_code: Option<String>,
    /// Why it last failed, for a person.
    last_error_message: Option<String>,
    /// Why it was given up.
    dlq_reason: Option<String>,
    /// When it was given up.
    failed_at: Option<Time>,
    /// When it came to be.
    created_at: Time,
    /// `outbox`, `session`, `media` or `inference`.
    #[schema(example = "outbox")]
    source: String,
}

impl From<Dead> for DeadEntry {
    fn from(row: Dead) -> Self {
        Self {
            id: row.id,
            tenant_id: row.tenant_id,
            event_type: row.event_type,
            attempt_count: row.attempt_count,
            last_error_code: row.last_error_code,
            last_error_message: row.last_error_message,
            dlq_reason: row.dlq_reason,
            failed_at: row.failed_at.map(Time),
            created_at: row.created_at.into(),
            source: row.source,
        }
    }
}

/// What was given up, newest failure first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeadList {
    entries: Vec<DeadEntry>,
    /// How many there are in this list.
    count: usize,
    /// What to give as `after` for those that follow; null at the end.
    next: Option<String>,
}

/// Lists what was given up, newest failure first.
#[utoipa::path(get, path = "/api/v1/sync/dlq", tag = "sync", params(DeadQuery),
    responses((status = 200, description = "What was given up", body = DeadList)))]
pub(super) async fn list_dead(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<DeadList>, Error> {
    let (source, device_id) = (params.one_of("source", &SOURCES), params.id("device_id"));
    let (event_type, reason) = (params.event_type(), params.text("reason"));
    let (from, to) = (params.time("from"), params.time("to"));
    let (after, limit) = (params.after::<DeadKey>().map(Place::from), params.limit());
    params.finish()?;
    let tenants = call.tenants(None)?;
    let filter = DeadFilter {
        tenants: tenants.as_slice(),
        source,
        event_type: event_type.as_deref(),
        reason: reason.as_deref(),
        device_id: device_id.as_deref(),
        from,
        to,
    };
    let read = async |conn: &mut _| queries::dead(conn, &filter, after, limit).await;
    let found = state.reads.run("dlq_list", read).await?;
    let next = cursor::behind(&found, limit, |last| DeadKey::from(last.place()));
    let entries: Vec<_> = found.into_iter().map(DeadEntry::from).collect();
    Ok(Json(DeadList { count: entries.len(), entries, next }))
}

/// Ids of rows, as a body has them; `None` without any.
fn ids(body: &Value, problems: &mut Problems) -> Option<Vec<Uuid>> {
    let value = body.get("ids").filter(|ids| !ids.is_null())?;
    let id = |id: &Value| Uuid::try_parse(id.as_str()?).ok();
    let ids: Option<Vec<Uuid>> = value.as_array().and_then(|ids| ids.iter().map(id).collect());
    match ids {
        None => problems.push("ids", "must be a list of UUIDs"),
        Some(ids) if ids.len() > REDRIVE_IDS_MAX => problems.push("ids", "must have at most 1000 ids"),
        Some(ids) => return Some(ids),
    }
    Some(Vec::new())
}

/// What to discard, and why.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"ids": ["be6ead4e-49b4-4366-a96b-edf9725f68bf"], "reason": "a test of the scale"}))]
pub(super) struct Discard {
    /// These rows; at most 1000.
    #[schema(min_items = 1, max_items = 1000)]
    ids: Vec<Uuid>,
    /// Why they are not wanted any more.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

impl Discard {
    fn of(body: &Value) -> Result<Self, Error> {
        let mut problems = Problems::default();
        let reason = body.get("reason").and_then(Value::as_str).map(str::trim).unwrap_or_default();
        let discard = Self { ids: ids(body, &mut problems).unwrap_or_default(), reason: reason.to_owned() };
        if body.get("ids").is_none_or(Value::is_null) {
            problems.push("ids", "name rows by ids");
        }
        let is_storable = !reason.is_empty() && !reason.contains('\0');
        if !is_storable || reason.chars().count() > REASON_CHARS_MAX {
            problems.push("reason", "must be a text of 1 to 500 characters");
        }
        problems.finish()?;
        Ok(discard)
    }
}

/// What was discarded.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Discarded {
    /// How many rows.
    discarded_count: u64,
    /// The same in words.
    #[schema(example = "Discarded 2 entries")]
    message: String,
}

/// Sets aside what was given up and is not wanted any more: failed outbox rows are never sent, dead letters never applied.
/// Both are kept with the reason, and hold neither their session nor their month any longer.
#[utoipa::path(post, path = "/api/v1/sync/discard", tag = "sync", request_body = Discard,
    responses((status = 200, description = "What was discarded", body = Discarded)))]
pub(super) async fn discard(
    State(state): State<Arc<AppState>>,
    call: Call,
    body: JsonBody,
) -> Result<Json<Discarded>, Error> {
    let Discard { ids, reason } = Discard::of(&body.object()?)?;
    let (tenants, now) = (call.tenants(None)?, state.clock.now());
    let detail = json!({"ids": &ids, "reason": &reason});
    super::audit::note(&state, &call, Action::Discard, tenants.as_slice(), detail).await?;
    let write =
        async |conn: &mut _| store::discard::discard(conn, &ids, tenants.as_slice(), &reason, now).await;
    let discarded_count = state.store.run("discard", write).await?;
    metrics::outbox_discarded().increment(discarded_count);
    // A lane that one of them had held is free.
    state.sync.wake();
    let message = format!("Discarded {discarded_count} entries");
    Ok(Json(Discarded { discarded_count, message }))
}

/// Which rows count as stuck.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
pub(super) struct UnclaimStuck {
    /// Seconds since their lease ended.
    #[schema(rename = "olderThanSeconds", default = 300, example = 300)]
    older_than_seconds: Option<u64>,
}

/// What was freed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Unclaimed {
    /// How many rows.
    unclaimed_count: u64,
    /// The same in words.
    #[schema(example = "Unclaimed 2 stuck entries")]
    message: String,
}

/// Frees rows whose sender was lost.
#[utoipa::path(post, path = "/api/v1/sync/unclaim-stuck", tag = "sync", request_body = UnclaimStuck,
    responses((status = 200, description = "What was freed", body = Unclaimed)))]
pub(super) async fn unclaim_stuck(
    State(state): State<Arc<AppState>>,
    call: Call,
    body: JsonBody,
) -> Result<Json<Unclaimed>, Error> {
    let seconds = older_than_seconds(&body.object()?)?;
    let (tenants, now) = (call.tenants(None)?, state.clock.now());
    let (ended_before, tenants) = (now - chrono::Duration::seconds(seconds), tenants.as_slice());
    let detail = json!({"older_than_seconds": seconds});
    super::audit::note(&state, &call, Action::Unclaim, tenants, detail).await?;
    let write = async |conn: &mut _| queries::unclaim_stuck(conn, ended_before, tenants, now).await;
    let unclaimed_count = state.store.run("unclaim_stuck", write).await?;
    state.sync.wake();
    let message = format!("Unclaimed {unclaimed_count} stuck entries");
    Ok(Json(Unclaimed { unclaimed_count, message }))
}

fn older_than_seconds(body: &Value) -> Result<i64, Error> {
    let seconds = match body.get("olderThanSeconds") {
        None | Some(Value::Null) => Some(STUCK_SECONDS_DEFAULT),
        Some(value) => value.as_u64().filter(|seconds| *seconds <= STUCK_SECONDS_MAX),
    };
    let seconds = seconds.and_then(|seconds| i64::try_from(seconds).ok());
    seconds.ok_or_else(|| {
        Error::validation("olderThanSeconds: must be a whole number of seconds, at most a year")
    })
}

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Message {
    /// In words.
    #[schema(example = "Sync cycle triggered")]
    message: &'static str,
}

/// Makes one attempt to send what is due, whether or not sending is paused.
#[utoipa::path(post, path = "/api/v1/sync/trigger", tag = "sync",
    responses((status = 200, description = "The attempt was made", body = Message)))]
pub(super) async fn trigger(State(state): State<Arc<AppState>>, call: Call) -> Result<Json<Message>, Error> {
    super::audit::note(&state, &call, Action::SyncTrigger, None, json!({})).await?;
    state.sync.trigger().await;
    Ok(Json(Message { message: "Sync cycle triggered" }))
}

/// What the cloud answered to a greeting.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"ok": true, "status": 200, "message": "the cloud answers"}))]
pub(super) struct CloudDiagnosis {
    /// Whether the greeting succeeded.
    ok: bool,
    /// The HTTP status of its answer; null when there was none.
    status: Option<u16>,
    /// What it amounts to.
    message: String,
    /// The error of our answer when the greeting failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorDetail>,
}

/// Greets the cloud.
#[utoipa::path(get, path = "/api/v1/sync/diagnostics/cloud", tag = "sync",
    responses((status = 200, description = "The cloud answers", body = CloudDiagnosis),
        (status = 502, description = "It does not", body = CloudDiagnosis)))]
pub(super) async fn diagnose_cloud(
    State(state): State<Arc<AppState>>,
    ids: CallIds,
) -> (StatusCode, Json<CloudDiagnosis>) {
    let Diagnosis { is_ok, status, message, skew_ms: _ } = state.sync.diagnose().await;
    let error = (!is_ok).then(|| ErrorDetail {
        code: "CLOUD_UNAVAILABLE",
        message: message.clone(),
        trace_id: ids.trace_id.to_string(),
    });
    let answer = if is_ok { StatusCode::OK } else { StatusCode::BAD_GATEWAY };
    (answer, Json(CloudDiagnosis { ok: is_ok, status, message, error }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whoever_discards_names_rows_and_says_why() {
        let id = "be6ead4e-49b4-4366-a96b-edf9725f68bf";
        let check = |body: Value, expected: Result<(usize, &str), &str>| {
            let discard = Discard::of(&body).map(|discard| (discard.ids.len(), discard.reason));
            let outcome = discard.map_err(|error| error.message.into_owned());
            let expected = expected.map(|(ids, reason)| (ids, reason.to_owned())).map_err(str::to_owned);
            assert_eq!(outcome, expected, "{body}");
        };
        let no_reason = "reason: must be a text of 1 to 500 characters";
        check(json!({"ids": [id], "reason": " test \n"}), Ok((1, "test")));
        check(json!({"ids": [id]}), Err(no_reason));
        check(json!({"ids": [id], "reason": " "}), Err(no_reason));
        check(json!({"ids": [id], "reason": "x".repeat(501)}), Err(no_reason));
        check(json!({"ids": [id], "reason": 7}), Err(no_reason));
        check(json!({"reason": "test"}), Err("ids: name rows by ids"));
        check(json!({"ids": "x", "reason": "test"}), Err("ids: must be a list of UUIDs"));
    }

    #[test]
    fn the_age_of_a_lease_is_a_number_of_seconds() {
        let read = |body: Value| older_than_seconds(&body).ok();
        assert_eq!(read(json!({})), Some(300));
        assert_eq!(read(json!({"olderThanSeconds": 0})), Some(0));
        assert_eq!(read(json!({"olderThanSeconds": -1})), None);
        assert_eq!(read(json!({"olderThanSeconds": "5"})), None);
        assert_eq!(read(json!({"olderThanSeconds": u64::MAX})), None);
    }
}
