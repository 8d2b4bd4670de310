//! The bytes of a stored picture, within the limits of inference.

use bytes::BytesMut;

use super::image::{IMAGE_BYTES_MAX, ImageRefusal};
use crate::media::store::{MediaStore, MediaStoreError, ObjectRef, Part};

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub(super) enum BytesError {
    /// It is not there.
    #[error("the image is not in the store")]
    Gone,
    /// It is larger than an image may be.
    #[error(transparent)]
    Refused(#[from] ImageRefusal),
    /// Half an answer says nothing of the image.
    #[error("{came} of {of} bytes came")]
    Cut {
        /// Bytes that came.
        came: usize,
        /// Bytes that there are.
        of: u64,
    },
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] MediaStoreError),
}

/// Reads a picture as a whole.
///
/// # Errors
/// [`BytesError`].
pub(super) async fn read(media: &dyn MediaStore, object: &ObjectRef) -> Result<Vec<u8>, BytesError> {
    let mut open = media.open(object, Part::Whole).await?.ok_or(BytesError::Gone)?;
    let bytes_max = IMAGE_BYTES_MAX as u64;
    if open.meta.size_bytes > bytes_max {
        return Err(ImageRefusal::TooManyBytes { bytes: open.meta.size_bytes }.into());
    }
    let mut bytes = BytesMut::new();
    while let Some(chunk) = open.body.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > IMAGE_BYTES_MAX {
            return Err(ImageRefusal::TooManyBytes { bytes: bytes.len() as u64 }.into());
        }
    }
    if bytes.len() as u64 != open.meta.size_bytes {
        return Err(BytesError::Cut { came: bytes.len(), of: open.meta.size_bytes });
    }
    Ok(bytes.into())
}
