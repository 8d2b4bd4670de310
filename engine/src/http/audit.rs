//! Who did what, when and from where: written down by the calls that do it, and listed.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schema::id::Uuid;
use schema::store::audit::{self, Action, Deed, Entry};
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::auth::Call;
use super::cursor::{self, AuditKey};
use super::error::Error;
use super::query::Params;
use super::telemetry::TenantQuery;
use super::time::Time;

/// Writes down what is about to be done: to the rows of these tenants, or to the whole box.
///
/// # Errors
/// When the database fails; then nothing should be done.
pub(super) async fn note(
    state: &AppState,
    call: &Call,
    action: Action,
    tenants: Option<&[String]>,
    detail: Value,
) -> Result<(), Error> {
    let (author, now) = (call.author(), state.clock.now());
    let deed = Deed { action, tenants, target: None, detail };
    let write = async |conn: &mut _| audit::record(conn, &author, &deed, now).await;
    Ok(state.store.run("audit_record", write).await?)
}

/// Which rows are listed.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameters that are read by hand")]
pub(super) struct AuditQuery {
    /// Only what stands behind: `next` of the list before.
    after: Option<String>,
    /// Another name of `after`, which also takes the id of a row.
    before: Option<String>,
    /// Rows at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<i64>,
}

/// Something that was done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": "0198a6f2-7c1e-7d2a-9f35-0c8a5b1e2d3f", "happened_at": "2026-02-12T09:32:15.052Z",
    "actor": "operator:console", "origin": "192.168.1.20:50412", "action": "device.revoke", "tenant_id": "t-001",
    "target": "d-001", "detail": {}}))]
pub(super) struct AuditRow {
    /// Row id; ids grow with time.
    id: Uuid,
    /// When.
    happened_at: Time,
    /// Who: `operator:` and the name of a key (or `#` and its place in the list), `shell:` and a user id, or `anyone`.
    actor: String,
    /// From where: an address, or the name of a machine.
    origin: String,
    /// What: `device.add`, `device.rotate`, `device.revoke`, `station.add`, `station.revoke`, `barn.put`, `standard.import`, `standard.derive`, `flock.create`, `flock.end`,
    /// `console.invite`, `console.login`, `console.logout`, `console.end`, `flock.record`, `flock.correct`, `session.exclude`, `session.include`, `redrive`, `discard`, `unclaim`, `janitor.run`,
    /// `sync.resend`, `sync.trigger`, `model.switch`, `restore`.
    action: String,
    /// Whose rows; null means the whole box, or all tenants.
    tenant_id: Option<String>,
    /// To which, such as a device.
    target: Option<String>,
    /// How.
    #[schema(value_type = Object)]
    detail: Value,
}

impl From<Entry> for AuditRow {
    fn from(row: Entry) -> Self {
        Self {
            id: row.id,
            happened_at: row.happened_at.into(),
            actor: row.actor,
            origin: row.origin,
            action: row.action,
            tenant_id: row.tenant_id,
            target: row.target,
            detail: row.detail,
        }
    }
}

/// What was done, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditList {
    entries: Vec<AuditRow>,
    /// What to give as `after` for those that follow; null at the end.
    next: Option<String>,
}

/// Lists what was done to the rows of the key's tenants, newest first; a key for all tenants also sees what was done to
/// the whole box.
#[utoipa::path(get, path = "/api/v1/audit", tag = "operations", params(AuditQuery, TenantQuery),
    responses((status = 200, description = "What was done", body = AuditList)))]
pub(super) async fn list_audit(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<AuditList>, Error> {
    let (named, limit) = (params.id("tenant_id"), params.limit());
    let before = params.after_or_before::<AuditKey>().map(Uuid::from);
    params.finish()?;
    let tenants = call.tenants(named.as_deref())?;
    let read = async |conn: &mut _| audit::list(conn, tenants.as_slice(), before, limit).await;
    let entries = state.store.run("audit_list", read).await?;
    let next = cursor::behind(&entries, limit, |last| AuditKey::from(last.id));
    Ok(Json(AuditList { entries: entries.into_iter().map(AuditRow::from).collect(), next }))
}
