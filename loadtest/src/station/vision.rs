//! A station that runs weight-vision-service: uploads, then the session over HTTP, then all of it again over MQTT.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use schema::clock::{Clock, Timestamp};

use super::camera::Camera;
use super::line::Line;
use super::{Access, Course, Patience, Upload, Weighed, count};
use crate::device::{Call, EventIds, ROLES, Station, Weighing};
use crate::render;

/// How long the device waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Waits between its attempts to upload a picture.
const UPLOAD_WAIT_SECONDS: [u64; 4] = [1, 2, 4, 8];
/// Waits between its attempts of a session call.
const CALL_WAIT_SECONDS: [u64; 2] = [1, 2];

/// A station with its connections.
#[derive(Debug)]
pub struct Vision {
    station: Station,
    camera: Camera,
    line: Line,
    random: StdRng,
    bad_share: f64,
}

/// The pictures of a bird: one drawing per role.
pub fn draw(weight_kg: f64, random: &mut StdRng) -> Vec<Bytes> {
    ROLES.iter().map(|_| Bytes::from(render::render(weight_kg, random.random()).jpeg)).collect()
}

impl Vision {
    /// A station that in this share of its weighings also ends sessions before it begins them, and repeats calls.
    #[must_use]
    pub fn new(station: Station, access: &Access, bad_share: f64) -> Self {
        let camera = Camera::new(access, TIMEOUT);
        let line = Line::new(access, access.login.clone());
        Self { station, camera, line, random: StdRng::from_os_rng(), bad_share }
    }

    /// Weighs a bird of which it takes pictures.
    ///
    /// # Errors
    /// As of [`weigh_pictured`](Self::weigh_pictured).
    pub async fn weigh(&mut self, weighing: Weighing<'_>) -> Result<Course> {
        let pictures = draw(weighing.weight_kg, &mut self.random);
        self.weigh_pictured(weighing, &pictures).await
    }

    /// Weighs a bird of which these are the pictures.
    ///
    /// # Errors
    /// When the pictures could not be uploaded: the device then begins again with new ids.
    pub async fn weigh_pictured(&mut self, weighing: Weighing<'_>, pictures: &[Bytes]) -> Result<Course> {
        let mut uploads = Vec::new();
        for (role, jpeg) in ROLES.iter().zip(pictures) {
            uploads.push(self.upload(weighing.session, role, jpeg).await?);
        }
        let images: Vec<_> = uploads.iter().map(|(upload, _)| upload.image.clone()).collect();
        let ids = EventIds::new(images.len(), &mut self.random);
        let mut calls = self.station.vision_calls(weighing, &images, &ids);
        if self.random.random_bool(self.bad_share) {
            // The end overtakes the beginning, and the weight comes twice.
            calls.rotate_right(1);
            let weight = calls[2].clone();
            calls.push(weight);
        }
        let mut event_ids: Vec<_> =
            uploads.iter().filter_map(|(upload, _)| upload.event_id.clone()).collect();
        event_ids.extend(uploads.iter().filter_map(|(upload, _)| upload.job_id.clone()));
        let mut finalize = None;
        for call in &calls {
            let began = Instant::now();
            let is_answered = self.call(call).await;
            if is_answered && call.path.ends_with("/finalize") {
                finalize = Some(began.elapsed());
            }
        }
        for message in self.station.vision_messages(weighing, &images, &ids) {
            self.line.put(&message.publish).await;
            event_ids.extend(message.expected);
        }
        count(&self.camera.tally.weighings);
        let media_ids = images.into_iter().map(|image| image.media_id).collect();
        let session_id = weighing.session.to_owned();
        let weighed = Weighed { session_id, true_kg: weighing.weight_kg, weights: 1, media_ids, event_ids };
        Ok(Course { weighed, uploads, finalize })
    }

    /// Leaves the broker in order.
    pub async fn close(&mut self) {
        self.line.close().await;
    }

    async fn upload(&self, session: &str, role: &'static str, jpeg: &Bytes) -> Result<(Upload, Timestamp)> {
        let mut patience = Patience::new(&self.camera.tally, &UPLOAD_WAIT_SECONDS);
        let mut upload = loop {
            match self.camera.upload(&self.station, session, role, jpeg).await {
                Ok(upload) => break upload,
                Err(error) => patience.after(error).await?,
            }
        };
        let taken_at = Clock::system().now();
        let mut patience = Patience::new(&self.camera.tally, &UPLOAD_WAIT_SECONDS);
        while let Err(error) = self.camera.complete(&self.station, session, &mut upload).await {
            patience.after(error).await?;
        }
        Ok((upload, taken_at))
    }

    /// A call that fails for good is only counted: the message of the same id follows over MQTT.
    async fn call(&self, call: &Call) -> bool {
        let mut patience = Patience::new(&self.camera.tally, &CALL_WAIT_SECONDS);
        while let Err(error) = self.try_call(call).await {
            if patience.after(error).await.is_err() {
                return false;
            }
        }
        true
    }

    async fn try_call(&self, call: &Call) -> Result<()> {
        let (status, answer) = self.camera.post(&call.path, None, &call.body).await?;
        ensure!(matches!(status, 200..=202), "{} answered {status}: {answer}", call.path);
        Ok(())
    }
}
