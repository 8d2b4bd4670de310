//! Messages that were refused, listed: what was wrong with them, never what was in them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schema::id::Uuid;
use schema::store::page::Place;
use schema::store::reject::{self as rows, Recorded, Wanted};
use schema::wire::reject::Reason;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::auth::Call;
use super::cursor::{self, RejectKey};
use super::error::Error;
use super::query::Params;
use super::telemetry::TenantQuery;
use super::time::Time;

/// Which refusals are listed.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameters that are read by hand")]
pub(super) struct RejectQuery {
    /// Only those of this device.
    #[param(example = "d-001")]
    device_id: Option<String>,
    /// Only those for this reason, such as `TS_INVALID`.
    reason: Option<String>,
    /// Refused then or later.
    #[param(format = DateTime, example = "2026-02-12T00:00:00Z")]
    from: Option<String>,
    /// Refused before.
    #[param(format = DateTime, example = "2026-02-13T00:00:00Z")]
    to: Option<String>,
    /// Only what stands behind: `next` of the list before.
    after: Option<String>,
    /// Rows at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<i64>,
}

/// A refused message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": "0198a6f2-7c1e-7d2a-9f35-0c8a5b1e2d3f", "rejected_at": "2026-02-12T09:32:15.052Z",
    "reason": "TS_INVALID", "text": "ts is not a time", "field": "ts", "topic": "a topic", "tenant_id": "t-001",
    "device_id": "d-001", "event_id": null, "size_bytes": 213,
    "sha256": "cb0e5eca4b0b0a9ab9be38791e7f9b078d444d76c6b2dce247515ddb3c91b1f4"}))]
pub(super) struct RejectRow {
    /// Row id.
    id: Uuid,
    rejected_at: Time,
    /// The code of the reason.
    reason: String,
    /// The same in words.
    text: &'static str,
    /// The field at fault. Never its value.
    field: Option<String>,
    /// Where it was published.
    topic: String,
    /// Tenant of the topic; null when it names none.
    tenant_id: Option<String>,
    /// Device of the topic; null when it names none.
    device_id: Option<String>,
    /// Event id, when the body was read that far.
    event_id: Option<String>,
    /// Size of the body.
    size_bytes: i32,
    /// SHA-256 of the body, hex; empty when the body was not read.
    sha256: String,
}

impl From<Recorded> for RejectRow {
    fn from(row: Recorded) -> Self {
        Self {
            id: row.id,
            rejected_at: row.rejected_at.into(),
            text: Reason::parse(&row.reason).map_or("", Reason::text),
            reason: row.reason,
            field: row.detail,
            topic: row.topic,
            tenant_id: row.tenant_id,
            device_id: row.device_id,
            event_id: row.event_id,
            size_bytes: row.size_bytes,
            sha256: row.sha256,
        }
    }
}

/// Refused messages, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RejectList {
    rejects: Vec<RejectRow>,
    /// How many there are in this list.
    count: usize,
    /// What to give as `after` for those that follow; null at the end.
    next: Option<String>,
}

/// Lists messages of the key's tenants that were refused, newest first. The newest `ingress.rejects_rows_max` are kept. A key
/// for all tenants also sees those whose topic names no tenant.
#[utoipa::path(get, path = "/api/v1/ingress/rejects", tag = "ingress", params(RejectQuery, TenantQuery),
    responses((status = 200, description = "Refused messages", body = RejectList)))]
pub(super) async fn list_rejects(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<RejectList>, Error> {
    let (named, device_id) = (params.id("tenant_id"), params.id("device_id"));
    let reason = params
        .one_of("reason", &Reason::ALL.iter().map(|reason| (reason.code(), *reason)).collect::<Vec<_>>());
    let (from, to) = (params.time("from"), params.time("to"));
    let (after, limit) = (params.after::<RejectKey>().map(Place::from), params.limit());
    params.finish()?;
    let tenants = call.tenants(named.as_deref())?;
    let wanted = Wanted {
        tenants: tenants.as_slice(),
        device_id: device_id.as_deref(),
        reason: reason.map(Reason::code),
        from,
        to,
    };
    let read = async |conn: &mut _| rows::list(conn, &wanted, after, limit).await;
    let found = state.reads.run("rejects", read).await?;
    let next = cursor::behind(&found, limit, |last| RejectKey::from(last.place()));
    let rejects: Vec<_> = found.into_iter().map(RejectRow::from).collect();
    Ok(Json(RejectList { count: rejects.len(), rejects, next }))
}
