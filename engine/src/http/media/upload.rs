//! `PUT /api/v1/media/uploads/{media_id}`: bytes of an image for a directory, under a signed URL.

use std::sync::Arc;

use actors::media::completion::Received;
use actors::media::filesystem::{Draft, FilesystemStore, SignedUpload};
use actors::picture;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderName};
use http_body_util::BodyExt;
use schema::id::Uuid;
use schema::store::media::{self as rows, Upload};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::{MediaDesk, insufficient_storage, refused_url};
use crate::http::AppState;
use crate::http::error::{Code, Error};
use crate::http::query::Params;

/// The rest of an upload URL.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameters that are read one by one")]
pub(in crate::http) struct UploadQuery {
    /// When the URL expires, seconds since the epoch.
    expires: i64,
    /// What presign wrote.
    signature: String,
}

/// An empty object.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Nothing {}

/// Takes an image under an URL of presign. Until the image is complete, a repeated upload replaces it.
#[utoipa::path(put, path = "/api/v1/media/uploads/{media_id}", tag = "media",
    params(("media_id" = String, Path, description = "Id of the image"), UploadQuery),
    request_body(content = Vec<u8>, content_type = "image/*", description = "The image as it is"),
    responses((status = 200, description = "The image is stored; its ETag is in the header", body = Nothing),
        (status = 400, description = "VALIDATION_ERROR: the body ended too early, has another length than was announced, \
            is no image of the offered type, or only a part of one; nothing of it is kept"),
        (status = 403, description = "SIGNATURE_INVALID, URL_EXPIRED"),
        (status = 404, description = "NOT_FOUND: images go to a bucket"),
        (status = 409, description = "CONTENT_TYPE_MISMATCH, ALREADY_COMPLETED"),
        (status = 413, description = "BODY_TOO_LARGE"),
        (status = 503, description = "STORAGE_UNAVAILABLE"),
        (status = 507, description = "INSUFFICIENT_STORAGE")))]
pub(in crate::http) async fn upload(
    State(state): State<Arc<AppState>>,
    Path(media_id): Path<String>,
    mut params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<([(HeaderName, String); 1], Json<Nothing>), Error> {
    let directory = state.media.directory.as_ref();
    let directory = directory.ok_or_else(|| Error::new(Code::NotFound, "images go to a bucket, not here"))?;
    let upload = signed_upload(&state, directory, &media_id, &mut params).await?;
    check_headers(&headers, &upload, state.media.settings.upload_bytes_max)?;
    if !state.media.has_room().await {
        return Err(insufficient_storage());
    }
    let mut draft = write(directory, &upload, body, state.media.settings.upload_bytes_max).await?;
    state.media.check_picture(&upload, &mut draft).await?;
    let draft = draft.finish().await?;
    let etag = format!("\"{}\"", draft.written.sha256);
    match state.media.completer.receive(&upload, draft).await? {
        Received::Stored | Received::Same => Ok(([(ETAG, etag)], Json(Nothing {}))),
        Received::Different => {
            Err(Error::new(Code::AlreadyCompleted, "another image was completed under this URL"))
        }
    }
}

/// The upload of an URL that we signed and that lives. What is no URL of ours and what is forged answer the same.
async fn signed_upload(
    state: &AppState,
    directory: &FilesystemStore,
    media_id: &str,
    params: &mut Params,
) -> Result<Upload, Error> {
    let invalid = || refused_url(Code::SignatureInvalid, "signature", "the upload URL is not one of ours");
    let media_id = Uuid::try_parse(media_id).map_err(|_| invalid())?;
    let expires: i64 = params.text("expires").and_then(|text| text.parse().ok()).ok_or_else(invalid)?;
    let signature = params.text("signature").ok_or_else(invalid)?;
    let upload = state.reads.run("media_upload", async |conn| rows::upload(conn, media_id).await).await?;
    let upload = upload.ok_or_else(invalid)?;
    let signed = SignedUpload {
        media_id,
        object_key: &upload.object_key,
        content_type: &upload.content_type,
        expires,
    };
    if !directory.is_signed(signed, &signature) {
        return Err(invalid());
    }
    if expires <= state.clock.now().timestamp() {
        return Err(refused_url(
            Code::UrlExpired,
            "url_expired",
            "the upload URL has expired; ask for another",
        ));
    }
    Ok(upload)
}

fn check_headers(headers: &HeaderMap, upload: &Upload, bytes_max: u64) -> Result<(), Error> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(sent) = headers.get(CONTENT_TYPE) {
        let essence = sent.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case(&upload.content_type) {
            let message = format!("content-type: the upload was offered for {}", upload.content_type);
            return Err(Error::new(Code::ContentTypeMismatch, message));
        }
    }
    let declared: Option<u64> = text(CONTENT_LENGTH).and_then(|text| text.parse().ok());
    if declared.is_some_and(|bytes| bytes > bytes_max) {
        return Err(too_large(bytes_max));
    }
    declared.map_or(Ok(()), |bytes| check_length(upload, bytes))
}

/// An upload has the length that was announced with the wish for it. A length of 0 announces nothing.
fn check_length(upload: &Upload, bytes: u64) -> Result<(), Error> {
    match upload.content_length.filter(|announced| *announced > 0) {
        Some(announced) if announced.unsigned_abs() != bytes => {
            Err(Error::validation(format!("body: {announced} bytes were announced, these are {bytes}")))
        }
        Some(_) | None => Ok(()),
    }
}

/// Writes the body beside the image's place, and no more of it than an image may have.
async fn write(
    directory: &FilesystemStore,
    upload: &Upload,
    mut body: Body,
    bytes_max: u64,
) -> Result<Draft, Error> {
    let path = upload.path.as_deref();
    let path = path.ok_or_else(|| Error::new(Code::NotFound, "the upload was offered for a bucket"))?;
    let mut draft = directory.begin(path).await?;
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Error::validation("body: ended too early"))?;
        let Some(chunk) = frame.data_ref() else { continue };
        bytes += chunk.len() as u64;
        if bytes > bytes_max {
            return Err(too_large(bytes_max));
        }
        draft.write(chunk).await?;
    }
    check_length(upload, bytes)?;
    Ok(draft)
}

impl MediaDesk {
    /// Whether what came is a picture of the offered type, and all of it. What is not leaves no trace, so that the next
    /// upload finds the place as this one found it.
    async fn check_picture(&self, upload: &Upload, draft: &mut Draft) -> Result<(), Error> {
        // Few at a time, since each is in memory meanwhile.
        let _turn = self.picture_checks.acquire().await.expect("nobody closes it");
        let bytes = draft.content().await?;
        let found = tokio::task::spawn_blocking(move || picture::check(&bytes)).await;
        let found = found.map_err(|_| Error::validation("body: the image is broken"))?;
        let found = found.map_err(|fault| Error::validation(format!("body: {fault}")))?;
        if found.content_type() != upload.content_type {
            let (is, offered) = (found.content_type(), &upload.content_type);
            return Err(Error::validation(format!("body: is {is}, the upload was offered for {offered}")));
        }
        Ok(())
    }
}

fn too_large(bytes_max: u64) -> Error {
    Error::new(Code::BodyTooLarge, format!("an image may have {bytes_max} bytes"))
}
