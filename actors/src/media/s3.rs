//! Images in a bucket of an S3-compatible server.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedHttpClient,
};
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use bytes::Bytes;
use schema::clock::Timestamp;

use super::store::{
    ListedObject, MARKER, MediaStore, MediaStoreError, ObjectBody, ObjectMeta, ObjectRef, OpenObject, Part,
    UploadOffer,
};

pub mod archive;
mod fault;

use fault::{Fault, Faults};

/// Seconds to reach the server.
const CONNECT_SECONDS_MAX: u64 = 3;
/// Seconds of silence on a connection.
const READ_SECONDS_MAX: u64 = 10;
/// Seconds of one request up to the head of its answer.
const ATTEMPT_SECONDS_MAX: u64 = 10;
/// Seconds of one request with everything that is tried again.
const OPERATION_SECONDS_MAX: u64 = 20;
/// Requests until one succeeds; whoever asks has retries of its own.
const ATTEMPTS_MAX: u32 = 2;

/// How to reach the server.
#[derive(Clone)]
pub struct S3Settings {
    /// Its address as the engine sees it; `None` means that of its region.
    pub endpoint: Option<String>,
    /// Its address as devices see it; `None` means that of its region.
    pub presign_endpoint: Option<String>,
    /// Name of our credential.
    pub access_key: String,
    /// Our credential: never logged.
    pub secret_key: String,
    /// Its region.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// Whether a missing bucket is made.
    pub is_bucket_made: bool,
}

/// A bucket of images.
pub struct S3Store {
    client: Client,
    presigner: Client,
    bucket: String,
    is_bucket_made: bool,
    faults: Faults,
}

impl S3Store {
    /// A store in a bucket; nothing is connected yet.
    #[must_use]
    pub fn new(settings: &S3Settings) -> Self {
        let http = http_client();
        Self {
            client: client(settings, settings.endpoint.as_deref(), http.clone(), timeouts()),
            presigner: client(settings, settings.presign_endpoint.as_deref(), http, timeouts()),
            bucket: settings.bucket.clone(),
            is_bucket_made: settings.is_bucket_made,
            faults: Faults::default(),
        }
    }

    async fn make_bucket(&self) -> Result<(), MediaStoreError> {
        match self.client.create_bucket().bucket(&self.bucket).send().await {
            Ok(_) => {
                tracing::info!(bucket = self.bucket, "bucket made");
                Ok(())
            }
            // Another replica was faster.
            Err(error) if error.code() == Some("BucketAlreadyOwnedByYou") => Ok(()),
            Err(error) => Err(self.failed("make the bucket", "s3:CreateBucket", &error)),
        }
    }

    /// What an answer "not there" to a question about an image means: the image is absent, unless the bucket is.
    async fn absent<T>(&self) -> Result<Option<T>, MediaStoreError> {
        self.probe().await.map(|()| None)
    }

    /// What an answer "forbidden" to a question about an image means. To whoever may not list a bucket, S3 says so of
    /// everything that is not there.
    async fn forbidden<T>(
        &self,
        attempt: &'static str,
        object: &ObjectRef,
    ) -> Result<Option<T>, MediaStoreError> {
        // An answer to HEAD has no body that would name the reason.
        let asked = self.client.get_object().bucket(&self.bucket).key(&object.object_key).range("bytes=0-0");
        match asked.send().await {
            Err(error) if Fault::of(&error) == Fault::Refused => {
                self.faults.report(Fault::Refused, "s3:ListBucket, else s3:GetObject", &self.bucket);
                Ok(None)
            }
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.failed(attempt, "s3:GetObject", &error)),
            Ok(_) => Err(MediaStoreError::unavailable(attempt, "S3 answers GET and refuses HEAD")),
        }
    }

    /// The failure of a request that needs the right `right`. What a person can mend is said once.
    fn failed<E>(&self, attempt: &'static str, right: &'static str, error: &SdkError<E>) -> MediaStoreError
    where
        SdkError<E>: ProvideErrorMetadata + std::error::Error,
    {
        self.faults.report(Fault::of(error), right, &self.bucket);
        MediaStoreError::unavailable(attempt, DisplayErrorContext(error).to_string())
    }

    /// Whether a bucket is usable that may not be looked at. It is, for images, when the credential is known and just
    /// may not list: images are put and read under their keys.
    async fn probe_by_listing(&self, attempt: &'static str) -> Result<(), MediaStoreError> {
        match self.client.list_objects_v2().bucket(&self.bucket).max_keys(1).send().await {
            Ok(_) => Ok(()),
            Err(error) if Fault::of(&error) == Fault::Refused => {
                self.faults.report(Fault::Refused, "s3:ListBucket", &self.bucket);
                Ok(())
            }
            Err(error) => Err(self.failed(attempt, "s3:ListBucket", &error)),
        }
    }
}

