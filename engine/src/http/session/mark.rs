//! What people say of weighings: which enter no statistics, and which they have looked at.

use std::sync::Arc;

use actors::session::mark::{MarkError, Weighing};
use axum::Json;
use axum::extract::{Path, State};
use schema::id::{self, Uuid};
use schema::store::session::mark::Mark;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::not_found;
use crate::http::AppState;
use crate::http::auth::Call;
use crate::http::body::JsonBody;
use crate::http::cursor::{self, MarkKey};
use crate::http::error::{Code, Error};
use crate::http::fields::Fields;
use crate::http::query::Params;
use crate::http::telemetry::TenantQuery;
use crate::http::time::Time;

/// Something that somebody said of a weighing. Rows are never changed: what ends an exclusion is a row of its own.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"id": "0198a6f2-7c1e-7d2a-9f35-0c8a5b1e2d3f", "sessionId": "20260212_093215", "tenantId": "t-001",
    "weightId": null, "kind": "excluded", "ends": null, "reason": "two birds on the scale", "author": "operator:console",
    "createdAt": "2026-02-12T09:40:00.000Z"}))]
pub(in crate::http) struct MarkBody {
    /// Row id; ids grow with time.
    id: Uuid,
    session_id: String,
    tenant_id: String,
    /// One weight of the session; null means all of it.
    weight_id: Option<Uuid>,
    /// `excluded` from the statistics, `included` again, or `reviewed`.
    kind: String,
    /// The exclusion that ended with this row.
    ends: Option<Uuid>,
    reason: Option<String>,
    /// Who, as the audit log names it.
    author: String,
    created_at: Time,
}

impl From<Mark> for MarkBody {
    fn from(row: Mark) -> Self {
        Self {
            id: row.id,
            session_id: row.session_id,
            tenant_id: row.tenant_id,
            weight_id: row.weight_id,
            kind: row.kind,
            ends: row.ends,
            reason: row.reason,
            author: row.author,
            created_at: row.created_at.into(),
        }
    }
}

/// What is to enter no statistics.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001", "reason": "two birds on the scale"}))]
pub(in crate::http) struct Exclude {
    /// Tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
    /// Only this weight of the session: the last of the others counts then.
    weight_id: Option<Uuid>,
    /// Why.
    reason: String,
}

/// Keeps a weighing out of the flock's statistics, whose day is made anew. The session and the cloud's copy stay as they are.
#[utoipa::path(post, path = "/api/v1/weighvision/sessions/{id}/exclude", tag = "weighvision", request_body = Exclude,
    params(("id" = String, Path, description = "Session", example = "20260212_093215")),
    responses((status = 200, description = "What is said of it now, or was before", body = MarkBody)))]
pub(in crate::http) async fn exclude(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(session_id): Path<String>,
    body: JsonBody,
) -> Result<Json<MarkBody>, Error> {
    let mut fields = Fields::of(&body)?;
    let (tenant_id, weight_id) = (fields.optional_id("tenant_id"), fields.optional_uuid("weight_id"));
    let reason = fields.text("reason");
    fields.finish()?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    let weighing = Weighing { tenant_id: &tenant_id, session_id: known(&session_id)?, weight_id };
    Ok(Json(state.marks.exclude(weighing, &reason, &call.author()).await?.into()))
}

/// What is to enter the statistics again.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001", "reason": "it was one bird"}))]
pub(in crate::http) struct Include {
    /// Tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
    /// The weight that was excluded, where it was not the session.
    weight_id: Option<Uuid>,
    /// Why.
    reason: Option<String>,
}

/// Takes a weighing into the flock's statistics again.
#[utoipa::path(post, path = "/api/v1/weighvision/sessions/{id}/include", tag = "weighvision", request_body = Include,
    params(("id" = String, Path, description = "Session", example = "20260212_093215")),
    responses((status = 200, description = "What is said of it now", body = MarkBody),
        (status = 409, description = "BOOK_CONFLICT: it is not excluded")))]
pub(in crate::http) async fn include(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(session_id): Path<String>,
    body: JsonBody,
) -> Result<Json<MarkBody>, Error> {
    let mut fields = Fields::of(&body)?;
    let (tenant_id, weight_id) = (fields.optional_id("tenant_id"), fields.optional_uuid("weight_id"));
    let reason = fields.optional_text("reason");
    fields.finish()?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    let weighing = Weighing { tenant_id: &tenant_id, session_id: known(&session_id)?, weight_id };
    Ok(Json(state.marks.include(weighing, reason.as_deref(), &call.author()).await?.into()))
}

/// That somebody has looked.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001"}))]
pub(in crate::http) struct Review {
    /// Tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
    /// What there is to say.
    reason: Option<String>,
}

/// Notes that the caller has looked at a weighing: it is `reviewed` to this caller until the session changes.
#[utoipa::path(post, path = "/api/v1/weighvision/sessions/{id}/review", tag = "weighvision", request_body = Review,
    params(("id" = String, Path, description = "Session", example = "20260212_093215")),
    responses((status = 200, description = "What is said of it now", body = MarkBody)))]
pub(in crate::http) async fn review(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(session_id): Path<String>,
    body: JsonBody,
) -> Result<Json<MarkBody>, Error> {
    let mut fields = Fields::of(&body)?;
    let (tenant_id, note) = (fields.optional_id("tenant_id"), fields.optional_text("reason"));
    fields.finish()?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    let names = [&*tenant_id, known(&session_id)?];
    Ok(Json(state.marks.review(names, note.as_deref(), &call.author()).await?.into()))
}

/// What was said of a session, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct MarkList {
    marks: Vec<MarkBody>,
    /// What to give as `after` for those that follow; null at the end.
    next: Option<String>,
}

/// How many marks.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the query that is read by hand")]
pub(in crate::http) struct MarkQuery {
    /// Only what stands behind: `next` of the list before.
    after: Option<String>,
    /// Rows at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<i64>,
}

/// Lists what was said of a weighing, newest first.
#[utoipa::path(get, path = "/api/v1/weighvision/sessions/{id}/marks", tag = "weighvision",
    params(("id" = String, Path, description = "Session", example = "20260212_093215"), MarkQuery, TenantQuery),
    responses((status = 200, description = "What was said", body = MarkList)))]
pub(in crate::http) async fn list_marks(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(session_id): Path<String>,
    mut params: Params,
) -> Result<Json<MarkList>, Error> {
    let (named, limit) = (params.id("tenant_id"), params.limit());
    let after = params.after::<MarkKey>().map(Uuid::from);
    params.finish()?;
    let tenant_id = call.tenant(named.as_deref())?;
    let marks = state.marks.list([&tenant_id, known(&session_id)?], after, limit).await?;
    let next = cursor::behind(&marks, limit, |last| MarkKey::from(last.id));
    Ok(Json(MarkList { marks: marks.into_iter().map(MarkBody::from).collect(), next }))
}

/// The name of a session; what cannot be one is nobody's.
fn known(session_id: &str) -> Result<&str, Error> {
    if id::is_id(session_id) { Ok(session_id) } else { Err(not_found()) }
}

impl From<MarkError> for Error {
    fn from(error: MarkError) -> Self {
        match error {
            MarkError::Store(error) => error.into(),
            MarkError::NoSession | MarkError::NoWeight => Self::new(Code::NotFound, error.to_string()),
            MarkError::NotExcluded => Self::new(Code::BookConflict, error.to_string()),
        }
    }
}
