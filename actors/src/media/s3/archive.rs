//! A bucket as a place for backups: objects that are put, read, listed and deleted whole.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::primitives::ByteStream;

use super::{S3Settings, client, http_client, is_absent};

/// Seconds to reach the server.
const CONNECT_SECONDS_MAX: u64 = 10;
/// Seconds of silence on a connection.
const READ_SECONDS_MAX: u64 = 60;
/// Seconds of one request: 16 MiB at 60 kB/s.
const ATTEMPT_SECONDS_MAX: u64 = 300;
/// Seconds of one request with everything that is tried again.
const OPERATION_SECONDS_MAX: u64 = 900;

/// A request to the bucket failed.
#[derive(Debug, thiserror::Error)]
#[error("{attempt} in the bucket {bucket}: {reason}")]
pub struct ArchiveError {
    attempt: &'static str,
    bucket: String,
    reason: String,
}

/// A bucket.
#[derive(Clone, Debug)]
pub struct Archive {
    client: Client,
    bucket: String,
}

impl Archive {
    /// A bucket; nothing is connected yet.
    #[must_use]
    pub fn new(settings: &S3Settings) -> Self {
        let seconds = Duration::from_secs;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(seconds(CONNECT_SECONDS_MAX))
            .read_timeout(seconds(READ_SECONDS_MAX))
            .operation_attempt_timeout(seconds(ATTEMPT_SECONDS_MAX))
            .operation_timeout(seconds(OPERATION_SECONDS_MAX))
            .build();
        let client = client(settings, settings.endpoint.as_deref(), http_client(), timeouts);
        Self { client, bucket: settings.bucket.clone() }
    }

    /// Writes an object, whole or not at all.
    ///
    /// # Errors
    /// When the server does not take it.
    pub async fn put(&self, key: &str, contents: Vec<u8>) -> Result<(), ArchiveError> {
        let body = ByteStream::from(contents);
        let put = self.client.put_object().bucket(&self.bucket).key(key).body(body).send().await;
        put.map(drop).map_err(|error| self.failed("write an object", error))
    }

    /// Reads an object; `None` when there is none.
    ///
    /// # Errors
    /// When the server does not give it.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
        const ATTEMPT: &str = "read an object";
        let got = match self.client.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(got) => got,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(self.failed(ATTEMPT, error)),
        };
        let contents = got.body.collect().await;
        contents.map(|contents| Some(contents.to_vec())).map_err(|error| self.failed(ATTEMPT, error))
    }

    /// The keys that begin so.
    ///
    /// # Errors
    /// When the server does not list them.
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, ArchiveError> {
        let mut keys = Vec::new();
        let mut pages =
            self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.failed("list objects", error))?;
            keys.extend(page.contents.unwrap_or_default().into_iter().filter_map(|object| object.key));
        }
        Ok(keys)
    }

    /// Deletes an object, if it is there.
    ///
    /// # Errors
    /// When the server does not delete it.
    pub async fn delete(&self, key: &str) -> Result<(), ArchiveError> {
        match self.client.delete_object().bucket(&self.bucket).key(key).send().await {
            Ok(_) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(self.failed("delete an object", error)),
        }
    }

    fn failed(&self, attempt: &'static str, error: impl std::error::Error) -> ArchiveError {
        let reason = DisplayErrorContext(error).to_string();
        ArchiveError { attempt, bucket: self.bucket.clone(), reason }
    }
}
