//! Jobs for the model, what it said, and which model it is.

use std::sync::Arc;

use actors::inference::settings::Thresholds;
use axum::Json;
use axum::extract::{Path, State};
use schema::clock::Timestamp;
use schema::id::Uuid;
use schema::store::inference::{self as rows, Image, Job, NewJob, StoredResult, WantedResults};
use schema::store::page::{self, Place};
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::auth::{Call, DevicePlace, agrees_with_token, scope_mismatch};
use super::body::JsonBody;
use super::cursor::{self, ResultKey};
use super::error::{Code, Error};
use super::query::Params;
use super::session::scope::check_named;
use super::telemetry::TenantQuery;
use super::time::Time;

mod request;

use request::Request;

/// A job to be made.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"tenant_id": "t-001", "media_id": "226550f6-c262-5647-a6c9-2545e81f2a84"}))]
#[expect(dead_code, reason = "documents the body that is read key by key")]
pub(super) struct NewJobBody {
    /// Tenant; may be named by `x-tenant-id` or the credential instead. Every key is also understood in camelCase.
    tenant_id: Option<String>,
    /// The image; this or `object_key` must be given.
    media_id: Option<Uuid>,
    /// The key of the image.
    object_key: Option<String>,
    /// When it is there, that of the image.
    farm_id: Option<String>,
    /// When it is there, that of the image.
    barn_id: Option<String>,
    /// When it is there, that of the image.
    device_id: Option<String>,
    /// A session of the image's barn. Absent: that of the image.
    session_id: Option<String>,
    /// Absent: the call's `x-trace-id`.
    trace_id: Option<String>,
    /// Not looked at.
    job_type: Option<String>,
}

/// A job that was made, or was there.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobMade {
    /// Its id: one per image and model.
    job_id: Uuid,
    /// `pending`, `processing`, `completed` or `failed`.
    #[schema(example = "pending")]
    status: String,
    /// When it was asked for.
    created_at: Time,
    /// When it last changed.
    updated_at: Time,
}

/// Asks the model about an image. The same image and model are the same job, however often they are posted.
#[utoipa::path(post, path = "/api/v1/inference/jobs", tag = "inference", request_body = NewJobBody,
    responses((status = 200, description = "The job", body = JobMade),
        (status = 403, description = "SCOPE_MISMATCH, DEVICE_NOT_ALLOWED"),
        (status = 404, description = "NOT_FOUND: the tenant has no such image")))]
pub(super) async fn create_job(
    State(state): State<Arc<AppState>>,
    call: Call,
    body: JsonBody,
) -> Result<Json<JobMade>, Error> {
    let request = Request::of(&body)?;
    let tenant_id = call.tenant(request.tenant_id.as_deref())?;
    let image = image(&state, &tenant_id, &request).await?;
    let Image { farm_id, barn_id, device_id, .. } = &image;
    let place = DevicePlace { tenant_id: &tenant_id, farm_id, barn_id, device_id, station_id: None };
    call.check_device(&state, place).await?;
    check_named(&state, &call, place, request.session_id.as_deref()).await?;
    let now = state.clock.now();
    let version = state.inference.model_version();
    let trace_id = request.trace_id.as_deref().unwrap_or(&call.ids.trace_id);
    let make = async |conn: &mut _| put(conn, &tenant_id, &image, &version, trace_id, now).await;
    let job = state.store.run("inference_job", make).await?.ok_or_else(no_job)?;
    state.inference.announce(&tenant_id, job.id, job.session_id.is_some());
    let Job { id: job_id, status, created_at, updated_at, .. } = job;
    Ok(Json(JobMade { job_id, status, created_at: created_at.into(), updated_at: updated_at.into() }))
}

