//! The place of the images, behind one face: a directory or a bucket.

use async_trait::async_trait;
use bytes::Bytes;

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
    /// Its entity tag, without quotes.
    pub etag: Option<String>,
    /// Its type, where the store keeps one.
    pub content_type: Option<String>,
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
}

/// The bytes of an image, chunk by chunk.
#[async_trait]
pub trait ObjectBody: Send {
    /// The next chunk; `None` at the end.
    async fn chunk(&mut self) -> Result<Option<Bytes>, MediaStoreError>;
}

/// An image that is being read.
pub struct OpenObject {
    /// What the store says of it.
    pub meta: ObjectMeta,
    /// Its bytes.
    pub body: Box<dyn ObjectBody>,
}

/// A backend.
#[async_trait]
pub trait MediaStore: Send + Sync {
    /// What the store says of an image; `None` when it is not there.
    async fn head(&self, object: &ObjectRef) -> Result<Option<ObjectMeta>, MediaStoreError>;

    /// Opens an image for reading; `None` when it is not there.
    async fn open(&self, object: &ObjectRef) -> Result<Option<OpenObject>, MediaStoreError>;

    /// Deletes an image and returns how many bytes that freed; `None` when it was not there.
    async fn delete(&self, object: &ObjectRef) -> Result<Option<u64>, MediaStoreError>;

    /// Whether the store is usable: the bucket is there, the directory writable.
    async fn probe(&self) -> Result<(), MediaStoreError>;
}
