//! Weighing stations as they really are: a camera that uploads over HTTP, and a line that publishes over MQTT.

pub mod agent;
mod camera;
mod line;
pub mod vision;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use schema::clock::Timestamp;

use crate::device::{Station, Weighing};
use crate::mqtt::Login;
use crate::publisher::Meter;
use crate::stream::Tls;

use agent::Agent;
pub use camera::Upload;
use vision::Vision;

/// How a station reaches the engine.
#[derive(Clone, Debug)]
pub struct Access {
    /// `host:port` of the broker, or its URL.
    pub broker: String,
    /// How MQTT is encrypted.
    pub tls: Option<Tls>,
    /// `http://host:port` of the HTTP API.
    pub edge: String,
    /// Identity on MQTT.
    pub login: Login,
    /// Where messages are counted.
    pub meter: Arc<Meter>,
    /// Where everything else is counted.
    pub tally: Arc<Tally>,
}

/// A station of either kind.
#[derive(Debug)]
pub enum AnyStation {
    /// weight-vision-service.
    Vision(Box<Vision>),
    /// iot-weighvision-agent.
    Agent(Box<Agent>),
}

impl AnyStation {
    /// Stations with an even index are of the kind weight-vision-service, the others are agents. Each has its bad
    /// habits in this share of its weighings.
    #[must_use]
    pub fn new(index: usize, station: Station, access: &Access, bad_share: f64) -> Self {
        if index.is_multiple_of(2) {
            Self::Vision(Box::new(Vision::new(station, access, bad_share)))
        } else {
            Self::Agent(Box::new(Agent::new(station, access, bad_share)))
        }
    }

    /// Weighs a bird with new pictures.
    ///
    /// # Errors
    /// When the pictures could not be uploaded: the device then begins again with new ids.
    pub async fn weigh(&mut self, weighing: Weighing<'_>) -> Result<Course> {
        match self {
            Self::Vision(vision) => vision.weigh(weighing).await,
            Self::Agent(agent) => agent.weigh(weighing).await,
        }
    }

    /// Leaves the broker in order.
    pub async fn close(&mut self) {
        match self {
            Self::Vision(vision) => vision.close().await,
            Self::Agent(agent) => agent.close().await,
        }
    }
}

/// What many stations count together.
#[derive(Debug, Default)]
pub struct Tally {
    /// Weighings that went through.
    pub weighings: AtomicU64,
    /// Pictures that were uploaded.
    pub images: AtomicU64,
    /// Attempts that failed and were made again.
    pub retries: AtomicU64,
    /// Calls and captures that were given up.
    pub failures: AtomicU64,
}

impl Tally {
    /// The counts in words.
    #[must_use]
    pub fn line(&self) -> String {
        let [weighings, images, retries, failures] =
            [&self.weighings, &self.images, &self.retries, &self.failures]
                .map(|counter| counter.load(Ordering::Relaxed));
        format!("{weighings} weighings, {images} images, {retries} attempts repeated, {failures} given up")
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A weighing of which everything was answered or acknowledged: what the cloud must have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weighed {
    /// Its session.
    pub session_id: String,
    /// The weight the pictures were drawn for.
    pub true_kg: f64,
    /// Weights that were bound to it.
    pub weights: usize,
    /// Media ids of its pictures.
    pub media_ids: Vec<String>,
    /// Event ids that the cloud must see.
    pub event_ids: Vec<String>,
}

/// A weighing that went through, with what a measurement and a check of the store need.
#[derive(Debug)]
pub struct Course {
    /// What the cloud must have.
    pub weighed: Weighed,
    /// Each picture and when its last byte had been taken.
    pub uploads: Vec<(Upload, Timestamp)>,
    /// From the call of finalize to its answer, when there was one.
    pub finalize: Option<Duration>,
}

/// How often and how soon an attempt is made again.
struct Patience<'a> {
    tally: &'a Tally,
    wait_seconds: std::slice::Iter<'static, u64>,
}

impl<'a> Patience<'a> {
    fn new(tally: &'a Tally, wait_seconds: &'static [u64]) -> Self {
        Self { tally, wait_seconds: wait_seconds.iter() }
    }

    /// Waits until it is time for the next attempt; gives the error back when there is none.
    async fn after(&mut self, error: anyhow::Error) -> Result<()> {
        let Some(seconds) = self.wait_seconds.next() else {
            count(&self.tally.failures);
            return Err(error);
        };
        count(&self.tally.retries);
        tokio::time::sleep(Duration::from_secs(*seconds)).await;
        Ok(())
    }
}