async fn put(
    conn: &schema::store::Conn,
    tenant_id: &str,
    image: &Image,
    model_version: &str,
    trace_id: &str,
    now: Timestamp,
) -> Result<Option<Job>, schema::store::StoreError> {
    let job = NewJob {
        tenant_id,
        farm_id: &image.farm_id,
        barn_id: &image.barn_id,
        device_id: &image.device_id,
        media_id: image.id,
        object_key: &image.object_key,
        session_id: image.session_id.as_deref(),
        model_version,
        trace_id: Some(trace_id),
    };
    let id = rows::put_job(conn, &job, now).await?;
    rows::job(conn, Some(tenant_id), id).await
}

/// The image that is meant, for the session that the request names. Its place is its own: a request may repeat it.
async fn image(state: &AppState, tenant_id: &str, request: &Request) -> Result<Image, Error> {
    let key = request.object_key.as_deref().unwrap_or_default();
    let find = async |conn: &mut _| rows::image(conn, tenant_id, request.media_id, key).await;
    let image = state.reads.run("inference_image", find).await?;
    let image = image.ok_or_else(|| Error::new(Code::NotFound, "the tenant has no such image"))?;
    let is = |named: &Option<String>, own: &str| agrees_with_token(named.as_deref(), Some(own));
    let is_its_own = is(&request.farm_id, &image.farm_id)
        && is(&request.barn_id, &image.barn_id)
        && is(&request.device_id, &image.device_id);
    if !is_its_own {
        return Err(scope_mismatch());
    }
    Ok(Image { session_id: request.session_id.clone().or(image.session_id), ..image })
}

fn no_job() -> Error {
    Error::new(Code::NotFound, "there is no such job")
}

/// A job.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobBody {
    /// Its id.
    job_id: Uuid,
    /// Tenant.
    #[schema(example = "t-001")]
    tenant_id: String,
    /// Farm of the image.
    #[schema(example = "f-001")]
    farm_id: String,
    /// Barn of the image.
    #[schema(example = "b-001")]
    barn_id: String,
    /// The camera.
    #[schema(example = "wv-001")]
    device_id: String,
    /// The image.
    media_id: Uuid,
    /// Its key.
    object_key: String,
    /// Its session.
    session_id: Option<String>,
    /// Trace id of what caused it.
    trace_id: Option<String>,
    /// `pending`, `processing`, `completed` or `failed`.
    #[schema(example = "completed")]
    status: String,
    /// When it was asked for.
    created_at: Time,
    /// When it last changed.
    updated_at: Time,
    /// Its result; left out while there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    result_id: Option<Uuid>,
    /// Why the last attempt failed; left out when it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<Job> for JobBody {
    fn from(job: Job) -> Self {
        Self {
            job_id: job.id,
            tenant_id: job.tenant_id,
            farm_id: job.farm_id,
            barn_id: job.barn_id,
            device_id: job.device_id,
            media_id: job.media_id,
            object_key: job.object_key,
            session_id: job.session_id,
            trace_id: job.trace_id,
            status: job.status,
            created_at: job.created_at.into(),
            updated_at: job.updated_at.into(),
            result_id: job.result_id,
            error: job.last_error,
        }
    }
}

/// Shows a job.
#[utoipa::path(get, path = "/api/v1/inference/jobs/{id}", tag = "inference",
    params(("id" = String, Path, description = "Id of the job", example = "6c740147-465c-5339-816a-7b9a7f897427"), TenantQuery),
    responses((status = 200, description = "The job", body = JobBody),
        (status = 404, description = "NOT_FOUND: the tenant has no such job")))]
