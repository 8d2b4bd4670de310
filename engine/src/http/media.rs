//! Images over HTTP: uploads offered, received and completed; images shown.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use actors::disk;
use actors::media::completion::{Completer, CompletionError};
use actors::media::filesystem::FilesystemStore;
use actors::media::limit::OfferLimit;
use actors::media::store::MediaStoreError;
use actors::media::thumbnail::{ThumbnailError, Thumbnails};
use schema::metrics;
use tokio::sync::Semaphore;

use super::AppState;
use super::auth::{Call, DevicePlace, tenant_mismatch};
use super::error::{Code, Error};
use super::fields::Vocabulary;
use crate::config::Config;
use crate::parts::Parts;

mod complete;
mod presign;
mod show;
mod upload;

pub(super) use complete::{__path_complete, complete};
pub(super) use presign::{__path_presign, presign};
pub(super) use show::{
    __path_media_meta, __path_media_stats, __path_show_by_key, __path_show_media, media_meta, media_stats,
    show_by_key, show_media,
};
pub(super) use upload::{__path_upload, upload};

/// Bytes of a gibibyte.
const GIB: u64 = 1 << 30;

/// Uploads that are in memory at a time, to see whether they are pictures.
const PICTURE_CHECKS_MAX: usize = 2;

/// What the handlers of images work with.
pub(super) struct MediaDesk {
    completer: Completer,
    /// Takes uploads, when images lie in a directory.
    directory: Option<FilesystemStore>,
    thumbnails: Thumbnails,
    limit: OfferLimit,
    /// Turns of uploads that are looked at.
    picture_checks: Semaphore,
    settings: MediaSettings,
}

/// What the configuration says of images.
struct MediaSettings {
    root: PathBuf,
    presign_seconds: i64,
    upload_bytes_max: u64,
    free_bytes_min: u64,
}

impl MediaDesk {
    /// The desk of an engine that is made of `parts`.
    pub(super) fn of(config: &Config, parts: &Parts) -> Self {
        let media = &config.media;
        Self {
            completer: Completer { store: parts.calls.clone(), ..parts.completer(config) },
            directory: parts.directory.clone(),
            thumbnails: parts.thumbnails.clone(),
            limit: OfferLimit::new(NonZeroU32::new(media.presign_per_minute).unwrap_or(NonZeroU32::MIN)),
            picture_checks: Semaphore::new(PICTURE_CHECKS_MAX),
            settings: MediaSettings {
                root: media.root.clone(),
                presign_seconds: i64::try_from(media.presign_seconds).unwrap_or(i64::MAX),
                upload_bytes_max: media.upload_bytes_max,
                free_bytes_min: config.retention.free_disk_gb_min.saturating_mul(GIB),
            },
        }
    }

    /// Where images lie: `s3` or `filesystem`.
    pub(super) fn backend(&self) -> &'static str {
        if self.completer.media.is_directory() { "filesystem" } else { "s3" }
    }

    /// Whether the volume of a directory has room; a bucket looks after itself.
    pub(super) async fn has_room(&self) -> bool {
        if !self.completer.media.is_directory() {
            return true;
        }
        let root = self.settings.root.clone();
        let space = tokio::task::spawn_blocking(move || disk::space(&root)).await;
        let space = space.expect("asking a volume does not panic");
        // A volume that cannot be asked says more when it is written to.
        !space.is_ok_and(|space| space.free_bytes < self.settings.free_bytes_min)
    }

    fn check_bucket(&self) -> Result<(), Error> {
        if self.completer.bucket.is_empty() {
            return Err(Error::new(Code::ConfigError, "media.bucket is not set"));
        }
        Ok(())
    }
}

/// Checks a call for images of a device. A body in `snake_case` needs the tenant's header in compat mode, as devices of
/// that vocabulary have always sent it.
async fn check_scope(
    state: &Arc<AppState>,
    call: &Call,
    place: DevicePlace<'_>,
    vocabulary: Vocabulary,
) -> Result<(), Error> {
    if call.is_compat() && vocabulary == Vocabulary::Snake && call.tenant_header.is_none() {
        return Err(tenant_mismatch());
    }
    call.check_device(state, place).await
}

impl From<MediaStoreError> for Error {
    fn from(error: MediaStoreError) -> Self {
        let answer = match &error {
            MediaStoreError::Unavailable { .. } => {
                Self::new(Code::StorageUnavailable, "the store of the images does not answer")
            }
            MediaStoreError::Full { .. } => insufficient_storage(),
        };
        Self { cause: Some(Arc::new(error)), ..answer }
    }
}

impl From<CompletionError> for Error {
    fn from(error: CompletionError) -> Self {
        match error {
            CompletionError::Absent => Self::new(Code::ObjectNotFound, "the image is not in the store"),
            CompletionError::Foreign => super::auth::scope_mismatch(),
            CompletionError::SizeMismatch { stored } => {
                Self::new(Code::SizeMismatch, format!("size_bytes: the stored image has {stored} bytes"))
            }
            CompletionError::TypeMismatch { stored } => {
                Self::new(Code::ContentTypeMismatch, format!("mime_type: the stored image is {stored}"))
            }
            CompletionError::NoPicture(fault) => {
                Self::new(Code::ContentTypeMismatch, format!("what is in the store is no image: {fault}"))
            }
            CompletionError::Unsteady => Self::new(Code::StorageUnavailable, "the image is being replaced"),
            CompletionError::Media(error) => error.into(),
            CompletionError::Store(error) => error.into(),
        }
    }
}

impl From<ThumbnailError> for Error {
    fn from(error: ThumbnailError) -> Self {
        match error {
            ThumbnailError::Absent => Self::new(Code::ObjectNotFound, "there is no such image"),
            ThumbnailError::Busy => Self::new(Code::NotReady, error.to_string()),
            ThumbnailError::Refused(refusal) => {
                let text =
                    format!("there is no small copy: {refusal}; without width the image is sent as it is");
                Self { cause: Some(Arc::new(refusal)), ..Self::new(Code::ImageUndecodable, text) }
            }
            ThumbnailError::DecoderFailed => Self::new(Code::ImageUndecodable, error.to_string()),
            ThumbnailError::Media(error) => error.into(),
        }
    }
}

fn insufficient_storage() -> Error {
    Error::new(Code::InsufficientStorage, "the volume of the images is nearly full")
}

/// Counts an upload URL that was refused.
fn refused_url(code: Code, reason: &'static str, message: &'static str) -> Error {
    metrics::auth_refused(reason).increment(1);
    Error::new(code, message)
}
