//! `POST /api/v1/media/images/presign`: an upload is offered.

use std::sync::Arc;

use actors::media::name::{self, CONTENT_TYPES, Owner};
use actors::media::store::UploadOffer;
use axum::Json;
use axum::extract::State;
use chrono::Duration;
use schema::clock::Timestamp;
use schema::id::{self, Uuid};
use schema::metrics;
use schema::store::media::{self as rows, Upload, UploadStatus};
use serde::Serialize;
use utoipa::ToSchema;

use super::{MediaDesk, check_scope, insufficient_storage};
use crate::http::AppState;
use crate::http::auth::{Call, DevicePlace};
use crate::http::body::JsonBody;
use crate::http::error::{Code, Error};
use crate::http::fields::{Fields, Vocabulary};
use crate::http::session::scope::check_named;
use crate::http::time::Time;

/// The body in `snake_case`; with `tenantId` in place of `tenant_id`, it is in `camelCase` and `filename` optional.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "device_id": "wv-001",
    "content_type": "image/jpeg", "filename": "left.jpg"}))]
#[expect(dead_code, reason = "documents the body that is read key by key")]
pub(in crate::http) struct PresignBody {
    tenant_id: String,
    farm_id: String,
    barn_id: String,
    device_id: String,
    /// `image/jpeg`, `image/png` or `image/webp`.
    content_type: String,
    /// A name without a path; its extension is kept.
    filename: String,
    station_id: Option<String>,
    session_id: Option<String>,
    /// Of everything that comes of this image; absent: the call's `x-trace-id`, else that of whatever completes it.
    trace_id: Option<String>,
    #[schema(format = DateTime)]
    captured_at: Option<String>,
    /// Bytes of the image.
    #[schema(minimum = 0)]
    content_length: Option<i64>,
}

/// An offered upload.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Presigned {
    /// Key of the image.
    object_key: String,
    /// Where to put it.
    upload_url: String,
    /// Seconds the URL lives.
    expires_in: i64,
    /// `PUT`.
    method: &'static str,
    /// What to send with it.
    headers: UploadHeaders,
    /// Id of the image.
    media_id: Uuid,
    /// When the URL expires.
    expires_at: Time,
    /// The same as `headers`.
    required_headers: UploadHeaders,
}

/// Headers of an upload.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::http) struct UploadHeaders {
    /// The offered type.
    #[serde(rename = "Content-Type")]
    #[schema(example = "image/jpeg")]
    content_type: String,
}

/// What a body asks for.
struct Wish {
    tenant_id: String,
    farm_id: String,
    barn_id: String,
    device_id: String,
    content_type: String,
    filename: Option<String>,
    station_id: Option<String>,
    session_id: Option<String>,
    trace_id: Option<String>,
    captured_at: Option<Timestamp>,
    content_length: Option<i64>,
    vocabulary: Vocabulary,
}

impl Wish {
    fn of(body: &JsonBody) -> Result<Self, Error> {
        let mut fields = Fields::of(body)?;
        let vocabulary = fields.vocabulary();
        let is_filename_required = vocabulary == Vocabulary::Snake;
        let wish = Self {
            tenant_id: fields.id("tenant_id"),
            farm_id: fields.id("farm_id"),
            barn_id: fields.id("barn_id"),
            device_id: fields.id("device_id"),
            content_type: fields.text("content_type"),
            filename: if is_filename_required {
                Some(fields.text("filename"))
            } else {
                fields.optional_text("filename")
            },
            station_id: fields.optional_id("station_id"),
            session_id: fields.optional_id("session_id"),
            trace_id: fields.optional_event_id("trace_id"),
            captured_at: fields.optional_time("captured_at"),
            content_length: fields.optional_bytes("content_length"),
            vocabulary,
        };
        if wish.filename.as_deref().is_some_and(|name| !name::is_plain_filename(name)) {
            fields.problem("filename", "must be a name without a path");
        }
        fields.finish()?;
        Ok(wish)
    }

    fn place(&self) -> DevicePlace<'_> {
        DevicePlace {
            tenant_id: &self.tenant_id,
            farm_id: &self.farm_id,
            barn_id: &self.barn_id,
            device_id: &self.device_id,
            station_id: self.station_id.as_deref(),
        }
    }
}