pub(super) async fn show_job(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<Json<JobBody>, Error> {
    let named = params.id("tenant_id");
    params.finish()?;
    let tenant_id = call.read_tenant(named.as_deref())?;
    let id: Uuid = id.parse().map_err(|_| no_job())?;
    let read = async |conn: &mut _| rows::job(conn, tenant_id.as_deref(), id).await;
    let job = state.reads.run("inference_job", read).await?.ok_or_else(no_job)?;
    Ok(Json(job.into()))
}

/// Which results are listed: those of a session, or those of a tenant, narrowed by device and time.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameters that are read by hand")]
pub(super) struct ResultQuery {
    /// The session.
    #[param(rename = "sessionId", example = "20260212_093215")]
    session_id: Option<String>,
    /// The camera.
    #[param(example = "wv-001")]
    device_id: Option<String>,
    /// First time.
    #[param(format = DateTime, example = "2026-02-12T00:00:00Z")]
    from: Option<String>,
    /// First time behind the last.
    #[param(format = DateTime, example = "2026-02-13T00:00:00Z")]
    to: Option<String>,
    /// Only results that are no surer than this.
    #[param(minimum = 0, maximum = 1)]
    max_confidence: Option<f64>,
    /// Only what stands behind: `next` of the list before.
    after: Option<String>,
    /// Rows at most.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<i64>,
}

/// What a model said of an image.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ResultRow {
    /// Its id, which is its job's.
    id: Uuid,
    /// Tenant.
    #[schema(example = "t-001")]
    tenant_id: String,
    /// Farm of the image.
    #[schema(example = "f-001")]
    farm_id: String,
    /// Barn of the image.
    #[schema(example = "b-001")]
    barn_id: String,
    /// The camera.
    #[schema(example = "wv-001")]
    device_id: String,
    /// The session of the image.
    session_id: Option<String>,
    /// The image.
    media_id: Option<String>,
    /// Kilograms; null when there is no bird in the image.
    #[schema(example = 2.05)]
    predicted_weight_kg: Option<f64>,
    /// From 0 to 1.
    #[schema(example = 0.8)]
    confidence: f64,
    /// The model that said it.
    #[schema(example = "demo-1.0.0")]
    model_version: String,
    /// When.
    occurred_at: Time,
    /// When it was stored.
    created_at: Time,
    /// What else there is to say; `demo` is true when the model is a demonstration.
    #[schema(value_type = Object)]
    metadata: Value,
}

impl From<StoredResult> for ResultRow {
    fn from(row: StoredResult) -> Self {
        Self {
            id: row.id,
            tenant_id: row.tenant_id,
            farm_id: row.farm_id,
            barn_id: row.barn_id,
            device_id: row.device_id,
            session_id: row.session_id,
            media_id: row.media_id,
            predicted_weight_kg: row.predicted_weight_kg,
            confidence: row.confidence,
            model_version: row.model_version,
            occurred_at: row.occurred_at.into(),
            created_at: row.created_at.into(),
            metadata: row.metadata.unwrap_or_else(|| Value::Object(serde_json::Map::new())),
        }
    }
}

/// Results, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ResultList {
    /// The session that was asked for.
    session_id: Option<String>,
    /// How many there are in this list.
    count: usize,
    results: Vec<ResultRow>,
    /// What to give as `after` for those that follow; null at the end. With `max_confidence` a list may have no row and
    /// yet go on.
    next: Option<String>,
}

/// Results of one call at most.
const RESULTS_MAX: i64 = 500;

/// Lists results, newest first.
#[utoipa::path(get, path = "/api/v1/inference/results", tag = "inference", params(ResultQuery, TenantQuery),
    responses((status = 200, description = "The results", body = ResultList)))]
