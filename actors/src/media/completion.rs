//! Completion: an upload becomes a stored image, its event and its inference job, all in one transaction, once.

use std::sync::Arc;

use schema::clock::{Clock, Timestamp};
use schema::id::{self, Uuid};
use schema::metrics::{self, Label};
use schema::store::inference::{self, NewJob};
use schema::store::media::{self as rows, MediaObject, Upload, UploadStatus};
use schema::store::outbox::put::{self, NewEvent};
use schema::store::session::Sender;
use schema::store::{Conn, Store, StoreError, ledger, session};
use schema::wire::event::{self, MediaStored};
use sha2::{Digest, Sha256};

use super::filesystem::FinishedDraft;
use super::store::{MediaStore, MediaStoreError, ObjectMeta, ObjectRef, Part};
use crate::inference::InferenceHub;
use crate::picture::{self, PictureFault, PictureType};
use crate::sync::SyncWake;
use crate::wake::Wake;

/// Types that an S3 server gives an object whose upload named none.
const TYPES_UNNAMED: [&str; 2] = ["binary/octet-stream", "application/octet-stream"];
/// How often a completion is begun again because the image was replaced meanwhile.
const ATTEMPTS_MAX: u32 = 5;

/// What completed an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A call of the device.
    Explicit,
    /// An event of the device that names the image.
    ImageEvent,
    /// Its bytes came through this engine, and nobody said more.
    Upload,
    /// Its URL expired.
    Expiry,
}

impl Label for Mode {
    fn label(&self) -> &'static str {
        match self {
            Self::Explicit => "explicit",
            Self::ImageEvent => "image_event",
            Self::Upload => "upload",
            Self::Expiry => "expiry",
        }
    }
}

/// What is to be completed, and what is said of it.
#[derive(Clone, Debug)]
pub struct Completion {
    /// What completes it.
    pub mode: Mode,
    /// Tenant.
    pub tenant_id: String,
    /// Farm.
    pub farm_id: String,
    /// Barn.
    pub barn_id: String,
    /// The camera.
    pub device_id: String,
    /// Key.
    pub object_key: String,
    /// Its type, where somebody says so; it must be that of the store then.
    pub mime_type: Option<String>,
    /// Its size, where somebody says so; it must be that of the store then.
    pub size_bytes: Option<i64>,
    /// When it was taken, where somebody says so.
    pub captured_at: Option<Timestamp>,
    /// Its session, where somebody says so.
    pub session_id: Option<String>,
    /// Trace id of what completes it, for an offer that named none.
    pub trace_id: Option<String>,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct Completed {
    /// The stored image.
    pub object: MediaObject,
    /// The inference job that this completion made.
    pub inference_job_id: Option<Uuid>,
}

/// Why an image was not completed.
#[derive(Debug, thiserror::Error)]
pub enum CompletionError {
    /// The image is not in the store.
    #[error("the image is not in the store")]
    Absent,
    /// The key is another tenant's.
    #[error("the key belongs to somebody else")]
    Foreign,
    /// The store has another size.
    #[error("the stored image has {stored} bytes")]
    SizeMismatch {
        /// Bytes in the store.
        stored: i64,
    },
    /// The store has another type.
    #[error("the stored image is {stored}")]
    TypeMismatch {
        /// The type in the store.
        stored: String,
    },
    /// What the store has is no picture.
    #[error(transparent)]
    NoPicture(PictureFault),
    /// The image was replaced again and again.
    #[error("the image is being replaced")]
    Unsteady,
    /// The place of the images failed.
    #[error(transparent)]
    Media(#[from] MediaStoreError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CompletionError {
    /// Whether the store has nothing that could be the image, as things stand.
    pub(super) fn leaves_no_image(&self) -> bool {
        match self {
            Self::Absent | Self::SizeMismatch { .. } | Self::NoPicture(_) => true,
            Self::Foreign | Self::TypeMismatch { .. } | Self::Unsteady | Self::Media(_) | Self::Store(_) => {
                false
            }
        }
    }
}

/// What became of bytes that came through this engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// They are the image now.
    Stored,
    /// The image is complete and has these very bytes.
    Same,
    /// The image is complete and has other bytes.
    Different,
}

/// Completes images. Cloning shares everything.
#[derive(Clone)]
pub struct Completer {
    /// The database.
    pub store: Store,
    /// Wall time.
    pub clock: Clock,
    /// The place of the images.
    pub media: Arc<dyn MediaStore>,
    /// Its name on the wire.
    pub bucket: String,
    /// Where jobs go.
    pub inference: InferenceHub,
    /// Has events sent.
    pub wake_sync: SyncWake,
    /// Has open uploads looked at.
    pub wake: Wake,
}

impl Completer {
    /// Completes an image, or finds that it is complete already.
    ///
    /// # Errors
    /// [`CompletionError`]; nothing was written then.
    pub async fn complete(&self, completion: &Completion) -> Result<Completed, CompletionError> {
        for _ in 0..ATTEMPTS_MAX {
            if let Some(completed) = self.attempt(completion).await? {
                return Ok(completed);
            }
        }
        Err(CompletionError::Unsteady)
    }

