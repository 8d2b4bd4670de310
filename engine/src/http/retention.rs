//! The janitor: a pass over what has become old, as operators order it and see its result.

use std::collections::BTreeMap;
use std::sync::Arc;

use actors::retention::report::Report;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::error::{Code, Error};
use super::query::Params;
use super::time::Time;

/// How a pass is run.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameter that is read by hand")]
pub(super) struct RunQuery {
    /// Whether the pass only says what it would delete; `retention.dry_run` when absent.
    dry_run: Option<bool>,
}

/// What a pass did.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JanitorRunBody {
    data: JanitorRun,
}

/// The inside of [`JanitorRunBody`].
#[derive(Debug, Serialize, ToSchema)]
struct JanitorRun {
    /// When it began.
    started_at: Time,
    /// When it ended.
    finished_at: Time,
    /// Files that went, or would have gone.
    #[schema(example = 12)]
    deleted_files: u64,
    /// Bytes they had taken.
    #[schema(example = 25_165_824_u64)]
    freed_bytes: u64,
    /// Rows that went, or would have gone, by table.
    #[schema(example = json!({"telemetry_raw": 1_000_000, "media_objects": 12}))]
    deleted_rows: BTreeMap<&'static str, u64>,
    /// Whether nothing was deleted.
    dry_run: bool,
    /// What did not succeed.
    error: Option<String>,
}

impl From<&Report> for JanitorRun {
    fn from(report: &Report) -> Self {
        Self {
            started_at: Time(report.started_at),
            finished_at: Time(report.finished_at),
            deleted_files: report.deleted_files,
            freed_bytes: report.freed_bytes,
            deleted_rows: report.deleted_rows.clone(),
            dry_run: report.is_dry_run,
            error: report.error(),
        }
    }
}

/// Runs a pass, after the one under way, and waits for its result.
#[utoipa::path(post, path = "/api/v1/janitor/run", tag = "operations", params(RunQuery),
    responses((status = 200, description = "What the pass did", body = JanitorRunBody),
        (status = 503, description = "NOT_READY: the pass goes on, or others wait already; its result is the state")))]
pub(super) async fn run_janitor(
    State(state): State<Arc<AppState>>,
    mut params: Params,
) -> Result<Json<JanitorRunBody>, Error> {
    let is_dry_run = params.one_of("dry_run", &[("true", true), ("false", false)]);
    params.finish()?;
    let report = state.retention.order(is_dry_run).await.ok_or_else(|| {
        Error::new(Code::NotReady, "the pass has no result yet, look at /api/v1/janitor/state later")
    })?;
    Ok(Json(JanitorRunBody { data: JanitorRun::from(&*report) }))
}

/// What the last pass did.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JanitorStateBody {
    data: JanitorState,
}

/// The inside of [`JanitorStateBody`]: null and zero before the first pass of this engine.
#[derive(Debug, Default, Serialize, ToSchema)]
struct JanitorState {
    /// When the last pass ended.
    last_run_at: Option<Time>,
    /// Files that went in it.
    last_deleted_files: u64,
    /// Bytes they had taken.
    last_freed_bytes: u64,
    /// What did not succeed.
    last_error: Option<String>,
}

/// Shows what the last pass of this engine did.
#[utoipa::path(get, path = "/api/v1/janitor/state", tag = "operations",
    responses((status = 200, description = "The last pass", body = JanitorStateBody)))]
pub(super) async fn janitor_state(State(state): State<Arc<AppState>>) -> Json<JanitorStateBody> {
    let data = state.retention.last().map_or_else(JanitorState::default, |report| JanitorState {
        last_run_at: Some(Time(report.finished_at)),
        last_deleted_files: report.deleted_files,
        last_freed_bytes: report.freed_bytes,
        last_error: report.error(),
    });
    Json(JanitorStateBody { data })
}