/// An HTTP client on the one TLS provider of the program.
fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}

/// Timeouts of requests that a device or an operator waits for.
fn timeouts() -> TimeoutConfig {
    let seconds = Duration::from_secs;
    TimeoutConfig::builder()
        .connect_timeout(seconds(CONNECT_SECONDS_MAX))
        .read_timeout(seconds(READ_SECONDS_MAX))
        .operation_attempt_timeout(seconds(ATTEMPT_SECONDS_MAX))
        .operation_timeout(seconds(OPERATION_SECONDS_MAX))
        .build()
}

fn client(
    settings: &S3Settings,
    endpoint: Option<&str>,
    http: SharedHttpClient,
    timeouts: TimeoutConfig,
) -> Client {
    let credentials = Credentials::new(
        settings.access_key.clone(),
        settings.secret_key.clone(),
        None,
        None,
        "farmiq configuration",
    );
    // Without checksums of its own, which older servers do not know and presigned URLs must not have.
    let mut config = Builder::new();
    config.set_endpoint_url(endpoint.map(str::to_owned));
    let config = config
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(settings.region.clone()))
        .credentials_provider(credentials)
        .force_path_style(true)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX))
        .timeout_config(timeouts)
        .http_client(http)
        .build();
    Client::from_conf(config)
}

#[async_trait]
impl MediaStore for S3Store {
    async fn upload_url(&self, offer: UploadOffer<'_>) -> Result<String, MediaStoreError> {
        const ATTEMPT: &str = "sign an upload URL";
        let life = (offer.expires_at - offer.now).to_std().unwrap_or_default();
        let config =
            PresigningConfig::builder().start_time(SystemTime::from(offer.now)).expires_in(life).build();
        let config = config.map_err(|error| MediaStoreError::unavailable(ATTEMPT, error))?;
        // The type is not signed: devices differ in what they send.
        let request = self.presigner.put_object().bucket(&self.bucket).key(offer.object_key);
        let signed = request.presigned(config).await;
        let signed = signed.map_err(|error| MediaStoreError::unavailable(ATTEMPT, error))?;
        Ok(signed.uri().to_owned())
    }

    async fn head(&self, object: &ObjectRef) -> Result<Option<ObjectMeta>, MediaStoreError> {
        const ATTEMPT: &str = "look at an image";
        let head = self.client.head_object().bucket(&self.bucket).key(&object.object_key).send().await;
        match head {
            Ok(head) => {
                self.faults.forget();
                Ok(Some(meta(head.content_length, head.e_tag, head.content_type)))
            }
            Err(error) if is_absent(&error) => self.absent().await,
            Err(error) if is_forbidden(&error) => self.forbidden(ATTEMPT, object).await,
            Err(error) => Err(self.failed(ATTEMPT, "s3:GetObject", &error)),
        }
    }

    async fn open(&self, object: &ObjectRef, part: Part) -> Result<Option<OpenObject>, MediaStoreError> {
        const ATTEMPT: &str = "open an image";
        let request = self.client.get_object().bucket(&self.bucket).key(&object.object_key);
        match request.set_range(range(part)).send().await {
            Ok(got) => {
                self.faults.forget();
                let whole = got.content_range.as_deref().and_then(whole_bytes);
                let meta = meta(whole.or(got.content_length), got.e_tag, got.content_type);
                Ok(Some(OpenObject { meta, body: Box::new(StreamBody(got.body)) }))
            }
            Err(error) if is_absent(&error) => self.absent().await,
            Err(error) if is_forbidden(&error) => self.forbidden(ATTEMPT, object).await,
            Err(error) => Err(self.failed(ATTEMPT, "s3:GetObject", &error)),
        }
    }

    async fn delete(&self, object: &ObjectRef) -> Result<Option<u64>, MediaStoreError> {
        // S3 says nothing of what it deleted.
        let Some(meta) = self.head(object).await? else { return Ok(None) };
        let deleted = self.client.delete_object().bucket(&self.bucket).key(&object.object_key).send().await;
        match deleted {
            Ok(_) => Ok(Some(meta.size_bytes)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.failed("delete an image", "s3:DeleteObject", &error)),
        }
    }