    /// Puts received bytes into the place of an upload, unless it is complete.
    ///
    /// # Errors
    /// When the directory or the database fails; the upload is as it was then.
    pub async fn receive(&self, upload: &Upload, draft: FinishedDraft) -> Result<Received, CompletionError> {
        let now = self.clock.now();
        let received = self
            .store
            .run("media_receive", async |conn| {
                conn.transaction("media_receive", async |conn| {
                    let tenant_id = upload.tenant_id.as_str();
                    let locked = rows::lock_upload(conn, tenant_id, upload.media_id).await?;
                    if locked.is_none_or(|locked| locked.status == UploadStatus::Completed) {
                        let object = rows::object(conn, Some(tenant_id), upload.media_id).await?;
                        let stored = object.and_then(|object| object.sha256);
                        let is_same = stored.as_deref() == Some(draft.written.sha256.as_str());
                        return Ok(Ok(if is_same { Received::Same } else { Received::Different }));
                    }
                    let written = draft.written.clone();
                    // Under the lock, so that the row tells of the bytes that lie there.
                    if let Err(error) = draft.commit().await {
                        return Ok(Err(error));
                    }
                    rows::received(conn, upload, signed(written.size_bytes), &written.sha256, now).await?;
                    Ok(Ok(Received::Stored))
                })
                .await
            })
            .await??;
        self.wake.wake();
        Ok(received)
    }

    /// One attempt; `None` when the image was replaced meanwhile.
    async fn attempt(&self, completion: &Completion) -> Result<Option<Completed>, CompletionError> {
        let (upload, object) = self.known(completion).await?;
        if let Some(object) = object {
            return self.again(completion, object).await.map(Some);
        }
        let path = upload.as_ref().and_then(|upload| upload.path.clone());
        let place = ObjectRef { object_key: completion.object_key.clone(), path };
        let meta = self.media.head(&place).await?.ok_or(CompletionError::Absent)?;
        let mime_type = mime_type(completion, upload.as_ref(), &meta, self.media.is_directory())?;
        let size_bytes = signed(meta.size_bytes);
        check_size(completion, size_bytes)?;
        check_offer(upload.as_ref(), size_bytes)?;
        self.check_first_bytes(&place, &meta).await?;
        let Some(sha256) = self.sha256(upload.as_ref(), &place, size_bytes).await? else { return Ok(None) };
        let object = self.object(completion, upload.as_ref(), place, meta, mime_type, sha256);
        self.write(completion, upload, object).await
    }

