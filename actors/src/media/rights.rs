//! Tries what the engine needs of a store of images, one thing after the other.

use bytes::Bytes;
use schema::clock::{Clock, Timestamp};
use schema::id;

use super::store::{MediaStore, MediaStoreError, ObjectRef, Part, UploadOffer};

/// Minutes for which the upload URL of the trial is good.
const OFFER_MINUTES: i64 = 5;

/// What the engine does with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Ask whether the bucket or directory is there.
    Reach,
    /// Ask whether an image is there, and be told that it is not.
    Look,
    /// List the images.
    List,
    /// Put an image, as a device does with the URL it is given.
    Write,
    /// Get it back.
    Read,
    /// Delete it.
    Delete,
}

impl Right {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reach => "reach",
            Self::Look => "look for an image in",
            Self::List => "list",
            Self::Write => "write to",
            Self::Read => "read from",
            Self::Delete => "delete from",
        }
    }
}

/// Tries the rights in their order, in a bucket with an object of its own that is deleted again. A directory is only
/// looked at: whoever may write there may do the rest.
///
/// # Errors
/// The first that is missing, and why.
pub async fn try_rights(store: &dyn MediaStore, clock: &Clock) -> Result<(), (Right, MediaStoreError)> {
    let of = |right| move |error| (right, error);
    store.probe().await.map_err(of(Right::Reach))?;
    if store.is_directory() {
        return Ok(());
    }
    let object = ObjectRef { object_key: format!(".farmiq-probe-{}", id::new_id()), path: None };
    store.head(&object).await.map_err(of(Right::Look))?;
    store.list(None, 1).await.map_err(of(Right::List))?;
    put(store, &object, clock.now()).await.map_err(of(Right::Write))?;
    let read = store.open(&object, Part::Whole).await.map_err(of(Right::Read));
    store.delete(&object).await.map_err(of(Right::Delete))?;
    read.map(drop)
}

async fn put(store: &dyn MediaStore, object: &ObjectRef, now: Timestamp) -> Result<(), MediaStoreError> {
    const ATTEMPT: &str = "put an object with an upload URL";
    let offer = UploadOffer {
        media_id: id::new_id(),
        object_key: &object.object_key,
        content_type: "image/jpeg",
        now,
        expires_at: now + chrono::TimeDelta::minutes(OFFER_MINUTES),
    };
    let url = store.upload_url(offer).await?;
    // An error means that somebody has installed a provider before; there is only one in this program.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let put = async {
        let client = reqwest::Client::builder().no_proxy().build()?;
        client.put(url).body(Bytes::from_static(b"probe")).send().await?.error_for_status()
    };
    // The URL holds a signature.
    put.await.map(drop).map_err(|error| MediaStoreError::unavailable(ATTEMPT, error.without_url()))
}
