//! The janitor: a pass over what has become old, as operators order it and see its result.

use std::collections::BTreeMap;
use std::sync::Arc;

use actors::retention::PassOrder;
use actors::retention::report::Report;
use axum::Json;
use axum::extract::State;
use schema::store::audit::Action;
use serde::Serialize;
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::auth::Call;
use super::error::{Code, Error};
use super::query::Params;
use super::time::Time;
use super::{AppState, audit};

/// How a pass is run.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameters that are read by hand")]
pub(super) struct RunQuery {
    /// Whether the pass only says what it would delete; `retention.dry_run` when absent.
    dry_run: Option<bool>,
    /// Says that the clock is right, however far past the last pass it stands.
    confirm_clock: Option<bool>,
    /// Says that files no row knows may go, also where they are more than a tenth of all.
    confirm_orphans: Option<bool>,
    /// Says that the images in the store are those of this database, which marks it as its own.
    adopt_store: Option<bool>,
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
    call: Call,
    mut params: Params,
) -> Result<Json<JanitorRunBody>, Error> {
    let mut flag = |name| params.one_of(name, &[("true", true), ("false", false)]);
    let order = PassOrder {
        is_dry_run: flag("dry_run"),
        confirms_clock: flag("confirm_clock").unwrap_or(false),
        confirms_orphans: flag("confirm_orphans").unwrap_or(false),
        adopts_store: flag("adopt_store").unwrap_or(false),
    };
    params.finish()?;
    let detail = json!({"dry_run": order.is_dry_run, "confirm_clock": order.confirms_clock,
        "confirm_orphans": order.confirms_orphans, "adopt_store": order.adopts_store});
    audit::note(&state, &call, Action::JanitorRun, None, detail).await?;
    let report = state.retention.order(order).await.ok_or_else(|| {
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
    /// What is kept until somebody acts, and why; absent when nothing is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(example = json!({"orphans": "more than a tenth of the files are unknown to the database"}))]
    kept: BTreeMap<&'static str, String>,
    /// Months and days that are over and kept, each with its reason; absent when none is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(example = json!({"telemetry_raw_202608": "an event of its time waits for the cloud"}))]
    held_tables: BTreeMap<String, &'static str>,
}

/// Shows what the last pass of this engine did.
#[utoipa::path(get, path = "/api/v1/janitor/state", tag = "operations",
    responses((status = 200, description = "The last pass", body = JanitorStateBody)))]
pub(super) async fn janitor_state(State(state): State<Arc<AppState>>) -> Json<JanitorStateBody> {
    let troubles = state.retention.troubles();
    let kept = troubles.iter().map(|(kept, trouble)| (*kept, trouble.text())).collect();
    let held_tables = state.retention.held_tables();
    let data = match state.retention.last() {
        None => JanitorState { kept, held_tables, ..JanitorState::default() },
        Some(report) => JanitorState {
            last_run_at: Some(Time(report.finished_at)),
            last_deleted_files: report.deleted_files,
            last_freed_bytes: report.freed_bytes,
            last_error: report.error(),
            kept,
            held_tables,
        },
    };
    Json(JanitorStateBody { data })
}
