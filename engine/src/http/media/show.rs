//! Images and what is known of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actors::media::name::CONTENT_TYPES;
use actors::media::store::{MediaStoreError, ObjectBody, ObjectRef, Part};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE,
    RANGE,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use schema::id::Uuid;
use schema::store::media::{self as rows, MediaObject};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use crate::http::AppState;
use crate::http::auth::Call;
use crate::http::error::{Code, Error};
use crate::http::query::Params;
use crate::http::time::Time;

/// Bytes of a megabyte, as sizes are shown.
const MEGABYTE: f64 = 1024.0 * 1024.0;
/// The type of an image whose own a browser should not act on.
const TYPE_UNKNOWN: &str = "application/octet-stream";

/// Whose images are meant.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameters that are read one by one")]
pub(in crate::http) struct TenantQuery {
    /// Tenant; as an alternative to `x-tenant-id`.
    tenant_id: Option<String>,
}

/// How wide the image is wanted.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameter that is read by hand")]
pub(in crate::http) struct WidthQuery {
    /// A small copy as JPEG, standing upright: 160, 320, 640 or 1280 pixels wide, and never wider than the image.
    #[param(example = 320)]
    width: Option<u32>,
}

/// The widths of small copies, as callers write them.
const WIDTHS: [(&str, u32); 4] = [("160", 160), ("320", 320), ("640", 640), ("1280", 1280)];

/// Which image is meant.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameters that are read one by one")]
pub(in crate::http) struct KeyQuery {
    /// Key of the image.
    object_key: String,
    /// Tenant; as an alternative to `x-tenant-id`.
    tenant_id: Option<String>,
}

/// The images of a tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"total_objects": 12, "total_size_mb": 20.7, "last_created_at": "2026-02-12T09:32:15.052Z", "tenant_id": "t-001"}))]
pub(in crate::http) struct MediaStats {
    /// How many there are.
    total_objects: i64,
    /// Their size, MiB.
    total_size_mb: f64,
    /// When the last one was completed.
    last_created_at: Option<Time>,
    /// Tenant.
    tenant_id: String,
}

/// What is known of an image.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct MediaMeta {
    media: MediaRow,
}

/// The columns of an image.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct MediaRow {
    id: Uuid,
    tenant_id: String,
    farm_id: String,
    barn_id: String,
    device_id: String,
    session_id: Option<String>,
    bucket: String,
    object_key: String,
    path: Option<String>,
    etag: Option<String>,
    mime_type: String,
    size_bytes: Option<i64>,
    sha256: Option<String>,
    /// `computed` here, or `declared` by the device.
    sha256_source: Option<String>,
    /// The hash that the device declared, where it did; when it is not `sha256`, this is not the image it meant.
    declared_sha256: Option<String>,
    captured_at: Time,
    created_at: Time,
}

impl From<MediaObject> for MediaRow {
    fn from(object: MediaObject) -> Self {
        Self {
            id: object.id,
            tenant_id: object.tenant_id,
            farm_id: object.farm_id,
            barn_id: object.barn_id,
            device_id: object.device_id,
            session_id: object.session_id,
            bucket: object.bucket,
            object_key: object.object_key,
            path: object.path,
            etag: object.etag,
            mime_type: object.mime_type,
            size_bytes: object.size_bytes,
            sha256: object.sha256,
            sha256_source: object.sha256_source,
            declared_sha256: object.declared_sha256,
            captured_at: object.captured_at.into(),
            created_at: object.created_at.into(),
        }
    }
}

/// Counts the images of a tenant.
#[utoipa::path(get, path = "/api/v1/media/stats", tag = "media", params(TenantQuery),
    responses((status = 200, description = "How many and how large", body = MediaStats)))]
pub(in crate::http) async fn media_stats(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<MediaStats>, Error> {
    let named = params.id("tenant_id");
    params.finish()?;
    let tenant_id = call.tenant(named.as_deref())?;
    let stats = state.reads.run("media_stats", async |conn| rows::stats(conn, &tenant_id).await).await?;
    Ok(Json(MediaStats {
        total_objects: stats.objects,
        total_size_mb: (stats.size_bytes as f64 / MEGABYTE * 100.0).round() / 100.0,
        last_created_at: stats.last_created_at.map(Time),
        tenant_id,
    }))
}

/// Shows an image, or a small copy of it.
#[utoipa::path(get, path = "/api/v1/media/objects/{media_id}", tag = "media",
    params(("media_id" = String, Path, description = "Id of the image"), WidthQuery, TenantQuery),
    responses((status = 200, description = "The image; 304 without a body where `if-none-match` names it", body = Vec<u8>, content_type = "image/*"),
        (status = 206, description = "The part of it that `range` asks for", body = Vec<u8>, content_type = "image/*"),
        (status = 404, description = "OBJECT_NOT_FOUND"),
        (status = 409, description = "IMAGE_UNDECODABLE: there is no small copy of it"),
        (status = 503, description = "STORAGE_UNAVAILABLE; NOT_READY: too many small copies are waited for")))]