    /// The upload and the image of a key, which must be the tenant's own.
    async fn known(
        &self,
        completion: &Completion,
    ) -> Result<(Option<Upload>, Option<MediaObject>), CompletionError> {
        let (bucket, key) = (&self.bucket, &completion.object_key);
        let (upload, object) = self
            .store
            .run("media_known", async |conn| {
                let upload = rows::upload_of_key(conn, bucket, key).await?;
                Ok((upload, rows::object_of_key(conn, None, bucket, key).await?))
            })
            .await?;
        let owners = [
            upload.as_ref().map(|upload| &upload.tenant_id),
            object.as_ref().map(|object| &object.tenant_id),
        ];
        if owners.into_iter().flatten().any(|owner| *owner != completion.tenant_id) {
            return Err(CompletionError::Foreign);
        }
        Ok((upload, object))
    }

    /// The image is complete: what is said of it must agree, and may add the session.
    async fn again(
        &self,
        completion: &Completion,
        mut object: MediaObject,
    ) -> Result<Completed, CompletionError> {
        if let Some(stored) = object.size_bytes {
            check_size(completion, stored)?;
        }
        if completion.mime_type.as_ref().is_some_and(|said| *said != object.mime_type) {
            return Err(CompletionError::TypeMismatch { stored: object.mime_type });
        }
        if let (None, Some(session_id)) = (&object.session_id, &completion.session_id) {
            let (tenant_id, now) = (object.tenant_id.as_str(), self.clock.now());
            let is_adopted = self
                .store
                .run("media_adopt", async |conn| {
                    conn.transaction("media_adopt", async |conn| {
                        session::lock(conn, tenant_id, session_id).await?;
                        let (session, sender) = ((tenant_id, session_id.as_str()), Sender::default());
                        session::adopt_image(conn, session, object.id, &sender, now).await
                    })
                    .await
                })
                .await?;
            object.session_id = is_adopted.then(|| session_id.clone());
        }
        Ok(Completed { object, inference_job_id: None })
    }

    /// Whether the stored bytes begin as a picture does. What came through this engine was looked at as a whole.
    async fn check_first_bytes(&self, place: &ObjectRef, meta: &ObjectMeta) -> Result<(), CompletionError> {
        if meta.size_bytes == 0 {
            return Err(CompletionError::NoPicture(PictureFault::Empty));
        }
        let part = Part::Range { first: 0, last: meta.size_bytes.min(picture::FIRST_BYTES as u64) - 1 };
        let mut open = self.media.open(place, part).await?.ok_or(CompletionError::Absent)?;
        let mut first_bytes = Vec::with_capacity(picture::FIRST_BYTES);
        while let Some(chunk) = open.body.chunk().await? {
            first_bytes.extend_from_slice(&chunk);
        }
        let picture = PictureType::of(&first_bytes);
        picture.map(drop).ok_or(CompletionError::NoPicture(PictureFault::Unknown))
    }

    /// The hash of an image in a directory: of its upload, or computed when that tells of other bytes. The outer
    /// `None`: the image changed meanwhile; the inner: a bucket computes none.
    async fn sha256(
        &self,
        upload: Option<&Upload>,
        place: &ObjectRef,
        size_bytes: i64,
    ) -> Result<Option<Option<String>>, CompletionError> {
        if !self.media.is_directory() {
            return Ok(Some(None));
        }
        let noted = upload.filter(|upload| upload.size_bytes == Some(size_bytes));
        if let Some(sha256) = noted.and_then(|upload| upload.sha256.clone()) {
            return Ok(Some(Some(sha256)));
        }
        let mut open = self.media.open(place, Part::Whole).await?.ok_or(CompletionError::Absent)?;
        let (mut hash, mut read_bytes) = (Sha256::new(), 0);
        while let Some(chunk) = open.body.chunk().await? {
            hash.update(&chunk);
            read_bytes += chunk.len() as u64;
        }
        let is_same = signed(read_bytes) == size_bytes;
        Ok(is_same.then(|| Some(hex::encode(hash.finalize()))))
    }

