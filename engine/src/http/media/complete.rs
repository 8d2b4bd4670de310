//! `POST /api/v1/media/images/complete`: a device says that its image is there.

use std::sync::Arc;

use actors::media::completion::{Completed, Completion, Mode};
use actors::media::name::Owner;
use axum::Json;
use axum::extract::State;
use schema::id::{self, Uuid};
use serde::Serialize;
use utoipa::ToSchema;

use super::check_scope;
use crate::http::AppState;
use crate::http::auth::{Call, DevicePlace, scope_mismatch};
use crate::http::body::JsonBody;
use crate::http::error::Error;
use crate::http::fields::{Fields, Vocabulary};
use crate::http::session::scope::check_named;

/// The body; as with presign, it may speak `camelCase` throughout.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "device_id": "wv-001",
    "object_key": "tenants/t-001/farms/f-001/barns/b-001/devices/wv-001/images/2026/02/12/0198a6f2-7c1e-7d2a-9f35-0c8a5b1e2d3f.jpg",
    "mime_type": "image/jpeg", "size_bytes": 2165543, "session_id": "20260212_093215"}))]
#[expect(dead_code, reason = "documents the body that is read key by key")]
pub(in crate::http) struct CompleteBody {
    tenant_id: String,
    farm_id: String,
    barn_id: String,
    device_id: String,
    /// The key of the offer.
    object_key: String,
    /// Must be that of the stored image.
    mime_type: String,
    /// Must be that of the stored image.
    #[schema(minimum = 0)]
    size_bytes: Option<i64>,
    #[schema(format = DateTime)]
    captured_at: Option<String>,
    session_id: Option<String>,
}

/// A completed image.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct CompletedImage {
    /// Id of the image.
    media_id: Uuid,
    /// Id of its event `media.stored`.
    event_id: Uuid,
    /// Key of the image.
    object_key: String,
    /// Bucket; a name for either backend.
    bucket: String,
    /// Entity tag, without quotes.
    etag: Option<String>,
    /// Bytes of the image.
    size_bytes: Option<i64>,
    /// The inference job that this call made.
    inference_job_id: Option<Uuid>,
}

impl From<Completed> for CompletedImage {
    fn from(completed: Completed) -> Self {
        let object = completed.object;
        Self {
            media_id: object.id,
            event_id: id::media_stored_event_id(object.id),
            object_key: object.object_key,
            bucket: object.bucket,
            etag: object.etag,
            size_bytes: object.size_bytes,
            inference_job_id: completed.inference_job_id,
        }
    }
}

/// Completes an image that was uploaded. A repeated call answers the stored values.
#[utoipa::path(post, path = "/api/v1/media/images/complete", tag = "media", request_body = CompleteBody,
    responses((status = 200, description = "The image is stored", body = CompletedImage),
        (status = 403, description = "SCOPE_MISMATCH, DEVICE_NOT_ALLOWED"),
        (status = 404, description = "OBJECT_NOT_FOUND"),
        (status = 409, description = "SIZE_MISMATCH, CONTENT_TYPE_MISMATCH"),
        (status = 503, description = "CONFIG_ERROR, STORAGE_UNAVAILABLE")))]
pub(in crate::http) async fn complete(
    State(state): State<Arc<AppState>>,
    call: Call,
    body: JsonBody,
) -> Result<Json<CompletedImage>, Error> {
    let (mut completion, vocabulary) = read(&body)?;
    completion.trace_id = Some(call.ids.trace_id.to_string());
    let Completion { tenant_id, farm_id, barn_id, device_id, object_key, .. } = &completion;
    let place = DevicePlace { tenant_id, farm_id, barn_id, device_id, station_id: None };
    check_scope(&state, &call, place, vocabulary).await?;
    let owner = Owner { tenant_id, farm_id, barn_id, device_id };
    if !object_key.starts_with(&owner.key_prefix()) || object_key.contains("..") {
        return Err(scope_mismatch());
    }
    check_named(&state, &call, place, completion.session_id.as_deref()).await?;
    state.media.check_bucket()?;
    Ok(Json(state.media.completer.complete(&completion).await?.into()))
}

fn read(body: &JsonBody) -> Result<(Completion, Vocabulary), Error> {
    let mut fields = Fields::of(body)?;
    let vocabulary = fields.vocabulary();
    let completion = Completion {
        mode: Mode::Explicit,
        tenant_id: fields.id("tenant_id"),
        farm_id: fields.id("farm_id"),
        barn_id: fields.id("barn_id"),
        device_id: fields.id("device_id"),
        object_key: fields.text("object_key"),
        mime_type: Some(fields.text("mime_type")),
        size_bytes: fields.optional_bytes("size_bytes"),
        captured_at: fields.optional_time("captured_at"),
        session_id: fields.optional_id("session_id"),
        trace_id: None,
    };
    fields.finish()?;
    Ok((completion, vocabulary))
}