pub(in crate::http) async fn show_media(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(media_id): Path<String>,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let width = params.one_of("width", &WIDTHS);
    let named = params.id("tenant_id");
    params.finish()?;
    let object = object(&state, &call, &media_id, named.as_deref()).await?;
    match width {
        Some(width) => small_copy(&state, object, width, &headers).await,
        None => bytes(&state, object, &headers).await,
    }
}

/// Shows an image by its key.
#[utoipa::path(get, path = "/api/v1/media/objects/by-key", tag = "media", params(KeyQuery),
    responses((status = 200, description = "The image; 304 without a body where `if-none-match` names it", body = Vec<u8>, content_type = "image/*"),
        (status = 206, description = "The part of it that `range` asks for", body = Vec<u8>, content_type = "image/*"),
        (status = 404, description = "OBJECT_NOT_FOUND"),
        (status = 503, description = "STORAGE_UNAVAILABLE")))]
pub(in crate::http) async fn show_by_key(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let tenant_id = tenant(&call, &mut params)?;
    let key = params.text("object_key").filter(|key| !key.contains('\0'));
    params.finish()?;
    let key = key.ok_or_else(|| Error::validation("object_key: is required"))?;
    let bucket = &state.media.completer.bucket;
    let found = state
        .reads
        .run("media_object", async |conn| rows::object_of_key(conn, tenant_id.as_deref(), bucket, &key).await)
        .await?;
    bytes(&state, found.ok_or_else(absent)?, &headers).await
}

/// Shows what is known of an image.
#[utoipa::path(get, path = "/api/v1/media/objects/{media_id}/meta", tag = "media",
    params(("media_id" = String, Path, description = "Id of the image"), TenantQuery),
    responses((status = 200, description = "Its columns", body = MediaMeta),
        (status = 404, description = "OBJECT_NOT_FOUND")))]
pub(in crate::http) async fn media_meta(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(media_id): Path<String>,
    mut params: Params,
) -> Result<Json<MediaMeta>, Error> {
    let named = params.id("tenant_id");
    params.finish()?;
    let object = object(&state, &call, &media_id, named.as_deref()).await?;
    Ok(Json(MediaMeta { media: object.into() }))
}

fn tenant(call: &Call, params: &mut Params) -> Result<Option<String>, Error> {
    let named = params.id("tenant_id");
    call.read_tenant(named.as_deref())
}

/// The image of this id, if the caller may see it; an id that is none and a foreign one answer the same.
async fn object(
    state: &AppState,
    call: &Call,
    media_id: &str,
    named: Option<&str>,
) -> Result<MediaObject, Error> {
    let tenant_id = call.read_tenant(named)?;
    let media_id = Uuid::try_parse(media_id).map_err(|_| absent())?;
    let found = state
        .reads
        .run("media_object", async |conn| rows::object(conn, tenant_id.as_deref(), media_id).await)
        .await?;
    found.ok_or_else(absent)
}

fn absent() -> Error {
    Error::new(Code::ObjectNotFound, "there is no such image")
}

/// A small copy of an image, which a browser may keep for a day: nothing here is ever changed.
async fn small_copy(
    state: &AppState,
    object: MediaObject,
    width: u32,
    headers: &HeaderMap,
) -> Result<Response, Error> {
    let etag =
        object.etag.as_ref().and_then(|etag| HeaderValue::try_from(format!("\"{etag}-{width}\"")).ok());
    if let Some(etag) = etag.as_ref().filter(|etag| names(headers.get(IF_NONE_MATCH), etag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, etag.clone())]).into_response());
    }
    let place = ObjectRef { object_key: object.object_key, path: object.path };
    let copy = state.media.thumbnails.show(state.media.completer.media.as_ref(), &place, width).await?;
    let kept = [(CONTENT_TYPE, "image/jpeg"), (CACHE_CONTROL, "private, max-age=86400")];
    let mut response = (kept, copy).into_response();
    if let Some(etag) = etag {
        response.headers_mut().insert(ETAG, etag);
    }
    Ok(response)
}

