//! Drills over HTTP: begun, answered, and listed as evidence.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use schema::id::Uuid;
use schema::store::alarm::Barn;
use schema::store::alarm::telling::{DrillRow, ResultRow};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::{AfterQuery, AlarmDone, AlarmResultBody, OfAlarm, done_body};
use crate::http::AppState;
use crate::http::auth::Call;
use crate::http::body::JsonBody;
use crate::http::cursor::{self, DrillKey};
use crate::http::error::Error;
use crate::http::fields::Fields;
use crate::http::flock::known;
use crate::http::query::Params;
use crate::http::time::Time;

/// A drill, as it is shown to whoever asks for evidence.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": "0198a6f2-7c1e-7d2a-9f35-0c8a5b1e2d3f", "tenant_id": "t-001", "farm_id": "f-001",
    "barn_id": "b-001", "alarm_id": "5b076387-9821-53d1-851f-284a7f1422d8", "occurrence": 4, "is_scheduled": false,
    "author": "operator:console", "started_at": "2026-02-12T09:32:15.052Z", "acknowledged_at": "2026-02-12T09:33:40.120Z",
    "acknowledged_by": "siren-1 (button)", "result": "answered", "results": []}))]
pub(in crate::http) struct DrillBody {
    id: Uuid,
    tenant_id: String,
    farm_id: String,
    barn_id: String,
    /// The alarm of the rule `drill`.
    alarm_id: Uuid,
    occurrence: i64,
    /// Whether the schedule began it.
    is_scheduled: bool,
    /// Who began it.
    author: String,
    started_at: Time,
    acknowledged_at: Option<Time>,
    /// Who answered.
    acknowledged_by: Option<String>,
    /// `waiting`, `answered`, or `unanswered` after 30 minutes.
    result: String,
    /// By each way: whether it was told, who confirmed it, and how long that took.
    results: Vec<AlarmResultBody>,
}

impl DrillBody {
    fn of((row, results): (DrillRow, Vec<ResultRow>)) -> Self {
        Self {
            id: row.id,
            tenant_id: row.tenant_id,
            farm_id: row.farm_id,
            barn_id: row.barn_id,
            alarm_id: row.alarm_id,
            occurrence: row.occurrence,
            is_scheduled: row.is_scheduled,
            author: row.author,
            started_at: row.started_at.into(),
            acknowledged_at: row.acknowledged_at.map(Time),
            acknowledged_by: row.acknowledged_by,
            result: row.result,
            results: results.iter().map(AlarmResultBody::from).collect(),
        }
    }
}

/// Drills, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct DrillList {
    drills: Vec<DrillBody>,
    /// What to give as `after` for earlier ones; null at the end.
    next: Option<String>,
}

/// Which drills.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the query that is read by hand")]
pub(in crate::http) struct DrillQuery {
    /// Their tenant; `x-tenant-id` may say it instead, and a key for one tenant needs neither.
    tenant_id: Option<String>,
    /// Only those of this barn.
    barn_id: Option<String>,
    /// Rows at most.
    #[param(minimum = 1, maximum = 100, default = 100)]
    limit: Option<i64>,
}

/// Rows of one list at most: each has the results of its ways.
const ROWS_MAX: i64 = 100;

/// Lists drills, the newest first.
#[utoipa::path(get, path = "/api/v1/alarms/drills", tag = "alarms", params(DrillQuery, AfterQuery),
    responses((status = 200, description = "Drills", body = DrillList)))]
pub(in crate::http) async fn list_drills(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<DrillList>, Error> {
    let (tenant_id, barn_id) = (params.id("tenant_id"), params.id("barn_id"));
    let (before, limit) = (params.after::<DrillKey>().map(Uuid::from), params.limit_up_to(ROWS_MAX));
    params.finish()?;
    let tenant_id = call.read_tenant(tenant_id.as_deref())?;
    let rows = state.alarms.drills(tenant_id.as_deref(), barn_id.as_deref(), before, limit).await?;
    let next = cursor::behind(&rows, limit, |(row, _)| DrillKey::from(row.id));
    Ok(Json(DrillList { drills: rows.into_iter().map(DrillBody::of).collect(), next }))
}

/// Where a drill is held.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001"}))]
pub(in crate::http) struct NewDrill {
    /// Tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
    farm_id: String,
    barn_id: String,
}

/// Begins a drill: an alarm like a real one, by every way out of the barn, that waits for somebody to acknowledge it.
#[utoipa::path(post, path = "/api/v1/alarms/drills", tag = "alarms", request_body = NewDrill,
    responses((status = 200, description = "The alarm of the drill", body = AlarmDone),
        (status = 404, description = "NOT_FOUND: there is no such barn"),
        (status = 409, description = "ALARM_CONFLICT: a drill of the barn waits for its answer")))]
pub(in crate::http) async fn begin_drill(
    State(state): State<Arc<AppState>>,
    call: Call,
    body: JsonBody,
) -> Result<Json<AlarmDone>, Error> {
    let mut fields = Fields::of(&body)?;
    let tenant_id = fields.optional_id("tenant_id");
    let (farm_id, barn_id) = (fields.id("farm_id"), fields.id("barn_id"));
    fields.finish()?;
    let barn = Barn { tenant_id: call.tenant(tenant_id.as_deref())?, farm_id, barn_id };
    let done = state.alarms.drill(barn, call.author()).await?;
    Ok(Json(done_body(&state, done).await?))
}

/// Answers a drill: somebody was reached. Acknowledging its alarm does the same.
#[utoipa::path(post, path = "/api/v1/alarms/drills/{id}/answer", tag = "alarms", request_body = OfAlarm,
    params(("id" = Uuid, Path, description = "The drill")),
    responses((status = 200, description = "The alarm of the drill", body = AlarmDone),
        (status = 404, description = "NOT_FOUND"), (status = 409, description = "ALARM_CONFLICT: the drill is over")))]
pub(in crate::http) async fn answer_drill(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Json<AlarmDone>, Error> {
    let tenant_id = Fields::tenant_alone(&body)?;
    let tenant_id = call.read_tenant(tenant_id.as_deref())?;
    let done = state.alarms.answer_drill(tenant_id.as_deref(), known(&id)?, call.author()).await?;
    Ok(Json(done_body(&state, done).await?))
}
