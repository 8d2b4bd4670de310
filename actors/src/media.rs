//! Images: offered uploads, completed objects, and the store they lie in.

use schema::metrics;
use schema::store::media::MediaObject;

pub mod completion;
pub mod filesystem;
pub mod limit;
pub mod name;
pub mod rights;
pub mod s3;
pub mod store;
pub mod thumbnail;
pub mod watch;

/// Counts an image that is not the one its device declared, and says so. It is kept: nobody else has it.
pub(crate) fn report_other_than_declared(image: &MediaObject) {
    metrics::media_sha256_mismatch().increment(1);
    let MediaObject { id: media_id, tenant_id, device_id, session_id, object_key, .. } = image;
    tracing::warn!(%media_id, tenant_id, device_id, session_id, object_key, "image is not the one its device declared");
}