async fn bytes(state: &AppState, object: MediaObject, headers: &HeaderMap) -> Result<Response, Error> {
    let etag = object.etag.as_ref().and_then(|etag| HeaderValue::try_from(format!("\"{etag}\"")).ok());
    if let Some(etag) = etag.as_ref().filter(|etag| names(headers.get(IF_NONE_MATCH), etag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, etag.clone())]).into_response());
    }
    let size_bytes = object.size_bytes.and_then(|bytes| u64::try_from(bytes).ok());
    let is_same = headers.get(IF_RANGE).is_none_or(|wanted| Some(wanted) == etag.as_ref());
    let wanted = headers.get(RANGE).filter(|_| is_same).and_then(|range| range.to_str().ok());
    let part = wanted.zip(size_bytes).and_then(|(range, size_bytes)| part(range, size_bytes));
    let part = part.unwrap_or(Part::Whole);
    let place = ObjectRef { object_key: object.object_key, path: object.path };
    let open = state.media.completer.media.open(&place, part).await?.ok_or_else(absent)?;
    let is_image = CONTENT_TYPES.iter().any(|(name, _)| *name == object.mime_type);
    let mime_type = if is_image { object.mime_type } else { TYPE_UNKNOWN.to_owned() };
    let whole_bytes = open.meta.size_bytes;
    let sent_bytes = part.bytes_of(whole_bytes);
    let headers = [
        (CONTENT_TYPE, mime_type),
        (CONTENT_LENGTH, sent_bytes.to_string()),
        (ACCEPT_RANGES, "bytes".to_owned()),
    ];
    let mut response = (headers, Body::new(Chunks::new(open.body, sent_bytes))).into_response();
    if let Part::Range { first, last } = part {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {first}-{last}/{whole_bytes}");
        response.headers_mut().insert(CONTENT_RANGE, range.parse().expect("numbers are plain text"));
    }
    if let Some(etag) = etag {
        response.headers_mut().insert(ETAG, etag);
    }
    Ok(response)
}

/// Whether a list of entity tags names this one. A weak one will do, since nothing here is ever changed.
fn names(list: Option<&HeaderValue>, etag: &HeaderValue) -> bool {
    let tags = list.and_then(|list| list.to_str().ok()).into_iter().flat_map(|list| list.split(','));
    let mut tags = tags.map(|tag| tag.trim().trim_start_matches("W/"));
    tags.any(|tag| tag == "*" || tag.as_bytes() == etag.as_bytes())
}

/// The one part that is asked for. Several, and those that make no sense or lie behind the end, are answered with the
/// whole, as one that asks for none.
fn part(range: &str, size_bytes: u64) -> Option<Part> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let end = size_bytes.checked_sub(1)?;
    let (first, last) = match (first.parse().ok(), last.parse::<u64>().ok()) {
        (Some(first), Some(last)) => (first, last.min(end)),
        (Some(first), None) if last.is_empty() => (first, end),
        // The last so many bytes.
        (None, Some(bytes)) if first.is_empty() && bytes > 0 => (size_bytes.saturating_sub(bytes), end),
        _ => return None,
    };
    (first <= last).then_some(Part::Range { first, last })
}

type Chunk = (Box<dyn ObjectBody>, Result<Option<Bytes>, MediaStoreError>);

/// The bytes of an image as the body of an answer, read no faster than they are sent.
struct Chunks {
    next: Pin<Box<dyn Future<Output = Chunk> + Send>>,
    left_bytes: u64,
}

impl Chunks {
    fn new(body: Box<dyn ObjectBody>, left_bytes: u64) -> Self {
        Self { next: Self::read(body), left_bytes }
    }

    fn read(mut body: Box<dyn ObjectBody>) -> Pin<Box<dyn Future<Output = Chunk> + Send>> {
        Box::pin(async move {
            let chunk = body.chunk().await;
            (body, chunk)
        })
    }
}

impl hyper::body::Body for Chunks {
    type Data = Bytes;
    type Error = MediaStoreError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, MediaStoreError>>> {
        if self.left_bytes == 0 {
            return Poll::Ready(None);
        }
        let (body, chunk) = ready!(self.next.as_mut().poll(context));
        Poll::Ready(match chunk {
            Ok(Some(mut chunk)) => {
                // A file that grows while it is read does not overrun the length that was said.
                chunk.truncate(usize::try_from(self.left_bytes).unwrap_or(usize::MAX));
                self.left_bytes -= chunk.len() as u64;
                self.next = Self::read(body);
                Some(Ok(Frame::data(chunk)))
            }
            Ok(None) => {
                let ended = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                Some(Err(MediaStoreError::unavailable("read an image", ended)))
            }
            Err(error) => Some(Err(error)),
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left_bytes)
    }
}