    async fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<ListedObject>, MediaStoreError> {
        let keys_max = i32::try_from(limit).unwrap_or(i32::MAX);
        let request = self.client.list_objects_v2().bucket(&self.bucket).max_keys(keys_max);
        let page = request.set_start_after(after.map(str::to_owned)).send().await;
        let page = page.map_err(|error| self.failed("list the images", "s3:ListBucket", &error))?;
        let listed = |object: aws_sdk_s3::types::Object| {
            let at = object.last_modified?;
            Some(ListedObject {
                place: object.key?,
                size_bytes: unsigned(object.size),
                modified_at: Timestamp::from_timestamp(at.secs(), at.subsec_nanos())?,
            })
        };
        Ok(page.contents.unwrap_or_default().into_iter().filter_map(listed).collect())
    }

    async fn put_marker(&self, text: &str) -> Result<(), MediaStoreError> {
        let body = ByteStream::from(text.as_bytes().to_vec());
        let put = self.client.put_object().bucket(&self.bucket).key(MARKER).body(body).send().await;
        put.map(drop).map_err(|error| self.failed("mark the bucket", "s3:PutObject", &error))
    }

    async fn probe(&self) -> Result<(), MediaStoreError> {
        const ATTEMPT: &str = "look at the bucket";
        match self.client.head_bucket().bucket(&self.bucket).send().await {
            Ok(_) => Ok(()),
            Err(error) if is_absent(&error) && self.is_bucket_made => self.make_bucket().await,
            Err(error) if is_forbidden(&error) => self.probe_by_listing(ATTEMPT).await,
            Err(error) => Err(self.failed(ATTEMPT, "s3:ListBucket", &error)),
        }
    }
}

fn meta(size: Option<i64>, etag: Option<String>, content_type: Option<String>) -> ObjectMeta {
    let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
    ObjectMeta { size_bytes: unsigned(size), etag, content_type }
}

fn unsigned(size: Option<i64>) -> u64 {
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default()
}

/// The status, and not the modeled error, since an answer to HEAD has no body that would name one.
fn is_absent<E>(error: &SdkError<E>) -> bool {
    error.raw_response().is_some_and(|response| response.status().as_u16() == 404)
}

fn is_forbidden<E>(error: &SdkError<E>) -> bool {
    error.raw_response().is_some_and(|response| response.status().as_u16() == 403)
}

fn range(part: Part) -> Option<String> {
    match part {
        Part::Whole => None,
        Part::Range { first, last } => Some(format!("bytes={first}-{last}")),
    }
}

/// The size of the whole object, of the header `content-range`.
fn whole_bytes(content_range: &str) -> Option<i64> {
    content_range.rsplit('/').next()?.parse().ok()
}

struct StreamBody(ByteStream);

#[async_trait]
impl ObjectBody for StreamBody {
    async fn chunk(&mut self) -> Result<Option<Bytes>, MediaStoreError> {
        let chunk = self.0.try_next().await;
        chunk.map_err(|error| MediaStoreError::unavailable("read an image", error))
    }
}

#[cfg(test)]
mod tests {
    use schema::id::Uuid;
    use schema::wire;

    use super::*;

    #[tokio::test]
    async fn an_upload_url_is_for_the_host_that_devices_see_and_signs_nothing_else() {
        let store = S3Store::new(&S3Settings {
            endpoint: Some("http://10.0.0.1:9000".to_owned()),
            presign_endpoint: Some("https://media.barn.local:8443".to_owned()),
            access_key: "key".to_owned(),
            secret_key: "secret".to_owned(),
            region: "us-east-1".to_owned(),
            bucket: "farmiq-media".to_owned(),
            is_bucket_made: false,
        });
        let time = |text| wire::time::parse(text).expect("a time");
        let offer = UploadOffer {
            media_id: Uuid::nil(),
            object_key: "tenants/t-001/a.jpg",
            content_type: "image/jpeg",
            now: time("2026-02-12T09:32:15Z"),
            expires_at: time("2026-02-12T09:47:15Z"),
        };
        let url = store.upload_url(offer).await.expect("a URL");
        assert!(url.starts_with("https://media.barn.local:8443/farmiq-media/tenants/t-001/a.jpg?"), "{url}");
        for part in ["X-Amz-SignedHeaders=host&", "X-Amz-Expires=900&", "X-Amz-Date=20260212T093215Z"] {
            assert!(format!("{url}&").contains(part), "{part} in {url}");
        }
        assert!(!url.to_lowercase().contains("checksum") && !url.contains("secret"), "{url}");
    }
}
