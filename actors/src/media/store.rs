//! The place of the images, behind one face: a directory or a bucket.

use async_trait::async_trait;
use bytes::Bytes;
use schema::clock::Timestamp;
use schema::id::Uuid;

/// The name of the store's marker, which says whose images lie here: at the root of a directory, or a key of a bucket.
pub const MARKER: &str = ".farmiq-store";
/// Bytes of a marker that are read at most.
pub const MARKER_BYTES_MAX: usize = 64 * 1024;

/// An image in the store, by every name it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRef {
    /// Its key, which is its identity on the wire with either backend.
    pub object_key: String,
    /// Where it lies below the root, with the filesystem backend.
    pub path: Option<String>,
}

/// What the store says of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its size.
    pub size_bytes: u64,
    /// Its entity tag, without quotes, where the store keeps one.
    pub etag: Option<String>,
    /// Its type, where the store keeps one.
    pub content_type: Option<String>,
}

/// A file or an object that a listing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    /// Its key in a bucket, its path below the root of a directory; the next listing goes on after it.
    pub place: String,
    /// Its size.
    pub size_bytes: u64,
    /// When it was last written.
    pub modified_at: Timestamp,
}

impl ListedObject {
    /// The name under which its own store deletes it.
    #[must_use]
    pub fn object(&self) -> ObjectRef {
        ObjectRef { object_key: self.place.clone(), path: Some(self.place.clone()) }
    }
}

/// An upload that is offered to a device.
#[derive(Clone, Copy, Debug)]
pub struct UploadOffer<'a> {
    /// The image that is to come.
    pub media_id: Uuid,
    /// Its key.
    pub object_key: &'a str,
    /// Its type.
    pub content_type: &'a str,
    /// When the offer is made.
    pub now: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// Why the store did not do what was asked. That an image is absent is no error.
#[derive(Debug, thiserror::Error)]
pub enum MediaStoreError {
    /// The store does not answer, or not as a store does. Trying again may help.
    #[error("{attempt}")]
    Unavailable {
        /// What was tried.
        attempt: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store has no room left. Trying again helps once there is some.
    #[error("{attempt}: no room left")]
    Full {
        /// What was tried.
        attempt: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

impl MediaStoreError {
    /// A store that cannot be used, and what was tried.
    pub fn unavailable(
        attempt: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unavailable { attempt, source: source.into() }
    }
}

/// The bytes of an image, chunk by chunk.
#[async_trait]
pub trait ObjectBody: Send {
    /// The next chunk; `None` at the end.
    async fn chunk(&mut self) -> Result<Option<Bytes>, MediaStoreError>;
}

/// Which bytes of an image are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of them.
    Whole,
    /// From the first to the last of these, both of which it has.
    Range {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
}

impl Part {
    pub(super) fn first_byte(self) -> u64 {
        match self {
            Self::Whole => 0,
            Self::Range { first, .. } => first,
        }
    }

    /// How many bytes that is of an image of this size.
    #[must_use]
    pub fn bytes_of(self, size_bytes: u64) -> u64 {
        match self {
            Self::Whole => size_bytes,
            Self::Range { first, last } => size_bytes.min(last.saturating_add(1)).saturating_sub(first),
        }
    }
}

/// An image that is being read.
pub struct OpenObject {
    /// What the store says of the whole of it.
    pub meta: ObjectMeta,
    /// The bytes that are wanted.
    pub body: Box<dyn ObjectBody>,
}

/// The text of a store's marker; `None` without one.
///
/// # Errors
/// When the store fails.
pub async fn marker(store: &dyn MediaStore) -> Result<Option<String>, MediaStoreError> {
    let object = ObjectRef { object_key: MARKER.to_owned(), path: Some(MARKER.to_owned()) };
    let Some(mut open) = store.open(&object, Part::Whole).await? else { return Ok(None) };
    let mut text = Vec::new();
    while let Some(chunk) = open.body.chunk().await?.filter(|_| text.len() < MARKER_BYTES_MAX) {
        text.extend_from_slice(&chunk);
    }
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}

/// A backend.
#[async_trait]
pub trait MediaStore: Send + Sync {
    /// Where a device may put an image.
    async fn upload_url(&self, offer: UploadOffer<'_>) -> Result<String, MediaStoreError>;

    /// What the store says of an image; `None` when it is not there.
    async fn head(&self, object: &ObjectRef) -> Result<Option<ObjectMeta>, MediaStoreError>;

    /// Opens an image for reading; `None` when it is not there.
    async fn open(&self, object: &ObjectRef, part: Part) -> Result<Option<OpenObject>, MediaStoreError>;

    /// Deletes an image and returns how many bytes that freed; `None` when it was not there.
    async fn delete(&self, object: &ObjectRef) -> Result<Option<u64>, MediaStoreError>;

    /// At most `limit` (1 to 1000) of the objects behind the place `after`, in the store's own unchanging order. Fewer
    /// means that there are no more.
    async fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<ListedObject>, MediaStoreError>;

    /// Replaces the marker ([`MARKER`]).
    async fn put_marker(&self, text: &str) -> Result<(), MediaStoreError>;

    /// Whether the store is usable: the bucket is there, the directory writable.
    async fn probe(&self) -> Result<(), MediaStoreError>;

    /// Whether it is a directory, whose uploads come through the engine.
    fn is_directory(&self) -> bool {
        false
    }
}
