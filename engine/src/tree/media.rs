//! The place of the images, as the configuration names it.

use std::sync::Arc;

use actors::media::filesystem::{FilesystemSettings, FilesystemStore};
use actors::media::s3::{S3Settings, S3Store};
use actors::media::store::MediaStore;
use actors::media::thumbnail::Thumbnails;

use crate::config::{Config, KeptError, MediaBackend, Secret, Url};
use crate::first_keys::{self, UPLOAD_SECRET};

/// The store of a configuration: its directory, if it has one, or its bucket. Nothing is connected yet.
pub(crate) fn store(config: &Config, directory: Option<&FilesystemStore>) -> Arc<dyn MediaStore> {
    match directory {
        Some(directory) => Arc::new(directory.clone()),
        None => Arc::new(S3Store::new(&bucket(config))),
    }
}

/// The directory of a configuration; `None` when its images go to a bucket.
pub(crate) fn directory(config: &Config) -> Result<Option<FilesystemStore>, KeptError> {
    match config.media.backend_in_use() {
        MediaBackend::S3 => Ok(None),
        MediaBackend::Filesystem => Ok(Some(FilesystemStore::new(directory_settings(config)?))),
    }
}

/// Small copies of images, in a directory of this engine.
pub(crate) fn thumbnails(config: &Config) -> Thumbnails {
    Thumbnails::new(config.edge.data_dir.join("thumbnails"), config.media.thumbnail_bytes_max)
}

fn bucket(config: &Config) -> S3Settings {
    let media = &config.media;
    let text = |secret: &Option<Secret>| {
        secret.as_ref().map(|secret| secret.expose().to_owned()).unwrap_or_default()
    };
    let address = |url: &Option<Url>| url.as_ref().map(|url| url.as_str().to_owned());
    let endpoint = address(&media.endpoint);
    S3Settings {
        presign_endpoint: address(&media.presign_endpoint).or_else(|| endpoint.clone()),
        endpoint,
        access_key: text(&media.access_key),
        secret_key: text(&media.secret_key),
        region: media.region.clone(),
        bucket: media.bucket.clone(),
        is_bucket_made: media.bucket_auto_create,
    }
}

fn directory_settings(config: &Config) -> Result<FilesystemSettings, KeptError> {
    let media = &config.media;
    let secret = match &media.upload_secret {
        Some(secret) => secret.clone(),
        None => first_keys::kept(&config.edge.data_dir, UPLOAD_SECRET)?,
    };
    Ok(FilesystemSettings {
        root: media.root.clone(),
        public_base_url: media.public_base_url.as_str().trim_end_matches('/').to_owned(),
        upload_secret: secret.expose().to_owned(),
    })
}