    fn object(
        &self,
        completion: &Completion,
        upload: Option<&Upload>,
        place: ObjectRef,
        meta: ObjectMeta,
        mime_type: String,
        sha256: Option<String>,
    ) -> MediaObject {
        let now = self.clock.now();
        let said = completion.captured_at.or_else(|| upload.and_then(|upload| upload.captured_at));
        let session_id =
            completion.session_id.clone().or_else(|| upload.and_then(|upload| upload.session_id.clone()));
        MediaObject {
            id: id::media_id(&completion.tenant_id, &self.bucket, &completion.object_key),
            tenant_id: completion.tenant_id.clone(),
            farm_id: completion.farm_id.clone(),
            barn_id: completion.barn_id.clone(),
            device_id: completion.device_id.clone(),
            session_id,
            bucket: self.bucket.clone(),
            object_key: place.object_key,
            path: place.path,
            etag: meta.etag.or_else(|| sha256.clone()),
            mime_type,
            size_bytes: Some(signed(meta.size_bytes)),
            sha256_source: sha256.is_some().then(|| "computed".to_owned()),
            sha256,
            declared_sha256: None,
            captured_at: said.unwrap_or(now),
            created_at: now,
        }
    }

    /// The transaction. `None`: somebody was faster, be it with another completion or with other bytes.
    async fn write(
        &self,
        completion: &Completion,
        upload: Option<Upload>,
        object: MediaObject,
    ) -> Result<Option<Completed>, CompletionError> {
        let now = object.created_at;
        let trace_id = trace_id(upload.as_ref(), completion);
        let model_version = self.inference.model_version();
        let completed = self
            .store
            .run("media_complete", async |conn| {
                conn.transaction("media_complete", async |conn| {
                    let locked = rows::lock_upload(conn, &object.tenant_id, object.id).await?;
                    let bytes = |upload: &Option<Upload>| {
                        upload.as_ref().map(|upload| (upload.size_bytes, upload.sha256.clone()))
                    };
                    if bytes(&locked) != bytes(&upload) {
                        return Ok(None);
                    }
                    let hashes = rows::declared_hashes(conn, &object.tenant_id, object.id).await?;
                    let mut object = object.with_declared(&hashes);
                    object.session_id = session_of(conn, &object).await?;
                    if !rows::put_object(conn, &object).await? {
                        return Ok(None);
                    }
                    rows::settle(conn, &object.tenant_id, object.id, now).await?;
                    ledger::count_one(conn, &object.tenant_id, ledger::Outcome::Stored, now).await?;
                    let event = event(&object, upload.as_ref(), &trace_id);
                    put::put(conn, std::slice::from_ref(&event), now).await?;
                    let mut inference_job_id = None;
                    if self.inference.is_on_complete() {
                        let job = job(&object, &model_version, &trace_id);
                        inference_job_id = Some(inference::put_job(conn, &job, now).await?);
                    }
                    Ok(Some(Completed { object, inference_job_id }))
                })
                .await
            })
            .await?;
        let Some(completed) = completed else { return Ok(None) };
        metrics::media_completed(completion.mode).increment(1);
        let MediaObject { id: media_id, tenant_id, session_id, .. } = &completed.object;
        let mode = completion.mode.label();
        tracing::debug!(%media_id, tenant_id, session_id, trace_id, mode, "image completed");
        if completed.object.is_other_than_declared() {
            super::report_other_than_declared(&completed.object);
        }
        self.wake_sync.wake();
        if let Some(job_id) = completed.inference_job_id {
            self.inference.announce(tenant_id, job_id, session_id.is_some());
        }
        Ok(Some(completed))
    }
}

/// The session an image goes to: the one that is said, else the one that its barn has bound it to, unless that belongs to
/// another barn.
async fn session_of(conn: &Conn, object: &MediaObject) -> Result<Option<String>, StoreError> {
    let MediaObject { tenant_id, farm_id, barn_id, .. } = object;
    let session_id = match &object.session_id {
        Some(session_id) => Some(session_id.clone()),
        None => session::of_image(conn, tenant_id, object.id, farm_id, barn_id).await?,
    };
    let Some(session_id) = session_id else { return Ok(None) };
    let is_elsewhere = session::is_elsewhere(conn, (tenant_id, &session_id), farm_id, barn_id).await?;
    Ok((!is_elsewhere).then_some(session_id))
}

fn check_size(completion: &Completion, stored: i64) -> Result<(), CompletionError> {
    if completion.size_bytes.is_some_and(|said| said != stored) {
        return Err(CompletionError::SizeMismatch { stored });
    }
    Ok(())
}

/// An upload that was announced with another size is not the image that was meant. A size of 0 announces nothing.
fn check_offer(upload: Option<&Upload>, stored: i64) -> Result<(), CompletionError> {
    let announced = upload.and_then(|upload| upload.content_length).filter(|bytes| *bytes > 0);
    if announced.is_some_and(|announced| announced != stored) {
        return Err(CompletionError::SizeMismatch { stored });
    }
    Ok(())
}

/// The type of an image: what is said must be what the store has, where the store has one. A directory keeps none, but
/// took nothing but the type that was offered.
fn mime_type(
    completion: &Completion,
    upload: Option<&Upload>,
    meta: &ObjectMeta,
    is_directory: bool,
) -> Result<String, CompletionError> {
    let offered = upload.map(|upload| upload.content_type.as_str());
    let kept = meta.content_type.as_deref().filter(|kept| !TYPES_UNNAMED.contains(kept));
    let stored = if is_directory { offered } else { kept };
    match (completion.mime_type.as_deref(), stored) {
        (Some(said), Some(stored)) if said != stored => {
            Err(CompletionError::TypeMismatch { stored: stored.to_owned() })
        }
        (said, stored) => Ok(said.or(stored).or(offered).unwrap_or("image/jpeg").to_owned()),
    }
}

/// The trace that the device began with the offer, else that of what completes the image.
fn trace_id(upload: Option<&Upload>, completion: &Completion) -> String {
    let offered = upload.and_then(|upload| upload.trace_id.clone());
    offered.or_else(|| completion.trace_id.clone()).unwrap_or_else(|| id::new_id().to_string())
}

fn event(object: &MediaObject, upload: Option<&Upload>, trace_id: &str) -> NewEvent {
    let payload = MediaStored {
        media_id: object.id,
        object_id: object.id,
        object_key: &object.object_key,
        path: &object.object_key,
        bucket: &object.bucket,
        etag: object.etag.as_deref(),
        captured_at: object.captured_at,
        mime_type: &object.mime_type,
        size_bytes: object.size_bytes.unwrap_or_default(),
        sha256: object.sha256.as_deref(),
        session_id: object.session_id.as_deref(),
        tenant_id: &object.tenant_id,
        farm_id: &object.farm_id,
        barn_id: &object.barn_id,
        device_id: &object.device_id,
    };
    NewEvent {
        id: id::media_stored_event_id(object.id),
        tenant_id: object.tenant_id.clone(),
        farm_id: object.farm_id.clone(),
        barn_id: object.barn_id.clone(),
        device_id: object.device_id.clone(),
        station_id: upload.and_then(|upload| upload.station_id.clone()),
        session_id: object.session_id.clone(),
        event_type: event::MEDIA_STORED,
        occurred_at: object.captured_at,
        order_at: None,
        trace_id: trace_id.to_owned(),
        payload: serde_json::to_value(payload).expect("texts and numbers always serialize"),
    }
}

fn job<'a>(object: &'a MediaObject, model_version: &'a str, trace_id: &'a str) -> NewJob<'a> {
    NewJob {
        tenant_id: &object.tenant_id,
        farm_id: &object.farm_id,
        barn_id: &object.barn_id,
        device_id: &object.device_id,
        media_id: object.id,
        object_key: &object.object_key,
        session_id: object.session_id.as_deref(),
        model_version,
        trace_id: Some(trace_id),
    }
}

fn signed(size_bytes: u64) -> i64 {
    i64::try_from(size_bytes).unwrap_or(i64::MAX)
}