/// Offers an upload. The image may be put to `upload_url` until `expires_at`.
#[utoipa::path(post, path = "/api/v1/media/images/presign", tag = "media", request_body = PresignBody,
    responses((status = 200, description = "An upload", body = Presigned),
        (status = 403, description = "SCOPE_MISMATCH, DEVICE_NOT_ALLOWED"),
        (status = 429, description = "RATE_LIMITED: the device asks too often; see Retry-After"),
        (status = 503, description = "CONFIG_ERROR, STORAGE_UNAVAILABLE"),
        (status = 507, description = "INSUFFICIENT_STORAGE")))]
pub(in crate::http) async fn presign(
    State(state): State<Arc<AppState>>,
    call: Call,
    body: JsonBody,
) -> Result<Json<Presigned>, Error> {
    let mut wish = Wish::of(&body)?;
    // What comes of the offer belongs to what the device was doing, whoever completes it.
    wish.trace_id = wish.trace_id.or_else(|| call.ids.given_trace_id());
    check_scope(&state, &call, wish.place(), wish.vocabulary).await?;
    check_named(&state, &call, wish.place(), wish.session_id.as_deref()).await?;
    let desk = &state.media;
    check_wish(desk, &wish)?;
    desk.check_bucket()?;
    if !desk.has_room().await {
        return Err(insufficient_storage());
    }
    let now = desk.completer.clock.now();
    let upload = offered(desk, wish, now);
    let offer = UploadOffer {
        media_id: upload.media_id,
        object_key: &upload.object_key,
        content_type: &upload.content_type,
        now,
        expires_at: upload.expires_at,
    };
    let upload_url = desk.completer.media.upload_url(offer).await?;
    state.store.run("media_offer", async |conn| rows::offer(conn, &upload, now).await).await?;
    metrics::media_presigned().increment(1);
    let headers = UploadHeaders { content_type: upload.content_type };
    Ok(Json(Presigned {
        object_key: upload.object_key,
        upload_url,
        expires_in: desk.settings.presign_seconds,
        method: "PUT",
        headers: headers.clone(),
        media_id: upload.media_id,
        expires_at: upload.expires_at.into(),
        required_headers: headers,
    }))
}

fn check_wish(desk: &MediaDesk, wish: &Wish) -> Result<(), Error> {
    if !CONTENT_TYPES.iter().any(|(name, _)| *name == wish.content_type) {
        let message = "content_type: must be image/jpeg, image/png or image/webp";
        return Err(Error::new(Code::UnsupportedContentType, message));
    }
    let bytes_max = desk.settings.upload_bytes_max;
    if wish.content_length.is_some_and(|bytes| bytes.unsigned_abs() > bytes_max) {
        return Err(Error::new(Code::BodyTooLarge, format!("an image may have {bytes_max} bytes")));
    }
    desk.limit.take(&wish.tenant_id, &wish.device_id).map_err(|wait| {
        let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        Error::new(Code::RateLimited, "too many upload URLs for this device").retry_after(seconds)
    })
}

fn offered(desk: &MediaDesk, wish: Wish, now: Timestamp) -> Upload {
    let bucket = desk.completer.bucket.clone();
    let owner = Owner {
        tenant_id: &wish.tenant_id,
        farm_id: &wish.farm_id,
        barn_id: &wish.barn_id,
        device_id: &wish.device_id,
    };
    let extension = name::extension(wish.filename.as_deref(), &wish.content_type);
    let object_key = owner.object_key(now, id::new_id(), &extension);
    let media_id = id::media_id(&wish.tenant_id, &bucket, &object_key);
    let captured_at = wish.captured_at.unwrap_or(now);
    let is_directory = desk.completer.media.is_directory();
    let path =
        is_directory.then(|| owner.path(wish.session_id.as_deref(), captured_at, media_id, &extension));
    Upload {
        media_id,
        tenant_id: wish.tenant_id,
        farm_id: wish.farm_id,
        barn_id: wish.barn_id,
        device_id: wish.device_id,
        station_id: wish.station_id,
        session_id: wish.session_id,
        bucket,
        object_key,
        content_type: wish.content_type,
        content_length: wish.content_length,
        captured_at: wish.captured_at,
        trace_id: wish.trace_id,
        status: UploadStatus::Presigned,
        path,
        size_bytes: None,
        sha256: None,
        expires_at: now + Duration::seconds(desk.settings.presign_seconds),
    }
}