pub(super) async fn list_results(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<ResultList>, Error> {
    let (session_id, device_id) = (params.id("sessionId"), params.id("device_id"));
    let (from, to) = (params.time("from"), params.time("to"));
    let max_confidence = params.number("max_confidence", 0.0, 1.0);
    let (after, limit) = (params.after::<ResultKey>().map(Place::from), params.limit_up_to(RESULTS_MAX));
    let named = params.id("tenant_id");
    params.finish()?;
    // Only a session's results are found among those of all tenants.
    let tenant_id = match &session_id {
        Some(_) => call.read_tenant(named.as_deref())?,
        None => Some(call.tenant(named.as_deref())?),
    };
    let wanted = WantedResults {
        tenant_id: tenant_id.as_deref(),
        session_id: session_id.as_deref(),
        device_id: device_id.as_deref(),
        from,
        to,
    };
    let read = async |conn: &mut _| match max_confidence {
        None => {
            Ok(page::whole(rows::results(conn, &wanted, after, limit).await?, limit, StoredResult::place))
        }
        Some(max) => rows::unsure_results(conn, &wanted, max, after, limit).await,
    };
    let page = state.reads.run("inference_results", read).await?;
    let next = cursor::next::<_, ResultKey>(&page);
    let results: Vec<_> = page.rows.into_iter().map(ResultRow::from).collect();
    Ok(Json(ResultList { session_id, count: results.len(), results, next }))
}

/// How much a model has said.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InferenceStats {
    /// Results stored; 0 without a tenant.
    total_results: i64,
    /// Time of the newest; null when there is none.
    last_result_at: Option<Time>,
    /// Whose they are.
    #[schema(example = "t-001")]
    tenant_id: Option<String>,
}

/// Counts the results of a tenant.
#[utoipa::path(get, path = "/api/v1/inference/stats", tag = "inference", params(TenantQuery),
    responses((status = 200, description = "The counts", body = InferenceStats)))]
pub(super) async fn inference_stats(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<InferenceStats>, Error> {
    let named = params.id("tenant_id");
    params.finish()?;
    let tenant_id = match call.read_tenant(named.as_deref()) {
        Err(error) if error.code == Code::MissingTenant => None,
        tenant_id => tenant_id?,
    };
    let (total_results, last_at) = match &tenant_id {
        None => (0, None),
        Some(tenant_id) => {
            let count = async |conn: &mut _| rows::stats(conn, tenant_id).await;
            state.reads.run("inference_stats", count).await?
        }
    };
    Ok(Json(InferenceStats { total_results, last_result_at: last_at.map(Time), tenant_id }))
}

/// The model in use.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelBody {
    /// The version that results carry.
    #[schema(example = "demo-1.0.0")]
    model_version: String,
    /// `bundled`, or the path of the ONNX file.
    #[schema(example = "bundled")]
    model_path: String,
    /// SHA-256 of the ONNX file, hex.
    model_sha256: String,
    /// Least confidence of a detection.
    #[schema(example = 0.5)]
    confidence_threshold: f64,
    /// Overlap above which two detections are one.
    #[schema(example = 0.4)]
    nms_threshold: f64,
    /// `ready`, `demo` for a demonstration model, `disabled` when this engine looks at no images.
    #[schema(example = "demo")]
    status: &'static str,
    /// Whether its network is in memory; otherwise the next image brings it back.
    #[schema(example = true)]
    is_loaded: bool,
    /// Why the newest package at the path is not in use; left out when it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

/// Shows the model in use.
#[utoipa::path(get, path = "/api/v1/inference/models", tag = "inference",
    responses((status = 200, description = "The model", body = ModelBody)))]
pub(super) async fn show_model(State(state): State<Arc<AppState>>) -> Json<ModelBody> {
    let model = state.inference.model();
    let Thresholds { confidence, nms } = model.thresholds();
    Json(ModelBody {
        model_version: model.version().to_owned(),
        model_path: model.source().to_string(),
        model_sha256: model.sha256().to_owned(),
        confidence_threshold: confidence,
        nms_threshold: nms,
        status: model_status(&state),
        is_loaded: model.is_loaded(),
        last_error: state.inference.fault().map(|fault| fault.to_string()),
    })
}

/// What the model is good for.
pub(super) fn model_status(state: &AppState) -> &'static str {
    match (state.settings.is_inference_enabled, state.inference.model().is_demo()) {
        (false, _) => "disabled",
        (true, true) => "demo",
        (true, false) => "ready",
    }
}
