//! The watcher of uploads: completes what nobody completes by a call, and ends what never came.
//!
//! A claim leaves an upload alone for a while, so that replicas share the work and an image that is not there yet is
//! looked for again and again until its URL has expired.

use std::time::Duration;

use schema::clock::deadline::is_due;
use schema::metrics;
use schema::store::StoreError;
use schema::store::media::{self as rows, Due, DueUpload, Upload, UploadStatus};
use tokio::time::Instant;

use super::completion::{Completer, Completion, CompletionError, Mode};
use crate::chore::{Chore, ChoreError};
use crate::gauges::Measured;

/// Uploads of one claim.
const UPLOADS_PER_CLAIM_MAX: i64 = 50;
/// Seconds until an upload that is not there yet is looked for again.
const LOOK_AGAIN_SECONDS: i64 = 10;
/// How long to wait for a hint.
const POLL: Duration = Duration::from_secs(1);
/// How often the size of all images is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(60);

/// The chore.
#[derive(Clone)]
pub struct UploadWatch {
    /// Completes.
    pub completer: Completer,
    /// How long received bytes wait for a call or an event.
    pub implicit_grace_seconds: i64,
    /// The longest that an offer is good for.
    pub offer_max: chrono::Duration,
    /// How often the store is asked at the start before anything else is done; each time makes a missing bucket.
    pub bootstrap_attempts: u32,
    /// How long to wait between these attempts.
    pub bootstrap_delay: Duration,
    /// When the images were last measured.
    pub measured_at: Option<Instant>,
    /// What of it is shown.
    pub gauges: Measured,
}

impl Chore for UploadWatch {
    const NAME: &'static str = "uploads";
    /// Images wait for it.
    const RETRY_MAX: Duration = Duration::from_secs(10);
    type Error = CompletionError;

    async fn run(&mut self) -> Result<Duration, CompletionError> {
        if let Some(wait) = self.bootstrap().await {
            return Ok(wait);
        }
        self.measure().await;
        let due = self.claim().await?;
        if due.is_empty() {
            self.completer.wake.wait(POLL).await;
        }
        for due in due {
            self.look(due).await?;
        }
        Ok(Duration::ZERO)
    }
}

impl ChoreError for CompletionError {
    fn is_outage(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_outage())
    }
}

impl UploadWatch {
    /// Waits for the store at the start; `Some`: how long until the next attempt.
    async fn bootstrap(&mut self) -> Option<Duration> {
        self.bootstrap_attempts = self.bootstrap_attempts.checked_sub(1)?;
        match self.completer.media.probe().await {
            Ok(()) => {
                self.bootstrap_attempts = 0;
                None
            }
            Err(error) => {
                let cause = schema::store::cause(&error);
                let attempts_left = self.bootstrap_attempts;
                tracing::warn!(%error, cause, attempts_left, "waiting for the store of the images");
                Some(self.bootstrap_delay)
            }
        }
    }

    async fn claim(&self) -> Result<Vec<DueUpload>, StoreError> {
        let due = Due {
            now: self.completer.clock.now(),
            grace: chrono::Duration::seconds(self.implicit_grace_seconds),
            look_again: chrono::Duration::seconds(LOOK_AGAIN_SECONDS),
            offer_max: self.offer_max,
            uploads_max: UPLOADS_PER_CLAIM_MAX,
        };
        let store = &self.completer.store;
        store.run("media_claim_due", async |conn| rows::claim_due(conn, due).await).await
    }

    /// Looks at one upload. Only what concerns all of them is a failure.
    async fn look(&self, due: DueUpload) -> Result<(), CompletionError> {
        let is_expired = is_due(due.upload.expires_at, self.completer.clock.now(), self.offer_max);
        let completion = completion(&due);
        match self.completer.complete(&completion).await {
            Ok(_) => Ok(()),
            // What is there is no image of the offer: until its URL expires, another may come in its place.
            Err(error) if error.leaves_no_image() && is_expired => self.expire(&due.upload, &error).await,
            Err(error) if error.leaves_no_image() => Ok(()),
            Err(error) if self.concerns_all(&error).await => Err(error),
            Err(error) => {
                let cause = schema::store::cause(&error);
                let (media_id, trace_id) = (due.upload.media_id, due.upload.trace_id.as_deref());
                tracing::warn!(%error, cause, %media_id, trace_id, "image is not completed, looking again");
                Ok(())
            }
        }
    }

    /// Whether the other uploads would fail as well, because the database or the whole store is away.
    async fn concerns_all(&self, error: &CompletionError) -> bool {
        match error {
            CompletionError::Store(error) => !error.is_data(),
            CompletionError::Media(_) => self.completer.media.probe().await.is_err(),
            CompletionError::Absent
            | CompletionError::Foreign
            | CompletionError::SizeMismatch { .. }
            | CompletionError::TypeMismatch { .. }
            | CompletionError::NoPicture(_)
            | CompletionError::Unsteady => false,
        }
    }

    async fn expire(&self, upload: &Upload, reason: &CompletionError) -> Result<(), CompletionError> {
        let store = &self.completer.store;
        if store.run("media_expire", async |conn| rows::expire(conn, upload).await).await? {
            metrics::media_expired().increment(1);
            if !matches!(reason, CompletionError::Absent) {
                let Upload { media_id, tenant_id, device_id, trace_id, .. } = upload;
                tracing::warn!(%reason, %media_id, tenant_id, device_id, trace_id, "upload expired without an image");
            }
        }
        Ok(())
    }

    async fn measure(&mut self) {
        if self.measured_at.is_some_and(|at| at.elapsed() < MEASURE_EVERY) {
            return;
        }
        self.measured_at = Some(Instant::now());
        let store = &self.completer.store;
        let bytes =
            store.reads().run("media_stored_bytes", async |conn| rows::stored_bytes(conn).await).await;
        let gauge = metrics::media_stored_bytes();
        if let Some(bytes) = self.gauges.found(bytes, [gauge.clone()]) {
            gauge.set(bytes as f64);
        }
    }
}

/// What completes an upload that is due: the device's event, else the bytes that came through us, else its end.
fn completion(due: &DueUpload) -> Completion {
    let upload = &due.upload;
    let (session_id, trace_id) = due.binding.clone().unzip();
    let mode = match (&due.binding, upload.status) {
        (Some(_), _) => Mode::ImageEvent,
        (None, UploadStatus::Uploaded) => Mode::Upload,
        (None, UploadStatus::Presigned | UploadStatus::Completed | UploadStatus::Expired) => Mode::Expiry,
    };
    Completion {
        mode,
        tenant_id: upload.tenant_id.clone(),
        farm_id: upload.farm_id.clone(),
        barn_id: upload.barn_id.clone(),
        device_id: upload.device_id.clone(),
        object_key: upload.object_key.clone(),
        mime_type: None,
        size_bytes: None,
        captured_at: None,
        session_id,
        trace_id: trace_id.flatten(),
    }
}
